/*
 * machine.c - what the machine gives this process.
 *
 * Failure: every question has an answer that a node can start with; a file that cannot be read counts as "no limit".
 */
#include "node/machine.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

unsigned machine_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : (unsigned)count;
}

/* Reads the first number of a small file; false when it has none ("max" in a control group). */
static bool read_number(const char *path, unsigned skip, uint64_t *out)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    unsigned long long value = 0;
    bool ok = true;
    for (unsigned i = 0; ok && i <= skip; i++)
        ok = fscanf(file, "%19llu", &value) == 1;
    fclose(file);
    *out = value;
    return ok;
}

/* The tightest memory.max from this process's own control group (version 2) up to the root. */
static uint64_t control_group_limit(uint64_t limit)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return limit;
    char group[512];
    bool found = false;
    while (!found && fgets(group, sizeof(group), file) != NULL)
        found = strncmp(group, "0::/", 4) == 0;
    fclose(file);
    if (!found)
        return limit;
    group[strcspn(group, "\n")] = 0;

    char *path = group + 3;
    for (;;) {
        char name[640];
        uint64_t bytes;
        snprintf(name, sizeof(name), "/sys/fs/cgroup%s/memory.max", path);
        if (read_number(name, 0, &bytes) && bytes > 0 && bytes < limit)
            limit = bytes;
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return limit;
        *slash = 0;
    }
}

uint64_t machine_ram_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t bytes = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 1ull << 30;
    return control_group_limit(bytes);
}

uint64_t machine_resident_bytes(void)
{
    uint64_t pages;
    long page_bytes = sysconf(_SC_PAGESIZE);
    if (page_bytes <= 0 || !read_number("/proc/self/statm", 1, &pages))
        return 0;
    return pages * (uint64_t)page_bytes;
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

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

struct machine_cpu_time machine_cpu_time(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return (struct machine_cpu_time){0};
    return (struct machine_cpu_time){.user_seconds = seconds(usage.ru_utime), .system_seconds = seconds(usage.ru_stime)};
}
