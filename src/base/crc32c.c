/*
 * crc32c.c - CRC32C in three ways; the fastest that the processor offers is taken.
 *
 * serial        The crc32 instruction takes eight bytes every three cycles, as each waits for the one before. Best for
 *               what is shorter than three lanes.
 * interleaved   The input is cut into blocks of three lanes, A B C, whose instructions overlap, so that eight bytes are
 *               taken every cycle:
 *
 *                   |---- A ----|---- B ----|---- C ----|     crc(ABC) = A·x^(16L) + B·x^(8L) + C  mod P
 *
 *               with L bytes in a lane. Multiplying by a constant is one PCLMULQDQ; the product of two reflected 32-bit
 *               polynomials, given to the crc32 instruction, comes out reduced and multiplied by x^33, hence constants
 *               of the form x^(n-33) mod P.
 * portable      Slicing by eight: eight table look-ups for eight bytes.
 *
 * Happy path: crc32c() looks at the size and at one bit that libgcc read at start-up. Nothing here can fail.
 */
#include "base/crc32c.h"

#include "base/bytes.h"
#include "base/crc32c_internal.h"
#include "base/crc_table.h"

/*
 * tables[k][i] is the checksum of byte i followed by k zero bytes. CRCs are linear, so an entry is the sum (xor) of the
 * entries of its bits, and those 64 are successive states of the shift register, starting at tables[0][0x80] = P.
 */
static const uint32_t tables[8][256] = {
    CRC_TABLE(0xf26b8303u, 0xe13b70f7u, 0xc79a971fu, 0x8ad958cfu, 0x105ec76fu, 0x20bd8edeu, 0x417b1dbcu, 0x82f63b78u),
    CRC_TABLE(0x13a29877u, 0x274530eeu, 0x4e8a61dcu, 0x9d14c3b8u, 0x3fc5f181u, 0x7f8be302u, 0xff17c604u, 0xfbc3faf9u),
    CRC_TABLE(0xa541927eu, 0x4f6f520du, 0x9edea41au, 0x38513ec5u, 0x70a27d8au, 0xe144fb14u, 0xc76580d9u, 0x8b277743u),
    CRC_TABLE(0xdd45aab8u, 0xbf672381u, 0x7b2231f3u, 0xf64463e6u, 0xe964b13du, 0xd725148bu, 0xaba65fe7u, 0x52a0c93fu),
    CRC_TABLE(0x38116facu, 0x7022df58u, 0xe045beb0u, 0xc5670b91u, 0x8f2261d3u, 0x1ba8b557u, 0x37516aaeu, 0x6ea2d55cu),
    CRC_TABLE(0xef306b19u, 0xdb8ca0c3u, 0xb2f53777u, 0x6006181fu, 0xc00c303eu, 0x85f4168du, 0x0e045bebu, 0x1c08b7d6u),
    CRC_TABLE(0x68032cc8u, 0xd0065990u, 0xa5e0c5d1u, 0x4e2dfd53u, 0x9c5bfaa6u, 0x3d5b83bdu, 0x7ab7077au, 0xf56e0ef4u),
    CRC_TABLE(0x493c7d27u, 0x9278fa4eu, 0x211d826du, 0x423b04dau, 0x847609b4u, 0x0d006599u, 0x1a00cb32u, 0x34019664u),
};

static inline uint64_t load_8(const uint8_t *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return word;
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *at = data;
    crc = ~crc;
    for (; size >= 8; at += 8, size -= 8) {
        const uint64_t word = load_8(at) ^ crc;
        crc = tables[7][word & 0xff] ^ tables[6][word >> 8 & 0xff] ^ tables[5][word >> 16 & 0xff] ^
              tables[4][word >> 24 & 0xff] ^ tables[3][word >> 32 & 0xff] ^ tables[2][word >> 40 & 0xff] ^
              tables[1][word >> 48 & 0xff] ^ tables[0][word >> 56];
    }
    for (; size > 0; at++, size--)
        crc = crc >> 8 ^ tables[0][(crc ^ *at) & 0xff];
    return ~crc;
}

#ifdef __x86_64__

#include <nmmintrin.h>
#include <wmmintrin.h>

#define TARGET_SERIAL      __attribute__((target("sse4.2")))
#define TARGET_INTERLEAVED __attribute__((target("sse4.2,pclmul")))

bool crc32c_has_serial(void)
{
#ifdef __SSE4_2__
    return true; /* or this whole build could not run */
#else
    return __builtin_cpu_supports("sse4.2");
#endif
}

bool crc32c_has_interleaved(void)
{
    return crc32c_has_serial() && __builtin_cpu_supports("pclmul");
}

/* The register, without the inversions at both ends. */
TARGET_SERIAL static inline uint32_t serial_update(uint32_t crc, const uint8_t *at, size_t size)
{
    uint64_t state = crc;
    for (; size >= 8; at += 8, size -= 8)
        state = _mm_crc32_u64(state, load_8(at));
    crc = (uint32_t)state;
    if (size & 4) {
        uint32_t word;
        memcpy(&word, at, sizeof word);
        crc = _mm_crc32_u32(crc, word);
        at += 4;
    }
    if (size & 2) {
        uint16_t word;
        memcpy(&word, at, sizeof word);
        crc = _mm_crc32_u16(crc, word);
        at += 2;
    }
    if (size & 1)
        crc = _mm_crc32_u8(crc, *at);
    return crc;
}

TARGET_SERIAL uint32_t crc32c_serial(uint32_t crc, const void *data, size_t size)
{
    return ~serial_update(~crc, data, size);
}

TARGET_INTERLEAVED static inline uint64_t multiply(uint64_t crc, uint32_t factor)
{
    const __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)factor), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

/* One block of three lanes. The factors are x^(16·lane_bytes - 33) and x^(8·lane_bytes - 33) mod P, reflected. */
TARGET_INTERLEAVED static inline __attribute__((always_inline)) uint32_t block_update(uint32_t crc, const uint8_t *at,
                                                                                      size_t lane_bytes,
                                                                                      uint32_t factor_a,
                                                                                      uint32_t factor_b)
{
    uint64_t a = crc, b = 0, c = 0;
#pragma GCC unroll 4
    for (size_t i = 0; i < lane_bytes; i += 8) {
        a = _mm_crc32_u64(a, load_8(at + i));
        b = _mm_crc32_u64(b, load_8(at + lane_bytes + i));
        c = _mm_crc32_u64(c, load_8(at + 2 * lane_bytes + i));
    }
    return (uint32_t)(_mm_crc32_u64(0, multiply(a, factor_a) ^ multiply(b, factor_b)) ^ c);
}

/* As many blocks as there are. */
TARGET_INTERLEAVED static inline __attribute__((always_inline)) uint32_t blocks_update(uint32_t crc, const uint8_t **at,
                                                                                       size_t *size, size_t lane_bytes,
                                                                                       uint32_t factor_a,
                                                                                       uint32_t factor_b)
{
    for (; *size >= 3 * lane_bytes; *at += 3 * lane_bytes, *size -= 3 * lane_bytes)
        crc = block_update(crc, *at, lane_bytes, factor_a, factor_b);
    return crc;
}

/* Three lanes of the shortest kind: from here on joining them costs less than it saves. */
#define INTERLEAVE_BYTES_MIN 96u

TARGET_INTERLEAVED uint32_t crc32c_interleaved(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *at = data;
    crc = ~crc;
    crc = blocks_update(crc, &at, &size, 1024, 0xa51b6135u, 0x170076fau);
    crc = blocks_update(crc, &at, &size, 256, 0xdd7e3b0cu, 0xb9e02b86u);
    crc = blocks_update(crc, &at, &size, 64, 0x0d3b6092u, 0x9e4addf8u);
    crc = blocks_update(crc, &at, &size, 32, 0x9e4addf8u, 0xba4fc28eu);
    return ~serial_update(crc, at, size);
}

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    if (size >= INTERLEAVE_BYTES_MIN && crc32c_has_interleaved())
        return crc32c_interleaved(crc, data, size);
    if (crc32c_has_serial())
        return crc32c_serial(crc, data, size);
    return crc32c_portable(crc, data, size);
}

#else

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    return crc32c_portable(crc, data, size);
}

#endif
