/*
 * command_auth.c - who a connection is: AUTH, HELLO, RESET.
 */
#include "node/access.h"
#include "node/command_client.h"
#include "node/login.h"
#include "node/monitor.h"
#include "node/multi.h"
#include "node/node_internal.h"

#define NO_PASSWORD                                                                                       \
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your " \
    "configuration is correct?"

static bool default_needs_no_password(struct shard *shard)
{
    struct acl *acl = shard->node->acl;
    bool nopass = acl_default(acl_read_begin(acl, shard->id))->nopass;
    acl_read_end(acl, shard->id);
    return nopass;
}

void command_auth(struct call *call)
{
    struct login_request request = {.kind = LOGIN_AUTH, .user = slice_text("default")};
    if (call->count > 3) {
        call_error(call, "ERR syntax error");
        return;
    }
    if (call->count == 2 && default_needs_no_password(call->shard)) {
        call_error(call, NO_PASSWORD);
        return;
    }
    if (call->count == 3)
        request.user = call->args[1];
    request.password = call->args[call->count - 1];
    login_ask(call, &request);
}

/* True when somebody has logged in, or needs not. */
static bool is_authenticated(struct call *call)
{
    struct acl *acl = call->shard->node->acl;
    bool yes = acl_is_open(acl_read_begin(acl, call->shard->id)) || call->client->user.authenticated;
    acl_read_end(acl, call->shard->id);
    return yes;
}

/* The words behind the version; false: answered. */
static bool parse_hello(struct call *call, struct login_request *request, bool *auth)
{
    for (unsigned i = 2; i < call->count; i++) {
        unsigned left = call->count - 1 - i;
        if (command_word_is(call->args[i], "auth") && left >= 2) {
            *auth = true;
            request->user = call->args[i + 1];
            request->password = call->args[i + 2];
            i += 2;
        } else if (command_word_is(call->args[i], "setname") && left >= 1) {
            request->name = call->args[i + 1];
            if (request->name.data == NULL)
                request->name = slice_make("", 0);
            if (!client_name_fits(call, request->name))
                return false;
            i += 1;
        } else {
            call_error(call, "ERR Syntax error in HELLO option '%.*s'",
                       (int)(call->args[i].size < 128 ? call->args[i].size : 128), (const char *)call->args[i].data);
            return false;
        }
    }
    return true;
}

void command_hello(struct call *call)
{
    int64_t version = call->client->resp_version;
    struct login_request request = {.kind = LOGIN_HELLO};
    bool auth = false;
    if (call->count >= 2) {
        if (!command_integer(call->args[1], &version)) {
            call_error(call, "ERR Protocol version is not an integer or out of range");
            return;
        }
        if (version != 2 && version != 3) {
            call_error(call, "NOPROTO unsupported protocol version");
            return;
        }
    }
    if (!parse_hello(call, &request, &auth))
        return;
    request.resp_version = (uint8_t)version;
    if (auth) {
        login_ask(call, &request);
        return;
    }
    if (!is_authenticated(call)) {
        call_error(call,
                   "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> "
                   "AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol "
                   "version at the same time");
        return;
    }
    struct text text = {0};
    login_hello(call->shard, call->conn, &request, &text);
    call_text(call, &text);
}

/* As if the connection had just been opened, but for its number. */
void command_reset(struct call *call)
{
    struct client *client = call->client;
    struct acl *acl = call->shard->node->acl;
    client->resp_version = 2;
    client->special &= (uint8_t) ~(CLIENT_REPLY_OFF | CLIENT_REPLY_SKIP);
    net_reply_mute(call->conn, false);
    client->no_evict = client->no_touch = false;
    monitor_leave(call->shard, client);
    multi_forget(call->shard, client);
    client->relaxed = settings_get(&call->shard->node->settings, SETTING_RELAXED) != 0;
    client->was_relaxed |= client->relaxed;
    (void)client_set_text(call->shard, client, CLIENT_NAME, slice_make("", 0));
    acl_holder_reset(&client->user, acl_read_begin(acl, call->shard->id));
    acl_read_end(acl, call->shard->id);
    call_simple(call, "RESET");
}
