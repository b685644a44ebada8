/*
 * fuzz_frame.c - frames of the binary protocol.
 *
 * Input: one byte chooses the limits; the rest is a stream of frames.
 *
 * Properties. A whole frame, encoded from what was decoded, gives the same bytes. Every beginning of a frame says that
 * more is needed, how much at least, and reads nothing beyond it. What is refused, is refused with more bytes behind
 * it, too. Key and value lie in the frame.
 */
#include "fuzz.h"
#include "proto/frame.h"

static const struct frame_limits limits_of[] = {
    {.key_bytes_max = 65535, .value_bytes_max = 16u << 20},
    {.key_bytes_max = 0, .value_bytes_max = 0},
    {.key_bytes_max = 10, .value_bytes_max = 40},
    {.key_bytes_max = UINT32_MAX, .value_bytes_max = UINT32_MAX},
};

static enum frame_result parse(const uint8_t *data, size_t size, const struct frame_limits *limits, struct frame *frame)
{
    uint8_t *copy = fuzz_copy(data, size);
    const enum frame_result result = frame_parse(copy, size, limits, frame);
    switch (result) {
    case FRAME_WHOLE:
        FUZZ_CHECK(frame->size <= size && fuzz_lies_in(frame->key, copy, frame->size));
        FUZZ_CHECK(fuzz_lies_in(frame->value, copy, frame->size));
        FUZZ_CHECK(frame->size == frame_bytes(frame->key.size, frame->value.size));
        FUZZ_CHECK(frame->key.size <= limits->key_bytes_max && frame->value.size <= limits->value_bytes_max);
        frame->key.data = data + sizeof(struct frame_header);
        frame->value.data = frame->key.data + frame->key.size;
        break;
    case FRAME_MORE:
        FUZZ_CHECK(frame->size > size);
        break;
    case FRAME_OVER:
        FUZZ_CHECK(size >= sizeof(struct frame_header) && frame->size > sizeof(struct frame_header));
        FUZZ_CHECK(frame->header.key_bytes > limits->key_bytes_max ||
                   frame->header.value_bytes > limits->value_bytes_max);
        break;
    case FRAME_INVALID:
        break;
    }
    free(copy);
    return result;
}

static void check_round_trip(const uint8_t *data, const struct frame *frame)
{
    uint8_t *out = malloc(frame->size);
    FUZZ_CHECK(out != NULL);
    FUZZ_CHECK(frame_write(out, &frame->header, frame->key, frame->value) == frame->size);
    FUZZ_CHECK(memcmp(out, data, frame->size) == 0);
    free(out);
}

static void check_beginnings(const uint8_t *data, size_t size, const struct frame_limits *limits,
                             enum frame_result whole, const struct frame *frame)
{
    const size_t step = size <= 200 ? 1 : size / 100;
    enum frame_result before = FRAME_MORE;
    for (size_t some = 0; some < size; some += step) {
        struct frame part;
        const enum frame_result result = parse(data, some, limits, &part);
        FUZZ_CHECK(before == FRAME_MORE || result == before);
        before = result;
        if (result == FRAME_MORE)
            FUZZ_CHECK(whole != FRAME_WHOLE || part.size <= frame->size);
        else
            FUZZ_CHECK(result == whole && (whole == FRAME_INVALID || part.size == frame->size));
        if (whole == FRAME_WHOLE)
            FUZZ_CHECK((result == FRAME_WHOLE) == (some >= frame->size));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const struct frame_limits *limits = &limits_of[fuzz_take(&input, 1) % ARRAY_COUNT(limits_of)];
    while (input.size > 0) {
        struct frame frame;
        const enum frame_result result = parse(input.data, input.size, limits, &frame);
        check_beginnings(input.data, input.size, limits, result, &frame);
        FUZZ_CHECK(frame_status_text(input.data[0])[0] != '\0');
        if (result == FRAME_WHOLE)
            check_round_trip(input.data, &frame);
        else if (result != FRAME_OVER)
            break;
        (void)fuzz_take_slice(&input, frame.size); /* one over the limits is skipped, as a server does */
    }
    return 0;
}
