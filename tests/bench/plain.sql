-- The ceiling's tables: the least that keeps the same rows as Durable Jobs does for runs without or with five steps, each run once.
-- tests/bench/ceiling.c has the statements. No names, namespaces, priorities, checks, functions or partitions.
drop table if exists run, ready, lease, step;
drop sequence if exists fence_seq, order_seq;

create table run (
    id uuid primary key,
    job text not null,
    payload jsonb not null,
    created_at timestamptz not null,
    status text,
    result jsonb,
    fence bigint,
    finished_at timestamptz
) with (fillfactor = 38); -- an end stays on its page
create table ready (seq bigint primary key, run_id uuid not null);
create table lease (
    run_id uuid primary key,
    fence bigint not null,
    worker_id uuid not null,
    since timestamptz not null
);
create table step (
    run_id uuid,
    position int,
    name text not null,
    result jsonb,
    fence bigint not null,
    committed_at timestamptz not null,
    primary key (run_id, position)
);
create sequence fence_seq cache 500;
create sequence order_seq;

-- :runs of them are ready, by ids in the order of time.
with new as materialized (
    select encode(overlay(uuid_send(gen_random_uuid()) placing substring(int8send(
               (extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 'hex')::uuid as id,
           nextval('order_seq') as seq
      from generate_series(1, :runs)
), started as (
    insert into run (id, job, payload, created_at)
    select id, 'noop', '{}', clock_timestamp() from new
)
insert into ready select seq, id from new;
vacuum analyze run, ready;
checkpoint;
