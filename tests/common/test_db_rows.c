#include "tests/common/unit.h"

#include "common/auto.h"
#include "common/db_rows.h"
#include "common/db_types.h"

/* One row of one column, called `value`. `length` -1: null. */
static PGresult *row_of(enum db_type type, int format, const char *bytes, int length) {
    PGresult *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    char name[] = "value";
    PGresAttDesc column = { .name = name, .format = format, .typid = (Oid)type, .typlen = -1 };
    assert_non_null(rows);
    assert_int_equal(PQsetResultAttrs(rows, 1, &column), 1);
    assert_int_equal(PQsetvalue(rows, 0, 0, (char *)bytes, length), 1);
    return rows;
}

static void numbers_are_read_from_network_order(void **state) {
    (void)state;
    AUTO(pgresult) PGresult *two = row_of(DB_INT2, 1, "\xFF\xFE", 2);
    AUTO(pgresult) PGresult *four = row_of(DB_INT4, 1, "\1\2\3\4", 4);
    AUTO(pgresult)
    PGresult *eight = row_of(DB_INT8, 1, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFE", 8);
    AUTO(pgresult) PGresult *yes = row_of(DB_BOOL, 1, "\1", 1);
    int16_t int2;
    int32_t int4;
    int64_t int8;
    bool boolean;
    assert_ok(rows_int2(two, 0, 0, &int2));
    assert_ok(rows_int4(four, 0, 0, &int4));
    assert_ok(rows_int8(eight, 0, 0, &int8));
    assert_ok(rows_bool(yes, 0, 0, &boolean));
    assert_int_equal(int2, -2);
    assert_int_equal(int4, 0x01020304);
    assert_int_equal(int8, -2);
    assert_true(boolean);
}

static void texts_and_ids_are_read(void **state) {
    (void)state;
    AUTO(pgresult) PGresult *text = row_of(DB_TEXT, 1, "abc", 3);
    AUTO(pgresult) PGresult *json = row_of(DB_JSONB, 1, "\1{}", 3);
    AUTO(pgresult) PGresult *id = row_of(DB_UUID, 1, "0123456789abcdef", 16);
    const char *value;
    size_t length;
    struct uuid uuid;
    assert_ok(rows_text(text, 0, 0, &value, &length));
    assert_string_equal(value, "abc");
    assert_int_equal(length, 3);
    assert_ok(rows_jsonb_text(json, 0, 0, &value, &length));
    assert_string_equal(value, "{}");
    assert_int_equal(length, 2);
    assert_ok(rows_uuid(id, 0, 0, &uuid));
    assert_memory_equal(uuid.bytes, "0123456789abcdef", 16);
}

static void times_count_from_1970_and_infinity_is_none(void **state) {
    (void)state;
    AUTO(pgresult)
    PGresult *time = row_of(DB_TIMESTAMPTZ, 1, "\0\0\0\0\0\0\0\1", 8);
    AUTO(pgresult)
    PGresult *never = row_of(DB_TIMESTAMPTZ, 1, "\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 8);
    AUTO(pgresult)
    PGresult *always = row_of(DB_TIMESTAMPTZ, 1, "\x80\0\0\0\0\0\0\0", 8);
    int64_t us = 0;
    assert_ok(rows_timestamptz(time, 0, 0, &us));
    assert_int_equal(us, 946684800000001);
    assert_fails(rows_timestamptz(never, 0, 0, &us), DJ_INTERNAL, "finite time");
    assert_fails(rows_timestamptz(always, 0, 0, &us), DJ_INTERNAL, "finite time");
}

static void an_odd_value_is_an_error_that_names_its_column(void **state) {
    (void)state;
    AUTO(pgresult) PGresult *null = row_of(DB_INT4, 1, NULL, -1);
    AUTO(pgresult)
    PGresult *other_type = row_of(DB_INT8, 1, "\0\0\0\0\0\0\0\1", 8);
    AUTO(pgresult) PGresult *other_size = row_of(DB_INT4, 1, "\0\0\1", 3);
    AUTO(pgresult) PGresult *as_text = row_of(DB_INT4, 0, "1234", 4);
    AUTO(pgresult) PGresult *good = row_of(DB_INT4, 1, "\0\0\0\1", 4);
    int32_t value = 7;
    static const char expected[] = "column value has no integer where one was expected";
    assert_fails(rows_int4(null, 0, 0, &value), DJ_INTERNAL, expected);
    assert_fails(rows_int4(other_type, 0, 0, &value), DJ_INTERNAL, expected);
    assert_fails(rows_int4(other_size, 0, 0, &value), DJ_INTERNAL, expected);
    assert_fails(rows_int4(as_text, 0, 0, &value), DJ_INTERNAL, expected);
    assert_fails(rows_int4(good, 1, 0, &value), DJ_INTERNAL, expected);
    assert_fails(rows_int4(good, -1, 0, &value), DJ_INTERNAL, expected);
    assert_fails(rows_int4(good, 0, 1, &value), DJ_INTERNAL, "column ? has no integer");
    assert_int_equal(value, 7);
    assert_true(rows_is_null(null, 0, 0));
    assert_false(rows_is_null(good, 0, 0));
}

static void an_unknown_version_of_jsonb_is_refused(void **state) {
    (void)state;
    AUTO(pgresult) PGresult *version_2 = row_of(DB_JSONB, 1, "\2{}", 3);
    AUTO(pgresult) PGresult *empty = row_of(DB_JSONB, 1, "\1", 1);
    const char *text;
    size_t length;
    assert_fails(rows_jsonb_text(version_2, 0, 0, &text, &length), DJ_INTERNAL, "no jsonb");
    assert_fails(rows_jsonb_text(empty, 0, 0, &text, &length), DJ_INTERNAL, "no jsonb");
}

#define ARRAY_OF_TWO "\0\0\0\1\0\0\0\1\0\0\0\x19\0\0\0\2\0\0\0\1\0\0\0\2ab\xFF\xFF\xFF\xFF"
#define ARRAY_OF_TWO_BYTES 30

static void a_text_array_is_read_element_by_element(void **state) {
    (void)state;
    AUTO(pgresult)
    PGresult *rows = row_of(DB_TEXT_ARRAY, 1, ARRAY_OF_TWO, ARRAY_OF_TWO_BYTES);
    struct db_text_array array;
    const char *text;
    size_t length;
    assert_ok(rows_text_array(rows, 0, 0, &array));
    assert_int_equal(array.count, 2);
    assert_ok(db_text_array_next(&array, &text, &length));
    assert_int_equal(length, 2);
    assert_memory_equal(text, "ab", 2);
    assert_ok(db_text_array_next(&array, &text, &length));
    assert_null(text);
    assert_int_equal(array.count, 0);
    assert_fails(db_text_array_next(&array, &text, &length), DJ_INTERNAL, "fewer elements");
}

static void an_empty_text_array_has_no_elements(void **state) {
    (void)state;
    AUTO(pgresult)
    PGresult *rows = row_of(DB_TEXT_ARRAY, 1, "\0\0\0\0\0\0\0\0\0\0\0\x19", 12);
    struct db_text_array array;
    assert_ok(rows_text_array(rows, 0, 0, &array));
    assert_int_equal(array.count, 0);
}

static void a_text_array_cut_anywhere_is_refused(void **state) {
    (void)state;
    for (int bytes = 0; bytes < ARRAY_OF_TWO_BYTES; bytes++) {
        AUTO(pgresult)
        PGresult *rows = row_of(DB_TEXT_ARRAY, 1, ARRAY_OF_TWO, bytes);
        struct db_text_array array;
        const char *text;
        size_t length;
        dj_status status = rows_text_array(rows, 0, 0, &array);
        for (int i = 0; status == DJ_OK && i < 2; i++) {
            status = db_text_array_next(&array, &text, &length);
        }
        assert_int_equal(status, DJ_INTERNAL);
    }
}

static void an_array_of_more_dimensions_or_another_type_is_refused(void **state) {
    (void)state;
    char bytes[ARRAY_OF_TWO_BYTES];
    struct db_text_array array;
    memcpy(bytes, ARRAY_OF_TWO, sizeof bytes);
    bytes[3] = 2;
    AUTO(pgresult)
    PGresult *square = row_of(DB_TEXT_ARRAY, 1, bytes, sizeof bytes);
    assert_fails(rows_text_array(square, 0, 0, &array), DJ_INTERNAL, "one-dimensional text[]");
    memcpy(bytes, ARRAY_OF_TWO, sizeof bytes);
    bytes[11] = DB_INT4;
    AUTO(pgresult)
    PGresult *numbers = row_of(DB_TEXT_ARRAY, 1, bytes, sizeof bytes);
    assert_fails(rows_text_array(numbers, 0, 0, &array), DJ_INTERNAL, "one-dimensional text[]");
    memcpy(bytes, ARRAY_OF_TWO, sizeof bytes);
    bytes[12] = '\x7F'; /* two billion elements */
    AUTO(pgresult) PGresult *many = row_of(DB_TEXT_ARRAY, 1, bytes, sizeof bytes);
    assert_fails(rows_text_array(many, 0, 0, &array), DJ_INTERNAL, "sound text[]");
}

static void columns_are_checked_as_a_whole(void **state) {
    (void)state;
    AUTO(pgresult) PGresult *rows = row_of(DB_INT4, 1, "\0\0\0\1", 4);
    AUTO(pgresult) PGresult *none = PQmakeEmptyPGresult(NULL, PGRES_COMMAND_OK);
    static const enum db_type right[] = { DB_INT4, DB_TEXT }, wrong[] = { DB_TEXT };
    assert_ok(rows_check(rows, 1, right));
    assert_fails(rows_check(rows, 2, right), DJ_INTERNAL, "1 columns where 2 were expected");
    assert_fails(rows_check(rows, 1, wrong), DJ_INTERNAL, "column value is of type 23 where 25");
    assert_fails(rows_check(none, 0, right), DJ_INTERNAL, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_read_from_network_order),
        cmocka_unit_test(texts_and_ids_are_read),
        cmocka_unit_test(times_count_from_1970_and_infinity_is_none),
        cmocka_unit_test(an_odd_value_is_an_error_that_names_its_column),
        cmocka_unit_test(an_unknown_version_of_jsonb_is_refused),
        cmocka_unit_test(a_text_array_is_read_element_by_element),
        cmocka_unit_test(an_empty_text_array_has_no_elements),
        cmocka_unit_test(a_text_array_cut_anywhere_is_refused),
        cmocka_unit_test(an_array_of_more_dimensions_or_another_type_is_refused),
        cmocka_unit_test(columns_are_checked_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
