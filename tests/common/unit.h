/* What every unit test includes: cmocka, and checks of a dj_status that show
 * the message. */
#ifndef TESTS_COMMON_UNIT_H
#define TESTS_COMMON_UNIT_H

#include "common/status.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h> /* needs the ones above */

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        dj_status got_ = (call);                                                                   \
        if (got_ != DJ_OK) {                                                                       \
            fail_msg("%s: %s: %s", #call, dj_status_name(got_), dj_error_message());               \
        }                                                                                          \
    } while (0)

/** The call answers `status`, and the message has `part` in it. */
#define assert_fails(call, status, part)                                                           \
    do {                                                                                           \
        dj_status got_ = (call);                                                                   \
        assert_string_equal(dj_status_name(got_), dj_status_name(status));                         \
        if (strstr(dj_error_message(), (part)) == NULL) {                                          \
            fail_msg("%s: no '%s' in: %s", #call, (part), dj_error_message());                     \
        }                                                                                          \
    } while (0)

#endif
