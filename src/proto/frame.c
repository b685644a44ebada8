/*
 * frame.c - frames of the binary protocol.
 *
 * Happy path: a header of fixed size is copied out of the bytes and its two sizes say where key, value and frame end.
 *
 * Failure modes: a wrong first byte is refused as soon as it is there, a reserved field that is not zero when the
 * header is. What an opcode, flag or status means is for those above.
 */
#include "proto/frame.h"

#include "base/assert.h"

enum frame_result frame_parse(const uint8_t *data, size_t size, const struct frame_limits *limits, struct frame *frame)
{
    *frame = (struct frame){.size = sizeof(struct frame_header)};
    if (size > 0 && data[0] != FRAME_MAGIC)
        frame->size = 0;
    if (size >= sizeof frame->header)
        memcpy(&frame->header, data, sizeof frame->header);
    if (frame->size == 0)
        return FRAME_INVALID;
    if (size < sizeof frame->header)
        return FRAME_MORE;

    const struct frame_header *header = &frame->header;
    if (header->reserved != 0 || header->reserved2 != 0)
        return FRAME_INVALID;
    frame->size = frame_bytes(header->key_bytes, header->value_bytes);
    if (header->key_bytes > limits->key_bytes_max || header->value_bytes > limits->value_bytes_max)
        return FRAME_OVER;
    if (size < frame->size)
        return FRAME_MORE;
    frame->key = slice_make(data + sizeof *header, header->key_bytes);
    frame->value = slice_make(frame->key.data + frame->key.size, header->value_bytes);
    return FRAME_WHOLE;
}

size_t frame_write_header(uint8_t *out, const struct frame_header *header, size_t key_bytes, size_t value_bytes)
{
    KVS_ASSERT(key_bytes <= UINT16_MAX && value_bytes <= UINT32_MAX);
    struct frame_header wire = *header;
    wire.magic = FRAME_MAGIC;
    wire.key_bytes = (uint16_t)key_bytes;
    wire.value_bytes = (uint32_t)value_bytes;
    wire.reserved = 0;
    wire.reserved2 = 0;
    memcpy(out, &wire, sizeof wire);
    return sizeof wire;
}

size_t frame_write(uint8_t *out, const struct frame_header *header, struct slice key, struct slice value)
{
    size_t at = frame_write_header(out, header, key.size, value.size);
    if (key.size > 0)
        memcpy(out + at, key.data, key.size);
    if (value.size > 0)
        memcpy(out + at + key.size, value.data, value.size);
    return frame_bytes(key.size, value.size);
}

const char *frame_status_text(uint8_t status)
{
    static const char *const texts[] = {
        [FRAME_OK] = "ok",
        [FRAME_NOT_FOUND] = "not found",
        [FRAME_BAD_REQUEST] = "bad request",
        [FRAME_TOO_LARGE] = "too large",
        [FRAME_NO_SPACE] = "no space",
        [FRAME_FAILED] = "storage failed",
        [FRAME_CORRUPT] = "record damaged",
        [FRAME_VERSION_UNKNOWN] = "unknown protocol version",
        [FRAME_BUSY] = "busy",
        [FRAME_LOADING] = "loading",
        [FRAME_NO_AUTH] = "authentication required",
        [FRAME_DENIED] = "no permission",
    };
    return status < ARRAY_COUNT(texts) ? texts[status] : "unknown status";
}
