/*
 * parameters.h - the options of a node under the names that CONFIG knows them by: Redis's, where it has the like, and
 * the node's own, which are those of the command line.
 *
 * Any shard's thread. Values are judged here and not set: CONFIG SET sets all of its pairs or none.
 */
#ifndef KVS_NODE_PARAMETERS_H
#define KVS_NODE_PARAMETERS_H

#include "node/settings.h"
#include "node/text.h"

struct parameter {
    const char *name;
    void (*show)(const struct node *node, struct text *out);
    /* NULL: it cannot change while the node runs. Else what is wrong with this value, into `wrong`, and false; or the
     * value of `setting`. */
    bool (*judge)(const struct parameter *parameter, struct slice text, int64_t *value, struct text *wrong);
    enum setting setting;
    int64_t min, max; /* numbers */
    bool password;    /* it is not a setting, but the password of the user default */
};

/* All of them, ended by one without a name. */
extern const struct parameter parameter_table[];
/* The one of this name, in any case; NULL: there is none. */
const struct parameter *parameter_find(struct slice name);

#endif
