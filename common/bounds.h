/* Every limit, with its unit. Those of the contract have a twin in
 * migrations/functions/10_check.sql. */
#ifndef COMMON_BOUNDS_H
#define COMMON_BOUNDS_H

#define NAME_BYTES_MAX 200
#define KEY_BYTES_MAX 512
#define PAYLOAD_BYTES_MAX (1024 * 1024)
/* A stored value, printed by PostgreSQL with a space after each comma and colon. */
#define JSON_STORED_BYTES_MAX (4 * PAYLOAD_BYTES_MAX)
#define JSON_DEPTH_MAX 64
#define JSON_OUTER_DEPTH_MAX 8 /* of what values are wrapped in, beyond that */
#define JSON_NUMBER_DIGITS_MAX 400
#define JSON_EXPONENT_MAX 400
#define STEPS_MAX 10000
#define WAIT_EVENTS_MAX 100 /* of one wait for any of them */
#define HISTORY_BYTES_MAX (64 * 1024 * 1024)
#define TAGS_MAX 16
#define TAG_KEY_BYTES_MAX 64
#define TAG_VALUE_BYTES_MAX 256
#define LOG_LINE_BYTES_MAX 8192
#define LOG_LINES_MAX 10000             /* of a handler in C, between two commits: a line a step */
#define LOG_BYTES_MAX (1 * 1024 * 1024) /* … of all of them */
#define DURATION_MS_MAX 315360000000LL  /* 10 years of 365 days */

#endif
