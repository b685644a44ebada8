/*
 * fuzz_restore.c - payloads of DUMP and RESTORE.
 *
 * Input: a byte that says what the rest is.
 *
 *   0   a payload
 *   1   a byte for the version, then type and string of a payload: version and checksum are put behind them
 *   2   two bytes for a place, then a value: it is dumped, and its payload damaged at that place
 *   3   two bytes for a length, then packed bytes: a string that says to be so long when it is unpacked
 *
 * Properties. RESTORE takes or refuses any payload. What it takes is what the rules in dump_format.h, which are applied
 * anew here, say is in there; what they say is nothing is refused. What DUMP makes of a value RESTORE takes, and gives
 * the value back. A payload of which one bit is another, or the end is missing, is refused.
 */
#include "fuzz.h"

#include "node/crc64.h"
#include "node/dump_format.h"
#include "node/op.h"
#include "node/update_dump.h"
#include "node/update_reply.h"

enum { VALUE_BYTES_MAX = 64 * 1024, FOOTER_BYTES = 10 };

/* ---- the rules, anew ------------------------------------------------------------------------------------------- */

/* A length; -1: there is none, but a form (*form), or nothing that can be read (*form is -1). */
static int64_t model_length(struct fuzz_input *in, int *form)
{
    *form = -1;
    if (in->size == 0)
        return -1;
    const unsigned first = (unsigned)fuzz_take(in, 1);
    unsigned bytes = first < 0x40 ? 0 : first < 0x80 ? 1 : first == 0x80 ? 4 : first == 0x81 ? 8 : 9;
    if (first >= 0xc0) {
        *form = (int)(first & 0x3f);
        return -1;
    }
    if (bytes == 9 || in->size < bytes)
        return -1;
    uint64_t length = first < 0x80 ? first & 0x3f : 0;
    for (; bytes > 0; bytes--)
        length = length << 8 | fuzz_take(in, 1);
    return length > INT64_MAX ? INT64_MAX : (int64_t)length;
}

/* What is in packed bytes; -1: nothing, or more than there is room for. */
static int64_t model_unpack(struct fuzz_input in, uint8_t *out, int64_t room)
{
    int64_t size = 0;
    while (in.size > 0) {
        const unsigned control = (unsigned)fuzz_take(&in, 1);
        int64_t run = control + 1, back = 0;
        if (control >= 32) {
            if (in.size < (control >> 5 == 7 ? 2u : 1u))
                return -1;
            run = 2 + (control >> 5 == 7 ? 7 + (int64_t)fuzz_take(&in, 1) : control >> 5);
            back = (int64_t)((control & 31) << 8) + (int64_t)fuzz_take(&in, 1) + 1;
        }
        if (run > room - size || back > size || (back == 0 && (size_t)run > in.size))
            return -1;
        for (; run > 0; run--, size++)
            out[size] = back > 0 ? out[size - back] : (uint8_t)fuzz_take(&in, 1);
    }
    return size;
}

/* The value in type and string, at `out`; -1: there is none, -2: it says that it is too long. */
static int64_t model_value(struct fuzz_input in, uint8_t out[VALUE_BYTES_MAX])
{
    int form, nested;
    if (in.size == 0 || fuzz_take(&in, 1) != 0)
        return -1;
    const int64_t length = model_length(&in, &form);
    if (length >= 0) {
        if ((uint64_t)length > in.size)
            return -1;
        if (length > VALUE_BYTES_MAX)
            return -2;
        memcpy(out, in.data, (size_t)length);
        return length;
    }
    if (form >= 0 && form < 3) {
        const unsigned bytes = 1u << form, shift = 64 - 8 * bytes;
        if (in.size < bytes)
            return -1;
        const int64_t number = (int64_t)(fuzz_take(&in, bytes) << shift) >> shift;
        return snprintf((char *)out, VALUE_BYTES_MAX, "%lld", (long long)number);
    }
    if (form != 3)
        return -1;
    const int64_t packed = model_length(&in, &nested), unpacked = packed < 0 ? -1 : model_length(&in, &nested);
    if (unpacked < 0 || (uint64_t)packed > in.size)
        return -1;
    if (unpacked > VALUE_BYTES_MAX)
        return -2;
    const struct fuzz_input bytes = {in.data, (size_t)packed};
    return model_unpack(bytes, out, unpacked) == unpacked ? unpacked : -1;
}

/* ---- RESTORE ---------------------------------------------------------------------------------------------------- */

struct bench {
    struct op_budget budget;
    struct update_scratch scratch;
    struct update_outcome out;
};

static void bench_init(struct bench *bench)
{
    *bench = (struct bench){.budget = {.bytes_max = 4 * VALUE_BYTES_MAX}};
    bench->scratch.budget = &bench->budget;
    list_init(&bench->scratch.large);
}

static void bench_deinit(struct bench *bench)
{
    struct large_trash trash;
    large_trash_init(&trash);
    update_scratch_deinit(&bench->scratch, &trash);
    FUZZ_CHECK(bench->budget.used_bytes == 0);
}

static void restore(struct bench *bench, struct slice payload)
{
    const struct update_spec spec = {
        .run = update_restore, .a = UPDATE_ACCEPTED, .resp_version = 2, .value_bytes_max = VALUE_BYTES_MAX};
    const struct update_old old = {.now_ms = 1000};
    bench->out = (struct update_outcome){0};
    update_restore(&spec, payload, &old, &bench->scratch, &bench->out);
    const struct update_outcome *out = &bench->out;
    FUZZ_CHECK(!bench->scratch.refused);
    FUZZ_CHECK(out->change == UPDATE_PUT || (out->change == UPDATE_KEEP && out->reply == UPDATE_ERROR));
    FUZZ_CHECK(out->change != UPDATE_PUT || out->value.size <= VALUE_BYTES_MAX);
}

static void check_payload(const uint8_t *data, size_t size)
{
    static uint8_t value[VALUE_BYTES_MAX];
    struct bench bench;
    uint8_t *copy = fuzz_copy(data, size);
    const struct slice payload = slice_make(copy, size);
    bench_init(&bench);
    restore(&bench, payload);
    int64_t bytes = -1;
    if (dump_verify(payload)) {
        FUZZ_CHECK(size >= FOOTER_BYTES &&
                   (payload.data[size - 10] | payload.data[size - 9] << 8) <= (int)DUMP_VERSION);
        bytes = model_value((struct fuzz_input){copy, size - FOOTER_BYTES}, value);
    }
    FUZZ_CHECK((bytes >= 0) == (bench.out.change == UPDATE_PUT));
    FUZZ_CHECK(bytes < 0 || slice_equal(bench.out.value, slice_make(value, (size_t)bytes)));
    bench_deinit(&bench);
    free(copy);
}

static void check_body(unsigned version, const uint8_t *data, size_t size)
{
    uint8_t *payload = calloc(1, size + FOOTER_BYTES);
    FUZZ_CHECK(payload != NULL);
    if (size > 0)
        memcpy(payload, data, size);
    payload[size] = (uint8_t)version;
    const uint64_t checksum = crc64(0, payload, size + 2);
    memcpy(payload + size + 2, &checksum, sizeof checksum);
    FUZZ_CHECK(dump_verify(slice_make(payload, size + FOOTER_BYTES)) == (version <= DUMP_VERSION));
    check_payload(payload, size + FOOTER_BYTES);
    free(payload);
}

/* ---- DUMP ------------------------------------------------------------------------------------------------------ */

static void check_value(size_t place, const uint8_t *data, size_t size)
{
    struct bench bench;
    uint8_t *value = fuzz_copy(data, size);
    const struct update_old old = {.found = true, .value = slice_make(value, size), .value_bytes = size};
    const struct update_spec spec = {.run = update_dump, .resp_version = 2};
    bench_init(&bench);
    update_dump(&spec, slice_make("", 0), &old, &bench.scratch, &bench.out);
    const size_t bytes = bench.out.bytes.size;
    FUZZ_CHECK(bench.out.reply == UPDATE_BULK && bytes <= size + DUMP_OVERHEAD_BYTES_MAX);
    uint8_t *payload = fuzz_copy(bench.out.bytes.data, bytes);
    check_payload(payload, bytes);
    restore(&bench, slice_make(payload, bytes));
    FUZZ_CHECK(bench.out.change == UPDATE_PUT && slice_equal(bench.out.value, old.value));

    const size_t bit = place % (8 * bytes);
    payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
    restore(&bench, slice_make(payload, bytes));
    FUZZ_CHECK(bench.out.change == UPDATE_KEEP);
    payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
    uint8_t *shorter = fuzz_copy(payload, bit / 8);
    restore(&bench, slice_make(shorter, bit / 8));
    FUZZ_CHECK(bench.out.change == UPDATE_KEEP);
    free(shorter);
    free(payload);
    free(value);
    bench_deinit(&bench);
}

static void check_packed(unsigned length, struct slice packed)
{
    uint8_t *body = calloc(1, packed.size + 12);
    size_t size = 0;
    FUZZ_CHECK(body != NULL);
    body[size++] = 0;
    body[size++] = 0xc3;
    for (unsigned i = 0; i < 2; i++) { /* lengths of 32 bits, high byte first */
        const uint64_t number = i == 0 ? packed.size : length;
        body[size++] = 0x80;
        for (unsigned shift = 32; shift > 0; shift -= 8)
            body[size++] = (uint8_t)(number >> (shift - 8));
    }
    if (packed.size > 0)
        memcpy(body + size, packed.data, packed.size);
    check_body(DUMP_VERSION, body, size + packed.size);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    const uint64_t kind = fuzz_take(&in, 1) % 4;
    unsigned number = 0;
    if (kind > 0)
        number = (unsigned)fuzz_take(&in, kind == 1 ? 1 : 2);
    if (kind == 0)
        check_payload(in.data, in.size);
    else if (kind == 1)
        check_body(number, in.data, in.size);
    else if (kind == 2)
        check_value(number, in.data, in.size);
    else
        check_packed(number, slice_make(in.data, in.size));
    return 0;
}
