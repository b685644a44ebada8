/*
 * sim_ask.c - what a client on the simulated network asks, and what it makes of the answers.
 *
 * Happy path: an ask is told to the oracle and encoded into `forming`. Answers are taken off `in` one by one and
 * matched with the asks: RESP in order, frames by their id; what they say goes to the oracle.
 *
 * Failure modes: an answer of the wrong type and an error without a reason break the run. Errors with a reason leave a
 * write open and forget a read.
 */
#include "sim_client_internal.h"

#include "sim_answer.h"
#include "verdict.h"

#include "base/assert.h"
#include "proto/frame.h"
#include "proto/resp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_ROOM (2048u * 1024)

/* ---- asks ------------------------------------------------------------------------------------------------------ */

static struct ask *ask_add(struct client *client, enum ask_kind kind)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    KVS_ASSERT(ask != NULL);
    ask->kind = kind;
    ask->id = ++client->last_id;
    list_push_back(&client->asks, &ask->link);
    client->ask_count++;
    client->setting.tally->operations++;
    return ask;
}

static void ask_free(struct client *client, struct ask *ask)
{
    list_remove(&ask->link);
    client->ask_count--;
    client->scans -= ask->scan != NULL;
    scan_ask_free(ask->scan);
    free(ask);
}

static void ask_leave(struct client *client, struct ask *ask)
{
    if (ask->kind == ASK_FLEETING)
        fleeting_leave(client->setting.fleeting, ask->fleeting);
    if (ask->kind == ASK_COUNTER)
        counters_leave(client->setting.counters, &ask->counter);
    if (ask->kind == ASK_SCAN)
        scan_ask_leave(client->setting.oracle, ask->scan);
    if (ask->kind == ASK_FLUSH) /* fleeting keys and counters know no more than that it was begun */
        oracle_flush_leave(client->setting.oracle, ask->flush.op);
    for (unsigned i = 0; i < ask->key_count; i++)
        oracle_leave(client->setting.oracle, ask->ops[i]);
}

static void ask_key(struct client *client, struct ask *ask, unsigned key, enum history_kind kind, unsigned version)
{
    ask->keys[ask->key_count] = key;
    ask->ops[ask->key_count++] = oracle_begin(client->setting.oracle, key, kind, version, client->session);
}

static void write_resp(struct client *client, const struct slice *args, unsigned count)
{
    size_t size = resp_write_request(NULL, args, count);
    client->forming.size += resp_write_request(client_reserve(&client->forming, size), args, count);
}

static void write_frame(struct client *client, uint64_t id, uint8_t opcode, struct slice key, struct slice value)
{
    struct frame_header header = {
        .opcode = opcode, .flags = client->relaxed && opcode != FRAME_HELLO ? FRAME_RELAXED : 0, .id = id};
    uint8_t *room = client_reserve(&client->forming, frame_bytes(key.size, value.size));
    client->forming.size += frame_write(room, &header, key, value);
}

/* One key's command in the connection's protocol. */
static void write_single(struct client *client, const struct ask *ask, const char *word, uint8_t opcode,
                         struct slice value)
{
    uint8_t name[ORACLE_KEY_BYTES_MAX];
    struct slice key = slice_make(name, oracle_name(client->setting.oracle, ask->keys[0], name));
    if (client->protocol == FRAMES) {
        write_frame(client, ask->id, opcode, key, value);
        return;
    }
    struct slice args[3] = {slice_text(word), key, value};
    write_resp(client, args, opcode == FRAME_SET ? 3 : 2);
}

static void write_several(struct client *client, const struct ask *ask, const char *word)
{
    static uint8_t names[ASK_KEYS_MAX][ORACLE_KEY_BYTES_MAX];
    struct slice args[1 + ASK_KEYS_MAX] = {slice_text(word)};
    for (unsigned i = 0; i < ask->key_count; i++)
        args[1 + i] = slice_make(names[i], oracle_name(client->setting.oracle, ask->keys[i], names[i]));
    write_resp(client, args, 1 + ask->key_count);
}

unsigned client_key_class(const struct client *client, unsigned *base)
{
    const struct oracle *oracle = client->setting.oracle;
    unsigned relaxed = 0;
    while (oracle_is_relaxed(oracle, relaxed))
        relaxed++;
    *base = client->relaxed ? 0 : relaxed;
    return client->relaxed ? relaxed : oracle_keys(oracle) - relaxed;
}

unsigned client_choose_key(struct client *client)
{
    unsigned base, count = client_key_class(client, &base);
    unsigned hot = count / 20 + 1;
    return base + (unsigned)client_draw(client, client_draw(client, 8) == 0 ? hot : count);
}

static void choose_keys(struct client *client, struct ask *ask, enum history_kind kind)
{
    unsigned wanted =
        client->protocol == FRAMES || client_draw(client, 3) > 0 ? 1 : 2 + (unsigned)client_draw(client, 5);
    for (unsigned i = 0; i < wanted; i++) {
        unsigned key = client_choose_key(client);
        bool twice = false;
        for (unsigned j = 0; j < ask->key_count; j++)
            twice = twice || ask->keys[j] == key;
        if (!twice)
            ask_key(client, ask, key, kind, 0);
    }
}

/* Good until the next one is made. */
static struct slice value_of(const struct client *client, unsigned key, unsigned version)
{
    static uint8_t value[VALUE_ROOM];
    const struct oracle *oracle = client->setting.oracle;
    size_t size = oracle_value_bytes(oracle, key, version);
    KVS_ASSERT(size <= sizeof(value));
    oracle_value(oracle, key, version, value);
    return slice_make(value, size);
}

void ask_set(struct client *client, unsigned key)
{
    struct ask *ask = ask_add(client, ASK_SET);
    unsigned version = oracle_version(client->setting.oracle, key);
    ask_key(client, ask, key, HISTORY_WRITE, version);
    write_single(client, ask, "SET", FRAME_SET, value_of(client, key, version));
}

void ask_swap(struct client *client, unsigned key)
{
    KVS_ASSERT(client->protocol != FRAMES);
    struct ask *ask = ask_add(client, ASK_SWAP);
    const struct swap *swap = ask->swap = swap_choose(client_draw(client, UINT64_MAX));
    unsigned version = swap->writes_value ? oracle_version(client->setting.oracle, key) : 0;
    struct slice value = swap->writes_value ? value_of(client, key, version) : slice_make(NULL, 0);
    ask_key(client, ask, key, swap->kind, version);
    uint8_t name[ORACLE_KEY_BYTES_MAX];
    struct slice args[SWAP_ARGS_MAX];
    struct slice key_name = slice_make(name, oracle_name(client->setting.oracle, key, name));
    write_resp(client, args, swap_arguments(swap, key_name, value, args));
}

void ask_get(struct client *client, unsigned key)
{
    struct ask *ask = ask_add(client, ASK_GET);
    ask_key(client, ask, key, HISTORY_READ, 0);
    write_single(client, ask, "GET", FRAME_GET, slice_make(NULL, 0));
}

void ask_several(struct client *client, enum ask_kind kind)
{
    struct ask *ask = ask_add(client, kind);
    choose_keys(client, ask, kind == ASK_DEL ? HISTORY_REMOVE : kind == ASK_EXISTS ? HISTORY_EXISTS : HISTORY_READ);
    if (client->protocol == FRAMES)
        write_single(client, ask, NULL, kind == ASK_DEL ? FRAME_REMOVE : FRAME_GET, slice_make(NULL, 0));
    else
        write_several(client, ask, kind == ASK_DEL ? "DEL" : kind == ASK_EXISTS ? "EXISTS" : "MGET");
}

void ask_del(struct client *client, unsigned key)
{
    struct ask *ask = ask_add(client, ASK_DEL);
    ask_key(client, ask, key, HISTORY_REMOVE, 0);
    write_single(client, ask, "DEL", FRAME_REMOVE, slice_make(NULL, 0));
}

bool ask_fleeting_may(const struct client *client, unsigned key)
{
    return client->protocol != FRAMES && !client->relaxed && fleeting_idle(client->setting.fleeting, key);
}

void ask_fleeting(struct client *client, unsigned key, uint64_t chance)
{
    struct ask *ask = ask_add(client, ASK_FLEETING);
    ask->fleeting = key;
    client->forming.size += fleeting_begin(client->setting.fleeting, key, chance,
                                           client_reserve(&client->forming, FLEETING_REQUEST_BYTES_MAX));
}

void ask_counter(struct client *client, unsigned key, uint64_t chance)
{
    KVS_ASSERT(client->protocol != FRAMES && !client->relaxed);
    struct ask *ask = ask_add(client, ASK_COUNTER);
    ask->counter = (struct counter_ask){.key = key, .client = client->setting.number, .session = client->session};
    client->forming.size += counters_begin(client->setting.counters, &ask->counter, chance,
                                           client_reserve(&client->forming, COUNTERS_REQUEST_BYTES_MAX));
}

void ask_scan(struct client *client, bool all)
{
    KVS_ASSERT(client->protocol != FRAMES);
    struct ask *ask = ask_add(client, ASK_SCAN);
    struct slice args[SCAN_ARGS_MAX];
    unsigned base, keys = client_key_class(client, &base);
    ask->scan = scan_ask_begin(client->setting.oracle, base, keys, client->session, *client->setting.cursor,
                               all ? 0 : client_draw(client, UINT64_MAX));
    client->scans++;
    write_resp(client, args, scan_ask_arguments(ask->scan, args));
}

static void tell_flush(struct client *client, struct ask_flush *flush)
{
    flush->op = oracle_flush_begin(client->setting.oracle, client->session);
    flush->fleeting_moment = fleeting_flush_begin(client->setting.fleeting);
    counters_flush_begin(client->setting.counters, &flush->counters);
    client->setting.tally->flushes++;
}

static void tell_flush_done(struct client *client, const struct ask_flush *flush)
{
    oracle_flush_end(client->setting.oracle, flush->op);
    fleeting_flush_end(client->setting.fleeting, flush->fleeting_moment);
    counters_flush_end(client->setting.counters, &flush->counters);
    client->setting.tally->flushes_done++;
}

void ask_flush(struct client *client, enum ask_kind kind)
{
    static const char *const words[] = {"FLUSHALL", "FLUSHDB"}, *const modes[] = {NULL, "SYNC", "ASYNC"};
    KVS_ASSERT(client->protocol != FRAMES);
    struct ask *ask = ask_add(client, kind);
    const char *mode = modes[client_draw(client, ARRAY_COUNT(modes))];
    struct slice args[2] = {slice_text(words[client_draw(client, ARRAY_COUNT(words))])};
    if (mode != NULL)
        args[1] = slice_text(mode);
    client->flushed = false;
    if (kind == ASK_FLUSH)
        tell_flush(client, &ask->flush);
    write_resp(client, args, mode != NULL ? 2 : 1);
}

void ask_flush_tell(struct client *client)
{
    struct ask_flush flush;
    tell_flush(client, &flush);
    if (client->flushed)
        tell_flush_done(client, &flush);
    else
        oracle_flush_leave(client->setting.oracle, flush.op);
}

void ask_ping(struct client *client)
{
    struct ask *ask = ask_add(client, ASK_PING);
    struct slice word = slice_text("PING");
    if (client->protocol == FRAMES)
        write_frame(client, ask->id, FRAME_PING, slice_make(NULL, 0), word);
    else
        write_resp(client, &word, 1);
}

void ask_for_count(struct client *client)
{
    struct slice word = slice_text("DBSIZE");
    client->counted = -1;
    (void)ask_add(client, ASK_COUNT);
    write_resp(client, &word, 1);
}

void ask_set_up(struct client *client)
{
    struct ask *ask = ask_add(client, ASK_SETUP);
    if (client->protocol == FRAMES) {
        struct frame_hello hello = {.version_min = FRAME_VERSION, .version_max = FRAME_VERSION};
        write_frame(client, ask->id, FRAME_HELLO, slice_make(NULL, 0), slice_make(&hello, sizeof(hello)));
        return;
    }
    struct slice hello[2] = {slice_text("HELLO"), slice_text(client->protocol == RESP_2 ? "2" : "3")};
    write_resp(client, hello, 2);
    if (!client->relaxed)
        return;
    struct slice durability[2] = {slice_text("KVS.DURABILITY"), slice_text("relaxed")};
    (void)ask_add(client, ASK_SETUP);
    write_resp(client, durability, 2);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

/* What was refused for lack of room was not done: of one key that is certain. It is to be repeated. */
static void note_refusal(struct client *client, struct ask *ask, const struct answer *answer)
{
    bool write = ask->kind == ASK_SET || ask->kind == ASK_DEL || ask->kind == ASK_SWAP;
    if (answer->full) {
        client->setting.tally->full++;
        client->setting.tally->full_deletes += ask->kind == ASK_DEL;
    }
    if (write && ask->key_count == 1 && (answer->full || answer->busy))
        task_refused(&client->task,
                     ask->kind == ASK_SET   ? TASK_SET
                     : ask->kind == ASK_DEL ? TASK_DEL
                                            : TASK_SWAP,
                     ask->keys[0]);
    if (write && ask->key_count == 1 && answer->full)
        oracle_refuse(client->setting.oracle, ask->ops[0]);
    else if (ask->kind == ASK_COUNTER && answer->full)
        counters_refuse(client->setting.counters, &ask->counter);
    else
        ask_leave(client, ask);
}

/* Whether this error has a reason; the promises behind it are fail-stop, full disk, honest damage. */
static void judge_error(struct client *client, struct ask *ask, const struct answer *answer)
{
    const struct circumstances *why = client->setting.circumstances;
    bool swaps = ask->kind == ASK_SWAP || (ask->kind == ASK_COUNTER && ask->counter.number != 0);
    bool flushes = ask->kind == ASK_FLUSH || ask->kind == ASK_FLUSH_UNTOLD;
    bool writes = ask->kind == ASK_SET || ask->kind == ASK_DEL || swaps || flushes ||
                  (ask->kind == ASK_FLEETING && fleeting_writes(client->setting.fleeting, ask->fleeting));
    bool right = false;
    if (answer->damaged)
        right = why->damage_may_show || why->reads_may_fail;
    else if (answer->failed)
        right = why->writes_may_fail || ((!writes || swaps) && (why->reads_may_fail || why->damage_may_show));
    else if (answer->full)
        right = why->space_may_lack || why->log_limited || why->writes_may_fail;
    else if (answer->busy)
        right = true;
    else
        right = why->reads_may_fail || why->damage_may_show || why->writes_may_fail;
    if (answer->full && flushes)
        broken("P7 full disk: client %u: a flush was refused for lack of space: %.*s", client->setting.number,
               (int)answer->text.size, (const char *)answer->text.data);
    if (answer->full && !writes)
        broken("P7 full disk: client %u: a read was refused for lack of space: %.*s", client->setting.number,
               (int)answer->text.size, (const char *)answer->text.data);
    if (!right)
        broken("an error without a reason: client %u (%s): %.*s", client->setting.number,
               client_protocol_name(client->protocol), (int)answer->text.size, (const char *)answer->text.data);
    story("client %u: error %.*s", client->setting.number, (int)(answer->text.size < 120 ? answer->text.size : 120),
          (const char *)answer->text.data);
    client->setting.tally->refused++;
    note_refusal(client, ask, answer);
}

static _Noreturn void wrong_answer(const struct client *client, const struct ask *ask, const struct answer *answer)
{
    broken("client %u (%s): answer of the wrong kind (%d) to an ask of kind %d: %.*s", client->setting.number,
           client_protocol_name(client->protocol), (int)answer->kind, (int)ask->kind,
           (int)(answer->text.size < 200 ? answer->text.size : 200), (const char *)answer->text.data);
}

static void answer_read(struct client *client, unsigned key, uint32_t op, const struct answer *answer,
                        const struct ask *ask)
{
    struct oracle *oracle = client->setting.oracle;
    if (answer->kind == ANSWER_MISSING)
        oracle_end(oracle, op, 0, -1);
    else if (answer->kind == ANSWER_VALUE)
        oracle_end(oracle, op, oracle_recognize(oracle, key, answer->text), -1);
    else
        wrong_answer(client, ask, answer);
}

static void answer_swap(struct client *client, const struct ask *ask, const struct answer *answer)
{
    struct oracle *oracle = client->setting.oracle;
    const struct swap *swap = ask->swap;
    int found;
    if (!swap_answer(swap, answer, &found))
        wrong_answer(client, ask, answer);
    unsigned seen = 0;
    if (swap->answer == SWAP_TELLS_OLD && found == 1)
        seen = oracle_recognize(oracle, ask->keys[0], answer->text);
    if (swap->kind == HISTORY_EXISTS && found < 0)
        oracle_leave(oracle, ask->ops[0]);
    else
        oracle_end(oracle, ask->ops[0], seen, found);
}

/* A count over several keys tells about each only when it is all or nothing. */
static void answer_count(struct client *client, struct ask *ask, const struct answer *answer)
{
    if (answer->kind != ANSWER_NUMBER || answer->number < 0 || answer->number > ask->key_count)
        wrong_answer(client, ask, answer);
    int found = answer->number == 0 ? 0 : answer->number == ask->key_count ? 1 : -1;
    for (unsigned i = 0; i < ask->key_count; i++) {
        if (found < 0 && ask->kind == ASK_EXISTS)
            oracle_leave(client->setting.oracle, ask->ops[i]);
        else
            oracle_end(client->setting.oracle, ask->ops[i], 0, found);
    }
}

static void answer_array(struct client *client, struct ask *ask, const struct answer *answer)
{
    const uint8_t *data = answer->text.data;
    size_t size = answer->text.size;
    char header[32];
    size_t header_bytes = (size_t)snprintf(header, sizeof(header), "*%u\r\n", ask->key_count);
    if (answer->kind != ANSWER_OTHER || size < header_bytes || memcmp(data, header, header_bytes) != 0)
        wrong_answer(client, ask, answer);
    for (unsigned i = 0; i < ask->key_count; i++) {
        struct resp_reply reply;
        data += i == 0 ? header_bytes : 0;
        size -= i == 0 ? header_bytes : 0;
        if (resp_reply_parse(data, size, &reply) != RESP_REQUEST)
            wrong_answer(client, ask, answer);
        struct answer element = {.kind = reply.type == RESP_REPLY_NULL   ? ANSWER_MISSING
                                         : reply.type == RESP_REPLY_BULK ? ANSWER_VALUE
                                                                         : ANSWER_OTHER,
                                 .text = reply.text};
        answer_read(client, ask->keys[i], ask->ops[i], &element, ask);
        data += reply.size;
        size -= reply.size;
    }
}

static void answer_fleeting(struct client *client, const struct ask *ask, const struct answer *answer)
{
    if (answer->kind > ANSWER_NUMBER)
        wrong_answer(client, ask, answer);
    fleeting_end(client->setting.fleeting, ask->fleeting, (enum fleeting_answer)answer->kind, answer->text,
                 answer->number);
}

static void answer_counter(struct client *client, const struct ask *ask, const struct answer *answer)
{
    bool adds = ask->counter.number != 0;
    if (adds && answer->kind == ANSWER_NUMBER)
        counters_added(client->setting.counters, &ask->counter, answer->number);
    else if (!adds && (answer->kind == ANSWER_VALUE || answer->kind == ANSWER_MISSING))
        counters_seen(client->setting.counters, &ask->counter, answer->kind == ANSWER_VALUE, answer->text);
    else
        wrong_answer(client, ask, answer);
}

static void answer_scan(struct client *client, struct ask *ask, const struct answer *answer)
{
    if (!scan_ask_end(client->setting.oracle, ask->scan, answer, client->setting.hash_seed, client->setting.cursor))
        wrong_answer(client, ask, answer);
    client->setting.tally->scans++;
}

static void answer_ask(struct client *client, struct ask *ask, const struct answer *answer)
{
    client->setting.tally->acknowledged += answer->kind != ANSWER_ERROR;
    if (answer->kind == ANSWER_ERROR) {
        if (ask->kind == ASK_PING || ask->kind == ASK_SETUP)
            wrong_answer(client, ask, answer);
        judge_error(client, ask, answer);
        return;
    }
    switch (ask->kind) {
    case ASK_SET:
        if (answer->kind != ANSWER_OK)
            wrong_answer(client, ask, answer);
        oracle_end(client->setting.oracle, ask->ops[0], 0, -1);
        break;
    case ASK_GET:
        answer_read(client, ask->keys[0], ask->ops[0], answer, ask);
        break;
    case ASK_DEL:
    case ASK_EXISTS:
        answer_count(client, ask, answer);
        break;
    case ASK_MGET:
        if (client->protocol == FRAMES)
            answer_read(client, ask->keys[0], ask->ops[0], answer, ask);
        else
            answer_array(client, ask, answer);
        break;
    case ASK_COUNT:
        if (answer->kind != ANSWER_NUMBER)
            wrong_answer(client, ask, answer);
        client->counted = answer->number;
        break;
    case ASK_SWAP:
        client->setting.tally->swaps++;
        answer_swap(client, ask, answer);
        break;
    case ASK_COUNTER:
        client->setting.tally->swaps += ask->counter.number != 0;
        answer_counter(client, ask, answer);
        break;
    case ASK_SCAN:
        answer_scan(client, ask, answer);
        break;
    case ASK_FLEETING:
        answer_fleeting(client, ask, answer);
        break;
    case ASK_FLUSH:
    case ASK_FLUSH_UNTOLD:
        if (answer->kind != ANSWER_OK)
            wrong_answer(client, ask, answer);
        client->flushed = true;
        if (ask->kind == ASK_FLUSH)
            tell_flush_done(client, &ask->flush);
        break;
    case ASK_PING:
    case ASK_SETUP:
        break;
    }
}

static struct ask *ask_with_id(struct client *client, uint64_t id)
{
    for (struct list *node = client->asks.next; node != &client->asks; node = node->next) {
        struct ask *ask = container_of(node, struct ask, link);
        if (ask->id == id)
            return ask;
    }
    return NULL;
}

/* Takes the next answer off what was received, and what it answers; false: it is not whole yet. */
static bool next_answer(struct client *client, struct answer *answer, struct ask **ask)
{
    const uint8_t *data = client->in.data + client->in_read;
    size_t size = client->in.size - client->in_read;
    bool frames = client->protocol == FRAMES;
    size_t taken = frames ? answer_take_frame(data, size, client->setting.number, answer)
                          : answer_take_resp(data, size, client->setting.number, answer);
    client->in_read += taken;
    struct ask *first = list_empty(&client->asks) ? NULL : container_of(client->asks.next, struct ask, link);
    *ask = taken > 0 && frames ? ask_with_id(client, answer->id) : first;
    return taken > 0;
}

void ask_take_replies(struct client *client)
{
    for (;;) {
        struct answer answer;
        struct ask *ask = NULL;
        if (!next_answer(client, &answer, &ask))
            break;
        if (ask == NULL && answer.kind == ANSWER_ERROR && answer_has_prefix(answer.text, "ERR max number"))
            break;
        if (ask == NULL)
            broken("client %u: an answer to nothing: %.*s", client->setting.number, (int)answer.text.size,
                   (const char *)answer.text.data);
        answer_ask(client, ask, &answer);
        ask_free(client, ask);
    }
    memmove(client->in.data, client->in.data + client->in_read, client->in.size - client->in_read);
    client->in.size -= client->in_read;
    client->in_read = 0;
}

void ask_leave_all(struct client *client)
{
    while (!list_empty(&client->asks)) {
        struct ask *ask = container_of(client->asks.next, struct ask, link);
        client->setting.tally->unanswered++;
        ask_leave(client, ask);
        ask_free(client, ask);
    }
}
