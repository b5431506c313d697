/* Flags first: --help works in a broken environment, and a flag wins over its variable. */
#include "common/config.h"

#include "common/check.h"
#include "common/duration.h"
#include "common/versions.h"
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 64 /* of a flag */
#define HELP_COLUMNS 79
#define HELP_LEFT_MIN 16
#define HELP_LEFT_MAX 30

static const char *value_name(const struct config_option *option) {
    if (option->kind == CONFIG_SWITCH) {
        return "";
    }
    return option->value_name == NULL ? "VALUE" : option->value_name;
}

static dj_status set_int(const struct config_option *option, const char *name, const char *text) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < option->min || value > option->max) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s '%s' is not allowed; a number from %ld to %ld is",
                       name, text, option->min, option->max);
    }
    *(int *)option->target = (int)value;
    return DJ_OK;
}

static dj_status set_switch(const struct config_option *option, const char *name,
                            const char *text) {
    static const char *const words[] = { "false", "0", "no", "off", "true", "1", "yes", "on" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i]) == 0) {
            *(bool *)option->target = i >= 4;
            return DJ_OK;
        }
    }
    return dj_fail(DJ_INVALID_ARGUMENT, "%s '%s' is not allowed; true or false is", name, text);
}

/* `name` is the flag or the variable, for the error. */
static dj_status set_option(const struct config_option *option, const char *name,
                            const char *text) {
    switch (option->kind) {
    case CONFIG_TEXT:
        *(const char **)option->target = text;
        return DJ_OK;
    case CONFIG_TEXTS: {
        struct config_texts *texts = option->target;
        if (texts->count == CONFIG_TEXTS_MAX) {
            return dj_fail(DJ_INVALID_ARGUMENT, "%s is given too often; %d times is allowed", name,
                           CONFIG_TEXTS_MAX);
        }
        texts->texts[texts->count++] = text;
        return DJ_OK;
    }
    case CONFIG_INT:
        return set_int(option, name, text);
    case CONFIG_DURATION:
        return duration_parse(name, text, option->target);
    case CONFIG_SWITCH:
        return set_switch(option, name, text);
    }
    return dj_fail(DJ_INTERNAL, "option %s has no kind", name);
}

/* `given` has a bit for each option that a flag has set. */
static dj_status read_environment(const struct config_command *command, uint64_t given) {
    for (int i = 0; command->options[i].flag != NULL; i++) {
        const struct config_option *option = &command->options[i];
        bool open = option->environment != NULL && ((given >> i) & 1) == 0;
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): there are no threads yet */
        const char *text = open ? getenv(option->environment) : NULL;
        if (text != NULL && text[0] != '\0') {
            DJ_TRY(set_option(option, option->environment, text));
        }
    }
    return DJ_OK;
}

static int smaller(int a, int b) {
    return a < b ? a : b;
}

/* How many letters have to be changed to make one of the other. */
static int distance(const char *a, const char *b) {
    int row[64] = { 0 };
    int width = smaller((int)strlen(b), 62);
    for (int j = 0; j <= width; j++) {
        row[j] = j;
    }
    for (int i = 0; a[i] != '\0'; i++) {
        int corner = row[0];
        row[0] = i + 1;
        for (int j = 1; j <= width; j++) {
            int above = row[j];
            row[j] = smaller(smaller(above, row[j - 1]) + 1, corner + (a[i] != b[j - 1]));
            corner = above;
        }
    }
    return row[width];
}

/* The known flag that is least different; NULL where all are other words. */
static const char *nearest_flag(const struct config_command *command, const char *flag) {
    int best = smaller((int)strlen(flag) / 2, 3) + 1;
    const char *nearest = NULL;
    for (int i = -2; i < 0 || command->options[i].flag != NULL; i++) {
        const char *known = i == -2 ? "help" : i == -1 ? "version" : command->options[i].flag;
        int changes = distance(flag, known);
        if (changes < best) {
            best = changes;
            nearest = known;
        }
    }
    return nearest;
}

/* `dashes` are as they were typed. */
static dj_status unknown_flag(const struct config_command *command, const char *dashes,
                              const char *flag) {
    const char *nearest = nearest_flag(command, flag);
    if (nearest == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s%s is not known; --help shows what is", dashes,
                       flag);
    }
    return dj_fail(DJ_INVALID_ARGUMENT, "%s%s is not known; did you mean --%s", dashes, flag,
                   nearest);
}

static void print_and_exit(const struct config_command *command, bool help) {
    if (help) {
        config_print_help(command, stdout);
    } else {
        versions_print(command->program, stdout);
    }
    exit(0); /* NOLINT(concurrency-mt-unsafe): a program has no threads yet when it reads its flags
              */
}

/* The number of the option of that name; -1: there is none. */
static int option_named(const struct config_command *command, const char *name) {
    for (int i = 0; command->options[i].flag != NULL; i++) {
        assert(i < CONFIG_OPTIONS_MAX);
        if (strcmp(command->options[i].flag, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* One flag at argv[*at]; *at is left at what it used up. */
static dj_status read_flag(const struct config_command *command, int argc, char **argv, int *at,
                           uint64_t *given) {
    char shown[NAME_BYTES + 2];
    (void)snprintf(shown, sizeof shown, "%.*s", (int)strcspn(argv[*at], "="), argv[*at]);
    const char *name = shown + 2;
    const char *equals = strchr(argv[*at], '=');
    if (strcmp(name, "help") == 0 || strcmp(name, "version") == 0) {
        print_and_exit(command, name[0] == 'h');
    }
    int number = option_named(command, name);
    if (number < 0) {
        return unknown_flag(command, "--", name);
    }
    const struct config_option *option = &command->options[number];
    *given |= 1ULL << number;
    if (equals != NULL || option->kind == CONFIG_SWITCH) {
        return set_option(option, shown, equals == NULL ? "true" : equals + 1);
    }
    if (*at + 1 >= argc) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s needs a value: %s %s", shown, shown,
                       value_name(option));
    }
    (*at)++;
    return set_option(option, shown, argv[*at]);
}

/* -x and the like: a mistyped flag rather than an argument. A lone - and numbers are arguments. */
static bool has_one_dash(const char *text) {
    char lower = (char)(text[0] == '-' ? text[1] | 0x20 : 0);
    return lower >= 'a' && lower <= 'z';
}

static dj_status read_flags(const struct config_command *command, int argc, char **argv,
                            uint64_t *given, int *ret_kept) {
    int kept = 0;
    bool flags = true;
    for (int at = 1; at < argc; at++) {
        if (flags && strcmp(argv[at], "--") == 0) {
            flags = false;
        } else if (flags && strncmp(argv[at], "--", 2) == 0) {
            DJ_TRY(read_flag(command, argc, argv, &at, given));
        } else if (flags && strcmp(argv[at], "-h") == 0) {
            print_and_exit(command, /* help= */ true);
        } else if (flags && has_one_dash(argv[at])) {
            return unknown_flag(command, "-", argv[at] + 1);
        } else {
            argv[1 + kept++] = argv[at];
        }
    }
    argv[1 + kept] = NULL;
    *ret_kept = kept;
    return DJ_OK;
}

dj_status config_parse(const struct config_command *command, int argc, char **argv,
                       int *ret_first) {
    uint64_t given = 0;
    int kept = 0;
    if (argc < 1) {
        return dj_fail(DJ_INVALID_ARGUMENT, "the program was started without its own name");
    }
    DJ_TRY(read_flags(command, argc, argv, &given, &kept));
    DJ_TRY(read_environment(command, given));
    bool too_many = command->arguments_max >= 0 && kept > command->arguments_max;
    if (kept < command->arguments_min || too_many) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s; usage: %s %s",
                       too_many ? "too many arguments" : "an argument is missing", command->program,
                       command->arguments == NULL ? "[options]" : command->arguments);
    }
    *ret_first = 1;
    return DJ_OK;
}

/* Prints words from column `column` on, and begins a new line there where the next would not fit.
 */
static void print_wrapped(FILE *out, int column, const char *text) {
    int at = column;
    while (*text != '\0') {
        int length = (int)strcspn(text, " ");
        if (at > column && at + 1 + length > HELP_COLUMNS) {
            (void)fprintf(out, "\n%*s", column, "");
            at = column;
        }
        at += fprintf(out, "%s%.*s", at > column ? " " : "", length, text);
        text += length;
        text += strspn(text, " ");
    }
    (void)fputc('\n', out);
}

static void print_option(FILE *out, int column, const struct config_option *option) {
    char text[1024];
    const char *value = value_name(option);
    int left = fprintf(out, "  --%s%s%s", option->flag, value[0] == '\0' ? "" : " ", value);
    if (left + 2 > column) { /* too long to have its help beside it */
        (void)fputc('\n', out);
        left = 0;
    }
    (void)fprintf(out, "%*s", column - left, "");
    const char *default_text = option->default_text;
    const char *environment = option->environment;
    (void)snprintf(
        text, sizeof text, "%s%s%s%s%s%s%s", option->help,
        default_text == NULL ? "" : " (default: ", default_text == NULL ? "" : default_text,
        default_text == NULL ? "" : ")", environment == NULL ? "" : " [",
        environment == NULL ? "" : environment, environment == NULL ? "" : "]");
    print_wrapped(out, column, text);
}

void config_print_help(const struct config_command *command, FILE *out) {
    const struct config_option own[] = {
        { .flag = "help", .help = "show this", .kind = CONFIG_SWITCH },
        { .flag = "version", .help = "show the version", .kind = CONFIG_SWITCH }
    };
    int column = 0;
    for (const struct config_option *option = command->options; option->flag != NULL; option++) {
        int wide = (int)(strlen(option->flag) + strlen(value_name(option))) + 7;
        column = wide > column && wide <= HELP_LEFT_MAX ? wide : column;
    }
    column = column < HELP_LEFT_MIN ? HELP_LEFT_MIN : column;
    (void)fprintf(out, "%s: %s\n\nUsage: %s [options]%s%s\n", command->program, command->summary,
                  command->program, command->arguments == NULL ? "" : " ",
                  command->arguments == NULL ? "" : command->arguments);
    if (command->details != NULL) {
        (void)fprintf(out, "\n%s\n", command->details);
    }
    (void)fprintf(out, "\nOptions (a variable in brackets sets the same):\n");
    for (const struct config_option *option = command->options; option->flag != NULL; option++) {
        print_option(out, column, option);
    }
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        print_option(out, column, &own[i]);
    }
}
