/*
 * test_history_random.c - the checker of histories on thousands of random ones: small ones, where it must agree with a
 * reference that tries everything, and long ones as a register brings them about; and how long that takes.
 *
 * More of them than usual: KVS_HISTORIES=1000000 test_history_random.
 */
#include "history_fixture.h"

/* ---- the reference ---------------------------------------------------------------------------------------------- */

#define SMALL_MAX 9

/* What a key that had one of `before` may have after an operation that looks and changes. */
static uint32_t reference_swap(const struct history_op *op, uint32_t before)
{
    uint32_t after = 0;
    for (uint32_t value = 0; value < VALUES_MAX; value++) {
        if ((before >> value & 1) == 0)
            continue;
        bool told = !op->open && op->found >= 0;
        if (told && ((op->found == 1) != (value != 0) || (op->seen != 0 && op->seen != value)))
            continue;
        bool writes = op->kind == HISTORY_SWAP || (op->kind == HISTORY_WRITE_NEW) == (value == 0);
        after |= 1u << (writes ? op->value : value);
    }
    return after;
}

/*
 * Tries everything: which sets of operations can have happened, leaving which value. Bit v of reached[set]: the key has
 * value v. Returns the values at the end, 0 if there is no way.
 */
static uint32_t reference(const struct history_op *ops, size_t count, const uint64_t *initial, size_t initial_count)
{
    static uint32_t reached[1u << SMALL_MAX];
    size_t sets = (size_t)1 << count;
    memset(reached, 0, sets * sizeof(*reached));
    uint32_t certain = 0, result = 0;
    for (size_t i = 0; i < count; i++)
        certain |= ops[i].open ? 0 : 1u << i;
    for (size_t i = 0; i < initial_count; i++)
        reached[0] |= 1u << initial[i];
    if (initial_count == 0)
        reached[0] = 1;
    for (uint32_t set = 0; set < sets; set++) {
        if ((set & certain) == certain)
            result |= reached[set];
        for (size_t i = 0; i < count && reached[set] != 0; i++) {
            const struct history_op *op = &ops[i];
            bool may = (set >> i & 1) == 0;
            for (size_t j = 0; j < count && may; j++) {
                const struct history_op *other = &ops[j];
                bool happened = set >> j & 1;
                bool same = op->session != 0 && op->session == other->session;
                if (happened)
                    may = !(op->returned < other->invoked || (same && i < j));
                else if (j != i && !other->open)
                    may = !(other->returned < op->invoked || (same && j < i));
            }
            if (!may)
                continue;
            uint32_t there = reached[set] & ~1u, absent = reached[set] & 1u, after = 0;
            switch (op->kind) {
            case HISTORY_WRITE:
                after = 1u << op->value;
                break;
            case HISTORY_REMOVE:
                after = op->open || op->found < 0 ? 1 : op->found > 0 ? there != 0 : absent;
                break;
            case HISTORY_READ:
                after = reached[set] & 1u << op->value;
                break;
            case HISTORY_EXISTS:
                after = op->found > 0 ? there : absent;
                break;
            case HISTORY_SWAP:
            case HISTORY_WRITE_NEW:
            case HISTORY_WRITE_OVER:
                after = reference_swap(op, reached[set]);
                break;
            case HISTORY_KINDS:
                break;
            }
            reached[set | 1u << i] |= after;
        }
    }
    return result;
}

static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1du;
}

static uint64_t below(uint64_t limit)
{
    return (random_next() >> 20) % limit;
}

static bool one_in(uint64_t odds)
{
    return below(odds) == 0;
}

static unsigned long rounds(unsigned long usual)
{
    const char *text = getenv("KVS_HISTORIES");
    return text != NULL ? strtoul(text, NULL, 10) : usual;
}

static void print_history(const struct history_op *ops, size_t count, const uint64_t *initial, size_t initial_count)
{
    for (size_t i = 0; i < initial_count; i++)
        print_error("initial %" PRIu64 "\n", initial[i]);
    for (size_t i = 0; i < count; i++) {
        static const char *const names[] = {"write", "remove", "read", "exists", "swap", "write new", "write over"};
        print_error("#%zu %s%s session %" PRIu32 " [%" PRIu64 ", %" PRId64 "] value %" PRIu64 " found %d seen %" PRIu64
                    "\n",
                    i + 1, ops[i].open ? "open " : "", names[ops[i].kind], ops[i].session, ops[i].invoked,
                    (int64_t)ops[i].returned, ops[i].value, ops[i].found, ops[i].seen);
    }
}

struct agreement {
    unsigned long right, wrong;
};

static void agree(const struct history_op *ops, size_t count, const uint64_t *initial, size_t initial_count,
                  struct agreement *agreement)
{
    uint32_t expected = reference(ops, count, initial, initial_count);
    enum history_verdict verdict = check(ops, count, initial, initial_count);
    uint32_t found = 0;
    for (size_t i = 0; i < final_count && verdict == HISTORY_LINEARIZABLE; i++)
        found |= 1u << finals[i];
    if (verdict == HISTORY_UNDECIDED || found != expected) {
        print_history(ops, count, initial, initial_count);
        fail_msg("verdict %d, finals %x instead of %x %s", verdict, found, expected, why);
    }
    if (expected != 0)
        agreement->right++;
    else
        agreement->wrong++;
}

/* Whether it can change the key. */
static bool changes_key(const struct history_op *op)
{
    return op->kind != HISTORY_READ && op->kind != HISTORY_EXISTS;
}

static bool is_conditional(const struct history_op *op)
{
    return op->kind == HISTORY_WRITE_NEW || op->kind == HISTORY_WRITE_OVER;
}

/* Any operations of the first `kinds` kinds at any moments, with answers by chance. */
static size_t make_any(struct history_op *ops, uint64_t *initial, size_t *initial_count, uint64_t kinds)
{
    size_t count = 1 + below(SMALL_MAX - 1);
    uint64_t span = 1 + below(16), values = 0, moment = 0;
    uint32_t sessions = (uint32_t)below(4);
    *initial_count = below(3);
    for (size_t i = 0; i < *initial_count; i++)
        initial[i] = one_in(3) ? 0 : ++values;
    uint64_t odds_open = 1 + below(6);
    uint64_t crash = HISTORY_NEVER;
    if (one_in(2))
        crash = below(span + 1);
    for (size_t i = 0; i < count; i++) {
        struct history_op *op = &ops[i];
        moment += below(1 + 2 * span / (count + 1));
        *op =
            (struct history_op){.kind = (enum history_kind)below(kinds), .found = (int8_t)below(2), .invoked = moment};
        op->returned = moment + below(span);
        op->session = sessions > 0 ? (uint32_t)below(sessions + 1) : 0;
        if (changes_key(op) && one_in(odds_open)) {
            op->open = true;
            if (one_in(2))
                op->returned = crash >= op->invoked ? crash : HISTORY_NEVER;
        }
        if (op->open || ((op->kind == HISTORY_REMOVE || op->kind == HISTORY_SWAP) && one_in(3)))
            op->found = -1;
        if (op->kind == HISTORY_WRITE || is_conditional(op) || (op->kind == HISTORY_SWAP && !one_in(4)))
            op->value = ++values;
    }
    for (size_t i = 0; i < count; i++) {
        struct history_op *op = &ops[i];
        if (op->kind == HISTORY_READ)
            op->value = below(values + 1);
        uint64_t seen = below(values + 1);
        if (op->kind >= HISTORY_SWAP && op->found > 0 && seen != op->value && !one_in(3))
            op->seen = seen;
    }
    return count;
}

static void agree_on_any(uint64_t kinds, uint64_t seed)
{
    random_state = seed;
    struct agreement agreement = {0};
    for (unsigned long round = rounds(60000); round > 0; round--) {
        struct history_op ops[SMALL_MAX];
        uint64_t initial[2];
        size_t initial_count;
        size_t count = make_any(ops, initial, &initial_count, kinds);
        agree(ops, count, initial, initial_count, &agreement);
    }
    assert_true(agreement.right > 1000 || rounds(60000) < 60000);
    assert_true(agreement.wrong > 1000 || rounds(60000) < 60000);
}

static void test_history__agrees_with_the_reference_on_anything(void **state)
{
    (void)state;
    agree_on_any(HISTORY_SWAP, 88172645463325252u);
}

static void test_history__agrees_with_the_reference_on_anything_with_swaps(void **state)
{
    (void)state;
    agree_on_any(HISTORY_KINDS, 6364136223846793005u);
}

/* ---- recorded histories ----------------------------------------------------------------------------------------- */

/* A register that is asked by pipelining sessions, with connections that break and nodes that crash. */
struct recorder {
    struct history_op *ops;
    bool *happened;
    size_t count, count_max;
    uint64_t now;
    uint64_t value, values;
    uint32_t session_count, depth;
    uint32_t sessions[8]; /* their present numbers */
    uint32_t next_session;
    uint32_t odds_break, odds_crash; /* one in so many; 0: never */
    uint32_t weights[HISTORY_KINDS]; /* of the kinds */
};

static void happen(struct recorder *recorder, size_t place)
{
    struct history_op *op = &recorder->ops[place];
    recorder->happened[place] = true;
    bool there = recorder->value != 0;
    switch (op->kind) {
    case HISTORY_WRITE:
        recorder->value = op->value;
        break;
    case HISTORY_REMOVE:
        op->found = one_in(8) ? -1 : there;
        recorder->value = 0;
        break;
    case HISTORY_READ:
        op->value = recorder->value;
        break;
    case HISTORY_EXISTS:
        op->found = there;
        break;
    case HISTORY_SWAP:
    case HISTORY_WRITE_NEW:
    case HISTORY_WRITE_OVER:
        op->found = op->kind == HISTORY_SWAP && one_in(8) ? -1 : there;
        op->seen = op->found > 0 && !one_in(3) ? recorder->value : 0;
        if (op->kind == HISTORY_SWAP || there == (op->kind == HISTORY_WRITE_OVER))
            recorder->value = op->value;
        break;
    case HISTORY_KINDS:
        break;
    }
}

static enum history_kind some_kind(const struct recorder *recorder)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < ARRAY_COUNT(recorder->weights); i++)
        sum += recorder->weights[i];
    uint64_t drawn = below(sum);
    unsigned kind = 0;
    while (drawn >= recorder->weights[kind])
        drawn -= recorder->weights[kind++];
    return (enum history_kind)kind;
}

/* Operations of the session that are under way; the first that has not happened comes back in *next. */
static size_t under_way(const struct recorder *recorder, uint32_t session, size_t *next)
{
    size_t count = 0, first = recorder->count > 400 ? recorder->count - 400 : 0;
    *next = SIZE_MAX;
    for (size_t i = first; i < recorder->count; i++) {
        const struct history_op *op = &recorder->ops[i];
        if (op->session != session || op->returned != HISTORY_NEVER || op->open)
            continue;
        count++;
        if (!recorder->happened[i] && *next == SIZE_MAX)
            *next = i;
    }
    return count;
}

/* One operation under way that has happened gets its answer; `any`: in any order, else in that of the requests. */
static void answer_one(struct recorder *recorder, uint32_t session, bool any)
{
    size_t first = recorder->count > 400 ? recorder->count - 400 : 0;
    for (size_t i = first; i < recorder->count; i++) {
        struct history_op *op = &recorder->ops[i];
        if (op->session != session || op->returned != HISTORY_NEVER || op->open)
            continue;
        if (recorder->happened[i] && !(any && one_in(2))) {
            op->returned = recorder->now;
            return;
        }
        if (!any)
            return;
    }
}

/* The connection is gone. What has not happened may do so until the node crashes. */
static void break_off(struct recorder *recorder, uint32_t place)
{
    for (size_t i = 0; i < recorder->count; i++) {
        struct history_op *op = &recorder->ops[i];
        if (op->session == recorder->sessions[place] && op->returned == HISTORY_NEVER)
            op->open = true;
    }
    recorder->sessions[place] = ++recorder->next_session;
}

static void crash(struct recorder *recorder)
{
    for (uint32_t place = 0; place < recorder->session_count; place++)
        break_off(recorder, place);
    for (size_t i = 0; i < recorder->count; i++) {
        struct history_op *op = &recorder->ops[i];
        if (op->open && op->returned == HISTORY_NEVER)
            op->returned = recorder->now;
    }
    recorder->now++;
}

/* What lingers of a broken connection happens in order, or never. */
static void linger(struct recorder *recorder)
{
    size_t first = recorder->count > 200 ? recorder->count - 200 : 0;
    for (size_t i = first; i < recorder->count; i++) {
        const struct history_op *op = &recorder->ops[i];
        if (!op->open || op->returned != HISTORY_NEVER || recorder->happened[i] || !one_in(4))
            continue;
        bool overtaken = false;
        for (size_t j = i + 1; j < recorder->count; j++)
            overtaken = overtaken || (recorder->ops[j].session == op->session && recorder->happened[j]);
        if (!overtaken && changes_key(op))
            happen(recorder, i);
        return;
    }
}

static void record(struct recorder *recorder)
{
    for (uint32_t place = 0; place < recorder->session_count; place++)
        recorder->sessions[place] = ++recorder->next_session;
    recorder->now = 1;
    while (recorder->count < recorder->count_max) {
        recorder->now += below(3);
        uint32_t place = (uint32_t)below(recorder->session_count), session = recorder->sessions[place];
        size_t next;
        size_t busy = under_way(recorder, session, &next);
        uint64_t chance = below(4);
        if (chance == 0 && busy < recorder->depth) {
            struct history_op *op = &recorder->ops[recorder->count];
            *op = (struct history_op){.kind = some_kind(recorder), .found = -1, .session = session};
            op->invoked = recorder->now;
            op->returned = HISTORY_NEVER;
            if (op->kind == HISTORY_WRITE || is_conditional(op) || (op->kind == HISTORY_SWAP && !one_in(3)))
                op->value = ++recorder->values;
            recorder->happened[recorder->count++] = false;
        } else if (chance == 1 && next != SIZE_MAX) {
            happen(recorder, next);
        } else if (chance >= 2) {
            answer_one(recorder, session, place % 2 == 0);
        }
        if (recorder->odds_break > 0 && one_in(recorder->odds_break))
            break_off(recorder, place);
        if (recorder->odds_crash > 0 && one_in(recorder->odds_crash))
            crash(recorder);
        linger(recorder);
    }
    for (uint32_t place = 0; place < recorder->session_count; place++)
        break_off(recorder, place);
    size_t kept = 0;
    for (size_t i = 0; i < recorder->count; i++) {
        struct history_op *op = &recorder->ops[i];
        if (op->open && op->kind >= HISTORY_SWAP) { /* nobody was told */
            op->found = -1;
            op->seen = 0;
        }
        if (!op->open || changes_key(op))
            recorder->ops[kept++] = *op;
    }
    recorder->count = kept;
}

static struct history_op recorded[OPS_MAX];
static bool recorded_happened[OPS_MAX];

static struct recorder new_recorder(size_t count_max)
{
    assert_true(count_max <= OPS_MAX);
    return (struct recorder){
        .ops = recorded,
        .happened = recorded_happened,
        .count_max = count_max,
        .session_count = 1 + (uint32_t)below(8),
        .depth = 1 + (uint32_t)below(5),
        .odds_break = one_in(2) ? 0 : 20 + (uint32_t)below(200),
        .odds_crash = one_in(2) ? 0 : 20 + (uint32_t)below(400),
        .weights = {1 + (uint32_t)below(4), (uint32_t)below(4), (uint32_t)below(4), (uint32_t)below(4)}};
}

/* Half of them with operations that look and change. */
static struct recorder new_recorder_of_all(size_t count_max)
{
    struct recorder recorder = new_recorder(count_max);
    for (size_t kind = HISTORY_SWAP; kind < HISTORY_KINDS && one_in(2); kind++)
        recorder.weights[kind] = (uint32_t)below(4);
    return recorder;
}

/* Changes one answer of the history; false: there is none to change. */
static bool falsify(struct history_op *ops, size_t count, uint64_t values)
{
    for (int attempt = 0; attempt < 20 && count > 0; attempt++) {
        struct history_op *op = &ops[below(count)];
        if (op->open || op->kind == HISTORY_WRITE || (op->kind != HISTORY_READ && op->found < 0))
            continue;
        uint64_t value = below(values + 1);
        if (op->seen != 0 && value == op->value)
            continue;
        if (op->kind == HISTORY_READ)
            op->value = value;
        else if (op->seen != 0 && value != 0)
            op->seen = value;
        else
            op->found = !op->found;
        if (op->found == 0)
            op->seen = 0;
        return true;
    }
    return false;
}

static void test_history__agrees_with_the_reference_on_records(void **state)
{
    (void)state;
    random_state = 1234567u;
    struct agreement right = {0}, falsified = {0};
    for (unsigned long round = rounds(40000); round > 0; round--) {
        struct recorder recorder = new_recorder_of_all(1 + below(SMALL_MAX));
        if (recorder.odds_crash > 0)
            recorder.odds_crash = 1 + recorder.odds_crash / 10;
        record(&recorder);
        if (recorder.values >= VALUES_MAX)
            continue;
        agree(recorded, recorder.count, NULL, 0, &right);
        if (falsify(recorded, recorder.count, recorder.values))
            agree(recorded, recorder.count, NULL, 0, &falsified);
    }
    assert_int_equal(right.wrong, 0);
    assert_true(falsified.wrong > 1000 || rounds(40000) < 40000);
}

static bool is_final(uint64_t value)
{
    bool found = false;
    for (size_t i = 0; i < final_count; i++)
        found = found || finals[i] == value;
    return found;
}

/* Some of these are far more tangled than anything that a node can bring about: few may be given up. */
static void test_history__long_records_are_right(void **state)
{
    (void)state;
    random_state = 424242u;
    unsigned long given_up = 0, all = rounds(300);
    for (unsigned long round = all; round > 0; round--) {
        struct recorder recorder = new_recorder_of_all(20 + below(600));
        record(&recorder);
        enum history_verdict verdict = check(recorded, recorder.count, NULL, 0);
        if (verdict == HISTORY_UNDECIDED)
            given_up++;
        else if (verdict == HISTORY_IMPOSSIBLE)
            fail_msg("round %lu: %s", round, why);
        else if (!is_final(recorder.value))
            fail_msg("round %lu: %" PRIu64 " is not among the finals", round, recorder.value);
    }
    assert_true(given_up <= all / 300);
}

/* One wrong answer in a long history of a likely kind is found, unless it may have been so. */
static void test_history__one_wrong_answer_among_many_is_found(void **state)
{
    (void)state;
    random_state = 31337u;
    unsigned found = 0, hidden = 0, given_up = 0;
    for (int round = 0; round < 120; round++) {
        struct recorder recorder = new_recorder(20 + below(1500));
        recorder.depth = 1 + (uint32_t)below(2);
        recorder.odds_break = 300;
        memcpy(recorder.weights, (uint32_t[HISTORY_KINDS]){3, 1, 4, 1}, sizeof(recorder.weights));
        if (round % 2 != 0)
            memcpy(recorder.weights, (uint32_t[HISTORY_KINDS]){2, 1, 2, 1, 3, 1, 1}, sizeof(recorder.weights));
        record(&recorder);
        if (!falsify(recorded, recorder.count, recorder.values))
            continue;
        enum history_verdict verdict = check(recorded, recorder.count, NULL, 0);
        found += verdict == HISTORY_IMPOSSIBLE;
        hidden += verdict == HISTORY_LINEARIZABLE;
        given_up += verdict == HISTORY_UNDECIDED;
    }
    print_message("found %u, may have been so %u, given up %u\n", found, hidden, given_up);
    assert_true(found > 2 * hidden && given_up <= 1);
}

static void delay(struct history_op *op, uint64_t by)
{
    op->invoked += by;
    if (op->returned != HISTORY_NEVER)
        op->returned += by;
}

/* A history cut at a crash: the finals of its first part are the beginnings of its second. */
static void test_history__finals_carry_over_a_crash(void **state)
{
    (void)state;
    random_state = 777u;
    unsigned long parted = 0;
    for (unsigned long round = rounds(20000); round > 0; round--) {
        struct recorder recorder = new_recorder_of_all(2 + below(SMALL_MAX - 1));
        recorder.odds_break = recorder.odds_crash = 0;
        recorder.count_max = 1 + below(recorder.count_max - 1);
        record(&recorder);
        crash(&recorder);
        size_t first = recorder.count;
        recorder.count_max = SMALL_MAX;
        memset(recorded_happened, 0, sizeof(recorded_happened));
        record(&recorder);
        if (recorder.values >= VALUES_MAX || recorder.count > SMALL_MAX)
            continue;
        for (size_t i = first; i < recorder.count; i++)
            delay(&recorded[i], recorded[0].invoked + 1000);
        if (one_in(2))
            (void)falsify(recorded, recorder.count, recorder.values);
        uint32_t whole = reference(recorded, recorder.count, NULL, 0);
        enum history_verdict verdict = check(recorded, first, NULL, 0);
        uint32_t joined = 0;
        if (verdict == HISTORY_LINEARIZABLE) {
            uint64_t starts[VALUES_MAX];
            size_t start_count = final_count;
            memcpy(starts, finals, final_count * sizeof(*finals));
            verdict = check(recorded + first, recorder.count - first, starts, start_count);
            for (size_t i = 0; i < final_count && verdict == HISTORY_LINEARIZABLE; i++)
                joined |= 1u << finals[i];
        }
        if (joined != whole) {
            print_history(recorded, recorder.count, NULL, 0);
            fail_msg("cut at %zu: %x instead of %x", first, joined, whole);
        }
        parted++;
    }
    assert_true(parted > 1000 || rounds(20000) < 20000);
}

/* ---- work -------------------------------------------------------------------------------------------------------- */

/* Work is the number of states looked at: the same on any machine, where a second is not. Bounds are twice what it
 * takes. */
static void expect_little_work(const char *name, const struct recorder *recorder, uint64_t work_max)
{
    history_clear(history);
    history_begin(history, NULL, 0);
    for (size_t i = 0; i < recorder->count; i++)
        history_add(history, &recorded[i]);
    enum history_verdict verdict = history_check(history, work_max, finals, OPS_MAX, &final_count, why, sizeof(why));
    print_message("%s: %zu operations, %zu finals\n", name, recorder->count, final_count);
    if (verdict != HISTORY_LINEARIZABLE)
        fail_msg("%s: verdict %d %s", name, verdict, why);
}

static void test_history__takes_little_work(void **state)
{
    (void)state;
    random_state = 99u;
    struct recorder calm = new_recorder(2000);
    calm.session_count = 2;
    calm.depth = 1;
    calm.odds_break = calm.odds_crash = 0;
    memcpy(calm.weights, (uint32_t[HISTORY_KINDS]){3, 1, 3, 1}, sizeof(calm.weights));
    record(&calm);
    expect_little_work("little overlap", &calm, 10000);

    struct recorder busy = new_recorder(5000);
    busy.session_count = 8;
    busy.depth = 4;
    busy.odds_break = busy.odds_crash = 0;
    memcpy(busy.weights, (uint32_t[HISTORY_KINDS]){3, 1, 3, 1}, sizeof(busy.weights));
    record(&busy);
    expect_little_work("eight pipelines", &busy, 400000);

    struct recorder swapping = new_recorder(5000);
    swapping.session_count = 8;
    swapping.depth = 4;
    swapping.odds_break = 0;
    swapping.odds_crash = 0;
    memcpy(swapping.weights, (uint32_t[HISTORY_KINDS]){2, 1, 2, 1, 2, 1, 1}, sizeof(swapping.weights));
    record(&swapping);
    expect_little_work("eight pipelines that look and change", &swapping, 300000);

    struct recorder broken = new_recorder(2000);
    broken.session_count = 6;
    broken.depth = 3;
    broken.odds_break = 8;
    broken.odds_crash = 0;
    memcpy(broken.weights, (uint32_t[HISTORY_KINDS]){3, 1, 3, 1}, sizeof(broken.weights));
    record(&broken);
    expect_little_work("hundreds of open operations", &broken, 40000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_history__agrees_with_the_reference_on_anything),
        cmocka_unit_test(test_history__agrees_with_the_reference_on_anything_with_swaps),
        cmocka_unit_test(test_history__agrees_with_the_reference_on_records),
        cmocka_unit_test(test_history__long_records_are_right),
        cmocka_unit_test(test_history__one_wrong_answer_among_many_is_found),
        cmocka_unit_test(test_history__finals_carry_over_a_crash),
        cmocka_unit_test(test_history__takes_little_work),
    };
    return cmocka_run_group_tests_name("history_random", tests, set_up, tear_down);
}
