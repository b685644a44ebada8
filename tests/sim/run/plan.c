/*
 * plan.c - plans as text: printing, strict parsing.
 *
 * Settings stand in any order, each exactly once, but for those that are optional, all of them before the first step.
 * Numbers are decimal digits and nothing else. What a plan may hold is in two tables: the settings, and what the
 * numbers of each kind of step may be. Parsing stops at the first line that breaks a rule; a setting that is missing is
 * noticed at the first step, or at the end of the text, and that line is the one told.
 */
#include "plan.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "ring_sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { WORDS_MAX = 6 }; /* one more than any line may have */

static const struct setting {
    const char *name;
    size_t offset;
    uint32_t min, max;
    bool optional; /* 0 if it is missing */
} settings[] = {
    {"threads", offsetof(struct plan, threads), 1, 64, false},
    {"segment_kib", offsetof(struct plan, segment_kib), 1, UINT32_MAX, false},
    {"memory_segments", offsetof(struct plan, memory_segments), 1, UINT32_MAX, false},
    {"keys", offsetof(struct plan, keys), 1, UINT32_MAX, false},
    {"value_bytes", offsetof(struct plan, value_bytes), 0, UINT32_MAX, false},
    {"hash_bits", offsetof(struct plan, hash_bits), 1, 64, false},
    {"direct_align", offsetof(struct plan, direct_align), 0, UINT32_MAX, false},
    {"socket_bytes", offsetof(struct plan, socket_bytes), 0, UINT32_MAX, false},
    {"disk_segments", offsetof(struct plan, disk_segments), 0, 1000000, false},
    {"preempt_every", offsetof(struct plan, preempt_every), 0, 1000000, false},
    {"swaps_percent", offsetof(struct plan, swaps_percent), 0, 100, true},
    {"groups_percent", offsetof(struct plan, groups_percent), 0, 100, true},
    {"scans_percent", offsetof(struct plan, scans_percent), 0, 100, true},
    {"flushes_permille", offsetof(struct plan, flushes_permille), 0, 1000, true},
};

/* "seed" is a setting, too, but a wider number: it has the bit above those of the table. */
enum { SEED_BIT = ARRAY_COUNT(settings) };

/* The largest value of a, b and c. */
static const struct kind {
    const char *name;
    uint32_t a, b, c;
} kinds[] = {
    [PLAN_WORK] = {"work", PLAN_CLIENTS - 1, UINT32_MAX, WORK_STYLE_COUNT - 1},
    [PLAN_RUN] = {"run", UINT32_MAX, UINT32_MAX, UINT32_MAX},
    [PLAN_SETTLE] = {"settle", UINT32_MAX, UINT32_MAX, UINT32_MAX},
    [PLAN_ODDS] = {"odds", SIM_FAULT_COUNT - 1, 1000000, UINT32_MAX},
    [PLAN_FAULTS_OFF] = {"faults-off", UINT32_MAX, UINT32_MAX, UINT32_MAX},
    [PLAN_FAIL] = {"fail", RING_KIND_COUNT - 1, UINT32_MAX, UINT32_MAX},
    [PLAN_DISK_SIZE] = {"disk-size", UINT32_MAX, UINT32_MAX, UINT32_MAX},
    [PLAN_CLOSE] = {"close", PLAN_CLIENTS - 1, 1, UINT32_MAX},
    [PLAN_TIME] = {"time", UINT32_MAX, UINT32_MAX, UINT32_MAX},
    [PLAN_CLOCK] = {"clock", 1000000000, 1, UINT32_MAX},
    [PLAN_CHECK] = {"check", UINT32_MAX, UINT32_MAX, UINT32_MAX},
    [PLAN_CRASH] = {"crash", SIM_KILL, UINT32_MAX, UINT32_MAX},
    [PLAN_STOP] = {"stop", 1, UINT32_MAX, UINT32_MAX},
    [PLAN_BACKUP] = {"backup", 1, UINT32_MAX, UINT32_MAX},
    [PLAN_RESTORE] = {"restore", 1, UINT32_MAX, UINT32_MAX},
    [PLAN_RELIEF] = {"relief", 1000, UINT32_MAX, UINT32_MAX},
};
static_assert(ARRAY_COUNT(kinds) == PLAN_KIND_COUNT, "a kind without a name");

const char *plan_kind_name(enum plan_kind kind)
{
    KVS_ASSERT((unsigned)kind < PLAN_KIND_COUNT);
    return kinds[kind].name;
}

/* ---- printing -------------------------------------------------------------------------------------------------- */

struct text {
    char *out;
    size_t size;   /* of `out` */
    size_t length; /* wanted so far, without the NUL */
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    const size_t room = text->length < text->size ? text->size - text->length : 0;
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(room > 0 ? text->out + text->length : NULL, room, format, arguments);
    va_end(arguments);
    KVS_ASSERT(length >= 0);
    text->length += (size_t)length;
}

size_t plan_print(const struct plan *plan, char *out, size_t size)
{
    KVS_ASSERT(plan->step_count <= PLAN_STEPS_MAX);
    struct text text = {.out = out, .size = size};
    add(&text, "plan 1\nseed %" PRIu64 "\n", plan->seed);
    for (size_t i = 0; i < ARRAY_COUNT(settings); i++) {
        uint32_t value;
        memcpy(&value, (const char *)plan + settings[i].offset, sizeof value);
        add(&text, "%s %" PRIu32 "\n", settings[i].name, value);
    }
    for (uint32_t i = 0; i < plan->step_count; i++) {
        const struct plan_step *step = &plan->steps[i];
        add(&text, "%s %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu64 "\n", plan_kind_name(step->kind), step->a, step->b,
            step->c, step->seed);
    }
    return text.length;
}

/* ---- parsing --------------------------------------------------------------------------------------------------- */

static bool word_is(struct slice word, const char *text)
{
    return slice_equal(word, slice_text(text));
}

static bool parse_number(struct slice word, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < word.size; i++) {
        if (word.data[i] < '0' || word.data[i] > '9')
            return false;
        const uint64_t digit = (uint64_t)(word.data[i] - '0');
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digit, &value))
            return false;
    }
    *out = value;
    return word.size > 0 && value <= max;
}

static bool parse_small(struct slice word, uint32_t max, uint32_t *out)
{
    uint64_t value;
    if (!parse_number(word, max, &value))
        return false;
    *out = (uint32_t)value;
    return true;
}

/* Words of a line, without its comment. More than WORDS_MAX are not told apart: no line may have as many. */
static size_t split(const char *line, size_t size, struct slice words[WORDS_MAX])
{
    const char *comment = memchr(line, '#', size);
    const char *end = comment != NULL ? comment : line + size;
    size_t count = 0;
    while (count < WORDS_MAX) {
        while (line < end && (*line == ' ' || *line == '\t'))
            line++;
        if (line == end)
            break;
        const char *begin = line;
        while (line < end && *line != ' ' && *line != '\t')
            line++;
        words[count++] = slice_make(begin, (size_t)(line - begin));
    }
    return count;
}

/* What the lines so far have been. */
struct reader {
    struct plan *plan;
    enum { NOTHING_YET, IN_PLAN, LONE_SEED } form;
    unsigned settings_seen; /* one bit each */
};

static bool parse_first(struct reader *reader, const struct slice *words, size_t count)
{
    uint64_t version;
    if (count != 2)
        return false;
    if (word_is(words[0], "seed")) {
        reader->form = LONE_SEED;
        return parse_number(words[1], UINT64_MAX, &reader->plan->seed);
    }
    reader->form = IN_PLAN;
    return word_is(words[0], "plan") && parse_number(words[1], 1, &version) && version == 1;
}

/* None is missing that must be there. */
static bool has_settings(const struct reader *reader)
{
    bool all = (reader->settings_seen & 1u << SEED_BIT) != 0;
    for (unsigned bit = 0; bit < ARRAY_COUNT(settings); bit++)
        all = all && (settings[bit].optional || (reader->settings_seen & 1u << bit) != 0);
    return all;
}

static bool parse_setting(struct reader *reader, const struct slice *words)
{
    unsigned bit = 0;
    while (bit < ARRAY_COUNT(settings) && !word_is(words[0], settings[bit].name))
        bit++;
    if (bit == SEED_BIT && !word_is(words[0], "seed"))
        return false;
    if ((reader->settings_seen & 1u << bit) != 0 || reader->plan->step_count > 0)
        return false;
    reader->settings_seen |= 1u << bit;
    if (bit == SEED_BIT)
        return parse_number(words[1], UINT64_MAX, &reader->plan->seed);
    uint32_t value;
    if (!parse_small(words[1], settings[bit].max, &value) || value < settings[bit].min)
        return false;
    memcpy((char *)reader->plan + settings[bit].offset, &value, sizeof value);
    return true;
}

static bool parse_step(struct reader *reader, const struct slice *words)
{
    struct plan *plan = reader->plan;
    unsigned kind = 0;
    while (kind < PLAN_KIND_COUNT && !word_is(words[0], kinds[kind].name))
        kind++;
    if (kind == PLAN_KIND_COUNT || !has_settings(reader) || plan->step_count == PLAN_STEPS_MAX)
        return false;
    struct plan_step *step = &plan->steps[plan->step_count];
    step->kind = (enum plan_kind)kind;
    if (!parse_small(words[1], kinds[kind].a, &step->a) || !parse_small(words[2], kinds[kind].b, &step->b) ||
        !parse_small(words[3], kinds[kind].c, &step->c) || !parse_number(words[4], UINT64_MAX, &step->seed))
        return false;
    plan->step_count++;
    return true;
}

static bool parse_line(struct reader *reader, const char *line, size_t size)
{
    struct slice words[WORDS_MAX];
    const size_t count = split(line, size, words);
    if (count == 0)
        return true;
    if (reader->form == NOTHING_YET)
        return parse_first(reader, words, count);
    if (reader->form == LONE_SEED)
        return false;
    return count == 2 ? parse_setting(reader, words) : count == 5 && parse_step(reader, words);
}

bool plan_parse(struct plan *plan, const char *text, unsigned *line)
{
    struct reader reader = {.plan = plan};
    memset(plan, 0, sizeof *plan);
    *line = 0;
    do {
        const size_t size = strcspn(text, "\n");
        (*line)++;
        if (!parse_line(&reader, text, size))
            return false;
        text += size;
        if (*text == '\n')
            text++;
    } while (*text != '\0');
    if (reader.form == LONE_SEED)
        plan_make(plan, plan->seed);
    return reader.form == LONE_SEED || (reader.form == IN_PLAN && has_settings(&reader));
}
