-- The application's own tables, beside Durable Jobs in the same database, and the people who signed up.
--
--     psql "$DURABLE_DATABASE_URL" -f examples/sql/signup.sql < examples/people.csv
\set ON_ERROR_STOP on
begin;

create table app_user (
    id text primary key,
    name text not null,
    email text not null,
    locked boolean not null default true,
    unlocks int not null default 0           -- how often: a step_tx does it exactly once
);

create table signup (
    user_id text primary key,
    name text not null,
    email text not null unique,
    job text not null,
    verify_within text,                      -- null: the handler's 24h
    verifies text check (verifies in ('before', 'meanwhile', 'after', 'never')),
    mail_server text check (mail_server in ('greylists', 'tarpits')),
    run_id uuid
);
\copy signup (user_id, name, email, job, verify_within, verifies, mail_server) from pstdin with (format csv, header match, encoding 'UTF8')

commit;
