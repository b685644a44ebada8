/*
 * sim_content.h - bytes of simulated files: pages that are shared until they change, pieces of data, whole contents.
 *
 * Most of what a store writes is zeros (segments are written full with them before they are used), and most of what is
 * durable is also what reads see. So a page of zeros is no page at all (NULL), and a page is shared by everybody who
 * holds these bytes: a write in flight, the unsynced write it becomes, the content that reads see, the durable content,
 * and the memory of what was overwritten.
 *
 * A content also knows its rot: the places that do not hold what was written to them.
 */
#ifndef KVS_TESTS_SIM_SIM_CONTENT_H
#define KVS_TESTS_SIM_SIM_CONTENT_H

#include "base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_SECTOR_BYTES 512u
#define SIM_PAGE_BYTES   4096u

struct sim_page;

/* Bytes for [from, to) of a file. They never change; freed with the last reference. */
struct sim_data {
    unsigned refs;
    uint64_t from, to;
    struct sim_page *pages[]; /* as they lie in the file: the first holds `from` */
};

struct sim_data *sim_data_make(uint64_t from, const uint8_t *bytes, size_t size);
struct sim_data *sim_data_hold(struct sim_data *data);
void sim_data_release(struct sim_data *data); /* NULL is nothing */
/* [from, to) must be part of it, here and below. */
void sim_data_read(const struct sim_data *data, uint64_t from, uint64_t to, uint8_t *out);
/* True when it holds just these bytes. */
bool sim_data_equal(const struct sim_data *data, const uint8_t *bytes);

struct sim_content {
    struct sim_page **pages; /* bytes behind `size` are zeros */
    size_t pages_room;
    uint64_t size;
    struct list rot; /* struct sim_rot, in no order, never overlapping */
};

void sim_content_init(struct sim_content *content);
void sim_content_clear(struct sim_content *content);
/* Grows with zeros, or cuts. */
void sim_content_resize(struct sim_content *content, uint64_t size);
/* Writes; grows as needed. Rot under it is gone. */
void sim_content_put(struct sim_content *content, const struct sim_data *data, uint64_t from, uint64_t to);
/* What lies behind the end reads as zeros. */
void sim_content_read(const struct sim_content *content, uint64_t from, uint64_t to, uint8_t *out);
struct sim_data *sim_content_snapshot(const struct sim_content *content, uint64_t from, uint64_t to);
/* True when writing these bytes there would change nothing, as far as shared pages tell: false may mean "perhaps". */
bool sim_content_same(const struct sim_content *content, const struct sim_data *data, uint64_t from, uint64_t to);
/* Makes `to` the same as `from`. */
void sim_content_copy(struct sim_content *to, const struct sim_content *from);

/* ---- rot (sim_rot.c) --------------------------------------------------------------------------------------------- */

/* What should be in [from, to), which holds something else. */
struct sim_rot {
    struct list link;
    struct sim_data *truth;
    uint64_t from, to;
};

/* What is in [from, to) is right from now on. */
void sim_rot_cut(struct sim_content *content, uint64_t from, uint64_t to);
/* In [from, to) there should be this. Only what differs is rot. */
void sim_rot_note(struct sim_content *content, struct sim_data *truth, uint64_t from, uint64_t to);
/* What should be in [from, to): its content where it is sound, the truth where it is not. */
struct sim_data *sim_rot_truth(const struct sim_content *content, uint64_t from, uint64_t to);
void sim_rot_copy(struct sim_content *to, const struct sim_content *from);
/* Puts the truth back. */
void sim_rot_heal_content(struct sim_content *content);

#endif
