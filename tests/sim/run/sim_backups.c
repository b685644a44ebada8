/*
 * sim_backups.c - the backups of a run.
 *
 * Happy path: a name for each; when the engine says that it is whole, the hash of its files is kept, and compared
 * later. Failure modes: a change of them breaks the run.
 */
#include "sim_backups.h"

#include "ring_sim.h"
#include "verdict.h"

#include "base/assert.h"
#include "base/crc32c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORE_PATH "/data"

/* ---- hashes ---------------------------------------------------------------------------------------------------- */

struct hashing {
    const char *path;
    uint64_t sum;
    unsigned files;
};

static bool is_within(const char *path, const char *dir)
{
    size_t length = strlen(dir);
    return strncmp(path, dir, length) == 0 && path[length] == '/' && strchr(path + length + 1, '/') == NULL;
}

static void hash_file(void *context, const char *path)
{
    static uint8_t bytes[64 * 1024];
    struct hashing *hashing = context;
    if (!is_within(path, hashing->path))
        return;
    const char *name = strrchr(path, '/') + 1;
    if (strcmp(name, "lock") == 0)
        return;
    uint32_t crc = crc32c(0, name, strlen(name));
    uint64_t size = sim_file_size(path);
    for (uint64_t at = 0; at < size; at += sizeof(bytes)) {
        size_t piece = size - at < sizeof(bytes) ? (size_t)(size - at) : sizeof(bytes);
        sim_file_read(path, at, bytes, piece);
        crc = crc32c(crc, bytes, piece);
    }
    hashing->sum += crc; /* in any order of files */
    hashing->files++;
}

static uint64_t hash_of(const char *path)
{
    struct hashing hashing = {.path = path};
    sim_file_each(hash_file, &hashing);
    KVS_ASSERT(hashing.files > 1);
    return hashing.sum;
}

/* ---- making and watching --------------------------------------------------------------------------------------- */

bool sim_backups_ask(struct sim_backups *backups, struct engine *engine, struct ring *ring)
{
    char name[ENGINE_BACKUP_NAME_BYTES];
    snprintf(name, sizeof(name), "b%u", backups->asked);
    if (engine_backup_begin(engine, name, ring) != KVS_ERR_OK)
        return false;
    backups->asked++;
    return true;
}

bool sim_backups_look(struct sim_backups *backups, const struct engine *engine)
{
    struct engine_backup_state state;
    engine_backup_state(engine, &state);
    if (state.ended == backups->ended)
        return false;
    backups->ended = state.ended;
    if (state.error != KVS_ERR_OK) {
        story("backup %s has failed: %s", state.name, state.text);
        return false;
    }
    KVS_ASSERT(backups->count < SIM_BACKUPS_MAX);
    struct sim_backup *backup = &backups->whole[backups->count++];
    snprintf(backup->path, sizeof(backup->path), "%.63s", state.good_path);
    backup->hash = hash_of(backup->path);
    story("backup %s is whole", backup->path);
    return true;
}

void sim_backups_reboot(struct sim_backups *backups)
{
    backups->ended = 0;
}

void sim_backups_check(const struct sim_backups *backups)
{
    for (unsigned i = 0; i < backups->count; i++) {
        if (hash_of(backups->whole[i].path) != backups->whole[i].hash)
            broken("P3 no lies: the backup %s is not what it was when it was whole", backups->whole[i].path);
    }
}

/* ---- restoring ------------------------------------------------------------------------------------------------- */

static void remove_file(void *context, const char *path)
{
    (void)context;
    if (is_within(path, STORE_PATH))
        sim_file_remove(path);
}

struct linking {
    struct ring *ring;
    const char *path;
    int from, to;
};

static void nothing_done(struct ring_op *op)
{
    (void)op;
}

/* Manifest and superblock are written in place by whoever has them. */
static void copy_file(const char *path, const char *name)
{
    char to[64];
    size_t size = (size_t)sim_file_size(path);
    uint8_t *bytes = malloc(size);
    KVS_ASSERT(bytes != NULL);
    sim_file_read(path, 0, bytes, size);
    snprintf(to, sizeof(to), STORE_PATH "/%.40s", name);
    sim_file_put(to, bytes, size);
    free(bytes);
}

static void link_file(void *context, const char *path)
{
    const struct linking *linking = context;
    if (!is_within(path, linking->path))
        return;
    const char *name = strrchr(path, '/') + 1;
    if (strstr(name, ".seg") == NULL && strstr(name, ".run") == NULL) {
        copy_file(path, name);
        return;
    }
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    ring_file_link(linking->ring, &op, linking->from, name, linking->to, name);
    ring_await(linking->ring, &op);
    KVS_ASSERT(op.error == KVS_ERR_OK);
}

void sim_backups_restore(const struct sim_backups *backups)
{
    KVS_ASSERT(backups->count > 0);
    char message[RING_MESSAGE_BYTES];
    const struct ring_options options = {.entries = 64};
    struct linking linking = {.path = backups->whole[backups->count - 1].path};
    sim_set_links(true);
    sim_file_each(remove_file, NULL);
    KVS_ASSERT(ring_open(&linking.ring, &options, message) == KVS_ERR_OK);
    KVS_ASSERT(ring_dir_open(linking.ring, linking.path, &linking.from) == KVS_ERR_OK);
    KVS_ASSERT(ring_dir_open(linking.ring, STORE_PATH, &linking.to) == KVS_ERR_OK);
    sim_file_each(link_file, &linking);
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    ring_file_sync(linking.ring, &op, linking.to);
    ring_await(linking.ring, &op);
    KVS_ASSERT(op.error == KVS_ERR_OK);
    ring_close_fd(linking.ring, linking.from);
    ring_close_fd(linking.ring, linking.to);
    ring_close(linking.ring);
    story("the store is %s now", linking.path);
}
