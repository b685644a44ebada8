/*
 * witness_client.c - one connection after another: asks, waits, writes down.
 *
 * Happy path: connect, greet, keep a changing number of random operations under way until the time is over, take the
 * last replies, close. The beginning of an operation is noted before its bytes are handed to the kernel, its end after
 * the reply has been taken, so that it took effect in between whatever the delays.
 *
 * Failure modes: a connection that breaks, or says what cannot be understood, is noted as closed, with its operations
 * unanswered; the next one is a new session. While nobody listens, it tries again every few milliseconds. Replies that
 * are still due some seconds after the end are given up.
 */
#include "witness.h"

#include "base/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS       UINT64_C(1000000)
#define DRAIN_NS        (5000 * NS_PER_MS)
#define RETRY_NS        (3 * (long)NS_PER_MS)
#define JOURNAL_BYTES   ((size_t)64 * 1024)
#define INPUT_BYTES     ((size_t)256 * 1024)
#define OUTPUT_BYTES    ((size_t)128 * 1024)
#define GREETING_ANSWER UINT32_MAX /* key of the greeting's place */

struct question {
    uint64_t number;
    uint32_t key;
    enum witness_kind kind;
};

/* A connection and all it has under way. RESP answers in order; a binary answer names its place by the id. */
struct session {
    struct witness_client *client;
    enum witness_protocol protocol;
    uint32_t number;
    int socket;
    struct question questions[WITNESS_PIPELINE_MAX + 1];
    bool taken[WITNESS_PIPELINE_MAX + 1];
    uint32_t order[WITNESS_PIPELINE_MAX + 1]; /* RESP: places, oldest first from `head` */
    uint32_t head, count;
    uint32_t depth; /* how many are to be under way for now */
    size_t output_size, input_size;
    uint8_t output[OUTPUT_BYTES];
    uint8_t input[INPUT_BYTES];
    size_t journal_size;
    char journal[JOURNAL_BYTES];
    uint64_t chance;
};

uint64_t witness_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t below(struct session *session, uint64_t limit)
{
    session->chance ^= session->chance << 13;
    session->chance ^= session->chance >> 7;
    session->chance ^= session->chance << 17;
    return (session->chance * 0x2545f4914f6cdd1du >> 20) % limit;
}

/* ---- the record -------------------------------------------------------------------------------------------------- */

static void journal_flush(struct session *session)
{
    for (size_t at = 0; at < session->journal_size;) {
        ssize_t written = write(session->client->options->record, session->journal + at, session->journal_size - at);
        KVS_ASSERT(written > 0 || errno == EINTR); /* a record with holes is worth nothing */
        at += written > 0 ? (size_t)written : 0;
    }
    session->journal_size = 0;
}

/* One line. Whole lines are appended at once: the file is shared by all connections. */
__attribute__((format(printf, 2, 3))) static void note(struct session *session, const char *format, ...)
{
    if (session->journal_size + 512 > JOURNAL_BYTES)
        journal_flush(session);
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(session->journal + session->journal_size, 512, format, arguments);
    va_end(arguments);
    KVS_ASSERT(size > 0 && size < 512);
    session->journal_size += (size_t)size;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static uint32_t take_place(struct session *session, struct question question)
{
    uint32_t place = 0;
    while (session->taken[place])
        place++;
    KVS_ASSERT(place <= WITNESS_PIPELINE_MAX);
    session->taken[place] = true;
    session->questions[place] = question;
    session->order[(session->head + session->count) % ARRAY_COUNT(session->order)] = place;
    session->count++;
    return place;
}

static void greet(struct session *session)
{
    uint32_t place = take_place(session, (struct question){.key = GREETING_ANSWER});
    KVS_ASSERT(place == 0); /* the hello's id */
    session->output_size = wire_greeting(session->protocol, session->client->options->relaxed, session->output);
}

static enum witness_kind some_kind(struct session *session)
{
    uint64_t chance = below(session, 100);
    if (chance < 35)
        return WITNESS_WRITE;
    if (chance < 50)
        return WITNESS_DELETE;
    return chance < 60 && session->protocol == WITNESS_RESP ? WITNESS_EXISTS : WITNESS_READ;
}

static void ask(struct session *session, enum witness_kind kind, uint32_t key)
{
    struct witness_client *client = session->client;
    uint64_t count = ++client->asked;
    uint64_t number = (client->options->run << 48) | ((uint64_t)client->number << 40) | count;
    uint32_t place = take_place(session, (struct question){.number = number, .key = key, .kind = kind});
    note(session, "ask %" PRIu64 " %" PRIu32 " %" PRIu32 " %c %" PRIu64 " %" PRIu64 "\n", number, session->number, key,
         (char)kind, kind == WITNESS_WRITE ? number : 0, witness_now());
    session->output_size += wire_request(session->protocol, kind, client->options->relaxed, place, key, number,
                                         session->output + session->output_size);
}

/* Pipelines come in bursts of changing depth, with pauses in between. */
static void ask_some(struct session *session)
{
    const struct witness_options *options = session->client->options;
    if (session->count == 0) {
        session->depth = 1 + (uint32_t)below(session, options->pipeline);
        if (below(session, 4) == 0)
            nanosleep(&(struct timespec){.tv_nsec = (long)below(session, 2 * NS_PER_MS)}, NULL);
    } else if (session->count >= session->depth || below(session, 3) == 0) {
        return;
    }
    while (session->count < session->depth && session->output_size + WIRE_REQUEST_MAX <= OUTPUT_BYTES)
        ask(session, some_kind(session), (uint32_t)below(session, options->keys));
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static void note_answer(struct session *session, const struct question *question, const struct wire_reply *reply)
{
    struct witness_client *client = session->client;
    static const char *const words[] = {
        [WIRE_OK] = "ok", [WIRE_THERE] = "there", [WIRE_ABSENT] = "absent", [WIRE_LOADING] = "loading"};
    uint64_t now = witness_now(), value;
    switch (reply->answer) {
    case WIRE_VALUE:
        if (witness_value_read(question->key, reply->bytes, &value, client->text)) {
            note(session, "answer %" PRIu64 " %" PRIu64 " value %" PRIu64 "\n", question->number, now, value);
        } else {
            note(session, "answer %" PRIu64 " %" PRIu64 " wrong %s\n", question->number, now, client->text);
            client->wrong++;
        }
        break;
    case WIRE_ERROR:
        note(session, "answer %" PRIu64 " %" PRIu64 " error %.*s\n", question->number, now,
             (int)(reply->bytes.size < 200 ? reply->bytes.size : 200), (const char *)reply->bytes.data);
        client->refused++;
        break;
    default:
        note(session, "answer %" PRIu64 " %" PRIu64 " %s\n", question->number, now, words[reply->answer]);
    }
    client->answered++;
}

/* Whether this can be the answer to that question. */
static bool fits(const struct question *question, enum wire_answer answer)
{
    if (answer == WIRE_ERROR || answer == WIRE_LOADING)
        return question->key != GREETING_ANSWER;
    if (question->key == GREETING_ANSWER || question->kind == WITNESS_WRITE)
        return answer == WIRE_OK;
    if (question->kind == WITNESS_READ)
        return answer == WIRE_VALUE || answer == WIRE_ABSENT;
    return answer == WIRE_THERE || answer == WIRE_ABSENT;
}

static bool take_answer(struct session *session, const struct wire_reply *reply)
{
    uint32_t place = session->order[session->head];
    if (session->protocol == WITNESS_BINARY)
        place = reply->id < ARRAY_COUNT(session->taken) ? (uint32_t)reply->id : 0;
    if (session->count == 0 || !session->taken[place] || !fits(&session->questions[place], reply->answer)) {
        snprintf(session->client->text, WITNESS_TEXT_MAX, "an answer that nobody asked for");
        return false;
    }
    if (session->questions[place].key != GREETING_ANSWER)
        note_answer(session, &session->questions[place], reply);
    session->taken[place] = false;
    session->head = (session->head + 1) % ARRAY_COUNT(session->order);
    session->count--;
    return true;
}

static bool take_answers(struct session *session)
{
    size_t at = 0;
    for (;;) {
        struct wire_reply reply =
            wire_decode(session->protocol, slice_make(session->input + at, session->input_size - at));
        if (reply.answer == WIRE_MORE)
            break;
        if (reply.answer == WIRE_BROKEN) {
            snprintf(session->client->text, WITNESS_TEXT_MAX, "bytes that are no answer");
            return false;
        }
        if (!take_answer(session, &reply))
            return false;
        at += reply.size;
    }
    memmove(session->input, session->input + at, session->input_size - at);
    session->input_size -= at;
    return true;
}

/* ---- the connection ---------------------------------------------------------------------------------------------- */

/* Sends and receives what goes without waiting, or waits a little. False: the connection has ended. */
static bool exchange(struct session *session)
{
    struct pollfd waited = {.fd = session->socket, .events = POLLIN};
    if (session->output_size > 0)
        waited.events |= POLLOUT;
    if (poll(&waited, 1, 20) < 0 && errno != EINTR)
        return false;
    if ((waited.revents & POLLOUT) != 0) {
        ssize_t sent = send(session->socket, session->output, session->output_size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (sent > 0) {
            session->output_size -= (size_t)sent;
            memmove(session->output, session->output + sent, session->output_size);
        }
    }
    if ((waited.revents & (POLLIN | POLLHUP | POLLERR)) == 0)
        return true;
    ssize_t received =
        recv(session->socket, session->input + session->input_size, INPUT_BYTES - session->input_size, MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (received <= 0) {
        snprintf(session->client->text, WITNESS_TEXT_MAX, "connection ended: %s",
                 received == 0 ? "closed by the server" : strerror(errno));
        return false;
    }
    session->input_size += (size_t)received;
    return take_answers(session);
}

static uint64_t end_of(const struct witness_client *client)
{
    return atomic_load_explicit(client->until, memory_order_relaxed);
}

/* True when all that was to be asked has been answered. */
static bool converse(struct session *session)
{
    const struct witness_options *options = session->client->options;
    uint32_t surveyed = 0;
    for (;;) {
        uint64_t now = witness_now();
        bool over = options->survey ? surveyed == options->keys : now >= end_of(session->client);
        if (over && (session->count == 0 || now >= end_of(session->client) + DRAIN_NS))
            return session->count == 0;
        if (!over && options->survey && session->count < options->pipeline)
            ask(session, WITNESS_READ, surveyed++);
        else if (!over && !options->survey)
            ask_some(session);
        if (session->count > 0 && !exchange(session))
            return false;
    }
}

static int connect_to(const struct ring_addr *addr)
{
    int fd = socket(addr->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    KVS_ASSERT(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&addr->storage, addr->size) != 0) {
        close(fd);
        return -1;
    }
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static void begin_session(struct session *session)
{
    struct witness_client *client = session->client;
    session->number = (client->number << 20) | ++client->sessions;
    session->head = session->count = 0;
    session->output_size = session->input_size = 0;
    memset(session->taken, 0, sizeof(session->taken));
    note(session, "open %" PRIu32 " %" PRIu64 " %s\n", session->number, witness_now(),
         client->options->relaxed ? "relaxed" : "durable");
    greet(session);
}

void *witness_client_run(void *argument)
{
    struct witness_client *client = argument;
    const struct witness_options *options = client->options;
    /* Large, and one per thread: not for the stack. */
    struct session *session = calloc(1, sizeof(*session));
    KVS_ASSERT(session != NULL);
    session->client = client;
    session->chance = (options->seed + 1) * 0x9e3779b97f4a7c15u + client->number * 0xd1342543de82ef95u + 1;
    int protocol = options->protocol >= 0 ? options->protocol : (int)(client->number % 2);
    session->protocol = (enum witness_protocol)protocol;
    bool finished = false;
    while (!finished && witness_now() < end_of(client)) {
        session->socket = connect_to(&options->addr);
        if (session->socket < 0) {
            snprintf(client->text, WITNESS_TEXT_MAX, "cannot connect: %s", strerror(errno));
            nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
            continue;
        }
        begin_session(session);
        finished = converse(session);
        close(session->socket);
        note(session, "close %" PRIu32 " %" PRIu64 "\n", session->number, witness_now());
    }
    journal_flush(session);
    free(session);
    return NULL;
}
