/* Objects: json-c's, of texts that json_check.c has judged. Any thread; the tokener belongs to the
 * thread. */
#include "common/json.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/check.h"
#include <inttypes.h>
#include <json-c/json_tokener.h>
#include <json-c/json_util.h>
#include <json-c/linkhash.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A tokener is large and made for one value; this thread's is used again and again, and goes with
 * the thread. */
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

/* Makes objects of a text that has been checked, now or before it was stored. */
static dj_status build(const char *argument, const char *text, size_t length,
                       json_object **ret_value) {
    if (length > INT_MAX) {
        return dj_fail(DJ_TOO_LARGE, "%s is %zu bytes; the limit is %d bytes", argument, length,
                       INT_MAX);
    }
    AUTO(buf) struct buf decoded;
    buf_init(&decoded, length);
    if (memmem(text, length, "\\u", 2) != NULL) {
        DJ_TRY(json_decode_pairs(&decoded, text, length));
        text = decoded.data;
        length = decoded.length;
    }
    json_tokener *tokener = tokener_of_thread();
    if (tokener == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory to read %s", argument);
    }
    json_tokener_reset(tokener);
    json_object *value = json_tokener_parse_ex(tokener, text, (int)length);
    size_t end = json_tokener_get_parse_end(tokener);
    if (json_tokener_get_error(tokener) == json_tokener_continue) {
        value = json_tokener_parse_ex(tokener, "", 1); /* a number or word: only the end ends it */
        end = length;
    }
    enum json_tokener_error error = json_tokener_get_error(tokener);
    json_tokener_reset(tokener); /* it holds what it has built of a value that failed */
    if (error != json_tokener_success) {
        return dj_fail(DJ_INTERNAL, "%s is not JSON, at byte %zu: %s", argument, end,
                       json_tokener_error_desc(error));
    }
    *ret_value = value;
    return DJ_OK;
}

dj_status json_parse(const char *argument, const char *text, size_t length, size_t bytes_max,
                     json_object **ret_value) {
    DJ_TRY(json_check(argument, text, length, bytes_max));
    return build(argument, text, length, ret_value);
}

dj_status json_read(const char *text, size_t length, json_object **ret_value) {
    if (length == 2 && text[0] == '{' && text[1] == '}') { /* by far the most common one */
        *ret_value = json_object_new_object();
        return *ret_value == NULL ? dj_fail(DJ_NO_MEMORY, "no memory for a value") : DJ_OK;
    }
    return build("a stored value", text, length, ret_value);
}

/* json-c prints by recursion, on a handler's small stack, and for ever where a value holds itself.
 */
static bool is_deeper(json_object *value, int levels) { /* NOLINT(misc-no-recursion): bounded */
    bool object = json_object_is_type(value, json_type_object);
    bool array = json_object_is_type(value, json_type_array);
    if (levels == 0 || (!object && !array)) {
        return object || array;
    }
    for (size_t i = 0; array && i < json_object_array_length(value); i++) {
        if (is_deeper(json_object_array_get_idx(value, i), levels - 1)) {
            return true;
        }
    }
    struct json_object_iter field;
    if (object) {
        json_object_object_foreachC(value, field) {
            if (is_deeper(field.val, levels - 1)) {
                return true;
            }
        }
    }
    return false;
}

dj_status json_print(const char *argument, json_object *value, size_t bytes_max, struct buf *text) {
    if (value == NULL) {
        return bytes_max < 4 ? dj_fail(DJ_TOO_LARGE, "%s is 4 bytes; the limit is %zu bytes",
                                       argument, bytes_max)
                             : buf_add(text, "null", 4);
    }
    if (is_deeper(value, JSON_DEPTH_MAX)) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is nested too deep; %d levels are allowed",
                       argument, JSON_DEPTH_MAX);
    }
    size_t length;
    const char *printed = json_object_to_json_string_length(
        value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
    if (printed == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory to print %s", argument);
    }
    DJ_TRY(json_check(argument, printed, length, bytes_max));
    return buf_add(text, printed, length);
}

size_t json_stored_length(const char *text, size_t length) {
    size_t stored = length;
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == ',' || c == ':') {
            stored++;
        } else if ((c == 'e' || c == 'E') && i > 0 && text[i - 1] >= '0' && text[i - 1] <= '9') {
            stored += (size_t)labs(strtol(text + i + 1, NULL, 10)); /* as many zeros */
        }
    }
    return stored;
}

/* *ret_value is NULL for a field that is absent or null. */
static dj_status get_field(json_object *object, const char *field, enum json_type type,
                           const char *allowed, json_object **ret_value) {
    json_object *value = json_object_object_get(object, field);
    *ret_value = NULL;
    if (value == NULL) {
        return DJ_OK;
    }
    if (!json_object_is_type(value, type)) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is of type %s; %s is allowed", field,
                       json_type_to_name(json_object_get_type(value)), allowed);
    }
    *ret_value = value;
    return DJ_OK;
}

dj_status json_get_string(json_object *object, const char *field, const char **ret_text) {
    json_object *value;
    DJ_TRY(get_field(object, field, json_type_string, "a string", &value));
    if (value != NULL) {
        *ret_text = json_object_get_string(value);
    }
    return DJ_OK;
}

dj_status json_get_int(json_object *object, const char *field, int64_t min, int64_t max,
                       int64_t *ret_number) {
    json_object *value;
    DJ_TRY(get_field(object, field, json_type_int, "a whole number", &value));
    if (value == NULL) {
        return DJ_OK;
    }
    int64_t number =
        json_object_get_int64(value); /* what is too large for it becomes its largest */
    if (number < min || number > max) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is %s; %" PRId64 " to %" PRId64 " is allowed",
                       field, json_object_get_string(value), min, max);
    }
    *ret_number = number;
    return DJ_OK;
}

dj_status json_get_bool(json_object *object, const char *field, bool *ret_value) {
    json_object *value;
    DJ_TRY(get_field(object, field, json_type_boolean, "true or false", &value));
    if (value != NULL) {
        *ret_value = json_object_get_boolean(value) != 0;
    }
    return DJ_OK;
}

dj_status json_get_object(json_object *object, const char *field, json_object **ret_object) {
    json_object *value;
    DJ_TRY(get_field(object, field, json_type_object, "an object", &value));
    if (value != NULL) {
        *ret_object = value;
    }
    return DJ_OK;
}

dj_status json_get_array(json_object *object, const char *field, json_object **ret_array) {
    json_object *value;
    DJ_TRY(get_field(object, field, json_type_array, "an array", &value));
    if (value != NULL) {
        *ret_array = value;
    }
    return DJ_OK;
}

dj_status json_require(json_object *object, const char *field) {
    if (json_object_object_get(object, field) == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is missing", field);
    }
    return DJ_OK;
}
