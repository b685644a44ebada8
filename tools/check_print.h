/*
 * check_print.h - how kvs-check says what it has found: for people, for programs, and record by record. To standard
 * output; whether that worked is seen at the end (tool_streams_finish). One thread.
 */
#ifndef KVS_TOOLS_CHECK_PRINT_H
#define KVS_TOOLS_CHECK_PRINT_H

#include "engine/check.h"

#include <stdio.h>

/* What --salvage has done. */
struct print_salvage {
    const char *out_dir; /* NULL: nothing was asked for */
    struct check_salvaged done;
    const struct check_report *verified; /* the new store, checked */
};

/* True when nothing acknowledged is missing or damaged: notes apart. */
bool print_is_sound(const struct check_report *report);

void print_text(const char *dir_name, const struct check_report *report, const struct print_salvage *salvage);
/* One object, one line. */
void print_json(const char *dir_name, const struct check_report *report, const struct print_salvage *salvage);
/* One damage, as in the text. */
void print_damage(FILE *to, const struct check_damage *damage);

/* A line: segment, offset, LSN, put or delete, bytes of key and value, key; or the key alone. Keys are quoted; bytes
 * that are not printable ASCII appear as \xNN. */
void print_record(const struct check_record *record, bool key_only);

#endif
