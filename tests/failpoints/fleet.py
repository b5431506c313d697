"""A small fleet for the failpoint runs: a database of its own, durable-server, durable-scheduler, durable-worker, and handlers
over HTTP that are served from here. Processes are started, looked after and ended one by one."""
import http.client
import http.server
import json
import os
import pathlib
import signal
import socketserver
import subprocess
import sys
import threading
import time

import psycopg

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from harness import BUILD, PROGRAMS, Program, call, database_create, database_drop, free_port, key_new

LEASE_S = 1.5
EXIT_NO_MEMORY = 13
ENDPOINT_JOBS = ["commits", "answers"]


class Process(Program):
    def __init__(self, program, flags, log, environment):
        self.program = program
        self.told = False  # to end, by us
        super().__init__([PROGRAMS[f"durable-{program}"], *flags], log, environment)

    def said(self, words):
        return words in self.words()

    def signal(self, number):
        self.told = self.told or number in (signal.SIGTERM, signal.SIGKILL)
        super().signal(number)

    def tell_to_end(self):
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)

    def end(self):
        """How it ended, if not well."""
        try:
            status = self.child.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"{self.program} did not end within 40 s of SIGTERM"
        fine = status in (0, -signal.SIGKILL) or self.gave_up()
        return "" if fine else f"{self.program} ended with {status}: {self.last_words()}"

    def last_words(self):
        return " | ".join(self.words().splitlines()[-3:])

    def gave_up(self):
        """It found no memory, said so in plain words, and ended."""
        return self.said("failpoint.reached memory.") and (
            self.child.returncode == EXIT_NO_MEMORY or self.child.returncode == -signal.SIGABRT and self.said("broken promise"))

    def complaint(self):
        """What no program may say, whatever happens to it."""
        for line in self.words().splitlines():
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
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.reply(self.handle_call(told))

    def handle_call(self, told):
        done = {step["name"] for step in told["steps"]}
        payload, ops = told["payload"], []

        def answer(status, **more):
            return {"protocol": 1, "ops": ops, "status": status, **more}

        def do(op):
            """False: the run is not ours any more."""
            if op["name"] in done:
                return True
            if op["op"] == "step":
                self.server.fleet.note(told["run"]["id"], op["name"])
            if told["run"]["job"] == "answers":
                ops.append(op)
                return True
            return self.server.fleet.commit(told["commit"], op)

        before = [{"op": "step", "name": "s1", "result": 1}, {"op": "step", "name": "s2", "result": 2},
                  {"op": "state", "name": "count", "action": "increment", "key": payload["counter"], "by": 1}]
        if not all(do(op) for op in before):
            return answer("failed", error={"message": "the lease is lost"})
        if "go" not in done:
            ops.append({"op": "wait_event", "name": "go", "event": "go", "correlationKey": payload["key"]})
            return answer("suspended")
        if not do({"op": "step", "name": "s3", "result": 3}):
            return answer("failed", error={"message": "the lease is lost"})
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
        self.url = database_create(name)
        self.conn = psycopg.connect(self.url, autocommit=True)
        self.conn.execute("create table transfer (run_id uuid)")
        self.key = key_new(self.url)
        self.endpoint = Endpoint(("127.0.0.1", 0), Handlers)
        self.endpoint.fleet = self
        threading.Thread(target=self.endpoint.serve_forever, daemon=True).start()
        self.processes, self.refused = [], []

    def rows(self, query):
        return self.conn.execute(query).fetchall()

    def value(self, query):
        return self.rows(query)[0][0]

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
            try:
                status, text = call(self.port, method, path, self.key, body, timeout=2)
                if status in fine:
                    return json.loads(text)
                assert status >= 500, f"{method} {path}: {status} {text}"
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)
        return None

    def register_endpoint(self, until):
        """Until the server has seen what is served there."""
        body, said = {"url": f"http://127.0.0.1:{self.endpoint.server_port}/"}, {"syncError": ""}
        while said is not None and "syncError" in said:
            said = self.request("PUT", "/v1/endpoints/handlers", body, (200,), until)
        return said

    def commit(self, at, op):
        """Is it committed? If not, the lease is to be lost: there is nothing to refuse."""
        said = self.request("POST", "/v1/commit", {"commits": [{"token": at["token"], "ops": [op]}]}, (200,),
                            time.monotonic() + 30)
        if said and "results" not in said["commits"][0] and said["commits"][0]["code"] != "lease_lost":
            self.refused.append(f"a commit was refused: {said['commits'][0]}")
        return said is not None and "results" in said["commits"][0]

    def note(self, run, step):
        os.write(self.effects_fd, f"{run} {step} {os.getpid()} {time.time():.6f}\n".encode())

    def end(self, processes):
        """SIGTERM to all of them. What was not well."""
        for process in processes:
            process.tell_to_end()
        wrong = [process.end() for process in processes] + [process.complaint() for process in processes]
        self.processes = [process for process in self.processes if process not in processes]
        return [what for what in wrong if what]

    def close(self):
        wrong = self.end(list(self.processes))
        self.endpoint.shutdown()
        self.endpoint.server_close()
        self.conn.close()
        database_drop(self.name)
        os.close(self.effects_fd)
        return wrong
