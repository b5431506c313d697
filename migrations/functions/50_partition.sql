-- Partitions of what is kept by run id, which is by time: one a week, made ahead.

-- Makes the partitions that the coming weeks need. Quick when they are there. Called by migrate and by the scheduler.
-- Ids before the first week and after the last have a place too (a clock may be wrong), so that no start ever
-- fails for want of a partition. Locks: a new week takes ACCESS EXCLUSIVE on the (empty) default partition and
-- SHARE UPDATE EXCLUSIVE on the parent. Nobody writes to the default partition, but a plan that is kept locks all
-- partitions: behind us, who looks for a run waits. So nothing is made where a long query holds a lock (55P03); there is time
-- until the week comes, and the callers come again.
create or replace function durable_internal.make_partitions(weeks int default 3)
returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms'
as $$
declare
    made int := 0;
    kept text;
    week timestamptz;
    first timestamptz := date_trunc('week', clock_timestamp(), 'UTC');
    part text;
begin
    perform durable_internal.check_count('weeks', weeks, 0, 53);
    foreach kept in array array['run', 'step', 'attempt', 'step_try', 'log', 'branch'] loop
        if to_regclass(format('durable_internal.%I', kept || '_other')) is null then
            execute format('create table durable_internal.%I partition of durable_internal.%I default',
                           kept || '_other', kept);
            made := made + 1;
        end if;
        for week in select first + n * interval '7 days' from generate_series(0, make_partitions.weeks - 1) as n
        loop
            part := kept || '_' || to_char(week at time zone 'UTC', 'IYYY"w"IW');
            continue when to_regclass(format('durable_internal.%I', part)) is not null;
            execute format('create table durable_internal.%I partition of durable_internal.%I
                                for values from (%L) to (%L)', part, kept,
                           durable_internal.uuid_v7_floor(week),
                           durable_internal.uuid_v7_floor(week + interval '7 days'));
            -- Room in each page for its runs' ends: an update in place, no index entry. A small run that has ended takes 1.7
            -- times what it took when it was started. With less room ends leave their page; with more, large payloads take
            -- pages of their own: docs/performance.md.
            if kept = 'run' then
                execute format('alter table durable_internal.%I set (fillfactor = 42)', part);
            end if;
            made := made + 1;
        end loop;
    end loop;
    return made;
end
$$;
