/* Which addresses a handler's URL may lead to: looked at when the socket is made, after names were
 * resolved, so that no name can lead elsewhere than where it did when it was registered. Any
 * thread. */
#ifndef COMMON_ADDRESS_GUARD_H
#define COMMON_ADDRESS_GUARD_H

#include <stdbool.h>
#include <sys/socket.h>

/** True for a unicast address of the public internet: not loopback, private, link-local, shared,
 * documentation, multicast or reserved, in IPv4, IPv6, or IPv4 written as IPv6 (mapped, compatible,
 * NAT64, 6to4, Teredo). */
bool address_is_public(const struct sockaddr *address);

/** The same of an address as inet_ntop() writes it; false for any other text. */
bool address_text_is_public(const char *text);

#endif
