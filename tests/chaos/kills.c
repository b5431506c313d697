/* SIGKILLs while the victim has runs in hand: every run of 5 steps of 1 to 20 ms completes, and no
 * completed step is called again. 2,000 runs and 20 kills; DURABLE_CHAOS=full makes it 20,000 and
 * 200. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORKERS 4

static const char *url;
static PGconn *conn;
static pid_t workers[WORKERS];
static int runs = 2000, kills = 20;

static int setup(void **state) {
    (void)state;
    const char *size = getenv("DURABLE_CHAOS");
    if (size != NULL && strcmp(size, "full") == 0) {
        runs = 20000;
        kills = 200;
    }
    url = database_new();
    conn = connect_to(url);
    sql(conn, "create table effect (run_id uuid, step text, attempt int, at timestamptz default "
              "clock_timestamp())");
    (void)spawn_scheduler(url);
    return 0;
}

static void no_kill_loses_a_run_or_repeats_a_completed_step(void **state) {
    time_t began = time(NULL);
    int killed = 0;
    (void)state;
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = spawn_worker(url, NULL);
    }
    /* A part at a time: there is work in hand until the last kill. */
    for (int i = 0; i < 20; i++) {
        sql(conn,
            "select durable.start_many('steps', array_fill('{\"us\": 1000, \"jitter_us\": "
            "19000}'::jsonb, array[%d]))",
            runs / 20);
        for (int part = 0; part < kills / 20; part++) {
            int victim = killed % WORKERS;
            wait_until(conn, 60,
                       "select exists (select from durable_internal.lease l join "
                       "durable_internal.worker w on w.id = l.worker_id "
                       "where w.alive and w.pid = %d)",
                       (int)workers[victim]);
            (void)end_process(workers[victim], SIGKILL);
            killed++;
            workers[victim] = spawn_worker(url, NULL);
            sleep_ms((int)(random() % 100));
        }
    }
    assert_int_equal(killed, kills);
    wait_until(conn, 300,
               "select count(*) filter (where status = 'completed') = %d from durable_internal.run",
               runs);
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps"), 5 * runs);
    assert_int_equal(sql_int(conn, "select count(*) from effect e join durable.steps s on s.run_id "
                                   "= e.run_id and s.name = e.step "
                                   "where e.at > s.committed_at"),
                     0);
    (void)printf("%d runs, %d kills, %lld s: all completed; %lld calls were repeated, none after "
                 "its commit; %lld attempts crashed\n",
                 runs, kills, (long long)(time(NULL) - began),
                 sql_int(conn, "select count(*) - count(distinct (run_id, step)) from effect"),
                 sql_int(conn, "select count(*) from durable.attempts where outcome = 'crashed'"));
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(
        no_kill_loses_a_run_or_repeats_a_completed_step) };
    return cmocka_run_group_tests(tests, setup, NULL);
}
