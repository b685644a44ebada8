/*
 * check_runs.c - the sorted runs: every byte of them is read, and it is noted which segments they spare a start the
 * reading of.
 *
 * A run that is damaged anywhere harms nothing: a start reads the segments instead. But a start that goes by a sound
 * one does not read what it covers, so damage there is not noticed before somebody asks for the records.
 */
#include "engine/check_internal.h"

#include "base/array.h"

#include "engine/run_reader.h"

#include <stdlib.h>

struct run_list {
    struct check *check;
    uint64_t *sequences;
    size_t count, capacity;
};

static void list_run(void *context, const char *name)
{
    struct run_list *list = context;
    uint64_t sequence;
    bool unfinished;
    if (!run_name_parse(name, &sequence, &unfinished) || unfinished || list->check->err != KVS_ERR_OK)
        return;
    list->check->err = array_grow((void **)&list->sequences, list->count, &list->capacity, sizeof *list->sequences);
    if (list->check->err == KVS_ERR_OK)
        list->sequences[list->count++] = sequence;
}

/* Reads all entries; what is wrong is in `message` then. */
static enum kvs_err read_all(struct check *check, const struct run *run, char message[ENGINE_MESSAGE_BYTES])
{
    const struct run_reader_options options = {.run = run, .ring = check->options.ring, .range = RUN_RANGE_ALL};
    struct run_reader *reader;
    enum kvs_err err = run_reader_open(&reader, &options);
    if (err != KVS_ERR_OK)
        return err;
    struct run_span span;
    do {
        err = run_reader_next(reader, &span);
        ring_turn(check->options.ring, err == KVS_ERR_AGAIN ? -1 : 0);
    } while (err == KVS_ERR_AGAIN || (err == KVS_ERR_OK && span.at != span.end));
    snprintf(message, ENGINE_MESSAGE_BYTES, "%s", run_reader_failure_text(reader));
    run_reader_stop(reader);
    while (!run_reader_idle(reader))
        ring_turn(check->options.ring, -1);
    run_reader_close(reader);
    check->report.bytes_read += run->layout.file_bytes;
    return err;
}

static void cover(struct check *check, const struct run *run)
{
    for (uint32_t i = 0; i < run->segment_count; i++) {
        struct check_file *file = check_file_find(check, run->segments[i].number);
        if (file != NULL && file->found.known && found_role(&file->found) == FOUND_SEALED &&
            recovery_run_counts(&run->segments[i], &file->found.entry))
            file->covered = true;
    }
}

static enum kvs_err check_one(struct check *check, uint64_t sequence)
{
    const struct run_open_options options = {.ring = check->options.ring,
                                             .dir_fd = check->options.dir_fd,
                                             .dir_name = check->options.dir_name,
                                             .store_uuid = check->superblock.uuid,
                                             .sequence = sequence};
    char message[ENGINE_MESSAGE_BYTES];
    struct run *run;
    enum kvs_err err = run_open(&run, &options, message);
    if (err == KVS_ERR_OK) {
        err = read_all(check, run, message);
        if (err == KVS_ERR_OK)
            cover(check, run);
        run_close(run, check->options.ring);
    }
    if (err == KVS_ERR_OK || err == KVS_ERR_NO_MEMORY)
        return err;
    char name[RUN_NAME_BYTES];
    run_name(name, sequence, "");
    struct check_damage *damage = check_damage(check, CHECK_HARMLESS, name, CHECK_UNKNOWN);
    snprintf(damage->what, sizeof damage->what, "%.300s", message);
    snprintf(damage->means, sizeof damage->means, "a start reads the segments that it covers instead");
    return KVS_ERR_OK;
}

enum kvs_err check_runs(struct check *check)
{
    struct run_list list = {.check = check};
    enum kvs_err err = ring_dir_list(check->options.ring, check->options.dir_fd, list_run, &list);
    if (err != KVS_ERR_OK)
        check_say(check, "cannot read directory %s: %s", check->options.dir_name, kvs_err_text(err));
    else
        err = check->err;
    for (size_t i = 0; err == KVS_ERR_OK && i < list.count; i++)
        err = check_one(check, list.sequences[i]);
    free(list.sequences);
    return err;
}
