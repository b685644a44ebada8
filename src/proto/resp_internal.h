/* resp_internal.h - what the request parser and the reply scanner share. Pure; any thread. */
#ifndef KVS_PROTO_RESP_INTERNAL_H
#define KVS_PROTO_RESP_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A decimal integer as Redis reads them: no sign but '-', no leading zeros, nothing around it, within 64 bits. */
bool resp_parse_integer(const uint8_t *text, size_t size, int64_t *value);

#endif
