/*
 * crowd.c - one question, a part of it on every shard, one reply.
 *
 *   home    crowd_ask: holds the connection, defers the reply, posts a part to each other shard, keeps one
 *   each    crowd_turn: VISITS_PER_TURN connections of its own; at the end the part goes home
 *   home    the last part is back: lists are merged, by the numbers of the connections, LINES_PER_TURN at a time
 *           ─► reply ─► the connection goes on
 *
 * Failures. No memory, a list longer than GATHER_REPLY_BYTES_MAX, or more than the budget for requests under way has
 * left: an error. A connection that has gone meanwhile:
 * the answers come home all the same, and nobody hears of them. The asker is never dropped, but ended after its reply.
 */
#include "node/crowd.h"

#include "base/assert.h"
#include "node/gather.h"
#include "node/node_internal.h"
#include "proto/resp.h"

#include <stdio.h>
#include <stdlib.h>

#define VISITS_PER_TURN 128u
#define LINES_PER_TURN  4096u
#define HEADER_BYTES    32u /* before the list: "$123\r\n", or "=127\r\ntxt:" */

struct crowd_part {
    struct mail mail;
    struct list link; /* in crowd_parts of the shard it is at */
    struct crowd *crowd;
    bool walking;
    struct net_walk walk;
    struct text lines; /* each with its end */
    size_t merged;     /* of these, bytes that are in the reply */
    size_t charged;    /* memory of `lines` that is counted in the budget */
    uint64_t killed;
};

struct crowd {
    struct net_slot slot;
    struct list link;  /* in crowds of its home */
    struct list merge; /* in crowd_merges */
    struct shard *home;
    struct net_conn *conn; /* NULL: nobody asks */
    uint64_t asker;
    int resp_version;
    enum crowd_action action;
    struct crowd_filter filter;
    bool end_asker;
    unsigned pending; /* parts not back */
    struct text reply;
    size_t charged; /* of `reply` */
    char number[32];
    char *texts; /* copies of what the filter names */
    unsigned part_count;
    struct crowd_part parts[];
};

/* Counts memory in the budget of requests under way; false: that is used up. */
static bool charge(struct shard *shard, size_t *charged, size_t bytes)
{
    struct op_budget *budget = &shard->node->budget;
    if (bytes <= *charged)
        return true;
    uint64_t more = bytes - *charged;
    *charged = bytes;
    return atomic_fetch_add_explicit(&budget->used_bytes, more, memory_order_relaxed) + more <= budget->bytes_max;
}

static void crowd_free(struct crowd *crowd)
{
    size_t charged = crowd->charged;
    list_remove(&crowd->link);
    list_remove(&crowd->merge);
    for (unsigned i = 0; i < crowd->part_count; i++) {
        charged += crowd->parts[i].charged;
        text_deinit(&crowd->parts[i].lines);
    }
    atomic_fetch_sub_explicit(&crowd->home->node->budget.used_bytes, charged, memory_order_relaxed);
    text_deinit(&crowd->reply);
    free(crowd->texts);
    free(crowd);
}

static void on_released(struct net_slot *slot)
{
    crowd_free(container_of(slot, struct crowd, slot));
}

void crowd_abandon(struct shard *shard)
{
    while (!list_empty(&shard->crowds))
        crowd_free(container_of(shard->crowds.next, struct crowd, link));
    list_init(&shard->crowd_parts);
}

/* ---- one connection -------------------------------------------------------------------------------------------- */

static bool id_matches(const struct crowd_filter *filter, uint64_t id)
{
    for (unsigned i = 0; i < filter->id_count; i++) {
        if (filter->ids[i] == id)
            return true;
    }
    return filter->ids == NULL;
}

static bool address_matches(const struct net_conn *conn, bool local, struct slice wanted)
{
    char text[CLIENT_ADDRESS_BYTES];
    bool is_unix;
    if (wanted.data == NULL)
        return true;
    (void)client_address(conn, local, text, &is_unix);
    if (is_unix && !local)
        (void)client_address(conn, true, text, &is_unix);
    return slice_equal(slice_text(text), wanted);
}

static bool matches(struct shard *shard, const struct crowd *crowd, struct net_conn *conn)
{
    const struct crowd_filter *filter = &crowd->filter;
    struct client *client = net_conn_user(conn);
    if (crowd->action == CROWD_KILL_LOST) {
        const struct acl_table *table = acl_read_begin(shard->node->acl, shard->id);
        bool lost = acl_holder_user(&client->user, table) == NULL;
        acl_read_end(shard->node->acl, shard->id);
        return lost;
    }
    if (filter->type == CROWD_NOBODY || client->id == filter->except || !id_matches(filter, client->id))
        return false;
    if (filter->user != 0 && client->user.uid != filter->user)
        return false;
    if (filter->age_s_min != 0 && (ring_now_ns(shard->ring) - client->since_ns) / 1000000000 < filter->age_s_min)
        return false;
    return address_matches(conn, false, filter->addr) && address_matches(conn, true, filter->local_addr);
}

static void visit(struct shard *shard, struct crowd_part *part, struct net_conn *conn)
{
    struct crowd *crowd = part->crowd;
    const struct client *client = net_conn_user(conn);
    struct net_conn_info info;
    net_conn_info(conn, &info);
    if (info.dropped || (info.ending && crowd->action != CROWD_LIST) || !matches(shard, crowd, conn))
        return;
    if (crowd->action == CROWD_LIST) {
        client_list_line(shard, conn, &part->lines);
        text_add(&part->lines, slice_text("\n"));
        part->lines.failed |= part->lines.size > GATHER_REPLY_BYTES_MAX / crowd->part_count ||
                              !charge(shard, &part->charged, part->lines.capacity);
        return;
    }
    part->killed++;
    if (crowd->action == CROWD_KILL_LOST)
        net_conn_finish(conn);
    else if (client->id == crowd->asker)
        crowd->end_asker = true; /* it is on this shard, or it would have another number */
    else
        net_conn_drop(conn);
}

/* ---- the reply ------------------------------------------------------------------------------------------------- */

static void answer(struct crowd *crowd, const void *data, size_t size)
{
    struct net_conn *conn = crowd->conn;
    bool end = crowd->end_asker;
    net_slot_fill(&crowd->slot, data, size, 0); /* the crowd may be gone after this, the connection not in this turn */
    net_conn_go_on(conn);
    if (end)
        net_conn_finish(conn);
}

static void answer_text(struct crowd *crowd, const char *text)
{
    answer(crowd, text, strlen(text));
}

/* The number that the next line of a part begins with; UINT64_MAX: there is none. */
static uint64_t next_number(const struct crowd_part *part)
{
    if (part->merged == part->lines.size)
        return UINT64_MAX;
    uint64_t number = 0;
    for (const uint8_t *at = part->lines.data + part->merged + strlen("id="); *at >= '0' && *at <= '9'; at++)
        number = number * 10 + (*at - '0');
    return number;
}

/* Room for the whole list, behind room for its header. */
static void begin_merge(struct crowd *crowd)
{
    size_t bytes = HEADER_BYTES + 2;
    bool failed = false;
    for (unsigned i = 0; i < crowd->part_count; i++) {
        bytes += crowd->parts[i].lines.size;
        failed |= crowd->parts[i].lines.failed;
    }
    if (failed || !charge(crowd->home, &crowd->charged, bytes) || text_room(&crowd->reply, bytes) == NULL) {
        answer_text(crowd, "-OOM kvs-node: no memory for the reply\r\n");
        return;
    }
    text_advance(&crowd->reply, HEADER_BYTES);
    list_push_back(&crowd->home->crowd_merges, &crowd->merge);
}

static void end_merge(struct crowd *crowd)
{
    char header[HEADER_BYTES + 1];
    size_t size = crowd->reply.size - HEADER_BYTES;
    int length = crowd->resp_version >= 3 ? snprintf(header, sizeof(header), "=%zu\r\ntxt:", size + 4)
                                          : snprintf(header, sizeof(header), "$%zu\r\n", size);
    KVS_ASSERT(length > 0 && (size_t)length <= HEADER_BYTES);
    text_add(&crowd->reply, slice_text("\r\n"));
    uint8_t *begin = crowd->reply.data + HEADER_BYTES - (size_t)length;
    memcpy(begin, header, (size_t)length);
    list_remove(&crowd->merge);
    answer(crowd, begin, crowd->reply.size - HEADER_BYTES + (size_t)length);
}

/* Takes some lines from the parts, the lowest number first. */
static void merge(struct crowd *crowd)
{
    for (unsigned taken = 0; taken < LINES_PER_TURN; taken++) {
        struct crowd_part *lowest = NULL;
        for (unsigned i = 0; i < crowd->part_count; i++) {
            struct crowd_part *part = &crowd->parts[i];
            uint64_t number = next_number(part);
            if (number != UINT64_MAX && (lowest == NULL || number < next_number(lowest)))
                lowest = part;
        }
        if (lowest == NULL) {
            end_merge(crowd);
            return;
        }
        const uint8_t *line = lowest->lines.data + lowest->merged;
        const uint8_t *end = memchr(line, '\n', lowest->lines.size - lowest->merged);
        KVS_ASSERT(end != NULL);
        size_t size = (size_t)(end - line) + 1;
        text_add(&crowd->reply, slice_make(line, size));
        lowest->merged += size;
    }
}

static void conclude(struct crowd *crowd)
{
    uint64_t killed = 0;
    for (unsigned i = 0; i < crowd->part_count; i++)
        killed += crowd->parts[i].killed;
    switch (crowd->action) {
    case CROWD_LIST:
        begin_merge(crowd);
        return;
    case CROWD_KILL:
        snprintf(crowd->number, sizeof(crowd->number), ":%llu\r\n", (unsigned long long)killed);
        answer_text(crowd, crowd->number);
        return;
    case CROWD_KILL_ONE:
        answer_text(crowd, killed > 0 ? "+OK\r\n" : "-ERR No such client\r\n");
        return;
    case CROWD_KILL_LOST:
        crowd_free(crowd);
        return;
    }
}

/* ---- parts ----------------------------------------------------------------------------------------------------- */

static void part_is_home(struct crowd_part *part)
{
    struct crowd *crowd = part->crowd;
    KVS_ASSERT(crowd->pending > 0);
    if (--crowd->pending == 0)
        conclude(crowd);
}

static void go_home(struct shard *shard, struct crowd_part *part)
{
    list_remove(&part->link);
    if (part->crowd->home == shard)
        part_is_home(part);
    else
        mailbox_post(shard->mailbox, part->crowd->home->id, &part->mail);
}

void crowd_deliver(struct shard *shard, struct mail *mail)
{
    struct crowd_part *part = container_of(mail, struct crowd_part, mail);
    if (part->crowd->home == shard)
        part_is_home(part);
    else
        list_push_back(&shard->crowd_parts, &part->link);
}

void crowd_turn(struct shard *shard)
{
    if (!list_empty(&shard->crowd_merges))
        merge(container_of(shard->crowd_merges.next, struct crowd, merge));
    if (list_empty(&shard->crowd_parts))
        return;
    struct crowd_part *part = container_of(shard->crowd_parts.next, struct crowd_part, link);
    if (!part->walking) {
        net_walk_begin(&part->walk, shard->net);
        part->walking = true;
    }
    for (unsigned visited = 0; visited < VISITS_PER_TURN; visited++) {
        struct net_conn *conn = net_walk_next(&part->walk);
        if (conn == NULL) {
            net_walk_end(&part->walk);
            go_home(shard, part);
            return;
        }
        visit(shard, part, conn);
    }
}

/* ---- the question ---------------------------------------------------------------------------------------------- */

static struct slice copy_text(char **room, struct slice text)
{
    if (text.data == NULL)
        return text;
    char *at = *room;
    memcpy(at, text.data, text.size);
    *room += text.size;
    return slice_make(at, text.size);
}

static bool copy_filter(struct crowd *crowd, const struct crowd_filter *filter)
{
    size_t id_bytes = filter->id_count * sizeof(filter->ids[0]);
    crowd->filter = *filter;
    crowd->texts = malloc(id_bytes + filter->addr.size + filter->local_addr.size + 1);
    if (crowd->texts == NULL)
        return false;
    char *room = crowd->texts;
    if (filter->ids != NULL) {
        memcpy(room, filter->ids, id_bytes);
        crowd->filter.ids = (const uint64_t *)(const void *)room;
        room += id_bytes;
    }
    crowd->filter.addr = copy_text(&room, filter->addr);
    crowd->filter.local_addr = copy_text(&room, filter->local_addr);
    return true;
}

/* Has connections, or may have, and will answer. */
static bool takes_part(const struct shard *shard)
{
    enum shard_state state = atomic_load(&shard->state);
    return state != SHARD_OPENING && state != SHARD_BROKEN;
}

/* A part for every shard. */
static struct crowd *crowd_begin(struct shard *shard, enum crowd_action action, const struct crowd_filter *filter)
{
    struct crowd *crowd = calloc(1, sizeof(*crowd) + shard->count * sizeof(crowd->parts[0]));
    if (crowd == NULL || !copy_filter(crowd, filter)) {
        free(crowd);
        return NULL;
    }
    crowd->home = shard;
    crowd->action = action;
    list_init(&crowd->merge);
    list_push_back(&shard->crowds, &crowd->link);
    crowd->part_count = shard->count;
    for (unsigned i = 0; i < shard->count; i++) {
        struct crowd_part *part = &crowd->parts[i];
        part->crowd = crowd;
        part->mail.kind = MAIL_CROWD;
        list_init(&part->link);
        if (i == shard->id)
            list_push_back(&shard->crowd_parts, &part->link);
        else if (takes_part(&shard->node->shards[i]))
            mailbox_post(shard->mailbox, i, &part->mail);
        else
            continue;
        crowd->pending++;
    }
    return crowd;
}

void crowd_ask(struct call *call, enum crowd_action action, const struct crowd_filter *filter)
{
    struct crowd *crowd = crowd_begin(call->shard, action, filter);
    if (crowd == NULL) {
        call_error(call, "OOM kvs-node: no memory for the request");
        return;
    }
    crowd->conn = call->conn;
    crowd->asker = call->client->id;
    crowd->resp_version = call->client->resp_version;
    net_reply_defer(call->conn, &crowd->slot);
    crowd->slot.released = on_released;
    net_conn_hold(call->conn);
}

void crowd_end_lost(struct shard *shard)
{
    struct crowd_filter all = {0};
    (void)crowd_begin(shard, CROWD_KILL_LOST, &all);
}
