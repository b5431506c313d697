/* What the statements of a migration lock. */
#ifndef CLI_SQL_PLAN_H
#define CLI_SQL_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/** The statement that *at stands before, without what ends it, and *at behind it. False: no more.
 */
bool sql_next(const char **at, const char **ret_statement, size_t *ret_length);

/** Prints a line for each statement: the lock that it takes on what was there before, and how it
 * begins. `concurrently`: its indexes are made so. */
void sql_plan_print(const char *sql, bool concurrently, FILE *out);

#endif
