-- Where everybody's run is, each second, until ctrl-C.
--
--     psql "$DURABLE_DATABASE_URL" -f examples/sql/watch.sql
select s.user_id, s.name, r.job, r.status, r.attempt,
       (select l.name from durable.steps l where l.run_id = r.id
         order by l.position desc limit 1) as last_step,
       durable.why(r.id) as why
  from signup s
  join durable.runs r on r.id = s.run_id
 order by s.user_id
\watch 1
