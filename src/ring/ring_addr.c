/*
 * ring_addr.c - socket addresses from and to text.
 *
 * Happy path: split "host:port" at the last colon, let inet_pton read the host, read at most five digits of port.
 * Failure modes: anything that is not exactly that is INVALID; names are never looked up, so nothing here can block.
 */
#include "ring/ring_addr.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static bool parse_port(const char *text, in_port_t *port)
{
    unsigned value = 0;
    size_t digits = 0;
    for (; text[digits] != '\0'; digits++) {
        if (text[digits] < '0' || text[digits] > '9' || digits == 5)
            return false;
        value = value * 10 + (unsigned)(text[digits] - '0');
    }
    if (digits == 0 || value > 65535)
        return false;
    *port = htons((uint16_t)value);
    return true;
}

enum kvs_err ring_addr_parse_tcp(const char *text, struct ring_addr *out)
{
    KVS_ASSERT(text != NULL && out != NULL);
    char host[INET6_ADDRSTRLEN];
    const char *colon = strrchr(text, ':');
    if (colon == NULL)
        return KVS_ERR_INVALID;
    bool brackets = text[0] == '[';
    const char *from = brackets ? text + 1 : text;
    const char *to = brackets ? colon - 1 : colon;
    if (to <= from || (brackets && *to != ']') || (size_t)(to - from) >= sizeof(host))
        return KVS_ERR_INVALID;
    memcpy(host, from, (size_t)(to - from));
    host[to - from] = '\0';

    in_port_t port;
    if (!parse_port(colon + 1, &port))
        return KVS_ERR_INVALID;
    memset(out, 0, sizeof(*out));
    if (brackets) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = port};
        if (inet_pton(AF_INET6, host, &in6.sin6_addr) != 1)
            return KVS_ERR_INVALID;
        memcpy(&out->storage, &in6, sizeof(in6));
        out->size = sizeof(in6);
    } else {
        struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = port};
        if (inet_pton(AF_INET, host, &in4.sin_addr) != 1)
            return KVS_ERR_INVALID;
        memcpy(&out->storage, &in4, sizeof(in4));
        out->size = sizeof(in4);
    }
    return KVS_ERR_OK;
}

enum kvs_err ring_addr_unix(const char *path, struct ring_addr *out)
{
    KVS_ASSERT(path != NULL && out != NULL);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0)
        return KVS_ERR_INVALID;
    if (length >= sizeof(un.sun_path))
        return KVS_ERR_TOO_LARGE;
    memcpy(un.sun_path, path, length + 1);
    memset(out, 0, sizeof(*out));
    memcpy(&out->storage, &un, sizeof(un));
    out->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    return KVS_ERR_OK;
}

const char *ring_addr_format(const struct ring_addr *addr, char text[RING_ADDR_TEXT_BYTES])
{
    KVS_ASSERT(addr != NULL && text != NULL);
    char host[INET6_ADDRSTRLEN] = "?";
    switch (addr->storage.ss_family) {
    case AF_INET: {
        struct sockaddr_in in4;
        memcpy(&in4, &addr->storage, sizeof(in4));
        (void)inet_ntop(AF_INET, &in4.sin_addr, host, sizeof(host));
        snprintf(text, RING_ADDR_TEXT_BYTES, "%s:%u", host, (unsigned)ntohs(in4.sin_port));
        break;
    }
    case AF_INET6: {
        struct sockaddr_in6 in6;
        memcpy(&in6, &addr->storage, sizeof(in6));
        (void)inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof(host));
        snprintf(text, RING_ADDR_TEXT_BYTES, "[%s]:%u", host, (unsigned)ntohs(in6.sin6_port));
        break;
    }
    case AF_UNIX: {
        /* The other side of an accepted Unix connection usually has no name: its address is just the family. */
        struct sockaddr_un un;
        memcpy(&un, &addr->storage, sizeof(un));
        size_t head = offsetof(struct sockaddr_un, sun_path);
        size_t length = addr->size > head ? strnlen(un.sun_path, addr->size - head) : 0;
        snprintf(text, RING_ADDR_TEXT_BYTES, "unix:%.*s", (int)length, un.sun_path);
        break;
    }
    default:
        snprintf(text, RING_ADDR_TEXT_BYTES, "unknown address family %u", (unsigned)addr->storage.ss_family);
    }
    return text;
}

bool ring_addr_is_local(const struct ring_addr *addr)
{
    KVS_ASSERT(addr != NULL);
    if (addr->storage.ss_family == AF_INET) {
        struct sockaddr_in in4;
        memcpy(&in4, &addr->storage, sizeof(in4));
        return (ntohl(in4.sin_addr.s_addr) >> 24) == IN_LOOPBACKNET;
    }
    if (addr->storage.ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, &addr->storage, sizeof(in6));
        if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
            return in6.sin6_addr.s6_addr[12] == IN_LOOPBACKNET;
        return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
    }
    return addr->storage.ss_family == AF_UNIX;
}

unsigned ring_addr_port(const struct ring_addr *addr)
{
    KVS_ASSERT(addr != NULL);
    if (addr->storage.ss_family == AF_INET) {
        struct sockaddr_in in4;
        memcpy(&in4, &addr->storage, sizeof(in4));
        return ntohs(in4.sin_port);
    }
    if (addr->storage.ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, &addr->storage, sizeof(in6));
        return ntohs(in6.sin6_port);
    }
    return 0;
}
