/* Handlers over HTTP: which endpoints there are, and the calls on their way. On the loop thread. */
#ifndef WORKER_ENDPOINT_H
#define WORKER_ENDPOINT_H

#include "worker/fleet.h"

/** Of the options, those that concern endpoints. */
MUST_CHECK dj_status endpoints_new(dj_worker *worker, const dj_worker_options *options,
                                   struct endpoints **ret_endpoints);
void endpoints_free(struct endpoints *endpoints); /* calls on their way are cut off */

/** Asks the database which endpoints there are, unless it is being asked. */
void endpoints_refresh(struct endpoints *endpoints);

/** Now and then: looks for lost runs, and asks again. */
void endpoints_tick(struct endpoints *endpoints);

/** The job of that name; NULL: no endpoint has had it. */
const struct job *endpoints_job(const struct endpoints *endpoints, const char *name);

/** Calls the handlers of runs that were just claimed, at once, before the next claim is sent; the
 * outcomes come by worker_take_outcome. Empties the list. */
void endpoints_call(struct endpoints *endpoints, struct list *runs);

/** The leases are sure again: drops the calls of lost runs, and begins those that have waited. */
void endpoints_go_on(struct endpoints *endpoints);

/** Gives back the runs whose calls were not begun. */
void endpoints_give_back(struct endpoints *endpoints);

/** Cuts off the call that a run has. Nothing comes of it. */
void endpoint_call_drop(dj_run *run);

#endif
