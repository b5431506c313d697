/* Lines are built on the stack and written at once, so that those of threads and processes do not
 * mix. What does not fit is cut off at a whole character, and nothing follows it. Any thread, any
 * time; the sink and the program's name are set before there are threads. */
#include "common/log.h"

#include "common/bounds.h"
#include "common/check.h"
#include "common/rfc3339.h"
#include "common/text.h"
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define VALUE_BYTES_MAX 1024

static atomic_int least_level = DJ_INFO;
static const char *program = "durable";
static void (*sink)(void *context, dj_level level, const char *line);
static void *sink_context;

void log_set_level(dj_level least) {
    atomic_store_explicit(&least_level, (int)least, memory_order_relaxed);
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
    char text[LOG_LINE_BYTES_MAX];
    size_t length;
    bool full; /* something did not fit */
};

/* Adds all of it or, as soon as something did not fit, nothing. Two bytes are kept for a quote and
 * the end. */
static void add(struct line *line, const char *text, size_t length) {
    line->full |= line->length + length > sizeof line->text - 2;
    if (!line->full) {
        memcpy(line->text + line->length, text, length);
        line->length += length;
    }
}

static void add_text(struct line *line, const char *text) {
    add(line, text, strlen(text));
}

/* One character of a value in quotes; answers its bytes. What is none, and what moves a terminal's
 * cursor, is escaped: U+0080 to U+009F are control characters, too. */
static size_t add_character(struct line *line, const char *at, size_t left) {
    size_t length = text_char_bytes(at, left);
    unsigned char c = (unsigned char)*at;
    if (c == '"' || c == '\\') {
        char escape[2] = { '\\', *at };
        add(line, escape, sizeof escape);
    } else if (length == 0 || c < ' ' || c == 0x7F || (c == 0xC2 && (unsigned char)at[1] < 0xA0)) {
        char escape[8];
        (void)snprintf(escape, sizeof escape, "\\x%02x", c);
        add_text(line, escape);
        return 1;
    } else {
        add(line, at, length);
    }
    return length;
}

/* In quotes where it has more than letters; no value can end the line or forge another. */
static void add_value(struct line *line, const char *value) {
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/@-";
    size_t length = strnlen(value, VALUE_BYTES_MAX + 1);
    bool cut = length > VALUE_BYTES_MAX;
    length -= cut ? 1 : 0;
    if (length > 0 && !cut && strspn(value, plain) == length) {
        add(line, value, length);
        return;
    }
    add_text(line, "\"");
    bool open = !line->full;
    for (size_t at = 0; at < length && !line->full;) {
        if (cut && length - at < 4 && text_char_bytes(value + at, length - at) == 0) {
            break; /* a character that the cut goes through */
        }
        at += add_character(line, value + at, length - at);
    }
    if (open) {
        line->text[line->length++] = '"'; /* there is room kept for it */
    }
}

static void add_stamp(struct line *line) {
    struct timespec now;
    char stamp[32];
    (void)clock_gettime(CLOCK_REALTIME, &now);
    rfc3339_print((int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000, stamp);
    add_text(line, stamp);
    add_text(line, " ");
}

static void write_line(const char *text, size_t length) {
    ssize_t written;
    do {
        written = write(STDERR_FILENO, text, length);
    } while (written < 0 && errno == EINTR); /* else there is nowhere left to say it */
}

void log_event(dj_level level, const char *event, ...) {
    static const char *const names[] = { "debug", "info", "warning", "error" };
    assert((size_t)level < sizeof names / sizeof *names);
    if ((int)level < atomic_load_explicit(&least_level, memory_order_relaxed)) {
        return;
    }
    int saved = errno;
    struct line line;
    line.length = 0; /* the text is 8 KiB, and need not be zeroed */
    line.full = false;
    if (sink == NULL) {
        add_stamp(&line);
        add_text(&line, names[level]);
        add_text(&line, " ");
        add_text(&line, program);
        add_text(&line, " ");
    }
    add_text(&line, event);
    va_list pairs;
    va_start(pairs, event);
    for (const char *key; (key = va_arg(pairs, const char *)) != NULL;) {
        const char *value = va_arg(pairs, const char *);
        add_text(&line, " ");
        add_text(&line, key);
        add_text(&line, "=");
        add_value(&line, value == NULL ? "" : value);
    }
    va_end(pairs);
    if (sink != NULL) {
        line.text[line.length] = '\0';
        sink(sink_context, level, line.text);
    } else {
        line.text[line.length++] = '\n';
        write_line(line.text, line.length);
    }
    errno = saved;
}
