/*
 * sim_client.h - a client on the simulated network: one connection at a time, RESP or frames, pipelined, every
 * operation told to the oracle.
 *
 * What it does is chosen by the seed that client_work is given. A connection that ends leaves its unanswered operations
 * open; the next work makes a new connection, a new session of the oracle. Answers are judged at once for what they say
 * by themselves (whole values, right types, errors that have a reason), and by their histories later.
 */
#ifndef KVS_TESTS_SIM_RUN_SIM_CLIENT_H
#define KVS_TESTS_SIM_RUN_SIM_CLIENT_H

#include "counters.h"
#include "fleeting.h"
#include "oracle.h"
#include "world.h"

/* What may go wrong by now without the node being to blame; kept by the world, read by the clients. */
struct circumstances {
    bool writes_may_fail;   /* the disk has failed a write, sync or name in this boot */
    bool space_may_lack;    /* the disk is or was full in this boot */
    bool log_limited;       /* the node has a limit on its log */
    bool reads_may_fail;    /* the disk has failed a read */
    bool damage_may_show;   /* reads or the disk's content have been spoiled */
    bool network_may_break; /* connections have been reset, stalled, cancelled */
    bool leaving;           /* the node was told to stop */
};

struct client;

struct client_setting {
    struct ring *ring;
    struct oracle *oracle;
    struct fleeting *fleeting;
    struct counters *counters;
    struct tally *tally;
    const struct circumstances *circumstances;
    struct ring_addr addr;
    unsigned number;
    unsigned swaps_percent;    /* at most so many operations of its work look at a key and change it … */
    unsigned scans_percent;    /* … and ask which keys there are */
    unsigned flushes_permille; /* of its work takes all keys away */
    uint64_t hash_seed;        /* of the store */
    uint64_t *cursor;          /* where its scan goes on; outlives the client */
};

struct client *client_create(const struct client_setting *setting);
/* Begins `count` operations in this style, details by the seed, over a connection made for it if there is none. What is
 * left of an earlier task is not done. */
void client_work(struct client *client, enum work_style style, unsigned count, uint64_t seed);
/* Begins so many operations of a task, `depth` at a time, on an idle client whose connection is new or has ended, and
 * is durable then; what is refused is not repeated. */
void client_press(struct client *client, enum work_style style, unsigned count, unsigned depth, uint64_t seed);
/* Begins a GET of every key, fleeting ones and counters too, and then asks for the number of keys; client_counted tells
 * it. */
void client_read_all(struct client *client);
int64_t client_counted(const struct client *client);
/* Asks for the value of some key, if nothing else is under way and there is a connection. True: it did. */
bool client_peek(struct client *client);
/* Begins a flush of all keys on an idle client; client_flushed tells whether it was done. */
void client_flush(struct client *client);
bool client_flushed(const struct client *client);
/* The same, and the oracles are not told of it: for whoever takes it back, or calls client_flush_tell before anything
 * else is asked. */
void client_flush_untold(struct client *client);
void client_flush_tell(struct client *client);
/* Ends the connection: in order, after the answers, or at once. */
void client_close(struct client *client, bool at_once);
/* Nothing under way, and no end of the connection either. */
bool client_idle(const struct client *client);
void client_describe(const struct client *client);
/* The ring is gone (crash), or idle: leaves open what is unanswered and frees. */
void client_free(struct client *client);

#endif
