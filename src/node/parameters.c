/*
 * parameters.c - one row for each option that CONFIG knows.
 *
 * Failures: texts are Redis's, but where the node takes less than Redis does, which it says.
 */
#include "node/parameters.h"

#include "node/command.h"
#include "node/node_internal.h"
#include "node/redact.h"

#include <limits.h>

/* ---- what they are --------------------------------------------------------------------------------------------- */

static void show_text(struct text *out, const char *text)
{
    text_add(out, slice_text(text != NULL ? text : ""));
}

static void show_number(struct text *out, uint64_t number)
{
    text_printf(out, "%llu", (unsigned long long)number);
}

static void show_aclfile(const struct node *node, struct text *out)
{
    show_text(out, node->config.acl_file);
}

static void show_appendfsync(const struct node *node, struct text *out)
{
    show_text(out, settings_get(&node->settings, SETTING_RELAXED) != 0 ? "everysec" : "always");
}

static bool is_persistent(const struct node *node)
{
    return strcmp(node->config.engine, "memory") != 0;
}

static void show_appendonly(const struct node *node, struct text *out)
{
    show_text(out, is_persistent(node) ? "yes" : "no");
}

static void show_backup_dir(const struct node *node, struct text *out)
{
    show_text(out, node->config.backup_dir);
}

/* Every address, as Redis shows them: without the port, which all have in common there. */
static void show_bind(const struct node *node, struct text *out)
{
    for (unsigned i = 0; i < node->config.address_count; i++) {
        char text[RING_ADDR_TEXT_BYTES];
        (void)ring_addr_format(&node->config.addresses[i], text);
        char *end = strrchr(text, ':');
        size_t size = end != NULL ? (size_t)(end - text) : strlen(text);
        const bool bracketed = size >= 2 && text[0] == '[';
        text_printf(out, "%s%.*s", i > 0 ? " " : "", (int)(bracketed ? size - 2 : size), text + bracketed);
    }
}

static void show_args_max(const struct node *node, struct text *out)
{
    show_number(out, node->net_options.resp.args_max);
}

static void show_bulk_max(const struct node *node, struct text *out)
{
    show_number(out, node->net_options.resp.arg_bytes_max);
}

/* Hard limit, soft limit, seconds. Who has the soft one unsent is not read from, and ended when he takes nothing for so
 * long; there is no hard one. */
static void show_output_limits(const struct node *node, struct text *out)
{
    text_printf(out, "normal 0 %lld %lld slave 0 0 0 pubsub 0 0 0",
                (long long)settings_get(&node->settings, SETTING_OUTPUT_BYTES_MAX),
                (long long)settings_get(&node->settings, SETTING_SEND_TIMEOUT_S));
}

static void show_request_max(const struct node *node, struct text *out)
{
    show_number(out, net_request_bytes_max(&node->net_options));
}

static void show_clients_memory(const struct node *node, struct text *out)
{
    show_number(out, node->net_options.memory_max * node->shard_count);
}

static void show_key_max(const struct node *node, struct text *out)
{
    show_number(out, node->key_bytes_max);
}

static void show_pipeline_max(const struct node *node, struct text *out)
{
    show_number(out, node->net_options.requests_max);
}

static void show_databases(const struct node *node, struct text *out)
{
    (void)node;
    show_text(out, "1");
}

static void show_dir(const struct node *node, struct text *out)
{
    show_text(out, node->config.data_dir);
}

static void show_disk_limit(const struct node *node, struct text *out)
{
    show_number(out, node->config.disk_bytes_max);
}

static void show_durability(const struct node *node, struct text *out)
{
    show_text(out, settings_get(&node->settings, SETTING_RELAXED) != 0 ? "relaxed" : "durable");
}

static void show_enable_debug(const struct node *node, struct text *out)
{
    static const char *const words[] = {
        [CONFIG_DEBUG_NO] = "no", [CONFIG_DEBUG_LOCAL] = "local", [CONFIG_DEBUG_YES] = "yes"};
    show_text(out, words[node->config.enable_debug]);
}

static void show_engine(const struct node *node, struct text *out)
{
    show_text(out, node->config.engine);
}

static void show_threads(const struct node *node, struct text *out)
{
    show_number(out, node->shard_count);
}

static const char *const log_levels[] = {
    [LOG_DEBUG] = "debug",     [LOG_VERBOSE] = "verbose", [LOG_NOTICE] = "notice",
    [LOG_WARNING] = "warning", [LOG_NOTHING] = "nothing",
};

static void show_loglevel(const struct node *node, struct text *out)
{
    show_text(out, log_levels[settings_get(&node->settings, SETTING_LOG_LEVEL)]);
}

static void show_maxmemory(const struct node *node, struct text *out)
{
    show_number(out, node->config.memory_bytes);
}

static void show_maxmemory_policy(const struct node *node, struct text *out)
{
    (void)node;
    show_text(out, "noeviction");
}

static void show_port(const struct node *node, struct text *out)
{
    const bool tcp = node->config.address_count > 0 && node->listener_count > 0;
    show_number(out, tcp ? ring_addr_port(&node->addresses[0]) : 0);
}

static void show_protected_mode(const struct node *node, struct text *out)
{
    show_text(out, node->config.protected_mode ? "yes" : "no");
}

static void show_value_max(const struct node *node, struct text *out)
{
    show_number(out, node->value_bytes_max);
}

static void show_relaxed_interval(const struct node *node, struct text *out)
{
    show_number(out, node->config.relaxed_interval_ms);
}

/* The node does not keep the password: only whether there is one. */
static void show_requirepass(const struct node *node, struct text *out)
{
    show_text(out, atomic_load_explicit(&node->password_set, memory_order_relaxed) ? REDACTED : "");
}

static void show_save(const struct node *node, struct text *out)
{
    (void)node;
    (void)out;
}

static void show_segment_size(const struct node *node, struct text *out)
{
    show_number(out, node->config.segment_bytes);
}

static void show_space_percent(const struct node *node, struct text *out)
{
    show_number(out, node->config.space_percent);
}

static void show_unixsocket(const struct node *node, struct text *out)
{
    show_text(out, node->config.unix_path);
}

#define SHOW_SETTING(function, which)                                                        \
    static void function(const struct node *node, struct text *out)                          \
    {                                                                                        \
        text_printf(out, "%lld", (long long)settings_get(&node->settings, SETTING_##which)); \
    }
SHOW_SETTING(show_timeout, TIMEOUT_S)
SHOW_SETTING(show_keepalive, KEEPALIVE_S)
SHOW_SETTING(show_maxclients, CLIENTS_MAX)
SHOW_SETTING(show_output_limit, OUTPUT_BYTES_MAX)
SHOW_SETTING(show_send_timeout, SEND_TIMEOUT_S)
SHOW_SETTING(show_turn_max, TURN)
SHOW_SETTING(show_slower, SLOWER_US)
SHOW_SETTING(show_slowlog_max, SLOWLOG_MAX)
#undef SHOW_SETTING

static void show_latency_tracking(const struct node *node, struct text *out)
{
    show_text(out, settings_get(&node->settings, SETTING_LATENCY_TRACKING) != 0 ? "yes" : "no");
}

/* ---- what they may become -------------------------------------------------------------------------------------- */

static bool judge_number(const struct parameter *parameter, struct slice text, int64_t *value, struct text *wrong)
{
    if (!command_integer(text, value)) {
        text_printf(wrong, "argument couldn't be parsed into an integer");
        return false;
    }
    if (*value >= parameter->min && *value <= parameter->max)
        return true;
    text_printf(wrong, "argument must be between %lld and %lld inclusive", (long long)parameter->min,
                (long long)parameter->max);
    return false;
}

/* "4096", "64kb", "1mb" as Redis reads them: k, m, g are thousands, kb, mb, gb are powers of two. */
static bool judge_memory(const struct parameter *parameter, struct slice text, int64_t *value, struct text *wrong)
{
    static const struct {
        const char *suffix;
        int64_t factor;
    } units[] = {
        {"", 1},        {"b", 1},        {"k", 1000},       {"kb", 1024},
        {"m", 1000000}, {"mb", 1 << 20}, {"g", 1000000000}, {"gb", 1 << 30},
    };
    size_t digits = 0;
    while (digits < text.size && text.data[digits] >= '0' && text.data[digits] <= '9')
        digits++;
    const struct slice rest = slice_make(text.data + digits, text.size - digits);
    for (size_t i = 0; i < ARRAY_COUNT(units); i++) {
        int64_t number, bytes;
        if (!command_word_is(rest, units[i].suffix) || !command_integer(slice_make(text.data, digits), &number) ||
            __builtin_mul_overflow(number, units[i].factor, &bytes))
            continue;
        *value = bytes;
        if (bytes >= parameter->min && bytes <= parameter->max)
            return true;
        text_printf(wrong, "argument must be between %lld and %lld inclusive", (long long)parameter->min,
                    (long long)parameter->max);
        return false;
    }
    text_printf(wrong, "argument must be a memory value");
    return false;
}

static bool judge_yes_no(const struct parameter *parameter, struct slice text, int64_t *value, struct text *wrong)
{
    (void)parameter;
    *value = command_word_is(text, "yes");
    if (*value != 0 || command_word_is(text, "no"))
        return true;
    text_printf(wrong, "argument must be 'yes' or 'no'");
    return false;
}

static bool judge_word(struct slice text, const char *const *words, size_t count, int64_t *value, struct text *wrong)
{
    for (size_t i = 0; i < count; i++) {
        *value = (int64_t)i;
        if (command_word_is(text, words[i]))
            return true;
    }
    text_printf(wrong, "argument(s) must be one of the following: ");
    for (size_t i = 0; i < count; i++)
        text_printf(wrong, "%s%s", i > 0 ? ", " : "", words[i]);
    return false;
}

static bool judge_loglevel(const struct parameter *parameter, struct slice text, int64_t *value, struct text *wrong)
{
    (void)parameter;
    return judge_word(text, log_levels, ARRAY_COUNT(log_levels), value, wrong);
}

static bool judge_appendfsync(const struct parameter *parameter, struct slice text, int64_t *value, struct text *wrong)
{
    static const char *const words[] = {"always", "everysec"};
    (void)parameter;
    return judge_word(text, words, ARRAY_COUNT(words), value, wrong);
}

static bool judge_durability(const struct parameter *parameter, struct slice text, int64_t *value, struct text *wrong)
{
    static const char *const words[] = {"durable", "relaxed"};
    (void)parameter;
    return judge_word(text, words, ARRAY_COUNT(words), value, wrong);
}

static bool judge_password(const struct parameter *parameter, struct slice text, int64_t *value, struct text *wrong)
{
    (void)parameter;
    *value = 0;
    if (text.size <= CONFIG_PASSWORD_BYTES_MAX)
        return true;
    text_printf(wrong, "a password has at most %u bytes", CONFIG_PASSWORD_BYTES_MAX);
    return false;
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

#define FIXED(parameter, function)              \
    {                                           \
        .name = (parameter), .show = (function) \
    }
#define NUMBER(parameter, function, which, least, most)                                                             \
    {                                                                                                               \
        .name = (parameter), .show = (function), .judge = judge_number, .setting = SETTING_##which, .min = (least), \
        .max = (most)                                                                                               \
    }
#define OTHER(parameter, function, judging, which)                                              \
    {                                                                                           \
        .name = (parameter), .show = (function), .judge = (judging), .setting = SETTING_##which \
    }

const struct parameter parameter_table[] = {
    FIXED("aclfile", show_aclfile),
    OTHER("appendfsync", show_appendfsync, judge_appendfsync, RELAXED),
    FIXED("appendonly", show_appendonly),
    FIXED("args-max", show_args_max),
    FIXED("backup-dir", show_backup_dir),
    FIXED("bind", show_bind),
    FIXED("bulk-max", show_bulk_max),
    FIXED("client-output-buffer-limit", show_output_limits),
    FIXED("client-query-buffer-limit", show_request_max),
    FIXED("databases", show_databases),
    FIXED("dir", show_dir),
    FIXED("disk-limit", show_disk_limit),
    OTHER("durability", show_durability, judge_durability, RELAXED),
    FIXED("enable-debug-command", show_enable_debug),
    FIXED("engine", show_engine),
    FIXED("io-threads", show_threads),
    FIXED("key-max", show_key_max),
    OTHER("latency-tracking", show_latency_tracking, judge_yes_no, LATENCY_TRACKING),
    OTHER("loglevel", show_loglevel, judge_loglevel, LOG_LEVEL),
    NUMBER("maxclients", show_maxclients, CLIENTS_MAX, 1, 1000000),
    FIXED("maxmemory", show_maxmemory),
    FIXED("maxmemory-clients", show_clients_memory),
    FIXED("maxmemory-policy", show_maxmemory_policy),
    {.name = "output-limit",
     .show = show_output_limit,
     .judge = judge_memory,
     .setting = SETTING_OUTPUT_BYTES_MAX,
     .min = 16384,
     .max = 1 << 30},
    FIXED("pipeline-max", show_pipeline_max),
    FIXED("port", show_port),
    FIXED("protected-mode", show_protected_mode),
    FIXED("proto-max-bulk-len", show_value_max),
    FIXED("relaxed-interval", show_relaxed_interval),
    {.name = "requirepass", .show = show_requirepass, .judge = judge_password, .password = true},
    FIXED("save", show_save),
    FIXED("segment-size", show_segment_size),
    NUMBER("send-timeout", show_send_timeout, SEND_TIMEOUT_S, 1, 86400),
    NUMBER("slowlog-log-slower-than", show_slower, SLOWER_US, -1, INT64_MAX),
    NUMBER("slowlog-max-len", show_slowlog_max, SLOWLOG_MAX, 0, SETTING_SLOWLOG_ENTRIES_MAX),
    FIXED("space-percent", show_space_percent),
    NUMBER("tcp-keepalive", show_keepalive, KEEPALIVE_S, 0, 32767),
    NUMBER("timeout", show_timeout, TIMEOUT_S, 0, 100000000),
    NUMBER("turn-max", show_turn_max, TURN, 1, 1000000),
    FIXED("unixsocket", show_unixsocket),
    {.name = NULL},
};

const struct parameter *parameter_find(struct slice name)
{
    const struct parameter *parameter = parameter_table;
    while (parameter->name != NULL && !command_word_is(name, parameter->name))
        parameter++;
    return parameter->name != NULL ? parameter : NULL;
}
