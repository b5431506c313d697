/* What every durable call answers. Part of the public interface of libdurable. */
#ifndef DURABLE_STATUS_H
#define DURABLE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#define DJ_PUBLIC __attribute__((visibility("default")))
#define DJ_MUST_CHECK __attribute__((warn_unused_result))

/** The outcome of a call. In a handler, hand anything but DJ_OK up as it is (DJ_TRY does): that is
 *  how a wait lets go of its thread and how a lost lease ends a handler. */
typedef enum dj_status {
    DJ_OK = 0,
    DJ_INVALID_ARGUMENT,     /**< an argument is wrong; the message names it and what is allowed */
    DJ_IDEMPOTENCY_CONFLICT, /**< the key is known with another job or payload */
    DJ_NOT_FOUND,            /**< there is no such run, queue, … in this namespace */
    DJ_TOO_LARGE,            /**< over a limit; the message names the limit */
    DJ_LEASE_LOST,  /**< this run is not ours any more: cancelled, timed out or taken over */
    DJ_NOT_ALLOWED, /**< not in this state */
    DJ_UNAVAILABLE, /**< the database cannot be reached just now; trying again is safe
                         where a key is given */
    DJ_TIMEOUT,     /**< waited as long as was asked, and it has not happened */
    DJ_FAILED,      /**< the step or the run failed; the message says why */
    DJ_CANCELLED,   /**< the run was cancelled */
    DJ_SUSPENDED,   /**< the run waits: the handler returns, and is called again to resume */
    DJ_NO_MEMORY,   /**< an allocation failed */
    DJ_INTERNAL,    /**< a broken promise of ours or of the database's; please report it */
} dj_status;

/** Why the last call on this thread that did not answer DJ_OK did not. Lower case, one line, no
 *  payloads. Never NULL; valid until the next failing call on this thread. */
DJ_PUBLIC const char *dj_error_message(void);

/** The status' name in words, as "invalid argument". Never NULL. */
DJ_PUBLIC const char *dj_status_name(dj_status status);

/** Hands up whatever is not DJ_OK. */
#define DJ_TRY(call)                                                                               \
    do {                                                                                           \
        dj_status dj_try_status = (call);                                                          \
        if (dj_try_status != DJ_OK) {                                                              \
            return dj_try_status;                                                                  \
        }                                                                                          \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
