-- The timeline of a run: what is there anyway, in the order in which it happened. Nothing is written for it.

-- One row an entry, oldest first. Kinds: started, attempt, each of a step (with _failed behind it where it failed for good),
-- step_failed for one of its tries, log, attempt_ended, waiting, retrying, completed, failed, cancelled.
-- `attempt` is the one that it belongs to, or that it comes before; a run that ended before its first says 0. Raises DJ003.
create or replace function durable.timeline(run_id uuid)
returns table (at timestamptz, kind text, name text, attempt int, duration_ms double precision, detail jsonb)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
begin
    perform durable_internal.check_run(durable_internal.session_namespace(), timeline.run_id);
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
         where r.id = timeline.run_id
        union all
        select a.started_at, 1, 'attempt', null, a.attempt, null,
               jsonb_build_object('workerId', a.worker_id)
          from durable_internal.attempts a
         where a.run_id = timeline.run_id
        union all
        select s.committed_at, 2, s.kind || case when s.error is null then '' else '_failed' end, s.name,
               s.attempt, s.committed_at - s.started_at,
               jsonb_build_object('startedAt', durable_internal.json_time(s.started_at), 'error', s.error ->> 'message', 'timedOut',
                   case when s.kind = 'wait_event' then s.result -> 'timedOut' end)
          from durable_internal.step s
         where s.run_id = timeline.run_id and not s.forgotten
        union all
        select t.at, 2, 'step_failed', t.name, t.attempt, null,
               jsonb_build_object('error', t.error ->> 'message')
          from durable_internal.step_try t
         where t.run_id = timeline.run_id
        union all
        select g.at, 2, 'log', g.level, g.attempt, null, jsonb_build_object('message', g.message)
          from durable_internal.log g
         where g.run_id = timeline.run_id
        union all
        select a.ended_at, 3, 'attempt_ended', a.outcome, a.attempt, a.ended_at - a.started_at,
               jsonb_build_object('error', a.error ->> 'message', 'step', a.error ->> 'step')
          from durable_internal.attempt a
         where a.run_id = timeline.run_id
        union all
        select coalesce(p.since, clock_timestamp()), 4,
               case when p.place in ('retry', 'step_retry') then 'retrying' else 'waiting' end,
               coalesce(p.step, p.name), p.attempt + case when p.place = 'start' or not p.resumed and p.place = 'ready'
                                                          then 1 else 0 end, null, f.waiting_for
          from durable_internal.place p
          join durable_internal.run r on r.id = p.run_id
          join durable_internal.lane l on l.id = r.lane_id
         cross join lateral durable_internal.waiting_for(p, l) as f (waiting_for)
         where p.run_id = timeline.run_id and p.place <> 'lease' and f.waiting_for is not null
        union all
        select r.finished_at, 5, r.status, null, r.attempt, r.finished_at - r.started_at,
               jsonb_build_object('error', r.error ->> 'message', 'step', r.error ->> 'step')
          from durable_internal.run r
         where r.id = timeline.run_id and r.status is not null
      ) as e
     order by e.at, e.rank;
end
$$;
