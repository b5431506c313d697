/* Addresses: where to listen, and how many connections each client has. */
#ifndef SERVER_API_HTTP_ADDRESS_H
#define SERVER_API_HTTP_ADDRESS_H

#include "common/status.h"
#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/** HOST:PORT, or [HOST]:PORT. To be freed by freeaddrinfo(). */
MUST_CHECK dj_status http_address_find(const char *text, struct addrinfo **ret_found);

struct http_peers;

struct http_peers *http_peers_new(void);

/** An address as a number: of IPv6 the network of 64 bits, which is one customer's. 0: a unix
 * socket. */
uint64_t http_peer_of(const struct sockaddr *address);

/** One connection more of a peer. False: it has `most` already. */
bool http_peers_enter(struct http_peers *peers, uint64_t peer, int most);
void http_peers_leave(struct http_peers *peers, uint64_t peer);

#endif
