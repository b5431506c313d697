#include "common/address_guard.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

static bool is_public(const char *text) {
    struct sockaddr_in in = { .sin_family = AF_INET };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
        assert_int_equal(address_text_is_public(text),
                         address_is_public((const struct sockaddr *)&in));
        return address_is_public((const struct sockaddr *)&in);
    }
    if (inet_pton(AF_INET6, text, &in6.sin6_addr) != 1) {
        fail_msg("%s is no address", text);
    }
    assert_int_equal(address_text_is_public(text),
                     address_is_public((const struct sockaddr *)&in6));
    return address_is_public((const struct sockaddr *)&in6);
}

static void addresses_of_the_internet_are_allowed(void **state) {
    static const char *const allowed[] = {
        "1.1.1.1",        "8.8.8.8",         "9.255.255.255",   "11.0.0.0",
        "100.63.255.255", "100.128.0.0",     "126.255.255.255", "128.0.0.0",
        "172.15.255.255", "172.32.0.0",      "192.167.255.255", "192.169.0.0",
        "198.17.255.255", "198.20.0.0",      "223.255.255.255", "2606:4700:4700::1111",
        "2a00::1",        "2002:808:808::1", "::ffff:8.8.8.8",  "64:ff9b::808:808"
    };
    (void)state;
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        if (!is_public(allowed[i])) {
            fail_msg("%s is refused", allowed[i]);
        }
    }
}

static void addresses_of_other_networks_are_refused(void **state) {
    static const char *const refused[] = { "0.0.0.0",
                                           "0.255.255.255",
                                           "10.0.0.0",
                                           "10.255.255.255",
                                           "100.64.0.0",
                                           "100.127.255.255",
                                           "127.0.0.1",
                                           "127.255.255.255",
                                           "169.254.0.1",
                                           "169.254.169.254",
                                           "172.16.0.1",
                                           "172.31.255.255",
                                           "192.0.0.1",
                                           "192.0.2.1",
                                           "192.88.99.1",
                                           "192.168.0.1",
                                           "192.168.255.255",
                                           "198.18.0.1",
                                           "198.19.255.255",
                                           "198.51.100.1",
                                           "203.0.113.1",
                                           "224.0.0.1",
                                           "239.255.255.255",
                                           "240.0.0.1",
                                           "255.255.255.255",
                                           "::",
                                           "::1",
                                           "::ffff:127.0.0.1",
                                           "::ffff:169.254.169.254",
                                           "::ffff:10.0.0.1",
                                           "::127.0.0.1",
                                           "64:ff9b::7f00:1",
                                           "64:ff9b::a00:1",
                                           "64:ff9b:1::1",
                                           "100::1",
                                           "2001::1",
                                           "2001:1::1",
                                           "2001:db8::1",
                                           "2002:7f00:1::1",
                                           "2002:a00:1::1",
                                           "3fff::1",
                                           "fc00::1",
                                           "fd00::1",
                                           "fe80::1",
                                           "fec0::1",
                                           "ff02::1",
                                           "4000::1" };
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (is_public(refused[i])) {
            fail_msg("%s is allowed", refused[i]);
        }
    }
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    assert_false(address_is_public((const struct sockaddr *)&un));
    assert_false(address_text_is_public(""));
    assert_false(address_text_is_public("/run/socket"));
    assert_false(address_text_is_public("8.8.8.8 "));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_of_the_internet_are_allowed),
        cmocka_unit_test(addresses_of_other_networks_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
