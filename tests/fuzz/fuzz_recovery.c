/*
 * fuzz_recovery.c - starting on a data directory that was tampered with.
 *
 * Input: a byte of flags (1: checksums are put right after every mutation; 2: the directory of an orderly stop, else of
 * a crash; 4, 8: one to four shards; 16: stop and start once more), then mutations. Each is a byte of file, a byte of
 * kind (enum mutation), and three bytes of offset; with 128 in the kind the offset counts from one of the batches.
 *
 * Properties. A start either is refused with a message, or serves. What a key then reads as is an error or one of the
 * versions it ever had, and the latest of them unless nothing that is undamaged in the directory proves that the latest
 * had been durable (a torn tail looks like that). Keys that were never written stay unknown. With the checksums put
 * right there is no wrong and right any more: then a start need only be refused or serve, and give the same answers
 * after an orderly stop. Nothing is read outside of what it lies in, nothing leaks, nothing goes on for ever.
 */
#include "fuzz_recovery_store.h"

enum { FIX = 1, STOPPED = 2, SHARDS_SHIFT = 2, TWICE = 16, MUTATIONS_MAX = 10, FROM_BATCH = 128 };

enum mutation { XOR, SET, ZERO, CUT, REMOVE, DUPLICATE, COPY, BATCH_FIELD, MUTATIONS };

static struct dir crashed, stopped;

/* The directory of one input: files as they were until they are touched. */
struct tampered {
    const struct dir *dir;
    struct tampered_file {
        char name[DIR_NAME_BYTES];
        uint8_t *bytes;
        uint64_t size;
        bool own; /* bytes are this input's, and may be changed */
        bool gone;
    } files[DIR_FILES_MAX + MUTATIONS_MAX];
    unsigned count;
    bool fix;
};

/* What a key reads as. */
struct answer {
    enum kvs_err error;
    bool found;
    uint8_t *value;
    size_t value_bytes;
};

/* ---- tampering ------------------------------------------------------------------------------------------------- */

static void own(struct tampered_file *file, uint64_t size)
{
    uint8_t *bytes = aligned_alloc(KVS_BLOCK_BYTES, align_up(size + 1, KVS_BLOCK_BYTES));
    FUZZ_CHECK(bytes != NULL);
    const uint64_t kept = size < file->size ? size : file->size;
    memcpy(bytes, file->bytes, kept);
    memset(bytes + kept, 0, size - kept);
    if (file->own)
        free(file->bytes);
    file->bytes = bytes;
    file->size = size;
    file->own = true;
}

static void put_right(struct tampered_file *file)
{
    if (strcmp(file->name, SUPERBLOCK_NAME) == 0) {
        for (uint64_t copy = 0; (copy + 1) * KVS_BLOCK_BYTES <= file->size; copy++)
            fixup_superblock_copy(file->bytes + copy * KVS_BLOCK_BYTES);
    } else if (file->size >= KVS_BLOCK_BYTES) {
        fixup_segment_header(file->bytes);
        const struct segment_header *header = (const void *)file->bytes;
        fixup_batches(file->bytes, file->size, segment_seed(header->store_uuid, header->uid));
    }
}

static void change_bytes(struct tampered *tampered, struct tampered_file *file, enum mutation how, uint64_t offset,
                         struct fuzz_input *input)
{
    const size_t wanted = how == ZERO ? 512 * (1 + fuzz_take(input, 1) % 16) : 1 + fuzz_take(input, 1) % 8;
    const uint64_t room = file->size - offset;
    const size_t size = wanted < room ? wanted : (size_t)room;
    const struct slice with = how == ZERO ? slice_make(NULL, 0) : fuzz_take_slice(input, size);
    if (how == ZERO)
        memset(file->bytes + offset, 0, size);
    for (size_t i = 0; i < with.size;
         i++) /* without right checksums bytes are not chosen, or they might turn out right */
        file->bytes[offset + i] = how == SET && tampered->fix ? with.data[i] : file->bytes[offset + i] ^ with.data[i];
}

/* One of the fields of a batch, or of the record behind it, becomes some number. */
static void change_field(struct tampered *tampered, struct tampered_file *file, uint64_t offset,
                         struct fuzz_input *input)
{
    static const struct {
        unsigned offset, size;
    } fields[] = {{8, 4},  {12, 4}, {16, 8}, {24, 8},      {32, 8},      {40, 8},      {48, 4},      {52, 4},
                  {68, 4}, {72, 8}, {80, 2}, {64 + 18, 1}, {64 + 19, 1}, {64 + 20, 1}, {64 + 21, 1}, {64 + 22, 2}};
    const unsigned which = (unsigned)fuzz_take(input, 1) % ARRAY_COUNT(fields);
    const uint64_t at = align_down(offset, KVS_BLOCK_BYTES) + fields[which].offset;
    const uint64_t number = fuzz_take(input, fields[which].size);
    if (at + fields[which].size > file->size)
        return;
    uint64_t value = 0;
    memcpy(&value, file->bytes + at, fields[which].size);
    value = tampered->fix ? value + number : value ^ number;
    memcpy(file->bytes + at, &value, fields[which].size);
}

/* Bytes that belong elsewhere, as a misdirected write leaves them. */
static void copy_blocks(struct tampered *tampered, struct tampered_file *file, uint64_t offset,
                        struct fuzz_input *input)
{
    const struct tampered_file *from = &tampered->files[fuzz_take(input, 1) % tampered->count];
    const uint64_t begin = fuzz_take(input, 1) * KVS_BLOCK_BYTES;
    const uint64_t to = align_down(offset, KVS_BLOCK_BYTES);
    uint64_t size = (1 + fuzz_take(input, 1) % 4) * KVS_BLOCK_BYTES;
    if (from->gone || begin >= from->size)
        return;
    size = size < from->size - begin ? size : from->size - begin;
    size = size < file->size - to ? size : file->size - to;
    memmove(file->bytes + to, from->bytes + begin, size);
}

static void duplicate(struct tampered *tampered, const struct tampered_file *file, unsigned number)
{
    struct tampered_file *copy = &tampered->files[tampered->count];
    *copy = *file;
    copy->own = false;
    snprintf(copy->name, sizeof copy->name, "%06u.seg%s", number % 128, number >= 128 ? ".new" : "");
    for (unsigned i = 0; i < tampered->count; i++) {
        if (strcmp(tampered->files[i].name, copy->name) == 0)
            tampered->files[i].gone = true;
    }
    own(copy, copy->size);
    tampered->count++;
}

static void tamper(struct tampered *tampered, struct fuzz_input *input)
{
    struct tampered_file *file = &tampered->files[fuzz_take(input, 1) % tampered->count];
    const unsigned kind = (unsigned)fuzz_take(input, 1);
    uint64_t offset = fuzz_take(input, 3);
    if ((kind & FROM_BATCH) != 0) {
        const struct dir_batch *batch = &tampered->dir->batches[offset / 256 % tampered->dir->batch_count];
        file = &tampered->files[batch->file];
        offset = batch->offset + offset % 256;
    }
    if (file->gone || file->size == 0)
        return;
    if (offset >= file->size)
        offset %= file->size;
    const enum mutation how = (enum mutation)(kind % MUTATIONS);
    if (how != REMOVE && how != DUPLICATE)
        own(file, how == CUT ? offset : file->size);
    switch (how) {
    case CUT:
        break;
    case REMOVE:
        file->gone = true;
        return;
    case DUPLICATE:
        duplicate(tampered, file, (unsigned)fuzz_take(input, 1));
        file = &tampered->files[tampered->count - 1];
        break;
    case COPY:
        copy_blocks(tampered, file, offset, input);
        break;
    case BATCH_FIELD:
        change_field(tampered, file, offset, input);
        break;
    default:
        change_bytes(tampered, file, how, offset, input);
        break;
    }
    if (tampered->fix)
        put_right(file);
}

static void tampered_init(struct tampered *tampered, const struct dir *dir, bool fix)
{
    *tampered = (struct tampered){.dir = dir, .count = dir->file_count, .fix = fix};
    for (unsigned i = 0; i < dir->file_count; i++) {
        tampered->files[i] = (struct tampered_file){.bytes = dir->files[i].bytes, .size = dir->files[i].size};
        memcpy(tampered->files[i].name, dir->files[i].name, DIR_NAME_BYTES);
    }
}

static void tampered_put(const struct tampered *tampered)
{
    for (unsigned i = 0; i < tampered->count; i++) {
        char path[64];
        snprintf(path, sizeof path, "/data/%s", tampered->files[i].name);
        if (!tampered->files[i].gone)
            sim_file_put(path, tampered->files[i].bytes, tampered->files[i].size);
    }
}

static void tampered_deinit(struct tampered *tampered)
{
    for (unsigned i = 0; i < tampered->count; i++) {
        if (tampered->files[i].own)
            free(tampered->files[i].bytes);
    }
}

/* ---- what may be lost ------------------------------------------------------------------------------------------ */

/* Whether the batch's header and its segment's are as they were. */
static bool is_intact(const struct tampered *tampered, const struct dir_batch *batch)
{
    const struct tampered_file *file = &tampered->files[batch->file];
    const struct dir_file *before = &tampered->dir->files[batch->file];
    return !file->gone && file->size == before->size &&
           memcmp(file->bytes, before->bytes, sizeof(struct segment_header)) == 0 &&
           memcmp(file->bytes + batch->offset, before->bytes + batch->offset, sizeof batch->header) == 0;
}

/* Whether a batch, wherever it is met, shows that the version had been durable when it was written. */
static bool proves(const struct tampered *tampered, const struct dir_batch *batch, const struct dir_version *version)
{
    const struct dir_batch *home = &tampered->dir->batches[version->batch];
    if (batch->header.epoch == home->header.epoch && batch->header.stream == home->header.stream)
        return batch->header.durable_lsn >= version->lsn;
    return batch->file == home->file && batch->offset > home->offset && batch->header.epoch > home->header.epoch;
}

static bool may_be_lost(const struct tampered *tampered, const struct dir_version *version)
{
    const struct dir *dir = tampered->dir;
    for (unsigned i = 0; i < dir->batch_count; i++) {
        if (proves(tampered, &dir->batches[i], version) && is_intact(tampered, &dir->batches[i]))
            return false;
    }
    return true;
}

static bool is_version(const struct answer *answer, const struct dir_version *version)
{
    return version->put ? answer->found && slice_equal(slice_make(answer->value, answer->value_bytes), version->value)
                        : !answer->found;
}

static void check_answer(const struct tampered *tampered, unsigned key, const struct answer *answer)
{
    const struct dir *dir = tampered->dir;
    if (answer->error != KVS_ERR_OK || is_version(answer, &dir->versions[dir->latest[key]]))
        return;
    bool ever = !answer->found;
    for (unsigned i = 0; i < dir->version_count && !ever; i++)
        ever = dir->versions[i].key == key && is_version(answer, &dir->versions[i]);
    FUZZ_CHECK(ever); /* else these bytes were never the value of this key */
    const struct dir_version *latest = &dir->versions[dir->latest[key]];
    const bool lost_lawfully = may_be_lost(tampered, latest);
    if (!lost_lawfully)
        fprintf(stderr, "key:%u lost LSN %llu, in %s at offset %u\n", key, (unsigned long long)latest->lsn,
                dir->files[dir->batches[latest->batch].file].name, latest->offset);
    FUZZ_CHECK(lost_lawfully);
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static void ask(struct store_fixture *fixture, const char *key, struct answer *answer)
{
    struct store_waiting waiting;
    const struct engine_request request = store_request(fixture, ENGINE_GET, slice_text(key), slice_make(NULL, 0));
    store_execute(fixture, &waiting, &request);
    *answer = (struct answer){waiting.op.result.error, waiting.op.result.found, waiting.value,
                              waiting.op.result.found ? waiting.value_bytes : 0};
}

static void ask_all(struct store_fixture *fixture, struct answer answers[DIR_KEYS])
{
    for (unsigned key = 0; key < DIR_KEYS; key++) {
        char text[16];
        ask(fixture, dir_key(key, text), &answers[key]);
    }
}

static void forget(struct answer answers[DIR_KEYS])
{
    for (unsigned key = 0; key < DIR_KEYS; key++)
        free(answers[key].value);
}

static void check_strangers(struct store_fixture *fixture)
{
    for (unsigned key = DIR_KEYS; key < DIR_KEYS + 3; key++) {
        char text[16];
        struct answer answer;
        ask(fixture, dir_key(key, text), &answer);
        FUZZ_CHECK(!answer.found);
        free(answer.value);
    }
}

/* Damage in a segment that a run covered, so that the first start did not look. Then it was gone on in, and no run
 * covers what is damaged: the next start looks. */
static bool found_later(const struct tampered *tampered, enum kvs_err err, const char *message)
{
    char number[16], name[DIR_NAME_BYTES];
    if ((err != KVS_ERR_CORRUPT && err != KVS_ERR_VERSION) || sscanf(message, "segment %15[0-9] of", number) != 1)
        return false;
    snprintf(name, sizeof name, "%s.seg", number);
    for (unsigned i = 0; i < tampered->count; i++) {
        if (tampered->files[i].own && strstr(tampered->files[i].name, name) != NULL)
            return true;
    }
    return false;
}

/* A store that has started starts again, and has not changed its mind. Returns whether it runs. */
static bool check_second_start(const struct tampered *tampered, struct store_fixture *fixture,
                               const struct answer before[DIR_KEYS])
{
    const struct engine_options options = fixture->options;
    struct engine_options again = options;
    again.data_dir = "/data";
    store_stop(fixture);
    const enum kvs_err err = store_try_boot(fixture, &again);
    if (err != KVS_ERR_OK)
        fprintf(stderr, "second start: %s\n", fixture->message);
    FUZZ_CHECK(err == KVS_ERR_OK || found_later(tampered, err, fixture->message));
    if (err != KVS_ERR_OK)
        return false;
    struct answer after[DIR_KEYS];
    ask_all(fixture, after);
    for (unsigned key = 0; key < DIR_KEYS; key++)
        FUZZ_CHECK(before[key].error != KVS_ERR_OK || after[key].error != KVS_ERR_OK ||
                   (before[key].found == after[key].found &&
                    slice_equal(slice_make(before[key].value, before[key].value_bytes),
                                slice_make(after[key].value, after[key].value_bytes))));
    forget(after);
    return true;
}

static void start(const struct tampered *tampered, unsigned shards, bool twice)
{
    struct store_fixture fixture;
    const struct engine_options options = store_options(shards);
    const enum kvs_err err = store_try_boot(&fixture, &options);
    if (getenv("KVS_FUZZ_STORY") != NULL)
        fprintf(stderr, "start: %s %s\n", kvs_err_text(err), fixture.message);
    if (err != KVS_ERR_OK) {
        FUZZ_CHECK(fixture.message[0] != '\0' && memchr(fixture.message, '\0', sizeof fixture.message) != NULL);
        return;
    }
    struct answer answers[DIR_KEYS];
    ask_all(&fixture, answers);
    for (unsigned key = 0; key < DIR_KEYS && !tampered->fix; key++)
        check_answer(tampered, key, &answers[key]);
    if (!tampered->fix)
        check_strangers(&fixture);
    const enum kvs_err put = store_put_text(&fixture, "new", "value");
    FUZZ_CHECK(put == KVS_ERR_OK || tampered->fix);
    if (put == KVS_ERR_OK)
        store_expect(&fixture, "new", "value");
    const bool runs = !twice || check_second_start(tampered, &fixture, answers);
    forget(answers);
    if (runs)
        store_stop(&fixture);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_sim_quiet();
    dir_make(&crashed, &stopped);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const unsigned flags = (unsigned)fuzz_take(&input, 1);
    struct tampered tampered;
    tampered_init(&tampered, (flags & STOPPED) != 0 ? &stopped : &crashed, (flags & FIX) != 0);
    for (unsigned i = 0; i < MUTATIONS_MAX && input.size > 0; i++)
        tamper(&tampered, &input);
    sim_create(1);
    tampered_put(&tampered);
    start(&tampered, 1 + (flags >> SHARDS_SHIFT & 3), (flags & TWICE) != 0);
    sim_destroy();
    tampered_deinit(&tampered);
    return 0;
}
