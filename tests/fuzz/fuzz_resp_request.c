/*
 * fuzz_resp_request.c - the request parser of RESP.
 *
 * Input: one byte chooses the limits, one the way the stream is cut, the rest is the stream: requests one behind the
 * other.
 *
 * Properties. However the stream is cut, the same requests come out of it, and the same error at the same place. No
 * byte beyond what has arrived is read, and nothing is remembered of where bytes lay: each arrival moves them. A parser
 * that wants more does not want more than the request has. What was accepted, encoded as a client would, is accepted
 * again as the same request.
 */
#include "fuzz.h"
#include "proto/resp.h"

static const struct resp_limits limits_of[] = {
    {.args_max = 1024, .arg_bytes_max = 65536, .inline_bytes_max = 65536},
    {.args_max = 3, .arg_bytes_max = 8, .inline_bytes_max = 32},
    {.args_max = 16, .arg_bytes_max = 200, .inline_bytes_max = 64},
    {.args_max = 1u << 20, .arg_bytes_max = 512u << 20, .inline_bytes_max = 256},
};

/* What came out of a stream, written down so that two runs can be compared. */
struct outcome {
    uint8_t *bytes;
    size_t size, capacity;
};

static void note(struct outcome *outcome, const void *bytes, size_t size)
{
    if (outcome->capacity - outcome->size < size) {
        outcome->capacity = 2 * (outcome->size + size);
        outcome->bytes = realloc(outcome->bytes, outcome->capacity);
        FUZZ_CHECK(outcome->bytes != NULL);
    }
    if (size > 0)
        memcpy(outcome->bytes + outcome->size, bytes, size);
    outcome->size += size;
}

static void note_request(struct outcome *outcome, const struct resp_parser *parser, enum resp_status status,
                         const uint8_t *data)
{
    const uint64_t head[] = {(uint64_t)status, parser->size, status == RESP_REQUEST ? parser->argc : 0};
    note(outcome, head, sizeof head);
    for (uint32_t i = 0; status == RESP_REQUEST && i < parser->argc; i++) {
        const struct slice argument = resp_arg_slice(parser, data, i);
        note(outcome, &argument.size, sizeof argument.size);
        note(outcome, argument.data, argument.size);
    }
}

/* The caller's part of RESP_GROW, as stingy as it may be. */
static void grow(struct resp_parser *parser)
{
    FUZZ_CHECK(parser->argc_total > parser->args_capacity && parser->argc <= parser->args_capacity);
    FUZZ_CHECK(parser->argc_total <= parser->limits.args_max);
    const uint32_t twice = 2 * parser->args_capacity;
    parser->args_capacity = twice < parser->argc_total ? twice : parser->argc_total;
    parser->args = realloc(parser->args, parser->args_capacity * sizeof parser->args[0]);
    FUZZ_CHECK(parser->args != NULL);
}

static enum resp_status parse_once(struct resp_parser *parser, uint8_t *data, size_t size)
{
    enum resp_status status;
    while ((status = resp_parse(parser, data, size)) == RESP_GROW)
        grow(parser);
    FUZZ_CHECK(parser->size <= size);
    switch (status) {
    case RESP_REQUEST:
        FUZZ_CHECK(parser->argc == parser->argc_total && parser->argc > 0 && parser->argc <= parser->limits.args_max);
        for (uint32_t i = 0; i < parser->argc; i++) {
            FUZZ_CHECK(parser->args[i].size <= parser->limits.arg_bytes_max);
            FUZZ_CHECK(fuzz_lies_in(resp_arg_slice(parser, data, i), data, (size_t)parser->size));
        }
        break;
    case RESP_MORE:
        FUZZ_CHECK(parser->wanted > size);
        break;
    case RESP_ERROR:
        FUZZ_CHECK(memchr(parser->error, '\0', sizeof parser->error) != NULL && parser->error[0] != '\0');
        break;
    default:
        FUZZ_CHECK(status == RESP_EMPTY && parser->size > 0);
        break;
    }
    return status;
}

/* The request as a client would write it means the same. */
static void check_round_trip(const struct resp_parser *parsed, const uint8_t *data)
{
    if (parsed->argc > 4096)
        return;
    struct slice *args = calloc(parsed->argc, sizeof *args);
    FUZZ_CHECK(args != NULL);
    for (uint32_t i = 0; i < parsed->argc; i++)
        args[i] = resp_arg_slice(parsed, data, i);
    const size_t size = resp_write_request(NULL, args, parsed->argc);
    uint8_t *bytes = malloc(size);
    FUZZ_CHECK(bytes != NULL && resp_write_request(bytes, args, parsed->argc) == size);

    struct resp_parser again;
    resp_parser_init(&again, &parsed->limits, malloc(sizeof(struct resp_arg)), 1);
    FUZZ_CHECK(parse_once(&again, bytes, size) == RESP_REQUEST);
    FUZZ_CHECK(again.size == size && again.argc == parsed->argc);
    for (uint32_t i = 0; i < parsed->argc; i++)
        FUZZ_CHECK(slice_equal(resp_arg_slice(&again, bytes, i), args[i]));
    free(again.args);
    free(bytes);
    free(args);
}

/* How many bytes arrive next: few, many, one by one, or up to the place before a line's end. */
static size_t next_piece(uint64_t *state, uint8_t way, size_t left)
{
    const size_t maxima[] = {left, 1, 2, 7, 16, 64, 400, left};
    const size_t most = maxima[way % ARRAY_COUNT(maxima)];
    const size_t piece = way % ARRAY_COUNT(maxima) == 0 ? left : 1 + (size_t)(fuzz_next(state) % (most > 0 ? most : 1));
    return piece < left ? piece : left;
}

/* Lets the stream arrive in pieces; way 0: at once. */
static void run(const struct resp_limits *limits, const uint8_t *stream, size_t size, uint8_t way,
                struct outcome *outcome)
{
    struct resp_parser parser;
    resp_parser_init(&parser, limits, malloc(2 * sizeof(struct resp_arg)), 2);
    uint64_t state = way;
    uint8_t *data = fuzz_copy("", 0);
    size_t there = 0; /* of the stream, from `begin` on, in `data` */
    size_t begin = 0;
    uint64_t wanted = 0;
    enum resp_status status = RESP_MORE;
    while (status != RESP_ERROR) {
        const size_t piece = next_piece(&state, way, size - begin - there);
        if (status == RESP_MORE && piece == 0 && wanted > 0)
            break;
        uint8_t *moved = malloc(there + piece > 0 ? there + piece : 1);
        FUZZ_CHECK(moved != NULL);
        memcpy(moved, data, there);
        if (piece > 0)
            memcpy(moved + there, stream + begin + there, piece);
        free(data);
        data = moved;
        there += piece;

        status = parse_once(&parser, data, there);
        if (status == RESP_MORE) {
            FUZZ_CHECK(parser.wanted >= wanted);
            wanted = parser.wanted;
            continue;
        }
        note_request(outcome, &parser, status, data);
        if (status == RESP_ERROR)
            continue;
        FUZZ_CHECK(parser.size >= wanted); /* else somebody would wait for bytes that need not come */
        if (status == RESP_REQUEST)
            check_round_trip(&parser, data);
        wanted = 0;
        begin += (size_t)parser.size;
        there -= (size_t)parser.size;
        memmove(data, data + parser.size, there);
        resp_parser_next(&parser);
    }
    if (status == RESP_ERROR) {
        note(outcome, parser.error, strlen(parser.error));
        FUZZ_CHECK(parse_once(&parser, data, there) == RESP_ERROR); /* until resp_parser_next */
    }
    free(parser.args);
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const struct resp_limits *limits = &limits_of[fuzz_take(&input, 1) % ARRAY_COUNT(limits_of)];
    const uint8_t way = (uint8_t)fuzz_take(&input, 1);
    struct outcome whole = {0}, cut = {0}, single = {0};
    run(limits, input.data, input.size, 0, &whole);
    run(limits, input.data, input.size, way | 1, &cut);
    run(limits, input.data, input.size, 1, &single);
    FUZZ_CHECK(slice_equal(slice_make(whole.bytes, whole.size), slice_make(cut.bytes, cut.size)));
    FUZZ_CHECK(slice_equal(slice_make(whole.bytes, whole.size), slice_make(single.bytes, single.size)));
    free(whole.bytes);
    free(cut.bytes);
    free(single.bytes);
    return 0;
}
