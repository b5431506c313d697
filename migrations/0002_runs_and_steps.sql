-- Runs and what they leave behind. Wide, append-only but for a run's end, and partitioned by run id,
-- which is by time (UUID version 7), so that old history is dropped and not deleted.
-- functions/50_partition.sql makes the weekly partitions.

-- A lane is the line of one job's runs in one queue at one priority. It is never changed or removed.
-- Not unique: two first starts, neither of which sees the other yet, may each make one, and neither
-- waits for the other. A claim merges all lanes of a priority by number.
create table durable_internal.lane (
    id int generated always as identity primary key,
    namespace_id int not null,
    queue text not null,
    job text not null,
    priority smallint not null
);
create index lane_by_job on durable_internal.lane (namespace_id, job, queue, priority);

-- `status` is null until the run ends, and then completed, failed or cancelled: until then, where a run is says what
-- it does. `finished_at` comes with it, and `result` only with completed. No check constraints say so: PostgreSQL parses
-- each of them anew for each statement, which made a start a fifth dearer. tests/support/invariants.c does.
create table durable_internal.run (
    id uuid not null,
    seq bigint not null,
    lane_id int not null,
    namespace_id int not null,
    max_attempts int,                         -- as the start said it
    extra_attempts int not null default 0,    -- beyond that: a worker's death spends none, a retry gives more
    attempt int not null default 0,
    created_at timestamptz not null,
    scheduled_at timestamptz,
    started_at timestamptz,
    attempt_started_at timestamptz,
    finished_at timestamptz,
    fence bigint,
    worker_id uuid,
    parent_run_id uuid,
    status text,
    timeout interval,
    idempotency_key text,
    idempotency_expires_at timestamptz,
    concurrency_key text,
    version text,
    dead_letter_queue text,
    dead_lettered_at timestamptz,
    tags jsonb,
    options jsonb,
    payload jsonb not null,
    result jsonb,
    error jsonb,
    constraint run_id_is_unique primary key (id)
) partition by range (id);

create table durable_internal.step (
    run_id uuid not null,
    position int not null,
    attempt int not null,
    fence bigint,
    worker_id uuid,
    started_at timestamptz not null,
    committed_at timestamptz not null,
    name text not null,
    kind text not null,
    result jsonb,
    error jsonb,
    constraint step_position_is_unique primary key (run_id, position),
    constraint step_position_within_limit check (position between 1 and 10000)
) partition by range (run_id);

-- Attempts that ended before their run did. The last attempt is in the run, the one going on in its lease.
create table durable_internal.attempt (
    run_id uuid not null,
    attempt int not null,
    fence bigint,
    worker_id uuid,
    started_at timestamptz,
    ended_at timestamptz not null,
    outcome text not null,
    company int,    -- of a crash: how many runs were in the hands of the worker that died, this one included
    error jsonb
) partition by range (run_id);
create index attempt_by_run on durable_internal.attempt (run_id, ended_at);

-- Failed tries of steps that have a retry policy of their own.
create table durable_internal.step_try (
    run_id uuid not null,
    attempt int not null,
    fence bigint,
    at timestamptz not null,
    forgotten boolean not null default false,  -- by a retry of the whole run
    name text not null,
    error jsonb not null
) partition by range (run_id);
create index step_try_by_run on durable_internal.step_try (run_id, at);

create table durable_internal.log (
    run_id uuid not null,
    attempt int not null,
    at timestamptz not null,
    level text not null,
    message text not null,
    fields jsonb
) partition by range (run_id);
create index log_by_run on durable_internal.log (run_id, at);

-- Not on the run: a unique key of a partitioned table would have to hold the partition's key.
create table durable_internal.idempotency_key (
    namespace_id int not null,
    key text not null,
    run_id uuid not null,
    expires_at timestamptz,
    primary key (namespace_id, key)
);
