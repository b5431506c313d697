/* Every SQL function that C calls: the one place with SQL text in it. */
#ifndef COMMON_DB_CALLS_H
#define COMMON_DB_CALLS_H

#include <libpq-fe.h>

struct db_call {
    const char *name; /* also of the prepared statement */
    const char *sql;
    int param_count;
    const Oid *param_types;
};

/* The worker's protocol. */
extern const struct db_call CALL_UUID_V7, CALL_WORKER_REGISTER, CALL_WORKER_SESSION, CALL_LOCK_TURN,
    CALL_COMMIT, CALL_CLAIM, CALL_CLAIM_TURN, CALL_BEAT, CALL_RECONCILE, CALL_WORKER_LEAVE,
    CALL_WORKER_CRASHED, CALL_COMMIT_STEP_TX;

/* The scheduler's. */
extern const struct db_call CALL_SCHEDULER_BEAT, CALL_MATCH_TURN, CALL_PROMOTE_DUE, CALL_REAP,
    CALL_END_SESSIONS, CALL_MOVE_MARKS, CALL_EXPIRE_STATE, CALL_MAKE_PARTITIONS;

/* Callers'. */
extern const struct db_call CALL_START, CALL_START_MANY, CALL_SEND_EVENT, CALL_RUN_GET, CALL_RESULT,
    CALL_CANCEL, CALL_RETRY;

/* The command line's: texts to show, and the same as JSON. */
extern const struct db_call CALL_RUNS_TABLE, CALL_RUNS_JSON, CALL_RUN_TABLE, CALL_RUN_JSON,
    CALL_TIMELINE_TABLE, CALL_QUEUES_TABLE, CALL_QUEUES_JSON, CALL_WORKERS_TABLE, CALL_WORKERS_JSON,
    CALL_PAUSE_QUEUE, CALL_RESUME_QUEUE, CALL_KEYS_TABLE, CALL_KEYS_JSON, CALL_KEY_CREATE,
    CALL_KEY_CREATE_JSON, CALL_KEY_REVOKE, CALL_KEY_REVOKE_JSON, CALL_KEY_ROTATE,
    CALL_KEY_ROTATE_JSON;

/* Migrations'. */
extern const struct db_call CALL_MIGRATE_LOCK, CALL_MIGRATE_UNLOCK, CALL_MIGRATION_TABLE,
    CALL_MIGRATION_LIST, CALL_MIGRATION_NOTE, CALL_CHECKSUM;

/* Result columns. */
enum {
    CLAIM_RUN_ID,
    CLAIM_FENCE,
    CLAIM_JOB,
    CLAIM_QUEUE,
    CLAIM_ATTEMPT,
    CLAIM_PAYLOAD,
    CLAIM_MEMORY,
    CLAIM_BYTES
};
enum { RESULT_STATUS, RESULT_RESULT, RESULT_ERROR };

#endif
