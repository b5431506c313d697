-- What people do to runs: cancel, retry, reschedule.

-- What a row carries for the run that it holds, in the form in which end_run and make_ready take it. A run that waits has
-- committed something: its crashes are forgotten.
create or replace function durable_internal.carried_by(w durable_internal.wait)
returns durable_internal.lease
language sql immutable
as $$
    select row(w.run_id, w.fence, w.since, w.started_at, w.attempt_started_at, w.worker_id, w.lane_id, w.attempt, w.remembered,
               w.bytes, 0, w.deadline)::durable_internal.lease;
$$;

-- … a timer.
create or replace function durable_internal.carried_by(t durable_internal.timer)
returns durable_internal.lease
language sql immutable
as $$
    select row(t.run_id, t.fence, t.since, t.started_at, t.attempt_started_at, t.worker_id, t.lane_id, t.attempt, t.remembered,
               t.bytes, t.crashes, t.deadline)::durable_internal.lease;
$$;

-- … and a run that is queued: since when is written nowhere.
create or replace function durable_internal.carried_by(r durable_internal.ready)
returns durable_internal.lease
language sql immutable
as $$
    select row(r.run_id, r.fence, null, r.started_at, r.attempt_started_at, r.worker_id, r.lane_id, r.attempt, r.remembered,
               r.bytes, r.crashes, r.deadline)::durable_internal.lease;
$$;

-- Takes a run out of wherever it is; null: it has ended. The caller ends it or puts it elsewhere.
--
-- A run that moves while we look may be missed in each place once, so we look again: each look waits for
-- whoever has it just then. In a caller's REPEATABLE READ transaction a move that it cannot see
-- raises 40001. Locks: the run's row in ready, lease, wait or timer.
create or replace function durable_internal.take_out(run_id uuid)
returns durable_internal.lease
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    queued durable_internal.ready;
    l durable_internal.lease;
    w durable_internal.wait;
    held durable_internal.timer;
begin
    for look in 1 .. 1000 loop
        delete from durable_internal.ready t where t.run_id = take_out.run_id returning t.* into queued;
        if found then
            return durable_internal.carried_by(queued);
        end if;
        -- FAILPOINT take_out.lease
        delete from durable_internal.lease t where t.run_id = take_out.run_id returning t.* into l;
        if found then
            return l;
        end if;
        -- FAILPOINT take_out.wait
        delete from durable_internal.wait t where t.run_id = take_out.run_id returning t.* into w;
        if found then
            perform durable_internal.drop_others(w);
            delete from durable_internal.timer t
             where t.run_id = take_out.run_id and t.kind = 'wait_timeout';
            return durable_internal.carried_by(w);
        end if;
        -- FAILPOINT take_out.timer
        delete from durable_internal.timer t
         where t.run_id = take_out.run_id and t.kind not in ('wait_timeout', 'run_timeout')
        returning t.* into held;
        if found then
            return durable_internal.carried_by(held);
        end if;
        -- FAILPOINT take_out.again
        perform from durable_internal.run r where r.id = take_out.run_id and r.status is null;
        if not found then
            return null;
        end if;
    end loop;
    raise exception using errcode = '40001', message = format('run %s keeps moving; try again', run_id);
end
$$;

-- Raises DJ003 for a run that is not in the namespace.
create or replace function durable_internal.check_run(namespace_id int, run_id uuid)
returns void
language plpgsql stable
as $$
begin
    if run_id is null then
        perform durable_internal.fail('DJ001', 'run_id must not be null; the id of a run is allowed');
    end if;
    perform from durable_internal.run r
      where r.id = check_run.run_id and r.namespace_id = check_run.namespace_id;
    if not found then
        perform durable_internal.fail('DJ003', format('run %s is not there', check_run.run_id));
    end if;
end
$$;

-- Cancels a run. Guarantee 10: its lease is deleted, so what its worker commits is refused.
-- False: it had ended. Raises DJ003.
create or replace function durable_internal.cancel_run(namespace_id int, run_id uuid, reason text)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
    l durable_internal.lease;
begin
    perform durable_internal.check_run(namespace_id, run_id);
    if octet_length(reason) > 4096 then
        perform durable_internal.fail('DJ001', format('reason is %s bytes; up to 4096 bytes are allowed',
                                                      octet_length(reason)));
    end if;
    l := durable_internal.take_out(run_id);
    if l.run_id is null then
        return false;
    end if;
    perform durable_internal.end_run(l, 'cancelled', jsonb_strip_nulls(jsonb_build_object(
        'name', 'Cancelled', 'message', coalesce(nullif(reason, ''), 'the run was cancelled'),
        'retryable', false)));
    return true;
end
$$;

create or replace function durable.cancel(run_id uuid, reason text default null)
returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select durable_internal.cancel_run(durable_internal.session_namespace(), run_id, reason);
$$;

-- Lets a failed or cancelled run go on, with `max_attempts` further attempts (null: as many as at first). Completed
-- steps are reused, remembered errors forgotten. A parked run goes on at once.
--
-- The idempotency key first: if it has gone to a newer run, this one may not come back to life beside it.
-- Locks: the key, the run. Raises DJ001, DJ003, DJ004, DJ006.
create or replace function durable_internal.retry_run(namespace_id int, run_id uuid, max_attempts int)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    r durable_internal.run;
    k record;
    l durable_internal.lease;
    base int;
    history bigint;
    parked text := 'version';  -- no constant: the index of all parked runs is not for finding one
begin
    perform durable_internal.check_run(namespace_id, run_id);
    perform durable_internal.check_count('max_attempts', max_attempts, 1, 1000000);

    update durable_internal.timer t set kind = 'step_retry', due_at = clock_timestamp(), detail = null
     where t.run_id = retry_run.run_id and t.kind = parked;
    if found then
        perform durable_internal.wake_scheduler();
        return true;
    end if;

    select r.* into r from durable_internal.run r where r.id = retry_run.run_id;
    if r.idempotency_key is not null then
        select k.run_id into k from durable_internal.idempotency_key k
         where k.namespace_id = retry_run.namespace_id and k.key = r.idempotency_key
           for update;
        if k.run_id <> retry_run.run_id then
            perform durable_internal.fail('DJ006', format('run %s may not go on: its idempotency key has '
                'gone to run %s', retry_run.run_id, k.run_id));
        end if;
    end if;

    -- FAILPOINT retry.keyed
    select r.* into r from durable_internal.run r where r.id = retry_run.run_id for update;
    if r.status is null or r.status = 'completed' then
        perform durable_internal.fail('DJ006', format('run %s is %s; only a failed or cancelled run can be '
            'retried', retry_run.run_id, coalesce(r.status, 'not ended')));
    end if;
    -- FAILPOINT retry.locked
    select p.max_attempts - r.extra_attempts into base from durable_internal.retry_policy(r.id) as p;

    if r.attempt_started_at is not null then
        insert into durable_internal.attempt (run_id, attempt, fence, worker_id, started_at, ended_at,
                                              outcome, error)
        values (r.id, r.attempt, r.fence, r.worker_id, r.attempt_started_at, r.finished_at,
                durable_internal.attempt_outcome(r.status, r.error), r.error);
    end if;
    update durable_internal.run t
       set status = null, error = null, finished_at = null, dead_letter_queue = null,
           dead_lettered_at = null,
           extra_attempts = r.attempt + coalesce(retry_run.max_attempts, base) - base
     where t.id = r.id;
    if exists (select from durable_internal.endpoint_job j
                join durable_internal.lane on lane.namespace_id = j.namespace_id and lane.job = j.job
               where lane.id = r.lane_id) then
        update durable_internal.step s set error = null, forgotten = true, by_name = true
         where s.run_id = r.id and s.error is not null;
    else  -- a handler in C asks by position, and finds none there
        delete from durable_internal.step s where s.run_id = r.id and s.error is not null;
    end if;
    perform durable_internal.forget_branches(r.id);
    update durable_internal.step_try t set forgotten = true where t.run_id = r.id and not t.forgotten;

    l.run_id := r.id;
    l.fence := r.fence;
    l.started_at := r.started_at;
    l.worker_id := r.worker_id;
    l.lane_id := r.lane_id;
    l.attempt := r.attempt;
    l.crashes := 0;
    l.deadline := r.timeout is not null;
    select coalesce(max(s.position), 0), coalesce(sum(durable_internal.history_bytes(s.result, null)), 0)
      into l.remembered, history
      from durable_internal.step s
     where s.run_id = r.id;
    if history > durable_internal.history_bytes_max() then
        perform durable_internal.fail('DJ004', format('run %s remembers %s bytes; the limit is %s bytes', run_id, history,
            durable_internal.history_bytes_max()), 'Start a new run.');
    end if;
    l.bytes := (history + octet_length(r.payload::text))::int;
    if r.timeout is not null then
        insert into durable_internal.timer (run_id, kind, due_at, since, lane_id)
        values (r.id, 'run_timeout', clock_timestamp() + r.timeout, clock_timestamp(), r.lane_id)
            on conflict (run_id, kind) do update set due_at = excluded.due_at;
        perform durable_internal.wake_scheduler();
    end if;
    perform durable_internal.make_ready(l, resumed => false);
    return true;
end
$$;

create or replace function durable.retry(run_id uuid, max_attempts int default null)
returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select durable_internal.retry_run(durable_internal.session_namespace(), run_id, max_attempts);
$$;

-- How an attempt ended, from how its run did.
create or replace function durable_internal.attempt_outcome(status text, error jsonb)
returns text
language sql immutable
as $$
    select case when attempt_outcome.status = 'failed' and error ->> 'name' = 'RunTimeoutError' then 'timed_out'
                when attempt_outcome.status = 'failed' and error ->> 'name' = 'WorkerCrashed' then 'crashed'
                else attempt_outcome.status end;
$$;

-- Moves the time of a run that has not been leased yet, or is between attempts. Looks again if the run has gone from
-- `ready` to its timer meanwhile, as by another one of these. Locks: the run's row in timer or ready. Raises DJ001, DJ003, DJ006.
create or replace function durable_internal.reschedule_run(namespace_id int, run_id uuid,
                                                           scheduled_at timestamptz)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    l durable_internal.lease;
    kind text;
    due timestamptz := greatest(reschedule_run.scheduled_at, clock_timestamp());  -- promote_due() does not look far back
begin
    perform durable_internal.check_run(namespace_id, run_id);
    if scheduled_at is null then
        perform durable_internal.fail('DJ001', 'scheduled_at must not be null; a time is allowed');
    end if;
    perform durable_internal.check_time('scheduled_at', scheduled_at);
    loop
        update durable_internal.timer t set due_at = due
         where t.run_id = reschedule_run.run_id and t.kind in ('start', 'retry')
        returning t.kind into kind;
        exit when found;
        -- FAILPOINT reschedule.ready
        delete from durable_internal.ready t where t.run_id = reschedule_run.run_id and not t.resumed
        returning case when t.attempt = 0 then 'start' else 'retry' end, t.run_id, t.fence, t.started_at,
                  t.worker_id, t.lane_id, t.attempt, t.remembered, t.bytes, t.crashes, t.deadline
             into kind, l.run_id, l.fence, l.started_at, l.worker_id, l.lane_id, l.attempt,
                  l.remembered, l.bytes, l.crashes, l.deadline;
        if found then
            insert into durable_internal.timer (run_id, kind, due_at, since, fence, started_at, worker_id,
                                                lane_id, attempt, remembered, bytes, crashes, deadline)
            values (l.run_id, kind, due, clock_timestamp(), l.fence, l.started_at,
                    l.worker_id, l.lane_id, l.attempt, l.remembered, l.bytes, l.crashes, l.deadline);
            exit;
        end if;
        perform from durable_internal.timer t
          where t.run_id = reschedule_run.run_id and t.kind in ('start', 'retry');
        if not found then
            perform durable_internal.fail('DJ006', format('run %s is not scheduled, queued or retrying',
                                                          reschedule_run.run_id));
        end if;
    end loop;
    update durable_internal.run r set scheduled_at = reschedule_run.scheduled_at
     where r.id = reschedule_run.run_id;
    if kind = 'start' then
        update durable_internal.timer t
           set due_at = due + r.timeout
          from durable_internal.run r
         where r.id = reschedule_run.run_id and t.run_id = r.id and t.kind = 'run_timeout';
    end if;
    perform durable_internal.wake_scheduler();
    return true;
end
$$;

create or replace function durable.reschedule(run_id uuid, scheduled_at timestamptz)
returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select durable_internal.reschedule_run(durable_internal.session_namespace(), run_id, scheduled_at);
$$;
