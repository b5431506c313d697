#include "support.h"

#include "common/rfc3339.h"
#include <string.h>

static void times_and_their_zones_are_read(void **state) {
    static const struct {
        const char *text;
        int64_t us;
    } rows[] = {
        { "1970-01-01T00:00:00Z", 0 },
        { "1970-01-01T01:00:00+01:00", 0 },
        { "1969-12-31T23:59:59.5Z", -500000 },
        { "2026-05-06T09:00:00.000Z", 1778058000000000 },
        { "2024-02-29T12:00:00.123456789-05:30", 1709227800123456 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t us = 1;
        assert_int_equal(rfc3339_parse("at", rows[i].text, &us), DJ_OK);
        assert_int_equal(us, rows[i].us);
    }
}

static void what_is_no_time_is_refused_by_name(void **state) {
    static const char *const texts[] = { "",
                                         "2026-05-06",
                                         "2026-05-06T09:00:00",
                                         "2026-02-29T00:00:00Z",
                                         "2026-13-01T00:00:00Z",
                                         "2026-05-06T24:00:00Z",
                                         "2026-05-06T09:60:00Z",
                                         "2026-05-06T09:00:00.Z",
                                         "2026-05-06T09:00:00+0100",
                                         "2026-05-06T09:00:00Zx",
                                         "0000-01-01T00:00:00Z",
                                         "now" };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int64_t us = 7;
        assert_int_equal(rfc3339_parse("at", texts[i], &us), DJ_INVALID_ARGUMENT);
        assert_non_null(strstr(dj_error_message(), "at "));
        assert_int_equal(us, 7);
    }
}

static void printing_is_utc_with_milliseconds(void **state) {
    char text[32];
    (void)state;
    rfc3339_print(1778058000123456, text);
    assert_string_equal(text, "2026-05-06T09:00:00.123Z");
    rfc3339_print(-500000, text);
    assert_string_equal(text, "1969-12-31T23:59:59.500Z");
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(times_and_their_zones_are_read),
                                        cmocka_unit_test(what_is_no_time_is_refused_by_name),
                                        cmocka_unit_test(printing_is_utc_with_milliseconds) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
