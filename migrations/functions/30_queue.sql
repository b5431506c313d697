-- Queues: their settings, pause and resume.

-- Sets what is not null of a queue's settings; 0 takes a limit away.
create or replace function durable_internal.set_queue(namespace_id int, name text, concurrency int,
    key_concurrency int, rate_limit int, rate_period interval, key_rate_limit int, fair_by text,
    weights jsonb, max_attempts int, backoff jsonb, dead_letter_queue text)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform durable_internal.check_name('name', name);
    perform durable_internal.check_count('max_attempts', max_attempts, 0, 1000000);
    perform durable_internal.check_backoff('backoff', backoff);
    if dead_letter_queue <> '' then
        perform durable_internal.check_name('dead_letter_queue', dead_letter_queue);
    end if;
    if coalesce(nullif(concurrency, 0), nullif(key_concurrency, 0), nullif(rate_limit, 0),
                nullif(key_rate_limit, 0)) is not null
       or coalesce(rate_period::text, fair_by, weights::text) is not null then
        perform durable_internal.fail_not_available('a limit or fairness of a queue');
    end if;
    insert into durable_internal.queue as q (namespace_id, name, max_attempts, backoff, dead_letter_queue)
    values (set_queue.namespace_id, set_queue.name, nullif(set_queue.max_attempts, 0), set_queue.backoff,
            nullif(set_queue.dead_letter_queue, ''))
        on conflict (namespace_id, name) do update
       set max_attempts = case when set_queue.max_attempts is null then q.max_attempts
                               else nullif(set_queue.max_attempts, 0) end,
           backoff = coalesce(set_queue.backoff, q.backoff),
           dead_letter_queue = case when set_queue.dead_letter_queue is null then q.dead_letter_queue
                                    else nullif(set_queue.dead_letter_queue, '') end;
end
$$;

create or replace function durable.set_queue(name text, concurrency int default null,
    key_concurrency int default null, rate_limit int default null, rate_period interval default null,
    key_rate_limit int default null, fair_by text default null, weights jsonb default null,
    max_attempts int default null, backoff jsonb default null, dead_letter_queue text default null)
returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select durable_internal.set_queue(durable_internal.session_namespace(), name, concurrency,
        key_concurrency, rate_limit, rate_period, key_rate_limit, fair_by, weights, max_attempts, backoff,
        dead_letter_queue);
$$;

-- Stops or lets go of a queue: no run of a paused queue is leased; those in hand go on.
create or replace function durable_internal.pause_queue(namespace_id int, name text, paused boolean)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform durable_internal.check_name('name', name);
    insert into durable_internal.queue as q (namespace_id, name, paused)
    values (pause_queue.namespace_id, pause_queue.name, pause_queue.paused)
        on conflict (namespace_id, name) do update set paused = excluded.paused;
    if not pause_queue.paused then
        perform durable_internal.wake_workers();
    end if;
end
$$;

create or replace function durable.pause_queue(name text)
returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select durable_internal.pause_queue(durable_internal.session_namespace(), name, true);
$$;

create or replace function durable.resume_queue(name text)
returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select durable_internal.pause_queue(durable_internal.session_namespace(), name, false);
$$;

-- Gives a role's sessions a namespace, which is made if it is not there. For owners.
create or replace function durable.grant_namespace(namespace text, role name)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform durable_internal.check_name('namespace', namespace);
    perform from pg_roles r where r.rolname = grant_namespace.role;
    if not found then
        perform durable_internal.fail('DJ003', format('role %s is not there', quote_literal(role)));
    end if;
    insert into durable_internal.namespace (name) values (grant_namespace.namespace)
        on conflict (name) do nothing;
    insert into durable_internal.namespace_role (role, namespace_id)
    select grant_namespace.role, n.id from durable_internal.namespace n where n.name = grant_namespace.namespace
        on conflict (role) do update set namespace_id = excluded.namespace_id;
end
$$;
