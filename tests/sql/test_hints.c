/* Notifications are hints, and what they cost is nobody's: none where nobody is idle, none that
 * makes a commit wait for another one's or fail, and a lost one costs half a second.
 *
 * Seen to fail: tests/mutations, notify-whenever, hint-into-a-full-queue, turn-locks-a-row and
 * sessions-miss-nobody. */
#include "support.h"

#include <signal.h>
#include <stdio.h>

static struct cluster cluster;
static PGconn *conn, *listener;

static int setup(void **state) {
    (void)state;
    cluster_start(&cluster);
    conn = connect_to(cluster.url);
    listener = connect_to(cluster.url);
    sql(listener, "listen durable_ready; listen durable_due");
    record_calls(conn);
    return 0;
}

/* How many the listener has heard since it was last asked. */
static int heard(void) {
    int count = 0;
    sql(listener, "select");
    for (PGnotify *note; (note = PQnotifies(listener)) != NULL; count++) {
        PQfreemem(note);
    }
    return count;
}

static void flag(const char *name, int value) { /* 2: somebody is idle */
    sql(conn, "select setval('durable_internal.%s', %d)", name, value);
}

static void a_start_notifies_only_who_is_idle_and_once(void **state) {
    (void)state;
    flag("worker_idle", 1);
    flag("scheduler_idle", 1);
    (void)heard();
    sql(conn, "select durable.start('nobody', timeout => '1h') from generate_series(1, 20)");
    sql(conn, "select durable.send_event('nobody')");
    assert_int_equal(heard(), 0);
    flag("worker_idle", 2);
    for (int i = 0; i < 20; i++) {
        sql(conn, "select durable.start('nobody')");
    }
    assert_int_equal(heard(), 1);
    flag("scheduler_idle", 2);
    for (int i = 0; i < 20; i++) {
        sql(conn, "select durable.start('nobody', timeout => '1h')");
    }
    assert_int_equal(heard(), 1);
}

/* Until a commit that notifies is confirmed by its standby, it holds a lock that every other commit
 * that notifies waits for, whatever that one says of standbys. */
static void a_start_whose_standby_is_away_keeps_no_other_start(void **state) {
    PGconn *first = connect_to(cluster.url), *second = connect_to(cluster.url);
    (void)state;
    sql(conn, "alter system set synchronous_standby_names = 'nobody'");
    sql(conn, "select pg_reload_conf()");
    wait_until(conn, 10, "select current_setting('synchronous_standby_names') = 'nobody'");
    sql(conn, "set synchronous_commit = local");
    flag("worker_idle", 2);
    flag("scheduler_idle", 2);
    assert_int_equal(PQsendQuery(first, "select durable.start('nobody', timeout => '1h')"), 1);
    wait_until(conn, 10, "select wait_event = 'SyncRep' from pg_stat_activity where pid = %d",
               PQbackendPID(first));
    sql(second, "set synchronous_commit = local; set lock_timeout = '2s'");
    for (int i = 0; i < 20; i++) {
        sql(second,
            "select durable.start('nobody', timeout => '1h'), durable.send_event('nobody')");
    }
    sql(conn, "alter system reset synchronous_standby_names");
    sql(conn, "select pg_reload_conf()");
    PQclear(PQgetResult(first));
    assert_null(PQgetResult(first));
    sql(conn, "reset synchronous_commit");
    PQfinish(first);
    PQfinish(second);
}

/* A full queue fails every commit that notifies. Eight gigabytes are not to be had here: its meter
 * is another one's meanwhile. */
static void a_notification_queue_that_fills_up_refuses_no_start(void **state) {
    (void)state;
    sql(conn, "set allow_system_table_mods = on");
    sql(conn, "alter function pg_catalog.pg_notification_queue_usage() rename to queue_usage_real");
    sql(conn, "create function pg_catalog.pg_notification_queue_usage() returns float8 language "
              "sql volatile as 'select 0.6::float8'");
    PGconn *caller = connect_to(cluster.url);
    flag("worker_idle", 2);
    flag("scheduler_idle", 2);
    (void)heard();
    sql(caller, "select durable.start('nobody', timeout => '1h'), durable.send_event('nobody')");
    assert_int_equal(heard(), 0);
    sql(conn, "drop function pg_catalog.pg_notification_queue_usage()");
    sql(conn, "alter function pg_catalog.queue_usage_real() rename to pg_notification_queue_usage");
    sql(conn, "reset allow_system_table_mods");
    PQfinish(caller);
    caller = connect_to(cluster.url);
    sql(caller, "select durable.start('nobody', timeout => '1h'), durable.send_event('nobody')");
    assert_true(heard() > 0);
    PQfinish(caller);
}

static void no_turn_leaves_a_multixact(void **state) {
    (void)state;
    pid_t scheduler = spawn_scheduler(cluster.url);
    pid_t workers[2];
    sql(conn, "checkpoint");
    const char *next = "select next_multixact_id::text::bigint from pg_control_checkpoint()";
    long long before = sql_int(conn, "%s", next);
    for (int i = 0; i < 2; i++) {
        workers[i] = spawn(cluster.url, NULL, "durable-worker", "--lease-ttl", "2s", NULL);
    }
    sql(conn, "select durable.start_many('steps', array_fill('{}'::jsonb, array[500]))");
    sql(conn, "select durable.start_many('waits', array_fill('{}'::jsonb, array[100]))");
    sql(conn, "select durable.start_many('world', array_fill('{\"n\": 1.5}'::jsonb, array[50]))");
    wait_until(conn, 60, "select count(*) = 100 from durable_internal.wait where event = 'go'");
    sql(conn,
        "select durable.cancel(run_id) from durable_internal.wait where event = 'go' limit 50");
    sql(conn, "select durable.send_event('go')");
    wait_until(conn, 60,
               "select count(*) = 0 from durable.runs where finished_at is null and job "
               "<> 'nobody'");
    sql(conn, "checkpoint");
    assert_int_equal(sql_int(conn, "%s", next), before);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(end_process(workers[i], SIGTERM), 0);
    }
    assert_int_equal(end_process(scheduler, SIGTERM), 0);
}

/* PostgreSQL's own two hours would keep a transaction of a machine that is gone for as long. */
static void a_session_misses_a_worker_that_is_gone(void **state) {
    PGconn *session = connect_to(cluster.url);
    char worker[64];
    (void)state;
    (void)snprintf(worker, sizeof worker, "%s", worker_new(conn, "by-hand"));
    sql(session, "select durable_internal.worker_session('%s')", worker);
    assert_string_equal(
        sql_text(session, "select string_agg(name || ' ' || setting, ', ' order by name) from "
                          "pg_settings where name like 'tcp%%'"),
        "tcp_keepalives_count 3, tcp_keepalives_idle 5, tcp_keepalives_interval 5, "
        "tcp_user_timeout 15000");
    sql(conn, "select durable_internal.worker_leave('%s')", worker);
    PQfinish(session);
}

/* The flags are down when the start and the event come, as if their notification had been lost. */
static void a_lost_hint_costs_half_a_second(void **state) {
    static const char nobody_is_idle[] = "select setval('durable_internal.worker_idle', 1), "
                                         "setval('durable_internal.scheduler_idle', 1)";
    (void)state;
    pid_t scheduler = spawn_scheduler(cluster.url);
    pid_t worker = spawn(cluster.url, NULL, "durable-worker", "--lease-ttl", "2s", NULL);
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)", (int)worker);
    sleep_ms(1000);
    for (int i = 0; i < 3; i++) { /* in the same statement: who is idle says so again */
        char id[64];
        (void)snprintf(id, sizeof id, "%s",
                       sql_text(conn,
                                "with l as materialized (%s) select durable.start('waits') "
                                "from l",
                                nobody_is_idle));
        wait_until(conn, 2, "select status = 'waiting' from durable.runs where id = '%s'", id);
        sql(conn, "with l as materialized (%s) select durable.send_event('go') from l",
            nobody_is_idle);
        wait_until(conn, 2, "select status = 'completed' from durable.runs where id = '%s'", id);
    }
    assert_int_equal(end_process(worker, SIGTERM), 0);
    assert_int_equal(end_process(scheduler, SIGTERM), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_start_notifies_only_who_is_idle_and_once),
        cmocka_unit_test(a_start_whose_standby_is_away_keeps_no_other_start),
        cmocka_unit_test(a_notification_queue_that_fills_up_refuses_no_start),
        cmocka_unit_test(no_turn_leaves_a_multixact),
        cmocka_unit_test(a_session_misses_a_worker_that_is_gone),
        cmocka_unit_test(a_lost_hint_costs_half_a_second),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
