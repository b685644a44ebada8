/*
 * run_open.h - a run on disk that is ready to be read: its header, the segments it covers, and where its blocks begin.
 *
 * Opening reads and checks all of that; the entries themselves are for run_reader.h. Opened, a struct run does not
 * change: the readers of several threads may share it, each on its own ring.
 *
 * Threads: whoever opens it turns the ring it was begun with until run_state is no longer AGAIN. It is closed after its
 * last reader.
 *
 * RAM: 64 bytes a segment and 8 bytes for each 64 KiB of entries.
 */
#ifndef KVS_ENGINE_RUN_OPEN_H
#define KVS_ENGINE_RUN_OPEN_H

#include "engine/engine.h"
#include "engine/run_file.h"

struct run_open_options {
    struct ring *ring;
    int dir_fd;
    const char *dir_name; /* for messages; the caller's, for as long as the run is open */
    const uint8_t *store_uuid;
    uint64_t sequence;
    bool direct; /* O_DIRECT */
};

struct run {
    uint64_t sequence;
    uint64_t entry_count;
    uint64_t delete_count;              /* of them */
    uint64_t time_ms;                   /* the store's time when it was made */
    const struct run_segment *segments; /* by rising number */
    uint32_t segment_count;

    /* For readers from here on. */
    int fd;
    uint32_t seed;
    const char *dir_name;
    char name[RUN_NAME_BYTES];
    struct run_layout layout;
    const uint64_t *first_orders; /* of each block of entries, not falling */
    struct run_opening *opening;  /* private to run_open.c */
};

/* Begins to open a run. NO_MEMORY; whatever else goes wrong is told by run_state. */
enum kvs_err run_open_begin(struct run **out, const struct run_open_options *options);
/* AGAIN until it is done; then OK, NOT_FOUND, CORRUPT (damage of any kind: a run to be thrown away), or an error of the
 * file system. */
enum kvs_err run_state(const struct run *run);
/* Why it could not be opened: file and cause. "" while nothing has failed. */
const char *run_failure_text(const struct run *run);

/* Begins, and turns the ring until it is done. On failure *out is NULL and the message filled in. Start-up. */
enum kvs_err run_open(struct run **out, const struct run_open_options *options, char message[ENGINE_MESSAGE_BYTES]);

/* Not while run_state is AGAIN, unless its ring is closed. `ring`: any, to close the file on. NULL is allowed. */
void run_close(struct run *run, struct ring *ring);

/* The covered segment of this number, or NULL. */
const struct run_segment *run_segment_find(const struct run *run, uint32_t number);

#endif
