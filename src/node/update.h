/*
 * update.h - commands that look at one key and may change it, in one step: what INCR, APPEND, GETDEL, SET … NX, EXPIRE
 * or SETBIT make of the value they find. Commands that only look are the same without a change: STRLEN, BITCOUNT.
 *
 * The command's handler checks the arguments and puts what they say into a struct update_spec and an operand; both may
 * travel to the key's owner. There the update's function is told what the key holds, and says what shall become of it
 * and what the reply is. It is pure: it sees nothing but its arguments, and may be called again with another old value
 * when its change could not be made (then the first outcome has never been).
 *
 * Any thread; nothing here waits or keeps memory. Values are borrowed: the old one until the function's caller has used
 * the outcome.
 */
#ifndef KVS_NODE_UPDATE_H
#define KVS_NODE_UPDATE_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

struct update_spec;
struct update_old;
struct update_outcome;
struct update_scratch;

typedef void update_fn(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                       struct update_scratch *scratch, struct update_outcome *out);

enum update_flags {
    UPDATE_LOOKS_ONLY = 1, /* never changes anything: any shard's thread may carry it out */
    UPDATE_HEAD = 2, /* does not need the value: whether there is one, how long it is and when it expires will do */
};

/* What a command asks for. What the numbers mean is the function's own affair. */
struct update_spec {
    update_fn *run;
    uint8_t flags;  /* enum update_flags */
    uint8_t option; /* the function's */
    /* command_update sets these: */
    uint8_t resp_version;
    uint32_t value_bytes_max; /* no value may become longer */
    int64_t a, b;
    uint64_t expires_ms; /* 0 = none */
};

/* What the key holds. */
struct update_old {
    bool found;
    struct slice value;   /* empty if only the head was asked for */
    uint64_t value_bytes; /* how long the value is */
    uint64_t expires_ms;  /* 0 = never */
    uint64_t now_ms;
};

enum update_change {
    UPDATE_KEEP,   /* all stays as it is */
    UPDATE_PUT,    /* `value`, with `expires_ms` */
    UPDATE_REMOVE, /* the key goes, if it is there */
    UPDATE_EXPIRE, /* the value stays, and has `expires_ms` from now on; 0: it does not expire any more */
};

enum update_reply {
    UPDATE_OK,      /* +OK */
    UPDATE_INTEGER, /* `integer` */
    UPDATE_NULL,
    UPDATE_OLD,   /* the old value, or null */
    UPDATE_BULK,  /* `bytes`, as one string: in the old value, the new one, the operand or the scratch */
    UPDATE_RESP,  /* `bytes`, as they are: whole RESP, in the scratch */
    UPDATE_ERROR, /* `text`, which begins with a code; the change is UPDATE_KEEP */
};

/* Zeroed before the function is called: nothing changes, and the reply is +OK. */
struct update_outcome {
    enum update_change change;
    struct slice value; /* in the operand or the scratch */
    uint64_t expires_ms;
    enum update_reply reply;
    int64_t integer;
    struct slice bytes;
    const char *text; /* static, or in the scratch */
};

/* Memory for new values and replies, until the outcome has been used. NULL: there is none; the function then returns as
 * it is, and its caller answers OOM. A second call leaves what the first has given where it is. */
uint8_t *update_scratch_take(struct update_scratch *scratch, size_t bytes);

#endif
