/*
 * store_values.c - puts, gets and deaths of large values.
 *
 * Happy path: see store_values.h. All files of a shard that are being written or read share one step of work in each
 * turn (half a megabyte of copying and checksums), so that other requests hardly notice.
 *
 * Failure modes:
 *   - A file cannot be written: the PUT ends with the writer's error, and nothing of it is left. NO_SPACE also when the
 *     limit on disk space would be exceeded: segments and value files share it, and what logs and compaction need at
 *     the least is not given to values.
 *   - The PUT fails later, for lack of room in the log or because that has failed: the file goes again.
 *   - A file is missing or damaged: the GET ends with CORRUPT and the file's name.
 *   - No memory in the pool: gets wait for it, in order, and look again every millisecond: those who give memory back
 *     may be on any thread. One that has waited for a while takes the reserve: the memory may be held by replies that
 *     cannot leave before its own does. After ten seconds it ends with AGAIN.
 *   - A file cannot be removed: a warning; the sweep after the next start tries again.
 */
#include "engine/store_values.h"

#include "base/array.h"
#include "base/assert.h"
#include "base/canary.h"
#include "base/diag.h"
#include "engine/blocking.h"
#include "engine/store.h"

#include <stdio.h>
#include <stdlib.h>

#define MEMORY_WAIT_NS  1000000
#define RESERVE_NS      20000000ull
#define MEMORY_LIMIT_NS 10000000000ull
#define PATH_BYTES      4352
#define LARGE_MIN_MAX   (1024ull * 1024)
#define LARGE_SHARE     8 /* of a segment */

/* The GET of a large value. */
struct value_get {
    struct list link;
    struct value_reader reader;
    struct store_shard *shard;
    struct engine_op *op;
    struct value_reader_mark *mark;
    uint64_t reserve_ns, deadline_ns; /* from when it may use the reserve; until when it waits for memory */
};

/* A file whose value has died. */
struct value_dying {
    struct list link;
    struct store_shard *shard;
    struct value_name name;
    uint64_t gate;     /* what has superseded it is durable when the log is so far */
    uint64_t shown_ms; /* … and when that has told a time this late: the value was shown as expired */
    uint64_t serial;   /* gets with a lower one may still need it */
    struct ring_op io;
    char text[VALUE_NAME_BYTES];
};

/* ---- opening and closing --------------------------------------------------------------------------------------- */

struct listing {
    struct store *store;
    uint64_t below; /* ids; later ones are left out */
    enum kvs_err err;
};

static void list_file(void *context, const char *text)
{
    struct listing *listing = context;
    struct store_values *values = &listing->store->values;
    struct value_name name;
    if (!value_name_parse(text, &name) || name.id >= listing->below || listing->err != KVS_ERR_OK)
        return;
    listing->err =
        array_grow((void **)&values->found, values->found_count, &values->found_capacity, sizeof *values->found);
    if (listing->err == KVS_ERR_OK)
        values->found[values->found_count++] = (struct value_found){.name = name};
}

static void remove_unfinished(struct store *store, struct ring *ring, struct value_name name)
{
    char text[VALUE_NAME_BYTES];
    struct ring_op op;
    value_name_write(text, name);
    blocking_init(&op);
    ring_file_unlink(ring, &op, store->values.place.dir_fd, text);
    ring_await(ring, &op);
    if (op.error != KVS_ERR_OK)
        diag_warn("cannot remove the unfinished %s/" VALUE_DIR_NAME "/%s: %s", store->base.data_dir, text,
                  ring_op_text(&op));
}

/* What is finished counts, and is left to the sweep. */
static void sort_out(struct store *store, struct ring *ring)
{
    struct store_values *values = &store->values;
    size_t kept = 0;
    for (size_t i = 0; i < values->found_count; i++) {
        struct value_name name = values->found[i].name;
        if (name.unfinished) {
            remove_unfinished(store, ring, name);
            continue;
        }
        atomic_fetch_add(&values->files, 1);
        atomic_fetch_add(&values->bytes, (uint64_t)name.blocks * KVS_BLOCK_BYTES);
        values->found[kept++] = values->found[i];
    }
    values->found_count = kept;
}

enum kvs_err store_values_open(struct store *store, struct ring *ring, char message[ENGINE_MESSAGE_BYTES])
{
    struct store_values *values = &store->values;
    const struct engine_options *options = &store->base.options;
    values->place.direct = store->direct;
    values->place.store_uuid = store->base.superblock.uuid;
    values->large_min = store->segments.segment_bytes / LARGE_SHARE;
    if (values->large_min > LARGE_MIN_MAX)
        values->large_min = LARGE_MIN_MAX;
    if (options->large_bytes_min != 0)
        values->large_min = options->large_bytes_min;
    values->own_pool.bytes_max = options->memory_bytes / 6;
    values->pool = options->value_memory != NULL ? options->value_memory : &values->own_pool;

    char path[PATH_BYTES];
    int length = snprintf(path, sizeof path, "%s/" VALUE_DIR_NAME, store->base.data_dir);
    enum kvs_err err = KVS_ERR_INVALID;
    if (length > 0 && (size_t)length < sizeof path)
        err = ring_dir_open(ring, path, &values->place.dir_fd);
    if (err == KVS_ERR_NO_SPACE) {
        /* Reads and small writes go on; there can be no large values yet. */
        values->place.dir_fd = -1;
        return KVS_ERR_OK;
    }
    name_sync_init(&values->place.names, values->place.dir_fd);
    struct listing listing = {.store = store, .below = UINT64_MAX, .err = err};
    if (err == KVS_ERR_OK)
        err = ring_dir_list(ring, values->place.dir_fd, list_file, &listing);
    else
        values->place.dir_fd = -1;
    if (err == KVS_ERR_OK)
        err = listing.err;
    if (err != KVS_ERR_OK) {
        snprintf(message, ENGINE_MESSAGE_BYTES, "cannot open, make or list the folder " VALUE_DIR_NAME " of %.300s: %s",
                 store->base.data_dir, kvs_err_text(err));
        return err;
    }
    sort_out(store, ring);
    return KVS_ERR_OK;
}

enum kvs_err store_values_list(struct store *store, struct ring *ring, uint64_t below)
{
    struct store_values *values = &store->values;
    struct listing listing = {.store = store, .below = below};
    values->found_count = 0;
    const enum kvs_err err = ring_dir_list(ring, values->place.dir_fd, list_file, &listing);
    size_t kept = 0;
    for (size_t i = 0; i < values->found_count; i++) {
        if (!values->found[i].name.unfinished)
            values->found[kept++] = values->found[i];
    }
    values->found_count = kept;
    return err != KVS_ERR_OK ? err : listing.err;
}

void store_values_close(struct store *store, struct ring *ring)
{
    struct store_values *values = &store->values;
    if (values->place.store_uuid != NULL && values->place.dir_fd >= 0)
        ring_close_fd(ring, values->place.dir_fd);
    free(values->found);
}

void shard_values_init(struct shard_values *values)
{
    struct list *lists[] = {&values->puts,  &values->puts_waiting, &values->puts_written,
                            &values->gets,  &values->gets_waiting, &values->marks,
                            &values->dying, &values->unlinking,    &values->looks};
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++)
        list_init(lists[i]);
    large_trash_init(&values->trash);
    atomic_store(&values->oldest_ns, UINT64_MAX);
}

static void abandon_put(struct value_put *put, struct ring *ring)
{
    value_writer_abandon(&put->writer, ring);
    free(put);
}

void shard_values_deinit(struct shard_values *values, struct ring *ring)
{
    for (struct list *node; (node = list_pop_front(&values->puts)) != NULL;)
        abandon_put(container_of(node, struct value_put, link), ring);
    struct list *idle[] = {&values->puts_waiting, &values->puts_written};
    for (size_t i = 0; i < ARRAY_COUNT(idle); i++) {
        for (struct list *node; (node = list_pop_front(idle[i])) != NULL;)
            free(container_of(node, struct value_put, link));
    }
    for (struct list *node; (node = list_pop_front(&values->gets)) != NULL;) {
        struct value_get *get = container_of(node, struct value_get, link);
        value_reader_abandon(&get->reader, ring);
        large_memory_give(get->reader.memory);
        free(get);
    }
    for (struct list *node; (node = list_pop_front(&values->gets_waiting)) != NULL;)
        free(container_of(node, struct value_get, link));
    struct list *dying[] = {&values->dying, &values->unlinking};
    for (size_t i = 0; i < ARRAY_COUNT(dying); i++) {
        for (struct list *node; (node = list_pop_front(dying[i])) != NULL;)
            free(container_of(node, struct value_dying, link));
    }
    store_value_looks_free(values);
    large_trash_empty(&values->trash);
}

/* ---- space ----------------------------------------------------------------------------------------------------- */

static uint64_t bytes_of(struct value_name name)
{
    return (uint64_t)name.blocks * KVS_BLOCK_BYTES;
}

/* Makes room for a file within the limit on disk space, if there is one. */
static bool reserve_space(struct store *store, uint64_t bytes)
{
    uint64_t limit = store->base.options.disk_bytes_max;
    uint64_t total = atomic_fetch_add(&store->values.bytes, bytes) + bytes;
    uint64_t segments = atomic_load_explicit(&store->segments.count, memory_order_relaxed);
    if (segments < store_segments_min(store))
        segments = store_segments_min(store);
    if (limit == 0 || total + segments * store->segments.segment_bytes <= limit)
        return true;
    atomic_fetch_sub(&store->values.bytes, bytes);
    return false;
}

static void count_gone(struct store *store, struct value_name name)
{
    atomic_fetch_sub(&store->values.files, 1);
    atomic_fetch_sub(&store->values.bytes, bytes_of(name));
}

/* ---- death ----------------------------------------------------------------------------------------------------- */

static void unlink_done(struct ring_op *op)
{
    struct value_dying *dying = container_of(op, struct value_dying, io);
    struct store_shard *shard = dying->shard;
    KVS_ASSERT(shard->values.unlink_count > 0);
    shard->values.unlink_count--;
    if (op->error == KVS_ERR_OK)
        count_gone(shard->store, dying->name);
    else if (op->error != KVS_ERR_NOT_FOUND)
        diag_warn("cannot remove " VALUE_DIR_NAME "/%s, whose value has been replaced or removed: %s; a sweep after "
                  "the next start will try again",
                  dying->text, ring_op_text(op));
    list_remove(&dying->link);
    free(dying);
}

static void die(struct store_shard *shard, struct value_name name, uint64_t gate, uint64_t shown_ms)
{
    struct value_dying *dying = malloc(sizeof *dying);
    if (dying == NULL)
        return; /* the sweep after the next start finds it */
    *dying = (struct value_dying){
        .shard = shard, .name = name, .gate = gate, .shown_ms = shown_ms, .serial = ++shard->values.serial};
    list_push_back(&shard->values.dying, &dying->link);
}

void store_value_died(struct store_shard *shard, const struct value_descriptor *descriptor, size_t key_bytes)
{
    struct value_name name = value_name_of(descriptor->id, key_bytes, descriptor->value_bytes);
    die(shard, name, canary_on(CANARY_VALUE_UNLINKED_EARLY) ? 0 : shard->log.next_lsn - 1, 0);
}

void store_value_expired(struct store_shard *shard, const struct value_descriptor *descriptor, size_t key_bytes,
                         uint64_t expires_ms)
{
    struct value_name name = value_name_of(descriptor->id, key_bytes, descriptor->value_bytes);
    die(shard, name, shard->log.next_lsn - 1, canary_on(CANARY_VALUE_UNLINKED_EARLY) ? 0 : expires_ms);
}

static bool may_go(const struct store_shard *shard, const struct value_dying *dying)
{
    const struct list *marks = &shard->values.marks;
    if (dying->gate > log_durable(&shard->log) || dying->shown_ms > shard->log.told_ms)
        return false;
    if (list_empty(marks) || canary_on(CANARY_VALUE_UNLINKED_WHILE_READ))
        return true;
    return container_of(marks->next, struct value_reader_mark, link)->serial > dying->serial;
}

void store_values_hold(struct store *store, bool held)
{
    if (atomic_exchange(&store->values.held, held) == held || held)
        return;
    for (unsigned i = 0; i < store->shard_count; i++) {
        if (store->shards[i] != NULL)
            store_shard_wake(store->shards[i], store->keeper.ring);
    }
}

/* Whether there is a file to be removed now. They died in order, and their gates rise. */
static bool can_unlink(const struct store_shard *shard)
{
    const struct shard_values *values = &shard->values;
    return !list_empty(&values->dying) && values->unlink_count < VALUE_UNLINKS_MAX && !shard->stopping &&
           !atomic_load(&shard->store->values.held) &&
           may_go(shard, container_of(values->dying.next, struct value_dying, link));
}

static void unlink_some(struct store_shard *shard)
{
    struct shard_values *values = &shard->values;
    while (can_unlink(shard)) {
        struct value_dying *dying = container_of(list_pop_front(&values->dying), struct value_dying, link);
        list_push_back(&values->unlinking, &dying->link);
        values->unlink_count++;
        value_name_write(dying->text, dying->name);
        ring_op_init(&dying->io, unlink_done);
        ring_file_unlink(shard->ring, &dying->io, shard->store->values.place.dir_fd, dying->text);
    }
}

void store_value_mark_begin(struct store_shard *shard, struct value_reader_mark *mark)
{
    mark->serial = ++shard->values.serial;
    mark->granted = false;
    list_push_back(&shard->values.marks, &mark->link);
}

void store_value_mark_end(struct value_reader_mark *mark)
{
    list_remove(&mark->link);
}

/* ---- PUT ------------------------------------------------------------------------------------------------------- */

bool store_value_is_large(const struct store_shard *shard, const struct engine_request *request)
{
    return request->action == ENGINE_PUT && request->value.size >= shard->store->values.large_min;
}

static void put_written(struct value_writer *writer)
{
    struct value_put *put = container_of(writer, struct value_put, writer);
    struct store_shard *shard = put->shard;
    struct store *store = shard->store;
    list_remove(&put->link);
    list_push_back(&shard->values.puts_written, &put->link);
    KVS_ASSERT(shard->values.put_count > 0);
    shard->values.put_count--;
    if (writer->error == KVS_ERR_OK) {
        atomic_fetch_add(&store->values.files, 1);
    } else {
        if (!writer->left_behind)
            atomic_fetch_sub(&store->values.bytes, bytes_of(writer->name));
        if (writer->error != KVS_ERR_NO_SPACE)
            diag_error("a large value could not be stored, and was refused: %s", writer->text);
    }
    if (put->op != NULL)
        store_value_written(shard, put->op, writer->error);
    else
        put->group->files_pending--;
}

static void start_puts(struct store_shard *shard)
{
    struct shard_values *values = &shard->values;
    while (!list_empty(&values->puts_waiting) && values->put_count < VALUE_PUTS_MAX) {
        struct value_put *put = container_of(list_pop_front(&values->puts_waiting), struct value_put, link);
        list_push_back(&values->puts, &put->link);
        values->put_count++;
        value_writer_begin(&put->writer);
    }
}

static enum kvs_err put_begin(struct store_shard *shard, struct slice key, struct slice value, struct value_put **out)
{
    struct store *store = shard->store;
    struct store_values *values = &store->values;
    if (value.size > engine_value_bytes_max(&store->base))
        return KVS_ERR_TOO_LARGE;
    if (shard->log.failed)
        return KVS_ERR_FAILED;
    uint64_t epoch = store->base.superblock.epoch - canary_on(CANARY_VALUE_ID_AGAIN);
    uint64_t id = epoch << 32 | atomic_fetch_add_explicit(&values->counter, 1, memory_order_relaxed);
    uint64_t bytes = value_layout_of(key.size, value.size).file_bytes;
    if (values->place.dir_fd < 0 || !reserve_space(store, bytes))
        return KVS_ERR_NO_SPACE;
    struct value_put *put = malloc(sizeof *put);
    if (put == NULL) {
        atomic_fetch_sub(&values->bytes, bytes);
        return KVS_ERR_NO_MEMORY;
    }
    put->shard = shard;
    put->op = NULL;
    put->group = NULL;
    put->writer.place = &values->place;
    put->writer.ring = shard->ring;
    put->writer.id = id;
    put->writer.key = key;
    put->writer.value = value;
    put->writer.done = put_written;
    *out = put;
    list_push_back(&shard->values.puts_waiting, &put->link); /* the turn starts it */
    return KVS_ERR_OK;
}

enum kvs_err store_value_put(struct store_shard *shard, struct engine_op *op)
{
    enum kvs_err err = put_begin(shard, op->request.key, op->request.value, &op->put);
    if (err == KVS_ERR_OK)
        op->put->op = op;
    return err;
}

enum kvs_err store_value_put_change(struct store_shard *shard, struct engine_group *group, struct engine_change *change)
{
    enum kvs_err err = put_begin(shard, change->key, change->value, &change->put);
    if (err != KVS_ERR_OK)
        return err;
    change->put->group = group;
    group->files_pending++;
    return KVS_ERR_OK;
}

void store_value_put_end(struct store_shard *shard, struct value_put *put, bool good)
{
    if (!good && put->writer.error == KVS_ERR_OK)
        die(shard, put->writer.name, 0, 0); /* no record has ever named it */
    list_remove(&put->link);
    free(put);
}

/* ---- GET ------------------------------------------------------------------------------------------------------- */

static void get_read(struct value_reader *reader)
{
    struct value_get *get = container_of(reader, struct value_get, reader);
    struct store_shard *shard = get->shard;
    struct engine_op *op = get->op;
    char damage[VALUE_TEXT_BYTES];
    list_remove(&get->link);
    if (reader->error == KVS_ERR_OK) {
        op->result.memory = reader->memory;
        op->result.value = slice_make(reader->memory->data, (size_t)reader->descriptor.value_bytes);
    } else {
        large_trash_add(&shard->values.trash, reader->memory);
        op->result = (struct engine_result){.error = reader->error};
    }
    snprintf(damage, sizeof damage, "%s", reader->text);
    free(get);
    store_value_got(shard, op, damage);
}

/* Of all that wait, on any shard, the one that was asked for first may use the reserve: whatever has to leave before
 * its reply has its memory already. */
static bool may_use_reserve(const struct store_shard *shard, const struct value_get *get)
{
    if (get->reserve_ns == 0 || ring_now_ns(shard->ring) < get->reserve_ns)
        return false;
    for (unsigned i = 0; i < shard->store->shard_count; i++) {
        const struct store_shard *other = shard->store->shards[i];
        if (other != shard && atomic_load(&other->values.oldest_ns) < get->op->request.asked_ns)
            return false;
    }
    return true;
}

static bool start_get(struct value_get *get)
{
    struct store_shard *shard = get->shard;
    size_t bytes = value_reader_bytes(get->reader.descriptor.value_bytes);
    struct store_values *values = &shard->store->values;
    get->reader.memory = large_memory_take(values->pool, bytes, 0);
    if (get->reader.memory == NULL && may_use_reserve(shard, get))
        get->reader.memory = large_memory_take(&values->reserve, bytes, 0);
    if (get->reader.memory == NULL)
        return false;
    get->mark->granted = true;
    list_push_back(&shard->values.gets, &get->link);
    store_count(&shard->counters.disk_reads, 1);
    store_count(&shard->counters.disk_read_bytes, (int64_t)bytes);
    value_reader_begin(&get->reader);
    return true;
}

/* Memory is given in the order in which gets have begun: replies that have it may have to leave after those of earlier
 * ones. So nobody gets any before all who have begun earlier have theirs, or have ended. */
static bool is_next(const struct shard_values *values, const struct value_get *get)
{
    const struct list *node = values->marks.next;
    while (node != &values->marks && container_of(node, struct value_reader_mark, link)->granted)
        node = node->next;
    return node == &get->mark->link;
}

static void start_gets(struct store_shard *shard)
{
    struct list *waiting = &shard->values.gets_waiting;
    uint64_t oldest_ns = UINT64_MAX;
    while (!list_empty(waiting)) {
        struct value_get *get = container_of(list_pop_front(waiting), struct value_get, link);
        bool next = is_next(&shard->values, get);
        if (next && start_get(get))
            continue;
        if (!next || ring_now_ns(shard->ring) < get->deadline_ns) {
            list_push_front(waiting, &get->link);
            oldest_ns = get->op->request.asked_ns;
            break;
        }
        struct engine_op *op = get->op;
        free(get);
        op->result = (struct engine_result){.error = KVS_ERR_AGAIN};
        store_value_got(shard, op, "");
    }
    if (atomic_load_explicit(&shard->values.oldest_ns, memory_order_relaxed) != oldest_ns)
        atomic_store(&shard->values.oldest_ns, oldest_ns);
}

/* By the order of their marks. */
static void enqueue(struct shard_values *values, struct value_get *get)
{
    struct list *node = values->gets_waiting.prev;
    while (node != &values->gets_waiting &&
           container_of(node, struct value_get, link)->mark->serial > get->mark->serial)
        node = node->prev;
    list_push_front(node, &get->link);
}

void store_value_get(struct store_shard *shard, struct engine_op *op, struct value_reader_mark *mark,
                     const struct value_descriptor *descriptor)
{
    struct value_get *get = NULL;
    enum kvs_err err = KVS_ERR_CORRUPT;
    if (descriptor->value_bytes > 0 && descriptor->value_bytes <= KVS_VALUE_BYTES_MAX) {
        get = malloc(sizeof *get);
        err = KVS_ERR_NO_MEMORY;
    }
    if (get == NULL) {
        op->result = (struct engine_result){.error = err};
        store_value_got(shard, op, "a record of a large value names an impossible size");
        return;
    }
    get->shard = shard;
    get->op = op;
    get->mark = mark;
    uint64_t now_ns = ring_now_ns(shard->ring);
    get->reserve_ns = op->request.eager ? 0 : now_ns + RESERVE_NS;
    get->deadline_ns = op->request.eager ? 0 : now_ns + MEMORY_LIMIT_NS;
    get->reader.place = &shard->store->values.place;
    get->reader.ring = shard->ring;
    get->reader.descriptor = *descriptor;
    get->reader.key = op->request.key;
    get->reader.done = get_read;
    enqueue(&shard->values, get); /* the turn starts it */
}

/* ---- queries of the sweep -------------------------------------------------------------------------------------- */

static void answer(struct store_shard *shard)
{
    atomic_store_explicit(&shard->values.query, NULL, memory_order_release);
    keeper_wake(&shard->store->keeper, shard->ring);
}

static void query_done(struct engine_op *op)
{
    struct value_query *query = container_of(op, struct value_query, op);
    struct store_shard *shard = query->shard;
    bool known = op->result.error == KVS_ERR_OK; /* else it stays: nothing is proved */
    bool live = op->result.found && op->result.large_id == query->name.id;
    if (known && !live)
        die(shard, query->name, shard->log.next_lsn - 1, shard->expiry.shown_ms);
    if (known && !live)
        log_want(&shard->log, shard->log.next_lsn - 1);
    query->expires_ms = known && live ? op->result.expires_ms : 0;
    engine_op_release(op);
    answer(shard);
}

static void take_query(struct store_shard *shard)
{
    struct value_query *query = atomic_load_explicit(&shard->values.query, memory_order_acquire);
    if (query == NULL || query->submitted)
        return;
    query->submitted = true;
    query->shard = shard;
    if (shard->stopping) {
        answer(shard);
        return;
    }
    query->op.done = query_done;
    engine_submit(&shard->base, &query->op);
}

/* ---- the turn -------------------------------------------------------------------------------------------------- */

/* One step for one of those that have work; those that had theirs go to the end. False: none has. */
static bool work_puts(struct shard_values *values)
{
    for (struct list *node = values->puts.next; node != &values->puts; node = node->next) {
        struct value_put *put = container_of(node, struct value_put, link);
        if (!value_writer_has_work(&put->writer))
            continue;
        list_remove(&put->link);
        list_push_back(&values->puts, &put->link);
        value_writer_work(&put->writer);
        return true;
    }
    return false;
}

static bool work_gets(struct shard_values *values)
{
    for (struct list *node = values->gets.next; node != &values->gets; node = node->next) {
        struct value_get *get = container_of(node, struct value_get, link);
        if (!value_reader_has_work(&get->reader))
            continue;
        list_remove(&get->link);
        list_push_back(&values->gets, &get->link);
        value_reader_work(&get->reader);
        return true;
    }
    return false;
}

static void work(struct shard_values *values)
{
    values->gets_first = !values->gets_first;
    if (values->gets_first && work_gets(values))
        return;
    if (!work_puts(values) && !values->gets_first)
        (void)work_gets(values);
}

static bool has_work(const struct shard_values *values)
{
    for (struct list *node = values->puts.next; node != &values->puts; node = node->next) {
        if (value_writer_has_work(&container_of(node, struct value_put, link)->writer))
            return true;
    }
    for (struct list *node = values->gets.next; node != &values->gets; node = node->next) {
        if (value_reader_has_work(&container_of(node, struct value_get, link)->reader))
            return true;
    }
    return false;
}

static void turn_puts(struct shard_values *values)
{
    for (struct list *node = values->puts.next, *next; node != &values->puts; node = next) {
        next = node->next;
        value_writer_turn(&container_of(node, struct value_put, link)->writer); /* ends that one at the most */
    }
}

void store_values_turn(struct store_shard *shard)
{
    struct shard_values *values = &shard->values;
    turn_puts(values);
    (void)large_trash_turn(&values->trash);
    start_gets(shard);
    start_puts(shard);
    work(values);
    take_query(shard);
    unlink_some(shard);
}

int64_t store_values_timeout_ns(const struct store_shard *shard)
{
    const struct shard_values *values = &shard->values;
    if (has_work(values) || !list_empty(&values->trash.pieces) || can_unlink(shard))
        return 0;
    if (!list_empty(&values->puts_waiting) && values->put_count < VALUE_PUTS_MAX)
        return 0;
    return list_empty(&values->gets_waiting) ? -1 : MEMORY_WAIT_NS;
}

bool store_values_idle(const struct store_shard *shard)
{
    const struct shard_values *values = &shard->values;
    return list_empty(&values->puts) && list_empty(&values->puts_waiting) && list_empty(&values->gets) &&
           list_empty(&values->gets_waiting) && values->unlink_count == 0 && values->look_count == 0 &&
           !name_sync_at_work(&shard->store->values.place.names, shard->ring) &&
           atomic_load_explicit(&values->query, memory_order_relaxed) == NULL;
}
