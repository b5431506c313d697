/* State over libdurable: what comes back, what is refused, and whose transaction it is. */
#include "support.h"

#include <durable/client.h>
#include <string.h>

static const char *url;
static PGconn *conn;
static dj_client *client;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    return dj_client_open(url, &client) == DJ_OK ? 0 : -1;
}

static int teardown(void **state) {
    dj_client_close(client);
    return invariants_hold(state);
}

static void a_value_comes_back_with_its_version_and_end(void **state) {
    json_object *value = json_object_new_int64(7), *got = NULL;
    dj_state_info info;
    int64_t version = 0;
    (void)state;
    assert_int_equal(dj_state_get(client, "a", &got, NULL), DJ_NOT_FOUND);
    assert_non_null(strstr(dj_error_message(), "'a'"));
    assert_int_equal(
        dj_state_set(client, "a", value,
                     &(dj_state_options){ .expires_at = "2030-01-01T00:00:00Z", .if_absent = true },
                     &version),
        DJ_OK);
    assert_int_equal(dj_state_get(client, "a", &got, &info), DJ_OK);
    assert_int_equal(json_object_get_int64(got), 7);
    assert_int_equal(info.version, version);
    assert_int_equal(info.expires_at_us, 1893456000000000LL);
    json_object_put(got);

    assert_int_equal(
        dj_state_set(client, "a", value, &(dj_state_options){ .if_absent = true }, NULL),
        DJ_NOT_ALLOWED);
    assert_int_equal(
        dj_state_set(client, "a", value, &(dj_state_options){ .if_version = version + 1 }, NULL),
        DJ_NOT_ALLOWED);
    assert_int_equal(
        dj_state_set(client, "a", NULL, &(dj_state_options){ .if_version = version }, NULL), DJ_OK);
    assert_int_equal(dj_state_get(client, "a", &got, &info), DJ_OK);
    assert_null(got);
    assert_true(info.version > version);
    assert_int_equal(info.expires_at_us, 0);
    assert_int_equal(dj_state_set(client, "a", value,
                                  &(dj_state_options){ .if_absent = true, .if_version = 1 }, NULL),
                     DJ_INVALID_ARGUMENT);
    assert_int_equal(
        dj_state_set(client, "a", value, &(dj_state_options){ .if_version = -1 }, NULL),
        DJ_INVALID_ARGUMENT);
    json_object_put(value);
}

static void counters_and_locks_answer(void **state) {
    int64_t sum = 0;
    bool yes = false;
    (void)state;
    assert_int_equal(dj_state_increment(client, "n", 5, NULL, &sum), DJ_OK);
    assert_int_equal(sum, 5);
    assert_int_equal(dj_state_increment(client, "n", INT64_MIN, NULL, &sum), DJ_OK);
    assert_int_equal(sum, INT64_MIN + 5);
    assert_int_equal(dj_state_increment(client, "n", INT64_MIN, NULL, &sum), DJ_INVALID_ARGUMENT);
    assert_int_equal(dj_state_set(client, "n", NULL, NULL, NULL), DJ_OK);
    assert_int_equal(dj_state_increment(client, "n", 1, NULL, NULL), DJ_NOT_ALLOWED);
    assert_int_equal(dj_state_delete(client, "n", &yes), DJ_OK);
    assert_true(yes);
    assert_int_equal(dj_state_delete(client, "n", &yes), DJ_OK);
    assert_false(yes);

    assert_int_equal(dj_state_lock(client, "n", "me", "1h30m", &yes), DJ_OK);
    assert_true(yes);
    assert_int_equal(dj_state_lock(client, "n", "you", "30s", &yes), DJ_OK);
    assert_false(yes);
    assert_int_equal(dj_state_unlock(client, "n", "you", &yes), DJ_OK);
    assert_false(yes);
    assert_int_equal(dj_state_unlock(client, "n", "me", &yes), DJ_OK);
    assert_true(yes);
    assert_int_equal(dj_state_lock(client, "n", "me", "soon", &yes), DJ_INVALID_ARGUMENT);
    assert_non_null(strstr(dj_error_message(), "ttl"));
    assert_int_equal(dj_state_lock(client, "n", "me", NULL, &yes), DJ_INVALID_ARGUMENT);
    assert_non_null(strstr(dj_error_message(), "ttl"));
    assert_int_equal(dj_state_get(client, NULL, NULL, NULL), DJ_INVALID_ARGUMENT);
}

static void a_change_in_your_transaction_goes_with_it(void **state) {
    dj_client *wrapped;
    (void)state;
    assert_int_equal(dj_client_wrap(conn, &wrapped), DJ_OK);
    sql(conn, "begin");
    assert_int_equal(dj_state_increment(wrapped, "mine", 1, NULL, NULL), DJ_OK);
    sql(conn, "rollback");
    assert_int_equal(sql_int(conn, "select version is null from durable.state_get('mine')"), 1);
    sql(conn, "begin");
    assert_int_equal(dj_state_increment(wrapped, "mine", 1, NULL, NULL), DJ_OK);
    sql(conn, "commit");
    assert_int_equal(sql_int(conn, "select value from durable.state_get('mine')"), 1);
    dj_client_close(wrapped);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_comes_back_with_its_version_and_end),
        cmocka_unit_test(counters_and_locks_answer),
        cmocka_unit_test(a_change_in_your_transaction_goes_with_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
