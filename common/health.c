/* A listener on a thread and a loop of its own. One request a connection, its head read up to the
 * empty line, its first line looked at and nothing else of it. */
#include "common/health.h"

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/thread.h"
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define METRICS_BYTES_MAX (64 * 1024)

struct health_conn {
    struct bufferevent *stream;
    struct event *deadline;
    bool answered;
};

static struct event_base *base;
static struct evconnlistener *listener;
static struct health_metric *metrics;
static int metric_count;
static int64_t silent_ms_max;
static int connection_count; /* on the thread */
static _Atomic int64_t alive_ms;
static atomic_bool is_ready;

void health_alive(void) {
    atomic_store(&alive_ms, clock_ms());
}

void health_ready(bool ready) {
    atomic_store(&is_ready, ready);
}

static void conn_close(struct health_conn *conn) {
    bufferevent_free(conn->stream);
    event_free(conn->deadline);
    free(conn);
    connection_count--;
}

static dj_status metrics_print(struct buf *out) {
    for (int i = 0; i < metric_count; i++) {
        const struct health_metric *metric = &metrics[i];
        DJ_TRY(buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n%s %lld\n", metric->name, metric->help,
                        metric->name, metric->kind, metric->name,
                        (long long)atomic_load(&metric->value)));
    }
    return DJ_OK;
}

static void reply(struct health_conn *conn, const char *status, const char *type,
                  const char *body) {
    struct evbuffer *out = bufferevent_get_output(conn->stream);
    check(evbuffer_add_printf(out,
                              "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                              "Cache-Control: no-store\r\nConnection: close\r\n\r\n%s",
                              status, type, strlen(body), body) > 0);
}

static void answer(struct health_conn *conn, const char *line) {
    static const char ok[] = "200 OK", unavailable[] = "503 Service Unavailable";
    static const char json[] = "application/json";
    size_t target = strncmp(line, "GET /", 5) == 0 ? strcspn(line + 4, " ?") : 0;
    if (target == 0) {
        reply(conn, "405 Method Not Allowed\r\nAllow: GET", json, "{\"status\":\"GET it\"}");
    } else if (target == 8 && memcmp(line + 4, "/healthz", 8) == 0) {
        bool alive = clock_ms() - atomic_load(&alive_ms) <= silent_ms_max;
        reply(conn, alive ? ok : unavailable, json,
              alive ? "{\"status\":\"ok\"}" : "{\"status\":\"stuck\"}");
    } else if (target == 7 && memcmp(line + 4, "/readyz", 7) == 0) {
        bool ready = atomic_load(&is_ready);
        reply(conn, ready ? ok : unavailable, json,
              ready ? "{\"status\":\"ready\"}" : "{\"status\":\"not ready\"}");
    } else if (target == 8 && memcmp(line + 4, "/metrics", 8) == 0) {
        struct buf out;
        buf_init(&out, METRICS_BYTES_MAX);
        check(metrics_print(&out) == DJ_OK);
        reply(conn, ok, "text/plain; version=0.0.4", out.length == 0 ? "" : out.data);
        buf_done(&out);
    } else {
        reply(conn, "404 Not Found", json, "{\"status\":\"not found\"}");
    }
}

static void on_read(struct bufferevent *stream, void *context) {
    struct health_conn *conn = context;
    struct evbuffer *in = bufferevent_get_input(stream);
    if (evbuffer_search(in, "\r\n\r\n", 4, NULL).pos < 0) {
        if (evbuffer_get_length(in) > HEALTH_HEAD_BYTES_MAX) {
            conn_close(conn);
        }
        return;
    }
    char *line = evbuffer_readln(in, NULL, EVBUFFER_EOL_CRLF_STRICT);
    check(line != NULL && bufferevent_disable(stream, EV_READ) == 0);
    answer(conn, line);
    conn->answered = true;
    free(line);
}

/* The answer is out. libevent also says so at the beginning, when there is nothing to write yet. */
static void on_written(struct bufferevent *stream, void *context) {
    struct health_conn *conn = context;
    (void)stream;
    if (conn->answered) {
        conn_close(conn);
    }
}

static void on_end(struct bufferevent *stream, short what, void *context) {
    (void)stream;
    (void)what;
    conn_close(context);
}

static void on_deadline(evutil_socket_t fd, short what, void *context) {
    (void)fd;
    (void)what;
    conn_close(context);
}

static void on_accept(struct evconnlistener *from, evutil_socket_t fd, struct sockaddr *address,
                      int length, void *context) {
    (void)from;
    (void)address;
    (void)length;
    (void)context;
    if (connection_count >= HEALTH_CONNECTIONS_MAX) {
        (void)evutil_closesocket(fd);
        return;
    }
    struct timeval deadline = { .tv_sec = HEALTH_DEADLINE_MS / 1000 };
    struct health_conn *conn = calloc(1, sizeof *conn);
    check(conn != NULL);
    conn->stream = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    conn->deadline = evtimer_new(base, on_deadline, conn);
    check(conn->stream != NULL && conn->deadline != NULL);
    connection_count++;
    bufferevent_setcb(conn->stream, on_read, on_written, on_end, conn);
    check(event_add(conn->deadline, &deadline) == 0 &&
          bufferevent_enable(conn->stream, EV_READ | EV_WRITE) == 0);
}

/* Out of descriptors, most likely. The backlog holds who waits; trying at once would only spin. */
static void on_accept_error(struct evconnlistener *from, void *context) {
    struct timespec rest = { .tv_nsec = 100 * 1000000L };
    (void)from;
    (void)context;
    (void)nanosleep(&rest, NULL);
}

static struct evconnlistener *listen_at(const struct sockaddr *address, int length) {
    return evconnlistener_new_bind(
        base, on_accept, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
        64, address, length);
}

static void *health_thread(void *context) {
    (void)context;
    (void)event_base_dispatch(base);
    return NULL;
}

dj_status health_open(int port, int64_t silent_max_ms, struct health_metric *metric_list,
                      int count) {
    struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    pthread_t thread;
    if (port == 0) {
        return DJ_OK;
    }
    metrics = metric_list;
    metric_count = count;
    silent_ms_max = silent_max_ms;
    health_alive();
    struct event_config *config = event_config_new();
    check(config != NULL && event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0);
    base = event_base_new_with_config(config);
    event_config_free(config);
    check(base != NULL);
    listener = listen_at((const struct sockaddr *)&six, sizeof six);
    if (listener == NULL && errno != EADDRINUSE) { /* a host without IPv6 */
        listener = listen_at((const struct sockaddr *)&four, sizeof four);
    }
    if (listener == NULL) {
        return dj_fail(DJ_UNAVAILABLE, "cannot listen at port %d for --health-port: %s", port,
                       strerror(errno));
    }
    evconnlistener_set_error_cb(listener, on_accept_error);
    int failed = thread_begin(&thread, health_thread, NULL);
    if (failed != 0) {
        return dj_fail(DJ_NO_MEMORY, "no thread for --health-port: %s", strerror(failed));
    }
    (void)pthread_detach(thread);
    return DJ_OK;
}
