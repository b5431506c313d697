-- Events: sending, and matching them with the runs that wait.

-- Stores an event of a namespace; a repeated key gives the first one's id. Called by durable.send_event and by
-- our own server. Neither looks for waits nor is looked for by them: match_events does.
-- Locks: the key's row. Raises DJ001, DJ002, DJ004; then nothing was stored.
create or replace function durable_internal.send_event(namespace_id int, name text, payload jsonb,
    correlation_key text, idempotency_key text, out event_id uuid, out created boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    place bigint;
    same boolean;
begin
    perform durable_internal.check_name('name', name);
    if payload is distinct from '{}'::jsonb then
        perform durable_internal.check_json('payload', payload, durable_internal.payload_bytes_max());
    end if;
    if correlation_key is not null then
        perform durable_internal.check_key('correlation_key', correlation_key);
    end if;
    if idempotency_key is not null then
        perform durable_internal.check_key('idempotency_key', idempotency_key);
    end if;
    perform pg_current_xact_id();
    place := nextval('durable_internal.order_seq');
    event_id := durable_internal.uuid_v7();
    created := true;
    while idempotency_key is not null loop
        insert into durable_internal.event_key as k (namespace_id, key, event_seq)
        values (send_event.namespace_id, send_event.idempotency_key, place)
        on conflict (namespace_id, key) do update set event_seq = k.event_seq where false;
        exit when found;
        select e.id, e.name = send_event.name and e.payload = send_event.payload
                     and e.correlation_key = coalesce(send_event.correlation_key, '')
          into event_id, same
          from durable_internal.event_key k
          join durable_internal.event e on e.seq = k.event_seq
         where k.namespace_id = send_event.namespace_id and k.key = send_event.idempotency_key;
        if found then
            if not same then
                perform durable_internal.fail('DJ002', format('idempotency_key %s is known with another '
                    'event', quote_literal(left(send_event.idempotency_key, 60))), 'Use another key.');
            end if;
            created := false;
            return;
        end if;
    end loop;
    insert into durable_internal.event (seq, id, namespace_id, sent_at, name, correlation_key,
                                        idempotency_key, payload)
    values (place, event_id, send_event.namespace_id, clock_timestamp(), send_event.name,
            coalesce(send_event.correlation_key, ''), send_event.idempotency_key, send_event.payload);
    insert into durable_internal.event_inbox (seq, event_seq) values (place, place);
    perform durable_internal.wake_matcher();
end
$$;

-- Sends an event to the runs that wait for its name and key, in the caller's own transaction.
create or replace function durable.send_event(name text, payload jsonb default '{}',
                                              correlation_key text default null,
                                              idempotency_key text default null)
returns uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return (durable_internal.send_event(durable_internal.login_namespace(), name, payload,
                                        correlation_key, idempotency_key)).event_id;
end
$$;

-- The event that a wait takes now, or null: of each name and key that it is for, the oldest that its run has not had, and
-- that is younger than the run, or that nobody has received; and of these the oldest.
create or replace function durable_internal.event_for(w durable_internal.wait)
returns bigint
language plpgsql stable
as $$
begin
    if w.others is null then
        return durable_internal.oldest_event(w.namespace_id, w.event, w.correlation_key, w.run_id, w.run_seq);
    end if;
    return (select least(durable_internal.oldest_event(w.namespace_id, w.event, w.correlation_key, w.run_id, w.run_seq),
                         min(durable_internal.oldest_event(w.namespace_id, o.value ->> 'event', coalesce(o.value ->> 'key', ''),
                                                           w.run_id, w.run_seq)))
              from jsonb_array_elements(w.others) as o);
end
$$;

-- … of one name and key. Of a child's ends only the last counts, and while it lives again, none: somebody may have let it go on
-- when its parent had not heard of it yet. Its next end leaves an inbox row as any event does.
create or replace function durable_internal.oldest_event(namespace_id int, name text, correlation_key text, run_id uuid,
                                                         run_seq bigint)
returns bigint
language plpgsql stable
as $$
begin
    return least(
        (select e.seq
           from durable_internal.event e
          where e.namespace_id = oldest_event.namespace_id and e.name = oldest_event.name
            and e.correlation_key = oldest_event.correlation_key and not e.received and e.seq < oldest_event.run_seq
          order by e.seq
          limit 1),
        (select e.seq
           from durable_internal.event e
          where e.namespace_id = oldest_event.namespace_id and e.name = oldest_event.name
            and e.correlation_key = oldest_event.correlation_key and e.seq > oldest_event.run_seq
            and not exists (select from durable_internal.delivery d
                             where d.event_seq = e.seq and d.run_id = oldest_event.run_id)
            and case when oldest_event.name = '$child'
                     then (select c.status is not null from durable_internal.run c where c.id = e.correlation_key::uuid)
                          and not exists (select from durable_internal.event n
                                           where n.namespace_id = e.namespace_id and n.name = e.name
                                             and n.correlation_key = e.correlation_key and n.seq > e.seq)
                     else true end
          order by e.seq
          limit 1));
end
$$;

-- Forgets the other events of a wait that was just deleted.
create or replace function durable_internal.drop_others(w durable_internal.wait)
returns void
language plpgsql volatile
as $$
begin
    if w.others is not null then
        delete from durable_internal.wait_other
         where ctid = any (array(
               select t.ctid
                 from jsonb_array_elements(w.others) as o
                cross join lateral (select t.ctid from durable_internal.wait_other t
                                     where t.namespace_id = w.namespace_id and t.event = o.value ->> 'event'
                                       and t.correlation_key = coalesce(o.value ->> 'key', '')
                                       and t.wait_id = w.wait_id) as t));
    end if;
end
$$;

-- Gives up to `most` waits their events. Answers how many inbox rows it took and waits it ended, together; call
-- again while that is not 0.
--
-- Guarantee 6. Nothing is lost: a sender and a waiter each leave an inbox row with their own, and look for
-- nobody. Of an event and a wait that fit, let one become visible last. The matcher that takes that
-- one's inbox row sees the row, so in its next statement (a newer snapshot) it sees both. Nothing is
-- doubled: matchers pass one at a time (a transaction's lock: it goes with its holder, and no step of
-- this function waits for a client), a wait is given by `delete … returning`, and delivery's keys are the
-- referee. An event for more waits than `most` goes back into the inbox until all are served.
--
-- An event that its run has no room for, in places or in bytes, ends that run, by name; nobody has received it then, and the
-- next run that waits for it does.
--
-- Locks: its own advisory lock, then waits by number, then their timers. Called by match_turn and claim.
create or replace function durable_internal.match_events(most int)
returns int
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    inbox durable_internal.event_inbox[];
    w durable_internal.wait;
    chosen bigint;
    met int := 0;
    looked int := 0;
    held bigint[] := '{}'::bigint[];
    runs uuid[] := '{}'::uuid[];
    given record;
begin
    perform pg_advisory_xact_lock(durable_internal.worker_lock_class(), -1);
    with next as materialized (
        select i.ctid from durable_internal.event_inbox i order by i.seq limit match_events.most
           for update skip locked
    ), taken as (
        delete from durable_internal.event_inbox
         where ctid = any (array(select n.ctid from next n))
        returning event_inbox.*
    )
    select array_agg(t::durable_internal.event_inbox) into inbox from taken t;
    if inbox is null then
        return 0;
    end if;
    -- FAILPOINT match.taken
    perform pg_current_xact_id();

    for w in
        select w.*
          from (select i.wait_id from unnest(inbox) as i where i.wait_id is not null
                 union
                select w.wait_id
                  from unnest(inbox) as i
                  join durable_internal.event e on e.seq = i.event_seq
                 cross join lateral (select w.wait_id from durable_internal.wait w
                                      where w.namespace_id = e.namespace_id and w.event = e.name
                                        and w.correlation_key = e.correlation_key
                                        and (w.run_seq < e.seq or not e.received)
                                        and not exists (select from durable_internal.delivery d
                                                         where d.event_seq = e.seq and d.run_id = w.run_id)
                                      order by w.wait_id limit match_events.most) as w
                 union
                select o.wait_id
                  from unnest(inbox) as i
                  join durable_internal.event e on e.seq = i.event_seq
                 cross join lateral (select o.wait_id
                                       from durable_internal.wait_other o
                                       join durable_internal.wait w on w.wait_id = o.wait_id
                                      where o.namespace_id = e.namespace_id and o.event = e.name
                                        and o.correlation_key = e.correlation_key
                                        and (w.run_seq < e.seq or not e.received)
                                        and not exists (select from durable_internal.delivery d
                                                         where d.event_seq = e.seq and d.run_id = w.run_id)
                                      order by o.wait_id limit match_events.most) as o) as c
          join durable_internal.wait w on w.wait_id = c.wait_id
         order by w.wait_id
    loop
        looked := looked + 1;
        chosen := durable_internal.event_for(w);
        continue when chosen is null;
        -- FAILPOINT match.chosen
        delete from durable_internal.wait
         where ctid = any (array(select t.ctid from durable_internal.wait t where t.wait_id = w.wait_id
                                    for update skip locked));
        if not found then  -- gone just now; or held, by an open cancel: looked at again later
            held := held || array(select t.wait_id from durable_internal.wait t where t.wait_id = w.wait_id);
            continue;
        end if;
        perform durable_internal.drop_others(w);
        w := durable_internal.branch_over(w, chosen);
        if w.due_at is not null then
            runs := runs || w.run_id;
        end if;
        met := met + 1;
        select g.result, g.error, w.bytes::bigint + durable_internal.history_bytes(g.result, g.error) as bytes into given
          from durable_internal.event e
         cross join lateral (
               select case when w.event <> '$child' then durable_internal.received_event(e)
                           when e.payload ->> 'status' = 'completed' then e.payload -> 'result' end as result,
                      case when w.event = '$child' and e.payload ->> 'status' <> 'completed' then e.payload -> 'error' end
                      as error) as g
         where e.seq = chosen;
        if w.position > durable_internal.steps_max() or given.bytes > durable_internal.history_bytes_max() then
            perform durable_internal.end_run(durable_internal.carried_by(w), 'failed', case
                when w.position > durable_internal.steps_max() then durable_internal.too_many_steps(w.name, w.position)
                else jsonb_build_object('name', 'ResultRefused', 'message', durable_internal.history_full(w.name),
                                        'step', w.name, 'retryable', false) end, dead_letter => true);
            continue;
        end if;
        with received as (
            update durable_internal.event e set received = true where e.seq = chosen and not e.received
        ), delivered as (
            insert into durable_internal.delivery (event_seq, run_id, wait_id)
            values (chosen, w.run_id, w.wait_id)
        ), remembered as (
            insert into durable_internal.step (run_id, position, attempt, fence, worker_id, started_at,
                                               committed_at, name, kind, result, error)
            values (w.run_id, w.position, w.attempt, w.fence, w.worker_id, w.since, clock_timestamp(), w.name,
                    case when w.event = '$child' then 'child' when w.others is not null then 'wait_any' else 'wait_event' end,
                    given.result, given.error)
                on conflict (run_id, position) do nothing
        )
        insert into durable_internal.ready (run_id, seq, fence, started_at, attempt_started_at,
                                            worker_id, lane_id, attempt, remembered, bytes, resumed,
                                            deadline)
        values (w.run_id, nextval('durable_internal.order_seq'), w.fence, w.started_at,
                w.attempt_started_at, w.worker_id, w.lane_id, w.attempt, greatest(w.remembered, w.position),
                given.bytes, true, w.deadline);
        -- FAILPOINT match.given
    end loop;

    if cardinality(runs) > 0 then
        delete from durable_internal.timer t where t.run_id = any (runs) and t.kind = 'wait_timeout';
    end if;
    if cardinality(held) > 0 then
        -- Behind all others, as their events: as many as we look at would else be what we look at each time. A wait whose
        -- event goes back is found by that; a row of its own would be one more each time.
        insert into durable_internal.event_inbox (seq, wait_id)
        select nextval('durable_internal.order_seq'), h.wait_id
          from unnest(held) as h (wait_id)
         where looked < match_events.most or exists (select from unnest(inbox) as i where i.wait_id = h.wait_id);
    end if;
    if looked >= match_events.most then
        -- An event that had as many waits as we look at may have more, whatever became of these.
        insert into durable_internal.event_inbox (seq, event_seq)
        select case when cardinality(held) > 0 then nextval('durable_internal.order_seq') else i.seq end, i.event_seq
          from unnest(inbox) as i
          join durable_internal.event e on e.seq = i.event_seq
         where exists (select from durable_internal.wait w
                        where w.namespace_id = e.namespace_id and w.event = e.name
                          and w.correlation_key = e.correlation_key)
            or exists (select from durable_internal.wait_other o
                        where o.namespace_id = e.namespace_id and o.event = e.name
                          and o.correlation_key = e.correlation_key);
    end if;
    if met > 0 then
        perform durable_internal.wake_workers();
    end if;
    return greatest(cardinality(inbox) + met - cardinality(held), 0);
end
$$;

-- The scheduler's call: match_events in a transaction of its own, whose commit does not wait for the disk.
--
-- What acts on a match is a claim; what comes of that is a later commit, and what is written before it in the log is on
-- the disk with it. A match that a crash forgets leaves the inbox as it was, and is made again.
create or replace function durable_internal.match_turn(most int)
returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    return durable_internal.match_events(match_turn.most);
end
$$;

-- What a wait returns to its handler.
create or replace function durable_internal.received_event(e durable_internal.event)
returns jsonb
language plpgsql stable
as $$
begin
    return jsonb_build_object('timedOut', false, 'id', e.id, 'name', e.name, 'correlationKey',
                              nullif(e.correlation_key, ''), 'payload', e.payload, 'receivedAt',
                              to_char(e.sent_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'));
end
$$;
