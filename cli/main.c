/* durable: the command line. */
#include "cli/commands.h"
#include "common/log.h"
#include "common/versions.h"
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void print_usage(FILE *out) {
    (void)fprintf(out, "durable: start work once, and it completes safely\n\n"
                       "Usage: durable COMMAND [options]\n\nCommands:\n");
    for (int i = 0; i < command_count; i++) {
        (void)fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].summary);
    }
    (void)fprintf(
        out, "\n`durable COMMAND --help` shows a command's options. DURABLE_DATABASE_URL names "
             "the database,\nor DURABLE_URL and DURABLE_API_KEY a durable-server.\n");
}

/* What to do about a failure that only speaks of the database. */
static const char *advice(dj_status status, const char *message) {
    if (status == DJ_UNAVAILABLE && strstr(message, "connection to server") != NULL) {
        return "; DURABLE_DATABASE_URL or --database-url names the database";
    }
    return "";
}

int main(int argc, char **argv) {
    log_set_program("durable");
    (void)signal(SIGPIPE, SIG_DFL);
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage(argc > 1 ? stdout : stderr);
        return argc > 1 ? 0 : 2;
    }
    if (strcmp(name, "--version") == 0) {
        versions_print("durable", stdout);
        return 0;
    }
    for (int i = 0; i < command_count; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            dj_status status = commands[i].run(argc - 1, argv + 1);
            if (status != DJ_OK) {
                const char *message = dj_error_message();
                (void)fprintf(stderr, "durable %s: %s%s\n", name, message, advice(status, message));
            }
            return status_exit_code(status);
        }
    }
    (void)fprintf(stderr, "durable: there is no command '%s'; `durable --help` lists them\n", name);
    return 2;
}
