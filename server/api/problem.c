/* RFC 9457: application/problem+json, with a code that programs can tell apart. */
#include "server/api/api.h"

#include "common/check.h"
#include "common/text.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct problem_row {
    const char *code;
    int status;
    const char *title;
} table[] = {
    [PROBLEM_INVALID_ARGUMENT] = { "invalid_argument", 400, "Invalid argument" },
    [PROBLEM_UNAUTHORIZED] = { "unauthorized", 401, "Unauthorized" },
    [PROBLEM_FORBIDDEN] = { "forbidden", 403, "Forbidden" },
    [PROBLEM_NOT_FOUND] = { "not_found", 404, "Not found" },
    [PROBLEM_METHOD_NOT_ALLOWED] = { "method_not_allowed", 405, "Method not allowed" },
    [PROBLEM_TIMEOUT] = { "timeout", 408, "Timeout" },
    [PROBLEM_CONFLICT] = { "conflict", 409, "Conflict" },
    [PROBLEM_IDEMPOTENCY_CONFLICT] = { "idempotency_conflict", 409, "Idempotency conflict" },
    [PROBLEM_PAYLOAD_TOO_LARGE] = { "payload_too_large", 413, "Payload too large" },
    [PROBLEM_URI_TOO_LONG] = { "uri_too_long", 414, "URI too long" },
    [PROBLEM_UNSUPPORTED_MEDIA_TYPE] = { "unsupported_media_type", 415, "Unsupported media type" },
    [PROBLEM_RATE_LIMITED] = { "rate_limited", 429, "Rate limited" },
    [PROBLEM_HEADERS_TOO_LARGE] = { "headers_too_large", 431, "Headers too large" },
    [PROBLEM_INTERNAL] = { "internal", 500, "Internal error" },
    [PROBLEM_NOT_IMPLEMENTED] = { "not_implemented", 501, "Not implemented" },
    [PROBLEM_UNAVAILABLE] = { "unavailable", 503, "Unavailable" },
};
static_assert(sizeof table / sizeof *table == PROBLEM_COUNT, "a row each");

/* What the database calls otherwise than HTTP does. */
static const char *const words[][2] = {
    { "queue", "queueName" },
    { "run_id", "id" },
    { "options.", "" },
    { "namespace", "namespace" },
};

static dj_status write_row(struct buf *body, const struct problem_row *row, const char *detail) {
    DJ_TRY(buf_addf(body,
                    "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\","
                    "\"detail\":",
                    row->title, row->status, row->code));
    DJ_TRY(buf_add_json(body, detail));
    return buf_add(body, "}", 1);
}

void problem_write(struct buf *body, int status, const char *detail) {
    const struct problem_row *row = &table[PROBLEM_INTERNAL];
    for (size_t i = 0; i < PROBLEM_COUNT; i++) {
        if (table[i].status == status) {
            row = &table[i];
            break;
        }
    }
    check(write_row(body, row, detail) == DJ_OK);
}

static void reply_row(struct api *api, struct http_request *request, const struct problem_row *row,
                      const char *headers, const char *detail) {
    struct buf body;
    buf_init(&body, 16384);
    check(write_row(&body, row, detail) == DJ_OK);
    if (row->status == 503 && headers[0] == '\0') {
        headers = "Retry-After: 1\r\n";
    }
    api_reply(api, request, row->status, "application/problem+json", headers, body.data,
              body.length);
    buf_done(&body);
}

void problem_reply(struct api *api, struct http_request *request, enum problem problem,
                   const char *headers, const char *format, ...) {
    char detail[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    reply_row(api, request, &table[problem], headers, detail);
}

/* SQL says max_attempts, HTTP says maxAttempts: the argument is the first word of a message. */
static void rename_argument(const char *message, char out[1024]) {
    size_t at = 0, kept = 0;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i][0]);
        bool whole = words[i][0][length - 1] == '.' || message[length] == ' ';
        if (strncmp(message, words[i][0], length) == 0 && whole) {
            kept = (size_t)snprintf(out, 1024, "%s", words[i][1]);
            at = length;
            break;
        }
    }
    bool first = true, upper = false;
    for (; message[at] != '\0' && kept < 1023; at++) {
        char c = message[at];
        first = first && (islower((unsigned char)c) || c == '_');
        if (first && c == '_') {
            upper = true;
            continue;
        }
        out[kept++] = (char)(upper ? toupper((unsigned char)c) : c);
        upper = false;
    }
    out[kept] = '\0';
}

void problem_reply_status(struct api *api, struct http_request *request, dj_status status,
                          const char *message) {
    char detail[1024];
    const char *missing = "is not available yet"; /* durable_internal.fail_not_available says so */
    rename_argument(message, detail);
    if (status == DJ_NOT_ALLOWED && strstr(message, missing) != NULL) {
        reply_row(api, request, &table[PROBLEM_NOT_IMPLEMENTED], "", detail);
        return;
    }
    for (size_t i = 0; i < PROBLEM_COUNT; i++) {
        if (strcmp(table[i].code, status_code(status)) == 0) {
            reply_row(api, request, &table[i], "",
                      table[i].status == 500 ? "the server made a mistake; its log says which"
                                             : detail);
            return;
        }
    }
    reply_row(api, request, &table[PROBLEM_INTERNAL], "", "an error without a name");
}
