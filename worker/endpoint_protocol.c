/* Names have no character that JSON would escape, and payloads, results and errors are JSON
 * already: so a call's body is put together from texts, and numbers come through as they were
 * stored. */
#include "worker/endpoint_protocol.h"

#include "common/json.h"
#include "worker/fleet.h"

#include <string.h>

#define RUN_MS_MAX 300000
#define RESULT_LEVELS 3 /* in an answer, in its ops, in an op */

static dj_status add_run(const dj_run *run, struct buf *body) {
    DJ_TRY(buf_addf(
        body,
        "{\"protocol\":1,\"run\":{\"id\":\"%s\",\"job\":\"%s\",\"queueName\":\"%s\",\"attempt\":%d",
        run->id_text, run->job->name, run->queue, run->attempt));
    size_t length = strlen(run->facts);
    if (length > 2) { /* what is between its braces */
        DJ_TRY(buf_add_text(body, ","));
        DJ_TRY(buf_add(body, run->facts + 1, length - 2));
    }
    DJ_TRY(buf_add_text(body, "},\"payload\":"));
    return buf_add(body, run->payload, run->payload_length);
}

static dj_status add_step(const struct memory *step, bool inlined, struct buf *body) {
    DJ_TRY(buf_addf(body, "{\"name\":\"%s\",\"kind\":\"%s\"", step->name, step->kind));
    if (step->forgotten) {
        return buf_add_text(body, "}");
    }
    DJ_TRY(buf_add_text(body, ","));
    if (!inlined) {
        return buf_addf(body, "\"ref\":\"%d\"}", step->position);
    }
    if (step->error != NULL) {
        return buf_addf(body, "\"error\":%s}", step->error);
    }
    return buf_addf(body, "\"result\":%s}", step->result == NULL ? "null" : step->result);
}

static dj_status add_steps(const dj_run *run, bool all_inline, struct buf *body) {
    size_t room = all_inline ? SIZE_MAX : CALL_INLINE_BYTES_MAX;
    DJ_TRY(buf_add_text(body, ",\"steps\":["));
    for (int i = 0; i < run->replay.step_count; i++) {
        const struct memory *step = &run->replay.steps[i];
        const char *text = step->error != NULL ? step->error : step->result;
        size_t bytes = text == NULL ? 0 : strlen(text);
        bool inlined = bytes <= room;
        DJ_TRY(buf_add_text(body, i > 0 ? "," : ""));
        DJ_TRY(add_step(step, inlined, body));
        room -= inlined ? bytes : 0;
    }
    return buf_add_text(body, "]");
}

/* How often each step with a policy of its own has failed so far. Few: a step is tried a few times.
 */
static dj_status add_tries(const dj_run *run, struct buf *body) {
    if (run->replay.try_count == 0) {
        return DJ_OK;
    }
    DJ_TRY(buf_add_text(body, ",\"tries\":{"));
    bool first = true;
    for (int i = 0; i < run->replay.try_count; i++) {
        int before = 0, all = 0;
        for (int j = 0; j < run->replay.try_count; j++) {
            bool same = strcmp(run->replay.tries[i], run->replay.tries[j]) == 0;
            before += same && j < i;
            all += same;
        }
        if (before == 0) {
            DJ_TRY(buf_addf(body, "%s\"%s\":%d", first ? "" : ",", run->replay.tries[i], all));
            first = false;
        }
    }
    return buf_add_text(body, "}");
}

/* The run's id is the trace's; its fence, which no other call has, the span's. */
static dj_status add_trace(const dj_run *run, struct buf *body) {
    DJ_TRY(buf_add_text(body, ",\"traceparent\":\"00-"));
    for (size_t i = 0; i < sizeof run->id.bytes; i++) {
        DJ_TRY(buf_addf(body, "%02x", run->id.bytes[i]));
    }
    return buf_addf(body, "-%016llx-01\"}", (unsigned long long)run->fence);
}

dj_status protocol_request(const dj_run *run, const char *commit_url, const char *token,
                           struct buf *body) {
    DJ_TRY(add_run(run, body));
    DJ_TRY(add_steps(run, /* all_inline= */ commit_url == NULL, body));
    DJ_TRY(add_tries(run, body));
    if (commit_url == NULL) {
        DJ_TRY(buf_add_text(body, ",\"commit\":null"));
    } else {
        DJ_TRY(buf_addf(body, ",\"commit\":{\"url\":\"%s\",\"token\":\"%s\",\"maxRunMs\":%d}",
                        commit_url, token, RUN_MS_MAX));
    }
    return add_trace(run, body);
}

dj_status protocol_answer_check(const struct buf *body) {
    const char *text = body->data == NULL ? "" : body->data;
    DJ_TRY(json_check_inside("the answer", text, body->length, ANSWER_BYTES_MAX, RESULT_LEVELS));
    return text[strspn(text, " \t\r\n")] == '{'
               ? DJ_OK
               : dj_fail(DJ_INVALID_ARGUMENT, "the answer is another value");
}
