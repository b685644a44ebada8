/*
 * client.c - connections as clients see each other: CLIENT LIST's line, names, beginning and end.
 *
 * Addresses are asked of the system when somebody wants to see them, not kept. What the node has no notion of
 * (databases, subscriptions, transactions) is shown as Redis shows it where there is none.
 *
 * Failures: an address that the system does not know any more is shown as nothing.
 */
#include "node/client.h"

#include "base/assert.h"
#include "node/command.h"
#include "node/monitor.h"
#include "node/multi.h"
#include "node/node_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define NS_PER_S 1000000000u

void client_opened(struct shard *shard, struct net_conn *conn)
{
    struct node *node = shard->node;
    struct client *client = net_conn_user(conn);
    client->id = atomic_fetch_add_explicit(&node->client_id, 1, memory_order_relaxed) + 1;
    client->resp_version = 2;
    client->relaxed = client->was_relaxed = settings_get(&node->settings, SETTING_RELAXED) != 0;
    client->conn = conn;
    client->since_ns = client->seen_ns = ring_now_ns(shard->ring);
    list_init(&client->paused);
    list_init(&client->monitor);
    acl_holder_reset(&client->user, acl_read_begin(node->acl, shard->id));
    acl_read_end(node->acl, shard->id);
    unsigned clients = atomic_fetch_add_explicit(&node->clients, 1, memory_order_relaxed) + 1;
    if (clients > settings_get(&node->settings, SETTING_CLIENTS_MAX)) {
        client->special = CLIENT_OVER_LIMIT;
        atomic_fetch_add_explicit(&node->clients_refused, 1, memory_order_relaxed);
    }
}

static void drop_texts(struct client_texts *texts)
{
    list_remove(&texts->link);
    free(texts);
}

void client_closed(struct shard *shard, struct net_conn *conn)
{
    struct client *client = net_conn_user(conn);
    list_remove(&client->paused);
    monitor_leave(shard, client);
    if (client->texts != NULL)
        drop_texts(client->texts);
    client->texts = NULL;
    multi_forget(shard, client);
    atomic_fetch_sub_explicit(&shard->node->clients, 1, memory_order_relaxed);
}

void client_abandon_all(struct shard *shard)
{
    while (!list_empty(&shard->client_texts))
        drop_texts(container_of(shard->client_texts.next, struct client_texts, link));
    multi_abandon(shard);
    list_init(&shard->paused);
    list_init(&shard->monitors);
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

size_t client_text_max(enum client_text which)
{
    return which == CLIENT_NAME ? CLIENT_NAME_BYTES_MAX : CLIENT_LIBRARY_BYTES_MAX;
}

struct slice client_text(const struct client *client, enum client_text which)
{
    const struct client_texts *texts = client->texts;
    if (texts == NULL)
        return slice_make("", 0);
    switch (which) {
    case CLIENT_NAME:
        return slice_make(texts->name, texts->name_bytes);
    case CLIENT_LIBRARY:
        return slice_make(texts->library, texts->library_bytes);
    case CLIENT_VERSION:
        break;
    }
    return slice_make(texts->version, texts->version_bytes);
}

bool client_set_text(struct shard *shard, struct client *client, enum client_text which, struct slice text)
{
    if (text.size > client_text_max(which))
        return false;
    if (client->texts == NULL) {
        if (text.size == 0)
            return true;
        client->texts = calloc(1, sizeof(*client->texts));
        if (client->texts == NULL)
            return false;
        list_push_back(&shard->client_texts, &client->texts->link);
    }
    struct client_texts *texts = client->texts;
    char *to = which == CLIENT_NAME ? texts->name : which == CLIENT_LIBRARY ? texts->library : texts->version;
    uint8_t *bytes = which == CLIENT_NAME      ? &texts->name_bytes
                     : which == CLIENT_LIBRARY ? &texts->library_bytes
                                               : &texts->version_bytes;
    if (text.size > 0)
        memcpy(to, text.data, text.size);
    *bytes = (uint8_t)text.size;
    return true;
}

/* ---- CLIENT LIST ----------------------------------------------------------------------------------------------- */

static uint64_t seconds_since(uint64_t then_ns, uint64_t now_ns)
{
    return now_ns > then_ns ? (now_ns - then_ns) / NS_PER_S : 0;
}

static void add_user(struct shard *shard, struct client *client, struct text *out)
{
    const struct acl_table *table = acl_read_begin(shard->node->acl, shard->id);
    const struct acl_user *user = acl_holder_user(&client->user, table);
    text_printf(out, " user=%s", user != NULL ? user->name : "");
    acl_read_end(shard->node->acl, shard->id);
}

static void add_command(const struct client *client, struct text *out)
{
    if (client->command == NULL)
        text_printf(out, " cmd=NULL");
    else if (client->sub == NULL)
        text_printf(out, " cmd=%s", client->command->name);
    else
        text_printf(out, " cmd=%s|%s", client->command->name, client->sub->name);
}

const char *client_address(const struct net_conn *conn, bool local, char text[CLIENT_ADDRESS_BYTES], bool *is_unix)
{
    struct ring_addr addr;
    enum kvs_err err = local ? net_conn_local(conn, &addr) : net_conn_peer(conn, &addr);
    text[0] = 0;
    *is_unix = false;
    if (err != KVS_ERR_OK)
        return text;
    *is_unix = addr.storage.ss_family == AF_UNIX;
    (void)ring_addr_format(&addr, text);
    if (*is_unix) { /* as Redis has it */
        size_t prefix = strlen("unix:"), size = strlen(text);
        memmove(text, text + prefix, size - prefix + 1);
        memcpy(text + size - prefix, ":0", 3);
    }
    return text;
}

void client_list_line(struct shard *shard, struct net_conn *conn, struct text *out)
{
    struct client *client = net_conn_user(conn);
    struct net_conn_info info;
    char address[CLIENT_ADDRESS_BYTES], local[CLIENT_ADDRESS_BYTES], flags[8];
    bool is_unix, peer_unix;
    uint64_t now_ns = ring_now_ns(shard->ring);
    size_t flag_count = 0;
    net_conn_info(conn, &info);

    /* The end of a Unix socket that has connected has no name: the listener's is shown for it. */
    (void)client_address(conn, true, local, &is_unix);
    (void)client_address(conn, false, address, &peer_unix);
    text_printf(out, "id=%llu addr=%s laddr=%s fd=%d name=", (unsigned long long)client->id, is_unix ? local : address,
                local, info.fd);
    text_add(out, client_text(client, CLIENT_NAME));
    if (info.ending)
        flags[flag_count++] = 'c';
    if (is_unix)
        flags[flag_count++] = 'U';
    if (client->no_evict)
        flags[flag_count++] = 'e';
    if (client->no_touch)
        flags[flag_count++] = 'T';
    if (!list_empty(&client->monitor))
        flags[flag_count++] = 'O';
    if (flag_count == 0)
        flags[flag_count++] = 'N';
    flags[flag_count] = 0;
    text_printf(out, " age=%llu idle=%llu flags=%s db=0 sub=0 psub=0 ssub=0 multi=%d",
                (unsigned long long)seconds_since(client->since_ns, now_ns),
                (unsigned long long)seconds_since(client->seen_ns, now_ns), flags, multi_count(client));
    text_printf(out,
                " qbuf=%zu qbuf-free=%zu argv-mem=%zu multi-mem=0 rbs=0 rbp=0 obl=0 oll=%u omem=%llu tot-mem=%zu "
                "events=%s%s",
                info.input_bytes + info.request_bytes, info.input_free_bytes, info.request_bytes, info.output_replies,
                (unsigned long long)info.output_bytes, info.memory_bytes, info.receiving ? "r" : "",
                info.sending ? "w" : "");
    add_command(client, out);
    add_user(shard, client, out);
    text_printf(out, " redir=-1 resp=%d lib-name=", client->resp_version);
    text_add(out, client_text(client, CLIENT_LIBRARY));
    text_printf(out, " lib-ver=");
    text_add(out, client_text(client, CLIENT_VERSION));
}
