-- The claim: from `ready` to `lease`, in sets.

-- The first statement of a turn: nobody declares this worker dead until the turn's transaction ends.
--
-- An advisory lock and not a row lock: two turns of one worker would share the row lock and leave a
-- MultiXact each time. The reaper takes the same lock exclusively, marks the worker dead and only
-- then takes its leases, so no claim can add a lease to a dead worker. Looking comes after locking, in
-- a statement of its own. First in a turn, because a reaper holds it while it takes leases.
-- Raises DJ005: declared dead.
create or replace function durable_internal.lock_turn(worker_id uuid, number int)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock_shared(durable_internal.worker_lock_class(), lock_turn.number);
    -- FAILPOINT turn.locked
    perform from durable_internal.worker w
      where w.id = lock_turn.worker_id and w.number = lock_turn.number and w.alive;
    if not found then
        perform durable_internal.fail_dead(lock_turn.worker_id);
    end if;
end
$$;

-- A worker that was declared dead calls.
create or replace function durable_internal.fail_dead(worker_id uuid)
returns void
language plpgsql immutable
as $$
begin
    perform durable_internal.fail('DJ005', format('worker %s is not alive', fail_dead.worker_id),
                                  'Stop its runs; register again for a new worker id.');
end
$$;

-- The first half of the advisory locks' keys: "djwk".
create or replace function durable_internal.worker_lock_class()
returns int language sql immutable as $$ select 1684698987 $$;

-- What a run remembers, as a claim hands it over: position, kind, name, result and error of each step, one after
-- the other (a place that a retry has forgotten: its position negative, and neither); and of each failed try of a step
-- that has a policy of its own: 0, `try`, name, null, null.
create or replace function durable_internal.memory_of(run_id uuid)
returns text[]
language plpgsql stable
as $$
begin
    return (select array_agg(field.text order by field.place, field.n)
      from (select s.position as place, f.n, f.text
              from durable_internal.step s
             cross join lateral (values (1, (case when s.forgotten then -s.position else s.position end)::text), (2, s.kind),
                                        (3, s.name),
                                        (4, s.result::text), (5, s.error::text)) as f (n, text)
             where s.run_id = memory_of.run_id
            union all
            select 10000 + t.nth, f.n, f.text
              from (select t.name, row_number() over (order by t.at) as nth
                      from durable_internal.step_try t
                     where t.run_id = memory_of.run_id and not t.forgotten) as t
             cross join lateral (values (1, '0'), (2, 'try'), (3, t.name), (4, null), (5, null)) as f (n, text)
           ) as field);
end
$$;

-- What a call over HTTP says of its run, beside what every claim brings.
create or replace function durable_internal.facts_of(run_id uuid)
returns jsonb
language plpgsql stable
as $$
begin
    return (select jsonb_build_object('maxAttempts', p.max_attempts, 'createdAt', durable_internal.json_time(r.created_at),
                                      'namespace', n.name, 'version', r.version, 'tags', coalesce(r.tags, '{}'))
              from durable_internal.run r
              join durable_internal.namespace n on n.id = r.namespace_id
             cross join lateral durable_internal.retry_policy(r.id) as p
             where r.id = facts_of.run_id);
end
$$;

-- A function of its own, so that a claim that does not need it opens none of the partitions of `run`.
create or replace function durable_internal.payload_of(run_id uuid)
returns jsonb
language plpgsql stable
as $$
begin
    return (select r.payload from durable_internal.run r where r.id = payload_of.run_id);
end
$$;

-- Gives a worker up to `slots` runs: of its jobs, in its queues; higher priority first, then oldest first.
--
-- A run moves from `ready` to `lease` in one statement, so it is in exactly one of them at any instant
-- (guarantee 5). Its fence is a number never given before; a later commit must show it. What the run
-- remembers comes along: a resume costs no second trip. `bytes_max` bounds the answer of one priority.
--
-- Lanes of one priority are taken together: what each may give is read from their heads without locks,
-- then each lane gives that many, passing over what others hold. Scans begin at the lanes' marks.
--
-- In a worker's turn it comes after lock_turn and the commit. A turn that has nothing to commit is this alone: then the
-- worker gives its `number`, and it does what lock_turn does. If the worker was told of an event, it lets it `match` first,
-- so that a run that waited goes on without a way round by the scheduler; who finds another one matching leaves it to
-- that one, or to the scheduler's next look.
--
-- Such a turn's commit does not wait for the disk, nor for a standby. What a crash forgets then is that the run was
-- leased: it is ready again, and nobody has seen it otherwise. Whatever a handler makes durable under such a lease is a
-- later commit, and what comes earlier in the log is on the disk with it. The number that the forgotten lease had may be
-- given again, so a number alone is no fence: commit() compares the worker too, and a worker that has lost a connection
-- calls reconcile() before its next claim, which tells it which of its leases were forgotten.
--
-- Locks the ready rows that it takes. When it gives less than was asked, the worker is about to be idle: it raises the
-- flag, and asks once more before it sleeps. Raises DJ005: the worker was declared dead.
create or replace function durable_internal.claim(worker_id uuid, slots int, bytes_max int,
                                                  number int default null, match boolean default false)
returns table (run_id uuid, fence bigint, job text, queue text, attempt int, payload jsonb, memory text[],
               bytes int, facts jsonb)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    line record;
    quota int[];
    room int := claim.slots;
    given int;
    instant timestamptz := clock_timestamp();
    tenant int;
    known text[];   -- jobs
    served text[];  -- queues; null: all
    called text[];  -- jobs that are called over HTTP
    paused text[];
begin
    if number is not null then
        perform pg_advisory_xact_lock_shared(durable_internal.worker_lock_class(), number);
        perform set_config('synchronous_commit', 'off', true);
        if match and pg_try_advisory_xact_lock(durable_internal.worker_lock_class(), -1)
           and durable_internal.match_events(100) >= 100 then
            perform durable_internal.wake_scheduler();
        end if;
    end if;

    -- Three small queries: one that joins them costs twice as much before it has read a row.
    select w.namespace_id, w.jobs || w.endpoint_jobs, w.queues, w.endpoint_jobs into tenant, known, served, called
      from durable_internal.worker w
     where w.id = claim.worker_id and w.alive and w.number = coalesce(claim.number, w.number);
    if not found then
        perform durable_internal.fail_dead(claim.worker_id);
    end if;
    select coalesce(array_agg(q.name), '{}') into paused
      from durable_internal.queue q
     where q.namespace_id = tenant and q.paused;
    -- FAILPOINT claim.seen
    for line in
        select l.priority, array_agg(l.id) as ids, array_agg(coalesce(m.low_seq, 0)) as lows,
               array_agg(l.job) as jobs, array_agg(l.queue) as queues, count(*)::int as many
          from durable_internal.lane l
          left join durable_internal.lane_mark m on m.lane_id = l.id
         where l.namespace_id = tenant and l.job = any (known)
           and (served is null or l.queue = any (served))
           and l.queue <> all (paused)
         group by l.priority
         order by l.priority desc
    loop
        exit when room <= 0;
        quota := array[room];
        if line.many > 1 then
            select array_agg(coalesce(h.many, 0) order by l.n) into quota
              from generate_series(1, line.many) as l (n)
              left join (select head.n, count(*)::int as many
                           from (select l.n, r.seq
                                   from unnest(line.ids, line.lows) with ordinality as l (id, low, n)
                                  cross join lateral (select r.seq from durable_internal.ready r
                                                       where r.lane_id = l.id and r.seq >= l.low
                                                       order by r.seq limit room) as r
                                  order by r.seq limit room) as head
                          group by head.n) as h on h.n = l.n;
        end if;

        -- FAILPOINT claim.take
        return query
        with next as materialized (  -- materialized: a nested loop could run the limits more than once
            select r.*, l.job, l.queue
              from unnest(line.ids, line.lows, line.jobs, line.queues, quota) as l (id, low, job, queue, quota)
             cross join lateral (select r.ctid, r.run_id, r.seq, r.lane_id, r.attempt, r.resumed,
                                        r.crashes, r.remembered, r.bytes, r.deadline, r.started_at,
                                        r.attempt_started_at, r.payload
                                   from durable_internal.ready r
                                  where r.lane_id = l.id and r.seq >= l.low
                                  order by r.seq
                                  limit l.quota
                                    for update skip locked) as r
        ), fit as materialized (
            select n.*, nextval('durable_internal.fence_seq') as fence
              from (select n.*, sum(n.bytes) over (order by n.seq rows unbounded preceding) - n.bytes as before
                      from next n) as n
             where n.before < claim.bytes_max
        ), taken as (
            delete from durable_internal.ready where ctid = any (array(select f.ctid from fit f))
        ), leased as (
            insert into durable_internal.lease (run_id, fence, since, started_at, attempt_started_at,
                                                worker_id, lane_id, attempt, remembered, bytes, crashes,
                                                deadline)
            select f.run_id, f.fence, instant, coalesce(f.started_at, instant),
                   case when f.resumed then f.attempt_started_at else instant end,
                   claim.worker_id, f.lane_id, f.attempt + (not f.resumed)::int, f.remembered,
                   f.bytes, f.crashes, f.deadline
              from fit f
        )
        select f.run_id, f.fence, f.job, f.queue, f.attempt + (not f.resumed)::int,
               coalesce(f.payload, durable_internal.payload_of(f.run_id)),
               case when f.attempt > 0 then durable_internal.memory_of(f.run_id) end, f.bytes,
               case when f.job = any (called) then durable_internal.facts_of(f.run_id) end
          from fit f
         order by f.seq;
        get diagnostics given = row_count;
        room := room - given;
    end loop;

    if room > 0 then
        perform durable_internal.raise_flag('durable_internal.worker_idle');
    end if;
end
$$;
