#!/usr/bin/env python3
"""Serves conformance.steps by hand, well or with one flaw: so that `durable conformance` is seen to find it.

Usage: wrong_endpoint.py FLAW     FLAW: none; one of those that are asked for below; raw:TEXT: answers so; commits:TEXT: commits so.
Prints its URL, and serves until it is ended; STACKSHIFT_SIGNING_SECRET is the secret
"""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import socketserver
import sys
import time
import urllib.error
import urllib.request

FLAW = sys.argv[1]
KEY = base64.b64decode(os.environ["STACKSHIFT_SIGNING_SECRET"].removeprefix("whsec_"))


def signed(headers, body):
    if FLAW == "trusts":
        return True
    time_s = headers.get("webhook-timestamp", "0")
    text = f"{headers.get('webhook-id')}.{time_s}.".encode() + (body.rstrip() if FLAW == "trims" else body)
    good = "v1," + base64.b64encode(hmac.new(KEY, text, hashlib.sha256).digest()).decode()
    said = (headers.get("webhook-signature") or "").split()
    if FLAW == "prefix":
        fits = any(good.startswith(one) for one in said)
    elif FLAW == "first":
        fits = said[:1] == [good]
    else:
        fits = good in said
    return fits and (FLAW == "timeless" or abs(time.time() - int(time_s)) < 300)


def post(url, body):
    try:
        urllib.request.urlopen(urllib.request.Request(url, body)).close()
    except urllib.error.HTTPError:
        pass


class Ended(Exception):
    """The handler is to end; carries the answer."""


def commit(call, *ops):
    body = {"commits": [{"token": call["commit"]["token"], "ops": list(ops)}]}
    while True:
        try:
            request = urllib.request.Request(call["commit"]["url"], json.dumps(body).encode())
            with urllib.request.urlopen(request) as said:
                answer = json.load(said)["commits"][0]
            break
        except (urllib.error.HTTPError, http.client.RemoteDisconnected, ConnectionResetError):
            if FLAW == "shrugs":
                return
            if FLAW == "rewords":
                body["again"] = True
    if FLAW != "deaf" and (answer.get("cancelled") or "code" in answer):
        raise Ended({"status": "failed", "error": {"message": answer.get("code", "cancelled")}})


def steps(call):
    remembered = {s["name"]: s.get("result", 0) for s in call["steps"] if FLAW == "skips" or "result" in s}
    if FLAW == "forgets":
        remembered = {}
    sum_, last = 0, len(call["steps"]) and call["steps"][-1]["name"]
    for n, name in enumerate("acb" if FLAW == "disorder" else "abc", 1):
        if name not in remembered:
            if last not in (0, "a", "b", "c"):
                raise Ended({"status": "suspended", "ops": [{"op": "park", "name": last, "expected": last, "found": name}]})
            op = {"op": "step", "name": name, "result": n}
            if call["commit"] is None or FLAW == "hoards":
                raise Ended({"status": "continue", "ops": [op]})
            commit(call, op)
        sum_ += remembered.get(name, n)
    return {"status": "completed", "result": str(sum_) if FLAW == "texts" else sum_}


class Endpoint(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, value, raw=None):
        body = raw or json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self, body):
        if FLAW.startswith("raw:"):
            self.reply(200, None, FLAW.removeprefix("raw:").encode())
        elif FLAW.startswith("commits:"):
            post(json.loads(body)["commit"]["url"], FLAW.removeprefix("commits:").encode())
            self.reply(200, {"protocol": 1, "ops": [], "status": "completed", "result": 6})
        elif not signed(self.headers, body):
            self.reply(401, {})
        elif self.command == "GET":
            self.reply(200, {"protocol": 1, "version": None, "jobs": [{"name": "conformance.steps"}]})
        else:
            call = json.loads(body)
            try:
                answer = steps(call)
            except Ended as ended:
                answer = ended.args[0]
            self.reply(200, {"protocol": 1, "ops": [], **answer})

    def do_POST(self):
        self.serve(self.rfile.read(int(self.headers["content-length"])))

    def do_GET(self):
        self.serve(b"")

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", 0), Endpoint)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
