/* Guarantee 12. A PostgreSQL restart costs waiting, not work: processes reconnect by themselves,
 * and no attempt is spent.
 *
 * Seen to fail: with turns dropping their runs at a broken connection instead of saying them again,
 * runs were called anew in another attempt; without reconcile(), the runs of a claim whose answer
 * was lost did not end; with commit() setting synchronous_commit to off, a step that had been seen
 * was gone after a crash. */
#include "support.h"

#include <signal.h>

static struct cluster cluster;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    cluster_start(&cluster);
    conn = connect_to(cluster.url);
    record_calls(conn);
    return 0;
}

/* Runs of five steps, and who does them. */
struct work {
    pid_t scheduler, worker;
    long long due; /* all that are to be completed then */
};

static struct work work_begin(int runs) {
    struct work work = { .scheduler = spawn_scheduler(cluster.url),
                         .worker =
                             spawn(cluster.url, NULL, "durable-worker", "--lease-ttl", "20s", NULL),
                         .due = sql_int(conn, "select count(*) from durable.runs") + runs };
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)",
               (int)work.worker);
    sql(conn, "select durable.start_many('steps', array_fill('{\"us\": 5000}'::jsonb, array[%d]))",
        runs);
    return work;
}

static void work_completes(const struct work *work) {
    wait_until(conn, 90, "select count(*) = %lld from durable.runs where status = 'completed'",
               work->due);
    assert_int_equal(sql_int(conn, "select max(attempt) from durable.runs"), 1);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.worker where pid = %d",
                             (int)work->worker),
                     1); /* it has kept its life, and with it what it had leased */
}

static void work_end(const struct work *work) {
    assert_int_equal(end_process(work->worker, SIGTERM), 0);
    assert_int_equal(end_process(work->scheduler, SIGTERM), 0);
}

static void run_through(const char *mode, int runs) {
    struct work work = work_begin(runs);
    for (int i = 0; i < 2; i++) {
        sleep_ms(700);
        PQfinish(conn);
        cluster_restart(&cluster, mode);
        conn = connect_to(cluster.url);
    }
    work_completes(&work);
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps"), 5 * work.due);
    check_calls(conn);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.lease"), 0);
    assert_int_equal(kill(work.worker, 0), 0); /* it never went away */
    work_end(&work);
}

static void a_restart_in_the_middle_of_a_thousand_runs(void **state) {
    (void)state;
    run_through("fast", 1000);
}

static void a_crash_in_the_middle_of_a_thousand_runs(void **state) {
    (void)state;
    run_through("immediate", 1000);
}

static void terminated_sessions_cost_no_attempt(void **state) {
    struct work work = work_begin(500);
    (void)state;
    for (int i = 0; i < 25; i++) {
        sql(conn, "select pg_terminate_backend(pid) from pg_stat_activity where application_name "
                  "like 'durable-%%' "
                  "order by random() limit 1");
        sleep_ms(100);
    }
    work_completes(&work);
    work_end(&work);
}

/* The runs are there before the worker, so that its first turn claims them. error: a turn that the
 * standby did not confirm, on a connection that is well. */
static void a_lost_answer_costs_no_attempt(void **state) {
    static const char *const points[] = { "turn.sent:1:drop",      "commit.sent:1:drop",
                                          "commit.sent:3:drop",    "turn.answered:1:error",
                                          "turn.answered:3:error", "turn.answered:2:drop",
                                          "turn.answered:2:cut" };
    (void)state;
    pid_t scheduler = spawn_scheduler(cluster.url);
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        long long before = sql_int(conn, "select count(*) from durable.runs");
        sql(conn, "select durable.start_many('steps', array_fill('{}'::jsonb, array[20]))");
        pid_t worker = spawn(cluster.url, points[i], "durable-worker", "--lease-ttl", "60s", NULL);
        wait_until(conn, 30, "select count(*) = %lld from durable.runs where status = 'completed'",
                   before + 20);
        assert_int_equal(sql_int(conn, "select max(attempt) from durable.runs"), 1);
        assert_int_equal(sql_int(conn, "select count(*) from durable_internal.lease"), 0);
        check_calls(conn);
        assert_int_equal(end_process(worker, SIGTERM), 0);
    }
    assert_int_equal(end_process(scheduler, SIGTERM), 0);
}

/* Nobody can be told of the crash; who waited for that would take further runs along. */
static void a_worker_that_crashes_while_the_database_is_away_ends_at_once(void **state) {
    (void)state;
    pid_t worker = spawn(cluster.url, NULL, "durable-worker", "--lease-ttl", "20s", NULL);
    sql(conn, "select durable.start('dies', '{\"ms\": 1500}')");
    wait_until(conn, 20, "select exists (select from effect where step = 'dies')");
    PQfinish(conn);
    cluster_stop(&cluster, "immediate");
    int status = wait_process(worker, 20);
    cluster_go_on(&cluster);
    conn = connect_to(cluster.url);
    assert_int_equal(status, -SIGABRT); /* and not the alarm's signal, three seconds later */
    sql(conn, "select durable.cancel(id) from durable.runs where job = 'dies'");
}

/* As long as its lease is there: a step with a transaction of its own is no worse off than others.
 */
static void a_transaction_of_a_step_waits_for_the_database(void **state) {
    (void)state;
    sql(conn, "create table transfer (run_id uuid)");
    pid_t worker = spawn(cluster.url, NULL, "durable-worker", "--lease-ttl", "60s", NULL);
    sql(conn,
        "select durable.start_many('transfers', array_fill('{\"ms\": 500}'::jsonb, array[8]))");
    wait_until(conn, 20,
               "select count(*) = 8 from pg_stat_activity where application_name = "
               "'durable-worker step_tx' and state = 'idle in transaction'");
    PQfinish(conn);
    cluster_stop(&cluster, "immediate");
    sleep_ms(4000);
    cluster_go_on(&cluster);
    conn = connect_to(cluster.url);
    wait_until(
        conn, 30,
        "select bool_and(finished_at is not null) from durable.runs where job = 'transfers'");
    assert_string_equal(
        sql_text(conn,
                 "select string_agg(distinct status || ' ' || attempt, ', ') from durable.runs "
                 "where job = 'transfers'"),
        "completed 1");
    assert_int_equal(sql_int(conn, "select count(*) from transfer"), 8);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* Nothing but the commit itself brings it to the disk here: the step leaves no row of its own. */
static void what_was_seen_is_there_after_a_crash(void **state) {
    (void)state;
    pid_t worker = spawn(cluster.url, NULL, "durable-worker", "--lease-ttl", "20s", NULL);
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)", (int)worker);
    for (int i = 0; i < 5; i++) {
        const char *id = sql_text(conn, "select durable.start('large', '{\"bytes\": 10}')");
        while (sql_int(conn, "select count(*) from durable.steps where run_id = '%s'", id) == 0) {
            sleep_ms(1);
        }
        PQfinish(conn);
        cluster_restart(&cluster, "immediate");
        conn = connect_to(cluster.url);
        assert_int_equal(
            sql_int(conn, "select count(*) from durable.steps where run_id = '%s'", id), 1);
    }
    wait_until(conn, 30, "select bool_and(status = 'completed') from durable.runs");
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* One server process is killed, so PostgreSQL ends all others, and recovers. */
static void a_killed_server_process_costs_no_attempt(void **state) {
    struct work work = work_begin(300);
    (void)state;
    wait_until(conn, 20, "select count(*) > %lld from durable.steps",
               sql_int(conn, "select count(*) from durable.steps"));
    pid_t victim = (pid_t)sql_int(conn, "select min(pid) from pg_stat_activity where "
                                        "application_name = 'durable-worker'");
    assert_int_equal(kill(victim, SIGKILL), 0);
    work_completes(&work);
    check_calls(conn);
    work_end(&work);
}

/* The lease of a worker that is gone is taken in a transaction that a crash ends. */
static void a_crash_in_the_middle_of_a_reap_strands_no_run(void **state) {
    char id[64], worker[64];
    (void)state;
    (void)snprintf(worker, sizeof worker, "%s", worker_new(conn, "by-hand"));
    (void)snprintf(id, sizeof id, "%s", sql_text(conn, "select durable.start('by-hand')"));
    sql(conn, "select durable_internal.claim('%s', 1, 1000000)", worker);
    sql(conn,
        "update durable_internal.worker set beat_at = beat_at - interval '1 hour' where id = '%s'",
        worker);
    sql(conn, "begin");
    assert_string_equal(sql_text(conn, "select durable_internal.reap()"), worker);
    PQfinish(conn);
    cluster_restart(&cluster, "immediate");
    conn = connect_to(cluster.url);
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "running");
    pid_t scheduler = spawn_scheduler(cluster.url);
    wait_until(conn, 20, "select status = 'queued' from durable.runs where id = '%s'", id);
    sql(conn, "select durable.cancel('%s')", id);
    assert_int_equal(end_process(scheduler, SIGTERM), 0);
}

static void a_server_that_takes_no_more_connections_is_waited_for(void **state) {
    char url[200];
    (void)state;
    sql(conn, "create role crowd login in role durable_worker connection limit 1");
    sql(conn, "grant insert on effect to crowd");
    (void)snprintf(url, sizeof url, "postgresql://crowd@127.0.0.1:%d/postgres", cluster.port);
    pid_t scheduler = spawn_scheduler(cluster.url);
    pid_t worker = spawn(url, NULL, "durable-worker", "--lease-ttl", "20s", NULL);
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)", (int)worker);
    const char *id = sql_text(conn, "select durable.start('noop')");
    sleep_ms(1500); /* its lines are refused, and tried again */
    assert_int_equal(kill(worker, 0), 0);
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "queued");
    sql(conn, "alter role crowd connection limit 9");
    wait_until(conn, 20,
               "select status = 'completed' and attempt = 1 from durable.runs where id = '%s'", id);
    assert_int_equal(end_process(worker, SIGTERM), 0);
    assert_int_equal(end_process(scheduler, SIGTERM), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restart_in_the_middle_of_a_thousand_runs),
        cmocka_unit_test(a_crash_in_the_middle_of_a_thousand_runs),
        cmocka_unit_test(terminated_sessions_cost_no_attempt),
        cmocka_unit_test(a_lost_answer_costs_no_attempt),
        cmocka_unit_test(a_transaction_of_a_step_waits_for_the_database),
        cmocka_unit_test(what_was_seen_is_there_after_a_crash),
        cmocka_unit_test(a_killed_server_process_costs_no_attempt),
        cmocka_unit_test(a_crash_in_the_middle_of_a_reap_strands_no_run),
        cmocka_unit_test(a_server_that_takes_no_more_connections_is_waited_for),
        cmocka_unit_test(a_worker_that_crashes_while_the_database_is_away_ends_at_once),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
