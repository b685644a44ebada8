/*
 * command_server.c - commands about the node: INFO, DBSIZE, CONFIG GET.
 */
#include "node/command.h"
#include "node/info.h"
#include "node/node_internal.h"

#include <fnmatch.h>
#include <stdio.h>

void command_info(struct call *call)
{
    unsigned sections = call->count == 1 ? INFO_DEFAULT : 0;
    for (unsigned i = 1; i < call->count; i++)
        sections |= info_section(call->args[i]);

    struct text info = {0};
    info_write(call->shard->node, call->shard->ring, sections, &info);
    struct text reply = {0};
    text_verbatim(&reply, slice_make(info.data, info.size), call->client->resp_version);
    reply.failed |= info.failed;
    text_deinit(&info);
    call_text(call, &reply);
}

/* Keys of all shards. Writes of this connection that are still under way to other shards may be missing. */
void command_dbsize(struct call *call)
{
    struct engine_stats stats;
    engine_stats(call->shard->store, &stats);
    call_integer(call, (int64_t)stats.keys);
}

/* ---- CONFIG GET ------------------------------------------------------------------------------------------------ */

#define PARAMETERS_MAX 16u

struct parameter {
    const char *name;
    char value[160];
};

/* What tools ask a Redis for, said in its words. */
static unsigned list_parameters(const struct node *node, struct parameter out[PARAMETERS_MAX])
{
    const struct config *config = &node->config;
    unsigned count = 0;
    bool persistent = strcmp(config->engine, "memory") != 0;
#define PARAMETER(parameter, ...)                                          \
    do {                                                                   \
        out[count].name = (parameter);                                     \
        snprintf(out[count].value, sizeof(out[count].value), __VA_ARGS__); \
        count++;                                                           \
    } while (0)
    PARAMETER("aclfile", "%.150s", config->acl_file != NULL ? config->acl_file : "");
    PARAMETER("appendfsync", "%s", config->relaxed ? "everysec" : "always");
    PARAMETER("appendonly", "%s", persistent ? "yes" : "no");
    PARAMETER("databases", "1");
    PARAMETER("dir", "%.150s", config->data_dir);
    PARAMETER("io-threads", "%u", node->shard_count);
    PARAMETER("maxclients", "%u", config->max_clients);
    PARAMETER("maxmemory", "%llu", (unsigned long long)config->memory_bytes);
    PARAMETER("maxmemory-policy", "noeviction");
    PARAMETER("port", "%u", node->listener_count > 0 ? ring_addr_port(&node->addresses[0]) : 0);
    PARAMETER("proto-max-bulk-len", "%u", node->value_bytes_max);
    PARAMETER("save", "%s", "");
    PARAMETER("tcp-keepalive", "%u", config->keepalive_s);
    PARAMETER("timeout", "%u", config->idle_timeout_s);
#undef PARAMETER
    return count;
}

static bool matches_any(const char *name, const struct slice *patterns, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char pattern[64];
        if (patterns[i].size >= sizeof(pattern))
            continue;
        memcpy(pattern, patterns[i].data, patterns[i].size);
        pattern[patterns[i].size] = 0;
        if (fnmatch(pattern, name, FNM_CASEFOLD) == 0)
            return true;
    }
    return false;
}

static void run_config_get(struct call *call)
{
    struct parameter parameters[PARAMETERS_MAX];
    unsigned count = list_parameters(call->shard->node, parameters);
    bool chosen[PARAMETERS_MAX];
    size_t pairs = 0;
    for (unsigned i = 0; i < count; i++) {
        chosen[i] = matches_any(parameters[i].name, call->args + 2, call->count - 2);
        pairs += chosen[i];
    }
    struct text text = {0};
    text_map(&text, pairs, call->client->resp_version);
    for (unsigned i = 0; i < count; i++) {
        if (!chosen[i])
            continue;
        text_bulk(&text, parameters[i].name);
        text_bulk(&text, parameters[i].value);
    }
    call_text(call, &text);
}

static void run_config_set(struct call *call)
{
    call_error(call,
               "ERR CONFIG SET is not offered: kvs-node takes its options from the command line, see kvs-node --help");
}

const struct subcommand command_config_subcommands[] = {
    {"get", -3, COMMAND_ADMIN | COMMAND_LOADING, "<pattern>",
     "Return parameters matching the glob-like <pattern> and their values.", run_config_get},
    {"set", -4, COMMAND_ADMIN | COMMAND_LOADING, "<directive> <value>",
     "Not offered: options are given on the command line.", run_config_set},
    {NULL, 0, 0, NULL, NULL, NULL},
};
