#!/usr/bin/env python3
"""Every failpoint of every program, with every action it has: a process dies, stands still or misses an answer there, while 30
runs are at work that use everything. Then all runs have to complete, and nothing may be lost or done twice.

Usage: failpoints.py [PROGRAM:NAME:HIT:ACTION…]   as worker:turn.sent:1:kill; a part that is empty stands for all.
Without arguments: hit 1 of each point, with one of its actions, by DURABLE_SEED (1 unless given); with DURABLE_CHAOS=full, hits 1
to 5 of each point with each action. See docs/reliability.md."""
import concurrent.futures
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
from fleet import BUILD, LEASE_S, PROGRAMS, Fleet

SLOTS = 2
MEMORY, MEMORY_HITS = "memory.allocated", 1000  # the allocations of which one fails; a few of them each time, by the seed
MEMORY_SHARE, MEMORY_SHARE_FULL = 2, 200
LIVE_S = 30  # within which all completes, from the fault on
STEPS = {"everything": 9, "plain": 5, "commits": 5, "answers": 5, "kid": 1}
LOAD = ["everything"] * 10 + ["plain"] * 8 + ["commits"] * 6 + ["answers"] * 6
ZOMBIE_CALLS_MAX = 2  # steps that a process that stood still may call when it goes on
COUNTED = ("everything", "commits", "answers")

# What has to happen so that a point is reached at all: other failpoints before it, in the same process, for the n-th hit.
BEFORE = {
    "reconcile.": lambda hit: [f"turn.sent:{3 * n}:drop" for n in range(1, hit + 1)],
    "line.broken": lambda hit: [f"turn.sent:{3 * n}:drop" for n in range(1, hit + 1)],
    "step_tx.asked": lambda hit: [f"step_tx.before_commit:{2 * n}:drop" for n in range(1, hit + 1)],
}
TERMINATED = ("drain.", "leave.", "server.drain", "scheduler.told_to_stop")  # the process is told to stop
BURYING = ("reap.",)  # a worker with runs in hand is dead
FROZEN = ("end_sessions.",)  # a worker stands still in the middle of a transaction


class Case:
    def __init__(self, program, name, hit, action):
        self.program, self.name, self.hit, self.action = program, name, hit, action

    def __str__(self):
        return f"{self.program}:{self.name}:{self.hit}:{self.action}"

    def failpoint(self):
        before = next((points(self.hit) for start, points in BEFORE.items() if self.name.startswith(start)), [])
        action = "sleep=300" if self.action == "sleep" else self.action
        return ",".join([*before, f"{self.name}:{self.hit}:{action}"])


class Load:
    """The runs of a case, and the events they wait for. Each is said until it is acknowledged."""

    def __init__(self, fleet, tag, until, register):
        self.fleet, self.tag, self.until, self.runs = fleet, tag, until, {}
        self.pool = concurrent.futures.ThreadPoolExecutor(4)
        self.said = [self.pool.submit(self.register)] if register else []
        self.said += [self.pool.submit(self.start, n, job) for n, job in enumerate(LOAD)]

    def register(self):
        assert self.fleet.register_endpoint(self.until), "the endpoint was never registered"

    def start(self, n, job):
        key = f"{self.tag}-{n}"
        body = {"job": job, "idempotencyKey": key, "payload": {"case": self.tag, "key": key, "counter": self.tag}}
        run = self.fleet.request("POST", "/v1/runs", body, (200, 201), self.until)
        assert run, "a start was never acknowledged"
        self.runs[run["id"]] = job
        if job != "plain":
            event = {"name": "go", "correlationKey": key, "idempotencyKey": key}
            assert self.fleet.request("POST", "/v1/events", event, (202,), self.until), "an event was never acknowledged"

    def is_acknowledged(self):
        return all(said.done() for said in self.said)

    def close(self):
        """What was not acknowledged."""
        self.pool.shutdown(cancel_futures=True)
        return sorted({str(said.exception()) for said in self.said if not said.cancelled() and said.exception()})


def of_case(tag):
    return f"from durable_internal.run r join durable_internal.lane l on l.id = r.lane_id where r.payload ->> 'case' = '{tag}'"


def check(fleet, case, tag, load, zombie):
    """What is wrong with the runs of a case that are all over."""
    wrong = []
    rows = fleet.sql(f"select r.id, l.job, r.status, (select count(*) from durable_internal.step s where s.run_id = r.id), "
                     f"r.error {of_case(tag)}")
    for run, job, status, steps, error in rows:
        if status != "completed" or int(steps) != STEPS[job]:
            wrong.append(f"run {run} of {job} is {status} with {steps} steps {error}")
    found = {row[0] for row in rows if row[1] != "kid"}
    if found != set(load.runs):
        wrong.append(f"{len(load.runs)} runs were acknowledged, {len(found)} are there")
    if sum(row[1] == "kid" for row in rows) != LOAD.count("everything"):
        wrong.append("not one child for each parent")
    twice = fleet.sql(f"select run_id, count(*) from transfer where run_id in (select r.id {of_case(tag)} and l.job = "
                      f"'everything') group by run_id having count(*) <> 1")
    transfers = fleet.sql(f"select count(*) from transfer where run_id in (select r.id {of_case(tag)})")[0][0]
    if twice or int(transfers) != LOAD.count("everything"):
        wrong.append(f"{transfers} transfers of step_tx; more than once: {twice}")
    counter = fleet.sql(f"select value from durable_internal.state where key = '{tag}'")
    if counter != [[str(sum(job in COUNTED for job in LOAD))]]:
        wrong.append(f"the counter is {counter}")
    back = fleet.sql(f"select s.run_id from durable_internal.step s join durable_internal.step t on t.run_id = s.run_id and "
                     f"t.position = s.position + 1 and t.fence < s.fence where s.run_id in (select r.id {of_case(tag)})")
    if back:
        wrong.append(f"the fence went back: {back}")
    committed = {(run, name): float(at) for run, name, at in fleet.sql(
        f"select s.run_id, s.name, extract(epoch from s.committed_at) from durable_internal.step s "
        f"where s.run_id in (select r.id {of_case(tag)})")}
    late, of_zombie = [], []
    for line in fleet.effects.read_text().splitlines():
        run, step, pid, at = line.split(" ")
        if float(at) > committed.get((run, step), float("inf")):
            (of_zombie if int(pid) == zombie else late).append(
                f"step {step} of run {run} was called {float(at) - committed[run, step]:.3f} s after its commit")
    # Between the last look at the clock and the call a thread can stand still; there are few such, as it is the next thing.
    wrong += late + (of_zombie if len(of_zombie) > ZOMBIE_CALLS_MAX and case.name != "step.before" else [])
    promises = subprocess.run([BUILD / "tests/failpoints/invariants", fleet.url], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
    if promises.returncode != 0:
        wrong.append(next((line for line in promises.stdout.splitlines() if "times it is not so" in line), promises.stdout))
    return wrong


class Director:
    """Brings one case about, on a fleet that is there."""

    def __init__(self, fleet, case, tag):
        self.fleet, self.case, self.tag, self.wrong = fleet, case, tag, []
        self.fired_at = self.go_on_at = self.frozen = None

    def prepare(self):
        """One of each other program, the runs, and the victim: if it is no server, after them, so that it has work at once."""
        case, fleet = self.case, self.fleet
        absent = (case.program, "worker") if case.name.startswith(BURYING + FROZEN) else (case.program,)
        self.wrong += fleet.end([process for process in fleet.processes if process.program in absent])
        for program in ("server", "scheduler", "worker"):
            if program not in absent and not any(process.program == program for process in fleet.processes):
                fleet.spawn(program)
        late = case.program != "server"  # the work is there before the victim is
        if not late:
            self.victim = fleet.spawn(case.program, case.failpoint())
        self.until = time.monotonic() + LIVE_S
        register = not late or not fleet.sql("select from durable_internal.endpoint")
        self.load = Load(fleet, self.tag, self.until, register)
        if late:
            self.wait_for_load()
            self.victim = fleet.spawn(case.program, case.failpoint())

    def wait_for_load(self):
        self.wait(self.load.is_acknowledged, LIVE_S)
        if self.case.name.startswith(BURYING):
            dead = self.fleet.spawn("worker", "claim.taken:1:kill")
            dead.child.wait(10)
            self.fleet.processes.remove(dead)
        if self.case.name.startswith(FROZEN):
            self.frozen = self.fleet.spawn("worker", "pipeline.half_sent:1:stop", "--endpoints=false")
            self.wait(lambda: self.frozen.said("failpoint.reached"), 10)
        if self.case.name.startswith(BURYING + FROZEN):
            self.fleet.spawn("worker")
            time.sleep(LEASE_S)
        elif self.case.program == "scheduler":
            self.wait(lambda: self.fleet.sql("select not exists (select from durable_internal.ready) and not exists "
                                             "(select from durable_internal.lease)") == [["t"]], 5)

    @staticmethod
    def wait(holds, seconds):
        end = time.monotonic() + seconds
        while not holds() and time.monotonic() < end:
            time.sleep(0.02)

    def is_over(self):
        done = self.fleet.sql(f"select count(*) >= {len(LOAD)} and count(*) = count(r.status) {of_case(self.tag)}")
        return self.load.is_acknowledged() and done == [["t"]]

    def tell_to_stop(self):
        busy = len(self.load.runs) >= 5 if self.case.program == "server" else \
            self.victim.said("worker.registered") or self.victim.said("scheduler.active")
        if busy and not self.victim.told:
            self.victim.signal(signal.SIGTERM)

    def look_after_victim(self):
        """As a service manager would; and as somebody who finds a process that hangs."""
        case, now = self.case, time.monotonic()
        if case.name.startswith(TERMINATED):
            self.tell_to_stop()
        if self.fired_at is None and self.victim.said(f"failpoint.reached {case.name}:{case.hit}:"):
            self.fired_at, self.until = now, now + LIVE_S
            if case.action == "stop":
                self.go_on_at = now + 2 * LEASE_S
                if case.program != "server":  # it has the port
                    self.fleet.spawn(case.program)
        if self.go_on_at is not None and now > self.go_on_at:
            self.victim.signal(signal.SIGCONT)
            self.go_on_at = None
        if self.victim.child.poll() is not None and self.victim in self.fleet.processes:
            status = self.victim.child.returncode
            if not (self.victim.told and status == 0) and not (status == -signal.SIGKILL and case.action == "kill") \
                    and not (case.name == MEMORY and self.victim.gave_up()):
                self.wrong.append(f"the {case.program} ended with {status}: {self.victim.last_words()}")
            self.wrong += self.fleet.end([self.victim])
            if not any(process.program == case.program for process in self.fleet.processes):
                self.fleet.spawn(case.program)

    def run(self):
        """What was wrong, and whether the point was reached."""
        self.prepare()
        over_at = None
        while True:
            self.look_after_victim()
            now = time.monotonic()
            if now > self.until:
                self.wrong.append(f"not all was over {LIVE_S} s after the fault")
                break
            if over_at is None and self.is_over():
                over_at = now
            patience = 0 if self.fired_at is not None else 3 if self.case.hit == 1 else 0.5
            if over_at is not None and now > over_at + patience and self.go_on_at is None:
                break
            time.sleep(0.02)
        if self.frozen is not None:
            self.frozen.signal(signal.SIGCONT)
        if self.case.action == "stop":
            time.sleep(0.5)  # what it does now that it goes on is looked at, too
        stopped = self.frozen or (self.victim if self.case.action == "stop" else None)
        zombie = stopped.child.pid if stopped else None
        self.wrong += self.load.close()
        self.wrong += check(self.fleet, self.case, self.tag, self.load, zombie)
        spare = [process for process in self.fleet.processes
                 if process in (self.victim, self.frozen) or process.told]
        self.wrong += self.fleet.end(spare)
        return self.wrong, self.fired_at is not None


def work(slot, folder, cases, results):
    """One slot: cases one after the other, on one fleet as long as nothing is wrong."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    fleet, number = None, 0
    while (case := cases.get()) is not None:
        began = time.monotonic()
        try:
            number += 1
            if fleet is None:
                fleet = Fleet(f"failpoints_{os.getpid()}_{number}", folder)
            wrong, reached = Director(fleet, case, f"c{number}").run()
            wrong += [] if reached or case.hit > 1 or case.name == MEMORY else ["the point was never reached"]
        except Exception:
            wrong, reached = [traceback.format_exc()], False
        if wrong and fleet is not None:
            keep_logs(fleet, case)
            try:
                fleet.close()
            except Exception:
                wrong.append(traceback.format_exc())
            fleet = None
        results.put((str(case), wrong, reached, time.monotonic() - began))
    if fleet is not None:
        wrong = fleet.close()
        results.put((f"the end of slot {slot}", wrong, True, 0))
    results.put(None)


def keep_logs(fleet, case):
    keep = os.environ.get("FAILPOINT_LOGS")
    if keep:
        where = pathlib.Path(keep) / str(case).replace(":", "-")
        where.mkdir(parents=True, exist_ok=True)
        for log in [*fleet.folder.glob(f"{fleet.name}.*")]:
            shutil.copy(log, where)


def points():
    """(program, name, actions) of every point there is."""
    for program, path in PROGRAMS.items():
        said = subprocess.run([path, "--failpoints"], stdout=subprocess.PIPE, text=True, check=True).stdout
        for line in sorted(said.splitlines()):
            name, *actions = line.split(" ")
            yield program, name, actions


def left_in(build):
    """What an ordinary build has of failpoints: it is to be nothing."""
    names = {name for _, name, _ in points()}
    wrong = []
    for path in PROGRAMS.values():
        path = pathlib.Path(build) / path.relative_to(BUILD)
        texts = subprocess.run(["strings", "-a", path], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        symbols = subprocess.run(["nm", path], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        wrong += [f"{path}: {text}" for text in texts if text in names or "DURABLE_FAILPOINT" in text]
        wrong += [f"{path}: {symbol}" for symbol in symbols if "failpoint" in symbol]
    return wrong


def choose(arguments):
    full = os.environ.get("DURABLE_CHAOS") == "full"
    every = [Case(program, name, hit, action) for program, name, actions in points()
             for hit in range(1, 1 + (MEMORY_HITS if name == MEMORY else 5)) for action in actions]
    if arguments:
        wanted = [argument.split(":") for argument in arguments]
        return [case for case in every for w in wanted
                if all(part in ("", str(value)) for part, value in zip(w, (case.program, case.name, case.hit, case.action)))]
    seed = int(os.environ.get("DURABLE_SEED", 1))
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    chosen = []
    for program in PROGRAMS:
        memory = [case for case in every if case.program == program and case.name == MEMORY]
        chosen += chance.sample(memory, MEMORY_SHARE_FULL if full else MEMORY_SHARE)
    others = [case for case in every if case.name != MEMORY]
    if full:
        return others + chosen
    for program, name, actions in points():
        if name != MEMORY:
            chosen.append(Case(program, name, 1, chance.choice(actions)))
    return chosen


def main(arguments):
    began = time.monotonic()
    chosen = choose(arguments)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="durable-failpoints."))
    cases, results = multiprocessing.Queue(), multiprocessing.Queue()
    for case in chosen:
        cases.put(case)
    release = os.environ.get("DURABLE_RELEASE")
    if release:
        results.put(("an ordinary build has no failpoint", left_in(release), True, 0))
    slots = [multiprocessing.Process(target=work, args=(n, folder, cases, results), daemon=True) for n in range(SLOTS)]
    for slot in slots:
        cases.put(None)
        slot.start()
    passed = failed = reached_count = open_slots = 0
    unreached, seconds = [], []
    open_slots = SLOTS
    while open_slots > 0:
        result = results.get()
        if result is None:
            open_slots -= 1
            continue
        name, wrong, reached, took = result
        reached_count += reached and took > 0
        if took > 0:
            seconds.append(took)
        if not reached and not wrong:
            unreached.append(name)
        passed, failed = passed + (not wrong and took > 0), failed + bool(wrong)
        if wrong or took > 0 and os.environ.get("FAILPOINT_LOGS"):
            print(f"{'FAILED' if wrong else 'passed'} {name} {'reached' if reached else 'not reached'} {took:.1f} s", flush=True)
        for what in wrong[:6]:
            print(f"    {what}", flush=True)
    for slot in slots:
        slot.join()
    shutil.rmtree(folder)
    names = {(case.program, case.name) for case in chosen}
    print(f"{len(names)} names, {len(chosen)} cases, {reached_count} reached, {failed} violations; "
          f"{sum(seconds) / max(1, len(seconds)):.1f} s a case, {time.monotonic() - began:.0f} s in all")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
