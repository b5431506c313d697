-- The lanes' marks: where a claim's scan of a lane begins, so that it steps over few dead rows.
--
-- While some session holds a snapshot, rows that claims have deleted cannot be removed, and a scan from a lane's
-- bottom passes all of them: a claim then falls to a tenth of its speed within a minute. A mark only goes up; a row
-- that comes to light below it is brought up to it.
--
-- What has to hold (the invariant): a ready row below its lane's mark belongs to a transaction that is in
-- mark_pending, with a low_seq not above the row's number. Then no row stays unseen for longer than its own
-- transaction is open, and a moment.
--
-- Why it does. A call reads H, the order's last number, then draws its own transaction number X, and then, in its
-- next statement, takes its snapshot S. It raises a mark to the first row of the lane visible in S (or to H). A row
-- below that, not visible in S, and not claimed, was put there by a transaction that had not ended in S. If its number
-- is above X, it was drawn after H was read, and every function that inserts into `ready` draws its transaction's
-- number (pg_current_xact_id) before its place in the order: so the place is above H. Else it goes into mark_pending:
-- it is one that S lists as in progress, or it is between S's xmax and X (xmax is the number after the last
-- that has ended, so one that began later and still goes on is not in the list). Was its number
-- above the X of the call before, its places are above that call's H, which is its low_seq; or else it was in
-- mark_pending already. When a pending transaction has ended, whatever it left is visible, so no later move of a mark
-- passes it; what an earlier move has passed is between its low_seq and the mark. It leaves
-- mark_pending when nothing visible is there any more.

-- Brings what ended transactions have left below the marks up to them, `span` numbers of the order at a time: there
-- may be millions of dead rows between. Answers true while there is more of it to look through.
--
-- By delete and insert, not by update: a claim that looks with an older snapshot passes over a row that is gone, but
-- would follow an updated one to a version that its own delete cannot see. What a claim or a cancel holds is
-- left to the next call. Inserted in order, so that rows of one number stay in it.
create or replace function durable_internal.raise_late(ended_before pg_snapshot, span bigint)
returns boolean
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    low bigint;
    high bigint;
    raised bigint;
begin
    select min(p.low_seq) into low from durable_internal.mark_pending p
     where pg_visible_in_snapshot(p.xid, raise_late.ended_before);
    if low is null then
        return false;
    end if;
    high := low + raise_late.span;

    with late as materialized (
        select r.place
          from durable_internal.lane_mark m
         cross join lateral (select r.ctid as place
                               from durable_internal.ready r
                              where r.lane_id = m.lane_id and r.seq >= low and r.seq < least(m.low_seq, high)
                                for update skip locked) as r
         where m.low_seq > low
    ), gone as (
        delete from durable_internal.ready where ctid = any (array(select l.place from late l))
        returning ready.*
    )
    insert into durable_internal.ready (run_id, seq, fence, started_at, attempt_started_at, worker_id,
                                        lane_id, attempt, remembered, bytes, crashes, resumed, deadline)
    select g.run_id, m.low_seq, g.fence, g.started_at, g.attempt_started_at, g.worker_id,
           g.lane_id, g.attempt, g.remembered, g.bytes, g.crashes, g.resumed, g.deadline
      from gone g
      join durable_internal.lane_mark m on m.lane_id = g.lane_id
     order by g.seq;
    get diagnostics raised = row_count;
    if raised > 0 then
        perform durable_internal.wake_workers();
    end if;

    perform from durable_internal.lane_mark m
     cross join lateral (select from durable_internal.ready r
                          where r.lane_id = m.lane_id and r.seq >= low and r.seq < least(m.low_seq, high)
                          limit 1) as r
     where m.low_seq > low;
    if found then
        return false;  -- somebody holds it
    end if;
    update durable_internal.mark_pending p
       set low_seq = high
     where p.low_seq < high and pg_visible_in_snapshot(p.xid, raise_late.ended_before);
    delete from durable_internal.mark_pending p
     where pg_visible_in_snapshot(p.xid, raise_late.ended_before)
       and p.low_seq >= (select coalesce(max(m.low_seq), 0) from durable_internal.lane_mark m);
    return exists (select from durable_internal.mark_pending p
                    where pg_visible_in_snapshot(p.xid, raise_late.ended_before));
end
$$;

-- Moves the marks up, and late rows up to them. Answers true when it should be called again at once.
--
-- `step` is by how many numbers a mark may lag: each move leaves a dead row in lane_mark itself.
-- Locks: mark_state, so one at a time. Called by the scheduler, some ten times a second while runs come and go.
create or replace function durable_internal.move_marks(step bigint)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    state durable_internal.mark_state;
    high bigint;
    own xid8;
    more boolean;
begin
    select s.last_value into high from durable_internal.order_seq s;
    -- FAILPOINT marks.high
    select m.* into state from durable_internal.mark_state m;
    perform from durable_internal.mark_pending;
    if not found and state.last_seq = high then
        return false;
    end if;
    select m.* into state from durable_internal.mark_state m for update skip locked;
    if not found then
        return false;  -- another scheduler does it
    end if;
    own := pg_current_xact_id();
    -- FAILPOINT marks.numbered
    more := durable_internal.raise_late(pg_current_snapshot(), 200000);
    -- FAILPOINT marks.raised

    -- One statement, so that its snapshot is the one whose running transactions become pending.
    with seen as materialized (
        select m.lane_id, m.low_seq,
               (select r.seq from durable_internal.ready r
                 where r.lane_id = m.lane_id and r.seq >= m.low_seq
                 order by r.seq limit 1) as first
          from durable_internal.lane_mark m
    ), moved as (
        update durable_internal.lane_mark m
           set low_seq = least(coalesce(s.first, high), high)
          from seen s
         where m.lane_id = s.lane_id
           and least(coalesce(s.first, high), high) >= m.low_seq + move_marks.step
    )
    insert into durable_internal.mark_pending (xid, low_seq)
    select x.xid, state.last_seq
      from (select pg_snapshot_xip(pg_current_snapshot())
            union all
            select n::text::xid8
              from generate_series(pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                                   own::text::bigint - 1) as n) as x (xid)
     where x.xid > state.own_xid and x.xid < own
        on conflict (xid) do nothing;

    update durable_internal.mark_state m
       set last_seq = high, own_xid = own;

    insert into durable_internal.lane_mark (lane_id, low_seq)
    select l.id, 0
      from durable_internal.lane l
     where not exists (select from durable_internal.lane_mark m where m.lane_id = l.id)
        on conflict (lane_id) do nothing;
    return more;
end
$$;
