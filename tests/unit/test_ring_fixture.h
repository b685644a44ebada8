/*
 * test_ring_fixture.h - what the tests of src/ring on the simulated machine share: a machine with one ring, and
 * operations that are waited for.
 */
#ifndef KVS_TESTS_UNIT_TEST_RING_FIXTURE_H
#define KVS_TESTS_UNIT_TEST_RING_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/assert.h"
#include "ring_sim.h"

#include <stdlib.h>
#include <string.h>

#define RW (RING_OPEN_READ | RING_OPEN_WRITE)

enum { DATA_BYTES_MAX = 32768 };

/* What a file held at first, what else is written to it, and what was found there. */
static _Alignas(4096) uint8_t old_data[DATA_BYTES_MAX], new_data[DATA_BYTES_MAX], found[DATA_BYTES_MAX];

static void nothing_done(struct ring_op *op)
{
    (void)op;
}

static inline struct ring *open_ring(unsigned buffer_count)
{
    struct ring *ring = NULL;
    char message[RING_MESSAGE_BYTES];
    struct ring_options options = {.buffer_count = buffer_count, .buffer_bytes = 256};
    assert_int_equal(ring_open(&ring, &options, message), KVS_ERR_OK);
    return ring;
}

/* For each test a machine, and a ring on it as its state. */
static inline int ring_set_up(void **state)
{
    sim_create(42);
    *state = open_ring(8);
    return 0;
}

static inline int ring_tear_down(void **state)
{
    (void)state;
    sim_destroy();
    return 0;
}

/* Each starts an operation, waits, and returns the error; the result is in *op. */

static inline enum kvs_err await_open(struct ring *ring, struct ring_op *op, int dir, const char *name, unsigned flags)
{
    ring_op_init(op, nothing_done);
    ring_file_open(ring, op, dir, name, flags);
    ring_await(ring, op);
    return op->error;
}

static inline enum kvs_err await_write(struct ring *ring, struct ring_op *op, int fd, const void *data, size_t size,
                                       uint64_t offset, unsigned flags)
{
    ring_op_init(op, nothing_done);
    ring_file_write(ring, op, fd, data, size, offset, flags);
    ring_await(ring, op);
    return op->error;
}

static inline enum kvs_err await_read(struct ring *ring, struct ring_op *op, int fd, void *data, size_t size,
                                      uint64_t offset)
{
    ring_op_init(op, nothing_done);
    ring_file_read(ring, op, fd, data, size, offset);
    ring_await(ring, op);
    return op->error;
}

static inline enum kvs_err await_sync(struct ring *ring, int fd)
{
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    ring_file_sync(ring, &op, fd);
    ring_await(ring, &op);
    return op.error;
}

static inline enum kvs_err await_rename(struct ring *ring, int dir, const char *from, const char *to)
{
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    ring_file_rename(ring, &op, dir, from, to);
    ring_await(ring, &op);
    return op.error;
}

static inline enum kvs_err await_unlink(struct ring *ring, int dir, const char *name)
{
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    ring_file_unlink(ring, &op, dir, name);
    ring_await(ring, &op);
    return op.error;
}

/* A file in /data, open for reading and writing; its name is durable. */
static inline int make_file(struct ring *ring, const char *name, unsigned flags)
{
    int dir;
    struct ring_op op;
    assert_int_equal(ring_dir_open(ring, "/data", &dir), KVS_ERR_OK);
    assert_int_equal(await_open(ring, &op, dir, name, RW | RING_OPEN_CREATE | flags), KVS_ERR_OK);
    assert_int_equal(await_sync(ring, dir), KVS_ERR_OK);
    ring_close_fd(ring, dir);
    return op.fd;
}

static inline void fill(uint8_t *data, size_t size, unsigned salt)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 8) + salt);
}

/* /data/f, which durably holds so much of old_data; new_data is another. */
static inline int make_old_file(struct ring *ring, size_t size, unsigned flags)
{
    struct ring_op op;
    assert_true(size <= DATA_BYTES_MAX);
    fill(old_data, size, 1);
    fill(new_data, size, 100);
    int fd = make_file(ring, "f", flags);
    assert_int_equal(await_write(ring, &op, fd, old_data, size, 0, RING_WRITE_DURABLE), KVS_ERR_OK);
    return fd;
}

/* The same on a machine of its own. */
static inline int boot_with_file(struct ring **ring, uint64_t seed, size_t size)
{
    sim_create(seed);
    *ring = open_ring(0);
    return make_old_file(*ring, size, 0);
}

/* The whole of a file of this size. */
static inline const uint8_t *read_back(const char *path, size_t size)
{
    assert_true(size <= DATA_BYTES_MAX);
    assert_int_equal(sim_file_size(path), size);
    sim_file_read(path, 0, found, size);
    return found;
}

static inline uint8_t *aligned(size_t size)
{
    uint8_t *data = aligned_alloc(4096, size);
    assert_non_null(data);
    return data;
}

#endif
