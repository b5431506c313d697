#include "support.h"

#include "common/duration.h"
#include <string.h>

static void each_unit_and_sums_are_read(void **state) {
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {
        { "500ms", 500 },
        { "30s", 30000 },
        { "5m", 300000 },
        { "24h", 86400000 },
        { "30d", 2592000000 },
        { "1h30m", 5400000 },
        { "1d2h3m4s5ms", 93784005 },
        { "3650d", 315360000000 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t ms = -1;
        assert_int_equal(duration_parse("timeout", rows[i].text, &ms), DJ_OK);
        assert_int_equal(ms, rows[i].ms);
    }
}

static void what_is_no_duration_is_refused_by_name(void **state) {
    static const char *const texts[] = { "",    "5",    "s",  "-5s",   "5 s",
                                         "5x",  "1.5h", "0s", "3651d", "99999999999999999999d",
                                         "5m ", "+5m",  "5S" };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int64_t ms = 7;
        assert_int_equal(duration_parse("timeout", texts[i], &ms), DJ_INVALID_ARGUMENT);
        assert_non_null(strstr(dj_error_message(), "timeout"));
        assert_int_equal(ms, 7);
    }
    int64_t ms;
    assert_int_equal(duration_parse("timeout", NULL, &ms), DJ_INVALID_ARGUMENT);
}

static void printing_and_reading_agree(void **state) {
    (void)state;
    for (int64_t ms = 1; ms < 315360000000; ms = ms * 3 + 1) {
        char text[32];
        int64_t back;
        duration_print(ms, text);
        assert_int_equal(duration_parse("t", text, &back), DJ_OK);
        assert_int_equal(back, ms);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(each_unit_and_sums_are_read),
                                        cmocka_unit_test(what_is_no_duration_is_refused_by_name),
                                        cmocka_unit_test(printing_and_reading_agree) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
