/* Patterns: an object fits one that has at least its fields, a list one of the same length; null
 * fits what is null or absent. Texts that begin with ? say what the value has to be:
 *
 *     ?any            there, and not null
 *     ?has TEXT       a text in which TEXT occurs
 *     ?duration 1h    a duration as long, however it is written
 *     ?time 2030-…    the same point of time
 *     ?one NAME       a list that has an object of this `name`; the list's other items are free
 */
#include "cli/conformance.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/duration.h"
#include "common/rfc3339.h"
#include <json-c/json_tokener.h>
#include <json-c/linkhash.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void verdict_fail(struct verdict *verdict, const char *expected, const char *found_format, ...) {
    if (verdict->failed) {
        return;
    }
    va_list arguments;
    verdict->failed = true;
    (void)snprintf(verdict->expected, sizeof verdict->expected, "%s", expected);
    va_start(arguments, found_format);
    (void)vsnprintf(verdict->found, sizeof verdict->found, found_format, arguments);
    va_end(arguments);
}

json_object *pattern_read(const char *text) {
    AUTO(free) char *own = strdup(text);
    check(own != NULL);
    for (char *c = own; *c != '\0'; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    enum json_tokener_error error;
    json_object *value = json_tokener_parse_verbose(own, &error);
    check(error == json_tokener_success);
    return value;
}

static const char *text_of(json_object *value) {
    return value == NULL ? "nothing"
                         : json_object_to_json_string_ext(
                               value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
}

static bool differs(const char *path, const char *expected, json_object *value,
                    struct verdict *verdict) {
    char text[CONFORMANCE_TEXT_BYTES_MAX];
    (void)snprintf(text, sizeof text, "%s %s", path, expected);
    verdict_fail(verdict, text, "%.200s", text_of(value));
    return false;
}

static bool list_names(json_object *value, const char *name) {
    for (size_t i = 0;
         json_object_is_type(value, json_type_array) && i < json_object_array_length(value); i++) {
        json_object *its = NULL;
        (void)json_object_object_get_ex(json_object_array_get_idx(value, i), "name", &its);
        if (json_object_is_type(its, json_type_string) &&
            strcmp(json_object_get_string(its), name) == 0) {
            return true;
        }
    }
    return false;
}

/* Is the value what a text such as "?duration 1h" says? */
static bool kind_fits(const char *kind, json_object *value) {
    const char *text =
        json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
    const char *of = strchr(kind, ' ');
    int64_t wanted = 0, found = 0;
    if (strcmp(kind, "?any") == 0) {
        return value != NULL;
    }
    check(of != NULL);
    of++;
    if (strncmp(kind, "?one ", 5) == 0) {
        return list_names(value, of);
    }
    if (text == NULL) {
        return false;
    }
    if (strncmp(kind, "?has ", 5) == 0) {
        return strstr(text, of) != NULL;
    }
    if (strncmp(kind, "?duration ", 10) == 0) {
        return duration_parse("a duration", of, &wanted) == DJ_OK &&
               duration_parse("a duration", text, &found) == DJ_OK && wanted == found;
    }
    check(strncmp(kind, "?time ", 6) == 0);
    return rfc3339_parse("a time", of, &wanted) == DJ_OK &&
           rfc3339_parse("a time", text, &found) == DJ_OK && wanted == found;
}

static bool object_fits(const char *path, json_object *pattern, json_object *value,
                        struct verdict *verdict) {
    char deeper[CONFORMANCE_TEXT_BYTES_MAX];
    json_object_object_foreach(pattern, key, its) {
        json_object *found = NULL;
        (void)json_object_object_get_ex(value, key, &found);
        (void)snprintf(deeper, sizeof deeper, "%s.%s", path, key);
        if (!pattern_fits(deeper, its, found, verdict)) {
            return false;
        }
    }
    return true;
}

static bool list_fits(const char *path, json_object *pattern, json_object *value,
                      struct verdict *verdict) {
    char deeper[CONFORMANCE_TEXT_BYTES_MAX];
    size_t count = json_object_array_length(pattern);
    for (size_t i = 0; i < count && i < json_object_array_length(value); i++) {
        (void)snprintf(deeper, sizeof deeper, "%s[%zu]", path, i);
        if (!pattern_fits(deeper, json_object_array_get_idx(pattern, i),
                          json_object_array_get_idx(value, i), verdict)) {
            return false;
        }
    }
    if (json_object_array_length(value) != count) {
        (void)snprintf(deeper, sizeof deeper, "to be %zu, %.200s", count, text_of(pattern));
        return differs(path, deeper, value, verdict);
    }
    return true;
}

bool pattern_fits(const char *path, json_object *pattern, json_object *value,
                  struct verdict *verdict) {
    switch (json_object_get_type(pattern)) {
    case json_type_null:
        return value == NULL || differs(path, "null", value, verdict);
    case json_type_string:
        if (json_object_get_string(pattern)[0] == '?') {
            return kind_fits(json_object_get_string(pattern), value) ||
                   differs(path, json_object_get_string(pattern) + 1, value, verdict);
        }
        break;
    case json_type_object:
        return json_object_is_type(value, json_type_object)
                   ? object_fits(path, pattern, value, verdict)
                   : differs(path, "an object", value, verdict);
    case json_type_array:
        return json_object_is_type(value, json_type_array)
                   ? list_fits(path, pattern, value, verdict)
                   : differs(path, "a list", value, verdict);
    case json_type_int:
    case json_type_double: /* 6 and 6.0 are the same number */
        return ((json_object_is_type(value, json_type_int) ||
                 json_object_is_type(value, json_type_double)) &&
                json_object_get_double(value) == json_object_get_double(pattern)) ||
               differs(path, text_of(pattern), value, verdict);
    case json_type_boolean:
        break;
    }
    return (json_object_get_type(value) == json_object_get_type(pattern) &&
            json_object_equal(pattern, value)) ||
           differs(path, text_of(pattern), value, verdict);
}
