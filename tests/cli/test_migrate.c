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
 * so it lets go after half a second, and tries again. */
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

/* As it was before 0010, with runs in a partition and in another place. */
static void forget_indexes(void) {
    sql(conn, "select durable.start('a') from generate_series(1, 100)");
    sql(conn, "drop index durable_internal.run_by_lane, durable_internal.run_by_error, "
              "durable_internal.run_by_dead_letter, durable_internal.run_by_tag");
    sql(conn, "delete from durable_internal.migration where name = '0010_run_lists.sql'");
}

/* All four are there, and each index of the parent in each partition. */
static void check_indexes(void) {
    assert_int_equal(sql_int(conn, "select count(*) from unnest('{run_by_lane,run_by_error,"
                                   "run_by_dead_letter,run_by_tag}'::text[]) as n where "
                                   "to_regclass('durable_internal.' || n) is not null"),
                     4);
    assert_int_equal(sql_int(conn, "select count(*) from pg_index where not indisvalid"), 0);
    assert_int_equal(
        sql_int(conn, "select count(*) from pg_inherits h join pg_index p on p.indexrelid = "
                      "h.inhparent where p.indrelid = 'durable_internal.run'::regclass"),
        sql_int(conn, "select (select count(*) from pg_inherits where inhparent = t) * (select "
                      "count(*) from pg_index where indrelid = t) from (select "
                      "'durable_internal.run'::regclass as t) as t"));
}

/* It waits for who writes, for as long as that takes, and others write meanwhile. */
static void an_index_is_made_while_others_write(void **state) {
    PGconn *writer = connect_to(url), *other = connect_to(url);
    pid_t migration;
    (void)state;
    forget_indexes();
    sql(writer, "begin");
    sql(writer, "lock table %s in row exclusive mode",
        sql_text(conn, "select tableoid::regclass from durable_internal.run limit 1"));
    migration = spawn(url, NULL, "durable", "migrate", NULL);
    wait_until(conn, 20,
               "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and "
               "query like 'create index concurrently %%' and datname = current_database()");
    sql(other, "set lock_timeout = '100ms'");
    sql(other, "select durable.start('a')");
    sql(writer, "commit");
    assert_int_equal(wait_process(migration, 30), 0);
    check_indexes();
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.run"), 101);
    PQfinish(writer);
    PQfinish(other);
}

static void an_index_that_was_cut_off_is_made_again(void **state) {
    PGconn *reader = connect_to(url);
    const char *part;
    (void)state;
    forget_indexes();
    part = sql_text(conn, "select tableoid::regclass from durable_internal.run limit 1");
    sql(conn, "create index run_by_lane on only durable_internal.run (lane_id, id)");
    sql(reader,
        "begin isolation level repeatable read; select count(*) from durable_internal.lane");
    sql(conn, "set statement_timeout = '300ms'");
    (void)sql_error(conn, "57014", "create index concurrently %s_run_by_lane on %s (lane_id, id)",
                    strchr(part, '.') + 1, part);
    sql(conn, "reset statement_timeout");
    PQfinish(reader);
    assert_int_equal(sql_int(conn, "select count(*) from pg_index where not indisvalid"), 2);
    durable(&said, url, "migrate");
    assert_int_equal(said.status, 0);
    check_indexes();
    durable(&said, url, "migrate");
    assert_string_equal(said.out, "up to date\n");
}

/* 0010 made the same indexes by plain statements, when its text had this checksum. */
static void a_file_that_names_its_earlier_text_is_not_refused(void **state) {
    (void)state;
    sql(conn, "update durable_internal.migration set checksum = "
              "'31a0ef072f1fc795f401d5a5015c0a679bbcc6448e7f3a6f04e2083bcc19a5f4' where name = "
              "'0010_run_lists.sql'");
    durable(&said, url, "migrate");
    assert_int_equal(said.status, 0);
    assert_string_equal(said.out, "up to date\n");
}

static void a_newer_schema_is_left_alone(void **state) {
    (void)state;
    sql(conn,
        "insert into durable_internal.migration (name, checksum) values ('9999_new.sql', 'x')");
    sql(conn, "update durable_internal.migration set checksum = 'another' where name like "
              "'functions/%%'");
    sql(conn, "drop function durable.release_key");
    durable(&said, url, "migrate");
    assert_int_equal(said.status, 7);
    assert_non_null(strstr(said.err, "9999_new.sql"));
    assert_int_equal(sql_int(conn, "select count(*) from pg_proc where proname = 'release_key'"),
                     0);
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
        cmocka_unit_test_setup_teardown(an_index_is_made_while_others_write, setup_migrated, leave),
        cmocka_unit_test_setup_teardown(an_index_that_was_cut_off_is_made_again, setup_migrated,
                                        leave),
        cmocka_unit_test_setup_teardown(a_newer_schema_is_left_alone, setup_migrated, leave),
        cmocka_unit_test_setup_teardown(a_file_that_names_its_earlier_text_is_not_refused,
                                        setup_migrated, leave),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
