/*
 * kvs.c - see kvs.h.
 *
 * Happy path: each call gives one request to a client_conn on a ring of the handle's own, and turns the ring until the
 * reply callback has copied the reply into the handle.
 *
 * Failure modes. The connection ends: its `closed` callback keeps error and message, the call returns them, later calls
 * CLOSED. No reply in time: the connection is closed, because a reply that comes after all would be taken for the next
 * request's; the call returns TIMEOUT. The server says no: its message is kept for kvs_error_text and the handle stays
 * good.
 */
#include "client/kvs.h"

#include "base/assert.h"
#include "base/limits.h"
#include "client/client_conn.h"

#include <stdio.h>
#include <stdlib.h>

#define NS_PER_MS UINT64_C(1000000)

enum {
    RING_ENTRIES = 16,
    RECEIVE_BUFFERS = 16,
    RECEIVE_BUFFER_BYTES = 16 * 1024,
    /* One request of the largest size, with room for its headers. */
    OUTPUT_BYTES_MAX = KVS_KEY_BYTES_MAX + KVS_VALUE_BYTES_MAX + 1024,
};

struct kvs {
    struct ring *ring;
    struct client_conn *conn; /* NULL once it has ended */
    uint32_t timeout_ms;
    bool opened;
    bool answered; /* the reply to the latest request is here */
    enum kvs_err error;
    uint8_t *value; /* of the latest reply, with a zero behind it */
    size_t value_bytes, value_capacity;
    char message[KVS_MESSAGE_BYTES];     /* of the latest call */
    char end_message[KVS_MESSAGE_BYTES]; /* why the connection ended */
    enum kvs_err end_error;
};

/* ---- callbacks ------------------------------------------------------------------------------------------------- */

static void on_opened(void *context)
{
    struct kvs *store = context;
    store->opened = true;
}

static bool keep_value(struct kvs *store, struct slice value)
{
    if (value.size + 1 > store->value_capacity) {
        uint8_t *room = realloc(store->value, value.size + 1);
        if (room == NULL)
            return false;
        store->value = room;
        store->value_capacity = value.size + 1;
    }
    if (value.size > 0)
        memcpy(store->value, value.data, value.size);
    store->value[value.size] = 0;
    store->value_bytes = value.size;
    return true;
}

static void on_reply(void *context, uint64_t tag, const struct client_reply *reply)
{
    (void)tag;
    struct kvs *store = context;
    store->answered = true;
    store->error = reply->error;
    if (reply->error == KVS_ERR_OK) {
        if (!keep_value(store, reply->value))
            store->error = KVS_ERR_NO_MEMORY;
        return;
    }
    size_t size = reply->value.size < 512 ? reply->value.size : 512;
    snprintf(store->message, sizeof(store->message), "%s%s%.*s", kvs_err_text(reply->error), size > 0 ? ": " : "",
             (int)size, (const char *)reply->value.data);
}

static void on_closed(void *context, enum kvs_err error, const char *message)
{
    struct kvs *store = context;
    if (error != KVS_ERR_OK) { /* else closed by us, who have said why already */
        store->end_error = error;
        snprintf(store->end_message, sizeof(store->end_message), "%s", message);
    }
    client_conn_free(store->conn); /* and `message` with it */
    store->conn = NULL;
}

static const struct client_handlers handlers = {.opened = on_opened, .reply = on_reply, .closed = on_closed};

/* ---- waiting --------------------------------------------------------------------------------------------------- */

/* Turns the ring until *flag is set (true) or the connection has ended, by itself or because the time was up. */
static bool await(struct kvs *store, const bool *flag, const char *what)
{
    uint64_t deadline_ns = ring_now_ns(store->ring) + store->timeout_ms * NS_PER_MS;
    while (!*flag && store->conn != NULL) {
        uint64_t now_ns = ring_now_ns(store->ring);
        if (now_ns >= deadline_ns)
            break;
        ring_turn(store->ring, (int64_t)(deadline_ns - now_ns));
    }
    if (*flag) /* even when the server has hung up since */
        return true;
    if (store->conn != NULL) {
        store->end_error = KVS_ERR_TIMEOUT;
        snprintf(store->end_message, sizeof(store->end_message),
                 "%s within %u ms; the server may be stopped or unreachable", what, store->timeout_ms);
        client_conn_close(store->conn);
    }
    while (store->conn != NULL)
        ring_turn(store->ring, -1);
    store->error = store->end_error;
    memcpy(store->message, store->end_message, sizeof(store->message));
    return false;
}

static enum kvs_err call(struct kvs *store, const struct client_request *request)
{
    if (store->conn == NULL) {
        store->error = KVS_ERR_CLOSED;
        memcpy(store->message, store->end_message, sizeof(store->message));
        return store->error;
    }
    store->answered = false;
    store->error = client_conn_send(store->conn, request);
    if (store->error != KVS_ERR_OK) {
        snprintf(store->message, sizeof(store->message), "%s", kvs_err_text(store->error));
        return store->error;
    }
    client_conn_flush(store->conn);
    (void)await(store, &store->answered, "no reply");
    return store->error;
}

/* ---- the interface --------------------------------------------------------------------------------------------- */

static enum kvs_err parse_address(const char *text, struct ring_addr *addr, char message[KVS_MESSAGE_BYTES])
{
    static const char prefix[] = "unix:";
    enum kvs_err err;
    if (strncmp(text, prefix, sizeof(prefix) - 1) == 0) {
        err = ring_addr_unix(text + sizeof(prefix) - 1, addr);
        if (err != KVS_ERR_OK)
            snprintf(message, KVS_MESSAGE_BYTES,
                     "the path of a Unix socket has 1 to 107 bytes; this is not one: %.256s", text);
        return err;
    }
    err = ring_addr_parse_tcp(text, addr);
    if (err == KVS_ERR_OK && ring_addr_port(addr) == 0)
        err = KVS_ERR_INVALID;
    if (err != KVS_ERR_OK)
        snprintf(message, KVS_MESSAGE_BYTES,
                 "not an address: '%.256s'; give IP:PORT with a numeric IP and a port of 1 to 65535, such as "
                 "127.0.0.1:4000 or [::1]:4000",
                 text);
    return err;
}

static enum kvs_err open_connection(struct kvs *store, const struct ring_addr *addr)
{
    const struct client_options options = {
        .protocol = CLIENT_BINARY,
        .requests_max = 1,
        .output_bytes_max = OUTPUT_BYTES_MAX,
        .reply_bytes_max = KVS_VALUE_BYTES_MAX,
    };
    store->error = client_conn_open(&store->conn, store->ring, addr, &options, &handlers, store);
    if (store->error != KVS_ERR_OK) {
        snprintf(store->message, sizeof(store->message), "%s", kvs_err_text(store->error));
        return store->error;
    }
    char address[RING_ADDR_TEXT_BYTES];
    char what[RING_ADDR_TEXT_BYTES + 32];
    snprintf(what, sizeof(what), "%s: no connection", ring_addr_format(addr, address));
    (void)await(store, &store->opened, what);
    return store->error;
}

/* Says who is asking, if there is a password. */
static enum kvs_err log_in(struct kvs *store, const struct kvs_options *options)
{
    if (options == NULL || options->password == NULL)
        return KVS_ERR_OK;
    const struct client_request request = {.op = CLIENT_AUTH,
                                           .key = slice_text(options->user != NULL ? options->user : ""),
                                           .value = slice_text(options->password)};
    return call(store, &request);
}

enum kvs_err kvs_connect(struct kvs **out, const char *address, const struct kvs_options *options,
                         char message[KVS_MESSAGE_BYTES])
{
    *out = NULL;
    message[0] = 0;
    struct ring_addr addr;
    enum kvs_err err = parse_address(address, &addr, message);
    if (err != KVS_ERR_OK)
        return err;
    struct kvs *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        snprintf(message, KVS_MESSAGE_BYTES, "%s", kvs_err_text(KVS_ERR_NO_MEMORY));
        return KVS_ERR_NO_MEMORY;
    }
    store->timeout_ms = options != NULL && options->timeout_ms > 0 ? options->timeout_ms : KVS_TIMEOUT_MS_DEFAULT;
    const struct ring_options ring_options = {
        .entries = RING_ENTRIES, .buffer_count = RECEIVE_BUFFERS, .buffer_bytes = RECEIVE_BUFFER_BYTES};
    static_assert(KVS_MESSAGE_BYTES >= RING_MESSAGE_BYTES, "ring_open writes into the caller's message");
    err = ring_open(&store->ring, &ring_options, message);
    if (err == KVS_ERR_OK) {
        err = open_connection(store, &addr);
        if (err == KVS_ERR_OK)
            err = log_in(store, options);
        if (err != KVS_ERR_OK)
            memcpy(message, store->message, KVS_MESSAGE_BYTES);
    }
    if (err != KVS_ERR_OK) {
        kvs_disconnect(store);
        return err;
    }
    *out = store;
    return KVS_ERR_OK;
}

void kvs_disconnect(struct kvs *store)
{
    if (store == NULL)
        return;
    if (store->conn != NULL)
        client_conn_close(store->conn);
    while (store->conn != NULL)
        ring_turn(store->ring, -1);
    if (store->ring != NULL)
        ring_close(store->ring);
    free(store->value);
    free(store);
}

enum kvs_err kvs_get(struct kvs *store, const void *key, size_t key_bytes, const void **value, size_t *value_bytes)
{
    const struct client_request request = {.op = CLIENT_GET, .key = slice_make(key, key_bytes)};
    enum kvs_err err = call(store, &request);
    if (err != KVS_ERR_OK)
        return err;
    *value = store->value;
    *value_bytes = store->value_bytes;
    return KVS_ERR_OK;
}

enum kvs_err kvs_set(struct kvs *store, const void *key, size_t key_bytes, const void *value, size_t value_bytes,
                     enum kvs_durability durability)
{
    const struct client_request request = {
        .op = CLIENT_SET,
        .relaxed = durability == KVS_RELAXED,
        .key = slice_make(key, key_bytes),
        .value = slice_make(value, value_bytes),
    };
    return call(store, &request);
}

enum kvs_err kvs_remove(struct kvs *store, const void *key, size_t key_bytes, enum kvs_durability durability)
{
    const struct client_request request = {
        .op = CLIENT_REMOVE, .relaxed = durability == KVS_RELAXED, .key = slice_make(key, key_bytes)};
    return call(store, &request);
}

enum kvs_err kvs_ping(struct kvs *store)
{
    const struct client_request request = {.op = CLIENT_PING};
    return call(store, &request);
}

enum kvs_err kvs_stats(struct kvs *store, const char *section, const char **text)
{
    const struct client_request request = {.op = CLIENT_STATS, .key = slice_text(section)};
    enum kvs_err err = call(store, &request);
    if (err == KVS_ERR_OK)
        *text = (const char *)store->value;
    return err;
}

enum kvs_err kvs_backup(struct kvs *store, const char *name, const char **called)
{
    const struct client_request request = {.op = CLIENT_BACKUP, .key = slice_text(name)};
    enum kvs_err err = call(store, &request);
    if (err == KVS_ERR_OK)
        *called = (const char *)store->value;
    return err;
}

const char *kvs_error_text(const struct kvs *store)
{
    return store->error == KVS_ERR_OK ? kvs_err_text(KVS_ERR_OK) : store->message;
}
