/* What the statements of a migration lock. */
#ifndef CLI_SQL_PLAN_H
#define CLI_SQL_PLAN_H

#include <stdio.h>

/** Prints a line for each statement: the lock that it takes on what was there before, and how it
 * begins. */
void sql_plan_print(const char *sql, FILE *out);

#endif
