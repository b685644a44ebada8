/*
 * kvs_loadgen.c - the load generator's main program: the coordinator of its workers.
 *
 * Happy path: parse options, start the workers, lead them through the stages (connect, fill, warm up, measure), add up
 * what they counted, print it. While a stage runs this thread sleeps, but for one progress line a second.
 *
 * Failure modes. A worker cannot connect: its message, exit 1. SIGINT, SIGTERM: nothing more is sent, the replies under
 * way are waited for, what there is gets printed; a second signal does not wait. No reply for --timeout seconds: the
 * run is given up and the requests under way count as errors. Errors, mismatches and requests of an open loop that were
 * not sent in the end make the exit code 1.
 */
#include "loadgen_options.h"
#include "loadgen_report.h"
#include "loadgen_worker.h"
#include "tool_cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)
/* How often the coordinator looks around when nobody wakes it. */
#define POLL_NS (NS_PER_S / 10)

struct coordinator {
    const struct loadgen_options *options;
    struct loadgen_control control;
    struct loadgen_workload workload;
    struct loadgen_worker *workers;
    struct loadgen_result fill, run;
    struct ring_op signal_op;
    int signal_fd;
    unsigned signals;
    bool progress;            /* there is a terminal to show it on */
    uint64_t answered;        /* at the last look */
    uint64_t answered_ns;     /* when it last changed */
    uint64_t shown, shown_ns; /* at the last progress line */
};

/* ---- waking and watching --------------------------------------------------------------------------------------- */

static void wake_workers(struct coordinator *coordinator)
{
    for (uint64_t i = 0; i < coordinator->options->threads; i++) {
        struct ring *ring = coordinator->workers[i].ring;
        if (ring != NULL)
            ring_wake(coordinator->control.ring, ring);
    }
}

static void stop(struct coordinator *coordinator, bool abandon)
{
    atomic_store(&coordinator->control.stop, true);
    if (abandon)
        atomic_store(&coordinator->control.abandon, true);
    wake_workers(coordinator);
}

static void on_signal(struct ring_op *op)
{
    struct coordinator *coordinator = container_of(op, struct coordinator, signal_op);
    if (op->error != KVS_ERR_OK)
        return;
    coordinator->signals++;
    stop(coordinator, coordinator->signals > 1 || coordinator->control.stage.kind == LOADGEN_CONNECT);
    ring_signal_next(coordinator->control.ring, op, coordinator->signal_fd);
}

static uint64_t count_answered(const struct coordinator *coordinator)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < coordinator->options->threads; i++)
        sum += atomic_load_explicit(&coordinator->workers[i].answered, memory_order_relaxed);
    return sum;
}

static void show_progress(struct coordinator *coordinator, const char *title, uint64_t now_ns)
{
    if (!coordinator->progress || now_ns - coordinator->shown_ns < NS_PER_S)
        return;
    double seconds = (double)(now_ns - coordinator->shown_ns) / 1e9;
    fprintf(stderr, "\r%-9s %12llu operations, %10.0f per second\033[K", title,
            (unsigned long long)coordinator->answered, (double)(coordinator->answered - coordinator->shown) / seconds);
    coordinator->shown = coordinator->answered;
    coordinator->shown_ns = now_ns;
}

static void watch(struct coordinator *coordinator, const char *title)
{
    uint64_t now_ns = ring_now_ns(coordinator->control.ring);
    uint64_t answered = count_answered(coordinator);
    if (answered != coordinator->answered) {
        coordinator->answered = answered;
        coordinator->answered_ns = now_ns;
    }
    if (now_ns - coordinator->answered_ns > coordinator->options->timeout_seconds * NS_PER_S)
        stop(coordinator, true);
    show_progress(coordinator, title, now_ns);
}

/* ---- stages ---------------------------------------------------------------------------------------------------- */

static bool all_done(const struct coordinator *coordinator, unsigned number)
{
    for (uint64_t i = 0; i < coordinator->options->threads; i++) {
        if (atomic_load(&coordinator->workers[i].stage_done) < number)
            return false;
    }
    return true;
}

/* Announces a stage and waits until every worker has been through it. */
static void run_stage(struct coordinator *coordinator, const char *title, enum loadgen_stage_kind kind, double seconds)
{
    struct loadgen_control *control = &coordinator->control;
    control->stage = (struct loadgen_stage){.kind = kind, .seconds_ns = (uint64_t)(seconds * 1e9)};
    if (kind == LOADGEN_RUNNING)
        control->stage.rate = coordinator->options->rate;
    unsigned number = atomic_fetch_add(&control->stage_number, 1) + 1;
    wake_workers(coordinator);
    coordinator->answered_ns = coordinator->shown_ns = ring_now_ns(control->ring);
    while (!all_done(coordinator, number)) {
        ring_turn(control->ring, (int64_t)POLL_NS);
        watch(coordinator, title);
    }
    if (coordinator->progress)
        fprintf(stderr, "\r\033[K");
}

static bool stopped(const struct coordinator *coordinator)
{
    return atomic_load(&coordinator->control.stop);
}

/* True when every worker is connected; else says why not. */
static bool connected(const struct coordinator *coordinator)
{
    for (uint64_t i = 0; i < coordinator->options->threads; i++) {
        const struct loadgen_worker *worker = &coordinator->workers[i];
        if (!worker->failed)
            continue;
        if (worker->counts.error_text[0] != 0)
            fprintf(stderr, LOADGEN ": %s\n", worker->counts.error_text);
        else
            fprintf(stderr, LOADGEN ": %s: %llu of %llu connections after %s\n", coordinator->options->addr_text,
                    (unsigned long long)worker->opened, (unsigned long long)worker->connection_count,
                    coordinator->signals > 0 ? "an interrupt" : "the time of --timeout");
        return false;
    }
    return true;
}

/* All stages but the last; false when there is nothing to report. */
static bool run_stages(struct coordinator *coordinator)
{
    const struct loadgen_options *options = coordinator->options;
    run_stage(coordinator, "connect", LOADGEN_CONNECT, 0);
    if (!connected(coordinator))
        return false;
    if (options->fill && !stopped(coordinator)) {
        run_stage(coordinator, "fill", LOADGEN_FILL, 0);
        loadgen_result_collect(&coordinator->fill, coordinator->workers, options->threads);
    }
    bool measure = options->requests > 0 || options->seconds > 0;
    if (measure && options->warmup_seconds > 0 && !stopped(coordinator))
        run_stage(coordinator, "warm up", LOADGEN_RUNNING, options->warmup_seconds);
    if (measure && !stopped(coordinator)) {
        run_stage(coordinator, "measure", LOADGEN_RUNNING, options->requests > 0 ? 0 : options->seconds);
        loadgen_result_collect(&coordinator->run, coordinator->workers, options->threads);
    }
    if (!coordinator->fill.present && !coordinator->run.present) {
        fprintf(stderr, LOADGEN ": stopped before there was anything to measure\n");
        return false;
    }
    return true;
}

/* ---- workers --------------------------------------------------------------------------------------------------- */

/* The part of `total` that belongs to thread `index`: parts differ by one at most. */
static uint64_t part_begin(uint64_t total, uint64_t index, uint64_t threads)
{
    return total / threads * index + (index < total % threads ? index : total % threads);
}

static bool start_workers(struct coordinator *coordinator)
{
    const struct loadgen_options *options = coordinator->options;
    uint64_t threads = options->threads;
    coordinator->workers = calloc(threads, sizeof(*coordinator->workers));
    if (coordinator->workers == NULL ||
        pthread_barrier_init(&coordinator->control.finish, NULL, (unsigned)threads + 1) != 0) {
        fprintf(stderr, LOADGEN ": out of memory\n");
        return false;
    }
    for (uint64_t i = 0; i < threads; i++) {
        struct loadgen_worker *worker = &coordinator->workers[i];
        worker->control = &coordinator->control;
        worker->index = i;
        worker->connection_count =
            part_begin(options->connections, i + 1, threads) - part_begin(options->connections, i, threads);
        worker->requests_quota =
            part_begin(options->requests, i + 1, threads) - part_begin(options->requests, i, threads);
        worker->fill_next = part_begin(options->keys, i, threads);
        worker->fill_end = part_begin(options->keys, i + 1, threads);
        if (pthread_create(&worker->thread, NULL, loadgen_worker_main, worker) != 0) {
            fprintf(stderr, LOADGEN ": cannot start thread %llu; lower --threads\n", (unsigned long long)i + 1);
            exit(TOOL_EXIT_FAILED); /* the threads that did start wait for work and hold nothing to lose */
        }
    }
    return true;
}

static void finish_workers(struct coordinator *coordinator)
{
    struct loadgen_control *control = &coordinator->control;
    control->stage = (struct loadgen_stage){.kind = LOADGEN_FINISH};
    atomic_fetch_add(&control->stage_number, 1);
    wake_workers(coordinator);
    (void)ring_turn(control->ring, 0); /* wake-ups leave when the ring turns */
    pthread_barrier_wait(&control->finish);
    for (uint64_t i = 0; i < coordinator->options->threads; i++)
        pthread_join(coordinator->workers[i].thread, NULL);
    pthread_barrier_destroy(&control->finish);
}

/* ---- main ------------------------------------------------------------------------------------------------------ */

static bool set_up(struct coordinator *coordinator, const struct loadgen_options *options)
{
    coordinator->options = options;
    coordinator->signal_fd = -1;
    coordinator->progress = !options->quiet && isatty(STDERR_FILENO) == 1;
    coordinator->control.options = options;
    coordinator->control.workload = &coordinator->workload;
    const struct ring_options ring_options = {.entries = 64};
    char message[RING_MESSAGE_BYTES];
    if (ring_open(&coordinator->control.ring, &ring_options, message) != KVS_ERR_OK) {
        fprintf(stderr, LOADGEN ": %s\n", message);
        return false;
    }
    if (ring_signals_open(coordinator->control.ring, &coordinator->signal_fd) != KVS_ERR_OK) {
        fprintf(stderr, LOADGEN ": cannot receive signals: too many open files?\n");
        return false;
    }
    ring_op_init(&coordinator->signal_op, on_signal);
    ring_signal_next(coordinator->control.ring, &coordinator->signal_op, coordinator->signal_fd);
    if (loadgen_workload_init(&coordinator->workload, options) != KVS_ERR_OK) {
        fprintf(stderr, LOADGEN ": out of memory; lower --value-size\n");
        return false;
    }
    return true;
}

static void tear_down(struct coordinator *coordinator)
{
    loadgen_workload_deinit(&coordinator->workload);
    free(coordinator->workers);
    if (coordinator->control.ring != NULL)
        ring_close(coordinator->control.ring);
    if (coordinator->signal_fd >= 0)
        close(coordinator->signal_fd);
}

static int report(const struct coordinator *coordinator)
{
    const struct loadgen_result *fill = &coordinator->fill;
    const struct loadgen_result *run = &coordinator->run;
    if (coordinator->options->json)
        loadgen_report_json(coordinator->options, fill, run);
    else
        loadgen_report_text(coordinator->options, fill, run);
    const char *path = coordinator->options->histogram_path;
    if (path != NULL && run->present && !loadgen_report_histogram(path, run))
        return TOOL_EXIT_FAILED;
    bool good =
        fill->counts.errors == 0 && run->counts.errors == 0 && run->counts.mismatches == 0 && run->counts.unsent == 0;
    return good ? TOOL_EXIT_OK : TOOL_EXIT_FAILED;
}

int main(int argc, char **argv)
{
    tool_streams_init();
    static struct loadgen_options options;
    switch (loadgen_options_parse(argc, argv, &options)) {
    case LOADGEN_EXIT_OK:
        return tool_streams_finish(LOADGEN, TOOL_EXIT_OK);
    case LOADGEN_EXIT_USAGE:
        return TOOL_EXIT_USAGE;
    case LOADGEN_RUN:
        break;
    }
    static struct coordinator coordinator; /* histograms are large for a stack */
    int exit_code = TOOL_EXIT_FAILED;
    if (set_up(&coordinator, &options) && start_workers(&coordinator)) {
        bool results = run_stages(&coordinator);
        finish_workers(&coordinator);
        if (results)
            exit_code = report(&coordinator);
    }
    tear_down(&coordinator);
    return tool_streams_finish(LOADGEN, exit_code);
}
