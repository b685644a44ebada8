/*
 * limits.h - bounds that several modules share. Every queue, table and size has one (docs/ARCHITECTURE.md, "Limits").
 */
#ifndef KVS_BASE_LIMITS_H
#define KVS_BASE_LIMITS_H

#define KVS_SHARDS_MAX      64u
#define KVS_KEY_BYTES_MAX   65535u
#define KVS_VALUE_BYTES_MAX (512u * 1024 * 1024) /* more than that no store takes, whatever its options say */
/* Longest value that stands in the log itself; of larger ones the log has the name of a file (engine/value_format.h).
 */
#define KVS_RECORD_VALUE_BYTES_MAX (16u * 1024 * 1024)

/* The unit of log I/O: batches begin at multiples of it and are padded to it. */
#define KVS_BLOCK_BYTES 4096u

#define KVS_CACHE_LINE_BYTES 64u

#endif
