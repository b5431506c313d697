/* Every order in which sessions can go through the protocol's functions, stopped at the points
 * inside them. scenes.c says which meet; session.c steps them; explore.c enumerates the orders. */
#ifndef TESTS_INTERLEAVINGS_H
#define TESTS_INTERLEAVINGS_H

#include "support.h"

#define SESSIONS_MAX 3
#define OPS_MAX 32
#define KINDS 12

/** What a session does in one transaction. */
struct op {
    const char *name;
    const char *sql;
    const char *errors; /**< SQLSTATEs that the contract names for it here; NULL: none */
    const char *begin;  /**< NULL: "begin" */
    const char *end;    /**< NULL: "commit" */
};

/** Operations that meet over the same rows. All pairs of `ops`, or each of `ops` with each of
 * `against`; or, if `together` is set, all of `ops` at once. */
struct scene {
    const char *name;
    const char *setup; /**< SQL; then its rows are kept, and put back before each schedule */
    const char
        *points; /**< the points at which sessions stop, as a regular expression; NULL: all */
    bool together;
    bool repeated; /**< each of `ops` with itself as well, as after a lost answer */
    const struct op *ops[OPS_MAX];
    const struct op *against[OPS_MAX];
};

/** One of the operations that the protocol is made of, and what of a scene's is one. */
struct kind {
    const char *name;
    const struct op *ops[OPS_MAX];
};

extern const struct kind kinds[KINDS];
extern const struct scene scenes[];
extern const size_t scenes_count;

/** The functions with their points in the database, and world.sql. The points have numbers. */
void points_load(PGconn *conn);
int points_count(void);
const char *point_name(int point);
int point_find(const char *name);

enum session_state {
    SESSION_NEW,     /**< has not begun */
    SESSION_RUNNING, /**< just now */
    SESSION_STOPPED, /**< at a point */
    SESSION_BLOCKED, /**< by another session's lock */
    SESSION_CALLED,  /**< its calls have returned; its transaction is open */
    SESSION_DONE     /**< its transaction has ended */
};

struct session {
    PGconn *conn;
    const struct op *op;
    enum session_state state;
    bool ending; /**< commit or rollback was sent */
    int stops;   /**< at points, ever */
    int point;   /**< at which it was stopped last; -1: none yet */
    char answer[512];
    char sqlstate[6]; /**< of its first error; "" */
    char message[256];
};

/** Opens the sessions and the connection that holds their gates. */
void sessions_open(const char *url, bool *reached);
PGconn *sessions_control(void);
struct session *session_at(int slot);
void sessions_begin(const struct scene *scene, const struct op *const *ops, int count);

/** Whether it can go on. */
bool session_can_go(const struct session *session);

/** Lets one go on until its next stop, and whoever it blocked until theirs. `ret_blocked` is set if
 * it was blocked. */
void session_go(int slot, bool *ret_blocked);

/** Waits for whoever is blocked although nobody can go on: a deadlock, which PostgreSQL ends. */
void sessions_wait_for_deadlock(void);

struct totals {
    int groups, schedules, blocked, diverged, violations;
};

/** All orders of the operations of a group. `loud`: prints each. */
void explore(const struct scene *scene, const struct op *const *ops, int count, bool loud,
             struct totals *totals);

#endif
