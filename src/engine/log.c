/*
 * log.c - append, group commit, roll-over.
 *
 *      durable            in flight                 forming                    free
 *   ───────────────┬──────────────────────┬──────────────────────────┬────────────────────────
 *                  ▲ commits[oldest]      ▲ batch             tail ──▲        open segment's image
 *
 * The image is the write buffer: a record is copied once, into the place from which both the disk and later readers
 * take it. A commit pads the forming batch to the block size, seals its header and writes [batch, padded tail) with one
 * O_DIRECT write that is durable when it completes; the next batch forms behind it. No block is ever written twice.
 *
 * When to write: at once when nothing is in flight; a second time beside one in flight only when what has gathered is
 * worth a write of its own: as many records as the one before it, or a large batch. Each commit has its price, so many
 * small ones in flight are slower than one.
 *
 * Roll-over: when a record does not fit, the forming batch is written as it is and the spare segment becomes the open
 * one. Its first batch waits until all of the old segment is durable. So a torn tail can only be in the last segment of
 * a stream, and a later segment's existence proves what came before it.
 *
 * Full disk: a spare of the reserve for deletes (segment->for_deletes) is no room for puts. While there is no other the
 * last sixteenth of the open segment is kept for deletes, so that they need not wait for a spare at once.
 *
 * Failure: a write or sync that fails is not repeated; the log has failed for good. What was in flight or forming will
 * never be acknowledged.
 */
#include "engine/log.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"

#include <stdio.h>

enum {
    LARGE_BATCH_BYTES = 256 * 1024, /* worth a write of its own beside others */
    RESERVE_SHARE = 16,             /* of a segment, for deletes while there is no other */
    NS_PER_MS = 1000000,
};

static inline void add_relaxed(_Atomic uint64_t *counter, uint64_t by)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

uint64_t log_record_bytes_max(const struct segment_table *table)
{
    return log_end_max(table) - KVS_BLOCK_BYTES - sizeof(struct batch_header);
}

void log_init(struct log *log, const struct log_options *options)
{
    memset(log, 0, sizeof *log);
    log->options = *options;
    log->next_lsn = options->lsn_base;
    log->prev_lsn = options->lsn_base - 1;
    atomic_store(&log->durable, options->lsn_base - 1);
}

static void batch_begin(struct log *log, uint32_t offset)
{
    KVS_ASSERT(offset % KVS_BLOCK_BYTES == 0);
    log->batch = offset;
    log->tail = offset + (uint32_t)sizeof(struct batch_header);
    log->records = 0;
    log->deletes = 0;
    log->flags = 0;
    log->wanted = false;
    log->relaxed_ns = 0;
}

static bool batch_due(const struct log *log)
{
    return log->records > 0 || log->flags != 0;
}

void log_offer(struct log *log, struct segment *segment)
{
    KVS_ASSERT(log->spare == NULL);
    KVS_ASSERT(segment->end == KVS_BLOCK_BYTES && segment_image(segment) != NULL);
    log->spare = segment;
}

/* ---- commit ---------------------------------------------------------------------------------------------------- */

void log_give_up(struct log *log, const char *why)
{
    if (log->failed)
        return;
    log->failed = true;
    snprintf(log->failure, sizeof log->failure, "%s", why);
    diag_error("shard %u stops writing: %s; reads go on, restart the node when the disk is well again",
               log->options.stream, log->failure);
}

static void log_fail(struct log *log, const struct log_commit *commit)
{
    char why[LOG_FAILURE_BYTES];
    snprintf(why, sizeof why, "%s of %u bytes at offset %u of segment %06u failed: %s",
             commit->syncing ? "sync" : "write", commit->bytes, commit->offset, commit->segment->number,
             ring_op_text(&commit->io));
    log_give_up(log, why);
}

/* The segment that was left is whole when nothing of it is in flight any more. */
static void seal_closing(struct log *log)
{
    if (log->closing == NULL || log->failed || (log->count > 0 && log->commits[log->oldest].segment == log->closing))
        return;
    struct segment *segment = log->closing;
    log->closing = NULL;
    segment_set_state(segment, SEGMENT_SEALED);
    log->options.segment_sealed(log->options.context, segment);
}

/* Moves the durable LSN over the batches that are durable without a gap. */
static void advance(struct log *log)
{
    while (log->count > 0 && log->commits[log->oldest].done && !log->failed) {
        struct log_commit *commit = &log->commits[log->oldest];
        KVS_ASSERT(commit->last_lsn >= log_durable(log));
        atomic_store_explicit(&log->written, commit->last_lsn, memory_order_release);
        atomic_store_explicit(&log->durable, commit->reaches_lsn, memory_order_release);
        uint64_t took_ns = ring_now_ns(log->options.ring) - commit->started_ns;
        add_relaxed(&log->total_commit_ns, took_ns);
        log->told_ms = commit->stamped_ms;
        if (commit->deletes > 0)
            log->options.deletes_durable(log->options.context, commit->segment, commit->offset);
        log->oldest = (log->oldest + 1) % LOG_COMMITS_MAX;
        log->count--;
    }
    seal_closing(log);
}

static void commit_done(struct ring_op *op)
{
    struct log_commit *commit = container_of(op, struct log_commit, io);
    struct log *log = commit->log;
    KVS_ASSERT(!commit->done);
    if (op->error != KVS_ERR_OK && canary_on(CANARY_FAILED_WRITE_SYNCED) && !commit->syncing) {
        log->options.sync_after_write = true;
        op->error = KVS_ERR_OK;
    }
    if (op->error != KVS_ERR_OK && !canary_on(CANARY_FAILED_WRITE_IGNORED)) {
        log_fail(log, commit);
        commit->done = true;
        return;
    }
    if (log->options.sync_after_write && !commit->syncing && !canary_on(CANARY_NO_SYNC_AFTER_WRITE)) {
        commit->syncing = true;
        ring_op_init(op, commit_done);
        ring_file_sync(log->options.ring, op, commit->segment->fd);
        return;
    }
    commit->done = true;
    if (canary_on(CANARY_ACK_OUT_OF_ORDER) && log->count == 2 && !log->failed) {
        log->commits[log->oldest].last_lsn = log->commits[log->oldest].reaches_lsn = commit->last_lsn;
        atomic_store(&log->durable, commit->last_lsn);
    }
    advance(log);
}

/* Pads and seals the forming batch, starts its write, and begins the next batch behind it. */
static void commit_start(struct log *log)
{
    KVS_ASSERT(log->count < LOG_COMMITS_MAX && !log->failed);
    uint32_t end = (uint32_t)align_up(log->tail, KVS_BLOCK_BYTES);
    KVS_ASSERT(end <= log->options.table->segment_bytes);
    memset(log->image + log->tail, 0, end - log->tail);
    struct batch_header *header = (struct batch_header *)(void *)(log->image + log->batch);
    log->stamped_ms = wall_clock_now(log->options.clock, log->options.ring);
    *header = (struct batch_header){.bytes = log->tail - log->batch,
                                    .record_count = log->records,
                                    .first_lsn = log->next_lsn - log->records,
                                    .prev_lsn = log->prev_lsn,
                                    .durable_lsn = log_written(log),
                                    .epoch = log->options.epoch,
                                    .stream = log->options.stream,
                                    .flags = (uint16_t)log->flags,
                                    .manifest = (uint32_t)manifest_sequence(log->options.manifest)};
    batch_set_time(header, log->stamped_ms);
    if (canary_on(CANARY_DURABLE_LSN_TOO_HIGH) || canary_on(CANARY_DURABLE_LSN_ZERO))
        header->durable_lsn = canary_on(CANARY_DURABLE_LSN_ZERO) ? 0 : log->next_lsn - 1;
    batch_header_seal(header, log->open->seed, log->batch);

    struct log_commit *commit = &log->commits[(log->oldest + log->count++) % LOG_COMMITS_MAX];
    *commit = (struct log_commit){.log = log,
                                  .segment = log->open,
                                  .offset = log->batch,
                                  .bytes = end - log->batch,
                                  .records = log->records,
                                  .deletes = log->deletes,
                                  .last_lsn = log->next_lsn - 1,
                                  .reaches_lsn = log->next_lsn - 1,
                                  .started_ns = ring_now_ns(log->options.ring),
                                  .stamped_ms = log->stamped_ms};
    ring_op_init(&commit->io, commit_done);
    ring_file_write(log->options.ring, &commit->io, log->open->fd, log->image + log->batch, commit->bytes, log->batch,
                    log->options.sync_after_write || canary_on(CANARY_NO_DSYNC) ? 0 : RING_WRITE_DURABLE);
    if (canary_on(CANARY_ACK_BEFORE_WRITE) && log->count == 1)
        atomic_store(&log->durable, commit->last_lsn);
    add_relaxed(&log->total_batches, 1);
    add_relaxed(&log->total_written, commit->bytes);

    log->prev_lsn = log->next_lsn - 1;
    log->open->end = end;
    log->open->last_lsn = log->prev_lsn;
    log->open->epoch = (uint32_t)log->options.epoch;
    log->open->stream = log->options.stream;
    batch_begin(log, end);
}

/* Nothing is appended that is not on its way. */
static void jump(struct log *log, uint64_t lsn)
{
    log->next_lsn = lsn + 1;
    if (log->count > 0)
        log->commits[(log->oldest + log->count - 1) % LOG_COMMITS_MAX].reaches_lsn = lsn;
    else
        atomic_store_explicit(&log->durable, lsn, memory_order_release);
}

void log_open(struct log *log, struct segment *segment)
{
    KVS_ASSERT(log->open == NULL);
    KVS_ASSERT(segment_image(segment) != NULL);
    KVS_ASSERT((uint64_t)segment->end + KVS_BLOCK_BYTES <= log->options.table->segment_bytes);
    log->open = segment;
    log->image = segment_image(segment);
    segment_set_state(segment, SEGMENT_OPEN);
    /* An adopted segment goes on from its own last batch, so that the chain within a segment has no gap. */
    if (segment->end > KVS_BLOCK_BYTES)
        log->prev_lsn = segment->last_lsn;
    batch_begin(log, segment->end);
    log->flags = BATCH_BOOT;
    log->wanted = true;
    if (log->jump_lsn >= log->next_lsn &&
        !canary_on(CANARY_JUMP_FORGOTTEN)) { /* the boot batch has the first LSN of the boot, whatever comes then */
        commit_start(log);
        jump(log, log->jump_lsn);
    }
}

static const struct log_commit *newest_commit(const struct log *log)
{
    return &log->commits[(log->oldest + log->count - 1) % LOG_COMMITS_MAX];
}

/* Batches of a segment wait until those of the one before it are durable. */
static bool can_start(const struct log *log)
{
    return !log->failed && log->count < LOG_COMMITS_MAX &&
           (log->count == 0 || newest_commit(log)->segment == log->open || canary_on(CANARY_ROLL_BEFORE_DURABLE));
}

static bool commit_worthwhile(const struct log *log)
{
    if (!batch_due(log) || !can_start(log))
        return false;
    bool large = log->tail - log->batch >= LARGE_BATCH_BYTES;
    if (log->count == 0)
        return log->wanted || large || (log->relaxed_ns != 0 && ring_now_ns(log->options.ring) >= log->relaxed_ns);
    if (large)
        return true;
    return log->wanted && log->count == 1 && log->records >= newest_commit(log)->records &&
           newest_commit(log)->records > 0;
}

void log_turn(struct log *log)
{
    if (log->open != NULL && commit_worthwhile(log))
        commit_start(log);
}

int64_t log_timeout_ns(const struct log *log)
{
    if (log->relaxed_ns == 0 || log->records == 0 || log->failed || log->count > 0)
        return -1;
    uint64_t now = ring_now_ns(log->options.ring);
    return now >= log->relaxed_ns ? 0 : (int64_t)(log->relaxed_ns - now);
}

void log_want(struct log *log, uint64_t lsn)
{
    if (log->records > 0 && lsn >= log->next_lsn - log->records)
        log->wanted = true;
}

/* ---- append ---------------------------------------------------------------------------------------------------- */

/* True when a record of this kind may go there. */
static bool open_to(const struct segment *segment, enum record_kind kind)
{
    return kind == RECORD_DELETE || !atomic_load_explicit(&segment->for_deletes, memory_order_relaxed) ||
           canary_on(CANARY_DELETES_RESERVE_SHARED);
}

/* Leaves the full segment for the spare one, for the sake of a record of this kind. AGAIN when there is none for it,
 * when the last batch cannot be started now, or while the segment before is not whole yet. */
static enum kvs_err roll(struct log *log, enum record_kind kind)
{
    if (log->spare == NULL || !open_to(log->spare, kind) || log->closing != NULL)
        return KVS_ERR_AGAIN;
    if (batch_due(log)) {
        if (log->count == LOG_COMMITS_MAX)
            return KVS_ERR_AGAIN;
        commit_start(log);
    }
    struct segment *segment = log->spare;
    log->closing = log->open;
    log->open = segment;
    log->image = segment_image(segment);
    log->spare = NULL;
    segment_set_state(segment, SEGMENT_OPEN);
    batch_begin(log, segment->end);
    seal_closing(log);
    return KVS_ERR_OK;
}

/* Behind the last batch of a segment there may be no room: then it goes into the next one, if that is there. */
void log_stamp(struct log *log)
{
    if (log->open == NULL || log->failed || log->flags != 0)
        return;
    if (log->records > 0) {
        log->wanted = true;
        return;
    }
    bool full = log->batch + KVS_BLOCK_BYTES > log_end_max(log->options.table);
    if (full && roll(log, RECORD_PUT) != KVS_ERR_OK)
        return;
    log->flags = BATCH_TIME;
    log->wanted = true;
}

/* Bytes left for a record of this kind in the open segment. While no segment is ready in which puts could go on, the
 * last of it is kept for deletes: they must go on when the disk is full. */
static uint64_t room_for(const struct log *log, enum record_kind kind)
{
    const struct segment_table *table = log->options.table;
    if (!open_to(log->open, kind))
        return 0;
    uint64_t end_max = log_end_max(table);
    /* Behind a batch that ends there the tail is beyond it. */
    uint64_t room = end_max > log->tail ? end_max - log->tail : 0;
    bool last = log->spare == NULL || !open_to(log->spare, kind);
    uint64_t reserve = last && kind != RECORD_DELETE ? table->segment_bytes / RESERVE_SHARE : 0;
    return canary_on(CANARY_RESERVE_IGNORED) ? room : room > reserve ? room - reserve : 0;
}

uint64_t log_entry_bytes(const struct log_entry *entry)
{
    return record_bytes(entry->key.size + (entry->expires_ms == 0 ? 0 : RECORD_EXPIRY_BYTES), entry->value.size);
}

/* Room in the open segment for `bytes` of records, of which one of this kind needs the most of it. */
static enum kvs_err make_room(struct log *log, uint64_t bytes, enum record_kind kind)
{
    if (log->failed && !canary_on(CANARY_APPEND_AFTER_FAILURE))
        return KVS_ERR_FAILED;
    if (bytes > log_record_bytes_max(log->options.table))
        return KVS_ERR_TOO_LARGE;
    if (log->open == NULL)
        return KVS_ERR_AGAIN;
    enum kvs_err err = bytes > room_for(log, kind) ? roll(log, kind) : KVS_ERR_OK;
    KVS_ASSERT(err != KVS_ERR_OK || log->tail + bytes <= log_end_max(log->options.table));
    return err;
}

/* Where there is room. */
static void append(struct log *log, const struct log_entry *entry, struct log_place *place)
{
    uint64_t bytes = log_entry_bytes(entry);
    uint64_t lsn = log->next_lsn++;
    struct record_header fields = {.lsn = lsn, .kind = (uint8_t)entry->kind, .flags = (uint8_t)entry->flags};
    uint8_t *at = log->image + log->tail;
    record_encode(at, log->open->seed, log->tail, &fields, entry->expires_ms, entry->key, entry->value);
    *place = (struct log_place){
        .address = address_make(log->open->number, log->tail, log->options.table->shift), .lsn = lsn, .bytes = bytes};
    log->tail += (uint32_t)bytes;
    log->records++;
    log->deletes += entry->kind == RECORD_DELETE;
    segment_count_record(log->open, (const struct record_header *)(const void *)at, 1);
    if (!entry->relaxed)
        log->wanted = true;
    else if (log->relaxed_ns == 0 && !canary_on(CANARY_RELAXED_NEVER_FLUSHED))
        log->relaxed_ns = ring_now_ns(log->options.ring) + (uint64_t)log->options.relaxed_interval_ms * NS_PER_MS;
    add_relaxed(&log->total_records, 1);
    add_relaxed(&log->total_bytes, bytes);
}

enum kvs_err log_append(struct log *log, const struct log_entry *entry, struct log_place *place)
{
    enum kvs_err err = make_room(log, log_entry_bytes(entry), entry->kind);
    if (err == KVS_ERR_OK)
        append(log, entry, place);
    return err;
}

enum kvs_err log_append_group(struct log *log, const struct log_entry *entries, size_t count, struct log_place *places)
{
    uint64_t bytes = 0;
    enum record_kind kind = RECORD_DELETE;
    for (size_t i = 0; i < count; i++) {
        bytes += log_entry_bytes(&entries[i]);
        kind = entries[i].kind == RECORD_PUT ? RECORD_PUT : kind;
    }
    enum kvs_err err = make_room(log, bytes, kind);
    for (size_t i = 0; err == KVS_ERR_OK && i < count; i++) {
        append(log, &entries[i], &places[i]);
        if (canary_on(CANARY_GROUP_IN_TWO_BATCHES) && i == 0 && can_start(log))
            commit_start(log);
    }
    return err;
}

enum kvs_err log_jump(struct log *log, uint64_t lsn)
{
    if (log->next_lsn > lsn)
        return KVS_ERR_OK;
    /* One that has failed writes nothing any more; but others write for its keys, and ask how far it was. */
    if (log->open == NULL || log->failed) {
        log->jump_lsn = lsn > log->jump_lsn ? lsn : log->jump_lsn;
        return log->failed ? KVS_ERR_FAILED : KVS_ERR_OK;
    }
    if (batch_due(log)) {
        if (!can_start(log))
            return KVS_ERR_AGAIN;
        commit_start(log);
    }
    jump(log, lsn);
    return KVS_ERR_OK;
}

/* A put: only they are taken back. */
void log_unappend(struct log *log, const struct log_place *place)
{
    KVS_ASSERT(log->records > 0);
    KVS_ASSERT(place->lsn == log->next_lsn - 1);
    log->next_lsn--;
    log->tail -= (uint32_t)place->bytes;
    log->records--;
    segment_count_record(log->open, (const struct record_header *)(const void *)(log->image + log->tail), -1);
}

/* ---- stop ------------------------------------------------------------------------------------------------------ */

void log_stop(struct log *log)
{
    if (log->open == NULL || log->failed)
        return;
    if (batch_due(log)) {
        log->wanted = true;
        return;
    }
    /* The clean mark carries the durable LSN of all before it, so damage to the last batch will be noticed. It has to
     * wait until that batch is durable, or it could not say so. */
    if (log->count == 0 && (uint64_t)log->batch + KVS_BLOCK_BYTES <= log->options.table->segment_bytes) {
        log->flags = BATCH_CLEAN;
        log->wanted = true;
    }
}

bool log_idle(const struct log *log)
{
    if (log->failed) {
        for (unsigned i = 0; i < log->count; i++) {
            if (!log->commits[(log->oldest + i) % LOG_COMMITS_MAX].done)
                return false;
        }
        return true;
    }
    return log->count == 0 && (log->open == NULL || !batch_due(log));
}
