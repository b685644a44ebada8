/*
 * mailbox.h - messages between shards: every shard has a mailbox, and a lock-free ring of one producer and one consumer
 * leads from each to each.
 *
 * A message is a struct mail embedded in something larger. From mailbox_post until it is delivered it belongs to the
 * mailboxes; then it is the receiver's. Messages from one shard to another arrive in the order in which they were
 * posted. There is no bound here: whoever posts bounds what is under way.
 *
 * Posting gathers; mailbox_send, once per turn of the loop, hands over everything gathered for a shard as one chain
 * (one ring entry, however many messages) and wakes the shard if it sleeps. A chain that finds the ring full stays
 * behind and grows until the next mailbox_send: nobody ever waits for a slow consumer.
 *
 * Sleeping. Before a shard waits in its ring it calls mailbox_sleep, which fails when there is mail; after the wait it
 * calls mailbox_awake. Mail that is sent in between wakes it: no message is left lying.
 *
 * Threading: a mailbox is used by its shard's thread only; mailroom calls, before the threads start and after they
 * ended.
 */
#ifndef KVS_NODE_MAILBOX_H
#define KVS_NODE_MAILBOX_H

#include "base/error.h"
#include "ring/ring.h"

struct mailroom;
struct mailbox;

/* What a message is embedded in: whoever delivers it asks. */
enum mail_kind { MAIL_OP, MAIL_CROWD, MAIL_TRANSACTION, MAIL_SCAN, MAIL_WAITING, MAIL_MONITOR, MAIL_MULTI, MAIL_FLUSH };

struct mail {
    struct mail *next;
    uint32_t kind; /* enum mail_kind */
};

typedef void mailbox_deliver_fn(void *context, struct mail *mail);

enum kvs_err mailroom_create(struct mailroom **out, unsigned shard_count);
void mailroom_destroy(struct mailroom *room);
struct mailbox *mailroom_box(struct mailroom *room, unsigned shard);

/* The ring in which the owner of this mailbox sleeps. Before its first mailbox_sleep or mailbox_send. */
void mailbox_attach(struct mailbox *box, struct ring *ring);

/* Gathers a message for another shard. */
void mailbox_post(struct mailbox *box, unsigned to, struct mail *mail);
/* Hands over what was gathered. */
void mailbox_send(struct mailbox *box);
/* True while messages wait here because a ring was full: do not sleep for long, call mailbox_send again. */
bool mailbox_backlog(const struct mailbox *box);

/* Delivers what has arrived, in order per sender; returns how many. `deliver` may post, but not collect. */
unsigned mailbox_collect(struct mailbox *box, mailbox_deliver_fn *deliver, void *context);

bool mailbox_sleep(struct mailbox *box);
void mailbox_awake(struct mailbox *box);

#endif
