-- A wait for one of several events: the first is in its row in `wait`, as any wait's, the others are here, and in that row too.

alter table durable_internal.wait add column others jsonb; -- [{"event", "key"}…]; null: none

create table durable_internal.wait_other (
    namespace_id int not null,
    event text not null,
    correlation_key text not null,
    wait_id bigint not null
);
create index wait_other_by_key on durable_internal.wait_other (namespace_id, event, correlation_key, wait_id);
