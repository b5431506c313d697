/* A server with a key for each scope, for the tests of the routes. */
#ifndef TESTS_SERVER_API_H
#define TESTS_SERVER_API_H

#include "http.h"

#include <string.h>

extern const char *url;
extern PGconn *conn;
extern pid_t server;
extern struct answer answer; /* the last */

/** Each with `payloads`, but `blind`, which may do all the rest. `foreign` is of another namespace.
 */
extern const char *admin, *reader, *starter, *operator_key, *blind, *foreign;

int api_setup(void **state);
int api_teardown(void **state);

/** Starts a run; answers its id. */
const char *started(const char *key, const char *body);

/** The last answer is an error with this code, whose detail has this part. */
#define REFUSED(wanted, code, part)                                                                \
    do {                                                                                           \
        assert_field(&answer, "/code", code);                                                      \
        if (strstr(answer_field(&answer, "/detail"), part) == NULL) {                              \
            fail_msg("no '%s' in %s", part, answer.body);                                          \
        }                                                                                          \
    } while (0)

#endif
