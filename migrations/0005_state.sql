-- State: values by key, and locks. functions/32_state.sql has the rules. What has expired counts as absent at once, and
-- is removed later.

-- One row a key, changed in place: room in each page for that, so that a counter that does not move its end (the
-- one other index) leaves no index entries behind.
create table durable_internal.state (
    namespace_id int not null,
    key text not null,
    version bigint not null,
    expires_at timestamptz,
    value jsonb not null,
    constraint state_once primary key (namespace_id, key)
) with (fillfactor = 80);
create index state_expiring on durable_internal.state (expires_at) where expires_at is not null;

-- Of all keys, and not one a key: a key that is deleted and set again never has an old version again.
create sequence durable_internal.state_version_seq as bigint cache 1;

create table durable_internal.state_lock (
    namespace_id int not null,
    key text not null,
    expires_at timestamptz not null,
    run_id uuid,  -- the run that has it, whose end frees it; null: nobody's end does
    owner text not null,
    constraint state_lock_has_one_owner primary key (namespace_id, key)
) with (fillfactor = 80);
create index state_lock_expiring on durable_internal.state_lock (expires_at);
create index state_lock_of_run on durable_internal.state_lock (run_id) where run_id is not null;

do $$
declare
    hot text;
begin
    foreach hot in array array['state', 'state_lock'] loop
        execute format('alter table durable_internal.%I set (autovacuum_vacuum_scale_factor = 0.02,
                            autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
                            vacuum_truncate = off)', hot);
    end loop;
end
$$;
