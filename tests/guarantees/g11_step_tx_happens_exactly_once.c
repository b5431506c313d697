/* Guarantee 11, for dj_step_tx: what the step does over its connection happens exactly once,
 * whatever dies when.
 *
 * Seen to fail: with the step's row in a transaction of its own instead of the user's, a kill
 * between the two gave 15 transfers for 10 runs; with commit_step_tx() not telling that an earlier
 * try is there, the lost answer gave a run two transfers. */
#include "support.h"

#include <signal.h>
#include <stdio.h>

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    sql(conn, "create table transfer (run_id uuid)");
    record_calls(conn);
    (void)spawn_scheduler(url);
    return 0;
}

static void check_all(int runs) {
    wait_until(conn, 60, "select count(*) = %d from durable.runs where status = 'completed'", runs);
    assert_int_equal(sql_int(conn, "select count(*) from transfer"), runs);
    assert_int_equal(sql_int(conn, "select count(distinct run_id) from transfer"), runs);
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps where kind = 'step_tx' and "
                                   "result = '\"transferred\"'"),
                     runs);
}

static void a_kill_before_or_after_the_commit_transfers_once(void **state) {
    static const char *const points[] = { "step_tx.before_commit:3:kill",
                                          "step_tx.after_commit:3:kill" };
    (void)state;
    for (int i = 0; i < 2; i++) {
        pid_t victim = spawn_worker(url, points[i]);
        wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)",
                   (int)victim);
        sql(conn, "select durable.start_many('transfers', array_fill('{}'::jsonb, array[10]))");
        assert_int_equal(wait_process(victim, 20), -SIGKILL);
        pid_t heir = spawn_worker(url, NULL);
        check_all(10 * (i + 1));
        assert_int_equal(end_process(heir, SIGTERM), 0);
    }
}

static void sessions_that_are_cut_in_the_middle_transfer_once(void **state) {
    (void)state;
    pid_t worker = spawn_worker(url, NULL);
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)", (int)worker);
    sql(conn, "select durable.start_many('transfers', array_fill('{}'::jsonb, array[300]))");
    for (int i = 0; i < 40; i++) {
        sql(conn, "select pg_terminate_backend(pid) from pg_stat_activity where application_name "
                  "like 'durable-worker step_tx%%' limit 3");
        sleep_ms(10);
    }
    check_all(320);
    assert_int_equal(
        sql_int(
            conn,
            "select max(attempt) from durable.runs where created_at > (select min(started_at) from "
            "durable.workers where pid = %d)",
            (int)worker),
        1);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

static void a_commit_whose_answer_is_lost_transfers_once(void **state) {
    (void)state;
    long long before = sql_int(conn, "select count(*) from durable.runs");
    pid_t worker = spawn_worker(url, "step_tx.before_commit:3:drop");
    sql(conn, "select durable.start_many('transfers', array_fill('{}'::jsonb, array[10]))");
    check_all((int)before + 10);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* By a value of its own, or as often as it is tried. */
static void a_step_that_the_database_refuses_says_why_and_leaves_nothing(void **state) {
    static const struct {
        const char *condition, *end;
    } rows[] = {
        { "invalid_parameter_value", "failed 1 transfer: not like this" },
        { "deadlock_detected", "failed 1 transfer: not like this" },
    };
    (void)state;
    pid_t worker = spawn_worker(url, NULL);
    long long before = sql_int(conn, "select count(*) from transfer");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sql(conn,
            "create function refuse() returns trigger language plpgsql as $$ begin raise %s using "
            "message = 'not like this'; end $$",
            rows[i].condition);
        sql(conn, "create trigger refuse before insert on durable_internal.step for each row "
                  "execute function refuse()");
        const char *id = sql_text(conn, "select durable.start('transfers', max_attempts => 1)");
        wait_until(conn, 20, "select finished_at is not null from durable.runs where id = '%s'",
                   id);
        assert_string_equal(
            sql_text(conn,
                     "select format('%%s %%s %%s: %%s', status, attempt, error ->> 'step', error "
                     "->> 'message') from durable.runs where id = '%s'",
                     id),
            rows[i].end);
        sql(conn, "drop function refuse() cascade");
    }
    assert_int_equal(sql_int(conn, "select count(*) from transfer"), before);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* Connections are kept for the next step, and a restart of the database, say, ends all of them
 * while nobody uses them. One attempt each: a step finds one that works before it gives up. */
static void sessions_that_were_cut_while_idle_cost_no_attempt(void **state) {
    (void)state;
    long long before = sql_int(conn, "select count(*) from durable.runs");
    pid_t worker = spawn_worker(url, NULL);
    sql(conn, "select durable.start_many('transfers', array_fill('{\"ms\": 500}'::jsonb, "
              "array[12]), max_attempts => 1)");
    check_all((int)before + 12);
    sql(conn, "create temp table cut as select pid from pg_stat_activity where application_name = "
              "'durable-worker step_tx' and datname = current_database()");
    assert_in_range(sql_int(conn, "select count(*) from cut"), 6, 16);
    sql(conn, "select pg_terminate_backend(pid) from cut");
    wait_until(conn, 10, "select not exists (select from pg_stat_activity join cut using (pid))");
    sql(conn, "select durable.start('transfers', max_attempts => 1)");
    wait_until(conn, 20, "select count(*) = %lld from durable.runs where finished_at is not null",
               before + 13);
    check_all((int)before + 13);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* The worker registers again while its handler is still in a step of the life before. */
static void a_step_that_outlives_its_workers_life_transfers_once(void **state) {
    (void)state;
    long long before = sql_int(conn, "select count(*) from durable.runs");
    pid_t worker = spawn_worker(url, NULL);
    const char *id = sql_text(conn, "select durable.start('transfers', '{\"ms\": 3000}')");
    wait_until(
        conn, 20,
        "select exists (select from pg_stat_activity where application_name = "
        "'durable-worker step_tx' and state = 'idle in transaction' and query like 'insert%%' "
        "and datname = current_database())");
    sql(conn, "update durable_internal.run set payload = '{}' where id = '%s'", id);
    sql(conn, "select durable.pause_queue('default')");
    sql(conn, "select durable_internal.bury(id, crashed => false) from durable_internal.worker "
              "where alive");
    wait_until(conn, 20,
               "select not exists (select from pg_stat_activity where application_name = "
               "'durable-worker step_tx' and state <> 'idle' and datname = current_database())");
    assert_int_equal(sql_int(conn, "select count(*) from transfer where run_id = '%s'", id), 0);
    sql(conn, "select durable.resume_queue('default')");
    check_all((int)before + 1);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* State, events and children of a handler in C are step_tx's; those of handlers over HTTP are
 * in tests/sql/test_ops.c and test_branches.c. */
static void state_events_and_children_happen_once(void **state) {
    static const char *const points[] = { "step_tx.before_commit:17:kill",
                                          "step_tx.after_commit:23:kill" };
    (void)state;
    long long before = sql_int(conn, "select count(*) from durable.runs");
    for (int i = 1; i <= 2; i++) {
        pid_t victim = spawn_worker(url, points[i - 1]);
        wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)",
                   (int)victim);
        sql(conn,
            "select durable.start_many('world', array_fill('{\"n\": 1.5}'::jsonb, array[10]))");
        assert_int_equal(wait_process(victim, 20), -SIGKILL);
        pid_t heir = spawn_worker(url, NULL);
        wait_until(conn, 60, "select count(*) = %lld from durable.runs where status = 'completed'",
                   before + 20 * i);
        assert_int_equal(sql_int(conn, "select value::int from durable.state_get('worlds')"),
                         10 * i);
        assert_int_equal(sql_int(conn, "select count(*) from durable.events where name = 'hello'"),
                         10 * i);
        assert_int_equal(sql_int(conn, "select count(*) from durable.runs where job = 'steps' and "
                                       "parent_run_id is not null"),
                         10 * i);
        assert_int_equal(
            sql_int(conn, "select count(*) from durable.runs where job = 'world' and result = '5'"),
            10 * i);
        assert_int_equal(sql_int(conn, "select count(*) from durable_internal.state_lock"), 0);
        assert_int_equal(end_process(heir, SIGTERM), 0);
    }
}

/* Of each of the six that `world` does: its commit arrives, and the answer does not. */
static void state_events_and_children_whose_answer_is_lost_happen_once(void **state) {
    (void)state;
    sql(conn, "select durable.state_delete('worlds')");
    sql(conn, "create temp table told as select id from durable.events where name = 'hello'");
    for (int i = 1; i <= 6; i++) {
        char point[64];
        (void)snprintf(point, sizeof point, "step_tx.before_commit:%d:drop", i);
        pid_t worker = spawn_worker(url, point);
        char id[64];
        (void)snprintf(id, sizeof id, "%s",
                       sql_text(conn, "select durable.start('world', '{\"n\": 1.5}')"));
        wait_until(conn, 60,
                   "select status = 'completed' and attempt = 1 from durable.runs where id = '%s'",
                   id);
        assert_int_equal(sql_int(conn, "select value::int from durable.state_get('worlds')"), i);
        assert_int_equal(sql_int(conn, "select count(*) from durable.events where name = 'hello' "
                                       "and id not in (select id from told)"),
                         i);
        assert_int_equal(
            sql_int(conn, "select count(*) from durable.runs where parent_run_id = '%s'", id), 1);
        assert_int_equal(sql_int(conn, "select count(*) from durable_internal.state_lock"), 0);
        assert_int_equal(end_process(worker, SIGTERM), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_before_or_after_the_commit_transfers_once),
        cmocka_unit_test(sessions_that_are_cut_in_the_middle_transfer_once),
        cmocka_unit_test(a_commit_whose_answer_is_lost_transfers_once),
        cmocka_unit_test(sessions_that_were_cut_while_idle_cost_no_attempt),
        cmocka_unit_test(a_step_that_outlives_its_workers_life_transfers_once),
        cmocka_unit_test(state_events_and_children_happen_once),
        cmocka_unit_test(state_events_and_children_whose_answer_is_lost_happen_once),
        cmocka_unit_test(a_step_that_the_database_refuses_says_why_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
