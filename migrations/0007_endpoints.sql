-- Endpoints, where handlers are served over HTTP; and what their runs need beside the tables of all runs.

create table durable_internal.endpoint (
    namespace_id int not null,
    name text not null,
    url text not null,
    allow_private boolean not null,       -- it may have an address of a private network
    concurrency int not null default 200, -- calls at once, of one worker
    timeout interval not null default '5 minutes 30 seconds',
    paused boolean not null default false,
    version text,
    synced_at timestamptz,
    failures int not null default 0,      -- calls in a row that did not reach a handler
    rest_until timestamptz,               -- … and until when its runs stay in their queue for that
    last_error text,
    created_at timestamptz not null default clock_timestamp(),
    primary key (namespace_id, name)
);

-- What calls are signed with, whsec_…: the newest, and those before it for as long as they hold. Read by our own programs only.
create table durable_internal.endpoint_secret (
    namespace_id int not null,
    endpoint text not null,
    secret text not null,
    made_at timestamptz not null default clock_timestamp(),
    until timestamptz not null default 'infinity',
    primary key (namespace_id, endpoint, secret)
);

-- Who serves a job: the endpoint that was last found to.
create table durable_internal.endpoint_job (
    namespace_id int not null,
    job text not null,
    endpoint text not null,
    primary key (namespace_id, job)
);
create index endpoint_job_of on durable_internal.endpoint_job (namespace_id, endpoint);

-- What a worker serves for endpoints, beside the jobs of its modules.
alter table durable_internal.worker add column endpoint_jobs text[] not null default '{}';

-- What tokens of commits are signed with. One row.
create table durable_internal.commit_secret (
    singleton boolean primary key default true,
    secret bytea not null
);
insert into durable_internal.commit_secret (secret)
values (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- A handler that commits over HTTP names what it commits; a repeat is known by that. Steps of other handlers are found by
-- their positions and are not in this index.
alter table durable_internal.step add column by_name boolean not null default false;
create unique index step_by_name on durable_internal.step (run_id, name) where by_name;

create index run_by_parent on durable_internal.run (parent_run_id) where parent_run_id is not null;
