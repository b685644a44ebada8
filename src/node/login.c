/*
 * login.c - from a name and a password to the user of a connection.
 *
 * Happy path: the password was given rightly before, since the start of the process: acl_login_begin knows it at once.
 * Otherwise a struct login takes the request's slot and waits in the shard's derive queue.
 *
 * Failures. A wrong password, or a user who is not there or may not log in: one and the same error, after the same
 * time, and an entry in ACL LOG. Too many waiting, or no memory: an error that says to try again.
 */
#include "node/login.h"

#include "base/assert.h"
#include "node/access.h"
#include "node/command_client.h"
#include "node/derive.h"
#include "node/node_internal.h"
#include "proto/frame.h"

#include <stdlib.h>

#define WRONG    "WRONGPASS invalid username-password pair or user is disabled."
#define TOO_MANY "ERR too many logins are under way; try again"

struct login {
    struct derive_job job;
    struct list link; /* in shard->logins */
    struct net_slot slot;
    struct shard *shard;
    struct net_conn *conn;
    struct acl_secret secret;
    struct login_request request; /* user and name lie below; no password */
    struct text reply;
    char user[ACL_NAME_BYTES_MAX], name[CLIENT_NAME_BYTES_MAX];
};

void login_hello(struct shard *shard, struct net_conn *conn, const struct login_request *request, struct text *reply)
{
    struct client *client = net_conn_user(conn);
    if (request->name.data != NULL)
        (void)client_set_text(shard, client, CLIENT_NAME, request->name);
    client->resp_version = request->resp_version;
    int version = request->resp_version;
    text_map(reply, 7, version);
    text_bulk(reply, "server");
    text_bulk(reply, "redis");
    text_bulk(reply, "version");
    text_bulk(reply, COMMAND_REDIS_VERSION);
    text_bulk(reply, "proto");
    text_integer(reply, version);
    text_bulk(reply, "id");
    text_integer(reply, (int64_t)client->id);
    text_bulk(reply, "mode");
    text_bulk(reply, "standalone");
    text_bulk(reply, "role");
    text_bulk(reply, "master");
    text_bulk(reply, "modules");
    text_array(reply, 0);
}

static void add_frame(const struct login_request *request, uint8_t status, const char *text, struct text *reply)
{
    struct slice value = slice_text(text);
    const struct frame_header header = {
        .opcode = request->opcode, .flags = FRAME_REPLY, .status = status, .id = request->id};
    uint8_t *room = text_room(reply, frame_bytes(0, value.size));
    if (room != NULL)
        text_advance(reply, frame_write(room, &header, slice_make(NULL, 0), value));
}

/* Makes the connection the user's, or notes that it was not; the reply to that. */
static void conclude(struct shard *shard, struct net_conn *conn, const struct login_request *request, bool right,
                     uint64_t uid, struct text *reply)
{
    struct client *client = net_conn_user(conn);
    if (right)
        client->user = (struct acl_holder){.uid = uid, .authenticated = true};
    else
        access_note_login(shard, conn, request->kind == LOGIN_HELLO ? "hello" : "auth", request->user);
    if (!right)
        shard_count_error(shard, WRONG);
    if (request->kind == LOGIN_FRAME)
        add_frame(request, right ? FRAME_OK : FRAME_NO_AUTH,
                  right ? ""
                        : "invalid username-password pair or user is "
                          "disabled",
                  reply);
    else if (!right)
        text_printf(reply, "-%s\r\n", WRONG);
    else if (request->kind == LOGIN_HELLO)
        login_hello(shard, conn, request, reply);
    else
        text_simple(reply, "OK");
}

/* ---- later ----------------------------------------------------------------------------------------------------- */

static void login_free(struct login *login)
{
    list_remove(&login->link);
    text_deinit(&login->reply);
    explicit_bzero(&login->secret, sizeof(login->secret));
    free(login);
}

static void on_released(struct net_slot *slot)
{
    login_free(container_of(slot, struct login, slot));
}

void login_abandon(struct shard *shard)
{
    while (!list_empty(&shard->logins))
        login_free(container_of(shard->logins.next, struct login, link));
}

static void on_derived(struct derive_job *job)
{
    struct login *login = container_of(job, struct login, job);
    struct shard *shard = login->shard;
    struct net_conn *conn = login->conn;
    uint64_t uid = 0;
    bool right = acl_login_end(shard->node->acl, shard->id, login->request.user, &login->secret.digest,
                               &login->secret.salt, &login->secret.key, &uid);
    conclude(shard, conn, &login->request, right, uid, &login->reply);
    net_slot_fill(&login->slot, login->reply.data, login->reply.size, 0);
    net_conn_go_on(conn);
}

static struct slice keep_text(char *room, size_t room_bytes, struct slice text)
{
    KVS_ASSERT(text.size <= room_bytes);
    if (text.data == NULL)
        return text;
    memcpy(room, text.data, text.size);
    return slice_make(room, text.size);
}

static void reply_now(struct call *call, struct text *reply)
{
    uint8_t *out = net_reply_reserve(call->conn, reply->size);
    if (out != NULL) {
        memcpy(out, reply->data, reply->size);
        net_reply_commit(call->conn, reply->size, 0);
    }
    text_deinit(reply);
}

static void refuse(struct call *call, const struct login_request *request)
{
    struct text reply = {0};
    shard_count_error(call->shard, TOO_MANY);
    if (request->kind == LOGIN_FRAME)
        add_frame(request, FRAME_BUSY, &TOO_MANY[strlen("ERR ")], &reply);
    else
        text_printf(&reply, "-%s\r\n", TOO_MANY);
    reply_now(call, &reply);
}

void login_ask(struct call *call, const struct login_request *request)
{
    struct shard *shard = call->shard;
    struct acl_hash digest;
    struct acl_salt salt;
    uint64_t uid = 0;
    acl_digest(request->password, &digest);
    enum acl_login known = acl_login_begin(shard->node->acl, shard->id, request->user, &digest, &salt, &uid);
    bool too_long = request->user.size > ACL_NAME_BYTES_MAX;
    if (known != ACL_LOGIN_DERIVE || too_long) {
        struct text reply = {0};
        conclude(shard, call->conn, request, known == ACL_LOGIN_YES, uid, &reply);
        reply_now(call, &reply);
        return;
    }
    struct login *login = calloc(1, sizeof(*login));
    if (login == NULL) {
        refuse(call, request);
        return;
    }
    list_init(&login->link);
    login->secret = (struct acl_secret){.digest = digest, .salt = salt};
    login->job = (struct derive_job){.secrets = &login->secret, .count = 1, .done = on_derived};
    if (!derive_add(&shard->derivations, &login->job)) {
        login_free(login);
        refuse(call, request);
        return;
    }
    login->shard = shard;
    login->conn = call->conn;
    login->request = *request;
    login->request.password = slice_make(NULL, 0);
    login->request.user = keep_text(login->user, sizeof(login->user), request->user);
    login->request.name = keep_text(login->name, sizeof(login->name), request->name);
    list_push_back(&shard->logins, &login->link);
    net_reply_defer(call->conn, &login->slot);
    login->slot.released = on_released;
    net_conn_hold(call->conn);
}
