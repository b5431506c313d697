/* The address guard: every form in which getaddrinfo takes a number is the same address; IPv4 in
 * IPv6 is judged as IPv4; and what is public is in none of the networks that are not, which are
 * written here as texts, as the registries have them. */
#include "tests/fuzz/fuzz.h"

#include "common/address_guard.h"
#include "common/auto.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

static const char *const special4[] = {
    "0.0.0.0/8",     "10.0.0.0/8",      "100.64.0.0/10",  "127.0.0.0/8",    "169.254.0.0/16",
    "172.16.0.0/12", "192.0.0.0/24",    "192.0.2.0/24",   "192.88.99.0/24", "192.168.0.0/16",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",    "240.0.0.0/4",
};
static const char *const special6[] = {
    "::/16",     "64:ff9b:1::/48", "100::/8",   "2001::/23", "2001:db8::/32", "3fff::/20",
    "5f00::/16", "fc00::/7",       "fe80::/10", "fec0::/10", "ff00::/8",
};

static bool is_in(const uint8_t *address, int family, const char *network) {
    char text[64];
    uint8_t base[16] = { 0 };
    const char *slash = strchr(network, '/');
    int bits = atoi(slash + 1);
    (void)snprintf(text, sizeof text, "%.*s", (int)(slash - network), network);
    promise(inet_pton(family, text, base) == 1);
    for (int i = 0; i < bits; i++) {
        if (((address[i / 8] ^ base[i / 8]) >> (7 - i % 8) & 1) != 0) {
            return false;
        }
    }
    return true;
}

static bool guard4(const uint8_t address[4]) {
    struct sockaddr_in in = { .sin_family = AF_INET };
    memcpy(&in.sin_addr, address, 4);
    return address_is_public((const struct sockaddr *)&in);
}

static bool guard6(const uint8_t address[16]) {
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
    memcpy(&in6.sin6_addr, address, 16);
    return address_is_public((const struct sockaddr *)&in6);
}

static void check4(const uint8_t address[4]) {
    bool special = false;
    for (size_t i = 0; i < sizeof special4 / sizeof *special4; i++) {
        special = special || is_in(address, AF_INET, special4[i]);
    }
    promise(guard4(address) == !special);
    uint8_t mapped[16] = { [10] = 0xff, [11] = 0xff }, nat64[16] = { 0x00, 0x64, 0xff, 0x9b },
            six[16] = { 0x20, 0x02 };
    memcpy(mapped + 12, address, 4);
    memcpy(nat64 + 12, address, 4);
    memcpy(six + 2, address, 4);
    promise(guard6(mapped) == !special && guard6(nat64) == !special && guard6(six) == !special);
}

static void check6(const uint8_t address[16]) {
    static const uint8_t prefixes[2][12] = { { [10] = 0xff, [11] = 0xff },
                                             { 0x00, 0x64, 0xff, 0x9b } };
    if (!guard6(address)) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        if (memcmp(address, prefixes[i], 12) == 0) {
            promise(guard4(address + 12));
            return;
        }
    }
    for (size_t i = 0; i < sizeof special6 / sizeof *special6; i++) {
        promise(!is_in(address, AF_INET6, special6[i]));
    }
    promise(address[0] != 0x20 || address[1] != 0x02 || guard4(address + 2));
    promise((address[0] & 0xe0) == 0x20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO(free) char *text = text_of(data, size);
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    if (size >= 4) {
        check4(data);
    }
    if (size >= 16) {
        check6(data);
    }
    if (strlen(text) > 200 || getaddrinfo(text, NULL, &hints, &found) != 0) {
        return 0;
    }
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next) {
        struct in_addr number;
        if (at->ai_family == AF_INET) {
            const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)at->ai_addr;
            promise(inet_aton(text, &number) == 1 && number.s_addr == in->sin_addr.s_addr);
            promise(address_is_public(at->ai_addr) == guard4((const uint8_t *)&number));
            check4((const uint8_t *)&number);
        } else {
            const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)at->ai_addr;
            promise(address_is_public(at->ai_addr) == guard6(in6->sin6_addr.s6_addr));
            check6(in6->sin6_addr.s6_addr);
        }
    }
    freeaddrinfo(found);
    return 0;
}
