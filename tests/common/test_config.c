#include "support.h"

#include "common/config.h"
#include <stdlib.h>
#include <string.h>

static const char *text;
static int number;
static int64_t wait_ms;
static bool on;
static struct config_texts texts;
static const struct config_option options[] = {
    { .flag = "name", .environment = "TEST_CONFIG_NAME", .kind = CONFIG_TEXT, .target = &text },
    { .flag = "slots", .kind = CONFIG_INT, .target = &number, .min = 1, .max = 10 },
    { .flag = "wait", .kind = CONFIG_DURATION, .target = &wait_ms },
    { .flag = "on", .kind = CONFIG_SWITCH, .target = &on },
    { .flag = "tag", .kind = CONFIG_TEXTS, .target = &texts },
    { .flag = NULL },
};
static const struct config_command command = { .program = "test",
                                               .options = options,
                                               .arguments_max = 2 };

static dj_status parse(int argc, const char *const words[], char *argv[]) {
    int first;
    for (int i = 0; i < argc; i++) {
        argv[i] = (char *)words[i];
    }
    argv[argc] = NULL;
    return config_parse(&command, argc, argv, &first);
}

static void flags_are_read_in_all_their_forms(void **state) {
    static const char *const words[] = { "test", "--name=x", "a", "--slots", "3",  "--wait", "1m",
                                         "--on", "--tag",    "1", "--tag=2", "--", "--b" };
    char *argv[20];
    (void)state;
    assert_int_equal(parse(13, words, argv), DJ_OK);
    assert_string_equal(text, "x");
    assert_int_equal(number, 3);
    assert_int_equal(wait_ms, 60000);
    assert_true(on);
    assert_int_equal(texts.count, 2);
    assert_string_equal(argv[1], "a");
    assert_string_equal(argv[2], "--b");
    assert_null(argv[3]);
}

static void the_environment_comes_first_and_flags_win(void **state) {
    static const char *const none[] = { "test" };
    static const char *const one[] = { "test", "--name", "flag" };
    char *argv[20];
    (void)state;
    (void)setenv("TEST_CONFIG_NAME", "environment", 1);
    assert_int_equal(parse(1, none, argv), DJ_OK);
    assert_string_equal(text, "environment");
    assert_int_equal(parse(3, one, argv), DJ_OK);
    assert_string_equal(text, "flag");
    (void)unsetenv("TEST_CONFIG_NAME");
}

static void mistakes_are_named_with_what_is_allowed(void **state) {
    static const struct {
        const char *words[4];
        int count;
        const char *says;
    } rows[] = {
        { { "test", "--slots", "11" }, 3, "1 to 10" },
        { { "test", "--slots", "x" }, 3, "--slots" },
        { { "test", "--slost", "1" }, 3, "--slots" },
        { { "test", "--name" }, 2, "needs a value" },
        { { "test", "a", "b", "c" }, 4, "too many" },
        { { "test", "--wait", "soon" }, 3, "--wait" },
    };
    char *argv[20];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(parse(rows[i].count, rows[i].words, argv), DJ_INVALID_ARGUMENT);
        if (strstr(dj_error_message(), rows[i].says) == NULL) {
            fail_msg("%s lacks %s", dj_error_message(), rows[i].says);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(flags_are_read_in_all_their_forms),
                                        cmocka_unit_test(the_environment_comes_first_and_flags_win),
                                        cmocka_unit_test(mistakes_are_named_with_what_is_allowed) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
