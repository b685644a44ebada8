/*
 * command_frame.c - requests of the binary protocol.
 *
 * Happy path: the opcode says what to do; the reply carries the request's id and may overtake others. Failures: an
 * opcode that is not known is answered with BAD_REQUEST and ends the connection, as docs/PROTOCOL.md says; until the
 * store is open, everything but STATS is answered with LOADING.
 */
#include "base/assert.h"
#include "node/access.h"
#include "node/command.h"
#include "node/dispatch.h"
#include "node/info.h"
#include "node/login.h"
#include "node/monitor.h"
#include "node/node_internal.h"
#include "node/timing.h"
#include "proto/frame.h"

static void reply_frame(struct net_conn *conn, const struct frame *request, uint8_t status, struct slice value)
{
    struct frame_header header = {
        .magic = FRAME_MAGIC,
        .opcode = request->header.opcode,
        .flags = FRAME_REPLY,
        .status = status,
        .value_bytes = (uint32_t)value.size,
        .id = request->header.id,
    };
    uint8_t *out = net_reply_reserve(conn, frame_bytes(0, value.size));
    if (out != NULL)
        net_reply_commit(conn, frame_write(out, &header, slice_make(NULL, 0), value), 0);
}

static void reply_stats(struct shard *shard, struct net_conn *conn, const struct frame *frame)
{
    struct text text = {0};
    unsigned sections = frame->key.size == 0 ? INFO_DEFAULT : info_section(frame->key);
    info_write(shard->node, shard->ring, sections, &text);
    if (text.failed)
        reply_frame(conn, frame, FRAME_NO_SPACE, slice_text("no memory for the reply"));
    else
        reply_frame(conn, frame, FRAME_OK, slice_make(text.data, text.size));
    text_deinit(&text);
}

static void begin_backup(struct shard *shard, struct net_conn *conn, const struct frame *frame)
{
    char called[ENGINE_BACKUP_NAME_BYTES];
    enum kvs_err err = command_backup_begin(shard, frame->key, called);
    if (err == KVS_ERR_OK) {
        reply_frame(conn, frame, FRAME_OK, slice_text(called));
        return;
    }
    bool busy = err == KVS_ERR_AGAIN;
    reply_frame(conn, frame, busy ? FRAME_BUSY : FRAME_BAD_REQUEST, slice_text(command_backup_error(err)));
    if (!busy)
        net_conn_finish(conn);
}

static void run_key_request(struct shard *shard, struct net_conn *conn, const struct frame *frame,
                            enum engine_action action)
{
    struct client *client = net_conn_user(conn);
    struct slice value = action == ENGINE_PUT ? frame->value : slice_make(NULL, 0);
    struct engine_request request = dispatch_request(shard, client, action, frame->key, value);
    request.relaxed |= (frame->header.flags & FRAME_RELAXED) != 0;
    struct reply_format format = {
        .kind = REPLY_FRAME, .frame_opcode = frame->header.opcode, .frame_id = frame->header.id};
    dispatch_request_one(shard, conn, &request, &format);
}

/* What is carried out, or refused as always, before the store is open. Opcodes that nobody knows are, too. */
static bool may_come_early(uint8_t opcode)
{
    switch ((enum frame_opcode)opcode) { /* without a default: the compiler asks about every new one */
    case FRAME_HELLO:
    case FRAME_STATS:
    case FRAME_AUTH:
        return true;
    case FRAME_PING:
    case FRAME_GET:
    case FRAME_SET:
    case FRAME_REMOVE:
    case FRAME_BACKUP:
        return false;
    }
    return true;
}

/* True when this has to wait for the store to be opened; it is answered. */
static bool refuse_while_loading(struct shard *shard, struct net_conn *conn, const struct frame *frame)
{
    if (may_come_early(frame->header.opcode))
        return false;
    char text[COMMAND_LOADING_BYTES_MAX];
    command_loading_text(text, shard);
    shard_count_error(shard, text);
    reply_frame(conn, frame, FRAME_LOADING, slice_text(text + strlen("LOADING ")));
    return true;
}

/* True when the user may not do this, or not now; it is answered, or comes again. */
static bool refuse_frame(struct shard *shard, struct net_conn *conn, const struct frame *frame)
{
    struct client *client = net_conn_user(conn);
    const struct slice args[] = {slice_text(client->command->name), frame->key};
    struct call call = {
        .shard = shard, .conn = conn, .client = client, .command = client->command, .args = args, .count = 2};
    uint8_t status;
    const char *text;
    char room[256];
    if (access_frame(&call, &status, &text, room))
        return false;
    if (text != NULL) {
        shard_count_error(shard, status == FRAME_NO_AUTH ? "NOAUTH" : "NOPERM");
        reply_frame(conn, frame, status, slice_text(text));
    }
    return true;
}

static void log_in(struct shard *shard, struct net_conn *conn, const struct frame *frame)
{
    struct call call = {.shard = shard, .conn = conn, .client = net_conn_user(conn)};
    struct login_request request = {
        .kind = LOGIN_FRAME,
        .user = frame->key.size > 0 ? frame->key : slice_text("default"),
        .password = frame->value,
        .opcode = frame->header.opcode,
        .id = frame->header.id,
    };
    login_ask(&call, &request);
}

static void carry_out(struct shard *shard, struct net_conn *conn, const struct frame *frame)
{
    switch ((enum frame_opcode)frame->header.opcode) {
    case FRAME_PING:
        reply_frame(conn, frame, FRAME_OK, frame->value);
        return;
    case FRAME_GET:
        run_key_request(shard, conn, frame, ENGINE_GET);
        return;
    case FRAME_SET:
        run_key_request(shard, conn, frame, ENGINE_PUT);
        return;
    case FRAME_REMOVE:
        run_key_request(shard, conn, frame, ENGINE_REMOVE);
        return;
    case FRAME_STATS:
        reply_stats(shard, conn, frame);
        return;
    case FRAME_BACKUP:
        begin_backup(shard, conn, frame);
        return;
    case FRAME_AUTH:
        log_in(shard, conn, frame);
        return;
    case FRAME_HELLO: /* net's; a second one is out of place */
        break;
    }
    reply_frame(conn, frame, FRAME_BAD_REQUEST, slice_text("unknown opcode"));
    net_conn_finish(conn);
}

/* Commands that take long by themselves; the others are timed in runs. */
static bool may_be_slow(const struct frame *frame)
{
    return frame->header.opcode != FRAME_GET && frame->header.opcode != FRAME_REMOVE &&
           (frame->header.opcode != FRAME_SET || frame->value.size > METER_RUN_VALUE_BYTES);
}

static void carry_out_timed(struct shard *shard, struct net_conn *conn, const struct frame *frame, unsigned watch)
{
    const uint8_t opcode = frame->header.opcode;
    struct client *client = net_conn_user(conn);
    if (opcode >= FRAME_COMMANDS || client->command == NULL) {
        carry_out(shard, conn, frame);
        return;
    }
    if (watch == 0 && !may_be_slow(frame)) {
        timing_run(shard, opcode);
        carry_out(shard, conn, frame);
        return;
    }
    const struct slice args[] = {slice_text(client->command->name), frame->key, frame->value};
    const unsigned count = opcode == FRAME_SET ? 3 : frame->key.size > 0 ? 2 : 1;
    struct call call = {
        .shard = shard, .conn = conn, .client = client, .command = client->command, .args = args, .count = count};
    struct timing timing;
    monitor_note(&call, NULL);
    timing_begin(&timing, &call, NULL);
    carry_out(shard, conn, frame);
    timing_end(&timing, &call, shard->frame_numbers[opcode]);
}

void command_frame(void *context, struct net_conn *conn, const struct frame *frame)
{
    struct shard *shard = context;
    struct client *client = net_conn_user(conn);
    unsigned watch = 0;
    if (__builtin_expect((client->special & CLIENT_OVER_LIMIT) != 0, 0)) {
        reply_frame(conn, frame, FRAME_BUSY, slice_text("max number of clients reached"));
        net_conn_finish(conn);
        return;
    }
    if (frame->header.opcode < FRAME_COMMANDS) {
        client->command = shard->frame_commands[frame->header.opcode];
        client->sub = NULL;
        client->seen_ns = shard->now_ns;
        watch = atomic_load_explicit(&shard->node->watch, memory_order_relaxed);
        if (__builtin_expect(watch != 0, 0) && client->command != NULL && refuse_frame(shard, conn, frame))
            return;
    }
    if (__builtin_expect(!shard->serving, 0) && refuse_while_loading(shard, conn, frame))
        return;
    carry_out_timed(shard, conn, frame, watch);
}

void command_of_frames(const struct command *commands[FRAME_COMMANDS])
{
    static const char *const names[FRAME_COMMANDS] = {
        [FRAME_PING] = "ping",  [FRAME_GET] = "get",       [FRAME_SET] = "set",   [FRAME_REMOVE] = "del",
        [FRAME_STATS] = "info", [FRAME_BACKUP] = "bgsave", [FRAME_AUTH] = "auth",
    };
    for (unsigned i = 0; i < FRAME_COMMANDS; i++) {
        commands[i] = names[i] == NULL ? NULL : command_find(slice_text(names[i]));
        KVS_ASSERT((commands[i] == NULL) == (names[i] == NULL));
    }
}
