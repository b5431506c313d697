/* The promises of tests/support/invariants.c, asked of one database: `invariants URL`. */
#include "support.h"

static void the_promises_hold(void **state) {
    assert_int_equal(invariants_hold(state), 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_promises_hold) };
    if (argc != 2) {
        return 2;
    }
    PQfinish(connect_to(argv[1])); /* the one that is looked at */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
