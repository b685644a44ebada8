/*
 * client_server.h - a server for the client's tests: one connection, a script in C, blocking sockets.
 *
 * The script runs on a thread of its own and must not use cmocka's assertions (they jump); script_check ends the
 * process instead.
 */
#ifndef KVS_TESTS_CLIENT_SERVER_H
#define KVS_TESTS_CLIENT_SERVER_H

#include "proto/frame.h"
#include "ring/ring_addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define script_check(condition)                                                                              \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: the test's server: %s does not hold\n", __FILE__, __LINE__, #condition); \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

struct test_server {
    int listen_fd;
    unsigned port;
    pthread_t thread;
    void (*script)(int fd); /* the descriptor is closed for it afterwards */
};

static inline void *test_server_main(void *argument)
{
    struct test_server *server = argument;
    int fd = accept(server->listen_fd, NULL, NULL);
    script_check(fd >= 0);
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    server->script(fd);
    close(fd);
    return NULL;
}

/* Listens on a port of the kernel's choice; with a script also accepts one connection and runs it. */
static inline void test_server_start(struct test_server *server, void (*script)(int fd))
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(addr);
    server->script = script;
    server->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    script_check(bind(server->listen_fd, (struct sockaddr *)&addr, size) == 0);
    script_check(listen(server->listen_fd, 8) == 0);
    script_check(getsockname(server->listen_fd, (struct sockaddr *)&addr, &size) == 0);
    server->port = ntohs(addr.sin_port);
    if (script != NULL)
        script_check(pthread_create(&server->thread, NULL, test_server_main, server) == 0);
}

static inline void test_server_stop(struct test_server *server)
{
    if (server->script != NULL)
        pthread_join(server->thread, NULL);
    close(server->listen_fd);
}

static inline const char *test_server_text(const struct test_server *server, char text[64])
{
    snprintf(text, 64, "127.0.0.1:%u", server->port);
    return text;
}

/* ---- for scripts ----------------------------------------------------------------------------------------------- */

static inline void script_write(int fd, const void *data, size_t size)
{
    const char *next = data;
    while (size > 0) {
        ssize_t sent = send(fd, next, size, MSG_NOSIGNAL);
        script_check(sent > 0);
        next += sent;
        size -= (size_t)sent;
    }
}

/* False at the end of the stream. */
static inline bool script_read(int fd, void *data, size_t size)
{
    char *next = data;
    while (size > 0) {
        ssize_t got = recv(fd, next, size, 0);
        if (got <= 0)
            return false;
        next += got;
        size -= (size_t)got;
    }
    return true;
}

/* Reads until the peer closes. */
static inline void script_drain(int fd)
{
    char bytes[4096];
    while (recv(fd, bytes, sizeof(bytes), 0) > 0) {
    }
}

/* One request, its key and value behind each other in `body`; false at the end of the stream. */
static inline bool script_read_frame(int fd, struct frame_header *header, uint8_t *body, size_t capacity)
{
    if (!script_read(fd, header, sizeof(*header)))
        return false;
    script_check(header->magic == FRAME_MAGIC && (size_t)header->key_bytes + header->value_bytes <= capacity);
    return script_read(fd, body, (size_t)header->key_bytes + header->value_bytes);
}

static inline void script_reply(int fd, const struct frame_header *request, enum frame_status status, const void *value,
                                size_t value_bytes)
{
    struct frame_header header = {
        .magic = FRAME_MAGIC,
        .opcode = request->opcode,
        .flags = FRAME_REPLY,
        .status = (uint8_t)status,
        .value_bytes = (uint32_t)value_bytes,
        .id = request->id,
    };
    script_write(fd, &header, sizeof(header));
    script_write(fd, value, value_bytes);
}

/* Reads the client's hello and answers with `version`. */
static inline void script_hello(int fd, uint16_t version)
{
    struct frame_header header;
    struct frame_hello hello;
    script_check(script_read_frame(fd, &header, (uint8_t *)&hello, sizeof(hello)));
    script_check(header.opcode == FRAME_HELLO && hello.version_min <= FRAME_VERSION &&
                 hello.version_max >= FRAME_VERSION);
    const struct frame_hello answer = {
        .version_min = version, .version_max = version, .key_bytes_max = 65535, .value_bytes_max = 16 * 1024 * 1024};
    script_reply(fd, &header, FRAME_OK, &answer, sizeof(answer));
}

#endif
