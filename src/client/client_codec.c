/*
 * client_codec.c - see client_codec.h.
 *
 * Happy path: client_codec_encode takes a place in the table, writes the request; client_codec_decode finds the place
 * by order (RESP) or by id (binary), gives it back and hands out its tag.
 *
 * Failure modes. Bytes that are no reply, a reply to nothing, a reply of the wrong kind: BROKEN, and the connection is
 * to be closed, for after it no reply can be trusted to belong to its request. An error that the server states in a
 * proper reply is a reply like any other.
 */
#include "client/client_codec.h"

#include "base/assert.h"
#include "base/limits.h"
#include "proto/frame.h"
#include "proto/resp.h"

#include <stdlib.h>

enum kvs_err client_codec_init(struct client_codec *codec, enum client_protocol protocol, uint32_t requests_max,
                               uint32_t reply_bytes_max)
{
    KVS_ASSERT(requests_max > 0 && requests_max <= 1u << 24);
    uint32_t places = 1;
    while (places < requests_max)
        places *= 2;
    *codec = (struct client_codec){.protocol = protocol, .requests_max = places, .reply_bytes_max = reply_bytes_max};
    codec->pending = calloc(places, sizeof(*codec->pending));
    codec->free_places = calloc(places, sizeof(*codec->free_places));
    if (codec->pending == NULL || codec->free_places == NULL) {
        client_codec_deinit(codec);
        return KVS_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; i < places; i++)
        codec->free_places[i] = places - 1 - i;
    return KVS_ERR_OK;
}

void client_codec_deinit(struct client_codec *codec)
{
    free(codec->pending);
    free(codec->free_places);
    codec->pending = NULL;
    codec->free_places = NULL;
}

/* ---- the table of requests under way --------------------------------------------------------------------------- */

static uint64_t pending_add(struct client_codec *codec, const struct client_request *request)
{
    KVS_ASSERT(codec->count < codec->requests_max);
    uint32_t place = codec->protocol == CLIENT_RESP ? (codec->head + codec->count) & (codec->requests_max - 1)
                                                    : codec->free_places[codec->requests_max - codec->count - 1];
    struct client_pending *pending = &codec->pending[place];
    KVS_ASSERT(!pending->active);
    pending->tag = request->tag;
    pending->op = (uint8_t)request->op;
    pending->active = true;
    pending->generation++;
    codec->count++;
    return (uint64_t)pending->generation << 32 | place;
}

static const struct client_pending *pending_oldest(const struct client_codec *codec)
{
    return codec->count > 0 ? &codec->pending[codec->head] : NULL;
}

static const struct client_pending *pending_find(const struct client_codec *codec, uint64_t id)
{
    uint32_t place = (uint32_t)id;
    if (place >= codec->requests_max)
        return NULL;
    const struct client_pending *pending = &codec->pending[place];
    return pending->active && pending->generation == (uint32_t)(id >> 32) ? pending : NULL;
}

static uint64_t pending_take(struct client_codec *codec, const struct client_pending *pending)
{
    uint32_t place = (uint32_t)(pending - codec->pending);
    KVS_ASSERT(codec->count > 0 && codec->pending[place].active);
    codec->pending[place].active = false;
    codec->count--;
    if (codec->protocol == CLIENT_RESP)
        codec->head = (codec->head + 1) & (codec->requests_max - 1);
    else
        codec->free_places[codec->requests_max - codec->count - 1] = place;
    return pending->tag;
}

/* ---- encoding -------------------------------------------------------------------------------------------------- */

enum kvs_err client_codec_check(const struct client_codec *codec, const struct client_request *request)
{
    if (codec->count >= codec->requests_max)
        return KVS_ERR_AGAIN;
    /* Beyond what any server takes, and within what every length field can say. */
    if (request->key.size > KVS_KEY_BYTES_MAX || request->value.size > UINT32_MAX / 4)
        return KVS_ERR_TOO_LARGE;
    if (request->relaxed && codec->protocol == CLIENT_RESP)
        return KVS_ERR_UNSUPPORTED;
    return KVS_ERR_OK;
}

size_t client_codec_bytes_max(const struct client_request *request)
{
    /* A binary header, or an array header and three bulk headers of RESP: the second is the larger. */
    return 4 * RESP_HEADER_BYTES_MAX + request->key.size + request->value.size;
}

static size_t encode_resp(const struct client_request *request, uint8_t *out)
{
    static const char *const commands[] = {
        [CLIENT_GET] = "GET",    [CLIENT_SET] = "SET",       [CLIENT_REMOVE] = "DEL", [CLIENT_PING] = "PING",
        [CLIENT_STATS] = "INFO", [CLIENT_BACKUP] = "BGSAVE", [CLIENT_AUTH] = "AUTH",
    };
    struct slice args[3] = {slice_text(commands[request->op]), request->key, request->value};
    switch (request->op) {
    case CLIENT_SET:
        return resp_write_request(out, args, 3);
    case CLIENT_AUTH:
        if (request->key.size > 0)
            return resp_write_request(out, args, 3);
        args[1] = request->value;
        return resp_write_request(out, args, 2);
    case CLIENT_GET:
    case CLIENT_REMOVE:
        return resp_write_request(out, args, 2);
    case CLIENT_PING:
        return resp_write_request(out, args, 1);
    case CLIENT_STATS:
    case CLIENT_BACKUP:
        break;
    }
    return resp_write_request(out, args, request->key.size > 0 ? 2 : 1);
}

static const uint8_t frame_opcodes[] = {
    [CLIENT_GET] = FRAME_GET,   [CLIENT_SET] = FRAME_SET,     [CLIENT_REMOVE] = FRAME_REMOVE,
    [CLIENT_PING] = FRAME_PING, [CLIENT_STATS] = FRAME_STATS, [CLIENT_BACKUP] = FRAME_BACKUP,
    [CLIENT_AUTH] = FRAME_AUTH,
};

static size_t encode_binary(const struct client_request *request, uint64_t id, uint8_t *out)
{
    struct frame_header header = {
        .magic = FRAME_MAGIC,
        .opcode = frame_opcodes[request->op],
        .flags = request->relaxed ? FRAME_RELAXED : 0,
        .key_bytes = (uint16_t)request->key.size,
        .value_bytes = (uint32_t)request->value.size,
        .id = id,
    };
    return frame_write(out, &header, request->key, request->value);
}

size_t client_codec_encode(struct client_codec *codec, const struct client_request *request, uint8_t *out)
{
    KVS_ASSERT(client_codec_check(codec, request) == KVS_ERR_OK);
    uint64_t id = pending_add(codec, request);
    size_t size = codec->protocol == CLIENT_RESP ? encode_resp(request, out) : encode_binary(request, id, out);
    KVS_ASSERT(size <= client_codec_bytes_max(request));
    return size;
}

/* ---- decoding -------------------------------------------------------------------------------------------------- */

static enum client_decode broken(struct client_decoded *out, enum kvs_err error, const char *text)
{
    out->error = error;
    out->text = text;
    return CLIENT_DECODE_BROKEN;
}

/* False: a reply that this request cannot have. */
static bool judge_resp(enum client_op op, const struct resp_reply *reply, struct client_reply *out)
{
    out->error = KVS_ERR_OK;
    out->value = reply->text;
    if (reply->type == RESP_REPLY_ERROR) {
        out->error = KVS_ERR_REMOTE;
        return true;
    }
    switch (op) {
    case CLIENT_GET:
        if (reply->type == RESP_REPLY_NULL) {
            out->error = KVS_ERR_NOT_FOUND;
            out->value = slice_make("", 0);
            return true;
        }
        return reply->type == RESP_REPLY_BULK;
    case CLIENT_SET:
    case CLIENT_PING:
    case CLIENT_BACKUP:
    case CLIENT_AUTH:
        return reply->type == RESP_REPLY_SIMPLE;
    case CLIENT_REMOVE:
        if (reply->integer == 0)
            out->error = KVS_ERR_NOT_FOUND;
        return reply->type == RESP_REPLY_INTEGER;
    case CLIENT_STATS:
        /* RESP3 servers may send INFO as a verbatim string: taken as it stands. */
        return reply->type == RESP_REPLY_BULK || reply->type == RESP_REPLY_OTHER;
    }
    return false;
}

static enum client_decode decode_resp(struct client_codec *codec, const uint8_t *data, size_t size,
                                      struct client_decoded *out)
{
    struct resp_reply reply;
    switch (resp_reply_parse(data, size, &reply)) {
    case RESP_REQUEST:
        break;
    case RESP_MORE:
        out->size = 0;
        return CLIENT_DECODE_MORE;
    default:
        return broken(out, KVS_ERR_PROTOCOL, "the server does not speak RESP");
    }
    const struct client_pending *pending = pending_oldest(codec);
    if (pending == NULL) {
        /* A server that is full says so before it hangs up, unasked. */
        if (reply.type == RESP_REPLY_ERROR)
            return broken(out, KVS_ERR_REMOTE, "the server refuses this connection");
        return broken(out, KVS_ERR_PROTOCOL, "a reply to no request");
    }
    out->size = reply.size;
    out->reply.op = (enum client_op)pending->op;
    if (!judge_resp(out->reply.op, &reply, &out->reply))
        return broken(out, KVS_ERR_PROTOCOL, "a reply of the wrong type");
    out->tag = pending_take(codec, pending);
    return CLIENT_DECODE_REPLY;
}

static enum kvs_err status_error(uint8_t status)
{
    switch ((enum frame_status)status) {
    case FRAME_OK:
        return KVS_ERR_OK;
    case FRAME_NOT_FOUND:
        return KVS_ERR_NOT_FOUND;
    case FRAME_BAD_REQUEST:
        return KVS_ERR_INVALID;
    case FRAME_TOO_LARGE:
        return KVS_ERR_TOO_LARGE;
    case FRAME_NO_SPACE:
        return KVS_ERR_NO_SPACE;
    case FRAME_FAILED:
        return KVS_ERR_FAILED;
    case FRAME_CORRUPT:
        return KVS_ERR_CORRUPT;
    case FRAME_VERSION_UNKNOWN:
        return KVS_ERR_VERSION;
    case FRAME_BUSY:
    case FRAME_LOADING:
        return KVS_ERR_AGAIN;
    case FRAME_NO_AUTH:
    case FRAME_DENIED:
        return KVS_ERR_ACCESS;
    }
    return KVS_ERR_REMOTE;
}

/* Parses a reply frame; REPLY when it is whole. */
static enum client_decode parse_reply_frame(const uint8_t *data, size_t size, uint32_t value_bytes_max,
                                            struct frame *frame, struct client_decoded *out)
{
    const struct frame_limits limits = {.key_bytes_max = KVS_KEY_BYTES_MAX, .value_bytes_max = value_bytes_max};
    switch (frame_parse(data, size, &limits, frame)) {
    case FRAME_WHOLE:
        break;
    case FRAME_MORE:
        out->size = frame->size;
        return CLIENT_DECODE_MORE;
    case FRAME_OVER:
        return broken(out, KVS_ERR_TOO_LARGE, "a reply larger than this client takes");
    case FRAME_INVALID:
        return broken(out, KVS_ERR_PROTOCOL, "the server does not speak the binary protocol");
    }
    if ((frame->header.flags & FRAME_REPLY) == 0)
        return broken(out, KVS_ERR_PROTOCOL, "a request where a reply was expected");
    out->size = frame->size;
    out->reply.error = status_error(frame->header.status);
    out->reply.value = frame->value;
    return CLIENT_DECODE_REPLY;
}

static enum client_decode decode_binary(struct client_codec *codec, const uint8_t *data, size_t size,
                                        struct client_decoded *out)
{
    struct frame frame;
    enum client_decode result = parse_reply_frame(data, size, codec->reply_bytes_max, &frame, out);
    if (result != CLIENT_DECODE_REPLY)
        return result;
    const struct client_pending *pending = pending_find(codec, frame.header.id);
    if (pending == NULL)
        return broken(out, KVS_ERR_PROTOCOL, "a reply to no request");
    if (frame.header.opcode != frame_opcodes[pending->op])
        return broken(out, KVS_ERR_PROTOCOL, "a reply of the wrong kind");
    out->reply.op = (enum client_op)pending->op;
    out->tag = pending_take(codec, pending);
    return CLIENT_DECODE_REPLY;
}

enum client_decode client_codec_decode(struct client_codec *codec, const uint8_t *data, size_t size,
                                       struct client_decoded *out)
{
    if (codec->protocol == CLIENT_RESP)
        return decode_resp(codec, data, size, out);
    return decode_binary(codec, data, size, out);
}

/* ---- hello ----------------------------------------------------------------------------------------------------- */

size_t client_codec_write_hello(uint8_t *out)
{
    static_assert(CLIENT_HELLO_BYTES == sizeof(struct frame_header) + sizeof(struct frame_hello), "hello frame");
    const struct frame_hello hello = {.version_min = FRAME_VERSION, .version_max = FRAME_VERSION};
    const struct frame_header header = {.magic = FRAME_MAGIC, .opcode = FRAME_HELLO, .value_bytes = sizeof(hello)};
    return frame_write(out, &header, slice_make("", 0), slice_make(&hello, sizeof(hello)));
}

enum client_decode client_codec_read_hello(const uint8_t *data, size_t size, struct client_decoded *out)
{
    struct frame frame;
    enum client_decode result = parse_reply_frame(data, size, 64 * 1024, &frame, out);
    if (result != CLIENT_DECODE_REPLY || out->reply.error != KVS_ERR_OK)
        return result;
    if (frame.header.opcode != FRAME_HELLO || frame.value.size < sizeof(struct frame_hello))
        return broken(out, KVS_ERR_PROTOCOL, "the server's hello is malformed");
    struct frame_hello hello;
    memcpy(&hello, frame.value.data, sizeof(hello));
    if (hello.version_min > FRAME_VERSION || hello.version_max < FRAME_VERSION)
        out->reply.error = KVS_ERR_VERSION;
    return CLIENT_DECODE_REPLY;
}
