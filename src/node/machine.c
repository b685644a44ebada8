/*
 * machine.c - what the machine gives this process.
 *
 * Failure: every question has an answer that a node can start with; a file that cannot be read counts as "no limit".
 */
#include "node/machine.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* jemalloc's, when it is linked. */
extern const char *malloc_conf;
/* What is freed counts as long as it is there: it goes back to the system soon, and threads keep no large pieces. */
const char *malloc_conf = "dirty_decay_ms:250,muzzy_decay_ms:0,tcache_max:4096,max_background_threads:1";
extern int mallctl(const char *name, void *old, size_t *old_bytes, void *new, size_t new_bytes) __attribute__((weak));

unsigned machine_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : (unsigned)count;
}

bool machine_pin_thread(unsigned index)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
        return false;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || index-- > 0)
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        return pthread_setaffinity_np(pthread_self(), sizeof(one), &one) == 0;
    }
    return false;
}

static void on_done(struct ring_op *op)
{
    (void)op; /* ring_await looks at it */
}

/* Reads the beginning of a small file as a string; false when there is none. */
static bool read_text(struct ring *ring, const char *path, char *out, size_t size)
{
    struct ring_op op;
    ring_op_init(&op, on_done);
    ring_file_open(ring, &op, -1, path, RING_OPEN_READ); /* the path is absolute */
    ring_await(ring, &op);
    if (op.error != KVS_ERR_OK)
        return false;
    int fd = op.fd;
    ring_op_init(&op, on_done);
    ring_file_read(ring, &op, fd, out, size - 1, 0);
    ring_await(ring, &op);
    ring_close_fd(ring, fd);
    out[op.error == KVS_ERR_OK ? op.bytes : 0] = 0;
    return op.error == KVS_ERR_OK;
}

/* The tightest memory.max from this process's own control group (version 2) up to the root. */
static uint64_t control_group_limit(struct ring *ring, uint64_t limit)
{
    char groups[1024];
    if (!read_text(ring, "/proc/self/cgroup", groups, sizeof(groups)))
        return limit;
    char *path = strstr(groups, "0::/");
    if (path == NULL)
        return limit;
    path += 3;
    path[strcspn(path, "\n")] = 0;

    for (;;) {
        char name[1100], number[32];
        snprintf(name, sizeof(name), "/sys/fs/cgroup%s/memory.max", path);
        if (read_text(ring, name, number, sizeof(number))) {
            uint64_t bytes = strtoull(number, NULL, 10); /* "max" becomes 0 */
            if (bytes > 0 && bytes < limit)
                limit = bytes;
        }
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return limit;
        *slash = 0;
    }
}

uint64_t machine_ram_bytes(struct ring *ring)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t bytes = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 1ull << 30;
    return control_group_limit(ring, bytes);
}

uint64_t machine_raise_open_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return UINT64_MAX; /* not known: nothing to warn of */
    const rlim_t soft = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (soft != limit.rlim_max && setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return soft;
    return limit.rlim_max;
}

uint64_t machine_heap_bytes(void)
{
    uint64_t epoch = 1;
    size_t resident = 0;
    size_t epoch_bytes = sizeof(epoch), resident_bytes = sizeof(resident);
    if (mallctl == NULL || mallctl("epoch", &epoch, &epoch_bytes, &epoch, sizeof(epoch)) != 0 ||
        mallctl("stats.resident", &resident, &resident_bytes, NULL, 0) != 0)
        return 0;
    return resident;
}

bool machine_heap_give_back(void)
{
    bool on = true;
    return mallctl != NULL && mallctl("background_thread", NULL, NULL, &on, sizeof(on)) == 0;
}

uint64_t machine_peak_resident_bytes(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
    return (uint64_t)usage.ru_maxrss * 1024;
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

struct machine_cpu_time machine_cpu_time(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return (struct machine_cpu_time){0};
    return (struct machine_cpu_time){.user_seconds = seconds(usage.ru_utime),
                                     .system_seconds = seconds(usage.ru_stime)};
}
