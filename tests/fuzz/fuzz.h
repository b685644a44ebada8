/*
 * fuzz.h - what every fuzzer shares: its entry points, its checks, and a reader that turns bytes into choices.
 *
 * A fuzzer is one source file with LLVMFuzzerTestOneInput. Built with clang and KVS_FUZZ it is a libFuzzer program that
 * invents inputs; built in any other way, fuzz_replay.c runs it over the kept corpus. Inputs are the fuzzer's own
 * language, described at the head of its file; every sequence of bytes means something.
 */
#ifndef KVS_TESTS_FUZZ_H
#define KVS_TESTS_FUZZ_H

#include "base/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* A property of the code under test that does not hold: a finding. */
#define FUZZ_CHECK(condition)                                                                               \
    do {                                                                                                    \
        if (!(condition)) {                                                                                 \
            fprintf(stderr, "%s:%d: property broken: %s (%s)\n", __FILE__, __LINE__, #condition, __func__); \
            abort();                                                                                        \
        }                                                                                                   \
    } while (0)

/* The rest of an input. Taking from an empty one gives zeros. */
struct fuzz_input {
    const uint8_t *data;
    size_t size;
};

static inline struct slice fuzz_take_slice(struct fuzz_input *input, size_t size)
{
    const size_t taken = size < input->size ? size : input->size;
    const struct slice slice = slice_make(input->data, taken);
    input->data += taken;
    input->size -= taken;
    return slice;
}

/* Little-endian, of `bytes` bytes. */
static inline uint64_t fuzz_take(struct fuzz_input *input, unsigned bytes)
{
    uint64_t value = 0;
    const struct slice slice = fuzz_take_slice(input, bytes);
    if (slice.size > 0)
        memcpy(&value, slice.data, slice.size);
    return value;
}

/* Bytes in memory of exactly their size, so that a step beyond their end is noticed. Freed by the caller. */
static inline uint8_t *fuzz_copy(const void *data, size_t size)
{
    uint8_t *copy = calloc(1, size > 0 ? size : 1);
    FUZZ_CHECK(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

/* A cheap sequence of choices that depends on nothing but its seed. */
static inline uint64_t fuzz_next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t mixed = (*state ^ (*state >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

static inline bool fuzz_lies_in(struct slice part, const uint8_t *data, size_t size)
{
    return part.size == 0 || (part.data >= data && part.size <= size && (size_t)(part.data - data) <= size - part.size);
}

/* The bytes as a string of its own, up to the first NUL; to be freed. (strndup is held by AddressSanitizer's strict
 * checks to a NUL within the input.) */
static inline char *fuzz_string(const void *data, size_t size)
{
    const char *end = size > 0 ? memchr(data, '\0', size) : NULL;
    size_t length = end != NULL ? (size_t)(end - (const char *)data) : size;
    char *text = malloc(length + 1);
    if (text == NULL)
        abort();
    if (length > 0)
        memcpy(text, data, length);
    text[length] = '\0';
    return text;
}

#endif
