/* What a run remembers: its steps in order, and by name where they are asked for. */
#ifndef WORKER_REPLAY_H
#define WORKER_REPLAY_H

#include "common/arena.h"
#include "common/status.h"
#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>

struct memory { /* one remembered step */
    int position;
    bool forgotten; /* by a retry: its place is kept, over HTTP */
    const char *name;
    const char *kind;
    const char *result; /* JSON text; NULL: null */
    const char *error;  /* JSON text; NULL: it completed */
};

struct replay {
    struct memory *steps; /* in the order of their positions */
    int step_count;
    int next;          /* the first of them that was not asked for yet */
    int position;      /* of the durable call that was made last; the first one's is 1 */
    struct seen *seen; /* names asked for in this call, and how often: an open hash table */
    int seen_count, seen_capacity;
    const char **tries; /* names of failed tries of steps with a policy of their own */
    int try_count;
};

/** The name under which the next use of `name` is remembered: itself, then "name#2", … The text is
 * the arena's. */
MUST_CHECK dj_status replay_name(struct replay *replay, struct arena *arena, const char *name,
                                 const char **ret_name);

enum replay_answer { REPLAY_NEW, REPLAY_REMEMBERED, REPLAY_OUT_OF_PLACE };

/** Takes the next position, and looks whether a step is remembered there. REPLAY_OUT_OF_PLACE:
 * another one is. There may be gaps: a step whose error the handler caught is not remembered. */
enum replay_answer replay_next(struct replay *replay, const char *name, const char *kind,
                               const struct memory **ret_memory);

/** How often a step with a policy of its own has failed already. */
int replay_tries(const struct replay *replay, const char *name);

void replay_done(struct replay *replay);

#endif
