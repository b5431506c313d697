#include "support.h"

#include "common/text.h"
#include <string.h>

static void names_have_200_of_their_characters(void **state) {
    char long_name[202];
    (void)state;
    memset(long_name, 'a', sizeof long_name);
    long_name[201] = '\0';
    assert_int_equal(check_name("job", long_name), DJ_INVALID_ARGUMENT);
    long_name[200] = '\0';
    assert_int_equal(check_name("job", long_name), DJ_OK);
    assert_int_equal(check_name("job", "a.b:c/d@e-f_9"), DJ_OK);
    static const char *const bad[] = { "", "a b", "a\n", "é", "a;b", NULL };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(check_name("job", bad[i]), DJ_INVALID_ARGUMENT);
        assert_non_null(strstr(dj_error_message(), "job"));
    }
}

static void keys_are_512_bytes_of_utf8(void **state) {
    char key[514];
    (void)state;
    memset(key, 'k', sizeof key);
    key[513] = '\0';
    assert_int_equal(check_key("key", key), DJ_INVALID_ARGUMENT);
    key[512] = '\0';
    assert_int_equal(check_key("key", key), DJ_OK);
    assert_int_equal(check_key("key", "über: 日本"), DJ_OK);
    assert_int_equal(check_key("key", ""), DJ_INVALID_ARGUMENT);
    assert_int_equal(check_key("key", "\xff"), DJ_INVALID_ARGUMENT);
    assert_int_equal(check_key("key", NULL), DJ_INVALID_ARGUMENT);
}

static void utf8_has_no_overlong_and_no_surrogates(void **state) {
    (void)state;
    assert_true(text_is_utf8("\xf4\x8f\xbf\xbf", 4));
    assert_false(text_is_utf8("\xf4\x90\x80\x80", 4));
    assert_false(text_is_utf8("\xed\xa0\x80", 3));
    assert_false(text_is_utf8("\xc0\xaf", 2));
    assert_false(text_is_utf8("\xe2\x82", 2));
    assert_true(text_is_utf8("", 0));
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(names_have_200_of_their_characters),
                                        cmocka_unit_test(keys_are_512_bytes_of_utf8),
                                        cmocka_unit_test(utf8_has_no_overlong_and_no_surrogates) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
