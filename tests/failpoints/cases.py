"""What is tried: a case is a failpoint of a program, its n-th hit, and what happens there. Some hits never happen, however often a
case is tried: a drain begins once. So the matrix first watches undisturbed processes, and leaves out what not all of them passed."""
import json
import os
import pathlib
import random
import subprocess

from fleet import BUILD, PROGRAMS

HITS = 5
# Points that are passed hundreds of times: the matrix goes on until they are not reached, or takes some, by the seed.
ENDLESS = {"memory.allocated": 100, "memory.new": None, "query.sent": None, "query.executed": None}
SHARE = 2  # of memory.…, in a run that is no matrix
SHARE_HITS = 1000
WATCHED = 3  # undisturbed processes of each scene

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
        """DURABLE_FAILPOINT of the victim. Whoever is watched meets all that has to happen before, and no more."""
        watched = self.action == "tally"
        hit = HITS if watched else self.hit
        before = next((points(hit) for start, points in BEFORE.items() if self.name.startswith(start)), [])
        action = "sleep=300" if self.action == "sleep" else self.action
        return ",".join([*before, "tally" if watched else f"{self.name}:{self.hit}:{action}"])

    def is_of_memory(self):
        return self.name.startswith("memory.")


def scene(name):
    """What points have in common that the same case can reach."""
    return next((start for start in [*BEFORE, *BURYING, *FROZEN] if name.startswith(start)),
                "terminated" if name.startswith(TERMINATED) else "")


def points():
    """(program, name, actions) of every point there is."""
    for program in ("server", "scheduler", "worker"):
        said = subprocess.run([PROGRAMS[f"durable-{program}"], "--failpoints"], stdout=subprocess.PIPE, text=True, check=True).stdout
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


def named(arguments):
    """The cases of PROGRAM:NAME:HIT:ACTION, where an empty part stands for all."""
    wanted = [argument.split(":") for argument in arguments]
    return [Case(program, name, hit, action) for program, name, actions in points() for w in wanted
            if w[0] in ("", program) and w[1] in ("", name)
            for hit in ([int(w[2])] if w[2] else range(1, HITS + 1)) for action in actions if w[3] in ("", action)]


def sample(seed):
    """Hit 1 of each point, with one of its actions."""
    chance = random.Random(seed)
    return [Case(program, name, hit, chance.choice(actions)) for program, name, actions in points()
            for hit in (chance.sample(range(1, SHARE_HITS), SHARE) if name.startswith("memory.") else [1])]


def watched():
    """One point of each scene that a program can be in, to see how often all of them are passed."""
    scenes = {(program, scene(name)): name for program, name, _ in points()}
    return [Case(program, name, n, "tally") for (program, _), name in scenes.items() for n in range(1, WATCHED + 1)]


def matrix(seed, passed):
    """Every action at each hit that is sure to happen; and what was left out, as (program, name, hits). `passed`: Results.passed."""
    chance = random.Random(seed)
    chosen, left_out = [], []
    for program, name, actions in points():
        most = passed.get((program, scene(name), name), 0)
        if name in ENDLESS:
            share = ENDLESS[name]
            hits = sorted(chance.sample(range(1, most + 1), min(share, most))) if share else range(1, most + 1)
        else:
            hits = range(1, max(1, min(HITS, most)) + 1)
            if most < HITS:
                left_out.append((program, name, max(1, most)))
        chosen += [Case(program, name, hit, action) for hit in hits for action in actions]
    return sorted(chosen, key=lambda case: case.action == "sleep"), left_out  # the mildest at the end


class Results:
    """What came of each case, a line of JSON each, in the file FAILPOINT_RESULTS: a run that was ended goes on from there."""

    def __init__(self):
        path = os.environ.get("FAILPOINT_RESULTS")
        self.path = pathlib.Path(path) if path else None
        self.all = {}
        if self.path and self.path.exists():
            for line in self.path.read_text().splitlines():
                result = json.loads(line)
                self.all[result["case"]] = result

    def add(self, result):
        self.all[result["case"]] = result
        if self.path:
            with self.path.open("a") as file:
                print(json.dumps(result), file=file)

    def is_done(self, case):
        there = self.all.get(str(case))
        return there is not None and not there["wrong"]

    def passed(self, watched_cases):
        """(program, scene, point) → how often each watched process passed it: of those that are tried without end the most, of others
        the least, which every process comes to."""
        hits = {}
        for case in watched_cases:
            for name, n in self.all[str(case)]["passed"].items():
                hits.setdefault((case.program, scene(case.name), name), []).append(n)
        return {key: max(of_each) if key[2] in ENDLESS else min(of_each + [0] * (WATCHED - len(of_each))) for key, of_each in hits.items()}
