#!/usr/bin/python3
"""Behind PgBouncer: programs that are given another session for each transaction say so, and do nothing; where a session stays
theirs they work, and SQL callers work with both."""
import contextlib
import subprocess
import sys
import urllib.parse

import psycopg

from security import fleet
from harness import AS_POSTGRES, database, folder, free_port, run_all, until

SETTINGS = """[databases]
transaction = host={host} port={port} dbname={name} user={user}
session = host={host} port={port} dbname={name} user={user} pool_mode=session
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
ignore_startup_parameters = extra_float_digits,options
"""


@contextlib.contextmanager
def pooler(url, directory):
    """Yields a function: the URL of its pool of that name."""
    real, listen = urllib.parse.urlsplit(url), free_port()
    settings = directory / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(host=real.hostname, port=real.port, name=real.path[1:], user=real.username, listen=listen))
    directory.chmod(0o755)
    with subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *AS_POSTGRES, "pgbouncer", "-q", settings], stderr=subprocess.DEVNULL) as child:
        try:
            yield lambda pool: f"postgresql://{real.username}@127.0.0.1:{listen}/{pool}"
        finally:
            child.kill()


def reaches(url):
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


def programs_refuse_a_pool_of_transactions_and_work_with_one_of_sessions():
    with folder() as directory, database() as url, psycopg.connect(url, autocommit=True) as conn, pooler(url, directory) as pool:
        until(lambda: reaches(pool("transaction")), "PgBouncer is there")
        with psycopg.connect(pool("transaction"), autocommit=True, prepare_threshold=None) as caller:
            run = caller.execute("select durable.start('steps', '{\"steps\": 1}')").fetchone()[0]
        with fleet(pool("transaction")) as made:
            for name in made.programs:
                until(lambda name=name: "another session for each transaction" in made.words(name), f"{name} refuses it")
        assert conn.execute("select count(*) from durable.workers").fetchone()[0] == 0
        assert conn.execute("select count(*) from durable_internal.scheduler").fetchone()[0] == 0
        with fleet(pool("session")):
            until(lambda: conn.execute("select status = 'completed' from durable.runs where id = %s", (run,)).fetchone()[0],
                  "a run completes")
            until(lambda: conn.execute("select count(*) = 1 from durable_internal.scheduler where active").fetchone()[0],
                  "the scheduler is active")


if __name__ == "__main__":
    sys.exit(run_all([programs_refuse_a_pool_of_transactions_and_work_with_one_of_sessions]))
