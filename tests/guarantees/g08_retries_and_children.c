/* Guarantee 8, of a run that is retried and had children: each is begun anew if it has failed, and
 * waited for if it is alive; none is begun twice.
 *
 * Seen to fail: with a retry that remembered the start of a child that had failed, its parent
 * waited for ever. More in tests/mutations. */
#include "support.h"

#include <stdio.h>

static PGconn *conn;

static int setup(void **state) {
    (void)state;
    const char *url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    (void)spawn_scheduler(url);
    (void)spawn_worker(url, NULL);
    return 0;
}

/* A run of job family, which begins so many children, one after the other. */
static const char *family_of(int kids) {
    static char id[64];
    (void)snprintf(id, sizeof id, "%s",
                   sql_text(conn,
                            "select durable.start('family', '{\"kids\": %d}', timeout => '1 hour')",
                            kids));
    return id;
}

/* Waits until a run waits for a child; answers which (valid until the next call but one). */
static const char *child_of(const char *id) {
    static char children[2][64];
    static int next;
    char *child = children[next++ % 2];
    wait_until(
        conn, 20,
        "select coalesce(waiting_for ->> 'kind' = 'child', false) from durable.runs where id "
        "= '%s'",
        id);
    (void)snprintf(
        child, sizeof children[0], "%s",
        sql_text(conn, "select waiting_for ->> 'runId' from durable.runs where id = '%s'", id));
    return child;
}

static void check_end(const char *id, const char *status) {
    wait_until(conn, 20, "select finished_at is not null from durable.runs where id = '%s'", id);
    assert_string_equal(sql_text(conn, "select status from durable.runs where id = '%s'", id),
                        status);
}

static void completes_with(const char *id, int children) {
    check_end(id, "completed");
    assert_int_equal(
        sql_int(conn, "select count(*) from durable.runs where parent_run_id = '%s'", id),
        children);
}

static void end_child(const char *child, bool well) {
    sql(conn, "select durable.send_event('mood', '%s', '%s')", well ? "true" : "false", child);
    check_end(child, well ? "completed" : "failed");
}

static void its_time_is_over(const char *id) {
    sql(conn,
        "update durable_internal.timer set due_at = clock_timestamp() where run_id = '%s' and kind "
        "= 'run_timeout'",
        id);
    check_end(id, "failed");
}

/* The parent waits for the child that it had: it begins no other one. */
static void goes_on_with(const char *id, const char *child) {
    assert_string_equal(child_of(id), child);
    end_child(child, true);
    completes_with(id, 1);
}

static void retry(const char *id) {
    assert_int_equal(sql_int(conn, "select durable.retry('%s')", id), 1);
}

static void a_retry_begins_a_child_that_has_failed_anew(void **state) {
    (void)state;
    const char *id = family_of(2);
    end_child(child_of(id), true);
    wait_until(conn, 20, "select count(*) = 2 from durable.runs where parent_run_id = '%s'", id);
    for (int failed = 1; failed <= 2; failed++) {
        end_child(child_of(id), false);
        check_end(id, "failed");
        retry(id);
    }
    end_child(child_of(id), true);
    completes_with(id, 4); /* the first one once, the second three times */
}

static void a_retry_begins_a_child_anew_that_was_cancelled_with_its_parent(void **state) {
    (void)state;
    const char *id = family_of(1);
    for (int cancelled = 1; cancelled <= 2; cancelled++) {
        const char *child = child_of(id);
        assert_int_equal(sql_int(conn, "select durable.cancel('%s')", id), 1);
        check_end(child, "cancelled");
        retry(id);
    }
    end_child(child_of(id), true);
    completes_with(id, 3);
}

static void a_retry_waits_for_a_child_that_is_alive(void **state) {
    (void)state;
    const char *id = family_of(1), *child = child_of(id);
    its_time_is_over(id);
    retry(id);
    goes_on_with(id, child);
}

static void a_retry_takes_the_result_of_a_child_that_has_completed(void **state) {
    (void)state;
    const char *id = family_of(1), *child = child_of(id);
    its_time_is_over(id);
    end_child(child, true);
    retry(id);
    completes_with(id, 1);
}

/* Somebody has let the child go on before its parent: it is alive. */
static void a_retry_waits_for_a_child_that_was_retried(void **state) {
    (void)state;
    const char *id = family_of(1), *child = child_of(id);
    sql(conn, "select durable.cancel('%s')", child);
    check_end(id, "failed");
    retry(child);
    retry(id);
    goes_on_with(id, child);
}

/* Both were cancelled, and both go on: nobody has heard of the child's first end, and it counts no
 * more, whether the child has come to its second by then or not. */
static void a_retry_passes_over_the_old_end_of_a_child_that_goes_on(void **state) {
    (void)state;
    for (int is_first = 0; is_first <= 1; is_first++) {
        const char *id = family_of(1), *child = child_of(id);
        assert_int_equal(sql_int(conn, "select durable.cancel('%s')", id), 1);
        check_end(child, "cancelled");
        retry(child);
        if (is_first) {
            end_child(child, true);
        }
        retry(id);
        if (!is_first) {
            goes_on_with(id, child);
        }
        completes_with(id, 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_retry_begins_a_child_that_has_failed_anew),
        cmocka_unit_test(a_retry_begins_a_child_anew_that_was_cancelled_with_its_parent),
        cmocka_unit_test(a_retry_waits_for_a_child_that_is_alive),
        cmocka_unit_test(a_retry_takes_the_result_of_a_child_that_has_completed),
        cmocka_unit_test(a_retry_waits_for_a_child_that_was_retried),
        cmocka_unit_test(a_retry_passes_over_the_old_end_of_a_child_that_goes_on),
    };
    return cmocka_run_group_tests(tests, setup, invariants_hold);
}
