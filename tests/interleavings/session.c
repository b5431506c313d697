/* Sessions that are stepped by hand.
 *
 * A step lets a session go on until it stops again: at a point (a notice tells, and a gate of
 * advisory locks holds it), at the end of its calls, at the end of its transaction, or at another
 * session's lock. Only that last one has to be asked for; the others come by themselves. */
#include "interleavings.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct session sessions[SESSIONS_MAX];
static int sessions_count;
static PGconn *control;
static bool *points_reached;

PGconn *sessions_control(void) {
    return control;
}

struct session *session_at(int slot) {
    return &sessions[slot];
}

/* A point's notice is its name. */
static void at_point(void *context, const PGresult *notice) {
    struct session *session = context;
    const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (severity != NULL && strcmp(severity, "NOTICE") == 0) {
        session->state = SESSION_STOPPED;
        session->stops++;
        session->point = point_find(PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY));
        points_reached[session->point] = true;
    }
}

void sessions_open(const char *url, bool *reached) {
    points_reached = reached;
    control = connect_to(url);
    sql(control, "set synchronous_commit = off");
    sql(control, "select durable_internal.plan_by_index()");
    for (int i = 0; i < SESSIONS_MAX; i++) {
        struct session *session = &sessions[i];
        session->conn = connect_to(url);
        sql(session->conn, "set synchronous_commit = off");
        sql(session->conn, "select durable_internal.plan_by_index()");
        sql(session->conn, "set deadlock_timeout = '20ms'");
        sql(session->conn, "set interleave.slot = %d", i);
        (void)PQsetNoticeReceiver(session->conn, at_point, session);
        sql(control, "select pg_advisory_lock(7001, %d)", 2 * i + 1); /* of its first stop */
    }
}

void sessions_begin(const struct scene *scene, const struct op *const *ops, int count) {
    static const char *points[SESSIONS_MAX];
    sessions_count = count;
    for (int i = 0; i < count; i++) {
        struct session *session = &sessions[i];
        const char *wanted = scene->points == NULL ? "" : scene->points;
        if (points[i] == NULL || strcmp(points[i], wanted) != 0) {
            sql(session->conn, "set interleave.points = '%s'", wanted);
            points[i] = wanted;
        }
        session->op = ops[i];
        session->state = SESSION_NEW;
        session->ending = false;
        session->point = -1;
        session->answer[0] = session->sqlstate[0] = session->message[0] = '\0';
    }
}

static void take_result(struct session *session, PGresult *result) {
    if (PQresultStatus(result) == PGRES_TUPLES_OK) {
        if (PQntuples(result) > 0) {
            (void)snprintf(session->answer, sizeof session->answer, "%s",
                           PQgetvalue(result, PQntuples(result) - 1, 0));
        }
    } else if (PQresultStatus(result) != PGRES_COMMAND_OK && session->sqlstate[0] == '\0') {
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        (void)snprintf(session->sqlstate, sizeof session->sqlstate, "%s",
                       state == NULL ? "lost" : state);
        (void)snprintf(session->message, sizeof session->message, "%s",
                       PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
        (void)snprintf(session->answer, sizeof session->answer, "%s", session->sqlstate);
    }
    PQclear(result);
}

/* Takes what has come. */
static void look(struct session *session) {
    assert_int_equal(PQconsumeInput(session->conn), 1);
    while (session->state == SESSION_RUNNING && PQisBusy(session->conn) == 0) {
        PGresult *result = PQgetResult(session->conn);
        if (result == NULL) {
            session->state = session->ending ? SESSION_DONE : SESSION_CALLED;
        } else {
            take_result(session, result);
        }
    }
}

/* Whether one of the other sessions holds what it waits for. */
static bool is_held(const struct session *session) {
    char blockers[128];
    (void)snprintf(blockers, sizeof blockers, "%s",
                   sql_text(control, "select pg_blocking_pids(%d)", PQbackendPID(session->conn)));
    for (const char *at = blockers + 1; *at != '\0' && *at != '}'; at += strcspn(at, ",}")) {
        at += *at == ',';
        for (int i = 0; i < sessions_count; i++) {
            if (&sessions[i] != session && strtol(at, NULL, 10) == PQbackendPID(sessions[i].conn)) {
                return true;
            }
        }
    }
    return false;
}

static void wait_for_stop(struct session *session) {
    for (int tries = 0; tries < 20000; tries++) {
        look(session);
        if (session->state != SESSION_RUNNING) {
            return;
        }
        struct pollfd ready = { .fd = PQsocket(session->conn), .events = POLLIN };
        if (poll(&ready, 1, tries == 0 ? 2 : 1) == 0 && is_held(session)) {
            look(session); /* a stop that came meanwhile counts */
            if (session->state == SESSION_RUNNING) {
                session->state = SESSION_BLOCKED;
            }
            return;
        }
    }
    fail_msg("a session neither stops nor waits for a lock");
}

bool session_can_go(const struct session *session) {
    return session->state == SESSION_NEW || session->state == SESSION_STOPPED ||
           session->state == SESSION_CALLED;
}

static void open_gate(int slot) {
    int now = sessions[slot].stops % 2;
    sql(control, "select pg_advisory_lock(7001, %d), pg_advisory_unlock(7001, %d)",
        2 * slot + 1 - now, 2 * slot + now);
}

void session_go(int slot, bool *ret_blocked) {
    struct session *session = &sessions[slot];
    enum session_state before = session->state;
    char text[4096];
    session->state = SESSION_RUNNING;
    if (before == SESSION_STOPPED) {
        open_gate(slot);
    } else {
        const struct op *op = session->op;
        session->ending = before == SESSION_CALLED;
        (void)snprintf(text, sizeof text, "%s%s%s",
                       session->ending     ? op->end == NULL ? "commit" : op->end
                       : op->begin == NULL ? "begin"
                                           : op->begin,
                       session->ending ? "" : "; ", session->ending ? "" : op->sql);
        assert_int_equal(PQsendQuery(session->conn, text), 1);
    }
    wait_for_stop(session);
    *ret_blocked |= session->state == SESSION_BLOCKED;
    for (int i = 0; i < sessions_count; i++) {
        struct session *other = &sessions[i];
        if (other != session && other->state == SESSION_BLOCKED && !is_held(other)) {
            other->state = SESSION_RUNNING;
            wait_for_stop(other);
        }
    }
}

void sessions_wait_for_deadlock(void) {
    for (int tries = 0; tries < 5000; tries++) {
        for (int i = 0; i < sessions_count; i++) {
            struct session *session = &sessions[i];
            if (session->state == SESSION_BLOCKED && !is_held(session)) {
                session->state = SESSION_RUNNING;
                wait_for_stop(session);
                return;
            }
        }
        sleep_ms(1);
    }
    fail_msg("nobody can go on, and PostgreSQL finds no deadlock");
}
