/* durable endpoints: over SQL and through durable-server, both with the same words and JSON. The
 * endpoint is a real one (endpoint.py), and checks signatures. */
#include "../server/http.h"

#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char *url, *admin;
static PGconn *conn;
static pid_t endpoint, server;
static int port;
static struct said said;
static char target[64];

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    endpoint = spawn_endpoint(conn, &port);
    server = server_start(url, /* ready= */ true, NULL);
    admin = key_new(conn, "default", "admin");
    (void)snprintf(target, sizeof target, "http://127.0.0.1:%d/", port);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    (void)end_process(server, SIGTERM);
    (void)end_process(endpoint, SIGTERM);
    return 0;
}

/* The ways in: 0 over SQL, 1 through the server. */
static void endpoints(int way, const char *arguments) {
    if (way == 0) {
        durable(&said, url, "endpoints %s", arguments);
    } else {
        shell_said(&said,
                   "DURABLE_URL=http://127.0.0.1:%d/ DURABLE_API_KEY=%s %s/cli/durable "
                   "endpoints %s",
                   server_port(), admin, getenv("DURABLE_BUILD"), arguments);
    }
}

static void endpoints_ok(int way, const char *arguments) {
    endpoints(way, arguments);
    if (said.status != 0 || said.err[0] != '\0') {
        fail_msg("endpoints %s: %d, %s", arguments, said.status, said.err);
    }
}

static const char *field(const char *path) {
    static json_object *kept;
    json_object *value = NULL;
    json_object_put(kept);
    kept = json_tokener_parse(said.out);
    if (kept == NULL || json_pointer_get(kept, path, &value) != 0) {
        fail_msg("no %s in %s", path, said.out);
    }
    return value == NULL ? "null" : json_object_get_string(value);
}

/* endpoint.py knows the secret with which it was registered, and calls are signed with all that
 * hold: so a look succeeds after a rotation too. */
static void an_endpoint_is_listed_synced_and_steered(void **state) {
    (void)state;
    for (int way = 0; way < 2; way++) {
        endpoints_ok(way, "sync test --json");
        assert_string_equal(field("/status"), "well");
        assert_non_null(strstr(field("/jobs"), "\"echo\""));
        endpoints_ok(way, "rotate-secret test");
        assert_memory_equal(said.out, "whsec_", 6);
        assert_int_equal(strlen(said.out), 51); /* alone in its line */
        endpoints_ok(way, "sync test");
        assert_non_null(strstr(said.out, "well"));
        endpoints_ok(way, "pause test --json");
        assert_string_equal(field("/status"), "paused");
        endpoints_ok(way, "list");
        assert_memory_equal(said.out, "NAME  URL", 9);
        assert_non_null(strstr(said.out, "paused"));
        assert_non_null(strstr(said.out, "echo"));
        endpoints_ok(way, "resume test");
        sql(conn, "update durable_internal.endpoint set rest_until = now() + interval '1 hour', "
                  "last_error = 'refused'");
        endpoints_ok(way, "");
        assert_non_null(strstr(said.out, "resting until 20"));
        assert_non_null(strstr(said.out, "  refused\n"));
        endpoints_ok(way, "--json");
        assert_string_equal(field("/endpoints/0/name"), "test");
        assert_string_equal(field("/endpoints/0/concurrency"), "200");
        assert_string_equal(field("/nextCursor"), "null");
    }
}

static void an_endpoint_is_added_and_removed(void **state) {
    char arguments[256];
    (void)state;
    for (int way = 0; way < 2; way++) {
        (void)snprintf(arguments, sizeof arguments,
                       "add a/b http://127.0.0.1:%d/ --allow-private --concurrency 7 --timeout 1m",
                       free_port());
        endpoints(way, arguments);
        assert_int_equal(said.status, 0);
        assert_memory_equal(said.out, "whsec_", 6);
        assert_non_null(strstr(said.err, "its jobs are not known yet"));
        assert_non_null(strstr(said.err, "durable endpoints sync a/b"));
        assert_string_equal(sql_text(conn, "select concat_ws(' ', concurrency, timeout, "
                                           "allow_private) from durable.endpoints where name = "
                                           "'a/b'"),
                            "7 00:01:00 t");
        endpoints(way, "sync a/b");
        assert_int_equal(said.status, 8);
        assert_string_equal(said.out, "");
        endpoints(way, "sync a/b --json");
        assert_int_equal(said.status, 8);
        assert_non_null(strstr(field("/syncError"), "connect"));
        (void)snprintf(arguments, sizeof arguments, "add a/b %s --allow-private --json", target);
        endpoints(way, arguments); /* of another name, its secret is not endpoint.py's */
        assert_int_equal(said.status, 0);
        assert_memory_equal(field("/secret"), "whsec_", 6);
        assert_non_null(strstr(field("/syncError"), "answered 401"));
        endpoints_ok(way, "remove a/b");
        assert_string_equal(said.out, "removed\n");
        endpoints(way, "remove a/b");
        assert_int_equal(said.status, 4);
        assert_non_null(strstr(said.err, "'a/b' is not there"));
    }
}

static void an_address_that_is_not_public_has_to_be_allowed(void **state) {
    char arguments[128];
    (void)state;
    (void)snprintf(arguments, sizeof arguments, "add inner %s --json", target);
    endpoints(0, arguments);
    assert_int_equal(said.status, 0);
    assert_non_null(strstr(field("/syncError"), "only with allowPrivate"));
    endpoints_ok(0, "remove inner --json");
    assert_string_equal(field("/name"), "inner");
}

static void what_is_wrong_is_named(void **state) {
    static const struct {
        const char *arguments;
        int status;
        const char *named;
    } rows[] = {
        { "stop x", 2, "'stop'" },
        { "add x", 2, "add NAME URL" },
        { "list x", 2, "'list'" },
        { "sync", 2, "sync NAME" },
        { "sync 'a b'", 2, "NAME 'a b'" },
        { "sync nothing", 4, "'nothing' is not there" },
        { "pause nothing", 4, "'nothing' is not there" },
        { "rotate-secret nothing", 4, "'nothing' is not there" },
        { "add x ftp://y", 2, "'ftp://y'" },
        { "add x http://y --timeout soon", 2, "--timeout 'soon'" },
        { "add x http://y --concurrency 0", 2, "--concurrency" },
        { "add x http://y z", 2, "too many" },
    };
    (void)state;
    for (int way = 0; way < 2; way++) {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            endpoints(way, rows[i].arguments);
            if (said.status != rows[i].status || strstr(said.err, rows[i].named) == NULL) {
                fail_msg("endpoints %s: %d, %s", rows[i].arguments, said.status, said.err);
            }
            assert_string_equal(said.out, "");
            assert_ptr_equal(strchr(said.err, '\n'), strrchr(said.err, '\n')); /* one line */
        }
    }
    assert_int_equal(sql_int(conn, "select count(*) from durable.endpoints"), 1);
}

static void without_a_way_in_it_says_what_to_set(void **state) {
    const char *program = getenv("DURABLE_BUILD");
    (void)state;
    shell_said(&said, "%s/cli/durable endpoints", program);
    assert_int_equal(said.status, 2);
    assert_non_null(strstr(said.err, "DURABLE_DATABASE_URL"));
    assert_non_null(strstr(said.err, "DURABLE_API_KEY"));
    shell_said(&said, "DURABLE_URL=http://127.0.0.1:%d %s/cli/durable endpoints", server_port(),
               program);
    assert_int_equal(said.status, 2);
    assert_non_null(strstr(said.err, "durable keys create"));
    shell_said(&said,
               "DURABLE_URL=http://127.0.0.1:%d DURABLE_API_KEY=dj_x %s/cli/durable "
               "endpoints",
               server_port(), program);
    assert_int_equal(said.status, 7);
    assert_non_null(strstr(said.err, "durable keys create"));
    shell_said(&said, "DURABLE_API_KEY=x %s/cli/durable endpoints --url http://127.0.0.1:%d",
               program, free_port());
    assert_int_equal(said.status, 8);
    assert_non_null(strstr(said.err, "is durable-server up there"));
    shell_said(&said, "DURABLE_API_KEY=x %s/cli/durable endpoints --url http://127.0.0.1:%d",
               program, port); /* not durable-server */
    assert_non_null(strstr(said.err, "not as durable-server does"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_endpoint_is_listed_synced_and_steered),
        cmocka_unit_test(an_endpoint_is_added_and_removed),
        cmocka_unit_test(an_address_that_is_not_public_has_to_be_allowed),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(without_a_way_in_it_says_what_to_set),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
