-- What durable-server calls for an API key, beside the functions of schema durable. Answers are JSON as text, which goes to
-- the client as it is. `durable` calls most of them over SQL, so that its answers are the same. All but start_batch and ended_runs work
-- in the namespace that as_namespace has set for the transaction. What has pages is in 48_pages.sql.

-- Refuses a login that as_namespace means nothing to: all keys would act in one namespace. Called once a connection.
-- Raises DJ006.
create or replace function durable_internal.api_session()
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not pg_has_role(session_user, 'durable_api', 'member') then
        perform durable_internal.fail('DJ006', format('role %s is not a member of durable_api', session_user),
            format('As owner: grant durable_api to %I', session_user));
    end if;
    perform durable_internal.miss_the_client();
end
$$;

-- Starts runs of any namespaces and jobs in one transaction: what gathered in the server while the batch before was on
-- its way. One row an item, numbered from 1, with what the server needs to show a new run without reading it.
--
-- All or nothing: one that is refused refuses all, and the server says each again alone. Null stands for what was not
-- given. What needs no look at anything else (a known lane, no time, no key or one that nobody has) goes in as a set. The
-- payloads of those were checked by the server, by check_json's rules; larger ones are checked again, for they may print as
-- more. A key that comes twice is for start_run, since the second has to find the first one's run.
-- A start that is alone goes by single statements, in half the time.
-- Keys are taken in their order, so that two batches cannot wait for one another; and where there are others to
-- consider, a key that somebody holds is waited for only shortly.
-- Locks: the keys' rows. Raises DJ001, DJ002, DJ004; 55P03: a key is held.
create or replace function durable_internal.start_batch(namespaces int[], jobs text[], payloads jsonb[], queues text[],
    keys text[], ttls bigint[], attempts int[], times timestamptz[], priorities int[], concurrency_keys text[],
    timeouts bigint[], tags jsonb[], options jsonb[])
returns table (n int, run_id uuid, created boolean, created_at timestamptz, max_attempts int, version text,
               paused boolean, served boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    many int := cardinality(start_batch.jobs);
    instant timestamptz := clock_timestamp();
    xid xid8 := pg_current_xact_id();
    lanes int[];
    ids uuid[] := array_fill(null::uuid, array[many]);
    made boolean[] := array_fill(true, array[many]);
    born timestamptz[] := array_fill(instant, array[many]);
    twice boolean := (select count(*) > count(distinct (k.namespace, k.key))
                        from unnest(namespaces, keys) as k (namespace, key) where k.key is not null);
    item record;
    got record;
begin
    if many = 1 then
        select s.* into got
          from durable_internal.start_run(namespaces[1], jobs[1], payloads[1], queues[1], keys[1],
                   ttls[1] * interval '1 millisecond', attempts[1], times[1], priorities[1], concurrency_keys[1],
                   timeouts[1] * interval '1 millisecond', coalesce(start_batch.tags[1], '{}'),
                   coalesce(start_batch.options[1], '{}')) as s;
        return query
        select 1, got.run_id, got.created, coalesce(got.created_at, durable_internal.born_at(got.run_id)),
               coalesce(attempts[1], k.max_attempts), coalesce(start_batch.options[1] ->> 'version', k.version),
               k.paused, k.served
          from durable_internal.start_kind(namespaces[1], jobs[1], queues[1]) as k;
        return;
    end if;
    lanes := array(select case when i.tags is null and i.options is null
                                and num_nonnulls(i.attempts, i.time, i.concurrency_key, i.timeout) = 0
                                and (i.key is null or not twice) and pg_column_size(i.payload) < 14000
                          then (select l.id from durable_internal.lane l
                                 where l.namespace_id = i.namespace and l.job = i.job and l.queue = i.queue
                                   and l.priority = i.priority limit 1) end
                     from unnest(namespaces, jobs, payloads, queues, keys, attempts, times, priorities,
                                 concurrency_keys, timeouts, tags, options) with ordinality
                       as i (namespace, job, payload, queue, key, attempts, time, priority, concurrency_key,
                             timeout, tags, options, n)
                    order by i.n);
    for i in 1 .. many loop
        ids[i] := durable_internal.uuid_v7();
    end loop;
    if num_nonnulls(variadic keys) > 0 or array_position(lanes, null) is not null then
        if many > 1 then
            perform set_config('lock_timeout', '100ms', true);
        end if;
        for item in select g.i from generate_series(1, many) as g (i)
                     where lanes[g.i] is null or keys[g.i] is not null
                     order by namespaces[g.i], keys[g.i] collate "C", g.i loop
            if lanes[item.i] is null then
                select s.* into got
                  from durable_internal.start_run(namespaces[item.i], jobs[item.i], payloads[item.i], queues[item.i],
                           keys[item.i], ttls[item.i] * interval '1 millisecond', attempts[item.i], times[item.i],
                           priorities[item.i], concurrency_keys[item.i], timeouts[item.i] * interval '1 millisecond',
                           coalesce(start_batch.tags[item.i], '{}'), coalesce(start_batch.options[item.i], '{}')) as s;
            else
                perform durable_internal.check_key('idempotencyKey', keys[item.i]);
                select k.holder as run_id, k.holder is null as created, null::timestamptz as created_at into got
                  from durable_internal.take_key(namespaces[item.i], keys[item.i],
                           ttls[item.i] * interval '1 millisecond', ids[item.i], jobs[item.i], payloads[item.i],
                           restart => false) as k (holder);
                continue when got.created;
                lanes[item.i] := null;
            end if;
            ids[item.i] := got.run_id;
            made[item.i] := got.created;
            born[item.i] := coalesce(got.created_at, durable_internal.born_at(got.run_id));
        end loop;
    end if;

    if num_nonnulls(variadic lanes) > 0 then
        with item as materialized (
            select i.*, nextval('durable_internal.order_seq') as seq
              from unnest(ids, lanes, namespaces, payloads, keys, ttls) with ordinality
                   as i (id, lane, namespace, payload, key, ttl, n)
             where i.lane is not null
        ), started as (
            insert into durable_internal.run (id, seq, lane_id, namespace_id, created_at, payload, idempotency_key,
                                              idempotency_expires_at)
            select i.id, i.seq, i.lane, i.namespace, instant, i.payload, i.key,
                   instant + i.ttl * interval '1 millisecond'
              from item i order by i.n
        )
        insert into durable_internal.ready (run_id, seq, lane_id, bytes, payload)
        select i.id, i.seq, i.lane, pg_column_size(i.payload),
               case when pg_column_size(i.payload) <= 1000 then i.payload end
          from item i order by i.n;
        perform durable_internal.wake_workers();
    end if;

    return query
    with kind as materialized (
        select i.*, k.*
          from (select distinct i.* from unnest(namespaces, jobs, queues) as i (namespace, job, queue)) as i
         cross join lateral durable_internal.start_kind(i.namespace, i.job, i.queue) as k
    )
    select i.n::int, i.id, i.made, i.born, coalesce(i.attempts, k.max_attempts),
           coalesce(i.options ->> 'version', k.version), k.paused, k.served
      from unnest(ids, made, born, namespaces, jobs, queues, attempts, options) with ordinality
           as i (id, made, born, namespace, job, queue, attempts, options, n)
      join kind k on k.namespace = i.namespace and k.job = i.job and k.queue = i.queue
     order by i.n;
end
$$;

-- Starts a run, and answers it, with `created`: false where its key was known. Called by `durable start`; the server gathers
-- starts in start_batch. Raises what durable.start does.
create or replace function durable_internal.start_text(job text, payload jsonb, queue text, idempotency_key text,
    idempotency_ttl interval, max_attempts int, scheduled_at timestamptz, priority int, concurrency_key text,
    timeout interval, tags jsonb, on_terminal text)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    started record;
begin
    started := durable_internal.start_run(durable_internal.session_namespace(), job, payload, queue, idempotency_key,
                   idempotency_ttl, max_attempts, scheduled_at, priority, concurrency_key, timeout, tags,
                   jsonb_strip_nulls(jsonb_build_object('onTerminal', on_terminal)));
    return (durable_internal.run_text(started.run_id, true)::jsonb || jsonb_build_object('created', started.created))::text;
end
$$;

-- When a run was created.
create or replace function durable_internal.born_at(run_id uuid)
returns timestamptz
language plpgsql stable
as $$
begin
    return (select r.created_at from durable_internal.run r where r.id = born_at.run_id);
end
$$;

-- What a run is shown with where its start did not say it.
create or replace function durable_internal.start_kind(namespace_id int, job text, queue text,
    out max_attempts int, out version text, out paused boolean, out served boolean)
language plpgsql stable
as $$
#variable_conflict use_column
begin
    select coalesce(j.max_attempts, q.max_attempts, 5), j.version, coalesce(q.paused, false),
           exists (select from durable_internal.worker w
                    where w.alive and not w.draining and w.namespace_id = start_kind.namespace_id
                      and start_kind.job = any (w.jobs || w.endpoint_jobs)
                      and (w.queues is null or start_kind.queue = any (w.queues)))
      into max_attempts, version, paused, served
      from (values (1)) as one
      left join durable_internal.job j on j.namespace_id = start_kind.namespace_id and j.name = start_kind.job
      left join durable_internal.queue q on q.namespace_id = start_kind.namespace_id and q.name = start_kind.queue;
end
$$;

-- What is said of a run, a step, an attempt or a log line; where the key's scopes do not show payloads, without what a
-- handler was given and gave back: of an error the fields that the protocol names, of a log line the text.
create or replace function durable_internal.shown(value jsonb, payloads boolean)
returns jsonb
language sql immutable
as $$
    select case when shown.payloads then shown.value
                when jsonb_typeof(shown.value -> 'error') = 'object' then
                    shown.value - array['payload', 'result', 'fields', 'error'] || jsonb_build_object('error',
                        (select jsonb_object_agg(e.key, e.value) from jsonb_each(shown.value -> 'error') as e
                          where e.key in ('name', 'message', 'stack', 'step', 'retryable', 'retryAfter', 'code')))
                else shown.value - array['payload', 'result', 'fields'] end;
$$;

-- One run. Raises DJ003.
create or replace function durable_internal.run_text(run_id uuid, payloads boolean)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    found_run text;
begin
    select durable_internal.shown(durable_internal.run_json(r), run_text.payloads)::text into found_run
      from durable.runs r where r.id = run_text.run_id;
    if found_run is null then
        perform durable_internal.fail('DJ003', format('run %s is not there', run_text.run_id));
    end if;
    return found_run;
end
$$;

-- How a run ended, or its status while it has not. Raises DJ003.
create or replace function durable_internal.result_text(run_id uuid, payloads boolean, out ended boolean, out result text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    select r.finished_at is not null,
           case when r.finished_at is null then jsonb_build_object('status', r.status)
                else durable_internal.shown(jsonb_build_object('status', r.status, 'result', r.result, 'error',
                                                               r.error), result_text.payloads) end::text
      into ended, result
      from durable.runs r where r.id = result_text.run_id;
    if ended is null then
        perform durable_internal.fail('DJ003', format('run %s is not there', result_text.run_id));
    end if;
end
$$;

-- Those of these runs that have ended, whoever's they are. Called for all who wait for a result at once. The next run that ends
-- is notified: the flag is up before we look.
create or replace function durable_internal.ended_runs(run_ids uuid[])
returns setof uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    perform durable_internal.raise_flag('durable_internal.result_wanted');
    return query
    select r.id from durable_internal.run r where r.id = any (ended_runs.run_ids) and r.status is not null;
end
$$;

-- Cancels, and answers the run. Raises DJ003; DJ006: it has ended.
create or replace function durable_internal.cancel_text(run_id uuid, reason text, payloads boolean)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not durable.cancel(cancel_text.run_id, cancel_text.reason) then
        perform durable_internal.fail('DJ006', format('run %s has ended; it cannot be cancelled', run_id));
    end if;
    return durable_internal.run_text(cancel_text.run_id, cancel_text.payloads);
end
$$;

-- Lets a run go on, and answers it. Raises what durable.retry does.
create or replace function durable_internal.retry_text(run_id uuid, max_attempts int, payloads boolean)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform durable.retry(retry_text.run_id, retry_text.max_attempts);
    return durable_internal.run_text(retry_text.run_id, retry_text.payloads);
end
$$;

-- Moves a run's time, and answers it. Raises what durable.reschedule does.
create or replace function durable_internal.reschedule_text(run_id uuid, scheduled_at timestamptz, payloads boolean)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform durable.reschedule(reschedule_text.run_id, reschedule_text.scheduled_at);
    return durable_internal.run_text(reschedule_text.run_id, reschedule_text.payloads);
end
$$;

-- Cancels or retries (`work`) up to `most` runs that all filters let through and that are older than `before`; a dry run
-- only counts them. Answers how many, and the last one that was looked at: null when there are no more. Runs that
-- have moved on meanwhile, or may not go on, are passed over.
create or replace function durable_internal.bulk(work text, status text, job text, queue text, dead_letter_queue text,
    tags jsonb, since timestamptz, until timestamptz, before uuid, most int, reason text, max_attempts int,
    dry_run boolean, out done bigint, out last uuid)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_sort = off
as $$
#variable_conflict use_column
declare
    item uuid;
    ids uuid[];
begin
    ids := durable_internal.run_ids(bulk.status, bulk.job, bulk.queue, bulk.dead_letter_queue, bulk.tags, bulk.since,
                                    bulk.until, bulk.before, bulk.most);
    done := 0;
    foreach item in array ids loop
        last := item;
        perform from durable_internal.run r
          where r.id = item and case bulk.work when 'cancel' then r.status is null
                                                else r.status in ('failed', 'cancelled') end;
        continue when not found;
        if bulk.dry_run then
            done := done + 1;
            continue;
        end if;
        begin
            if bulk.work = 'cancel' then
                done := done + durable.cancel(item, bulk.reason)::int;
            else
                done := done + durable.retry(item, bulk.max_attempts)::int;
            end if;
        exception
            when sqlstate 'DJ003' or sqlstate 'DJ006' then null;
        end;
    end loop;
    if cardinality(ids) < bulk.most then
        last := null;
    end if;
end
$$;

-- Sends an event. Raises what durable.send_event does.
create or replace function durable_internal.event_text(name text, payload jsonb, correlation_key text,
                                                       idempotency_key text)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    sent record;
begin
    sent := durable_internal.send_event(durable_internal.session_namespace(), event_text.name, event_text.payload,
                                        event_text.correlation_key, event_text.idempotency_key);
    return jsonb_build_object('id', sent.event_id, 'created', sent.created)::text;
end
$$;

-- Forgets an idempotency key. Raises DJ001; DJ003: it is not known.
create or replace function durable_internal.release_key_text(key text)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not durable.release_key(release_key_text.key) then
        perform durable_internal.fail('DJ003', 'the idempotency key is not known');
    end if;
    return jsonb_build_object('key', release_key_text.key, 'released', true)::text;
end
$$;

create or replace function durable_internal.queue_json(q durable.queues)
returns jsonb
language sql stable
as $$
    select jsonb_build_object('name', q.name, 'concurrency', q.concurrency, 'keyConcurrency', q.key_concurrency,
        'rateLimit', q.rate_limit, 'ratePeriod', q.rate_period::text, 'paused', q.paused, 'deadLetterQueue',
        q.dead_letter_queue, 'depth', q.depth, 'oldestAgeMs', round(extract(epoch from q.oldest_age) * 1000),
        'running', q.running, 'maxAttempts', q.max_attempts, 'backoff', q.backoff);
$$;

-- All queues by name.
create or replace function durable_internal.queues_text()
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return (select jsonb_build_object('queues', coalesce(jsonb_agg(durable_internal.queue_json(q) order by q.name), '[]'),
                                      'nextCursor', null)::text
              from durable.queues q);
end
$$;

-- Sets what is not null of a queue's settings, and answers the queue. Raises what durable.set_queue does.
create or replace function durable_internal.set_queue_text(name text, concurrency int, key_concurrency int,
    rate_limit int, rate_period interval, key_rate_limit int, fair_by text, weights jsonb, max_attempts int,
    backoff jsonb, dead_letter_queue text)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform durable.set_queue(name, concurrency, key_concurrency, rate_limit, rate_period, key_rate_limit, fair_by,
                              weights, max_attempts, backoff, dead_letter_queue);
    return (select durable_internal.queue_json(q)::text from durable.queues q where q.name = set_queue_text.name);
end
$$;

-- Stops a queue or lets it go on, and answers it. Raises DJ001.
create or replace function durable_internal.pause_queue_text(name text, paused boolean)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if paused is null then
        perform durable_internal.fail('DJ001', 'paused must not be null; true or false is allowed');
    end if;
    perform durable_internal.pause_queue(durable_internal.session_namespace(), pause_queue_text.name,
                                         pause_queue_text.paused);
    return (select durable_internal.queue_json(q)::text from durable.queues q where q.name = pause_queue_text.name);
end
$$;

-- All workers, by when they started.
create or replace function durable_internal.workers_text()
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return (select jsonb_build_object('workers', coalesce(jsonb_agg(jsonb_build_object('id', w.id, 'name', w.name,
                'pid', w.pid, 'version', w.version, 'status', w.status, 'jobs', w.jobs, 'endpointJobs', w.endpoint_jobs, 'queues',
                w.queues, 'slots', w.slots, 'inHand', w.in_hand, 'startedAt', durable_internal.json_time(w.started_at), 'beatAt',
                durable_internal.json_time(w.beat_at), 'endedAt', durable_internal.json_time(w.ended_at))
                order by w.started_at), '[]'), 'nextCursor', null)::text
              from durable.workers w);
end
$$;

-- A value of the namespace. Raises DJ001; DJ003: it is absent.
create or replace function durable_internal.api_state_get(key text, payloads boolean)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    got record;
begin
    select g.value, g.version, g.expires_at into got from durable.state_get(api_state_get.key) as g;
    if got.version is null then
        perform durable_internal.fail('DJ003', 'the key is absent');
    end if;
    return case when payloads then jsonb_build_object('key', key, 'value', got.value, 'version', got.version, 'expiresAt',
                                                      durable_internal.json_time(got.expires_at))
                else jsonb_build_object('key', key, 'version', got.version, 'expiresAt',
                                        durable_internal.json_time(got.expires_at)) end::text;
end
$$;

-- Sets a value, and answers it as it is now. Raises what durable.state_set does.
create or replace function durable_internal.api_state_set(key text, value jsonb, expires_at timestamptz, if_version bigint,
                                                          payloads boolean)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform durable.state_set(key, value, expires_at, if_version);
    return durable_internal.api_state_get(key, payloads);
end
$$;

-- Deletes a value. Raises DJ001; DJ003: it is absent.
create or replace function durable_internal.api_state_delete(key text)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not durable.state_delete(key) then
        perform durable_internal.fail('DJ003', 'the key is absent');
    end if;
    return jsonb_build_object('key', key, 'deleted', true)::text;
end
$$;

-- Adds to a counter, and answers it as it is now: a sum is shown whatever the key's scopes are, for it was asked for.
create or replace function durable_internal.api_state_increment(key text, by bigint, expires_at timestamptz)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform durable.state_increment(key, by, expires_at);
    return durable_internal.api_state_get(key, true);
end
$$;

-- Takes a lock. Raises DJ001; DJ006: another has it.
create or replace function durable_internal.api_state_lock(key text, owner text, ttl interval)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not durable.state_lock(key, owner, ttl) then
        perform durable_internal.fail('DJ006', 'the lock is held by another owner');
    end if;
    return jsonb_build_object('key', key, 'owner', owner, 'locked', true)::text;
end
$$;

-- Frees a lock. Raises DJ001; DJ006: the owner does not have it.
create or replace function durable_internal.api_state_unlock(key text, owner text)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not durable.state_unlock(key, owner) then
        perform durable_internal.fail('DJ006', 'the owner does not hold the lock');
    end if;
    return jsonb_build_object('key', key, 'owner', owner, 'unlocked', true)::text;
end
$$;
