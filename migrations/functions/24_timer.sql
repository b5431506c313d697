-- Timers: what is due is put where it goes on. Called by the scheduler, any number of them at once.

-- Promotes up to `most` timers of each sort that are due. Answers how many it promoted, and in how many milliseconds
-- the next is due (null: none). The scan begins `back_s` seconds ago, because a held snapshot lets dead
-- rows pile up before that; now and then (-1) from the very beginning. Whoever writes a timer whose time has passed writes
-- it as due now, so that it lies in the scan; what was committed late, or not come to, the other one finds.
--
-- Safe with several schedulers: a timer that holds its run is deleted by one of them, passing over what others
-- hold. A timer that belongs to a wait or to the whole run takes effect by deleting that row first, as
-- every other way out of there does; who deletes it has won, and the timer goes after it. The list of those is as old as
-- the statement that began it, and a run's own time moves: with a reschedule, or a retry after its end. So that one is looked
-- at again once is_free holds the run's place, which a reschedule takes before the timer, and a retry commits together with it.
-- What no step can be made of is left out of the sets: it is its run that fails, and all others go on.
-- Locks: timer or wait rows, then runs.
create or replace function durable_internal.promote_due(most int, back_s int, out promoted int,
                                                        out due_in_ms bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    due durable_internal.timer[];
    now_at timestamptz := clock_timestamp();  -- not called in a condition: a volatile value is none of an index
    begin_at timestamptz := case when back_s < 0 then '-infinity' else now_at - back_s * interval '1 second' end;
    one record;
    odd durable_internal.timer;
begin
    promoted := 0;
    with next as materialized (
        select t.ctid from durable_internal.timer t
         where t.due_at > begin_at and t.due_at <= now_at
           and t.kind in ('start', 'retry', 'step_retry', 'sleep')
         order by t.due_at
         limit promote_due.most
           for update skip locked
    ), gone as (
        delete from durable_internal.timer where ctid = any (array(select n.ctid from next n))
        returning timer.*
    )
    select array_agg(g::durable_internal.timer order by g.due_at) into due from gone g;
    if due is not null then
        perform pg_current_xact_id();
        promoted := cardinality(due);
        for odd in select t.* from unnest(due) as t where t.kind = 'sleep' and t.position > durable_internal.steps_max() loop
            perform durable_internal.end_run(durable_internal.carried_by(odd), 'failed',
                durable_internal.too_many_steps(odd.name, odd.position), dead_letter => true);
            due := array(select t from unnest(due) as t where t.run_id <> odd.run_id);
        end loop;
        insert into durable_internal.step (run_id, position, attempt, fence, worker_id, started_at,
                                           committed_at, name, kind)
        select t.run_id, t.position, t.attempt, t.fence, t.worker_id, t.since, clock_timestamp(), t.name,
               'sleep'
          from unnest(due) as t
         where t.kind = 'sleep'
            on conflict (run_id, position) do nothing;  -- one run's odd row must not keep the others
        insert into durable_internal.ready (run_id, seq, fence, started_at, attempt_started_at, worker_id,
                                            lane_id, attempt, remembered, bytes, crashes, resumed, deadline)
        select t.run_id, nextval('durable_internal.order_seq'), t.fence, t.started_at, t.attempt_started_at,
               t.worker_id, t.lane_id, t.attempt, greatest(t.remembered, case when t.kind = 'sleep' then t.position end), t.bytes,
               t.crashes, t.kind in ('step_retry', 'sleep'), t.deadline
          from unnest(due) as t;
        perform durable_internal.wake_workers();
    end if;

    for one in
        select t.run_id, t.kind, t.wait_id
          from durable_internal.timer t
         where t.due_at > begin_at and t.due_at <= now_at
           and t.kind in ('wait_timeout', 'run_timeout')
         order by t.due_at
         limit promote_due.most
    loop
        -- FAILPOINT promote.seen
        continue when not durable_internal.is_free(one.run_id);  -- tried again later
        -- FAILPOINT promote.free
        if one.kind = 'wait_timeout' then
            continue when not durable_internal.are_children_free(one.wait_id);
            perform durable_internal.time_out_wait(one.wait_id);
        else
            perform from durable_internal.timer t
              where t.run_id = one.run_id and t.kind = 'run_timeout' and t.due_at <= now_at;
            continue when not found;
            perform durable_internal.time_out_run(one.run_id);
        end if;
        delete from durable_internal.timer t
         where t.run_id = one.run_id and t.kind = one.kind and t.wait_id is not distinct from one.wait_id
           and t.due_at <= now_at;
        promoted := promoted + 1;
    end loop;

    now_at := clock_timestamp();
    select ceil(extract(epoch from t.due_at - now_at) * 1000)::bigint
      into due_in_ms
      from durable_internal.timer t
     where t.due_at > begin_at and t.due_at < now_at + interval '1 hour'
     order by t.due_at
     limit 1;
    due_in_ms := case when due_in_ms < 0 then 0 else due_in_ms end;  -- null: no timer in sight
    if promoted < most then  -- about to be idle: a hint is welcome again
        perform durable_internal.raise_flag('durable_internal.scheduler_idle');
    end if;
end
$$;

-- True where nobody holds the run's row, wherever it is, and so nothing would wait; or where it is nowhere.
-- Somebody's open cancel must not keep the timers of others. Locks that row.
create or replace function durable_internal.is_free(run_id uuid)
returns boolean
language plpgsql volatile
as $$
#variable_conflict use_column
begin
    perform from durable_internal.place p where p.run_id = is_free.run_id;
    if not found then
        return true;
    end if;
    perform from durable_internal.wait t where t.run_id = is_free.run_id for update skip locked;
    if found then return true; end if;
    perform from durable_internal.lease t where t.run_id = is_free.run_id for update skip locked;
    if found then return true; end if;
    perform from durable_internal.timer t
      where t.run_id = is_free.run_id and t.kind not in ('wait_timeout', 'run_timeout') for update skip locked;
    if found then return true; end if;
    perform from durable_internal.ready t where t.run_id = is_free.run_id for update skip locked;
    return found;
end
$$;

-- The same of the children of a run, and of theirs, where the end of a wait cancels them. Locks their rows: so they stay free,
-- and as their parents' rows are held, none is started meanwhile.
create or replace function durable_internal.are_children_free(wait_id bigint)
returns boolean
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    generation uuid[];
    child uuid;
begin
    select array[w.run_id] into generation
      from durable_internal.wait w
      left join lateral (select e.value ->> 'onTimeout' as on_timeout  -- as branch_over chooses
                           from jsonb_array_elements(w.others) with ordinality as e (value, n)
                          where e.value ? 'due'
                          order by (e.value ->> 'due')::timestamptz, e.n limit 1) as b on true
     where w.wait_id = are_children_free.wait_id and coalesce(b.on_timeout, w.on_timeout) = 'cancel';
    while cardinality(generation) > 0 loop
        generation := array(select r.id from durable_internal.run r
                             where r.parent_run_id = any (generation) and r.status is null);
        foreach child in array generation loop
            if not durable_internal.is_free(child) then
                return false;
            end if;
            perform from durable_internal.place p where p.run_id = child;
            if not found then
                generation := array_remove(generation, child);  -- it has ended; its children go on, as in end_run
            end if;
        end loop;
    end loop;
    return true;
end
$$;

-- Ends a wait that took too long, as its handler asked for. Nothing, if an event or a cancel was first.
create or replace function durable_internal.time_out_wait(wait_id bigint)
returns void
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    w durable_internal.wait;
    l durable_internal.lease;
begin
    delete from durable_internal.wait w where w.wait_id = time_out_wait.wait_id returning w.* into w;
    if not found then
        return;
    end if;
    perform durable_internal.drop_others(w);
    w := durable_internal.branch_over(w, null);
    l := durable_internal.carried_by(w);
    case
    when w.on_timeout in ('continue', 'sleep') and w.position > durable_internal.steps_max() then
        perform durable_internal.end_run(l, 'failed', durable_internal.too_many_steps(w.name, w.position),
                                         dead_letter => true);
    when w.on_timeout in ('continue', 'sleep') then
        insert into durable_internal.step (run_id, position, attempt, fence, worker_id, started_at,
                                           committed_at, name, kind, result)
        values (w.run_id, w.position, w.attempt, w.fence, w.worker_id, w.since, clock_timestamp(), w.name,
                case when w.on_timeout = 'sleep' then 'sleep' when w.others is null then 'wait_event' else 'wait_any' end,
                case when w.on_timeout <> 'sleep' then '{"timedOut": true}'::jsonb end)
            on conflict (run_id, position) do nothing;  -- as in promote_due, whose other timers would stand
        l.remembered := greatest(l.remembered, w.position);
        perform durable_internal.make_ready(l, resumed => true);
    when w.on_timeout = 'cancel' then
        perform durable_internal.end_run(l, 'cancelled', jsonb_build_object('name', 'WaitTimeoutError',
            'message', format('no event %s came in time', w.event), 'step', w.name, 'retryable', false));
    else
        perform durable_internal.end_run(l, 'failed', jsonb_build_object('name', 'WaitTimeoutError',
            'message', format('no event %s came in time', w.event), 'step', w.name, 'retryable', false),
            dead_letter => true);
    end case;
end
$$;

-- The error of a run that waited where it may not remember how that ended.
create or replace function durable_internal.too_many_steps(name text, place int)
returns jsonb
language sql immutable
as $$
    select jsonb_build_object('name', 'TooManySteps', 'message', durable_internal.no_place_left(name, place), 'step', name,
                              'retryable', false);
$$;

-- Ends a run whose time is over, wherever it is.
create or replace function durable_internal.time_out_run(run_id uuid)
returns void
language plpgsql volatile
as $$
declare
    l durable_internal.lease := durable_internal.take_out(time_out_run.run_id);
begin
    if l.run_id is not null then
        perform durable_internal.end_run(l, 'failed', jsonb_build_object('name', 'RunTimeoutError',
            'message', 'the run did not end within its timeout', 'retryable', false), dead_letter => true);
    end if;
end
$$;
