/*
 * exec_needs.c - which commands need not know what their keys hold, so that an EXEC does not read it.
 *
 * What a plain SET or MSET overwrites does not matter: such a key is held blindly, and the disk is not read. Of a key
 * that is only deleted or asked after it matters whether it is there: a large value is not read then. Who is not listed
 * here needs the value.
 *
 * A command that is refused in EXEC changes nothing, and one that may come to remove its key (SET with a time that has
 * passed) does not count as plain: so a key that is held blindly is put, or left alone.
 */
#include "node/exec.h"

static bool is_one_of(command_fn *run, command_fn *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i] == run)
            return true;
    }
    return false;
}

/* SET key value … */
static enum transaction_need need_of_set(const struct slice *args, unsigned count)
{
    if (count == 3 || (count == 5 && (command_word_is(args[3], "ex") || command_word_is(args[3], "px"))))
        return TRANSACTION_BLIND;
    for (unsigned i = 3; i < count; i++) {
        if (command_word_is(args[i], "get") || command_word_is(args[i], "ifeq"))
            return TRANSACTION_VALUE;
    }
    return TRANSACTION_PRESENCE;
}

enum transaction_need exec_need(const struct command *command, const struct slice *args, unsigned count, unsigned arg)
{
    static command_fn *const blind[] = {command_mset, command_setex, command_psetex};
    static command_fn *const presence[] = {command_del,        command_exists,      command_ttl,    command_pttl,
                                           command_expiretime, command_pexpiretime, command_type,   command_setnx,
                                           command_msetnx,     command_strlen,      command_restore};
    static command_fn *const relabel[] = {command_rename, command_renamenx, command_copy};
    if (command->run == command_set)
        return need_of_set(args, count);
    if (is_one_of(command->run, blind, ARRAY_COUNT(blind)))
        return TRANSACTION_BLIND;
    if (is_one_of(command->run, presence, ARRAY_COUNT(presence)))
        return TRANSACTION_PRESENCE;
    if (is_one_of(command->run, relabel, ARRAY_COUNT(relabel)) && arg == 2)
        return TRANSACTION_PRESENCE;
    return TRANSACTION_VALUE;
}
