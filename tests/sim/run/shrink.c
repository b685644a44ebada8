/*
 * shrink.c - see shrink.h.
 *
 * Every candidate is the best plan so far with one change; it takes that plan's place when it fails in the same way. So
 * the best plan has been seen to fail at any time, and stopping early costs nothing but size.
 */
#include "shrink.h"

#include "base/bytes.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

/* ---- what a failure is ----------------------------------------------------------------------------------------- */

/* "2026-01-31T12:00:00.123Z level message", or "<n>message" in a journal: base/diag.h. */
static bool is_log_line(const char *line, size_t length)
{
    static const char form[] = "0000-00-00T00:00:00.000Z ";
    if (length >= 3 && line[0] == '<' && line[1] >= '0' && line[1] <= '7' && line[2] == '>')
        return true;
    if (length < sizeof form - 1)
        return false;
    for (size_t i = 0; form[i] != '\0'; i++) {
        const bool digit = line[i] >= '0' && line[i] <= '9';
        if (form[i] == '0' ? !digit : line[i] != form[i])
            return false;
    }
    return true;
}

static const char *find(const char *line, size_t length, const char *text)
{
    return memmem(line, length, text, strlen(text));
}

/* How much a line tells. */
static unsigned weight(const char *line, size_t length)
{
    static const char broken[] = "broken: "; /* verdict.h */
    if (length >= sizeof broken - 1 && memcmp(line, broken, sizeof broken - 1) == 0)
        return 2;
    if (find(line, length, "assertion failed at ") != NULL || find(line, length, ": runtime error: ") != NULL ||
        find(line, length, "SUMMARY: ") != NULL)
        return 2;
    if (find(line, length, RUNNER_DOES_NOT_REPLAY) == line)
        return 2;
    return length > 0 && line[0] != '=' && !is_log_line(line, length);
}

const char *shrink_message(const char *text, size_t *length)
{
    const char *best = "";
    unsigned best_weight = 0;
    *length = 0;
    for (const char *line = text; *line != '\0';) {
        const size_t size = strcspn(line, "\n");
        if (weight(line, size) > best_weight) {
            best = line;
            best_weight = weight(line, size);
            *length = size;
        }
        line += size;
        line += *line == '\n';
    }
    return best;
}

static bool was_too_slow(const char *reason)
{
    return strncmp(reason, RUNNER_TOO_SLOW, sizeof RUNNER_TOO_SLOW - 1) == 0;
}

void shrink_class(const struct runner_failure *failure, char out[SHRINK_CLASS_BYTES])
{
    size_t length;
    const char *line = shrink_message(failure->text, &length);
    const char *place = find(line, length, "assertion failed at ");
    const char *runtime = find(line, length, ": runtime error: ");
    if (was_too_slow(failure->reason)) { /* what it last wrote does not matter, nor how long it was given */
        line = RUNNER_TOO_SLOW;
        length = sizeof RUNNER_TOO_SLOW - 1;
    } else if (length == 0) {
        line = failure->reason;
        length = strlen(line);
    } else if (find(line, length, RUNNER_DOES_NOT_REPLAY) == line) {
        length = sizeof RUNNER_DOES_NOT_REPLAY - 1;
    } else if (place != NULL) {
        length -= (size_t)(place - line);
        line = place;
        const char *end = find(line, length, ": ");
        length = end != NULL ? (size_t)(end - line) : length;
    } else if (runtime != NULL) {
        length = (size_t)(runtime - line);
    } else if (find(line, length, "SUMMARY: ") == NULL || find(line, length, " leaked in ") != NULL) {
        for (size_t i = 0; i < length; i++) {
            if (strchr("0123456789'\"`", line[i]) != NULL)
                length = i;
        }
    }
    snprintf(out, SHRINK_CLASS_BYTES, "%.*s", (int)length, line);
}

/* ---- trying candidates ----------------------------------------------------------------------------------------- */

struct shrinker {
    const struct shrink_options *options;
    struct shrink_report report;
    struct plan best, candidate;
    double run_seconds_max; /* of a candidate */
    double deadline;
    unsigned replay_every;
    bool interrupted;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void candidate_for(const void *context, uint64_t number, struct plan *plan)
{
    (void)number;
    *plan = ((const struct shrinker *)context)->candidate;
}

/* False: it passes, or nobody can tell any more. */
static bool run_candidate(struct shrinker *shrinker, char failure_class[SHRINK_CLASS_BYTES], double *seconds)
{
    const struct runner_options options = {
        .plan_for = candidate_for,
        .context = shrinker,
        .run_seconds_max = shrinker->run_seconds_max,
        .jobs = 1,
        .failures_max = 1,
        .replay_every = shrinker->replay_every,
    };
    struct runner_result result = runner_run(&options);
    const bool failed = result.failure_count > 0;
    if (failed)
        shrink_class(&result.failures[0], failure_class);
    *seconds = result.seconds;
    shrinker->interrupted |= result.interrupted;
    shrinker->report.attempts++;
    runner_free(&result);
    return failed;
}

static bool over(const struct shrinker *shrinker)
{
    return shrinker->interrupted || now() >= shrinker->deadline;
}

/* True: the candidate fails as it should, and is the best now. */
static bool try_candidate(struct shrinker *shrinker)
{
    char failure_class[SHRINK_CLASS_BYTES];
    double seconds;
    if (over(shrinker) || !run_candidate(shrinker, failure_class, &seconds) ||
        strcmp(failure_class, shrinker->report.failure_class) != 0)
        return false;
    shrinker->best = shrinker->candidate;
    if (shrinker->options->progress)
        fprintf(stderr, "\r\033[K%u runs, %u of %u steps left", shrinker->report.attempts, shrinker->best.step_count,
                shrinker->report.steps_before);
    return true;
}

/* ---- changes --------------------------------------------------------------------------------------------------- */

static bool try_without(struct shrinker *shrinker, uint32_t begin, uint32_t count)
{
    struct plan *plan = &shrinker->candidate;
    *plan = shrinker->best;
    memmove(&plan->steps[begin], &plan->steps[begin + count],
            (plan->step_count - begin - count) * sizeof plan->steps[0]);
    plan->step_count -= count;
    return try_candidate(shrinker);
}

/* From the end, where what came after the failure stands. */
static bool leave_out_steps(struct shrinker *shrinker)
{
    bool changed = false;
    for (uint32_t size = (shrinker->best.step_count + 1) / 2; size > 0 && !over(shrinker); size /= 2) {
        uint32_t end = shrinker->best.step_count;
        while (end > 0 && !over(shrinker)) {
            const uint32_t count = end < size ? end : size;
            changed |= try_without(shrinker, end - count, count);
            end -= count;
        }
    }
    return changed;
}

static bool set(struct shrinker *shrinker, size_t offset, uint32_t value)
{
    uint32_t before;
    memcpy(&before, (const char *)&shrinker->best + offset, sizeof before);
    if (before == value)
        return false;
    shrinker->candidate = shrinker->best;
    memcpy((char *)&shrinker->candidate + offset, &value, sizeof value);
    return try_candidate(shrinker);
}

/* Makes the number at `offset` of the plan smaller: as small as can be at once, else by halves. */
static bool lower(struct shrinker *shrinker, size_t offset, uint32_t least)
{
    uint32_t value;
    memcpy(&value, (const char *)&shrinker->best + offset, sizeof value);
    if (value <= least)
        return false;
    if (set(shrinker, offset, least))
        return true;
    const uint32_t before = value;
    while (value - least >= 2 && set(shrinker, offset, least + (value - least) / 2))
        memcpy(&value, (const char *)&shrinker->best + offset, sizeof value);
    return value != before;
}

static bool simplify_settings(struct shrinker *shrinker)
{
    bool changed = set(shrinker, offsetof(struct plan, hash_bits), 64);
    changed |= set(shrinker, offsetof(struct plan, socket_bytes), 0);
    changed |= lower(shrinker, offsetof(struct plan, threads), 1);
    changed |= lower(shrinker, offsetof(struct plan, keys), 1);
    changed |= lower(shrinker, offsetof(struct plan, value_bytes), 1);
    changed |= set(shrinker, offsetof(struct plan, disk_segments), 0);
    changed |= set(shrinker, offsetof(struct plan, preempt_every), 0);
    changed |= set(shrinker, offsetof(struct plan, swaps_percent), 0);
    changed |= set(shrinker, offsetof(struct plan, scans_percent), 0);
    changed |= set(shrinker, offsetof(struct plan, groups_percent), 0);
    changed |= set(shrinker, offsetof(struct plan, flushes_permille), 0);
    return changed;
}

/* The numbers of a kind of step of which less is simpler, and how little there may be. */
static const struct amounts {
    bool a, b, c;
    uint32_t least_a, least_b, least_c;
} amounts[PLAN_KIND_COUNT] = {
    [PLAN_WORK] = {.b = true, .least_b = 1},
    [PLAN_RUN] = {.a = true, .least_a = 1},
    [PLAN_FAIL] = {.b = true, .least_b = 1},
    [PLAN_DISK_SIZE] = {.a = true, .least_a = 1}, /* 0 would be more than any size */
    [PLAN_CLOSE] = {.b = true},
    [PLAN_TIME] = {.a = true, .least_a = 1},
    [PLAN_CLOCK] = {.a = true, .least_a = 1},
    [PLAN_CRASH] = {.b = true, .c = true, .least_c = 1},
    [PLAN_STOP] = {.a = true, .b = true, .c = true, .least_c = 1},
    [PLAN_RESTORE] = {.b = true, .c = true, .least_c = 1},
    [PLAN_RELIEF] = {.b = true},
};

static bool simplify_steps(struct shrinker *shrinker)
{
    bool changed = false;
    for (uint32_t i = 0; i < shrinker->best.step_count && !over(shrinker); i++) {
        const struct amounts *amount = &amounts[shrinker->best.steps[i].kind];
        const size_t step = offsetof(struct plan, steps) + i * sizeof(struct plan_step);
        if (amount->a)
            changed |= lower(shrinker, step + offsetof(struct plan_step, a), amount->least_a);
        if (amount->b)
            changed |= lower(shrinker, step + offsetof(struct plan_step, b), amount->least_b);
        if (amount->c)
            changed |= lower(shrinker, step + offsetof(struct plan_step, c), amount->least_c);
    }
    return changed;
}

/* ---- all of it ------------------------------------------------------------------------------------------------- */

/* The plan as it is, twice: a run that leaves another trace the second time is a failure, too. */
static bool begin(struct shrinker *shrinker)
{
    double seconds;
    shrinker->run_seconds_max = shrinker->options->run_seconds_max;
    shrinker->replay_every = 1;
    if (!run_candidate(shrinker, shrinker->report.failure_class, &seconds) || shrinker->interrupted)
        return false;
    if (strcmp(shrinker->report.failure_class, RUNNER_DOES_NOT_REPLAY) != 0)
        shrinker->replay_every = 0;
    /* A smaller plan takes less time; one that hangs must not eat up the time for all others. */
    const bool hangs = was_too_slow(shrinker->report.failure_class);
    double limit = hangs ? shrinker->options->seconds / 20 : 4 * seconds + 2;
    if (shrinker->options->run_seconds_max > 0 && limit > shrinker->options->run_seconds_max)
        limit = shrinker->options->run_seconds_max;
    shrinker->run_seconds_max = limit;
    shrinker->deadline = now() + shrinker->options->seconds;
    return true;
}

static void shrink(struct shrinker *shrinker)
{
    bool changed = true;
    while (changed && !over(shrinker)) {
        changed = leave_out_steps(shrinker);
        changed |= simplify_settings(shrinker);
        changed |= simplify_steps(shrinker);
    }
    shrinker->report.finished = !changed && !over(shrinker);
    if (shrinker->options->progress)
        fputs("\r\033[K", stderr);
}

struct shrink_report shrink_plan(struct plan *plan, const struct shrink_options *options)
{
    static struct shrinker shrinker; /* large */
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, &before); /* between two runs, too */
    shrinker = (struct shrinker){.options = options, .best = *plan, .candidate = *plan};
    shrinker.report.steps_before = plan->step_count;
    shrinker.report.failed = begin(&shrinker);
    if (shrinker.report.failed)
        shrink(&shrinker);
    *plan = shrinker.best;
    const struct timespec at_once = {0};
    while (shrinker.interrupted && sigtimedwait(&signals, NULL, &at_once) > 0)
        ; /* what came after the first has had its effect */
    sigprocmask(SIG_SETMASK, &before, NULL);
    return shrinker.report;
}
