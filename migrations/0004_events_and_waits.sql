-- Events, the runs that wait for them, and who got what. functions/23_event.sql has the argument why none is
-- lost and none is given twice. A correlation key of '' stands for none: a key has at least one byte.

create table durable_internal.event (
    seq bigint not null primary key,
    id uuid not null constraint event_id_is_unique unique,
    namespace_id int not null,
    sent_at timestamptz not null,
    received boolean not null default false,
    name text not null,
    correlation_key text not null,
    idempotency_key text,
    payload jsonb not null
) with (fillfactor = 80);
create index event_by_key on durable_internal.event (namespace_id, name, correlation_key, seq);
create index event_not_received on durable_internal.event (namespace_id, name, correlation_key, seq)
    where not received;

create table durable_internal.event_key (
    namespace_id int not null,
    key text not null,
    event_seq bigint not null,
    primary key (namespace_id, key)
);

create table durable_internal.wait (
    wait_id bigint not null primary key,
    run_id uuid not null constraint wait_once unique,
    run_seq bigint not null,
    fence bigint not null,
    since timestamptz not null,
    due_at timestamptz,
    started_at timestamptz not null,
    attempt_started_at timestamptz not null,
    worker_id uuid not null,
    namespace_id int not null,
    lane_id int not null,
    attempt int not null,
    remembered int not null,
    bytes int not null,
    position int not null,
    deadline boolean not null,
    name text not null,
    event text not null,
    correlation_key text not null,
    on_timeout text not null
);
create index wait_by_key on durable_internal.wait (namespace_id, event, correlation_key, wait_id);

-- What the matcher has not looked at yet: an event sent, or a wait begun.
create table durable_internal.event_inbox (
    seq bigint not null,
    event_seq bigint,
    wait_id bigint,
    constraint event_inbox_is_of_one_side check ((event_seq is null) <> (wait_id is null))
);
create index event_inbox_in_order on durable_internal.event_inbox (seq);

-- The referee: a run takes an event once, a wait takes one event.
create table durable_internal.delivery (
    event_seq bigint not null,
    run_id uuid not null,
    wait_id bigint not null constraint delivery_once_a_wait unique,
    primary key (event_seq, run_id)
);

do $$
declare
    hot text;
begin
    foreach hot in array array['wait', 'event_inbox'] loop
        execute format('alter table durable_internal.%I set (autovacuum_vacuum_scale_factor = 0,
                            autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
                            vacuum_truncate = off)', hot);
    end loop;
end
$$;
