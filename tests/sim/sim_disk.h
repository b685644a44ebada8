/*
 * sim_disk.h - the simulated file system: directories, names, files, and for each what is durable and what is not yet.
 *
 * Functions return what a system call would: a number or a negative errno. Descriptors are sim_core's.
 */
#ifndef KVS_TESTS_SIM_SIM_DISK_H
#define KVS_TESTS_SIM_SIM_DISK_H

#include "sim_content.h"
#include "sim_core.h"

/* A crash whose outcome was chosen with sim_disk_keep. */
#define SIM_CHOSEN ((enum sim_crash_mode)(SIM_KILL + 1))

enum sim_sync_outcome {
    SIM_SYNC_DONE,
    SIM_SYNC_ORPHANS, /* fails: what it was to cover is readable, but no later sync covers it */
    SIM_SYNC_REVERTS, /* fails: what it was to cover is gone at once */
};

struct sim_disk *sim_disk_create(void);
void sim_disk_free(struct sim_disk *disk);

int sim_disk_open(int dir_fd, const char *path, unsigned open_flags);
/* `twist`: what goes wrong with it although it succeeds; SIM_FAULT_COUNT: nothing. Here and below. */
int sim_disk_read(int fd, struct ring_chunk chunk, enum sim_fault_kind twist);
int sim_disk_write(int fd, struct sim_data *data, bool durable, enum sim_fault_kind twist);
/* A write that fails and leaves nothing, something or everything behind. */
void sim_disk_write_badly(int fd, struct sim_data *data);
/* Makes durable what had its effect up to `sequence`. */
int sim_disk_sync(int fd, uint64_t sequence, enum sim_sync_outcome outcome);
int sim_disk_allocate(int fd, uint64_t size);
int sim_disk_rename(int dir_fd, const char *from, const char *to);
int sim_disk_unlink(int dir_fd, const char *path);
int sim_disk_link(int from_dir, const char *from, int to_dir, const char *to);
int sim_disk_make_dir(int dir_fd, const char *path);

/* A descriptor of the directory, which is made durably if it is not there. */
int sim_disk_dir(const char *path);
void sim_disk_list(int dir_fd, void (*each)(void *context, const char *name), void *context);
int sim_disk_lock(int dir_fd, const char *name);
uint64_t sim_disk_size(int fd);
/* Names of the file, as of now. */
uint32_t sim_disk_links(int fd);
bool sim_disk_same(int fd, int other_fd);
/* What a failed sync has left readable is gone. */
void sim_disk_uncache(int fd);
uint64_t sim_disk_space(void);
uint32_t sim_disk_align(void);

/* What sim_fd_close does for the types FILE, DIR and LOCK. */
void sim_disk_close(struct sim_fd *fd);
/* Settles what was not durable; descriptors are closed already. */
void sim_disk_crash(enum sim_crash_mode mode);

/* How many unsynced changes there are. */
size_t sim_disk_pending(void);
/* Chooses which of them SIM_CHOSEN keeps: those whose bits are set, and all that come from now on. */
void sim_disk_keep(uint64_t mask);

/* Names and sizes, to stderr. */
void sim_disk_describe(void);
/* The name of an open file or directory, for messages. */
const char *sim_disk_name(int fd);

#endif
