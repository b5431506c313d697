#include "tests/common/unit.h"

#include "common/bounds.h"
#include "common/text.h"
#include <stdio.h>

static bool is_utf8(const char *text) {
    return text_is_utf8(text, strlen(text));
}

static void well_formed_text_is_utf8(void **state) {
    (void)state;
    assert_true(is_utf8(""));
    assert_true(is_utf8("plain ASCII of more than eight bytes"));
    assert_true(is_utf8("\xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80 \xEF\xBF\xBF"));
    assert_true(is_utf8("\xF0\x90\x80\x80 \xF4\x8F\xBF\xBF"));
    assert_true(text_is_utf8("zero\0byte", 9));
}

static void everything_else_is_not(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "\x80",     /* a continuation without a beginning */
        "\xC0\xAF", /* overlong */
        "\xC1\xBF",
        "\xE0\x9F\xBF",
        "\xF0\x8F\xBF\xBF",
        "\xED\xA0\x80", /* surrogates */
        "\xED\xBF\xBF",
        "\xF4\x90\x80\x80", /* beyond U+10FFFF */
        "\xF5\x80\x80\x80",
        "\xFE",
        "\xFF",
        "\xC3", /* cut */
        "\xE2\x82",
        "\xF0\x9F\x98",
        "\xC3(",
        "\xE2(\xA1",
        "\xF0\x9F(\x80",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[64];
        for (size_t before = 0; before < 17; before++) { /* at every place of the eight looked at */
            memset(text, 'a', before);
            (void)snprintf(text + before, sizeof text - before, "%s", wrong[i]);
            assert_false(is_utf8(text));
            (void)snprintf(text + before, sizeof text - before, "%sand more behind", wrong[i]);
            assert_false(is_utf8(text));
        }
    }
}

static void a_character_is_no_longer_than_what_is_there(void **state) {
    (void)state;
    assert_int_equal(text_char_bytes("a", 1), 1);
    assert_int_equal(text_char_bytes("\xE2\x82\xAC", 3), 3);
    assert_int_equal(text_char_bytes("\xE2\x82\xAC", 2), 0);
    assert_int_equal(text_char_bytes("\xF0\x9F\x98\x80", 4), 4);
}

static void names_of_the_allowed_characters_are_names(void **state) {
    (void)state;
    char name[NAME_BYTES_MAX + 2];
    memset(name, 'n', sizeof name);
    name[NAME_BYTES_MAX] = '\0';
    assert_ok(check_name("job", name));
    assert_ok(check_name("job", "a"));
    assert_ok(check_name("job", "Az09_.:/@-"));
}

static void other_names_are_refused_by_argument_and_rule(void **state) {
    (void)state;
    char name[NAME_BYTES_MAX + 2];
    memset(name, 'n', sizeof name);
    name[NAME_BYTES_MAX + 1] = '\0';
    assert_fails(check_name("job", name), DJ_INVALID_ARGUMENT, "1 to 200 characters");
    assert_fails(check_name("job", ""), DJ_INVALID_ARGUMENT, "job '' is not a name");
    assert_fails(check_name("queue", "a;b"), DJ_INVALID_ARGUMENT, "queue 'a;b'");
    assert_fails(check_name("queue", "two words"), DJ_INVALID_ARGUMENT, "queue 'two words'");
    assert_fails(check_name("queue", "caf\xC3\xA9"), DJ_INVALID_ARGUMENT, "A-Z a-z 0-9");
    assert_fails(check_name("event", "a\n"), DJ_INVALID_ARGUMENT, "event 'a '");
    assert_fails(check_name("event", NULL), DJ_INVALID_ARGUMENT, "event must not be NULL");
}

static void keys_are_up_to_512_bytes_of_utf8(void **state) {
    (void)state;
    char key[KEY_BYTES_MAX + 2];
    memset(key, 'k', sizeof key);
    key[KEY_BYTES_MAX] = '\0';
    assert_ok(check_key("key", key));
    assert_ok(check_key("key", "user 123 \xE2\x82\xAC\n"));
    key[KEY_BYTES_MAX] = 'k';
    key[KEY_BYTES_MAX + 1] = '\0';
    assert_fails(check_key("key", key), DJ_INVALID_ARGUMENT, "key is 513 bytes; 1 to 512 bytes");
    assert_fails(check_key("key", ""), DJ_INVALID_ARGUMENT, "0 bytes");
    assert_fails(check_key("key", "\xFF"), DJ_INVALID_ARGUMENT, "key is not UTF-8");
    assert_fails(check_key("key", NULL), DJ_INVALID_ARGUMENT, "NULL");
}

static void a_copy_ends_with_a_whole_character(void **state) {
    char out[8];
    (void)state;
    static const struct {
        const char *text, *copy;
    } cases[] = {
        { "", "" },
        { "1234567", "1234567" },
        { "12345678", "1234567" },
        { "12345\xC3\xA9", "12345\xC3\xA9" },
        { "123456\xC3\xA9", "123456" },
        { "12345\xC3\xA9\xC3\xA9", "12345\xC3\xA9" },
        { "1234\xF0\x9F\x98\x80", "1234" },
        { "\xF0\x9F\x98\x80\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        text_copy(out, sizeof out, cases[i].text);
        assert_string_equal(out, cases[i].copy);
    }
    text_copy(out, 1, "a");
    assert_string_equal(out, "");
}

static void a_uuid_has_its_dashes_and_digits(void **state) {
    (void)state;
    assert_true(text_is_uuid("01890a5d-ac96-774b-bcce-b302099a8057"));
    assert_true(text_is_uuid("01890A5D-AC96-774B-BCCE-B302099A8057"));
    assert_false(text_is_uuid(""));
    assert_false(text_is_uuid("01890a5d-ac96-774b-bcce-b302099a805"));
    assert_false(text_is_uuid("01890a5d-ac96-774b-bcce-b302099a80570"));
    assert_false(text_is_uuid("01890a5dxac96-774b-bcce-b302099a8057"));
    assert_false(text_is_uuid("01890a5d-ac96-774b-bcce-b302099a805g"));
    assert_false(text_is_uuid("01890a5dac96774bbcceb302099a8057"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_text_is_utf8),
        cmocka_unit_test(everything_else_is_not),
        cmocka_unit_test(a_character_is_no_longer_than_what_is_there),
        cmocka_unit_test(names_of_the_allowed_characters_are_names),
        cmocka_unit_test(other_names_are_refused_by_argument_and_rule),
        cmocka_unit_test(keys_are_up_to_512_bytes_of_utf8),
        cmocka_unit_test(a_copy_ends_with_a_whole_character),
        cmocka_unit_test(a_uuid_has_its_dashes_and_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
