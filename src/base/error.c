/* error.c - texts of the error codes. */
#include "base/error.h"

static const char *const texts[KVS_ERR_COUNT] = {
#define KVS_ERR_TEXT(name, text) [KVS_ERR_##name] = (text),
    KVS_ERRORS(KVS_ERR_TEXT)
#undef KVS_ERR_TEXT
};

const char *kvs_err_text(enum kvs_err err)
{
    if ((unsigned)err >= KVS_ERR_COUNT)
        return "unknown error";
    return texts[err];
}
