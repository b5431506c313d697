#include "cli/commands.h"

const struct command commands[] = {
    { "dev", "everything on this machine: PostgreSQL, scheduler, worker", command_dev },
    { "migrate", "set a database up, or bring it up to date", command_migrate },
    { "start", "start a run", command_start },
    { "event", "send an event", command_event },
    { "run", "show a run and its timeline", command_run },
    { "runs", "list runs, newest first", command_runs },
    { "cancel", "cancel a run", command_cancel },
    { "retry", "let a failed or cancelled run go on", command_retry },
    { "queues", "list, set, pause and resume queues", command_queues },
    { "workers", "list workers", command_workers },
    { "endpoints", "list, register and steer where handlers are served", command_endpoints },
    { "state", "get, set, delete, increment and lock state", command_state },
    { "keys", "list, make, rotate and revoke API keys", command_keys },
    { "conformance", "does an SDK speak the handler protocol?", command_conformance },
};
const int command_count = sizeof commands / sizeof *commands;
