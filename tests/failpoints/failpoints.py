#!/usr/bin/python3
"""Every failpoint of every program, with every action it has: a process dies, stands still or misses an answer there, while 30
runs are at work that use everything. Then all runs have to complete, and nothing may be lost or done twice.

Usage: failpoints.py [PROGRAM:NAME:HIT:ACTION…]   as worker:turn.sent:1:kill; a part that is empty stands for all.
Without arguments: hit 1 of each point, with one of its actions, by DURABLE_SEED (unless given another one with each commit);
with DURABLE_CHAOS=full, hits 1 to 5 of each point with each action. FAILPOINT_LOGS: a folder that keeps the logs of what failed; FAILPOINT_RESULTS: a file of
what came of each case, from which an interrupted run goes on; FAILPOINT_SLOTS: cases side by side (2); FAILPOINT_LIVE_S: in how
many seconds after the fault all is to be over (30), for a machine that is busy. See docs/reliability.md."""
import concurrent.futures
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
from cases import BURYING, ENDLESS, FROZEN, TERMINATED, Results, left_in, matrix, named, sample, watched
from fleet import BUILD, LEASE_S, Fleet
from harness import TREE

SLOTS = int(os.environ.get("FAILPOINT_SLOTS", "2"))
CASES_A_FLEET = 40  # then a new one: to look for a case's runs among those of many others takes time
POLL_S = 0.05
LIVE_S = int(os.environ.get("FAILPOINT_LIVE_S", "30"))  # within which all completes, from the fault on
WAKE_S = 0.1  # in which a process that goes on says what it was about to say
PATIENCE_S = 3  # for a hit that has not come when all is over
TRIES = 5  # for a hit that comes by chance
STEPS = {"everything": 9, "plain": 5, "commits": 5, "answers": 5, "kid": 1}
LOAD = ["everything"] * 10 + ["plain"] * 8 + ["commits"] * 6 + ["answers"] * 6
COUNTED = ("everything", "commits", "answers")


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


def check(fleet, case, tag, load, zombie, woken_at):
    """What is wrong with the runs of a case that are all over; and how many steps and requests a process that stood still was too late
    with."""
    wrong = []
    rows = fleet.rows(f"select r.id::text, l.job, r.status, (select count(*) from durable_internal.step s where s.run_id = r.id), "
                      f"r.error {of_case(tag)}")
    for run, job, status, steps, error in rows:
        if status != "completed" or steps != STEPS[job]:
            wrong.append(f"run {run} of {job} is {status} with {steps} steps {error}")
    found = {row[0] for row in rows if row[1] != "kid"}
    if found != set(load.runs):
        wrong.append(f"{len(load.runs)} runs were acknowledged, {len(found)} are there")
    if sum(row[1] == "kid" for row in rows) != LOAD.count("everything"):
        wrong.append("not one child for each parent")
    twice = fleet.rows(f"select run_id, count(*) from transfer where run_id in (select r.id {of_case(tag)} and l.job = "
                       f"'everything') group by run_id having count(*) <> 1")
    transfers = fleet.value(f"select count(*) from transfer where run_id in (select r.id {of_case(tag)})")
    if twice or transfers != LOAD.count("everything"):
        wrong.append(f"{transfers} transfers of step_tx; more than once: {twice}")
    counter = fleet.rows(f"select value from durable_internal.state where key = '{tag}'")
    if counter != [(sum(job in COUNTED for job in LOAD),)]:
        wrong.append(f"the counter is {counter}")
    back = fleet.rows(f"select s.run_id::text from durable_internal.step s join durable_internal.step t on t.run_id = s.run_id and "
                      f"t.position = s.position + 1 and t.fence < s.fence where s.run_id in (select r.id {of_case(tag)})")
    if back:
        wrong.append(f"the fence went back: {back}")
    of_zombie, of_requests, late = called_after_commit(fleet, tag, zombie, woken_at)
    # Whoever stands between the last look at the clock and the call makes that call when the process goes on: one thread, mostly where
    # the case stops it there. And the loop, wherever another thread stops it: one request, which may be of several steps.
    if len(of_zombie) > 1:
        late += of_zombie
    requests = {run for run, _, _ in of_requests}
    if len(requests) > 1:
        late += of_requests
    wrong += [f"step {step} of run {run} was called {after:.3f} s after its commit" for run, step, after in late]
    promises = subprocess.run([BUILD / "tests/failpoints/invariants", fleet.url], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
    if promises.returncode != 0:
        wrong.append(next((line for line in promises.stdout.splitlines() if "times it is not so" in line), promises.stdout))
    return wrong, len(of_zombie) + len(requests)


def called_after_commit(fleet, tag, zombie, woken_at):
    """Calls of steps that were committed, as (run, step, seconds after the commit): of the process `zombie` at the moment when it went on;
    of handlers over HTTP, which are in this process, at that moment; and others."""
    committed = {(run, name): float(at) for run, name, at in fleet.rows(
        f"select s.run_id::text, s.name, extract(epoch from s.committed_at) from durable_internal.step s "
        f"where s.run_id in (select r.id {of_case(tag)})")}
    of_zombie, of_requests, others = [], [], []
    for line in fleet.effects.read_text().splitlines():
        run, step, pid, at = line.split(" ")
        if float(at) > committed.get((run, step), float("inf")):
            woken = woken_at is not None and 0 <= float(at) - woken_at < WAKE_S
            group = {zombie: of_zombie, os.getpid(): of_requests}.get(int(pid), others) if woken else others
            group.append((run, step, float(at) - committed[run, step]))
    return of_zombie, of_requests, others


class Director:
    """Brings one case about, on a fleet that is there."""

    def __init__(self, fleet, case, tag):
        self.fleet, self.case, self.tag, self.wrong = fleet, case, tag, []
        self.fired_at = self.go_on_at = self.woken_at = self.frozen = None
        self.zombie_calls, self.rest_s = 0, None

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
        register = not late or not fleet.rows("select 1 from durable_internal.endpoint")
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
            self.wait(lambda: self.fleet.value("select not exists (select from durable_internal.ready) and not exists "
                                               "(select from durable_internal.lease)"), 5)

    @staticmethod
    def wait(holds, seconds):
        end = time.monotonic() + seconds
        while not holds() and time.monotonic() < end:
            time.sleep(POLL_S)

    def is_over(self):
        return self.load.is_acknowledged() and self.fleet.value(
            f"select count(*) >= {len(LOAD)} and count(*) = count(r.status) {of_case(self.tag)}")

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
            self.go_on_at, self.woken_at = None, time.time()
            self.victim.signal(signal.SIGCONT)
        if self.victim.child.poll() is not None and self.victim in self.fleet.processes:
            status = self.victim.child.returncode
            if not (self.victim.told and status == 0) and not (status == -signal.SIGKILL and case.action == "kill") \
                    and not (case.is_of_memory() and self.victim.gave_up()):
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
                self.rest_s = round(now - (self.fired_at or now), 2)
            patience = 0 if self.fired_at is not None else PATIENCE_S
            if over_at is not None and now > over_at + patience and self.go_on_at is None:
                break
            time.sleep(POLL_S)
        if self.frozen is not None:
            self.frozen.signal(signal.SIGCONT)
        if self.case.action == "stop":
            time.sleep(0.5)  # what it does now that it goes on is looked at, too
        stopped = self.frozen or (self.victim if self.case.action == "stop" else None)
        zombie = stopped.child.pid if stopped else None
        self.wrong += self.load.close()
        wrong, self.zombie_calls = check(self.fleet, self.case, self.tag, self.load, zombie, self.woken_at)
        self.wrong += wrong + self.fleet.refused
        spare = [process for process in self.fleet.processes
                 if process in (self.victim, self.frozen) or process.told]
        self.wrong += self.fleet.end(spare)

    def result(self):
        words = self.victim.words()
        reached = self.fired_at is not None or self.case.action == "tally"
        return {"reached": reached, "zombies": self.zombie_calls, "rest": self.rest_s,
                "callers": re.findall(r"^\S+\((\S*\+0x[0-9a-f]+)\) ?\[0x", words, re.M),
                "passed": {name: int(hits) for name, hits in re.findall(r"^failpoint.passed (\S+) (\d+)$", words, re.M)}}


class Slot:
    """Cases one after the other, on one fleet as long as nothing is wrong."""

    def __init__(self, number, folder):
        self.number, self.folder, self.fleet, self.cases = number, folder, None, 0

    def try_case(self, case):
        """What came of it."""
        result, wrong, began = {"reached": False}, [], time.monotonic()
        try:
            if self.cases % CASES_A_FLEET == 0:
                wrong += self.close()
            self.cases += 1
            if self.fleet is None:
                self.fleet = Fleet(f"failpoints_{os.getpid()}_{self.cases}", self.folder)
            director = Director(self.fleet, case, f"c{self.cases}")
            director.run()
            result = director.result()
            wrong += director.wrong
            if not result["reached"] and case.hit == 1 and not case.is_of_memory():
                wrong.append("the point was never reached")
        except Exception:
            wrong.append(traceback.format_exc())
        if wrong and self.fleet is not None:
            keep_logs(self.fleet, case)
            wrong += self.close()
        return {"case": str(case), "wrong": wrong, "seconds": round(time.monotonic() - began, 2), **result}

    def close(self):
        fleet, self.fleet = self.fleet, None
        try:
            return fleet.close() if fleet is not None else []
        except Exception:
            return [traceback.format_exc()]


def work(number, folder, cases, results):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    slot = Slot(number, folder)
    while (case := cases.get()) is not None:
        for _ in range(TRIES if case.name not in ENDLESS else 1):
            result = slot.try_case(case)
            if result["reached"] or result["wrong"]:
                break
        results.put(result)
    wrong = slot.close()
    if wrong:
        results.put({"case": f"the end of slot {number}", "wrong": wrong, "seconds": 0, "reached": False})
    results.put(None)


def keep_logs(fleet, case):
    keep = os.environ.get("FAILPOINT_LOGS")
    if keep:
        where = pathlib.Path(keep) / str(case).replace(":", "-")
        where.mkdir(parents=True, exist_ok=True)
        for log in [*fleet.folder.glob(f"{fleet.name}.*")]:
            shutil.copy(log, where)


def say(result, count, of):
    """One line, and what is wrong."""
    how = "FAILED" if result["wrong"] else "passed"
    print(f"{how} {result['case']} {'' if result['reached'] else 'not '}reached {result['seconds']:.1f} s ({count}/{of})", flush=True)
    for what in result["wrong"][:6]:
        print(f"    {what}", flush=True)


def run_cases(chosen, results):
    """Those that are not done, SLOTS at a time."""
    left = [case for case in chosen if not results.is_done(case)]
    cases, answers = multiprocessing.Queue(), multiprocessing.Queue()
    cases.cancel_join_thread()  # who is told to end does not wait until they are taken
    for case in [*left, *[None] * SLOTS]:
        cases.put(case)
    count, open_slots = 0, SLOTS
    with tempfile.TemporaryDirectory(prefix="durable-failpoints.", ignore_cleanup_errors=True) as folder:
        slots = [multiprocessing.Process(target=work, args=(n, pathlib.Path(folder), cases, answers), daemon=True)
                 for n in range(SLOTS)]
        for slot in slots:
            slot.start()
        while open_slots > 0:
            result = answers.get()
            if result is None:
                open_slots -= 1
                continue
            count += 1
            results.add(result)
            if result["wrong"] or os.environ.get("FAILPOINT_LOGS"):
                say(result, count, len(left))
        for slot in slots:
            slot.join()


def seed_of_commit():
    """Each push tries other actions; 1 where there is no repository."""
    said = subprocess.run(["git", "-C", TREE, "rev-parse", "HEAD"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=False)
    return int(said.stdout[:8] or "1", 16)


def choose(arguments, results):
    """The cases of this run."""
    if arguments:
        return named(arguments)
    full = os.environ.get("DURABLE_CHAOS") == "full"
    seed = int(os.environ.get("DURABLE_SEED") or (1 if full else seed_of_commit()))
    print(f"DURABLE_SEED={seed}", flush=True)
    if not full:
        return sample(seed)
    undisturbed = watched()
    run_cases(undisturbed, results)
    chosen, left_out = matrix(seed, results.passed(undisturbed))
    for program, name, hits in left_out:
        print(f"{program}:{name} is passed {'once' if hits == 1 else f'{hits} times'}; later hits are left out")
    return chosen


def main(arguments):
    began, results, failed = time.monotonic(), Results(), 0
    release = os.environ.get("DURABLE_RELEASE")
    if release:
        wrong = left_in(release)
        failed += bool(wrong)
        print("an ordinary build has no failpoint" if not wrong else "\n".join(wrong), flush=True)
    chosen = choose(arguments, results)
    run_cases(chosen, results)
    all_of_them = [results.all[str(case)] for case in chosen]
    wrong = [result for result in results.all.values() if result["wrong"]]
    seconds = [result["seconds"] for result in all_of_them]
    print(f"{len({(case.program, case.name) for case in chosen})} points, {len(chosen)} cases, "
          f"{sum(result['reached'] for result in all_of_them)} reached, {len(wrong)} violations; "
          f"{sum(seconds) / max(1, len(seconds)):.1f} s a case, {time.monotonic() - began:.0f} s in all")
    missed = [str(case) for case in chosen if not results.all[str(case)]["reached"] and case.name not in ENDLESS]
    for case in missed:
        print(f"{case} was not reached, in {TRIES} tries")
    if not arguments:  # which may name hits that cannot happen
        wrong += [case for case in missed if not results.all[case]["wrong"]]
    failed += len(wrong)
    print(f"{len(results.all) - len(wrong)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
