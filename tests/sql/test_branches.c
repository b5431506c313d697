/* Ops that suspend: waits, children, several at once; and what a retry makes of them. */
#include "ops.h"

#include <string.h>

static void what_suspends_is_the_last_op(void **state) {
    (void)state;
    assert_non_null(
        strstr(commit_ops("http", "[{\"op\": \"sleep\", \"name\": \"s\", \"duration\": \"1h\"}, "
                                  "{\"op\": \"step\", \"name\": \"a\", \"result\": 1}]"),
               "comes after one that suspends"));
    assert_string_equal(status("http"), "running");
    (void)commit_ops("http", "[{\"op\": \"sleep\", \"name\": \"s\", \"duration\": \"1h\"}]");
    assert_string_equal(status("http"), "waiting");
    assert_string_equal(commit_ops("http", "[]"), "{\"code\": \"lease_lost\"}");
}

static void a_wait_for_any_takes_the_first_of_its_events(void **state) {
    const char *wait =
        "[{\"op\": \"wait_any\", \"name\": \"any\", \"timeout\": \"1h\", \"events\": [{\"event\": "
        "\"paid\", "
        "\"correlationKey\": \"o1\"}, {\"event\": \"refused\"}, {\"event\": \"gone\", "
        "\"correlationKey\": \"o1\"}]}]";
    (void)state;
    (void)commit_ops("http", wait);
    sql(conn, "select durable.send_event('refused', '{}', 'o1')"); /* not with a key */
    sql(conn, "select durable.send_event('gone', '{\"n\": 1}', 'o1'), durable.send_event('paid', "
              "'{}', 'o1')");
    match();
    claim();
    assert_string_equal(
        sql_text(conn,
                 "select format('%%s %%s', s.kind, s.result - '{id,receivedAt}'::text[]) from "
                 "durable.steps s join c using (run_id)"),
        "wait_any {\"name\": \"gone\", \"payload\": {\"n\": 1}, \"timedOut\": false, "
        "\"correlationKey\": \"o1\"}");
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait_other"), 0);
    (void)commit_ops("http", wait);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait_other"), 2);
    sql(conn, "select durable.cancel(run_id) from c");
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait_other"), 0);
}

static void a_child_gives_its_result_to_its_parent(void **state) {
    (void)state;
    (void)commit_ops(
        "http",
        "[{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\", \"payload\": {\"k\": 1}}]");
    assert_string_equal(
        sql_text(conn,
                 "select waiting_for ->> 'kind' from durable.runs r join c on c.run_id = r.id"),
        "child");
    claim();
    answer("kid", "{\"status\": \"completed\", \"result\": {\"done\": true}}");
    assert_string_equal(status("kid"), "completed");
    match();
    claim();
    assert_string_equal(
        sql_text(conn, "select array_to_string(memory, ' ') from c where job = 'http'"),
        "1 child kid {\"done\": true}");
    assert_int_equal(sql_int(conn, "select count(*) from durable.events where name = '$child'"), 0);
}

static void a_child_that_fails_gives_its_error_to_its_parent(void **state) {
    (void)state;
    (void)commit_ops("http", "[{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\"}]");
    claim();
    answer("kid", "{\"status\": \"failed\", \"error\": {\"name\": \"Oops\", \"message\": \"no\"}}");
    match();
    claim();
    assert_string_equal(sql_text(conn, "select memory[5] from c where job = 'http'"),
                        "{\"name\": \"Oops\", \"message\": \"no\"}");
}

static void a_cancelled_parent_cancels_its_child(void **state) {
    (void)state;
    (void)commit_ops("http", "[{\"op\": \"child\", \"name\": \"kid\", \"job\": \"kid\"}]");
    sql(conn, "select durable.cancel(run_id) from c");
    assert_string_equal(status("kid"), "cancelled");
}

/* What the run of job `http` that was just claimed remembers: position, kind, name, result, error.
 */
static const char *memory(void) {
    return sql_text(conn, "select array_to_string(memory, ' ', '-') from c where job = 'http'");
}

#define KID(name) "{\"op\": \"child\", \"name\": \"" name "\", \"job\": \"kid\"}"

static void several_children_run_at_once(void **state) {
    (void)state;
    sql(conn, "create table parent as select * from c");
    (void)commit_ops("http", "[" KID("a") ", " KID("b") ", " KID("c") "]");
    claim();
    assert_int_equal(sql_int(conn, "select count(*) from c where job = 'kid'"), 3);
    sql(conn, "create table kids as select c.*, b.name from c join durable_internal.branch b on "
              "b.child_id = c.run_id");
    static const char *const order[] = { "b", "c", "a" };
    for (int i = 0; i < 3; i++) {
        sql(conn,
            "delete from c; insert into c select run_id, fence, job, queue, attempt, payload, "
            "memory, bytes, facts, worker_id from kids where name = '%s'",
            order[i]);
        answer("kid", sql_text(conn,
                               "select format('{\"status\": \"completed\", \"result\": "
                               "\"of %%s\"}', '%s')",
                               order[i]));
        match();
        claim();
        assert_non_null(strstr(memory(), order[i]));
        (void)commit_ops("http", i == 0   ? "[" KID("a") ", " KID("c") "]"
                                 : i == 1 ? "[" KID("a") "]"
                                          : "[]");
    }
    assert_string_equal(memory(), "1 child b \"of b\" - 2 child c \"of c\" - 3 child a \"of a\" -");
    assert_int_equal(sql_int(conn, "select count(*) from durable.runs r join parent p on "
                                   "r.parent_run_id = p.run_id"),
                     3); /* none was started again */
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.branch join parent using (run_id)"),
        0);
    assert_int_equal(sql_int(conn, "select count(*) from durable_internal.wait_other"), 0);
    sql(conn, "drop table parent, kids");
}

#define EVENT(name, event, on_timeout)                                                             \
    "{\"op\": \"wait_event\", \"name\": \"" name "\", \"event\": \"" event                         \
    "\", \"timeout\": \"1h\", \"onTimeout\": \"" on_timeout "\"}"
#define SLEEP "{\"op\": \"sleep\", \"name\": \"nap\", \"duration\": \"30m\"}"

static void time_goes_by(void) {
    sql(conn, "update durable_internal.timer set due_at = clock_timestamp() where kind = "
              "'wait_timeout'");
    (void)sql_int(conn, "select promoted from durable_internal.promote_due(100, -1)");
}

static void what_is_first_of_several_goes_on(void **state) {
    (void)state;
    (void)commit_ops("http", "[" EVENT("x", "late", "fail") ", " SLEEP
                                                            ", " EVENT("y", "early", "fail") "]");
    assert_string_equal(status("http"), "waiting");
    sql(conn, "select durable.send_event('early')");
    match();
    claim();
    assert_non_null(strstr(memory(), "1 wait_event y {"));
    const char *due = "select due_at::text from durable_internal.branch where name = 'nap'";
    char since[64];
    (void)snprintf(since, sizeof since, "%s", sql_text(conn, "%s", due));
    (void)commit_ops("http", "[" EVENT("x", "late", "fail") ", " SLEEP "]");
    assert_string_equal(sql_text(conn, "%s", due), since); /* it does not begin anew */
    time_goes_by();
    claim();
    assert_non_null(strstr(memory(), "2 sleep nap - -"));
    (void)commit_ops("http", "[" EVENT("x", "late", "continue") "]");
    time_goes_by();
    claim();
    assert_non_null(strstr(memory(), "3 wait_event x {\"timedOut\": true} -"));
    assert_int_equal(
        sql_int(conn, "select count(*) from durable_internal.branch join c using (run_id)"), 0);
}

static void two_waits_for_one_event_take_two(void **state) {
    (void)state;
    (void)commit_ops("http",
                     "[" EVENT("x", "twice", "fail") ", " EVENT("x#2", "twice", "fail") "]");
    sql(conn, "select durable.send_event('twice', '1'), durable.send_event('twice', '2')");
    match();
    claim();
    (void)commit_ops("http", "[" EVENT("x#2", "twice", "fail") "]");
    match();
    claim();
    assert_string_equal(
        sql_text(conn, "select string_agg(name || ' ' || (result ->> 'payload'), ', ' order by "
                       "position) from durable.steps join c using (run_id)"),
        "x 1, x#2 2");
}

static void one_of_several_that_is_too_late_ends_the_run(void **state) {
    (void)state;
    (void)commit_ops("http", "[" KID("kid") ", " EVENT("x", "x", "cancel") "]");
    time_goes_by();
    assert_string_equal(status("http"), "cancelled");
    assert_string_equal(status("kid"), "cancelled");
}

/* The error in the middle was caught, and what came behind it is remembered. */
static void a_retry_does_again_what_failed_in_its_place(void **state) {
    (void)state;
    (void)commit_ops("http",
                     "[{\"op\": \"step\", \"name\": \"a\", \"result\": 1}, {\"op\": \"step\", "
                     "\"name\": \"b\", \"error\": {\"message\": \"no\"}}, {\"op\": \"step\", "
                     "\"name\": \"c\", \"result\": 3}]");
    (void)commit_ops("http", "[" KID("kid") "]");
    claim();
    answer("kid", "{\"status\": \"failed\", \"error\": {\"message\": \"no\"}}");
    match();
    claim();
    (void)commit_ops("http", "[{\"op\": \"step\", \"name\": \"d\", \"result\": 5}]");
    answer("http",
           "{\"status\": \"failed\", \"error\": {\"message\": \"no\", \"retryable\": false}}");
    sql(conn, "select durable.retry(run_id) from c");
    claim();
    assert_string_equal(memory(),
                        "1 step a 1 - -2 step b - - 3 step c 3 - -4 child kid - - 5 step d 5 -");
    assert_int_equal(sql_int(conn, "select count(*) from durable.steps join c using (run_id)"), 3);
    (void)commit_ops("http", "[{\"op\": \"step\", \"name\": \"b\", \"result\": 2}]");
    (void)commit_ops("http", "[" KID("kid") "]");
    claim();
    answer("kid", "{\"status\": \"completed\", \"result\": 4}");
    match();
    claim();
    assert_string_equal(memory(),
                        "1 step a 1 - 2 step b 2 - 3 step c 3 - 4 child kid 4 - 5 step d 5 -");
    (void)commit_ops("http", "[{\"op\": \"step\", \"name\": \"e\", \"result\": 6}]");
    assert_int_equal(sql_int(conn, "select position from durable.steps join c using (run_id) where "
                                   "name = 'e'"),
                     6);
}

/* The children of our run, oldest first: how each stands. */
static const char *children(void) {
    return sql_text(conn,
                    "select coalesce(string_agg(r.status, ' ' order by r.created_at), '') from "
                    "durable.runs r join parent p on r.parent_run_id = p.run_id");
}

/* Our run begins to wait for these children, and its time is over before they end. */
static void children_outlive_their_parent(const char *ops) {
    sql(conn, "drop table if exists parent");
    sql(conn, "create table parent as select * from c");
    (void)commit_ops("http", ops);
    sql(conn, "select durable_internal.time_out_run(run_id) from parent");
    assert_string_equal(status("http"), "failed");
}

/* … it is retried, and asks for what it does not remember. */
static void retry_asks_for(const char *ops) {
    sql(conn, "select durable.retry(run_id) from parent");
    claim();
    (void)commit_ops("http", ops);
}

static void a_retry_waits_for_a_child_that_is_alive(void **state) {
    (void)state;
    children_outlive_their_parent("[" KID("kid") "]");
    retry_asks_for("[" KID("kid") "]"); /* claims the child as well */
    assert_string_equal(children(), "running");
    answer("kid", "{\"status\": \"completed\", \"result\": 1}");
    match();
    claim();
    assert_string_equal(memory(), "1 child kid 1 -");
    assert_string_equal(children(), "completed");
}

static void a_retry_takes_the_result_of_a_child_that_has_completed(void **state) {
    (void)state;
    children_outlive_their_parent("[" KID("kid") "]");
    claim();
    answer("kid", "{\"status\": \"completed\", \"result\": 1}");
    match();
    retry_asks_for("[" KID("kid") "]");
    match();
    claim();
    assert_string_equal(memory(), "1 child kid 1 -");
    assert_string_equal(children(), "completed");
}

static void a_retry_begins_a_child_anew_that_has_failed_or_was_cancelled(void **state) {
    (void)state;
    children_outlive_their_parent("[" KID("kid") "]");
    claim();
    answer("kid", "{\"status\": \"failed\", \"error\": {\"message\": \"no\"}}");
    retry_asks_for("[" KID("kid") "]");
    assert_string_equal(children(), "failed queued");
    sql(conn, "select durable.cancel(run_id) from parent");
    retry_asks_for("[" KID("kid") "]");
    assert_string_equal(children(), "failed cancelled queued");
    match();
    claim();
    answer("kid", "{\"status\": \"completed\", \"result\": 3}");
    match();
    claim();
    assert_string_equal(memory(), "1 child kid 3 -");
}

/* Of three at once one has failed, one has completed, one is alive. */
static void a_retry_of_several_children_begins_only_what_has_failed_anew(void **state) {
    (void)state;
    const char *three = "[" KID("a") ", " KID("b") ", " KID("c") "]";
    children_outlive_their_parent(three);
    for (int i = 0; i < 2; i++) {
        sql(conn, "drop table c");
        sql(conn, "create table c as select c.*, w.id as worker_id from durable_internal.worker w, "
                  "durable_internal.claim(w.id, 1, 1000000, w.number) as c");
        answer("kid", i == 0 ? "{\"status\": \"failed\", \"error\": {\"message\": \"no\"}}"
                             : "{\"status\": \"completed\", \"result\": 2}");
    }
    assert_string_equal(children(), "failed completed queued");
    retry_asks_for(three);
    match();
    assert_string_equal(children(), "failed completed running queued");
    assert_string_equal(status("http"), "queued"); /* b was over at once */
}

/* Somebody has let the child go on before its parent. Its error was remembered. */
static void a_retry_waits_for_a_child_that_was_retried(void **state) {
    (void)state;
    sql(conn, "drop table if exists parent");
    sql(conn, "create table parent as select * from c");
    (void)commit_ops("http", "[" KID("kid") "]");
    claim();
    sql(conn, "create table kid as select * from c");
    answer("kid", "{\"status\": \"failed\", \"error\": {\"message\": \"no\"}}");
    match();
    claim();
    (void)commit_ops("http", "[{\"op\": \"step\", \"name\": \"b\", \"result\": 2}]");
    answer("http",
           "{\"status\": \"failed\", \"error\": {\"message\": \"no\", \"retryable\": false}}");
    sql(conn, "select durable.retry(run_id) from kid");
    retry_asks_for("[" KID("kid") "]");
    assert_string_equal(children(), "running");
    answer("kid", "{\"status\": \"completed\", \"result\": 1}");
    match();
    claim();
    assert_string_equal(memory(), "1 child kid 1 - 2 step b 2 -");
    assert_string_equal(children(), "completed");
    sql(conn, "drop table kid");
}

/* Both were cancelled, and both go on. */
static void a_retry_passes_over_the_old_end_of_a_child_that_goes_on(void **state) {
    (void)state;
    sql(conn, "drop table if exists parent");
    sql(conn, "create table parent as select * from c");
    (void)commit_ops("http", "[" KID("kid") "]");
    sql(conn, "select durable.cancel(run_id) from parent");
    match();
    sql(conn, "select durable.retry(r.id) from durable.runs r join parent p on r.parent_run_id = "
              "p.run_id");
    retry_asks_for("[" KID("kid") "]");
    match();
    assert_string_equal(status("http"), "waiting");
    answer("kid", "{\"status\": \"completed\", \"result\": 2}");
    match();
    claim();
    assert_string_equal(memory(), "1 child kid 2 -");
    assert_string_equal(children(), "completed");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        OPS_TEST(what_suspends_is_the_last_op),
        OPS_TEST(a_wait_for_any_takes_the_first_of_its_events),
        OPS_TEST(a_child_gives_its_result_to_its_parent),
        OPS_TEST(a_child_that_fails_gives_its_error_to_its_parent),
        OPS_TEST(a_cancelled_parent_cancels_its_child),
        OPS_TEST(several_children_run_at_once),
        OPS_TEST(what_is_first_of_several_goes_on),
        OPS_TEST(two_waits_for_one_event_take_two),
        OPS_TEST(one_of_several_that_is_too_late_ends_the_run),
        OPS_TEST(a_retry_does_again_what_failed_in_its_place),
        OPS_TEST(a_retry_waits_for_a_child_that_is_alive),
        OPS_TEST(a_retry_takes_the_result_of_a_child_that_has_completed),
        OPS_TEST(a_retry_begins_a_child_anew_that_has_failed_or_was_cancelled),
        OPS_TEST(a_retry_of_several_children_begins_only_what_has_failed_anew),
        OPS_TEST(a_retry_waits_for_a_child_that_was_retried),
        OPS_TEST(a_retry_passes_over_the_old_end_of_a_child_that_goes_on),
    };
    return cmocka_run_group_tests(tests, ops_setup, invariants_hold);
}
