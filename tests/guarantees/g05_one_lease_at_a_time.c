/* Guarantee 5. At most one live lease on a run at any time; a worker that was declared dead gets
 * none.
 *
 * Seen to fail: with bury() not taking the worker's advisory lock, the reaper did not wait for the
 * claim in flight; with the reaper not looking at the beat again after it had waited, it buried a
 * living worker; without ending sessions, the frozen one's worker stayed alive; with claim() not
 * passing over what others hold, two claims waited for one another until the test's time was up. */
#include "support.h"

#include <durable/client.h>
#include <signal.h>
#include <string.h>

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    return 0;
}

static void two_claims_at_once_share_nothing(void **state) {
    PGconn *a = connect_to(url), *b = connect_to(url);
    char first[64], second[64];
    (void)state;
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[100]))");
    (void)snprintf(first, sizeof first, "%s", worker_new(conn, "by-hand"));
    (void)snprintf(second, sizeof second, "%s", worker_new(conn, "by-hand"));
    sql(a, "begin");
    sql(b, "begin");
    sql(a, "create temp table c as select run_id from durable_internal.claim('%s', 60, 1000000)",
        first);
    sql(b, "create temp table c as select run_id from durable_internal.claim('%s', 60, 1000000)",
        second);
    sql(a, "commit");
    sql(b, "commit");
    assert_int_equal(sql_int(a, "select count(*) from c") + sql_int(b, "select count(*) from c"),
                     100);
    assert_int_equal(sql_int(conn, "select count(distinct run_id) from durable_internal.lease"),
                     100);
    assert_int_equal(sql_int(conn, "select count(distinct fence) from durable_internal.lease"),
                     100);
    PQfinish(a);
    PQfinish(b);
}

static void a_claim_in_flight_and_a_reaper_leave_no_lease_on_the_dead(void **state) {
    PGconn *worker = connect_to(url), *reaper = connect_to(url);
    char id[64];
    (void)state;
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[10]))");
    (void)snprintf(id, sizeof id, "%s", worker_new(conn, "by-hand"));
    sql(conn,
        "update durable_internal.worker set beat_at = beat_at - interval '1 hour' where id = '%s'",
        id);
    sql(worker, "begin");
    sql(worker,
        "select durable_internal.lock_turn('%s', (select number from durable_internal.worker where "
        "id = '%s'))",
        id, id);
    assert_int_equal(PQsendQuery(reaper, "select durable_internal.reap()"), 1);
    assert_true(is_blocked(conn, reaper));
    sql(worker, "select * from durable_internal.claim('%s', 10, 1000000)", id);
    sql(worker, "commit");
    assert_false(is_blocked(conn, reaper));
    PQclear(PQgetResult(reaper));
    assert_null(PQgetResult(reaper));
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.lease l join "
                                   "durable_internal.worker w on w.id = l.worker_id "
                                   "where not w.alive"),
                     0);
    sql_error(worker, "DJ005",
              "select durable_internal.lock_turn('%s', (select number from durable_internal.worker "
              "where id = '%s'))",
              id, id);
    PQfinish(worker);
    PQfinish(reaper);
}

static void a_beat_that_comes_while_the_reaper_waits_saves_the_worker(void **state) {
    PGconn *worker = connect_to(url), *reaper = connect_to(url);
    char id[64];
    (void)state;
    sql(conn, "select durable_internal.worker_leave(id) from durable_internal.worker where alive");
    (void)snprintf(id, sizeof id, "%s", worker_new(conn, "by-hand"));
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[3]))");
    sql(conn, "select * from durable_internal.claim('%s', 3, 1000000)", id);
    sql(conn,
        "update durable_internal.worker set beat_at = beat_at - interval '1 hour' where id = '%s'",
        id);
    sql(worker, "begin");
    sql(worker,
        "select durable_internal.lock_turn('%s', (select number from durable_internal.worker where "
        "id = '%s'))",
        id, id);
    assert_int_equal(PQsendQuery(reaper, "select durable_internal.reap()"), 1);
    assert_true(is_blocked(conn, reaper));
    sql(conn, "select durable_internal.beat('%s', '{}', '{}', false)", id);
    sql(worker, "commit");
    assert_false(is_blocked(conn, reaper));
    PQclear(PQgetResult(reaper));
    assert_null(PQgetResult(reaper));
    assert_int_equal(
        sql_int(conn, "select alive::int from durable_internal.worker where id = '%s'", id), 1);
    assert_true(sql_int(conn, "select count(*) from durable_internal.lease where worker_id = '%s'",
                        id) > 0);
    PQfinish(worker);
    PQfinish(reaper);
}

/* Reckoned with in one statement for all workers, a time that PostgreSQL does not have would end
 * the reaper. */
static void a_worker_says_no_time_that_the_reaper_cannot_reckon_with(void **state) {
    (void)state;
    sql_error(conn, "DJ001",
              "select durable_internal.worker_register(durable_internal.uuid_v7(), 'default', 'n', "
              "1, '0', 1, 9000000000000000, '{}', '{}', null)");
    sql(conn, "select durable_internal.reap()");
    sql(conn, "select * from durable.workers");
}

/* A worker that froze in the middle of a batch: no timeout of PostgreSQL ends it, so the scheduler
 * does. */
static void a_frozen_session_is_ended_and_its_leases_are_taken(void **state) {
    PGconn *frozen = connect_to(url);
    char id[64];
    (void)state;
    sql(conn, "select durable_internal.worker_leave(id) from durable_internal.worker where alive");
    (void)snprintf(id, sizeof id, "%s", worker_new(conn, "by-hand"));
    sql(frozen, "select durable_internal.worker_session('%s')", id);
    sql(conn, "select durable.start_many('by-hand', array_fill('{}'::jsonb, array[5]))");
    sql(conn, "select * from durable_internal.claim('%s', 5, 1000000)", id);
    assert_int_equal(PQenterPipelineMode(frozen), 1);
    char lock[256];
    (void)snprintf(lock, sizeof lock,
                   "select durable_internal.lock_turn('%s', (select number from "
                   "durable_internal.worker where id = '%s'))",
                   id, id);
    assert_int_equal(PQsendQueryParams(frozen, lock, 0, NULL, NULL, NULL, NULL, 0), 1);
    assert_int_equal(PQsendFlushRequest(frozen), 1); /* and no sync */
    assert_int_equal(PQflush(frozen), 0);
    wait_until(conn, 10,
               "select exists (select from pg_locks where locktype = 'advisory' and pid = %d)",
               PQbackendPID(frozen));
    sql(conn,
        "update durable_internal.worker set beat_at = beat_at - interval '1 hour' where id = '%s'",
        id);
    (void)spawn_scheduler(url);
    wait_until(conn, 20, "select not alive from durable_internal.worker where id = '%s'", id);
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.lease where worker_id = '%s'", id), 0);
    PQfinish(frozen);
}

/* A statement that has waited for another's lock looks at what is there then; at any other level it
 * would act on what was. */
static void our_sessions_are_read_committed_whatever_the_database_says(void **state) {
    (void)state;
    sql(conn, "create function public.look() returns trigger language plpgsql as $$ begin if "
              "current_setting('application_name') like 'durable-%%' and "
              "current_setting('transaction_isolation') <> 'read committed' then raise 'at %%', "
              "current_setting('transaction_isolation'); end if; return null; end $$");
    static const char *const tables[] = { "lease", "timer", "step" };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        sql(conn,
            "create trigger look after insert or delete on durable_internal.%s for each row "
            "execute "
            "function public.look()",
            tables[i]);
    }
    sql(conn, "create table transfer (run_id uuid)");
    sql(conn, "do $$ begin execute format('alter database %%I set default_transaction_isolation = "
              "serializable', current_database()); end $$");
    pid_t worker = spawn_worker(url, NULL), scheduler = spawn_scheduler(url);
    const char *id = sql_text(
        conn,
        "select durable.start('transfers', scheduled_at => clock_timestamp() + interval '1 s')");
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    assert_int_equal(end_process(worker, SIGTERM), 0);
    assert_int_equal(end_process(scheduler, SIGTERM), 0);
    sql(conn,
        "do $$ begin execute format('alter database %%I reset default_transaction_isolation', "
        "current_database()); end $$");
    sql(conn, "drop function public.look() cascade");
}

/* … and those of callers: a session that was lost is made anew with what the role has by default.
 */
static void callers_sessions_are_read_committed_too_and_again_after_a_break(void **state) {
    dj_client *client = NULL;
    char id[DJ_ID_BYTES];
    struct said said;
    (void)state;
    sql(conn, "create function public.look() returns trigger language plpgsql as $$ begin if "
              "current_setting('transaction_isolation') <> 'read committed' then raise '%% at %%', "
              "current_setting('application_name'), current_setting('transaction_isolation'); end "
              "if; return null; end $$");
    sql(conn, "create trigger look after insert on durable_internal.run for each row execute "
              "function public.look()");
    sql(conn, "do $$ begin execute format('alter role %%I in database %%I set "
              "default_transaction_isolation = serializable', current_user, current_database()); "
              "end $$");
    assert_int_equal(dj_client_open(url, &client), DJ_OK);
    for (int life = 0; life < 2; life++) {
        if (dj_start(client, "by-hand", NULL, NULL, id) != DJ_OK) {
            fail_msg("in life %d: %s", life, dj_error_message());
        }
        sql(conn, "select pg_terminate_backend(pid, 10000) from pg_stat_activity where "
                  "application_name = 'durable-client' and datname = current_database()");
        assert_int_equal(dj_start(client, "by-hand", NULL, NULL, id), DJ_UNAVAILABLE);
    }
    dj_client_close(client);
    durable(&said, url, "start by-hand");
    if (said.status != 0) {
        fail_msg("the command line: %s", said.err);
    }
    sql(conn, "do $$ begin execute format('alter role %%I in database %%I reset all', "
              "current_user, current_database()); end $$");
    sql(conn, "drop function public.look() cascade");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_claims_at_once_share_nothing),
        cmocka_unit_test(a_claim_in_flight_and_a_reaper_leave_no_lease_on_the_dead),
        cmocka_unit_test(a_beat_that_comes_while_the_reaper_waits_saves_the_worker),
        cmocka_unit_test(our_sessions_are_read_committed_whatever_the_database_says),
        cmocka_unit_test(a_worker_says_no_time_that_the_reaper_cannot_reckon_with),
        cmocka_unit_test(callers_sessions_are_read_committed_too_and_again_after_a_break),
        cmocka_unit_test(a_frozen_session_is_ended_and_its_leases_are_taken),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
