/*
 * runner.c - worker processes, and the parent that looks after them.
 *
 *   parent                                    shared memory                       workers
 *   starts workers, waits for their ends  ->  next number, stop, deadline     <-  take a number, run it
 *   reads what is left of the dead        ->  a slot each: number, since when <-  add up their tallies
 *
 * Happy path: the parent sleeps in sigtimedwait; the workers run until the numbers or the time are over, and exit with
 * 0 while their slot says IDLE. Then, and only then, nobody writes to the slots any more and they are added up.
 *
 * Failure modes. A worker that ends while its slot says BUSY took its run with it, whatever its status: the parent
 * keeps number, status and the text that it left (a memfd each, emptied before each run), adds what its tally had come
 * to, and starts another in its place. A run over its time is killed and then looks the same. A parent that is killed
 * takes its workers along: PR_SET_PDEATHSIG.
 */
#include "runner.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SECOND      UINT64_C(1000000000)
#define GRACE_NS           (2 * NS_PER_SECOND) /* for runs under way when all is to end */
#define TICK_NS            (NS_PER_SECOND / 10)
#define PROGRESS_NS        (NS_PER_SECOND / 2)
#define CAPTURED_BYTES_MAX (64u << 20) /* a worker that writes more is killed by SIGXFSZ */
#define EXIT_LEAK          23          /* what LeakSanitizer itself uses */
#define EXIT_NO_MEANS      2

/* Written by one worker, read by the parent: the atomics at any time, the rest when the worker is gone. */
struct slot {
    _Alignas(64) _Atomic uint64_t busy_since_ns; /* 0: IDLE, between two runs */
    _Atomic uint64_t number;                     /* the run of now, or the last */
    _Atomic uint64_t done;
    uint64_t replayed;
    uint64_t trace;
    uint64_t ended_ns; /* the last run that ended well */
    struct tally sum;
    struct tally current; /* of the run under way */
};

struct shared {
    _Atomic uint64_t taken; /* numbers handed out, counted from options.first */
    _Atomic bool stop;
    uint64_t deadline_ns; /* 0: none; never changes */
    struct slot slots[];
};

struct worker {
    pid_t pid; /* 0: none */
    int text_fd;
    bool finished; /* ended in order: there was no more to do */
    bool over_time, abandoned;
};

struct pool {
    const struct runner_options *options;
    struct runner_result *result;
    struct shared *shared;
    size_t shared_size;
    struct worker *workers;
    unsigned jobs;
    unsigned failure_room;
    uint64_t began_ns;
    uint64_t kill_ns; /* when the runs that are still under way are killed; 0: never */
    uint64_t progress_ns;
};

/* There when LeakSanitizer is. */
extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * NS_PER_SECOND + (uint64_t)time.tv_nsec;
}

static double seconds_of(uint64_t ns)
{
    return (double)ns / (double)NS_PER_SECOND;
}

static uint64_t ns_of(double seconds)
{
    return (uint64_t)(seconds * (double)NS_PER_SECOND);
}

_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "kvs-sim: cannot %s: %s\n", what, strerror(errno));
    exit(EXIT_NO_MEANS);
}

static void tally_add(struct tally *sum, const struct tally *more)
{
    /* Nothing but counters. */
    uint64_t *to = (uint64_t *)(void *)sum;
    const uint64_t *from = (const uint64_t *)(const void *)more;
    static_assert(sizeof *sum % sizeof *to == 0, "a tally is made of 64-bit counters");
    for (size_t i = 0; i < sizeof *sum / sizeof *to; i++)
        to[i] += from[i];
}

/* ---- in a worker ----------------------------------------------------------------------------------------------- */

/* The caller has these blocked. */
static void runner_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGCHLD);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
}

static void worker_begin(const struct runner_options *options, pid_t parent, int text_fd)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_NO_MEANS); /* it was gone before it could be followed */
    sigset_t set;
    runner_signals(&set);
    signal(SIGINT, SIG_IGN); /* these often reach every process of a group: the parent decides */
    signal(SIGTERM, SIG_IGN);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    if (options->foreground)
        return;
    const struct rlimit no_core = {0, 0}, text = {CAPTURED_BYTES_MAX, CAPTURED_BYTES_MAX};
    setrlimit(RLIMIT_CORE, &no_core);
    setrlimit(RLIMIT_FSIZE, &text);
    if (dup2(text_fd, STDERR_FILENO) < 0 || dup2(text_fd, STDOUT_FILENO) < 0)
        _exit(EXIT_NO_MEANS);
}

/* Leaks belong to the run that made them. */
static void check_leaks(void)
{
    if (__lsan_do_recoverable_leak_check != NULL && __lsan_do_recoverable_leak_check() != 0)
        _exit(EXIT_LEAK);
}

static void run_number(const struct runner_options *options, struct slot *slot, uint64_t number)
{
    static struct plan plan;
    options->plan_for(options->context, number, &plan);
    slot->trace = world_run(&plan, &options->world, &slot->current);
    check_leaks();
    if (options->replay_every == 0 || number % options->replay_every != 0)
        return;
    struct tally again = {0};
    atomic_store(&slot->busy_since_ns, now_ns());
    const uint64_t trace = world_run(&plan, &options->world, &again);
    check_leaks();
    slot->replayed++;
    if (trace == slot->trace)
        return;
    fprintf(stderr,
            RUNNER_DOES_NOT_REPLAY ": the trace is %016" PRIx64 " at first and %016" PRIx64 " the second time\n",
            slot->trace, trace);
    exit(WORLD_EXIT_BROKEN);
}

_Noreturn static void work(const struct pool *pool, unsigned index)
{
    const struct runner_options *options = pool->options;
    struct shared *shared = pool->shared;
    struct slot *slot = &shared->slots[index];
    while (!atomic_load(&shared->stop) && (shared->deadline_ns == 0 || now_ns() < shared->deadline_ns)) {
        const uint64_t offset = atomic_fetch_add(&shared->taken, 1);
        if (offset > options->last - options->first)
            break;
        if (!options->foreground && (ftruncate(STDERR_FILENO, 0) != 0 || lseek(STDERR_FILENO, 0, SEEK_SET) != 0))
            give_up("empty the file of a worker's messages");
        atomic_store(&slot->number, options->first + offset);
        memset(&slot->current, 0, sizeof slot->current);
        atomic_store(&slot->busy_since_ns, now_ns());
        run_number(options, slot, options->first + offset);
        tally_add(&slot->sum, &slot->current);
        slot->ended_ns = now_ns();
        atomic_fetch_add(&slot->done, 1);
        atomic_store(&slot->busy_since_ns, 0);
    }
    exit(0);
}

/* ---- in the parent --------------------------------------------------------------------------------------------- */

static void start_worker(struct pool *pool, unsigned index)
{
    struct worker *worker = &pool->workers[index];
    const pid_t parent = getpid();
    atomic_store(&pool->shared->slots[index].busy_since_ns, 0);
    worker->over_time = false;
    fflush(NULL); /* or the child would write it once more */
    const pid_t pid = fork();
    if (pid < 0)
        give_up("start a worker process");
    if (pid == 0) {
        worker_begin(pool->options, parent, worker->text_fd);
        work(pool, index);
    }
    worker->pid = pid;
}

/* What a worker wrote during its last run; of a long text, a quarter from its beginning and the rest from its end. */
static char *read_text(int fd)
{
    static const char gap[] = "\n[...]\n";
    char *text = malloc(RUNNER_TEXT_MAX + sizeof gap + 1);
    if (text == NULL)
        give_up("keep a message");
    const off_t end = lseek(fd, 0, SEEK_END);
    const size_t size = end > 0 ? (size_t)end : 0;
    const size_t head = size <= RUNNER_TEXT_MAX ? size : RUNNER_TEXT_MAX / 4;
    const size_t tail = size <= RUNNER_TEXT_MAX ? 0 : RUNNER_TEXT_MAX - head;
    ssize_t got = pread(fd, text, head, 0);
    size_t length = got > 0 ? (size_t)got : 0;
    if (tail > 0) {
        memcpy(text + length, gap, sizeof gap - 1);
        length += sizeof gap - 1;
        got = pread(fd, text + length, tail, (off_t)(size - tail));
        length += got > 0 ? (size_t)got : 0;
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\0')
            text[i] = '?';
    }
    text[length] = '\0';
    return text;
}

static void keep_failure(struct pool *pool, unsigned index, int status)
{
    const struct worker *worker = &pool->workers[index];
    const struct slot *slot = &pool->shared->slots[index];
    KVS_ASSERT(pool->result->failure_count < pool->failure_room);
    struct runner_failure *failure = &pool->result->failures[pool->result->failure_count++];
    failure->number = atomic_load(&slot->number);
    failure->text = pool->options->foreground ? calloc(1, 1) : read_text(worker->text_fd);
    if (failure->text == NULL)
        give_up("keep a message");
    const char *where = atomic_load(&slot->busy_since_ns) == 0 ? " after its last run" : "";
    char *reason = failure->reason;
    const size_t size = sizeof failure->reason;
    if (worker->over_time)
        snprintf(reason, size, RUNNER_TOO_SLOW " than %g s", pool->options->run_seconds_max);
    else if (WIFSIGNALED(status))
        snprintf(reason, size, "killed%s by signal %d (%s)", where, WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(reason, size, "exited%s with status %d%s", where, WEXITSTATUS(status),
                 WEXITSTATUS(status) == 0 ? ", but not at its end" : "");
}

/* No new runs; those under way have a moment to end. */
static void stop(struct pool *pool, uint64_t grace_ns)
{
    atomic_store(&pool->shared->stop, true);
    const uint64_t kill_ns = now_ns() + grace_ns;
    if (pool->kill_ns == 0 || kill_ns < pool->kill_ns)
        pool->kill_ns = kill_ns;
}

static bool work_is_left(const struct pool *pool)
{
    const struct runner_options *options = pool->options;
    const struct shared *shared = pool->shared;
    return !atomic_load(&shared->stop) && atomic_load(&shared->taken) <= options->last - options->first &&
           (shared->deadline_ns == 0 || now_ns() < shared->deadline_ns);
}

static void worker_ended(struct pool *pool, unsigned index, int status)
{
    struct worker *worker = &pool->workers[index];
    struct slot *slot = &pool->shared->slots[index];
    struct runner_result *result = pool->result;
    const bool busy = atomic_load(&slot->busy_since_ns) != 0;
    worker->pid = 0;
    if (!busy && (worker->abandoned || (WIFEXITED(status) && WEXITSTATUS(status) == 0))) {
        worker->finished = true;
        return;
    }
    if (worker->abandoned) {
        result->abandoned++;
        return;
    }
    keep_failure(pool, index, status);
    if (busy) {
        tally_add(&slot->sum, &slot->current);
        atomic_fetch_add(&slot->done, 1);
    }
    if (result->failure_count == pool->options->failures_max && work_is_left(pool)) {
        result->cut_short = true;
        stop(pool, GRACE_NS);
    }
}

static void reap(struct pool *pool)
{
    for (unsigned i = 0; i < pool->jobs; i++) {
        int status;
        if (pool->workers[i].pid != 0 && waitpid(pool->workers[i].pid, &status, WNOHANG) == pool->workers[i].pid)
            worker_ended(pool, i, status);
    }
}

/* Kills what is over its time. */
static void enforce_limits(struct pool *pool)
{
    const uint64_t now = now_ns(), limit_ns = ns_of(pool->options->run_seconds_max);
    for (unsigned i = 0; i < pool->jobs; i++) {
        struct worker *worker = &pool->workers[i];
        const uint64_t since = atomic_load(&pool->shared->slots[i].busy_since_ns);
        if (worker->pid == 0 || worker->over_time || worker->abandoned)
            continue;
        if (pool->kill_ns != 0 && now >= pool->kill_ns)
            worker->abandoned = true;
        else if (limit_ns != 0 && since != 0 && now > since && now - since > limit_ns)
            worker->over_time = true;
        if (worker->abandoned || worker->over_time)
            kill(worker->pid, SIGKILL);
    }
}

/* Returns how many there are. */
static unsigned keep_workers(struct pool *pool)
{
    unsigned running = 0;
    for (unsigned i = 0; i < pool->jobs; i++) {
        if (pool->workers[i].pid == 0 && !pool->workers[i].finished && work_is_left(pool))
            start_worker(pool, i);
        running += pool->workers[i].pid != 0;
    }
    return running;
}

static void show_progress(struct pool *pool)
{
    const uint64_t now = now_ns();
    if (!pool->options->progress || now < pool->progress_ns + PROGRESS_NS)
        return;
    pool->progress_ns = now;
    uint64_t done = 0;
    for (unsigned i = 0; i < pool->jobs; i++)
        done += atomic_load(&pool->shared->slots[i].done);
    const double seconds = seconds_of(now - pool->began_ns);
    fprintf(stderr, "\r\033[K%" PRIu64 " runs, %.0f s, %.1f a second, %u failed", done, seconds, (double)done / seconds,
            pool->result->failure_count);
}

/* Until a child ends, a signal comes, or a tick is over. */
static void wait_for_news(struct pool *pool)
{
    sigset_t set;
    runner_signals(&set);
    const struct timespec tick = {.tv_nsec = TICK_NS};
    const int number = sigtimedwait(&set, NULL, &tick);
    if (number != SIGINT && number != SIGTERM)
        return;
    stop(pool, pool->result->interrupted ? 0 : GRACE_NS);
    pool->result->interrupted = true;
}

static unsigned processors(void)
{
    cpu_set_t set;
    const int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < RUNNER_JOBS_MAX ? (unsigned)count : RUNNER_JOBS_MAX;
}

static void pool_open(struct pool *pool)
{
    const struct runner_options *options = pool->options;
    KVS_ASSERT(options->first <= options->last && options->failures_max > 0 && options->jobs <= RUNNER_JOBS_MAX);
    pool->jobs = options->jobs == RUNNER_JOBS_EACH ? processors() : options->jobs;
    if (options->last - options->first < pool->jobs)
        pool->jobs = (unsigned)(options->last - options->first) + 1;
    /* Each worker may fail once more after the last failure that is waited for. */
    pool->failure_room = options->failures_max + pool->jobs;
    pool->result->failures = calloc(pool->failure_room, sizeof *pool->result->failures);
    pool->workers = calloc(pool->jobs, sizeof *pool->workers);
    pool->shared_size = sizeof *pool->shared + pool->jobs * sizeof pool->shared->slots[0];
    pool->shared = mmap(NULL, pool->shared_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (pool->result->failures == NULL || pool->workers == NULL || pool->shared == MAP_FAILED)
        give_up("get memory");
    for (unsigned i = 0; i < pool->jobs; i++) {
        pool->workers[i].text_fd = memfd_create("kvs-sim worker", MFD_CLOEXEC);
        if (pool->workers[i].text_fd < 0)
            give_up("make a file for a worker's messages");
    }
    pool->began_ns = now_ns();
    pool->progress_ns = pool->began_ns;
    pool->shared->deadline_ns = options->seconds > 0 ? pool->began_ns + ns_of(options->seconds) : 0;
}

static int compare_failures(const void *a, const void *b)
{
    const uint64_t left = ((const struct runner_failure *)a)->number,
                   right = ((const struct runner_failure *)b)->number;
    return (left > right) - (left < right);
}

/* All workers are gone. */
static void pool_close(struct pool *pool)
{
    struct runner_result *result = pool->result;
    uint64_t done = 0, last_ns = 0;
    for (unsigned i = 0; i < pool->jobs; i++) {
        const struct slot *slot = &pool->shared->slots[i];
        tally_add(&result->tally, &slot->sum);
        done += atomic_load(&slot->done);
        result->replayed += slot->replayed;
        if (slot->ended_ns > last_ns) {
            last_ns = slot->ended_ns;
            result->trace = slot->trace;
        }
        close(pool->workers[i].text_fd);
    }
    result->tally.runs = done;
    result->jobs = pool->jobs;
    result->seconds = seconds_of(now_ns() - pool->began_ns);
    qsort(result->failures, result->failure_count, sizeof *result->failures, compare_failures);
    if (pool->options->progress)
        fputs("\r\033[K", stderr);
    munmap(pool->shared, pool->shared_size);
    free(pool->workers);
}

struct runner_result runner_run(const struct runner_options *options)
{
    struct runner_result result = {0};
    struct pool pool = {.options = options, .result = &result};
    sigset_t set, before;
    runner_signals(&set);
    sigprocmask(SIG_BLOCK, &set, &before);
    void (*const on_child)(int) = signal(SIGCHLD, SIG_DFL); /* ignored, ends would pass unseen */
    pool_open(&pool);
    while (keep_workers(&pool) > 0) {
        wait_for_news(&pool);
        enforce_limits(&pool);
        show_progress(&pool);
        reap(&pool);
    }
    pool_close(&pool);
    signal(SIGCHLD, on_child);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return result;
}

void runner_free(struct runner_result *result)
{
    for (unsigned i = 0; i < result->failure_count; i++)
        free(result->failures[i].text);
    free(result->failures);
    memset(result, 0, sizeof *result);
}
