/* Named points at which a test lets a process die, stand still, or miss an answer. They are there
 * with -Dfault_injection=true; an ordinary build keeps nothing of them, not even their names.
 *
 * DURABLE_FAILPOINT=NAME:HIT:ACTION, as turn.sent:2:kill; several are separated by commas. A point
 * that does something says so in a line on standard error; with `tally` as one of them, the process
 * says how often it passed each point when it ends. `PROGRAM --failpoints` lists all that the
 * program has, with the actions of each: the linker gathers them, so none can be forgotten.
 *
 *   kill      SIGKILL, as if somebody had pulled the plug
 *   stop      SIGSTOP: the process stands still until somebody sends SIGCONT
 *   sleep=MS  this thread does
 *   cut       the socket at hand is shut down, in both directions
 *   drop      what was sent arrives, its answer is lost, and the connection with it: nobody knows
 *   error     the answer says DJ_UNAVAILABLE on a connection that is well
 *   fail      an allocation finds no memory, a query cannot be sent, a thread cannot be made */
#ifndef COMMON_FAILPOINT_H
#define COMMON_FAILPOINT_H

enum failpoint_action { FAILPOINT_NONE, FAILPOINT_CUT, FAILPOINT_DROP, FAILPOINT_ERROR };

#ifdef DURABLE_FAULT_INJECTION
#include <stdatomic.h>

struct failpoint {
    const char *name, *actions;
    atomic_int hits;
};

/** Counts a hit; the part of DURABLE_FAILPOINT that is due with it, or NULL. */
const char *failpoint_due(struct failpoint *point);
/** kill, stop and sleep are done here; the others are answered, for the place to do. */
enum failpoint_action failpoint_act(const struct failpoint *point, const char *due);
void failpoint_cut(enum failpoint_action action, int socket); /* drop: only to read is shut down */
/** With --failpoints as the only argument: prints the list, and ends the process. */
void failpoints_list(int argc, char **argv);

/* `before` is done first, and only if something is due. */
#define FAILPOINT_REACH(name_, actions_, before)                                                   \
    ({                                                                                             \
        static struct failpoint point_ = { .name = (name_), .actions = (actions_) };               \
        static struct failpoint *listed_ __attribute__((section("failpoints"), used)) = &point_;   \
        const char *due_ = failpoint_due(&point_);                                                 \
        if (due_ != NULL) {                                                                        \
            before;                                                                                \
        }                                                                                          \
        due_ == NULL ? FAILPOINT_NONE : failpoint_act(&point_, due_);                              \
    })
#define FAILPOINTS_LIST(argc, argv) failpoints_list(argc, argv)
/* Where no connection is at hand. */
#define FAILPOINT(name) ((void)FAILPOINT_REACH(name, "kill stop sleep", (void)0))
/* Where something was or will be said on this socket. */
#define FAILPOINT_SOCKET(name, socket)                                                             \
    do {                                                                                           \
        int socket_ = -1;                                                                          \
        enum failpoint_action action_ =                                                            \
            FAILPOINT_REACH(name, "kill stop sleep cut drop", socket_ = (socket));                 \
        if (action_ != FAILPOINT_NONE) {                                                           \
            failpoint_cut(action_, socket_);                                                       \
        }                                                                                          \
    } while (0)
/* Is this answer, which has come, to be lost? */
#define FAILPOINT_DROPS(name)                                                                      \
    (FAILPOINT_REACH(name, "kill stop sleep drop", (void)0) != FAILPOINT_NONE)
/* Is this one to fail? */
#define FAILPOINT_FAILS(name) (FAILPOINT_REACH(name, "fail", (void)0) != FAILPOINT_NONE)
#else
#define FAILPOINTS_LIST(argc, argv) ((void)(argc))
#define FAILPOINT(name) ((void)0)
#define FAILPOINT_SOCKET(name, socket) ((void)0)
#define FAILPOINT_DROPS(name) false
#define FAILPOINT_FAILS(name) false
#endif

#endif
