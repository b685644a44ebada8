/*
 * sim_core.h - the simulated machine: chance, clock, descriptors, requests in flight, rings.
 *
 * Inside tests/sim only. sim_disk and sim_net hang on the machine and know nothing of rings and requests.
 */
#ifndef KVS_TESTS_SIM_SIM_CORE_H
#define KVS_TESTS_SIM_SIM_CORE_H

#include "base/list.h"
#include "ring_sim.h"

#define SIM_NEVER       UINT64_MAX
#define SIM_FD_FIRST    1000 /* far from real descriptors, so that one is not taken for the other */
#define SIM_FAULTS_MAX  32
#define SIM_SIGNALS_MAX 16

struct sim_file;
struct sim_socket;
struct sim_listener;
struct sim_disk;
struct sim_data;
struct sim_net;

enum sim_fd_type { SIM_FD_CLOSED, SIM_FD_FILE, SIM_FD_DIR, SIM_FD_LOCK, SIM_FD_SOCKET, SIM_FD_LISTENER, SIM_FD_SIGNAL };

/* Descriptors are never used twice, so that a use after the close is noticed. */
struct sim_fd {
    enum sim_fd_type type;
    unsigned flags; /* enum ring_open_flags */
    void *object;
};

/* One step of an operation in flight. */
struct sim_request {
    struct list link;      /* all requests of the machine, oldest first */
    struct list ring_link; /* those of its ring, oldest first */
    struct list disk_link; /* those on the disk that have not had their effect, oldest first */
    struct ring *ring;
    struct ring_op *op;
    enum ring_kind kind; /* kind and file: to be known when the op is gone */
    int file;
    uint64_t sequence;
    uint64_t ready_ns;         /* not before */
    int fault;                 /* errno to fail with, or 0 */
    enum sim_fault_kind twist; /* what befalls it by chance; SIM_FAULT_COUNT: nothing */
    bool looked;               /* a receive has found a buffer free at its beginning */
    bool executed;             /* the effect is there, the completion is not yet delivered */
    struct ring_result result;
    struct sim_data *data; /* a write's bytes at the start: they must not change in flight */
};

struct sim_fault {
    enum ring_kind kind;
    uint64_t countdown;
    int sys_errno;
};

struct receive_buffer {
    bool free;
    uint32_t used; /* bytes that were received into it */
};

struct ring {
    struct list link;
    unsigned id;
    uint64_t wake_at;    /* a wake-up arrives; SIM_NEVER: none under way */
    uint64_t wait_until; /* under sim_step: when the ring wants to run though nothing happens */
    void (*body)(void *context);
    void *body_context;
    bool spared; /* by most faults */
    struct list requests;
    uint64_t first_ns; /* when the first of them can complete, … */
    uint64_t first_at; /* … as long as sim->changes is this; 0: not known */
    uint8_t *buffers;
    struct receive_buffer *buffer_states;
    uint16_t *free_ids; /* first in, first out */
    unsigned free_head;
    unsigned buffers_free;
    unsigned buffer_count;
    unsigned buffer_bytes;
    char description[64];
};

struct sim_machine {
    uint64_t random_state;
    uint64_t trace;
    uint64_t now_ns;
    int64_t wall_offset_ms; /* of the wall clock from what it would be */
    uint64_t sequence;      /* orders everything that happens */
    uint64_t changes;       /* of anything that requests of other rings may wait for: sockets, signals */
    struct list requests;
    struct list disk_requests;
    struct list rings;
    unsigned rings_opened;
    struct sim_fd *fds;
    int fd_count;
    int fd_boot; /* descriptors below it are from before the last crash */
    struct sim_fault faults[SIM_FAULTS_MAX];
    unsigned fault_count;
    unsigned short_percent;
    unsigned interrupted_percent;
    unsigned odds[SIM_FAULT_COUNT]; /* in a million */
    bool odds_any;
    uint64_t happened[SIM_FAULT_COUNT];
    uint64_t issued[RING_KIND_COUNT];
    void (*watch)(enum sim_event event, enum ring_kind kind);
    int signals[SIM_SIGNALS_MAX];
    unsigned signal_count;
    struct sim_disk *disk;
    struct sim_net *net;
};

/* The current machine. */
extern struct sim_machine *sim;

/* ---- chance ---------------------------------------------------------------------------------------------------- */

bool sim_chance(unsigned percent);
/* Between low and high, both included. */
uint64_t sim_between(uint64_t low, uint64_t high);
void sim_note(uint64_t value); /* folds a fact into the trace */

/* ---- descriptors ----------------------------------------------------------------------------------------------- */

int sim_fd_open(enum sim_fd_type type, void *object, unsigned flags);
/* The open descriptor; a failed assertion when it is not open. */
struct sim_fd *sim_fd_get(int fd);
/* The object of an open descriptor of this type, else NULL. */
void *sim_fd_object(int fd, enum sim_fd_type type);
/* Closes whatever it is. */
void sim_fd_close(int fd);

/* ---- requests (sim_request.c) ---------------------------------------------------------------------------------- */

/* Tells the test's watch, if it is a step on the disk. */
void sim_request_tell(enum sim_event event, enum ring_kind kind);
/* Takes an op's next step in. */
void sim_request_add(struct ring *ring, struct ring_op *op);
void sim_request_cancel(struct sim_request *request);
/* When it can complete, as far as that is known now. */
uint64_t sim_request_when(const struct sim_request *request);
/* Has its effect. A receive or accept that goes on may come back with result.more. */
void sim_request_execute(struct sim_request *request);
void sim_request_free(struct sim_request *request);
/* A multishot that has delivered something waits for more. */
void sim_request_go_on(struct sim_request *request);
/* Lets some disk requests that are due have their effect before anybody hears of it. */
void sim_request_background(void);
/* At a crash, or when a ring is closed: have the effect or not, and never call back. NULL: of every ring. */
void sim_request_abandon(const struct ring *ring, enum sim_crash_mode mode);

/* Unsynced changes that requests in flight may still make. */
size_t sim_request_pending(void);
/* At a crash: those whose bits are set, counted from the oldest, have their effect. */
void sim_request_finish(uint64_t mask);
/* Where each one is, to stderr. */
void sim_request_describe(void);

/* ---- faults (sim_fault.c) --------------------------------------------------------------------------------------- */

/* Decides what is to befall a new request. */
void sim_fault_choose(struct sim_request *request);
/* Likewise, by chance only: when a multishot goes on. */
void sim_fault_draw(struct sim_request *request);
/* For a mapping, which is no request: the errno that it fails with; 0: it does not. */
int sim_fault_of_map(const struct ring *ring);
void sim_fault_happened(enum sim_fault_kind kind);

/* ---- rings (ring_sim.c) ---------------------------------------------------------------------------------------- */

/* Turns a ring without advancing the clock. */
unsigned sim_ring_turn_now(struct ring *ring, int64_t timeout_ns);
/* When it has something to do; <= now: at once. */
uint64_t sim_ring_when(struct ring *ring);
void sim_ring_free(struct ring *ring);
/* The requests of a ring, or its buffers, have changed. */
static inline void sim_ring_touch(struct ring *ring)
{
    ring->first_at = 0;
}
extern bool sim_stepping;

#endif
