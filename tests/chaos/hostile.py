#!/usr/bin/python3
"""An endpoint that answers as no handler should: nothing, garbage, too much, too slowly, or not at all. Arguments: address, port."""

import http.server
import json
import random
import sys
import time


class Hostile(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, json.dumps({"protocol": 1, "version": None, "jobs": [{"name": "hostile"}]}).encode())

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        random.choice((self.garbage, self.wrong_shape, self.huge, self.slow, self.unavailable, self.cut, self.foreign_ops, self.deep,
                       self.redirect))()

    def answer(self, status, body, **headers):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def garbage(self):
        self.answer(200, random.randbytes(2000))

    def wrong_shape(self):
        self.answer(200, random.choice((b"{}", b"[]", b"null", b'{"protocol":2}', b'{"protocol":1,"ops":7,"status":"completed"}')))

    def huge(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(600):
            self.wfile.write(b" " * 65536)
        self.close_connection = True

    def slow(self):
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        for _ in range(random.randrange(40)):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.5)
        self.close_connection = True

    def unavailable(self):
        self.answer(503, b"", retry_after="1")

    def cut(self):
        self.close_connection = True

    def foreign_ops(self):
        ops = [{"op": random.choice(("step", "state", "sleep", "nothing")), "name": "x" * random.randrange(400),
                "result": "\ud800", "action": "increment", "key": "hostile", "duration": "-1s"}]
        self.answer(200, json.dumps({"protocol": 1, "ops": ops * 3, "status": "completed", "result": None}).encode())

    def deep(self):
        self.answer(200, b'{"protocol":1,"ops":[],"status":"completed","result":' + b"[" * 50_000 + b"]" * 50_000 + b"}")

    def redirect(self):
        self.answer(307, b"", location="http://10.77.0.11:5432/")

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Hostile)
    server.daemon_threads = True
    server.serve_forever()
