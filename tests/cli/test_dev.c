/* durable dev: its own PostgreSQL, a busy port, and nothing left behind however it ends. */
#include "support.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];
static struct said said;
static int endpoint_port;

static int setup(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/durable-dev-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0755), 0);
    endpoint_port = free_port();
    return 0;
}

static int teardown(void **state) {
    char command[128];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    return 0;
}

/* Starts it and waits for its line. */
static pid_t dev_start(void) {
    char path[512], port[16], out[96], module[512], endpoint[64];
    (void)snprintf(path, sizeof path, "%s/cli/durable", getenv("DURABLE_BUILD"));
    (void)snprintf(module, sizeof module, "%s/tests/support/test_module.so",
                   getenv("DURABLE_BUILD"));
    (void)snprintf(port, sizeof port, "%d", free_port());
    (void)snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%d/", endpoint_port);
    (void)snprintf(out, sizeof out, "%s/said", dir);
    (void)unlink(out);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int fd = open(out, O_WRONLY | O_CREAT | O_APPEND, 0644);
        (void)dup2(fd, 1);
        (void)dup2(fd, 2);
        (void)unsetenv("DURABLE_DATABASE_URL");
        (void)execl(path, path, "dev", "--dir", dir, "--port", port, "--module", module,
                    "--endpoint", endpoint, NULL);
        _exit(127);
    }
    for (int tries = 0; tries < 600; tries++) {
        shell_said(&said, "cat %s 2>/dev/null", out);
        if (strstr(said.out, "durable dev: ready") != NULL) {
            return pid;
        }
        sleep_ms(100);
    }
    fail_msg("not ready: %s", said.out);
    return 0;
}

/* What the HTTP API says to the key of DIR/env. */
static void check_api(void) {
    shell_said(
        &said,
        "set -a; . %s/env; python3 -c 'import os, urllib.request as u; print(u.urlopen(u.Request("
        "os.environ[\"STACKSHIFT_URL\"] + \"/v1/runs\", b\"{\\\"job\\\":\\\"noop\\\"}\", "
        "{\"Authorization\": \"Bearer \" + os.environ[\"STACKSHIFT_API_KEY\"], "
        "\"Content-Type\": \"application/json\"})).status)'",
        dir);
    assert_string_equal(said.out, "201\n");
}

/* As DIR/env says it. */
static const char *database_url(void) {
    static char url[512];
    shell_said(&said, ". %s/env; printf '%%s' \"$DURABLE_DATABASE_URL\"", dir);
    (void)snprintf(url, sizeof url, "%s", said.out);
    assert_non_null(strstr(url, "postgres"));
    return url;
}

static bool names_dir(const char *process, const char *file) {
    char path[300], text[32768];
    (void)snprintf(path, sizeof path, "/proc/%s/%s", process, file);
    FILE *in = fopen(path, "r");
    if (in == NULL) {
        return false; /* gone already */
    }
    size_t length = fread(text, 1, sizeof text, in);
    (void)fclose(in);
    return memmem(text, length, dir, strlen(dir)) != NULL;
}

/* Processes whose command or environment names the directory. */
static int left_behind(void) {
    int count = 0;
    DIR *proc = opendir("/proc");
    assert_non_null(proc);
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
        if (isdigit((unsigned char)entry->d_name[0]) != 0 &&
            (names_dir(entry->d_name, "cmdline") || names_dir(entry->d_name, "environ"))) {
            count++;
        }
    }
    (void)closedir(proc);
    return count;
}

static void wait_gone(void) {
    for (int tries = 0; tries < 150; tries++) {
        if (left_behind() == 0) {
            return;
        }
        sleep_ms(100);
    }
    fail_msg("%d processes are still running", left_behind());
}

static void it_goes_on_with_what_was_there_however_it_was_ended(void **state) {
    static const int signals[] = { SIGINT, SIGKILL, SIGTERM };
    char id[40] = "";
    (void)state;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        pid_t pid = dev_start();
        PGconn *conn = connect_to(database_url());
        assert_true(left_behind() > 0);
        check_api();
        if (i == 0) {
            record_calls(conn);
            (void)snprintf(id, sizeof id, "%s", sql_text(conn, "select durable.start('waits')"));
        }
        wait_until(conn, 20, "select status = 'waiting' from durable.runs where id = '%s'", id);
        if (i == 2) {
            sql(conn, "select durable.send_event('go')");
            wait_until(conn, 20, "select status = 'completed' from durable.runs where id = '%s'",
                       id);
            assert_int_equal(sql_int(conn, "select count(*) from effect"), 1);
        }
        PQfinish(conn);
        int ended = end_process(pid, signals[i]);
        assert_int_equal(ended, signals[i] == SIGKILL ? -SIGKILL : 0);
        wait_gone();
    }
}

/* The endpoint comes up later, and is looked at then; its secret is in DIR/env, and the same the
 * next time. */
static void handlers_over_http_are_found_and_called(void **state) {
    char secret[128] = "";
    (void)state;
    for (int i = 0; i < 2; i++) {
        pid_t pid = dev_start();
        PGconn *conn = connect_to(database_url());
        shell_said(&said, "sed -n 's/^STACKSHIFT_SIGNING_SECRET=//p' %s/env", dir);
        said.out[strcspn(said.out, "\n")] = '\0';
        assert_true(i == 0 || strcmp(secret, said.out) == 0);
        (void)snprintf(secret, sizeof secret, "%.127s", said.out);
        pid_t endpoint = spawn_handlers(endpoint_port, secret);
        sql(conn, "select durable.start('five-steps')");
        wait_until(conn, 20,
                   "select count(*) = %d from durable.runs where job = 'five-steps' and status = "
                   "'completed' and "
                   "result = '5'",
                   i + 1);
        PQfinish(conn);
        (void)end_process(endpoint, SIGKILL);
        assert_int_equal(end_process(pid, SIGTERM), 0);
        wait_gone();
    }
}

static void a_port_in_use_is_named_and_nothing_started(void **state) {
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    char expected[64];
    (void)snprintf(expected, sizeof expected, "port %d is in use", ntohs(address.sin_port));
    durable(&said, "", "dev --dir %s/other --port %d", dir, ntohs(address.sin_port));
    assert_int_equal(said.status, 8);
    assert_non_null(strstr(said.err, expected));
    assert_non_null(strstr(said.err, "--port"));
    (void)snprintf(expected, sizeof expected, "%s/other", dir);
    assert_int_equal(access(expected, F_OK), -1);
    (void)close(fd);
}

static void a_second_one_in_the_same_directory_is_refused(void **state) {
    (void)state;
    pid_t pid = dev_start();
    durable(&said, "", "dev --dir %s --port %d", dir, free_port());
    assert_int_not_equal(said.status, 0);
    assert_non_null(strstr(said.err, dir));
    PGconn *conn = connect_to(database_url()); /* the first one is well */
    PQfinish(conn);
    assert_int_equal(end_process(pid, SIGTERM), 0);
    wait_gone();
}

static void bad_flags_are_named(void **state) {
    (void)state;
    durable(&said, "", "dev --module /nowhere/x.so");
    assert_int_equal(said.status, 2);
    assert_non_null(strstr(said.err, "/nowhere/x.so"));
    durable(&said, "", "dev --port 70000");
    assert_int_equal(said.status, 2);
    assert_non_null(strstr(said.err, "--port"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_on_with_what_was_there_however_it_was_ended),
        cmocka_unit_test(handlers_over_http_are_found_and_called),
        cmocka_unit_test(a_port_in_use_is_named_and_nothing_started),
        cmocka_unit_test(a_second_one_in_the_same_directory_is_refused),
        cmocka_unit_test(bad_flags_are_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
