/*
 * command_syntax.h - what clients are told of a command beyond command_table: its arguments, what it does with its
 * keys, how its time grows.
 *
 * Apart from the table, because nothing in the node depends on it. Pure; any thread.
 */
#ifndef KVS_NODE_COMMAND_SYNTAX_H
#define KVS_NODE_COMMAND_SYNTAX_H

#include "node/command.h"

/*
 * Arguments are words, separated by single blanks:
 *
 *   name:type[=TOKEN][?][*][+][@since][(]
 *
 * type: string, integer, double, key, key2 (a key behind the first, where the flags of these differ), pattern,
 * unix-time, token (TOKEN alone), oneof, block. TOKEN: what comes before it. ?: may be left out. *: may be repeated;
 * +: with its token. (: a oneof or a block, of what follows up to the word ")".
 */
struct command_syntax {
    const char *name;       /* in full: "get", "config|set" */
    const char *since;      /* of a subcommand; NULL: command_table has it */
    const char *complexity; /* NULL: depends on the subcommand */
    const char *keys;       /* flags of its keys, in Redis's words and order; " | ": of the first, then of the others.
                               NULL: there are none */
    const char *tips;       /* for clients of clusters; NULL: none */
    const char *arguments;  /* NULL: none */
};

/* Sorted by name. */
extern const struct command_syntax command_syntax_table[];
extern const unsigned command_syntax_count;

/* NULL: nothing is known of it. */
const struct command_syntax *command_syntax_find(const struct command *command, const struct subcommand *sub);

/* The words of a list like "RO access", as a RESP set; NULL is an empty one. */
void command_syntax_add_words(struct text *text, const char *words, const char *prefix, int resp_version);
/* Arguments as COMMAND DOCS has them. */
void command_syntax_add_arguments(struct text *text, const char *arguments, int resp_version);

#endif
