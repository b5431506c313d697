#!/usr/bin/python3
"""Who is talked to: endpoints of private networks are refused end to end, and PostgreSQL has to prove its name by TLS."""
import contextlib
import json
import os
import random
import re
import socket
import sys
import threading
import time

from security import cluster, fleet, migrate
from harness import CLI, MODULE, PROGRAMS, Program, call, command, folder, key_new, run_all, until

# # is the canary's port. The unit test of common/http_client.c has the long list.
TARGETS = """http://127.0.0.1:#/ http://127.1:#/ http://2130706433:#/ http://0x7f000001:#/ http://017700000001:#/ http://0.0.0.0:#/
http://0:#/ http://10.0.0.1/ http://172.16.0.1/ http://192.168.0.1/ http://100.64.0.1/ http://169.254.169.254/latest/meta-data/
http://224.0.0.1/ http://255.255.255.255/ http://localhost:#/ http://LOCALHOST:#/ http://x.localhost:#/ http://[::1]:#/
http://[::]:#/ http://[::ffff:127.0.0.1]:#/ http://[::ffff:7f00:1]:#/ http://[::127.0.0.1]:#/ http://[64:ff9b::127.0.0.1]:#/
http://[2002:7f00:1::1]:#/ http://[fe80::1]:#/ http://[fd00:ec2::254]/ http://127.0.0.1:22/ http://127.0.0.1:5432/
https://127.0.0.1:#/ https://localhost:#/ http://%31%32%37.0.0.1:#/""".split()
NO_URLS = """http://user@127.0.0.1:#/ http://user:word@127.0.0.1:#/ http://public.example@127.0.0.1:#/ file:///etc/passwd
gopher://127.0.0.1:#/_x dict://127.0.0.1:#/ ftp://127.0.0.1:#/ unix:/run/postgresql/.s.PGSQL.5432 data:text/plain,x
127.0.0.1:# //127.0.0.1:#/ http:// javascript:alert(1) HTTP+UNIX://x/ ldap://127.0.0.1:#/""".split()


@contextlib.contextmanager
def canary():
    """Yields a port, and the list of those who connected to it."""
    heard = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        def listen():
            with contextlib.suppress(OSError):
                while True:
                    connection, peer = listener.accept()
                    heard.append(peer)
                    connection.close()
        threading.Thread(target=listen, daemon=True).start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)


def endpoints_of_private_networks_are_refused_end_to_end():
    """By the server when it looks, and by a worker when it calls; with the canary as the proxy of their environment."""
    with canary() as (port, heard), cluster() as database:
        migrate(database.url())
        key = key_new(database.url())
        proxy = f"http://127.0.0.1:{port}"
        with fleet(database.url(), module=False, http_proxy=proxy, https_proxy=proxy, HTTPS_PROXY=proxy, ALL_PROXY=proxy,
                   all_proxy=proxy) as made:
            until(lambda: call(made.port, "GET", "/readyz")[0] == 200, "the server is ready")
            for target in NO_URLS:
                status, said = call(made.port, "PUT", "/v1/endpoints/bad", key, {"url": target.replace("#", str(port))})
                assert status == 400 and "url" in json.loads(said)["detail"], (target, status, said)
            for n, target in enumerate(TARGETS):
                url = target.replace("#", str(port))
                status, said = call(made.port, "PUT", f"/v1/endpoints/e{n}", key, {"url": url})
                assert status == 200 and "not a public one" in json.loads(said)["syncError"], (target, status, said)
                database.sql(f"""select durable_internal.endpoint_synced(1, 'e{n}', null, '[{{"name": "j{n}"}}]')""")
            until(lambda: database.sql("select count(*) from durable_internal.worker where cardinality(endpoint_jobs) > 0") == "1",
                  "the worker has heard of them")
            for n in range(len(TARGETS)):
                assert call(made.port, "POST", "/v1/runs", key, {"job": f"j{n}"})[0] == 201
            until(lambda: database.sql("select count(*) from durable.endpoints where failures > 0 and last_error like "
                                       "'%not a public one%'") == str(len(TARGETS)), "each call was refused by the worker")
            assert database.sql("select count(*) from durable.runs where status = 'queued'") == str(len(TARGETS))
            print(f"{len(NO_URLS)} refused as URLs, {len(TARGETS)} when they were looked at and called; the canary heard {len(heard)}")
            assert not heard
            # So it would have heard.
            call(made.port, "PUT", "/v1/endpoints/e0", key, {"url": f"http://127.0.0.1:{port}/", "allowPrivate": True})
            until(lambda: heard, "the canary hears what is allowed", seconds=10)
        # Unless the operator forbids it: of no registration, be it older than that.
        with fleet(database.url(), module=False, DURABLE_FORBID_PRIVATE="true", DURABLE_ALLOW_PRIVATE="true") as made:
            until(lambda: call(made.port, "GET", "/readyz")[0] == 200, "the server is ready")
            heard.clear()
            assert database.sql("select allow_private from durable.endpoints where name = 'e0'") == "t"
            status, said = call(made.port, "PUT", "/v1/endpoints/e1", key, {"url": f"http://127.0.0.1:{port}/", "allowPrivate": True})
            assert status == 403 and "--forbid-private" in json.loads(said)["detail"], said
            status, said = call(made.port, "PUT", "/v1/endpoints/e2", key, {"url": f"http://127.0.0.1:{port}/"})
            assert status == 200 and "not a public one" in json.loads(said)["syncError"], said
            status, said = call(made.port, "POST", "/v1/endpoints/e0/sync", key)
            assert "not a public one" in said, said
            database.sql("""select durable_internal.endpoint_synced(1, 'e0', null, '[{"name": "j0"}]')""")
            until(lambda: database.sql("select failures > 0 and last_error like '%not a public one%' from durable.endpoints "
                                       "where name = 'e0'") == "t", "the worker does not call it either")
            assert not heard


# TLS


def openssl(*words):
    command("openssl", *words)


def authority(root, name):
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", root / f"{name}.key",
            "-out", root / f"{name}.crt")
    return root / f"{name}.crt"


def certificate(root, signer, name):
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", root / "server.key", "-out", root / "server.csr")
    (root / "san").write_text(f"subjectAltName=DNS:{name}\n")
    openssl("x509", "-req", "-in", root / "server.csr", "-CA", root / f"{signer}.crt", "-CAkey", root / f"{signer}.key", "-CAcreateserial",
            "-days", "2", "-extfile", root / "san", "-out", root / "server.crt")


def serve_tls(database, root):
    for name in ("server.key", "server.crt"):
        database.run("sh", "-c", f"umask 077; cat > {database.data / name} <<'END'\n{(root / name).read_text()}END")
    (database.data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all 0.0.0.0/0 reject\n")
    with (database.data / "postgresql.conf").open("a") as file:
        print("ssl = on", "log_connections = on", sep="\n", file=file)
    database.stop("fast")
    database.start()


def url_of(database, host, root_certificate, mode="verify-full"):
    return (f"postgresql://postgres:secret@{host}:{database.port}/postgres?hostaddr=127.0.0.1&sslmode={mode}"
            f"&sslrootcert={root_certificate}")


WAITS_S = 8
STOPS, CONNECTS_S = 60, 0.03  # how often, and in how long they are connected


def postgres_has_to_prove_its_name():
    with folder() as root, cluster() as database:
        root.chmod(0o755)
        ours, theirs = authority(root, "ours"), authority(root, "theirs")
        certificate(root, "ours", "localhost")
        serve_tls(database, root)
        good = url_of(database, "localhost", ours)
        migrate(good)
        key = key_new(good)
        with fleet(good) as made:
            made.wait_until_ready()
            run = json.loads(call(made.port, "POST", "/v1/runs", key, {"job": "noop"})[1])["id"]
            until(lambda: '"completed"' in call(made.port, "GET", f"/v1/runs/{run}", key)[1], "a run completes over TLS")
            said = command("psql", "-X", "-A", "-t", "-c", "select count(*), count(*) filter (where s.ssl) from pg_stat_activity a join "
                           "pg_stat_ssl s using (pid) where application_name like 'durable%'", good).strip().split("|")
            assert int(said[0]) >= 5 and said[0] == said[1], said
        for host, root_certificate, mode, reason in (("localhost", theirs, "verify-full", "certificate verify failed"),
                                                     ("other.example", ours, "verify-full", "does not match host name"),
                                                     ("localhost", root / "none.crt", "verify-full", "does not exist"),
                                                     ("localhost", ours, "disable", "no encryption")):
            bad = url_of(database, host, root_certificate, mode)
            said = command(CLI, "runs", status=8, env={**os.environ, "DURABLE_DATABASE_URL": bad})
            assert re.search(reason, said) and "secret" not in said, said
            before = database.log.read_text().count("connection received")
            with fleet(bad) as made:
                time.sleep(WAITS_S)
                lines = {name: [line for line in made.words(name).splitlines() if "not_connected" in line] for name in made.programs}
                for name, mine in lines.items():
                    assert mine and all(reason in line and "secret" not in line for line in mine), (name, made.words(name))
            tries = database.log.read_text().count("connection received") - before
            print(f"{reason}: tries in {WAITS_S} s: {({name: len(mine) for name, mine in lines.items()})}, {tries} in PostgreSQL's log")
            # From 100 ms to 5 s, each time twice as long: seven tries in 8 s of each connection; of a worker, of its first.
            assert all(len(lines[name]) <= 8 * connections for name, connections in
                       {"durable-server": 2, "durable-scheduler": 1, "durable-worker": 1}.items()), lines


def a_program_told_to_stop_while_it_connects_ends_well():
    """Threads of it are in OpenSSL then, because of the password, and an exit takes that from under them: it crashes, or never ends."""
    random.seed(int(os.environ.get("DURABLE_SEED", "1")))
    with cluster() as database, folder() as root:
        migrate(database.url())
        own = {"DURABLE_DATABASE_URL": database.url(), "DURABLE_LISTEN": "127.0.0.1:0", "DURABLE_MODULE": str(MODULE)}
        for name, begun in {"durable-server": "server.listening", "durable-worker": "module.loaded"}.items():
            for n in range(STOPS):
                program = Program([PROGRAMS[name]], root / f"{name}.{n}.log", own)
                while begun not in program.words():
                    assert program.child.poll() is None, program.words()
                time.sleep(random.random() * CONNECTS_S)
                program.drain(30)


if __name__ == "__main__":
    sys.exit(run_all([endpoints_of_private_networks_are_refused_end_to_end, postgres_has_to_prove_its_name,
                      a_program_told_to_stop_while_it_connects_ends_well]))
