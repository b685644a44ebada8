/* text.c - a string that grows by doubling. */
#include "node/text.h"

#include "base/assert.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void text_deinit(struct text *text)
{
    free(text->data);
    *text = (struct text){0};
}

uint8_t *text_room(struct text *text, size_t bytes)
{
    if (text->failed)
        return NULL;
    if (text->data != NULL && text->capacity - text->size >= bytes)
        return text->data + text->size;
    size_t capacity = text->capacity < 1024 ? 1024 : text->capacity;
    while (capacity - text->size < bytes)
        capacity *= 2;
    uint8_t *grown = realloc(text->data, capacity);
    if (grown == NULL) {
        text->failed = true;
        return NULL;
    }
    text->data = grown;
    text->capacity = capacity;
    return text->data + text->size;
}

void text_advance(struct text *text, size_t bytes)
{
    KVS_ASSERT(text->capacity - text->size >= bytes);
    text->size += bytes;
}

void text_add(struct text *text, struct slice bytes)
{
    uint8_t *room = text_room(text, bytes.size);
    if (room == NULL || bytes.size == 0)
        return;
    memcpy(room, bytes.data, bytes.size);
    text->size += bytes.size;
}

void text_printf(struct text *text, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (length > 0)
        text_add(text, slice_make(line, (size_t)length < sizeof(line) ? (size_t)length : sizeof(line) - 1));
}
