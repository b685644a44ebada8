/*
 * info.h - the node's figures as text, for INFO and the STATS frame: Redis's sections and field names, and the node's
 * own.
 *
 * Any shard's thread; figures of other shards are a moment old.
 */
#ifndef KVS_NODE_INFO_H
#define KVS_NODE_INFO_H

#include "node/text.h"

struct node;
struct ring;

/* Sections, as a set. */
enum info_sections {
    INFO_SERVER = 1,
    INFO_CLIENTS = 2,
    INFO_MEMORY = 4,
    INFO_PERSISTENCE = 8,
    INFO_COMPACTION = 16,
    INFO_CHECKPOINT = 32,
    INFO_STATS = 64,
    INFO_REPLICATION = 128,
    INFO_CPU = 256,
    INFO_SHARDS = 512,
    INFO_KEYSPACE = 1024,
    INFO_ERRORSTATS = 2048,
    INFO_COMMANDSTATS = 4096,
    INFO_LATENCYSTATS = 8192,
    INFO_ALL = 16383,
    INFO_DEFAULT = INFO_ALL - INFO_SHARDS - INFO_COMMANDSTATS - INFO_LATENCYSTATS,
};

/* The section of this name, in any case ("default", "all" and "everything" too); 0 when there is none. */
unsigned info_section(struct slice name);
/* `ring` is the calling thread's. While loading or serving. */
void info_write(struct node *node, const struct ring *ring, unsigned sections, struct text *out);

#endif
