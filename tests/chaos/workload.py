#!/usr/bin/python3
"""One client: starts programs, sends the events that they wait for, cancels, retries, takes and frees keys that it shares with
the other clients, and writes down what it was told.

Arguments: name, door (sql, pool, http, cli or sdk), seed. The rest is in the environment; tests/chaos/environment.py says it.
"""

import http.client
import json
import os
import random
import subprocess
import sys
import time
import urllib.parse

import history
import keys
import programs
from psycopg.types.json import Jsonb

OUTSTANDING = 9  # runs of this client that have not ended
STARTS_A_LOOK = 4  # at most, to make up for calls that took long
PAUSE_S = 0.25  # between two starts, on average
LOOK_S = 0.3  # between two looks at what has ended
KEY_PAUSE_S = 0.6  # between two calls for a shared key, on average


class Refused(Exception):
    """The system has said no: nothing has happened."""


class Unknown(Exception):
    """No answer, or one that says nothing."""


class Sql:
    """SQL, over a connection to whichever is the primary, or over a pooler in transaction mode."""

    def __init__(self, url):
        self.url, self.conn, self.not_replicated = url, None, False

    def ask(self, query, *values):
        try:
            if self.conn is None:
                self.conn = history.psycopg.connect(self.url, autocommit=True, connect_timeout=3, prepare_threshold=None,
                                                    tcp_user_timeout=5000, keepalives_idle=2, keepalives_interval=1,
                                                    keepalives_count=4, application_name="client")
                self.conn.add_notice_handler(self.notice)
            self.not_replicated = False
            row = self.conn.execute(query, values).fetchone()
            if self.not_replicated:
                raise Unknown("committed here, but perhaps not on the standby")
            return row[0]
        except history.psycopg.Error as error:
            state = error.sqlstate or ""
            if state.startswith("DJ"):
                raise Refused(f"{state} {error}") from error
            self.close()
            raise Unknown(f"{state} {error}") from error

    def notice(self, diagnostic):
        if diagnostic.source_function == "SyncRepWaitForLSN":
            self.not_replicated = True

    def close(self):
        try:
            if self.conn is not None:
                self.conn.close()
        finally:
            self.conn = None

    def start(self, job, payload, key, queue, options):
        return str(self.ask("select durable.start(%s, %s, queue => %s, idempotency_key => %s, max_attempts => %s, priority => %s,"
                            " timeout => %s, idempotency_ttl => %s, options => %s)", job, Jsonb(payload), queue, key,
                            options.get("maxAttempts"), options["priority"], options.get("timeout"), options.get("idempotencyTtl"),
                            Jsonb({name: options[name] for name in ("onTerminal",) if name in options})))

    def send(self, event, key, payload):
        return str(self.ask("select durable.send_event(%s, %s, correlation_key => %s, idempotency_key => %s)", event, Jsonb(payload),
                            key, f"{event}/{key}"))

    def increment(self, key):
        return self.ask("select durable.state_increment(%s)", key)

    def cancel(self, run):
        return self.ask("select durable.cancel(%s)", run)

    def retry(self, run):
        return self.ask("select durable.retry(%s, 3)", run)

    def release(self, key):
        if not self.ask("select durable.release_key(%s)", key):
            raise Refused("it is not known")


class Http:
    """Both servers; the other one after each failure."""

    def __init__(self, servers, key):
        self.servers, self.key, self.conn = servers, key, None

    def ask(self, method, path, body=None):
        try:
            if self.conn is None:
                self.servers = self.servers[1:] + self.servers[:1]
                self.conn = http.client.HTTPConnection(urllib.parse.urlsplit(self.servers[0]).netloc, timeout=15)
            self.conn.request(method, path, body=json.dumps(body or {}), headers={
                "authorization": f"Bearer {self.key}", "content-type": "application/json"})
            answer = self.conn.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.conn = None
            raise Unknown(repr(error)) from error
        if answer.status >= 500 or answer.status in (408, 429):
            raise Unknown(f"{answer.status} {text[:200]}")
        if answer.status >= 400:
            raise Refused(f"{answer.status} {text[:200]}")
        return json.loads(text)

    def start(self, job, payload, key, queue, options):
        return self.ask("POST", "/v1/runs", {"job": job, "payload": payload, "idempotencyKey": key, "queueName": queue, **options})["id"]

    def send(self, event, key, payload):
        return self.ask("POST", "/v1/events", {"name": event, "payload": payload, "correlationKey": key,
                                               "idempotencyKey": f"{event}/{key}"})["id"]

    def increment(self, key):
        return self.ask("POST", f"/v1/state/{urllib.parse.quote(key, safe='')}/increment", {"by": 1})["value"]

    def cancel(self, run):
        return self.ask("POST", f"/v1/runs/{run}/cancel")

    def retry(self, run):
        return self.ask("POST", f"/v1/runs/{run}/retry", {"maxAttempts": 3})

    def release(self, key):
        return self.ask("DELETE", f"/v1/idempotency-keys/{urllib.parse.quote(key, safe='')}")


class Cli:
    """The command line, and so libdurable: a process, and a connection, for each call. It does not release keys."""

    def __init__(self, program, url):
        self.program, self.environ = program, {**os.environ, "DURABLE_DATABASE_URL": url}

    def ask(self, *arguments):
        try:
            done = subprocess.run([self.program, *arguments, "--json"], env=self.environ, capture_output=True, text=True, timeout=30,
                                  check=False)
        except subprocess.TimeoutExpired as error:
            raise Unknown("30 s") from error
        if done.returncode in (2, 3, 4, 5, 7):
            raise Refused(f"exit {done.returncode}: {done.stderr}")
        if done.returncode != 0:
            raise Unknown(f"{done.returncode} {done.stderr}")
        return json.loads(done.stdout)

    def start(self, job, payload, key, queue, options):
        limits = [f"--{flag}={options[name]}" for flag, name in (("max-attempts", "maxAttempts"), ("timeout", "timeout"),
                                                                 ("ttl", "idempotencyTtl")) if name in options]
        limits += ["--restart"] if options.get("onTerminal") == "restart" else []
        return self.ask("start", job, json.dumps(payload), "--key", key, "--queue", queue, f"--priority={options['priority']}",
                        *limits)["id"]

    def send(self, event, key, payload):
        return self.ask("event", event, json.dumps(payload), "--correlation-key", key, "--key", f"{event}/{key}")["id"]

    def increment(self, key):
        return self.ask("state", "increment", key)

    def cancel(self, run):
        return self.ask("cancel", run)

    def retry(self, run):
        return self.ask("retry", run, "--max-attempts", "3")


class Sdk:
    """The SDK in TypeScript, in a process of its own that lives as long as we do."""

    def __init__(self, program):
        self.process = subprocess.Popen(["node", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *call):
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "code" in answer and (answer["status"] == 0 or answer["status"] >= 500 or answer["status"] in (408, 429)):
            raise Unknown(str(answer))
        if "code" in answer:
            raise Refused(str(answer))
        return answer["result"]

    def start(self, job, payload, key, queue, options):
        return self.ask("start", job, payload, {"idempotencyKey": key, "queueName": queue, **options})

    def send(self, event, key, payload):
        return self.ask("send", event, payload, {"correlationKey": key, "idempotencyKey": f"{event}/{key}"})

    def increment(self, key):
        return self.ask("increment", key)

    def cancel(self, run):
        return self.ask("cancel", run)

    def retry(self, run):
        return self.ask("retry", run)

    def release(self, key):
        if not self.ask("release", key):  # or by the first of two tries, whose answer was lost
            raise Unknown("it is not known")


class Client:
    def __init__(self, name, door, seed):
        self.name, self.door_name, self.seed = name, door, seed
        self.random = random.Random(f"{seed}/{name}")
        self.evidence = history.connect(os.environ["CHAOS_EVIDENCE"])
        database = os.environ["CHAOS_DATABASE"]
        self.door = {"sql": lambda: Sql(database), "pool": lambda: Sql(os.environ["CHAOS_POOL"]),
                     "http": lambda: Http(os.environ["CHAOS_SERVERS"].split(), os.environ["CHAOS_KEY"]),
                     "cli": lambda: Cli(os.environ["CHAOS_CLI"], database),
                     "sdk": lambda: Sdk(os.path.join(os.path.dirname(os.path.abspath(__file__)), "door.mjs"))}[door]()
        self.look = Sql(database)
        self.count = 0
        self.events = []        # (when due, event, key, value)
        self.unsure = []        # programs whose start has not been acknowledged
        self.open = {}          # run: program
        self.keyed = {}         # run: its start, of a shared key
        self.ended = {}         # shared key: a run of it that was seen to have failed, or to be cancelled
        self.keys = set()       # shared keys that we have asked for
        self.next_start = self.next_look = self.next_key = 0.0

    def call(self, op, ask, key=None, job=None, run=None, payload=None, ttl=None, restart=False, seen=None):
        """Makes a call and writes down what came of it. The result, or None. `seen`: a run of the key that we have seen ended."""
        began, result, error = time.time(), None, None
        try:
            result, ok = ask(), True
        except Refused as refused:
            ok, error = False, str(refused)
        except Unknown as unknown:
            ok, error = None, str(unknown)
        self.evidence.execute(
            "insert into hc.act (client, door, op, began, at, ok, key, job, run, event, payload_hash, error, ttl, restart, seen) values"
            " (%s, %s, %s, to_timestamp(%s), to_timestamp(%s), %s, %s, %s, %s, %s, md5(%s::jsonb::text), %s, %s::interval, %s, %s)",
            (self.name, self.door_name, op, began, time.time(), ok, key, job, result if ok and op == "start" else run,
             result if ok and op == "send_event" else None, json.dumps(payload) if payload is not None else None,
             error[:500] if error else None, ttl, restart, seen))
        if op == "increment":
            self.evidence.execute("insert into hc.tally values (%s, %s)", (key, ok))
        if ok is None:
            time.sleep(self.random.uniform(0.05, 0.5))
        return ok, result

    def start(self, program):
        options = {"priority": program.priority, **program.limits}
        ok, run = self.call("start", lambda: self.door.start(program.job, program.payload, program.key, program.queue, options),
                            key=program.key, job=program.job, payload=program.payload, ttl=options.get("idempotencyTtl"),
                            restart=options.get("onTerminal") == "restart", seen=self.ended.get(program.key))
        if ok and isinstance(program, keys.Start):
            self.keyed[run] = program
        elif ok:
            self.open[run] = program
        return ok is not None

    def start_new(self):
        self.count += 1
        key = f"{self.name}/{self.count}"
        program = programs.Hostile(key) if self.random.random() < 0.03 else programs.Program(self.seed, key)
        self.expect(program)
        for event, correlation_key, value, seconds in program.events:
            self.events.append((time.time() + seconds, event, correlation_key, value))
        if not self.start(program):
            self.unsure.append(program)

    def expect(self, program):
        with self.evidence.cursor() as cursor:
            cursor.executemany("insert into hc.program (key, job, status, result, counter, by, waits) values (%s, %s, %s, %s, %s, %s, %s)"
                               " on conflict do nothing", list(program.expectations()))  # a shared key: another client was first

    def send_due(self):
        now = time.time()
        due = [event for event in self.events if event[0] <= now]
        self.events = [event for event in self.events if event[0] > now]
        for _, event, key, value in due:
            payload = {"v": value}
            ok, _ = self.call("send_event", lambda: self.door.send(event, key, payload), key=f"{event}/{key}", payload=payload)
            if ok is None:
                self.events.append((now, event, key, value))

    def say_again(self):
        self.unsure = [program for program in self.unsure if not self.start(program)]
        if self.open and self.random.random() < 0.1:
            self.start(self.random.choice(list(self.open.values())))

    def meddle(self):
        """Cancels and retries now and then, and counts."""
        chance = self.random.random()
        if chance < 0.03 and self.open:
            run = self.random.choice(list(self.open))
            self.call("cancel", lambda: self.door.cancel(run), run=run)
        elif chance < 0.1:
            self.call("increment", lambda: self.door.increment(f"tally:{self.name}"), key=f"tally:{self.name}")

    def use_key(self, round_number):
        """One call for a key that all clients share: mostly a start, of whatever it stands for or of something else."""
        now = time.time()
        if now < self.next_key:
            return
        self.next_key = now + self.random.expovariate(1 / KEY_PAUSE_S)
        slot = self.random.randrange(keys.SLOTS)
        if self.random.random() < 0.3:
            moment = int(now / keys.TOGETHER_S) + 1
            slot = moment % keys.SLOTS
            time.sleep(max(0, moment * keys.TOGETHER_S - time.time()))
        key = keys.Key(self.seed, keys.name_of(round_number, slot))
        if key.name not in self.keys:
            self.keys.add(key.name)
            self.expect(key)
        live = [run for run, start in self.keyed.items() if start.key == key.name]
        ended = self.ended.get(key.name)
        what = self.random.choices(("start", "other", "release", "cancel", "retry"), (55, 22, 9, 7, 7))[0]
        if what == "release" and hasattr(self.door, "release"):
            self.call("release", lambda: self.door.release(key.name), key=key.name)
        elif what == "cancel" and live:
            self.call("cancel", lambda: self.door.cancel(live[-1]), run=live[-1])
        elif what == "retry" and ended is not None:
            self.call("retry", lambda: self.door.retry(ended), run=ended)
        else:
            start = keys.Start(key, self.random.choice((1, 2)) if what == "other" else 0,
                               restart=self.random.random() < (0.2 if ended is None else 0.6))
            if not self.start(start):
                self.unsure.append(start)

    def forget_ended(self):
        if time.time() < self.next_look:
            return
        self.next_look = time.time() + LOOK_S
        try:
            rows = json.loads(self.look.ask(
                "select coalesce(jsonb_object_agg(id, status), '{}')::text from durable.runs where id = any(%s::uuid[])"
                " and status in ('completed', 'failed', 'cancelled')", [*self.open, *self.keyed]))
        except (Unknown, Refused):
            return
        for run, status in rows.items():
            if status == "failed" and self.random.random() < 0.15:
                self.call("retry", lambda run=run: self.door.retry(run), run=run)
            start = self.keyed.pop(run, None)
            if start is None:
                del self.open[run]
            elif status != "completed":
                self.ended[start.key] = run

    def phase(self):
        return self.evidence.execute("select round, phase from hc.phase order by at desc limit 1").fetchone()

    def probe(self, round_number):
        """The last three calls after everything was healed: all have to succeed."""
        key = f"{self.name}/probe/{round_number}"
        payload = {"key": key, "counter": "counter:0", "by": 1, "ops": [{"op": "step", "name": "s.0", "ms": 0, "v": 1}]}
        calls = [("start", lambda: self.door.start("sink.c", payload, key, "default", {"priority": 0})),
                 ("send_event", lambda: self.door.send("probe", key, {})),
                 ("increment", lambda: self.door.increment(f"tally:{self.name}"))]
        done = 0
        for op, ask in calls:
            ok, _ = self.call(op, ask, key=f"tally:{self.name}" if op == "increment" else key, job="sink.c" if op == "start" else None,
                              payload=payload if op == "start" else None)
            done += ok is True
        self.evidence.execute("insert into hc.calm (round, client, ok) values (%s, %s, %s)", (round_number, self.name, done))

    def run(self):
        calm = 0
        while True:
            round_number, phase = self.phase()
            self.send_due()
            self.say_again()
            self.forget_ended()
            if phase == "run":
                for _ in range(STARTS_A_LOOK):
                    if len(self.open) + len(self.unsure) < OUTSTANDING and time.time() >= self.next_start:
                        self.start_new()
                        self.next_start = max(self.next_start, time.time() - 1) + self.random.expovariate(1 / PAUSE_S)
                self.meddle()
                self.use_key(round_number)
            elif phase == "calm" and calm < round_number and not self.events and not self.unsure:
                self.probe(round_number)
                calm = round_number
                self.open, self.keyed, self.ended, self.keys = {}, {}, {}, set()
            time.sleep(0.05)


if __name__ == "__main__":
    Client(*sys.argv[1:4]).run()
