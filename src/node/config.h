/*
 * config.h - the options of kvs-node, read from its command line.
 *
 * Pure but for getopt's own state: one thread, at start-up. Strings in struct config point into argv and live as long.
 */
#ifndef KVS_NODE_CONFIG_H
#define KVS_NODE_CONFIG_H

#include "base/diag.h"
#include "node/bounds.h"
#include "ring/ring_addr.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CONFIG_ADDRESSES_MAX 3
#define CONFIG_MESSAGE_BYTES 512

#define CONFIG_PASSWORD_BYTES_MAX 512u

#define CONFIG_MEMORY_BYTES_MIN  (64ull << 20)
#define CONFIG_SEGMENT_BYTES_MIN (1ull << 20)
#define CONFIG_SEGMENT_BYTES_MAX (1ull << 30)

enum config_mode { CONFIG_RUN, CONFIG_CHECK, CONFIG_VERSION, CONFIG_HELP };

/* Who may use DEBUG. */
enum config_debug { CONFIG_DEBUG_NO, CONFIG_DEBUG_LOCAL, CONFIG_DEBUG_YES };

struct config {
    enum config_mode mode;
    struct ring_addr addresses[CONFIG_ADDRESSES_MAX];
    unsigned address_count; /* 0 = no TCP (--addr none) */
    const char *unix_path;  /* NULL = no Unix socket */
    struct ring_addr unix_addr;
    const char *data_dir;
    const char *backup_dir; /* absolute; NULL: in the data directory */
    unsigned threads;
    uint64_t memory_bytes;       /* 0 until config_set_memory, if it was not given */
    uint64_t memory_fixed_bytes; /* of these, what the process takes whatever it holds; the rest is shared out */
    uint64_t segment_bytes;      /* 0 = the engine chooses */
    uint64_t value_bytes_max;    /* 0 = 64 MiB, or an eighth of the memory if that is less */
    uint64_t disk_bytes_max;     /* of all segment and value files; 0 = what the file system has */
    unsigned space_percent;      /* disk space that may be used for each hundred bytes of live records */
    const char *engine;          /* "kvs" or "memory" */
    bool relaxed;                /* what connections begin with */
    uint32_t relaxed_interval_ms;
    unsigned max_clients;
    struct bounds bounds; /* of connections and what they ask */
    bool protected_mode;
    uint32_t idle_timeout_s; /* 0 = never */
    uint32_t keepalive_s;    /* 0 = never */
    char *requirepass;       /* NULL: none */
    const char *acl_file;    /* NULL: none */
    enum config_debug enable_debug;
    enum diag_level log_level;
};

/*
 * Reads argv; `cpus` is the default for threads. On a bad option returns false, and `message` names the option, the
 * value and what would be right. argv may be reordered.
 */
bool config_parse(struct config *out, int argc, char **argv, unsigned cpus, char message[CONFIG_MESSAGE_BYTES]);

/* Without --memory: half of the RAM this process may use. And how much of it is not there to be shared out. */
void config_set_memory(struct config *config, uint64_t ram_bytes);

/* Parses "4096", "64K", "512MiB", "2G": binary multiples, any case. False on anything else, and on overflow. */
bool config_parse_size(const char *text, uint64_t *bytes);

/* True when an address it listens on can be reached from other machines; `text` is the first of these. */
bool config_reaches_others(const struct config *config, char text[RING_ADDR_TEXT_BYTES]);

/* Overwrites the password in argv, where whoever lists processes would see it. */
void config_forget_password(struct config *config);

void config_print_help(FILE *out);

#endif
