/*
 * check_values.c - the files of large values.
 *
 * Happy path: the scan of the segments notes every record of a large value. When all are known, each record that is its
 * key's newest must have its file, whole and undamaged; a file that no such record names is left over, and goes after
 * the next start.
 *
 * A start does not read value files, so nothing in them makes it refuse: what is wrong is for those who ask for the
 * key.
 *
 * Failure modes: a file that cannot be read counts as damaged.
 */
#include "engine/check_internal.h"

#include "base/array.h"
#include "base/assert.h"
#include "base/hash.h"
#include "engine/blocking.h"

#include <stdlib.h>

/* A record of a large value. */
struct check_large {
    uint64_t hash, check, lsn;
    struct value_descriptor descriptor;
    uint16_t key_bytes;
    bool live, there;
    uint8_t *key;
};

void check_note_large(struct check *check, const struct record_header *record)
{
    if (!record_is_large(record) || check->options.numbers != NULL)
        return;
    if (array_grow((void **)&check->larges, check->large_count, &check->large_capacity, sizeof *check->larges) !=
        KVS_ERR_OK) {
        check->err = KVS_ERR_NO_MEMORY;
        return;
    }
    struct slice key = record_key(record);
    uint64_t seed = check->superblock.hash_seed;
    struct check_large *large = &check->larges[check->large_count];
    *large = (struct check_large){.hash = hash_key(key, seed),
                                  .check = hash_check(key, seed),
                                  .lsn = record->lsn,
                                  .descriptor = record_descriptor(record),
                                  .key_bytes = record->key_bytes,
                                  .key = malloc((size_t)record->key_bytes + 1)};
    if (large->key == NULL) {
        check->err = KVS_ERR_NO_MEMORY;
        return;
    }
    memcpy(large->key, key.data, key.size);
    check->large_count++;
}

/* ---- reading one ----------------------------------------------------------------------------------------------- */

static void read_done(struct value_reader *reader)
{
    (void)reader;
}

static bool reader_ended(const struct value_reader *reader)
{
    return reader->fd < 0 && reader->head == NULL;
}

struct large_memory *check_read_value(struct check *check, struct slice key, const struct value_descriptor *descriptor,
                                      char text[VALUE_TEXT_BYTES])
{
    struct large_memory *memory = NULL;
    snprintf(text, VALUE_TEXT_BYTES, "there is no folder " VALUE_DIR_NAME ", or no memory for the value");
    if (check->values_fd >= 0 && descriptor->value_bytes > 0 && descriptor->value_bytes <= KVS_VALUE_BYTES_MAX)
        memory = large_memory_take(&check->pool, value_reader_bytes(descriptor->value_bytes), LARGE_MEMORY_ANY);
    struct value_reader *reader = memory == NULL ? NULL : calloc(1, sizeof *reader);
    if (reader == NULL) {
        large_memory_give(memory);
        return NULL;
    }
    reader->place = &check->place;
    reader->ring = check->options.ring;
    reader->descriptor = *descriptor;
    reader->key = key;
    reader->memory = memory;
    reader->done = read_done;
    value_reader_begin(reader);
    while (!reader_ended(reader)) {
        bool works = value_reader_has_work(reader);
        if (works)
            value_reader_work(reader);
        if (!reader_ended(reader))
            ring_turn(reader->ring, value_reader_has_work(reader) ? 0 : -1);
    }
    check->report.bytes_read += descriptor->value_bytes;
    if (reader->error != KVS_ERR_OK) {
        snprintf(text, VALUE_TEXT_BYTES, "%s", reader->text);
        large_memory_give(memory);
        memory = NULL;
    }
    free(reader);
    return memory;
}

/* ---- files and records ----------------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    const struct check_large *x = a;
    const struct check_large *y = b;
    if (x->descriptor.id != y->descriptor.id)
        return x->descriptor.id < y->descriptor.id ? -1 : 1;
    return (x->live < y->live) - (x->live > y->live); /* live ones first */
}

static struct check_large *find(const struct check *check, uint64_t id)
{
    size_t low = 0, high = check->large_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (check->larges[middle].descriptor.id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < check->large_count && check->larges[low].descriptor.id == id ? &check->larges[low] : NULL;
}

static void file_text(char text[CHECK_FILE_BYTES], struct value_name name)
{
    static_assert(CHECK_FILE_BYTES >= sizeof VALUE_DIR_NAME + VALUE_NAME_BYTES, "names of value files fit");
    char file[VALUE_NAME_BYTES];
    value_name_write(file, name);
    snprintf(text, CHECK_FILE_BYTES, VALUE_DIR_NAME "/%s", file);
}

static void list_file(void *context, const char *text)
{
    struct check *check = context;
    struct value_name name;
    if (!value_name_parse(text, &name))
        return;
    check->report.large_files++;
    check->report.large_file_bytes += (uint64_t)name.blocks * KVS_BLOCK_BYTES;
    struct check_large *large = name.unfinished ? NULL : find(check, name.id);
    if (large != NULL && large->live) {
        large->there = true;
        return;
    }
    char file[CHECK_FILE_BYTES];
    file_text(file, name);
    struct check_damage *damage = check_damage(check, CHECK_HARMLESS, file, CHECK_UNKNOWN);
    snprintf(damage->what, sizeof damage->what, "%s",
             name.unfinished ? "its writing was not finished" : "no key has it for its value (any more)");
    snprintf(damage->means, sizeof damage->means, "it is removed after the next start");
}

static void judge(struct check *check, const struct check_large *large)
{
    char text[VALUE_TEXT_BYTES], file[CHECK_FILE_BYTES];
    const struct value_descriptor *descriptor = &large->descriptor;
    struct slice key = slice_make(large->key, large->key_bytes);
    struct large_memory *memory = check_read_value(check, key, descriptor, text);
    if (memory != NULL) {
        check->report.large_values++;
        check->report.large_bytes += descriptor->value_bytes;
        large_memory_give(memory);
        return;
    }
    file_text(file, value_name_of(descriptor->id, large->key_bytes, descriptor->value_bytes));
    struct check_damage *damage = check_damage(check, CHECK_UNSEEN, file, CHECK_UNKNOWN);
    snprintf(damage->what, sizeof damage->what, "%s", large->there ? text : "it is missing: it has the value of a key");
    snprintf(damage->means, sizeof damage->means, "a start does not read it; whoever asks for the key gets an error");
    damage->records_max = 1;
}

static void open_folder(struct check *check)
{
    struct ring_op op;
    struct ring *ring = check->options.ring;
    blocking_init(&op);
    ring_file_open(ring, &op, check->options.dir_fd, VALUE_DIR_NAME, RING_OPEN_READ | RING_OPEN_DIRECTORY);
    ring_await(ring, &op);
    check->values_fd = op.error == KVS_ERR_OK ? op.fd : -1;
    check->place = (struct value_place){.dir_fd = check->values_fd, .store_uuid = check->superblock.uuid};
    check->pool.bytes_max = UINT64_MAX;
}

void check_values(struct check *check)
{
    open_folder(check);
    for (size_t i = 0; i < check->large_count; i++) {
        struct check_large *large = &check->larges[i];
        large->live = check_map_is_newest(&check->map, large->hash, large->check, large->lsn);
    }
    if (check->large_count > 0)
        qsort(check->larges, check->large_count, sizeof *check->larges, by_id);
    if (check->values_fd >= 0)
        (void)ring_dir_list(check->options.ring, check->values_fd, list_file, check);
    for (size_t i = 0; i < check->large_count && check->err == KVS_ERR_OK; i++) {
        /* A record and its copy name the same file. */
        bool again = i > 0 && check->larges[i - 1].descriptor.id == check->larges[i].descriptor.id;
        if (check->larges[i].live && !again)
            judge(check, &check->larges[i]);
    }
}

void check_values_close(struct check *check)
{
    if (check->values_fd > 0)
        ring_close_fd(check->options.ring, check->values_fd);
    for (size_t i = 0; i < check->large_count; i++)
        free(check->larges[i].key);
    free(check->larges);
}
