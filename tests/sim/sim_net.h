/*
 * sim_net.h - the simulated network: listeners, and pairs of sockets joined by two streams of limited capacity.
 *
 * Bytes arrive some time after they were sent, in order; how much of what has arrived one receive gets is the seed's
 * choice, so messages are split and merged. Functions return what a system call would.
 */
#ifndef KVS_TESTS_SIM_SIM_NET_H
#define KVS_TESTS_SIM_SIM_NET_H

#include "sim_core.h"

struct sim_net *sim_net_create(void);
void sim_net_free(struct sim_net *net);

int sim_net_listen(const struct ring_addr *addr);
/* A connected socket's descriptor; its other end waits at a listener. */
int sim_net_connect(const struct ring_addr *addr);
int sim_net_accept(int listen_fd);
uint64_t sim_net_accept_when(int listen_fd);
int sim_net_recv(int fd, uint8_t *out, size_t size);
uint64_t sim_net_recv_when(int fd);
/* As much of the iovecs as there is room for; `cut`: less. */
int sim_net_send(int fd, const struct iovec *iov, unsigned iov_count, bool cut);
/* Now, or SIM_NEVER as long as there is no room. */
uint64_t sim_net_send_when(int fd);
void sim_net_shutdown(int fd);
/* Both sides meet a reset now: after what has arrived, or at once. False: there is no connection any more. */
bool sim_net_break(int fd, bool at_once);
/* Nothing that is sent from now on arrives before this time is over. */
bool sim_net_stall(int fd, uint64_t ns);
bool sim_net_addr(int fd, bool peer, struct ring_addr *addr);

/* What sim_fd_close does for the types SOCKET and LISTENER. */
void sim_net_close(struct sim_fd *fd);

#endif
