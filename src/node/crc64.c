/*
 * crc64.c - slicing by eight: eight table look-ups for eight bytes. Nothing here can fail.
 */
#include "node/crc64.h"

#include "base/bytes.h"
#include "base/crc_table.h"

/*
 * tables[k][i] is the checksum of byte i followed by k zero bytes. CRCs are linear, so an entry is the sum (xor) of the
 * entries of its bits; those 64 are what is written down here.
 */
static const uint64_t tables[8][256] = {
    CRC_TABLE(0x7ad870c830358979u, 0xf5b0e190606b12f2u, 0xc038e5739841b68fu, 0xab28ecb46814fe75u, 0x7d08ff3b88be6f81u,
              0xfa11fe77117cdf02u, 0xdf7adabd7a6e2d6fu, 0x95ac9329ac4bc9b5u),
    CRC_TABLE(0x89e99ffd73bddf69u, 0x388a19a9bfec2db9u, 0x711433537fd85b72u, 0xe22866a6ffb0b6e4u, 0xef09eb1ea7f6fea3u,
              0xf54af06e177a6e2du, 0xc1ccc68f76634f31u, 0xa8c0ab4db4510d09u),
    CRC_TABLE(0xf4125129ce4038beu, 0xc37d8400c417e217u, 0xada22e52d0b85745u, 0x701d7af6f9e73de1u, 0xe03af5edf3ce7bc2u,
              0xeb2ccd88bf0b64efu, 0xfd00bd4226815ab5u, 0xd1585cd715952601u),
    CRC_TABLE(0x8ce168638c796306u, 0x329bf69440655567u, 0x6537ed2880caaaceu, 0xca6fda510195559cu, 0xbf8692f15bbd3853u,
              0x545403b1efede3cdu, 0xa8a80763dfdbc79au, 0x7a092894e7201c5fu),
    CRC_TABLE(0x3504e58b9ba6dd1eu, 0x6a09cb17374dba3cu, 0xd413962e6e9b7478u, 0x837e0a0f85a17b9bu, 0x2da5324c53d5645du,
              0x5b4a6498a7aac8bau, 0xb694c9314f559174u, 0x4670b431c63cb183u),
    CRC_TABLE(0xe39d1389931b9354u, 0xec6301407ea0b5c3u, 0xf39f24d3a5d6f8edu, 0xcc676ff4133a62b1u, 0xb397f9bb7ee35609u,
              0x4c76d525a5513f79u, 0x98edaa4b4aa27ef2u, 0x1a8272c5cdd36e8fu),
    CRC_TABLE(0x62a95de6e302eff2u, 0xc552bbcdc605dfe4u, 0xa1fc51c8d49c2ca3u, 0x68a185c2f1afca2du, 0xd1430b85e35f945au,
              0x89df31589e28bbdfu, 0x38e744e264c6e4d5u, 0x71ce89c4c98dc9aau),
    CRC_TABLE(0x381d0015c96f4444u, 0x703a002b92de8888u, 0xe074005725bd1110u, 0xebb126fd13edb14bu, 0xfc3b6ba97f4cf1fdu,
              0xd32ff101a60e7091u, 0x8d06c450148b7249u, 0x3154aef3718177f9u),
};

uint64_t crc64(uint64_t crc, const void *data, size_t size)
{
    const uint8_t *at = data;
    for (; size >= 8; at += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        word ^= crc;
        crc = tables[7][word & 0xff] ^ tables[6][word >> 8 & 0xff] ^ tables[5][word >> 16 & 0xff] ^
              tables[4][word >> 24 & 0xff] ^ tables[3][word >> 32 & 0xff] ^ tables[2][word >> 40 & 0xff] ^
              tables[1][word >> 48 & 0xff] ^ tables[0][word >> 56];
    }
    for (; size > 0; at++, size--)
        crc = crc >> 8 ^ tables[0][(crc ^ *at) & 0xff];
    return crc;
}
