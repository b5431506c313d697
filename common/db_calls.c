/* The calls: names, texts and parameter types. Values go as parameters, sets as arrays. */
#include "common/db_calls.h"

#include "common/db_types.h"

#define CALL(id, call_name, call_sql, ...)                                                         \
    static const Oid id##_TYPES[] = { __VA_ARGS__ };                                               \
    const struct db_call id = { .name = call_name,                                                 \
                                .sql = call_sql,                                                   \
                                .param_count = sizeof id##_TYPES / sizeof(Oid),                    \
                                .param_types = id##_TYPES }

const struct db_call CALL_UUID_V7 = { .name = "uuid_v7", .sql = "select durable_internal.uuid_v7()" };

CALL(CALL_WORKER_REGISTER, "worker_register",
     "select durable_internal.worker_register($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", DB_UUID,
     DB_TEXT, DB_TEXT, DB_INT4, DB_TEXT, DB_INT4, DB_INT8, DB_TEXT_ARRAY, DB_JSONB_ARRAY, DB_TEXT);
CALL(CALL_WORKER_SESSION, "worker_session", "select durable_internal.worker_session($1)", DB_UUID);
CALL(CALL_LOCK_TURN, "lock_turn", "select durable_internal.lock_turn($1, $2)", DB_UUID, DB_INT4);
CALL(CALL_COMMIT, "commit",
     "select * from durable_internal.commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, "
     "$14, $15, $16, $17, $18, $19, $20, $21, $22)",
     DB_UUID, /* steps */ DB_UUID_ARRAY, DB_INT8_ARRAY, DB_INT4_ARRAY, DB_INT4_ARRAY, DB_TEXT_ARRAY,
     DB_TEXT_ARRAY, DB_JSONB_ARRAY, DB_JSONB_ARRAY, DB_INT8_ARRAY, /* dones */ DB_UUID_ARRAY,
     DB_INT8_ARRAY, DB_JSONB_ARRAY, /* others */ DB_UUID_ARRAY, DB_INT8_ARRAY, DB_TEXT_ARRAY,
     DB_JSONB_ARRAY, /* logs */ DB_UUID_ARRAY, DB_INT4_ARRAY, DB_INT8_ARRAY, DB_TEXT_ARRAY,
     DB_TEXT_ARRAY);
CALL(CALL_CLAIM, "claim", "select * from durable_internal.claim($1, $2, $3)", DB_UUID, DB_INT4,
     DB_INT4);
CALL(CALL_BEAT, "beat", "select durable_internal.beat($1, $2, $3, $4)", DB_UUID, DB_UUID_ARRAY,
     DB_INT8_ARRAY, DB_BOOL);
CALL(CALL_RECONCILE, "reconcile", "select durable_internal.reconcile($1, $2, $3, $4)", DB_UUID,
     DB_INT4, DB_UUID_ARRAY, DB_INT4_ARRAY);
CALL(CALL_WORKER_LEAVE, "worker_leave", "select durable_internal.worker_leave($1)", DB_UUID);
CALL(CALL_COMMIT_STEP_TX, "commit_step_tx",
     "select durable_internal.commit_step_tx($1, $2, $3, $4, $5, $6, $7, $8)", DB_UUID, DB_UUID,
     DB_INT8, DB_INT4, DB_INT4, DB_TEXT, DB_JSONB, DB_INT8);

CALL(CALL_SCHEDULER_BEAT, "scheduler_beat",
     "select durable_internal.scheduler_beat($1::text::uuid, $2, $3)", DB_TEXT, DB_TEXT, DB_INT4);
CALL(CALL_MATCH_EVENTS, "match_events", "select durable_internal.match_events($1)", DB_INT4);
CALL(CALL_PROMOTE_DUE, "promote_due",
     "select promoted, due_in_ms from durable_internal.promote_due($1, $2)", DB_INT4, DB_INT4);
const struct db_call CALL_REAP = { .name = "reap", .sql = "select durable_internal.reap()" };
const struct db_call CALL_END_SESSIONS = { .name = "end_sessions",
                                           .sql = "select durable_internal.end_sessions()" };
CALL(CALL_MOVE_MARKS, "move_marks", "select durable_internal.move_marks($1)", DB_INT8);
CALL(CALL_MAKE_PARTITIONS, "make_partitions", "select durable_internal.make_partitions($1)", DB_INT4);

/* Times and durations go as texts: PostgreSQL reads both as we write them. */
CALL(CALL_START, "start",
     "select durable.start($1, $2, $3, $4, $5::text::interval, $6, $7::text::timestamptz, $8, $9, "
     "$10::text::interval, $11, $12)",
     DB_TEXT, DB_JSONB, DB_TEXT, DB_TEXT, DB_TEXT, DB_INT4, DB_TEXT, DB_INT4, DB_TEXT, DB_TEXT,
     DB_JSONB, DB_JSONB);
CALL(CALL_START_MANY, "start_many",
     "select durable.start_many($1, $2, $3, $4, $5::text::interval, $6, $7::text::timestamptz, $8, $9, "
     "$10::text::interval, $11, $12)",
     DB_TEXT, DB_JSONB_ARRAY, DB_TEXT, DB_TEXT_ARRAY, DB_TEXT, DB_INT4, DB_TEXT, DB_INT4, DB_TEXT,
     DB_TEXT, DB_JSONB, DB_JSONB);
CALL(CALL_SEND_EVENT, "send_event", "select durable.send_event($1, $2, $3, $4)", DB_TEXT, DB_JSONB,
     DB_TEXT, DB_TEXT);
CALL(CALL_RUN_GET, "run_get", "select to_jsonb(r) from durable.runs r where r.id = $1", DB_UUID);
CALL(CALL_RESULT, "result", "select status, result, error from durable.runs where id = $1", DB_UUID);
CALL(CALL_CANCEL, "cancel", "select durable.cancel($1, $2)", DB_UUID, DB_TEXT);
CALL(CALL_RETRY, "retry", "select durable.retry($1, $2)", DB_UUID, DB_INT4);
