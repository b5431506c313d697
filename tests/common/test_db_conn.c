/* db_conn against a server made up, which answers what a real one answers
 * rarely. */
#include "tests/common/unit.h"

#include "common/auto.h"
#include "common/db_conn.h"
#include "common/db_rows.h"
#include "tests/common/fake_server.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

static struct fake_server server;

static PGconn *open_with(const enum answer answers[], int count) {
    PGconn *conn = NULL;
    fake_server_start(&server, "off", answers, count);
    assert_ok(db_conn_open(server.conninfo, "test", &conn));
    return conn;
}

static const struct db_call SEVEN = { .name = "seven", .sql = "select 7" };

static dj_status call_seven(PGconn *conn, PGresult **ret_rows) {
    struct db_params params;
    params_init(&params);
    dj_status status = db_exec(conn, &SEVEN, &params, ret_rows);
    params_done(&params);
    return status;
}

static void a_call_answers_its_rows(void **state) {
    (void)state;
    const enum answer answers[] = { ANSWER_ROW };
    PGconn *conn = open_with(answers, 1);
    AUTO(pgresult) PGresult *rows = NULL;
    int32_t seven = 0;
    assert_ok(call_seven(conn, &rows));
    assert_ok(rows_int4(rows, 0, 0, &seven));
    assert_int_equal(seven, 7);
    db_conn_close(conn);
    fake_server_stop(&server);
}

static int option_of(PGconn *conn, int level, int name) {
    int value = -1;
    socklen_t length = sizeof value;
    assert_int_equal(getsockopt(PQsocket(conn), level, name, &value, &length), 0);
    return value;
}

/* Linux' own two hours would be too long to wait for an answer of a server that is gone. */
static void a_connection_misses_a_server_that_is_gone(void **state) {
    (void)state;
    const enum answer answers[] = { ANSWER_ROW };
    PGconn *conn = open_with(answers, 1);
    assert_int_equal(option_of(conn, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option_of(conn, IPPROTO_TCP, TCP_KEEPIDLE), 5);
    assert_int_equal(option_of(conn, IPPROTO_TCP, TCP_KEEPINTVL), 5);
    assert_int_equal(option_of(conn, IPPROTO_TCP, TCP_KEEPCNT), 3);
    assert_int_equal(option_of(conn, IPPROTO_TCP, TCP_USER_TIMEOUT), 10000);
    db_conn_close(conn);
    fake_server_stop(&server);
}

static void a_commit_its_standby_did_not_confirm_is_not_acknowledged(void **state) {
    (void)state;
    const enum answer answers[] = { ANSWER_UNCONFIRMED_ROW, ANSWER_ROW, ANSWER_NOTICE };
    PGconn *conn = open_with(answers, 3);
    AUTO(pgresult) PGresult *rows = NULL;
    assert_fails(call_seven(conn, &rows), DJ_UNAVAILABLE,
                 "the commit was not confirmed by the synchronous standby");
    assert_null(rows);
    assert_ok(call_seven(conn, &rows)); /* the next is another commit */
    PQclear(TAKE(rows));
    assert_ok(call_seven(conn, &rows)); /* and other notices are none of ours */
    db_conn_close(conn);
    fake_server_stop(&server);
}

static void who_calls_in_another_way_can_ask_once(void **state) {
    (void)state;
    const enum answer answers[] = { ANSWER_UNCONFIRMED_ROW };
    PGconn *conn = open_with(answers, 1);
    assert_false(db_conn_commit_is_uncertain(conn));
    AUTO(pgresult)
    PGresult *rows = PQexecParams(conn, "commit", 0, NULL, NULL, NULL, NULL,
                                  /* resultFormat= */ 1);
    assert_int_equal(PQresultStatus(rows), PGRES_TUPLES_OK);
    assert_true(db_conn_commit_is_uncertain(conn));
    assert_false(db_conn_commit_is_uncertain(conn));
    PQfinish(conn); /* which frees what db_conn keeps, too */
    fake_server_stop(&server);
}

static void a_connection_of_somebody_else_is_not_asked(void **state) {
    (void)state;
    const enum answer answers[] = { ANSWER_ROW };
    fake_server_start(&server, "off", answers, 1);
    PGconn *conn = PQconnectdb(server.conninfo);
    assert_int_equal(PQstatus(conn), CONNECTION_OK);
    AUTO(pgresult) PGresult *rows = NULL;
    assert_ok(call_seven(conn, &rows));
    assert_false(db_conn_commit_is_uncertain(conn));
    PQfinish(conn);
    fake_server_stop(&server);
}

static void an_error_is_told_in_its_words_with_its_hint(void **state) {
    (void)state;
    const enum answer answers[] = { ANSWER_ERROR, ANSWER_ROW };
    PGconn *conn = open_with(answers, 2);
    AUTO(pgresult) PGresult *rows = NULL;
    assert_fails(call_seven(conn, &rows), DJ_INVALID_ARGUMENT, "job is not a name. try another");
    assert_null(rows);
    assert_ok(call_seven(conn, &rows));
    db_conn_close(conn);
    fake_server_stop(&server);
}

static void a_call_without_rows_is_our_mistake(void **state) {
    (void)state;
    const enum answer answers[] = { ANSWER_NO_ROWS };
    PGconn *conn = open_with(answers, 1);
    PGresult *rows = NULL;
    assert_fails(call_seven(conn, &rows), DJ_INTERNAL, "call seven answers no rows");
    db_conn_close(conn);
    fake_server_stop(&server);
}

static void a_connection_that_breaks_is_unavailable(void **state) {
    (void)state;
    const enum answer answers[] = { ANSWER_HANG_UP };
    PGconn *conn = open_with(answers, 1);
    PGresult *rows = NULL;
    assert_fails(call_seven(conn, &rows), DJ_UNAVAILABLE, "server closed the connection");
    assert_null(strchr(dj_error_message(), '\n'));
    assert_fails(call_seven(conn, &rows), DJ_UNAVAILABLE, "");
    db_conn_close(conn);
    fake_server_stop(&server);
}

static void a_standby_is_no_database_to_write_to(void **state) {
    (void)state;
    const enum answer answers[] = { ANSWER_ROW };
    PGconn *conn = NULL;
    fake_server_start(&server, "on", answers, 1);
    assert_fails(db_conn_open(server.conninfo, "test", &conn), DJ_UNAVAILABLE,
                 "session is read-only");
    assert_null(conn);
    fake_server_stop(&server);
}

static void values_that_failed_are_not_sent(void **state) {
    (void)state;
    struct db_params params;
    PGresult *rows = NULL;
    params_init(&params);
    params.bytes.bytes_max = 2;
    params_add_int4(&params, 1);
    assert_fails(db_exec(NULL, &SEVEN, &params, &rows), DJ_TOO_LARGE, "too large");
    params_done(&params);
}

static void without_a_name_of_a_database_the_error_says_how_to_give_one(void **state) {
    (void)state;
    PGconn *conn = NULL;
    (void)unsetenv("DURABLE_DATABASE_URL");
    assert_fails(db_conn_open(NULL, "test", &conn), DJ_INVALID_ARGUMENT,
                 "set DURABLE_DATABASE_URL");
    assert_fails(db_conn_open("", "test", &conn), DJ_INVALID_ARGUMENT, "set DURABLE_DATABASE_URL");
    (void)setenv("DURABLE_DATABASE_URL", "host=127.0.0.1 port=1 user=u", 1);
    assert_fails(db_conn_open(NULL, "test", &conn), DJ_UNAVAILABLE, "refused");
    (void)unsetenv("DURABLE_DATABASE_URL");
}

static void an_address_that_is_none_is_refused_without_its_password(void **state) {
    (void)state;
    static const char *const wrong[] = { "postgresql://u:secret@[::1/d",
                                         "password=secret nonsense=1",
                                         "postgresql://u:secret@h/d?bad=1",
                                         "host=h password='secret", "postgresq://u:secret@h/d" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        PGconn *conn = NULL;
        assert_fails(db_conn_open(wrong[i], "test", &conn), DJ_INVALID_ARGUMENT,
                     "the database's address is not understood");
        assert_null(strstr(dj_error_message(), "secret"));
    }
}

int main(void) {
    (void)setenv("PGSSLMODE", "disable", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_answers_its_rows),
        cmocka_unit_test(a_connection_misses_a_server_that_is_gone),
        cmocka_unit_test(a_commit_its_standby_did_not_confirm_is_not_acknowledged),
        cmocka_unit_test(who_calls_in_another_way_can_ask_once),
        cmocka_unit_test(a_connection_of_somebody_else_is_not_asked),
        cmocka_unit_test(an_error_is_told_in_its_words_with_its_hint),
        cmocka_unit_test(a_call_without_rows_is_our_mistake),
        cmocka_unit_test(a_connection_that_breaks_is_unavailable),
        cmocka_unit_test(a_standby_is_no_database_to_write_to),
        cmocka_unit_test(values_that_failed_are_not_sent),
        cmocka_unit_test(without_a_name_of_a_database_the_error_says_how_to_give_one),
        cmocka_unit_test(an_address_that_is_none_is_refused_without_its_password),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
