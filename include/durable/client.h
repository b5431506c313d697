/* The caller's side of Durable Jobs: start runs, send events, look at what became of them.
 *
 * A client works over a PostgreSQL connection: its own (dj_client_open), or yours, inside the
 * transaction that you have open (dj_client_wrap): a start that you roll back never happened.
 * A client belongs to one thread at a time. Calls block until PostgreSQL has answered. */
#ifndef DURABLE_CLIENT_H
#define DURABLE_CLIENT_H

#include <durable/status.h>
#include <json-c/json_object.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DJ_ID_BYTES 37 /**< a UUID as text, with its terminating zero */

typedef struct dj_client dj_client;

/** What a start may say beside job and payload. Zero everywhere means the defaults. Durations are
 *  texts such as "30s" or "1h30m"; times are RFC 3339. */
typedef struct dj_start_options {
    const char *queue;           /**< NULL: "default" */
    const char *idempotency_key; /**< makes a repeated start the same run */
    const char *idempotency_ttl; /**< NULL: the key holds as long as the run is kept */
    bool restart_when_failed; /**< a failed or cancelled holder of the key gives way to a new run */
    int max_attempts;         /**< 0: the job's or the queue's setting; 5 if none */
    const char *scheduled_at; /**< NULL, or a time in the past: at once */
    int priority;             /**< -32768 … 32767, higher first */
    const char *concurrency_key; /**< runs of one key share the queue's limit for a key */
    const char *timeout;         /**< of the whole run, from when it is first due */
    json_object *tags;           /**< lent; an object of texts, up to 16 */
    json_object *backoff;        /**< lent; {"initial":"1s","factor":2,"max":"1h","jitter":0.2} */
} dj_start_options;

/** Opens a client over a connection of its own. `conninfo` is a PostgreSQL URL or keyword string;
 *  NULL: the environment's DURABLE_DATABASE_URL. Close it with dj_client_close.
 *  DJ_UNAVAILABLE: the database cannot be reached, and the message says why. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_client_open(const char *conninfo, dj_client **ret_client);

/** Makes a client over your own connection, which stays yours and must outlive the client. Its
 *  calls take part in your open transaction. A database error aborts that transaction, as any
 *  statement's does. That a commit did not wait for its synchronous standby is told by a warning,
 *  to the notice receiver of the connection: yours, here. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_client_wrap(PGconn *conn, dj_client **ret_client);

/** Frees the client, and closes its connection where it is its own. NULL is allowed. */
DJ_PUBLIC void dj_client_close(dj_client *client);

/** Starts a run of `job`. `payload` is lent (NULL: {}); `options` may be NULL. With an idempotency
 *  key the call may be repeated: it gives the same run. Without one, DJ_UNAVAILABLE leaves open
 *  whether the run was started.
 *  DJ_INVALID_ARGUMENT, DJ_TOO_LARGE, DJ_IDEMPOTENCY_CONFLICT: nothing was stored. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_start(dj_client *client, const char *job, json_object *payload,
                                           const dj_start_options *options,
                                           char ret_run_id[DJ_ID_BYTES]);

/** Starts one run for each of `count` payloads, in one statement: all or none. The ids come in the
 *  payloads' order. `options->idempotency_key` is not allowed here: `idempotency_keys` (NULL: none)
 *  has one for each payload, or NULL in its place. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_start_many(dj_client *client, const char *job, size_t count,
                                                json_object *const payloads[],
                                                const char *const idempotency_keys[],
                                                const dj_start_options *options,
                                                char (*ret_run_ids)[DJ_ID_BYTES]);

/** Sends an event to the runs that wait for its name and key, now or later. `payload` is lent
 * (NULL:
 *  {}); `correlation_key` NULL meets only waits without a key; `idempotency_key` (NULL: none) makes
 * a repeated event one. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_send_event(dj_client *client, const char *name,
                                                json_object *payload, const char *correlation_key,
                                                const char *idempotency_key,
                                                char ret_event_id[DJ_ID_BYTES]);

/** The run as durable.runs shows it. `*ret_run` is yours (json_object_put). */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_run_get(dj_client *client, const char *run_id,
                                             json_object **ret_run);

/** Waits until the run ends or `timeout_ms` has passed (0: looks once). `*ret_result` is yours
 *  (json_object_put); it is NULL for the JSON value null.
 *  DJ_TIMEOUT: not ended yet. DJ_FAILED, DJ_CANCELLED: so it ended; dj_error_message() says why.
 *  Call it outside a transaction: inside one, the run you just started cannot begin. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_result_wait(dj_client *client, const char *run_id,
                                                 int64_t timeout_ms, json_object **ret_result);

/** Cancels a run. `reason` may be NULL. `*ret_cancelled` (NULL: not wanted) is false for a run that
 *  had ended before. DJ_NOT_FOUND: there is no such run. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_cancel(dj_client *client, const char *run_id,
                                            const char *reason, bool *ret_cancelled);

/** Lets a failed or cancelled run go on; completed steps are reused. `max_attempts` is how many
 *  further attempts it has (0: as many as at first). DJ_NOT_ALLOWED: it has not failed. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_retry(dj_client *client, const char *run_id, int max_attempts);

/** Beside a value of the state. */
typedef struct dj_state_info {
    int64_t version;       /**< grows with each change of the key */
    int64_t expires_at_us; /**< microseconds since 1970, UTC; 0: it has no end */
} dj_state_info;

/** What a set may say beside key and value. Zero everywhere means: whatever is there, and for good.
 */
typedef struct dj_state_options {
    const char *expires_at; /**< RFC 3339; NULL: it has no end, also where it had one before */
    bool if_absent;         /**< only where there is no value */
    int64_t if_version;     /**< only where this version is there; 0: any */
} dj_state_options;

/* State is the namespace's memory: JSON values by key (1 to 512 bytes), counters and locks, shared
 * by all of its runs and callers. What has expired is absent. A change takes part in your
 * transaction, over dj_client_wrap, and holds its key until that ends: others who change the key
 * wait. DJ_UNAVAILABLE leaves open whether a change was made. */

/** Gets a value. `*ret_value` is yours (json_object_put); it is NULL for the JSON value null.
 *  `ret_info` may be NULL. DJ_NOT_FOUND: the key is absent. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_state_get(dj_client *client, const char *key,
                                               json_object **ret_value, dj_state_info *ret_info);

/** Sets a value, which is lent (NULL: the JSON value null), up to 1 MiB. `options` may be NULL.
 *  `*ret_version` (NULL: not wanted) is the new version. DJ_NOT_ALLOWED: another version is there
 *  than the options ask for; of several callers that ask for one, one succeeds. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_state_set(dj_client *client, const char *key,
                                               json_object *value, const dj_state_options *options,
                                               int64_t *ret_version);

/** Removes a key. `*ret_deleted` (NULL: not wanted) is false where it was absent. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_state_delete(dj_client *client, const char *key,
                                                  bool *ret_deleted);

/** Adds `by`, which may be negative, to an integer; an absent key counts as 0. `expires_at` (RFC
 *  3339) moves its end; NULL leaves it. `*ret_sum` (NULL: not wanted) is the new value.
 *  DJ_NOT_ALLOWED: the value is no integer of 64 bits. DJ_INVALID_ARGUMENT: the sum would be none.
 */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_state_increment(dj_client *client, const char *key, int64_t by,
                                                     const char *expires_at, int64_t *ret_sum);

/** Takes a lock for `ttl` ("30s", up to "3650d") from now. `owner` is 1 to 512 bytes of yours; who
 *  has the lock may take it again, and its time begins anew. `*ret_locked` is false while another
 *  owner has it; nothing waits for the lock here. It says nothing of a value of the same key. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_state_lock(dj_client *client, const char *key,
                                                const char *owner, const char *ttl,
                                                bool *ret_locked);

/** Frees a lock. `*ret_unlocked` (NULL: not wanted) is false where the owner did not have it, or
 *  its time was over. */
DJ_MUST_CHECK DJ_PUBLIC dj_status dj_state_unlock(dj_client *client, const char *key,
                                                  const char *owner, bool *ret_unlocked);

#ifdef __cplusplus
}
#endif
#endif
