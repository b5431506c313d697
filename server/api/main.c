/* durable-server: the HTTP API. Stateless; any number. One thread, one loop; connections to the
 * database are made on threads of their own. */
#include "common/check.h"
#include "common/config.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/notify.h"
#include "server/api/api.h"
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static struct api api;

static void on_drain(evutil_socket_t signal, short what, void *context) {
    (void)what;
    (void)context;
    if (http_server_is_draining(api.http)) {
        (void)event_base_loopexit(api.base, NULL);
        return;
    }
    log_info("server.draining", "signal", LOG_INT(signal));
    notify_stopping();
    FAILPOINT("server.drain_begun");
    http_server_drain(api.http);
    waits_drain(&api);
    struct timeval grace = { .tv_sec = 25 };
    (void)event_base_loopexit(api.base, &grace);
}

static void on_tick(evutil_socket_t fd, short what, void *context) {
    (void)fd;
    (void)what;
    (void)context;
    notify_alive();
}

static dj_status run(const struct api_settings *settings) {
    struct event_config *config = event_config_new();
    check(config != NULL &&
          event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST) == 0);
    api.base = event_base_new_with_config(config);
    event_config_free(config);
    check(api.base != NULL);
    DJ_TRY(api_open(&api, settings));
    struct event *terminate = evsignal_new(api.base, SIGTERM, on_drain, NULL);
    struct event *interrupt = evsignal_new(api.base, SIGINT, on_drain, NULL);
    check(terminate != NULL && interrupt != NULL && evsignal_add(terminate, NULL) == 0 &&
          evsignal_add(interrupt, NULL) == 0);
    struct timeval second = { .tv_sec = 1 };
    struct event *tick = event_new(api.base, -1, EV_PERSIST, on_tick, NULL);
    check(tick != NULL && event_add(tick, &second) == 0);
    log_info("server.listening", "at", settings->listen, "unix",
             settings->unix_path == NULL ? "" : settings->unix_path);
    notify_ready();
    notify_alive();
    (void)event_base_dispatch(api.base);
    FAILPOINT("server.drain_left");
    log_info("server.stopped", "reason", "drained");
    if (!database_stop(api.database)) {
        _exit(0);
    }
    return DJ_OK;
}

/* As many descriptors as we may have. */
static void raise_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv) { /* NOLINT(readability-function-size): a table */
    struct api_settings settings = { .listen = "127.0.0.1:7070",
                                     .connections = 2,
                                     .bad_keys = 20,
                                     .limits = { .connections = 8192,
                                                 .connections_a_peer = 4096,
                                                 .head_ms = 10000,
                                                 .body_ms = 30000,
                                                 .idle_ms = 75000,
                                                 .write_ms = 10000 } };
    const struct config_option options[] = {
        { .flag = "database-url",
          .environment = "DURABLE_DATABASE_URL",
          .value_name = "URL",
          .kind = CONFIG_TEXT,
          .help = "the PostgreSQL to work on",
          .target = &settings.conninfo },
        { .flag = "listen",
          .environment = "DURABLE_LISTEN",
          .value_name = "HOST:PORT",
          .default_text = "127.0.0.1:7070",
          .kind = CONFIG_TEXT,
          .help = "where to serve HTTP",
          .target = &settings.listen },
        { .flag = "unix",
          .environment = "DURABLE_LISTEN_UNIX",
          .value_name = "PATH",
          .kind = CONFIG_TEXT,
          .help = "a socket to serve at as well",
          .target = &settings.unix_path },
        { .flag = "connections",
          .environment = "DURABLE_SERVER_CONNECTIONS",
          .value_name = "N",
          .default_text = "2",
          .kind = CONFIG_INT,
          .help = "database connections",
          .target = &settings.connections,
          .min = 1,
          .max = 64 },
        { .flag = "allow-private",
          .environment = "DURABLE_ALLOW_PRIVATE",
          .kind = CONFIG_SWITCH,
          .help = "endpoints may have addresses of private networks, unless their registration "
                  "says otherwise",
          .target = &settings.allow_private },
        { .flag = "forbid-private",
          .environment = "DURABLE_FORBID_PRIVATE",
          .kind = CONFIG_SWITCH,
          .help = "no endpoint may have such an address, whatever its registration says",
          .target = &settings.forbid_private },
        { .flag = "max-clients",
          .environment = "DURABLE_MAX_CLIENTS",
          .value_name = "N",
          .default_text = "8192",
          .kind = CONFIG_INT,
          .help = "HTTP connections at once; the next one gets 503",
          .target = &settings.limits.connections,
          .min = 1,
          .max = 1000000 },
        { .flag = "max-clients-per-address",
          .environment = "DURABLE_MAX_CLIENTS_PER_ADDRESS",
          .value_name = "N",
          .default_text = "4096",
          .kind = CONFIG_INT,
          .help = "of them, from one address",
          .target = &settings.limits.connections_a_peer,
          .min = 1,
          .max = 1000000 },
        { .flag = "rate-limit",
          .environment = "DURABLE_RATE_LIMIT",
          .value_name = "N",
          .default_text = "0",
          .kind = CONFIG_INT,
          .help = "requests a second with one API key; the next one gets 429; 0: no limit",
          .target = &settings.rate_limit,
          .min = 0,
          .max = 1000000 },
        { .flag = "bad-keys",
          .environment = "DURABLE_BAD_KEYS",
          .value_name = "N",
          .default_text = "20",
          .kind = CONFIG_INT,
          .help = "wrong API keys a minute from one address; the next one gets 429; 0: no limit",
          .target = &settings.bad_keys,
          .min = 0,
          .max = 1000000 },
        { .flag = "head-timeout",
          .environment = "DURABLE_HEAD_TIMEOUT",
          .value_name = "TIME",
          .default_text = "10s",
          .kind = CONFIG_DURATION,
          .help = "for a request's head to arrive",
          .target = &settings.limits.head_ms },
        { .flag = "body-timeout",
          .environment = "DURABLE_BODY_TIMEOUT",
          .value_name = "TIME",
          .default_text = "30s",
          .kind = CONFIG_DURATION,
          .help = "for a request's body to arrive",
          .target = &settings.limits.body_ms },
        { .flag = "idle-timeout",
          .environment = "DURABLE_IDLE_TIMEOUT",
          .value_name = "TIME",
          .default_text = "75s",
          .kind = CONFIG_DURATION,
          .help = "between the requests of a connection",
          .target = &settings.limits.idle_ms },
        { .flag = "write-timeout",
          .environment = "DURABLE_WRITE_TIMEOUT",
          .value_name = "TIME",
          .default_text = "10s",
          .kind = CONFIG_DURATION,
          .help = "a client that takes nothing for so long is cut off",
          .target = &settings.limits.write_ms },
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable-server",
        .summary = "the HTTP API of Durable Jobs; any number may run",
        .details = "SIGTERM drains: no new connections, requests in hand are answered, exit 0.",
        .options = options,
    };
    int first;
    FAILPOINTS_LIST(argc, argv);
    log_set_program("durable-server");
    notify_open();
    srandom((unsigned int)getpid());
    (void)mallopt(M_ARENA_MAX, 2);
    dj_status status = config_parse(&command, argc, argv, &first);
    if (status == DJ_OK && settings.conninfo == NULL) {
        status = dj_fail(DJ_INVALID_ARGUMENT, "no database is named; set DURABLE_DATABASE_URL");
    }
    (void)signal(SIGPIPE, SIG_IGN);
    raise_descriptors();
    if (status == DJ_OK) {
        status = run(&settings);
    }
    if (status != DJ_OK) {
        (void)fprintf(stderr, "durable-server: %s\n", dj_error_message());
        return status_exit_code(status);
    }
    return 0;
}
