/*
 * test_node_mailbox.c - messages between shards: order, full rings, sleeping and waking.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "node/mailbox.h"
#include "ring_sim.h"

#include <stdlib.h>

struct letter {
    struct mail mail;
    unsigned number;
};

struct reader {
    unsigned numbers[1024];
    unsigned count;
};

static struct mailroom *room;
static struct ring *rings[3];

static int set_up(void **state)
{
    (void)state;
    char message[RING_MESSAGE_BYTES];
    sim_create(1);
    assert_int_equal(mailroom_create(&room, 3), KVS_ERR_OK);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ring_open(&rings[i], &(struct ring_options){.entries = 8}, message), KVS_ERR_OK);
        mailbox_attach(mailroom_box(room, i), rings[i]);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mailroom_destroy(room);
    sim_destroy();
    return 0;
}

static void take(void *context, struct mail *mail)
{
    struct reader *reader = context;
    struct letter *letter = container_of(mail, struct letter, mail);
    reader->numbers[reader->count++] = letter->number;
    free(letter);
}

static void post(unsigned from, unsigned to, unsigned number)
{
    struct letter *letter = malloc(sizeof(*letter));
    assert_non_null(letter);
    letter->number = number;
    mailbox_post(mailroom_box(room, from), to, &letter->mail);
}

static void test_mailbox__delivers_in_order_after_send(void **state)
{
    (void)state;
    struct reader reader = {0};
    struct mailbox *sender = mailroom_box(room, 0), *receiver = mailroom_box(room, 1);
    for (unsigned i = 0; i < 100; i++)
        post(0, 1, i);
    assert_int_equal(mailbox_collect(receiver, take, &reader), 0);
    assert_true(mailbox_backlog(sender));
    mailbox_send(sender);
    assert_false(mailbox_backlog(sender));
    assert_int_equal(mailbox_collect(mailroom_box(room, 2), take, &reader), 0);
    assert_int_equal(mailbox_collect(receiver, take, &reader), 100);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(reader.numbers[i], i);
    assert_int_equal(mailbox_collect(receiver, take, &reader), 0);
}

static void test_mailbox__a_full_ring_keeps_the_rest_and_the_order(void **state)
{
    (void)state;
    struct reader reader = {0};
    struct mailbox *sender = mailroom_box(room, 0), *receiver = mailroom_box(room, 1);
    for (unsigned i = 0; i < 200; i++) {
        post(0, 1, i);
        mailbox_send(sender); /* a chain each: more than a ring holds */
    }
    assert_true(mailbox_backlog(sender));
    /* Another target is not held up by it. */
    post(0, 2, 7);
    mailbox_send(sender);
    assert_int_equal(mailbox_collect(mailroom_box(room, 2), take, &(struct reader){0}), 1);

    unsigned first = mailbox_collect(receiver, take, &reader);
    assert_true(first > 0 && first < 200);
    mailbox_send(sender);
    assert_false(mailbox_backlog(sender));
    assert_int_equal(mailbox_collect(receiver, take, &reader), 200 - first);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(reader.numbers[i], i);
}

static void test_mailbox__mail_wakes_a_sleeper_once(void **state)
{
    (void)state;
    struct reader reader = {0};
    struct mailbox *receiver = mailroom_box(room, 2);
    assert_true(mailbox_sleep(receiver));
    post(0, 2, 1);
    mailbox_send(mailroom_box(room, 0));
    post(1, 2, 2);
    mailbox_send(mailroom_box(room, 1));
    ring_turn(rings[2], -1); /* would wait for ever without a wake-up, which the simulator does not allow */
    mailbox_awake(receiver);
    assert_int_equal(mailbox_collect(receiver, take, &reader), 2);
    ring_turn(rings[2], 0);

    uint64_t begin = ring_now_ns(rings[2]);
    post(0, 2, 3);
    mailbox_send(mailroom_box(room, 0)); /* it does not sleep: no wake-up */
    ring_turn(rings[2], 1000);
    assert_int_equal(ring_now_ns(rings[2]) - begin, 1000);
    assert_int_equal(mailbox_collect(receiver, take, &reader), 1);
}

static void test_mailbox__nobody_falls_asleep_over_mail(void **state)
{
    (void)state;
    struct reader reader = {0};
    struct mailbox *receiver = mailroom_box(room, 1);
    post(0, 1, 1);
    mailbox_send(mailroom_box(room, 0));
    assert_false(mailbox_sleep(receiver));
    assert_int_equal(mailbox_collect(receiver, take, &reader), 1);
    assert_true(mailbox_sleep(receiver));
    mailbox_awake(receiver);
}

static void send_back(void *context, struct mail *mail)
{
    (void)context;
    mailbox_post(mailroom_box(room, 1), 0, mail);
}

static void test_mailbox__a_receiver_may_send_mail_back(void **state)
{
    (void)state;
    struct reader reader = {0};
    for (unsigned i = 0; i < 50; i++)
        post(0, 1, i);
    mailbox_send(mailroom_box(room, 0));
    assert_int_equal(mailbox_collect(mailroom_box(room, 1), send_back, NULL), 50);
    mailbox_send(mailroom_box(room, 1));
    assert_int_equal(mailbox_collect(mailroom_box(room, 0), take, &reader), 50);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(reader.numbers[i], i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_mailbox__delivers_in_order_after_send, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mailbox__a_full_ring_keeps_the_rest_and_the_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mailbox__mail_wakes_a_sleeper_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mailbox__nobody_falls_asleep_over_mail, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mailbox__a_receiver_may_send_mail_back, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
