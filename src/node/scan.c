/*
 * scan.c - a scan on its way through the shards.
 *
 *   home      scan_ask ─► waits until the connection's earlier requests have been carried out
 *   a shard   step ─► step ─► … ─► its keys are through, or there is enough ─► waits for the highest gate of its steps
 *               └► the next shard, or home
 *   home      the reply: at once when all of it lies in one piece, else put together over several turns
 *
 *   within an EXEC, after more than one step:
 *   a shard   has any key changed since? ─► no: the next one ─► … ─► home; yes: begin anew
 *
 * SCAN ends when it has looked at COUNT keys, when its reply has grown large, or when it has met nothing for long.
 * Its cursor is rounded down, so it goes on at least until that has moved. RANDOMKEY begins anywhere and chooses among
 * the first keys that it meets; it may have to begin at the beginning once more.
 *
 * Memory: keys are kept in pieces that count in the budget for requests under way. KEYS is refused when its reply would
 * be larger than GATHER_REPLY_BYTES_MAX, or than the memory that is left: SCAN has no such limit.
 *
 * Failures: no memory; a key whose record is damaged; a shard that fails while a gate is waited for; a stop that ends
 * connections. Each is an error for a reply. A connection that has gone meanwhile: its scan comes home all the same,
 * and nobody hears of it.
 */
#include "node/scan.h"

#include "base/assert.h"
#include "base/hash.h"
#include "node/exec.h"
#include "node/gather.h"
#include "node/glob.h"
#include "node/node_internal.h"
#include "proto/resp.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    CURSOR_SHIFT = 16, /* of a hash, for the cursor */
    LOOKS_PER_STEP = 512,
    LOOKS_PER_STEP_DEAR = 32, /* with a long pattern, longer than … */
    PATTERN_DEAR_BYTES = 256,
    LOOKS_PER_TURN = 512,
    STEPS_PER_TURN = 4,
    STEPS_EMPTY_MAX = 64, /* after so many that have met nothing SCAN ends */
    ANY_LOOKS = 8,        /* RANDOMKEY: at once */
    HEAD_BYTES = 3 * RESP_HEADER_BYTES_MAX,
    PIECE_BYTES = 4096,        /* the first … */
    PIECE_BYTES_MAX = 1 << 18, /* … and later ones */
    COPY_BYTES = 512 * 1024,   /* in a turn */
    TRIES_MAX = 5,             /* for a moment in which nothing has changed … */
    LOOKS_PER_TRY_MAX = 16384, /* … none if the one before had to look at more */
};

#define NOT_MET     UINT64_MAX
#define NEVER_AGAIN (UINT64_MAX - 1) /* no count of changes */

/* A part of the reply. */
struct piece {
    struct piece *next;
    size_t used, capacity;
    uint8_t data[];
};

struct scan {
    struct mail mail;
    struct net_slot slot;
    struct list link;  /* in scans of its home */
    struct list place; /* among those that wait for the same thing at the shard where it is */
    struct shard *home, *at;
    struct net_conn *conn;
    enum scan_kind kind;
    int resp_version;
    bool dear;            /* to match a key takes long */
    struct slice pattern; /* data NULL: any key */

    struct engine_scan engine;
    uint64_t position; /* hash */
    uint64_t cursor, count;
    uint64_t begun, random; /* SCAN_ANY */
    bool second_lap;        /* likewise: it has begun at the beginning */
    uint64_t looked, found; /* records, keys that are there and match */
    unsigned empty_steps;   /* one after the other */
    uint64_t gate;          /* of the shard where it is */
    bool ends;              /* it has all that it needs, and is on its way home */

    /* Within an EXEC. */
    const struct transaction *within; /* NULL: it is not */
    bool nothing;                     /* there is no such key */
    bool checks;                      /* it is asking the shards once more */
    bool home_again;
    unsigned steps, tries;
    uint64_t changes[KVS_SHARDS_MAX]; /* of the shards, when it came there first; NOT_MET */

    struct piece *first, *last;
    size_t bytes;   /* of keys in the pieces */
    size_t charged; /* in the budget */
    size_t copied;  /* of the first piece */
    struct large_memory *large;
    size_t reply_bytes;
    size_t error_bytes;       /* 0: none */
    uint8_t *error;           /* NULL, with an error: there was no memory for its text */
    uint8_t head[HEAD_BYTES]; /* of a reply without pieces */
    uint8_t pattern_bytes[];
};

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void free_first(struct scan *scan)
{
    struct piece *piece = scan->first;
    scan->first = piece->next;
    free(piece);
}

static void free_all(struct scan *scan)
{
    while (scan->first != NULL) {
        scan->charged -= scan->first->capacity;
        atomic_fetch_sub_explicit(&scan->home->node->budget.used_bytes, scan->first->capacity, memory_order_relaxed);
        free_first(scan);
    }
    scan->last = NULL;
    scan->bytes = 0;
}

static void scan_free(struct scan *scan)
{
    struct shard *home = scan->home;
    while (scan->first != NULL)
        free_first(scan);
    atomic_fetch_sub_explicit(&home->node->budget.used_bytes, scan->charged, memory_order_relaxed);
    large_trash_add(&home->pool.trash, scan->large);
    list_remove(&scan->link);
    free(scan->error);
    free(scan);
}

static void on_released(struct net_slot *slot)
{
    scan_free(container_of(slot, struct scan, slot));
}

void scan_abandon(struct shard *shard)
{
    while (!list_empty(&shard->scans))
        scan_free(container_of(shard->scans.next, struct scan, link));
    list_init(&shard->scan_queue);
    list_init(&shard->scan_runs);
    list_init(&shard->scan_gated);
    list_init(&shard->scan_replies);
}

static const uint8_t no_memory[] = "-OOM kvs-node: no memory for the request\r\n";

static void fail(struct scan *scan, const char *text)
{
    scan->ends = true;
    if (scan->error_bytes > 0)
        return;
    scan->error = malloc(REPLY_ERROR_BYTES_MAX);
    scan->error_bytes = scan->error != NULL ? resp_write_error(scan->error, text) : sizeof no_memory - 1;
}

static void fail_engine(struct scan *scan, enum kvs_err error)
{
    char text[REPLY_ERROR_BYTES_MAX - 64];
    const struct reply_origin origin = shard_origin(scan->at);
    reply_error_text(text, error, &origin);
    fail(scan, text);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* Another piece with room for so many bytes; false, with an error, when there must be none. */
static bool add_piece(struct scan *scan, size_t bytes)
{
    struct op_budget *budget = &scan->home->node->budget;
    size_t room = scan->last == NULL ? PIECE_BYTES : 4 * scan->last->capacity;
    room = room > PIECE_BYTES_MAX ? PIECE_BYTES_MAX : room;
    room = room < bytes + HEAD_BYTES ? bytes + HEAD_BYTES : room;
    if (scan->bytes + bytes > GATHER_REPLY_BYTES_MAX - HEAD_BYTES) {
        fail(scan, "OOM kvs-node: the reply would take more than 128 MiB; use SCAN");
        return false;
    }
    const uint64_t used = atomic_fetch_add_explicit(&budget->used_bytes, room, memory_order_relaxed);
    scan->charged += room;
    struct piece *piece = used + room > budget->bytes_max ? NULL : malloc(sizeof *piece + room);
    if (piece == NULL) {
        fail(scan, "OOM kvs-node: the requests under way leave no memory for the reply; use SCAN, or try again");
        return false;
    }
    /* What comes before the keys finds room in front of the first ones. */
    *piece = (struct piece){.used = scan->last == NULL ? HEAD_BYTES : 0, .capacity = room};
    if (scan->last == NULL)
        scan->first = piece;
    else
        scan->last->next = piece;
    scan->last = piece;
    return true;
}

/* True when this key is to be the one, of all met so far. */
static bool chosen(struct scan *scan)
{
    /* The steps of L'Ecuyer's generator of 64 bits are good enough for one of eight. */
    scan->random = scan->random * 6364136223846793005u + 1442695040888963407u;
    return (scan->random >> 33) % (scan->found + 1) == 0;
}

static void on_key(struct engine_scan *engine, struct slice key)
{
    struct scan *scan = container_of(engine, struct scan, engine);
    const size_t bytes = resp_bulk_bytes(key.size);
    if (scan->ends || (scan->pattern.data != NULL && !glob_matches(scan->pattern, key)))
        return;
    if (scan->within != NULL && transaction_has(scan->within, key))
        return;
    if (scan->kind == SCAN_ANY && !chosen(scan)) {
        scan->found++;
        return;
    }
    if (scan->kind == SCAN_ANY && scan->last != NULL) {
        scan->last->used = HEAD_BYTES; /* in place of the one before */
        scan->bytes = 0;
    }
    if ((scan->last == NULL || scan->last->capacity - scan->last->used < bytes) && !add_piece(scan, bytes))
        return;
    const size_t written = resp_write_bulk(scan->last->data + scan->last->used, key);
    scan->last->used += written;
    scan->bytes += written;
    scan->found++;
}

/* ---- the reply --------------------------------------------------------------------------------------------------- */

/* What stands before the keys. `others`: so many more are behind them. */
static size_t write_head(const struct scan *scan, unsigned others, uint8_t out[HEAD_BYTES])
{
    size_t size = 0;
    if (scan->kind == SCAN_ANY)
        return scan->found > 0 ? 0 : resp_write_null(out, scan->resp_version);
    if (scan->kind == SCAN_PORTION) {
        char cursor[32];
        snprintf(cursor, sizeof cursor, "%llu", (unsigned long long)(scan->position >> CURSOR_SHIFT));
        size += resp_write_array_header(out, 2);
        size += resp_write_bulk(out + size, slice_text(cursor));
    }
    return size + resp_write_array_header(out + size, scan->found + others);
}

static void answer(struct scan *scan, const uint8_t *data, size_t size)
{
    struct net_conn *conn = scan->conn;
    if (scan->error_bytes > 0)
        shard_count(&scan->home->counters.errors);
    net_slot_fill(&scan->slot, data, size, 0); /* the scan may be gone after this, the connection not in this turn */
    net_conn_go_on(conn);
}

/* Moves some of the pieces into the large memory; true when that was all. */
static bool copy_some(struct scan *scan)
{
    size_t left = COPY_BYTES;
    while (scan->first != NULL && left > 0) {
        const struct piece *piece = scan->first;
        const size_t rest = piece->used - scan->copied;
        const size_t size = rest < left ? rest : left;
        memcpy(scan->large->data + scan->reply_bytes, piece->data + scan->copied, size);
        scan->reply_bytes += size;
        scan->copied += size;
        left -= size;
        if (scan->copied < piece->used)
            continue;
        free_first(scan);
        scan->copied = 0;
    }
    return scan->first == NULL;
}

static void come_home(struct scan *scan)
{
    uint8_t head[HEAD_BYTES];
    const size_t head_bytes = write_head(scan, 0, head);
    const bool whole = scan->first == scan->last;
    if (scan->error_bytes == 0 && !whole) {
        scan->large = large_memory_take(&scan->home->node->large, head_bytes + scan->bytes, 0);
        if (scan->large == NULL)
            fail(scan, "OOM kvs-node: no memory for the reply; use SCAN, or try again");
    }
    if (scan->error_bytes > 0) {
        answer(scan, scan->error != NULL ? scan->error : no_memory, scan->error_bytes);
    } else if (scan->first == NULL) {
        memcpy(scan->head, head, head_bytes);
        answer(scan, scan->head, head_bytes);
    } else if (whole) {
        uint8_t *begin = scan->first->data + HEAD_BYTES - head_bytes;
        memcpy(begin, head, head_bytes);
        answer(scan, begin, scan->first->used - HEAD_BYTES + head_bytes);
    } else {
        memcpy(scan->large->data, head, head_bytes);
        scan->reply_bytes = head_bytes;
        scan->copied = HEAD_BYTES;
        list_push_back(&scan->home->scan_replies, &scan->place);
    }
}

/* ---- the way ----------------------------------------------------------------------------------------------------- */

/* To be asked from its beginning on, as if it had never been. */
static void reset(struct scan *scan)
{
    free_all(scan);
    scan->position = scan->kind == SCAN_ANY ? scan->begun : scan->cursor << CURSOR_SHIFT;
    scan->looked = scan->found = 0;
    scan->empty_steps = scan->steps = 0;
    scan->second_lap = scan->checks = scan->ends = false;
    memset(scan->changes, 0xff, sizeof scan->changes); /* NOT_MET */
}

/* Within an EXEC: it has all. Where to next: shards that it has not asked yet whether anything has changed since it was
 * there, then home. */
static unsigned next_check(struct scan *scan)
{
    unsigned id = 0;
    scan->checks = scan->steps > 1 && scan->error_bytes == 0;
    while (id < scan->home->count && scan->changes[id] == NOT_MET)
        id++;
    scan->checks = scan->checks && id < scan->home->count;
    return scan->checks ? id : scan->home->id;
}

/* Something has: what it has found may be of different moments. */
static void check(struct shard *shard, struct scan *scan)
{
    const bool changed = engine_changes(shard->engine) != scan->changes[shard->id];
    scan->changes[shard->id] = NOT_MET;
    if (!changed)
        return;
    if (scan->looked > LOOKS_PER_TRY_MAX || ++scan->tries == TRIES_MAX)
        memset(scan->changes, 0xff, sizeof scan->changes); /* it is enough */
    else
        reset(scan);
}

/* What the shard's count of changes is, to be compared later. While a group of changes is being published here it may
 * not be yet elsewhere. */
static void note_changes(struct shard *shard, struct scan *scan)
{
    if (scan->changes[shard->id] == NOT_MET)
        scan->changes[shard->id] = shard->publishing > 0 ? NEVER_AGAIN : engine_changes(shard->engine);
}

static void arrive(struct shard *shard, struct scan *scan)
{
    scan->at = shard;
    if (scan->ends && !scan->checks && scan->within != NULL) {
        scan->home_again = true;
        shard->execs_ready++;
    } else if (scan->ends && !scan->checks) {
        come_home(scan);
    } else {
        list_push_back(&shard->scan_runs, &scan->place);
    }
}

void scan_deliver(struct shard *shard, struct mail *mail)
{
    arrive(shard, container_of(mail, struct scan, mail));
}

/* Goes home, or where its position is. */
static void travel(struct scan *scan)
{
    struct shard *from = scan->at;
    unsigned to = hash_shard(scan->position, from->count);
    if (scan->ends)
        to = scan->within != NULL ? next_check(scan) : scan->home->id;
    scan->gate = 0;
    if (to == from->id)
        arrive(from, scan);
    else
        mailbox_post(from->mailbox, to, &scan->mail);
}

/* Leaves the shard: when what it has seen here is durable. */
static void leave(struct scan *scan)
{
    struct shard *shard = scan->at;
    if (scan->gate > shard->durable && !shard->failed && scan->error_bytes == 0) {
        list_push_back(&shard->scan_gated, &scan->place);
        return;
    }
    if (scan->gate > shard->durable)
        fail_engine(scan, KVS_ERR_FAILED);
    travel(scan);
}

/* Whether it has all that it is to have, with more hashes to come. */
static bool has_enough(const struct scan *scan)
{
    switch (scan->kind) {
    case SCAN_ALL:
        return false;
    case SCAN_ANY:
        return scan->found > 0 || (scan->second_lap && scan->position > scan->begun);
    case SCAN_PORTION:
        break;
    }
    const bool enough =
        scan->looked >= scan->count || scan->bytes >= SCAN_BYTES_MAX || scan->empty_steps >= STEPS_EMPTY_MAX;
    return enough && scan->position >> CURSOR_SHIFT > scan->cursor;
}

static void on_step(struct engine_scan *engine)
{
    struct scan *scan = container_of(engine, struct scan, engine);
    scan->at->scan_steps--;
    if (engine->error != KVS_ERR_OK)
        fail_engine(scan, engine->error);
    scan->gate = engine->gate > scan->gate ? engine->gate : scan->gate;
    scan->looked += engine->looked;
    scan->empty_steps = engine->looked > 0 ? 0 : scan->empty_steps + 1;
    scan->position = engine->next;
    const bool wraps = engine->end && engine->next == 0;
    if (wraps && (scan->kind != SCAN_ANY || scan->second_lap || scan->found > 0))
        scan->ends = true;
    else if (has_enough(scan))
        scan->ends = true;
    else if (wraps)
        scan->second_lap = true;
    if (scan->ends || engine->end)
        leave(scan);
    else
        list_push_back(&scan->at->scan_runs, &scan->place);
}

/* Returns how many entries that may be looked at. */
static unsigned step(struct shard *shard, struct scan *scan)
{
    unsigned wanted = scan->dear ? LOOKS_PER_STEP_DEAR : LOOKS_PER_STEP;
    if (scan->kind == SCAN_ANY)
        wanted = ANY_LOOKS;
    const uint64_t left = scan->looked < scan->count ? scan->count - scan->looked : 1;
    if (scan->kind == SCAN_PORTION && left < wanted)
        wanted = (unsigned)left;
    list_remove(&scan->place);
    if (node_phase(shard->node) >= SHARD_ABORT) {
        fail(scan, "ERR kvs-node is stopping");
        leave(scan);
        return 0;
    }
    if (scan->checks) {
        check(shard, scan);
        travel(scan);
        return 1;
    }
    if (scan->within != NULL)
        note_changes(shard, scan);
    scan->steps++;
    scan->engine.from = scan->position;
    scan->engine.wanted = wanted;
    shard->scan_steps++;
    engine_scan(shard->engine, &scan->engine);
    return scan->dear ? LOOKS_PER_TURN : wanted;
}

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

/* True when everything that its connection has asked for before has been carried out. */
static bool is_first(const struct scan *scan)
{
    struct net_conn_info info;
    net_conn_info(scan->conn, &info);
    return info.pending == 1;
}

static void begin_some(struct shard *shard)
{
    for (struct list *node = shard->scan_queue.next, *next; node != &shard->scan_queue; node = next) {
        struct scan *scan = container_of(node, struct scan, place);
        next = node->next;
        if (scan->within == NULL && !is_first(scan))
            continue;
        list_remove(&scan->place);
        travel(scan);
    }
}

static void release(struct shard *shard)
{
    for (struct list *node = shard->scan_gated.next, *next; node != &shard->scan_gated; node = next) {
        struct scan *scan = container_of(node, struct scan, place);
        next = node->next;
        if (scan->gate > shard->durable && !shard->failed)
            continue;
        list_remove(&scan->place);
        leave(scan);
    }
}

void scan_turn(struct shard *shard)
{
    begin_some(shard);
    if (shard->engine != NULL)
        release(shard);
    unsigned looked = 0;
    for (unsigned steps = 0; steps < STEPS_PER_TURN && looked < LOOKS_PER_TURN && scan_may_step(shard); steps++)
        looked += step(shard, container_of(shard->scan_runs.next, struct scan, place));
    if (list_empty(&shard->scan_replies))
        return;
    struct scan *scan = container_of(shard->scan_replies.next, struct scan, place);
    if (!copy_some(scan))
        return;
    list_remove(&scan->place);
    answer(scan, scan->large->data, scan->reply_bytes);
}

/* ---- within an EXEC ---------------------------------------------------------------------------------------------- */

bool scan_is_home(const struct scan *scan)
{
    return scan->home_again;
}

bool scan_has_failed(const struct scan *scan)
{
    return scan->error_bytes > 0;
}

enum scan_kind scan_kind(const struct scan *scan)
{
    return scan->kind;
}

bool scan_meets(const struct scan *scan, struct slice key, uint64_t hash)
{
    const bool below = scan->position == 0 || hash < scan->position; /* 0: it has gone to the end */
    if (scan->nothing || (scan->pattern.data != NULL && !glob_matches(scan->pattern, key)))
        return false;
    switch (scan->kind) {
    case SCAN_ALL:
        return true;
    case SCAN_PORTION:
        return hash >= scan->cursor << CURSOR_SHIFT && below;
    case SCAN_ANY:
        break;
    }
    return scan->found == 0 || (scan->second_lap ? hash >= scan->begun || below : hash >= scan->begun && below);
}

bool scan_prefers_own(const struct scan *scan, unsigned others)
{
    return scan->found > 0 && (scan->random >> 33) % (scan->found + others) >= others;
}

size_t scan_reply_bound(const struct scan *scan)
{
    return scan->error_bytes > 0 ? scan->error_bytes : HEAD_BYTES + scan->bytes;
}

size_t scan_reply_write(const struct scan *scan, uint8_t *out, unsigned others)
{
    if (scan->error_bytes > 0) {
        memcpy(out, scan->error != NULL ? scan->error : no_memory, scan->error_bytes);
        return scan->error_bytes;
    }
    size_t size = write_head(scan, others, out);
    for (const struct piece *piece = scan->first; piece != NULL; piece = piece->next) {
        const size_t from = piece == scan->first ? HEAD_BYTES : 0;
        memcpy(out + size, piece->data + from, piece->used - from);
        size += piece->used - from;
    }
    return size;
}

void scan_end(struct scan *scan)
{
    scan->home->execs_ready--;
    scan_free(scan);
}

/* ---- the question ------------------------------------------------------------------------------------------------ */

/* NULL: no memory. It is in the queue of those that are to begin. */
static struct scan *make(struct call *call, const struct scan_question *question)
{
    struct shard *shard = call->shard;
    struct op_budget *budget = &shard->node->budget;
    const size_t bytes = sizeof(struct scan) + question->pattern.size;
    const uint64_t used = atomic_fetch_add_explicit(&budget->used_bytes, bytes, memory_order_relaxed);
    struct scan *scan = used + bytes > budget->bytes_max ? NULL : calloc(1, bytes);
    if (scan == NULL) {
        atomic_fetch_sub_explicit(&budget->used_bytes, bytes, memory_order_relaxed);
        return NULL;
    }
    scan->charged = bytes;
    scan->mail.kind = MAIL_SCAN;
    scan->home = scan->at = shard;
    scan->conn = call->conn;
    scan->kind = question->kind;
    scan->resp_version = call->client->resp_version;
    scan->dear = question->pattern.size > PATTERN_DEAR_BYTES;
    if (question->pattern.data != NULL) {
        memcpy(scan->pattern_bytes, question->pattern.data, question->pattern.size);
        scan->pattern = slice_make(scan->pattern_bytes, question->pattern.size);
    }
    scan->cursor = question->cursor;
    scan->count = question->count < SCAN_COUNT_MAX ? question->count : SCAN_COUNT_MAX;
    scan->position = question->cursor << CURSOR_SHIFT;
    if (question->nothing || question->cursor >> (64 - CURSOR_SHIFT) != 0) {
        scan->position = 0; /* no key is there, or behind it */
        scan->ends = scan->nothing = true;
    }
    if (scan->kind == SCAN_ANY) {
        ring_random(shard->ring, &scan->begun, sizeof scan->begun);
        ring_random(shard->ring, &scan->random, sizeof scan->random);
        scan->position = scan->begun;
    }
    scan->engine.key = on_key;
    scan->engine.done = on_step;
    list_init(&scan->place);
    list_push_back(&shard->scans, &scan->link);
    list_push_back(&shard->scan_queue, &scan->place);
    return scan;
}

struct scan *scan_begin_within(struct call *call, const struct scan_question *question,
                               const struct transaction *transaction)
{
    struct scan *scan = make(call, question);
    if (scan == NULL)
        return NULL;
    scan->within = transaction;
    memset(scan->changes, 0xff, sizeof scan->changes); /* NOT_MET */
    return scan;
}

void scan_ask(struct call *call, const struct scan_question *question)
{
    if (call->shard->exec != NULL) {
        exec_scan(call, question);
        return;
    }
    struct scan *scan = make(call, question);
    if (scan == NULL) {
        call_error(call, SCAN_TEXT_NO_MEMORY);
        return;
    }
    scan->engine.relaxed = call->client->relaxed;
    net_reply_defer(call->conn, &scan->slot);
    scan->slot.released = on_released;
    net_conn_hold(call->conn);
}
