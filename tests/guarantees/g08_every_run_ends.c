/* Guarantee 8. Every run ends, or shows what it waits for and until when. Runs whose worker died or
 * stands still are in g08_no_worker_keeps_a_run.c, those that are retried with their children in
 * g08_retries_and_children.c.
 *
 * Seen to fail: with a scheduler that looked for timers of long ago once in ten seconds, 2,500 of
 * them took half a minute. More in tests/mutations. */
#include "support.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *url;
static PGconn *conn;
static pid_t worker;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    (void)spawn_scheduler(url);
    return 0;
}

static int worker_up(void **state) {
    (void)state;
    worker = spawn_worker(url, NULL);
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)", (int)worker);
    return 0;
}

static int worker_down(void **state) {
    (void)state;
    assert_int_equal(end_process(worker, SIGTERM), 0);
    return 0;
}

static const char *ended(const char *job, const char *payload) {
    static char id[64];
    (void)snprintf(id, sizeof id, "%s",
                   sql_text(conn, "select durable.start('%s', '%s')", job, payload));
    wait_until(conn, 30, "select finished_at is not null from durable.runs where id = '%s'", id);
    return id;
}

static void failed_attempts_are_tried_again_until_the_last(void **state) {
    (void)state;
    const char *id = ended("fails", "{}");
    assert_string_equal(sql_text(conn,
                                 "select status || ' ' || attempt || ' ' || (error ->> 'message') "
                                 "from durable.runs where id = '%s'",
                                 id),
                        "failed 3 attempt 3 failed");
    assert_int_equal(
        sql_int(conn,
                "select count(*) from durable.attempts where run_id = '%s' and outcome = 'failed'",
                id),
        3);
    assert_int_equal(sql_int(conn, "select durable.retry('%s', 1)", id), 1);
    wait_until(conn, 30,
               "select status = 'failed' and attempt = 4 from durable.runs where id = '%s'", id);
}

static void a_permanent_failure_is_not_tried_again(void **state) {
    (void)state;
    assert_int_equal(sql_int(conn, "select attempt from durable.runs where id = '%s'",
                             ended("fails-permanently", "{}")),
                     1);
}

static void a_step_with_a_policy_is_tried_in_the_same_attempt(void **state) {
    (void)state;
    const char *id = ended("flaky", "{}");
    assert_string_equal(
        sql_text(conn, "select status || ' ' || attempt from durable.runs where id = '%s'", id),
        "completed 1");
    assert_int_equal(sql_int(conn, "select count(*) from effect where run_id = '%s'", id), 3);
}

static void a_step_over_its_time_ends_its_attempt_and_others_go_on(void **state) {
    (void)state;
    const char *id = ended("late", "{\"ms\": 1500}");
    assert_string_equal(
        sql_text(conn, "select error ->> 'name' from durable.runs where id = '%s'", id),
        "StepTimeoutError");
    assert_true(sql_int(conn,
                        "select extract(epoch from finished_at - started_at) * 1000 from "
                        "durable.runs where id = '%s'",
                        id) < 1400);
    (void)ended("noop", "{}");
}

static void a_run_over_its_time_ends_wherever_it_is(void **state) {
    (void)state;
    char waiting[64], running[64], nobody[64];
    (void)snprintf(waiting, sizeof waiting, "%s",
                   sql_text(conn, "select durable.start('waits', timeout => '300ms')"));
    (void)snprintf(
        running, sizeof running, "%s",
        sql_text(conn, "select durable.start('slow', '{\"ms\": 3000}', timeout => '300ms')"));
    (void)snprintf(nobody, sizeof nobody, "%s",
                   sql_text(conn, "select durable.start('nobody', timeout => '300ms')"));
    wait_until(conn, 20,
               "select count(*) = 3 from durable.runs where id in ('%s', '%s', '%s') and status = "
               "'failed' and "
               "error ->> 'name' = 'RunTimeoutError'",
               waiting, running, nobody);
    assert_string_equal(
        sql_text(conn, "select outcome from durable.attempts where run_id = '%s'", running),
        "timed_out");
}

static void waits_time_out_as_their_handler_asked(void **state) {
    (void)state;
    assert_string_equal(
        sql_text(conn,
                 "select status || ' ' || (error ->> 'name') from durable.runs where id = '%s'",
                 ended("waits", "{\"timeout\": \"100ms\", \"on\": 0}")),
        "failed WaitTimeoutError");
    assert_string_equal(sql_text(conn,
                                 "select status || ' ' || result from durable.runs where id = '%s'",
                                 ended("waits", "{\"timeout\": \"100ms\", \"on\": 1}")),
                        "completed {\"timedOut\": true}");
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'",
                                 ended("waits", "{\"timeout\": \"100ms\", \"on\": 2}")),
                        "cancelled");
}

static void a_sleeping_run_wakes(void **state) {
    (void)state;
    const char *id = ended("sleeps", "{}");
    assert_true(sql_int(conn,
                        "select extract(epoch from finished_at - started_at) * 1000 from "
                        "durable.runs where id = '%s'",
                        id) >= 300);
    assert_int_equal(sql_int(conn, "select attempt from durable.runs where id = '%s'", id), 1);
}

static void a_result_over_its_limit_fails_the_run_once_and_says_where(void **state) {
    (void)state;
    const char *id = ended("large", "{\"bytes\": 1048575}");
    assert_string_equal(
        sql_text(conn, "select status || ' ' || attempt from durable.runs where id = '%s'", id),
        "failed 1");
    assert_non_null(
        strstr(sql_text(conn, "select error ->> 'message' from durable.runs where id = '%s'", id),
               "step large is 1048577 bytes"));
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'",
                                 ended("large", "{\"bytes\": 1048574}")),
                        "completed");
}

static void a_handler_that_changed_parks_its_run_until_a_version_fits(void **state) {
    (void)state;
    pid_t old = spawn_worker(url, NULL);
    const char *id = sql_text(conn, "select durable.start('swapped', '{\"order\": \"ab\"}')");
    wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", id);
    (void)end_process(old, SIGTERM);
    (void)setenv("TEST_STEP_ORDER", "ba", 1);
    (void)setenv("TEST_VERSION", "2", 1);
    pid_t changed = spawn_worker(url, NULL);
    sql(conn, "select durable.send_event('go')");
    wait_until(conn, 20,
               "select waiting_for ->> 'kind' = 'version' from durable.runs where id = '%s'", id);
    assert_string_equal(sql_text(conn,
                                 "select (waiting_for ->> 'expected') || (waiting_for ->> 'found') "
                                 "from durable.runs where id = '%s'",
                                 id),
                        "ab");
    (void)end_process(changed, SIGTERM);
    (void)setenv("TEST_STEP_ORDER", "ab", 1);
    (void)setenv("TEST_VERSION", "3", 1);
    pid_t mended = spawn_worker(url, NULL);
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    (void)end_process(mended, SIGTERM);
    (void)unsetenv("TEST_STEP_ORDER");
    (void)unsetenv("TEST_VERSION");
}

static void a_run_of_a_job_nobody_serves_says_so(void **state) {
    (void)state;
    const char *id = sql_text(conn, "select durable.start('unknown-job')");
    assert_string_equal(
        sql_text(
            conn,
            "select status || ' ' || (waiting_for ->> 'kind') || ' ' || (waiting_for ->> 'job') "
            "from durable.runs where id = '%s'",
            id),
        "queued worker unknown-job");
    assert_non_null(strstr(sql_text(conn, "select durable.why('%s')", id), "no worker"));
}

/* The active one stands still, and holds the lock that makes it so. */
static void a_frozen_scheduler_keeps_nobody_waiting(void **state) {
    (void)state;
    pid_t other = spawn_scheduler(url);
    pid_t here = spawn_worker(url, NULL);
    wait_until(conn, 20,
               "select count(*) >= 2 from durable_internal.scheduler where beat_at > "
               "clock_timestamp() - interval '2 s'");
    pid_t frozen = (pid_t)sql_int(conn, "select pid from durable_internal.scheduler where active");
    assert_true(frozen > 0 && kill(frozen, SIGSTOP) == 0);
    const char *id = sql_text(conn, "select durable.start('sleeps')");
    wait_until(conn, 15, "select status = 'completed' from durable.runs where id = '%s'", id);
    (void)kill(frozen, SIGCONT);
    assert_int_equal(end_process(here, SIGTERM), 0);
    if (other != frozen) {
        assert_int_equal(end_process(other, SIGTERM), 0);
    }
}

/* What became due while no scheduler was there comes in parts, which others can go between. */
static void what_became_due_meanwhile_comes_in_parts(void **state) {
    (void)state;
    sql(conn, "create table due as select id from durable.start_many('overdue', "
              "array_fill('{}'::jsonb, array[2500]), scheduled_at => now() + interval '1 hour') "
              "as s (id)");
    sql(conn, "begin");
    sql(conn, "update durable_internal.timer set due_at = due_at - interval '2 hours' where run_id "
              "in (select id from due)");
    for (int part = 0; part < 3; part++) {
        assert_int_equal(sql_int(conn, "select promoted from durable_internal.promote_due(1000, "
                                       "-1)"),
                         part < 2 ? 1000 : 500);
    }
    assert_int_equal(sql_int(conn, "select promoted from durable_internal.promote_due(1000, -1)"),
                     0);
    sql(conn, "rollback");
    sql(conn, "update durable_internal.timer set due_at = due_at - interval '2 hours' where run_id "
              "in (select id from due)");
    wait_until(conn, 20,
               "select count(*) = 2500 from durable_internal.ready where run_id in "
               "(select id from due)");
    sql(conn, "select durable.cancel(id) from due");
}

/* A thousand runs that fail at one instant are not tried again at one instant. */
static void tries_after_one_failure_of_all_are_spread_out(void **state) {
    (void)state;
    assert_string_equal(
        sql_text(conn, "select format('%%s %%s %%s', min(d) >= interval '8 s', max(d) <= interval "
                       "'12 s', count(distinct extract(epoch from d)::int)) from (select "
                       "durable_internal.backoff_delay('{\"initial\": \"10s\"}', 1) as d from "
                       "generate_series(1, 1000)) as tries"),
        "t t 5");
    assert_string_equal(
        sql_text(conn,
                 "select format('%%s %%s', min(d) = max(d), max(d)) from (select "
                 "durable_internal.backoff_delay('{\"initial\": \"10s\", \"jitter\": 0, "
                 "\"max\": \"1h\"}', n) as d from generate_series(50, 1000, 50) as n) as tries"),
        "t 01:00:00");
    /* Whatever a start may say, there is a time of the next try. */
    assert_string_equal(
        sql_text(conn, "select format('%%s %%s', count(d), max(d)) from (values "
                       "('{\"initial\": \"3h\", \"factor\": 2}'::jsonb), ('{\"initial\": \"1d\", "
                       "\"factor\": 10}'), ('{\"initial\": \"3650d\", \"factor\": 1000, \"max\": "
                       "\"1ms\"}')) as p (policy), generate_series(1, 100) as n, "
                       "durable_internal.backoff_delay(policy, n) as d"),
        "300 01:00:00");
}

/* A dump of a database whose workers are elsewhere: their leases are nobody's. */
static void a_restored_dump_goes_on(void **state) {
    static char copy[256];
    char name[64];
    (void)state;
    pid_t here = spawn_worker(url, NULL);
    char slow[64], waiting[64], sleeping[64];
    (void)snprintf(slow, sizeof slow, "%s",
                   sql_text(conn, "select durable.start('ponders', '{\"ms\": 4000}')"));
    (void)snprintf(waiting, sizeof waiting, "%s",
                   sql_text(conn, "select durable.start('waits', '{\"key\": \"dump\"}')"));
    (void)snprintf(sleeping, sizeof sleeping, "%s",
                   sql_text(conn, "select durable.start('sleeps')"));
    wait_until(conn, 20, "select count(*) = 1 from durable.steps where run_id = '%s'", slow);
    wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", waiting);
    struct said said;
    (void)snprintf(name, sizeof name, "restored_%d", (int)getpid());
    (void)snprintf(copy, sizeof copy, "%.*s/%s", (int)(strrchr(url, '/') - url), url, name);
    sql(conn, "create database %s", name);
    shell_said(&said, "pg_dump '%s' | psql -X -q -v ON_ERROR_STOP=1 '%s'", url, copy);
    if (said.status != 0 || said.err[0] != '\0') {
        fail_msg("%s", said.err);
    }
    assert_int_equal(end_process(here, SIGTERM), 0);
    PGconn *there = connect_to(copy);
    assert_string_equal(sql_text(there, "select status from durable.runs where id = '%s'", slow),
                        "running");
    pid_t scheduler = spawn_scheduler(copy), heir = spawn_worker(copy, NULL);
    sql(there, "select durable.send_event('go', '{}', 'dump')");
    wait_until(there, 30,
               "select count(*) = 3 from durable.runs where id in ('%s', '%s', '%s') and status = "
               "'completed'",
               slow, waiting, sleeping);
    assert_int_equal(sql_int(there,
                             "select count(distinct fence) from durable_internal.step where "
                             "run_id = '%s'",
                             slow),
                     2);
    assert_true(sql_int(there,
                        "select bool_and(b.fence > a.fence) from durable_internal.step a join "
                        "durable_internal.step b using (run_id) where run_id = '%s' and a.position "
                        "= 1 and b.position = 2",
                        slow) == 1);
    assert_int_equal(end_process(heir, SIGTERM), 0);
    assert_int_equal(end_process(scheduler, SIGTERM), 0);
    (void)invariants_hold(state);
    PQfinish(there);
    conn = connect_to(url);
    sql(conn, "drop database %s with (force)", name);
}

/* A delay that the handler asks for says when, and not how often: of two attempts the second is the
 * last. */
static void a_delay_spends_an_attempt(void **state) {
    (void)state;
    const char *by_hand = worker_new(conn, "delayed");
    char id[64];
    (void)snprintf(id, sizeof id, "%s",
                   sql_text(conn, "select durable.start('delayed', max_attempts => 2)"));
    for (int attempt = 1; attempt <= 2; attempt++) {
        sql(conn, "drop table if exists delayed");
        sql(conn,
            "create table delayed as select run_id, fence from "
            "durable_internal.claim('%s', 1, 1000000)",
            by_hand);
        sql(conn,
            "select durable_internal.commit('%s', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', "
            "'{}', '{}', '{}', '{}', array(select run_id from delayed), array(select fence from "
            "delayed), array['fail'], array['{\"error\": {\"name\": \"RetryAfterError\", "
            "\"message\": \"busy\"}, \"retryAfterMs\": 3600000}']::jsonb[], '{}', '{}', '{}', "
            "'{}', '{}')",
            by_hand);
        if (attempt == 1) {
            assert_string_equal(sql_text(conn,
                                         "select format('%%s %%s of %%s %%s', status, attempt, "
                                         "max_attempts, next_attempt_at > now() + interval '59 "
                                         "minutes') from durable.runs where id = '%s'",
                                         id),
                                "retrying 1 of 2 t");
            sql(conn, "select durable.reschedule('%s', now())", id);
            wait_until(conn, 20, "select status = 'queued' from durable.runs where id = '%s'", id);
        }
    }
    assert_string_equal(
        sql_text(conn, "select status || ' ' || attempt from durable.runs where id = '%s'", id),
        "failed 2");
    sql(conn, "select durable_internal.worker_leave('%s')", by_hand);
}

#define WITH_WORKER(test) cmocka_unit_test_setup_teardown(test, worker_up, worker_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_WORKER(failed_attempts_are_tried_again_until_the_last),
        WITH_WORKER(a_permanent_failure_is_not_tried_again),
        WITH_WORKER(a_step_with_a_policy_is_tried_in_the_same_attempt),
        WITH_WORKER(a_step_over_its_time_ends_its_attempt_and_others_go_on),
        WITH_WORKER(a_run_over_its_time_ends_wherever_it_is),
        WITH_WORKER(waits_time_out_as_their_handler_asked),
        WITH_WORKER(a_sleeping_run_wakes),
        WITH_WORKER(a_result_over_its_limit_fails_the_run_once_and_says_where),
        cmocka_unit_test(a_handler_that_changed_parks_its_run_until_a_version_fits),
        cmocka_unit_test(a_run_of_a_job_nobody_serves_says_so),
        cmocka_unit_test(a_delay_spends_an_attempt),
        cmocka_unit_test(a_frozen_scheduler_keeps_nobody_waiting),
        cmocka_unit_test(what_became_due_meanwhile_comes_in_parts),
        cmocka_unit_test(tries_after_one_failure_of_all_are_spread_out),
        cmocka_unit_test(a_restored_dump_goes_on),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
