"""What the tests of deployment share: a runner whose last lines scripts/test counts, a folder, a database, programs with a
service manager's socket."""
import contextlib
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["DURABLE_BUILD"])
ADMIN = os.environ.get("DURABLE_TEST_URL", "")
PROGRAMS = {
    "durable-server": BUILD / "server/api/durable-server",
    "durable-scheduler": BUILD / "server/scheduler/durable-scheduler",
    "durable-worker": BUILD / "worker/durable-worker",
}


def run_all(tests):
    """Runs functions, and says at the end what cmocka says. Answers the exit status."""
    failed = 0
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


def command(*words, status=0, **settings):
    """What it printed, both streams. The exit status is to be `status`; None: any."""
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, timeout=120, **settings)
    assert status is None or done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}"
    return done.stdout


@contextlib.contextmanager
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="durable-deploy."))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def database():
    name = f"deploy_{os.getpid()}_{time.monotonic_ns()}"
    command("psql", "-X", "-q", "-c", f"create database {name} template durable_template", ADMIN)
    try:
        yield f"{ADMIN[:ADMIN.rindex('/')]}/{name}"
    finally:
        if "DURABLE_KEEP_DATABASES" not in os.environ:
            command("psql", "-X", "-q", "-c", f"drop database {name} with (force)", ADMIN)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path, method="GET"):
    """Status and body."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Manager:
    """A service manager, as far as its socket goes."""

    def __init__(self, name):
        self.name = str(name)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if self.name.startswith("@") else self.name)
        self.heard = []

    def wait_for(self, word, seconds=30):
        end = time.monotonic() + seconds
        while word not in self.heard:
            assert select.select([self.socket], [], [], max(0, end - time.monotonic()))[0], \
                f"{word} did not come; heard: {self.heard}"
            self.heard.append(self.socket.recv(4096).decode())

    def take(self):
        """All that is there now."""
        while select.select([self.socket], [], [], 0)[0]:
            self.heard.append(self.socket.recv(4096).decode())
        return self.heard

    def close(self):
        self.socket.close()


@contextlib.contextmanager
def program(name, url, *flags, **environment):
    child = subprocess.Popen([PROGRAMS.get(name, name), *flags], stderr=subprocess.PIPE, text=True,
                             env={**os.environ, "DURABLE_DATABASE_URL": url, **environment})
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        child.stderr.close()


def drain(child):
    """SIGTERM; it is to end with status 0."""
    child.send_signal(signal.SIGTERM)
    status = child.wait(timeout=40)
    assert status == 0, f"status {status}: {child.stderr.read()}"
