/*
 * transaction_decide.c - what those who decide a transaction see of it, and say; and one within another.
 *
 * The keys are sorted by their hashes, so one is found by halves. Failure: no memory for a reply, which is known by
 * there being none (transaction_decide_fn).
 */
#include "node/transaction_internal.h"

#include "base/assert.h"
#include "base/hash.h"
#include "node/node_internal.h"
#include "proto/resp.h"

#include <stddef.h>

enum { ARRAY_ALIGN = alignof(max_align_t) };

struct transaction_key *transaction_key(struct transaction *transaction, unsigned i)
{
    KVS_ASSERT(i < transaction->given);
    return &transaction->keys[transaction->places[i]];
}

struct slice transaction_value(const struct transaction *transaction, unsigned i)
{
    KVS_ASSERT(i < transaction->given && transaction->values != NULL);
    return transaction->values[i];
}

unsigned transaction_count(const struct transaction *transaction)
{
    return transaction->given;
}

struct shard *transaction_home(const struct transaction *transaction)
{
    return transaction->home;
}

const void *transaction_context(const struct transaction *transaction)
{
    return transaction->options.context;
}

struct update_scratch *transaction_arena(struct transaction *transaction)
{
    return transaction->arena;
}

uint64_t transaction_now_ms(const struct transaction *transaction)
{
    return transaction->now_ms;
}

static uint8_t *reply_room(struct transaction *transaction, size_t bytes)
{
    uint8_t *room = update_scratch_take(transaction->arena, bytes);
    transaction->reply = slice_make(room, 0);
    return room;
}

void transaction_reply_integer(struct transaction *transaction, int64_t value)
{
    uint8_t *out = reply_room(transaction, RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        transaction->reply.size = resp_write_integer(out, value);
}

void transaction_reply_ok(struct transaction *transaction)
{
    uint8_t *out = reply_room(transaction, RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        transaction->reply.size = resp_write_simple(out, "OK");
}

void transaction_reply_bytes(struct transaction *transaction, struct slice bytes)
{
    transaction->reply = bytes;
}

void transaction_reply_error(struct transaction *transaction, const char *text)
{
    uint8_t *out = reply_room(transaction, REPLY_ERROR_BYTES_MAX);
    if (out != NULL)
        transaction->reply.size = resp_write_error(out, text);
    for (unsigned i = 0; i < transaction->count; i++)
        transaction->keys[i].change = TRANSACTION_KEEP;
}

void *transaction_array(struct transaction *transaction, size_t count, size_t size)
{
    uint8_t *array = update_scratch_take(transaction->arena, count * size + ARRAY_ALIGN - 1);
    if (array == NULL)
        return NULL;
    array += align_up((uintptr_t)array, ARRAY_ALIGN) - (uintptr_t)array;
    return memset(array, 0, count * size);
}

/* Where the key is; NULL: it is none of them. */
static struct transaction_key *find(const struct transaction *transaction, struct slice key)
{
    const uint64_t hash = hash_key(key, transaction->home->hash_seed);
    unsigned low = 0, high = transaction->count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (transaction->keys[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    while (low < transaction->count && transaction->keys[low].hash == hash) {
        if (slice_equal(transaction->keys[low].key, key))
            return &transaction->keys[low];
        low++;
    }
    return NULL;
}

struct transaction_key *transaction_find(struct transaction *transaction, struct slice key)
{
    struct transaction_key *found = find(transaction, key);
    KVS_ASSERT(found != NULL);
    return found;
}

bool transaction_has(const struct transaction *transaction, struct slice key)
{
    return find(transaction, key) != NULL;
}

struct transaction_key *transaction_keys(struct transaction *transaction, unsigned *count)
{
    *count = transaction->count;
    return transaction->keys;
}

bool transaction_within(struct transaction *outer, const struct transaction_options *options,
                        const struct transaction_args *args, struct slice *reply)
{
    struct transaction inner = {.home = outer->home,
                                .options = *options,
                                .arena = outer->arena,
                                .now_ms = outer->now_ms,
                                .keys = outer->keys,
                                .count = outer->count,
                                .given = args->count};
    inner.places = transaction_array(&inner, args->count, sizeof *inner.places);
    inner.values = args->values == NULL ? NULL : transaction_array(&inner, args->count, sizeof *inner.values);
    if (inner.places == NULL || (args->values != NULL && inner.values == NULL))
        return false;
    for (unsigned i = 0; i < args->count; i++) {
        struct transaction_key *key = transaction_find(outer, args->keys[i * args->step]);
        key->change = TRANSACTION_KEEP;
        key->new_expires_ms = 0; /* another one within may have set it */
        inner.places[i] = (unsigned)(key - outer->keys);
        if (args->values != NULL)
            inner.values[i] = args->values[i * args->step];
    }
    options->decide(&inner);
    *reply = inner.reply;
    return !inner.arena->refused && inner.reply.size > 0;
}
