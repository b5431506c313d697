/* The commands of `durable`: what they print, as text and as JSON, and how they refuse. */
#include "support.h"

#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char *url;
static PGconn *conn;
static struct said said;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    return 0;
}

#define DURABLE_OK(...)                                                                            \
    do {                                                                                           \
        durable(&said, url, __VA_ARGS__);                                                          \
        if (said.status != 0) {                                                                    \
            fail_msg("%s: %d, %s", #__VA_ARGS__, said.status, said.err);                           \
        }                                                                                          \
        assert_string_equal(said.err, "");                                                         \
    } while (0)

/* The text of a field of what was printed, by a path such as "/runs/0/status"; the test fails where
 * it is not JSON or the field is not there. */
static const char *field(const char *path) {
    static json_object *kept;
    json_object *value;
    json_object_put(kept);
    kept = json_tokener_parse(said.out);
    if (kept == NULL) {
        fail_msg("not JSON: %s", said.out);
    }
    if (json_pointer_get(kept, path, &value) != 0) {
        fail_msg("no %s in %s", path, said.out);
    }
    return value == NULL ? "null" : json_object_get_string(value);
}

/* The id that a start or an event printed, alone in its line. */
static const char *printed_id(void) {
    assert_int_equal(strlen(said.out), 37);
    said.out[36] = '\0';
    return said.out;
}

static void a_start_prints_the_runs_id_and_its_key_finds_it_again(void **state) {
    char id[40];
    (void)state;
    DURABLE_OK("start greet '{\"to\": \"Ada\"}' --key k --queue mail --priority 7 --max-attempts 2 "
               "--ttl 1h --timeout 2h --tag team=a --tag kind=b --concurrency-key c --at "
               "2020-01-01T00:00:00Z");
    (void)snprintf(id, sizeof id, "%s", printed_id());
    assert_string_equal(
        sql_text(conn,
                 "select concat_ws(' ', job, payload, queue, priority, max_attempts, "
                 "tags, concurrency_key, status) from durable.runs where id = '%s'",
                 id),
        "greet {\"to\": \"Ada\"} mail 7 2 {\"kind\": \"b\", \"team\": \"a\"} c queued");
    DURABLE_OK("start greet '{\"to\": \"Ada\"}' --key k --queue mail");
    assert_string_equal(printed_id(), id);
    DURABLE_OK("start greet '{\"to\": \"Ada\"}' --key k --json");
    assert_string_equal(field("/id"), id);
    assert_string_equal(field("/created"), "false");
    assert_string_equal(field("/payload/to"), "Ada");
    assert_string_equal(field("/idempotencyKey"), "k");
}

static void a_run_is_shown_with_its_timeline(void **state) {
    pid_t scheduler = spawn_scheduler(url), worker = spawn_worker(url, NULL);
    char id[40];
    (void)state;
    DURABLE_OK("start waits");
    (void)snprintf(id, sizeof id, "%s", printed_id());
    wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", id);
    DURABLE_OK("run %s", id);
    assert_non_null(strstr(said.out, "status   waiting\n"));
    assert_non_null(strstr(said.out, "why      "));
    DURABLE_OK("event go '{\"n\": 1}'");
    assert_string_equal(printed_id(), sql_text(conn, "select id from durable.events"));
    wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'", id);
    DURABLE_OK("run %s", id);
    assert_non_null(strstr(said.out, "status   completed\n"));
    const char *step = strstr(said.out, "step          before");
    const char *event = strstr(said.out, "event");
    const char *end = strstr(said.out, "└");
    assert_true(step != NULL && event != NULL && end != NULL && step < event && event < end);
    assert_non_null(strstr(end, "completed"));
    DURABLE_OK("run %s --json", id);
    assert_string_equal(field("/status"), "completed");
    assert_string_equal(field("/result/payload/n"), "1");
    assert_string_equal(field("/timeline/0/kind"), "started");
    DURABLE_OK("start noop --wait 20s --json");
    assert_string_equal(field("/status"), "completed");
    durable(&said, url, "start fails-permanently --wait 20s");
    assert_int_equal(said.status, 10); /* how the run ended */
    assert_non_null(strstr(said.out, "status   failed\n"));
    DURABLE_OK("workers --json");
    assert_string_equal(field("/workers/0/status"), "alive");
    DURABLE_OK("workers");
    assert_non_null(strstr(said.out, "alive"));
    (void)end_process(worker, SIGTERM);
    (void)end_process(scheduler, SIGTERM);
}

static void runs_are_listed_newest_first_and_by_what_is_asked(void **state) {
    (void)state;
    for (int n = 1; n <= 3; n++) {
        sql(conn, "select durable.start('listed', '{\"n\": %d}')", n);
        sleep_ms(2); /* an id's order is by the millisecond */
    }
    DURABLE_OK("runs --job listed --json");
    assert_string_equal(field("/runs/0/payload/n"), "3");
    assert_string_equal(field("/runs/2/payload/n"), "1");
    DURABLE_OK("runs --job listed --limit 1");
    assert_string_equal(strrchr(said.out, '\n'), "\n");
    int lines = 0;
    for (const char *at = said.out; *at != '\0'; at++) {
        lines += *at == '\n';
    }
    assert_int_equal(lines, 2); /* the heading, and one */
    DURABLE_OK("runs --status cancelled --json");
    assert_string_equal(field("/runs"), "[ ]");
    DURABLE_OK("runs --job listed --queue mail --json");
    assert_string_equal(field("/runs"), "[ ]");
}

static void a_run_is_cancelled_and_goes_on(void **state) {
    char id[40];
    (void)state;
    (void)snprintf(id, sizeof id, "%s", sql_text(conn, "select durable.start('nobody')"));
    DURABLE_OK("cancel %s --reason 'not now' --json", id);
    assert_string_equal(field("/status"), "cancelled");
    assert_string_equal(
        sql_text(conn, "select error ->> 'message' from durable.runs where id = '%s'", id),
        "not now");
    durable(&said, url, "cancel %s", id);
    assert_int_equal(said.status, 7);
    assert_non_null(strstr(said.err, "has ended; it cannot be cancelled"));
    DURABLE_OK("retry %s --json", id);
    assert_string_equal(field("/id"), id);
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        "queued");
}

static void a_queue_is_paused_and_resumed(void **state) {
    (void)state;
    sql(conn, "select durable.start('nobody', queue => 'slow')");
    DURABLE_OK("queues pause slow --json");
    assert_string_equal(field("/paused"), "true");
    assert_int_equal(sql_int(conn, "select paused from durable.queues where name = 'slow'"), 1);
    DURABLE_OK("queues");
    assert_non_null(strstr(said.out, "slow"));
    DURABLE_OK("queues set slow --max-attempts 3 --backoff '{\"initial\": \"2s\"}' "
               "--dead-letter-queue dead --json");
    assert_string_equal(field("/maxAttempts"), "3");
    assert_string_equal(field("/backoff/initial"), "2s");
    assert_string_equal(field("/deadLetterQueue"), "dead");
    DURABLE_OK("queues resume slow");
    assert_int_equal(sql_int(conn, "select paused from durable.queues where name = 'slow'"), 0);
}

static void state_is_set_got_incremented_locked_and_deleted(void **state) {
    char version[32];
    (void)state;
    DURABLE_OK("state set a '{\"n\": 1.10}' --if-version 0");
    (void)snprintf(version, sizeof version, "%.*s", (int)strcspn(said.out, "\n"), said.out);
    DURABLE_OK("state get a");
    assert_string_equal(said.out, "{\"n\": 1.10}\n");
    DURABLE_OK("state set a 5 --if-version %s --expires-at 2030-01-01T00:00:00Z --json", version);
    assert_string_equal(field("/key"), "a");
    (void)snprintf(version, sizeof version, "%s", field("/version"));
    DURABLE_OK("state get a --json");
    assert_string_equal(field("/value"), "5");
    assert_string_equal(field("/version"), version);
    assert_string_equal(field("/expiresAt"), "2030-01-01T00:00:00.000Z");
    DURABLE_OK("state increment a");
    assert_string_equal(said.out, "6\n");
    DURABLE_OK("state increment a -8 --json");
    assert_string_equal(field("/value"), "-2");
    DURABLE_OK("state lock a me 1m");
    durable(&said, url, "state lock a you 1m");
    assert_int_equal(said.status, 7);
    durable(&said, url, "state unlock a you");
    assert_int_equal(said.status, 7);
    DURABLE_OK("state unlock a me --json");
    assert_string_equal(field("/unlocked"), "true");
    DURABLE_OK("state delete a --json");
    assert_string_equal(field("/deleted"), "true");
    durable(&said, url, "state delete a");
    assert_int_equal(said.status, 4);
}

static void a_key_is_made_rotated_and_revoked(void **state) {
    char id[20], next[20];
    (void)state;
    DURABLE_OK("keys create ci --namespace acme --scopes read,start");
    assert_int_equal(strlen(said.out), 64); /* the key, alone in its line */
    (void)snprintf(id, sizeof id, "%.16s", said.out + 3);
    assert_string_equal(sql_text(conn, "select scopes from durable_internal.key_find('%s')", id),
                        "{read,start}");
    DURABLE_OK("keys rotate %s --overlap 1h --json", id);
    assert_string_equal(field("/replaces"), id);
    assert_int_equal(strlen(field("/key")), 63);
    (void)snprintf(next, sizeof next, "%s", field("/id"));
    DURABLE_OK("keys");
    assert_non_null(strstr(said.out, id));
    assert_non_null(strstr(said.out, next));
    DURABLE_OK("keys revoke %s", id);
    DURABLE_OK("keys revoke %s --json", next);
    assert_string_equal(field("/revoked"), "true");
    DURABLE_OK("keys list --json");
    assert_string_equal(field("/keys/0/namespace"), "acme");
    assert_string_equal(field("/keys/0/name"), "ci");
    assert_string_equal(field("/keys/0/status"), "revoked");
    assert_string_equal(field("/keys/0/replacedBy"), next);
    DURABLE_OK("keys create all --json");
    assert_string_equal(
        sql_text(conn, "select scopes from durable_internal.key_find('%s')", field("/id")),
        "{read,start,operate,admin,payloads}");
}

static void every_command_has_help(void **state) {
    static const char *const commands[] = { "dev",  "migrate", "start",     "event",      "run",
                                            "runs", "cancel",  "retry",     "queues",     "workers",
                                            "keys", "state",   "endpoints", "conformance" };
    (void)state;
    DURABLE_OK("--help");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        DURABLE_OK("--help");
        assert_non_null(strstr(said.out, commands[i]));
        DURABLE_OK("%s --help", commands[i]);
        assert_non_null(strstr(said.out, "Usage: durable "));
        assert_non_null(strstr(said.out, "--"));
    }
    DURABLE_OK("--version");
}

static void what_is_wrong_is_named_and_changes_nothing(void **state) {
    static const struct {
        const char *arguments;
        int status;
        const char *named;
    } rows[] = {
        { "nothing", 2, "'nothing'" },
        { "start", 2, "JOB" },
        { "start 'a b'", 2, "job 'a b'" },
        { "start a '{x'", 2, "PAYLOAD, at byte 1" },
        { "start a '[1e131071]'", 2, "PAYLOAD" },
        { "start a --ttl soon --key k", 2, "--ttl 'soon'" },
        { "start a --timeout -1s", 2, "--timeout" },
        { "start a --max-attempts 0", 2, "--max-attempts" },
        { "start a --priority many", 2, "--priority" },
        { "start a --at soon", 2, "soon" },
        { "start a --tag x", 2, "--tag x" },
        { "start a --what", 2, "--what" },
        { "start a '{}' more", 2, "too many" },
        { "start a --key ''", 2, "idempotency_key" },
        { "start a --wait soon", 2, "--wait 'soon'" },
        { "event 'a b'", 2, "name 'a b'" },
        { "event a '{\"a\":}'", 2, "PAYLOAD" },
        { "event a --correlation-key ''", 2, "correlation_key" },
        { "run xyz", 2, "ID 'xyz'" },
        { "run 01900000-0000-7000-8000-000000000000", 4, "durable runs" },
        { "cancel 01900000-0000-7000-8000-000000000000", 4, "01900000" },
        { "retry 01900000-0000-7000-8000-000000000000", 4, "01900000" },
        { "retry 01900000-0000-7000-8000-000000000000 --max-attempts 0", 2, "--max-attempts" },
        { "runs --status bad", 2, "--status bad" },
        { "runs --limit 0", 2, "--limit" },
        { "queues stop x", 2, "'stop'" },
        { "queues pause 'a b'", 2, "'a b'" },
        { "queues pause", 2, "pause NAME" },
        { "queues list x", 2, "'list'" },
        { "queues set a --max-attempts -1", 2, "--max-attempts" },
        { "queues set a --backoff x", 2, "--backoff, at byte 0" },
        { "queues set a --rate-period soon", 2, "--rate-period 'soon'" },
        { "queues set a --concurrency 5", 7, "not available yet" },
        { "workers extra", 2, "too many" },
        { "state", 2, "missing" },
        { "state get", 2, "missing" },
        { "state take k", 2, "'take'" },
        { "state set k", 2, "VALUE" },
        { "state get k 1", 2, "'get'" },
        { "state get nothing", 4, "the key is absent" },
        { "state delete nothing", 4, "the key is absent" },
        { "state get ''", 2, "key is 0 bytes" },
        { "state set k '{x'", 2, "VALUE, at byte 1" },
        { "state set k 1 --expires-at soon", 2, "soon" },
        { "state set k 1 --if-version 7", 7, "'k' is absent" },
        { "state set k 1 --if-version -1", 2, "if_version -1" },
        { "state set k 1 --if-version x", 2, "--if-version 'x'" },
        { "state lock k me", 2, "lock KEY OWNER TTL" },
        { "state lock k me soon", 2, "TTL 'soon'" },
        { "state unlock k", 2, "unlock KEY OWNER" },
        { "state unlock k me", 7, "does not hold the lock" },
        { "state increment k x", 2, "BY 'x'" },
        { "state increment k 9223372036854775808", 2, "BY '9223372036854775808'" },
        { "keys create", 2, "'create'" },
        { "keys list x", 2, "'list'" },
        { "keys burn x", 2, "'burn'" },
        { "keys create 'a b'", 2, "name 'a b'" },
        { "keys create a --scopes read,write", 2, "'write'" },
        { "keys create a --scopes ''", 2, "scopes is empty" },
        { "keys create a --namespace 'a b'", 2, "namespace 'a b'" },
        { "keys revoke xyz", 2, "key_id" },
        { "keys revoke AAAAAAAAAAAAAAAA", 4, "AAAAAAAAAAAAAAAA" },
        { "keys rotate AAAAAAAAAAAAAAAA", 4, "AAAAAAAAAAAAAAAA" },
        { "keys rotate AAAAAAAAAAAAAAAA --overlap soon", 2, "--overlap 'soon'" },
        { "runs --database-url postgresql://nobody@127.0.0.1:1/none", 8, "127.0.0.1" },
        { "runs --database-url 'nonsense=1'", 2, "postgresql://" },
    };
    const char *census = "select concat_ws(' ', (select count(*) from durable_internal.run), "
                         "(select count(*) from durable_internal.event), "
                         "(select count(*) from durable_internal.idempotency_key), "
                         "(select count(*) from durable_internal.api_key), "
                         "(select count(*) from durable_internal.state), "
                         "(select count(*) from durable_internal.queue where paused))";
    char before[64];
    (void)state;
    (void)snprintf(before, sizeof before, "%s", sql_text(conn, "%s", census));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        durable(&said, url, "%s", rows[i].arguments);
        if (said.status != rows[i].status || strstr(said.err, rows[i].named) == NULL) {
            fail_msg("durable %s: %d, %s", rows[i].arguments, said.status, said.err);
        }
        assert_string_equal(said.out, "");
        assert_ptr_equal(strchr(said.err, '\n'), strrchr(said.err, '\n')); /* one line */
    }
    assert_string_equal(sql_text(conn, "%s", census), before);
    durable(&said, "", "runs");
    assert_int_equal(said.status, 2);
    assert_non_null(strstr(said.err, "DURABLE_DATABASE_URL"));
}

/* Each command that needs a database says which setting names one, and how one is set up. */
static void without_a_good_database_it_says_what_to_do(void **state) {
    static const char *const commands[] = { "start a",
                                            "event a",
                                            "runs",
                                            "queues",
                                            "workers",
                                            "endpoints",
                                            "keys",
                                            "state get a",
                                            "keys list",
                                            "run 01900000-0000-7000-8000-000000000000",
                                            "cancel 01900000-0000-7000-8000-000000000000",
                                            "retry 01900000-0000-7000-8000-000000000000" };
    char bare[256];
    (void)state;
    sql(conn, "create database bare template template0");
    (void)snprintf(bare, sizeof bare, "%s", url);
    (void)snprintf(strrchr(bare, '/'), 8, "/bare");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        durable(&said, bare, "%s", commands[i]);
        assert_int_not_equal(said.status, 0);
        assert_non_null(strstr(said.err, "`durable migrate`"));
        durable(&said, "postgresql://nobody@127.0.0.1:1/none", "%s", commands[i]);
        assert_int_equal(said.status, 8);
        assert_non_null(strstr(said.err, "DURABLE_DATABASE_URL"));
        assert_ptr_equal(strchr(said.err, '\n'), strrchr(said.err, '\n')); /* one line */
    }
    sql(conn, "drop database bare");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_start_prints_the_runs_id_and_its_key_finds_it_again),
        cmocka_unit_test(a_run_is_shown_with_its_timeline),
        cmocka_unit_test(runs_are_listed_newest_first_and_by_what_is_asked),
        cmocka_unit_test(a_run_is_cancelled_and_goes_on),
        cmocka_unit_test(a_queue_is_paused_and_resumed),
        cmocka_unit_test(state_is_set_got_incremented_locked_and_deleted),
        cmocka_unit_test(a_key_is_made_rotated_and_revoked),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(what_is_wrong_is_named_and_changes_nothing),
        cmocka_unit_test(without_a_good_database_it_says_what_to_do),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
