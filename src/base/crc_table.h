/*
 * crc_table.h - tables for the checksums of crc32c.c and crc64.c, written down as the entries of single bits.
 *
 * A table has the checksum of each byte followed by k zero bytes. CRCs are linear, so an entry is the sum (xor) of the
 * entries of its bits: CRC_TABLE takes those eight, of the bytes 1, 2, 4 … 128, and gives the initializer of an array
 * of 256. All of it is done by the compiler.
 */
#ifndef KVS_BASE_CRC_TABLE_H
#define KVS_BASE_CRC_TABLE_H

#define CRC_BIT(i, bit, value) (((i) >> (bit)&1u) * (value))
#define CRC_SUM(i, b0, b1, b2, b3, b4, b5, b6, b7)                                                       \
    (CRC_BIT(i, 0, b0) ^ CRC_BIT(i, 1, b1) ^ CRC_BIT(i, 2, b2) ^ CRC_BIT(i, 3, b3) ^ CRC_BIT(i, 4, b4) ^ \
     CRC_BIT(i, 5, b5) ^ CRC_BIT(i, 6, b6) ^ CRC_BIT(i, 7, b7))
#define CRC_ROW4(i, ...) \
    CRC_SUM(i, __VA_ARGS__), CRC_SUM(i + 1, __VA_ARGS__), CRC_SUM(i + 2, __VA_ARGS__), CRC_SUM(i + 3, __VA_ARGS__)
#define CRC_ROW16(i, ...) \
    CRC_ROW4(i, __VA_ARGS__), CRC_ROW4(i + 4, __VA_ARGS__), CRC_ROW4(i + 8, __VA_ARGS__), CRC_ROW4(i + 12, __VA_ARGS__)
#define CRC_ROW64(i, ...)                                                                      \
    CRC_ROW16(i, __VA_ARGS__), CRC_ROW16(i + 16, __VA_ARGS__), CRC_ROW16(i + 32, __VA_ARGS__), \
        CRC_ROW16(i + 48, __VA_ARGS__)
#define CRC_TABLE(...)                                                                         \
    {                                                                                          \
        CRC_ROW64(0u, __VA_ARGS__), CRC_ROW64(64u, __VA_ARGS__), CRC_ROW64(128u, __VA_ARGS__), \
            CRC_ROW64(192u, __VA_ARGS__)                                                       \
    }

#endif
