/*
 * bounds.c - the table of bounds, and how their values are read.
 *
 * Failure: a value that is no number or size, or not within the bound's own bounds, changes nothing; the text says what
 * they are.
 */
#include "node/bounds.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "node/config.h"

#include <stdio.h>

#define KIB 1024ull
#define MIB (1024 * KIB)

/* Redis's least for proto-max-bulk-len and client-query-buffer-limit is a MiB, too. A request's bytes are counted with
 * 32 bits. */
static const struct {
    const char *name;
    uint64_t min, max;
    const char *right;
} table[BOUND_COUNT] = {
    [BOUND_KEY_BYTES] = {"key-max", 1, KVS_KEY_BYTES_MAX, "expected a size from 1 to 65535, such as 1K"},
    [BOUND_BULK_BYTES] = {"bulk-max", MIB, KVS_VALUE_BYTES_MAX, "expected a size from 1M to 512M"},
    [BOUND_ARGS] = {"args-max", 16, MIB, "expected a number from 16 to 1048576"},
    [BOUND_REQUEST_BYTES] = {"request-max", MIB, 1024 * MIB, "expected a size from 1M to 1G, such as 64M"},
    [BOUND_OUTPUT_BYTES] = {"output-limit", 16 * KIB, 1024 * MIB, "expected a size from 16K to 1G, such as 1M"},
    [BOUND_SEND_TIMEOUT_S] = {"send-timeout", 1, 86400, "expected seconds, from 1 to 86400"},
    [BOUND_CLIENTS_MEMORY_BYTES] = {"clients-memory", MIB, 1024 * 1024 * MIB, "expected a size from 1M, such as 64M"},
    [BOUND_PIPELINE] = {"pipeline-max", 1, 65536, "expected a number from 1 to 65536"},
    [BOUND_TURN] = {"turn-max", 1, 1000000, "expected a number from 1 to 1000000"},
};

static bool is_count(enum bound bound)
{
    return bound == BOUND_ARGS || bound == BOUND_SEND_TIMEOUT_S || bound == BOUND_PIPELINE || bound == BOUND_TURN;
}

const char *bounds_name(enum bound bound)
{
    KVS_ASSERT((unsigned)bound < BOUND_COUNT);
    return table[bound].name;
}

bool bounds_set(struct bounds *bounds, enum bound bound, const char *value, char *right, size_t size)
{
    KVS_ASSERT((unsigned)bound < BOUND_COUNT);
    uint64_t number;
    const bool plain = value[strspn(value, "0123456789")] == 0;
    if (config_parse_size(value, &number) && (plain || !is_count(bound)) && number >= table[bound].min &&
        number <= table[bound].max) {
        bounds->given[bound] = number;
        return true;
    }
    snprintf(right, size, "%s", table[bound].right);
    return false;
}
