/* Values to the database and back, in binary. */
#include "support.h"

#include "common/db_conn.h"
#include "common/db_params.h"
#include "common/db_rows.h"
#include <stdlib.h>
#include <string.h>

static PGconn *conn;

static int setup(void **state) {
    (void)state;
    return db_conn_open(getenv("DURABLE_TEST_URL"), "test", &conn) == DJ_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    db_conn_close(conn);
    return 0;
}

static void values_come_back_as_they_went(void **state) {
    static const Oid types[] = { DB_UUID, DB_INT4, DB_INT8, DB_BOOL, DB_TEXT, DB_JSONB, DB_TEXT };
    const struct db_call call = { .name = "x",
                                  .sql = "select $1, $2, $3, $4, $5, $6, $7",
                                  .param_count = 7,
                                  .param_types = types };
    struct uuid id, id_back;
    struct db_params params;
    PGresult *rows = NULL;
    int32_t int4;
    int64_t int8;
    bool flag;
    const char *text;
    size_t length;
    (void)state;
    assert_int_equal(uuid_parse("id", "01a20a7c-222c-72ec-b5ad-8ec26b7824c0", &id), DJ_OK);
    params_init(&params);
    params_add_uuid(&params, &id);
    params_add_int4(&params, INT32_MIN);
    params_add_int8(&params, INT64_MIN);
    params_add_bool(&params, true);
    params_add_text(&params, "é");
    params_add_jsonb(&params, "{\"a\": 9007199254740993}");
    params_add_text(&params, NULL);
    assert_int_equal(db_exec(conn, &call, &params, &rows), DJ_OK);
    params_done(&params);
    assert_int_equal(rows_uuid(rows, 0, 0, &id_back), DJ_OK);
    assert_true(uuid_equal(&id, &id_back));
    assert_int_equal(rows_int4(rows, 0, 1, &int4), DJ_OK);
    assert_int_equal(int4, INT32_MIN);
    assert_int_equal(rows_int8(rows, 0, 2, &int8), DJ_OK);
    assert_true(int8 == INT64_MIN);
    assert_int_equal(rows_bool(rows, 0, 3, &flag), DJ_OK);
    assert_true(flag);
    assert_int_equal(rows_text(rows, 0, 4, &text, &length), DJ_OK);
    assert_int_equal(length, 2);
    assert_int_equal(rows_jsonb_text(rows, 0, 5, &text, &length), DJ_OK);
    assert_memory_equal(text, "{\"a\": 9007199254740993}", length);
    assert_true(rows_is_null(rows, 0, 6));
    assert_int_equal(rows_int8(rows, 0, 1, &int8), DJ_INTERNAL); /* another type */
    assert_int_equal(rows_int4(rows, 1, 1, &int4), DJ_INTERNAL); /* no such row */
    PQclear(rows);
}

static void arrays_come_back_as_they_went(void **state) {
    static const Oid types[] = { DB_TEXT_ARRAY, DB_INT8_ARRAY, DB_JSONB_ARRAY };
    const struct db_call call = {
        .name = "x",
        .sql = "select $1, array_to_string($2, ',') || ' ' || cardinality($3)",
        .param_count = 3,
        .param_types = types
    };
    struct db_params params;
    struct db_text_array array;
    PGresult *rows = NULL;
    const char *text;
    size_t length;
    (void)state;
    params_init(&params);
    params_array_begin(&params, DB_TEXT);
    params_array_text(&params, "one");
    params_array_text(&params, NULL);
    params_array_text(&params, "");
    params_array_end(&params);
    params_array_begin(&params, DB_INT8);
    params_array_int8(&params, -7);
    params_array_int8(&params, 8);
    params_array_end(&params);
    params_array_begin(&params, DB_JSONB);
    params_array_end(&params);
    assert_int_equal(db_exec(conn, &call, &params, &rows), DJ_OK);
    params_done(&params);
    assert_int_equal(rows_text_array(rows, 0, 0, &array), DJ_OK);
    assert_int_equal(array.count, 3);
    assert_int_equal(db_text_array_next(&array, &text, &length), DJ_OK);
    assert_memory_equal(text, "one", 3);
    assert_int_equal(db_text_array_next(&array, &text, &length), DJ_OK);
    assert_null(text);
    assert_int_equal(db_text_array_next(&array, &text, &length), DJ_OK);
    assert_int_equal(length, 0);
    assert_int_equal(db_text_array_next(&array, &text, &length), DJ_INTERNAL);
    assert_int_equal(rows_text(rows, 0, 1, &text, &length), DJ_OK);
    assert_memory_equal(text, "-7,8 0", 6);
    PQclear(rows);
}

static void times_and_short_numbers_come_back_as_they_went(void **state) {
    static const Oid types[] = { DB_INT2, DB_TIMESTAMPTZ };
    static const enum db_type columns[] = { DB_INT2, DB_TIMESTAMPTZ, DB_TEXT, DB_TIMESTAMPTZ };
    const struct db_call call = { .name = "x",
                                  .sql = "select $1, $2, to_char($2 at time zone 'UTC', "
                                         "'YYYY-MM-DD HH24:MI:SS.US'), 'infinity'::timestamptz",
                                  .param_count = 2,
                                  .param_types = types };
    struct db_params params;
    PGresult *rows = NULL;
    int16_t int2;
    int64_t us;
    const char *text;
    size_t length;
    (void)state;
    params_init(&params);
    params_add_int2(&params, INT16_MIN);
    params_add_timestamptz(&params, 1778058000123456);
    assert_int_equal(db_exec(conn, &call, &params, &rows), DJ_OK);
    params_done(&params);
    assert_int_equal(rows_check(rows, 4, columns), DJ_OK);
    assert_int_equal(rows_int2(rows, 0, 0, &int2), DJ_OK);
    assert_int_equal(int2, INT16_MIN);
    assert_int_equal(rows_timestamptz(rows, 0, 1, &us), DJ_OK);
    assert_true(us == 1778058000123456);
    assert_int_equal(rows_text(rows, 0, 2, &text, &length), DJ_OK);
    assert_string_equal(text, "2026-05-06 09:00:00.123456");
    assert_int_equal(rows_timestamptz(rows, 0, 3, &us), DJ_INTERNAL);
    PQclear(rows);
}

static void arrays_of_every_type_arrive(void **state) {
    static const Oid types[] = {
        DB_UUID_ARRAY, DB_INT2_ARRAY,        DB_INT4_ARRAY, DB_INT8_ARRAY,
        DB_BOOL_ARRAY, DB_TIMESTAMPTZ_ARRAY, DB_TEXT_ARRAY, DB_JSONB_ARRAY
    };
    const struct db_call call = { .name = "x",
                                  .sql = "select concat_ws(' ', $1::text, $2::text, "
                                         "$3::text, $4::text, $5::text, "
                                         "extract(epoch from $6[1])::bigint::text || "
                                         "($6[2] is null)::text, $7::text, $8::text)",
                                  .param_count = 8,
                                  .param_types = types };
    struct uuid id;
    struct db_params params;
    PGresult *rows = NULL;
    const char *text;
    size_t length;
    (void)state;
    assert_int_equal(uuid_parse("id", "01a20a7c-222c-72ec-b5ad-8ec26b7824c0", &id), DJ_OK);
    params_init(&params);
#define ARRAY(type, add)                                                                           \
    params_array_begin(&params, type);                                                             \
    add;                                                                                           \
    params_array_null(&params);                                                                    \
    params_array_end(&params)
    ARRAY(DB_UUID, params_array_uuid(&params, &id));
    ARRAY(DB_INT2, params_array_int2(&params, -2));
    ARRAY(DB_INT4, params_array_int4(&params, -4));
    ARRAY(DB_INT8, params_array_int8(&params, -8));
    ARRAY(DB_BOOL, params_array_bool(&params, true));
    ARRAY(DB_TIMESTAMPTZ, params_array_timestamptz(&params, 1778058000000000));
    ARRAY(DB_TEXT, params_array_text(&params, "t"));
    ARRAY(DB_JSONB, params_array_jsonb(&params, "1"));
#undef ARRAY
    assert_int_equal(db_exec(conn, &call, &params, &rows), DJ_OK);
    params_done(&params);
    assert_int_equal(rows_text(rows, 0, 0, &text, &length), DJ_OK);
    assert_string_equal(text, "{01a20a7c-222c-72ec-b5ad-8ec26b7824c0,NULL} "
                              "{-2,NULL} {-4,NULL} {-8,NULL} "
                              "{t,NULL} 1778058000true {t,NULL} {1,NULL}");
    PQclear(rows);
}

static void an_error_keeps_the_servers_words_and_its_status(void **state) {
    const struct db_call call = { .name = "x", .sql = "select 1/0" };
    struct db_params params;
    PGresult *rows = NULL;
    (void)state;
    params_init(&params);
    assert_int_equal(db_exec(conn, &call, &params, &rows), DJ_INVALID_ARGUMENT);
    assert_string_equal(dj_error_message(), "division by zero");
    assert_null(rows);
    params_done(&params);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_as_they_went),
        cmocka_unit_test(arrays_come_back_as_they_went),
        cmocka_unit_test(times_and_short_numbers_come_back_as_they_went),
        cmocka_unit_test(arrays_of_every_type_arrive),
        cmocka_unit_test(an_error_keeps_the_servers_words_and_its_status)
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
