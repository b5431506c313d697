/* State: values, counters, locks, who wins when several want one, and what has expired. Time is
 * moved by writing expires_at.
 *
 * Seen to fail: with versions drawn before the row was locked, sums and versions looked up in a
 * query of their own, and a lock that anybody may take. */
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define SESSIONS 64
#define INCREMENTS 25

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    return 0;
}

/* Sends a call in another session, which is to wait for a lock of ours. */
static void send_blocked(PGconn *other, const char *call) {
    assert_int_equal(PQsendQuery(other, call), 1);
    assert_true(is_blocked(conn, other));
}

/* What it answered in the end: its value, or the SQLSTATE. */
static const char *answer_of(PGconn *other) {
    static char text[64];
    PGresult *result = PQgetResult(other);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    (void)snprintf(text, sizeof text, "%s", sqlstate != NULL ? sqlstate : PQgetvalue(result, 0, 0));
    PQclear(result);
    while ((result = PQgetResult(other)) != NULL) {
        PQclear(result);
    }
    return text;
}

static void let_expire(const char *key) {
    sql(conn, "update durable_internal.state set expires_at = clock_timestamp() where key = '%s'",
        key);
    sql(conn,
        "update durable_internal.state_lock set expires_at = clock_timestamp() where key = '%s'",
        key);
}

static void what_is_set_is_got_until_it_is_deleted(void **state) {
    (void)state;
    assert_int_equal(sql_int(conn, "select version is null from durable.state_get('a')"), 1);
    long long version = sql_int(conn, "select durable.state_set('a', '{\"n\": 1.10}')");
    assert_string_equal(sql_text(conn, "select value from durable.state_get('a')"),
                        "{\"n\": 1.10}");
    assert_int_equal(sql_int(conn, "select version from durable.state_get('a')"), version);
    sql(conn,
        "select durable.state_set('a', 'null', '2100-01-01Z'::timestamptz - interval '70 years')");
    assert_string_equal(sql_text(conn,
                                 "select concat_ws(' ', value, expires_at at time zone 'UTC') "
                                 "from durable.state_get('a')"),
                        "null 2030-01-01 00:00:00");
    sql(conn, "select durable.state_set('a', '2')");
    assert_int_equal(sql_int(conn, "select expires_at is null from durable.state_get('a')"), 1);
    assert_int_equal(sql_int(conn, "select durable.state_delete('a')"), 1);
    assert_int_equal(sql_int(conn, "select durable.state_delete('a')"), 0);
    assert_int_equal(sql_int(conn, "select version is null from durable.state_get('a')"), 1);
}

static void a_version_is_never_had_twice_by_a_key(void **state) {
    (void)state;
    long long before = sql_int(conn, "select durable.state_set('b', '1')");
    for (int i = 0; i < 5; i++) {
        sql(conn, "select durable.state_increment('b')");
        long long after = sql_int(conn, "select version from durable.state_get('b')");
        assert_true(after > before);
        sql(conn, "select durable.state_delete('b')");
        before = sql_int(conn, "select durable.state_set('b', '1')");
        assert_true(before > after);
    }
}

/* The second drew a number before it waited: the one stored is drawn after. */
static void versions_go_up_in_the_order_in_which_they_are_stored(void **state) {
    PGconn *other = connect_to(url);
    (void)state;
    sql(conn, "select durable.state_set('c', '0')");
    sql(conn, "begin");
    sql(conn, "select durable.state_set('c', '1')");
    send_blocked(other, "select durable.state_set('c', '2')");
    long long mine = sql_int(conn, "select durable.state_set('c', '3')");
    sql(conn, "commit");
    assert_true(atoll(answer_of(other)) > mine);
    assert_string_equal(sql_text(conn, "select value from durable.state_get('c')"), "2");
    PQfinish(other);
}

static void a_set_with_a_version_has_one_winner(void **state) {
    PGconn *other = connect_to(url);
    char call[128];
    (void)state;
    sql(conn, "begin");
    long long version = sql_int(conn, "select durable.state_set('d', '1', if_version => 0)");
    send_blocked(other, "select durable.state_set('d', '2', if_version => 0)");
    sql(conn, "commit");
    assert_string_equal(answer_of(other), "DJ006");

    sql(conn, "begin");
    sql(conn, "select durable.state_set('d', '3', if_version => %lld)", version);
    (void)snprintf(call, sizeof call, "select durable.state_set('d', '4', if_version => %lld)",
                   version);
    send_blocked(other, call);
    sql(conn, "commit");
    assert_string_equal(answer_of(other), "DJ006");
    assert_string_equal(sql_text(conn, "select value from durable.state_get('d')"), "3");

    version = sql_int(conn, "select version from durable.state_get('d')");
    sql(conn, "begin");
    sql(conn, "select durable.state_delete('d')");
    (void)snprintf(call, sizeof call, "select durable.state_set('d', '5', if_version => %lld)",
                   version);
    send_blocked(other, call);
    sql(conn, "commit");
    assert_string_equal(answer_of(other), "DJ006");
    assert_non_null(strstr(sql_error(conn, "DJ006", "%s", call), "'d' is absent"));
    sql(conn, "select durable.state_set('d', '6', if_version => 0)");
    assert_non_null(strstr(sql_error(conn, "DJ006", "%s", call), "'d' has version"));
    PQfinish(other);
}

static void a_loser_wins_where_the_winner_rolls_back(void **state) {
    PGconn *other = connect_to(url);
    (void)state;
    sql(conn, "begin");
    sql(conn, "select durable.state_set('e', '1', if_version => 0)");
    send_blocked(other, "select durable.state_set('e', '2', if_version => 0) > 0");
    sql(conn, "rollback");
    assert_string_equal(answer_of(other), "t");
    assert_string_equal(sql_text(conn, "select value from durable.state_get('e')"), "2");
    PQfinish(other);
}

/* One session: increments, deletes nothing, and takes a lock of which it must be the only one. */
static void *increments(void *argument) {
    PGconn *session = argument;
    for (int i = 0; i < INCREMENTS; i++) {
        PGresult *result = PQexec(session, "select durable.state_increment('many', 3)");
        bool failed = PQresultStatus(result) != PGRES_TUPLES_OK;
        PQclear(result);
        if (failed) {
            return "failed";
        }
    }
    return NULL;
}

static void *takes(void *argument) {
    PGconn *session = argument;
    char call[128];
    (void)snprintf(call, sizeof call, "select durable.state_lock('one', 'owner %d', '1 hour')",
                   PQbackendPID(session));
    PGresult *result = PQexec(session, call);
    bool taken = PQntuples(result) == 1 && PQgetvalue(result, 0, 0)[0] == 't';
    PQclear(result);
    return taken ? "taken" : NULL;
}

/* Runs it in many sessions at once; answers how many said something. */
static int in_sessions(void *(*work)(void *)) {
    PGconn *sessions[SESSIONS];
    pthread_t threads[SESSIONS];
    int said = 0;
    for (int i = 0; i < SESSIONS; i++) {
        sessions[i] = connect_to(url);
    }
    for (int i = 0; i < SESSIONS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, work, sessions[i]), 0);
    }
    for (int i = 0; i < SESSIONS; i++) {
        void *answer;
        assert_int_equal(pthread_join(threads[i], &answer), 0);
        said += answer != NULL;
        PQfinish(sessions[i]);
    }
    return said;
}

static void increments_of_64_sessions_add_up(void **state) {
    (void)state;
    assert_int_equal(in_sessions(increments), 0);
    assert_int_equal(sql_int(conn, "select value from durable.state_get('many')"),
                     3LL * SESSIONS * INCREMENTS);
}

static void of_64_sessions_one_has_the_lock(void **state) {
    (void)state;
    assert_int_equal(in_sessions(takes), 1);
}

static void an_increment_waits_for_the_one_before_and_adds_to_what_it_left(void **state) {
    PGconn *other = connect_to(url);
    (void)state;
    sql(conn, "begin");
    assert_int_equal(sql_int(conn, "select durable.state_increment('f', 5)"), 5);
    send_blocked(other, "select durable.state_increment('f')");
    sql(conn, "commit");
    assert_string_equal(answer_of(other), "6");
    sql(conn, "begin");
    sql(conn, "select durable.state_delete('f')");
    send_blocked(other, "select durable.state_increment('f')");
    sql(conn, "commit");
    assert_string_equal(answer_of(other), "1");
    PQfinish(other);
}

static void an_increment_keeps_to_integers_of_64_bits(void **state) {
    static const char *const others[] = {
        "\"1\"", "null", "true", "1.5", "[1]", "{}", "9223372036854775808", "-9223372036854775809",
        "1e400"
    };
    (void)state;
    assert_int_equal(sql_int(conn, "select durable.state_increment('g', 9223372036854775806)"),
                     9223372036854775806LL);
    assert_int_equal(sql_int(conn, "select durable.state_increment('g', 1)"),
                     9223372036854775807LL);
    assert_non_null(
        strstr(sql_error(conn, "DJ001", "select durable.state_increment('g', 1)"), "by 1"));
    sql(conn, "select durable.state_set('g', '-9223372036854775807')");
    assert_int_equal(sql_int(conn, "select durable.state_increment('g', -1) < 0"), 1);
    (void)sql_error(conn, "DJ001", "select durable.state_increment('g', -1)");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        sql(conn, "select durable.state_set('g', '%s')", others[i]);
        assert_non_null(
            strstr(sql_error(conn, "DJ006", "select durable.state_increment('g')"), "'g'"));
    }
    sql(conn, "select durable.state_set('g', '5.0')");
    assert_int_equal(sql_int(conn, "select durable.state_increment('g', 0)"), 5);
}

static void an_increment_leaves_the_end_as_it_is_unless_told(void **state) {
    const char *end = "select expires_at at time zone 'UTC' from durable.state_get('h')";
    (void)state;
    sql(conn, "select durable.state_increment('h', 1, '2030-01-01Z')");
    sql(conn, "select durable.state_increment('h')");
    assert_string_equal(sql_text(conn, "%s", end), "2030-01-01 00:00:00");
    sql(conn, "select durable.state_increment('h', 1, '2031-01-01Z')");
    assert_string_equal(sql_text(conn, "%s", end), "2031-01-01 00:00:00");
}

static void what_has_expired_is_absent_in_every_function(void **state) {
    (void)state;
    long long version =
        sql_int(conn, "select durable.state_set('i', '7', now() + interval '1 hour')");
    let_expire("i");
    assert_int_equal(sql_int(conn, "select version is null from durable.state_get('i')"), 1);
    assert_non_null(strstr(
        sql_error(conn, "DJ006", "select durable.state_set('i', '8', if_version => %lld)", version),
        "absent"));
    assert_int_equal(sql_int(conn, "select durable.state_increment('i')"), 1);
    assert_int_equal(sql_int(conn, "select expires_at is null from durable.state_get('i')"), 1);
    let_expire("i");
    sql(conn, "select durable.state_set('i', '\"text\"', if_version => 0)");
    let_expire("i");
    assert_int_equal(sql_int(conn, "select durable.state_increment('i', 2)"), 2);
    let_expire("i");
    assert_int_equal(sql_int(conn, "select durable.state_delete('i')"), 0);
    sql(conn, "select durable.state_set('i', '1', '2020-01-01Z')"); /* an end in the past */
    assert_int_equal(sql_int(conn, "select version is null from durable.state_get('i')"), 1);

    sql(conn, "select durable.state_lock('i', 'a', '1 hour')");
    let_expire("i");
    assert_int_equal(sql_int(conn, "select durable.state_unlock('i', 'a')"), 0);
    sql(conn, "select durable.state_lock('i', 'a', '1 hour')");
    let_expire("i");
    assert_int_equal(sql_int(conn, "select durable.state_lock('i', 'b', '1 hour')"), 1);
    assert_int_equal(sql_int(conn, "select durable.state_unlock('i', 'a')"), 0);
    assert_int_equal(sql_int(conn, "select durable.state_unlock('i', 'b')"), 1);
}

static void a_lock_has_one_owner_who_may_lengthen_it(void **state) {
    PGconn *other = connect_to(url);
    const char *left = "select extract(epoch from expires_at - clock_timestamp()) between 3599 and "
                       "3600 from durable_internal.state_lock where key = 'j'";
    (void)state;
    assert_int_equal(sql_int(conn, "select durable.state_lock('j', 'a', '1 minute')"), 1);
    assert_int_equal(sql_int(conn, "select durable.state_lock('j', 'b', '1 hour')"), 0);
    assert_int_equal(sql_int(conn, "%s", left), 0);
    assert_int_equal(sql_int(conn, "select durable.state_lock('j', 'a', '1 hour')"), 1);
    assert_int_equal(sql_int(conn, "%s", left), 1);
    assert_int_equal(sql_int(conn, "select durable.state_unlock('j', 'b')"), 0);
    assert_int_equal(sql_int(conn, "select version is null from durable.state_get('j')"), 1);

    sql(conn, "begin");
    assert_int_equal(sql_int(conn, "select durable.state_unlock('j', 'a')"), 1);
    send_blocked(other, "select durable.state_lock('j', 'b', '1 hour')");
    sql(conn, "commit");
    assert_string_equal(answer_of(other), "t");
    assert_int_equal(sql_int(conn, "select durable.state_lock('j', 'a', '1 hour')"), 0);
    PQfinish(other);
}

static void the_locks_of_a_run_are_freed_with_it_and_no_others(void **state) {
    const char *run = "01900000-0000-7000-8000-000000000001";
    const char *other = "01900000-0000-7000-8000-000000000002";
    (void)state;
    sql(conn,
        "select durable_internal.state_op(1, '%s', 'lock', 'k' || n, '{\"ttl\": \"1h\"}') from "
        "generate_series(1, 3) as n",
        run);
    sql(conn, "select durable_internal.state_op(1, '%s', 'lock', 'k4', '{\"ttl\": \"1h\"}')",
        other);
    sql(conn, "select durable.state_lock('k5', 'somebody', '1 hour')");
    let_expire("k1"); /* over, and taken by another run */
    sql(conn, "select durable_internal.state_op(1, '%s', 'lock', 'k1', '{\"ttl\": \"1h\"}')",
        other);
    sql(conn, "select durable_internal.free_locks('%s'::uuid)", run);
    assert_string_equal(sql_text(conn, "select string_agg(key, ' ' order by key) from "
                                       "durable_internal.state_lock where key ~ '^k\\d$'"),
                        "k1 k4 k5");
    sql(conn, "select durable_internal.free_locks(array['%s', '%s']::uuid[])", run, other);
    assert_string_equal(sql_text(conn, "select string_agg(key, ' ' order by key) from "
                                       "durable_internal.state_lock where key ~ '^k\\d$'"),
                        "k5");
}

/* Who asks for a lock in vain has its row until his transaction ends. */
static void a_lock_that_is_asked_for_keeps_no_run_from_its_end(void **state) {
    (void)state;
    PGconn *other = connect_to(url);
    const char *run = strdup(sql_text(conn, "select durable.start('locks')"));
    sql(conn, "select durable_internal.state_op(1, '%s', 'lock', 'busy', '{\"ttl\": \"1h\"}')",
        run);
    sql(other, "begin");
    assert_int_equal(sql_int(other, "select durable.state_lock('busy', 'me', '1 hour')"), 0);
    sql(conn, "set lock_timeout = '2s'");
    assert_int_equal(sql_int(conn, "select durable.cancel('%s')", run), 1);
    sql(conn, "reset lock_timeout");
    sql(other, "commit");
    assert_int_equal(sql_int(other, "select durable.state_lock('busy', 'me', '1 hour')"), 1);
    assert_int_equal(sql_int(conn, "select durable.state_lock('busy', 'you', '1 hour')"), 0);
    PQfinish(other);
}

static void an_op_answers_as_the_protocol_says(void **state) {
    static const struct {
        const char *call, *answer;
    } rows[] = {
        { "'get', 'op'", "null" },
        { "'set', 'op', '{\"value\": {\"a\": 1}, \"expiresAt\": \"2030-01-01T00:00:00Z\", "
          "\"ifVersion\": 0}'",
          NULL },
        { "'delete', 'op'", "true" },
        { "'delete', 'op'", "false" },
        { "'increment', 'op'", "1" },
        { "'increment', 'op', '{\"by\": -3, \"expiresAt\": null}'", "-2" },
        { "'lock', 'op', '{\"ttl\": \"1m30s\"}'", "true" },
        { "'lock', 'op', '{\"ttl\": \"30s\"}'", "true" },
        { "'unlock', 'op'", "true" },
        { "'unlock', 'op'", "false" },
    };
    const char *run = "01900000-0000-7000-8000-000000000003";
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *answer =
            sql_text(conn, "select durable_internal.state_op(1, '%s', %s)", run, rows[i].call);
        if (rows[i].answer == NULL) {
            assert_non_null(strstr(answer, "{\"version\": "));
            assert_string_equal(
                sql_text(conn,
                         "select durable_internal.state_op(1, null, 'get', 'op') - 'version'"),
                "{\"value\": {\"a\": 1}, \"expiresAt\": \"2030-01-01T00:00:00.000Z\"}");
        } else if (strcmp(answer, rows[i].answer) != 0) {
            fail_msg("%s: %s", rows[i].call, answer);
        }
    }
    assert_string_equal(sql_text(conn, "select durable_internal.state_op(1, null, 'lock', 'op', "
                                       "'{\"ttl\": \"1h\", \"owner\": \"me\"}')"),
                        "true");
    assert_string_equal(sql_text(conn,
                                 "select durable_internal.state_op(1, '%s', 'lock', 'op', "
                                 "'{\"ttl\": \"1h\", \"owner\": \"me\"}')",
                                 run),
                        "false"); /* a run is its own owner, whatever it says */
    sql(conn, "select durable.state_delete('op'), durable.state_unlock('op', 'me')");
}

static void what_is_wrong_is_named_and_stores_nothing(void **state) {
    static const struct {
        const char *sqlstate, *named, *call;
    } rows[] = {
        { "DJ001", "key", "durable.state_get(null)" },
        { "DJ001", "key is 0 bytes", "durable.state_get('')" },
        { "DJ001", "key is 513 bytes", "durable.state_get(repeat('k', 513))" },
        { "DJ001", "key is 514 bytes", "durable.state_set(repeat('é', 257), '1')" },
        { "DJ001", "value must not be null", "durable.state_set('x', null)" },
        { "DJ001", "value", "durable.state_set('x', '[1e131071]')" },
        { "DJ001", "value", "durable.state_set('x', (repeat('[', 65) || repeat(']', 65))::jsonb)" },
        { "DJ004", "value", "durable.state_set('x', to_jsonb(repeat('x', 1048575)))" },
        { "DJ001", "expires_at",
          "durable.state_set('x', '1', clock_timestamp() + interval '10 years 1 day')" },
        { "DJ001", "expires_at", "durable.state_set('x', '1', 'infinity')" },
        { "DJ001", "if_version -1", "durable.state_set('x', '1', if_version => -1)" },
        { "DJ006", "'x' is absent", "durable.state_set('x', '1', if_version => 1)" },
        { "DJ001", "key", "durable.state_delete('')" },
        { "DJ001", "key", "durable.state_increment('')" },
        { "DJ001", "by", "durable.state_increment('x', null)" },
        { "DJ001", "expires_at", "durable.state_increment('x', 1, '-infinity')" },
        { "DJ001", "key", "durable.state_lock('', 'o', '1 s')" },
        { "DJ001", "owner", "durable.state_lock('x', null, '1 s')" },
        { "DJ001", "owner is 513 bytes", "durable.state_lock('x', repeat('o', 513), '1 s')" },
        { "DJ001", "ttl", "durable.state_lock('x', 'o', null)" },
        { "DJ001", "ttl 00:00:00", "durable.state_lock('x', 'o', '0')" },
        { "DJ001", "ttl", "durable.state_lock('x', 'o', '3650 days 1 second')" },
        { "DJ001", "owner", "durable.state_unlock('x', '')" },
        { "DJ001", "action 'put'", "durable_internal.state_op(1, null, 'put', 'x')" },
        { "DJ001", "action null", "durable_internal.state_op(1, null, null, 'x')" },
        { "DJ001", "value", "durable_internal.state_op(1, null, 'set', 'x')" },
        { "DJ001", "expiresAt 'soon'",
          "durable_internal.state_op(1, null, 'set', 'x', '{\"value\": 1, \"expiresAt\": "
          "\"soon\"}')" },
        { "DJ001", "expiresAt '2026-06-31T00:00:00Z'",
          "durable_internal.state_op(1, null, 'set', 'x', '{\"value\": 1, \"expiresAt\": "
          "\"2026-06-31T00:00:00Z\"}')" },
        { "DJ001", "expiresAt (number)",
          "durable_internal.state_op(1, null, 'set', 'x', '{\"value\": 1, \"expiresAt\": "
          "1e131071}')" },
        { "DJ001", "ifVersion",
          "durable_internal.state_op(1, null, 'set', 'x', '{\"value\": 1, \"ifVersion\": 1.5}')" },
        { "DJ001", "by",
          "durable_internal.state_op(1, null, 'increment', 'x', '{\"by\": \"1\"}')" },
        { "DJ001", "by", "durable_internal.state_op(1, null, 'increment', 'x', '{\"by\": 1e19}')" },
        { "DJ001", "ttl", "durable_internal.state_op(1, null, 'lock', 'x', '{\"owner\": \"o\"}')" },
        { "DJ001", "ttl",
          "durable_internal.state_op(1, null, 'lock', 'x', '{\"owner\": \"o\", \"ttl\": 5}')" },
        { "DJ001", "owner",
          "durable_internal.state_op(1, null, 'lock', 'x', '{\"ttl\": \"5s\"}')" },
        { "DJ001", "owner", "durable_internal.state_op(1, null, 'unlock', 'x')" },
    };
    const char *census = "select (select count(*) from durable_internal.state) + (select count(*) "
                         "from durable_internal.state_lock)";
    long long before = sql_int(conn, "%s", census);
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *message = sql_error(conn, rows[i].sqlstate, "select %s", rows[i].call);
        if (strstr(message, rows[i].named) == NULL) {
            fail_msg("%s: %s", rows[i].call, message);
        }
    }
    assert_int_equal(sql_int(conn, "%s", census), before);
    sql(conn, "select durable.state_set(repeat('k', 512), to_jsonb(repeat('x', 1048574)), "
              "clock_timestamp() + interval '10 years' - interval '1 minute')");
    sql(conn, "select durable.state_set('k', (repeat('[', 64) || repeat(']', 64))::jsonb)");
    sql(conn, "select durable.state_lock(repeat('é', 256), repeat('o', 512), '3650 days')");
}

static void namespaces_hold_apart(void **state) {
    char role[2][32];
    PGconn *sessions[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        (void)snprintf(role[i], sizeof role[i], "state_%d_%d", PQbackendPID(conn), i);
        sql(conn, "create role %s login password 'x' in role durable_client", role[i]);
        sql(conn, "select durable.grant_namespace('%s', '%s')", role[i], role[i]);
        sessions[i] = connect_to(url);
        sql(sessions[i], "set session authorization %s", role[i]);
        sql(sessions[i], "select durable.state_set('same', '%d')", i);
        assert_int_equal(
            sql_int(sessions[i], "select durable.state_lock('same', 'o%d', '1 hour')", i), 1);
    }
    assert_int_equal(sql_int(conn, "select version is null from durable.state_get('same')"), 1);
    assert_int_equal(sql_int(sessions[0], "select value from durable.state_get('same')"), 0);
    assert_int_equal(sql_int(sessions[1], "select durable.state_increment('same')"), 2);
    assert_int_equal(sql_int(sessions[1], "select durable.state_unlock('same', 'o0')"), 0);
    assert_int_equal(sql_int(sessions[1], "select durable.state_delete('same')"), 1);
    assert_int_equal(sql_int(sessions[0], "select value from durable.state_get('same')"), 0);
    (void)sql_error(sessions[0], "42501", "select * from durable_internal.state");
    (void)sql_error(sessions[0], "42501",
                    "select durable_internal.state_op(1, null, 'get', 'same')");
    for (int i = 0; i < 2; i++) {
        PQfinish(sessions[i]);
        sql(conn, "drop role %s", role[i]);
    }
}

static void expired_rows_are_removed_in_batches_and_what_is_held_later(void **state) {
    PGconn *other = connect_to(url);
    (void)state;
    sql(conn, "delete from durable_internal.state");
    sql(conn, "delete from durable_internal.state_lock");
    sql(conn, "select durable.state_set('l' || n, '1', case when n > 10 then "
              "'2020-01-01Z'::timestamptz when n > 5 "
              "then now() + interval '1 hour' end) from generate_series(1, 25) as n");
    sql(conn, "select durable.state_lock('l' || n, 'o', '1 hour') from generate_series(1, 5) as n");
    let_expire("l1");
    let_expire("l2"); /* the values too, which had no end */
    sql(other, "begin");
    sql(other, "select from durable_internal.state where key = 'l11' for update");
    assert_int_equal(sql_int(conn, "select durable_internal.expire_state(10)"), 12);
    assert_int_equal(sql_int(conn, "select durable_internal.expire_state(10)"), 6);
    assert_int_equal(sql_int(conn, "select durable_internal.expire_state(10)"), 0);
    sql(other, "rollback");
    assert_int_equal(sql_int(conn, "select durable_internal.expire_state(10)"), 1);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.state"), 8);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.state_lock"), 3);
    PQfinish(other);
}

static void the_scheduler_removes_what_has_expired(void **state) {
    pid_t scheduler = spawn_scheduler(url);
    (void)state;
    sql(conn, "select durable.state_set('m', '1', '2020-01-01Z')");
    wait_until(conn, 20, "select not exists (select from durable_internal.state where key = 'm')");
    assert_int_equal(end_process(scheduler, SIGTERM), 0);
}

/* As each week. */
static void the_scheduler_makes_the_partitions_that_are_missing(void **state) {
    (void)state;
    const char *last =
        sql_text(conn, "select max(oid::regclass::text) from pg_class where relkind = 'r' and "
                       "oid::regclass::text ~ '^durable_internal.log_2'");
    sql(conn, "drop table %s", last);
    pid_t scheduler = spawn_scheduler(url);
    wait_until(conn, 20, "select to_regclass('%s') is not null", last);
    assert_int_equal(end_process(scheduler, SIGTERM), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_set_is_got_until_it_is_deleted),
        cmocka_unit_test(a_version_is_never_had_twice_by_a_key),
        cmocka_unit_test(versions_go_up_in_the_order_in_which_they_are_stored),
        cmocka_unit_test(a_set_with_a_version_has_one_winner),
        cmocka_unit_test(a_loser_wins_where_the_winner_rolls_back),
        cmocka_unit_test(increments_of_64_sessions_add_up),
        cmocka_unit_test(of_64_sessions_one_has_the_lock),
        cmocka_unit_test(an_increment_waits_for_the_one_before_and_adds_to_what_it_left),
        cmocka_unit_test(an_increment_keeps_to_integers_of_64_bits),
        cmocka_unit_test(an_increment_leaves_the_end_as_it_is_unless_told),
        cmocka_unit_test(what_has_expired_is_absent_in_every_function),
        cmocka_unit_test(a_lock_has_one_owner_who_may_lengthen_it),
        cmocka_unit_test(the_locks_of_a_run_are_freed_with_it_and_no_others),
        cmocka_unit_test(a_lock_that_is_asked_for_keeps_no_run_from_its_end),
        cmocka_unit_test(an_op_answers_as_the_protocol_says),
        cmocka_unit_test(what_is_wrong_is_named_and_stores_nothing),
        cmocka_unit_test(namespaces_hold_apart),
        cmocka_unit_test(expired_rows_are_removed_in_batches_and_what_is_held_later),
        cmocka_unit_test(the_scheduler_removes_what_has_expired),
        cmocka_unit_test(the_scheduler_makes_the_partitions_that_are_missing),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
