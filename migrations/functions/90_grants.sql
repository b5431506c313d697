-- Who may call what. Nobody may touch a table.
--
--   durable_client      starts, events, control, and looking, in its own namespace
--   durable_read        looking only
--   durable_worker      the worker's protocol
--   durable_scheduler   the scheduler's protocol
--   durable_api         what durable-server does for API keys, for any namespace

-- What an older version of this page gave, and this one does not, is taken back: in one transaction, so nobody goes without.
revoke all on schema durable_internal from public;
revoke all on all tables in schema durable, durable_internal from public;
revoke all on all functions in schema durable, durable_internal
    from public, durable_client, durable_read, durable_worker, durable_scheduler, durable_api;

grant usage on schema durable to durable_client, durable_read, durable_worker, durable_scheduler, durable_api;
grant usage on schema durable_internal to durable_worker, durable_scheduler, durable_api;
grant select on all tables in schema durable to durable_client, durable_read, durable_api;
grant execute on all functions in schema durable to durable_client, durable_api;
revoke execute on function durable.grant_namespace(text, name) from durable_client, durable_api;
grant execute on function durable.timeline(uuid), durable.why(uuid) to durable_read;

-- Views call functions with the caller's rights.
grant usage on schema durable_internal to durable_client, durable_read;
grant execute on function durable_internal.session_namespace(),
    durable_internal.fail(text, text, text), durable_internal.fail_not_available(text),
    durable_internal.run_status(text, text), durable_internal.attempt_outcome(text, jsonb),
    durable_internal.waiting_for(durable_internal.place, durable_internal.lane),
    durable_internal.json_time(timestamptz)
    to durable_client, durable_read, durable_api;

-- What `durable` calls over SQL: each shows and does what the views and functions of schema durable do.
grant execute on function
    durable_internal.run_text(uuid, boolean), durable_internal.result_text(uuid, boolean),
    durable_internal.runs_page(text, text, text, text, jsonb, timestamptz, timestamptz, uuid, int, boolean),
    durable_internal.timeline_page(uuid, bigint, int), durable_internal.why_text(uuid),
    durable_internal.queues_text(), durable_internal.workers_text(), durable_internal.endpoints_text()
    to durable_client, durable_read;
grant execute on function
    durable_internal.start_text(text, jsonb, text, text, interval, int, timestamptz, int, text, interval, jsonb, text),
    durable_internal.event_text(text, jsonb, text, text), durable_internal.cancel_text(uuid, text, boolean),
    durable_internal.retry_text(uuid, int, boolean), durable_internal.pause_queue_text(text, boolean),
    durable_internal.set_queue_text(text, int, int, int, interval, int, text, jsonb, int, jsonb, text),
    durable_internal.api_state_get(text, boolean), durable_internal.api_state_delete(text),
    durable_internal.api_state_set(text, jsonb, timestamptz, bigint, boolean),
    durable_internal.api_state_increment(text, bigint, timestamptz),
    durable_internal.api_state_lock(text, text, interval), durable_internal.api_state_unlock(text, text)
    to durable_client;

grant execute on function
    durable_internal.worker_register(uuid, text, text, int, text, int, bigint, text[], jsonb[], text),
    durable_internal.worker_session(uuid), durable_internal.worker_tx_session(uuid),
    durable_internal.lock_turn(uuid, int),
    durable_internal.claim(uuid, int, int, int, boolean), durable_internal.beat(uuid, uuid[], bigint[], boolean),
    durable_internal.commit(uuid, uuid[], bigint[], int[], int[], text[], text[], jsonb[], jsonb[], bigint[],
        uuid[], bigint[], jsonb[], uuid[], bigint[], text[], jsonb[], uuid[], int[], bigint[], text[], text[]),
    durable_internal.commit_step_tx(uuid, uuid, bigint, int, int, text, jsonb, bigint),
    durable_internal.reconcile(uuid, int, uuid[], bigint[], int[]), durable_internal.worker_leave(uuid),
    durable_internal.worker_crashed(uuid, uuid, bigint, text),
    durable_internal.worker_endpoints(uuid), durable_internal.endpoint_well(uuid, text),
    durable_internal.commit_secret(), durable_internal.run_op(uuid, jsonb)
    to durable_worker;

grant execute on function durable_internal.uuid_v7() to durable_worker, durable_scheduler;

grant execute on function
    durable_internal.promote_due(int, int), durable_internal.match_turn(int),
    durable_internal.reap(), durable_internal.end_sessions(), durable_internal.move_marks(bigint),
    durable_internal.make_partitions(int), durable_internal.expire_state(int),
    durable_internal.scheduler_beat(uuid, text, int)
    to durable_scheduler;

grant execute on function
    durable_internal.as_namespace(int), durable_internal.key_find(text), durable_internal.commit_secret(),
    durable_internal.commit_ops(uuid[], bigint[], uuid[], jsonb[]),
    durable_internal.commit_ref(uuid, bigint, uuid, int),
    durable_internal.endpoint_text(text), durable_internal.endpoints_text(),
    durable_internal.endpoint_target(text), durable_internal.endpoint_change(text, text),
    durable_internal.endpoint_put(int, text, text, boolean, int, interval),
    durable_internal.endpoint_rotate(int, text), durable_internal.endpoint_synced(int, text, text, jsonb)
    to durable_api;

grant execute on function
    durable_internal.api_session(),
    durable_internal.start_batch(int[], text[], jsonb[], text[], text[], bigint[], int[], timestamptz[], int[], text[],
        bigint[], jsonb[], jsonb[]),
    durable_internal.run_text(uuid, boolean), durable_internal.result_text(uuid, boolean),
    durable_internal.ended_runs(uuid[]),
    durable_internal.runs_page(text, text, text, text, jsonb, timestamptz, timestamptz, uuid, int, boolean),
    durable_internal.timeline_page(uuid, bigint, int), durable_internal.steps_page(uuid, bigint, int, boolean),
    durable_internal.attempts_page(uuid, bigint, int, boolean), durable_internal.logs_page(uuid, bigint, int, boolean),
    durable_internal.why_text(uuid), durable_internal.stream_tails(int[], uuid[], bigint[], int),
    durable_internal.stream_is_over(uuid, bigint),
    durable_internal.cancel_text(uuid, text, boolean), durable_internal.retry_text(uuid, int, boolean),
    durable_internal.reschedule_text(uuid, timestamptz, boolean),
    durable_internal.bulk(text, text, text, text, text, jsonb, timestamptz, timestamptz, uuid, int, text, int, boolean),
    durable_internal.event_text(text, jsonb, text, text), durable_internal.release_key_text(text),
    durable_internal.queues_text(),
    durable_internal.set_queue_text(text, int, int, int, interval, int, text, jsonb, int, jsonb, text),
    durable_internal.pause_queue_text(text, boolean), durable_internal.workers_text(),
    durable_internal.api_state_get(text, boolean), durable_internal.api_state_delete(text),
    durable_internal.api_state_set(text, jsonb, timestamptz, bigint, boolean),
    durable_internal.api_state_increment(text, bigint, timestamptz),
    durable_internal.api_state_lock(text, text, interval), durable_internal.api_state_unlock(text, text)
    to durable_api;
