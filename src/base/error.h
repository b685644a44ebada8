/*
 * error.h - the one list of error codes, with a text for each.
 *
 * Every function of the project that can fail returns an enum kvs_err. Codes of the operating system (errno) are
 * turned into these inside src/ring and go no further. A code says what went wrong; the place and the remedy are for
 * whoever prints it. All functions here are pure and may be called from any thread.
 */
#ifndef KVS_BASE_ERROR_H
#define KVS_BASE_ERROR_H

#define KVS_ERRORS(X)                                               \
    X(OK, "success")                                                \
    X(AGAIN, "cannot proceed yet")                                  \
    X(ACCESS, "permission denied")                                  \
    X(ADDRESS_IN_USE, "address already in use")                     \
    X(ADDRESS_UNAVAILABLE, "address not available on this machine") \
    X(CANCELLED, "operation cancelled")                             \
    X(CHANGED, "what it was based on has changed")                  \
    X(CLOSED, "connection closed by peer")                          \
    X(CONNECTION, "connection failed")                              \
    X(REFUSED, "connection refused")                                \
    X(CORRUPT, "stored data is damaged")                            \
    X(EXISTS, "already exists")                                     \
    X(FAILED, "storage has failed and no longer accepts writes")    \
    X(INVALID, "invalid argument")                                  \
    X(IO, "input/output error")                                     \
    X(LOCKED, "in use by another process")                          \
    X(MISMATCH, "belongs to something else")                        \
    X(NO_BUFFERS, "no receive buffer free")                         \
    X(NO_DESCRIPTORS, "too many open files")                        \
    X(NO_MEMORY, "out of memory")                                   \
    X(NO_SPACE, "no space left on device")                          \
    X(NOT_A_DIRECTORY, "not a directory")                           \
    X(NOT_FOUND, "not found")                                       \
    X(PROTOCOL, "protocol error")                                   \
    X(READ_ONLY, "read-only file system")                           \
    X(REMOTE, "the server answered with an error")                  \
    X(SYSTEM, "system error")                                       \
    X(TIMEOUT, "timed out")                                         \
    X(TOO_LARGE, "too large")                                       \
    X(UNSUPPORTED, "not supported here")                            \
    X(VERSION, "unknown version")

enum kvs_err {
#define KVS_ERR_ENUM(name, text) KVS_ERR_##name,
    KVS_ERRORS(KVS_ERR_ENUM)
#undef KVS_ERR_ENUM
        KVS_ERR_COUNT
};

/* The text of a code: a static string, lower case, without a full stop. An unknown code has a text too. */
const char *kvs_err_text(enum kvs_err err);

#endif
