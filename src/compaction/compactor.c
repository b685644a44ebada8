/*
 * compactor.c - one victim after the other, one chunk after the other:
 *
 *   PLAN ──► OPEN ──► READ ◄──► SIFT ──► WRITE ──► (SYNC) ──► SWING ──► SIFT …
 *    ▲                            └─► victim done ──► OPEN the next, or PLAN
 *    └─ REST                          output full, or no more victims ──► SEAL ──► victims are given back
 *
 * SIFT walks the records of the window that was read, verifies each, and copies those that are live, and the deletes
 * that still have something to hide, to the end of the chunk. A full chunk becomes one batch of the output, durable
 * when its write completes; then the owners swing their index entries to it. An output is sealed when it is full or
 * when nothing is left to do. Victims are retired after that, so that at every moment each live record is in a segment
 * that a start would read.
 */
#include "compaction/compactor_internal.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    CHUNK_BYTES = 1024 * 1024,
    WINDOW_BYTES = 1024 * 1024,
    SIFT_RECORDS = 4096,      /* looked at in one turn */
    HURRY = 10,               /* times as often it looks for space when deletes wait for it */
    STREAM_NONE = 0xFFFFFFFF, /* of batches that belong to no shard's stream */
};

enum kvs_err compact_open(struct compactor **out, struct engine_background *background, struct ring *ring,
                          const struct compact_options *options)
{
    struct compactor *compactor = calloc(1, sizeof *compactor);
    if (compactor == NULL)
        return KVS_ERR_NO_MEMORY;
    compactor->background = background;
    compactor->ring = ring;
    compactor->options = *options;
    compactor->window_capacity = WINDOW_BYTES;
    compactor->chunk_capacity = CHUNK_BYTES;
    compactor->window = aligned_alloc(KVS_BLOCK_BYTES, compactor->window_capacity);
    compactor->chunk = aligned_alloc(KVS_BLOCK_BYTES, compactor->chunk_capacity);
    compactor->moves = malloc(RELOCATION_MOVES_MAX * sizeof *compactor->moves);
    *out = compactor;
    if (compactor->window != NULL && compactor->chunk != NULL && compactor->moves != NULL)
        return KVS_ERR_OK;
    compact_close(compactor);
    return KVS_ERR_NO_MEMORY;
}

void compact_close(struct compactor *compactor)
{
    free(compactor->figures);
    free(compactor->segments);
    free(compactor->window);
    free(compactor->chunk);
    free(compactor->moves);
    free(compactor);
}

void compact_set_urgency(struct compactor *compactor, unsigned urgency)
{
    atomic_store_explicit(&compactor->stats.urgency, urgency, memory_order_relaxed);
    bool never = compactor->state == COMPACT_FAILED || compactor->stopping ||
                 relocation_blocked(compactor->background) || relocation_stuck(compactor->background);
    enum relocation_hope hope = urgency > 0 || !compactor->hopeless ? RELOCATION_HOPE_PROMISED : RELOCATION_HOPE_FADED;
    relocation_promise_space(compactor->background, never ? RELOCATION_HOPE_NONE : hope);
}

void compact_note(struct notice *notice, const char *text)
{
    if (atomic_load_explicit(&notice->there, memory_order_relaxed))
        return;
    snprintf(notice->text, sizeof notice->text, "%s", text);
    atomic_store_explicit(&notice->there, true, memory_order_release);
}

static void fail(struct compactor *compactor, const char *why)
{
    diag_error("compaction has stopped: %s; the store goes on, but space is not given back any more. Restart the node "
               "when the disk is well again",
               why);
    compact_note(&compactor->failure, why);
    compactor->state = COMPACT_FAILED;
    compactor->hopeless = true;
    atomic_store_explicit(&compactor->stats.failed, true, memory_order_relaxed);
    compact_set_urgency(compactor, 0);
}

/* ---- the output ------------------------------------------------------------------------------------------------ */

static void io_done(struct ring_op *op);

static void chunk_begin(struct compactor *compactor)
{
    compactor->chunk_bytes = sizeof(struct batch_header);
    compactor->chunk_records = 0;
    compactor->move_count = 0;
}

static bool chunk_empty(const struct compactor *compactor)
{
    return compactor->output == NULL || compactor->chunk_records == 0;
}

static void write_chunk(struct compactor *compactor)
{
    struct segment *output = compactor->output;
    struct batch_header *header = (struct batch_header *)(void *)compactor->chunk;
    size_t padded = align_up(compactor->chunk_bytes, KVS_BLOCK_BYTES);
    memset(compactor->chunk + compactor->chunk_bytes, 0, padded - compactor->chunk_bytes);
    *header = (struct batch_header){.bytes = (uint32_t)compactor->chunk_bytes,
                                    .record_count = compactor->chunk_records,
                                    .first_lsn = compactor->output_records + 1,
                                    .prev_lsn = compactor->output_records,
                                    .epoch = relocation_epoch(compactor->background),
                                    .stream = STREAM_NONE,
                                    .flags = BATCH_RELOCATED,
                                    .manifest = relocation_manifest_sequence(compactor->background)};
    batch_set_time(header, relocation_now_ms(compactor->background));
    batch_header_seal(header, output->seed, output->end);
    compactor->state = COMPACT_WRITING;
    compactor->io_active = true;
    ring_op_init(&compactor->io, io_done);
    ring_file_write(compactor->ring, &compactor->io, output->fd, compactor->chunk, padded, output->end,
                    relocation_sync_after_write(compactor->background) ? 0 : RING_WRITE_DURABLE);
    compact_add(&compactor->stats.bytes_written, padded);
}

/* The chunk is durable: it becomes part of the output, and the owners are asked to point at it. */
static void chunk_written(struct compactor *compactor)
{
    struct segment *output = compactor->output;
    size_t padded = align_up(compactor->chunk_bytes, KVS_BLOCK_BYTES);
    uint8_t *image = segment_image(output);
    if (image != NULL)
        memcpy(image + output->end, compactor->chunk, padded);
    output->end += (uint32_t)padded;
    compactor->output_records += compactor->chunk_records;
    output->last_lsn = compactor->output_records;
    output->epoch = (uint32_t)relocation_epoch(compactor->background);
    output->stream = STREAM_NONE;
    compact_add(&compactor->stats.records_moved, compactor->move_count);
    relocation_swing(compactor->background, compactor->moves, compactor->move_count);
    chunk_begin(compactor);
    compactor->state = COMPACT_SWINGING;
}

/* Writes what is in the chunk, if anything, and then goes on in `next`. */
static void flush_then(struct compactor *compactor, enum compact_state next)
{
    compactor->after_write = next;
    if (chunk_empty(compactor))
        compactor->state = next;
    else
        write_chunk(compactor);
}

static void retire_copied(struct compactor *compactor)
{
    for (unsigned i = 0; i < compactor->copied_count; i++) {
        struct segment *victim = compactor->copied[i];
        /* An owner counts a record as dead a moment after the index has left it: then another time. */
        if (atomic_load(&victim->dead_puts) != victim->puts)
            continue;
        relocation_retire(compactor->background, victim);
        compactor->gained = true;
        compact_add(&compactor->stats.victims, 1);
    }
    compactor->copied_count = 0;
}

static void seal(struct compactor *compactor)
{
    KVS_ASSERT(chunk_empty(compactor));
    if (compactor->output == NULL) {
        retire_copied(compactor);
        compactor->state = compactor->victim != NULL ? COMPACT_SIFT : COMPACT_OPEN;
        return;
    }
    /* Without memory for the entry: again on a later turn. */
    if (relocation_seal(compactor->background, compactor->output, &compactor->ticket) == KVS_ERR_OK)
        compactor->state = COMPACT_SEALING;
}

static void sealing(struct compactor *compactor)
{
    if (relocation_durable(compactor->background, compactor->ticket)) {
        retire_copied(compactor);
        compactor->output = NULL;
        compactor->state = compactor->victim != NULL ? COMPACT_SIFT : COMPACT_OPEN;
    } else if (compactor->stopping && relocation_stuck(compactor->background)) {
        compactor->state = COMPACT_REST; /* the next start finds victims and copies, and takes either */
    }
}

/* ---- sifting --------------------------------------------------------------------------------------------------- */

static bool grow(uint8_t **buffer, size_t *capacity, size_t needed, size_t kept)
{
    if (needed <= *capacity)
        return true;
    size_t larger = align_up(needed, KVS_BLOCK_BYTES);
    uint8_t *moved = aligned_alloc(KVS_BLOCK_BYTES, larger);
    if (moved == NULL)
        return false;
    memcpy(moved, *buffer, kept);
    free(*buffer);
    *buffer = moved;
    *capacity = larger;
    return true;
}

/* True when there is a place for a record of so many bytes; else the state says what has to come first. */
static bool make_room(struct compactor *compactor, uint64_t bytes)
{
    if (compactor->output == NULL) {
        compactor->state = COMPACT_OUTPUT;
        return false;
    }
    uint64_t end = (uint64_t)compactor->output->end + align_up(compactor->chunk_bytes + bytes, KVS_BLOCK_BYTES);
    if (end > relocation_end_max(compactor->background)) {
        flush_then(compactor, COMPACT_SEAL);
        return false;
    }
    bool full = compactor->move_count == RELOCATION_MOVES_MAX || compactor->chunk_bytes + bytes > CHUNK_BYTES;
    if (full && compactor->chunk_records > 0) {
        flush_then(compactor, COMPACT_SIFT);
        return false;
    }
    if (!grow(&compactor->chunk, &compactor->chunk_capacity, compactor->chunk_bytes + bytes + KVS_BLOCK_BYTES,
              compactor->chunk_bytes)) {
        compactor->victim = NULL; /* it stays as it is */
        compactor->state = COMPACT_OPEN;
        return false;
    }
    return true;
}

static const struct record_header *copy_record(struct compactor *compactor, const struct record_header *record,
                                               enum record_kind kind)
{
    struct segment *output = compactor->output;
    uint32_t offset = output->end + (uint32_t)compactor->chunk_bytes;
    uint8_t *to = compactor->chunk + compactor->chunk_bytes;
    bool put = kind == RECORD_PUT;
    uint8_t flags = put ? record->flags : 0;
    struct record_header fields = {.lsn = record->lsn, .kind = (uint8_t)kind, .flags = flags};
    record_encode(to, output->seed, offset, &fields, put ? record_expires_ms(record) : 0, record_key(record),
                  put ? record_value(record) : slice_make(NULL, 0));
    const struct record_header *copy = (const struct record_header *)(const void *)to;
    segment_count_record(output, copy, 1);
    compactor->chunk_bytes += record_size(copy);
    compactor->chunk_records++;
    return copy;
}

/* A put that the index points at. `hidden`: a newer record of its key may be there, which has not taken its place yet.
 * Then the output may hold what that one hides, although it was begun later. */
static bool keep_put(struct compactor *compactor, const struct record_header *record, uint64_t hash, uint64_t from,
                     bool hidden)
{
    if (!make_room(compactor, record_size(record)))
        return false;
    struct segment *output = compactor->output;
    uint64_t to = relocation_address(compactor->background, output, output->end + (uint32_t)compactor->chunk_bytes);
    if (hidden && record->lsn < output->begun_lsn)
        output->begun_lsn = record->lsn;
    const struct record_header *copy = copy_record(compactor, record, RECORD_PUT);
    compactor->moves[compactor->move_count++] = (struct relocation_move){.hash = hash,
                                                                         .from = from,
                                                                         .to = to,
                                                                         .expires_ms = record_expires_ms(copy),
                                                                         .class = record_class(record_size(copy)),
                                                                         .large = (copy->flags & RECORD_LARGE) != 0};
    return true;
}

/*
 * A put that the index does not point at hides older ones of its key if nothing newer does: that is, if it has
 * expired. Then it is kept as a delete for as long as a delete would be. What it hides may have been settled since the
 * victim was begun, and then the shadow LSN does not know of it. The time is asked for after the index: the owner, who
 * may have dropped it in between, has seen no later one.
 */
static bool still_hides(struct compactor *compactor, const struct record_header *record)
{
    uint64_t expires_ms = record_expires_ms(record);
    if (expires_ms == 0 || canary_on(CANARY_EXPIRED_NEVER_KEPT))
        return false;
    if (expires_ms > compactor->now_ms)
        compactor->now_ms = relocation_now_ms(compactor->background);
    bool known = relocation_settled(compactor->background) == compactor->settled;
    return expires_ms <= compactor->now_ms && (record->lsn > compactor->shadow_lsn || !known);
}

/* False when the record has to be looked at again later. */
static bool sift_record(struct compactor *compactor, const struct record_header *record)
{
    uint64_t hash = relocation_hash(compactor->background, record_key(record));
    uint64_t address = relocation_address(compactor->background, compactor->victim, compactor->at);
    bool hidden;
    if (record->kind == RECORD_PUT && relocation_live(compactor->background, hash, address, &hidden))
        return keep_put(compactor, record, hash, address, hidden);
    bool deletes = record->kind == RECORD_DELETE;
    bool kept = deletes ? record->lsn > compactor->shadow_lsn : still_hides(compactor, record);
    if (kept) {
        if (!make_room(compactor, record_bytes(record->key_bytes, 0)))
            return false;
        (void)copy_record(compactor, record, RECORD_DELETE);
    }
    if (deletes)
        compact_add(kept ? &compactor->stats.deletes_kept : &compactor->stats.deletes_dropped, 1);
    else
        compact_add(&compactor->stats.expired_kept, kept);
    return true;
}

static void damaged(struct compactor *compactor, const char *what)
{
    if (compactor->tries++ == 0) {
        compactor->wanted_end = compactor->window_begin + (uint32_t)compactor->window_bytes;
        compactor->window_bytes = 0; /* read it once more */
        compactor->state = COMPACT_READ;
        return;
    }
    compact_spoil(compactor, compactor->victim, compactor->at, what);
    compactor->victim = NULL;
    compactor->state = COMPACT_OPEN;
}

/* The bytes [offset, offset + size) of the victim, or NULL: they will be there after a read. */
static const void *view(struct compactor *compactor, uint32_t offset, uint64_t size)
{
    if (offset >= compactor->window_begin && offset + size <= compactor->window_begin + compactor->window_bytes)
        return compactor->window + (offset - compactor->window_begin);
    compactor->window_begin = (uint32_t)align_down(offset, KVS_BLOCK_BYTES);
    compactor->wanted_end = (uint32_t)align_up(offset + size, KVS_BLOCK_BYTES);
    compactor->window_bytes = 0;
    compactor->state = COMPACT_READ;
    return NULL;
}

static bool sift_batch_header(struct compactor *compactor)
{
    const struct segment *victim = compactor->victim;
    const struct batch_header *header = view(compactor, compactor->batch, sizeof *header);
    if (header == NULL)
        return false;
    if (!batch_header_valid(header, victim->seed, compactor->batch, victim->end - compactor->batch)) {
        damaged(compactor, "the batch's header is wrong");
        return false;
    }
    compactor->batch_end = compactor->batch + header->bytes;
    compactor->at = compactor->batch + (uint32_t)sizeof *header;
    return true;
}

static void victim_done(struct compactor *compactor)
{
    KVS_ASSERT(compactor->copied_count < POLICY_VICTIMS_MAX);
    struct segment *victim = compactor->victim;
    compactor->victim = NULL;
    compactor->state = COMPACT_OPEN;
    compactor->copied[compactor->copied_count++] = victim;
    /* Without an output all that was copied of it is final. If it stayed until there is one, and none can be had, the
     * next plan would choose it a second time. */
    if (compactor->copied_count == POLICY_VICTIMS_MAX || compactor->output == NULL)
        flush_then(compactor, COMPACT_SEAL);
}

/* Looks at one record, or at the header of the next batch. False when something has to come first. */
static bool sift_one(struct compactor *compactor)
{
    const struct segment *victim = compactor->victim;
    if (compactor->at == compactor->batch_end && compactor->batch_end != compactor->batch) {
        compactor->batch = (uint32_t)align_up(compactor->batch_end, KVS_BLOCK_BYTES);
        compactor->batch_end = compactor->batch;
    }
    if (compactor->batch_end == compactor->batch) {
        if (compactor->batch >= victim->end) {
            victim_done(compactor);
            return false;
        }
        return sift_batch_header(compactor);
    }
    const struct record_header *record = view(compactor, compactor->at, sizeof *record);
    if (record == NULL)
        return false;
    uint64_t room = compactor->batch_end - compactor->at;
    uint64_t bytes = record_size(record);
    if (bytes > room) {
        damaged(compactor, "the record's length is wrong");
        return false;
    }
    record = view(compactor, compactor->at, bytes);
    if (record == NULL)
        return false;
    if (record_check(record, bytes, victim->seed, compactor->at) != RECORD_VALID &&
        !canary_on(CANARY_COMPACTION_UNVERIFIED)) {
        damaged(compactor, "the record's checksum is wrong");
        return false;
    }
    if (!sift_record(compactor, record))
        return false;
    compactor->tries = 0;
    compactor->at += (uint32_t)bytes;
    return true;
}

static void sift(struct compactor *compactor)
{
    compactor->state = COMPACT_SIFT;
    engine_background_section_begin(compactor->background);
    for (unsigned i = 0; i < SIFT_RECORDS && sift_one(compactor); i++)
        ;
    engine_background_section_end(compactor->background);
}

/* ---- victims --------------------------------------------------------------------------------------------------- */

static void open_victim(struct compactor *compactor)
{
    if (compactor->next_victim == compactor->plan.count || compactor->stopping) {
        /* What was copied becomes final before anything else is begun. */
        bool all_final = compactor->output == NULL && compactor->copied_count == 0;
        flush_then(compactor, all_final ? COMPACT_PLAN : COMPACT_SEAL);
        return;
    }
    struct segment *victim =
        relocation_segment(compactor->background, compactor->plan.victims[compactor->next_victim++]);
    if (victim == NULL || segment_state(victim) != SEGMENT_SEALED)
        return;
    compactor->victim = victim;
    compactor->tries = 0;
    compactor->batch = compactor->batch_end = compactor->at = KVS_BLOCK_BYTES;
    compactor->window_bytes = 0;
    /* In this order: what was settled before the last put died is counted. */
    bool all_dead = atomic_load(&victim->dead_puts) == victim->puts;
    bool hides = victim->deletes > 0 || victim->expiring > 0;
    compactor->settled = relocation_settled(compactor->background);
    compactor->shadow_lsn = all_dead && !hides ? UINT64_MAX : compact_shadow_lsn(compactor);
    bool needless = (victim->deletes == 0 || victim->deletes_last_lsn <= compactor->shadow_lsn) &&
                    (victim->expiring == 0 || victim->expiring_last_lsn <= compactor->shadow_lsn);
    if (all_dead && (!hides || needless)) {
        compact_add(&compactor->stats.deletes_dropped, victim->deletes);
        victim_done(compactor); /* nothing in it matters */
        return;
    }
    compactor->state = COMPACT_SIFT;
}

static void start_read(struct compactor *compactor)
{
    if (compactor->paced_ns > ring_now_ns(compactor->ring) && !compactor->stopping)
        return;
    uint64_t end = compactor->window_begin + (uint64_t)WINDOW_BYTES;
    end = end > compactor->victim->end ? compactor->victim->end : end;
    end = end < compactor->wanted_end ? compactor->wanted_end : end;
    size_t size = (size_t)(end - compactor->window_begin);
    if (!grow(&compactor->window, &compactor->window_capacity, size, 0)) {
        compact_spoil(compactor, compactor->victim, compactor->at, kvs_err_text(KVS_ERR_NO_MEMORY));
        compactor->victim = NULL;
        compactor->state = COMPACT_OPEN;
        return;
    }
    compactor->state = COMPACT_READING;
    compactor->io_active = true;
    ring_op_init(&compactor->io, io_done);
    ring_file_read(compactor->ring, &compactor->io, compactor->victim->fd, compactor->window, size,
                   compactor->window_begin);
    compact_add(&compactor->stats.bytes_read, size);
    compact_pace(compactor, size);
}

static void io_done(struct ring_op *op)
{
    struct compactor *compactor = container_of(op, struct compactor, io);
    compactor->io_active = false;
    if (compactor->state == COMPACT_READING) {
        compactor->window_bytes = op->error == KVS_ERR_OK ? op->bytes : 0;
        compactor->state = COMPACT_SIFT;
        bool enough = compactor->window_begin + compactor->window_bytes >= compactor->wanted_end;
        if (op->error != KVS_ERR_OK || !enough)
            damaged(compactor, op->error != KVS_ERR_OK ? ring_op_text(op) : "the file is too short");
        return;
    }
    if (op->error != KVS_ERR_OK) {
        char text[COMPACT_MESSAGE_BYTES];
        snprintf(text, sizeof text, "%s of segment %06u at offset %u failed: %s",
                 compactor->state == COMPACT_SYNCING ? "sync" : "write", compactor->output->number,
                 compactor->output->end, ring_op_text(op));
        fail(compactor, text);
        return;
    }
    if (compactor->state == COMPACT_WRITING && relocation_sync_after_write(compactor->background)) {
        compactor->state = COMPACT_SYNCING;
        compactor->io_active = true;
        ring_op_init(op, io_done);
        ring_file_sync(compactor->ring, op, compactor->output->fd);
        return;
    }
    chunk_written(compactor);
}

/* ---- the turn -------------------------------------------------------------------------------------------------- */

/* While logs lack space, until the next look for some. */
static uint64_t poll_ns(const struct compactor *compactor)
{
    return relocation_hurried(compactor->background) ? COMPACT_POLL_NS / HURRY : COMPACT_POLL_NS;
}

/* Nothing could be gained: not by a plan, or not by this one. */
static void give_up(struct compactor *compactor, bool ending)
{
    bool lacks = relocation_short(compactor->background);
    /* What was given back takes a moment until logs have it. */
    compactor->hopeless = ending || (lacks && !compactor->gained);
    if (lacks && !compactor->gained)
        relocation_looked_in_vain(compactor->background);
    compactor->gained = false;
    compact_set_urgency(compactor, 0);
    compactor->state = COMPACT_REST;
}

/* What a flush has taken away was counted as dead since the last plan. */
static bool flush_counted(const struct compactor *compactor)
{
    return relocation_counted(compactor->background) != compactor->counted;
}

/* A plan is due when the logs have written enough since the last one, when a flush has been counted, and from time to
 * time while logs lack space. */
static bool plan_due(const struct compactor *compactor)
{
    /* With a log that has failed copies would use up space, and no victim could be given up for them. */
    if (compactor->stopping || relocation_blocked(compactor->background))
        return false;
    uint64_t appended = relocation_appended(compactor->background) - compactor->appended;
    if (flush_counted(compactor))
        return true;
    if (appended > relocation_end_max(compactor->background) / 4)
        return true;
    return relocation_short(compactor->background) &&
           ring_now_ns(compactor->ring) >= compactor->planned_ns + poll_ns(compactor);
}

static void plan(struct compactor *compactor)
{
    bool ending = compactor->stopping || relocation_blocked(compactor->background);
    if (!ending)
        compact_make_plan(compactor);
    if (ending || compactor->plan.count == 0)
        give_up(compactor, ending);
    else
        compactor->state = COMPACT_OPEN;
}

static void take_output(struct compactor *compactor)
{
    KVS_ASSERT(compactor->copied_count == 0);
    compactor->output = relocation_output(compactor->background);
    if (compactor->output == NULL) {
        if (compactor->stopping || relocation_output_error(compactor->background) != KVS_ERR_OK) {
            relocation_output_cancel(compactor->background);
            compactor->victim = NULL;
            give_up(compactor, !compactor->gained);
        }
        return;
    }
    compactor->output_records = 0;
    chunk_begin(compactor);
    compactor->state = COMPACT_SIFT;
}

static void step(struct compactor *compactor)
{
    switch (compactor->state) {
    case COMPACT_REST:
        /* The next time that space is lacking, writes wait until a plan tells whether there is any to gain. */
        compactor->hopeless = relocation_blocked(compactor->background) ||
                              (compactor->hopeless && relocation_short(compactor->background));
        if (plan_due(compactor))
            compactor->state = COMPACT_PLAN;
        break;
    case COMPACT_PLAN:
        plan(compactor);
        break;
    case COMPACT_OPEN:
        open_victim(compactor);
        break;
    case COMPACT_READ:
        start_read(compactor);
        break;
    case COMPACT_SIFT:
        sift(compactor);
        break;
    case COMPACT_OUTPUT:
        take_output(compactor);
        break;
    case COMPACT_SWINGING:
        if (relocation_swung(compactor->background))
            compactor->state = compactor->after_write;
        break;
    case COMPACT_SEAL:
        seal(compactor);
        break;
    case COMPACT_SEALING:
        sealing(compactor);
        break;
    case COMPACT_READING:
    case COMPACT_WRITING:
    case COMPACT_SYNCING:
    case COMPACT_FAILED:
        break;
    }
}

void compact_turn(struct compactor *compactor)
{
    const char *failure = relocation_failure_text(compactor->background);
    if (*failure != 0 && compactor->state != COMPACT_FAILED && !compactor->io_active)
        fail(compactor, failure);
    enum compact_state before;
    do {
        before = compactor->state;
        step(compactor);
    } while (compactor->state != before);
    atomic_store_explicit(&compactor->stats.running,
                          compactor->state != COMPACT_REST && compactor->state != COMPACT_FAILED, memory_order_relaxed);
    compact_set_urgency(compactor, atomic_load_explicit(&compactor->stats.urgency, memory_order_relaxed));
}

int64_t compact_timeout_ns(const struct compactor *compactor)
{
    if (compactor->state == COMPACT_SIFT || compactor->state == COMPACT_OPEN)
        return 0;
    if (compactor->state == COMPACT_OUTPUT)
        return relocation_output_settled(compactor->background) ? 0 : -1;
    if (compactor->state == COMPACT_READ) {
        uint64_t now = ring_now_ns(compactor->ring);
        return compactor->paced_ns > now ? (int64_t)(compactor->paced_ns - now) : 0;
    }
    if (compactor->state == COMPACT_REST && flush_counted(compactor) && plan_due(compactor))
        return 0;
    if (compactor->state == COMPACT_REST && !compactor->stopping && relocation_short(compactor->background))
        return (int64_t)poll_ns(compactor);
    return -1;
}

void compact_stop(struct compactor *compactor)
{
    compactor->stopping = true;
}

bool compact_stopped(const struct compactor *compactor)
{
    return compactor->stopping && !compactor->io_active &&
           (compactor->state == COMPACT_REST || compactor->state == COMPACT_FAILED);
}

/* ---- state ----------------------------------------------------------------------------------------------------- */

void compact_stats(const struct compactor *compactor, struct compact_stats *out)
{
    *out = (struct compact_stats){
        .plans = atomic_load_explicit(&compactor->stats.plans, memory_order_relaxed),
        .victims = atomic_load_explicit(&compactor->stats.victims, memory_order_relaxed),
        .bytes_read = atomic_load_explicit(&compactor->stats.bytes_read, memory_order_relaxed),
        .bytes_written = atomic_load_explicit(&compactor->stats.bytes_written, memory_order_relaxed),
        .records_moved = atomic_load_explicit(&compactor->stats.records_moved, memory_order_relaxed),
        .deletes_kept = atomic_load_explicit(&compactor->stats.deletes_kept, memory_order_relaxed),
        .deletes_dropped = atomic_load_explicit(&compactor->stats.deletes_dropped, memory_order_relaxed),
        .expired_kept = atomic_load_explicit(&compactor->stats.expired_kept, memory_order_relaxed),
        .damaged_segments = atomic_load_explicit(&compactor->stats.damaged_segments, memory_order_relaxed),
        .urgency = atomic_load_explicit(&compactor->stats.urgency, memory_order_relaxed),
        .running = atomic_load_explicit(&compactor->stats.running, memory_order_relaxed),
        .failed = atomic_load_explicit(&compactor->stats.failed, memory_order_relaxed),
    };
}

const char *compact_trouble(const struct compactor *compactor)
{
    const struct notice *notices[] = {&compactor->failure, &compactor->damage};
    for (size_t i = 0; i < ARRAY_COUNT(notices); i++) {
        if (atomic_load_explicit(&notices[i]->there, memory_order_acquire))
            return notices[i]->text;
    }
    return "";
}
