/*
 * test_ring_addr.c - socket addresses from and to text.
 */
#include "test_ring_fixture.h"

#include "base/bytes.h"

static void test_ring_addr__text_survives_the_round_trip(void **state)
{
    (void)state;
    static const char *const texts[] = {"127.0.0.1:4000", "0.0.0.0:0", "255.255.255.255:65535", "[::1]:4000",
                                        "[fe80::1:2]:80"};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct ring_addr addr;
        char text[RING_ADDR_TEXT_BYTES];
        assert_int_equal(ring_addr_parse_tcp(texts[i], &addr), KVS_ERR_OK);
        assert_string_equal(ring_addr_format(&addr, text), texts[i]);
    }
}

static void test_ring_addr__nonsense_is_invalid(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        ":",
        "127.0.0.1",
        "127.0.0.1:",
        ":80",
        "127.0.0.1:65536",
        "127.0.0.1:080000",
        "1.2.3:4",
        "1.2.3.4:-1",
        "1.2.3.4: 1",
        "1.2.3.4:1x",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[]:80",
        "[1.2.3.4]:1",
        "localhost:80",
        "1.2.3.4:000080",
        "1.2.3.4:4294967376",
        "[::1:80",
        "[::1%lo]:80",
        "[:80",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:0000:1111:2222:3333:4444:5555:80",
    };
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct ring_addr addr;
        assert_int_equal(ring_addr_parse_tcp(texts[i], &addr), KVS_ERR_INVALID);
    }
}

static void test_ring_addr__unix_path_has_a_limit(void **state)
{
    (void)state;
    char path[109], text[RING_ADDR_TEXT_BYTES];
    struct ring_addr addr;
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[108] = '\0';
    assert_int_equal(ring_addr_unix(path, &addr), KVS_ERR_TOO_LARGE);
    path[107] = '\0';
    assert_int_equal(ring_addr_unix(path, &addr), KVS_ERR_OK);
    assert_string_equal(ring_addr_format(&addr, text) + strlen("unix:"), path);
    assert_int_equal(ring_addr_unix("", &addr), KVS_ERR_INVALID);
}

static void test_ring_addr__knows_who_is_local(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool local;
    } cases[] = {
        {"127.0.0.1:1", true}, {"127.9.9.9:1", true}, {"128.0.0.1:1", false},         {"0.0.0.0:1", false},
        {"[::1]:1", true},     {"[::2]:1", false},    {"[::ffff:127.0.0.1]:1", true}, {"[::ffff:10.0.0.1]:1", false}};
    struct ring_addr addr;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(ring_addr_parse_tcp(cases[i].text, &addr), KVS_ERR_OK);
        assert_int_equal(ring_addr_is_local(&addr), cases[i].local);
    }
    assert_int_equal(ring_addr_unix("/tmp/x", &addr), KVS_ERR_OK);
    assert_true(ring_addr_is_local(&addr));
}

static void test_ring_addr__port_of_each_family(void **state)
{
    (void)state;
    struct ring_addr addr;
    assert_int_equal(ring_addr_parse_tcp("1.2.3.4:4001", &addr), KVS_ERR_OK);
    assert_int_equal(ring_addr_port(&addr), 4001);
    assert_int_equal(ring_addr_parse_tcp("[::]:4002", &addr), KVS_ERR_OK);
    assert_int_equal(ring_addr_port(&addr), 4002);
    assert_int_equal(ring_addr_unix("/tmp/x", &addr), KVS_ERR_OK);
    assert_int_equal(ring_addr_port(&addr), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_addr__text_survives_the_round_trip),
        cmocka_unit_test(test_ring_addr__nonsense_is_invalid),
        cmocka_unit_test(test_ring_addr__unix_path_has_a_limit),
        cmocka_unit_test(test_ring_addr__knows_who_is_local),
        cmocka_unit_test(test_ring_addr__port_of_each_family),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
