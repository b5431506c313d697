"""Random programs for the kitchen-sink job, and what each has to come to: a number, or a failure.

A program is a list of operations; kitchen_sink.c and kitchen_sink.mjs interpret it. The value of each goes into a sum that
depends on the order. Everything about a program follows from its key and the seed.

The names of an operation say what it is, which the checker relies on: s, tx, f, h, b, l, p are functions that were called; w is a
wait; `sent.…` an event that the run sends.
"""

import random

MODULUS = 1000003
JOBS = ("sink.c", "sink.one", "sink.two")

# What a program is made of, and how often.
WEIGHTS = {"step": 40, "burst": 12, "tx": 8, "flaky": 5, "hang": 2, "par": 6, "big": 2, "wait": 9, "timeout": 3, "race": 3, "any": 4, "sleep": 6, "child": 5,
           "count": 8, "setget": 5, "locked": 4, "send": 5, "fail": 2, "crash": 0.3}
LAST = {None: 94, "doom": 4, "bad": 2}


class Program:
    """One start: `payload` for the run, `expected` as (status, sum or None), `events` that a client has to send."""

    def __init__(self, seed, key, job=None, depth=0, at=None):
        self.key = key
        self.random = random.Random(f"{seed}/{key}")
        self.job = job or self.random.choice(JOBS)
        self.depth = depth
        self.events = []      # (event, correlation key, value, seconds after the start)
        self.children = []    # programs of the children
        self.waits = []
        self.sum = 0
        self.counter = f"counter:{self.random.randrange(8)}"
        self.by = self.random.randint(1, 9)
        self.status = "completed"
        self.limits = {}
        # The queue that the nemesis pauses, the one whose order is checked, and the rest.
        self.queue = self.random.choices(("default", "paused", "ordered"), (6, 1, 3))[0]
        self.priority = self.random.choice((0, 0, 0, 5, -5)) if self.queue == "ordered" else 0
        ops = [self.operation(i) for i in range(self.length())]
        last = self.random.choices(list(LAST), list(LAST.values()))[0] if depth == 0 else None
        if last is not None:
            self.status = "failed"
            self.limits = {"maxAttempts": 6}  # more than its other operations fail
            ops.append({"op": last, "name": f"b.{len(ops)}"})
        self.payload = {"key": key, "counter": self.counter, "by": self.by, "ops": ops}
        if at is not None:
            self.payload["at"] = at

    def length(self):
        return self.random.randint(1, 6) if self.depth > 0 else min(self.random.randint(5, 40), self.random.randint(5, 40))

    def operation(self, i):
        kinds = dict(WEIGHTS)
        if self.job != "sink.c":
            del kinds["tx"]
        else:
            del kinds["par"]
        if self.depth > 0:
            for kind in ("child", "wait", "race", "any"):
                del kinds[kind]
        kind = self.random.choices(list(kinds), list(kinds.values()))[0]
        op, value = getattr(self, f"op_{kind}")(i)
        self.sum = (self.sum * 31 + value) % MODULUS
        return op

    def value(self):
        return self.random.randint(1, 1000)

    def step(self, name, kind="step"):
        return {"op": kind, "name": name, "ms": self.random.choice((0, 1, 2, 5, 10, 20, 100)), "v": self.value()}

    def op_step(self, i):
        op = self.step(f"s.{i}")
        return op, op["v"]

    def op_burst(self, i):
        """Many quick steps: one after another in the module, for which they are cheap; forty side by side in an endpoint."""
        low, high, width = (60, 240, 1) if self.job == "sink.c" else (40, 120, 40)
        count, value = self.random.randint(low, high), self.value()
        return ({"op": "burst", "name": f"s.{i}", "count": count, "width": width, "v": value},
                sum(value + n for n in range(count)))

    def op_tx(self, i):
        op = self.step(f"tx.{i}", "tx")
        return op, op["v"]

    def op_flaky(self, i):
        op = {**self.step(f"f.{i}", "flaky"), "tries": self.random.randint(2, 3)}
        return op, op["v"]

    def op_hang(self, i):
        """Its first call takes longer than the step may."""
        op = {"op": "hang", "name": f"h.{i}", "timeout": "300ms", "ms": self.random.randint(500, 4000), "v": self.value()}
        return op, op["v"]

    def op_par(self, i):
        steps = [self.step(f"p.{i}.{n}") for n in range(self.random.randint(2, 5))]
        return {"op": "par", "steps": steps}, sum(step["v"] for step in steps)

    def op_big(self, i):
        size = self.random.randint(1000, 200_000)
        return {"op": "big", "name": f"b.{i}", "bytes": size}, size

    def event(self, i, op, key, seconds):
        value = self.value()
        self.waits.append(op["name"])
        self.events.append((op["event"], key, value, seconds))
        return op, value

    def op_wait(self, i):
        key = f"{self.key}/{i}"
        op = {"op": "wait", "name": f"w.{i}", "event": "go", "key": key}
        return self.event(i, op, key, self.random.uniform(0, 3))

    def op_any(self, i):
        keys = [f"{self.key}/{i}", f"{self.key}/{i}/other"]
        op = {"op": "any", "name": f"w.{i}", "event": "go", "key": keys[0], "other": keys[1]}
        return self.event(i, op, self.random.choice(keys), self.random.uniform(0, 3))

    def op_race(self, i):
        """The event comes about when the wait is over: either may be first, and then stays so."""
        key, seconds = f"{self.key}/{i}", self.random.uniform(0.2, 1.5)
        op = {"op": "wait", "name": f"w.{i}", "event": "go", "key": key, "timeout": f"{int(seconds * 1000)}ms"}
        self.event(i, op, key, seconds + self.random.uniform(0, 1))
        return op, 1

    def op_timeout(self, i):
        op = {"op": "wait", "name": f"w.{i}", "event": "never", "key": self.key, "timeout": f"{self.random.randint(20, 800)}ms"}
        return op, 1

    def op_sleep(self, i):
        return {"op": "sleep", "name": f"z.{i}", "for": f"{self.random.randint(10, 1500)}ms"}, 1

    def op_child(self, i):
        name = f"c.{i}"
        child = Program(self.random.random(), f"{self.key}/{i}", self.random.choice(JOBS), self.depth + 1, at=name)
        self.children.append(child)
        return {"op": "child", "name": name, "job": child.job, "payload": child.payload}, child.sum

    def op_count(self, i):
        return {"op": "count"}, 1

    def op_setget(self, i):
        value = self.value()
        return {"op": "setget", "key": f"own:{self.key}/{i}", "v": value}, value

    def op_locked(self, i):
        op = {**self.step(f"l.{i}", "locked"), "key": f"lock:{self.random.randrange(4)}"}
        return op, op["v"]

    def op_send(self, i):
        return {"op": "send", "event": f"sent.{i}", "name": f"e.{i}"}, 1

    def op_fail(self, i):
        return {"op": "fail", "until": self.random.randint(2, 3)}, 1

    def op_crash(self, i):
        return {"op": "crash", "name": f"x.{i}"}, 1

    def expectations(self):
        """Rows for hc.program: this one and its children."""
        result = self.sum if self.status == "completed" else None
        yield (self.key, self.job, self.status, result, self.counter, self.by, self.waits)
        for child in self.children:
            yield from child.expectations()


class Hostile:
    """A run of the hostile endpoint: it may end in any way, but by its own timeout at last."""

    def __init__(self, key):
        self.key, self.job, self.queue, self.priority = key, "hostile", "default", 0
        self.payload, self.events, self.limits = {"key": key}, [], {"maxAttempts": 3, "timeout": "15s"}

    def expectations(self):
        yield (self.key, self.job, "any", None, "none", 0, [])
