/* The migrations, built into the program, so that one file is enough to set a database up. */
#ifndef CLI_MIGRATIONS_H
#define CLI_MIGRATIONS_H

#include "common/embedded.h"

/** In the order in which they are applied: tables first, then functions. Their names are such as
 * "0001_schemas_and_roles.sql", "functions/20_start.sql". */
extern const struct embedded_file migrations[];
extern const int migrations_count;

#endif
