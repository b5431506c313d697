/* Settings from flags and the environment, by one table: parsing, checks and --help come from it.
 *
 *     const struct config_option options[] = {
 *         { .flag = "slots", .environment = "DURABLE_SLOTS", .value_name = "N", .default_text =
 * "1024", .help = "runs in hand at most", .kind = CONFIG_INT, .target = &slots, .min = 1, .max =
 * 10000 }, { .flag = NULL },
 *     };
 *
 * A flag is --name VALUE or --name=VALUE, a switch --name or --name=false; behind -- there are
 * none. */
#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

#include "common/status.h"
#include <stdio.h>

#define CONFIG_TEXTS_MAX 32
#define CONFIG_OPTIONS_MAX 64

enum config_kind {
    CONFIG_TEXT,     /* const char ** */
    CONFIG_TEXTS,    /* struct config_texts *: the flag may be repeated */
    CONFIG_INT,      /* int *, from min to max */
    CONFIG_DURATION, /* int64_t *, milliseconds */
    CONFIG_SWITCH,   /* bool *; takes no value */
};

struct config_texts {
    const char *texts[CONFIG_TEXTS_MAX];
    int count;
};

struct config_option {
    const char *flag;         /* without the dashes; NULL ends the table */
    const char *environment;  /* NULL: none */
    const char *value_name;   /* "URL", in the help */
    const char *default_text; /* in the help; the target holds the value itself */
    const char *help;
    enum config_kind kind;
    void *target;
    long min, max;
};

struct config_command {
    const char *program;   /* "durable-worker", "durable start" */
    const char *arguments; /* "JOB [PAYLOAD]"; NULL: none */
    const char *summary;
    const char *details; /* more for the help, or NULL */
    const struct config_option *options;
    int arguments_min, arguments_max; /* -1: any number */
};

/** Reads the flags, and the environment for those not given; argv[0] is passed over. --help and
 * --version print and exit(0). The arguments that are not flags are moved to argv[*ret_first] and
 * behind, with a NULL at the end. Texts are lent by argv and the environment. DJ_INVALID_ARGUMENT
 * names the flag or the variable, and what is allowed. */
MUST_CHECK dj_status config_parse(const struct config_command *command, int argc, char **argv,
                                  int *ret_first);

/** The help, for a terminal of 80 columns. */
void config_print_help(const struct config_command *command, FILE *out);

#endif
