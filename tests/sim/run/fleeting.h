/*
 * fleeting.h - keys that expire, and what may be seen of them: the oracle of expiry.
 *
 * A fleeting key is asked one thing at a time, so what it holds is known: one value, or, after operations without an
 * answer, one of a few. Each value may have a time from whose millisecond on it must not be seen any more, not after a
 * crash, a compaction or a clock that steps back either (P2), and before which it must not be missing (P1).
 *
 * Values tell their key and version. Commands that look and change (SET NX, KEEPTTL, GETDEL, GETEX, PEXPIREAT, PERSIST)
 * are asked of them, too: they must see what was there when they were asked, and change nothing else.
 *
 * Time. The node goes by the wall clock, but never back. While the clock keeps its pace the node's time is known to the
 * millisecond. When it steps, there are two bounds, and what lies between them is given the benefit of the doubt.
 */
#ifndef KVS_TESTS_SIM_RUN_FLEETING_H
#define KVS_TESTS_SIM_RUN_FLEETING_H

#include "base/bytes.h"

#define FLEETING_REQUEST_BYTES_MAX 16384

struct fleeting;

/* `swaps`: commands that look and change are asked, too. */
struct fleeting *fleeting_create(unsigned keys, unsigned value_bytes, bool swaps);
void fleeting_free(struct fleeting *fleeting);
unsigned fleeting_keys(const struct fleeting *fleeting);
/* True for the name of a fleeting key; sets *key. */
bool fleeting_named(const struct fleeting *fleeting, struct slice name, unsigned *key);

/* The clock has been put forth or back. */
void fleeting_clock_stepped(struct fleeting *fleeting, int64_t by_ms);
/* An orderly stop begins. */
void fleeting_stop(struct fleeting *fleeting);
/* A boot has begun. `orderly`: the one before had ended so, without a failure; `calm`: and without faults. */
void fleeting_boot(struct fleeting *fleeting, bool orderly, bool calm);
/* Damage that need not have been noticed has hit this key's latest records. */
void fleeting_taint(struct fleeting *fleeting, unsigned key);

/* Nothing is asked of it, and nothing may still happen to it. */
bool fleeting_idle(const struct fleeting *fleeting, unsigned key);
/* Writes a RESP request about the key, as `chance` chooses (0: a GET), and returns its size. */
size_t fleeting_begin(struct fleeting *fleeting, unsigned key, uint64_t chance,
                      uint8_t out[FLEETING_REQUEST_BYTES_MAX]);
/* Whether what was begun is a write. */
bool fleeting_writes(const struct fleeting *fleeting, unsigned key);

enum fleeting_answer { FLEETING_OK, FLEETING_VALUE, FLEETING_MISSING, FLEETING_NUMBER };
void fleeting_end(struct fleeting *fleeting, unsigned key, enum fleeting_answer answer, struct slice value,
                  int64_t number);
/* There will be no definite answer. */
void fleeting_leave(struct fleeting *fleeting, unsigned key);

/* All keys are taken away at one moment from now on: from a flush's beginning, whose moment this returns, to its
 * answer; or any time in this boot, if it is left without one. */
uint64_t fleeting_flush_begin(struct fleeting *fleeting);
void fleeting_flush_end(struct fleeting *fleeting, uint64_t moment);

/* How many the node may count now, if what expired more than `late_ms` ago is to be gone. */
void fleeting_range(const struct fleeting *fleeting, uint64_t late_ms, int64_t *least, int64_t *most);

#endif
