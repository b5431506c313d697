#include "api.h"

#include <signal.h>
#include <stdlib.h>

const char *url;
PGconn *conn;
const char *admin, *reader, *starter, *operator_key, *blind, *foreign;
struct answer answer;
pid_t server;

int api_setup(void **state) {
    (void)state;
    url = database_new();
    conn = connect_to(url);
    record_calls(conn);
    admin = key_new(conn, "default", "admin,payloads");
    reader = key_new(conn, "default", "read,payloads");
    starter = key_new(conn, "default", "start,payloads");
    operator_key = key_new(conn, "default", "operate,payloads");
    blind = key_new(conn, "default", "read,start,operate,admin");
    foreign = key_new(conn, "other", "admin,payloads");
    server = server_start(url, /* ready= */ true, NULL);
    return 0;
}

int api_teardown(void **state) {
    (void)state;
    assert_int_equal(end_process(server, SIGTERM), 0);
    free(answer.body);
    return 0;
}

const char *started(const char *key, const char *body) {
    CALL(201, "POST", "/v1/runs", key, "%s", body);
    return strdup(answer_field(&answer, "/id"));
}
