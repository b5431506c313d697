/* Guarantee 4. A result is committed only under a live lease: a worker that lost it changes
 * nothing.
 *
 * Seen to fail: with commit() comparing runs but not fences, a stale fence's step was stored. More
 * in tests/mutations. */
#include "shim.h"
#include "support.h"

#include <signal.h>
#include <string.h>

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    return 0;
}

#define NO_LOGS "'{}','{}','{}','{}','{}'"

static void a_stale_fence_commits_nothing_and_says_lost(void **state) {
    (void)state;
    char worker[64];
    (void)snprintf(worker, sizeof worker, "%s", worker_new(conn, "by-hand"));
    const char *id = sql_text(conn, "select durable.start('by-hand')");
    sql(conn, "create temp table c as select * from durable_internal.claim('%s', 1, 1000000)",
        worker);
    sql(conn,
        "select durable_internal.reconcile('%s', (select number from durable_internal.worker where "
        "id = '%s'), '{}', '{}', '{}')",
        worker, worker); /* given back, and claimed again: another fence */
    sql(conn, "create temp table d as select * from durable_internal.claim('%s', 1, 1000000)",
        worker);
    assert_int_equal(sql_int(conn, "select (c.run_id = d.run_id and c.fence < d.fence) from c, d"),
                     1);
    assert_int_equal(sql_int(conn,
                             "select (not v.busy)::int from c, durable_internal.commit('%s', "
                             "'{}','{}','{}','{}','{}','{}',"
                             "'{}','{}','{}', array[c.run_id], array[c.fence], "
                             "array['1']::jsonb[], '{}','{}','{}','{}'," NO_LOGS ") as v",
                             worker),
                     1);
    assert_int_equal(sql_int(conn,
                             "select (not v.busy)::int from c, durable_internal.commit('%s', "
                             "array[c.run_id], array[c.fence],"
                             "array[1], array[1], array['a'], array['step'], array['1']::jsonb[], "
                             "array[null]::jsonb[], array[1]::bigint[],"
                             "'{}','{}','{}','{}','{}','{}','{}'," NO_LOGS ") as v",
                             worker),
                     1);
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "running");
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps where run_id = '%s'", id),
                     0);
    assert_int_equal(sql_int(conn,
                             "select count(*) from d, durable_internal.commit('%s', "
                             "'{}','{}','{}','{}','{}','{}','{}','{}',"
                             "'{}', array[d.run_id], array[d.fence], array['2']::jsonb[], "
                             "'{}','{}','{}','{}'," NO_LOGS ") as v",
                             worker),
                     0);
    assert_int_equal(sql_int(conn, "select result::int from durable.runs where id = '%s'", id), 2);
}

/* A crash forgets a claim (its commit does not wait for the disk), and the sequence that numbered
 * it: another worker is given the same run under the same number. Here by hand. */
static void a_forgotten_lease_commits_nothing_even_if_its_number_is_given_again(void **state) {
    (void)state;
    char first[64], second[64];
    (void)snprintf(first, sizeof first, "%s", worker_new(conn, "by-hand"));
    (void)snprintf(second, sizeof second, "%s", worker_new(conn, "by-hand"));
    const char *id = sql_text(conn, "select durable.start('by-hand')");
    const char *claim = "create temp table %s as select c.* from durable_internal.worker w, "
                        "durable_internal.claim(w.id, 1, 1000000, w.number) as c "
                        "where w.id = '%s'";
    sql(conn, "create temp table before as table durable_internal.ready");
    sql(conn, claim, "forgotten", first);
    sql(conn, "delete from durable_internal.lease");
    sql(conn, "insert into durable_internal.ready table before");
    sql(conn, "select setval('durable_internal.fence_seq', fence, false) from forgotten");
    sql(conn, claim, "given", second);
    assert_int_equal(sql_int(conn, "select (f.run_id, f.fence) = (g.run_id, g.fence) from "
                                   "forgotten f, given g"),
                     1);
    assert_int_equal(sql_int(conn,
                             "select (not v.busy)::int from forgotten f, "
                             "durable_internal.commit('%s', '{}','{}','{}','{}','{}','{}','{}',"
                             "'{}','{}', array[f.run_id], array[f.fence], "
                             "array['1']::jsonb[], '{}','{}','{}','{}'," NO_LOGS ") as v",
                             first),
                     1);
    sql_error(conn, "DJ005",
              "select durable_internal.commit_step_tx('%s', run_id, fence, 1, 1, 'a', '1', 1) "
              "from forgotten",
              first);
    assert_int_equal(sql_int(conn,
                             "select count(*) from forgotten f, durable_internal.worker w, "
                             "durable_internal.reconcile(w.id, w.number, array[f.run_id], "
                             "array[f.fence], '{}') as lost where w.id = '%s' and "
                             "(lost.run_id, lost.fence) = (f.run_id, f.fence)",
                             first),
                     1); /* it is told so */
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "running");
    assert_int_equal(sql_int(conn,
                             "select count(*) from given g, durable_internal.commit('%s', "
                             "'{}','{}','{}','{}','{}','{}','{}','{}',"
                             "'{}', array[g.run_id], array[g.fence], array['2']::jsonb[], "
                             "'{}','{}','{}','{}'," NO_LOGS ") as v",
                             second),
                     0);
    assert_int_equal(sql_int(conn, "select result::int from durable.runs where id = '%s'", id), 2);
}

/* The claim's answer was lost; while its lease is looked for, a user's open cancel holds it, and is
 * rolled back then. Else it would be a living worker's for ever, and in nobody's hands. */
static void an_unheard_of_lease_that_is_held_is_looked_for_again(void **state) {
    (void)state;
    char worker[64];
    (void)snprintf(worker, sizeof worker, "%s", worker_new(conn, "by-hand"));
    const char *id = sql_text(conn, "select durable.start('by-hand')");
    const char *reconcile =
        "select count(*) filter (where r.run_id is null) from durable_internal.worker w, "
        "durable_internal.reconcile(w.id, w.number, '{}', '{}', '{}') as r where w.id = '%s'";
    sql(conn, "select durable_internal.claim('%s', 1, 1000000)", worker);
    PGconn *user = connect_to(url);
    sql(user, "begin");
    sql(user, "select durable.cancel('%s')", id);
    assert_int_equal(sql_int(conn, reconcile, worker), 1); /* said: ask again */
    sql(user, "rollback");
    PQfinish(user);
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "running");
    assert_int_equal(sql_int(conn, reconcile, worker), 0);
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "queued");
    sql(conn, "select durable.cancel('%s')", id);
}

/* The same of a worker, which asks again at its beats, and has its other runs meanwhile. */
static void a_worker_looks_again_for_a_lease_that_was_held(void **state) {
    (void)state;
    const char *id = sql_text(conn, "select durable.start('noop')");
    pid_t worker = spawn_worker(url, "claim.sent:1:drop,reconcile.before:1:sleep=1000");
    wait_until(conn, 20, "select exists (select from durable_internal.lease where run_id = '%s')",
               id);
    PGconn *user = connect_to(url);
    sql(user, "begin");
    sql(user, "select durable.cancel('%s')", id);
    const char *other = sql_text(conn, "select durable.start('noop')");
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", other);
    sql(user, "rollback");
    PQfinish(user);
    wait_until(conn, 20,
               "select status = 'completed' and attempt = 1 from durable.runs where id = '%s'", id);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* The zombie: SIGSTOP, until its lease has gone to another worker, which ends the run; then
 * SIGCONT. */
static void a_stopped_worker_that_wakes_too_late_changes_nothing(void **state) {
    (void)state;
    (void)spawn_scheduler(url);
    for (int round = 0; round < 3; round++) {
        static const char *const points[] = { "step.after_effect:2:stop", "commit.sent:2:stop",
                                              "commit.answered:2:stop" };
        pid_t zombie = spawn_worker(url, points[round]);
        wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)",
                   (int)zombie);
        char id[64];
        (void)snprintf(id, sizeof id, "%s",
                       sql_text(conn, "select durable.start('steps', '{\"us\": 300}')"));
        wait_until(conn, 20, "select exists (select from effect where run_id = '%s')", id);
        wait_until(conn, 30, "select status = 'gone' from durable.workers where pid = %d",
                   (int)zombie); /* reaped */
        pid_t heir = spawn_worker(url, NULL);
        wait_until(conn, 30, "select status = 'completed' from durable.runs where id = '%s'", id);
        const char *before = sql_text(conn,
                                      "select md5(array_agg(s order by s.position)::text) from "
                                      "durable.steps s where run_id = '%s'",
                                      id);
        (void)kill(zombie, SIGCONT);
        wait_until(conn, 20, "select count(*) = 2 from durable.workers where pid = %d",
                   (int)zombie); /* a new life */
        assert_string_equal(sql_text(conn,
                                     "select md5(array_agg(s order by s.position)::text) from "
                                     "durable.steps s where run_id = '%s'",
                                     id),
                            before);
        assert_int_equal(
            sql_int(conn,
                    "select count(*) from effect e join durable.steps s on s.run_id = e.run_id and "
                    "s.name = e.step where e.at > s.committed_at"),
            0);
        assert_int_equal(end_process(zombie, SIGTERM), 0);
        assert_int_equal(end_process(heir, SIGTERM), 0);
    }
}

/* No answer comes to it any more, and no connection can be made, while its handler goes on by
 * itself; another worker has the run meanwhile. */
static void a_worker_that_is_cut_off_begins_no_step_after_its_lease(void **state) {
    pid_t sessions[WORKER_SESSIONS];
    (void)state;
    (void)spawn_scheduler(url);
    struct shim *shim = shim_on();
    pid_t loser = spawn_worker(url, NULL);
    shim_off();
    char id[64];
    (void)snprintf(id, sizeof id, "%s",
                   sql_text(conn, "select durable.start('ponders', '{\"ms\": 3500}')"));
    wait_until(conn, 20, "select exists (select from durable.steps where run_id = '%s')", id);
    shim->cut = 1;
    freeze_sessions(conn, loser, sessions);
    wait_until(conn, 20, "select status = 'gone' from durable.workers where pid = %d", (int)loser);
    pid_t heir = spawn_worker(url, NULL);
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    thaw_sessions(sessions);
    shim->cut = 0;
    wait_until(conn, 20, "select count(*) = 2 from durable.workers where pid = %d", (int)loser);
    assert_int_equal(
        sql_int(conn, "select count(*) from effect where run_id = '%s' and step = 's2'", id), 1);
    assert_int_equal(end_process(loser, SIGTERM), 0);
    assert_int_equal(end_process(heir, SIGTERM), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stale_fence_commits_nothing_and_says_lost),
        cmocka_unit_test(a_forgotten_lease_commits_nothing_even_if_its_number_is_given_again),
        cmocka_unit_test(an_unheard_of_lease_that_is_held_is_looked_for_again),
        cmocka_unit_test(a_worker_looks_again_for_a_lease_that_was_held),
        cmocka_unit_test(a_stopped_worker_that_wakes_too_late_changes_nothing),
        cmocka_unit_test(a_worker_that_is_cut_off_begins_no_step_after_its_lease),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
