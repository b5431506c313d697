#include "common/endpoint_look.h"

#include "common/auto.h"
#include "common/check.h"
#include "common/db_rows.h"
#include "common/json.h"
#include "common/webhook.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOOK_MS 10000
#define SECRETS_BYTES_MAX 8192

static dj_status sign(const PGresult *target, const char *id, int64_t now, struct buf *header) {
    struct db_text_array secrets;
    AUTO(buf) struct buf signatures;
    buf_init(&signatures, SECRETS_BYTES_MAX);
    DJ_TRY(rows_text_array(target, 0, 1, &secrets));
    while (secrets.count > 0) {
        const char *text;
        size_t length;
        DJ_TRY(db_text_array_next(&secrets, &text, &length));
        AUTO(free) char *secret = strndup(text, length);
        check(secret != NULL);
        DJ_TRY(webhook_sign(secret, id, now, "", 0, &signatures));
    }
    return buf_addf(header, "webhook-signature: %s",
                    signatures.data == NULL ? "" : signatures.data);
}

dj_status endpoint_look(struct http_client *client, const PGresult *target, http_done_fn done,
                        void *context, struct http_call **ret_call) {
    const char *text;
    size_t length;
    bool allow_private;
    char id[64], id_header[96], time_header[64];
    AUTO(buf) struct buf signature;
    int64_t now = (int64_t)time(NULL);
    buf_init(&signature, SECRETS_BYTES_MAX + 64);
    (void)snprintf(id, sizeof id, "msg_look_%lld_%ld", (long long)now, random());
    DJ_TRY(sign(target, id, now, &signature));
    DJ_TRY(rows_text(target, 0, 0, &text, &length));
    DJ_TRY(rows_bool(target, 0, 2, &allow_private));
    (void)snprintf(id_header, sizeof id_header, "webhook-id: %s", id);
    (void)snprintf(time_header, sizeof time_header, "webhook-timestamp: %lld", (long long)now);
    struct http_request_out request = {
        .method = "GET",
        .url = text,
        .headers = { "accept: application/json", id_header, time_header, signature.data },
        .header_count = 4,
        .timeout_ms = LOOK_MS,
        .answer_bytes_max = LOOK_BYTES_MAX,
        .allow_private = allow_private,
    };
    return http_client_send(client, &request, done, context, ret_call);
}

/* {"protocol": 1, "version": …, "jobs": […]} */
dj_status endpoint_look_read(const struct http_answer *answer, struct buf *version,
                             struct buf *jobs) {
    AUTO(json) json_object *said = NULL;
    const char *text = NULL;
    json_object *list = NULL;
    int64_t protocol = 0;
    if (answer->outcome != HTTP_ANSWERED) {
        return dj_fail(DJ_UNAVAILABLE, "%s%s", answer->reason,
                       answer->outcome == HTTP_REFUSED ? "; only with allowPrivate is it allowed"
                                                       : "");
    }
    if (answer->status != 200) {
        return dj_fail(DJ_UNAVAILABLE, "the endpoint answered %d when it was asked for its jobs",
                       answer->status);
    }
    DJ_TRY(json_parse("the endpoint's answer", answer->body.data == NULL ? "" : answer->body.data,
                      answer->body.length, LOOK_BYTES_MAX, &said));
    DJ_TRY(json_get_int(said, "protocol", 1, 1, &protocol));
    DJ_TRY(json_get_string(said, "version", &text));
    DJ_TRY(json_require(said, "jobs"));
    DJ_TRY(json_get_array(said, "jobs", &list));
    if (text != NULL) {
        DJ_TRY(buf_add_text(version, text));
    }
    return json_print("jobs", list, LOOK_BYTES_MAX, jobs);
}
