-- Where a run is while it has not ended: in exactly one of ready, lease, timer, wait. Narrow and hot.
--
-- The columns after the first few are what a run carries along from one table to the next:
--   attempt             attempts begun so far
--   resumed             the next lease goes on with that attempt
--   crashes             deaths of its worker in a row, with no progress between
--   remembered          steps that a claim has to bring along
--   bytes               about how much a claim has to bring along: payload and history
--   deadline            it has a timer for its whole time
--   fence, worker_id    of its last lease

create table durable_internal.queue (
    namespace_id int not null,
    name text not null,
    paused boolean not null default false,
    max_attempts int,
    backoff jsonb,
    dead_letter_queue text,
    primary key (namespace_id, name)
);
create index queue_paused on durable_internal.queue (namespace_id, name) where paused;

-- What workers said of the jobs that they serve.
create table durable_internal.job (
    namespace_id int not null,
    name text not null,
    max_attempts int,
    max_crashes int,
    backoff jsonb,
    version text,
    primary key (namespace_id, name)
);

create table durable_internal.ready (
    run_id uuid not null,
    seq bigint not null,
    fence bigint,
    started_at timestamptz,
    attempt_started_at timestamptz,
    worker_id uuid,
    lane_id int not null,
    attempt int not null default 0,
    remembered int not null default 0,
    bytes int not null default 0,
    crashes smallint not null default 0,
    resumed boolean not null default false,
    deadline boolean not null default false,
    payload jsonb,  -- a small one, so that a first claim need not look for it in `run`; null: it is there only
    constraint ready_once primary key (run_id)
);
create index ready_in_order on durable_internal.ready (lane_id, seq);

create table durable_internal.lease (
    run_id uuid not null,
    fence bigint not null,
    since timestamptz not null,
    started_at timestamptz not null,
    attempt_started_at timestamptz not null,
    worker_id uuid not null,
    lane_id int not null,
    attempt int not null,
    remembered int not null,
    bytes int not null,
    crashes smallint not null,
    deadline boolean not null,
    constraint lease_once primary key (run_id)
);

-- Kinds: start, retry, step_retry, sleep and version hold the run itself; wait_timeout belongs to a wait
-- (wait_id says to which), run_timeout to the run wherever it is.
create table durable_internal.timer (
    run_id uuid not null,
    due_at timestamptz not null,
    since timestamptz not null,
    wait_id bigint,
    fence bigint,
    started_at timestamptz,
    attempt_started_at timestamptz,
    worker_id uuid,
    lane_id int not null,
    attempt int not null default 0,
    remembered int not null default 0,
    bytes int not null default 0,
    position int,
    crashes smallint not null default 0,
    deadline boolean not null default false,
    kind text not null,
    name text,
    detail jsonb,
    constraint timer_once primary key (run_id, kind),
    constraint timer_kind_is_known check (kind in ('start', 'retry', 'step_retry', 'sleep', 'version',
                                                   'wait_timeout', 'run_timeout'))
);
create index timer_in_order on durable_internal.timer (due_at);
create index timer_of_parked on durable_internal.timer (lane_id) where kind = 'version';

-- A claim begins its scan of a lane here and so steps over no dead rows before it. Every row of the lane
-- that is below belongs to a transaction in mark_pending: 27_mark.sql has the argument.
create table durable_internal.lane_mark (
    lane_id int primary key,
    low_seq bigint not null
) with (fillfactor = 20);
create table durable_internal.mark_state (
    singleton boolean primary key default true check (singleton),
    last_seq bigint not null,
    own_xid xid8 not null
);
insert into durable_internal.mark_state (last_seq, own_xid) values (0, '0');
create table durable_internal.mark_pending (
    xid xid8 primary key,
    low_seq bigint not null
);

-- One row a process, for as long as it lives and a while after. The clock of all its leases is beat_at.
-- `number` names the advisory lock under which it claims and under which it is declared dead.
create table durable_internal.worker (
    id uuid primary key,
    number int generated always as identity,
    namespace_id int not null,
    name text not null,
    pid int,
    version text,
    slots int not null,
    jobs text[] not null,
    queues text[],
    ttl interval not null,
    started_at timestamptz not null,
    beat_at timestamptz not null,
    ended_at timestamptz,
    in_hand int not null default 0,
    alive boolean not null default true,
    draining boolean not null default false,
    crashed boolean not null default false,      -- it is not alive, and did not say goodbye
    leases_left boolean not null default false   -- … and some of its leases were held by somebody just then
) with (fillfactor = 50);

-- The database sessions of a worker, so that a frozen one can be ended. `backend_start` tells a session from
-- another with the same pid.
create table durable_internal.worker_session (
    worker_id uuid not null,
    pid int not null,
    backend_start timestamptz not null,
    primary key (worker_id, pid)
);

create table durable_internal.scheduler (
    id uuid primary key,
    name text not null,
    pid int,
    started_at timestamptz not null,
    beat_at timestamptz not null,
    active boolean not null
);

-- Rows here live for milliseconds: vacuum by number and not by share, at full speed, and do not give
-- pages back (that takes a lock that stops everybody).
do $$
declare
    hot text;
begin
    foreach hot in array array['ready', 'lease', 'timer', 'lane_mark', 'mark_pending', 'worker'] loop
        execute format('alter table durable_internal.%I set (autovacuum_vacuum_scale_factor = 0,
                            autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
                            autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000,
                            vacuum_truncate = off)', hot);
    end loop;
end
$$;
