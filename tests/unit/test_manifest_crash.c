/*
 * test_manifest_crash.c - a manifest whose machine dies: at every step of changes, of making a new file, and of a
 * start.
 *
 * The process forks at every event on the disk; the child tries one outcome of a crash there, starts again and holds
 * what it finds against the model: everything that was durable is there, and nothing that is not a beginning of what
 * was done. Then it makes another change, loses power, and looks once more.
 */
#include "manifest_fixture.h"
#include "outcomes_seen.h"

#include "base/diag.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STRIDE = 5 };
#else
enum { STRIDE = 1 };
#endif

enum {
    SUBSETS_MAX = 16, /* of pending changes, at one point */
    RANDOM_TRIES = 3,
    CHILD_SECONDS = 60,
};

enum trial_kind { TRIAL_SUBSET, TRIAL_RANDOM, TRIAL_KEEP, TRIAL_KILL, TRIAL_AGAIN };
static const char *const trial_names[] = {"subset", "random", "keep", "kill", "again"};

static struct {
    struct manifest_fixture *fixture;
    bool made; /* the first file is known to be there */
    uint64_t seed;
    unsigned event, tried;
    struct outcomes_seen *outcomes;
    jmp_buf *out;  /* of a start that is cut off */
    unsigned left; /* events until then */
} crash;

/* What the store knows at this moment. */
static void note_durable(struct manifest_fixture *fixture)
{
    const struct manifest *manifest = fixture->manifest;
    if (manifest == NULL || !crash.made)
        return;
    while (fixture->durable < fixture->count && manifest_durable(manifest, fixture->durable + 1 - fixture->base))
        fixture->durable++;
    if (manifest_sequence(manifest) > fixture->sequence)
        fixture->sequence = manifest_sequence(manifest);
}

static void cut_off(enum sim_event event, enum ring_kind kind)
{
    (void)event;
    (void)kind;
    if (--crash.left > 0)
        return;
    sim_watch(NULL);
    sim_crash(SIM_RANDOM);
    longjmp(*crash.out, 1);
}

/* A start that ends in the middle, if it does not come to its end before. What it allocated is lost with the child. */
static void start_and_die(struct manifest_fixture *fixture, unsigned events)
{
    jmp_buf out;
    struct manifest_fixture copy = *fixture;
    crash.out = &out;
    crash.left = events;
    if (setjmp(out) == 0) {
        sim_watch(cut_off);
        (void)fixture_try_open(&copy);
        sim_watch(NULL);
        sim_crash(SIM_RANDOM);
    }
}

static void look(struct manifest_fixture *fixture)
{
    enum kvs_err err = fixture_try_open(fixture);
    if (err == KVS_ERR_NOT_FOUND && !crash.made) { /* and it can be made after all */
        fixture_make(fixture);
        fixture_crash(fixture, SIM_DROP_ALL);
        crash.made = true;
        err = fixture_try_open(fixture);
    }
    if (err != KVS_ERR_OK)
        print_error("%s\n", fixture->message);
    assert_int_equal(err, KVS_ERR_OK);
    assert_false(sim_file_exists(MANIFEST_NEW_PATH));
    fixture_check(fixture);
    uint64_t count = fixture->count;
    fixture_crash(fixture, SIM_DROP_ALL); /* what was read is durable */
    fixture_boot(fixture);
    assert_int_equal(fixture->count, count);
    fixture_change_durably(fixture, 3, MANIFEST_SEALED, 999);
    for (uint32_t i = 0; i < 80; i++) /* and into a new file */
        fixture_change_durably(fixture, i, MANIFEST_LIVE, 1000 + i);
    fixture_crash(fixture, SIM_RANDOM);
    fixture_boot(fixture);
    assert_int_equal(fixture->count, count + 81);
}

/* After a power loss: whether an earlier child has looked at the same files, and was to find the same there. */
static bool seen_before(const struct manifest_fixture *fixture)
{
    uint64_t outcome = fixture->durable;
    outcome_add_number(&outcome, crash.made);
    outcome_add_number(&outcome, fixture->sequence);
    outcome_add_number(&outcome, fixture->count);
    return outcome_seen(crash.outcomes, outcome);
}

static _Noreturn void in_child(enum trial_kind kind, uint64_t detail)
{
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    alarm(CHILD_SECONDS);
    sim_watch(NULL);
    sim_fail_none();
    struct manifest_fixture *fixture = crash.fixture;
    note_durable(fixture);
    for (uint64_t i = 0; i < detail && kind != TRIAL_SUBSET; i++)
        (void)sim_random(2);
    if (kind == TRIAL_SUBSET)
        sim_crash_subset(detail);
    else if (kind == TRIAL_RANDOM || kind == TRIAL_AGAIN)
        sim_crash(SIM_RANDOM);
    else
        sim_crash(kind == TRIAL_KEEP ? SIM_KEEP_ALL : SIM_KILL);
    if (kind != TRIAL_KILL && kind != TRIAL_AGAIN && seen_before(fixture))
        _exit(0);
    if (kind == TRIAL_AGAIN)
        start_and_die(fixture, (unsigned)detail);
    look(fixture);
    _exit(0);
}

static void try(enum trial_kind kind, uint64_t detail)
{
    fflush(stdout);
    fflush(stderr);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        in_child(kind, detail);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    crash.tried++;
    if (status != 0)
        fail_msg("seed %llu, event %u, %s %llu: status %#x", (unsigned long long)crash.seed, crash.event,
                 trial_names[kind], (unsigned long long)detail, (unsigned)status);
}

static void at_event(enum sim_event event, enum ring_kind kind)
{
    (void)kind;
    crash.event++;
    if (event == SIM_EVENT_ISSUE || crash.event % STRIDE != 0)
        return;
    unsigned pending = sim_pending();
    uint64_t subsets = pending < 6 ? 1ull << pending : SUBSETS_MAX;
    /* All, or those that keep one or lose one, or what comes. */
    for (uint64_t i = 0; i < subsets && i < SUBSETS_MAX; i++)
        try(TRIAL_SUBSET, pending < 5 ? i : i * 0x9e3779b97f4a7c15u >> (64 - (pending < 64 ? pending : 63)));
    for (uint64_t i = 0; i < RANDOM_TRIES && pending > 0; i++)
        try(TRIAL_RANDOM, i);
    try(TRIAL_KEEP, 0);
    try(TRIAL_KILL, crash.event % 2);
    try(TRIAL_AGAIN, 1 + crash.event % 9);
}

static void watch_from_here(struct manifest_fixture *fixture)
{
    crash.fixture = fixture;
    crash.outcomes = outcomes_open();
    sim_watch(at_event);
}

static void change_something(struct manifest_fixture *fixture)
{
    fixture_change(fixture, (uint32_t)sim_random(120), (enum manifest_state)(1 + sim_random(MANIFEST_GONE)),
                   (uint32_t)fixture->count);
}

static void begin(struct manifest_fixture *fixture, uint64_t seed)
{
    fixture_init(fixture, seed);
    memset(&crash, 0, sizeof crash);
    crash.seed = seed;
    fixture->options.direct = seed % 2 == 0;
    fixture->options.sync_after_write = seed % 3 == 1;
}

static void end(struct manifest_fixture *fixture, unsigned tried_min)
{
    sim_watch(NULL);
    fixture_close(fixture);
    fixture_deinit(fixture);
    print_message("seed %llu: %u crashes, %u of them different\n", (unsigned long long)crash.seed, crash.tried,
                  outcomes_close(crash.outcomes));
    assert_true(crash.tried >= tried_min / STRIDE);
}

static void test_manifest__crash_while_the_first_is_written(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        struct manifest_fixture fixture;
        begin(&fixture, seed);
        fixture_open_ring(&fixture);
        watch_from_here(&fixture);
        assert_int_equal(manifest_new(&fixture.manifest, &fixture.options), KVS_ERR_OK);
        assert_int_equal(manifest_write(fixture.manifest, fixture.message), KVS_ERR_OK);
        crash.made = true;
        note_durable(&fixture);
        at_event(SIM_EVENT_DONE, RING_KIND_NONE);
        end(&fixture, 50);
    }
}

static void test_manifest__crash_at_every_step_of_changes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct manifest_fixture fixture;
        begin(&fixture, seed);
        fixture_make(&fixture);
        crash.made = true;
        watch_from_here(&fixture);
        for (unsigned turn = 0; turn < 12; turn++) {
            for (uint64_t i = 1 + sim_random(turn == 5 ? 200 : 4); i > 0; i--)
                change_something(&fixture);
            for (uint64_t i = sim_random(4); i > 0 && !manifest_idle(fixture.manifest); i--)
                fixture_step(&fixture);
        }
        fixture_settle(&fixture);
        end(&fixture, 40);
    }
}

/* A new file is made while changes go on; attempts fail now and then. */
static void test_manifest__crash_at_every_step_of_a_new_file(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct manifest_fixture fixture;
        begin(&fixture, seed);
        fixture_make(&fixture);
        crash.made = true;
        while (fixture.manifest->rewrite.state == REWRITE_IDLE) {
            change_something(&fixture);
            fixture_step(&fixture);
        }
        watch_from_here(&fixture);
        if (seed >= 4)
            sim_fail(seed % 2 == 0 ? RING_KIND_RENAME : RING_KIND_SYNC, 1, EIO);
        while (fixture.manifest->rewrite.state != REWRITE_IDLE || seed >= 4) {
            if (fixture.manifest->file.first_sequence > 1 || manifest_failed(fixture.manifest))
                break;
            if (sim_random(2) == 0 && fixture.count - fixture.durable < 8)
                change_something(&fixture);
            fixture_step(&fixture);
        }
        if (!manifest_failed(fixture.manifest))
            fixture_settle(&fixture);
        while (!manifest_idle(fixture.manifest))
            fixture_step(&fixture);
        end(&fixture, seed < 4 ? 200 : 0);
    }
}

static void test_manifest__crash_while_a_start_writes_it_anew(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        struct manifest_fixture fixture;
        begin(&fixture, seed);
        fixture_make(&fixture);
        crash.made = true;
        for (unsigned i = 0; i < 20; i++)
            change_something(&fixture);
        fixture_settle(&fixture);
        fixture_crash(&fixture, SIM_KILL);
        watch_from_here(&fixture);
        fixture_boot(&fixture);
        assert_int_equal(manifest_write(fixture.manifest, fixture.message), KVS_ERR_OK);
        end(&fixture, 100);
    }
}

/* Everything by chance: changes, new files, faults of the disk, crashes. */
static void test_manifest__survives_chance(void **state)
{
    (void)state;
    unsigned failed = 0, rewritten = 0;
    static const enum sim_fault_kind kinds[] = {SIM_FAULT_READ_ERROR,  SIM_FAULT_WRITE_ERROR, SIM_FAULT_SYNC_ERROR,
                                                SIM_FAULT_NAME_ERROR,  SIM_FAULT_NO_SPACE,    SIM_FAULT_SHORT,
                                                SIM_FAULT_INTERRUPTED, SIM_FAULT_LATE,        SIM_FAULT_CANCELLED};
    for (uint64_t seed = 0; seed < 1000 / STRIDE; seed++) {
        struct manifest_fixture fixture;
        begin(&fixture, seed);
        fixture_make(&fixture);
        for (unsigned boot = 0; boot < 6; boot++) {
            for (unsigned i = 0; i < ARRAY_COUNT(kinds); i++)
                sim_odds(kinds[i], boot % 2 == 0 ? 0 : (unsigned)sim_random(6000));
            for (uint64_t i = sim_random(200); i > 0 && !manifest_failed(fixture.manifest); i--) {
                change_something(&fixture);
                for (uint64_t step = sim_random(4); step > 0; step--) {
                    manifest_turn(fixture.manifest);
                    (void)sim_step();
                }
            }
            failed += manifest_failed(fixture.manifest);
            rewritten += fixture.manifest->file.first_sequence > 1;
            sim_odds_none();
            fixture_crash(&fixture, (enum sim_crash_mode)sim_random(4));
            fixture_boot(&fixture);
        }
        fixture_close(&fixture);
        fixture_deinit(&fixture);
    }
    assert_true(failed > 100 / STRIDE && rewritten > 500 / STRIDE);
}

int main(void)
{
    diag_set_level(DIAG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest__crash_while_the_first_is_written),
        cmocka_unit_test(test_manifest__crash_at_every_step_of_changes),
        cmocka_unit_test(test_manifest__crash_at_every_step_of_a_new_file),
        cmocka_unit_test(test_manifest__crash_while_a_start_writes_it_anew),
        cmocka_unit_test(test_manifest__survives_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
