/*
 * acl_log.h - what was refused lately: ACL LOG.
 *
 * Bounded: the latest ACL_LOG_MAX, texts cut. The same refusal again within a minute counts as one. Any thread: under a
 * lock, held for a microsecond, or as long as it takes to write all of it down.
 */
#ifndef KVS_NODE_ACL_LOG_H
#define KVS_NODE_ACL_LOG_H

#include "base/bytes.h"
#include "node/text.h"

#define ACL_LOG_MAX          128u
#define ACL_LOG_OBJECT_BYTES 128u
#define ACL_LOG_CLIENT_BYTES 512u

struct acl_log;

struct acl_log *acl_log_create(void); /* NULL: no memory */
void acl_log_destroy(struct acl_log *log);

/* `reason`: "auth", "command", "key"; a literal. `client`: as CLIENT INFO has it. */
void acl_log_add(struct acl_log *log, uint64_t now_ms, const char *reason, struct slice object, struct slice user,
                 struct slice client);
void acl_log_reset(struct acl_log *log);
/* The latest `count` as a RESP array of maps. */
void acl_log_write(struct acl_log *log, uint64_t now_ms, size_t count, int resp_version, struct text *out);

#endif
