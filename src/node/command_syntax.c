/*
 * command_syntax.c - arguments, keys and complexity of commands, and how they are told.
 *
 * Arguments nest. They are written in the order in which they are read; how many there are at a depth is counted by a
 * look ahead.
 */
#include "node/command_syntax.h"

#include "base/assert.h"

#include <stdio.h>

#define NAME_BYTES 96

const struct command_syntax command_syntax_table[] = {
    {"acl", NULL, NULL, NULL, NULL, NULL},
    {"acl|cat", "6.0.0", "O(1)", NULL, NULL, "categoryname:string?"},
    {"acl|deluser", "6.0.0", "O(1)", NULL, NULL, "username:string*"},
    {"acl|dryrun", "7.0.0", "O(1)", NULL, NULL, "username:string command:string arg:string?*"},
    {"acl|genpass", "6.0.0", "O(1)", NULL, NULL, "bits:integer?"},
    {"acl|getuser", "6.0.0", "O(N)", NULL, NULL, "username:string"},
    {"acl|list", "6.0.0", "O(N)", NULL, NULL, NULL},
    {"acl|load", "6.0.0", "O(N)", NULL, NULL, NULL},
    {"acl|log", "6.0.0", "O(N)", NULL, NULL, "operation:oneof?( count:integer reset:token=RESET )"},
    {"acl|save", "6.0.0", "O(N)", NULL, NULL, NULL},
    {"acl|setuser", "6.0.0", "O(N)", NULL, NULL, "username:string rule:string?*"},
    {"acl|users", "6.0.0", "O(N)", NULL, NULL, NULL},
    {"acl|whoami", "6.0.0", "O(1)", NULL, NULL, NULL},
    {"append", NULL, "O(1)", "RW insert", NULL, "key:key value:string"},
    {"auth", NULL, "O(N)", NULL, NULL, "username:string?@6.0.0 password:string"},
    {"bgsave", NULL, "O(1)", NULL, NULL, "schedule:token=SCHEDULE?@3.2.2"},
    {"bitcount", NULL, "O(N)", "RO access", NULL,
     "key:key index:block?( start:integer end:integer index_unit:oneof?@7.0.0( byte:token=BYTE bit:token=BIT ) )"},
    {"bitfield", NULL, "O(1)", "RW access update variable_flags", NULL,
     "key:key operation:oneof?*( encoding_offset:block=GET( encoding:string offset:integer ) write:block( "
     "wrap_sat_fail:oneof=OVERFLOW?( wrap:token=WRAP sat:token=SAT fail:token=FAIL ) write_operation:oneof( "
     "encoding_offset_value:block=SET( encoding:string offset:integer value:integer ) "
     "encoding_offset_increment:block=INCRBY( encoding:string offset:integer increment:integer ) ) ) )"},
    {"bitfield_ro", NULL, "O(1)", "RO access", NULL,
     "key:key encoding_offset:block=GET?*+( encoding:string offset:integer )"},
    {"bitop", NULL, "O(N)", "OW update | RO access", NULL,
     "operation:oneof( and:token=AND or:token=OR xor:token=XOR not:token=NOT ) destkey:key key:key2*"},
    {"bitpos", NULL, "O(N)", "RO access", NULL,
     "key:key bit:integer index:block?( start:integer end_index:block?( end:integer index_unit:oneof?@7.0.0( "
     "byte:token=BYTE bit:token=BIT ) ) )"},
    {"client", NULL, NULL, NULL, NULL, NULL},
    {"client|caching", "6.0.0", "O(1)", NULL, NULL, "mode:oneof( yes:token=YES no:token=NO )"},
    {"client|getname", "2.6.9", "O(1)", NULL, NULL, NULL},
    {"client|getredir", "6.0.0", "O(1)", NULL, NULL, NULL},
    {"client|id", "5.0.0", "O(1)", NULL, NULL, NULL},
    {"client|info", "6.2.0", "O(1)", NULL, "nondeterministic_output", NULL},
    {"client|kill", "2.4.0", "O(N)", NULL, NULL,
     "filter:oneof( ip-port:string new-format:oneof*( client-id:integer=ID?@2.8.12 "
     "normal_master_slave_pubsub:oneof=TYPE?@2.8.12( normal:token=NORMAL master:token=MASTER@3.2.0 slave:token=SLAVE "
     "replica:token=REPLICA@5.0.0 pubsub:token=PUBSUB ) username:string=USER? ip-port:string=ADDR? "
     "ip-port:string=LADDR?@6.2.0 yes/no:string=SKIPME? ) )"},
    {"client|list", "2.4.0", "O(N)", NULL, "nondeterministic_output",
     "normal_master_replica_pubsub:oneof=TYPE?@5.0.0( normal:token=NORMAL master:token=MASTER replica:token=REPLICA "
     "pubsub:token=PUBSUB ) id:block=ID?@6.2.0( client-id:integer* )"},
    {"client|no-evict", "7.0.0", "O(1)", NULL, NULL, "enabled:oneof( on:token=ON off:token=OFF )"},
    {"client|no-touch", "7.2.0", "O(1)", NULL, NULL, "enabled:oneof( on:token=ON off:token=OFF )"},
    {"client|pause", "2.9.50", "O(1)", NULL, NULL,
     "timeout:integer mode:oneof?@6.2.0( write:token=WRITE all:token=ALL )"},
    {"client|reply", "3.2.0", "O(1)", NULL, NULL, "on_off_skip:oneof( on:token=ON off:token=OFF skip:token=SKIP )"},
    {"client|setinfo", "7.2.0", "O(1)", NULL, "request_policy:all_nodes response_policy:all_succeeded",
     "attr:oneof( libname:string=LIB-NAME libver:string=LIB-VER )"},
    {"client|setname", "2.6.9", "O(1)", NULL, NULL, "connection-name:string"},
    {"client|tracking", "6.0.0", "O(1)", NULL, NULL,
     "status:oneof( on:token=ON off:token=OFF ) client-id:integer=REDIRECT? prefix:string=PREFIX?*+ bcast:token=BCAST? "
     "optin:token=OPTIN? optout:token=OPTOUT? noloop:token=NOLOOP?"},
    {"client|trackinginfo", "6.2.0", "O(1)", NULL, NULL, NULL},
    {"client|unblock", "5.0.0", "O(log N)", NULL, NULL,
     "client-id:integer timeout_error:oneof?( timeout:token=TIMEOUT error:token=ERROR )"},
    {"client|unpause", "6.2.0", "O(N)", NULL, NULL, NULL},
    {"command", NULL, "O(N)", NULL, "nondeterministic_output_order", NULL},
    {"command|count", "2.8.13", "O(1)", NULL, NULL, NULL},
    {"command|docs", "7.0.0", "O(N)", NULL, "nondeterministic_output_order", "command-name:string?*"},
    {"command|getkeys", "2.8.13", "O(N)", NULL, NULL, NULL},
    {"command|getkeysandflags", "7.0.0", "O(N)", NULL, NULL, NULL},
    {"command|info", "2.8.13", "O(N)", NULL, "nondeterministic_output_order", "command-name:string?*"},
    {"command|list", "7.0.0", "O(N)", NULL, "nondeterministic_output_order",
     "filterby:oneof=FILTERBY?( module-name:string=MODULE category:string=ACLCAT pattern:pattern=PATTERN )"},
    {"config", NULL, NULL, NULL, NULL, NULL},
    {"config|get", "2.0.0", "O(N)", NULL, NULL, "parameter:block*( parameter:string )"},
    {"config|resetstat", "2.0.0", "O(1)", NULL, NULL, NULL},
    {"config|rewrite", "2.8.0", "O(1)", NULL, NULL, NULL},
    {"config|set", "2.0.0", "O(N)", NULL, "request_policy:all_nodes response_policy:all_succeeded",
     "parameter_value:block*( parameter:string value:string )"},
    {"copy", NULL, "O(N)", "RO access | OW update", NULL,
     "source:key destination:key2 destination-db:integer=DB? replace:token=REPLACE?"},
    {"dbsize", NULL, "O(1)", NULL, "request_policy:all_shards response_policy:agg_sum", NULL},
    {"debug", NULL, NULL, NULL, NULL, NULL},
    {"decr", NULL, "O(1)", "RW access update", NULL, "key:key"},
    {"decrby", NULL, "O(1)", "RW access update", NULL, "key:key decrement:integer"},
    {"del", NULL, "O(N)", "RM delete", "request_policy:multi_shard response_policy:agg_sum", "key:key*"},
    {"delifeq", NULL, "O(1)", "RM delete", NULL, "key:key value:string"},
    {"discard", NULL, "O(N)", NULL, NULL, NULL},
    {"dump", NULL, "O(1)", "RO access", "nondeterministic_output", "key:key"},
    {"echo", NULL, "O(1)", NULL, NULL, "message:string"},
    {"exec", NULL, NULL, NULL, NULL, NULL},
    {"exists", NULL, "O(N)", "RO", "request_policy:multi_shard response_policy:agg_sum", "key:key*"},
    {"expire", NULL, "O(1)", "RW update", NULL,
     "key:key seconds:integer condition:oneof?@7.0.0( nx:token=NX xx:token=XX gt:token=GT lt:token=LT )"},
    {"expireat", NULL, "O(1)", "RW update", NULL,
     "key:key unix-time-seconds:unix-time condition:oneof?@7.0.0( nx:token=NX xx:token=XX gt:token=GT lt:token=LT )"},
    {"expiretime", NULL, "O(1)", "RO access", NULL, "key:key"},
    {"flushall", NULL, "O(N)", NULL, "request_policy:all_shards response_policy:all_succeeded",
     "async:oneof?( async:token=ASYNC@4.0.0 sync:token=SYNC@6.2.0 )"},
    {"flushdb", NULL, "O(N)", NULL, "request_policy:all_shards response_policy:all_succeeded",
     "async:oneof?( async:token=ASYNC@4.0.0 sync:token=SYNC@6.2.0 )"},
    {"get", NULL, "O(1)", "RO access", NULL, "key:key"},
    {"getbit", NULL, "O(1)", "RO access", NULL, "key:key offset:integer"},
    {"getdel", NULL, "O(1)", "RW access delete", NULL, "key:key"},
    {"getex", NULL, "O(1)", "RW access update", NULL,
     "key:key expiration:oneof?( seconds:integer=EX milliseconds:integer=PX unix-time-seconds:unix-time=EXAT "
     "unix-time-milliseconds:unix-time=PXAT persist:token=PERSIST )"},
    {"getrange", NULL, "O(N)", "RO access", NULL, "key:key start:integer end:integer"},
    {"getset", NULL, "O(1)", "RW access update", NULL, "key:key value:string"},
    {"hello", NULL, "O(1)", NULL, NULL,
     "arguments:block?( protover:integer username_password:block=AUTH?( username:string password:string ) "
     "clientname:string=SETNAME? )"},
    {"incr", NULL, "O(1)", "RW access update", NULL, "key:key"},
    {"incrby", NULL, "O(1)", "RW access update", NULL, "key:key increment:integer"},
    {"incrbyfloat", NULL, "O(1)", "RW access update", NULL, "key:key increment:double"},
    {"info", NULL, "O(1)", NULL, "nondeterministic_output request_policy:all_shards response_policy:special",
     "section:string?*"},
    {"keys", NULL, "O(N)", NULL, "request_policy:all_shards nondeterministic_output_order", "pattern:pattern"},
    {"kvs.durability", NULL, "O(1)", NULL, NULL, "class:oneof?( durable:token=DURABLE relaxed:token=RELAXED )"},
    {"kvs.stats", NULL, "O(N)", NULL, NULL, NULL},
    {"lastsave", NULL, "O(1)", NULL, "nondeterministic_output", NULL},
    {"latency", NULL, NULL, NULL, NULL, NULL},
    {"latency|doctor", "2.8.13", "O(1)", NULL,
     "nondeterministic_output request_policy:all_nodes response_policy:special", NULL},
    {"latency|graph", "2.8.13", "O(1)", NULL,
     "nondeterministic_output request_policy:all_nodes response_policy:special", "event:string"},
    {"latency|histogram", "7.0.0", "O(N)", NULL,
     "nondeterministic_output request_policy:all_nodes response_policy:special", "command:string?*"},
    {"latency|history", "2.8.13", "O(1)", NULL,
     "nondeterministic_output request_policy:all_nodes response_policy:special", "event:string"},
    {"latency|latest", "2.8.13", "O(1)", NULL,
     "nondeterministic_output request_policy:all_nodes response_policy:special", NULL},
    {"latency|reset", "2.8.13", "O(1)", NULL, "request_policy:all_nodes response_policy:all_succeeded",
     "event:string?*"},
    {"lcs", NULL, "O(N*M)", "RO access", NULL,
     "key1:key key2:key len:token=LEN? idx:token=IDX? len:integer=MINMATCHLEN? withmatchlen:token=WITHMATCHLEN?"},
    {"memory", NULL, NULL, NULL, NULL, NULL},
    {"memory|usage", "4.0.0", "O(N)", "RO", NULL, "key:key count:integer=SAMPLES?"},
    {"mget", NULL, "O(N)", "RO access", "request_policy:multi_shard", "key:key*"},
    {"monitor", NULL, NULL, NULL, NULL, NULL},
    {"move", NULL, "O(1)", "RW access update", NULL, "key:key db:integer"},
    {"mset", NULL, "O(N)", "OW update", "request_policy:multi_shard response_policy:all_succeeded",
     "key_value:block*( key:key value:string )"},
    {"msetnx", NULL, "O(N)", "OW insert", "request_policy:multi_shard response_policy:agg_min",
     "key_value:block*( key:key value:string )"},
    {"multi", NULL, "O(1)", NULL, NULL, NULL},
    {"object", NULL, NULL, NULL, NULL, NULL},
    {"object|encoding", "2.2.3", "O(1)", "RO", "nondeterministic_output", "key:key"},
    {"object|freq", "4.0.0", "O(1)", "RO", "nondeterministic_output", "key:key"},
    {"object|idletime", "2.2.3", "O(1)", "RO", "nondeterministic_output", "key:key"},
    {"object|refcount", "2.2.3", "O(1)", "RO", "nondeterministic_output", "key:key"},
    {"persist", NULL, "O(1)", "RW update", NULL, "key:key"},
    {"pexpire", NULL, "O(1)", "RW update", NULL,
     "key:key milliseconds:integer condition:oneof?@7.0.0( nx:token=NX xx:token=XX gt:token=GT lt:token=LT )"},
    {"pexpireat", NULL, "O(1)", "RW update", NULL,
     "key:key unix-time-milliseconds:unix-time condition:oneof?@7.0.0( nx:token=NX xx:token=XX gt:token=GT lt:token=LT "
     ")"},
    {"pexpiretime", NULL, "O(1)", "RO access", NULL, "key:key"},
    {"ping", NULL, "O(1)", NULL, "request_policy:all_shards response_policy:all_succeeded", "message:string?"},
    {"psetex", NULL, "O(1)", "OW update", NULL, "key:key milliseconds:integer value:string"},
    {"pttl", NULL, "O(1)", "RO access", "nondeterministic_output", "key:key"},
    {"quit", NULL, "O(1)", NULL, NULL, NULL},
    {"randomkey", NULL, "O(1)", NULL, "request_policy:all_shards nondeterministic_output", NULL},
    {"rename", NULL, "O(1)", "RW access delete | OW update", NULL, "key:key newkey:key2"},
    {"renamenx", NULL, "O(1)", "RW access delete | OW insert", NULL, "key:key newkey:key2"},
    {"reset", NULL, "O(1)", NULL, NULL, NULL},
    {"restore", NULL, "O(1)", "OW update", NULL,
     "key:key ttl:integer serialized-value:string replace:token=REPLACE?@3.0.0 absttl:token=ABSTTL?@5.0.0 "
     "seconds:integer=IDLETIME?@5.0.0 frequency:integer=FREQ?@5.0.0"},
    {"save", NULL, "O(N)", NULL, NULL, NULL},
    {"scan", NULL, "O(1)", NULL, "nondeterministic_output request_policy:special",
     "cursor:integer pattern:pattern=MATCH? count:integer=COUNT? type:string=TYPE?@6.0.0"},
    {"select", NULL, "O(1)", NULL, NULL, "index:integer"},
    {"set", NULL, "O(1)", "RW access update variable_flags", NULL,
     "key:key value:string condition:oneof?@2.6.12( nx:token=NX xx:token=XX comparison-value:string=IFEQ@8.1.0 ) "
     "get:token=GET?@6.2.0 expiration:oneof?( seconds:integer=EX@2.6.12 milliseconds:integer=PX@2.6.12 "
     "unix-time-seconds:unix-time=EXAT@6.2.0 unix-time-milliseconds:unix-time=PXAT@6.2.0 keepttl:token=KEEPTTL@6.0.0 "
     ")"},
    {"setbit", NULL, "O(1)", "RW access update", NULL, "key:key offset:integer value:integer"},
    {"setex", NULL, "O(1)", "OW update", NULL, "key:key seconds:integer value:string"},
    {"setnx", NULL, "O(1)", "OW insert", NULL, "key:key value:string"},
    {"setrange", NULL, "O(1)", "RW update", NULL, "key:key offset:integer value:string"},
    {"shutdown", NULL, "O(N)", NULL, NULL,
     "nosave_save:oneof?( nosave:token=NOSAVE save:token=SAVE ) now:token=NOW?@7.0.0 force:token=FORCE?@7.0.0 "
     "abort:token=ABORT?@7.0.0"},
    {"slowlog", NULL, NULL, NULL, NULL, NULL},
    {"slowlog|get", "2.2.12", "O(N)", NULL, "request_policy:all_nodes nondeterministic_output", "count:integer?"},
    {"slowlog|len", "2.2.12", "O(1)", NULL, "request_policy:all_nodes response_policy:agg_sum nondeterministic_output",
     NULL},
    {"slowlog|reset", "2.2.12", "O(N)", NULL, "request_policy:all_nodes response_policy:all_succeeded", NULL},
    {"strlen", NULL, "O(1)", "RO", NULL, "key:key"},
    {"substr", NULL, "O(N)", "RO access", NULL, "key:key start:integer end:integer"},
    {"swapdb", NULL, "O(N)", NULL, NULL, "index1:integer index2:integer"},
    {"time", NULL, "O(1)", NULL, "nondeterministic_output", NULL},
    {"touch", NULL, "O(N)", "RO", "request_policy:multi_shard response_policy:agg_sum", "key:key*"},
    {"ttl", NULL, "O(1)", "RO access", "nondeterministic_output", "key:key"},
    {"type", NULL, "O(1)", "RO", NULL, "key:key"},
    {"unlink", NULL, "O(1)", "RM delete", "request_policy:multi_shard response_policy:agg_sum", "key:key*"},
    {"unwatch", NULL, "O(1)", NULL, NULL, NULL},
    {"wait", NULL, "O(1)", NULL, "request_policy:all_shards response_policy:agg_min",
     "numreplicas:integer timeout:integer"},
    {"waitaof", NULL, "O(1)", NULL, "request_policy:all_shards response_policy:agg_min",
     "numlocal:integer numreplicas:integer timeout:integer"},
    {"watch", NULL, "O(1)", "RO", NULL, "key:key*"},
};

const unsigned command_syntax_count = ARRAY_COUNT(command_syntax_table);

const struct command_syntax *command_syntax_find(const struct command *command, const struct subcommand *sub)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof(name), "%s%s%s", command->name, sub != NULL ? "|" : "", sub != NULL ? sub->name : "");
    unsigned low = 0, high = command_syntax_count;
    while (low < high) {
        const unsigned middle = low + (high - low) / 2;
        const int order = strcmp(name, command_syntax_table[middle].name);
        if (order == 0)
            return &command_syntax_table[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* ---- words ----------------------------------------------------------------------------------------------------- */

/* Takes the first word off a list. */
static struct slice next_word(const char **words)
{
    const size_t size = strcspn(*words, " ");
    const struct slice word = slice_make(*words, size);
    *words += size + ((*words)[size] == ' ');
    return word;
}

void command_syntax_add_words(struct text *text, const char *words, const char *prefix, int resp_version)
{
    size_t count = words != NULL;
    for (const char *at = words; at != NULL && *at != 0; at++)
        count += *at == ' ';
    text_set(text, count, resp_version);
    while (words != NULL && *words != 0) {
        const struct slice word = next_word(&words);
        text_printf(text, "+%s%.*s\r\n", prefix, (int)word.size, (const char *)word.data);
    }
}

/* ---- arguments ------------------------------------------------------------------------------------------------- */

struct argument {
    struct slice name, type, token, since;
    bool optional, multiple, multiple_token, nests;
};

/* Up to one of these characters. */
static struct slice take(struct slice *word, const char *ends)
{
    size_t size = 0;
    while (size < word->size && strchr(ends, word->data[size]) == NULL)
        size++;
    const struct slice part = slice_make(word->data, size);
    *word = slice_make(word->data + size, word->size - size);
    return part;
}

static bool take_mark(struct slice *word, char mark)
{
    if (word->size == 0 || word->data[0] != (uint8_t)mark)
        return false;
    *word = slice_make(word->data + 1, word->size - 1);
    return true;
}

static struct argument parse(struct slice word)
{
    struct argument argument = {.name = take(&word, ":")};
    const bool typed = take_mark(&word, ':');
    argument.type = take(&word, "=?*+@(");
    if (take_mark(&word, '='))
        argument.token = take(&word, "?*+@(");
    argument.optional = take_mark(&word, '?');
    argument.multiple = take_mark(&word, '*');
    argument.multiple_token = take_mark(&word, '+');
    if (take_mark(&word, '@'))
        argument.since = take(&word, "(");
    argument.nests = take_mark(&word, '(');
    KVS_ASSERT(typed && word.size == 0 && argument.type.size > 0);
    return argument;
}

static bool is_end(struct slice word)
{
    return slice_equal(word, slice_text(")"));
}

/* How many arguments there are up to the end of this depth. */
static size_t count_arguments(const char *arguments)
{
    size_t count = 0;
    unsigned depth = 0;
    while (*arguments != 0) {
        const struct slice word = next_word(&arguments);
        if (is_end(word)) {
            if (depth-- == 0)
                break;
            continue;
        }
        count += depth == 0;
        depth += word.data[word.size - 1] == '(';
    }
    return count;
}

static void add_flags(struct text *text, const struct argument *argument, int resp_version)
{
    text_bulk(text, "flags");
    text_set(text, (size_t)argument->optional + argument->multiple + argument->multiple_token, resp_version);
    if (argument->optional)
        text_simple(text, "optional");
    if (argument->multiple)
        text_simple(text, "multiple");
    if (argument->multiple_token)
        text_simple(text, "multiple_token");
}

/* All of it but what it nests. */
static void add_argument(struct text *text, const struct argument *argument, int resp_version)
{
    const bool flags = argument->optional || argument->multiple || argument->multiple_token;
    const bool is_behind = slice_equal(argument->type, slice_text("key2"));
    const bool is_key = is_behind || slice_equal(argument->type, slice_text("key"));
    const bool is_token = slice_equal(argument->type, slice_text("token"));
    text_map(text,
             2u + !argument->nests + is_key + (argument->token.size > 0) + (argument->since.size > 0) + flags +
                 argument->nests,
             resp_version);
    text_bulk(text, "name");
    text_bulk_bytes(text, argument->name);
    text_bulk(text, "type");
    text_bulk_bytes(text, is_token ? slice_text("pure-token") : is_key ? slice_text("key") : argument->type);
    if (!argument->nests) {
        text_bulk(text, "display_text");
        text_bulk_bytes(text, argument->name);
    }
    if (is_key) {
        text_bulk(text, "key_spec_index");
        text_integer(text, is_behind);
    }
    if (argument->token.size > 0) {
        text_bulk(text, "token");
        text_bulk_bytes(text, argument->token);
    }
    if (argument->since.size > 0) {
        text_bulk(text, "since");
        text_bulk_bytes(text, argument->since);
    }
    if (flags)
        add_flags(text, argument, resp_version);
    if (argument->nests)
        text_bulk(text, "arguments");
}

void command_syntax_add_arguments(struct text *text, const char *arguments, int resp_version)
{
    text_array(text, count_arguments(arguments));
    while (*arguments != 0) {
        const struct slice word = next_word(&arguments);
        if (is_end(word))
            continue;
        const struct argument argument = parse(word);
        add_argument(text, &argument, resp_version);
        if (argument.nests)
            text_array(text, count_arguments(arguments));
    }
}
