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
    SIM_RANDOM, /* each unsynced write is kept, dropped or torn by 512-byte sectors; each unsynced name kept or dropped
                 */
};

/* Power loss. All rings, sockets and descriptors are gone; ops in flight are never touched again; files stay for the
 * next boot. Close nothing afterwards but through ring_close_fd, which ignores descriptors from before the crash. */
void sim_crash(enum sim_crash_mode mode);

/* A number from the machine's own generator, 0..below-1, for tests that want their choices in the trace. */
uint64_t sim_random(uint64_t below);
/* A hash over every decision and every completion so far. */
uint64_t sim_trace(void);
/* Moves the clock. */
void sim_advance(uint64_t ns);
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
/* Steps until condition(context) holds; false after steps_max steps or when nothing will ever happen again. */
bool sim_run_until(bool (*condition)(void *context), void *context, uint64_t steps_max);

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
/* O_DIRECT alignment, 4096 at first; 0: opening with RING_OPEN_DIRECT is UNSUPPORTED. Violations fail an assertion. */
void sim_set_direct_align(uint32_t align);
/* How many bytes a socket takes in before its peer reads; 0 (at first): the seed decides for each socket. */
void sim_set_socket_bytes(size_t bytes);

/* Steps of a kind issued since sim_create; RING_KIND_NONE: of all kinds. */
uint64_t sim_issued(enum ring_kind kind);

/* ---- files, behind the back of the code under test -------------------------------------------------------------- */

/* Paths are absolute. These work on durable content under durable names; use them between a crash and the next boot. */
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
