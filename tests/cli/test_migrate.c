/* durable migrate: once, again, at once, and what it refuses. */
#include "support.h"

#include <string.h>

static PGconn *server;
static struct said said;

/* An empty database of the cluster's own. */
static struct cluster cluster;
static char url[200];
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    cluster_start(&cluster);
    server = connect_to(cluster.url);
    return 0;
}

static int empty_database(void **state) {
    static int number;
    (void)state;
    sql(server, "create database empty%d", ++number);
    (void)snprintf(url, sizeof url, "postgresql://postgres@127.0.0.1:%d/empty%d", cluster.port,
                   number);
    conn = connect_to(url);
    return 0;
}

static int leave(void **state) {
    (void)state;
    PQfinish(conn);
    return 0;
}

static int setup_migrated(void **state) {
    (void)empty_database(state);
    durable(&said, url, "migrate");
    assert_int_equal(said.status, 0);
    return 0;
}

static void a_second_run_does_nothing(void **state) {
    (void)state;
    durable(&said, url, "migrate");
    assert_int_equal(said.status, 0);
    assert_non_null(strstr(said.out, "files applied"));
    const char *rows = sql_text(
        conn, "select md5(array_agg(m order by name)::text) from durable_internal.migration m");
    durable(&said, url, "migrate");
    assert_int_equal(said.status, 0);
    assert_string_equal(said.out, "up to date\n");
    assert_string_equal(
        sql_text(conn,
                 "select md5(array_agg(m order by name)::text) from durable_internal.migration m"),
        rows);
    durable(&said, url, "migrate --json");
    assert_string_equal(said.out, "{\"applied\": 0}\n");
    assert_int_equal(sql_int(conn, "select (durable.start('a') is not null)::int"), 1);
}

static void a_plan_names_each_lock_and_changes_nothing(void **state) {
    (void)state;
    durable(&said, url, "migrate --plan");
    assert_int_equal(said.status, 0);
    assert_non_null(strstr(said.out, "0001_schemas_and_roles.sql"));
    assert_non_null(strstr(said.out, "create schema"));
    assert_non_null(strstr(said.out, "ROW EXCLUSIVE"));
    assert_int_equal(
        sql_int(conn, "select count(*) from pg_namespace where nspname like 'durable%%'"), 0);
    durable(&said, url, "migrate status");
    assert_non_null(strstr(said.out, "pending   0001_schemas_and_roles.sql"));
    durable(&said, url, "migrate");
    durable(&said, url, "migrate --plan");
    assert_string_equal(said.out, "");
    durable(&said, url, "migrate status");
    assert_non_null(strstr(said.out, "applied   0001_schemas_and_roles.sql"));
    assert_null(strstr(said.out, "pending"));
}

static void a_changed_table_file_is_refused_and_a_changed_function_file_applied(void **state) {
    (void)state;
    sql(conn, "update durable_internal.migration set checksum = 'another' where name = "
              "'0002_runs_and_steps.sql' or name like '%%20_start.sql'");
    sql(conn, "drop function durable.release_key");
    durable(&said, url, "migrate");
    assert_int_equal(said.status, 7);
    assert_non_null(strstr(said.err, "0002_runs_and_steps.sql"));
    assert_int_equal(sql_int(conn, "select count(*) from pg_proc where proname = 'release_key'"),
                     0); /* nothing was applied */
    durable(&said, url, "migrate status");
    assert_non_null(strstr(said.out, "refused   0002_runs_and_steps.sql"));
    sql(conn, "update durable_internal.migration set checksum = (select checksum from "
              "durable_internal.migration where name = '0001_schemas_and_roles.sql') where name = "
              "'0002_runs_and_steps.sql'");
    durable(&said, url, "migrate");
    assert_int_equal(said.status, 7); /* another file's sum does not do either */
    sql(conn, "delete from durable_internal.migration where name like '%%20_start.sql'");
    sql(conn, "delete from durable_internal.migration where name = '0002_runs_and_steps.sql'");
    durable(&said, url, "migrate");
    assert_int_not_equal(said.status, 0); /* its tables are there: nothing is made twice */
    assert_non_null(strstr(said.err, "0002_runs_and_steps.sql"));
}

static void changed_functions_are_applied_whole(void **state) {
    (void)state;
    sql(conn, "update durable_internal.migration set checksum = 'another' where name like "
              "'%%20_start.sql'");
    sql(conn, "drop function durable.release_key");
    durable(&said, url, "migrate");
    assert_int_equal(said.status, 0);
    assert_int_equal(sql_int(conn, "select count(*) from pg_proc where proname = 'release_key'"),
                     1);
}

static void two_at_once_are_one_after_the_other(void **state) {
    (void)state;
    shell_said(&said,
               "D=\"$DURABLE_BUILD\"/cli/durable; $D migrate --database-url '%s' & a=$!; "
               "$D migrate --database-url '%s' && wait $a",
               url, url);
    assert_int_equal(said.status, 0);
    assert_non_null(strstr(said.out, "files applied"));
    assert_non_null(strstr(said.out, "up to date"));
}

/* A reader that stays keeps a change of its table away, and everybody who comes after the change:
 * so it lets go after two seconds, and tries again. */
static void a_lock_that_is_not_to_be_had_is_asked_for_again(void **state) {
    PGconn *reader = connect_to(url);
    (void)state;
    sql(conn, "update durable_internal.migration set checksum = 'another' where name like "
              "'%%40_views.sql'");
    sql(reader, "begin");
    sql(reader, "lock table durable.runs in access share mode");
    shell_said(&said,
               "(sleep 3; psql -X -q -c 'select pg_terminate_backend(%d)' '%s') >/dev/null & "
               "\"$DURABLE_BUILD\"/cli/durable migrate --database-url '%s'",
               PQbackendPID(reader), url, url);
    assert_int_equal(said.status, 0);
    assert_non_null(strstr(said.err, "trying again"));
    PQfinish(reader);
    durable(&said, url, "migrate");
    assert_string_equal(said.out, "up to date\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_second_run_does_nothing, empty_database, leave),
        cmocka_unit_test_setup_teardown(a_plan_names_each_lock_and_changes_nothing, empty_database,
                                        leave),
        cmocka_unit_test_setup_teardown(
            a_changed_table_file_is_refused_and_a_changed_function_file_applied, setup_migrated,
            leave),
        cmocka_unit_test_setup_teardown(changed_functions_are_applied_whole, setup_migrated, leave),
        cmocka_unit_test_setup_teardown(two_at_once_are_one_after_the_other, empty_database, leave),
        cmocka_unit_test_setup_teardown(a_lock_that_is_not_to_be_had_is_asked_for_again,
                                        setup_migrated, leave),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
