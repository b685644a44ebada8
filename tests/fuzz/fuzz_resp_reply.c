/*
 * fuzz_resp_reply.c - the scanner of RESP replies, as clients use it.
 *
 * Input: the bytes of a server.
 *
 * Properties. Every beginning of a whole reply is incomplete, and every beginning of what is no reply is incomplete or
 * no reply either, up to the place where that shows; from there on nothing changes any more. What a reply shows lies in
 * its bytes. A simple reply, encoded as a server would, reads the same again.
 */
#include "fuzz.h"
#include "proto/resp.h"

static enum resp_status scan(const uint8_t *data, size_t size, struct resp_reply *reply)
{
    uint8_t *copy = fuzz_copy(data, size);
    const enum resp_status status = resp_reply_parse(copy, size, reply);
    FUZZ_CHECK(status == RESP_REQUEST || status == RESP_MORE || status == RESP_ERROR);
    if (status == RESP_REQUEST) {
        FUZZ_CHECK(reply->size > 0 && reply->size <= size);
        FUZZ_CHECK(fuzz_lies_in(reply->text, copy, reply->size));
        reply->text.data = data + (reply->text.size > 0 ? reply->text.data - copy : 0);
    }
    free(copy);
    return status;
}

static bool same_reply(const struct resp_reply *a, const struct resp_reply *b)
{
    return a->type == b->type && a->size == b->size && a->integer == b->integer && slice_equal(a->text, b->text);
}

static bool fits_a_line(struct slice text)
{
    return text.size == 0 || (memchr(text.data, '\r', text.size) == NULL &&
                              memchr(text.data, '\n', text.size) == NULL && memchr(text.data, '\0', text.size) == NULL);
}

static void check_round_trip(const struct resp_reply *reply)
{
    uint8_t *out = malloc(RESP_HEADER_BYTES_MAX + reply->text.size + 2);
    char *text = (char *)fuzz_copy("", 1);
    FUZZ_CHECK(out != NULL);
    size_t size = 0;
    if (reply->type == RESP_REPLY_SIMPLE || reply->type == RESP_REPLY_ERROR) {
        if (!fits_a_line(reply->text))
            goto out;
        free(text);
        text = fuzz_string(reply->text.data, reply->text.size);
        FUZZ_CHECK(text != NULL);
        size = reply->type == RESP_REPLY_SIMPLE ? resp_write_simple(out, text) : resp_write_error(out, text);
    } else if (reply->type == RESP_REPLY_INTEGER) {
        size = resp_write_integer(out, reply->integer);
    } else if (reply->type == RESP_REPLY_BULK) {
        size = resp_write_bulk(out, reply->text);
        FUZZ_CHECK(size == resp_bulk_bytes(reply->text.size));
    } else if (reply->type == RESP_REPLY_NULL) {
        size = resp_write_null(out, 2 + (reply->size & 1));
    } else {
        goto out;
    }
    struct resp_reply again;
    FUZZ_CHECK(scan(out, size, &again) == RESP_REQUEST);
    FUZZ_CHECK(again.size == size && again.type == reply->type && again.integer == reply->integer);
    FUZZ_CHECK(reply->type == RESP_REPLY_INTEGER || slice_equal(again.text, reply->text));
out:
    free(text);
    free(out);
}

/* All beginnings of short inputs, some of long ones. */
static void check_beginnings(const uint8_t *data, size_t size, enum resp_status whole, const struct resp_reply *reply)
{
    const size_t step = size <= 96 ? 1 : size / 48;
    enum resp_status before = RESP_MORE;
    for (size_t some = 0; some < size; some += step) {
        struct resp_reply part = {0};
        const enum resp_status status = scan(data, some, &part);
        FUZZ_CHECK(before == RESP_MORE || status == before);
        before = status;
        if (whole == RESP_REQUEST) {
            FUZZ_CHECK(status == (some < reply->size ? RESP_MORE : RESP_REQUEST));
            FUZZ_CHECK(status == RESP_MORE || same_reply(&part, reply));
        } else {
            FUZZ_CHECK(status == RESP_MORE || (whole == RESP_ERROR && status == RESP_ERROR));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    while (size > 0) {
        struct resp_reply reply = {0};
        const enum resp_status status = scan(data, size, &reply);
        check_beginnings(data, size, status, &reply);
        if (status != RESP_REQUEST)
            return 0;
        check_round_trip(&reply);
        data += reply.size;
        size -= reply.size;
    }
    return 0;
}
