"""The figures of scripts/bench, which starts the PostgreSQL that they are measured on.

A figure that depends on the machine's mood is measured in rounds, its ceiling and ours in turn, and the medians are
quoted. Each drain has a database of its own, vacuumed and checkpointed, and its clock begins when a paused queue is let go.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import time

import handlers
from tools import (BUILD, FIGURES, FOLDER, URL, database, figure, fleet, free_port, process, program, psql, row_counts, start_many,
                   until)


def plain_drain(work, connections, runs):
    psql(PLAIN, "-v", f"runs={runs}", "-f", f"{FOLDER}/plain.sql")
    return float(program("bench_ceiling", PLAIN, work, connections, runs))


def drain_of(job, runs):
    """Runs a second of ours, and what rows are left."""
    with database("bench_template") as url:
        psql(url, command="select durable.pause_queue('default')")
        start_many(url, job, runs)
        with fleet(url):
            rate = float(program("bench_load", url, "drain", runs))
        return rate, row_counts(url, "durable_internal", ["run", "ready", "lease", "step", "attempt"])


def compare_drain(name, job, work, runs, rounds, bar):
    """One figure, interleaved: plain SQL on 1, 2 and 4 connections, PEERS' recipe, ours."""
    connections = [2] if rounds == 1 else [1, 2, 4]
    plain = {c: [] for c in connections}
    ours, recipe = [], []
    for _ in range(rounds):
        for c in connections:
            plain[c].append(plain_drain(work, c, runs))
        rows = row_counts(PLAIN, "public", ["run", "ready", "lease", "step"])
        if work == "drain":
            recipe.append(plain_drain("recipe", 2, runs))
        rate, our_rows = drain_of(job, runs)
        ours.append(rate)
    best = max(plain, key=lambda c: statistics.median(plain[c]))
    ceiling = statistics.median(plain[best])
    figure(name, statistics.median(ours), "runs/s", ceiling, f"ceiling on {best} connections", bar)
    print(f"{'':<16} plain SQL: " + "; ".join(f"{c} conn: {statistics.median(r):,.0f}" for c, r in plain.items())
          + (f"; without reading payloads: {statistics.median(recipe):,.0f}" if recipe else ""))
    print(f"{'':<16} rows left, plain SQL: {rows}\n{'':<16} rows left, ours:      {our_rows}", flush=True)


def bench_drain(quick):
    compare_drain("drain", "noop", "drain", 60000 if quick else 200000, 1 if quick else 5, ">= 0.5")


def bench_steps(quick):
    compare_drain("steps", "five", "steps", 20000 if quick else 60000, 1 if quick else 3, ">= 0.25")


def bench_start(quick):
    seconds, rounds = (2, 1) if quick else (5, 3)
    for name, work, connections in (("start", "start", 32), ("start_bulk", "start_bulk", 2)):
        plain, ours = [], []
        for _ in range(rounds):
            psql(PLAIN, "-v", "runs=0", "-f", f"{FOLDER}/plain.sql")
            plain.append(float(program("bench_ceiling", PLAIN, work, connections, seconds)))
            with database("bench_template") as url, process(url, "durable-scheduler"):
                ours.append(float(program("bench_load", url, work, connections, seconds)))
        figure(name, statistics.median(ours), "runs/s", statistics.median(plain),
               f"{connections} connections" + (", 1,000 a call" if connections == 2 else ""))


def bench_http_start(quick):
    """Starts over HTTP: 32 connections, one request at a time on each; client, server and PostgreSQL share the machine.
    Its ceiling is durable.start() over 32 connections of PostgreSQL."""
    seconds, rounds = (2, 1) if quick else (5, 3)
    direct, ours, slow = [], [], []
    port = free_port()
    for _ in range(rounds):
        with database("bench_template") as url:
            direct.append(float(program("bench_load", url, "start", 32, seconds)))
        with database("bench_template") as url, process(url, "durable-server", "--listen", f"127.0.0.1:{port}"):
            key = psql(url, command="select key from durable_internal.key_create('default', 'bench', '{start,payloads}')")
            time.sleep(1)
            program("bench_http", port, key, 32, 1)
            rate, percentiles = program("bench_http", port, key, 32, seconds).splitlines()
            ours.append(float(rate))
            slow.append(float(percentiles.split()[1]))
    figure("http_start", statistics.median(ours), "runs/s", statistics.median(direct),
           f"32 connections, p99 {statistics.median(slow):.1f} ms; its ceiling is durable.start, a call each", ">= 10000/s")


def lone(name, count, bars, rounds):
    """Beside it plain SQL: a start that notifies, and a claim. In rounds, because the machine's mood counts most here."""
    plain, ours = [], []
    for _ in range(rounds):
        psql(PLAIN, "-v", "runs=0", "-f", f"{FOLDER}/plain.sql")
        plain.append([float(ms) for ms in program("bench_ceiling", PLAIN, "latency", 1, count // rounds).split()])
        with database("bench_template") as url, fleet(url):
            program("bench_load", url, name, 20)  # plans, caches, a first thread
            ours.append([float(ms) for ms in program("bench_load", url, name, count // rounds).split()])
    for i, percentile in enumerate(("p50", "p99")):
        figure(f"{name}_{percentile}", statistics.median(r[i] for r in ours), "ms", bar=bars[i],
               note=f"plain SQL, start and claim: {statistics.median(r[i] for r in plain):.2f}")


def bench_latency(quick):
    lone("latency", 200 if quick else 2000, ("<= 1.2", "<= 3"), 1 if quick else 4)


def bench_event(quick):
    lone("event", 100 if quick else 2000, ("<= 2", "<= 4"), 1 if quick else 4)


def bench_worker(quick):
    idle = 5 if quick else 30
    with database("bench_template") as url:
        psql(url, command="select durable.pause_queue('default')")
        start_many(url, "noop", 10000)
        with fleet(url) as worker:
            program("bench_load", url, "drain", 10000)
            time.sleep(idle)
            with open(f"/proc/{worker.pid}/smaps_rollup", encoding="ascii") as file:
                kib = {line.split(":")[0]: int(line.split()[1]) for line in file if line.endswith("kB\n")}
            threads = len(os.listdir(f"/proc/{worker.pid}/task"))
    figure("worker_rss", kib["Rss"] / 1024, "MiB", bar="<= 16", note=f"10,000 runs, then idle for {idle} s; {threads} threads")
    figure("worker_private", (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024, "MiB", bar="<= 6")


def bench_wait(quick):
    """What a waiting run occupies: rows, and nothing else."""
    runs = 5000 if quick else 50000
    size = "select sum(pg_total_relation_size(c.oid)) from pg_class c where c.relkind = 'r' " \
           "and c.relnamespace = 'durable_internal'::regnamespace and c.relname ~ '^(wait|event_inbox|timer|run|step)'"
    with database("bench_template") as url:
        before = int(psql(url, command=size))
        with fleet(url):
            for first in range(0, runs, 5000):
                psql(url, command="select count(*) from durable.start_many('waiter', (select array_agg("
                                  f"jsonb_build_object('key', n::text)) from generate_series({first + 1}, {first + 5000}) n))")
            until(lambda: psql(url, command="select count(*) from durable_internal.wait") == str(runs), 120)
            until(lambda: psql(url, command="select count(*) from durable_internal.event_inbox") == "0", 60)
            psql(url, command="vacuum full durable_internal.event_inbox")
            after = int(psql(url, command=size))
    figure("wait_bytes", (after - before) / runs, "bytes", note=f"{runs:,} waiting runs: rows and indexes, of run and wait together")


def bench_backlog(_quick):
    """Claims with 1,000,000 runs ready, beside 100,000: the first second, without its beginning."""
    small, large = [], []
    for _ in range(5):
        for runs, rates in ((100000, small), (1000000, large)):
            with database("bench_template") as url:
                psql(url, command="select durable.pause_queue('default')")
                start_many(url, "noop", runs)
                with fleet(url):
                    psql(url, command="select durable.resume_queue('default')")
                    tenths = [float(r) for r in program("bench_load", url, "rate", 1, 0).split()]
                    rates.append(statistics.mean(tenths[3:]))
                    psql(url, command="select durable.pause_queue('default')")
    figure("backlog", statistics.median(large), "runs/s", statistics.median(small),
           "1,000,000 ready; its ceiling is ours with 100,000", ">= 0.8")


def rate_with_starts(seconds, held):
    with database("bench_template") as url, contextlib.ExitStack() as stack:
        psql(url, command="select durable.pause_queue('default')")
        start_many(url, "noop", 100000)
        stack.enter_context(fleet(url))
        late = None
        if held:
            holder = session(stack, url)
            holder.stdin.write("begin isolation level repeatable read; select count(*) from durable_internal.run;\n")
            late = session(stack, url)
            late.stdin.write("begin; select durable.start('noop');\n")
            holder.stdin.flush()
            late.stdin.flush()
            late_id = late.stdout.readline().strip()
            holder.stdout.readline()
        psql(url, command="select durable.resume_queue('default')")
        rates = [float(r) for r in program("bench_load", url, "rate", seconds, 1).split()]
        found = None
        if late:
            began = time.monotonic()
            late.stdin.write("commit;\n")
            late.stdin.flush()
            until(lambda: psql(url, command=f"select status from durable.runs where id = '{late_id}'") == "completed", 60)
            found = time.monotonic() - began
        psql(url, command="select durable.pause_queue('default')")
        return rates, found


def session(stack, url):
    child = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.callback(lambda: (child.stdin.close(), child.wait(10)))
    return child


def bench_snapshot(_quick):
    """Claims while a snapshot is held, with starts going on, beside the same without."""
    free, _ = rate_with_starts(120, held=False)
    held, found = rate_with_starts(120, held=True)
    figure("snapshot", statistics.median(held), "runs/s", statistics.median(free),
           "120 s with a snapshot held, a start for each run; its ceiling is ours with none held", ">= 0.8")
    figure("snapshot_late", found, "s", note="a start held open all that time: from its commit to its run's end")
    for rates, name in ((free, "none held"), (held, "held")):
        print(f"{'':<16} each 12 s, {name}: " + ", ".join(f"{r:,.0f}" for r in rates), flush=True)


def bench_typescript(quick):
    handlers.typescript(quick, options.peers)


BENCHES = {"drain": bench_drain, "steps": bench_steps, "start": bench_start, "http_start": bench_http_start, "latency": bench_latency,
           "event": bench_event, "worker": bench_worker, "wait": bench_wait, "backlog": bench_backlog,
           "snapshot": bench_snapshot, "typescript": bench_typescript, "history": handlers.history}
LONG = ("wait", "backlog", "snapshot", "typescript", "history")

parser = argparse.ArgumentParser(prog="scripts/bench")
parser.add_argument("--quick", action="store_true")
parser.add_argument("--peers", action="store_true")
parser.add_argument("--json", metavar="FILE")
parser.add_argument("--only", action="append", choices=BENCHES)
options = parser.parse_args()

with open(os.environ["BENCH_COUNT"], "wb") as file:
    file.write(bytes(8))
psql(URL, command="create database bench_template")
psql(URL, command="create database bench_plain")
PLAIN = URL.rsplit("/", 1)[0] + "/bench_plain"
subprocess.run([f"{BUILD}/cli/durable", "migrate", "--database-url", URL.rsplit("/", 1)[0] + "/bench_template"],
               check=True, stdout=subprocess.DEVNULL)
print(f"{'figure':<16} {'value':>12} {'unit':<7}{'ceiling':>12} {'ratio':>7}  {'bar':<8}", flush=True)
for bench in options.only or [b for b in BENCHES if not options.quick or b not in LONG]:
    BENCHES[bench](options.quick)
if options.json:
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(FIGURES, file, indent=1)
        file.write("\n")
