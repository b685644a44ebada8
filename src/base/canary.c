/*
 * canary.c - reads from KVS_CANARY which deliberate bug is awake. Compiled to nothing but in a build with KVS_CANARIES.
 *
 * Failure: a name that is not in the list ends the process, for a canary that is asleep by a slip of the pen would
 * count as one that nothing has caught.
 */
#include "base/canary.h"

#ifdef KVS_CANARIES

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum canary canary_chosen = CANARY_NONE;

static const char *const names[] = {[CANARY_NONE] = "",
#define CANARY_NAME(name, promise, text) [CANARY_##name] = #name,
                                    CANARY_LIST(CANARY_NAME)
#undef CANARY_NAME
};

static __attribute__((constructor)) void canary_choose(void)
{
    const char *wanted = getenv("KVS_CANARY");
    if (wanted == NULL)
        return;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], wanted) == 0) {
            canary_chosen = (enum canary)i;
            return;
        }
    }
    fprintf(stderr, "kvs: KVS_CANARY=%s: there is no canary of that name; src/base/canary.h lists them\n", wanted);
    abort();
}

#endif
