-- What a run has begun to wait for besides other things, and what has not come yet. The rows of the wait in `wait` come and go
-- with each of them that comes; these keep since when, until when, and which child.
create table durable_internal.branch (
    run_id uuid not null,
    name text not null,
    kind text not null,
    due_at timestamptz,
    child_id uuid,
    position int,   -- of what a retry has forgotten, and is remembered there again; null: at the end
    constraint branch_by_name primary key (run_id, name)
) partition by range (run_id);

-- A remembered error that a retry has forgotten, of a handler that is called over HTTP: the place in the order is kept, for
-- what comes behind it is remembered.
alter table durable_internal.step add column forgotten boolean not null default false;
