-- API keys: made, found, listed, revoked, rotated. A key is the text dj_<id>_<secret>: 16 and 43 characters of
-- A-Z a-z 0-9. The id is public and finds the row; the secret is worth 256 bits, so a plain SHA-256 of the text is as hard
-- to turn back as any slow hash. The text is answered once, by key_create and key_rotate, and kept nowhere.
--
-- Who has looked a key up may remember it for a short while: durable_keys is notified, with the key's id, when one is
-- revoked or rotated. It is a hint, as all notifications are; what remembers has to forget by itself.
-- These are for owners; durable_api may call key_find.

-- A text of so many characters of A-Z a-z 0-9, each as likely as any other: of PostgreSQL's cryptographic random bytes, which
-- gen_random_uuid() gives without an extension. Of its 16 bytes two have fixed bits; of the others those that would make
-- the first letters likelier (248 and over: 256 is no multiple of 62) are left out.
create or replace function durable_internal.random_text(length int)
returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    made text := '';
    bytes bytea;
begin
    while length(made) < random_text.length loop
        bytes := uuid_send(gen_random_uuid());
        for i in 0 .. 15 loop
            continue when i in (6, 8) or get_byte(bytes, i) >= 248;
            made := made || substr('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789',
                                   get_byte(bytes, i) % 62 + 1, 1);
        end loop;
    end loop;
    return left(made, random_text.length);
end
$$;

-- Refuses what is not the id of a key. The value is not shown: it may be a whole key, pasted by mistake.
create or replace function durable_internal.check_key_id(key_id text)
returns void
language plpgsql immutable
as $$
begin
    if key_id is null or key_id !~ '^[A-Za-z0-9]{16}$' then
        perform durable_internal.fail('DJ001', 'key_id is not the id of a key: 16 characters of A-Z a-z 0-9 are '
            'allowed', 'In dj_<id>_<secret> it is the part in the middle.');
    end if;
end
$$;

-- Tells whoever remembers a key. Above half of the notification queue it is left out: a full one would refuse the revoke.
create or replace function durable_internal.notify_key(key_id text)
returns void
language plpgsql volatile
as $$
begin
    if pg_notification_queue_usage() < 0.5 then
        perform pg_notify('durable_keys', notify_key.key_id);
    end if;
end
$$;

-- Stores a new key, and answers its id and its text, once.
create or replace function durable_internal.key_add(namespace_id int, name text, scopes text[],
    expires_at timestamptz, out key_id text, out key text)
language plpgsql volatile
as $$
#variable_conflict use_column
begin
    key_id := durable_internal.random_text(16);
    key := format('dj_%s_%s', key_id, durable_internal.random_text(43));
    insert into durable_internal.api_key (id, namespace_id, name, hash, scopes, created_at, expires_at)
    values (key_add.key_id, key_add.namespace_id, key_add.name, sha256(convert_to(key_add.key, 'UTF8')),
            key_add.scopes, clock_timestamp(), key_add.expires_at);
end
$$;

-- Makes a key of a namespace, which is made if it is not there. `name` is for people, and may be used again. Each scope
-- counts once, in the order in which they are documented.
-- Locks: the namespace's row, if it is new. Raises DJ001.
create or replace function durable_internal.key_create(namespace text, name text, scopes text[], out key_id text,
                                                       out key text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    known constant text[] := '{read,start,operate,admin,payloads}'::text[];
    wrong text;
    place int;
begin
    perform durable_internal.check_name('namespace', namespace);
    perform durable_internal.check_name('name', name);
    if coalesce(cardinality(scopes), 0) = 0 then
        perform durable_internal.fail('DJ001', 'scopes is empty; one or more of read, start, operate, admin and '
                                               'payloads are allowed');
    end if;
    foreach wrong in array scopes loop
        if wrong is null or wrong <> all (known) then
            perform durable_internal.fail('DJ001', format('scopes has %s; read, start, operate, admin and payloads '
                'are allowed', case when wrong is null then 'a null' else quote_literal(left(wrong, 60)) end));
        end if;
    end loop;
    select n.id into place from durable_internal.namespace n where n.name = key_create.namespace;
    while place is null loop  -- the next statement sees who was quicker
        insert into durable_internal.namespace (name) values (key_create.namespace) on conflict (name) do nothing;
        select n.id into place from durable_internal.namespace n where n.name = key_create.namespace;
    end loop;
    select a.key_id, a.key into key_id, key
      from durable_internal.key_add(place, key_create.name,
               array(select k from unnest(known) as k where k = any (key_create.scopes)), null) as a;
end
$$;

-- What a key that is presented has to have: look it up by the id in it, and compare the SHA-256 of its whole text with
-- `hash`, in constant time. No row: it is unknown, revoked or expired, which nobody can tell apart.
-- Guarantee 14: what the caller may see is the namespace given here and no other. Called by durable-server.
create or replace function durable_internal.key_find(key_id text)
returns table (namespace_id int, hash bytea, scopes text[])
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select k.namespace_id, k.hash, k.scopes
      from durable_internal.api_key k
     where k.id = key_find.key_id and k.revoked_at is null
       and (k.expires_at is null or k.expires_at > clock_timestamp());
end
$$;

-- All keys of all namespaces, oldest first. `status`: active, expired, revoked.
create or replace function durable_internal.key_list()
returns table (key_id text, namespace text, name text, scopes text[], status text, created_at timestamptz,
               expires_at timestamptz, revoked_at timestamptz, replaced_by text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select k.id, n.name, k.name, k.scopes,
           case when k.revoked_at is not null then 'revoked'
                when k.expires_at <= clock_timestamp() then 'expired' else 'active' end,
           k.created_at, k.expires_at, k.revoked_at, k.replaced_by
      from durable_internal.api_key k
      join durable_internal.namespace n on n.id = k.namespace_id
     order by k.created_at, k.id;
end
$$;

-- Ends a key at once. False: it had been revoked before. Locks: the key's row. Raises DJ001, DJ003.
create or replace function durable_internal.key_revoke(key_id text)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform durable_internal.check_key_id(key_id);
    update durable_internal.api_key k set revoked_at = clock_timestamp()
     where k.id = key_revoke.key_id and k.revoked_at is null;
    if found then
        perform durable_internal.notify_key(key_id);
        return true;
    end if;
    perform from durable_internal.api_key k where k.id = key_revoke.key_id;
    if not found then
        perform durable_internal.fail('DJ003', format('key %s is not there', key_revoke.key_id));
    end if;
    return false;
end
$$;

-- Makes a key that takes another one's place, with its namespace, name, scopes and end. The old one holds for `overlap`
-- more, so that callers can be moved over; 0 ends it at once.
--
-- The old row is locked first: of two that rotate one key, one has a successor to show, and the other is told of it.
-- Raises DJ001, DJ003; DJ006: it was revoked or rotated before, or has expired.
create or replace function durable_internal.key_rotate(key_id text, overlap interval default '24 hours',
                                                       out new_key_id text, out key text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    old durable_internal.api_key;
    instant timestamptz;
begin
    perform durable_internal.check_key_id(key_id);
    if overlap is null or overlap < interval '0' or overlap > interval '3650 days' then
        perform durable_internal.fail('DJ001', format('overlap %s is out of range; 0 to 10 years is allowed',
                                                      coalesce(overlap::text, 'null')));
    end if;
    select k.* into old from durable_internal.api_key k where k.id = key_rotate.key_id for update;
    if not found then
        perform durable_internal.fail('DJ003', format('key %s is not there', key_rotate.key_id));
    end if;
    instant := clock_timestamp();
    if old.revoked_at is not null then
        perform durable_internal.fail('DJ006', format('key %s is revoked', old.id), 'Create another key.');
    elsif old.replaced_by is not null then
        perform durable_internal.fail('DJ006', format('key %s was rotated before, to key %s', old.id,
                                                      old.replaced_by), 'Rotate that one.');
    elsif old.expires_at <= instant then
        perform durable_internal.fail('DJ006', format('key %s has expired', old.id), 'Create another key.');
    end if;
    select a.key_id, a.key into new_key_id, key
      from durable_internal.key_add(old.namespace_id, old.name, old.scopes, old.expires_at) as a;
    update durable_internal.api_key k
       set replaced_by = key_rotate.new_key_id, expires_at = least(k.expires_at, instant + key_rotate.overlap)
     where k.id = old.id;
    perform durable_internal.notify_key(old.id);
end
$$;
