/*
 * ring.h - the only door to the kernel.
 *
 * Everything that touches the outside goes through here: files, directories, sockets, timers, the clock, randomness,
 * and the wake-up of another thread's ring. Two implementations stand behind it and are chosen when a program is
 * linked: ring_uring.c (the kernel) and tests/sim/ring_sim.c (a simulated machine). Code above this header is
 * event-driven: it starts an operation, returns, and is called back.
 *
 * Threading. A ring belongs to the thread that opened it; every function here is called on that thread, except
 * ring_wake's target, which is another thread's ring. Callbacks run inside ring_turn, on the ring's thread.
 *
 * Operations. A struct ring_op is embedded in its owner's structure. The owner sets `done` and starts it; from then
 * until its last completion the op, and every buffer, path and iovec given with it, belongs to the ring: they neither
 * move nor change. Each completion calls done(op) with the result fields set. A completion with RING_MORE in op->flags
 * is followed by others; one without it is the last, and the op may be started again or freed from inside the callback.
 * Starting cannot fail: whatever goes wrong arrives as a completion with op->error set, never before the starting call
 * returned.
 *
 * Short reads and writes, EINTR and EAGAIN are continued inside the ring: a read ends short only at the end of the
 * file, a write or send ends with all bytes or with an error. A failed write or sync is never retried.
 */
#ifndef KVS_RING_RING_H
#define KVS_RING_RING_H

#include "base/bytes.h"
#include "base/error.h"
#include "ring/ring_addr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct ring;
struct ring_op;

typedef void ring_done_fn(struct ring_op *op);

enum ring_op_flags {
    RING_MORE = 1,   /* more completions of this operation will follow */
    RING_BUFFER = 2, /* op->buffer_id names a receive buffer that now belongs to the caller */
};

struct ring_op {
    ring_done_fn *done; /* set by the owner before starting */

    /* Result of the latest completion. */
    enum kvs_err error;
    int fd;             /* open, accept, connect: the new descriptor */
    uint64_t bytes;     /* read, write, send, recv: bytes transferred; recv 0 = the peer has closed */
    uint16_t buffer_id; /* with RING_BUFFER */
    uint8_t flags;      /* enum ring_op_flags */

    /* Private to src/ring from here on. */
    uint8_t kind;
    uint8_t state;
    uint8_t rw_flags;
    int file;
    int sys_errno; /* what the kernel said, for messages: ring_op_text */
    uint64_t offset;
    uint64_t transferred;
    struct iovec *iov;
    unsigned iov_count;
    struct iovec single;
    struct ring *ring;
    void *backend[4];
};

static inline void ring_op_init(struct ring_op *op, ring_done_fn *done)
{
    *op = (struct ring_op){.done = done, .fd = -1, .file = -1};
}

/* True from the starting call to the last completion. */
bool ring_op_active(const struct ring_op *op);

/* Why the op failed, in words, with the system's own text where there is one ("no space left on device"). Static or
 * thread-local storage, good until the next call on this thread. */
const char *ring_op_text(const struct ring_op *op);

/* ---- the ring itself ------------------------------------------------------------------------------------------- */

struct ring_options {
    unsigned entries;      /* submission queue entries, power of two; 0 = 512 */
    unsigned buffer_count; /* receive buffers, power of two; 0 = none (the ring will not receive) */
    unsigned buffer_bytes; /* size of each; multiple of 64 */
};

#define RING_MESSAGE_BYTES 512

/*
 * Opens a ring for the calling thread. On failure `message` says what was refused and the remedy (kernel too old,
 * sysctl kernel.io_uring_disabled, seccomp profile, memlock limit). Falls back step by step to plainer set-ups when the
 * kernel refuses the best one; ring_describe tells which was got.
 */
enum kvs_err ring_open(struct ring **out, const struct ring_options *options, char message[RING_MESSAGE_BYTES]);

/* Cancels and waits for everything in flight without calling callbacks, then frees the ring. */
void ring_close(struct ring *ring);

/* One line: set-up flags and features obtained. Lives as long as the ring. */
const char *ring_describe(const struct ring *ring);

/* The sooner of two times to wait, as ring_turn takes them: -1 = for ever. */
static inline int64_t ring_sooner(int64_t a, int64_t b)
{
    return a < 0 || (b >= 0 && a > b) ? b : a;
}

/*
 * Submits what was started, waits for at least one completion or for timeout_ns (0: do not wait; negative: for ever),
 * and calls back for every completion that is there. Returns the number of callbacks made.
 */
unsigned ring_turn(struct ring *ring, int64_t timeout_ns);

/* Turns the ring until `op` has had its last completion. For start-up, shutdown and tools; never while serving. */
void ring_await(struct ring *ring, struct ring_op *op);

/*
 * Wakes the thread that sleeps in ring_turn(target) from the thread of `ring`: its ring_turn returns, with no callback.
 * Safe at any time while both rings are open; a wake-up is never lost, several may become one.
 * It leaves with the next ring_turn (or ring_close) of `ring`, so that one system call serves all.
 */
void ring_wake(struct ring *ring, struct ring *target);

/* Asks for the end of an operation in flight. It still completes: with CANCELLED, or with its result if that was
 * sooner. A multishot operation's last completion (the one without RING_MORE) may then be a good one. */
void ring_cancel(struct ring *ring, struct ring_op *op);

/* ---- time and chance ------------------------------------------------------------------------------------------- */

uint64_t ring_now_ns(const struct ring *ring);  /* monotonic; origin arbitrary */
uint64_t ring_wall_ms(const struct ring *ring); /* milliseconds since 1970-01-01 UTC */
uint64_t ring_wall_us(const struct ring *ring); /* the same in microseconds */
/* Stops the calling thread for so long: what no program wants, but those who test how others bear it. */
void ring_stall(const struct ring *ring, uint64_t ns);
void ring_random(struct ring *ring, void *out, size_t size);

/* Completes after delay_ns with error OK, or CANCELLED. */
void ring_timer(struct ring *ring, struct ring_op *op, uint64_t delay_ns);

/* ---- files ----------------------------------------------------------------------------------------------------- */

enum ring_open_flags {
    RING_OPEN_READ = 1,
    RING_OPEN_WRITE = 2,
    RING_OPEN_CREATE = 4,    /* make it when it is not there (mode 0640) */
    RING_OPEN_EXCLUSIVE = 8, /* with CREATE: fail with EXISTS when it is there */
    RING_OPEN_DIRECT = 16, /* O_DIRECT: aligned buffers, offsets and sizes; UNSUPPORTED where the file system cannot */
    RING_OPEN_DIRECTORY = 32, /* with READ, alone: a directory, as ring_dir_open gives it; NOT_A_DIRECTORY */
    RING_OPEN_PRIVATE = 64,   /* with CREATE: readable by its owner alone (mode 0600) */
};

enum ring_write_flags {
    RING_WRITE_DURABLE =
        1, /* RWF_DSYNC: completes when data and the metadata needed to read it are on stable storage */
};

/* `path` is relative to dir_fd. op->fd is the descriptor, to be closed with ring_close_fd. */
void ring_file_open(struct ring *ring, struct ring_op *op, int dir_fd, const char *path, unsigned open_flags);
void ring_file_read(struct ring *ring, struct ring_op *op, int fd, void *buffer, size_t size, uint64_t offset);
void ring_file_write(struct ring *ring, struct ring_op *op, int fd, const void *buffer, size_t size, uint64_t offset,
                     unsigned write_flags);
/* Makes written data durable (fdatasync); on a directory's descriptor, its names (fsync). */
void ring_file_sync(struct ring *ring, struct ring_op *op, int fd);
/* Reserves space for [0, size) and extends the file to it; reads as zeros. */
void ring_file_allocate(struct ring *ring, struct ring_op *op, int fd, uint64_t size);
void ring_file_rename(struct ring *ring, struct ring_op *op, int dir_fd, const char *from, const char *to);
void ring_file_unlink(struct ring *ring, struct ring_op *op, int dir_fd, const char *path);
/* Gives the file `from` in from_dir a second name, `to` in to_dir: both are the same file from then on. UNSUPPORTED
 * where that cannot be: on another file system, on one without links, beyond its bound, or by its rules. */
void ring_file_link(struct ring *ring, struct ring_op *op, int from_dir, const char *from, int to_dir, const char *to);
/* Makes a directory (mode 0750). Its name is durable when dir_fd was synced. ring_file_rename moves it. */
void ring_dir_make(struct ring *ring, struct ring_op *op, int dir_fd, const char *path);

/* Closes any descriptor without waiting: with the next ring_turn or ring_close. Nothing may be in flight on it. */
void ring_close_fd(struct ring *ring, int fd);

/* Blocking calls for start-up and tools, before the ring serves anybody. */

/* Opens a directory, making it and its missing parents first (mode 0750), durably. `*dir_fd` to ring_close_fd. */
enum kvs_err ring_dir_open(struct ring *ring, const char *path, int *dir_fd);
/* Calls `each` for every entry but "." and "..", in any order. Also while others serve, on a thread that does not, with
 * a directory of a bounded size. */
enum kvs_err ring_dir_list(struct ring *ring, int dir_fd, void (*each)(void *context, const char *name), void *context);
/* Takes the exclusive lock file `name` (created if missing) until the returned descriptor is closed or the process
 * ends. LOCKED when another process holds it: after retrying for about a second if that lives, else for ten, for the
 * kernel ends a dead process's rings, and with them its locks, later than the process. The file names its holder. */
enum kvs_err ring_dir_lock(struct ring *ring, int dir_fd, const char *name, int *lock_fd);

/* Also while serving: it looks at what the kernel knows of an open file, and does not wait for the disk. */
struct ring_file_info {
    uint64_t size;
    uint32_t links;               /* names of the file */
    uint32_t direct_memory_align; /* O_DIRECT alignment of buffers; 0 = O_DIRECT not supported */
    uint32_t direct_offset_align; /* of offsets and sizes */
};
enum kvs_err ring_file_info(struct ring *ring, int fd, struct ring_file_info *info);
/* Both descriptors are of the same file or directory, however they were come by. Also while serving. */
bool ring_file_same(struct ring *ring, int fd, int other_fd);
/* Free space of the file system that holds fd, in bytes. */
enum kvs_err ring_file_space(struct ring *ring, int fd, uint64_t *free_bytes);
/*
 * Maps [offset, offset + bytes) of the file, which has so many, at `memory`: a private copy, made page by page when it
 * is written to; nothing reaches the file. `memory` was mapped by the caller, who unmaps it; it and `offset` are
 * multiples of 4 KiB. The file may be closed and unlinked after it; it is not to be changed. All of it has been read
 * when this returns, but what the system takes from its cache again it reads again when it is used, and a failure then
 * ends the process: so copies should not be put off for ever. Blocking, for start-up.
 */
enum kvs_err ring_file_map(struct ring *ring, int fd, void *memory, size_t bytes, uint64_t offset);
/* Drops what the system caches of the file, so that the next read comes from the disk. After a sync: what is dirty
 * stays cached, while data whose sync has failed (in an earlier process, say) counts as clean and goes. */
enum kvs_err ring_file_uncache(struct ring *ring, int fd);

/* ---- sockets --------------------------------------------------------------------------------------------------- */

/*
 * Opens a listening socket (blocking call; start-up). TCP sockets share their port between the rings of a process
 * (SO_REUSEPORT), Unix sockets do not: one ring listens, the others accept from the same descriptor. A stale Unix
 * socket file is replaced, one that a living server answers on is ADDRESS_IN_USE.
 */
enum kvs_err ring_listen(struct ring *ring, const struct ring_addr *addr, int *fd);
/* The address a socket is bound to: tells the port that port 0 became. */
enum kvs_err ring_local_addr(struct ring *ring, int fd, struct ring_addr *addr);
/* The address of the other side. */
enum kvs_err ring_peer_addr(struct ring *ring, int fd, struct ring_addr *addr);

/* Multishot: one completion with op->fd (TCP_NODELAY set, close-on-exec) per connection, until it fails or is
 * cancelled. */
void ring_accept(struct ring *ring, struct ring_op *op, int listen_fd);
/* op->fd is a connected socket (TCP_NODELAY set). `addr` stays until completion. */
void ring_connect(struct ring *ring, struct ring_op *op, const struct ring_addr *addr);
/*
 * Multishot receive into the ring's buffers. Each completion with RING_BUFFER carries op->bytes in buffer
 * op->buffer_id, the caller's until ring_buffer_release. bytes == 0 without error: the peer has finished sending.
 * NO_BUFFERS ends the operation: start it again after a buffer has come back (ring_buffers_free tells).
 */
void ring_recv(struct ring *ring, struct ring_op *op, int fd);
/* The same, but one buffer at most: its first completion is its last one. */
void ring_recv_once(struct ring *ring, struct ring_op *op, int fd);
/* Sends all of it. At most one send per socket at a time; at most RING_IOV_MAX parts. The iovecs may be changed by it.
 */
void ring_send(struct ring *ring, struct ring_op *op, int fd, struct iovec *iov, unsigned iov_count);
#define RING_IOV_MAX 64
/* The system looks for the peer of a TCP connection that was silent for `seconds`, and ends one whose peer is gone.
 * Others stay as they are. */
void ring_keepalive(struct ring *ring, int fd, unsigned seconds);
/* Ends both directions now: operations in flight on fd complete soon. */
void ring_shutdown(struct ring *ring, int fd);

uint8_t *ring_buffer_data(struct ring *ring, uint16_t buffer_id);
void ring_buffer_release(struct ring *ring, uint16_t buffer_id);
unsigned ring_buffers_free(const struct ring *ring);

/* ---- signals --------------------------------------------------------------------------------------------------- */

/*
 * Blocks SIGTERM, SIGINT and SIGHUP in the calling thread (before others are started, so that they inherit it), ignores
 * SIGPIPE, and returns a descriptor for ring_signal_next.
 */
enum kvs_err ring_signals_open(struct ring *ring, int *signal_fd);
/* Completes once per signal, op->bytes its number; start again for the next. */
void ring_signal_next(struct ring *ring, struct ring_op *op, int signal_fd);

#endif
