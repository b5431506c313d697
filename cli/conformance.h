/* durable conformance: the cases of docs/protocol.md as data, the fleet that plays them, and the
 * patterns by which what an SDK says is judged. One thread. */
#ifndef CLI_CONFORMANCE_H
#define CLI_CONFORMANCE_H

#include "common/status.h"
#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFORMANCE_TEXT_BYTES_MAX 320
#define CONFORMANCE_SECRETS_MAX 4

/* What is wrong, or odd, with a request. */
enum request_flaw {
    REQUEST_GOOD,
    REQUEST_SIGNATURE_BAD,       /* made with another secret */
    REQUEST_SIGNATURE_MISSING,   /* the header is not there */
    REQUEST_SIGNATURE_TRUNCATED, /* its end is cut off */
    REQUEST_SIGNATURE_SECOND,    /* one of another secret comes first */
    REQUEST_SIGNATURE_UNKNOWN,   /* one of another version comes first */
    REQUEST_TIMESTAMP_OLD,
    REQUEST_TIMESTAMP_AHEAD,
    REQUEST_BODY_CHANGED, /* a space more than was signed */
    REQUEST_ID_CHANGED,
};

/* What happens to one commit. */
enum commit_fault {
    COMMIT_GOOD,
    COMMIT_ANSWER_LOST, /* it is done, and the connection ends without an answer */
    COMMIT_UNAVAILABLE, /* 503, and it is not done */
    COMMIT_LEASE_LOST,
    COMMIT_CANCELLED,
    COMMIT_REFUSED, /* payload_too_large */
    COMMIT_NOBODY,  /* all of them: nobody listens at commit.url */
};

/* JSON is written with ' for ", and compared as a pattern: see conformance_match.c. */
struct conformance_case {
    const char *name;
    const char *says;       /* what holds, behind `ok` */
    const char *job;        /* NULL: a GET */
    const char *payload;    /* NULL: {} */
    const char *remembered; /* at the first call; NULL: nothing */
    const char *ops;        /* those of all calls, in order; NULL: not looked at */
    const char *notes; /* log and progress, which have no place among them; NULL: not looked at */
    const char *gives; /* what ops come to that have a result or suspend, in order; with a name:
                          as soon as the op of that name has been asked for */
    const char *ref;   /* what GET commit.url?ref= is answered with */
    const char *failures; /* the errors of attempts before the last one */
    const char *end;      /* the last answer; NULL: not looked at */
    int http_status;      /* 0: 200; HTTP_FAILS: what fails an attempt */
    int attempts;         /* of the run; 0: 1 */
    int max_run_ms;       /* 0: 300000 */
    int calls_min;
    int together;  /* so many runs at once, whose ops give ids of their own; 0: one */
    int within_ms; /* the last answer came; 0: not looked at */
    enum request_flaw request;
    enum commit_fault fault;
    int fault_at;     /* which commit, from 1 */
    bool answers_too; /* played a second time with commit null */
    bool any_order;   /* ops are compared sorted by their names; of one that is asked for again in
                         a later call, unchanged, the first time counts, as always */
    bool heartbeat;   /* one is said within 5 s */
};

#define HTTP_FAILS (-1)

extern const struct conformance_case conformance_cases[];
extern const int conformance_case_count;

struct verdict {
    bool failed;
    char expected[CONFORMANCE_TEXT_BYTES_MAX], found[CONFORMANCE_TEXT_BYTES_MAX];
};

/** Says why a case does not hold; the first reason stays. */
void verdict_fail(struct verdict *verdict, const char *expected, const char *found_format, ...)
    __attribute__((format(printf, 3, 4)));

/** Reads a table's JSON, with ' for ". Yours. */
json_object *pattern_read(const char *text);

/** True: `value` is as `pattern` says. Else the verdict says where not. */
bool pattern_fits(const char *path, json_object *pattern, json_object *value,
                  struct verdict *verdict);

struct fleet;

/** Opens the port of commit.url. `secrets` is lent. */
MUST_CHECK dj_status fleet_open(const char *url, const char *const *secrets, int secret_count,
                                struct fleet **ret_fleet);
void fleet_close(struct fleet *fleet);

/** Plays one case. `answering`: with commit null. An error: it could not be played at all. */
MUST_CHECK dj_status fleet_play(struct fleet *fleet, const struct conformance_case *one,
                                bool answering, struct verdict *ret_verdict);

#endif
