/* Calls of every function that a role may call, with arguments of their types: values of the edge,
 * and values that are there (runs, leases, workers, keys), so that many calls come far. The
 * functions are read from PostgreSQL's catalogue.
 *
 * True of each call: it succeeds, or is refused with an error of ours (DJ…), of a value (22…), of a
 * right (42501), of another transaction (40…, 55P03) or of a size (54…), within 5 s. True of the
 * database afterwards: all that was stored can be read, and the invariants hold; the worker's turn
 * is the last, since at which position a step of its lease lies is its own word.
 *
 * Seen to fail: a payload of 100,000 numbers took 7 s to check; runs_page raised 0A000 for
 * -infinity; run_op had no word for an op that it does not know; a hundred weeks of partitions were
 * made in one call.
 *
 * DURABLE_FUZZ_SECONDS (1) for each role, DURABLE_FUZZ_SEED (1): the same seed makes the same
 * calls. */
#include "fuzz_values.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FUNCTIONS_MAX 200
#define ARGS_MAX 24
#define FINDINGS_MAX 60
#define CALLS_A_SCENE 100

struct function {
    char name[128];
    int arg_count, default_count;
    char types[ARGS_MAX][64], names[ARGS_MAX][64];
};

struct finding {
    char what[400];
    long times;
};

static const char *url;
static PGconn *owner;
static struct function functions[FUNCTIONS_MAX];
static int function_count;
static struct finding findings[FINDINGS_MAX];
static int finding_count;
static long calls, successes;

/* The roles: logins of this program's own, members of what the product has. The worker's come last:
 * where its steps lie is its own word, so there the invariants need workers that count. */
static const struct {
    const char *login, *member, *namespace;
} roles[] = {
    { "client", "durable_client", NULL },
    { "foreign", "durable_client", "elsewhere" },
    { "api", "durable_api", NULL },
    { "read", "durable_read", NULL },
    { "scheduler", "durable_scheduler", NULL },
    { "worker", "durable_worker", NULL },
};

static int setup(void **state) {
    (void)state;
    url = database_new();
    owner = connect_to(url);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        sql(owner, "create role fuzz_%d_%s login in role %s", (int)getpid(), roles[i].login,
            roles[i].member);
        if (roles[i].namespace != NULL) {
            sql(owner, "select durable.grant_namespace('%s', 'fuzz_%d_%s')", roles[i].namespace,
                (int)getpid(), roles[i].login);
        }
    }
    return 0;
}

static int teardown(void **state) {
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        sql(owner, "drop role fuzz_%d_%s", (int)getpid(), roles[i].login);
    }
    PQfinish(owner);
    (void)state;
    return 0;
}

static PGconn *connect_as(const char *login) {
    char user[64];
    (void)snprintf(user, sizeof user, "fuzz_%d_%s", (int)getpid(), login);
    const char *const words[] = { "dbname", "user", NULL }, *const values[] = { url, user, NULL };
    PGconn *conn = PQconnectdbParams(words, values, 1);
    if (PQstatus(conn) != CONNECTION_OK) {
        fail_msg("%s", PQerrorMessage(conn));
    }
    sql(conn,
        "set statement_timeout = '5s'; set lock_timeout = '1s'; set client_min_messages = error");
    return conn;
}

/* What this session may call. */
static void read_functions(PGconn *conn) {
    PGresult *rows = PQexec(
        conn,
        "select p.oid::regproc, p.pronargs, p.pronargdefaults, a.n - 1, format_type(a.type, null), "
        "coalesce(p.proargnames[a.n], '') from pg_proc p join pg_namespace s on s.oid = "
        "p.pronamespace "
        "left join unnest(p.proargtypes::oid[]) with ordinality as a (type, n) on true "
        "where s.nspname in ('durable', 'durable_internal') and has_schema_privilege(s.oid, "
        "'usage') "
        "and has_function_privilege(p.oid, 'execute') and p.prokind = 'f' "
        "and p.proname <> 'fail' order by p.oid, a.n"); /* it raises what it is told to */
    assert_int_equal(PQresultStatus(rows), PGRES_TUPLES_OK);
    function_count = 0;
    for (int row = 0; row < PQntuples(rows); row++) {
        int n = atoi(PQgetvalue(rows, row, 3));
        if (PQgetisnull(rows, row, 3) || n == 0) {
            assert_true(function_count < FUNCTIONS_MAX);
            struct function *function = &functions[function_count++];
            (void)snprintf(function->name, sizeof function->name, "%s", PQgetvalue(rows, row, 0));
            function->arg_count = atoi(PQgetvalue(rows, row, 1));
            function->default_count = atoi(PQgetvalue(rows, row, 2));
            assert_true(function->arg_count <= ARGS_MAX);
        }
        if (!PQgetisnull(rows, row, 3)) {
            struct function *function = &functions[function_count - 1];
            (void)snprintf(function->types[n], sizeof function->types[n], "%s",
                           PQgetvalue(rows, row, 4));
            (void)snprintf(function->names[n], sizeof function->names[n], "%s",
                           PQgetvalue(rows, row, 5));
        }
    }
    PQclear(rows);
    assert_true(function_count > 0);
}

/* Something to act on: a worker with leases, runs that wait, state, events. Then its names and ids
 * are told to the values. */
static void set_scene(void) {
    sql(owner,
        "select durable.start('a', '{}', concurrency_key => 'key'), durable.start('b', '[1.10]', "
        "'other', "
        "idempotency_key => 'k%ld'), durable.start('a', scheduled_at => clock_timestamp() + "
        "interval '1 s')",
        calls);
    sql(owner, "select durable.start('a') from generate_series(1, 5)");
    const char *worker = worker_new(owner, "a");
    sql(owner,
        "select count(*) from durable_internal.worker w, durable_internal.claim(w.id, 4, 1000000, "
        "w.number) "
        "where w.id = '%s'",
        worker);
    sql(owner, "select durable.send_event('e', '{}', 'key'); select durable.state_set('key', '1')");
    PGresult *rows = PQexec(
        owner, "select r.id, l.worker_id, l.fence from durable_internal.run r left join "
               "durable_internal.lease l on l.run_id = r.id order by l.fence desc nulls last, "
               "r.id desc limit 20");
    assert_int_equal(PQresultStatus(rows), PGRES_TUPLES_OK);
    values_forget();
    for (int row = 0; row < PQntuples(rows); row++) {
        values_learn(PQgetvalue(rows, row, 0), PQgetvalue(rows, row, 1), PQgetvalue(rows, row, 2));
    }
    PQclear(rows);
}

/* Of the protocol our own programs know what they say: a null, a position, a kind or a job twice,
 * which they never do, is refused by the table, or by the function's case. */
static bool is_allowed(const char *login, const char *sqlstate) {
    static const char *const allowed[] = { "DJ", "22", "42501", "40", "55P03", "54" };
    static const char *const of_protocol[] = { "23502", "23505", "23514", "20000", "21000" };
    bool protocol = strcmp(login, "worker") == 0 || strcmp(login, "scheduler") == 0;
    if (strcmp(login, "api") == 0 && strcmp(sqlstate, of_protocol[0]) == 0) {
        return true; /* it never says null for a namespace, or a switch */
    }
    for (size_t i = 0; protocol && i < sizeof of_protocol / sizeof *of_protocol; i++) {
        if (strcmp(sqlstate, of_protocol[i]) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        if (strncmp(sqlstate, allowed[i], strlen(allowed[i])) == 0) {
            return true;
        }
    }
    return false;
}

static void note_finding(const char *login, const struct function *function, const char *sqlstate,
                         const char *message, const char *call) {
    char what[400];
    (void)snprintf(what, sizeof what, "%s as %s: %s %.150s", function->name, login, sqlstate,
                   message);
    for (int i = 0; i < finding_count; i++) {
        if (strcmp(findings[i].what, what) == 0) {
            findings[i].times++;
            return;
        }
    }
    if (finding_count < FINDINGS_MAX) {
        (void)snprintf(findings[finding_count].what, sizeof what, "%s", what);
        findings[finding_count++].times = 1;
        print_error("%s\n  %.1500s\n", what, call);
    }
}

/* One call, and what came of it. */
static void call_one(PGconn *conn, const char *login, const struct function *function) {
    char text[4096], shown[4096];
    const char *values[ARGS_MAX];
    int left_out = chance(30) ? (int)random_below((uint64_t)function->default_count + 1) : 0;
    int count = function->arg_count - left_out;
    size_t at = (size_t)snprintf(text, sizeof text, "select * from %s(", function->name);
    size_t shown_at = (size_t)snprintf(shown, sizeof shown, "%s(", function->name);
    values_begin();
    for (int i = 0; i < count; i++) {
        values[i] = value_of(function->types[i], function->names[i]);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s$%d::text::%s", i == 0 ? "" : ", ",
                               i + 1, function->types[i]);
        if (shown_at < sizeof shown - 200) {
            shown_at += (size_t)snprintf(shown + shown_at, sizeof shown - shown_at, "%s%s: %.120s",
                                         i == 0 ? "" : ", ", function->names[i],
                                         values[i] == NULL ? "null" : values[i]);
        }
    }
    (void)snprintf(text + at, sizeof text - at, ")");
    PGresult *result = PQexecParams(conn, text, count, NULL, values, NULL, NULL, 0);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (sqlstate != NULL && strcmp(sqlstate, "57014") == 0) { /* is it slow, or was the machine? */
        PQclear(result);
        result = PQexecParams(conn, text, count, NULL, values, NULL, NULL, 0);
        sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    }
    calls++;
    if (PQresultStatus(result) == PGRES_TUPLES_OK) {
        successes++;
    } else if (sqlstate == NULL || !is_allowed(login, sqlstate)) {
        note_finding(login, function, sqlstate == NULL ? "no answer" : sqlstate,
                     sqlstate == NULL ? PQerrorMessage(conn)
                                      : PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY),
                     shown);
    }
    PQclear(result);
}

/* Every row of every table, and of every view, as text. */
static void check_readable(void) {
    PGresult *tables = PQexec(
        owner,
        "select c.oid::regclass from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname in ('durable', 'durable_internal') and c.relkind in ('r', 'v') "
        "order by 1");
    sql(owner, "set statement_timeout = '60s'");
    for (int row = 0; row < PQntuples(tables); row++) {
        char text[256];
        (void)snprintf(text, sizeof text, "select coalesce(sum(length(t::text)), 0) from %s as t",
                       PQgetvalue(tables, row, 0));
        (void)sql_int(owner, "%s", text);
    }
    PQclear(tables);
}

static double now_s(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void no_call_of_a_role_is_more_than_refused(void **state) {
    const char *seconds = getenv("DURABLE_FUZZ_SECONDS"), *seed = getenv("DURABLE_FUZZ_SEED");
    double each = seconds == NULL ? 1 : atof(seconds);
    (void)state;
    random_begin(seed == NULL ? 1 : strtoull(seed, NULL, 10));
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        PGconn *conn = connect_as(roles[i].login);
        if (strcmp(roles[i].login, "worker") == 0) {
            (void)invariants_hold(state);
        }
        read_functions(conn);
        double until = now_s() + each;
        for (int n = 0; now_s() < until; n++) {
            if (n % CALLS_A_SCENE == 0) {
                set_scene();
            }
            call_one(conn, roles[i].login, &functions[random_below((uint64_t)function_count)]);
            if (PQstatus(conn) != CONNECTION_OK) {
                fail_msg("the session is gone: %s", PQerrorMessage(conn));
            }
        }
        PQfinish(conn);
    }
    print_message("%ld calls, %ld of them succeeded; %d findings\n", calls, successes,
                  finding_count);
    check_readable();
    for (int i = 0; i < finding_count; i++) {
        print_error("%ld times: %s\n", findings[i].times, findings[i].what);
    }
    assert_int_equal(finding_count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(no_call_of_a_role_is_more_than_refused) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
