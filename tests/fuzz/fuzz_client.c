/*
 * fuzz_client.c - the client's codec against a server that says anything at all.
 *
 * Input: a byte of flags (1: RESP, else binary; 2: the server's hello comes first), a byte that says how many requests
 * are under way, one byte for each of them, a byte for the way the server's bytes are cut, then the server's bytes.
 *
 * Properties. However the bytes are cut, the same replies come out, and the same complaint. A reply belongs to a
 * request that is under way and has not been answered, in order over RESP; its value lies in the bytes and within the
 * limit. A complaint has a text.
 */
#include "client/client_codec.h"
#include "fuzz.h"

enum { REQUESTS_MAX = 16, REPLY_BYTES_MAX = 2000, NOTES_MAX = 64 };
enum { OVER_RESP = 1, HELLO_FIRST = 2 };

struct note {
    enum client_decode result;
    enum kvs_err error;
    uint64_t tag;
    size_t size;
    uint8_t *value;
    size_t value_bytes;
    const char *text;
};

struct session {
    struct client_codec codec;
    bool greeting;
    bool answered[REQUESTS_MAX];
    enum client_op ops[REQUESTS_MAX];
    unsigned asked, answers;
    struct note notes[NOTES_MAX];
    unsigned note_count;
};

static void session_open(struct session *session, unsigned flags, struct fuzz_input *input)
{
    *session = (struct session){.greeting = (flags & HELLO_FIRST) != 0};
    const bool resp = (flags & OVER_RESP) != 0;
    FUZZ_CHECK(client_codec_init(&session->codec, resp ? CLIENT_RESP : CLIENT_BINARY, REQUESTS_MAX, REPLY_BYTES_MAX) ==
               KVS_ERR_OK);
    const unsigned wanted = (unsigned)fuzz_take(input, 1) % (REQUESTS_MAX + 1);
    for (unsigned i = 0; i < wanted; i++) {
        const unsigned choice = (unsigned)fuzz_take(input, 1);
        struct client_request request = {.op = (enum client_op)(choice % 5),
                                         .relaxed = choice >= 128 && !resp,
                                         .key = slice_text("a key"),
                                         .value = slice_text("a value"),
                                         .tag = i};
        FUZZ_CHECK(client_codec_check(&session->codec, &request) == KVS_ERR_OK);
        uint8_t *out = malloc(client_codec_bytes_max(&request));
        FUZZ_CHECK(out != NULL && client_codec_encode(&session->codec, &request, out) > 0);
        free(out);
        session->ops[session->asked++] = request.op;
    }
}

static void session_close(struct session *session)
{
    for (unsigned i = 0; i < session->note_count; i++)
        free(session->notes[i].value);
    client_codec_deinit(&session->codec);
}

static void check_reply(struct session *session, const struct client_decoded *decoded, const uint8_t *data, size_t size)
{
    FUZZ_CHECK(decoded->size > 0 && decoded->size <= size);
    FUZZ_CHECK(fuzz_lies_in(decoded->reply.value, data, decoded->size));
    if (session->greeting)
        return;
    FUZZ_CHECK(decoded->tag < session->asked && !session->answered[decoded->tag]);
    FUZZ_CHECK(decoded->reply.op == session->ops[decoded->tag]);
    session->answered[decoded->tag] = true;
    if (session->codec.protocol == CLIENT_RESP)
        FUZZ_CHECK(decoded->tag == session->answers);
    else
        FUZZ_CHECK(decoded->reply.value.size <= REPLY_BYTES_MAX);
    session->answers++;
    FUZZ_CHECK(session->codec.count == session->asked - session->answers);
}

/* Decodes what is there; false when more is needed, or when the stream has ended. */
static bool decode(struct session *session, const uint8_t *data, size_t size, size_t *used)
{
    struct client_decoded decoded = {0};
    const enum client_decode result = session->greeting ? client_codec_read_hello(data, size, &decoded)
                                                        : client_codec_decode(&session->codec, data, size, &decoded);
    if (result == CLIENT_DECODE_MORE) {
        FUZZ_CHECK(decoded.size == 0 || decoded.size > size);
        return false;
    }
    FUZZ_CHECK(session->note_count < NOTES_MAX);
    struct note *note = &session->notes[session->note_count++];
    *note = (struct note){.result = result};
    if (result == CLIENT_DECODE_BROKEN) {
        FUZZ_CHECK(decoded.error != KVS_ERR_OK && decoded.text != NULL && decoded.text[0] != '\0');
        note->error = decoded.error;
        note->text = decoded.text;
        return false;
    }
    check_reply(session, &decoded, data, size);
    note->error = decoded.reply.error;
    note->tag = session->greeting ? 0 : decoded.tag;
    note->size = decoded.size;
    note->value = fuzz_copy(decoded.reply.value.data, decoded.reply.value.size);
    note->value_bytes = decoded.reply.value.size;
    session->greeting = false;
    *used = decoded.size;
    return true;
}

static bool broken(const struct session *session)
{
    return session->note_count > 0 && session->notes[session->note_count - 1].result == CLIENT_DECODE_BROKEN;
}

/* Lets the server's bytes arrive in pieces; way 0: at once. */
static void run(struct session *session, struct slice stream, uint8_t way)
{
    uint64_t state = way;
    size_t begin = 0, there = 0;
    while (!broken(session) && begin + there < stream.size) {
        const size_t left = stream.size - begin - there;
        const size_t piece = way == 0 ? left : 1 + (size_t)(fuzz_next(&state) % (way % 4 == 1 ? 1 : way));
        there += piece < left ? piece : left;
        size_t used = 0;
        do {
            begin += used;
            there -= used;
            used = 0;
            uint8_t *copy = fuzz_copy(stream.data + begin, there);
            const bool again = there > 0 && decode(session, copy, there, &used);
            free(copy);
            if (!again)
                break;
        } while (true);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const unsigned flags = (unsigned)fuzz_take(&input, 1);
    static struct session whole, cut;
    struct fuzz_input same = input;
    session_open(&whole, flags, &input);
    session_open(&cut, flags, &same);
    const uint8_t way = (uint8_t)fuzz_take(&input, 1);
    run(&whole, slice_make(input.data, input.size), 0);
    run(&cut, slice_make(input.data, input.size), way | 1);

    FUZZ_CHECK(whole.note_count == cut.note_count);
    for (unsigned i = 0; i < whole.note_count; i++) {
        const struct note *a = &whole.notes[i], *b = &cut.notes[i];
        FUZZ_CHECK(a->result == b->result && a->error == b->error && a->tag == b->tag && a->size == b->size);
        FUZZ_CHECK(a->text == b->text);
        FUZZ_CHECK(slice_equal(slice_make(a->value, a->value_bytes), slice_make(b->value, b->value_bytes)));
    }
    session_close(&whole);
    session_close(&cut);
    return 0;
}
