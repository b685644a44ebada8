/*
 * net_output.c - the replies of one connection on their way out.
 *
 * Happy path: net_reply_reserve points into the connection's current block, net_reply_commit makes the bytes part of
 * the last run or begins one. net_flush calls output_send, which moves what may leave from the queues to in_flight and
 * starts one gathered send straight out of blocks and slots. Its completion frees them; the last one to leave a block
 * frees it.
 *
 * Which replies join one run: neighbours in a block, both without a gate, or both gated and written in the same turn.
 * The run's gate is its newest reply's. Runs that grew over many turns would move their gate away as fast as it is
 * approached.
 *
 * Failure modes:
 *   - No memory: net_reply_reserve ends the connection.
 *   - The gates have failed: what they held back becomes errors. For RESP, one error per reply, sent from the one block
 *     that holds nothing else; for frames, written anew from the headers in the run, or from the slot's opcode and id.
 *   - The send fails, or the connection is dropped while it is active: entries wait in in_flight until its completion,
 *     because the kernel still reads them.
 */
#include "net/net_internal.h"

/* ---- blocks and runs -------------------------------------------------------------------------------------------- */

static void block_unref(struct net_conn *conn, struct net_block *block)
{
    KVS_ASSERT(block->refs > 0);
    if (--block->refs > 0)
        return;
    KVS_ASSERT(conn->output_bytes >= block->capacity);
    conn->output_bytes -= block->capacity;
    net_block_give(conn->net, block);
}

static void run_free(struct net_conn *conn, struct net_run *run)
{
    block_unref(conn, run->block);
    run->block = NULL;
    net_run_give(conn->net, run);
}

/* Gives up the block that replies are appended to: an idle connection holds no memory. */
static void drop_block(struct net_conn *conn)
{
    if (conn->block != NULL) {
        block_unref(conn, conn->block);
        conn->block = NULL;
    }
}

/* A first block is a small one, unless that was not enough the last time. */
static __attribute__((noinline)) uint8_t *reserve_block(struct net_conn *conn, size_t bytes)
{
    if (conn->output_bytes > 0)
        conn->wide = true;
    struct net_block *block = net_block_take(conn->net, bytes, conn->wide && share_may_keep(conn->net));
    if (block == NULL) {
        conn_drop(conn);
        return NULL;
    }
    drop_block(conn);
    block->refs = 1;
    conn->block = block;
    conn->output_bytes += block->capacity;
    return block->data;
}

uint8_t *net_reply_reserve(struct net_conn *conn, size_t bytes)
{
    struct net_block *block = conn->block;
    if (conn->state == NET_CLOSING)
        return NULL;
    if (!net_run_prepare(conn->net)) {
        conn_drop(conn);
        return NULL;
    }
    if (__builtin_expect(block != NULL && block->capacity - block->used >= bytes, 1))
        return block->data + block->used;
    return reserve_block(conn, bytes);
}

static void begin_run(struct net_conn *conn, struct list *queue, uint8_t *data, size_t bytes, uint64_t gate)
{
    struct net_run *run = net_run_take(conn->net);
    run->entry.conn = NULL;
    run->entry.data = data;
    run->entry.size = bytes;
    run->entry.gate = gate;
    run->entry.filled = true;
    run->block = conn->block;
    run->block->refs++;
    run->turn = conn->net->turn;
    run->replies = 1;
    run->under_way = gate != 0;
    list_push_back(queue, &run->entry.link);
}

/* The last entry of a queue, if a reply that begins at `data` may become part of it. */
static inline struct net_run *joinable(const struct net_conn *conn, struct list *queue, const uint8_t *data,
                                       uint64_t gate)
{
    struct net_slot *last = container_of(queue->prev, struct net_slot, link);
    if (!entry_is_run(last) || last->data + last->size != data || entry_run(last)->block != conn->block)
        return NULL;
    if (gate == 0)
        return last->gate == 0 ? entry_run(last) : NULL;
    /* What may leave by now must not be held back again. */
    const bool gated = last->gate > conn->net->gate_reached;
    return gated && entry_run(last)->turn == conn->net->turn ? entry_run(last) : NULL;
}

void net_reply_commit(struct net_conn *conn, size_t bytes, uint64_t gate)
{
    struct net *net = conn->net;
    struct net_block *block = conn->block;
    KVS_ASSERT(!conn->answered);
    conn->answered = true;
    if (bytes == 0 || conn->muted || conn->state == NET_CLOSING)
        return;
    KVS_ASSERT(block != NULL && bytes <= block->capacity - block->used);

    uint8_t *data = block->data + block->used;
    block->used += bytes;
    if (gate <= net->gate_reached)
        gate = 0;
    conn->under_way += gate != 0;

    struct list *queue = &conn->queue[gate != 0 && conn->protocol == NET_PROTOCOL_FRAME];
    struct net_run *run = list_empty(queue) ? NULL : joinable(conn, queue, data, gate);
    if (run == NULL) {
        begin_run(conn, queue, data, bytes, gate);
        return;
    }
    run->entry.size += bytes;
    if (gate > run->entry.gate && !canary_on(CANARY_RUN_GATE_OF_FIRST))
        run->entry.gate = gate;
    run->replies++;
    run->under_way += gate != 0;
}

bool net_conn_push(struct net_conn *conn, struct slice bytes)
{
    KVS_ASSERT(!conn->handling && conn->protocol == NET_PROTOCOL_RESP);
    const bool fits = conn->output_bytes == 0 || bytes.size <= share_left(conn->net);
    uint8_t *out = conn->state == NET_OPEN && fits ? net_reply_reserve(conn, bytes.size) : NULL;
    const bool taken = out != NULL;
    if (taken) {
        memcpy(out, bytes.data, bytes.size);
        conn->answered = conn->muted = false;
        net_reply_commit(conn, bytes.size, 0);
    }
    conn_settle(conn);
    return taken;
}

/* ---- slots ------------------------------------------------------------------------------------------------------ */

void net_reply_defer(struct net_conn *conn, struct net_slot *slot)
{
    KVS_ASSERT(conn->handling && !conn->answered);
    conn->answered = true;
    slot->conn = conn;
    slot->data = NULL;
    slot->size = 0;
    slot->gate = 0;
    slot->filled = false;
    slot->muted = conn->muted;
    list_init(&slot->link);
    slot->id = conn->request_id;
    slot->opcode = conn->request_opcode;
    conn->pending++;
    conn->under_way++;
    if (conn->protocol == NET_PROTOCOL_RESP && conn->state != NET_CLOSING && !canary_on(CANARY_REPLIES_AS_FILLED))
        list_push_back(&conn->queue[0], &slot->link);
}

void net_slot_fill(struct net_slot *slot, const uint8_t *data, size_t size, uint64_t gate)
{
    struct net_conn *conn = slot->conn;
    KVS_ASSERT(!slot->filled && slot->released != NULL);
    KVS_ASSERT(conn->pending > 0);
    conn->pending--;
    slot->filled = true;
    if (conn->state == NET_CLOSING) {
        slot->released(slot);
        conn_settle(conn);
        return;
    }
    if (slot->muted) {
        size = 0;
        gate = 0;
    }
    slot->data = data;
    slot->size = size;
    slot->gate = gate > conn->net->gate_reached && !canary_on(CANARY_SLOT_GATE_LOST) ? gate : 0;
    conn->output_bytes += size;
    if (conn->protocol == NET_PROTOCOL_RESP && canary_on(CANARY_REPLIES_AS_FILLED))
        list_push_back(&conn->queue[0], &slot->link);
    if (conn->protocol == NET_PROTOCOL_FRAME)
        list_push_back(&conn->queue[slot->gate != 0], &slot->link);
    if (!conn->handling && !conn->sending)
        output_classify(conn);
}

void net_reply_mute(struct net_conn *conn, bool mute)
{
    KVS_ASSERT(conn->handling && !conn->answered);
    conn->muted = mute;
}

/* ---- what may leave --------------------------------------------------------------------------------------------- */

bool output_idle(const struct net_conn *conn)
{
    return list_empty(&conn->queue[0]) && list_empty(&conn->queue[1]) && conn->pending == 0 && !conn->sending;
}

static inline bool entry_failed(const struct net *net, const struct net_slot *entry)
{
    return net->failing && entry->gate > net->gate_reached && !canary_on(CANARY_FAILED_GATES_ANSWER_OK);
}

/* A failed entry may leave too: as an error. */
static inline bool entry_may_leave(const struct net *net, const struct net_slot *entry)
{
    return entry->filled && (entry->gate <= net->gate_reached || net->failing);
}

bool output_may_send(const struct net_conn *conn)
{
    for (int i = 0; i < 2; i++) {
        if (!list_empty(&conn->queue[i]) && entry_may_leave(conn->net, entry_first(&conn->queue[i])))
            return true;
    }
    return false;
}

void output_classify(struct net_conn *conn)
{
    struct net *net = conn->net;
    KVS_ASSERT(!conn->sending && conn->state != NET_CLOSING);
    list_remove(&conn->due);
    const bool empty[2] = {list_empty(&conn->queue[0]), list_empty(&conn->queue[1])};
    if (empty[0] && empty[1]) {
        if (conn->block != NULL && conn->block->used <= NET_SMALL_BYTES / 2)
            conn->wide = false;
        drop_block(conn);
    } else if (output_may_send(conn))
        list_push_back(&net->dirty, &conn->due);
    else if (!empty[1] || entry_first(&conn->queue[0])->filled)
        list_push_back(&net->gated, &conn->due);
}

/* ---- failed gates ----------------------------------------------------------------------------------------------- */

/* Takes an entry out of its queue that will not be sent. */
static void discard(struct net_conn *conn, struct net_slot *entry)
{
    list_remove(&entry->link);
    if (entry_is_run(entry)) {
        run_free(conn, entry_run(entry));
        return;
    }
    KVS_ASSERT(conn->output_bytes >= entry->size);
    conn->output_bytes -= entry->size;
    entry->released(entry);
}

/* Appends a frame with the reason to what may leave; false: no memory, the connection is dropped. */
static bool append_failed_frame(struct net_conn *conn, uint8_t opcode, uint64_t id)
{
    const struct slice text = slice_text(conn->net->fail_text);
    const struct frame_header header = {.opcode = opcode, .flags = FRAME_REPLY, .status = FRAME_FAILED, .id = id};
    uint8_t *out = net_reply_reserve(conn, frame_bytes(0, text.size));
    if (out == NULL)
        return false;
    conn->answered = false;
    net_reply_commit(conn, frame_write(out, &header, slice_make(NULL, 0), text), 0);
    return true;
}

/* Every frame in the run is answered anew; the replies are whole, as they were committed. */
static bool fail_frame_run(struct net_conn *conn, const struct net_run *run)
{
    size_t at = 0;
    for (uint32_t i = 0; i < run->replies; i++) {
        struct frame_header header;
        KVS_ASSERT(run->entry.size - at >= sizeof header);
        memcpy(&header, run->entry.data + at, sizeof header);
        at += frame_bytes(header.key_bytes, header.value_bytes);
        if (!append_failed_frame(conn, header.opcode, header.id))
            return false;
    }
    KVS_ASSERT(at == run->entry.size);
    return true;
}

/* Turns gated frames that have failed into frames that say so; false when the connection was dropped. */
static bool fail_frames(struct net_conn *conn)
{
    struct list *queue = &conn->queue[1];
    for (struct list *node = queue->next, *next; node != queue; node = next) {
        struct net_slot *entry = container_of(node, struct net_slot, link);
        bool done;
        next = node->next;
        if (!entry_failed(conn->net, entry)) /* durable, and not sent yet */
            continue;
        if (entry_is_run(entry)) {
            done = fail_frame_run(conn, entry_run(entry));
            if (done)
                conn->under_way -= entry_run(entry)->under_way;
        } else {
            done = append_failed_frame(conn, entry->opcode, entry->id);
            if (done)
                conn->under_way--;
        }
        if (!done)
            return false; /* dropping it has taken care of the queue */
        discard(conn, entry);
    }
    return true;
}

/* ---- the gathered send ------------------------------------------------------------------------------------------ */

struct gather {
    struct iovec *iov;
    unsigned count;
    size_t bytes;
};

static inline bool gather_full(const struct gather *gather)
{
    return gather->count == RING_IOV_MAX || gather->bytes >= NET_SEND_BYTES_MAX;
}

/* Errors in place of the RESP replies of a failed entry, at the head of the queue; as many as fit now. */
static void gather_errors(struct net_conn *conn, struct net_slot *entry, struct gather *gather)
{
    const struct net *net = conn->net;
    struct net_run *run = entry_is_run(entry) ? entry_run(entry) : NULL;
    uint32_t left = run != NULL ? run->replies : 1;
    while (left > 0 && !gather_full(gather)) {
        const uint32_t count = left < net->fail_error_count ? left : (uint32_t)net->fail_error_count;
        gather->iov[gather->count++] = (struct iovec){net->fail_errors, count * net->fail_error_bytes};
        gather->bytes += count * net->fail_error_bytes;
        left -= count;
    }
    if (run != NULL) {
        conn->under_way -= run->replies - left;
        run->under_way = left;
        run->replies = left;
    }
    if (left == 0) {
        conn->under_way -= run == NULL;
        discard(conn, entry);
    }
}

/* Adds an entry at the head of its queue, whole or the part that fits into one send. */
static void gather_entry(struct net_conn *conn, struct net_slot *entry, struct gather *gather)
{
    const size_t room = NET_SEND_BYTES_MAX - gather->bytes;
    const size_t bytes = entry->size < room ? entry->size : room;
    if (bytes > 0) {
        gather->iov[gather->count++] = (struct iovec){(void *)(uintptr_t)entry->data, bytes};
        gather->bytes += bytes;
    }
    list_remove(&entry->link);
    entry->gate = 0;
    if (entry_is_run(entry)) {
        conn->under_way -= entry_run(entry)->under_way;
        entry_run(entry)->under_way = 0;
    }
    if (bytes == entry->size) {
        conn->under_way -= !entry_is_run(entry);
        list_push_back(&conn->in_flight, &entry->link);
        return;
    }
    /* The rest goes next, before anything else; nothing may come between the parts of a frame. */
    entry->data += bytes;
    entry->size -= bytes;
    if (!entry_is_run(entry))
        conn->output_bytes -= bytes;
    list_push_back(conn->queue[0].next, &entry->link);
}

static void gather_all(struct net_conn *conn, struct gather *gather)
{
    const struct net *net = conn->net;
    for (int i = 0; i < 2; i++) {
        struct list *queue = &conn->queue[i];
        while (!list_empty(queue) && !gather_full(gather) && entry_may_leave(net, entry_first(queue))) {
            struct net_slot *entry = entry_first(queue);
            if (__builtin_expect(entry_failed(net, entry), 0))
                gather_errors(conn, entry, gather);
            else
                gather_entry(conn, entry, gather);
        }
    }
}

static void release_in_flight(struct net_conn *conn)
{
    for (struct list *node = list_pop_front(&conn->in_flight); node != NULL; node = list_pop_front(&conn->in_flight)) {
        struct net_slot *entry = container_of(node, struct net_slot, link);
        discard(conn, entry);
    }
    if (conn->iovs != NULL) {
        net_iovs_give(conn->net, conn->iovs);
        conn->iovs = NULL;
    }
}

static void sent(struct ring_op *op)
{
    struct net_conn *conn = container_of(op, struct net_conn, send);
    KVS_ASSERT(conn->sending && (op->flags & RING_MORE) == 0);
    conn->sending = false;
    list_remove(&conn->due);
    release_in_flight(conn);
    if (op->error != KVS_ERR_OK) {
        conn_drop(conn);
        conn_settle(conn);
        return;
    }
    net_count(&conn->net->stats.bytes_sent, op->bytes);
    conn_sent(conn);
}

void output_init(struct net_conn *conn)
{
    list_init(&conn->queue[0]);
    list_init(&conn->queue[1]);
    list_init(&conn->in_flight);
    list_init(&conn->due);
    ring_op_init(&conn->send, sent);
}

void output_send(struct net_conn *conn)
{
    struct net *net = conn->net;
    KVS_ASSERT(!conn->sending && !conn->handling);
    KVS_ASSERT(list_empty(&conn->in_flight) && conn->iovs == NULL);
    if (__builtin_expect(net->failing, 0) && !fail_frames(conn)) {
        conn_settle(conn);
        return;
    }
    struct gather gather = {.iov = net->gather};
    gather_all(conn, &gather);
    if (gather.count == 0) { /* replies of no bytes */
        release_in_flight(conn);
        conn_settle(conn);
        return;
    }

    struct iovec *iov = conn->iov;
    if (gather.count > NET_IOV_INLINE) {
        conn->iovs = net_iovs_take(net);
        if (conn->iovs == NULL) {
            conn_drop(conn);
            conn_settle(conn);
            return;
        }
        iov = conn->iovs->iov;
    }
    memcpy(iov, gather.iov, gather.count * sizeof *iov);
    conn->sending = true;
    conn->send_tick = net->tick;
    list_remove(&conn->due);
    list_push_back(&net->sending, &conn->due);
    ring_send(net->ring, &conn->send, conn->fd, iov, gather.count);
    if (net->send_ticks_max != 0)
        net_start_tick(net);
}

/* ---- the end of a connection ------------------------------------------------------------------------------------ */

void output_drop(struct net_conn *conn)
{
    KVS_ASSERT(conn->state == NET_CLOSING);
    for (int i = 0; i < 2; i++) {
        for (struct list *node = list_pop_front(&conn->queue[i]); node != NULL;
             node = list_pop_front(&conn->queue[i])) {
            struct net_slot *entry = container_of(node, struct net_slot, link);
            if (entry->filled) /* the first part of it may be in the active send */
                list_push_back(&conn->in_flight, &entry->link);
        }
    }
    if (!conn->sending)
        release_in_flight(conn);
    drop_block(conn);
}

void output_forget(struct net_conn *conn)
{
    struct list *lists[] = {&conn->queue[0], &conn->queue[1], &conn->in_flight};
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++) {
        for (struct list *node = list_pop_front(lists[i]); node != NULL; node = list_pop_front(lists[i])) {
            struct net_slot *entry = container_of(node, struct net_slot, link);
            if (entry_is_run(entry))
                run_free(conn, entry_run(entry));
        }
    }
    drop_block(conn);
    if (conn->iovs != NULL) {
        net_iovs_give(conn->net, conn->iovs);
        conn->iovs = NULL;
    }
}
