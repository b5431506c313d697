-- Workers: register, beat, leave; and what becomes of the leases of one that is silent.

-- A worker's new life. It gives the number for lock_turn. `job_options` has one object for each of `jobs`:
-- maxAttempts, maxCrashes, backoff, version. Runs that are parked for another version of one of these jobs
-- are taken up again. Raises DJ001 for a ttl of over an hour, DJ003.
create or replace function durable_internal.worker_register(worker_id uuid, namespace text, name text, pid int,
    version text, slots int, ttl_ms bigint, jobs text[], job_options jsonb[], queues text)
returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    tenant int;
    number int;
begin
    if ttl_ms is null or ttl_ms not between 1 and 3600000 then  -- what the reaper reckons with, for all
        perform durable_internal.fail('DJ001', format('a lease of %s ms is out of range; 1 to 3600000 is allowed', ttl_ms));
    end if;
    select n.id into tenant from durable_internal.namespace n where n.name = worker_register.namespace;
    if not found then
        perform durable_internal.fail('DJ003', format('namespace %s is not there',
                                                      quote_literal(worker_register.namespace)));
    end if;
    insert into durable_internal.worker (id, namespace_id, name, pid, version, slots, ttl, jobs, queues,
                                         started_at, beat_at)
    values (worker_register.worker_id, tenant, worker_register.name, worker_register.pid,
            worker_register.version, worker_register.slots,
            worker_register.ttl_ms * interval '1 ms', worker_register.jobs,
            regexp_split_to_array(trim(worker_register.queues), '\s*,\s*'), clock_timestamp(), clock_timestamp())
    returning worker.number into number;

    insert into durable_internal.job as j (namespace_id, name, max_attempts, max_crashes, backoff, version)
    select tenant, o.job, (o.options ->> 'maxAttempts')::int, (o.options ->> 'maxCrashes')::int,
           o.options -> 'backoff', o.options ->> 'version'
      from unnest(worker_register.jobs, job_options) as o (job, options)
     order by o.job
        on conflict (namespace_id, name) do update
           set max_attempts = excluded.max_attempts, max_crashes = excluded.max_crashes,
               backoff = excluded.backoff, version = excluded.version
         where (j.max_attempts, j.max_crashes, j.backoff, j.version)
               is distinct from (excluded.max_attempts, excluded.max_crashes, excluded.backoff, excluded.version);

    update durable_internal.timer t
       set due_at = clock_timestamp(), kind = 'step_retry', detail = null
      from durable_internal.lane l
      join unnest(worker_register.jobs, job_options) as o (job, options) on o.job = l.job
     where t.kind = 'version' and t.lane_id = l.id and l.namespace_id = tenant
       and t.detail ->> 'version' is distinct from o.options ->> 'version';
    if found then
        perform durable_internal.wake_scheduler();
    end if;
    return number;
end
$$;

-- Tells that this session is the worker's, so that it can be ended if the worker freezes in the middle of a transaction:
-- nothing in PostgreSQL 15 ends such a session by itself. Called first on each connection for dj_step_tx, which plans as
-- the user's role has it. Raises DJ005: the worker was declared dead.
create or replace function durable_internal.worker_tx_session(worker_id uuid)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform durable_internal.miss_the_client();
    perform from durable_internal.worker w where w.id = worker_tx_session.worker_id and w.alive;
    if not found then
        perform durable_internal.fail_dead(worker_tx_session.worker_id);
    end if;
    insert into durable_internal.worker_session (worker_id, pid, backend_start)
    select worker_tx_session.worker_id, a.pid, a.backend_start
      from pg_stat_activity a
     where a.pid = pg_backend_pid()
        on conflict (worker_id, pid) do update set backend_start = excluded.backend_start;
end
$$;

-- The same for the worker's own connections, where it is called first as well, and sets how the session plans.
create or replace function durable_internal.worker_session(worker_id uuid)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform durable_internal.plan_by_index();
    perform durable_internal.worker_tx_session(worker_session.worker_id);
end
$$;

-- I am alive: all of the worker's leases are, by this one row. Answers those of the runs in hand that are not
-- the worker's any more. Raises DJ005: declared dead.
create or replace function durable_internal.beat(worker_id uuid, runs uuid[], fences bigint[], draining boolean)
returns table (run_id uuid, fence bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update durable_internal.worker w
       set beat_at = clock_timestamp(), in_hand = cardinality(beat.runs), draining = beat.draining
     where w.id = beat.worker_id and w.alive;
    if not found then
        perform durable_internal.fail_dead(beat.worker_id);
    end if;
    -- FAILPOINT beat.beaten
    return query select l.run_id, l.fence from durable_internal.lost_leases(beat.worker_id, beat.runs, beat.fences) as l;
end
$$;

-- Which of these leases a worker does not have, or not any more.
create or replace function durable_internal.lost_leases(worker_id uuid, runs uuid[], fences bigint[])
returns table (run_id uuid, fence bigint)
language plpgsql stable
as $$
#variable_conflict use_column
begin
    return query
    select h.run_id, h.fence
      from unnest(lost_leases.runs, lost_leases.fences) as h (run_id, fence)
     where not exists (select from durable_internal.lease l
                        where l.run_id = any (array[h.run_id])  -- by its index: see commit()
                          and l.fence = h.fence and l.worker_id = lost_leases.worker_id);
end
$$;

-- After a lost connection: gives back what the database leased to the worker and it never heard of, and answers those of
-- the runs in hand that are not the worker's any more: a crash may have forgotten their leases (claim). `runs` is what
-- it has in hand, all of it. Raises DJ005: declared dead.
--
-- The sessions that the worker has lost may still be at work on what they were sent last: they are ended first, and
-- the worker's lock, taken alone, waits for whatever claim is in progress.
--
-- A lease that somebody holds (a user's open cancel, say) is passed over, and a row of nulls says so: if that transaction rolls
-- back, the lease is nobody's, so the worker asks again at its next beat. Waiting for it would keep the worker's other runs
-- from committing. Locks: the worker's advisory lock, then lease rows by run.
create or replace function durable_internal.reconcile(worker_id uuid, number int, runs uuid[], fences bigint[],
                                                      gone_pids int[])
returns table (run_id uuid, fence bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    l durable_internal.lease;
begin
    perform pg_terminate_backend(s.pid, 3000)
       from durable_internal.worker_session s
       join pg_stat_activity a on a.pid = s.pid and a.backend_start = s.backend_start
      where s.worker_id = reconcile.worker_id and s.pid = any (reconcile.gone_pids);
    perform pg_advisory_xact_lock(durable_internal.worker_lock_class(), reconcile.number);
    perform durable_internal.lock_turn(worker_id, number);
    -- FAILPOINT reconcile.locked
    for l in
        select l.* from durable_internal.lease l
         where l.worker_id = reconcile.worker_id
           and not exists (select from unnest(reconcile.runs, reconcile.fences) as h (run_id, fence)
                            where h.run_id = l.run_id and h.fence = l.fence)
         order by l.run_id
           for update skip locked
    loop
        delete from durable_internal.lease where run_id = l.run_id;
        l.attempt := l.attempt - (l.since = l.attempt_started_at)::int;  -- it was never begun
        perform durable_internal.make_ready(l, resumed => l.since <> l.attempt_started_at);
    end loop;
    return query
    select null::uuid, null::bigint
     where exists (select from durable_internal.lease l
                    where l.worker_id = reconcile.worker_id
                      and not exists (select from unnest(reconcile.runs, reconcile.fences) as h (run_id, fence)
                                       where h.run_id = l.run_id and h.fence = l.fence));
    return query
    select o.run_id, o.fence
      from durable_internal.lost_leases(reconcile.worker_id, reconcile.runs, reconcile.fences) as o;
end
$$;

-- A worker says goodbye; what it still has goes back to the queue, and nobody is charged.
create or replace function durable_internal.worker_leave(worker_id uuid)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform durable_internal.bury(worker_leave.worker_id, crashed => false);
end
$$;

-- Declares a worker dead and puts its leases back. The caller has made sure that it is to be.
--
-- Three statements, because under READ COMMITTED only the row one waited for is looked at again, not what it was
-- joined with: the worker's lock, in which no claim is; the mark; then the leases. A lease that somebody holds (a
-- user's open cancel) is left for a later call: one run must not keep the others. Answers how many it put back.
-- Locks: the worker's advisory lock, its row, lease rows by run.
create or replace function durable_internal.bury(worker_id uuid, crashed boolean)
returns int
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    l durable_internal.lease;
    number int;
    company int := (select count(*)::int from durable_internal.lease l where l.worker_id = bury.worker_id);
    taken int := 0;
begin
    select w.number into number from durable_internal.worker w where w.id = bury.worker_id;
    perform pg_advisory_xact_lock(durable_internal.worker_lock_class(), number);
    update durable_internal.worker w
       set alive = false, ended_at = coalesce(w.ended_at, clock_timestamp()),
           crashed = w.crashed or bury.crashed
     where w.id = bury.worker_id;
    -- FAILPOINT bury.marked
    for l in
        select l.* from durable_internal.lease l where l.worker_id = bury.worker_id
         order by l.run_id
           for update skip locked
    loop
        delete from durable_internal.lease where run_id = l.run_id;
        if crashed then
            perform durable_internal.charge_crash(l, null, company);
        else
            perform durable_internal.make_ready(l, resumed => true);
        end if;
        taken := taken + 1;
    end loop;
    update durable_internal.worker w
       set leases_left = exists (select from durable_internal.lease l where l.worker_id = bury.worker_id)
     where w.id = bury.worker_id;
    if not crashed then  -- else its sessions may still be there: end_sessions() needs to know them
        delete from durable_internal.worker_session s where s.worker_id = bury.worker_id;
    end if;
    return taken;
end
$$;

-- A handler of this worker has crashed, in a way that the process could catch: the run is charged, and nobody
-- else. The process is about to die; what it has goes back. `step` may be null.
-- Locks: the worker's advisory lock, then lease rows, as everybody who takes both: bury() would take it too late.
create or replace function durable_internal.worker_crashed(worker_id uuid, run_id uuid, fence bigint, step text)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    l durable_internal.lease;
begin
    perform pg_advisory_xact_lock(durable_internal.worker_lock_class(), w.number)
       from durable_internal.worker w where w.id = worker_crashed.worker_id;
    delete from durable_internal.lease l
     where l.run_id = worker_crashed.run_id and l.fence = worker_crashed.fence
       and l.worker_id = worker_crashed.worker_id
    returning l.* into l;
    if found then
        perform durable_internal.charge_crash(l, worker_crashed.step, company => 1);
    end if;
    perform durable_internal.bury(worker_crashed.worker_id, crashed => false);
end
$$;

-- A run was in the hands of a worker that died. That spends no attempt: the next one has a number of its own, and the
-- limit moves along. When its workers died so too often in a row, with no step committed between, it fails.
-- `step` is null where the worker could not say which: then the last one completed is named.
--
-- Of a death that nobody could report, any of the runs in the worker's hands may be the cause, or none: each takes its share
-- of the blame, one part in `company`. Three deaths alone are a whole blame three times over; three in the company of
-- forty are what a few killed machines do to an innocent run, and it goes on.
create or replace function durable_internal.charge_crash(l durable_internal.lease, step text, company int)
returns void
language plpgsql volatile
as $$
declare
    last durable_internal.step;
    policy record;
    blame numeric;
    error jsonb;
begin
    select s.* into last
      from durable_internal.step s where s.run_id = l.run_id order by s.position desc limit 1;
    l.crashes := (case when last.fence = l.fence then 1 else l.crashes + 1 end)::smallint;
    l.remembered := coalesce(last.position, 0);
    error := jsonb_strip_nulls(jsonb_build_object(
        'name', 'WorkerCrashed',
        'message', 'the worker died while it ran this' || coalesce(', in step ' || step,
                                                                   ', after step ' || last.name, ''),
        'step', coalesce(step, last.name), 'retryable', false));
    select p.* into policy from durable_internal.retry_policy(l.run_id) as p;
    select 1.0 / charge_crash.company + coalesce(sum(1.0 / a.company), 0) into blame
      from (select a.company from durable_internal.attempt a
             where a.run_id = l.run_id and a.outcome = 'crashed'
             order by a.ended_at desc limit l.crashes - 1) as a;
    if l.crashes >= policy.max_crashes and blame > 0.99 then
        perform durable_internal.end_run(l, 'failed', error, dead_letter => true);
        return;
    end if;
    insert into durable_internal.attempt (run_id, attempt, fence, worker_id, started_at, ended_at, outcome,
                                          company, error)
    values (l.run_id, l.attempt, l.fence, l.worker_id, l.attempt_started_at, clock_timestamp(), 'crashed',
            charge_crash.company, error);
    update durable_internal.run r set extra_attempts = r.extra_attempts + 1 where r.id = l.run_id;
    perform durable_internal.make_ready(l, resumed => false);
end
$$;

-- Finds workers that have been silent for longer than they said, and takes their leases.
--
-- Guarantees 5 and 8. The condition is looked at again under the worker's lock, in a statement of its own,
-- so a beat that came meanwhile saves it. A frozen worker may hold the lock for ever, in the middle of a
-- batch: after `lock_timeout` (the caller's setting) this raises 55P03, and the scheduler calls
-- end_sessions() and then this again. One worker a call: the lock of one must not be held while
-- waiting for another's. Answers the worker, or null: none.
create or replace function durable_internal.reap()
returns uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    silent record;
begin
    select w.id, w.number into silent
      from durable_internal.worker w
     where w.alive and w.beat_at < clock_timestamp() - w.ttl
     order by w.beat_at
     limit 1;
    if not found then  -- what was held when its worker was buried
        select w.id, w.number, w.crashed into silent
          from durable_internal.worker w
         where w.leases_left
         order by random()  -- one whose leases are held still must not be taken each time
         limit 1;
        if found and durable_internal.bury(silent.id, silent.crashed) > 0 then
            return silent.id;
        end if;
        return null;
    end if;
    -- FAILPOINT reap.seen
    perform pg_advisory_xact_lock(durable_internal.worker_lock_class(), silent.number);
    -- FAILPOINT reap.locked
    perform from durable_internal.worker w
      where w.id = silent.id and w.alive and w.beat_at < clock_timestamp() - w.ttl
        for update;
    if found then
        perform durable_internal.bury(silent.id, crashed => true);
    end if;
    return silent.id;
end
$$;

-- Ends the sessions of workers that have been silent for longer than they said, or were declared dead for it: what these
-- hold is then free. A frozen worker's dj_step_tx would keep the rows that its SQL has locked, and its lease, from
-- whoever has the run next. Called when reap() was kept waiting, and after each worker that it has buried.
-- Needs pg_signal_backend, or the workers' role. Answers how many.
create or replace function durable_internal.end_sessions()
returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    ended int;
begin
    select (count(*) filter (where pg_terminate_backend(a.pid)))::int into ended
      from durable_internal.worker w
      join durable_internal.worker_session s on s.worker_id = w.id
      join pg_stat_activity a on a.pid = s.pid and a.backend_start = s.backend_start
     where not w.alive or w.beat_at < clock_timestamp() - w.ttl;
    delete from durable_internal.worker_session s
     where not exists (select from durable_internal.worker w where w.id = s.worker_id and w.alive);
    return ended;
end
$$;

-- A scheduler says that it is there; called on its own session once a second, and sets how that plans. True: it is the active one, by an advisory
-- lock of the session; or nobody that beats is (the holder of the lock may be frozen): then it works as well,
-- which is safe. Rows of schedulers and workers that are long gone go.
create or replace function durable_internal.scheduler_beat(scheduler_id uuid, name text, pid int)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    active boolean;
begin
    perform durable_internal.miss_the_client();
    perform durable_internal.plan_by_index();
    select s.active or pg_try_advisory_lock(durable_internal.worker_lock_class(), -2) into active
      from durable_internal.scheduler s
     where s.id = scheduler_id;
    if not found then
        active := pg_try_advisory_lock(durable_internal.worker_lock_class(), -2);
    end if;
    insert into durable_internal.scheduler as s (id, name, pid, started_at, beat_at, active)
    values (scheduler_id, scheduler_beat.name, scheduler_beat.pid, clock_timestamp(), clock_timestamp(),
            active)
        on conflict (id) do update set beat_at = clock_timestamp(), active = excluded.active;
    delete from durable_internal.scheduler s where s.beat_at < clock_timestamp() - interval '1 minute';
    delete from durable_internal.worker w
     where not w.alive and not w.leases_left and w.ended_at < clock_timestamp() - interval '1 day';
    return active or not exists (select from durable_internal.scheduler s
                                  where s.active and s.beat_at > clock_timestamp() - interval '5 seconds');
end
$$;
