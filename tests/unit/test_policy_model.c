/*
 * test_policy_model.c - what the choice of victims comes to over time: amplification, deletes, rest.
 *
 * A model of a log-structured store: keys, segments of records, one log, one output of compaction, tombstones kept for
 * as long as policy_shadows says so. Compaction is given time in proportion to what the log writes and to the urgency,
 * so it works on figures that change under its hands. The model looks after what the policy promises: the log finds a
 * file whenever it needs one, compaction never takes more files than its reserve and what it has given back, and a
 * recovery from all records at any time finds what there is. It prints what it measures.
 */
#include "policy_fixture.h"

#include "base/bytes.h"

#include <stdlib.h>

enum {
    MODEL_SEGMENT_BYTES = 512 * 1024,
    MODEL_SEGMENTS_MAX = 4096,
    MODEL_DELETE_BYTES = 48,
    MODEL_RESERVE = 2,    /* files that only compaction may take */
    MODEL_FULL_SPEED = 4, /* compaction copies that many bytes while the log writes one, at most */
};
#define NOWHERE UINT64_MAX

/* Figures are the same under a sanitizer, which takes minutes for all of them: there every third workload is enough. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { WORKLOAD_STRIDE = 3 };
#else
enum { WORKLOAD_STRIDE = 1 };
#endif

struct model_record {
    uint64_t lsn;
    uint32_t key;
    uint32_t bytes; /* + 1: a delete; sizes are even */
};

enum model_state { MODEL_FREE, MODEL_OPEN, MODEL_SEALED };

struct model_segment {
    struct policy_segment figures;
    enum model_state state;
    bool planned; /* victim of the plan under way */
    uint32_t bytes, count, room;
    struct model_record *records;
};

enum shape { UNIFORM, ZIPFIAN, HOT_COLD, CHURN };

struct workload {
    const char *name;
    enum shape shape;
    unsigned keys;
    unsigned base;         /* CHURN: keys below this are put once */
    unsigned base_permill; /* CHURN: operations that do overwrite one of them */
    unsigned bytes_min, bytes_max;
    unsigned delete_percent;
    unsigned files_percent;     /* files_max, in hundredths of what is live; 0 = no limit */
    unsigned log_max;           /* operations, in multiples of keys */
    double write_max;           /* write amplification there may be */
    double space_max;           /* space amplification, on average */
    double deletes_percent_max; /* of the space, at any time */
};

struct model {
    const struct workload *workload;
    struct model_segment segments[MODEL_SEGMENTS_MAX];
    uint32_t files, in_use, files_max;
    uint32_t order;
    uint32_t log, output; /* open ones; output 0 = none */
    uint64_t lsn, seed;
    uint64_t *where; /* of each key: segment << 32 | record */
    uint32_t *ranks;
    double *zipf;
    uint64_t live_bytes;
    struct policy_plan plan;
    unsigned at, record; /* how far it is worked off */
    unsigned back;       /* victims given back */
    uint32_t shadower;   /* why a delete was needed last, and most likely is again */
    double credit;       /* bytes that compaction may copy */
    uint64_t log_bytes, copied_bytes;
    unsigned stalls; /* urgency 100: the log waited */
    double space_peak, deletes_peak, space_sum;
    unsigned samples;
};

static uint32_t model_available(const struct model *model)
{
    uint32_t files_max = model->files_max > 0 ? model->files_max : MODEL_SEGMENTS_MAX;
    return files_max > model->in_use ? files_max - model->in_use : 0;
}

static uint32_t model_open(struct model *model, bool relocated)
{
    assert_true(model_available(model) > 0);
    uint32_t number = 1;
    while (number <= model->files && model->segments[number].state != MODEL_FREE)
        number++;
    if (number > model->files)
        model->files = number;
    model->in_use++;
    struct model_segment *segment = &model->segments[number];
    segment->state = MODEL_OPEN;
    segment->planned = false;
    segment->bytes = segment->count = 0;
    segment->figures = (struct policy_segment){.number = number,
                                               .relocated = relocated,
                                               .order = model->order++,
                                               .min_lsn = UINT64_MAX,
                                               .begun_lsn = relocated ? model->lsn : 0};
    return number;
}

static void model_add(struct model *model, uint32_t number, struct model_record record)
{
    struct model_segment *segment = &model->segments[number];
    struct policy_segment *figures = &segment->figures;
    if (segment->count == segment->room) {
        segment->room = segment->room == 0 ? 4096 : segment->room * 2;
        segment->records = realloc(segment->records, segment->room * sizeof record);
        assert_non_null(segment->records);
    }
    uint32_t bytes = record.bytes & ~1u;
    segment->bytes += bytes;
    if (record.bytes & 1) {
        if (figures->deletes_bytes == 0 || record.lsn < figures->deletes_min_lsn)
            figures->deletes_min_lsn = record.lsn;
        if (record.lsn > figures->deletes_last_lsn)
            figures->deletes_last_lsn = record.lsn;
        figures->deletes_bytes += bytes;
    } else {
        figures->puts++;
        figures->live_bytes += bytes;
        model->live_bytes += bytes;
        model->where[record.key] = (uint64_t)number << 32 | segment->count;
    }
    if (record.lsn < figures->min_lsn)
        figures->min_lsn = record.lsn;
    if (record.lsn > figures->last_lsn)
        figures->last_lsn = record.lsn;
    if (bytes > figures->record_bytes_max)
        figures->record_bytes_max = bytes;
    segment->records[segment->count++] = record;
}

static bool model_fits(const struct model *model, uint32_t number, uint32_t bytes)
{
    return model->segments[number].bytes + (bytes & ~1u) <= MODEL_SEGMENT_BYTES;
}

/* The key's live record, if there is one, is dead now. */
static void model_bury(struct model *model, uint32_t key)
{
    uint64_t where = model->where[key];
    if (where == NOWHERE)
        return;
    struct model_segment *segment = &model->segments[where >> 32];
    uint32_t bytes = segment->records[(uint32_t)where].bytes;
    segment->figures.live_bytes -= bytes;
    segment->figures.dead_puts++;
    model->live_bytes -= bytes;
    model->where[key] = NOWHERE;
}

static void model_seal_output(struct model *model)
{
    if (model->output != 0)
        model->segments[model->output].state = MODEL_SEALED;
    model->output = 0;
    for (; model->back < model->at; model->back++) {
        struct model_segment *victim = &model->segments[model->plan.victims[model->back]];
        assert_int_equal(victim->figures.live_bytes, 0);
        victim->state = MODEL_FREE;
        model->in_use--;
    }
}

static bool model_shadows(const struct model *model, uint32_t number, uint32_t victim, uint64_t lsn)
{
    return number != victim && model->segments[number].state != MODEL_FREE &&
           policy_shadows(&model->segments[number].figures, lsn);
}

static bool model_delete_needed(struct model *model, uint32_t victim, uint64_t lsn)
{
    if (model_shadows(model, model->shadower, victim, lsn))
        return true;
    for (uint32_t i = 1; i <= model->files; i++) {
        if (model_shadows(model, i, victim, lsn)) {
            model->shadower = i;
            return true;
        }
    }
    return false;
}

static void model_relocate(struct model *model, uint32_t victim, uint32_t index)
{
    struct model_record record = model->segments[victim].records[index];
    bool delete = record.bytes & 1;
    if (delete ? !model_delete_needed(model, victim, record.lsn)
               : model->where[record.key] != ((uint64_t)victim << 32 | index))
        return;
    if (model->output != 0 && !model_fits(model, model->output, record.bytes))
        model_seal_output(model);
    if (model->output == 0)
        model->output = model_open(model, true);
    if (!delete)
        model_bury(model, record.key);
    model_add(model, model->output, record);
    model->copied_bytes += record.bytes & ~1u;
    model->credit -= record.bytes;
}

static struct policy_store model_figures(const struct model *model)
{
    uint32_t available = model_available(model), files_max = model->files_max;
    uint32_t reserve = model->output != 0 ? MODEL_RESERVE - 1 : MODEL_RESERVE;
    uint32_t left = available > reserve ? available - reserve : 0;
    uint32_t addable = (files_max > 0 ? files_max : MODEL_SEGMENTS_MAX) - model->files;
    struct policy_store store = {.segment_bytes = MODEL_SEGMENT_BYTES,
                                 .files = model->files,
                                 .files_free = left > addable ? left - addable : 0,
                                 .files_addable = left < addable ? left : addable,
                                 .open = 1 + (model->output != 0),
                                 .live_bytes = model->live_bytes,
                                 .open_min_lsn = UINT64_MAX};
    for (uint32_t i = 1; i <= model->files; i++) {
        const struct model_segment *segment = &model->segments[i];
        if (segment->state == MODEL_OPEN || segment->planned)
            if (segment->figures.min_lsn < store.open_min_lsn && segment->figures.dead_puts > 0)
                store.open_min_lsn = segment->figures.min_lsn;
    }
    return store;
}

/* Begins the next plan; false when there is none. */
static bool model_plan(struct model *model)
{
    static struct policy_segment segments[MODEL_SEGMENTS_MAX];
    struct policy_store store = model_figures(model);
    size_t count = 0;
    for (uint32_t i = 1; i <= model->files; i++)
        if (model->segments[i].state == MODEL_SEALED)
            segments[count++] = model->segments[i].figures;
    model->plan = choose(segments, count, &store);
    model->at = model->record = model->back = 0;
    for (unsigned i = 0; i < model->plan.count; i++)
        model->segments[model->plan.victims[i]].planned = true;
    return model->plan.count > 0;
}

/* Looks at so many records of the plan's victims; 0: for as long as there is credit. */
static void model_work(struct model *model, unsigned budget)
{
    bool credited = budget == 0;
    while (model->at < model->plan.count && (credited ? model->credit > 0 : budget-- > 0)) {
        uint32_t victim = model->plan.victims[model->at];
        if (model->record < model->segments[victim].count)
            model_relocate(model, victim, model->record++);
        if (model->record == model->segments[victim].count) {
            model->record = 0;
            model->at++;
        }
    }
}

/* Lets compaction work as far as its credit goes; at urgency 100 until that is over. */
static void model_compact(struct model *model, double log_bytes)
{
    bool first = true;
    for (;;) {
        if (model->at == model->plan.count && !model_plan(model)) {
            model->credit = 0;
            return;
        }
        struct policy_store store = model_figures(model);
        unsigned urgency = policy_urgency(&store, &options_200);
        if (urgency < model->plan.urgency && model->plan.purges > 0)
            urgency = model->plan.urgency;
        if (first)
            model->credit += log_bytes * MODEL_FULL_SPEED * urgency / 100;
        else if (urgency == 100)
            model->stalls++;
        first = false;
        model_work(model, urgency == 100 ? 500 : 0);
        if (model->at == model->plan.count)
            model_seal_output(model);
        if (urgency < 100 && (model->credit <= 0 || model->plan.count == 0))
            return;
    }
}

static void model_log(struct model *model, struct model_record record)
{
    if (!model_fits(model, model->log, record.bytes)) {
        model->segments[model->log].state = MODEL_SEALED;
        struct policy_store store = model_figures(model);
        assert_true(store.files_free + store.files_addable > 0); /* else writes would have to stop */
        model->log = model_open(model, false);
    }
    record.lsn = ++model->lsn;
    model_bury(model, record.key);
    model_add(model, model->log, record);
    model->log_bytes += record.bytes & ~1u;
}

/* ---- its workloads --------------------------------------------------------------------------------------------- */

/* Cumulated weights (i + 1) ^ -0.99; each from the one before, by the series of (1 - x) ^ 0.99. */
static void zipf_init(double *zipf, unsigned count)
{
    double weight = 1, sum = 0;
    for (unsigned i = 0; i < count; i++) {
        zipf[i] = sum += weight;
        double x = 1.0 / (i + 2), term = 1, factor = 1;
        for (unsigned k = 1; k < 60 && (term > 1e-18 || term < -1e-18); k++) {
            term *= -x * (0.99 - (k - 1)) / k;
            factor += term;
        }
        weight *= factor;
    }
}

static unsigned zipf_rank(struct model *model, unsigned count)
{
    double point = (double)(next_random(&model->seed) >> 11) / 9007199254740992.0;
    point *= model->zipf[count - 1];
    unsigned low = 0, high = count - 1;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (model->zipf[middle] < point)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint32_t workload_key(struct model *model)
{
    const struct workload *workload = model->workload;
    uint64_t random = next_random(&model->seed) >> 16;
    switch (workload->shape) {
    case UNIFORM:
        return (uint32_t)(random % workload->keys);
    case ZIPFIAN:
        return model->ranks[zipf_rank(model, workload->keys)];
    case HOT_COLD: {
        unsigned hot = workload->keys / 10;
        bool is_hot = next_random(&model->seed) % 100 < 90;
        return model->ranks[is_hot ? random % hot : hot + random % (workload->keys - hot)];
    }
    case CHURN:
        if (next_random(&model->seed) % 1000 < workload->base_permill)
            return (uint32_t)(random % workload->base);
        return (uint32_t)(workload->base + random % (workload->keys - workload->base));
    }
    return 0;
}

static uint32_t workload_bytes(struct model *model)
{
    unsigned range = (model->workload->bytes_max - model->workload->bytes_min) / 16 + 1;
    return (uint32_t)(model->workload->bytes_min + next_random(&model->seed) % range * 16);
}

static void workload_step(struct model *model)
{
    const struct workload *workload = model->workload;
    uint32_t key = workload_key(model);
    bool delete = next_random(&model->seed) % 100 < workload->delete_percent;
    if (workload->shape == CHURN)
        delete = key >= workload->base && model->where[key] != NOWHERE;
    delete = delete &&model->where[key] != NOWHERE;
    model_log(model,
              (struct model_record){.key = key, .bytes = delete ? MODEL_DELETE_BYTES + 1 : workload_bytes(model)});
}

/* What a recovery would find must be what there is: of each key the record with the highest LSN (promise P2). */
static void model_recover(const struct model *model)
{
    unsigned keys = model->workload->keys;
    struct model_record *found = calloc(keys, sizeof *found);
    assert_non_null(found);
    for (uint32_t i = 1; i <= model->files; i++) {
        const struct model_segment *segment = &model->segments[i];
        for (uint32_t j = 0; segment->state != MODEL_FREE && j < segment->count; j++)
            if (segment->records[j].lsn > found[segment->records[j].key].lsn)
                found[segment->records[j].key] = segment->records[j];
    }
    for (unsigned key = 0; key < keys; key++) {
        bool there = found[key].lsn > 0 && !(found[key].bytes & 1);
        if (there != (model->where[key] != NOWHERE))
            fail_msg("key %u, LSN %llu: %s", key, (unsigned long long)found[key].lsn,
                     there ? "a deleted key came back" : "a key was lost");
    }
    free(found);
}

static void model_sample(struct model *model)
{
    double deletes = 0;
    for (uint32_t i = 1; i <= model->files; i++)
        if (model->segments[i].state != MODEL_FREE)
            deletes += (double)model->segments[i].figures.deletes_bytes;
    double space = (double)model->in_use * MODEL_SEGMENT_BYTES, amplification = space / (double)model->live_bytes;
    model->space_sum += amplification;
    model->samples++;
    if (amplification > model->space_peak)
        model->space_peak = amplification;
    if (deletes / space > model->deletes_peak)
        model->deletes_peak = deletes / space;
    if (100 * model->deletes_peak > model->workload->deletes_percent_max)
        fail_msg("%s: deletes take %.1f %% of the space", model->workload->name, 100 * model->deletes_peak);
}

static struct model *model_begin(const struct workload *workload)
{
    struct model *model = calloc(1, sizeof *model);
    assert_non_null(model);
    model->workload = workload;
    model->seed = 0x9E3779B97F4A7C15ull;
    model->where = malloc(workload->keys * sizeof *model->where);
    model->ranks = malloc(workload->keys * sizeof *model->ranks);
    model->zipf = malloc(workload->keys * sizeof *model->zipf);
    assert_true(model->where != NULL && model->ranks != NULL && model->zipf != NULL);
    for (uint32_t i = 0; i < workload->keys; i++) {
        uint32_t other = (uint32_t)(next_random(&model->seed) % (i + 1));
        model->where[i] = NOWHERE;
        model->ranks[i] = i;
        model->ranks[i] = model->ranks[other];
        model->ranks[other] = i;
    }
    zipf_init(model->zipf, workload->keys);
    model->log = model_open(model, false);
    for (uint32_t key = 0; key < workload->keys; key++)
        if (workload->shape != CHURN || key < workload->base)
            model_log(model, (struct model_record){.key = key, .bytes = workload_bytes(model)});
    if (workload->files_percent > 0)
        model->files_max = (uint32_t)(model->live_bytes * workload->files_percent / 100 / MODEL_SEGMENT_BYTES + 1);
    return model;
}

static void model_end(struct model *model)
{
    for (uint32_t i = 0; i < MODEL_SEGMENTS_MAX; i++)
        free(model->segments[i].records);
    free(model->where);
    free(model->ranks);
    free(model->zipf);
    free(model);
}

static void model_run(struct model *model, unsigned steps, bool measured)
{
    uint64_t logged = model->log_bytes;
    unsigned samples = 0;
    for (unsigned i = 0; i < steps; i++) {
        workload_step(model);
        if (model->log_bytes - logged < MODEL_SEGMENT_BYTES / 16)
            continue;
        model_compact(model, (double)(model->log_bytes - logged));
        logged = model->log_bytes;
        if (samples++ % 8 == 0)
            model_sample(model);
        if (measured && samples % 8192 == 0)
            model_recover(model);
    }
}

static void workload_measure(const struct workload *workload)
{
    struct model *model = model_begin(workload);
    model_run(model, workload->log_max * workload->keys, false);
    model->log_bytes = model->copied_bytes = model->stalls = model->samples = 0;
    model->space_sum = model->space_peak = 0;
    model_run(model, workload->log_max * workload->keys, true);
    model_recover(model);
    double writes = (double)(model->log_bytes + model->copied_bytes) / (double)model->log_bytes;
    double space = model->space_sum / model->samples;
    print_message("%-32s %5u %6.3f %6.3f %6.3f %6.1f %6u\n", workload->name, model->in_use, writes, space,
                  model->space_peak, 100 * model->deletes_peak, model->stalls);
    assert_true(writes <= workload->write_max);
    assert_true(space <= workload->space_max);
    model_end(model);
}

static void workloads_measure(const struct workload *workloads, size_t count)
{
    print_message("%-32s %5s %6s %6s %6s %6s %6s\n", "", "files", "write", "space", "peak", "del. %", "stalls");
    for (size_t i = 0; i < count; i += WORKLOAD_STRIDE)
        workload_measure(&workloads[i]);
}

static void test_policy__amplification_is_bounded(void **state)
{
    (void)state;
    static const struct workload workloads[] = {
        {"uniform", UNIFORM, 200000, 0, 0, 256, 256, 0, 0, 6, 1.4, 2, 0},
        {"uniform, files_max 2x", UNIFORM, 200000, 0, 0, 256, 256, 0, 200, 6, 1.45, 2, 0},
        {"uniform, 64..1024 bytes", UNIFORM, 100000, 0, 0, 64, 1024, 0, 0, 6, 1.4, 2, 0},
        {"uniform, 10 % deletes", UNIFORM, 200000, 0, 0, 256, 256, 10, 0, 6, 1.45, 2, 5},
        {"uniform, 40 % deletes, 64..1024", UNIFORM, 200000, 0, 0, 64, 1024, 40, 0, 6, 1.5, 2, 8},
        {"uniform, files_max 1.25x", UNIFORM, 200000, 0, 0, 256, 256, 0, 125, 6, 4.5, 1.25, 0},
        {"zipfian 0.99", ZIPFIAN, 200000, 0, 0, 256, 256, 0, 0, 10, 1.48, 2, 0},
        {"zipfian 0.99, files_max 2x", ZIPFIAN, 200000, 0, 0, 256, 256, 0, 200, 10, 1.5, 2, 0},
        {"zipfian 0.99, 64..1024 bytes", ZIPFIAN, 100000, 0, 0, 64, 1024, 0, 0, 10, 1.48, 2, 0},
        {"zipfian 0.99, 10 % deletes", ZIPFIAN, 200000, 0, 0, 256, 256, 10, 0, 10, 1.6, 2, 10},
        {"hot-cold 90-10", HOT_COLD, 200000, 0, 0, 256, 256, 0, 0, 10, 1.35, 2, 0},
        {"hot-cold 90-10, files_max 2x", HOT_COLD, 200000, 0, 0, 256, 256, 0, 200, 10, 1.35, 2, 0},
        {"hot-cold 90-10, 10 % deletes", HOT_COLD, 200000, 0, 0, 256, 256, 10, 0, 10, 1.5, 2, 12},
    };
    workloads_measure(workloads, ARRAY_COUNT(workloads));
}

/* Keys come and go beside others that stay, or change rarely. The last two are hard: a delete is nearly as large as a
 * put, so that even few generations of deletes take much of the space. */
static void test_policy__deletes_do_not_pile_up(void **state)
{
    (void)state;
    static const struct workload workloads[] = {
        {"churn, base static", CHURN, 220000, 160000, 0, 256, 256, 0, 0, 15, 1.3, 2, 15},
        {"churn, base static, files_max 2x", CHURN, 220000, 160000, 0, 256, 256, 0, 200, 15, 1.3, 2, 15},
        {"churn, 0.5 % for the base", CHURN, 220000, 160000, 5, 256, 256, 0, 0, 15, 2.3, 2, 22},
        {"churn, 5 % for the base", CHURN, 220000, 160000, 50, 256, 256, 0, 0, 10, 2.3, 2, 22},
        {"churn, 0.5 %, puts of 64 bytes", CHURN, 440000, 320000, 5, 64, 64, 0, 0, 8, 3.5, 2, 27},
        {"churn, 0.5 %, many, 64..256", CHURN, 900000, 160000, 5, 64, 256, 0, 0, 3, 3, 2, 22},
    };
    workloads_measure(workloads, ARRAY_COUNT(workloads));
}

/* When the log stands still, compaction comes to rest after few plans, whatever it had to deal with. */
static void test_policy__comes_to_rest(void **state)
{
    (void)state;
    static const struct workload workloads[] = {
        {"one segment", UNIFORM, 500, 0, 0, 256, 256, 10, 0, 100, 2, 99, 100},
        {"few segments", UNIFORM, 8000, 0, 0, 256, 256, 10, 0, 20, 2, 99, 100},
        {"few segments, few files", UNIFORM, 12000, 0, 0, 256, 256, 10, 200, 20, 3, 99, 100},
        {"few segments, large records", UNIFORM, 40, 0, 0, 200000, 300000, 10, 0, 100, 9, 99, 100},
        {"hot-cold, files_max 1.3x", HOT_COLD, 100000, 0, 0, 64, 1024, 20, 130, 6, 9, 99, 100},
        {"churn", CHURN, 100000, 60000, 5, 64, 256, 0, 0, 10, 3, 99, 100},
    };
    print_message("%-32s %6s %6s %6s %6s\n", "", "write", "files", "plans", "copied");
    for (size_t i = 0; i < ARRAY_COUNT(workloads); i++) {
        struct model *model = model_begin(&workloads[i]);
        model_run(model, workloads[i].log_max * workloads[i].keys, true);
        double writes = (double)(model->log_bytes + model->copied_bytes) / (double)model->log_bytes;
        uint64_t copied = model->copied_bytes;
        unsigned plans = 0, files = model->in_use;
        while (model->at < model->plan.count || model_plan(model)) {
            model_work(model, UINT32_MAX);
            model_seal_output(model);
            plans++;
            assert_true(plans < 1000);
        }
        copied = (model->copied_bytes - copied) / MODEL_SEGMENT_BYTES;
        print_message("%-32s %6.3f %6u %6u %6u\n", workloads[i].name, writes, files, plans, (unsigned)copied);
        assert_true(model->in_use <= files);
        assert_true(copied <= 4ull * files);
        assert_true(writes <= workloads[i].write_max);
        model_recover(model);
        model_end(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy__amplification_is_bounded),
        cmocka_unit_test(test_policy__deletes_do_not_pile_up),
        cmocka_unit_test(test_policy__comes_to_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
