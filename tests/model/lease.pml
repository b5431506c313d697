/* Leases: one run of one step, two worker programs, a reaper that can be wrong, a cancel, lost connections, and crashes of
 * PostgreSQL that forget claims.
 *
 * What must hold: the step is committed once, and under the lease in whose name it was done; a run is in one place; a
 * step that was acknowledged stays; a worker is declared dead only while it is silent; every run ends: when nothing can move
 * any more it has ended (watch), and with LIVE it does end, whoever goes round in circles, if each process that can go on
 * does so some time (ends).
 *
 * A worker that stops for any time and wakes as a zombie needs no line here: programs go at any speed. What does need
 * one is that it stops in the middle of a batch, with locks held (FREEZES).
 * The mutants are the lines with #ifdef; tests/model/check has their list. */
#include "rows.inc"

#ifndef SILENCES
#define SILENCES 1
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef FREEZES
#define FREEZES 0
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef CANCELS
#define CANCELS 1
#endif

/* With LIVE beats go on for ever, so that nothing is ever at rest. BEATS alone: the same world, looked at for safety. */
#ifdef LIVE
#define BEATS
#endif

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef SLOTS
#define SLOTS 1
#endif

#define SESSIONS 5 /* program p has 1 + 2p and 2 + 2p; 0 is none */
#define REAPER 5
#define CANCELLER 6
#define IDS 6 /* program p is worker 1 + p, then 3 + p; 0 is none */

mtype = { nothing, claim, step_turn, step_tx, done, reconcile };
mtype = { good, busy, lost, dead, none };

/* The database. Only claims commit asynchronously, so what a crash may go back to is one earlier state of all this. */
row ready, lease, step, ended;
byte lease_fence, lease_worker, lease_grant; /* grant: what tells two leases apart, whatever their numbers */
byte fence_seq;
bool alive[IDS], silent[IDS], left[IDS];
byte row_of[IDS]; /* who holds the worker's row */
byte shared[IDS], alone[IDS], wanted[IDS]; /* the worker's advisory lock: sharers, owner, who is next */

bool disk_ready, disk_lease, disk_step, disk_ended;
byte disk_fence, disk_worker, disk_grant, disk_seq;

/* Sessions: what they were asked, and by whom. A gone one has lost its client. */
mtype task[SESSIONS];
byte id_of[SESSIONS], fence_of[SESSIONS], grant_of[SESSIONS], lock_of[SESSIONS]; /* lock: 0, 1 shared, 2 alone */
byte item_of[SESSIONS]; /* which run in hand */
bool gone[SESSIONS], killed[SESSIONS];
bool reaper_killed, canceller_killed, reaping;

/* Programs: two runs in hand at most. */
byte id[2], line[2];
bool held[4], lost_of[4], stage[4];
byte fence[4], grant[4];
bool broken[2], frozen[2];
bool unsure[2]; /* a connection was lost: reconcile before the next claim */
byte item; /* within a block only */
#ifdef NOTSAIDAGAIN
bool told[4]; /* it was told `busy`, and that is the end of it */
#define SAYS(h) (held[h] && !told[h])
#else
#define SAYS(h) held[h]
#endif

/* What is only watched. */
byte grants, step_commits;
bool acknowledged;
byte silences = SILENCES, losses = LOSSES, crashes = CRASHES, freezes = FREEZES, deaths = DEATHS;

#define OWN(p, s) ((s - 1) / 2 == p)
#define OTHER(s) (s + 1 - 2 * ((s + 1) % 2)) /* 1 and 2, 3 and 4 */

inline keep_all(tx) {
    if
    :: step.by == tx && step.will && !step.is -> step_commits++
    :: else
    fi;
    KEEP(ready, tx); KEEP(lease, tx); KEEP(step, tx); KEEP(ended, tx);
    if
    :: !lease.is && lease.by == 0 -> lease_fence = 0; lease_worker = 0; lease_grant = 0
    :: else
    fi;
    assert(ready.is + lease.is + ended.is == 1); /* a run is in one place */
    assert(step_commits <= 1)
}
inline undo_all(tx) {
    if /* nobody has seen its number, so that it may as well come again: fewer states */
    :: lease.by == tx && lease.will && !lease.is -> fence_seq--; grants--
    :: else
    fi;
    UNDO(ready, tx); UNDO(lease, tx); UNDO(step, tx); UNDO(ended, tx);
    if
    :: !lease.is && lease.by == 0 -> lease_fence = 0; lease_worker = 0; lease_grant = 0
    :: else
    fi
}
inline to_disk() {
    disk_ready = ready.is; disk_lease = lease.is; disk_step = step.is; disk_ended = ended.is;
    disk_fence = (lease.is -> lease_fence : 0); disk_worker = (lease.is -> lease_worker : 0);
    disk_grant = (lease.is -> lease_grant : 0); disk_seq = fence_seq
}
inline unlock(s) {
    if
    :: lock_of[s] == 1 -> shared[id_of[s]]--
    :: lock_of[s] == 2 -> alone[id_of[s]] = 0
    :: else
    fi;
    lock_of[s] = 0;
    if
    :: wanted[id_of[s]] == s -> wanted[id_of[s]] = 0
    :: else
    fi
}
inline forget(h) {
#ifdef NOTSAIDAGAIN
    told[h] = false;
#endif
    held[h] = false; fence[h] = 0; grant[h] = 0; stage[h] = false; lost_of[h] = false
}
/* A session has done its task. Its client reads the answer in the same moment: one that reads it later, or never, is one
 * that is slow with its next step, or has lost its connection a moment before. */
inline finish(s, what) {
    unlock(s);
    if
    :: gone[s]
    :: !gone[s] && what == dead -> /* worker_lose_all: a new life */
        forget(2 * ((s - 1) / 2)); forget(2 * ((s - 1) / 2) + 1);
        id[(s - 1) / 2] = id[(s - 1) / 2] + 2;
        alive[id[(s - 1) / 2]] = true; unsure[(s - 1) / 2] = false
    :: !gone[s] && what == good && task[s] == claim -> /* take_claimed */
        item = 2 * ((s - 1) / 2);
        item = (held[item] -> item + 1 : item);
#ifdef GIVEBACK
        unsure[(s - 1) / 2] = true; /* it asks what it has, and is not told apart from what it does not know of */
#endif
        held[item] = true; fence[item] = fence_of[s]; grant[item] = grant_of[s]; stage[item] = step.is
#ifdef NOTSAIDAGAIN
    :: !gone[s] && what == busy && task[s] != reconcile -> told[item_of[s]] = true
#endif
    :: !gone[s] && what == good && (task[s] == step_turn || task[s] == step_tx) -> stage[item_of[s]] = true; acknowledged = true
    :: !gone[s] && ((what == good && task[s] == done) || what == lost) -> forget(item_of[s])
    :: !gone[s] && task[s] == reconcile && (what == good || what == busy) -> /* reconcile_done, read_lost */
        item = 2 * ((s - 1) / 2);
        unsure[(s - 1) / 2] = what == busy;
        if :: lost_of[item] -> forget(item) :: else fi;
        if :: lost_of[item + 1] -> forget(item + 1) :: else fi
    :: else
    fi;
    item = 0; item_of[s] = 0;
    task[s] = nothing; gone[s] = false; id_of[s] = 0; fence_of[s] = 0; grant_of[s] = 0
}
/* pg_terminate_backend, or a crash. Its client, if it has one, sees the connection break. */
inline kill(s) {
    if
    :: task[s] != nothing ->
        undo_all(s);
        unlock(s);
        task[s] = nothing; killed[s] = true;
        fence_of[s] = 0; grant_of[s] = 0; id_of[s] = 0; item_of[s] = 0;
        if
        :: !gone[s] -> broken[(s - 1) / 2] = true
        :: else
        fi;
        gone[s] = false
    :: else
    fi
}
/* lock_turn, or the same in claim: both statements, because what the second looks at is changed under the lock only. A
 * lock's queue is first come, first served. */
inline lock_turn(s) {
    d_step {
        alone[id_of[s]] == 0 && wanted[id_of[s]] == 0 ->
        if
        :: alive[id_of[s]] -> shared[id_of[s]]++; lock_of[s] = 1
        :: else -> undo_all(s); finish(s, dead)
        fi
    };
    if
    :: task[s] == nothing -> goto idle
    :: else
    fi
}
/* A worker that stops in the middle of its batch: no beat, and the session keeps what it holds. */
inline may_freeze(s) {
    if
    :: atomic { s < 3 && freezes > 0 && !gone[s] && !ended.is -> freezes--; frozen[(s - 1) / 2] = true; silent[id_of[s]] = true };
        false
    :: true
    fi
}

#define MATCHES(s) (lease_fence == fence_of[s] && (WORKER_FITS(s)))
#ifdef FENCEONLY
#define WORKER_FITS(s) true
#else
#define WORKER_FITS(s) lease_worker == id_of[s]
#endif

#ifdef NOUNIQUE
#define WRITE_STEP(s) step_commits = step_commits + step.is; PUT(step, s)
#else
#define WRITE_STEP(s) if :: !step.is -> PUT(step, s) :: else fi
#endif
#ifdef ASYNCSTEP
#define COMMIT_STEP(s) keep_all(s); if :: task[s] == done -> to_disk() :: else fi; finish(s, good)
#else
#define COMMIT_STEP(s) keep_all(s); to_disk(); finish(s, good)
#endif

proctype session(byte me) {
    byte k, hand;
    bool mine;

idle:
end:
    task[me] != nothing || killed[me];
    {
        mine = false;
        if
        :: task[me] == claim ->
            lock_turn(me);
            atomic { /* claim: next, fit, taken, leased are one statement */
                if
                :: ready.is && ready.by == 0 ->
                    assert(!lease.is);
                    DROP(ready, me); PUT(lease, me);
                    fence_seq++; grants++;
                    lease_fence = fence_seq; lease_worker = id_of[me]; lease_grant = grants;
                    mine = true
                :: else
                fi
            };
            d_step { /* COMMIT, asynchronous */
                if
                :: mine -> fence_of[me] = lease_fence; grant_of[me] = lease_grant; keep_all(me); finish(me, good)
                :: else -> undo_all(me); finish(me, none)
                fi
            }
        :: task[me] == step_turn || task[me] == done ->
            lock_turn(me);
            may_freeze(me);
            d_step { /* commit: `mine`, or `held`; for update skip locked */
                if
#ifdef NOFENCE
                :: mine = true
#else
                :: lease.is && lease.by == 0 && MATCHES(me) ->
                    mine = true;
#ifndef PLAINFENCE
                    HOLD(lease, me)
#endif
                :: lease.is && lease.by != 0 && MATCHES(me) -> undo_all(me); finish(me, busy) /* its answer */
                :: else -> undo_all(me); finish(me, lost)
#endif
                fi
            };
            if
            :: !mine -> goto idle
            :: else
            fi;
            may_freeze(me);
            d_step { /* commit: the step, if its position is not taken, or the end; COMMIT */
                if
                :: task[me] == step_turn && step.by == 0 -> WRITE_STEP(me)
                :: task[me] == done && lease.by == me -> DROP(lease, me); PUT(ended, me)
                :: else
                fi;
                assert(lease.is && lease_grant == grant_of[me] && !ended.is);
                COMMIT_STEP(me)
            }
        :: task[me] == step_tx ->
            /* commit_step_tx: waits for the lease's row, and looks at it again; commit_ops: the same without waiting.
             * Neither is in a turn. */
            atomic {
                !lease.is || !MATCHES(me) || lease.by == 0 ->
                if
#ifdef NOFENCE
                :: mine = true
#else
                :: lease.is && MATCHES(me) ->
                    mine = true;
#ifndef PLAINFENCE
                    HOLD(lease, me)
#endif
                :: else
#endif
                fi
            };
            if
            :: d_step { mine && (step.is || step.by == 0) -> /* commit_step_tx: insert … on conflict do nothing; COMMIT */
                    WRITE_STEP(me);
                    assert(lease.is && lease_grant == grant_of[me] && !ended.is);
                    COMMIT_STEP(me)
                }
            :: d_step { !mine -> undo_all(me); finish(me, lost) }
            fi
        :: task[me] == reconcile ->
            d_step { alone[id_of[me]] == 0 && wanted[id_of[me]] == 0 -> /* reconcile: pg_terminate_backend; the lock, alone */
#ifndef NOTERMINATE
                kill(OTHER(me));
#endif
                wanted[id_of[me]] = me
            };
            d_step { shared[id_of[me]] == 0 -> /* … has it; lock_turn */
                wanted[id_of[me]] = 0; alone[id_of[me]] = me; lock_of[me] = 2;
                if
                :: alive[id_of[me]]
                :: else -> undo_all(me); finish(me, dead)
                fi
            };
            if
            :: task[me] == nothing -> goto idle
            :: else
            fi;
            atomic { /* reconcile: the loop; for update skip locked, then delete, then make_ready */
                hand = ((me - 1) / 2) * 2;
                if
#ifdef GIVEBACK
                :: lease.is && lease_worker == id_of[me] ->
#else
                :: lease.is && lease_worker == id_of[me] &&
                   !(held[hand] && fence[hand] == lease_fence) && !(held[hand + 1] && fence[hand + 1] == lease_fence) ->
#endif
                    if
                    :: lease.by == 0 -> DROP(lease, me); PUT(ready, me)
#ifdef GIVEBACK
                        ; fence_seq--; grants-- /* so that it comes round to where it was */
#endif
                    :: else -> skip; /* somebody holds it */
#ifndef FORGETHELD
                        mine = true
#endif
                    fi
                :: else
                fi;
                hand = 0
            };
            d_step { /* reconcile: lost_leases; COMMIT */
                hand = ((me - 1) / 2) * 2;
                k = 0;
                do
                :: k < 2 ->
                    lost_of[hand + k] = held[hand + k] && !(lease.is && lease.by != me && lease_worker == id_of[me] && lease_fence == fence[hand + k]);
                    k++
                :: else -> break
                od;
                k = 0; hand = 0;
                keep_all(me); to_disk();
                if
                :: mine -> finish(me, busy)
                :: else -> finish(me, good)
                fi
            }
        fi
    } unless { killed[me] };
    d_step { killed[me] = false; mine = false; k = 0; hand = 0 };
    goto idle
}

#define CAN_ASK(p) (!broken[p] && task[line[p]] == nothing && !killed[line[p]])
#if SLOTS == 2
#define HAS_ROOM(p) (!held[2 * p] || !held[2 * p + 1])
#else
#define HAS_ROOM(p) (!held[2 * p])
#endif
#ifdef NORECONCILE
#define MAY_CLAIM(p) true
#define RECONCILES(p) false
#else
#define MAY_CLAIM(p) !unsure[p]
#define RECONCILES(p) unsure[p]
#endif

inline ask(p, what) {
    task[line[p]] = what; id_of[line[p]] = id[p]
}
inline ask_commit(p, h, what) {
    ask(p, what); item_of[line[p]] = h; fence_of[line[p]] = fence[h]; grant_of[line[p]] = grant[h]
}

/* A worker program: what it says next. It may be at any point when the world changes. To keep the states few, only the
 * first one has bad luck. */
proctype program(byte p) {
end:
    do
    :: d_step { broken[p] -> /* on_line_broken, and a new connection */
            broken[p] = false; frozen[p] = false; unsure[p] = true;
            gone[line[p]] = task[line[p]] != nothing;
            line[p] = OTHER(line[p])
        }
    :: d_step { p == 0 && losses > 0 && task[line[p]] != nothing && !frozen[p] && !broken[p] && !ended.is ->
            losses--; broken[p] = true
        }
    :: d_step { p == 0 && deaths > 0 && !ended.is && !frozen[p] -> /* kill -9; what was sent is still done */
            deaths--; frozen[p] = true; silent[id[p]] = true; gone[line[p]] = task[line[p]] != nothing
        };
        break
    :: d_step { CAN_ASK(p) && RECONCILES(p) -> ask(p, reconcile) } /* reconcile_send */
    :: d_step { CAN_ASK(p) && MAY_CLAIM(p) && ready.is && ready.by == 0 && HAS_ROOM(p) -> ask(p, claim) }
    :: d_step { CAN_ASK(p) && SAYS(2 * p) && !stage[2 * p] -> ask_commit(p, 2 * p, step_turn) }
    :: d_step { CAN_ASK(p) && SAYS(2 * p) && !stage[2 * p] && p == 0 -> ask_commit(p, 2 * p, step_tx) }
    :: d_step { CAN_ASK(p) && SAYS(2 * p) && stage[2 * p] -> ask_commit(p, 2 * p, done) }
    :: d_step { CAN_ASK(p) && SAYS(2 * p + 1) && !stage[2 * p + 1] -> ask_commit(p, 2 * p + 1, step_turn) }
    :: d_step { CAN_ASK(p) && SAYS(2 * p + 1) && stage[2 * p + 1] -> ask_commit(p, 2 * p + 1, done) }
    od
}

inline bury_end() {
    if :: alone[who] == REAPER -> alone[who] = 0 :: else fi;
    if :: wanted[who] == REAPER -> wanted[who] = 0 :: else fi;
    row_of[who] = 0; who = 0; reaping = false
}
#define FIRST_SILENT (alive[1] && silent[1] -> 1 : (alive[2] && silent[2] -> 2 : (alive[3] && silent[3] -> 3 : (alive[4] && silent[4] -> 4 : 0))))
#define FIRST_LEFT (left[1] -> 1 : (left[2] -> 2 : (left[3] -> 3 : (left[4] -> 4 : 0))))

/* reap and bury, end_sessions where they run into lock_timeout. */
proctype reaper() {
    byte who;
    bool again;

idle:
end:
    do
    :: atomic { FIRST_SILENT != 0 -> who = FIRST_SILENT; reaping = true; again = false }; break /* reap */
    :: atomic { FIRST_SILENT == 0 && FIRST_LEFT != 0 -> who = FIRST_LEFT; reaping = true; again = true }; break
    od;
    {
#ifndef PLAINREAP
        atomic { alone[who] == 0 && wanted[who] == 0 -> wanted[who] = REAPER };
        if
        :: atomic { shared[who] == 0 -> wanted[who] = 0; alone[who] = REAPER }
#ifndef NOENDSESSIONS
        :: atomic { shared[who] > 0 -> /* 55P03: rolled back; end_sessions */
                d_step { bury_end() };
#ifndef ONLYAGAIN
                d_step {
                    if :: alive[id_of[1]] && silent[id_of[1]] -> kill(1) :: else fi;
                    if :: alive[id_of[2]] && silent[id_of[2]] -> kill(2) :: else fi;
                    if :: alive[id_of[3]] && silent[id_of[3]] -> kill(3) :: else fi;
                    if :: alive[id_of[4]] && silent[id_of[4]] -> kill(4) :: else fi
                }
#endif
            };
            goto idle
#endif
        fi;
#endif
#ifndef JOINREAP
        if
        :: again
        :: atomic { !again && alive[who] && silent[who] -> row_of[who] = REAPER } /* reap: looked at again, for update */
        :: d_step { !again && !(alive[who] && silent[who]) -> bury_end() }; goto idle
        fi;
#endif
        atomic { /* bury: alive = false */
            assert(again || silent[who]);
            row_of[who] = REAPER
        };
        atomic { /* bury: the loop, for update skip locked; charge_crash: make_ready */
            if
            :: lease.is && lease_worker == who && lease.by == 0 -> DROP(lease, REAPER); PUT(ready, REAPER)
            :: else
            fi
        };
        d_step { /* bury: leases_left; COMMIT */
#ifdef FORGETLEFT
            left[who] = false;
#else
            left[who] = lease.is && lease_worker == who && lease.by != REAPER;
#endif
            alive[who] = false; silent[who] = false;
            keep_all(REAPER); to_disk(); bury_end()
        }
    } unless { reaper_killed };
    d_step { reaper_killed = false; who = 0; again = false };
    goto idle
}

/* cancel_run in a user's own transaction: take_out, end_run, and then what the user likes. */
proctype canceller() {
    {
        skip;
again:
        if
        :: atomic { ready.is && ready.by == 0 -> DROP(ready, CANCELLER); PUT(ended, CANCELLER) }; goto taken
        :: !ready.is
        fi;
        if
        :: atomic { lease.is && lease.by == 0 -> DROP(lease, CANCELLER); PUT(ended, CANCELLER) }; goto taken
        :: !lease.is
        fi;
        if
        :: ended.is -> goto over
        :: !ended.is -> goto again
        fi;
taken:
        if
        :: d_step { true -> keep_all(CANCELLER); to_disk() } /* COMMIT */
        :: d_step { true -> undo_all(CANCELLER) } /* ROLLBACK */
        fi
    } unless { canceller_killed };
over:
    skip
}

proctype world() {
end:
    do
    :: d_step { silences > 0 && alive[1] && !silent[1] && !ended.is -> silences--; silent[1] = true }
    :: d_step { alive[id[0]] && silent[id[0]] && !frozen[0] && row_of[id[0]] == 0 && !ended.is -> silent[id[0]] = false } /* beat */
    :: atomic { crashes > 0 && !ended.is -> /* PostgreSQL dies; a claim that was not flushed is there, or is not */
            d_step {
                crashes--;
                kill(1); kill(2); kill(3); kill(4);
                undo_all(REAPER); undo_all(CANCELLER);
                if
                :: reaping -> reaper_killed = true; reaping = false; alone[1] = 0; alone[2] = 0; alone[3] = 0; alone[4] = 0;
                    wanted[1] = 0; wanted[2] = 0; wanted[3] = 0; wanted[4] = 0;
                    row_of[1] = 0; row_of[2] = 0; row_of[3] = 0; row_of[4] = 0
                :: else
                fi;
                canceller_killed = true;
                broken[0] = true; broken[1] = true
            };
            if
            :: true
            :: d_step { true ->
                    ready.is = disk_ready; lease.is = disk_lease; step.is = disk_step; ended.is = disk_ended;
                    lease_fence = disk_fence; lease_worker = disk_worker; lease_grant = disk_grant; fence_seq = disk_seq;
                    assert(!acknowledged || step.is)
                }
            fi
        }
    od
}

/* When nothing can move any more, the run has ended. With BEATS something always can: a worker with other jobs. */
proctype watch() {
#ifdef BEATS
end:
    do
    :: !ended.is
    od
#else
    timeout -> assert(ended.is)
#endif
}

#ifdef LIVE
ltl ends { <> ended.is }
#endif

init {
    atomic {
        ready.is = true; disk_ready = true;
        id[0] = 1; id[1] = 2; line[0] = 1; line[1] = 3; alive[1] = true; alive[2] = WORKERS > 1;
        byte s = 1;
        do
        :: s < SESSIONS -> task[s] = nothing; if :: s <= 2 * WORKERS -> run session(s) :: else fi; s++
        :: else -> break
        od;
        task[0] = nothing; s = 0;
        run program(0); if :: WORKERS > 1 -> run program(1) :: else fi; run reaper(); run world(); run watch();
        if
        :: CANCELS > 0 -> run canceller()
        :: else
        fi
    }
}
