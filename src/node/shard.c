/*
 * shard.c - the loop of one shard.
 *
 *   ring_turn ──► completions: requests are parsed, executed, answered or sent on their way
 *   mailbox   ──► operations of other shards are executed, answers to ours fill their slots
 *   engine_turn ► what was appended is written; what has become durable is known
 *   release   ──► replies and answers whose gates were reached leave
 *   send, flush ► one message chain per shard, one gathered send per connection
 *
 * All of it is submitted by the next ring_turn, which sleeps if nothing is left to do: whatever could end the sleep is
 * a completion, a time-out of the engine's, mail (mailbox_sleep), or the node, which wakes every shard when it changes
 * the phase. Between two turns a shard counts as asleep, so that a simulator, where nothing else runs during ring_turn,
 * wakes it too.
 *
 * Before the store is open there is no engine, and the loop does without: requests are answered by command.c, which
 * looks at `serving`. The engine comes and goes between two turns only, never while requests are handled.
 *
 * Failures. A shard that cannot be opened says why in its message and is SHARD_BROKEN; one that cannot attach itself to
 * the engine says why and stops with the others. One whose engine fails goes on serving reads; gates that will never be
 * reached become errors, here and on other shards.
 */
#include "node/shard.h"

#include "base/assert.h"
#include "node/access.h"
#include "node/acl_store.h"
#include "node/command.h"
#include "node/crowd.h"
#include "node/dispatch.h"
#include "node/flush.h"
#include "node/gather.h"
#include "node/login.h"
#include "node/monitor.h"
#include "node/multi.h"
#include "node/node_internal.h"
#include "node/scan.h"
#include "node/settings.h"
#include "node/transaction.h"
#include "node/waiting.h"

#include <stdio.h>
#include <stdlib.h>

/* With transactions that wait for what no event tells of, memory above all. */
#define TRANSACTION_WAIT_NS 1000000
/* With mail that did not fit into a ring, look again soon. */
#define BACKLOG_WAIT_NS 50000

static void set_state(struct shard *shard, enum shard_state state)
{
    atomic_store(&shard->state, state);
    /* The supervisor waits in its ring for news. */
    if (shard->ring != NULL && state != SHARD_PREPARING && state != SHARD_DRAINING && state != SHARD_STOPPING)
        ring_wake(shard->ring, shard->node->ring);
}

static enum shard_state get_state(const struct shard *shard)
{
    return atomic_load_explicit(&shard->state, memory_order_relaxed);
}

static void on_batch_begin(void *context)
{
    struct shard *shard = context;
    shard->now_ns = ring_now_ns(shard->ring);
    meter_begin(&shard->meter, shard->now_ns);
    if (shard->engine != NULL)
        engine_section_begin(shard->engine);
}

static void on_batch_end(void *context)
{
    struct shard *shard = context;
    if (shard->meter.run_size != 0)
        meter_end_run(&shard->meter, ring_now_ns(shard->ring));
    if (shard->engine != NULL)
        engine_section_end(shard->engine);
}

static void on_opened(void *context, struct net_conn *conn)
{
    client_opened(context, conn);
}

static void on_closed(void *context, struct net_conn *conn)
{
    client_closed(context, conn);
}

/* ---- opening and closing --------------------------------------------------------------------------------------- */

static void broken(struct shard *shard, const char *what, const char *why)
{
    snprintf(shard->message, sizeof(shard->message), "shard %u: %s: %s", shard->id, what, why);
}

static void on_refused(void *context, struct net_conn *conn)
{
    (void)context;
    multi_spoil(net_conn_user(conn));
}

static bool open_parts(struct shard *shard)
{
    struct node *node = shard->node;
    struct ring_options ring_options = {.buffer_count = node->recv_buffers, .buffer_bytes = SHARD_RECV_BUFFER_BYTES};
    struct net_handler handler = {
        .context = shard,
        .batch_begin = on_batch_begin,
        .batch_end = on_batch_end,
        .keys_ahead = dispatch_ahead,
        .resp_request = command_resp,
        .frame_request = command_frame,
        .refused = on_refused,
        .opened = on_opened,
        .closed = on_closed,
    };
    char message[RING_MESSAGE_BYTES];
    if (ring_open(&shard->ring, &ring_options, message) != KVS_ERR_OK) {
        broken(shard, "io_uring", message);
        return false;
    }
    mailbox_attach(shard->mailbox, shard->ring);
    shard->scratch = calloc(SHARD_SCRATCH_RESULTS, sizeof(*shard->scratch));
    if (shard->scratch == NULL) {
        broken(shard, "buffers", kvs_err_text(KVS_ERR_NO_MEMORY));
        return false;
    }
    struct net_options options = node->net_options;
    options.large_reserve = &shard->large_reserve;
    enum kvs_err err = net_open(&shard->net, shard->ring, &options, &handler);
    if (err != KVS_ERR_OK) {
        broken(shard, "connections", kvs_err_text(err));
        return false;
    }
    settings_turn(shard);
    for (unsigned i = 0; i < node->listener_count; i++) {
        err = net_accept(shard->net, node->listeners[shard->id][i]);
        if (err != KVS_ERR_OK) {
            broken(shard, "accepting connections", kvs_err_text(err));
            return false;
        }
    }
    return true;
}

void shard_open(struct shard *shard)
{
    op_pool_init(&shard->pool, shard, &shard->node->budget, shard->node->ops_max);
    if (open_parts(shard)) {
        set_state(shard, SHARD_LOADING);
        return;
    }
    set_state(shard, SHARD_BROKEN);
    shard_close(shard);
}

static void free_parts(struct shard *shard)
{
    if (shard->net != NULL)
        net_close(shard->net);
    gather_abandon(shard);
    transaction_abandon(shard);
    crowd_abandon(shard);
    scan_abandon(shard);
    login_abandon(shard);
    acl_store_abandon(shard);
    waiting_abandon(shard);
    flush_abandon(shard);
    monitor_abandon(shard);
    client_abandon_all(shard);
    op_pool_deinit(&shard->pool);
    free(shard->scratch);
    shard->net = NULL;
    shard->engine = NULL;
    shard->scratch = NULL;
}

void shard_close(struct shard *shard)
{
    /* A start that failed leaves things in flight; the ring ends them. */
    if (shard->ring != NULL)
        ring_close(shard->ring);
    shard->ring = NULL;
    free_parts(shard);
}

void shard_abandon(struct shard *shard)
{
    shard->ring = NULL;
    free_parts(shard);
}

/* ---- phases ---------------------------------------------------------------------------------------------------- */

static void attach(struct shard *shard)
{
    shard->store = shard->node->engine;
    shard->hash_seed = engine_hash_seed(shard->store);
    enum kvs_err err = engine_shard_start(shard->store, shard->id, shard->ring, &shard->engine);
    if (err != KVS_ERR_OK) {
        shard->engine = NULL;
        broken(shard, "engine", kvs_err_text(err)); /* node_supervise finds it */
        set_state(shard, SHARD_READY);
        return;
    }
    shard->durable = engine_durable(shard->engine);
    set_state(shard, SHARD_PREPARING);
}

static void start_serving(struct shard *shard)
{
    shard->serving = true;
    set_state(shard, SHARD_SERVING);
}

static void start_draining(struct shard *shard)
{
    net_drain(shard->net);
    set_state(shard, SHARD_DRAINING);
}

static void start_stopping(struct shard *shard)
{
    if (shard->engine != NULL)
        engine_shard_stop(shard->engine);
    set_state(shard, SHARD_STOPPING);
}

/* Takes one of the steps that the node's phase asks for, if there is one to take; false at the end. */
static bool take_step(struct shard *shard)
{
    enum shard_phase phase = node_phase(shard->node);
    switch (get_state(shard)) {
    case SHARD_OPENING:
        break;
    case SHARD_LOADING:
        if (phase == SHARD_LOAD)
            break;
        if (shard->node->attach)
            attach(shard);
        else
            start_draining(shard);
        break;
    case SHARD_PREPARING:
        if (phase >= SHARD_DRAIN)
            start_draining(shard);
        else if (engine_shard_ready(shard->engine))
            set_state(shard, SHARD_READY);
        break;
    case SHARD_READY:
        if (phase >= SHARD_DRAIN)
            start_draining(shard);
        else if (phase == SHARD_SERVE)
            start_serving(shard);
        break;
    case SHARD_SERVING:
        if (phase >= SHARD_DRAIN)
            start_draining(shard);
        break;
    case SHARD_DRAINING:
        if (phase >= SHARD_ABORT && !shard->aborted) {
            shard->aborted = true;
            net_abort(shard->net);
        }
        if (net_drained(shard->net) && list_empty(&shard->transactions) && list_empty(&shard->multis) &&
            flush_over(shard))
            set_state(shard, SHARD_DRAINED);
        break;
    case SHARD_DRAINED:
        if (phase >= SHARD_STOP)
            start_stopping(shard);
        break;
    case SHARD_STOPPING:
        if (shard->engine == NULL || engine_shard_stopped(shard->engine))
            set_state(shard, SHARD_STOPPED);
        break;
    case SHARD_STOPPED:
        return phase < SHARD_EXIT;
    case SHARD_BROKEN:
        return false;
    }
    return true;
}

/* Looks at the phase once more after each step: who changes it wakes those who have come to a state in which they
 * sleep, and no others (node_phase). False at the end. */
static bool follow_phase(struct shard *shard)
{
    for (;;) {
        enum shard_state before = get_state(shard);
        bool goes_on = take_step(shard);
        if (!goes_on || get_state(shard) == before)
            return goes_on;
    }
}

/* ---- the loop -------------------------------------------------------------------------------------------------- */

/* The engine has stopped writing, and has logged why: whatever waits for its log is told so. */
static void fail(struct shard *shard)
{
    shard->failed = true;
    char text[REPLY_ERROR_BYTES_MAX - 64];
    struct reply_origin origin = shard_origin(shard);
    reply_error_text(text, KVS_ERR_FAILED, &origin);
    net_fail_gates(shard->net, text);
}

/* Lets go what has become durable. */
static void release(struct shard *shard)
{
    uint64_t durable = engine_durable(shard->engine);
    KVS_ASSERT(durable >= shard->durable);
    bool moved = durable > shard->durable;
    if (moved) {
        shard->durable = durable;
        net_release(shard->net, durable);
    }
    bool failing = !shard->failed && engine_failed(shard->engine);
    if (failing)
        fail(shard);
    if (moved || failing)
        dispatch_release(shard);
}

static bool in_transition(enum shard_state state)
{
    return state == SHARD_PREPARING || state == SHARD_DRAINING || state == SHARD_STOPPING || state == SHARD_STOPPED;
}

/* How long the ring may wait for a completion: 0 when there is work, -1 when only completions and mail can bring some.
 */
static int64_t wait_ns(const struct shard *shard)
{
    int64_t wait = shard->engine != NULL ? engine_timeout_ns(shard->engine) : -1;
    if (!list_empty(&shard->pool.trash.pieces) || !list_empty(&shard->assembling))
        wait = 0;
    if (transaction_waits(shard))
        wait = ring_sooner(wait, TRANSACTION_WAIT_NS);
    if (crowd_waiting(shard) || scan_waiting(shard) || shard->execs_ready > 0 || derive_waiting(&shard->derivations))
        wait = 0;
    wait = ring_sooner(wait, access_wait_ns(shard));
    wait = ring_sooner(wait, waiting_wait_ns(shard));
    wait = ring_sooner(wait, flush_wait_ns(shard));
    if (mailbox_backlog(shard->mailbox))
        wait = ring_sooner(wait, BACKLOG_WAIT_NS);
    if (in_transition(get_state(shard)))
        wait = ring_sooner(wait, SHARD_TRANSITION_WAIT_NS);
    return wait;
}

static void turn_transactions(struct shard *shard)
{
    if (!transaction_waits(shard))
        return;
    engine_section_begin(shard->engine);
    transaction_turn(shard);
    engine_section_end(shard->engine);
}

static void deliver(void *context, struct mail *mail)
{
    if (__builtin_expect(mail->kind == MAIL_OP, 1))
        dispatch_deliver(context, mail);
    else if (mail->kind == MAIL_TRANSACTION)
        transaction_deliver(context, mail);
    else if (mail->kind == MAIL_CROWD)
        crowd_deliver(context, mail);
    else if (mail->kind == MAIL_SCAN)
        scan_deliver(context, mail);
    else if (mail->kind == MAIL_WAITING)
        waiting_deliver(context, mail);
    else if (mail->kind == MAIL_FLUSH)
        flush_deliver(context, mail);
    else if (mail->kind == MAIL_MULTI)
        multi_deliver(context, mail);
    else
        monitor_deliver(context, mail);
}

/* Returns how much mail there was. */
static unsigned turn_engine(struct shard *shard)
{
    engine_section_begin(shard->engine);
    unsigned mails = mailbox_collect(shard->mailbox, deliver, shard);
    engine_section_end(shard->engine);
    turn_transactions(shard); /* what they append now is committed now */
    engine_turn(shard->engine);
    release(shard);
    turn_transactions(shard);
    return mails;
}

bool shard_turn(struct shard *shard, bool may_sleep)
{
    if (get_state(shard) == SHARD_BROKEN)
        return false;
    enum shard_state state = get_state(shard);
    int64_t wait = wait_ns(shard);
    unsigned events = ring_turn(shard->ring, may_sleep && shard->asleep ? wait : 0);
    mailbox_awake(shard->mailbox);
    settings_turn(shard);
    shard->exec_worked = false;

    if (shard->engine != NULL)
        events += turn_engine(shard);
    else
        events += mailbox_collect(shard->mailbox, deliver, shard); /* no operations yet */
    derive_turn(&shard->derivations, ring_now_ns(shard->ring), events == 0);
    crowd_turn(shard);
    flush_turn(shard);
    access_turn(shard);
    waiting_turn(shard);
    acl_turn(shard->node->acl, shard->id);
    bool goes_on = follow_phase(shard);
    (void)large_trash_turn(&shard->pool.trash);
    gather_turn(shard);
    scan_turn(shard);
    monitor_turn(shard);
    mailbox_send(shard->mailbox);
    net_flush(shard->net);
    shard->busy = events > 0 || get_state(shard) != state || wait_ns(shard) != wait;
    shard->asleep = mailbox_sleep(shard->mailbox);
    return goes_on;
}
