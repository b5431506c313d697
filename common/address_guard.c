/* Two tables of what is refused, from the registries of special-purpose addresses (RFC 6890 and its
 * successors). */
#include "common/address_guard.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static const struct {
    uint32_t network;
    int bits;
} refused4[] = {
    { 0x00000000, 8 },  /* this network */
    { 0x0a000000, 8 },  /* private */
    { 0x64400000, 10 }, /* shared by carriers */
    { 0x7f000000, 8 },  /* loopback */
    { 0xa9fe0000, 16 }, /* link-local, and the metadata of clouds */
    { 0xac100000, 12 }, /* private */
    { 0xc0000000, 24 }, /* protocol assignments */
    { 0xc0000200, 24 }, /* documentation */
    { 0xc0586300, 24 }, /* 6to4 relays */
    { 0xc0a80000, 16 }, /* private */
    { 0xc6120000, 15 }, /* benchmarks */
    { 0xc6336400, 24 }, /* documentation */
    { 0xcb007100, 24 }, /* documentation */
    { 0xe0000000, 3 },  /* multicast, reserved, broadcast */
};

static bool is_public4(uint32_t address) {
    for (size_t i = 0; i < sizeof refused4 / sizeof *refused4; i++) {
        if (((address ^ refused4[i].network) >> (32 - refused4[i].bits)) == 0) {
            return false;
        }
    }
    return true;
}

static uint32_t read_be32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Only 2000::/3 is given out for unicast; within it, what carries an IPv4 address is judged by
 * that. */
static bool is_public6(const uint8_t a[16]) {
    static const uint8_t nat64[12] = { 0x00, 0x64, 0xff, 0x9b };
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    if (memcmp(a, nat64, 12) == 0 || memcmp(a, mapped, 12) == 0) {
        return is_public4(read_be32(a + 12));
    }
    if ((a[0] & 0xe0) != 0x20) {
        return false;
    }
    if (a[0] == 0x20 && a[1] == 0x02) { /* 6to4 */
        return is_public4(read_be32(a + 2));
    }
    bool assignments =
        a[0] == 0x20 && a[1] == 0x01 && (a[2] & 0xfe) == 0x00; /* 2001::/23, Teredo in it */
    bool documentation = (a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0d && a[3] == 0xb8) ||
                         (a[0] == 0x3f && a[1] == 0xff && (a[2] & 0xf0) == 0);
    return !assignments && !documentation;
}

bool address_is_public(const struct sockaddr *address) {
    switch (address->sa_family) {
    case AF_INET: {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        return is_public4(ntohl(in.sin_addr.s_addr));
    }
    case AF_INET6: {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof in6);
        return is_public6(in6.sin6_addr.s6_addr);
    }
    default: /* no other family leads to an HTTP server */
        return false;
    }
}

bool address_text_is_public(const char *text) {
    struct sockaddr_in in = { .sin_family = AF_INET };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
        return address_is_public((const struct sockaddr *)&in);
    }
    return inet_pton(AF_INET6, text, &in6.sin6_addr) == 1 &&
           address_is_public((const struct sockaddr *)&in6);
}
