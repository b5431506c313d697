/* The calls: names, texts and parameter types. Values go as parameters, sets as arrays. */
#include "common/db_calls.h"

#include "common/db_types.h"

#define CALL(id, call_name, call_sql, ...)                                                         \
    static const Oid id##_TYPES[] = { __VA_ARGS__ };                                               \
    const struct db_call id = { .name = call_name,                                                 \
                                .sql = call_sql,                                                   \
                                .param_count = sizeof id##_TYPES / sizeof(Oid),                    \
                                .param_types = id##_TYPES }

const struct db_call CALL_UUID_V7 = { .name = "uuid_v7",
                                      .sql = "select durable_internal.uuid_v7()" };

CALL(CALL_WORKER_REGISTER, "worker_register",
     "select durable_internal.worker_register($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", DB_UUID,
     DB_TEXT, DB_TEXT, DB_INT4, DB_TEXT, DB_INT4, DB_INT8, DB_TEXT_ARRAY, DB_JSONB_ARRAY, DB_TEXT);
CALL(CALL_WORKER_SESSION, "worker_session", "select durable_internal.worker_session($1)", DB_UUID);
CALL(CALL_WORKER_TX_SESSION, "worker_tx_session", "select durable_internal.worker_tx_session($1)",
     DB_UUID);
CALL(CALL_LOCK_TURN, "lock_turn", "select durable_internal.lock_turn($1, $2)", DB_UUID, DB_INT4);
CALL(
    CALL_COMMIT, "commit",
    "select * from durable_internal.commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, "
    "$14, $15, $16, $17, $18, $19, $20, $21, $22)",
    DB_UUID, /* steps */ DB_UUID_ARRAY, DB_INT8_ARRAY, DB_INT4_ARRAY, DB_INT4_ARRAY, DB_TEXT_ARRAY,
    DB_TEXT_ARRAY, DB_JSONB_ARRAY, DB_JSONB_ARRAY, DB_INT8_ARRAY, /* dones */ DB_UUID_ARRAY,
    DB_INT8_ARRAY, DB_JSONB_ARRAY, /* others */ DB_UUID_ARRAY, DB_INT8_ARRAY, DB_TEXT_ARRAY,
    DB_JSONB_ARRAY, /* logs */ DB_UUID_ARRAY, DB_INT4_ARRAY, DB_INT8_ARRAY, DB_TEXT_ARRAY,
    DB_TEXT_ARRAY);
CALL(CALL_CLAIM, "claim", "select * from durable_internal.claim($1, $2, $3)", DB_UUID, DB_INT4,
     DB_INT4);
CALL(CALL_CLAIM_TURN, "claim_turn", "select * from durable_internal.claim($1, $2, $3, $4, $5)",
     DB_UUID, DB_INT4, DB_INT4, DB_INT4, DB_BOOL);
CALL(CALL_BEAT, "beat", "select * from durable_internal.beat($1, $2, $3, $4)", DB_UUID,
     DB_UUID_ARRAY, DB_INT8_ARRAY, DB_BOOL);
CALL(CALL_RECONCILE, "reconcile", "select * from durable_internal.reconcile($1, $2, $3, $4, $5)",
     DB_UUID, DB_INT4, DB_UUID_ARRAY, DB_INT8_ARRAY, DB_INT4_ARRAY);
CALL(CALL_WORKER_LEAVE, "worker_leave", "select durable_internal.worker_leave($1)", DB_UUID);
CALL(CALL_WORKER_CRASHED, "worker_crashed",
     "select durable_internal.worker_crashed($1, $2, $3, $4)", DB_UUID, DB_UUID, DB_INT8, DB_TEXT);
CALL(CALL_COMMIT_STEP_TX, "commit_step_tx",
     "select durable_internal.commit_step_tx($1, $2, $3, $4, $5, $6, $7, $8)", DB_UUID, DB_UUID,
     DB_INT8, DB_INT4, DB_INT4, DB_TEXT, DB_JSONB, DB_INT8);

CALL(CALL_WORKER_ENDPOINTS, "worker_endpoints",
     "select * from durable_internal.worker_endpoints($1)", DB_UUID);
CALL(CALL_ENDPOINT_WELL, "endpoint_well", "select durable_internal.endpoint_well($1, $2)", DB_UUID,
     DB_TEXT);
CALL(CALL_COMMIT_OPS, "commit_ops", "select * from durable_internal.commit_ops($1, $2, $3, $4)",
     DB_UUID_ARRAY, DB_INT8_ARRAY, DB_UUID_ARRAY, DB_JSONB_ARRAY);
CALL(CALL_COMMIT_REF, "commit_ref", "select durable_internal.commit_ref($1, $2, $3, $4)", DB_UUID,
     DB_INT8, DB_UUID, DB_INT4);
CALL(CALL_ENDPOINT_PUT, "endpoint_put",
     "select secret from durable_internal.endpoint_put(durable_internal.session_namespace(), $1, "
     "$2, $3, $4, $5 * interval "
     "'1 ms')",
     DB_TEXT, DB_TEXT, DB_BOOL, DB_INT4, DB_INT8);
CALL(CALL_ENDPOINT_KEEP, "endpoint_keep", "select durable_internal.endpoint_keep($1, $2)", DB_TEXT,
     DB_TEXT);
CALL(CALL_ENDPOINT_ROTATE, "endpoint_rotate",
     "select durable_internal.endpoint_rotate(durable_internal.session_namespace(), $1)", DB_TEXT);
CALL(CALL_ENDPOINT_SYNCED, "endpoint_synced",
     "select durable_internal.endpoint_synced(durable_internal.session_namespace(), $1, $2, $3)",
     DB_TEXT, DB_TEXT, DB_JSONB);
CALL(CALL_ENDPOINT_TARGET, "endpoint_target", "select * from durable_internal.endpoint_target($1)",
     DB_TEXT);
CALL(CALL_ENDPOINT_TEXT, "endpoint_text", "select durable_internal.endpoint_text($1)", DB_TEXT);
CALL(CALL_ENDPOINT_CHANGE, "endpoint_change", "select durable_internal.endpoint_change($1, $2)",
     DB_TEXT, DB_TEXT);
const struct db_call CALL_ENDPOINTS_TEXT = { .name = "endpoints_text",
                                             .sql = "select durable_internal.endpoints_text()" };
CALL(CALL_RUN_OP, "run_op", "select durable_internal.run_op($1, $2)", DB_UUID, DB_JSONB);
const struct db_call CALL_COMMIT_SECRET = { .name = "commit_secret",
                                            .sql = "select durable_internal.commit_secret()" };

CALL(CALL_SCHEDULER_BEAT, "scheduler_beat",
     "select durable_internal.scheduler_beat($1::text::uuid, $2, $3)", DB_TEXT, DB_TEXT, DB_INT4);
CALL(CALL_MATCH_TURN, "match_turn", "select durable_internal.match_turn($1)", DB_INT4);
CALL(CALL_PROMOTE_DUE, "promote_due",
     "select promoted, due_in_ms from durable_internal.promote_due($1, $2)", DB_INT4, DB_INT4);
const struct db_call CALL_REAP = { .name = "reap", .sql = "select durable_internal.reap()" };
const struct db_call CALL_END_SESSIONS = { .name = "end_sessions",
                                           .sql = "select durable_internal.end_sessions()" };
CALL(CALL_MOVE_MARKS, "move_marks", "select durable_internal.move_marks($1)", DB_INT8);
CALL(CALL_EXPIRE_STATE, "expire_state", "select durable_internal.expire_state($1)", DB_INT4);
CALL(CALL_MAKE_PARTITIONS, "make_partitions", "select durable_internal.make_partitions($1)",
     DB_INT4);

/* Times and durations go as texts: PostgreSQL reads both as we write them. */
CALL(CALL_START, "start",
     "select durable.start($1, $2, $3, $4, $5::text::interval, $6, $7::text::timestamptz, $8, $9, "
     "$10::text::interval, $11, $12)",
     DB_TEXT, DB_JSONB, DB_TEXT, DB_TEXT, DB_TEXT, DB_INT4, DB_TEXT, DB_INT4, DB_TEXT, DB_TEXT,
     DB_JSONB, DB_JSONB);
CALL(CALL_START_MANY, "start_many",
     "select durable.start_many($1, $2, $3, $4, $5::text::interval, $6, $7::text::timestamptz, $8, "
     "$9, "
     "$10::text::interval, $11, $12)",
     DB_TEXT, DB_JSONB_ARRAY, DB_TEXT, DB_TEXT_ARRAY, DB_TEXT, DB_INT4, DB_TEXT, DB_INT4, DB_TEXT,
     DB_TEXT, DB_JSONB, DB_JSONB);
CALL(CALL_SEND_EVENT, "send_event", "select durable.send_event($1, $2, $3, $4)", DB_TEXT, DB_JSONB,
     DB_TEXT, DB_TEXT);
CALL(CALL_RUN_GET, "run_get", "select to_jsonb(r) from durable.runs r where r.id = $1", DB_UUID);
CALL(CALL_RESULT, "result", "select status, result, error from durable.runs where id = $1",
     DB_UUID);
CALL(CALL_CANCEL, "cancel", "select durable.cancel($1, $2)", DB_UUID, DB_TEXT);
CALL(CALL_RETRY, "retry", "select durable.retry($1, $2)", DB_UUID, DB_INT4);

CALL(CALL_STATE_GET, "state_get", "select value, version, expires_at from durable.state_get($1)",
     DB_TEXT);
CALL(CALL_STATE_SET, "state_set", "select durable.state_set($1, $2, $3::text::timestamptz, $4)",
     DB_TEXT, DB_JSONB, DB_TEXT, DB_INT8);
CALL(CALL_STATE_DELETE, "state_delete", "select durable.state_delete($1)", DB_TEXT);
CALL(CALL_STATE_INCREMENT, "state_increment",
     "select durable.state_increment($1, $2, $3::text::timestamptz)", DB_TEXT, DB_INT8, DB_TEXT);
CALL(CALL_STATE_LOCK, "state_lock", "select durable.state_lock($1, $2, $3::text::interval)",
     DB_TEXT, DB_TEXT, DB_TEXT);
CALL(CALL_STATE_UNLOCK, "state_unlock", "select durable.state_unlock($1, $2)", DB_TEXT, DB_TEXT);

CALL(CALL_START_TEXT, "start_text",
     "select durable_internal.start_text($1, $2, $3, $4, $5 * interval '1 millisecond', $6, $7, "
     "$8, $9, $10 * interval '1 millisecond', $11, $12)",
     DB_TEXT, DB_JSONB, DB_TEXT, DB_TEXT, DB_INT8, DB_INT4, DB_TIMESTAMPTZ, DB_INT4, DB_TEXT,
     DB_INT8, DB_JSONB, DB_TEXT);
CALL(CALL_RESULT_LOOK, "result_look", "select result from durable_internal.result_text($1, $2)",
     DB_UUID, DB_BOOL);

const struct db_call CALL_KEYS_JSON = {
    .name = "keys_json",
    .sql = "select jsonb_build_object('keys', coalesce(jsonb_agg(jsonb_build_object('id', key_id, "
           "'namespace', namespace, 'name', name, 'scopes', scopes, 'status', status, "
           "'createdAt', durable_internal.json_time(created_at), "
           "'expiresAt', durable_internal.json_time(expires_at), "
           "'revokedAt', durable_internal.json_time(revoked_at), 'replacedBy', replaced_by) "
           "order by created_at, key_id), '[]'))::text from durable_internal.key_list()"
};
#define KEY_CREATE "durable_internal.key_create($1, $2, string_to_array($3, ',')) as k"
#define KEY_ROTATE "durable_internal.key_rotate($1, $2::text::interval) as k"
CALL(CALL_KEY_CREATE, "key_create", "select k.key from " KEY_CREATE, DB_TEXT, DB_TEXT, DB_TEXT);
CALL(CALL_KEY_CREATE_JSON, "key_create_json",
     "select jsonb_build_object('id', k.key_id, 'key', k.key, 'namespace', $1, 'name', $2)::text "
     "from " KEY_CREATE,
     DB_TEXT, DB_TEXT, DB_TEXT);
CALL(CALL_KEY_REVOKE, "key_revoke",
     "select case when durable_internal.key_revoke($1) then 'revoked' else 'revoked before' end",
     DB_TEXT);
CALL(CALL_KEY_REVOKE_JSON, "key_revoke_json",
     "select jsonb_build_object('id', $1, 'revoked', durable_internal.key_revoke($1))::text",
     DB_TEXT);
CALL(CALL_KEY_ROTATE, "key_rotate", "select k.key from " KEY_ROTATE, DB_TEXT, DB_TEXT);
CALL(CALL_KEY_ROTATE_JSON, "key_rotate_json",
     "select jsonb_build_object('id', k.new_key_id, 'key', k.key, 'replaces', $1)::text "
     "from " KEY_ROTATE,
     DB_TEXT, DB_TEXT);
/* durable-server's. The first of a transaction says whose it is. */
const struct db_call CALL_API_SESSION = { .name = "api_session",
                                          .sql = "select durable_internal.api_session()::text" };
CALL(CALL_AS_NAMESPACE, "as_namespace", "select durable_internal.as_namespace($1)::text", DB_INT4);
CALL(CALL_KEY_FIND, "key_find",
     "select namespace_id, encode(hash, 'hex'), array_to_string(scopes, ' ') "
     "from durable_internal.key_find($1)",
     DB_TEXT);
CALL(CALL_START_BATCH, "start_batch",
     "select * from durable_internal.start_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, "
     "$12, $13)",
     DB_INT4_ARRAY, DB_TEXT_ARRAY, DB_JSONB_ARRAY, DB_TEXT_ARRAY, DB_TEXT_ARRAY, DB_INT8_ARRAY,
     DB_INT4_ARRAY, DB_TIMESTAMPTZ_ARRAY, DB_INT4_ARRAY, DB_TEXT_ARRAY, DB_INT8_ARRAY,
     DB_JSONB_ARRAY, DB_JSONB_ARRAY);
CALL(CALL_RUN_TEXT, "run_text", "select durable_internal.run_text($1, $2)", DB_UUID, DB_BOOL);
CALL(CALL_RESULT_TEXT, "result_text",
     "select ended, result from durable_internal.result_text($1, $2)", DB_UUID, DB_BOOL);
CALL(CALL_ENDED_RUNS, "ended_runs", "select durable_internal.ended_runs($1)", DB_UUID_ARRAY);
CALL(CALL_RUNS_PAGE, "runs_page",
     "select durable_internal.runs_page($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", DB_TEXT, DB_TEXT,
     DB_TEXT, DB_TEXT, DB_JSONB, DB_TIMESTAMPTZ, DB_TIMESTAMPTZ, DB_UUID, DB_INT4, DB_BOOL);
CALL(CALL_TIMELINE_PAGE, "timeline_page", "select durable_internal.timeline_page($1, $2, $3)",
     DB_UUID, DB_INT8, DB_INT4);
CALL(CALL_STEPS_PAGE, "steps_page", "select durable_internal.steps_page($1, $2, $3, $4)", DB_UUID,
     DB_INT8, DB_INT4, DB_BOOL);
CALL(CALL_ATTEMPTS_PAGE, "attempts_page", "select durable_internal.attempts_page($1, $2, $3, $4)",
     DB_UUID, DB_INT8, DB_INT4, DB_BOOL);
CALL(CALL_LOGS_PAGE, "logs_page", "select durable_internal.logs_page($1, $2, $3, $4)", DB_UUID,
     DB_INT8, DB_INT4, DB_BOOL);
CALL(CALL_WHY_TEXT, "why_text", "select durable_internal.why_text($1)", DB_UUID);
CALL(CALL_STREAM_IS_OVER, "stream_is_over", "select durable_internal.stream_is_over($1, $2)",
     DB_UUID, DB_INT8);
CALL(CALL_STREAM_TAILS, "stream_tails",
     "select n, at_us, entry, ended from durable_internal.stream_tails($1, $2, $3, $4)",
     DB_INT4_ARRAY, DB_UUID_ARRAY, DB_INT8_ARRAY, DB_INT4);
CALL(CALL_CANCEL_TEXT, "cancel_text", "select durable_internal.cancel_text($1, $2, $3)", DB_UUID,
     DB_TEXT, DB_BOOL);
CALL(CALL_RETRY_TEXT, "retry_text", "select durable_internal.retry_text($1, $2, $3)", DB_UUID,
     DB_INT4, DB_BOOL);
CALL(CALL_RESCHEDULE_TEXT, "reschedule_text", "select durable_internal.reschedule_text($1, $2, $3)",
     DB_UUID, DB_TIMESTAMPTZ, DB_BOOL);
CALL(CALL_BULK, "bulk",
     "select done, last from durable_internal.bulk($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, "
     "$12, $13)",
     DB_TEXT, DB_TEXT, DB_TEXT, DB_TEXT, DB_TEXT, DB_JSONB, DB_TIMESTAMPTZ, DB_TIMESTAMPTZ, DB_UUID,
     DB_INT4, DB_TEXT, DB_INT4, DB_BOOL);
CALL(CALL_EVENT_TEXT, "event_text", "select durable_internal.event_text($1, $2, $3, $4)", DB_TEXT,
     DB_JSONB, DB_TEXT, DB_TEXT);
CALL(CALL_RELEASE_KEY_TEXT, "release_key_text", "select durable_internal.release_key_text($1)",
     DB_TEXT);
const struct db_call CALL_QUEUES_TEXT = { .name = "queues_text",
                                          .sql = "select durable_internal.queues_text()" };
CALL(CALL_SET_QUEUE_TEXT, "set_queue_text",
     "select durable_internal.set_queue_text($1, $2, $3, $4, $5 * interval '1 millisecond', $6, "
     "$7, $8, $9, $10, $11)",
     DB_TEXT, DB_INT4, DB_INT4, DB_INT4, DB_INT8, DB_INT4, DB_TEXT, DB_JSONB, DB_INT4, DB_JSONB,
     DB_TEXT);
CALL(CALL_PAUSE_QUEUE_TEXT, "pause_queue_text", "select durable_internal.pause_queue_text($1, $2)",
     DB_TEXT, DB_BOOL);
CALL(CALL_API_STATE_GET, "api_state_get", "select durable_internal.api_state_get($1, $2)", DB_TEXT,
     DB_BOOL);
CALL(CALL_API_STATE_SET, "api_state_set",
     "select durable_internal.api_state_set($1, $2, $3, $4, $5)", DB_TEXT, DB_JSONB, DB_TIMESTAMPTZ,
     DB_INT8, DB_BOOL);
CALL(CALL_API_STATE_DELETE, "api_state_delete", "select durable_internal.api_state_delete($1)",
     DB_TEXT);
CALL(CALL_API_STATE_INCREMENT, "api_state_increment",
     "select durable_internal.api_state_increment($1, $2, $3)", DB_TEXT, DB_INT8, DB_TIMESTAMPTZ);
CALL(CALL_API_STATE_LOCK, "api_state_lock",
     "select durable_internal.api_state_lock($1, $2, $3 * interval '1 millisecond')", DB_TEXT,
     DB_TEXT, DB_INT8);
CALL(CALL_API_STATE_UNLOCK, "api_state_unlock", "select durable_internal.api_state_unlock($1, $2)",
     DB_TEXT, DB_TEXT);
const struct db_call CALL_WORKERS_TEXT = { .name = "workers_text",
                                           .sql = "select durable_internal.workers_text()" };

/* One lock for all who migrate, of the session: files are applied in transactions of their own. */
const struct db_call CALL_MIGRATE_LOCK = { .name = "migrate_lock",
                                           .sql = "select pg_try_advisory_lock(1684698987, -3)" };
const struct db_call CALL_MIGRATE_UNLOCK = { .name = "migrate_unlock",
                                             .sql = "select pg_advisory_unlock(1684698987, -3)" };
const struct db_call CALL_MIGRATION_TABLE = {
    .name = "migration_table", .sql = "select to_regclass('durable_internal.migration') is not null"
};
const struct db_call CALL_MIGRATION_LIST = {
    .name = "migration_list",
    .sql = "select name, checksum, to_char(applied_at, 'YYYY-MM-DD HH24:MI:SS') "
           "from durable_internal.migration order by name"
};
CALL(CALL_MIGRATION_NOTE, "migration_note",
     "insert into durable_internal.migration (name, checksum) values ($1, $2) on conflict (name) "
     "do update "
     "set checksum = excluded.checksum, applied_at = clock_timestamp() returning name",
     DB_TEXT, DB_TEXT);
CALL(CALL_CHECKSUM, "checksum", "select encode(sha256(convert_to($1, 'UTF8')), 'hex')", DB_TEXT);

/* The next statement towards an index: $1 its name, $2 its table, $3 what follows, $4 'unique ' or
 * ''. No row: it is there. */
CALL(CALL_INDEX_STEP, "index_step",
     "with whole as (select oid, relkind = 'p' as split, relnamespace::regnamespace as space, "
     "to_regclass(format('%s.%I', relnamespace::regnamespace, $1)) as made from pg_class "
     "where oid = $2::regclass), "
     "part as (select oid, $1 as name from whole where not split union all "
     "select c.oid, left(c.relname || '_' || $1, 63) from whole w join pg_inherits h on "
     "h.inhparent = w.oid join pg_class c on c.oid = h.inhrelid where w.split), "
     "missing as (select p.*, w.split, w.space, i.indisvalid as valid from part p cross join whole "
     "w left join (pg_index i join pg_class c on c.oid = i.indexrelid) on i.indrelid = p.oid and "
     "c.relname = p.name where not exists (select from pg_inherits h join pg_index j on "
     "j.indexrelid = h.inhrelid where h.inhparent = w.made and j.indrelid = p.oid)) "
     "select step from (select 0 as n, format('create %sindex %I on only %s %s', $4, $1, $2, $3) "
     "as step from whole where split and made is null union all select 1, case "
     "when valid is null then format('create %sindex concurrently %I on %s %s', $4, name, "
     "oid::regclass, $3) "
     "when not valid then format('drop index concurrently %s.%I', space, name) "
     "else format('alter index %s.%I attach partition %s.%I', space, $1, space, name) end "
     "from missing where split or valid is not true) as s order by n, step limit 1",
     DB_TEXT, DB_TEXT, DB_TEXT, DB_TEXT);
