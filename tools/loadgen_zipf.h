/*
 * loadgen_zipf.h - random numbers of which a few come up often: rank k of 1..n with a chance in proportion to k^-theta.
 *
 * By rejection from the integral of that function, after W. Hörmann and G. Derflinger, "Rejection-inversion to generate
 * variates from monotone discrete distributions", ACM TOMACS 6(3), 1996. Exact for every theta, and n may grow between
 * two draws at no cost: there is no sum over n to be made, as there is in the method of J. Gray et al. ("Quickly
 * generating billion-record synthetic databases", SIGMOD 1994) that YCSB draws the same distribution with.
 *
 * Pure; plain data, of one thread.
 */
#ifndef KVS_TOOLS_LOADGEN_ZIPF_H
#define KVS_TOOLS_LOADGEN_ZIPF_H

#include <stdint.h>

struct zipf {
    double theta;
    double first, last; /* of the integral: left of rank 1, right of rank n */
    double certain;     /* so near in front of a rank nothing is rejected */
    uint64_t n;
};

/* theta: 0 (all ranks alike) to 10; n: 1 to 2^50. */
void zipf_init(struct zipf *zipf, double theta, uint64_t n);

/* Changes n. */
void zipf_resize(struct zipf *zipf, uint64_t n);

/* A rank, 1 to n. Takes one random number or more from the state of loadgen_random. */
uint64_t zipf_draw(const struct zipf *zipf, uint64_t *random);

/*
 * Scatters 0..n-1 over 0..n-1, each to a place of its own, so that ranks in a row are not keys in a row. (YCSB's
 * scrambling hashes instead, and then some keys stand for many ranks and others for none.)
 */
uint64_t zipf_scatter(uint64_t number, uint64_t n);

#endif
