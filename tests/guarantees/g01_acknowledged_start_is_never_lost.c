/* Guarantee 1. A start that was acknowledged is never lost; one that rolled back never happened.
 *
 * Seen to fail: with start_run() setting synchronous_commit to off, a crash lost starts that had
 * been acknowledged; with db_answer() passing over the warning of an unconfirmed commit, the start
 * without its standby got DJ_OK. */
#include "support.h"

#include <durable/client.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static struct cluster cluster;

static int setup(void **state) {
    (void)state;
    cluster_start(&cluster);
    return 0;
}

static void starts_acknowledged_before_a_crash_are_there_after_it(void **state) {
    PGconn *conn = connect_to(cluster.url);
    char ids[200][40];
    (void)state;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 200; i++) {
            (void)snprintf(ids[i], sizeof ids[i], "%s",
                           sql_text(conn, "select durable.start('noop')"));
        }
        cluster_restart(&cluster, "immediate");
        PQfinish(conn);
        conn = connect_to(cluster.url);
        for (int i = 0; i < 200; i++) {
            assert_int_equal(
                sql_int(conn,
                        "select count(*) from durable.runs where id = '%s' and status = 'queued'",
                        ids[i]),
                1);
        }
    }
    PQfinish(conn);
}

static void a_start_that_rolls_back_never_happened(void **state) {
    PGconn *conn = connect_to(cluster.url);
    (void)state;
    dj_client *client;
    char id[DJ_ID_BYTES];
    assert_int_equal(dj_client_wrap(conn, &client), DJ_OK);
    sql(conn, "begin");
    assert_int_equal(dj_start(client, "rolled-back", NULL, NULL, id), DJ_OK);
    sql(conn, "rollback");
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where job = 'rolled-back'"),
                     0);
    sql(conn, "begin");
    assert_int_equal(dj_start(client, "committed", NULL, NULL, id), DJ_OK);
    sql(conn, "commit");
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs where id = '%s'", id), 1);
    dj_client_close(client);
    PQfinish(conn);
}

/* A cancel makes PostgreSQL answer success for a commit that its synchronous standby has not. */
static void a_commit_without_its_standby_is_not_acknowledged(void **state) {
    PGconn *conn = connect_to(cluster.url);
    (void)state;
    sql(conn, "alter system set synchronous_standby_names = 'nobody'");
    sql(conn, "select pg_reload_conf()");
    wait_until(conn, 10, "select current_setting('synchronous_standby_names') = 'nobody'");
    pid_t impatient = fork();
    if (impatient == 0) {
        PGconn *other = PQconnectdb(cluster.url);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            PQclear(PQexec(other, "select pg_cancel_backend(pid) from pg_stat_activity where "
                                  "wait_event = 'SyncRep'"));
            sleep_ms(20);
        }
    }
    dj_client *client;
    char id[DJ_ID_BYTES];
    assert_int_equal(dj_client_open(cluster.url, &client), DJ_OK);
    assert_int_equal(dj_start(client, "unconfirmed", NULL, NULL, id), DJ_UNAVAILABLE);
    assert_non_null(strstr(dj_error_message(), "standby"));
    dj_client_close(client);
    (void)kill(impatient, SIGKILL);
    (void)waitpid(impatient, NULL, 0);
    sql(conn, "set synchronous_commit = local");
    sql(conn, "alter system reset synchronous_standby_names");
    sql(conn, "select pg_reload_conf()");
    PQfinish(conn);
}

/* Impatient twice: of the step's own transaction, and of the one that asks after it. */
static void a_step_with_a_transaction_waits_for_its_standby(void **state) {
    PGconn *conn = connect_to(cluster.url);
    (void)state;
    sql(conn, "create table transfer (run_id uuid)");
    pid_t worker = spawn_worker(cluster.url, NULL);
    sql(conn, "select durable.start('transfers')"); /* whose connection is there for the next */
    wait_until(conn, 60,
               "select count(*) = 0 from durable.runs where job in ('noop', 'transfers') and "
               "finished_at is null");
    sql(conn, "alter system set synchronous_standby_names = 'nobody'");
    sql(conn, "select pg_reload_conf()");
    wait_until(conn, 10, "select current_setting('synchronous_standby_names') = 'nobody'");
    sql(conn, "set synchronous_commit = local");
    const char *id = sql_text(conn, "select durable.start('transfers')");
    const char *waits = "from pg_stat_activity where wait_event = 'SyncRep' and application_name "
                        "like 'durable-worker step_tx%' and query_start > '";
    char since[64] = "-infinity";
    for (int i = 0; i < 3; i++) {
        wait_until(conn, 10, "select exists (select %s%s')", waits, since);
        (void)snprintf(since, sizeof since, "%s",
                       sql_text(conn, "select max(query_start) %s%s'", waits, since));
        if (i < 2) {
            sql(conn, "select pg_cancel_backend(pid) %s-infinity'", waits);
        }
    }
    sql(conn, "alter system reset synchronous_standby_names");
    sql(conn, "select pg_reload_conf()");
    wait_until(conn, 20,
               "select status = 'completed' and attempt = 1 from durable.runs where id = '%s'", id);
    assert_int_equal(sql_int(conn, "select count(*) from transfer"), 2);
    assert_int_equal(end_process(worker, SIGTERM), 0);
    PQfinish(conn);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_acknowledged_before_a_crash_are_there_after_it),
        cmocka_unit_test(a_start_that_rolls_back_never_happened),
        cmocka_unit_test(a_commit_without_its_standby_is_not_acknowledged),
        cmocka_unit_test(a_step_with_a_transaction_waits_for_its_standby),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
