/*
 * tsan.h - words to ThreadSanitizer where order between threads is made by instructions that it does not see
 * (Concurrency Kit's fences are assembly). tsan_release says "what I did before is visible", tsan_acquire "now I rely
 * on it"; both name the same address. In other builds they are nothing. Any thread.
 */
#ifndef KVS_BASE_TSAN_H
#define KVS_BASE_TSAN_H

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KVS_UNDER_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define KVS_UNDER_TSAN 1
#endif

#ifdef KVS_UNDER_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define tsan_acquire(address) __tsan_acquire((void *)(address))
#define tsan_release(address) __tsan_release((void *)(address))
#else
#define tsan_acquire(address) ((void)(address))
#define tsan_release(address) ((void)(address))
#endif

#endif
