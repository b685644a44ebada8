/*
 * update_run.h - carrying out updates (update.h) on the thread of the key's owner; those that only look, on any
 * shard's.
 *
 * At once: the engine gives the value, the update's function says what becomes of it, the engine takes the change, all
 * inside one section, so nothing comes between. Where the engine cannot answer at once the key is held (ENGINE_HOLD)
 * until the change has been made.
 */
#ifndef KVS_NODE_UPDATE_RUN_H
#define KVS_NODE_UPDATE_RUN_H

#include "base/large_memory.h"
#include "engine/engine.h"
#include "node/update.h"

struct op;
struct op_budget;
struct reply_origin;
struct shard;

/* Memory of one update: a piece that is there anyway, then pieces within the budgets for requests under way. */
struct update_scratch {
    uint8_t *room;
    size_t room_bytes;
    struct op_budget *budget;
    struct large_pool *large_pool;
    struct update_piece *pieces;
    struct list large; /* struct large_memory */
    bool refused;      /* there was no memory */
};

/* `room` may be NULL; it lives as long as the scratch. */
void update_scratch_init(struct update_scratch *scratch, struct shard *shard, void *room, size_t room_bytes);
/* On any thread; large pieces go to that thread's trash. */
void update_scratch_deinit(struct update_scratch *scratch, struct large_trash *trash);

enum { UPDATE_ROOM_BYTES = 1024 }; /* of an update that is carried out at once */

struct update_attempt {
    struct engine_result old; /* `value` is good until the section ends */
    struct update_outcome outcome;
    enum kvs_err error; /* then there is no outcome */
    uint64_t gate;
};

/* The request that looks at the key. `request`: key, hash, relaxed; its value is the operand. */
struct engine_request update_look(const struct engine_request *request, const struct update_spec *spec);
/* What attempt->old makes of it, inside the section in which that was found. AGAIN in attempt->error: no memory. */
void update_decide(const struct update_spec *spec, struct slice operand, uint64_t now_ms,
                   struct update_scratch *scratch, struct update_attempt *attempt);

/* All of it, on the owner's thread, inside a section. MUST_WAIT: nothing was done. */
enum engine_answer update_try(struct shard *shard, const struct engine_request *request, const struct update_spec *spec,
                              struct update_scratch *scratch, struct update_attempt *attempt);

size_t update_reply_bound(const struct update_attempt *attempt);
size_t update_reply_write(uint8_t *out, const struct update_spec *spec, const struct update_attempt *attempt,
                          const struct reply_origin *origin);

/* Carries out the op's update on the thread of the key's owner, at once if that can be, else as below. */
void update_execute(struct shard *shard, struct op *op);
/* Holds the op's key, updates it, and calls dispatch_ended with the reply written. */
void update_submit(struct shard *shard, struct op *op);

#endif
