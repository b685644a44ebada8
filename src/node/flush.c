/*
 * flush.c - the stages of a flush: in each every shard gets a part, works at it in its turns, and sends it home; when
 * all are back the next stage begins.
 *
 * Failures. A shard has failed, or has no memory: what was paused goes on, nothing has happened, and the answer says
 * why. The engine cannot make it durable: no shard writes any more (P6), and the answer says that.
 */
#include "node/flush.h"

#include "base/assert.h"
#include "node/access.h"
#include "node/node_internal.h"

#include <stdlib.h>

#define LOOK_NS 1000000

enum flush_stage { STAGE_PAUSE, STAGE_PREPARE, STAGE_WRITE, STAGE_END, STAGE_RESUME };

struct flush_part {
    struct mail mail;
    struct flush *flush;
    enum flush_stage stage;
    uint64_t lsn;
    enum kvs_err error;
    char text[REPLY_ERROR_BYTES_MAX];
};

struct flush {
    struct net_slot slot;
    struct shard *shard;
    struct net_conn *conn;
    enum flush_stage stage;
    unsigned pending; /* parts that are not back */
    bool over, released;
    char reply[REPLY_ERROR_BYTES_MAX + 8];
    struct flush_part parts[];
};

/* ---- beginning and end ----------------------------------------------------------------------------------------- */

static void free_when_done(struct flush *flush)
{
    if (flush->over && flush->released)
        free(flush);
}

static void on_released(struct net_slot *slot)
{
    struct flush *flush = container_of(slot, struct flush, slot);
    flush->released = true;
    free_when_done(flush);
}

bool flush_over(const struct shard *shard)
{
    return shard->flush == NULL;
}

void flush_abandon(struct shard *shard)
{
    if (shard->flush != NULL)
        free(shard->flush);
    shard->flush = NULL;
}

static void send_parts(struct flush *flush, enum flush_stage stage)
{
    struct shard *shard = flush->shard;
    flush->stage = stage;
    flush->pending = shard->count;
    for (unsigned i = 0; i < shard->count; i++) {
        struct flush_part *part = &flush->parts[i];
        part->stage = stage;
        if (i == shard->id)
            shard->flush_part = part;
        else
            mailbox_post(shard->mailbox, i, &part->mail);
    }
}

void flush_begin(struct call *call)
{
    struct shard *shard = call->shard;
    struct node *node = shard->node;
    if (atomic_exchange(&node->flushing, true)) {
        access_postpone(call); /* another one is at work */
        return;
    }
    struct flush *flush = calloc(1, sizeof(*flush) + shard->count * sizeof(flush->parts[0]));
    if (flush == NULL) {
        atomic_store(&node->flushing, false);
        call_error(call, "OOM kvs-node: no memory for the request");
        return;
    }
    flush->shard = shard;
    flush->conn = call->conn;
    for (unsigned i = 0; i < shard->count; i++) {
        flush->parts[i].flush = flush;
        flush->parts[i].mail.kind = MAIL_FLUSH;
    }
    shard->flush = flush;
    net_reply_defer(call->conn, &flush->slot);
    flush->slot.released = on_released;
    net_conn_hold(call->conn);
    atomic_fetch_or(&node->watch, ACCESS_WATCH_FLUSH);
    send_parts(flush, STAGE_PAUSE);
}

static void finish(struct flush *flush)
{
    struct shard *shard = flush->shard;
    shard->flush = NULL;
    atomic_fetch_and(&shard->node->watch, ~ACCESS_WATCH_FLUSH);
    atomic_store(&shard->node->flushing, false);
    flush->over = true;
    if (flush->released) {
        free(flush);
        return;
    }
    struct net_conn *conn = flush->conn;
    net_slot_fill(&flush->slot, (const uint8_t *)flush->reply, strlen(flush->reply), 0);
    net_conn_go_on(conn);
}

/* ---- stages ---------------------------------------------------------------------------------------------------- */

static void refuse(struct flush *flush, const char *text)
{
    snprintf(flush->reply, sizeof(flush->reply), "-%s\r\n", text);
    shard_count_error(flush->shard, text);
}

static void prepared(struct flush *flush)
{
    uint64_t lsn = 0;
    for (unsigned i = 0; i < flush->shard->count; i++) {
        const struct flush_part *part = &flush->parts[i];
        if (part->error != KVS_ERR_OK) {
            refuse(flush, part->text);
            send_parts(flush, STAGE_RESUME);
            return;
        }
        lsn = part->lsn > lsn ? part->lsn : lsn;
    }
    flush->stage = STAGE_WRITE;
    engine_flush_begin(flush->shard->engine, lsn);
}

static void look_at_write(struct flush *flush)
{
    const char *text;
    const enum kvs_err err = engine_flush_state(flush->shard->engine, &text);
    if (err != KVS_ERR_AGAIN)
        send_parts(flush, STAGE_END);
}

static void ended(struct flush *flush)
{
    const char *text;
    if (engine_flush_state(flush->shard->engine, &text) == KVS_ERR_OK) {
        snprintf(flush->reply, sizeof(flush->reply), "+OK\r\n");
    } else {
        char failed[REPLY_ERROR_BYTES_MAX];
        const struct reply_origin origin = shard_origin(flush->shard);
        reply_error_text(failed, KVS_ERR_FAILED, &origin);
        refuse(flush, failed);
    }
    send_parts(flush, STAGE_RESUME);
}

static void part_is_home(struct flush *flush)
{
    KVS_ASSERT(flush->pending > 0);
    if (--flush->pending > 0)
        return;
    switch (flush->stage) {
    case STAGE_PAUSE:
        send_parts(flush, STAGE_PREPARE);
        break;
    case STAGE_PREPARE:
        prepared(flush);
        break;
    case STAGE_WRITE:
        break;
    case STAGE_END:
        ended(flush);
        break;
    case STAGE_RESUME:
        finish(flush);
        break;
    }
}

/* ---- a shard's part -------------------------------------------------------------------------------------------- */

/* Nothing that was begun here, on whatever shard its keys are, can change a key any more. */
static bool changes_ended(const struct shard *shard)
{
    return shard->changes_under_way == 0 && list_empty(&shard->transactions);
}

static enum kvs_err prepare(struct shard *shard, struct flush_part *part)
{
    part->error = engine_flush_prepare(shard->engine, &part->lsn);
    if (part->error == KVS_ERR_OK || part->error == KVS_ERR_AGAIN)
        return part->error;
    const struct reply_origin origin = shard_origin(shard);
    reply_error_text(part->text, part->error, &origin);
    return KVS_ERR_OK; /* as far as this shard goes */
}

static bool work(struct shard *shard, struct flush_part *part)
{
    switch (part->stage) {
    case STAGE_PAUSE:
        shard->flush_pause = true;
        return changes_ended(shard);
    case STAGE_PREPARE:
        return prepare(shard, part) == KVS_ERR_OK;
    case STAGE_WRITE:
        return false;
    case STAGE_END:
        return engine_flush_end(shard->engine) == KVS_ERR_OK;
    case STAGE_RESUME:
        shard->flush_pause = false; /* access_turn lets go on what waits */
        return true;
    }
    return false;
}

void flush_deliver(struct shard *shard, struct mail *mail)
{
    struct flush_part *part = container_of(mail, struct flush_part, mail);
    if (part->flush->shard == shard) {
        part_is_home(part->flush);
        return;
    }
    KVS_ASSERT(shard->flush_part == NULL);
    shard->flush_part = part;
}

void flush_turn(struct shard *shard)
{
    if (shard->flush != NULL && shard->flush->stage == STAGE_WRITE)
        look_at_write(shard->flush);
    /* The next stage may begin here at once. */
    for (struct flush_part *part; (part = shard->flush_part) != NULL && work(shard, part);) {
        shard->flush_part = NULL;
        if (part->flush->shard == shard)
            part_is_home(part->flush);
        else
            mailbox_post(shard->mailbox, part->flush->shard->id, &part->mail);
    }
}

int64_t flush_wait_ns(const struct shard *shard)
{
    return shard->flush_part != NULL || shard->flush != NULL ? LOOK_NS : -1;
}
