/*
 * run_merge.c - a tree of losers over the sources that still have entries.
 *
 *            champion            Each inner node keeps the source that lost the match there, with its key, so that the
 *               │                next champion is found by one comparison a level, on the path of the one that was
 *             (1) loser          taken. A source that has come to its end is taken out and the tree built anew: once a
 *            ┌──┴──┐             source. With one source left there is no match to play.
 *          (2)     (3)
 *         ┌─┴─┐   ┌─┴─┐          Keys are compared as one number of 128 bits, without a branch: which of two sources
 *         s0  s1  s2  s3         comes next cannot be predicted.
 *
 * Happy path: the champion's entry either is of another key than the one before it, which is thereby final, or one of
 * the two has lost. The candidate stands in the caller's array, behind the final ones, and is kept from call to call.
 *
 * Failure modes: a source has nothing yet (AGAIN): nothing is known about the champion until it has. A reader fails:
 * the merge stays in this state.
 */
#include "engine/run_merge.h"

#include "base/assert.h"

#include <stdlib.h>

enum { PREFETCH_ENTRIES = 16 }; /* many streams at once are more than the processor follows by itself */

struct source {
    const struct run_entry *at, *end;
    struct run_reader *reader;
    unsigned ordinal; /* among the sources given */
};

struct node {
    uint64_t order, check; /* of the source's next entry */
    uint64_t source;       /* index */
};

struct run_merge {
    struct run_merge_options options;
    unsigned active;    /* sources that are not at their end, the first so many */
    bool unsorted;      /* the tree must be built anew */
    bool dry;           /* the champion's next entry must be got first */
    unsigned dry_first; /* sources before this one have an entry, when `unsorted` */
    bool held;
    unsigned held_source; /* ordinal */
    struct run_entry held_entry;
    enum kvs_err error;
    unsigned failed_source;
    struct node champion;
    struct node *nodes;     /* [1..active) losers */
    struct node *winners;   /* while building, [1..2 * active) */
    struct source *sources; /* source_count */
};

enum kvs_err run_merge_open(struct run_merge **out, const struct run_merge_options *options)
{
    const unsigned count = options->source_count;
    KVS_ASSERT(count > 0);
    struct run_merge *merge = calloc(1, sizeof *merge);
    struct node *nodes = calloc(count, sizeof *nodes);
    struct node *winners = calloc(2 * (size_t)count, sizeof *winners);
    struct source *sources = calloc(count, sizeof *sources);
    if (merge == NULL || nodes == NULL || winners == NULL || sources == NULL) {
        free(merge);
        free(nodes);
        free(winners);
        free(sources);
        return KVS_ERR_NO_MEMORY;
    }
    merge->options = *options;
    merge->options.sources = NULL;
    merge->nodes = nodes;
    merge->winners = winners;
    merge->sources = sources;
    merge->active = count;
    merge->unsorted = true;
    for (unsigned i = 0; i < count; i++) {
        const struct run_source *given = &options->sources[i];
        KVS_ASSERT(given->reader == NULL || given->count == 0);
        sources[i] = (struct source){.at = given->entries, .reader = given->reader, .ordinal = i};
        sources[i].end = given->count > 0 ? given->entries + given->count : given->entries;
    }
    *out = merge;
    return KVS_ERR_OK;
}

/* Makes source->at an entry that counts. NOT_FOUND: there are no more. */
static inline enum kvs_err source_settle(struct run_merge *merge, struct source *source)
{
    for (;;) {
        if (source->at == source->end) {
            struct run_span span = {NULL, NULL};
            const enum kvs_err err = source->reader != NULL ? run_reader_next(source->reader, &span) : KVS_ERR_OK;
            if (err != KVS_ERR_OK)
                return err;
            source->at = span.at;
            source->end = span.end;
            if (span.at == span.end)
                return KVS_ERR_NOT_FOUND;
        }
        if (merge->options.counts == NULL || merge->options.counts(merge->options.context, source->ordinal, source->at))
            return KVS_ERR_OK;
        source->at++;
    }
}

static enum kvs_err settle_failed(struct run_merge *merge, const struct source *source, enum kvs_err err)
{
    if (err != KVS_ERR_AGAIN) {
        merge->error = err;
        merge->failed_source = source->ordinal;
    }
    return err;
}

/* The order of the sources stays: a later one is still a later one, though that is told by its ordinal. */
static void source_remove(struct run_merge *merge, uint64_t index)
{
    KVS_ASSERT(index < merge->active);
    merge->active--;
    memmove(&merge->sources[index], &merge->sources[index + 1], (merge->active - index) * sizeof *merge->sources);
}

static inline unsigned __int128 node_key(const struct node *node)
{
    return (unsigned __int128)node->order << 64 | node->check;
}

static inline struct node node_of(const struct run_merge *merge, uint64_t source)
{
    const struct run_entry *entry = merge->sources[source].at;
    return (struct node){.order = entry->order, .check = entry->check, .source = source};
}

/* Plays all matches. AGAIN, or a failure, while a source has no entry. */
static enum kvs_err tree_build(struct run_merge *merge)
{
    while (merge->dry_first < merge->active) {
        struct source *source = &merge->sources[merge->dry_first];
        const enum kvs_err err = source_settle(merge, source);
        if (err == KVS_ERR_NOT_FOUND)
            source_remove(merge, merge->dry_first);
        else if (err != KVS_ERR_OK)
            return settle_failed(merge, source, err);
        else
            merge->dry_first++;
    }
    const size_t count = merge->active;
    struct node *winners = merge->winners;
    for (size_t i = 0; i < count; i++)
        winners[count + i] = node_of(merge, i);
    for (size_t i = count; i-- > 1;) {
        const bool left = node_key(&winners[2 * i]) <= node_key(&winners[2 * i + 1]);
        winners[i] = winners[left ? 2 * i : 2 * i + 1];
        merge->nodes[i] = winners[left ? 2 * i + 1 : 2 * i];
    }
    if (count > 0)
        merge->champion = winners[1];
    merge->unsorted = false;
    return KVS_ERR_OK;
}

/* The champion's source has another entry: plays the matches on its path. */
static inline void tree_replay(struct run_merge *merge)
{
    const uint64_t source = merge->champion.source;
    struct node up = node_of(merge, source);
    for (uint64_t i = (merge->active + source) / 2; i > 0; i /= 2) {
        struct node *node = &merge->nodes[i];
        /* By masks: a compiler would make branches of anything else, and half of them would be mispredicted. */
        const uint64_t swap = 0 - (uint64_t)(node_key(node) < node_key(&up));
        const uint64_t order = (node->order ^ up.order) & swap;
        const uint64_t check = (node->check ^ up.check) & swap;
        const uint64_t other = (node->source ^ up.source) & swap;
        node->order ^= order;
        node->check ^= check;
        node->source ^= other;
        up.order ^= order;
        up.check ^= check;
        up.source ^= other;
    }
    merge->champion = up;
}

/* Makes the champion known. */
static inline enum kvs_err champion_settle(struct run_merge *merge)
{
    if (merge->dry) {
        struct source *source = &merge->sources[merge->champion.source];
        const enum kvs_err err = source_settle(merge, source);
        if (err == KVS_ERR_NOT_FOUND) {
            source_remove(merge, merge->champion.source);
            merge->unsorted = true; /* all others have an entry: dry_first says so */
            merge->dry_first = merge->active;
        } else if (err != KVS_ERR_OK) {
            return settle_failed(merge, source, err);
        } else {
            tree_replay(merge);
        }
        merge->dry = false;
    }
    return merge->unsorted ? tree_build(merge) : KVS_ERR_OK;
}

/* Two entries of one key: the candidate and one that came later. Which of them wins cannot be predicted, either. */
static void decide(const struct run_merge *merge, struct run_entry *candidate, unsigned *candidate_source,
                   const struct source *source)
{
    const struct run_entry *entries[2] = {candidate, source->at};
    const unsigned ordinals[2] = {*candidate_source, source->ordinal};
    unsigned wins = (unsigned)(entries[1]->lsn > entries[0]->lsn);
    if (entries[1]->lsn == entries[0]->lsn)
        wins = merge->options.second_wins == NULL
                   ? (unsigned)(ordinals[1] >= ordinals[0])
                   : (unsigned)merge->options.second_wins(merge->options.context, entries[0], entries[1]);
    *candidate = *entries[wins];
    *candidate_source = ordinals[wins];
}

/* Only one run is left: each of its entries is of another key than the one before it, and there is nothing to decide.
 */
static size_t take_last(struct run_merge *merge, struct run_entry *out, size_t max)
{
    struct source *source = &merge->sources[0];
    const struct run_merge_options *options = &merge->options;
    size_t taken = 0;
    while (taken < max && source->at < source->end) {
        out[taken] = *source->at;
        taken += options->counts == NULL || options->counts(options->context, source->ordinal, source->at);
        source->at++;
    }
    return taken;
}

enum kvs_err run_merge_next(struct run_merge *merge, struct run_entry *out, size_t max, size_t *count)
{
    KVS_ASSERT(max > 0);
    *count = 0;
    if (merge->error != KVS_ERR_OK)
        return merge->error;
    struct run_entry *candidate = out;
    unsigned candidate_source = merge->held_source;
    bool held = merge->held;
    if (held)
        *candidate = merge->held_entry;
    enum kvs_err err;
    while ((err = champion_settle(merge)) == KVS_ERR_OK && merge->active > 0) {
        struct source *source = &merge->sources[merge->champion.source];
        if (held && candidate->order == merge->champion.order && candidate->check == merge->champion.check) {
            decide(merge, candidate, &candidate_source, source);
        } else if (merge->active == 1 && source->reader != NULL) {
            candidate += held;
            held = false;
            candidate += take_last(merge, candidate, (size_t)(out + max - candidate));
            merge->dry = true;
            if (candidate == out + max)
                break;
            continue;
        } else {
            if (held && ++candidate == out + max) { /* the array is full of final ones */
                held = false;
                break;
            }
            *candidate = *source->at;
            candidate_source = source->ordinal;
            held = true;
        }
        source->at++;
        __builtin_prefetch(source->at + PREFETCH_ENTRIES);
        merge->dry = true;
    }
    if (held && err == KVS_ERR_OK && merge->active == 0) {
        candidate++; /* nothing can beat it any more */
        held = false;
    }
    *count = (size_t)(candidate - out);
    merge->held = held;
    merge->held_source = candidate_source;
    if (held)
        merge->held_entry = *candidate;
    return *count > 0 ? KVS_ERR_OK : err;
}

unsigned run_merge_failed_source(const struct run_merge *merge)
{
    return merge->failed_source;
}

void run_merge_close(struct run_merge *merge)
{
    if (merge == NULL)
        return;
    free(merge->nodes);
    free(merge->winners);
    free(merge->sources);
    free(merge);
}
