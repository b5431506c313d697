/* Guarantee 8. Every run ends, or shows what it waits for and until when. A run whose worker died
 * is taken up by another.
 *
 * Seen to fail: with reap() doing nothing, the killed worker's run stayed `running`; with nobody
 * charged for crashes, the run that kills its workers went on, and the tests after it found their
 * worker dead; with a reaped worker's sessions left alone, the one that froze in a step with a
 * transaction kept its run; with a scheduler that looked for timers of long ago once in ten
 * seconds, 2,500 of them took half a minute; with a retry that remembered the start of a child
 * that had failed, its parent waited for ever. More in tests/mutations. */
#include "support.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *url;
static PGconn *conn;
static pid_t worker;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    sql(conn, "create table transfer (run_id uuid unique)");
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

/* A run of job family, which begins so many children, one after the other. */
static const char *family_of(int kids) {
    static char id[64];
    (void)snprintf(id, sizeof id, "%s",
                   sql_text(conn,
                            "select durable.start('family', '{\"kids\": %d}', timeout => '1 hour')",
                            kids));
    return id;
}

/* Waits until a run waits for a child; answers which (valid until the next call but one). */
static const char *child_of(const char *id) {
    static char children[2][64];
    static int next;
    char *child = children[next++ % 2];
    wait_until(
        conn, 20,
        "select coalesce(waiting_for ->> 'kind' = 'child', false) from durable.runs where id "
        "= '%s'",
        id);
    (void)snprintf(
        child, sizeof children[0], "%s",
        sql_text(conn, "select waiting_for ->> 'runId' from durable.runs where id = '%s'", id));
    return child;
}

static void check_end(const char *id, const char *status) {
    wait_until(conn, 20, "select finished_at is not null from durable.runs where id = '%s'", id);
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        status);
}

static int children_of(const char *id) {
    return (int)sql_int(conn, "select count(*) from durable.runs where parent_run_id = '%s'", id);
}

static void end_child(const char *child, bool well) {
    sql(conn, "select durable.send_event('mood', '%s', '%s')", well ? "true" : "false", child);
    check_end(child, well ? "completed" : "failed");
}

static void its_time_is_over(const char *id) {
    sql(conn,
        "update durable_internal.timer set due_at = clock_timestamp() where run_id = '%s' and kind "
        "= 'run_timeout'",
        id);
    check_end(id, "failed");
}

static void retry(const char *id) {
    assert_int_equal(sql_int(conn, "select durable.retry('%s')", id), 1);
}

static void a_retry_begins_a_child_that_has_failed_anew(void **state) {
    (void)state;
    const char *id = family_of(2);
    end_child(child_of(id), true);
    wait_until(conn, 20, "select count(*) = 2 from durable.runs where parent_run_id = '%s'", id);
    for (int failed = 1; failed <= 2; failed++) {
        end_child(child_of(id), false);
        check_end(id, "failed");
        retry(id);
    }
    end_child(child_of(id), true);
    check_end(id, "completed");
    assert_int_equal(children_of(id), 4); /* the first one once, the second three times */
}

static void a_retry_begins_a_child_anew_that_was_cancelled_with_its_parent(void **state) {
    (void)state;
    const char *id = family_of(1);
    for (int cancelled = 1; cancelled <= 2; cancelled++) {
        const char *child = child_of(id);
        assert_int_equal(sql_int(conn, "select durable.cancel('%s')", id), 1);
        check_end(child, "cancelled");
        retry(id);
    }
    end_child(child_of(id), true);
    check_end(id, "completed");
    assert_int_equal(children_of(id), 3);
}

static void a_retry_waits_for_a_child_that_is_alive(void **state) {
    (void)state;
    const char *id = family_of(1), *child = child_of(id);
    its_time_is_over(id);
    retry(id);
    assert_string_equal(child_of(id), child);
    end_child(child, true);
    check_end(id, "completed");
    assert_int_equal(children_of(id), 1);
}

static void a_retry_takes_the_result_of_a_child_that_has_completed(void **state) {
    (void)state;
    const char *id = family_of(1), *child = child_of(id);
    its_time_is_over(id);
    end_child(child, true);
    retry(id);
    check_end(id, "completed");
    assert_int_equal(children_of(id), 1);
}

/* Somebody has let the child go on before its parent: it is alive. */
static void a_retry_waits_for_a_child_that_was_retried(void **state) {
    (void)state;
    const char *id = family_of(1), *child = child_of(id);
    sql(conn, "select durable.cancel('%s')", child);
    check_end(id, "failed");
    retry(child);
    retry(id);
    assert_string_equal(child_of(id), child);
    end_child(child, true);
    check_end(id, "completed");
    assert_int_equal(children_of(id), 1);
}

/* Both were cancelled, and both go on: nobody has heard of the child's first end, and it counts no
 * more, whether the child has come to its second by then or not. */
static void a_retry_passes_over_the_old_end_of_a_child_that_goes_on(void **state) {
    (void)state;
    for (int is_first = 0; is_first <= 1; is_first++) {
        const char *id = family_of(1), *child = child_of(id);
        assert_int_equal(sql_int(conn, "select durable.cancel('%s')", id), 1);
        check_end(child, "cancelled");
        retry(child);
        if (is_first) {
            end_child(child, true);
        }
        retry(id);
        if (!is_first) {
            assert_string_equal(child_of(id), child);
            end_child(child, true);
        }
        check_end(id, "completed");
        assert_int_equal(children_of(id), 1);
    }
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

static void a_killed_workers_run_is_taken_up_by_another(void **state) {
    (void)state;
    pid_t victim = spawn_worker(url, NULL);
    const char *id = sql_text(conn, "select durable.start('slow', '{\"ms\": 60000}')");
    wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", id);
    assert_int_equal(end_process(victim, SIGKILL), -SIGKILL);
    sql(conn, "update durable_internal.run set payload = '{\"ms\": 1}' where id = '%s'", id);
    pid_t heir = spawn_worker(url, NULL);
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    assert_string_equal(sql_text(conn,
                                 "select string_agg(outcome, ' ' order by attempt) from "
                                 "durable.attempts where run_id = '%s'",
                                 id),
                        "crashed completed");
    (void)end_process(heir, SIGTERM);
}

/* It stands still with its SQL done and its lease locked, in a transaction that only it would end.
 */
static void a_worker_that_freezes_in_a_step_with_a_transaction_keeps_nobody_waiting(void **state) {
    (void)state;
    pid_t frozen = spawn_worker(url, NULL);
    const char *id = sql_text(conn, "select durable.start('transfers', '{\"ms\": 60000}')");
    wait_until(
        conn, 20,
        "select exists (select from pg_stat_activity where application_name = "
        "'durable-worker step_tx' and state = 'idle in transaction' and query like 'insert%%' "
        "and datname = current_database())");
    assert_int_equal(kill(frozen, SIGSTOP), 0);
    sql(conn, "update durable_internal.run set payload = '{}' where id = '%s'", id);
    pid_t heir = spawn_worker(url, NULL);
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    assert_int_equal(sql_int(conn, "select count(*) from transfer"), 1);
    (void)end_process(frozen, SIGKILL);
    (void)end_process(heir, SIGTERM);
}

static void a_run_that_kills_its_workers_fails_and_its_neighbours_complete(void **state) {
    char poison[64];
    (void)state;
    (void)snprintf(poison, sizeof poison, "%s", sql_text(conn, "select durable.start('dies')"));
    sql(conn,
        "select durable.start_many('steps', array_fill('{\"us\": 1000}'::jsonb, array[100]))");
    for (int lives = 0;
         lives < 6 &&
         sql_int(conn, "select finished_at is null from durable.runs where id = '%s'", poison);
         lives++) {
        pid_t next = spawn_worker(url, NULL);
        for (int tries = 0;
             tries < 500 && kill(next, 0) == 0 &&
             sql_int(conn, "select finished_at is null from durable.runs where id = '%s'", poison);
             tries++) {
            sleep_ms(20);
            if (sql_int(conn,
                        "select exists (select from durable.workers where pid = %d and status = "
                        "'gone')",
                        (int)next)) {
                break;
            }
        }
        (void)end_process(next, SIGKILL);
    }
    assert_string_equal(
        sql_text(conn,
                 "select status || ' ' || (error ->> 'name') from durable.runs where id = '%s'",
                 poison),
        "failed WorkerCrashed");
    assert_int_equal(sql_int(conn, "select count(*) from effect where run_id = '%s'", poison), 3);
    pid_t last = spawn_worker(url, NULL);
    wait_until(
        conn, 30,
        "select count(*) = 100 from durable.runs where job = 'steps' and status = 'completed'");
    assert_int_equal(
        sql_int(conn, "select count(*) from durable.runs where job = 'steps' and attempt > 1"),
        0); /* nobody else is charged */
    (void)end_process(last, SIGTERM);
}

static void a_drained_worker_gives_its_runs_back_and_spends_no_attempt(void **state) {
    (void)state;
    pid_t first = spawn_worker(url, NULL);
    const char *id =
        sql_text(conn, "select durable.start('steps', '{\"steps\": 20, \"us\": 50000}')");
    wait_until(conn, 20, "select count(*) > 3 from durable.steps where run_id = '%s'", id);
    assert_int_equal(end_process(first, SIGTERM), 0);
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "queued");
    pid_t second = spawn_worker(url, NULL);
    wait_until(conn, 20,
               "select status = 'completed' and attempt = 1 from durable.runs where id = '%s'", id);
    assert_int_equal(sql_int(conn, "select count(*) from effect where run_id = '%s'", id), 20);
    (void)end_process(second, SIGTERM);
}

/* The first SIGTERM lets the step go on, the second does not; and one whose database was never
 * there has nothing to wait for. */
static void a_second_sigterm_and_one_without_a_database_end_a_worker(void **state) {
    (void)state;
    pid_t busy = spawn(url, NULL, "durable-worker", "--lease-ttl", "20s", "--grace", "60s", NULL);
    const char *id = sql_text(conn, "select durable.start('slow', '{\"ms\": 60000}')");
    wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", id);
    assert_int_equal(kill(busy, SIGTERM), 0);
    wait_until(conn, 5, "select status = 'draining' from durable.workers where pid = %d",
               (int)busy);
    assert_int_equal(kill(busy, 0), 0);
    (void)kill(busy, SIGTERM);
    assert_int_equal(wait_process(busy, 5), 0);
    wait_until(conn, 5,
               "select status = 'queued' and attempt = 1 from durable.runs where id = '%s'", id);
    pid_t next = spawn_worker(url, NULL);
    wait_until(conn, 20, "select count(*) = 2 from effect where run_id = '%s'", id);
    assert_int_equal(sql_int(conn, "select attempt from durable.runs where id = '%s'", id), 1);
    sql(conn, "select durable.cancel('%s')", id);
    assert_int_equal(end_process(next, SIGTERM), 0);

    char nowhere[128];
    (void)snprintf(nowhere, sizeof nowhere, "postgresql://postgres@127.0.0.1:%d/none", free_port());
    pid_t alone = spawn_worker(nowhere, NULL);
    sleep_ms(1000);
    (void)kill(alone, SIGTERM);
    assert_int_equal(wait_process(alone, 5), 0);
}

/* Its control connection is lost, and while it makes a new one (the fourth: the first three were
 * the control's and the lines') a turn hears that the worker is dead. */
static void a_worker_declared_dead_while_it_reconnects_registers_again(void **state) {
    (void)state;
    pid_t lonely = spawn_worker(url, "beat.sent:2:cut,connect.opened:4:sleep=2000");
    wait_until(conn, 20,
               "select count(*) = 3 from pg_stat_activity where application_name = "
               "'durable-worker' and datname = current_database()");
    wait_until(conn, 20,
               "select count(*) = 2 from pg_stat_activity where application_name = "
               "'durable-worker' and datname = current_database()");
    sql(conn, "update durable_internal.worker set alive = false where pid = %d", (int)lonely);
    const char *id = sql_text(conn, "select durable.start('noop')");
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    assert_int_equal(end_process(lonely, SIGTERM), 0);
}

/* It has no slot free and nothing to commit, so no turn tells it. */
static void a_worker_that_is_busy_hears_at_its_beat_that_it_is_dead(void **state) {
    (void)state;
    pid_t busy = spawn(url, NULL, "durable-worker", "--lease-ttl", "2s", "--slots", "1", NULL);
    const char *id = sql_text(conn, "select durable.start('slow', '{\"ms\": 60000}')");
    wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", id);
    sql(conn, "update durable_internal.run set payload = '{\"ms\": 1}' where id = '%s'", id);
    sql(conn,
        "select durable_internal.bury(id, crashed => false) from durable_internal.worker where pid "
        "= %d",
        (int)busy);
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.worker where pid = %d", (int)busy), 2);
    assert_int_equal(end_process(busy, SIGTERM), 0);
}

/* It is declared dead while it stands still before it says which runs it has. */
static void a_worker_that_has_lost_an_answer_and_its_life_registers_again(void **state) {
    (void)state;
    pid_t zombie = spawn_worker(url, "turn.sent:3:drop,reconcile.before:1:stop");
    sql(conn, "select durable.start_many('steps', array_fill('{}'::jsonb, array[10]))");
    int status = 0;
    assert_int_equal(waitpid(zombie, &status, WUNTRACED), zombie);
    assert_true(WIFSTOPPED(status));
    sql(conn,
        "select durable_internal.bury(id, crashed => false) from durable_internal.worker where pid "
        "= %d",
        (int)zombie);
    assert_int_equal(kill(zombie, SIGCONT), 0);
    wait_until(conn, 20,
               "select count(*) = 0 from durable.runs where job = 'steps' and finished_at is null");
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.worker where pid = %d", (int)zombie),
        2);
    assert_int_equal(end_process(zombie, SIGTERM), 0);
}

/* The machine had no room for one just then, and nothing else comes that would ask for it. */
static void a_run_that_got_no_thread_gets_one_later(void **state) {
    (void)state;
    const char *id = sql_text(conn, "select durable.start('noop')");
    pid_t unlucky = spawn_worker(url, "pool.thread:1:fail");
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    assert_int_equal(end_process(unlucky, SIGTERM), 0);
}

/* The database ends the turn's transaction and not its connection. */
static void a_turn_that_meets_a_deadlock_is_said_again(void **state) {
    (void)state;
    sql(conn, "create sequence deadlocks");
    sql(conn,
        "create function meet_deadlock() returns trigger language plpgsql as $$ begin if "
        "nextval('public.deadlocks') <= 3 then raise deadlock_detected; end if; return new; end "
        "$$");
    sql(conn, "create trigger meet_deadlock before insert on durable_internal.step for each row "
              "execute function meet_deadlock()");
    pid_t unlucky = spawn_worker(url, NULL);
    const char *id = sql_text(conn, "select durable.start('steps')");
    wait_until(conn, 20,
               "select status = 'completed' and attempt = 1 from durable.runs where id = '%s'", id);
    assert_true(sql_int(conn, "select last_value from deadlocks") > 5);
    assert_int_equal(sql_int(conn, "select count(*) from effect where run_id = '%s'", id), 5);
    assert_int_equal(end_process(unlucky, SIGTERM), 0);
    sql(conn, "drop trigger meet_deadlock on durable_internal.step");
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
            sql(conn, "select durable_internal.promote_due(100, 0)");
        }
    }
    assert_string_equal(
        sql_text(conn, "select status || ' ' || attempt from durable.runs where id = '%s'", id),
        "failed 2");
    sql(conn, "select durable_internal.worker_leave('%s')", by_hand);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(failed_attempts_are_tried_again_until_the_last, worker_up,
                                        worker_down),
        cmocka_unit_test_setup_teardown(a_permanent_failure_is_not_tried_again, worker_up,
                                        worker_down),
        cmocka_unit_test_setup_teardown(a_step_with_a_policy_is_tried_in_the_same_attempt,
                                        worker_up, worker_down),
        cmocka_unit_test_setup_teardown(a_step_over_its_time_ends_its_attempt_and_others_go_on,
                                        worker_up, worker_down),
        cmocka_unit_test_setup_teardown(a_run_over_its_time_ends_wherever_it_is, worker_up,
                                        worker_down),
        cmocka_unit_test_setup_teardown(waits_time_out_as_their_handler_asked, worker_up,
                                        worker_down),
        cmocka_unit_test_setup_teardown(a_sleeping_run_wakes, worker_up, worker_down),
        cmocka_unit_test_setup_teardown(a_result_over_its_limit_fails_the_run_once_and_says_where,
                                        worker_up, worker_down),
        cmocka_unit_test_setup_teardown(a_retry_begins_a_child_that_has_failed_anew, worker_up,
                                        worker_down),
        cmocka_unit_test_setup_teardown(
            a_retry_begins_a_child_anew_that_was_cancelled_with_its_parent, worker_up, worker_down),
        cmocka_unit_test_setup_teardown(a_retry_waits_for_a_child_that_is_alive, worker_up,
                                        worker_down),
        cmocka_unit_test_setup_teardown(a_retry_takes_the_result_of_a_child_that_has_completed,
                                        worker_up, worker_down),
        cmocka_unit_test_setup_teardown(a_retry_waits_for_a_child_that_was_retried, worker_up,
                                        worker_down),
        cmocka_unit_test_setup_teardown(a_retry_passes_over_the_old_end_of_a_child_that_goes_on,
                                        worker_up, worker_down),
        cmocka_unit_test(a_killed_workers_run_is_taken_up_by_another),
        cmocka_unit_test(a_worker_that_freezes_in_a_step_with_a_transaction_keeps_nobody_waiting),
        cmocka_unit_test(a_run_that_kills_its_workers_fails_and_its_neighbours_complete),
        cmocka_unit_test(a_drained_worker_gives_its_runs_back_and_spends_no_attempt),
        cmocka_unit_test(a_second_sigterm_and_one_without_a_database_end_a_worker),
        cmocka_unit_test(a_worker_declared_dead_while_it_reconnects_registers_again),
        cmocka_unit_test(a_worker_that_is_busy_hears_at_its_beat_that_it_is_dead),
        cmocka_unit_test(a_worker_that_has_lost_an_answer_and_its_life_registers_again),
        cmocka_unit_test(a_run_that_got_no_thread_gets_one_later),
        cmocka_unit_test(a_turn_that_meets_a_deadlock_is_said_again),
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
