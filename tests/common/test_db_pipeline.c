/* db_pipeline against servers made up. Against a real one: tests/worker. */
#include "tests/common/unit.h"

#include "common/db_conn.h"
#include "common/db_pipeline.h"
#include "common/text.h"
#include "tests/common/fake_server.h"
#include <event2/event.h>

static const struct db_call SEVEN = { .name = "seven", .sql = "select 7" };

struct line {
    struct fake_server server;
    struct db_pipeline pipeline;
    dj_status status;  /* of its batch */
    char message[512]; /* of its failure */
    bool answered;
};

static void on_done(struct db_batch *batch) {
    struct line *line = batch->context;
    line->status = batch->status;
    (void)snprintf(line->message, sizeof line->message, "%s", batch->message);
    line->answered = true;
}

static void on_broken(struct db_pipeline *pipeline) {
    db_pipeline_close(pipeline);
}

static void line_open(struct line *line, struct event_base *base, enum answer answer) {
    PGconn *conn = NULL;
    *line = (struct line){ .pipeline = { .on_broken = on_broken } };
    fake_server_start(&line->server, "off", &answer, 1);
    assert_ok(db_conn_open(line->server.conninfo, "test", &conn));
    assert_ok(db_pipeline_open(&line->pipeline, base, conn));
}

static void line_close(struct line *line) {
    db_pipeline_close(&line->pipeline);
    fake_server_stop(&line->server);
}

static void line_send(struct line *line) {
    struct db_params params;
    params_init(&params);
    db_pipeline_send(&line->pipeline, (const struct db_call *const[]){ &SEVEN },
                     (struct db_params *const[]){ &params }, 1, on_done, line);
    params_done(&params);
}

static void line_wait(struct line *line, struct event_base *base) {
    while (!line->answered) {
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
    }
}

/* The server's warning may come some time before the end of its answer, and
 * another connection's answer between. */
static void an_unconfirmed_commit_is_told_to_its_own_batch(void **state) {
    (void)state;
    struct event_base *base = event_base_new();
    struct line unconfirmed, good;
    line_open(&unconfirmed, base, ANSWER_UNCONFIRMED_ROW_HELD);
    line_open(&good, base, ANSWER_ROW);
    line_send(&unconfirmed);
    struct db_batch *batch = list_first(&unconfirmed.pipeline.sent, struct db_batch, link);
    while (batch->call_done == 0) {
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
    }
    line_send(&good);
    line_wait(&good, base);
    assert_int_equal(good.status, DJ_OK);
    fake_server_go_on(&unconfirmed.server);
    line_wait(&unconfirmed, base);
    assert_int_equal(unconfirmed.status, DJ_UNAVAILABLE);
    line_close(&unconfirmed);
    line_close(&good);
    event_base_free(base);
}

static void an_error_is_its_batchs_and_a_hang_up_is_unavailable(void **state) {
    (void)state;
    struct event_base *base = event_base_new();
    struct line error, gone;
    line_open(&error, base, ANSWER_ERROR);
    line_open(&gone, base, ANSWER_HANG_UP);
    line_send(&error);
    line_send(&gone);
    line_wait(&error, base);
    line_wait(&gone, base);
    assert_int_equal(error.status, DJ_INVALID_ARGUMENT);
    assert_int_equal(gone.status, DJ_UNAVAILABLE);
    assert_false(db_pipeline_is_open(&gone.pipeline));
    line_close(&error);
    line_close(&gone);
    event_base_free(base);
}

/* It goes into answers as a JSON string. */
static void a_long_error_is_cut_between_its_characters(void **state) {
    (void)state;
    struct event_base *base = event_base_new();
    struct line error;
    line_open(&error, base, ANSWER_LONG_ERROR);
    line_send(&error);
    line_wait(&error, base);
    assert_int_equal(error.status, DJ_INVALID_ARGUMENT);
    assert_int_equal(strlen(error.message), 510);
    assert_true(text_is_utf8(error.message, 510));
    line_close(&error);
    event_base_free(base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unconfirmed_commit_is_told_to_its_own_batch),
        cmocka_unit_test(an_error_is_its_batchs_and_a_hang_up_is_unavailable),
        cmocka_unit_test(a_long_error_is_cut_between_its_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
