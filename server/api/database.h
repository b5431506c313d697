/* The database, as the server sees it: a few pipelined connections, and a queue of calls that take
 * the next one that is free. Each call is a transaction of its own. Nothing here waits: where no
 * connection is up, a call is answered with DJ_UNAVAILABLE at once. On the loop. */
#ifndef SERVER_API_DATABASE_H
#define SERVER_API_DATABASE_H

#include "common/db_calls.h"
#include "common/db_params.h"
#include "common/db_pipeline.h"
#include "common/list.h"
#include <event2/event.h>

struct database;
struct work;

/** How it ended. `rows` are those of the last call, lent; NULL unless `status` is DJ_OK. */
struct work_end {
    dj_status status;
    const char *message;
    const PGresult *rows;
    bool executed; /* it failed, and may have been committed all the same: do not say it again */
};

typedef void (*work_done_fn)(void *context, const struct work_end *end);
typedef void (*work_fill_fn)(void *context, struct db_params *params);

MUST_CHECK dj_status database_open(struct event_base *base, const char *conninfo, int connections,
                                   struct database **ret_database);
bool database_is_up(const struct database *database);

/** Before the process ends. False: a thread is still in libpq, and exit() would take OpenSSL from
 * under it. */
bool database_stop(struct database *database);

/** Called when a notification of a channel comes that the server listens to, and when a connection
 * is up, since some may have been missed. */
void database_on_notify(struct database *database, void (*call)(const char *channel),
                        void (*on_up)(void));

/** A call for a namespace (0: for none in particular). Add its parameters, then send it. */
struct work *work_new(const struct db_call *call, int32_t namespace_id);
struct db_params *work_params(struct work *work);

void work_drop(struct work *work); /* it is not sent after all */

/** Parameters that are added only when a connection takes the call. */
void work_fill_late(struct work *work, work_fill_fn fill);

/** Takes `work`. `on_done` runs exactly once, perhaps before this returns. */
void database_send(struct database *database, struct work *work, work_done_fn on_done,
                   void *context);

#endif
