/* Of the clients there is one small thing for each address that is connected, in lists by a hash:
 * never more of them than connections. On the loop. */
#include "server/api/http_address.h"

#include "common/check.h"
#include "common/list.h"
#include "common/log.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTS 1024 /* a power of two */

struct peer {
    struct list link;
    uint64_t who;
    int connections;
};

struct http_peers {
    struct list lists[LISTS];
};

static void on_accept_error(struct evconnlistener *listener, void *context) {
    (void)listener;
    (void)context;
    log_warning("http.not_accepted", "reason", strerror(errno));
    usleep(1000); /* out of descriptors: the others go on, we must not spin */
}

static dj_status listen_at(struct event_base *base, const struct sockaddr *address,
                           socklen_t length, const char *text, evconnlistener_cb on_accept,
                           void *context, struct evconnlistener **ret_listener) {
    struct evconnlistener *listener = evconnlistener_new_bind(
        base, on_accept, context, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
        1024, address, (int)length);
    if (listener == NULL) {
        return dj_fail(DJ_UNAVAILABLE, "cannot listen at %s: %s", text, strerror(errno));
    }
    evconnlistener_set_error_cb(listener, on_accept_error);
    *ret_listener = listener;
    return DJ_OK;
}

dj_status http_address_listen(struct event_base *base, const char *text,
                              evconnlistener_cb on_accept, void *context,
                              struct evconnlistener **ret_listener) {
    char host[256];
    const char *colon = strrchr(text, ':');
    size_t length = colon == NULL ? 0 : (size_t)(colon - text);
    if (colon == NULL || length >= sizeof host || colon[1] == '\0') {
        return dj_fail(DJ_INVALID_ARGUMENT, "--listen %s is not allowed; HOST:PORT is", text);
    }
    bool brackets = length > 1 && text[0] == '[' && text[length - 1] == ']';
    (void)snprintf(host, sizeof host, "%.*s", (int)(brackets ? length - 2 : length),
                   brackets ? text + 1 : text);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found = NULL;
    int error = getaddrinfo(length == 0 ? NULL : host, colon + 1, &hints, &found);
    if (error != 0) {
        return dj_fail(DJ_INVALID_ARGUMENT, "--listen %s: %s", text, gai_strerror(error));
    }
    dj_status status =
        listen_at(base, found->ai_addr, found->ai_addrlen, text, on_accept, context, ret_listener);
    freeaddrinfo(found);
    return status;
}

dj_status http_address_listen_unix(struct event_base *base, const char *path,
                                   evconnlistener_cb on_accept, void *context,
                                   struct evconnlistener **ret_listener) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct stat there;
    if (strlen(path) >= sizeof address.sun_path) {
        return dj_fail(DJ_INVALID_ARGUMENT, "--unix %s is too long", path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (lstat(path, &there) == 0 && S_ISSOCK(there.st_mode)) {
        (void)unlink(path); /* of a server that was killed */
    }
    return listen_at(base, (const struct sockaddr *)&address, sizeof address, path, on_accept,
                     context, ret_listener);
}

struct http_peers *http_peers_new(void) {
    struct http_peers *peers = calloc(1, sizeof *peers);
    check(peers != NULL);
    for (int i = 0; i < LISTS; i++) {
        list_init(&peers->lists[i]);
    }
    return peers;
}

uint64_t http_peer_of(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const void *)address;
        return (uint64_t)1 << 32 | ntohl(four->sin_addr.s_addr);
    }
    if (address->sa_family != AF_INET6) {
        return 0;
    }
    const struct in6_addr *six = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(six)) {
        uint32_t four;
        memcpy(&four, &six->s6_addr[12], sizeof four);
        return (uint64_t)1 << 32 | ntohl(four);
    }
    uint64_t network;
    memcpy(&network, six->s6_addr, sizeof network);
    return network == 0 ? 1 : network; /* ::1 */
}

static struct peer *peer_find(struct http_peers *peers, uint64_t who, struct list **ret_list) {
    *ret_list = &peers->lists[(who * 0x9e3779b97f4a7c15U) >> 54];
    list_for_each(peer, *ret_list, struct peer, link) {
        if (peer->who == who) {
            return peer;
        }
    }
    return NULL;
}

bool http_peers_enter(struct http_peers *peers, uint64_t who, int most) {
    struct list *list;
    if (who == 0) {
        return true;
    }
    struct peer *peer = peer_find(peers, who, &list);
    if (peer == NULL) {
        peer = calloc(1, sizeof *peer);
        check(peer != NULL);
        peer->who = who;
        list_push(list, &peer->link);
    }
    if (peer->connections >= most) {
        return false;
    }
    peer->connections++;
    return true;
}

void http_peers_leave(struct http_peers *peers, uint64_t who) {
    struct list *list;
    if (who == 0) {
        return;
    }
    struct peer *peer = peer_find(peers, who, &list);
    assert(peer != NULL && peer->connections > 0);
    if (--peer->connections == 0) {
        list_remove(&peer->link);
        free(peer);
    }
}
