-- Ops: what handlers that are called over HTTP have come to. docs/protocol.md says what each is.

-- Tells the parents of runs that have just ended. A parent waits for an event of a name that nobody else can send, with
-- the child's id as its key: so what is true of events and waits is true of children and parents.
create or replace function durable_internal.tell_parent(children uuid[])
returns void
language plpgsql volatile
as $$
begin
    perform pg_current_xact_id();
    with event as (
        insert into durable_internal.event (seq, id, namespace_id, sent_at, name, correlation_key, payload)
        select nextval('durable_internal.order_seq'), durable_internal.uuid_v7(), r.namespace_id, clock_timestamp(),
               '$child', r.id::text,
               jsonb_build_object('status', r.status, 'result', r.result, 'error', r.error)
          from durable_internal.run r
         where r.id = any (children)
        returning seq
    )
    insert into durable_internal.event_inbox (seq, event_seq) select e.seq, e.seq from event e;
    perform durable_internal.wake_matcher();
end
$$;

-- A remembered op: the next position of the run, or the one that a retry has forgotten. False: the name is there already, from a
-- request whose answer was lost. So is the last place that a run has, if its name is said again: the limit is for what is new.
-- Raises DJ004.
create or replace function durable_internal.remember(inout l durable_internal.lease, name text, kind text, result jsonb,
                                                     error jsonb, began timestamptz, out fresh boolean)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    place int;
begin
    if l.remembered >= durable_internal.steps_max()
       and not exists (select from durable_internal.step s
                        where s.run_id = l.run_id and s.name = remember.name and s.by_name) then
        perform durable_internal.next_place(l, name);
    end if;
    insert into durable_internal.step as s (run_id, position, attempt, fence, worker_id, started_at, committed_at, name,
                                            kind, result, error, by_name)
    values (l.run_id, least(l.remembered + 1, durable_internal.steps_max()),  -- a check is made before a conflict is seen
            l.attempt, l.fence, l.worker_id, least(remember.began, clock_timestamp()),
            clock_timestamp(), remember.name, remember.kind, remember.result, remember.error, true)
        on conflict (run_id, name) where by_name do update
           set attempt = excluded.attempt, fence = excluded.fence, worker_id = excluded.worker_id,
               started_at = excluded.started_at, committed_at = excluded.committed_at, kind = excluded.kind,
               result = excluded.result, error = excluded.error, forgotten = false
         where s.forgotten
    returning s.position into place;
    fresh := found;
    if fresh then
        l.remembered := greatest(l.remembered, place);
        l.bytes := l.bytes + durable_internal.history_bytes(remember.result, remember.error);
        if l.bytes > durable_internal.history_bytes_max() then
            perform durable_internal.fail('DJ004', durable_internal.history_full(name));
        end if;
    end if;
end
$$;

-- The twins of STEPS_MAX and HISTORY_BYTES_MAX in common/bounds.h.
create or replace function durable_internal.steps_max() returns int language sql immutable as $$ select 10000 $$;
-- … in bytes.
create or replace function durable_internal.history_bytes_max()
returns int language sql immutable as $$ select 64 * 1024 * 1024 $$;

-- What a step adds to its run's history: the bytes of its text, for as such a claim hands it over. What lies in a table is
-- compressed, and a number may be short to keep and long to print.
create or replace function durable_internal.history_bytes(result jsonb, error jsonb)
returns int
language sql immutable
as $$
    select coalesce(octet_length(history_bytes.result::text), 0) + coalesce(octet_length(history_bytes.error::text), 0);
$$;

-- What is said of a step that the history has no room for.
create or replace function durable_internal.history_full(name text)
returns text
language sql immutable
as $$
    select format('step %s makes the run''s history larger than %s bytes: keep what is large elsewhere, and remember where',
                  name, durable_internal.history_bytes_max());
$$;

-- What an op that was said again gave the first time.
create or replace function durable_internal.remembered_result(run_id uuid, name text)
returns jsonb
language plpgsql stable
as $$
begin
    return (select case when s.kind = 'step' then '{}' when s.error is not null then jsonb_build_object('error', s.error)
                        else jsonb_build_object('result', s.result) end
              from durable_internal.step s
             where s.run_id = remembered_result.run_id and s.name = remembered_result.name and s.by_name
               and not s.forgotten);
end
$$;

-- Does a list of ops for a run, in their order. `l` is its lease, whose row the caller holds; what the ops change of it is
-- handed back, and `suspended` says that one of them has put the run elsewhere: then the caller deletes the row, else
-- it updates it. Answers a result for each op.
--
-- Guarantees 3 and 11: all of it is one transaction under the lease, and what is remembered has its name once in a run.
-- An op that was committed by a request whose answer was lost gives its result again and does nothing else.
-- Called by commit_item and apply_answer. Locks: the run's own rows, then those of state, keys, events.
-- Raises DJ001, DJ004: nothing of the list was done.
create or replace function durable_internal.apply_ops(inout l durable_internal.lease, namespace_id int, ops jsonb,
                                                      out results jsonb, out suspended boolean)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    op jsonb;
    name text;
    done record;
    answer jsonb;
    failure jsonb;
    suspending jsonb := '[]'::jsonb;
    instant timestamptz := clock_timestamp();
begin
    results := '[]';
    suspended := false;
    if jsonb_typeof(ops) is distinct from 'array' then
        perform durable_internal.fail('DJ001', 'ops is not a list; a list of objects is allowed');
    end if;
    for op in select o.value from jsonb_array_elements(ops) as o loop
        if suspended and (suspending = '[]' or op ->> 'op' not in ('wait_event', 'wait_any', 'sleep', 'child')) then
            perform durable_internal.fail('DJ001', format('op %s comes after one that suspends the run',
                                                          coalesce(op ->> 'op', 'null')));
        end if;
        name := op ->> 'name';
        answer := '{}';
        if op ->> 'op' in ('step', 'state', 'send_event', 'wait_event', 'wait_any', 'sleep', 'child', 'step_retry') then
            perform durable_internal.check_name('name', regexp_replace(name, '#[0-9]{1,5}$', ''));  -- name#2, name#3 …
        end if;
        case op ->> 'op'
        when 'step' then
            if op ? 'result' then
                perform durable_internal.check_json(format('the result of step %s', name), op -> 'result',
                                                    durable_internal.payload_bytes_max());
            end if;
            failure := durable_internal.op_error(op);
            select r.* into done from durable_internal.remember(l, name, 'step',
                case when failure is null then coalesce(op -> 'result', 'null') end, failure,
                durable_internal.json_instant('startedAt', op -> 'startedAt')) as r;
            l := done.l;
        when 'state' then
            answer := durable_internal.remembered_result(l.run_id, name);
            if answer is null then
                failure := null;
                begin
                    answer := durable_internal.state_op(namespace_id, l.run_id, op ->> 'action', op ->> 'key', op);
                exception when sqlstate 'DJ001' or sqlstate 'DJ004' or sqlstate 'DJ006' then
                    answer := null;
                    failure := jsonb_build_object('name', 'StackShiftError', 'code',
                        case sqlstate when 'DJ001' then 'invalid_argument' when 'DJ004' then 'payload_too_large'
                                      else 'conflict' end, 'message', sqlerrm);
                end;
                select r.* into done from durable_internal.remember(l, name, 'state',
                    case when failure is null then coalesce(answer, 'null') end, failure, instant) as r;
                l := done.l;
                answer := case when failure is null then jsonb_build_object('result', answer)
                               else jsonb_build_object('error', failure) end;
            end if;
        when 'send_event' then
            answer := durable_internal.remembered_result(l.run_id, name);
            if answer is null then
                answer := jsonb_build_object('id', (durable_internal.send_event(namespace_id, op ->> 'event',
                    coalesce(op -> 'payload', '{}'), op ->> 'correlationKey', op ->> 'idempotencyKey')).event_id);
                select r.* into done from durable_internal.remember(l, name, 'send_event', answer, null, instant) as r;
                l := done.l;
                answer := jsonb_build_object('result', answer);
            end if;
        when 'wait_event', 'wait_any', 'sleep', 'child' then
            if op ->> 'op' = 'wait_event' then
                perform durable_internal.check_name('event', op ->> 'event');
                perform durable_internal.check_key('correlationKey', op ->> 'correlationKey');
            elsif op ->> 'op' = 'wait_any' then
                perform durable_internal.any_of(op);
            end if;
            suspending := suspending || op;
            suspended := true;
        when 'step_retry' then
            perform durable_internal.check_backoff('backoff', nullif(op -> 'backoff', 'null'));
            perform durable_internal.begin_step_retry(l, op || jsonb_build_object('error',
                coalesce(durable_internal.op_error(op), '{"message": "failed"}'),
                'backoff', coalesce(nullif(op -> 'backoff', 'null'), '{}'),
                'retryAfterMs', durable_internal.op_ms('retryAfter', op ->> 'retryAfter'),
                'tries', coalesce(durable_internal.op_int('tries', op -> 'tries', 1, 1000000), 1)));
            suspended := true;
        when 'park' then
            perform durable_internal.begin_park(l, jsonb_build_object('step', left(name, 210),
                'expected', left(op ->> 'expected', 500), 'found', left(op ->> 'found', 500)));
            suspended := true;
        when 'log' then
            if op ? 'fields' then
                perform durable_internal.check_json('fields of a log op', op -> 'fields',
                                                    durable_internal.payload_bytes_max());
            end if;
            insert into durable_internal.log (run_id, attempt, at, level, message, fields)
            values (l.run_id, l.attempt, instant,
                    case when op ->> 'level' in ('debug', 'info', 'warning', 'error') then op ->> 'level' else 'info' end,
                    left(coalesce(op ->> 'message', ''), 8192), op -> 'fields');
        when 'progress' then
            if op ? 'value' then
                perform durable_internal.check_json('value of a progress op', op -> 'value',
                                                    durable_internal.payload_bytes_max());
            end if;
            insert into durable_internal.log (run_id, attempt, at, level, message, fields)
            values (l.run_id, l.attempt, instant, 'progress', left(coalesce(op ->> 'value', ''), 500), op -> 'value');
        else
            perform durable_internal.fail('DJ001', format('op %s is not known; docs/protocol.md lists those that are',
                                                          coalesce(quote_literal(left(op ->> 'op', 60)), 'null')));
        end case;
        results := results || jsonb_build_array(answer);
    end loop;
    if suspending <> '[]' then
        if jsonb_array_length(suspending) > durable_internal.branches_max() then
            perform durable_internal.fail('DJ001', format('%s ops suspend the run at once; the limit is %s',
                jsonb_array_length(suspending), durable_internal.branches_max()));
        end if;
        perform durable_internal.suspend(l, namespace_id, suspending);
    end if;
end
$$;

-- Waits, sleeps and children that a run may wait for at once.
create or replace function durable_internal.branches_max() returns int language sql immutable as $$ select 500 $$;

-- The parts of ops, checked.
create or replace function durable_internal.op_error(op jsonb)
returns jsonb
language plpgsql immutable
as $$
begin
    if not op ? 'error' or op -> 'error' = 'null' then
        return null;
    end if;
    return jsonb_strip_nulls(jsonb_build_object(
        'name', left(coalesce(op #>> '{error,name}', 'Error'), 200),
        'message', left(coalesce(op #>> '{error,message}', op ->> 'error'), 8192),
        'stack', left(op #>> '{error,stack}', 16384), 'step', left(op #>> '{error,step}', 200),
        'retryable', case when jsonb_typeof(op #> '{error,retryable}') = 'boolean' then op #> '{error,retryable}' end));
end
$$;

-- Null where there is none.
create or replace function durable_internal.op_duration(argument text, value text)
returns interval
language plpgsql immutable
as $$
begin
    return case when value is not null then durable_internal.duration(argument, value) end;
end
$$;

create or replace function durable_internal.op_ms(argument text, value text)
returns bigint
language plpgsql immutable
as $$
begin
    return (extract(epoch from durable_internal.op_duration(argument, value)) * 1000)::bigint;
end
$$;

-- A time up to ten years ahead. What only PostgreSQL takes for one (`tomorrow`, `-infinity`) is none.
create or replace function durable_internal.op_time(argument text, value text)
returns timestamptz
language plpgsql stable
as $$
declare
    instant timestamptz := durable_internal.json_instant(argument, to_jsonb(value));
begin
    perform durable_internal.check_time(argument, instant);
    return instant;
end
$$;

create or replace function durable_internal.op_int(argument text, value jsonb, low int, high int)
returns int
language plpgsql immutable
as $$
declare
    number bigint := durable_internal.json_integer(argument, value);
begin
    perform durable_internal.check_count(argument, number, low, high);
    return number::int;
end
$$;

-- The events of a wait_any, as begin_wait takes them: the first, and the others.
create or replace function durable_internal.any_of(op jsonb)
returns jsonb
language plpgsql immutable
as $$
declare
    one jsonb;
begin
    if jsonb_typeof(op -> 'events') is distinct from 'array' or jsonb_array_length(op -> 'events') not between 1 and 100 then
        perform durable_internal.fail('DJ001', 'events is not a list of 1 to 100 objects with event and correlationKey');
    end if;
    for one in select e.value from jsonb_array_elements(op -> 'events') as e loop
        perform durable_internal.check_name('events[].event', one ->> 'event');
        perform durable_internal.check_key('events[].correlationKey', one ->> 'correlationKey');
    end loop;
    return jsonb_build_object('event', op #>> '{events,0,event}', 'key', op #>> '{events,0,correlationKey}', 'others',
        (select coalesce(jsonb_agg(jsonb_build_object('event', e.value ->> 'event', 'key', e.value ->> 'correlationKey')
                                   order by e.n), '[]')
           from jsonb_array_elements(op -> 'events') with ordinality as e (value, n) where e.n > 1));
end
$$;

create or replace function durable_internal.op_on_timeout(op jsonb)
returns text
language plpgsql immutable
as $$
begin
    if coalesce(op ->> 'onTimeout', 'fail') not in ('fail', 'continue', 'cancel') then
        perform durable_internal.fail('DJ001', format('onTimeout %s is not known; fail, continue or cancel is allowed',
                                                      quote_literal(left(op ->> 'onTimeout', 60))));
    end if;
    return coalesce(op ->> 'onTimeout', 'fail');
end
$$;

-- Starts a child of a run. `op` has its job, payload, and options as POST /v1/runs has them. Guarantee 11: it is of the
-- transaction that holds the parent's lease, so a cancel of the parent is before it, and it does not happen, or after it, and
-- finds the child.
create or replace function durable_internal.start_child(parent uuid, namespace_id int, op jsonb)
returns uuid
language plpgsql volatile
as $$
declare
    o jsonb := coalesce(op -> 'options', '{}');
    child uuid;
begin
    child := (durable_internal.start_run(start_child.namespace_id, op ->> 'job', coalesce(op -> 'payload', '{}'),
        coalesce(o ->> 'queueName', 'default'), null, null,
        durable_internal.op_int('options.maxAttempts', o -> 'maxAttempts', 1, 1000000),
        durable_internal.op_time('scheduledAt', o ->> 'scheduledAt'),
        coalesce(durable_internal.op_int('options.priority', o -> 'priority', -32768, 32767), 0),
        o ->> 'concurrencyKey', durable_internal.op_duration('timeout', o ->> 'timeout'), coalesce(o -> 'tags', '{}'),
        jsonb_strip_nulls(jsonb_build_object('backoff', o -> 'backoff')))).run_id;
    update durable_internal.run r set parent_run_id = start_child.parent where r.id = child;
    return child;
end
$$;

-- The common case of commit_ops, in sets: new steps of runs that have their leases, and nothing else. Answers which items it
-- has done (numbers, and how many steps each); the others are left to the slower way, which also knows what is wrong
-- with them. A step of a name that is there already (a request that was said again), or that began at no time, leaves all of
-- them to it, and so is a run that is twice in the list. It is not looked for before: the unique index says so, whatever the planner believes.
-- Locks: as commit_ops.
create or replace function durable_internal.commit_steps(runs uuid[], fences bigint[], workers uuid[], ops jsonb[],
                                                         out done int[], out steps int[])
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    plain int[];
    instant timestamptz := clock_timestamp();
begin
    select array_agg(i.n::int) into plain
      from (select i.n, i.run_id, i.ops, count(*) over (partition by i.run_id) as times
              from unnest(commit_steps.runs, commit_steps.ops) with ordinality as i (run_id, ops, n)) as i
     where i.times = 1 and i.ops <> '[]'
       and (select bool_and(durable_internal.is_plain_step(o.value)) from jsonb_array_elements(
                case when jsonb_typeof(i.ops) = 'array' then i.ops end) as o);
    if plain is null then
        return;
    end if;
    with held as materialized (
        select i.n, i.ops, jsonb_array_length(i.ops) as many, i.bytes, l.*
          from unnest(plain) as p (n)
         cross join lateral (select p.n, commit_steps.runs[p.n] as run_id, commit_steps.fences[p.n] as fence,
                                    commit_steps.workers[p.n] as worker_id, commit_steps.ops[p.n] as ops,
                                    case when commit_steps.ops[p.n] -> 1 is null
                                         then durable_internal.history_bytes(commit_steps.ops[p.n] #> '{0,result}',
                                                                             commit_steps.ops[p.n] #> '{0,error}')
                                         else (select sum(durable_internal.history_bytes(o.value -> 'result', o.value -> 'error'))
                                                 from jsonb_array_elements(commit_steps.ops[p.n]) as o) end as bytes) as i
         cross join lateral (select l.run_id, l.fence, l.worker_id, l.attempt, l.remembered
                               from durable_internal.lease l
                              where l.run_id = i.run_id and l.fence = i.fence and l.worker_id = i.worker_id
                                and l.remembered + jsonb_array_length(i.ops) <= durable_internal.steps_max()
                                and l.bytes + i.bytes <= durable_internal.history_bytes_max()
                                for update skip locked) as l
    ), inserted as (
        insert into durable_internal.step (run_id, position, attempt, fence, worker_id, started_at, committed_at, name,
                                           kind, result, error, by_name)
        select h.run_id, h.remembered + o.k, h.attempt, h.fence, h.worker_id,
               least((o.op ->> 'startedAt')::timestamptz, instant), instant, o.op ->> 'name', 'step',
               case when o.op -> 'error' <> 'null' then null else coalesce(o.op -> 'result', 'null') end,
               durable_internal.op_error(o.op), true
          from held h
         cross join lateral jsonb_array_elements(h.ops) with ordinality as o (op, k)
    ), moved as (
        update durable_internal.lease t
           set remembered = t.remembered + h.many, bytes = t.bytes + h.bytes
          from held h
         where t.run_id = any (array[h.run_id])
    )
    select array_agg(h.n), array_agg(h.many) into done, steps from held h;
exception when unique_violation or data_exception then
    done := null;
    steps := null;
end
$$;

-- Commits ops of many runs while their handlers run: durable-server's half of commit.url. Each run's token said its id, its
-- fence and its worker; what is checked and locked is the lease row, as in commit(). Answers in no particular order, `n` says
-- which item: {"results", "cancelled", "leaseUntil"}, or a code: lease_lost; busy (somebody's open transaction holds the
-- lease: say it again); or why this item's ops are refused, which the others know nothing of. An empty list is a heartbeat.
--
-- A step of one run is what a handler that nobody else runs beside waits for: it goes by four small statements, in half the
-- time of the sets below. A name that is there already (a request that was said again, a step that a retry has forgotten) is
-- for the slower way.
-- Planned by indexes here, since durable-server's sessions are not: they also list.
-- Locks: lease rows, waiting for none; then what ops of the slower way change, waiting a moment: see commit_each.
create or replace function durable_internal.commit_ops(runs uuid[], fences bigint[], workers uuid[], ops jsonb[])
returns table (n int, answer jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    op jsonb := ops[1] -> 0;
    instant timestamptz := clock_timestamp();
    more int;
    began timestamptz;
    l record;
begin
    if cardinality(runs) = 1 and ops[1] -> 1 is null and durable_internal.is_plain_step(op) then
        more := durable_internal.history_bytes(op -> 'result', op -> 'error');
        begin
            began := least((op ->> 'startedAt')::timestamptz, instant);
        exception when data_exception then
            null;  -- no calendar has it: the slower way says so
        end;
        select l.attempt, l.remembered, l.bytes + more as bytes, w.beat_at + w.ttl as until into l
          from durable_internal.lease l
          join durable_internal.worker w on w.id = l.worker_id
         where l.run_id = runs[1] and l.fence = fences[1] and l.worker_id = workers[1]
           and l.remembered < durable_internal.steps_max() and began is not null
           and l.bytes + more <= durable_internal.history_bytes_max()
           for update of l skip locked;
        if found then
            insert into durable_internal.step (run_id, position, attempt, fence, worker_id, started_at, committed_at, name,
                                               kind, result, error, by_name)
            values (runs[1], l.remembered + 1, l.attempt, fences[1], workers[1],
                    began, instant, op ->> 'name', 'step',
                    case when op -> 'error' <> 'null' then null else coalesce(op -> 'result', 'null') end,
                    case when op ? 'error' then durable_internal.op_error(op) end, true)
                on conflict (run_id, name) where by_name do nothing;
        end if;
        if found then
            update durable_internal.lease t set remembered = l.remembered + 1, bytes = l.bytes where t.run_id = runs[1];
            n := 1;
            answer := jsonb_build_object('results', '[{}]'::jsonb, 'cancelled', false,
                                         'leaseUntil', durable_internal.json_time(l.until));
            return next;
            return;
        end if;
    end if;
    return query select t.n, t.answer from durable_internal.commit_together(runs, fences, workers, ops) as t;
end
$$;

-- A finished step that is small, named as it should be, and began at what looks like a time in UTC, as SDKs say it (any other is
-- for json_instant): the quick ways take it as it is. Its numbers and its depth
-- were checked by durable-server, by the rules of check_json. Stable, as pg_column_size is: else it is not inlined, and costs 45 us.
create or replace function durable_internal.is_plain_step(op jsonb)
returns boolean
language sql stable
as $$
    select op ->> 'op' = 'step' and pg_column_size(op) <= 14000
       and op ->> 'name' ~ '^[A-Za-z0-9_.:/@-]+(#[0-9]{1,5})?$' and length(op ->> 'name') <= 200
       and coalesce(op ->> 'startedAt' like '2___-__-__T__:__:__%Z', true);
$$;

-- commit_ops of many items, or of what is no plain step.
create or replace function durable_internal.commit_together(runs uuid[], fences bigint[], workers uuid[], ops jsonb[])
returns table (n int, answer jsonb)
language plpgsql volatile
set jit = off set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    quick record;
begin
    select q.* into quick from durable_internal.commit_steps(runs, fences, workers, ops) as q;
    return query
    select d.n, jsonb_build_object('results', ('[{}' || repeat(', {}', d.many - 1) || ']')::jsonb, 'cancelled', false,
                                   'leaseUntil', durable_internal.lease_until(workers[d.n]))
      from unnest(quick.done, quick.steps) as d (n, many);
    if cardinality(quick.done) = cardinality(runs) then
        return;
    end if;
    -- FAILPOINT ops.slow
    return query
    select e.n, e.answer from durable_internal.commit_each(runs, fences, workers, ops, coalesce(quick.done, '{}')) as e;
end
$$;

-- The slower way of commit_together, for all that the quick one has not `done`: one after the other, each refused or kept by itself.
--
-- Nobody's open transaction keeps the others. What it may hold is a row of state, a lock, the key of an event. Such a row is
-- waited for a tenth of a second, for another commit's will be free by then; the item is busy then, alone, and in this call
-- whoever else finds one held is at once. What ends a run waits for nothing.
-- Locks: the lease rows, waiting for none. Rows of state, and then of locks, each by (namespace_id, key), so that two calls
-- whose runs count in the same keys do not wait for one another: items go in the order of what they change; see also hold_state.
create or replace function durable_internal.commit_each(runs uuid[], fences bigint[], workers uuid[], ops jsonb[], done int[])
returns table (n int, answer jsonb)
language plpgsql volatile
set lock_timeout = '100ms'
as $$
#variable_conflict use_column
declare
    item record;
begin
    perform durable_internal.hold_state(runs, ops);
    for item in
        select i.n::int, i.run_id, i.fence, i.worker_id, i.ops
          from unnest(runs, fences, workers, ops) with ordinality as i (run_id, fence, worker_id, ops, n)
          left join lateral (select s.of_lock, s.key from durable_internal.state_changes(i.ops) as s
                              order by s.of_lock, s.key collate "C" limit 1) as c on true
         where i.n <> all (commit_each.done)
         order by c.of_lock nulls first, case when c.of_lock is not null then durable_internal.tenant_of(i.run_id) end,
                  c.key collate "C", i.run_id, i.n
    loop
        n := item.n;
        answer := durable_internal.commit_item(item.run_id, item.fence, item.worker_id, item.ops);
        return next;
    end loop;
end
$$;

-- Until when the leases of a worker last, unless it beats again.
create or replace function durable_internal.lease_until(worker_id uuid)
returns text
language plpgsql stable
as $$
begin
    return (select durable_internal.json_time(w.beat_at + w.ttl)
              from durable_internal.worker w where w.id = lease_until.worker_id);
end
$$;

-- One item of commit_ops. What it asks for is done whole or not at all. What is over a limit fails its run, in plain words,
-- for the next try would bring as much; what is not allowed is for the SDK to answer; what cannot be had just now is busy.
create or replace function durable_internal.commit_item(run_id uuid, fence bigint, worker_id uuid, ops jsonb)
returns jsonb
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    l durable_internal.lease;
    done record;
begin
    select l.* into l
      from durable_internal.lease l
     where l.run_id = commit_item.run_id and l.fence = commit_item.fence and l.worker_id = commit_item.worker_id
       for update skip locked;
    if not found then
        perform from durable_internal.lease t
          where t.run_id = commit_item.run_id and t.fence = commit_item.fence and t.worker_id = commit_item.worker_id;
        return case when found then '{"code": "busy"}'::jsonb
                    when exists (select from durable_internal.run r
                                  where r.id = commit_item.run_id and r.status = 'cancelled')
                    then '{"results": [], "cancelled": true}'
                    else '{"code": "lease_lost"}' end;
    end if;
    -- FAILPOINT ops.locked
    if ops = '[]' then
        return jsonb_build_object('results', ops, 'cancelled', false,
                                  'leaseUntil', durable_internal.lease_until(commit_item.worker_id));
    end if;
    begin
        select a.* into done
          from durable_internal.apply_ops(l,
                   (select r.namespace_id from durable_internal.lane r where r.id = l.lane_id), commit_item.ops) as a;
    exception
        when sqlstate 'DJ001' or data_exception then
            return jsonb_build_object('code', 'invalid_argument', 'message', sqlerrm);
        when sqlstate 'DJ004' or program_limit_exceeded then
            delete from durable_internal.lease t where t.run_id = l.run_id;
            perform durable_internal.fail_attempt(l, 'failed', jsonb_build_object('name', 'ResultRefused', 'message',
                sqlerrm, 'retryable', false), null, permanent => true);
            return jsonb_build_object('code', 'payload_too_large', 'message', sqlerrm);
        when lock_not_available or deadlock_detected then
            perform durable_internal.be_impatient();
            return '{"code": "busy"}'::jsonb;
    end;
    if done.suspended then
        delete from durable_internal.lease t where t.run_id = l.run_id;
    else
        update durable_internal.lease t set remembered = (done.l).remembered, bytes = (done.l).bytes
         where t.run_id = l.run_id;
    end if;
    return jsonb_build_object('results', done.results, 'cancelled', false,
                              'leaseUntil', durable_internal.lease_until(commit_item.worker_id));
end
$$;

-- What an answer of a handler comes to, at the end of its call. Called by commit_answers, which deletes the lease row.
create or replace function durable_internal.apply_answer(l durable_internal.lease, detail jsonb)
returns void
language plpgsql volatile
as $$
declare
    done record;
    held durable_internal.lease;
begin
    select a.* into done
      from durable_internal.apply_ops(apply_answer.l,
               (select r.namespace_id from durable_internal.lane r where r.id = apply_answer.l.lane_id),
               coalesce(detail -> 'ops', '[]')) as a;
    if done.suspended then
        return;
    end if;
    held := done.l;
    case detail ->> 'status'
    when 'completed' then
        perform durable_internal.check_json('the result', coalesce(detail -> 'result', 'null'),
                                            durable_internal.payload_bytes_max());
        perform durable_internal.end_run(held, 'completed', null, result => coalesce(detail -> 'result', 'null'));
    when 'continue' then
        perform durable_internal.make_ready(held, resumed => true);
    when 'failed' then
        perform durable_internal.fail_attempt(held, 'failed', coalesce(durable_internal.op_error(detail),
            '{"name": "Error", "message": "the handler said failed, and not why"}'),
            durable_internal.op_duration('error.retryAfter', detail #>> '{error,retryAfter}'),
            permanent => coalesce(detail #>> '{error,retryable}', 'true') = 'false');
    else
        perform durable_internal.fail_attempt(held, 'failed', jsonb_build_object('name', 'ProtocolError', 'message',
            'the handler answered suspended, and none of its ops suspends the run'), null, permanent => false);
    end case;
end
$$;

-- What tokens of commits are signed with, for our own programs.
create or replace function durable_internal.commit_secret()
returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select encode(c.secret, 'hex') from durable_internal.commit_secret c;
$$;

-- Another secret: tokens that were made before are none of ours any more, as soon as the servers have heard of it. Workers make
-- new ones for the calls that come. For owners, where the secret has leaked.
create or replace function durable_internal.rotate_commit_secret()
returns void
language plpgsql volatile
as $$
begin
    update durable_internal.commit_secret
       set secret = uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
    perform pg_notify('durable_keys', '');
    perform durable_internal.endpoints_changed();
end
$$;

-- What a handler in C does beside its steps: state, an event, the start of a child. In the transaction of a dj_step_tx, so it
-- happens exactly once with the step that remembers it. A child is found by a cancel of its parent, which waits for the
-- parent's lease row: commit_step_tx holds that after this, or refuses. Answers the op's result.
-- Called by worker/op.c. Raises DJ001, DJ004, DJ006.
create or replace function durable_internal.run_op(run_id uuid, op jsonb)
returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    tenant int;
    child uuid;
begin
    select r.namespace_id into tenant from durable_internal.run r where r.id = run_op.run_id;
    case op ->> 'op'
    when 'state' then
        return durable_internal.state_op(tenant, run_op.run_id, op ->> 'action', op ->> 'key', op);
    when 'send_event' then
        return to_jsonb((durable_internal.send_event(tenant, op ->> 'event', coalesce(op -> 'payload', '{}'),
                                                     op ->> 'correlationKey', op ->> 'idempotencyKey')).event_id);
    when 'child' then
        -- Changed, and not only locked: a cancel in a REPEATABLE READ transaction that does not see the child gets 40001.
        update durable_internal.lease l set bytes = l.bytes where l.run_id = run_op.run_id;
        child := durable_internal.start_child(run_op.run_id, tenant, op);
        return to_jsonb(child);
    else
        perform durable_internal.fail('DJ001', format('op %s is not known; state, send_event or child is allowed',
                                                      coalesce(quote_literal(left(op ->> 'op', 60)), 'null')));
    end case;
end
$$;
