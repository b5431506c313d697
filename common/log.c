/* Lines are built on the stack and written at once, so that those of threads and processes do not
 * mix. */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX 4096
#define VALUE_BYTES_MAX 1024

static dj_level least_level = DJ_INFO;
static const char *program = "durable";
static void (*sink)(void *context, dj_level level, const char *line);
static void *sink_context;

void log_set_level(dj_level least) {
    least_level = least;
}

void log_set_program(const char *name) {
    program = name;
}

void log_set_sink(void (*new_sink)(void *, dj_level, const char *), void *context) {
    sink = new_sink;
    sink_context = context;
}

const char *log_int(char text[24], long long number) {
    (void)snprintf(text, 24, "%lld", number);
    return text;
}

struct line {
    char text[LINE_BYTES_MAX];
    size_t length;
};

static void add(struct line *line, char c) {
    if (line->length < sizeof line->text - 2) {
        line->text[line->length++] = c;
    }
}

static void add_text(struct line *line, const char *text) {
    while (*text != '\0') {
        add(line, *text++);
    }
}

/* In quotes where it has more than letters; no value can end the line or forge another. */
static void add_value(struct line *line, const char *value) {
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/@-";
    size_t length = strnlen(value, VALUE_BYTES_MAX);
    if (length > 0 && strspn(value, plain) >= length) {
        for (size_t i = 0; i < length; i++) {
            add(line, value[i]);
        }
        return;
    }
    add(line, '"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)value[i];
        if (c == '"' || c == '\\') {
            add(line, '\\');
        }
        if (c < ' ' || c == 0x7F) {
            char escape[8];
            (void)snprintf(escape, sizeof escape, "\\x%02x", c);
            add_text(line, escape);
        } else {
            add(line, (char)c);
        }
    }
    add(line, '"');
}

void log_event(dj_level level, const char *event, ...) {
    static const char *const names[] = { "debug", "info", "warning", "error" };
    if (level < least_level) {
        return;
    }
    int saved = errno;
    struct line line = { .length = 0 };
    if (sink == NULL) {
        struct timespec now;
        struct tm tm;
        char stamp[64], date[32];
        (void)clock_gettime(CLOCK_REALTIME, &now);
        (void)gmtime_r(&now.tv_sec, &tm);
        (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
        (void)snprintf(stamp, sizeof stamp, "%s.%03ldZ %s ", date, now.tv_nsec / 1000000,
                       names[level]);
        add_text(&line, stamp);
        add_text(&line, program);
        add(&line, ' ');
    }
    add_text(&line, event);
    va_list pairs;
    va_start(pairs, event);
    for (const char *key; (key = va_arg(pairs, const char *)) != NULL;) {
        const char *value = va_arg(pairs, const char *);
        add(&line, ' ');
        add_text(&line, key);
        add(&line, '=');
        add_value(&line, value == NULL ? "" : value);
    }
    va_end(pairs);
    if (sink != NULL) {
        line.text[line.length] = '\0';
        sink(sink_context, level, line.text);
    } else {
        line.text[line.length++] = '\n';
        ssize_t written = write(STDERR_FILENO, line.text, line.length);
        (void)written; /* there is nowhere left to say it */
    }
    errno = saved;
}
