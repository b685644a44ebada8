/*
 * test_check.c - the offline checker on directories that are as they should be, with single damages in every kind of
 * place, and salvage. That it agrees with a start on random damage is test_check_damage.c's.
 */
#include "snapshot_fixture.h"

#include <errno.h>

enum { SEGMENT_BYTES = 256 * 1024, KEYS = 300, VALUE_BYTES = 1000 };

/* Keys 0..KEYS-1 in version 1, all of the first half again in version 2, every tenth removed: over several segments. */
static void fill(struct store_fixture *fixture)
{
    for (unsigned i = 0; i < KEYS; i++)
        segments_put(fixture, i, 1, VALUE_BYTES);
    for (unsigned i = 0; i < KEYS / 2; i++)
        segments_put(fixture, i, 2, VALUE_BYTES);
    for (unsigned i = 0; i < KEYS; i += 10)
        assert_true(segments_remove(fixture, i));
}

static void make_store(unsigned shard_count)
{
    struct store_fixture fixture;
    struct engine_options options = store_options(shard_count);
    store_boot(&fixture, &options);
    fill(&fixture);
    store_stop(&fixture);
    sim_crash(SIM_DROP_ALL);
}

/* The same, but killed: its log's last segment was not sealed. */
static void make_killed_store(unsigned shard_count)
{
    struct store_fixture fixture;
    struct engine_options options = store_options(shard_count);
    store_boot(&fixture, &options);
    fill(&fixture);
    store_crash(&fixture, SIM_DROP_ALL);
}

static void test_check__sound_store(void **state)
{
    (void)state;
    for (unsigned shards = 1; shards <= 3; shards++) {
        sim_create(shards);
        make_store(shards);
        struct check_fixture fixture;
        check_begin(&fixture, "/data", (struct check_options){0});
        const struct check_report *report = fixture.report;
        assert_int_equal(fixture.error, KVS_ERR_OK);
        assert_false(report->refused);
        assert_int_equal(report->damage_count, 0);
        assert_int_equal(report->keys, KEYS - KEYS / 10);
        assert_int_equal(report->deleted_keys, KEYS / 10);
        assert_int_equal(report->puts, KEYS + KEYS / 2);
        assert_int_equal(report->deletes, KEYS / 10);
        assert_int_equal(report->copies, 0);
        uint64_t live = 0;
        for (unsigned i = 0; i < KEYS; i++) {
            char key[32];
            segments_key(key, i);
            live += i % 10 == 0 ? 0 : record_bytes(strlen(key), VALUE_BYTES);
        }
        assert_int_equal(report->live_bytes, live);
        assert_true(report->record_bytes > live);
        assert_string_equal(report->engine, "kvs");
        assert_int_equal(report->segment_bytes, SEGMENT_BYTES);
        check_end(&fixture);
        sim_destroy();
    }
}

static void test_check__store_of_the_engine_memory(void **state)
{
    (void)state;
    sim_create(1);
    struct engine_options options = store_options(1);
    options.kind = "memory";
    struct store_fixture store;
    store_boot(&store, &options);
    store_stop(&store);
    check_expect_sound(0);
    sim_destroy();
}

static void test_check__what_is_no_store_cannot_be_checked(void **state)
{
    (void)state;
    sim_create(1);
    sim_file_put("/data/notes.txt", "x", 1);
    struct check_fixture fixture;
    check_begin(&fixture, "/data", (struct check_options){0});
    assert_int_equal(fixture.error, KVS_ERR_NOT_FOUND);
    check_end(&fixture);
    sim_destroy();
}

/* Whatever a power loss leaves is sound, also in the middle of compaction, and has the keys that a start finds. */
static void test_check__after_a_power_loss(void **state)
{
    (void)state;
    uint64_t torn = 0, copies = 0, unfinished = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        sim_create(seed);
        struct store_fixture fixture;
        struct engine_options options = segments_scarce(1 + (unsigned)(seed % 3));
        store_boot(&fixture, &options);
        store_compact(&fixture, 130);
        unsigned puts = 300 + (unsigned)sim_random(400);
        for (unsigned i = 0; i < puts; i++) {
            unsigned key = (unsigned)sim_random(100);
            if (sim_random(5) == 0)
                (void)segments_remove(&fixture, key);
            else
                segments_put(&fixture, key, i, 500 + sim_random(9000));
        }
        struct store_waiting waiting;
        struct engine_request request =
            store_request(&fixture, ENGINE_PUT, slice_text("last"), segments_value(1, 1, 30000));
        store_begin(&fixture, &waiting, &request);
        engine_turn(waiting.shard);
        for (uint64_t steps = sim_random(8); steps > 0 && sim_step(); steps--)
            ;
        store_crash(&fixture, SIM_RANDOM);
        if (waiting.done)
            free(waiting.value);

        struct check_fixture check;
        check_begin(&check, "/data", (struct check_options){0});
        if (check_refuses(&check))
            check_print(&check);
        assert_false(check_refuses(&check));
        uint64_t keys = check.report->keys;
        torn += check.report->torn_bytes > 0;
        copies += check.report->copies > 0;
        for (size_t i = 0; i < check.report->segment_count; i++)
            unfinished += check.report->segments[i].role == CHECK_UNFINISHED;
        check_end(&check);
        store_boot(&fixture, &options);
        assert_int_equal(store_keys(&fixture), keys);
        store_stop(&fixture);
        check_expect_sound(keys);
        sim_destroy();
    }
    assert_true(torn > 2 && copies > 5 && unfinished > 2);
}

/* ---- one damage ------------------------------------------------------------------------------------------------ */

/* The first damage of this severity, in the first boot after make_store; checks that there is one. */
static void expect_damage(const char *file, uint64_t offset, enum check_severity severity)
{
    struct check_fixture fixture;
    check_begin(&fixture, "/data", (struct check_options){0});
    assert_int_equal(fixture.error, KVS_ERR_OK);
    assert_int_equal(fixture.report->refused, severity == CHECK_REFUSED);
    assert_int_equal(fixture.report->damage_count, 1);
    const struct check_damage *damage = &fixture.report->damages[0];
    assert_string_equal(damage->file, file);
    assert_int_equal(damage->offset, offset);
    assert_int_equal(damage->severity, severity);
    check_end(&fixture);
}

/* Number of a sealed segment, or of one that was being written when the store was killed. */
static uint32_t number_of(enum check_role role)
{
    struct check_fixture fixture;
    uint32_t number = UINT32_MAX;
    check_begin(&fixture, "/data", (struct check_options){0});
    assert_int_equal(fixture.error, KVS_ERR_OK);
    for (size_t i = 0; i < fixture.report->segment_count; i++) {
        const struct check_segment *segment = &fixture.report->segments[i];
        if (number == UINT32_MAX && segment->role == role && segment->batches > 2)
            number = segment->number;
    }
    check_end(&fixture);
    assert_int_not_equal(number, UINT32_MAX);
    return number;
}

struct place {
    enum check_role role;
    uint64_t flip;   /* byte of the segment */
    uint64_t offset; /* to be named */
    enum check_severity severity;
};

static void test_check__damage_in_a_segment(void **state)
{
    (void)state;
    /* A segment of one shard begins with an empty boot batch, or with a record of VALUE_BYTES for each 4 KiB. */
    static const struct place places[] = {
        {CHECK_SEALED, 20, 0, CHECK_REFUSED},
        {CHECK_SEALED, 70, 70, CHECK_HARMLESS},
        {CHECK_SEALED, 3 * KVS_BLOCK_BYTES + 9, 3 * KVS_BLOCK_BYTES, CHECK_REFUSED},
        {CHECK_SEALED, 3 * KVS_BLOCK_BYTES + 64 + 5, 3 * KVS_BLOCK_BYTES + 64, CHECK_REFUSED},
        {CHECK_SEALED, 3 * KVS_BLOCK_BYTES + 64 + 200, 3 * KVS_BLOCK_BYTES + 64, CHECK_REFUSED},
        {CHECK_SEALED, 3 * KVS_BLOCK_BYTES + 4000, 3 * KVS_BLOCK_BYTES + 4000, CHECK_HARMLESS},
        {CHECK_SEALED, 3 * KVS_BLOCK_BYTES + 64 + 1031, 3 * KVS_BLOCK_BYTES + 64 + 1031, CHECK_HARMLESS},
        {CHECK_LOG, 30, 0, CHECK_REFUSED},
        {CHECK_LOG, 2 * KVS_BLOCK_BYTES + 9, 2 * KVS_BLOCK_BYTES, CHECK_REFUSED},
        {CHECK_LOG, 2 * KVS_BLOCK_BYTES + 64 + 80, 2 * KVS_BLOCK_BYTES + 64, CHECK_REFUSED},
    };
    for (unsigned i = 0; i < 2 * ARRAY_COUNT(places); i++) {
        bool covered = i % 2 == 1;
        const struct place *place = &places[i / 2];
        sim_create(3);
        if (place->role == CHECK_LOG)
            make_killed_store(1);
        else
            make_store(1);
        if (!covered)
            assert_true(store_forget_runs() > 0);
        char name[SEGMENT_NAME_BYTES], path[64];
        segment_name(name, number_of(place->role), "");
        snprintf(path, sizeof path, "/data/%s", name);
        sim_file_flip(path, place->flip * 8 + 2);
        /* A start that goes by runs does not read what is sealed. */
        bool unseen = covered && place->role == CHECK_SEALED && place->severity == CHECK_REFUSED && place->offset > 0;
        expect_damage(name, place->offset, unseen ? CHECK_UNSEEN : place->severity);
        sim_destroy();
    }
}

static uint64_t bytes_read(void)
{
    struct check_fixture fixture;
    check_begin(&fixture, "/data", (struct check_options){0});
    assert_int_equal(fixture.error, KVS_ERR_OK);
    assert_false(fixture.report->refused);
    assert_int_equal(fixture.report->damage_count, 0);
    const uint64_t bytes = fixture.report->bytes_read;
    check_end(&fixture);
    return bytes;
}

/* It is read, and what is wrong with it is no reason for anything. */
static void test_check__snapshot_of_the_indexes(void **state)
{
    (void)state;
    sim_create(4);
    struct store_fixture store;
    struct engine_options options = store_options(2);
    store_boot(&store, &options);
    fill(&store);
    store_stop(&store);
    struct snapshot_bytes snapshot = snapshot_load();
    const uint64_t with = bytes_read();
    assert_true(store_forget_snapshot());
    assert_int_equal(with - bytes_read(), snapshot.size);

    const uint64_t tables = snapshot.layout.tables;
    const struct {
        uint64_t flip, offset;
    } places[] = {{3, 0},
                  {100, 0},
                  {SNAPSHOT_HEADER_BYTES - 1, 0},
                  {SNAPSHOT_HEADER_BYTES + 77, SNAPSHOT_HEADER_BYTES},
                  {tables - 1, SNAPSHOT_HEADER_BYTES + snapshot.shards[0].page_count * INDEX_PAGE_BYTES},
                  {tables, tables},
                  {snapshot.size - 1, tables}};
    for (unsigned i = 0; i < ARRAY_COUNT(places); i++) {
        snapshot_put(&snapshot);
        sim_file_flip(STORE_SNAPSHOT, places[i].flip * 8 + i);
        expect_damage(SNAPSHOT_NAME, places[i].offset, CHECK_HARMLESS);
    }
    const uint64_t sizes[] = {0, 100, SNAPSHOT_HEADER_BYTES, tables, snapshot.size - 1};
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        sim_file_put(STORE_SNAPSHOT, snapshot.bytes, sizes[i]);
        expect_damage(SNAPSHOT_NAME, 0, CHECK_HARMLESS);
    }
    snapshot.header->store_uuid[0] ^= 1;
    snapshot_seal(&snapshot);
    snapshot_put(&snapshot);
    expect_damage(SNAPSHOT_NAME, 0, CHECK_HARMLESS);
    snapshot_free(&snapshot);
    sim_destroy();
}

static void test_check__files_that_are_missing_or_cut_short(void **state)
{
    (void)state;
    static const enum check_role roles[] = {CHECK_SEALED, CHECK_LOG};
    for (unsigned i = 0; i < 2 * ARRAY_COUNT(roles); i++) {
        sim_create(3);
        if (roles[i / 2] == CHECK_LOG)
            make_killed_store(1);
        else
            make_store(1);
        char name[SEGMENT_NAME_BYTES], path[64];
        segment_name(name, number_of(roles[i / 2]), "");
        snprintf(path, sizeof path, "/data/%s", name);
        struct check_fixture fixture;
        if (i % 2 == 0)
            sim_file_remove(path);
        else
            sim_file_truncate(path, 10 * KVS_BLOCK_BYTES + 100);
        check_begin(&fixture, "/data", (struct check_options){0});
        assert_true(fixture.report->refused);
        assert_string_equal(fixture.report->damages[0].file, name);
        if (i % 2 == 1)
            assert_int_equal(fixture.report->damages[0].offset, 10 * KVS_BLOCK_BYTES + 100);
        check_end(&fixture);
        sim_destroy();
    }
}

static void test_check__superblock(void **state)
{
    (void)state;
    sim_create(3);
    make_store(1);
    sim_file_flip("/data/superblock", 40 * 8);
    expect_damage(SUPERBLOCK_NAME, 0, CHECK_HARMLESS);
    sim_file_flip("/data/superblock", (KVS_BLOCK_BYTES + 60) * 8);
    struct check_fixture fixture;
    check_begin(&fixture, "/data", (struct check_options){0});
    assert_true(fixture.report->refused);
    assert_int_equal(fixture.report->damage_count, 2);
    assert_true(fixture.report->identity_guessed); /* and the records are found all the same */
    assert_int_equal(fixture.report->keys, KEYS - KEYS / 10);
    check_end(&fixture);
    sim_file_remove("/data/superblock");
    check_begin(&fixture, "/data", (struct check_options){0});
    assert_true(fixture.report->refused);
    assert_int_equal(fixture.report->keys, KEYS - KEYS / 10);
    check_end(&fixture);
    sim_destroy();
}

static void test_check__manifest(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 3; way++) {
        sim_create(3);
        make_store(1);
        if (way == 0)
            sim_file_flip("/data/" MANIFEST_NAME, 100 * 8); /* of the snapshot */
        else if (way == 1)
            sim_file_flip("/data/" MANIFEST_NAME, (KVS_BLOCK_BYTES + 100) * 8); /* of the first change */
        else
            sim_file_remove("/data/" MANIFEST_NAME);
        struct check_fixture fixture;
        check_begin(&fixture, "/data", (struct check_options){0});
        assert_true(fixture.report->refused);
        assert_string_equal(fixture.report->damages[0].file, MANIFEST_NAME);
        assert_int_equal(fixture.report->damages[0].offset,
                         way == 0 ? 0 : (way == 1 ? KVS_BLOCK_BYTES : CHECK_UNKNOWN));
        assert_int_equal(fixture.report->keys, KEYS - KEYS / 10);
        check_end(&fixture);
        sim_destroy();
    }
}

/* Leftovers of what was being made are neither damage nor touched (check_begin looks). */
static void test_check__unfinished_files_are_left_alone(void **state)
{
    (void)state;
    sim_create(3);
    make_store(1);
    sim_file_put("/data/manifest.new", "half", 4);
    sim_file_put("/data/000000.seg.new", "probe", 5);
    sim_file_put("/data/000077.seg.new", "segment", 7);
    sim_file_put("/data/notes.txt", "x", 1);
    check_expect_sound(KEYS - KEYS / 10);
    sim_destroy();
}

static void test_check__block_that_the_disk_does_not_give(void **state)
{
    (void)state;
    sim_create(3);
    make_store(1);
    (void)store_forget_runs();
    /* One read for the superblock, two for the manifest: the fourth is all of a segment. That fails; then, block by
     * block, the third. */
    sim_fail(RING_KIND_READ, 4, EIO);
    sim_fail(RING_KIND_READ, 7, EIO);
    struct check_fixture fixture;
    check_begin(&fixture, "/data", (struct check_options){0});
    assert_true(fixture.report->refused);
    assert_int_equal(fixture.report->damages[0].offset, 2 * KVS_BLOCK_BYTES);
    assert_non_null(strstr(fixture.report->damages[0].what, "does not give 1 block"));
    check_end(&fixture);
    sim_destroy();
}

/* ---- records --------------------------------------------------------------------------------------------------- */

struct seen {
    unsigned puts, deletes, segments;
    uint32_t last_segment;
};

static void see(void *context, const struct check_record *record)
{
    struct seen *seen = context;
    seen->puts += record->put;
    seen->deletes += !record->put;
    seen->segments += seen->puts + seen->deletes == 1 || record->segment != seen->last_segment;
    seen->last_segment = record->segment;
    unsigned key;
    char text[32] = "";
    assert_true(record->key.size < sizeof text);
    memcpy(text, record->key.data, record->key.size);
    assert_int_equal(sscanf(text, "key:%u", &key), 1);
    if (record->put)
        assert_true(slice_equal(record->value, segments_value(key, 1, VALUE_BYTES)) ||
                    slice_equal(record->value, segments_value(key, 2, VALUE_BYTES)));
}

static void test_check__every_record_is_shown(void **state)
{
    (void)state;
    sim_create(3);
    make_store(2);
    struct seen seen = {0};
    struct check_fixture fixture;
    check_begin(&fixture, "/data", (struct check_options){.each = see, .context = &seen});
    assert_int_equal(seen.puts, KEYS + KEYS / 2);
    assert_int_equal(seen.deletes, KEYS / 10);
    assert_true(seen.segments >= 3);
    check_end(&fixture);

    const uint32_t one = number_of(CHECK_SEALED);
    seen = (struct seen){0};
    check_begin(&fixture, "/data",
                (struct check_options){.each = see, .context = &seen, .numbers = &one, .number_count = 1});
    assert_int_equal(fixture.error, KVS_ERR_OK);
    assert_int_equal(seen.segments, 1);
    assert_int_equal(seen.last_segment, one);
    check_end(&fixture);

    const uint32_t none = 4711;
    check_begin(&fixture, "/data",
                (struct check_options){.each = see, .context = &seen, .numbers = &none, .number_count = 1});
    assert_int_equal(fixture.error, KVS_ERR_NOT_FOUND);
    check_end(&fixture);
    sim_destroy();
}

/* ---- salvage --------------------------------------------------------------------------------------------------- */

/* Salvages /data into /out, checks that, and boots it. */
static void salvage(struct store_fixture *store, uint64_t *keys)
{
    struct check_fixture fixture;
    struct check_salvaged done;
    char message[CHECK_MESSAGE_BYTES];
    check_begin(&fixture, "/data", (struct check_options){0});
    enum kvs_err err = check_salvage(fixture.check, "/out", &done, message);
    if (err != KVS_ERR_OK)
        print_error("%s\n", message);
    assert_int_equal(err, KVS_ERR_OK);
    assert_int_equal(done.lost, 0);
    assert_int_equal(done.keys, fixture.report->keys);
    check_end(&fixture);
    check_begin(&fixture, "/out", (struct check_options){0});
    assert_false(check_refuses(&fixture));
    assert_int_equal(fixture.report->keys, done.keys);
    check_end(&fixture);
    sim_crash(SIM_DROP_ALL);
    struct engine_options options = store_options(2);
    options.data_dir = "/out";
    store_boot(store, &options);
    *keys = done.keys;
    assert_int_equal(store_keys(store), done.keys);
}

static void expect_filled(struct store_fixture *store, unsigned except)
{
    for (unsigned i = 0; i < KEYS; i++) {
        if (i == except)
            continue;
        if (i % 10 == 0)
            segments_expect_none(store, i);
        else
            segments_expect(store, i, i < KEYS / 2 ? 2 : 1, VALUE_BYTES);
    }
}

static void expect_salvage_of_all(void)
{
    struct store_fixture store;
    uint64_t keys;
    salvage(&store, &keys);
    assert_int_equal(keys, KEYS - KEYS / 10);
    expect_filled(&store, KEYS);
    store_stop(&store);
}

static void test_check__salvage_of_a_sound_store(void **state)
{
    (void)state;
    sim_create(5);
    make_store(2);
    expect_salvage_of_all();
    sim_destroy();
}

/*
 * Behind damage every record counts that proves itself. What a start has cut was told to nobody, and that start has
 * shown that it is not there: it is gone from the file, too, and does not come back with a salvage.
 */
static void test_check__what_was_cut_is_not_salvaged(void **state)
{
    (void)state;
    sim_create(7);
    struct store_fixture store;
    struct engine_options options = store_options(1);
    store_boot(&store, &options);
    store_quiet();
    char path[64];
    store_segment_path(path, store_put_large(&store, 2));
    const uint64_t torn = align_down(store_shard_zero(&store)->log.tail, KVS_BLOCK_BYTES);
    store_put_now(&store, "torn", STORE_LARGE_BYTES);
    store_put_now(&store, "cut", 1);
    assert_int_equal(store_shard_zero(&store)->log.count, 2);
    store_crash(&store, SIM_KEEP_ALL);
    sim_file_flip(path, (torn + 20) * 8);
    store_boot(&store, &options);
    store_expect(&store, "torn", NULL);
    store_expect(&store, "cut", NULL);
    store_crash(&store, SIM_DROP_ALL);

    sim_file_flip(path, (2 * KVS_BLOCK_BYTES + 200) * 8); /* in the first of the large ones, behind the boot's batch */
    struct check_fixture fixture;
    struct check_salvaged done;
    char message[CHECK_MESSAGE_BYTES];
    check_begin(&fixture, "/data", (struct check_options){0});
    assert_true(check_refuses(&fixture));
    assert_int_equal(check_salvage(fixture.check, "/out", &done, message), KVS_ERR_OK);
    check_end(&fixture);
    sim_crash(SIM_DROP_ALL);
    options.data_dir = "/out";
    store_boot(&store, &options);
    assert_int_equal(store_keys(&store), 1);
    store_expect(&store, "torn", NULL);
    store_expect(&store, "cut", NULL);
    store_stop(&store);
    sim_destroy();
}

static void note_expiry(void *context, const struct check_record *record)
{
    uint64_t *latest = context;
    *latest = record->expires_ms > *latest ? record->expires_ms : *latest;
}

/* What has expired is no key, and does not come out; what has not keeps its time. */
static void test_check__expiry_counts_and_is_kept(void **state)
{
    (void)state;
    sim_create(6);
    struct store_fixture store;
    struct engine_options options = store_options(1);
    store_boot(&store, &options);
    uint64_t soon_ms = expiry_now_ms(&store) + 20000, late_ms = soon_ms + 20000;
    for (unsigned i = 0; i < 30; i++) {
        segments_put(&store, i, 1, VALUE_BYTES);
        if (i % 3 > 0)
            expiry_put_key(&store, i, 2, VALUE_BYTES, i % 3 == 1 ? soon_ms : late_ms);
    }
    store_crash(&store, SIM_DROP_ALL);
    struct check_fixture fixture;
    uint64_t latest = 0;
    check_begin(&fixture, "/data", (struct check_options){.each = note_expiry, .context = &latest});
    assert_int_equal(latest, late_ms);
    assert_int_equal(fixture.report->damage_count, 0);
    assert_int_equal(fixture.report->keys, 30);
    assert_int_equal(fixture.report->expiring_keys, 20);
    assert_int_equal(fixture.report->expired_keys, 0);
    check_end(&fixture);

    sim_advance(20000ull * 1000000);
    check_begin(&fixture, "/data", (struct check_options){0});
    assert_int_equal(fixture.report->keys, 20);
    assert_int_equal(fixture.report->expiring_keys, 10);
    assert_int_equal(fixture.report->expired_keys, 10);
    assert_int_equal(fixture.report->deleted_keys, 0);
    check_end(&fixture);
    uint64_t keys;
    salvage(&store, &keys);
    assert_int_equal(keys, 20);
    for (unsigned i = 0; i < 30; i++) {
        if (i % 3 == 1)
            segments_expect_none(&store, i);
        else
            segments_expect(&store, i, i % 3 == 0 ? 1 : 2, VALUE_BYTES);
    }
    assert_int_equal(expiry_try_get(&store, "key:2").expires_ms, late_ms);
    expiry_advance_to(&store, late_ms);
    segments_expect_none(&store, 2);
    store_stop(&store);
    sim_destroy();
}

struct wanted {
    unsigned key, version;
    uint32_t segment, offset;
    bool put;
};

static void find(void *context, const struct check_record *record)
{
    struct wanted *wanted = context;
    char key[32];
    segments_key(key, wanted->key);
    if (!slice_equal(record->key, slice_text(key)) || record->put != wanted->put)
        return;
    if (record->put && !slice_equal(record->value, segments_value(wanted->key, wanted->version, VALUE_BYTES)))
        return;
    wanted->segment = record->segment;
    wanted->offset = record->offset;
}

/* The record of one key is damaged: its older version comes out, or a deleted one, or nothing. All others are whole,
 * also those behind the damage. */
static void test_check__salvage_goes_behind_the_damage(void **state)
{
    (void)state;
    static const struct wanted records[] = {{.key = 17, .version = 2, .put = true},
                                            {.key = KEYS - 1, .version = 1, .put = true},
                                            {.key = 20, .put = false}};
    for (unsigned i = 0; i < ARRAY_COUNT(records); i++) {
        struct wanted wanted = records[i];
        sim_create(5);
        make_store(1);
        struct check_fixture fixture;
        check_begin(&fixture, "/data", (struct check_options){.each = find, .context = &wanted});
        check_end(&fixture);
        assert_true(wanted.offset > 0);
        char path[64];
        store_segment_path(path, wanted.segment);
        sim_file_flip(path, (wanted.offset + 25) * 8);
        check_begin(&fixture, "/data", (struct check_options){0});
        assert_int_equal(fixture.report->damages[0].records_max, 1);
        assert_int_equal(fixture.report->damages[0].lsn_first, fixture.report->damages[0].lsn_last);
        assert_int_equal(fixture.report->damages[0].offset, wanted.offset);
        assert_true(fixture.report->rescued > 0 || wanted.key == 20);
        check_end(&fixture);

        struct store_fixture store;
        uint64_t keys;
        salvage(&store, &keys);
        expect_filled(&store, wanted.key);
        if (i == 0)
            segments_expect(&store, 17, 1, VALUE_BYTES);
        else if (i == 1)
            segments_expect_none(&store, KEYS - 1);
        else
            segments_expect(&store, 20, 2, VALUE_BYTES);
        store_stop(&store);
        sim_destroy();
    }
}

static void test_check__salvage_without_superblock_and_manifest(void **state)
{
    (void)state;
    sim_create(5);
    make_store(2);
    sim_file_remove("/data/superblock");
    sim_file_remove("/data/" MANIFEST_NAME);
    expect_salvage_of_all();
    sim_destroy();
}

static enum kvs_err try_salvage(const char *out_dir)
{
    struct check_fixture fixture;
    struct check_salvaged done;
    char message[CHECK_MESSAGE_BYTES];
    check_begin(&fixture, "/data", (struct check_options){0});
    enum kvs_err err = check_salvage(fixture.check, out_dir, &done, message);
    if (err != KVS_ERR_OK)
        assert_true(message[0] != '\0');
    check_end(&fixture);
    return err;
}

static void test_check__salvage_that_cannot_be(void **state)
{
    (void)state;
    sim_create(5);
    make_store(1);
    sim_file_put("/full/notes.txt", "x", 1);
    assert_int_equal(try_salvage("/full"), KVS_ERR_EXISTS);
    assert_int_equal(try_salvage("/data"), KVS_ERR_EXISTS);
    sim_set_disk_size(sim_disk_used() + SEGMENT_BYTES + 100 * KVS_BLOCK_BYTES);
    assert_int_equal(try_salvage("/out"), KVS_ERR_NO_SPACE);
    sim_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check__sound_store),
        cmocka_unit_test(test_check__store_of_the_engine_memory),
        cmocka_unit_test(test_check__what_is_no_store_cannot_be_checked),
        cmocka_unit_test(test_check__after_a_power_loss),
        cmocka_unit_test(test_check__damage_in_a_segment),
        cmocka_unit_test(test_check__snapshot_of_the_indexes),
        cmocka_unit_test(test_check__files_that_are_missing_or_cut_short),
        cmocka_unit_test(test_check__superblock),
        cmocka_unit_test(test_check__manifest),
        cmocka_unit_test(test_check__unfinished_files_are_left_alone),
        cmocka_unit_test(test_check__block_that_the_disk_does_not_give),
        cmocka_unit_test(test_check__every_record_is_shown),
        cmocka_unit_test(test_check__salvage_of_a_sound_store),
        cmocka_unit_test(test_check__what_was_cut_is_not_salvaged),
        cmocka_unit_test(test_check__expiry_counts_and_is_kept),
        cmocka_unit_test(test_check__salvage_goes_behind_the_damage),
        cmocka_unit_test(test_check__salvage_without_superblock_and_manifest),
        cmocka_unit_test(test_check__salvage_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
