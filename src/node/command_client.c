/*
 * command_client.c - CLIENT: what connections know of themselves and of each other.
 *
 * LIST and KILL look at the connections of all shards (crowd.h). PAUSE is access.h's. There is no client-side caching:
 * TRACKING says so, and its relatives answer as a Redis where it is off. No command blocks: UNBLOCK never finds
 * anybody.
 */
#include "node/command_client.h"

#include "node/access.h"
#include "node/crowd.h"
#include "node/node_internal.h"

#include <stdlib.h>

#define IDS_MAX      1024u /* of one LIST */
#define QUOTED       128u
#define NS_PER_MS    1000000u
#define PAUSE_MS_MAX (INT64_MAX / 2 / NS_PER_MS)

static int quoted(struct slice text)
{
    return (int)(text.size < QUOTED ? text.size : QUOTED);
}

/* Printable and without blanks, so that a list of clients can be read by programs. */
static bool is_plain(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '!' || text.data[i] > '~')
            return false;
    }
    return true;
}

/* ---- what it says of itself ------------------------------------------------------------------------------------ */

bool client_name_fits(struct call *call, struct slice name)
{
    if (!is_plain(name))
        call_error(call, "ERR Client names cannot contain spaces, newlines or special characters.");
    else if (name.size > CLIENT_NAME_BYTES_MAX)
        call_error(call, "ERR client name of %zu bytes is too long; the limit is %u", name.size, CLIENT_NAME_BYTES_MAX);
    else
        return true;
    return false;
}

static void set_text(struct call *call, enum client_text which, struct slice text)
{
    if (client_set_text(call->shard, call->client, which, text))
        call_simple(call, "OK");
    else if (text.size > client_text_max(which))
        call_error(call, "ERR %zu bytes are too long; the limit is %zu", text.size, client_text_max(which));
    else
        call_error(call, "OOM kvs-node: no memory for the request");
}

static void run_setname(struct call *call)
{
    if (client_name_fits(call, call->args[2]))
        set_text(call, CLIENT_NAME, call->args[2]);
}

static void run_getname(struct call *call)
{
    struct slice name = client_text(call->client, CLIENT_NAME);
    if (name.size == 0)
        call_null(call);
    else
        call_bulk(call, name);
}

static void run_id(struct call *call)
{
    call_integer(call, (int64_t)call->client->id);
}

static void run_setinfo(struct call *call)
{
    struct slice attribute = call->args[2];
    bool name = command_word_is(attribute, "lib-name");
    if (!name && !command_word_is(attribute, "lib-ver"))
        call_error(call, "ERR Unrecognized option '%.*s'", quoted(attribute), (const char *)attribute.data);
    else if (!is_plain(call->args[3]))
        call_error(call, "ERR %s cannot contain spaces, newlines or special characters.",
                   name ? "lib-name" : "lib-ver");
    else
        set_text(call, name ? CLIENT_LIBRARY : CLIENT_VERSION, call->args[3]);
}

static void run_info(struct call *call)
{
    struct text line = {0}, text = {0};
    client_list_line(call->shard, call->conn, &line);
    text_add(&line, slice_text("\n"));
    text_verbatim(&text, slice_make(line.data, line.size), call->client->resp_version);
    text.failed |= line.failed;
    text_deinit(&line);
    call_text(call, &text);
}

/* ---- LIST and KILL --------------------------------------------------------------------------------------------- */

static bool find_type(struct slice word, enum crowd_type *type)
{
    *type = CROWD_NOBODY;
    if (command_word_is(word, "normal"))
        *type = CROWD_NORMAL;
    return *type == CROWD_NORMAL || command_word_is(word, "master") || command_word_is(word, "replica") ||
           command_word_is(word, "slave") || command_word_is(word, "pubsub");
}

static bool parse_type(struct call *call, struct slice word, enum crowd_type *type)
{
    if (find_type(word, type))
        return true;
    call_error(call, "ERR Unknown client type '%.*s'", quoted(word), (const char *)word.data);
    return false;
}

static void list_ids(struct call *call, struct crowd_filter *filter)
{
    uint64_t ids[IDS_MAX];
    unsigned count = 0;
    if (call->count - 3 > IDS_MAX) {
        call_error(call, "ERR CLIENT LIST takes %u IDs at most", IDS_MAX);
        return;
    }
    for (unsigned i = 3; i < call->count; i++) {
        int64_t id;
        if (!command_integer(call->args[i], &id)) {
            call_error(call, "ERR Invalid client ID");
            return;
        }
        ids[count++] = (uint64_t)id;
    }
    filter->ids = ids;
    filter->id_count = count;
    crowd_ask(call, CROWD_LIST, filter);
}

static void run_list(struct call *call)
{
    struct crowd_filter filter = {0};
    if (call->count == 4 && command_word_is(call->args[2], "type")) {
        if (parse_type(call, call->args[3], &filter.type))
            crowd_ask(call, CROWD_LIST, &filter);
    } else if (call->count > 3 && command_word_is(call->args[2], "id")) {
        list_ids(call, &filter);
    } else if (call->count == 2) {
        crowd_ask(call, CROWD_LIST, &filter);
    } else {
        call_error(call, "ERR syntax error");
    }
}

static bool kill_user(struct call *call, struct slice name, struct crowd_filter *filter)
{
    struct acl *acl = call->shard->node->acl;
    const struct acl_user *user = acl_find(acl_read_begin(acl, call->shard->id), name);
    filter->user = user != NULL ? user->uid : 0;
    acl_read_end(acl, call->shard->id);
    if (filter->user == 0)
        call_error(call, "ERR No such user '%.*s'", quoted(name), (const char *)name.data);
    return filter->user != 0;
}

/* One option and its value; false: the request has its answer. */
static bool kill_option(struct call *call, struct slice option, struct slice value, struct crowd_filter *filter,
                        uint64_t *id)
{
    int64_t number;
    if (command_word_is(option, "id") || command_word_is(option, "maxage")) {
        bool age = (option.data[0] | 0x20) == 'm';
        if (!command_integer(value, &number) || number < 1) {
            call_error(call,
                       age ? "ERR maxage is not an integer or out of range" : "ERR client-id should be greater than 0");
            return false;
        }
        *(age ? &filter->age_s_min : id) = (uint64_t)number;
        return true;
    }
    if (command_word_is(option, "type"))
        return parse_type(call, value, &filter->type);
    if (command_word_is(option, "addr")) {
        filter->addr = value;
        return true;
    }
    if (command_word_is(option, "laddr")) {
        filter->local_addr = value;
        return true;
    }
    if (command_word_is(option, "user"))
        return kill_user(call, value, filter);
    bool yes = command_word_is(value, "yes");
    if (command_word_is(option, "skipme") && (yes || command_word_is(value, "no"))) {
        filter->except = yes ? call->client->id : 0;
        return true;
    }
    call_error(call, "ERR syntax error");
    return false;
}

static void run_kill(struct call *call)
{
    struct crowd_filter filter = {0};
    uint64_t id = 0;
    if (call->count == 3) {
        filter.addr = call->args[2];
        crowd_ask(call, CROWD_KILL_ONE, &filter);
        return;
    }
    filter.except = call->client->id;
    for (unsigned i = 2; i < call->count; i += 2) {
        if (i + 1 == call->count) {
            call_error(call, "ERR syntax error");
            return;
        }
        if (!kill_option(call, call->args[i], call->args[i + 1], &filter, &id))
            return;
    }
    if (id != 0) {
        filter.ids = &id;
        filter.id_count = 1;
    }
    crowd_ask(call, CROWD_KILL, &filter);
}

/* ---- how it is treated ----------------------------------------------------------------------------------------- */

static void run_reply(struct call *call)
{
    struct client *client = call->client;
    struct slice mode = call->args[2];
    if (command_word_is(mode, "on")) {
        client->special &= (uint8_t) ~(CLIENT_REPLY_OFF | CLIENT_REPLY_SKIP);
        net_reply_mute(call->conn, false);
        call_simple(call, "OK");
    } else if (command_word_is(mode, "off") || command_word_is(mode, "skip")) {
        bool off = (mode.data[0] | 0x20) == 'o';
        if (off || (client->special & CLIENT_REPLY_OFF) == 0)
            client->special |= off ? CLIENT_REPLY_OFF : CLIENT_REPLY_SKIP;
        net_reply_mute(call->conn, true);
        call_simple(call, "OK");
    } else {
        call_error(call, "ERR syntax error");
    }
}

static void set_flag(struct call *call, bool *flag)
{
    bool on = command_word_is(call->args[2], "on");
    if (!on && !command_word_is(call->args[2], "off")) {
        call_error(call, "ERR syntax error");
        return;
    }
    *flag = on;
    call_simple(call, "OK");
}

static void run_no_evict(struct call *call)
{
    set_flag(call, &call->client->no_evict);
}

static void run_no_touch(struct call *call)
{
    set_flag(call, &call->client->no_touch);
}

static void run_pause(struct call *call)
{
    int64_t ms;
    bool all = call->count == 3 || command_word_is(call->args[3], "all");
    if (call->count > 4)
        call_error(call, "ERR syntax error");
    else if (!all && !command_word_is(call->args[3], "write"))
        call_error(call, "ERR CLIENT PAUSE mode must be WRITE or ALL");
    else if (!command_integer(call->args[2], &ms) || ms > (int64_t)PAUSE_MS_MAX)
        call_error(call, "ERR timeout is not an integer or out of range");
    else if (ms < 0)
        call_error(call, "ERR timeout is negative");
    else {
        access_pause(call->shard, ring_now_ns(call->shard->ring) + (uint64_t)ms * NS_PER_MS, all);
        call_simple(call, "OK");
    }
}

static void run_unpause(struct call *call)
{
    access_unpause(call->shard->node);
    call_simple(call, "OK");
}

static void run_unblock(struct call *call)
{
    int64_t id;
    if (call->count > 4)
        call_error(call, "ERR wrong number of arguments for 'client|unblock' command");
    else if (call->count == 4 && !command_word_is(call->args[3], "timeout") && !command_word_is(call->args[3], "error"))
        call_error(call, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    else if (!command_integer(call->args[2], &id))
        call_error(call, "ERR value is not an integer or out of range");
    else
        call_integer(call, 0);
}

/* ---- client-side caching, which there is none of --------------------------------------------------------------- */

static void run_tracking(struct call *call)
{
    if (command_word_is(call->args[2], "off"))
        call_simple(call, "OK");
    else if (command_word_is(call->args[2], "on"))
        call_error(call, "ERR CLIENT TRACKING is not offered: kvs-node does not tell clients of changed keys");
    else
        call_error(call, "ERR syntax error");
}

static void run_caching(struct call *call)
{
    call_error(call,
               "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode "
               "enabled");
}

static void run_getredir(struct call *call)
{
    call_integer(call, -1);
}

static void run_trackinginfo(struct call *call)
{
    int version = call->client->resp_version;
    struct text text = {0};
    text_map(&text, 3, version);
    text_bulk(&text, "flags");
    text_set(&text, 1, version);
    text_bulk(&text, "off");
    text_bulk(&text, "redirect");
    text_integer(&text, -1);
    text_bulk(&text, "prefixes");
    text_array(&text, 0);
    call_text(call, &text);
}

#define OWN   (COMMAND_NOSCRIPT | COMMAND_LOADING | COMMAND_STALE)
#define ADMIN (OWN | COMMAND_ADMIN)

const struct subcommand command_client_subcommands[] = {
    {"caching", 3, OWN, "(YES|NO)", "Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
     run_caching},
    {"getname", 2, OWN, "", "Return the name of the current connection.", run_getname},
    {"getredir", 2, OWN, "", "Return the client ID we are redirecting to when tracking is enabled.", run_getredir},
    {"id", 2, OWN, "", "Return the ID of the current connection.", run_id},
    {"info", 2, OWN, "", "Return information about the current client connection.", run_info},
    {"kill", -3, ADMIN, "(<ip:port>|<option> <value> [<option> <value> [...]])",
     "Kill the connection made from <ip:port>, or all that fit the options:\n"
     "* ADDR (<ip:port>|<unixsocket>:0)\n"
     "  Kill connections made from the specified address\n"
     "* LADDR (<ip:port>|<unixsocket>:0)\n"
     "  Kill connections made to specified local address\n"
     "* TYPE (NORMAL|MASTER|REPLICA|PUBSUB)\n"
     "  Kill connections by type.\n"
     "* USER <username>\n"
     "  Kill connections authenticated by <username>.\n"
     "* SKIPME (YES|NO)\n"
     "  Skip killing current connection (default: yes).\n"
     "* ID <client-id>\n"
     "  Kill connections by client id.\n"
     "* MAXAGE <maxage>\n"
     "  Kill connections older than the specified age.",
     run_kill},
    {"list", -2, ADMIN, "[options ...]",
     "Return information about client connections. Options:\n"
     "* TYPE (NORMAL|MASTER|REPLICA|PUBSUB)\n"
     "  Return clients of specified type.\n"
     "* ID <client-id> [<client-id> ...]\n"
     "  Return clients with these IDs.",
     run_list},
    {"no-evict", 3, ADMIN, "(ON|OFF)", "Protect current client connection from eviction.", run_no_evict},
    {"no-touch", 3, OWN, "(ON|OFF)", "Will not touch LRU/LFU stats when this mode is on.", run_no_touch},
    {"pause", -3, ADMIN, "<timeout> [WRITE|ALL]", "Suspend all, or just write, clients for <timeout> milliseconds.",
     run_pause},
    {"reply", 3, OWN, "(ON|OFF|SKIP)", "Control the replies sent to the current connection.", run_reply},
    {"setinfo", 4, OWN, "<option> <value>", "Tell the name or the version of the client library.", run_setinfo},
    {"setname", 3, OWN, "<name>", "Assign the name <name> to the current connection.", run_setname},
    {"tracking", -3, OWN, "(ON|OFF) [options ...]", "Not offered: clients are not told of changed keys.", run_tracking},
    {"trackinginfo", 2, OWN, "", "Report tracking status for the current connection.", run_trackinginfo},
    {"unblock", -3, ADMIN, "<clientid> [TIMEOUT|ERROR]", "Unblock the specified blocked client.", run_unblock},
    {"unpause", 2, ADMIN, "", "Stop the current client pause, resuming traffic.", run_unpause},
    {NULL, 0, 0, NULL, NULL, NULL},
};
