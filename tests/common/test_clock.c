/* Seen to fail: tests/mutations, all-come-back-at-once. */
#include "tests/common/unit.h"

#include "common/clock.h"
#include <stdlib.h>

static void waits_are_spread_by_a_fifth_each_way(void **state) {
    int least = 0, most = 0, between = 0;
    (void)state;
    srandom(1);
    for (int i = 0; i < 10000; i++) {
        int64_t ms = with_jitter(5000);
        assert_in_range(ms, 4000, 6000);
        least += ms < 4200;
        most += ms > 5800;
        between += ms > 4900 && ms < 5100;
    }
    assert_in_range(least, 500, 2000);
    assert_in_range(most, 500, 2000);
    assert_in_range(between, 200, 1500);
    assert_int_equal(with_jitter(0), 0);
}

static void time_goes_on(void **state) {
    (void)state;
    int64_t ms = clock_ms(), us = clock_us();
    assert_in_range(us / 1000 - ms, 0, 10000);
    assert_true(clock_us() >= us && clock_ms() >= ms);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_are_spread_by_a_fifth_each_way),
        cmocka_unit_test(time_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
