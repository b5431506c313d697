#include "lease.h"

#include <string.h>

struct commit_secret secret_of(PGconn *conn) {
    struct commit_secret secret;
    const char *hex = sql_text(conn, "select durable_internal.commit_secret()");
    secret.length = strlen(hex);
    assert_true(secret.length <= sizeof secret.bytes);
    memcpy(secret.bytes, hex, secret.length);
    return secret;
}

struct lease_name lease_of(PGconn *conn, const char *run_id) {
    struct lease_name lease;
    const char *of = "from durable_internal.lease where run_id";
    assert_int_equal(uuid_parse("run", run_id, &lease.run_id), DJ_OK);
    assert_int_equal(uuid_parse("worker", sql_text(conn, "select worker_id %s = '%s'", of, run_id),
                                &lease.worker_id),
                     DJ_OK);
    lease.fence = sql_int(conn, "select fence %s = '%s'", of, run_id);
    assert_true(lease.fence > 0);
    return lease;
}

char *token_of(const struct commit_secret *secret, const struct lease_name *lease) {
    struct buf token;
    buf_init(&token, 1000);
    assert_int_equal(commit_token_print(secret, lease, &token), DJ_OK);
    return buf_take(&token);
}
