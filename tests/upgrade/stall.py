#!/usr/bin/python3
"""How long a migration keeps others waiting. A server and a worker at work, starts by SQL and HTTP, claims one after the other, and
a transaction that has read `run` and stays open; meanwhile `durable migrate` applies all functions, makes the indexes of
0010 again, and applies two table files more, which add a column and an index to `run` (for that a copy of the sources is built);
then a further week's partitions are made. Nobody may wait for longer than a second.

Usage: stall.py     in the environment that scripts/test makes (`scripts/test stall`); its last line is `N passed, M failed`.
STALL_ROWS: so many runs are there before (0)."""
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import psycopg

sys.dont_write_bytecode = True
import versions
from harness import BUILD, TREE, Program, command, database, free_port, key_new

BAR_S = 1.0
READER_S = 8
ROWS = int(os.environ.get("STALL_ROWS", "0"))
MADE_UP = {"9998_made_up_column.sql": "alter table durable_internal.run add column made_up int not null default 1;\n",
           "9999_made_up_index.sql": "-- durable: concurrently\ncreate index run_by_made_up on durable_internal.run (made_up, id);\n"}
PENDING = """
drop index durable_internal.run_by_lane, durable_internal.run_by_error, durable_internal.run_by_dead_letter,
    durable_internal.run_by_tag;
delete from durable_internal.migration where name = '0010_run_lists.sql';
update durable_internal.migration set checksum = 'another' where name like 'functions/%'"""


def newer_durable(folder):
    """A `durable` that knows the made-up files too."""
    tree = folder / "tree"
    shutil.copytree(TREE, tree, ignore=shutil.ignore_patterns("build", ".git", "node_modules", "sdk", "docs"))
    for name, text in MADE_UP.items():
        (tree / "migrations" / name).write_text(text)
    listing = tree / "migrations/meson.build"
    names = "".join(f"  '{name}',\n" for name in MADE_UP)
    listing.write_text(listing.read_text().replace(")\nfunction_files", f"{names})\nfunction_files", 1))
    command("meson", "setup", folder / "build", tree, "-Dbuildtype=debug", "-Dtests=false")
    command("ninja", "-C", folder / "build", "cli/durable", timeout=versions.BUILD_S)
    return folder / "build/cli/durable"


class Watch:
    """Does one thing again and again, and knows how long each took."""

    def __init__(self, name, make, rest_s):
        self.name, self.make, self.rest_s, self.times, self.going = name, make, rest_s, [], True
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        act = self.make()
        while self.going:
            began = time.monotonic()
            act()
            self.times.append((began, time.monotonic() - began))
            time.sleep(self.rest_s)

    def longest(self, begin, end):
        return max(took for at, took in self.times if at < end and at + took > begin)

    def count(self, begin, end):
        return sum(begin <= at < end for at, _ in self.times)


def sql_starts(url):
    conn = psycopg.connect(url, autocommit=True)
    return lambda: conn.execute("select durable.start('noop', '{}')")


def looks(url):
    conn = psycopg.connect(url, autocommit=True)
    run_id = conn.execute("select durable.start('noop', '{}')").fetchone()[0]
    return lambda: conn.execute("select status from durable.runs where id = %s", (run_id,)).fetchone()


def claims(url):
    conn = psycopg.connect(url, autocommit=True)
    worker = conn.execute("select durable_internal.uuid_v7()").fetchone()[0]
    conn.execute("select durable_internal.worker_register(%s, 'default', 'probe', 1, 'none', 1, 3600000, array['probe'], "
                 "array['{}'::jsonb], 'default')", (worker,))
    conn.execute("select durable_internal.worker_session(%s)", (worker,))
    return lambda: conn.execute("select * from durable_internal.claim(%s, 1, 1000000)", (worker,)).fetchall()


def http_starts(port, key):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def act():
        connection.request("POST", "/v1/runs", json.dumps({"job": "noop"}),
                           {"content-type": "application/json", "authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 201, f"{answer.status} {text}"
    return act


def fill(conn):
    """Runs that have ended, in this week's partition."""
    began = time.monotonic()
    conn.execute("select durable.start('filler')")
    columns = [row[0] for row in conn.execute("select attname from pg_attribute where attrelid = 'durable_internal.run'::regclass "
                                              "and attnum > 0 and attname not in ('id', 'status', 'finished_at')").fetchall()]
    names = ", ".join(columns)
    conn.execute(f"insert into durable_internal.run (id, status, finished_at, {names}) select durable_internal.uuid_v7(), "
                 f"'completed', clock_timestamp(), {', '.join('r.' + name for name in columns)} from durable_internal.run r, "
                 f"generate_series(1, {ROWS}) where r.status is null")
    print(f"{ROWS} runs are there after {time.monotonic() - began:.0f} s", flush=True)
    conn.execute("vacuum analyze durable_internal.run")
    conn.execute("begin")
    conn.execute(PENDING)
    began = time.monotonic()
    conn.execute((TREE / "migrations/0010_run_lists.sql").read_text())
    print(f"the plain indexes of 0010 would keep writers away for {time.monotonic() - began:.1f} s", flush=True)
    conn.execute("rollback")


def a_reader(url):
    reader = psycopg.connect(url)
    reader.execute("select count(*) from (select id from durable_internal.run limit 1) as r")
    return reader


def make_a_week(conn, url):
    """Not beside a reader, and not by waiting for it."""
    conn.execute("set statement_timeout = '10s'")
    reader, began = a_reader(url), time.monotonic()
    try:
        conn.execute("select durable_internal.make_partitions(4)")
        raise AssertionError("partitions were made beside a reader")
    except psycopg.errors.LockNotAvailable:
        print(f"partitions: lets go after {(time.monotonic() - began) * 1000:.0f} ms")
    reader.close()
    assert conn.execute("select durable_internal.make_partitions(4)").fetchone()[0] == 6


def measure(folder, url, durable):
    conn = psycopg.connect(url, autocommit=True)
    if ROWS > 0:
        fill(conn)
    conn.execute(PENDING)
    key = key_new(url, cli=durable)
    port, paths = free_port(), versions.programs_of(BUILD)
    flags = {"server": ["--listen", f"127.0.0.1:{port}"], "scheduler": [], "worker": ["--module", paths["module"]]}
    programs = [Program([paths[name], *more], folder / f"{name}.log", {"DURABLE_DATABASE_URL": url}) for name, more in flags.items()]
    time.sleep(5)
    watches = [Watch("a start by SQL", lambda: sql_starts(url), 0.01), Watch("a start by SQL", lambda: sql_starts(url), 0.01),
               Watch("a start over HTTP", lambda: http_starts(port, key), 0.01),
               Watch("a start over HTTP", lambda: http_starts(port, key), 0.01),
               Watch("a claim", lambda: claims(url), 0.01), Watch("a look at a run", lambda: looks(url), 0.05)]
    time.sleep(2)
    quiet = time.monotonic()
    time.sleep(8)
    reader = a_reader(url)
    begin = time.monotonic()
    with open(folder / "migrate.log", "wb") as log:
        migration = subprocess.Popen([durable, "migrate"], stdout=log, stderr=log, env={**os.environ, "DURABLE_DATABASE_URL": url})
        time.sleep(READER_S)
        reader.close()
        status = migration.wait(300)
    migrated = time.monotonic()
    make_a_week(conn, url)
    end = time.monotonic()
    for watch in watches:
        watch.going = False
    for watch in watches:
        watch.thread.join(60)
    print((folder / "migrate.log").read_text(), end="")
    gap = conn.execute("select coalesce(extract(epoch from max(gap)), 0) from (select finished_at - lag(finished_at) over (order by "
                       "finished_at) as gap from durable.runs where job = 'noop' and finished_at > clock_timestamp() - "
                       "%s * interval '1 s') as g", (end - begin,)).fetchone()[0]
    for program in programs:
        program.drain()
    assert status == 0, "durable migrate failed"
    invalid = conn.execute("select count(*) from pg_index where not indisvalid").fetchone()[0]
    assert invalid == 0 and "up to date" in command(durable, "migrate", "--database-url", url)
    conn.close()
    return watches, quiet, begin, migrated, end, float(gap)


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="durable-stall."))
    durable = newer_durable(folder)
    with database() as url:
        watches, quiet, begin, migrated, end, gap = measure(folder, url, durable)
    passed = failed = 0
    for name in dict.fromkeys(watch.name for watch in watches):
        some = [watch for watch in watches if watch.name == name]
        before, during = max(w.longest(quiet, begin) for w in some), max(w.longest(begin, end) for w in some)
        rate = sum(w.count(begin, end) for w in some) / (end - begin)
        print(f"{name}: longest {before * 1000:.0f} ms before, {during * 1000:.0f} ms during, {rate:.0f}/s")
        passed, failed = passed + (during <= BAR_S), failed + (during > BAR_S)
    print(f"longest time in which no run ended: {gap * 1000:.0f} ms; the migration took {migrated - begin:.1f} s, "
          f"{READER_S} s of them beside a reader")
    shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
