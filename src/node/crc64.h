/*
 * crc64.h - the 64-bit checksum that Redis puts behind what DUMP replies.
 *
 * The polynomial is 0xad93d23594c935a9, reflected, begun with 0 and not inverted at the end ("CRC-64/Redis"). Source:
 * D. T. Jones, "An improved 64-bit cyclic redundancy check for protein sequences", 2002. Pure; any thread. Takes eight
 * bytes at a time.
 */
#ifndef KVS_NODE_CRC64_H
#define KVS_NODE_CRC64_H

#include <stddef.h>
#include <stdint.h>

/* Continues a checksum; 0 to begin one. */
uint64_t crc64(uint64_t crc, const void *data, size_t size);

#endif
