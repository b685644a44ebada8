/*
 * test_config.c - the command line: defaults, values, refusals.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "node/config.h"

static struct config config;
static char message[CONFIG_MESSAGE_BYTES];

#define PARSE(...) parse((char *[]){(char *)"kvs-node", ##__VA_ARGS__, NULL})

static bool parse(char **argv)
{
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    message[0] = 0;
    return config_parse(&config, argc, argv, 3, message);
}

#define S(text) ((char *)(uintptr_t)(text))

static void test_config__defaults(void **state)
{
    (void)state;
    char text[RING_ADDR_TEXT_BYTES];
    assert_true(PARSE());
    assert_int_equal(config.mode, CONFIG_RUN);
    assert_int_equal(config.address_count, 1);
    assert_string_equal(ring_addr_format(&config.addresses[0], text), "127.0.0.1:4000");
    assert_null(config.unix_path);
    assert_string_equal(config.data_dir, "./kvs-data");
    assert_null(config.backup_dir);
    assert_int_equal(config.threads, 3);
    assert_string_equal(config.engine, "kvs");
    assert_false(config.relaxed);
    assert_int_equal(config.relaxed_interval_ms, 100);
    assert_int_equal(config.max_clients, 10000);
    assert_int_equal(config.segment_bytes, 0);
    assert_int_equal(config.disk_bytes_max, 0);
    assert_int_equal(config.space_percent, 200);
    assert_int_equal(config.log_level, DIAG_INFO);

    assert_int_equal(config.memory_bytes, 0);
    config_set_memory(&config, 8ull << 30);
    assert_int_equal(config.memory_bytes, 4ull << 30);
    config_set_memory(&config, 1ull << 30); /* it is set now */
    assert_int_equal(config.memory_bytes, 4ull << 30);
    config.memory_bytes = 0;
    config_set_memory(&config, 1 << 20);
    assert_int_equal(config.memory_bytes, CONFIG_MEMORY_BYTES_MIN);
}

static void test_config__takes_what_is_given(void **state)
{
    (void)state;
    assert_true(PARSE(S("--addr"), S("127.0.0.1:1"), S("--addr=[::1]:2"), S("--unix"), S("/tmp/s"), S("--data-dir"),
                      S("/d"), S("--threads"), S("64"), S("--memory"), S("1G"), S("--segment-size"), S("1GiB"),
                      S("--engine"), S("memory"), S("--durability"), S("relaxed"), S("--relaxed-interval"), S("1"),
                      S("--max-clients"), S("7"), S("--log-level"), S("debug"), S("--disk-limit"), S("3T"),
                      S("--space-percent"), S("1000"), S("--backup-dir"), S("/b")));
    assert_int_equal(config.address_count, 2);
    assert_int_equal(ring_addr_port(&config.addresses[1]), 2);
    assert_string_equal(config.unix_path, "/tmp/s");
    assert_string_equal(config.data_dir, "/d");
    assert_string_equal(config.backup_dir, "/b");
    assert_int_equal(config.threads, 64);
    assert_int_equal(config.memory_bytes, 1u << 30);
    assert_int_equal(config.segment_bytes, 1u << 30);
    assert_string_equal(config.engine, "memory");
    assert_true(config.relaxed);
    assert_int_equal(config.relaxed_interval_ms, 1);
    assert_int_equal(config.max_clients, 7);
    assert_int_equal(config.log_level, DIAG_DEBUG);
    assert_int_equal(config.disk_bytes_max, 3ull << 40);
    assert_int_equal(config.space_percent, 1000);
    assert_true(PARSE(S("--enable-debug-command"), S("local")));
    assert_int_equal(config.enable_debug, CONFIG_DEBUG_LOCAL);
    assert_false(PARSE(S("--enable-debug-command"), S("maybe")));
    assert_true(PARSE(S("--disk-limit=0"), S("--space-percent=120")));
    assert_int_equal(config.enable_debug, CONFIG_DEBUG_NO);
    assert_int_equal(config.disk_bytes_max, 0);
    assert_int_equal(config.space_percent, 120);
}

static void test_config__modes(void **state)
{
    (void)state;
    assert_true(PARSE(S("--check")));
    assert_int_equal(config.mode, CONFIG_CHECK);
    assert_true(PARSE(S("-V"), S("--nonsense")));
    assert_int_equal(config.mode, CONFIG_VERSION);
    assert_true(PARSE(S("--help")));
    assert_int_equal(config.mode, CONFIG_HELP);
}

static void test_config__protected_mode_refuses_other_machines(void **state)
{
    (void)state;
    assert_false(PARSE(S("--addr"), S("192.0.2.1:4000")));
    assert_non_null(strstr(message, "192.0.2.1:4000"));
    assert_non_null(strstr(message, "--no-protected-mode"));
    assert_true(PARSE(S("--addr"), S("192.0.2.1:4000"), S("--no-protected-mode")));
    assert_true(PARSE(S("--addr"), S("127.9.9.9:4000"), S("--addr"), S("[::1]:4000")));
    assert_false(PARSE(S("--addr"), S("127.0.0.1:4000"), S("--addr"), S("[::]:4000")));
}

static void test_config__no_tcp_needs_a_unix_socket(void **state)
{
    (void)state;
    assert_false(PARSE(S("--addr"), S("none")));
    assert_true(PARSE(S("--addr"), S("none"), S("--unix"), S("s")));
    assert_int_equal(config.address_count, 0);
    assert_false(PARSE(S("--addr"), S("none"), S("--unix"), S("s"), S("--addr"), S("127.0.0.1:1")));
}

static void test_config__refusals_name_option_and_value(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"--addr", "nowhere"},      {"--addr", "1.2.3.4"},       {"--threads", "0"},
        {"--threads", "65"},        {"--threads", "+1"},         {"--threads", "1 "},
        {"--memory", "63M"},        {"--memory", "-1"},          {"--memory", "18446744073709551616"},
        {"--segment-size", "3M"},   {"--segment-size", "512K"},  {"--segment-size", "2G"},
        {"--engine", "KVS"},        {"--durability", "always"},  {"--relaxed-interval", "60001"},
        {"--max-clients", "0"},     {"--log-level", "trace"},    {"--disk-limit", ""},
        {"--disk-limit", "all"},    {"--disk-limit", "-1"},      {"--disk-limit", "16777216T"},
        {"--space-percent", "119"}, {"--space-percent", "1001"}, {"--space-percent", "100%"},
        {"--space-percent", ""},    {"--space-percent", "1.5"},  {"--backup-dir", "backups"},
        {"--backup-dir", ""},       {"--backup-dir", "/b/"},     {"--backup-dir", "./b"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_false(PARSE(S(bad[i][0]), S(bad[i][1])));
        assert_non_null(strstr(message, bad[i][0]));
        assert_non_null(strstr(message, bad[i][1]));
    }
    assert_false(PARSE(S("--nonesuch")));
    assert_non_null(strstr(message, "--nonesuch"));
    assert_false(PARSE(S("--threads")));
    assert_non_null(strstr(message, "--threads"));
    assert_false(PARSE(S("stray")));
    assert_non_null(strstr(message, "stray"));
}

static void test_config__sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},           {"1", 1},           {"4096B", 4096},      {"1k", 1024},
        {"1KB", 1024},      {"3KiB", 3072},     {"64M", 64u << 20},   {"1mib", 1u << 20},
        {"2G", 2ull << 30}, {"1GiB", 1u << 30}, {"16T", 16ull << 40}, {"999999999999999999", 999999999999999999ull},
    };
    static const char *const bad[] = {"",          "K",  "1X", "1 K", "-1", "1.5G", "0x10", "9999999999999999999",
                                      "99999999T", "1KK"};
    for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
        uint64_t bytes = 42;
        assert_true(config_parse_size(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        uint64_t bytes;
        assert_false(config_parse_size(bad[i], &bytes));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config__defaults),
        cmocka_unit_test(test_config__takes_what_is_given),
        cmocka_unit_test(test_config__modes),
        cmocka_unit_test(test_config__protected_mode_refuses_other_machines),
        cmocka_unit_test(test_config__no_tcp_needs_a_unix_socket),
        cmocka_unit_test(test_config__refusals_name_option_and_value),
        cmocka_unit_test(test_config__sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
