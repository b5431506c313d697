#!/usr/bin/python3
"""Two versions at once: programs of the version before on the schema of today, programs of today on the schema of before, an
upgrade while runs are in every state, and a fleet of both with kills. The programs of the version before are built first, and kept in build/.

Usage: upgrade.py [COMMIT]     in the environment that scripts/test makes (`scripts/test upgrade`; DURABLE_UPGRADE_FROM names
the commit); its last line is `N passed, M failed`. ROLLING_S: seconds of kills, 60."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
import calls
import versions
from fleet import KINDS, Fleet
from harness import BUILD, call, command, database, until

INVARIANTS = BUILD / "tests/failpoints/invariants"
WITHOUT_LUCK = [kind for kind in KINDS if kind != "flaky"]  # whose calls a process counts
PROGRAMS = ("scheduler", "server", "worker")


def old_programs_work_on_the_new_schema(fleet):
    fleet.open("old")
    for program in PROGRAMS:
        fleet.spawn("old", program)
    fleet.spawn("old", "worker", 2)
    for n in range(4):
        for kind in KINDS:
            fleet.start(kind, ("sql", "http", "cli", "http")[n], "old")
    cancelled = fleet.start("event")
    retried = fleet.start("never", "http")
    fleet.until(f"select status = 'failed' from durable.runs where id = '{retried}'", "a run fails")
    fleet.request("POST", f"/v1/runs/{retried}/retry", {})
    fleet.until(f"select status = 'waiting' from durable.runs where id = '{cancelled}'", "a run waits")
    fleet.request("POST", f"/v1/runs/{cancelled}/cancel", {"reason": "no more"})
    fleet.runs[cancelled] = ("cancelled", "")
    fleet.send_all()
    fleet.check(INVARIANTS)
    for words in (["runs"], ["runs", "--json"], ["run", retried], ["queues"], ["workers"], ["keys", "list"]):
        fleet.cli("old", *words)
    for path in ("", "/timeline", "/steps", "/attempts", "/logs", "/why", "/result"):
        fleet.request("GET", f"/v1/runs/{retried}{path}", None)
    fleet.drain()


def prepare_states(fleet):
    """A run in each state, by old programs; name → id."""
    fleet.conn.execute("select durable.set_queue('held'), durable.pause_queue('held'), "
                       "durable.set_queue('doomed', dead_letter_queue => 'dead')")
    states = {
        "completed": fleet.start("steps"),
        "waiting": fleet.start("event"),
        "waiting over HTTP": fleet.start("http-event", "http"),
        "to be cancelled": fleet.start("event"),
        "queued": fleet.start("steps", queue="held"),
        "scheduled": fleet.start("transfers", scheduled_at="2030-01-01"),
        "retrying": fleet.start("fails", options='{"backoff": {"initial": "1h"}}', max_attempts=2),
        "dead": fleet.start("never", queue="doomed"),
    }
    expected = {"completed": "completed", "waiting": "waiting", "waiting over HTTP": "waiting", "to be cancelled": "waiting",
                "queued": "queued", "scheduled": "scheduled", "retrying": "retrying", "dead": "failed"}
    for name, status in expected.items():
        fleet.until(f"select status = '{status}' from durable.runs where id = '{states[name]}'", f"{name} is {status}")
    assert fleet.value("select dead_letter_queue from durable.runs where id = %s", states["dead"]) == "dead"
    running = str(fleet.value("select durable.start('slow', '{\"ms\": 1000}')"))
    states["running"] = fleet.expect("completed", running, "")
    fleet.until(f"select count(*) > 0 from effect where run_id = '{running}'", "a step is called")
    fleet.programs.pop("old worker 1").kill()
    return states


def an_upgrade_finds_runs_in_every_state(fleet):
    fleet.open("old")
    for program in PROGRAMS:
        fleet.spawn("old", program)
    states = prepare_states(fleet)
    fleet.spawn("old", "worker", 2)
    migration = subprocess.Popen([fleet.versions["new"]["cli"], "migrate"], text=True,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                          env={**os.environ, "DURABLE_DATABASE_URL": fleet.url})
    while migration.poll() is None:  # and the old programs go on
        fleet.start(fleet.random.choice(WITHOUT_LUCK), fleet.random.choice(("sql", "http")))
    assert migration.returncode == 0, migration.stdout.read()
    migration.stdout.close()
    for kind in WITHOUT_LUCK:
        fleet.start(kind, "http")
    for program in PROGRAMS:
        fleet.spawn("new", program)
        fleet.programs.pop("old worker 2" if program == "worker" else f"old {program} 1").drain()
    del fleet.servers["old server 1"]
    fleet.conn.execute("select durable.resume_queue('held')")
    for name in ("scheduled", "retrying"):
        fleet.conn.execute("select durable.reschedule(%s, clock_timestamp())", (states[name],))
    fleet.request("POST", f"/v1/runs/{states['dead']}/retry", {})
    fleet.request("POST", f"/v1/runs/{states['to be cancelled']}/cancel", {})
    fleet.runs[states["to be cancelled"]] = ("cancelled", "")
    fleet.send_all()
    fleet.check(INVARIANTS)
    fleet.drain()


def new_programs_disturb_nobody_on_an_older_schema(fleet):
    """Somebody forgot to migrate first. A new program that calls what is not there says what is to be done, again and again, and the
    others work; the old ones go on, and whatever the new ones take ends well too. Once the schema is migrated all new ones go on by
    themselves."""
    fleet.open("old")
    missed = calls.missed_by(fleet.url)
    kills = both_under_kills(fleet, 20)
    fleet.check(INVARIANTS, seconds=90)
    for name, program in fleet.programs.items():
        version, _, kind = name.rpartition(" ")[0].partition(" ")
        is_outside = version == "new" and bool(missed[kind])
        until(lambda: ("`durable migrate`" in program.words()) == is_outside, f"{name} is {'outside' if is_outside else 'at work'}")
        assert program.child.poll() is None, f"{name} has ended: {program.words()[-2000:]}"
        if name in fleet.servers:
            until(lambda: (call(fleet.servers[name], "GET", "/readyz")[0] == 200) != is_outside, f"what {name} says of itself")
    print(f"    {kills} kills, {len(fleet.runs)} runs; without a part in it, for want of calls: "
          f"{', '.join(f'{kind} ({len(names)})' for kind, names in missed.items() if names) or 'none'}", flush=True)
    command(fleet.versions["new"]["cli"], "migrate", "--database-url", fleet.url)
    for name in [name for name in fleet.programs if name.startswith("old")]:
        fleet.programs.pop(name).drain()
        fleet.servers.pop(name, None)
    for kind in KINDS:
        fleet.start(kind, "http")
    fleet.send_all()
    fleet.check(INVARIANTS)
    fleet.drain()


def both_under_kills(fleet, seconds):
    """Programs of both versions and runs of all kinds, and every 2 s one of the programs is killed and started again. How many were."""
    for version in ("old", "new"):
        for program in PROGRAMS:
            fleet.spawn(version, program)
        fleet.spawn(version, "worker", 2)
    end = time.monotonic() + seconds
    victims, kills, killed = [name for name in fleet.programs if name != "endpoint"], 0, 0.0
    while time.monotonic() < end:
        for kind in WITHOUT_LUCK:
            fleet.start(kind, fleet.random.choice(("sql", "http")))
            fleet.send(list(fleet.runs.values())[-1][1], fleet.random.choice(("sql", "http")))
        if time.monotonic() > killed + 2:
            victim = fleet.programs[fleet.random.choice(victims)]
            victim.kill()
            victim.start()
            kills, killed = kills + 1, time.monotonic()
    return kills


def half_and_half_with_kills(fleet):
    fleet.open("new")
    kills = both_under_kills(fleet, float(os.environ.get("ROLLING_S", "60")))
    fleet.check(INVARIANTS, seconds=90)
    shares = fleet.conn.execute("select count(distinct worker_id), count(*) from durable.attempts").fetchone()
    print(f"    {kills} kills, {len(fleet.runs)} runs, {shares[1]} attempts of {shares[0]} workers", flush=True)
    fleet.drain()


def main(arguments):
    commit = versions.before(arguments[0] if arguments else os.environ.get("DURABLE_UPGRADE_FROM"))
    began = time.monotonic()
    both = {"old": versions.programs_of(versions.built(commit)), "new": versions.programs_of(BUILD)}
    print(f"the version before is {commit[:12]}; its programs are there after {time.monotonic() - began:.0f} s", flush=True)
    compared, missed = calls.look(commit)
    passed, failed = int(not missed), int(bool(missed))
    print(f"calls: {compared} looked at, {len(missed)} missed")
    for name, why in missed:
        print(f"    {name}: {why}")
    for test, template in ((old_programs_work_on_the_new_schema, "durable_template"),
                           (new_programs_disturb_nobody_on_an_older_schema, "template0"),
                           (an_upgrade_finds_runs_in_every_state, "template0"), (half_and_half_with_kills, "durable_template")):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="durable-upgrade."))
        fleet, began = None, time.monotonic()
        with database(template) as url:
            try:
                if template == "template0":
                    command(both["old"]["cli"], "migrate", "--database-url", url)
                fleet = Fleet(url, folder, both)
                test(fleet)
                passed += 1
                print(f"{test.__name__}: passed, {time.monotonic() - began:.0f} s", flush=True)
            except Exception:
                failed += 1
                traceback.print_exc(file=sys.stdout)
                for log in sorted(folder.glob("*.log")):
                    print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-5:], sep="\n")
                print(f"{test.__name__}: FAILED", flush=True)
            finally:
                if fleet is not None:
                    fleet.close()
        shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
