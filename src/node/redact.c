/*
 * redact.c - which arguments are passwords, or may be.
 *
 * AUTH: all. HELLO: the two behind AUTH. ACL SETUSER: all behind the subcommand, for rules have passwords in them.
 * CONFIG SET: the value of requirepass.
 */
#include "node/redact.h"

static bool hides_hello(const struct slice *args, unsigned count, unsigned at)
{
    for (unsigned i = 2; i < count && i < at; i++) {
        if (command_word_is(args[i], "auth"))
            return at <= i + 2;
        if (command_word_is(args[i], "setname"))
            i++;
    }
    return false;
}

bool redact_hides(const struct command *command, const struct subcommand *sub, const struct slice *args, unsigned count,
                  unsigned at)
{
    if (at == 0)
        return false;
    if (strcmp(command->name, "auth") == 0)
        return true;
    if (strcmp(command->name, "hello") == 0)
        return hides_hello(args, count, at);
    if (sub == NULL || at < 2)
        return false;
    if (strcmp(command->name, "acl") == 0)
        return strcmp(sub->name, "setuser") == 0;
    return strcmp(command->name, "config") == 0 && strcmp(sub->name, "set") == 0 && at % 2 == 1 &&
           command_word_is(args[at - 1], "requirepass");
}
