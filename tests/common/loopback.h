/* A listener that only this machine can reach, at a port of its own. */
#ifndef TESTS_COMMON_LOOPBACK_H
#define TESTS_COMMON_LOOPBACK_H

#include "common/check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

/** `backlog` connections are taken before anybody accepts them. The caller closes it. */
static inline int loopback_listen(int backlog, int *ret_port) {
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(listener >= 0);
    check(bind(listener, (const struct sockaddr *)&address, length) == 0);
    check(listen(listener, backlog) == 0);
    check(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    *ret_port = ntohs(address.sin_port);
    return listener;
}

#endif
