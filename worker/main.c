/* durable-worker: leases runs and calls the handlers of the modules it was given. Stateless; any
 * number. */
#include "common/config.h"
#include "common/failpoint.h"
#include "common/health.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/status.h"
#include "worker/crash.h"
#include "worker/fleet.h"
#include "worker/module.h"
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SILENT_MS_MAX 10000 /* the loop ticks four times a second */

static dj_worker *running;
static int health_port;

enum metric { METRIC_IN_HAND, METRIC_SLOTS, METRIC_REGISTERED, METRIC_DRAINING, METRICS };
static struct health_metric metrics[METRICS] = {
    [METRIC_IN_HAND] = { "durable_worker_runs_in_hand", "gauge", "Runs leased by this worker.", 0 },
    [METRIC_SLOTS] = { "durable_worker_slots", "gauge", "Runs in hand at most.", 0 },
    [METRIC_REGISTERED] = { "durable_worker_registered", "gauge",
                            "1 while the database knows this worker.", 0 },
    [METRIC_DRAINING] = { "durable_worker_draining", "gauge", "1 once it takes nothing more.", 0 },
};

/* On the loop. */
static void on_life(const dj_worker *worker) {
    bool draining = worker_is_draining(worker);
    notify_alive();
    if (draining) {
        notify_stopping();
    } else if (worker->registered) {
        notify_ready();
    }
    health_alive();
    health_ready(worker->registered && !draining);
    atomic_store(&metrics[METRIC_IN_HAND].value, worker->in_hand);
    atomic_store(&metrics[METRIC_SLOTS].value, worker->slots_max);
    atomic_store(&metrics[METRIC_REGISTERED].value, worker->registered);
    atomic_store(&metrics[METRIC_DRAINING].value, draining);
}

static void on_signal(int number) {
    (void)number;
    dj_worker_drain(running); /* safe here: an atomic and a write */
}

/* Before the worker is there to be drained, and once it is drained, a signal has to wait. */
static void hold_signals(int how) {
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigprocmask(how, &set, NULL);
}

static void watch_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    (void)sigaction(SIGPIPE, &action, NULL);
}

static dj_status run(const dj_worker_options *options, const struct config_texts *modules) {
    DJ_TRY(dj_worker_new(options, &running));
    for (int i = 0; i < modules->count; i++) {
        DJ_TRY(module_load(running, modules->texts[i]));
    }
    DJ_TRY(health_open(health_port, SILENT_MS_MAX, metrics, METRICS));
    worker_watch_life(running, on_life);
    watch_signals();
    crash_watch(running);
    hold_signals(SIG_UNBLOCK);
    dj_status status = dj_worker_run(running);
    hold_signals(SIG_BLOCK); /* another one would find no worker */
    if (status == DJ_OK) {
        dj_worker_free(running);
    }
    return status;
}

int main(int argc, char **argv) { /* NOLINT(readability-function-size): a table */
    struct config_texts modules = { .count = 0 };
    dj_worker_options settings = { .slots = 1024,
                                   .threads = 16,
                                   .connections = 2,
                                   .lease_ttl_ms = 10000,
                                   .grace_ms = 25000,
                                   .call_endpoints = true };
    const struct config_option options[] = {
        { .flag = "module",
          .environment = "DURABLE_MODULE",
          .value_name = "FILE.so",
          .kind = CONFIG_TEXTS,
          .help = "a module with handlers; may be repeated",
          .target = &modules },
        { .flag = "database-url",
          .environment = "DURABLE_DATABASE_URL",
          .value_name = "URL",
          .kind = CONFIG_TEXT,
          .help = "the PostgreSQL to work on",
          .target = &settings.conninfo },
        { .flag = "name",
          .environment = "DURABLE_WORKER_NAME",
          .value_name = "NAME",
          .kind = CONFIG_TEXT,
          .default_text = "the host's name",
          .help = "shown in durable.workers",
          .target = &settings.name },
        { .flag = "namespace",
          .environment = "DURABLE_NAMESPACE",
          .value_name = "NAME",
          .kind = CONFIG_TEXT,
          .default_text = "default",
          .help = "whose runs to serve",
          .target = &settings.namespace_ },
        { .flag = "queues",
          .environment = "DURABLE_QUEUES",
          .value_name = "A,B",
          .kind = CONFIG_TEXT,
          .default_text = "every queue",
          .help = "the queues to serve",
          .target = &settings.queues },
        { .flag = "slots",
          .environment = "DURABLE_SLOTS",
          .value_name = "N",
          .kind = CONFIG_INT,
          .default_text = "1024",
          .help = "runs in hand at most",
          .target = &settings.slots,
          .min = 1,
          .max = 4096 },
        { .flag = "threads",
          .environment = "DURABLE_THREADS",
          .value_name = "N",
          .kind = CONFIG_INT,
          .default_text = "16",
          .help = "handlers working or blocked at most",
          .target = &settings.threads,
          .min = 1,
          .max = 1024 },
        { .flag = "connections",
          .environment = "DURABLE_CONNECTIONS",
          .value_name = "N",
          .kind = CONFIG_INT,
          .default_text = "2",
          .help = "database connections for claims and commits",
          .target = &settings.connections,
          .min = 1,
          .max = 8 },
        { .flag = "lease-ttl",
          .environment = "DURABLE_LEASE_TTL",
          .value_name = "TIME",
          .kind = CONFIG_DURATION,
          .default_text = "10s",
          .help = "a worker silent for so long has lost its runs",
          .target = &settings.lease_ttl_ms },
        { .flag = "grace",
          .environment = "DURABLE_GRACE",
          .value_name = "TIME",
          .kind = CONFIG_DURATION,
          .default_text = "25s",
          .help = "how long a drain waits for the steps in hand",
          .target = &settings.grace_ms },
        { .flag = "endpoints",
          .environment = "DURABLE_ENDPOINTS",
          .kind = CONFIG_SWITCH,
          .default_text = "true",
          .help = "also call handlers over HTTP, at the namespace's endpoints",
          .target = &settings.call_endpoints },
        { .flag = "public-url",
          .environment = "DURABLE_PUBLIC_URL",
          .value_name = "URL",
          .kind = CONFIG_TEXT,
          .help = "where those handlers reach durable-server, to commit; else they answer",
          .target = &settings.public_url },
        { .flag = "forbid-private",
          .environment = "DURABLE_FORBID_PRIVATE",
          .kind = CONFIG_SWITCH,
          .help = "call no endpoint in a private network, whatever its registration says",
          .target = &settings.forbid_private },
        { .flag = "health-port",
          .environment = "DURABLE_HEALTH_PORT",
          .value_name = "PORT",
          .kind = CONFIG_INT,
          .help = "serves /healthz, /readyz and /metrics, at all addresses",
          .target = &health_port,
          .min = 1,
          .max = 65535 },
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable-worker",
        .summary = "leases runs and calls their handlers; any number may run",
        .details = "SIGTERM drains: nothing more is taken, the steps in hand finish, the rest is "
                   "given back.\n"
                   "A second SIGTERM gives everything back at once.",
        .options = options,
    };
    int first;
    FAILPOINTS_LIST(argc, argv);
    log_set_program("durable-worker");
    hold_signals(SIG_BLOCK);
    notify_open();
    (void)mallopt(M_ARENA_MAX, 2); /* few arenas: an idle worker is to be small */
    dj_status status = config_parse(&command, argc, argv, &first);
    if (status == DJ_OK && modules.count == 0 && !settings.call_endpoints) {
        status =
            dj_fail(DJ_INVALID_ARGUMENT, "--module is missing: a worker needs handlers to call");
    }
    if (status == DJ_OK && settings.conninfo == NULL) {
        status = dj_fail(DJ_INVALID_ARGUMENT, "no database is named; set DURABLE_DATABASE_URL");
    }
    if (status == DJ_OK) {
        status = run(&settings, &modules);
    }
    if (status == DJ_TIMEOUT) {
        log_warning("worker.stopped", "reason", dj_error_message());
        _exit(0); /* threads are still in handlers; their leases were given back */
    }
    if (status != DJ_OK) {
        (void)fprintf(stderr, "durable-worker: %s\n", dj_error_message());
        return status_exit_code(status);
    }
    log_info("worker.stopped", "reason", "drained");
    return 0;
}
