/*
 * sim_client.c - a client on the simulated network: its connection, and the work that it is given.
 *
 * Happy path: operations are encoded into `forming` (sim_ask.c); when nothing is being sent, that becomes `sending`.
 * What is received goes to `in`, and is judged at once.
 *
 * Failure modes: an end of the connection without a reason breaks the run.
 */
#include "sim_client_internal.h"

#include "draw.h"
#include "sim_core.h"
#include "verdict.h"

#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIPELINE_MAX 100u /* of a task */
/* Of a pipeline. With few keys less: what a hundred writes under way on one key allow takes too long to decide. */
#define DEPTH_MAX     600u
#define DEPTH_PER_KEY 3u

static uint32_t sessions; /* of the process; never used twice */

static void pump(struct client *client);

/* ---- small things ---------------------------------------------------------------------------------------------- */

uint64_t client_draw(struct client *client, uint64_t below)
{
    return draw_next(&client->random) % below;
}

uint8_t *client_reserve(struct buffer *buffer, size_t size)
{
    if (buffer->room - buffer->size < size) {
        buffer->room = 2 * (buffer->size + size);
        buffer->data = realloc(buffer->data, buffer->room);
        KVS_ASSERT(buffer->data != NULL);
    }
    return buffer->data + buffer->size;
}

const char *client_protocol_name(enum protocol protocol)
{
    return protocol == FRAMES ? "frames" : protocol == RESP_2 ? "RESP2" : "RESP3";
}

/* ---- the connection -------------------------------------------------------------------------------------------- */

static void leave_all(struct client *client)
{
    ask_leave_all(client);
    client->forming.size = client->sending.size = client->in.size = client->in_read = 0;
    task_end(&client->task);
}

static bool link_quiet(const struct client *client)
{
    return !ring_op_active(&client->recv_op) && !ring_op_active(&client->send_op) &&
           !ring_op_active(&client->connect_op);
}

/* Both directions are over: the descriptor goes as soon as nothing is in flight on it. */
static void link_end(struct client *client)
{
    const struct circumstances *why = client->setting.circumstances;
    if (client->state == LINK_OPEN) {
        bool reason = client->asked_to_close || why->network_may_break || why->leaving;
        if (!reason)
            broken("client %u (%s): its connection ended without a reason, %u operations unanswered",
                   client->setting.number, client_protocol_name(client->protocol), client->ask_count);
        story("client %u: connection over, %u unanswered", client->setting.number, client->ask_count);
        ring_shutdown(client->setting.ring, client->fd);
    }
    client->state = LINK_ENDING;
    if (!link_quiet(client))
        return;
    leave_all(client);
    if (client->fd >= 0)
        ring_close_fd(client->setting.ring, client->fd);
    client->fd = -1;
    client->state = LINK_NONE;
    client->close_when_answered = false;
}

static void may_flush(struct client *client)
{
    unsigned permille = client->protocol == FRAMES ? 0 : client->setting.flushes_permille;
    if (permille > 0 && client_draw(client, 1000) < permille)
        ask_flush(client, ASK_FLUSH);
}

/* The task's next pipeline, if the one before has been answered; or a pause before what was refused is repeated. */
static void go_on_with_task(struct client *client)
{
    struct task_step steps[PIPELINE_MAX];
    if (client->ask_count > 0 || client->state != LINK_OPEN || ring_op_active(&client->pause))
        return;
    unsigned depth = DEPTH_PER_KEY * oracle_keys(client->setting.oracle);
    unsigned count = task_pipeline(&client->task, steps, depth < PIPELINE_MAX ? depth : PIPELINE_MAX);
    for (unsigned i = 0; i < count; i++) {
        if (steps[i].action == TASK_SET)
            ask_set(client, steps[i].key);
        else if (steps[i].action == TASK_DEL)
            ask_del(client, steps[i].key);
        else if (steps[i].action == TASK_SWAP)
            ask_swap(client, steps[i].key);
        else
            ask_get(client, steps[i].key);
        may_flush(client);
    }
    uint64_t pause_ns = count > 0 ? 0 : task_pause_ns(&client->task);
    if (pause_ns > 0)
        ring_timer(client->setting.ring, &client->pause, pause_ns);
}

static void on_paused(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, pause);
    task_repeat(&client->task);
    go_on_with_task(client);
    pump(client);
}

static void on_received(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, recv_op);
    if ((op->flags & RING_BUFFER) != 0) {
        memcpy(client_reserve(&client->in, op->bytes), ring_buffer_data(client->setting.ring, op->buffer_id),
               op->bytes);
        client->in.size += op->bytes;
        ring_buffer_release(client->setting.ring, op->buffer_id);
        if (client->state == LINK_OPEN) {
            ask_take_replies(client);
            go_on_with_task(client);
        }
    }
    if ((op->flags & RING_MORE) != 0) {
        pump(client);
        return;
    }
    if (client->state == LINK_OPEN && (op->error == KVS_ERR_NO_BUFFERS || (op->error == KVS_ERR_OK && op->bytes > 0)))
        ring_recv(client->setting.ring, op, client->fd);
    else
        link_end(client);
    pump(client);
}

static void on_sent(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, send_op);
    client->sending.size = 0;
    if (op->error != KVS_ERR_OK || client->state == LINK_ENDING)
        link_end(client);
    pump(client);
}

static void on_connected(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, connect_op);
    const struct circumstances *why = client->setting.circumstances;
    if (op->error == KVS_ERR_OK && client->state == LINK_CONNECTING) {
        client->fd = op->fd;
        client->state = LINK_OPEN;
        ring_recv(client->setting.ring, &client->recv_op, client->fd);
        pump(client);
        return;
    }
    if (op->error == KVS_ERR_OK)
        client->fd = op->fd;
    else if (!why->network_may_break && !why->leaving && !client->asked_to_close)
        broken("client %u: cannot connect: %s", client->setting.number, ring_op_text(op));
    client->state = LINK_ENDING;
    link_end(client);
}

static void pump(struct client *client)
{
    if (client->state != LINK_OPEN)
        return;
    if (client->close_when_answered && client->ask_count == 0 && !task_busy(&client->task)) {
        client->asked_to_close = true;
        link_end(client);
        return;
    }
    if (client->sending.size > 0 || client->forming.size == 0)
        return;
    struct buffer formed = client->forming;
    client->forming = client->sending;
    client->sending = formed;
    client->iov = (struct iovec){client->sending.data, client->sending.size};
    ring_send(client->setting.ring, &client->send_op, client->fd, &client->iov, 1);
}

static void link_begin(struct client *client)
{
    client->protocol = (enum protocol)client_draw(client, 3);
    client->relaxed = oracle_is_relaxed(client->setting.oracle, 0) && client_draw(client, 4) == 0;
    client->session = ++sessions;
    client->asked_to_close = client->close_when_answered = false;
    client->state = LINK_CONNECTING;
    story("client %u: connects, %s%s", client->setting.number, client_protocol_name(client->protocol),
          client->relaxed ? ", relaxed" : "");
    ask_set_up(client);
    ring_connect(client->setting.ring, &client->connect_op, &client->setting.addr);
}

/* ---- the contract ---------------------------------------------------------------------------------------------- */

struct client *client_create(const struct client_setting *setting)
{
    struct client *client = calloc(1, sizeof(*client));
    KVS_ASSERT(client != NULL);
    client->setting = *setting;
    client->fd = -1;
    client->counted = -1;
    list_init(&client->asks);
    ring_op_init(&client->connect_op, on_connected);
    ring_op_init(&client->send_op, on_sent);
    ring_op_init(&client->recv_op, on_received);
    ring_op_init(&client->pause, on_paused);
    return client;
}

/* Some work has more operations that look and change, some less. */
static void draw_swaps(struct client *client)
{
    unsigned most = client->protocol != FRAMES ? client->setting.swaps_percent : 0;
    client->swaps_percent = most > 0 ? (unsigned)client_draw(client, most + 1) : 0;
}

/* Most of them on hot keys, or there were few that meet. */
static unsigned choose_key_to_swap(struct client *client)
{
    unsigned base, count = client_key_class(client, &base);
    return client_draw(client, 3) > 0 ? base + (unsigned)client_draw(client, count / 20 + 1)
                                      : client_choose_key(client);
}

static void ask_to_swap(struct client *client)
{
    if (!client->relaxed && client_draw(client, 4) == 0)
        ask_counter(client, (unsigned)client_draw(client, counters_keys(client->setting.counters)),
                    client_draw(client, UINT64_MAX));
    else
        ask_swap(client, choose_key_to_swap(client));
}

/* Of everything, all at once. */
static void work_mixed(struct client *client, unsigned count)
{
    uint64_t writes = 10 + client_draw(client, 80), removes = client_draw(client, 20);
    unsigned depth = DEPTH_PER_KEY * oracle_keys(client->setting.oracle);
    if (depth > DEPTH_MAX)
        depth = DEPTH_MAX;
    for (unsigned i = 0; i < count && client->ask_count < depth; i++) {
        may_flush(client);
        uint64_t chance = client_draw(client, 100);
        unsigned fleeting = (unsigned)client_draw(client, 6 * fleeting_keys(client->setting.fleeting));
        if (fleeting < fleeting_keys(client->setting.fleeting) && ask_fleeting_may(client, fleeting))
            ask_fleeting(client, fleeting, client_draw(client, UINT64_MAX));
        else if (client->setting.scans_percent > 0 && client->protocol != FRAMES && client->scans == 0 &&
                 client_draw(client, 100) < client->setting.scans_percent)
            ask_scan(client, false);
        else if (client->swaps_percent > 0 && client_draw(client, 100) < client->swaps_percent)
            ask_to_swap(client);
        else if (chance < writes)
            ask_set(client, client_choose_key(client));
        else if (chance < writes + removes)
            ask_several(client, ASK_DEL);
        else if (chance % 4 == 0)
            ask_several(client, ASK_MGET);
        else if (chance % 16 == 1 && client->protocol != FRAMES)
            ask_several(client, ASK_EXISTS);
        else if (chance % 32 == 2)
            ask_ping(client);
        else
            ask_get(client, client_choose_key(client));
    }
}

void client_work(struct client *client, enum work_style style, unsigned count, uint64_t seed)
{
    client->random = seed;
    if (client->state == LINK_ENDING || client->close_when_answered)
        return;
    if (client->state == LINK_NONE)
        link_begin(client);
    unsigned base, keys = client_key_class(client, &base);
    task_begin(&client->task, style, style == WORK_MIXED ? 0 : count, base, keys, client_draw(client, UINT64_MAX));
    draw_swaps(client);
    client->task.swaps = client->swaps_percent > 0;
    if (style == WORK_MIXED)
        work_mixed(client, count);
    go_on_with_task(client);
    pump(client);
}

void client_press(struct client *client, enum work_style style, unsigned count, unsigned depth, uint64_t seed)
{
    KVS_ASSERT(client_idle(client) && client->state == LINK_NONE);
    client->random = seed;
    link_begin(client);
    if (client->relaxed) { /* nothing has left yet */
        client->relaxed = false;
        leave_all(client);
        ask_set_up(client);
    }
    unsigned base, keys = client_key_class(client, &base);
    task_begin(&client->task, style, count, base, keys, seed);
    client->task.depth = depth > 0 ? depth : 1;
    client->task.patience = 0;
    client->task.ends_when_refused = style == WORK_FILL;
}

/* A durable connection over RESP. */
static void link_plainly(struct client *client)
{
    KVS_ASSERT(client_idle(client));
    if (client->state == LINK_OPEN && (client->relaxed || client->protocol == FRAMES)) {
        client->asked_to_close = true;
        link_end(client);
    }
    KVS_ASSERT(client->state != LINK_CONNECTING);
    client->random = 1;
    while (client->state == LINK_ENDING && sim_step()) {
    }
    if (client->state == LINK_NONE) {
        link_begin(client);
        if (client->relaxed || client->protocol == FRAMES) { /* nothing has left yet: begin once more, plainly */
            client->protocol = RESP_3;
            client->relaxed = false;
            leave_all(client);
            ask_set_up(client);
        }
    }
}

bool client_peek(struct client *client)
{
    if (client->state != LINK_OPEN || !client_idle(client))
        return false;
    ask_get(client, client_choose_key(client));
    pump(client);
    return true;
}

void client_flush(struct client *client)
{
    link_plainly(client);
    ask_flush(client, ASK_FLUSH);
    pump(client);
}

void client_flush_untold(struct client *client)
{
    link_plainly(client);
    ask_flush(client, ASK_FLUSH_UNTOLD);
    pump(client);
}

bool client_flushed(const struct client *client)
{
    return client->flushed;
}

void client_flush_tell(struct client *client)
{
    KVS_ASSERT(client_idle(client));
    ask_flush_tell(client);
}

void client_read_all(struct client *client)
{
    link_plainly(client);
    for (unsigned key = 0; key < oracle_keys(client->setting.oracle); key++)
        ask_get(client, key);
    for (unsigned key = 0; key < fleeting_keys(client->setting.fleeting); key++) {
        if (ask_fleeting_may(client, key))
            ask_fleeting(client, key, 0);
    }
    for (unsigned key = 0; client->setting.swaps_percent > 0 && key < counters_keys(client->setting.counters); key++)
        ask_counter(client, key, 0);
    if (client->setting.scans_percent > 0)
        ask_scan(client, true);
    ask_for_count(client);
    pump(client);
}

int64_t client_counted(const struct client *client)
{
    return client->counted;
}

void client_close(struct client *client, bool at_once)
{
    if (client->state == LINK_NONE || client->state == LINK_ENDING)
        return;
    if (!at_once) {
        client->close_when_answered = true;
        pump(client);
        return;
    }
    client->asked_to_close = true;
    if (client->state == LINK_OPEN)
        link_end(client);
    else
        client->state = LINK_ENDING; /* on_connected closes it */
}

bool client_idle(const struct client *client)
{
    return client->ask_count == 0 && !task_busy(&client->task) && client->state != LINK_ENDING &&
           !ring_op_active(&client->send_op) && !client->close_when_answered && client->state != LINK_CONNECTING;
}

void client_describe(const struct client *client)
{
    static const char *const names[] = {"none", "connecting", "open", "ending"};
    fprintf(stderr, "client %u: connection %s, %s%s, session %u, %u unanswered, %zu bytes to send, %zu received\n",
            client->setting.number, names[client->state], client_protocol_name(client->protocol),
            client->relaxed ? " relaxed" : "", client->session, client->ask_count,
            client->forming.size + client->sending.size, client->in.size);
    if (client->ask_count > 0) {
        const struct ask *ask = container_of(client->asks.next, struct ask, link);
        fprintf(stderr, "client %u: oldest ask kind %d, id %" PRIu64 ", key %u\n", client->setting.number,
                (int)ask->kind, ask->id, ask->key_count > 0 ? ask->keys[0] : 0);
    }
}

void client_free(struct client *client)
{
    leave_all(client);
    free(client->forming.data);
    free(client->sending.data);
    free(client->in.data);
    free(client);
}
