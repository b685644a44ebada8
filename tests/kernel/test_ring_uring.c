/*
 * test_ring_uring.c - ring.h on the real kernel: files, timers, wake-ups, cancelling, closing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ring/ring.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS ((int64_t)1000000)

/* How long to wait for what must happen: far longer than on a machine that is slow, busy or halted for seconds. */
#define PATIENCE (100000 * MS)
#define SIZE     (1u << 20)
#define RW       (RING_OPEN_READ | RING_OPEN_WRITE)

struct fixture {
    struct ring *ring;
    int dir;
    char path[64];
    uint8_t *data, *back;
};

static void nothing_done(struct ring_op *op)
{
    (void)op;
}

static struct ring *open_ring(void)
{
    struct ring *ring = NULL;
    char message[RING_MESSAGE_BYTES];
    struct ring_options options = {.entries = 64};
    if (ring_open(&ring, &options, message) != KVS_ERR_OK)
        fail_msg("%s", message);
    return ring;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    snprintf(f->path, sizeof(f->path), "/tmp/test_ring_uring.XXXXXX");
    assert_non_null(mkdtemp(f->path));
    f->ring = open_ring();
    assert_int_equal(ring_dir_open(f->ring, f->path, &f->dir), KVS_ERR_OK);
    f->data = aligned_alloc(4096, SIZE);
    f->back = aligned_alloc(4096, SIZE);
    assert_true(f->data != NULL && f->back != NULL);
    for (size_t i = 0; i < SIZE; i++)
        f->data[i] = (uint8_t)(i * 7 + (i >> 8));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char command[128];
    ring_close_fd(f->ring, f->dir);
    ring_close(f->ring);
    snprintf(command, sizeof(command), "rm -rf %s", f->path);
    assert_int_equal(system(command), 0);
    free(f->data);
    free(f->back);
    free(f);
    return 0;
}

static enum kvs_err await_open(struct fixture *f, struct ring_op *op, const char *name, unsigned flags)
{
    ring_op_init(op, nothing_done);
    ring_file_open(f->ring, op, f->dir, name, flags);
    ring_await(f->ring, op);
    return op->error;
}

static enum kvs_err await_write(struct fixture *f, struct ring_op *op, int fd, size_t size, uint64_t offset,
                                unsigned flags)
{
    ring_op_init(op, nothing_done);
    ring_file_write(f->ring, op, fd, f->data, size, offset, flags);
    ring_await(f->ring, op);
    return op->error;
}

static enum kvs_err await_read(struct fixture *f, struct ring_op *op, int fd, size_t size, uint64_t offset)
{
    ring_op_init(op, nothing_done);
    ring_file_read(f->ring, op, fd, f->back, size, offset);
    ring_await(f->ring, op);
    return op->error;
}

static enum kvs_err await_sync(struct fixture *f, int fd)
{
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    ring_file_sync(f->ring, &op, fd);
    ring_await(f->ring, &op);
    return op.error;
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static void test_ring_uring__files_keep_what_is_written(void **state)
{
    struct fixture *f = *state;
    static const struct {
        unsigned open_flags, write_flags;
    } ways[] = {{0, 0}, {0, RING_WRITE_DURABLE}, {RING_OPEN_DIRECT, 0}, {RING_OPEN_DIRECT, RING_WRITE_DURABLE}};
    for (size_t i = 0; i < ARRAY_COUNT(ways); i++) {
        struct ring_op op;
        struct ring_file_info info;
        char name[16];
        snprintf(name, sizeof(name), "f%zu", i);
        enum kvs_err err = await_open(f, &op, name, RW | RING_OPEN_CREATE | ways[i].open_flags);
        if (err == KVS_ERR_UNSUPPORTED)
            continue; /* a file system without O_DIRECT */
        assert_int_equal(err, KVS_ERR_OK);
        int fd = op.fd;
        assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        assert_int_equal(await_write(f, &op, fd, SIZE, 8192, ways[i].write_flags), KVS_ERR_OK);
        assert_int_equal(op.bytes, SIZE);
        assert_int_equal(await_sync(f, fd), KVS_ERR_OK);
        assert_int_equal(await_sync(f, f->dir), KVS_ERR_OK);
        memset(f->back, 0, SIZE);
        assert_int_equal(await_read(f, &op, fd, SIZE, 8192), KVS_ERR_OK);
        assert_int_equal(op.bytes, SIZE);
        assert_memory_equal(f->data, f->back, SIZE);
        assert_int_equal(ring_file_info(f->ring, fd, &info), KVS_ERR_OK);
        assert_int_equal(info.size, SIZE + 8192);
        ring_close_fd(f->ring, fd);
    }
}

static void test_ring_uring__read_ends_short_at_the_end_of_the_file(void **state)
{
    struct fixture *f = *state;
    struct ring_op op;
    assert_int_equal(await_open(f, &op, "f", RW | RING_OPEN_CREATE), KVS_ERR_OK);
    int fd = op.fd;
    assert_int_equal(await_write(f, &op, fd, 10001, 0, 0), KVS_ERR_OK);
    assert_int_equal(await_read(f, &op, fd, SIZE, 0), KVS_ERR_OK);
    assert_int_equal(op.bytes, 10001);
    assert_int_equal(await_read(f, &op, fd, SIZE, 10001), KVS_ERR_OK);
    assert_int_equal(op.bytes, 0);
    ring_close_fd(f->ring, fd);
    if (await_open(f, &op, "f", RW | RING_OPEN_DIRECT) == KVS_ERR_UNSUPPORTED)
        return;
    fd = op.fd;
    assert_int_equal(await_read(f, &op, fd, SIZE, 4096), KVS_ERR_OK);
    assert_int_equal(op.bytes, 10001 - 4096);
    assert_memory_equal(f->back, f->data + 4096, 10001 - 4096);
    ring_close_fd(f->ring, fd);
}

/* What is written to a mapping stays there, and it needs neither the descriptor nor the name of the file. */
static void test_ring_uring__mapping_is_a_copy(void **state)
{
    struct fixture *f = *state;
    enum { OFFSET = 3 * 4096, BYTES = 64 * 4096 };
    struct ring_op op;
    assert_int_equal(await_open(f, &op, "f", RW | RING_OPEN_CREATE), KVS_ERR_OK);
    int fd = op.fd;
    assert_int_equal(await_write(f, &op, fd, SIZE, 0, 0), KVS_ERR_OK);
    uint8_t *memory = mmap(NULL, BYTES + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    memory[BYTES] = 99;
    assert_int_equal(ring_file_map(f->ring, fd, memory, BYTES, OFFSET), KVS_ERR_OK);
    assert_memory_equal(memory, f->data + OFFSET, BYTES);
    assert_int_equal(memory[BYTES], 99);
    for (size_t at = 0; at < BYTES; at += 2 * 4096)
        memset(memory + at, 0xaa, 4096);
    assert_int_equal(await_sync(f, fd), KVS_ERR_OK);
    assert_int_equal(await_read(f, &op, fd, SIZE, 0), KVS_ERR_OK);
    assert_memory_equal(f->back, f->data, SIZE);
    ring_close_fd(f->ring, fd);
    ring_op_init(&op, nothing_done);
    ring_file_unlink(f->ring, &op, f->dir, "f");
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    for (size_t at = 0; at < BYTES; at++)
        assert_int_equal(memory[at], at % (2 * 4096) < 4096 ? 0xaa : f->data[OFFSET + at]);
    assert_int_equal(munmap(memory, BYTES + 4096), 0);
}

static void test_ring_uring__what_cannot_be_mapped_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct ring_op op;
    assert_int_equal(await_open(f, &op, "f", RW | RING_OPEN_CREATE), KVS_ERR_OK);
    int fd = op.fd;
    assert_int_equal(await_write(f, &op, fd, 2 * 4096, 0, 0), KVS_ERR_OK);
    uint8_t *memory = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    assert_int_equal(ring_file_map(f->ring, fd, memory, 2 * 4096, 0), KVS_ERR_OK);
    assert_int_not_equal(ring_file_map(f->ring, fd, memory, 3 * 4096, 0), KVS_ERR_OK); /* beyond its end */
    assert_int_not_equal(ring_file_map(f->ring, fd, memory, 4096, 8 * 4096), KVS_ERR_OK);
    ring_close_fd(f->ring, fd);
    assert_int_not_equal(ring_file_map(f->ring, 99999, memory, 4096, 0), KVS_ERR_OK);
    assert_int_not_equal(ring_file_map(f->ring, f->dir, memory, 4096, 0), KVS_ERR_OK);
    assert_int_equal(munmap(memory, 4 * 4096), 0);
}

static void test_ring_uring__names_are_made_moved_and_removed(void **state)
{
    struct fixture *f = *state;
    struct ring_op op;
    assert_int_equal(await_open(f, &op, "a", RW | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE), KVS_ERR_OK);
    struct stat status;
    assert_int_equal(fstat(op.fd, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
    ring_file_allocate(f->ring, &op, op.fd, 100000);
    int fd = op.file;
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    struct ring_file_info info;
    assert_int_equal(ring_file_info(f->ring, fd, &info), KVS_ERR_OK);
    assert_int_equal(info.size, 100000);
    ring_close_fd(f->ring, fd);
    ring_file_rename(f->ring, &op, f->dir, "a", "b");
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    assert_int_equal(await_open(f, &op, "a", RING_OPEN_READ), KVS_ERR_NOT_FOUND);
    ring_file_unlink(f->ring, &op, f->dir, "b");
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    assert_int_equal(await_open(f, &op, "b", RING_OPEN_READ), KVS_ERR_NOT_FOUND);
}

static void test_ring_uring__files_get_second_names_and_directories_are_made(void **state)
{
    struct fixture *f = *state;
    struct ring_op op;
    struct ring_file_info info;
    ring_op_init(&op, nothing_done);
    ring_dir_make(f->ring, &op, f->dir, "sub");
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    ring_dir_make(f->ring, &op, f->dir, "sub");
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_EXISTS);
    assert_int_equal(await_open(f, &op, "sub", RING_OPEN_READ | RING_OPEN_DIRECTORY), KVS_ERR_OK);
    int sub = op.fd;
    assert_int_equal(await_sync(f, sub), KVS_ERR_OK);
    assert_int_equal(await_open(f, &op, "f", RW | RING_OPEN_CREATE), KVS_ERR_OK);
    int fd = op.fd;
    assert_int_equal(await_open(f, &op, "f", RING_OPEN_READ | RING_OPEN_DIRECTORY), KVS_ERR_NOT_A_DIRECTORY);
    assert_int_equal(ring_file_info(f->ring, fd, &info), KVS_ERR_OK);
    assert_int_equal(info.links, 1);
    ring_op_init(&op, nothing_done);
    ring_file_link(f->ring, &op, f->dir, "f", sub, "g");
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    assert_int_equal(ring_file_info(f->ring, fd, &info), KVS_ERR_OK);
    assert_int_equal(info.links, 2);
    ring_file_link(f->ring, &op, f->dir, "f", sub, "g");
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_EXISTS);
    ring_file_link(f->ring, &op, f->dir, "sub", f->dir, "other"); /* directories have one name */
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_UNSUPPORTED);
    ring_close_fd(f->ring, sub);
    ring_file_rename(f->ring, &op, f->dir, "sub", "new");
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    assert_int_equal(await_open(f, &op, "new/g", RING_OPEN_READ), KVS_ERR_OK);
    ring_close_fd(f->ring, op.fd);
    ring_close_fd(f->ring, fd);
}

static void test_ring_uring__open_errors_are_told_apart(void **state)
{
    struct fixture *f = *state;
    struct ring_op op;
    assert_int_equal(await_open(f, &op, "f", RING_OPEN_READ), KVS_ERR_NOT_FOUND);
    assert_int_equal(op.fd, -1);
    assert_string_equal(ring_op_text(&op), "not found (No such file or directory)");
    assert_int_equal(await_open(f, &op, "f", RW | RING_OPEN_CREATE), KVS_ERR_OK);
    ring_close_fd(f->ring, op.fd);
    assert_int_equal(await_open(f, &op, "f", RW | RING_OPEN_CREATE | RING_OPEN_EXCLUSIVE), KVS_ERR_EXISTS);
    assert_int_equal(await_open(f, &op, "f/g", RING_OPEN_READ), KVS_ERR_NOT_A_DIRECTORY);
    ring_file_open(f->ring, &op, AT_FDCWD, "/proc/self/status", RING_OPEN_READ | RING_OPEN_DIRECT);
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_UNSUPPORTED);
    ring_file_open(f->ring, &op, AT_FDCWD, "/dev/full", RING_OPEN_WRITE);
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_OK);
    int full = op.fd;
    assert_int_equal(await_write(f, &op, full, 1, 0, 0), KVS_ERR_NO_SPACE);
    ring_close_fd(f->ring, full);
}

static void count_name(void *context, const char *name)
{
    assert_string_not_equal(name, "..");
    ++*(unsigned *)context;
}

static void test_ring_uring__directories_are_made_and_listed(void **state)
{
    struct fixture *f = *state;
    char path[128];
    int dir, again;
    struct ring_op op;
    snprintf(path, sizeof(path), "%s/one//two/three/", f->path);
    assert_int_equal(ring_dir_open(f->ring, path, &dir), KVS_ERR_OK);
    assert_int_equal(ring_dir_open(f->ring, path, &again), KVS_ERR_OK);
    struct stat status;
    assert_int_equal(fstat(dir, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0750);
    ring_op_init(&op, nothing_done);
    for (unsigned i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%u", i);
        ring_file_open(f->ring, &op, dir, name, RW | RING_OPEN_CREATE);
        ring_await(f->ring, &op);
        ring_close_fd(f->ring, op.fd);
    }
    for (unsigned round = 0; round < 2; round++) {
        unsigned names = 0;
        assert_int_equal(ring_dir_list(f->ring, dir, count_name, &names), KVS_ERR_OK);
        assert_int_equal(names, 100);
    }
    uint64_t space;
    assert_int_equal(ring_file_space(f->ring, dir, &space), KVS_ERR_OK);
    assert_true(space > 0);
    snprintf(path, sizeof(path), "%s/one/two/three/f1/x", f->path);
    int none;
    assert_int_equal(ring_dir_open(f->ring, path, &none), KVS_ERR_NOT_A_DIRECTORY);
    assert_int_equal(ring_dir_open(f->ring, "", &none), KVS_ERR_INVALID);
    ring_close_fd(f->ring, dir);
    ring_close_fd(f->ring, again);
}

/* Holds the lock until `in` is closed; tells by a byte that it has it. */
static void hold_lock(const char *path, int in, int out)
{
    struct ring *ring = open_ring();
    int dir, lock;
    char byte = 0;
    bool ok = ring_dir_open(ring, path, &dir) == KVS_ERR_OK && ring_dir_lock(ring, dir, "lock", &lock) == KVS_ERR_OK;
    if (ok && write(out, &byte, 1) == 1)
        (void)!read(in, &byte, 1);
    _exit(ok ? 0 : 1); /* without closing anything, like a process that dies */
}

/* A process that has ended while something of it goes on to hold the lock for longer than the second that a living one
 * is waited for. In the kernel that is a ring; here it is a child with the descriptor. */
static void test_ring_uring__lock_of_a_dead_process_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct ring *ring = open_ring();
        int dir, lock;
        bool ok =
            ring_dir_open(ring, f->path, &dir) == KVS_ERR_OK && ring_dir_lock(ring, dir, "dead", &lock) == KVS_ERR_OK;
        if (ok && fork() == 0)
            (void)usleep(1800000);
        _exit(ok ? 0 : 1);
    }
    siginfo_t ended;
    assert_int_equal(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT), 0); /* nobody has waited for it yet */
    assert_int_equal(ended.si_status, 0);
    int lock;
    assert_int_equal(ring_dir_lock(f->ring, f->dir, "dead", &lock), KVS_ERR_OK);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    assert_true(seconds > 1.8);
    ring_close_fd(f->ring, lock);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void test_ring_uring__lock_of_another_process_is_respected(void **state)
{
    struct fixture *f = *state;
    int to_child[2], from_child[2], lock;
    char byte;
    assert_int_equal(pipe2(to_child, O_CLOEXEC), 0);
    assert_int_equal(pipe2(from_child, O_CLOEXEC), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(to_child[1]);
        hold_lock(f->path, to_child[0], from_child[1]);
    }
    assert_int_equal(read(from_child[0], &byte, 1), 1);
    assert_int_equal(ring_dir_lock(f->ring, f->dir, "lock", &lock), KVS_ERR_LOCKED);
    close(to_child[1]);
    assert_int_equal(ring_dir_lock(f->ring, f->dir, "lock", &lock), KVS_ERR_OK);
    int second;
    assert_int_equal(ring_dir_lock(f->ring, f->dir, "lock", &second), KVS_ERR_LOCKED);
    ring_close_fd(f->ring, lock);
    assert_int_equal(ring_dir_lock(f->ring, f->dir, "lock", &lock), KVS_ERR_OK);
    ring_close_fd(f->ring, lock);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(to_child[0]);
    close(from_child[0]);
    close(from_child[1]);
}

/* ---- timers, cancelling, waking ---------------------------------------------------------------------------------- */

struct numbered {
    struct ring_op op;
    unsigned number;
};

static unsigned order[8], order_count;

static void note_order(struct ring_op *op)
{
    if (op->error == KVS_ERR_OK)
        order[order_count++] = container_of(op, struct numbered, op)->number;
}

static bool four_timers_expire_in_order(struct fixture *f)
{
    struct numbered timers[4];
    static const unsigned delays[4] = {30, 10, 40, 20};
    order_count = 0;
    uint64_t begin = ring_now_ns(f->ring);
    for (unsigned i = 0; i < 4; i++) {
        timers[i].number = delays[i];
        ring_op_init(&timers[i].op, note_order);
        ring_timer(f->ring, &timers[i].op, delays[i] * MS);
    }
    while (order_count < 4)
        assert_true(ring_turn(f->ring, -1) > 0);
    assert_true(ring_now_ns(f->ring) - begin >= 40 * MS);
    for (unsigned i = 0; i < 4; i++) {
        if (order[i] != (i + 1) * 10)
            return false;
    }
    return true;
}

static void test_ring_uring__timers_expire_in_order(void **state)
{
    /* Not if the kernel was halted between starting one and the next. */
    unsigned attempts = 0;
    while (!four_timers_expire_in_order(*state))
        assert_true(++attempts < 10);
}

static void test_ring_uring__turn_waits_no_longer_than_it_may(void **state)
{
    struct fixture *f = *state;
    uint64_t begin, attempts = 0;
    do { /* this thread may get no turn itself, though not all of the time */
        assert_true(++attempts < 100);
        begin = ring_now_ns(f->ring);
        assert_int_equal(ring_turn(f->ring, 0), 0);
    } while (ring_now_ns(f->ring) - begin >= 20 * MS);
    begin = ring_now_ns(f->ring);
    assert_int_equal(ring_turn(f->ring, 30 * MS), 0);
    assert_true(ring_now_ns(f->ring) - begin >= 30 * MS);
}

static void test_ring_uring__cancelled_timer_completes_at_once(void **state)
{
    struct fixture *f = *state;
    struct ring_op op;
    ring_op_init(&op, nothing_done);
    uint64_t begin = ring_now_ns(f->ring);
    ring_timer(f->ring, &op, 10 * PATIENCE);
    assert_int_equal(ring_turn(f->ring, 0), 0);
    assert_true(ring_op_active(&op));
    ring_cancel(f->ring, &op);
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_CANCELLED);
    assert_true(ring_now_ns(f->ring) - begin < PATIENCE);
}

/* More operations than the submission queue has entries. */
static void test_ring_uring__full_queue_loses_nothing(void **state)
{
    struct fixture *f = *state;
    static struct numbered timers[1000];
    static unsigned seen;
    seen = 0;
    for (unsigned i = 0; i < 1000; i++) {
        ring_op_init(&timers[i].op, nothing_done);
        ring_timer(f->ring, &timers[i].op, i % 7 * MS);
    }
    uint64_t begin = ring_now_ns(f->ring);
    while (seen < 1000 && ring_now_ns(f->ring) - begin < PATIENCE)
        seen += ring_turn(f->ring, 100 * MS);
    assert_int_equal(seen, 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_false(ring_op_active(&timers[i].op));
}

/* More completions than the completion queue has entries, because nobody turns the ring: reads of cached bytes complete
 * while they are submitted. */
static void test_ring_uring__overflown_completions_arrive(void **state)
{
    struct fixture *f = *state;
    static struct ring_op ops[2000];
    struct ring_op op;
    assert_int_equal(await_open(f, &op, "f", RW | RING_OPEN_CREATE), KVS_ERR_OK);
    int fd = op.fd;
    assert_int_equal(await_write(f, &op, fd, 4096, 0, 0), KVS_ERR_OK);
    for (size_t i = 0; i < ARRAY_COUNT(ops); i++) {
        ring_op_init(&ops[i], nothing_done);
        ring_file_read(f->ring, &ops[i], fd, f->back + i, 1, i);
    }
    unsigned seen = 0;
    uint64_t begin = ring_now_ns(f->ring);
    while (seen < ARRAY_COUNT(ops) && ring_now_ns(f->ring) - begin < PATIENCE)
        seen += ring_turn(f->ring, 100 * MS);
    assert_int_equal(seen, ARRAY_COUNT(ops));
    for (size_t i = 0; i < ARRAY_COUNT(ops); i++)
        assert_true(ops[i].bytes == 1 && !ring_op_active(&ops[i]));
    assert_memory_equal(f->back, f->data, ARRAY_COUNT(ops));
    ring_close_fd(f->ring, fd);
}

#define WAKES 200

struct sleeper {
    pthread_t thread;
    struct ring *ring; /* of the thread, once `ready` */
    int ready;
    int turns;
    int may_close;
};

static void *sleeper_main(void *context)
{
    struct sleeper *sleeper = context;
    sleeper->ring = open_ring();
    __atomic_store_n(&sleeper->ready, 1, __ATOMIC_RELEASE);
    for (int turn = 1; turn <= WAKES; turn++) {
        if (ring_turn(sleeper->ring, 2 * PATIENCE) != 0)
            abort();
        __atomic_store_n(&sleeper->turns, turn, __ATOMIC_RELEASE);
    }
    /* The other ring may have a wake-up on its way to this one until it has turned. */
    while (!__atomic_load_n(&sleeper->may_close, __ATOMIC_ACQUIRE))
        usleep(1000);
    ring_close(sleeper->ring);
    return NULL;
}

static void test_ring_uring__wake_reaches_another_thread(void **state)
{
    struct fixture *f = *state;
    struct sleeper sleeper = {0};
    assert_int_equal(pthread_create(&sleeper.thread, NULL, sleeper_main, &sleeper), 0);
    while (!__atomic_load_n(&sleeper.ready, __ATOMIC_ACQUIRE))
        usleep(100);
    uint64_t begin = ring_now_ns(f->ring);
    for (int round = 1; round <= WAKES; round++) {
        ring_wake(f->ring, sleeper.ring);
        ring_wake(f->ring, sleeper.ring);
        assert_int_equal(ring_turn(f->ring, 0), 0);
        while (__atomic_load_n(&sleeper.turns, __ATOMIC_ACQUIRE) < round)
            assert_true(ring_now_ns(f->ring) - begin < PATIENCE);
    }
    __atomic_store_n(&sleeper.may_close, 1, __ATOMIC_RELEASE);
    assert_int_equal(pthread_join(sleeper.thread, NULL), 0);
}

static void test_ring_uring__own_wake_is_kept_through_await(void **state)
{
    struct fixture *f = *state;
    struct ring_op op;
    uint64_t begin = ring_now_ns(f->ring);
    ring_wake(f->ring, f->ring);
    ring_op_init(&op, nothing_done);
    ring_timer(f->ring, &op, 10 * MS);
    ring_await(f->ring, &op);
    assert_int_equal(ring_turn(f->ring, 2 * PATIENCE), 0);
    assert_true(ring_now_ns(f->ring) - begin < PATIENCE);
}

/* ---- signals, chance, closing ------------------------------------------------------------------------------------ */

static void test_ring_uring__signals_become_completions(void **state)
{
    struct fixture *f = *state;
    struct ring_op op;
    int fd;
    assert_int_equal(ring_signals_open(f->ring, &fd), KVS_ERR_OK);
    ring_op_init(&op, nothing_done);
    ring_signal_next(f->ring, &op, fd);
    assert_int_equal(ring_turn(f->ring, 10 * MS), 0);
    assert_int_equal(kill(getpid(), SIGHUP), 0);
    ring_await(f->ring, &op);
    assert_int_equal(op.bytes, SIGHUP);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    ring_signal_next(f->ring, &op, fd);
    ring_await(f->ring, &op);
    assert_int_equal(op.bytes, SIGTERM);
    ring_signal_next(f->ring, &op, fd);
    ring_cancel(f->ring, &op);
    ring_await(f->ring, &op);
    assert_int_equal(op.error, KVS_ERR_CANCELLED);
    ring_close_fd(f->ring, fd);
}

static void test_ring_uring__random_is_not_constant(void **state)
{
    struct fixture *f = *state;
    uint8_t a[32] = {0}, b[32] = {0};
    ring_random(f->ring, a, sizeof(a));
    ring_random(f->ring, b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
    assert_true(ring_wall_ms(f->ring) > 1700000000000u);
}

static void must_not_be_called(struct ring_op *op)
{
    (void)op;
    abort();
}

static void test_ring_uring__close_ends_what_is_in_flight(void **state)
{
    struct fixture *f = *state;
    struct ring_op op;
    assert_int_equal(await_open(f, &op, "f", RW | RING_OPEN_CREATE), KVS_ERR_OK);
    int fd = op.fd;
    assert_int_equal(ring_turn(f->ring, 0), 0);
    for (unsigned round = 0; round < 20; round++) {
        unsigned before = open_descriptors();
        struct ring *ring = open_ring();
        struct ring_op ops[8];
        for (size_t i = 0; i < ARRAY_COUNT(ops); i++)
            ring_op_init(&ops[i], must_not_be_called);
        ring_timer(ring, &ops[0], 3600000 * MS);
        ring_file_write(ring, &ops[1], fd, f->data, SIZE, 0, RING_WRITE_DURABLE);
        ring_file_sync(ring, &ops[2], fd);
        ring_file_open(ring, &ops[3], f->dir, "f", RW);
        ring_file_open(ring, &ops[4], f->dir, "g", RW | RING_OPEN_CREATE);
        ring_file_read(ring, &ops[5], fd, f->back, SIZE, 0);
        ring_wake(ring, f->ring);
        ring_wake(ring, ring);
        ring_close_fd(ring, dup(fd));
        ring_close(ring);
        for (size_t i = 0; i < ARRAY_COUNT(ops); i++)
            assert_false(ring_op_active(&ops[i]));
        assert_int_equal(open_descriptors(), before);
        assert_int_equal(ring_turn(f->ring, 0), 0);
    }
    ring_close_fd(f->ring, fd);
}

static void test_ring_uring__refusal_names_the_remedy(void **state)
{
    (void)state;
    struct ring *ring;
    char message[RING_MESSAGE_BYTES];
    struct ring_options options = {0};
    struct rlimit old, none = {0, 0};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    enum kvs_err err = ring_open(&ring, &options, message);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(err, KVS_ERR_NO_DESCRIPTORS);
    assert_non_null(strstr(message, "limit of open files"));
    assert_null(ring);
}

static void test_ring_uring__describes_itself(void **state)
{
    struct fixture *f = *state;
    assert_non_null(strstr(ring_describe(f->ring), "64+1024 entries"));
}

int main(void)
{
#define RING_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        RING_TEST(test_ring_uring__files_keep_what_is_written),
        RING_TEST(test_ring_uring__read_ends_short_at_the_end_of_the_file),
        RING_TEST(test_ring_uring__mapping_is_a_copy),
        RING_TEST(test_ring_uring__what_cannot_be_mapped_is_an_error),
        RING_TEST(test_ring_uring__names_are_made_moved_and_removed),
        RING_TEST(test_ring_uring__files_get_second_names_and_directories_are_made),
        RING_TEST(test_ring_uring__open_errors_are_told_apart),
        RING_TEST(test_ring_uring__directories_are_made_and_listed),
        RING_TEST(test_ring_uring__lock_of_a_dead_process_is_waited_for),
        RING_TEST(test_ring_uring__lock_of_another_process_is_respected),
        RING_TEST(test_ring_uring__timers_expire_in_order),
        RING_TEST(test_ring_uring__turn_waits_no_longer_than_it_may),
        RING_TEST(test_ring_uring__cancelled_timer_completes_at_once),
        RING_TEST(test_ring_uring__full_queue_loses_nothing),
        RING_TEST(test_ring_uring__overflown_completions_arrive),
        RING_TEST(test_ring_uring__wake_reaches_another_thread),
        RING_TEST(test_ring_uring__own_wake_is_kept_through_await),
        RING_TEST(test_ring_uring__signals_become_completions),
        RING_TEST(test_ring_uring__random_is_not_constant),
        RING_TEST(test_ring_uring__close_ends_what_is_in_flight),
        RING_TEST(test_ring_uring__refusal_names_the_remedy),
        RING_TEST(test_ring_uring__describes_itself),
    };
    alarm(600); /* ends by itself, whatever happens */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
