"""What the figures of scripts/bench are measured with: databases, our programs, and the table of the figures."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

URL = os.environ["BENCH_URL"]
BUILD = os.environ["BENCH_BUILD"]
FOLDER = os.path.dirname(os.path.abspath(__file__))
FIGURES = []


def psql(url, *arguments, command=None):
    call = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *arguments, url]
    return subprocess.run(call, input=command, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def database(template=None):
    name = f"bench_{time.monotonic_ns()}"
    psql(URL, command=f"create database {name}" + (f" template {template}" if template else ""))
    try:
        yield URL.rsplit("/", 1)[0] + "/" + name
    finally:
        psql(URL, command=f"drop database {name} with (force)")


@contextlib.contextmanager
def process(url, program, *arguments):
    path = {"durable-worker": "worker", "durable-scheduler": "server/scheduler",
            "durable-server": "server/api"}[program]
    environment = {**os.environ, "DURABLE_DATABASE_URL": url}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        child = subprocess.Popen([f"{BUILD}/{path}/{program}", *arguments], env=environment, stderr=log)
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)
            log.seek(0)
            sys.stderr.writelines(line for line in log if " info " not in line)


@contextlib.contextmanager
def fleet(url):
    """A scheduler and one worker, which has registered; answers the worker's process."""
    with process(url, "durable-scheduler"), process(url, "durable-worker", "--module",
                                                    f"{BUILD}/tests/bench/bench_module.so") as worker:
        until(lambda: psql(url, command="select count(*) from durable.workers") == "1", 10)
        time.sleep(1)  # the first asks found nothing: it is idle
        yield worker


def until(holds, seconds):
    give_up = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > give_up:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)


def program(name, url, *arguments):
    call = [f"{BUILD}/tests/bench/{name}", url, *[str(a) for a in arguments]]
    return subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def start_many(url, job, runs):
    for first in range(0, runs, 20000):
        count = min(20000, runs - first)
        psql(url, command=f"select count(*) from durable.start_many('{job}', array_fill('{{}}'::jsonb, array[{count}]))")
    psql(url, command="vacuum analyze")
    psql(url, command="checkpoint")


def row_counts(url, schema, tables):
    return ", ".join(f"{table} {psql(url, command=f'select count(*) from {schema}.{table}')}" for table in tables)


def figure(name, value, unit, ceiling=None, note="", bar=""):
    ratio = round(value / ceiling, 3) if ceiling else None
    digits = 3 if value < 100 else 0
    FIGURES.append({"name": name, "value": round(value, digits), "unit": unit,
                    "ceiling": round(ceiling, digits) if ceiling else None, "ratio": ratio})
    number = "{:,.2f}" if value < 100 else "{:,.0f}"
    print(f"{name:<16} {number.format(value):>12} {unit:<7}"
          f"{number.format(ceiling) if ceiling else '':>12} {ratio or '':>7}  {bar:<8} {note}", flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
