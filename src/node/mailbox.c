/*
 * mailbox.c - rings of message chains between shards.
 *
 *   posted[to]: head ─► … ─► tail      chain gathered by the sender, its own memory
 *         │ mailbox_send: the head enters the ring from → to
 *         ▼
 *   ring(from, to)  [ head ][ head ]   ck_ring, one producer, one consumer
 *         │ bit `from` is set in the receiver's `arrived`; if it sleeps, ring_wake
 *         ▼
 *   mailbox_collect: empties the rings whose bit is set
 *
 * Why no wake-up is lost: the sender sets the bit and then reads `sleeping`; the receiver sets `sleeping` and then
 * reads the bits; both pairs are sequentially consistent, so at least one of the two sees the other. The exchange of
 * `sleeping` lets one sender of several do the waking.
 */
#include "node/mailbox.h"

#include "base/assert.h"
#include "base/canary.h"
#include "base/limits.h"
#include "base/tsan.h"

#include <ck_ring.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

static_assert(KVS_SHARDS_MAX <= 64, "`arrived` has one bit per shard");

/* Chains on their way; a power of two. A sender adds at most one per turn, so few are enough. */
#define CHAINS_MAX 16u

/* ck_ring orders its accesses with instructions that ThreadSanitizer does not see: hence tsan_acquire and tsan_release.
 */
struct chain_ring {
    alignas(KVS_CACHE_LINE_BYTES) struct ck_ring ring;
    alignas(KVS_CACHE_LINE_BYTES) struct ck_ring_buffer slots[CHAINS_MAX];
};

struct chain {
    struct mail *head, *tail;
};

struct mailbox {
    /* Written by others. */
    alignas(KVS_CACHE_LINE_BYTES) _Atomic uint64_t arrived; /* bit n: shard n has sent something */
    _Atomic bool sleeping;
    /* Written once, read by others. */
    alignas(KVS_CACHE_LINE_BYTES) _Atomic(struct ring *) ring;
    /* The owner's. */
    struct mailroom *room;
    unsigned id;
    uint64_t posted_to; /* bit n: posted[n] is not empty */
    struct chain posted[KVS_SHARDS_MAX];
};

struct mailroom {
    unsigned count;
    struct mailbox *boxes;
    struct chain_ring *rings; /* from * count + to */
};

/* False when the ring is full. */
static bool chain_push(struct chain_ring *ring, struct mail *head)
{
    struct ck_ring_buffer *slot = ck_ring_enqueue_reserve_spsc(&ring->ring, ring->slots);
    if (slot == NULL)
        return false;
    tsan_acquire(ring->slots);
    slot->value = head;
    tsan_release(ring);
    ck_ring_enqueue_commit_spsc(&ring->ring);
    return true;
}

/* NULL when the ring is empty. */
static struct mail *chain_pop(struct chain_ring *ring)
{
    if (ck_ring_size(&ring->ring) == 0)
        return NULL;
    tsan_acquire(ring);
    struct mail *head = NULL;
    bool popped = ck_ring_dequeue_spsc(&ring->ring, ring->slots, (void *)&head);
    KVS_ASSERT(popped);
    tsan_release(ring->slots);
    return head;
}

enum kvs_err mailroom_create(struct mailroom **out, unsigned shard_count)
{
    KVS_ASSERT(shard_count >= 1 && shard_count <= KVS_SHARDS_MAX);
    struct mailroom *room = calloc(1, sizeof(*room));
    if (room == NULL)
        return KVS_ERR_NO_MEMORY;
    room->count = shard_count;
    room->boxes = aligned_alloc(KVS_CACHE_LINE_BYTES, sizeof(*room->boxes) * shard_count);
    room->rings = aligned_alloc(KVS_CACHE_LINE_BYTES, sizeof(*room->rings) * shard_count * shard_count);
    if (room->boxes == NULL || room->rings == NULL) {
        mailroom_destroy(room);
        return KVS_ERR_NO_MEMORY;
    }
    memset(room->boxes, 0, sizeof(*room->boxes) * shard_count);
    memset(room->rings, 0, sizeof(*room->rings) * shard_count * shard_count);
    for (unsigned i = 0; i < shard_count; i++) {
        room->boxes[i].room = room;
        room->boxes[i].id = i;
    }
    for (unsigned i = 0; i < shard_count * shard_count; i++)
        ck_ring_init(&room->rings[i].ring, CHAINS_MAX);
    *out = room;
    return KVS_ERR_OK;
}

void mailroom_destroy(struct mailroom *room)
{
    if (room == NULL)
        return;
    free(room->boxes);
    free(room->rings);
    free(room);
}

struct mailbox *mailroom_box(struct mailroom *room, unsigned shard)
{
    KVS_ASSERT(shard < room->count);
    return &room->boxes[shard];
}

void mailbox_attach(struct mailbox *box, struct ring *ring)
{
    atomic_store_explicit(&box->ring, ring, memory_order_release);
}

void mailbox_post(struct mailbox *box, unsigned to, struct mail *mail)
{
    KVS_ASSERT(to < box->room->count && to != box->id);
    struct chain *chain = &box->posted[to];
    mail->next = NULL;
    if (chain->head == NULL) {
        chain->head = mail;
        box->posted_to |= 1ull << to;
    } else {
        chain->tail->next = mail;
    }
    chain->tail = mail;
}

static void wake(struct mailbox *box, struct mailbox *target)
{
    if (!atomic_load(&target->sleeping) || !atomic_exchange(&target->sleeping, false))
        return;
    struct ring *from = atomic_load_explicit(&box->ring, memory_order_acquire);
    struct ring *to = atomic_load_explicit(&target->ring, memory_order_acquire);
    KVS_ASSERT(from != NULL && to != NULL);
    ring_wake(from, to);
}

void mailbox_send(struct mailbox *box)
{
    struct mailroom *room = box->room;
    uint64_t left = box->posted_to;
    while (left != 0) {
        unsigned to = (unsigned)__builtin_ctzll(left);
        left &= left - 1;

        struct chain_ring *ring = &room->rings[box->id * room->count + to];
        struct chain *chain = &box->posted[to];
        if (!chain_push(ring, chain->head))
            continue; /* full: the receiver has been told of the chains before this one */
        *chain = (struct chain){0};
        box->posted_to &= ~(1ull << to);

        struct mailbox *target = &room->boxes[to];
        atomic_fetch_or(&target->arrived, 1ull << box->id);
        wake(box, target);
    }
}

bool mailbox_backlog(const struct mailbox *box)
{
    return box->posted_to != 0;
}

unsigned mailbox_collect(struct mailbox *box, mailbox_deliver_fn *deliver, void *context)
{
    if (atomic_load_explicit(&box->arrived, memory_order_relaxed) == 0)
        return 0;
    struct mailroom *room = box->room;
    unsigned delivered = 0;
    /* Cleared before the rings are read: what comes later sets its bit again. */
    uint64_t left = atomic_exchange(&box->arrived, 0);
    while (left != 0) {
        unsigned from = (unsigned)__builtin_ctzll(left);
        left &= left - 1;

        struct chain_ring *ring = &room->rings[from * room->count + box->id];
        for (struct mail *mail = chain_pop(ring); mail != NULL; mail = chain_pop(ring)) {
            while (mail != NULL) {
                struct mail *next = mail->next; /* deliver may post it again, or free it */
                __builtin_prefetch(next);
                deliver(context, mail);
                mail = next;
                delivered++;
            }
        }
    }
    return delivered;
}

bool mailbox_sleep(struct mailbox *box)
{
    atomic_store(&box->sleeping, true);
    if (atomic_load(&box->arrived) == 0 || canary_on(CANARY_WAKE_UP_LOST))
        return true;
    atomic_store(&box->sleeping, false);
    return false;
}

void mailbox_awake(struct mailbox *box)
{
    atomic_store_explicit(&box->sleeping, false, memory_order_relaxed);
}
