/* The migrations, built into the program, so that one file is enough to set a database up. */
#ifndef CLI_MIGRATIONS_H
#define CLI_MIGRATIONS_H

struct embedded_file {
    const char *name; /* "0001_schemas_and_roles.sql", "functions/20_start.sql" */
    const char *text;
};

/** In the order in which they are applied: tables first, then functions. */
extern const struct embedded_file migrations[];
extern const int migrations_count;

#endif
