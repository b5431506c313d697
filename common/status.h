/* Errors: where a failure is known it is said once, with dj_fail(), and its status is handed up.
 * One table joins SQLSTATE, dj_status, HTTP status, error code and exit status. */
#ifndef COMMON_STATUS_H
#define COMMON_STATUS_H

#include <durable/status.h>
#include <libpq-fe.h>

#define MUST_CHECK __attribute__((warn_unused_result))

/** Keeps the message for this thread (one line, cut at 1 KiB) and answers `status`. */
dj_status dj_fail(dj_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Says why a statement failed, in PostgreSQL's words with its hint. */
dj_status dj_fail_result(const PGresult *result);

/** Says why a connection failed. DJ_UNAVAILABLE. */
dj_status dj_fail_pg(const PGconn *conn);

/** NULL, what is not ours to know and what passes by itself is DJ_UNAVAILABLE. */
dj_status status_from_sqlstate(const char *sqlstate);

int status_exit_code(dj_status status);
int status_http(dj_status status);
const char *status_code(dj_status status); /* as in problem+json: "invalid_argument" */

#endif
