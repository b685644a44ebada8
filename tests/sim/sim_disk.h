/*
 * sim_disk.h - the simulated file system: directories, names, files, and for each what is durable and what is not yet.
 *
 * Functions return what a system call would: a number or a negative errno. Descriptors are sim_core's.
 */
#ifndef KVS_TESTS_SIM_SIM_DISK_H
#define KVS_TESTS_SIM_SIM_DISK_H

#include "sim_core.h"

struct sim_disk *sim_disk_create(void);
void sim_disk_free(struct sim_disk *disk);

int sim_disk_open(int dir_fd, const char *path, unsigned open_flags);
int sim_disk_read(int fd, struct ring_chunk chunk);
/* `data` stands for the chunk's own bytes. */
int sim_disk_write(int fd, struct ring_chunk chunk, const uint8_t *data, bool durable);
/* A write that fails and leaves nothing, something or everything behind. */
void sim_disk_write_badly(int fd, struct ring_chunk chunk, const uint8_t *data);
/* Makes durable what had its effect up to `sequence`; `failing`: loses track of it instead. */
int sim_disk_sync(int fd, uint64_t sequence, bool failing);
int sim_disk_allocate(int fd, uint64_t size);
int sim_disk_rename(int dir_fd, const char *from, const char *to);
int sim_disk_unlink(int dir_fd, const char *path);

/* A descriptor of the directory, which is made durably if it is not there. */
int sim_disk_dir(const char *path);
void sim_disk_list(int dir_fd, void (*each)(void *context, const char *name), void *context);
int sim_disk_lock(int dir_fd, const char *name);
uint64_t sim_disk_size(int fd);
uint64_t sim_disk_space(void);
uint32_t sim_disk_align(void);

/* What sim_fd_close does for the types FILE, DIR and LOCK. */
void sim_disk_close(struct sim_fd *fd);
/* Settles what was not durable; descriptors are closed already. */
void sim_disk_crash(enum sim_crash_mode mode);

#endif
