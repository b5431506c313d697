#include "tests/common/unit.h"

#include "common/config.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    const char *url;
    struct config_texts modules;
    int slots;
    int64_t grace_ms;
    bool json;
} set;

static const struct config_option options[] = {
    { .flag = "database-url",
      .environment = "TEST_URL",
      .value_name = "URL",
      .help = "the PostgreSQL to work on, said at such a length that it takes a "
              "second line of the "
              "help",
      .kind = CONFIG_TEXT,
      .target = &set.url },
    { .flag = "module",
      .environment = "TEST_MODULE",
      .value_name = "FILE",
      .help = "may be repeated",
      .kind = CONFIG_TEXTS,
      .target = &set.modules },
    { .flag = "slots",
      .environment = "TEST_SLOTS",
      .value_name = "N",
      .default_text = "1024",
      .help = "runs in hand at most",
      .kind = CONFIG_INT,
      .target = &set.slots,
      .min = 1,
      .max = 10000 },
    { .flag = "grace", .help = "for a drain", .kind = CONFIG_DURATION, .target = &set.grace_ms },
    { .flag = "json",
      .environment = "TEST_JSON",
      .help = "print JSON",
      .kind = CONFIG_SWITCH,
      .target = &set.json },
    { .flag = NULL },
};

static const struct config_command command = {
    .program = "durable test",
    .arguments = "JOB [PAYLOAD]",
    .summary = "tries the settings",
    .details = "More about it.",
    .options = options,
    .arguments_min = 0,
    .arguments_max = 2,
};

static char **argv; /* of the last parse() */
static int first;

/* Parses the words of a command line. */
static dj_status parse(const char *line) {
    static char text[500];
    static char *words[32];
    int count = 0;
    char *rest = NULL;
    (void)snprintf(text, sizeof text, "program %s", line);
    for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        words[count++] = word;
    }
    words[count] = NULL;
    argv = words;
    return config_parse(&command, count, words, &first);
}

static int begin(void **state) {
    (void)state;
    memset(&set, 0, sizeof set);
    (void)unsetenv("TEST_URL");
    (void)unsetenv("TEST_MODULE");
    (void)unsetenv("TEST_SLOTS");
    (void)unsetenv("TEST_JSON");
    return 0;
}

static void flags_set_values_of_every_kind(void **state) {
    (void)state;
    assert_ok(parse("--database-url=pg://a=b --module x.so --module=y.so --slots "
                    "10000 --grace 1m30s "
                    "--json"));
    assert_string_equal(set.url, "pg://a=b");
    assert_int_equal(set.modules.count, 2);
    assert_string_equal(set.modules.texts[0], "x.so");
    assert_string_equal(set.modules.texts[1], "y.so");
    assert_int_equal(set.slots, 10000);
    assert_int_equal(set.grace_ms, 90000);
    assert_true(set.json);
}

static void arguments_are_gathered_in_their_order(void **state) {
    (void)state;
    assert_ok(parse("pay --json {} "));
    assert_string_equal(argv[first], "pay");
    assert_string_equal(argv[first + 1], "{}");
    assert_null(argv[first + 2]);
    assert_true(set.json);
}

static void behind_two_dashes_there_are_no_flags(void **state) {
    (void)state;
    assert_ok(parse("-- --json -x"));
    assert_string_equal(argv[first], "--json");
    assert_string_equal(argv[first + 1], "-x");
    assert_false(set.json);
}

static void numbers_and_a_lone_dash_are_arguments(void **state) {
    (void)state;
    assert_ok(parse("- -5"));
    assert_string_equal(argv[first], "-");
    assert_string_equal(argv[first + 1], "-5");
}

static void the_environment_sets_what_no_flag_does(void **state) {
    (void)state;
    (void)setenv("TEST_URL", "pg://environment", 1);
    (void)setenv("TEST_MODULE", "e.so", 1);
    (void)setenv("TEST_SLOTS", "", 1); /* empty is as if it were not set */
    (void)setenv("TEST_JSON", "yes", 1);
    assert_ok(parse("--module f.so"));
    assert_string_equal(set.url, "pg://environment");
    assert_int_equal(set.modules.count, 1);
    assert_string_equal(set.modules.texts[0], "f.so");
    assert_int_equal(set.slots, 0);
    assert_true(set.json);
    assert_ok(parse("--json=false --database-url pg://flag"));
    assert_string_equal(set.url, "pg://flag");
    assert_false(set.json);
}

static void a_bad_value_names_its_flag_and_what_is_allowed(void **state) {
    (void)state;
    assert_fails(parse("--slots 0"), DJ_INVALID_ARGUMENT,
                 "--slots '0' is not allowed; a number from 1 to 10000 is");
    assert_fails(parse("--slots 10001"), DJ_INVALID_ARGUMENT, "from 1 to 10000");
    assert_fails(parse("--slots 5x"), DJ_INVALID_ARGUMENT, "from 1 to 10000");
    assert_fails(parse("--slots="), DJ_INVALID_ARGUMENT, "from 1 to 10000");
    assert_fails(parse("--slots 99999999999999999999"), DJ_INVALID_ARGUMENT, "from 1 to 10000");
    assert_fails(parse("--grace soon"), DJ_INVALID_ARGUMENT, "--grace 'soon' is not a duration");
    assert_fails(parse("--grace 5"), DJ_INVALID_ARGUMENT, "--grace '5' is not a duration");
    assert_fails(parse("--json=maybe"), DJ_INVALID_ARGUMENT, "--json 'maybe'");
    assert_fails(parse("--slots"), DJ_INVALID_ARGUMENT, "--slots needs a value: --slots N");
    assert_fails(parse("--grace"), DJ_INVALID_ARGUMENT, "--grace needs a value: --grace VALUE");
}

static void a_bad_variable_is_named(void **state) {
    (void)state;
    (void)setenv("TEST_SLOTS", "many", 1);
    assert_fails(parse(""), DJ_INVALID_ARGUMENT, "TEST_SLOTS 'many'");
}

static void an_unknown_flag_suggests_the_nearest(void **state) {
    (void)state;
    assert_fails(parse("--slot 5"), DJ_INVALID_ARGUMENT,
                 "--slot is not known; did you mean --slots");
    assert_fails(parse("--databse-url x"), DJ_INVALID_ARGUMENT, "did you mean --database-url");
    assert_fails(parse("--slost 1"), DJ_INVALID_ARGUMENT, "did you mean --slots");
    assert_fails(parse("--hepl"), DJ_INVALID_ARGUMENT, "did you mean --help");
    assert_fails(parse("-json"), DJ_INVALID_ARGUMENT, "-json is not known; did you mean --json");
    assert_fails(parse("--qqqqqqqq"), DJ_INVALID_ARGUMENT, "--help shows what is");
    assert_fails(parse("-q"), DJ_INVALID_ARGUMENT, "--help shows what is");
    char line[300] = "--";
    memset(line + 2, 'a', sizeof line - 3);
    assert_fails(parse(line), DJ_INVALID_ARGUMENT, "is not known");
}

static void too_many_and_too_few_are_refused(void **state) {
    (void)state;
    assert_fails(parse("a b c"), DJ_INVALID_ARGUMENT,
                 "too many arguments; usage: durable test JOB");
    char line[300];
    size_t length = 0;
    for (int i = 0; i <= CONFIG_TEXTS_MAX / 2; i++) {
        length += (size_t)snprintf(line + length, sizeof line - length, "--module=x ");
    }
    assert_ok(parse(line));
    assert_fails(parse(line), DJ_INVALID_ARGUMENT, "--module is given too often; 32 times");
    struct config_command strict = command;
    char *none[] = { (char[]){ "program" }, NULL };
    strict.arguments_min = 1;
    assert_fails(config_parse(&strict, 1, none, &first), DJ_INVALID_ARGUMENT,
                 "an argument is missing");
}

static void the_help_is_laid_out_for_80_columns(void **state) {
    (void)state;
    static const char expected[] =
        "durable test: tries the settings\n"
        "\n"
        "Usage: durable test [options] JOB [PAYLOAD]\n"
        "\n"
        "More about it.\n"
        "\n"
        "Options (a variable in brackets sets the same):\n"
        "  --database-url URL  the PostgreSQL to work on, said at such a length "
        "that it\n"
        "                      takes a second line of the help [TEST_URL]\n"
        "  --module FILE       may be repeated [TEST_MODULE]\n"
        "  --slots N           runs in hand at most (default: 1024) "
        "[TEST_SLOTS]\n"
        "  --grace VALUE       for a drain\n"
        "  --json              print JSON [TEST_JSON]\n"
        "  --help              show this\n"
        "  --version           show the version\n";
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    config_print_help(&command, out);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text, expected);
    free(text);
}

/* What the command line prints, and that it ends the program well. */
static void assert_prints(const char *line, const char *start) {
    int ends[2];
    char text[200];
    assert_int_equal(pipe(ends), 0);
    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)close(ends[0]);
        (void)close(ends[1]);
        _exit(parse(line) == DJ_OK ? 98 : 99);
    }
    (void)close(ends[1]);
    FILE *in = fdopen(ends[0], "r");
    size_t length = fread(text, 1, sizeof text - 1, in);
    text[length] = '\0';
    while (fgetc(in) != EOF) {
    }
    (void)fclose(in);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    text[strlen(start)] = '\0';
    assert_string_equal(text, start);
}

static void help_and_version_work_in_a_broken_environment(void **state) {
    (void)state;
    (void)setenv("TEST_SLOTS", "many", 1);
    assert_prints("--json --help", "durable test: tries the settings\n");
    assert_prints("-h", "durable test: tries the settings\n");
    assert_prints("--version", "durable test 0.");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(flags_set_values_of_every_kind, begin),
        cmocka_unit_test_setup(arguments_are_gathered_in_their_order, begin),
        cmocka_unit_test_setup(behind_two_dashes_there_are_no_flags, begin),
        cmocka_unit_test_setup(numbers_and_a_lone_dash_are_arguments, begin),
        cmocka_unit_test_setup(the_environment_sets_what_no_flag_does, begin),
        cmocka_unit_test_setup(a_bad_value_names_its_flag_and_what_is_allowed, begin),
        cmocka_unit_test_setup(a_bad_variable_is_named, begin),
        cmocka_unit_test_setup(an_unknown_flag_suggests_the_nearest, begin),
        cmocka_unit_test_setup(too_many_and_too_few_are_refused, begin),
        cmocka_unit_test_setup(the_help_is_laid_out_for_80_columns, begin),
        cmocka_unit_test_setup(help_and_version_work_in_a_broken_environment, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
