/* What is true of every database of ours at any instant, whatever crashed: said here rather than by
 * check constraints, which PostgreSQL would parse for each statement. */
#include "support.h"

const struct invariant invariants[] = {
    { "a run that has not ended is in exactly one place",
      "select id from durable_internal.run r where status is null and 1 <> (select count(*) from "
      "durable_internal.place p where p.run_id = r.id)" },
    { "a run that has ended is in no place, and no timer is left of it",
      "select id from durable_internal.run r where status is not null and (exists (select from "
      "durable_internal.place p where p.run_id = r.id) or exists (select from "
      "durable_internal.timer t where t.run_id = r.id and t.kind = 'run_timeout'))" },
    { "what is in a place is a run",
      "select run_id from durable_internal.place p where not exists (select from "
      "durable_internal.run r where r.id = p.run_id)" },
    { "status is completed, failed or cancelled, and finished_at comes with it",
      "select id from durable_internal.run where status not in ('completed', 'failed', "
      "'cancelled') or (status is null) <> (finished_at is null)" },
    { "a result only with completed, an error only with the others",
      "select id from durable_internal.run where (result is not null and status is distinct from "
      "'completed') or (error is not null and status is not distinct from 'completed')" },
    { "steps are numbered without a gap",
      "select run_id from durable_internal.step group by run_id having count(*) <> max(position)" },
    { "a fence is of one run",
      "select fence from (select id as run, fence from durable_internal.run where fence is not "
      "null "
      "union select run_id, fence from durable_internal.step where fence is not null union select "
      "run_id, fence from durable_internal.lease union select run_id, fence from "
      "durable_internal.attempt where fence is not null) as f group by fence having "
      "count(distinct run) > 1" },
    { "a lease is of a worker that lives, or that is still being buried",
      "select run_id from durable_internal.lease l left join durable_internal.worker w on w.id = "
      "l.worker_id where w.id is null or not (w.alive or w.leases_left)" },
    { "a wait takes one event, a run takes an event once, and remembers it; but a retry forgets "
      "that "
      "a child has failed",
      "select run_id from durable_internal.delivery d join durable_internal.event e on e.seq = "
      "d.event_seq where (e.name <> '$child' or e.payload ->> 'status' = 'completed') and not "
      "exists (select from durable_internal.step s where s.run_id = d.run_id and s.kind in "
      "('wait_event', 'wait_any', 'child'))" },
};
const size_t invariants_count = sizeof invariants / sizeof *invariants;

int invariants_hold(void **state) {
    PGconn *conn = connect_to(last_url());
    (void)state;
    for (size_t i = 0; i < invariants_count; i++) {
        long long offenders =
            sql_int(conn, "select count(*) from (%s) as o", invariants[i].offenders);
        if (offenders > 0) {
            fail_msg("%lld times it is not so that %s: %s", offenders, invariants[i].promise,
                     sql_text(conn, "%s limit 1", invariants[i].offenders));
        }
    }
    PQfinish(conn);
    return 0;
}
