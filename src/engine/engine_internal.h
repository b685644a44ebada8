/*
 * engine_internal.h - what an engine implements: the table behind engine.h, and the heads of its two objects.
 *
 * Each engine embeds struct engine and struct engine_shard as the first member of its own structures.
 */
#ifndef KVS_ENGINE_ENGINE_INTERNAL_H
#define KVS_ENGINE_ENGINE_INTERNAL_H

#include "engine/engine.h"
#include "engine/epoch.h"
#include "engine/superblock.h"
#include "engine/wall_clock.h"

struct engine_interface {
    const char *kind;
    const char *(*durability_method)(const struct engine *engine);
    void (*close)(struct engine *engine, struct ring *ring);
    enum kvs_err (*shard_start)(struct engine *engine, unsigned id, struct ring *ring, struct engine_shard **out);
    bool (*shard_ready)(const struct engine_shard *shard);
    void (*turn)(struct engine_shard *shard);
    int64_t (*timeout_ns)(const struct engine_shard *shard);
    void (*shard_stop)(struct engine_shard *shard);
    bool (*shard_stopped)(const struct engine_shard *shard);
    enum engine_answer (*try)(struct engine_shard *owner, const struct engine_request *request,
                              struct engine_result *result);
    enum engine_answer (*try_get)(struct engine_shard *reader, unsigned owner_id, const struct engine_request *request,
                                  struct engine_result *result);
    void (*prefetch)(struct engine_shard *reader, unsigned owner_id, uint64_t hash, enum engine_prefetch_step step);
    void (*submit)(struct engine_shard *owner, struct engine_op *op);
    void (*conclude)(struct engine_op *op);
    void (*op_release)(struct engine_op *op);
    uint64_t (*change_bytes_max)(const struct engine *engine);
    uint64_t (*lsn)(const struct engine_shard *shard);
    enum kvs_err (*group_prepare)(struct engine_shard *shard, struct engine_group *group, struct engine_change *changes,
                                  unsigned count);
    enum kvs_err (*group_append)(struct engine_shard *shard, struct engine_group *group, struct engine_change *changes,
                                 unsigned count, uint64_t after_lsn);
    enum kvs_err (*publish)(struct engine_op *op, const struct engine_change *change, const struct engine_group *group);
    void (*group_end)(struct engine_shard *shard, struct engine_group *group);
    void (*scan)(struct engine_shard *owner, struct engine_scan *scan);
    enum kvs_err (*flush_prepare)(struct engine_shard *shard, uint64_t *lsn);
    void (*flush_begin)(struct engine_shard *shard, uint64_t lsn);
    enum kvs_err (*flush_state)(const struct engine_shard *shard, const char **text);
    enum kvs_err (*flush_end)(struct engine_shard *shard);
    uint64_t (*durable)(const struct engine_shard *shard);
    uint64_t (*want_durable)(struct engine_shard *shard);
    bool (*failed)(const struct engine_shard *shard);
    const char *(*failure_text)(const struct engine_shard *shard);
    const char *(*refusal_text)(const struct engine_shard *shard);
    const char *(*background_failure_text)(const struct engine_shard *shard);
    const char *(*damage_text)(const struct engine_shard *shard);
    void (*stats)(const struct engine *engine, struct engine_stats *out);
    enum kvs_err (*background_start)(struct engine *engine, struct ring *ring, struct engine_background **out);
    void (*background_turn)(struct engine_background *background);
    int64_t (*background_timeout_ns)(const struct engine_background *background);
    void (*background_stop)(struct engine_background *background);
    bool (*background_stopped)(const struct engine_background *background);
    /* NULL: the engine keeps nothing. */
    enum kvs_err (*backup_begin)(struct engine *engine, const char *name, struct ring *ring);
    void (*backup_state)(const struct engine *engine, struct engine_backup_state *out);
};

struct engine {
    const struct engine_interface *interface;
    struct engine_options options; /* data_dir is a copy of its own */
    struct superblock superblock;
    struct epoch epoch;
    struct wall_clock clock;
    struct engine_recovery recovery;
    char *data_dir;
    int dir_fd;
    int lock_fd;
};

struct engine_shard {
    const struct engine_interface *interface;
    struct epoch_thread thread;
    struct ring *ring;            /* the owner's; NULL until started */
    struct wall_clock *clock;     /* the store's */
    uint64_t now_ms;              /* what it has said in this section; 0: it was not asked yet */
    uint64_t changes;             /* engine_changes */
    struct engine_watch *watches; /* a tree; NULL: none */
};

/* A key with this hash has been put. */
void engine_watch_put(struct engine_shard *owner, uint64_t hash);

/* Every engine says so of each change of a key, when readers find it changed. Where nobody watches that is a number in
 * the owner's own memory, next to what the section has just read, and a branch that is never taken: too little to be
 * measured beside a record's copy. */
static inline void engine_changed(struct engine_shard *owner, uint64_t hash, bool put)
{
    owner->changes++;
    if (__builtin_expect(owner->watches != NULL, 0) && put)
        engine_watch_put(owner, hash);
}

/* Whether what expires at that time (0 = never) is there no more. Inside a section of this thread's shard. */
static inline bool engine_expired(struct engine_shard *reader, uint64_t expires_ms)
{
    return expires_ms != 0 && expires_ms <= engine_now_ms(reader);
}

struct engine_background {
    const struct engine_interface *interface;
    struct epoch_thread thread;
};

/* Each opens its engine in a locked directory whose superblock was read or made (recovery.created). Fills
 * engine->interface. On failure it has freed what is its own; directory and lock stay the caller's. */
enum kvs_err kvs_engine_open(struct engine **out, const struct engine *base, struct ring *ring,
                             char message[ENGINE_MESSAGE_BYTES]);
enum kvs_err memory_engine_open(struct engine **out, const struct engine *base, struct ring *ring,
                                char message[ENGINE_MESSAGE_BYTES]);

#endif
