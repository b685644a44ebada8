/*
 * ring_uring_setup.c - opening a ring, step by step down to what this kernel allows, and saying why when nothing helps.
 *
 * Happy path: the first step of the ladder succeeds, the opcodes are all there, the ring's descriptor is registered
 * (saves a look-up per system call), receive buffers are mapped and registered.
 *
 * Failure modes: EINVAL on a step: the next, plainer one. Anything else, or EINVAL on the last: no ring, and a message
 * with the remedy. A kernel that refuses to register the ring's descriptor costs a little speed only.
 */
#include "ring/ring_uring_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define URING_ENTRIES_MAX 32768u
#define URING_BUFFERS_MAX 32768u

#define COMMON_FLAGS (IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP)
#define COOP_FLAGS   (IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | COMMON_FLAGS)

/* COOP_TASKRUN goes without saying under DEFER_TASKRUN, but is what remains of it in the second step. */
const struct uring_step uring_steps[URING_STEP_COUNT] = {
    {"single issuer, deferred task work", IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | COOP_FLAGS},
    {"cooperative task work", COOP_FLAGS},
    {"plain", COMMON_FLAGS},
};

/* SEND_ZC is not used: it came with the same kernel as multishot receive (6.0), which cannot be asked for by itself. */
const struct uring_opcode uring_opcodes[URING_OPCODE_COUNT] = {
    {IORING_OP_ACCEPT, "accept"},       {IORING_OP_ASYNC_CANCEL, "async_cancel"},
    {IORING_OP_CLOSE, "close"},         {IORING_OP_CONNECT, "connect"},
    {IORING_OP_FALLOCATE, "fallocate"}, {IORING_OP_FSYNC, "fsync"},
    {IORING_OP_LINKAT, "linkat"},       {IORING_OP_MKDIRAT, "mkdirat"},
    {IORING_OP_MSG_RING, "msg_ring"},   {IORING_OP_OPENAT, "openat"},
    {IORING_OP_RECV, "recv"},           {IORING_OP_RENAMEAT, "renameat"},
    {IORING_OP_SENDMSG, "sendmsg"},     {IORING_OP_TIMEOUT, "timeout"},
    {IORING_OP_UNLINKAT, "unlinkat"},   {IORING_OP_SEND_ZC, "multishot recv"},
};

/* ---- explaining ------------------------------------------------------------------------------------------------ */

/* kernel.io_uring_disabled: 0 = allowed, 1 = privileged or group only, 2 = nobody, -1 = unknown. */
static int read_sysctl(void)
{
    int value = -1;
    FILE *file = fopen("/proc/sys/kernel/io_uring_disabled", "re");
    if (file != NULL) {
        if (fscanf(file, "%d", &value) != 1)
            value = -1;
        fclose(file);
    }
    return value;
}

void uring_explain(char message[RING_MESSAGE_BYTES], const char *what, int sys_errno)
{
    char remedy[256];
    int disabled = read_sysctl();
    switch (sys_errno) {
    case ENOSYS:
        snprintf(
            remedy, sizeof(remedy),
            "the kernel has no io_uring, or a seccomp profile hides it; use Linux 6.1 or newer, and in a container "
            "allow io_uring_setup, io_uring_enter and io_uring_register");
        break;
    case EPERM:
    case EACCES:
        if (disabled > 0)
            snprintf(
                remedy, sizeof(remedy),
                "sysctl kernel.io_uring_disabled is %d; set it to 0, or to 1 and run in group kernel.io_uring_group",
                disabled);
        else
            snprintf(
                remedy, sizeof(remedy),
                "a seccomp profile forbids it; in a container use one that allows io_uring_setup, io_uring_enter and "
                "io_uring_register");
        break;
    case ENOMEM:
        snprintf(remedy, sizeof(remedy),
                 "not enough memory that may be locked; raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=), the memory "
                 "limit of "
                 "the cgroup, or the limit of the address space (ulimit -v)");
        break;
    case EMFILE:
    case ENFILE:
        snprintf(remedy, sizeof(remedy), "raise the limit of open files (ulimit -n, LimitNOFILE=)");
        break;
    case EINVAL:
    case EOPNOTSUPP:
        snprintf(remedy, sizeof(remedy), "this kernel is too old; use Linux 6.1 or newer");
        break;
    default:
        snprintf(remedy, sizeof(remedy), "kvs-node --check tells what this machine offers");
    }
    snprintf(message, RING_MESSAGE_BYTES, "%s: %s: %s", what, strerrordesc_np(sys_errno), remedy);
}

/* ---- the ring itself ------------------------------------------------------------------------------------------- */

int uring_try_step(struct io_uring *uring, const struct uring_step *step, unsigned entries)
{
    struct io_uring_params params = {.flags = step->flags, .cq_entries = entries * URING_CQ_FACTOR};
    return io_uring_queue_init_params(entries, uring, &params);
}

int uring_missing_opcodes(struct io_uring *uring, const char *missing[URING_OPCODE_COUNT])
{
    int count = 0;
    struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
    if (probe == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < URING_OPCODE_COUNT; i++)
        if (!io_uring_opcode_supported(probe, uring_opcodes[i].code))
            missing[count++] = uring_opcodes[i].name;
    io_uring_free_probe(probe);
    return count;
}

static int climb_down(struct ring *ring, unsigned entries)
{
    int rc = -EINVAL;
    for (size_t i = 0; i < URING_STEP_COUNT && rc == -EINVAL; i++) {
        rc = uring_try_step(&ring->uring, &uring_steps[i], entries);
        ring->setup_flags = uring_steps[i].flags;
    }
    return rc;
}

/* What the code relies on and a kernel may lack: waiting with a timeout, nothing dropped, arguments copied on
 * submission, silent success, and the opcodes. */
static enum kvs_err check_features(struct ring *ring, char message[RING_MESSAGE_BYTES])
{
    const unsigned needed = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE |
                            IORING_FEAT_CQE_SKIP | IORING_FEAT_FAST_POLL;
    const char *missing[URING_OPCODE_COUNT];
    int count = uring_missing_opcodes(&ring->uring, missing);
    if (count < 0) {
        uring_explain(message, "cannot ask io_uring for its operations", -count);
        return ring_error_from_errno(-count);
    }
    if (count > 0 || (ring->uring.features & needed) != needed) {
        snprintf(message, RING_MESSAGE_BYTES, "io_uring of this kernel lacks %s: use Linux 6.1 or newer",
                 count > 0 ? missing[0] : "needed features");
        return KVS_ERR_UNSUPPORTED;
    }
    return KVS_ERR_OK;
}

static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static int open_buffers(struct ring *ring, unsigned count, unsigned bytes)
{
    ring->buffers_size = (size_t)count * bytes;
    ring->buffer_ring_size = (size_t)count * sizeof(struct io_uring_buf);
    ring->buffers = map(ring->buffers_size);
    ring->buffer_ring = map(ring->buffer_ring_size);
    if (ring->buffers == NULL || ring->buffer_ring == NULL)
        return -ENOMEM;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)ring->buffer_ring,
        .ring_entries = count,
        .bgid = URING_BUFFER_GROUP,
    };
    int rc = io_uring_register_buf_ring(&ring->uring, &reg, 0);
    if (rc < 0)
        return rc;
    ring->buffer_count = count;
    ring->buffer_bytes = bytes;
    io_uring_buf_ring_init(ring->buffer_ring);
    for (unsigned id = 0; id < count; id++)
        ring_buffer_release(ring, (uint16_t)id);
    return 0;
}

static void describe(struct ring *ring, bool registered)
{
    unsigned flags = ring->setup_flags;
    snprintf(ring->description, sizeof(ring->description),
             "io_uring: %u+%u entries%s%s%s%s%s%s, %u buffers of %u bytes", ring->uring.sq.ring_entries,
             ring->uring.cq.ring_entries, flags & IORING_SETUP_SINGLE_ISSUER ? ", single issuer" : "",
             flags & IORING_SETUP_DEFER_TASKRUN ? ", deferred task work" : "",
             flags & IORING_SETUP_COOP_TASKRUN ? ", cooperative task work" : "",
             flags & IORING_SETUP_SUBMIT_ALL ? ", submit all" : "", registered ? ", registered ring" : "",
             ring->enter_flags & IORING_ENTER_NO_IOWAIT ? ", no iowait" : "", ring->buffer_count, ring->buffer_bytes);
}

static enum kvs_err set_up(struct ring *ring, const struct ring_options *options, char message[RING_MESSAGE_BYTES])
{
    unsigned entries = options->entries != 0 ? options->entries : URING_ENTRIES_DEFAULT;
    int rc = climb_down(ring, entries);
    if (rc < 0) {
        ring->uring.ring_fd = -1;
        uring_explain(message, "cannot set up io_uring", -rc);
        return rc == -EINVAL ? KVS_ERR_UNSUPPORTED : ring_error_from_errno(-rc);
    }
    enum kvs_err err = check_features(ring, message);
    if (err != KVS_ERR_OK)
        return err;
    ring->slots = calloc(ring->uring.sq.ring_entries, sizeof(*ring->slots));
    if (ring->slots == NULL) {
        uring_explain(message, "cannot set up io_uring", ENOMEM);
        return KVS_ERR_NO_MEMORY;
    }
    bool registered = io_uring_register_ring_fd(&ring->uring) == 1;
    ring->enter_fd = ring->uring.enter_ring_fd;
    if (registered)
        ring->enter_flags |= IORING_ENTER_REGISTERED_RING;
    if (ring->uring.features & IORING_FEAT_NO_IOWAIT)
        ring->enter_flags |= IORING_ENTER_NO_IOWAIT;
    if (options->buffer_count > 0)
        rc = open_buffers(ring, options->buffer_count, options->buffer_bytes);
    if (rc < 0) {
        uring_explain(message, "cannot register receive buffers with io_uring", -rc);
        return rc == -EINVAL ? KVS_ERR_UNSUPPORTED : ring_error_from_errno(-rc);
    }
    describe(ring, registered);
    return KVS_ERR_OK;
}

enum kvs_err ring_open(struct ring **out, const struct ring_options *options, char message[RING_MESSAGE_BYTES])
{
    KVS_ASSERT(out != NULL && options != NULL && message != NULL);
    KVS_ASSERT(options->entries == 0 || (is_power_of_two(options->entries) && options->entries <= URING_ENTRIES_MAX));
    KVS_ASSERT(options->buffer_count == 0 ||
               (is_power_of_two(options->buffer_count) && options->buffer_count <= URING_BUFFERS_MAX));
    KVS_ASSERT(options->buffer_count == 0 || (options->buffer_bytes > 0 && options->buffer_bytes % 64 == 0));
    *out = NULL;
    message[0] = '\0';
    struct ring *ring = NULL;
    if (posix_memalign((void **)&ring, 64, sizeof(*ring)) != 0) {
        uring_explain(message, "cannot set up io_uring", ENOMEM);
        return KVS_ERR_NO_MEMORY;
    }
    memset(ring, 0, sizeof(*ring));
    ring->uring.ring_fd = -1;
    ring->thread = pthread_self();
    ring->failed_last = &ring->failed_first;
    enum kvs_err err = set_up(ring, options, message);
    if (err != KVS_ERR_OK) {
        uring_teardown(ring);
        return err;
    }
    *out = ring;
    return KVS_ERR_OK;
}

void uring_teardown(struct ring *ring)
{
    KVS_ASSERT(ring->in_flight == 0);
    if (ring->buffer_count > 0)
        (void)io_uring_unregister_buf_ring(&ring->uring, URING_BUFFER_GROUP);
    if (ring->uring.ring_fd >= 0)
        io_uring_queue_exit(&ring->uring);
    if (ring->buffers != NULL)
        (void)munmap(ring->buffers, ring->buffers_size);
    if (ring->buffer_ring != NULL)
        (void)munmap(ring->buffer_ring, ring->buffer_ring_size);
    free(ring->slots);
    free(ring);
}

const char *ring_describe(const struct ring *ring)
{
    KVS_ASSERT(ring != NULL);
    return ring->description;
}

/* ---- receive buffers ------------------------------------------------------------------------------------------- */

uint8_t *ring_buffer_data(struct ring *ring, uint16_t buffer_id)
{
    KVS_ASSERT(buffer_id < ring->buffer_count);
    return ring->buffers + (size_t)buffer_id * ring->buffer_bytes;
}

void ring_buffer_release(struct ring *ring, uint16_t buffer_id)
{
    KVS_ASSERT(ring->buffers_free < ring->buffer_count);
    int mask = io_uring_buf_ring_mask(ring->buffer_count);
    io_uring_buf_ring_add(ring->buffer_ring, ring_buffer_data(ring, buffer_id), ring->buffer_bytes, buffer_id, mask, 0);
    io_uring_buf_ring_advance(ring->buffer_ring, 1);
    ring->buffers_free++;
}

unsigned ring_buffers_free(const struct ring *ring)
{
    return ring->buffers_free;
}
