/*
 * command.c - from a RESP request to its handler.
 *
 * Happy path: the name is looked up (three letters, GET and SET and DEL, by one comparison; others by binary search),
 * the number of arguments is held against the table, the handler runs. Failures: unknown command, unknown subcommand,
 * wrong number of arguments, no right to it (access.h), store not open yet, in this order, which is Redis's; so are the
 * texts, because clients match on them (on the code alone for LOADING).
 */
#include "node/command.h"

#include "base/assert.h"
#include "base/canary.h"
#include "node/access.h"
#include "node/exec.h"
#include "node/monitor.h"
#include "node/multi.h"
#include "node/node_internal.h"
#include "node/timing.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define QUOTED_BYTES_MAX 128u

static inline uint8_t lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte + 32) : byte;
}

/* As strcmp of the name in lower case with `word`. */
static int compare(struct slice name, const char *word)
{
    for (size_t i = 0; i < name.size; i++) {
        int difference = lower(name.data[i]) - (uint8_t)word[i];
        if (difference != 0)
            return difference;
        if (word[i] == 0)
            return 1; /* both are 0: the name goes on behind the word's end */
    }
    return word[name.size] == 0 ? 0 : -1;
}

bool command_word_is(struct slice text, const char *word)
{
    return compare(text, word) == 0;
}

const struct command *command_find(struct slice name)
{
    unsigned low = 0, high = command_table_count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        int order = compare(name, command_table[middle].name);
        if (order == 0)
            return &command_table[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

bool command_arity_fits(int arity, unsigned count)
{
    return arity >= 0 ? count == (unsigned)arity : count >= (unsigned)-arity;
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

static uint8_t *reserve(struct call *call, size_t bytes)
{
    if (call->shard->exec != NULL)
        return exec_reserve(call->shard->exec, bytes);
    return net_reply_reserve(call->conn, bytes);
}

static void commit(struct call *call, size_t bytes)
{
    if (call->shard->exec != NULL)
        exec_commit(call->shard->exec, bytes);
    else
        net_reply_commit(call->conn, bytes, 0);
}

void call_simple(struct call *call, const char *text)
{
    uint8_t *out = reserve(call, strlen(text) + RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        commit(call, resp_write_simple(out, text));
}

void call_error(struct call *call, const char *format, ...)
{
    char text[REPLY_ERROR_BYTES_MAX - 64];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    /* An argument may end the text, and an end of line that: as in Redis it is left out there, and a blank elsewhere.
     */
    for (size_t size = strlen(text); size > 0 && (text[size - 1] == '\r' || text[size - 1] == '\n');)
        text[--size] = 0;
    shard_count_error(call->shard, text);
    uint8_t *out = reserve(call, REPLY_ERROR_BYTES_MAX);
    if (out != NULL)
        commit(call, resp_write_error(out, text));
}

void call_integer(struct call *call, int64_t value)
{
    uint8_t *out = reserve(call, RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        commit(call, resp_write_integer(out, value));
}

void call_bulk(struct call *call, struct slice bytes)
{
    uint8_t *out = reserve(call, resp_bulk_bytes(bytes.size));
    if (out != NULL)
        commit(call, resp_write_bulk(out, bytes));
}

void call_null(struct call *call)
{
    uint8_t *out = reserve(call, RESP_HEADER_BYTES_MAX);
    if (out != NULL)
        commit(call, resp_write_null(out, call->client->resp_version));
}

void call_text(struct call *call, struct text *text)
{
    if (text->failed || text->size == 0) {
        call_error(call, "OOM kvs-node: no memory for the reply");
    } else {
        uint8_t *out = reserve(call, text->size);
        if (out != NULL) {
            memcpy(out, text->data, text->size);
            commit(call, text->size);
        }
    }
    text_deinit(text);
}

void text_simple(struct text *text, const char *value)
{
    text_printf(text, "+%s\r\n", value);
}

void text_bulk(struct text *text, const char *value)
{
    uint8_t *room = text_room(text, resp_bulk_bytes(strlen(value)));
    if (room != NULL)
        text_advance(text, resp_write_bulk(room, slice_text(value)));
}

void text_bulk_bytes(struct text *text, struct slice value)
{
    uint8_t *room = text_room(text, resp_bulk_bytes(value.size));
    if (room != NULL)
        text_advance(text, resp_write_bulk(room, value));
}

void text_double(struct text *text, double value, int resp_version)
{
    char number[40];
    /* The shortest that gives the same number again; 17 digits always do. */
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(number, sizeof(number), "%.*g", digits, value);
        if (strtod(number, NULL) == value)
            break;
    }
    if (resp_version >= 3)
        text_printf(text, ",%s\r\n", number);
    else
        text_bulk(text, number);
}

void text_verbatim(struct text *text, struct slice value, int resp_version)
{
    if (resp_version >= 3)
        text_printf(text, "=%zu\r\ntxt:", value.size + 4);
    else
        text_printf(text, "$%zu\r\n", value.size);
    text_add(text, value);
    text_add(text, slice_text("\r\n"));
}

/* An array in RESP2. */
void text_set(struct text *text, size_t count, int resp_version)
{
    text_printf(text, "%c%zu\r\n", resp_version >= 3 ? '~' : '*', count);
}

void text_integer(struct text *text, int64_t value)
{
    text_printf(text, ":%lld\r\n", (long long)value);
}

void text_array(struct text *text, size_t count)
{
    text_printf(text, "*%zu\r\n", count);
}

void text_map(struct text *text, size_t pairs, int resp_version)
{
    uint8_t *room = text_room(text, RESP_HEADER_BYTES_MAX);
    if (room != NULL)
        text_advance(text, resp_write_map_header(room, pairs, resp_version));
}

void text_null(struct text *text, int resp_version)
{
    uint8_t *room = text_room(text, RESP_HEADER_BYTES_MAX);
    if (room != NULL)
        text_advance(text, resp_write_null(room, resp_version));
}

void command_loading_text(char text[COMMAND_LOADING_BYTES_MAX], const struct shard *shard)
{
    struct loading loading = node_loading(shard->node, shard->ring);
    snprintf(text, COMMAND_LOADING_BYTES_MAX, "LOADING kvs-node is loading its data, %.0f %% done; try again later",
             loading.percent);
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

int command_printable(struct slice arg, size_t max)
{
    size_t size = arg.size < max ? arg.size : max;
    const uint8_t *end = size > 0 ? memchr(arg.data, 0, size) : NULL;
    return (int)(end != NULL ? (size_t)(end - arg.data) : size);
}

static void refuse_unknown(struct call *call)
{
    char quoted[2 * QUOTED_BYTES_MAX];
    size_t size = 0;
    quoted[0] = 0;
    for (unsigned i = 1; i < call->count && size < QUOTED_BYTES_MAX; i++) {
        int length = command_printable(call->args[i], QUOTED_BYTES_MAX - size);
        int printed =
            snprintf(quoted + size, sizeof(quoted) - size, "'%.*s' ", length, (const char *)call->args[i].data);
        KVS_ASSERT(printed >= 0 && (size_t)printed < sizeof(quoted) - size);
        size += (size_t)printed;
    }
    call_error(call, "ERR unknown command '%.*s', with args beginning with: %s",
               command_printable(call->args[0], QUOTED_BYTES_MAX), (const char *)call->args[0].data, quoted);
}

static const char *upper(const char *name, char out[32])
{
    size_t i = 0;
    for (; name[i] != 0 && i < 31; i++)
        out[i] = name[i] >= 'a' && name[i] <= 'z' ? (char)(name[i] - 32) : name[i];
    out[i] = 0;
    return out;
}

/* Lines of text, each behind `indent`; returns how many. */
static size_t help_lines(struct text *text, const char *indent, const char *lines)
{
    size_t count = 0;
    while (*lines != 0) {
        size_t length = strcspn(lines, "\n");
        text_printf(text, "+%s%.*s\r\n", indent, (int)length, lines);
        lines += length + (lines[length] != 0);
        count++;
    }
    return count;
}

static void subcommand_help(struct call *call)
{
    const struct command *command = call->command;
    char name[32];
    size_t count = 3;
    struct text lines = {0};
    for (const struct subcommand *sub = command->subcommands; sub->name != NULL; sub++) {
        text_printf(&lines, "+%s%s%s\r\n", upper(sub->name, name), *sub->usage != 0 ? " " : "", sub->usage);
        count += 1 + help_lines(&lines, "    ", sub->help);
    }
    struct text text = {0};
    text_array(&text, count);
    text_printf(&text, "+%s <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n", upper(command->name, name));
    text_add(&text, slice_make(lines.data, lines.size));
    text.failed |= lines.failed;
    text_deinit(&lines);
    text_simple(&text, "HELP");
    text_simple(&text, "    Prints this help.");
    call_text(call, &text);
}

/* False: it has been refused. */
static bool run(struct call *call, unsigned flags, command_fn *handler)
{
    if (__builtin_expect(call->shard->serving, 1) || (flags & COMMAND_LOADING) != 0) {
        handler(call);
        return true;
    }
    if (canary_on(CANARY_EMPTY_WHILE_LOADING)) {
        call_null(call);
        return true;
    }
    char text[COMMAND_LOADING_BYTES_MAX];
    command_loading_text(text, call->shard);
    call_error(call, "%s", text);
    return false;
}

/* Which subcommand it is; NULL: HELP, or none and the request has its answer. */
static const struct subcommand *find_subcommand(struct call *call, bool *help)
{
    const struct command *command = call->command;
    char name[32];
    *help = command_word_is(call->args[1], "help");
    for (const struct subcommand *sub = command->subcommands; sub->name != NULL; sub++) {
        if (!command_word_is(call->args[1], sub->name))
            continue;
        if (command_arity_fits(sub->arity, call->count))
            return sub;
        call_error(call, "ERR wrong number of arguments for '%s|%s' command", command->name, sub->name);
        return NULL;
    }
    if (*help && call->count == 2)
        return NULL;
    if (*help)
        call_error(call, "ERR wrong number of arguments for '%s|help' command", command->name);
    else
        call_error(call, "ERR unknown subcommand '%.*s'. Try %s HELP.",
                   command_printable(call->args[1], QUOTED_BYTES_MAX), (const char *)call->args[1].data,
                   upper(command->name, name));
    *help = false;
    return NULL;
}

/* ---- dispatch -------------------------------------------------------------------------------------------------- */

static void refuse_client(struct call *call)
{
    call_error(call, "ERR max number of clients reached");
    net_conn_finish(call->conn);
}

/* What CLIENT LIST shows. */
static inline void note_command(struct call *call, const struct command *command, const struct subcommand *sub)
{
    call->client->command = command;
    call->client->sub = sub;
    call->client->seen_ns = call->shard->now_ns;
}

static unsigned number_of(const struct call *call, const struct subcommand *sub)
{
    return acl_number(acl_numbers(call->shard->node->acl), call->command, sub);
}

/* Carries it out and notes what that has cost. */
void command_carry_out(struct call *call, const struct subcommand *sub)
{
    struct shard *shard = call->shard;
    struct timing timing;
    bool ran = true;
    monitor_note(call, sub);
    timing_begin(&timing, call, sub);
    if (sub != NULL)
        ran = run(call, sub->flags, sub->run);
    else if (call->command->subcommands != NULL && call->count >= 2)
        subcommand_help(call);
    else
        ran = run(call, call->command->flags, call->command->run);
    if (ran)
        timing_end(&timing, call, number_of(call, sub));
    else
        meter_rejected(&shard->meter, number_of(call, sub));
}

/* Finds the command. False: there is none, or not with these arguments, and the request has its answer. */
static bool find_command(struct call *call, const struct subcommand **sub)
{
    bool help = false;
    *sub = NULL;
    call->command = command_find(call->args[0]);
    if (call->command == NULL) {
        refuse_unknown(call);
        return false;
    }
    if (!command_arity_fits(call->command->arity, call->count)) {
        call_error(call, "ERR wrong number of arguments for '%s' command", call->command->name);
        meter_rejected(&call->shard->meter, number_of(call, NULL));
        return false;
    }
    if (call->command->subcommands == NULL || call->count < 2)
        return true;
    *sub = find_subcommand(call, &help);
    return *sub != NULL || help;
}

/* Finds the command and carries it out, once what stands in between (access.h) lets it pass. */
static void command_any(struct call *call, bool watched)
{
    const struct subcommand *sub;
    if (!find_command(call, &sub)) {
        multi_spoil(call->client);
        return;
    }
    note_command(call, call->command, sub);
    if (watched && !access_request(call, sub)) {
        if (list_empty(&call->client->paused)) { /* else it comes again */
            meter_rejected(&call->shard->meter, number_of(call, sub));
            multi_spoil(call->client);
        }
        return;
    }
    if (!watched || !multi_takes(call, sub))
        command_carry_out(call, sub);
}

/* The connection is something special, or the node is watched. */
static __attribute__((noinline)) void command_watched(struct call *call)
{
    struct client *client = call->client;
    uint8_t special = client->special;
    if ((special & CLIENT_OVER_LIMIT) != 0) {
        refuse_client(call);
        return;
    }
    if ((special & (CLIENT_REPLY_OFF | CLIENT_REPLY_SKIP)) != 0)
        net_reply_mute(call->conn, true);
    client->special &= (uint8_t)~CLIENT_REPLY_SKIP;
    command_any(call, true);
    if (!list_empty(&client->paused))
        client->special = special; /* postponed: it comes again, and is the one to be skipped then */
}

void command_resp(void *context, struct net_conn *conn, const struct slice *args, unsigned count)
{
    struct shard *shard = context;
    struct call call = {.shard = shard, .conn = conn, .client = net_conn_user(conn), .args = args, .count = count};
    KVS_ASSERT(count >= 1);
    unsigned watch = call.client->special | atomic_load_explicit(&shard->node->watch, memory_order_relaxed);
    if (__builtin_expect(watch != 0, 0)) {
        command_watched(&call);
        return;
    }
    /* The two that matter most, without a search. ORing 0x20 makes capitals small, and turns nothing else into
     * these.
     */
    if (args[0].size == 3 && shard->serving && (args[0].data[1] | 0x20) == 'e' && (args[0].data[2] | 0x20) == 't') {
        uint8_t first = args[0].data[0] | 0x20;
        if (first == 'g' && count == 2) {
            timing_run(shard, FRAME_GET);
            note_command(&call, shard->frame_commands[FRAME_GET], NULL);
            command_get(&call);
            return;
        }
        if (first == 's' && count == 3 && args[2].size <= METER_RUN_VALUE_BYTES) {
            timing_run(shard, FRAME_SET);
            note_command(&call, shard->frame_commands[FRAME_SET], NULL);
            command_set(&call);
            return;
        }
    }
    command_any(&call, false);
}
