/* Guarantee 13. Bad input of any kind gets a clear error naming what is wrong, stores nothing, and
 * stops nobody else's work.
 *
 * Seen to fail: without the bound on numbers in check_json(), 1e131071 was stored. More in
 * tests/mutations. */
#include "support.h"

#include <durable/client.h>
#include <durable/worker.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    (void)spawn_scheduler(url);
    return 0;
}

static const struct {
    const char *sqlstate, *names, *call;
} rows[] = {
    { "DJ001", "job", "durable.start(null)" },
    { "DJ001", "job", "durable.start('')" },
    { "DJ001", "job", "durable.start('a b')" },
    { "DJ001", "job", "durable.start(repeat('a', 201))" },
    { "DJ001", "queue", "durable.start('a', queue => 'x;y')" },
    { "DJ001", "payload", "durable.start('a', null)" },
    { "DJ001", "payload", "durable.start('a', '[1e131071]')" },
    { "DJ001", "payload", "durable.start('a', '{\"a\": {\"b\": [0e-16383]}}')" },
    { "DJ001", "payload", "durable.start('a', ('1' || repeat('1', 400))::jsonb)" },
    { "DJ001", "payload", "durable.start('a', (repeat('[', 65) || repeat(']', 65))::jsonb)" },
    { "DJ004", "payload", "durable.start('a', to_jsonb(repeat('x', 1048575)))" },
    { "22P05", "", "durable.start('a', '\"\\u0000\"')" },
    { "22P02", "", "durable.start('a', '\"\\ud800\"')" },
    { "22P02", "", "durable.start('a', '{x')" },
    { "DJ001", "idempotency_key", "durable.start('a', idempotency_key => '')" },
    { "DJ001", "idempotency_key", "durable.start('a', idempotency_key => repeat('k', 513))" },
    { "DJ001", "idempotency_ttl",
      "durable.start('a', idempotency_key => 'k', idempotency_ttl => '-1 s')" },
    { "DJ001", "max_attempts", "durable.start('a', max_attempts => 0)" },
    { "DJ001", "scheduled_at", "durable.start('a', scheduled_at => now() + interval '11 years')" },
    { "DJ001", "priority", "durable.start('a', priority => 32768)" },
    { "DJ001", "priority", "durable.start('a', priority => null)" },
    { "DJ001", "concurrency_key", "durable.start('a', concurrency_key => '')" },
    { "DJ001", "timeout", "durable.start('a', timeout => '0')" },
    { "DJ001", "timeout", "durable.start('a', timeout => '3650 days 1 second')" },
    { "DJ001", "tags", "durable.start('a', tags => '[]')" },
    { "DJ001", "tags", "durable.start('a', tags => '{\"a\": 1}')" },
    { "DJ001", "tags",
      "durable.start('a', tags => (select jsonb_object_agg(n::text, 'x') from generate_series(1, "
      "17) n))" },
    { "DJ001", "options", "durable.start('a', options => '{\"backof\": {}}')" },
    { "DJ001", "backoff.initial",
      "durable.start('a', options => '{\"backoff\": {\"initial\": \"soon\"}}')" },
    { "DJ001", "backoff.factor",
      "durable.start('a', options => '{\"backoff\": {\"factor\": 0}}')" },
    { "DJ001", "payloads[2]", "durable.start_many('a', array['{}', '[1e9999]']::jsonb[])" },
    { "DJ001", "payloads", "durable.start_many('a', null)" },
    { "DJ001", "idempotency_keys",
      "durable.start_many('a', array['{}']::jsonb[], idempotency_keys => array['a', 'b'])" },
    { "DJ001", "name", "durable.send_event('')" },
    { "DJ001", "payload", "durable.send_event('a', '[1e131071]')" },
    { "DJ001", "correlation_key", "durable.send_event('a', '{}', '')" },
    { "DJ001", "run_id", "durable.cancel(null)" },
    { "DJ003", "0190", "durable.cancel('01900000-0000-7000-8000-000000000000')" },
    { "DJ003", "0190", "durable.retry('01900000-0000-7000-8000-000000000000')" },
    { "DJ003", "0190", "durable.timeline('01900000-0000-7000-8000-000000000000')" },
    { "DJ003", "0190", "durable.why('01900000-0000-7000-8000-000000000000')" },
    { "DJ003", "0190", "durable.reschedule('01900000-0000-7000-8000-000000000000', now())" },
    { "22P02", "", "durable.cancel('not a uuid')" },
    { "DJ001", "name", "durable.pause_queue('')" },
    { "DJ001", "backoff", "durable.set_queue('q', backoff => '[]')" },
    { "DJ006", "not available yet", "durable.set_queue('q', concurrency => 3)" },
    { "DJ006", "not available yet", "durable.fork('01900000-0000-7000-8000-000000000000', 'a')" },
    { "DJ006", "not available yet", "durable.set_schedule('a', 'a', '* * * * *')" },
    { "DJ006", "not available yet", "durable.redrive('a')" },
};

static void each_bad_call_is_refused_by_name_and_stores_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *message = sql_error(conn, rows[i].sqlstate, "select %s", rows[i].call);
        if (strstr(message, rows[i].names) == NULL) {
            fail_msg("%s: '%s' does not name %s", rows[i].call, message, rows[i].names);
        }
    }
    assert_int_equal(sql_int(conn, "select (select count(*) from durable_internal.run) + (select "
                                   "count(*) from durable_internal.event) + "
                                   "(select count(*) from durable_internal.idempotency_key) + "
                                   "(select count(*) from durable_internal.ready)"),
                     0);
}

static void limits_are_met_to_the_byte(void **state) {
    (void)state;
    sql(conn, "select durable.start(repeat('a', 200), to_jsonb(repeat('x', 1048574)), "
              "idempotency_key => repeat('k', 512))");
    sql(conn, "select durable.start('a', (repeat('[', 64) || repeat(']', 64))::jsonb)");
    sql(conn, "select durable.start('a', (repeat('1', 400))::jsonb), durable.start('a', '[1e400, "
              "-1e400, 1e-400]')");
    sql(conn, "select durable.start('a', scheduled_at => 'yesterday', priority => -32768, timeout "
              "=> '10 years')");
    sql(conn, "select durable.start('a', timeout => '3650 days')");
}

static void the_c_client_refuses_by_name(void **state) {
    dj_client *client;
    char id[DJ_ID_BYTES];
    (void)state;
    assert_int_equal(dj_client_open("postgresql://nobody@127.0.0.1:1/none", &client),
                     DJ_UNAVAILABLE);
    (void)unsetenv("DURABLE_DATABASE_URL");
    assert_int_equal(dj_client_open(NULL, &client), DJ_INVALID_ARGUMENT);
    assert_non_null(strstr(dj_error_message(), "DURABLE_DATABASE_URL"));
    assert_int_equal(dj_client_open(url, &client), DJ_OK);
    assert_int_equal(dj_start(client, "a b", NULL, NULL, id), DJ_INVALID_ARGUMENT);
    assert_int_equal(dj_start(client, "a", NULL, &(dj_start_options){ .timeout = "never" }, id),
                     DJ_INVALID_ARGUMENT);
    assert_non_null(strstr(dj_error_message(), "timeout"));
    assert_int_equal(dj_start(client, "a", NULL, &(dj_start_options){ .scheduled_at = "soon" }, id),
                     DJ_INVALID_ARGUMENT);
    assert_int_equal(dj_cancel(client, "x", NULL, NULL), DJ_INVALID_ARGUMENT);
    assert_int_equal(dj_retry(client, "01900000-0000-7000-8000-000000000000", 0), DJ_NOT_FOUND);
    json_object *latin = json_object_new_string("\xe9");
    assert_int_equal(dj_start(client, "a", latin, NULL, id), DJ_INVALID_ARGUMENT);
    assert_non_null(strstr(dj_error_message(), "payload"));
    json_object_put(latin);
    dj_client_close(client);
}

static void programs_refuse_what_they_cannot_use(void **state) {
    (void)state;
    assert_int_equal(
        wait_process(spawn(url, NULL, "durable-worker", "--module", "/nowhere/x.so", NULL), 10), 2);
    assert_int_equal(wait_process(spawn(url, NULL, "durable-worker", "--slots", "many", NULL), 10),
                     2);
    assert_int_equal(
        wait_process(spawn(url, NULL, "durable-worker", "--lease-ttl", "-1s", NULL), 10), 2);
    assert_int_equal(wait_process(spawn("", NULL, "durable-worker", NULL), 10), 2);
    assert_int_equal(wait_process(spawn(url, NULL, "durable-scheduler", "--what", NULL), 10), 2);
}

/* They are checked in the time in which they are read, not in the square of it. */
static void a_payload_of_340_thousand_numbers_is_taken(void **state) {
    (void)state;
    sql(conn, "set statement_timeout = '30s'");
    sql(conn, "select durable.start('many', (select ('[' || string_agg('0', ',') || ']')::jsonb "
              "from generate_series(1, 340000)))");
    sql_error(conn, "DJ001",
              "select durable.start('many', (select ('[' || string_agg('0', ',') || "
              "',1e131071]')::jsonb from generate_series(1, 340000)))");
    sql(conn, "reset statement_timeout");
}

/* What the database refuses is in a turn with what others have come to: 64 runs that end their
 * steps at about the same time, of which one cannot be stored, wherever it lies in the turn. */
static void a_value_that_only_the_database_refuses_fails_its_run_alone(void **state) {
    char poison[64];
    (void)state;
    sql(conn, "create table poison (run_id uuid)");
    sql(conn, "create function refuse() returns trigger language plpgsql as $$ begin if exists "
              "(select from public.poison p where p.run_id = new.run_id) then raise "
              "invalid_parameter_value using message = 'it cannot be stored'; end if; return new; "
              "end $$");
    sql(conn, "create trigger refuse before insert on durable_internal.step for each row execute "
              "function refuse()");
    pid_t worker = spawn(url, NULL, "durable-worker", "--threads", "64", NULL);
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)", (int)worker);
    for (int place = 0; place < 64; place += 9) {
        sql(conn, "drop table if exists batch");
        sql(conn, "begin");
        sql(conn,
            "create table batch as select id, n from durable.start_many('steps', array_fill("
            "'{\"steps\": 2, \"us\": 20000}'::jsonb, array[64])) with ordinality as b (id, n)");
        (void)snprintf(poison, sizeof poison, "%s",
                       sql_text(conn, "select id from batch where n = %d + 1", place));
        sql(conn, "insert into poison values ('%s')", poison);
        sql(conn, "commit");
        wait_until(conn, 20,
                   "select bool_and(r.finished_at is not null) from durable.runs r join batch b on "
                   "b.id = r.id");
        assert_int_equal(sql_int(conn, "select count(*) from durable.runs r join batch b on b.id = "
                                       "r.id where r.status = 'completed' and r.attempt = 1"),
                         63);
        assert_string_equal(
            sql_text(conn,
                     "select format('%%s %%s %%s: %%s', status, attempt, error ->> 'name', error "
                     "->> 'message') from durable.runs where id = '%s'",
                     poison),
            "failed 1 ResultRefused: it cannot be stored");
    }
    assert_int_equal(sql_int(conn, "select count(*) - count(distinct (run_id, step)) from effect"),
                     0);
    assert_int_equal(end_process(worker, SIGTERM), 0);
    sql(conn, "drop trigger refuse on durable_internal.step");
}

/* Not even its failure: somebody has to look at that, and nobody else is to wait until he does. */
static void a_run_whose_failure_is_refused_keeps_nobody_waiting(void **state) {
    (void)state;
    sql(conn, "create table if not exists poison (run_id uuid)");
    sql(conn,
        "create function refuse_end() returns trigger language plpgsql as $$ begin if exists "
        "(select from public.poison p where p.run_id = new.id) and new.status is not null then "
        "raise invalid_parameter_value using message = 'it cannot be stored'; end if; return new; "
        "end $$");
    sql(conn, "create trigger refuse before update on durable_internal.run for each row execute "
              "function refuse_end()");
    sql(conn, "begin");
    const char *id = sql_text(conn, "select durable.start('fails-permanently')");
    sql(conn, "insert into poison values ('%s')", id);
    sql(conn, "commit");
    pid_t worker = spawn(url, NULL, "durable-worker", "--threads", "4", "--connections", "1", NULL);
    wait_until(conn, 20, "select status = 'running' from durable.runs where id = '%s'", id);
    sql(conn, "drop table if exists batch");
    sql(conn,
        "create table batch as select s.id from durable.start_many('noop', array_fill('1'::jsonb, "
        "array[200])) as s (id)");
    wait_until(conn, 20,
               "select count(*) = 200 from durable.runs r join batch b on b.id = r.id where "
               "r.status = 'completed'");
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "running");
    sql(conn, "drop trigger refuse on durable_internal.run");
    wait_until(conn, 20, "select status = 'failed' from durable.runs where id = '%s'", id);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* A run that remembers `steps` steps s1, s2 …, by hand, each with this result; it comes at once. */
static const char *full_run(const char *job, const char *payload, int steps, const char *result) {
    sql(conn, "begin");
    const char *id = sql_text(conn, "select durable.start('%s', '%s')", job, payload);
    sql(conn,
        "insert into durable_internal.step (run_id, position, attempt, started_at, committed_at, "
        "name, kind, result) select '%s', n, 1, now(), now(), 's' || n, 'step', %s from "
        "generate_series(1, %d) as n",
        id, result, steps);
    sql(conn, "update durable_internal.ready set attempt = 1, remembered = %d where run_id = '%s'",
        steps, id);
    sql(conn, "commit");
    return id;
}

/* … and what it has come to. */
static const char *end_of(const char *id) {
    wait_until(conn, 60, "select finished_at is not null from durable.runs where id = '%s'", id);
    return sql_text(conn,
                    "select concat_ws(': ', status, error ->> 'name', error ->> 'message') from "
                    "durable.runs where id = '%s'",
                    id);
}

/* A step's policy is refused where it is given, and the step is not called. */
static void a_steps_backoff_is_refused_by_name(void **state) {
    static const struct {
        const char *payload, *end;
    } cases[] = {
        { "{\"initial\": \"soon\"}", "backoff.initial" },
        { "{\"initial\": \"11y\"}", "backoff.initial" },
        { "{\"max\": \"\"}", "backoff.max" },
        { "{\"factor\": 0.5}", "backoff.factor 0.5 is out of range; 1 to 1000 is allowed" },
        { "{\"jitter\": 2}", "backoff.jitter 2 is out of range; 0 to 1 is allowed" },
    };
    char id[64];
    (void)state;
    pid_t worker = spawn_worker(url, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        (void)snprintf(id, sizeof id, "%s",
                       sql_text(conn, "select durable.start('backs-off', '%s')", cases[i].payload));
        const char *end = end_of(id);
        if (strstr(end, "failed: invalid argument: ") != end || strstr(end, cases[i].end) == NULL) {
            fail_msg("%s: %s", cases[i].payload, end);
        }
        assert_int_equal(sql_int(conn, "select count(*) from effect where run_id = '%s'", id), 0);
    }
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* Of what a handler says between two commits, so much is kept, and it is said how much was not. */
static void log_lines_between_two_commits_are_limited(void **state) {
    static const struct {
        int lines, bytes, kept;
    } cases[] = {
        { 10000, 1, 10000 }, { 10003, 0, 10000 }, { 128, 8192, 128 }, { 131, 8191, 128 }
    };
    char id[64], dropped[128];
    (void)state;
    pid_t worker = spawn_worker(url, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        (void)snprintf(
            id, sizeof id, "%s",
            sql_text(conn, "select durable.start('chatters', '{\"lines\": %d, \"bytes\": %d}')",
                     cases[i].lines, cases[i].bytes));
        assert_string_equal(end_of(id), "completed");
        for (int part = 0; part < 2; part++) { /* before its step, and after it */
            assert_int_equal(sql_int(conn,
                                     "select count(*) from durable.logs where run_id = '%s' and "
                                     "level = '%s'",
                                     id, part == 0 ? "debug" : "info"),
                             cases[i].kept);
        }
        (void)snprintf(dropped, sizeof dropped,
                       "%d lines of the log were dropped; the limit between two commits is 10000 "
                       "lines and 1048576 bytes",
                       cases[i].lines - cases[i].kept);
        assert_int_equal(sql_int(conn,
                                 "select count(*) from durable.logs where run_id = '%s' and level "
                                 "= 'warning' and message = '%s'",
                                 id, dropped),
                         cases[i].lines > cases[i].kept ? 2 : 0);
    }
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

#define DO_LESS                                                                                    \
    "; the limit is 10000 steps a run: let one step do more, or a run of its own do the rest"

/* Whatever takes a place is refused where there is none, and a child is not begun. */
static void what_no_place_is_left_for_fails_its_run_by_name(void **state) {
    static const struct {
        const char *payload;
        int steps;
        const char *end;
    } brims[] = {
        { "{\"steps\": 10000, \"then\": \"sleep\"}", 10000,
          "failed: TooManySteps: step sleep is number 10001" DO_LESS },
        { "{\"steps\": 10000, \"then\": \"wait\"}", 10000,
          "failed: TooManySteps: step go is number 10001" DO_LESS },
        { "{\"steps\": 10000, \"then\": \"child\"}", 10000,
          "failed: TooManySteps: step noop is number 10002" DO_LESS },
        { "{\"steps\": 9999, \"then\": \"child\"}", 9999,
          "failed: TooManySteps: step noop is number 10001" DO_LESS },
        { "{\"steps\": 9998, \"then\": \"child\"}", 9998, "completed" },
        { "{\"steps\": 9999, \"then\": \"sleep\"}", 9999, "completed" },
    };
    (void)state;
    pid_t worker = spawn_worker(url, NULL);
    for (size_t i = 0; i < sizeof brims / sizeof *brims; i++) {
        const char *id = full_run("brims", brims[i].payload, brims[i].steps, "'null'");
        assert_string_equal(end_of(id), brims[i].end);
    }
    assert_int_equal(
        sql_int(conn, "select count(*) from durable.runs where parent_run_id is not null"), 1);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* What a claim hands over is text, so text is what counts: also of numbers that are short to say,
 * and of steps whose worker died before it said how large they are. */
static void history_counts_as_it_prints(void **state) {
    (void)state;
    pid_t worker = spawn_worker(url, NULL);
    const char *id = full_run("steps", "{\"steps\": 65}", 64, "to_jsonb(repeat('x', 1048574))");
    assert_non_null(strstr(end_of(id), "failed: ResultRefused: step s65 makes the run's history "
                                       "larger than 67108864 bytes"));
    id = sql_text(conn, "select durable.start('swells', '{\"steps\": 3, \"count\": 100000}')");
    assert_non_null(strstr(end_of(id), "failed: ResultRefused: step swell#3 makes the run's"));
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps where run_id = '%s'", id),
                     2);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* Lets the database refuse rows of a table of ours that `condition` is true of, and count how often
 * it has. */
static void refuse(const char *table, const char *event, const char *sqlstate,
                   const char *condition) {
    sql(conn, "drop table if exists refused; create table refused (run_id uuid); drop sequence if "
              "exists refusals; create sequence refusals");
    sql(conn,
        "create or replace function refuse_some() returns trigger language plpgsql as $$ begin if "
        "%s then perform nextval('public.refusals'); raise exception using errcode = '%s', message "
        "= 'it cannot be stored'; end if; "
        "return new; end $$",
        condition, sqlstate);
    sql(conn,
        "create trigger refuse_some before %s on durable_internal.%s for each row execute function "
        "refuse_some()",
        event, table);
}

/* Runs that are at work for two seconds, in a table. */
static void start_beside(void) {
    sql(conn, "drop table if exists beside");
    sql(conn, "create table beside as select durable.start_many('steps', array_fill('{\"steps\": "
              "100, \"us\": 20000}'::jsonb, array[8])) as id");
}

static void all_beside_complete(void) {
    wait_until(conn, 40,
               "select bool_and(r.finished_at is not null) from durable.runs r join beside b on "
               "b.id = r.id");
    assert_string_equal(
        sql_text(conn, "select string_agg(distinct r.status || coalesce(': ' || (r.error ->> "
                       "'message'), ''), ', ') from durable.runs r join beside b on b.id = r.id"),
        "completed");
}

/* A step over its time fails its run in its handler's place. If that is refused, it is no fault of
 * those whose steps are in the same turn. */
static void a_late_step_that_the_database_refuses_blames_nobody_else(void **state) {
    char id[64];
    (void)state;
    pid_t worker = spawn(url, NULL, "durable-worker", "--connections", "1", NULL);
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)", (int)worker);
    refuse("run", "update", "22008",
           "new.status = 'failed' and exists (select from public.refused p where p.run_id = "
           "new.id)");
    sql(conn, "begin");
    (void)snprintf(id, sizeof id, "%s",
                   sql_text(conn, "select durable.start('late', '{\"ms\": 1000}')"));
    sql(conn, "insert into refused values ('%s')", id);
    sql(conn, "commit");
    start_beside();
    all_beside_complete();
    sql(conn, "drop trigger refuse_some on durable_internal.run");
    wait_until(conn, 90, "select status = 'failed' from durable.runs where id = '%s'", id);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* What a turn asks for comes with what it commits, and may be refused as well. */
static void a_claim_that_the_database_refuses_blames_nobody(void **state) {
    char id[64];
    (void)state;
    pid_t worker = spawn(url, NULL, "durable-worker", "--connections", "1", NULL);
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)", (int)worker);
    refuse("lease", "insert", "22008",
           "exists (select from public.refused p where p.run_id = new.run_id)");
    start_beside();
    wait_until(conn, 20,
               "select count(*) = 8 from durable_internal.lease where run_id in (select "
               "id from beside)");
    sql(conn, "begin");
    (void)snprintf(id, sizeof id, "%s", sql_text(conn, "select durable.start('noop')"));
    sql(conn, "insert into refused values ('%s')", id);
    sql(conn, "commit");
    all_beside_complete();
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "queued");
    sql(conn, "drop trigger refuse_some on durable_internal.lease");
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* An error that is no value's may be everybody's: a right that was revoked, say. It is waited for.
 */
static void what_the_database_refuses_to_all_fails_nobody(void **state) {
    (void)state;
    pid_t worker = spawn(url, NULL, "durable-worker", "--connections", "1", NULL);
    wait_until(conn, 20, "select exists (select from durable.workers where pid = %d)", (int)worker);
    start_beside();
    wait_until(conn, 20,
               "select count(*) = 8 from durable_internal.lease where run_id in (select "
               "id from beside)");
    refuse("step", "insert", "42501", "true");
    wait_until(conn, 20, "select last_value >= 20 from refusals"); /* each alone, and again */
    assert_int_equal(sql_int(conn,
                             "select count(*) from durable.runs r join beside b on b.id = r.id "
                             "where r.finished_at is null"),
                     8);
    sql(conn, "drop trigger refuse_some on durable_internal.step");
    all_beside_complete();
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

/* It remembers as many as it may; here by hand. */
static void the_ten_thousand_and_first_step_fails_its_run(void **state) {
    (void)state;
    const char *id = full_run("steps", "{\"steps\": 10001}", 10000, "'null'");
    pid_t worker = spawn_worker(url, NULL);
    wait_until(conn, 30, "select finished_at is not null from durable.runs where id = '%s'", id);
    assert_string_equal(
        sql_text(conn,
                 "select format('%%s %%s: %%s', status, error ->> 'name', error ->> 'message') "
                 "from durable.runs where id = '%s'",
                 id),
        "failed TooManySteps: step s10001 is number 10001" DO_LESS);
    assert_int_equal(sql_int(conn, "select count(*) from effect where run_id = '%s'", id), 0);

    /* With one step fewer it ends well; and so far with its bytes. */
    id = sql_text(conn, "select durable.start('large', '{\"bytes\": 998}')");
    sql(conn,
        "update durable_internal.ready set bytes = 64 * 1024 * 1024 - 1000 where run_id = '%s'",
        id);
    wait_until(conn, 30, "select status = 'completed' from durable.runs where id = '%s'", id);
    id = sql_text(conn, "select durable.start('large', '{\"bytes\": 999}', scheduled_at => now() + "
                        "interval '1 hour')");
    sql(conn,
        "update durable_internal.timer set bytes = 64 * 1024 * 1024 - 1000 where run_id = '%s'",
        id);
    sql(conn, "select durable.reschedule('%s', now())", id);
    wait_until(conn, 30,
               "select status = 'failed' and error ->> 'message' like '%%history larger%%' from "
               "durable.runs where id = '%s'",
               id);
    assert_int_equal(end_process(worker, SIGTERM), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bad_call_is_refused_by_name_and_stores_nothing),
        cmocka_unit_test(limits_are_met_to_the_byte),
        cmocka_unit_test(the_c_client_refuses_by_name),
        cmocka_unit_test(programs_refuse_what_they_cannot_use),
        cmocka_unit_test(a_payload_of_340_thousand_numbers_is_taken),
        cmocka_unit_test(a_value_that_only_the_database_refuses_fails_its_run_alone),
        cmocka_unit_test(a_run_whose_failure_is_refused_keeps_nobody_waiting),
        cmocka_unit_test(a_late_step_that_the_database_refuses_blames_nobody_else),
        cmocka_unit_test(a_claim_that_the_database_refuses_blames_nobody),
        cmocka_unit_test(what_the_database_refuses_to_all_fails_nobody),
        cmocka_unit_test(the_ten_thousand_and_first_step_fails_its_run),
        cmocka_unit_test(what_no_place_is_left_for_fails_its_run_by_name),
        cmocka_unit_test(history_counts_as_it_prints),
        cmocka_unit_test(a_steps_backoff_is_refused_by_name),
        cmocka_unit_test(log_lines_between_two_commits_are_limited),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
