/*
 * main.c - kvs-node, the program: options, signals, threads.
 *
 * Happy path: the main thread takes the data directory and the addresses, starts one thread per shard, has a loader
 * open the store (loader.h), waits until the shards serve, says so, and then sleeps until a signal comes. SIGTERM and
 * SIGINT stop in order, a second one at once; both end with exit status 0, because what was acknowledged is durable
 * either way. Failures: bad options end with 2, everything that prevents the start with 1.
 *
 * A stop while the store is being opened does not wait for that: the shards end in order, and the process ends under
 * the loader's feet. Nothing has been acknowledged since the start, and an opening may be cut off anywhere: that is
 * what a crash in the middle of it does.
 */
#include "base/assert.h"
#include "base/diag.h"
#include "node/config.h"
#include "node/loader.h"
#include "node/machine.h"
#include "node/node.h"
#include "ring/ring.h"
#include "ring/ring_check.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

/* While starting and stopping, look at the shards this often. */
#define SUPERVISE_NS 5000000
/* A shard that has not stopped so long after its connections are gone never will: its storage does not answer. */
#define GIVE_UP_NS (6 * NODE_DRAIN_NS)

struct node_thread {
    pthread_t thread;
    struct node *node;
    unsigned id;
    bool pin;
    bool started;
    pthread_barrier_t *leaving; /* all threads have left their loops */
};

struct program {
    struct config config;
    struct ring *ring;
    struct node *node;
    struct node_thread *threads;
    struct loader loader;
    pthread_barrier_t leaving;
    int signal_fd;
    struct ring_op signal_op;
    unsigned stop_signals;
    uint64_t stop_since_ns;
};

static void *run_thread(void *argument)
{
    struct node_thread *self = argument;
    char name[16];
    if (self->id < node_shard_count(self->node))
        snprintf(name, sizeof(name), "kvs-shard-%u", self->id);
    else
        snprintf(name, sizeof(name), "kvs-background");
    (void)pthread_setname_np(pthread_self(), name);
    if (self->pin && !machine_pin_thread(self->id))
        diag_warn("shard %u: its thread could not be bound to a CPU", self->id);
    node_thread_open(self->node, self->id);
    while (node_thread_turn(self->node, self->id, true)) {
    }
    /* A thread may still be about to wake another: no ring goes before all have left their loops. */
    (void)pthread_barrier_wait(self->leaving);
    node_thread_close(self->node, self->id);
    return NULL;
}

/* One shard per CPU is worth binding; fewer or more, and the background, are better left to the scheduler. */
static bool start_threads(struct program *program)
{
    unsigned count = node_thread_count(program->node);
    unsigned shards = node_shard_count(program->node);
    bool pin = shards == machine_cpus();
    program->threads = calloc(count, sizeof(*program->threads));
    if (program->threads == NULL || pthread_barrier_init(&program->leaving, NULL, count) != 0)
        return false;
    for (unsigned i = 0; i < count; i++) {
        struct node_thread *thread = &program->threads[i];
        thread->node = program->node;
        thread->id = i;
        thread->leaving = &program->leaving;
        thread->pin = pin && i < shards;
        thread->started = pthread_create(&thread->thread, NULL, run_thread, thread) == 0;
        if (!thread->started)
            return false;
    }
    return true;
}

static void join_threads(struct program *program)
{
    for (unsigned i = 0; i < node_thread_count(program->node); i++) {
        if (program->threads[i].started)
            pthread_join(program->threads[i].thread, NULL);
    }
    (void)pthread_barrier_destroy(&program->leaving);
    free(program->threads);
}

/* ---- signals --------------------------------------------------------------------------------------------------- */

static void on_signal(struct ring_op *op)
{
    struct program *program = container_of(op, struct program, signal_op);
    if (op->error != KVS_ERR_OK)
        return;
    if (op->bytes == SIGHUP) {
        diag_info("SIGHUP ignored: there is nothing to reload");
    } else {
        program->stop_signals++;
        diag_info("%s: %s", op->bytes == SIGINT ? "SIGINT" : "SIGTERM",
                  program->stop_signals == 1 ? "stopping; a second signal drops connections at once"
                                             : "dropping connections");
        node_stop(program->node, program->stop_signals > 1);
    }
    ring_signal_next(program->ring, &program->signal_op, program->signal_fd);
}

/* ---- what the log says ----------------------------------------------------------------------------------------- */

static void say_address(void *context, const char *address)
{
    (void)context;
    diag_info("listening on %s", address);
}

static void say_started(const struct program *program)
{
    struct engine *engine = node_engine(program->node);
    struct engine_recovery recovery;
    engine_recovered(engine, &recovery);
    diag_info("kvs-node %s, engine %s, %u thread%s", KVS_VERSION, engine_kind(engine), node_shard_count(program->node),
              node_shard_count(program->node) == 1 ? "" : "s");
    diag_info("%s", node_ring_text(program->node));
    diag_info("data directory %s, durability: %s, %s", program->config.data_dir, engine_durability_method(engine),
              program->config.relaxed ? "relaxed" : "durable");
    if (recovery.created)
        diag_info("new store");
    else
        diag_info("recovered %llu keys from %llu segments, %llu records, %llu bytes read, in %.3f s%s",
                  (unsigned long long)recovery.keys, (unsigned long long)recovery.segments,
                  (unsigned long long)recovery.records, (unsigned long long)recovery.bytes,
                  (double)recovery.elapsed_ns / 1e9,
                  recovery.snapshot ? ", with the indexes as the last stop has left them" : "");
    if (recovery.cut_bytes > 0)
        diag_warn("cut %llu bytes of unfinished writes, never acknowledged, from the end of the log",
                  (unsigned long long)recovery.cut_bytes);
    node_addresses(program->node, say_address, NULL);
    (void)sd_notify(0, "READY=1\nSTATUS=Serving");
}

/* ---- the life of the program ----------------------------------------------------------------------------------- */

static void check_stuck(const struct program *program)
{
    if (program->stop_since_ns == 0 || ring_now_ns(program->ring) - program->stop_since_ns < GIVE_UP_NS)
        return;
    diag_error("the storage does not answer; giving up. Everything acknowledged as durable is on disk");
    _Exit(1);
}

/* However it began: by a signal, or by SHUTDOWN. */
static void say_stopping(struct program *program)
{
    if (program->stop_since_ns != 0)
        return;
    program->stop_since_ns = ring_now_ns(program->ring);
    (void)sd_notify(0, "STOPPING=1\nSTATUS=Stopping");
}

/* How long to wait for news at most; -1: for ever. */
static int64_t patience_ns(enum node_status status)
{
    switch (status) {
    case NODE_SERVING:
        return -1;
    case NODE_LOADING:
        return LOADER_TELL_NS;
    default:
        return SUPERVISE_NS;
    }
}

/* Supervises until the node has ended; returns the exit status. */
static int supervise(struct program *program)
{
    bool loading = false, said = false;
    for (;;) {
        enum node_status status = node_supervise(program->node);
        if (status == NODE_LOADING && !loading) {
            loading = true;
            loader_start(&program->loader, program->node, program->ring);
        }
        if (status == NODE_LOADING)
            loader_tell(&program->loader, program->ring);
        if (status == NODE_STOPPED)
            return 0;
        if (status == NODE_BROKEN) {
            diag_error("%s", node_message(program->node));
            return 1;
        }
        if (status == NODE_SERVING && !said) {
            said = true;
            (void)machine_heap_give_back();
            say_started(program);
        }
        if (status == NODE_STOPPING) {
            say_stopping(program);
            check_stuck(program);
        }
        (void)ring_turn(program->ring, patience_ns(status));
    }
}

static int run(struct program *program)
{
    char message[NODE_MESSAGE_BYTES] = "";
    enum kvs_err err = ring_signals_open(program->ring, &program->signal_fd);
    if (err != KVS_ERR_OK) {
        diag_error("cannot take signals: %s", kvs_err_text(err));
        return 1;
    }
    if (node_create(&program->node, &program->config, program->ring, message) != KVS_ERR_OK) {
        diag_error("%s", message);
        return 1;
    }
    config_forget_password(&program->config);
    if (!start_threads(program)) {
        diag_error(
            "cannot start a thread for every shard: lower --threads, or raise the limits on processes and on memory");
        _Exit(1); /* nothing has been acknowledged yet */
    }
    ring_op_init(&program->signal_op, on_signal);
    ring_signal_next(program->ring, &program->signal_op, program->signal_fd);

    int status = supervise(program);
    join_threads(program);
    bool alone = loader_end(&program->loader);
    if (alone)
        node_destroy(program->node);
    if (status == 0)
        diag_info("stopped in %.3f s", (double)(ring_now_ns(program->ring) - program->stop_since_ns) / 1e9);
    if (!alone)
        _Exit(status);
    return status;
}

/* Reads the options; -1 to go on, else the exit status. Needs no ring: what explains a machine must work on any. */
static int configure(struct config *config, int argc, char **argv)
{
    char message[CONFIG_MESSAGE_BYTES];
    if (!config_parse(config, argc, argv, machine_cpus(), message)) {
        fprintf(stderr, "kvs-node: %s\n", message);
        return 2;
    }
    diag_set_level(config->log_level);
    switch (config->mode) {
    case CONFIG_VERSION:
        printf("kvs-node %s\n", KVS_VERSION);
        return 0;
    case CONFIG_HELP:
        config_print_help(stdout);
        return 0;
    case CONFIG_CHECK:
        return ring_check(stdout, config->data_dir) == KVS_ERR_OK ? 0 : 1;
    case CONFIG_RUN:
        break;
    }
    return -1;
}

/* Besides connections: segments, value files, rings, what compaction, checkpoints and backups read. */
#define FILES_OF_OUR_OWN 256u

static void allow_connections(const struct config *config)
{
    const uint64_t files = machine_raise_open_files();
    if (files >= (uint64_t)config->max_clients + FILES_OF_OUR_OWN)
        return;
    diag_warn(
        "%llu open files are allowed, fewer than the %u connections of --max-clients need, which is %u: some may not "
        "be let in. Raise the limit (ulimit -Hn, LimitNOFILE=)",
        (unsigned long long)files, config->max_clients, config->max_clients + FILES_OF_OUR_OWN);
}

int main(int argc, char **argv)
{
    struct program program = {0};
    int status = configure(&program.config, argc, argv);
    if (status >= 0)
        return status;

    struct ring_options options = {.entries = 64};
    char message[RING_MESSAGE_BYTES] = "";
    if (ring_open(&program.ring, &options, message) != KVS_ERR_OK) {
        diag_error("%s", message);
        return 1;
    }
    uint64_t ram_bytes = machine_ram_bytes(program.ring);
    config_set_memory(&program.config, ram_bytes);
    if (program.config.memory_bytes > ram_bytes)
        diag_warn("--memory is more than the %llu bytes of RAM this process may use", (unsigned long long)ram_bytes);
    allow_connections(&program.config);
    status = run(&program);
    ring_close(program.ring);
    return status;
}
