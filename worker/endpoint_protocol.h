/* Protocol 1 of docs/protocol.md: what a call says, and the token that stands for a lease. */
#ifndef WORKER_ENDPOINT_PROTOCOL_H
#define WORKER_ENDPOINT_PROTOCOL_H

#include "common/buf.h"
#include "common/commit_token.h"
#include "worker/run_state.h"

#define CALL_BODY_BYTES_MAX ((size_t)80 * 1024 * 1024) /* a payload and a whole history */
#define CALL_INLINE_BYTES_MAX (256 * 1024)
#define ANSWER_BYTES_MAX ((size_t)4 * 1024 * 1024)

/** The body of a call. `commit_url` NULL: the handler has to answer with its ops, and everything is
 * inline. */
MUST_CHECK dj_status protocol_request(const dj_run *run, const char *commit_url, const char *token,
                                      struct buf *body);

/** Is it a JSON object, within the limits of JSON? What is in it is read in the database. The error
 * says why not. */
MUST_CHECK dj_status protocol_answer_check(const struct buf *body);

#endif
