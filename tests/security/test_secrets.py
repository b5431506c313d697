#!/usr/bin/python3
"""Canaries: texts that stand for secrets go through a fleet that is treated badly, and are looked for in everything that others
may read: log lines, metrics, command lines, the texts of statements, PostgreSQL's log. And secrets that are rotated under load."""
import contextlib
import json
import os
import pathlib
import sys
import threading
import time

from security import answer, cluster, fleet, handlers, migrate
from harness import CLI, call, command, key_new, run_all, until

SECONDS = int(os.environ.get("DURABLE_SECURITY_SECONDS", "5"))  # how long secrets are rotated, once a second


def canary(name):
    return f"canary-{name}-{os.urandom(6).hex()}"


# A canary for each kind of secret.
KINDS = ("password", "payload", "result", "error", "body", "idempotency", "correlation", "event", "state", "tag", "reason", "wrong",
         "log", "malformed", "token", "concurrency")

# An error names the argument and its value, where that is a name or a key; and PostgreSQL logs errors. docs/security.md says so.
NAMED = ("idempotency",)


def statements_of(database, seen, ends):
    """What pg_stat_activity shows, again and again; PostgreSQL cuts the texts at track_activity_query_size."""
    while not ends.is_set():
        with contextlib.suppress(AssertionError):
            seen.append(database.sql("select string_agg(concat_ws(' ', query, application_name), E'\\n') from pg_stat_activity "
                                     "where application_name like 'durable%'"))
        ends.wait(0.1)


def speak(port, key, words, jobs, started=201, refused=(400, 413)):
    """Every kind of request, with a canary wherever a client can put a text of its own; good ones, and bad ones."""
    run = {"payload": {"text": words["payload"]}, "tags": {"t": words["tag"]}, "concurrencyKey": words["concurrency"]}
    for job in jobs:
        status, said = call(port, "POST", "/v1/runs", key, {**run, "job": job, "idempotencyKey": f"{words['idempotency']}{job}"})
        assert status == started, said
    call(port, "POST", "/v1/runs", key, {**run, "job": "other", "idempotencyKey": f"{words['idempotency']}{jobs[0]}"})  # 409
    call(port, "POST", f"/v1/runs/{json.loads(said).get('id', 'none')}/cancel", key, {"reason": words["reason"]})
    call(port, "POST", "/v1/events", key, {"name": "e", "payload": words["event"], "correlationKey": words["correlation"]})
    call(port, "PUT", "/v1/state/k", key, {"value": words["state"]})
    for bad in (b'{"job": "noop", "payload": {"a": ' + words["malformed"].encode() + b"}}",
                b'{"job": "noop", "payload": "' + words["malformed"].encode() + b'\\ud800"}',
                json.dumps({"job": "noop", words["malformed"]: 1}).encode(),
                json.dumps({"job": words["malformed"] + "\n", "payload": 1}).encode(),
                json.dumps({"job": "noop", "payload": 1, "timeout": words["malformed"]}).encode(),
                json.dumps({"job": "noop", "payload": words["malformed"] + 1_100_000 * "x"}).encode()):
        status, said = call(port, "POST", "/v1/runs", key, bad)
        assert status in refused, (status, said)
    call(port, "GET", f"/v1/runs?status={words['malformed']}", key)
    call(port, "GET", f"/{words['malformed']}?key={words['wrong']}", key)
    call(port, "GET", "/v1/runs", words["wrong"])
    call(port, "GET", "/v1/runs", key[:-8] + "00000000")
    call(port, "POST", "/v1/commit", None, {"commits": [{"token": words["token"], "ops": []}]})


def command_lines(programs):
    return "\n".join(pathlib.Path(f"/proc/{program.child.pid}/cmdline").read_text() for program in programs.values())


def secrets_and_payloads_are_in_no_log_metric_or_statement():
    words = {kind: canary(kind) for kind in KINDS}
    jobs = {"echoes": lambda told: answer("completed", result=[words["result"], told["payload"]]),
            "fails": lambda told: answer("failed", error={"name": "E", "message": words["error"], "retryable": False}),
            "breaks": lambda told: (500, words["body"].encode()),
            "babbles": lambda told: (200, words["body"].encode()),
            "logs": lambda told: answer("completed", ops=[{"op": "log", "level": "error", "message": words["log"],
                                                           "fields": {"f": words["log"]}}, {"op": "odd", "name": words["log"]}])}
    seen, ends, places = [], threading.Event(), {}
    with cluster(password=words["password"]) as database, handlers(jobs) as (served, _):
        migrate(database.url())
        key = key_new(database.url())
        with fleet(database.url(), DURABLE_ALLOW_PRIVATE="true") as made:
            watcher = threading.Thread(target=statements_of, args=(database, seen, ends), daemon=True)
            watcher.start()
            made.wait_until_ready()
            status, said = call(made.port, "PUT", "/v1/endpoints/mine", key, {"url": f"http://127.0.0.1:{served}/{canary('path')}"})
            assert status == 200 and "syncError" not in said, said
            secret = json.loads(said)["secret"]
            command(CLI, "start", "noop", json.dumps(words["payload"]), "--key", words["idempotency"],
                    env={**os.environ, "DURABLE_DATABASE_URL": database.url()})
            speak(made.port, key, words, [*jobs, "noop", "fails-permanently", "waits"])
            until(lambda: int(database.sql("select count(*) from durable.attempts where ended_at is not null")) >= 6,
                  "handlers were called")
            places["command lines"] = command_lines(made.programs)
            for _ in range(2):
                database.stop()
                speak(made.port, key, words, ["noop"], started=503, refused=(400, 401, 413, 503))
                database.start()
                until(lambda: call(made.port, "GET", "/readyz")[0] == 200, "the server is ready again")
            until(lambda: database.sql("select count(*) from durable.runs where status = 'completed'") >= "2", "runs go on")
            for name, port in {"durable-server": made.port, **made.health}.items():
                places[f"/metrics of {name}"] = call(port, "GET", "/metrics")[1]
            ends.set()
            watcher.join()
            made.end()
            places.update({f"the log of {name}": made.words(name) for name in made.programs})
        dump = command("pg_dump", "--data-only", database.url())
        places["PostgreSQL's log"] = command("cat", database.log)
    places["the texts of statements"] = "\n".join(seen)
    looked_for = {**words, "API key": key.rsplit("_", 1)[1], "signing secret": secret.removeprefix("whsec_"),
                  "Authorization": "Bearer "}
    assert "commit" in places["the texts of statements"], "no statement of ours was seen"
    assert all(len(text) > 50 for text in places.values()), {place: len(text) for place, text in places.items()}
    for kind in ("payload", "result", "event", "state", "idempotency"):
        assert words[kind] in dump, f"{kind} did not even reach a table: this test could not fail"
    assert key.rsplit("_", 1)[1] not in dump and words["password"] not in dump, "in a table, and so in backups"
    found = [f"{kind} is in {place}: {line}" for kind, text in looked_for.items() for place, all_of_it in places.items()
             for line in all_of_it.splitlines() if text in line and not (kind in NAMED and place == "PostgreSQL's log")]
    print(f"{len(looked_for)} canaries, {len(places)} places, {sum(map(len, places.values()))} bytes: found {len(found)}")
    assert not found, "\n".join(found)


def what_postgres_logs_of_statements_by_hand_can_be_left_out():
    """SQL that a person or an application of yours writes with its values in it is logged when it fails; docs/security.md."""
    quiet = ["log_min_error_statement = panic", "log_error_verbosity = terse", "log_parameter_max_length_on_error = 0"]
    for settings, is_there in (([], True), (quiet, False)):
        with cluster(settings=settings) as database:
            migrate(database.url())
            word = canary("statement")
            command("psql", "-X", "-c", f"select durable.start('job', '{{\"a\": {word}}}')", database.url(), status=1)
            command("psql", "-X", "-c", f"select durable.start('job', '\"{word}\"', timeout => '-1 s')", database.url(), status=1)
            log = command("cat", database.log)
            assert "ERROR" in log and (word in log) == is_there, log


def secrets_are_rotated_under_load_and_no_call_is_refused():
    """Clients go on with the key before the newest, handlers know the newest secret and the one before it."""
    secrets, keys, answers, ends = [], [], {}, threading.Event()

    def client(number):
        n = 0
        while not ends.is_set():
            n += 1
            key = keys[-1 - number % 2] if len(keys) > 1 else keys[-1]
            status, said = call(made.port, "POST", "/v1/runs", key, {"job": "echoes", "idempotencyKey": f"{number}-{n}"})
            answers.setdefault(status, []).append(said)
            answers.setdefault(call(made.port, "GET", "/v1/queues", key)[0], []).append("")

    with cluster() as database, handlers({"echoes": lambda told: answer("completed")}, secrets) as (served, refused):
        url = database.url()
        migrate(url)
        keys.append(key_new(url))
        with fleet(url, module=False, DURABLE_ALLOW_PRIVATE="true") as made:
            until(lambda: call(made.port, "GET", "/readyz")[0] == 200, "the server is ready")
            said = json.loads(call(made.port, "PUT", "/v1/endpoints/mine", keys[0], {"url": f"http://127.0.0.1:{served}/"})[1])
            secrets.append(said["secret"])
            assert call(made.port, "POST", "/v1/endpoints/mine/sync", keys[0], {})[0] == 200
            refused.clear()  # the look at the registration came before its secret was known here
            clients = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(4)]
            for one in clients:
                one.start()
            begun = time.monotonic()
            while time.monotonic() < begun + SECONDS or len(keys) < 4:
                keys.append(command(CLI, "keys", "rotate", keys[-1].split("_")[1], "--overlap", "15s",
                                    env={**os.environ, "DURABLE_DATABASE_URL": url}).strip())
                rotated = json.loads(call(made.port, "POST", "/v1/endpoints/mine/rotate-secret", keys[-1], {})[1])
                secrets[:] = [*secrets[-1:], rotated["secret"]]
                time.sleep(1)
            ends.set()
            for one in clients:
                one.join()
            until(lambda: database.sql("select count(*) from durable.runs where status <> 'completed'") == "0", "all runs complete")
            twice = database.sql("select count(*) from durable.attempts where attempt > 1")
            old = call(made.port, "GET", "/v1/queues", keys[0])[0] if SECONDS > 30 else 401
        counts = {status: len(all_of_them) for status, all_of_them in answers.items()}
        print(f"{len(keys) - 1} rotations of each in {SECONDS} s: answers {counts}, calls of handlers refused: {len(refused)}")
        assert set(counts) == {200, 201}, counts
        assert not refused and twice == "0", (refused, twice)
        assert old == 401, "the first key outlived its overlap"


def a_signature_by_another_secret_is_refused():
    """So what the handlers of the test before look at is something."""
    secrets = []
    with cluster() as database, handlers({"echoes": lambda told: answer("completed")}, secrets) as (served, refused):
        migrate(database.url())
        key = key_new(database.url())
        with fleet(database.url(), module=False, DURABLE_ALLOW_PRIVATE="true") as made:
            until(lambda: call(made.port, "GET", "/readyz")[0] == 200, "the server is ready")
            secrets.append("whsec_" + 43 * "A" + "=")
            said = json.loads(call(made.port, "PUT", "/v1/endpoints/mine", key, {"url": f"http://127.0.0.1:{served}/"})[1])
            assert "401" in said["syncError"] and len(refused) == 1


if __name__ == "__main__":
    sys.exit(run_all([secrets_and_payloads_are_in_no_log_metric_or_statement,
                      what_postgres_logs_of_statements_by_hand_can_be_left_out,
                      secrets_are_rotated_under_load_and_no_call_is_refused, a_signature_by_another_secret_is_refused]))
