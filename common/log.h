/* One line an event: its name, then keys and values. Ids and reasons, never payloads.
 *
 *     log_warning("turn.delayed", "reason", dj_error_message());
 *
 * becomes, on standard error or in the sink,
 *
 *     2026-01-02T03:04:05.678Z warning durable-worker turn.delayed reason="the connection is gone"
 *
 * Error: a person must act. Warning: we go on. Values are cut at 1 KiB, lines at
 * LOG_LINE_BYTES_MAX; control characters, quotes and what is not UTF-8 are escaped. From any
 * thread. */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <durable/worker.h>

#define log_debug(...) log_event(DJ_DEBUG, __VA_ARGS__, (const char *)0)
#define log_info(...) log_event(DJ_INFO, __VA_ARGS__, (const char *)0)
#define log_warning(...) log_event(DJ_WARNING, __VA_ARGS__, (const char *)0)
#define log_error(...) log_event(DJ_ERROR, __VA_ARGS__, (const char *)0)

/** A number as a value. Good until the end of the expression's block. */
#define LOG_INT(number) (log_int((struct log_number){ { 0 } }.text, (long long)(number)))

struct log_number {
    char text[24];
};
const char *log_int(char text[24], long long number);

/** `event`, then keys and values, then NULL. */
void log_event(dj_level level, const char *event, ...) __attribute__((sentinel));

void log_set_level(dj_level least);
void log_set_program(const char *name); /* kept, not copied */

/** Where lines go; NULL: to standard error. The sink's lines have no time, no level, no program and
 * no newline, and are lent. It is called on any thread, and does not log. */
void log_set_sink(void (*sink)(void *context, dj_level level, const char *line), void *context);

#endif
