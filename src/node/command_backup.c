/*
 * command_backup.c - BGSAVE, SAVE and LASTSAVE, and what the BACKUP frame shares with them.
 *
 * Happy path: the name is checked, or made of the time, and given to the engine; the reply says that the backup has
 * begun. How it ends is told by INFO persistence. Failure: a name that could lead elsewhere, a backup under way, an
 * engine without files.
 */
#include "node/command.h"
#include "node/node_internal.h"
#include "node/waiting.h"

#include <time.h>

enum { MS_PER_S = 1000, NS_PER_S = 1000000000 };

enum kvs_err command_backup_begin(struct shard *shard, struct slice name, char called[ENGINE_BACKUP_NAME_BYTES])
{
    if (name.size >= ENGINE_BACKUP_NAME_BYTES || (name.size > 0 && memchr(name.data, 0, name.size) != NULL))
        return KVS_ERR_INVALID;
    if (name.size > 0) {
        memcpy(called, name.data, name.size);
        called[name.size] = '\0';
    } else {
        time_t now = (time_t)(ring_wall_ms(shard->ring) / MS_PER_S);
        struct tm utc;
        if (gmtime_r(&now, &utc) == NULL || strftime(called, ENGINE_BACKUP_NAME_BYTES, "%Y%m%d-%H%M%S", &utc) == 0)
            return KVS_ERR_SYSTEM;
    }
    return engine_backup_begin(shard->store, called, shard->ring);
}

const char *command_backup_error(enum kvs_err error)
{
    switch (error) {
    case KVS_ERR_AGAIN:
        return "Background save already in progress";
    case KVS_ERR_INVALID:
        return "invalid name of a backup: 1 to 64 letters, digits, dots, dashes and underscores, no dot at first";
    case KVS_ERR_UNSUPPORTED:
        return "this engine keeps nothing that could be saved";
    default:
        return kvs_err_text(error);
    }
}

/* Redis knows one argument, SCHEDULE, for the time when something else is being saved; nothing is ever in the way here.
 */
void command_bgsave(struct call *call)
{
    bool named = call->count > 1 && !command_word_is(call->args[1], "schedule");
    if (call->count > 2) {
        call_error(call, "ERR syntax error");
        return;
    }
    char called[ENGINE_BACKUP_NAME_BYTES];
    enum kvs_err err = command_backup_begin(call->shard, named ? call->args[1] : slice_make("", 0), called);
    if (err == KVS_ERR_OK)
        call_simple(call, "Background saving started");
    else
        call_error(call, "ERR %s", command_backup_error(err));
}

/* As BGSAVE, and waits for the end. */
void command_save(struct call *call)
{
    char called[ENGINE_BACKUP_NAME_BYTES];
    struct engine_backup_state state;
    engine_backup_state(call->shard->store, &state);
    enum kvs_err err = command_backup_begin(call->shard, slice_make("", 0), called);
    if (err == KVS_ERR_OK)
        waiting_backup(call, state.ended);
    else
        call_error(call, "ERR %s", command_backup_error(err));
}

/* As in Redis: when the node has started, as long as there was no backup since. */
void command_lastsave(struct call *call)
{
    struct engine_backup_state state = {0};
    if (node_is_open(call->shard->node))
        engine_backup_state(call->shard->store, &state);
    call_integer(call, (int64_t)command_last_save_s(call->shard->node, call->shard->ring, &state));
}

uint64_t command_last_save_s(const struct node *node, const struct ring *ring, const struct engine_backup_state *state)
{
    if (state->good_moment_ms != 0)
        return state->good_moment_ms / MS_PER_S;
    return ring_wall_ms(ring) / MS_PER_S - (ring_now_ns(ring) - node->started_ns) / NS_PER_S;
}
