/* What GETs answer: all fields, what a run waits for in words and times, and lists by each filter.
 */
#include "api.h"

#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* What the contract with users names, of each GET: a list's path, or an object's, and its fields.
 */
static void every_answer_has_all_its_fields(void **state) {
    static const char *const run_fields =
        "id job queueName status payload result error attempt maxAttempts priority tags "
        "idempotencyKey version createdAt scheduledAt startedAt finishedAt nextAttemptAt "
        "waitingFor "
        "deadLetterQueue deadLetteredAt concurrencyKey parentRunId";
    const struct {
        const char *path, *at, *fields;
    } rows[] = {
        { "/v1/runs/%s", "", run_fields },
        { "/v1/runs?job=waits", "/runs/0", run_fields },
        { "/v1/runs/%s/timeline", "/timeline/0", "at kind name attempt durationMs detail" },
        { "/v1/runs/%s/steps", "/steps/0",
          "position name kind status result error attempt workerId fence startedAt committedAt" },
        { "/v1/runs/%s/attempts", "/attempts/0",
          "attempt workerId fence startedAt endedAt outcome error" },
        { "/v1/runs/%s/logs", "/logs/0", "attempt at level message fields" },
        { "/v1/runs/%s/why", "", "why" },
        { "/v1/runs/%s/result", "", "status result error" },
        { "/v1/queues", "/queues/0",
          "name concurrency keyConcurrency rateLimit ratePeriod paused deadLetterQueue depth "
          "oldestAgeMs running" },
        { "/v1/workers", "/workers/0",
          "id name pid version status jobs endpointJobs queues slots inHand startedAt beatAt "
          "endedAt" },
        { "/v1/endpoints", "/endpoints/0",
          "name url status jobs version concurrency timeoutMs allowPrivate failures restUntil "
          "lastError syncedAt createdAt" },
        { "/v1/endpoints/shape", "",
          "name url status jobs version concurrency timeoutMs allowPrivate failures restUntil "
          "lastError syncedAt createdAt" },
    };
    pid_t scheduler = spawn_scheduler(url), worker = spawn_worker(url, NULL);
    (void)state;
    CALL(200, "PUT", "/v1/endpoints/shape", admin, "{\"url\":\"http://127.0.0.1:1/\"}");
    const char *id = started(admin, "{\"job\":\"waits\"}");
    wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", id);
    sql(conn, "select durable.send_event('go')");
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    sql(conn,
        "insert into durable_internal.log (run_id, attempt, at, level, message) values "
        "('%s', 1, now(), 'info', 'said')",
        id);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char fields[512];
        (void)snprintf(fields, sizeof fields, "%s", rows[i].fields);
        CALL(200, "GET", path_of(rows[i].path, id), reader, NULL);
        if (strncmp(rows[i].at, "/", 1) == 0) {
            assert_field(&answer, "/nextCursor", "null");
        }
        for (char *rest, *name = strtok_r(fields, " ", &rest); name != NULL;
             name = strtok_r(NULL, " ", &rest)) {
            char pointer[128];
            (void)snprintf(pointer, sizeof pointer, "%s/%s", rows[i].at, name);
            (void)answer_field(&answer, pointer); /* fails where it is not there */
        }
    }
    CALL(200, "GET", path_of("/v1/runs/%s/timeline", id), reader, NULL);
    assert_field(&answer, "/timeline/0/attempt", "1");
    json_object *entries = json_tokener_parse(answer.body), *list;
    assert_int_equal(json_pointer_get(entries, "/timeline", &list), 0);
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *took =
            json_object_object_get(json_object_array_get_idx(list, i), "durationMs");
        const char *point = took == NULL ? NULL : strchr(json_object_get_string(took), '.');
        assert_true(point == NULL || strlen(point) <= 4); /* three decimals at most */
    }
    json_object_put(entries);
    (void)end_process(worker, SIGTERM);
    (void)end_process(scheduler, SIGTERM);
}

/* All kinds of waiting of a queued run; times are RFC 3339, with milliseconds. */
static void what_a_run_waits_for_is_named_and_timed(void **state) {
    char worker[64];
    (void)state;
    const char *id = started(admin, "{\"job\":\"shown\"}");
    assert_field(&answer, "/waitingFor/kind", "worker");
    CALL(200, "GET", path_of("/v1/runs/%s", id), reader, NULL);
    assert_field(&answer, "/waitingFor/kind", "worker");
    assert_field(&answer, "/waitingFor/job", "shown");
    CALL(200, "GET", path_of("/v1/runs/%s/timeline", id), reader, NULL);
    assert_field(&answer, "/timeline/1/kind", "waiting");
    assert_field(&answer, "/timeline/1/attempt", "1");

    (void)snprintf(worker, sizeof worker, "%s", worker_new(conn, "shown"));
    CALL(200, "GET", path_of("/v1/runs/%s", id), reader, NULL);
    assert_field(&answer, "/waitingFor", "null");
    assert_field(&answer, "/status", "queued");
    CALL(200, "GET", path_of("/v1/runs/%s/why", id), reader, NULL);
    assert_non_null(strstr(answer.body, "queued: it is its turn"));
    CALL(200, "GET", path_of("/v1/runs/%s/timeline", id), reader, NULL);
    assert_null(strstr(answer.body, "waiting"));
    (void)started(admin, "{\"job\":\"shown\",\"queueName\":\"shown\"}");
    assert_field(&answer, "/waitingFor", "null");
    sql(conn, "select durable_internal.worker_leave('%s')", worker);

    const char *later =
        started(admin, "{\"job\":\"shown\",\"scheduledAt\":\"2030-01-02T03:04:05.678912Z\"}");
    CALL(200, "GET", path_of("/v1/runs/%s", later), reader, NULL);
    assert_field(&answer, "/waitingFor/until", "2030-01-02T03:04:05.678Z");
    CALL(200, "GET", path_of("/v1/runs/%s/why", later), reader, NULL);
    assert_field(&answer, "/why", "it is scheduled for 2030-01-02T03:04:05.678Z");
    CALL(200, "GET", path_of("/v1/runs/%s/timeline", later), reader, NULL);
    assert_field(&answer, "/timeline/0/detail/scheduledAt", "2030-01-02T03:04:05.678Z");
    CALL(200, "POST", path_of("/v1/runs/%s/cancel", later), admin, NULL);
    CALL(200, "GET", path_of("/v1/runs/%s/why", later), reader, NULL);
    const char *why = answer_field(&answer, "/why");
    assert_int_equal(strlen(why), strlen("the run is cancelled since 2030-01-02T03:04:05.678Z"));
    assert_string_equal(why + strlen(why) - 1, "Z");
}

/* Each filter alone, and with each status: what is listed is what the view says. */
static void lists_agree_with_the_view(void **state) {
    static const char *const statuses[] = { "scheduled", "queued",    "running", "waiting",
                                            "retrying",  "completed", "failed",  "cancelled" };
    static const struct {
        const char *query, *condition;
    } filters[] = {
        { "", "true" },
        { "job=f", "job = 'f'" },
        { "queue=f2", "queue = 'f2'" },
        { "job=f&queue=f2", "job = 'f' and queue = 'f2'" },
        { "tag=side:a", "tags @> '{\"side\": \"a\"}'" },
        { "tag=side:a&job=f", "tags @> '{\"side\": \"a\"}' and job = 'f'" },
        { "deadLetterQueue=f.dead", "dead_letter_queue = 'f.dead'" },
        { "deadLetterQueue=f.dead&tag=side:a",
          "dead_letter_queue = 'f.dead' and tags @> '{\"side\": \"a\"}'" },
        { "deadLetterQueue=f.dead&queue=f1", "dead_letter_queue = 'f.dead' and queue = 'f1'" },
    };
    (void)state;
    sql(conn, "select durable.set_queue('f1', dead_letter_queue => 'f.dead')");
    for (int i = 0; i < 12; i++) {
        sql(conn,
            "select durable.start(case %d %% 4 when 0 then 'g' else 'f' end, queue => 'f' || "
            "%d %% 3, tags => case %d %% 2 when 0 then '{}' else '{\"side\": \"a\"}' end::jsonb, "
            "scheduled_at => case when %d %% 6 = 5 then now() + interval '1 day' end)",
            i, i, i, i);
    }
    const char *worker = worker_new(conn, "f");
    sql(conn,
        "create table claimed as select run_id, fence, row_number() over () as n from "
        "durable_internal.claim('%s', 100, 1000000)",
        worker);
    sql(conn,
        "select durable_internal.commit('%s', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', "
        "'{}', "
        "array(select run_id from claimed where n = 1), array(select fence from claimed where n = "
        "1), '{1}'::jsonb[], array(select run_id from claimed where n between 2 and 5 order by n), "
        "array(select fence from claimed where n between 2 and 5 order by n), "
        "array['wait', 'sleep', 'fail', 'fail'], "
        "array['{\"position\": 1, \"name\": \"go\", \"event\": \"gone\", \"timeoutMs\": 100000}', "
        "'{\"position\": 1, \"name\": \"s\", \"ms\": 100000}', '{\"error\": {\"message\": "
        "\"no\"}}', '{\"error\": {\"message\": \"no\"}, \"permanent\": true}']::jsonb[], "
        "'{}', '{}', '{}', '{}', '{}')",
        worker);
    sql(conn, "select durable.cancel(id) from (select id from durable.runs where status = 'queued' "
              "order by id limit 1) as one");
    for (size_t f = 0; f < sizeof filters / sizeof *filters; f++) {
        for (size_t s = 0; s <= sizeof statuses / sizeof *statuses; s++) {
            const char *status = s == 0 ? "" : statuses[s - 1];
            char path[256], cursor[64] = "", listed[8192] = "";
            for (bool more = true; more;) { /* page by page */
                (void)snprintf(path, sizeof path, "/v1/runs?limit=2%s%s%s%s%s%s", s == 0 ? "" : "&",
                               s == 0 ? "" : "status=", status, filters[f].query[0] ? "&" : "",
                               filters[f].query, cursor);
                CALL(200, "GET", path, reader, NULL);
                json_object *page = json_tokener_parse(answer.body), *list;
                assert_int_equal(json_pointer_get(page, "/runs", &list), 0);
                for (size_t i = 0; i < json_object_array_length(list); i++) {
                    size_t length = strlen(listed);
                    (void)snprintf(listed + length, sizeof listed - length, "%s ",
                                   json_object_get_string(json_object_object_get(
                                       json_object_array_get_idx(list, i), "id")));
                }
                json_object_put(page);
                const char *next = answer_field(&answer, "/nextCursor");
                more = strcmp(next, "null") != 0;
                (void)snprintf(cursor, sizeof cursor, "&cursor=%s", next);
            }
            const char *wanted = sql_text(
                conn,
                "select coalesce(string_agg(id || ' ', '' order by id desc), '') from durable.runs "
                "where (%s) and ('%s' = '' or status = '%s')",
                filters[f].condition, status, status);
            if (strcmp(listed, wanted) != 0) {
                fail_msg("%s: %s, not %s", path, listed, wanted);
            }
            if (f == 0 && wanted[0] == '\0') {
                fail_msg("no run is %s: nothing is compared", status);
            }
        }
    }
    assert_string_not_equal(sql_text(conn, "select count(*) from durable.runs where "
                                           "dead_letter_queue = 'f.dead'"),
                            "0");
}

/* A page is bounded in bytes too: it ends early, behind one line at least, and says where it goes
 * on. */
static void pages_of_large_lines_end_early(void **state) {
    static const char *const lists[] = { "logs", "steps" };
    (void)state;
    const char *id = started(admin, "{\"job\":\"large\"}");
    sql(conn,
        "insert into durable_internal.log (run_id, attempt, at, level, message, fields) select "
        "'%s', 1, clock_timestamp() + n * interval '1 ms', 'info', n, jsonb_build_object('x', "
        "repeat('x', 1000000)) from generate_series(1, 21) as n",
        id);
    sql(conn,
        "insert into durable_internal.step (run_id, position, attempt, started_at, committed_at, "
        "name, kind, result) select '%s', n, 1, now(), now(), n, 'step', to_jsonb(repeat('x', "
        "1000000)) from generate_series(1, 21) as n",
        id);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        char path[256], cursor[32] = "0";
        int pages = 0;
        size_t found = 0;
        while (strcmp(cursor, "null") != 0) {
            (void)snprintf(path, sizeof path, "/v1/runs/%s/%s?limit=10000&cursor=%s", id, lists[i],
                           cursor);
            CALL(200, "GET", path, reader, NULL);
            assert_in_range(answer.length, 1000000, 10 * 1024 * 1024);
            json_object *page = json_tokener_parse(answer.body), *list;
            assert_true(json_object_object_get_ex(page, lists[i], &list));
            for (size_t j = 0; j < json_object_array_length(list); j++) {
                json_object *line = json_object_array_get_idx(list, j);
                json_object *name = json_object_object_get(line, i == 0 ? "message" : "name");
                assert_int_equal(json_object_get_int(name), ++found);
            }
            json_object_put(page);
            (void)snprintf(cursor, sizeof cursor, "%s", answer_field(&answer, "/nextCursor"));
            pages++;
        }
        assert_int_equal(found, 21);
        assert_in_range(pages, 3, 3);
    }
    CALL(200, "GET", path_of("/v1/runs/%s/logs?limit=21", id), reader, NULL);
    assert_field(&answer, "/nextCursor", "9");
    CALL(200, "GET", path_of("/v1/runs/%s/logs?cursor=21", id), reader, NULL);
    assert_field(&answer, "/nextCursor", "null");
    assert_string_equal(answer.body, "{\"logs\": [], \"nextCursor\": null}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_answer_has_all_its_fields),
        cmocka_unit_test(what_a_run_waits_for_is_named_and_timed),
        cmocka_unit_test(lists_agree_with_the_view),
        cmocka_unit_test(pages_of_large_lines_end_early),
    };
    return cmocka_run_group_tests(tests, api_setup, api_teardown);
}
