-- What durable-server answers page by page, and what its streams tell: runs, and of a run its timeline, steps, attempts and log
-- lines. JSON as text, as in 46_api.sql. All but stream_tails work in the namespace that as_namespace has set for the transaction.

-- A page of runs, newest first. It is cut short where its values get large.
create or replace function durable_internal.runs_page(status text, job text, queue text, dead_letter_queue text,
    tags jsonb, since timestamptz, until timestamptz, before uuid, most int, payloads boolean)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_sort = off
as $$
declare
    ids uuid[] := durable_internal.run_ids(status, job, queue, dead_letter_queue, tags, since, until, before, most + 1);
    lines text[] := '{}'::text[];
    bytes int := 0;
begin
    for i in 1 .. least(cardinality(ids), most) loop
        lines := lines || durable_internal.run_text(ids[i], payloads);
        bytes := bytes + octet_length(lines[i]);
        exit when bytes > durable_internal.page_bytes_max();
    end loop;
    return format('{"runs": [%s], "nextCursor": %s}', array_to_string(lines, ', '),
                  case when cardinality(lines) < cardinality(ids)
                       then to_json(ids[cardinality(lines)])::text else 'null' end);
end
$$;

drop function if exists durable_internal.list_text(text, text[], bigint, int);

-- A page as lists have it, of the lines of an open cursor, which begins behind `skip` of them: up to `most`, and no further once
-- they are large together. So a page that has more behind it has at least one.
create or replace function durable_internal.list_text(name text, lines refcursor, skip bigint, most int)
returns text
language plpgsql stable
as $$
declare
    line text;
    page text[] := '{}'::text[];
    bytes int := 0;
    more boolean;
begin
    loop
        fetch lines into line;
        more := found;
        exit when not more or cardinality(page) = most or bytes > durable_internal.page_bytes_max();
        page := page || line;
        bytes := bytes + octet_length(line);
    end loop;
    close lines;
    return format('{"%s": [%s], "nextCursor": %s}', name, array_to_string(page, ', '),
                  case when more then format('"%s"', skip + cardinality(page)) else 'null' end);
end
$$;

-- Where a page ends although it might have more lines.
create or replace function durable_internal.page_bytes_max() returns int language sql immutable as $$ select 8 * 1024 * 1024 $$;

-- The timeline of a run, oldest first. Raises DJ003.
create or replace function durable_internal.timeline_page(run_id uuid, skip bigint, most int)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    lines refcursor;
begin
    open lines for
        select durable_internal.timeline_json(t.at, t.kind, t.name, t.attempt, t.duration_ms, t.detail)::text
          from (select t.*, row_number() over () as n from durable.timeline(timeline_page.run_id) as t) as t
         order by t.n offset timeline_page.skip limit timeline_page.most + 1;
    return durable_internal.list_text('timeline', lines, skip, most);
end
$$;

-- An entry of a timeline.
create or replace function durable_internal.timeline_json(at timestamptz, kind text, name text, attempt int,
                                                          duration_ms double precision, detail jsonb)
returns jsonb
language sql immutable
as $$
    select jsonb_build_object('at', durable_internal.json_time(timeline_json.at), 'kind', timeline_json.kind, 'name',
                              timeline_json.name, 'attempt', timeline_json.attempt, 'durationMs',
                              timeline_json.duration_ms, 'detail', timeline_json.detail);
$$;

-- The steps of a run, oldest first. Raises DJ003.
create or replace function durable_internal.steps_page(run_id uuid, skip bigint, most int, payloads boolean)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    lines refcursor;
begin
    perform durable_internal.check_run(durable_internal.session_namespace(), steps_page.run_id);
    open lines for
        select durable_internal.shown(jsonb_build_object('position', s.position, 'name', s.name, 'kind', s.kind,
                   'status', s.status, 'result', s.result, 'error', s.error, 'attempt', s.attempt, 'workerId',
                   s.worker_id, 'fence', s.fence, 'startedAt', durable_internal.json_time(s.started_at), 'committedAt',
                   durable_internal.json_time(s.committed_at)), steps_page.payloads)::text
          from durable.steps s
         where s.run_id = steps_page.run_id
         order by s.position offset steps_page.skip limit steps_page.most + 1;
    return durable_internal.list_text('steps', lines, skip, most);
end
$$;

-- The attempts of a run, oldest first. Raises DJ003.
create or replace function durable_internal.attempts_page(run_id uuid, skip bigint, most int, payloads boolean)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    lines refcursor;
begin
    perform durable_internal.check_run(durable_internal.session_namespace(), attempts_page.run_id);
    open lines for
        select durable_internal.shown(jsonb_build_object('attempt', a.attempt, 'workerId', a.worker_id, 'fence', a.fence, 'startedAt',
                   durable_internal.json_time(a.started_at), 'endedAt', durable_internal.json_time(a.ended_at),
                   'outcome', a.outcome, 'error', a.error), attempts_page.payloads)::text
          from durable.attempts a
         where a.run_id = attempts_page.run_id
         order by a.started_at, a.attempt offset attempts_page.skip limit attempts_page.most + 1;
    return durable_internal.list_text('attempts', lines, skip, most);
end
$$;

-- The log lines of a run, oldest first. Raises DJ003.
create or replace function durable_internal.logs_page(run_id uuid, skip bigint, most int, payloads boolean)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    lines refcursor;
begin
    perform durable_internal.check_run(durable_internal.session_namespace(), logs_page.run_id);
    open lines for
        select durable_internal.shown(jsonb_build_object('attempt', g.attempt, 'at', durable_internal.json_time(g.at),
                   'level', g.level, 'message', g.message, 'fields', g.fields), logs_page.payloads)::text
          from durable.logs g
         where g.run_id = logs_page.run_id
         order by g.at offset logs_page.skip limit logs_page.most + 1;
    return durable_internal.list_text('logs', lines, skip, most);
end
$$;

-- What a run waits for. Raises DJ003.
create or replace function durable_internal.why_text(run_id uuid)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return jsonb_build_object('why', durable.why(why_text.run_id))::text;
end
$$;

-- What is new in the timelines of runs of any namespaces: entries later than `afters` (microseconds since 1970), oldest
-- first; of each run the first `most`, and those that have the time of the last one of them. A run that is ready is no
-- entry: it has no time yet. The last entry of a run that has ended is its end. A run that is not there, or whose times cannot be
-- reckoned with, tells nothing, and the others go on: they are of anybody.
create or replace function durable_internal.stream_tails(namespaces int[], run_ids uuid[], afters bigint[], most int)
returns table (n int, at_us bigint, entry text, ended boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    for i in 1 .. cardinality(stream_tails.run_ids) loop
        begin
            perform durable_internal.check_run(namespaces[i], run_ids[i]);
            return query
            select i, (extract(epoch from t.at) * 1000000)::bigint,
                   durable_internal.timeline_json(t.at, t.kind, t.name, t.attempt, t.duration_ms, t.detail)::text,
                   t.kind in ('completed', 'failed', 'cancelled')
              from (select t.*
                      from durable_internal.timeline_part(run_ids[i], timestamptz 'epoch' + afters[i] * interval '1 microsecond', most)
                           with ordinality as t (at, kind, name, attempt, duration_ms, detail, place)
                     where not (t.kind = 'waiting' and t.detail ->> 'kind' in ('worker', 'paused', 'endpoint'))
                     order by t.at fetch first (stream_tails.most) rows with ties) as t
             order by t.place;
        exception when data_exception or sqlstate 'DJ003' then
            null;  -- of this one there is nothing to tell
        end;
    end loop;
end
$$;

-- Whether a timeline has nothing to tell any more behind `after` (microseconds since 1970): the run has ended, and its end was told.
-- Raises DJ003.
create or replace function durable_internal.stream_is_over(run_id uuid, after bigint)
returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    found_end timestamptz;
begin
    select r.finished_at into found_end from durable.runs r where r.id = stream_is_over.run_id;
    if not found then
        perform durable_internal.fail('DJ003', format('run %s is not there', stream_is_over.run_id));
    end if;
    return found_end is not null and (extract(epoch from found_end) * 1000000)::bigint <= stream_is_over.after;
end
$$;
