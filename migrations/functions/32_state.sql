-- State: get, set, delete, increment, locks. durable.state_* for callers, state_op for handlers' commits and our own
-- server; both are thin, over the functions that take the namespace first.
--
-- Each change is one statement on one row, so PostgreSQL's row lock decides every race: who comes second waits for
-- the first one's transaction, and its condition is looked at again on what that left. What a row has to be for a change (alive,
-- of a version, of an owner) is therefore in the statement's own WHERE, never looked up before. At REPEATABLE READ the
-- second gets 40001 instead.
--
-- Lock order: after lease and run rows, then state, then state_lock, each by (namespace_id, key) in the order of bytes. A
-- caller's transaction holds what it has changed until it ends, and a lock's row even if it was told false; so whoever
-- commits for many runs waits for such rows only for a moment, and gives up the one run that needs them (commit_each,
-- commit_answers), and whoever ends runs passes over them (free_locks).

-- A key that has to be there.
create or replace function durable_internal.check_needed_key(argument text, value text)
returns void
language plpgsql immutable
as $$
begin
    if value is null then
        perform durable_internal.fail('DJ001', format('%s must not be null; 1 to 512 bytes are allowed', argument));
    end if;
    perform durable_internal.check_key(argument, value);
end
$$;

-- A value, its version and its end; all null where there is none.
create or replace function durable_internal.state_get(namespace_id int, key text, out value jsonb,
    out version bigint, out expires_at timestamptz)
language plpgsql stable
as $$
#variable_conflict use_column
begin
    perform durable_internal.check_needed_key('key', key);
    select s.value, s.version, s.expires_at into value, version, expires_at
      from durable_internal.state s
     where s.namespace_id = state_get.namespace_id and s.key = state_get.key
       and (s.expires_at is null or s.expires_at > clock_timestamp());
end
$$;

-- Sets a value, and answers its new version. `if_version` null: whatever is there; 0: only if nothing is; else only if that
-- version is there. One of many with the same `if_version` wins: the others find another version.
--
-- A version is drawn again under the row's lock: numbers drawn before could be stored in another order, and a key's
-- versions would go back. Locks: the row. Raises DJ001, DJ004; DJ006: another version is there.
create or replace function durable_internal.state_set(namespace_id int, key text, value jsonb, expires_at timestamptz,
                                                      if_version bigint)
returns bigint
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    given bigint;
    there bigint;
begin
    perform durable_internal.check_needed_key('key', key);
    perform durable_internal.check_json('value', value, durable_internal.payload_bytes_max());
    perform durable_internal.check_time('expires_at', expires_at);
    if if_version < 0 then
        perform durable_internal.fail('DJ001', format('if_version %s is out of range; 0 (absent) or a version is '
                                                      'allowed', if_version));
    end if;
    if if_version > 0 then
        update durable_internal.state s
           set value = state_set.value, expires_at = state_set.expires_at,
               version = nextval('durable_internal.state_version_seq')
         where s.namespace_id = state_set.namespace_id and s.key = state_set.key
           and s.version = state_set.if_version and (s.expires_at is null or s.expires_at > clock_timestamp())
        returning s.version into given;
    else
        insert into durable_internal.state as s (namespace_id, key, version, expires_at, value)
        values (state_set.namespace_id, state_set.key, nextval('durable_internal.state_version_seq'),
                state_set.expires_at, state_set.value)
            on conflict (namespace_id, key) do update
           set value = excluded.value, expires_at = excluded.expires_at,
               version = nextval('durable_internal.state_version_seq')
         where state_set.if_version is null or s.expires_at <= clock_timestamp()
        returning s.version into given;
    end if;
    if given is null then
        select g.version into there from durable_internal.state_get(namespace_id, key) as g;
        perform durable_internal.fail('DJ006', format('key %s %s; if_version is %s',
            quote_literal(left(state_set.key, 60)),
            case when there is null then 'is absent' else format('has version %s', there) end, if_version),
            'Get it again, and decide anew; 0 means that it must be absent.');
    end if;
    return given;
end
$$;

-- Removes a key. False: it was not there. Locks: the row.
create or replace function durable_internal.state_delete(namespace_id int, key text)
returns boolean
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    alive boolean;
begin
    perform durable_internal.check_needed_key('key', key);
    delete from durable_internal.state s
     where s.namespace_id = state_delete.namespace_id and s.key = state_delete.key
    returning s.expires_at is null or s.expires_at > clock_timestamp() into alive;
    return coalesce(alive, false);
end
$$;

-- The sum of a stored value and a number. Raises DJ006: the value is no integer of 64 bits; DJ001: the sum is none.
create or replace function durable_internal.state_sum(key text, value jsonb, by bigint)
returns bigint
language plpgsql immutable
as $$
declare
    addend numeric;
    total numeric;
begin
    if jsonb_typeof(state_sum.value) = 'number' then
        addend := state_sum.value::numeric;
    end if;
    if addend is null or addend <> trunc(addend)
       or addend not between -9223372036854775808 and 9223372036854775807 then
        perform durable_internal.fail('DJ006', format('key %s holds no integer of 64 bits; only such a value can be '
                                                      'incremented', quote_literal(left(state_sum.key, 60))));
    end if;
    total := addend + state_sum.by;
    if total not between -9223372036854775808 and 9223372036854775807 then
        perform durable_internal.fail('DJ001', format('by %s takes key %s out of range; -9223372036854775808 to '
            '9223372036854775807 is allowed', state_sum.by, quote_literal(left(state_sum.key, 60))));
    end if;
    return total::bigint;
end
$$;

-- Adds to an integer, which is 0 where there is none, and answers the sum. `expires_at` null leaves its end as it is.
--
-- Increments add up exactly: the sum is computed anew on what the transaction before left. Round again: the key came or went
-- between the two statements. Locks: the row. Raises DJ001, DJ006.
create or replace function durable_internal.state_increment(namespace_id int, key text, by bigint,
                                                            expires_at timestamptz)
returns bigint
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    total bigint;
begin
    perform durable_internal.check_needed_key('key', key);
    perform durable_internal.check_time('expires_at', expires_at);
    if by is null then
        perform durable_internal.fail('DJ001', 'by must not be null; an integer is allowed');
    end if;
    loop
        update durable_internal.state s
           set value = to_jsonb(durable_internal.state_sum(s.key, s.value, state_increment.by)),
               version = nextval('durable_internal.state_version_seq'),
               expires_at = coalesce(state_increment.expires_at, s.expires_at)
         where s.namespace_id = state_increment.namespace_id and s.key = state_increment.key
           and (s.expires_at is null or s.expires_at > clock_timestamp())
        returning s.value::bigint into total;
        if found then
            return total;
        end if;
        -- FAILPOINT increment.absent
        insert into durable_internal.state as s (namespace_id, key, version, expires_at, value)
        values (state_increment.namespace_id, state_increment.key, nextval('durable_internal.state_version_seq'),
                state_increment.expires_at, to_jsonb(state_increment.by))
            on conflict (namespace_id, key) do update
           set value = excluded.value, expires_at = excluded.expires_at,
               version = nextval('durable_internal.state_version_seq')
         where s.expires_at <= clock_timestamp();
        if found then
            return by;
        end if;
    end loop;
end
$$;

-- Takes a lock for `ttl` from now. True: it was free, over, or the owner's own, whose time begins anew; false: another has it.
-- A lock has nothing to do with a value of the same key. `run_id` (or null) is the run whose end frees it: if its row was held
-- just then, free_locks has passed over it, and whether the run has ended is looked at here.
-- Locks: the row; it waits for another's transaction that takes or frees the lock just now. Raises DJ001.
create or replace function durable_internal.state_lock(namespace_id int, key text, owner text, run_id uuid,
                                                       ttl interval)
returns boolean
language plpgsql volatile
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    perform durable_internal.check_needed_key('key', key);
    perform durable_internal.check_needed_key('owner', owner);
    if ttl is null then
        perform durable_internal.fail('DJ001', 'ttl must not be null; more than 0 and up to 10 years is allowed');
    end if;
    perform durable_internal.check_interval('ttl', ttl);
    insert into durable_internal.state_lock as l (namespace_id, key, expires_at, run_id, owner)
    values (state_lock.namespace_id, state_lock.key, clock_timestamp() + state_lock.ttl, state_lock.run_id,
            state_lock.owner)
        on conflict (namespace_id, key) do update
       set expires_at = clock_timestamp() + state_lock.ttl, run_id = excluded.run_id, owner = excluded.owner
     where l.owner = excluded.owner or l.expires_at <= clock_timestamp() or durable_internal.run_has_ended(l.run_id);
    return found;
end
$$;

-- False where there is no such run. Volatile, so that it sees what was committed while its caller's statement waited for a
-- row; a function, so that a lock that is free opens no partition of `run`.
create or replace function durable_internal.run_has_ended(run_id uuid)
returns boolean
language plpgsql volatile
as $$
begin
    return exists (select from durable_internal.run r where r.id = run_has_ended.run_id and r.status is not null);
end
$$;

-- Frees a lock. False: the owner did not have it, or not any more. Locks: the row. Raises DJ001.
create or replace function durable_internal.state_unlock(namespace_id int, key text, owner text)
returns boolean
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    held boolean;
begin
    perform durable_internal.check_needed_key('key', key);
    perform durable_internal.check_needed_key('owner', owner);
    delete from durable_internal.state_lock l
     where l.namespace_id = state_unlock.namespace_id and l.key = state_unlock.key and l.owner = state_unlock.owner
    returning l.expires_at > clock_timestamp() into held;
    return coalesce(held, false);
end
$$;

-- Frees the locks of runs that end. Called by whoever ends them, under their leases: nothing takes a lock for these runs
-- after it. One look into an index that has only the locks of runs.
--
-- Nobody waits here: a caller who asks for such a lock, and is told that it is another's, holds its row until his
-- transaction ends, and must not keep a worker's turn, the timers or the reaper with it. A row that is passed over is of no
-- account from now on, since its run has ended (state_lock), and goes when its time is over. Locks: their rows, waiting for none.
create or replace function durable_internal.free_locks(run_ids uuid[])
returns void
language plpgsql volatile
as $$
#variable_conflict use_column
begin
    delete from durable_internal.state_lock
     where ctid = any (array(select l.ctid from durable_internal.state_lock l
                              where l.run_id = any (free_locks.run_ids)
                                for update skip locked));
end
$$;

create or replace function durable_internal.free_locks(run_id uuid)
returns void
language plpgsql volatile
as $$
begin
    perform durable_internal.free_locks(array[free_locks.run_id]);
end
$$;

-- A text of an op; null for anything else, which may be short to say and long to print.
create or replace function durable_internal.json_string(value jsonb)
returns text
language sql immutable
as $$
    select case when jsonb_typeof(value) = 'string' then value #>> '{}' end;
$$;

-- A time of an op: a text of RFC 3339, or null. Raises DJ001.
create or replace function durable_internal.json_instant(argument text, value jsonb)
returns timestamptz
language plpgsql stable
as $$
declare
    text text := durable_internal.json_string(value);
begin
    if value is null or value = 'null' then
        return null;
    end if;
    if text ~ '^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$' then
        begin
            return text::timestamptz;
        exception
            when data_exception then null;  -- the 31st of June
        end;
    end if;
    perform durable_internal.fail('DJ001', format('%s %s is not a time; such as 2026-05-06T09:00:00Z is allowed',
        argument, coalesce(quote_literal(left(text, 60)), format('(%s)', jsonb_typeof(value)))));
end
$$;

-- A whole number of an op, or null. Raises DJ001.
create or replace function durable_internal.json_integer(argument text, value jsonb)
returns bigint
language plpgsql immutable
as $$
begin
    if value is null or value = 'null' then
        return null;
    end if;
    if jsonb_typeof(value) = 'number' then
        if value::numeric = trunc(value::numeric)
           and value::numeric between -9223372036854775808 and 9223372036854775807 then
            return value::numeric::bigint;
        end if;
    end if;
    perform durable_internal.fail('DJ001', format('%s is not an integer of 64 bits', argument));
end
$$;

-- One op of a handler, or of a caller over HTTP (`run_id` null), with its arguments as JSON; answers the `result` that
-- docs/protocol.md has for it. The owner of a run's locks is the run; without a run it is `args.owner`.
--
--   get → {"value", "version", "expiresAt"} or null    set {value, expiresAt, ifVersion} → {"version"}
--   delete → true or false                             increment {by, expiresAt} → the sum
--   lock {ttl} → true or false                         unlock → true or false
--
-- Called under the run's lease; a lock on a row is held until that transaction ends, so several ops of one transaction
-- come in the order of their keys where their order is free, and after hold_state where it is not. Raises DJ001, DJ004,
-- DJ006; then nothing was changed.
create or replace function durable_internal.state_op(namespace_id int, run_id uuid, action text, key text,
                                                     args jsonb default '{}')
returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    owner text := coalesce(state_op.run_id::text, durable_internal.json_string(state_op.args -> 'owner'));
begin
    case action
    when 'get' then
        return coalesce((select jsonb_build_object('value', g.value, 'version', g.version, 'expiresAt',
                                                   durable_internal.json_time(g.expires_at))
                           from durable_internal.state_get(namespace_id, key) as g
                          where g.version is not null), 'null');
    when 'set' then
        return jsonb_build_object('version', durable_internal.state_set(namespace_id, key, args -> 'value',
            durable_internal.json_instant('expiresAt', args -> 'expiresAt'),
            durable_internal.json_integer('ifVersion', args -> 'ifVersion')));
    when 'delete' then
        return to_jsonb(durable_internal.state_delete(namespace_id, key));
    when 'increment' then
        return to_jsonb(durable_internal.state_increment(namespace_id, key,
            coalesce(durable_internal.json_integer('by', args -> 'by'), 1),
            durable_internal.json_instant('expiresAt', args -> 'expiresAt')));
    when 'lock' then
        return to_jsonb(durable_internal.state_lock(namespace_id, key, owner, run_id,
                                                    durable_internal.duration('ttl', durable_internal.json_string(args -> 'ttl'))));
    when 'unlock' then
        return to_jsonb(durable_internal.state_unlock(namespace_id, key, owner));
    else
        perform durable_internal.fail('DJ001', format('action %s is not known; get, set, delete, increment, lock and '
            'unlock are allowed', coalesce(quote_literal(left(action, 60)), 'null')));
    end case;
end
$$;

-- What a list of ops changes of state: rows that it will lock.
create or replace function durable_internal.state_changes(ops jsonb)
returns table (of_lock boolean, key text)
language sql immutable
as $$
    select o.value ->> 'action' in ('lock', 'unlock'), o.value ->> 'key'
      from jsonb_array_elements(case when jsonb_typeof(state_changes.ops) = 'array' then state_changes.ops end) as o
     where o.value ->> 'op' = 'state' and o.value ->> 'action' in ('set', 'delete', 'increment', 'lock', 'unlock');
$$;

-- For transactions that do ops of many runs, before the first of them. Where each run changes one row, the runs go in the
-- order of the rows, and two such transactions wait for each other's rows in one order. A run that changes several does
-- so in its handler's order: if there is one, all rows that are there are locked first, in the order of all.
--
-- Not otherwise: a row that is locked here, and changed in the subtransaction of its run, gets a MultiXact. A key that is not
-- there yet cannot be locked; two who make two such keys the other way round run into their lock_timeout, once. What a caller's
-- transaction holds is waited for as long as lock_timeout says; then it is left to the runs that need it.
-- Called by commit_each and commit_answers, which hold the runs' leases or will. Locks: rows of state, then of state_lock, by
-- (namespace_id, key).
create or replace function durable_internal.hold_state(runs uuid[], ops jsonb[])
returns void
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    tenants int[];
    keys text[];
    lock_tenants int[];
    lock_keys text[];
begin
    perform from unnest(ops) as i (ops)
      where (select count(*) from durable_internal.state_changes(i.ops)) > 1;
    if not found then
        return;
    end if;
    select array_agg(c.namespace_id order by c.namespace_id, c.key collate "C") filter (where not c.of_lock),
           array_agg(c.key order by c.namespace_id, c.key collate "C") filter (where not c.of_lock),
           array_agg(c.namespace_id order by c.namespace_id, c.key collate "C") filter (where c.of_lock),
           array_agg(c.key order by c.namespace_id, c.key collate "C") filter (where c.of_lock)
      into tenants, keys, lock_tenants, lock_keys
      from (select distinct durable_internal.tenant_of(i.run_id) as namespace_id, s.of_lock, s.key
              from unnest(hold_state.runs, hold_state.ops) as i (run_id, ops)
             cross join lateral durable_internal.state_changes(i.ops) as s) as c;
    begin
        perform from unnest(tenants, keys) as k (namespace_id, key)
          cross join lateral (select from durable_internal.state s
                               where s.namespace_id = k.namespace_id and s.key = k.key
                                 for update) as s;
        perform from unnest(lock_tenants, lock_keys) as k (namespace_id, key)
          cross join lateral (select from durable_internal.state_lock l
                               where l.namespace_id = k.namespace_id and l.key = k.key
                                 for update) as l;
    exception when lock_not_available or deadlock_detected then
        perform durable_internal.be_impatient();
    end;
end
$$;

-- Somebody's open transaction holds what a run needs: that was waited for, and is not again in this transaction. Holds until
-- the function with a lock_timeout of its own ends that this was called from.
create or replace function durable_internal.be_impatient()
returns void
language plpgsql volatile
as $$
begin
    perform set_config('lock_timeout', '1ms', true);
end
$$;

-- The namespace of a run that is leased; null: it is not.
create or replace function durable_internal.tenant_of(run_id uuid)
returns int
language plpgsql stable
as $$
begin
    return (select r.namespace_id
              from durable_internal.lease l
              join durable_internal.lane r on r.id = l.lane_id
             where l.run_id = tenant_of.run_id);
end
$$;

-- Removes up to `most` values and up to `most` locks that have expired, passing over what others hold. Answers how many;
-- call again while that is not 0. Called by the scheduler.
create or replace function durable_internal.expire_state(most int)
returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    now_at timestamptz := clock_timestamp();  -- not called in a condition: a volatile value is none of an index
    values_gone int;
    locks_gone int;
begin
    with next as materialized (
        select s.ctid from durable_internal.state s where s.expires_at <= now_at order by s.expires_at
         limit expire_state.most
           for update skip locked
    )
    delete from durable_internal.state where ctid = any (array(select n.ctid from next n));
    get diagnostics values_gone = row_count;
    with next as materialized (
        select l.ctid from durable_internal.state_lock l where l.expires_at <= now_at order by l.expires_at
         limit expire_state.most
           for update skip locked
    )
    delete from durable_internal.state_lock where ctid = any (array(select n.ctid from next n));
    get diagnostics locks_gone = row_count;
    return values_gone + locks_gone;
end
$$;

create or replace function durable.state_get(key text, out value jsonb, out version bigint,
                                             out expires_at timestamptz)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select g.value, g.version, g.expires_at into value, version, expires_at
      from durable_internal.state_get(durable_internal.session_namespace(), key) as g;
end
$$;

create or replace function durable.state_set(key text, value jsonb, expires_at timestamptz default null,
                                             if_version bigint default null)
returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return durable_internal.state_set(durable_internal.session_namespace(), key, value, expires_at, if_version);
end
$$;

create or replace function durable.state_delete(key text)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return durable_internal.state_delete(durable_internal.session_namespace(), key);
end
$$;

create or replace function durable.state_increment(key text, by bigint default 1,
                                                   expires_at timestamptz default null)
returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return durable_internal.state_increment(durable_internal.session_namespace(), key, by, expires_at);
end
$$;

create or replace function durable.state_lock(key text, owner text, ttl interval)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return durable_internal.state_lock(durable_internal.session_namespace(), key, owner, null, ttl);
end
$$;

create or replace function durable.state_unlock(key text, owner text)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return durable_internal.state_unlock(durable_internal.session_namespace(), key, owner);
end
$$;
