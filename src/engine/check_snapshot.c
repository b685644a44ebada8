/*
 * check_snapshot.c - the snapshot of the indexes, if the last stop has left one: header, tables and pages against their
 * checksums, as a start verifies them.
 *
 * One that is damaged harms nothing: a start throws it away and fills the indexes from the runs. One that is whole but
 * speaks of other segments is thrown away, too; that is no damage.
 */
#include "engine/check_internal.h"

#include "engine/blocking.h"
#include "engine/snapshot_file.h"

#include <stdlib.h>

struct snapshot_check {
    struct check *check;
    int fd;
    uint8_t *buffer; /* of a chunk */
    uint8_t *tables;
    struct snapshot_header header;
    struct snapshot_layout layout;
    uint64_t wrong_at; /* what is wrong begins here */
};

static bool read_all(struct snapshot_check *snapshot, void *bytes, uint64_t size, uint64_t offset)
{
    uint64_t got;
    snapshot->wrong_at = offset;
    return check_read(snapshot->check, snapshot->fd, bytes, size, offset, &got) && got == size;
}

/* NULL, or what is wrong. */
static const char *check_header(struct snapshot_check *snapshot)
{
    struct ring_file_info info;
    if (!read_all(snapshot, snapshot->buffer, SNAPSHOT_HEADER_BYTES, 0) ||
        ring_file_info(snapshot->check->options.ring, snapshot->fd, &info) != KVS_ERR_OK)
        return "its header cannot be read";
    return snapshot_header_take(&snapshot->header, &snapshot->layout, snapshot->buffer,
                                snapshot->check->superblock.uuid, info.size);
}

static const char *check_pages(struct snapshot_check *snapshot)
{
    const struct snapshot_shard *shards = (const void *)snapshot->tables;
    const uint64_t *checks = (const void *)(snapshot->tables + snapshot->layout.checks);
    uint64_t offset = SNAPSHOT_HEADER_BYTES;
    for (uint32_t i = 0; i < snapshot->header.shard_count; i++) {
        for (uint64_t left = shards[i].page_count * INDEX_PAGE_BYTES; left > 0;) {
            const uint64_t size = left < SNAPSHOT_CHUNK_BYTES ? left : SNAPSHOT_CHUNK_BYTES;
            if (!read_all(snapshot, snapshot->buffer, size, offset))
                return "its pages cannot be read";
            if (snapshot_check(snapshot->buffer, size, snapshot->header.store_uuid) != *checks++)
                return "the checksum of its pages is wrong";
            offset += size;
            left -= size;
        }
    }
    return NULL;
}

/* *wrong: what is, or NULL. NO_MEMORY. */
static enum kvs_err check_file(struct snapshot_check *snapshot, const char **wrong)
{
    snapshot->buffer = aligned_alloc(KVS_BLOCK_BYTES, SNAPSHOT_CHUNK_BYTES);
    if (snapshot->buffer == NULL)
        return KVS_ERR_NO_MEMORY;
    *wrong = check_header(snapshot);
    if (*wrong != NULL)
        return KVS_ERR_OK;
    /* No more than the file has. */
    snapshot->tables = malloc(snapshot->layout.tables_bytes);
    if (snapshot->tables == NULL)
        return KVS_ERR_NO_MEMORY;
    *wrong = read_all(snapshot, snapshot->tables, snapshot->layout.tables_bytes, snapshot->layout.tables)
                 ? snapshot_tables_check(&snapshot->header, snapshot->tables)
                 : "its tables cannot be read";
    if (*wrong == NULL)
        *wrong = check_pages(snapshot);
    return KVS_ERR_OK;
}

enum kvs_err check_snapshot(struct check *check)
{
    struct snapshot_check snapshot = {.check = check, .fd = -1};
    struct ring_op op;
    blocking_init(&op);
    ring_file_open(check->options.ring, &op, check->options.dir_fd, SNAPSHOT_NAME, RING_OPEN_READ);
    ring_await(check->options.ring, &op);
    if (op.error == KVS_ERR_NOT_FOUND)
        return KVS_ERR_OK;
    const char *wrong = "it cannot be opened";
    enum kvs_err err = KVS_ERR_OK;
    if (op.error == KVS_ERR_OK) {
        snapshot.fd = op.fd;
        err = check_file(&snapshot, &wrong);
        ring_close_fd(check->options.ring, snapshot.fd);
    }
    free(snapshot.buffer);
    free(snapshot.tables);
    if (err != KVS_ERR_OK || wrong == NULL)
        return err;
    struct check_damage *damage = check_damage(check, CHECK_HARMLESS, SNAPSHOT_NAME, snapshot.wrong_at);
    snprintf(damage->what, sizeof damage->what, "%s", wrong);
    snprintf(damage->means, sizeof damage->means, "a start throws it away, and fills the indexes from the runs");
    return KVS_ERR_OK;
}
