-- Starting runs: durable.start, durable.start_many, and the keys that make a repeated start one.

-- The lane of a job's runs in a queue at a priority; makes it at its first use. Two callers that do not see
-- each other yet may make two: see migrations/0002. Takes no lock that another start waits for.
create or replace function durable_internal.lane_of(namespace_id int, queue text, job text, priority int)
returns int
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    lane int;
begin
    select l.id into lane
      from durable_internal.lane l
     where l.namespace_id = lane_of.namespace_id and l.job = lane_of.job
       and l.queue = lane_of.queue and l.priority = lane_of.priority::smallint
     limit 1;
    if not found then
        insert into durable_internal.lane (namespace_id, queue, job, priority)
        values (lane_of.namespace_id, lane_of.queue, lane_of.job, lane_of.priority)
        returning id into lane;
    end if;
    return lane;
end
$$;

-- Gives the key to `new_id`, or says who has it: null = it is ours now.
--
-- Guarantee 2. The unique index decides between two starts; the row lock of DO UPDATE, taken even when its
-- WHERE says no, keeps the holder until we have looked, in a statement of its own: in the
-- same statement the winner's row would not be seen. The loop ends unless the key is released
-- between the two. A key that nobody has, which is most of them, is taken before all that: a statement that may have to
-- look at a run costs more before it has looked. In a REPEATABLE READ transaction of the caller a winner it cannot see raises 40001.
--
-- Whether a restart may have the key (its run has failed or was cancelled) is looked at once the key is held, under the
-- run's lock: a retry, which holds the key as well, may just have let that run go on, and a condition on `run` in DO UPDATE
-- would not be looked at again after waiting for it.
-- By indexes only: a plan made while a week of `run` was empty would read it whole later.
-- Locks: the key's row, then for a restart the run's. Called by start_run and start_batch;
-- raises DJ002.
create or replace function durable_internal.take_key(namespace_id int, key text, ttl interval, new_id uuid,
                                                     job text, payload jsonb, restart boolean)
returns uuid
language plpgsql volatile set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    got uuid;
    same boolean;
begin
    insert into durable_internal.idempotency_key (namespace_id, key, run_id, expires_at)
    values (take_key.namespace_id, take_key.key, take_key.new_id, clock_timestamp() + take_key.ttl)
        on conflict (namespace_id, key) do nothing;
    if found then
        return null;
    end if;
    loop
        insert into durable_internal.idempotency_key as k (namespace_id, key, run_id, expires_at)
        values (take_key.namespace_id, take_key.key, take_key.new_id, clock_timestamp() + take_key.ttl)
        on conflict (namespace_id, key) do update
           set run_id = excluded.run_id, expires_at = excluded.expires_at
         where k.expires_at <= clock_timestamp()
        returning run_id into got;
        if found then
            return null;
        end if;
        -- FAILPOINT key.taken

        select k.run_id, l.job = take_key.job and r.payload = take_key.payload into got, same
          from durable_internal.idempotency_key k
          left join durable_internal.run r on r.id = k.run_id
          left join durable_internal.lane l on l.id = r.lane_id
         where k.namespace_id = take_key.namespace_id and k.key = take_key.key;
        if found then
            if take_key.restart then
                perform from durable_internal.run r
                  where r.id = got and r.status in ('failed', 'cancelled')
                    for update;
                if found then
                    update durable_internal.idempotency_key k
                       set run_id = take_key.new_id, expires_at = clock_timestamp() + take_key.ttl
                     where k.namespace_id = take_key.namespace_id and k.key = take_key.key;
                    return null;
                end if;
            end if;
            if not coalesce(same, false) then
                perform durable_internal.fail('DJ002', format('idempotency_key %s is known with another job '
                    'or payload', quote_literal(left(take_key.key, 60))),
                    'Use another key, or release this one with durable.release_key().');
            end if;
            return got;
        end if;
    end loop;
end
$$;

-- The time of a key that was taken just now begins at `instant`, and its run gets an id of then. Called by start_run.
create or replace function durable_internal.begin_key(namespace_id int, key text, ttl interval, new_id uuid, instant timestamptz)
returns void
language plpgsql volatile set enable_seqscan = off
as $$
begin
    update durable_internal.idempotency_key k
       set run_id = begin_key.new_id, expires_at = begin_key.instant + begin_key.ttl
     where k.namespace_id = begin_key.namespace_id and k.key = begin_key.key;
end
$$;

-- Checks what all ways to start have in common.
create or replace function durable_internal.check_start(job text, queue text, idempotency_ttl interval,
    max_attempts int, scheduled_at timestamptz, priority int, concurrency_key text, timeout interval,
    tags jsonb, options jsonb)
returns void
language plpgsql stable
as $$
begin
    perform durable_internal.check_name('job', job);
    if queue is distinct from 'default' then
        perform durable_internal.check_name('queue', queue);
    end if;
    if priority is null or priority not between -32768 and 32767 then
        perform durable_internal.check_count('priority', coalesce(priority, 99999), -32768, 32767);
    end if;
    if idempotency_ttl is not null then
        perform durable_internal.check_interval('idempotency_ttl', idempotency_ttl);
    end if;
    if max_attempts is not null then
        perform durable_internal.check_count('max_attempts', max_attempts, 1, 1000000);
    end if;
    if scheduled_at is not null then
        perform durable_internal.check_time('scheduled_at', scheduled_at);
    end if;
    if concurrency_key is not null then
        perform durable_internal.check_key('concurrency_key', concurrency_key);
    end if;
    if timeout is not null then
        perform durable_internal.check_interval('timeout', timeout);
    end if;
    if tags is distinct from '{}'::jsonb then
        perform durable_internal.check_tags(tags);
    end if;
    if options is distinct from '{}'::jsonb then
        perform durable_internal.check_options(options);
    end if;
end
$$;

drop function if exists durable_internal.start_run(int, text, jsonb, text, text, interval, int, timestamptz, int, text,
                                                  interval, jsonb, jsonb);  -- had no created_at

-- Starts one run in a namespace, or finds the one that its key stands for. `created` tells which, and `created_at` when it
-- was, if it was now.
--
-- A lane that is there stands for a name, a queue and a priority that were checked: a plain start of a known job has
-- nothing else to check. The transaction's number is drawn before the run's place in the order: 27_mark.sql relies
-- on it. Called by durable.start and start_many, whose rights and search_path it has: its own would be paid for by each
-- start. Locks: the key's row. Raises DJ001, DJ002, DJ004; then nothing was stored.
create or replace function durable_internal.start_run(namespace_id int, job text, payload jsonb, queue text,
    idempotency_key text, idempotency_ttl interval, max_attempts int, scheduled_at timestamptz,
    priority int, concurrency_key text, timeout interval, tags jsonb, options jsonb,
    out run_id uuid, out created boolean, out created_at timestamptz)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    lane int;
    holder uuid;
    xid xid8 := pg_current_xact_id();
    place bigint;
    instant timestamptz := clock_timestamp();
begin
    created_at := instant;
    select l.id into lane
      from durable_internal.lane l
     where l.namespace_id = start_run.namespace_id and l.job = start_run.job
       and l.queue = start_run.queue and l.priority = start_run.priority
     limit 1;
    if lane is null or tags is distinct from '{}'::jsonb or options is distinct from '{}'::jsonb
       or num_nonnulls(idempotency_ttl, max_attempts, scheduled_at, concurrency_key, timeout) > 0 then
        perform durable_internal.check_start(job, queue, idempotency_ttl, max_attempts, scheduled_at, priority,
                                             concurrency_key, timeout, tags, options);
    end if;
    if payload is distinct from '{}'::jsonb then
        perform durable_internal.check_json('payload', payload, durable_internal.payload_bytes_max());
    end if;
    run_id := durable_internal.uuid_v7();
    created := true;
    if idempotency_key is not null then
        perform durable_internal.check_key('idempotency_key', idempotency_key);
        holder := durable_internal.take_key(namespace_id, idempotency_key, idempotency_ttl, run_id, job,
                                            payload, options ->> 'onTerminal' = 'restart');
        if holder is not null then
            run_id := holder;
            created := false;
            created_at := null;
            return;
        end if;
        -- It waited for another start, which has rolled back, or whose key's time went by meanwhile; its own would be shorter
        -- by as much, or be over already.
        if clock_timestamp() > instant + interval '100 milliseconds' then
            instant := clock_timestamp();
            created_at := instant;
            run_id := durable_internal.uuid_v7();
            perform durable_internal.begin_key(namespace_id, idempotency_key, idempotency_ttl, run_id, instant);
        end if;
    end if;
    if lane is null then
        lane := durable_internal.lane_of(namespace_id, queue, job, priority);
    end if;

    place := nextval('durable_internal.order_seq');
    -- FAILPOINT start.placed
    insert into durable_internal.run (id, seq, lane_id, namespace_id, max_attempts, created_at,
                                      scheduled_at, timeout, idempotency_key, idempotency_expires_at,
                                      concurrency_key, version, tags, options, payload)
    values (start_run.run_id, place, lane, start_run.namespace_id, start_run.max_attempts, instant,
            start_run.scheduled_at, start_run.timeout, start_run.idempotency_key,
            instant + start_run.idempotency_ttl, start_run.concurrency_key, start_run.options ->> 'version',
            nullif(start_run.tags, '{}'), nullif(start_run.options, '{}'), start_run.payload);
    if timeout is not null then
        insert into durable_internal.timer (run_id, kind, due_at, since, lane_id)
        values (start_run.run_id, 'run_timeout', greatest(start_run.scheduled_at, instant) + start_run.timeout,
                instant, lane);
    end if;
    if scheduled_at > instant then
        insert into durable_internal.timer (run_id, kind, due_at, since, lane_id, bytes, deadline)
        values (start_run.run_id, 'start', start_run.scheduled_at, instant, lane,
                pg_column_size(start_run.payload), start_run.timeout is not null);
    else
        insert into durable_internal.ready (run_id, seq, lane_id, bytes, deadline, payload)
        values (start_run.run_id, place, lane, pg_column_size(start_run.payload), start_run.timeout is not null,
                case when pg_column_size(start_run.payload) <= 1000 then start_run.payload end);
        if durable_internal.lower_flag('durable_internal.worker_idle') then  -- wake_workers, without a call where nobody sleeps
            perform pg_notify('durable_ready', '');
        end if;
    end if;
    if scheduled_at > instant or timeout is not null then
        perform durable_internal.wake_scheduler();
    end if;
end
$$;

-- Starts a run of `job`, in the caller's own transaction: if that rolls back, it never happened.
create or replace function durable.start(
    job text, payload jsonb default '{}', queue text default 'default', idempotency_key text default null,
    idempotency_ttl interval default null, max_attempts int default null,
    scheduled_at timestamptz default null, priority int default 0, concurrency_key text default null,
    timeout interval default null, tags jsonb default '{}', options jsonb default '{}')
returns uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return (durable_internal.start_run(durable_internal.login_namespace(), job, payload, queue,
                idempotency_key, idempotency_ttl, max_attempts, scheduled_at, priority, concurrency_key,
                timeout, tags, options)).run_id;
end
$$;

-- Starts one run for each payload, in one statement; the ids come in the payloads' order.
--
-- Without keys it is set after set. With keys each start is its own, in the keys' order, so that two
-- batches with crossing keys cannot wait for one another; a key given twice is the same run twice.
create or replace function durable.start_many(
    job text, payloads jsonb[], queue text default 'default', idempotency_keys text[] default null,
    idempotency_ttl interval default null, max_attempts int default null,
    scheduled_at timestamptz default null, priority int default 0, concurrency_key text default null,
    timeout interval default null, tags jsonb default '{}', options jsonb default '{}')
returns setof uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    namespace int := durable_internal.login_namespace();
    instant timestamptz := clock_timestamp();
    many int := cardinality(start_many.payloads);
    ids uuid[];
    lane int;
    item record;
begin
    perform durable_internal.check_start(job, queue, idempotency_ttl, max_attempts, scheduled_at, priority,
                                         concurrency_key, timeout, tags, options);
    if many is null or array_ndims(start_many.payloads) > 1 then
        perform durable_internal.fail('DJ001', 'payloads is not a list; an array of JSON values is allowed');
    elsif idempotency_keys is not null and cardinality(idempotency_keys) <> many then
        perform durable_internal.fail('DJ001', format('idempotency_keys has %s keys for %s payloads; one for '
            'each payload is allowed, null where there is none', cardinality(idempotency_keys), many));
    end if;
    for i in 1 .. many loop
        if start_many.payloads[i] is distinct from '{}'::jsonb then
            perform durable_internal.check_json(format('payloads[%s]', i), start_many.payloads[i],
                                                durable_internal.payload_bytes_max());
        end if;
    end loop;

    if idempotency_keys is not null or scheduled_at > instant or timeout is not null then
        ids := array_fill(null::uuid, array[many]);
        for item in select g.i, start_many.idempotency_keys[g.i] as key from generate_series(1, many) as g (i)
                     order by 2, 1 loop
            ids[item.i] := (durable_internal.start_run(namespace, job, start_many.payloads[item.i], queue,
                item.key, idempotency_ttl, max_attempts, scheduled_at, priority, concurrency_key, timeout,
                tags, options)).run_id;
        end loop;
        return query select unnest(ids);
        return;
    end if;

    perform pg_current_xact_id();
    lane := durable_internal.lane_of(namespace, queue, job, priority);
    return query
    with item as materialized (
        select p.n, p.payload, durable_internal.uuid_v7() as id,
               nextval('durable_internal.order_seq') as seq
          from unnest(start_many.payloads) with ordinality as p (payload, n)
    ), started as (
        insert into durable_internal.run (id, seq, lane_id, namespace_id, max_attempts, created_at,
                                          scheduled_at, concurrency_key, version, tags, options, payload)
        select i.id, i.seq, lane, namespace, start_many.max_attempts, instant, start_many.scheduled_at,
               start_many.concurrency_key, start_many.options ->> 'version',
               nullif(start_many.tags, '{}'), nullif(start_many.options, '{}'), i.payload
          from item i
         order by i.n
    ), queued as (
        insert into durable_internal.ready (run_id, seq, lane_id, bytes, payload)
        select i.id, i.seq, lane, pg_column_size(i.payload), case when pg_column_size(i.payload) <= 1000 then i.payload end
          from item i
         order by i.n
    )
    select i.id from item i order by i.n;
    perform durable_internal.wake_workers();
end
$$;

-- Forgets a key, so that the next start with it is a new run. False: it was not known.
create or replace function durable.release_key(idempotency_key text)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if release_key.idempotency_key is null then
        perform durable_internal.fail('DJ001', 'idempotency_key must not be null');
    end if;
    perform durable_internal.check_key('idempotency_key', release_key.idempotency_key);
    delete from durable_internal.idempotency_key k
     where k.namespace_id = durable_internal.login_namespace() and k.key = release_key.idempotency_key;
    return found;
end
$$;
