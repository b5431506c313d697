"""What has to be true of every history: each check is a query over the evidence that finds its violations.

A row of an answer is (run or null, when or null, what is wrong). The numbers are those of the promises: I1 what was
acknowledged is there, I2 keys, I3 steps, I4 fences, I5 leases, I6 events, I7 waiting holds nothing, I8 ends, I9 order,
I10 cancels, I11 exactly once, L liveness.
"""

import signal

# Who held the run's lease when an effect happened: by its fence where the handler was told it, else by its process.
HELD = """
    from hc.effect e
    join sut.lease l on l.run = e.run and l.leased_at <= e.at and (l.ended_at is null or l.ended_at > e.at)
    join sut.worker w on w.id = l.worker
   where (e.fence = l.fence or (e.fence is null and w.pid = e.pid and w.name = e.actor))"""

# Up to the first of these times and since the second, the database's clock was right; where it was ahead, since the time that it showed,
# and no key of that time holds any more. Until when a key holds is told by it, and what clients were told when is not.
RIGHT = """not exists (select from hc.fault f where f.what = 'database clock' and f.at < {}
    and coalesce(f.until, 'infinity') + greatest(replace(f.detail, '+', '')::interval, '0') + interval '5 s' > {})""".format
# That somebody let this run go on, or may have, after it had ended.
RETRIED = "exists (select from hc.act t where t.op = 'retry' and t.run = {} and t.ok is distinct from false)".format
# A start that nobody was told of was in the log that the primary began with again, and so refused others; the standby had not come back for
# it when it was promoted.
TAKEN_BACK = """exists (select from hc.act b, hc.fault c, hc.fault f where b.op = 'start' and b.ok is null and b.key = a.key
    and (b.job, b.payload_hash) <> (a.job, a.payload_hash) and c.what in ('restart', 'disk full') and c.at between b.began and a.at
    and f.what = 'primary' and f.at between a.at and a.at + interval '20 s')"""

CHECKS = [
    ("I1", "an acknowledged start is there",
     "select run, at, format('%s by %s as %s', op, client, key) from hc.act a where op = 'start' and ok"
     " and not exists (select from sut.run r where r.id = a.run)"),
    ("I1", "an acknowledged event is there",
     "select event, at, format('sent by %s as %s', client, key) from hc.act a where op = 'send_event' and ok"
     " and not exists (select from sut.event e where e.id = a.event)"),
    ("I1", "what a handler was called for is a run",
     "select run, min(at), min(step) from hc.effect e where not exists (select from sut.run r where r.id = e.run) group by run"),
    # Its end is that of its first start, whose time we know by when the run was made: just after, so by a second less than it is.
    ("I2", "one key is one run until its time is over",
     "select b.run, b.at, format('key %s was run %s', a.key, a.run) from hc.act a join hc.act b on b.key = a.key join sut.run r on"
     " r.id = a.run where a.op = 'start' and b.op = 'start' and a.ok and b.ok and a.at <= b.began and a.run <> b.run"
     " and (a.ttl is null or b.at < r.created_at + a.ttl - interval '1 s' and " + RIGHT("b.at", "a.began") + ")"
     " and not exists (select from hc.act c where c.op = 'release' and c.key = a.key and c.ok is distinct from false"
     " and c.began < b.at and (c.ok is null or c.at > a.began))"
     " and not (exists (select from hc.act c where c.op = 'start' and c.restart and c.key = a.key and c.ok is distinct from false"
     " and c.began < b.at and (c.ok is null or c.at > a.began))"
     " and (r.status in ('failed', 'cancelled') or " + RETRIED("r.id") + "))"),
    ("I2", "a key whose time is over is a new run",
     "select b.run, b.at, format('key %s held %s, and its run was there at %s', b.key, a.ttl, a.at) from hc.act b join (select run, key,"
     " min(ttl) as ttl, min(at) as at from hc.act where op = 'start' and ok group by run, key) as a using (run, key)"
     " where b.op = 'start' and b.ok and b.began > a.at + a.ttl and " + RIGHT("b.at", "a.at")),
    ("I2", "a key that was released is a new run",
     "select b.run, b.at, format('key %s was run %s before it was released at %s', b.key, b.run, c.at) from hc.act a join hc.act c"
     " on c.op = 'release' and c.key = a.key and c.ok and c.began >= a.at join hc.act b on b.op = 'start' and b.key = a.key and b.ok"
     " and b.run = a.run and b.began >= c.at where a.op = 'start' and a.ok"),
    ("I2", "a restart of what has failed or was cancelled is a new run",
     "select a.run, a.at, format('key %s: run %s had ended before', a.key, a.run) from hc.act a where a.op = 'start' and a.ok"
     " and a.restart and a.run = a.seen and not " + RETRIED("a.run")),
    ("I2", "a run is what its start said",
     "select a.run, a.at, format('job %s, key %s, held for %s', r.job, r.key, k.ttl) from hc.act a join sut.run r on r.id = a.run"
     " left join sut.keyed k on k.run = r.id where a.op = 'start' and a.ok and ((r.job, r.payload_hash) <> (a.job, a.payload_hash)"
     " or (k.key, k.ttl) is distinct from (a.key, a.ttl))"),
    ("I2", "another start with the key is refused",
     "select b.run, b.at, format('key %s, of %s, was given for another %s', a.key, a.job, b.job) from hc.act a join hc.act b on b.key"
     " = a.key and b.run = a.run where a.op = 'start' and b.op = 'start' and a.ok and b.ok and a.at <= b.at"
     " and (a.job, a.payload_hash) <> (b.job, b.payload_hash)"),
    ("I2", "a start is refused only where another run has its key",
     "select a.seen, a.at, format('%s by %s as %s: %s', a.job, a.client, a.key, a.error) from hc.act a where a.op = 'start'"
     " and a.ok = false and " + RIGHT("a.at", "a.began") + " and not " + TAKEN_BACK +
     " and not (a.error ~ 'DJ002|idempotency_conflict|exit 3' and exists (select"
     " from sut.holding h join sut.run r on r.id = h.run where h.key = a.key and (r.job, r.payload_hash) <> (a.job, a.payload_hash)"
     " and h.taken_at <= a.at and coalesce(least(h.gone_at, h.expires_at), 'infinity') >= a.began"
     " and not (a.restart and a.seen is not distinct from h.run and not " + RETRIED("h.run") + ")))"),
    # The SDK says a start again: its first try may have made a run that has lost its key since.
    ("I2", "a start that was refused has made no run",
     "select r.id, a.at, format('%s by %s as %s', a.job, a.client, a.key) from hc.act a join sut.keyed k on k.key = a.key join sut.run r"
     " on r.id = k.run and (r.job, r.payload_hash) = (a.job, a.payload_hash) and r.created_at between a.began and a.at"
     " where a.op = 'start' and a.ok = false and " + RIGHT("a.at", "a.began") + " and not exists (select from hc.act b where b.op ="
     " 'start' and b.key = a.key and (b.job, b.payload_hash) = (a.job, a.payload_hash) and b.ok is distinct from false and b.began <="
     " r.created_at and (b.ok is null or b.at >= r.created_at)) and not exists (select from sut.holding h where h.run = r.id"
     " and least(h.gone_at, h.expires_at) <= a.at)"),
    ("I2", "a key goes to another run only when its time is over, it was released, or its run had failed and is restarted",
     "select h.run, h.gone_at, format('key %s went to %s; its run was %s', h.key, coalesce(h.next::text, 'nobody'), coalesce(h.status,"
     " 'not over')) from sut.holding h where h.gone_at is not null and not h.over and not case when h.next is null"
     " then exists (select from hc.act a where a.op = 'release' and a.key = h.key and a.ok is distinct from false)"
     " else coalesce(h.status, '') in ('failed', 'cancelled') and exists (select from hc.act a where a.op = 'start' and a.key = h.key"
     " and a.restart and (a.ok is null or a.ok and a.run = h.next)) end"),
    ("I2", "a run with a key has taken it, once",
     "select k.run, min(r.created_at), format('key %s: %s times', k.key, count(h.run)) from sut.keyed k left join sut.run r on r.id = k.run"
     " left join sut.holding h on h.run = k.run and h.key = k.key group by k.run, k.key having count(h.run) <> 1"),
    ("I2", "of the runs of a key one is alive, unless its time was over or it was released",
     "select r.id, n.taken_at, format('key %s went to %s, and it ended at %s', h.key, n.run, r.finished_at) from sut.holding h join"
     " sut.run r on r.id = h.run join sut.holding n on n.key = h.key and n.taken_at > h.taken_at where not h.over and h.next is not null"
     " and coalesce(r.finished_at, 'infinity') > n.taken_at and not exists (select from sut.holding d where d.key = h.key and d.gone_at"
     " is not null and d.next is null and d.gone_at <= coalesce(r.finished_at, 'infinity'))"),
    ("I3", "a step completes once",
     "select run, max(committed_at), name from sut.step group by run, name having count(*) > 1"),
    ("I3", "a completed step neither changes nor goes",
     "select k.run, s.committed_at, format('step %s (%s) is now %s', k.position, k.name, coalesce(s.name, 'gone'))"
     " from hc.step_look k left join sut.step s on s.run = k.run and s.position = k.position"
     " where (s.name, s.hash) is distinct from (k.name, k.hash)"),
    ("I3", "a completed step is not called again by who has the lease",
     "select e.run, e.at, format('step %s, committed at %s, was called again by %s', e.step, s.committed_at, e.actor)"
     + HELD.replace("   where", "    join sut.step s on s.run = e.run and s.name = e.step and s.kind = 'step'\n   where")
     + " and e.kind = 'step' and e.at > s.committed_at"),
    ("I3", "a step was called in the attempt that completed it",
     "select run, committed_at, name from sut.step s where kind = 'step' and status = 'completed' and not exists (select from"
     " hc.effect e where e.run = s.run and e.step = s.name and e.kind = 'step' and e.attempt = s.attempt"
     " and e.at <= s.committed_at)"),
    ("I4", "a commit is under a lease that was given",
     "select s.run, s.committed_at, format('step %s, fence %s', s.name, s.fence) from sut.step s where s.kind in ('step', 'op')"
     " and not exists (select from sut.lease l where l.run = s.run and l.fence = s.fence and l.worker = s.worker)"),
    ("I4", "nothing is committed under a lease after a newer one began",
     "select s.run, s.committed_at, format('step %s of fence %s, after fence %s began', s.name, s.fence, n.fence)"
     " from sut.step s join sut.lease l on l.run = s.run and l.fence = s.fence"
     " join sut.lease n on n.run = s.run and n.leased_at > l.leased_at"
     " where s.kind in ('step', 'op') and s.committed_at > n.leased_at"),
    ("I4", "the fences of a run's steps do not go back",
     "select run, committed_at, format('step %s: fence %s after %s', name, fence, before) from (select s.*, max(fence) over"
     " (partition by run order by position rows between unbounded preceding and 1 preceding) as before from sut.step s"
     " where kind in ('step', 'op')) as o where fence < before"),
    ("I4", "nothing is committed after the run's end",
     "select s.run, s.committed_at, format('step %s; the run ended at %s', s.name, r.finished_at) from sut.step s"
     " join sut.run r on r.id = s.run where s.committed_at > r.finished_at and s.kind in ('step', 'op')"),
    ("I4", "no attempt commits after the next one began",
     "select s.run, s.committed_at, format('step %s of attempt %s', s.name, s.attempt) from sut.step s join sut.lease l"
     " on l.run = s.run and l.attempt > s.attempt and l.leased_at < s.committed_at where s.kind in ('step', 'op')"),
    ("I5", "a run has one lease at a time",
     "select run, leased_at, format('fence %s began before %s ended', fence, before) from (select l.*, lag(fence) over w as before,"
     " lag(ended_at) over w as free_at, lag(leased_at) over w as began from sut.lease l"
     " window w as (partition by run order by leased_at)) as o"
     " where began is not null and (free_at is null or free_at > leased_at)"),
    ("I5", "a fence is given once",
     "select min(run::text)::uuid, max(leased_at), format('fence %s', fence) from sut.lease group by fence having count(*) > 1"),
    ("I6", "a wait takes one event, and a run an event once",
     "select min(run::text)::uuid, null::timestamptz, format('wait %s has %s events', wait_id, count(*)) from sut.delivery"
     " group by wait_id having count(*) > 1 union all"
     " select run, null, format('event %s came %s times', event_seq, count(*)) from sut.delivery group by run, event_seq"
     " having count(*) > 1"),
    ("I6", "a wait always answers the same",
     "select run, max(at), format('%s: %s', step, string_agg(distinct value, ', ')) from hc.effect where kind = 'wait'"
     " group by run, step having count(distinct value) > 1"),
    ("I6", "what a handler was told of a wait is how that ended",
     "select e.run, e.at, format('%s: %s, and it has %s', e.step, e.value, coalesce(s.event::text, 'no event')) from hc.effect e left join"
     " sut.step s on s.run = e.run and s.name = e.step where e.kind = 'wait'"
     " and e.value is distinct from case when s.run is not null then coalesce(s.event::text, 'timed out') end"),
    ("I6", "a wait ends by an event or by its time, not by both",
     "select d.run, s.committed_at, format('event %s was delivered to %s, which %s', e.id, w.name, case when w.timed_out then"
     " 'timed out' else 'has ' || coalesce(s.event::text, 'none') end) from sut.delivery d join sut.event e on e.seq = d.event_seq"
     " left join sut.waited w on w.wait_id = d.wait_id left join sut.step s on s.run = w.run and s.position = w.position"
     " where w.run is distinct from d.run or w.timed_out or s.event is distinct from e.id"),
    ("I6", "what a wait took was sent, and is noted as delivered",
     "select s.run, s.committed_at, format('%s took %s', s.name, s.event) from sut.step s left join sut.event e on e.id = s.event"
     " left join sut.delivery d on d.event_seq = e.seq and d.run = s.run"
     " where s.event is not null and (e.id is null or d.run is null)"),
    ("I6", "an event goes to one younger run at most",
     "select min(r.id::text)::uuid, null::timestamptz, format('event %s', e.id) from sut.delivery d join sut.event e on e.seq ="
     " d.event_seq join sut.run r on r.id = d.run where r.seq > e.seq group by e.id having count(*) > 1"),
    ("I6", "nobody waits for an event that is there",
     "select w.run, e.sent_at, format('%s %s is event %s', w.event, w.key, e.id) from sut.wait w join sut.event e on e.name ="
     " w.event and e.key = w.key and e.seq > w.run_seq where not exists (select from sut.delivery d where d.event_seq = e.seq"
     " and d.run = w.run) and not exists (select from sut.run c where w.event = '$child' and c.id::text = w.key"
     " and c.finished_at is null)"),
    ("I7", "no session of ours is in a transaction for over ten seconds",
     "select null::uuid, max(at), format('%s (pid %s) %s %s for %s', app, pid, min(state), min(wait), max(age)) from hc.session_look k"
     " where not exists (select from hc.fault f where f.what = 'database clock' and f.at < k.at" # by which ages are told
     " and coalesce(f.until, k.at) > k.at - interval '10 s') group by app, pid"),
    ("I7", "a run is in one place until it ends, and then in none",
     "select id, finished_at, format('%s in %s places', status, places) from sut.run"
     " where places <> case when finished_at is null then 1 else 0 end"),
    ("I8", "nothing is overdue at rest", "select run, due_at, kind from sut.overdue"),
    ("I8", "an end has its time, and what has not ended says what it waits for",
     "select id, finished_at, status from sut.run where (status in ('completed', 'failed', 'cancelled')) <> (finished_at is not"
     " null) or (finished_at is null and status <> 'running' and waits_for is null)"),
    ("I8", "no more attempts than allowed",
     "select id, finished_at, format('attempt %s of %s', attempt, max_attempts) from sut.run where attempt > max_attempts"),
    ("I8", "a run ends as its program says",
     "select r.id, r.finished_at, format('%s %s %s, and not %s %s', r.status, r.result, r.error_name, p.status, p.result)"
     " from sut.run r join hc.program p on p.key = r.key where r.finished_at is not null"
     " and p.status <> 'any' and not (r.status = p.status and (p.status <> 'completed' or r.result = p.result::text))"
     " and not (r.status = 'cancelled' and exists (select from hc.act a where a.op = 'cancel' and a.run = r.id"
     " and a.ok is distinct from false))"
     " and not (r.status = 'cancelled' and exists (select from sut.run m where m.id = r.parent and m.status = 'cancelled'))"),
    ("I9", "what has priority begins first",
     "select l.id, l.started_at, format('priority %s began at %s; run %s of priority %s was ready at %s and began at %s',"
     " l.priority, l.started_at, h.id, h.priority, h.created_at, h.started_at) from sut.run h join sut.run l on l.job = h.job"
     " and l.queue = h.queue and h.priority > l.priority and l.created_at < h.started_at"
     " where h.queue = 'ordered' and h.parent is null and l.started_at > h.created_at + interval '5 s'"
     " and l.started_at < h.started_at - interval '5 s'"),
    # Unless the database, a worker that had the run, or the endpoint could not be reached, or stood still: then nobody knew.
    ("I10", "nothing of a cancelled run is done five seconds later",
     "select e.run, e.at, format('%s by %s; cancelled at %s', e.step, e.actor, r.finished_at) from hc.effect e join sut.run r"
     " on r.id = e.run where r.status = 'cancelled' and e.kind = 'step' and e.at > r.finished_at + interval '5 s'"
     " and not exists (select from hc.fault f where f.at < e.at and coalesce(f.until, f.at) + interval '5 s' > r.finished_at"
     " and (f.what in ('primary', 'restart') or f.what in ('stop', 'cut', 'cut one way', 'loss', 'narrow') and (f.whom = e.actor"
     " or f.whom in (select w.name from sut.lease l join sut.worker w on w.id = l.worker where l.run = e.run))))"),
    ("I10", "a cancelled run commits nothing more",
     "select s.run, s.committed_at, s.name from sut.step s join sut.run r on r.id = s.run"
     " where r.status = 'cancelled' and s.committed_at > r.finished_at"),
    ("I10", "no child outlives its cancelled parent",
     "select c.id, c.finished_at, format('parent %s was cancelled at %s', p.id, p.finished_at) from sut.run c join sut.run p"
     " on p.id = c.parent where p.status = 'cancelled' and (c.finished_at is null or c.created_at > p.finished_at)"),
    ("I11", "a step with a transaction has done its SQL once, and no other has",
     "select coalesce(t.run, s.run), s.committed_at, format('%s: %s times', coalesce(t.step, s.name), coalesce(t.n, 0)) from"
     " (select run, step, count(*) as n from sut.tx group by run, step) as t full join"
     " (select * from sut.step where name like 'tx%' and kind = 'step' and status = 'completed') as s"
     " on s.run = t.run and s.name = t.step where t.n is distinct from 1 or s.run is null"),
    ("I11", "counters are the sums of what was remembered",
     "select null::uuid, null::timestamptz, format('%s is %s and not %s', key, coalesce(c.value, 0), coalesce(e.value, 0)) from"
     " sut.counter c full join (select p.counter as key, sum(p.by) as value from sut.step s join sut.run r on r.id = s.run"
     " join hc.program p on p.key = r.key where s.name like 'state.increment%' group by p.counter) as e using (key)"
     " where key like 'counter:%' and coalesce(c.value, 0) <> coalesce(e.value, 0)"),
    ("I11", "a client's counter is what it was told, and at most what it was not",
     "select null::uuid, null::timestamptz, format('%s is %s; %s acknowledged, %s unknown', c.key, c.value, t.sure, t.unsure)"
     " from sut.counter c join (select key, count(*) filter (where ok) as sure, count(*) filter (where ok is null) as unsure"
     " from hc.tally group by key) as t using (key) where c.value not between t.sure and t.sure + t.unsure"),
    ("I11", "a child is started once",
     "select parent, max(created_at), format('%s: %s children', at_parent, count(*)) from sut.run where parent is not null"
     " group by parent, at_parent having count(*) > 1"),
    ("I11", "an event is sent once by a run that remembers it",
     "select s.run, e.sent_at, format('%s: %s events', coalesce(s.key, e.key), coalesce(e.n, 0)) from (select"
     " r.id as run, r.key || '/' || split_part(s.name, ':', 2) as key from sut.step s join sut.run r on r.id = s.run"
     " where s.name like 'send:sent.%') as s full join (select key || '/' || name as key, count(*) as n, max(sent_at) as"
     " sent_at from sut.event where name like 'sent.%' group by key, name) as e on e.key = s.key"
     " where e.n is distinct from 1 or s.key is null"),
    ("I8", "what earlier rounds left behind stays as it was",
     "select null::uuid, max(at), format('round %s: %s', round, string_agg(distinct format('%s runs, %s', runs, digest), '; '))"
     " from hc.digest group by round having count(distinct (runs, digest)) > 1"),
    ("L", "all runs end within 30 seconds of the last fault",
     "select r.id, null::timestamptz, format('%s %s %s', r.job, r.status, r.waits_for) from sut.run r where r.finished_at is null"),
    ("L", "the last three calls of each client succeed",
     "select null::uuid, at, format('%s: %s of 3', client, ok) from hc.calm where ok < 3"),
]

FAULTS_AROUND = """
    select concat('    ', to_char(at, 'HH24:MI:SS.MS'), '  ', what, ' ', whom, ' ', detail,
                  ' until ' || to_char(until, 'HH24:MI:SS.MS'))
      from hc.fault where at < %(at)s + interval '5 s' and coalesce(until, at) > %(at)s - interval '15 s' order by id desc limit 12"""


def unasked(exits, crashes):
    """Which programs ended though nobody wanted them to, and how: of `exits`, those that ended by themselves, so many may be a handler's that
    was told to crash. A worker that cannot tell the database of it is ended by an alarm."""
    crashed = [status for statuses in exits.values() for status in statuses if status in (-signal.SIGABRT, -signal.SIGALRM)]
    ended = {name: statuses for name, statuses in exits.items() if statuses}
    return ended if len(crashed) > crashes or sum(map(len, ended.values())) > len(crashed) else {}


def violations(evidence, at_most=20):
    """All that is found, as (number, promise, how many, the first rows)."""
    found = []
    for number, promise, query in CHECKS:
        rows = evidence.execute(query).fetchall()
        if rows:
            found.append((number, promise, len(rows), rows[:at_most]))
    return found


def describe(evidence, found):
    """The violations as text, each with what the nemesis did around it."""
    lines = []
    for number, promise, count, rows in found:
        lines.append(f"{number}: {count} times it is not so that {promise}")
        for run, at, what in rows[:5]:
            lines.append(f"  run {run} at {at}: {what}")
            if at is not None:
                lines += [line for (line,) in evidence.execute(FAULTS_AROUND, {"at": at}).fetchall()][::-1]
    return "\n".join(lines)
