-- What scripts/demo promises, held against what is there: the runs in PostgreSQL, the mails in the
-- mailbox, and the calls that the steps' functions noted down. Prints each promise, then whatever is not
-- as it should be, and ends with an error if anything is.
--
--     CALLS=calls.csv MAILDIR=mail psql "$DURABLE_DATABASE_URL" -v killed_pid=123 -f examples/sql/check.sql
\set ON_ERROR_STOP on
\set QUIET on
\pset tuples_only on
\pset format unaligned
\pset fieldsep '  '

create temp table call (at double precision, pid int, run_id uuid, step text);
\copy call from program 'cat "$CALLS"' with (format csv)
create temp table mail (message_id text, recipient text, name text);
\copy mail from program 'examples/mailbox_csv.py "$MAILDIR"' with (format csv, header match, force_not_null (name), encoding 'UTF8')

create temp view run as
select s.user_id, s.name as person, s.email, s.job as signed_up_for, s.verifies, s.mail_server,
       s.job = 'userOnboarding' as onboards, s.run_id, r.*
  from signup s
  left join durable.runs r on r.id = s.run_id;

create temp view worker as
select id, pid, case when pid = :killed_pid then 'killed' else 'other' end as name
  from durable.workers;

create temp table finding (promise text, who text, expected text, found text);

-- The story itself: a check of nothing would hold.
insert into finding
select 'all parts of the story were played', part, 'yes',
       case when exists (select from signup where part in (job, verifies, mail_server)) then 'yes' else 'no' end
  from unnest(array['userOnboarding', 'send-verification-email', 'before', 'meanwhile', 'after', 'never',
                    'greylists', 'tarpits']) as part
union all
select 'all parts of the story were played', 'the killed worker', 'killed -9, and found to be gone',
       coalesce((select 'killed -9, and found to be ' || status from durable.workers
                  where pid = :killed_pid), 'it was never there');

insert into finding
select 'started twice, there once', 'all', (select count(*) from signup) || ' runs',
       count(*) || ' runs'
  from durable.runs;

insert into finding
select 'each run ended as it should', user_id,
       case when verifies = 'never' then 'failed, WaitTimeoutError in email.verified'
            when onboards then 'completed, {"onboarded": true}'
            else format('completed, {"messageId": "%s.send-verification-email@example.com"}', run_id) end,
       format('%s, %s', status, coalesce(result::text, format('%s in %s', error ->> 'name', error ->> 'step')))
  from run;

insert into finding
select 'each person got one mail, with the name right', user_id,
       format('Hello %s <%s.send-verification-email@example.com>', person, run_id),
       coalesce((select string_agg(format('Hello %s <%s>', m.name, m.message_id), ' and ')
                   from mail m where m.recipient = run.email), 'no mail')
  from run
union all
select 'each person got one mail, with the name right', 'strangers', 'no mail', 'mail to ' || m.recipient
  from mail m
 where m.recipient not in (select email from signup);

insert into finding
select 'no completed step was called again', run.user_id || ' ' || s.name, '0 calls after its commit',
       format('%s calls after its commit', count(c.*))
  from run
  join durable.steps s on s.run_id = run.run_id and s.status = 'completed' and s.kind in ('step', 'step_tx')
  left join call c on c.run_id = s.run_id and c.step = s.name
                  and to_timestamp(c.at) > s.committed_at
 group by run.user_id, s.position, s.name
union all
select 'no completed step was called again', 'all of them',
       sum(case when not onboards then 1 when verifies = 'never' then 2 else 3 end) || ' completed steps',
       (select count(*) || ' completed steps' from durable.steps s
         where s.status = 'completed' and s.kind in ('step', 'step_tx'))
  from run;

insert into finding
select 'each step was called as often as the story has it', run.user_id || ' ' || step.name,
       case when step.name <> 'send-verification-email' and not onboards then 0
            when step.name = 'unlock-account' and verifies = 'never' then 0
            when step.name = 'send-verification-email' and mail_server = 'greylists' then 3
            when step.name = 'send-verification-email' and mail_server = 'tarpits' then 2
            else 1 end::text,
       (select count(*)::text from call c where c.run_id = run.run_id and c.step = step.name)
  from run
 cross join unnest(array['create-user', 'send-verification-email', 'unlock-account']) as step (name);

insert into finding
select 'the mail that was refused twice went out in the same attempt', user_id,
       '2 failed tries, then completed in attempt 1',
       format('%s failed tries, then %s in attempt %s',
              (select count(*) from durable.timeline(run.run_id) as t
                where t.kind = 'step_failed' and t.name = 'send-verification-email'), status, attempt)
  from run
 where mail_server = 'greylists';

insert into finding
select 'what the killed worker had in hand, another one finished', user_id,
       'crashed in killed, completed in other',
       (select string_agg(format('%s in %s', a.outcome, w.name), ', ' order by a.attempt)
          from durable.attempts a
          left join worker w on w.id = a.worker_id
         where a.run_id = run.run_id)
  from run
 where mail_server = 'tarpits'
union all
select 'what the killed worker had in hand, another one finished', user_id || ' called by', 'killed, other',
       (select string_agg(w.name, ', ' order by c.at)
          from call c
          left join worker w on w.pid = c.pid
         where c.run_id = run.run_id and c.step = 'send-verification-email')
  from run
 where mail_server = 'tarpits';

insert into finding
select 'events came before the run, before the wait and after it', user_id,
       case verifies when 'before' then 'before the run' when 'meanwhile' then 'before the wait'
                     else 'after the wait began' end,
       (select case when e.sent_at < run.created_at then 'before the run'
                    when e.sent_at < s.started_at then 'before the wait'
                    else 'after the wait began' end
          from durable.steps s
          join durable.events e on e.id::text = s.result ->> 'id'
         where s.run_id = run.run_id and s.kind = 'wait_event')
  from run
 where verifies <> 'never';

insert into finding
select 'accounts are unlocked once, or not at all', user_id,
       case when verifies = 'never' then 'locked, 0 times unlocked' else 'unlocked, 1 times unlocked' end,
       (select format('%s, %s times unlocked', case when u.locked then 'locked' else 'unlocked' end, u.unlocks)
          from app_user u where u.id = run.user_id)
  from run
 where onboards
union all
select 'accounts are unlocked once, or not at all', 'strangers', 'no account', 'the account ' || u.id
  from app_user u
 where u.id not in (select user_id from signup where job = 'userOnboarding');

select case when count(*) filter (where expected is distinct from found) = 0 then 'ok    ' else 'FAILED' end,
       format('%s (%s looked at)', promise, count(*))
  from finding
 group by promise
 order by min(ctid);

select format('  %s: %s%s      expected  %s%s      found     %s', promise, who, chr(10), expected, chr(10),
              coalesce(found, 'nothing'))
  from finding
 where expected is distinct from found
 order by ctid;

do $$
begin
    if exists (select from finding f where f.expected is distinct from f.found) then
        raise exception 'not everything is as it should be';
    end if;
end
$$;
