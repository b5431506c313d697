/* Where a command works: the database itself, or durable-server. A command says once what it asks.
 * Over SQL that is a call of the function which the server calls for a route, over HTTP a request
 * to the route; the answer is the same JSON either way.
 *
 *     AUTO(ask) struct ask ask;
 *     AUTO(free) char *run = NULL;
 *     ask_init(&ask, "POST", "/v1/runs", &CALL_CANCEL_TEXT);
 *     ask_id(&ask, &id);
 *     ask_path(&ask, "/cancel");
 *     ask_text(&ask, "reason", reason);
 *     ask_shown(&ask);
 *     DJ_TRY(backend_ask(backend, &ask, &run));
 *
 * Values go to the call in the order in which they are said. The first failure is kept, and what
 * follows it does nothing. */
#ifndef CLI_BACKEND_H
#define CLI_BACKEND_H

#include "cli/http.h"
#include "common/buf.h"
#include "common/db_calls.h"
#include "common/db_params.h"
#include "common/uuid.h"
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

struct backend {
    struct server server;     /* --url, --api-key */
    const char *database_url; /* --database-url */
    bool json;                /* --json */
    PGconn *conn;             /* NULL: over HTTP */
};

/** The flags of each command that has a backend; for its table of options: those of where to
 * work, and --json. */
#define BACKEND_OPTIONS(backend_)                                                                  \
    { .flag = "database-url",                                                                      \
      .value_name = "URL",                                                                         \
      .help = "the PostgreSQL to work on (DURABLE_DATABASE_URL)",                                  \
      .kind = CONFIG_TEXT,                                                                         \
      .target = &(backend_)->database_url },                                                       \
        { .flag = "url",                                                                           \
          .value_name = "URL",                                                                     \
          .help = "… or the durable-server to ask (DURABLE_URL)",                                  \
          .kind = CONFIG_TEXT,                                                                     \
          .target = &(backend_)->server.url },                                                     \
        { .flag = "api-key",                                                                       \
          .environment = "DURABLE_API_KEY",                                                        \
          .value_name = "KEY",                                                                     \
          .help = "the server's: one that `durable keys create` made",                             \
          .kind = CONFIG_TEXT,                                                                     \
          .target = &(backend_)->server.api_key },                                                 \
    {                                                                                              \
        .flag = "json", .help = "print JSON", .kind = CONFIG_SWITCH, .target = &(backend_)->json   \
    }

/** A flag that names where to work wins over the environment; there, the database over the server.
 */
MUST_CHECK dj_status backend_open(struct backend *backend);
void backend_close(struct backend *backend);

struct ask {
    const char *method;
    struct buf path, body;
    const struct db_call *call;
    struct db_params params;
    dj_status status;
};

void ask_init(struct ask *ask, const char *method, const char *path, const struct db_call *call);
void ask_done(struct ask *ask);
static inline void auto_ask(struct ask *ask) {
    ask_done(ask);
}

/** More of the path: a value of it, percent-encoded, or what stands there. */
void ask_id(struct ask *ask, const struct uuid *id);
void ask_name(struct ask *ask, const char *name);
void ask_path(struct ask *ask, const char *more);

/** Fields, of the body, or of a GET's query. NULL, or not `given`: null for the call, and not there
 * for the route. `argument` names what is refused. */
void ask_text(struct ask *ask, const char *field, const char *value);
void ask_json(struct ask *ask, const char *field, const char *argument, const char *text);
void ask_bool(struct ask *ask, const char *field, bool value, bool given);
void ask_int4(struct ask *ask, const char *field, int32_t value, bool given);
void ask_int8(struct ask *ask, const char *field, int64_t value, bool given);
void ask_duration(struct ask *ask, const char *field, const char *argument, const char *text);
void ask_time(struct ask *ask, const char *field, const char *argument, const char *text);

/** A field that only the route has. */
void ask_route_text(struct ask *ask, const char *field, const char *value);

/** That payloads are shown: a parameter of the call. Over HTTP the key's scopes say so. */
void ask_shown(struct ask *ask);

/** Asks, and waits. `*ret_text` is the answer's JSON, yours (free). */
MUST_CHECK dj_status backend_ask(struct backend *backend, struct ask *ask, char **ret_text);

#endif
