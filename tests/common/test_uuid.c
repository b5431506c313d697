#include "support.h"

#include "common/uuid.h"
#include <string.h>

static void a_uuid_is_read_and_printed(void **state) {
    struct uuid uuid;
    char text[UUID_TEXT_BYTES];
    (void)state;
    assert_int_equal(uuid_parse("run_id", "01A20A7C-222c-72ec-b5ad-8ec26b7824c0", &uuid), DJ_OK);
    uuid_print(&uuid, text);
    assert_string_equal(text, "01a20a7c-222c-72ec-b5ad-8ec26b7824c0");
}

static void what_is_no_uuid_is_refused_by_name(void **state) {
    static const char *const texts[] = { "",
                                         "01a20a7c",
                                         "01a20a7c-222c-72ec-b5ad-8ec26b7824c",
                                         "01a20a7c-222c-72ec-b5ad-8ec26b7824c00",
                                         "01a20a7c-222c-72ec-b5ad_8ec26b7824c0",
                                         "g1a20a7c-222c-72ec-b5ad-8ec26b7824c0" };
    struct uuid uuid;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(uuid_parse("run_id", texts[i], &uuid), DJ_INVALID_ARGUMENT);
        assert_non_null(strstr(dj_error_message(), "run_id"));
    }
    assert_int_equal(uuid_parse("run_id", NULL, &uuid), DJ_INVALID_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_uuid_is_read_and_printed),
                                        cmocka_unit_test(what_is_no_uuid_is_refused_by_name) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
