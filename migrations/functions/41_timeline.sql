-- The timeline of a run: what is there anyway, in the order in which it happened. Nothing is written for it.

-- One row an entry, oldest first. Kinds: started, attempt, each of a step (with _failed behind it where it failed for good),
-- step_failed for one of its tries, log, attempt_ended, waiting, retrying, completed, failed, cancelled.
-- `attempt` is the one that it belongs to, or that it comes before; a run that ended before its first says 0. Raises DJ003.
create or replace function durable.timeline(run_id uuid)
returns table (at timestamptz, kind text, name text, attempt int, duration_ms double precision, detail jsonb)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform durable_internal.check_run(durable_internal.session_namespace(), timeline.run_id);
    return query select t.* from durable_internal.timeline_part(timeline.run_id, '-infinity', null) as t;
end
$$;

-- The entries of a timeline that are later than `after`, in their order: the first `most` (null: all), and maybe more. What it
-- reads is about as much: of steps and log lines, which can be many, no others. Called by durable.timeline and stream_tails.
create or replace function durable_internal.timeline_part(run_id uuid, after timestamptz, most int)
returns table (at timestamptz, kind text, name text, attempt int, duration_ms double precision, detail jsonb)
language plpgsql stable
set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
declare
    places record;
    many bigint := coalesce(most, 2147483647)::bigint;
begin
    places := durable_internal.steps_about(timeline_part.run_id, timeline_part.after, timeline_part.most);
    return query
    select e.at, e.kind, e.name, e.attempt, (extract(epoch from e.took) * 1000)::double precision,
           jsonb_strip_nulls(e.detail)
      from (
        select r.created_at as at, 0 as rank, 'started' as kind, l.job as name, 1 as attempt,
               null::interval as took,
               jsonb_build_object('queue', l.queue, 'scheduledAt', durable_internal.json_time(r.scheduled_at),
                                  'idempotencyKey', r.idempotency_key) as detail
          from durable_internal.run r
          join durable_internal.lane l on l.id = r.lane_id
         where r.id = timeline_part.run_id
        union all
        select a.started_at, 1, 'attempt', null, a.attempt, null,
               jsonb_build_object('workerId', a.worker_id)
          from durable_internal.attempts a
         where a.run_id = timeline_part.run_id
        union all
        select s.committed_at, 2, s.kind || case when s.error is null then '' else '_failed' end, s.name,
               s.attempt, s.committed_at - s.started_at,
               jsonb_build_object('startedAt', durable_internal.json_time(s.started_at), 'error', s.error ->> 'message', 'timedOut',
                   case when s.kind = 'wait_event' then s.result -> 'timedOut' end)
          from (select s.* from durable_internal.step s
                 where s.run_id = timeline_part.run_id and s.position > places.low and s.position <= places.high
                   and s.committed_at > timeline_part.after and not s.forgotten
                 order by s.committed_at fetch first (many) rows with ties) as s
        union all
        select t.at, 2, 'step_failed', t.name, t.attempt, null,
               jsonb_build_object('error', t.error ->> 'message')
          from (select t.* from durable_internal.step_try t
                 where t.run_id = timeline_part.run_id and t.at > timeline_part.after
                 order by t.at fetch first (many) rows with ties) as t
        union all
        select g.at, 2, 'log', g.level, g.attempt, null, jsonb_build_object('message', g.message)
          from (select g.* from durable_internal.log g
                 where g.run_id = timeline_part.run_id and g.at > timeline_part.after
                 order by g.at fetch first (many) rows with ties) as g
        union all
        select a.ended_at, 3, 'attempt_ended', a.outcome, a.attempt, a.ended_at - a.started_at,
               jsonb_build_object('error', a.error ->> 'message', 'step', a.error ->> 'step')
          from durable_internal.attempt a
         where a.run_id = timeline_part.run_id
        union all
        select coalesce(p.since, clock_timestamp()), 4,
               case when p.place in ('retry', 'step_retry') then 'retrying' else 'waiting' end,
               coalesce(p.step, p.name), p.attempt + case when p.place = 'start' or not p.resumed and p.place = 'ready'
                                                          then 1 else 0 end, null, f.waiting_for
          from durable_internal.place p
          join durable_internal.run r on r.id = p.run_id
          join durable_internal.lane l on l.id = r.lane_id
         cross join lateral durable_internal.waiting_for_anyone(p, l) as f (waiting_for)
         where p.run_id = timeline_part.run_id and p.place <> 'lease' and f.waiting_for is not null
        union all
        select r.finished_at, 5, r.status, null, r.attempt, r.finished_at - r.started_at,
               jsonb_build_object('error', r.error ->> 'message', 'step', r.error ->> 'step')
          from durable_internal.run r
         where r.id = timeline_part.run_id and r.status is not null
      ) as e
     where e.at > timeline_part.after
     order by e.at, e.rank;
end
$$;

-- Between which positions (low exclusive) the first `most` steps later than `after` are; all where `most` is null.
--
-- Steps are committed in the order of their positions, one transaction with the run's lease after the other, so a time is
-- searched by halves. Two of them may have looked at the clock in the other order: hence a second, and a hundred steps, beyond
-- the ends. After an attempt has ended the run may have been retried, and a step done again in its old place: then all count.
create or replace function durable_internal.steps_about(run_id uuid, after timestamptz, most int, out low int, out high int)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    told int;
    last timestamptz;
begin
    low := 0;
    high := durable_internal.steps_max();
    perform from durable_internal.attempt a where a.run_id = steps_about.run_id;
    if found or most is null then
        return;
    end if;
    low := durable_internal.last_step_until(run_id, after - interval '1 second', 0);
    told := durable_internal.last_step_until(run_id, after, low);
    select s.committed_at into last from durable_internal.step s
     where s.run_id = steps_about.run_id and s.position > told + most + 100
     order by s.position limit 1;
    if found then
        high := durable_internal.last_step_until(run_id, last, told);
    end if;
end
$$;

-- The position of the last step that was committed until then, at or after `low`.
create or replace function durable_internal.last_step_until(run_id uuid, instant timestamptz, low int)
returns int
language plpgsql stable
as $$
#variable_conflict use_column
declare
    high int := (select s.position from durable_internal.step s
                  where s.run_id = last_step_until.run_id order by s.position desc limit 1);
    middle int;
    seen record;
begin
    while low < high loop
        middle := (low + high + 1) / 2;
        select s.position, s.committed_at into seen from durable_internal.step s
         where s.run_id = last_step_until.run_id and s.position >= middle
         order by s.position limit 1;
        if seen.position <= high and seen.committed_at <= instant then
            low := seen.position;
        else
            high := middle - 1;
        end if;
    end loop;
    return low;
end
$$;
