/*
 * ring_uring_files.c - the blocking calls on files and directories, for start-up and tools.
 *
 * Happy path: each is one or a few plain system calls.
 * Failure modes: errno, translated. A directory that has to be made is made durable by syncing its parent before
 * anything is put into it; so is one that is there already, because a process that died may have made it and not got
 * that far. The kernel ends a dead process's rings, and with them its open files and locks, some time after the process
 * itself: under load that has taken seconds. So a lock that is taken is tried again, for a second if its holder, whose
 * number is in the lock file, is alive, and for ten if it is not.
 */
#include "ring/ring_uring_internal.h"

#include "base/assert.h"
#include "base/diag.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define LOCK_PAUSE_NS         20000000
#define LOCK_ATTEMPTS         50  /* while the holder lives, */
#define LOCK_ATTEMPTS_DEAD    500 /* and when it is dead */
#define MAP_ALIGN             4096
#define DIRECT_ALIGN_FALLBACK 4096 /* where the kernel does not tell: no block device of today needs more */

/* ---- directories ----------------------------------------------------------------------------------------------- */

/* Syncs a directory known by a path-only descriptor. */
static int sync_dir(int path_fd)
{
    int fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) == 0 ? 0 : -errno;
    (void)close(fd);
    return rc;
}

/* Goes from `parent` into `name`, making it if it is not there. A path-only descriptor, or a negative errno. */
static int enter_dir(int parent, const char *name, bool last)
{
    bool made = false;
    int fd = openat(parent, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        if (mkdirat(parent, name, 0750) != 0 && errno != EEXIST)
            return -errno;
        made = true;
        fd = openat(parent, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0)
        return -errno;
    int rc = made || last ? sync_dir(parent) : 0;
    /* The parent of a directory that somebody else made for us need not be ours to read. */
    if (rc < 0 && !(rc == -EACCES && !made)) {
        (void)close(fd);
        return rc;
    }
    return fd;
}

/* Walks `path` (which it cuts into its parts) to a path-only descriptor, or a negative errno. */
static int walk(char *path)
{
    int fd = open(path[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    char *rest = NULL;
    char *name = strtok_r(path, "/", &rest);
    while (name != NULL) {
        char *after = strtok_r(NULL, "/", &rest);
        int next = enter_dir(fd, name, after == NULL);
        (void)close(fd);
        if (next < 0)
            return next;
        fd = next;
        name = after;
    }
    return fd;
}

enum kvs_err ring_dir_open(struct ring *ring, const char *path, int *dir_fd)
{
    KVS_ASSERT(ring != NULL && path != NULL && dir_fd != NULL);
    char copy[PATH_MAX];
    *dir_fd = -1;
    size_t length = strlen(path);
    if (length == 0)
        return KVS_ERR_INVALID;
    if (length >= sizeof(copy))
        return KVS_ERR_TOO_LARGE;
    memcpy(copy, path, length + 1);
    int path_fd = walk(copy);
    if (path_fd < 0)
        return ring_error_from_errno(-path_fd);
    int fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum kvs_err err = fd < 0 ? ring_error_from_errno(errno) : KVS_ERR_OK;
    (void)close(path_fd);
    *dir_fd = fd;
    return err;
}

enum kvs_err ring_dir_list(struct ring *ring, int dir_fd, void (*each)(void *context, const char *name), void *context)
{
    KVS_ASSERT(ring != NULL && each != NULL);
    /* A descriptor of its own: the position of the caller's stays where it is. */
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return ring_error_from_errno(errno);
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        enum kvs_err err = ring_error_from_errno(errno);
        (void)close(fd);
        return err;
    }
    const struct dirent *entry;
    errno = 0;
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            each(context, entry->d_name);
        errno = 0;
    }
    enum kvs_err err = ring_error_from_errno(errno);
    (void)closedir(dir);
    return err;
}

/* Leaves a note for others: whom they wait for. Without it they wait longer than they need to. */
static void sign_lock(int fd)
{
    char text[16];
    int length = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length)
        (void)ftruncate(fd, 0);
}

/* The process that has signed the lock file; 0 when none has, or it is gone. Where that cannot be told it is there. */
static pid_t living_holder(int fd)
{
    char text[16] = "";
    ssize_t length = pread(fd, text, sizeof(text) - 1, 0);
    long number = length > 0 ? strtol(text, NULL, 10) : 0;
    if (number <= 0 || number > INT_MAX)
        return 0;
    int process = pidfd_open((pid_t)number, 0);
    if (process < 0)
        return errno == ESRCH ? 0 : (pid_t)number;
    /* One that has ended but was not waited for yet is gone as well. */
    struct pollfd ended = {.fd = process, .events = POLLIN};
    bool gone = poll(&ended, 1, 0) == 1;
    (void)close(process);
    return gone ? 0 : (pid_t)number;
}

/* Tries for as long as it may help; 0, or -1 and errno. */
static int wait_for_lock(int fd, const char *name)
{
    int rc = flock(fd, LOCK_EX | LOCK_NB);
    for (unsigned attempt = 1; rc != 0 && attempt < LOCK_ATTEMPTS_DEAD; attempt++) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            break;
        if (attempt >= LOCK_ATTEMPTS && living_holder(fd) != 0) {
            errno = EWOULDBLOCK;
            break;
        }
        if (attempt == LOCK_ATTEMPTS)
            diag_warn("the file '%s' in the data directory is still locked, by a process that has ended and whose I/O "
                      "the kernel has not; waiting for it",
                      name);
        (void)nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_NS}, NULL);
        rc = flock(fd, LOCK_EX | LOCK_NB);
    }
    return rc;
}

enum kvs_err ring_dir_lock(struct ring *ring, int dir_fd, const char *name, int *lock_fd)
{
    KVS_ASSERT(ring != NULL && name != NULL && lock_fd != NULL);
    *lock_fd = -1;
    uring_submit(ring); /* the lock may be ours still, with its close queued */
    int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return ring_error_from_errno(errno);
    if (wait_for_lock(fd, name) != 0) {
        enum kvs_err err = errno == EWOULDBLOCK ? KVS_ERR_LOCKED : ring_error_from_errno(errno);
        (void)close(fd);
        return err;
    }
    sign_lock(fd);
    *lock_fd = fd;
    return KVS_ERR_OK;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* File systems that do not report alignment are asked by opening the file once more with O_DIRECT. */
static bool direct_opens(int fd)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (again >= 0)
        (void)close(again);
    return again >= 0;
}

enum kvs_err ring_file_info(struct ring *ring, int fd, struct ring_file_info *info)
{
    KVS_ASSERT(ring != NULL && info != NULL);
    struct statx status;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_SIZE | STATX_NLINK | STATX_DIOALIGN, &status) != 0)
        return ring_error_from_errno(errno);
    *info = (struct ring_file_info){.size = status.stx_size, .links = status.stx_nlink};
    if (status.stx_mask & STATX_DIOALIGN) {
        info->direct_memory_align = status.stx_dio_mem_align;
        info->direct_offset_align = status.stx_dio_offset_align;
    } else if (direct_opens(fd)) {
        info->direct_memory_align = DIRECT_ALIGN_FALLBACK;
        info->direct_offset_align = DIRECT_ALIGN_FALLBACK;
    }
    return KVS_ERR_OK;
}

bool ring_file_same(struct ring *ring, int fd, int other_fd)
{
    KVS_ASSERT(ring != NULL && fd >= 0 && other_fd >= 0);
    struct stat status, other;
    return fstat(fd, &status) == 0 && fstat(other_fd, &other) == 0 && status.st_dev == other.st_dev &&
           status.st_ino == other.st_ino;
}

enum kvs_err ring_file_map(struct ring *ring, int fd, void *memory, size_t bytes, uint64_t offset)
{
    KVS_ASSERT(ring != NULL && fd >= 0);
    KVS_ASSERT((uintptr_t)memory % MAP_ALIGN == 0 && offset % MAP_ALIGN == 0);
    void *mapped = mmap(memory, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, (off_t)offset);
    if (mapped == MAP_FAILED)
        return ring_error_from_errno(errno);
    return madvise(memory, bytes, MADV_POPULATE_READ) == 0 ? KVS_ERR_OK : ring_error_from_errno(errno);
}

enum kvs_err ring_file_uncache(struct ring *ring, int fd)
{
    KVS_ASSERT(ring != NULL && fd >= 0);
    int sys_errno = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return sys_errno == 0 ? KVS_ERR_OK : ring_error_from_errno(sys_errno);
}

enum kvs_err ring_file_space(struct ring *ring, int fd, uint64_t *free_bytes)
{
    KVS_ASSERT(ring != NULL && free_bytes != NULL);
    struct statvfs status;
    if (fstatvfs(fd, &status) != 0)
        return ring_error_from_errno(errno);
    *free_bytes = (uint64_t)status.f_bavail * status.f_frsize;
    return KVS_ERR_OK;
}
