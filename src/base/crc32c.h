/*
 * crc32c.h - CRC32C (Castagnoli, reflected polynomial 0x82F63B78), the checksum of every record, batch and frame.
 *
 * Pure; any thread. Uses the processor's CRC instruction where there is one.
 */
#ifndef KVS_BASE_CRC32C_H
#define KVS_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/*
 * Extends `crc` (0 to begin) by `size` bytes. crc32c(crc32c(0, a, n), b, m) is the checksum of a followed by b.
 * crc32c(0, "123456789", 9) == 0xE3069283 (RFC 3720, appendix B.4).
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

#endif
