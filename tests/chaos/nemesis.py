"""What goes wrong, how often, and how it is healed. Each fault runs on a thread of its own, so that faults overlap; what it did,
to whom and until when is in hc.fault.
"""

import contextlib
import random
import signal
import threading
import time

import history

WORKERS = ("worker1", "worker2", "worker3", "worker4")
FELLOW = {"worker1": "worker4", "worker4": "worker1", "worker2": "worker3", "worker3": "worker2"}  # who can take its runs
CONTROL = ("scheduler1", "scheduler2", "server1", "server2")
ENDPOINTS = ("one", "two")
LEASE_S = 3
MEAN_GAP_S = 0.5
PATIENCE_S = 5  # for what others do to the databases
YOUNG_S = 5  # a program that has not yet come to where it says what SIGTERM is to do


class Nemesis:
    """Faults by weight, from a seed. `heal` ends all of them and waits until the machines are whole."""

    WEIGHTS = {"kill_worker": 30, "stop": 15, "kill_control": 10, "cut": 10, "slow": 5, "terminate": 10, "restart_postgres": 5,
               "failover": 2, "queue": 3, "drain": 2, "other_version": 3, "clock": 3, "kill_endpoint": 3, "snapshot": 1, "database_clock": 1,
               "disk": 1}

    def __init__(self, env, seed, only=None):
        self.env = env
        self.random = random.Random(f"nemesis/{seed}")
        self.weights = {name: weight for name, weight in self.WEIGHTS.items() if only is None or name in only}
        self.healing = threading.Event()
        self.threads = []
        self.problems = []
        self.evidence = history.connect(env.evidence_url)
        self.log_lock = threading.Lock()
        self.postgres_lock = threading.Lock()  # of whoever has the databases in hand
        self.clock_lock = threading.Lock()  # of whoever has their clock
        self.ends = float("inf")  # when all is to be healed, by time.monotonic()

    def log(self, what, whom, detail=None):
        with self.log_lock:
            return self.evidence.execute("insert into hc.fault (what, whom, detail) values (%s, %s, %s) returning id",
                                         (what, whom, detail)).fetchone()[0]

    def over(self, fault, detail=None):
        with self.log_lock:
            self.evidence.execute("update hc.fault set until = clock_timestamp(), detail = coalesce(%s, detail) where id = %s",
                                  (detail, fault))

    def wait(self, seconds):
        """Waits, but not longer than until all is to be healed."""
        self.healing.wait(seconds)

    def step(self):
        """Begins one fault, and waits for the gap to the next. What is random is drawn here, in the seed's order."""
        name = self.random.choices(list(self.weights), list(self.weights.values()))[0]
        fault = getattr(self, name)
        draw = random.Random(self.random.random())
        thread = threading.Thread(target=self.guarded, args=(name, fault, draw))
        thread.start()
        self.threads = [t for t in self.threads if t.is_alive()] + [thread]
        self.wait(self.random.expovariate(1 / MEAN_GAP_S))

    def guarded(self, name, fault, draw):
        try:
            fault(draw)
        except history.psycopg.OperationalError as error:  # the database went away under it, as it may
            if name in ("restart_postgres", "failover"):
                self.problems.append(f"{name}: {error!r}")
        except Exception as error:  # a fault that could not be done is the harness' problem, and said as such
            self.problems.append(f"{name}: {error!r}")

    def heal(self):
        self.healing.set()
        for thread in self.threads:
            thread.join()
        self.threads = []
        self.healing.clear()
        for actor in self.env.actors.values():
            if actor.ended_by_us:
                actor.start()
        with self.env.system("nemesis") as conn:
            conn.execute("select durable.resume_queue('paused')")
        for name in ENDPOINTS:  # which also ends a rest: one that has failed often has up to a minute
            self.env.until(lambda name=name: self.env.api("POST", f"/v1/endpoints/{name}/sync")["jobs"], f"{name} is there again", 60)

    # Processes.

    @contextlib.contextmanager
    def one_of(self, draw, names):
        """One of them that runs, and that nobody else has in hand; None if there is none."""
        for name in draw.sample(names, len(names)):
            actor = self.env.actors[name]
            if actor.lock.acquire(blocking=False):
                try:
                    if actor.alive() and not actor.stopped:
                        yield actor
                        return
                finally:
                    actor.lock.release()
        yield None

    def kill_worker(self, draw):
        self.kill(draw, WORKERS)

    def kill_control(self, draw):
        self.kill(draw, CONTROL)

    def kill_endpoint(self, draw):
        self.kill(draw, ENDPOINTS)

    def kill(self, draw, names):
        with self.one_of(draw, names) as actor:
            if actor is None:
                return
            fault = self.log("kill", actor.name)
            actor.end(signal.SIGKILL)
        self.wait(draw.uniform(0, 1))
        actor.start()
        self.over(fault)

    def stop(self, draw):
        """Mostly a worker that has runs in hand, for so long that these become another's meanwhile, if there is another."""
        names = draw.choices((WORKERS, CONTROL, ENDPOINTS), (8, 1.5, 0.5))[0]
        seconds = draw.choice((1, 2, 5, 8, 12, 20, 40, 60)) * draw.uniform(0.7, 1)
        if names is WORKERS and draw.random() < 0.8:
            names = [name for name in self.with_runs() if not self.env.actors[FELLOW[name]].stopped]
            seconds = draw.uniform(LEASE_S + 1.5, LEASE_S + 6)
        with self.one_of(draw, names) as actor:
            if actor is None:
                return
            actor.stopped = True
            victim = actor.process
            fault = self.log("stop", actor.name)
            actor.signal(signal.SIGSTOP)
        self.wait(seconds)
        with actor.lock:
            if actor.process is victim:
                actor.signal(signal.SIGCONT)
                actor.stopped = False
        self.over(fault)

    def with_runs(self):
        """The workers who have a lease; all of them where none has, or nobody can say."""
        try:
            with history.psycopg.connect(self.env.primary.url(), autocommit=True, connect_timeout=2, application_name="nemesis") as conn:
                rows = conn.execute("select distinct w.name from durable_internal.lease l join durable_internal.worker w"
                                    " on w.id = l.worker_id").fetchall()
        except history.psycopg.OperationalError:
            rows = []
        return sorted(name for (name,) in rows) or WORKERS

    def drain(self, draw):
        self.end_in_order(draw, "drain")

    def other_version(self, draw):
        self.end_in_order(draw, "other version")

    def end_in_order(self, draw, what):
        with self.one_of(draw, WORKERS + CONTROL) as actor:
            if actor is None:
                return
            fault, young = self.log(what, actor.name), time.monotonic() - actor.started < YOUNG_S
            status = actor.end(signal.SIGTERM)
            if what == "other version":
                actor.other_version()
            actor.start()
        self.over(fault, f"exit {status}{', then the version before' if actor.before else ''}")
        if status != 0 and not young:
            self.problems.append(f"drain: {actor.name} ended with {status}")

    def clock(self, draw):
        """A program whose wall clock is wrong by an hour, for a while. Endpoints refuse signatures from such a clock, so none of
        those who call them."""
        hours = draw.choice(("+1h", "-1h"))
        with self.one_of(draw, ("worker1", "worker4", "scheduler1", "scheduler2")) as actor:
            if actor is None:
                return
            fault = self.log("clock", actor.name, hours)
            actor.end(signal.SIGKILL)
            actor.start({"LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "FAKETIME": hours,
                         "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
        self.wait(draw.uniform(3, 10))
        with actor.lock:
            if actor.alive() and not actor.stopped:
                actor.end(signal.SIGKILL)
                actor.start()
        self.over(fault)

    # The network.

    def pair(self, draw):
        """Who speaks with whom, so that a cut is felt."""
        databases = [cluster.name for cluster in self.env.clusters]
        a, others = draw.choice([(name, databases) for name in WORKERS * 2 + CONTROL]
                                + [(name, ["one", "two"]) for name in WORKERS[1:]] + [(name, ["server1"]) for name in ENDPOINTS]
                                + [(name, ["server1", "server2"]) for name in self.env.clients])
        return self.env.machines[a], [self.env.machines[name] for name in others]

    def cut(self, draw):
        machine, others = self.pair(draw)
        ways = draw.choice((("in", "out"), ("in", "out"), ("in",), ("out",)))
        seconds = draw.choice((1, 3, 6, 15)) * draw.uniform(0.7, 1)
        key = object()
        fault = self.log("cut" if len(ways) == 2 else "cut one way", machine.name, f"{'/'.join(ways)} {', '.join(o.name for o in others)}")
        machine.filter(key, [(way, f"ip {'saddr' if way == 'in' else 'daddr'} {other.ip} drop") for way in ways for other in others])
        self.wait(seconds)
        machine.filter(key, None)
        self.over(fault)

    def slow(self, draw):
        """Packets are lost, or a link gets narrow, so that queues delay what passes."""
        machine, _ = self.pair(draw)
        seconds, key = draw.uniform(2, 10), object()
        if draw.random() < 0.6:
            percent = draw.choice((2, 5, 20))
            fault = self.log("loss", machine.name, f"{percent} %")
            machine.filter(key, [(way, f"numgen random mod 100 < {percent} drop") for way in ("in", "out")])
            self.wait(seconds)
            machine.filter(key, None)
        else:
            rate = draw.choice(("100kbit", "500kbit"))
            fault = self.log("narrow", machine.name, rate)
            machine.slow(rate)
            self.wait(seconds)
            machine.slow(None)
        self.over(fault)

    # PostgreSQL.

    def terminate(self, draw):
        try:
            conn = history.psycopg.connect(self.env.primary.url(), autocommit=True, connect_timeout=2, application_name="nemesis")
        except history.psycopg.OperationalError:
            return  # there is none to terminate just now
        with conn:
            rows = conn.execute("select pid, application_name from pg_stat_activity where application_name like 'durable%'"
                                " or application_name = 'client' order by pid").fetchall()
            if rows:
                pid, whom = draw.choice(rows)
                self.log("terminate", whom, f"pid {pid}")
                conn.execute("select pg_terminate_backend(%s)", (pid,))

    def restart_postgres(self, draw):
        if not self.postgres_lock.acquire(timeout=PATIENCE_S):
            return
        try:
            cluster = self.env.primary
            how = draw.choice((signal.SIGQUIT, signal.SIGQUIT, signal.SIGINT, signal.SIGKILL))
            fault = self.log("restart", cluster.name, signal.Signals(how).name)
            cluster.stop(how)
            self.wait(draw.uniform(0, 2))
            cluster.wait_ready()
            self.over(fault)
        finally:
            self.postgres_lock.release()

    def failover(self, draw):
        if not self.postgres_lock.acquire(blocking=False):
            return
        try:
            env = self.env
            if env.keeper is not env.standby:
                return
            old, new = env.primary, env.standby
            cut_off = draw.random() < 0.5
            fault = self.log("primary", old.name, "cut off" if cut_off else "killed")
            key = object()
            if cut_off:  # it lives on, and whoever waits for its answer waits in vain
                rule = [(way, f"ip {address} != 10.77.0.1 drop") for way, address in (("in", "saddr"), ("out", "daddr"))]
                env.machines[old.name].filter(key, rule)
            else:
                old.stop(draw.choice((signal.SIGQUIT, signal.SIGKILL)))
            self.promote(new)
            env.primary, env.standby = new, old
            env.point_pooler()
            promoted = self.log("promoted", new.name)
            self.over(promoted)
            self.wait(draw.uniform(1, 8))
            old.stop()
            env.machines[old.name].filter(key, None)
            how = old.become_standby_of(new, rewind=draw.random() < 0.5)
            env.make_synchronous()
            self.over(fault, f"{'cut off' if cut_off else 'killed'}, back by {how}")
        finally:
            self.postgres_lock.release()

    def database_clock(self, draw):
        """The primary's clock steps, and later back. What was set by a clock that was ahead comes so much later when it is back: so near
        the end it is not far ahead."""
        if not self.clock_lock.acquire(blocking=False):
            return
        try:
            cluster, step = self.env.primary, draw.choice((-120, -12, 12, 120))
            if step > self.ends - time.monotonic():
                step = 12
            fault = self.log("database clock", cluster.name, f"{step:+} s")
            cluster.ail(wall_s=step)
            self.wait(draw.uniform(3, 15))
            cluster.ail(wall_s=0)
            self.over(fault)
        finally:
            self.clock_lock.release()

    def disk(self, draw):
        """The primary's disk is full, or slow. It may end of the former, and is started again when there is room."""
        if not self.postgres_lock.acquire(timeout=PATIENCE_S):
            return
        try:
            cluster, full = self.env.primary, draw.random() < 0.5
            fault = self.log("disk full" if full else "disk slow", cluster.name)
            cluster.ail(full=int(full), fsync_ms=0 if full else 500)
            self.wait(draw.uniform(2, 10))
            cluster.ail(full=0, fsync_ms=0)
            cluster.wait_ready()
            self.over(fault)
        finally:
            self.postgres_lock.release()

    def promote(self, cluster):
        with history.connect(cluster.url("postgres")) as conn:
            conn.execute("select pg_promote(true, 60)")
        cluster.configure()

    def snapshot(self, draw):
        """Somebody's report holds a snapshot, so that vacuum may remove nothing."""
        fault = self.log("snapshot", self.env.primary.name)
        try:
            with history.psycopg.connect(self.env.primary.url(), connect_timeout=2, application_name="nemesis") as conn:
                conn.execute("set transaction isolation level repeatable read")
                conn.execute("select count(*) from durable.queues")
                self.wait(draw.uniform(5, 20))
        except history.psycopg.OperationalError:
            pass  # the database went away: so did the snapshot
        self.over(fault)

    def queue(self, draw):
        """A queue is paused, and goes on as soon as there is a database again that can be told so."""
        try:
            with self.env.system("nemesis") as conn:
                fault = self.log("pause", "paused")
                conn.execute("select durable.pause_queue('paused')")
        except history.psycopg.Error:
            return  # the database went away, or is no primary any more; should it be paused, the next resumes it, or heal()
        self.wait(draw.uniform(1, 10))
        while not self.healing.is_set():
            try:
                with self.env.system("nemesis") as conn:
                    conn.execute("select durable.resume_queue('paused')")
                break
            except history.psycopg.Error:
                self.wait(0.5)
        self.over(fault)
