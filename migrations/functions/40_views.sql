-- What users look at. Each view shows the namespace of the session's role and nothing else; the tables are
-- not granted to anybody. Views only gain columns, at the end.

-- Where a run is, and what it carries there; no row for an ended one. For the views and functions here.
create or replace view durable_internal.place as
select r.run_id, 'ready'::text as place, r.attempt, r.fence, r.worker_id, r.started_at, r.attempt_started_at,
       r.resumed, null::timestamptz as since, null::timestamptz as due_at, null::text as name,
       null::text as correlation_key, null::text as step, null::jsonb as detail
  from durable_internal.ready r
union all
select l.run_id, 'lease', l.attempt, l.fence, l.worker_id, l.started_at, l.attempt_started_at,
       true, l.since, null, null, null, null, null
  from durable_internal.lease l
union all
select w.run_id, 'wait', w.attempt, w.fence, w.worker_id, w.started_at, w.attempt_started_at,
       true, w.since, w.due_at, w.event, nullif(w.correlation_key, ''), w.name, null
  from durable_internal.wait w
union all
select t.run_id, t.kind, t.attempt, t.fence, t.worker_id, t.started_at, t.attempt_started_at,
       t.kind <> 'retry', t.since, t.due_at, null, null, t.name, t.detail
  from durable_internal.timer t
 where t.kind not in ('wait_timeout', 'run_timeout');

-- A time as RFC 3339 in UTC, with milliseconds.
create or replace function durable_internal.json_time(at timestamptz)
returns text
language plpgsql immutable
as $$
begin
    return to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
end
$$;

-- What a run that has not ended waits for, as the claim sees it. Null: for nothing; it is running, or queued and a worker takes it
-- in its turn. Called by the views and durable.why, with the rights of whoever asks, who can put together a place and a lane as he
-- likes: of a lane of another namespace nothing is said.
create or replace function durable_internal.waiting_for(p durable_internal.place, l durable_internal.lane)
returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
begin
    if l.namespace_id is distinct from durable_internal.session_namespace() then
        return null;
    end if;
    return durable_internal.waiting_for_anyone(p, l);
end
$$;

-- The same in any namespace. Called by waiting_for and timeline_part.
create or replace function durable_internal.waiting_for_anyone(p durable_internal.place, l durable_internal.lane)
returns jsonb
language plpgsql stable
as $$
#variable_conflict use_column
declare
    since text := durable_internal.json_time(p.since);
    until text := durable_internal.json_time(p.due_at);
    shown jsonb;
begin
    if p.place = 'ready' then
        return durable_internal.waiting_for_worker(l);
    end if;
    shown := case p.place
        when 'wait' then case when p.name = '$child' then
                             jsonb_build_object('kind', 'child', 'runId', p.correlation_key, 'step', p.step, 'since', since)
                         when p.name = '$sleep' then
                             jsonb_build_object('kind', 'sleep', 'step', p.step, 'since', since, 'until', until)
                         else jsonb_build_object('kind', 'event', 'event', p.name, 'correlationKey',
                             p.correlation_key, 'step', p.step, 'since', since, 'until', until) end
        when 'start' then jsonb_build_object('kind', 'time', 'until', until)
        when 'retry' then jsonb_build_object('kind', 'retry', 'until', until)
        when 'step_retry' then jsonb_build_object('kind', 'retry', 'step', p.step, 'until', until)
        when 'sleep' then jsonb_build_object('kind', 'sleep', 'step', p.step, 'since', since, 'until', until)
        when 'version' then jsonb_build_object('kind', 'version', 'step', p.detail ->> 'step', 'expected',
                                p.detail ->> 'expected', 'found', p.detail ->> 'found')
        end;
    return jsonb_strip_nulls(shown);
end
$$;

-- The part of waiting_for for a run that is ready.
create or replace function durable_internal.waiting_for_worker(l durable_internal.lane)
returns jsonb
language plpgsql stable
as $$
#variable_conflict use_column
declare
    e durable_internal.endpoint;
begin
    perform from durable_internal.queue q where q.namespace_id = l.namespace_id and q.name = l.queue and q.paused;
    if found then
        return jsonb_build_object('kind', 'paused', 'queue', l.queue);
    end if;
    select e.* into e
      from durable_internal.endpoint_job j
      join durable_internal.endpoint e on e.namespace_id = j.namespace_id and e.name = j.endpoint
     where j.namespace_id = l.namespace_id and j.job = l.job and (e.paused or e.rest_until > clock_timestamp());
    if found then
        return jsonb_strip_nulls(jsonb_build_object('kind', 'endpoint', 'endpoint', e.name, 'paused', e.paused, 'until',
                                                    durable_internal.json_time(e.rest_until), 'reason', e.last_error));
    end if;
    perform from durable_internal.worker w
      where w.alive and not w.draining and w.namespace_id = l.namespace_id and l.job = any (w.jobs || w.endpoint_jobs)
        and (w.queues is null or l.queue = any (w.queues));
    if found then
        return null;
    end if;
    return jsonb_build_object('kind', 'worker', 'job', l.job, 'queue', l.queue);
end
$$;

create or replace function durable_internal.run_status(ended text, place text)
returns text
language sql immutable
as $$
    select coalesce(ended, case place
        when 'ready' then 'queued' when 'lease' then 'running' when 'start' then 'scheduled'
        when 'retry' then 'retrying' when 'step_retry' then 'retrying' else 'waiting' end);
$$;

-- Newest first: a barrier is planned for all its rows, and so in the order of its primary key only if it says so; then a limit
-- by id reads no more than it shows. So that nothing has to be sorted or hashed for that, each run looks for its own place, and
-- those that have ended, which are most, do not.
create or replace view durable.runs with (security_barrier) as
select r.id, n.name as namespace, l.job, l.queue, durable_internal.run_status(r.status, (p.here).place) as status,
       r.payload, r.result, r.error, coalesce((p.here).attempt, r.attempt) as attempt,
       coalesce(r.max_attempts, j.max_attempts, q.max_attempts, 5) + r.extra_attempts as max_attempts,
       l.priority, coalesce(r.tags, '{}') as tags, r.concurrency_key, r.idempotency_key,
       r.idempotency_expires_at, coalesce(r.version, j.version) as version, r.parent_run_id,
       case when (p.here).place = 'lease' then (p.here).worker_id end as worker_id,
       r.created_at, coalesce(r.scheduled_at, r.created_at) as scheduled_at,
       coalesce((p.here).started_at, r.started_at) as started_at, r.finished_at,
       case when (p.here).place in ('retry', 'step_retry') then (p.here).due_at end as next_attempt_at,
       case when r.status is null then durable_internal.waiting_for(p.here, l) end as waiting_for,
       r.dead_letter_queue, r.dead_lettered_at, r.timeout
  from durable_internal.run r
  join durable_internal.lane l on l.id = r.lane_id
  join durable_internal.namespace n on n.id = r.namespace_id
  left join durable_internal.job j on j.namespace_id = r.namespace_id and j.name = l.job
  left join durable_internal.queue q on q.namespace_id = r.namespace_id and q.name = l.queue
 cross join lateral (select case when r.status is null
                                 then (select p from durable_internal.place p where p.run_id = r.id limit 1) end as here
                     offset 0) as p
 where r.namespace_id = (select durable_internal.session_namespace())
 order by r.id desc;

create or replace view durable.steps with (security_barrier) as
select s.run_id, s.position, s.name, s.kind,
       case when s.error is null then 'completed' else 'failed' end as status,
       s.result, s.error, s.attempt, s.worker_id, s.fence, s.started_at, s.committed_at
  from durable_internal.step s
  join durable_internal.run r on r.id = s.run_id
 where r.namespace_id = (select durable_internal.session_namespace()) and not s.forgotten;

-- Ended attempts have rows; the last one of an ended run is in the run, the one going on is where the run is.
create or replace view durable_internal.attempts as
select a.run_id, a.attempt, a.worker_id, a.fence, a.started_at, a.ended_at, a.outcome, a.error
  from durable_internal.attempt a
union all
select r.id, r.attempt, r.worker_id, r.fence, r.attempt_started_at, r.finished_at,
       durable_internal.attempt_outcome(r.status, r.error), r.error
  from durable_internal.run r
 where r.status is not null and r.attempt_started_at is not null
union all
select p.run_id, p.attempt, p.worker_id, p.fence, p.attempt_started_at, null, null, null
  from durable_internal.place p
 where p.resumed and p.attempt > 0;

create or replace view durable.attempts with (security_barrier) as
select a.run_id, a.attempt, a.worker_id, a.fence, a.started_at, a.ended_at, a.outcome, a.error
  from durable_internal.attempts a
  join durable_internal.run r on r.id = a.run_id
 where r.namespace_id = (select durable_internal.session_namespace());

create or replace view durable.logs with (security_barrier) as
select g.run_id, g.attempt, g.at, g.level, g.message, g.fields
  from durable_internal.log g
  join durable_internal.run r on r.id = g.run_id
 where r.namespace_id = (select durable_internal.session_namespace());

create or replace view durable.events with (security_barrier) as
select e.id, n.name as namespace, e.name, nullif(e.correlation_key, '') as correlation_key, e.payload,
       e.idempotency_key, e.sent_at
  from durable_internal.event e
  join durable_internal.namespace n on n.id = e.namespace_id
 where e.namespace_id = (select durable_internal.session_namespace()) and e.name <> '$child';

create or replace view durable.queues with (security_barrier) as
select names.name, null::int as concurrency, null::int as key_concurrency, null::int as rate_limit,
       null::interval as rate_period, coalesce(q.paused, false) as paused, q.dead_letter_queue,
       coalesce(waiting.depth, 0) as depth, waiting.oldest_age, coalesce(leased.running, 0) as running,
       q.max_attempts, q.backoff
  from (select q.name from durable_internal.queue q
         where q.namespace_id = (select durable_internal.session_namespace())
         union
        select l.queue from durable_internal.lane l
         where l.namespace_id = (select durable_internal.session_namespace())) as names
  left join durable_internal.queue q
    on q.name = names.name and q.namespace_id = (select durable_internal.session_namespace())
  left join (select l.queue, sum(f.depth)::bigint as depth, max(f.oldest_age) as oldest_age
               from durable_internal.lane l
              cross join lateral (select count(*) as depth,
                                         (select clock_timestamp() - run.created_at
                                            from durable_internal.ready r
                                            join durable_internal.run on run.id = r.run_id
                                           where r.lane_id = l.id
                                           order by r.seq limit 1) as oldest_age
                                    from durable_internal.ready r
                                   where r.lane_id = l.id) as f
              where l.namespace_id = (select durable_internal.session_namespace())
              group by l.queue) as waiting on waiting.queue = names.name
  left join (select l.queue, count(*) as running
               from durable_internal.lease e
               join durable_internal.lane l on l.id = e.lane_id
              where l.namespace_id = (select durable_internal.session_namespace())
              group by l.queue) as leased on leased.queue = names.name;

create or replace view durable.workers with (security_barrier) as
select w.id, w.name, w.pid, w.version,
       case when not w.alive then 'gone' when w.beat_at < clock_timestamp() - w.ttl then 'silent'
            when w.draining then 'draining' else 'alive' end as status,
       w.jobs, w.queues, w.slots, w.in_hand, w.ttl, w.started_at, w.beat_at, w.ended_at, w.endpoint_jobs
  from durable_internal.worker w
 where w.namespace_id = (select durable_internal.session_namespace());

-- What a run waits for now, in one sentence, from what the claim itself looks at. Raises DJ003.
create or replace function durable.why(run_id uuid)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
declare
    r record;
    w jsonb;
    until text;
begin
    perform durable_internal.check_run(durable_internal.session_namespace(), why.run_id);
    select v.*, p.place, p.since into r
      from durable.runs v
      left join durable_internal.place p on p.run_id = v.id
     where v.id = why.run_id;
    w := coalesce(r.waiting_for, '{}');
    until := w ->> 'until';
    return case
        when r.status in ('completed', 'cancelled') then
            format('the run is %s since %s', r.status, durable_internal.json_time(r.finished_at))
        when r.status = 'failed' then
            format('the run failed at %s: %s; durable.retry() lets it go on', durable_internal.json_time(r.finished_at),
                   r.error ->> 'message')
        when r.place = 'lease' then
            format('worker %s has run it since %s', r.worker_id, durable_internal.json_time(r.since))
        when w ->> 'kind' = 'paused' then
            format('queue %s is paused; durable.resume_queue() lets it go on', r.queue)
        when w ->> 'kind' = 'endpoint' and (w ->> 'paused')::boolean then
            format('endpoint %s is paused', w ->> 'endpoint')
        when w ->> 'kind' = 'endpoint' then
            format('endpoint %s does not answer (%s); it is tried again at %s', w ->> 'endpoint', w ->> 'reason', until)
        when w ->> 'kind' = 'child' then
            format('it waits for its child, run %s, to end', w ->> 'runId')
        when w ->> 'kind' = 'worker' then
            format('no worker that is alive serves job %s in queue %s', r.job, r.queue)
        when r.place = 'ready' then
            format('queued: it is its turn as soon as a worker of job %s has a free slot', r.job)
        when r.place = 'start' then format('it is scheduled for %s', durable_internal.json_time(r.scheduled_at))
        when r.place = 'retry' then format('attempt %s failed; the next begins at %s', r.attempt, until)
        when r.place = 'step_retry' then format('step %s failed; it is tried again at %s', w ->> 'step', until)
        when r.place = 'wait' then
            format('it waits for event %s%s%s', w ->> 'event',
                   coalesce(' with key ' || (w ->> 'correlationKey'), ' without a key'),
                   coalesce(', until ' || until, ', without end'))
        when r.place = 'sleep' then format('it sleeps until %s', until)
        when r.place = 'version' then
            format('it remembers step %s where this version of the handler asks for %s; a worker with '
                   'another version, or durable.retry(), lets it go on', w ->> 'expected', w ->> 'found')
        else 'it is just moving; look again' end;
end
$$;
