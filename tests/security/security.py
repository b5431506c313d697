"""What the tests of security share: a PostgreSQL of their own, a fleet whose words are kept, handlers over HTTP."""
import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import shutil
import signal
import socketserver
import sys
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from harness import AS_POSTGRES, CLI, MODULE, PROGRAMS, Program, call, command, folder, free_port, until

BIN = pathlib.Path(os.environ["DURABLE_PG_BIN"])


class Cluster:
    """Of one user, who has a password, on a port of 127.0.0.1."""

    def __init__(self, root, password, settings=(), hba=None):
        self.data, self.log, self.password, self.port = root / "data", root / "postgres.log", password, free_port()
        root.chmod(0o755)
        (root / "password").write_text(password)
        if AS_POSTGRES:
            shutil.chown(root, "postgres")
            shutil.chown(root / "password", "postgres")
        self.run(BIN / "initdb", "-D", self.data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", root / "password",
                 "-E", "UTF8", "--locale=C.UTF-8")
        (root / "password").unlink()
        with (self.data / "postgresql.conf").open("a") as file:
            print(f"port = {self.port}", "listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "fsync = off",
                  *settings, sep="\n", file=file)
        if hba:
            (self.data / "pg_hba.conf").write_text(hba)

    def run(self, *words):
        return command(*AS_POSTGRES, *words, cwd="/")

    def start(self):
        self.run(BIN / "pg_ctl", "-D", self.data, "-w", "-l", self.log, "start")

    def stop(self, mode="immediate"):
        self.run(BIN / "pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def url(self, **more):
        query = "&".join(f"{key}={value}" for key, value in more.items())
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/postgres{'?' + query if query else ''}"

    def sql(self, text):
        return command("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", text, self.url()).strip()


@contextlib.contextmanager
def cluster(password="secret", **more):
    with folder() as root:
        made = Cluster(root, password, **more)
        made.start()
        try:
            yield made
        finally:
            with contextlib.suppress(AssertionError):
                made.stop()


def migrate(url):
    command(CLI, "migrate", env={**os.environ, "DURABLE_DATABASE_URL": url})


class Fleet:
    """A server, a scheduler and a worker. Settings come from the environment, and what they say goes to files."""

    def __init__(self, root, url, module=True, **environment):
        self.programs = {}
        self.port, self.health = free_port(), {"durable-worker": free_port(), "durable-scheduler": free_port()}
        module = {"DURABLE_MODULE": str(MODULE)} if module else {}
        own = {"durable-server": {"DURABLE_LISTEN": f"127.0.0.1:{self.port}"},
               "durable-scheduler": {"DURABLE_HEALTH_PORT": str(self.health["durable-scheduler"])},
               "durable-worker": {"DURABLE_HEALTH_PORT": str(self.health["durable-worker"]), "DURABLE_LEASE_TTL": "3s",
                                  "DURABLE_PUBLIC_URL": f"http://127.0.0.1:{self.port}", **module}}
        for name, path in PROGRAMS.items():
            self.programs[name] = Program([path], root / f"{name}.log", {"DURABLE_DATABASE_URL": url, **own[name], **environment})

    def words(self, name):
        return self.programs[name].words()

    def wait_until_ready(self):
        until(lambda: call(self.port, "GET", "/readyz")[0] == 200, "the server is ready")
        until(lambda: "worker.registered" in self.words("durable-worker"), "the worker is registered")

    def end(self):
        for program in self.programs.values():
            program.signal(signal.SIGTERM)
        for program in self.programs.values():
            program.drain()


@contextlib.contextmanager
def fleet(url, **more):
    with folder() as root:
        made = Fleet(root, url, **more)
        try:
            yield made
            made.end()
        finally:
            for program in made.programs.values():
                program.kill()


def is_signed(secrets, headers, body):
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    good = {"v1," + base64.b64encode(hmac.new(base64.b64decode(secret.removeprefix("whsec_")), text, hashlib.sha256).digest())
            .decode() for secret in secrets}
    return not good.isdisjoint((headers["webhook-signature"] or "").split())


@contextlib.contextmanager
def handlers(jobs, secrets=None):
    """Serves protocol 1 on a port of 127.0.0.1: `jobs` has a function for each job, from a call to (status, bytes). `secrets`
    is a list that may change; without it signatures are not looked at. Yields the port, and what was refused."""
    refused = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self, status, body):
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def is_ours(self, body):
            if secrets is None or is_signed(list(secrets), self.headers, body):
                return True
            refused.append(self.headers["webhook-id"])
            self.reply(401, b"{}")
            return False

        def do_GET(self):
            if self.is_ours(b""):
                self.reply(200, json.dumps({"protocol": 1, "jobs": [{"name": name} for name in jobs]}).encode())

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.is_ours(body):
                told = json.loads(body)
                self.reply(*jobs[told["run"]["job"]](told))

        def log_message(self, *_):
            pass

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            """Whoever called is gone: of its own will, or killed by the test."""

    server = Server(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], refused
    finally:
        server.shutdown()
        server.server_close()


def answer(status, **more):
    return 200, json.dumps({"protocol": 1, "ops": [], "status": status, **more}).encode()
