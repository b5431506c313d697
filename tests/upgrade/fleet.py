"""A fleet of two versions on one database: programs of either, handlers over HTTP, and runs whose ends are known."""
import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import sys
import time

import psycopg

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from harness import TREE, Program, call, command, free_port, key_new, until

LEASE_S = 2
ENDPOINT_JOBS = ("five-steps", "wait")

# job, payload, how it ends, its result (None: any), what it waits for: event or None.
KINDS = {
    "steps": ("steps", {"steps": 5, "us": 3000}, "completed", 5, None),
    "world": ("world", {}, "completed", None, None),
    "transfers": ("transfers", {"ms": 5}, "completed", "transferred", None),
    "sleeps": ("sleeps", {}, "completed", None, None),
    "event": ("waits", {}, "completed", None, "go"),
    "timeout": ("waits", {"key": "never", "timeout": "400ms", "on": 1}, "completed", None, None),
    "fails": ("fails", {}, "failed", None, None),
    "never": ("fails-permanently", {}, "failed", None, None),
    "flaky": ("flaky", {}, "completed", None, None),
    "http": ("five-steps", {}, "completed", (5, 15), None),
    "http-event": ("wait", {}, "completed", None, "go"),
}


class Fleet:
    def __init__(self, url, folder, versions):
        """`versions`: name → programs."""
        self.url, self.folder, self.versions, self.runs, self.programs = url, folder, versions, {}, {}
        self.random = random.Random(7)
        self.conn = psycopg.connect(url, autocommit=True)
        self.conn.execute("create table effect (run_id uuid, step text, attempt int, at timestamptz default clock_timestamp())")
        self.conn.execute("create table transfer (run_id uuid)")
        self.key, self.servers = None, {}

    def value(self, query, *values):
        return self.conn.execute(query, values or None).fetchone()[0]

    def until(self, query, what):
        until(lambda: self.value(query), what)

    def cli(self, version, *words):
        return command(self.versions[version]["cli"], *words, env={**os.environ, "DURABLE_DATABASE_URL": self.url})

    def open(self, version):
        """The key and the endpoint, made by this version's programs."""
        self.key = key_new(self.url, cli=self.versions[version]["cli"])
        port = free_port()
        secret = self.value("select secret from durable_internal.endpoint_put(1, 'test', %s, true, null, null)",
                            f"http://127.0.0.1:{port}/")
        self.conn.execute("select durable_internal.endpoint_synced(1, 'test', 'test', %s)",
                          (json.dumps([{"name": name} for name in ENDPOINT_JOBS]),))
        # Its handlers fall over when the server is away, which is counted as a crash of theirs.
        self.conn.execute("update durable_internal.job set max_crashes = 1000 where name = any (%s)", (list(ENDPOINT_JOBS),))
        self.add("endpoint", ["/usr/bin/python3", TREE / "tests/support/endpoint.py", port, secret, self.folder / "calls"])

    def add(self, name, argv):
        self.programs[name] = Program(argv, self.folder / f"{name}.log", {"DURABLE_DATABASE_URL": self.url})

    def spawn(self, version, program, number=1):
        name, path = f"{version} {program} {number}", self.versions[version]
        flags = []
        if program == "server":
            self.servers[name] = self.servers.get(name) or free_port()
            flags = ["--listen", f"127.0.0.1:{self.servers[name]}", "--allow-private"]
        if program == "worker":
            flags = ["--lease-ttl", f"{LEASE_S}s", "--grace", "2s", "--module", path["module"]]
            if number == 1:  # the others' handlers answer with what they have
                flags += ["--public-url", f"http://127.0.0.1:{self.servers[f'{version} server 1']}"]
        self.add(name, [path[program], *flags])

    def request(self, method, path, body, seconds=30):
        """Said to any server until one answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, text = call(self.random.choice([*self.servers.values()]), method, path, self.key, body, timeout=5)
                if status < 500:
                    assert status < 300, f"{method} {path}: {status} {text}"
                    return json.loads(text)
            time.sleep(0.05)
        raise AssertionError(f"{method} {path} was never acknowledged")

    def expect(self, kind, run_id, key):
        self.runs[run_id] = (kind, key)
        return run_id

    def start(self, kind, door="sql", version=None, **more):
        """One run, by SQL, HTTP or the command line. Its id."""
        job, payload, *_ = KINDS[kind]
        key = f"{kind}-{len(self.runs)}"
        payload = {"key": key, **payload} if KINDS[kind][4] else payload
        if door == "http":
            body = {"job": job, "payload": payload, "idempotencyKey": key}
            return self.expect(kind, self.request("POST", "/v1/runs", body)["id"], key)
        if door == "cli":
            said = self.cli(version, "start", job, json.dumps(payload))
            return self.expect(kind, re.search(r"[0-9a-f-]{36}", said)[0], key)
        names = ["job", "payload", *more]
        values = [job, json.dumps(payload), *more.values()]
        return self.expect(kind, str(self.value(f"select durable.start({', '.join(f'{name} => %s' for name in names)})",
                                                *values)), key)

    def send(self, key, door="sql"):
        if door == "http":
            self.request("POST", "/v1/events", {"name": "go", "correlationKey": key, "idempotencyKey": key})
        else:
            self.value("select durable.send_event('go', '{}', %s, %s)", key, key)

    def send_all(self):
        for n, (kind, key) in enumerate(self.runs.values()):
            if kind in KINDS and KINDS[kind][4]:
                self.send(key, ("sql", "http")[n % 2])

    def check(self, invariants, seconds=60):
        """All end as they should, and nothing happened twice."""
        end = time.monotonic() + seconds
        while (left := self.value("select count(*) from durable.runs where finished_at is null")) > 0:
            if time.monotonic() > end:
                rows = self.conn.execute("select id, job, status, durable.why(id) from durable.runs where finished_at is null "
                                         "limit 5").fetchall()
                raise AssertionError(f"{left} runs have not ended after {seconds} s: {rows}")
            time.sleep(0.1)
        rows = self.conn.execute("select id::text, status, result, error from durable.runs").fetchall()
        found = {run_id: (status, result, error) for run_id, status, result, error in rows}
        for run_id, (kind, _) in self.runs.items():
            _, _, status, result, _ = KINDS.get(kind, (None, None, kind, None, None))
            results = result if isinstance(result, tuple) else (result,)
            assert run_id in found, f"run {run_id} ({kind}) is lost"
            assert found[run_id][0] == status and (result is None or found[run_id][1] in results), \
                f"run {run_id} ({kind}) is {found[run_id]}"
        kids = self.value("select count(*) from durable.runs where parent_run_id is not null")
        worlds = sum(kind == "world" for kind, _ in self.runs.values())
        assert kids == worlds and len(found) == len(self.runs) + kids, (len(found), len(self.runs), kids, worlds)
        if worlds:
            assert self.value("select value::int from durable_internal.state where key = 'worlds'") == worlds
        transfers = sorted(row[0] for row in self.conn.execute("select run_id::text from transfer").fetchall())
        assert transfers == sorted(run_id for run_id, (kind, _) in self.runs.items() if kind == "transfers")
        assert self.value("select count(*) from effect e join durable.steps s on s.run_id = e.run_id and s.name = e.step "
                          "where e.at > s.committed_at") == 0
        command(invariants, self.url)

    def drain(self):
        """Whatever programs there are."""
        for name in [name for name in self.programs if name != "endpoint"]:
            self.programs.pop(name).drain()

    def close(self):
        for program in self.programs.values():
            if program.child.poll() is None:
                program.kill()
        self.conn.close()
