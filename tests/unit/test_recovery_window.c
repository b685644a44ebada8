/*
 * test_recovery_window.c - whatever is looked at, and however the disk answers, the window shows the file or nothing.
 */
#include "test_ring_fixture.h"

#include "engine/log_format.h"
#include "engine/recovery_window.h"

#include <errno.h>
#include <stdio.h>

#define NAME "file"
#define PATH "/data/" NAME

enum { FILE_BYTES = 24 * 1024 * 1024 };

static uint8_t *put_file(void)
{
    uint8_t *bytes = malloc(FILE_BYTES);
    for (uint32_t i = 0; i < FILE_BYTES / sizeof i; i++) {
        const uint32_t word = i * 2654435761u;
        memcpy(bytes + i * sizeof word, &word, sizeof word);
    }
    sim_file_put(PATH, bytes, FILE_BYTES);
    return bytes;
}

struct machine {
    struct ring *ring;
    int fd;
    struct recovery_window *window;
};

static void open_machine(struct machine *machine)
{
    machine->ring = open_ring(0);
    machine->fd = make_file(machine->ring, NAME, RING_OPEN_DIRECT);
    assert_int_equal(recovery_window_open(&machine->window, machine->ring, FILE_BYTES), KVS_ERR_OK);
}

static void close_machine(struct machine *machine)
{
    recovery_window_close(machine->window);
    ring_close_fd(machine->ring, machine->fd);
    ring_close(machine->ring);
    sim_destroy();
}

/* Steps and sizes of all kinds: a batch after the other, headers alone, things larger than the window. */
static void test_recovery_window__shows_the_file(void **state)
{
    (void)state;
    static const struct {
        uint64_t step, size;
    } walks[] = {{4096, 64},         {4096, 4096},         {65536, 65536},       {40960, 100000}, {1 << 20, 1 << 20},
                 {3 << 20, 7 << 20}, {4096 * 37, 5 << 20}, {11 << 20, 13 << 20}, {4096, 6 << 20}};
    for (unsigned i = 0; i < ARRAY_COUNT(walks); i++) {
        sim_create(10 + i);
        uint8_t *bytes = put_file();
        struct machine machine;
        open_machine(&machine);
        for (unsigned from = 0; from < 2; from++) {
            uint64_t at = from * 5 * KVS_BLOCK_BYTES;
            recovery_window_move(machine.window, machine.fd, at);
            for (; at + walks[i].size <= FILE_BYTES; at += walks[i].step) {
                const uint8_t *seen = recovery_window_look(machine.window, at, walks[i].size);
                assert_non_null(seen);
                if (memcmp(seen, bytes + at, walks[i].size) != 0)
                    fail_msg("walk %u: wrong bytes at %llu", i, (unsigned long long)at);
                seen = recovery_window_look(machine.window, at, 64); /* again, and less */
                assert_memory_equal(seen, bytes + at, 64);
            }
            assert_int_equal(recovery_window_error(machine.window), KVS_ERR_OK);
        }
        assert_true(recovery_window_bytes(machine.window) <= 2 * (uint64_t)FILE_BYTES);
        free(bytes);
        close_machine(&machine);
    }
}

static void test_recovery_window__any_walk(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 20; seed++) {
        sim_create(100 + seed);
        sim_odds(SIM_FAULT_SHORT, 100000);
        sim_odds(SIM_FAULT_INTERRUPTED, 100000);
        uint8_t *bytes = put_file();
        struct machine machine;
        open_machine(&machine);
        srand(seed);
        uint64_t at = 0;
        recovery_window_move(machine.window, machine.fd, at);
        while (at < FILE_BYTES) {
            uint64_t size = 64u + (uint64_t)rand() % (1u << rand() % 23);
            size = size < FILE_BYTES - at ? size : FILE_BYTES - at;
            const uint8_t *seen = recovery_window_look(machine.window, at, size);
            assert_non_null(seen);
            assert_memory_equal(seen, bytes + at, size);
            at += align_up(size, KVS_BLOCK_BYTES) * (rand() % 4 != 0);
        }
        free(bytes);
        close_machine(&machine);
    }
}

static void test_recovery_window__a_file_that_is_too_short(void **state)
{
    (void)state;
    sim_create(1);
    uint8_t *bytes = put_file();
    sim_file_truncate(PATH, 10 << 20);
    struct machine machine;
    open_machine(&machine);
    recovery_window_move(machine.window, machine.fd, 0);
    uint64_t shown = 0;
    while (recovery_window_look(machine.window, shown, KVS_BLOCK_BYTES) != NULL)
        shown += KVS_BLOCK_BYTES;
    assert_true(shown <= 10 << 20);
    assert_int_equal(recovery_window_error(machine.window), KVS_ERR_CORRUPT);
    assert_int_equal(recovery_window_file_end(machine.window), 10 << 20);
    assert_null(recovery_window_look(machine.window, shown, 64)); /* and so it stays, */
    recovery_window_move(machine.window, machine.fd, 0);          /* until it moves */
    assert_memory_equal(recovery_window_look(machine.window, 0, 4096), bytes, 4096);
    free(bytes);
    close_machine(&machine);
}

static void test_recovery_window__a_read_that_fails(void **state)
{
    (void)state;
    sim_create(2);
    uint8_t *bytes = put_file();
    struct machine machine;
    open_machine(&machine);
    sim_odds(SIM_FAULT_READ_ERROR, 200000);
    unsigned failed = 0;
    for (unsigned round = 0; round < 20; round++) {
        recovery_window_move(machine.window, machine.fd, 0);
        for (uint64_t at = 0; at < FILE_BYTES; at += 1 << 20) {
            const uint8_t *seen = recovery_window_look(machine.window, at, 1 << 20);
            if (seen == NULL) {
                failed++;
                assert_int_equal(recovery_window_error(machine.window), KVS_ERR_IO);
                assert_string_not_equal(recovery_window_error_text(machine.window), "");
                break;
            }
            assert_memory_equal(seen, bytes + at, 1 << 20);
        }
    }
    assert_true(failed > 0);
    sim_odds_none();
    free(bytes);
    close_machine(&machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recovery_window__shows_the_file),
        cmocka_unit_test(test_recovery_window__any_walk),
        cmocka_unit_test(test_recovery_window__a_file_that_is_too_short),
        cmocka_unit_test(test_recovery_window__a_read_that_fails),
    };
    return cmocka_run_group_tests_name("recovery_window", tests, NULL, NULL);
}
