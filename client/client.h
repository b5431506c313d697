/* A client from inside. */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include "common/db_calls.h"
#include "common/db_params.h"
#include "common/status.h"
#include <durable/client.h>

struct dj_client {
    PGconn *conn;
    bool owned, lost;
};

/** Calls, over a connection that is made anew if it was lost (the client's own, outside of a
 * transaction). */
MUST_CHECK dj_status client_call(dj_client *client, const struct db_call *call,
                                 const struct db_params *params, PGresult **ret_rows);

/** Adds a JSON value, checked and printed. NULL is {}. */
void params_add_json(struct db_params *params, const char *argument, json_object *value);

/** Adds a duration such as 1h30m in the words of PostgreSQL's interval, which has no such form.
 * NULL: null. */
void params_add_duration(struct db_params *params, const char *argument, const char *duration);

/** Reads a uuid result as text. */
MUST_CHECK dj_status rows_id(const PGresult *rows, int row, char ret_id[DJ_ID_BYTES]);

#endif
