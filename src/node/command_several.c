/*
 * command_several.c - commands that change several keys in one step: MSET, MSETNX, RENAME, RENAMENX, COPY, BITOP.
 *
 * They check their arguments and begin a transaction (transaction.h); what is decided when the keys are held is in the
 * functions called decide_….
 */
#include "node/bit_operation.h"
#include "node/command.h"
#include "node/node_internal.h"
#include "node/transaction.h"

#include <limits.h>

/* ---- MSET, MSETNX ---------------------------------------------------------------------------------------------- */

static void put_all(struct transaction *transaction)
{
    for (unsigned i = 0; i < transaction_count(transaction); i++) {
        struct transaction_key *key = transaction_key(transaction, i);
        key->change = TRANSACTION_PUT;
        key->new_value = transaction_value(transaction, i); /* of equal keys the last counts */
    }
}

static void decide_mset(struct transaction *transaction)
{
    put_all(transaction);
    transaction_reply_ok(transaction);
}

static void decide_msetnx(struct transaction *transaction)
{
    bool any = false;
    for (unsigned i = 0; i < transaction_count(transaction); i++)
        any = any || transaction_key(transaction, i)->found;
    if (!any)
        put_all(transaction);
    transaction_reply_integer(transaction, !any);
}

static void set_several(struct call *call, const struct transaction_options *options)
{
    unsigned count = (call->count - 1) / 2;
    if (call->count % 2 == 0) {
        call_error(call, "ERR wrong number of arguments for '%s' command", call->command->name);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        if (!command_keys_fit(call, &call->args[1 + 2 * i], 1) || !command_value_fits(call, call->args[2 + 2 * i]))
            return;
    }
    struct transaction_args args = {.count = count, .keys = call->args + 1, .values = call->args + 2, .step = 2};
    transaction_begin(call->shard, call->conn, options, &args);
}

void command_mset(struct call *call)
{
    static const struct transaction_options options = {.decide = decide_mset, .blind = true};
    set_several(call, &options);
}

void command_msetnx(struct call *call)
{
    static const struct transaction_options options = {.decide = decide_msetnx};
    set_several(call, &options);
}

/* ---- RENAME, RENAMENX, COPY ------------------------------------------------------------------------------------ */

struct relabel {
    bool copies;   /* the source stays */
    bool replaces; /* what is at the destination */
    bool counts;   /* the reply is 1 or 0 */
};

static void decide_relabel(struct transaction *transaction)
{
    const struct relabel *relabel = transaction_context(transaction);
    struct transaction_key *from = transaction_key(transaction, 0);
    struct transaction_key *to = transaction_key(transaction, 1);
    if (!from->found && !relabel->copies) {
        transaction_reply_error(transaction, "ERR no such key");
        return;
    }
    bool done = from->found && (from != to || (!relabel->counts && !relabel->copies)) &&
                (relabel->replaces || !to->found || from == to);
    if (done && from != to) {
        to->change = TRANSACTION_PUT;
        to->new_value = from->value;
        to->new_expires_ms = from->expires_ms;
        from->change = relabel->copies ? TRANSACTION_KEEP : TRANSACTION_REMOVE;
    }
    if (relabel->counts)
        transaction_reply_integer(transaction, done);
    else
        transaction_reply_ok(transaction);
}

static void begin_relabel(struct call *call, struct relabel relabel)
{
    struct transaction_options options = {
        .decide = decide_relabel, .values_end = 1, .context = &relabel, .context_bytes = sizeof relabel};
    struct transaction_args args = {.count = 2, .keys = call->args + 1, .step = 1};
    if (command_keys_fit(call, call->args + 1, 2))
        transaction_begin(call->shard, call->conn, &options, &args);
}

void command_rename(struct call *call)
{
    begin_relabel(call, (struct relabel){.replaces = true});
}

void command_renamenx(struct call *call)
{
    begin_relabel(call, (struct relabel){.counts = true});
}

void command_copy(struct call *call)
{
    struct relabel relabel = {.copies = true, .counts = true};
    for (unsigned i = 3; i < call->count; i++) {
        if (command_word_is(call->args[i], "replace")) {
            relabel.replaces = true;
        } else if (command_word_is(call->args[i], "db") && i + 1 < call->count) {
            if (!command_database(call, call->args[++i]))
                return;
        } else {
            call_error(call, "ERR syntax error");
            return;
        }
    }
    if (slice_equal(call->args[1], call->args[2])) {
        call_error(call, "ERR source and destination objects are the same");
        return;
    }
    begin_relabel(call, relabel);
}

/* ---- BITOP ----------------------------------------------------------------------------------------------------- */

static void decide_bitop(struct transaction *transaction)
{
    const enum bit_operation *operation = transaction_context(transaction);
    struct transaction_key *to = transaction_key(transaction, 0);
    const unsigned count = transaction_count(transaction);
    size_t bytes = 0;
    for (unsigned i = 1; i < count; i++) {
        size_t size = transaction_key(transaction, i)->value.size;
        bytes = size > bytes ? size : bytes;
    }
    transaction_reply_integer(transaction, (int64_t)bytes);
    to->change = TRANSACTION_REMOVE;
    if (bytes == 0)
        return;
    uint8_t *out = update_scratch_take(transaction_arena(transaction), bytes);
    if (out == NULL)
        return;
    bit_operation_begin(*operation, out, bytes, transaction_key(transaction, 1)->value);
    for (unsigned i = 2; i < count; i++)
        bit_operation_add(*operation, out, bytes, transaction_key(transaction, i)->value);
    to->change = TRANSACTION_PUT;
    to->new_value = slice_make(out, bytes);
}

void command_bitop(struct call *call)
{
    static const char *const names[] = {[BIT_AND] = "and", [BIT_OR] = "or", [BIT_XOR] = "xor", [BIT_NOT] = "not"};
    unsigned operation = 0;
    while (operation < ARRAY_COUNT(names) && !command_word_is(call->args[1], names[operation]))
        operation++;
    if (operation == ARRAY_COUNT(names)) {
        call_error(call, "ERR syntax error");
        return;
    }
    if (operation == BIT_NOT && call->count != 4) {
        call_error(call, "ERR BITOP NOT must be called with a single source key.");
        return;
    }
    const enum bit_operation chosen = (enum bit_operation)operation;
    const struct transaction_options options = {.decide = decide_bitop,
                                                .values_begin = 1,
                                                .values_end = UINT_MAX,
                                                .context = &chosen,
                                                .context_bytes = sizeof chosen};
    const struct transaction_args args = {.count = call->count - 2, .keys = call->args + 2, .step = 1};
    if (command_keys_fit(call, args.keys, args.count))
        transaction_begin(call->shard, call->conn, &options, &args);
}
