/* Requests of ours go nowhere but to the public internet, however the target is written and
 * whatever a name, a redirect or the environment says. A canary listens on the loopback, where each
 * of the targets would end or could be proxied to: it hears nothing. What looks names up and what
 * connects is the test's: names below .test are its own, an address that it calls public is a
 * second listener, and no other connection leaves this process. */
#include "common/http_client.h"
#include "unit.h"

#include "common/address_guard.h"
#include "common/clock.h"
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PUBLIC "8.8.8.8"
#define PRIVATE "127.0.0.1"

/* A server that answers each request with 200, or with a redirect to the canary. */
struct listener {
    struct evconnlistener *listener;
    int port, accepted, requests;
    bool redirects;
};

static struct event_base *base;
static struct http_client *client;
static struct listener canary, outside;
static int stray; /* connections to what is not public, and not the canary's control */
static bool may_go_inside;
static const char *rebind[2]; /* what rebind.test is, now and next */
static atomic_bool silent;    /* whoever asks for a name below .test waits for an answer */
static atomic_int waiting;    /* who does */

/* Names and connections. */

static const struct {
    const char *name, *address;
} names[] = {
    { "public.test", PUBLIC },
    { "loopback.test", PRIVATE },
    { "ten.test", "10.0.0.1" },
    { "metadata.test", "169.254.169.254" },
    { "six.test", "::1" },
    { "mapped.test", "::ffff:127.0.0.1" },
    { "local.test", "fe80::1" },
    { "unique.test", "fd00::1" },
    { "nowhere.test", "0.0.0.0" },
    { "carrier.test", "100.64.0.1" },
    { "multicast.test", "224.0.0.1" },
    { "translated.test", "64:ff9b::7f00:1" },
};

static const char *address_of(const char *name) {
    if (strcmp(name, "rebind.test") == 0) {
        const char *now = rebind[0];
        rebind[0] = rebind[1];
        return now;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i].name) == 0) {
            return names[i].address;
        }
    }
    return NULL;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **result) {
    static int (*theirs)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (theirs == NULL) {
        *(void **)&theirs = dlsym(RTLD_NEXT, "getaddrinfo");
    }
    size_t length = name == NULL ? 0 : strlen(name);
    if (length > 5 && strcmp(name + length - 5, ".test") == 0) {
        atomic_fetch_add(&waiting, 1);
        for (int ms = 0; ms < 5000 && atomic_load(&silent); ms++) {
            (void)usleep(1000);
        }
        atomic_fetch_sub(&waiting, 1);
        name = address_of(name);
        if (name == NULL) {
            return EAI_NONAME;
        }
    }
    return theirs(name, service, hints, result);
}

/* Where the canary may listen. */
static bool is_of_this_machine(const struct sockaddr *address) {
    struct sockaddr_in in;
    memcpy(&in, address, sizeof in);
    uint32_t first = ntohl(in.sin_addr.s_addr) >> 24;
    return in.sin_family == AF_INET && (first == 127 || first == 0);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    static int (*theirs)(int, const struct sockaddr *, socklen_t);
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)outside.port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    if (theirs == NULL) {
        *(void **)&theirs = dlsym(RTLD_NEXT, "connect");
    }
    if (address->sa_family == AF_UNIX) { /* whoever asks the system for names */
        return theirs(fd, address, length);
    }
    if (address_is_public(address)) {
        assert_int_equal(address->sa_family, AF_INET);
        return theirs(fd, (const struct sockaddr *)&in, sizeof in);
    }
    stray += !may_go_inside;
    if (!may_go_inside && !is_of_this_machine(address)) { /* nobody outside hears of a mistake */
        errno = ECONNREFUSED;
        return -1;
    }
    return theirs(fd, address, length);
}

/* curl asks where a connection leads, for the last look before it sends. */
int getpeername(int fd, struct sockaddr *address, socklen_t *length) {
    static int (*theirs)(int, struct sockaddr *, socklen_t *);
    if (theirs == NULL) {
        *(void **)&theirs = dlsym(RTLD_NEXT, "getpeername");
    }
    int status = theirs(fd, address, length);
    struct sockaddr_in in;
    memcpy(&in, address, sizeof in);
    if (status == 0 && in.sin_family == AF_INET && ntohs(in.sin_port) == outside.port) {
        in.sin_addr.s_addr = inet_addr(PUBLIC);
        memcpy(address, &in, sizeof in);
    }
    return status;
}

/* The listeners. */

static void on_request(struct bufferevent *connection, void *context) {
    struct listener *listener = context;
    struct evbuffer *in = bufferevent_get_input(connection);
    struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
    if (end.pos >= 0) {
        (void)evbuffer_drain(in, evbuffer_get_length(in));
        listener->requests++;
        (void)evbuffer_add_printf(bufferevent_get_output(connection),
                                  "HTTP/1.1 %s\r\nLocation: http://" PRIVATE
                                  ":%d/\r\nContent-Length: 2\r\n\r\n{}",
                                  listener->redirects ? "302 Found" : "200 OK", canary.port);
    }
}

static void on_end(struct bufferevent *connection, short what, void *context) {
    (void)what;
    (void)context;
    bufferevent_free(connection);
}

static void on_accept(struct evconnlistener *of, evutil_socket_t fd, struct sockaddr *address,
                      int length, void *context) {
    struct listener *listener = context;
    (void)of;
    (void)address;
    (void)length;
    listener->accepted++;
    struct bufferevent *connection = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(connection, on_request, NULL, on_end, listener);
    (void)bufferevent_enable(connection, EV_READ | EV_WRITE);
}

static void listener_open(struct listener *listener) {
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    listener->listener =
        evconnlistener_new_bind(base, on_accept, listener, LEV_OPT_CLOSE_ON_FREE, 64,
                                (struct sockaddr *)&address, (int)sizeof address);
    assert_non_null(listener->listener);
    assert_int_equal(getsockname(evconnlistener_get_fd(listener->listener),
                                 (struct sockaddr *)&address, &length),
                     0);
    listener->port = ntohs(address.sin_port);
}

static int setup(void **state) {
    static const char *const proxies[] = { "http_proxy", "https_proxy", "HTTPS_PROXY",
                                           "HTTP_PROXY", "all_proxy",   "ALL_PROXY" };
    char proxy[64];
    (void)state;
    base = event_base_new();
    listener_open(&canary);
    listener_open(&outside);
    (void)snprintf(proxy, sizeof proxy, "http://" PRIVATE ":%d", canary.port);
    for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++) {
        (void)setenv(proxies[i], proxy, 1);
    }
    (void)unsetenv("no_proxy");
    (void)unsetenv("NO_PROXY");
    assert_ok(http_client_new(base, &client));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    http_client_free(client);
    (void)event_base_loop(base, EVLOOP_NONBLOCK); /* the listeners' connections end */
    evconnlistener_free(canary.listener);
    evconnlistener_free(outside.listener);
    event_base_free(base);
    return 0;
}

/* A request, and what became of it. */

struct end {
    bool done;
    enum http_outcome outcome;
    int status;
    char reason[256];
};

static void on_done(void *context, struct http_answer *answer) {
    struct end *end = context;
    *end = (struct end){ .done = true, .outcome = answer->outcome, .status = answer->status };
    (void)snprintf(end->reason, sizeof end->reason, "%s", answer->reason);
}

/* NULL: it is refused at once. */
static struct http_call *send_post(const char *url, bool allow_private, int64_t timeout_ms,
                                   struct end *end) {
    struct http_call *call;
    struct http_request_out request = { .method = "POST",
                                        .url = url,
                                        .body = strdup("secret"),
                                        .body_length = 6,
                                        .timeout_ms = timeout_ms,
                                        .answer_bytes_max = 1000,
                                        .allow_private = allow_private };
    *end = (struct end){ .done = false };
    return http_client_send(client, &request, on_done, end, &call) == DJ_OK ? call : NULL;
}

static struct end ask(const char *url, bool allow_private) {
    struct end end;
    may_go_inside = allow_private;
    if (send_post(url, allow_private, /* timeout_ms= */ 5000, &end) == NULL) {
        return (struct end){ .done = true, .outcome = HTTP_BROKEN };
    }
    while (!end.done) {
        (void)event_base_loop(base, EVLOOP_ONCE);
    }
    may_go_inside = false;
    return end;
}

static int wrong, tried;

/* It is refused: because of the address, where `by_address`; else because it is no URL that we
 * call. */
static void refused(const char *url, bool by_address) {
    int accepted = canary.accepted, strayed = stray;
    struct end end = ask(url, /* allow_private= */ false);
    tried++;
    if (end.outcome == HTTP_ANSWERED || (by_address && end.outcome != HTTP_REFUSED) ||
        canary.accepted != accepted || stray != strayed) {
        print_error("%s: outcome %d, %s; %d connections, %d to the canary\n", url, end.outcome,
                    end.reason, stray - strayed, canary.accepted - accepted);
        wrong++;
    }
}

/* Every address in every way to write it. */

static const char *const bases[] = {
    "0.0.0.0",         "0.1.2.3",       "10.0.0.1",        "10.255.255.254",  "100.64.0.1",
    "100.127.0.1",     "127.0.0.1",     "127.1.2.3",       "127.255.255.254", "169.254.0.1",
    "169.254.169.254", "169.254.170.2", "172.16.0.1",      "172.31.255.254",  "192.0.0.192",
    "192.0.2.1",       "192.168.0.1",   "192.168.255.254", "198.18.0.1",      "198.51.100.1",
    "203.0.113.1",     "224.0.0.1",     "239.255.255.250", "240.0.0.1",       "255.255.255.255",
};

/* Each conversion is of a part of the address: 1 to 4 are its bytes, 5 is all of it, 6 its last two
 * bytes, 7 its last three. */
static const struct {
    const char *text;
    const char *parts; /* up to four */
    bool by_address;   /* else it is enough that it is none to curl */
} forms[] = {
    { "%u.%u.%u.%u", "1234", true },
    { "%u", "5", true },
    { "0x%08x", "5", true },
    { "0%o", "5", true },
    { "0x%x.0x%x.0x%x.0x%x", "1234", true },
    { "0%o.0%o.0%o.0%o", "1234", true },
    { "%u.%u.%u", "126", true },
    { "%u.%u", "17", true },
    { "%%3%u", "1", false },
    { "[::ffff:%u.%u.%u.%u]", "1234", true },
    { "[::%u.%u.%u.%u]", "1234", true },
    { "[0:0:0:0:0:ffff:%02x%02x:%02x%02x]", "1234", true },
    { "[64:ff9b::%u.%u.%u.%u]", "1234", true },
    { "[64:ff9b:1::%u.%u.%u.%u]", "1234", true },
    { "[2002:%02x%02x:%02x%02x::1]", "1234", true },
    { "[2001:0:%02x%02x:%02x%02x::1]", "1234", true },
};

static void no_way_to_write_an_address_leads_inside(void **state) {
    char host[128], url[256];
    (void)state;
    wrong = tried = 0;
    for (size_t b = 0; b < sizeof bases / sizeof *bases; b++) {
        uint32_t all = ntohl(inet_addr(bases[b]));
        uint32_t parts[] = { all >> 24, all >> 16 & 255, all >> 8 & 255, all & 255,
                             all,       all & 0xffff,    all & 0xffffff };
        for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
            uint32_t of[4] = { 0 };
            for (size_t i = 0; forms[f].parts[i] != '\0'; i++) {
                of[i] = parts[forms[f].parts[i] - '1'];
            }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            (void)snprintf(host, sizeof host, forms[f].text, of[0], of[1], of[2], of[3]);
#pragma GCC diagnostic pop
            (void)snprintf(url, sizeof url, "http://%s:%d/", host, canary.port);
            refused(url, forms[f].by_address);
        }
    }
    print_message("%d targets, %d not refused; the canary accepted %d connections\n", tried, wrong,
                  canary.accepted);
    assert_in_range(tried, 200, 10000);
    assert_int_equal(wrong, 0);
    assert_int_equal(canary.accepted, 0);
}

/* # is the canary's port. */
static const struct {
    const char *url;
    bool by_address;
} others[] = {
    { "http://localhost:#/", true },
    { "http://LOCALHOST:#/", true },
    { "http://localhost.:#/", false },
    { "http://any.localhost:#/", true },
    { "http://127.0.0.1.:#/", false },
    { "http://127.1:#/", true },
    { "http://0:#/", true },
    { "http://0x0:#/", true },
    { "http://%31%32%37.0.0.1:#/", true },
    { "http://127。0。0。1:#/", false },
    { "http://１２７.0.0.1:#/", false },
    { "http://[::1]:#/", true },
    { "http://[::]:#/", true },
    { "http://[0000:0000:0000:0000:0000:0000:0000:0001]:#/", true },
    { "http://[::1%25lo]:#/", false },
    { "http://[fe80::1%25lo]:#/", false },
    { "http://[fc00::1]:#/", true },
    { "http://[fd00:ec2::254]:#/", true },
    { "http://[fec0::1]:#/", true },
    { "http://[ff02::1]:#/", true },
    { "http://[100::1]:#/", true },
    { "http://[2001:db8::1]:#/", true },
    { "http://[3fff::1]:#/", true },
    { "http://[5f00::1]:#/", true },
    { "http://user@127.0.0.1:#/", true },
    { "http://user:password@127.0.0.1:#/", true },
    { "http://public.test@127.0.0.1:#/", true },
    { "http://public.test:80@127.0.0.1:#/", true },
    { "http://127.0.0.1:22/", true },
    { "http://127.0.0.1:5432/", true },
    { "http://127.0.0.1:1/", true },
    { "http://public.test\\@127.0.0.1:#/", true },
    { "https://127.0.0.1:#/", true },
    { "https://localhost:#/", true },
    { "HTTP://127.0.0.1:#/", true },
    { "http:/127.0.0.1:#/", true },
    { "http:127.0.0.1:#/", false },
    { "//127.0.0.1:#/", false },
    { "127.0.0.1:#/", true },
    { "localhost:#", true },
    { "file:///etc/hostname", false },
    { "file://127.0.0.1/etc/hostname", false },
    { "gopher://127.0.0.1:#/_GET", false },
    { "dict://127.0.0.1:#/info", false },
    { "ftp://127.0.0.1:#/", false },
    { "sftp://127.0.0.1:#/", false },
    { "scp://127.0.0.1:#/", false },
    { "smb://127.0.0.1:#/", false },
    { "smtp://127.0.0.1:#/", false },
    { "imap://127.0.0.1:#/", false },
    { "pop3://127.0.0.1:#/", false },
    { "telnet://127.0.0.1:#/", false },
    { "tftp://127.0.0.1:#/", false },
    { "rtsp://127.0.0.1:#/", false },
    { "ldap://127.0.0.1:#/", false },
    { "mqtt://127.0.0.1:#/", false },
    { "ws://127.0.0.1:#/", false },
    { "unix:/run/postgresql/.s.PGSQL.5432", false },
    { "http://unix:/var/run/docker.sock:/", false },
    { "http+unix://%2Fvar%2Frun%2Fdocker.sock/", false },
    { "jar:http://127.0.0.1:#!/", false },
    { "data:text/plain,x", false },
    { "http://", false },
    { "http://:#/", false },
    { "http://loopback.test:#/", true },
    { "http://ten.test:#/", true },
    { "http://metadata.test/latest/meta-data/", true },
    { "http://six.test:#/", true },
    { "http://mapped.test:#/", true },
    { "http://local.test:#/", true },
    { "http://unique.test:#/", true },
    { "http://nowhere.test:#/", true },
    { "http://carrier.test:#/", true },
    { "http://multicast.test:#/", true },
    { "http://translated.test:#/", true },
    { "https://metadata.test:#/", true },
};

static void no_name_port_or_scheme_leads_inside(void **state) {
    char url[256];
    (void)state;
    wrong = tried = 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const char *port = strchr(others[i].url, '#');
        (void)snprintf(url, sizeof url, port == NULL ? "%.*s" : "%.*s%d%s",
                       port == NULL ? (int)strlen(others[i].url) : (int)(port - others[i].url),
                       others[i].url, canary.port, port == NULL ? "" : port + 1);
        refused(url, others[i].by_address);
    }
    print_message("%d targets, %d not refused; the canary accepted %d connections\n", tried, wrong,
                  canary.accepted);
    assert_int_equal(wrong, 0);
    assert_int_equal(canary.accepted, 0);
}

/* So the canary would have heard. Also: no proxy of the environment is asked, for it is the canary.
 */
static void public_targets_are_called_directly(void **state) {
    (void)state;
    int requests = outside.requests;
    assert_int_equal(ask("http://public.test/", false).outcome, HTTP_ANSWERED);
    assert_int_equal(ask("http://" PUBLIC ":7070/", false).outcome, HTTP_ANSWERED);
    assert_int_equal(outside.requests, requests + 2);
    assert_int_equal(canary.accepted, 0);
    assert_int_equal(stray, 0);
}

static void a_redirect_is_an_answer_and_not_followed(void **state) {
    (void)state;
    outside.redirects = true;
    struct end end = ask("http://public.test/", false);
    outside.redirects = false;
    assert_int_equal(end.outcome, HTTP_ANSWERED);
    assert_int_equal(end.status, 302);
    assert_int_equal(canary.accepted, 0);
    assert_int_equal(stray, 0);
}

/* DNS rebinding: it was public when it was looked at, and is not when it is called. */
static void a_name_that_changes_is_judged_each_time_it_is_connected_to(void **state) {
    struct http_client *kept = client;
    char url[64];
    (void)state;
    (void)snprintf(url, sizeof url, "http://rebind.test:%d/", canary.port);
    for (int round = 0; round < 20; round++) {
        /* Another client each time: nothing is remembered of the name, as with a lifetime of 0. */
        bool is_public = round % 2 == 0;
        rebind[0] = is_public ? PUBLIC : PRIVATE;
        rebind[1] = is_public ? PRIVATE : PUBLIC;
        assert_ok(http_client_new(base, &client));
        struct end end = ask(url, false);
        http_client_free(client);
        client = kept;
        assert_int_equal(end.outcome, is_public ? HTTP_ANSWERED : HTTP_REFUSED);
    }
    assert_int_equal(canary.accepted, 0);
    assert_int_equal(stray, 0);
}

/* Connections are kept for the next request to the same server, whoever made them: one that was
 * made with allow_private is not for a call without it. */
static void a_connection_that_was_allowed_is_not_for_others(void **state) {
    char url[64];
    (void)state;
    (void)snprintf(url, sizeof url, "http://" PRIVATE ":%d/", canary.port);
    assert_int_equal(ask(url, true).outcome, HTTP_ANSWERED);
    assert_int_equal(ask(url, true).outcome, HTTP_ANSWERED);
    assert_int_equal(canary.requests, 2); /* it hears what is said to it */
    assert_int_equal(canary.accepted, 1);
    assert_int_equal(ask(url, false).outcome, HTTP_REFUSED);
    assert_int_equal(canary.requests, 2);
    assert_int_equal(ask(url, true).outcome, HTTP_ANSWERED);
    assert_int_equal(canary.requests, 3);
}

/* Where no name server answers, a call's time ends as it would, and it can be dropped: what else
 * the loop has to do, beats among it, does not wait for the name. */
static void a_name_that_nobody_tells_keeps_nobody_waiting(void **state) {
    struct end end;
    (void)state;
    atomic_store(&silent, true);
    int64_t began_ms = clock_ms();
    assert_non_null(send_post("http://public.test:7071/", false, /* timeout_ms= */ 200, &end));
    while (!end.done && clock_ms() < began_ms + 5000) {
        (void)event_base_loop(base, EVLOOP_ONCE);
    }
    assert_int_equal(end.outcome, HTTP_NOT_REACHED);
    assert_in_range(clock_ms() - began_ms, 150, 2000);

    struct http_call *call =
        send_post("http://public.test:7072/", false, /* timeout_ms= */ 60000, &end);
    assert_non_null(call);
    while (atomic_load(&waiting) < 2) {
        (void)event_base_loop(base, EVLOOP_NONBLOCK);
    }
    began_ms = clock_ms();
    http_call_drop(call);
    assert_in_range(clock_ms() - began_ms, 0, 2000);
    assert_int_equal(atomic_load(&waiting), 2);

    atomic_store(&silent, false); /* who asked goes, and frees what it has */
    while (atomic_load(&waiting) > 0) {
        (void)usleep(1000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_way_to_write_an_address_leads_inside),
        cmocka_unit_test(no_name_port_or_scheme_leads_inside),
        cmocka_unit_test(public_targets_are_called_directly),
        cmocka_unit_test(a_redirect_is_an_answer_and_not_followed),
        cmocka_unit_test(a_name_that_changes_is_judged_each_time_it_is_connected_to),
        cmocka_unit_test(a_connection_that_was_allowed_is_not_for_others),
        cmocka_unit_test(a_name_that_nobody_tells_keeps_nobody_waiting),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
