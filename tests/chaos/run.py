#!/usr/bin/python3
"""The chaos run: environment, workload, nemesis and auditor, which know nothing of one another's insides. Called by scripts/chaos,
in namespaces of its own.
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import threading
import time

import environment
import history
import invariants
import nemesis as faults
from campaign import percentile

DOORS = ("sql", "pool", "http", "cli", "sdk")
GRACE_S = 120  # how long we go on looking, to say by how much it was late

FIGURES = """
with kill as (select f.id, f.at, f.whom from hc.fault f where f.what = 'kill' and f.whom like 'worker%'),
     lost as (select k.id, k.at, l.run, r.job from kill k join sut.worker w on w.name = k.whom
                join sut.lease l on l.worker = w.id and l.leased_at < k.at and l.ended_at > k.at
                join sut.run r on r.id = l.run and r.queue <> 'paused'), -- which nobody may take while it is paused
     again as (select x.job, extract(epoch from min(n.leased_at) - x.at) as s from lost x join sut.lease n
                on n.run = x.run and n.leased_at > x.at group by x.id, x.job, x.run, x.at)
select job = 'sink.c', array_agg(s) from again group by 1"""
# Woken when a run that was in its hands was another's already: workers; endpoints, whose handler had begun; and how many runs that was.
ZOMBIES = """
with stop as (select * from hc.fault where what = 'stop'),
     lost as (select f.id, 'worker' as what, f.until, l.run, l.fence, l.ended_at from stop f join sut.worker w on w.name = f.whom
                join sut.lease l on l.worker = w.id where l.leased_at < f.at and l.ended_at between f.at and f.until
               union all
              select distinct f.id, 'endpoint', f.until, l.run, l.fence, l.ended_at from stop f join hc.effect e on e.actor = f.whom
                join sut.lease l on l.run = e.run and l.fence = e.fence
               where e.at < f.at and l.ended_at between f.at and f.until),
     taken as (select x.* from lost x where exists (select from sut.lease n where n.run = x.run and n.fence <> x.fence
                                                       and n.leased_at >= x.ended_at and n.leased_at < x.until))
select count(distinct id) filter (where what = 'worker'), count(distinct id) filter (where what = 'endpoint'),
       count(distinct (run, fence)) from taken"""
GO_ON = """
select extract(epoch from (select min(s.committed_at) from sut.step s where s.committed_at > p.at and s.kind in ('step', 'op')) - f.at),
       extract(epoch from (select min(s.committed_at) from sut.step s where s.committed_at > p.at and s.kind in ('step', 'op')) - p.at)
       , f.detail like 'cut off%'
  from hc.fault f join lateral (select min(at) as at from hc.fault p where p.what = 'promoted' and p.id > f.id) p on p.at is not null
 where f.what = 'primary'"""

SINCE_LAST_FAULT = """
select extract(epoch from greatest(clock_timestamp() - max(at), interval '0')) from (
    select max(at) as at from hc.effect where kind = 'crash' union all select max(at) from hc.phase where phase = 'calm' union all
    select max(until + replace(detail, '+', '')::interval) from hc.fault where what = 'database clock') as last"""
# Of the keys that clients share. Each door, then how keys went from run to run, and starts of one key that overlapped.
KEYS = """
select a.door || ' ' || v.what, count(*) from hc.act a
  join lateral (values ('key ended, asked for again', a.ok and a.ttl is not null and exists (select from sut.holding h where h.key = a.key
                            and h.run <> a.run and h.over and h.next = a.run)),
                       ('restart asked for', a.ok and a.restart), ('conflict refused', a.ok = false and a.op = 'start'),
                       ('key released', a.ok and a.op = 'release')) as v (what, reached) on v.reached
 where a.key like 'k/%' group by 1 union all
select 'key ' || case when next is null then 'released' when over then 'over and taken again' else 'restarted ' || coalesce(status, 'alive') end, count(*)
  from sut.holding where gone_at is not null group by 1 union all
select 'key given again', count(*) - count(distinct run) from hc.act where op = 'start' and ok and key like 'k/%' union all
select 'key asked for at once', count(*) from hc.act a where op = 'start' and key like 'k/%' and exists (select from hc.act b
    where b.op = 'start' and b.key = a.key and b.client <> a.client and b.began < a.at and b.at > a.began)"""


class Figures:
    """What was reached, over all rounds: a quiet workload proves nothing."""

    def __init__(self):
        self.counts = {}
        self.recovery = {True: [], False: []}  # of runs of the module; of those of endpoints
        self.outage = {True: [], False: []}  # the old primary was cut off; it was killed
        self.promotion = []
        self.rests = []  # how long after the last fault of each round all had ended
        self.violations = []  # (round, number, promise, how often)

    def add(self, name, n):
        self.counts[name] = self.counts.get(name, 0) + n

    def take_round(self, evidence):
        for what, n in evidence.execute("select what, count(*) from hc.fault where what <> 'promoted' group by what"):
            self.add(f"fault {what}", n)
        for what, n in evidence.execute("select split_part(whom, ' ', 1), count(*) from hc.fault where what = 'kill' group by 1"):
            self.add(f"killed {what.rstrip('1234')}", n)
        for status, n in evidence.execute("select status, count(*) from sut.run group by status"):
            self.add(f"run {status}", n)
        for job, n in evidence.execute("select job, count(*) from sut.run group by job"):
            self.add(f"job {job}", n)
        for kind, n in evidence.execute("select case when kind = 'op' then regexp_replace(name, '[:#/].*|[.]\\d.*', '') else kind ||"
                                        " case when kind = 'step' then ' ' || split_part(name, '.', 1) else '' end end, count(*)"
                                        " from sut.step group by 1"):
            self.add(f"done {kind}", n)
        for op, ok, n in evidence.execute("select op, ok, count(*) from hc.act group by op, ok"):
            self.add(f"call {op} {'unknown' if ok is None else 'acknowledged' if ok else 'refused'}", n)
        for what, n in evidence.execute(KEYS):
            self.add(what, n)
        for outcome, n in evidence.execute("select outcome, count(*) from sut.attempt where outcome is not null group by 1"):
            self.add(f"attempt {outcome}", n)
        one = lambda query: evidence.execute(query).fetchone()[0]
        for name, n in zip(("workers", "endpoints", "runs"), evidence.execute(ZOMBIES).fetchone()):
            self.add(f"zombie {name}", n)
        self.add("unknown fates", one("select count(*) from hc.act where ok is null"))
        self.add("steps", one("select count(*) from sut.step"))
        self.add("effects", one("select count(*) from hc.effect where kind = 'step'"))
        self.add("effects repeated", one("select count(*) - count(distinct (run, step)) from hc.effect where kind = 'step'"))
        self.add("waits timed out", one("select count(*) from hc.effect where kind = 'wait' and value = 'timed out'"))
        self.add("children", one("select count(*) from sut.run where parent is not null"))
        for of_module, seconds in evidence.execute(FIGURES).fetchall():
            self.recovery[of_module] += [float(s) for s in seconds]
        for outage, promotion, cut_off in evidence.execute(GO_ON).fetchall():
            if outage is not None:
                self.outage[cut_off].append(float(outage))
                self.promotion.append(float(promotion))

    def json(self):
        return {"counts": self.counts, "recovery": self.recovery[True] + self.recovery[False], "promotion": self.promotion,
                "outage": self.outage[True] + self.outage[False], "rests": self.rests, "violations": self.violations}

    def text(self):
        lines, groups = [], {}
        for name, n in sorted(self.counts.items()):
            head, _, rest = name.partition(" ")
            groups.setdefault(head, []).append(f"{rest or head} {n}")
        for head, parts in groups.items():
            lines.append(f"{head}: {', '.join(parts)}")
        for name, values in (("killed until the run has a worker again, module", self.recovery[True]),
                             ("killed until the run has a worker again, endpoints", self.recovery[False]), ("primary killed until the next commit", self.outage[False]),
                             ("primary cut off until the next commit", self.outage[True]), ("promoted until the next commit", self.promotion)):
            if values:
                lines.append(f"{name}: p50 {percentile(values, 50):.2f} s, p99 {percentile(values, 99):.2f} s, max {max(values):.2f} s"
                             f" (n = {len(values)})")
        return "\n".join(lines)


class Run:
    def __init__(self, options, root, folder):
        self.options, self.folder = options, folder
        self.env = environment.Environment(folder, root, options.build, options.before, options.pg_bin)
        self.figures = Figures()
        self.failed = self.passed = 0
        self.rounds = []

    def say(self, text):
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def build(self):
        env = self.env
        env.start_evidence()
        env.start_databases()
        env.start_pooler()
        env.start_programs()
        env.evidence.execute("insert into hc.phase (round, phase) values (0, 'calm')")
        env.clients = [f"client{i}" for i in range(1, 1 + len(DOORS))]
        for i, door in enumerate(DOORS):
            env.add_client(env.clients[i], 61 + i, door, self.options.seed)
        self.nemesis = faults.Nemesis(env, self.options.seed, self.options.only)
        if self.options.sanitized:  # whose runtime has to be loaded before any other, as libfaketime
            self.nemesis.weights.pop("clock", None)

    def watch(self, done, evidence, before):
        """While faults happen: starts again what ended by itself, and looks at sessions and steps."""
        ticks = 0
        while not done.wait(0.3):
            self.env.look_after()
            ticks += 1
            try:
                if ticks % 7 == 0:
                    with history.psycopg.connect(self.env.primary.url(), autocommit=True, connect_timeout=2) as system:
                        history.look_at_sessions(system, evidence)
                if ticks % 70 == 0:
                    with history.psycopg.connect(self.env.keeper.url(), autocommit=True, connect_timeout=2) as system:
                        history.look_at_steps(system, evidence, before)
            except history.psycopg.OperationalError:
                pass  # it is away just now
            except history.psycopg.Error as error:
                self.nemesis.problems.append(f"watch: {error!r}")

    def round(self, number, seconds):
        env, evidence = self.env, self.env.evidence
        with env.system() as system:
            before = history.newest(system)
        evidence.execute("insert into hc.phase (round, phase) values (%s, 'run')", (number,))
        done = threading.Event()
        watcher = threading.Thread(target=self.watch, args=(done, history.connect(env.evidence_url), before))
        watcher.start()
        self.nemesis.ends = time.monotonic() + seconds
        while time.monotonic() < self.nemesis.ends:
            self.nemesis.step()
        self.nemesis.heal()
        evidence.execute("insert into hc.phase (round, phase) values (%s, 'calm')", (number,))
        took = self.wait_for_rest(number, before)
        done.set()
        watcher.join()
        self.judge(number, before, took)

    def wait_for_rest(self, number, before):
        """How long after the last fault everything had ended; None: it had not, even later. A program that tells its handler to
        crash is a fault too; and a clock that was ahead is one until the time that it showed."""
        healed = time.monotonic()
        while time.monotonic() - healed < self.options.calm + GRACE_S:
            calm = self.env.evidence.execute("select count(*) from hc.calm where round = %s", (number,)).fetchone()[0]
            with self.env.system() as system:
                system.execute("set enable_seqscan = off")
                left = system.execute("select count(*) from durable_internal.run where seq > %s and status is null",
                                      (before,)).fetchone()[0]
            if calm == len(self.env.clients) and left == 0:
                return float(self.env.evidence.execute(SINCE_LAST_FAULT).fetchone()[0])
            time.sleep(0.5)
        return None

    def judge(self, number, before, took):
        env, evidence = self.env, self.env.evidence
        with env.system() as system:
            history.copy_system(system, evidence, before)
            self.rounds.append((number, before, history.newest(system)))
            for one in self.rounds[-3:]:
                history.take_digest(system, evidence, one[0], one[1], one[2])
        found = invariants.violations(evidence)
        if took is None or took > self.options.calm:
            found.append(("L", f"all runs end within {self.options.calm:.0f} seconds of the last fault", 1,
                          [(None, None, "not at all" if took is None else f"after {took:.1f} s")]))
        text = invariants.describe(evidence, found)
        if took is None or took > self.options.calm / 2:
            text += "\nlast to end:" + "".join(f"\n  {row}" for (row,) in evidence.execute(
                "select concat_ws(' ', id, job, status, error_name, 'attempt', attempt, finished_at) from sut.run"
                " order by finished_at desc nulls first limit 3"))
        crashes = evidence.execute("select count(*) from hc.effect where kind = 'crash'").fetchone()[0]
        exits = invariants.unasked({name: actor.exits for name, actor in env.actors.items()}, crashes)
        if exits:
            found.append(("P", "programs end only by our hand", 1, []))
            text += f"\nP: programs ended by themselves: {exits}; {crashes} were asked to"
        for actor in env.actors.values():
            actor.exits = []
        if self.nemesis.problems:
            found.append(("H", "every fault could be done", len(self.nemesis.problems), []))
            text += "\nH: " + "\nH: ".join(self.nemesis.problems)
            self.nemesis.problems = []
        self.figures.take_round(evidence)
        self.figures.rests.append(took)
        self.figures.violations += [(number, *one[:3]) for one in found]
        checks = len(invariants.CHECKS) + 2
        self.failed += len(found)
        self.passed += checks - len(found)
        self.say(f"round {number}: {evidence.execute('select count(*) from sut.run').fetchone()[0]} runs, "
                 f"{evidence.execute('select count(*) from hc.fault').fetchone()[0]} faults, at rest after "
                 f"{'never' if took is None else f'{took:.1f} s'}, {len(found)} violations")
        if found:
            print(text, flush=True)
            self.keep(number)
        history.forget_round(evidence)
        with env.system() as system:
            system.execute("select durable.state_delete(key) from durable_internal.state where key like 'counter:%'")

    def keep(self, number):
        """The evidence of a bad round, and the programs' logs."""
        target = pathlib.Path(self.options.keep) / f"seed-{self.options.seed}-round-{number}"
        target.mkdir(parents=True, exist_ok=True)
        environment.run(f"{self.options.pg_bin}/pg_dump", "-Fc", "-f", str(target / "evidence.dump"), self.env.evidence_url, check=False)
        with self.env.system() as system:
            environment.run(f"{self.options.pg_bin}/pg_dump", "-Fc", "-f", str(target / "system.dump"), self.env.primary.url(), check=False)
        for log in pathlib.Path(self.folder).glob("*.log"):
            (target / log.name).write_bytes(log.read_bytes()[-20_000_000:])
        with open(target / "processes", "w", encoding="utf-8") as file:  # which lived, and in what its threads waited
            for name, actor in self.env.actors.items():
                file.write(f"{name}: pid {actor.process.pid}, exit {actor.process.poll()}, ended by us {actor.ended_by_us}\n")
                for task in pathlib.Path(f"/proc/{actor.process.pid}/task").glob("*"):
                    file.write(f"  {task.name} {(task / 'stat').read_text().split()[2]} {(task / 'wchan').read_text()}\n")
        self.say(f"kept in {target}")

    def run(self):
        began = time.monotonic()
        self.build()
        self.say(f"seed {self.options.seed}: built in {time.monotonic() - began:.1f} s")
        number, left = 0, self.options.minutes * 60
        while left > 0:
            number += 1
            seconds = min(left, self.options.round * 60)
            self.round(number, seconds)
            left -= seconds
            if self.failed and self.options.stop:
                break
        print(self.figures.text())
        if self.options.json:
            with open(self.options.json, "w", encoding="utf-8") as file:
                json.dump({"seed": self.options.seed, "only": self.options.only, "seconds": self.options.minutes * 60 - left,
                           "passed": self.passed, "failed": self.failed, **self.figures.json()}, file)


def main():
    parser = argparse.ArgumentParser(prog="scripts/chaos")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of workload and nemesis; the time if not given")
    parser.add_argument("--minutes", type=float, default=5, help="of faults")
    parser.add_argument("--round", type=float, default=3, help="minutes of faults between two checks")
    parser.add_argument("--calm", type=float, default=30, help="seconds after the last fault in which all has to end")
    parser.add_argument("--only", type=lambda text: text.split(","), help="only these faults, comma separated")
    parser.add_argument("--stop", action="store_true", help="end with the first round that has violations")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--keep", default="/tmp", help="where the evidence of bad rounds is kept")
    parser.add_argument("--sanitized", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--before", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--pg-bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--folder", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Run(options, str(pathlib.Path(__file__).resolve().parents[2]), options.folder)
    try:
        run.run()
    except (Exception, KeyboardInterrupt) as error:
        print(f"the run broke off: {error!r}", flush=True)
        run.failed += 1
        for log in sorted(pathlib.Path(options.folder).glob("*.log")):
            text = log.read_text(errors="replace").splitlines()[-3:]
            if text:
                print(f"--- {log.name}", *text, sep="\n")
        raise
    finally:
        print(f"{run.passed} passed, {run.failed} failed", flush=True)
        os._exit(1 if run.failed else 0)  # the kernel ends whatever is left: scripts/chaos says how


if __name__ == "__main__":
    main()
