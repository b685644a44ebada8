/*
 * assert.h - assertions that stay on in release builds.
 *
 * For errors of the programmer only: what a disk, a peer or a user says is checked and answered with an error. A failed
 * assertion prints itself and aborts: a node that has lost its mind must not acknowledge one more write.
 */
#ifndef KVS_BASE_ASSERT_H
#define KVS_BASE_ASSERT_H

_Noreturn void kvs_assert_failed(const char *expression, const char *file, int line, const char *function);

#define KVS_ASSERT(expression) \
    (__builtin_expect(!(expression), 0) ? kvs_assert_failed(#expression, __FILE__, __LINE__, __func__) : (void)0)

#endif
