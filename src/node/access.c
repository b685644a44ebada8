/*
 * access.c - checks before a request is carried out.
 *
 * Order, as in Redis: logged in? may the user run this command? with these keys? is there a pause?
 *
 * A pause. The request is postponed: net keeps it at the front of what it has received of the connection, and reads no
 * further. Connections that wait so are in shard->paused; each turn looks whether the pause is over, at least every few
 * milliseconds, which is also how the end of a pause on another shard is noticed. A stop of the node ends them all.
 *
 * Failures: a connection whose user is gone ends, without an answer.
 */
#include "node/access.h"

#include "base/assert.h"
#include "base/canary.h"
#include "node/multi.h"
#include "node/node_internal.h"
#include "proto/frame.h"

#include <stdio.h>

#define PAUSE_LOOK_NS 2000000

enum access_answer access_of_user(const struct acl_numbers *numbers, const struct acl_user *user,
                                  const struct command *command, const struct subcommand *sub, const struct slice *args,
                                  unsigned count, struct slice *key)
{
    unsigned flags = sub != NULL ? sub->flags : command->flags;
    if ((flags & COMMAND_NO_AUTH) == 0 && !acl_user_may_run(user, acl_number(numbers, command, sub)))
        return ACCESS_NO_COMMAND;
    if (user->keys.all)
        return ACCESS_GRANTED;
    struct acl_key_use use = acl_keys(command, sub, args, count);
    for (unsigned i = use.first; use.first > 0 && i <= use.last; i += use.step) {
        if (acl_user_may_touch(user, i == use.first ? use.access_first : use.access, args[i]))
            continue;
        *key = args[i];
        return ACCESS_NO_KEY;
    }
    return ACCESS_GRANTED;
}

static const char *full_name(const struct command *command, const struct subcommand *sub, char room[96])
{
    if (sub == NULL)
        return command->name;
    snprintf(room, 96, "%s|%s", command->name, sub->name);
    return room;
}

static void note(struct call *call, const char *reason, struct slice object, const char *user)
{
    struct shard *shard = call->shard;
    struct text text = {0};
    client_list_line(shard, call->conn, &text);
    acl_log_add(shard->node->acl_log, ring_wall_ms(shard->ring), reason, object, slice_text(user),
                slice_make(text.data, text.size));
    text_deinit(&text);
}

void access_note_login(struct shard *shard, struct net_conn *conn, const char *command, struct slice user)
{
    struct text text = {0};
    client_list_line(shard, conn, &text);
    acl_log_add(shard->node->acl_log, ring_wall_ms(shard->ring), "auth", slice_text(command), user,
                slice_make(text.data, text.size));
    text_deinit(&text);
}

enum access_answer access_check(struct call *call, const struct subcommand *sub, struct slice *key)
{
    struct node *node = call->shard->node;
    const struct command *command = call->command;
    unsigned flags = sub != NULL ? sub->flags : command->flags;
    const struct acl_table *table = acl_read_begin(node->acl, call->shard->id);
    const struct acl_user *user = acl_holder_user(&call->client->user, table);
    enum access_answer answer;
    if (user == NULL)
        answer = ACCESS_GONE;
    else if ((flags & COMMAND_NO_AUTH) == 0 && !call->client->user.authenticated && !acl_is_open(table))
        answer = ACCESS_NO_AUTH;
    else
        answer = access_of_user(acl_numbers(node->acl), user, command, sub, call->args, call->count, key);
    char room[96];
    if (answer == ACCESS_NO_COMMAND)
        note(call, "command", slice_text(full_name(command, sub, room)), user->name);
    else if (answer == ACCESS_NO_KEY)
        note(call, "key", *key, user->name);
    acl_read_end(node->acl, call->shard->id);
    return answer;
}

/* The user's name, for texts. */
static void user_name(struct call *call, char name[ACL_NAME_BYTES_MAX + 1])
{
    struct acl *acl = call->shard->node->acl;
    const struct acl_user *user = acl_holder_user(&call->client->user, acl_read_begin(acl, call->shard->id));
    snprintf(name, ACL_NAME_BYTES_MAX + 1, "%s", user != NULL ? user->name : "");
    acl_read_end(acl, call->shard->id);
}

void access_postpone(struct call *call)
{
    net_request_postpone(call->conn);
    list_push_back(&call->shard->paused, &call->client->paused);
}

static bool touches_keys(const struct call *call, unsigned flags)
{
    const unsigned held = COMMAND_WRITE | (canary_on(CANARY_FLUSH_HALF_SEEN) ? 0 : COMMAND_READONLY);
    return (flags & held) != 0 || call->command->run == command_exec || call->command->run == command_watch;
}

/* True when the request has to wait: it is postponed. */
static bool paused(struct call *call, unsigned flags)
{
    struct shard *shard = call->shard;
    struct node *node = shard->node;
    if (shard->flush_pause && touches_keys(call, flags)) {
        access_postpone(call);
        return true;
    }
    uint64_t until_ns = atomic_load(&node->pause_until_ns);
    if (until_ns == 0 || (!atomic_load(&node->pause_all) && (flags & COMMAND_WRITE) == 0))
        return false;
    if (ring_now_ns(shard->ring) >= until_ns)
        return false;
    access_postpone(call);
    return true;
}

bool access_request(struct call *call, const struct subcommand *sub)
{
    unsigned flags = sub != NULL ? sub->flags : call->command->flags;
    if (call->command->run == command_exec && multi_writes(call->client))
        flags |= COMMAND_WRITE;
    unsigned watch = atomic_load_explicit(&call->shard->node->watch, memory_order_relaxed);
    struct slice key;
    char room[96], name[ACL_NAME_BYTES_MAX + 1];
    switch ((watch & ACL_WATCH) != 0 ? access_check(call, sub, &key) : ACCESS_GRANTED) {
    case ACCESS_GRANTED:
        return (watch & (ACCESS_WATCH_PAUSE | ACCESS_WATCH_FLUSH)) == 0 || !paused(call, flags);
    case ACCESS_GONE:
        net_conn_finish(call->conn);
        return false;
    case ACCESS_NO_AUTH:
        call_error(call, "NOAUTH Authentication required.");
        return false;
    case ACCESS_NO_COMMAND:
        user_name(call, name);
        call_error(call, "NOPERM User %s has no permissions to run the '%s' command", name,
                   full_name(call->command, sub, room));
        return false;
    case ACCESS_NO_KEY:
        call_error(call, "NOPERM No permissions to access a key");
        return false;
    }
    return false;
}

bool access_frame(struct call *call, uint8_t *status, const char **text, char room[256])
{
    unsigned watch = atomic_load_explicit(&call->shard->node->watch, memory_order_relaxed);
    struct slice key;
    char name[ACL_NAME_BYTES_MAX + 1];
    *text = NULL;
    switch ((watch & ACL_WATCH) != 0 ? access_check(call, NULL, &key) : ACCESS_GRANTED) {
    case ACCESS_GRANTED:
        return (watch & (ACCESS_WATCH_PAUSE | ACCESS_WATCH_FLUSH)) == 0 || !paused(call, call->command->flags);
    case ACCESS_GONE:
        net_conn_finish(call->conn);
        return false;
    case ACCESS_NO_AUTH:
        *status = FRAME_NO_AUTH;
        *text = "authentication required";
        return false;
    case ACCESS_NO_COMMAND:
        *status = FRAME_DENIED;
        user_name(call, name);
        snprintf(room, 256, "user %s has no permissions to run the '%s' command", name, call->command->name);
        *text = room;
        return false;
    case ACCESS_NO_KEY:
        *status = FRAME_DENIED;
        *text = "no permissions to access a key";
        return false;
    }
    return false;
}

/* ---- pauses ---------------------------------------------------------------------------------------------------- */

void access_pause(struct shard *shard, uint64_t until_ns, bool all)
{
    struct node *node = shard->node;
    uint64_t now_ns = ring_now_ns(shard->ring), before_ns = atomic_load(&node->pause_until_ns);
    bool goes_on = before_ns > now_ns;
    while (until_ns > before_ns && !atomic_compare_exchange_weak(&node->pause_until_ns, &before_ns, until_ns)) {
    }
    if (all || !goes_on)
        atomic_store(&node->pause_all, all);
    atomic_fetch_or(&node->watch, ACCESS_WATCH_PAUSE);
}

void access_unpause(struct node *node)
{
    /* ACCESS_WATCH_PAUSE stays: another pause may be about to begin. It costs a look at the time. */
    atomic_store(&node->pause_until_ns, 0);
}

void access_turn(struct shard *shard)
{
    if (list_empty(&shard->paused) || shard->flush_pause)
        return;
    const struct node *node = shard->node;
    uint64_t until_ns = atomic_load(&node->pause_until_ns);
    if (until_ns > ring_now_ns(shard->ring))
        return;
    struct list now;
    list_init(&now);
    while (!list_empty(&shard->paused)) {
        struct list *first = list_pop_front(&shard->paused);
        list_push_back(&now, first);
    }
    while (!list_empty(&now)) {
        struct client *client = container_of(list_pop_front(&now), struct client, paused);
        net_conn_go_on(client->conn);
    }
}

int64_t access_wait_ns(const struct shard *shard)
{
    return list_empty(&shard->paused) ? -1 : PAUSE_LOOK_NS;
}
