/*
 * store_ops.c - answering from RAM.
 *
 * A look-up walks the index candidates, newest first, and compares the key in each resident record. A candidate whose
 * record is only on disk (cold) cannot be compared here:
 *   GET      has to wait for a disk read, unless a newer resident record has the key;
 *   PUT      does not wait: it goes in front of the cold candidates as an unsettled entry, as long as not too many of
 *            them are being settled;
 *   REMOVE   has to know, because its reply says whether the key was there.
 */
#include "engine/store.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/hash.h"

enum { GLANCE_MAX = 8 /* candidates that a REMOVE may have to be answered at once; there is hardly ever a second */ };

/* ---- reading --------------------------------------------------------------------------------------------------- */

bool store_expired(struct store_shard *reader, const struct record_header *record)
{
    uint64_t expires_ms = record_expires_ms(record);
    if (!engine_expired(&reader->base, expires_ms))
        return false;
    if (expires_ms > reader->expiry.shown_ms)
        reader->expiry.shown_ms = expires_ms;
    return true;
}

void store_result(struct store_shard *reader, const struct record_header *record, const struct log *log,
                  const struct engine_request *request, struct engine_result *result)
{
    result->error = KVS_ERR_OK;
    result->found = record->kind == RECORD_PUT && !store_expired(reader, record);
    result->value = result->found ? record_value(record) : slice_make(NULL, 0);
    result->expires_ms = result->found ? record_expires_ms(record) : 0;
    result->value_bytes = result->value.size;
    result->version = result->found ? record->lsn : 0;
    result->memory = NULL;
    result->large_id = 0;
    if (result->found && record_is_large(record)) {
        const struct value_descriptor descriptor = record_descriptor(record);
        result->value = slice_make(NULL, 0);
        result->value_bytes = descriptor.value_bytes;
        result->large_id = descriptor.id;
    }
    result->gate = request->relaxed || store_is_durable(log, record) ? 0 : record->lsn;
}

/* The record at `address`, in its segment's image or in the cache; NULL when it is only on disk. Owner's thread, inside
 * a section. */
const struct record_header *store_look(struct store_shard *shard, uint64_t address)
{
    const struct record_header *record = store_resident(shard->store, address);
    struct read_cache *cache = atomic_load_explicit(&shard->cache, memory_order_relaxed);
    if (record != NULL || cache == NULL)
        return record;
    const struct segment_table *table = &shard->store->segments;
    return read_cache_find(cache, segment_get(table, address_segment(address, table->shift))->uid, address);
}

/* MUST_WAIT when a cold candidate comes before the answer, or that is a large value. `own`: on the owner's thread, for
 * its own ends. */
static enum engine_answer look_up(struct store_shard *reader, struct store_shard *owner, bool own,
                                  const struct engine_request *request, struct engine_result *result)
{
    struct index_cursor cursor;
    struct index_entry entry;
    index_find(owner->index, request->hash, &cursor);
    while (index_next(&cursor, &entry)) {
        const struct record_header *record =
            own ? store_look(owner, entry.address) : store_resident(owner->store, entry.address);
        if (record == NULL)
            return ENGINE_MUST_WAIT;
        if (record_has_key(record, request->key) || canary_on(CANARY_RESIDENT_KEY_IGNORED)) {
            store_result(reader, record, &owner->log, request, result);
            if (own && !result->found && record->kind == RECORD_PUT)
                store_expiry_met(owner, request->hash, entry.address, record_is_large(record));
            if (!own && record->kind == RECORD_PUT && canary_on(CANARY_FOREIGN_EXPIRY_IGNORED)) {
                result->found = true;
                result->value = record_value(record);
            }
            return result->large_id != 0 && !request->head ? ENGINE_MUST_WAIT : ENGINE_DONE;
        }
    }
    *result = (struct engine_result){.error = KVS_ERR_OK};
    return ENGINE_DONE;
}

enum engine_answer store_try_get(struct engine_shard *reader, unsigned owner_id, const struct engine_request *request,
                                 struct engine_result *result)
{
    struct store_shard *self = store_shard_of(reader);
    struct store_shard *owner = self->store->shards[owner_id];
    uint64_t settles = atomic_load_explicit(&owner->settles, memory_order_acquire);
    if (look_up(self, owner, false, request, result) != ENGINE_DONE)
        return ENGINE_ASK_OWNER;
    atomic_thread_fence(memory_order_acquire);
    if (canary_on(CANARY_FOREIGN_READ_UNGATED))
        result->gate = 0;
    bool unsure = !result->found && atomic_load_explicit(&owner->settles, memory_order_relaxed) != settles;
    /* Of a group that is being shown another key may not be yet. */
    bool held =
        atomic_load_explicit(&owner->held_in_group, memory_order_relaxed) > 0 && !canary_on(CANARY_GROUP_SEEN_IN_PART);
    return unsure || held || result->gate != 0 ? ENGINE_ASK_OWNER : ENGINE_DONE;
}

void store_prefetch(struct engine_shard *reader, unsigned owner_id, uint64_t hash, enum engine_prefetch_step step)
{
    const struct store *store = store_shard_of(reader)->store;
    const struct index *index = store->shards[owner_id]->index;
    if (step == ENGINE_PREFETCH_INDEX) {
        index_prefetch(index, hash);
        return;
    }
    struct index_cursor cursor;
    struct index_entry entry;
    index_find(index, hash, &cursor);
    const void *record = index_next(&cursor, &entry) ? store_resident(store, entry.address) : NULL;
    if (record != NULL)
        __builtin_prefetch(record);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* What the candidates of a key look like to a writer. */
struct survey {
    bool resident_found; /* the cursor stands on the newest record of the key that is in RAM, or known */
    bool behind_cold;    /* … but an unsettled cold candidate, which may be newer, comes before it */
    bool was_put;        /* that record is a put … */
    bool expiring;       /* … with an expiry … */
    bool expired;        /* … that has passed */
    bool unsettled;      /* its entry is */
    struct index_entry entry;
    bool large; /* … and its value in a file: */
    struct value_descriptor descriptor;
    bool cold; /* there are cold candidates */
    struct index_cursor at;
};

/* What is known of the record at this address: its position there; known->count: nothing. */
static unsigned known_position(const struct store_known *known, uint64_t address)
{
    unsigned i = 0;
    while (i < known->count && (known->addresses[i] != address || (known->compared >> i & 1) == 0))
        i++;
    return i;
}

/* The key's newest record, in RAM or read by the operation before. */
static void survey_note(struct store_shard *shard, struct survey *survey, const struct record_header *record,
                        const struct store_known *known, unsigned position)
{
    survey->resident_found = true;
    survey->was_put = record == NULL || record->kind == RECORD_PUT;
    if (record != NULL) {
        survey->expiring = record_expires_ms(record) != 0;
        survey->expired = store_expired(shard, record);
        survey->large = record_is_large(record);
        if (survey->large)
            survey->descriptor = record_descriptor(record);
        return;
    }
    survey->expiring = (known->expiring >> position & 1) != 0;
    survey->expired = (known->expired >> position & 1) != 0;
    for (unsigned i = 0; i < known->large_count; i++) {
        if (known->large[i].position == position) {
            survey->large = true;
            survey->descriptor = known->large[i].descriptor;
        }
    }
}

static void survey_take(struct store_shard *shard, const struct engine_request *request,
                        const struct store_known *known, struct survey *survey)
{
    *survey = (struct survey){0};
    bool cold_unsettled = false;
    struct index_cursor cursor;
    struct index_entry entry;
    index_find(shard->index, request->hash, &cursor);
    while (index_next(&cursor, &entry)) {
        const struct record_header *record = store_look(shard, entry.address);
        unsigned position = record != NULL ? known->count : known_position(known, entry.address);
        if (record == NULL && position == known->count) {
            survey->cold = true;
            cold_unsettled = cold_unsettled || entry.unsettled;
            continue;
        }
        bool equal = record != NULL ? record_has_key(record, request->key) : (known->equal >> position & 1) != 0;
        if (!equal || survey->resident_found)
            continue;
        survey_note(shard, survey, record, known, position);
        survey->behind_cold = cold_unsettled;
        survey->unsettled = entry.unsettled;
        survey->entry = entry;
        survey->at = cursor;
    }
}

static void count_keys(struct store_shard *shard, int64_t by)
{
    store_count(&shard->keys, by);
}

static void count_expiring(struct store_shard *shard, int64_t by)
{
    store_count(&shard->expiry.keys, by);
}

bool store_removes(struct store_shard *shard, const struct engine_request *request)
{
    bool puts = request->action == ENGINE_PUT || request->action == ENGINE_EXPIRE;
    return request->action == ENGINE_REMOVE || (puts && engine_expired(&shard->base, request->expires_ms));
}

/* The record of a PUT: appended, if it is not there already. */
static enum kvs_err place_put(struct store_shard *shard, const struct store_write *write, struct log_place *place)
{
    const struct engine_request *request = write->request;
    if (write->placed != NULL) {
        *place = *write->placed;
        return KVS_ERR_OK;
    }
    struct log_entry put = {.kind = RECORD_PUT,
                            .relaxed = request->relaxed,
                            .expires_ms = request->expires_ms,
                            .key = request->key,
                            .value = request->value};
    if (write->descriptor != NULL) {
        put.flags = RECORD_LARGE; /* and the value is the descriptor */
        put.value = slice_make(write->descriptor, sizeof *write->descriptor);
    }
    return log_append(&shard->log, &put, place);
}

/* Its entry takes the place of the one that the survey has found. */
static void replace_entry(struct store_shard *shard, const struct engine_request *request, struct survey *survey,
                          const struct index_entry *entry, bool same_value)
{
    index_replace(shard->index, &survey->at, entry);
    if (survey->was_put)
        store_count_dead(shard, &survey->entry);
    count_expiring(shard, survey->expiring ? -1 : 0);
    if (survey->large && (!same_value || canary_on(CANARY_EXPIRE_LOSES_VALUE)))
        store_value_died(shard, &survey->descriptor, request->key.size);
}

enum kvs_err store_put(struct store_shard *shard, const struct store_write *write, struct engine_result *result)
{
    const struct engine_request *request = write->request;
    struct survey survey;
    survey_take(shard, request, write->known, &survey);
    bool replace = survey.resident_found && !survey.behind_cold;
    bool blind = !replace && survey.cold;
    bool same_value =
        replace && survey.large && write->descriptor != NULL && write->descriptor->id == survey.descriptor.id;
    if (request->action == ENGINE_EXPIRE && !same_value)
        return KVS_ERR_CHANGED; /* the value has gone meanwhile */
    /* What stays unsettled holds a dead record for a live one, and its space: so they are settled at the disk's pace.
     */
    if (blind && shard->settling >= STORE_SETTLING_MAX && !shard->stopping && !canary_on(CANARY_SETTLES_UNBOUNDED))
        return KVS_ERR_AGAIN;

    /* The entry must not be seen before its record is there. If the index has no room the record is taken back, for one
     * in the log that the index does not show would come back after a restart. */
    struct log_place place;
    enum kvs_err err = place_put(shard, write, &place);
    if (err != KVS_ERR_OK)
        return err;
    struct index_entry entry = {.address = place.address,
                                .class = record_class(place.bytes),
                                .unsettled = blind || (replace && survey.unsettled)};
    if (replace)
        replace_entry(shard, request, &survey, &entry, same_value);
    else
        err = index_insert(shard->index, request->hash, &entry);
    if (err != KVS_ERR_OK) {
        if (write->placed == NULL)
            log_unappend(&shard->log, &place);
        return err;
    }
    count_keys(shard, replace ? !survey.was_put : !blind);
    if (request->expires_ms != 0) {
        count_expiring(shard, 1);
        store_expiry_add(shard, request->hash, place.address, request->expires_ms, write->descriptor != NULL);
    }
    *result = (struct engine_result){.found = replace ? survey.was_put && !survey.expired : blind,
                                     .gate = request->relaxed || write->placed != NULL ? 0 : place.lsn};
    engine_changed(&shard->base, request->hash, true);
    if (blind) {
        store_count(&shard->counters.blind_overwrites, 1);
        store_settle_later(shard, request->key, request->hash);
    }
    return KVS_ERR_OK;
}

/* An entry of the key goes: if its value lies in a file, that goes, too. */
static void let_value_die(struct store_shard *shard, const struct engine_request *request,
                          const struct store_known *known, const struct index_entry *entry)
{
    const struct record_header *record = store_look(shard, entry->address);
    if (record != NULL && record_is_large(record)) {
        const struct value_descriptor descriptor = record_descriptor(record);
        store_value_died(shard, &descriptor, request->key.size);
    }
    for (unsigned i = 0; record == NULL && i < known->large_count; i++) {
        if (known->addresses[known->large[i].position] == entry->address)
            store_value_died(shard, &known->large[i].descriptor, request->key.size);
    }
}

/* What an entry's record is to an operation. */
struct candidate {
    bool equal; /* it has the key */
    bool put, expiring, expired;
};

/* By what is known; else by a look at the record in RAM, which must not matter for one of the key: it may leave RAM
 * between two looks. False: it has another key. */
static bool judge(struct store_shard *shard, const struct engine_request *request, const struct store_known *known,
                  const struct index_entry *entry, struct candidate *out)
{
    const struct record_header *record = store_look(shard, entry->address);
    *out = (struct candidate){.put = record == NULL || record->kind == RECORD_PUT};
    for (unsigned i = 0; i < known->count; i++) {
        if (known->addresses[i] != entry->address)
            continue;
        out->equal = (known->equal >> i & 1) != 0;
        out->expiring = (known->expiring >> i & 1) != 0;
        out->expired = (known->expired >> i & 1) != 0;
        return out->equal;
    }
    out->equal = record != NULL && record_has_key(record, request->key);
    if (out->equal) {
        out->expiring = record_expires_ms(record) != 0;
        out->expired = store_expired(shard, record);
    }
    return out->equal;
}

/* The key is not there: its first entry, if it has one, is of a delete that is not durable, or of what has expired. */
static void answer_missing(struct store_shard *shard, const struct engine_request *request,
                           const struct index_entry *entry, struct engine_result *result)
{
    const struct record_header *record = entry == NULL ? NULL : store_resident(shard->store, entry->address);
    *result = (struct engine_result){.error = KVS_ERR_OK};
    if (record != NULL)
        store_result(shard, record, &shard->log, request, result);
    KVS_ASSERT(!result->found);
}

/*
 * Every entry of the key but the first goes, and the first becomes the delete record's. An unsettled entry was counted
 * as an overwrite of one behind it: where there is none of this key behind it, the key had not been counted at all.
 */
enum kvs_err store_remove(struct store_shard *shard, const struct store_write *write, struct engine_result *result)
{
    const struct engine_request *request = write->request;
    const struct store_known *known = write->known;
    struct index_cursor cursor;
    struct index_entry entry;
    struct candidate candidate;
    bool found = false;
    index_find(shard->index, request->hash, &cursor);
    while (!found && index_next(&cursor, &entry))
        found = judge(shard, request, known, &entry, &candidate);
    if (!found || !candidate.put || candidate.expired) {
        answer_missing(shard, request, found ? &entry : NULL, result);
        return KVS_ERR_OK;
    }

    struct log_place place;
    struct log_entry delete = {.kind = RECORD_DELETE, .relaxed = request->relaxed, .key = request->key};
    enum kvs_err err = write->placed != NULL ? KVS_ERR_OK : log_append(&shard->log, &delete, &place);
    if (err != KVS_ERR_OK)
        return err;

    bool first = true;
    int64_t keys = -1;
    index_find(shard->index, request->hash, &cursor);
    while (index_next(&cursor, &entry)) {
        if (!judge(shard, request, known, &entry, &candidate))
            continue;
        keys += entry.unsettled;
        if (candidate.put) {
            store_count_dead(shard, &entry);
            let_value_die(shard, request, known, &entry);
        }
        count_expiring(shard, candidate.expiring ? -1 : 0);
        if (first && write->placed != NULL) {
            index_remove(shard->index, &cursor); /* it is durable: nobody has to wait for it */
            first = false;
        } else if (first) {
            struct index_entry tombstone = {.address = place.address, .class = record_class(place.bytes)};
            index_replace(shard->index, &cursor, &tombstone);
            if (canary_on(CANARY_TOMBSTONE_GONE_EARLY))
                index_remove(shard->index, &cursor);
            first = false;
        } else if (!canary_on(CANARY_REMOVE_LEAVES_OLDER)) {
            atomic_fetch_add(&shard->settles, 1);
            index_remove(shard->index, &cursor);
            keys -= candidate.put;
        }
    }
    KVS_ASSERT(!first);
    count_keys(shard, keys);
    engine_changed(&shard->base, request->hash, false);
    *result = (struct engine_result){.found = true, .gate = request->relaxed || write->placed != NULL ? 0 : place.lsn};
    return KVS_ERR_OK;
}

/* What one look at each candidate has told. */
struct glance {
    struct store_known known;
    uint64_t addresses[GLANCE_MAX];
    struct store_known_large large[STORE_KNOWN_LARGE_MAX];
};

/* The candidate at `position` is in RAM and has the key. */
static void glance_note(struct store_shard *shard, struct glance *glance, unsigned position,
                        const struct record_header *record)
{
    struct store_known *known = &glance->known;
    known->compared |= 1ull << position;
    known->equal |= 1ull << position;
    known->expiring |= (uint64_t)(record_expires_ms(record) != 0) << position;
    known->expired |= (uint64_t)store_expired(shard, record) << position;
    if (record_is_large(record) && known->large_count < STORE_KNOWN_LARGE_MAX)
        glance->large[known->large_count++] =
            (struct store_known_large){.position = position, .descriptor = record_descriptor(record)};
}

/* False when what is in RAM does not tell all that a REMOVE has to know. */
static bool glance_take(struct store_shard *shard, const struct engine_request *request, struct glance *glance)
{
    bool cold = false, cold_unsettled = false, found = false, certain = false;
    struct index_cursor cursor;
    struct index_entry entry;
    glance->known = (struct store_known){.addresses = glance->addresses, .large = glance->large};
    index_find(shard->index, request->hash, &cursor);
    while (index_next(&cursor, &entry)) {
        if (glance->known.count == GLANCE_MAX)
            return false;
        unsigned position = glance->known.count++;
        glance->addresses[position] = entry.address;
        const struct record_header *record = store_look(shard, entry.address);
        if (record == NULL) {
            cold = true;
            cold_unsettled = cold_unsettled || entry.unsettled;
        } else if (record_has_key(record, request->key)) {
            /* Neither before it nor behind it a cold one can be of this key. */
            certain = certain || (!found && !cold_unsettled && !entry.unsettled);
            found = true;
            glance_note(shard, glance, position, record);
        }
    }
    return !cold || certain || canary_on(CANARY_COLD_REMOVE_BLIND);
}

/* REMOVE from RAM alone. Each candidate is looked at once: a second look might not find it in RAM any more, for the
 * background evicts images at any time. */
static enum engine_answer try_remove(struct store_shard *shard, const struct engine_request *request,
                                     struct engine_result *result)
{
    struct glance glance;
    if (!glance_take(shard, request, &glance))
        return ENGINE_MUST_WAIT;
    if (canary_on(CANARY_REMOVE_LOOKS_TWICE))
        glance.known.count = 0;
    const struct store_write write = {.request = request, .known = &glance.known};
    enum kvs_err err = store_remove(shard, &write, result);
    if (err == KVS_ERR_AGAIN)
        return ENGINE_MUST_WAIT;
    if (err != KVS_ERR_OK)
        *result = (struct engine_result){.error = err};
    return ENGINE_DONE;
}

/* The key's record is in RAM: it is written again, with another expiry. */
static enum engine_answer try_expire(struct store_shard *shard, const struct engine_request *request,
                                     struct engine_result *result)
{
    struct index_cursor cursor;
    struct index_entry entry;
    const struct record_header *record = NULL;
    index_find(shard->index, request->hash, &cursor);
    do {
        if (!index_next(&cursor, &entry) || (record = store_look(shard, entry.address)) == NULL)
            return ENGINE_MUST_WAIT;
    } while (!record_has_key(record, request->key));
    if (!record_is_large(record) || store_expired(shard, record))
        return ENGINE_MUST_WAIT;
    /* It may leave RAM before it is looked at again. */
    const struct value_descriptor descriptor = record_descriptor(record);
    const struct store_known_large large = {.descriptor = descriptor};
    const struct store_known known = {.addresses = &entry.address,
                                      .count = 1,
                                      .compared = 1,
                                      .equal = 1,
                                      .expiring = record_expires_ms(record) != 0,
                                      .large_count = 1,
                                      .large = &large};
    const struct store_write write = {.request = request, .known = &known, .descriptor = &descriptor};
    const enum kvs_err err = store_put(shard, &write, result);
    return err == KVS_ERR_OK ? ENGINE_DONE : ENGINE_MUST_WAIT;
}

enum kvs_err store_no_room(const struct store_shard *shard, bool removes)
{
    if (removes)
        return atomic_load_explicit(&shard->deletes_refused, memory_order_relaxed) ? KVS_ERR_NO_SPACE : KVS_ERR_AGAIN;
    if (shard->settling >= STORE_SETTLING_MAX)
        return KVS_ERR_AGAIN; /* it may not be room that was lacking */
    bool promised = atomic_load_explicit(&shard->store->space_promised, memory_order_relaxed);
    return store_maker_error(shard) == KVS_ERR_OK || promised ? KVS_ERR_AGAIN : KVS_ERR_NO_SPACE;
}

enum engine_answer store_try(struct engine_shard *owner, const struct engine_request *request,
                             struct engine_result *result)
{
    struct store_shard *shard = store_shard_of(owner);
    if (shard->busy_count > 0 && store_busy(shard, request->hash) && !canary_on(CANARY_OVERTAKES_BUSY_KEY))
        return ENGINE_MUST_WAIT;
    if (request->action == ENGINE_GET) {
        enum engine_answer answer = look_up(shard, shard, true, request, result);
        if (canary_on(CANARY_OWNER_READ_UNGATED) && answer == ENGINE_DONE)
            result->gate = 0;
        if (canary_on(CANARY_FULL_DISK_REFUSES_READS) && answer == ENGINE_DONE)
            result->error = store_maker_error(shard);
        if (answer == ENGINE_DONE && result->gate != 0)
            log_want(&shard->log, result->gate);
        return answer;
    }
    bool removes = store_removes(shard, request);
    if (!list_empty(removes ? &shard->stalled_removes : &shard->stalled))
        return ENGINE_MUST_WAIT;
    if (removes)
        return try_remove(shard, request, result);
    if (request->action == ENGINE_EXPIRE)
        return try_expire(shard, request, result);
    if (store_value_is_large(shard, request))
        return ENGINE_MUST_WAIT;
    const struct store_known nothing = {0};
    const struct store_write write = {.request = request, .known = &nothing};
    enum kvs_err err = store_put(shard, &write, result);
    if (err == KVS_ERR_AGAIN)
        err = store_no_room(shard, false);
    if (err == KVS_ERR_AGAIN)
        return ENGINE_MUST_WAIT;
    if (err != KVS_ERR_OK)
        *result = (struct engine_result){.error = err};
    return ENGINE_DONE;
}

/* ---- settling -------------------------------------------------------------------------------------------------- */

/* The first entry of the key stays; those behind it are older and go. Each uncertainty that found no older entry of the
 * key behind it was no overwrite, but a key of its own. */
void store_settle(struct store_shard *shard, const struct engine_request *request, const struct store_known *known)
{
    struct index_cursor cursor, first;
    struct index_entry entry, newest = {0};
    struct candidate candidate;
    bool found = false;
    int64_t keys = 0;
    index_find(shard->index, request->hash, &cursor);
    while (index_next(&cursor, &entry)) {
        if (!judge(shard, request, known, &entry, &candidate))
            continue;
        if (!found) {
            if (!entry.unsettled)
                return;
            first = cursor;
            newest = entry;
            found = true;
        } else {
            atomic_fetch_add(&shard->settles, !canary_on(CANARY_SETTLES_NOT_RAISED));
            index_remove(shard->index, &cursor);
            if (candidate.put) {
                store_count_dead(shard, &entry);
                let_value_die(shard, request, known, &entry);
            }
            count_expiring(shard, candidate.expiring ? -1 : 0);
            keys -= candidate.put;
        }
        keys += entry.unsettled;
    }
    if (!found)
        return;
    atomic_fetch_add(&shard->store->settled, 1); /* before it may expire: see still_hides in compactor.c */
    newest.unsettled = false;
    index_replace(shard->index, &first, &newest);
    count_keys(shard, keys);
}

void store_deletes_durable(void *context, const struct segment *segment, uint32_t offset)
{
    struct store_shard *shard = context;
    const struct store *store = shard->store;
    const uint8_t *image = segment_image(segment);
    KVS_ASSERT(image != NULL);
    const struct batch_header *batch = (const struct batch_header *)(const void *)(image + offset);
    uint32_t end = offset + batch->bytes;
    for (uint32_t at = offset + (uint32_t)sizeof *batch; at < end;) {
        const struct record_header *record = (const struct record_header *)(const void *)(image + at);
        if (record->kind == RECORD_DELETE) {
            uint64_t address = address_make(segment->number, at, store->segments.shift);
            struct index_cursor cursor;
            struct index_entry entry;
            uint64_t hash = hash_key(record_key(record), engine_hash_seed(&store->base));
            index_find(shard->index, hash, &cursor);
            while (index_next(&cursor, &entry)) {
                if (entry.address != address)
                    continue;
                index_remove(shard->index, &cursor);
                store_wait_gone(shard, hash, address);
            }
        }
        at += (uint32_t)record_size(record);
    }
}
