-- Which runs a list shows. What is shown of each is in 45_json.sql.

-- The ids of runs, newest first: up to `most` of those that all filters let through and that are older than `before`.
--
-- Each is looked for where few others are: what has not ended in the table that holds it; dead letters, what failed and what was
-- cancelled, and tags in indexes of nothing else; the rest by its lanes, or by id alone where they are many.
-- A run that moves meanwhile may be missed, as in any list. Called by runs_page and bulk.
create or replace function durable_internal.run_ids(status text, job text, queue text, dead_letter_queue text, tags jsonb,
    since timestamptz, until timestamptz, before uuid, most int)
returns uuid[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    namespace int := durable_internal.session_namespace();
    high uuid := least(run_ids.before, durable_internal.uuid_v7_floor(run_ids.until),
                       'ffffffff-ffff-ffff-ffff-ffffffffffff');
    low uuid := coalesce(durable_internal.uuid_v7_floor(run_ids.since), '00000000-0000-0000-0000-000000000000');
    any_lane boolean := num_nonnulls(run_ids.job, run_ids.queue) = 0;
    lanes int[] := array(select l.id from durable_internal.lane l
                          where l.namespace_id = namespace and (run_ids.job is null or l.job = run_ids.job)
                            and (run_ids.queue is null or l.queue = run_ids.queue));
begin
    if run_ids.tags <> '{}' then
        return durable_internal.tagged_ids(namespace, run_ids.status, case when not any_lane then lanes end,
                                           run_ids.dead_letter_queue, run_ids.tags, low, high, run_ids.most);
    elsif run_ids.dead_letter_queue is not null then
        return array(select r.id from durable_internal.run r
                      where r.namespace_id = namespace and r.dead_letter_queue = run_ids.dead_letter_queue
                        and r.id >= low and r.id < high and (any_lane or r.lane_id = any (lanes))
                        and (run_ids.status is null or r.status = run_ids.status)
                      order by r.id desc limit run_ids.most);
    elsif run_ids.status in ('failed', 'cancelled') then
        return array(select r.id from durable_internal.run r
                      where r.namespace_id = namespace and r.error is not null and r.status = run_ids.status
                        and r.id >= low and r.id < high and (any_lane or r.lane_id = any (lanes))
                      order by r.id desc limit run_ids.most);
    elsif run_ids.status <> 'completed' then
        return durable_internal.unended_ids(run_ids.status, lanes, low, high, run_ids.most);
    elsif cardinality(lanes) <= 64 then
        return array(select f.id
                       from unnest(lanes) as l (id)
                      cross join lateral (select r.id from durable_internal.run r
                                           where r.lane_id = l.id and r.id >= low and r.id < high
                                             and (run_ids.status is null or r.status = run_ids.status)
                                           order by r.id desc limit run_ids.most) as f
                      order by f.id desc limit run_ids.most);
    end if;
    return array(select r.id from durable_internal.run r
                  where r.id >= low and r.id < high and r.namespace_id = namespace
                    and (any_lane or r.lane_id = any (lanes))
                    and (run_ids.status is null or r.status = run_ids.status)
                  order by r.id desc limit run_ids.most);
end
$$;

-- The part of run_ids for what has not ended.
create or replace function durable_internal.unended_ids(status text, lanes int[], low uuid, high uuid, most int)
returns uuid[]
language plpgsql stable
set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    kinds text[] := case unended_ids.status when 'scheduled' then array['start']
                                            when 'retrying' then array['retry', 'step_retry']
                                            when 'waiting' then array['sleep', 'version'] end;
begin
    if unended_ids.status = 'queued' then
        return array(select t.run_id from durable_internal.ready t
                      where t.run_id >= low and t.run_id < high and t.lane_id = any (lanes)
                      order by t.run_id desc limit unended_ids.most);
    elsif unended_ids.status = 'running' then
        return array(select t.run_id from durable_internal.lease t
                      where t.run_id >= low and t.run_id < high and t.lane_id = any (lanes)
                      order by t.run_id desc limit unended_ids.most);
    end if;
    return array(
        select f.run_id
          from ((select t.run_id from durable_internal.timer t
                  where t.run_id >= low and t.run_id < high and t.kind = any (kinds) and t.lane_id = any (lanes)
                  order by t.run_id desc limit unended_ids.most)
                union all
                (select w.run_id from durable_internal.wait w
                  where unended_ids.status = 'waiting' and w.run_id >= low and w.run_id < high
                    and w.lane_id = any (lanes)
                  order by w.run_id desc limit unended_ids.most)) as f
         order by f.run_id desc limit unended_ids.most);
end
$$;

-- The part of run_ids for tags: all that have them, newest first, and of those what else is asked. `lanes` null: any. The bounds
-- of ids are hidden in coalesce, or PostgreSQL would read the whole index of ids to combine it with that of tags.
create or replace function durable_internal.tagged_ids(namespace int, status text, lanes int[], dead_letter_queue text,
    tags jsonb, low uuid, high uuid, most int)
returns uuid[]
language plpgsql stable
set plan_cache_mode = force_generic_plan set jit = off set enable_seqscan = off set enable_indexscan = off set enable_sort = on
set enable_bitmapscan = on
as $$
#variable_conflict use_column
begin
    return array(
        select f.id
          from (select r.id, r.status from durable_internal.run r
                 where r.tags @> tagged_ids.tags and r.namespace_id = tagged_ids.namespace
                   and coalesce(r.id >= tagged_ids.low and r.id < tagged_ids.high, false)
                   and (tagged_ids.lanes is null or r.lane_id = any (tagged_ids.lanes))
                   and (tagged_ids.dead_letter_queue is null or r.dead_letter_queue = tagged_ids.dead_letter_queue)
                 order by r.id desc offset 0) as f
         where tagged_ids.status is null or f.status = tagged_ids.status
            or f.status is null and tagged_ids.status not in ('completed', 'failed', 'cancelled')
               and durable_internal.run_status(null, (select p.place from durable_internal.place p
                                                       where p.run_id = f.id)) = tagged_ids.status
         limit tagged_ids.most);
end
$$;
