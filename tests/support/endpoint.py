#!/usr/bin/env python3
"""Handlers over HTTP, for tests: speaks protocol 1 by hand, without an SDK.

Usage: endpoint.py PORT SECRET CALLS     serves until it is ended; writes a line for each call that was signed well to CALLS:
                                         job, run, attempt, number of remembered steps
A job's name says what its handler does: see HANDLERS.
"""

import base64
import gzip
import hashlib
import hmac
import http.server
import json
import socketserver
import sys
import time
import urllib.request

PORT, SECRET, CALLS = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def step(name, result):
    return {"op": "step", "name": name, "result": result}


def answer(status, *ops, **more):
    return 200, {"protocol": 1, "ops": list(ops), "status": status, **more}


def commit(call, *ops):
    """What the server says to ops of this run, committed while the handler runs."""
    body = json.dumps({"commits": [{"token": call["commit"]["token"], "ops": list(ops)}]}).encode()
    request = urllib.request.Request(call["commit"]["url"], body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as said:
        return json.load(said)["commits"][0]


def five_steps(call):
    done = len(call["steps"])
    if call["commit"]:
        for n in range(done, 5):
            said = commit(call, step(f"s{n + 1}", n + 1))
            if "results" not in said:
                return answer("failed", error={"message": json.dumps(said)})
        return answer("completed", result=5)
    if done < 5:
        return answer("continue", step(f"s{done + 1}", done + 1))
    return answer("completed", result=sum(s["result"] for s in call["steps"]))


def wait(call):
    if not call["steps"]:
        return answer("suspended", {"op": "wait_event", "name": "go", "event": "go",
                                    "correlationKey": call["payload"]["key"], "timeout": "1h"})
    return answer("completed", result=call["steps"][0]["result"]["payload"])


def hangs(call):
    time.sleep(call["payload"].get("s", 3))
    return answer("completed")


def nested(depth):
    return [nested(depth - 1)] if depth > 1 else []


HANDLERS = {
    "five-steps": five_steps,
    "wait": wait,
    "hangs": hangs,
    "echo": lambda call: answer("completed", result={"call": call}),
    "deep": lambda call: answer("completed", step("s", nested(call["payload"])), result=nested(call["payload"])),
    "odd-step": lambda call: answer("continue", step(call["payload"], 1)),
    "fail": lambda call: answer("failed", error={"name": "Oops", "message": "no", "retryable": False}),
    "error-500": lambda call: (500, {"wrong": True}),
    "not-json": lambda call: (200, None),
    "too-much": lambda call: answer("completed", result="x" * 5_000_000),
    "bad-op": lambda call: answer("continue", {"op": "nothing"}),
    "redirect": lambda call: (302, {}),
}


def mute(_endpoint):
    time.sleep(600)


def drip(endpoint):
    """A byte at a time, of an answer that is said to be long."""
    endpoint.head(200, 1_000_000)
    for _ in range(6000):
        endpoint.wfile.write(b" ")
        time.sleep(0.1)


def burst(endpoint):
    """Some kilobytes that would be ten megabytes."""
    body = gzip.compress(b" " * 10_000_000 + b'{"protocol":1,"status":"completed"}', 1)
    endpoint.head(200, len(body), ("content-encoding", "gzip"))
    endpoint.wfile.write(body)


def vanish(endpoint):
    """What a process looks like that dies with its handler."""
    endpoint.close_connection = True


ILL_MANNERED = {"vanish": vanish, "mute": mute, "drip": drip, "burst": burst}


def signed(headers, body):
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    good = "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    return good in (headers["webhook-signature"] or "").split() and abs(time.time() - int(headers["webhook-timestamp"])) < 300


class Endpoint(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, value):
        body = b"not JSON" if value is None else json.dumps(value).encode()
        self.head(status, len(body), *([("location", f"http://127.0.0.1:{PORT}/elsewhere")] if status == 302 else []))
        self.wfile.write(body)

    def head(self, status, length, *more):
        self.send_response(status)
        for name, value in (("content-type", "application/json"), ("content-length", str(length)), *more):
            self.send_header(name, value)
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if not signed(self.headers, body):
            self.reply(401, {"error": "the signature is bad"})
            return
        call = json.loads(body)
        with open(CALLS, "a", encoding="utf-8") as file:
            print(call["run"]["job"], call["run"]["id"], call["run"]["attempt"], len(call["steps"]), file=file, flush=True)
        job = call["run"]["job"]
        if job in ILL_MANNERED:
            ILL_MANNERED[job](self)
        else:
            self.reply(*HANDLERS[job](call))

    def do_GET(self):
        if not signed(self.headers, b""):
            self.reply(401, {"error": "the signature is bad"})
            return
        self.reply(200, {"protocol": 1, "version": "test", "jobs": [{"name": name} for name in (*HANDLERS, *ILL_MANNERED)]})

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", PORT), Endpoint).serve_forever()
