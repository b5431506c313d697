#include "support.h"

#include "common/buf.h"
#include "common/json.h"
#include <math.h>
#include <string.h>

static dj_status parse(const char *text, size_t length) {
    json_object *value = NULL;
    dj_status status = json_parse("payload", text, length, 1000, &value);
    json_object_put(value);
    return status;
}

static void json_values_are_read(void **state) {
    static const char *const texts[] = { "{}",
                                         "[]",
                                         "null",
                                         "true",
                                         "12",
                                         "-1.5e10",
                                         "\"x\"",
                                         " {\"a\": [1, 2, {\"b\": null}]} ",
                                         "\"\\ud83d\\ude00\"",
                                         "\"\\u00e9\"",
                                         "\"é\"" };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (parse(texts[i], strlen(texts[i])) != DJ_OK) {
            fail_msg("%s: %s", texts[i], dj_error_message());
        }
    }
}

static void what_postgresql_would_not_store_is_refused_by_name(void **state) {
    static const char *const texts[] = { "",
                                         "{",
                                         "x",
                                         "{} {}",
                                         "[1,]",
                                         "{\"a\"}",
                                         "\"\\u0000\"",
                                         "\"\\ud800\"",
                                         "\"\\udc00x\"",
                                         "\"\\ud800\\u0041\"",
                                         "\"\xff\"",
                                         "\"\xc0\x80\"",
                                         "\"\xed\xa0\x80\"",
                                         "NaN",
                                         "Infinity",
                                         "\"a\nb\"",
                                         "1e401",
                                         "1e-401",
                                         "'x'" };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (parse(texts[i], strlen(texts[i])) != DJ_INVALID_ARGUMENT) {
            fail_msg("taken: %s", texts[i]);
        }
        assert_non_null(strstr(dj_error_message(), "payload"));
    }
    assert_int_equal(parse("[\0]", 3), DJ_INVALID_ARGUMENT);
}

static void depth_size_and_digits_are_limited_to_the_one(void **state) {
    char text[1100];
    (void)state;
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    assert_int_equal(parse(text, 128), DJ_OK);
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    assert_int_equal(parse(text, 130), DJ_INVALID_ARGUMENT);
    memset(text, '1', 401);
    assert_int_equal(parse(text, 400), DJ_OK);
    assert_int_equal(parse(text, 401), DJ_INVALID_ARGUMENT);
    memset(text, 'x', sizeof text);
    text[0] = text[999] = '"';
    assert_int_equal(parse(text, 1000), DJ_OK);
    text[999] = 'x';
    text[1000] = '"';
    assert_int_equal(parse(text, 1001), DJ_TOO_LARGE);
}

static void what_is_printed_is_read_back(void **state) {
    static const char text[] = "{\"a\":[1,2.50,\"x\\\"y\",null,true],\"b\":{\"c\":\"é\"}}";
    json_object *value;
    struct buf printed;
    (void)state;
    assert_int_equal(json_parse("payload", text, strlen(text), 1000, &value), DJ_OK);
    buf_init(&printed, 1000);
    assert_int_equal(json_print("result", value, 1000, &printed), DJ_OK);
    assert_string_equal(printed.data, text);
    buf_reset(&printed);
    assert_int_equal(json_print("result", value, 10, &printed), DJ_TOO_LARGE);
    assert_int_equal(json_print("result", NULL, 10, &printed), DJ_OK);
    assert_string_equal(printed.data, "null");
    json_object_put(value);
    buf_done(&printed);
}

static void what_json_cannot_hold_is_not_printed(void **state) {
    struct buf printed;
    (void)state;
    buf_init(&printed, 1000);
    json_object *nan_value = json_object_new_double(NAN);
    json_object *latin = json_object_new_string("\xe9");
    json_object *zero = json_object_new_string_len("a\0b", 3);
    assert_int_equal(json_print("result", nan_value, 1000, &printed), DJ_INVALID_ARGUMENT);
    assert_int_equal(json_print("result", latin, 1000, &printed), DJ_INVALID_ARGUMENT);
    assert_int_equal(json_print("result", zero, 1000, &printed), DJ_INVALID_ARGUMENT);
    json_object_put(nan_value);
    json_object_put(latin);
    json_object_put(zero);
    buf_done(&printed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_values_are_read),
        cmocka_unit_test(what_postgresql_would_not_store_is_refused_by_name),
        cmocka_unit_test(depth_size_and_digits_are_limited_to_the_one),
        cmocka_unit_test(what_is_printed_is_read_back),
        cmocka_unit_test(what_json_cannot_hold_is_not_printed)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
