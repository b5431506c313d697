#!/usr/bin/python3
"""Tests of the checker: a clean history passes, and of each check a planted fault is found by it. And of a campaign's summary.

Needs DURABLE_TEST_URL, a PostgreSQL; makes a database of its own there.
"""

import contextlib
import copy
import io
import os
import unittest

import campaign
import history
import invariants

RUN = "00000000-0000-0000-0000-0000000000{:02d}".format
WORKER = "10000000-0000-0000-0000-0000000000{:02d}".format
EVENT = "20000000-0000-0000-0000-0000000000{:02d}".format
AT = "timestamptz '2026-01-01 00:00:00+00' + interval '{} s'".format


def run(n):
    return f"'{RUN(n)}'"


def keyed(key, job, payload, began, at, ok, given="null", **more):
    """A start with the key, from when to when, its answer, and the run that was given."""
    rest = {"error": "null", "ttl": "null", "restart": "false", "seen": "null", **more}
    return ["insert into hc.act (client, door, op, key, job, payload_hash, began, at, ok, run, error, ttl, restart, seen) values ('a',"
            f" 'http', 'start', '{key}', '{job}', '{payload}', {AT(began)}, {AT(at)}, {ok}, {given}, {', '.join(rest.values())})"]


def holder(n, key, job, payload, taken, ended, status="completed", ttl="null", gone="null, null, null, null"):
    """A run of a key: when it was made and took the key, when and how it ended, and how the key went from it."""
    return [f"insert into sut.run values ({run(n)}, {100 + n}, '{job}', 'default', 0, '{status}', '{payload}', '1', null, 1, 50, '{key}',"
            f" null, null, {AT(taken)}, {AT(taken)}, {AT(ended)}, 0, null)",
            f"insert into sut.keyed values ({run(n)}, '{key}', {ttl})",
            f"insert into sut.holding values ('{key}', {run(n)}, {AT(taken)}, {AT(taken)} + {ttl}, {gone})"]


def gone(at, to="null", over="false", status="null"):
    return f"{AT(at)}, {to}, {over}, {status}"


THREE_S = "interval '3 s'"

# Key e ends after 3 s, and is another run then; what was asked just then may be given either. Key f is restarted once its run has
# failed, and refuses others, but one restart takes it for something else. Key r is released twice, the second time without an answer.
KEYED = ";\n".join(sum((
    holder(11, "e", "sink.c", "pe", 30, 31, ttl=THREE_S, gone=gone(33.5, run(12), "true", "'completed'")),
    holder(12, "e", "sink.c", "pe", 33.5, 40, ttl=THREE_S, gone=gone(37, run(13), "true")),
    holder(13, "e", "sink.c", "pe", 37, 38, ttl=THREE_S),
    keyed("e", "sink.c", "pe", 29.9, 30.1, "true", run(11), ttl=THREE_S),
    keyed("e", "sink.c", "pe", 31, 31.5, "true", run(11), ttl=THREE_S),
    keyed("e", "sink.c", "pe", 32.9, 33.2, "true", run(11), ttl=THREE_S),
    keyed("e", "sink.c", "pe", 33.4, 33.6, "true", run(12), ttl=THREE_S),
    keyed("e", "sink.c", "other", 35, 35.2, "false", ttl=THREE_S, error="'DJ002 it is known'"),
    keyed("e", "sink.c", "pe", 36.9, 37.1, "null", ttl=THREE_S),
    keyed("e", "sink.c", "pe", 38, 38.1, "true", run(13), ttl=THREE_S),
    holder(14, "f", "sink.c", "pf", 50, 52, "failed", gone=gone(54, run(15), status="'failed'")),
    holder(15, "f", "sink.c", "pf", 54, 55, "cancelled", gone=gone(56, run(16), status="'cancelled'")),
    holder(16, "f", "sink.one", "qf", 56, 57),
    keyed("f", "sink.c", "pf", 49.9, 50.1, "true", run(14)),
    keyed("f", "sink.c", "pf", 51, 51.1, "true", run(14), restart="true"),
    keyed("f", "sink.c", "qf", 51, 51.1, "false", restart="true", error="'409 idempotency_conflict'"),
    keyed("f", "sink.c", "pf", 53, 53.1, "true", run(14)),
    keyed("f", "sink.c", "pf", 53.9, 54.1, "true", run(15), restart="true", seen=run(14)),
    keyed("f", "sink.c", "pf", 54.5, 54.6, "true", run(15)),
    keyed("f", "sink.one", "qf", 55.9, 56.1, "true", run(16), restart="true", seen=run(14)),
    keyed("f", "sink.c", "pf", 57, 57.1, "false", restart="true", seen=run(14), error="'exit 3: it is known'"),
    holder(17, "r", "sink.c", "pr", 60, 70, gone=gone(62)),
    holder(18, "r", "sink.c", "qr", 63, 64, gone=gone(66, status="'completed'")),
    holder(19, "r", "sink.c", "pr", 67, 68),
    keyed("r", "sink.c", "pr", 60, 60.1, "true", run(17)),
    keyed("r", "sink.c", "qr", 62.9, 63.1, "true", run(18)),
    keyed("r", "sink.c", "pr", 66.9, 67.1, "true", run(19)),
    ["insert into hc.act (client, door, op, began, at, ok, key) values"
     f" ('b', 'sql', 'release', {AT(61.9)}, {AT(62.1)}, true, 'r'), ('b', 'sql', 'release', {AT(65)}, {AT(65.1)}, null, 'r'),"
     f" ('b', 'sql', 'release', {AT(66.2)}, {AT(66.3)}, false, 'r')"]), []))

# Run 1 has a bit of everything, and a second lease after the first worker was killed; run 2 is its child; 3 was cancelled, with its
# child 4; 5 and 6 are of different priority, and 5 has a wait that timed out; 7 waits for an event that nobody has sent.
CLEAN = f"""{KEYED};
insert into sut.worker values ('{WORKER(1)}', 'worker1', 11, {AT(0)}), ('{WORKER(2)}', 'worker2', 12, {AT(0)});
insert into sut.run values
    ('{RUN(1)}', 10, 'sink.c', 'default', 0, 'completed', 'p1', '7', null, 2, 50, 'a/1', null, null, {AT(1)}, {AT(2)}, {AT(20)}, 0, null),
    ('{RUN(2)}', 20, 'sink.c', 'default', 0, 'completed', 'p2', '3', null, 1, 50, 'a/1/4', '{RUN(1)}', 'c.4', {AT(11)}, {AT(12)}, {AT(13)},
     0, null),
    ('{RUN(3)}', 30, 'sink.c', 'default', 0, 'cancelled', 'p3', null, 'Cancelled', 1, 50, 'a/2', null, null, {AT(1)}, {AT(2)}, {AT(9)}, 0,
     null),
    ('{RUN(4)}', 31, 'sink.c', 'default', 0, 'cancelled', 'p4', null, 'Cancelled', 1, 50, 'a/2/1', '{RUN(3)}', 'c.1', {AT(3)}, {AT(4)},
     {AT(9)}, 0, null),
    ('{RUN(5)}', 40, 'sink.c', 'ordered', 5, 'completed', 'p5', '1', null, 1, 50, 'a/3', null, null, {AT(1)}, {AT(2)}, {AT(3)}, 0, null),
    ('{RUN(6)}', 41, 'sink.c', 'ordered', -5, 'completed', 'p6', '1', null, 1, 50, 'a/4', null, null, {AT(1)}, {AT(9)}, {AT(10)}, 0, null);
insert into hc.program (key, job, status, result, counter, by) values
    ('a/1', 'sink.c', 'completed', 7, 'counter:1', 5), ('a/1/4', 'sink.c', 'completed', 3, 'counter:2', 1),
    ('a/2', 'sink.c', 'completed', 1, 'counter:1', 1), ('a/2/1', 'sink.c', 'completed', 1, 'counter:1', 1),
    ('a/3', 'sink.c', 'completed', 1, 'counter:1', 1), ('a/4', 'sink.c', 'completed', 1, 'counter:1', 1);
insert into sut.lease values
    ('{RUN(1)}', 1, '{WORKER(1)}', 1, {AT(2)}, {AT(5)}), ('{RUN(1)}', 5, '{WORKER(2)}', 2, {AT(6)}, {AT(20)}),
    ('{RUN(2)}', 6, '{WORKER(1)}', 1, {AT(12)}, {AT(13)}), ('{RUN(3)}', 2, '{WORKER(2)}', 1, {AT(2)}, {AT(9)});
insert into sut.step values
    ('{RUN(1)}', 1, 's.0', 'step', 'completed', 'h1', null, 1, '{WORKER(1)}', 1, {AT(3)}),
    ('{RUN(1)}', 2, 'tx.1', 'step', 'completed', 'h2', null, 2, '{WORKER(2)}', 5, {AT(7)}),
    ('{RUN(1)}', 3, 'w.2', 'wait_event', 'completed', 'h3', '{EVENT(1)}', 2, '{WORKER(2)}', 5, {AT(8)}),
    ('{RUN(1)}', 4, 'state.increment', 'op', 'completed', 'h4', null, 2, '{WORKER(2)}', 5, {AT(9)}),
    ('{RUN(1)}', 5, 'send:sent.3', 'op', 'completed', 'h5', null, 2, '{WORKER(2)}', 5, {AT(10)}),
    ('{RUN(1)}', 6, 'c.4', 'child', 'completed', 'h6', null, 2, '{WORKER(2)}', 5, {AT(14)});
insert into sut.step values ('{RUN(5)}', 1, 'w.0', 'wait_event', 'completed', 'h7', null, 1, '{WORKER(1)}', 3, {AT(2.9)});
insert into sut.waited values (100, '{RUN(1)}', 3, 'w.2', false), (99, '{RUN(1)}', 3, 'w.2', false), (101, '{RUN(5)}', 1, 'w.0', true);
insert into sut.keyed values ('{RUN(1)}', 'a/1', null);
insert into sut.holding values ('a/1', '{RUN(1)}', {AT(1)});
insert into hc.step_look values ('{RUN(1)}', 1, 's.0', 'h1'), ('{RUN(1)}', 2, 'tx.1', 'h2');
insert into sut.tx values ('{RUN(1)}', 'tx.1');
insert into sut.counter values ('counter:1', 5), ('tally:a', 3);
insert into hc.tally values ('tally:a', true), ('tally:a', true), ('tally:a', null);
insert into hc.effect (at, run, kind, step, attempt, actor, pid, fence, value) values
    ({AT(2.5)}, '{RUN(1)}', 'step', 's.0', 1, 'worker1', 11, null, null), ({AT(6.5)}, '{RUN(1)}', 'step', 'tx.1', 2, 'worker2', 12, null, null),
    ({AT(8.1)}, '{RUN(1)}', 'wait', 'w.2', 2, 'worker2', 12, null, '{EVENT(1)}'),
    ({AT(8.9)}, '{RUN(1)}', 'wait', 'w.2', 2, 'worker2', 12, null, '{EVENT(1)}'),
    ({AT(8)}, '{RUN(3)}', 'step', 's.0', 1, 'worker2', 12, null, null),
    ({AT(2.95)}, '{RUN(5)}', 'wait', 'w.0', 1, 'worker1', 11, null, 'timed out');
insert into sut.event values ('{EVENT(1)}', 15, 'go', 'a/1/2', {AT(7)}), ('{EVENT(2)}', 16, 'sent.3', 'a/1', {AT(10)});
insert into sut.delivery values (15, '{RUN(1)}', 100);
insert into sut.wait values ('{RUN(1)}', 10, 'go', 'never');
insert into hc.act (client, door, op, began, at, ok, key, job, run, event, payload_hash) values
    ('a', 'sql', 'start', {AT(0.5)}, {AT(1.1)}, true, 'a/1', 'sink.c', '{RUN(1)}', null, 'p1'),
    ('a', 'sql', 'start', {AT(0.2)}, {AT(0.4)}, null, 'a/1', 'sink.c', null, null, 'p1'),
    ('a', 'sql', 'start', {AT(1.2)}, {AT(1.3)}, true, 'a/1', 'sink.c', '{RUN(1)}', null, 'p1'),
    ('a', 'sql', 'cancel', {AT(8.9)}, {AT(9)}, true, null, null, '{RUN(3)}', null, null),
    ('a', 'sql', 'send_event', {AT(6.9)}, {AT(7)}, true, 'go/a/1/2', null, null, '{EVENT(1)}', null);
insert into hc.digest (round, runs, digest) values (1, 5, 'd'), (1, 5, 'd');
insert into hc.calm (round, client, ok) values (1, 'a', 3);
insert into hc.fault (at, until, what, whom) values ({AT(5)}, {AT(6)}, 'kill', 'worker1');
"""

STEP = ("insert into sut.step values ('{run}', {position}, '{name}', '{kind}', 'completed', 'x', null, {attempt}, '{worker}', {fence},"
        " {at})").format

# The promise whose check has to find it, and the fault.
PLANTED = [
    ("an acknowledged start is there", f"update hc.act set run = '{RUN(99)}' where op = 'start' and ok"),
    ("an acknowledged event is there", f"update hc.act set event = '{EVENT(99)}' where op = 'send_event'"),
    ("what a handler was called for is a run", f"update hc.effect set run = '{RUN(99)}' where run = '{RUN(3)}'"),
    ("one key is one run until its time is over",
     f"update hc.act set run = '{RUN(5)}', payload_hash = 'p5' where began = {AT(1.2)}"),
    ("a run is what its start said", "update hc.act set payload_hash = 'other' where op = 'start'"),
    ("one key is one run until its time is over",  # not over
     f"update hc.act set run = {run(12)} where began = {AT(31)}"),
    ("one key is one run until its time is over",  # nobody asked for a restart
     "update hc.act set restart = false"),
    ("one key is one run until its time is over",  # … of what has failed
     f"update sut.run set status = 'completed' where id = {run(14)}"),
    ("one key is one run until its time is over",  # it was released before
     f"update hc.act set began = {AT(59)}, at = {AT(59.1)} where began = {AT(61.9)}"),
    ("one key is one run until its time is over",  # … or not
     f"update hc.act set ok = false where began in ({AT(61.9)}, {AT(65)})"),
    ("a key whose time is over is a new run", f"update hc.act set began = {AT(33.2)}, at = {AT(33.3)} where began = {AT(32.9)}"),
    ("a key that was released is a new run", f"update hc.act set run = {run(17)} where began = {AT(62.9)}"),
    ("a restart of what has failed or was cancelled is a new run", f"update hc.act set run = seen where began = {AT(53.9)}"),
    ("a run is what its start said", "update hc.act set job = 'other' where op = 'start'"),
    ("a run is what its start said", f"update sut.keyed set ttl = interval '3 min' where run = {run(11)}"),
    ("a run is what its start said", f"update sut.keyed set key = 'x' where run = {run(11)}"),
    ("another start with the key is refused",
     f"update hc.act set ok = true, run = {run(12)} where began = {AT(35)}"),
    ("a start is refused only where another run has its key", f"update hc.act set error = 'DJ001' where began = {AT(35)}"),
    ("a start is refused only where another run has its key", f"update hc.act set payload_hash = 'pe' where began = {AT(35)}"),
    ("a start is refused only where another run has its key",  # it was over
     f"update hc.act set began = {AT(40.5)}, at = {AT(41)} where began = {AT(35)}"),
    ("a start is refused only where another run has its key",  # it was released
     f"update hc.act set ok = false, run = null, error = 'DJ002', payload_hash = 'other', began = {AT(62.5)}, at = {AT(62.6)}"
     f" where began = {AT(62.9)}"),
    ("a start is refused only where another run has its key",  # a restart of what had failed
     f"update hc.act set seen = {run(14)} where ok = false and began = {AT(51)}"),
    ("a start that was refused has made no run",
     f"update sut.run set payload_hash = 'other', created_at = {AT(35.1)} where id = {run(13)}"),
    ("a key goes to another run only when its time is over, it was released, or its run had failed and is restarted",
     f"update sut.holding set over = false where run = {run(11)}"),
    ("a key goes to another run only when its time is over, it was released, or its run had failed and is restarted",
     f"update sut.holding set status = null where run = {run(14)}"),
    ("a key goes to another run only when its time is over, it was released, or its run had failed and is restarted",
     f"update hc.act set restart = false where began = {AT(53.9)}"),
    ("a key goes to another run only when its time is over, it was released, or its run had failed and is restarted",
     "update hc.act set ok = false where op = 'release'"),
    ("a run with a key has taken it, once", f"delete from sut.holding where run = {run(12)}"),
    ("a run with a key has taken it, once", f"insert into sut.holding values ('e', {run(11)}, {AT(31)})"),
    ("of the runs of a key one is alive, unless its time was over or it was released",
     f"update sut.run set finished_at = {AT(54.5)} where id = {run(14)}"),
    ("of the runs of a key one is alive, unless its time was over or it was released",
     f"update sut.run set finished_at = null, status = 'waiting', places = 1, waits_for = 'x' where id = {run(15)}"),
    ("a step completes once", STEP(run=RUN(1), position=7, name="s.0", kind="step", attempt=2, worker=WORKER(2), fence=5, at=AT(15))),
    ("a completed step neither changes nor goes", "update sut.step set hash = 'changed' where name = 's.0'"),
    ("a completed step neither changes nor goes", f"insert into hc.step_look values ('{RUN(1)}', 9, 's.9', 'h')"),
    ("a completed step is not called again by who has the lease",
     f"insert into hc.effect (at, run, kind, step, attempt, actor, pid) values ({AT(7)}, '{RUN(1)}', 'step', 's.0', 2, 'worker2', 12)"),
    ("a completed step is not called again by who has the lease",
     f"insert into hc.effect (at, run, kind, step, attempt, actor, fence) values ({AT(7)}, '{RUN(1)}', 'step', 's.0', 2, 'one', 5)"),
    ("a step was called in the attempt that completed it", "delete from hc.effect where step = 'tx.1'"),
    ("a step was called in the attempt that completed it", "update hc.effect set attempt = 1 where step = 'tx.1'"),
    ("a commit is under a lease that was given", "update sut.step set fence = 77 where name = 'state.increment'"),
    ("nothing is committed under a lease after a newer one began", f"update sut.step set committed_at = {AT(6.5)} where name = 's.0'"),
    ("the fences of a run's steps do not go back", "update sut.step set fence = 1 where name = 'send:sent.3'"),
    ("nothing is committed after the run's end", f"update sut.step set committed_at = {AT(21)} where name = 'send:sent.3'"),
    ("no attempt commits after the next one began", "update sut.step set attempt = 1 where name = 'tx.1'"),
    ("a run has one lease at a time", "update sut.lease set ended_at = null where fence = 1"),
    ("a run has one lease at a time", f"update sut.lease set ended_at = {AT(6.1)} where fence = 1"),
    ("a fence is given once", f"update sut.lease set fence = 5 where run = '{RUN(2)}'"),
    ("a wait takes one event, and a run an event once", f"insert into sut.delivery values (16, '{RUN(1)}', 100)"),
    ("a wait takes one event, and a run an event once", f"insert into sut.delivery values (15, '{RUN(1)}', 101)"),
    ("a wait always answers the same", f"update hc.effect set value = 'timed out' where at = {AT(8.9)}"),
    ("what a handler was told of a wait is how that ended", "update hc.effect set value = 'timed out' where step = 'w.2'"),
    ("what a handler was told of a wait is how that ended", f"update hc.effect set value = '{EVENT(1)}' where step = 'w.0'"),
    ("what a handler was told of a wait is how that ended", "delete from sut.step where name = 'w.0'"),
    ("a wait ends by an event or by its time, not by both", f"insert into sut.delivery values (15, '{RUN(5)}', 101)"),
    ("a wait ends by an event or by its time, not by both", "update sut.waited set timed_out = true where wait_id = 100"),
    ("a wait ends by an event or by its time, not by both", f"insert into sut.delivery values (16, '{RUN(1)}', 98)"),
    ("a wait ends by an event or by its time, not by both", "delete from sut.step where name = 'w.2'"),
    ("a wait ends by an event or by its time, not by both", "update sut.step set event = null where name = 'w.2'"),
    ("what a wait took was sent, and is noted as delivered", "delete from sut.event where seq = 15"),
    ("what a wait took was sent, and is noted as delivered", "delete from sut.delivery"),
    ("an event goes to one younger run at most",
     f"insert into sut.delivery values (15, '{RUN(5)}', 102), (15, '{RUN(6)}', 103)"),
    ("nobody waits for an event that is there",
     f"insert into sut.event values ('{EVENT(3)}', 50, 'go', 'never', {AT(8)})"),
    ("no session of ours is in a transaction for over ten seconds",
     "insert into hc.session_look (app, pid, state, age) values ('durable-worker', 5, 'active', '12 s')"),
    ("a run is in one place until it ends, and then in none", f"update sut.run set places = 1 where id = '{RUN(1)}'"),
    ("a run is in one place until it ends, and then in none",
     f"update sut.run set places = 2, status = 'waiting', waits_for = 'x', finished_at = null where id = '{RUN(5)}'"),
    ("nothing is overdue at rest", f"insert into sut.overdue values ('{RUN(1)}', 'sleep', {AT(1)})"),
    ("an end has its time, and what has not ended says what it waits for",
     f"update sut.run set finished_at = null, places = 1 where id = '{RUN(5)}'"),
    ("an end has its time, and what has not ended says what it waits for",
     f"update sut.run set finished_at = null, places = 1, status = 'waiting' where id = '{RUN(5)}'"),
    ("no more attempts than allowed", f"update sut.run set attempt = 51 where id = '{RUN(1)}'"),
    ("a run ends as its program says", f"update sut.run set result = '8' where id = '{RUN(1)}'"),
    ("a run ends as its program says", f"update sut.run set status = 'failed' where id = '{RUN(5)}'"),
    ("a run ends as its program says", "delete from hc.act where op = 'cancel'"),
    ("what has priority begins first", f"update sut.run set started_at = {AT(30)} where id = '{RUN(5)}'"),
    ("nothing of a cancelled run is done five seconds later",
     f"update hc.effect set at = {AT(15)} where run = '{RUN(3)}'"),
    ("a cancelled run commits nothing more",
     STEP(run=RUN(3), position=1, name="s.0", kind="sleep", attempt=1, worker=WORKER(2), fence=2, at=AT(9.5))),
    ("no child outlives its cancelled parent", f"update sut.run set finished_at = null, places = 1 where id = '{RUN(4)}'"),
    ("no child outlives its cancelled parent", f"update sut.run set created_at = {AT(10)} where id = '{RUN(4)}'"),
    ("a step with a transaction has done its SQL once, and no other has", f"insert into sut.tx values ('{RUN(1)}', 'tx.1')"),
    ("a step with a transaction has done its SQL once, and no other has", f"insert into sut.tx values ('{RUN(3)}', 'tx.5')"),
    ("a step with a transaction has done its SQL once, and no other has", "delete from sut.tx"),
    ("counters are the sums of what was remembered", "update sut.counter set value = 10 where key = 'counter:1'"),
    ("counters are the sums of what was remembered", "delete from sut.counter"),
    ("a client's counter is what it was told, and at most what it was not", "update sut.counter set value = 1 where key = 'tally:a'"),
    ("a client's counter is what it was told, and at most what it was not", "update sut.counter set value = 4 where key = 'tally:a'"),
    ("a child is started once",
     f"update sut.run set parent = '{RUN(1)}', at_parent = 'c.4' where id = '{RUN(5)}'"),
    ("an event is sent once by a run that remembers it",
     f"insert into sut.event values ('{EVENT(3)}', 17, 'sent.3', 'a/1', {AT(10)})"),
    ("an event is sent once by a run that remembers it", "delete from sut.event where seq = 16"),
    ("an event is sent once by a run that remembers it", "delete from sut.step where name = 'send:sent.3'"),
    ("what earlier rounds left behind stays as it was", "insert into hc.digest (round, runs, digest) values (1, 5, 'changed')"),
    ("all runs end within 30 seconds of the last fault",
     f"update sut.run set finished_at = null, places = 1, status = 'queued', waits_for = 'x' where id = '{RUN(5)}'"),
    ("the last three calls of each client succeed", "update hc.calm set ok = 2"),
]


class Check(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.url = os.environ["DURABLE_TEST_URL"]
        cls.database = f"chaos_check_{os.getpid()}"
        with history.connect(cls.url) as admin:
            admin.execute(f"create database {cls.database}")
        cls.evidence = history.connect(f"{cls.url.rsplit('/', 1)[0]}/{cls.database}")
        history.prepare_evidence(cls.evidence)
        cls.evidence.execute(CLEAN)

    @classmethod
    def tearDownClass(cls):
        cls.evidence.close()
        with history.connect(cls.url) as admin:
            admin.execute(f"drop database {cls.database} with (force)")

    def found_with(self, fault):
        """The promises that are broken once the fault is planted; it is taken back."""
        with self.evidence.transaction(force_rollback=True):
            self.assertNotEqual(self.evidence.execute(fault).rowcount, 0, "the fault was not planted")
            found = invariants.violations(self.evidence)
            self.assertIsInstance(invariants.describe(self.evidence, found), str)
            return {promise for _, promise, _, _ in found}

    def test_a_clean_history_passes(self):
        self.assertEqual(invariants.describe(self.evidence, invariants.violations(self.evidence)), "")

    def test_every_check_has_a_planted_fault(self):
        self.assertEqual({promise for _, promise, _ in invariants.CHECKS}, {promise for promise, _ in PLANTED})

    def test_a_program_that_ends_by_itself_is_found(self):
        for exits, crashes, well in (({}, 0, True), ({"worker1": []}, 0, True), ({"worker1": [-6]}, 0, False), ({"worker1": [-6, -14]}, 2, True),
                                     ({"worker1": [-6], "one": [-6]}, 1, False), ({"server1": [0]}, 3, False), ({"server1": [-11]}, 1, False)):
            self.assertEqual(not invariants.unasked(exits, crashes), well, exits)

    def test_what_the_nemesis_did_is_shown_beside_a_violation(self):
        with self.evidence.transaction(force_rollback=True):
            self.evidence.execute(f"update sut.step set committed_at = {AT(6.5)} where name = 's.0'")
            self.assertIn("kill worker1", invariants.describe(self.evidence, invariants.violations(self.evidence)))

    def test_a_zombie_that_has_lost_its_lease_may_call_a_step_again(self):
        effect = ("insert into hc.effect (at, run, kind, step, attempt, actor, pid) values"
                  f" ({AT(5.5)}, '{RUN(1)}', 'step', 's.0', 1, 'worker1', 11)")
        self.assertEqual(self.found_with(effect), set())

    def test_a_step_after_a_cancel_is_excused_by_who_could_not_know_of_it(self):
        late = f"update hc.effect set at = {AT(15)} where run = '{RUN(3)}'"
        stop = f"insert into hc.fault (at, until, what, whom) values ({AT(8)}, {AT(15)}, 'stop', '%s')"
        promise = "nothing of a cancelled run is done five seconds later"
        for whom, excused in (("worker1", False), ("worker2", True)):
            self.assertEqual(promise not in self.found_with(f"with late as ({late}) {stop % whom}"), excused, whom)

    def test_a_transaction_that_a_wrong_clock_says_is_old_is_excused(self):
        look = ("insert into hc.session_look (at, app, pid, state, age) values"
                f" ({AT(20)}, 'durable-worker', 5, 'active', '12 s')")
        fault = "insert into hc.fault (at, until, what, whom, detail) values (%s, %s, 'database clock', 'pg1', '+120 s')"
        promise = "no session of ours is in a transaction for over ten seconds"
        for at, until, excused in ((1, 9, False), (1, 11, True), (21, 30, False)):
            found = self.found_with(f"with look as ({look}) {fault % (AT(at), AT(until))}")
            self.assertEqual(promise not in found, excused, (at, until))

    def test_a_key_is_not_judged_by_a_database_clock_that_was_wrong(self):
        def shift(began, by, to):
            return f"update hc.act set began = began + interval '{by} s', at = at + interval '{to} s' where began = {AT(began)}"
        faults = {"one key is one run until its time is over": f"update hc.act set run = {run(12)} where began = {AT(31)}",
                  "a key whose time is over is a new run": shift(32.9, 0.3, 0.2),
                  "a start is refused only where another run has its key": shift(35, 5.5, 5.8),
                  "a start that was refused has made no run":
                      f"update sut.run set payload_hash = 'other', created_at = {AT(35.1)} where id = {run(13)}"}
        for promise, fault in faults.items():
            for begin, end, step, excused in ((-200, -150, "+120 s", False), (-200, -70, "+120 s", True), (-200, -70, "-120 s", False),
                                              (-200, None, "-12 s", True), (30.5, 110, "-12 s", True), (100, 110, "+12 s", False)):
                clock = ("insert into hc.fault (at, until, what, whom, detail) values"
                         f" ({AT(begin)}, {'null' if end is None else AT(end)}, 'database clock', 'pg1', '{step}')")
                self.assertEqual(promise not in self.found_with(f"with fault as ({fault}) {clock}"), excused, (promise, begin, end, step))

    def test_a_refusal_for_a_start_that_a_failover_took_back_is_not_judged(self):
        """The unknown start began at 36.9, and who was refused asked from 40.5 to 41."""
        refused = f"update hc.act set began = {AT(40.5)}, at = {AT(41)} where began = {AT(35)}"
        for crash, failover, excused in ((38, 45, True), (38, 70, False), (36, 45, False), (42, 45, False), (38, 40, False)):
            faults = ("insert into hc.fault (at, until, what, whom) values"
                      f" ({AT(crash)}, {AT(crash + 1)}, 'restart', 'pg1'), ({AT(failover)}, {AT(failover + 9)}, 'primary', 'pg1')")
            found = self.found_with(f"with fault as ({refused}) {faults}")
            self.assertEqual("a start is refused only where another run has its key" not in found, excused, (crash, failover))

    def test_a_restart_may_give_a_run_that_somebody_let_go_on(self):
        promise = "a restart of what has failed or was cancelled is a new run"
        for ok, excused in (("false", False), ("null", True), ("true", True)):
            retry = ("insert into hc.act (client, door, op, began, at, ok, run) values"
                     f" ('b', 'sql', 'retry', {AT(53)}, {AT(53.1)}, {ok}, {run(14)})")
            again = f"update hc.act set run = seen where began = {AT(53.9)}"
            self.assertEqual(promise not in self.found_with(f"with again as ({again}) {retry}"), excused, ok)

    def test_a_run_that_goes_on_once_the_key_was_released_may_be_beside_another(self):
        promise = "of the runs of a key one is alive, unless its time was over or it was released"
        for released, excused in ((58, True), (59.5, False)):
            self.assertEqual(promise not in self.found_with(
                f"with late as (update sut.run set finished_at = {AT(59)} where id = {run(14)}) update sut.holding"
                f" set gone_at = {AT(released)}, over = false, status = 'completed' where run = {run(16)}"), excused, released)


def planted(promise, fault):
    def test(self):
        self.assertIn(promise, self.found_with(fault))
    return test


# An hour of all faults, and kills alone, as they have to be.
GOOD = [{"seed": 1, "only": None, "seconds": 3600, "passed": 40, "failed": 0, "recovery": [30.0], "promotion": [1.0, 14.9], "rests": [29.0],
         "violations": [], "counts": {**{f"fault {fault}": 20 for fault in campaign.FAULTS}, "fault kill": 2000, "zombie workers": 150,
                                      "zombie endpoints": 50, "unknown fates": 200, "fault restart": 100, "fault primary": 20, "steps": 400_000,
                                      "call start acknowledged": 9000}},
        {"seed": 2, "only": ["kill_worker"], "seconds": 180, "passed": 40, "failed": 0, "recovery": [3.4] * 99 + [5.0], "promotion": [],
         "rests": [5.0], "violations": [], "counts": {"fault kill": 90}}]


class Campaign(unittest.TestCase):
    def summary_of(self, runs, seeds=()):
        """What is printed, and how many lines of it are not as they have to be."""
        summary, text = campaign.Summary(), io.StringIO()
        with contextlib.redirect_stdout(text):
            summary.counts([run for run in runs if run["only"] is None])
            summary.times(runs)
            summary.violations(runs, seeds)
        return text.getvalue(), summary.failed

    def test_all_that_is_due_passes(self):
        text, failed = self.summary_of(GOOD)
        self.assertEqual(failed, 0, text)
        self.assertEqual(text.count("ok\n"), 13, text)

    def test_each_thing_that_is_due_is_missed(self):
        short = {"fault kill": "kills", "zombie workers": "zombies", "unknown fates": "unknown fate", "fault restart": "restarts",
                 "fault primary": "failovers", "steps": "steps"}
        for name, what in short.items():
            runs = copy.deepcopy(GOOD)
            runs[0]["counts"][name] -= 1
            text, failed = self.summary_of(runs)
            self.assertEqual(failed, 1, text)
            self.assertRegex(text, f"{what}.*MISSED")
        for fault in campaign.FAULTS:
            runs = copy.deepcopy(GOOD)
            del runs[0]["counts"][f"fault {fault}"]
            self.assertRegex(self.summary_of(runs)[0], f"kinds of faults +{len(campaign.FAULTS) - 1} .*MISSED")
        for run, name, values in ((1, "recovery", [3.6] * 100), (1, "recovery", [3.4] * 98 + [5.1] * 2), (0, "promotion", [1.0, 15.1]),
                                  (0, "rests", [30.1]), (0, "rests", [None]), (0, "violations", [[1, "I3", "it is so", 2]])):
            runs = copy.deepcopy(GOOD)
            runs[run][name] = values
            self.assertEqual(self.summary_of(runs)[1], 1, (name, values))
        runs = copy.deepcopy(GOOD)
        runs[0]["violations"] = [[1, "I1", "an acknowledged start is there", 3]]
        self.assertRegex(self.summary_of(runs)[0], "lost, of 9,000 acknowledged starts.* 3 .*MISSED")
        self.assertEqual(self.summary_of(GOOD, seeds=[7])[1], 1)

    def test_an_hour_may_be_made_of_many_runs(self):
        runs = []
        for _ in range(20):
            run = copy.deepcopy(GOOD[0])
            run["seconds"] /= 20
            run["counts"] = {name: n // 20 for name, n in run["counts"].items()}
            runs.append(run)
        text, failed = self.summary_of(runs)
        self.assertRegex(text, "kills +2,000 ")
        self.assertEqual(failed, 1, text)  # zombies: a twentieth of 150 and of 50, each time rounded down


for number, (promise_, fault_) in enumerate(PLANTED, 1):
    name = "_".join("".join(c if c.isalnum() else " " for c in promise_).split())
    setattr(Check, f"test_{number:02d}_found_if_not_so_that_{name}", planted(promise_, fault_))

if __name__ == "__main__":
    unittest.main(verbosity=1)
