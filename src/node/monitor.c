/*
 * monitor.c - lines about commands, to whoever watches.
 *
 *   command ─► line ─► monitor_lines ─ once per turn ─┬► monitors of this shard: net_conn_push
 *                                                     └► a copy by mail to each shard that has some ─► the same there
 *
 * Mail belongs to the shard that has made it, which frees it when the receiver has marked it as read.
 *
 * Failures. No memory for lines, or too many under way: whoever would have missed some is ended, for a gap that is not
 * seen would be a lie.
 */
#include "node/monitor.h"

#include "base/assert.h"
#include "base/diag.h"
#include "node/access.h"
#include "node/node_internal.h"
#include "node/redact.h"

#include <stdlib.h>

struct lines {
    struct mail mail;
    struct list link; /* in monitor_mails of the shard that has made it */
    _Atomic bool read;
    bool gap; /* lines are missing after these */
    size_t size;
    uint8_t bytes[];
};

/* ---- one line -------------------------------------------------------------------------------------------------- */

static void add_byte(struct text *line, uint8_t byte)
{
    static const char special[] = "\n\r\t\a\b\\\"", letters[] = "nrtab\\\"";
    const char *at = byte != 0 ? strchr(special, byte) : NULL;
    if (at != NULL)
        text_printf(line, "\\%c", letters[at - special]);
    else if (byte >= ' ' && byte < 127)
        text_add(line, slice_make(&byte, 1));
    else
        text_printf(line, "\\x%02x", byte);
}

static void add_arg(struct text *line, struct slice arg)
{
    const size_t shown = arg.size < MONITOR_ARG_BYTES ? arg.size : MONITOR_ARG_BYTES;
    text_add(line, slice_text("\""));
    for (size_t i = 0; i < shown; i++)
        add_byte(line, arg.data[i]);
    text_add(line, slice_text("\""));
    if (shown < arg.size)
        text_printf(line, "... (%zu more bytes)", arg.size - shown);
}

static void add_line(struct text *line, const struct call *call, const struct subcommand *sub)
{
    char peer[CLIENT_ADDRESS_BYTES], local[CLIENT_ADDRESS_BYTES];
    bool is_unix, peer_unix;
    const uint64_t us = ring_wall_us(call->shard->ring);
    (void)client_address(call->conn, true, local, &is_unix);
    (void)client_address(call->conn, false, peer, &peer_unix);
    text_printf(line, "+%llu.%06llu [0 ", (unsigned long long)(us / 1000000), (unsigned long long)(us % 1000000));
    if (is_unix)
        text_printf(line, "unix:%.*s]", (int)(strlen(local) - strlen(":0")), local);
    else
        text_printf(line, "%s]", peer);
    const unsigned shown = call->count < MONITOR_ARGS ? call->count : MONITOR_ARGS;
    for (unsigned i = 0; i < shown; i++) {
        text_add(line, slice_text(" "));
        add_arg(line,
                redact_hides(call->command, sub, call->args, call->count, i) ? slice_text(REDACTED) : call->args[i]);
    }
    if (shown < call->count)
        text_printf(line, " ... (%u more arguments)", call->count - shown);
    text_add(line, slice_text("\r\n"));
}

void monitor_note(struct call *call, const struct subcommand *sub)
{
    struct shard *shard = call->shard;
    const unsigned watch = atomic_load_explicit(&shard->node->watch, memory_order_relaxed);
    const unsigned flags = sub != NULL ? sub->flags : call->command->flags;
    if ((watch & ACCESS_WATCH_MONITOR) == 0 || (flags & COMMAND_ADMIN) != 0)
        return;
    if (!shard->serving && (flags & COMMAND_LOADING) == 0)
        return;
    if (shard->monitor_lines.size > MONITOR_OUTPUT_MAX)
        shard->monitor_lines.failed = true;
    if (!shard->monitor_lines.failed)
        add_line(&shard->monitor_lines, call, sub);
}

/* ---- who watches ----------------------------------------------------------------------------------------------- */

void command_monitor(struct call *call)
{
    struct node *node = call->shard->node;
    if (!list_empty(&call->client->monitor)) { /* nothing is said to that */
        if (net_reply_reserve(call->conn, 1) != NULL)
            net_reply_commit(call->conn, 0, 0);
        return;
    }
    list_push_back(&call->shard->monitors, &call->client->monitor);
    atomic_fetch_add(&node->monitors, 1);
    atomic_fetch_add(&node->shard_monitors[call->shard->id], 1);
    atomic_fetch_or(&node->watch, ACCESS_WATCH_MONITOR);
    call_simple(call, "OK");
}

void monitor_leave(struct shard *shard, struct client *client)
{
    struct node *node = shard->node;
    if (list_empty(&client->monitor))
        return;
    list_remove(&client->monitor);
    atomic_fetch_sub(&node->shard_monitors[shard->id], 1);
    if (atomic_fetch_sub(&node->monitors, 1) > 1)
        return;
    atomic_fetch_and(&node->watch, ~ACCESS_WATCH_MONITOR);
    if (atomic_load(&node->monitors) > 0) /* another one has begun meanwhile */
        atomic_fetch_or(&node->watch, ACCESS_WATCH_MONITOR);
}

/* ---- lines on their way ---------------------------------------------------------------------------------------- */

static void push(struct shard *shard, struct slice lines, bool gap)
{
    for (struct list *node = shard->monitors.next, *next; node != &shard->monitors; node = next) {
        struct client *client = container_of(node, struct client, monitor);
        struct net_conn_info info;
        next = node->next;
        net_conn_info(client->conn, &info);
        if (info.ending)
            continue;
        const bool fits = info.output_bytes + lines.size <= MONITOR_OUTPUT_MAX;
        if (!gap && fits && (lines.size == 0 || net_conn_push(client->conn, lines)))
            continue;
        diag_warn("client %llu: MONITOR does not keep up with %s, and ends", (unsigned long long)client->id,
                  gap ? "the node" : "what there is to see");
        monitor_leave(shard, client);
        net_conn_drop(client->conn);
    }
}

void monitor_deliver(struct shard *shard, struct mail *mail)
{
    struct lines *lines = container_of(mail, struct lines, mail);
    push(shard, slice_make(lines->bytes, lines->size), lines->gap);
    atomic_store_explicit(&lines->read, true, memory_order_release);
}

/* False: no memory. */
static bool post(struct shard *shard, unsigned to, struct slice bytes, bool gap)
{
    const bool fits = shard->monitor_mail_bytes + bytes.size <= MONITOR_OUTPUT_MAX;
    if (!fits) {
        bytes.size = 0;
        gap = true;
    }
    struct lines *lines = malloc(sizeof(*lines) + bytes.size);
    if (lines == NULL)
        return false;
    lines->mail.kind = MAIL_MONITOR;
    lines->gap = gap;
    lines->size = bytes.size;
    atomic_init(&lines->read, false);
    if (bytes.size > 0)
        memcpy(lines->bytes, bytes.data, bytes.size);
    list_push_back(&shard->monitor_mails, &lines->link);
    shard->monitor_mail_bytes += lines->size;
    mailbox_post(shard->mailbox, to, &lines->mail);
    return true;
}

static void free_lines(struct shard *shard, struct lines *lines)
{
    list_remove(&lines->link);
    shard->monitor_mail_bytes -= lines->size;
    free(lines);
}

static void free_read(struct shard *shard)
{
    for (struct list *node = shard->monitor_mails.next, *next; node != &shard->monitor_mails; node = next) {
        struct lines *lines = container_of(node, struct lines, link);
        next = node->next;
        if (atomic_load_explicit(&lines->read, memory_order_acquire))
            free_lines(shard, lines);
    }
}

void monitor_turn(struct shard *shard)
{
    if (!list_empty(&shard->monitor_mails))
        free_read(shard);
    struct text *text = &shard->monitor_lines;
    if (text->size == 0 && !text->failed)
        return;
    const struct slice lines = slice_make(text->data, text->size);
    bool gap = false;
    push(shard, lines, text->failed);
    for (unsigned i = 0; i < shard->count; i++) {
        if (i != shard->id && atomic_load_explicit(&shard->node->shard_monitors[i], memory_order_relaxed) > 0)
            gap |= !post(shard, i, lines, text->failed);
    }
    text_deinit(text);
    text->failed = gap; /* the next turn tells them */
}

void monitor_abandon(struct shard *shard)
{
    while (!list_empty(&shard->monitor_mails))
        free_lines(shard, container_of(shard->monitor_mails.next, struct lines, link));
    text_deinit(&shard->monitor_lines);
}
