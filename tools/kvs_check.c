/*
 * kvs_check.c - the offline checker: says whether a data directory is sound, what is in it, and saves what is good.
 *
 * Happy path: parse options, open the directory, check it (engine/check.h), print the report; with --salvage make the
 * new store, check that too, and print both.
 *
 * Failure modes and exit codes: 2 for a command line that makes no sense and for a directory that cannot be checked or
 * salvaged; 1 for damage, or when standard output cannot be written.
 */
#include "check_print.h"
#include "tool_cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define PROGRAM "kvs-check"

enum { EXIT_SOUND = 0, EXIT_DAMAGED = 1, EXIT_CANNOT = 2, NUMBERS_MAX = 4096 };
#define PROGRESS_NS   100000000ull
#define LOCK_PAUSE_NS 20000000ull
enum { LOCK_PAUSES = 50, LOCK_DEAD_PAUSES = 500 };

struct arguments {
    const char *dir;
    const char *salvage;
    bool json, dump, keys_only, no_lock;
    uint32_t numbers[NUMBERS_MAX];
    size_t number_count;
};

static const char help_text[] =
    "usage: " PROGRAM " [--json] [--salvage OUT] [--no-lock] DIR\n"
    "       " PROGRAM " --dump [--keys-only] [--no-lock] DIR [SEGMENT...]\n"
    "\n"
    "Checks a data directory that no kvs-node uses. Reads every byte that counts: both copies of\n"
    "the superblock, the manifest, and of every segment in use all batches and records, against\n"
    "their checksums and against each other. Judges by the rules of a start. Changes nothing in DIR.\n"
    "\n"
    "The report says what the store is, how many records and keys it has, how much of its space is\n"
    "live and dead, and for each damage: file and offset, what is wrong, which log sequence numbers\n"
    "(LSN) are concerned, and how many keys at most. A note is a thing that nothing needs, and that a\n"
    "power loss may leave behind.\n"
    "\n"
    "  --json           print the report as one JSON object\n"
    "  --salvage OUT    make a new store in OUT, which must be empty or not exist, and put into it the\n"
    "                   newest good record of every key. Behind damage, records count that prove\n"
    "                   themselves. Needs as much space as the live records. The new store is checked.\n"
    "  --dump           print records instead, as they lie in the segments: segment, offset, LSN, put\n"
    "                   or delete, bytes of the key, bytes of the value, key. Old versions and what was\n"
    "                   deleted are among them. Segments that are named are printed whatever they are to\n"
    "                   the store, free ones too.\n"
    "  --keys-only      with --dump: print keys alone\n"
    "  --no-lock        do not ask whether a node uses DIR: for a copy, or where the lock cannot be had\n"
    "  --help, --version\n"
    "\n"
    "Keys are printed in quotes, bytes that are not printable ASCII as \\xNN.\n"
    "Memory: a segment, and 37 to 73 bytes for each key (half as much again while the table grows);\n"
    "with --salvage up to 200 bytes more for each key, and eight segments.\n"
    "\n"
    "exit status: 0 sound; 1 damage, a start would refuse the directory or lose something;\n"
    "             2 wrong usage, or DIR cannot be checked or salvaged (in use, not a data directory,\n"
    "             written by a newer program)\n";

/* ---- progress -------------------------------------------------------------------------------------------------- */

struct screen {
    struct ring *ring;
    bool shown;
    bool wanted; /* standard error is a terminal */
    bool keys_only;
    uint64_t next_ns;
};

static void show_progress(void *context, const struct check_progress *progress)
{
    struct screen *screen = context;
    uint64_t now = ring_now_ns(screen->ring);
    if (!screen->wanted || now < screen->next_ns)
        return;
    screen->next_ns = now + PROGRESS_NS;
    screen->shown = true;
    uint64_t done = progress->done < progress->total ? progress->done : progress->total;
    unsigned percent = progress->total == 0 ? 100 : (unsigned)((double)done * 100 / (double)progress->total);
    fprintf(stderr, "\r\033[K%s: %u %%, %" PRIu64 " keys", progress->step, percent, progress->keys);
    fflush(stderr);
}

static void end_progress(struct screen *screen)
{
    if (screen->shown)
        fputs("\r\033[K", stderr);
    screen->shown = false;
}

static void dump_record(void *context, const struct check_record *record)
{
    const struct screen *screen = context;
    print_record(record, screen->keys_only);
}

/* ---- running --------------------------------------------------------------------------------------------------- */

static int cannot(struct screen *screen, const char *message)
{
    end_progress(screen);
    fprintf(stderr, PROGRAM ": %s\n", message);
    return EXIT_CANNOT;
}

/* True when `out` would lie in the checked directory, which must not be changed. */
static bool lies_within(const char *dir, const char *out)
{
    char inside[PATH_MAX], outside[PATH_MAX], parent[PATH_MAX];
    size_t length = strlen(out);
    if (length >= sizeof parent || realpath(dir, outside) == NULL)
        return false;
    memcpy(parent, out, length + 1);
    /* The nearest folder above that exists. */
    while (realpath(parent[0] == '\0' ? "." : parent, inside) == NULL) {
        char *slash = strrchr(parent, '/');
        if (slash == NULL)
            parent[0] = '\0';
        else
            slash[slash == parent] = '\0';
    }
    size_t prefix = strlen(outside);
    return strncmp(inside, outside, prefix) == 0 && (inside[prefix] == '/' || inside[prefix] == '\0');
}

/* True when the lock file is signed by a process that has ended. */
static bool holder_is_dead(int lock_fd)
{
    char text[32] = "";
    uint64_t pid;
    if (pread(lock_fd, text, sizeof text - 1, 0) <= 0)
        return false;
    text[strcspn(text, "\n")] = '\0';
    return tool_parse_u64(text, 1, INT_MAX, &pid) && kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

static void paused(struct ring_op *op)
{
    (void)op;
}

static void lock_pause(struct ring *ring)
{
    struct ring_op op;
    ring_op_init(&op, paused);
    ring_timer(ring, &op, LOCK_PAUSE_NS);
    ring_await(ring, &op);
}

/*
 * Keeps nodes out until the descriptor is closed, without writing into the directory: a shared lock goes with other
 * checks, and not with a node's. A lock file that is not there is not made (*lock_fd is -1 then). The system gives the
 * lock of a killed node back some time after its end. False: no, and errno says why (EWOULDBLOCK: a node is there).
 */
static bool lock_directory(struct ring *ring, int dir_fd, int *lock_fd)
{
    *lock_fd = openat(dir_fd, "lock", O_RDONLY | O_CLOEXEC);
    if (*lock_fd < 0)
        return errno == ENOENT;
    for (unsigned i = 0;; i++) {
        if (flock(*lock_fd, LOCK_SH | LOCK_NB) == 0)
            return true;
        int why = errno;
        unsigned pauses = holder_is_dead(*lock_fd) ? LOCK_DEAD_PAUSES : LOCK_PAUSES;
        errno = why;
        if (why != EWOULDBLOCK || i >= pauses)
            return false;
        lock_pause(ring);
    }
}

/* A directory that is being checked. */
struct checked {
    struct check *check;
    int dir_fd, lock_fd; /* -1: none */
};

static void close_checked(struct checked *checked)
{
    if (checked->check != NULL)
        check_close(checked->check);
    if (checked->lock_fd >= 0)
        (void)close(checked->lock_fd);
    if (checked->dir_fd >= 0)
        (void)close(checked->dir_fd);
}

/* Opens and checks one directory. Close it in any case. False, with a message, when that cannot be done. */
static bool open_and_check(struct checked *checked, const char *dir, const struct arguments *arguments,
                           struct screen *screen, bool dump)
{
    char message[PATH_MAX + CHECK_MESSAGE_BYTES];
    *checked = (struct checked){.lock_fd = -1};
    checked->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (checked->dir_fd < 0) {
        snprintf(message, sizeof message, "cannot open directory %s: %s", dir, strerror(errno));
        (void)cannot(screen, message);
        return false;
    }
    if (!arguments->no_lock && !lock_directory(screen->ring, checked->dir_fd, &checked->lock_fd)) {
        bool used = errno == EWOULDBLOCK;
        snprintf(message, sizeof message, "%s %s%s%s", used ? "data directory" : "cannot lock data directory", dir,
                 used ? " is in use by another process, such as a running kvs-node: stop that one first" : ": ",
                 used ? "" : strerror(errno));
        (void)cannot(screen, message);
        return false;
    }
    const struct check_options options = {.ring = screen->ring,
                                          .dir_fd = checked->dir_fd,
                                          .dir_name = dir,
                                          .progress = show_progress,
                                          .each = dump ? dump_record : NULL,
                                          .context = screen,
                                          .numbers = dump && arguments->number_count > 0 ? arguments->numbers : NULL,
                                          .number_count = dump ? arguments->number_count : 0};
    if (check_run(&checked->check, &options, message) == KVS_ERR_OK)
        return true;
    (void)cannot(screen, message);
    return false;
}

static void print_report(const struct arguments *arguments, const struct check_report *report,
                         const struct print_salvage *salvage)
{
    if (arguments->json)
        print_json(arguments->dir, report, salvage);
    else
        print_text(arguments->dir, report, salvage);
}

static int run_salvage(const struct arguments *arguments, struct check *check, struct screen *screen)
{
    struct print_salvage salvage = {.out_dir = arguments->salvage};
    char message[CHECK_MESSAGE_BYTES];
    if (check_salvage(check, arguments->salvage, &salvage.done, message) != KVS_ERR_OK)
        return cannot(screen, message);
    struct checked out;
    if (!open_and_check(&out, arguments->salvage, arguments, screen, false)) {
        close_checked(&out);
        return EXIT_CANNOT;
    }
    end_progress(screen);
    salvage.verified = check_report(out.check);
    print_report(arguments, check_report(check), &salvage);
    bool whole = print_is_sound(salvage.verified) && salvage.verified->keys == salvage.done.keys;
    if (!whole)
        fprintf(stderr, PROGRAM ": the new store in %s is not what was written\n", arguments->salvage);
    close_checked(&out);
    return whole ? EXIT_SOUND : EXIT_CANNOT;
}

static int run_dump(const struct check_report *report)
{
    for (size_t i = 0; i < report->damage_count; i++)
        print_damage(stderr, &report->damages[i]);
    return print_is_sound(report) ? EXIT_SOUND : EXIT_DAMAGED;
}

static int run_checked(const struct arguments *arguments, struct check *check, struct screen *screen)
{
    const struct check_report *report = check_report(check);
    int exit_code = print_is_sound(report) ? EXIT_SOUND : EXIT_DAMAGED;
    end_progress(screen);
    if (arguments->dump)
        return run_dump(report);
    if (arguments->salvage != NULL) {
        int salvaged = run_salvage(arguments, check, screen);
        return salvaged == EXIT_SOUND ? exit_code : salvaged;
    }
    const struct print_salvage none = {0};
    print_report(arguments, report, &none);
    return exit_code;
}

static int run(const struct arguments *arguments, struct screen *screen)
{
    if (arguments->salvage != NULL && lies_within(arguments->dir, arguments->salvage))
        return cannot(screen, "the new directory must not lie in the one that is checked");
    struct checked checked;
    int exit_code = EXIT_CANNOT;
    if (open_and_check(&checked, arguments->dir, arguments, screen, arguments->dump))
        exit_code = run_checked(arguments, checked.check, screen);
    close_checked(&checked);
    return exit_code;
}

/* ---- the command line ------------------------------------------------------------------------------------------ */

static int usage(const char *complaint, const char *word)
{
    fprintf(stderr, PROGRAM ": %s%s\n", complaint, word);
    fprintf(stderr, "Try '" PROGRAM " --help'.\n");
    return EXIT_CANNOT;
}

/* Returns -1 to go on, or an exit code. */
static int parse_options(int argc, char **argv, struct arguments *arguments)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},    {"salvage", required_argument, NULL, 's'},
        {"dump", no_argument, NULL, 'd'},    {"keys-only", no_argument, NULL, 'k'},
        {"no-lock", no_argument, NULL, 'n'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'}, {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case 'j':
            arguments->json = true;
            break;
        case 's':
            arguments->salvage = optarg;
            break;
        case 'd':
            arguments->dump = true;
            break;
        case 'k':
            arguments->keys_only = true;
            break;
        case 'n':
            arguments->no_lock = true;
            break;
        case 'h':
            fputs(help_text, stdout);
            return EXIT_SOUND;
        case 'v':
            puts(PROGRAM " " KVS_VERSION);
            return EXIT_SOUND;
        default:
            fprintf(stderr, "Try '" PROGRAM " --help'.\n");
            return EXIT_CANNOT;
        }
    }
    return -1;
}

static int parse(int argc, char **argv, struct arguments *arguments)
{
    int exit_code = parse_options(argc, argv, arguments);
    if (exit_code >= 0)
        return exit_code;
    if (optind == argc)
        return usage("which data directory?", "");
    arguments->dir = argv[optind++];
    if (arguments->dump && (arguments->salvage != NULL || arguments->json))
        return usage("--dump goes with neither --json nor --salvage", "");
    if (arguments->keys_only && !arguments->dump)
        return usage("--keys-only goes with --dump", "");
    if (optind < argc && !arguments->dump)
        return usage("one directory at a time; what is ", argv[optind]);
    for (; optind < argc; optind++) {
        uint64_t number;
        if (!tool_parse_u64(argv[optind], 0, UINT32_MAX, &number))
            return usage("no number of a segment: ", argv[optind]);
        if (arguments->number_count == NUMBERS_MAX)
            return usage("too many segments are named", "");
        arguments->numbers[arguments->number_count++] = (uint32_t)number;
    }
    return -1;
}

int main(int argc, char **argv)
{
    tool_streams_init();
    static struct arguments arguments;
    int exit_code = parse(argc, argv, &arguments);
    if (exit_code >= 0)
        return tool_streams_finish(PROGRAM, exit_code);
    struct screen screen = {.wanted = isatty(2) == 1, .keys_only = arguments.keys_only};
    const struct ring_options options = {.entries = 64};
    char message[RING_MESSAGE_BYTES];
    if (ring_open(&screen.ring, &options, message) != KVS_ERR_OK)
        return tool_streams_finish(PROGRAM, cannot(&screen, message));
    exit_code = run(&arguments, &screen);
    ring_close(screen.ring);
    return tool_streams_finish(PROGRAM, exit_code);
}
