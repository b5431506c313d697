-- The lanes' marks: where a claim's scan of a lane begins, so that it steps over few dead rows.
--
-- While some session holds a snapshot, rows that claims have deleted cannot be removed, and a scan from a lane's
-- bottom passes all of them: a claim then falls to a tenth of its speed within a minute.
--
-- What has to hold (the invariant): a ready row below its lane's mark belongs to a transaction that is in
-- mark_pending, with a low_seq not above the row's number. Then no row stays unseen for longer than its own
-- transaction is open, and a moment.
--
-- Why it does. A call reads H, the order's last number, and then, in its next statement, takes its snapshot S. It
-- raises a mark to the first row of the lane visible in S (or to H). A row below that, not visible
-- in S, and not claimed, was put there by a transaction that S shows in progress, or by one that had no
-- number yet when S was taken. The latter draws its place in the order after its number (every function
-- that inserts into `ready` calls pg_current_xact_id() first), so after S, so above H. The former
-- goes into mark_pending. It either had no number at the call before (next_xid), so its places are above
-- that call's H, which is its low_seq; or it was in mark_pending already. When a pending transaction
-- has ended, whatever it left is visible, and is the first visible row from its low_seq up, or
-- behind that one; the mark goes back there.

-- Moves the marks up, and back for late ones. Answers true if there was anything to do.
--
-- `step` is by how many numbers a mark may lag: each move leaves a dead row in lane_mark itself.
-- Locks: mark_state, so one at a time. Called by the scheduler, some ten times a second while runs come and go.
create or replace function durable_internal.move_marks(step bigint)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    state durable_internal.mark_state;
    high bigint;
    now_running pg_snapshot;
    late bigint;
begin
    select s.last_value into high from durable_internal.order_seq s;
    select m.* into state from durable_internal.mark_state m;
    perform from durable_internal.mark_pending;
    if not found and state.last_seq = high then
        return false;
    end if;
    select m.* into state from durable_internal.mark_state m for update skip locked;
    if not found then
        return true;  -- another scheduler does it
    end if;

    -- Late ones: of transactions that were in progress and have ended.
    now_running := pg_current_snapshot();
    with ended as (
        delete from durable_internal.mark_pending p
         where pg_visible_in_snapshot(p.xid, now_running)
        returning p.low_seq
    )
    select min(e.low_seq) into late from ended e;

    -- One statement, so that its snapshot is the one whose running transactions become pending.
    with seen as materialized (
        select m.lane_id, m.low_seq,
               (select r.seq from durable_internal.ready r
                 where r.lane_id = m.lane_id and r.seq >= least(m.low_seq, late)
                 order by r.seq limit 1) as first
          from durable_internal.lane_mark m
    ), moved as (
        update durable_internal.lane_mark m
           set low_seq = least(coalesce(s.first, high), high)
          from seen s
         where m.lane_id = s.lane_id
           and (least(coalesce(s.first, high), high) < m.low_seq
                or least(coalesce(s.first, high), high) >= m.low_seq + move_marks.step)
    )
    insert into durable_internal.mark_pending (xid, low_seq)
    select x.xid, state.last_seq
      from pg_snapshot_xip(pg_current_snapshot()) as x (xid)
     where x.xid >= state.next_xid and x.xid <> pg_current_xact_id()
        on conflict (xid) do nothing;

    update durable_internal.mark_state m
       set last_seq = high, next_xid = pg_snapshot_xmax(now_running);

    insert into durable_internal.lane_mark (lane_id, low_seq)
    select l.id, 0
      from durable_internal.lane l
     where not exists (select from durable_internal.lane_mark m where m.lane_id = l.id)
        on conflict (lane_id) do nothing;
    return true;
end
$$;
