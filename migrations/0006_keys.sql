-- API keys. Of a key only its hash is kept: whoever reads this table cannot use one.

create table durable_internal.api_key (
    id text primary key,
    namespace_id int not null references durable_internal.namespace,
    name text not null,
    hash bytea not null,  -- SHA-256 of the whole text, dj_<id>_<secret>
    scopes text[] not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    revoked_at timestamptz,
    replaced_by text constraint api_key_has_one_successor unique references durable_internal.api_key,
    constraint api_key_hash_is_sha256 check (octet_length(hash) = 32)
);
