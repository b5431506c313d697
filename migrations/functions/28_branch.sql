-- Branches: several waits, sleeps and children of one run at once, as a handler's Promise.all or Promise.race asks for.
--
-- A run is in one place still: one row in `wait`, whose `others` has an entry for each event of each branch (name, kind, event,
-- key, due, onTimeout, position), and whose timer is the earliest of theirs. The first branch that is over is remembered under its
-- name, and the run goes on; its handler asks for the rest again. `branch` keeps what must not begin anew then: when a branch
-- is over its time, and the child that it has started. A row goes when its branch is over; but that of a child which has failed
-- stays for a retry, as that of a lone child does when its parent ends before it.

-- The place at the end of what a run remembers, for what is new under this name. Raises DJ004: there is none left.
create or replace function durable_internal.next_place(l durable_internal.lease, name text)
returns int
language plpgsql volatile
as $$
begin
    if l.remembered >= durable_internal.steps_max() then
        perform durable_internal.fail('DJ004', durable_internal.no_place_left(name, l.remembered + 1));
    end if;
    return l.remembered + 1;
end
$$;

-- What is said of a step that is one too many; worker/run.c says it of those of handlers in C.
create or replace function durable_internal.no_place_left(name text, place int)
returns text
language sql immutable
as $$
    select format('step %s is number %s; the limit is %s steps a run: let one step do more, or a run of its own do the rest',
                  name, place, durable_internal.steps_max());
$$;

-- The place in the order that a retry has forgotten, for what takes it again; null: there is none.
create or replace function durable_internal.forgotten_place(l durable_internal.lease, name text)
returns int
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    place int;
begin
    delete from durable_internal.step s
     where s.run_id = l.run_id and s.name = forgotten_place.name and s.by_name and s.forgotten
    returning s.position into place;
    return place;
end
$$;

-- The place in the order for what suspends: where it was before a retry forgot it, or the end. Raises DJ004.
create or replace function durable_internal.take_place(l durable_internal.lease, name text)
returns int
language plpgsql volatile
as $$
begin
    return coalesce(durable_internal.forgotten_place(l, take_place.name), durable_internal.next_place(l, take_place.name));
end
$$;

-- Suspends a run for one thing or for the first of several. `ops` were checked by apply_ops, whose caller deletes the lease.
-- What is over has to find a place, and who finds that there is none must be this run: promote_due and match_events put
-- the results of many runs in theirs by one statement. Locks: as start_run, where a child is started. Raises DJ001, DJ004.
create or replace function durable_internal.suspend(l durable_internal.lease, namespace_id int, ops jsonb)
returns void
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    entries jsonb := '[]'::jsonb;
    first jsonb;
    op jsonb;
begin
    if jsonb_array_length(ops) = 1 and ops -> 0 ->> 'op' <> 'child'
       and not exists (select from durable_internal.branch b where b.run_id = l.run_id) then
        perform durable_internal.suspend_for(l, ops -> 0);
        return;
    end if;
    for op in select o.value from jsonb_array_elements(ops) as o loop
        entries := entries || durable_internal.branch_entries(l, namespace_id, op);
    end loop;
    select e.value into first
      from jsonb_array_elements(entries) with ordinality as e (value, n)
     order by (e.value ? 'event') desc, e.n limit 1;
    perform durable_internal.begin_wait(l, jsonb_build_object('position', least(l.remembered + 1,
        durable_internal.steps_max()), 'name', first ->> 'name', 'event',
        coalesce(first ->> 'event', '$sleep'), 'key', first ->> 'key', 'others', entries,
        'due', (select min((e.value ->> 'due')::timestamptz) from jsonb_array_elements(entries) as e)));
end
$$;

drop function if exists durable_internal.suspend_for(durable_internal.lease, int, jsonb);  -- started children as well

-- … for one thing that is no child.
create or replace function durable_internal.suspend_for(l durable_internal.lease, op jsonb)
returns void
language plpgsql volatile
as $$
declare
    name text := op ->> 'name';
    place int := durable_internal.take_place(l, op ->> 'name');
    late jsonb := jsonb_build_object('timeoutMs', durable_internal.op_ms('timeout', op ->> 'timeout'), 'onTimeout',
                                     durable_internal.op_on_timeout(op));
begin
    case op ->> 'op'
    when 'wait_event' then
        perform durable_internal.begin_wait(l, late || jsonb_build_object('position', place, 'name', name,
            'event', op ->> 'event', 'key', op ->> 'correlationKey'));
    when 'wait_any' then
        perform durable_internal.begin_wait(l, late || durable_internal.any_of(op)
                                               || jsonb_build_object('position', place, 'name', name));
    when 'sleep' then
        perform durable_internal.begin_sleep(l, place, name, durable_internal.op_due(op));
    end case;
end
$$;

-- When a sleep is over, or a wait too late; null: never.
create or replace function durable_internal.op_due(op jsonb)
returns timestamptz
language plpgsql volatile
as $$
begin
    return case when op ->> 'until' is not null then durable_internal.op_time('until', op ->> 'until')
                when op ->> 'op' = 'sleep' then clock_timestamp() + durable_internal.duration('duration', op ->> 'duration')
                else clock_timestamp() + durable_internal.op_ms('timeout', op ->> 'timeout') * interval '1 ms' end;
end
$$;

-- The entries of one branch: one for each event that it is for, or one for a sleep. What it has begun before goes on.
-- Raises DJ001, DJ004.
create or replace function durable_internal.branch_entries(l durable_internal.lease, namespace_id int, op jsonb)
returns jsonb
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    b durable_internal.branch;
    events jsonb;
begin
    select b.* into b from durable_internal.branch b where b.run_id = l.run_id and b.name = op ->> 'name';
    if not found or b.kind <> op ->> 'op' then
        insert into durable_internal.branch as b (run_id, name, kind, due_at, child_id, position)
        values (l.run_id, op ->> 'name', op ->> 'op', durable_internal.op_due(op),
                case when op ->> 'op' = 'child' then durable_internal.start_child(l.run_id, namespace_id, op) end,
                durable_internal.forgotten_place(l, op ->> 'name'))
            on conflict (run_id, name) do update
               set kind = excluded.kind, due_at = excluded.due_at, child_id = excluded.child_id, position = excluded.position
        returning b.* into b;
    elsif b.kind = 'child' then  -- which a retry has kept: its error was remembered, and forgotten
        b.position := coalesce(durable_internal.forgotten_place(l, b.name), b.position);
        update durable_internal.branch t set position = b.position
         where t.run_id = b.run_id and t.name = b.name and t.position is distinct from b.position;
    end if;
    if b.position is null then  -- at the end, which may have moved since it began
        perform durable_internal.next_place(l, b.name);
    end if;
    events := case b.kind
        when 'sleep' then '[{}]'
        when 'child' then jsonb_build_array(jsonb_build_object('event', '$child', 'key', b.child_id))
        when 'wait_event' then jsonb_build_array(jsonb_build_object('event', op ->> 'event', 'key', op ->> 'correlationKey'))
        else (select jsonb_agg(jsonb_build_object('event', e.value ->> 'event', 'key', e.value ->> 'correlationKey'))
                from jsonb_array_elements(op -> 'events') as e) end;
    return (select jsonb_agg(jsonb_strip_nulls(e.value || jsonb_build_object('name', b.name, 'kind', b.kind, 'due', b.due_at,
                'position', b.position, 'onTimeout', case when b.kind = 'sleep' then 'sleep'
                                                          else durable_internal.op_on_timeout(op) end)))
              from jsonb_array_elements(events) as e);
end
$$;

-- A wait that was just deleted, as if it had been for the one of its branches that is over: by the event `chosen`, or (null)
-- because its time is. A wait without branches comes back as it is.
create or replace function durable_internal.branch_over(w durable_internal.wait, chosen bigint)
returns durable_internal.wait
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    entry jsonb;
    failed boolean := false;
begin
    if w.others is null or not w.others -> 0 ? 'name' then
        return w;
    end if;
    if chosen is null then
        select e.value into entry
          from jsonb_array_elements(w.others) with ordinality as e (value, n)
         where e.value ? 'due'
         order by (e.value ->> 'due')::timestamptz, e.n limit 1;
    else
        select e.value, e.value ->> 'kind' = 'child' and v.payload ->> 'status' <> 'completed' into entry, failed
          from durable_internal.event v, jsonb_array_elements(w.others) with ordinality as e (value, n)
         where v.seq = chosen and e.value ->> 'event' = v.name and coalesce(e.value ->> 'key', '') = v.correlation_key
         order by e.n limit 1;
    end if;
    delete from durable_internal.branch b where b.run_id = w.run_id and b.name = entry ->> 'name' and not failed;
    w.name := entry ->> 'name';
    w.event := coalesce(entry ->> 'event', '$sleep');
    w.on_timeout := entry ->> 'onTimeout';
    w.position := coalesce((entry ->> 'position')::int, w.position);
    w.others := case when entry ->> 'kind' = 'wait_any' then w.others end;
    return w;
end
$$;

-- A retry begins anew what was waited for, but for children that have not failed: a child that is alive is waited for, what one
-- has come to is taken. A handler in C remembers that it has started a child as a step of its own. It must not wait again for
-- one that has ended: the end comes once, and the run has had it.
create or replace function durable_internal.forget_branches(run_id uuid)
returns void
language plpgsql volatile
as $$
#variable_conflict use_column
begin
    delete from durable_internal.branch b
     where b.run_id = forget_branches.run_id
       and not exists (select from durable_internal.run c
                        where c.id = b.child_id and (c.status is null or c.status = 'completed'));
    delete from durable_internal.step s
     where s.run_id = forget_branches.run_id and s.kind = 'step_tx' and s.name like 'start:%'
       and (select c.status in ('failed', 'cancelled')  -- no exists, which would be joined: by the run's id, each
              from durable_internal.run c
             where c.id = case when s.result #>> '{}' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                               then (s.result #>> '{}')::uuid end  -- a handler's own steps may have such names
               and c.parent_run_id = s.run_id);
end
$$;
