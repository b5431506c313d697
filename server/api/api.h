/* What the resources share: the server, the database, the table of routes, reading and answering.
 * On the loop. */
#ifndef SERVER_API_API_H
#define SERVER_API_API_H

#include "common/buf.h"
#include "common/json.h"
#include "common/list.h"
#include "common/uuid.h"
#include "server/api/database.h"
#include "server/api/http_server.h"
#include <stdint.h>

#define REQUEST_BYTES_MAX (1024 * 1024 + 65536)
#define BATCH_BYTES_MAX (16 * 1024 * 1024)
#define COMMIT_BYTES_MAX (8 * 1024 * 1024)
#define BATCH_RUNS_MAX 1000
#define ROUTES_MAX 80

enum scope {
    SCOPE_READ = 1,
    SCOPE_START = 2,
    SCOPE_OPERATE = 4,
    SCOPE_ADMIN = 8,
    SCOPE_PAYLOADS = 16,
    SCOPE_NONE = 0, /* no key is asked for */
};

struct commits;
struct http_client;
struct starts;
struct waits;
struct keys;

struct api {
    struct event_base *base;
    struct http_server *http;
    struct database *database;
    struct keys *keys;
    struct starts *starts;
    struct waits *waits;
    struct commits *commits;
    struct http_client *http_client;
    bool allow_private;  /* an endpoint's address, unless its registration says otherwise */
    bool forbid_private; /* … whatever it says */
    long long answered[ROUTES_MAX + 1][6]; /* by route and the status's first digit */
    long long runs_started;
};

struct api_settings {
    const char *conninfo, *listen, *unix_path; /* listen "", unix_path NULL: not there */
    int connections, rate_limit, bad_keys;
    bool allow_private, forbid_private;
    struct http_limits limits;
};

/* serve.c */
/** Opens all parts on `api->base`, and serves. There is one server in a process. */
MUST_CHECK dj_status api_open(struct api *api, const struct api_settings *settings);

typedef void (*route_fn)(struct api *api, struct http_request *request);

struct route {
    const char *method;
    const char *pattern; /* a part is a word, or {name}, which stands for one part of any text */
    enum scope scope;
    route_fn run; /* NULL: not there yet */
    size_t body_bytes_max;
};

/* router.c */
extern const struct route routes[];
extern const int route_count;
/** Finds the route. Or answers: 404, 405 with Allow, 400 for a path that is malformed. */
MUST_CHECK dj_status route_find(struct api *api, struct http_request *request);

void route_run(struct api *api, struct http_request *request);

/* auth.c */
/** `rate_limit`: requests a second with one key; `bad_keys`: wrong ones a minute from one address.
 * 0: no limit. */
void keys_open(struct api *api, int rate_limit, int bad_keys);
void keys_forget(struct api *api); /* each is asked for once more */
/** DJ_OK: the key is known and may do this. DJ_SUSPENDED: the database is asked, and the request
 * goes on when it has answered. Else the request is answered. */
MUST_CHECK dj_status keys_check(struct api *api, struct http_request *request);

/* problem.c: what is answered when it is no success. */
enum problem {
    PROBLEM_INVALID_ARGUMENT,
    PROBLEM_UNAUTHORIZED,
    PROBLEM_FORBIDDEN,
    PROBLEM_NOT_FOUND,
    PROBLEM_METHOD_NOT_ALLOWED,
    PROBLEM_TIMEOUT,
    PROBLEM_CONFLICT,
    PROBLEM_IDEMPOTENCY_CONFLICT,
    PROBLEM_PAYLOAD_TOO_LARGE,
    PROBLEM_URI_TOO_LONG,
    PROBLEM_UNSUPPORTED_MEDIA_TYPE,
    PROBLEM_RATE_LIMITED,
    PROBLEM_HEADERS_TOO_LARGE,
    PROBLEM_INTERNAL,
    PROBLEM_NOT_IMPLEMENTED,
    PROBLEM_UNAVAILABLE,
    PROBLEM_COUNT
};
void problem_reply(struct api *api, struct http_request *request, enum problem problem,
                   const char *headers, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/** A status and the words that came with it: of ours, or of the database. */
void problem_reply_status(struct api *api, struct http_request *request, dj_status status,
                          const char *message);
void problem_write(struct buf *body, int status, const char *detail);

/* request.c: reading. An error names the field. */
enum field_kind {
    FIELD_TEXT,     /* char **: decoded, closed by a zero byte */
    FIELD_INT,      /* int64_t *, from min to max */
    FIELD_BOOL,     /* bool * */
    FIELD_JSON,     /* char **: as it was written; null is a value */
    FIELD_OPTION,   /* struct json_slice *: as it was written; null is none */
    FIELD_LIST,     /* the same; its items are for their readers to judge */
    FIELD_DURATION, /* int64_t *, milliseconds */
    FIELD_TIME,     /* int64_t *, microseconds since 1970 */
};
#define FIELD_NONE INT64_MIN /* of numbers, durations and times: not given */
struct field {
    const char *name; /* NULL ends the table */
    enum field_kind kind;
    void *target;
    int64_t min, max;
    bool required;
    size_t bytes_max; /* FIELD_JSON; 0: PAYLOAD_BYTES_MAX */
};
/** Reads an object into the targets, which hold their defaults. What the targets point to lies in
 * `text`, which is cut up. An absent body ("") is an empty object. */
MUST_CHECK dj_status fields_read(const char *argument, char *text, size_t length,
                                 const struct field fields[]);
/** The same for the query. A text's target may be given `times_max` times: then it is an array. */
MUST_CHECK dj_status query_read(char *query, const struct field fields[]);
/** Decodes %XX (and + as a space, in a query) in place. */
MUST_CHECK dj_status url_decode(const char *argument, char *text, bool plus);
/** The body is JSON, or empty. Else it has answered: 415, 400. */
MUST_CHECK dj_status body_check(struct api *api, struct http_request *request);
/** Reads such a body into the fields' targets, as fields_read does. Else it has answered. */
MUST_CHECK dj_status body_read(struct api *api, struct http_request *request,
                               const struct field fields[]);
MUST_CHECK dj_status request_uuid(struct api *api, struct http_request *request,
                                  struct uuid *ret_id);
static inline bool request_shows(const struct http_request *request) {
    return (request->scopes & SCOPE_PAYLOADS) != 0;
}

/* answer.c */
void api_reply(struct api *api, struct http_request *request, int status, const char *type,
               const char *headers, const void *body, size_t length);
void api_reply_json(struct api *api, struct http_request *request, int status, const char *body,
                    size_t length);
/** Sends a call whose only value is the body of a success with `status`. */
void api_send(struct api *api, struct http_request *request, struct work *work, int status);
void params_add_time(struct db_params *params, int64_t us);       /* FIELD_NONE: null */
void params_add_number(struct db_params *params, int64_t number); /* int4; FIELD_NONE: null */
void params_add_long(struct db_params *params, int64_t number);   /* int8; FIELD_NONE: null */
void params_add_option(struct db_params *params, const struct json_slice *slice); /* jsonb */

/* wait.c */
void waits_open(struct api *api);
void waits_hint(struct api *api); /* some run has ended */
/** The client of a request that is not answered yet has gone. False: the request is not here. */
bool waits_forget(struct api *api, struct http_request *request);
void waits_drain(struct api *api); /* answers all that wait */

/* runs.c */
void starts_open(struct api *api);

/* commit.c */
void commits_open(struct api *api);
/** What tokens are signed with may have changed. */
void commits_look(struct api *api);
/** Has who sends the request shown a token of ours, in its head? */
bool commits_know(const struct api *api, const struct http_request *request);

/* The routes' functions, one file a resource. */
void commit_ops(struct api *api, struct http_request *request);
void commit_ref(struct api *api, struct http_request *request);
void endpoints_list(struct api *api, struct http_request *request);
void endpoints_get(struct api *api, struct http_request *request);
void endpoints_put(struct api *api, struct http_request *request);
void endpoints_drop(struct api *api, struct http_request *request);
void endpoints_sync(struct api *api, struct http_request *request);
void endpoints_rotate(struct api *api, struct http_request *request);
void endpoints_pause(struct api *api, struct http_request *request);
void endpoints_resume(struct api *api, struct http_request *request);
void runs_start(struct api *api, struct http_request *request);
void runs_start_batch(struct api *api, struct http_request *request);
void runs_list(struct api *api, struct http_request *request);
void runs_get(struct api *api, struct http_request *request);
void runs_timeline(struct api *api, struct http_request *request);
void runs_steps(struct api *api, struct http_request *request);
void runs_attempts(struct api *api, struct http_request *request);
void runs_logs(struct api *api, struct http_request *request);
void runs_why(struct api *api, struct http_request *request);
void runs_cancel(struct api *api, struct http_request *request);
void runs_retry(struct api *api, struct http_request *request);
void runs_reschedule(struct api *api, struct http_request *request);
void runs_bulk_retry(struct api *api, struct http_request *request);
void runs_bulk_cancel(struct api *api, struct http_request *request);
void runs_release_key(struct api *api, struct http_request *request);
void wait_result(struct api *api, struct http_request *request);
void wait_stream(struct api *api, struct http_request *request);
void events_send(struct api *api, struct http_request *request);
void queues_list(struct api *api, struct http_request *request);
void queues_set(struct api *api, struct http_request *request);
void queues_pause(struct api *api, struct http_request *request);
void queues_resume(struct api *api, struct http_request *request);
void state_get(struct api *api, struct http_request *request);
void state_set(struct api *api, struct http_request *request);
void state_delete(struct api *api, struct http_request *request);
void state_increment(struct api *api, struct http_request *request);
void state_lock(struct api *api, struct http_request *request);
void state_unlock(struct api *api, struct http_request *request);
void workers_list(struct api *api, struct http_request *request);
void health_live(struct api *api, struct http_request *request);
void health_ready(struct api *api, struct http_request *request);
void health_metrics(struct api *api, struct http_request *request);
void health_openapi(struct api *api, struct http_request *request);

#endif
