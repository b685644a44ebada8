/*
 * fuzz_value.c - reading a value file, checking its header, and the names of such files.
 *
 * Input: a byte of flags, lengths of key (2 bytes) and value (3 bytes), then patches to the file that has these: where
 * (4 bytes), how many bytes (1 byte), the bytes. The last patch's place is also where the file is cut, and its bytes
 * are taken for a name. Flags: 1: the header gets its right checksum after that; 2: every chunk does; 4: the file is
 * cut; 8: patches go to the header, the beginning of the key and the checksums, which are few bytes in a large file;
 * 16: the record names the patched header, so that only what contradicts itself is refused; 32: it names something
 * else; 64: reads go wrong now and then; 128: O_DIRECT.
 *
 * Properties. The reader ends, once. It succeeds just when header, key, checksums and lengths are right, and then what
 * it shows is what stands in the file; else it says what is wrong. When reads go wrong it may refuse what is right,
 * but shows nothing wrong. A name that is understood is the name that would be written.
 *
 * What is right is reckoned here anew from docs/FORMAT.md, so that the two can disagree.
 */
#include "engine/value_file.h"
#include "fuzz_sim.h"

#include "base/crc32c.h"

enum {
    FIX_HEADER = 1,
    FIX_CHUNKS = 2,
    CUT = 4,
    NEAR = 8,
    NAME_HEADER = 16,
    NAME_OTHER = 32,
    BAD_READS = 64,
    DIRECT = 128,
    VALUE_MAX = 1100 * 1024, /* three parts of half a MiB */
    STEPS_MAX = 100000,
};

static const uint8_t uuid[16] = "fuzz_value";
static const uint64_t file_id = 0x700000005u;

/* ---- the format, once more ------------------------------------------------------------------------------------- */

enum { HEADER = 64, CHUNK = 65536 };

static uint32_t seed_of(uint64_t id)
{
    return crc32c(crc32c(0, uuid, 16), &id, 8);
}

static uint32_t chunk_crc(uint32_t seed, uint64_t chunk, const uint8_t *bytes, size_t size)
{
    return crc32c(seed ^ (uint32_t)((chunk + 1) * 0x9E3779B1u), bytes, size);
}

static uint64_t number_at(const uint8_t *bytes, size_t at, size_t size)
{
    uint64_t number = 0;
    memcpy(&number, bytes + at, size);
    return number;
}

struct file {
    uint8_t *bytes;
    uint64_t size;
    struct slice key;
    uint64_t value_at, value_bytes, checksums_at;
    bool changed;
};

static size_t chunk_size(const struct file *file, uint64_t chunk)
{
    const uint64_t left = file->value_bytes - chunk * CHUNK;
    return left < CHUNK ? (size_t)left : CHUNK;
}

static void put_chunk_crcs(struct file *file, uint64_t id)
{
    for (uint64_t i = 0; i * CHUNK < file->value_bytes; i++) {
        const uint32_t crc = chunk_crc(seed_of(id), i, file->bytes + file->value_at + i * CHUNK, chunk_size(file, i));
        memcpy(file->bytes + file->checksums_at + 4 * i, &crc, 4);
    }
}

static bool header_fits(const uint8_t *bytes, uint64_t room)
{
    return room >= HEADER && number_at(bytes, 48, 4) <= KVS_KEY_BYTES_MAX && HEADER + number_at(bytes, 48, 4) <= room;
}

static uint32_t header_crc(const uint8_t *bytes, uint64_t id)
{
    return crc32c(seed_of(id), bytes + 12, HEADER - 12 + (size_t)number_at(bytes, 48, 4));
}

/* Whether a header of this id stands at the beginning of so many bytes. */
static bool header_right(const uint8_t *bytes, uint64_t room, uint64_t id)
{
    return header_fits(bytes, room) && memcmp(bytes, "KVSVAL01", 8) == 0 &&
           number_at(bytes, 8, 4) == header_crc(bytes, id) && number_at(bytes, 12, 4) == 1 &&
           memcmp(bytes + 16, uuid, 16) == 0 && number_at(bytes, 32, 8) == id && number_at(bytes, 52, 4) == CHUNK;
}

/* Whether the file is the one that the record names, and whole. */
static bool file_right(const struct file *file, const struct value_descriptor *descriptor)
{
    const uint64_t chunks = (file->value_bytes + CHUNK - 1) / CHUNK;
    if (descriptor->value_bytes != file->value_bytes || file->size < file->checksums_at + 4 * chunks ||
        !header_right(file->bytes, file->value_at, descriptor->id) ||
        number_at(file->bytes, 8, 4) != descriptor->header_crc || number_at(file->bytes, 40, 8) != file->value_bytes ||
        !slice_equal(slice_make(file->bytes + HEADER, (size_t)number_at(file->bytes, 48, 4)), file->key))
        return false;
    for (uint64_t i = 0; i < chunks; i++) {
        const uint8_t *chunk = file->bytes + file->value_at + i * CHUNK;
        if (number_at(file->bytes, file->checksums_at + 4 * i, 4) !=
            chunk_crc(seed_of(descriptor->id), i, chunk, chunk_size(file, i)))
            return false;
    }
    return true;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* As a writer makes it. */
static void file_make(struct file *file, size_t key_bytes, uint64_t value_bytes)
{
    static uint8_t key[KVS_KEY_BYTES_MAX];
    uint64_t state = key_bytes + value_bytes;
    for (size_t i = 0; i < key_bytes; i++)
        key[i] = (uint8_t)(i * 7 + key_bytes);
    *file = (struct file){.key = slice_make(key, key_bytes), .value_bytes = value_bytes};
    file->value_at = align_up(HEADER + key_bytes, 4096);
    file->checksums_at = file->value_at + align_up(value_bytes, 4096);
    file->size = file->checksums_at + align_up(4 * ((value_bytes + CHUNK - 1) / CHUNK), 4096);
    file->bytes = calloc(1, file->size);
    FUZZ_CHECK(file->bytes != NULL);
    (void)value_header_encode(file->bytes, uuid, file_id, file->key, value_bytes);
    FUZZ_CHECK(header_right(file->bytes, file->value_at, file_id));
    for (uint64_t at = 0; at + 8 <= value_bytes; at += 512) {
        const uint64_t word = fuzz_next(&state);
        memcpy(file->bytes + file->value_at + at, &word, sizeof word);
    }
    put_chunk_crcs(file, file_id);
}

/* In the header, the beginning of the key, or the checksums. */
static uint64_t near_place(const struct file *file, uint64_t where)
{
    const uint64_t checksums = 4 * ((file->value_bytes + CHUNK - 1) / CHUNK);
    return where % 4 == 0 ? file->checksums_at + where / 4 % checksums : where / 4 % (HEADER + 16);
}

/* Returns the last patch; its place is *where. */
static struct slice file_patch(struct file *file, struct fuzz_input *input, unsigned flags, uint64_t *where)
{
    struct slice patch = slice_make(NULL, 0);
    uint8_t *untouched = fuzz_copy(file->bytes, file->size);
    for (*where = 0; input->size > 0;) {
        *where = fuzz_take(input, 4);
        patch = fuzz_take_slice(input, fuzz_take(input, 1));
        const uint64_t at = (flags & NEAR) != 0 ? near_place(file, *where) : *where % file->size;
        for (size_t i = 0; i < patch.size && at + i < file->size; i++)
            file->bytes[at + i] = patch.data[i];
    }
    if ((flags & FIX_HEADER) != 0 && header_fits(file->bytes, file->value_at)) {
        const uint32_t crc = header_crc(file->bytes, file_id);
        memcpy(file->bytes + 8, &crc, sizeof crc);
    }
    if ((flags & FIX_CHUNKS) != 0)
        put_chunk_crcs(file, file_id);
    file->changed = memcmp(file->bytes, untouched, file->size) != 0;
    free(untouched);
    if ((flags & CUT) != 0 && *where % (file->size + 1) < file->size) {
        file->size = *where % (file->size + 1);
        file->changed = true;
    }
    return patch;
}

/* What the record says; never a length that a record is refused for. */
static struct value_descriptor describe(const struct file *file, unsigned flags, uint64_t where)
{
    struct value_descriptor descriptor = {.id = file_id, .value_bytes = file->value_bytes};
    uint8_t header[4096 + KVS_KEY_BYTES_MAX] = {0};
    (void)value_header_encode(header, uuid, file_id, file->key, file->value_bytes);
    descriptor.header_crc = (uint32_t)number_at((flags & NAME_HEADER) != 0 ? file->bytes : header, 8, 4);
    if ((flags & NAME_OTHER) != 0) {
        descriptor.id += where & 1;
        descriptor.header_crc ^= (uint32_t)(where >> 1 & 1);
        descriptor.value_bytes = (where & 4) != 0 ? 1 + where % VALUE_MAX : descriptor.value_bytes;
    }
    return descriptor;
}

/* ---- properties ------------------------------------------------------------------------------------------------ */

struct session {
    struct value_reader reader;
    unsigned ended;
};

static void on_done(struct value_reader *reader)
{
    container_of(reader, struct session, reader)->ended++;
}

static void read_value(struct session *session)
{
    struct value_reader *reader = &session->reader;
    value_reader_begin(reader);
    for (unsigned steps = 0; session->ended == 0; steps++) {
        FUZZ_CHECK(steps < STEPS_MAX);
        if (value_reader_has_work(reader))
            value_reader_work(reader);
        else
            ring_turn(reader->ring, -1);
    }
    FUZZ_CHECK(session->ended == 1 && reader->in_flight == 0);
    FUZZ_CHECK((reader->error == KVS_ERR_OK) == (reader->text[0] == '\0'));
    FUZZ_CHECK(memchr(reader->text, '\0', sizeof reader->text) != NULL);
}

static void check_reader(const struct file *file, const struct value_descriptor *descriptor, unsigned flags)
{
    sim_create(1);
    char name[VALUE_NAME_BYTES], path[64];
    value_name_write(name, value_name_of(descriptor->id, file->key.size, descriptor->value_bytes));
    snprintf(path, sizeof path, "/data/" VALUE_DIR_NAME "/%s", name);
    sim_file_put(path, file->bytes, file->size);
    struct ring *ring = fuzz_ring_open();
    struct value_place place = {.direct = (flags & DIRECT) != 0, .store_uuid = uuid};
    FUZZ_CHECK(ring_dir_open(ring, "/data/" VALUE_DIR_NAME, &place.dir_fd) == KVS_ERR_OK);
    static const enum sim_fault_kind kinds[] = {SIM_FAULT_READ_ERROR, SIM_FAULT_SHORT, SIM_FAULT_READ_FLIP,
                                                SIM_FAULT_READ_STALE, SIM_FAULT_READ_ASTRAY};
    for (size_t i = 0; i < ARRAY_COUNT(kinds) && (flags & BAD_READS) != 0; i++)
        sim_odds(kinds[i], 100000);

    struct large_pool pool = {.bytes_max = UINT64_MAX};
    struct session session = {
        .reader = {.place = &place, .ring = ring, .descriptor = *descriptor, .key = file->key, .done = on_done}};
    session.reader.memory = large_memory_take(&pool, value_reader_bytes(descriptor->value_bytes), LARGE_MEMORY_ANY);
    FUZZ_CHECK(session.reader.memory != NULL);
    read_value(&session);
    const enum kvs_err err = session.reader.error;
    const bool right = file_right(file, descriptor);
    FUZZ_CHECK(err == KVS_ERR_OK || err == KVS_ERR_CORRUPT || ((flags & BAD_READS) != 0 && err == KVS_ERR_IO));
    FUZZ_CHECK(err != KVS_ERR_OK || right);
    FUZZ_CHECK(err == KVS_ERR_OK || !right || (flags & BAD_READS) != 0);
    if (err == KVS_ERR_OK)
        FUZZ_CHECK(memcmp(session.reader.memory->data, file->bytes + file->value_at, file->value_bytes) == 0);
    large_memory_give(session.reader.memory);
    FUZZ_CHECK(pool.used_bytes == 0);
    sim_destroy();
}

/* As whoever has no record at hand asks: of bytes that end anywhere. */
static void check_header(const struct file *file, uint64_t where)
{
    const uint64_t most = file->value_at < file->size ? file->value_at : file->size;
    const uint64_t room = (where & 1) != 0 ? most : where / 2 % (most + 1);
    uint8_t *copy = fuzz_copy(file->bytes, (size_t)room);
    FUZZ_CHECK((value_header_check(copy, (size_t)room, uuid, file_id) == NULL) == header_right(copy, room, file_id));
    free(copy);
}

static void check_name(struct slice bytes)
{
    char *text = fuzz_string(bytes.data, bytes.size), again[VALUE_NAME_BYTES];
    struct value_name name;
    if (value_name_parse(text, &name)) {
        value_name_write(again, name);
        FUZZ_CHECK(strcmp(text, again) == 0);
    }
    free(text);
}

FUZZ_SIM_INITIALIZE

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const unsigned flags = (unsigned)fuzz_take(&input, 1);
    const size_t key_bytes = fuzz_take(&input, 2) % (KVS_KEY_BYTES_MAX + 1);
    struct file file;
    const uint64_t length = fuzz_take(&input, 3);
    file_make(&file, key_bytes,
              1 + length % (length >> 22 == 0 ? VALUE_MAX : VALUE_MAX / 8)); /* large ones take long */
    uint64_t where;
    const struct slice last = file_patch(&file, &input, flags, &where);
    const struct value_descriptor descriptor = describe(&file, flags, where);
    FUZZ_CHECK(file.changed || (flags & NAME_OTHER) != 0 || file_right(&file, &descriptor));
    check_reader(&file, &descriptor, flags);
    check_header(&file, where);
    check_name(last);
    free(file.bytes);
    return 0;
}
