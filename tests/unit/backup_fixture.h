/*
 * backup_fixture.h - a store that is backed up, the copy as a store of its own beside it, and a client whose operations
 * follow one another, so that a copy must hold exactly what came before some point of its history.
 */
#ifndef KVS_TESTS_BACKUP_FIXTURE_H
#define KVS_TESTS_BACKUP_FIXTURE_H

#include "check_fixture.h"

enum { BACKUP_KEYS = 150, BACKUP_HISTORY_MAX = 20000 };

#define BACKUP_PATH "/data/backups/one"

/* ---- a history ------------------------------------------------------------------------------------------------- */

struct backup_history {
    struct backup_change {
        uint16_t key;
        uint32_t version; /* 0: deleted */
    } changes[BACKUP_HISTORY_MAX];
    unsigned count;            /* acknowledged */
    uint32_t now[BACKUP_KEYS]; /* after all of them */
    uint32_t version;
};

static inline size_t backup_value_bytes(unsigned key, uint32_t version)
{
    return key % 11 == 0 ? 14000 + version % 4 * 3000 : 300 + (key * 37 + version * 101) % 3500;
}

/* A machine of its own with a new store that has little space, and nothing in it. Returns its options, to boot it
 * again. */
static inline struct engine_options backup_new_store(struct store_fixture *fixture, struct backup_history *history,
                                                     uint64_t seed, unsigned shard_count, bool links)
{
    sim_create(seed);
    sim_set_links(links);
    memset(history, 0, sizeof *history);
    struct engine_options options = segments_scarce(shard_count);
    store_boot(fixture, &options);
    return options;
}

/* One operation, acknowledged when it returns. */
static inline void backup_change(struct store_fixture *fixture, struct backup_history *history)
{
    assert_true(history->count < BACKUP_HISTORY_MAX);
    unsigned key = (unsigned)sim_random(BACKUP_KEYS);
    uint32_t version = sim_random(4) == 0 ? 0 : ++history->version;
    if (version == 0)
        assert_int_equal(segments_remove(fixture, key), history->now[key] != 0);
    else
        segments_put(fixture, key, version, backup_value_bytes(key, version));
    history->changes[history->count++] = (struct backup_change){(uint16_t)key, version};
    history->now[key] = version;
}

/* The version of the key in a store; what it holds must be the whole of it. */
static inline uint32_t backup_version_of(struct store_fixture *fixture, unsigned key)
{
    char name[32];
    segments_key(name, key);
    char *value = store_get_text(fixture, name);
    if (value == NULL)
        return 0;
    const char *dot = strchr(value, '.');
    assert_non_null(dot);
    uint32_t version = (uint32_t)strtoul(dot + 1, NULL, 10);
    free(value);
    segments_expect(fixture, key, version, backup_value_bytes(key, version));
    return version;
}

static inline void backup_expect_now(struct store_fixture *fixture, const struct backup_history *history)
{
    unsigned keys = 0;
    for (unsigned key = 0; key < BACKUP_KEYS; key++) {
        assert_int_equal(backup_version_of(fixture, key), history->now[key]);
        keys += history->now[key] != 0;
    }
    assert_int_equal(store_keys(fixture), keys);
}

/* The store must hold what the first n changes have made, for an n of first…last; the history is cut there. */
static inline void backup_expect_prefix(struct store_fixture *fixture, struct backup_history *history, unsigned first,
                                        unsigned last)
{
    uint32_t found[BACKUP_KEYS];
    uint32_t state[BACKUP_KEYS] = {0};
    unsigned wrong = 0;
    for (unsigned key = 0; key < BACKUP_KEYS; key++) {
        found[key] = backup_version_of(fixture, key);
        wrong += found[key] != 0;
    }
    for (unsigned n = 0; n <= last; n++) {
        if (n > 0) {
            const struct backup_change *change = &history->changes[n - 1];
            wrong -= state[change->key] != found[change->key];
            state[change->key] = change->version;
            wrong += state[change->key] != found[change->key];
        }
        if (n < first || wrong > 0)
            continue;
        history->count = n;
        memcpy(history->now, state, sizeof state);
        backup_expect_now(fixture, history);
        return;
    }
    fail_msg("the copy is no state between %u and %u changes", first, last);
}

/* ---- keys in turn ---------------------------------------------------------------------------------------------- */

/* Records of one size, written by one shard: what is in its log is what was put first. */
enum { BACKUP_TURN_KEYS = 1000, BACKUP_TURN_BYTES = 3900, BACKUP_TURN_AT_ONCE = 16 };

/* The next keys, each in its turn, with a few under way at a time. Returns how many there were in all. */
static inline unsigned backup_put_turns(struct store_fixture *fixture, unsigned done)
{
    static struct store_waiting waiting[BACKUP_TURN_AT_ONCE];
    static uint8_t values[BACKUP_TURN_AT_ONCE][BACKUP_TURN_BYTES];
    static char keys[BACKUP_TURN_AT_ONCE][32];
    for (unsigned i = 0; i < BACKUP_TURN_AT_ONCE; i++, done++) {
        const unsigned key = done % BACKUP_TURN_KEYS;
        segments_key(keys[i], key);
        memcpy(values[i], segments_value(key, done / BACKUP_TURN_KEYS, BACKUP_TURN_BYTES).data, BACKUP_TURN_BYTES);
        struct engine_request request =
            store_request(fixture, ENGINE_PUT, slice_text(keys[i]), slice_make(values[i], BACKUP_TURN_BYTES));
        store_begin(fixture, &waiting[i], &request);
    }
    for (unsigned i = 0; i < BACKUP_TURN_AT_ONCE; i++) {
        store_finish(&waiting[i]);
        assert_int_equal(waiting[i].op.result.error, KVS_ERR_OK);
        free(waiting[i].value);
    }
    return done;
}

static inline unsigned backup_turn_of(struct store_fixture *fixture, unsigned key)
{
    char name[32];
    segments_key(name, key);
    char *value = store_get_text(fixture, name);
    assert_non_null(value);
    unsigned turn = (unsigned)strtoul(strchr(value, '.') + 1, NULL, 10);
    free(value);
    return turn;
}

/* The copy has the first n puts, for an n of first…last, which is more than one turn. */
static inline void backup_expect_turns(struct store_fixture *copy, unsigned first, unsigned last)
{
    unsigned n = backup_turn_of(copy, 0) * BACKUP_TURN_KEYS + 1;
    while (n < last && backup_turn_of(copy, n % BACKUP_TURN_KEYS) == n / BACKUP_TURN_KEYS)
        n++;
    assert_in_range(n, first, last);
    for (unsigned i = 0; i < BACKUP_TURN_KEYS; i++)
        segments_expect(copy, i, (n - 1 - i) / BACKUP_TURN_KEYS, BACKUP_TURN_BYTES);
    assert_int_equal(store_keys(copy), BACKUP_TURN_KEYS);
}

/* ---- backups --------------------------------------------------------------------------------------------------- */

static inline struct engine_backup_state backup_state_of(const struct store_fixture *fixture)
{
    struct engine_backup_state state;
    engine_backup_state(fixture->engine, &state);
    return state;
}

static inline void backup_ask_for(struct store_fixture *fixture, const char *name)
{
    assert_int_equal(engine_backup_begin(fixture->engine, name, fixture->nodes[0].ring), KVS_ERR_OK);
    assert_true(backup_state_of(fixture).running);
    engine_turn(fixture->nodes[0].shard);
    ring_turn(fixture->nodes[0].ring, 0); /* the wake-up leaves */
}

static inline bool backup_has_ended(void *context)
{
    return !backup_state_of(context).running;
}

static inline struct engine_backup_state backup_await(struct store_fixture *fixture)
{
    assert_true(sim_run_until(backup_has_ended, fixture, 1000000));
    return backup_state_of(fixture);
}

static inline void backup_make(struct store_fixture *fixture, const char *name)
{
    backup_ask_for(fixture, name);
    struct engine_backup_state state = backup_await(fixture);
    if (state.error != KVS_ERR_OK)
        fail_msg("%s", state.text);
}

/* A store on the copy, with another number of shards maybe. */
static inline void backup_boot(struct store_fixture *copy, const char *path, unsigned shard_count)
{
    struct engine_options options = segments_scarce(shard_count);
    options.data_dir = path;
    store_boot(copy, &options);
}

/* The checker finds nothing to complain of. */
static inline void backup_expect_sound(const char *path)
{
    struct check_fixture fixture;
    check_begin(&fixture, path, (struct check_options){0});
    if (check_refuses(&fixture) || fixture.report->damage_count > 0)
        check_print(&fixture);
    assert_int_equal(fixture.error, KVS_ERR_OK);
    assert_false(fixture.report->refused);
    assert_int_equal(fixture.report->damage_count, 0);
    assert_int_equal(fixture.report->torn_bytes, 0);
    check_end(&fixture);
}

#endif
