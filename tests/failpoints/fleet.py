"""A small fleet for the failpoint runs: a database of its own, durable-server, durable-scheduler, durable-worker, and handlers
over HTTP that are served from here. Processes are started, looked after and ended one by one."""
import http.client
import http.server
import json
import os
import pathlib
import signal
import socket
import socketserver
import subprocess
import threading
import time

BUILD = pathlib.Path(os.environ["DURABLE_BUILD"])
ADMIN = os.environ["DURABLE_TEST_URL"]
PROGRAMS = {"server": BUILD / "server/api/durable-server", "scheduler": BUILD / "server/scheduler/durable-scheduler",
            "worker": BUILD / "worker/durable-worker"}
LEASE_S = 1.5
EXIT_NO_MEMORY = 13
ENDPOINT_JOBS = ["commits", "answers"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Sql:
    """One psql, kept: a statement, or several, at a time."""

    def __init__(self, url):
        self.psql = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-F", "\t", url], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def __call__(self, text):
        self.psql.stdin.write(text + ";\n\\echo ===\n")
        self.psql.stdin.flush()
        rows = []
        while (line := self.psql.stdout.readline().rstrip("\n")) != "===":
            assert not line.startswith("ERROR") and self.psql.poll() is None, f"{line}: {text}"
            rows.append(line.split("\t"))
        return rows

    def close(self):
        self.psql.stdin.close()
        self.psql.wait()
        self.psql.stdout.close()


class Process:
    def __init__(self, program, flags, log, environment):
        self.program, self.log = program, log
        with open(log, "wb") as file:
            self.child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", PROGRAMS[program], *flags], stderr=file,
                                          stdout=file, env={**os.environ, **environment})
        self.told = False  # to end, by us

    def said(self, words):
        return words in self.log.read_text(errors="replace")

    def signal(self, number):
        self.told = self.told or number in (signal.SIGTERM, signal.SIGKILL)
        if self.child.poll() is None:
            self.child.send_signal(number)

    def end(self):
        """SIGTERM. How it ended, if not well."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            status = self.child.wait(40)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return f"{self.program} did not end within 40 s of SIGTERM"
        fine = status in (0, -signal.SIGKILL) or self.gave_up()
        return "" if fine else f"{self.program} ended with {status}: {self.last_words()}"

    def last_words(self):
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-3:])

    def gave_up(self):
        """It found no memory, said so in plain words, and ended."""
        return self.said("memory.allocated:") and (
            self.child.returncode == EXIT_NO_MEMORY or self.child.returncode == -signal.SIGABRT and self.said("broken promise"))

    def complaint(self):
        """What no program may say, whatever happens to it."""
        for line in self.log.read_text(errors="replace").splitlines():
            if any(word in line for word in ("Sanitizer", "runtime error", "assert")) or \
                    "broken promise" in line and not self.gave_up():
                return f"{self.program}: {line}"
        return ""


class Handlers(http.server.BaseHTTPRequestHandler):
    """Two jobs with the same steps: `commits` says each at commit.url, `answers` says all in its answer."""
    protocol_version = "HTTP/1.1"

    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply({"protocol": 1, "version": "1", "jobs": [
            {"name": name, "maxAttempts": 50, "backoff": {"initial": "20ms"}} for name in ENDPOINT_JOBS]})

    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.reply(self.handle_call(call))

    def handle_call(self, call):
        done = {step["name"] for step in call["steps"]}
        payload, ops = call["payload"], []

        def answer(status, **more):
            return {"protocol": 1, "ops": ops, "status": status, **more}

        def do(op):
            """False: the run is not ours any more."""
            if op["name"] in done:
                return True
            if op["op"] == "step":
                self.server.fleet.note(call["run"]["id"], op["name"])
            if call["run"]["job"] == "answers":
                ops.append(op)
                return True
            return "results" in self.server.fleet.commit(call["commit"], op)

        before = [{"op": "step", "name": "s1", "result": 1}, {"op": "step", "name": "s2", "result": 2},
                  {"op": "state", "name": "count", "action": "increment", "key": payload["counter"], "by": 1}]
        if not all(do(op) for op in before):
            return answer("failed", error={"message": "the lease is lost"})
        if "go" not in done:
            ops.append({"op": "wait_event", "name": "go", "event": "go", "correlationKey": payload["key"]})
            return answer("suspended")
        do({"op": "step", "name": "s3", "result": 3})
        return answer("completed", result="done")

    def log_message(self, *_):
        pass


class Endpoint(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # a worker that is killed hangs up


class Fleet:
    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.port, self.started = free_port(), 0
        self.effects = folder / f"{name}.effects"
        self.effects_fd = os.open(self.effects, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.url = f"{ADMIN[:ADMIN.rindex('/')]}/{name}"
        self.admin = Sql(ADMIN)
        self.admin("select pg_advisory_lock(1)")  # one copy of the template at a time
        self.admin(f"create database {name} template durable_template")
        self.admin("select pg_advisory_unlock(1)")
        self.sql = Sql(self.url)
        self.sql("create table transfer (run_id uuid)")
        key = subprocess.run([BUILD / "cli/durable", "keys", "create", "test", "--json", "--database-url", self.url],
                             stdout=subprocess.PIPE, check=True).stdout
        self.key = json.loads(key)["key"]
        self.endpoint = Endpoint(("127.0.0.1", 0), Handlers)
        self.endpoint.fleet = self
        threading.Thread(target=self.endpoint.serve_forever, daemon=True).start()
        self.processes = []

    def spawn(self, program, failpoint="", *more):
        flags = {"server": ["--listen", f"127.0.0.1:{self.port}", "--allow-private"], "scheduler": [],
                 "worker": ["--lease-ttl", f"{int(LEASE_S * 1000)}ms", "--module", BUILD / "tests/failpoints/failpoints_module.so",
                            "--public-url", f"http://127.0.0.1:{self.port}"]}[program]
        self.started += 1
        process = Process(program, [*flags, *more], self.folder / f"{self.name}.{self.started}.{program}.log",
                          {"DURABLE_DATABASE_URL": self.url, "DURABLE_FAILPOINT": failpoint,
                           "FAILPOINT_EFFECTS": str(self.effects)})
        self.processes.append(process)
        return process

    def request(self, method, path, body, fine, until):
        """Says it until it is answered with one of `fine`. None: not before the time is over."""
        while time.monotonic() < until:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            try:
                connection.request(method, path, json.dumps(body), {"content-type": "application/json",
                                                                    "authorization": f"Bearer {self.key}"})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status in fine:
                    return json.loads(text)
                assert answer.status >= 500, f"{method} {path}: {answer.status} {text}"
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.02)
        return None

    def register_endpoint(self, until):
        """Until the server has seen what is served there."""
        body, said = {"url": f"http://127.0.0.1:{self.endpoint.server_port}/"}, {"syncError": ""}
        while said is not None and "syncError" in said:
            said = self.request("PUT", "/v1/endpoints/handlers", body, (200,), until)
        return said

    def commit(self, at, op):
        said = self.request("POST", "/v1/commit", {"commits": [{"token": at["token"], "ops": [op]}]}, (200,),
                            time.monotonic() + 30)
        return said["commits"][0] if said else {}

    def note(self, run, step):
        os.write(self.effects_fd, f"{run} {step} {os.getpid()} {time.time():.6f}\n".encode())

    def end(self, processes):
        """Ends them all. What was not well."""
        wrong = [process.end() for process in processes] + [process.complaint() for process in processes]
        self.processes = [process for process in self.processes if process not in processes]
        return [what for what in wrong if what]

    def close(self):
        wrong = self.end(list(self.processes))
        self.endpoint.shutdown()
        self.endpoint.server_close()
        self.sql.close()
        if "DURABLE_KEEP_DATABASES" not in os.environ:
            self.admin(f"drop database {self.name} with (force)")
        self.admin.close()
        os.close(self.effects_fd)
        return wrong
