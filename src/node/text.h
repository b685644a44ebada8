/*
 * text.h - a string that grows: for replies whose size is not known before they are written (INFO, COMMAND).
 *
 * Not for the hot path: it allocates. When memory runs out it remembers that and takes nothing more.
 */
#ifndef KVS_NODE_TEXT_H
#define KVS_NODE_TEXT_H

#include "base/bytes.h"

struct text {
    uint8_t *data; /* NULL at first: begin with (struct text){0} */
    size_t size;
    size_t capacity;
    bool failed;
};

void text_deinit(struct text *text);
/* Room for `bytes` more behind the end; NULL when memory ran out. Say with text_advance what was used. */
uint8_t *text_room(struct text *text, size_t bytes);
void text_advance(struct text *text, size_t bytes);
void text_add(struct text *text, struct slice bytes);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
