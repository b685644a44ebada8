/* Large requests on RESP connections: memory of their own, kept by the handler, shared within a bound; and what is too
 * long to be kept. */
#include "net_fixture_sim.h"

enum { MIB = 1024 * 1024, SEEDS = 6 };

/* "KEEP" with so many bytes; to be freed. */
static char *request_of(size_t argument_bytes, size_t *size, char reply[32])
{
    char *request = malloc(argument_bytes + 100);
    size_t head = (size_t)sprintf(request, "*2\r\n$4\r\nKEEP\r\n$%zu\r\n", argument_bytes);
    for (size_t i = 0; i < argument_bytes; i++)
        request[head + i] = (char)(i * 7 + (i >> 9));
    memcpy(request + head + argument_bytes, "\r\n", 2);
    *size = head + argument_bytes + 2;
    snprintf(reply, 32, ":%u\r\n", crc32c(0, request + head, argument_bytes));
    return request;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_net__large_requests_can_be_kept_and_others_follow_them),
        cmocka_unit_test(test_net__large_requests_wait_for_memory_and_all_get_it),
        cmocka_unit_test(test_net__many_large_arguments_of_many_connections),
        cmocka_unit_test(test_net__argument_over_the_limit_is_skipped_and_the_connection_goes_on),
        cmocka_unit_test(test_net__peer_that_does_not_send_what_it_has_announced_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
