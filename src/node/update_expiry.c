/* update_expiry.c - when a key goes. What the key holds is not looked at. */
#include "node/update_expiry.h"

#include "node/update_reply.h"

/* Times beyond INT64_MAX are none that a command can have given. */
static int64_t expiry_of(const struct update_old *old)
{
    return old->expires_ms > INT64_MAX ? INT64_MAX : (int64_t)old->expires_ms;
}

static bool counts(unsigned option, int64_t time_ms, const struct update_old *old)
{
    bool expires = old->expires_ms != 0;
    if ((option & UPDATE_EXPIRE_IF_NONE) != 0 && expires)
        return false;
    if ((option & UPDATE_EXPIRE_IF_ANY) != 0 && !expires)
        return false;
    if ((option & UPDATE_EXPIRE_IF_LATER) != 0 && (!expires || time_ms <= expiry_of(old)))
        return false;
    return (option & UPDATE_EXPIRE_IF_SOONER) == 0 || !expires || time_ms < expiry_of(old);
}

void update_expire(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                   struct update_scratch *scratch, struct update_outcome *out)
{
    (void)operand;
    (void)scratch;
    bool does = old->found && counts(spec->option, spec->a, old);
    update_reply_integer(out, does);
    if (!does)
        return;
    bool past = spec->a <= 0 || (uint64_t)spec->a <= old->now_ms;
    out->change = past ? UPDATE_REMOVE : UPDATE_EXPIRE;
    out->expires_ms = past ? 0 : (uint64_t)spec->a;
}

void update_persist(const struct update_spec *spec, struct slice operand, const struct update_old *old,
                    struct update_scratch *scratch, struct update_outcome *out)
{
    (void)spec;
    (void)operand;
    (void)scratch;
    bool does = old->found && old->expires_ms != 0;
    update_reply_integer(out, does);
    if (does)
        out->change = UPDATE_EXPIRE;
}
