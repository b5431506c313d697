/* db_pipeline against servers made up. Against a real one: tests/worker. */
#include "tests/common/unit.h"

#include "common/db_conn.h"
#include "common/db_pipeline.h"
#include "common/text.h"
#include "tests/common/fake_server.h"
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#define MORE_THAN_A_SOCKET_HOLDS ((size_t)32 * 1024 * 1024)

static const struct db_call SEVEN = { .name = "seven", .sql = "select 7" };

static int given_before_none = -1; /* of what libevent asks for; negative: it is given all */

static void *give(size_t size) {
    return given_before_none >= 0 && given_before_none-- == 0 ? NULL : malloc(size);
}

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

/* With a parameter; NULL: none. */
static void line_send_text(struct line *line, const char *text) {
    struct db_params params;
    params_init(&params);
    if (text != NULL) {
        params_add_text(&params, text);
        assert_ok(params_status(&params));
    }
    db_pipeline_send(&line->pipeline, (const struct db_call *const[]){ &SEVEN },
                     (struct db_params *const[]){ &params }, 1, on_done, line);
    params_done(&params);
}

static void line_send(struct line *line) {
    line_send_text(line, NULL);
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

/* It goes by and by, as the server takes it; or never, if the server goes. */
static void what_a_socket_does_not_hold_is_sent_later(void **state) {
    static const enum answer answers[] = { ANSWER_ROW_TO_WHAT_IS_READ_LATE, ANSWER_HANG_UP_UNREAD };
    static const dj_status ends[] = { DJ_OK, DJ_UNAVAILABLE };
    (void)state;
    struct event_base *base = event_base_new();
    char *large = malloc(MORE_THAN_A_SOCKET_HOLDS + 1);
    assert_non_null(large);
    memset(large, 'x', MORE_THAN_A_SOCKET_HOLDS);
    large[MORE_THAN_A_SOCKET_HOLDS] = '\0';
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct line line;
        line_open(&line, base, answers[i]);
        line_send_text(&line, large);
        assert_int_equal(event_base_loop(base, EVLOOP_NONBLOCK), 0);
        assert_true(event_pending(line.pipeline.writable, EV_WRITE, NULL));
        fake_server_go_on(&line.server);
        line_wait(&line, base);
        assert_int_equal(line.status, ends[i]);
        assert_int_equal(db_pipeline_is_open(&line.pipeline), ends[i] == DJ_OK);
        line_close(&line);
    }
    free(large);
    event_base_free(base);
}

/* It broke between its greeting and here. */
static void a_connection_that_is_gone_is_no_pipeline(void **state) {
    (void)state;
    struct event_base *base = event_base_new();
    struct db_pipeline pipeline = { .on_broken = on_broken };
    PGconn *gone = PQconnectdb("host=127.0.0.1 port=1 connect_timeout=5");
    assert_int_equal(PQstatus(gone), CONNECTION_BAD);
    assert_int_equal(db_pipeline_open(&pipeline, base, gone), DJ_UNAVAILABLE);
    assert_false(db_pipeline_is_open(&pipeline));
    db_pipeline_close(&pipeline);
    event_base_free(base);
}

static void without_memory_for_its_events_there_is_no_pipeline(void **state) {
    (void)state;
    struct event_base *base = event_base_new();
    dj_status status = DJ_NO_MEMORY;
    int tries = 0;
    for (; status != DJ_OK; tries++) {
        const enum answer answer = ANSWER_ROW;
        struct fake_server server;
        struct db_pipeline pipeline = { .on_broken = on_broken };
        PGconn *conn = NULL;
        fake_server_start(&server, "off", &answer, 1);
        assert_ok(db_conn_open(server.conninfo, "test", &conn));
        given_before_none = tries;
        status = db_pipeline_open(&pipeline, base, conn);
        given_before_none = -1;
        assert_true(status == DJ_OK || status == DJ_NO_MEMORY);
        assert_int_equal(db_pipeline_is_open(&pipeline), status == DJ_OK);
        db_pipeline_close(&pipeline);
        fake_server_stop(&server);
    }
    assert_true(tries > 2); /* two events */
    event_base_free(base);
}

int main(void) {
    event_set_mem_functions(give, realloc, free);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unconfirmed_commit_is_told_to_its_own_batch),
        cmocka_unit_test(an_error_is_its_batchs_and_a_hang_up_is_unavailable),
        cmocka_unit_test(a_long_error_is_cut_between_its_characters),
        cmocka_unit_test(what_a_socket_does_not_hold_is_sent_later),
        cmocka_unit_test(a_connection_that_is_gone_is_no_pipeline),
        cmocka_unit_test(without_memory_for_its_events_there_is_no_pipeline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
