/*
 * test_store_exhaustive.c - one history of a store, and everything that can go wrong in it: at every step on the disk a
 * power loss with every outcome, and at every step on the disk every error.
 *
 * The history is a script: puts of several sizes, overwrites, deletes and reads, several at a time, through many
 * segments, so that most records are cold; a clean stop, a power loss, and each time another number of shards; enough
 * keys for an index to grow. The process forks at each point; the child tries one thing that can happen there, boots
 * again without faults and holds what it finds against the model: what was acknowledged or shown is there, what was
 * deleted stays away, no value is wrong, what was not acknowledged is old or new.
 *
 *   crash POINT MASK    power loss; of what is pending, that survives whose bit is set (hexadecimal)
 *   torn POINT 0        power loss; what is pending survives, or not, or in part
 *   kill POINT 0        the process dies, the next one boots, then power loss
 *   again POINT NTH     power loss, and another one at the NTH step of the next boot (hexadecimal)
 *   fault INDEX ERRNO   a step fails (hexadecimal); the history goes on for a while; then power loss
 *
 * Outcomes of one point are for the most part those of the point before: what leaves the same files behind, with the
 * same acknowledged, is tried once.
 *
 * By itself it tries at most MASKS_MAX outcomes of a point, and under a sanitizer only every so many points.
 * KVS_EXHAUSTIVE=N begins at the Nth one, KVS_EXHAUSTIVE=all tries all of them, KVS_EXHAUSTIVE="crash 123 5" tries one
 * thing. KVS_SEEDS=N plays another history.
 */
#include "outcomes_seen.h"
#include "store_fixture.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* By itself: one point in so many. No multiple of the number of errors, which follow each other at each step. */
#if defined(__SANITIZE_THREAD__)
enum { CRASH_STRIDE = 12, FAULT_STRIDE = 23 };
#elif defined(__SANITIZE_ADDRESS__)
enum { CRASH_STRIDE = 7, FAULT_STRIDE = 11 };
#else
enum { CRASH_STRIDE = 1, FAULT_STRIDE = 1 };
#endif

enum {
    MASKS_MAX = 40, /* by itself, at one point; with KVS_EXHAUSTIVE=all: */
    MASKS_ALL_MAX = 2048,
    SUBSET_BITS = 10, /* all subsets of so many pending changes */
    FAILURES_MAX = 5,
    CHILD_SECONDS = 60,
    AFTER_FAULT = 60, /* operations */
    PLAIN_KEYS = 24,
    TINY_KEYS = 500,
    KEYS = PLAIN_KEYS + TINY_KEYS,
    OUTCOMES_MAX = 64,
    GROUP_MAX = 64,
    VALUE_BYTES_MAX = 64 * 1024,
};

static uint64_t seed = 20;

/* ---- what is tried ----------------------------------------------------------------------------------------------- */

enum trial_kind { CRASH, TORN, KILL, AGAIN, FAULT, TRIAL_KINDS };
static const char *const trial_names[TRIAL_KINDS] = {"crash", "torn", "kill", "again", "fault"};

struct trial {
    enum trial_kind kind;
    unsigned point;
    uint64_t detail;
};

static struct selection {
    bool only_one;
    struct trial one;
    bool all;
    unsigned offset;
    bool crashes, faults; /* which are wanted by the test that runs */
} selection;

static struct progress {
    unsigned points, indices; /* so far: places for a power loss, and faults at steps */
    unsigned points_tried;
    unsigned tried[TRIAL_KINDS];
    unsigned failures;
    unsigned different; /* outcomes */
    uint64_t pending_most;
} progress;

/* In a child. */
static bool in_child;
static bool faulted;
static int operations_left;
static struct trial current;
static int output_fd = -1; /* takes what a child prints */

static bool wanted(const struct trial *trial)
{
    const struct trial *one = &selection.one;
    if (selection.only_one)
        return trial->kind == one->kind && trial->point == one->point && trial->detail == one->detail;
    return progress.failures < FAILURES_MAX;
}

static void show_output(void)
{
    char text[4096];
    ssize_t size;
    off_t at = 0;
    fflush(stderr);
    while ((size = pread(output_fd, text, sizeof text, at)) > 0) {
        at += size;
        if (fwrite(text, 1, (size_t)size, stderr) != (size_t)size)
            return;
    }
}

static void await_child(pid_t pid, const struct trial *trial)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    progress.tried[trial->kind]++;
    if (status == 0)
        return;
    progress.failures++;
    show_output();
    print_error("failed with status %#x; again: KVS_SEEDS=%llu KVS_EXHAUSTIVE=\"%s %u %llx\" test_store_exhaustive\n",
                (unsigned)status, (unsigned long long)seed, trial_names[trial->kind], trial->point,
                (unsigned long long)trial->detail);
}

/* True in the child that is to try this; the parent waits for it to end. */
static bool begin(struct trial trial)
{
    if (!wanted(&trial))
        return false;
    fflush(stdout);
    fflush(stderr);
    assert_int_equal(ftruncate(output_fd, 0), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) {
        await_child(pid, &trial);
        return false;
    }
    in_child = true;
    current = trial;
    alarm(CHILD_SECONDS);
    sim_watch(NULL);
    assert_true(lseek(output_fd, 0, SEEK_SET) == 0);
    assert_true(dup2(output_fd, STDOUT_FILENO) >= 0 && dup2(output_fd, STDERR_FILENO) >= 0);
    return true;
}

static _Noreturn void end_child(int status)
{
    fflush(stdout);
    fflush(stderr);
    _exit(status);
}

/* A failed assertion of a child ends its test, and cmocka would go on with the next one. */
static void leave_if_child(void)
{
    if (in_child)
        end_child(1);
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

/* What a write makes of a key: the value of its version, or nothing. */
struct outcome {
    unsigned version; /* of all writes of the history, from 1; 0: there never was one */
    bool present;
};

/* What a restart may find: the latest outcome known to be durable, and all that were given after it. */
static struct model {
    struct outcome possible[OUTCOMES_MAX];
    unsigned count;
} models[KEYS];
static unsigned versions;

static struct outcome model_now(const struct model *model)
{
    return model->possible[model->count - 1];
}

static void model_write(struct model *model, bool present)
{
    assert_true(model->count < OUTCOMES_MAX);
    model->possible[model->count++] = (struct outcome){.version = ++versions, .present = present};
}

/* From now on no crash may go back behind this outcome. */
static void model_durable(struct model *model, unsigned version)
{
    for (unsigned i = 0; i < model->count; i++) {
        if (model->possible[i].version != version)
            continue;
        model->count -= i;
        memmove(model->possible, model->possible + i, model->count * sizeof model->possible[0]);
        return;
    }
}

/* It was refused, so it has not happened and will not. */
static void model_refused(struct model *model, unsigned version)
{
    for (unsigned i = 1; i < model->count; i++) {
        if (model->possible[i].version != version)
            continue;
        model->count--;
        memmove(model->possible + i, model->possible + i + 1, (model->count - i) * sizeof model->possible[0]);
        return;
    }
}

static const struct outcome *model_find(const struct model *model, bool present, unsigned version)
{
    for (unsigned i = model->count; i-- > 0;) {
        const struct outcome *outcome = &model->possible[i];
        if (outcome->present == present && (!present || outcome->version == version))
            return outcome;
    }
    return NULL;
}

static bool never_written(const struct model *model)
{
    return model->count == 1 && model->possible[0].version == 0;
}

/* ---- keys and values --------------------------------------------------------------------------------------------- */

static void make_name(char name[16], unsigned key)
{
    snprintf(name, 16, "%s%u", key < PLAIN_KEYS ? "key" : "t", key);
}

static size_t value_size(unsigned key, unsigned version)
{
    static const size_t sizes[] = {60, 3000, 700, 48000, 12000, 5, 30000, 60000};
    return key < PLAIN_KEYS ? sizes[(key + version / 3) % ARRAY_COUNT(sizes)] + version % 50 : 8;
}

/* Every four bytes tell whose they are. */
static size_t make_value(uint8_t *value, unsigned key, unsigned version)
{
    size_t size = value_size(key, version);
    for (size_t i = 0; i < size; i += sizeof(uint32_t)) {
        uint32_t word = version << 10 ^ key ^ (uint32_t)(i / 4) << 20;
        memcpy(value + i, &word, size - i < sizeof word ? size - i : sizeof word);
    }
    return size;
}

/* The version whose value this is, among those that the model allows for the key; 0 if it is none. */
static unsigned version_of(const struct model *model, unsigned key, struct slice value)
{
    static uint8_t expected[VALUE_BYTES_MAX];
    for (unsigned i = 0; i < model->count; i++) {
        const struct outcome *outcome = &model->possible[i];
        if (!outcome->present || value_size(key, outcome->version) != value.size)
            continue;
        if (memcmp(expected, value.data, make_value(expected, key, outcome->version)) == 0)
            return outcome->version;
    }
    return 0;
}

/* ---- after a boot ------------------------------------------------------------------------------------------------ */

static struct store_fixture fixture;

enum { SPACE_PERCENT = 120 };

static struct engine_options options_of(unsigned shards)
{
    struct engine_options options = store_options(shards);
    options.memory_bytes = (uint64_t)shards * 6 * options.segment_bytes; /* four images, the least */
    options.large_bytes_min = 0;                                         /* large values get files */
    return options;
}

/* Lets everything under way come to its end. A store that nobody asks for anything comes to rest. */
static void come_to_rest(void)
{
    for (unsigned steps = 0; steps < 100000; steps++)
        if (!sim_step())
            return;
    sim_describe();
    fail_msg("the store never comes to rest");
}

static void settle_key(unsigned key)
{
    char name[16];
    struct store_waiting get;
    struct model *model = &models[key];
    make_name(name, key);
    struct engine_request request = store_request(&fixture, ENGINE_GET, slice_text(name), slice_make(NULL, 0));
    store_execute(&fixture, &get, &request);
    assert_int_equal(get.op.result.error, KVS_ERR_OK);
    bool found = get.op.result.found;
    unsigned version = found ? version_of(model, key, slice_make(get.value, get.value_bytes)) : 0;
    free(get.value);
    const struct outcome *outcome = model_find(model, found, version);
    if (outcome == NULL)
        fail_msg("after the start %s is %s; it may be any of %u outcomes from version %u (%s) to version %u (%s)", name,
                 found ? "there with a value it may not have" : "missing", model->count, model->possible[0].version,
                 model->possible[0].present ? "there" : "deleted", model_now(model).version,
                 model_now(model).present ? "there" : "deleted");
    *model = (struct model){.possible = {*outcome}, .count = 1};
}

/* Every key is as it may be; from here on each has one outcome. */
static void settle_all(void)
{
    uint64_t live = 0;
    for (unsigned key = 0; key < KEYS; key++) {
        if (!never_written(&models[key]))
            settle_key(key);
        live += model_now(&models[key]).present;
    }
    come_to_rest();
    assert_int_equal(store_keys(&fixture), live);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static struct operation {
    struct store_waiting waiting;
    enum engine_action action;
    unsigned key;
    char name[16];
    uint8_t *value;
    struct outcome before, after;
} group[GROUP_MAX]; /* those that are under way together */
static unsigned group_count;

/* It may have been told to somebody. */
static bool acknowledged(const struct operation *operation)
{
    const struct store_waiting *waiting = &operation->waiting;
    if (!waiting->done || waiting->op.result.error != KVS_ERR_OK)
        return false;
    return waiting->gate == 0 || engine_durable(waiting->shard) >= waiting->gate;
}

static void acknowledge(void)
{
    for (unsigned i = 0; i < group_count; i++)
        if (acknowledged(&group[i]))
            model_durable(&models[group[i].key], group[i].after.version);
}

static void start_operation(enum engine_action action, unsigned key)
{
    assert_true(group_count < GROUP_MAX && key < KEYS);
    struct operation *operation = &group[group_count];
    struct model *model = &models[key];
    size_t size = 0;
    *operation = (struct operation){.action = action, .key = key, .before = model_now(model)};
    make_name(operation->name, key);
    if (action != ENGINE_GET)
        model_write(model, action == ENGINE_PUT);
    operation->after = model_now(model);
    if (action == ENGINE_PUT) {
        operation->value = malloc(VALUE_BYTES_MAX);
        assert_non_null(operation->value);
        size = make_value(operation->value, key, operation->after.version);
    }
    struct engine_request request =
        store_request(&fixture, action, slice_text(operation->name), slice_make(operation->value, size));
    group_count++;
    store_begin(&fixture, &operation->waiting, &request);
}

/* Without faults the answer is certain. After one, a read shows one of the possible outcomes. */
static void check_answer(const struct operation *operation)
{
    const struct engine_result *result = &operation->waiting.op.result;
    const struct model *model = &models[operation->key];
    struct slice value = slice_make(operation->waiting.value, operation->waiting.value_bytes);
    if (!faulted && operation->action != ENGINE_PUT)
        assert_int_equal(result->found, operation->before.present);
    if (operation->action != ENGINE_GET)
        return;
    struct model then = {.possible = {operation->before}, .count = 1};
    if (faulted)
        then = *model;
    unsigned version = result->found ? version_of(&then, operation->key, value) : 0;
    if (model_find(&then, result->found, version) == NULL)
        fail_msg("GET of %s shows %s", operation->name, result->found ? "a wrong value" : "nothing");
}

static void finish_operation(struct operation *operation)
{
    struct store_waiting *waiting = &operation->waiting;
    struct model *model = &models[operation->key];
    store_finish(waiting);
    enum kvs_err error = waiting->op.result.error;
    if (error == KVS_ERR_OK)
        check_answer(operation);
    else if (!faulted)
        fail_msg("%s: %s", operation->name, kvs_err_text(error));
    bool undecided = waiting->gate != 0 && engine_durable(waiting->shard) < waiting->gate;
    if (error == KVS_ERR_OK)
        model_durable(model, operation->after.version);
    else if (!undecided && operation->action != ENGINE_GET)
        model_refused(model, operation->after.version);
}

/* ---- what was tried before --------------------------------------------------------------------------------------- */

static struct outcomes_seen *outcomes;

static unsigned shards_to_boot(void)
{
    return 1 + current.point % 3;
}

/* After a power loss: whether an earlier child has booted so on the same files, and was to find the same there. */
static bool seen_before(void)
{
    uint64_t outcome = shards_to_boot();
    for (unsigned key = 0; key < KEYS; key++) {
        outcome_add_number(&outcome, models[key].count);
        for (unsigned i = 0; i < models[key].count; i++)
            outcome_add_number(&outcome, models[key].possible[i].version * 2ull + models[key].possible[i].present);
    }
    return outcome_seen(outcomes, outcome) && !selection.only_one;
}

/* Boots without faults, checks, and sees that the store takes writes and shows them. */
static void boot_and_check(void)
{
    struct engine_options options = options_of(shards_to_boot());
    sim_fail_none();
    faulted = false;
    group_count = 0;
    store_boot(&fixture, &options);
    settle_all();
    start_operation(ENGINE_PUT, current.point % PLAIN_KEYS);
    start_operation(ENGINE_GET, current.point % PLAIN_KEYS);
    finish_operation(&group[0]);
    finish_operation(&group[1]);
}

/* In a child with a fault: enough was seen of what comes of it. */
static _Noreturn void end_fault(void)
{
    static const enum sim_crash_mode modes[] = {SIM_RANDOM, SIM_DROP_ALL, SIM_KEEP_ALL, SIM_KILL};
    acknowledge();
    sim_fail_none();
    enum sim_crash_mode mode = modes[current.point % ARRAY_COUNT(modes)];
    sim_crash(mode);
    if (mode == SIM_KILL || !seen_before())
        boot_and_check();
    end_child(0);
}

static void finish_group(void)
{
    for (unsigned i = 0; i < group_count; i++)
        finish_operation(&group[i]);
    for (unsigned i = 0; i < group_count; i++) {
        free(group[i].value);
        free(group[i].waiting.value);
    }
    operations_left -= (int)group_count;
    group_count = 0;
    if (faulted && operations_left <= 0)
        end_fault();
}

/* ---- the history ------------------------------------------------------------------------------------------------- */

static uint64_t script_state;

static unsigned choose(unsigned below)
{
    script_state = script_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(script_state >> 33) % below;
}

static void boot(unsigned shards)
{
    struct engine_options options = options_of(shards);
    enum kvs_err err = store_try_boot(&fixture, &options);
    if (err != KVS_ERR_OK && faulted)
        end_fault();
    if (err != KVS_ERR_OK)
        fail_msg("%s", fixture.message);
    store_compact(&fixture, SPACE_PERCENT);
    settle_all();
}

/* Plain keys, `depth` operations at a time; puts, removes and gets in these parts. */
static void mix(unsigned operations, unsigned depth, unsigned puts, unsigned removes, unsigned gets)
{
    for (unsigned i = 0; i < operations; i++) {
        unsigned part = choose(puts + removes + gets);
        start_operation(part < puts             ? ENGINE_PUT
                        : part < puts + removes ? ENGINE_REMOVE
                                                : ENGINE_GET,
                        choose(PLAIN_KEYS));
        if (group_count == depth)
            finish_group();
    }
    finish_group();
}

static void put_tiny(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        start_operation(ENGINE_PUT, PLAIN_KEYS + i);
        if (group_count == GROUP_MAX)
            finish_group();
    }
    finish_group();
}

static void stop(void)
{
    come_to_rest();
    store_stop(&fixture);
}

static void play(void)
{
    boot(2);
    mix(30, 3, 8, 1, 1);
    mix(40, 4, 5, 2, 3);
    stop();
    boot(3);
    mix(24, 6, 1, 1, 6); /* most is cold */
    mix(36, 2, 6, 2, 2);
    come_to_rest();
    store_crash(&fixture, SIM_DROP_ALL);
    boot(1);
    put_tiny(0, TINY_KEYS);
    mix(30, 8, 4, 2, 4);
    for (unsigned i = 0; i < 12; i++)
        start_operation(ENGINE_REMOVE, PLAIN_KEYS + i * 7);
    finish_group();
    struct engine_stats stats;
    engine_stats(fixture.engine, &stats);
    if (!faulted) {
        assert_true(stats.index_splits > 0);
        assert_true(stats.disk_reads > 0);
        struct compact_stats compacted;
        compact_stats(fixture.compactor, &compacted);
        assert_true(compacted.victims > 0);
    }
    stop();
    boot(2);
    mix(10, 1, 6, 1, 3);
    stop();
}

/* ---- trying ------------------------------------------------------------------------------------------------------ */

/* A second power loss, during the boot after the first. */
static uint64_t steps_until_again;

static void crash_again(enum sim_event event, enum ring_kind kind)
{
    (void)kind;
    if (event == SIM_EVENT_ISSUE || --steps_until_again > 0)
        return;
    sim_watch(NULL);
    acknowledge();
    sim_crash(SIM_RANDOM);
    boot_and_check();
    end_child(0);
}

static _Noreturn void end_crash(void)
{
    acknowledge();
    switch (current.kind) {
    case CRASH:
        sim_crash_subset(current.detail);
        break;
    case KILL:
        sim_crash(SIM_KILL);
        boot_and_check();
        sim_crash(SIM_DROP_ALL);
        break;
    case AGAIN:
        sim_crash(SIM_RANDOM);
        steps_until_again = current.detail;
        sim_watch(crash_again);
        break;
    default:
        sim_crash(SIM_RANDOM);
        break;
    }
    if (current.kind != AGAIN && seen_before())
        end_child(0);
    boot_and_check();
    end_child(0);
}

static void try_crash(enum trial_kind kind, unsigned point, uint64_t detail)
{
    if (begin((struct trial){.kind = kind, .point = point, .detail = detail}))
        end_crash();
}

/* Which subset of `pending` changes is the nth. Behind the first SUBSET_BITS all are dropped, or all kept. */
static uint64_t nth_mask(unsigned pending, uint64_t nth)
{
    if (pending <= SUBSET_BITS)
        return nth;
    uint64_t rest = nth >> SUBSET_BITS != 0 ? UINT64_MAX << SUBSET_BITS : 0;
    return (nth & ((1u << SUBSET_BITS) - 1)) | rest;
}

static void try_masks(unsigned point, unsigned pending)
{
    uint64_t count = pending <= SUBSET_BITS ? 1ull << pending : 2ull << SUBSET_BITS;
    uint64_t most = selection.all ? MASKS_ALL_MAX : MASKS_MAX;
    uint64_t state = point * 0x9e3779b97f4a7c15u + 1;
    if (count <= most) {
        for (uint64_t nth = 0; nth < count; nth++)
            try_crash(CRASH, point, nth_mask(pending, nth));
        return;
    }
    try_crash(CRASH, point, 0);
    try_crash(CRASH, point, nth_mask(pending, count - 1));
    for (uint64_t i = 2; i < most; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        try_crash(CRASH, point, nth_mask(pending, (state >> 33) % count));
    }
}

/* True when a power loss would find something else than at the point before. */
static bool is_new_state(unsigned pending)
{
    static uint64_t before;
    uint64_t state = sim_issued(RING_KIND_WRITE) + sim_issued(RING_KIND_SYNC) + sim_issued(RING_KIND_OPEN) +
                     sim_issued(RING_KIND_ALLOCATE) + sim_issued(RING_KIND_RENAME) + sim_issued(RING_KIND_UNLINK);
    state = state * 1000 + pending;
    for (unsigned i = 0; i < group_count; i++)
        state = state * 3 + acknowledged(&group[i]);
    bool is_new = state != before;
    before = state;
    return is_new;
}

static bool is_chosen(unsigned index, unsigned stride)
{
    return selection.all || selection.only_one || index % stride == selection.offset % stride;
}

static void crash_point(enum sim_event event, enum ring_kind kind)
{
    unsigned pending = sim_pending();
    bool changed = event == SIM_EVENT_EFFECT && kind != RING_KIND_READ;
    if (!is_new_state(pending) && !changed)
        return;
    unsigned point = progress.points++;
    if (!is_chosen(point, CRASH_STRIDE))
        return;
    progress.points_tried++;
    if (pending > progress.pending_most)
        progress.pending_most = pending;
    try_crash(TORN, point, 0);
    try_crash(KILL, point, 0);
    try_crash(AGAIN, point, 1 + (uint64_t)point % 40);
    if (selection.only_one)
        try_crash(CRASH, point, selection.one.detail);
    else
        try_masks(point, pending);
}

static void fault_point(enum ring_kind kind)
{
    static const int any[] = {EIO, ENOMEM, EBADF};
    static const int space[] = {ENOSPC, EDQUOT};
    unsigned count = kind == RING_KIND_READ ? ARRAY_COUNT(any) : ARRAY_COUNT(any) + ARRAY_COUNT(space);
    for (unsigned i = 0; i < count; i++) {
        int error = i < ARRAY_COUNT(any) ? any[i] : space[i - ARRAY_COUNT(any)];
        unsigned index = progress.indices++;
        if (!is_chosen(index, FAULT_STRIDE))
            continue;
        if (!begin((struct trial){.kind = FAULT, .point = index, .detail = (uint64_t)error}))
            continue;
        faulted = true;
        operations_left = AFTER_FAULT;
        sim_fail(kind, 1, error);
        return;
    }
}

static void watch(enum sim_event event, enum ring_kind kind)
{
    if (event == SIM_EVENT_ISSUE && selection.faults)
        fault_point(kind);
    if (event != SIM_EVENT_ISSUE && selection.crashes)
        crash_point(event, kind);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void choose_trials(void)
{
    const char *text = getenv("KVS_EXHAUSTIVE");
    const char *number = getenv("KVS_SEEDS");
    char name[16], *end;
    unsigned long long detail;
    if (number != NULL)
        seed = strtoull(number, NULL, 10);
    if (text == NULL)
        return;
    if (sscanf(text, "%15s %u %llx", name, &selection.one.point, &detail) == 3) {
        selection.only_one = true;
        selection.one.detail = detail;
        for (unsigned i = 0; i < TRIAL_KINDS; i++)
            if (strcmp(name, trial_names[i]) == 0)
                selection.one.kind = (enum trial_kind)i;
        return;
    }
    selection.all = strcmp(text, "all") == 0;
    selection.offset = (unsigned)strtoul(text, &end, 10);
    if (!selection.all && (*end != '\0' || end == text))
        fail_msg("KVS_EXHAUSTIVE must be all, a number, or one trial as it was printed, not '%s'", text);
}

static void run(bool crashes, bool faults)
{
    static bool machine_there;
    leave_if_child();
    if (machine_there) /* the history itself has failed in the test before */
        sim_destroy();
    progress = (struct progress){0};
    choose_trials();
    selection.crashes = crashes;
    selection.faults = faults;
    output_fd = memfd_create("child", 0);
    assert_true(output_fd >= 0);
    outcomes = outcomes_open();
    sim_create(seed);
    machine_there = true;
    script_state = seed;
    versions = 0;
    for (unsigned key = 0; key < KEYS; key++)
        models[key] = (struct model){.count = 1};
    sim_watch(watch);
    play();
    if (faulted)
        end_fault();
    sim_destroy();
    machine_there = false;
    close(output_fd);
    progress.different = outcomes_close(outcomes);
    assert_int_equal(progress.failures, 0);
}

static void test_store__any_power_loss_is_survived(void **state)
{
    (void)state;
    run(true, false);
    print_message("%u of %u points, %u pending changes at most: %u chosen and %u torn outcomes, %u of them different; "
                  "%u kills, %u double\n",
                  progress.points_tried, progress.points, (unsigned)progress.pending_most, progress.tried[CRASH],
                  progress.tried[TORN], progress.different, progress.tried[KILL], progress.tried[AGAIN]);
    assert_true(selection.only_one || progress.different > 100 / CRASH_STRIDE);
}

static void test_store__any_failed_step_is_survived(void **state)
{
    (void)state;
    run(false, true);
    print_message("%u of %u faults, %u different outcomes\n", progress.tried[FAULT], progress.indices,
                  progress.different);
    assert_true(selection.only_one || progress.tried[FAULT] > 100 / FAULT_STRIDE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__any_power_loss_is_survived),
        cmocka_unit_test(test_store__any_failed_step_is_survived),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    leave_if_child();
    return failed;
}
