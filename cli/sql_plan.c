/* Splits a migration into statements (comments, quotes and dollar quotes are passed over as a
 * whole), and looks up the lock of each by how it begins. It knows the forms that migrations use,
 * and says so of others. */
#include "cli/sql_plan.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static const struct lock_row {
    const char *beginning;
    const char *lock;
} locks[] = {
    { "create schema", "none on what is there" },
    { "create table", "none on what is there" },
    { "create sequence", "none on what is there" },
    { "create unique index", "SHARE on its table: writes wait" },
    { "create index concurrently", "SHARE UPDATE EXCLUSIVE on its table: nobody waits" },
    { "create index", "SHARE on its table: writes wait" },
    { "create or replace function", "none: calls in progress end as they began" },
    { "create or replace procedure", "none: calls in progress end as they began" },
    { "create or replace view", "ACCESS EXCLUSIVE on the view: who reads it waits" },
    { "alter table", "ACCESS EXCLUSIVE on the table: everybody waits" },
    { "drop", "ACCESS EXCLUSIVE on what is dropped" },
    { "insert", "ROW EXCLUSIVE on the table: nobody waits" },
    { "update", "ROW EXCLUSIVE on the table: writers of the same rows wait" },
    { "grant", "none that a running fleet waits for" },
    { "revoke", "none that a running fleet waits for" },
    { "comment", "SHARE UPDATE EXCLUSIVE: nobody waits" },
    { "do", "as the block says: see the file" },
};

static const char *lock_of(const char *statement) {
    for (size_t i = 0; i < sizeof locks / sizeof *locks; i++) {
        if (strncasecmp(statement, locks[i].beginning, strlen(locks[i].beginning)) == 0) {
            return locks[i].lock;
        }
    }
    return "not known: look it up";
}

static const char *skip_blank(const char *at) {
    for (;;) {
        while (isspace((unsigned char)*at)) {
            at++;
        }
        if (at[0] != '-' || at[1] != '-') {
            return at;
        }
        at += strcspn(at, "\n");
    }
}

/* Behind what begins at `at`: a quoted text, a comment, or one character. */
static const char *skip_piece(const char *at) {
    if (*at == '\'' || *at == '"') {
        const char *end = strchr(at + 1, *at);
        return end == NULL ? at + strlen(at) : end + 1;
    }
    if (at[0] == '$' && at[1] == '$') {
        const char *end = strstr(at + 2, "$$");
        return end == NULL ? at + strlen(at) : end + 2;
    }
    if (at[0] == '-' && at[1] == '-') {
        return at + strcspn(at, "\n");
    }
    return at + 1;
}

bool sql_next(const char **at, const char **ret_statement, size_t *ret_length) {
    const char *begin = skip_blank(*at), *end = begin;
    while (*end != '\0' && *end != ';') {
        end = skip_piece(end);
    }
    *ret_statement = begin;
    *ret_length = (size_t)(end - begin);
    *at = end + (*end == ';');
    return *begin != '\0';
}

void sql_plan_print(const char *sql, bool concurrently, FILE *out) {
    const char *begin;
    size_t length;
    while (sql_next(&sql, &begin, &length)) {
        int shown = (int)strcspn(begin, "\n(;");
        (void)fprintf(out, "  %-70.*s  %s\n", shown > 70 ? 70 : shown, begin,
                      concurrently ? lock_of("create index concurrently") : lock_of(begin));
    }
}
