-- The two schemas, the roles, the limits, and whose namespace a session has.
--
-- `durable` is what users call and look at; `durable_internal` belongs to our own programs. Tables are
-- never granted to anybody: all goes through functions and views, which know the caller's namespace.

create schema if not exists durable;
create schema if not exists durable_internal;

-- Roles are shared by the whole cluster, so they may be there already.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['durable_client', 'durable_read', 'durable_worker', 'durable_scheduler',
                                  'durable_api'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            begin
                execute format('create role %I nologin', wanted);
            exception
                when duplicate_object or unique_violation then null;  -- another database was quicker
            end;
        end if;
    end loop;
end
$$;

create table if not exists durable_internal.migration (
    name text primary key,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp()
);

create table durable_internal.namespace (
    id int generated always as identity primary key,
    name text not null constraint namespace_name_is_unique unique
);
insert into durable_internal.namespace (name) values ('default');

-- A role's grant decides which namespace its sessions see: a setting could be changed by anyone.
create table durable_internal.namespace_role (
    role name primary key,
    namespace_id int not null references durable_internal.namespace
);

-- One order for runs, events, waits and places in a queue: whether a run is older than an event is
-- decided by these numbers, never by a clock.
create sequence durable_internal.order_seq as bigint cache 1;

-- What was committed under a fence has it alone. Only a lease that a crash forgot may have had a number that is given
-- again (claim), so a worker's fence counts together with its id.
create sequence durable_internal.fence_seq as bigint cache 1;

-- 2: somebody idle listens, and a hint would help; 1: nobody does. A sequence, because its value is
-- not part of any transaction: a start may lower the flag without making another start wait.
create sequence durable_internal.worker_idle as bigint minvalue 1 maxvalue 2;
create sequence durable_internal.scheduler_idle as bigint minvalue 1 maxvalue 2;
