/*
 * sim_disk_internal.h - the simulated disk's structures, shared by its files.
 */
#ifndef KVS_TESTS_SIM_SIM_DISK_INTERNAL_H
#define KVS_TESTS_SIM_SIM_DISK_INTERNAL_H

#include "sim_disk.h"

#define SIM_BLOCK_BYTES 4096u
#define SIM_PAST_MAX    64u

enum sim_unsynced_kind {
    SIM_WRITE,
    SIM_GROWTH,  /* the file reaches to `to`; no bytes */
    SIM_FLIPPED, /* `data` is spoilt, `truth` is what was meant */
    SIM_LOST,    /* nothing is written; `truth` is what was meant */
    SIM_STRAY,   /* `data` was meant for another place; what is here is overwritten and stays the truth */
};

/* Something that a crash may undo. Bytes of it that later became durable otherwise are cut. */
struct sim_unsynced {
    struct list link;
    enum sim_unsynced_kind kind;
    uint64_t sequence;
    uint64_t from, to;
    bool orphan; /* a sync has failed: no later one covers it */
    bool keep;   /* in a crash with a chosen outcome */
    struct sim_data *data;
    struct sim_data *truth;
};

struct sim_file {
    struct list link; /* all files, oldest first */
    unsigned refs;    /* descriptors, names now, durable names, unsynced name changes */
    bool locked;
    struct sim_content now; /* what reads see */
    struct sim_content durable;
    struct list unsynced;                /* oldest first */
    struct sim_data *past[SIM_PAST_MAX]; /* what was overwritten lately, for stale reads */
    unsigned past_count;                 /* ever */
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
    bool orphan;           /* as above */
    bool keep;             /* as above */
    struct sim_file *file; /* LINK, RENAME */
    char name[256];        /* LINK, UNLINK: the name; RENAME: the new one */
    char old[256];         /* RENAME */
};

struct sim_dir {
    struct list link; /* all directories, oldest first */
    char *path;       /* absolute, without a slash at the end; "" is the root */
    struct {
        char *from; /* a renaming that a crash may undo: the old path; NULL: there is none */
        uint64_t sequence;
        bool orphan; /* as above */
        bool keep;   /* as above */
    } moved;
    struct list now;
    struct list durable;
    struct list unsynced;
};

struct sim_disk {
    struct list files;
    struct list dirs;
    uint64_t size;
    uint32_t align;
    bool keep_new; /* what becomes pending now is to survive the crash that is under way */
    bool no_links; /* a link is EXDEV: as if every directory were a file system of its own */
};

/* One thing that a crash with a chosen outcome may keep. */
struct sim_pending {
    uint64_t sequence;
    size_t index; /* among those of equal sequence */
    bool *keep;
};
struct sim_pendings {
    struct sim_pending *items;
    size_t count, room;
};
void sim_pendings_add(struct sim_pendings *pendings, uint64_t sequence, bool *keep);

/* ---- sim_disk_file.c: files and what is unsynced in them --------------------------------------------------------- */

struct sim_file *sim_file_create(void);
void sim_file_hold(struct sim_file *file);
void sim_file_release(struct sim_file *file); /* freed with the last reference */

/* Has an effect on what reads see, and on what is durable, now or later. Takes references of its own. `like` has the
 * fields from kind to data and truth that its kind needs. */
void sim_file_change(struct sim_file *file, const struct sim_unsynced *like, bool durable);
/* Has the part [from, to) of an effect on a content. */
void sim_unsynced_apply(struct sim_content *content, const struct sim_unsynced *write, uint64_t from, uint64_t to);
/* Makes what is unsynced in [from, to) durable. */
void sim_file_settle(struct sim_file *file, uint64_t from, uint64_t to);
void sim_file_sync(struct sim_file *file, uint64_t sequence, enum sim_sync_outcome outcome);
/* Applies, drops, tears or scrambles what is unsynced; afterwards everything is durable. */
void sim_file_crash(struct sim_file *file, enum sim_crash_mode mode);
void sim_file_uncache(struct sim_file *file);
void sim_file_heal(struct sim_file *file);
void sim_file_accept(struct sim_file *file);
void sim_file_pending(struct sim_file *file, struct sim_pendings *pendings);

/* ---- sim_disk_names.c: directories ------------------------------------------------------------------------------ */

/* The directory and the last part of a path that is relative to dir_fd; NULL when there is no such directory. */
struct sim_dir *sim_dir_of(int dir_fd, const char *path, const char **name);
struct sim_dir *sim_dir_find(const char *path, size_t length);
struct sim_dir *sim_dir_create(const char *path, size_t length);
struct sim_name *sim_name_find(const struct list *names, const char *name);
void sim_name_set(struct list *names, const char *name, struct sim_file *file); /* NULL: removes it */
void sim_dir_change(struct sim_dir *dir, enum sim_change_kind kind, const char *name, const char *old,
                    struct sim_file *file);
/* Renames a directory without directories in it. Like other names, the new one is durable when its parent is synced. */
void sim_dir_move(struct sim_dir *dir, const char *to);
void sim_dir_sync(struct sim_dir *dir, uint64_t sequence, bool failing);
void sim_dir_crash(struct sim_dir *dir, enum sim_crash_mode mode);
/* Makes what is unsynced of one name durable. */
void sim_dir_settle(struct sim_dir *dir, const char *name);
void sim_dir_pending(struct sim_dir *dir, struct sim_pendings *pendings);
/* True when some directory has names for both. */
bool sim_dir_neighbours(const struct sim_file *a, const struct sim_file *b);
void sim_dir_free(struct sim_dir *dir);

/* ---- sim_disk.c -------------------------------------------------------------------------------------------------- */

/* What the next boot will find under this path; NULL: nothing. */
struct sim_file *sim_file_at(const char *path);

#endif
