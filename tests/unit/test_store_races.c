/*
 * test_store_races.c - what happens between two steps of an operation: a segment leaves RAM, another thread looks in
 * the middle of a change, a caller gives its operation back. Linked with --wrap=hash_key, so that a key can choose its
 * hash, and --wrap=index_next, so that a test can step in between two steps of a walk through the index.
 */
#include "store_fixture.h"

#include <inttypes.h>

#include <errno.h>

enum {
    SEGMENT_BYTES = 256 * 1024,
    LARGE_BYTES = 48 * 1024, /* five records fill a segment */
    MEDIUM_BYTES = 6 * 1024,
    SMALL_BYTES = 200,
};

/* ---- keys that choose their hash ------------------------------------------------------------------------------- */

uint64_t __real_hash_key(struct slice key, uint64_t seed);
uint64_t __wrap_hash_key(struct slice key, uint64_t seed);

/* The hash of "#1f:name" is 0x1f. The lowest six bits choose the bucket, the highest the shard and the page. */
uint64_t __wrap_hash_key(struct slice key, uint64_t seed)
{
    char text[32] = "";
    if (key.size < 2 || key.data[0] != '#')
        return __real_hash_key(key, seed);
    memcpy(text, key.data + 1, key.size - 1 < sizeof text - 1 ? key.size - 1 : sizeof text - 1);
    return strtoull(text, NULL, 16);
}

/* All of one bucket, and but for NEIGHBOUR with one hash, so that each is a candidate for the others. */
#define KEY       "#5:the key that matters"
#define OTHER     "#5:other"
#define NEIGHBOUR "#100005:neighbour"

/* ---- stepping in between --------------------------------------------------------------------------------------- */

bool __real_index_next(struct index_cursor *cursor, struct index_entry *entry);
bool __wrap_index_next(struct index_cursor *cursor, struct index_entry *entry);

/* Armed, `act` happens once: before or after the `countdown`th step of a walk from now on. */
static struct interruption {
    unsigned countdown;
    bool after;
    void (*act)(struct store_fixture *fixture);
    struct store_fixture *fixture;
} interruption;

bool __wrap_index_next(struct index_cursor *cursor, struct index_entry *entry)
{
    bool now = interruption.countdown > 0 && --interruption.countdown == 0;
    if (now && !interruption.after)
        interruption.act(interruption.fixture);
    bool found = __real_index_next(cursor, entry);
    if (now && interruption.after)
        interruption.act(interruption.fixture);
    return found;
}

/* ---- writing without waiting ----------------------------------------------------------------------------------- */

static void put_now(struct store_fixture *fixture, const char *key, size_t value_bytes)
{
    struct engine_result result;
    assert_int_equal(store_try_now(fixture, ENGINE_PUT, key, value_bytes, &result), ENGINE_DONE);
    assert_int_equal(result.error, KVS_ERR_OK);
}

static unsigned shards; /* of the store */

/* Keys of no interest, of shard 0 and in the upper half of the buckets. */
static void name_filler(char key[32], unsigned i)
{
    uint64_t spread = (i + 1) * 0x9E3779B97F4A7C15ull / shards & ~63ull;
    snprintf(key, 32, "#%" PRIx64 ":", spread | (32 + i % 32));
}

static enum engine_answer try_filler(struct store_fixture *fixture, enum engine_action action, unsigned i,
                                     size_t value_bytes)
{
    char key[32];
    struct engine_result result;
    name_filler(key, i);
    enum engine_answer answer = store_try_now(fixture, action, key, value_bytes, &result);
    if (answer == ENGINE_DONE)
        assert_int_equal(result.error, KVS_ERR_OK);
    return answer;
}

static void put_filler(struct store_fixture *fixture, unsigned *next, size_t value_bytes)
{
    assert_int_equal(try_filler(fixture, ENGINE_PUT, (*next)++, value_bytes), ENGINE_DONE);
    engine_turn(fixture->nodes[0].shard);
    store_quiet();
}

/* ---- what is in RAM -------------------------------------------------------------------------------------------- */

/* A machine of its own, and on it a new store, at rest, with four images a shard. Returns the store's options. */
static struct engine_options create_scarce(struct store_fixture *fixture, uint64_t seed, unsigned shard_count)
{
    sim_create(seed);
    struct engine_options options = store_options(shard_count);
    shards = shard_count;
    options.memory_bytes = (uint64_t)shard_count * 6 * SEGMENT_BYTES;
    store_boot(fixture, &options);
    store_quiet();
    return options;
}

static bool segment_resident(const struct store_fixture *fixture, uint32_t number)
{
    return segment_image(segment_get(&store_shard_zero(fixture)->store->segments, number)) != NULL;
}

/* Writes a key and tells in which segment. */
static uint32_t put_into(struct store_fixture *fixture, const char *key)
{
    put_now(fixture, key, 8);
    return store_shard_zero(fixture)->log.open->number;
}

static void fill_until_cold(struct store_fixture *fixture, unsigned *next, uint32_t number)
{
    while (segment_resident(fixture, number))
        put_filler(fixture, next, LARGE_BYTES);
}

/* The next roll-over will evict the image of `number`, and not before. */
static bool evicted_next(const struct store_shard *shard, uint32_t number)
{
    const struct image_pool *images = &shard->store->keeper.images;
    const struct list *node = images->resident.next;
    const struct segment *oldest = container_of(node, const struct segment, image_link);
    while (segment_state(oldest) != SEGMENT_SEALED && node->next != &images->resident) {
        node = node->next;
        oldest = container_of(node, const struct segment, image_link);
    }
    return oldest->number == number && segment_state(oldest) == SEGMENT_SEALED && shard->log.spare != NULL &&
           images->free_count == 0 && atomic_load(&images->count) == images->count_max;
}

static void fill_until_evicted_next(struct store_fixture *fixture, unsigned *next, uint32_t number)
{
    while (!evicted_next(store_shard_zero(fixture), number))
        put_filler(fixture, next, LARGE_BYTES);
    assert_true(segment_resident(fixture, number));
}

/* The shard has opened its spare; the background begins to make the next, for which the oldest image has to go. */
static void begin_next_segment(struct store_fixture *fixture)
{
    engine_turn(fixture->nodes[0].shard);
    engine_background_turn(fixture->background);
}

/* Opens the last segment there is, without giving the shard a turn in which it could make another. */
static void roll_over(struct store_fixture *fixture, unsigned *next)
{
    const struct store_shard *shard = store_shard_zero(fixture);
    while (shard->log.spare != NULL)
        assert_int_equal(try_filler(fixture, ENGINE_PUT, (*next)++, MEDIUM_BYTES), ENGINE_DONE);
}

/* Fills the log so that not even a delete finds room, and nothing more can be done without another segment. */
static void fill_to_the_brim(struct store_fixture *fixture, unsigned *next)
{
    roll_over(fixture, next);
    unsigned first = *next;
    while (try_filler(fixture, ENGINE_PUT, *next, SMALL_BYTES) == ENGINE_DONE)
        (*next)++;
    while (try_filler(fixture, ENGINE_PUT, *next, 0) == ENGINE_DONE)
        (*next)++;
    while (try_filler(fixture, ENGINE_REMOVE, first, 0) == ENGINE_DONE)
        assert_true(++first < *next);
}

/* ---- what a blind overwrite leaves ----------------------------------------------------------------------------- */

/* Overwrites a key whose record is on disk only, while the read that would settle that fails: the older record stays
 * behind the new one. */
static uint32_t overwrite_unsettled(struct store_fixture *fixture, const char *key)
{
    const struct store_shard *shard = store_shard_zero(fixture);
    sim_fail(RING_KIND_READ, 1, EIO);
    sim_fail(RING_KIND_READ, 2, EIO);
    uint32_t segment = put_into(fixture, key);
    engine_turn(fixture->nodes[0].shard);
    store_quiet();
    sim_fail_none();
    assert_int_equal(shard->settling, 0);
    return segment;
}

static unsigned candidates(const struct store_fixture *fixture, const char *key)
{
    struct index_cursor cursor;
    struct index_entry entry;
    unsigned count = 0;
    index_find(store_shard_zero(fixture)->index, hash_key(slice_text(key), engine_hash_seed(fixture->engine)), &cursor);
    while (index_next(&cursor, &entry))
        count++;
    return count;
}

/* KEY's record stands behind one of OTHER, which is on disk only, and stays in RAM by being overwritten. */
static void put_behind_cold_other(struct store_fixture *fixture, unsigned *next)
{
    put_now(fixture, KEY, 8);
    uint32_t cold = put_into(fixture, OTHER);
    while (segment_resident(fixture, cold)) {
        put_filler(fixture, next, LARGE_BYTES);
        put_now(fixture, KEY, 8);
    }
}

/* ---- an operation that is given back --------------------------------------------------------------------------- */

static bool given_back;

static void give_back(struct engine_op *op)
{
    assert_true(op->result.found);
    engine_op_release(op);
    free(op);
    given_back = true;
}

static bool is_given_back(void *context)
{
    (void)context;
    return given_back;
}

/* The answer lies in RAM, behind a cold record of another key: after its disk read the operation ends in the midst of
 * the engine's own walk. */
static void test_store__operation_may_be_freed_when_it_is_done(void **state)
{
    (void)state;
    struct store_fixture fixture;
    unsigned next = 0;
    (void)create_scarce(&fixture, 1, 1);
    put_behind_cold_other(&fixture, &next);

    struct engine_op *op = calloc(1, sizeof *op);
    op->request = store_request(&fixture, ENGINE_GET, slice_text(KEY), slice_make(NULL, 0));
    op->done = give_back;
    given_back = false;
    engine_submit(fixture.nodes[0].shard, op);
    assert_false(given_back);
    assert_true(sim_run_until(is_given_back, NULL, 10000));
    store_stop(&fixture);
    sim_destroy();
}

/* ---- a record leaves RAM while a REMOVE waits ------------------------------------------------------------------ */

static void begin_remove(struct store_fixture *fixture, struct store_waiting *remove)
{
    struct engine_request request = store_request(fixture, ENGINE_REMOVE, slice_text(KEY), slice_make(NULL, 0));
    store_begin(fixture, remove, &request);
}

/* It has found the key. */
static void finish_remove(struct store_waiting *remove)
{
    store_finish(remove);
    assert_int_equal(remove->op.result.error, KVS_ERR_OK);
    assert_true(remove->op.result.found);
    free(remove->value);
}

static void expect_removed_for_good(struct store_fixture *fixture, const struct engine_options *options)
{
    store_quiet();
    store_expect(fixture, KEY, NULL);
    uint64_t keys = store_keys(fixture);
    store_crash(fixture, SIM_DROP_ALL);
    store_boot(fixture, options);
    store_expect(fixture, KEY, NULL);
    assert_int_equal(store_keys(fixture), keys);
}

/* The REMOVE waits for room; to make room, the very segment that holds the key's record is evicted. */
static void test_store__remove_finds_a_key_that_leaves_ram_while_it_waits_for_room(void **state)
{
    (void)state;
    struct store_fixture fixture;
    unsigned next = 0;
    struct engine_options options = create_scarce(&fixture, 2, 1);
    uint32_t segment = put_into(&fixture, KEY);
    fill_until_evicted_next(&fixture, &next, segment);
    fill_to_the_brim(&fixture, &next);

    struct store_waiting remove;
    begin_remove(&fixture, &remove);
    assert_false(remove.done);
    assert_true(segment_resident(&fixture, segment));
    begin_next_segment(&fixture);
    assert_false(segment_resident(&fixture, segment));
    finish_remove(&remove);
    expect_removed_for_good(&fixture, &options);
    store_stop(&fixture);
    sim_destroy();
}

/* The key's older record is read to be compared; meanwhile the segment with the newer one is evicted. */
static void test_store__remove_takes_the_newest_record_that_leaves_ram_while_it_reads(void **state)
{
    (void)state;
    struct store_fixture fixture;
    unsigned next = 0;
    struct engine_options options = create_scarce(&fixture, 3, 1);
    fill_until_cold(&fixture, &next, put_into(&fixture, KEY));
    uint32_t segment = overwrite_unsettled(&fixture, KEY);
    assert_int_equal(candidates(&fixture, KEY), 2);
    fill_until_evicted_next(&fixture, &next, segment);
    roll_over(&fixture, &next);

    struct store_waiting remove;
    begin_remove(&fixture, &remove);
    assert_false(remove.done);
    begin_next_segment(&fixture);
    assert_false(remove.done);
    assert_false(segment_resident(&fixture, segment));
    finish_remove(&remove);
    expect_removed_for_good(&fixture, &options);
    store_stop(&fixture);
    sim_destroy();
}

/*
 * KEY's older record stands, in RAM, behind a cold and unsettled one of OTHER, so that an overwrite of KEY is blind.
 * While that is settled, the older record leaves RAM: it must not be taken for one of another key.
 */
static void test_store__settling_finds_a_record_that_leaves_ram_while_it_reads(void **state)
{
    (void)state;
    struct store_fixture fixture;
    unsigned next = 0;
    struct engine_options options = create_scarce(&fixture, 4, 1);
    put_behind_cold_other(&fixture, &next);
    uint32_t unsettled = overwrite_unsettled(&fixture, OTHER);
    while (store_shard_zero(&fixture)->log.open->number == unsettled)
        put_filler(&fixture, &next, LARGE_BYTES);
    uint32_t older = put_into(&fixture, KEY);
    assert_int_equal(candidates(&fixture, KEY), 3);
    fill_until_cold(&fixture, &next, unsettled);
    fill_until_evicted_next(&fixture, &next, older);
    roll_over(&fixture, &next);

    put_now(&fixture, KEY, 8);
    assert_int_equal(store_shard_zero(&fixture)->settling, 1);
    begin_next_segment(&fixture);
    assert_false(segment_resident(&fixture, older));
    assert_int_equal(store_shard_zero(&fixture)->settling, 1);
    store_quiet();
    assert_int_equal(store_shard_zero(&fixture)->settling, 0);
    assert_int_equal(candidates(&fixture, KEY), 3);
    assert_true(store_remove_text(&fixture, KEY));
    expect_removed_for_good(&fixture, &options);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- a place is used again while a REMOVE waits ---------------------------------------------------------------- */

static struct index_entry entry_of(const struct store_fixture *fixture, const char *key, struct index_cursor *cursor)
{
    struct index_entry entry;
    index_find(store_shard_zero(fixture)->index, hash_key(slice_text(key), engine_hash_seed(fixture->engine)), cursor);
    while (index_next(cursor, &entry)) {
        engine_section_begin(fixture->nodes[0].shard);
        const struct record_header *record = store_resident(store_shard_zero(fixture)->store, entry.address);
        bool equal = record != NULL && record_has_key(record, slice_text(key));
        engine_section_end(fixture->nodes[0].shard);
        if (equal)
            return entry;
    }
    fail_msg("%s is not in RAM", key);
    return entry;
}

/* What an owner does with an entry of which compaction has made a copy. */
static void swing_by_hand(struct store_fixture *fixture, const char *key, struct index_cursor *cursor,
                          struct index_entry entry, uint64_t to)
{
    uint64_t from = entry.address;
    entry.address = to;
    index_replace(store_shard_zero(fixture)->index, cursor, &entry);
    store_wait_moved(store_shard_zero(fixture), hash_key(slice_text(key), engine_hash_seed(fixture->engine)), from, to);
}

/* A REMOVE of KEY waits for room, and knows the places of KEY and of NEIGHBOUR, whose hash is another. NEIGHBOUR moves
 * away, its segment is used again, and KEY's copy comes to lie where NEIGHBOUR was. */
static void test_store__remove_finds_a_key_that_moves_to_where_another_was(void **state)
{
    (void)state;
    struct store_fixture fixture;
    unsigned next = 0;
    (void)create_scarce(&fixture, 9, 1);
    put_into(&fixture, KEY);
    uint32_t segment = put_into(&fixture, NEIGHBOUR);
    fill_until_evicted_next(&fixture, &next, segment);
    fill_to_the_brim(&fixture, &next);
    struct index_cursor at_key, at_neighbour;
    struct index_entry key = entry_of(&fixture, KEY, &at_key);
    struct index_entry neighbour = entry_of(&fixture, NEIGHBOUR, &at_neighbour);

    struct store_waiting remove;
    begin_remove(&fixture, &remove);
    assert_false(remove.done);
    swing_by_hand(&fixture, NEIGHBOUR, &at_neighbour, neighbour, neighbour.address + 4096);
    swing_by_hand(&fixture, KEY, &at_key, key, neighbour.address);
    begin_next_segment(&fixture);
    finish_remove(&remove);
    store_crash(&fixture, SIM_DROP_ALL); /* no store goes on with an index that was changed by hand */
    sim_destroy();
}

/* ---- a record leaves RAM in the middle of a walk --------------------------------------------------------------- */

static uint8_t *images_taken[8];

static void take_images(struct store_fixture *fixture)
{
    const struct segment_table *table = &store_shard_zero(fixture)->store->segments;
    for (uint32_t i = 0; i < ARRAY_COUNT(images_taken); i++) {
        struct segment *segment = segment_get(table, i);
        images_taken[i] = segment == NULL ? NULL : atomic_exchange(&segment->image, NULL);
    }
}

static void bring_images_back(struct store_fixture *fixture)
{
    const struct segment_table *table = &store_shard_zero(fixture)->store->segments;
    for (uint32_t i = 0; i < ARRAY_COUNT(images_taken); i++) {
        if (images_taken[i] != NULL)
            atomic_store(&segment_get(table, i)->image, images_taken[i]);
    }
    memset(images_taken, 0, sizeof images_taken);
}

static uint32_t leaving; /* the segment that is evicted */

static void evict_leaving(struct store_fixture *fixture)
{
    struct store *store = store_shard_zero(fixture)->store;
    image_detach(&store->keeper.images, segment_get(&store->segments, leaving));
}

/* The background takes the record's image at any step of a REMOVE that the owner could answer at once. */
static void test_store__remove_finds_a_key_that_leaves_ram_while_it_looks(void **state)
{
    (void)state;
    for (unsigned step = 0; step < 16; step++) {
        struct store_fixture fixture;
        unsigned next = 0;
        struct engine_options options = create_scarce(&fixture, 8, 1);
        leaving = put_into(&fixture, KEY);
        fill_until_evicted_next(&fixture, &next, leaving);
        interruption = (struct interruption){1 + step / 2, step % 2 != 0, evict_leaving, &fixture};
        struct store_waiting remove;
        begin_remove(&fixture, &remove);
        finish_remove(&remove);
        interruption.countdown = 0;
        expect_removed_for_good(&fixture, &options);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* KEY belongs to shard 0; the reader's thread is another, which sends what it cannot answer to the owner. */
static void begin_foreign_get(struct store_fixture *fixture, struct store_waiting *get)
{
    memset(get, 0, sizeof *get);
    struct engine_shard *reader = fixture->nodes[1].shard;
    get->shard = fixture->nodes[0].shard;
    get->op.done = store_waiting_done;
    get->op.request = store_request(fixture, ENGINE_GET, slice_text(KEY), slice_make(NULL, 0));
    engine_section_begin(reader);
    enum engine_answer answer = engine_try_get(reader, 0, &get->op.request, &get->op.result);
    if (answer == ENGINE_DONE) {
        get->released = true;
        store_waiting_take(get);
    }
    engine_section_end(reader);
    if (answer == ENGINE_ASK_OWNER)
        engine_submit(get->shard, &get->op);
}

/* The owner evicts the segment after any step of a foreign reader's look-up. */
static void test_store__foreign_reader_finds_a_key_that_leaves_ram_while_it_looks(void **state)
{
    (void)state;
    for (unsigned steps = 1; steps <= 4; steps++) {
        sim_create(5);
        struct store_fixture fixture;
        struct engine_options options = store_options(2);
        shards = 2;
        store_boot(&fixture, &options);
        store_quiet();
        assert_int_equal(store_put_text(&fixture, KEY, "there"), KVS_ERR_OK);
        store_quiet();
        interruption = (struct interruption){steps, true, take_images, &fixture};
        struct store_waiting get;
        begin_foreign_get(&fixture, &get);
        store_finish(&get);
        interruption.countdown = 0;
        bring_images_back(&fixture);
        assert_int_equal(get.op.result.error, KVS_ERR_OK);
        assert_true(get.op.result.found);
        assert_int_equal(get.value_bytes, strlen("there"));
        free(get.value);
        store_stop(&fixture);
        sim_destroy();
    }
}

/* ---- entries change places in the middle of a walk ------------------------------------------------------------- */

/*
 * Leaves in KEY's bucket: a free slot, then OTHER in RAM, then KEY on disk. An overwrite of KEY will be blind and take
 * the free slot, which a reader who has met OTHER has behind him.
 */
static void put_key_behind_a_free_slot(struct store_fixture *fixture)
{
    unsigned next = 0;
    put_now(fixture, NEIGHBOUR, 8);
    fill_until_cold(fixture, &next, put_into(fixture, KEY));
    put_now(fixture, OTHER, 8);
    engine_turn(fixture->nodes[0].shard);
    store_quiet();
    assert_true(store_remove_text(fixture, NEIGHBOUR));
    store_quiet();
    assert_int_equal(candidates(fixture, KEY), 2);
}

static void overwrite_and_settle(struct store_fixture *fixture)
{
    put_now(fixture, KEY, 8);
    assert_int_equal(candidates(fixture, KEY), 3);
    engine_turn(fixture->nodes[0].shard);
    store_quiet();
    assert_int_equal(candidates(fixture, KEY), 2);
}

static bool is_done(void *context)
{
    return ((const struct store_waiting *)context)->done;
}

static struct store_waiting removal;

/* Stops where both of the key's entries have made room for the delete's, which is not durable yet. */
static void overwrite_and_remove(struct store_fixture *fixture)
{
    (void)overwrite_unsettled(fixture, KEY);
    assert_int_equal(candidates(fixture, KEY), 3);
    begin_remove(fixture, &removal);
    assert_true(sim_run_until(is_done, &removal, 10000));
    assert_int_equal(candidates(fixture, KEY), 2);
    assert_true(removal.gate > engine_durable(fixture->nodes[0].shard));
}

/* What the other thread makes of a GET by itself. */
static enum engine_answer try_foreign_get(const struct store_fixture *fixture)
{
    struct engine_request request = store_request(fixture, ENGINE_GET, slice_text(KEY), slice_make(NULL, 0));
    struct engine_shard *reader = fixture->nodes[1].shard;
    struct engine_result result;
    engine_section_begin(reader);
    enum engine_answer answer = engine_try_get(reader, 0, &request, &result);
    engine_section_end(reader);
    return answer;
}

static void test_store__foreign_reader_is_not_told_that_a_key_in_the_middle_of_settling_is_absent(void **state)
{
    (void)state;
    struct store_fixture fixture;
    (void)create_scarce(&fixture, 6, 2);
    put_key_behind_a_free_slot(&fixture);
    interruption = (struct interruption){2, false, overwrite_and_settle, &fixture};
    assert_int_equal(try_foreign_get(&fixture), ENGINE_ASK_OWNER);
    assert_int_equal(interruption.countdown, 0);
    store_stop(&fixture);
    sim_destroy();
}

/* A crash could take the delete back, so its owner alone may tell of it. */
static void test_store__foreign_reader_is_not_told_of_a_delete_that_is_not_durable(void **state)
{
    (void)state;
    struct store_fixture fixture;
    (void)create_scarce(&fixture, 7, 2);
    put_key_behind_a_free_slot(&fixture);
    interruption = (struct interruption){2, false, overwrite_and_remove, &fixture};
    enum engine_answer answer = try_foreign_get(&fixture);
    assert_int_equal(interruption.countdown, 0);
    finish_remove(&removal);
    assert_int_equal(answer, ENGINE_ASK_OWNER);
    store_stop(&fixture);
    sim_destroy();
}

/* ---- overwrites that wait -------------------------------------------------------------------------------------- */

/* Each overwrite of a cold key leaves a dead record that counts as live until a read has settled it. When as many are
 * being settled as may be, the next one waits for one of them, though the log has room. */
static void test_store__overwrites_of_cold_keys_wait_when_too_many_are_being_settled(void **state)
{
    (void)state;
    struct store_fixture fixture;
    unsigned next = 0;
    (void)create_scarce(&fixture, 10, 1);
    enum { COLD = STORE_SETTLING_MAX + 8 };
    char key[32];
    uint32_t last = 0;
    for (unsigned i = 0; i < COLD; i++) {
        snprintf(key, sizeof key, "cold:%u", i);
        last = put_into(&fixture, key);
        if (i % 64 == 0) {
            engine_turn(fixture.nodes[0].shard);
            store_quiet();
        }
    }
    fill_until_cold(&fixture, &next, last);
    const struct store_shard *shard = store_shard_zero(&fixture);
    static struct store_waiting puts[COLD];
    unsigned waiting = 0;
    for (unsigned i = 0; i < COLD; i++) {
        snprintf(key, sizeof key, "cold:%u", i);
        struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text(strdup(key)), slice_text("new"));
        store_begin(&fixture, &puts[i], &request);
        assert_true(shard->settling <= STORE_SETTLING_MAX);
        waiting += !puts[i].done;
    }
    assert_true(waiting > 0);
    assert_int_equal(shard->settling, STORE_SETTLING_MAX);
    for (unsigned i = 0; i < COLD; i++) {
        store_finish(&puts[i]);
        assert_int_equal(puts[i].op.result.error, KVS_ERR_OK);
        free((void *)(uintptr_t)puts[i].op.request.key.data);
        free(puts[i].value);
    }
    store_quiet();
    assert_int_equal(shard->settling, 0);
    for (unsigned i = 0; i < COLD; i++) {
        snprintf(key, sizeof key, "cold:%u", i);
        store_expect(&fixture, key, "new");
        assert_int_equal(candidates(&fixture, key), 1);
    }
    store_stop(&fixture);
    sim_destroy();
}

/* ---- room that only a reader holds back ------------------------------------------------------------------------ */

static void test_store__write_that_waits_for_room_goes_on_when_the_last_reader_has_gone(void **state)
{
    (void)state;
    struct store_fixture fixture;
    unsigned next = 0;
    (void)create_scarce(&fixture, 8, 2);
    fill_until_evicted_next(&fixture, &next, 0);
    /* From here on somebody reads, in a section that began before the next image was evicted. */
    engine_section_begin(fixture.nodes[1].shard);
    fill_to_the_brim(&fixture, &next);
    struct store_waiting put;
    struct engine_request request = store_request(&fixture, ENGINE_PUT, slice_text(KEY), slice_text("waits"));
    store_begin(&fixture, &put, &request);
    begin_next_segment(&fixture);
    for (unsigned i = 0; i < 1000; i++)
        sim_step();
    assert_false(put.done);
    engine_section_end(fixture.nodes[1].shard);
    /* Nothing else happens to this shard. */
    assert_true(sim_run_until(is_done, &put, 10000));
    store_finish(&put);
    assert_int_equal(put.op.result.error, KVS_ERR_OK);
    free(put.value);
    store_stop(&fixture);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__operation_may_be_freed_when_it_is_done),
        cmocka_unit_test(test_store__remove_finds_a_key_that_leaves_ram_while_it_waits_for_room),
        cmocka_unit_test(test_store__remove_takes_the_newest_record_that_leaves_ram_while_it_reads),
        cmocka_unit_test(test_store__settling_finds_a_record_that_leaves_ram_while_it_reads),
        cmocka_unit_test(test_store__remove_finds_a_key_that_moves_to_where_another_was),
        cmocka_unit_test(test_store__remove_finds_a_key_that_leaves_ram_while_it_looks),
        cmocka_unit_test(test_store__foreign_reader_finds_a_key_that_leaves_ram_while_it_looks),
        cmocka_unit_test(test_store__foreign_reader_is_not_told_that_a_key_in_the_middle_of_settling_is_absent),
        cmocka_unit_test(test_store__foreign_reader_is_not_told_of_a_delete_that_is_not_durable),
        cmocka_unit_test(test_store__overwrites_of_cold_keys_wait_when_too_many_are_being_settled),
        cmocka_unit_test(test_store__write_that_waits_for_room_goes_on_when_the_last_reader_has_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
