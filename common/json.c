/* Parsing is json-c's. What it lets through and PostgreSQL or our limits do not, a scan over the text finds: one
 * pass, no memory, no recursion. The scan need not know JSON's grammar: it looks at strings, numbers and
 * brackets, and json-c or PostgreSQL refuse the rest. */
#include "common/json.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/check.h"
#include "common/text.h"
#include <json-c/json_tokener.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

struct scan {
    const char *argument;
    const char *text, *at, *end;
    int depth;
};

static dj_status refuse(const struct scan *scan, const char *what) {
    return dj_fail(DJ_INVALID_ARGUMENT, "%s, at byte %zu: %s", scan->argument,
                   (size_t)(scan->at - scan->text), what);
}

static int hex4(const char *at, const char *end) {
    int value = 0;
    for (int i = 0; i < 4; i++, at++) {
        if (at >= end) {
            return -1;
        }
        int digit = *at >= '0' && *at <= '9' ? *at - '0' : (*at | 32) >= 'a' && (*at | 32) <= 'f' ? (*at | 32) - 'a' + 10 : -1;
        if (digit < 0) {
            return -1;
        }
        value = value * 16 + digit;
    }
    return value;
}

/* At the u of an escape. */
static dj_status scan_unicode(struct scan *scan) {
    int unit = hex4(scan->at + 1, scan->end);
    if (unit < 0) {
        return refuse(scan, "four hexadecimal digits are allowed after \\u");
    }
    if (unit == 0) {
        return refuse(scan, "\\u0000 cannot be stored");
    }
    scan->at += 4;
    if (unit < 0xD800 || unit > 0xDFFF) {
        return DJ_OK;
    }
    bool paired = unit < 0xDC00 && scan->end - scan->at > 6 && scan->at[1] == '\\' && scan->at[2] == 'u';
    int low = paired ? hex4(scan->at + 3, scan->end) : -1;
    if (low < 0xDC00 || low > 0xDFFF) {
        return refuse(scan, "half of a surrogate pair is not a character");
    }
    scan->at += 6;
    return DJ_OK;
}

static dj_status scan_string(struct scan *scan) {
    for (scan->at++; scan->at < scan->end && *scan->at != '"'; scan->at++) {
        if (*scan->at == '\0' || (unsigned char)*scan->at < ' ') {
            return refuse(scan, "control characters are not allowed in strings; escape them");
        }
        if (*scan->at == '\\') {
            scan->at++;
            if (scan->at < scan->end && *scan->at == 'u') {
                DJ_TRY(scan_unicode(scan));
            }
        }
    }
    return DJ_OK;
}

static dj_status scan_number(struct scan *scan) {
    int digits = 0;
    int exponent = 0;
    for (; scan->at < scan->end && (*scan->at == '-' || *scan->at == '.' || (*scan->at >= '0' && *scan->at <= '9')); scan->at++) {
        digits += *scan->at >= '0' && *scan->at <= '9';
    }
    if (scan->at < scan->end && (*scan->at | 32) == 'e') {
        for (scan->at++; scan->at < scan->end && (*scan->at == '-' || *scan->at == '+' || (*scan->at >= '0' && *scan->at <= '9')); scan->at++) {
            if (*scan->at >= '0' && exponent <= JSON_EXPONENT_MAX) {
                exponent = exponent * 10 + (*scan->at - '0');
            }
        }
    }
    scan->at--;
    if (digits > JSON_NUMBER_DIGITS_MAX || exponent > JSON_EXPONENT_MAX) {
        return refuse(scan, "numbers of up to 400 digits, with exponents within -400 to 400, are "
                            "allowed");
    }
    return DJ_OK;
}

static dj_status scan_value(struct scan *scan) {
    for (; scan->at < scan->end; scan->at++) {
        char c = *scan->at;
        if (c == '"') {
            DJ_TRY(scan_string(scan));
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            DJ_TRY(scan_number(scan));
        } else if (c == '[' || c == '{') {
            if (++scan->depth > JSON_DEPTH_MAX) {
                return refuse(scan, "it is nested too deep; 64 levels are allowed");
            }
        } else if (c == ']' || c == '}') {
            scan->depth--;
        } else if (c == '\0') {
            return refuse(scan, "a zero byte is not JSON");
        }
    }
    return DJ_OK;
}

dj_status json_check(const char *argument, const char *text, size_t length, size_t bytes_max) {
    if (length > bytes_max) {
        return dj_fail(DJ_TOO_LARGE, "%s is %zu bytes; the limit is %zu bytes", argument, length,
                       bytes_max);
    }
    if (!text_is_utf8(text, length)) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is not UTF-8", argument);
    }
    struct scan scan = { .argument = argument, .text = text, .at = text, .end = text + length };
    return scan_value(&scan);
}

/* A tokener is large and made for one value; this thread's is used again and again, and goes with the thread. */
static pthread_key_t tokener_key;
static pthread_once_t tokener_once = PTHREAD_ONCE_INIT;

static void tokener_drop(void *tokener) {
    json_tokener_free(tokener);
}

static void tokener_make_key(void) {
    check(pthread_key_create(&tokener_key, tokener_drop) == 0);
}

static json_tokener *tokener_of_thread(void) {
    (void)pthread_once(&tokener_once, tokener_make_key);
    json_tokener *tokener = pthread_getspecific(tokener_key);
    if (tokener == NULL) {
        tokener = json_tokener_new_ex(JSON_DEPTH_MAX + 2);
        (void)pthread_setspecific(tokener_key, tokener);
    }
    return tokener;
}

static dj_status parse(const char *argument, const char *text, size_t length, int flags,
                       json_object **ret_value) {
    if (length > INT_MAX) {
        return dj_fail(DJ_TOO_LARGE, "%s is %zu bytes", argument, length);
    }
    json_tokener *tokener = tokener_of_thread();
    if (tokener == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory to read %s", argument);
    }
    json_tokener_set_flags(tokener, flags);
    json_tokener_reset(tokener);
    json_object *value = json_tokener_parse_ex(tokener, text, (int)length);
    enum json_tokener_error error = json_tokener_get_error(tokener);
    size_t end = json_tokener_get_parse_end(tokener);
    if (error == json_tokener_continue) { /* a number may go on: only the end tells */
        value = json_tokener_parse_ex(tokener, "", 1);
        error = json_tokener_get_error(tokener);
        end = length;
    }
    bool rest = error == json_tokener_success && end < length &&
                strspn(text + end, " \t\r\n") < length - end;
    if (error != json_tokener_success || rest) {
        json_object_put(value);
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is not JSON, at byte %zu: %s", argument, end,
                       rest ? "something follows the value" : json_tokener_error_desc(error));
    }
    *ret_value = value;
    return DJ_OK;
}

dj_status json_parse(const char *argument, const char *text, size_t length, size_t bytes_max,
                     json_object **ret_value) {
    DJ_TRY(json_check(argument, text, length, bytes_max));
    return parse(argument, text, length, JSON_TOKENER_STRICT, ret_value);
}

dj_status json_read(const char *text, size_t length, json_object **ret_value) {
    if (length == 2 && text[0] == '{' && text[1] == '}') { /* by far the most common one */
        *ret_value = json_object_new_object();
        return *ret_value == NULL ? dj_fail(DJ_NO_MEMORY, "no memory for a value") : DJ_OK;
    }
    return parse("a stored value", text, length, 0, ret_value);
}

dj_status json_print(const char *argument, json_object *value, size_t bytes_max, struct buf *text) {
    size_t length;
    const char *printed = value == NULL ? "null"
                                        : json_object_to_json_string_length(
                                              value, JSON_C_TO_STRING_PLAIN |
                                                         JSON_C_TO_STRING_NOSLASHESCAPE, &length);
    if (printed == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory to print %s", argument);
    }
    if (value == NULL) {
        length = strlen(printed);
    }
    DJ_TRY(json_check(argument, printed, length, bytes_max));
    if (json_object_is_type(value, json_type_double) && !isfinite(json_object_get_double(value))) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is not a number that JSON has", argument);
    }
    return buf_add(text, printed, length);
}
