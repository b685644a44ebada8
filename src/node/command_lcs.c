/*
 * command_lcs.c - LCS: the longest common subsequence of two values.
 *
 * Happy path: both values are gathered, wherever they are (gather.h); then a table is filled, row by row, whose cell
 * (i, j) is the length for the first i bytes of one value and the first j of the other; then a walk from its last cell
 * to its edge finds the subsequence and where it lies. Table and walk take CELLS_PER_TURN steps in a turn of the
 * shard's loop, so that others get theirs.
 *
 * Which of several longest ones it is, and how its ranges are cut, is as in Redis.
 *
 * Failures. The table takes four bytes for each pair of bytes. One that is longer than a value may be, or for which the
 * memory for large requests has no room now, is refused with Redis's texts.
 */
#include "node/command.h"
#include "node/gather.h"
#include "node/node_internal.h"

#include <stdlib.h>

#define CELLS_PER_TURN 131072u

struct range {
    uint32_t first, last;
};

struct lcs {
    struct gather_use use;
    bool only_length, ranges, with_length;
    uint64_t length_min; /* of a range that is shown */
    int resp_version;

    struct slice a, b;
    struct large_memory *memory;
    uint32_t *table; /* a.size + 1 rows of b.size + 1 cells */
    size_t i, j;     /* the cell that is next, first in the table, then on the walk */
    bool filled;
    uint8_t *common; /* what has been found, from its end */
    size_t missing;  /* … how much is before that */
    bool open;       /* a range is being followed */
    struct range in_a, in_b;
    struct text found;
    size_t found_count;
};

static uint32_t *cell(const struct lcs *lcs, size_t i, size_t j)
{
    return &lcs->table[i * (lcs->b.size + 1) + j];
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

/* The first row and the first column are 0, as the memory is. */
static void fill(struct lcs *lcs, size_t steps)
{
    while (steps > 0 && lcs->i <= lcs->a.size) {
        uint32_t *row = cell(lcs, lcs->i, 0);
        const uint32_t *above = cell(lcs, lcs->i - 1, 0);
        const uint8_t byte = lcs->a.data[lcs->i - 1];
        const size_t end = lcs->b.size + 1 - lcs->j < steps ? lcs->b.size + 1 : lcs->j + steps;
        for (size_t j = lcs->j; j < end; j++) {
            const uint32_t skip = above[j] > row[j - 1] ? above[j] : row[j - 1];
            row[j] = byte == lcs->b.data[j - 1] ? above[j - 1] + 1 : skip;
        }
        steps -= end - lcs->j < steps ? end - lcs->j : steps;
        steps -= steps > 0; /* a row of nothing is work, too */
        lcs->j = end;
        if (lcs->j == lcs->b.size + 1) {
            lcs->i++;
            lcs->j = 1;
        }
    }
    if (lcs->i <= lcs->a.size)
        return;
    lcs->filled = true;
    lcs->i = lcs->a.size;
    lcs->j = lcs->b.size;
}

/* ---- the walk -------------------------------------------------------------------------------------------------- */

static void add_range(struct text *text, struct range range)
{
    text_array(text, 2);
    text_integer(text, range.first);
    text_integer(text, range.last);
}

static void close_range(struct lcs *lcs)
{
    const uint32_t length = lcs->in_a.last - lcs->in_a.first + 1;
    lcs->open = false;
    if (!lcs->ranges || length < lcs->length_min)
        return;
    text_array(&lcs->found, lcs->with_length ? 3 : 2);
    add_range(&lcs->found, lcs->in_a);
    add_range(&lcs->found, lcs->in_b);
    if (lcs->with_length)
        text_integer(&lcs->found, length);
    lcs->found_count++;
}

/* The bytes before the cell are the same: they are part of it. */
static void step_diagonally(struct lcs *lcs)
{
    const uint32_t in_a = (uint32_t)--lcs->i, in_b = (uint32_t)--lcs->j;
    if (!lcs->open) {
        lcs->in_a = (struct range){in_a, in_a};
        lcs->in_b = (struct range){in_b, in_b};
        lcs->open = true;
    }
    lcs->in_a.first = in_a;
    lcs->in_b.first = in_b;
    lcs->common[--lcs->missing] = lcs->a.data[in_a];
    if (in_a == 0 || in_b == 0)
        close_range(lcs);
}

static void walk(struct lcs *lcs, size_t steps)
{
    for (; steps > 0 && lcs->i > 0 && lcs->j > 0; steps--) {
        if (lcs->a.data[lcs->i - 1] == lcs->b.data[lcs->j - 1]) {
            step_diagonally(lcs);
            continue;
        }
        if (*cell(lcs, lcs->i - 1, lcs->j) > *cell(lcs, lcs->i, lcs->j - 1))
            lcs->i--;
        else
            lcs->j--;
        if (lcs->open)
            close_range(lcs);
    }
}

/* ---- from the values to the reply ------------------------------------------------------------------------------ */

static void refuse(struct lcs *lcs, const char *text)
{
    text_printf(&lcs->use.reply, "-%s\r\n", text);
}

static void begin(struct gather_use *use, struct shard *shard, const struct slice *values)
{
    struct lcs *lcs = container_of(use, struct lcs, use);
    uint64_t cells, bytes;
    lcs->a = values[0];
    lcs->b = values[1];
    lcs->i = lcs->j = 1;
    if (__builtin_mul_overflow((uint64_t)lcs->a.size + 1, (uint64_t)lcs->b.size + 1, &cells) ||
        __builtin_mul_overflow(cells, sizeof(uint32_t), &bytes) || bytes > shard->node->value_bytes_max) {
        refuse(lcs, "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
        return;
    }
    lcs->memory = large_memory_take(&shard->node->large, bytes, 0);
    const size_t common_max = lcs->a.size < lcs->b.size ? lcs->a.size : lcs->b.size;
    lcs->common = malloc(common_max + 1);
    if (lcs->memory == NULL || lcs->common == NULL) {
        refuse(lcs, "ERR Insufficient memory, failed allocating transient memory for LCS");
        return;
    }
    lcs->table = (uint32_t *)(void *)lcs->memory->data;
}

static void write_reply(struct lcs *lcs)
{
    struct text *reply = &lcs->use.reply;
    const uint32_t length = *cell(lcs, lcs->a.size, lcs->b.size);
    if (lcs->ranges) {
        text_map(reply, 2, lcs->resp_version);
        text_bulk(reply, "matches");
        text_array(reply, lcs->found_count);
        text_add(reply, slice_make(lcs->found.data, lcs->found.size));
        text_bulk(reply, "len");
        text_integer(reply, length);
        reply->failed |= lcs->found.failed;
    } else if (lcs->only_length) {
        text_integer(reply, length);
    } else {
        text_bulk_bytes(reply, slice_make(lcs->common, length));
    }
}

static bool work(struct gather_use *use)
{
    struct lcs *lcs = container_of(use, struct lcs, use);
    if (!lcs->filled) {
        fill(lcs, CELLS_PER_TURN);
        lcs->missing = lcs->filled ? *cell(lcs, lcs->a.size, lcs->b.size) : 0;
        return false;
    }
    if (!lcs->only_length)
        walk(lcs, CELLS_PER_TURN / 4);
    if (!lcs->only_length && lcs->i > 0 && lcs->j > 0)
        return false;
    write_reply(lcs);
    return true;
}

static void release(struct gather_use *use, struct shard *shard)
{
    struct lcs *lcs = container_of(use, struct lcs, use);
    large_trash_add(&shard->pool.trash, lcs->memory);
    text_deinit(&lcs->use.reply);
    text_deinit(&lcs->found);
    free(lcs->common);
    free(lcs);
}

/* ---- the request ----------------------------------------------------------------------------------------------- */

/* False: the request has its answer. */
static bool parse(struct call *call, struct lcs *lcs)
{
    for (unsigned i = 3; i < call->count; i++) {
        int64_t least;
        if (command_word_is(call->args[i], "idx")) {
            lcs->ranges = true;
        } else if (command_word_is(call->args[i], "len")) {
            lcs->only_length = true;
        } else if (command_word_is(call->args[i], "withmatchlen")) {
            lcs->with_length = true;
        } else if (command_word_is(call->args[i], "minmatchlen") && i + 1 < call->count) {
            if (!command_need_integer(call, call->args[++i], &least))
                return false;
            lcs->length_min = least > 0 ? (uint64_t)least : 0;
        } else {
            call_error(call, "ERR syntax error");
            return false;
        }
    }
    if (!lcs->ranges || !lcs->only_length)
        return true;
    call_error(call, "ERR If you want both the length and indexes, please just use IDX.");
    return false;
}

void command_lcs(struct call *call)
{
    struct lcs options = {.use = {.begin = begin, .work = work, .release = release},
                          .resp_version = call->client->resp_version};
    if (!command_keys_fit(call, call->args + 1, 2) || !parse(call, &options))
        return;
    struct lcs *lcs = malloc(sizeof(*lcs));
    if (lcs == NULL) {
        call_error(call, "OOM kvs-node: no memory for the request");
        return;
    }
    *lcs = options;
    gather_use(call->shard, call->conn, call->args + 1, 2, &lcs->use);
}
