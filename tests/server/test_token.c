/* Tokens of commits, and who may not use one: forged, cut, of another run, of a lease that ended,
 * of another installation. Each is refused, and nothing is changed. */
#include "http.h"
#include "lease.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPS                                                                                        \
    "[{\"op\":\"step\",\"name\":\"s\",\"result\":1},{\"op\":\"state\",\"name\":\"t\",\"action\":"  \
    "\"set\",\"key\":\"k\","                                                                       \
    "\"value\":1},{\"op\":\"send_event\",\"name\":\"u\",\"event\":\"e\"},{\"op\":\"log\","         \
    "\"level\":\"info\",\"message\":"                                                              \
    "\"m\"}]"

static const char *url;
static PGconn *conn;
static struct answer answer;
static pid_t server;
static struct commit_secret secret;
static const char *key;

/* Two runs in the hands of two workers, in their order. */
static struct lease_name leases[2];

static struct lease_name claimed_by(const char *worker) {
    return lease_of(
        conn,
        sql_text(conn, "select run_id from durable_internal.claim('%s', 1, 1000000)", worker));
}

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    key = key_new(conn, "default", "admin,payloads");
    secret = secret_of(conn);
    for (int i = 0; i < 2; i++) {
        const char *worker = strdup(worker_new(conn, "job"));
        sql(conn, "select durable.start('job')");
        leases[i] = claimed_by(worker);
    }
    server = server_start(url, /* ready= */ true, NULL);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    assert_int_equal(end_process(server, SIGTERM), 0);
    free(answer.body);
    return 0;
}

static const char *all_of_it(void) {
    return strdup(sql_text(
        conn,
        "select md5(concat((select json_agg(x) from durable.steps x), (select json_agg(x) from "
        "durable.events x), (select json_agg(x) from durable.logs x), (select json_agg(x) from "
        "durable_internal.state x), (select json_agg(x) from (select id, status, result from "
        "durable.runs order by id) as x)))"));
}

#define STEP(name) "{\"op\":\"step\",\"name\":\"" name "\",\"result\":1}"

/* Counts what was not refused as it should be: status and, in the answer, what has to be there. In
 * each of the ways that a commit goes: of one step, of several, and of other ops. */
static int refused(const char *name, const char *token, int status, const char *part) {
    static const char *const ways[] = { "[" STEP("v") "]", "[" STEP("w") "," STEP("x") "]", OPS };
    const char *before = all_of_it();
    int wrong = 0;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"%s\",\"ops\":%s}]}",
             token, ways[i]);
        bool right = answer.status == status && strstr(answer.body, part) != NULL;
        bool same = strcmp(before, all_of_it()) == 0;
        if (!right || !same) {
            print_error("%s: %s: %d%s: %s\n", name, ways[i], answer.status,
                        same ? "" : ", and something changed", answer.body);
            wrong++;
        }
    }
    call(&answer, "GET", "/v1/commit?ref=1", token, NULL);
    if (answer.status == 200) {
        print_error("%s: it reads what the run remembers: %s\n", name, answer.body);
        wrong++;
    }
    return wrong;
}

static void what_is_no_token_of_ours_is_refused(void **state) {
    struct commit_secret other = { .bytes = "another installation", .length = 20 },
                         shorter = secret;
    int wrong = 0;
    (void)state;
    char *token = strdup(token_of(&secret, &leases[0])), cut[128];
    static const char *const texts[] = {
        "",
        "x",
        "====",
        "null",
        "' or 1=1 --",
        "\\u00e9\\u00e9",
        "AAAA.",
        "dj_0000000000000000_0000000000000000000000000000000000000000000"
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        wrong += refused(texts[i], texts[i], 401, "unauthorized");
    }
    wrong += refused("an API key", key, 401, "unauthorized");
    wrong +=
        refused("another installation's secret", token_of(&other, &leases[0]), 401, "unauthorized");
    shorter.length--;
    wrong += refused("half a secret", token_of(&shorter, &leases[0]), 401, "unauthorized");
    for (size_t i = 0; i < strlen(token); i += 3) {
        (void)snprintf(cut, sizeof cut, "%.*s", (int)i, token);
        wrong += refused("a token that is cut", cut, 401, "unauthorized");
        (void)snprintf(cut, sizeof cut, "%s", token);
        cut[i] = cut[i] == 'A' ? 'B' : 'A';
        wrong += refused("a token with one letter changed", cut, 401, "unauthorized");
    }
    (void)snprintf(cut, sizeof cut, "%sA", token);
    wrong += refused("a token with something behind it", cut, 401, "unauthorized");
    call(&answer, "GET", "/v1/runs", token, NULL);
    assert_status(&answer, 401); /* nor is it a key */
    assert_int_equal(wrong, 0);
}

/* Signed by us, and all the same not that of a lease. */
static void a_token_of_what_is_no_lease_is_lost(void **state) {
    struct lease_name lease = leases[0];
    int wrong = 0;
    (void)state;
    lease.fence++;
    wrong += refused("a later fence", token_of(&secret, &lease), 200, "lease_lost");
    lease.fence -= 2;
    wrong += refused("an earlier fence", token_of(&secret, &lease), 200, "lease_lost");
    lease = leases[0];
    lease.run_id = leases[1].run_id;
    wrong += refused("another run's id", token_of(&secret, &lease), 200, "lease_lost");
    lease = leases[0];
    lease.worker_id = leases[1].worker_id;
    wrong += refused("another worker's id", token_of(&secret, &lease), 200, "lease_lost");
    lease.run_id = leases[1].run_id;
    wrong += refused("another worker's run", token_of(&secret, &lease), 200, "lease_lost");
    assert_int_equal(wrong, 0);
}

static void a_token_ends_with_its_lease(void **state) {
    char worker[40];
    int wrong = 0;
    (void)state;
    const char *token = token_of(&secret, &leases[1]);
    call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"%s\",\"ops\":" OPS "}]}",
         token);
    assert_status(&answer, 200);
    assert_non_null(strstr(answer.body, "leaseUntil")); /* it is a good one so far */
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps"), 3);
    (void)snprintf(worker, sizeof worker, "%s",
                   sql_text(conn, "select worker_id from durable_internal.lease where fence = %lld",
                            (long long)leases[1].fence));
    sql(conn, "select durable_internal.worker_leave('%s')", worker);
    wrong += refused("of a worker that left", token, 200, "lease_lost");
    struct lease_name next = claimed_by(strdup(worker_new(conn, "job")));
    assert_true(uuid_equal(&next.run_id, &leases[1].run_id) && next.fence != leases[1].fence);
    wrong += refused("of the lease before", token, 200, "lease_lost");
    const char *fresh = token_of(&secret, &next);
    call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"%s\",\"ops\":" OPS "}]}",
         fresh);
    assert_status(&answer, 200);
    assert_non_null(strstr(answer.body, "leaseUntil"));
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps"),
                     3); /* said again, it is the same */
    assert_int_equal(wrong, 0);
}

static int start_one(void **state) {
    (void)state;
    sql(conn, "select durable.start('job')");
    return 0;
}

static int heartbeat(const char *token) {
    call(&answer, "POST", "/v1/commit", NULL, "{\"commits\":[{\"token\":\"%s\"}]}", token);
    return answer.status;
}

/* The server hears of it: what was signed with the one before ends, what is with the new one does
 * not wait. */
static void a_new_secret_counts_at_once(void **state) {
    (void)state;
    struct lease_name lease = claimed_by(strdup(worker_new(conn, "job")));
    struct commit_secret before = secret;
    sql(conn, "select durable_internal.rotate_commit_secret()");
    secret = secret_of(conn);
    assert_true(memcmp(before.bytes, secret.bytes, secret.length) != 0);
    assert_int_equal(heartbeat(token_of(&secret, &lease)), 200);
    assert_non_null(strstr(answer.body, "leaseUntil"));
    assert_int_equal(heartbeat(token_of(&before, &lease)), 401);
    call(&answer, "GET", "/v1/commit?ref=1", token_of(&before, &lease), NULL);
    assert_status(&answer, 401);
    call(&answer, "GET", "/v1/commit?ref=1", token_of(&secret, &lease), NULL);
    assert_status(&answer, 404);
    sql(conn, "select durable_internal.rotate_commit_secret()"); /* nobody has to come first */
    int tries = 0;
    while (heartbeat(token_of(&secret, &lease)) == 200 && ++tries < 100) {
        sleep_ms(10);
    }
    assert_status(&answer, 401);
    secret = secret_of(conn);
}

/* A change that nobody was told of is found by the first token that does not fit, also if another
 * has just come that is none of ours. */
static void a_secret_that_was_changed_by_hand_is_asked_for(void **state) {
    (void)state;
    struct lease_name lease = claimed_by(strdup(worker_new(conn, "job")));
    struct commit_secret other = { .bytes = "another installation", .length = 20 };
    const char *not_ours = strdup(token_of(&other, &lease));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(heartbeat(not_ours), 401);
        sql(conn, "update durable_internal.commit_secret set secret = sha256(secret)");
        secret = secret_of(conn);
        if (i == 0) {
            assert_int_equal(heartbeat(token_of(&secret, &lease)), 200);
        } else {
            call(&answer, "GET", "/v1/commit?ref=1", token_of(&secret, &lease), NULL);
            assert_status(&answer, 404);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_token_of_ours_is_refused),
        cmocka_unit_test(a_token_of_what_is_no_lease_is_lost),
        cmocka_unit_test(a_token_ends_with_its_lease),
        cmocka_unit_test_setup(a_new_secret_counts_at_once, start_one),
        cmocka_unit_test_setup(a_secret_that_was_changed_by_hand_is_asked_for, start_one),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
