-- The people of one group confirm their address. An event may come before its wait, or even before its
-- run; sent again with its idempotency key, it is one event.
--
--     psql "$DURABLE_DATABASE_URL" -v verifies=after -f examples/sql/verify.sql
\set ON_ERROR_STOP on

select durable.send_event('email.verified', jsonb_build_object('userId', user_id),
                          correlation_key => 'user:' || user_id,
                          idempotency_key => 'email.verified:user:' || user_id)
  from signup
 where verifies = :'verifies';
