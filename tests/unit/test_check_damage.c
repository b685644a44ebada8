/*
 * test_check_damage.c - random damage: the checker says that a start would refuse the store exactly when a start does,
 * counts the keys that a start finds, changes nothing, and salvages nothing that was never written.
 *
 * Some stores are made once, with everything that a directory can have in it: sealed and open segments of several
 * boots, segments that compaction has written, finished and not, free files. Each trial damages one of them in one or
 * two places, asks both, and puts it back.
 */
#include "check_fixture.h"

enum { STORES = 6, KEYS = 120, VERSIONS = 4000, LARGE_KEYS = 3, LARGE_BYTES = 200000 };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { TRIALS = 60, FORGETFUL = 30, GAPS = 10 };
#else
enum { TRIALS = 480, FORGETFUL = 150, GAPS = 40 };
#endif

/* The size of the value of each version of each key; 0: a delete or nothing. */
static uint16_t sizes[KEYS][VERSIONS];

static void make_store(struct kept_files *kept, uint64_t seed)
{
    sim_create(seed);
    memset(sizes, 0, sizeof sizes);
    struct store_fixture fixture;
    unsigned version = 1;
    for (unsigned boot = 0; boot < 3; boot++) {
        struct engine_options options = segments_scarce(1 + (unsigned)sim_random(3));
        store_boot(&fixture, &options);
        if (boot > 0)
            store_compact(&fixture, 130);
        unsigned count = 150 + (unsigned)sim_random(250);
        for (unsigned i = 0; i < count; i++, version++) {
            unsigned key = (unsigned)sim_random(KEYS);
            if (sim_random(6) == 0) {
                (void)segments_remove(&fixture, key);
                continue;
            }
            sizes[key][version] = (uint16_t)(20 + sim_random(12000));
            segments_put(&fixture, key, version, sizes[key][version]);
        }
        if (boot + 1 < 3 && sim_random(2) == 0)
            store_stop(&fixture);
        else
            store_crash(&fixture, sim_random(2) == 0 ? SIM_KEEP_ALL : SIM_RANDOM);
    }
    assert_true(version < VERSIONS);
    sim_crash(SIM_DROP_ALL);
    sim_rot_accept();
    kept_save(kept);
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

static const char *kinds[] = {"flip", "flip in a head", "zeros", "a block astray", "cut short", "gone", "old bytes"};

/* Where something stands, most often. */
static uint64_t some_offset(const struct kept_file *file)
{
    uint64_t used = file->size;
    while (used > KVS_BLOCK_BYTES && file->bytes[used - 1] == 0)
        used--;
    return sim_random(sim_random(8) == 0 ? file->size : used);
}

static const struct kept_file *some_file(const struct kept_files *kept)
{
    for (;;) {
        const struct kept_file *file = &kept->files[sim_random(kept->count)];
        bool small = strstr(file->path, ".seg") == NULL;
        if (file->size > 0 && (!small || sim_random(3) == 0))
            return file;
    }
}

static void damage(const struct kept_files *kept, char *story, size_t size)
{
    static uint8_t block[KVS_BLOCK_BYTES];
    const struct kept_file *file = some_file(kept);
    const struct kept_file *other = some_file(kept);
    unsigned kind = (unsigned)sim_random(ARRAY_COUNT(kinds));
    uint64_t at = some_offset(file), head = align_down(at, KVS_BLOCK_BYTES);
    if (!sim_file_exists(file->path) || sim_file_size(file->path) < head + KVS_BLOCK_BYTES)
        return;
    memset(block, 0, sizeof block);
    switch (kind) {
    case 0:
        sim_file_flip(file->path, at * 8 + sim_random(8));
        break;
    case 1:
        at = head + sim_random(64);
        sim_file_flip(file->path, at * 8 + sim_random(8));
        break;
    case 2:
        sim_file_overwrite(file->path, head, block, sizeof block);
        break;
    case 3:
        at = align_down(some_offset(other), KVS_BLOCK_BYTES);
        if (other->size < at + KVS_BLOCK_BYTES)
            return;
        sim_file_overwrite(file->path, head, other->bytes + at, sizeof block);
        break;
    case 4:
        sim_file_truncate(file->path, at);
        break;
    case 5:
        sim_file_remove(file->path);
        break;
    default:
        at = align_down(some_offset(file), KVS_BLOCK_BYTES);
        sim_file_overwrite(file->path, at, file->bytes + head,
                           file->size - at < KVS_BLOCK_BYTES ? file->size - at : KVS_BLOCK_BYTES);
        break;
    }
    size_t used = strlen(story);
    snprintf(story + used, size - used, "%s: %s at %llu; ", file->path, kinds[kind], (unsigned long long)at);
}

/* ---- what comes of it ------------------------------------------------------------------------------------------ */

/* Everything that comes out was written once, and to that key. */
static void see_written(void *context, const struct check_record *record)
{
    char text[32] = "";
    unsigned key, version;
    unsigned *records = context;
    ++*records;
    assert_true(record->key.size < sizeof text);
    memcpy(text, record->key.data, record->key.size);
    assert_int_equal(sscanf(text, "key:%u", &key), 1);
    if (!record->put)
        return;
    char value[32] = "";
    unsigned key_there;
    memcpy(value, record->value.data, record->value.size < 31 ? record->value.size : 31);
    assert_int_equal(sscanf(value, "%u.%u.", &key_there, &version), 2);
    assert_int_equal(key_there, key);
    assert_true(version < VERSIONS && sizes[key][version] == record->value.size);
    assert_true(slice_equal(record->value, segments_value(key, version, record->value.size)));
}

/* Salvages what there is into another directory each time, and tells how many keys. False: not one segment has its
 * header. */
static bool salvage_into(char out[32], uint64_t *keys)
{
    static unsigned times;
    struct check_fixture fixture;
    struct check_salvaged done;
    char message[CHECK_MESSAGE_BYTES];
    snprintf(out, 32, "/out%u", times++);
    check_begin(&fixture, "/data", (struct check_options){0});
    assert_int_equal(fixture.error, KVS_ERR_OK);
    enum kvs_err err = check_salvage(fixture.check, out, &done, message);
    *keys = fixture.report->keys;
    check_end(&fixture);
    if (err == KVS_ERR_INVALID)
        return false;
    if (err != KVS_ERR_OK)
        fail_msg("%s", message);
    assert_int_equal(done.keys, *keys);
    return true;
}

static void salvage(void)
{
    char out[32];
    uint64_t keys;
    if (!salvage_into(out, &keys))
        return;
    struct check_fixture fixture;
    unsigned records = 0;
    check_begin(&fixture, out, (struct check_options){.each = see_written, .context = &records});
    assert_int_equal(fixture.error, KVS_ERR_OK);
    assert_int_equal(fixture.report->damage_count, 0);
    assert_int_equal(fixture.report->keys, keys);
    assert_int_equal(records, keys);
    check_end(&fixture);
}

/* What is salvaged has so many keys, and this version of this key. */
static void salvage_with(uint64_t keys, unsigned key, unsigned version)
{
    char out[32];
    uint64_t salvaged;
    assert_true(salvage_into(out, &salvaged));
    assert_int_equal(salvaged, keys);
    struct store_fixture store;
    struct engine_options options = store_options(1);
    options.data_dir = out;
    store_boot(&store, &options);
    segments_expect(&store, key, version, LARGE_BYTES);
    store_stop(&store);
}

struct tally {
    unsigned refused, accepted, unseen, noted, salvaged;
};

static void try_one(const struct kept_files *kept, struct tally *tally)
{
    char story[512] = "";
    for (uint64_t count = 1 + sim_random(2); count > 0; count--)
        damage(kept, story, sizeof story);
    struct check_fixture check;
    unsigned records = 0;
    check_begin(&check, "/data", (struct check_options){.each = see_written, .context = &records});
    bool refused = check_refuses(&check);
    uint64_t keys = check.error == KVS_ERR_OK ? check.report->keys : 0;
    bool unseen = false;
    for (size_t i = 0; check.error == KVS_ERR_OK && i < check.report->damage_count; i++) {
        unseen = unseen || check.report->damages[i].severity == CHECK_UNSEEN;
        tally->noted += check.report->damages[i].severity == CHECK_HARMLESS;
    }
    if (refused && check.error == KVS_ERR_OK && sim_random(4) == 0) {
        check_end(&check);
        salvage();
        tally->salvaged++;
        check_begin(&check, "/data", (struct check_options){0});
    }

    struct store_fixture store;
    struct engine_options options = segments_scarce(2);
    enum kvs_err err = store_try_boot(&store, &options);
    bool gone = err == KVS_ERR_OK && check.error == KVS_ERR_NOT_FOUND; /* all of it: a start makes a new store */
    if ((err != KVS_ERR_OK) != refused && !gone) {
        check_print(&check);
        fail_msg("a start %s (%s), the checker thinks otherwise, after: %s", err == KVS_ERR_OK ? "goes on" : "refuses",
                 store.message, story);
    }
    tally->refused += refused;
    tally->accepted += !refused;
    tally->unseen += unseen;
    if (err == KVS_ERR_OK) {
        if (!unseen && !gone && store_keys(&store) != keys)
            fail_msg("a start finds %llu keys, the checker %llu, after: %s", (unsigned long long)store_keys(&store),
                     (unsigned long long)keys, story);
        store_stop(&store);
    }
    sim_crash(SIM_DROP_ALL);
    /* Rings and directory of the check went with the crash. */
    if (check.check != NULL)
        check_close(check.check);
    kept_restore(kept);
}

static void test_check__agrees_with_a_start(void **state)
{
    (void)state;
    struct tally tally = {0};
    for (uint64_t seed = 1; seed <= STORES; seed++) {
        static struct kept_files kept;
        make_store(&kept, seed);
        for (unsigned i = 0; i < TRIALS / STORES; i++)
            try_one(&kept, &tally);
        kept_free(&kept);
        sim_destroy();
    }
    print_message("%u refused, %u not, %u unseen, %u notes, %u salvaged\n", tally.refused, tally.accepted, tally.unseen,
                  tally.noted, tally.salvaged);
    assert_true(tally.refused > TRIALS / 4 && tally.accepted > TRIALS / 8);
    assert_true(tally.noted > TRIALS / 90 && tally.salvaged > TRIALS / 40);
}

/* ---- the last change of the manifest --------------------------------------------------------------------------- */

/* Zeros the last block of the manifest, if it is the one that takes segment `number` into use. */
static bool forget_last_change(uint32_t number, uint64_t sequence)
{
    static uint8_t block[KVS_BLOCK_BYTES];
    const struct manifest_block *head = (const void *)block;
    const struct manifest_entry *entries = (const void *)(head + 1);
    uint64_t at = 0;
    do {
        if (at >= sim_file_size("/data/" MANIFEST_NAME))
            return false;
        sim_file_read("/data/" MANIFEST_NAME, at, block, sizeof block);
        at += KVS_BLOCK_BYTES;
    } while (head->sequence != sequence);
    bool takes = false;
    for (uint32_t i = 0; head->index >= head->snapshot_blocks && i < head->count; i++)
        takes = takes || (entries[i].number == number && entries[i].state == MANIFEST_LIVE);
    memset(block, 0, sizeof block);
    if (takes)
        sim_file_overwrite("/data/" MANIFEST_NAME, at - KVS_BLOCK_BYTES, block, sizeof block);
    return takes;
}

/*
 * Each record takes a segment of its own. The log goes on in a file that had been free, and before anything else is
 * entered the power fails. If the disk then
 * loses the block that took the file into use, the manifest lists it as free, a start does not read it, and nothing
 * else tells of what is in it. The checker looks.
 */
static void test_check__file_taken_into_use_by_a_lost_change_is_noticed(void **state)
{
    (void)state;
    unsigned tried = 0;
    for (uint64_t seed = 1; seed <= FORGETFUL; seed++) {
        struct store_fixture fixture;
        struct engine_options options = segments_create(&fixture, seed, 1);
        store_compact(&fixture, 130);
        const struct store_shard *shard = store_shard_of(fixture.nodes[0].shard);
        unsigned count = 20 + (unsigned)(seed % 10);
        for (unsigned i = 0; i < count; i++)
            segments_put(&fixture, i % LARGE_KEYS, i, LARGE_BYTES);
        uint64_t sequence = manifest_sequence(segments_keeper(&fixture)->manifest);
        uint32_t number = shard->log.open->number;
        store_crash(&fixture, SIM_DROP_ALL);
        if (!forget_last_change(number, sequence)) {
            sim_destroy();
            continue;
        }
        tried++;
        struct check_fixture check;
        check_begin(&check, "/data", (struct check_options){0});
        assert_int_equal(check.error, KVS_ERR_OK);
        assert_true(check.report->damage_count > 0);
        assert_true(check_refuses(&check));
        assert_int_equal(check.report->keys, LARGE_KEYS);
        check_end(&check);
        salvage_with(LARGE_KEYS, (count - 1) % LARGE_KEYS, count - 1);
        assert_int_equal(store_try_boot(&fixture, &options), KVS_ERR_CORRUPT);
        sim_destroy();
    }
    print_message("%u tried\n", tried);
    assert_true(tried > 0);
}

/* ---- what only all files together tell ------------------------------------------------------------------------- */

/* Both refuse, because of this segment. */
static void expect_refused(uint32_t number, const char *what)
{
    struct check_fixture check;
    check_begin(&check, "/data", (struct check_options){0});
    assert_int_equal(check.error, KVS_ERR_OK);
    assert_true(check.report->refused);
    assert_int_equal(check.report->damage_count, 1);
    char name[SEGMENT_NAME_BYTES];
    segment_name(name, number, "");
    assert_string_equal(check.report->damages[0].file, name);
    assert_non_null(strstr(check.report->damages[0].what, what));
    check_end(&check);
    struct store_fixture fixture;
    struct engine_options options = segments_scarce(1);
    assert_int_equal(store_try_boot(&fixture, &options), KVS_ERR_CORRUPT);
}

/* Zeros all batches of a segment from `offset` on. */
static void forget_batches(uint32_t number, uint64_t offset)
{
    static const uint8_t zeros[KVS_BLOCK_BYTES];
    char path[64];
    store_segment_path(path, number);
    for (uint64_t at = offset; at < sim_file_size(path); at += sizeof zeros)
        sim_file_overwrite(path, at, zeros, sizeof zeros);
}

/* The log has gone on in a second segment before the first was entered as sealed, and all of that is gone. */
static void test_check__gap_between_two_segments(void **state)
{
    (void)state;
    unsigned tried = 0;
    for (uint64_t seed = 1; seed <= GAPS; seed++) {
        struct store_fixture fixture;
        (void)segments_create(&fixture, seed, 1);
        const struct store_shard *shard = store_shard_of(fixture.nodes[0].shard);
        for (unsigned i = 0; i < 4; i++)
            segments_put(&fixture, i, 1, LARGE_BYTES);
        uint32_t second = shard->log.open->number;
        store_crash(&fixture, SIM_DROP_ALL);
        struct check_fixture check;
        check_begin(&check, "/data", (struct check_options){0});
        uint32_t first = second;
        for (size_t i = 0; i < check.report->segment_count; i++) {
            const struct check_segment *segment = &check.report->segments[i];
            if (segment->role == CHECK_LOG && segment->puts > 0 && segment->number != second)
                first = segment->number;
        }
        check_end(&check);
        if (first != second) {
            tried++;
            forget_batches(first, KVS_BLOCK_BYTES);
            expect_refused(second, "are in no segment");
        }
        sim_destroy();
    }
    assert_true(tried > 3);
}

/* A start has gone on behind what it has found, and noted how far that was. All of the rest is gone, without a trace.
 */
static void test_check__segment_that_once_was_longer(void **state)
{
    (void)state;
    sim_create(1);
    struct store_fixture fixture;
    struct engine_options options = segments_scarce(1);
    for (unsigned boot = 0; boot < 2; boot++) {
        store_boot(&fixture, &options);
        for (unsigned i = 0; i < 5; i++)
            segments_put(&fixture, i, boot, 3900);
        uint32_t number = store_shard_of(fixture.nodes[0].shard)->log.open->number;
        store_crash(&fixture, SIM_DROP_ALL);
        if (boot == 1) {
            forget_batches(number, (uint64_t)3 * KVS_BLOCK_BYTES);
            expect_refused(number, "an earlier start has found the end not before");
        }
    }
    sim_destroy();
}

/* The manifest is older than a segment. */
static void test_check__segment_that_the_manifest_does_not_know(void **state)
{
    (void)state;
    struct store_fixture fixture;
    (void)segments_create(&fixture, 1, 1);
    segments_put(&fixture, 1, 1, 3900);
    uint32_t number = store_shard_of(fixture.nodes[0].shard)->log.open->number;
    store_crash(&fixture, SIM_DROP_ALL);

    struct superblock superblock;
    sim_file_read("/data/superblock", 0, &superblock, sizeof superblock);
    char message[ENGINE_MESSAGE_BYTES];
    struct ring *ring;
    struct manifest_options wanted = {.dir_name = "/data", .store_uuid = superblock.uuid, .direct = true};
    struct ring_options ring_options = {.entries = 64};
    assert_int_equal(ring_open(&ring, &ring_options, message), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(ring, "/data", &wanted.dir_fd), KVS_ERR_OK);
    wanted.ring = ring;
    struct manifest *manifest;
    assert_int_equal(manifest_open(&manifest, &wanted, message), KVS_ERR_OK);
    const struct manifest_entry gone = {.number = number, .state = MANIFEST_GONE};
    assert_int_equal(manifest_set(manifest, &gone), KVS_ERR_OK);
    assert_int_equal(manifest_write(manifest, message), KVS_ERR_OK);
    manifest_close(manifest, ring);
    ring_close(ring);
    expect_refused(number, "the manifest does not list it");
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check__agrees_with_a_start),
        cmocka_unit_test(test_check__file_taken_into_use_by_a_lost_change_is_noticed),
        cmocka_unit_test(test_check__gap_between_two_segments),
        cmocka_unit_test(test_check__segment_that_once_was_longer),
        cmocka_unit_test(test_check__segment_that_the_manifest_does_not_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
