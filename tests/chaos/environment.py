"""The machines of a chaos run: a network namespace each, on one bridge, with a program in it.

Everything lives in namespaces that scripts/chaos made for this run alone, processes too: when the run ends, however it ends,
the kernel takes all of it away.
"""

import json
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import threading
import time
import urllib.request

import history

ADDRESS = "10.77.0."
HUB = ADDRESS + "1"
COPY_TRIES = 5
PORT = 5432
POSTGRES = """listen_addresses = '*'
port = 5432
unix_socket_directories = ''
data_directory = '{data}'
hba_file = '{hba}'
ident_file = '{ident}'
max_connections = 150
shared_buffers = 128MB
wal_level = replica
wal_log_hints = on
wal_keep_size = 1GB
max_wal_size = 2GB
hot_standby = on
client_connection_check_interval = 5s
tcp_keepalives_idle = 5
tcp_keepalives_interval = 5
tcp_keepalives_count = 3
tcp_user_timeout = 10000
wal_sender_timeout = 10s
wal_receiver_timeout = 10s
synchronous_standby_names = '{sync}'
primary_conninfo = '{primary}'
"""


def run(*command, check=True, **options):
    return subprocess.run(command, check=check, capture_output=True, text=True, **options)


class Machine:
    """A network namespace, and the rules by which it is cut off from others."""

    def __init__(self, name, number):
        self.name = name
        self.ip = ADDRESS + str(number)
        self.rules = {}  # who asked for it: lines of nft
        self.lock = threading.Lock()
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", f"v{number}", "master", "br0", "up")
        for command in (f"addr add {self.ip}/24 dev eth0", "link set eth0 up", "link set lo up"):
            run("ip", "-n", name, *command.split())

    def command(self, *command, user=None):
        who = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if user and os.geteuid() == 0 else []
        return ["ip", "netns", "exec", self.name, *who, *command]

    def filter(self, key, lines):
        """Sets (or, without lines, takes away) what `key` wants dropped here."""
        with self.lock:
            self.rules.pop(key, None)
            if lines:
                self.rules[key] = lines
            inward = "\n".join(line for lines in self.rules.values() for way, line in lines if way == "in")
            outward = "\n".join(line for lines in self.rules.values() for way, line in lines if way == "out")
            run(*self.command("nft", "-f", "-"), input=f"""table inet chaos
delete table inet chaos
table inet chaos {{
    chain input {{ type filter hook input priority 0;
{inward}
    }}
    chain output {{ type filter hook output priority 0;
{outward}
    }}
}}
""")

    def slow(self, rate):
        """Lets out no more than `rate`; None: as much as there is."""
        run(*self.command("tc", "qdisc", "del", "dev", "eth0", "root"), check=False)
        if rate:
            run(*self.command("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "2s"))


class Actor:
    """A program on a machine. Whoever ends it says so; if it ends by itself, that is noted, and it is started again."""

    def __init__(self, env, machine, argv, environ=None, cwd=None):
        self.env, self.machine, self.argv = env, machine, argv
        self.name = machine.name
        self.environ = {**os.environ, "CHAOS_ACTOR": self.name, "CHAOS_EVIDENCE": env.evidence_url, **(environ or {})}
        self.cwd = cwd
        self.process = None
        self.ended_by_us = False
        self.stopped = False
        self.before = False  # it is the version before
        self.exits = []
        self.started = 0.0
        self.lock = threading.RLock()

    def start(self, environ=None):
        with self.lock:
            self.ended_by_us = False
            self.stopped = False
            self.started = time.monotonic()
            with open(f"{self.env.folder}/{self.name}.log", "ab") as log:
                self.process = subprocess.Popen(
                    self.machine.command(*self.argv), env={**self.environ, **(environ or {})}, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, cwd=self.cwd, start_new_session=True)  # as a machine has: Linux shares the processors by session

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        with self.lock:
            if self.alive():
                self.process.send_signal(number)
                return True
            return False

    def end(self, number, seconds=60):
        """Ends it by a signal, and answers its exit status."""
        with self.lock:
            self.ended_by_us = True
            if self.alive():
                self.process.send_signal(number)
                if self.stopped and number != signal.SIGKILL:
                    self.process.send_signal(signal.SIGCONT)
                try:
                    return self.process.wait(seconds)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
                    return "did not end"
            return self.process.returncode if self.process else None

    def other_version(self):
        """From its next start on, it is the version before, or that of today again."""
        now, then = (self.env.before, self.env.build) if self.before else (self.env.build, self.env.before)
        self.argv = [word.replace(now, then) for word in self.argv]
        self.before = not self.before

    def look_after(self):
        """Starts it again if it has ended by itself."""
        if not self.lock.acquire(blocking=False):
            return  # somebody has it in hand
        try:
            if self.process is not None and not self.ended_by_us and not self.alive():
                self.exits.append(self.process.returncode)
                self.start()
        finally:
            self.lock.release()


class Cluster:
    """A PostgreSQL. Its settings lie outside of its data, so that they stay when the data is another's copy. Its clock and its disk can
    be wrong (tests/support/shim.c)."""

    SHIM = struct.Struct("@5l")  # tests/support/shim.h

    def __init__(self, env, machine):
        self.env, self.machine = env, machine
        self.name = machine.name
        self.folder = f"{env.folder}/{self.name}"
        self.data = f"{self.folder}/data"
        os.makedirs(self.folder)
        shutil.chown(self.folder, "postgres", "postgres")
        self.process = None
        self.sync = ""
        self.primary = ""
        with open(f"{self.folder}/shim", "wb+") as file:
            file.write(bytes(self.SHIM.size))
            file.flush()
            self.shim = mmap.mmap(file.fileno(), self.SHIM.size)
        self.ails = {"wall_s": 0, "boot_s": 0, "fsync_ms": 0, "cut": 0, "full": 0}

    def ail(self, **what):
        """From now on its clock is wrong by `wall_s`, its disk takes `fsync_ms`, or is `full`."""
        self.ails.update(what)
        self.SHIM.pack_into(self.shim, 0, *self.ails.values())

    def url(self, database="chaos"):
        return f"postgresql://postgres@{self.machine.ip}:{PORT}/{database}"

    def configure(self, sync="", primary=""):
        self.sync, self.primary = sync, primary
        for name, text in (("hba.conf", "host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n"), ("ident.conf", ""),
                           ("postgresql.conf", POSTGRES.format(data=self.data, hba=f"{self.folder}/hba.conf", sync=sync,
                                                               ident=f"{self.folder}/ident.conf", primary=primary))):
            with open(f"{self.folder}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        if self.alive():
            self.process.send_signal(signal.SIGHUP)

    def tool(self, name, *arguments, check=True):
        return run(*self.machine.command(f"{self.env.pg_bin}/{name}", *arguments, user="postgres"), check=check, cwd="/")

    def create(self):
        self.tool("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        with open(f"{self.folder}/log", "ab") as log:
            self.process = subprocess.Popen(
                self.machine.command(f"{self.env.pg_bin}/postgres", f"--config-file={self.folder}/postgresql.conf", user="postgres"),
                env={**os.environ, "LD_PRELOAD": f"{self.env.build}/tests/support/shim.so", "DURABLE_SHIM": f"{self.folder}/shim"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

    def stop(self, number=signal.SIGQUIT):
        if self.alive():
            self.process.send_signal(number)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def wait_ready(self, seconds=60):
        """Starts it again as long as the rests of the one before are in its way."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.alive():
                self.start()
            try:
                with history.psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=2) as conn:
                    conn.execute("select 1")
                return
            except history.psycopg.OperationalError:
                time.sleep(0.1)
        raise TimeoutError(f"{self.name} does not start")

    def become_standby_of(self, other, rewind):
        primary = f"host={other.machine.ip} port={PORT} user=postgres application_name={self.name}"
        source = f"host={other.machine.ip} port={PORT} user=postgres dbname=postgres"
        self.stop()
        self.configure(primary=primary)
        with history.connect(other.url("postgres")) as conn:
            conn.execute("checkpoint")  # pg_rewind goes by the control file, which names the new timeline only after one
        done = rewind and self.tool("pg_rewind", "--target-pgdata", self.data, "--source-server", source, "--config-file",
                                    f"{self.folder}/postgresql.conf", check=False).returncode == 0
        for left in range(COPY_TRIES if not done else 0, 0, -1):  # one ends where the other's clock steps, or its disk is full
            shutil.rmtree(self.data, ignore_errors=True)
            if self.tool("pg_basebackup", "-D", self.data, "-d", source, "-X", "stream", "-c", "fast", check=left == 1).returncode == 0:
                break
        with open(f"{self.data}/standby.signal", "w", encoding="utf-8"):
            pass
        shutil.chown(f"{self.data}/standby.signal", "postgres", "postgres")
        self.wait_ready()
        return "pg_rewind" if done else "pg_basebackup"


class Environment:
    """Builds it all: databases, pooler, programs. `actors` by name; `primary` and `standby` change places. The programs of today are in
    the folder `build`, those of the version before in `before`."""

    def __init__(self, folder, root, build, before, pg_bin):
        self.folder, self.root, self.build, self.before, self.pg_bin = folder, root, build, before, pg_bin
        self.evidence_url = f"postgresql://postgres@{HUB}:{PORT}/evidence"
        self.actors = {}
        self.machines = {}
        self.keeper = None  # the cluster whose rows no failover takes back; while that is the standby, it may be promoted
        self.failover_lock = threading.Lock()
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "addr", "add", f"{HUB}/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")

    def machine(self, name, number):
        self.machines[name] = Machine(name, number)
        return self.machines[name]

    def start_evidence(self):
        """The evidence's cluster is in the hub, where no fault reaches."""
        data = f"{self.folder}/evidence"
        os.makedirs(data)
        shutil.chown(data, "postgres", "postgres")
        who = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]
        run(*who, f"{self.pg_bin}/initdb", "-D", f"{data}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
            cwd="/")
        with open(f"{data}/data/pg_hba.conf", "a", encoding="utf-8") as hba:
            hba.write("host all all 0.0.0.0/0 trust\n")
        with open(f"{data}/log", "ab") as log:
            self.evidence_process = subprocess.Popen(
                [*who, f"{self.pg_bin}/postgres", "-D", f"{data}/data", "-c", "listen_addresses=*", "-c", "fsync=off", "-c",
                 "synchronous_commit=off", "-c", "unix_socket_directories=", "-c", "max_connections=100"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        history.connect(f"postgresql://postgres@{HUB}:{PORT}/postgres").execute("create database evidence")
        self.evidence = history.connect(self.evidence_url)
        history.prepare_evidence(self.evidence)

    def start_databases(self):
        self.clusters = [Cluster(self, self.machine("pg1", 11)), Cluster(self, self.machine("pg2", 12))]
        self.primary, self.standby = self.clusters
        self.primary.create()
        self.primary.configure()
        self.primary.wait_ready()
        with history.connect(self.primary.url("postgres")) as conn:
            conn.execute("create database chaos")
        self.database_url = (f"postgresql://postgres@{self.clusters[0].machine.ip}:{PORT},{self.clusters[1].machine.ip}:{PORT}/chaos"
                             "?target_session_attrs=read-write&connect_timeout=3")
        run(f"{self.build}/cli/durable", "migrate", "--database-url", self.primary.url())
        with history.connect(self.primary.url()) as conn:
            history.prepare_system(conn)
        self.standby.become_standby_of(self.primary, rewind=False)
        self.make_synchronous()

    def make_synchronous(self, seconds=60):
        """From now on, what is acknowledged is on both."""
        self.primary.configure(sync="*")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                with history.psycopg.connect(self.primary.url("postgres"), autocommit=True, connect_timeout=2) as conn:
                    if conn.execute("select count(*) from pg_stat_replication where sync_state = 'sync' and state = 'streaming'"
                                    ).fetchone()[0] == 1 and self.standby_has_what_is_new():
                        self.keeper = self.standby  # and then, as the primary, until it has a standby itself
                        return
            except history.psycopg.OperationalError:
                pass
            time.sleep(0.2)
        raise TimeoutError("the standby does not become synchronous")

    def standby_has_what_is_new(self):
        """A standby of another past reports places in the log that mean nothing: so ask it for a row."""
        with self.system() as primary:
            mark = primary.execute("insert into hc_mark default values returning mark").fetchone()[0]
        with history.connect(self.standby.url()) as standby:
            for _ in range(50):
                if standby.execute("select count(*) from hc_mark where mark = %s", (mark,)).fetchone()[0] == 1:
                    return True
                time.sleep(0.1)
        return False

    def system(self, name="auditor"):
        """A connection to whichever is the primary."""
        return history.connect(self.primary.url(), application_name=name)

    def start_pooler(self):
        machine = self.machine("pool", 13)
        self.pooler_ini = f"{self.folder}/pgbouncer.ini"
        with open(f"{self.folder}/pgbouncer.users", "w", encoding="utf-8") as users:
            users.write('"postgres" ""\n')
        self.point_pooler()
        self.actors["pool"] = Actor(self, machine, ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups",
                                                    "pgbouncer", self.pooler_ini])
        self.actors["pool"].start()

    def point_pooler(self):
        with open(self.pooler_ini, "w", encoding="utf-8") as ini:
            ini.write(f"""[databases]
chaos = host={self.primary.machine.ip} port={PORT} dbname=chaos user=postgres
[pgbouncer]
listen_addr = *
unix_socket_dir =
listen_port = 6432
auth_type = any
auth_file = {self.folder}/pgbouncer.users
pool_mode = transaction
max_client_conn = 200
default_pool_size = 20
server_connect_timeout = 3
server_login_retry = 1
query_wait_timeout = 10
tcp_keepidle = 5
tcp_keepintvl = 5
tcp_keepcnt = 3
ignore_startup_parameters = extra_float_digits,options
""")
        if "pool" in self.actors:
            self.actors["pool"].signal(signal.SIGHUP)

    def start_programs(self):
        key = json.loads(run(f"{self.build}/cli/durable", "keys", "create", "chaos", "--json", "--database-url",
                             self.primary.url()).stdout)["key"]
        self.api_key = key
        database = {"DURABLE_DATABASE_URL": self.database_url}
        for i in (1, 2):
            self.add(f"scheduler{i}", 20 + i, [f"{self.build}/server/scheduler/durable-scheduler"], database)
            self.add(f"server{i}", 30 + i, [f"{self.build}/server/api/durable-server", "--listen", ":7070", "--allow-private"], database)
        self.servers = [f"http://{self.machines[f'server{i}'].ip}:7070" for i in (1, 2)]
        worker = [f"{self.build}/worker/durable-worker", "--lease-ttl", "3s", "--slots", "64", "--grace", "2s"]
        self.add("worker1", 41, [*worker, "--name", "worker1", "--endpoints=false", "--module",
                                 f"{self.build}/tests/chaos/kitchen_sink.so"], database)
        self.add("worker4", 44, [*worker, "--name", "worker4", "--endpoints=false", "--module",
                                 f"{self.build}/tests/chaos/kitchen_sink.so"], database)
        self.add("worker2", 42, [*worker, "--name", "worker2", "--public-url", self.servers[0]], database)
        self.add("worker3", 43, [*worker, "--name", "worker3"], database)  # no public URL: handlers answer with what they have
        for url in self.servers:
            self.until(lambda url=url: urllib.request.urlopen(f"{url}/readyz", timeout=2).status == 200, "a server is ready")
        self.start_endpoints()

    def start_endpoints(self):
        sink = f"{self.root}/tests/chaos/kitchen_sink.mjs"
        commands = {"one": (51, ["node", sink, "sink.one"]), "two": (52, ["node", sink, "sink.two"]),
                    "hostile": (53, ["/usr/bin/python3", f"{self.root}/tests/chaos/hostile.py"])}
        for name, (number, command) in commands.items():
            machine = self.machine(name, number)
            secret = self.api("PUT", f"/v1/endpoints/{name}", {"url": f"http://{machine.ip}:8080", "allowPrivate": True})["secret"]
            self.actors[name] = Actor(self, machine, [*command, machine.ip, "8080"],
                                      {"STACKSHIFT_SIGNING_SECRET": secret, "STACKSHIFT_API_KEY": self.api_key,
                                       "STACKSHIFT_URL": self.servers[0]})
            self.actors[name].start()
            self.until(lambda name=name: self.api("POST", f"/v1/endpoints/{name}/sync")["jobs"], f"endpoint {name} serves its job")
        with self.system() as conn:  # what kitchen_sink.c says of itself; an endpoint cannot
            conn.execute("update durable_internal.job set max_crashes = 1000 where name like 'sink.%'")

    def add(self, name, number, argv, environ):
        self.actors[name] = Actor(self, self.machine(name, number), argv, environ)
        self.actors[name].start()

    def add_client(self, name, number, door, seed):
        self.add(name, number, ["/usr/bin/python3", f"{self.root}/tests/chaos/workload.py", name, door, str(seed)], {
            "CHAOS_DATABASE": self.database_url, "CHAOS_POOL": f"postgresql://postgres@{ADDRESS}13:6432/chaos",
            "CHAOS_SERVERS": " ".join(self.servers), "CHAOS_KEY": self.api_key, "STACKSHIFT_API_KEY": self.api_key, "CHAOS_CLI": f"{self.build}/cli/durable"})

    def api(self, method, path, body=None):
        request = urllib.request.Request(self.servers[0] + path, method=method, data=json.dumps(body or {}).encode(),
                                         headers={"authorization": f"Bearer {self.api_key}", "content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def until(self, holds, what, seconds=30):
        end = time.monotonic() + seconds
        while True:
            try:
                if holds():
                    return
                reason = "it does not hold"
            except (OSError, KeyError, history.psycopg.Error) as error:
                reason = error
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s: {what} ({reason})")
            time.sleep(0.2)

    def look_after(self):
        """Of the programs that ended by themselves: (name, exit status)."""
        for actor in self.actors.values():
            actor.look_after()

    def memory(self, prefix):
        """Resident memory in kB of each program whose name begins so."""
        found = {}
        for name, actor in self.actors.items():
            if name.startswith(prefix) and actor.alive():
                with open(f"/proc/{actor.process.pid}/status", encoding="utf-8") as status:
                    match = re.search(r"VmRSS:\s+(\d+)", status.read())
                found[name] = int(match.group(1)) if match else 0
        return found
