"""Starts that share a key: small programs, whose key may end or be released, whose run may fail and be restarted, and whose key
others ask for with another payload or job. All clients take the same keys, so that they meet.

What a key is follows from its name and the seed: how long it holds, and what may be started with it. A run of a key has no counter, event
or child: what these come to is known by the program's key, and here several runs have the same.
"""

import random
import time

import programs

SLOTS = 3            # keys at a time
AGE_S = 12           # then each is another
TOGETHER_S = 0.5     # between the moments at which several clients ask for the same key
TTLS_MS = (None, None, 1500, 3000, 5000)


def name_of(round_number, slot):
    return f"k/{round_number}/{slot}/{int(time.time() / AGE_S)}"


class Key:
    """`starts` has what may be started with it: the first, the same payload for another job, and another payload."""

    def __init__(self, seed, name):
        self.name = name
        self.random = random.Random(f"{seed}/{name}")
        self.ttl_ms = self.random.choice(TTLS_MS)
        one, other = self.random.sample(programs.JOBS, 2)
        mine, others = self.payload(name), self.payload(f"{name}/other")
        self.starts = [(one, mine), (other, mine), (one, others)]

    def payload(self, key):
        ops = [self.operation(i) for i in range(self.random.randint(1, 3))]
        if self.random.random() < 0.5:
            ops.append({"op": "doom", "name": f"b.{len(ops)}"})
        return {"key": key, "counter": "none", "by": 0, "ops": ops}

    def operation(self, i):
        if self.random.random() < 0.3:
            return {"op": "sleep", "name": f"z.{i}", "for": f"{self.random.randint(200, 2500)}ms"}
        return {"op": "step", "name": f"s.{i}", "ms": self.random.choice((0, 1, 5, 20)), "v": self.random.randint(1, 1000)}

    def expectations(self):
        """Rows for hc.program: what runs of each payload have to come to, whatever the job."""
        for job, payload in (self.starts[0], self.starts[2]):
            result = 0
            for op in payload["ops"]:
                result = (result * 31 + op.get("v", 1)) % programs.MODULUS
            failed = payload["ops"][-1]["op"] == "doom"
            yield (payload["key"], job, "failed" if failed else "completed", None if failed else result, "none", 0, [])


class Start:
    """One way to start with the key. `restart`: a run that has failed, or was cancelled, gives it up."""

    def __init__(self, key, which, restart):
        self.key, self.queue, self.priority = key.name, "default", 0
        self.job, self.payload = key.starts[which]
        self.limits = {"maxAttempts": 6}
        if key.ttl_ms is not None:
            self.limits["idempotencyTtl"] = f"{key.ttl_ms}ms"
        if restart:
            self.limits["onTerminal"] = "restart"
