/*
 * loadgen_worker.c - see loadgen_worker.h.
 *
 * Happy path of a stage: every connection gets --pipeline requests; each reply is counted, and its slot sends the next
 * request in the same callback; client_conn sends all of these together. The clock is read once per batch of replies:
 * that instant is the end of the requests answered and the beginning of those that follow, so the time that this
 * program takes to look at the replies is counted as latency, never hidden.
 *
 * In an open loop replies only free their places. At the end of each turn what is due is sent, from the places of the
 * connections in turn; the next turn lasts until the next request is due. Latency counts from that time: what a request
 * waits for a free place, or for this thread to wake up, is part of it, and also counted apart, as delay.
 *
 * Failure modes. An error reply is counted, its first text kept, the run goes on. A connection that ends is counted
 * with all its unanswered requests as errors and stays out; when the last one ends, so does the stage. A server that
 * falls silent is noticed by the coordinator, which sets `abandon`.
 */
#include "loadgen_worker.h"

#include "base/assert.h"
#include "client/client_conn.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_US UINT64_C(1000)

/* Room for the requests of one connection that wait to be sent; a larger pipeline waits for this to drain. */
#define OUTPUT_BYTES_MAX (4u * 1024 * 1024)

/* A request under way, or free to be one. */
struct slot {
    uint64_t key;
    uint64_t start_ns;
    bool read;
};

struct worker_conn {
    struct loadgen_worker *worker;
    struct client_conn *conn; /* NULL: ended */
    struct slot *slots;       /* --pipeline of them; a request's tag is its place */
    uint32_t *idle;           /* stack of the slots that are free */
    uint32_t idle_count;
    uint32_t slot_count;
};

/* ---- sending --------------------------------------------------------------------------------------------------- */

/* False: the stage has no more to send. */
static bool may_send(struct loadgen_worker *worker, uint64_t now_ns)
{
    if (worker->sending && (atomic_load_explicit(&worker->control->stop, memory_order_relaxed) ||
                            now_ns >= worker->until_ns || worker->quota_left == 0))
        worker->sending = false;
    return worker->sending;
}

/* Chooses the next request. One that could not be sent is the next once more: none that was drawn is left out. */
static void choose(struct loadgen_worker *worker, uint64_t start_ns, struct slot *slot)
{
    slot->start_ns = start_ns;
    if (worker->control->stage.kind == LOADGEN_FILL) {
        slot->read = false;
        slot->key = worker->fill_end - worker->quota_left;
        return;
    }
    if (!worker->drawn)
        worker->draw.key = loadgen_draw(&worker->source, &worker->draw.read);
    worker->drawn = true;
    slot->key = worker->draw.key;
    slot->read = worker->draw.read;
}

static enum kvs_err send_slot(struct worker_conn *wc, uint32_t place)
{
    struct loadgen_worker *worker = wc->worker;
    const struct slot *slot = &wc->slots[place];
    struct client_request request = {.tag = place, .key = loadgen_key(&worker->source, slot->key)};
    if (slot->read) {
        request.op = CLIENT_GET;
    } else {
        request.op = CLIENT_SET;
        request.relaxed = worker->control->options->relaxed;
        request.value = loadgen_value(&worker->source, slot->key);
    }
    enum kvs_err err = client_conn_send(wc->conn, &request);
    if (err == KVS_ERR_OK) {
        wc->idle_count--;
        worker->idle_count--;
        worker->drawn = false;
        worker->quota_left--;
        worker->under_way++;
        worker->counts.bytes_out += request.key.size + request.value.size;
    }
    return err;
}

static void note_error(struct loadgen_worker *worker, uint64_t count, const char *text, size_t size)
{
    struct loadgen_counts *counts = &worker->counts;
    if (counts->error_text[0] == 0)
        snprintf(counts->error_text, sizeof(counts->error_text), "%.*s", (int)(size < 400 ? size : 400), text);
    counts->errors += count;
}

/* Sends one request from an idle slot. False: the connection takes none now, or it is no use to try any further. */
static bool send_one(struct worker_conn *wc, uint64_t start_ns)
{
    uint32_t place = wc->idle[wc->idle_count - 1];
    choose(wc->worker, start_ns, &wc->slots[place]);
    enum kvs_err err = send_slot(wc, place);
    if (err != KVS_ERR_OK && err != KVS_ERR_AGAIN && err != KVS_ERR_CLOSED) {
        const char *text = kvs_err_text(err);
        note_error(wc->worker, 1, text, strlen(text));
        wc->worker->sending = false;
    }
    return err == KVS_ERR_OK;
}

/* Closed loop: lets every idle slot send, as long as the stage has requests and the connection has room. */
static void refill(struct worker_conn *wc, uint64_t now_ns)
{
    while (wc->idle_count > 0 && may_send(wc->worker, now_ns) && send_one(wc, now_ns))
        ;
}

/* Open loop: sends one request from the next connection that takes it. False: none does. */
static bool send_anywhere(struct loadgen_worker *worker, uint64_t due_ns)
{
    for (uint64_t tries = 0; tries < worker->connection_count && worker->sending; tries++) {
        struct worker_conn *wc = &worker->conns[worker->next_conn];
        worker->next_conn = (worker->next_conn + 1) % worker->connection_count;
        if (wc->conn != NULL && wc->idle_count > 0 && send_one(wc, due_ns)) {
            client_conn_flush(wc->conn);
            return true;
        }
    }
    return false;
}

/* Open loop: sends all that is due, as far as there are places. Returns how long to wait for more; -1: for a reply. */
static int64_t send_due(struct loadgen_worker *worker)
{
    for (;;) {
        uint64_t now_ns = ring_now_ns(worker->ring);
        if (!may_send(worker, now_ns) || worker->idle_count == 0)
            return -1;
        uint64_t due_ns = schedule_due_ns(&worker->schedule, worker->scheduled);
        if (due_ns > now_ns)
            return (int64_t)(due_ns - now_ns);
        if (!send_anywhere(worker, due_ns))
            return -1;
        worker->scheduled++;
        worker->counts.crowded += due_ns < worker->crowded_ns;
        worker->counts.behind_ns = now_ns - due_ns;
        histogram_add(&worker->counts.delays, now_ns - due_ns);
    }
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

static void count_read(struct loadgen_worker *worker, const struct slot *slot, const struct client_reply *reply)
{
    struct loadgen_counts *counts = &worker->counts;
    const struct loadgen_options *options = worker->control->options;
    if (reply->error == KVS_ERR_NOT_FOUND) {
        counts->misses++;
        counts->mismatches += options->verify && options->fill;
        return;
    }
    counts->hits++;
    counts->bytes_in += reply->value.size;
    if (options->verify && !slice_equal(reply->value, loadgen_value(&worker->source, slot->key)))
        counts->mismatches++;
}

static void on_reply(void *context, uint64_t tag, const struct client_reply *reply)
{
    struct worker_conn *wc = context;
    struct loadgen_worker *worker = wc->worker;
    KVS_ASSERT(tag < wc->slot_count);
    const struct slot *slot = &wc->slots[tag];
    worker->last_seen_ns = reply->seen_ns;
    worker->under_way--;
    atomic_store_explicit(&worker->answered, ++worker->answered_count, memory_order_relaxed);
    if (reply->error == KVS_ERR_OK || (slot->read && reply->error == KVS_ERR_NOT_FOUND)) {
        uint64_t latency_ns = reply->seen_ns - slot->start_ns;
        histogram_add(slot->read ? &worker->counts.reads : &worker->counts.writes, latency_ns);
        if (slot->read)
            count_read(worker, slot, reply);
    } else if (reply->value.size > 0) {
        note_error(worker, 1, (const char *)reply->value.data, reply->value.size);
    } else {
        note_error(worker, 1, kvs_err_text(reply->error), strlen(kvs_err_text(reply->error)));
    }
    if (!slot->read)
        loadgen_written(&worker->source, slot->key);
    wc->idle[wc->idle_count++] = (uint32_t)tag;
    if (worker->idle_count++ == 0)
        worker->crowded_ns = reply->seen_ns;
    if (worker->schedule.rate == 0)
        refill(wc, reply->seen_ns);
}

static void on_opened(void *context)
{
    struct worker_conn *wc = context;
    wc->worker->opened++;
}

static void on_closed(void *context, enum kvs_err error, const char *message)
{
    struct worker_conn *wc = context;
    struct loadgen_worker *worker = wc->worker;
    uint64_t lost = client_conn_pending(wc->conn);
    worker->under_way -= lost;
    worker->idle_count -= wc->idle_count;
    wc->idle_count = 0;
    worker->alive--;
    if (error != KVS_ERR_OK)
        note_error(worker, lost > 0 ? lost : 1, message, strlen(message));
    client_conn_free(wc->conn);
    wc->conn = NULL;
}

static const struct client_handlers handlers = {.opened = on_opened, .reply = on_reply, .closed = on_closed};

/* ---- stages ---------------------------------------------------------------------------------------------------- */

/* Until a completion, or until the coordinator wakes us. */
static void turn(struct loadgen_worker *worker)
{
    (void)ring_turn(worker->ring, -1);
}

static bool abandoned(const struct loadgen_worker *worker)
{
    return atomic_load_explicit(&worker->control->abandon, memory_order_relaxed);
}

static void connect_all(struct loadgen_worker *worker)
{
    const struct loadgen_options *options = worker->control->options;
    const struct client_options client_options = {
        .protocol = options->protocol,
        .requests_max = (uint32_t)options->pipeline,
        .output_bytes_max = OUTPUT_BYTES_MAX + (uint32_t)(options->key_bytes + options->value_bytes),
        .reply_bytes_max = 64u * 1024 * 1024,
    };
    for (uint64_t i = 0; i < worker->connection_count; i++) {
        struct worker_conn *wc = &worker->conns[i];
        if (client_conn_open(&wc->conn, worker->ring, &options->addr, &client_options, &handlers, wc) != KVS_ERR_OK) {
            note_error(worker, 1, "out of memory", strlen("out of memory"));
            worker->failed = true;
            break;
        }
        worker->alive++;
    }
    uint64_t started = worker->alive;
    while (worker->opened < started && worker->alive == started && !abandoned(worker))
        turn(worker);
    if (worker->opened < worker->connection_count || worker->alive < worker->connection_count)
        worker->failed = true;
}

static uint64_t thread_cpu_ns(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * NS_PER_S +
           ((uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec) * NS_PER_US;
}

static void counts_init(struct loadgen_counts *counts)
{
    memset(counts, 0, sizeof(*counts));
    histogram_init(&counts->reads);
    histogram_init(&counts->writes);
    histogram_init(&counts->delays);
}

static void run_closed(struct loadgen_worker *worker)
{
    for (uint64_t i = 0; i < worker->connection_count; i++) {
        struct worker_conn *wc = &worker->conns[i];
        if (wc->conn == NULL)
            continue;
        refill(wc, ring_now_ns(worker->ring));
        client_conn_flush(wc->conn);
    }
    while (worker->under_way > 0 && !abandoned(worker))
        turn(worker);
}

/* The schedule's requests, all of them if they can be sent until the time of a second schedule is over. */
static void run_open(struct loadgen_worker *worker, uint64_t begin_ns, const struct loadgen_stage *stage)
{
    struct loadgen_control *control = worker->control;
    worker->schedule = (struct schedule){
        .begin_ns = begin_ns, .rate = stage->rate, .index = worker->index, .stride = control->options->threads};
    worker->scheduled = 0;
    worker->crowded_ns = 0;
    worker->quota_left =
        stage->seconds_ns > 0 ? schedule_count(&worker->schedule, stage->seconds_ns) : worker->requests_quota;
    uint64_t span_ns = schedule_due_ns(&worker->schedule, worker->quota_left) - begin_ns;
    worker->until_ns = begin_ns + 2 * span_ns + NS_PER_S;
    do {
        int64_t wait_ns = send_due(worker);
        if (worker->alive == 0)
            break;
        if (worker->under_way > 0 || worker->sending)
            (void)ring_turn(worker->ring, wait_ns);
    } while ((worker->under_way > 0 || worker->sending) && !abandoned(worker));
    if (!atomic_load_explicit(&control->stop, memory_order_relaxed))
        worker->counts.unsent = worker->quota_left;
    worker->schedule.rate = 0;
}

static void run_stage(struct loadgen_worker *worker, const struct loadgen_stage *stage)
{
    counts_init(&worker->counts);
    uint64_t cpu_ns = thread_cpu_ns();
    uint64_t begin_ns = ring_now_ns(worker->ring);
    worker->last_seen_ns = begin_ns;
    worker->until_ns = UINT64_MAX;
    worker->quota_left = UINT64_MAX;
    if (stage->kind == LOADGEN_FILL)
        worker->quota_left = worker->fill_end - worker->fill_next;
    else if (stage->seconds_ns > 0)
        worker->until_ns = begin_ns + stage->seconds_ns;
    else
        worker->quota_left = worker->requests_quota;
    worker->sending = true;
    if (stage->rate > 0)
        run_open(worker, begin_ns, stage);
    else
        run_closed(worker);
    if (worker->under_way > 0)
        note_error(worker, worker->under_way, "no reply: given up", strlen("no reply: given up"));
    worker->counts.begin_ns = begin_ns;
    worker->counts.end_ns = worker->last_seen_ns;
    worker->counts.cpu_ns = thread_cpu_ns() - cpu_ns;
}

static void close_all(struct loadgen_worker *worker)
{
    for (uint64_t i = 0; i < worker->connection_count; i++) {
        if (worker->conns[i].conn != NULL)
            client_conn_close(worker->conns[i].conn);
    }
    while (worker->alive > 0)
        turn(worker);
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */

static uint32_t power_of_two_from(uint64_t value, uint32_t min, uint32_t max)
{
    uint32_t power = min;
    while (power < value && power < max)
        power *= 2;
    return power;
}

static bool allocate(struct loadgen_worker *worker)
{
    uint32_t slot_count = (uint32_t)worker->control->options->pipeline;
    worker->conns = calloc(worker->connection_count, sizeof(*worker->conns));
    if (worker->conns == NULL)
        return false;
    for (uint64_t i = 0; i < worker->connection_count; i++) {
        struct worker_conn *wc = &worker->conns[i];
        wc->worker = worker;
        wc->slot_count = slot_count;
        wc->slots = calloc(slot_count, sizeof(*wc->slots));
        wc->idle = calloc(slot_count, sizeof(*wc->idle));
        if (wc->slots == NULL || wc->idle == NULL)
            return false;
        for (uint32_t place = 0; place < slot_count; place++)
            wc->idle[wc->idle_count++] = place;
        worker->idle_count += wc->idle_count;
    }
    return loadgen_source_init(&worker->source, worker->control->workload, worker->index) == KVS_ERR_OK;
}

static bool set_up(struct loadgen_worker *worker)
{
    const struct loadgen_options *options = worker->control->options;
    counts_init(&worker->counts);
    if (!allocate(worker)) {
        note_error(worker, 1, "out of memory", strlen("out of memory"));
        return false;
    }
    /* A buffer holds the replies to a whole pipeline, within reason; every connection may be answered at once. */
    struct ring_options ring_options = {
        .entries = power_of_two_from(2 * worker->connection_count, 64, 4096),
        .buffer_count = power_of_two_from(2 * worker->connection_count, 16, 1024),
        .buffer_bytes = power_of_two_from(options->pipeline * (options->value_bytes + 32), 4096, 64 * 1024),
    };
    char message[RING_MESSAGE_BYTES];
    struct ring *ring;
    if (ring_open(&ring, &ring_options, message) != KVS_ERR_OK) {
        note_error(worker, 1, message, strlen(message));
        return false;
    }
    worker->ring = ring;
    return true;
}

static void tear_down(struct loadgen_worker *worker)
{
    loadgen_source_deinit(&worker->source);
    for (uint64_t i = 0; worker->conns != NULL && i < worker->connection_count; i++) {
        free(worker->conns[i].slots);
        free(worker->conns[i].idle);
    }
    free(worker->conns);
    worker->conns = NULL;
}

/* Sleeps until the coordinator announces stage `number`. */
static void await_stage(struct loadgen_worker *worker, unsigned number)
{
    while (atomic_load(&worker->control->stage_number) < number)
        turn(worker);
}

static void run_stages(struct loadgen_worker *worker)
{
    struct loadgen_control *control = worker->control;
    for (unsigned number = 1;; number++) {
        await_stage(worker, number);
        if (control->stage.kind == LOADGEN_FINISH)
            break;
        if (control->stage.kind == LOADGEN_CONNECT)
            connect_all(worker);
        else
            run_stage(worker, &control->stage);
        atomic_store(&worker->stage_done, number);
        ring_wake(worker->ring, control->ring);
    }
    close_all(worker);
}

void *loadgen_worker_main(void *argument)
{
    struct loadgen_worker *worker = argument;
    (void)prctl(PR_SET_TIMERSLACK, 1ul); /* ns: to wake up when a request is due, and not 50 us later */
    if (set_up(worker)) {
        run_stages(worker);
    } else {
        worker->failed = true;
        atomic_store(&worker->stage_done, UINT_MAX);
    }
    tear_down(worker);
    /* The coordinator wakes this ring until it, too, has come here. */
    pthread_barrier_wait(&worker->control->finish);
    if (worker->ring != NULL)
        ring_close(worker->ring);
    return NULL;
}
