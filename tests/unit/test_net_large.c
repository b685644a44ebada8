/* Large requests: memory of their own, kept by the handler, shared within a bound; who waits for it, and who goes on
 * beyond it; and what is too long to be kept. */
#include "net_fixture_sim.h"

#include "net/net_internal.h"

enum { MIB = 1024 * 1024, SEEDS = 6 };

/* A command with so many bytes; to be freed. */
static char *request_to(const char *command, size_t argument_bytes, size_t *size, char reply[32])
{
    char *request = malloc(argument_bytes + 100);
    size_t head = (size_t)sprintf(request, "*2\r\n$%zu\r\n%s\r\n$%zu\r\n", strlen(command), command, argument_bytes);
    for (size_t i = 0; i < argument_bytes; i++)
        request[head + i] = (char)(i * 7 + (i >> 9));
    memcpy(request + head + argument_bytes, "\r\n", 2);
    *size = head + argument_bytes + 2;
    snprintf(reply, 32, ":%u\r\n", crc32c(0, request + head, argument_bytes));
    return request;
}

static char *request_of(size_t argument_bytes, size_t *size, char reply[32])
{
    return request_to("KEEP", argument_bytes, size, reply);
}

static struct fixture *start_with(struct large_pool *pool)
{
    struct fixture *fixture = fixture_create();
    fixture->options.large = pool;
    fixture->options.large_bytes = 32 * 1024;
    fixture_open(fixture);
    return fixture;
}

static void test_net__large_requests_can_be_kept_and_others_follow_them(void **state)
{
    (void)state;
    struct large_pool pool = {.bytes_max = 4 * MIB};
    struct fixture *fixture = start_with(&pool);
    struct client *client = client_open(fixture);
    char reply[32];
    size_t size;
    char *request = request_of(MIB, &size, reply);
    for (unsigned i = 0; i < 5; i++) {
        wait_until(fixture, !client->sending);
        client_send(client, request, size);
        wait_until(fixture, !client->sending);
        client_say(client, "ECHO between\r\n");
        client_expect(client, reply);
        client_expect(client, "$7\r\nbetween\r\n");
    }
    free(request);
    fixture_idle(fixture);
    assert_int_equal(atomic_load(&pool.used_bytes), 0);
    fixture_stop(fixture);
}

static void test_net__large_requests_wait_for_memory_and_all_get_it(void **state)
{
    (void)state;
    enum { CLIENTS = 8 };
    struct large_pool pool = {.bytes_max = 2 * MIB + MIB / 2};
    struct fixture *fixture = start_with(&pool);
    struct client *clients[CLIENTS];
    char reply[32];
    size_t size;
    char *request = request_of(MIB, &size, reply);
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = client_open(fixture);
    for (unsigned i = 0; i < CLIENTS; i++)
        client_send(clients[i], request, size);
    for (unsigned i = 0; i < CLIENTS; i++) {
        client_expect(clients[i], reply);
        assert_true(atomic_load(&pool.used_bytes) <= pool.bytes_max);
    }
    free(request);
    fixture_idle(fixture);
    assert_int_equal(atomic_load(&pool.used_bytes), 0);
    fixture_stop(fixture);
}

/* "SUM" with arguments that are announced one by one, each of them large; to be freed. */
static char *sum_of_many(unsigned count, size_t argument_bytes, size_t *size, char reply[32])
{
    char *request = malloc(100 + count * (argument_bytes + 32));
    size_t at = (size_t)sprintf(request, "*%u\r\n$3\r\nSUM\r\n", count + 1);
    uint32_t sum = 0;
    for (unsigned i = 0; i < count; i++) {
        at += (size_t)sprintf(request + at, "$%zu\r\n", argument_bytes);
        for (size_t j = 0; j < argument_bytes; j++)
            request[at + j] = (char)(i + j * 7 + (j >> 9));
        sum = crc32c(sum, request + at, argument_bytes);
        memcpy(request + at + argument_bytes, "\r\n", 2);
        at += argument_bytes + 2;
    }
    *size = at;
    snprintf(reply, 32, ":%u\r\n", sum);
    return request;
}

/* While they wait for memory more than what they wait for arrives; and what they have grows with each argument. Nobody
 * is dropped. */
static void test_net__many_large_arguments_of_many_connections(void **state)
{
    (void)state;
    enum { CLIENTS = 12, ARGUMENTS = 10 };
    static const size_t sizes[] = {33 * 1024, 40000, 70000, 200000};
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct large_pool pool = {.bytes_max = sizes[i] * 2};
        struct fixture *fixture = start_with(&pool);
        struct client *clients[CLIENTS];
        char reply[32];
        size_t size;
        char *request = sum_of_many(ARGUMENTS, sizes[i], &size, reply);
        for (unsigned c = 0; c < CLIENTS; c++)
            clients[c] = client_open(fixture);
        for (unsigned round = 0; round < 3; round++) {
            for (unsigned c = 0; c < CLIENTS; c++)
                client_send(clients[c], request, size);
            for (unsigned c = 0; c < CLIENTS; c++) {
                client_expect(clients[c], reply);
                wait_until(fixture, !clients[c]->sending);
            }
        }
        free(request);
        fixture_idle(fixture);
        assert_int_equal(atomic_load(&pool.used_bytes), 0);
        fixture_stop(fixture);
    }
}

static void test_net__argument_over_the_limit_is_skipped_and_the_connection_goes_on(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        struct large_pool pool = {.bytes_max = MIB};
        struct fixture *fixture = fixture_create();
        fixture->options.large = &pool;
        fixture->options.arg_kept_bytes_max = 100000;
        fixture_open(fixture);
        struct client *client = client_open(fixture);
        size_t argument_bytes = 100001 + seed * 700000;
        char *request = malloc(argument_bytes + 200);
        size_t size = (size_t)sprintf(request, "ECHO before\r\n*3\r\n$3\r\nSUM\r\n$%zu\r\n", argument_bytes);
        memset(request + size, 'z', argument_bytes);
        size += argument_bytes;
        size += (size_t)sprintf(request + size, "\r\n$2\r\nEX\r\nECHO after\r\n");
        client_send(client, request, size);
        char expected[200];
        snprintf(expected, sizeof expected,
                 "$6\r\nbefore\r\n-ERR value of %zu bytes is too large; the limit is 100000\r\n$5\r\nafter\r\n",
                 argument_bytes);
        client_expect(client, expected);
        wait_until(fixture, !client->sending);
        free(request);
        assert_int_equal(atomic_load(&pool.used_bytes), 0);
        assert_true(fixture_stats(fixture).memory_bytes < 300000);
        fixture_stop(fixture);
    }
}

/* Others wait for the memory that a peer has announced a need for. */
static void test_net__peer_that_does_not_send_what_it_has_announced_is_dropped(void **state)
{
    (void)state;
    struct large_pool pool = {.bytes_max = MIB};
    struct fixture *fixture = fixture_create();
    fixture->options.large = &pool;
    fixture->options.send_timeout_ms = 1000;
    fixture_open(fixture);
    struct client *client = client_open(fixture);
    client_say(client, "*2\r\n$4\r\nKEEP\r\n$900000\r\nonly this");
    wait_until(fixture, atomic_load(&pool.used_bytes) > 900000);
    client_expect_end(client);
    wait_until(fixture, atomic_load(&pool.used_bytes) == 0);
    assert_int_equal(fixture_stats(fixture).connections_dropped, 1);
    fixture_stop(fixture);
}

/* ---- who waits, and for whom ------------------------------------------------------------------------------------ */

/* A pool, a reserve, and a net with few receive buffers and time-outs. */
struct bench {
    struct fixture *fixture;
    struct large_pool pool, reserve;
    uint64_t pool_peak, reserve_peak;
};

static struct bench *bench_start(uint64_t pool_bytes)
{
    struct bench *bench = calloc(1, sizeof *bench);
    struct fixture *fixture = bench->fixture = fixture_create();
    bench->pool.bytes_max = pool_bytes;
    fixture->options.large = &bench->pool;
    fixture->options.large_reserve = &bench->reserve;
    fixture->options.large_bytes = 32 * 1024;
    fixture->options.send_timeout_ms = 30000;
    fixture->ring_options.buffer_count = 16;
    fixture_open(fixture);
    return bench;
}

static void bench_stop(struct bench *bench)
{
    fixture_idle(bench->fixture);
    assert_true(list_empty(&bench->fixture->net->hungry));
    fixture_stop(bench->fixture);
    assert_int_equal(atomic_load(&bench->pool.used_bytes), 0);
    assert_int_equal(atomic_load(&bench->reserve.used_bytes), 0);
    free(bench);
}

/* Waits for the reply, with an eye on the memory. */
static void bench_expect(struct bench *bench, struct client *client, const char *reply)
{
    while (client->in_size - client->in_at < strlen(reply) && !client->closed) {
        const uint64_t pool = atomic_load(&bench->pool.used_bytes);
        const uint64_t reserve = atomic_load(&bench->reserve.used_bytes);
        bench->pool_peak = pool > bench->pool_peak ? pool : bench->pool_peak;
        bench->reserve_peak = reserve > bench->reserve_peak ? reserve : bench->reserve_peak;
        assert_true(world_step(bench->fixture));
    }
    client_expect(client, reply);
}

static void client_send_soon(struct client *client, const char *data, size_t size)
{
    wait_until(client->fixture, !client->sending);
    client_send(client, data, size);
}

/* Everybody has some memory and needs more. One at a time goes beyond the bound. */
static void test_net__half_of_many_requests_do_not_wait_for_each_other(void **state)
{
    (void)state;
    enum { CLIENTS = 12, ARGUMENTS = 10, ARGUMENT = 70000, POOL = 5 * ARGUMENT };
    for_each_seed(SEEDS)
    {
        struct bench *bench = bench_start(POOL);
        struct client *clients[CLIENTS], *other = client_open(bench->fixture);
        char reply[32];
        size_t size;
        char *request = sum_of_many(ARGUMENTS, ARGUMENT, &size, reply);
        for (unsigned c = 0; c < CLIENTS; c++) {
            clients[c] = client_open(bench->fixture);
            client_send(clients[c], request, size);
        }
        wait_until(bench->fixture, !list_empty(&bench->fixture->net->hungry));
        client_say(other, "ECHO short\r\n");
        bench_expect(bench, other, "$5\r\nshort\r\n");
        for (unsigned c = 0; c < CLIENTS; c++)
            bench_expect(bench, clients[c], reply);
        assert_true(bench->pool_peak > POOL / 2 && bench->pool_peak <= POOL + CLIENTS * NET_BLOCK_BYTES);
        assert_true(bench->reserve_peak > 0 && bench->reserve_peak < size + size / 2);
        assert_int_equal(fixture_stats(bench->fixture).connections_dropped, 0);
        free(request);
        bench_stop(bench);
    }
}

/* As many as like, from small to large, one after the other and all at once. */
static void test_net__requests_that_grow_are_all_answered(void **state)
{
    (void)state;
    enum { CLIENTS = 100, ARGUMENT = 15000, POOL = 300000 };
    struct bench *bench = bench_start(POOL);
    struct client *clients[CLIENTS];
    for (unsigned c = 0; c < CLIENTS; c++)
        clients[c] = client_open(bench->fixture);
    for (unsigned arguments = 1; arguments < 20; arguments += 3) {
        char reply[32];
        size_t size;
        char *request = sum_of_many(arguments, ARGUMENT, &size, reply);
        for (unsigned c = 0; c < CLIENTS; c++)
            client_send_soon(clients[c], request, size);
        for (unsigned c = 0; c < CLIENTS; c++)
            bench_expect(bench, clients[c], reply);
        free(request);
    }
    assert_true(bench->pool_peak <= POOL + CLIENTS * 4096 && bench->reserve_peak < 2 * 20 * ARGUMENT);
    assert_int_equal(fixture_stats(bench->fixture).connections_dropped, 0);
    bench_stop(bench);
}

/* Who waits may leave, or be ended, whether it has some memory, is the one that goes on, or has nothing yet. */
static void test_net__who_goes_gives_its_place_back(void **state)
{
    (void)state;
    enum { CLIENTS = 9, POOL = 200000 };
    char reply[32];
    size_t size;
    char *request = sum_of_many(4, 70000, &size, reply);
    for (unsigned variant = 0; variant < 12; variant++) {
        struct bench *bench = bench_start(POOL);
        struct net *net = bench->fixture->net;
        struct client *clients[CLIENTS], *last = client_open(bench->fixture);
        for (unsigned c = 0; c < CLIENTS; c++) {
            clients[c] = client_open(bench->fixture);
            client_send_soon(clients[c], request, size - 1 - 1000 * variant); /* the rest never comes */
        }
        wait_until(bench->fixture, net->favoured != NULL && !list_empty(&net->hungry));
        client_send(last, request, size);
        for (unsigned c = 0; c < CLIENTS; c++) {
            if (variant % 3 == 0) {
                client_leave(clients[c]);
            } else if (variant % 3 == 1 && !list_empty(&net->hungry)) {
                net_conn_drop(container_of(net->hungry.prev, struct net_conn, wait));
                client_leave(clients[c]);
            } else if (net->favoured != NULL) {
                net_conn_drop(net->favoured);
            }
        }
        if (variant % 3 == 0)
            bench_expect(bench, last, reply);
        else
            fixture_idle(bench->fixture);
        net_abort(net);
        wait_until(bench->fixture, net_drained(net));
        assert_null(net->favoured);
        bench_stop(bench);
    }
    free(request);
}

/* The pool has room for the later one, which is not to have it before the earlier one has its own. */
static void test_net__memory_is_had_in_order(void **state)
{
    (void)state;
    enum { POOL = MIB };
    struct bench *bench = bench_start(POOL);
    struct net *net = bench->fixture->net;
    struct large_memory *taken = large_memory_take(&bench->pool, POOL / 2, 0);
    struct large_memory *reserved = large_memory_take(&bench->reserve, 1, 0);
    char reply[2][32];
    size_t size[2];
    char *request[2] = {request_of(POOL * 3 / 4, &size[0], reply[0]), request_of(POOL / 8, &size[1], reply[1])};
    struct client *clients[2];
    for (unsigned i = 0; i < 2; i++) {
        clients[i] = client_open(bench->fixture);
        client_send(clients[i], request[i], size[i]);
        fixture_idle(bench->fixture);
    }
    assert_true(net->hungry.next != net->hungry.prev);
    large_memory_give(taken);
    for (unsigned i = 0; i < 2; i++) {
        client_expect(clients[i], reply[i]);
        free(request[i]);
    }
    large_memory_give(reserved);
    bench_stop(bench);
}

/* As in a MULTI: what has been handled keeps its memory until something else has come. */
static void test_net__who_keeps_memory_gets_more_of_it(void **state)
{
    (void)state;
    enum { CLIENTS = 6, ARGUMENT = 200000 };
    for_each_seed(SEEDS)
    {
        struct bench *bench = bench_start(ARGUMENT * 3 / 2);
        struct client *clients[CLIENTS];
        char reply[32], all[200];
        size_t size;
        char *request = request_to("HOARD", ARGUMENT, &size, reply);
        snprintf(all, sizeof all, "%s%s%s+OK\r\n", reply, reply, reply);
        for (unsigned c = 0; c < CLIENTS; c++) {
            clients[c] = client_open(bench->fixture);
            for (unsigned i = 0; i < 3; i++)
                client_send_soon(clients[c], request, size);
            client_say(clients[c], "LET\r\n");
        }
        for (unsigned c = 0; c < CLIENTS; c++)
            bench_expect(bench, clients[c], all);
        assert_int_equal(fixture_stats(bench->fixture).connections_dropped, 0);
        free(request);
        bench_stop(bench);
    }
}

/* The reserve has no room for more of it, the pool has, but less than others before it wait for. */
static void test_net__who_keeps_the_reserve_from_others_goes_first(void **state)
{
    (void)state;
    enum { ARGUMENT = 200000 };
    struct bench *bench = bench_start(5 * ARGUMENT);
    struct large_memory *taken[] = {large_memory_take(&bench->pool, 2 * ARGUMENT, 0),
                                    large_memory_take(&bench->pool, 3 * ARGUMENT - 50000, 0)};
    struct client *first = client_open(bench->fixture), *second = client_open(bench->fixture);
    char reply[2][32];
    size_t size[2];
    char *request[2] = {request_to("HOARD", ARGUMENT, &size[0], reply[0]),
                        request_to("HOARD", 4 * ARGUMENT, &size[1], reply[1])};
    bench->reserve.bytes_max = 3 * ARGUMENT / 2;
    client_send(first, request[0], size[0]);
    client_expect(first, reply[0]);
    client_send(second, request[1], size[1]);
    fixture_idle(bench->fixture);
    client_send_soon(first, request[0], size[0]);
    fixture_idle(bench->fixture);
    assert_int_equal(first->in_size + second->in_size, strlen(reply[0]));
    large_memory_give(taken[0]);
    client_expect(first, reply[0]);
    assert_int_equal(second->in_size, 0);
    client_say(first, "LET\r\n");
    client_expect(first, "+OK\r\n");
    client_expect(second, reply[1]);
    large_memory_give(taken[1]);
    free(request[0]);
    free(request[1]);
    bench_stop(bench);
}

static uint64_t now_ms(const struct bench *bench)
{
    return ring_now_ns(bench->fixture->server) / 1000000;
}

static void test_net__who_keeps_memory_and_says_nothing_is_ended_when_others_wait(void **state)
{
    (void)state;
    enum { ARGUMENT = 200000 };
    struct bench *bench = bench_start(ARGUMENT / 2);
    struct large_memory *taken = large_memory_take(&bench->pool, 1, 0);
    struct client *quiet = client_open(bench->fixture), *next = client_open(bench->fixture);
    char reply[32];
    size_t size;
    char *request = request_to("HOARD", ARGUMENT, &size, reply);
    client_send(quiet, request, size);
    client_expect(quiet, reply);
    client_say(quiet, "ECHO a\r\n");
    client_expect(quiet, "$1\r\na\r\n");
    fixture_idle(bench->fixture);
    assert_false(quiet->closed);
    const uint64_t begin_ms = now_ms(bench);
    client_send(next, request, size);
    client_expect(next, reply);
    assert_true(now_ms(bench) - begin_ms < NET_LARGE_WAIT_MS / 2);
    client_expect_end(quiet);
    client_say(next, "LET\r\n");
    client_expect(next, "+OK\r\n");
    large_memory_give(taken);
    free(request);
    bench_stop(bench);
}

/* Nobody gets on: those who have waited too long are told so, one after the other. */
static void test_net__who_waits_too_long_is_told_so(void **state)
{
    (void)state;
    enum { CLIENTS = 3, ARGUMENT = 200000 };
    struct bench *bench = bench_start(ARGUMENT);
    struct large_memory *taken = large_memory_take(&bench->pool, ARGUMENT, 0);
    struct large_memory *reserved = large_memory_take(&bench->reserve, 1, 0);
    struct client *clients[CLIENTS], *late = client_open(bench->fixture);
    char reply[32];
    size_t size;
    char *request = request_of(ARGUMENT, &size, reply);
    const uint64_t begin_ms = now_ms(bench);
    for (unsigned c = 0; c < CLIENTS; c++) {
        clients[c] = client_open(bench->fixture);
        client_say(clients[c], "ECHO before\r\n");
        client_send_soon(clients[c], request, size);
        client_expect(clients[c], "$6\r\nbefore\r\n");
    }
    wait_until(bench->fixture, now_ms(bench) - begin_ms > NET_LARGE_WAIT_MS - 1000);
    client_send(late, request, size);
    for (unsigned c = 0; c < CLIENTS; c++) {
        client_expect(clients[c],
                      "-OOM kvs-node: no memory for so large a request has been free for a while; try again\r\n");
        client_expect_end(clients[c]);
    }
    const uint64_t took_ms = now_ms(bench) - begin_ms;
    assert_true(took_ms >= NET_LARGE_WAIT_MS && took_ms < NET_LARGE_WAIT_MS + 1500);
    assert_int_equal(late->in_size, 0);
    large_memory_give(taken);
    client_expect(late, reply);
    large_memory_give(reserved);
    free(request);
    bench_stop(bench);
}

/* Two have some memory each, and need what the other one has: one ends. */
static void test_net__the_end_of_one_lets_the_next_go_on(void **state)
{
    (void)state;
    enum { ARGUMENT = 70000 };
    struct bench *bench = bench_start(170000);
    struct large_memory *reserved = large_memory_take(&bench->reserve, 1, 0);
    struct client *clients[2];
    char reply[32];
    size_t size;
    char *request = sum_of_many(2, ARGUMENT, &size, reply);
    for (unsigned c = 0; c < 2; c++) {
        clients[c] = client_open(bench->fixture);
        client_send(clients[c], request, ARGUMENT / 2);
    }
    wait_until(bench->fixture, atomic_load(&bench->pool.used_bytes) > 2 * ARGUMENT);
    for (unsigned c = 0; c < 2; c++)
        client_send_soon(clients[c], request + ARGUMENT / 2, size - ARGUMENT / 2);
    wait_until(bench->fixture, clients[0]->in_size > 0 && clients[1]->in_size > 0);
    const unsigned ended = clients[1]->in[0] == '-';
    client_expect(clients[ended], "-OOM ");
    client_expect(clients[1 - ended], reply);
    large_memory_give(reserved);
    free(request);
    bench_stop(bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_net__large_requests_can_be_kept_and_others_follow_them),
        cmocka_unit_test(test_net__large_requests_wait_for_memory_and_all_get_it),
        cmocka_unit_test(test_net__many_large_arguments_of_many_connections),
        cmocka_unit_test(test_net__argument_over_the_limit_is_skipped_and_the_connection_goes_on),
        cmocka_unit_test(test_net__peer_that_does_not_send_what_it_has_announced_is_dropped),
        cmocka_unit_test(test_net__half_of_many_requests_do_not_wait_for_each_other),
        cmocka_unit_test(test_net__requests_that_grow_are_all_answered),
        cmocka_unit_test(test_net__who_goes_gives_its_place_back),
        cmocka_unit_test(test_net__memory_is_had_in_order),
        cmocka_unit_test(test_net__who_keeps_memory_gets_more_of_it),
        cmocka_unit_test(test_net__who_keeps_memory_and_says_nothing_is_ended_when_others_wait),
        cmocka_unit_test(test_net__who_keeps_the_reserve_from_others_goes_first),
        cmocka_unit_test(test_net__who_waits_too_long_is_told_so),
        cmocka_unit_test(test_net__the_end_of_one_lets_the_next_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
