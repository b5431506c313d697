-- What the interleavings need in their database: the gate at the points, the scenes' rows kept and put back, the
-- follow-up duties, and what has to be true after each schedule. Loaded before the functions with their points.

create schema interleave;

-- How often each session has come to a point. Unlogged: a logged one would give the session's transaction its number.
create unlogged sequence interleave.stop_0;
create unlogged sequence interleave.stop_1;
create unlogged sequence interleave.stop_2;

-- A point: tells the driver, and waits until it lets this session go on. Only in sessions that have a slot, and only at the
-- points that `interleave.points` fits. The gate is one of two locks by turns: the driver holds the one that
-- is next, and when it frees it, it holds the other. The time at a gate is not the session's, which might have no more than a
-- millisecond for a lock (be_impatient), and would keep a gate that it gets at the end of it.
create function durable_internal.failpoint(name text)
returns boolean
language plpgsql volatile
set lock_timeout = 0
as $$
declare
    slot int := nullif(current_setting('interleave.slot', true), '')::int;
    gate int;
begin
    if slot is null or failpoint.name !~ current_setting('interleave.points', true) then
        return true;
    end if;
    gate := 2 * slot + nextval(('interleave.stop_' || slot)::regclass) % 2;
    raise notice '%', failpoint.name;
    perform pg_advisory_lock_shared(7001, gate);
    perform pg_advisory_unlock_shared(7001, gate);
    return true;
end
$$;

-- Names for what a scene has: runs, workers, and the fences that runs had when it began.
create table interleave.who (name text primary key, value text not null);

create function interleave.id(name text)
returns uuid
language plpgsql stable
as $$
begin
    return (select w.value from interleave.who w where w.name = id.name);
end
$$;

create function interleave.number(name text)
returns bigint
language plpgsql stable
as $$
begin
    return (select w.value from interleave.who w where w.name = number.name || '#');
end
$$;

create function interleave.name_of(id uuid)
returns text
language plpgsql stable
as $$
begin
    return coalesce((select w.name from interleave.who w where w.value = name_of.id::text), '(new)');
end
$$;

create function interleave.keep(name text, value text)
returns void
language plpgsql volatile
as $$
begin
    insert into interleave.who values (keep.name, keep.value)
        on conflict on constraint who_pkey do update set value = excluded.value;
end
$$;

-- A worker of the jobs j and k, whose leases hold for an hour. One that is silent has not beaten for two.
create function interleave.worker(name text, silent boolean default false)
returns void
language plpgsql volatile
as $$
declare
    given uuid := durable_internal.uuid_v7();
    number int := durable_internal.worker_register(given, 'default', worker.name, 1, '1', 10, 3600000, '{j,k}',
                                                   array['{"version": "1"}', '{}']::jsonb[], null);
begin
    update durable_internal.worker w
       set beat_at = clock_timestamp() + case when silent then interval '-2 hours' else interval '1 day' end
     where w.id = given;
    perform interleave.keep(name, given::text);
    perform interleave.keep(name || '#', number::text);
end
$$;

create function interleave.run(name text, payload jsonb default '{}', key text default null,
                               timeout interval default null)
returns void
language plpgsql volatile
as $$
begin
    perform interleave.keep(name, durable.start('j', payload, idempotency_key => run.key, timeout => run.timeout)::text);
end
$$;

-- Leases to a worker all that is ready.
create function interleave.lease(worker text)
returns void
language plpgsql volatile
as $$
begin
    perform interleave.keep(interleave.name_of(c.run_id) || '#', c.fence::text)
       from durable_internal.claim(interleave.id(worker), 10, 1000000) as c;
end
$$;

-- What the sessions call. A turn of a worker with one op in it, and its answer: kept, lost, or busy.
create function interleave.turn(worker text, run text, op text, detail jsonb default '{}', fence bigint default null)
returns text
language plpgsql volatile
as $$
declare
    id uuid := interleave.id(worker);
    runs uuid[] := array[interleave.id(run)];
    fences bigint[] := array[coalesce(turn.fence, interleave.number(run))];
    answer text;
begin
    perform durable_internal.lock_turn(id, interleave.number(worker)::int);
    if op = 'step' then
        select case when c.busy then 'busy' else 'lost' end into answer
          from durable_internal.commit(id, runs, fences, array[1], array[1], array['step-' || worker], '{step}', array['1'::jsonb],
                   array[null::jsonb], '{1}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}') as c;
    elsif op = 'done' then
        select case when c.busy then 'busy' else 'lost' end into answer
          from durable_internal.commit(id, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', runs, fences,
                   array[to_jsonb('done-' || worker)], '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}') as c;
    else
        select case when c.busy then 'busy' else 'lost' end into answer
          from durable_internal.commit(id, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', runs, fences,
                   array[op], array[detail], '{}', '{}', '{}', '{}', '{}') as c;
    end if;
    return coalesce(answer, 'kept');
end
$$;

-- A turn that claims, with the number as a turn that has nothing to commit has it. Answers whom it was given.
create function interleave.claim(worker text, match boolean default false)
returns text
language plpgsql volatile
as $$
begin
    return (select string_agg(interleave.name_of(c.run_id) || c.attempt, ' ' order by c.run_id)
              from durable_internal.claim(interleave.id(worker), 10, 1000000, interleave.number(worker)::int, match) as c);
end
$$;

-- The server's half of a handler's commit: kept, cancelled, or a code.
create function interleave.ops(worker text, run text, ops jsonb, fence bigint default null)
returns text
language plpgsql volatile
as $$
begin
    return (select case when c.answer ->> 'code' = 'lease_lost' then 'lost'
                        else coalesce(c.answer ->> 'code', case when (c.answer ->> 'cancelled')::boolean then 'lost' else 'kept' end) end
              from durable_internal.commit_ops(array[interleave.id(run)], array[coalesce(ops.fence, interleave.number(run))],
                       array[interleave.id(worker)], array[ops.ops]) as c);
end
$$;

-- A call for several runs: the increments of each of them, by key. Nobody gives up, as only a deadlock would make one: see
-- interleave.be_patient.
create function interleave.count_in(way text, runs text[], keys jsonb)
returns text
language plpgsql volatile
as $$
declare
    ids uuid[];
    fences bigint[];
    workers uuid[];
    lists jsonb[];
    answer text;
begin
    select array_agg(interleave.id(r.name) order by r.n), array_agg(interleave.number(r.name) order by r.n),
           array_agg(interleave.id('w1') order by r.n),
           array_agg((select jsonb_agg(jsonb_build_object('op', 'state', 'action', 'increment', 'key', k.key, 'name', k.key))
                        from jsonb_array_elements_text(keys -> (r.n - 1)::int) as k (key)) order by r.n)
      into ids, fences, workers, lists
      from unnest(runs) with ordinality as r (name, n);
    if way = 'ops' then
        select 'gave up: ' || string_agg(distinct o.answer ->> 'code', ' ') into answer
          from durable_internal.commit_ops(ids, fences, workers, lists) as o;
    else
        perform durable_internal.lock_turn(workers[1], interleave.number('w1')::int);
        select 'gave up' into answer
          from durable_internal.commit(workers[1], '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', ids, fences,
                   array(select 'answer' from unnest(ids)),
                   array(select jsonb_build_object('status', 'continue', 'ops', l) from unnest(lists) as l),
                   '{}', '{}', '{}', '{}', '{}') as c
         where c.busy limit 1;
    end if;
    return coalesce(answer, 'kept');
end
$$;

-- A session that is stopped at a point may hold a row for longer than a commit would wait for it.
create function interleave.be_patient()
returns void
language plpgsql volatile
as $$
begin
    alter function durable_internal.commit_each set lock_timeout = 0;
    alter function durable_internal.commit_answers set lock_timeout = 0;
end
$$;

-- The run's wait is met; it goes on, and waits once more, without a timeout.
create function interleave.wait_again(worker text, run text)
returns text
language plpgsql volatile
as $$
begin
    perform durable_internal.match_events(10);
    perform interleave.lease(worker);
    return interleave.turn(worker, run, 'wait', '{"position": 2, "name": "again", "event": "never"}');
end
$$;

-- A worker claims, and the handler of a run, which wants one child, goes on from what it remembers: one in C, which
-- remembers the start as well, or one over HTTP.
create function interleave.go_on(worker text, run text, in_c boolean)
returns text
language plpgsql volatile
as $$
declare
    parent uuid := interleave.id(run);
    held bigint;
    child text;
    ended text;
begin
    perform durable_internal.claim(interleave.id(worker), 10, 1000000);
    select l.fence into held from durable_internal.lease l where l.run_id = parent and l.worker_id = interleave.id(worker);
    if held is null then
        return 'not mine';
    end if;
    select case when s.error is null then 'done' else 'fail' end into ended
      from durable_internal.step s where s.run_id = parent and s.kind = 'child' and not s.forgotten;
    if ended is not null then
        return interleave.turn(worker, run, ended, '{"error": {"name": "E"}, "permanent": true}', held);
    elsif not in_c then
        return interleave.ops(worker, run, '[{"op": "child", "name": "c", "job": "j"}]', held);
    end if;
    select s.result #>> '{}' into child from durable_internal.step s where s.run_id = parent and s.name = 'start:c';
    if child is null then
        child := durable_internal.run_op(parent, '{"op": "child", "job": "j"}') #>> '{}';
        perform durable_internal.commit_step_tx(interleave.id(worker), parent, held, 1, 1, 'start:c', to_jsonb(child), 1);
    end if;
    return interleave.turn(worker, run, 'wait', jsonb_build_object('position', 2, 'name', 'c', 'event', '$child', 'key', child), held);
end
$$;

-- A run that has failed is let go on, and a worker does.
create function interleave.retry_on(worker text, run text, in_c boolean)
returns text
language plpgsql volatile
as $$
begin
    perform durable.retry(interleave.id(run));
    return interleave.go_on(worker, run, in_c);
end
$$;

-- … and waits for its event again, which did not come in time.
create function interleave.retry_wait(worker text, run text)
returns text
language plpgsql volatile
as $$
begin
    perform durable.retry(interleave.id(run));
    perform interleave.lease(worker);
    return interleave.turn(worker, run, 'wait', '{"position": 1, "name": "w", "event": "e"}');
end
$$;

-- The same event as `send key` of scenes.c.
create function interleave.send_op()
returns jsonb
language sql immutable
as $$
    select '{"op": "send_event", "name": "e", "event": "e", "payload": 1, "idempotencyKey": "i"}'::jsonb;
$$;

create function interleave.step_op()
returns jsonb
language sql immutable
as $$
    select jsonb_build_array(jsonb_build_object('op', 'step', 'name', 'step-w1', 'result', 1));
$$;

-- dj_step_tx: some SQL of the handler's, then the step.
create function interleave.step_tx(worker text, run text, op jsonb default null)
returns text
language plpgsql volatile
as $$
begin
    if op is not null then
        perform durable_internal.run_op(interleave.id(run), op);
    end if;
    perform durable_internal.commit_step_tx(interleave.id(worker), interleave.id(run), interleave.number(run), 1, 1,
                                            'step-' || worker, '1', 1);
    return 'kept';
end
$$;

-- Keeps what a scene's set-up has made, and makes the function that puts it back.
create function interleave.save()
returns void
language plpgsql volatile
as $$
declare
    kept text;
    body text := '';
    filled boolean;
begin
    foreach kept in array interleave.kept() loop
        execute format('drop table if exists interleave.%I', kept);
        execute format('select exists (select from durable_internal.%I)', kept) into filled;
        body := body || format('delete from durable_internal.%I; ', kept);
        if filled then
            execute format('create table interleave.%I as table durable_internal.%I', kept, kept);
            body := body || format('insert into durable_internal.%I overriding system value table interleave.%I; ', kept, kept);
        end if;
    end loop;
    execute format('create or replace function interleave.restore() returns void language plpgsql as %L',
                   'begin ' || body || 'end');
end
$$;

create function interleave.kept()
returns text[]
language sql immutable
as $$
    select '{run,step,attempt,step_try,log,lane,idempotency_key,queue,job,ready,lease,timer,lane_mark,mark_state,
             mark_pending,branch,worker,event,event_inbox,event_key,wait,wait_other,delivery,state,state_lock}'::text[];
$$;

-- An empty database, but for the worker that drives what is left to its end.
create function interleave.clear()
returns void
language plpgsql volatile
as $$
begin
    execute 'truncate interleave.who, ' || (select string_agg('durable_internal.' || k, ', ') from unnest(interleave.kept()) as k);
    insert into durable_internal.mark_state (last_seq, own_xid) values (0, '0');
    perform interleave.worker('driver');
end
$$;

-- The follow-up duties, until nothing is left to do. True: they came to rest.
create function interleave.rest()
returns boolean
language plpgsql volatile
as $$
declare
    done int;
begin
    for round in 1 .. 20 loop
        done := durable_internal.match_events(100) + (durable_internal.promote_due(100, -1)).promoted;
        if durable_internal.reap() is null and done = 0 then
            perform durable_internal.move_marks(1);
            return true;
        end if;
    end loop;
    return false;
end
$$;

-- Drives every run to its end, as a fleet would. True: all have ended.
create function interleave.drive()
returns boolean
language plpgsql volatile
as $$
declare
    at timestamptz := clock_timestamp() - interval '1 second';
begin
    update durable_internal.queue set paused = false where paused;
    for round in 1 .. 8 loop
        perform durable_internal.claim(interleave.id('driver'), 100, 1000000);
        perform durable_internal.commit(l.worker_id, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', array[l.run_id],
                    array[l.fence], array['"driven"'::jsonb], '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')
           from durable_internal.lease l;
        if not exists (select from durable_internal.run r where r.status is null) then
            return true;
        end if;
        update durable_internal.timer t set due_at = at
         where t.kind in ('start', 'retry', 'step_retry', 'sleep') and t.due_at > at;
        perform durable_internal.retry_run(1, t.run_id, null) from durable_internal.timer t where t.kind = 'version';
        if round > 2 then
            perform durable_internal.send_event(1, w.event, '{}', nullif(w.correlation_key, ''), null)
               from durable_internal.wait w where w.event <> '$child';
        end if;
        perform interleave.rest();
    end loop;
    return false;
end
$$;

-- What is true at rest beside the invariants of every database.
create function interleave.broken_at_rest()
returns setof text
language plpgsql volatile
as $$
begin
    if exists (select from durable_internal.event e where e.idempotency_key is not null
                group by e.idempotency_key having count(*) > 1) then
        return next 'two events have one key';
    end if;
    if exists (select from durable_internal.lease l join durable_internal.worker w on w.id = l.worker_id
                where not w.alive) then
        return next 'a lease is of a dead worker';
    end if;
    if exists (select from durable_internal.wait w where durable_internal.event_for(w) is not null) then
        return next 'an event that fits a wait was not given to it';
    end if;
    if exists (select from durable_internal.event_inbox) then
        return next 'the inbox is not empty';
    end if;
    if exists (select from durable_internal.delivery d join durable_internal.event e on e.seq = d.event_seq
                where (e.name <> '$child' or e.payload ->> 'status' = 'completed')  -- the others a retry forgets
                  and 1 <> (select count(*) from durable_internal.step s
                             where s.run_id = d.run_id and s.kind in ('wait_event', 'wait_any', 'child')
                               and (s.kind = 'child' or s.result ->> 'id' = e.id::text))) then
        return next 'an event was given, and is not remembered, or twice';
    end if;
    if exists (select from durable_internal.step s where s.kind in ('wait_event', 'wait_any') and not (s.result ->> 'timedOut')::boolean
                and not exists (select from durable_internal.delivery d join durable_internal.event e on e.seq = d.event_seq
                                 where d.run_id = s.run_id and e.id::text = s.result ->> 'id')) then
        return next 'an event is remembered that was not given';
    end if;
    if exists (select from durable_internal.run r join durable_internal.run p on p.id = r.parent_run_id
                where p.status = 'cancelled' and r.status is null) then
        return next 'a cancelled run has a live child';
    end if;
    if exists (select from durable_internal.wait w where w.event = '$child'
                  and not exists (select from durable_internal.run r where r.id::text = w.correlation_key
                                     and r.parent_run_id = w.run_id)) then
        return next 'a run waits for a child that is not there';
    end if;
    if exists (select from durable_internal.wait w join durable_internal.run r on r.id::text = w.correlation_key
                where w.event = '$child' and r.status is not null) then
        return next 'a run waits for a child that has ended';
    end if;
    if exists (select from durable_internal.run r where r.idempotency_key is not null and r.status is null
                group by r.idempotency_key having count(*) > 1) then
        return next 'two runs with one key are not ended';
    end if;
    if exists (select from durable_internal.idempotency_key k
                where not exists (select from durable_internal.run r where r.id = k.run_id)) then
        return next 'a key stands for no run';
    end if;
    if exists (select from durable_internal.timer t where t.kind = 'wait_timeout'
                  and not exists (select from durable_internal.wait w where w.wait_id = t.wait_id)) then
        return next 'a timer is left of a wait';
    end if;
    if exists (select from durable_internal.wait w where w.due_at is not null
                  and not exists (select from durable_internal.timer t where t.wait_id = w.wait_id)) then
        return next 'a wait has lost its timer';
    end if;
    if exists (select from durable_internal.wait_other o
                where not exists (select from durable_internal.wait w where w.wait_id = o.wait_id)) then
        return next 'an event is waited for by no wait';
    end if;
    if exists (select from durable_internal.state_lock l join durable_internal.run r on r.id = l.run_id
                where r.status is not null) then
        return next 'an ended run has a lock';
    end if;
    if exists (select from durable_internal.attempt a group by a.run_id, a.attempt having count(*) > 1) then
        return next 'an attempt has ended twice';
    end if;
    if exists (select from durable_internal.step s join durable_internal.place p on p.run_id = s.run_id
                where s.fence > p.fence) then
        return next 'a step is of a fence that its run never had';
    end if;
    if exists (select from durable_internal.ready r where r.resumed and r.attempt = 0) then
        return next 'a run is resumed that was never begun';
    end if;
    if exists (select from durable_internal.ready r where r.deadline
                  and not exists (select from durable_internal.timer t where t.run_id = r.run_id and t.kind = 'run_timeout')) then
        return next 'a run has lost its timeout';
    end if;
end
$$;

-- What the sessions were answered, against what is there. `names` and `answers` in the order of the slots.
create function interleave.lied(names text[], answers text[])
returns setof text
language plpgsql volatile
as $$
declare
    one record;
    there boolean;
begin
    for one in
        select x.what, x.worker, bool_or(x.answer = 'kept') as kept
          from (select m.part[2] as what, coalesce(m.part[4], 'w1') as worker, s.answer
                  from unnest(names, answers) as s (name, answer)
                 cross join lateral regexp_matches(s.name, '^(late )?(step|done)(_tx.*| over HTTP)?( w2)?$') as m (part)) as x
         group by x.what, x.worker
    loop
        one.worker := trim(one.worker);
        there := case one.what when 'step'
            then exists (select from durable_internal.step s where s.name = 'step-' || one.worker)
            else exists (select from durable_internal.run r where r.result = to_jsonb('done-' || one.worker)) end;
        if there <> one.kept then
            return next format('%s of %s was answered %s, and is %s', one.what, one.worker,
                               case when one.kept then 'kept' else 'not kept' end, case when there then 'there' else 'not there' end);
        end if;
    end loop;
    if exists (select from unnest(names, answers) as s (name, answer) where s.name ~ '^late ' and s.answer = 'kept') then
        return next 'a worker that has lost its lease was answered kept';
    end if;
    for one in select s.name from unnest(names, answers) as s (name, answer) where s.name ~ '^cancel( r2)?$' and s.answer = 't' loop
        if not 'retry' = any (names)
           and not exists (select from durable_internal.run r where r.status = 'cancelled'
                              and r.id = interleave.id(case one.name when 'cancel' then 'r' else 'r2' end)) then
            return next format('%s was answered true, and the run is not cancelled', one.name);
        end if;
    end loop;
    if (select count(*) from unnest(names, answers) as s (name, answer) where s.name = 'increment')
       > coalesce((select s.value::int from durable_internal.state s where s.key = 'n'), 0) and not 'delete' = any (names) then
        return next 'increments do not add up';
    end if;
    if 'turn counts' = any (names) or names && '{commit counts ba,commit counts ab,commit counts abc,commit counts cba}' then
        if not answers <@ '{kept}' and names[1] <> names[2] then
            return next 'two that count have waited for each other';
        end if;
        if (select sum(s.value::int) from durable_internal.state s)
           <> (select sum(case when s.name like '%c%c%c%' then 3 else 2 end) from (select distinct unnest(names)) as s (name)) then
            return next 'increments of several runs do not add up';
        end if;
    end if;
    if 'held' = any (answers)  -- it asks again
       and exists (select from durable_internal.worker w where w.id = interleave.id('w1') and w.alive) then
        perform durable_internal.reconcile(interleave.id('w1'), interleave.number('w1')::int, '{}', '{}', '{}');
    end if;
    if 'reconcile' = any (names) and not answers && '{DJ005}' and not 'beat' = any (names)
       and exists (select from durable_internal.worker w join durable_internal.lease l on l.worker_id = w.id
                    where w.id = interleave.id('w1') and l.fence = interleave.number('r')) then
        return next 'a worker that said it has nothing in hand has a lease';
    end if;
    if exists (select from unnest(names, answers) as s (name, answer) where s.name = 'beat' and s.answer <> 'DJ005')
       and not names && '{leave,crashed}'
       and not exists (select from durable_internal.worker w where w.id = interleave.id('w1') and w.alive) then
        return next 'a worker that beat in time was declared dead';
    end if;
    if exists (select from unnest(names, answers) as s (name, answer) where s.name = 'wait again' and s.answer = 'kept')
       and exists (select from durable_internal.run r where r.error ->> 'name' = 'WaitTimeoutError') then
        return next 'a wait without a timeout has timed out';
    end if;
    if exists (select from unnest(names, answers) as s (name, answer) where s.name ~ '^(retry|reschedule.*)$' and s.answer = 't')
       and exists (select from durable_internal.run r where r.id = interleave.id('r') and r.error ->> 'name' = 'RunTimeoutError') then
        return next 'a run was let go on, and its old timeout has ended it';
    end if;
    if not 'retry' = any (names) and exists (select from unnest(names) as n where n ~ '^retry r2')
       and (select count(*) from durable_internal.run r where r.parent_run_id = interleave.id('r2')
              and coalesce(r.status, 'completed') = 'completed') > 1 then
        return next 'one child was begun twice';
    end if;
    if 'DJ006' = any (answers) and names <@ '{reschedule,reschedule now}'
       and exists (select from durable_internal.timer t where t.run_id = interleave.id('r') and t.kind in ('start', 'retry')) then
        return next 'a run was refused that is scheduled';
    end if;
    if 'DJ002' = any (answers) and not 'start key otherwise' = any (names) then
        return next 'a key was refused that nobody else has';
    end if;
    if (select count(distinct s.answer) from unnest(names, answers) as s (name, answer)
         where s.name = 'start key' and s.answer like '%-%') > 1 and not names && '{release,restart key,start key not}' then
        return next 'a key stands for two runs';
    end if;
end
$$;

-- How it ended: the sessions' answers, and what is there for each run. Two orders that differ in nothing that matters
-- have the same.
create function interleave.outcome(answers text[])
returns text
language plpgsql volatile
as $$
begin
    return array_to_string(array(select regexp_replace(a, '[0-9a-f]{8}-[0-9a-f-]{27}', 'id', 'g') from unnest(answers) as a), ' | ')
        || ' => ' || coalesce((
        select string_agg(concat_ws(' ', interleave.name_of(r.id), coalesce(r.status, p.place), p.attempt, r.error ->> 'name',
                   (select string_agg(s.position || s.name || coalesce('=' || (s.result ->> 'timedOut'), ''), ',' order by s.position)
                      from durable_internal.step s where s.run_id = r.id),
                   (select string_agg(a.attempt || a.outcome, ',' order by a.attempt) from durable_internal.attempt a
                     where a.run_id = r.id)),
                   '; ' order by interleave.name_of(r.id), r.seq)
          from durable_internal.run r left join durable_internal.place p on p.run_id = r.id), '')
        || coalesce((select ' {' || string_agg(s.key || '=' || s.value, ', ' order by s.key) || '}' from durable_internal.state s), '');
end
$$;

-- After a schedule: how it ended, if that is asked for, and then what is wrong. Leaves nothing as it was.
create function interleave.judge(names text[], answers text[], outcome boolean)
returns setof text
language plpgsql volatile
as $$
declare
    rested boolean := interleave.rest();
begin
    return next case when judge.outcome then interleave.outcome(answers) end;
    if not rested then
        return next 'the duties do not come to rest';
    end if;
    return query select interleave.broken();
    return query select interleave.broken_at_rest();
    return query select interleave.lied(names, answers);
    if not interleave.drive() then
        return next 'a run cannot go on: ' || (select string_agg(concat_ws(' ', interleave.name_of(r.id), p.place), ', ')
            from durable_internal.run r left join durable_internal.place p on p.run_id = r.id where r.status is null);
    end if;
end
$$;
