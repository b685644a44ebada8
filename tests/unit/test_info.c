/*
 * test_info.c - what INFO says: its sections, the figures of compaction, a background that has failed.
 */
#include "node_fixture.h"

#include "engine/store.h"
#include "node/info.h"

#include <errno.h>

enum { VALUE_BYTES = 4000, KEYS = 200 };

static uint64_t info_number(struct peer *peer, const char *section, const char *field)
{
    const char *value = peer_info(peer, section, field);
    if (value == NULL)
        fail_msg("no %s in section %s", field, section);
    return strtoull(value, NULL, 10);
}

/* Two decimals are shown. */
static bool is_near(double shown, double real)
{
    return shown > real - 0.01 && shown < real + 0.01;
}

static void ask_set(struct peer *peer, unsigned key, unsigned version)
{
    static uint8_t value[VALUE_BYTES];
    char name[16];
    snprintf(name, sizeof(name), "key%u", key);
    memset(value, (int)('a' + version % 26), sizeof(value));
    peer_ask(peer, (struct slice[]){slice_text("SET"), slice_text(name), slice_make(value, sizeof(value))}, 3);
}

/* ---- sections -------------------------------------------------------------------------------------------------- */

static void test_info__every_section_has_its_name_and_its_place(void **state)
{
    (void)state;
    static const char *const sections[] = {"Server",     "Clients",    "Memory",       "Persistence", "Compaction",
                                           "Checkpoint", "Stats",      "CPU",          "Replication", "Shards",
                                           "Keyspace",   "Errorstats", "Commandstats", "Latencystats"};
    struct node_fixture fixture;
    (void)fixture_create(&fixture, 1, 2);
    unsigned all = 0;
    for (size_t i = 0; i < ARRAY_COUNT(sections); i++) {
        unsigned section = info_section(slice_text(sections[i]));
        assert_true(is_power_of_two(section) && (all & section) == 0);
        all |= section;
        struct text text = {0};
        char title[32];
        info_write(fixture.node, fixture.main_ring, section, &text);
        snprintf(title, sizeof(title), "# %s\r\n", sections[i]);
        assert_true(text.size >= strlen(title) && memcmp(text.data, title, strlen(title)) == 0);
        assert_null(memmem(text.data + 1, text.size - 1, "# ", 2)); /* and no other */
        text_deinit(&text);
    }
    assert_int_equal(all, INFO_ALL);
    assert_int_equal(info_section(slice_text("all")), INFO_ALL);
    assert_int_equal(info_section(slice_text("DEFAULT")),
                     INFO_ALL - INFO_SHARDS - INFO_COMMANDSTATS - INFO_LATENCYSTATS);
    assert_int_equal(info_section(slice_text("nonesuch")), 0);
    fixture_end(&fixture);
}

/* ---- compaction ------------------------------------------------------------------------------------------------ */

static void test_info__figures_of_compaction_agree_with_each_other(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct node_fixture fixture;
        struct config config = fixture_config(threads);
        config.disk_bytes_max = 40ull * NODE_SEGMENT_BYTES;
        config.space_percent = 200;
        fixture_machine(10 + threads);
        fixture_start(&fixture, &config);
        struct peer *peer = peer_open(&fixture);
        for (unsigned round = 0; round < 20; round++) {
            for (unsigned i = 0; i < KEYS; i++)
                ask_set(peer, (unsigned)sim_random(KEYS), round);
            for (unsigned i = 0; i < KEYS; i++)
                peer_expect(peer, "+OK\r\n");
        }
        fixture_steps(20000);
        assert_int_equal(info_number(peer, "compaction", "compaction_running"), 0);
        assert_int_equal(info_number(peer, "compaction", "compaction_failed"), 0);
        assert_null(peer_info(peer, "compaction", "compaction_trouble"));
        assert_true(info_number(peer, "compaction", "compacted_segments") > 10);
        assert_true(info_number(peer, "compaction", "records_moved") > 0);
        double moved = (double)info_number(peer, "compaction", "compaction_written_bytes");
        double appended = (double)info_number(peer, "stats", "bytes_written");
        double shown = strtod(peer_info(peer, "compaction", "write_amplification"), NULL);
        assert_true(moved > 0 && shown > 1 && shown < 2.5);
        assert_true(is_near(shown, (appended + moved) / appended));

        uint64_t segments = info_number(peer, "persistence", "segments");
        uint64_t unused = info_number(peer, "persistence", "disk_free_segments");
        uint64_t live = info_number(peer, "persistence", "live_bytes");
        assert_int_equal(info_number(peer, "persistence", "disk_limit"), config.disk_bytes_max);
        assert_int_equal(info_number(peer, "persistence", "disk_bytes"), segments * NODE_SEGMENT_BYTES);
        assert_true(segments <= 40 && info_number(peer, "persistence", "disk_sealed_segments") + unused <= segments);
        /* It may be a quarter of a segment old. */
        assert_true(live > KEYS * VALUE_BYTES * 8 / 10 && live < KEYS * (VALUE_BYTES + 100) * 12 / 10);
        double used = (double)(segments - unused) * NODE_SEGMENT_BYTES;
        shown = strtod(peer_info(peer, "compaction", "space_amplification"), NULL);
        assert_true(is_near(shown, used / (double)live));
        peer_close(peer);
        fixture_stop(&fixture, false);

        /* A start finds the same out. */
        fixture_start(&fixture, &config);
        peer = peer_open(&fixture);
        live = info_number(peer, "persistence", "live_bytes");
        assert_true(live > KEYS * VALUE_BYTES * 8 / 10 && live < KEYS * (VALUE_BYTES + 100) * 12 / 10);
        assert_int_equal(info_number(peer, "compaction", "compacted_segments"), 0);
        peer_close(peer);
        fixture_stop(&fixture, true);
        fixture_machine_end();
    }
}

/* ---- failure --------------------------------------------------------------------------------------------------- */

static bool background_has_failed(void *context)
{
    struct engine_stats stats;
    engine_stats(context, &stats);
    return stats.background_failed == 1;
}

/* Nobody but the manifest writes at this moment. */
static void fail_manifest(struct node_fixture *fixture)
{
    fixture_steps(20000);
    struct store *store = container_of(fixture->node->engine, struct store, base);
    struct manifest_entry entry = {.number = 999, .state = MANIFEST_FREE};
    uint64_t ticket;
    assert_int_equal(manifest_change(store->keeper.manifest, &entry, &ticket), KVS_ERR_OK);
    sim_fail(RING_KIND_WRITE, 1, EIO);
    manifest_turn(store->keeper.manifest);
    assert_true(sim_run_until(background_has_failed, fixture->node->engine, NODE_STEPS_MAX));
}

static void test_info__a_background_that_has_failed_is_shown_and_named_in_refusals(void **state)
{
    (void)state;
    static const char cause[] = "cannot write a change to /data/manifest: ";
    for (unsigned threads = 1; threads <= 2; threads++) {
        struct node_fixture fixture;
        struct config config = fixture_create(&fixture, 20 + threads, threads);
        struct peer *peer = peer_open(&fixture);
        peer_say(peer, "SET", "old", "1", NULL);
        peer_expect(peer, "+OK\r\n");
        assert_int_equal(info_number(peer, "persistence", "background_failed"), 0);
        fail_manifest(&fixture);
        assert_int_equal(info_number(peer, "persistence", "background_failed"), 1);
        assert_int_equal(info_number(peer, "persistence", "failed_shards"), 0);
        fixture_steps(1000);
        assert_int_equal(info_number(peer, "compaction", "compaction_failed"), 1);
        const char *trouble = peer_info(peer, "compaction", "compaction_trouble");
        assert_non_null(trouble);
        assert_memory_equal(trouble, cause, strlen(cause));

        /* Writes go on in the segments that there are, then they are refused, with the cause. */
        unsigned accepted = 0;
        struct slice reply;
        do {
            assert_true(accepted < 1000);
            ask_set(peer, accepted++, 1);
            reply = peer_reply(peer);
        } while (slice_equal(reply, slice_text("+OK\r\n")));
        assert_true(accepted > 20);
        assert_int_equal(memcmp(reply.data, "-MISCONF kvs-node: shard ", 25), 0);
        assert_non_null(memmem(reply.data, reply.size, cause, strlen(cause)));
        assert_non_null(memmem(reply.data, reply.size, "Restart kvs-node", 16));
        peer_say(peer, "GET", "old", NULL);
        peer_expect(peer, "$1\r\n1\r\n");
        peer_close(peer);
        fixture_stop(&fixture, false);

        fixture_start(&fixture, &config);
        peer = peer_open(&fixture);
        assert_int_equal(info_number(peer, "persistence", "background_failed"), 0);
        peer_say(peer, "GET", "old", NULL);
        peer_expect(peer, "$1\r\n1\r\n");
        peer_close(peer);
        fixture_end(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info__every_section_has_its_name_and_its_place),
        cmocka_unit_test(test_info__figures_of_compaction_agree_with_each_other),
        cmocka_unit_test(test_info__a_background_that_has_failed_is_shown_and_named_in_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
