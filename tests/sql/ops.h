/* What the tests of ops share: runs of handlers that are called over HTTP, without HTTP. Each test
 * begins with one of job `http` in the hand of a worker (ops_begin), and ends with none. */
#ifndef TESTS_SQL_OPS_H
#define TESTS_SQL_OPS_H

#include "support.h"

extern const char *url;
extern PGconn *conn;
extern PGconn *caller; /* whose transaction is open; NULL: nobody's */

#define INCREMENT(name, key)                                                                       \
    "{\"op\": \"state\", \"name\": \"" name "\", \"action\": \"increment\", \"key\": \"" key "\"}"
#define COMPLETED(op) "{\"status\": \"completed\", \"result\": 1, \"ops\": [" op "]}"

/** The runs that our worker has just claimed are in the table c. */
void claim(void);

/** Starts runs of `http`, and claims them. */
void start_and_claim(int count);

void match(void);

/** What a commit of the run of a job answers to these ops. */
const char *commit_ops(const char *job, const char *ops);

/** Commits an answer of the run of a job, at the end of its call. */
void answer(const char *job, const char *detail);

/** One turn with an answer and a log line of each run in c, by age. Who is to say it again? */
const char *answers(const char *details);

/** One commit over HTTP with a list of ops of each run in c, by age. */
const char *commits(const char *lists);

/** How the youngest run of a job stands. */
const char *status(const char *job);

int ops_setup(void **state);
int ops_begin(void **state);
int ops_end(void **state);

#define OPS_TEST(test) cmocka_unit_test_setup_teardown(test, ops_begin, ops_end)

#endif
