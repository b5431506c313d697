/* Reading what a client sends: bodies, queries, parts of paths. Values stay where they arrived and
 * are cut up there; JSON is never printed anew. Each error names its field. */
#include "server/api/api.h"

#include "common/bounds.h"
#include "common/duration.h"
#include "common/rfc3339.h"
#include "common/text.h"
#include <inttypes.h>
#include <string.h>
#include <strings.h>

static const struct field *field_of(const struct field fields[], const char *name, size_t length) {
    for (const struct field *field = fields; field->name != NULL; field++) {
        if (strlen(field->name) == length && memcmp(field->name, name, length) == 0) {
            return field;
        }
    }
    return NULL;
}

static bool slice_is(const struct json_slice *slice, const char *text) {
    return slice->length == strlen(text) && memcmp(slice->text, text, slice->length) == 0;
}

static dj_status read_int(const struct field *field, const char *text, size_t length) {
    int64_t number = 0;
    bool negative = length > 0 && text[0] == '-';
    size_t at = negative ? 1 : 0;
    bool whole = at < length;
    for (; whole && at < length; at++) {
        int digit = text[at] - '0';
        whole = digit >= 0 && digit <= 9 && !__builtin_mul_overflow(number, 10, &number) &&
                !__builtin_add_overflow(number, digit, &number);
    }
    number = negative ? -number : number;
    if (!whole || number < field->min || number > field->max) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "%s %.*s is not allowed; a whole number from %" PRId64 " to %" PRId64 " is",
                       field->name, (int)(length > 40 ? 40 : length), text, field->min, field->max);
    }
    *(int64_t *)field->target = number;
    return DJ_OK;
}

static dj_status read_text(const struct field *field, char *text) {
    switch (field->kind) {
    case FIELD_DURATION:
        return duration_parse(field->name, text, field->target);
    case FIELD_TIME:
        return rfc3339_parse(field->name, text, field->target);
    case FIELD_INT:
        return read_int(field, text, strlen(text));
    case FIELD_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
            return dj_fail(DJ_INVALID_ARGUMENT, "%s is neither true nor false", field->name);
        }
        *(bool *)field->target = text[0] == 't';
        return DJ_OK;
    case FIELD_TEXT:
    case FIELD_JSON:
    case FIELD_OPTION:
    case FIELD_LIST:
        break;
    }
    *(char **)field->target = text;
    return DJ_OK;
}

/* A value whose text may be cut up later, when all of the object has been read. */
static dj_status read_value(const struct field *field, const struct json_slice *value) {
    size_t bytes_max = field->bytes_max == 0 ? PAYLOAD_BYTES_MAX : field->bytes_max;
    if (field->kind != FIELD_LIST) {
        DJ_TRY(json_check(field->name, value->text, value->length,
                          field->kind == FIELD_JSON ? bytes_max : SIZE_MAX));
    }
    switch (field->kind) {
    case FIELD_JSON:
        return DJ_OK;
    case FIELD_OPTION:
    case FIELD_LIST:
        if (!slice_is(value, "null")) {
            *(struct json_slice *)field->target = *value;
        }
        return DJ_OK;
    case FIELD_INT:
        return slice_is(value, "null") ? DJ_OK : read_int(field, value->text, value->length);
    case FIELD_BOOL:
        if (!slice_is(value, "null") && !slice_is(value, "true") && !slice_is(value, "false")) {
            return dj_fail(DJ_INVALID_ARGUMENT, "%s is neither true nor false", field->name);
        }
        *(bool *)field->target = slice_is(value, "true");
        return DJ_OK;
    case FIELD_TEXT:
    case FIELD_DURATION:
    case FIELD_TIME:
        break;
    }
    if (value->text[0] != '"' && !slice_is(value, "null")) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is not a string", field->name);
    }
    return DJ_OK;
}

static dj_status read_late(const struct field *field, const struct json_slice *value) {
    char *text = (char *)value->text;
    if (field->kind == FIELD_JSON) {
        text[value->length] = '\0';
        *(char **)field->target = text;
        return DJ_OK;
    }
    bool late =
        field->kind == FIELD_TEXT || field->kind == FIELD_DURATION || field->kind == FIELD_TIME;
    return late && text[0] == '"' ? read_text(field, json_decode_string(text, value->length))
                                  : DJ_OK;
}

#define FIELDS_MAX 24

dj_status fields_read(const char *argument, char *text, size_t length,
                      const struct field fields[]) {
    struct json_slice values[FIELDS_MAX] = { { .text = NULL } }, key, value;
    struct json_walk walk;
    bool more = length > 0;
    if (more) {
        DJ_TRY(json_walk_begin(&walk, argument, text, length, /* object= */ true));
    }
    while (more) {
        DJ_TRY(json_walk_next(&walk, &more, &key, &value));
        if (!more) {
            break;
        }
        const struct field *field = field_of(fields, key.text, key.length);
        if (field == NULL) {
            return dj_fail(DJ_INVALID_ARGUMENT, "%.*s is not known here",
                           (int)(key.length > 60 ? 60 : key.length), key.text);
        }
        if (values[field - fields].text != NULL) {
            return dj_fail(DJ_INVALID_ARGUMENT, "%s is given twice", field->name);
        }
        DJ_TRY(read_value(field, &value));
        values[field - fields] = value;
    }
    for (const struct field *field = fields; field->name != NULL; field++) {
        const struct json_slice *found = &values[field - fields];
        if (found->text != NULL) {
            bool null = slice_is(found, "null") && field->kind != FIELD_JSON;
            DJ_TRY(read_late(field, found));
            if (!null) {
                continue;
            }
        }
        if (field->required) {
            return dj_fail(DJ_INVALID_ARGUMENT, "%s is missing", field->name);
        }
    }
    return DJ_OK;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    int lower = c | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

dj_status url_decode(const char *argument, char *text, bool plus) {
    char *out = text;
    for (const char *at = text; *at != '\0';) {
        if (*at == '%') {
            int high = hex(at[1]), low = high < 0 ? -1 : hex(at[2]);
            if (low < 0 || high * 16 + low == 0) {
                return dj_fail(DJ_INVALID_ARGUMENT, "%s has a %% that is not escaped", argument);
            }
            *out++ = (char)(high * 16 + low);
            at += 3;
        } else {
            *out++ = (char)(plus && *at == '+' ? ' ' : *at);
            at++;
        }
    }
    *out = '\0';
    if (!text_is_utf8(text, (size_t)(out - text))) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is not UTF-8", argument);
    }
    return DJ_OK;
}

dj_status query_read(char *query, const struct field fields[]) {
    bool given[FIELDS_MAX] = { false };
    while (query != NULL && *query != '\0') {
        char *name = query, *end = strchr(query, '&');
        query = end == NULL ? NULL : end + 1;
        if (end != NULL) {
            *end = '\0';
        }
        char *value = strchr(name, '=');
        if (value == NULL) {
            value = name + strlen(name);
        } else {
            *value++ = '\0';
        }
        DJ_TRY(url_decode("the query", name, /* plus= */ true));
        const struct field *field = field_of(fields, name, strlen(name));
        if (field == NULL) {
            return dj_fail(DJ_INVALID_ARGUMENT, "%.60s is not known in this query", name);
        }
        DJ_TRY(url_decode(field->name, value, /* plus= */ true));
        if (field->kind == FIELD_TEXT && field->max > 1) { /* an array of its texts */
            char **texts = field->target;
            int64_t count = 0;
            while (count < field->max && texts[count] != NULL) {
                count++;
            }
            if (count == field->max) {
                return dj_fail(DJ_INVALID_ARGUMENT, "%s is given more than %" PRId64 " times",
                               field->name, field->max);
            }
            texts[count] = value;
            continue;
        }
        if (given[field - fields]) {
            return dj_fail(DJ_INVALID_ARGUMENT, "%s is given twice", field->name);
        }
        given[field - fields] = true;
        DJ_TRY(read_text(field, value));
    }
    for (const struct field *field = fields; field->name != NULL; field++) {
        if (field->required && !given[field - fields]) {
            return dj_fail(DJ_INVALID_ARGUMENT, "%s is missing", field->name);
        }
    }
    return DJ_OK;
}

dj_status body_check(struct api *api, struct http_request *request) {
    if (request->body_length > 0) {
        const char *type = request->content_type == NULL ? "" : request->content_type;
        size_t length = strcspn(type, "; \t");
        if (length != 16 || strncasecmp(type, "application/json", 16) != 0) {
            problem_reply(api, request, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "",
                          "Content-Type has to be application/json");
            return DJ_INVALID_ARGUMENT;
        }
        if (!text_is_utf8(request->body, request->body_length)) {
            problem_reply(api, request, PROBLEM_INVALID_ARGUMENT, "", "the body is not UTF-8");
            return DJ_INVALID_ARGUMENT;
        }
    }
    return DJ_OK;
}

dj_status body_read(struct api *api, struct http_request *request, const struct field fields[]) {
    DJ_TRY(body_check(api, request));
    dj_status status = fields_read("the body", request->body, request->body_length, fields);
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
    }
    return status;
}

dj_status request_uuid(struct api *api, struct http_request *request, struct uuid *ret_id) {
    dj_status status = uuid_parse("id", request->args[0], ret_id);
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
    }
    return status;
}
