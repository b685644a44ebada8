/*
 * crc32c_internal.h - the ways to compute a CRC32C, for crc32c.c and its test. All give the same result as crc32c().
 *
 * Pure; any thread. A way that crc32c_has_… denies must not be called: the processor lacks its instructions.
 */
#ifndef KVS_BASE_CRC32C_INTERNAL_H
#define KVS_BASE_CRC32C_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Slicing by eight: runs anywhere. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);

#ifdef __x86_64__
/* One crc32 instruction after the other (SSE4.2). */
bool crc32c_has_serial(void);
uint32_t crc32c_serial(uint32_t crc, const void *data, size_t size);

/* Three streams of crc32 instructions at once, joined by carry-less multiplication (SSE4.2 and PCLMULQDQ). */
bool crc32c_has_interleaved(void);
uint32_t crc32c_interleaved(uint32_t crc, const void *data, size_t size);
#endif

#endif
