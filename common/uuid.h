/* UUIDs. They are made in the database. */
#ifndef COMMON_UUID_H
#define COMMON_UUID_H

#include "common/status.h"
#include <stdbool.h>
#include <stdint.h>

#define UUID_TEXT_BYTES 37

struct uuid {
    uint8_t bytes[16];
};

MUST_CHECK dj_status uuid_parse(const char *argument, const char *text, struct uuid *ret_uuid);
void uuid_print(const struct uuid *uuid, char out[UUID_TEXT_BYTES]);
bool uuid_equal(const struct uuid *a, const struct uuid *b);

/** Less than, equal to or greater than 0, in PostgreSQL's order; version 7: in the order of time.
 */
int uuid_compare(const struct uuid *a, const struct uuid *b);

#endif
