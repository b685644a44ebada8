/*
 * command_config.c - CONFIG: GET, SET, RESETSTAT, REWRITE.
 *
 * SET. All pairs are looked at before any is set: names, then values, so that a mistake in the last leaves the first as
 * it was. Numbers are set at once and known to all shards before long (settings.h). A password has to be derived first,
 * as by ACL SETUSER: the reply comes when it counts.
 *
 * Failures: Redis's texts, naming the argument. REWRITE: a node is configured on its command line, so there is never a
 * file to rewrite, and what SET has changed lasts until the node stops.
 */
#include "node/acl_store.h"
#include "node/command.h"
#include "node/figures.h"
#include "node/glob.h"
#include "node/node_internal.h"
#include "node/parameters.h"

#define PAIRS_MAX 64u

/* ---- GET ------------------------------------------------------------------------------------------------------- */

/* How the reply names it: as it was asked for, if that is no pattern. Data NULL: it was not. */
static struct slice named(const char *name, const struct slice *patterns, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (command_word_is(patterns[i], name))
            return patterns[i];
        if (glob_matches_name(patterns[i], name))
            return slice_text(name);
    }
    return slice_make(NULL, 0);
}

static void run_get(struct call *call)
{
    struct text pairs = {0}, text = {0}, value = {0};
    size_t count = 0;
    for (const struct parameter *parameter = parameter_table; parameter->name != NULL; parameter++) {
        const struct slice name = named(parameter->name, call->args + 2, call->count - 2);
        if (name.data == NULL)
            continue;
        value.size = 0;
        parameter->show(call->shard->node, &value);
        text_bulk_bytes(&pairs, name);
        text_bulk_bytes(&pairs, slice_make(value.data, value.size));
        count++;
    }
    text_map(&text, count, call->client->resp_version);
    text_add(&text, slice_make(pairs.data, pairs.size));
    text.failed |= pairs.failed || value.failed;
    text_deinit(&value);
    text_deinit(&pairs);
    call_text(call, &text);
}

/* ---- SET ------------------------------------------------------------------------------------------------------- */

struct pair {
    const struct parameter *parameter;
    struct slice name, text;
    int64_t value;
};

static void refuse(struct call *call, struct slice name, const char *why)
{
    call_error(call, "ERR CONFIG SET failed (possibly related to argument '%.*s') - %s", command_printable(name, 128),
               (const char *)name.data, why);
}

static bool is_repeated(const struct pair *pairs, unsigned at)
{
    for (unsigned i = 0; i < at; i++) {
        if (pairs[i].parameter == pairs[at].parameter)
            return true;
    }
    return false;
}

/* Finds the parameters. An unknown one is told even if one before it was refused. */
static bool find_pairs(struct call *call, struct pair *pairs, unsigned count)
{
    const char *why = NULL;
    struct slice which = {0};
    for (unsigned i = 0; i < count; i++) {
        pairs[i] = (struct pair){.name = call->args[2 + 2 * i], .text = call->args[3 + 2 * i]};
        pairs[i].parameter = parameter_find(pairs[i].name);
        if (pairs[i].parameter == NULL) {
            if (why == NULL)
                call_error(call, "ERR Unknown option or number of arguments for CONFIG SET - '%.*s'",
                           command_printable(pairs[i].name, 128), (const char *)pairs[i].name.data);
            else
                refuse(call, which, why);
            return false;
        }
        if (why != NULL)
            continue;
        if (pairs[i].parameter->judge == NULL)
            why = "can't set immutable config";
        else if (is_repeated(pairs, i))
            why = "duplicate parameter";
        which = pairs[i].name;
    }
    if (why != NULL)
        refuse(call, which, why);
    return why == NULL;
}

static bool judge_pairs(struct call *call, struct pair *pairs, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct text wrong = {0};
        if (!pairs[i].parameter->judge(pairs[i].parameter, pairs[i].text, &pairs[i].value, &wrong)) {
            text_add(&wrong, slice_make("", 1));
            refuse(call, slice_text(pairs[i].parameter->name), wrong.failed ? "no memory" : (const char *)wrong.data);
            text_deinit(&wrong);
            return false;
        }
        text_deinit(&wrong);
    }
    return true;
}

/* Of the user default, as Redis has it: one password, or none needed. */
static void set_password(struct call *call, struct slice password)
{
    uint8_t rule[1 + CONFIG_PASSWORD_BYTES_MAX];
    const bool none = password.size == 0;
    rule[0] = '>';
    if (!none)
        memcpy(rule + 1, password.data, password.size);
    const struct slice rules[] = {slice_text(none ? "nopass" : "resetpass"), slice_make(rule, 1 + password.size)};
    atomic_store_explicit(&call->shard->node->password_set, !none, memory_order_relaxed);
    acl_store_set(call, slice_text("default"), rules, none ? 1 : 2);
    explicit_bzero(rule, sizeof(rule));
}

static void run_set(struct call *call)
{
    struct pair pairs[PAIRS_MAX];
    const unsigned count = (call->count - 2) / 2;
    const struct pair *password = NULL;
    if (call->count % 2 != 0 || count > PAIRS_MAX) {
        call_error(call, "ERR syntax error");
        return;
    }
    if (!find_pairs(call, pairs, count) || !judge_pairs(call, pairs, count))
        return;
    struct settings *settings = &call->shard->node->settings;
    for (unsigned i = 0; i < count; i++) {
        if (pairs[i].parameter->password)
            password = &pairs[i];
        else
            settings_set(settings, pairs[i].parameter->setting, pairs[i].value);
    }
    settings_changed(call->shard);
    slowlog_trim(call->shard->node->slowlog, (size_t)settings_get(settings, SETTING_SLOWLOG_MAX));
    if (password != NULL)
        set_password(call, password->text);
    else
        call_simple(call, "OK");
}

/* ---- the others ------------------------------------------------------------------------------------------------ */

static void run_resetstat(struct call *call)
{
    figures_reset(call->shard->node);
    call_simple(call, "OK");
}

static void run_rewrite(struct call *call)
{
    call_error(call, "ERR The server is running without a config file");
}

#define FLAGS (COMMAND_ADMIN | COMMAND_NOSCRIPT | COMMAND_LOADING | COMMAND_STALE)

const struct subcommand command_config_subcommands[] = {
    {"get", -3, FLAGS, "<pattern>", "Return parameters matching the glob-like <pattern> and their values.", run_get},
    {"resetstat", 2, FLAGS, "", "Reset statistics reported by the INFO command.", run_resetstat},
    {"rewrite", 2, FLAGS, "", "Rewrite the configuration file, which a node has none of.", run_rewrite},
    {"set", -4, FLAGS, "<directive> <value>", "Set the configuration <directive> to <value>.", run_set},
    {NULL, 0, 0, NULL, NULL, NULL},
};
