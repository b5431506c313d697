/* One run of one case, as the fleet keeps it: what it remembers, what became of its commits, and
 * whether that is what the case says. Without sockets. */
#ifndef CLI_CONFORMANCE_PLAY_H
#define CLI_CONFORMANCE_PLAY_H

#include "cli/conformance.h"

struct play {
    const struct conformance_case *one;
    struct verdict *verdict;
    bool answering;
    char run_id[40], token[64];
    int attempt, calls, commits, refs_read;
    json_object *steps, *tries, *ops, *notes, *gives, *failures;
    json_object *suspended; /* the ops of this call that suspend */
    char *again;            /* the body that has to be said again */
    bool over;              /* lease lost, cancelled, or refused: no more ops may come */
    int64_t called_ms, heartbeat_ms;
};

void play_init(struct play *play, const struct conformance_case *one, bool answering,
               struct verdict *verdict);
void play_done(struct play *play);

/** What one run's part of a commit comes to. Yours. `play` NULL: it is of a play that is over. */
json_object *play_commit(struct play *play, json_object *part, enum commit_fault fault);

/** {"code": …}, as a commit is refused. Yours. */
json_object *commit_code(const char *code);

/** Takes an answer's ops. *ret_more: the handler is to be called again. */
void play_answer(struct play *play, json_object *answer, bool *ret_more);

/** Is the HTTP status what the case says? */
void play_judge_http(struct play *play, int status, const char *body);

/** All is over: does the case hold? `answer` NULL: it is not read. */
void play_judge(struct play *play, json_object *answer, int64_t took_ms);

#endif
