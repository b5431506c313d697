/* SIGKILLs, each while the victim has runs in hand: it is stopped, looked at, and only then killed.
 * Every run of 5 steps of 1 to 20 ms completes, and no completed step is called again. 2,000 runs
 * and 20 kills at least; DURABLE_CHAOS=full makes it 20,000 and 200. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORKERS 4
#define PART 100 /* runs that are started at a time: there is work in hand until the last kill */

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
    record_calls(conn);
    (void)spawn_scheduler(url);
    return 0;
}

static pid_t spawn_slow_worker(void) {
    return spawn(url, NULL, "durable-worker", "--lease-ttl", "2s", "--slots", "8", NULL);
}

/* Kills the worker if it has a run in hand at this instant; else it goes on. */
static bool kill_in_hand(int victim) {
    assert_int_equal(kill(workers[victim], SIGSTOP), 0);
    sleep_ms(2); /* a turn that was sent is over then, or holds what it takes */
    bool in_hand =
        sql_int(conn,
                "select count(*) from durable_internal.lease l join durable_internal.worker w "
                "on w.id = l.worker_id where w.alive and w.pid = %d",
                (int)workers[victim]) > 0;
    if (!in_hand) {
        assert_int_equal(kill(workers[victim], SIGCONT), 0);
        return false;
    }
    (void)end_process(workers[victim], SIGKILL);
    workers[victim] = spawn_slow_worker();
    return true;
}

static void no_kill_loses_a_run_or_repeats_a_completed_step(void **state) {
    time_t began = time(NULL);
    int killed = 0, started = 0;
    (void)state;
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = spawn_slow_worker();
    }
    for (int victim = 0; killed < kills || started < runs; victim = (victim + 1) % WORKERS) {
        bool idle =
            sql_int(conn, "select count(*) from (select from durable_internal.ready limit 20) r") <
            20;
        if (started < runs || idle) { /* more than was asked, if the kills take longer */
            sql(conn,
                "select durable.start_many('steps', array_fill('{\"us\": 1000, \"jitter_us\": "
                "19000}'::jsonb, array[%d]))",
                PART);
            started += PART;
        }
        for (int tries = 0; killed < kills && tries < 20; tries++) {
            if (kill_in_hand(victim)) {
                killed++;
                break;
            }
            sleep_ms(5 + (int)(random() % 20));
        }
    }
    assert_int_equal(killed, kills);
    wait_until(conn, 300,
               "select count(*) filter (where status = 'completed') = %d from durable_internal.run",
               started);
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps"), 5 * started);
    assert_int_equal(sql_int(conn, "select count(*) from effect e join durable.steps s on s.run_id "
                                   "= e.run_id and s.name = e.step "
                                   "where e.at > s.committed_at"),
                     0);
    (void)printf("%d runs, %d kills, %lld s: all completed; %lld calls were repeated, none after "
                 "its commit; %lld attempts crashed\n",
                 started, kills, (long long)(time(NULL) - began),
                 sql_int(conn, "select count(*) - count(distinct (run_id, step)) from effect"),
                 sql_int(conn, "select count(*) from durable.attempts where outcome = 'crashed'"));
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(
        no_kill_loses_a_run_or_repeats_a_completed_step) };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
