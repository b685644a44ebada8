/*
 * sim_groups.c - see sim_groups.h.
 *
 * Happy path of a group: HOLDING, one shard after the other → APPENDING and WRITING, at its home → PUBLISHING, all
 * owners at once, each after a pause of its own → SHOWN, at home: the oracle is told → FREEING, all owners. Who ends a
 * stage wakes those who have work in the next; a timer wakes those who were told to try again.
 *
 * Failure modes: without a key, or without room in the log, nothing was done, and all keys are freed. When the home's
 * log fails before the group is durable nobody knows what a start will find: nothing is shown, and the operations stay
 * open. Errors need a reason, and an answer that contradicts the engine's contract breaks the run.
 */
#include "sim_groups.h"

#include "draw.h"
#include "sim_core.h"
#include "verdict.h"

#include "base/assert.h"
#include "base/hash.h"
#include "engine/store.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEYS_MAX = 8, UNDER_WAY_MAX = 5, BACKLOG_MAX = 60, LOOKS_MAX = 30 };
#define TICK_NS   1000000u
#define MS        1000000u
#define FAR_MS    7000000000000u /* no clock of the simulator comes so far */
#define LONG_PAST 1000u

enum stage { UNUSED, HOLDING, APPENDING, WRITING, PUBLISHING, SHOWN, FREEING };

struct part {
    struct engine_op hold;
    struct group *group;
    unsigned key, shard;
    uint32_t op; /* the oracle's number */
    bool asked, told, held, published, freed;
    bool found;
    unsigned seen; /* the version that was there */
    uint64_t gate;
    size_t name_bytes;
    uint8_t name[ORACLE_KEY_BYTES_MAX];
    uint8_t *value;
    struct engine_change planned;
    const struct engine_change *change; /* NULL: there is nothing to delete */
};

struct group {
    struct sim_groups *groups;
    enum stage stage;
    unsigned home, at; /* shards: of the log, that is being asked for its keys */
    bool blind;
    bool deletes; /* everything */
    unsigned looks;
    bool refused; /* nothing was done */
    bool lost;    /* nobody knows whether it is durable */
    bool appended;
    unsigned count, change_count;
    uint64_t bytes;
    uint64_t after_lsn;
    uint64_t not_before_ns[HOST_SHARDS_MAX]; /* PUBLISHING */
    struct engine_group group;
    struct engine_change changes[KEYS_MAX];
    struct part parts[KEYS_MAX];
};

struct sim_groups {
    struct oracle *oracle;
    struct tally *tally;
    const struct circumstances *circumstances;
    struct host *host; /* NULL: none */
    struct ring *ring;
    struct ring_op timer;
    bool again[HOST_SHARDS_MAX]; /* these are to be woken at the next tick */
    unsigned left;               /* to be begun */
    uint64_t random;
    struct group under_way[UNDER_WAY_MAX];
};

static uint64_t draw(struct sim_groups *groups, uint64_t below)
{
    return draw_next(&groups->random) % below;
}

static struct engine_shard *engine_at(const struct sim_groups *groups, unsigned shard)
{
    return groups->host->node->shards[shard].engine;
}

/* A flush waits for what had begun before on any shard; what comes later waits for the flush. */
static bool flush_waits(const struct sim_groups *groups)
{
    bool waits = false;
    for (unsigned i = 0; i < groups->host->config.threads; i++)
        waits = waits || groups->host->node->shards[i].flush_pause;
    return waits;
}

static void wake_all(const struct sim_groups *groups)
{
    for (unsigned i = 0; i < groups->host->config.threads; i++)
        host_wake(groups->host, i);
}

/* ---- the beginning --------------------------------------------------------------------------------------------- */

/* A key that the group does not have yet, and none with an equal hash: such a key's hold would wait for the other's. */
static bool choose_key(struct group *group, struct part *part)
{
    struct sim_groups *groups = group->groups;
    unsigned relaxed = 0;
    while (oracle_is_relaxed(groups->oracle, relaxed))
        relaxed++;
    unsigned count = oracle_keys(groups->oracle) - relaxed, hot = count / 10 + 3;
    part->key = relaxed + (unsigned)draw(groups, draw(groups, 3) == 0 && hot < count ? hot : count);
    part->name_bytes = oracle_name(groups->oracle, part->key, part->name);
    struct slice name = slice_make(part->name, part->name_bytes);
    uint64_t hash = hash_key(name, engine_hash_seed(groups->host->node->engine));
    for (unsigned i = 0; i < group->count; i++) {
        if (group->parts[i].hold.request.hash == hash)
            return false;
    }
    part->shard = hash_shard(hash, groups->host->config.threads);
    part->hold.request = (struct engine_request){.action = ENGINE_HOLD,
                                                 .group = true,
                                                 .blind = group->blind,
                                                 .head = false,
                                                 .asked_ns = sim->now_ns,
                                                 .hash = hash,
                                                 .key = name};
    return true;
}

/* A version whose value may be part of a group. */
static unsigned choose_version(const struct sim_groups *groups, unsigned key, size_t *bytes)
{
    uint64_t most = engine_change_bytes_max(groups->host->node->engine);
    for (;;) {
        unsigned version = oracle_version(groups->oracle, key);
        *bytes = oracle_value_bytes(groups->oracle, key, version);
        if (*bytes <= most)
            return version;
    }
}

/* Most changes are puts; of those some expire in a far future, or have expired long ago, which is a way to delete. */
static void choose_change(struct group *group, struct part *part, struct engine_change *change)
{
    struct sim_groups *groups = group->groups;
    bool removes = group->deletes || (!group->blind && draw(groups, 3) == 0), expired = draw(groups, 16) == 0;
    bool gone = removes || expired;
    size_t bytes = 0;
    unsigned version = gone ? 0 : choose_version(groups, part->key, &bytes);
    part->value = malloc(bytes + 1);
    KVS_ASSERT(part->value != NULL);
    if (!gone)
        oracle_value(groups->oracle, part->key, version, part->value);
    *change = (struct engine_change){.key = part->hold.request.key,
                                     .value = slice_make(part->value, bytes),
                                     .removes = removes,
                                     .expires_ms = expired                ? LONG_PAST
                                                   : draw(groups, 6) == 0 ? FAR_MS
                                                                          : 0};
    enum history_kind kind = gone ? HISTORY_REMOVE : HISTORY_WRITE;
    part->op = oracle_begin(groups->oracle, part->key, group->blind ? kind : HISTORY_SWAP, version, 0);
    group->bytes += record_bytes(part->name_bytes + RECORD_EXPIRY_BYTES, bytes);
}

static void on_held(struct engine_op *op);

static void begin(struct sim_groups *groups, struct group *group)
{
    unsigned threads = groups->host->config.threads, wanted = 2 + (unsigned)draw(groups, KEYS_MAX - 1);
    uint32_t ops[KEYS_MAX];
    *group = (struct group){.groups = groups, .stage = HOLDING, .blind = draw(groups, 3) == 0};
    group->deletes = !group->blind && draw(groups, 4) == 0;
    group->home = (unsigned)draw(groups, threads);
    for (unsigned tries = 0; tries < 3 * wanted && group->count < wanted; tries++) {
        struct part *part = &group->parts[group->count];
        part->group = group;
        part->hold.done = on_held;
        group->count += choose_key(group, part);
    }
    for (unsigned i = 0; i < group->count; i++) {
        choose_change(group, &group->parts[i], &group->parts[i].planned);
        ops[i] = group->parts[i].op;
    }
    for (unsigned i = 0; i < threads; i++) {
        static const uint64_t pauses_ms[] = {5, 300, 3000};
        uint64_t chance = draw(groups, 16);
        uint64_t most_ms = chance < 9 ? 0 : pauses_ms[chance < 12 ? 0 : chance < 14 ? 1 : 2];
        group->not_before_ns[i] = most_ms == 0 ? 0 : draw(groups, most_ms * MS);
    }
    oracle_group(groups->oracle, ops, group->count);
    groups->host->node->shards[group->home].changes_under_way++;
    groups->tally->groups++;
    host_wake(groups->host, 0);
}

static void begin_more(struct sim_groups *groups)
{
    for (unsigned i = 0; i < UNDER_WAY_MAX && groups->left > 0; i++) {
        if (groups->under_way[i].stage != UNUSED || flush_waits(groups))
            continue;
        groups->left--;
        begin(groups, &groups->under_way[i]);
    }
}

static void on_tick(struct ring_op *op)
{
    struct sim_groups *groups = container_of(op, struct sim_groups, timer);
    begin_more(groups);
    for (unsigned i = 0; i < groups->host->config.threads; i++) {
        if (groups->again[i] || draw(groups, 4) == 0)
            host_wake(groups->host, i);
        groups->again[i] = false;
    }
    if (!sim_groups_idle(groups))
        ring_timer(groups->ring, &groups->timer, TICK_NS);
}

/* ---- errors ---------------------------------------------------------------------------------------------------- */

static void judge_error(const struct group *group, enum kvs_err error, const char *what)
{
    const struct circumstances *why = group->groups->circumstances;
    const struct store *store = container_of(group->groups->host->node->engine, const struct store, base);
    bool right = true;
    if (error == KVS_ERR_TOO_LARGE)
        right = group->bytes > log_record_bytes_max(&store->segments);
    else if (error == KVS_ERR_NO_SPACE)
        right = why->space_may_lack || why->log_limited || why->writes_may_fail;
    else if (error == KVS_ERR_FAILED)
        right = why->writes_may_fail;
    else if (error == KVS_ERR_CORRUPT || error == KVS_ERR_IO)
        right = why->damage_may_show || why->reads_may_fail || why->writes_may_fail;
    if (!right)
        broken("an error without a reason: a group's %s: %s", what, kvs_err_text(error));
    story("a group's %s: %s", what, kvs_err_text(error));
}

static void refuse(struct group *group, enum kvs_err error, const char *what)
{
    judge_error(group, error, what);
    group->refused = true;
    group->groups->tally->groups_refused++;
}

/* ---- in the turns of a shard ----------------------------------------------------------------------------------- */

static void on_held(struct engine_op *op)
{
    struct part *part = container_of(op, struct part, hold);
    struct group *group = part->group;
    struct oracle *oracle = group->groups->oracle;
    const struct engine_result *result = &op->result;
    part->told = true;
    part->held = result->error == KVS_ERR_OK;
    if (!part->held) {
        if (!group->refused)
            refuse(group, result->error, "hold");
        engine_op_release(op);
        return;
    }
    part->found = result->found;
    part->gate = result->gate;
    if (result->found && !group->blind)
        part->seen = oracle_recognize(oracle, part->key, result->value);
}

/* What it has read is durable, or never will be. */
static bool part_is_held(const struct part *part, struct engine_shard *engine)
{
    return part->told && (!part->held || part->gate <= engine_durable(engine) || engine_failed(engine));
}

static void begin_appending(struct group *group)
{
    const struct sim_groups *groups = group->groups;
    for (unsigned i = 0; i < group->count; i++) {
        const struct part *part = &group->parts[i];
        if (!group->refused && part->found && part->gate <= engine_durable(engine_at(groups, part->shard)))
            oracle_group_found(groups->oracle, part->op);
    }
    for (unsigned i = 0; i < group->count; i++) {
        struct part *part = &group->parts[i];
        if (part->planned.removes && !part->found)
            continue; /* as a node: a delete without need would use up what is kept for others */
        group->changes[group->change_count] = part->planned;
        part->change = &group->changes[group->change_count++];
    }
    group->stage = group->refused ? FREEING : group->change_count == 0 ? SHOWN : APPENDING;
    if (group->refused)
        wake_all(groups);
    else
        host_wake(groups->host, group->home);
}

/* The keys of the shard whose turn it is, all in one turn; then the next shard. */
static bool hold(struct group *group, unsigned shard)
{
    struct engine_shard *engine = engine_at(group->groups, shard);
    bool did = false, all = true;
    for (unsigned i = 0; i < group->count; i++) {
        struct part *part = &group->parts[i];
        if (part->shard != shard || part->asked || group->refused)
            continue;
        did = part->asked = true;
        engine_submit(engine, &part->hold);
    }
    for (unsigned i = 0; i < group->count; i++) {
        const struct part *part = &group->parts[i];
        if (part->shard != shard || !part->asked)
            continue;
        all = all && part_is_held(part, engine);
        if (part->held && part->gate > engine_durable(engine) && engine_failed(engine) && !group->refused)
            refuse(group, KVS_ERR_FAILED, "hold");
    }
    if (!all)
        return did;
    if (engine_lsn(engine) > group->after_lsn)
        group->after_lsn = engine_lsn(engine);
    group->at++;
    if (group->at == group->groups->host->config.threads || group->refused)
        begin_appending(group);
    else
        host_wake(group->groups->host, group->at);
    return true;
}

static bool append(struct group *group)
{
    struct sim_groups *groups = group->groups;
    enum kvs_err err = engine_group_append(engine_at(groups, group->home), &group->group, group->changes,
                                           group->change_count, group->after_lsn);
    if (err == KVS_ERR_AGAIN) {
        groups->again[group->home] = true;
        return false;
    }
    group->appended = err == KVS_ERR_OK;
    group->stage = WRITING;
    if (err != KVS_ERR_OK) {
        refuse(group, err, "append");
        group->stage = FREEING;
        wake_all(groups);
    }
    return true;
}

static bool await_durable(struct group *group)
{
    const struct sim_groups *groups = group->groups;
    const struct engine_shard *engine = engine_at(groups, group->home);
    bool durable = engine_durable(engine) >= group->group.gate;
    if (!durable && !engine_failed(engine))
        return false;
    if (!durable)
        judge_error(group, KVS_ERR_FAILED, "write");
    group->lost = !durable;
    for (unsigned i = 0; i < group->count && durable; i++)
        oracle_group_durable(groups->oracle, group->parts[i].op);
    for (unsigned i = 0; i < HOST_SHARDS_MAX; i++)
        group->not_before_ns[i] += sim->now_ns;
    group->stage = PUBLISHING;
    wake_all(groups);
    return true;
}

static bool publish(struct group *group, unsigned shard)
{
    struct sim_groups *groups = group->groups;
    bool did = false, all = true;
    bool early = sim->now_ns < group->not_before_ns[shard];
    for (unsigned i = 0; i < group->count; i++) {
        struct part *part = &group->parts[i];
        if (part->shard != shard || part->published) {
            all = all && part->published;
            continue;
        }
        const struct engine_change *change = group->lost ? NULL : part->change;
        if (early || (part->change != NULL && engine_publish(&part->hold, change, &group->group) != KVS_ERR_OK)) {
            groups->again[shard] = true;
            return did;
        }
        did = part->published = true;
    }
    if (!all || group->stage != PUBLISHING)
        return did;
    group->stage = SHOWN;
    host_wake(groups->host, group->home);
    return true;
}

/* Whoever hears of it knows that all keys have it. */
static bool answer(struct group *group)
{
    struct sim_groups *groups = group->groups;
    if (group->appended)
        engine_group_end(engine_at(groups, group->home), &group->group);
    for (unsigned i = 0; i < group->count; i++) {
        const struct part *part = &group->parts[i];
        if (group->lost)
            oracle_leave(groups->oracle, part->op);
        else if (group->blind)
            oracle_end(groups->oracle, part->op, 0, -1);
        else
            oracle_end(groups->oracle, part->op, part->seen, part->found);
        if (group->lost)
            oracle_group_released(groups->oracle, part->op);
    }
    groups->tally->groups_shown += !group->lost;
    group->stage = FREEING;
    wake_all(groups);
    return true;
}

static void on_freed(struct engine_op *op)
{
    struct part *part = container_of(op, struct part, hold);
    engine_op_release(op);
    part->freed = true;
}

static bool set_free(struct group *group, unsigned shard)
{
    bool did = false, all = true;
    for (unsigned i = 0; i < group->count; i++) {
        struct part *part = &group->parts[i];
        if (part->shard == shard && part->held && part->hold.done == on_held) {
            did = true;
            part->hold.done = on_freed;
            engine_conclude(&part->hold);
        }
        all = all && (!part->held || part->freed);
    }
    if (!all || group->stage != FREEING)
        return did;
    for (unsigned i = 0; i < group->count; i++) {
        if (group->refused)
            oracle_refuse(group->groups->oracle, group->parts[i].op);
        free(group->parts[i].value);
    }
    group->groups->host->node->shards[group->home].changes_under_way--;
    group->stage = UNUSED; /* the next tick begins another */
    return true;
}

/* What the thread of this shard finds of a key; not all answers come at once. */
static void look_at(struct sim_groups *groups, const struct part *part, unsigned shard)
{
    struct engine_shard *engine = engine_at(groups, shard);
    const struct engine_request request = {
        .action = ENGINE_GET, .hash = part->hold.request.hash, .key = part->hold.request.key};
    struct engine_result result;
    uint32_t op = oracle_begin(groups->oracle, part->key, HISTORY_READ, 0, 0);
    engine_section_begin(engine);
    enum engine_answer answer = part->shard == shard ? engine_try(engine, &request, &result)
                                                     : engine_try_get(engine, part->shard, &request, &result);
    if (answer == ENGINE_DONE && result.error == KVS_ERR_OK && result.gate == 0)
        oracle_end(groups->oracle, op, result.found ? oracle_recognize(groups->oracle, part->key, result.value) : 0,
                   -1);
    else
        oracle_leave(groups->oracle, op);
    engine_section_end(engine);
}

/* A group that some shards have shown and others have not is looked at, one key after another. */
static void look(struct sim_groups *groups, unsigned shard)
{
    for (unsigned i = 0; i < UNDER_WAY_MAX; i++) {
        struct group *group = &groups->under_way[i];
        unsigned published = 0;
        for (unsigned j = 0; j < group->count; j++)
            published += group->parts[j].published;
        if (group->stage != PUBLISHING || published == 0 || group->lost || group->looks == LOOKS_MAX)
            continue;
        group->looks++;
        look_at(groups, &group->parts[draw(groups, group->count)], shard);
        look_at(groups, &group->parts[draw(groups, group->count)], shard);
    }
}

/* One stage further, as far as it is this shard's to do; false: nothing was done. */
static bool advance(struct group *group, unsigned shard)
{
    switch (group->stage) {
    case HOLDING:
        return group->at == shard && hold(group, shard);
    case APPENDING:
        return group->home == shard && append(group);
    case WRITING:
        return group->home == shard && await_durable(group);
    case PUBLISHING:
        return publish(group, shard);
    case SHOWN:
        return group->home == shard && answer(group);
    case FREEING:
        return set_free(group, shard);
    case UNUSED:
        break;
    }
    return false;
}

/* struct host, aside. */
static bool turn(void *context, unsigned shard)
{
    struct sim_groups *groups = context;
    bool did = false;
    for (unsigned i = 0; i < UNDER_WAY_MAX; i++) {
        while (advance(&groups->under_way[i], shard))
            did = true;
    }
    look(groups, shard);
    return did;
}

/* ---- the contract ---------------------------------------------------------------------------------------------- */

struct sim_groups *sim_groups_create(struct oracle *oracle, struct tally *tally,
                                     const struct circumstances *circumstances)
{
    struct sim_groups *groups = calloc(1, sizeof(*groups));
    KVS_ASSERT(groups != NULL);
    groups->oracle = oracle;
    groups->tally = tally;
    groups->circumstances = circumstances;
    return groups;
}

void sim_groups_free(struct sim_groups *groups)
{
    KVS_ASSERT(sim_groups_idle(groups));
    free(groups);
}

void sim_groups_boot(struct sim_groups *groups, struct host *host, struct ring *ring)
{
    KVS_ASSERT(sim_groups_idle(groups));
    groups->host = host;
    groups->ring = ring;
    ring_op_init(&groups->timer, on_tick);
    host->aside = turn;
    host->aside_context = groups;
}

static void abandon(struct group *group)
{
    struct oracle *oracle = group->groups->oracle;
    bool told = group->stage == FREEING && !group->refused;
    for (unsigned i = 0; i < group->count; i++) {
        struct part *part = &group->parts[i];
        if (part->held && !part->freed)
            engine_op_release(&part->hold);
        if (!told && group->appended)
            oracle_leave(oracle, part->op);
        else if (!told)
            oracle_refuse(oracle, part->op);
        free(part->value);
    }
    group->groups->tally->groups_unanswered += !told && group->appended;
    group->stage = UNUSED;
}

void sim_groups_abandon(struct sim_groups *groups)
{
    for (unsigned i = 0; i < UNDER_WAY_MAX; i++) {
        if (groups->under_way[i].stage != UNUSED)
            abandon(&groups->under_way[i]);
    }
    groups->left = 0;
    memset(groups->again, 0, sizeof(groups->again));
}

void sim_groups_work(struct sim_groups *groups, unsigned count, uint64_t seed)
{
    groups->random = seed;
    groups->left += count;
    if (groups->left > BACKLOG_MAX)
        groups->left = BACKLOG_MAX;
    begin_more(groups);
    if (!sim_groups_idle(groups) && !ring_op_active(&groups->timer))
        ring_timer(groups->ring, &groups->timer, TICK_NS);
}

bool sim_groups_idle(const struct sim_groups *groups)
{
    bool idle = groups->left == 0;
    for (unsigned i = 0; i < UNDER_WAY_MAX; i++)
        idle = idle && groups->under_way[i].stage == UNUSED;
    return idle;
}

void sim_groups_describe(const struct sim_groups *groups)
{
    static const char *const names[] = {"unused", "holding", "appending", "writing", "publishing", "shown", "freeing"};
    for (unsigned i = 0; i < UNDER_WAY_MAX; i++) {
        const struct group *group = &groups->under_way[i];
        if (group->stage == UNUSED)
            continue;
        fprintf(stderr, "a group of %u keys, home %u, at %u, %s:", group->count, group->home, group->at,
                names[group->stage]);
        for (unsigned j = 0; j < group->count; j++)
            fprintf(stderr, " key %u%s%s", group->parts[j].key, group->parts[j].held ? " held" : "",
                    group->parts[j].published ? " published" : "");
        fprintf(stderr, "\n");
    }
}
