#include "tests/common/unit.h"

#include "common/db_params.h"
#include "tests/common/failing_malloc.h"

/* Parameter `number` has exactly these bytes. */
static void assert_bytes(const struct db_params *params, int number, const char *bytes,
                         int length) {
    const char *const *values = params_values(params);
    assert_true(number < params->count);
    assert_int_equal(params->formats[number], 1);
    assert_int_equal(params->lengths[number], length);
    assert_memory_equal(values[number], bytes, (size_t)length);
}

static void values_are_in_network_order(void **state) {
    (void)state;
    struct db_params params;
    struct uuid uuid = { .bytes = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 } };
    params_init(&params);
    params_add_int2(&params, -2);
    params_add_int4(&params, 0x01020304);
    params_add_int8(&params, -1);
    params_add_bool(&params, true);
    params_add_bool(&params, false);
    params_add_uuid(&params, &uuid);
    params_add_text(&params, "abc");
    params_add_text(&params, "");
    params_add_jsonb(&params, "{}");
    params_add_timestamptz(&params, 946684800000001); /* a microsecond after 2000 began */
    assert_ok(params_status(&params));
    assert_bytes(&params, 0, "\xFF\xFE", 2);
    assert_bytes(&params, 1, "\1\2\3\4", 4);
    assert_bytes(&params, 2, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 8);
    assert_bytes(&params, 3, "\1", 1);
    assert_bytes(&params, 4, "\0", 1);
    assert_bytes(&params, 5, (const char *)uuid.bytes, 16);
    assert_bytes(&params, 6, "abc", 3);
    assert_bytes(&params, 7, "", 0);
    assert_bytes(&params, 8, "\1{}", 3);
    assert_bytes(&params, 9, "\0\0\0\0\0\0\0\1", 8);
    params_done(&params);
}

static void nulls_have_no_value(void **state) {
    (void)state;
    struct db_params params;
    params_init(&params);
    params_add_null(&params);
    params_add_text(&params, NULL);
    params_add_jsonb(&params, NULL);
    params_add_text(&params, "");
    assert_ok(params_status(&params));
    assert_int_equal(params.count, 4);
    const char *const *values = params_values(&params);
    assert_null(values[0]);
    assert_null(values[1]);
    assert_null(values[2]);
    assert_non_null(values[3]);
    params_done(&params);
}

static void an_array_has_its_header_and_each_elements_length(void **state) {
    (void)state;
    struct db_params params;
    params_init(&params);
    params_array_begin(&params, DB_INT4);
    params_array_int4(&params, 7);
    params_array_int4(&params, -1);
    params_array_end(&params);
    params_array_begin(&params, DB_TEXT);
    params_array_text(&params, "ab");
    params_array_text(&params, NULL);
    params_array_end(&params);
    params_array_begin(&params, DB_JSONB);
    params_array_jsonb(&params, "1");
    params_array_end(&params);
    assert_ok(params_status(&params));
    assert_bytes(&params, 0,
                 "\0\0\0\1\0\0\0\0\0\0\0\x17\0\0\0\2\0\0\0\1"
                 "\0\0\0\4\0\0\0\7\0\0\0\4\xFF\xFF\xFF\xFF",
                 36);
    assert_bytes(&params, 1,
                 "\0\0\0\1\0\0\0\1\0\0\0\x19\0\0\0\2\0\0\0\1"
                 "\0\0\0\2ab\xFF\xFF\xFF\xFF",
                 30);
    assert_bytes(&params, 2,
                 "\0\0\0\1\0\0\0\0\0\0\x0E\xDA\0\0\0\1\0\0\0\1"
                 "\0\0\0\2\1"
                 "1",
                 26);
    params_done(&params);
}

static void elements_of_every_type_have_their_size(void **state) {
    (void)state;
    struct db_params params;
    struct uuid uuid = { .bytes = { 9 } };
    params_init(&params);
    params_array_begin(&params, DB_UUID);
    params_array_uuid(&params, &uuid);
    params_array_end(&params);
    params_array_begin(&params, DB_INT2);
    params_array_int2(&params, 258);
    params_array_end(&params);
    params_array_begin(&params, DB_INT8);
    params_array_int8(&params, 1);
    params_array_null(&params);
    params_array_end(&params);
    params_array_begin(&params, DB_BOOL);
    params_array_bool(&params, true);
    params_array_end(&params);
    params_array_begin(&params, DB_TIMESTAMPTZ);
    params_array_timestamptz(&params, 946684800000000);
    params_array_end(&params);
    assert_ok(params_status(&params));
    const int lengths[] = { 40, 26, 36, 25, 32 };
    for (int i = 0; i < 5; i++) {
        assert_int_equal(params.lengths[i], lengths[i]);
    }
    assert_memory_equal(params_values(&params)[1] + 20, "\0\0\0\2\1\2", 6);
    assert_memory_equal(params_values(&params)[4] + 20, "\0\0\0\x8\0\0\0\0\0\0\0\0", 12);
    params_done(&params);
}

static void an_empty_array_has_no_dimension(void **state) {
    (void)state;
    struct db_params params;
    params_init(&params);
    params_array_begin(&params, DB_UUID);
    params_array_end(&params);
    params_add_int4(&params, 5);
    assert_ok(params_status(&params));
    assert_bytes(&params, 0, "\0\0\0\0\0\0\0\0\0\0\x0B\x86", 12);
    assert_bytes(&params, 1, "\0\0\0\5", 4);
    params_done(&params);
}

static void values_stay_right_while_the_buffer_grows(void **state) {
    (void)state;
    struct db_params params;
    params_init(&params);
    params_add_text(&params, "first");
    params_array_begin(&params, DB_INT8);
    for (int64_t i = 0; i < 100000; i++) {
        params_array_int8(&params, i);
    }
    params_array_end(&params);
    assert_ok(params_status(&params));
    assert_bytes(&params, 0, "first", 5);
    assert_int_equal(params.lengths[1], 20 + 12 * 100000);
    assert_memory_equal(params_values(&params)[1] + 20 + 12 * 99999,
                        "\0\0\0\x8\0\0\0\0\0\1\x86\x9F", 12);
    params_done(&params);
}

/* A bit of everything, as a worker's commit has it. */
static void fill(struct db_params *params) {
    char text[300];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    params_add_text(params, text);
    params_array_begin(params, DB_TEXT);
    for (int i = 0; i < 5; i++) {
        params_array_text(params, i == 3 ? NULL : text);
    }
    params_array_end(params);
    params_array_begin(params, DB_INT8);
    params_array_end(params);
    params_add_jsonb(params, "{}");
}

static void whichever_allocation_fails_the_status_says_so(void **state) {
    (void)state;
    for (int failing = 1;; failing++) {
        struct db_params params;
        params_init(&params);
        malloc_fails_at = failing;
        fill(&params);
        bool failed = malloc_fails_at == 0;
        malloc_fails_at = 0;
        if (!failed) {
            assert_true(failing > 2);
            assert_ok(params_status(&params));
            params_done(&params);
            return;
        }
        assert_fails(params_status(&params), DJ_NO_MEMORY, "no memory");
        params_done(&params);
    }
}

static void whichever_byte_is_over_the_limit_the_status_says_so(void **state) {
    (void)state;
    struct db_params whole;
    params_init(&whole);
    fill(&whole);
    for (size_t bytes = 0; bytes < whole.bytes.length; bytes += 3) {
        struct db_params params;
        params_init(&params);
        params.bytes.bytes_max = bytes;
        fill(&params);
        assert_fails(params_status(&params), DJ_TOO_LARGE, "too large");
        params_done(&params);
    }
    params_done(&whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_in_network_order),
        cmocka_unit_test(nulls_have_no_value),
        cmocka_unit_test(an_array_has_its_header_and_each_elements_length),
        cmocka_unit_test(elements_of_every_type_have_their_size),
        cmocka_unit_test(an_empty_array_has_no_dimension),
        cmocka_unit_test(values_stay_right_while_the_buffer_grows),
        cmocka_unit_test(whichever_allocation_fails_the_status_says_so),
        cmocka_unit_test(whichever_byte_is_over_the_limit_the_status_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
