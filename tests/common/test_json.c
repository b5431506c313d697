#include "tests/common/unit.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/json.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

static dj_status parse(const char *text, json_object **ret_value) {
    return json_parse("payload", text, strlen(text), PAYLOAD_BYTES_MAX, ret_value);
}

/* Both the parser and the check alone refuse it, with these words. */
static void assert_refused(const char *text, const char *part) {
    json_object *value = (json_object *)&value; /* must be left alone */
    assert_fails(parse(text, &value), DJ_INVALID_ARGUMENT, part);
    assert_ptr_equal(value, &value);
    assert_fails(json_check("payload", text, strlen(text), PAYLOAD_BYTES_MAX), DJ_INVALID_ARGUMENT,
                 part);
}

/* Parsed, and printed again, it is `printed`. */
static void assert_becomes(const char *text, const char *printed) {
    AUTO(json) json_object *value = NULL;
    AUTO(buf) struct buf out;
    buf_init(&out, PAYLOAD_BYTES_MAX);
    assert_ok(json_check("payload", text, strlen(text), PAYLOAD_BYTES_MAX));
    assert_ok(parse(text, &value));
    assert_ok(json_print("payload", value, PAYLOAD_BYTES_MAX, &out));
    assert_string_equal(out.data, printed);
}

static void values_of_every_type_are_read_and_printed(void **state) {
    (void)state;
    assert_becomes("null", "null");
    assert_becomes("true", "true");
    assert_becomes(" false\n", "false");
    assert_becomes("0", "0");
    assert_becomes("-12", "-12");
    assert_becomes("123 ", "123");
    assert_becomes("1.50", "1.50");
    assert_becomes("-1.5e-400", "-1.5e-400");
    assert_becomes("1E+400", "1E+400");
    assert_becomes("\"\"", "\"\"");
    assert_becomes("[]", "[]");
    assert_becomes("{}", "{}");
    assert_becomes(" [ 1 , [ ] , { } , null ] ", "[1,[],{},null]");
    assert_becomes("{ \"a\" : { \"b\" : [ true ] } }", "{\"a\":{\"b\":[true]}}");
}

static void strings_keep_their_characters(void **state) {
    (void)state;
    assert_becomes("\"\\u00e9\"", "\"\xC3\xA9\"");
    assert_becomes("\"\\u20ac \\ud83d\\ude00 \\/ \xE2\x82\xAC\"",
                   "\"\xE2\x82\xAC \xF0\x9F\x98\x80 / \xE2\x82\xAC\"");
    assert_becomes("\"\\\"\\\\\\b\\f\\n\\r\\t\"", "\"\\\"\\\\\\b\\f\\n\\r\\t\"");
}

/* As long as PostgreSQL prints it, or somewhat longer. */
static void a_text_is_as_long_as_it_is_stored(void **state) {
    static const struct {
        const char *text, *stored;
    } rows[] = {
        { "null", "null" },
        { "[true,false,{}]", "[true, false, {}]" },
        { "{\"a,b:\\\"c\":\"1e300\"}", "{\"a,b:\\\"c\": \"1e300\"}" },
        { "[[1,2],{\"e\":[]}]", "[[1, 2], {\"e\": []}]" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(json_stored_length(rows[i].text, strlen(rows[i].text)),
                         strlen(rows[i].stored));
    }
    assert_in_range(json_stored_length("1e300", 5), 301, 310);
    assert_in_range(json_stored_length("[-1.5E-300]", 11), 306, 315);
}

static void a_stored_value_is_read_whatever_its_type(void **state) {
    (void)state;
    static const char *const stored[] = { "1", "true", "null", "-1.5", "\"x\"", "{}", "[1, 2]" };
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++) {
        AUTO(json) json_object *value = NULL;
        assert_ok(json_read(stored[i], strlen(stored[i]), &value));
    }
    json_object *value;
    assert_fails(json_read("[1", 2, &value), DJ_INTERNAL, "a stored value is not JSON");
}

static void what_is_read_need_not_be_closed_by_a_zero_byte(void **state) {
    (void)state;
    static const char text[] = { '[', '1', ']' };
    char *exact = malloc(sizeof text); /* the sanitizer sees a byte too many */
    assert_non_null(exact);
    memcpy(exact, text, sizeof text);
    AUTO(json) json_object *list = NULL;
    AUTO(json) json_object *number = NULL;
    assert_ok(json_parse("payload", exact, 3, 3, &list));
    assert_ok(json_parse("payload", exact + 1, 1, 1, &number));
    assert_int_equal(json_object_get_int(number), 1);
    for (size_t length = 0; length < 3; length++) {
        json_object *value;
        assert_fails(json_parse("payload", exact, length, 3, &value), DJ_INVALID_ARGUMENT,
                     "it ends before");
    }
    free(exact);
}

static void what_is_not_json_is_refused_where_it_begins(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        { "", "payload, at byte 0: it ends before its value does" },
        { "  ", "at byte 2: it ends" },
        { "[1", "it ends before" },
        { "{\"a\":", "it ends before" },
        { "{\"a\"", "a colon is expected" },
        { "1 2", "at byte 2: something follows" },
        { "{}x", "at byte 2: something follows" },
        { "[]]", "at byte 2: something follows" },
        { "}{", "at byte 0: a JSON value" },
        { "[}", "at byte 1: a JSON value" },
        { "{]", "at byte 1: a key" },
        { "[1}", "at byte 2: a comma or ]" },
        { "{\"a\":1]", "at byte 6: a comma or }" },
        { "[1 2]", "at byte 3: a comma or ]" },
        { "[1,]", "at byte 3: a JSON value" },
        { "[,1]", "at byte 1: a JSON value" },
        { "{\"a\":1,}", "at byte 7: a key" },
        { "{\"a\" 1}", "at byte 5: a colon" },
        { "{1:2}", "at byte 1: a key" },
        { "{a:2}", "at byte 1: a key" },
        { "'a'", "a JSON value" },
        { "/*c*/1", "a JSON value" },
        { "True", "a JSON value" },
        { "nul", "a JSON value" },
        { "nullx", "at byte 4: something follows" },
        { "\f1", "a JSON value" },
        { "\xEF\xBB\xBF{}", "a JSON value" },
        { "\"a", "a string has no end" },
        { "\"a\\", "is allowed after \\" },
        { "\"\\x\"", "is allowed after \\" },
        { "\"a\nb\"", "at byte 2: control characters" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_refused(cases[i].text, cases[i].part);
    }
}

static void numbers_json_does_not_have_are_refused(void **state) {
    (void)state;
    static const char *const wrong[] = { "NaN", "Infinity", "-Infinity", "[NaN]", "01",  "-01",
                                         "1.",  ".5",       "-.5",       "-",     "+1",  "1e",
                                         "1e+", "1.e5",     "0x10",      "1_000", "--1", "1e5.5" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_refused(wrong[i], "payload, at byte");
    }
}

static void numbers_have_up_to_400_digits(void **state) {
    (void)state;
    char text[JSON_NUMBER_DIGITS_MAX + 4] = "-";
    memset(text + 1, '9', JSON_NUMBER_DIGITS_MAX);
    assert_ok(json_check("payload", text, strlen(text), sizeof text));
    text[JSON_NUMBER_DIGITS_MAX + 1] = '9';
    assert_refused(text, "numbers of up to 400 digits");
    text[200] = '.'; /* in all, before and behind the point */
    assert_ok(json_check("payload", text, strlen(text), sizeof text));
    text[JSON_NUMBER_DIGITS_MAX + 2] = '9';
    assert_refused(text, "numbers of up to 400 digits");
}

static void exponents_are_within_400(void **state) {
    (void)state;
    assert_becomes("1e400", "1e400");
    assert_becomes("1e-0400", "1e-0400");
    assert_refused("1e401", "exponents from -400 to 400");
    assert_refused("1e-401", "exponents from -400 to 400");
    assert_refused("1e99999999999999999999", "exponents from -400 to 400");
}

static void characters_postgresql_cannot_store_are_refused(void **state) {
    (void)state;
    assert_refused("\"\\u0000\"", "\\u0000 cannot be stored");
    assert_refused("{\"\\u0000\":1}", "\\u0000 cannot be stored");
    assert_refused("\"\\ud83d\"", "half of a surrogate pair");
    assert_refused("\"\\ud83dx\"", "half of a surrogate pair");
    assert_refused("\"\\ud800\\u0041\"", "half of a surrogate pair");
    assert_refused("\"\\udc00x\"", "half of a surrogate pair");
    assert_refused("\"\\ud83d\\n\"", "half of a surrogate pair");
    assert_refused("\"\\ud83d\\ud83d\"", "half of a surrogate pair");
    assert_refused("\"\\ude00\"", "half of a surrogate pair");
    assert_refused("\"\\u12g4\"", "four hexadecimal digits");
    assert_refused("\"\\u12", "four hexadecimal digits");
    assert_refused("\"\xFF\"", "payload is not UTF-8");
    assert_refused("\"\xC0\x80\"", "payload is not UTF-8");
    assert_refused("\"\xED\xA0\x80\"", "payload is not UTF-8");
}

/* json-c 0.16 takes those whose last 16 bits are of a surrogate for half a character. */
static void a_character_escaped_as_a_pair_is_itself(void **state) {
    (void)state;
    assert_becomes("\"\\ud83d\\ude00\"", "\"\xF0\x9F\x98\x80\"");
    assert_becomes("\"\\ud836\\ude00\"", "\"\xF0\x9D\xA8\x80\"");
    assert_becomes("\"\\uD877\\uDC00x\"", "\"\xF0\xAD\xB0\x80x\"");
    assert_becomes("[\"\\\\\\ud836\\ude00\\\\ud836\"]", "[\"\\\\\xF0\x9D\xA8\x80\\\\ud836\"]");
    assert_becomes("{\"\\ud836\\ude00\":1}", "{\"\xF0\x9D\xA8\x80\":1}");
}

static void a_zero_byte_is_refused_wherever_it_is(void **state) {
    (void)state;
    static const char text[] = "{\"a\\n\":[1,\"b\"]} ";
    char copy[sizeof text];
    for (size_t at = 0; at < sizeof text - 1; at++) {
        memcpy(copy, text, sizeof text);
        copy[at] = '\0';
        json_object *value;
        assert_int_equal(json_parse("payload", copy, sizeof text - 1, 100, &value),
                         DJ_INVALID_ARGUMENT);
    }
}

static void cut_anywhere_it_is_refused(void **state) {
    (void)state;
    static const char text[] = "{\"a\":[1.5e3,\"\\ud83d\\ude00\\n\",true,null],\"b\":{}}";
    assert_ok(json_check("payload", text, sizeof text - 1, 100));
    for (size_t length = 0; length < sizeof text - 1; length++) {
        assert_int_equal(json_check("payload", text, length, 100), DJ_INVALID_ARGUMENT);
    }
}

static void nesting_is_up_to_64_levels(void **state) {
    (void)state;
    char text[300];
    for (int level = 0; level < JSON_DEPTH_MAX; level++) {
        text[level] = '[';
        text[JSON_DEPTH_MAX + 1 + level] = ']';
    }
    text[JSON_DEPTH_MAX] = '1';
    text[2 * JSON_DEPTH_MAX + 1] = '\0';
    assert_becomes(text, text);
    AUTO(buf) struct buf objects;
    buf_init(&objects, PAYLOAD_BYTES_MAX);
    for (int level = 0; level <= JSON_DEPTH_MAX; level++) {
        assert_ok(buf_add_text(&objects, "{\"a\":"));
    }
    assert_refused(objects.data, "it is nested too deep; 64 levels are allowed");
}

static void the_limit_of_bytes_can_be_reached_and_not_passed(void **state) {
    (void)state;
    AUTO(free) char *text = malloc(PAYLOAD_BYTES_MAX + 1);
    assert_non_null(text);
    memset(text, 'x', PAYLOAD_BYTES_MAX + 1);
    text[0] = text[PAYLOAD_BYTES_MAX - 1] = '"';
    AUTO(json) json_object *value = NULL;
    assert_ok(json_parse("payload", text, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX, &value));
    AUTO(buf) struct buf out;
    buf_init(&out, 2 * PAYLOAD_BYTES_MAX);
    assert_ok(json_print("result", value, PAYLOAD_BYTES_MAX, &out));
    assert_fails(json_print("result", value, PAYLOAD_BYTES_MAX - 1, &out), DJ_TOO_LARGE,
                 "result is 1048576 bytes; the limit is 1048575 bytes");
    assert_fails(json_print("result", NULL, 3, &out), DJ_TOO_LARGE, "result is 4 bytes");
    json_object *none;
    assert_fails(json_parse("payload", text, PAYLOAD_BYTES_MAX + 1, PAYLOAD_BYTES_MAX, &none),
                 DJ_TOO_LARGE, "payload is 1048577 bytes; the limit is 1048576 bytes");
}

static void what_json_cannot_hold_is_not_printed(void **state) {
    (void)state;
    AUTO(buf) struct buf out;
    buf_init(&out, 1000);
    AUTO(json) json_object *nan = json_object_new_double(NAN);
    assert_fails(json_print("result", nan, 1000, &out), DJ_INVALID_ARGUMENT, "NaN");
    AUTO(json) json_object *list = json_object_new_array();
    (void)json_object_array_add(list, json_object_new_double(INFINITY));
    assert_fails(json_print("result", list, 1000, &out), DJ_INVALID_ARGUMENT, "at byte 1");
    AUTO(json) json_object *latin = json_object_new_string("caf\xE9");
    assert_fails(json_print("result", latin, 1000, &out), DJ_INVALID_ARGUMENT, "UTF-8");
    AUTO(json) json_object *zero = json_object_new_string_len("a\0b", 3);
    assert_fails(json_print("result", zero, 1000, &out), DJ_INVALID_ARGUMENT, "\\u0000");
    assert_int_equal(out.length, 0);
}

static void a_value_without_bottom_is_not_printed(void **state) {
    (void)state;
    AUTO(buf) struct buf out;
    buf_init(&out, 1000);
    json_object *value = json_object_new_object();
    for (int level = 1; level < JSON_DEPTH_MAX; level++) {
        json_object *outer = json_object_new_object();
        (void)json_object_object_add(outer, "a", value);
        value = outer;
    }
    AUTO(json) json_object *deepest = value;
    assert_ok(json_print("result", deepest, 1000, &out));
    AUTO(json) json_object *deeper = json_object_new_array();
    (void)json_object_array_add(deeper, json_object_get(deepest));
    assert_fails(json_print("result", deeper, 1000, &out), DJ_INVALID_ARGUMENT,
                 "result is nested too deep; 64 levels are allowed");
    AUTO(json) json_object *circle = json_object_new_array();
    (void)json_object_array_add(circle, json_object_get(circle));
    assert_fails(json_print("result", circle, 1000, &out), DJ_INVALID_ARGUMENT, "nested too deep");
    (void)json_object_array_put_idx(circle, 0, NULL); /* or it would hold itself for ever */
}

static void printing_appends(void **state) {
    (void)state;
    AUTO(buf) struct buf out;
    buf_init(&out, 1000);
    assert_ok(buf_add_text(&out, "x="));
    assert_ok(json_print("result", NULL, 1000, &out));
    assert_string_equal(out.data, "x=null");
}

static void after_a_failure_the_next_value_is_read(void **state) {
    (void)state;
    json_object *none;
    assert_int_equal(json_read("{\"a\":[1,", 8, &none), DJ_INTERNAL);
    AUTO(json) json_object *value = NULL;
    assert_ok(json_read("[7]", 3, &value));
    assert_int_equal(json_object_array_length(value), 1);
}

static void *read_elsewhere(void *context) {
    AUTO(json) json_object *value = NULL;
    *(dj_status *)context = json_read("[1]", 3, &value);
    return NULL;
}

static void a_thread_that_reads_leaves_nothing_behind(void **state) { /* LeakSanitizer looks */
    (void)state;
    pthread_t thread;
    dj_status status = DJ_INTERNAL;
    assert_int_equal(pthread_create(&thread, NULL, read_elsewhere, &status), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(status, DJ_OK);
}

static void fields_are_read_by_their_type(void **state) {
    (void)state;
    AUTO(json) json_object *value = NULL;
    assert_ok(parse("{\"job\":\"pay\",\"n\":7,\"on\":true,\"tags\":{\"a\":\"b\"},"
                    "\"runs\":[1]}",
                    &value));
    const char *job = NULL;
    int64_t number = 0;
    bool on = false;
    json_object *tags = NULL, *runs = NULL;
    assert_ok(json_get_string(value, "job", &job));
    assert_ok(json_get_int(value, "n", 1, 7, &number));
    assert_ok(json_get_bool(value, "on", &on));
    assert_ok(json_get_object(value, "tags", &tags));
    assert_ok(json_get_array(value, "runs", &runs));
    assert_string_equal(job, "pay");
    assert_int_equal(number, 7);
    assert_true(on);
    assert_int_equal(json_object_object_length(tags), 1);
    assert_int_equal(json_object_array_length(runs), 1);
}

static void a_field_that_is_absent_or_null_leaves_the_default(void **state) {
    (void)state;
    AUTO(json) json_object *value = NULL;
    assert_ok(parse("{\"job\":null}", &value));
    const char *job = "default";
    int64_t number = 5;
    assert_ok(json_get_string(value, "job", &job));
    assert_ok(json_get_int(value, "n", 0, 10, &number));
    assert_string_equal(job, "default");
    assert_int_equal(number, 5);
    assert_fails(json_require(value, "job"), DJ_INVALID_ARGUMENT, "job is missing");
    assert_fails(json_require(value, "n"), DJ_INVALID_ARGUMENT, "n is missing");
}

static void a_field_of_another_type_or_size_is_named(void **state) {
    (void)state;
    AUTO(json) json_object *value = NULL;
    assert_ok(parse("{\"a\":1,\"b\":\"x\",\"c\":1.5,\"d\":99999999999999999999999}", &value));
    const char *text;
    int64_t number;
    bool on;
    json_object *object;
    assert_fails(json_get_string(value, "a", &text), DJ_INVALID_ARGUMENT,
                 "a is of type int; a string is allowed");
    assert_fails(json_get_int(value, "b", 0, 9, &number), DJ_INVALID_ARGUMENT, "a whole number");
    assert_fails(json_get_int(value, "c", 0, 9, &number), DJ_INVALID_ARGUMENT, "a whole number");
    assert_fails(json_get_int(value, "a", 2, 9, &number), DJ_INVALID_ARGUMENT,
                 "a is 1; 2 to 9 is allowed");
    assert_fails(json_get_int(value, "d", 0, 9, &number), DJ_INVALID_ARGUMENT, "0 to 9");
    assert_fails(json_get_bool(value, "a", &on), DJ_INVALID_ARGUMENT, "true or false");
    assert_fails(json_get_object(value, "a", &object), DJ_INVALID_ARGUMENT, "an object");
    assert_fails(json_get_array(value, "b", &object), DJ_INVALID_ARGUMENT, "an array");
}

static void a_walk_hands_out_the_parts_as_they_were_written(void **state) {
    const char *text = " { \"a\" : 1.10 , \"b\\\"\":[1, {\"x\": \"]}\"}],\"c\":\"\\u00e9\"} ";
    struct json_walk walk;
    struct json_slice key, value;
    bool more;
    (void)state;
    assert_ok(json_walk_begin(&walk, "body", text, strlen(text), /* object= */ true));
    static const char *const values[] = { "1.10", "[1, {\"x\": \"]}\"}]", "\"\\u00e9\"" };
    for (int i = 0; i < 3; i++) {
        assert_ok(json_walk_next(&walk, &more, &key, &value));
        assert_true(more);
        assert_int_equal(value.length, strlen(values[i]));
        assert_memory_equal(value.text, values[i], value.length);
    }
    assert_ok(json_walk_next(&walk, &more, &key, &value));
    assert_false(more);
    assert_ok(json_walk_begin(&walk, "list", "[]", 2, /* object= */ false));
    assert_ok(json_walk_next(&walk, &more, &key, &value));
    assert_false(more);
}

static void a_walk_leaves_what_values_hold_to_others(void **state) {
    const char *text = "[tru, \"\\u0000\", [[{]]}, 1e999, {\"a\":\"\\\"]\"}]";
    static const char *const values[] = { "tru", "\"\\u0000\"", "[[{]]}", "1e999",
                                          "{\"a\":\"\\\"]\"}" };
    struct json_walk walk;
    struct json_slice key, value;
    bool more;
    (void)state;
    assert_ok(json_walk_begin(&walk, "list", text, strlen(text), /* object= */ false));
    for (int i = 0; i < 5; i++) {
        assert_ok(json_walk_next(&walk, &more, &key, &value));
        assert_int_equal(value.length, strlen(values[i]));
        assert_memory_equal(value.text, values[i], value.length);
        assert_int_equal(json_check("value", value.text, value.length, 100),
                         i == 4 ? DJ_OK : DJ_INVALID_ARGUMENT);
    }
    assert_ok(json_walk_next(&walk, &more, &key, &value));
    assert_false(more);
}

static void depth_counts_from_what_is_inside(void **state) {
    char text[2 * 70 + 1];
    (void)state;
    for (int outer = 0; outer <= 3; outer++) {
        for (int depth = 63 + outer; depth <= 65 + outer; depth++) {
            memset(text, '[', (size_t)depth);
            memset(text + depth, ']', (size_t)depth);
            dj_status status =
                json_check_inside("value", text, 2 * (size_t)depth, sizeof text, outer);
            assert_int_equal(status, depth > 64 + outer ? DJ_INVALID_ARGUMENT : DJ_OK);
        }
    }
}

static void a_walk_names_what_is_wrong(void **state) {
    static const struct {
        const char *text, *part;
    } table[] = {
        { "{\"a\":1 \"b\":2}", "body, at byte 7" },
        { "{\"a\"}", "a colon" },
        { "{\"a\":}", "body, at byte 5: a value is expected" },
        { "{\"a\":1", "body, at byte 6" },
        { "{\"a\":1}}", "something follows" },
        { "{\"a\":1,}", "a key" },
        { "{,}", "a key" },
        { "[1]", "body is not a JSON object" },
        { "", "body is not a JSON object" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct json_walk walk;
        struct json_slice key, value;
        bool more = true;
        dj_status status =
            json_walk_begin(&walk, "body", table[i].text, strlen(table[i].text), true);
        while (status == DJ_OK && more) {
            status = json_walk_next(&walk, &more, &key, &value);
        }
        assert_fails(status, DJ_INVALID_ARGUMENT, table[i].part);
    }
}

static void a_string_is_decoded_in_its_place(void **state) {
    char text[] = "\"a\\n\\u00e9\\ud83d\\ude00\\/\\\\\"";
    (void)state;
    assert_string_equal(json_decode_string(text, strlen(text)), "a\n\xc3\xa9\xf0\x9f\x98\x80/\\");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_walk_hands_out_the_parts_as_they_were_written),
        cmocka_unit_test(a_walk_leaves_what_values_hold_to_others),
        cmocka_unit_test(depth_counts_from_what_is_inside),
        cmocka_unit_test(a_walk_names_what_is_wrong),
        cmocka_unit_test(a_string_is_decoded_in_its_place),
        cmocka_unit_test(values_of_every_type_are_read_and_printed),
        cmocka_unit_test(strings_keep_their_characters),
        cmocka_unit_test(a_text_is_as_long_as_it_is_stored),
        cmocka_unit_test(a_stored_value_is_read_whatever_its_type),
        cmocka_unit_test(what_is_read_need_not_be_closed_by_a_zero_byte),
        cmocka_unit_test(what_is_not_json_is_refused_where_it_begins),
        cmocka_unit_test(numbers_json_does_not_have_are_refused),
        cmocka_unit_test(numbers_have_up_to_400_digits),
        cmocka_unit_test(exponents_are_within_400),
        cmocka_unit_test(characters_postgresql_cannot_store_are_refused),
        cmocka_unit_test(a_character_escaped_as_a_pair_is_itself),
        cmocka_unit_test(a_zero_byte_is_refused_wherever_it_is),
        cmocka_unit_test(cut_anywhere_it_is_refused),
        cmocka_unit_test(nesting_is_up_to_64_levels),
        cmocka_unit_test(the_limit_of_bytes_can_be_reached_and_not_passed),
        cmocka_unit_test(what_json_cannot_hold_is_not_printed),
        cmocka_unit_test(a_value_without_bottom_is_not_printed),
        cmocka_unit_test(printing_appends),
        cmocka_unit_test(after_a_failure_the_next_value_is_read),
        cmocka_unit_test(a_thread_that_reads_leaves_nothing_behind),
        cmocka_unit_test(fields_are_read_by_their_type),
        cmocka_unit_test(a_field_that_is_absent_or_null_leaves_the_default),
        cmocka_unit_test(a_field_of_another_type_or_size_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
