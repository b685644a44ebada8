/*
 * flushlog.c - a FUSE file system with one file, "disk", that keeps a log of everything its user asks of it.
 *
 *   node ── ext4 ── loop device ── disk ──► flushlog ──► BACKING   (the bytes as they are now)
 *                                                        └────► LOG       (every write with its bytes, every flush)
 *
 * Usage: flushlog BACKING LOG MOUNTPOINT. Runs in the foreground, on one thread, until it is unmounted or killed.
 * "disk" has the size of BACKING, which must exist; nothing can be created, resized or removed.
 *
 * The log is a sequence of entries, each a header of 24 bytes (struct entry, the machine's byte order) and, for a
 * write, its bytes. An entry is in LOG before the request is answered, so whoever has seen an effect of a request finds
 * it below the size that LOG has then. One thread gives all requests one order. A write that was answered stands before
 * a flush that was asked for afterwards; one that was under way beside a flush may stand on either side of it.
 *
 * Failures: what BACKING or LOG refuses is answered with its errno; nothing is retried. When the log cannot be written
 * the request is refused too, and the log ends there: its reader takes an incomplete entry for its end.
 */
#define FUSE_USE_VERSION 31

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ENTRY_WRITE = 1, ENTRY_FLUSH = 2 };

struct entry {
    uint64_t kind;
    uint64_t offset;
    uint64_t size;
};

static const char disk_path[] = "/disk";

static struct {
    int backing;
    int log;
    off_t size_bytes;
} state = {.backing = -1, .log = -1};

/* All of it, or a negative errno. At `offset`, or at the end of an appending file if that is negative. */
static int write_all(int fd, const char *bytes, size_t size, off_t offset)
{
    while (size > 0) {
        ssize_t done = offset < 0 ? write(fd, bytes, size) : pwrite(fd, bytes, size, offset);
        if (done < 0)
            return -errno;
        bytes += done;
        size -= (size_t)done;
        if (offset >= 0)
            offset += done;
    }
    return 0;
}

static int log_entry(uint64_t kind, off_t offset, const char *bytes, size_t size)
{
    struct entry entry = {.kind = kind, .offset = (uint64_t)offset, .size = size};
    int error = write_all(state.log, (const char *)&entry, sizeof entry, -1);
    return error != 0 ? error : write_all(state.log, bytes, size, -1);
}

static void *disk_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    (void)connection;
    config->kernel_cache = 1; /* nobody else changes BACKING */
    return NULL;
}

static int disk_getattr(const char *path, struct stat *out, struct fuse_file_info *file)
{
    (void)file;
    memset(out, 0, sizeof *out);
    out->st_nlink = 1;
    if (strcmp(path, "/") == 0) {
        out->st_mode = S_IFDIR | 0700;
        return 0;
    }
    if (strcmp(path, disk_path) != 0)
        return -ENOENT;
    out->st_mode = S_IFREG | 0600;
    out->st_size = state.size_bytes;
    return 0;
}

static int disk_open(const char *path, struct fuse_file_info *file)
{
    (void)file;
    return strcmp(path, disk_path) == 0 ? 0 : -ENOENT;
}

static int disk_read(const char *path, char *bytes, size_t size, off_t offset, struct fuse_file_info *file)
{
    (void)path;
    (void)file;
    ssize_t done = pread(state.backing, bytes, size, offset);
    return done < 0 ? -errno : (int)done;
}

static int disk_write(const char *path, const char *bytes, size_t size, off_t offset, struct fuse_file_info *file)
{
    (void)path;
    (void)file;
    if (offset < 0 || offset > state.size_bytes || size > (size_t)(state.size_bytes - offset))
        return -EFBIG;
    int error = log_entry(ENTRY_WRITE, offset, bytes, size);
    if (error == 0)
        error = write_all(state.backing, bytes, size, offset);
    return error != 0 ? error : (int)size;
}

static int disk_fsync(const char *path, int data_only, struct fuse_file_info *file)
{
    (void)path;
    (void)data_only;
    (void)file;
    return log_entry(ENTRY_FLUSH, 0, "", 0);
}

static const struct fuse_operations operations = {
    .init = disk_init,
    .getattr = disk_getattr,
    .open = disk_open,
    .read = disk_read,
    .write = disk_write,
    .fsync = disk_fsync,
};

static bool open_files(const char *backing, const char *log)
{
    struct stat status;
    state.backing = open(backing, O_RDWR | O_CLOEXEC);
    if (state.backing < 0 || fstat(state.backing, &status) != 0) {
        fprintf(stderr, "flushlog: %s: %s\n", backing, strerror(errno));
        return false;
    }
    state.size_bytes = status.st_size;
    state.log = open(log, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (state.log < 0) {
        fprintf(stderr, "flushlog: %s: %s\n", log, strerror(errno));
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    int code = 1;
    if (argc != 4) {
        fprintf(stderr, "usage: flushlog BACKING LOG MOUNTPOINT\n");
        return 2;
    }
    if (open_files(argv[1], argv[2])) {
        char foreground[] = "-f", single_thread[] = "-s";
        char *arguments[] = {argv[0], foreground, single_thread, argv[3], NULL};
        code = fuse_main(4, arguments, &operations, NULL);
    }
    if (state.log >= 0)
        close(state.log);
    if (state.backing >= 0)
        close(state.backing);
    return code;
}
