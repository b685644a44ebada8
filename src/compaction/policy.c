/*
 * policy.c - choosing victims.
 *
 * Gain. Compaction fills its outputs one after the other, so that each full one is filled but for less than the largest
 * record r, and any two together are more than full. So copying C bytes takes at most ceil(C / capacity) outputs, where
 * capacity = max(S - r, S / 2), S = segment_bytes. The gain of a plan is reckoned with this bound: it is never less
 * than promised, so each plan makes the store smaller, and in a store where nothing changes planning comes to its end.
 *
 * Order of choice. (1) Victims without anything to copy. (2) By score, benefit over cost: the square of dead space over
 * copied bytes, times age, which is the distance of its last LSN from the youngest. Age is what makes the difference
 * for skewed updates: the dead space of a young segment is about to grow by itself, that of an old one stays, so
 * waiting pays for the young one. The square gives greed its due: write amplification with half of the space dead was,
 * for uniform and zipfian updates, 1.32 and 1.48 without age, 1.34 and 1.49 with dead space over copied bytes times
 * age, 1.33 and 1.41 with the square. Of the best 64 by score a prefix is taken whose ratio of gain to copy is near the
 * best: it fills its outputs, where others would leave the last one half empty, to be rewritten soon. It copies up to
 * four segments, because the figures change meanwhile. (3) When no such prefix gains a segment (nearly all is live),
 * the least live ones, as few as gain one segment, however much they copy.
 *
 * Deletes. A delete must be copied while any segment shadows it: one with dead puts whose `floor` is lower than the
 * delete's LSN; floor = max(min_lsn, begun_lsn). A segment that hardly dies is hardly ever rewritten, and one dead put
 * in it holds on to all deletes since. So when deletes take more than DELETES_PERCENT of the space, victims are added
 * for their sake, in two phases. While most deletes are needed: the lowest floors, of those that shadow the younger
 * half of the deletes or more; the new floor is above every present delete. When a good part of the deletes has thus
 * become needless: the segments that hold most of those for their size. Each time that copies up to a quarter of what
 * all deletes take, at least a segment. Each step raises a floor above all present deletes or removes at least one of
 * them, so this comes to rest, too. Where the whole store decays slowly, each pass has to rewrite all of it once: that
 * is the price of short-lived keys beside long-lived ones, and DELETES_PERCENT sets how often it is paid.
 *
 * Order of rewriting. By last_lsn, so that records of one age come to lie together, and likely change together; it also
 * rewrites shadowing segments before the deletes they shadow. But the worker has only one output more than it has given
 * back: if the first j victims were more than j outputs, the least live are rewritten first, of which this cannot be.
 *
 * Failure modes: none but figures that are wrong. Sums are taken as double, so that no figure can overflow.
 */
#include "compaction/policy.h"

#include "base/assert.h"
#include "base/bytes.h"

enum {
    COPY_SEGMENTS = 4, /* usual plans copy no more than this */
    RATE_PERCENT = 80, /* of the best rate of gain, that a longer plan may have */
    SPACE_PERCENT_MIN = 110,
    SPARE_SEGMENTS = 2,   /* dead space that is always allowed */
    DELETES_PERCENT = 10, /* of the space: when purging begins */
    RIPE_PERCENT = 25,    /* of the deletes: so many needless ones are gone for */
};

struct candidate {
    double score;
    double copy;
    const struct policy_segment *segment;
};

/* The best candidates so far: a heap with the worst on top. */
struct best {
    unsigned count;
    struct candidate items[POLICY_VICTIMS_MAX];
};

struct survey {
    const struct policy_segment *segments;
    size_t count;
    double segment_bytes;
    uint64_t floor, floor_next;          /* the lowest and the next of those that shadow; UINT64_MAX = none */
    const struct policy_segment *lowest; /* whose the lowest is; NULL: of an open segment */
    uint64_t youngest_lsn;
    double deletes, deletes_lsn; /* bytes; the LSN below which about half of them lie */
};

/* A delete is shadowed when its LSN is above this. */
uint64_t policy_floor(const struct policy_segment *segment)
{
    if (segment->dead_puts == 0)
        return UINT64_MAX;
    return segment->relocated && segment->begun_lsn > segment->min_lsn ? segment->begun_lsn : segment->min_lsn;
}

bool policy_shadows(const struct policy_segment *segment, uint64_t delete_lsn)
{
    KVS_ASSERT(segment->dead_puts <= segment->puts);
    return delete_lsn > policy_floor(segment);
}

static double at_most(double value, double limit)
{
    return value < limit ? value : limit;
}

/* ---- need ------------------------------------------------------------------------------------------------------ */

static double space_urgency(const struct policy_store *store, const struct policy_options *options)
{
    unsigned percent = options->space_percent < SPACE_PERCENT_MIN ? SPACE_PERCENT_MIN : options->space_percent;
    uint64_t idle = store->files_free + store->open;
    double used = store->files > idle ? (double)(store->files - idle) : 0;
    double live = (double)store->live_bytes / (double)store->segment_bytes;
    double dead_max = live * (percent - 100) / 100;
    double begin = live + dead_max * 7 / 8 + SPARE_SEGMENTS;
    if (used <= begin)
        return 0;
    return at_most(1 + 49 * (used - begin) / (dead_max / 8 + 1), 99);
}

static double files_urgency(const struct policy_store *store)
{
    double available = (double)store->files_free + (double)store->files_addable;
    double way = ((double)store->files + (double)store->files_addable) / 16;
    way = way < 2 ? 2 : at_most(way, 64);
    uint64_t asking = store->open / 4;
    double full = 1 + (double)asking;
    if (available >= full + way)
        return 0;
    double gone = at_most((full + way - available) / way, 1);
    return 1 + 99 * gone * gone;
}

unsigned policy_urgency(const struct policy_store *store, const struct policy_options *options)
{
    KVS_ASSERT(store->segment_bytes > 0);
    double space = space_urgency(store, options), files = files_urgency(store);
    return (unsigned)(space > files ? space : files);
}

/* ---- figures --------------------------------------------------------------------------------------------------- */

/* The LSN in the middle of its deletes, as far as can be told. */
static double deletes_middle(const struct policy_segment *segment)
{
    return ((double)segment->deletes_min_lsn + (double)segment->deletes_last_lsn) / 2;
}

static void survey_make(struct survey *survey, const struct policy_segment *segments, size_t count,
                        const struct policy_store *store)
{
    *survey = (struct survey){.segments = segments,
                              .count = count,
                              .segment_bytes = (double)store->segment_bytes,
                              .floor = store->open_min_lsn,
                              .floor_next = UINT64_MAX};
    double weighted = 0;
    for (size_t i = 0; i < count; i++) {
        const struct policy_segment *segment = &segments[i];
        uint64_t floor = policy_floor(segment);
        if (floor < survey->floor) {
            survey->floor_next = survey->floor;
            survey->floor = floor;
            survey->lowest = segment;
        } else if (floor < survey->floor_next) {
            survey->floor_next = floor;
        }
        if (segment->last_lsn > survey->youngest_lsn)
            survey->youngest_lsn = segment->last_lsn;
        survey->deletes += (double)segment->deletes_bytes;
        weighted += (double)segment->deletes_bytes * deletes_middle(segment);
    }
    if (survey->deletes > 0)
        survey->deletes_lsn = weighted / survey->deletes;
}

/* Up to this LSN no other segment shadows its deletes. */
static uint64_t floor_of_others(const struct survey *survey, const struct policy_segment *segment)
{
    return survey->lowest == segment ? survey->floor_next : survey->floor;
}

/* Bytes that rewriting it copies, at the most. */
static double copy_of(const struct survey *survey, const struct policy_segment *segment)
{
    bool needless = floor_of_others(survey, segment) >= segment->deletes_last_lsn;
    return (double)segment->live_bytes + (needless ? 0 : (double)segment->deletes_bytes);
}

/* Bytes of its deletes that need not be copied, as if they were spread evenly over their LSNs; 0 only if there are
 * none. */
static double needless_of(const struct survey *survey, const struct policy_segment *segment)
{
    uint64_t floor = floor_of_others(survey, segment);
    uint64_t first = segment->deletes_min_lsn, last = segment->deletes_last_lsn;
    if (floor < first)
        return 0;
    double part = floor >= last ? 1 : ((double)(floor - first) + 1) / ((double)(last - first) + 1);
    return part * (double)segment->deletes_bytes;
}

/* Bytes that rewriting it is likely to copy; one at least. */
static double likely_copy_of(const struct survey *survey, const struct policy_segment *segment)
{
    double copy = (double)segment->live_bytes + (double)segment->deletes_bytes - needless_of(survey, segment);
    return copy > 1 ? copy : 1;
}

/* ---- the best of many ------------------------------------------------------------------------------------------ */

static void best_sift(struct best *best, unsigned at)
{
    struct candidate item = best->items[at];
    for (;;) {
        unsigned child = 2 * at + 1;
        if (child >= best->count)
            break;
        if (child + 1 < best->count && best->items[child + 1].score < best->items[child].score)
            child++;
        if (best->items[child].score >= item.score)
            break;
        best->items[at] = best->items[child];
        at = child;
    }
    best->items[at] = item;
}

static void best_offer(struct best *best, struct candidate item)
{
    if (best->count < POLICY_VICTIMS_MAX) {
        best->items[best->count++] = item;
        if (best->count == POLICY_VICTIMS_MAX)
            for (unsigned at = POLICY_VICTIMS_MAX / 2; at-- > 0;)
                best_sift(best, at);
    } else if (item.score > best->items[0].score) {
        best->items[0] = item;
        best_sift(best, 0);
    }
}

/* Highest score first; the same order for the same figures. */
static void best_sort(struct best *best)
{
    for (unsigned i = 1; i < best->count; i++) {
        struct candidate item = best->items[i];
        unsigned at = i;
        for (; at > 0 && best->items[at - 1].score < item.score; at--)
            best->items[at] = best->items[at - 1];
        best->items[at] = item;
    }
}

/* ---- sets of victims ------------------------------------------------------------------------------------------- */

struct set {
    unsigned count;
    unsigned gain;
    unsigned purges;
    double copy;
    uint64_t record_max;
    struct candidate items[POLICY_VICTIMS_MAX];
};

static double capacity_of(const struct survey *survey, uint64_t record_max)
{
    double half = survey->segment_bytes / 2, rest = survey->segment_bytes - (double)record_max;
    return rest > half ? rest : half;
}

/* Outputs that so many bytes may take. */
static unsigned outputs_of(const struct survey *survey, double copy, uint64_t record_max)
{
    double outputs = copy / capacity_of(survey, record_max);
    unsigned whole = (unsigned)at_most(outputs, 1e6);
    return whole < outputs ? whole + 1 : whole;
}

/* Segments gained by the set with this one, too; negative: lost. */
static int gain_with(const struct survey *survey, const struct set *set, const struct candidate *item)
{
    uint64_t record_max = item->segment->record_bytes_max;
    if (record_max < set->record_max)
        record_max = set->record_max;
    return (int)set->count + 1 - (int)outputs_of(survey, set->copy + item->copy, record_max);
}

static void set_add(const struct survey *survey, struct set *set, const struct candidate *item)
{
    KVS_ASSERT(set->count < POLICY_VICTIMS_MAX);
    int gain = gain_with(survey, set, item);
    set->gain = gain > 0 ? (unsigned)gain : 0;
    set->items[set->count++] = *item;
    set->copy += item->copy;
    if (item->segment->record_bytes_max > set->record_max)
        set->record_max = item->segment->record_bytes_max;
}

static void take_empty(const struct survey *survey, struct set *set)
{
    for (size_t i = 0; i < survey->count && set->count < POLICY_VICTIMS_MAX; i++) {
        const struct policy_segment *segment = &survey->segments[i];
        if (copy_of(survey, segment) <= 0)
            set_add(survey, set, &(struct candidate){.segment = segment});
    }
}

/*
 * A prefix within the usual amount of copying: the longest of those that gain nearly as much for their copy as the best
 * of them does.
 */
static void take_prefix(const struct survey *survey, struct set *set, const struct best *best)
{
    struct set prefix = {0};
    double rates[POLICY_VICTIMS_MAX], rate_max = 0;
    for (unsigned i = 0; i < best->count; i++) {
        if (prefix.copy + best->items[i].copy > COPY_SEGMENTS * survey->segment_bytes)
            break;
        set_add(survey, &prefix, &best->items[i]);
        rates[i] = prefix.gain / prefix.copy;
        if (rates[i] > rate_max)
            rate_max = rates[i];
    }
    unsigned count = rate_max > 0 ? prefix.count : 0;
    while (count > 0 && rates[count - 1] * 100 < rate_max * RATE_PERCENT)
        count--;
    for (unsigned i = 0; i < count; i++)
        set_add(survey, set, &best->items[i]);
}

static void take_by_score(const struct survey *survey, struct set *set)
{
    struct best best = {0};
    for (size_t i = 0; i < survey->count; i++) {
        const struct policy_segment *segment = &survey->segments[i];
        double copy = likely_copy_of(survey, segment), dead = survey->segment_bytes - copy;
        if (dead <= 0)
            continue;
        double age = (double)(survey->youngest_lsn - segment->last_lsn) + 1;
        best_offer(&best, (struct candidate){.score = dead / copy * (dead / copy) * age,
                                             .copy = copy_of(survey, segment),
                                             .segment = segment});
    }
    best_sort(&best);
    take_prefix(survey, set, &best);
}

/* As few as gain a segment, the least live first. */
static void take_least_live(const struct survey *survey, struct set *set)
{
    struct best best = {0};
    for (size_t i = 0; i < survey->count; i++) {
        double copy = copy_of(survey, &survey->segments[i]);
        best_offer(&best, (struct candidate){.score = -copy, .copy = copy, .segment = &survey->segments[i]});
    }
    best_sort(&best);
    struct set tried = {0};
    for (unsigned i = 0; i < best.count && tried.gain == 0; i++)
        set_add(survey, &tried, &best.items[i]);
    if (tried.gain > 0)
        *set = tried;
}

/* ---- deletes --------------------------------------------------------------------------------------------------- */

static bool set_holds(const struct set *set, const struct policy_segment *segment)
{
    for (unsigned i = 0; i < set->count; i++)
        if (set->items[i].segment == segment)
            return true;
    return false;
}

/* Whether enough deletes are needless by now to go for them; if not, what shadows them comes first. */
static bool deletes_are_ripe(const struct survey *survey)
{
    double needless = 0;
    for (size_t i = 0; i < survey->count; i++)
        needless += needless_of(survey, &survey->segments[i]);
    return needless * 100 >= survey->deletes * RIPE_PERCENT || (double)survey->floor >= survey->deletes_lsn;
}

/* Above zero when rewriting it helps to get rid of deletes; the more the sooner it should be. */
static double purge_score(const struct survey *survey, const struct policy_segment *segment, bool ripe)
{
    if (ripe)
        return needless_of(survey, segment) / likely_copy_of(survey, segment);
    uint64_t floor = policy_floor(segment);
    return (double)floor < survey->deletes_lsn ? 1 / (1 + (double)floor) : 0;
}

/* Adds victims for the sake of deletes, as far as they cost no segment. */
static void take_purges(const struct survey *survey, struct set *set)
{
    double budget = survey->deletes / 4;
    if (budget < survey->segment_bytes)
        budget = survey->segment_bytes;
    bool ripe = deletes_are_ripe(survey);
    struct best best = {0};
    for (size_t i = 0; i < survey->count; i++) {
        const struct policy_segment *segment = &survey->segments[i];
        double score = purge_score(survey, segment, ripe);
        if (score > 0)
            best_offer(&best, (struct candidate){.score = score, .copy = copy_of(survey, segment), .segment = segment});
    }
    best_sort(&best);
    for (unsigned i = 0; i < best.count && set->count < POLICY_VICTIMS_MAX && budget > 0; i++) {
        const struct candidate *item = &best.items[i];
        if (set_holds(set, item->segment) || gain_with(survey, set, item) < (int)set->gain)
            continue;
        set_add(survey, set, item);
        set->purges++;
        budget -= item->copy;
    }
}

/* 0 when deletes are few. Purging pays when there is a segment to be gained by it. */
static unsigned purge_urgency(const struct survey *survey)
{
    double space = (double)survey->count * survey->segment_bytes;
    double percent = survey->deletes >= survey->segment_bytes ? 100 * survey->deletes / space : 0;
    return percent <= DELETES_PERCENT ? 0 : (unsigned)at_most(1 + 20 * (percent - DELETES_PERCENT), 60);
}

/* ---- the plan -------------------------------------------------------------------------------------------------- */

/* Whether a victim has come back whenever an output begins but the first. */
static bool set_fits_as_it_goes(const struct survey *survey, const struct set *set)
{
    double copy = 0;
    for (unsigned i = 0; i < set->count; i++) {
        copy += set->items[i].copy;
        if (copy > (i + 1) * capacity_of(survey, set->record_max))
            return false;
    }
    return true;
}

static void plan_make(struct policy_plan *plan, const struct survey *survey, struct set *set)
{
    struct best sorted = {.count = set->count};
    memcpy(sorted.items, set->items, sizeof sorted.items);
    for (unsigned i = 0; i < sorted.count; i++)
        sorted.items[i].score = -(double)sorted.items[i].segment->last_lsn;
    best_sort(&sorted);
    memcpy(set->items, sorted.items, sizeof sorted.items);
    if (!set_fits_as_it_goes(survey, set)) {
        for (unsigned i = 0; i < sorted.count; i++)
            sorted.items[i].score = -sorted.items[i].copy;
        best_sort(&sorted);
    }
    for (unsigned i = 0; i < sorted.count; i++)
        plan->victims[i] = sorted.items[i].segment->number;
    plan->count = sorted.count;
    plan->copy_bytes = (uint64_t)set->copy;
    plan->gain = set->gain;
    plan->purges = set->purges;
}

void policy_choose(struct policy_plan *plan, const struct policy_segment *segments, size_t count,
                   const struct policy_store *store, const struct policy_options *options)
{
    KVS_ASSERT(store->segment_bytes > 0);
    KVS_ASSERT(segments != NULL || count == 0);
    *plan = (struct policy_plan){0};
    struct survey survey;
    survey_make(&survey, segments, count, store);
    unsigned need = policy_urgency(store, options), purge = purge_urgency(&survey);
    struct set set = {0};
    take_empty(&survey, &set);
    if (set.count == 0 && need > 0) {
        take_by_score(&survey, &set);
        if (set.count == 0)
            take_least_live(&survey, &set);
    }
    if (purge > 0 && (set.count == 0 || set.copy > 0))
        take_purges(&survey, &set);
    if (set.count == 0)
        return;
    plan_make(plan, &survey, &set);
    if (set.purges > 0 && purge > need)
        need = purge;
    plan->urgency = need > 0 ? need : 1;
}
