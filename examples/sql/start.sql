-- Starts a run for each signup, in the transaction that notes it down: both are there, or neither is.
-- Run it again: the idempotency keys give the same runs.
--
--     psql "$DURABLE_DATABASE_URL" -f examples/sql/start.sql
\set ON_ERROR_STOP on

update signup
   set run_id = durable.start(
           job,
           jsonb_strip_nulls(jsonb_build_object('userId', user_id, 'name', name, 'email', email,
                                                'verifyWithin', verify_within)),
           queue => case job when 'send-verification-email' then 'emails' else 'default' end,
           idempotency_key => job || ':' || user_id,
           idempotency_ttl => '30 days',
           tags => jsonb_build_object('story', 'signup'));
