/*
 * waiting.c - waiting for time, for the logs of all shards, for a backup.
 *
 *   WAITAOF at home    earlier requests answered? ─► a part to each shard ─► all back: [1, 0]
 *   part at a shard    engine_want_durable: up to where? ─► durable that far, or failed ─► home
 *
 * Failures. No memory: an error. The peer has gone, or the node stops: the answer is what has come of it by then. Parts
 * under way come home before anything is freed.
 */
#include "node/waiting.h"

#include "base/assert.h"
#include "node/node_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define LOOK_NS   1000000u
#define NS_PER_MS 1000000u

enum waiting_for { FOR_TIME, FOR_ANSWERS, FOR_PARTS, FOR_BACKUP };

struct part {
    struct mail mail;
    struct list link; /* in waiting_parts of the shard it is at */
    struct waiting *waiting;
    uint64_t lsn;
    bool failed;
};

struct waiting {
    struct net_slot slot;
    struct list link; /* in waitings of its shard */
    struct shard *shard;
    struct net_conn *conn;
    enum waiting_for what;
    bool array;    /* the reply is [local, 0]; else it is 0 */
    bool replicas; /* … who never answer: it takes all the time */
    bool local;    /* the logs of all shards are durable */
    bool failed;   /* … or one never will be */
    bool answered, released;
    uint64_t deadline_ns; /* UINT64_MAX: none */
    uint64_t backups;     /* that had ended before */
    unsigned pending;     /* parts not back */
    char reply[ENGINE_MESSAGE_BYTES + 32];
    struct part parts[];
};

/* ---- beginning ------------------------------------------------------------------------------------------------- */

static void waiting_free(struct waiting *waiting)
{
    list_remove(&waiting->link);
    free(waiting);
}

/* With parts under way it stays until they are back. */
static void on_released(struct net_slot *slot)
{
    struct waiting *waiting = container_of(slot, struct waiting, slot);
    waiting->released = true;
    if (waiting->pending == 0)
        waiting_free(waiting);
}

void waiting_abandon(struct shard *shard)
{
    while (!list_empty(&shard->waitings))
        waiting_free(container_of(shard->waitings.next, struct waiting, link));
    list_init(&shard->waiting_parts);
}

static struct waiting *begin(struct call *call, enum waiting_for what, uint64_t timeout_ms)
{
    struct shard *shard = call->shard;
    struct waiting *waiting = calloc(1, sizeof(*waiting) + shard->count * sizeof(waiting->parts[0]));
    if (waiting == NULL) {
        call_error(call, "OOM kvs-node: no memory for the request");
        return NULL;
    }
    const uint64_t now_ns = ring_now_ns(shard->ring);
    waiting->shard = shard;
    waiting->conn = call->conn;
    waiting->what = what;
    waiting->deadline_ns = timeout_ms == 0 || timeout_ms > (UINT64_MAX - now_ns) / NS_PER_MS
                               ? UINT64_MAX
                               : now_ns + timeout_ms * NS_PER_MS;
    net_reply_defer(call->conn, &waiting->slot);
    waiting->slot.released = on_released;
    net_conn_hold(call->conn);
    list_push_back(&shard->waitings, &waiting->link);
    return waiting;
}

void waiting_replicas(struct call *call, uint64_t timeout_ms)
{
    (void)begin(call, FOR_TIME, timeout_ms);
}

void waiting_durable(struct call *call, bool local, bool replicas, uint64_t timeout_ms)
{
    struct waiting *waiting = begin(call, local ? FOR_ANSWERS : FOR_TIME, timeout_ms);
    if (waiting == NULL)
        return;
    waiting->array = true;
    waiting->replicas = replicas;
}

void waiting_backup(struct call *call, uint64_t ended)
{
    struct waiting *waiting = begin(call, FOR_BACKUP, 0);
    if (waiting != NULL)
        waiting->backups = ended;
}

/* ---- the answer ------------------------------------------------------------------------------------------------ */

static void answer(struct waiting *waiting)
{
    struct net_conn *conn = waiting->conn;
    KVS_ASSERT(!waiting->answered);
    waiting->answered = true;
    net_slot_fill(&waiting->slot, (const uint8_t *)waiting->reply, strlen(waiting->reply), 0);
    net_conn_go_on(conn);
}

static void answer_counts(struct waiting *waiting)
{
    if (waiting->array)
        snprintf(waiting->reply, sizeof(waiting->reply), "*2\r\n:%d\r\n:0\r\n", waiting->local);
    else
        snprintf(waiting->reply, sizeof(waiting->reply), ":0\r\n");
    answer(waiting);
}

/* ---- the logs of all shards ------------------------------------------------------------------------------------ */

static void part_is_home(struct part *part)
{
    struct waiting *waiting = part->waiting;
    KVS_ASSERT(waiting->pending > 0);
    waiting->failed |= part->failed;
    if (--waiting->pending > 0)
        return;
    waiting->local = !waiting->failed;
    if (waiting->released)
        waiting_free(waiting);
    else if (!waiting->answered && (!waiting->replicas || waiting->failed))
        answer_counts(waiting);
    else
        waiting->what = FOR_TIME;
}

static void take_part(struct shard *shard, struct part *part)
{
    part->lsn = engine_want_durable(shard->engine);
    list_push_back(&shard->waiting_parts, &part->link);
}

static void ask_shards(struct waiting *waiting)
{
    struct shard *shard = waiting->shard;
    waiting->what = FOR_PARTS;
    waiting->pending = shard->count;
    for (unsigned i = 0; i < shard->count; i++) {
        struct part *part = &waiting->parts[i];
        part->waiting = waiting;
        part->mail.kind = MAIL_WAITING;
        list_init(&part->link);
        if (i == shard->id)
            take_part(shard, part);
        else
            mailbox_post(shard->mailbox, i, &part->mail);
    }
}

void waiting_deliver(struct shard *shard, struct mail *mail)
{
    struct part *part = container_of(mail, struct part, mail);
    if (part->waiting->shard == shard)
        part_is_home(part);
    else
        take_part(shard, part);
}

/* Sends home what has become durable, or never will. */
static void turn_parts(struct shard *shard)
{
    for (struct list *node = shard->waiting_parts.next, *next; node != &shard->waiting_parts; node = next) {
        struct part *part = container_of(node, struct part, link);
        next = node->next;
        const bool durable = part->lsn <= shard->durable || canary_on(CANARY_WAITAOF_AT_ONCE);
        if (!durable && !shard->failed)
            continue;
        part->failed = !durable;
        list_remove(&part->link);
        if (part->waiting->shard == shard)
            part_is_home(part);
        else
            mailbox_post(shard->mailbox, part->waiting->shard->id, &part->mail);
    }
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

static void look_at_backup(struct waiting *waiting, bool over)
{
    struct shard *shard = waiting->shard;
    struct engine_backup_state state;
    engine_section_begin(shard->engine);
    engine_backup_state(shard->store, &state);
    engine_section_end(shard->engine);
    if (state.ended > waiting->backups && state.error == KVS_ERR_OK)
        snprintf(waiting->reply, sizeof(waiting->reply), "+OK\r\n");
    else if (state.ended > waiting->backups)
        snprintf(waiting->reply, sizeof(waiting->reply), "-ERR %s\r\n", state.text);
    else if (over)
        snprintf(waiting->reply, sizeof(waiting->reply), "-ERR the node stops\r\n");
    else
        return;
    answer(waiting);
}

static void look(struct waiting *waiting, uint64_t now_ns, bool stopping)
{
    struct net_conn_info info;
    if (waiting->answered)
        return;
    net_conn_info(waiting->conn, &info);
    const bool over = stopping || info.ending || info.half_closed || now_ns >= waiting->deadline_ns;
    switch (waiting->what) {
    case FOR_TIME:
        if (over)
            answer_counts(waiting);
        break;
    case FOR_ANSWERS:
        if (info.output_replies <= 1) /* its own */
            ask_shards(waiting);
        else if (over)
            answer_counts(waiting);
        break;
    case FOR_PARTS:
        if (over)
            answer_counts(waiting);
        break;
    case FOR_BACKUP:
        look_at_backup(waiting, stopping || info.ending);
        break;
    }
}

void waiting_turn(struct shard *shard)
{
    if (!list_empty(&shard->waiting_parts))
        turn_parts(shard);
    if (list_empty(&shard->waitings))
        return;
    const uint64_t now_ns = ring_now_ns(shard->ring);
    if (now_ns < shard->waiting_look_ns)
        return;
    shard->waiting_look_ns = now_ns + LOOK_NS;
    const bool stopping = node_phase(shard->node) >= SHARD_DRAIN;
    for (struct list *node = shard->waitings.next, *next; node != &shard->waitings; node = next) {
        next = node->next;
        look(container_of(node, struct waiting, link), now_ns, stopping);
    }
}

int64_t waiting_wait_ns(const struct shard *shard)
{
    return list_empty(&shard->waitings) ? -1 : (int64_t)LOOK_NS;
}
