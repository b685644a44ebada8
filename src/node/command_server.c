/*
 * command_server.c - commands about the node and all keys together: INFO, DBSIZE, TIME, FLUSHALL.
 */
#include "node/command.h"
#include "node/flush.h"
#include "node/info.h"
#include "node/node_internal.h"

#include <stdio.h>

void command_info(struct call *call)
{
    unsigned sections = call->count == 1 ? INFO_DEFAULT : 0;
    for (unsigned i = 1; i < call->count; i++)
        sections |= info_section(call->args[i]);

    struct text info = {0};
    info_write(call->shard->node, call->shard->ring, sections, &info);
    struct text reply = {0};
    text_verbatim(&reply, slice_make(info.data, info.size), call->client->resp_version);
    reply.failed |= info.failed;
    text_deinit(&info);
    call_text(call, &reply);
}

/* Keys of all shards. Writes of this connection that are still under way to other shards may be missing. */
void command_dbsize(struct call *call)
{
    struct engine_stats stats;
    engine_stats(call->shard->store, &stats);
    call_integer(call, (int64_t)stats.keys);
}

/* FLUSHDB, too. Whether memory is freed at once or later is nobody's business but the engine's: SYNC and ASYNC are the
 * same. */
void command_flushall(struct call *call)
{
    const bool mode =
        call->count == 2 && (command_word_is(call->args[1], "async") || command_word_is(call->args[1], "sync"));
    if (call->count > 1 && !mode)
        call_error(call, "ERR syntax error");
    else
        flush_begin(call);
}

void command_time(struct call *call)
{
    const uint64_t us = ring_wall_us(call->shard->ring);
    struct text text = {0};
    char number[24];
    text_array(&text, 2);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)(us / 1000000));
    text_bulk(&text, number);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)(us % 1000000));
    text_bulk(&text, number);
    call_text(call, &text);
}
