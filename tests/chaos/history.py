"""The evidence: what clients were told, what handlers did, what was done to the system.

It lies in a database of its own, on a cluster that no fault touches, so that a mistake of the system under test cannot take
it along. Schema `hc` is written while the system runs; schema `sut` is a copy of the system's tables, taken at rest.
"""

import time

import psycopg

EVIDENCE = """
create schema hc;
create table hc.act (                 -- every call of a client; ok: true acknowledged, false refused, null unknown
    id bigint generated always as identity, client text not null, door text not null, op text not null,
    began timestamptz not null, at timestamptz not null, ok boolean, key text, job text, run uuid, event uuid,
    payload_hash text, ttl interval, error text,
    restart boolean not null default false,  -- of a start: a run that failed or was cancelled is to give up the key
    seen uuid);                              -- … such a run of this key, that the client had seen before it called
create table hc.effect (              -- the first thing that a function does, and what a wait gave back
    id bigint generated always as identity, at timestamptz not null default clock_timestamp(), run uuid not null,
    kind text not null, step text, attempt int not null, actor text not null, pid int, fence bigint, value text);
create index on hc.effect (run, step);
create table hc.program (             -- what a start asks for, and how it has to end
    key text primary key, job text not null, status text not null, result bigint, counter text not null, by bigint not null,
    waits text[] not null default '{}');
create table hc.fault (               -- what the nemesis did, and until when
    id bigint generated always as identity, at timestamptz not null default clock_timestamp(), until timestamptz,
    what text not null, whom text not null, detail text);
create table hc.session_look (        -- sessions of ours that were long in a transaction
    at timestamptz not null default clock_timestamp(), app text, pid int, state text, wait text, age interval not null);
create table hc.step_look (           -- completed steps, as they were seen while the system ran
    run uuid not null, position int not null, name text not null, hash text not null, primary key (run, position));
create table hc.digest (              -- of what earlier rounds left behind
    round int not null, at timestamptz not null default clock_timestamp(), runs bigint not null, digest text not null);
create table hc.phase (               -- what clients are to do: run, calm
    round int not null, phase text not null, at timestamptz not null default clock_timestamp());
create table hc.calm (                -- a client has said all that it had to say, and what its last three calls came to
    round int not null, client text not null, at timestamptz not null default clock_timestamp(), ok int not null);
create table hc.tally (key text not null, ok boolean);  -- increments by clients, of all rounds
create table hc.total (name text primary key, n bigint not null);
"""

# What the copy has, and how it is read. %(newest)s: the sequence number when the round began. Times are the instruments' (below), for the
# database's clock may be a fault.
COPIES = {
    "run": (
        "id uuid, seq bigint, job text, queue text, priority int, status text, payload_hash text, result text, error_name text,"
        " attempt int, max_attempts int, key text, parent uuid, at_parent text, created_at timestamptz, started_at timestamptz,"
        " finished_at timestamptz, places int, waits_for text",
        """select r.id, i.seq, r.job, r.queue, r.priority, r.status, md5(r.payload::text), r.result::text, r.error ->> 'name',
                  r.attempt, r.max_attempts, coalesce(r.payload ->> 'key', r.idempotency_key), r.parent_run_id, r.payload ->> 'at',
                  h.created_at, (select min(leased_at) from hc_lease l where l.run = r.id),
                  case when r.finished_at is not null then h.finished_at end,
                  (select count(*) from durable_internal.place p where p.run_id = r.id), r.waiting_for::text
             from durable.runs r join durable_internal.run i on i.id = r.id join hc_run h on h.run = r.id where i.seq > %(newest)s""",
    ),
    "step": (
        "run uuid, position int, name text, kind text, status text, hash text, event uuid, attempt int, worker uuid, fence bigint,"
        " committed_at timestamptz",
        # A handler's function is a step by its name; what else has a worker commit it is an op; the rest ends without one.
        """select s.run_id, s.position, s.name,
                  case when s.kind in ('step', 'step_tx') and s.name ~ '^(s|tx|f|h|b|l|p)[.]' then 'step'
                       when s.kind in ('step', 'step_tx', 'state', 'send_event') then 'op' else s.kind end, s.status, md5(coalesce(s.result, s.error, 'null')::text),
                  case when s.kind in ('wait_event', 'wait_any') then (s.result ->> 'id')::uuid end, s.attempt, s.worker_id,
                  s.fence, h.committed_at
             from durable.steps s join durable_internal.run r on r.id = s.run_id
             left join hc_step h on h.run = s.run_id and h.position = s.position and s.committed_at is not null where r.seq > %(newest)s""",
    ),
    "lease": (
        "run uuid, fence bigint, worker uuid, attempt int, leased_at timestamptz, ended_at timestamptz",
        "select l.* from hc_lease l join durable_internal.run r on r.id = l.run where r.seq > %(newest)s",
    ),
    "worker": (
        "id uuid, name text, pid int, started_at timestamptz",
        "select id, name, pid, started_at from durable_internal.worker",
    ),
    "event": (
        "id uuid, seq bigint, name text, key text, sent_at timestamptz",
        """select id, seq, name, correlation_key, sent_at from durable_internal.event
            where seq > %(newest)s and name <> '$child'""",
    ),
    "delivery": (
        "event_seq bigint, run uuid, wait_id bigint",
        """select d.event_seq, d.run_id, d.wait_id from durable_internal.delivery d
             join durable_internal.event e on e.seq = d.event_seq where e.seq > %(newest)s and e.name <> '$child'""",
    ),
    "wait": (
        "run uuid, run_seq bigint, event text, key text",
        """select w.run_id, w.run_seq, w.event, w.correlation_key from durable_internal.wait w where w.event <> '$child'
            union all
           select w.run_id, w.run_seq, o.event, o.correlation_key
             from durable_internal.wait_other o join durable_internal.wait w using (wait_id)""",
    ),
    "waited": (  # a run of the workload waits for one thing at a time, so a wait is known by its place
        "wait_id bigint, run uuid, position int, name text, timed_out boolean",
        """select w.wait_id, w.run, w.position, w.name, coalesce((s.result ->> 'timedOut')::boolean, false)
             from hc_wait w join durable_internal.run r on r.id = w.run
             left join durable_internal.step s on s.run_id = w.run and s.position = w.position where r.seq > %(newest)s""",
    ),
    "keyed": (  # how long its key was to hold, by the run itself
        "run uuid, key text, ttl interval",
        """select id, idempotency_key, idempotency_expires_at - created_at from durable_internal.run
            where idempotency_key is not null and seq > %(newest)s""",
    ),
    "holding": (
        "key text, run uuid, taken_at timestamptz, expires_at timestamptz, gone_at timestamptz, next uuid, over boolean, status text",
        "select h.* from hc_holding h join durable_internal.run r on r.id = h.run where r.seq > %(newest)s",
    ),
    "overdue": (
        "run uuid, kind text, due_at timestamptz",
        "select run_id, kind, due_at from durable_internal.timer where due_at < clock_timestamp() - interval '15 s'"
        " and %(newest)s is not null",
    ),
    "tx": (
        "run uuid, step text",
        "select t.run, t.step from hc_tx t join durable_internal.run r on r.id = t.run where r.seq > %(newest)s",
    ),
    "counter": (
        "key text, value bigint",
        "select key, (value #>> '{}')::bigint from durable_internal.state where key ~ '^(counter|tally):' and %(newest)s is not null",
    ),
    "attempt": (
        "run uuid, attempt int, outcome text",
        "select a.run_id, a.attempt, a.outcome from durable.attempts a join durable_internal.run r on r.id = a.run_id"
        " where r.seq > %(newest)s",
    ),
}

# Kept by the system under test itself, in the transactions that it is about: when a run began and ended, when a step was committed;
# who had which lease, from when to when; which run had which key, to which it went next (null: it was released), and whether it was over
# then, or how its run had ended; which wait was of which step; and what steps with a transaction did in it. Their clock is right when the
# database's is not: the file `shim` says by how many seconds that one is wrong at the instant (tests/support/shim.h; the first byte tells
# them, the last the sign).
INSTRUMENTS = """
create function hc_now() returns timestamptz language plpgsql security definer as $$
declare
    shim constant text := replace(current_setting('config_file'), 'postgresql.conf', 'shim');
    wrong bytea;
    instant timestamptz;
begin
    loop
        wrong := pg_read_binary_file(shim, 0, 8);
        instant := clock_timestamp();
        exit when wrong = pg_read_binary_file(shim, 0, 8);
    end loop;
    return instant - make_interval(secs => get_byte(wrong, 0) - case when get_byte(wrong, 7) = 255 then 256 else 0 end);
end $$;
create table hc_run (run uuid primary key, created_at timestamptz not null, finished_at timestamptz);
create table hc_step (run uuid, position int, committed_at timestamptz not null, primary key (run, position));
create table hc_lease (run uuid, fence bigint, worker uuid, attempt int, leased_at timestamptz, ended_at timestamptz);
create index on hc_lease (run);
create table hc_holding (key text, run uuid, taken_at timestamptz, expires_at timestamptz, gone_at timestamptz, next uuid, over boolean,
                         status text);
create index on hc_holding (run);
create table hc_wait (wait_id bigint, run uuid, position int, name text);
create table hc_tx (run uuid, step text);
create table hc_account (run uuid, step text, n int, primary key (run, step)); -- a zombie's uncommitted row would be waited for
create table hc_mark (mark bigint generated always as identity);
create function hc_leased() returns trigger language plpgsql security definer as $$
declare
    instant constant timestamptz := public.hc_now();
begin
    insert into public.hc_lease select run_id, fence, worker_id, attempt, instant from fresh;
    return null;
end $$;
create function hc_given_back() returns trigger language plpgsql security definer set enable_seqscan = off as $$
declare
    instant constant timestamptz := public.hc_now();
begin
    update public.hc_lease h set ended_at = instant from gone g
     where h.run = g.run_id and h.fence = g.fence and h.worker = g.worker_id and h.ended_at is null;
    return null;
end $$;
create function hc_begun() returns trigger language plpgsql security definer as $$
declare
    instant constant timestamptz := public.hc_now();
begin
    insert into public.hc_run select id, instant from fresh;
    return null;
end $$;
create function hc_ended() returns trigger language plpgsql security definer as $$
begin
    update public.hc_run set finished_at = public.hc_now() where run = new.id;
    return null;
end $$;
create function hc_committed() returns trigger language plpgsql security definer as $$
declare
    instant constant timestamptz := public.hc_now();
begin
    insert into public.hc_step select run_id, position, instant from fresh
        on conflict (run, position) do update set committed_at = excluded.committed_at;
    return null;
end $$;
create function hc_committed_anew() returns trigger language plpgsql security definer as $$
begin
    update public.hc_step set committed_at = public.hc_now() where run = new.run_id and position = new.position;
    return null;
end $$;
create trigger hc_begun after insert on durable_internal.run
    referencing new table as fresh for each statement execute function hc_begun();
create trigger hc_ended after update on durable_internal.run
    for each row when (old.finished_at is null and new.finished_at is not null) execute function hc_ended();
create trigger hc_committed after insert on durable_internal.step
    referencing new table as fresh for each statement execute function hc_committed();
create trigger hc_committed_anew after update on durable_internal.step
    for each row when (old.committed_at <> new.committed_at) execute function hc_committed_anew();
create function hc_held() returns trigger language plpgsql security definer set enable_seqscan = off as $$
begin
    -- A start that had waited for it, and begins now as another run: nobody has seen the first.
    if tg_op = 'UPDATE' and not exists (select from durable_internal.run r where r.id = old.run_id) then
        update public.hc_holding h set run = new.run_id, taken_at = public.hc_now(), expires_at = new.expires_at
         where h.run = old.run_id and h.gone_at is null;
        update public.hc_holding h set next = new.run_id where h.next = old.run_id;
        return null;
    end if;
    if tg_op <> 'INSERT' then  -- `over` by the clock that has just decided it
        update public.hc_holding h
           set gone_at = public.hc_now(), next = case when tg_op = 'UPDATE' then new.run_id end,
               over = coalesce(old.expires_at <= clock_timestamp(), false),
               status = (select r.status from durable_internal.run r where r.id = old.run_id)
         where h.run = old.run_id and h.gone_at is null;
    end if;
    if tg_op <> 'DELETE' then
        insert into public.hc_holding (key, run, taken_at, expires_at) values (new.key, new.run_id, public.hc_now(), new.expires_at);
    end if;
    return null;
end $$;
create function hc_waited() returns trigger language plpgsql security definer as $$
begin
    insert into public.hc_wait select wait_id, run_id, position, name from fresh where event not in ('$child', '$sleep');
    return null;
end $$;
create trigger hc_leased after insert on durable_internal.lease
    referencing new table as fresh for each statement execute function hc_leased();
create trigger hc_given_back after delete on durable_internal.lease
    referencing old table as gone for each statement execute function hc_given_back();
create trigger hc_held after insert or update or delete on durable_internal.idempotency_key
    for each row execute function hc_held();
create trigger hc_waited after insert on durable_internal.wait
    referencing new table as fresh for each statement execute function hc_waited();
"""


def prepare_evidence(evidence):
    """Makes the empty tables of both schemas."""
    evidence.execute(EVIDENCE)
    evidence.execute("create index on hc.act (key)")
    evidence.execute("create schema sut")
    for name, (columns, _) in COPIES.items():
        evidence.execute(f"create table sut.{name} ({columns})")
    for index in ("run (id)", "run (key)", "step (run, name)", "lease (run)", "event (id)", "delivery (event_seq)",
                  "holding (run)", "holding (key)", "waited (wait_id)"):
        evidence.execute(f"create index on sut.{index}")


def prepare_system(system):
    system.execute(INSTRUMENTS)


def newest(system):
    """The sequence number up to which there are runs and events."""
    return system.execute("select greatest((select max(seq) from durable_internal.run), (select max(seq) from durable_internal.event), 0)"
                          ).fetchone()[0]


def copy_system(system, evidence, before):
    """Replaces the copy by what the system says now, in one snapshot. What was done later, if it was not at rest, is left out."""
    began = evidence.execute("select clock_timestamp()").fetchone()[0]
    with system.transaction():
        system.execute("set transaction isolation level repeatable read, read only")
        for name, (_, query) in COPIES.items():
            evidence.execute(f"truncate sut.{name}")
            text = query.replace("%(newest)s", str(before))
            with system.cursor().copy(f"copy ({text}) to stdout") as source, \
                    evidence.cursor().copy(f"copy sut.{name} from stdin") as target:
                for block in source:
                    target.write(block)
    evidence.execute("delete from hc.effect where at > %s", (began,))
    evidence.execute("analyze")


def look_at_steps(system, evidence, before):
    """Remembers the steps that are completed now: they may never change, nor go. Asked is the standby, where there is one: after a crash a
    primary shows what it finds in its log, whether the standby has it or not."""
    rows = system.execute(
        """select s.run_id, s.position, s.name, md5(coalesce(s.result, s.error, 'null')::text)
             from durable.steps s join durable_internal.run r on r.id = s.run_id where r.seq > %s""", (before,)).fetchall()
    if rows:
        evidence.execute("insert into hc.step_look select * from unnest(%s::uuid[], %s::int[], %s::text[], %s::text[])"
                         " on conflict do nothing", [list(column) for column in zip(*rows)])


def look_at_sessions(system, evidence):
    """Sessions of ours that have been in a transaction for over ten seconds; the nemesis' own say so by their name."""
    rows = system.execute(
        """select application_name, pid, state, wait_event, clock_timestamp() - xact_start from pg_stat_activity
            where application_name like 'durable%' and clock_timestamp() - xact_start > interval '10 s'
              and wait_event is distinct from 'SyncRep'""").fetchall()
    for row in rows:
        evidence.execute("insert into hc.session_look (app, pid, state, wait, age) values (%s, %s, %s, %s, %s)", row)


def take_digest(system, evidence, round_number, before, last):
    """What a finished round left behind, as one number: later looks have to see the same."""
    runs, digest = system.execute(
        """select count(*), coalesce(sum(hashtextextended(concat_ws('|', r.id, r.status, r.result, r.finished_at, r.attempt,
                    (select sum(hashtextextended(concat_ws('|', s.position, s.name, s.result, s.error, s.committed_at), 0))
                       from durable.steps s where s.run_id = r.id)), 0)), 0)::text
             from durable.runs r join durable_internal.run i on i.id = r.id
            where i.seq > %s and i.seq <= %s and r.status in ('completed', 'cancelled')""", (before, last)).fetchone()
    evidence.execute("insert into hc.digest (round, runs, digest) values (%s, %s, %s)", (round_number, runs, digest))


def forget_round(evidence):
    """After a round without violations: its rows are counted elsewhere, and the next one begins with empty tables."""
    evidence.execute("truncate hc.act, hc.effect, hc.program, hc.session_look, hc.step_look, hc.fault, hc.calm")


def connect(url, tries=60, **options):
    """A connection with autocommit, once the database can be reached."""
    while True:
        try:
            return psycopg.connect(url, autocommit=True, connect_timeout=3, **options)
        except psycopg.OperationalError:
            tries -= 1
            if tries == 0:
                raise
            time.sleep(0.5)
