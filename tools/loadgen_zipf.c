/*
 * loadgen_zipf.c - see loadgen_zipf.h.
 *
 * Rank k is as likely as the area of a bar one wide, from k - 1/2 to k + 1/2, and k^-theta high. The curve x^-theta is
 * convex, so the area below it over the same width is at least as large: a point is drawn evenly from the area below
 * the curve (by the inverse of its integral), it falls into one of the widths, and there it is kept with the chance
 * that the bar's area has in the curve's. Of rank 1 only the bar's area is drawn from. Some 90 % of the points are
 * kept, and for most of them no second look is needed.
 *
 * Nothing here can fail.
 */
#include "loadgen_zipf.h"

#include "base/assert.h"
#include "loadgen_random.h"

#include <math.h>

/* Below this a series is nearer to the truth than the quotient. */
#define SMALL 1e-8

/* The integral of x^-theta from 1 on: (x^(1 - theta) - 1) / (1 - theta), or log x for theta = 1, and all between. */
static double integral(double theta, double x)
{
    double log_x = log(x);
    double power = (1 - theta) * log_x;
    return fabs(power) > SMALL ? log_x * expm1(power) / power : log_x * (1 + power / 2);
}

static double inverse(double theta, double area)
{
    double part = area * (1 - theta);
    if (part < -1)
        part = -1; /* by a rounding error, at theta > 1 */
    return exp(fabs(part) > SMALL ? area * log1p(part) / part : area * (1 - part / 2));
}

void zipf_init(struct zipf *zipf, double theta, uint64_t n)
{
    KVS_ASSERT(theta >= 0 && theta <= 10);
    *zipf = (struct zipf){
        .theta = theta,
        .first = integral(theta, 1.5) - 1,
        .certain = 2 - inverse(theta, integral(theta, 2.5) - pow(2, -theta)),
    };
    zipf_resize(zipf, n);
}

void zipf_resize(struct zipf *zipf, uint64_t n)
{
    KVS_ASSERT(n >= 1 && n <= UINT64_C(1) << 50);
    zipf->n = n;
    zipf->last = integral(zipf->theta, (double)n + 0.5);
}

uint64_t zipf_draw(const struct zipf *zipf, uint64_t *random)
{
    for (;;) {
        double area = zipf->last + loadgen_random_unit(random) * (zipf->first - zipf->last);
        double x = inverse(zipf->theta, area);
        double rank = floor(x + 0.5);
        rank = fmin(fmax(rank, 1), (double)zipf->n);
        if (rank - x <= zipf->certain || area >= integral(zipf->theta, rank + 0.5) - pow(rank, -zipf->theta))
            return (uint64_t)rank;
    }
}

uint64_t zipf_scatter(uint64_t number, uint64_t n)
{
    KVS_ASSERT(number < n);
    if (n < 3)
        return number;
    /* Each of these steps maps the numbers of so many bits one to one; one that is too large goes round again. */
    unsigned bits = 64 - (unsigned)__builtin_clzll(n - 1);
    uint64_t mask = UINT64_MAX >> (64 - bits);
    unsigned shift = (bits + 1) / 2;
    do {
        for (uint64_t round = 1; round <= 3; round++) {
            number = (number + round * LOADGEN_RANDOM_STEP) * UINT64_C(0xBF58476D1CE4E5B9) & mask;
            number ^= number >> shift;
        }
    } while (number >= n);
    return number;
}
