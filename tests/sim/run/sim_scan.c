/*
 * sim_scan.c - see sim_scan.h.
 *
 * Happy path: an EXISTS of every key is begun with the request. The reply ends those that it tells of; the others are
 * left. Names that are none of the oracle's belong to fleeting keys and counters, and are not judged here.
 *
 * Failure modes: a reply that is no list of keys, a key twice, a cursor that stays break the run.
 */
#include "sim_scan.h"

#include "verdict.h"

#include "base/assert.h"
#include "base/hash.h"
#include "proto/resp.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { CURSOR_SHIFT = 16 }; /* PROTOCOL.md: a cursor is the upper 48 bits of a hash */

struct scan_ask *scan_ask_begin(struct oracle *oracle, unsigned base, unsigned keys, uint32_t session, uint64_t cursor,
                                uint64_t chance)
{
    struct scan_ask *ask = calloc(1, sizeof *ask + keys * sizeof ask->ops[0]);
    KVS_ASSERT(ask != NULL);
    ask->shown = calloc(keys, sizeof ask->shown[0]);
    KVS_ASSERT(ask->shown != NULL);
    ask->form = chance % 8 == 0 ? SCAN_KEYS : chance % 8 == 1 ? SCAN_RANDOM : SCAN_SOME;
    ask->cursor = ask->form == SCAN_SOME ? cursor : 0;
    ask->count = chance / 8 % 4 == 0 ? 1 + chance / 32 % 1000 : 1 + chance / 32 % 20;
    ask->base = base;
    ask->keys = keys;
    for (unsigned i = 0; i < keys; i++)
        ask->ops[i] = oracle_begin(oracle, base + i, HISTORY_EXISTS, 0, session);
    return ask;
}

unsigned scan_ask_arguments(struct scan_ask *ask, struct slice args[SCAN_ARGS_MAX])
{
    if (ask->form == SCAN_RANDOM) {
        args[0] = slice_text("RANDOMKEY");
        return 1;
    }
    if (ask->form == SCAN_KEYS) {
        args[0] = slice_text("KEYS");
        args[1] = slice_text("*");
        return 2;
    }
    snprintf(ask->words[0], sizeof ask->words[0], "%" PRIu64, ask->cursor);
    snprintf(ask->words[1], sizeof ask->words[1], "%" PRIu64, ask->count);
    args[0] = slice_text("SCAN");
    args[1] = slice_text(ask->words[0]);
    args[2] = slice_text("COUNT");
    args[3] = slice_text(ask->words[1]);
    return 4;
}

void scan_ask_free(struct scan_ask *ask)
{
    if (ask == NULL)
        return;
    free(ask->shown);
    free(ask);
}

void scan_ask_leave(struct oracle *oracle, struct scan_ask *ask)
{
    for (unsigned i = 0; i < ask->keys; i++)
        oracle_leave(oracle, ask->ops[i]);
}

/* ---- replies ----------------------------------------------------------------------------------------------------- */

/* Takes the header of an array off the bytes. */
static bool take_header(struct slice *bytes, unsigned *count)
{
    const uint8_t *end = bytes->size > 0 && bytes->data[0] == '*' ? memchr(bytes->data, '\n', bytes->size) : NULL;
    if (end == NULL)
        return false;
    *count = 0;
    for (const uint8_t *at = bytes->data + 1; at < end - 1; at++)
        *count = *count * 10 + (unsigned)(*at - '0');
    const size_t size = (size_t)(end - bytes->data) + 1;
    *bytes = slice_make(bytes->data + size, bytes->size - size);
    return true;
}

static bool take_bulk(struct slice *bytes, struct slice *out)
{
    struct resp_reply reply;
    if (resp_reply_parse(bytes->data, bytes->size, &reply) != RESP_REQUEST || reply.type != RESP_REPLY_BULK)
        return false;
    *out = reply.text;
    *bytes = slice_make(bytes->data + reply.size, bytes->size - reply.size);
    return true;
}

static void note_shown(const struct oracle *oracle, struct scan_ask *ask, struct slice name)
{
    static const char *const ours[] = {"key:", "relaxed:"};
    bool known = false;
    for (unsigned i = 0; i < ARRAY_COUNT(ours); i++)
        known = known || answer_has_prefix(name, ours[i]);
    if (!known)
        return;
    const unsigned key = oracle_key_named(oracle, name);
    if (key < ask->base || key >= ask->base + ask->keys)
        return;
    if (ask->shown[key - ask->base])
        broken("P3 no lies: key %u is shown twice by one scan", key);
    ask->shown[key - ask->base] = true;
}

static bool take_keys(const struct oracle *oracle, struct scan_ask *ask, struct slice bytes)
{
    unsigned count;
    if (!take_header(&bytes, &count))
        return false;
    for (unsigned i = 0; i < count; i++) {
        struct slice name;
        if (!take_bulk(&bytes, &name))
            return false;
        note_shown(oracle, ask, name);
    }
    return bytes.size == 0;
}

static bool take_cursor(const struct scan_ask *ask, struct slice *bytes, uint64_t *cursor)
{
    unsigned two;
    struct slice number;
    if (!take_header(bytes, &two) || two != 2 || !take_bulk(bytes, &number) || number.size == 0)
        return false;
    uint64_t next = 0;
    for (size_t i = 0; i < number.size; i++)
        next = next * 10 + (uint64_t)(number.data[i] - '0');
    if (next != 0 && (next <= ask->cursor || next >> (64 - CURSOR_SHIFT) != 0))
        broken("a scan does not move on: from cursor %" PRIu64 " to %" PRIu64, ask->cursor, next);
    *cursor = next;
    return true;
}

bool scan_ask_end(struct oracle *oracle, struct scan_ask *ask, const struct answer *answer, uint64_t hash_seed,
                  uint64_t *cursor)
{
    uint64_t from = 0, last = UINT64_MAX;
    struct slice bytes = answer->text;
    bool chosen = false;
    if (ask->form == SCAN_RANDOM) {
        if (answer->kind != ANSWER_VALUE && answer->kind != ANSWER_MISSING)
            return false;
        chosen = answer->kind == ANSWER_VALUE;
        if (chosen)
            note_shown(oracle, ask, answer->text);
    } else if (answer->kind != ANSWER_OTHER) {
        return false;
    } else if (ask->form == SCAN_SOME) {
        if (!take_cursor(ask, &bytes, cursor))
            return false;
        from = ask->cursor << CURSOR_SHIFT;
        last = (*cursor << CURSOR_SHIFT) - 1; /* of cursor 0: all */
    }
    if (ask->form != SCAN_RANDOM && !take_keys(oracle, ask, bytes))
        return false;
    story("scan of form %d from cursor %" PRIu64 ", count %" PRIu64 ": to %" PRIu64 ", %zu bytes", (int)ask->form,
          ask->cursor, ask->count, *cursor, answer->text.size);
    for (unsigned i = 0; i < ask->keys; i++) {
        uint8_t name[ORACLE_KEY_BYTES_MAX];
        const uint64_t hash = hash_key(slice_make(name, oracle_name(oracle, ask->base + i, name)), hash_seed);
        const bool told = chosen ? ask->shown[i] : hash >= from && hash <= last;
        if (told)
            oracle_end(oracle, ask->ops[i], 0, ask->shown[i]);
        else if (ask->shown[i])
            oracle_end(oracle, ask->ops[i], 0, 1);
        else
            oracle_leave(oracle, ask->ops[i]);
    }
    return true;
}
