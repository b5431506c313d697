-- The commit: what finished in a worker since its last turn, in sets, under the fence.

-- Ends a run whose row in lease, ready, timer or wait the caller has just deleted; `l` is what that row carried.
-- `result` is for `completed`, `error` for the others. Called by fail_attempt, apply_answer, cancel, reap and the timers; commit()
-- does the same in sets for runs that complete. A cancelled run takes its children along, and theirs: a generation at a time, and
-- not by calling itself, for a chain of some hundred would not fit on PostgreSQL's stack. A child is started under its parent's
-- lease, so it is found here, in a statement after its parent has ended, or it was refused.
-- Locks: the run, then its timers; then its children, by id, each as a cancel of it does: it waits for whoever has one. That is
-- a caller's own time (cancel_run); time_out_wait, with the timers of others behind it, comes here only where nobody has one
-- (are_children_free).
create or replace function durable_internal.end_run(l durable_internal.lease, status text, error jsonb,
                                                    dead_letter boolean default false, result jsonb default null)
returns void
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    generation uuid[];
    child uuid;
begin
    perform durable_internal.end_one(l, status, error, dead_letter, result);
    if status = 'cancelled' then
        generation := array[l.run_id];
    end if;
    while cardinality(generation) > 0 loop
        generation := array(select r.id from durable_internal.run r
                             where r.parent_run_id = any (generation) and r.status is null);  -- unordered: by the index of parents
        for child in select c from unnest(generation) as c order by c loop
            l := durable_internal.take_out(child);
            if l.run_id is null then
                generation := array_remove(generation, child);  -- it has ended; its children go on
            else
                perform durable_internal.end_one(l, 'cancelled',
                    '{"name": "Cancelled", "message": "its parent was cancelled", "retryable": false}', false, null);
            end if;
        end loop;
    end loop;
end
$$;

-- end_run, of the run alone. Locks: the run, then its timers. It waits for nobody: both are the caller's who has deleted the
-- row that the run was in, since whoever changes them takes that row first.
create or replace function durable_internal.end_one(l durable_internal.lease, status text, error jsonb,
                                                    dead_letter boolean, result jsonb)
returns void
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    parent uuid;
begin
    update durable_internal.run r
       set status = end_one.status,
           result = end_one.result,
           error = end_one.error,
           finished_at = clock_timestamp(),
           attempt = l.attempt,
           started_at = l.started_at,
           attempt_started_at = l.attempt_started_at,
           fence = l.fence,
           worker_id = l.worker_id,
           dead_letter_queue = letters.queue,
           dead_lettered_at = case when letters.queue is not null then clock_timestamp() end
      from (select max(q.dead_letter_queue) as queue
              from durable_internal.lane
              join durable_internal.queue q on q.namespace_id = lane.namespace_id and q.name = lane.queue
             where lane.id = l.lane_id and end_one.dead_letter) as letters
     where r.id = l.run_id and r.status is null
    returning r.parent_run_id into parent;
    if not found then
        raise exception 'run % is in hand and has ended', l.run_id;
    end if;
    -- FAILPOINT end.ended
    if l.deadline then
        delete from durable_internal.timer t where t.run_id = l.run_id and t.kind = 'run_timeout';
    end if;
    if parent is not null then
        perform durable_internal.tell_parent(array[l.run_id]);
    end if;
    perform durable_internal.wake_waiters();
    perform durable_internal.free_locks(l.run_id);
end
$$;

-- The policy between tries: of the step, else start, job, queue; each part that is not said comes from the next. Reckoned in
-- seconds: what check_backoff lets through is more than an interval can hold before it is cut down to max.
create or replace function durable_internal.backoff_delay(policy jsonb, tries int)
returns interval
language plpgsql volatile
as $$
begin
    return (select make_interval(secs => least(
                 extract(epoch from durable_internal.duration('backoff.max', p.policy ->> 'max'))::double precision,
                 extract(epoch from durable_internal.duration('backoff.initial', p.policy ->> 'initial'))::double precision
                 * least(power((p.policy ->> 'factor')::double precision, least(backoff_delay.tries - 1, 60)),
                         1e9)
                 * (1 + (p.policy ->> 'jitter')::double precision * (2 * random() - 1))))
      from (select '{"initial": "1s", "factor": 2, "max": "1h", "jitter": 0.2}'::jsonb
                   || coalesce(backoff_delay.policy, '{}')) as p (policy));
end
$$;

-- What start, job and queue say of retries: nearest wins.
create or replace function durable_internal.retry_policy(run_id uuid, out max_attempts int,
                                                         out max_crashes int, out backoff jsonb)
language plpgsql stable
as $$
begin
    select coalesce(r.max_attempts, j.max_attempts, q.max_attempts, 5) + r.extra_attempts,
           coalesce(j.max_crashes, 3),
           coalesce(q.backoff, '{}') || coalesce(j.backoff, '{}') || coalesce(r.options -> 'backoff', '{}')
      into max_attempts, max_crashes, backoff
      from durable_internal.run r
      join durable_internal.lane l on l.id = r.lane_id
      left join durable_internal.job j on j.namespace_id = l.namespace_id and j.name = l.job
      left join durable_internal.queue q on q.namespace_id = l.namespace_id and q.name = l.queue
     where r.id = retry_policy.run_id;
end
$$;

-- Ends an attempt badly: the run is tried again after a while, or fails for good. `l` as in end_run.
create or replace function durable_internal.fail_attempt(l durable_internal.lease, outcome text, error jsonb,
                                                         retry_after interval, permanent boolean)
returns void
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    policy record;
    instant timestamptz := clock_timestamp();
begin
    select p.* into policy from durable_internal.retry_policy(l.run_id) as p;
    if permanent or l.attempt >= policy.max_attempts then
        perform durable_internal.end_run(l, 'failed', error, dead_letter => true);
        return;
    end if;
    insert into durable_internal.attempt (run_id, attempt, fence, worker_id, started_at, ended_at, outcome,
                                          error)
    values (l.run_id, l.attempt, l.fence, l.worker_id, l.attempt_started_at, instant,
            fail_attempt.outcome, fail_attempt.error);
    insert into durable_internal.timer (run_id, kind, due_at, since, fence, started_at, worker_id,
                                        lane_id, attempt, remembered, bytes, crashes, deadline)
    values (l.run_id, 'retry',
            instant + coalesce(retry_after, durable_internal.backoff_delay(policy.backoff, l.attempt)),
            instant, l.fence, l.started_at, l.worker_id, l.lane_id, l.attempt, l.remembered,
            l.bytes, l.crashes, l.deadline);
    perform durable_internal.wake_scheduler();
end
$$;

-- Commits a turn: steps, ends, and everything else that handlers came to, for many runs at once.
--
-- Guarantees 3, 4, 10. Each group begins by locking the lease rows that are still the worker's, by run, fence and worker
-- (claim() says why a fence is not enough), and passes over rows that somebody holds; what is not locked then is looked at plainly: gone = lost;
-- there = held by an open transaction (a user's cancel, say), so it is said again next turn. What a
-- cancel, a reap or a takeover deletes is the same row, so one waits for the other and sees the truth.
--
-- A repeated commit (its first answer was lost) is a no-op: a step's position is taken, a lease that
-- the first one deleted is gone. A run is in one group at most, and once. Steps are inserted as if none
-- were there, which is a fifth cheaper than ON CONFLICT; if one is, those that are there are left out. Nobody
-- else adds one meanwhile: who would has to hold the lease row.
--
--   steps    results of steps: the run stays in hand
--   dones    completed runs
--   others   op and detail: wait, sleep, yield, fail, step_retry, park, answer, rest, crash (see the branches)
--   logs     lines of runs in the groups before, kept only if their commit is; so they come last
--
-- `= any (array[…])` is `=` that the planner cannot use for an order: so it has no plan but one index probe for each
-- run. With `=` it may read a whole index instead, if it was asked while the table was small. See also plan_by_index().
--
-- Nobody's open transaction keeps a turn: lease rows that somebody holds are passed over, and so are locks of runs that end
-- (free_locks). Runs and timers are changed under their lease, and whoever else changes them has the row that the run is
-- in. What is left is what an answer's ops change: commit_answers gives up the run that needs a row that is held.
--
-- Locks: lease rows (waiting for none), then runs, then timers, then what answers change. After lock_turn in a worker's turn.
-- Answers the runs that it did not commit: `busy` ones are to be said again, the others are lost.
create or replace function durable_internal.commit(
    worker_id uuid,
    step_runs uuid[], step_fences bigint[], step_positions int[], step_attempts int[], step_names text[],
    step_kinds text[], step_results jsonb[], step_errors jsonb[], step_elapsed_us bigint[],
    done_runs uuid[], done_fences bigint[], done_results jsonb[],
    other_runs uuid[], other_fences bigint[], other_ops text[], other_details jsonb[],
    log_runs uuid[], log_attempts int[], log_ages_us bigint[], log_levels text[], log_messages text[])
returns table (run_id uuid, fence bigint, busy boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    runs uuid[];
    fences bigint[];
    instant timestamptz := clock_timestamp();
    mine uuid[];
    fresh uuid[];
    done uuid[];
    timed uuid[];
    children uuid[];
    held uuid[];
    whole boolean;
    repeated boolean := false;
begin
    if 'answer' = any (other_ops) then  -- of handlers over HTTP: the plain ends are done in sets, like those of ours
        select done_runs || coalesce(array_agg(o.run_id) filter (where o.plain), '{}'),
               done_fences || coalesce(array_agg(o.fence) filter (where o.plain), '{}'),
               done_results || coalesce(array_agg(coalesce(o.detail -> 'result', 'null')) filter (where o.plain), '{}'),
               coalesce(array_agg(o.run_id) filter (where not o.plain), '{}'),
               coalesce(array_agg(o.fence) filter (where not o.plain), '{}'),
               coalesce(array_agg(o.op) filter (where not o.plain), '{}'),
               coalesce(array_agg(o.detail) filter (where not o.plain), '{}')
          into done_runs, done_fences, done_results, other_runs, other_fences, other_ops, other_details
          from (select u.*, u.op = 'answer' and coalesce(u.detail ->> 'status' = 'completed', false)
                            and coalesce(u.detail -> 'ops', '[]') = '[]' and pg_column_size(u.detail) < 14000 as plain
                  from unnest(other_runs, other_fences, other_ops, other_details) as u (run_id, fence, op, detail)) as o;
    end if;
    runs := step_runs || other_runs;
    fences := step_fences || other_fences;
    if cardinality(runs) > 0 then
        select array_agg(held.run_id) into mine
          from unnest(runs, fences) as c (run_id, fence)
         cross join lateral (select l.run_id from durable_internal.lease l
                              where l.run_id = c.run_id and l.fence = c.fence
                                and l.worker_id = commit.worker_id
                                for update skip locked) as held;
    end if;
    whole := coalesce(cardinality(mine), 0) = cardinality(runs);
    -- FAILPOINT commit.locked

    fresh := mine;
    while cardinality(step_runs) > 0 loop
        begin
            insert into durable_internal.step (run_id, position, attempt, fence, worker_id, started_at,
                                               committed_at, name, kind, result, error)
            select s.run_id, s.position, s.attempt, s.fence, commit.worker_id,
                   instant - s.elapsed_us * interval '1 microsecond', instant, s.name, s.kind, s.result, s.error
              from unnest(step_runs, step_fences, step_positions, step_attempts, step_names, step_kinds,
                          step_results, step_errors, step_elapsed_us)
                   as s (run_id, fence, position, attempt, name, kind, result, error, elapsed_us)
             where whole and not repeated or s.run_id = any (fresh);
            exit;
        exception when unique_violation then
            repeated := true;
            select coalesce(array_agg(s.run_id), '{}') into fresh
              from unnest(step_runs, step_positions) as s (run_id, position)
             where s.run_id = any (mine)
               and not exists (select from durable_internal.step t
                                where t.run_id = s.run_id and t.position = s.position);
        end;
    end loop;

    if cardinality(done_runs) > 0 then
        with held as materialized (
            select l.*, d.result
              from unnest(done_runs, done_fences, done_results) as d (run_id, fence, result)
             cross join lateral (select l.ctid, l.run_id, l.fence, l.worker_id, l.attempt, l.started_at,
                                        l.attempt_started_at, l.deadline
                                   from durable_internal.lease l
                                  where l.run_id = d.run_id and l.fence = d.fence
                                    and l.worker_id = commit.worker_id
                                    for update skip locked) as l
        ), gone as (
            delete from durable_internal.lease where ctid = any (array(select h.ctid from held h))
        ), ended as (
            update durable_internal.run r
               set status = 'completed', result = h.result, finished_at = instant, attempt = h.attempt,
                   started_at = h.started_at, attempt_started_at = h.attempt_started_at,
                   fence = h.fence, worker_id = h.worker_id
              from held h
             where r.id = any (array[h.run_id])
            returning r.id, r.parent_run_id
        )
        select array_agg(h.run_id), array_agg(h.run_id) filter (where h.deadline),
               (select array_agg(e.id) from ended e where e.parent_run_id is not null)
          into done, timed, children
          from held h;
        -- FAILPOINT commit.ended
        if children is not null then
            perform durable_internal.tell_parent(children);
        end if;
        if done is not null then
            perform durable_internal.free_locks(done);
            perform durable_internal.wake_waiters();
        end if;
        if timed is not null then
            delete from durable_internal.timer t where t.run_id = any (timed) and t.kind = 'run_timeout';
        end if;
    end if;

    if cardinality(other_runs) > 0 then
        held := durable_internal.commit_others(
            array(select o from unnest(other_runs) as o where whole or o = any (mine)), other_runs,
            other_ops, other_details);
        if held is not null then
            mine := array(select m from unnest(mine) as m where m <> all (held));
            whole := false;
        end if;
    end if;

    whole := whole and coalesce(cardinality(done), 0) = cardinality(done_runs);
    if cardinality(log_runs) > 0 then
        insert into durable_internal.log (run_id, attempt, at, level, message)
        select g.run_id, g.attempt, instant - g.age_us * interval '1 microsecond', g.level, g.message
          from unnest(log_runs, log_attempts, log_ages_us, log_levels, log_messages)
               as g (run_id, attempt, age_us, level, message)
         where whole or g.run_id = any (coalesce(mine, '{}') || coalesce(done, '{}'));
    end if;

    if not whole then
        return query
        select c.run_id, c.fence,
               exists (select from durable_internal.lease l
                        where l.run_id = any (array[c.run_id]) and l.fence = c.fence
                          and l.worker_id = commit.worker_id)
          from unnest(runs || done_runs, fences || done_fences) as c (run_id, fence)
         where c.run_id <> all (coalesce(mine, '{}') || coalesce(done, '{}'));
    end if;
end
$$;

drop function if exists durable_internal.commit_others(uuid[], uuid[], text[], jsonb[]);  -- returned nothing

-- The turns of a run that take it out of its worker's hands other than by completing it. Answers those that are to be said
-- again (null: none); they are as they were. Called by commit, which holds the lease rows of `mine`.
create or replace function durable_internal.commit_others(mine uuid[], runs uuid[], ops text[],
                                                          details jsonb[])
returns uuid[]
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    one record;
    l durable_internal.lease;
    answering uuid[];
    answers jsonb[];
begin
    for one in
        select o.run_id, o.op, o.detail
          from unnest(runs, ops, details) as o (run_id, op, detail)
         where o.run_id = any (mine) and o.op <> 'answer'
         order by o.run_id
    loop
        delete from durable_internal.lease l where l.run_id = one.run_id returning l.* into l;
        l.remembered := coalesce((one.detail ->> 'remembered')::int, l.remembered);
        l.bytes := coalesce((one.detail ->> 'bytes')::int, l.bytes);
        case one.op
        when 'wait' then
            perform durable_internal.begin_wait(l, one.detail);
        when 'sleep' then
            perform durable_internal.begin_sleep(l, (one.detail ->> 'position')::int, one.detail ->> 'name',
                coalesce(timestamptz 'epoch' + (one.detail ->> 'untilUs')::bigint * interval '1 us',
                         clock_timestamp() + (one.detail ->> 'ms')::bigint * interval '1 ms'));
        when 'yield' then
            perform durable_internal.make_ready(l, resumed => true);
        when 'fail' then
            perform durable_internal.fail_attempt(l, 'failed', one.detail -> 'error',
                (one.detail ->> 'retryAfterMs')::bigint * interval '1 ms',
                coalesce((one.detail ->> 'permanent')::boolean, false));
        when 'step_retry' then
            perform durable_internal.begin_step_retry(l, one.detail);
        when 'park' then
            perform durable_internal.begin_park(l, one.detail);
        when 'crash' then
            perform durable_internal.charge_crash(l, null, greatest((one.detail ->> 'company')::int, 1));
        when 'rest' then
            perform durable_internal.endpoint_rest((select r.namespace_id from durable_internal.lane r where r.id = l.lane_id),
                one.detail ->> 'endpoint', one.detail ->> 'reason', (one.detail ->> 'restMs')::bigint);
            perform durable_internal.make_ready(l, resumed => true);
        end case;
    end loop;
    if 'answer' = any (ops) then
        select array_agg(o.run_id), array_agg(o.detail) into answering, answers
          from unnest(runs, ops, details) as o (run_id, op, detail)
         where o.run_id = any (mine) and o.op = 'answer';
        return durable_internal.commit_answers(answering, answers);
    end if;
    return null;
end
$$;

-- Answers of handlers over HTTP, one after the other. Answers those that are to be said again (null: none): what one of their
-- ops changes was held, by somebody's open transaction, for longer than the tenth of a second that it was waited for; in
-- this call whoever else finds something held is given up at once. The others do not wait for it: see commit_each, which
-- does the same for commits over HTTP.
--
-- Only an answer whose ops may have to wait gets a subtransaction. The lease row goes after it: deleted within, it would get a
-- MultiXact, since `commit` has locked it.
-- Locks: as commit_each. Called by commit_others.
create or replace function durable_internal.commit_answers(runs uuid[], details jsonb[])
returns uuid[]
language plpgsql volatile
set lock_timeout = '100ms'
as $$
#variable_conflict use_column
declare
    one record;
    l durable_internal.lease;
    waiting uuid[];
    ops jsonb[];
    busy uuid[];
begin
    select array_agg(a.run_id), array_agg(a.detail -> 'ops') into waiting, ops
      from unnest(runs, details) as a (run_id, detail)
     where durable_internal.may_wait(a.detail -> 'ops');
    if waiting is not null then
        perform durable_internal.hold_state(waiting, ops);
    end if;
    for one in
        select a.run_id, a.detail, m.may_wait
          from unnest(runs, details) as a (run_id, detail)
         cross join lateral (select durable_internal.may_wait(a.detail -> 'ops')) as m (may_wait)
          left join lateral (select s.of_lock, s.key
                               from durable_internal.state_changes(case when m.may_wait then a.detail -> 'ops' end) as s
                              order by s.of_lock, s.key collate "C" limit 1) as c on true
         order by c.of_lock nulls first, c.key collate "C", a.run_id  -- all are of the worker's namespace
    loop
        -- FAILPOINT answers.next
        select l.* into l from durable_internal.lease l where l.run_id = one.run_id;
        if one.may_wait then
            begin
                perform durable_internal.apply_answer(l, one.detail);
            exception when lock_not_available or deadlock_detected then
                perform durable_internal.be_impatient();
                busy := busy || one.run_id;
                continue;
            end;
        else
            perform durable_internal.apply_answer(l, one.detail);
        end if;
        delete from durable_internal.lease l where l.run_id = one.run_id;
    end loop;
    return busy;
end
$$;

-- Ways of a run out of its worker's hands, until something is due. `l` is its lease, which the caller deletes.
-- What was due before is due now: promote_due() begins its scan a little back, and not at the beginning of time.
create or replace function durable_internal.begin_sleep(l durable_internal.lease, place int, name text, due timestamptz)
returns void
language plpgsql volatile
as $$
begin
    insert into durable_internal.timer (run_id, kind, due_at, since, fence, started_at, attempt_started_at, worker_id,
                                        lane_id, attempt, remembered, bytes, position, deadline, name)
    values (l.run_id, 'sleep', greatest(begin_sleep.due, clock_timestamp()), clock_timestamp(), l.fence, l.started_at,
            l.attempt_started_at, l.worker_id, l.lane_id, l.attempt, l.remembered, l.bytes, begin_sleep.place, l.deadline,
            begin_sleep.name);
    perform durable_internal.wake_scheduler();
end
$$;

create or replace function durable_internal.begin_step_retry(l durable_internal.lease, detail jsonb)
returns void
language plpgsql volatile
as $$
declare
    instant timestamptz := clock_timestamp();
begin
    insert into durable_internal.step_try (run_id, attempt, fence, at, name, error)
    values (l.run_id, l.attempt, l.fence, instant, detail ->> 'name', detail -> 'error');
    insert into durable_internal.timer (run_id, kind, due_at, since, fence, started_at, attempt_started_at, worker_id,
                                        lane_id, attempt, remembered, bytes, deadline, name)
    values (l.run_id, 'step_retry',
            instant + coalesce((detail ->> 'retryAfterMs')::bigint * interval '1 ms',
                durable_internal.backoff_delay(
                    (select p.backoff from durable_internal.retry_policy(l.run_id) as p)
                    || coalesce(detail -> 'backoff', '{}'), (detail ->> 'tries')::int)),
            instant, l.fence, l.started_at, l.attempt_started_at, l.worker_id, l.lane_id, l.attempt,
            l.remembered, l.bytes, l.deadline, detail ->> 'name');
    perform durable_internal.wake_scheduler();
end
$$;

create or replace function durable_internal.begin_park(l durable_internal.lease, detail jsonb)
returns void
language plpgsql volatile
as $$
begin
    insert into durable_internal.timer (run_id, kind, due_at, since, fence, started_at, attempt_started_at, worker_id,
                                        lane_id, attempt, remembered, bytes, deadline, detail)
    values (l.run_id, 'version', 'infinity', clock_timestamp(), l.fence, l.started_at, l.attempt_started_at,
            l.worker_id, l.lane_id, l.attempt, l.remembered, l.bytes, l.deadline, begin_park.detail);
end
$$;

-- Whether ops may have to wait for somebody's open transaction.
create or replace function durable_internal.may_wait(ops jsonb)
returns boolean
language sql immutable
as $$
    select may_wait.ops @? '$[*] ? (@.op == "state" || @.op == "send_event")';
$$;

-- Begins a wait: neither looks for events nor is looked for here; the matcher does both (23_event.sql).
create or replace function durable_internal.begin_wait(l durable_internal.lease, detail jsonb)
returns void
language plpgsql volatile
as $$
declare
    instant timestamptz := clock_timestamp();
    due timestamptz := coalesce((detail ->> 'due')::timestamptz,
                                instant + (detail ->> 'timeoutMs')::bigint * interval '1 ms');
    number bigint;
begin
    due := case when due < instant then instant else due end;  -- as of a branch that is asked for again; null: no timeout
    perform pg_current_xact_id();
    number := nextval('durable_internal.order_seq');
    insert into durable_internal.wait (wait_id, run_id, run_seq, fence, since, due_at, started_at,
                                       attempt_started_at, worker_id, namespace_id, lane_id, attempt,
                                       remembered, bytes, position, deadline, name, event,
                                       correlation_key, on_timeout, others)
    select number, l.run_id, r.seq, l.fence, instant, due, l.started_at, l.attempt_started_at, l.worker_id,
           r.namespace_id, l.lane_id, l.attempt, l.remembered, l.bytes, (detail ->> 'position')::int,
           l.deadline, detail ->> 'name', detail ->> 'event', coalesce(detail ->> 'key', ''),
           coalesce(detail ->> 'onTimeout', 'fail'), nullif(detail -> 'others', '[]')
      from durable_internal.run r
     where r.id = l.run_id;
    if detail -> 'others' <> '[]' then
        insert into durable_internal.wait_other (namespace_id, event, correlation_key, wait_id)
        select distinct w.namespace_id, o.value ->> 'event', coalesce(o.value ->> 'key', ''), number
          from durable_internal.wait w
         cross join jsonb_array_elements(detail -> 'others') as o
         where w.wait_id = number and o.value ? 'event';
    end if;
    insert into durable_internal.event_inbox (seq, wait_id) values (number, number);
    if due is not null then
        insert into durable_internal.timer (run_id, kind, due_at, since, wait_id, lane_id)
        values (l.run_id, 'wait_timeout', due, instant, number, l.lane_id);
    end if;
    perform durable_internal.wake_scheduler();
end
$$;

-- Puts a run at the end of its lane. A new number, because the lane's mark may have passed the old one.
create or replace function durable_internal.make_ready(l durable_internal.lease, resumed boolean)
returns void
language plpgsql volatile
as $$
begin
    perform pg_current_xact_id();
    insert into durable_internal.ready (run_id, seq, fence, started_at, attempt_started_at, worker_id,
                                        lane_id, attempt, remembered, bytes, crashes, resumed, deadline)
    values (l.run_id, nextval('durable_internal.order_seq'), l.fence, l.started_at,
            case when make_ready.resumed then l.attempt_started_at end, l.worker_id, l.lane_id, l.attempt, l.remembered,
            l.bytes, l.crashes, make_ready.resumed, l.deadline);
    perform durable_internal.wake_workers();
end
$$;

-- The last statement of a dj_step_tx's own transaction: the step, under the same fence as in commit().
--
-- Guarantee 11: the user's SQL and the step are committed together or not at all. It waits for the lease row: a turn
-- that holds it is short. A repeat after a lost answer waits for the first one, and then finds the step:
-- `again` tells the caller to roll its second try back. Raises DJ005: the lease is lost.
create or replace function durable_internal.commit_step_tx(worker_id uuid, run_id uuid, fence bigint,
    place int, attempt int, name text, result jsonb, elapsed_us bigint, out again boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    -- FAILPOINT step_tx.begun
    perform from durable_internal.lease l
      where l.run_id = commit_step_tx.run_id and l.fence = commit_step_tx.fence
        and l.worker_id = commit_step_tx.worker_id
        for update;
    if not found then
        perform durable_internal.fail('DJ005', format('run %s is not leased to this worker any more',
                                                      commit_step_tx.run_id));
    end if;
    insert into durable_internal.step (run_id, position, attempt, fence, worker_id, started_at, committed_at,
                                       name, kind, result)
    values (commit_step_tx.run_id, commit_step_tx.place, commit_step_tx.attempt, commit_step_tx.fence,
            commit_step_tx.worker_id,
            clock_timestamp() - commit_step_tx.elapsed_us * interval '1 microsecond', clock_timestamp(),
            commit_step_tx.name, 'step_tx', commit_step_tx.result)
        on conflict (run_id, position) do nothing;
    again := not found;
end
$$;
