-- Argument checks, and the only places that raise DJ001 … DJ006.
--
-- Here and in the files after it: what runs often is in plpgsql, which keeps its plans for the session. A function in
-- SQL that is not one plain expression is parsed and planned anew by each statement that calls it.

-- Raises an error of ours. Callers: every function that refuses something. Volatile, for raising is what it is called for: a
-- call of an immutable function with constants is made when its statement is planned.
create or replace function durable_internal.fail(code text, message text, hint text default null)
returns void
language plpgsql volatile
as $$
begin
    if fail.hint is null then
        raise exception using errcode = fail.code, message = fail.message;
    end if;
    raise exception using errcode = fail.code, message = fail.message, hint = fail.hint;
end
$$;

-- A part that users may count on by name, and that a later version brings.
create or replace function durable_internal.fail_not_available(what text)
returns void
language sql volatile
as $$
    select durable_internal.fail('DJ006', fail_not_available.what || ' is not available yet');
$$;

-- The namespace that this session's role was granted; `default` where none was. By session_user: inside
-- a SECURITY DEFINER function it is still the caller's login, and nobody can set it. For functions that have a search_path
-- of their own.
create or replace function durable_internal.login_namespace()
returns int
language plpgsql stable
as $$
begin
    if current_setting('durable.namespace', true) <> '' and pg_has_role(session_user, 'durable_api', 'member') then
        return current_setting('durable.namespace')::int;
    end if;
    return coalesce((select r.namespace_id from durable_internal.namespace_role r
                      where r.role = session_user), 1);
end
$$;

-- The same for whoever calls with the caller's search_path, in front of which functions of the caller's own may stand, as
-- views do. What that costs, 5 us, is not for each start.
create or replace function durable_internal.session_namespace()
returns int
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return durable_internal.login_namespace();
end
$$;

-- Makes the rest of this transaction one of a namespace. The first call of what durable-server does for an API key. The
-- setting counts only for logins that are members of durable_api: others may set it, and nothing comes of that.
create or replace function durable_internal.as_namespace(namespace_id int)
returns void
language plpgsql volatile
as $$
begin
    perform set_config('durable.namespace', namespace_id::text, true);
end
$$;

-- A UUID of version 7: milliseconds since 1970, then chance.
create or replace function durable_internal.uuid_v7()
returns uuid
language sql volatile parallel safe
as $$
    select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
                  substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                  from 1 for 6), 52, 1), 53, 1), 'hex')::uuid;
$$;

-- The smallest id of an instant: bounds of partitions, and of listings by time. An id has no instant before 1970, and its 48
-- bits end after the year 9999: what is beyond is the first, or the last.
create or replace function durable_internal.uuid_v7_floor(at timestamptz)
returns uuid
language sql immutable
as $$
    select case when uuid_v7_floor.at is not null then
        (encode(substring(int8send(floor(extract(epoch from least(greatest(uuid_v7_floor.at, '1970-01-01 00:00:00Z'),
                '9999-12-31 23:59:59Z')) * 1000)::bigint) from 3),
                'hex') || '00000000000000000000')::uuid end;
$$;

-- Names: of jobs, queues, steps, events. The length apart: `{1,200}` in the expression costs 18 us a name, `+` 0.3.
create or replace function durable_internal.check_name(argument text, value text)
returns void
language plpgsql immutable
as $$
begin
    if value is null or value !~ '^[A-Za-z0-9_.:/@-]+$' or length(value) > 200 then
        perform durable_internal.fail('DJ001', format('%s %s is not a name: 1 to 200 characters of '
            'A-Z a-z 0-9 _ . : / @ - are allowed', argument,
            case when value is null then 'null' else quote_literal(left(value, 60)) end));
    end if;
end
$$;

-- Keys: idempotency, correlation, concurrency. Null is for the caller to judge.
create or replace function durable_internal.check_key(argument text, value text)
returns void
language plpgsql immutable
as $$
begin
    if octet_length(value) not between 1 and 512 then
        perform durable_internal.fail('DJ001', format('%s is %s bytes; 1 to 512 bytes are allowed',
            argument, octet_length(value)));
    end if;
end
$$;

-- More than 400 digits that count, or an exponent beyond ±400. The caller has sorted out the ordinary ones.
create or replace function durable_internal.number_is_too_long(value numeric)
returns boolean
language sql immutable
as $$
    select scale(value) > 800 or abs(value) >= 1e401
        or length(trim('0' from translate(value::text, '-.', ''))) > 400;
$$;

-- Payloads: size, depth, and numbers that are short to say and long to print.
--
-- The bound on numbers comes before any ::text: 900 bytes of [1e131071, …] print as 13 MB, and
-- would then be read by every claim and list. The walk itself runs in C; its numbers come as one array, because
-- jsonb_path_query moves all that are left for each row: a list of 100,000 took seconds. A value of 14,000 bytes cannot
-- print as more than the limit once its numbers are bounded, so it is not printed. Most values are so small that a look at
-- their text answers all, for half the cost; one of 512 bytes that is out to print much takes 14 ms.
create or replace function durable_internal.check_json(argument text, value jsonb, bytes_max int)
returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
    bytes int;
begin
    if value is null then
        perform durable_internal.fail('DJ001', format('%s must not be null; a JSON value is allowed',
                                                      argument));
    elsif value = '{}' then
        return;
    end if;
    bytes := pg_column_size(value || '[]'::jsonb);  -- a copy: `value` may be compressed where it lies
    if bytes > 16::bigint * bytes_max then
        perform durable_internal.fail('DJ004', format('%s is over %s bytes; the limit is %s bytes',
                                                      argument, bytes_max, bytes_max));
    end if;
    -- 65 levels take 516 bytes, and a digit a character.
    if bytes <= 512 and octet_length(value::text) <= 400 then
        return;
    end if;
    if jsonb_path_exists(value, 'strict $.**{64 to last} ? (@.type() == "array" || @.type() == "object")')
    then
        perform durable_internal.fail('DJ001', format('%s is nested too deep; 64 levels are allowed',
                                                      argument));
    end if;
    if exists (select from jsonb_array_elements(jsonb_path_query_array(value, 'strict $.** ? (@.type() == "number")'))
                        as number (item)
                where (scale(number.item::numeric) > 400 or abs(number.item::numeric) >= 1e400)
                  and durable_internal.number_is_too_long(number.item::numeric)) then
        perform durable_internal.fail('DJ001', format('%s has a number of more than 400 digits; up to '
            '400 digits and exponents within -400 … 400 are allowed', argument));
    end if;
    if bytes > 14000 then
        bytes := octet_length(value::text);
        if bytes > bytes_max then
            perform durable_internal.fail('DJ004', format('%s is %s bytes; the limit is %s bytes',
                                                          argument, bytes, bytes_max));
        end if;
    end if;
end
$$;

create or replace function durable_internal.payload_bytes_max()
returns int language sql immutable as $$ select 1048576 $$;

-- A time within the next ten years (or in the past, which is at once).
create or replace function durable_internal.check_time(argument text, value timestamptz)
returns void
language plpgsql stable
as $$
begin
    if value > clock_timestamp() + interval '10 years' or value = '-infinity' then
        perform durable_internal.fail('DJ001', format('%s %s is too far; times up to 10 years ahead are '
                                                      'allowed', argument, value));
    end if;
end
$$;

-- A span of time: more than nothing, up to ten years. Null is for the caller to judge. PostgreSQL compares with months of
-- 30 days, so that '10 years' is less than the 3650 days that a duration may have.
create or replace function durable_internal.check_interval(argument text, value interval)
returns void
language plpgsql immutable
as $$
begin
    if value <= interval '0' or value > interval '3650 days' then
        perform durable_internal.fail('DJ001', format('%s %s is out of range; more than 0 and up to 10 '
                                                      'years is allowed', argument, value));
    end if;
end
$$;

create or replace function durable_internal.check_count(argument text, value bigint, low bigint, high bigint)
returns void
language plpgsql immutable
as $$
begin
    if value not between low and high then
        perform durable_internal.fail('DJ001', format('%s %s is out of range; %s to %s is allowed',
                                                      argument, value, low, high));
    end if;
end
$$;

-- Reads a duration such as 500ms, 30s, 1h30m.
create or replace function durable_internal.duration(argument text, value text)
returns interval
language plpgsql immutable
as $$
declare
    total numeric;
begin
    if value is null or value !~ '^([0-9]{1,12}(ms|s|m|h|d))+$' then
        perform durable_internal.fail('DJ001', format('%s %s is not a duration; such as 500ms, 30s, 5m, '
            '24h, 30d or 1h30m are allowed', argument,
            case when value is null then 'null' else quote_literal(left(value, 60)) end));
    end if;
    select sum(part[1]::numeric * case part[2] when 'ms' then 1 when 's' then 1000 when 'm' then 60000
                                               when 'h' then 3600000 else 86400000 end)
      into total
      from regexp_matches(value, '([0-9]+)(ms|s|m|h|d)', 'g') as part;
    if total > 315360000000 then
        perform durable_internal.fail('DJ001', format('%s %s is too long; up to 10 years (3650d) is allowed',
                                                      argument, quote_literal(value)));
    end if;
    return make_interval(secs => (total / 1000)::double precision);
end
$$;

-- {"initial":"1s","factor":2,"max":"1h","jitter":0.2}, each part optional.
create or replace function durable_internal.check_backoff(argument text, value jsonb)
returns void
language plpgsql immutable
as $$
declare
    part record;
begin
    if value is null then
        return;
    end if;
    if jsonb_typeof(value) <> 'object' then
        perform durable_internal.fail('DJ001', format('%s is not an object; initial, factor, max, jitter are '
                                                      'allowed in it', argument));
    end if;
    for part in select e.key, e.value from jsonb_each(value) as e loop
        case
        when part.key in ('initial', 'max') then
            perform durable_internal.duration(argument || '.' || part.key, part.value #>> '{}');
        when part.key = 'factor' then
            if jsonb_typeof(part.value) <> 'number' or part.value::numeric not between 1 and 1000 then
                perform durable_internal.fail('DJ001', format('%s.factor is out of range; a number from 1 '
                                                              'to 1000 is allowed', argument));
            end if;
        when part.key = 'jitter' then
            if jsonb_typeof(part.value) <> 'number' or part.value::numeric not between 0 and 1 then
                perform durable_internal.fail('DJ001', format('%s.jitter is out of range; a number from 0 '
                                                              'to 1 is allowed', argument));
            end if;
        else
            perform durable_internal.fail('DJ001', format('%s.%s is not known; initial, factor, max, jitter '
                                                          'are allowed', argument, left(part.key, 60)));
        end case;
    end loop;
end
$$;

-- Up to 16 tags, texts, key up to 64 and value up to 256 bytes.
create or replace function durable_internal.check_tags(value jsonb)
returns void
language plpgsql immutable
as $$
declare
    tag record;
    many int := 0;
begin
    if value is null or jsonb_typeof(value) <> 'object' then
        perform durable_internal.fail('DJ001', 'tags is not an object; an object of texts is allowed');
    end if;
    for tag in select e.key, e.value from jsonb_each(value) as e loop
        many := many + 1;
        if many > 16 then
            perform durable_internal.fail('DJ001', 'tags has over 16 tags; up to 16 are allowed');
        elsif octet_length(tag.key) not between 1 and 64 then
            perform durable_internal.fail('DJ001', format('tags has a key of %s bytes; 1 to 64 bytes are '
                                                          'allowed', octet_length(tag.key)));
        elsif jsonb_typeof(tag.value) <> 'string' then
            perform durable_internal.fail('DJ001', format('tags.%s is not a text; texts are allowed', tag.key));
        elsif octet_length(tag.value #>> '{}') > 256 then
            perform durable_internal.fail('DJ001', format('tags.%s is %s bytes; up to 256 bytes are allowed',
                                                          tag.key, octet_length(tag.value #>> '{}')));
        end if;
    end loop;
end
$$;

-- A start's options: what a caller may say beside the named arguments.
create or replace function durable_internal.check_options(value jsonb)
returns void
language plpgsql immutable
as $$
declare
    option record;
begin
    if value is null or jsonb_typeof(value) <> 'object' then
        perform durable_internal.fail('DJ001', 'options is not an object; backoff, onTerminal and version are '
                                               'allowed in it');
    end if;
    for option in select e.key, e.value from jsonb_each(value) as e loop
        case option.key
        when 'backoff' then
            perform durable_internal.check_backoff('options.backoff', option.value);
        when 'onTerminal' then
            if option.value not in ('"reuse"', '"restart"') then
                perform durable_internal.fail('DJ001', 'options.onTerminal is neither "reuse" nor "restart"');
            end if;
        when 'version' then
            if jsonb_typeof(option.value) <> 'string' or octet_length(option.value #>> '{}') > 200 then
                perform durable_internal.fail('DJ001', 'options.version is not a text of up to 200 bytes');
            end if;
        when 'debounce' then
            perform durable_internal.fail_not_available('options.debounce');
        else
            perform durable_internal.fail('DJ001', format('options.%s is not known; backoff, onTerminal and '
                                                          'version are allowed', left(option.key, 60)));
        end case;
    end loop;
end
$$;

-- Tells an idle worker that runs are ready, at most once until it has looked.
--
-- NOTIFY takes a lock global to the cluster at commit, so it is sent only while the flag says that
-- somebody idle would hear it; whoever lowers the flag sends it. The flag is outside of
-- transactions: a start that rolls back has eaten a hint, and the workers' slow poll covers that. A full
-- notification queue would fail the caller's commit: above half, no hints.
create or replace function durable_internal.wake_workers()
returns void
language plpgsql volatile
as $$
begin
    if durable_internal.lower_flag('durable_internal.worker_idle') then
        perform pg_notify('durable_ready', '');
    end if;
end
$$;

-- The same for the scheduler: an event, a wait, or a timer due before its next look.
create or replace function durable_internal.wake_scheduler()
returns void
language plpgsql volatile
as $$
begin
    if durable_internal.lower_flag('durable_internal.scheduler_idle') then
        perform pg_notify('durable_due', '');
    end if;
end
$$;

-- Tells somebody idle that an event is there: a worker, which matches it in the turn in which it claims the runs
-- that it resumes, or else the scheduler.
create or replace function durable_internal.wake_matcher()
returns void
language plpgsql volatile
as $$
begin
    if durable_internal.lower_flag('durable_internal.worker_idle') then
        perform pg_notify('durable_ready', 'event');
    else
        perform durable_internal.wake_scheduler();
    end if;
end
$$;

-- Tells servers where somebody waits for a result that runs have ended.
create or replace function durable_internal.wake_waiters()
returns void
language plpgsql volatile
as $$
begin
    if durable_internal.lower_flag('durable_internal.result_wanted') then
        perform pg_notify('durable_ended', '');
    end if;
end
$$;

-- Lowers a flag. True: it was up, and the caller has to notify. A single expression, which `if` takes in without a call.
create or replace function durable_internal.lower_flag(flag regclass)
returns boolean
language sql volatile
as $$
    select case when pg_sequence_last_value(flag) = 2 and pg_notification_queue_usage() < 0.5
                then setval(flag, 1) = 1 else false end;
$$;

-- Raises a flag: whoever calls is about to be idle, and a hint is welcome. It looks once more before it sleeps.
create or replace function durable_internal.raise_flag(flag regclass)
returns void
language plpgsql volatile
as $$
begin
    if pg_sequence_last_value(flag) is distinct from 2 then
        perform setval(flag, 2);
    end if;
end
$$;

-- Has the server find out within half a minute that this session's client is gone: a machine that went down, a network that
-- was cut. PostgreSQL's own setting is two hours, and as long the session would keep its transaction. Our own programs
-- call it first on their connections, by way of what they call there.
create or replace function durable_internal.miss_the_client()
returns void
language plpgsql volatile
as $$
begin
    perform set_config(s.name, s.value, false)
       from (values ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'),
                    ('tcp_user_timeout', '15s')) as s (name, value);
end
$$;

-- Sets how this session plans: with one plan for each statement, and by the tables' indexes only. A plan that was made
-- while `ready` was empty would otherwise read all of it later. Of the session, because a function's own settings
-- cost each of its calls some microseconds. Our own programs call it first on their connections.
create or replace function durable_internal.plan_by_index()
returns void
language plpgsql volatile
as $$
begin
    perform set_config(s.name, s.value, false)
       from (values ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'), ('enable_seqscan', 'off'),
                    ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('enable_bitmapscan', 'off'))
            as s (name, value);
end
$$;
