/*
 * kvs_client.c - the command line client: one request, one answer.
 *
 * Happy path: parse options and command, connect, call the one function of kvs.h, print its result byte for byte.
 *
 * Failure modes and exit codes: 2 for a command line that makes no sense (nothing was sent); 1 when there is no server,
 * the server says no, the key to remove does not exist, or standard output cannot be written.
 */
#include "base/limits.h"
#include "client/kvs.h"
#include "ring/ring.h"
#include "tool_cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROGRAM "kvs-client"

struct arguments {
    const char *addr;
    const char *unix_path;
    const char *user;
    const char *password;
    uint64_t timeout_s;
    bool value_from_stdin;
    bool relaxed;
    char **words; /* what follows the command */
    int word_count;
};

struct command {
    const char *name;
    const char *usage;
    const char *help;
    int words_min, words_max;
    int (*run)(struct kvs *store, const struct arguments *arguments);
};

/* ---- output ---------------------------------------------------------------------------------------------------- */

/* Reports a call that failed; returns the exit code. */
static int failed(const struct kvs *store, const char *command)
{
    fprintf(stderr, PROGRAM ": %s: %s\n", command, kvs_error_text(store));
    return TOOL_EXIT_FAILED;
}

/* Writes bytes as they are; that it worked is checked once, at the end. */
static void print_bytes(const void *data, size_t size)
{
    if (size > 0)
        (void)!fwrite(data, 1, size, stdout);
}

/* ---- commands -------------------------------------------------------------------------------------------------- */

static int run_get(struct kvs *store, const struct arguments *arguments)
{
    const char *key = arguments->words[0];
    const void *value;
    size_t value_bytes;
    enum kvs_err err = kvs_get(store, key, strlen(key), &value, &value_bytes);
    if (err == KVS_ERR_NOT_FOUND) {
        puts("Key not found");
        return TOOL_EXIT_OK;
    }
    if (err != KVS_ERR_OK)
        return failed(store, "get");
    print_bytes(value, value_bytes);
    putchar('\n');
    return TOOL_EXIT_OK;
}

#define INPUT_BYTES_FIRST ((size_t)64 * 1024)

/* Reads all of standard input, at most one byte more than a value may have. NULL, with a message, when it cannot. */
static char *read_stdin(size_t *size)
{
    size_t capacity = 0;
    char *data = NULL;
    *size = 0;
    while (*size == capacity && capacity <= KVS_VALUE_BYTES_MAX) {
        capacity = capacity == 0 ? INPUT_BYTES_FIRST : 2 * capacity;
        if (capacity > KVS_VALUE_BYTES_MAX)
            capacity = (size_t)KVS_VALUE_BYTES_MAX + 1;
        char *grown = realloc(data, capacity);
        if (grown == NULL) {
            fprintf(stderr, PROGRAM ": set: out of memory\n");
            free(data);
            return NULL;
        }
        data = grown;
        *size += fread(data + *size, 1, capacity - *size, stdin);
    }
    if (ferror(stdin)) {
        fprintf(stderr, PROGRAM ": set: cannot read the value from standard input\n");
        free(data);
        return NULL;
    }
    return data;
}

static int run_set(struct kvs *store, const struct arguments *arguments)
{
    const char *key = arguments->words[0];
    const char *value = arguments->words[1];
    char *input = NULL;
    size_t value_bytes = 0;
    if (arguments->value_from_stdin) {
        input = read_stdin(&value_bytes);
        if (input == NULL)
            return TOOL_EXIT_FAILED;
        value = input;
    } else {
        value_bytes = strlen(value);
    }
    int exit_code = TOOL_EXIT_OK;
    if (strlen(key) > KVS_KEY_BYTES_MAX || value_bytes > KVS_VALUE_BYTES_MAX) {
        fprintf(stderr, PROGRAM ": set: too large: a key has at most %u bytes, a value at most %u\n", KVS_KEY_BYTES_MAX,
                KVS_VALUE_BYTES_MAX);
        exit_code = TOOL_EXIT_FAILED;
    } else if (kvs_set(store, key, strlen(key), value, value_bytes, arguments->relaxed ? KVS_RELAXED : KVS_DURABLE) !=
               KVS_ERR_OK) {
        exit_code = failed(store, "set");
    }
    free(input);
    return exit_code;
}

static int run_remove(struct kvs *store, const struct arguments *arguments)
{
    const char *key = arguments->words[0];
    enum kvs_err err = kvs_remove(store, key, strlen(key), arguments->relaxed ? KVS_RELAXED : KVS_DURABLE);
    if (err == KVS_ERR_NOT_FOUND) {
        fputs("Key not found\n", stderr);
        return TOOL_EXIT_FAILED;
    }
    return err == KVS_ERR_OK ? TOOL_EXIT_OK : failed(store, "rm");
}

static int run_ping(struct kvs *store, const struct arguments *arguments)
{
    (void)arguments;
    if (kvs_ping(store) != KVS_ERR_OK)
        return failed(store, "ping");
    puts("PONG");
    return TOOL_EXIT_OK;
}

static int run_stats(struct kvs *store, const struct arguments *arguments)
{
    const char *text;
    if (kvs_stats(store, arguments->word_count > 0 ? arguments->words[0] : "", &text) != KVS_ERR_OK)
        return failed(store, "stats");
    size_t size = strlen(text);
    print_bytes(text, size);
    if (size > 0 && text[size - 1] != '\n')
        putchar('\n');
    return TOOL_EXIT_OK;
}

/* ---- backup ---------------------------------------------------------------------------------------------------- */

enum { POLL_MS = 100, NS_PER_MS = 1000000, FIELD_BYTES = 1024 };

/* What a line "name:value" of the statistics says; "" when there is none. */
static void field(const char *text, const char *name, char out[FIELD_BYTES])
{
    size_t length = strlen(name);
    out[0] = 0;
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            snprintf(out, FIELD_BYTES, "%.*s", (int)strcspn(line + length + 1, "\r\n"), line + length + 1);
            return;
        }
    }
}

/* How many backups have come to an end by now. False: the server does not say. */
static bool ended(struct kvs *store, uint64_t *count, const char **text)
{
    char value[FIELD_BYTES];
    if (kvs_stats(store, "persistence", text) != KVS_ERR_OK)
        return false;
    field(*text, "backups_ended", value);
    return tool_parse_u64(value, 0, UINT64_MAX, count);
}

/* Waits for the end of one, and says how it was. */
static int await_backup(struct kvs *store, struct ring *ring, const char *called, uint64_t before)
{
    const char *text;
    uint64_t count;
    char name[FIELD_BYTES], error[FIELD_BYTES];
    do {
        ring_turn(ring, (int64_t)POLL_MS * NS_PER_MS);
        if (!ended(store, &count, &text))
            return failed(store, "backup");
    } while (count == before);
    field(text, "last_backup_name", name);
    field(text, "last_backup_error", error);
    if (strcmp(name, called) != 0) {
        fprintf(stderr, PROGRAM ": backup: '%s' has ended and another one since: see stats persistence\n", called);
        return TOOL_EXIT_FAILED;
    }
    if (error[0] != 0) {
        fprintf(stderr, PROGRAM ": backup: '%s' has failed: %s\n", called, error);
        return TOOL_EXIT_FAILED;
    }
    char path[FIELD_BYTES], bytes[FIELD_BYTES], copied[FIELD_BYTES], seconds[FIELD_BYTES];
    field(text, "last_backup_path", path);
    field(text, "last_backup_bytes", bytes);
    field(text, "last_backup_copied_bytes", copied);
    field(text, "last_backup_seconds", seconds);
    printf("%s\n%s bytes, %s of them its own, the others shared with the store; %s s\n", path, bytes, copied, seconds);
    return TOOL_EXIT_OK;
}

static int run_backup(struct kvs *store, const struct arguments *arguments)
{
    char message[RING_MESSAGE_BYTES];
    const struct ring_options ring_options = {.entries = 8};
    struct ring *ring; /* for its clock */
    if (ring_open(&ring, &ring_options, message) != KVS_ERR_OK) {
        fprintf(stderr, PROGRAM ": backup: %s\n", message);
        return TOOL_EXIT_FAILED;
    }
    const char *called, *text;
    char name[FIELD_BYTES];
    uint64_t before;
    int exit_code = TOOL_EXIT_FAILED;
    if (!ended(store, &before, &text) ||
        kvs_backup(store, arguments->word_count > 0 ? arguments->words[0] : "", &called) != KVS_ERR_OK) {
        (void)failed(store, "backup");
    } else {
        snprintf(name, sizeof name, "%s", called);
        exit_code = await_backup(store, ring, name, before);
    }
    ring_close(ring);
    return exit_code;
}

/* ---- the commands ---------------------------------------------------------------------------------------------- */

static const struct command commands[] = {
    {"get", "get KEY", "Prints the value of KEY and a newline, or \"Key not found\" (also exit 0).", 1, 1, run_get},
    {"set", "set KEY VALUE | set KEY --stdin",
     "Sets KEY to VALUE, or to all of standard input with --stdin. Prints nothing; exit 0 means that the value is on\n"
     "stable storage (with --relaxed: that the server has it).",
     2, 2, run_set},
    {"rm", "rm KEY",
     "Removes KEY. Prints nothing. A KEY that is not there: \"Key not found\" on standard error, exit 1.", 1, 1,
     run_remove},
    {"ping", "ping", "Prints PONG when the server answers.", 0, 0, run_ping},
    {"stats", "stats [SECTION]", "Prints the server's statistics, all or one section of them.", 0, 1, run_stats},
    {"backup", "backup [NAME]",
     "Has the server make a copy of its data, as of this moment, in its directory of backups, while it goes on "
     "serving.\n"
     "Waits until the copy is whole and on stable storage, then prints its path and its size. Without NAME it is "
     "called\n"
     "by the time. A node started on the copy (--data-dir) serves the data.",
     0, 1, run_backup},
};

/* ---- help ------------------------------------------------------------------------------------------------------ */

static const char options_help[] =
    "Options (before or behind the command):\n"
    "  --addr IP:PORT     the server's address; default " TOOL_ADDR_DEFAULT "\n"
    "  --unix PATH        the server's Unix socket, instead of --addr\n"
    "  --user NAME        who asks, with a password; default: the user default\n"
    "  --password TEXT    his password. Others may see a command line: better say it in\n"
    "                     the environment variable KVS_PASSWORD\n"
    "  --timeout SECONDS  give up after this time; default 30\n"
    "  --relaxed          set, rm: do not wait until the write is on stable storage\n"
    "  --stdin            set: take the value from standard input\n"
    "  -h, --help         print this, or the help of a command, and exit\n"
    "  -V, --version      print the version and exit\n"
    "\n"
    "A key or value that begins with '-' goes behind '--':  " PROGRAM " set -- KEY -5\n"
    "Exit codes: 0 done, 1 failed, 2 the command line makes no sense.\n";

static void print_help(const struct command *command)
{
    if (command != NULL) {
        printf("Usage: " PROGRAM " [OPTIONS] %s\n\n%s\n\n%s", command->usage, command->help, options_help);
        return;
    }
    printf("Usage: " PROGRAM " [OPTIONS] COMMAND …\n\nTalks to a kvs-node. Commands:\n");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        printf("  %s\n", commands[i].usage);
    printf("\n%s", options_help);
}

static int usage_error(void)
{
    fprintf(stderr, "Try '" PROGRAM " --help'.\n");
    return TOOL_EXIT_USAGE;
}

/* ---- the command line ------------------------------------------------------------------------------------------ */

enum { OPTION_ADDR = 256, OPTION_UNIX, OPTION_USER, OPTION_PASSWORD, OPTION_TIMEOUT, OPTION_RELAXED, OPTION_STDIN };

static const struct option options[] = {
    {"addr", required_argument, NULL, OPTION_ADDR},
    {"unix", required_argument, NULL, OPTION_UNIX},
    {"user", required_argument, NULL, OPTION_USER},
    {"password", required_argument, NULL, OPTION_PASSWORD},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"relaxed", no_argument, NULL, OPTION_RELAXED},
    {"stdin", no_argument, NULL, OPTION_STDIN},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

/* Reads the options; the words are left in argv from optind on. False: said why. */
static bool parse_options(int argc, char **argv, struct arguments *arguments, bool *help, bool *version)
{
    int option;
    while ((option = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
        switch (option) {
        case OPTION_ADDR:
            arguments->addr = optarg;
            break;
        case OPTION_UNIX:
            arguments->unix_path = optarg;
            break;
        case OPTION_USER:
            arguments->user = optarg;
            break;
        case OPTION_PASSWORD:
            arguments->password = optarg;
            break;
        case OPTION_TIMEOUT:
            if (!tool_parse_u64(optarg, 1, 86400, &arguments->timeout_s)) {
                fprintf(stderr, PROGRAM ": --timeout takes whole seconds, 1 to 86400; this is not: '%s'\n", optarg);
                return false;
            }
            break;
        case OPTION_RELAXED:
            arguments->relaxed = true;
            break;
        case OPTION_STDIN:
            arguments->value_from_stdin = true;
            break;
        case 'h':
            *help = true;
            break;
        case 'V':
            *version = true;
            break;
        default:
            return false; /* getopt_long has said why */
        }
    }
    if (arguments->password == NULL)
        arguments->password = getenv("KVS_PASSWORD");
    if (arguments->user != NULL && arguments->password == NULL) {
        fprintf(stderr, PROGRAM ": --user needs a password: give it in KVS_PASSWORD, or with --password\n");
        return false;
    }
    if (arguments->addr != NULL && arguments->unix_path != NULL) {
        fprintf(stderr, PROGRAM ": --addr and --unix exclude each other: give the one that the server listens on\n");
        return false;
    }
    return true;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

/* Checks the words behind the command against its shape. False: said why. */
static bool check_words(const struct command *command, const struct arguments *arguments)
{
    bool is_set = strcmp(command->name, "set") == 0;
    if (arguments->value_from_stdin && !is_set) {
        fprintf(stderr, PROGRAM ": %s: --stdin belongs to set\n", command->name);
        return false;
    }
    int less = arguments->value_from_stdin ? 1 : 0;
    if (arguments->word_count >= command->words_min - less && arguments->word_count <= command->words_max - less)
        return true;
    fprintf(stderr, PROGRAM ": %s: %s arguments; usage: " PROGRAM " %s\n", command->name,
            arguments->word_count > command->words_max - less ? "too many" : "too few", command->usage);
    return false;
}

/* ---- main ------------------------------------------------------------------------------------------------------ */

static int run(const struct command *command, const struct arguments *arguments)
{
    char address[512];
    if (arguments->unix_path != NULL)
        snprintf(address, sizeof(address), "unix:%s", arguments->unix_path);
    else
        snprintf(address, sizeof(address), "%s", arguments->addr != NULL ? arguments->addr : TOOL_ADDR_DEFAULT);

    const struct kvs_options connect_options = {.timeout_ms = (uint32_t)(arguments->timeout_s * 1000),
                                                .user = arguments->user,
                                                .password = arguments->password};
    struct kvs *store;
    char message[KVS_MESSAGE_BYTES];
    enum kvs_err err = kvs_connect(&store, address, &connect_options, message);
    if (err != KVS_ERR_OK) {
        fprintf(stderr, PROGRAM ": %s: %s\n", command->name, message);
        return err == KVS_ERR_INVALID ? TOOL_EXIT_USAGE : TOOL_EXIT_FAILED;
    }
    int exit_code = command->run(store, arguments);
    kvs_disconnect(store);
    return exit_code;
}

static int parse_and_run(int argc, char **argv)
{
    struct arguments arguments = {0};
    bool help = false, version = false;
    if (!parse_options(argc, argv, &arguments, &help, &version))
        return usage_error();
    if (version) {
        puts(PROGRAM " " KVS_VERSION);
        return TOOL_EXIT_OK;
    }
    const char *name = optind < argc ? argv[optind] : NULL;
    const struct command *command = name != NULL ? find_command(name) : NULL;
    if (help && (name == NULL || command != NULL)) {
        print_help(command);
        return TOOL_EXIT_OK;
    }
    if (command == NULL) {
        if (name == NULL)
            fprintf(stderr, PROGRAM ": no command; one of get, set, rm, ping, stats, backup is wanted\n");
        else
            fprintf(stderr, PROGRAM ": unknown command '%s'; there are get, set, rm, ping, stats, backup\n", name);
        return usage_error();
    }
    arguments.words = argv + optind + 1;
    arguments.word_count = argc - optind - 1;
    if (!check_words(command, &arguments))
        return usage_error();
    return run(command, &arguments);
}

int main(int argc, char **argv)
{
    tool_streams_init();
    return tool_streams_finish(PROGRAM, parse_and_run(argc, argv));
}
