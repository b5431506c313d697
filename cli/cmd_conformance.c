/* durable conformance: does an SDK speak docs/protocol.md? Plays the fleet against an endpoint that
 * serves the jobs of docs/conformance.md, and says of each case whether it holds. */
#include "cli/commands.h"
#include "cli/conformance.h"

#include "common/auto.h"
#include "common/buf.h"
#include "common/config.h"
#include "common/webhook.h"
#include <json-c/json_object.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

struct conformance_flags {
    const char *endpoint, *secret;
    struct config_texts only;
    bool json, list;
};

struct report {
    bool json;
    json_object *cases;
    int held, failed;
};

/* "steps", and where commit is null "steps/answer". */
static void name_of(const struct conformance_case *one, bool answering, char name[64]) {
    (void)snprintf(name, 64, "%s%s", one->name, answering ? "/answer" : "");
}

static bool is_wanted(const struct config_texts *only, const struct conformance_case *one,
                      bool answering) {
    char name[64];
    name_of(one, answering, name);
    for (int i = 0; i < only->count; i++) {
        if (strcmp(only->texts[i], name) == 0 || strcmp(only->texts[i], one->name) == 0) {
            return true;
        }
    }
    return only->count == 0;
}

static bool is_known(const char *wanted) {
    char name[64];
    for (int i = 0; i < conformance_case_count; i++) {
        name_of(&conformance_cases[i], conformance_cases[i].answers_too, name);
        if (strcmp(wanted, conformance_cases[i].name) == 0 || strcmp(wanted, name) == 0) {
            return true;
        }
    }
    return false;
}

/* A line of what was found stays in its line. */
static void print_flat(const char *text) {
    for (; *text != '\0'; text++) {
        (void)putchar((unsigned char)*text < ' ' || *text == 0x7F ? ' ' : *text);
    }
}

static void print_verdict(const struct report *report, const char *name, const char *says,
                          const struct verdict *verdict) {
    if (report->json) {
        json_object *one = json_object_new_object();
        json_object_object_add(one, "name", json_object_new_string(name));
        json_object_object_add(one, "ok", json_object_new_boolean(!verdict->failed));
        json_object_object_add(one, "says", json_object_new_string(says));
        if (verdict->failed) {
            json_object_object_add(one, "expected", json_object_new_string(verdict->expected));
            json_object_object_add(one, "found", json_object_new_string(verdict->found));
        }
        (void)json_object_array_add(report->cases, one);
        return;
    }
    (void)printf("%-4s  %-22s  ", verdict->failed ? "FAIL" : "ok", name);
    if (verdict->failed) {
        (void)printf("expected ");
        print_flat(verdict->expected);
        (void)printf("; found ");
        print_flat(verdict->found);
    } else {
        (void)printf("%s", says);
    }
    (void)putchar('\n');
    (void)fflush(stdout); /* a case can take seconds */
}

static dj_status play_one(struct fleet *fleet, const struct conformance_case *one, bool answering,
                          struct report *report) {
    char name[64];
    struct verdict verdict;
    DJ_TRY(fleet_play(fleet, one, answering, &verdict));
    name_of(one, answering, name);
    print_verdict(report, name, one->says, &verdict);
    report->failed += verdict.failed;
    report->held += !verdict.failed;
    return DJ_OK;
}

static dj_status play_all(struct fleet *fleet, const struct config_texts *only,
                          struct report *report) {
    for (int i = 0; i < conformance_case_count; i++) {
        const struct conformance_case *one = &conformance_cases[i];
        if (is_wanted(only, one, /* answering= */ false)) {
            DJ_TRY(play_one(fleet, one, /* answering= */ false, report));
        }
        if (one->answers_too && is_wanted(only, one, /* answering= */ true)) {
            DJ_TRY(play_one(fleet, one, /* answering= */ true, report));
        }
    }
    return DJ_OK;
}

static void print_end(const struct report *report, const char *endpoint) {
    if (!report->json) {
        (void)printf("%d ok, %d failed\n", report->held, report->failed);
        return;
    }
    AUTO(json) json_object *all = json_object_new_object();
    json_object_object_add(all, "endpoint", json_object_new_string(endpoint));
    json_object_object_add(all, "protocol", json_object_new_int(1));
    json_object_object_add(all, "ok", json_object_new_int(report->held));
    json_object_object_add(all, "failed", json_object_new_int(report->failed));
    json_object_object_add(all, "cases", json_object_get(report->cases));
    (void)printf("%s\n", json_object_to_json_string_ext(all, JSON_C_TO_STRING_PLAIN |
                                                                 JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* Secrets with spaces between them, as an endpoint takes them. `text` is cut up. */
static dj_status secrets_read(char *text, const char *secrets[CONFORMANCE_SECRETS_MAX],
                              int *ret_count) {
    char *rest = text;
    int count = 0;
    for (char *one; (one = strsep(&rest, " ,")) != NULL;) {
        if (*one == '\0') {
            continue;
        }
        if (count == CONFORMANCE_SECRETS_MAX) {
            return dj_fail(DJ_INVALID_ARGUMENT, "--secret has more than %d secrets",
                           CONFORMANCE_SECRETS_MAX);
        }
        AUTO(buf) struct buf signature;
        buf_init(&signature, 256);
        DJ_TRY(webhook_sign(one, "msg_0", 0, "", 0, &signature)); /* is it a secret at all? */
        secrets[count++] = one;
    }
    *ret_count = count;
    return count > 0 ? DJ_OK : dj_fail(DJ_INVALID_ARGUMENT, "--secret is empty");
}

static void print_cases(void) {
    for (int i = 0; i < conformance_case_count; i++) {
        (void)printf("%-22s  %s\n", conformance_cases[i].name, conformance_cases[i].says);
    }
}

static dj_status conformance_run(const struct conformance_flags *flags) {
    if (flags->endpoint == NULL || flags->secret == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is missing",
                       flags->endpoint == NULL ? "--endpoint"
                                               : "--secret (or STACKSHIFT_SIGNING_SECRET)");
    }
    for (int i = 0; i < flags->only.count; i++) {
        if (!is_known(flags->only.texts[i])) {
            return dj_fail(DJ_INVALID_ARGUMENT, "there is no case '%s'; --list names them",
                           flags->only.texts[i]);
        }
    }
    const char *secrets[CONFORMANCE_SECRETS_MAX];
    int count;
    AUTO(free) char *secret = strdup(flags->secret);
    if (secret == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for the secret");
    }
    DJ_TRY(secrets_read(secret, secrets, &count));
    struct fleet *fleet;
    DJ_TRY(fleet_open(flags->endpoint, secrets, count, &fleet));
    AUTO(json) json_object *cases = json_object_new_array();
    struct report report = { .json = flags->json, .cases = cases };
    dj_status status = play_all(fleet, &flags->only, &report);
    fleet_close(fleet);
    DJ_TRY(status);
    print_end(&report, flags->endpoint);
    return report.failed == 0 ? DJ_OK
                              : dj_fail(DJ_FAILED, "%d of %d cases do not hold", report.failed,
                                        report.held + report.failed);
}

dj_status command_conformance(int argc, char **argv) {
    struct conformance_flags flags = { .endpoint = NULL };
    const struct config_option options[] = {
        { .flag = "endpoint",
          .value_name = "URL",
          .help = "the endpoint under test; it serves the jobs of docs/conformance.md",
          .kind = CONFIG_TEXT,
          .target = &flags.endpoint },
        { .flag = "secret",
          .environment = "STACKSHIFT_SIGNING_SECRET",
          .value_name = "WHSEC",
          .help = "whsec_…, with which calls are signed; several with spaces between them",
          .kind = CONFIG_TEXT,
          .target = &flags.secret },
        { .flag = "only",
          .value_name = "NAME",
          .default_text = "all",
          .help = "a case; may be repeated. NAME/answer: with commit null",
          .kind = CONFIG_TEXTS,
          .target = &flags.only },
        { .flag = "list", .help = "name the cases", .kind = CONFIG_SWITCH, .target = &flags.list },
        { .flag = "json", .help = "print JSON", .kind = CONFIG_SWITCH, .target = &flags.json },
        { .flag = NULL },
    };
    const struct config_command command = {
        .program = "durable conformance",
        .summary = "plays every case of the handler protocol against an endpoint",
        .options = options
    };
    int first;
    DJ_TRY(config_parse(&command, argc, argv, &first));
    if (flags.list) {
        print_cases();
        return DJ_OK;
    }
    (void)signal(SIGPIPE, SIG_IGN); /* connections are cut on purpose */
    return conformance_run(&flags);
}
