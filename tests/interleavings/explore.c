/* All orders of a group of operations, by running each from the beginning: at each stop the lowest
 * session that can go on goes on, but for the first stops, which do as the last order did; then the
 * last stop that had another choice takes that. */
#include "interleavings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 64
#define OUTCOMES_MAX 256
#define SHOWN_MAX 2 /* violations of a group in full; the rest is counted */

struct order {
    int length;
    unsigned char choice[STEPS_MAX], could[STEPS_MAX]; /* could: a bit for each session */
    int point[STEPS_MAX];                              /* where the step led; below 0: a state */
};

struct outcome {
    char *text;
    char *order; /* the first that led to it */
    int times;
    bool serial; /* an order without interleaving has it */
};

struct group {
    const struct scene *scene;
    const struct op *const *ops;
    int count;
    bool loud;
    struct totals *totals;
    int shown;
    struct outcome outcomes[OUTCOMES_MAX];
    int outcomes_count;
};

static void print_name(FILE *out, const struct group *group) {
    (void)fprintf(out, "%s", group->scene->name);
    for (int i = 0; i < group->count; i++) {
        (void)fprintf(out, "%s%s", i == 0 ? ": " : " × ", group->ops[i]->name);
    }
}

/* A →take_out.lease  B →called →ended  A → … */
static char *print_order(const struct order *order) {
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    for (int i = 0; i < order->length; i++) {
        static const char *const states[] = { "new",     "running", "stopped",
                                              "blocked", "called",  "ended" };
        if (i == 0 || order->choice[i] != order->choice[i - 1]) {
            (void)fprintf(stream, "%s%c", i == 0 ? "" : "  ", 'A' + order->choice[i]);
        }
        (void)fprintf(stream, " →%s",
                      order->point[i] >= 0 ? point_name(order->point[i])
                                           : states[-order->point[i]]);
    }
    (void)fclose(stream);
    return text;
}

static int pick(const struct group *group, const struct order *order, int prefix) {
    int could = order->could[order->length];
    if (order->length < prefix) {
        int wanted = order->choice[order->length];
        if ((could >> wanted & 1) != 0) {
            return wanted;
        }
        group->totals->diverged++;
    }
    int slot = 0;
    while ((could >> slot & 1) == 0) {
        slot++;
    }
    return slot;
}

/* Runs one order: as `order` says for the first `prefix` steps. */
static void run_order(struct group *group, struct order *order, int prefix) {
    bool blocked = false;
    sessions_begin(group->scene, group->ops, group->count);
    for (order->length = 0;;) {
        int could = 0, open = 0;
        for (int i = 0; i < group->count; i++) {
            could |= session_can_go(session_at(i)) ? 1 << i : 0;
            open += session_at(i)->state != SESSION_DONE;
        }
        if (open == 0) {
            break;
        }
        if (could == 0) {
            sessions_wait_for_deadlock();
            continue;
        }
        assert_true(order->length < STEPS_MAX);
        order->could[order->length] = (unsigned char)could;
        int slot = pick(group, order, prefix);
        order->choice[order->length] = (unsigned char)slot;
        session_go(slot, &blocked);
        const struct session *session = session_at(slot);
        order->point[order->length] =
            session->state == SESSION_STOPPED ? session->point : -(int)session->state;
        order->length++;
    }
    for (int i = 0; i < group->count; i++) {
        struct session *session = session_at(i);
        if (strcmp(session->answer, "busy") == 0) { /* as the worker does with its next turn */
            (void)snprintf(session->answer, sizeof session->answer, "%s",
                           sql_text(sessions_control(), "%s", session->op->sql));
        }
    }
    group->totals->schedules++;
    group->totals->blocked += blocked;
}

static bool next_order(struct order *order, int *ret_prefix) {
    for (int i = order->length - 1; i >= 0; i--) {
        for (int slot = order->choice[i] + 1; slot < SESSIONS_MAX; slot++) {
            if ((order->could[i] >> slot & 1) != 0) {
                order->choice[i] = (unsigned char)slot;
                *ret_prefix = i + 1;
                return true;
            }
        }
    }
    return false;
}

static bool is_serial(const struct order *order) {
    int changes = 0, seen = 0;
    for (int i = 0; i < order->length; i++) {
        if (i == 0 || order->choice[i] != order->choice[i - 1]) {
            changes++;
            seen |= 1 << order->choice[i];
        }
    }
    return changes == __builtin_popcount((unsigned)seen);
}

static void violation(struct group *group, const struct order *order, const char *what) {
    group->totals->violations++;
    if (++group->shown > SHOWN_MAX) {
        return;
    }
    char *text = print_order(order);
    (void)printf("VIOLATION ");
    print_name(stdout, group);
    (void)printf(": %s\n  %s\n", what, text);
    free(text);
    for (int i = 0; i < group->count; i++) {
        const struct session *session = session_at(i);
        (void)printf("  %c %s: %s %s\n", 'A' + i, session->op->name, session->answer,
                     session->message);
    }
}

static void add_outcome(struct group *group, const struct order *order, const char *text) {
    struct outcome *found = NULL;
    for (int i = 0; i < group->outcomes_count; i++) {
        if (strcmp(group->outcomes[i].text, text) == 0) {
            found = &group->outcomes[i];
        }
    }
    if (found == NULL) {
        assert_true(group->outcomes_count < OUTCOMES_MAX);
        found = &group->outcomes[group->outcomes_count++];
        *found = (struct outcome){ .text = strdup(text), .order = print_order(order) };
        assert_non_null(found->text);
    }
    found->times++;
    found->serial |= is_serial(order);
}

/* Looks at what the order has led to. No name and no answer has a quote in it. */
static void judge(struct group *group, const struct order *order) {
    const char *parameters[3];
    char names[512], answers[2048];
    size_t n = 0, a = 0;
    for (int i = 0; i < group->count; i++) {
        const struct session *session = session_at(i);
        const char *errors = session->op->errors;
        n += (size_t)snprintf(names + n, sizeof names - n, "%s\"%s\"", i == 0 ? "{" : ",",
                              session->op->name);
        a += (size_t)snprintf(answers + a, sizeof answers - a, "%s\"%s\"", i == 0 ? "{" : ",",
                              session->answer);
        if (session->sqlstate[0] != '\0' &&
            (errors == NULL || strstr(errors, session->sqlstate) == NULL)) {
            violation(group, order, "an error that is none of the contract's");
        }
    }
    (void)snprintf(names + n, sizeof names - n, "}");
    (void)snprintf(answers + a, sizeof answers - a, "}");
    parameters[0] = names;
    parameters[1] = answers;
    bool outcomes = group->loud || getenv("INTERLEAVINGS_NOT_SERIAL") != NULL;
    parameters[2] = outcomes ? "t" : "f";
    PGresult *result = PQexecParams(sessions_control(), "select interleave.judge($1, $2, $3)", 3,
                                    NULL, parameters, NULL, NULL, 0);
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        violation(group, order, PQresultErrorMessage(result));
    } else {
        if (outcomes) {
            add_outcome(group, order, PQgetvalue(result, 0, 0));
        }
        for (int i = 1; i < PQntuples(result); i++) {
            violation(group, order, PQgetvalue(result, i, 0));
        }
        if (group->loud) {
            char *text = print_order(order);
            (void)printf("%s\n  %s\n", text, PQgetvalue(result, 0, 0));
            free(text);
        }
    }
    PQclear(result);
}

/* Says which ways to end no order without interleaving has, if that is asked for. */
static void close_outcomes(struct group *group) {
    bool wanted = getenv("INTERLEAVINGS_NOT_SERIAL") != NULL;
    for (int i = 0; i < group->outcomes_count; i++) {
        struct outcome *outcome = &group->outcomes[i];
        if (wanted) {
            (void)printf(outcome->serial ? "SERIAL " : "NOT SERIAL ");
            print_name(stdout, group);
            (void)printf(" (%d): %s\n  %s\n", outcome->times, outcome->text, outcome->order);
        }
        free(outcome->text);
        free(outcome->order);
    }
}

void explore(const struct scene *scene, const struct op *const *ops, int count, bool loud,
             struct totals *totals) {
    struct group *group = calloc(1, sizeof *group);
    struct order order = { 0 };
    int prefix = 0;
    assert_non_null(group);
    *group = (struct group){
        .scene = scene, .ops = ops, .count = count, .loud = loud, .totals = totals
    };
    do {
        sql(sessions_control(), "select interleave.restore()");
        run_order(group, &order, prefix);
        judge(group, &order);
    } while (next_order(&order, &prefix));
    totals->groups++;
    close_outcomes(group);
    free(group);
}
