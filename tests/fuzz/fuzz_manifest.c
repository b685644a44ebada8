/*
 * fuzz_manifest.c - reading a manifest, and going on with it.
 *
 * Input: the number of blocks of the file, of its snapshot, what to do with the file's size, the first sequence. Then
 * for each block how it comes about: 0 zeros   1 as the program writes it   2 likewise, with bytes of header or entries
 * changed and the checksum right 3 likewise, with a byte changed and the checksum wrong   4 torn   5 a copy of another
 * block 6 header and more from the input, with magic and checksum made right   7 noise Entries are six bytes of the
 * input each.
 *
 * Properties. The rules of docs/FORMAT.md, applied here anew to the same bytes, give the same answer and the same
 * entries. A refusal says why and changes nothing. What was accepted goes on: after another change, after a new file,
 * and after a power loss each time, the same entries are read back, with a higher sequence.
 */
#include "engine/manifest.h"
#include "fuzz_sim.h"

#include "base/crc32c.h"

enum { BLOCKS_MAX = 12, ENTRIES_AT = 64, ENTRY_BYTES = 64, ENTRIES_MAX = 63, LOW = 512, NUMBERS = LOW + 1024 };

static const char path[] = "/data/" MANIFEST_NAME;
static const uint8_t uuid[16] = {1, 2, 3};

/* By number; state 0: there is none. Numbers are below 512, or multiples of 2^16. */
struct expected {
    enum kvs_err err;
    uint64_t sequence;
    uint32_t count;
    struct manifest_entry *entries; /* NUMBERS of them */
};

static uint32_t slot_of(uint32_t number)
{
    return number < LOW ? number : LOW + (number >> 16);
}

/* ---- making a file --------------------------------------------------------------------------------------------- */

static uint32_t block_crc(const uint8_t *block)
{
    return crc32c(crc32c(0, uuid, sizeof uuid), block + 12, KVS_BLOCK_BYTES - 12);
}

static void fix(uint8_t *block)
{
    const uint64_t magic = MANIFEST_MAGIC;
    const uint32_t crc = block_crc(block);
    memcpy(block, &magic, sizeof magic);
    memcpy(block + 8, &crc, sizeof crc);
}

static struct manifest_entry take_entry(struct fuzz_input *input)
{
    struct manifest_entry entry = {0};
    entry.number = (uint32_t)fuzz_take(input, 2);
    if (entry.number >= 0xfb00)
        entry.number = (entry.number - 0xfb00) << 16;
    else
        entry.number %= LOW;
    entry.state = (uint8_t)fuzz_take(input, 1);
    entry.kind = (uint8_t)fuzz_take(input, 1);
    entry.uid = fuzz_take(input, 2);
    return entry;
}

/* As the program writes it, but for what the entries say. */
static void make_block(struct fuzz_input *input, uint8_t *block, struct manifest_block head)
{
    head.count = (uint32_t)fuzz_take(input, 1) % 8;
    for (uint32_t i = 0; i < head.count; i++) {
        const struct manifest_entry entry = take_entry(input);
        memcpy(block + ENTRIES_AT + (size_t)i * ENTRY_BYTES, &entry, sizeof entry);
    }
    memcpy(block, &head, sizeof head);
    fix(block);
}

static void change_bytes(struct fuzz_input *input, uint8_t *block)
{
    const uint64_t at = fuzz_take(input, 1);
    block[(12 + at) % KVS_BLOCK_BYTES] ^= (uint8_t)fuzz_take(input, 1);
    block[(12 + at + 1) % KVS_BLOCK_BYTES] ^= (uint8_t)fuzz_take(input, 1);
}

static void make_some_block(struct fuzz_input *input, uint8_t *file, uint32_t index, const struct manifest_block *head)
{
    uint8_t *block = file + (size_t)index * KVS_BLOCK_BYTES;
    const unsigned way = (unsigned)fuzz_take(input, 1) % 8;
    if (way >= 1 && way <= 4)
        make_block(input, block, *head);
    if (way == 2) {
        change_bytes(input, block);
        fix(block);
    } else if (way == 3) {
        block[fuzz_take(input, 2) % KVS_BLOCK_BYTES] ^= (uint8_t)fuzz_take(input, 1);
    } else if (way == 4) {
        const size_t whole = fuzz_take(input, 1) % 8 * 512;
        memset(block + whole, 0, KVS_BLOCK_BYTES - whole);
    } else if (way == 5) {
        const uint64_t other = fuzz_take(input, 1) % BLOCKS_MAX;
        memmove(block, file + other * KVS_BLOCK_BYTES, KVS_BLOCK_BYTES);
    } else if (way >= 6) {
        const struct slice bytes = fuzz_take_slice(input, 128);
        if (bytes.size > 0)
            memcpy(block, bytes.data, bytes.size);
        if (way == 6)
            fix(block);
    }
}

/* Returns its size. */
static size_t make_file(struct fuzz_input *input, uint8_t *file)
{
    struct manifest_block head = {.version = MANIFEST_VERSION};
    head.file_blocks = 1 + (uint32_t)fuzz_take(input, 1) % BLOCKS_MAX;
    head.snapshot_blocks = 1 + (uint32_t)fuzz_take(input, 1) % head.file_blocks;
    const unsigned resize = (unsigned)fuzz_take(input, 1);
    const uint64_t first = fuzz_take(input, 2) + 1;
    for (uint32_t i = 0; i < head.file_blocks; i++) {
        head.index = i;
        head.sequence = first + i;
        make_some_block(input, file, i, &head);
    }
    const size_t size = (size_t)head.file_blocks * KVS_BLOCK_BYTES;
    if (resize < 250)
        return size;
    const size_t cut = resize < 254 ? 512 * (resize - 249) : KVS_BLOCK_BYTES;
    return resize == 255 ? size + cut : size - cut;
}

/* ---- the rules ------------------------------------------------------------------------------------------------- */

static struct manifest_block head_of(const uint8_t *file, uint64_t index)
{
    struct manifest_block head;
    memcpy(&head, file + index * KVS_BLOCK_BYTES, sizeof head);
    return head;
}

static bool authentic(const uint8_t *file, uint64_t index)
{
    const struct manifest_block head = head_of(file, index);
    return head.magic == MANIFEST_MAGIC && head.crc == block_crc(file + index * KVS_BLOCK_BYTES);
}

static bool in_place(const uint8_t *file, uint64_t index)
{
    const struct manifest_block first = head_of(file, 0), head = head_of(file, index);
    return authentic(file, index) && head.index == index && head.sequence == first.sequence + index &&
           head.snapshot_blocks == first.snapshot_blocks && head.file_blocks == first.file_blocks;
}

static bool possible(const struct manifest_entry *entry, bool snapshot)
{
    if (entry->number >= 1u << 26 || entry->kind > 2 || entry->state < 1 || entry->state > 4)
        return false;
    return entry->state <= 2 ? entry->kind >= 1 : entry->state == 3 || !snapshot;
}

static bool expect_entries(struct expected *expected, const uint8_t *file, uint64_t index)
{
    const struct manifest_block head = head_of(file, index);
    if (head.count > ENTRIES_MAX)
        return false;
    for (uint32_t i = 0; i < head.count; i++) {
        struct manifest_entry entry;
        memcpy(&entry, file + index * KVS_BLOCK_BYTES + ENTRIES_AT + (size_t)i * ENTRY_BYTES, sizeof entry);
        if (!possible(&entry, index < head.snapshot_blocks))
            return false;
        struct manifest_entry *place = &expected->entries[slot_of(entry.number)];
        expected->count -= place->state != 0;
        *place = entry;
        if (entry.state == 4)
            memset(place, 0, sizeof *place);
        expected->count += place->state != 0;
    }
    return true;
}

static enum kvs_err expect_blocks(struct expected *expected, const uint8_t *file, uint64_t blocks)
{
    const struct manifest_block first = head_of(file, 0);
    uint64_t end = 0;
    for (; end < blocks && authentic(file, end); end++) {
        if (head_of(file, end).version != MANIFEST_VERSION && head_of(file, end).sequence >= first.sequence + end)
            return KVS_ERR_VERSION;
        if (head_of(file, end).version != MANIFEST_VERSION || !in_place(file, end))
            break;
        if (!expect_entries(expected, file, end))
            return KVS_ERR_CORRUPT;
    }
    if (end < first.snapshot_blocks)
        return KVS_ERR_CORRUPT;
    for (uint64_t i = end; i < blocks; i++) {
        if (authentic(file, i) && head_of(file, i).sequence >= first.sequence + end)
            return KVS_ERR_CORRUPT;
    }
    expected->sequence = first.sequence + end - 1;
    return KVS_ERR_OK;
}

static enum kvs_err expect(struct expected *expected, const uint8_t *file, size_t size)
{
    if (size < KVS_BLOCK_BYTES || !authentic(file, 0))
        return KVS_ERR_CORRUPT;
    const struct manifest_block first = head_of(file, 0);
    if (first.version != MANIFEST_VERSION)
        return KVS_ERR_VERSION;
    if (first.index != 0 || first.sequence == 0 || first.sequence > UINT64_MAX / 2 || first.snapshot_blocks == 0 ||
        first.snapshot_blocks > first.file_blocks || (uint64_t)first.file_blocks * KVS_BLOCK_BYTES != size)
        return KVS_ERR_CORRUPT;
    return expect_blocks(expected, file, first.file_blocks);
}

/* An entry whose number the table here cannot hold: the input says nothing. */
static bool beyond_table(const uint8_t *file, size_t size)
{
    for (uint64_t i = 0; i < size / KVS_BLOCK_BYTES; i++) {
        const struct manifest_block head = head_of(file, i);
        for (uint32_t j = 0; authentic(file, i) && j < head.count && j < ENTRIES_MAX; j++) {
            uint32_t number;
            memcpy(&number, file + i * KVS_BLOCK_BYTES + ENTRIES_AT + (size_t)j * ENTRY_BYTES, sizeof number);
            if (number < 1u << 26 && number >= LOW && (number & 0xffff) != 0)
                return true;
        }
    }
    return false;
}

/* ---- the code -------------------------------------------------------------------------------------------------- */

struct session {
    struct ring *ring;
    int dir_fd;
    struct manifest_options options;
    struct manifest *manifest;
    char message[ENGINE_MESSAGE_BYTES];
};

static enum kvs_err open_manifest(struct session *session, bool direct)
{
    memset(session, 0, sizeof *session);
    session->ring = fuzz_ring_open();
    FUZZ_CHECK(ring_dir_open(session->ring, "/data", &session->dir_fd) == KVS_ERR_OK);
    session->options = (struct manifest_options){.ring = session->ring,
                                                 .dir_fd = session->dir_fd,
                                                 .dir_name = "/data",
                                                 .store_uuid = uuid,
                                                 .direct = direct,
                                                 .sync_after_write = !direct};
    return manifest_open(&session->manifest, &session->options, session->message);
}

static void lose_power(struct session *session)
{
    sim_crash(SIM_DROP_ALL);
    manifest_close(session->manifest, session->ring);
}

struct seen {
    const struct expected *expected;
    uint32_t count;
};

static void see(void *context, const struct manifest_entry *entry)
{
    struct seen *seen = context;
    FUZZ_CHECK(memcmp(entry, &seen->expected->entries[slot_of(entry->number)], sizeof *entry) == 0);
    seen->count++;
}

static void check_entries(const struct session *session, const struct expected *expected)
{
    struct seen seen = {.expected = expected};
    manifest_each(session->manifest, see, &seen);
    FUZZ_CHECK(seen.count == expected->count);
}

static void check_change(struct session *session, struct expected *expected)
{
    const struct manifest_entry entry = {.number = 5, .state = MANIFEST_LIVE, .kind = SEGMENT_LOG, .uid = 77};
    uint64_t ticket;
    manifest_attach(session->manifest, session->ring);
    FUZZ_CHECK(manifest_change(session->manifest, &entry, &ticket) == KVS_ERR_OK);
    expected->count += expected->entries[5].state == 0;
    expected->entries[5] = entry;
    for (unsigned turn = 0; !manifest_idle(session->manifest); turn++) {
        FUZZ_CHECK(turn < 1000);
        manifest_turn(session->manifest);
        if (!manifest_idle(session->manifest))
            ring_turn(session->ring, manifest_timeout_ns(session->manifest));
    }
    FUZZ_CHECK(manifest_durable(session->manifest, ticket) && !manifest_failed(session->manifest));
    check_entries(session, expected);
}

static void check_going_on(struct session *session, struct expected *expected)
{
    for (unsigned round = 0; round < 3; round++) {
        const uint64_t sequence = manifest_sequence(session->manifest);
        FUZZ_CHECK(sequence >= expected->sequence);
        if (round == 1)
            FUZZ_CHECK(manifest_write(session->manifest, session->message) == KVS_ERR_OK);
        else
            check_change(session, expected);
        expected->sequence = manifest_sequence(session->manifest);
        FUZZ_CHECK(expected->sequence > sequence);
        lose_power(session);
        FUZZ_CHECK(open_manifest(session, round == 0) == KVS_ERR_OK);
        FUZZ_CHECK(manifest_sequence(session->manifest) == expected->sequence);
        check_entries(session, expected);
    }
}

FUZZ_SIM_INITIALIZE

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    static uint8_t file[(BLOCKS_MAX + 1) * KVS_BLOCK_BYTES], after[sizeof file];
    static struct manifest_entry entries[NUMBERS];
    memset(file, 0, sizeof file);
    memset(entries, 0, sizeof entries);
    const size_t file_bytes = make_file(&input, file);
    if (beyond_table(file, file_bytes))
        return 0;
    struct expected expected = {.entries = entries};
    expected.err = expect(&expected, file, file_bytes);

    sim_create(1);
    sim_file_put(path, file, file_bytes);
    struct session session;
    FUZZ_CHECK(open_manifest(&session, true) == expected.err);
    if (expected.err == KVS_ERR_OK) {
        FUZZ_CHECK(manifest_sequence(session.manifest) == expected.sequence);
        check_entries(&session, &expected);
        check_going_on(&session, &expected);
    } else {
        FUZZ_CHECK(session.message[0] != '\0' && memchr(session.message, '\0', sizeof session.message) != NULL);
    }
    lose_power(&session);
    if (expected.err != KVS_ERR_OK) {
        FUZZ_CHECK(sim_file_size(path) == file_bytes);
        sim_file_read(path, 0, after, file_bytes);
        FUZZ_CHECK(memcmp(file, after, file_bytes) == 0);
    }
    sim_destroy();
    return 0;
}
