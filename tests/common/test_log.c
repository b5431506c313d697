#include "tests/common/unit.h"

#include "common/bounds.h"
#include "common/log.h"
#include "common/text.h"
#include <errno.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <unistd.h>

static char last_line[2 * LOG_LINE_BYTES_MAX];
static dj_level last_level;
static int line_count;

static void keep_line(void *context, dj_level level, const char *line) {
    assert_ptr_equal(context, &line_count);
    (void)snprintf(last_line, sizeof last_line, "%s", line);
    last_level = level;
    line_count++;
}

static int use_sink(void **state) {
    (void)state;
    log_set_sink(keep_line, &line_count);
    log_set_level(DJ_INFO);
    line_count = 0;
    return 0;
}

static int use_stderr(void **state) {
    (void)state;
    log_set_sink(NULL, NULL);
    log_set_level(DJ_INFO);
    return 0;
}

static void an_event_is_its_name_its_keys_and_values(void **state) {
    (void)state;
    log_warning("turn.delayed", "run", "01890a5d-ac96", "count", LOG_INT(-7), "reason",
                "disk full");
    assert_string_equal(last_line, "turn.delayed run=01890a5d-ac96 count=-7 reason=\"disk full\"");
    assert_int_equal(last_level, DJ_WARNING);
}

static void an_event_may_be_only_a_name(void **state) {
    (void)state;
    log_error("worker.lost");
    assert_string_equal(last_line, "worker.lost");
}

static void several_numbers_fit_in_one_line(void **state) {
    (void)state;
    log_info("sum", "a", LOG_INT(1), "b", LOG_INT(INT64_MIN), "c", LOG_INT(INT64_MAX));
    assert_string_equal(last_line, "sum a=1 b=-9223372036854775808 c=9223372036854775807");
}

static void no_value_can_forge_a_line(void **state) {
    (void)state;
    log_info("e", "k", "a\nb\t\"c\" \\ \x1b[31m\x7f");
    assert_string_equal(last_line, "e k=\"a\\x0ab\\x09\\\"c\\\" \\\\ \\x1b[31m\\x7f\"");
    log_info("e", "k", "x\xC2\x9B y");
    assert_string_equal(last_line, "e k=\"x\\xc2\\x9b y\"");
}

static void text_stays_and_what_is_none_is_escaped(void **state) {
    (void)state;
    log_info("e", "k", "5 \xE2\x82\xAC caf\xE9");
    assert_string_equal(last_line, "e k=\"5 \xE2\x82\xAC caf\\xe9\"");
}

static void absent_and_empty_values_are_empty(void **state) {
    (void)state;
    log_info("e", "a", (const char *)NULL, "b", "");
    assert_string_equal(last_line, "e a=\"\" b=\"\"");
}

static void a_long_value_is_cut_between_characters(void **state) {
    (void)state;
    char value[3000];
    for (size_t shift = 0; shift < 3; shift++) {
        memset(value, 'a', sizeof value);
        for (size_t at = shift; at + 3 < sizeof value; at += 3) {
            memcpy(value + at, "\xE2\x82\xAC", 3);
        }
        value[sizeof value - 1] = '\0';
        log_info("e", "k", value, "next", "1");
        assert_in_range(strlen(last_line), 1024, 1050);
        assert_null(strstr(last_line, "\\x"));
        assert_string_equal(last_line + strlen(last_line) - 9, "\xAC\" next=1");
    }
}

static void a_long_line_ends_well_formed(void **state) {
    (void)state;
    char value[1025];
    for (size_t length = 1000; length < sizeof value; length++) { /* the end falls everywhere */
        memset(value, 'a', length);
        value[0] = ' ';
        value[length] = '\0';
        log_info("e", "k1", value, "k2", value, "k3", value, "k4", value, "k5", value, "k6", value,
                 "k7", value, "k8", value, "k9", value);
        size_t kept = strlen(last_line);
        assert_in_range(kept, LOG_LINE_BYTES_MAX - 1100, LOG_LINE_BYTES_MAX - 1);
        assert_true(text_is_utf8(last_line, kept));
        int quotes = 0;
        for (const char *at = last_line; *at != '\0'; at++) {
            quotes += *at == '"';
        }
        assert_int_equal(quotes % 2, 0);
    }
}

static void what_is_below_the_level_is_not_said(void **state) {
    (void)state;
    log_debug("e");
    assert_int_equal(line_count, 0);
    log_set_level(DJ_ERROR);
    log_warning("e");
    assert_int_equal(line_count, 0);
    log_error("e");
    assert_int_equal(line_count, 1);
    log_set_level(DJ_DEBUG);
    log_debug("e");
    assert_int_equal(line_count, 2);
}

/* What the function writes to standard error. */
static void capture(void (*write_lines)(void), char *out, size_t size) {
    int saved = dup(STDERR_FILENO);
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_true(saved >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    write_lines();
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    rewind(file);
    size_t length = fread(out, 1, size - 1, file);
    out[length] = '\0';
    (void)fclose(file);
    (void)close(saved);
}

static void write_one(void) {
    log_set_program("durable-test");
    errno = ENOENT;
    log_info("turn.delayed", "reason", "no \"room\"");
    assert_int_equal(errno, ENOENT);
}

static void on_standard_error_a_line_has_time_level_and_program(void **state) {
    (void)state;
    char text[500];
    regex_t form;
    capture(write_one, text, sizeof text);
    assert_int_equal(regcomp(&form,
                             "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
                             "\\.[0-9]{3}Z info durable-test turn\\.delayed "
                             "reason=\"no \\\\\"room\\\\\"\"\n$",
                             REG_EXTENDED | REG_NOSUB),
                     0);
    assert_int_equal(regexec(&form, text, 0, NULL, 0), 0);
    regfree(&form);
}

static void *write_many(void *context) {
    for (int i = 0; i < 200; i++) {
        log_info("many", "thread", context, "padding", "0123456789 0123456789 0123456789");
    }
    return NULL;
}

static void write_from_threads(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, "name"), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void lines_of_threads_do_not_mix(void **state) {
    (void)state;
    static char text[200000];
    capture(write_from_threads, text, sizeof text);
    int lines = 0;
    for (char *line = text; *line != '\0'; lines++) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        assert_non_null(
            strstr(line, " many thread=name padding=\"0123456789 0123456789 0123456789\""));
        assert_int_equal(strlen(line), strlen(text));
        line = end + 1;
    }
    assert_int_equal(lines, 800);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_event_is_its_name_its_keys_and_values, use_sink),
        cmocka_unit_test_setup(an_event_may_be_only_a_name, use_sink),
        cmocka_unit_test_setup(several_numbers_fit_in_one_line, use_sink),
        cmocka_unit_test_setup(no_value_can_forge_a_line, use_sink),
        cmocka_unit_test_setup(text_stays_and_what_is_none_is_escaped, use_sink),
        cmocka_unit_test_setup(absent_and_empty_values_are_empty, use_sink),
        cmocka_unit_test_setup(a_long_value_is_cut_between_characters, use_sink),
        cmocka_unit_test_setup(a_long_line_ends_well_formed, use_sink),
        cmocka_unit_test_setup(what_is_below_the_level_is_not_said, use_sink),
        cmocka_unit_test_setup(on_standard_error_a_line_has_time_level_and_program, use_stderr),
        cmocka_unit_test_setup(lines_of_threads_do_not_mix, use_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
