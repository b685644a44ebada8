/*
 * command_frame.c - requests of the binary protocol.
 *
 * Happy path: the opcode says what to do; the reply carries the request's id and may overtake others. Failures: an
 * opcode that is not known is answered with BAD_REQUEST and ends the connection, as docs/PROTOCOL.md says; until the
 * store is open, everything but STATS is answered with LOADING.
 */
#include "node/command.h"
#include "node/dispatch.h"
#include "node/info.h"
#include "node/node_internal.h"
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
    shard_count(&shard->counters.errors);
    reply_frame(conn, frame, FRAME_LOADING, slice_text(text + strlen("LOADING ")));
    return true;
}

void command_frame(void *context, struct net_conn *conn, const struct frame *frame)
{
    struct shard *shard = context;
    const struct client *client = net_conn_user(conn);
    if (client->over_limit) {
        reply_frame(conn, frame, FRAME_BUSY, slice_text("max number of clients reached"));
        net_conn_finish(conn);
        return;
    }
    if (__builtin_expect(!shard->serving, 0) && refuse_while_loading(shard, conn, frame))
        return;
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
    case FRAME_HELLO: /* net's; a second one is out of place */
        break;
    }
    reply_frame(conn, frame, FRAME_BAD_REQUEST, slice_text("unknown opcode"));
    net_conn_finish(conn);
}
