/*
 * check_identity.c - superblock and manifest.
 *
 * Happy path: the better copy of the superblock gives identity and boot; manifest_open (read only) the list of
 * segments.
 *
 * Without a good superblock, store and segment size are taken from the first segment whose header is sound: enough to
 * find records that prove themselves. Without a good manifest, entries are taken from all of its blocks that prove
 * themselves, so that as many as possible of the given up segments are known for what they are.
 */
#include "engine/check_internal.h"

#include "base/array.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "engine/blocking.h"
#include "engine/manifest_internal.h"

#include <inttypes.h>
#include <stdlib.h>

enum { COPIES = 2 };
#define SEGMENT_BYTES_MIN (64ull * 1024)
#define SEGMENT_BYTES_MAX (1024ull * 1024 * 1024)

/* ---- superblock ------------------------------------------------------------------------------------------------ */

static bool zeros(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

/* Returns how many copies are sound; the better one is in check->superblock. */
static unsigned take_copies(struct check *check, const uint8_t *blocks)
{
    unsigned good = 0;
    for (unsigned i = 0; i < COPIES; i++) {
        struct superblock copy;
        memcpy(&copy, blocks + (size_t)i * KVS_BLOCK_BYTES, sizeof copy);
        if (!superblock_valid(&copy))
            continue;
        if (copy.version == SUPERBLOCK_VERSION)
            copy.flushed_lsn = 0;
        if (good++ == 0 || copy.sequence > check->superblock.sequence)
            check->superblock = copy;
    }
    return good;
}

static void judge_copies(struct check *check, const uint8_t *blocks, unsigned good)
{
    for (unsigned i = 0; i < COPIES; i++) {
        const uint8_t *block = blocks + (size_t)i * KVS_BLOCK_BYTES;
        uint64_t offset = (uint64_t)i * KVS_BLOCK_BYTES;
        struct superblock copy;
        memcpy(&copy, block, sizeof copy);
        bool valid = superblock_valid(&copy);
        if (valid && zeros(block + sizeof copy, KVS_BLOCK_BYTES - sizeof copy))
            continue;
        struct check_damage *damage =
            check_damage(check, good > 0 ? CHECK_HARMLESS : CHECK_REFUSED, SUPERBLOCK_NAME, offset);
        if (valid) {
            snprintf(damage->what, sizeof damage->what, "bytes behind copy %u that should be zero are not", i);
            snprintf(damage->means, sizeof damage->means, "nothing uses them");
        } else {
            snprintf(damage->what, sizeof damage->what, "copy %u is not whole", i);
            snprintf(damage->means, sizeof damage->means,
                     good > 0 ? "the other copy serves; the next start writes this one anew"
                              : "store, engine and hash of the keys are not known");
        }
    }
}

static enum kvs_err read_superblock(struct check *check, uint8_t *blocks, unsigned *good)
{
    struct ring_op op;
    int fd;
    bool direct;
    enum kvs_err err = check_open_file(check, SUPERBLOCK_NAME, &fd, &direct, &op);
    if (err == KVS_ERR_NOT_FOUND)
        return err;
    if (err != KVS_ERR_OK) {
        check_say(check, "cannot open %s/" SUPERBLOCK_NAME ": %s", check->options.dir_name, ring_op_text(&op));
        return err;
    }
    uint64_t bytes;
    (void)check_read(check, fd, blocks, (uint64_t)COPIES * KVS_BLOCK_BYTES, 0, &bytes);
    ring_close_fd(check->options.ring, fd);
    /* A start takes whole blocks only. */
    uint64_t whole = align_down(bytes, KVS_BLOCK_BYTES);
    memset(blocks + whole, 0, (size_t)(COPIES * KVS_BLOCK_BYTES - whole));
    *good = take_copies(check, blocks);
    judge_copies(check, blocks, *good);
    return KVS_ERR_OK;
}

static bool possible_size(uint64_t segment_bytes)
{
    return is_power_of_two(segment_bytes) && segment_bytes >= SEGMENT_BYTES_MIN && segment_bytes <= SEGMENT_BYTES_MAX;
}

static enum kvs_err judge_superblock(struct check *check)
{
    const struct superblock *superblock = &check->superblock;
    const char *dir = check->options.dir_name;
    if (!superblock_known(superblock)) {
        check_say(check,
                  "data directory %s has format version %u, this program knows versions %u and %u: use the newer one",
                  dir, superblock->version, (unsigned)SUPERBLOCK_VERSION, (unsigned)SUPERBLOCK_VERSION_FLUSHED);
        return KVS_ERR_VERSION;
    }
    if (strncmp(superblock->engine, "kvs", sizeof superblock->engine) != 0 &&
        strncmp(superblock->engine, "memory", sizeof superblock->engine) != 0) {
        check_say(check, "data directory %s was written by engine '%.16s', which this program does not know", dir,
                  superblock->engine);
        return KVS_ERR_MISMATCH;
    }
    if (!possible_size(superblock->segment_bytes)) {
        struct check_damage *damage = check_damage(check, CHECK_REFUSED, SUPERBLOCK_NAME, CHECK_UNKNOWN);
        snprintf(damage->what, sizeof damage->what, "it names an impossible segment size, %" PRIu64,
                 superblock->segment_bytes);
        return KVS_ERR_OK;
    }
    check->identity = true;
    return KVS_ERR_OK;
}

/* ---- without a superblock -------------------------------------------------------------------------------------- */

static void take_header(struct check *check, const struct check_file *file, uint8_t *block)
{
    char name[CHECK_FILE_BYTES];
    check_file_name(file, name);
    struct ring_op op;
    int fd;
    bool direct;
    uint64_t bytes;
    if (check_open_file(check, name, &fd, &direct, &op) != KVS_ERR_OK)
        return;
    bool whole = check_read(check, fd, block, KVS_BLOCK_BYTES, 0, &bytes) && bytes == KVS_BLOCK_BYTES;
    ring_close_fd(check->options.ring, fd);
    const struct segment_header *header = (const void *)block;
    if (!whole || !possible_size(header->segment_bytes) ||
        segment_header_check(header, header->store_uuid, file->found.number, header->segment_bytes) != NULL)
        return;
    struct superblock *superblock = &check->superblock;
    if (!check->identity) {
        *superblock = (struct superblock){.engine = "kvs", .segment_bytes = header->segment_bytes};
        memcpy(superblock->uuid, header->store_uuid, sizeof superblock->uuid);
        check->identity = check->report.identity_guessed = true;
    }
    if (header->epoch > superblock->epoch)
        superblock->epoch = header->epoch;
}

enum kvs_err check_superblock(struct check *check)
{
    uint8_t *blocks = aligned_alloc(KVS_BLOCK_BYTES, (size_t)COPIES * KVS_BLOCK_BYTES);
    if (blocks == NULL)
        return KVS_ERR_NO_MEMORY;
    unsigned good = 0;
    enum kvs_err err = read_superblock(check, blocks, &good);
    if (err == KVS_ERR_NOT_FOUND && check->file_count > 0) {
        struct check_damage *damage = check_damage(check, CHECK_REFUSED, SUPERBLOCK_NAME, CHECK_UNKNOWN);
        snprintf(damage->what, sizeof damage->what, "the file is missing");
        snprintf(damage->means, sizeof damage->means, "store, engine and hash of the keys are not known");
        err = KVS_ERR_OK;
    } else if (err == KVS_ERR_NOT_FOUND) {
        check_say(check, "%s is no data directory: it has neither superblock nor segments", check->options.dir_name);
    } else if (err == KVS_ERR_OK && good > 0) {
        err = judge_superblock(check);
    }
    for (size_t i = 0; err == KVS_ERR_OK && good == 0 && i < check->file_count; i++) {
        if (!check->files[i].found.unfinished)
            take_header(check, &check->files[i], blocks);
    }
    free(blocks);
    return err;
}

/* ---- a manifest that is damaged -------------------------------------------------------------------------------- */

struct lenient {
    uint64_t base; /* sequence of the file's first block */
    uint32_t seed;
};

static bool authentic(const struct lenient *lenient, const struct manifest_block *head)
{
    return head->magic == MANIFEST_MAGIC && head->version == MANIFEST_VERSION &&
           head->crc == manifest_block_crc(lenient->seed, head) && head->count <= MANIFEST_BLOCK_ENTRIES;
}

static enum kvs_err take_entries(struct check *check, const struct manifest_block *head)
{
    const struct manifest_entry *entries = (const void *)(head + 1);
    enum kvs_err err = KVS_ERR_OK;
    for (uint32_t i = 0; err == KVS_ERR_OK && i < head->count; i++) {
        struct manifest_entry entry = entries[i];
        if (!manifest_entry_possible(&entry))
            continue;
        if (entry.state == MANIFEST_FREE)
            entry.begun_lsn = head->sequence; /* has no meaning there: for check_is_newer */
        err = manifest_set(check->manifest, &entry);
    }
    return err;
}

/* Twice through the file: to find the newest generation of blocks, and to take their entries in order. */
static enum kvs_err read_leniently(struct check *check, int fd, uint8_t *block)
{
    struct lenient lenient = {.seed = crc32c(0, check->superblock.uuid, sizeof check->superblock.uuid)};
    enum kvs_err err = KVS_ERR_OK;
    for (unsigned pass = 0; pass < 2; pass++) {
        uint64_t bytes = KVS_BLOCK_BYTES;
        for (uint64_t at = 0; err == KVS_ERR_OK && bytes == KVS_BLOCK_BYTES; at += KVS_BLOCK_BYTES) {
            const struct manifest_block *head = (const void *)block;
            (void)check_read(check, fd, block, KVS_BLOCK_BYTES, at, &bytes);
            if (!authentic(&lenient, head) || head->sequence < head->index)
                continue;
            uint64_t base = head->sequence - head->index;
            if (pass == 0 && base > lenient.base)
                lenient.base = base;
            if (pass == 1 && base == lenient.base)
                err = take_entries(check, head);
        }
    }
    return err;
}

static enum kvs_err open_leniently(struct check *check, const struct manifest_options *options)
{
    struct ring_op op;
    int fd;
    bool direct;
    enum kvs_err err = manifest_new(&check->manifest, options);
    if (err != KVS_ERR_OK || check_open_file(check, MANIFEST_NAME, &fd, &direct, &op) != KVS_ERR_OK)
        return err;
    uint8_t *block = aligned_alloc(KVS_BLOCK_BYTES, KVS_BLOCK_BYTES);
    err = block == NULL ? KVS_ERR_NO_MEMORY : read_leniently(check, fd, block);
    free(block);
    ring_close_fd(check->options.ring, fd);
    return err;
}

/* ---- manifest -------------------------------------------------------------------------------------------------- */

static bool file_system_takes_direct(struct check *check)
{
    struct ring_op op;
    int fd;
    bool direct = false;
    if (check_open_file(check, MANIFEST_NAME, &fd, &direct, &op) == KVS_ERR_OK)
        ring_close_fd(check->options.ring, fd);
    return direct;
}

/* Where the message of manifest_open says that it is damaged. */
static uint64_t offset_in(const char *message)
{
    const char *at = strstr(message, "offset ");
    return at == NULL ? CHECK_UNKNOWN : strtoull(at + strlen("offset "), NULL, 10);
}

static void refuse_manifest(struct check *check, enum kvs_err err, const char *message)
{
    bool missing = err == KVS_ERR_NOT_FOUND;
    struct check_damage *damage =
        check_damage(check, CHECK_REFUSED, MANIFEST_NAME, missing ? CHECK_UNKNOWN : offset_in(message));
    snprintf(damage->what, sizeof damage->what, "%.380s", missing ? "the file is missing" : message);
    snprintf(damage->means, sizeof damage->means,
             "it is not certain which segments count: for salvage, all that may have been in use do, so keys that were "
             "deleted long ago may be found again");
}

static void match_entry(void *context, const struct manifest_entry *entry)
{
    struct check *check = context;
    if (entry->uid > check->uid_max)
        check->uid_max = entry->uid;
    struct check_file *file = check_file_find(check, entry->number);
    if (file == NULL) {
        enum kvs_err err =
            array_grow((void **)&check->files, check->file_count, &check->file_capacity, sizeof *check->files);
        if (err != KVS_ERR_OK) {
            check->err = err;
            return;
        }
        /* At the end, and not in order: look-ups go on among those in front, as numbers come but once. */
        file = &check->files[check->file_count++];
        *file = (struct check_file){.found = {.number = entry->number}, .out = {.role = CHECK_MISSING}};
    }
    file->found.known = true;
    file->found.entry = *entry;
}

static void set_role(struct check *check, struct check_file *file)
{
    const struct found_segment *found = &file->found;
    bool missing = file->out.role == CHECK_MISSING;
    file->uid = found->entry.uid;
    file->out.number = found->number;
    file->out.uid = found->entry.uid;
    file->out.relocated = found->entry.kind == SEGMENT_RELOCATED;
    switch (found_role(found)) {
    case FOUND_LOG:
        file->out.role = CHECK_LOG;
        break;
    case FOUND_SEALED:
        file->out.role = CHECK_SEALED;
        break;
    case FOUND_FREE:
        file->out.role = found->entry.state == MANIFEST_LIVE ? CHECK_UNFINISHED : CHECK_FREE;
        return;
    case FOUND_STRANGER:
        file->out.role = CHECK_UNLISTED;
        break;
    }
    if (!missing)
        return;
    file->out.role = CHECK_MISSING;
    file->out.damaged = true;
    char name[CHECK_FILE_BYTES];
    check_file_name(file, name);
    struct check_damage *damage = check_damage(check, CHECK_REFUSED, name, CHECK_UNKNOWN);
    bool sealed = found->entry.state == MANIFEST_SEALED;
    snprintf(damage->what, sizeof damage->what, "the file is missing; the manifest lists it as %s",
             sealed ? "sealed" : "being written");
    damage->records_max = sealed ? (uint64_t)found->entry.puts + found->entry.deletes : CHECK_UNKNOWN;
    if (sealed && found->entry.kind == SEGMENT_LOG) {
        damage->epoch = found->entry.epoch;
        damage->stream = found->entry.stream;
        damage->lsn_first = found->entry.min_lsn == UINT64_MAX ? 0 : found->entry.min_lsn;
        damage->lsn_last = found->entry.last_lsn;
    }
    snprintf(damage->means, sizeof damage->means,
             "all of its records are lost, as far as compaction has not copied them");
}

/* Entries of the manifest without a file stay only when there should be one. */
static void drop_absent(struct check *check)
{
    size_t kept = 0;
    for (size_t i = 0; i < check->file_count; i++) {
        struct check_file *file = &check->files[i];
        bool absent = file->out.role == CHECK_MISSING;
        if (!file->found.unfinished)
            set_role(check, file);
        if (!absent || file->out.role == CHECK_MISSING)
            check->files[kept++] = *file;
    }
    check->file_count = kept;
    check_sort_files(check);
}

enum kvs_err check_manifest(struct check *check)
{
    const struct manifest_options options = {.ring = check->options.ring,
                                             .dir_fd = check->options.dir_fd,
                                             .dir_name = check->options.dir_name,
                                             .store_uuid = check->superblock.uuid,
                                             .direct = file_system_takes_direct(check),
                                             .read_only = true};
    char message[ENGINE_MESSAGE_BYTES] = "";
    enum kvs_err err = manifest_open(&check->manifest, &options, message);
    check->manifest_good = err == KVS_ERR_OK;
    /* A store that was made and never served has none. */
    if (err == KVS_ERR_NOT_FOUND && check->named_count == 0) {
        check->manifest_good = true;
        return KVS_ERR_OK;
    }
    if (err == KVS_ERR_NO_MEMORY)
        return err;
    if (err == KVS_ERR_OK) {
        check->report.manifest_sequence = manifest_sequence(check->manifest);
    } else {
        refuse_manifest(check, err, message);
        if (open_leniently(check, &options) == KVS_ERR_NO_MEMORY)
            return KVS_ERR_NO_MEMORY;
    }
    manifest_each(check->manifest, match_entry, check);
    KVS_ASSERT(check->file_count <= check->file_capacity);
    drop_absent(check);
    return check->err;
}
