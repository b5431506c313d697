#include "support.h"

#include "common/buf.h"
#include <stdlib.h>
#include <string.h>

static void it_grows_up_to_its_limit_and_no_further(void **state) {
    struct buf buf;
    (void)state;
    buf_init(&buf, 1000);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(buf_add(&buf, "0123456789", 10), DJ_OK);
    }
    assert_int_equal(buf_add(&buf, "x", 1), DJ_TOO_LARGE);
    assert_int_equal(buf.length, 1000);
    assert_int_equal(strlen(buf.data), 1000);
    buf_done(&buf);
}

static void what_is_taken_is_the_takers(void **state) {
    struct buf buf;
    (void)state;
    buf_init(&buf, 100);
    char *empty = buf_take(&buf);
    assert_string_equal(empty, "");
    free(empty);
    assert_int_equal(buf_addf(&buf, "%d-%s", 7, "x"), DJ_OK);
    char *text = buf_take(&buf);
    assert_string_equal(text, "7-x");
    assert_int_equal(buf.length, 0);
    free(text);
    buf_done(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(it_grows_up_to_its_limit_and_no_further),
                                        cmocka_unit_test(what_is_taken_is_the_takers) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
