/*
 * test_store_random.c - random work for a store, boot after boot, held against a model: reads see what was written
 * before them, what was acknowledged or shown survives every crash, what was deleted stays away, keys are counted
 * right. Hashes of few bits in two of three runs, so that keys collide; linked with --wrap=hash_key.
 *
 * One seed decides everything. KVS_SEEDS=FROM..TO runs other seeds than the few it runs by itself.
 */
#include "store_fixture.h"

enum {
    SEEDS = 40, /* by itself */
    BOOTS = 6,
    KEYS = 400,
    HOT_KEYS = 20,
    UNDER_WAY_MAX = 200,
    OUTCOMES_MAX = 1024,
    VALUE_BYTES_MAX = 50000,
};

/* ---- hashes ---------------------------------------------------------------------------------------------------- */

uint64_t __real_hash_key(struct slice key, uint64_t seed);
uint64_t __wrap_hash_key(struct slice key, uint64_t seed);

static uint64_t hash_mask;

uint64_t __wrap_hash_key(struct slice key, uint64_t seed)
{
    return __real_hash_key(key, seed) & hash_mask;
}

/* ---- the model ------------------------------------------------------------------------------------------------- */

/* What a write makes of a key: the value of its version, or nothing. */
struct outcome {
    unsigned version; /* of all writes of the run, from 1; 0 = there never was one */
    bool present;
};

struct model {
    struct outcome now; /* after all writes that were given to the store */
    unsigned given;     /* writes */
    unsigned pending;   /* writes that were given and are not done */
    /* What a restart may find: the latest outcome that is known to be durable, and all that were given after it. */
    struct outcome possible[OUTCOMES_MAX];
    unsigned possible_count;
};

static struct model models[KEYS];
static unsigned versions;

static struct outcome model_write(struct model *model, bool present)
{
    assert_true(model->possible_count < OUTCOMES_MAX);
    model->now = (struct outcome){.version = ++versions, .present = present};
    model->possible[model->possible_count++] = model->now;
    model->given++;
    model->pending++;
    return model->now;
}

/* From now on no crash may go back behind this outcome. */
static void model_durable(struct model *model, unsigned version)
{
    for (unsigned i = 0; i < model->possible_count; i++) {
        if (model->possible[i].version != version)
            continue;
        model->possible_count -= i;
        memmove(model->possible, model->possible + i, model->possible_count * sizeof model->possible[0]);
        return;
    }
}

/* A restart has found this; it is all there is now. False when it may not be so. */
static bool model_restart(struct model *model, bool present, unsigned version)
{
    struct outcome found = {0};
    bool allowed = false;
    for (unsigned i = 0; i < model->possible_count; i++) {
        const struct outcome *outcome = &model->possible[i];
        if (outcome->present != present || (present && outcome->version != version))
            continue;
        found = *outcome;
        allowed = true;
    }
    *model = (struct model){.now = found, .possible = {found}, .possible_count = 1};
    return allowed;
}

static uint64_t models_live(void)
{
    uint64_t live = 0;
    for (unsigned i = 0; i < KEYS; i++)
        live += models[i].now.present;
    return live;
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

struct stamp {
    unsigned key, version;
};

/* Mostly small, a few of several blocks. `value` has room for VALUE_BYTES_MAX. */
static size_t make_value(uint8_t *value, struct stamp stamp)
{
    size_t size = 16 + stamp.version * 2654435761u / 128 % 900;
    if (stamp.version % 50 == 0)
        size = 20000 + stamp.version % 30000;
    memset(value, 'a' + (int)(stamp.version % 26), size);
    memcpy(value, &stamp, sizeof stamp);
    return size;
}

/* The version whose value this is, whole and of this key. */
static unsigned check_value(unsigned key, struct slice value)
{
    static uint8_t expected[VALUE_BYTES_MAX];
    struct stamp stamp;
    assert_true(value.size >= sizeof stamp);
    memcpy(&stamp, value.data, sizeof stamp);
    assert_int_equal(stamp.key, key);
    assert_int_equal(make_value(expected, stamp), value.size);
    assert_memory_equal(expected, value.data, value.size);
    return stamp.version;
}

/* ---- operations ------------------------------------------------------------------------------------------------ */

struct operation {
    struct engine_op op;
    struct list alive;          /* in `under_way` */
    struct list link;           /* in `gated` */
    struct engine_shard *shard; /* whose gate it waits for */
    unsigned key;
    char name[32];
    uint8_t *value;
    struct outcome before; /* of the key, when the operation was given */
    struct outcome after;
    bool raced;            /* other writes of the key were pending then … */
    unsigned given_before; /* … of so many in all */
};

static struct store_fixture fixture;
static struct list under_way;
static unsigned under_way_count;
static struct list gated; /* done, but not durable yet */

static void operation_free(struct operation *operation)
{
    list_remove(&operation->alive);
    under_way_count--;
    free(operation->value);
    free(operation);
}

static void check_foreign_get(const struct operation *operation)
{
    const struct engine_result *result = &operation->op.result;
    struct model *model = &models[operation->key];
    if (result->error == KVS_ERR_AGAIN)
        return;
    assert_int_equal(result->error, KVS_ERR_OK);
    assert_int_equal(result->gate, 0);
    unsigned version = result->found ? check_value(operation->key, result->value) : 0;
    /* With a write under way it may see either side of it. */
    bool sure = !operation->raced && model->given == operation->given_before;
    if (sure && (result->found != model->now.present || (result->found && version != model->now.version)))
        fail_msg("a foreign reader finds version %u of key %u instead of %u", version, operation->key,
                 model->now.present ? model->now.version : 0);
    if (!operation->op.request.relaxed && (sure || result->found))
        model_durable(model, sure ? model->now.version : version);
}

static void check_result(const struct operation *operation)
{
    const struct engine_result *result = &operation->op.result;
    const struct outcome *before = &operation->before;
    assert_int_equal(result->error, KVS_ERR_OK);
    if (operation->op.request.action == ENGINE_PUT)
        return;
    if (result->found != before->present)
        fail_msg("%s finds %s of key %u, whose version is %u",
                 operation->op.request.action == ENGINE_GET ? "GET" : "REMOVE", result->found ? "something" : "nothing",
                 operation->key, before->present ? before->version : 0);
    if (operation->op.request.action == ENGINE_GET && result->found)
        assert_int_equal(check_value(operation->key, result->value), before->version);
}

/* The result may be shown: no crash can take back what it tells. */
static void shown(struct operation *operation)
{
    if (!operation->op.request.relaxed)
        model_durable(&models[operation->key], operation->after.version);
    operation_free(operation);
}

/* The owner's result is there and was checked. */
static void answered(struct operation *operation)
{
    if (operation->op.request.action != ENGINE_GET)
        models[operation->key].pending--;
    if (operation->op.result.gate == 0)
        shown(operation);
    else
        list_push_back(&gated, &operation->link);
}

static void owner_done(struct engine_op *op)
{
    struct operation *operation = container_of(op, struct operation, op);
    check_result(operation);
    engine_op_release(op);
    answered(operation);
}

static void open_gates(void)
{
    for (struct list *node = gated.next, *next; node != &gated; node = next) {
        struct operation *operation = container_of(node, struct operation, link);
        next = node->next;
        if (engine_durable(operation->shard) < operation->op.result.gate)
            continue;
        list_remove(node);
        shown(operation);
    }
}

static struct operation *operation_new(enum engine_action action)
{
    struct operation *operation = calloc(1, sizeof *operation);
    assert_non_null(operation);
    list_push_back(&under_way, &operation->alive);
    under_way_count++;
    operation->key = (unsigned)sim_random(sim_random(3) == 0 ? HOT_KEYS : KEYS);
    snprintf(operation->name, sizeof operation->name, "key%u", operation->key);
    struct model *model = &models[operation->key];
    operation->before = model->now;
    operation->given_before = model->given;
    operation->raced = model->pending > 0;
    size_t size = 0;
    if (action != ENGINE_GET)
        model_write(model, action == ENGINE_PUT);
    operation->after = model->now;
    if (action == ENGINE_PUT) {
        operation->value = malloc(VALUE_BYTES_MAX);
        size = make_value(operation->value, (struct stamp){operation->key, model->now.version});
    }
    operation->op.request =
        store_request(&fixture, action, slice_text(operation->name), slice_make(operation->value, size));
    operation->op.request.relaxed = sim_random(8) == 0;
    return operation;
}

static void give_to_owner(struct operation *operation, unsigned owner)
{
    struct engine_op *op = &operation->op;
    struct engine_shard *shard = fixture.nodes[owner].shard;
    operation->shard = shard;
    op->done = owner_done;
    engine_section_begin(shard);
    enum engine_answer answer = engine_try(shard, &op->request, &op->result);
    if (answer == ENGINE_DONE) {
        check_result(operation);
        answered(operation);
    }
    engine_section_end(shard);
    if (answer == ENGINE_MUST_WAIT)
        engine_submit(shard, op);
}

static void give_to_reader(struct operation *operation, unsigned owner, unsigned reader)
{
    struct engine_op *op = &operation->op;
    struct engine_shard *shard = fixture.nodes[reader].shard;
    engine_section_begin(shard);
    enum engine_answer answer = engine_try_get(shard, owner, &op->request, &op->result);
    if (answer == ENGINE_DONE)
        check_foreign_get(operation);
    engine_section_end(shard);
    if (answer == ENGINE_DONE)
        operation_free(operation);
    else
        give_to_owner(operation, owner);
}

static void give_one(void)
{
    static const enum engine_action actions[] = {ENGINE_PUT,    ENGINE_PUT,    ENGINE_PUT, ENGINE_PUT, ENGINE_PUT,
                                                 ENGINE_REMOVE, ENGINE_REMOVE, ENGINE_GET, ENGINE_GET, ENGINE_GET};
    enum engine_action action = actions[sim_random(ARRAY_COUNT(actions))];
    struct operation *operation = operation_new(action);
    unsigned owner = store_owner(&fixture, &operation->op.request);
    unsigned reader = (unsigned)sim_random(fixture.shard_count);
    if (action == ENGINE_GET && reader != owner)
        give_to_reader(operation, owner, reader);
    else
        give_to_owner(operation, owner);
}

/* ---- boots ----------------------------------------------------------------------------------------------------- */

static void check_after_boot(void)
{
    for (unsigned i = 0; i < KEYS; i++) {
        char name[32];
        snprintf(name, sizeof name, "key%u", i);
        struct store_waiting get;
        struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(name), slice_make(NULL, 0));
        store_execute(&fixture, &get, &request);
        assert_int_equal(get.op.result.error, KVS_ERR_OK);
        bool found = get.op.result.found;
        unsigned version = found ? check_value(i, slice_make(get.value, get.value_bytes)) : 0;
        free(get.value);
        if (!model_restart(&models[i], found, version))
            fail_msg("after the start key %u has version %u, which it may not have any more", i, version);
    }
    assert_int_equal(store_keys(&fixture), models_live());
}

static void work(void)
{
    for (uint64_t steps = 200 + sim_random(2500); steps > 0; steps--) {
        if (under_way_count < UNDER_WAY_MAX)
            give_one();
        for (uint64_t turns = sim_random(4); turns > 0; turns--) {
            for (unsigned i = 0; i < fixture.shard_count; i++) {
                if (sim_random(2) == 0)
                    engine_turn(fixture.nodes[i].shard);
            }
            if (!sim_step())
                break;
        }
        open_gates();
    }
}

static bool nothing_under_way(void *context)
{
    (void)context;
    open_gates();
    return under_way_count == 0;
}

/* What compaction has done in all boots, so that it is known to have been at work. */
static struct compact_stats compacted;

static void count_compaction(void)
{
    if (fixture.compactor == NULL)
        return;
    struct compact_stats stats;
    compact_stats(fixture.compactor, &stats);
    assert_int_equal(stats.damaged_segments, 0);
    compacted.victims += stats.victims;
    compacted.records_moved += stats.records_moved;
    compacted.deletes_kept += stats.deletes_kept;
    compacted.deletes_dropped += stats.deletes_dropped;
}

static void stop(void)
{
    /* What was given from outside may have made the time-outs out of date with which threads wait. */
    for (unsigned i = 0; i < fixture.shard_count; i++)
        sim_ring_body(fixture.nodes[i].ring, store_turn_node, &fixture.nodes[i]);
    if (!sim_run_until(nothing_under_way, NULL, 1000000))
        fail_msg("%u operations never end", under_way_count);
    store_quiet();
    assert_int_equal(store_keys(&fixture), models_live());
    store_stop(&fixture);
    for (unsigned i = 0; i < KEYS; i++)
        model_durable(&models[i], models[i].now.version);
}

static void crash(void)
{
    open_gates();
    store_crash(&fixture, (enum sim_crash_mode)sim_random(3));
    list_init(&gated);
    while (!list_empty(&under_way))
        operation_free(container_of(under_way.next, struct operation, alive));
}

static void run_seed(uint64_t seed)
{
    static const uint64_t masks[] = {0xe000000000000037ull, 0xffffff000000003full, UINT64_MAX};
    sim_create(seed);
    hash_mask = masks[seed % ARRAY_COUNT(masks)];
    versions = 0;
    list_init(&under_way);
    list_init(&gated);
    under_way_count = 0;
    for (unsigned i = 0; i < KEYS; i++)
        models[i] = (struct model){.possible_count = 1};
    for (unsigned boot = 0; boot < BOOTS; boot++) {
        struct engine_options options = store_options(1 + (unsigned)sim_random(STORE_SHARDS_MAX));
        options.memory_bytes = options.shard_count * (6 + sim_random(3)) * options.segment_bytes;
        if (sim_random(2) == 0)
            options.large_bytes_min = 1 + sim_random(options.segment_bytes / 8); /* large values get files */
        store_boot(&fixture, &options);
        if (sim_random(3) > 0)
            store_compact(&fixture, 120 + (unsigned)sim_random(100));
        check_after_boot();
        work();
        count_compaction();
        if (sim_random(3) == 0)
            stop();
        else
            crash();
    }
    sim_destroy();
}

/* ---- seeds ----------------------------------------------------------------------------------------------------- */

static uint64_t seed_now;

static void choose_seeds(uint64_t *from, uint64_t *to)
{
    const char *text = getenv("KVS_SEEDS");
    char *end;
    *from = 1;
    *to = SEEDS;
    if (text == NULL)
        return;
    *from = strtoull(text, &end, 10);
    bool range = strncmp(end, "..", 2) == 0;
    *to = range ? strtoull(end + 2, &end, 10) : *from;
    if (*end != '\0' || end == text || *to < *from)
        fail_msg("KVS_SEEDS must be FROM..TO, not '%s'", text);
}

static void test_store__random_work_agrees_with_the_model(void **state)
{
    (void)state;
    uint64_t from, to;
    choose_seeds(&from, &to);
    for (seed_now = from; seed_now <= to; seed_now++) {
        /* At once, for a failed assertion of the engine leaves no time to tell. */
        print_message("seed %llu\n", (unsigned long long)seed_now);
        fflush(stdout);
        run_seed(seed_now);
    }
    print_message("compaction: %llu segments given back, %llu records moved, %llu deletes kept, %llu dropped\n",
                  (unsigned long long)compacted.victims, (unsigned long long)compacted.records_moved,
                  (unsigned long long)compacted.deletes_kept, (unsigned long long)compacted.deletes_dropped);
    seed_now = 0;
}

static int tell_seed(void **state)
{
    (void)state;
    if (seed_now != 0)
        print_error("again: KVS_SEEDS=%llu..%llu test_store_random\n", (unsigned long long)seed_now,
                    (unsigned long long)seed_now);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_store__random_work_agrees_with_the_model, tell_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
