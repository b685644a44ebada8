/*
 * sim_task.c - see sim_task.h.
 *
 * A chain goes on in the pipeline that it began in, between chains on other keys, so that operations on one key wait
 * for each other in every way: behind a cold read, behind a blind overwrite that is being settled, for room.
 */
#include "sim_task.h"

#include "draw.h"

#include "base/assert.h"
#include "base/bytes.h"

#define NS_PER_MS 1000000u

static uint64_t draw(struct task *task, uint64_t below)
{
    return draw_next(&task->random) % below;
}

void task_begin(struct task *task, enum work_style style, unsigned operations, unsigned base, unsigned keys,
                uint64_t seed)
{
    static const unsigned depths[] = {1, 1, 3, 10, 30, 100};
    KVS_ASSERT(keys > 0);
    *task = (struct task){.style = style, .random = seed, .left = operations, .base = base, .count = keys};
    task->depth = depths[draw(task, ARRAY_COUNT(depths))];
    task->next = draw(task, 2) == 0 ? 0 : (unsigned)draw(task, keys);
    task->parity = (unsigned)draw(task, 2);
    task->ends_when_refused = draw(task, 3) > 0;
    task->patience = (unsigned)draw(task, 6);
}

void task_end(struct task *task)
{
    task->left = task->chain_left = 0;
    task->again_count = task->repeats_left = 0;
}

bool task_busy(const struct task *task)
{
    return task->left > 0 || task->repeats_left > 0 || (task->again_count > 0 && task->patience > 0);
}

/* Goes round; a key may come more than once. */
static unsigned next_key(struct task *task)
{
    unsigned key = task->next++ % task->count;
    return task->base + key;
}

static struct task_step next_of_chain(struct task *task)
{
    static const enum task_action chains[][8] = {
        {TASK_SET, TASK_SET, TASK_DEL, TASK_GET},
        {TASK_DEL, TASK_DEL},
        {TASK_SET, TASK_DEL, TASK_SET, TASK_GET},
        {TASK_GET, TASK_DEL, TASK_GET},
        {TASK_SET, TASK_GET, TASK_DEL},
        {TASK_DEL, TASK_SET, TASK_DEL, TASK_SET},
        {TASK_SET, TASK_SET},
        /* with swaps */
        {TASK_SWAP, TASK_SWAP, TASK_SWAP},
        {TASK_SET, TASK_SWAP, TASK_DEL, TASK_SWAP, TASK_GET},
        {TASK_SWAP, TASK_SET, TASK_SWAP},
        {TASK_DEL, TASK_SWAP, TASK_GET, TASK_SWAP},
    };
    enum { WITHOUT_SWAPS = 7 };
    static const unsigned lengths[] = {4, 2, 4, 3, 3, 4, 2, 3, 5, 3, 4};
    static_assert(ARRAY_COUNT(chains) == ARRAY_COUNT(lengths), "a length for each chain");
    if (task->chain_left == 0) {
        unsigned number = (unsigned)draw(task, task->swaps ? ARRAY_COUNT(chains) : WITHOUT_SWAPS);
        task->chain = chains[number];
        task->chain_left = lengths[number];
        task->chain_key = task->base + (unsigned)draw(task, task->count);
    }
    task->chain_left--;
    return (struct task_step){.action = *task->chain++, .key = task->chain_key};
}

static struct task_step next_step(struct task *task)
{
    task->left--;
    if (task->style == WORK_CHAINS)
        return next_of_chain(task);
    if (task->style == WORK_FILL)
        return (struct task_step){.action = TASK_SET, .key = next_key(task)};
    unsigned key = next_key(task);
    if (key % 2 != task->parity && task->count > 1)
        key = next_key(task);
    return (struct task_step){.action = TASK_DEL, .key = key};
}

unsigned task_pipeline(struct task *task, struct task_step *out, unsigned max)
{
    unsigned depth = task->depth < max ? task->depth : max, count = 0;
    for (; task->repeats_left > 0 && count < depth; count++) {
        out[count] = task->again[0];
        memmove(task->again, task->again + 1, --task->again_count * sizeof task->again[0]);
        task->repeats_left--;
    }
    for (; task->left > 0 && count < depth; count++)
        out[count] = next_step(task);
    return count;
}

uint64_t task_pause_ns(struct task *task)
{
    if (task->again_count == 0 || task->patience == 0 || task->repeats_left > 0)
        return 0;
    return NS_PER_MS * (1 + draw(task, draw(task, 4) == 0 ? 300 : 10));
}

void task_repeat(struct task *task)
{
    if (task->again_count == 0 || task->patience == 0)
        return;
    task->patience--;
    task->repeats_left = task->again_count;
}

void task_refused(struct task *task, enum task_action action, unsigned key)
{
    if (task->ends_when_refused)
        task->left = 0;
    if (task->again_count < TASK_AGAIN_MAX)
        task->again[task->again_count++] = (struct task_step){.action = action, .key = key};
}
