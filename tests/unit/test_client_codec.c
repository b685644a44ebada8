/*
 * test_client_codec.c - replies find their requests, and what cannot be a reply is refused.
 */
#include "client/client_codec.h"
#include "proto/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static uint64_t encode(struct client_codec *codec, enum client_op op, const char *key, uint64_t tag)
{
    uint8_t out[512];
    const struct client_request request = {
        .op = op, .key = slice_text(key), .value = slice_text(op == CLIENT_SET ? "value" : ""), .tag = tag};
    assert_true(client_codec_bytes_max(&request) <= sizeof(out));
    assert_int_equal(client_codec_check(codec, &request), KVS_ERR_OK);
    size_t size = client_codec_encode(codec, &request, out);
    assert_true(size > 0);
    struct frame_header header = {.id = 0};
    if (codec->protocol == CLIENT_BINARY)
        memcpy(&header, out, sizeof(header));
    return header.id;
}

static void expect_resp(struct client_codec *codec, const char *bytes, uint64_t tag, enum kvs_err error,
                        const char *value)
{
    struct client_decoded decoded;
    size_t size = strlen(bytes);
    for (size_t part = 0; part < size; part++)
        assert_int_equal(client_codec_decode(codec, (const uint8_t *)bytes, part, &decoded), CLIENT_DECODE_MORE);
    assert_int_equal(client_codec_decode(codec, (const uint8_t *)bytes, size, &decoded), CLIENT_DECODE_REPLY);
    assert_int_equal(decoded.size, size);
    assert_int_equal(decoded.tag, tag);
    assert_int_equal(decoded.reply.error, error);
    if (value != NULL)
        assert_true(slice_equal(decoded.reply.value, slice_text(value)));
}

static void expect_broken(struct client_codec *codec, const void *bytes, size_t size, enum kvs_err error)
{
    struct client_decoded decoded;
    assert_int_equal(client_codec_decode(codec, bytes, size, &decoded), CLIENT_DECODE_BROKEN);
    assert_int_equal(decoded.error, error);
    assert_non_null(decoded.text);
}

static void test_client_codec__resp_replies_come_in_request_order(void **state)
{
    (void)state;
    struct client_codec codec;
    assert_int_equal(client_codec_init(&codec, CLIENT_RESP, 8, 1024), KVS_ERR_OK);
    for (uint64_t round = 0; round < 5; round++) { /* more than once around the table */
        encode(&codec, CLIENT_GET, "a", 1);
        encode(&codec, CLIENT_GET, "b", 2);
        encode(&codec, CLIENT_SET, "c", 3);
        encode(&codec, CLIENT_REMOVE, "d", 4);
        encode(&codec, CLIENT_REMOVE, "e", 5);
        encode(&codec, CLIENT_PING, "", 6);
        encode(&codec, CLIENT_STATS, "", 7);
        expect_resp(&codec, "$3\r\nx\r\n\r\n", 1, KVS_ERR_OK, "x\r\n");
        expect_resp(&codec, "$-1\r\n", 2, KVS_ERR_NOT_FOUND, "");
        expect_resp(&codec, "+OK\r\n", 3, KVS_ERR_OK, NULL);
        expect_resp(&codec, ":1\r\n", 4, KVS_ERR_OK, NULL);
        expect_resp(&codec, ":0\r\n", 5, KVS_ERR_NOT_FOUND, NULL);
        expect_resp(&codec, "-ERR no\r\n", 6, KVS_ERR_REMOTE, "ERR no");
        expect_resp(&codec, "$4\r\na:1\n\r\n", 7, KVS_ERR_OK, "a:1\n");
        assert_int_equal(codec.count, 0);
    }
    client_codec_deinit(&codec);
}

static void test_client_codec__resp_nonsense_is_refused(void **state)
{
    (void)state;
    struct client_codec codec;
    assert_int_equal(client_codec_init(&codec, CLIENT_RESP, 8, 1024), KVS_ERR_OK);
    expect_broken(&codec, "+OK\r\n", 5, KVS_ERR_PROTOCOL);
    expect_broken(&codec, "-ERR max number of clients reached\r\n", 36, KVS_ERR_REMOTE);
    encode(&codec, CLIENT_GET, "a", 1);
    expect_broken(&codec, "HTTP/1.1 400\r\n", 14, KVS_ERR_PROTOCOL);
    expect_broken(&codec, ":1\r\n", 4, KVS_ERR_PROTOCOL);
    client_codec_deinit(&codec);
}

static size_t write_reply(uint8_t *out, enum frame_opcode opcode, enum frame_status status, uint64_t id,
                          const char *value)
{
    const struct frame_header header = {
        .magic = FRAME_MAGIC,
        .opcode = (uint8_t)opcode,
        .flags = FRAME_REPLY,
        .status = (uint8_t)status,
        .value_bytes = (uint32_t)strlen(value),
        .id = id,
    };
    return frame_write(out, &header, slice_text(""), slice_text(value));
}

static void expect_binary(struct client_codec *codec, const uint8_t *bytes, size_t size, uint64_t tag,
                          enum kvs_err error, const char *value)
{
    struct client_decoded decoded;
    for (size_t part = 0; part < size; part++) {
        assert_int_equal(client_codec_decode(codec, bytes, part, &decoded), CLIENT_DECODE_MORE);
        assert_true(decoded.size > part && decoded.size <= size);
    }
    assert_int_equal(client_codec_decode(codec, bytes, size, &decoded), CLIENT_DECODE_REPLY);
    assert_int_equal(decoded.tag, tag);
    assert_int_equal(decoded.reply.error, error);
    assert_true(slice_equal(decoded.reply.value, slice_text(value)));
}

static void test_client_codec__binary_replies_come_in_any_order(void **state)
{
    (void)state;
    struct client_codec codec;
    uint8_t bytes[256];
    assert_int_equal(client_codec_init(&codec, CLIENT_BINARY, 4, 1024), KVS_ERR_OK);
    for (int round = 0; round < 5; round++) {
        uint64_t a = encode(&codec, CLIENT_GET, "a", 10);
        uint64_t b = encode(&codec, CLIENT_SET, "b", 20);
        uint64_t c = encode(&codec, CLIENT_REMOVE, "c", 30);
        expect_binary(&codec, bytes, write_reply(bytes, FRAME_REMOVE, FRAME_NOT_FOUND, c, ""), 30, KVS_ERR_NOT_FOUND,
                      "");
        expect_binary(&codec, bytes, write_reply(bytes, FRAME_GET, FRAME_OK, a, "one"), 10, KVS_ERR_OK, "one");
        uint64_t d = encode(&codec, CLIENT_PING, "", 40);
        expect_binary(&codec, bytes, write_reply(bytes, FRAME_PING, FRAME_OK, d, ""), 40, KVS_ERR_OK, "");
        expect_binary(&codec, bytes, write_reply(bytes, FRAME_SET, FRAME_NO_SPACE, b, "full"), 20, KVS_ERR_NO_SPACE,
                      "full");
        assert_int_equal(codec.count, 0);
    }
    client_codec_deinit(&codec);
}

static void test_client_codec__binary_nonsense_is_refused(void **state)
{
    (void)state;
    struct client_codec codec;
    uint8_t bytes[256];
    assert_int_equal(client_codec_init(&codec, CLIENT_BINARY, 4, 16), KVS_ERR_OK);
    uint64_t id = encode(&codec, CLIENT_GET, "a", 10);
    size_t size;
    expect_broken(&codec, "-ERR this is no binary protocol\r\n", 33, KVS_ERR_PROTOCOL);
    size = write_reply(bytes, FRAME_GET, FRAME_OK, id + 1, ""); /* a place that is not in use */
    expect_broken(&codec, bytes, size, KVS_ERR_PROTOCOL);
    size = write_reply(bytes, FRAME_GET, FRAME_OK, id + (UINT64_C(1) << 32), ""); /* another generation */
    expect_broken(&codec, bytes, size, KVS_ERR_PROTOCOL);
    size = write_reply(bytes, FRAME_GET, FRAME_OK, 0xFFFFFFFF, ""); /* outside the table */
    expect_broken(&codec, bytes, size, KVS_ERR_PROTOCOL);
    size = write_reply(bytes, FRAME_SET, FRAME_OK, id, ""); /* the reply to another kind of request */
    expect_broken(&codec, bytes, size, KVS_ERR_PROTOCOL);
    size = write_reply(bytes, FRAME_GET, FRAME_OK, id, "longer than 16 bytes");
    expect_broken(&codec, bytes, size, KVS_ERR_TOO_LARGE);
    size = write_reply(bytes, FRAME_GET, FRAME_OK, id, "");
    bytes[2] = 0; /* a request, not a reply */
    expect_broken(&codec, bytes, size, KVS_ERR_PROTOCOL);

    size = write_reply(bytes, FRAME_GET, FRAME_OK, id, "");
    expect_binary(&codec, bytes, size, 10, KVS_ERR_OK, "");
    expect_broken(&codec, bytes, size, KVS_ERR_PROTOCOL); /* twice */
    client_codec_deinit(&codec);
}

static void test_client_codec__limits_are_checked_before_encoding(void **state)
{
    (void)state;
    struct client_codec codec;
    assert_int_equal(client_codec_init(&codec, CLIENT_RESP, 2, 1024), KVS_ERR_OK);
    static const uint8_t key[65536];
    struct client_request request = {.op = CLIENT_SET, .key = slice_make(key, sizeof(key))};
    assert_int_equal(client_codec_check(&codec, &request), KVS_ERR_TOO_LARGE);
    request.key.size--;
    assert_int_equal(client_codec_check(&codec, &request), KVS_ERR_OK);
    request.relaxed = true;
    assert_int_equal(client_codec_check(&codec, &request), KVS_ERR_UNSUPPORTED);
    encode(&codec, CLIENT_GET, "a", 1);
    encode(&codec, CLIENT_GET, "a", 1);
    request.relaxed = false;
    assert_int_equal(client_codec_check(&codec, &request), KVS_ERR_AGAIN);
    client_codec_deinit(&codec);
}

static void test_client_codec__hello_names_the_version(void **state)
{
    (void)state;
    uint8_t bytes[CLIENT_HELLO_BYTES];
    struct client_decoded decoded;
    assert_int_equal(client_codec_write_hello(bytes), CLIENT_HELLO_BYTES);
    assert_int_equal(client_codec_read_hello(bytes, sizeof(bytes), &decoded), CLIENT_DECODE_BROKEN); /* no reply */

    bytes[2] = FRAME_REPLY;
    for (size_t part = 0; part < sizeof(bytes); part++)
        assert_int_equal(client_codec_read_hello(bytes, part, &decoded), CLIENT_DECODE_MORE);
    assert_int_equal(client_codec_read_hello(bytes, sizeof(bytes), &decoded), CLIENT_DECODE_REPLY);
    assert_int_equal(decoded.reply.error, KVS_ERR_OK);

    struct frame_hello hello = {.version_min = FRAME_VERSION + 1, .version_max = FRAME_VERSION + 1};
    memcpy(bytes + sizeof(struct frame_header), &hello, sizeof(hello));
    assert_int_equal(client_codec_read_hello(bytes, sizeof(bytes), &decoded), CLIENT_DECODE_REPLY);
    assert_int_equal(decoded.reply.error, KVS_ERR_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_codec__resp_replies_come_in_request_order),
        cmocka_unit_test(test_client_codec__resp_nonsense_is_refused),
        cmocka_unit_test(test_client_codec__binary_replies_come_in_any_order),
        cmocka_unit_test(test_client_codec__binary_nonsense_is_refused),
        cmocka_unit_test(test_client_codec__limits_are_checked_before_encoding),
        cmocka_unit_test(test_client_codec__hello_names_the_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
