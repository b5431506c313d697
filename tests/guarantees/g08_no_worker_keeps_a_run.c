/* Guarantee 8, of workers that die, stand still, are told to end, or are taken for dead: their runs
 * go on elsewhere.
 *
 * Seen to fail: with reap() doing nothing, the killed worker's run stayed `running`; with nobody
 * charged for crashes, the run that kills its workers went on, and the tests after it found their
 * worker dead; with a reaped worker's sessions left alone, the one that froze in a step with a
 * transaction kept its run. More in tests/mutations. */
#include "support.h"
#include "tests/common/loopback.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    sql(conn, "create table transfer (run_id uuid unique)");
    (void)spawn_scheduler(url);
    return 0;
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

/* Keeps a worker's next turn waiting, and waits until it does. */
static void hold_worker(PGconn *holder, pid_t worker) {
    sql(holder,
        "select pg_advisory_lock(durable_internal.worker_lock_class(), number) from "
        "durable_internal.worker where pid = %d",
        (int)worker);
    wait_until(conn, 20,
               "select exists (select from pg_locks l join durable_internal.worker_session s "
               "on s.pid = l.pid join durable_internal.worker w on w.id = s.worker_id where "
               "w.pid = %d and l.locktype = 'advisory' and not l.granted)",
               (int)worker);
}

/* Those that were held could not say that they leave. */
static void forget_held_workers(void) {
    sql(conn, "update durable_internal.worker set beat_at = beat_at - interval '1 hour' where "
              "alive and ttl = interval '1 minute'");
}

static void declare_dead(pid_t worker) {
    sql(conn,
        "select durable_internal.bury(id, crashed => false) from durable_internal.worker where pid "
        "= %d",
        (int)worker);
}

/* One SIGTERM, which a worker hears. */
static void begin_drain(pid_t worker) {
    assert_int_equal(kill(worker, SIGTERM), 0);
    wait_until(conn, 5, "select status = 'draining' from durable.workers where pid = %d",
               (int)worker);
}

/* … and lives on, and then another, which it ends by within `seconds`. */
static void end_at_once(pid_t worker, double seconds) {
    begin_drain(worker);
    assert_int_equal(kill(worker, 0), 0);
    (void)kill(worker, SIGTERM);
    assert_int_equal(wait_process(worker, seconds), 0);
}

/* The first SIGTERM lets the step go on, the second does not; and one whose database was never
 * there has nothing to wait for. */
static void a_second_sigterm_and_one_without_a_database_end_a_worker(void **state) {
    (void)state;
    pid_t busy = spawn(url, NULL, "durable-worker", "--lease-ttl", "20s", "--grace", "60s", NULL);
    const char *id = sql_text(conn, "select durable.start('slow', '{\"ms\": 60000}')");
    wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", id);
    end_at_once(busy, 5);
    wait_until(conn, 5,
               "select status = 'queued' and attempt = 1 from durable.runs where id = '%s'", id);
    pid_t next = spawn_worker(url, NULL);
    wait_until(conn, 20, "select count(*) = 2 from effect where run_id = '%s'", id);
    assert_int_equal(sql_int(conn, "select attempt from durable.runs where id = '%s'", id), 1);
    sql(conn, "select durable.cancel('%s')", id);
    assert_int_equal(end_process(next, SIGTERM), 0);

    int port, listener = loopback_listen(1, &port);
    char nowhere[128];
    (void)snprintf(nowhere, sizeof nowhere, "postgresql://postgres@127.0.0.1:%d/none", port);
    pid_t alone = spawn_worker(nowhere, NULL);
    (void)close(accept(listener, NULL, NULL));
    (void)close(listener);
    (void)kill(alone, SIGTERM);
    assert_int_equal(wait_process(alone, 5), 0);
}

/* Its commit waits for a lock, and the worker for it no longer: the handler returns, and what it
 * has is freed (else the leak checker ends the process). */
static void a_handler_whose_commit_is_not_waited_for_hears_of_it(void **state) {
    (void)state;
    PGconn *holder = connect_to(url);
    pid_t stuck = spawn(url, NULL, "durable-worker", "--lease-ttl", "60s", "--grace", "60s", NULL);
    const char *id = sql_text(conn, "select durable.start('tells', '{\"ms\": 500}')");
    wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", id);
    hold_worker(holder, stuck);
    end_at_once(stuck, 10);
    assert_int_equal(
        sql_int(conn, "select count(*) from effect where run_id = '%s' and step = 'told'", id), 1);
    PQfinish(holder);
    sql(conn, "select durable.cancel('%s')", id);
    forget_held_workers();
}

/* Its claim waits for a lock, as it would in a database that stands still: nobody knows whether it
 * is to bring runs. That is waited for while there is time, and no longer. */
static void a_claim_without_an_answer_keeps_no_worker_past_its_grace_time(void **state) {
    static const char *const graces[] = { "1s", "60s" };
    (void)state;
    for (size_t i = 0; i < sizeof graces / sizeof *graces; i++) {
        PGconn *holder = connect_to(url);
        pid_t stuck =
            spawn(url, NULL, "durable-worker", "--lease-ttl", "60s", "--grace", graces[i], NULL);
        wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)",
                   (int)stuck);
        hold_worker(holder, stuck);
        end_at_once(stuck, 5); /* of the first one the time ends, or has ended */
        PQfinish(holder);
    }
    forget_held_workers();
}

/* What it has is another's by then, and nobody would be there for what a new life brings. */
static void a_worker_that_drains_begins_no_other_life(void **state) {
    (void)state;
    pid_t dead = spawn(url, NULL, "durable-worker", "--lease-ttl", "20s", "--grace", "60s", NULL);
    const char *id = sql_text(conn, "select durable.start('slow', '{\"ms\": 1000}')");
    wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", id);
    begin_drain(dead);
    declare_dead(dead);
    assert_int_equal(wait_process(dead, 10), 0);
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.worker where pid = %d", (int)dead), 1);
    sql(conn, "select durable.cancel('%s')", id);
}

/* The database is about to register it. Nobody is to take it for a worker that is there. */
static void a_worker_told_to_end_as_it_registers_leaves(void **state) {
    (void)state;
    PGconn *holder = connect_to(url);
    sql(holder, "begin");
    sql(holder, "lock table durable_internal.worker in exclusive mode");
    pid_t brief = spawn_worker(url, NULL);
    wait_until(conn, 20,
               "select exists (select from pg_stat_activity where application_name = "
               "'durable-worker' and wait_event_type = 'Lock' and datname = current_database())");
    assert_int_equal(kill(brief, SIGTERM), 0);
    (void)usleep(500000);
    assert_int_equal(kill(brief, 0), 0);
    sql(holder, "commit");
    assert_int_equal(wait_process(brief, 10), 0);
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.worker where pid = %d and alive",
                (int)brief),
        0);
    PQfinish(holder);
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
    declare_dead(busy);
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
    declare_dead(zombie);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_workers_run_is_taken_up_by_another),
        cmocka_unit_test(a_worker_that_freezes_in_a_step_with_a_transaction_keeps_nobody_waiting),
        cmocka_unit_test(a_run_that_kills_its_workers_fails_and_its_neighbours_complete),
        cmocka_unit_test(a_drained_worker_gives_its_runs_back_and_spends_no_attempt),
        cmocka_unit_test(a_second_sigterm_and_one_without_a_database_end_a_worker),
        cmocka_unit_test(a_handler_whose_commit_is_not_waited_for_hears_of_it),
        cmocka_unit_test(a_claim_without_an_answer_keeps_no_worker_past_its_grace_time),
        cmocka_unit_test(a_worker_that_drains_begins_no_other_life),
        cmocka_unit_test(a_worker_told_to_end_as_it_registers_leaves),
        cmocka_unit_test(a_worker_declared_dead_while_it_reconnects_registers_again),
        cmocka_unit_test(a_worker_that_is_busy_hears_at_its_beat_that_it_is_dead),
        cmocka_unit_test(a_worker_that_has_lost_an_answer_and_its_life_registers_again),
        cmocka_unit_test(a_run_that_got_no_thread_gets_one_later),
        cmocka_unit_test(a_turn_that_meets_a_deadlock_is_said_again),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
