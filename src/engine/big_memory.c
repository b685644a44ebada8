/* big_memory.c - mmap with alignment: map too much, cut off both ends. */
#include "engine/big_memory.h"

#include "base/bytes.h"

#include <sys/mman.h>

enum { HUGE_PAGE_BYTES = 2 * 1024 * 1024 };

void *big_memory_alloc(size_t bytes)
{
    size_t mapped_bytes = bytes + HUGE_PAGE_BYTES;
    uint8_t *mapped =
        mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return NULL;
    uint8_t *memory = (uint8_t *)align_up((uintptr_t)mapped, HUGE_PAGE_BYTES);
    size_t before = (size_t)(memory - mapped);
    if (before > 0)
        munmap(mapped, before);
    size_t after = mapped_bytes - before - bytes;
    if (after > 0)
        munmap(memory + bytes, after);
    /* Only advice: without huge pages all works the same, a little slower. */
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

void big_memory_populate(void *memory, size_t bytes)
{
    (void)madvise(memory, bytes, MADV_POPULATE_WRITE);
}

bool big_memory_replace(void *memory, void *by, size_t bytes)
{
    return mremap(by, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, memory) == memory;
}

void big_memory_free(void *memory, size_t bytes)
{
    if (memory != NULL)
        munmap(memory, bytes);
}
