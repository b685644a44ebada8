/*
 * keeper.c - supplying logs with segments, and looking after those that they have left.
 *
 * Every turn: let the manifest write what is queued; for each log whose place for an offer is empty, offer what its
 * maker has ready, or set the maker to work; enter what has been sealed; go on with the retirement under way, and with
 * the runs; remove files when there are far more free ones than anybody will need.
 *
 * Failure: a maker that fails keeps its cause in `error` and tries again; while the file limit is reached and nothing
 * is free, the cause is NO_SPACE. A manifest that has failed ends all this for good: makers say so, sealed segments
 * stay unsealed in the manifest, nothing is retired. What was acknowledged is not touched by any of it.
 */
#include "engine/keeper.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/checkpoint.h"
#include "engine/relocation.h"
#include "engine/snapshot_writer.h"
#include "engine/store.h"

/* While an image waits for its last reader nothing wakes the keeper when that is gone. */
#define IMAGE_WAIT_NS 200000

/* Of sealed segments one in so many is kept free for deletes, beside a fixed number; and no more than one in so many
 * while there is no limit on the disk space, where a reserve has to be written first. */
enum { DELETES_SHARE = 64, UNLIMITED_SHARE = 4 };

enum kvs_err keeper_open(struct keeper *keeper, struct store *store, uint32_t images_max)
{
    keeper->store = store;
    list_init(&keeper->free);
    list_init(&keeper->held);
    list_init(&keeper->given_up);
    list_init(&keeper->unsealed);
    list_init(&keeper->retiring);
    for (unsigned i = 0; i < KVS_SHARDS_MAX; i++)
        keeper->deletes_asked[i] = UINT64_MAX;
    warmup_init(&keeper->warmup);
    value_sweep_init(&keeper->sweep);
    epoch_register(&store->base.epoch, &keeper->base.thread);
    uint64_t disk_bytes_max = store->base.options.disk_bytes_max;
    keeper->files_max = disk_bytes_max / store->segments.segment_bytes;
    keeper->images_min = KEEPER_IMAGES_PER_LOG * store->shard_count;
    enum kvs_err err = backup_open(&keeper->backup, keeper);
    if (err == KVS_ERR_OK)
        err = relocation_open(keeper);
    if (err == KVS_ERR_OK)
        err = checkpoint_open(&keeper->checkpoint, store);
    return err != KVS_ERR_OK
               ? err
               : image_pool_init(&keeper->images, store->segments.segment_bytes, images_max, &keeper->base.thread);
}

void keeper_add_free(struct keeper *keeper, struct segment *segment)
{
    KVS_ASSERT(segment_state(segment) == SEGMENT_FREE && image_gone(segment));
    list_push_back(&keeper->free, &segment->keeper_link);
    keeper->free_count++;
}

void keeper_watch(struct keeper *keeper, struct segment *segment)
{
    list_push_back(&keeper->unsealed, &segment->keeper_link);
}

void keeper_close(struct keeper *keeper, struct ring *ring)
{
    if (keeper->prepared) {
        segment_maker_deinit(&keeper->relocation_maker, ring);
        for (unsigned i = 0; i < keeper->store->shard_count; i++)
            segment_maker_deinit(&keeper->makers[i], ring);
    }
    backup_close(keeper->backup, ring);
    if (keeper->manifest != NULL)
        manifest_close(keeper->manifest, ring);
    checkpoint_close(keeper->checkpoint, ring);
    relocation_close(keeper);
    value_sweep_deinit(&keeper->sweep, ring);
    store_flush_close(keeper, ring);
    warmup_deinit(keeper);
    snapshot_writer_close(keeper->snapshot, ring);
    image_pool_deinit(&keeper->images);
}

void keeper_wake(const struct keeper *keeper, struct ring *from)
{
    struct ring *ring = atomic_load_explicit(&keeper->ring, memory_order_acquire);
    if (ring != NULL)
        ring_wake(from, ring);
}

/* ---- space ----------------------------------------------------------------------------------------------------- */

static uint32_t files(const struct keeper *keeper)
{
    return atomic_load_explicit(&keeper->store->segments.count, memory_order_relaxed);
}

uint64_t keeper_files_max(const struct keeper *keeper)
{
    const struct store *store = keeper->store;
    uint64_t values = atomic_load_explicit(&store->values.bytes, memory_order_relaxed);
    uint64_t taken = (values + store->segments.segment_bytes - 1) / store->segments.segment_bytes;
    uint64_t least = store_segments_min(store);
    if (keeper->files_max <= least)
        return keeper->files_max; /* values get nothing of it */
    return keeper->files_max > taken + least ? keeper->files_max - taken : least;
}

uint64_t keeper_addable(const struct keeper *keeper)
{
    if (keeper->files_max == 0)
        return UINT32_MAX;
    uint64_t most = keeper_files_max(keeper);
    return most > files(keeper) ? most - files(keeper) : 0;
}

/* Free files that logs must leave to compaction. */
static uint32_t compaction_reserve(const struct keeper *keeper)
{
    return keeper->sealed_count >= KEEPER_RESERVE_FROM && !canary_on(CANARY_NO_COMPACTION_RESERVE)
               ? KEEPER_RESERVE_FILES
               : 0;
}

/* Files beyond those without which the store does not work at all. */
static uint64_t slack(const struct keeper *keeper)
{
    uint64_t most = keeper_files_max(keeper), least = store_segments_min(keeper->store);
    if (keeper->files_max == 0)
        return UINT32_MAX;
    return most > least ? most - least : 0;
}

/* It grows with the store, and is smaller under a limit that leaves little, so that a small one does not consist of
 * reserves. */
uint32_t keeper_deletes_reserve(const struct keeper *keeper)
{
    if (keeper->sealed_count < KEEPER_RESERVE_FROM || canary_on(CANARY_NO_DELETES_RESERVE))
        return 0;
    uint32_t wanted = 2 * keeper->store->shard_count + 2 + keeper->sealed_count / DELETES_SHARE;
    uint32_t most = keeper->files_max != 0 ? keeper->sealed_count : keeper->sealed_count / UNLIMITED_SHARE;
    most = most < slack(keeper) ? most : (uint32_t)slack(keeper);
    return wanted < most ? wanted : most;
}

/* Free files that puts do not get. */
static uint32_t reserve(const struct keeper *keeper)
{
    return compaction_reserve(keeper) + keeper_deletes_reserve(keeper);
}

uint32_t keeper_reserved(const struct keeper *keeper)
{
    return reserve(keeper) < keeper->free_count ? reserve(keeper) : keeper->free_count;
}

uint32_t keeper_reserve_lacks(const struct keeper *keeper)
{
    return reserve(keeper) - keeper_reserved(keeper);
}

bool keeper_shared(struct ring *ring, const struct segment *segment)
{
    struct ring_file_info info;
    if (canary_on(CANARY_LINKS_IGNORED))
        return false;
    return ring_file_info(ring, segment->fd, &info) != KVS_ERR_OK || info.links != 1;
}

void keeper_take_back(struct keeper *keeper, struct segment *segment)
{
    KVS_ASSERT(segment_state(segment) == SEGMENT_FREE && image_gone(segment));
    for (unsigned i = 0; i < keeper->store->shard_count; i++)
        keeper->deletes_asked[i] = UINT64_MAX; /* there was something to gain */
    if (backup_holds(keeper->backup, segment->number))
        list_push_back(&keeper->held, &segment->keeper_link);
    else if (keeper_shared(keeper->ring, segment))
        list_push_back(&keeper->given_up, &segment->keeper_link);
    else
        keeper_add_free(keeper, segment);
}

/* What the backup has got by now. */
static void release_held(struct keeper *keeper)
{
    for (struct list *node = keeper->held.next, *next; node != &keeper->held; node = next) {
        next = node->next;
        struct segment *segment = container_of(node, struct segment, keeper_link);
        if (backup_holds(keeper->backup, segment->number))
            continue;
        list_remove(&segment->keeper_link);
        keeper_take_back(keeper, segment);
    }
}

/* A free segment, to be used again or removed; NULL when there is none. The last look at its file: it may have been
 * shared before the start, or by others. */
static struct segment *take_free(struct keeper *keeper)
{
    for (struct list *node; (node = list_pop_front(&keeper->free)) != NULL;) {
        keeper->free_count--;
        struct segment *segment = container_of(node, struct segment, keeper_link);
        if (!keeper_shared(keeper->ring, segment))
            return segment;
        list_push_back(&keeper->given_up, &segment->keeper_link);
    }
    return NULL;
}

/* Waiting for memory, too: it has been promised the file. */
static bool makes_new(const struct segment_maker *maker)
{
    return maker->segment == NULL && !segment_maker_rests(maker);
}

/* A free file was removed for the manifest's latest attempt that found no space: the next one may find some. */
static bool has_made_room(const struct keeper *keeper)
{
    return keeper->trimmed_for == manifest_attempt(keeper->manifest);
}

/* 1 when a file is about to become a free one. */
static uint32_t free_coming(const struct keeper *keeper)
{
    return keeper->relocation_maker.purpose == MAKE_FREE && !segment_maker_rests(&keeper->relocation_maker);
}

/* Files that others are being made into right now count as if they were there. */
static uint32_t in_the_making(const struct keeper *keeper)
{
    uint32_t count = makes_new(&keeper->relocation_maker);
    for (unsigned i = 0; i < keeper->store->shard_count; i++)
        count += makes_new(&keeper->makers[i]);
    return count;
}

/* Logs whose puts are refused for lack of space, and for which nothing is being made: when puts go on, all of them
 * should, if there can be so many files. */
static uint32_t refused_count(const struct keeper *keeper)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < keeper->store->shard_count; i++) {
        bool offered = atomic_load_explicit(&keeper->store->shards[i]->offered, memory_order_relaxed) != NULL;
        count += keeper->makers[i].error == KVS_ERR_NO_SPACE && segment_maker_rests(&keeper->makers[i]) && !offered;
    }
    uint64_t most = 1 + slack(keeper) / 2;
    return count < most ? count : (uint32_t)most;
}

/* Free files that must be left when one is taken for this purpose. */
static uint32_t kept_from(const struct keeper *keeper, const struct segment_maker *maker, enum maker_purpose purpose)
{
    if (purpose == MAKE_FOR_DELETES)
        return compaction_reserve(keeper);
    if (purpose != MAKE_FOR_LOG)
        return 0;
    uint32_t refused = maker->error == KVS_ERR_NO_SPACE ? refused_count(keeper) : 0;
    return reserve(keeper) + (refused > 0 ? refused - 1 : 0);
}

/* Sets a maker to work, for a log or for compaction, on a free file or, when it is idle, on a new one, as far as there
 * is space. */
static void begin_making(struct keeper *keeper, struct segment_maker *maker, enum maker_purpose purpose)
{
    if (segment_maker_has_file(maker) && maker->purpose == MAKE_FOR_DELETES)
        purpose = MAKE_FOR_DELETES; /* an attempt that has failed does not make it one for puts */
    uint32_t kept = kept_from(keeper, maker, purpose);
    bool has_file = segment_maker_has_file(maker);
    struct segment *segment = !has_file && purpose != MAKE_FREE && keeper->free_count > kept ? take_free(keeper) : NULL;
    if (segment != NULL || (has_file && segment_maker_can_begin(maker))) {
        segment_maker_begin(maker, purpose, segment);
        return;
    }
    if (has_file || !segment_maker_can_begin(maker))
        return;
    uint32_t there = keeper->free_count + free_coming(keeper);
    uint64_t lacking = kept > there ? kept - there : 0;
    /* What room there is on the disk is the manifest's if that lacks it. */
    if (keeper_addable(keeper) > lacking + in_the_making(keeper) && !manifest_lacks_space(keeper->manifest))
        segment_maker_begin(maker, purpose, NULL);
    else if (purpose == MAKE_FOR_LOG || purpose == MAKE_FOR_RELOCATION)
        segment_maker_refuse(maker, KVS_ERR_NO_SPACE, "the limit on the size of the log is reached");
}

/* ---- logs ------------------------------------------------------------------------------------------------------ */

/* There is space again: puts may go on where only deletes had a place. */
static void open_to_puts(struct keeper *keeper)
{
    keeper->puts_shut = false;
    for (struct list *node = keeper->unsealed.next; node != &keeper->unsealed; node = node->next) {
        struct segment *segment = container_of(node, struct segment, keeper_link);
        atomic_store_explicit(&segment->for_deletes, false, memory_order_relaxed);
    }
    for (unsigned i = 0; i < keeper->store->shard_count; i++) {
        struct store_shard *shard = keeper->store->shards[i];
        bool offered = atomic_load_explicit(&shard->offered, memory_order_relaxed) != NULL;
        if (!offered || keeper->makers[i].error != KVS_ERR_NO_SPACE || !segment_maker_rests(&keeper->makers[i]))
            continue;
        segment_maker_recovered(&keeper->makers[i]);
        store_shard_wake(shard, keeper->ring);
    }
}

/* Both reserves are whole, and there is a file for each log that lacks one. */
static bool space_is_back(const struct keeper *keeper)
{
    uint64_t addable = keeper->files_max == 0 ? 0 : keeper_addable(keeper);
    return keeper->free_count + free_coming(keeper) + addable >=
           (uint64_t)reserve(keeper) + refused_count(keeper) + in_the_making(keeper);
}

/* Deletes wait and there is no file for them. They are refused when compaction has looked for space since, and found
 * none, twice: the first look may have begun before what they have deleted was counted. */
static void judge_deletes(struct keeper *keeper, unsigned id)
{
    struct store_shard *shard = keeper->store->shards[id];
    if (keeper->deletes_asked[id] == UINT64_MAX)
        keeper->deletes_asked[id] = keeper->looks_in_vain;
    bool vain = keeper->hope == RELOCATION_HOPE_FADED && keeper->looks_in_vain >= keeper->deletes_asked[id] + 2;
    if (!vain && keeper->hope != RELOCATION_HOPE_NONE)
        return;
    if (manifest_waits_for_space(keeper->manifest) && has_made_room(keeper))
        return;
    if (!atomic_load_explicit(&shard->deletes_refused, memory_order_relaxed)) {
        atomic_store_explicit(&shard->deletes_refused, true, memory_order_relaxed);
        store_shard_wake(shard, keeper->ring);
    }
}

/* Deletes that wait while puts are refused get a segment of their reserve. */
static void supply_deletes(struct keeper *keeper, unsigned id)
{
    struct store_shard *shard = keeper->store->shards[id];
    struct segment_maker *maker = &keeper->makers[id];
    if (!atomic_load_explicit(&shard->deletes_wait, memory_order_acquire)) {
        keeper->deletes_asked[id] = UINT64_MAX;
        atomic_store_explicit(&shard->deletes_refused, false, memory_order_relaxed);
        return;
    }
    if (maker->error == KVS_ERR_OK)
        return; /* one is on its way */
    if (maker->error == KVS_ERR_NO_SPACE && segment_maker_can_use_again(maker))
        begin_making(keeper, maker, MAKE_FOR_DELETES);
    if (segment_maker_rests(maker) || manifest_waits_for_space(keeper->manifest))
        judge_deletes(keeper, id);
}

static void supply(struct keeper *keeper, unsigned id)
{
    struct store_shard *shard = keeper->store->shards[id];
    struct segment_maker *maker = &keeper->makers[id];
    segment_maker_turn(maker);
    if (atomic_load_explicit(&shard->offered, memory_order_relaxed) != NULL ||
        atomic_load_explicit(&shard->log.failed, memory_order_relaxed))
        return;
    enum kvs_err before = maker->error;
    struct segment *segment = segment_maker_take(maker);
    if (segment != NULL) {
        keeper_watch(keeper, segment);
        if (maker->purpose == MAKE_FOR_DELETES)
            keeper->puts_shut = true;
        else if (keeper->puts_shut)
            open_to_puts(keeper);
        atomic_store_explicit(&shard->offered, segment, memory_order_release);
        store_shard_wake(shard, keeper->ring);
        return;
    }
    if (segment_maker_can_use_again(maker))
        begin_making(keeper, maker, MAKE_FOR_LOG);
    supply_deletes(keeper, id);
    if (maker->error != before)
        store_shard_wake(shard, keeper->ring);
}

/* A maker that has failed, or is well again, changes what a shard answers. It may have failed since the last turn, and
 * writes may have begun to wait before: while there is an error its shard is woken every time. */
static void supply_and_tell(struct keeper *keeper, unsigned id)
{
    enum kvs_err before = keeper->makers[id].error;
    supply(keeper, id);
    if (keeper->makers[id].error != before || before != KVS_ERR_OK)
        store_shard_wake(keeper->store->shards[id], keeper->ring);
}

/* Nobody gets a spare before all have something to write in. */
static void supply_all(struct keeper *keeper)
{
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < keeper->store->shard_count; i++) {
            const struct store_shard *shard = keeper->store->shards[i];
            bool has_none =
                shard->adopted == NULL && atomic_load_explicit(&shard->log.total_batches, memory_order_relaxed) == 0;
            if (has_none == (pass == 0))
                supply_and_tell(keeper, i);
        }
    }
}

struct manifest_entry keeper_sealed_entry(const struct segment *segment)
{
    return (struct manifest_entry){
        .number = segment->number,
        .state = MANIFEST_SEALED,
        .kind = (uint8_t)segment->kind,
        .uid = segment->uid,
        .end = segment->end,
        .record_bytes = segment->record_bytes,
        .last_lsn = segment->last_lsn,
        .min_lsn = atomic_load_explicit(&segment->min_lsn, memory_order_relaxed),
        .begun_lsn = segment->begun_lsn,
        .epoch = segment->epoch,
        .stream = segment->stream,
        .puts = segment->puts,
        .deletes = segment->deletes,
    };
}

static void enter_sealed(struct keeper *keeper)
{
    for (struct list *node = keeper->unsealed.next, *next; node != &keeper->unsealed; node = next) {
        next = node->next;
        struct segment *segment = container_of(node, struct segment, keeper_link);
        if (segment_state(segment) != SEGMENT_SEALED)
            continue;
        struct manifest_entry entry = keeper_sealed_entry(segment);
        if (manifest_change(keeper->manifest, &entry, &segment->sealed_ticket) != KVS_ERR_OK)
            return;
        list_remove(&segment->keeper_link);
        keeper->sealed_count++;
        keeper->seals++;
        segment->run = 0; /* if one covers it, then only as far as it was filled at an earlier stop */
        KVS_ASSERT(segment->stream < keeper->store->shard_count);
        keeper->newest_sealed[segment->stream] = segment;
    }
}

/* ---- compaction's segments ------------------------------------------------------------------------------------- */

static void supply_relocation(struct keeper *keeper)
{
    struct segment_maker *maker = &keeper->relocation_maker;
    segment_maker_turn(maker);
    if (maker->state == MAKER_READY && maker->purpose == MAKE_FREE)
        keeper_add_free(keeper, segment_maker_take(maker));
    if (keeper->output_wanted && segment_maker_can_use_again(maker))
        begin_making(keeper, maker, MAKE_FOR_RELOCATION);
    else if (segment_maker_can_begin(maker) && keeper->free_count < reserve(keeper))
        begin_making(keeper, maker, MAKE_FREE);
}

/* ---- files that nobody needs ----------------------------------------------------------------------------------- */

/* The file is out of use, whatever became of its name: it may be there again after a crash, and is a free one then. */
static void trim_end(struct keeper *keeper)
{
    ring_close_fd(keeper->ring, keeper->trimmed->fd);
    segment_drop(&keeper->store->segments, keeper->trimmed);
    keeper->trimmed = NULL;
    keeper->trim = TRIM_IDLE;
}

static void trim_failed(struct keeper *keeper, const char *text)
{
    diag_warn("cannot remove segment file %06u, which is not needed any more: %s", keeper->trimmed->number, text);
    trim_end(keeper);
}

static void trim_synced(struct name_change *change)
{
    struct keeper *keeper = container_of(change, struct keeper, trim_name);
    KVS_ASSERT(keeper->trim == TRIM_SYNC_DIR);
    if (change->error != KVS_ERR_OK) {
        trim_failed(keeper, change->text);
        return;
    }
    struct manifest_entry entry = {.number = keeper->trimmed->number, .state = MANIFEST_GONE};
    uint64_t ticket;
    (void)manifest_change(keeper->manifest, &entry, &ticket); /* a FREE entry without a file means nothing */
    trim_end(keeper);
}

static void trim_unlinked(struct ring_op *op)
{
    struct keeper *keeper = container_of(op, struct keeper, trim_io);
    if (op->error != KVS_ERR_OK) {
        trim_failed(keeper, ring_op_text(op));
        return;
    }
    keeper->trim = TRIM_SYNC_DIR;
    name_change_sync(&keeper->trim_name, keeper->ring, trim_synced);
}

/* The next one that has to go. */
static struct segment *next_unwanted(struct keeper *keeper, uint32_t enough)
{
    struct list *node = list_pop_front(&keeper->given_up);
    if (node != NULL)
        return container_of(node, struct segment, keeper_link);
    return keeper->free_count > enough ? take_free(keeper) : NULL;
}

/* Enough: twice as many as all logs and compaction can ask for at once, and an eighth of all. When the manifest needs a
 * new file and the disk has no room for it, a free segment has to make room, one for each attempt: without the manifest
 * nothing goes on. */
static void trim(struct keeper *keeper)
{
    uint32_t enough = 2 * (keeper->store->shard_count + KEEPER_RESERVE_FILES) + files(keeper) / 8;
    if (enough < reserve(keeper))
        enough = reserve(keeper);
    bool lacks = manifest_lacks_space(keeper->manifest) && !has_made_room(keeper);
    if (lacks)
        enough = 0;
    if (keeper->trim != TRIM_IDLE || keeper->stopping)
        return;
    keeper->trimmed = next_unwanted(keeper, enough);
    if (keeper->trimmed == NULL)
        return;
    if (lacks)
        keeper->trimmed_for = manifest_attempt(keeper->manifest);
    segment_name(keeper->trimmed_name, keeper->trimmed->number, "");
    keeper->trim = TRIM_UNLINK;
    name_change_begin(&keeper->trim_name, &keeper->store->names);
    ring_op_init(&keeper->trim_io, trim_unlinked);
    ring_file_unlink(keeper->ring, &keeper->trim_io, keeper->store->base.dir_fd, keeper->trimmed_name);
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

uint64_t keeper_cache_limit(const struct keeper *keeper)
{
    return keeper->store->base.options.memory_bytes / 8 * 3;
}

/*
 * As long as all segments have images, caches are of no use. When images have to go for others, every second one's
 * memory goes to the caches, up to half of all.
 */
static void share_memory(struct keeper *keeper)
{
    struct store *store = keeper->store;
    uint64_t granted = (keeper->cache_grants + 1) * store->segments.segment_bytes;
    if (keeper->images.spills < 2ull * (keeper->cache_grants + 1) || keeper->images.count_max <= keeper->images_min ||
        granted > keeper_cache_limit(keeper) || !image_pool_shrink(&keeper->images))
        return;
    keeper->cache_grants++;
    for (unsigned i = 0; i < store->shard_count; i++)
        atomic_store_explicit(&store->shards[i]->cache_target, granted / store->shard_count, memory_order_relaxed);
}

/* The index gets an image's memory on top of what it may take, if it may at all. */
static void allow_more(struct keeper *keeper, struct store_shard *shard)
{
    const uint64_t most = store_index_limit(keeper->store);
    const uint64_t now = atomic_load_explicit(&shard->index_bytes_max, memory_order_relaxed);
    const uint64_t then = now + keeper->store->segments.segment_bytes;
    /* First: a shard that takes another index into use at this moment looks at it afterwards. */
    atomic_store(&shard->index_bytes_max, then < most ? then : most);
    index_allow(shard->index, then < most ? then : most);
}

static bool needs_more(const struct keeper *keeper, struct store_shard *shard)
{
    return index_is_tight(shard->index) && keeper->images.count_max > keeper->images_min &&
           atomic_load_explicit(&shard->index_bytes_max, memory_order_relaxed) < store_index_limit(keeper->store);
}

/* Of one in each turn: another image has to be free first. In a section. */
static void feed_indexes(struct keeper *keeper)
{
    for (unsigned i = 0; i < keeper->store->shard_count; i++) {
        struct store_shard *shard = keeper->store->shards[i];
        if (!needs_more(keeper, shard))
            continue;
        if (canary_on(CANARY_INDEX_SHARE_IGNORED) || image_pool_shrink(&keeper->images))
            allow_more(keeper, shard);
        return;
    }
}

/* A start may have filled indexes beyond their share. */
static void settle_indexes(struct keeper *keeper)
{
    for (unsigned i = 0; i < keeper->store->shard_count; i++) {
        struct store_shard *shard = keeper->store->shards[i];
        atomic_store_explicit(&shard->index_bytes_max, store_index_share(keeper->store), memory_order_relaxed);
        index_allow(shard->index, store_index_share(keeper->store));
        while (needs_more(keeper, shard) && image_pool_forgo(&keeper->images))
            allow_more(keeper, shard);
    }
}

/* ---- start --------------------------------------------------------------------------------------------------------
 */

/* Room that is left in the segments of an earlier boot may be room that deletes have opened. */
static void shut_adopted(struct keeper *keeper)
{
    if (space_is_back(keeper))
        return;
    for (unsigned i = 0; i < keeper->store->shard_count; i++) {
        struct segment *segment = keeper->store->shards[i]->adopted;
        if (segment != NULL)
            atomic_store_explicit(&segment->for_deletes, true, memory_order_relaxed);
    }
    keeper->puts_shut = true;
}

enum kvs_err keeper_prepare(struct keeper *keeper)
{
    settle_indexes(keeper);
    struct store *store = keeper->store;
    struct engine *engine = &store->base;
    struct segment_maker_options options = {.table = &store->segments,
                                            .images = &keeper->images,
                                            .manifest = keeper->manifest,
                                            .dir_fd = engine->dir_fd,
                                            .names = &store->names,
                                            .direct = store->direct,
                                            .sync_after_write = store->sync_after_write,
                                            .store_uuid = engine->superblock.uuid,
                                            .epoch = engine->superblock.epoch,
                                            .uid_counter = &keeper->uid_counter};
    keeper->prepared = true;
    bool made = segment_maker_init(&keeper->relocation_maker, &options) == KVS_ERR_OK;
    for (unsigned i = 0; i < store->shard_count; i++)
        made = segment_maker_init(&keeper->makers[i], &options) == KVS_ERR_OK && made;
    return made ? KVS_ERR_OK : KVS_ERR_NO_MEMORY;
}

void keeper_start(struct keeper *keeper, struct ring *ring)
{
    keeper->relocation_maker.options.ring = ring;
    for (unsigned i = 0; i < keeper->store->shard_count; i++)
        keeper->makers[i].options.ring = ring;
    manifest_attach(keeper->manifest, ring);
    struct relocation_space space;
    (void)relocation_census(&keeper->base, NULL, 0, &space); /* for engine_stats */
    shut_adopted(keeper);
    checkpoint_start(keeper->checkpoint, ring);
    atomic_store(&keeper->ring, ring);
}

/* ---- the turn -------------------------------------------------------------------------------------------------- */

static void publish(struct keeper *keeper)
{
    atomic_store_explicit(&keeper->figures.free_count, keeper->free_count, memory_order_relaxed);
    atomic_store_explicit(&keeper->figures.sealed_count, keeper->sealed_count, memory_order_relaxed);
    if (manifest_failed(keeper->manifest))
        atomic_store_explicit(&keeper->figures.failed, true, memory_order_release);
}

/* The last thing in a stop. What comes of it is of no consequence but for how long the next start takes. */
static void snapshot_turn(struct keeper *keeper)
{
    if (!keeper->stopping || keeper->snapshot_ended || !checkpoint_stopped(keeper->checkpoint) ||
        !backup_stopped(keeper->backup))
        return;
    if (keeper->snapshot == NULL) {
        if (!manifest_failed(keeper->manifest) && !manifest_idle(keeper->manifest) && !manifest_stuck(keeper->manifest))
            return;
        keeper->snapshot_ended = !snapshot_possible(keeper->store) ||
                                 snapshot_writer_open(&keeper->snapshot, keeper->store, keeper->ring) != KVS_ERR_OK;
        return;
    }
    const enum kvs_err state = snapshot_writer_state(keeper->snapshot);
    if (state == KVS_ERR_AGAIN)
        return;
    if (state != KVS_ERR_OK && state != KVS_ERR_CANCELLED)
        diag_warn("%s; the next start takes longer without it", snapshot_writer_failure_text(keeper->snapshot));
    keeper->snapshot_ended = true;
}

void keeper_turn(struct keeper *keeper)
{
    epoch_poll(&keeper->base.thread);
    publish(keeper); /* first: who learns from a maker that the manifest has failed finds its text */
    enter_sealed(keeper);
    backup_turn(keeper->backup);
    relocation_turn(keeper);
    release_held(keeper);
    if (!keeper->stopping) {
        share_memory(keeper);
        if (keeper->puts_shut && space_is_back(keeper))
            open_to_puts(keeper);
        supply_all(keeper);
        supply_relocation(keeper);
        trim(keeper);
    }
    engine_background_section_begin(&keeper->base);
    if (!keeper->stopping)
        feed_indexes(keeper);
    for (unsigned i = 0; i < keeper->store->shard_count; i++) {
        if (index_stock(keeper->store->shards[i]->index))
            store_shard_wake(keeper->store->shards[i], keeper->ring);
    }
    engine_background_section_end(&keeper->base);
    store_flush_turn(keeper);
    warmup_turn(keeper, keeper->stopping);
    value_sweep_turn(keeper);
    checkpoint_turn(keeper->checkpoint);
    manifest_turn(keeper->manifest);
    snapshot_turn(keeper);
    publish(keeper);
}

static bool any_maker_is(const struct keeper *keeper, enum segment_maker_state state)
{
    bool any = keeper->relocation_maker.state == state;
    for (unsigned i = 0; i < keeper->store->shard_count; i++)
        any = any || keeper->makers[i].state == state;
    return any;
}

int64_t keeper_timeout_ns(const struct keeper *keeper)
{
    int64_t timeout = manifest_timeout_ns(keeper->manifest);
    if (!keeper->stopping && any_maker_is(keeper, MAKER_BACK))
        return 0;
    if (keeper->images.evicting > 0 || any_maker_is(keeper, MAKER_IMAGE))
        timeout = ring_sooner(timeout, IMAGE_WAIT_NS);
    if (warmup_busy(&keeper->warmup) || backup_timeout_ns(keeper->backup) == 0 || store_flush_busy(keeper))
        return 0;
    timeout = ring_sooner(timeout, value_sweep_timeout_ns(keeper));
    return ring_sooner(timeout, checkpoint_timeout_ns(keeper->checkpoint));
}

void keeper_stop(struct keeper *keeper)
{
    keeper->stopping = true;
    backup_stop(keeper->backup);
    checkpoint_stop(keeper->checkpoint);
    segment_maker_stop(&keeper->relocation_maker);
    for (unsigned i = 0; i < keeper->store->shard_count; i++)
        segment_maker_stop(&keeper->makers[i]);
}

/* Listed as a log's, but nothing was ever written there. */
static bool is_unused(const struct keeper *keeper, const struct manifest_entry *entry)
{
    const struct segment *segment = segment_get(&keeper->store->segments, entry->number);
    const bool used = segment != NULL && segment->uid == entry->uid && segment->end > KVS_BLOCK_BYTES;
    return entry->state == MANIFEST_LIVE && entry->kind == SEGMENT_LOG && !used;
}

/* The next start need not look for the ends of logs then, nor read what a run covers; though it may go on there. What
 * they would have gone on in is free: nor need it be read. */
void keeper_end_logs(struct keeper *keeper)
{
    const struct store *store = keeper->store;
    for (unsigned i = 0; i < store->shard_count; i++) {
        const struct log *log = &store->shards[i]->log;
        if (log->open != NULL && !log->failed && log->open->end > KVS_BLOCK_BYTES)
            segment_set_state(log->open, SEGMENT_SEALED);
    }
    enter_sealed(keeper);
    const uint32_t end = atomic_load(&store->segments.next);
    for (uint32_t number = 0; number < end; number++) {
        const struct manifest_entry *entry = manifest_find(keeper->manifest, number);
        if (entry == NULL || !is_unused(keeper, entry))
            continue;
        const struct manifest_entry unused = {.number = number, .state = MANIFEST_FREE};
        uint64_t ticket;
        (void)manifest_change(keeper->manifest, &unused, &ticket); /* when it fails, the start has more to read */
    }
}

bool keeper_stopped(const struct keeper *keeper)
{
    /* What is queued for a manifest that finds no room is lost: it says nothing that a start would not find out. */
    bool idle = keeper->stopping && (keeper->snapshot_ended || keeper->ring == NULL) &&
                backup_stopped(keeper->backup) && checkpoint_stopped(keeper->checkpoint) &&
                warmup_idle(&keeper->warmup) && value_sweep_idle(&keeper->sweep) && store_flush_idle(keeper) &&
                segment_maker_idle(&keeper->relocation_maker) && keeper->trim == TRIM_IDLE &&
                (manifest_idle(keeper->manifest) || manifest_stuck(keeper->manifest));
    for (unsigned i = 0; i < keeper->store->shard_count; i++)
        idle = idle && segment_maker_idle(&keeper->makers[i]);
    return idle;
}
