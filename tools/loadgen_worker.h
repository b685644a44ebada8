/*
 * loadgen_worker.h - one thread of the load generator: its ring, its connections, its counts.
 *
 * The run is cut into stages (connect, fill, warm up, measure, finish). The coordinator announces a stage, every worker
 * goes through it on its own and reports that it is done; a stage ends when the replies to all its requests are here,
 * so that none is left out of the measurement, least of all a slow one.
 *
 * Who may touch what: the atomics of loadgen_control and loadgen_worker at any time, by any thread; a worker's other
 * fields by its thread while a stage runs, by the coordinator between stages.
 */
#ifndef KVS_TOOLS_LOADGEN_WORKER_H
#define KVS_TOOLS_LOADGEN_WORKER_H

#include "client/histogram.h"
#include "loadgen_options.h"
#include "loadgen_schedule.h"
#include "loadgen_workload.h"
#include "ring/ring.h"

#include <pthread.h>
#include <stdatomic.h>

#define LOADGEN_TEXT_BYTES 512

enum loadgen_stage_kind { LOADGEN_CONNECT, LOADGEN_FILL, LOADGEN_RUNNING, LOADGEN_FINISH };

/* Written by the coordinator before it announces the stage. */
struct loadgen_stage {
    enum loadgen_stage_kind kind;
    uint64_t seconds_ns; /* RUNNING: send for this time; 0: until each worker has sent its quota */
    uint64_t rate;       /* requests a second, by all workers; 0: a closed loop */
};

struct loadgen_control {
    const struct loadgen_options *options;
    const struct loadgen_workload *workload;
    struct ring *ring; /* the coordinator's, to be woken when a stage is done */
    struct loadgen_stage stage;
    atomic_uint stage_number; /* announced; counts from 1 */
    atomic_bool stop;         /* send nothing more */
    atomic_bool abandon;      /* and do not wait for replies */
    pthread_barrier_t finish; /* all workers and the coordinator: nobody will wake a worker any more */
};

/* What a worker has counted in one stage. */
struct loadgen_counts {
    struct histogram reads, writes; /* latency in ns, of requests answered without error */
    struct histogram delays;        /* open loop: from the time that a request was due to its sending, in ns */
    uint64_t crowded;               /* open loop: requests that were due while every place was taken */
    uint64_t unsent;                /* open loop: requests that were due, and given up */
    uint64_t behind_ns;             /* open loop: by so much the last request was late */
    uint64_t hits, misses, mismatches;
    uint64_t errors;                     /* requests answered with an error or never answered */
    uint64_t bytes_out, bytes_in;        /* keys and values sent; values received */
    uint64_t cpu_ns;                     /* of this thread */
    uint64_t begin_ns, end_ns;           /* ring_now_ns: first request sent, last reply seen */
    char error_text[LOADGEN_TEXT_BYTES]; /* the first error's */
};

struct worker_conn;

struct loadgen_worker {
    struct loadgen_control *control;
    uint64_t index;
    uint64_t connection_count;
    uint64_t requests_quota; /* its share of --requests */
    pthread_t thread;
    atomic_uint stage_done; /* the latest stage finished; UINT_MAX: set-up failed, there will be none */
    atomic_ullong answered; /* replies so far, for the progress line and the watchdog */
    struct ring *_Atomic ring;
    bool failed; /* could not set up or connect; counts.error_text says why */
    struct loadgen_counts counts;

    /* Private to the worker's thread. */
    struct loadgen_source source;
    struct worker_conn *conns;
    uint64_t alive, opened;
    uint64_t under_way;
    bool sending;
    uint64_t until_ns;
    uint64_t quota_left;
    struct schedule schedule;
    uint64_t scheduled;  /* requests of it that have been sent */
    uint64_t idle_count; /* free places of connections that are open */
    uint64_t crowded_ns; /* when a place last came free after all had been taken */
    uint64_t next_conn;  /* whose turn it is */
    bool drawn;          /* `draw` is yet to be sent */
    struct {
        uint64_t key;
        bool read;
    } draw;
    uint64_t fill_next, fill_end;
    uint64_t last_seen_ns;
    uint64_t answered_count;
};

/* The body of the thread; argument: struct loadgen_worker. Ends after FINISH or a failed set-up, at control->finish. */
void *loadgen_worker_main(void *worker);

#endif
