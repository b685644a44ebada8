/*
 * check.c - the order of things.
 *
 *   list the directory → superblock → manifest → each segment: read, scan, judge → streams, claims, age of the
 *   manifest → what the manifest may have forgotten → files of large values → figures
 *
 * Failure modes: what a start would refuse is damage in the report, and the check goes on as far as it can. Only
 * without identity of the store, or without memory, it does not.
 */
#include "engine/check_internal.h"

#include "base/array.h"
#include "base/assert.h"
#include "engine/big_memory.h"
#include "engine/blocking.h"

#include <inttypes.h>
#include <stdlib.h>

const char *check_role_name(enum check_role role)
{
    static const char *const names[] = {[CHECK_LOG] = "log",
                                        [CHECK_SEALED] = "sealed",
                                        [CHECK_FREE] = "free",
                                        [CHECK_UNFINISHED] = "unfinished",
                                        [CHECK_UNLISTED] = "unlisted",
                                        [CHECK_MISSING] = "missing",
                                        [CHECK_TEMPORARY] = "temporary"};
    KVS_ASSERT(role < ARRAY_COUNT(names));
    return names[role];
}

const char *check_severity_name(enum check_severity severity)
{
    static const char *const names[] = {
        [CHECK_REFUSED] = "refused", [CHECK_UNSEEN] = "unseen", [CHECK_HARMLESS] = "harmless"};
    KVS_ASSERT(severity < ARRAY_COUNT(names));
    return names[severity];
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

struct check_damage *check_damage(struct check *check, enum check_severity severity, const char *file, uint64_t offset)
{
    struct check_report *report = &check->report;
    if (severity == CHECK_REFUSED)
        report->refused = true;
    bool dropped = report->damage_count == CHECK_DAMAGES_MAX;
    if (!dropped && array_grow((void **)&check->damages, report->damage_count, &check->damage_capacity,
                               sizeof *check->damages) != KVS_ERR_OK) {
        check->err = KVS_ERR_NO_MEMORY;
        dropped = true;
    }
    static struct check_damage nowhere;
    if (dropped)
        report->damages_dropped++;
    struct check_damage *damage = dropped ? &nowhere : &check->damages[report->damage_count++];
    *damage = (struct check_damage){.severity = severity, .offset = offset};
    snprintf(damage->file, sizeof damage->file, "%s", file);
    return damage;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

void check_file_name(const struct check_file *file, char name[CHECK_FILE_BYTES])
{
    static_assert(CHECK_FILE_BYTES >= SEGMENT_NAME_BYTES, "names of segments fit");
    segment_name(name, file->found.number, file->found.unfinished ? ".new" : "");
}

static int by_name(const void *a, const void *b)
{
    const struct found_segment *x = &((const struct check_file *)a)->found;
    const struct found_segment *y = &((const struct check_file *)b)->found;
    if (x->unfinished != y->unfinished)
        return x->unfinished ? 1 : -1;
    return (x->number > y->number) - (x->number < y->number);
}

void check_sort_files(struct check *check)
{
    if (check->file_count > 0)
        qsort(check->files, check->file_count, sizeof *check->files, by_name);
    check->named_count = 0;
    while (check->named_count < check->file_count && !check->files[check->named_count].found.unfinished)
        check->named_count++;
}

struct check_file *check_file_find(const struct check *check, uint32_t number)
{
    const struct check_file key = {.found = {.number = number}};
    return check->named_count == 0 ? NULL : bsearch(&key, check->files, check->named_count, sizeof key, by_name);
}

static void list_file(void *context, const char *name)
{
    struct check *check = context;
    uint32_t number;
    bool unfinished;
    if (!segment_name_parse(name, &number, &unfinished))
        return;
    enum kvs_err err =
        array_grow((void **)&check->files, check->file_count, &check->file_capacity, sizeof *check->files);
    if (err != KVS_ERR_OK) {
        check->err = err;
        return;
    }
    enum check_role role = unfinished ? CHECK_TEMPORARY : CHECK_UNLISTED;
    check->files[check->file_count++] = (struct check_file){.found = {.number = number, .unfinished = unfinished},
                                                            .out = {.number = number, .role = role}};
}

/* Numbers that no address can name are refused by a start, and have no place in the table of keys. */
static void drop_impossible(struct check *check)
{
    size_t kept = 0;
    for (size_t i = 0; i < check->file_count; i++) {
        const struct check_file *file = &check->files[i];
        if (file->found.number < (1ull << 44) / check->superblock.segment_bytes) {
            check->files[kept++] = *file;
            continue;
        }
        char name[CHECK_FILE_BYTES];
        check_file_name(file, name);
        struct check_damage *damage = check_damage(check, CHECK_REFUSED, name, CHECK_UNKNOWN);
        snprintf(damage->what, sizeof damage->what, "its number is beyond what the store can address");
        snprintf(damage->means, sizeof damage->means, "it does not belong there; it was not read");
    }
    check->file_count = kept;
    check_sort_files(check);
}

enum kvs_err check_open_file(struct check *check, const char *name, int *fd, bool *direct, struct ring_op *op)
{
    struct ring *ring = check->options.ring;
    *direct = true;
    blocking_init(op);
    ring_file_open(ring, op, check->options.dir_fd, name, RING_OPEN_READ | RING_OPEN_DIRECT);
    ring_await(ring, op);
    struct ring_file_info info = {0};
    if (op->error == KVS_ERR_OK && ring_file_info(ring, op->fd, &info) == KVS_ERR_OK &&
        info.direct_offset_align > KVS_BLOCK_BYTES) {
        ring_close_fd(ring, op->fd);
        op->error = KVS_ERR_UNSUPPORTED;
    }
    if (op->error == KVS_ERR_UNSUPPORTED || op->error == KVS_ERR_INVALID) {
        *direct = false;
        blocking_init(op);
        ring_file_open(ring, op, check->options.dir_fd, name, RING_OPEN_READ);
        ring_await(ring, op);
        if (op->error == KVS_ERR_OK)
            (void)ring_file_uncache(ring, op->fd); /* the disk itself is asked, if the system lets us */
    }
    *fd = op->fd;
    return op->error;
}

bool check_read(struct check *check, int fd, uint8_t *buffer, uint64_t size, uint64_t offset, uint64_t *bytes)
{
    struct ring *ring = check->options.ring;
    struct ring_op op;
    blocking_init(&op);
    ring_file_read(ring, &op, fd, buffer, size, offset);
    ring_await(ring, &op);
    bool good = op.error == KVS_ERR_OK;
    *bytes = good ? op.bytes : 0;
    memset(buffer + *bytes, 0, (size_t)(size - *bytes));
    check->report.bytes_read += *bytes;
    return good;
}

void check_progress(const struct check *check, const char *step, uint64_t done, uint64_t total)
{
    if (check->options.progress == NULL)
        return;
    const struct check_progress progress = {.step = step, .done = done, .total = total, .keys = check->map.count};
    check->options.progress(check->options.context, &progress);
}

/* ---- all segments ---------------------------------------------------------------------------------------------- */

static bool is_wanted(const struct check *check, const struct check_file *file)
{
    for (size_t i = 0; i < check->options.number_count; i++) {
        if (check->options.numbers[i] == file->found.number)
            return true;
    }
    return false;
}

static bool is_in_use(const struct check_file *file)
{
    return file->out.role == CHECK_LOG || file->out.role == CHECK_SEALED || file->out.role == CHECK_UNLISTED;
}

/* What the latest changes of a damaged manifest may have taken into use. */
static void scan_newer(struct check *check, bool lost)
{
    for (size_t i = 0; check->err == KVS_ERR_OK && i < check->named_count; i++) {
        struct check_file *file = &check->files[i];
        if (file->out.role == CHECK_FREE && !file->out.read && check_is_newer(check, file, lost))
            check_scan_file(check, file);
    }
}

static enum kvs_err scan_all(struct check *check)
{
    check->err = check_runs(check);
    if (check->err == KVS_ERR_OK)
        check->err = check_snapshot(check);
    for (size_t i = 0; i < check->named_count; i++)
        check->progress_total += is_in_use(&check->files[i]) ? check->superblock.segment_bytes : 0;
    for (size_t i = 0; check->err == KVS_ERR_OK && i < check->named_count; i++) {
        if (is_in_use(&check->files[i]))
            check_scan_file(check, &check->files[i]);
    }
    if (check->err != KVS_ERR_OK)
        return check->err;
    /* In any case before the streams: what is found there tells how old the manifest is. */
    scan_newer(check, false);
    if (check_manifest_is_behind(check))
        scan_newer(check, true);
    check_streams(check);
    check_manifest_age(check);
    check_values(check);
    return check->err;
}

static enum kvs_err scan_wanted(struct check *check)
{
    for (size_t i = 0; i < check->options.number_count; i++) {
        const struct check_file *file = check_file_find(check, check->options.numbers[i]);
        if (file == NULL || file->out.role == CHECK_MISSING) {
            check_say(check, "there is no segment %06u in %s", check->options.numbers[i], check->options.dir_name);
            return KVS_ERR_NOT_FOUND;
        }
    }
    for (size_t i = 0; check->err == KVS_ERR_OK && i < check->named_count; i++) {
        if (is_wanted(check, &check->files[i]))
            check_scan_file(check, &check->files[i]);
    }
    return check->err;
}

/* ---- the report ------------------------------------------------------------------------------------------------ */

static void describe_store(struct check *check)
{
    const struct superblock *superblock = &check->superblock;
    struct check_report *report = &check->report;
    const uint8_t *id = superblock->uuid;
    snprintf(report->uuid, sizeof report->uuid, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8], id[9], id[10], id[11], id[12], id[13],
             id[14], id[15]);
    snprintf(report->engine, sizeof report->engine, "%.16s", superblock->engine);
    report->segment_bytes = superblock->segment_bytes;
    report->epoch = superblock->epoch;
    report->created_ms = superblock->created_ms;
}

/* What has expired is as good as deleted. */
static void expire_keys(struct check *check)
{
    for (uint64_t i = 0; check->map.keys != NULL && i < check->map.capacity; i++) {
        const struct check_key *key = &check->map.keys[i];
        if (!key->used || key->expires_ms == 0)
            continue;
        if (key->expires_ms > check->time_ms) {
            check->report.expiring_keys++;
            continue;
        }
        check_lose(check, key);
        check->report.expired_keys++;
    }
}

static enum kvs_err sum_up(struct check *check)
{
    struct check_report *report = &check->report;
    expire_keys(check);
    check->segments = calloc(check->file_count + 1, sizeof *check->segments);
    if (check->segments == NULL)
        return KVS_ERR_NO_MEMORY;
    for (size_t i = 0; i < check->file_count; i++) {
        const struct check_segment *segment = &check->files[i].out;
        check->segments[i] = *segment;
        report->files += segment->role != CHECK_MISSING;
        report->puts += segment->puts;
        report->deletes += segment->deletes;
        report->record_bytes += segment->record_bytes;
        report->keys += segment->live_puts;
        report->live_bytes += segment->live_bytes;
        report->rescued += segment->rescued;
        report->torn_bytes += segment->torn_bytes;
    }
    report->deleted_keys = check->map.count - report->keys - report->expired_keys;
    report->disk_bytes = report->files * report->segment_bytes;
    report->memory_bytes = check->map.capacity * sizeof(struct check_key);
    report->segments = check->segments;
    report->segment_count = check->file_count;
    report->damages = check->damages;
    for (size_t i = 0; i < report->damage_count; i++) {
        uint64_t records = check->damages[i].records_max;
        bool unknown = records == CHECK_UNKNOWN || report->records_lost_max == CHECK_UNKNOWN;
        report->records_lost_max = unknown ? CHECK_UNKNOWN : report->records_lost_max + records;
    }
    return KVS_ERR_OK;
}

static enum kvs_err check_store(struct check *check)
{
    enum kvs_err err = ring_dir_list(check->options.ring, check->options.dir_fd, list_file, check);
    if (err != KVS_ERR_OK)
        check_say(check, "cannot read directory %s: %s", check->options.dir_name, kvs_err_text(err));
    else
        err = check->err;
    if (err == KVS_ERR_OK)
        err = check_superblock(check);
    if (err != KVS_ERR_OK || !check->identity)
        return err;
    describe_store(check);
    check->shift = (unsigned)__builtin_ctzll(check->superblock.segment_bytes);
    drop_impossible(check);
    if (strncmp(check->superblock.engine, "memory", sizeof check->superblock.engine) == 0)
        return KVS_ERR_OK;
    check->bytes = big_memory_alloc(check->superblock.segment_bytes);
    if (check->bytes == NULL)
        return KVS_ERR_NO_MEMORY;
    err = check_manifest(check);
    if (err != KVS_ERR_OK)
        return err;
    return check->options.numbers != NULL ? scan_wanted(check) : scan_all(check);
}

enum kvs_err check_run(struct check **out, const struct check_options *options, char message[CHECK_MESSAGE_BYTES])
{
    *out = NULL;
    message[0] = '\0';
    uint64_t started_ns = ring_now_ns(options->ring);
    struct check *check = calloc(1, sizeof *check);
    enum kvs_err err = check == NULL ? KVS_ERR_NO_MEMORY : KVS_ERR_OK;
    if (err == KVS_ERR_OK) {
        check->options = *options;
        check->time_ms = ring_wall_ms(options->ring);
        check->message = message;
        err = check_map_init(&check->map);
    }
    if (err == KVS_ERR_OK)
        err = check_store(check);
    if (err == KVS_ERR_OK)
        err = sum_up(check);
    if (err == KVS_ERR_OK) {
        check->message = NULL;
        check->report.elapsed_ns = ring_now_ns(options->ring) - started_ns;
        *out = check;
        return KVS_ERR_OK;
    }
    if (message[0] == '\0')
        snprintf(message, CHECK_MESSAGE_BYTES, "cannot check %s: %s", options->dir_name, kvs_err_text(err));
    if (check != NULL)
        check_close(check);
    return err;
}

const struct check_report *check_report(const struct check *check)
{
    return &check->report;
}

void check_close(struct check *check)
{
    struct ring *ring = check->options.ring;
    manifest_close(check->manifest, ring);
    check_values_close(check);
    if (check->bytes != NULL)
        big_memory_free(check->bytes, check->superblock.segment_bytes);
    check_map_deinit(&check->map);
    free(check->segments);
    free(check->files);
    free(check->runs);
    free(check->damages);
    free(check);
}
