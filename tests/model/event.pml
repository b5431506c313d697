/* Events and waits: senders, runs that wait again and again, two matchers, a timer, a cancel that may roll back.
 *
 * What must hold: no wake-up is lost (when nothing can move any more, no run waits for an event that it could take); a run
 * takes an event once, and of the runs that are younger than an event one at most; a wait ends once; an old timer ends
 * no later wait. With LIVE: no run waits for ever for an event that it could take, whoever goes round in circles, if each
 * process that can go on does so some time; with OPEN not even while a user's transaction holds another run for ever.
 *
 * A matcher looks at one inbox row and one wait at a time (`most` = 1), so that what lies beyond the limit is looked at as
 * well. Which of several it takes is left open: that covers every order. Event X is the first of every wait's names;
 * Y is the other one of a wait_any. The end of a child is an event too, of which only the last counts: what the retries of a
 * parent and its child do to one another is in tests/interleavings. */
#include "rows.inc"

#ifndef EVENTS
#define EVENTS 1
#endif
#ifndef RUNS
#define RUNS 2
#endif
#ifndef WAITS
#define WAITS 1
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef Y_EVENTS
#define Y_EVENTS 0 /* so many of the events have the name Y */
#endif

#ifndef OPEN
#define OPEN 0
#endif
#ifndef MOST
#define MOST 1 /* 2: a matcher that looks at more than there is; for one run only */
#endif

/* With LIVE the inbox has its order: whose turn comes is not luck. FIFO alone: the same, looked at for safety. */
#ifdef LIVE
#define FIFO
#endif

#define TIMER 3 /* matchers are transactions 1 and 2 */
#define CANCELLER 4
#define NOBODY 9
#define ANYBODY 99 /* who has changed nothing */

byte order_seq;
row event[EVENTS], event_inbox[EVENTS], received[EVENTS];
byte event_seq[EVENTS];
row wait[RUNS], ready[RUNS], timer[RUNS];
byte run_seq[RUNS], nth[RUNS], timer_of[RUNS]; /* the wait's number, and whose the timer is */
row wait_inbox[RUNS * WAITS];
row delivery[EVENTS * RUNS];
byte matching; /* the matchers' lock */
byte cursor;
#ifdef FIFO
byte inbox[EVENTS + RUNS * WAITS], inboxed; /* an event's row, or EVENTS + a wait's */
#endif

byte younger[EVENTS], ends[RUNS * WAITS];

#ifdef FIFO
#define BEHIND(x) inbox[inboxed] = x; inboxed++
#else
#define BEHIND(x) skip
#endif
/* With the number that it had it is the first again. */
inline back(x, behind) {
#ifdef FIFO
    if
#ifndef OLDNUMBER
    :: behind -> BEHIND(x)
#endif
    :: else ->
        n = inboxed;
        do
        :: n > 0 -> inbox[n] = inbox[n - 1]; n--
        :: else -> break
        od;
        inbox[0] = x; inboxed++
    fi
#else
    skip
#endif
}

#define IS_Y(e) (e < Y_EVENTS)
#define FITS(e, r, tx) (SEES(event[e], tx) && \
    ((event_seq[e] < run_seq[r] && !SEES(received[e], tx)) || \
     (event_seq[e] >= run_seq[r] && !SEES(delivery[(e) * RUNS + r], tx))))
/* The candidates' condition, which is a little weaker. */
#define MAY_FIT(e, r, tx) (SEES(wait[r], tx) && (run_seq[r] < event_seq[e] || !SEES(received[e], tx)) && \
    !SEES(delivery[(e) * RUNS + r], tx))

inline keep_all(tx) {
    n = 0;
    do
    :: n < EVENTS -> KEEP(event_inbox[n], tx); KEEP(received[n], tx); n++
    :: else -> break
    od;
    n = 0;
    do
    :: n < RUNS -> KEEP(wait[n], tx); KEEP(ready[n], tx); KEEP(timer[n], tx); n++
    :: else -> break
    od;
    n = 0;
    do
    :: n < RUNS * WAITS -> KEEP(wait_inbox[n], tx); n++
    :: else -> break
    od;
    n = 0;
    do
    :: n < EVENTS * RUNS -> KEEP(delivery[n], tx); n++
    :: else -> break
    od;
    n = 0
}

/* One statement of match_events: received, delivered, remembered, and ready. */
inline give(tx, e, r) {
    assert(!SEES(delivery[(e) * RUNS + r], tx)); /* its primary key */
    PUT(delivery[(e) * RUNS + r], tx); PUT(received[e], tx); PUT(ready[r], tx);
    if
    :: event_seq[e] < run_seq[r] -> younger[e]++; assert(younger[e] <= 1)
    :: else
    fi;
    ends[r * WAITS + nth[r]]++;
    assert(ends[r * WAITS + nth[r]] <= 1)
}

proctype sender(byte e) {
    byte n, r = NOBODY;
    d_step { order_seq++; event_seq[e] = order_seq }; /* send_event: nextval */
#ifdef INLINE
    if
    :: d_step { SEES(wait[0], ANYBODY) -> r = 0 }
    :: d_step { !SEES(wait[0], ANYBODY) }
    fi;
#endif
    d_step { /* send_event: event, event_inbox; COMMIT */
        event[e].is = true;
#ifdef INLINE
        if
        :: r != NOBODY && wait[r].is -> wait[r].is = false; ready[r].is = true; delivery[(e) * RUNS + r].is = true
        :: else
        fi;
#else
        event_inbox[e].is = true; BEHIND(e)
#endif
    }
}

proctype run_(byte r) {
    byte n;
    bool found;
    d_step { order_seq++; run_seq[r] = order_seq }; /* start_run */
    do
    :: nth[r] < WAITS ->
#ifdef INLINE
        if
        :: d_step { FITS(0, r, ANYBODY) -> found = true }
        :: d_step { !FITS(0, r, ANYBODY) }
        fi;
        if :: found -> break :: else fi;
#endif
        d_step { /* begin_wait: wait, event_inbox, timer; COMMIT */
            wait[r].is = true;
#ifndef INLINE
            wait_inbox[r * WAITS + nth[r]].is = true; BEHIND(EVENTS + r * WAITS + nth[r]);
#endif
            if
            :: TIMEOUTS > 0 -> timer[r].is = true; timer_of[r] = nth[r]
            :: else
            fi
        };
end:    d_step { ready[r].is && ready[r].by == 0 -> /* claim */
            ready[r].is = false;
            if /* the row of one wait only: numbers do not come back */
            :: nth[r] < WAITS -> nth[r]++
            :: else
            fi
        }
    :: else -> break
    od
}

#define INBOX(e) (event_inbox[e].is && event_inbox[e].by == 0)
#define WAIT_INBOX(w) (wait_inbox[w].is && wait_inbox[w].by == 0)

/* Takes an event's row out of the inbox, or a wait's. */
inline take_event(e) {
#ifdef CURSOR
    d_step { event[e].is && event_seq[e] > cursor &&
        (!event[1 - (e)].is || event_seq[1 - (e)] <= cursor || event_seq[1 - (e)] > event_seq[e]) ->
        cursor = event_seq[e]; of_event = e
    }
#else
    d_step { INBOX(e) -> DROP(event_inbox[e], me); of_event = e }
#endif
}
inline take_wait(w) {
    d_step { WAIT_INBOX(w) -> DROP(wait_inbox[w], me); of_wait = w }
}
#ifdef FIFO
inline take_first() {
    d_step { inboxed > 0 ->
        w = inbox[0]; inboxed--; n = 0;
        do
        :: n < inboxed -> inbox[n] = inbox[n + 1]; n++
        :: else -> break
        od;
        inbox[n] = 0; n = 0;
        if
        :: w < EVENTS -> of_event = w; DROP(event_inbox[of_event], me)
        :: else -> of_wait = w - EVENTS; DROP(wait_inbox[of_wait], me)
        fi;
        w = NOBODY
    }
}
/* An event has fewer held waits than a matcher looks at: so one that is free is among them. */
#define IN_SIGHT(r) (wait[r].by == 0 || !(MAY_FIT(of_event, 0, me) && wait[0].by == 0) && \
    !(MAY_FIT(of_event, RUNS - 1, me) && wait[RUNS - 1].by == 0))
#else
#define IN_SIGHT(r) true
#endif
inline candidate_of_event(r) {
    atomic { of_event != NOBODY && MAY_FIT(of_event, r, me) && IN_SIGHT(r) -> w = r; which = nth[r] }
}
#define NO_CANDIDATE (of_event != NOBODY && !MAY_FIT(of_event, 0, me) && (RUNS == 1 || !MAY_FIT(of_event, RUNS - 1, me)))

proctype matcher(byte me) {
    byte n, w, which, chosen, of_event, of_wait;
    bool held;
end:
    do
    :: atomic {
#ifndef NOLOCK
            matching == 0 && /* match_events: its lock */
#endif
            (
#ifdef CURSOR
            (event[0].is && event_seq[0] > cursor) || (event[EVENTS - 1].is && event_seq[EVENTS - 1] > cursor) ||
#else
            INBOX(0) || INBOX(EVENTS - 1) ||
#endif
            WAIT_INBOX(0) || WAIT_INBOX(WAITS - 1) || WAIT_INBOX(RUNS * WAITS - WAITS) || WAIT_INBOX(RUNS * WAITS - 1)) ->
            matching = me; w = NOBODY; which = 0; chosen = NOBODY; of_event = NOBODY; of_wait = NOBODY; held = false
        };
        if /* match_events: next, taken; for update skip locked */
#ifdef FIFO
        :: take_first()
#else
        :: take_event(0)
        :: take_event(EVENTS - 1)
        :: take_wait(0)
        :: take_wait(WAITS - 1)
        :: take_wait(RUNS * WAITS - WAITS)
        :: take_wait(RUNS * WAITS - 1)
#endif
#ifdef NOLOCK
        :: else /* the other one has it */
#endif
        fi;
        if /* match_events: the candidates, one of them */
        :: candidate_of_event(0)
        :: candidate_of_event(RUNS - 1)
        :: NO_CANDIDATE
        :: of_event == NOBODY && of_wait == NOBODY
        :: d_step { of_wait != NOBODY ->
                if
                :: SEES(wait[of_wait / WAITS], me) && nth[of_wait / WAITS] == of_wait % WAITS -> w = of_wait / WAITS; which = nth[w]
                :: else
                fi
            }
        fi;
        if
        :: w != NOBODY ->
            d_step { /* event_for: the oldest that fits */
                n = 0;
                do
                :: n < EVENTS ->
                    if
                    :: FITS(n, w, me) && (chosen == NOBODY || event_seq[n] < event_seq[chosen]) -> chosen = n
                    :: else
                    fi;
                    n++
                :: else -> break
                od;
                n = 0
            };
            d_step { /* match_events: delete from wait, for update skip locked; given back if it is held */
                if
                :: chosen == NOBODY
                :: chosen != NOBODY && wait[w].is && nth[w] == which && wait[w].by == 0 -> DROP(wait[w], me)
                :: else ->
                    chosen = NOBODY;
                    if
                    :: wait[w].is && nth[w] == which -> held = true
                    :: else
                    fi
                fi
            };
            if
            :: chosen != NOBODY -> d_step { give(me, chosen, w) }
            :: else
            fi
        :: else
        fi;
        d_step { /* match_events: the timer, what goes back into the inbox; COMMIT */
            if
            :: chosen != NOBODY && timer[w].is -> DROP(timer[w], me)
            :: else
            fi;
#ifndef NOPUTBACK
            if
            :: held && (of_wait != NOBODY || MOST > 1) -> /* else the event goes back, and finds it itself */
                PUT(wait_inbox[w * WAITS + which], me); back(EVENTS + w * WAITS + which, true)
            :: else
            fi;
#endif
            if
            :: MOST > 1
#ifdef METONLY
            :: MOST == 1 && of_event != NOBODY && w != NOBODY && chosen != NOBODY &&
#else
            :: MOST == 1 && of_event != NOBODY && w != NOBODY &&
#endif
#ifdef FIRSTNAMEONLY
               !IS_Y(of_event) &&
#endif
               (SEES(wait[0], me) || SEES(wait[RUNS - 1], me)) -> PUT(event_inbox[of_event], me); back(of_event, held)
            :: else
            fi;
            keep_all(me);
            matching = 0; w = 0; which = 0; chosen = 0; of_event = 0; of_wait = 0; held = false
        }
    od
}

/* promote_due's second half, of waits. That of a run's own time, which moves, is in tests/interleavings. */
proctype promoter() {
    byte n, r, which, budget = TIMEOUTS;
end:
    do
    :: budget > 0 ->
end_no_timer:
        if /* promote_due: its cursor */
        :: atomic { timer[0].is && timer[0].by == 0 -> r = 0; which = timer_of[0] }
        :: atomic { timer[RUNS - 1].is && timer[RUNS - 1].by == 0 -> r = RUNS - 1; which = timer_of[r] }
        fi;
        budget--;
        if /* is_free */
        :: d_step { wait[r].is && wait[r].by == 0 -> HOLD(wait[r], TIMER) }
        :: !wait[r].is
        :: atomic { wait[r].is && wait[r].by != 0 && wait[r].by != TIMER -> r = 0; which = 0 }; goto end
        fi;
        d_step { /* time_out_wait: delete from wait */
            !wait[r].is || wait[r].by == 0 || wait[r].by == TIMER ->
            if
#ifdef NOWAITID
            :: wait[r].is ->
#else
            :: wait[r].is && nth[r] == which ->
#endif
                assert(nth[r] == which);
                DROP(wait[r], TIMER); PUT(ready[r], TIMER);
                ends[r * WAITS + nth[r]]++;
                assert(ends[r * WAITS + nth[r]] <= 1)
            :: else
            fi
        };
        d_step { /* promote_due: delete from timer; COMMIT */
            !timer[r].is || timer[r].by == 0 ->
            if
            :: timer[r].is && timer_of[r] == which -> DROP(timer[r], TIMER)
            :: else
            fi;
            keep_all(TIMER); r = 0; which = 0
        }
    :: else -> break
    od
}

/* cancel_run of the first run, while it waits, in a user's own transaction. */
proctype canceller() {
    byte n;
    if
    :: d_step { wait[0].is && wait[0].by == 0 -> DROP(wait[0], CANCELLER) } /* take_out */
    :: nth[0] >= WAITS -> goto over
    fi;
    if
    :: d_step { true -> if :: timer[0].is && timer[0].by == 0 -> DROP(timer[0], CANCELLER) :: else fi; keep_all(CANCELLER) }
    :: d_step { true -> wait[0].by = 0; wait[0].will = false }
    :: OPEN -> /* it stays open for ever */
end_open:
        false
    fi;
over:
    skip
}

#define LOST(e, r) (wait[r].is && (!OPEN || wait[r].by == 0) && FITS(e, r, ANYBODY))
#define NOTHING_LOST (!LOST(0, 0) && !LOST(0, RUNS - 1) && !LOST(EVENTS - 1, 0) && !LOST(EVENTS - 1, RUNS - 1))
proctype watch() {
    timeout -> assert(NOTHING_LOST)
}

#ifdef LIVE
ltl matched { <> [] NOTHING_LOST }
#endif

init {
    atomic {
        byte i = 0;
        do
        :: i < EVENTS -> run sender(i); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < RUNS -> run run_(i); i++
        :: else -> break
        od;
        i = 0;
#ifndef INLINE
        run matcher(1); run matcher(2);
#endif
#ifndef LIVE
        run watch();
#endif
        if :: TIMEOUTS > 0 -> run promoter() :: else fi;
        if :: CANCELS > 0 -> run canceller() :: else fi
    }
}
