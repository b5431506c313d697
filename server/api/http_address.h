/* Addresses: where to listen, and how many connections each client has. */
#ifndef SERVER_API_HTTP_ADDRESS_H
#define SERVER_API_HTTP_ADDRESS_H

#include "common/status.h"
#include <event2/listener.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/** HOST:PORT, or [HOST]:PORT. DJ_UNAVAILABLE says why not. */
MUST_CHECK dj_status http_address_listen(struct event_base *base, const char *text,
                                         evconnlistener_cb on_accept, void *context,
                                         struct evconnlistener **ret_listener);
MUST_CHECK dj_status http_address_listen_unix(struct event_base *base, const char *path,
                                              evconnlistener_cb on_accept, void *context,
                                              struct evconnlistener **ret_listener);

struct http_peers;

struct http_peers *http_peers_new(void);

/** An address as a number: of IPv6 the network of 64 bits, which is one customer's. 0: a unix
 * socket. */
uint64_t http_peer_of(const struct sockaddr *address);

/** One connection more of a peer. False: it has `most` already. */
bool http_peers_enter(struct http_peers *peers, uint64_t peer, int most);
void http_peers_leave(struct http_peers *peers, uint64_t who);

#endif
