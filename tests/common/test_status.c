#include "support.h"

#include "common/status.h"
#include <string.h>

static void each_sqlstate_has_its_status(void **state) {
    static const struct {
        const char *sqlstate;
        dj_status status;
    } rows[] = {
        { "DJ001", DJ_INVALID_ARGUMENT }, { "DJ002", DJ_IDEMPOTENCY_CONFLICT },
        { "DJ003", DJ_NOT_FOUND },        { "DJ004", DJ_TOO_LARGE },
        { "DJ005", DJ_LEASE_LOST },       { "DJ006", DJ_NOT_ALLOWED },
        { NULL, DJ_UNAVAILABLE },         { "08006", DJ_UNAVAILABLE },
        { "25006", DJ_UNAVAILABLE },      { "40P01", DJ_UNAVAILABLE },
        { "40001", DJ_UNAVAILABLE },      { "53100", DJ_UNAVAILABLE },
        { "55P03", DJ_UNAVAILABLE },      { "57014", DJ_UNAVAILABLE },
        { "57P01", DJ_UNAVAILABLE },      { "22P05", DJ_INVALID_ARGUMENT },
        { "54000", DJ_TOO_LARGE },        { "42501", DJ_NOT_ALLOWED },
        { "XX000", DJ_INTERNAL },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(status_from_sqlstate(rows[i].sqlstate), rows[i].status);
    }
}

static void a_message_is_one_line_of_text_and_may_quote_the_last_one(void **state) {
    char text[3000];
    (void)state;
    assert_int_equal(dj_fail(DJ_FAILED, "one\ntwo\x01"), DJ_FAILED);
    assert_string_equal(dj_error_message(), "one two");
    assert_int_equal(dj_fail(DJ_FAILED, "again: %s", dj_error_message()), DJ_FAILED);
    assert_string_equal(dj_error_message(), "again: one two");
    memset(text, 0xC3, sizeof text);
    text[sizeof text - 1] = '\0';
    for (size_t i = 1; i < sizeof text - 1; i += 2) {
        text[i] = (char)0xA9;
    }
    assert_int_equal(dj_fail(DJ_FAILED, "x%s", text), DJ_FAILED);
    assert_int_equal(strlen(dj_error_message()) % 2, 1); /* no half character at the end */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_sqlstate_has_its_status),
        cmocka_unit_test(a_message_is_one_line_of_text_and_may_quote_the_last_one)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
