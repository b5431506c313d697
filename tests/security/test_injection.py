#!/usr/bin/python3
"""sqlmap against every route: wherever a client can put a text, in the path, the query, the body and the headers that are looked up,
on a real server with a key that may do all. What is asked is made of /openapi.json, which test_api holds against the router: a new
route or field is asked too, or fails the test for want of a value. That sqlmap would find something is shown at a server beside it
that puts its statements together.

Two things are looked at: what sqlmap says, and PostgreSQL's log, in which no statement may be one that it could not read. Seen to
fail with sql-put-together of tests/mutations, by the log: "syntax error at or near "AND"".

DURABLE_INJECTION=full: all of sqlmap's techniques, those by time and by a second statement among them, and more payloads;
docs/security.md says how long that takes."""
import concurrent.futures
import csv
import http.server
import json
import os
import re
import socketserver
import threading
import time
import urllib.parse

import psycopg

from security import answer, cluster, fleet, handlers, migrate
from harness import call, command, folder, key_new, run_all, until

FULL = os.environ.get("DURABLE_INJECTION") == "full"
HOW = ["--level", "3", "--risk", "3", "--technique", "BEUST", "--time-sec", "2"] if FULL else ["--technique", "BE"]
AT_ONCE = 2  # sqlmaps
SQLMAP_S = 3600
MARK = "*"  # sqlmap puts its payloads there
NOT_READ = re.compile(r"^42\w{3} ERROR: .*", re.M)  # a syntax error, a column or a function that is not there

# For each name in a query or a body.
VALUES = {
    "status": "queued", "job": "asked", "queue": "asked", "queueName": "asked", "deadLetterQueue": "dead", "tag": "k:v",
    "since": "2020-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z", "limit": 10, "cursor": 0, "wait": "1ms", "lastEventId": 1,
    "with": "asked", "idempotencyKey": "asked", "idempotencyTtl": "1h", "onTerminal": "reuse", "maxAttempts": 3, "initial": "1s",
    "factor": 2, "max": "1m", "jitter": 0, "scheduledAt": "2029-01-01T00:00:00Z", "priority": 1, "concurrencyKey": "asked",
    "timeout": "1h", "version": "v1", "reason": "asked", "name": "asked", "correlationKey": "asked", "ifVersion": 1, "by": 1,
    "expiresAt": "2030-01-01T00:00:00Z", "owner": "me", "ttl": "1h", "url": "http://127.0.0.1:9/", "ref": 1, "dryRun": False,
    "allowPrivate": True, "concurrency": 1, "payload": {"k": "v"}, "tags": {"k": "v"}, "value": {"k": "v"},
    "ops": [
        {"op": "step", "name": "s", "result": {"k": "v"}, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:00Z"},
        {"op": "step", "name": "f", "error": {"name": "E", "message": "m", "stack": "s", "retryable": True}},
        {"op": "state", "name": "set", "action": "set", "key": "k", "value": "v", "expiresAt": "2030-01-01T00:00:00Z"},
        {"op": "state", "name": "inc", "action": "increment", "key": "n", "by": 1},
        {"op": "state", "name": "lock", "action": "lock", "key": "l", "ttl": "1h"},
        {"op": "send_event", "name": "e", "event": "e", "payload": "v", "correlationKey": "k", "idempotencyKey": "k"},
        {"op": "log", "level": "info", "message": "m", "fields": {"k": "v"}}, {"op": "progress", "value": "v"},
    ],
}
# Fields that make a request 501 today, and are left out for that. Once they do not, their values belong above.
LATER = {
    "/v1/runs": {"debounce": {"for": "1s"}},
    "/v1/runs/batch": {"debounce": {"for": "1s"}},
    "/v1/queues/{name}": {"concurrency": 1, "keyConcurrency": 1, "rateLimit": 1, "ratePeriod": "1s", "keyRateLimit": 1, "fairBy": "k",
                          "weights": {"k": 1}},
}

# What stands in a path: where it begins so, this makes one and answers its name. Each route has one of its own.
THINGS = {
    "/v1/runs/{id}/retry": "select ended()",
    "/v1/runs/{id}/stream": "select ended()",
    "/v1/runs/{id}/result": "select ended()",  # which nobody has to wait for
    "/v1/runs/": "select durable.start('asked')",
    "/v1/idempotency-keys/": "select k from name() as k, lateral (select durable.start('asked', idempotency_key => k) offset 0) as s",
    "/v1/state/{key}/increment": "select k from name() as k, lateral (select durable.state_increment(k) offset 0) as s",
    "/v1/state/{key}/": "select k from name() as k, lateral (select durable.state_lock(k, 'me', '1 hour') offset 0) as s",
    "/v1/state/": "select k from name() as k, lateral (select durable.state_set(k, '1') offset 0) as s",
    "/v1/queues/": "select k from name() as k, lateral (select durable.set_queue(k, max_attempts => 3) offset 0) as s",
    "/v1/schedules/": "select name()",
    "/v1/endpoints/": "select k from name() as k, lateral (select durable_internal.endpoint_put(1, k, 'http://127.0.0.1:9/', true, "
                      "null, null) offset 0) as s",
}
HELPERS = """create sequence number;
create function name() returns text language sql as $$ select 'a' || nextval('number') $$;
create function ended() returns uuid language plpgsql as $$ declare id uuid := durable.start('asked'); begin perform durable.cancel(id);
return id; end $$"""


class Request:
    """One for a route, with marks wherever a client may say something. `value`: what a name stands for, `headers`: its headers."""

    def __init__(self, method, pattern, about, value, headers, schemas):
        self.method, self.pattern, self.value, self.schemas = method, pattern, value, schemas
        self.path, self.headers, self.body = pattern, headers, None
        parameters = about.get("parameters", [])
        for name in [one["name"] for one in parameters if one["in"] == "path"]:
            self.path = self.path.replace(f"{{{name}}}", f"{value(f'{{{name}}}')}{MARK}")
        query = [f"{one['name']}={value(one['name'])}{MARK}" for one in parameters if one["in"] == "query"]
        self.path += "?" + "&".join(query) if query else ""
        if "requestBody" in about:
            body = self.of_schema(None, about["requestBody"]["content"]["application/json"]["schema"])
            self.body = marked(body or {"k": "v"})
        if self.marks() == 0:  # it takes nothing: is it left alone, then?
            self.path += f"?asked=1{MARK}"
            self.headers = {name: text + MARK for name, text in headers.items()}

    def of_schema(self, name, schema):
        if "$ref" in schema:
            schema = self.schemas[schema["$ref"].split("/")[-1]]
        if name not in VALUES and "properties" in schema:
            made = {inner: self.of_schema(inner, its) for inner, its in schema["properties"].items()}
            return {inner: its for inner, its in made.items() if its is not None}
        if name not in VALUES and "items" in schema:
            return [self.of_schema(name, schema["items"])]
        return {} if name is None else self.value(name)

    def marks(self):
        return f"{self.path}{self.headers}{self.body}".count(MARK)

    def text(self, port):
        """As sqlmap reads it."""
        return "\r\n".join([f"{self.method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json",
                            *(f"{name}: {value}" for name, value in self.headers.items()), "", self.body or ""])

    def say(self, port):
        """As it is without payloads: its status."""
        headers = {name: value.replace(MARK, "") for name, value in self.headers.items()}
        body = self.body.replace(MARK, "").encode() if self.body else None
        return call(port, self.method, self.path.replace(MARK, ""), body=body, headers=headers)[0]


def marked(value):
    """As JSON, with a mark behind each text and number."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {marked(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(marked, value)) + "]"
    return f'"{value}{MARK}"' if isinstance(value, str) else json.dumps(value) + MARK


def requests_of(port, value, headers):
    """One for each route that the server describes."""
    document = json.loads(call(port, "GET", "/openapi.json")[1])
    return [Request(method.upper(), pattern, about, lambda name: value(method.upper(), pattern, name),
                    headers(method.upper(), pattern), document.get("components", {}).get("schemas"))
            for pattern, methods in document["paths"].items() for method, about in methods.items()]


def ask(port, requests, root, number):
    """One sqlmap for these: its words, and what it has found."""
    files = [root / f"{number}-{n}.txt" for n in range(len(requests))]
    for file, request in zip(files, requests):
        file.write_text(request.text(port))
    results = root / f"{number}.csv"
    said = command("sqlmap", "-r", ",".join(map(str, files)), "--batch", "--ignore-stdin", "--dbms", "PostgreSQL", *HOW, "--flush-session",
                   "--ignore-code", "*", "--skip-waf", "--disable-coloring", "--retries", "0", "--timeout", "60",
                   "--answers", "skip further=N,keep testing=Y", "--output-dir", root / f"out-{number}", "--results-file", results,
                   timeout=SQLMAP_S, env={**os.environ, "HOME": str(root), "TERM": "dumb"})
    found = [row for row in csv.reader(results.open()) if row and row[0].startswith("http")] if results.exists() else []
    return said, found


def ask_all(port, requests):
    """sqlmap at all of them. What it has found: (URL, place, parameter, techniques, …). Whatever is marked has to be tested."""
    began, marks = time.monotonic(), sum(request.marks() for request in requests)
    with folder() as root, concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        count = AT_ONCE if len(requests) >= 2 * AT_ONCE else 1  # of a single one sqlmap writes no results
        shares = [requests[n::count] for n in range(count)]
        done = list(pool.map(lambda n: ask(port, shares[n], root, n), range(count)))
    tested = sum(said.count("testing for SQL injection on ") for said, _ in done)
    # It looks again at what it has found, and says where that was nothing: a key of idempotency is answered otherwise the second time.
    found = [row for _, some in done for row in some if row[4] == ""]
    print(f"{len(requests)} routes, {marks} places, {time.monotonic() - began:.0f} s: found {len(found)}, and "
          f"{sum(row[4] != '' for _, some in done for row in some)} taken back", flush=True)
    assert tested == marks, f"{tested} of {marks} places were tested:\n{done[0][0][-3000:]}"
    return found


def answered(port):
    """Answers that the server has counted: (method, route) → how many."""
    counts = {}
    for method, route, count in re.findall(r'^durable_http_requests_total\{method="(\w*)",route="([^"]*)",[^}]*\} (\d+)$',
                                           call(port, "GET", "/metrics")[1], re.M):
        counts[method, route] = counts.get((method, route), 0) + int(count)
    return counts


def look_at_later(port, key, requests):
    for request in [one for one in requests if one.body and one.pattern in LATER]:
        for name, value in LATER[request.pattern].items():
            body = {**({"job": "asked"} if request.method == "POST" else {}), name: value}
            body = {"runs": [body]} if request.pattern.endswith("/batch") else body
            status, said = call(port, request.method, request.path.replace(MARK, ""), key, body)
            assert status == 501, f"{request.method} {request.pattern} knows {name} by now: {status} {said}"


def no_route_takes_what_it_is_told_for_sql():
    tokens, ends = [], threading.Event()

    def held(told):
        tokens.append(told["commit"]["token"])
        ends.wait()
        return answer("completed")

    with cluster(settings=["log_line_prefix = '%e '"]) as database, handlers({"held": held}) as (served, _):
        migrate(database.url())
        key = key_new(database.url())
        with fleet(database.url(), DURABLE_ALLOW_PRIVATE="true", DURABLE_BAD_KEYS="0") as made, \
                psycopg.connect(database.url(), autocommit=True) as conn:
            made.wait_until_ready()
            conn.execute(HELPERS)
            status, said = call(made.port, "PUT", "/v1/endpoints/mine", key, {"url": f"http://127.0.0.1:{served}/", "timeout": "24h"})
            assert status == 200 and "syncError" not in said, said
            run = call(made.port, "POST", "/v1/runs", key, {"job": "held"})
            assert run[0] == 201, run
            until(lambda: tokens, "a handler has a token")

            def value(method, pattern, name):
                if name == "token":
                    return tokens[0]
                if (pattern, name) == ("/v1/runs", "cursor"):
                    return conn.execute("select max(id::text) from durable.runs").fetchone()[0]
                if name.startswith("{"):
                    make = [sql for begin, sql in THINGS.items() if pattern.startswith(begin)]
                    assert make, f"{pattern}: what makes one is missing here"
                    return conn.execute(make[0]).fetchone()[0]
                if name in LATER.get(pattern, ()):
                    return None
                assert name in VALUES, f"{method} {pattern}: a value for {name} is missing here"
                return VALUES[name]

            def headers(method, pattern):
                more = {"Last-Event-ID": f"1{MARK}"} if pattern.endswith("/stream") else {}
                return {"Authorization": f"Bearer {tokens[0] if pattern == '/v1/commit' else key}", **more}

            requests = requests_of(made.port, value, headers)
            refused = [(request.method, request.path, status) for request in requests
                       if (status := request.say(made.port)) >= 400 and status != 501 and "ifVersion" not in (request.body or "")]
            assert not refused, f"of these nothing would be tested but how they are refused: {refused}"
            look_at_later(made.port, key, requests)
            before = answered(made.port)
            found = ask_all(made.port, requests)
            after = answered(made.port)
            asked = {where: after[where] - before.get(where, 0) for where in ((one.method, one.pattern) for one in requests)}
            print(f"{sum(asked.values())} requests, at least {min(asked.values())} for a route", flush=True)
            ends.set()
        log = database.log.read_text(errors="replace")
    assert not found, found
    assert not NOT_READ.findall(log), NOT_READ.findall(log)[:10]
    assert min(asked.values()) > 10, asked


# Statements that are put together, and what a client sees of them.
OPEN = {
    "GET /things/{name}": "select v from thing where v = '%s'",  # its rows, and PostgreSQL's words
    "GET /things": "select v from thing where not v <> '%s'",  # its rows
    "POST /things": "select concat('%s', 1)",  # a function's argument, as in all of ours
    "PUT /things/{name}": "select 1 from thing where v = '%s'",  # nothing but how long it takes
}
FOUND = {"things/asked", "things?tag=k:v"} | ({"things", "things/blind"} if FULL else set())


class OpenServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, url):
        super().__init__(("127.0.0.1", 0), OpenHandler)
        self.url = url
        threading.Thread(target=self.serve_forever, daemon=True).start()


class OpenHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, said):
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def told(self):
        """The route, and the text that a client has said."""
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "POST":
            return "POST /things", str(json.loads(body)["job"])
        if query:
            return "GET /things", urllib.parse.parse_qs(query, keep_blank_values=True)["tag"][0]
        return f"{self.command} /things/{{name}}", urllib.parse.unquote(path.rsplit("/", 1)[-1])

    def do_GET(self):
        if self.path == "/openapi.json":
            self.reply(200, {"paths": OPEN_PATHS})
            return
        try:
            route, text = self.told()
        except (ValueError, KeyError, IndexError):
            self.reply(400, {"error": "what?"})
            return
        try:
            with psycopg.connect(self.server.url) as conn:
                cursor = conn.execute(OPEN[route] % text)
                rows = cursor.fetchall() if cursor.description else []
            status, said = 200, {"rows": rows}
        except psycopg.Error as error:
            status, said = (200, {"rows": []}) if route == "GET /things" else (500, {"error": str(error)})
        self.reply(*((200, {}) if self.command == "PUT" else (status, said)))

    do_POST = do_PUT = do_GET

    def log_message(self, *_):
        pass


def parameter(name, place):
    return {"parameters": [{"name": name, "in": place}]}


OPEN_PATHS = {
    "/things": {"get": parameter("tag", "query"), "post": {"requestBody": {"content": {"application/json": {"schema": {
        "properties": {"job": {}}}}}}}},
    "/things/{name}": {"get": parameter("name", "path"), "put": parameter("name", "path")},
}


def a_server_that_puts_statements_together_is_found_out():
    with cluster(settings=["log_line_prefix = '%e '"]) as database:
        database.sql("create table thing (v text); insert into thing values ('k:v'), ('asked')")
        server = OpenServer(database.url())
        try:
            port = server.server_address[1]
            requests = requests_of(port, lambda method, _, name: "blind" if method == "PUT" else VALUES[name.strip("{}")], lambda *_: {})
            assert [request.say(port) for request in requests] == [200] * len(requests)
            found = ask_all(port, requests)
        finally:
            server.shutdown()
            server.server_close()
        log = database.log.read_text(errors="replace")
    assert {row[0].split("/", 3)[-1] for row in found} >= FOUND, found
    for statement in OPEN.values():
        unread = rf"^42601 ERROR: .*\n42601 STATEMENT: +{re.escape(statement.split('%s')[0])}"
        assert re.search(unread, log, re.M), f"PostgreSQL's log does not show that it could not read {statement}"


TESTS = [no_route_takes_what_it_is_told_for_sql, a_server_that_puts_statements_together_is_found_out]
if __name__ == "__main__":
    raise SystemExit(run_all(TESTS))
