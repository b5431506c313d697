/* What each role may do, from the catalogue: a new function, view or table that opens more than is
 * written here fails. And what a role of another namespace sees and touches: nothing. */
#include "support.h"

#include "common/db_calls.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *url;
static PGconn *conn, *foreign, *reader;
static char role[2][48];
static const char *run_id;

#define OURS "in ('durable'::regnamespace, 'durable_internal'::regnamespace)"

/* A namespace with something of everything, and two roles of another one. */
static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(role[i], sizeof role[i], "access_%d_%d", PQbackendPID(conn), i);
        sql(conn, "create role %s in role %s", role[i], i == 0 ? "durable_client" : "durable_read");
        sql(conn, "select durable.grant_namespace('foreign', '%s')", role[i]);
        /* An application's own schema, as most have one. */
        sql(conn, "create schema %s authorization %s", role[i], role[i]);
    }
    run_id = strdup(
        sql_text(conn, "select durable.start('job', '\"canary\"', idempotency_key => 'key')"));
    sql(conn, "select durable.send_event('event', '\"canary\"', 'key', 'key')");
    sql(conn, "select durable.set_queue('queue', max_attempts => 3)");
    sql(conn, "select durable.state_set('state', '\"canary\"')");
    sql(conn, "select durable.state_increment('counter')");
    sql(conn, "select durable.state_lock('lock', 'me', '1 hour')");
    sql(conn, "select durable_internal.endpoint_put(1, 'endpoint', 'http://127.0.0.1:9/', true, "
              "null, null)");
    (void)worker_new(conn, "other");
    sql(conn,
        "insert into durable_internal.step (run_id, position, attempt, started_at, committed_at, "
        "name, kind, result) "
        "values ('%s', 1, 1, now(), now(), 's', 'step', '\"canary\"')",
        run_id);
    sql(conn,
        "insert into durable_internal.attempt (run_id, attempt, started_at, ended_at, outcome) "
        "values ('%s', 1, now(), "
        "now(), 'failed')",
        run_id);
    sql(conn,
        "insert into durable_internal.log (run_id, attempt, at, level, message) values ('%s', 1, "
        "now(), 'info', "
        "'canary')",
        run_id);
    foreign = connect_to(url);
    reader = connect_to(url);
    sql(foreign, "set session authorization %s", role[0]);
    sql(reader, "set session authorization %s", role[1]);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    PQfinish(foreign);
    PQfinish(reader);
    for (int i = 0; i < 2; i++) {
        sql(conn, "drop owned by %s cascade", role[i]);
        sql(conn, "drop role %s", role[i]);
    }
    return 0;
}

/* The names that a query finds, which has to be none. */
#define NONE(...)                                                                                  \
    do {                                                                                           \
        const char *found_here = sql_text(conn, __VA_ARGS__);                                      \
        if (found_here[0] != '\0') {                                                               \
            fail_msg("%s", found_here);                                                            \
        }                                                                                          \
    } while (0)

static void every_definer_has_its_own_search_path(void **state) {
    (void)state;
    NONE("select string_agg(p.oid::regprocedure::text, ' ') from pg_proc p where "
         "p.pronamespace " OURS " and p.prosecdef and 'search_path=pg_catalog, pg_temp' <> all "
         "(coalesce(p.proconfig, '{}'))");
    assert_in_range(sql_int(conn, "select count(*) from pg_proc p where p.pronamespace " OURS
                                  " and p.prosecdef"),
                    50, 500);
}

static void the_public_may_call_nothing_and_see_nothing(void **state) {
    (void)state;
    NONE("select string_agg(p.oid::regprocedure::text, ' ') from pg_proc p where "
         "p.pronamespace " OURS " and (p.proacl is null or exists (select from "
         "aclexplode(p.proacl) a where a.grantee = 0))");
    NONE("select string_agg(c.oid::regclass::text, ' ') from pg_class c, aclexplode(c.relacl) a "
         "where c.relnamespace " OURS " and a.grantee = 0");
    NONE("select string_agg(n.nspname, ' ') from pg_namespace n, aclexplode(n.nspacl) a where "
         "n.oid " OURS " and a.grantee = 0");
}

/* Of tables, sequences and inner views nothing; of the views in durable, reading, for three roles.
 */
static void relations_are_granted_as_views_for_reading(void **state) {
    (void)state;
    NONE("select string_agg(format('%%s:%%s:%%s', c.oid::regclass, a.grantee::regrole, "
         "a.privilege_type), ' ') "
         "from pg_class c, aclexplode(c.relacl) a where c.relnamespace " OURS
         " and a.grantee <> c.relowner and not "
         "(c.relkind = 'v' and c.relnamespace = 'durable'::regnamespace and a.privilege_type = "
         "'SELECT' and "
         "a.grantee::regrole::text in ('durable_client', 'durable_read', 'durable_api'))");
    NONE("select string_agg(format('%%s:%%s', c.oid::regclass, r.role), ' ') from pg_class c, "
         "unnest(array['durable_client', 'durable_read', 'durable_api']) as r (role) where "
         "c.relkind "
         "= 'v' and c.relnamespace = 'durable'::regnamespace and not has_table_privilege(r.role, "
         "c.oid, 'select')");
    NONE("select string_agg(format('%%s.%%s', t.attrelid::regclass, t.attname), ' ') from "
         "pg_attribute t join pg_class c on "
         "c.oid = t.attrelid where c.relnamespace " OURS " and t.attacl is not null");
    NONE("select string_agg(c.oid::regclass::text, ' ') from pg_class c where c.relnamespace = "
         "'durable'::regnamespace and "
         "c.relkind <> 'v'");
    NONE(
        "select string_agg(format('%%s:%%s:%%s', n.nspname, a.grantee::regrole, "
        "a.privilege_type), ' ') from pg_namespace n, aclexplode(n.nspacl) a where n.oid " OURS
        " and a.grantee <> n.nspowner and (a.privilege_type <> 'USAGE' or a.grantee::regrole::text "
        "not in ('durable_client', 'durable_read', 'durable_worker', 'durable_scheduler', "
        "'durable_api'))");
    NONE("select string_agg(format('%%s in %%s', m.member::regrole, m.roleid::regrole), ' ') from "
         "pg_auth_members m where "
         "m.member::regrole::text like 'durable\\_%%'");
}

/* A view works with its owner's rights; what it shows is decided by session_namespace() behind a
 * barrier. */
static void every_view_is_a_barrier_and_shows_a_stranger_nothing(void **state) {
    (void)state;
    NONE(
        "select string_agg(c.oid::regclass::text, ' ') from pg_class c where c.relnamespace = "
        "'durable'::regnamespace and "
        "c.relkind = 'v' and not ('security_barrier=true' = any (coalesce(c.reloptions, '{}')) and "
        "pg_get_viewdef(c.oid) like '%%SELECT durable_internal.session_namespace()%%')");
    PGresult *views = PQexec(
        conn, "select c.relname from pg_class c where c.relnamespace = 'durable'::regnamespace and "
              "c.relkind = 'v' order by 1");
    assert_in_range(PQntuples(views), 8, 100);
    for (int i = 0; i < PQntuples(views); i++) {
        const char *view = PQgetvalue(views, i, 0);
        if (sql_int(conn, "select count(*) from durable.%s", view) == 0) {
            fail_msg("durable.%s is empty: this test could not fail", view);
        }
        if (sql_int(foreign, "select count(*) from durable.%s", view) != 0 ||
            sql_int(reader, "select count(*) from durable.%s", view) != 0) {
            fail_msg("durable.%s shows another namespace", view);
        }
    }
    PQclear(views);
}

/* All that may be called beside what the two lists say. */
static void each_role_may_call_what_is_meant_for_it(void **state) {
    (void)state;
    NONE("select string_agg(p.oid::regprocedure::text, ' ') from pg_proc p where p.pronamespace = "
         "'durable'::regnamespace and "
         "(has_function_privilege('durable_client', p.oid, 'execute') is distinct from (p.proname "
         "<> 'grant_namespace') "
         "or has_function_privilege('durable_api', p.oid, 'execute') is distinct from (p.proname "
         "<> 'grant_namespace') "
         "or has_function_privilege('durable_read', p.oid, 'execute') is distinct from (p.proname "
         "in ('timeline', 'why')) "
         "or has_function_privilege('durable_worker', p.oid, 'execute') "
         "or has_function_privilege('durable_scheduler', p.oid, 'execute'))");
    NONE("select string_agg(p.oid::regprocedure::text, ' ') from pg_proc p where p.pronamespace = "
         "'durable_internal'::regnamespace and (has_function_privilege('durable_client', p.oid, "
         "'execute') or "
         "has_function_privilege('durable_read', p.oid, 'execute')) and p.proname not in "
         "('session_namespace', 'fail', "
         "'fail_not_available', 'run_status', 'attempt_outcome', 'waiting_for', 'json_time', "
         "'run_text', 'result_text', 'runs_page', 'timeline_page', 'why_text', 'queues_text', "
         "'workers_text', 'endpoints_text') and (has_function_privilege('durable_read', p.oid, "
         "'execute') or p.proname not in ('start_text', 'event_text', 'cancel_text', 'retry_text', "
         "'pause_queue_text', 'set_queue_text', 'api_state_get', 'api_state_set', "
         "'api_state_delete', 'api_state_increment', 'api_state_lock', 'api_state_unlock'))");
    /* What makes keys and namespaces is for owners. */
    NONE("select string_agg(format('%%s:%%s', r.role, p.oid::regprocedure), ' ') from pg_proc p, "
         "unnest(array['durable_client', "
         "'durable_read', 'durable_worker', 'durable_scheduler', 'durable_api']) as r (role) where "
         "p.pronamespace " OURS " and p.proname in ('grant_namespace', 'key_create', 'key_add', "
         "'key_list', 'key_revoke', 'key_rotate', "
         "'new_secret') and has_function_privilege(r.role, p.oid, 'execute')");
    NONE("select string_agg(p.oid::regprocedure::text, ' ') from pg_proc p where "
         "p.pronamespace " OURS " and p.proname in ('as_namespace', 'commit_secret') and "
         "(has_function_privilege('durable_client', p.oid, 'execute') "
         "or has_function_privilege('durable_scheduler', p.oid, 'execute') or "
         "has_function_privilege('durable_read', p.oid, "
         "'execute'))");
}

/* What each program says, and so all that its role may call. `kept` is what the version before
 * could say beside it: json_time is in a call for owners, and anybody may call it. */
static const struct program {
    const char *role, *sources, *kept;
} programs[] = {
    { "durable_worker", "worker/*.c", "" },
    { "durable_scheduler", "server/scheduler/*.c", "" },
    { "durable_api", "server/api/*.c", "durable_internal.json_time(" },
};
#define PROGRAMS (sizeof programs / sizeof *programs)

/* What its sources have that fits the pattern, a line for each. */
static void found_in(const struct program *program, const char *pattern, struct said *ret_said) {
    shell_said(ret_said, "cd '%s/../..' && grep -ohE '%s' %s | sort -u", getenv("DURABLE_BUILD"),
               pattern, program->sources);
}

static void note(const struct program *program, const char *text) {
    sql(conn, "insert into said values ('%s', $said$%s$said$)", program->role, text);
}

/* The text of a call is as the compiler has it. A few are not in common/db_calls.c. */
static void note_what_is_said(const struct program *program) {
    struct said said;
    int count = 0;
    char *rest = said.out;
    found_in(program, "durable_internal[.][a-z0-9_]+[(]", &said);
    note(program, said.out);
    note(program, program->kept);
    found_in(program, "\\bCALL_[A-Z0-9_]+", &said);
    for (char *name; (name = strsep(&rest, "\n")) != NULL;) {
        const struct db_call *call = dlsym(RTLD_DEFAULT, name);
        if (call != NULL) { /* else it is a number: CALL_MS_MAX */
            note(program, call->sql);
            count++;
        }
    }
    assert_in_range(count, 8, 200);
}

/* Beside what they say: what runs with the caller's rights on the way, in views, in those below
 * them, and in functions that the role may use. */
#define NEEDED                                                                                     \
    "with recursive role as (select distinct s.role from said s), "                                \
    "named as (select s.role, p.oid from said s, regexp_matches(s.text, "                          \
    "'durable_internal\\.(\\w+)\\(', 'g') as m, pg_proc p where p.pronamespace = "                 \
    "'durable_internal'::regnamespace and p.proname = m[1]), "                                     \
    "part as (select w.ev_class as view, d.refclassid, d.refobjid from pg_rewrite w join "         \
    "pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid), "                     \
    "seen as (select r.role, c.oid as view from role r, pg_class c where c.relnamespace = "        \
    "'durable'::regnamespace and c.relkind = 'v' and has_table_privilege(r.role, c.oid, "          \
    "'select') union select s.role, p.refobjid from seen s join part p on p.view = s.view and "    \
    "p.refclassid = 'pg_class'::regclass), "                                                       \
    "needed as (select n.role, n.oid from named n union select s.role, p.refobjid from seen s "    \
    "join part p on p.view = s.view and p.refclassid = 'pg_proc'::regclass union select r.role, "  \
    "p.oid from role r, pg_proc p where p.pronamespace = 'durable'::regnamespace and "             \
    "has_function_privilege(r.role, p.oid, 'execute') union select n.role, q.oid from needed n "   \
    "join pg_proc p on p.oid = n.oid and not p.prosecdef, regexp_matches(p.prosrc, "               \
    "'durable_internal\\.(\\w+)\\(', 'g') as m, pg_proc q where q.pronamespace = "                 \
    "'durable_internal'::regnamespace and q.proname = m[1]) "

static void each_program_may_call_what_it_says_and_nothing_else(void **state) {
    struct said elsewhere;
    (void)state;
    sql(conn, "create temp table said (role text, text text)");
    for (size_t i = 0; i < PROGRAMS; i++) {
        note_what_is_said(&programs[i]);
    }
    /* What all programs have in common says nothing: it would have to be read above. */
    shell_said(&elsewhere,
               "cd '%s/../..' && grep -lE '\\b(CALL_[A-Z0-9_]+\\b|durable_internal[.])' common/*.c",
               getenv("DURABLE_BUILD"));
    assert_string_equal(elsewhere.out, "common/db_calls.c\n");
    NONE(NEEDED
         "select string_agg(format('%%s may call %%s, and says it nowhere', r.role, "
         "p.oid::regprocedure), '; ') from role r, pg_proc p where "
         "p.pronamespace = 'durable_internal'::regnamespace and has_function_privilege(r.role, "
         "p.oid, 'execute') and not exists (select from needed n where n.role = r.role and n.oid = "
         "p.oid)");
    NONE(
        NEEDED
        "select string_agg(format('%%s says %%s, and may not', n.role, p.oid::regprocedure), '; ') "
        "from needed n join pg_proc p on p.oid = n.oid where p.pronamespace = "
        "'durable_internal'::regnamespace and not has_function_privilege(n.role, p.oid, "
        "'execute')");
    NONE("select string_agg(p.proname, ' ') from pg_proc p where p.pronamespace = "
         "'durable_internal'::regnamespace and (has_function_privilege('durable_worker', p.oid, "
         "'execute') or has_function_privilege('durable_scheduler', p.oid, 'execute') or "
         "has_function_privilege('durable_api', p.oid, 'execute')) and (select count(*) from "
         "pg_proc q where q.pronamespace = p.pronamespace and q.proname = p.proname) > 1");
    sql(conn, "drop table said");
}

/* As `durable migrate` does with a database that an older page of grants was for. */
static void what_an_older_page_of_grants_gave_is_taken_back(void **state) {
    struct said said;
    (void)state;
    sql(conn, "grant execute on function durable_internal.endpoint_secrets(int, text) to "
              "durable_api, durable_worker, durable_client");
    shell_said(&said,
               "psql -X -q -1 -v ON_ERROR_STOP=1 '%s' -f "
               "'%s/../../migrations/functions/90_grants.sql'",
               url, getenv("DURABLE_BUILD"));
    assert_int_equal(said.status, 0);
    NONE("select string_agg(a.grantee::regrole::text, ' ') from pg_proc p, aclexplode(p.proacl) a "
         "where p.proname = 'endpoint_secrets' and p.pronamespace = "
         "'durable_internal'::regnamespace and a.grantee <> p.proowner");
}

/* Who asks can put together a row as he likes: each function that takes one of ours is called with
 * rows of the other namespace, whose own gets an answer to them. */
static void what_a_made_up_row_is_asked_for_is_not_said_of_another_namespace(void **state) {
    (void)state;
    PGresult *arguments = PQexec(
        conn,
        "with callable as (select p.oid, a.type, a.n, t.typrelid, max(t.typrelid) over (partition "
        "by p.oid) > 0 as takes_row from pg_proc p, unnest(p.proargtypes::oid[]) with ordinality "
        "as a (type, n), pg_type t where t.oid = a.type and p.pronamespace " OURS " and "
        "(has_function_privilege('durable_client', p.oid, 'execute') or "
        "has_function_privilege('durable_read', p.oid, 'execute') or "
        "has_function_privilege('durable_api', p.oid, 'execute'))) select c.oid::regproc, "
        "c.type::regtype, c.typrelid <> 0, exists (select from pg_attribute m where m.attrelid = "
        "c.typrelid and m.attname = 'namespace_id'), c.n = max(c.n) over (partition by c.oid) from "
        "callable c where c.takes_row order by c.oid, c.n");
    assert_in_range(PQntuples(arguments), 1, 100);
    char text[2048] = "";
    for (int i = 0; i < PQntuples(arguments); i++) {
        const char *function = PQgetvalue(arguments, i, 0), *type = PQgetvalue(arguments, i, 1);
        const char *row = "null";
        if (PQgetvalue(arguments, i, 2)[0] == 't') {
            row = sql_text(conn, "select quote_literal(x) from %s as x where %s limit 1", type,
                           PQgetvalue(arguments, i, 3)[0] == 't' ? "namespace_id = 1" : "true");
            assert_string_not_equal(row, "");
        }
        size_t length = strlen(text);
        (void)snprintf(text + length, sizeof text - length, "%s%s::%s", length == 0 ? "" : ", ",
                       row, type);
        if (PQgetvalue(arguments, i, 4)[0] == 't') {
            if (sql_text(conn, "select %s(%s)", function, text)[0] == '\0') {
                fail_msg("%s(%s) is empty: this test could not fail", function, text);
            }
            const char *said = sql_text(foreign, "select %s(%s)", function, text);
            if (said[0] != '\0') {
                fail_msg("%s says '%s' of another namespace", function, said);
            }
            text[0] = '\0';
        }
    }
    PQclear(arguments);
}

/* A call of each function of schema durable with what the other namespace has. `sqlstate` NULL: it
 * answers `value`, as it would had there been nothing. */
static const struct {
    const char *function, *call, *sqlstate, *value;
} calls[] = {
    { "start", "select (durable.start('job', '1', idempotency_key => 'key') = '%s')::int", NULL,
      "0" },
    { "start_many",
      "select count(*) from durable.start_many('job', array['1'::jsonb], idempotency_keys => "
      "array['key']) "
      "as s where s.s = '%s'",
      NULL, "0" },
    { "send_event", "select durable.send_event('event', '2', 'key', 'key') is not null", NULL,
      "t" },
    { "cancel", "select durable.cancel('%s')", "DJ003", NULL },
    { "retry", "select durable.retry('%s')", "DJ003", NULL },
    { "reschedule", "select durable.reschedule('%s', now())", "DJ003", NULL },
    { "fork", "select durable.fork('%s', 's')", "DJ006", NULL },
    { "release_key", "select durable.release_key('key')", NULL,
      "t" }, /* its own, of the start above */
    { "set_queue", "select durable.set_queue('queue', max_attempts => 9)", NULL, "" },
    { "pause_queue", "select durable.pause_queue('queue')", NULL, "" },
    { "resume_queue", "select durable.resume_queue('queue')", NULL, "" },
    { "redrive", "select durable.redrive('queue')", "DJ006", NULL },
    { "set_schedule", "select durable.set_schedule('s', 'job', '* * * * *')", "DJ006", NULL },
    { "drop_schedule", "select durable.drop_schedule('s')", "DJ006", NULL },
    { "set_retention", "select durable.set_retention()", "DJ006", NULL },
    { "state_get", "select value is null from durable.state_get('state')", NULL, "t" },
    { "state_delete", "select durable.state_delete('state')", NULL, "f" },
    { "state_set", "select durable.state_set('state', '1') is not null", NULL, "t" },
    { "state_increment", "select durable.state_increment('counter', 5)", NULL, "5" },
    { "state_unlock", "select durable.state_unlock('lock', 'me')", NULL, "f" },
    { "state_lock", "select durable.state_lock('lock', 'you', '1 hour')", NULL, "t" },
    { "timeline", "select * from durable.timeline('%s')", "DJ003", NULL },
    { "why", "select durable.why('%s')", "DJ003", NULL },
    { "grant_namespace", "select durable.grant_namespace('default', session_user)", "42501", NULL },
};
#define CALLS (sizeof calls / sizeof *calls)

static const char *all_of_default(void) {
    return strdup(
        sql_text(conn, "select md5(string_agg(md5(query_to_xml(format('select x from "
                       "durable_internal.%%I as x where namespace_id = 1 "
                       "order by x::text', c.relname), true, true, '')::text), ' ' order by "
                       "c.relname)) from pg_class c join "
                       "pg_attribute a on a.attrelid = c.oid and a.attname = 'namespace_id' where "
                       "c.relkind in ('r', 'p') and not "
                       "c.relispartition and c.relnamespace = 'durable_internal'::regnamespace"));
}

static void no_function_touches_another_namespace(void **state) {
    char text[512];
    (void)state;
    const char *before = all_of_default();
    for (size_t i = 0; i < CALLS; i++) {
        (void)snprintf(text, sizeof text, calls[i].call, run_id);
        if (calls[i].sqlstate != NULL) {
            (void)sql_error(foreign, calls[i].sqlstate, "%s", text);
        } else if (strcmp(sql_text(foreign, "%s", text), calls[i].value) != 0) {
            fail_msg("%s: %s", text, sql_text(foreign, "%s", text));
        }
        if (strcmp(before, all_of_default()) != 0) {
            fail_msg("%s changed the other namespace", text);
        }
    }
    if (sql_int(conn,
                "select count(*) from pg_proc where pronamespace = 'durable'::regnamespace") !=
        CALLS) {
        fail_msg("a function of schema durable has no row here");
    }
}

/* The same of what `durable` calls over SQL. Lists show nothing; changes make something of the
 * caller's own. */
static void no_call_of_the_command_line_touches_another_namespace(void **state) {
    static const struct {
        const char *call, *sqlstate;
    } ours[] = {
        { "run_text('%s', true)", "DJ003" },
        { "result_text('%s', true)", "DJ003" },
        { "timeline_page('%s', 0, 10)", "DJ003" },
        { "why_text('%s')", "DJ003" },
        { "cancel_text('%s', null, true)", "DJ003" },
        { "retry_text('%s', null, true)", "DJ003" },
        { "api_state_get('untouched', true)", "DJ003" },
        { "api_state_delete('untouched')", "DJ003" },
        { "api_state_unlock('untouched', 'me')", "DJ006" },
        { "runs_page(null, null, null, null, null, null, null, null, 10, true)", NULL },
        { "queues_text()", NULL },
        { "workers_text()", NULL },
        { "endpoints_text()", NULL },
        { "start_text('job', '1', 'default', 'untouched', null, null, null, 0, null, null, '{}', "
          "null)",
          NULL },
        { "event_text('event', '2', 'key', 'untouched')", NULL },
        { "pause_queue_text('queue', true)", NULL },
        { "set_queue_text('queue', null, null, null, null, null, null, null, 9, null, null)",
          NULL },
        { "api_state_lock('untouched', 'you', '1 hour')", NULL },
        { "api_state_set('untouched', '1', null, 0, true)", NULL },
        { "api_state_increment('untouched', 1, null)", NULL },
    };
    char names[1024] = "";
    (void)state;
    sql(conn, "select durable.state_set('untouched', '\"canary\"')");
    sql(conn, "select durable.state_lock('untouched', 'me', '1 hour')");
    sql(conn, "select durable.start('job', '\"canary\"', idempotency_key => 'untouched')");
    const char *before = all_of_default();
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, ours[i].call, run_id);
        if (ours[i].sqlstate != NULL) {
            (void)sql_error(foreign, ours[i].sqlstate, "select durable_internal.%s", text);
        } else if (strstr(sql_text(foreign, "select durable_internal.%s", text), "canary")) {
            fail_msg("%s shows another namespace", text);
        }
        if (strcmp(before, all_of_default()) != 0) {
            fail_msg("%s changed the other namespace", text);
        }
        (void)snprintf(names + strlen(names), sizeof names - strlen(names), "'%.*s',",
                       (int)strcspn(ours[i].call, "("), ours[i].call);
    }
    const char *others =
        sql_text(conn,
                 "select string_agg(proname, ', ') from pg_proc where pronamespace = "
                 "'durable_internal'::regnamespace and has_function_privilege('durable_client', "
                 "oid, 'execute') and proname not in (%s 'session_namespace', 'fail', "
                 "'fail_not_available', 'run_status', 'attempt_outcome', 'waiting_for', "
                 "'json_time')", /* what views call: of a row, or of nothing in the database */
                 names);
    if (others[0] != '\0') {
        fail_msg("a client may call %s: a row is missing here", others);
    }
}

static void a_reader_changes_nothing(void **state) {
    char text[512];
    (void)state;
    for (size_t i = 0; i < CALLS; i++) {
        bool reads =
            strcmp(calls[i].function, "timeline") == 0 || strcmp(calls[i].function, "why") == 0;
        (void)snprintf(text, sizeof text, calls[i].call, run_id);
        (void)sql_error(reader, reads ? "DJ003" : "42501", "%s", text);
    }
}

/* Functions and operators of the caller's own in front of PostgreSQL's, and the setting that names
 * a namespace. */
static void nothing_of_the_callers_runs_with_our_rights(void **state) {
    (void)state;
    sql(foreign, "set durable.namespace = '1'");
    sql(foreign,
        "set search_path = %s; "
        "create function pg_has_role(name, text, text) returns boolean language sql as 'select "
        "true'; "
        "create function pg_has_role(name, name, text) returns boolean language sql as 'select "
        "true'; "
        "create table ran (as_whom name); grant all on ran to public; "
        "create function current_setting(text) returns text language plpgsql as $$ begin insert "
        "into %s.ran values "
        "(current_user); return '1'; exception when others then return '1'; end $$; "
        "create function current_setting(text, boolean) returns text language sql as $$ select "
        "%s.current_setting($1) $$; "
        "create function clock_timestamp() returns timestamptz language plpgsql as $$ begin insert "
        "into %s.ran values "
        "(current_user); return pg_catalog.clock_timestamp(); exception when others then return "
        "pg_catalog.clock_timestamp(); end $$; "
        "create function eq(name, name) returns boolean language sql as 'select true'; "
        "create operator = (function = eq, leftarg = name, rightarg = name)",
        role[0], role[0], role[0], role[0]);
    sql(foreign, "set search_path = %s, pg_catalog", role[0]);
    assert_int_equal(sql_int(foreign, "select count(*) from durable.runs where id = '%s'", run_id),
                     0);
    (void)sql_error(foreign, "DJ003", "select durable.cancel('%s')", run_id);
    (void)sql_error(foreign, "DJ003", "select * from durable.timeline('%s')", run_id);
    for (size_t i = 0; i < CALLS; i++) {
        char text[512];
        (void)snprintf(text, sizeof text, calls[i].call, run_id);
        PQclear(PQexec(foreign, text));
    }
    assert_int_equal(
        sql_int(conn, "select count(*) from %s.ran where as_whom <> '%s'", role[0], role[0]), 0);
    sql(foreign, "reset search_path");
    assert_int_equal(sql_int(foreign, "select count(*) from durable.runs where id = '%s'", run_id),
                     0);
    sql(foreign, "reset durable.namespace");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_definer_has_its_own_search_path),
        cmocka_unit_test(the_public_may_call_nothing_and_see_nothing),
        cmocka_unit_test(relations_are_granted_as_views_for_reading),
        cmocka_unit_test(every_view_is_a_barrier_and_shows_a_stranger_nothing),
        cmocka_unit_test(each_role_may_call_what_is_meant_for_it),
        cmocka_unit_test(each_program_may_call_what_it_says_and_nothing_else),
        cmocka_unit_test(what_an_older_page_of_grants_gave_is_taken_back),
        cmocka_unit_test(what_a_made_up_row_is_asked_for_is_not_said_of_another_namespace),
        cmocka_unit_test(no_function_touches_another_namespace),
        cmocka_unit_test(no_call_of_the_command_line_touches_another_namespace),
        cmocka_unit_test(a_reader_changes_nothing),
        cmocka_unit_test(nothing_of_the_callers_runs_with_our_rights),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
