/*
 * fuzz_superblock.c - reading and writing the two copies of the superblock.
 *
 * Input: a byte of flags, then the beginnings of both copies, then how long the file is. Flags: 1, 2: give copy 0, 1
 * its magic and right checksum; 4: the file is cut; 8: both copies lie one after the other in the input, else the
 * second is the first with the input's rest over it.
 *
 * Properties. What is read is one of the copies, valid, of a known version, and no valid copy has a higher sequence. A
 * refusal says why. After a write the same content is read back, and the other copy is as it was.
 */
#include "engine/superblock.h"
#include "fuzz_fixup.h"
#include "fuzz_sim.h"

#include "engine/log_format.h"

enum { FIX_0 = 1, FIX_1 = 2, CUT = 4, SEPARATE = 8, FILE_BYTES = 2 * KVS_BLOCK_BYTES };

static const char path[] = "/data/" SUPERBLOCK_NAME;

static size_t make_file(struct fuzz_input *input, uint8_t bytes[FILE_BYTES])
{
    memset(bytes, 0, FILE_BYTES);
    const unsigned flags = (unsigned)fuzz_take(input, 1);
    const size_t cut = (flags & CUT) != 0 ? fuzz_take(input, 2) % FILE_BYTES : FILE_BYTES;
    const struct slice first = fuzz_take_slice(input, sizeof(struct superblock));
    for (unsigned copy = 0; copy < 2; copy++) {
        if (first.size > 0)
            memcpy(bytes + copy * KVS_BLOCK_BYTES, first.data, first.size);
    }
    const struct slice second = fuzz_take_slice(input, sizeof(struct superblock));
    for (size_t i = 0; i < second.size; i++) {
        uint8_t *byte = bytes + KVS_BLOCK_BYTES + i;
        *byte = (flags & SEPARATE) != 0 ? second.data[i] : *byte ^ second.data[i];
    }
    if ((flags & FIX_0) != 0)
        fixup_superblock_copy(bytes);
    if ((flags & FIX_1) != 0)
        fixup_superblock_copy(bytes + KVS_BLOCK_BYTES);
    return cut;
}

/* Of the copies that are whole in the file and valid, the highest sequence; false when there is none. */
static bool best_sequence(const uint8_t *bytes, size_t size, uint64_t *sequence)
{
    bool found = false;
    for (unsigned i = 0; (i + 1) * KVS_BLOCK_BYTES <= size; i++) {
        struct superblock copy;
        memcpy(&copy, bytes + i * KVS_BLOCK_BYTES, sizeof copy);
        if (!fixup_superblock_right(&copy))
            continue;
        if (!found || copy.sequence > *sequence)
            *sequence = copy.sequence;
        found = true;
    }
    return found;
}

static void check_write(struct ring *ring, int dir_fd, const struct superblock *read, const uint8_t *bytes)
{
    char message[ENGINE_MESSAGE_BYTES] = "";
    struct superblock written = *read, again;
    FUZZ_CHECK(superblock_write(ring, dir_fd, "/data", &written, message) == KVS_ERR_OK);
    FUZZ_CHECK(superblock_valid(&written) && written.sequence == read->sequence + 1);
    FUZZ_CHECK(superblock_read(ring, dir_fd, "/data", &again, message) == KVS_ERR_OK);
    FUZZ_CHECK(memcmp(&again, &written, sizeof again) == 0);
    if (read->sequence == 0) /* a new store's: both copies are written */
        return;
    sim_crash(SIM_DROP_ALL);
    const unsigned other = (unsigned)(read->sequence % 2);
    uint8_t after[KVS_BLOCK_BYTES];
    sim_file_read(path, (uint64_t)other * KVS_BLOCK_BYTES, after, sizeof after);
    FUZZ_CHECK(memcmp(after, bytes + (size_t)other * KVS_BLOCK_BYTES, sizeof after) == 0);
}

FUZZ_SIM_INITIALIZE

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint8_t bytes[FILE_BYTES];
    const size_t file_bytes = make_file(&input, bytes);
    sim_create(1);
    sim_file_put(path, bytes, file_bytes);
    struct ring *ring = fuzz_ring_open();
    int dir_fd;
    FUZZ_CHECK(ring_dir_open(ring, "/data", &dir_fd) == KVS_ERR_OK);

    char message[ENGINE_MESSAGE_BYTES] = "";
    struct superblock read;
    memset(&read, 0xEE, sizeof read);
    const enum kvs_err err = superblock_read(ring, dir_fd, "/data", &read, message);
    uint64_t sequence = 0;
    const bool any = best_sequence(bytes, file_bytes, &sequence);
    if (!any) {
        FUZZ_CHECK(err == KVS_ERR_CORRUPT);
    } else {
        FUZZ_CHECK(read.sequence == sequence && fixup_superblock_right(&read) && superblock_valid(&read));
        const bool known = superblock_known(&read);
        FUZZ_CHECK(err == (known ? KVS_ERR_OK : KVS_ERR_VERSION));
    }
    FUZZ_CHECK(err == KVS_ERR_OK || (message[0] != '\0' && memchr(message, '\0', sizeof message) != NULL));
    if (err == KVS_ERR_OK && read.sequence < UINT64_MAX && file_bytes == FILE_BYTES)
        check_write(ring, dir_fd, &read, bytes);
    sim_destroy();
    return 0;
}
