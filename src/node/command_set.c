/*
 * command_set.c - commands that set a whole value, on conditions, or tell the old one: SET, SETNX, GETSET, GETDEL,
 * GETEX, DELIFEQ.
 *
 * SET without a condition, and without GET and KEEPTTL, needs to know nothing of what is there: it is a put. All else
 * is an update. Options are refused in Redis's words and order: all words are looked at before a number is.
 */
#include "base/assert.h"
#include "node/command.h"
#include "node/update_strings.h"

/* What SET and GETEX may say about the expiry. */
struct expiry_option {
    const char *name;
    bool seconds, relative;
};

struct set_options {
    const struct expiry_option *expiry; /* NULL: none of these */
    struct slice time;                  /* with it */
    bool persist;                       /* GETEX */
    uint8_t set;                        /* enum update_set_option */
    struct slice expected;              /* with UPDATE_SET_IF_EQUAL */
};

static const struct expiry_option *expiry_option_find(struct slice name)
{
    static const struct expiry_option options[] = {
        {"ex", true, true}, {"px", false, true}, {"exat", true, false}, {"pxat", false, false}};
    for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
        if (command_word_is(name, options[i].name))
            return &options[i];
    }
    return NULL;
}

/* One of a word and its argument, EX 10: as in Redis, of one that is said twice the last counts, and two different ones
 * do not go together. */
static bool take_expiry(struct set_options *options, const struct expiry_option *option, struct slice time)
{
    bool fits = !options->persist && (options->set & UPDATE_SET_KEEP_EXPIRY) == 0 &&
                (options->expiry == NULL || options->expiry == option);
    options->expiry = option;
    options->time = time;
    return fits;
}

/* A word of SET's that stands for itself. False: there is none of this name, or it does not go with the others. */
static bool take_set_word(struct set_options *options, struct slice word)
{
    static const struct {
        const char *name;
        uint8_t option, excludes;
    } words[] = {
        {"nx", UPDATE_SET_IF_MISSING, UPDATE_SET_IF_FOUND | UPDATE_SET_IF_EQUAL},
        {"xx", UPDATE_SET_IF_FOUND, UPDATE_SET_IF_MISSING | UPDATE_SET_IF_EQUAL},
        {"get", UPDATE_SET_REPLY_OLD, 0},
        {"keepttl", UPDATE_SET_KEEP_EXPIRY, 0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        if (!command_word_is(word, words[i].name))
            continue;
        if ((options->set & words[i].excludes) != 0)
            return false;
        options->set |= words[i].option;
        return words[i].option != UPDATE_SET_KEEP_EXPIRY || options->expiry == NULL;
    }
    return false;
}

static bool take_expected(struct set_options *options, struct slice expected)
{
    if ((options->set & (UPDATE_SET_IF_MISSING | UPDATE_SET_IF_FOUND | UPDATE_SET_IF_EQUAL)) != 0)
        return false;
    options->set |= UPDATE_SET_IF_EQUAL;
    options->expected = expected;
    return true;
}

/* Reads the options from args[from] on; false: the request has its answer. */
static bool parse_options(struct call *call, unsigned from, bool of_set, struct set_options *options)
{
    bool fits = true;
    *options = (struct set_options){0};
    for (unsigned i = from; fits && i < call->count; i++) {
        const struct expiry_option *expiry = i + 1 < call->count ? expiry_option_find(call->args[i]) : NULL;
        if (expiry != NULL) {
            fits = take_expiry(options, expiry, call->args[++i]);
        } else if (!of_set) {
            fits = command_word_is(call->args[i], "persist") && options->expiry == NULL;
            options->persist = true;
        } else if (i + 1 < call->count && command_word_is(call->args[i], "ifeq")) {
            fits = take_expected(options, call->args[++i]);
        } else {
            fits = take_set_word(options, call->args[i]);
        }
    }
    if (!fits)
        call_error(call, UPDATE_TEXT_SYNTAX);
    return fits;
}

/* The arguments of a request lie in one piece of memory, in order. So a value and what it is compared with, behind it,
 * are one operand without being copied. */
static struct slice from_to(struct slice first, struct slice last)
{
    KVS_ASSERT(last.data >= first.data + first.size);
    return slice_make(first.data, (size_t)(last.data - first.data) + last.size);
}

static void update_value(struct call *call, struct update_spec *spec, const struct set_options *options)
{
    struct slice value = call->args[2], operand = value;
    if (!command_value_fits(call, value))
        return;
    spec->run = update_set;
    spec->option = options->set;
    spec->a = (int64_t)value.size;
    if ((options->set & UPDATE_SET_IF_EQUAL) != 0) {
        operand = from_to(value, options->expected);
        spec->b = (int64_t)(operand.size - options->expected.size);
    } else if ((options->set & UPDATE_SET_REPLY_OLD) == 0) {
        spec->flags = UPDATE_HEAD;
    }
    command_update(call, call->args[1], spec, operand);
}

void command_set(struct call *call)
{
    struct set_options options;
    struct update_spec spec = {0};
    if (call->count == 3) {
        command_put(call, call->args[2], 0);
        return;
    }
    if (!parse_options(call, 3, true, &options))
        return;
    if (options.expiry != NULL &&
        !command_expiry(call, options.time, options.expiry->seconds, options.expiry->relative, &spec.expires_ms))
        return;
    if (options.set == 0)
        command_put(call, call->args[2], spec.expires_ms);
    else
        update_value(call, &spec, &options);
}

void command_setnx(struct call *call)
{
    struct update_spec spec = {0};
    struct set_options options = {.set = UPDATE_SET_IF_MISSING | UPDATE_SET_REPLY_INTEGER};
    update_value(call, &spec, &options);
}

void command_getset(struct call *call)
{
    struct update_spec spec = {0};
    struct set_options options = {.set = UPDATE_SET_REPLY_OLD};
    update_value(call, &spec, &options);
}

void command_getdel(struct call *call)
{
    struct update_spec spec = {.run = update_getdel};
    command_update(call, call->args[1], &spec, slice_make(NULL, 0));
}

void command_getex(struct call *call)
{
    struct set_options options;
    struct update_spec spec = {.run = update_getex};
    if (!parse_options(call, 2, false, &options))
        return;
    if (options.expiry != NULL) {
        spec.a = UPDATE_GETEX_EXPIRE;
        spec.option = (uint8_t)command_expiry_parse(call, options.time, options.expiry->seconds,
                                                    options.expiry->relative, &spec.expires_ms);
    } else if (options.persist) {
        spec.a = UPDATE_GETEX_PERSIST;
    } else {
        spec.flags = UPDATE_LOOKS_ONLY;
    }
    command_update(call, call->args[1], &spec, slice_make(NULL, 0));
}

void command_delifeq(struct call *call)
{
    struct update_spec spec = {.run = update_remove_if_equal};
    command_update(call, call->args[1], &spec, call->args[2]);
}
