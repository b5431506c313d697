/* What the durable calls share: step.c, step_tx.c, wait.c and run.c. On the handler's thread. */
#ifndef WORKER_RUN_H
#define WORKER_RUN_H

#include "common/clock.h"
#include "worker/run_state.h"

/** Refuses a durable call where none is allowed: in a step, after dj_complete, or once the run
 * leaves. */
MUST_CHECK dj_status run_may_call(dj_run *run);

/** Refuses a durable call that takes more places than the run has left; the run fails by it. */
MUST_CHECK dj_status run_need_places(dj_run *run, const char *name, int places);

/** What a durable call finds remembered in its place. For REPLAY_OUT_OF_PLACE the run is parked,
 * and the status is DJ_SUSPENDED; DJ_OK with *ret_memory NULL: it is new. */
MUST_CHECK dj_status run_recall(dj_run *run, const char *name, const char *kind,
                                const char **ret_name, const struct memory **ret_memory);

/** Gives a remembered result or error back to the handler. */
MUST_CHECK dj_status run_give(dj_run *run, const struct memory *memory, json_object **ret_result);

/** Makes the run the owner of `object`, until the handler returns. NULL is allowed. */
MUST_CHECK dj_status run_own(dj_run *run, json_object *object);

/** Prints an op's detail (taken) where the turn finds it. */
MUST_CHECK dj_status run_print(dj_run *run, json_object *detail, char **ret_text);

/** Lets the run leave our hands: what the next turn commits is `op` with `detail` (taken).
 *  DJ_SUSPENDED, to be handed up. */
MUST_CHECK dj_status run_leave(dj_run *run, const char *op, json_object *detail);

/** Fails the run for good because of something of this process' own making. Answers `status`. */
MUST_CHECK dj_status run_refuse(dj_run *run, dj_status status, const char *error_name,
                                const char *step);

/** Commits a step's outcome and waits for it, the handler's stack parked. DJ_OK: durable. */
MUST_CHECK dj_status run_commit_step(dj_run *run, const char *name, const char *kind, char *result,
                                     char *step_error, int64_t elapsed_us);

/** What a result or an error adds to the run's history. NULL: nothing. */
int64_t history_bytes(const char *text);

/** Waits until this worker is sure that its leases hold; at once, where it is. DJ_LEASE_LOST. */
MUST_CHECK dj_status run_prove_lease(dj_run *run);

/** The name of the event that a child's end is, with the child's id as its key. Nobody can send it.
 */
#define CHILD_EVENT "$child"

/** Waits for the first of these events, whose names were checked; remembered as `kind`. */
MUST_CHECK dj_status run_wait(dj_run *run, const char *kind, const dj_event_key *events,
                              size_t count, const dj_wait *wait, json_object **ret_event);

/** The error that is set, as JSON. The object is the caller's. */
json_object *run_error_json(const dj_run *run, const char *step);
void run_error_clear(dj_run *run);

/** Makes an error out of what another call left behind for this thread. */
void run_error_from_status(dj_run *run, dj_status status);

#endif
