/* Parents and children: a parent that starts a child under its lease, the child that starts one in its turn, and a cancel of
 * the parent that may come at any instant.
 *
 * What must hold: when nothing moves any more, no run of a cancelled parent is alive.
 *
 * The starter is a session of either kind: run_op and then commit_step_tx, in one transaction; or commit_ops, which has the
 * lease's row before it starts anything. A child that was not committed is not seen. */
#include "rows.inc"

#define CANCELLER 4
#define PARENT 0
#define CHILD 1
#define GRANDCHILD 2

row run_[3], lease[3], ended[3]; /* run: its row is there; ended: its status is set */
bool cancelled[3];

inline keep_all(tx) {
    KEEP(run_[0], tx); KEEP(run_[1], tx); KEEP(run_[2], tx);
    KEEP(lease[0], tx); KEEP(lease[1], tx); KEEP(lease[2], tx);
    KEEP(ended[0], tx); KEEP(ended[1], tx); KEEP(ended[2], tx)
}
inline undo_all(tx) {
    UNDO(run_[0], tx); UNDO(run_[1], tx); UNDO(run_[2], tx);
    UNDO(lease[0], tx); UNDO(lease[1], tx); UNDO(lease[2], tx);
    UNDO(ended[0], tx); UNDO(ended[1], tx); UNDO(ended[2], tx)
}

/* A handler of `me`, which is also its session's transaction, plus one. */
proctype starter(byte me) {
    bool mine;
end:
    lease[me].is;
    if
    :: /* run_op: start_child; then commit_step_tx */
        d_step { PUT(run_[me + 1], me + 1); PUT(lease[me + 1], me + 1) };
        d_step { !lease[me].is || lease[me].by == 0 ->
            mine = lease[me].is;
#ifndef NOPARENTLOCK
            if
            :: mine -> HOLD(lease[me], me + 1)
            :: else
            fi
#endif
        };
        d_step {
            if
            :: mine -> keep_all(me + 1)
            :: else -> undo_all(me + 1) /* DJ005 */
            fi
        }
    :: /* commit_ops: the lease; start_child, the lease goes (the wait is in its place here) */
        atomic {
            if
            :: lease[me].is && lease[me].by == 0 -> HOLD(lease[me], me + 1); mine = true
            :: else
            fi
        };
        if
        :: mine -> d_step { PUT(run_[me + 1], me + 1); PUT(lease[me + 1], me + 1) }; d_step { keep_all(me + 1) }
        :: else
        fi
    fi;
    mine = false;
    /* It may also end by itself. */
    if
    :: d_step { lease[me].is && lease[me].by == 0 && me != PARENT -> lease[me].is = false; ended[me].is = true } /* commit: done */
    :: true
    fi
}

/* take_out and end_run, one run after the other. */
inline take_out(r) {
    if
    :: d_step { lease[r].is && lease[r].by == 0 -> DROP(lease[r], CANCELLER); PUT(ended[r], CANCELLER); taken = true }
    :: d_step { !lease[r].is -> taken = false } /* it has ended */
    fi
}

proctype canceller() {
    bool taken, has_child;
#ifdef LISTFIRST
    has_child = run_[CHILD].is;
#endif
#ifdef OLDSNAPSHOT
    has_child = run_[CHILD].is; /* what REPEATABLE READ would show */
#endif
    take_out(PARENT);
    if
    :: taken ->
#ifndef LISTFIRST
#ifndef OLDSNAPSHOT
        has_child = run_[CHILD].is; /* end_run: children, in a statement of its own */
#endif
#endif
        if
        :: has_child ->
            take_out(CHILD);
            if
            :: taken ->
                has_child = run_[GRANDCHILD].is;
                if
                :: has_child -> take_out(GRANDCHILD)
                :: else
                fi
            :: else
            fi
        :: else
        fi
    :: else
    fi;
    d_step {
        cancelled[0] = lease[0].by == CANCELLER; cancelled[1] = lease[1].by == CANCELLER;
        keep_all(CANCELLER)
    }
}

#define ALIVE(r) (run_[r].is && !ended[r].is)
#define ALL_ENDED (!(cancelled[PARENT] && ALIVE(CHILD)) && !(cancelled[CHILD] && ALIVE(GRANDCHILD)))
proctype watch() {
    timeout -> assert(ALL_ENDED)
}

#ifdef LIVE
ltl ends { <> [] ALL_ENDED }
#endif

init {
    atomic {
        run_[PARENT].is = true; lease[PARENT].is = true;
        run starter(PARENT); run starter(CHILD); run canceller();
#ifndef LIVE
        run watch()
#endif
    }
}
