"""What the tests in Python share: databases, our programs as processes, HTTP, waiting, and a runner whose last lines scripts/test
counts."""
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["DURABLE_BUILD"])
ADMIN = os.environ.get("DURABLE_TEST_URL", "")
PROGRAMS = {
    "durable-server": BUILD / "server/api/durable-server",
    "durable-scheduler": BUILD / "server/scheduler/durable-scheduler",
    "durable-worker": BUILD / "worker/durable-worker",
}
CLI = BUILD / "cli/durable"
MODULE = BUILD / "tests/support/test_module.so"
# What PostgreSQL and PgBouncer begin with, which refuse to be root.
AS_POSTGRES = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"] if os.geteuid() == 0 else []


def run_all(tests):
    """Runs functions, and says at the end what cmocka says. Answers the exit status. With arguments: only those whose names begin with
    one; DURABLE_TEST=name: only that one."""
    failed, wanted = 0, tuple(sys.argv[1:]) or ""
    tests = [test for test in tests if test.__name__.startswith(wanted) and os.environ.get("DURABLE_TEST", test.__name__) == test.__name__]
    for test in tests:
        try:
            test()
            print(f"[       OK ] {test.__name__}", flush=True)
        except Exception:  # each test is to be run
            failed += 1
            print(f"[  FAILED  ] {test.__name__}", flush=True)
            traceback.print_exc(file=sys.stdout)
    print(f"[  PASSED  ] {len(tests) - failed} test(s).")
    if failed > 0:
        print(f"[  FAILED  ] {failed} test(s), listed above.")
    return 1 if failed > 0 else 0


def command(*words, status=0, timeout=120, **settings):
    """What it printed, both streams. The exit status is to be `status`; None: any."""
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, timeout=timeout, **settings)
    assert status is None or done.returncode == status, \
        f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


@contextlib.contextmanager
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="durable-test."))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def database_create(name, template="durable_template"):
    """Its URL."""
    # One copy of the template at a time.
    command("psql", "-X", "-q", "-c", "select pg_advisory_lock(1)", "-c", f"create database {name} template {template}", ADMIN)
    return f"{ADMIN[:ADMIN.rindex('/')]}/{name}"


def database_drop(name):
    if "DURABLE_KEEP_DATABASES" not in os.environ:
        command("psql", "-X", "-q", "-c", f"drop database {name} with (force)", ADMIN)


@contextlib.contextmanager
def database(template="durable_template"):
    """A database of its own: its URL."""
    name = f"test_{os.getpid()}_{time.monotonic_ns()}"
    url = database_create(name, template)
    try:
        yield url
    finally:
        database_drop(name)


def key_new(url, *flags, cli=CLI):
    """An API key."""
    said = command(cli, "keys", "create", "test", "--json", *flags, env={**os.environ, "DURABLE_DATABASE_URL": url})
    return json.loads(said)["key"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(port, method, path, key=None, body=None, headers=None, timeout=30):
    """Status and body, which is text. `body`: what becomes JSON, or bytes as they are."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {**({"Authorization": f"Bearer {key}"} if key else {}),
                                                "Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def until(condition, what, seconds=60):
    """Waits for it. Who cannot be reached is asked again."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if condition():
                return
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class Program:
    """One of our processes. It ends with us, and what it says goes to a file."""

    def __init__(self, argv, log, environment):
        self.argv, self.log, self.environment, self.child = [str(word) for word in argv], log, environment, None
        self.start()

    def start(self):
        with open(self.log, "ab") as file:
            self.child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.argv], stdout=file, stderr=file,
                                          env={**os.environ, **self.environment})

    def words(self):
        """All that it said."""
        return self.log.read_text(errors="replace")

    def signal(self, number):
        if self.child.poll() is None:
            self.child.send_signal(number)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def drain(self, seconds=60):
        """SIGTERM; it is to end well."""
        self.signal(signal.SIGTERM)
        status = self.child.wait(seconds)
        assert status == 0, f"{self.argv[0]} ended with {status}: {self.words()[-2000:]}"
