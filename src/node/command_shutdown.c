/*
 * command_shutdown.c - SHUTDOWN: the orderly end of the node, as by SIGTERM.
 *
 * Everything acknowledged is durable at the end, with SAVE and with NOSAVE; a backup is BGSAVE's affair. There are no
 * replicas to wait for: NOW changes nothing, and there is never an end under way that ABORT could call off. FORCE
 * neither: what would stand in the way in Redis, a save that fails, does not exist.
 *
 * The asking connection gets no answer, but the end of the connection; others get what they are owed.
 */
#include "base/diag.h"
#include "node/command.h"
#include "node/node_internal.h"

enum { SAVE = 1, NOSAVE = 2, NOW = 4, FORCE = 8, ABORT = 16 };

static unsigned parse_flag(struct slice word)
{
    static const char *const words[] = {"save", "nosave", "now", "force", "abort"};
    for (unsigned i = 0; i < ARRAY_COUNT(words); i++) {
        if (command_word_is(word, words[i]))
            return 1u << i;
    }
    return 0;
}

void command_shutdown(struct call *call)
{
    unsigned flags = 0;
    bool wrong = false;
    for (unsigned i = 1; i < call->count; i++) {
        const unsigned flag = parse_flag(call->args[i]);
        wrong |= flag == 0;
        flags |= flag;
    }
    wrong |= (flags & ABORT) != 0 && flags != ABORT;
    wrong |= (flags & (SAVE | NOSAVE)) == (SAVE | NOSAVE);
    if (wrong) {
        call_error(call, "ERR syntax error");
        return;
    }
    if (flags == ABORT) {
        call_error(call, "ERR No shutdown in progress.");
        return;
    }
    diag_info("client %llu: SHUTDOWN", (unsigned long long)call->client->id);
    node_ask_stop(call->shard);
    if (net_reply_reserve(call->conn, 1) != NULL)
        net_reply_commit(call->conn, 0, 0);
    net_conn_finish(call->conn);
}
