/* What steps, transactional steps and registration share. */
#ifndef WORKER_STEP_H
#define WORKER_STEP_H

#include "worker/run.h"

/** Prints a step's result, within its limits; one over them fails the run for good. NULL is null.
 */
MUST_CHECK dj_status step_print_result(dj_run *run, const char *name, json_object *result,
                                       char **ret_text);

/** DJ_INVALID_ARGUMENT names the field and what is allowed. */
MUST_CHECK dj_status backoff_check(const dj_backoff *backoff);

/** What of it is given; the object is the caller's. */
json_object *backoff_json(const dj_backoff *backoff);

#endif
