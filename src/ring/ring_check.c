/*
 * ring_check.c - what this machine offers, for `kvs-node --check`.
 *
 * Happy path: one line a fact, tried out rather than read off a version number, and a verdict. Failure modes: a fact
 * that cannot be found out is printed as "unknown"; a missing necessity does not stop the report, it ends up in the
 * verdict with its remedy.
 */
#include "ring/ring_check.h"
#include "ring/ring_uring_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define TRIAL_BYTES        4096
#define OPEN_FILES_WANTED  10000
#define CHECK_BUFFERS      16
#define CHECK_BUFFER_BYTES 4096

struct report {
    FILE *out;
    enum kvs_err err;
    char reason[RING_MESSAGE_BYTES]; /* of `err` */
    unsigned remarks;                /* facts that cost speed or capacity only */
};

static void fail(struct report *report, enum kvs_err err, const char *reason)
{
    KVS_ASSERT(err != KVS_ERR_OK);
    if (report->err != KVS_ERR_OK)
        return;
    report->err = err;
    snprintf(report->reason, sizeof(report->reason), "%s", reason);
}

static void remark(struct report *report, const char *text)
{
    report->remarks++;
    fprintf(report->out, "remark: %s\n", text);
}

/* ---- io_uring -------------------------------------------------------------------------------------------------- */

static void print_features(FILE *out, unsigned features)
{
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {
        {IORING_FEAT_NODROP, "nodrop"},     {IORING_FEAT_SUBMIT_STABLE, "submit_stable"},
        {IORING_FEAT_EXT_ARG, "ext_arg"},   {IORING_FEAT_FAST_POLL, "fast_poll"},
        {IORING_FEAT_CQE_SKIP, "cqe_skip"}, {IORING_FEAT_NO_IOWAIT, "no_iowait"},
    };
    fprintf(out, "io_uring features:");
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        fprintf(out, " %s%s", features & names[i].bit ? "" : "no-", names[i].name);
    fprintf(out, "\n");
}

static void check_opcodes(FILE *out, struct io_uring *uring)
{
    const char *missing[URING_OPCODE_COUNT];
    int count = uring_missing_opcodes(uring, missing);
    for (size_t i = 0; i < URING_OPCODE_COUNT; i++) {
        bool there = count >= 0;
        for (int j = 0; j < count; j++)
            there = there && strcmp(missing[j], uring_opcodes[i].name) != 0;
        fprintf(out, "operation %s: %s\n", uring_opcodes[i].name, count < 0 ? "unknown" : there ? "yes" : "no");
    }
}

static void check_ladder(struct report *report)
{
    bool described = false;
    for (size_t i = 0; i < URING_STEP_COUNT; i++) {
        struct io_uring uring;
        int rc = uring_try_step(&uring, &uring_steps[i], URING_ENTRIES_DEFAULT);
        fprintf(report->out, "io_uring set-up, %s: %s\n", uring_steps[i].name, rc == 0 ? "yes" : strerrordesc_np(-rc));
        if (rc != 0) {
            if (i == 0)
                remark(report, "the fastest set-up is refused; a newer kernel is faster");
            continue;
        }
        if (!described) {
            print_features(report->out, uring.features);
            check_opcodes(report->out, &uring);
        }
        described = true;
        io_uring_queue_exit(&uring);
    }
}

/* Opens a ring as the node does: what that says is what counts. */
static void check_ring(struct report *report)
{
    struct ring *ring;
    char message[RING_MESSAGE_BYTES];
    struct ring_options options = {.buffer_count = CHECK_BUFFERS, .buffer_bytes = CHECK_BUFFER_BYTES};
    enum kvs_err err = ring_open(&ring, &options, message);
    fprintf(report->out, "ring: %s\n", err == KVS_ERR_OK ? ring_describe(ring) : message);
    if (err != KVS_ERR_OK)
        fail(report, err, message);
    else
        ring_close(ring);
}

/* ---- data directory -------------------------------------------------------------------------------------------- */

/* Opens the directory, or where it would be made: `path` is cut to what was opened. -1 with errno. */
static int open_nearest(char path[PATH_MAX])
{
    for (;;) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char *slash = strrchr(path, '/');
        if (fd >= 0 || errno != ENOENT || strcmp(path, "/") == 0 || strcmp(path, ".") == 0)
            return fd;
        if (slash == NULL)
            snprintf(path, PATH_MAX, ".");
        else
            slash[slash == path] = '\0';
    }
}

/* Opens a new file that has no name any more. */
static int open_trial(int dir_fd, int flags)
{
    char name[64];
    snprintf(name, sizeof(name), ".kvs-node-check-%ld", (long)getpid());
    int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0600);
    int saved = errno;
    if (fd >= 0 || saved == EINVAL) /* a file system without O_DIRECT may have made the file before it refuses */
        (void)unlinkat(dir_fd, name, 0);
    errno = saved;
    return fd;
}

static bool try_write(struct report *report, const char *what, int fd, int rw_flags)
{
    uint8_t *block = aligned_alloc(TRIAL_BYTES, TRIAL_BYTES);
    if (block == NULL)
        return false;
    memset(block, 0, TRIAL_BYTES);
    struct iovec iov = {.iov_base = block, .iov_len = TRIAL_BYTES};
    bool written = pwritev2(fd, &iov, 1, 0, rw_flags) == TRIAL_BYTES;
    fprintf(report->out, "%s: %s\n", what, written ? "yes" : strerrordesc_np(errno));
    free(block);
    return written;
}

static void check_direct(struct report *report, int dir_fd)
{
    int fd = open_trial(dir_fd, O_DIRECT);
    if (fd < 0) {
        fprintf(report->out, "O_DIRECT: %s\n", strerrordesc_np(errno));
        remark(report, "the data directory's file system has no O_DIRECT: writes are slower; use ext4 or XFS");
        return;
    }
    if (!try_write(report, "O_DIRECT", fd, 0) || !try_write(report, "O_DIRECT with RWF_DSYNC", fd, RWF_DSYNC))
        remark(report, "direct durable writes do not work in the data directory; use ext4 or XFS");
    struct statx status;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 && (status.stx_mask & STATX_DIOALIGN))
        fprintf(report->out, "O_DIRECT alignment: memory %u, offset %u\n", status.stx_dio_mem_align,
                status.stx_dio_offset_align);
    else
        fprintf(report->out, "O_DIRECT alignment: unknown, 4096 assumed\n");
    (void)close(fd);
}

static void check_data_dir(struct report *report, const char *data_dir)
{
    char path[PATH_MAX], reason[RING_MESSAGE_BYTES];
    snprintf(path, sizeof(path), "%s", data_dir);
    int dir_fd = open_nearest(path);
    int fd = dir_fd >= 0 ? open_trial(dir_fd, 0) : -1;
    fprintf(report->out, "data directory: %s%s%s%s\n", data_dir, strcmp(path, data_dir) == 0 ? "" : " (tried in ",
            strcmp(path, data_dir) == 0 ? "" : path, strcmp(path, data_dir) == 0 ? "" : ")");
    if (fd < 0) {
        enum kvs_err err = ring_error_from_errno(errno);
        snprintf(reason, sizeof(reason), "cannot write to %.300s: %s; choose another data directory or its owner", path,
                 strerrordesc_np(errno));
        fail(report, err, reason);
    } else if (!try_write(report, "RWF_DSYNC", fd, RWF_DSYNC)) {
        fail(report, KVS_ERR_UNSUPPORTED, "the data directory's file system cannot write durably; use ext4 or XFS");
    } else {
        check_direct(report, dir_fd);
    }
    if (fd >= 0)
        (void)close(fd);
    if (dir_fd >= 0)
        (void)close(dir_fd);
}

/* ---- limits ---------------------------------------------------------------------------------------------------- */

static void print_limit(FILE *out, const char *name, int resource, rlim_t *soft)
{
    struct rlimit limit = {0, 0};
    (void)getrlimit((__rlimit_resource_t)resource, &limit);
    *soft = limit.rlim_cur;
    if (limit.rlim_cur == RLIM_INFINITY)
        fprintf(out, "%s: unlimited\n", name);
    else
        fprintf(out, "%s: %llu (hard %llu)\n", name, (unsigned long long)limit.rlim_cur,
                (unsigned long long)limit.rlim_max);
}

static void check_limits(struct report *report)
{
    rlim_t soft;
    cpu_set_t cpus;
    char line[32] = "unknown\n";
    FILE *sysctl = fopen("/proc/sys/kernel/io_uring_disabled", "re");
    if (sysctl != NULL) {
        (void)!fgets(line, sizeof(line), sysctl);
        (void)fclose(sysctl);
    }
    fprintf(report->out, "kernel.io_uring_disabled: %s", line);
    print_limit(report->out, "locked memory", RLIMIT_MEMLOCK, &soft);
    print_limit(report->out, "open files", RLIMIT_NOFILE, &soft);
    if (soft < OPEN_FILES_WANTED)
        remark(report, "few open files are few connections; raise the limit (ulimit -n, LimitNOFILE=)");
    CPU_ZERO(&cpus);
    (void)sched_getaffinity(0, sizeof(cpus), &cpus);
    fprintf(report->out, "CPUs to run on: %d\n", CPU_COUNT(&cpus));
    long long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    fprintf(report->out, "RAM: %lld MiB\n", pages > 0 && page > 0 ? pages * page / (1024LL * 1024) : 0);
}

enum kvs_err ring_check(FILE *out, const char *data_dir)
{
    KVS_ASSERT(out != NULL && data_dir != NULL);
    struct report report = {.out = out};
    struct utsname name;
    fprintf(out, "kernel: %s\n", uname(&name) == 0 ? name.release : "unknown");
    check_ladder(&report);
    check_ring(&report);
    check_data_dir(&report, data_dir);
    check_limits(&report);
    if (report.err != KVS_ERR_OK)
        fprintf(out, "verdict: cannot run here: %s\n", report.reason);
    else if (report.remarks > 0)
        fprintf(out, "verdict: runs here, with %u remark%s\n", report.remarks, report.remarks > 1 ? "s" : "");
    else
        fprintf(out, "verdict: runs here\n");
    return report.err;
}
