/* Each command over SQL and through durable-server: the same words, the same JSON, the same exit
 * status. And how a command knows where to work. */
#include "../server/http.h"

#include <ctype.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char *url, *key;
static PGconn *conn;
static pid_t server, scheduler, worker;
static struct said said[2]; /* over SQL, and through the server */

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    server = server_start(url, /* ready= */ true, NULL);
    key = key_new(conn, "default", "read,start,operate,payloads");
    scheduler = spawn_scheduler(url);
    worker = spawn_worker(url, NULL);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    (void)end_process(worker, SIGTERM);
    (void)end_process(scheduler, SIGTERM);
    (void)end_process(server, SIGTERM);
    return 0;
}

/* A command through the server, with this key. */
static void with_key(const char *api_key, const char *arguments) {
    shell_said(&said[1], "DURABLE_URL=http://127.0.0.1:%d/ DURABLE_API_KEY=%s %s/cli/durable %s",
               server_port(), api_key, getenv("DURABLE_BUILD"), arguments);
}

static void way(int way_, const char *arguments) {
    if (way_ == 0) {
        durable(&said[0], url, "%s", arguments);
    } else {
        with_key(key, arguments);
    }
}

#define ARGUMENTS(text, format)                                                                    \
    char text[1024];                                                                               \
    va_list list;                                                                                  \
    va_start(list, format);                                                                        \
    (void)vsnprintf(text, sizeof text, format, list);                                              \
    va_end(list)

/* One that has to work. */
static const char *ok(int way_, const char *format, ...) __attribute__((format(printf, 2, 3)));
static const char *ok(int way_, const char *format, ...) {
    ARGUMENTS(text, format);
    way(way_, text);
    if (said[way_].status != 0 || said[way_].err[0] != '\0') {
        fail_msg("%d: durable %s: %d, %s", way_, text, said[way_].status, said[way_].err);
    }
    return said[way_].out;
}

static void same(const char *arguments) {
    if (strcmp(said[0].out, said[1].out) != 0 || strcmp(said[0].err, said[1].err) != 0 ||
        said[0].status != said[1].status) {
        fail_msg("durable %s\nover SQL: %d\n%s%s\nthrough the server: %d\n%s%s", arguments,
                 said[0].status, said[0].out, said[0].err, said[1].status, said[1].out,
                 said[1].err);
    }
}

/* One that changes nothing says the same both ways, whatever it says. */
static void both(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void both(const char *format, ...) {
    ARGUMENTS(text, format);
    way(0, text);
    way(1, text);
    same(text);
}

/* Each id becomes I, each number 0: what differs from one run to the next. */
static void mask(char *text) {
    char *out = text;
    while (*text != '\0') {
        char end = text[strnlen(text, 36) < 36 ? 0 : 36];
        bool id = strnlen(text, 36) == 36 && text[8] == '-' && text[13] == '-' && text[23] == '-' &&
                  isxdigit((unsigned char)text[0]) && !isxdigit((unsigned char)end);
        if (id) {
            text += 36;
            *out++ = 'I';
        } else if (isdigit((unsigned char)*text)) {
            text += strspn(text, "0123456789");
            *out++ = '0';
        } else {
            *out++ = *text++;
        }
    }
    *out = '\0';
}

/* One that changes something is said once each way, about `%s`: other things, of the same kind. Of
 * JSON the fields are the same; the server may print them in another order. */
static void twins(const char *format, const char *one, const char *other) {
    char text[512];
    (void)snprintf(text, sizeof text, format, one);
    (void)ok(0, "%s", text);
    (void)snprintf(text, sizeof text, format, other);
    (void)ok(1, "%s", text);
    mask(said[0].out);
    mask(said[1].out);
    json_object *json[2] = { json_tokener_parse(said[0].out), json_tokener_parse(said[1].out) };
    if (json[0] == NULL || json_object_equal(json[0], json[1]) == 0) {
        same(format);
    }
    json_object_put(json[0]);
    json_object_put(json[1]);
}

static const char *field(int way_, const char *path) {
    static json_object *kept[2];
    json_object *value = NULL;
    json_object_put(kept[way_]);
    kept[way_] = json_tokener_parse(said[way_].out);
    if (kept[way_] == NULL || json_pointer_get(kept[way_], path, &value) != 0) {
        fail_msg("no %s in %s", path, said[way_].out);
    }
    return value == NULL ? "null" : json_object_get_string(value);
}

static const char *start_id(int way_, const char *arguments) {
    (void)ok(way_, "start %s", arguments);
    assert_int_equal(strlen(said[way_].out), 37);
    said[way_].out[36] = '\0';
    return strdup(said[way_].out);
}

static void looking_says_the_same(void **state) {
    (void)state;
    const char *done = start_id(0, "noop '{\"n\": 1.10}' --wait 20s | sed -n 's/^run *//p'");
    way(1, "start fails-permanently --tag a=b --wait 20s");
    const char *failed =
        strdup(sql_text(conn, "select id from durable.runs where job = 'fails-permanently'"));
    const char *waits = start_id(1, "waits --key w --queue q");
    const char *later = start_id(0, "nobody '\"a\\u0007\\\"ü\"' --at 2030-01-01T00:00:00Z");
    wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", waits);
    const char *const ids[] = { done, failed, waits, later };
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        both("run %s", ids[i]);
        assert_non_null(strstr(said[0].out, "└"));
        both("run %s --json", ids[i]);
        assert_string_equal(field(0, "/timeline/0/kind"), "started");
        assert_string_equal(field(0, "/id"), ids[i]);
    }
    both("run %s", done);
    assert_non_null(strstr(said[1].out, "payload  {\"n\": 1.10}\n"));
    both("run %s", later);
    assert_non_null(strstr(said[1].out, "payload  \"a\\u0007\\\"ü\"\n"));
    both("runs");
    assert_non_null(strstr(said[0].out, failed));
    both("runs --json");
    assert_string_equal(field(1, "/nextCursor"), "null");
    both("runs --status waiting --queue q --job waits --limit 1");
    assert_non_null(strstr(said[1].out, waits));
    assert_null(strstr(said[1].out, done));
    both("runs --limit 2 --json");
    assert_string_equal(field(1, "/nextCursor"), field(0, "/runs/1/id"));
    both("workers");
    assert_non_null(strstr(said[1].out, "alive"));
    both("queues");
    assert_non_null(strstr(said[1].out, "OLDEST"));
    both("endpoints");
    both("endpoints --json");
}

/* More than a server gives in a page. */
static void long_lists_come_whole(void **state) {
    (void)state;
    sql(conn, "select durable.start_many('listed', array_fill('{}'::jsonb, array[450]))");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(atoi(ok(i, "runs --job listed --limit 1000 | sort -u | wc -l")), 451);
        assert_int_equal(atoi(ok(i, "runs --job listed --limit 401 | sort -u | wc -l")), 402);
    }
    const char *id = strdup(sql_text(conn, "select durable.start('nobody')"));
    sql(conn,
        "insert into durable_internal.log (run_id, attempt, at, level, message) select '%s', 1, "
        "now() - n * interval '1 ms', 'info', 'line ' || n from generate_series(1, 2500) as n",
        id);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(atoi(ok(i, "run %s | grep -o 'line [0-9]*' | sort -u | wc -l", id)), 2500);
    }
}

static void starts_and_events_say_the_same(void **state) {
    (void)state;
    twins("start nobody '{\"a\": [1, null, \"x\"]}' --key '%s'", "k-1", "k-2");
    twins("start nobody '{\"a\": [1, null, \"x\"]}' --key '%s' --json", "k-1", "k-2");
    assert_string_equal(field(1, "/created"), "false");
    twins("event go '{\"n\": 1}' --correlation-key c --key '%s'", "k-1", "k-2");
    twins("event go '{\"n\": 1}' --correlation-key c --key '%s' --json", "k-1", "k-2");
    assert_string_equal(field(1, "/created"), "false");
    for (int i = 0; i < 2; i++) {
        way(i, "start nobody '{\"a\": 2}' --key k-1");
        assert_int_equal(said[i].status, 3);
        way(i, "event go '{\"n\": 2}' --key k-1");
        assert_int_equal(said[i].status, 3);
    }
}

/* The server prints a new run itself. */
static void a_new_run_is_shown_the_same(void **state) {
    (void)state;
    twins(
        "start nobody '{\"n\": 1.50}' --key new-%s --ttl 1h30m --restart --queue mail --priority 7 "
        "--max-attempts 2 --timeout 2h --tag team=a --tag 'kind=b \"c\"' --concurrency-key c --at "
        "2030-01-01T00:00:00.250+02:00 --json",
        "1", "2");
    assert_string_equal(field(1, "/waitingFor/kind"), "time");
    assert_string_equal(field(1, "/tags/kind"), "b \"c\"");
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.run where idempotency_key in "
                      "('new-1', 'new-2') and idempotency_expires_at - created_at = interval '90 "
                      "min' and timeout = interval '2 hours' and payload = "
                      "'{\"n\": 1.50}' and options = '{\"onTerminal\": \"restart\"}'"),
        2);
}

static void control_says_the_same(void **state) {
    const char *one[2], *other[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        one[i] = strdup(sql_text(conn, "select durable.start('nobody')"));
        other[i] = strdup(sql_text(conn, "select durable.start('nobody')"));
    }
    twins("cancel %s --reason 'not now'", one[0], one[1]);
    assert_string_equal(said[1].out, "cancelled\n");
    twins("cancel %s --reason 'not now' --json", other[0], other[1]);
    assert_string_equal(field(1, "/error/message"), "not now");
    both("cancel %s", one[0]);
    assert_int_equal(said[1].status, 7);
    twins("retry %s", one[0], one[1]);
    assert_string_equal(said[1].out, "it goes on\n");
    twins("retry %s --max-attempts 3 --json", other[0], other[1]);
    assert_string_equal(field(1, "/status"), "queued");
    both("retry %s", one[0]);
    assert_int_equal(said[1].status, 7);
}

static void queues_say_the_same(void **state) {
    (void)state;
    twins("queues pause '%s'", "q-1", "q-2");
    assert_non_null(strstr(said[1].out, "yes"));
    twins("queues pause '%s' --json", "q-1", "q-2");
    assert_string_equal(field(1, "/paused"), "true");
    twins("queues set '%s' --max-attempts 3 --backoff '{\"initial\": \"2s\", \"jitter\": 0.10}' "
          "--dead-letter-queue dead --json",
          "q-1", "q-2");
    assert_string_equal(field(1, "/maxAttempts"), "0");
    twins("queues set '%s' --dead-letter-queue dead", "q-1", "q-2");
    twins("queues resume '%s' --json", "q-1", "q-2");
    assert_string_equal(field(1, "/paused"), "false");
    (void)ok(1, "queues pause ..");
    (void)ok(1, "queues pause a/../b");
    assert_int_equal(sql_int(conn, "select count(*) from durable.queues where paused and name in "
                                   "('..', 'a/../b')"),
                     2);
    both("queues set q-1 --rate-limit 5 --rate-period 1m --fair-by tag:x --weights '{\"a\": 2}'");
    assert_int_equal(said[1].status, 7);
    assert_non_null(strstr(said[1].err, "is not available yet"));
    both("queues --json | sed 's/\"oldestAgeMs\": [0-9]*//g'"); /* it grows */
}

/* Keys and values of all kinds: what is not a name has to be said to a server in its path. */
static void state_says_the_same(void **state) {
    static const char *const pairs[][2] = { { "k-1", "k-2" },
                                            { "../1", "../2" },
                                            { "?a=b&c%2F#ü 1", "?a=b&c%2F#ü 2" } };
    char digits[512];
    (void)state;
    (void)memset(digits, '7', 400);
    digits[400] = '\0';
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const char *one = pairs[i][0], *other = pairs[i][1];
        char set[600];
        (void)snprintf(set, sizeof set, "state set '%%s' '{\"n\": 1.10, \"m\": %s}' --if-version 0",
                       digits);
        twins(set, one, other);
        twins("state set '%s' '[1.10]' --expires-at 2030-01-01T00:00:00+02:00 --json", "at-1",
              "at-2");
        both("state get '%s'", one);
        both("state get '%s' --json", other);
        assert_non_null(strstr(said[1].out, digits));
        assert_non_null(strstr(said[1].out, "1.10"));
        twins("state delete '%s' --json", one, other);
        both("state get '%s'", one);
        assert_int_equal(said[1].status, 4);
        both("state delete '%s'", one);
        assert_int_equal(said[1].status, 4);
        twins("state increment '%s' -7", one, other);
        twins("state increment '%s' --json", one, other);
        assert_int_equal(atoi(ok(0, "state get '%s'", one)), -6);
        assert_int_equal(atoi(ok(1, "state get '%s'", other)), -6);
        twins("state delete '%s'", one, other);
        twins("state lock '%s' 'me & you' 1m --json", one, other);
        twins("state lock '%s' 'me & you' 1m", one, other);
        both("state lock '%s' you 1m", other);
        assert_int_equal(said[1].status, 7);
        both("state unlock '%s' you", one);
        assert_int_equal(said[1].status, 7);
        twins("state unlock '%s' 'me & you'", one, other);
    }
    (void)ok(1, "state set .. 5");
    assert_string_equal(ok(0, "state get .."), "5\n");
    for (int i = 0; i < 2; i++) {
        (void)ok(i, "state set null-%d null", i);
        assert_string_equal(ok(i, "state get null-%d", i), "null\n");
        way(i, "state set null-0 1 --if-version 1");
        assert_int_equal(said[i].status, 7);
    }
}

/* The end of a run decides the exit status. */
static void a_start_waits_for_the_end(void **state) {
    PGconn *other = connect_to(url);
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_non_null(strstr(ok(i, "start noop --wait 20s"), "status   completed\n"));
        (void)ok(i, "start noop --wait 20s --json");
        assert_string_equal(field(i, "/status"), "completed");
        way(i, "start fails-permanently --wait 20s");
        assert_int_equal(said[i].status, 10);
        assert_non_null(strstr(said[i].out, "status   failed\n"));
        way(i, "start nobody --wait 300ms");
        assert_int_equal(said[i].status, 9);
        assert_non_null(strstr(said[i].err, "has not ended: it is queued"));
        char text[256];
        (void)snprintf(text, sizeof text,
                       "do $$ begin while not exists (select from durable.runs where "
                       "idempotency_key = 'wait-%d') loop perform pg_sleep(0.1); end loop; perform "
                       "durable.cancel(r.id) from durable.runs r where r.idempotency_key = "
                       "'wait-%d'; end $$",
                       i, i);
        assert_int_equal(PQsendQuery(other, text), 1);
        (void)snprintf(text, sizeof text, "start nobody --key wait-%d --wait 20s", i);
        way(i, text);
        assert_int_equal(said[i].status, 11);
        assert_non_null(strstr(said[i].out, "status   cancelled\n"));
        for (PGresult *result = PQgetResult(other); result != NULL; result = PQgetResult(other)) {
            PQclear(result);
        }
    }
    PQfinish(other);
}

static void what_is_wrong_has_the_same_status(void **state) {
    static const struct {
        const char *arguments;
        int status;
        const char *named;
    } rows[] = {
        { "start 'a b'", 2, "job 'a b'" },
        { "start a '{x'", 2, "PAYLOAD, at byte 1" },
        { "start a --ttl soon --key k", 2, "--ttl 'soon'" },
        { "start a --at soon", 2, "--at 'soon'" },
        { "start a --tag x", 2, "--tag x" },
        { "start a --key ''", 2, "0 bytes" },
        { "start a --queue 'a b'", 2, "'a b'" },
        { "event 'a b'", 2, "name 'a b'" },
        { "event a --correlation-key ''", 2, "0 bytes" },
        { "event a '{\"a\":}'", 2, "PAYLOAD" },
        { "run xyz", 2, "ID 'xyz'" },
        { "run 01900000-0000-7000-8000-000000000000", 4, "durable runs" },
        { "cancel 01900000-0000-7000-8000-000000000000", 4, "01900000" },
        { "retry 01900000-0000-7000-8000-000000000000", 4, "01900000" },
        { "queues pause 'a b'", 2, "NAME 'a b'" },
        { "queues set a --backoff '{\"initial\": 5}'", 2, "backoff" },
        { "state get nothing", 4, "the key is absent" },
        { "state get ''", 2, "key is 0 bytes" },
        { "state set k 1 --expires-at soon", 2, "--expires-at 'soon'" },
        { "state set k 1 --if-version 7", 7, "'k' is absent" },
        { "state set k 1 --if-version -1", 2, "-1" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int w = 0; w < 2; w++) {
            way(w, rows[i].arguments);
            if (said[w].status != rows[i].status || strstr(said[w].err, rows[i].named) == NULL) {
                fail_msg("%d: durable %s: %d, %s", w, rows[i].arguments, said[w].status,
                         said[w].err);
            }
            assert_string_equal(said[w].out, "");
            assert_ptr_equal(strchr(said[w].err, '\n'), strrchr(said[w].err, '\n'));
        }
    }
}

static void a_key_does_what_its_scopes_say(void **state) {
    (void)state;
    const char *id = strdup(sql_text(conn, "select durable.start('nobody', '\"canary\"')"));
    const char *looks = key_new(conn, "default", "read");
    char text[128];
    sql(conn, "select durable.state_set('secret', '\"canary\"')");
    (void)snprintf(text, sizeof text, "run %s", id);
    with_key(looks, text);
    assert_int_equal(said[1].status, 0);
    assert_non_null(strstr(said[1].out, id));
    assert_null(strstr(said[1].out, "payload"));
    with_key(looks, "state get secret");
    assert_int_equal(said[1].status, 7);
    assert_non_null(strstr(said[1].err, "scope payloads"));
    with_key(looks, "start nobody");
    assert_int_equal(said[1].status, 7);
    assert_non_null(strstr(said[1].err, "scope"));
    with_key(key_new(conn, "elsewhere", "read,payloads"), text);
    assert_int_equal(said[1].status, 4);
}

/* A flag wins over the environment; there, the database wins. */
static void where_to_work_is_chosen(void **state) {
    const char *program = getenv("DURABLE_BUILD");
    char here[64], nowhere[64];
    (void)state;
    (void)snprintf(here, sizeof here, "http://127.0.0.1:%d", server_port());
    (void)snprintf(nowhere, sizeof nowhere, "http://127.0.0.1:%d", free_port());
    shell_said(&said[0], "DURABLE_DATABASE_URL='%s' DURABLE_URL=%s %s/cli/durable runs", url,
               nowhere, program);
    assert_int_equal(said[0].status, 0);
    shell_said(&said[0],
               "DURABLE_DATABASE_URL=nonsense=1 %s/cli/durable runs --url %s --api-key %s", program,
               here, key);
    assert_int_equal(said[0].status, 0);
    shell_said(&said[0], "DURABLE_URL=%s %s/cli/durable runs --database-url '%s'", nowhere, program,
               url);
    assert_int_equal(said[0].status, 0);
    shell_said(&said[0], "%s/cli/durable runs --database-url '%s' --url %s", program, url, here);
    assert_int_equal(said[0].status, 2);
    assert_non_null(strstr(said[0].err, "--url and --database-url together"));
}

/* Each command says what to set, or to look at. */
static void without_a_server_that_lets_it_in_it_says_what_to_do(void **state) {
    static const char *const commands[] = { "start a",
                                            "event a",
                                            "runs",
                                            "queues",
                                            "queues set a",
                                            "queues pause a",
                                            "workers",
                                            "endpoints",
                                            "state get a",
                                            "state lock a b 1s",
                                            "run 01900000-0000-7000-8000-000000000000",
                                            "cancel 01900000-0000-7000-8000-000000000000",
                                            "retry 01900000-0000-7000-8000-000000000000" };
    const char *program = getenv("DURABLE_BUILD");
    int nowhere = free_port();
    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        shell_said(&said[0], "%s/cli/durable %s", program, commands[i]);
        assert_int_equal(said[0].status, 2);
        assert_non_null(strstr(said[0].err, "DURABLE_DATABASE_URL, or DURABLE_URL"));
        shell_said(&said[0], "%s/cli/durable %s --url http://127.0.0.1:%d", program, commands[i],
                   server_port());
        assert_int_equal(said[0].status, 2);
        assert_non_null(strstr(said[0].err, "DURABLE_API_KEY"));
        with_key("dj_wrong", commands[i]);
        assert_int_equal(said[1].status, 7);
        assert_non_null(strstr(said[1].err, "DURABLE_API_KEY"));
        shell_said(&said[0], "DURABLE_API_KEY=x DURABLE_URL=http://127.0.0.1:%d %s/cli/durable %s",
                   nowhere, program, commands[i]);
        assert_int_equal(said[0].status, 8);
        assert_non_null(strstr(said[0].err, "is durable-server up there? DURABLE_URL"));
        assert_ptr_equal(strchr(said[0].err, '\n'), strrchr(said[0].err, '\n')); /* one line */
    }
    with_key(key, "keys list");
    assert_int_equal(said[1].status, 2);
    assert_non_null(strstr(said[1].err, "DURABLE_DATABASE_URL or --database-url names"));
}

/* The roles that are made for callers are enough. */
static void a_client_and_a_reader_need_no_more_than_their_role(void **state) {
    static const struct {
        const char *arguments;
        bool reads;
    } rows[] = {
        { "runs --json", true },
        { "run %s", true },
        { "queues", true },
        { "workers", true },
        { "endpoints", true },
        { "start a --json", false },
        { "start noop --wait 20s", false },
        { "event a", false },
        { "cancel %s", false },
        { "retry %s", false },
        { "queues pause role", false },
        { "queues set role --max-attempts 2", false },
        { "state set role 1", false },
        { "state get role", false },
        { "state increment role", false },
        { "state lock role me 1m", false },
        { "state unlock role me", false },
        { "state delete role", false },
    };
    const char *id = strdup(sql_text(conn, "select durable.start('nobody')"));
    (void)state;
    for (int reader = 0; reader < 2; reader++) {
        char role[48], login[256], text[128];
        (void)snprintf(role, sizeof role, "ways_%d_%d", PQbackendPID(conn), reader);
        sql(conn, "create role %s login in role %s", role,
            reader == 0 ? "durable_client" : "durable_read");
        (void)snprintf(login, sizeof login, "%s?user=%s", url, role);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            bool may = reader == 0 || rows[i].reads;
            (void)snprintf(text, sizeof text, rows[i].arguments, id);
            durable(&said[0], login, "%s", text);
            if (said[0].status != (may ? 0 : 7)) {
                fail_msg("%s: durable %s: %d, %s", role, text, said[0].status, said[0].err);
            }
        }
        sql(conn, "drop role %s", role);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looking_says_the_same),
        cmocka_unit_test(long_lists_come_whole),
        cmocka_unit_test(starts_and_events_say_the_same),
        cmocka_unit_test(a_new_run_is_shown_the_same),
        cmocka_unit_test(control_says_the_same),
        cmocka_unit_test(queues_say_the_same),
        cmocka_unit_test(state_says_the_same),
        cmocka_unit_test(a_start_waits_for_the_end),
        cmocka_unit_test(what_is_wrong_has_the_same_status),
        cmocka_unit_test(a_key_does_what_its_scopes_say),
        cmocka_unit_test(where_to_work_is_chosen),
        cmocka_unit_test(without_a_server_that_lets_it_in_it_says_what_to_do),
        cmocka_unit_test(a_client_and_a_reader_need_no_more_than_their_role),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
