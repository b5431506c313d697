/* Leases of runs, and the tokens of commit.url that stand for them. */
#ifndef TESTS_SERVER_LEASE_H
#define TESTS_SERVER_LEASE_H

#include "common/commit_token.h"
#include "support.h"

/** What this installation signs tokens with. */
struct commit_secret secret_of(PGconn *conn);

/** The run's lease as it stands now; it has one. */
struct lease_name lease_of(PGconn *conn, const char *run_id);

/** The caller's to free. */
char *token_of(const struct commit_secret *secret, const struct lease_name *lease);

#endif
