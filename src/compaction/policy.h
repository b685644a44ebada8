/*
 * policy.h - what compaction should do next: a pure function of figures. Any thread; no state, no I/O, no clock.
 *
 * Compaction rewrites the live records of its victims into new segments and gives the victims back. What it gains is
 * whole segments: of n victims whose records fill m segments it gains n - m. So a plan is a set of victims with a gain
 * of at least one, chosen to cost few bytes of copying for each segment gained. One kind of plan may have a gain of
 * zero: it purges, that is, it rewrites segments whose few dead puts keep many deletes of other segments alive.
 *
 * Sources: M. Rosenblum and J. Ousterhout, "The design and implementation of a log-structured file system", 1992 (cost
 * and benefit, age); J. Wilkes et al. and later flash translation layers (greedy choice is best for uniform updates).
 */
#ifndef KVS_COMPACTION_POLICY_H
#define KVS_COMPACTION_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One sealed segment. Sizes of records are those they take in a segment, alignment included, without the headers and
 * padding of batches. Figures may be a moment old, and a few records off: then a plan gains a little less than it says.
 */
struct policy_segment {
    uint32_t number;
    bool relocated;         /* written by compaction */
    uint64_t order;         /* age: of two segments the one with the lower order was begun earlier */
    uint64_t live_bytes;    /* of put records that the index points at, expired ones included until they are deleted */
    uint64_t deletes_bytes; /* of all delete records: they have to be copied as long as they may be needed */
    uint64_t puts;          /* put records, live and dead */
    uint64_t dead_puts;     /* those of them that the index does not point at */
    uint64_t record_bytes_max; /* no record in it is larger; if it is not known, the largest that is allowed */
    uint64_t min_lsn;          /* lowest of all its records, dead ones included */
    uint64_t last_lsn;         /* highest of all its records */
    uint64_t begun_lsn; /* relocated: every operation up to this LSN, of any stream, had been executed on the index
                           before the first look at it that decided what to copy into this segment */
    /* Lowest and highest of its delete records; ignored while it has none. If they are not known, last_lsn for both:
     * a deletes_min_lsn that is too low would have it rewritten in vain, again and again. */
    uint64_t deletes_min_lsn, deletes_last_lsn;
};

/* The whole store. */
struct policy_store {
    uint64_t segment_bytes; /* of records that fit into a segment when compaction fills it: less than the file's size by
                               its header and by the headers and padding of batches as large as compaction writes */
    uint64_t files;         /* segment files there are, of any state, the reserve of compaction included */
    uint64_t files_free;    /* ready to be used again, without the reserve */
    uint64_t files_addable; /* that may still be made: there is room in the file system, and the limit allows them */
    uint64_t open;       /* files being filled, or spare for that, the reserve and the output of compaction included */
    uint64_t live_bytes; /* of records, in all segments, open ones included */
    uint64_t open_min_lsn; /* lowest min_lsn (relocated: the higher of min_lsn and begun_lsn) of the segments that are
                             not in the list but that a recovery would read and that may hold dead puts: those being
                             filled, victims of an earlier plan; UINT64_MAX when there are none */
};

struct policy_options {
    /* The bound that compaction defends: segments in use may be this many hundredths of what the live records fill
     * (200: half of the space is dead). It begins somewhat below. Less than 110 is taken for 110. */
    unsigned space_percent;
};

enum { POLICY_VICTIMS_MAX = 64 };

struct policy_plan {
    unsigned count;
    uint32_t victims[POLICY_VICTIMS_MAX]; /* in the order in which to rewrite them */
    uint64_t copy_bytes;                  /* to be rewritten; less when deletes turn out to be needless */
    unsigned gain;                        /* segments, at the least */
    unsigned purges;                      /* victims chosen for the sake of deletes */
    /* 0: nothing to do, count is 0; 1..100: the share of its full speed at which compaction should run; 100: writes
     * wait for it. */
    unsigned urgency;
};

/*
 * How badly space is needed, 0..100, whether or not there is a plan that makes some. Cheap: to adjust the speed while a
 * plan is under way. Segments that are being rewritten count as in use.
 *
 * From the bound on space: 0 up to 7/8 of the dead space that it allows (and two segments, so that a small store is
 * left alone), from there 1 rising in a line to 50 at the bound, and on to 99: it never stops writes. From free files
 * (files_free + files_addable): 0 while there are more than `begin`, then 1 rising with the square of what is used of
 * the way from `begin` to `full`, and 100 at `full`. full = 1 + open / 4, so that there is a file for those who ask
 * while writes come to a halt; begin = full + 1/16 of all files, at least 2, at most 64. The higher of the two is the
 * answer.
 */
unsigned policy_urgency(const struct policy_store *store, const struct policy_options *options);

/*
 * Chooses the victims; takes time linear in `count`, allocates nothing. Nothing is chosen (count 0, urgency 0) while
 * there is no need, or no set of victims helps. Segments without anything to copy are always taken first, alone, and
 * even when there is no need.
 *
 * What the worker must do, so that a plan holds its promises: rewrite the victims in the order given into one output
 * segment, go on to the next when a record does not fit, and give back the victims done each time an output is sealed;
 * the last output is sealed at the end of the plan. Then a second output never begins before a victim has come back.
 */
void policy_choose(struct policy_plan *plan, const struct policy_segment *segments, size_t count,
                   const struct policy_store *store, const struct policy_options *options);

/*
 * Whether `segment` may hold a record that a delete with this LSN must go on hiding (promise P2). Not when all its
 * records are newer, when it holds no dead put (the deleted record is a dead one), or when compaction began it after
 * the delete was executed: it copies live records only.
 *
 * A delete may be left out of a rewriting when no segment shadows it but the one that is being rewritten: open ones and
 * victims that have not been given back are to be asked, too.
 */
bool policy_shadows(const struct policy_segment *segment, uint64_t delete_lsn);
/* The same as a number: deletes with a higher LSN are shadowed. UINT64_MAX: none is. */
uint64_t policy_floor(const struct policy_segment *segment);

#endif
