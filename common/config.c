#include "common/config.h"

#include "common/duration.h"
#include <durable/version.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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
        *(bool *)option->target = strcmp(text, "0") != 0 && strcmp(text, "false") != 0;
        return DJ_OK;
    }
    return dj_fail(DJ_INTERNAL, "option %s has no kind", name);
}

static dj_status read_environment(const struct config_command *command) {
    for (const struct config_option *option = command->options; option->flag != NULL; option++) {
        const char *text = option->environment == NULL ? NULL : getenv(option->environment);
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
    int row[64];
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

static dj_status unknown_flag(const struct config_command *command, const char *flag) {
    const char *nearest = "help";
    int best = distance(flag, nearest);
    for (const struct config_option *option = command->options; option->flag != NULL; option++) {
        int d = distance(flag, option->flag);
        if (d < best) {
            best = d;
            nearest = option->flag;
        }
    }
    if (best > 3) {
        nearest = "help";
    }
    return dj_fail(DJ_INVALID_ARGUMENT, "--%s is not known; %s --%s", flag,
                   strcmp(nearest, "help") == 0 ? "what is, shows" : "did you mean", nearest);
}

/* One flag at argv[*at]; *at is left at what it used up. */
static dj_status read_flag(const struct config_command *command, int argc, char **argv, int *at) {
    char name[64];
    const char *flag = argv[*at] + 2;
    const char *equals = strchr(flag, '=');
    size_t length = equals == NULL ? strlen(flag) : (size_t)(equals - flag);
    (void)snprintf(name, sizeof name, "%.*s", (int)(length > 60 ? 60 : length), flag);
    if (strcmp(name, "help") == 0) {
        config_print_help(command, stdout);
        exit(0);
    }
    if (strcmp(name, "version") == 0) {
        (void)printf("%s %s\n", command->program, DURABLE_VERSION);
        exit(0);
    }
    const struct config_option *option = command->options;
    while (option->flag != NULL && strcmp(option->flag, name) != 0) {
        option++;
    }
    if (option->flag == NULL) {
        return unknown_flag(command, name);
    }
    char shown[80];
    (void)snprintf(shown, sizeof shown, "--%s", name);
    if (option->kind == CONFIG_SWITCH) {
        return set_option(option, shown, equals == NULL ? "1" : equals + 1);
    }
    if (equals != NULL) {
        return set_option(option, shown, equals + 1);
    }
    if (*at + 1 >= argc) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s needs a value: %s %s", shown, shown,
                       option->value_name == NULL ? "VALUE" : option->value_name);
    }
    (*at)++;
    return set_option(option, shown, argv[*at]);
}

dj_status config_parse(const struct config_command *command, int argc, char **argv,
                       int *ret_first) {
    DJ_TRY(read_environment(command));
    int kept = 0;
    bool flags = true;
    for (int at = 1; at < argc; at++) {
        if (flags && strcmp(argv[at], "--") == 0) {
            flags = false;
        } else if (flags && strcmp(argv[at], "-h") == 0) {
            config_print_help(command, stdout);
            exit(0);
        } else if (flags && strncmp(argv[at], "--", 2) == 0) {
            DJ_TRY(read_flag(command, argc, argv, &at));
        } else {
            argv[1 + kept++] = argv[at];
        }
    }
    bool too_many = command->arguments_max >= 0 && kept > command->arguments_max;
    if (kept < command->arguments_min || too_many) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s; usage: %s %s",
                       too_many ? "too many arguments" : "an argument is missing", command->program,
                       command->arguments == NULL ? "" : command->arguments);
    }
    argv[1 + kept] = NULL;
    *ret_first = 1;
    return DJ_OK;
}

void config_print_help(const struct config_command *command, FILE *out) {
    (void)fprintf(out, "%s: %s\n\nUsage: %s [options]%s%s\n", command->program, command->summary,
                  command->program, command->arguments == NULL ? "" : " ",
                  command->arguments == NULL ? "" : command->arguments);
    if (command->details != NULL) {
        (void)fprintf(out, "\n%s\n", command->details);
    }
    (void)fprintf(out, "\nOptions:\n");
    for (const struct config_option *option = command->options; option->flag != NULL; option++) {
        char left[64];
        (void)snprintf(left, sizeof left, "--%s %s", option->flag,
                       option->kind == CONFIG_SWITCH ? ""
                       : option->value_name == NULL  ? "VALUE"
                                                     : option->value_name);
        (void)fprintf(out, "  %-26s %s", left, option->help);
        if (option->default_text != NULL) {
            (void)fprintf(out, " (default: %s)", option->default_text);
        }
        if (option->environment != NULL) {
            (void)fprintf(out, " [%s]", option->environment);
        }
        (void)fputc('\n', out);
    }
    (void)fprintf(out, "  %-26s %s\n  %-26s %s\n", "--help", "show this", "--version",
                  "show the version");
}
