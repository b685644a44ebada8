/*
 * ring_sim.h - the test's controls over the simulated machine behind ring.h.
 *
 * One thread, one machine at a time (the current one is global), any number of rings on it. A seed decides everything
 * that is left to chance: latencies, order of completions, how streams are cut, what a crash leaves. Two runs with one
 * seed and the same calls make the same decisions; sim_trace tells whether they did.
 *
 * Durability. What a write puts into a file is seen by every read at once, but survives a crash for certain only when a
 * sync that was started after the write had completed has completed too, or when the write itself was
 * RING_WRITE_DURABLE. A name (create, rename, unlink) survives for certain only after its directory was synced.
 */
#ifndef KVS_TESTS_SIM_RING_SIM_H
#define KVS_TESTS_SIM_RING_SIM_H

#include "ring/ring.h"
#include "ring/ring_backend.h"

/* ---- the machine ----------------------------------------------------------------------------------------------- */

/* Makes a machine with an empty disk the current one. */
void sim_create(uint64_t seed);
/* Frees it, with every ring, socket and file. What is in flight is abandoned. */
void sim_destroy(void);

enum sim_crash_mode {
    SIM_DROP_ALL, /* nothing that was not made durable survives */
    SIM_KEEP_ALL, /* everything written survives, in flight too */
    SIM_RANDOM,   /* each unsynced write is kept, dropped, torn by 512-byte sectors or scrambled (sectors of it hold
                     neither the old nor the new); each unsynced name is kept or dropped */
    SIM_KILL, /* only the process died: what was written stays, still not durable, for a later crash to take; what was
                 in flight happened or not */
};

/* All rings, sockets, locks and descriptors are gone; ops in flight are never touched again; files stay for the
 * next boot. Close nothing afterwards but through ring_close_fd, which ignores descriptors from before the crash. */
void sim_crash(enum sim_crash_mode mode);

/*
 * Power loss with a chosen outcome: bit i of the mask tells whether pending change i survives. Pending are, oldest
 * first, every unsynced write, growth and name change, then every write, growth and name change in flight. The first 64
 * can be chosen; later ones are dropped. sim_pending counts them all.
 */
unsigned sim_pending(void);
void sim_crash_subset(uint64_t keep_mask);

/* A number from the machine's own generator, 0..below-1, for tests that want their choices in the trace. */
uint64_t sim_random(uint64_t below);
/* A hash over every decision and every completion so far. */
uint64_t sim_trace(void);
/* Moves the clock. */
void sim_advance(uint64_t ns);
/* Puts the wall clock forth, or (negative) back; the monotonic clock goes on as it was. The wall clock of a new machine
 * begins here. */
void sim_step_wall(int64_t by_ms);
#define SIM_WALL_BEGIN_MS 1767225600000u /* 2026-01-01 */
/* Sends a signal to whoever waits in ring_signal_next. */
void sim_signal(int number);

/* ---- running --------------------------------------------------------------------------------------------------- */

/*
 * Gives `ring` a loop body that sim_step runs in place of a bare ring_turn: it must call ring_turn once, with the
 * timeout the real loop would use. Under sim_step a turn never waits: the timeout tells when the ring wants to run
 * again.
 */
void sim_ring_body(struct ring *ring, void (*body)(void *context), void *context);

/* Turns one ring that has something to do, advancing the clock when none has. False: nothing will ever happen again. */
bool sim_step(void);
/* The same, unless what comes next comes later: then false, too. */
bool sim_step_before(uint64_t latest_ns);
/* Steps until condition(context) holds; false after steps_max steps or when nothing will ever happen again. */
bool sim_run_until(bool (*condition)(void *context), void *context, uint64_t steps_max);

/*
 * Calls `watch` around every step on the disk, wherever it is made: for tests that fork and try in the child what may
 * happen at this very point. A crash there is allowed if the code under test is never returned to. NULL: no more.
 */
enum sim_event {
    SIM_EVENT_ISSUE,  /* it is about to be issued: the next sim_fail of its kind hits it */
    SIM_EVENT_EFFECT, /* it has had its effect, and its owner does not know yet */
    SIM_EVENT_DONE,   /* its owner has been told, and has returned */
};
void sim_watch(void (*watch)(enum sim_event event, enum ring_kind kind));

/* ---- faults ---------------------------------------------------------------------------------------------------- */

/*
 * Makes the nth step of `kind` from now (1 = the next; RING_KIND_NONE counts steps of every kind) fail with an errno. A
 * step is what ring_io.c issues: an operation is one, and one more for every continuation. A failed write leaves
 * nothing, all or some sectors of itself as unsynced data. After a failed sync, what it was to make durable reads back
 * but no later sync covers it.
 */
void sim_fail(enum ring_kind kind, uint64_t nth, int sys_errno);
/* Forgets the faults that have not happened yet. */
void sim_fail_none(void);
/* One step in a hundred times `percent` reads, writes or sends less than asked (0 at first). */
void sim_set_short(unsigned percent);
/* Likewise, ends with EINTR or EAGAIN (0 at first). */
void sim_set_interrupted(unsigned percent);
/* The disk's size in bytes; UINT64_MAX at first. */
void sim_set_disk_size(uint64_t bytes);
/* Bytes of it that files take up now. */
uint64_t sim_disk_used(void);
/* O_DIRECT alignment, 4096 at first; 0: opening with RING_OPEN_DIRECT is UNSUPPORTED. Violations fail an assertion. */
void sim_set_direct_align(uint32_t align);
/* Whether a file can have a second name (it can, at first); else a link is EXDEV. */
void sim_set_links(bool possible);
/* How many bytes a socket takes in before its peer reads; 0 (at first): the seed decides for each socket. */
void sim_set_socket_bytes(size_t bytes);

/*
 * Faults by chance: each step that a fault can befall meets it with this probability, in parts per million (0 at
 * first). Rings marked with sim_ring_spare meet none but SHORT, LATE, RESET and STALL.
 *
 * READ_FLIP … READ_ASTRAY spoil what one read returns and leave the disk as it is. WRITE_LOST … WRITE_FLIP are writes
 * (or syncs of them) that succeed and leave wrong bytes on the disk; see sim_rot_each.
 */
enum sim_fault_kind {
    SIM_FAULT_READ_ERROR,   /* EIO */
    SIM_FAULT_WRITE_ERROR,  /* EIO; leaves nothing, some or all of itself, unsynced */
    SIM_FAULT_SYNC_ERROR,   /* EIO; what it was to make durable stays readable, or is gone at once (seed's choice), and
                               no later sync covers it */
    SIM_FAULT_NAME_ERROR,   /* EIO, EMFILE or ENOSPC on open, allocate, rename, unlink, link, make */
    SIM_FAULT_NO_SPACE,     /* ENOSPC on a write or allocate, maybe after a part */
    SIM_FAULT_SHORT,        /* less than asked, read, written or sent */
    SIM_FAULT_INTERRUPTED,  /* EINTR or EAGAIN */
    SIM_FAULT_LATE,         /* takes 10 ms to 3 s */
    SIM_FAULT_CANCELLED,    /* ECANCELED that nobody asked for */
    SIM_FAULT_ENDED,        /* a multishot delivers once more and ends: a full completion queue does that */
    SIM_FAULT_NO_BUFFERS,   /* ENOBUFS though there are some */
    SIM_FAULT_READ_FLIP,    /* one bit */
    SIM_FAULT_READ_STALE,   /* some sectors as they were before they were last written */
    SIM_FAULT_READ_ASTRAY,  /* another place's bytes */
    SIM_FAULT_WRITE_LOST,   /* nothing is written */
    SIM_FAULT_WRITE_ASTRAY, /* it lands at another place of this or another file of the directory */
    SIM_FAULT_WRITE_FLIP,   /* one bit */
    SIM_FAULT_RESET,        /* a connection breaks */
    SIM_FAULT_STALL,        /* a stream stands still for 10 ms to 30 s */
    SIM_FAULT_MAP_ERROR,    /* ENOMEM or ENODEV when a file is mapped, before or after some of it was read */
    SIM_FAULT_COUNT
};
void sim_odds(enum sim_fault_kind kind, unsigned per_million);
void sim_odds_none(void);
/* "read-error", …: for options, stories and tables. */
const char *sim_fault_name(enum sim_fault_kind kind);
/* How often it has happened since sim_create. */
uint64_t sim_fault_count(enum sim_fault_kind kind);
/* Exempts a ring: that of the test's own clients. */
void sim_ring_spare(struct ring *ring);

/*
 * Rot: places where the disk does not hold what was written, by WRITE_LOST, WRITE_ASTRAY, WRITE_FLIP or sim_rot_add. A
 * later write over such a place ends it there. To be called between a crash and the next boot, they tell what that boot
 * will find. `truth` is what should be there; first and last byte of a place are wrong, some between may be right.
 */
void sim_rot_each(void (*each)(void *context, const char *path, uint64_t offset, const uint8_t *truth, size_t size),
                  void *context);
/* Spoils bytes, durably, and remembers what was there. */
void sim_rot_add(const char *path, uint64_t offset, const void *data, size_t size);
/* Puts the truth back everywhere. */
void sim_rot_heal(void);
/* Forgets all rot: what the disk holds is the truth from now on. */
void sim_rot_accept(void);

/* Where every op in flight is, and the disk's names and sizes, for a story; to stderr. */
void sim_describe(void);

/* Steps of a kind issued since sim_create; RING_KIND_NONE: of all kinds. */
uint64_t sim_issued(enum ring_kind kind);

/* ---- files, behind the back of the code under test -------------------------------------------------------------- */

/* Paths are absolute. Use these between a crash and the next boot: they show what that boot will find, and what they
 * change is durable. */
bool sim_file_exists(const char *path);
uint64_t sim_file_size(const char *path);
void sim_file_read(const char *path, uint64_t offset, void *out, size_t size);
void sim_file_overwrite(const char *path, uint64_t offset, const void *data, size_t size);
void sim_file_flip(const char *path, uint64_t bit);
void sim_file_truncate(const char *path, uint64_t size);
/* Makes or replaces a file, and its directory. */
void sim_file_put(const char *path, const void *data, size_t size);
void sim_file_remove(const char *path);
/* Calls `each` with the path of every file, in order of creation. */
void sim_file_each(void (*each)(void *context, const char *path), void *context);

#endif
