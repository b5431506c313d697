/* Onboarding: somebody signs up, gets a mail, confirms the address, and is let in.
 *
 * A module for `durable-worker --module onboarding.so` with two jobs:
 *
 *   userOnboarding           {"userId", "name", "email", "verifyWithin"}, the last "24h" if absent
 *   send-verification-email  {"userId", "name", "email"}
 *
 * Read onboard() first: that is all of it. What has been done stays done, whichever worker dies
 * between two lines, and while a person takes a day to confirm, nothing is held anywhere but rows.
 *
 * Settings: SMTP_URL, the mail server (smtp://127.0.0.1:2525 if unset); ONBOARDING_CALLS, a file
 * that gets one line for each call of a step (none if unset). */
#include "smtp.h"

#include <durable/worker.h>

#include <curl/curl.h>
#include <fcntl.h>
#include <json-c/json_tokener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CORRELATION_KEY_BYTES 512

struct settings {
    const char *smtp_url;
    int calls_fd; /* -1: calls are not noted */
};

static const char *text_of(json_object *object, const char *key) {
    return json_object_get_string(json_object_object_get(object, key));
}

/* Says on disk that a step's function was called, before it does anything: whoever reads the file
 * can count calls, also those of a worker that was killed in the middle of one. */
static void note_call(dj_run *run, const char *step) {
    const struct settings *settings = dj_run_context(run);
    struct timespec now;
    char line[512];
    int length;

    if (settings->calls_fd < 0) {
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    length = snprintf(line, sizeof line, "%lld.%06ld,%d,%s,%s\n", (long long)now.tv_sec,
                      now.tv_nsec / 1000, (int)getpid(), dj_run_id(run), step);
    if (write(settings->calls_fd, line, (size_t)length) != length) {
        (void)dj_log(run, DJ_WARNING, "a call of %s could not be noted", step);
    }
}

/* Runs a statement that answers one row with one JSON value. */
static dj_status query_json(dj_run *run, PGconn *conn, const char *sql, int value_count,
                            const char *const values[], json_object **ret_json) {
    PGresult *result = PQexecParams(conn, sql, value_count, NULL, values, NULL, NULL, 0);
    dj_status status = DJ_OK;

    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        const char *why = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
        status = dj_run_fail(run, "app_user: %s", why != NULL ? why : "the connection broke");
    } else if (PQntuples(result) != 1) {
        status = dj_run_fail_permanently(run, "app_user: there is no such user");
    } else {
        *ret_json = json_tokener_parse(PQgetvalue(result, 0, 0));
    }
    PQclear(result);
    return status;
}

static dj_status create_user(dj_run *run, PGconn *conn, json_object *person,
                             json_object **ret_user) {
    const char *values[] = { text_of(person, "userId"), text_of(person, "name"),
                             text_of(person, "email") };

    note_call(run, "create-user");
    return query_json(run, conn,
                      "insert into app_user (id, name, email) values ($1, $2, $3)"
                      " on conflict (id) do update set name = excluded.name, email = excluded.email"
                      " returning json_build_object('userId', id, 'name', name, 'email', email)",
                      3, values, ret_user);
}

static dj_status unlock_account(dj_run *run, PGconn *conn, json_object *event,
                                json_object **ret_user) {
    const char *values[] = { text_of(json_object_object_get(event, "payload"), "userId") };

    note_call(run, "unlock-account");
    return query_json(run, conn,
                      "update app_user set locked = false, unlocks = unlocks + 1 where id = $1"
                      " returning json_build_object('userId', id)",
                      1, values, ret_user);
}

/* A mail cannot be taken back, nor be part of the step's transaction. Should the worker die after
 * the server took it and before the step is committed, it is sent again, with its Message-ID. */
static dj_status send_verification_email(dj_run *run, json_object *user,
                                         json_object **ret_receipt) {
    const struct settings *settings = dj_run_context(run);
    char message_id[128];
    char body[2048];
    char reason[SMTP_REASON_BYTES];

    note_call(run, "send-verification-email");
    (void)snprintf(message_id, sizeof message_id, "%s.send-verification-email@example.com",
                   dj_run_id(run));
    (void)snprintf(body, sizeof body,
                   "Hello %s,\r\n\r\nplease confirm your address:\r\n"
                   "https://example.com/verify?user=%s\r\n",
                   text_of(user, "name"), text_of(user, "userId"));
    switch (smtp_send(settings->smtp_url,
                      &(struct smtp_mail){ .from = "welcome@example.com",
                                           .to = text_of(user, "email"),
                                           .message_id = message_id,
                                           .subject = "Please confirm your address",
                                           .body = body },
                      reason)) {
    case SMTP_DELIVERED:
        break;
    case SMTP_TRY_LATER:
        return dj_run_fail(run, "the mail server did not take the mail: %s", reason);
    case SMTP_REFUSED:
        return dj_run_fail_permanently(run, "the mail server refuses the mail: %s", reason);
    }
    *ret_receipt = json_object_new_object();
    json_object_object_add(*ret_receipt, "messageId", json_object_new_string(message_id));
    return DJ_OK;
}

/* Mail servers are often busy for a moment: try for a while, holding no worker between tries. */
static const dj_step_options mail_policy = {
    .max_attempts = 8,
    .backoff = { .initial = "500ms", .factor = 2, .max = "1m", .jitter = 0.1 },
    .timeout = "2m",
};

static bool is_one_line(const char *text, size_t bytes_max) {
    return text != NULL && strlen(text) <= bytes_max && strpbrk(text, "\r\n") == NULL;
}

/* What is wrong with the payload stays wrong: no second attempt. */
static dj_status check_person(dj_run *run, json_object *person) {
    const char *email = text_of(person, "email");

    if (!is_one_line(text_of(person, "userId"), 200) ||
        !is_one_line(text_of(person, "name"), 200)) {
        return dj_run_fail_permanently(run, "userId and name must be lines of 1 to 200 bytes");
    }
    if (!is_one_line(email, 254) || strchr(email, '@') == NULL || strpbrk(email, "<> ") != NULL) {
        return dj_run_fail_permanently(run, "email must be an address of up to 254 bytes");
    }
    return DJ_OK;
}

static dj_status onboard(dj_run *run, json_object *payload) {
    const char *verify_within = text_of(payload, "verifyWithin");
    char key[CORRELATION_KEY_BYTES];
    json_object *user;
    json_object *event;

    DJ_TRY(check_person(run, payload));
    (void)snprintf(key, sizeof key, "user:%s", text_of(payload, "userId"));

    DJ_TRY(dj_step_tx(run, "create-user", create_user, payload, &user));
    DJ_TRY(dj_step_with(run, "send-verification-email", send_verification_email, user, &mail_policy,
                        NULL));
    DJ_TRY(dj_wait_for_event(run, "email.verified",
                             &(dj_wait){ .correlation_key = key,
                                         .timeout = verify_within != NULL ? verify_within : "24h",
                                         .on_timeout = DJ_TIMEOUT_FAIL },
                             &event));
    DJ_TRY(dj_step_tx(run, "unlock-account", unlock_account, event, NULL));
    return dj_complete(run, json_tokener_parse("{\"onboarded\": true}"));
}

static dj_status mail_again(dj_run *run, json_object *payload) {
    json_object *receipt;

    DJ_TRY(check_person(run, payload));
    DJ_TRY(dj_step_with(run, "send-verification-email", send_verification_email, payload,
                        &mail_policy, &receipt));
    return dj_complete(run, json_object_get(receipt));
}

dj_status dj_module_init(dj_worker *worker) {
    static struct settings settings = { .smtp_url = "smtp://127.0.0.1:2525", .calls_fd = -1 };
    const char *smtp_url = getenv("SMTP_URL");
    const char *calls = getenv("ONBOARDING_CALLS");

    if (smtp_url != NULL) {
        settings.smtp_url = smtp_url;
    }
    if (calls != NULL) {
        settings.calls_fd = open(calls, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        if (settings.calls_fd < 0) {
            perror(calls);
            return DJ_INVALID_ARGUMENT;
        }
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return DJ_INTERNAL;
    }
    DJ_TRY(dj_worker_register(worker, "userOnboarding", onboard,
                              &(dj_job_options){ .context = &settings }));
    return dj_worker_register(worker, "send-verification-email", mail_again,
                              &(dj_job_options){ .context = &settings });
}
