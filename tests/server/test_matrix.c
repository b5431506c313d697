/* Who may do what: every route with every kind of key, with what is another namespace's, and
 * without the scope `payloads`. The rows are held against /openapi.json, which test_api holds
 * against the router: a new route without a row fails. */
#include "http.h"

#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *url;
static PGconn *conn;
static struct answer answer;
static pid_t server;

enum scope { NONE, READ, START, OPERATE, ADMIN };

/* What stands in the path: SQL that makes one, and answers its name. `never` is one that is not
 * there. */
static const struct thing {
    const char *make, *never;
} nothing = { NULL, NULL },
  run = { "select durable.start('access')", "01890a5d-ac96-774b-bcce-b302099a8057" },
  ended = { "select durable_internal.test_ended()", "01890a5d-ac96-774b-bcce-b302099a8057" },
  key = { "select k from (select 'k' || nextval('number') as k) as k, "
          "lateral (select durable.start('access', idempotency_key => k.k) offset 0) as s",
          "k999" },
  state = { "select k from (select 's' || nextval('number') as k) as k, "
            "lateral (select durable.state_set(k.k, '\"victim\"') offset 0) as s",
            "s999" },
  counter = { "select k from (select 'c' || nextval('number') as k) as k, "
              "lateral (select durable.state_increment(k.k) offset 0) as s",
              "c999" },
  lock = { "select k from (select 'l' || nextval('number') as k) as k, "
           "lateral (select durable.state_lock(k.k, 'me', '1 hour') offset 0) as s",
           "l999" },
  queue = { "select k from (select 'q' || nextval('number') as k) as k, "
            "lateral (select durable.set_queue(k.k, max_attempts => 3) offset 0) as s",
            "q999" },
  endpoint = { "select k from (select 'e' || nextval('number') as k) as k, lateral (select "
               "durable_internal.endpoint_put(1, k.k, 'http://127.0.0.1:9/', true, null, null) "
               "offset 0) as s",
               "e999" },
  schedule = { "select 't' || nextval('number')", "t999" };

static const struct row {
    const char *method, *pattern; /* of openapi */
    enum scope scope;
    int status; /* with the right key, of what is there */
    const struct thing *thing;
    const char *body;
    int foreign; /* with the right key of another namespace, whether it is there or not */
} rows[] = {
    { "GET", "/healthz", NONE, 200, &nothing, NULL, 200 },
    { "GET", "/readyz", NONE, 200, &nothing, NULL, 200 },
    { "GET", "/metrics", NONE, 200, &nothing, NULL, 200 },
    { "GET", "/openapi.json", NONE, 200, &nothing, NULL, 200 },
    { "POST", "/v1/runs", START, 201, &nothing, "{\"job\":\"j\"}", 201 },
    { "GET", "/v1/runs", READ, 200, &nothing, NULL, 200 },
    { "POST", "/v1/runs/batch", START, 201, &nothing, "{\"runs\":[{\"job\":\"j\"}]}", 201 },
    { "POST", "/v1/runs/retry", OPERATE, 200, &nothing, "{\"job\":\"access\"}", 200 },
    { "POST", "/v1/runs/cancel", OPERATE, 200, &nothing, "{\"job\":\"none\"}", 200 },
    { "GET", "/v1/runs/{id}", READ, 200, &run, NULL, 404 },
    { "GET", "/v1/runs/{id}/timeline", READ, 200, &run, NULL, 404 },
    { "GET", "/v1/runs/{id}/steps", READ, 200, &run, NULL, 404 },
    { "GET", "/v1/runs/{id}/attempts", READ, 200, &run, NULL, 404 },
    { "GET", "/v1/runs/{id}/logs", READ, 200, &run, NULL, 404 },
    { "GET", "/v1/runs/{id}/why", READ, 200, &run, NULL, 404 },
    { "GET", "/v1/runs/{id}/diff", READ, 501, &run, NULL, 501 },
    { "GET", "/v1/runs/{id}/result", READ, 202, &run, NULL, 404 },
    { "GET", "/v1/runs/{id}/stream", READ, 200, &ended, NULL, 404 },
    { "POST", "/v1/runs/{id}/cancel", OPERATE, 200, &run, "{}", 404 },
    { "POST", "/v1/runs/{id}/retry", OPERATE, 200, &ended, "{}", 404 },
    { "POST", "/v1/runs/{id}/reschedule", OPERATE, 200, &run,
      "{\"scheduledAt\":\"2030-01-01T00:00:00Z\"}", 404 },
    { "POST", "/v1/runs/{id}/fork", OPERATE, 501, &run, "{\"fromStep\":\"s\"}", 501 },
    { "DELETE", "/v1/idempotency-keys/{key}", ADMIN, 200, &key, NULL, 404 },
    { "POST", "/v1/events", START, 202, &nothing, "{\"name\":\"e\"}", 202 },
    { "POST", "/v1/commit", NONE, 400, &nothing, "{}", 400 },
    { "GET", "/v1/commit", NONE, 401, &nothing, NULL, 401 },
    { "GET", "/v1/state/{key}", READ, 200, &state, NULL, 404 },
    { "PUT", "/v1/state/{key}", START, 200, &state, "{\"value\":1}", 200 },
    { "DELETE", "/v1/state/{key}", START, 200, &state, NULL, 404 },
    { "POST", "/v1/state/{key}/increment", START, 200, &counter, "{}", 200 },
    { "POST", "/v1/state/{key}/lock", START, 200, &lock, "{\"owner\":\"me\",\"ttl\":\"1h\"}", 200 },
    { "POST", "/v1/state/{key}/unlock", START, 200, &lock, "{\"owner\":\"me\"}", 409 },
    { "GET", "/v1/queues", READ, 200, &nothing, NULL, 200 },
    { "PUT", "/v1/queues/{name}", OPERATE, 200, &queue, "{\"maxAttempts\":7}", 200 },
    { "POST", "/v1/queues/{name}/pause", OPERATE, 200, &queue, NULL, 200 },
    { "POST", "/v1/queues/{name}/resume", OPERATE, 200, &queue, NULL, 200 },
    { "POST", "/v1/queues/{name}/redrive", OPERATE, 501, &queue, NULL, 501 },
    { "GET", "/v1/schedules", READ, 501, &nothing, NULL, 501 },
    { "PUT", "/v1/schedules/{name}", OPERATE, 501, &schedule, "{}", 501 },
    { "DELETE", "/v1/schedules/{name}", OPERATE, 501, &schedule, NULL, 501 },
    { "POST", "/v1/schedules/{name}/trigger", OPERATE, 501, &schedule, NULL, 501 },
    { "GET", "/v1/endpoints", READ, 200, &nothing, NULL, 200 },
    { "GET", "/v1/endpoints/{name}", READ, 200, &endpoint, NULL, 404 },
    { "PUT", "/v1/endpoints/{name}", ADMIN, 200, &endpoint,
      "{\"url\":\"http://127.0.0.1:9/\",\"allowPrivate\":true}", 200 },
    { "DELETE", "/v1/endpoints/{name}", ADMIN, 200, &endpoint, NULL, 404 },
    { "POST", "/v1/endpoints/{name}/sync", ADMIN, 200, &endpoint, NULL, 404 },
    { "POST", "/v1/endpoints/{name}/rotate-secret", ADMIN, 200, &endpoint, NULL, 404 },
    { "POST", "/v1/endpoints/{name}/pause", ADMIN, 200, &endpoint, NULL, 404 },
    { "POST", "/v1/endpoints/{name}/resume", ADMIN, 200, &endpoint, NULL, 404 },
    { "GET", "/v1/workers", READ, 200, &nothing, NULL, 200 },
    { "GET", "/v1/stats", READ, 501, &nothing, NULL, 501 },
    { "GET", "/v1/storage", READ, 501, &nothing, NULL, 501 },
};
#define ROWS (sizeof rows / sizeof *rows)

static const struct {
    const char *scope;
    unsigned int opens; /* a bit for each enum scope */
} scopes[] = {
    { "read", 1 << READ },       { "start", 1 << START },
    { "operate", 1 << OPERATE }, { "admin", 1 << READ | 1 << START | 1 << OPERATE | 1 << ADMIN },
    { "payloads", 0 },
};
#define SCOPES (sizeof scopes / sizeof *scopes)

static int setup(void **state_of_group) {
    (void)state_of_group;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    sql(conn, "create sequence number start 100");
    sql(conn, "create function durable_internal.test_ended() returns uuid language plpgsql as $$ "
              "declare id uuid := "
              "durable.start('access'); begin perform durable.cancel(id); return id; end $$");
    server = server_start(url, /* ready= */ true, "--bad-keys", "0", NULL);
    return 0;
}

static int teardown(void **state_of_group) {
    (void)state_of_group;
    assert_int_equal(end_process(server, SIGTERM), 0);
    free(answer.body);
    return 0;
}

/* The pattern with a name in it. */
static const char *row_path(const struct row *row, const char *name) {
    static char path[512];
    const char *open = strchr(row->pattern, '{');
    if (open == NULL) {
        return row->pattern;
    }
    (void)snprintf(path, sizeof path, "%.*s%s%s", (int)(open - row->pattern), row->pattern, name,
                   strchr(open, '}') + 1);
    return path;
}

static const char *made(const struct row *row) {
    static char name[64];
    (void)snprintf(name, sizeof name, "%s",
                   row->thing->make == NULL ? "" : sql_text(conn, "%s", row->thing->make));
    return name;
}

static int status_of(const struct row *row, const char *path, const char *with) {
    if (row->body == NULL) {
        call(&answer, row->method, path, with, NULL);
    } else {
        call(&answer, row->method, path, with, "%s", row->body);
    }
    return answer.status;
}

static const struct row *row_of(const char *method, const char *pattern) {
    for (size_t i = 0; i < ROWS; i++) {
        if (strcasecmp(rows[i].method, method) == 0 && strcmp(rows[i].pattern, pattern) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

static void each_route_has_its_row_here(void **state_of_test) {
    size_t found = 0;
    (void)state_of_test;
    call(&answer, "GET", "/openapi.json", NULL, NULL);
    json_object *doc = json_tokener_parse(answer.body);
    json_object_object_foreach(json_object_object_get(doc, "paths"), pattern, methods) {
        json_object_object_foreach(methods, method, about) {
            const struct row *row = row_of(method, pattern);
            if (row == NULL) {
                fail_msg("a row is missing for %s %s", method, pattern);
            }
            const char *text = json_object_to_json_string(about);
            if (row->scope != NONE && strstr(text, "Scope: ") != NULL) {
                char says[32];
                (void)snprintf(says, sizeof says, "Scope: %s", scopes[row->scope - 1].scope);
                if (strstr(text, says) == NULL) {
                    fail_msg("%s %s: /openapi.json names another scope than %s", method, pattern,
                             says);
                }
            }
            found++;
        }
    }
    json_object_put(doc);
    assert_int_equal(found, ROWS);
}

/* Counts what differs, and says it. */
static int differs(const struct row *row, const char *with, int status, int wanted) {
    if (status == wanted) {
        return 0;
    }
    print_error("%s %s with %s: %d is not %d: %.300s\n", row->method, row->pattern, with, status,
                wanted, answer.body);
    return 1;
}

static void without_a_key_that_holds_each_route_is_401(void **state_of_test) {
    char in_path[700], wrong[80];
    int wrong_count = 0;
    (void)state_of_test;
    const char *right = key_new(conn, "default", "admin,payloads");
    const char *revoked = key_new(conn, "default", "admin,payloads"),
               *expired = key_new(conn, "default", "admin");
    (void)snprintf(wrong, sizeof wrong, "%.62s%c", right, right[62] == 'a' ? 'b' : 'a');
    sql(conn, "select durable_internal.key_revoke(substr('%s', 4, 16))", revoked);
    sql(conn,
        "update durable_internal.api_key set expires_at = clock_timestamp() where id = "
        "substr('%s', 4, 16)",
        expired);
    const struct {
        const char *name, *key;
    } keys[] = {
        { "no key", NULL },
        { "a malformed key", "dj_short" },
        { "a wrong secret", wrong },
        { "a key nobody made", "dj_0000000000000000_0000000000000000000000000000000000000000000" },
        { "a revoked key", revoked },
        { "an expired key", expired },
    };
    for (size_t i = 0; i < ROWS; i++) {
        const char *path = row_path(&rows[i], rows[i].thing->never);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            int wanted = rows[i].scope == NONE ? rows[i].status : 401;
            wrong_count +=
                differs(&rows[i], keys[k].name, status_of(&rows[i], path, keys[k].key), wanted);
            if (wanted == 401 && strstr(answer.body, "\"unauthorized\"") == NULL) {
                wrong_count += differs(&rows[i], keys[k].name, 0, 401);
            }
        }
        static const char *const names[] = { "api_key", "key", "access_token", "authorization" };
        for (size_t n = 0; n < sizeof names / sizeof *names && rows[i].scope != NONE; n++) {
            (void)snprintf(in_path, sizeof in_path, "%s?%s=%s", path, names[n], right);
            wrong_count +=
                differs(&rows[i], "a key in the URL", status_of(&rows[i], in_path, NULL), 401);
        }
    }
    assert_int_equal(wrong_count, 0);
}

static void each_scope_alone_opens_what_it_should(void **state_of_test) {
    int wrong = 0, cells = 0;
    (void)state_of_test;
    for (size_t s = 0; s < SCOPES; s++) {
        const char *with = key_new(conn, "default", scopes[s].scope);
        for (size_t i = 0; i < ROWS; i++, cells++) {
            bool open = rows[i].scope == NONE || (scopes[s].opens >> rows[i].scope & 1) != 0;
            int status = status_of(&rows[i], row_path(&rows[i], made(&rows[i])), with);
            wrong += differs(&rows[i], scopes[s].scope, status, open ? rows[i].status : 403);
            if (status == 403 && strstr(answer.body, scopes[rows[i].scope - 1].scope) == NULL) {
                wrong += differs(&rows[i], "the scope that is missing named", 0, 403);
            }
        }
    }
    print_message("%d cells of routes and scopes\n", cells);
    assert_int_equal(wrong, 0);
}

/* All that the default namespace has, as one text, to be freed. */
static char *all_of_default(void) {
    return strdup(sql_text(conn, "select md5(string_agg(md5(query_to_xml(format('select x from "
                                 "durable_internal.%%I as x where "
                                 "namespace_id = 1 order by x::text', c.relname), true, true, "
                                 "'')::text), ' ' order by c.relname)) from "
                                 "pg_class c join pg_attribute a on a.attrelid = c.oid and "
                                 "a.attname = 'namespace_id' where c.relkind in "
                                 "('r', 'p') and not c.relispartition and c.relnamespace = "
                                 "'durable_internal'::regnamespace"));
}

/* The answer's body with one name instead of another. */
static char *body_with(const char *name, const char *instead) {
    char *text = calloc(1, answer.length * 4 + 1024), *out = text;
    for (const char *at = answer.body; *at != '\0';) {
        if (name != NULL && strncmp(at, name, strlen(name)) == 0) {
            out = stpcpy(out, instead);
            at += strlen(name);
        } else {
            *out++ = *at++;
        }
    }
    return text;
}

/* One route with a key of another namespace, in which nothing was made yet: what is there and what
 * never was get the same answer. Counts what is wrong. */
static int tell_apart(const struct row *row, const char *foreign, const char *scope, int wanted) {
    int wrong = 0;
    const char *name = made(row);
    char *before = all_of_default();
    wrong += differs(row, scope, status_of(row, row_path(row, row->thing->never), foreign), wanted);
    char *never = body_with(row->thing->never, name);
    wrong += differs(row, scope, status_of(row, row_path(row, name), foreign), wanted);
    char *theirs = body_with(NULL, NULL);
    if (wanted >= 400 && strcmp(never, theirs) != 0) {
        print_error("%s %s: not the same bytes: %s and %s\n", row->method, row->pattern, never,
                    theirs);
        wrong++;
    }
    char *after = all_of_default();
    if (strstr(theirs, "victim") != NULL || strcmp(before, after) != 0) {
        print_error("%s %s: it saw or changed the other namespace: %s\n", row->method, row->pattern,
                    theirs);
        wrong++;
    }
    free(before);
    free(after);
    free(never);
    free(theirs);
    return wrong;
}

static void what_is_anothers_looks_as_if_it_had_never_been(void **state_of_test) {
    int wrong = 0, cells = 0;
    (void)state_of_test;
    for (size_t i = 0; i < ROWS; i++) {
        const struct row *row = &rows[i];
        if (row->thing->make == NULL || row->scope == NONE) {
            continue;
        }
        for (size_t s = 0; s <= SCOPES; s++, cells++) { /* at last all scopes at once */
            const char *scope = s < SCOPES ? scopes[s].scope : "admin,payloads";
            bool open = s == SCOPES || (scopes[s].opens >> row->scope & 1) != 0;
            char namespace[32];
            (void)snprintf(namespace, sizeof namespace, "other%d", cells);
            wrong +=
                tell_apart(row, key_new(conn, namespace, scope), scope, open ? row->foreign : 403);
        }
    }
    print_message("%d cells of routes with a name in the path and scopes of another namespace\n",
                  cells);
    assert_int_equal(wrong, 0);
}

/* In bodies and queries: keys, filters, lists. */
static void what_is_anothers_is_in_no_list_and_no_key_means_it(void **state_of_test) {
    static const char *const lists[] = { "/v1/runs", "/v1/runs?job=victim-job", "/v1/queues",
                                         "/v1/workers", "/v1/endpoints" };
    (void)state_of_test;
    const char *mine = key_new(conn, "default", "admin,payloads"),
               *fresh = key_new(conn, "third", "admin,payloads");
    pid_t worker = spawn_worker(url, NULL);
    call(&answer, "POST", "/v1/runs", mine,
         "{\"job\":\"victim-job\",\"idempotencyKey\":\"victim-key\",\"queueName\":\"victim-"
         "queue\"}");
    assert_status(&answer, 201);
    call(&answer, "POST", "/v1/events", mine,
         "{\"name\":\"victim-event\",\"idempotencyKey\":\"victim-key\"}");
    assert_status(&answer, 202);
    sql(conn, "%s", endpoint.make);
    wait_until(conn, 20, "select exists (select from durable.workers)");
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        call(&answer, "GET", lists[i], fresh, NULL);
        assert_status(&answer, 200);
        if (strstr(answer.body, ": [], \"nextCursor\": null}") == NULL) {
            fail_msg("%s: %s", lists[i], answer.body);
        }
        call(&answer, "GET", lists[i], mine, NULL);
        assert_null(
            strstr(answer.body, ": [], \"nextCursor\"")); /* there is something to be seen */
    }
    call(&answer, "POST", "/v1/runs/cancel", fresh, "{\"job\":\"victim-job\"}");
    assert_field(&answer, "/count", "0");
    call(&answer, "POST", "/v1/runs", fresh,
         "{\"job\":\"other-job\",\"idempotencyKey\":\"victim-key\"}");
    assert_status(&answer, 201);
    assert_field(&answer, "/created", "true");
    call(&answer, "POST", "/v1/events", fresh,
         "{\"name\":\"other-event\",\"idempotencyKey\":\"victim-key\"}");
    assert_status(&answer, 202);
    assert_field(&answer, "/created", "true");
    assert_int_equal(end_process(worker, SIGTERM), 0);
    call(&answer, "GET", "/v1/runs?job=victim-job", mine, NULL);
    assert_field(&answer, "/runs/0/status", "queued");
}

static void without_the_scope_payloads_no_value_is_shown(void **state_of_test) {
    static const char *const canaries[] = { "canary-payload", "canary-event", "canary-field",
                                            "canary-detail",  "canary-state", "canary-step",
                                            "canary-child" };
    int seen[sizeof canaries / sizeof *canaries] = { 0 }, wrong = 0;
    (void)state_of_test;
    const char *blind = key_new(conn, "default", "read,start,operate,admin");
    const char *sees = key_new(conn, "default", "read,payloads");
    pid_t scheduler = spawn_scheduler(url), worker = spawn_worker(url, NULL);
    const char *id =
        strdup(sql_text(conn, "select durable.start('waits', '{\"c\":\"canary-payload\"}')"));
    wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", id);
    sql(conn, "select durable.send_event('go', '{\"c\":\"canary-event\"}')");
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    (void)end_process(worker, SIGTERM);
    (void)end_process(scheduler, SIGTERM);
    /* What only handlers over HTTP send: fields of log lines, errors with more than the protocol
     * names. */
    sql(conn,
        "insert into durable_internal.log select '%s', 1, clock_timestamp(), 'info', 'plain', "
        "'{\"c\":\"canary-field\"}'",
        id);
    sql(conn,
        "insert into durable_internal.step (run_id, position, attempt, started_at, committed_at, "
        "name, kind, result, "
        "error) values ('%s', 8, 1, now(), now(), 'a', 'step', '\"canary-step\"', null), ('%s', 9, "
        "1, now(), now(), "
        "'b', 'step', null, '{\"message\":\"m\",\"detail\":\"canary-detail\"}'), ('%s', 10, 1, "
        "now(), now(), 'c', "
        "'child', '\"canary-child\"', null)",
        id, id, id);
    sql(conn,
        "insert into durable_internal.attempt (run_id, attempt, started_at, ended_at, outcome, "
        "error) values ('%s', 1, "
        "now(), now(), 'failed', '{\"message\":\"m\",\"detail\":\"canary-detail\"}')",
        id);
    sql(conn,
        "update durable_internal.run set error = "
        "'{\"message\":\"m\",\"detail\":\"canary-detail\"}' where id = '%s'",
        id);
    sql(conn, "select durable.state_set('canary', '\"canary-state\"')");
    for (size_t i = 0; i < ROWS; i++) {
        if (strcmp(rows[i].method, "GET") != 0 || rows[i].scope == NONE) {
            continue;
        }
        bool of_run = rows[i].thing == &run || rows[i].thing == &ended;
        const char *path = row_path(&rows[i], of_run ? id : "canary");
        for (size_t k = 0; k < 2; k++) {
            (void)status_of(&rows[i], path, k == 0 ? blind : sees);
            for (size_t c = 0; c < sizeof canaries / sizeof *canaries; c++) {
                bool there = strstr(answer.body, canaries[c]) != NULL;
                seen[c] += k == 1 && there;
                if (k == 0 && there) {
                    print_error("%s %s shows %s: %.600s\n", rows[i].method, rows[i].pattern,
                                canaries[c], answer.body);
                    wrong++;
                }
            }
        }
    }
    for (size_t c = 0; c < sizeof canaries / sizeof *canaries; c++) {
        if (seen[c] == 0) {
            fail_msg("%s is shown nowhere: this test could not fail", canaries[c]);
        }
    }
    assert_int_equal(wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_route_has_its_row_here),
        cmocka_unit_test(without_a_key_that_holds_each_route_is_401),
        cmocka_unit_test(each_scope_alone_opens_what_it_should),
        cmocka_unit_test(what_is_anothers_looks_as_if_it_had_never_been),
        cmocka_unit_test(what_is_anothers_is_in_no_list_and_no_key_means_it),
        cmocka_unit_test(without_the_scope_payloads_no_value_is_shown),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
