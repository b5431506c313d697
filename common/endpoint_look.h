/* A look at an endpoint: which jobs are served there. A signed GET, as docs/protocol.md has it. */
#ifndef COMMON_ENDPOINT_LOOK_H
#define COMMON_ENDPOINT_LOOK_H

#include "common/buf.h"
#include "common/http_client.h"
#include "common/status.h"
#include <libpq-fe.h>

#define LOOK_BYTES_MAX (1024 * 1024)

/** Asks the endpoint of CALL_ENDPOINT_TARGET's row; `done` runs later, as http_client_send's does.
 */
MUST_CHECK dj_status endpoint_look(struct http_client *client, const PGresult *target,
                                   http_done_fn done, void *context, struct http_call **ret_call);

/** What it answered, for CALL_ENDPOINT_SYNCED. A failure says why in words for people. */
MUST_CHECK dj_status endpoint_look_read(const struct http_answer *answer, struct buf *version,
                                        struct buf *jobs);

#endif
