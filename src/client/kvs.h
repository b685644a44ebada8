/*
 * kvs.h - the blocking client of kvs-node: connect, get, set, remove.
 *
 *     struct kvs *store;
 *     char message[KVS_MESSAGE_BYTES];
 *     if (kvs_connect(&store, "127.0.0.1:4000", NULL, message) != KVS_ERR_OK) …
 *     kvs_set(store, "colour", 6, "blue", 4, KVS_DURABLE);
 *     const void *value;
 *     size_t value_bytes;
 *     if (kvs_get(store, "colour", 6, &value, &value_bytes) == KVS_ERR_OK) …
 *     kvs_disconnect(store);
 *
 * Shapes. Keys are 0..65535 bytes, values 0..512 MiB, any bytes at all, never terminated by a zero. The server has
 * lower limits: values of 64 MiB unless it was told otherwise.
 *
 * Threads. A handle belongs to the thread that connected it, to the end; other threads connect for themselves. One call
 * at a time; every call blocks until its reply has come or the time is up.
 *
 * Errors. Every call returns one of the codes in base/error.h; kvs_error_text says more about the latest one. Two
 * kinds:
 *   - what the server says about one request leaves the handle good: NOT_FOUND, TOO_LARGE, NO_SPACE (reads and removes
 *     still work), FAILED (the server's storage accepts no more writes), CORRUPT (the stored record is damaged),
 * INVALID, AGAIN (too busy), ACCESS (the server wants a password, or the user may not do that), REMOTE (any other);
 *   - TIMEOUT, CLOSED, CONNECTION, PROTOCOL, NO_MEMORY and the like end the connection: every later call returns
 * CLOSED, and only kvs_disconnect is left. A set or remove that ended so may or may not have happened.
 *
 * Durability. With KVS_DURABLE, KVS_ERR_OK means that the write is on stable storage. With KVS_RELAXED it means that
 * the server has it and will write it soon: a crash of the server's machine within that time loses it.
 */
#ifndef KVS_CLIENT_KVS_H
#define KVS_CLIENT_KVS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define KVS_MESSAGE_BYTES      1024
#define KVS_TIMEOUT_MS_DEFAULT 30000

struct kvs;

enum kvs_durability { KVS_DURABLE, KVS_RELAXED };

struct kvs_options {
    uint32_t timeout_ms;  /* limit of each call, connecting included; 0: KVS_TIMEOUT_MS_DEFAULT */
    const char *user;     /* NULL: default. Only with a password */
    const char *password; /* NULL: none is given. Neither is kept */
};

/*
 * Connects to "IP:PORT", "[IPv6]:PORT" or "unix:PATH". `options` may be NULL. On success *out is a handle, to be given
 * to kvs_disconnect. On failure *out is NULL and `message` names the address, the reason and the remedy. INVALID: the
 * address cannot be understood. REFUSED, TIMEOUT, CONNECTION, CLOSED, PROTOCOL (not a kvs-node), VERSION (a kvs-node
 * that speaks another version), AGAIN (the server has too many connections), ACCESS (wrong user or password),
 * UNSUPPORTED (this kernel offers no io_uring), NO_MEMORY.
 */
enum kvs_err kvs_connect(struct kvs **out, const char *address, const struct kvs_options *options,
                         char message[KVS_MESSAGE_BYTES]);

/* Closes the connection and frees the handle. NULL is allowed. */
void kvs_disconnect(struct kvs *store);

/* The value of a key. *value belongs to the handle and is good until its next call. NOT_FOUND: there is none. */
enum kvs_err kvs_get(struct kvs *store, const void *key, size_t key_bytes, const void **value, size_t *value_bytes);

/* Sets a key, whether or not it had a value before. */
enum kvs_err kvs_set(struct kvs *store, const void *key, size_t key_bytes, const void *value, size_t value_bytes,
                     enum kvs_durability durability);

/* Removes a key. NOT_FOUND: there was none. */
enum kvs_err kvs_remove(struct kvs *store, const void *key, size_t key_bytes, enum kvs_durability durability);

/* Asks the server whether it is there. */
enum kvs_err kvs_ping(struct kvs *store);

/*
 * The server's statistics: lines "name:value" under headings "# Section". `section` selects one, "" all. *text is
 * zero-terminated and belongs to the handle, good until its next call.
 */
enum kvs_err kvs_stats(struct kvs *store, const char *section, const char **text);

/*
 * Begins a backup of this name on the server, or with "" of the time. *called is its name then, zero-terminated, the
 * handle's, good until its next call. How it ends is in the statistics "persistence". AGAIN: another one is under way.
 * INVALID: the name; the connection has ended.
 */
enum kvs_err kvs_backup(struct kvs *store, const char *name, const char **called);

/* Why the latest call on this handle failed, in words, with the server's own where it gave any. Good until the next
 * call. */
const char *kvs_error_text(const struct kvs *store);

#endif
