/*
 * sim_disk_internal.h - the simulated disk's structures, shared by its files.
 */
#ifndef KVS_TESTS_SIM_SIM_DISK_INTERNAL_H
#define KVS_TESTS_SIM_SIM_DISK_INTERNAL_H

#include "sim_disk.h"

#define SIM_SECTOR_BYTES 512u
#define SIM_BLOCK_BYTES  4096u

/* Bytes that grow with zeros. */
struct sim_bytes {
    uint8_t *data;
    size_t size;
    size_t room;
};

/* A write (or, without bytes, a growth) that a crash may undo. Bytes of it that later became durable otherwise are cut.
 */
struct sim_unsynced {
    struct list link;
    uint64_t sequence;
    uint64_t offset;
    uint64_t end; /* the file's size is at least this when it is applied */
    size_t size;  /* bytes; 0 for a growth */
    bool lost;    /* a sync has failed: no later one covers it */
    uint8_t *data;
};

struct sim_file {
    struct list link; /* all files, oldest first */
    unsigned refs;    /* descriptors, names now, durable names, unsynced name changes */
    bool locked;
    struct sim_bytes now; /* what reads see */
    struct sim_bytes durable;
    struct list unsynced; /* oldest first */
};

struct sim_name {
    struct list link;
    struct sim_file *file;
    char name[256];
};

enum sim_change_kind { SIM_LINK, SIM_UNLINK, SIM_RENAME };

/* A change of names that a crash may undo. */
struct sim_change {
    struct list link;
    enum sim_change_kind kind;
    uint64_t sequence;
    bool lost;
    struct sim_file *file; /* LINK, RENAME */
    char name[256];        /* LINK, UNLINK: the name; RENAME: the new one */
    char old[256];         /* RENAME */
};

struct sim_dir {
    struct list link; /* all directories, oldest first */
    char *path;       /* absolute, without a slash at the end; "" is the root */
    struct list now;
    struct list durable;
    struct list unsynced;
};

struct sim_disk {
    struct list files;
    struct list dirs;
    uint64_t size;
    uint32_t align;
};

/* ---- sim_disk_file.c: content ----------------------------------------------------------------------------------- */

struct sim_file *sim_file_create(void);
void sim_file_hold(struct sim_file *file);
void sim_file_release(struct sim_file *file); /* freed with the last reference */
void sim_bytes_put(struct sim_bytes *bytes, uint64_t offset, const uint8_t *data, size_t size);
void sim_bytes_resize(struct sim_bytes *bytes, size_t size);
/* Applies, drops or tears what is unsynced; afterwards everything is durable. */
void sim_file_crash(struct sim_file *file, enum sim_crash_mode mode);
void sim_file_sync(struct sim_file *file, uint64_t sequence, bool failing);

/* ---- sim_disk_names.c: directories ------------------------------------------------------------------------------ */

/* The directory and the last part of a path that is relative to dir_fd; NULL when there is no such directory. */
struct sim_dir *sim_dir_of(int dir_fd, const char *path, const char **name);
struct sim_dir *sim_dir_find(const char *path, size_t length);
struct sim_dir *sim_dir_create(const char *path, size_t length);
struct sim_name *sim_name_find(const struct list *names, const char *name);
void sim_name_set(struct list *names, const char *name, struct sim_file *file); /* NULL: removes it */
void sim_dir_change(struct sim_dir *dir, enum sim_change_kind kind, const char *name, const char *old,
                    struct sim_file *file);
void sim_dir_sync(struct sim_dir *dir, uint64_t sequence, bool failing);
void sim_dir_crash(struct sim_dir *dir, enum sim_crash_mode mode);
void sim_dir_free(struct sim_dir *dir);

#endif
