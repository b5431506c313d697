"""The figures of handlers over HTTP: the whole fleet and a Node process on this machine, and with --peers Restate beside it.

Ours and the peer take turns, with the same job, the same client and nothing else running; what is quoted are medians.
"""

import contextlib
import glob
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from tools import FOLDER, database, figure, free_port, process, psql, until

ROOT = os.path.dirname(os.path.dirname(FOLDER))
RESTATE = f"{FOLDER}/peers/restate"
CALLERS = 200
LONE_PAUSE_MS = 20


def npm(folder, *arguments):
    subprocess.run(["npm", *arguments, "--silent"], cwd=folder, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def child(*call, environment=None, says=None, quiet=False):
    """A program that is killed at the end; one that `says` something is waited for."""
    process_ = subprocess.Popen(call, env={**os.environ, **(environment or {})}, text=True,
                                stdout=subprocess.DEVNULL if says is None else subprocess.PIPE,
                                stderr=subprocess.DEVNULL if quiet else None)
    try:
        if says is not None and process_.stdout.readline().strip() != says:
            raise RuntimeError(f"{call[1]} did not say '{says}'")
        yield process_
    finally:
        process_.kill()
        process_.wait(10)


@contextlib.contextmanager
def ours():
    """Server, scheduler, worker and endpoint; answers the database's URL, and how callers.mjs is told of them."""
    port = free_port()
    api = f"http://127.0.0.1:{port}"
    with database("bench_template") as url, contextlib.ExitStack() as stack:
        stack.enter_context(process(url, "durable-server", "--listen", f"127.0.0.1:{port}", "--allow-private"))
        stack.enter_context(process(url, "durable-scheduler"))
        stack.enter_context(process(url, "durable-worker", "--public-url", api))
        key = psql(url, command="select key from durable_internal.key_create('default', 'bench', '{admin}')")
        environment = {"STACKSHIFT_URL": api, "STACKSHIFT_API_KEY": key}
        until(lambda: answers(f"{api}/readyz"), 10)
        stack.enter_context(child("node", f"{FOLDER}/typescript/endpoint.mjs", environment=environment, says="ready"))
        time.sleep(1)  # the worker has read the endpoint, and is idle
        yield url, ("ours", api, environment)


@contextlib.contextmanager
def restate():
    """Restate's server as it comes, but for its ports, and an endpoint; answers how callers.mjs is told of them."""
    ingress, admin, node, port = free_port(), free_port(), free_port(), free_port()
    folder = tempfile.mkdtemp(prefix="durable-bench-restate.")
    environment = {"RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}", "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
                   "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}", "RESTATE_LISTEN_MODE": "tcp", "RESTATE_BASE_DIR": folder,
                   "RESTATE_DISABLE_TELEMETRY": "true", "RESTATE_LOG_FILTER": "error"}
    try:
        [server] = glob.glob(f"{RESTATE}/node_modules/@restatedev/restate-server-*/bin/restate-server")
        with child(server, "--no-logo", environment=environment, quiet=True), \
                child("node", f"{RESTATE}/endpoint.mjs", port, environment={"RESTATE_LOGGING": "ERROR"}, says="ready"):
            until(lambda: answers(f"http://127.0.0.1:{admin}/health"), 60)
            until(lambda: answers(f"http://127.0.0.1:{admin}/deployments", {"uri": f"http://127.0.0.1:{port}"}), 60)
            yield "restate", f"http://127.0.0.1:{ingress}", {}
    finally:
        shutil.rmtree(folder)


def answers(url, body=None):
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def calls(target, until_, callers, runs, pause_ms=0):
    """What callers.mjs says of each run: id, when it was begun (Unix ms), how many ms it took."""
    name, url, environment = target
    out = subprocess.run(["node", f"{FOLDER}/typescript/callers.mjs", name, url, until_, str(callers), str(runs), str(pause_ms)],
                         env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [line.split() for line in out.splitlines()]
    return [(run, float(begun), float(ms)) for run, begun, ms in lines]


def wide(target, runs):
    """Runs a second with 200 callers, each of whom waits for its run's result."""
    done = calls(target, "result", CALLERS, runs)
    return runs / (max(begun + ms for _, begun, ms in done) - min(begun for _, begun, _ in done)) * 1000


def percentiles(times):
    ordered = sorted(times)
    return [ordered[int(len(ordered) * q)] for q in (0.5, 0.99)]


def lone(target, runs):
    calls(target, "result", 1, 30, LONE_PAUSE_MS)  # plans, caches
    return percentiles(ms for _, _, ms in calls(target, "result", 1, runs, LONE_PAUSE_MS))


def lone_to_end(url, target, runs):
    """From the call of a start to `finished_at`, which is said as the transaction of the end begins."""
    begun = {run: at for run, at, _ in calls(target, "start", 1, runs, 2 * LONE_PAUSE_MS)}
    until(lambda: psql(url, command="select count(*) from durable.runs where finished_at is null") == "0", 10)
    rows = psql(url, "-F", " ", command="select id, extract(epoch from finished_at) * 1000 from durable.runs").splitlines()
    return percentiles(float(at) - begun[run] for run, at in map(str.split, rows) if run in begun)


def backlog(url, runs):
    """Runs a second of those that were started while the queue was paused; the endpoint takes 200 at once."""
    psql(url, command="select durable.pause_queue('default')")
    psql(url, command=f"select count(*) from durable.start_many('five', array_fill('{{}}'::jsonb, array[{runs}]))")
    begun = float(psql(url, command="select extract(epoch from clock_timestamp()) from durable.resume_queue('default')"))
    until(lambda: psql(url, command="select exists (select from durable_internal.ready) or exists (select from "
                                    "durable_internal.lease)") == "f", 120)
    ended = psql(url, command="select extract(epoch from max(finished_at)) from durable.runs where status = 'completed'")
    return runs / (float(ended) - begun)


def typescript(quick, peers):
    rounds, runs, count = (1, 1000, 60) if quick else (3, 4000, 250)
    npm(f"{ROOT}/sdk/typescript", "ci")
    npm(f"{ROOT}/sdk/typescript", "run", "build")
    if peers and not os.path.isdir(f"{RESTATE}/node_modules"):
        npm(RESTATE, "ci")
    mine = {"backlog": [], "wide": [], "lone": [], "lone_to_end": []}
    theirs = {"wide": [], "lone": []}
    for _ in range(rounds):
        with ours() as (url, target):
            wide(target, 400)
            mine["lone"].append(lone(target, count))
            mine["lone_to_end"].append(lone_to_end(url, target, count))
            mine["wide"].append(wide(target, runs))
            mine["backlog"].append(backlog(url, runs))
        if peers:
            with restate() as target:
                wide(target, 400)
                theirs["lone"].append(lone(target, count))
                theirs["wide"].append(wide(target, runs))
    beside = "beside it Restate" if peers else ""
    figure("ts_backlog", statistics.median(mine["backlog"]), "runs/s", bar=">= 1070/s", note="5 steps, at most 200 at once")
    figure("ts_wide", statistics.median(mine["wide"]), "runs/s", statistics.median(theirs["wide"]) if peers else None,
           f"200 callers wait for results; {beside}", ">= 1.2")
    for name, note in (("lone", f"start to the result's answer; {beside}"), ("lone_to_end", "start to finished_at")):
        for i, percentile in enumerate(("p50", "p99")):
            ceiling = statistics.median(r[i] for r in theirs[name]) if peers and name == "lone" else None
            figure(f"ts_{name}_{percentile}", statistics.median(r[i] for r in mine[name]), "ms", ceiling, note,
                   "<= 7" if name == "lone_to_end" and i == 0 else "")
    for name, rates in mine.items():
        print(f"{'':<16} {name}, each round: ours {rounded(rates)}" + (f", Restate {rounded(theirs[name])}" if theirs.get(name) else ""))


def rounded(rates):
    return "; ".join(" / ".join(f"{r:.1f}" for r in rate) if isinstance(rate, list) else f"{rate:,.0f}" for rate in rates)


def history(quick):
    """The cost of a step late in a long run beside that of an early one, and how long it takes to read it all again."""
    steps, rounds = (2000, 1) if quick else (10000, 3)
    npm(f"{ROOT}/sdk/typescript", "ci")
    npm(f"{ROOT}/sdk/typescript", "run", "build")
    results, resumes = [], []
    for _ in range(rounds):
        with ours() as (url, _):
            psql(url, command=f"select durable.start('history', '{{\"steps\": {steps}}}', max_attempts => 2, "
                              "options => '{\"backoff\": {\"initial\": \"100ms\", \"factor\": 1}}')")
            until(lambda: psql(url, command="select count(*) from durable.runs where finished_at is null") == "0", 300)
            results.append(json.loads(psql(url, command="select coalesce(result, error) from durable.runs")))
            resumes.append(float(psql(url, command="select extract(epoch from ended_at - started_at) * 1000 from durable.attempts "
                                                   "where attempt = 2")))
    late, early = (statistics.median(r[key] for r in results) for key in ("late", "early"))
    figure("history_late", late, "ms", early, f"a step, the last 100 of {steps:,}; its ceiling is steps 5 to 50", "<= 2")
    figure("history_resume", statistics.median(resumes), "ms", note=f"an attempt that reads {steps:,} steps, "
           f"{statistics.median(r['replay'] for r in results):.0f} ms of it in the handler; "
           f"{max(r['calls'] for r in results)} calls for two attempts")
