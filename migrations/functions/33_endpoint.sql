-- Endpoints: where handlers are served over HTTP, which jobs were found there, and how they fare.

-- A new secret: 32 bytes of chance in the form of Standard Webhooks.
create or replace function durable_internal.new_secret()
returns text
language sql volatile
as $$
    select 'whsec_' || encode(substring(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
                                               || uuid_send(gen_random_uuid())) from 1 for 32), 'base64');
$$;

-- Tells the workers to look at the endpoints again.
create or replace function durable_internal.endpoints_changed()
returns void
language sql volatile
as $$
    select pg_notify('durable_endpoints', '');
$$;

-- Makes an endpoint, or gives one another URL, and a new secret: this is the only time that it is shown. Those before hold for
-- 24 hours more, the last ten of them, so that replicas that have one go on. Locks: the endpoint's row. Raises DJ001.
create or replace function durable_internal.endpoint_put(namespace_id int, name text, url text, allow_private boolean,
    concurrency int, timeout interval, out secret text, out created boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform durable_internal.check_name('name', name);
    if url is null or url !~ '^https?://[^[:space:]@]+$' or octet_length(url) > 2048 then
        perform durable_internal.fail('DJ001', format('url %s is not allowed; http:// or https:// without user and '
            'password, up to 2048 bytes', coalesce(quote_literal(left(url, 100)), 'null')));
    end if;
    perform durable_internal.check_count('concurrency', concurrency, 1, 10000);
    if timeout is not null then
        perform durable_internal.check_interval('timeout', timeout);
    end if;
    insert into durable_internal.endpoint as e (namespace_id, name, url, allow_private, concurrency, timeout)
    values (endpoint_put.namespace_id, endpoint_put.name, endpoint_put.url,
            coalesce(endpoint_put.allow_private, false), coalesce(endpoint_put.concurrency, 200),
            coalesce(endpoint_put.timeout, '5 minutes 30 seconds'))
        on conflict (namespace_id, name) do nothing;
    created := found;
    if not created then
        update durable_internal.endpoint e
           set url = endpoint_put.url, allow_private = coalesce(endpoint_put.allow_private, e.allow_private),
               concurrency = coalesce(endpoint_put.concurrency, e.concurrency),
               timeout = coalesce(endpoint_put.timeout, e.timeout), failures = 0, rest_until = null, last_error = null
         where e.namespace_id = endpoint_put.namespace_id and e.name = endpoint_put.name;
    end if;
    secret := durable_internal.endpoint_rotate(namespace_id, name);
end
$$;

-- An endpoint of `durable dev`, which begins again and again: one that is there with this URL keeps its secret. Answers the
-- newest. For owners. Raises DJ001.
create or replace function durable_internal.endpoint_keep(name text, url text)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    tenant int := durable_internal.session_namespace();
begin
    perform from durable_internal.endpoint e
      where e.namespace_id = tenant and e.name = endpoint_keep.name and e.url = endpoint_keep.url;
    if not found then
        return (durable_internal.endpoint_put(tenant, name, url, true, null, null)).secret;
    end if;
    return (durable_internal.endpoint_secrets(tenant, name))[1];
end
$$;

-- A new secret for an endpoint. Raises DJ003.
create or replace function durable_internal.endpoint_rotate(namespace_id int, name text)
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    secret text := durable_internal.new_secret();
begin
    perform from durable_internal.endpoint e
      where e.namespace_id = endpoint_rotate.namespace_id and e.name = endpoint_rotate.name
        for update;
    if not found then
        perform durable_internal.fail('DJ003', format('endpoint %s is not there', quote_literal(endpoint_rotate.name)));
    end if;
    update durable_internal.endpoint_secret s set until = clock_timestamp() + interval '24 hours'
     where s.namespace_id = endpoint_rotate.namespace_id and s.endpoint = endpoint_rotate.name and s.until = 'infinity';
    delete from durable_internal.endpoint_secret s
     where s.namespace_id = endpoint_rotate.namespace_id and s.endpoint = endpoint_rotate.name
       and (s.until < clock_timestamp()
            or s.secret not in (select k.secret from durable_internal.endpoint_secret k
                                 where k.namespace_id = endpoint_rotate.namespace_id
                                   and k.endpoint = endpoint_rotate.name
                                 order by k.made_at desc limit 10));
    insert into durable_internal.endpoint_secret (namespace_id, endpoint, secret)
    values (endpoint_rotate.namespace_id, endpoint_rotate.name, secret);
    perform durable_internal.endpoints_changed();
    return secret;
end
$$;

-- What calls of an endpoint are signed with, newest first.
create or replace function durable_internal.endpoint_secrets(namespace_id int, name text)
returns text[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return array(select s.secret from durable_internal.endpoint_secret s
                  where s.namespace_id = endpoint_secrets.namespace_id and s.endpoint = endpoint_secrets.name
                    and s.until > clock_timestamp()
                  order by s.made_at desc);
end
$$;

-- What was found at an endpoint: its jobs are served there from now on. `jobs` is the list of docs/protocol.md.
-- Runs that are parked for another version of one of them are taken up again. Raises DJ001, DJ003.
create or replace function durable_internal.endpoint_synced(namespace_id int, name text, version text, jobs jsonb)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    job jsonb;
begin
    if jsonb_typeof(jobs) is distinct from 'array' or jsonb_array_length(jobs) > 1000 then
        perform durable_internal.fail('DJ001', 'jobs is not a list; a list of up to 1000 objects is allowed');
    end if;
    perform durable_internal.check_options(jsonb_strip_nulls(jsonb_build_object('version', endpoint_synced.version)));
    for job in select j.value from jsonb_array_elements(jobs) as j loop
        perform durable_internal.check_name('jobs[].name', job ->> 'name');
        perform durable_internal.op_int('jobs[].maxAttempts', job -> 'maxAttempts', 1, 1000000);
        perform durable_internal.check_options(jsonb_strip_nulls(jsonb_build_object(
            'backoff', job -> 'backoff', 'version', coalesce(job -> 'version', to_jsonb(endpoint_synced.version)))));
    end loop;
    update durable_internal.endpoint e
       set version = endpoint_synced.version, synced_at = clock_timestamp(), failures = 0, rest_until = null,
           last_error = null
     where e.namespace_id = endpoint_synced.namespace_id and e.name = endpoint_synced.name;
    if not found then
        perform durable_internal.fail('DJ003', format('endpoint %s is not there', quote_literal(endpoint_synced.name)));
    end if;
    delete from durable_internal.endpoint_job e
     where e.namespace_id = endpoint_synced.namespace_id and e.endpoint = endpoint_synced.name;
    insert into durable_internal.endpoint_job (namespace_id, job, endpoint)
    select distinct endpoint_synced.namespace_id, j.value ->> 'name', endpoint_synced.name
      from jsonb_array_elements(jobs) as j
     order by 2
        on conflict (namespace_id, job) do update set endpoint = excluded.endpoint;
    insert into durable_internal.job as k (namespace_id, name, max_attempts, backoff, version)
    select distinct on (j.value ->> 'name') endpoint_synced.namespace_id, j.value ->> 'name',
           durable_internal.op_int('jobs[].maxAttempts', j.value -> 'maxAttempts', 1, 1000000), nullif(j.value -> 'backoff', 'null'),
           coalesce(j.value ->> 'version', endpoint_synced.version)
      from jsonb_array_elements(jobs) as j
     order by j.value ->> 'name'
        on conflict (namespace_id, name) do update
           set max_attempts = excluded.max_attempts, backoff = excluded.backoff, version = excluded.version;
    update durable_internal.timer t
       set due_at = clock_timestamp(), kind = 'step_retry', detail = null
      from durable_internal.lane l
      join durable_internal.endpoint_job e on e.namespace_id = l.namespace_id and e.job = l.job
     where t.kind = 'version' and t.lane_id = l.id and l.namespace_id = endpoint_synced.namespace_id
       and e.endpoint = endpoint_synced.name;
    if found then
        perform durable_internal.wake_scheduler();
    end if;
    perform durable_internal.endpoints_changed();
end
$$;

-- Deletes an endpoint; its runs stay queued until somebody serves their jobs. False: it was not there.
create or replace function durable_internal.endpoint_drop(namespace_id int, name text)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    delete from durable_internal.endpoint_job e
     where e.namespace_id = endpoint_drop.namespace_id and e.endpoint = endpoint_drop.name;
    delete from durable_internal.endpoint_secret s
     where s.namespace_id = endpoint_drop.namespace_id and s.endpoint = endpoint_drop.name;
    delete from durable_internal.endpoint e
     where e.namespace_id = endpoint_drop.namespace_id and e.name = endpoint_drop.name;
    if not found then
        return false;
    end if;
    perform durable_internal.endpoints_changed();
    return true;
end
$$;

-- Pauses an endpoint, or lets it go on: its runs stay queued meanwhile. Raises DJ003.
create or replace function durable_internal.endpoint_pause(namespace_id int, name text, paused boolean)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update durable_internal.endpoint e set paused = endpoint_pause.paused, failures = 0, rest_until = null
     where e.namespace_id = endpoint_pause.namespace_id and e.name = endpoint_pause.name;
    if not found then
        perform durable_internal.fail('DJ003', format('endpoint %s is not there', quote_literal(endpoint_pause.name)));
    end if;
    perform durable_internal.endpoints_changed();
end
$$;

-- The circuit breaker: a call did not reach a handler (refused, 429, 503). The endpoint rests, longer after each, a minute at
-- most, and its runs stay queued; then one look is taken again. `rest_ms` (null: none) is what the endpoint asked for.
-- Many calls fail at once when one goes down: those that come while it rests already change nothing, and so does one that
-- comes while somebody changes the row: two turns with rests of two endpoints must not wait for one another.
-- Called by commit_others. Locks: the endpoint's row, waiting for nobody.
create or replace function durable_internal.endpoint_rest(namespace_id int, name text, reason text, rest_ms bigint)
returns void
language plpgsql volatile
as $$
#variable_conflict use_column
begin
    update durable_internal.endpoint e
       set failures = e.failures + 1, last_error = left(reason, 500),
           rest_until = clock_timestamp()
                        + coalesce(case when rest_ms is not null then least(rest_ms, 3600000) end * interval '1 ms',
                                   least(interval '1 minute', interval '250 ms' * power(2, least(e.failures, 10))))
     where e.ctid = any (array(select t.ctid from durable_internal.endpoint t
                                where t.namespace_id = endpoint_rest.namespace_id and t.name = endpoint_rest.name
                                  and (t.rest_until is null or t.rest_until <= clock_timestamp())
                                  for update skip locked));
    if found then
        perform durable_internal.endpoints_changed();
    end if;
end
$$;

-- A call has reached a handler again.
create or replace function durable_internal.endpoint_well(worker_id uuid, name text)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update durable_internal.endpoint e set failures = 0, rest_until = null, last_error = null
      from durable_internal.worker w
     where w.id = endpoint_well.worker_id and e.namespace_id = w.namespace_id and e.name = endpoint_well.name
       and e.failures > 0;
end
$$;

-- The endpoints of a worker's namespace, as it has to call them; and makes its jobs those that can be called now. The worker
-- looks again when it is told, and every few seconds, since a rest ends without a word.
-- Locks: the worker's row, if its jobs have changed.
create or replace function durable_internal.worker_endpoints(worker_id uuid)
returns table (name text, url text, secrets text[], allow_private boolean, concurrency int, timeout_ms bigint,
               failing boolean, jobs text[], resting boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    tenant int;
    own text[];
    served text[];
begin
    select w.namespace_id, w.jobs into tenant, own from durable_internal.worker w where w.id = worker_endpoints.worker_id;
    select coalesce(array_agg(j.job order by j.job), '{}') into served
      from durable_internal.endpoint e
      join durable_internal.endpoint_job j on j.namespace_id = e.namespace_id and j.endpoint = e.name
     where e.namespace_id = tenant and not e.paused and coalesce(e.rest_until <= clock_timestamp(), true)
       and j.job <> all (own);
    update durable_internal.worker w set endpoint_jobs = served
     where w.id = worker_endpoints.worker_id and w.endpoint_jobs is distinct from served;
    return query
    select e.name, e.url,
           durable_internal.endpoint_secrets(tenant, e.name),
           e.allow_private, e.concurrency, (extract(epoch from e.timeout) * 1000)::bigint, e.failures > 0,
           array(select j.job from durable_internal.endpoint_job j
                  where j.namespace_id = e.namespace_id and j.endpoint = e.name order by j.job),
           coalesce(e.rest_until > clock_timestamp(), false)
      from durable_internal.endpoint e
     where e.namespace_id = tenant
     order by e.name;
end
$$;

-- An endpoint as the API shows it, without its secret.
create or replace function durable_internal.endpoint_json(e durable_internal.endpoint)
returns jsonb
language plpgsql stable
as $$
begin
    return jsonb_build_object('name', e.name, 'url', e.url, 'status',
        case when e.paused then 'paused' when e.rest_until > clock_timestamp() then 'resting'
             when e.failures > 0 then 'failing' when e.synced_at is null then 'new' else 'well' end,
        'jobs', (select coalesce(jsonb_agg(j.job order by j.job), '[]') from durable_internal.endpoint_job j
                  where j.namespace_id = e.namespace_id and j.endpoint = e.name),
        'version', e.version, 'concurrency', e.concurrency, 'timeoutMs', (extract(epoch from e.timeout) * 1000)::bigint,
        'allowPrivate', e.allow_private, 'failures', e.failures, 'restUntil', durable_internal.json_time(e.rest_until),
        'lastError', e.last_error, 'syncedAt', durable_internal.json_time(e.synced_at),
        'createdAt', durable_internal.json_time(e.created_at));
end
$$;

create or replace view durable.endpoints with (security_barrier) as
select e.name, e.url, e.paused, e.version, e.concurrency, e.timeout, e.allow_private, e.failures, e.rest_until, e.last_error,
       array(select j.job from durable_internal.endpoint_job j
              where j.namespace_id = e.namespace_id and j.endpoint = e.name order by j.job) as jobs,
       e.synced_at, e.created_at
  from durable_internal.endpoint e
 where e.namespace_id = (select durable_internal.session_namespace());
