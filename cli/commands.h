/* The commands of `durable`: each parses its own flags and answers its exit status by a dj_status.
 */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "common/status.h"

struct command {
    const char *name;
    const char *summary;
    dj_status (*run)(int argc, char **argv); /* argv[0] is the command's own name */
};

extern const struct command commands[];
extern const int command_count;

dj_status command_dev(int argc, char **argv);
dj_status command_migrate(int argc, char **argv);
dj_status command_start(int argc, char **argv);
dj_status command_event(int argc, char **argv);
dj_status command_run(int argc, char **argv);
dj_status command_runs(int argc, char **argv);
dj_status command_cancel(int argc, char **argv);
dj_status command_retry(int argc, char **argv);
dj_status command_queues(int argc, char **argv);
dj_status command_workers(int argc, char **argv);
dj_status command_endpoints(int argc, char **argv);
dj_status command_state(int argc, char **argv);
dj_status command_keys(int argc, char **argv);
dj_status command_conformance(int argc, char **argv);

#endif
