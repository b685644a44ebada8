/*
 * sim_client.c - a client on the simulated network.
 *
 * Happy path: operations are encoded into `forming`; when nothing is being sent, that becomes `sending`. Replies are
 * taken off `in` one by one and matched with the asks: RESP in order, frames by their id.
 *
 * Failure modes: an answer of the wrong type, an error without a reason and an end of the connection without a reason
 * break the run. Errors with a reason leave a write open and forget a read.
 */
#include "sim_client.h"

#include "draw.h"
#include "sim_answer.h"
#include "sim_core.h"
#include "sim_task.h"
#include "verdict.h"

#include "base/assert.h"
#include "base/limits.h"
#include "proto/frame.h"
#include "proto/resp.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASKS_MAX     4096u /* unanswered at a time */
#define ASK_KEYS_MAX 8u
#define VALUE_ROOM   (2048u * 1024)
#define PIPELINE_MAX 100u /* of a task */
/* Of a pipeline. With few keys less: what a hundred writes under way on one key allow takes too long to decide. */
#define DEPTH_MAX     600u
#define DEPTH_PER_KEY 3u

enum protocol { RESP_2, RESP_3, FRAMES };

enum ask_kind { ASK_SET, ASK_GET, ASK_DEL, ASK_EXISTS, ASK_MGET, ASK_COUNT, ASK_PING, ASK_SETUP, ASK_FLEETING };

struct ask {
    struct list link;
    enum ask_kind kind;
    uint64_t id;
    unsigned key_count;
    unsigned keys[ASK_KEYS_MAX];
    uint32_t ops[ASK_KEYS_MAX];
    unsigned fleeting; /* the key, with ASK_FLEETING */
};

struct buffer {
    uint8_t *data;
    size_t size, room;
};

enum link_state { LINK_NONE, LINK_CONNECTING, LINK_OPEN, LINK_ENDING };

struct client {
    struct client_setting setting;
    enum link_state state;
    int fd;
    enum protocol protocol;
    bool relaxed;
    bool close_when_answered;
    bool asked_to_close; /* the end of the connection is our own wish */
    uint32_t session;
    uint64_t last_id;
    struct ring_op connect_op, send_op, recv_op;
    struct iovec iov;
    struct buffer forming, sending, in;
    size_t in_read;
    struct list asks; /* unanswered, oldest first */
    unsigned ask_count;
    uint64_t random;
    struct task task;
    struct ring_op pause;
    int64_t counted;
};

static uint32_t sessions; /* of the process; never used twice */

static void pump(struct client *client);
static void take_replies(struct client *client);

/* ---- small things ---------------------------------------------------------------------------------------------- */

static uint64_t draw(struct client *client, uint64_t below)
{
    return draw_next(&client->random) % below;
}

static uint8_t *reserve(struct buffer *buffer, size_t size)
{
    if (buffer->room - buffer->size < size) {
        buffer->room = 2 * (buffer->size + size);
        buffer->data = realloc(buffer->data, buffer->room);
        KVS_ASSERT(buffer->data != NULL);
    }
    return buffer->data + buffer->size;
}

static const char *protocol_name(enum protocol protocol)
{
    return protocol == FRAMES ? "frames" : protocol == RESP_2 ? "RESP2" : "RESP3";
}

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
    free(ask);
}

static void ask_leave(struct client *client, struct ask *ask)
{
    if (ask->kind == ASK_FLEETING)
        fleeting_leave(client->setting.fleeting, ask->fleeting);
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
    client->forming.size += resp_write_request(reserve(&client->forming, size), args, count);
}

static void write_frame(struct client *client, uint64_t id, uint8_t opcode, struct slice key, struct slice value)
{
    struct frame_header header = {
        .opcode = opcode, .flags = client->relaxed && opcode != FRAME_HELLO ? FRAME_RELAXED : 0, .id = id};
    uint8_t *room = reserve(&client->forming, frame_bytes(key.size, value.size));
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

/* The keys of the connection's class: relaxed connections touch relaxed keys only. */
static unsigned keys_of_class(const struct client *client, unsigned *base)
{
    const struct oracle *oracle = client->setting.oracle;
    unsigned relaxed = 0;
    while (oracle_is_relaxed(oracle, relaxed))
        relaxed++;
    *base = client->relaxed ? 0 : relaxed;
    return client->relaxed ? relaxed : oracle_keys(oracle) - relaxed;
}

/* A key of the connection's class. Some keys are hot. */
static unsigned choose_key(struct client *client)
{
    unsigned base, count = keys_of_class(client, &base);
    unsigned hot = count / 20 + 1;
    return base + (unsigned)draw(client, draw(client, 8) == 0 ? hot : count);
}

static void choose_keys(struct client *client, struct ask *ask, enum history_kind kind)
{
    unsigned wanted = client->protocol == FRAMES || draw(client, 3) > 0 ? 1 : 2 + (unsigned)draw(client, 5);
    for (unsigned i = 0; i < wanted; i++) {
        unsigned key = choose_key(client);
        bool twice = false;
        for (unsigned j = 0; j < ask->key_count; j++)
            twice = twice || ask->keys[j] == key;
        if (!twice)
            ask_key(client, ask, key, kind, 0);
    }
}

static void begin_set(struct client *client, unsigned key)
{
    static uint8_t value[VALUE_ROOM];
    struct oracle *oracle = client->setting.oracle;
    struct ask *ask = ask_add(client, ASK_SET);
    unsigned version = oracle_version(oracle, key);
    size_t size = oracle_value_bytes(oracle, key, version);
    KVS_ASSERT(size <= sizeof(value));
    oracle_value(oracle, key, version, value);
    ask_key(client, ask, key, HISTORY_WRITE, version);
    write_single(client, ask, "SET", FRAME_SET, slice_make(value, size));
}

static void begin_get(struct client *client, unsigned key)
{
    struct ask *ask = ask_add(client, ASK_GET);
    ask_key(client, ask, key, HISTORY_READ, 0);
    write_single(client, ask, "GET", FRAME_GET, slice_make(NULL, 0));
}

static void begin_several(struct client *client, enum ask_kind kind)
{
    struct ask *ask = ask_add(client, kind);
    choose_keys(client, ask, kind == ASK_DEL ? HISTORY_REMOVE : kind == ASK_EXISTS ? HISTORY_EXISTS : HISTORY_READ);
    if (client->protocol == FRAMES)
        write_single(client, ask, NULL, kind == ASK_DEL ? FRAME_REMOVE : FRAME_GET, slice_make(NULL, 0));
    else
        write_several(client, ask, kind == ASK_DEL ? "DEL" : kind == ASK_EXISTS ? "EXISTS" : "MGET");
}

static void begin_del(struct client *client, unsigned key)
{
    struct ask *ask = ask_add(client, ASK_DEL);
    ask_key(client, ask, key, HISTORY_REMOVE, 0);
    write_single(client, ask, "DEL", FRAME_REMOVE, slice_make(NULL, 0));
}

static bool may_ask_fleeting(const struct client *client, unsigned key)
{
    return client->protocol != FRAMES && !client->relaxed && fleeting_idle(client->setting.fleeting, key);
}

static void begin_fleeting(struct client *client, unsigned key, uint64_t chance)
{
    struct ask *ask = ask_add(client, ASK_FLEETING);
    ask->fleeting = key;
    client->forming.size +=
        fleeting_begin(client->setting.fleeting, key, chance, reserve(&client->forming, FLEETING_REQUEST_BYTES_MAX));
}

static void begin_ping(struct client *client)
{
    struct ask *ask = ask_add(client, ASK_PING);
    struct slice word = slice_text("PING");
    if (client->protocol == FRAMES)
        write_frame(client, ask->id, FRAME_PING, slice_make(NULL, 0), word);
    else
        write_resp(client, &word, 1);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

/* What was refused for lack of room was not done: of one key that is certain. It is to be repeated. */
static void note_refusal(struct client *client, struct ask *ask, const struct answer *answer)
{
    bool write = ask->kind == ASK_SET || ask->kind == ASK_DEL;
    if (answer->full) {
        client->setting.tally->full++;
        client->setting.tally->full_deletes += ask->kind == ASK_DEL;
    }
    if (write && ask->key_count == 1 && (answer->full || answer->busy))
        task_refused(&client->task, ask->kind == ASK_SET ? TASK_SET : TASK_DEL, ask->keys[0]);
    if (write && ask->key_count == 1 && answer->full)
        oracle_refuse(client->setting.oracle, ask->ops[0]);
    else
        ask_leave(client, ask);
}

/* Whether this error has a reason; the promises behind it are fail-stop, full disk, honest damage. */
static void judge_error(struct client *client, struct ask *ask, const struct answer *answer)
{
    const struct circumstances *why = client->setting.circumstances;
    bool writes = ask->kind == ASK_SET || ask->kind == ASK_DEL ||
                  (ask->kind == ASK_FLEETING && fleeting_writes(client->setting.fleeting, ask->fleeting));
    bool right = false;
    if (answer->damaged)
        right = why->damage_may_show || why->reads_may_fail;
    else if (answer->failed)
        right = why->writes_may_fail || (!writes && (why->reads_may_fail || why->damage_may_show));
    else if (answer->full)
        right = why->space_may_lack || why->log_limited || why->writes_may_fail;
    else if (answer->busy)
        right = true;
    else
        right = why->reads_may_fail || why->damage_may_show || why->writes_may_fail;
    if (answer->full && !writes)
        broken("P7 full disk: client %u: a read was refused for lack of space: %.*s", client->setting.number,
               (int)answer->text.size, (const char *)answer->text.data);
    if (!right)
        broken("an error without a reason: client %u (%s): %.*s", client->setting.number,
               protocol_name(client->protocol), (int)answer->text.size, (const char *)answer->text.data);
    story("client %u: error %.*s", client->setting.number, (int)(answer->text.size < 120 ? answer->text.size : 120),
          (const char *)answer->text.data);
    client->setting.tally->refused++;
    note_refusal(client, ask, answer);
}

static _Noreturn void wrong_answer(const struct client *client, const struct ask *ask, const struct answer *answer)
{
    broken("client %u (%s): answer of the wrong kind (%d) to an ask of kind %d: %.*s", client->setting.number,
           protocol_name(client->protocol), (int)answer->kind, (int)ask->kind,
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
    case ASK_FLEETING:
        answer_fleeting(client, ask, answer);
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

static void take_replies(struct client *client)
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

/* ---- the connection -------------------------------------------------------------------------------------------- */

static void leave_all(struct client *client)
{
    while (!list_empty(&client->asks)) {
        struct ask *ask = container_of(client->asks.next, struct ask, link);
        client->setting.tally->unanswered++;
        ask_leave(client, ask);
        ask_free(client, ask);
    }
    client->forming.size = client->sending.size = client->in.size = client->in_read = 0;
    task_end(&client->task);
}

static bool link_quiet(const struct client *client)
{
    return !ring_op_active(&client->recv_op) && !ring_op_active(&client->send_op) &&
           !ring_op_active(&client->connect_op);
}

/* Both directions are over: the descriptor goes as soon as nothing is in flight on it. */
static void link_end(struct client *client)
{
    const struct circumstances *why = client->setting.circumstances;
    if (client->state == LINK_OPEN) {
        bool reason = client->asked_to_close || why->network_may_break || why->leaving;
        if (!reason)
            broken("client %u (%s): its connection ended without a reason, %u operations unanswered",
                   client->setting.number, protocol_name(client->protocol), client->ask_count);
        story("client %u: connection over, %u unanswered", client->setting.number, client->ask_count);
        ring_shutdown(client->setting.ring, client->fd);
    }
    client->state = LINK_ENDING;
    if (!link_quiet(client))
        return;
    leave_all(client);
    if (client->fd >= 0)
        ring_close_fd(client->setting.ring, client->fd);
    client->fd = -1;
    client->state = LINK_NONE;
    client->close_when_answered = false;
}

/* The task's next pipeline, if the one before has been answered; or a pause before what was refused is repeated. */
static void go_on_with_task(struct client *client)
{
    struct task_step steps[PIPELINE_MAX];
    if (client->ask_count > 0 || client->state != LINK_OPEN || ring_op_active(&client->pause))
        return;
    unsigned depth = DEPTH_PER_KEY * oracle_keys(client->setting.oracle);
    unsigned count = task_pipeline(&client->task, steps, depth < PIPELINE_MAX ? depth : PIPELINE_MAX);
    for (unsigned i = 0; i < count; i++) {
        if (steps[i].action == TASK_SET)
            begin_set(client, steps[i].key);
        else if (steps[i].action == TASK_DEL)
            begin_del(client, steps[i].key);
        else
            begin_get(client, steps[i].key);
    }
    uint64_t pause_ns = count > 0 ? 0 : task_pause_ns(&client->task);
    if (pause_ns > 0)
        ring_timer(client->setting.ring, &client->pause, pause_ns);
}

static void on_paused(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, pause);
    task_repeat(&client->task);
    go_on_with_task(client);
    pump(client);
}

static void on_received(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, recv_op);
    if ((op->flags & RING_BUFFER) != 0) {
        memcpy(reserve(&client->in, op->bytes), ring_buffer_data(client->setting.ring, op->buffer_id), op->bytes);
        client->in.size += op->bytes;
        ring_buffer_release(client->setting.ring, op->buffer_id);
        if (client->state == LINK_OPEN) {
            take_replies(client);
            go_on_with_task(client);
        }
    }
    if ((op->flags & RING_MORE) != 0) {
        pump(client);
        return;
    }
    if (client->state == LINK_OPEN && (op->error == KVS_ERR_NO_BUFFERS || (op->error == KVS_ERR_OK && op->bytes > 0)))
        ring_recv(client->setting.ring, op, client->fd);
    else
        link_end(client);
    pump(client);
}

static void on_sent(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, send_op);
    client->sending.size = 0;
    if (op->error != KVS_ERR_OK || client->state == LINK_ENDING)
        link_end(client);
    pump(client);
}

static void on_connected(struct ring_op *op)
{
    struct client *client = container_of(op, struct client, connect_op);
    const struct circumstances *why = client->setting.circumstances;
    if (op->error == KVS_ERR_OK && client->state == LINK_CONNECTING) {
        client->fd = op->fd;
        client->state = LINK_OPEN;
        ring_recv(client->setting.ring, &client->recv_op, client->fd);
        pump(client);
        return;
    }
    if (op->error == KVS_ERR_OK)
        client->fd = op->fd;
    else if (!why->network_may_break && !why->leaving && !client->asked_to_close)
        broken("client %u: cannot connect: %s", client->setting.number, ring_op_text(op));
    client->state = LINK_ENDING;
    link_end(client);
}

static void pump(struct client *client)
{
    if (client->state != LINK_OPEN)
        return;
    if (client->close_when_answered && client->ask_count == 0 && !task_busy(&client->task)) {
        client->asked_to_close = true;
        link_end(client);
        return;
    }
    if (client->sending.size > 0 || client->forming.size == 0)
        return;
    struct buffer formed = client->forming;
    client->forming = client->sending;
    client->sending = formed;
    client->iov = (struct iovec){client->sending.data, client->sending.size};
    ring_send(client->setting.ring, &client->send_op, client->fd, &client->iov, 1);
}

static void set_up(struct client *client)
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

static void link_begin(struct client *client)
{
    client->protocol = (enum protocol)draw(client, 3);
    client->relaxed = oracle_is_relaxed(client->setting.oracle, 0) && draw(client, 4) == 0;
    client->session = ++sessions;
    client->asked_to_close = client->close_when_answered = false;
    client->state = LINK_CONNECTING;
    story("client %u: connects, %s%s", client->setting.number, protocol_name(client->protocol),
          client->relaxed ? ", relaxed" : "");
    set_up(client);
    ring_connect(client->setting.ring, &client->connect_op, &client->setting.addr);
}

/* ---- the contract ---------------------------------------------------------------------------------------------- */

struct client *client_create(const struct client_setting *setting)
{
    struct client *client = calloc(1, sizeof(*client));
    KVS_ASSERT(client != NULL);
    client->setting = *setting;
    client->fd = -1;
    client->counted = -1;
    list_init(&client->asks);
    ring_op_init(&client->connect_op, on_connected);
    ring_op_init(&client->send_op, on_sent);
    ring_op_init(&client->recv_op, on_received);
    ring_op_init(&client->pause, on_paused);
    return client;
}

/* Of everything, all at once. */
static void work_mixed(struct client *client, unsigned count)
{
    uint64_t writes = 10 + draw(client, 80), removes = draw(client, 20);
    unsigned depth = DEPTH_PER_KEY * oracle_keys(client->setting.oracle);
    if (depth > DEPTH_MAX)
        depth = DEPTH_MAX;
    for (unsigned i = 0; i < count && client->ask_count < depth; i++) {
        uint64_t chance = draw(client, 100);
        unsigned fleeting = (unsigned)draw(client, 6 * fleeting_keys(client->setting.fleeting));
        if (fleeting < fleeting_keys(client->setting.fleeting) && may_ask_fleeting(client, fleeting))
            begin_fleeting(client, fleeting, draw(client, UINT64_MAX));
        else if (chance < writes)
            begin_set(client, choose_key(client));
        else if (chance < writes + removes)
            begin_several(client, ASK_DEL);
        else if (chance % 4 == 0)
            begin_several(client, ASK_MGET);
        else if (chance % 16 == 1 && client->protocol != FRAMES)
            begin_several(client, ASK_EXISTS);
        else if (chance % 32 == 2)
            begin_ping(client);
        else
            begin_get(client, choose_key(client));
    }
}

void client_work(struct client *client, enum work_style style, unsigned count, uint64_t seed)
{
    client->random = seed;
    if (client->state == LINK_ENDING || client->close_when_answered)
        return;
    if (client->state == LINK_NONE)
        link_begin(client);
    unsigned base, keys = keys_of_class(client, &base);
    task_begin(&client->task, style, style == WORK_MIXED ? 0 : count, base, keys, draw(client, UINT64_MAX));
    if (style == WORK_MIXED)
        work_mixed(client, count);
    go_on_with_task(client);
    pump(client);
}

void client_press(struct client *client, enum work_style style, unsigned count, unsigned depth, uint64_t seed)
{
    KVS_ASSERT(client_idle(client) && client->state == LINK_NONE);
    client->random = seed;
    link_begin(client);
    if (client->relaxed) { /* nothing has left yet */
        client->relaxed = false;
        leave_all(client);
        set_up(client);
    }
    unsigned base, keys = keys_of_class(client, &base);
    task_begin(&client->task, style, count, base, keys, seed);
    client->task.depth = depth > 0 ? depth : 1;
    client->task.patience = 0;
    client->task.ends_when_refused = style == WORK_FILL;
}

void client_read_all(struct client *client)
{
    KVS_ASSERT(client_idle(client));
    if (client->state == LINK_OPEN && (client->relaxed || client->protocol == FRAMES)) {
        client->asked_to_close = true;
        link_end(client);
    }
    KVS_ASSERT(client->state != LINK_CONNECTING);
    client->random = 1;
    while (client->state == LINK_ENDING && sim_step()) {
    }
    if (client->state == LINK_NONE) {
        link_begin(client);
        if (client->relaxed || client->protocol == FRAMES) { /* nothing has left yet: begin once more, plainly */
            client->protocol = RESP_3;
            client->relaxed = false;
            leave_all(client);
            set_up(client);
        }
    }
    for (unsigned key = 0; key < oracle_keys(client->setting.oracle); key++)
        begin_get(client, key);
    for (unsigned key = 0; key < fleeting_keys(client->setting.fleeting); key++) {
        if (may_ask_fleeting(client, key))
            begin_fleeting(client, key, 0);
    }
    struct slice word = slice_text("DBSIZE");
    client->counted = -1;
    (void)ask_add(client, ASK_COUNT);
    write_resp(client, &word, 1);
    pump(client);
}

int64_t client_counted(const struct client *client)
{
    return client->counted;
}

void client_close(struct client *client, bool at_once)
{
    if (client->state == LINK_NONE || client->state == LINK_ENDING)
        return;
    if (!at_once) {
        client->close_when_answered = true;
        pump(client);
        return;
    }
    client->asked_to_close = true;
    if (client->state == LINK_OPEN)
        link_end(client);
    else
        client->state = LINK_ENDING; /* on_connected closes it */
}

bool client_idle(const struct client *client)
{
    return client->ask_count == 0 && !task_busy(&client->task) && client->state != LINK_ENDING &&
           !ring_op_active(&client->send_op) && !client->close_when_answered && client->state != LINK_CONNECTING;
}

void client_describe(const struct client *client)
{
    static const char *const names[] = {"none", "connecting", "open", "ending"};
    fprintf(stderr, "client %u: connection %s, %s%s, session %u, %u unanswered, %zu bytes to send, %zu received\n",
            client->setting.number, names[client->state], protocol_name(client->protocol),
            client->relaxed ? " relaxed" : "", client->session, client->ask_count,
            client->forming.size + client->sending.size, client->in.size);
    if (client->ask_count > 0) {
        const struct ask *ask = container_of(client->asks.next, struct ask, link);
        fprintf(stderr, "client %u: oldest ask kind %d, id %" PRIu64 ", key %u\n", client->setting.number,
                (int)ask->kind, ask->id, ask->key_count > 0 ? ask->keys[0] : 0);
    }
}

void client_free(struct client *client)
{
    leave_all(client);
    free(client->forming.data);
    free(client->sending.data);
    free(client->in.data);
    free(client);
}
