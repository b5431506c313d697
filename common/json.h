/* json-c made safe: size, depth, numbers, text and ownership. */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include "common/buf.h"
#include "common/status.h"
#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/** About how long a checked text is once the database prints it: with a space behind each comma and
 * colon, and no number with an exponent. Never less. */
size_t json_stored_length(const char *text, size_t length);

/** A field of an object, by its type. A field that is absent or null leaves *ret_… alone: put its
 * default there first, or ask with json_require. Texts and objects are lent by `object`.
 *  DJ_INVALID_ARGUMENT names the field and says what is allowed. */
MUST_CHECK dj_status json_get_string(json_object *object, const char *field, const char **ret_text);
MUST_CHECK dj_status json_get_int(json_object *object, const char *field, int64_t min, int64_t max,
                                  int64_t *ret_number);
MUST_CHECK dj_status json_get_bool(json_object *object, const char *field, bool *ret_value);
MUST_CHECK dj_status json_get_object(json_object *object, const char *field,
                                     json_object **ret_object);
MUST_CHECK dj_status json_get_array(json_object *object, const char *field,
                                    json_object **ret_array);

/** DJ_INVALID_ARGUMENT: the field is absent or null. */
MUST_CHECK dj_status json_require(json_object *object, const char *field);

/** Checks a JSON text as json_parse does, without making objects of it. */
MUST_CHECK dj_status json_check(const char *argument, const char *text, size_t length,
                                size_t bytes_max);

/** The same for values that lie `outer` levels deep in the text: those do not count. */
MUST_CHECK dj_status json_check_inside(const char *argument, const char *text, size_t length,
                                       size_t bytes_max, int outer);

/** Appends a text, UTF-8, as a JSON string. */
MUST_CHECK dj_status buf_add_json(struct buf *buf, const char *text);

/** A part of a JSON text. */
struct json_slice {
    const char *text;
    size_t length;
};

/** Goes through the fields of an object, or the items of a list. A value is handed on as it was
 * written, found by its brackets and quotes alone: json_check judges it, so that one that is not
 * what it should be says nothing of its neighbours. */
struct json_walk {
    const char *argument, *text, *at, *end;
    bool object, first;
};
MUST_CHECK dj_status json_walk_begin(struct json_walk *walk, const char *argument, const char *text,
                                     size_t length, bool object);
/** *ret_more is false behind the last one. A key is as it was written, escapes and all; a list has
 * none, so *ret_key is left alone. */
MUST_CHECK dj_status json_walk_next(struct json_walk *walk, bool *ret_more,
                                    struct json_slice *ret_key, struct json_slice *ret_value);

/** Makes a checked JSON string, its quotes included, the text that it stands for, in its place;
 * closed by a zero byte. */
char *json_decode_string(char *text, size_t length);

/** Appends a checked text, with each character that was escaped as a surrogate pair as itself:
 * json-c 0.16 takes a pair for half a character where its last 16 bits look like one (U+1D800,
 * U+2DC00 and others). */
MUST_CHECK dj_status json_decode_pairs(struct buf *out, const char *text, size_t length);

#endif
