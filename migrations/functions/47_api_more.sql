-- What durable-server answers for endpoints, as texts; and what it needs for commits. In the namespace of the
-- transaction (as_namespace), except for commits, whose tokens say whose they are.

-- What a remembered entry that was too large for a call holds. Raises DJ003, DJ005.
create or replace function durable_internal.commit_ref(run_id uuid, fence bigint, worker_id uuid, place int)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    s durable_internal.step;
begin
    perform from durable_internal.lease l
      where l.run_id = commit_ref.run_id and l.fence = commit_ref.fence and l.worker_id = commit_ref.worker_id;
    if not found then
        perform durable_internal.fail('DJ005', 'the lease is lost');
    end if;
    select s.* into s from durable_internal.step s
     where s.run_id = commit_ref.run_id and s.position = commit_ref.place and not s.forgotten;
    if not found then
        perform durable_internal.fail('DJ003', format('the run remembers nothing at %s', place));
    end if;
    return (case when s.error is not null then jsonb_build_object('error', s.error)
                 else jsonb_build_object('result', s.result) end)::text;
end
$$;

-- One endpoint, as the API shows it. Raises DJ003.
create or replace function durable_internal.endpoint_text(name text)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    shown jsonb;
begin
    select durable_internal.endpoint_json(e) into shown
      from durable_internal.endpoint e
     where e.namespace_id = durable_internal.session_namespace() and e.name = endpoint_text.name;
    if not found then
        perform durable_internal.fail('DJ003', format('endpoint %s is not there', quote_literal(left(name, 60))));
    end if;
    return shown::text;
end
$$;

create or replace function durable_internal.endpoints_text()
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return jsonb_build_object('endpoints', (select coalesce(jsonb_agg(durable_internal.endpoint_json(e) order by e.name), '[]')
                                              from durable_internal.endpoint e
                                             where e.namespace_id = durable_internal.session_namespace()),
                              'nextCursor', null)::text;
end
$$;

-- Where an endpoint is, and what a call of it is signed with: for the server's own look at its jobs. Raises DJ003.
create or replace function durable_internal.endpoint_target(name text)
returns table (url text, secrets text[], allow_private boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    tenant int := durable_internal.session_namespace();
begin
    return query
    select e.url, durable_internal.endpoint_secrets(tenant, e.name), e.allow_private
      from durable_internal.endpoint e
     where e.namespace_id = tenant and e.name = endpoint_target.name;
    if not found then
        perform durable_internal.fail('DJ003', format('endpoint %s is not there', quote_literal(left(name, 60))));
    end if;
end
$$;

-- DELETE, pause and resume; each answers what is there then. Raises DJ003.
create or replace function durable_internal.endpoint_change(name text, change text)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    shown text := durable_internal.endpoint_text(name);
begin
    if change = 'drop' then
        perform durable_internal.endpoint_drop(durable_internal.session_namespace(), name);
        return shown;
    end if;
    perform durable_internal.endpoint_pause(durable_internal.session_namespace(), name, change = 'pause');
    return durable_internal.endpoint_text(name);
end
$$;
