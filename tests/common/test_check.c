#include "tests/common/unit.h"

#include "common/auto.h"
#include "common/check.h"
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void a_broken_promise_aborts_and_says_where(void **state) {
    (void)state;
    int ends[2];
    char text[500];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);
        check(ends[0] < 0);
        _exit(0);
    }
    (void)close(ends[1]);
    ssize_t length = read(ends[0], text, sizeof text - 1);
    assert_true(length > 0);
    text[length] = '\0';
    assert_non_null(strstr(text, "test_check.c:"));
    assert_non_null(strstr(text, "broken promise: ends[0] < 0"));
    (void)close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void what_is_taken_is_not_cleaned_up(void **state) {
    (void)state;
    char *given = NULL;
    {
        AUTO(free) char *text = strdup("mine");
        given = TAKE(text);
        assert_null(text);
    }
    assert_string_equal(given, "mine");
    free(given);
}

static void a_descriptor_is_closed_at_the_end_of_its_block(void **state) {
    (void)state;
    int number;
    {
        AUTO(fd) int fd = dup(STDOUT_FILENO);
        number = fd;
        assert_true(fd >= 0);
    }
    assert_int_equal(close(number), -1);
}

static void cleanups_accept_nothing(void **state) {
    (void)state;
    AUTO(free) char *text = NULL;
    AUTO(json) json_object *value = NULL;
    AUTO(pgresult) PGresult *result = NULL;
    AUTO(fd) int fd = -1;
    assert_null(text);
    assert_null(value);
    assert_null(result);
    assert_int_equal(fd, -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_promise_aborts_and_says_where),
        cmocka_unit_test(what_is_taken_is_not_cleaned_up),
        cmocka_unit_test(a_descriptor_is_closed_at_the_end_of_its_block),
        cmocka_unit_test(cleanups_accept_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
