-- Runs, queues and workers as JSON, in the shape that the command line and the HTTP API show.

create or replace function durable_internal.run_json(r durable.runs)
returns jsonb
language sql stable
as $$
    select jsonb_build_object(
        'id', r.id, 'job', r.job, 'queueName', r.queue, 'status', r.status, 'payload', r.payload,
        'result', r.result, 'error', r.error, 'attempt', r.attempt, 'maxAttempts', r.max_attempts,
        'priority', r.priority, 'tags', r.tags, 'concurrencyKey', r.concurrency_key,
        'idempotencyKey', r.idempotency_key, 'version', r.version, 'parentRunId', r.parent_run_id,
        'createdAt', durable_internal.json_time(r.created_at),
        'scheduledAt', durable_internal.json_time(r.scheduled_at),
        'startedAt', durable_internal.json_time(r.started_at),
        'finishedAt', durable_internal.json_time(r.finished_at),
        'nextAttemptAt', durable_internal.json_time(r.next_attempt_at), 'waitingFor', r.waiting_for,
        'deadLetterQueue', r.dead_letter_queue,
        'deadLetteredAt', durable_internal.json_time(r.dead_lettered_at));
$$;
