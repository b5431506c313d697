/* UTF-8, and the texts that have rules: names and keys. */
#ifndef COMMON_TEXT_H
#define COMMON_TEXT_H

#include "common/status.h"
#include <stdbool.h>
#include <stddef.h>

/** The bytes of the character that `text` begins with, 1 to 4; `left`, at least 1, is what is
 * there. 0: it is none, or only the beginning of one. */
size_t text_char_bytes(const char *text, size_t left);

/** True for well-formed UTF-8: no surrogates, nothing overlong, nothing beyond U+10FFFF. */
bool text_is_utf8(const char *text, size_t length);

/** Copies what there is room for of a text, in whole characters; `size` counts the zero byte that
 * closes it. */
void text_copy(char *out, size_t size, const char *text);

/** A job's, queue's, step's, event's name: 1 to 200 of A-Z a-z 0-9 _ . : / @ -. The error names
 * `argument`. */
MUST_CHECK dj_status check_name(const char *argument, const char *value);

/** An idempotency, correlation, concurrency or state key: 1 to 512 bytes of UTF-8. */
MUST_CHECK dj_status check_key(const char *argument, const char *value);

/** True for a UUID as it is printed: 8-4-4-4-12 hexadecimal digits. */
bool text_is_uuid(const char *text);

#endif
