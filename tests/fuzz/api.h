/* durable-server inside of a target: its HTTP, router, resources and readers, on a socket, as they
 * are. In place of its database and its HTTP client stand two that answer at once, well or badly as
 * the input says, and look at what they are given: each parameter has to be something that
 * PostgreSQL would take. */
#ifndef TESTS_FUZZ_API_H
#define TESTS_FUZZ_API_H

#include "common/db_calls.h"
#include "common/db_params.h"
#include "server/api/api.h"
#include "tests/fuzz/fuzz.h"

#define API_KEY "dj_AAAAAAAAAAAAAAAA_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
#define ANSWERS_MAX 64

/** What the stand-ins do: `moods[i]` is for the call number i; behind the last one all is well. */
struct moods {
    const uint8_t *moods;
    size_t count;
};

struct api_answer {
    int status;
    const char *body; /* in api_answers.text */
    size_t length;
    bool json;
};

/** What a connection was answered. */
struct api_answers {
    char *text; /* yours (free) */
    size_t length;
    int count;
    struct api_answer answers[ANSWERS_MAX];
    bool stream; /* the last of them is a stream of events */
};

/** Starts the server, once. */
void api_start(void);

/** Says the bytes on a connection of its own, in pieces of `piece` bytes (0: at once), closes it,
 * and reads what was answered. Promises: every answer is whole, HTTP, with a status and a body that
 * docs/http.md knows; nothing of the connection is left. */
void api_say(const char *bytes, size_t length, size_t piece, const struct moods *moods,
             struct api_answers *ret_answers);
void api_answers_done(struct api_answers *answers);

/** A token of a commit, as the server's secret signs it. */
const char *api_token(void);

/** Looks at each call for the database; NULL: nobody does. */
extern void (*api_on_call)(const struct db_call *call, const struct db_params *params);

/** Between the harness and its stand-ins. */
void stand_ins_reset(const struct moods *moods);
bool stand_ins_answer(void); /* what waits; false: nothing did */
uint8_t stand_ins_mood(void);

#endif
