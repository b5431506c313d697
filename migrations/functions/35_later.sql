-- Calls that have their names and shapes, and whose work comes with a later version: each says so (DJ006).

create or replace function durable.fork(run_id uuid, from_step text, overrides jsonb default '{}')
returns uuid language sql volatile as $$
    select null::uuid from durable_internal.fail_not_available('durable.fork');
$$;
create or replace function durable.redrive(queue text, max_runs int default null, job text default null)
returns bigint language sql volatile as $$
    select null::bigint from durable_internal.fail_not_available('durable.redrive');
$$;
create or replace function durable.set_schedule(name text, job text, cron text, timezone text default 'UTC',
    payload jsonb default '{}', queue text default 'default', overlap text default 'skip',
    catch_up text default 'one', jitter interval default '0')
returns void language sql volatile as $$
    select durable_internal.fail_not_available('durable.set_schedule');
$$;
create or replace function durable.drop_schedule(name text)
returns void language sql volatile as $$
    select durable_internal.fail_not_available('durable.drop_schedule');
$$;
create or replace function durable.set_retention(completed interval default '7 days',
    failed interval default '30 days', logs interval default '7 days', events interval default '7 days')
returns void language sql volatile as $$
    select durable_internal.fail_not_available('durable.set_retention');
$$;
