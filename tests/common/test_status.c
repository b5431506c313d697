#include "tests/common/unit.h"

#include "common/text.h"
#include <pthread.h>

static void a_failure_keeps_its_message_and_answers_its_status(void **state) {
    (void)state;
    assert_fails(dj_fail(DJ_TOO_LARGE, "payload is %d bytes", 7), DJ_TOO_LARGE,
                 "payload is 7 bytes");
}

static void a_message_is_one_line(void **state) {
    (void)state;
    (void)dj_fail(DJ_UNAVAILABLE, "no answer\n\tfrom the server\x7f\n");
    assert_string_equal(dj_error_message(), "no answer from the server");
}

static void a_long_message_is_cut_between_characters(void **state) {
    (void)state;
    char text[2000];
    for (size_t shift = 0; shift < 3; shift++) { /* so that the cut falls on every byte of one */
        size_t length = shift;
        memset(text, 'a', length);
        for (; length + 3 < sizeof text; length += 3) {
            memcpy(text + length, "\xE2\x82\xAC", 3);
        }
        text[length] = '\0';
        (void)dj_fail(DJ_FAILED, "%s", text);
        size_t kept = strlen(dj_error_message());
        assert_in_range(kept, 1020, 1023);
        assert_true(text_is_utf8(dj_error_message(), kept));
        assert_null(strchr(dj_error_message(), '?'));
    }
}

static void bytes_that_are_no_text_do_not_hide_the_rest(void **state) {
    (void)state;
    (void)dj_fail(DJ_INVALID_ARGUMENT, "job '%s' is not a name", "caf\xe9");
    assert_string_equal(dj_error_message(), "job 'caf?' is not a name");
}

static void a_message_may_quote_the_last_one(void **state) {
    (void)state;
    (void)dj_fail(DJ_FAILED, "disk full");
    (void)dj_fail(DJ_FAILED, "step save: %s", dj_error_message());
    assert_string_equal(dj_error_message(), "step save: disk full");
}

static void *fail_elsewhere(void *context) {
    (void)context;
    (void)dj_fail(DJ_FAILED, "elsewhere");
    return NULL;
}

static void each_thread_has_its_own_message(void **state) {
    (void)state;
    pthread_t thread;
    (void)dj_fail(DJ_FAILED, "here");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(dj_error_message(), "here");
}

static void sqlstates_have_their_status(void **state) {
    (void)state;
    static const struct {
        const char *sqlstate;
        dj_status status;
    } cases[] = {
        { NULL, DJ_UNAVAILABLE },
        { "08006", DJ_UNAVAILABLE },
        { "25006", DJ_UNAVAILABLE },
        { "40001", DJ_UNAVAILABLE },
        { "40P01", DJ_UNAVAILABLE },
        { "53100", DJ_UNAVAILABLE },
        { "53300", DJ_UNAVAILABLE },
        { "55P03", DJ_UNAVAILABLE },
        { "57014", DJ_UNAVAILABLE },
        { "57P01", DJ_UNAVAILABLE },
        { "57P03", DJ_UNAVAILABLE },
        { "DJ001", DJ_INVALID_ARGUMENT },
        { "DJ002", DJ_IDEMPOTENCY_CONFLICT },
        { "DJ003", DJ_NOT_FOUND },
        { "DJ004", DJ_TOO_LARGE },
        { "DJ005", DJ_LEASE_LOST },
        { "DJ006", DJ_NOT_ALLOWED },
        { "DJ007", DJ_INTERNAL },
        { "22P02", DJ_INVALID_ARGUMENT },
        { "22P05", DJ_INVALID_ARGUMENT },
        { "54000", DJ_TOO_LARGE },
        { "42501", DJ_NOT_ALLOWED },
        { "42P01", DJ_INTERNAL },
        { "25001", DJ_INTERNAL },
        { "55000", DJ_INTERNAL },
        { "XX000", DJ_INTERNAL },
        { "", DJ_INTERNAL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_string_equal(dj_status_name(status_from_sqlstate(cases[i].sqlstate)),
                            dj_status_name(cases[i].status));
    }
}

static void every_status_has_a_name_a_code_and_an_exit_status_of_its_own(void **state) {
    (void)state;
    for (int a = DJ_OK; a <= DJ_INTERNAL; a++) {
        assert_true(dj_status_name((dj_status)a)[0] != '\0');
        assert_true(status_code((dj_status)a)[0] != '\0');
        assert_in_range(status_http((dj_status)a), 200, 599);
        for (int b = DJ_OK; b < a; b++) {
            assert_int_not_equal(status_exit_code((dj_status)a), status_exit_code((dj_status)b));
            assert_string_not_equal(dj_status_name((dj_status)a), dj_status_name((dj_status)b));
        }
    }
    assert_int_equal(status_exit_code(DJ_OK), 0);
    assert_int_equal(status_exit_code(DJ_INVALID_ARGUMENT), 2);
}

static void the_contracts_errors_have_its_http_codes(void **state) {
    (void)state;
    assert_int_equal(status_http(DJ_INVALID_ARGUMENT), 400);
    assert_string_equal(status_code(DJ_INVALID_ARGUMENT), "invalid_argument");
    assert_int_equal(status_http(DJ_IDEMPOTENCY_CONFLICT), 409);
    assert_string_equal(status_code(DJ_IDEMPOTENCY_CONFLICT), "idempotency_conflict");
    assert_int_equal(status_http(DJ_NOT_FOUND), 404);
    assert_string_equal(status_code(DJ_NOT_FOUND), "not_found");
    assert_int_equal(status_http(DJ_TOO_LARGE), 413);
    assert_string_equal(status_code(DJ_TOO_LARGE), "payload_too_large");
    assert_int_equal(status_http(DJ_LEASE_LOST), 409);
    assert_string_equal(status_code(DJ_LEASE_LOST), "conflict");
    assert_int_equal(status_http(DJ_NOT_ALLOWED), 409);
    assert_string_equal(status_code(DJ_NOT_ALLOWED), "conflict");
    assert_int_equal(status_http(DJ_UNAVAILABLE), 503);
    assert_string_equal(status_code(DJ_UNAVAILABLE), "unavailable");
}

static void a_number_that_is_no_status_is_an_internal_error(void **state) {
    (void)state;
    assert_string_equal(dj_status_name((dj_status)99), dj_status_name(DJ_INTERNAL));
}

static void no_result_and_no_connection_are_unavailable(void **state) {
    (void)state;
    assert_fails(dj_fail_result(NULL), DJ_UNAVAILABLE, "no answer");
    assert_fails(dj_fail_pg(NULL), DJ_UNAVAILABLE, "connection is gone");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_keeps_its_message_and_answers_its_status),
        cmocka_unit_test(a_message_is_one_line),
        cmocka_unit_test(a_long_message_is_cut_between_characters),
        cmocka_unit_test(bytes_that_are_no_text_do_not_hide_the_rest),
        cmocka_unit_test(a_message_may_quote_the_last_one),
        cmocka_unit_test(each_thread_has_its_own_message),
        cmocka_unit_test(sqlstates_have_their_status),
        cmocka_unit_test(every_status_has_a_name_a_code_and_an_exit_status_of_its_own),
        cmocka_unit_test(the_contracts_errors_have_its_http_codes),
        cmocka_unit_test(a_number_that_is_no_status_is_an_internal_error),
        cmocka_unit_test(no_result_and_no_connection_are_unavailable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
