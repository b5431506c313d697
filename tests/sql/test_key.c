/* API keys: what is kept of one, who is found by it, and how one ends. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

static const char *url;
static PGconn *conn;

static int setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    return 0;
}

/* Makes a key in a namespace; answers its whole text. Its id is the part in the middle. */
static const char *key_new(const char *namespace, const char *scopes) {
    return sql_text(conn, "select key from durable_internal.key_create('%s', 'test', '{%s}')",
                    namespace, scopes);
}

static const char *id_of(const char *key) {
    return sql_text(conn, "select split_part('%s', '_', 2)", key);
}

/* How many rows key_find answers for an id: 1 or 0. */
static long long found(const char *id) {
    return sql_int(conn, "select count(*) from durable_internal.key_find('%s')", id);
}

static void a_key_has_256_bits_and_its_hash_alone_is_kept(void **state) {
    (void)state;
    const char *key = key_new("default", "read");
    assert_int_equal(strlen(key), 3 + 16 + 1 + 43);
    assert_int_equal(sql_int(conn, "select '%s' ~ '^dj_[A-Za-z0-9]{16}_[A-Za-z0-9]{43}$'", key), 1);
    assert_int_equal(sql_int(conn,
                             "select hash = sha256(convert_to('%s', 'UTF8')) from "
                             "durable_internal.key_find('%s')",
                             key, id_of(key)),
                     1);
    assert_int_equal(sql_int(conn,
                             "select count(*) from durable_internal.api_key k where k::text like "
                             "'%%' || split_part('%s', '_', 3) || '%%'",
                             key),
                     0);
}

/* 200 texts of 43 letters: each of 62 comes 139 times, give or take five standard deviations. */
static void the_letters_of_a_secret_are_equally_likely(void **state) {
    (void)state;
    sql(conn, "create table letter as select substr(t, n, 1) as letter from (select "
              "durable_internal.random_text(43) as t from generate_series(1, 200)) as t, "
              "generate_series(1, 43) as n");
    assert_int_equal(sql_int(conn, "select count(*) from letter"), 200LL * 43);
    assert_int_equal(sql_int(conn, "select count(distinct letter collate \"C\") from letter"), 62);
    assert_int_equal(sql_int(conn,
                             "select count(*) from (select from letter group by letter collate "
                             "\"C\" having count(*) not between 80 and 198) as odd"),
                     0);
}

static void a_key_is_of_its_namespace_which_is_made_with_it(void **state) {
    char first[40], second[40];
    (void)state;
    (void)snprintf(first, sizeof first, "%s", id_of(key_new("acme", "start,read,start")));
    (void)snprintf(second, sizeof second, "%s", id_of(key_new("acme", "admin")));
    const char *scopes = sql_text(
        conn, "select array_to_string(scopes, ',') from durable_internal.key_find('%s')", first);
    assert_string_equal(scopes, "read,start");
    assert_int_equal(sql_int(conn,
                             "select count(*) from durable_internal.namespace n, "
                             "durable_internal.key_find('%s') a, durable_internal.key_find('%s') b "
                             "where n.name = 'acme' and n.id = a.namespace_id and n.id = "
                             "b.namespace_id",
                             first, second),
                     1);
}

static void two_that_make_one_namespace_both_get_it(void **state) {
    PGconn *other = connect_to(url);
    (void)state;
    sql(conn, "begin");
    (void)key_new("twice", "read");
    assert_int_equal(
        PQsendQuery(other, "select durable_internal.key_create('twice', 'b', '{read}')"), 1);
    assert_true(is_blocked(conn, other));
    sql(conn, "commit");
    PGresult *result = PQgetResult(other);
    assert_int_equal(PQresultStatus(result), PGRES_TUPLES_OK);
    PQclear(result);
    PQfinish(other);
    assert_int_equal(sql_int(conn,
                             "select count(distinct namespace) from durable_internal.key_list() "
                             "where namespace = 'twice'"),
                     1);
}

static void unknown_revoked_and_expired_keys_are_not_found(void **state) {
    char id[40];
    (void)state;
    assert_int_equal(found("AAAAAAAAAAAAAAAA"), 0);
    assert_int_equal(found(""), 0);
    (void)snprintf(id, sizeof id, "%s", id_of(key_new("default", "read")));
    assert_int_equal(found(id), 1);
    sql(conn,
        "update durable_internal.api_key set expires_at = clock_timestamp() + '1 minute' where id "
        "= '%s'",
        id);
    assert_int_equal(found(id), 1);
    sql(conn, "update durable_internal.api_key set expires_at = clock_timestamp() where id = '%s'",
        id);
    assert_int_equal(found(id), 0);
    sql(conn, "update durable_internal.api_key set expires_at = null where id = '%s'", id);
    assert_int_equal(sql_int(conn, "select durable_internal.key_revoke('%s')", id), 1);
    assert_int_equal(found(id), 0);
    assert_int_equal(sql_int(conn, "select durable_internal.key_revoke('%s')", id), 0);
}

/* Takes the notifications that have come; answers how many name this key. */
static int notified(PGconn *listener, const char *id) {
    int count = 0;
    sql(listener, "select 1");
    for (PGnotify *note = PQnotifies(listener); note != NULL; note = PQnotifies(listener)) {
        count += strcmp(note->relname, "durable_keys") == 0 && strcmp(note->extra, id) == 0;
        PQfreemem(note);
    }
    return count;
}

static void a_rotated_key_and_its_successor_both_hold_for_the_overlap(void **state) {
    char id[40], next[40];
    PGconn *listener = connect_to(url);
    (void)state;
    sql(listener, "listen durable_keys");
    (void)snprintf(id, sizeof id, "%s", id_of(key_new("acme", "read,payloads")));
    (void)snprintf(next, sizeof next, "%s",
                   id_of(sql_text(conn, "select key from durable_internal.key_rotate('%s')", id)));
    assert_int_equal(notified(listener, id), 1);
    assert_int_equal(found(id), 1);
    assert_int_equal(found(next), 1);
    assert_string_equal(
        sql_text(conn,
                 "select concat_ws(' ', a.scopes = b.scopes, a.namespace = "
                 "b.namespace, a.replaced_by = b.key_id, b.expires_at is null, "
                 "a.expires_at between clock_timestamp() + '23 hours 59 minutes' and "
                 "clock_timestamp() + '24 hours') from durable_internal.key_list() a, "
                 "durable_internal.key_list() b where a.key_id = '%s' and b.key_id = "
                 "'%s'",
                 id, next),
        "t t t t t");
    assert_non_null(
        strstr(sql_error(conn, "DJ006", "select durable_internal.key_rotate('%s')", id), next));
    sql(conn, "select durable_internal.key_rotate('%s', '0')", next);
    assert_int_equal(found(next), 0);
    sql(conn, "select durable_internal.key_revoke('%s')", id);
    assert_int_equal(found(id), 0);
    assert_int_equal(notified(listener, id), 1);
    PQfinish(listener);
}

static void rotating_does_not_lengthen_a_keys_life(void **state) {
    char id[40];
    (void)state;
    (void)snprintf(id, sizeof id, "%s", id_of(key_new("default", "read")));
    sql(conn,
        "update durable_internal.api_key set expires_at = clock_timestamp() + '1 hour' where id = "
        "'%s'",
        id);
    sql(conn, "select durable_internal.key_rotate('%s')", id);
    assert_int_equal(sql_int(conn,
                             "select count(*) from durable_internal.key_list() a join "
                             "durable_internal.key_list() b on b.key_id = a.replaced_by where "
                             "a.key_id = '%s' and a.expires_at = b.expires_at and a.expires_at < "
                             "clock_timestamp() + '1 hour'",
                             id),
                     1);
}

static void of_two_that_rotate_one_key_one_has_a_successor(void **state) {
    char id[40], text[128];
    PGconn *other = connect_to(url);
    (void)state;
    (void)snprintf(id, sizeof id, "%s", id_of(key_new("default", "read")));
    sql(conn, "begin");
    sql(conn, "select durable_internal.key_rotate('%s')", id);
    (void)snprintf(text, sizeof text, "select durable_internal.key_rotate('%s')", id);
    assert_int_equal(PQsendQuery(other, text), 1);
    assert_true(is_blocked(conn, other));
    sql(conn, "commit");
    PGresult *result = PQgetResult(other);
    assert_string_equal(PQresultErrorField(result, PG_DIAG_SQLSTATE), "DJ006");
    PQclear(result);
    PQfinish(other);
}

static void what_is_wrong_is_named_and_no_secret_is_shown(void **state) {
    static const struct {
        const char *sqlstate, *named, *call;
    } rows[] = {
        { "DJ001", "namespace 'a b'", "key_create('a b', 'n', '{read}')" },
        { "DJ001", "name ''", "key_create('new', '', '{read}')" },
        { "DJ001", "scopes is empty", "key_create('new', 'n', '{}')" },
        { "DJ001", "scopes is empty", "key_create('new', 'n', null)" },
        { "DJ001", "scopes has 'write'", "key_create('new', 'n', '{read,write}')" },
        { "DJ001", "scopes has a null", "key_create('new', 'n', '{null}')" },
        { "DJ001", "key_id", "key_revoke(null)" },
        { "DJ001", "key_id", "key_revoke('AAAAAAAAAAAAAAA')" },
        { "DJ003", "key AAAAAAAAAAAAAAAA", "key_revoke('AAAAAAAAAAAAAAAA')" },
        { "DJ003", "key AAAAAAAAAAAAAAAA", "key_rotate('AAAAAAAAAAAAAAAA')" },
        { "DJ001", "overlap -1", "key_rotate('AAAAAAAAAAAAAAAA', '-1 days')" },
        { "DJ001", "overlap", "key_rotate('AAAAAAAAAAAAAAAA', '3650 days 1 second')" },
        { "DJ001", "overlap null", "key_rotate('AAAAAAAAAAAAAAAA', null)" },
    };
    char key[80];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *message =
            sql_error(conn, rows[i].sqlstate, "select durable_internal.%s", rows[i].call);
        if (strstr(message, rows[i].named) == NULL) {
            fail_msg("%s: %s", rows[i].call, message);
        }
    }
    (void)snprintf(key, sizeof key, "%s", key_new("default", "read"));
    assert_null(strstr(sql_error(conn, "DJ001", "select durable_internal.key_revoke('%s')", key),
                       key + 20));
    sql(conn, "select durable_internal.key_revoke('%s')", id_of(key));
    assert_non_null(
        strstr(sql_error(conn, "DJ006", "select durable_internal.key_rotate('%s')", id_of(key)),
               "revoked"));
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.namespace where name = 'new'"), 0);
}

static void only_the_api_may_find_keys_and_only_owners_do_more(void **state) {
    static const struct {
        const char *role;
        bool finds;
    } roles[] = { { "durable_api", true },
                  { "durable_client", false },
                  { "durable_read", false },
                  { "durable_worker", false },
                  { "durable_scheduler", false } };
    static const char *const calls[] = { "key_create(text, text, text[])", "key_list()",
                                         "key_revoke(text)", "key_rotate(text, interval)",
                                         "key_add(int, text, text[], timestamptz)" };
    (void)state;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        assert_int_equal(sql_int(conn,
                                 "select has_function_privilege('%s', "
                                 "'durable_internal.key_find(text)', 'execute')",
                                 roles[i].role),
                         roles[i].finds);
        for (size_t j = 0; j < sizeof calls / sizeof *calls; j++) {
            assert_int_equal(
                sql_int(conn,
                        "select has_function_privilege('%s', 'durable_internal.%s', 'execute')",
                        roles[i].role, calls[j]),
                0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_has_256_bits_and_its_hash_alone_is_kept),
        cmocka_unit_test(the_letters_of_a_secret_are_equally_likely),
        cmocka_unit_test(a_key_is_of_its_namespace_which_is_made_with_it),
        cmocka_unit_test(two_that_make_one_namespace_both_get_it),
        cmocka_unit_test(unknown_revoked_and_expired_keys_are_not_found),
        cmocka_unit_test(a_rotated_key_and_its_successor_both_hold_for_the_overlap),
        cmocka_unit_test(rotating_does_not_lengthen_a_keys_life),
        cmocka_unit_test(of_two_that_rotate_one_key_one_has_a_successor),
        cmocka_unit_test(what_is_wrong_is_named_and_no_secret_is_shown),
        cmocka_unit_test(only_the_api_may_find_keys_and_only_owners_do_more),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
