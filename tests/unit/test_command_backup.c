/*
 * test_command_backup.c - BGSAVE, LASTSAVE, the BACKUP frame and what INFO tells of them, on a whole node.
 */
#include "node_fixture.h"

static struct peer *peer;

/* The value of a line of INFO persistence; good until the next call. */
static const char *info_of(const char *field)
{
    const char *value = peer_info(peer, "persistence", field);
    return value == NULL ? "" : value;
}

static void await_end(const char *name)
{
    for (unsigned i = 0; strcmp(info_of("rdb_bgsave_in_progress"), "0") != 0; i++)
        assert_true(i < 10000);
    assert_string_equal(info_of("last_backup_name"), name);
}

static void ask(const char *reply, const char *word, const char *argument)
{
    peer_say(peer, word, argument, NULL);
    struct slice got = peer_reply(peer);
    if (!slice_equal(got, slice_text(reply)))
        fail_msg("%s: '%.*s', not '%s'", word, (int)got.size, (const char *)got.data, reply);
}

static uint64_t last_save(void)
{
    peer_say(peer, "LASTSAVE", NULL);
    struct slice reply = peer_reply(peer);
    assert_int_equal(reply.data[0], ':');
    return strtoull((const char *)reply.data + 1, NULL, 10);
}

static void test_backup__is_asked_for_by_clients(void **state)
{
    (void)state;
    struct node_fixture fixture;
    struct config config = fixture_create(&fixture, 1, 3);
    peer = peer_open(&fixture);
    uint64_t started = last_save();
    assert_string_equal(info_of("rdb_last_bgsave_status"), "ok");
    assert_string_equal(info_of("last_backup_path"), "");
    assert_string_equal(info_of("rdb_last_bgsave_time_sec"), "-1");
    sim_advance(5000000000);
    for (unsigned i = 0; i < 50; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%u", i);
        peer_say(peer, "SET", key, "value", NULL);
        assert_true(slice_equal(peer_reply(peer), slice_text("+OK\r\n")));
    }
    peer_say(peer, "BGSAVE", "one", NULL);
    peer_say(peer, "BGSAVE", "two", NULL);
    assert_true(slice_equal(peer_reply(peer), slice_text("+Background saving started\r\n")));
    assert_true(slice_equal(peer_reply(peer), slice_text("-ERR Background save already in progress\r\n")));
    await_end("one");
    assert_string_equal(info_of("rdb_last_bgsave_status"), "ok");
    assert_string_equal(info_of("last_backup_path"), "/data/backups/one");
    assert_string_equal(info_of("backups_ended"), "1");
    uint64_t saved = last_save();
    assert_in_range(saved, started + 5, started + 60);

    ask("+Background saving started\r\n", "BGSAVE", "one");
    await_end("one");
    assert_string_equal(info_of("rdb_last_bgsave_status"), "err");
    assert_non_null(strstr(info_of("last_backup_error"), "exists already"));
    assert_int_equal(last_save(), saved);
    ask("-ERR invalid name of a backup: 1 to 64 letters, digits, dots, dashes and underscores, no dot at first\r\n",
        "BGSAVE", "../one");
    peer_say(peer, "BGSAVE", "a", "b", NULL);
    assert_true(slice_equal(peer_reply(peer), slice_text("-ERR syntax error\r\n")));

    /* By the time, in UTC. */
    ask("+Background saving started\r\n", "BGSAVE", "Schedule");
    while (strcmp(info_of("rdb_bgsave_in_progress"), "0") != 0)
        ;
    const char *name = info_of("last_backup_name");
    assert_int_equal(strlen(name), strlen("20260131-120000"));
    assert_int_equal(name[8], '-');
    assert_string_equal(info_of("rdb_last_bgsave_status"), "ok");
    assert_string_equal(info_of("last_backup_error"), "");
    peer_close(peer);
    fixture_stop(&fixture, false);

    config.data_dir = "/data/backups/one";
    fixture_start(&fixture, &config);
    peer = peer_open(&fixture);
    ask("$5\r\nvalue\r\n", "GET", "key49");
    peer_close(peer);
    fixture_end(&fixture);
}

static void test_backup__there_is_none_of_the_memory_engine(void **state)
{
    (void)state;
    struct node_fixture fixture;
    struct config config = fixture_config(1);
    config.engine = "memory";
    config.memory_bytes = 64 << 20;
    fixture_machine(2);
    fixture_start(&fixture, &config);
    peer = peer_open(&fixture);
    ask("-ERR this engine keeps nothing that could be saved\r\n", "BGSAVE", "one");
    assert_string_equal(info_of("rdb_bgsave_in_progress"), "0");
    assert_true(last_save() > 0);
    peer_close(peer);
    fixture_end(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backup__is_asked_for_by_clients),
        cmocka_unit_test(test_backup__there_is_none_of_the_memory_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
