/* json-c made safe: size, depth, numbers, text and ownership. */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include "common/buf.h"
#include "common/status.h"
#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>

/** Parses a text from outside. Refuses what PostgreSQL would not store (\u0000, half surrogates,
 * not UTF-8), what is over a limit (bytes, depth, digits), and what is not one JSON value. The
 * error names `argument` and where. *ret_value is yours; NULL for null. */
MUST_CHECK dj_status json_parse(const char *argument, const char *text, size_t length,
                                size_t bytes_max, json_object **ret_value);

/** Parses a text that the database has stored: checked when it came in, so not again. */
MUST_CHECK dj_status json_read(const char *text, size_t length, json_object **ret_value);

/** Appends the value as JSON, without spaces. DJ_TOO_LARGE over `bytes_max`; DJ_INVALID_ARGUMENT
 * for what JSON or the database cannot hold (NaN, not UTF-8, zero characters, too deep). NULL is
 * null. */
MUST_CHECK dj_status json_print(const char *argument, json_object *value, size_t bytes_max,
                                struct buf *text);

/** Checks a JSON text as json_parse does, without making objects of it. */
MUST_CHECK dj_status json_check(const char *argument, const char *text, size_t length,
                                size_t bytes_max);

#endif
