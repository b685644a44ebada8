/*
 * ring_addr.h - addresses of sockets, from and to text. Pure; any thread.
 */
#ifndef KVS_RING_RING_ADDR_H
#define KVS_RING_RING_ADDR_H

#include "base/error.h"

#include <stdbool.h>
#include <sys/socket.h>

struct ring_addr {
    struct sockaddr_storage storage;
    socklen_t size;
};

#define RING_ADDR_TEXT_BYTES 160

/* Parses "IP:PORT", "[IPv6]:PORT" with a numeric address and a port of 0..65535; INVALID on anything else. */
enum kvs_err ring_addr_parse_tcp(const char *text, struct ring_addr *out);

/* Makes the address of a Unix socket; TOO_LARGE when the path is longer than the kernel takes (107 bytes). */
enum kvs_err ring_addr_unix(const char *path, struct ring_addr *out);

/* "127.0.0.1:4000", "[::1]:4000" or "unix:/path". Returns `text`. */
const char *ring_addr_format(const struct ring_addr *addr, char text[RING_ADDR_TEXT_BYTES]);

/* True for an IPv4 or IPv6 loopback address, and for a Unix socket. */
bool ring_addr_is_local(const struct ring_addr *addr);

/* The TCP port, 0 for others. */
unsigned ring_addr_port(const struct ring_addr *addr);

#endif
