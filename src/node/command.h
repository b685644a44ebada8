/*
 * command.h - the commands of the node: one table that drives dispatch and describes them to clients.
 *
 * Handlers run on the thread of the connection's shard, inside an engine section, and answer the connection's current
 * request exactly once: through call_…, gather_…, or dispatch_request_one.
 *
 * Until the shard serves, only commands with COMMAND_LOADING are carried out, and there may be no engine; all others
 * are answered with LOADING.
 */
#ifndef KVS_NODE_COMMAND_H
#define KVS_NODE_COMMAND_H

#include "node/shard.h"
#include "node/text.h"
#include "node/update.h"
#include "node/update_reply.h"

/* The request that is being handled. Arguments are borrowed until the handler returns. */
struct call {
    struct shard *shard;
    struct net_conn *conn;
    struct client *client;
    const struct command *command;
    const struct slice *args; /* args[0] is the command's name */
    unsigned count;
};

typedef void command_fn(struct call *call);

/* What clients that ask for a version of Redis are told: the one whose commands and texts are followed. */
#define COMMAND_REDIS_VERSION "7.2.0"

enum command_flags {
    COMMAND_WRITE = 1,
    COMMAND_READONLY = 2,
    COMMAND_DENYOOM = 4,
    COMMAND_ADMIN = 8,
    COMMAND_NOSCRIPT = 16,
    COMMAND_LOADING = 32, /* carried out while the store is being opened, too. Its handler can do without an engine */
    COMMAND_STALE = 64,
    COMMAND_FAST = 128,
    COMMAND_NO_AUTH = 256,
    COMMAND_ALLOW_BUSY = 512,
    COMMAND_NO_ASYNC_LOADING = 1024,
    COMMAND_NO_MULTI = 2048,
    COMMAND_BLOCKING = 4096,
    COMMAND_SKIP_SLOWLOG = 8192,
    /* The node's own. */
    COMMAND_NOT_QUEUED = 16384, /* does not answer at once, or changes who asks, so not in a MULTI */
    COMMAND_SCANS = 32768,      /* looks at keys that it does not name */
    COMMAND_OWN = COMMAND_NOT_QUEUED | COMMAND_SCANS,
};

struct subcommand {
    const char *name;  /* lower case */
    int arity;         /* with command and subcommand; negative: at least that many */
    unsigned flags;    /* enum command_flags: those the node looks at */
    const char *usage; /* for HELP: the arguments */
    const char *help;  /* for HELP: what it does; lines are separated by newlines */
    command_fn *run;
};

struct command {
    const char *name; /* lower case */
    int arity;        /* with the command; negative: at least that many */
    unsigned flags;   /* enum command_flags */
    int first_key, last_key, key_step;
    const char *group;      /* of COMMAND DOCS */
    const char *categories; /* "@read @fast" */
    const char *summary;
    const char *since; /* the version of Redis, or of kvs-node for its own */
    command_fn *run;
    const struct subcommand *subcommands; /* NULL, or ended by an entry without a name */
};

/* All commands, sorted by name. */
extern const struct command command_table[];
extern const unsigned command_table_count;

/* The command of this name, in any case; NULL when there is none. */
const struct command *command_find(struct slice name);
bool command_arity_fits(int arity, unsigned count);
/* True when `text`, in any case, is `word` (which is lower case). */
bool command_word_is(struct slice text, const char *word);

/* Length of an argument as C text of at most `max` bytes: Redis prints some with %s. */
int command_printable(struct slice arg, size_t max);

/* Carries out a command, or with it one of its subcommands, that was checked. */
void command_carry_out(struct call *call, const struct subcommand *sub);

/* For struct net_handler; `context` is the shard. */
void command_resp(void *context, struct net_conn *conn, const struct slice *args, unsigned count);
void command_frame(void *context, struct net_conn *conn, const struct frame *frame);
/* Which commands the opcodes of frames stand for: what rights they need. NULL: none. */
void command_of_frames(const struct command *commands[FRAME_COMMANDS]);

/* ---- replies --------------------------------------------------------------------------------------------------- */

void call_simple(struct call *call, const char *text);
void call_error(struct call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));
void call_integer(struct call *call, int64_t value);
void call_bulk(struct call *call, struct slice bytes);
void call_null(struct call *call);
/* Replies with a finished RESP value and frees the text. */
void call_text(struct call *call, struct text *text);

/* RESP values appended to a text. */
void text_simple(struct text *text, const char *value);
void text_bulk(struct text *text, const char *value);
void text_bulk_bytes(struct text *text, struct slice value);
void text_double(struct text *text, double value, int resp_version);
/* A text for people: RESP3 says so. */
void text_verbatim(struct text *text, struct slice value, int resp_version);
void text_set(struct text *text, size_t count, int resp_version);
void text_integer(struct text *text, int64_t value);
void text_array(struct text *text, size_t count);
void text_map(struct text *text, size_t pairs, int resp_version);
void text_null(struct text *text, int resp_version);

/* What clients are told until the store is open. */
#define COMMAND_LOADING_BYTES_MAX 128u
void command_loading_text(char text[COMMAND_LOADING_BYTES_MAX], const struct shard *shard);

/* ---- backups (command_backup.c) -------------------------------------------------------------------------------- */

/* Begins one of this name, or with an empty one of the time; `called` is its name then. Else what engine_backup_begin
 * says. */
enum kvs_err command_backup_begin(struct shard *shard, struct slice name, char called[ENGINE_BACKUP_NAME_BYTES]);
/* Why it could not begin. */
const char *command_backup_error(enum kvs_err error);
/* Seconds since 1970 of the latest good one, or of the node's start. */
uint64_t command_last_save_s(const struct node *node, const struct ring *ring, const struct engine_backup_state *state);

/* ---- between handlers ------------------------------------------------------------------------------------------ */

/* True when the keys may be stored; else the request has its answer. */
bool command_keys_fit(struct call *call, const struct slice *keys, unsigned count);
/* True when this may be a value; else the request has its answer. */
bool command_value_fits(struct call *call, struct slice value);
/* SET args[1] to `value`, with an expiry or (0) without. */
void command_put(struct call *call, struct slice value, uint64_t expires_ms);
/* A time as a command gives it, on the engine's clock; `relative`: from now on. False: the request has its answer. */
bool command_expiry(struct call *call, struct slice number, bool seconds, bool relative, uint64_t *expires_ms);
/* The same without an answer: what is wrong with it. */
enum update_refusal command_expiry_parse(const struct call *call, struct slice number, bool seconds, bool relative,
                                         uint64_t *expires_ms);

/* Carries out an update of `key`: args and operand are borrowed. How long the operand is, is for the function to judge.
 */
void command_update(struct call *call, struct slice key, const struct update_spec *spec, struct slice operand);
/* A number of 64 bits as Redis reads it; false: it is none, and nobody has answered. */
bool command_integer(struct slice text, int64_t *out);
/* The same; false: the request has its answer. */
bool command_need_integer(struct call *call, struct slice text, int64_t *out);
/* The number of the one database that there is; false: it is another one, and the request has its answer. */
bool command_database(struct call *call, struct slice text);

/* ---- handlers -------------------------------------------------------------------------------------------------- */

command_fn command_get, command_del, command_exists, command_mget; /* command_keys.c */
command_fn command_set, command_setnx, command_getset, command_getdel, command_getex,
    command_delifeq; /* command_set.c */
command_fn command_append, command_strlen, command_getrange, command_setrange, command_incr, command_decr,
    command_incrby, command_decrby, command_incrbyfloat; /* command_strings.c */
command_fn command_setbit, command_getbit, command_bitcount, command_bitpos, command_bitfield,
    command_bitfield_ro; /* command_bits.c */
command_fn command_setex, command_psetex, command_ttl, command_pttl, command_expiretime, command_pexpiretime,
    command_expire, command_pexpire, command_expireat, command_pexpireat, command_persist; /* command_expiry.c */
command_fn command_type;                                                                   /* command_object.c */
command_fn command_dump, command_restore;                                                  /* command_dump.c */
command_fn command_mset, command_msetnx, command_rename, command_renamenx, command_copy,
    command_bitop;                                                                       /* command_several.c */
command_fn command_scan, command_keys, command_randomkey;                                /* command_scan.c */
command_fn command_echo, command_ping, command_quit, command_select, command_durability; /* command_connection.c */
command_fn command_auth, command_hello, command_reset;                                   /* command_auth.c */
command_fn command_info, command_dbsize, command_time, command_flushall;                 /* command_server.c */
command_fn command_bgsave, command_lastsave, command_save;                               /* command_backup.c */
command_fn command_lcs;                                                                  /* command_lcs.c */
command_fn command_monitor;                                                              /* monitor.c */
command_fn command_wait, command_waitaof;                                                /* command_wait.c */
command_fn command_shutdown;                                                             /* command_shutdown.c */
command_fn command_debug;                                                                /* command_debug.c */
command_fn command_swapdb, command_move;                                                 /* command_connection.c */
command_fn command_stats;                                                                /* command_stats.c */
command_fn command_multi, command_exec, command_discard, command_watch, command_unwatch; /* multi.c */
command_fn command_command;                                                              /* command_docs.c */
extern const struct subcommand command_acl_subcommands[];                                /* command_acl.c */
extern const struct subcommand command_object_subcommands[];                             /* command_object.c */
extern const struct subcommand command_memory_subcommands[];                             /* command_object.c */
extern const struct subcommand command_client_subcommands[];                             /* command_client.c */
extern const struct subcommand command_config_subcommands[];                             /* command_config.c */
extern const struct subcommand command_slowlog_subcommands[];                            /* command_slowlog.c */
extern const struct subcommand command_latency_subcommands[];                            /* command_latency.c */
extern const struct subcommand command_command_subcommands[];                            /* command_docs.c */

#endif
