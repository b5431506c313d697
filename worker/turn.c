/* A turn commits what finished since the last turn and claims runs for the slots this sets free, in
 * one transaction and one round trip; with nothing to commit it only claims, and does not wait for
 * the disk (21_claim.sql says why it need not). One is in flight on each line, and a
 * run stays with its line: what finishes meanwhile waits for the next, so batches grow by
 * themselves under load and cost nothing if idle. On the loop thread; handlers' threads only put
 * runs into worker->outcomes.
 *
 * How much to claim: never more than the free slots, and never so much that runs wait here for a
 * thread while another worker is idle. The window of runs that may wait doubles when the pool ran
 * dry within WINDOW_MS of the last claim, and shrinks to what was begun of late: see on_tick(). */
#include "worker/fleet.h"

#include "common/bounds.h"
#include "common/check.h"
#include "common/db_calls.h"
#include "common/db_rows.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "worker/endpoint.h"
#include "worker/run.h"
#include <stdlib.h>
#include <string.h>

#define WINDOW_RUNS_MAX 1024
#define LINGER_MS 2
#define TURN_OPS_ENOUGH 400
#define REFUSED_REST_MS 1000

static_assert(TURN_OPS_MAX >= CLAIM_RUNS_MAX, "a turn can commit what a turn claimed");

/* Parameters of the commit. Each array is filled from the runs of its group. */

typedef bool (*run_filter)(const dj_run *run);

static bool is_step(const dj_run *run) {
    return run->op == OP_STEP;
}
static bool is_done(const dj_run *run) {
    return run->op == OP_DONE;
}
static bool is_other(const dj_run *run) {
    return run->op == OP_OTHER;
}

#define FOR_RUNS(run, list_, member)                                                               \
    for (dj_run *run = list_item((list_)->next, dj_run, member); &run->member != (list_);          \
         run = list_item(run->member.next, dj_run, member))

#define ARRAY(params, type, list_, filter, add)                                                    \
    do {                                                                                           \
        params_array_begin(params, type);                                                          \
        FOR_RUNS(run, list_, link) {                                                               \
            if (filter(run)) {                                                                     \
                add;                                                                               \
            }                                                                                      \
        }                                                                                          \
        params_array_end(params);                                                                  \
    } while (0)

static void add_ids(struct db_params *params, const struct list *runs, run_filter filter) {
    ARRAY(params, DB_UUID, runs, filter, params_array_uuid(params, &run->id));
    ARRAY(params, DB_INT8, runs, filter, params_array_int8(params, run->fence));
}

static void add_steps(struct db_params *params, const struct list *runs) {
    add_ids(params, runs, is_step);
    ARRAY(params, DB_INT4, runs, is_step, params_array_int4(params, run->position));
    ARRAY(params, DB_INT4, runs, is_step, params_array_int4(params, run->attempt));
    ARRAY(params, DB_TEXT, runs, is_step, params_array_text(params, run->name));
    ARRAY(params, DB_TEXT, runs, is_step, params_array_text(params, run->kind));
    ARRAY(params, DB_JSONB, runs, is_step, params_array_jsonb(params, run->result));
    ARRAY(params, DB_JSONB, runs, is_step, params_array_jsonb(params, run->step_error));
    ARRAY(params, DB_INT8, runs, is_step, params_array_int8(params, run->elapsed_us));
}

/* What leaves our hands: ops of handlers that are back, and of steps that are late. */
static void add_others(struct db_params *params, const struct list *runs, const struct list *late) {
#define OTHER(type, of_run, of_late)                                                               \
    do {                                                                                           \
        params_array_begin(params, type);                                                          \
        FOR_RUNS(run, runs, link) {                                                                \
            if (is_other(run)) {                                                                   \
                of_run;                                                                            \
            }                                                                                      \
        }                                                                                          \
        FOR_RUNS(run, late, watch.link) {                                                          \
            of_late;                                                                               \
        }                                                                                          \
        params_array_end(params);                                                                  \
    } while (0)
    OTHER(DB_UUID, params_array_uuid(params, &run->id), params_array_uuid(params, &run->id));
    OTHER(DB_INT8, params_array_int8(params, run->fence), params_array_int8(params, run->fence));
    OTHER(DB_TEXT, params_array_text(params, run->kind), params_array_text(params, run->watch.op));
    OTHER(DB_JSONB, params_array_jsonb(params, run->result),
          params_array_jsonb(params, run->watch.detail));
#undef OTHER
}

static void add_logs(struct db_params *params, const struct list *runs) {
    static const char *const names[] = { "debug", "info", "warning", "error" };
    int64_t now_us = clock_us();
#define LOGS(type, add)                                                                            \
    do {                                                                                           \
        params_array_begin(params, type);                                                          \
        FOR_RUNS(run, runs, link) {                                                                \
            list_for_each(line, &run->logs, struct log_line, link) {                               \
                add;                                                                               \
            }                                                                                      \
        }                                                                                          \
        params_array_end(params);                                                                  \
    } while (0)
    LOGS(DB_UUID, params_array_uuid(params, &run->id));
    LOGS(DB_INT4, params_array_int4(params, run->attempt));
    LOGS(DB_INT8, params_array_int8(params, now_us - line->at_us));
    LOGS(DB_TEXT, params_array_text(params, names[line->level]));
    LOGS(DB_TEXT, params_array_text(params, line->text));
#undef LOGS
}

static void params_commit(struct db_params *params, const struct worker_line *line) {
    params_add_uuid(params, &line->worker->id);
    add_steps(params, &line->in_flight);
    add_ids(params, &line->in_flight, is_done);
    ARRAY(params, DB_JSONB, &line->in_flight, is_done,
          params_array_jsonb(params, run->result != NULL ? run->result : "null"));
    add_others(params, &line->in_flight, &line->late_in_flight);
    add_logs(params, &line->in_flight);
}

/* What became of the ops of a turn. */

/* Sorts the runs of a turn that was committed: who goes on, who is to be said again, who is gone.
 */
static void settle_runs(struct worker_line *line) {
    struct list resumed, again;
    list_init(&resumed);
    list_init(&again);
    int resumed_count = 0;
    while (!list_is_empty(&line->in_flight)) {
        dj_run *run = list_first(&line->in_flight, dj_run, link);
        list_remove(&run->link);
        if (run->verdict == DJ_UNAVAILABLE) {
            list_push(&again, &run->link);
            line->pending_count++;
            continue;
        }
        run_logs_clear(run);
        if (run->op == OP_STEP || run->refused) {
            if (run->verdict != DJ_OK || run->refused) {
                run->verdict = DJ_LEASE_LOST;
                atomic_store(&run->lost, true);
            }
            run->again_ms = 0;
            list_push(&resumed, &run->link);
            resumed_count++;
        } else {
            worker_release(line->worker, run);
        }
    }
    list_splice(&line->pending, &again);
    list_splice(&again, &line->pending);
    while (!list_is_empty(&line->late_in_flight)) {
        dj_run *run = list_first(&line->late_in_flight, dj_run, watch.link);
        list_remove(&run->watch.link);
        if (run->verdict == DJ_UNAVAILABLE) {
            run->verdict = DJ_OK;
            list_push(&line->late, &run->watch.link);
            continue;
        }
        worker_late_gone(line->worker, run);
    }
    worker_resume(line->worker, &resumed, resumed_count);
}

/* Reads which runs were not committed. Everybody else was. */
static dj_status read_verdicts(struct worker_line *line, const PGresult *rows) {
    FOR_RUNS(run, &line->in_flight, link) {
        run->verdict = DJ_OK;
    }
    for (int row = 0; row < PQntuples(rows); row++) {
        dj_run *run;
        bool busy;
        DJ_TRY(worker_find(line->worker, rows, row, &run));
        DJ_TRY(rows_bool(rows, row, 2, &busy));
        if (run != NULL) {
            run->verdict = busy ? DJ_UNAVAILABLE : DJ_LEASE_LOST;
        }
    }
    return DJ_OK;
}

/* Puts a turn's runs back where the next turn finds them, in their order. */
void line_requeue(struct worker_line *line) {
    FOR_RUNS(run, &line->in_flight, link) {
        line->pending_count++;
    }
    line->ending_count = 0;
    list_splice(&line->pending, &line->in_flight);
    list_splice(&line->in_flight, &line->pending);
    list_splice(&line->late_in_flight, &line->late);
}

/* Runs that were claimed. */

static int compare_job(const void *name, const void *job) {
    return strcmp(name, ((const struct job *)job)->name);
}

/* Reads the flat memory of a run: five texts a step. See durable_internal.memory_of. What the lease
 * says of its bytes is of the last time that the run left a worker by itself: steps that one
 * committed before it died are only here. */
static dj_status read_memory(dj_run *run, const PGresult *rows, int row) {
    struct db_text_array array;
    DJ_TRY(rows_text_array(rows, row, CLAIM_MEMORY, &array));
    int fields = array.count;
    if (fields % 5 != 0) {
        return dj_fail(DJ_INTERNAL, "a run's memory has %d fields", fields);
    }
    run->replay.steps = arena_alloc(&run->arena, (size_t)(fields / 5) * sizeof(struct memory));
    run->replay.tries = arena_alloc(&run->arena, (size_t)(fields / 5) * sizeof(char *));
    int64_t bytes = (int64_t)run->payload_length;
    if (run->replay.steps == NULL || run->replay.tries == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for what a run remembers");
    }
    for (int i = 0; i < fields / 5; i++) {
        const char *text[5];
        for (int f = 0; f < 5; f++) {
            const char *field;
            size_t length;
            DJ_TRY(db_text_array_next(&array, &field, &length));
            bytes += field == NULL || f < 3 ? 0 : (int64_t)length;
            text[f] = field == NULL ? NULL : arena_strndup(&run->arena, field, length);
            if ((field == NULL) != (text[f] == NULL) || (f < 3 && text[f] == NULL)) {
                return dj_fail(DJ_NO_MEMORY, "no memory for what a run remembers");
            }
        }
        if (strcmp(text[1], "try") == 0) {
            run->replay.tries[run->replay.try_count++] = text[2];
        } else {
            int position = (int)strtol(text[0], NULL, 10);
            run->replay.steps[run->replay.step_count++] = (struct memory){
                .position = abs(position),
                .forgotten = position < 0,
                .kind = text[1],
                .name = text[2],
                .result = text[3],
                .error = text[4],
            };
        }
    }
    run->bytes = bytes > run->bytes ? bytes : run->bytes;
    return DJ_OK;
}

/* What only a call over HTTP says of its run. */
static dj_status read_facts(dj_run *run, const PGresult *rows, int row) {
    const char *text;
    size_t length;
    DJ_TRY(rows_text(rows, row, CLAIM_QUEUE, &text, &length));
    run->queue = arena_strndup(&run->arena, text, length);
    DJ_TRY(rows_jsonb_text(rows, row, CLAIM_FACTS, &text, &length));
    run->facts = arena_strndup(&run->arena, text, length);
    return run->queue != NULL && run->facts != NULL
               ? DJ_OK
               : dj_fail(DJ_NO_MEMORY, "no memory for what a call says of its run");
}

static dj_status read_run(struct worker_line *line, const PGresult *rows, int row, dj_run *run) {
    const char *text;
    size_t length;
    char job[NAME_BYTES_MAX + 1];
    int32_t bytes;
    DJ_TRY(rows_uuid(rows, row, CLAIM_RUN_ID, &run->id));
    DJ_TRY(rows_int8(rows, row, CLAIM_FENCE, &run->fence));
    DJ_TRY(rows_text(rows, row, CLAIM_JOB, &text, &length));
    if (length > NAME_BYTES_MAX) {
        return dj_fail(DJ_INTERNAL, "a job's name has %zu bytes", length);
    }
    memcpy(job, text, length);
    job[length] = '\0';
    run->job = line->worker->job_count == 0
                   ? NULL
                   : bsearch(job, line->worker->jobs, (size_t)line->worker->job_count,
                             sizeof *line->worker->jobs, compare_job);
    if (run->job == NULL && line->worker->endpoints != NULL) {
        run->job = endpoints_job(line->worker->endpoints, job);
    }
    if (run->job == NULL) {
        return dj_fail(DJ_INTERNAL, "job %s was not registered", job);
    }
    DJ_TRY(rows_int4(rows, row, CLAIM_ATTEMPT, &run->attempt));
    DJ_TRY(rows_int4(rows, row, CLAIM_BYTES, &bytes));
    run->bytes = bytes;
    DJ_TRY(rows_jsonb_text(rows, row, CLAIM_PAYLOAD, &text, &length));
    run->payload = arena_strndup(&run->arena, text, length);
    run->payload_length = length;
    if (run->payload == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for a payload");
    }
    uuid_print(&run->id, run->id_text);
    if (run->job->handler == NULL) {
        DJ_TRY(read_facts(run, rows, row));
    }
    return rows_is_null(rows, row, CLAIM_MEMORY) ? DJ_OK : read_memory(run, rows, row);
}

/* A run in hand, in an arena of its own. NULL: no memory, or an answer that makes no sense; its
 * lease goes back when the worker says what it has. */
static dj_run *run_new(struct worker_line *line, const PGresult *rows, int row) {
    struct arena arena;
    arena_init(&arena);
    dj_run *run = arena_alloc(&arena, sizeof *run);
    if (run == NULL) {
        return NULL;
    }
    *run = (dj_run){ .line = line,
                     .worker = line->worker,
                     .worker_id = line->worker->id,
                     .error.retry_after_ms = -1 };
    run->arena = arena;
    run->claimed_ms = clock_ms();
    list_init(&run->logs);
    if (read_run(line, rows, row, run) != DJ_OK) {
        log_error("claim.unreadable", "reason", dj_error_message());
        run_free(run);
        return NULL;
    }
    list_push(&line->worker->hand, &run->hand_link);
    line->worker->in_hand++;
    return run;
}

static void take_claimed(struct worker_line *line, const PGresult *rows) {
    dj_worker *worker = line->worker;
    struct list begun, called;
    list_init(&begun);
    list_init(&called);
    int count = 0;
    for (int row = 0; row < PQntuples(rows); row++) {
        dj_run *run = run_new(line, rows, row);
        if (run == NULL) {
            worker->reconcile = true;
            continue;
        }
        assert(run->job != NULL);
        bool native = run->job->handler != NULL;
        list_push(native ? &begun : &called, &run->link);
        count += native;
    }
    int64_t now_ms = clock_ms();
    worker->work_flows = PQntuples(rows) >= line->slots_asked;
    if (worker->work_flows) {
        worker->asked_again = false;
        if (pool_waiting(&worker->pool) == 0 && now_ms - worker->claimed_ms < WINDOW_MS &&
            worker->window < WINDOW_RUNS_MAX) {
            worker->window *= 2;
        }
    } else if (!worker->asked_again) { /* the flag is up now: what came just before it is there to
                                          see */
        worker->asked_again = true;
    } else if (worker->hints == line->hints_asked) {
        worker->work_hinted = false;
    }
    worker->claimed_ms = now_ms;
    worker->begun_count += count;
    worker_resume(worker, &begun, count);
    if (!list_is_empty(&called)) {
        endpoints_call(worker->endpoints, &called);
    }
    FAILPOINT("claim.taken");
}

/* The turn itself. */

/* One run's values are refused by the database itself. The run fails, in plain words, and its
 * neighbours go on. Of one that is late its handler has the rest: only what the loop says for it
 * changes. */
static void turn_refuse(dj_run *run, bool late, const char *reason) {
    json_object *error = json_object_new_object();
    json_object_object_add(error, "name", json_object_new_string("ResultRefused"));
    json_object_object_add(error, "message", json_object_new_string(reason));
    if (!late && run->op == OP_STEP) {
        json_object_object_add(error, "step", json_object_new_string(run->name));
    }
    json_object *detail = json_object_new_object();
    json_object_object_add(detail, "error", error);
    json_object_object_add(detail, "permanent", json_object_new_boolean(1));
    const char *text = json_object_to_json_string_ext(detail, JSON_C_TO_STRING_PLAIN);
    char **said = late ? &run->watch.detail : &run->result;
    free(*said);
    *said = text == NULL ? NULL : strdup(text);
    run->condemned = true;
    if (late) {
        run->watch.op = "fail";
    } else {
        run->refused = run->op == OP_STEP; /* its handler is parked, and is to be let go */
        run->op = OP_OTHER;
        run->kind = "fail";
        run_logs_clear(run);
    }
    json_object_put(detail);
}

/* A turn of this run alone was refused. A bad value is the run's fault. Of any other error that is
 * not so sure: all commits may fail, because of a right that was revoked, say, and then no run is
 * to fail for it. So it has to come again, and others have to have been committed meanwhile. What
 * is refused in any words rests, and comes alone: the others do not wait for it. */
static void turn_blame(dj_run *run, bool late, dj_status status, const char *reason) {
    const dj_worker *worker = run->worker;
    bool unsure = status == DJ_INTERNAL || status == DJ_NOT_ALLOWED;
    bool proven = run->again_ms != 0 && run->refused_at != worker->commits;
    if (!run->condemned && (!unsure || proven)) {
        log_error("run.refused", "run", run->id_text, "reason", reason);
        turn_refuse(run, late, reason);
        return;
    }
    log_error("turn.refused", "run", run->id_text, "reason", reason);
    run->refused_at = worker->commits;
    run->again_ms = clock_ms() + with_jitter(REFUSED_REST_MS);
}

/* The database refuses a value of some run: halve until one run is left, and fail that. While this
 * goes on nothing is claimed, so that a claim that is refused is not taken for a run's fault; one
 * that came alone is left out for a while, and what is to be committed does not wait for it. */
static void turn_split(struct worker_line *line, dj_status status, const char *reason) {
    int ops = 0;
    dj_run *last = NULL;
    FOR_RUNS(run, &line->in_flight, link) {
        last = run;
        ops++;
    }
    bool late = !list_is_empty(&line->late_in_flight);
    FOR_RUNS(run, &line->late_in_flight, watch.link) {
        last = run;
        ops++;
    }
    line_requeue(line);
    line->worker->work_hinted = true;
    if (ops > 1 || (ops == 1 && line->slots_asked > 0)) {
        line->ops_max = (ops + 1) / 2;
    } else if (ops == 1) {
        line->ops_max = TURN_OPS_MAX;
        turn_blame(last, late, status, reason);
    } else {
        log_error("turn.refused", "reason", reason);
        line->claim_after_ms = clock_ms() + with_jitter(REFUSED_REST_MS);
    }
    turn_start(line);
}

static void turn_done(struct db_batch *batch) {
    struct worker_line *line = batch->context;
    dj_worker *worker = line->worker;
    assert(line->turning);
    line->turning = false;
    line->ending_count = 0;
    FAILPOINT_ANSWER("turn.answered", batch, &line->pipeline);
    bool committed = !list_is_empty(&line->in_flight) || !list_is_empty(&line->late_in_flight);
    dj_status status = batch->status;
    if (status == DJ_OK && committed) {
        status = read_verdicts(line, batch->results[1]);
    }
    switch (status) {
    case DJ_OK:
        line->ops_max = TURN_OPS_MAX;
        if (committed) {
            worker->commits++;
            FAILPOINT("commit.answered");
            settle_runs(line);
        }
        FAILPOINT("turn.settled");
        if (line->slots_asked > 0 && !worker->leaving) { /* else it asked for none, or they go back
                                                            with all that we have */
            FAILPOINT("claim.answered");
            take_claimed(line, batch->results[committed ? 2 : 0]);
        }
        turns_consider(worker);
        worker_check_drained(worker);
        return;
    case DJ_LEASE_LOST: /* not of one run: lock_turn says that the worker was declared dead */
        log_warning("worker.declared_dead", "reason", batch->message);
        line_requeue(line);
        worker_lose_all(worker);
        return;
    case DJ_UNAVAILABLE:
        /* Did it commit? Unknown, so all is said again: the fence makes a second commit a no-op.
         * Leases that we were given and never heard of are given back after the reconnect. */
        log_warning("turn.delayed", "reason", batch->message);
        line_requeue(line);
        worker->work_hinted = true;
        if (!batch->broken) { /* a deadlock, a timeout, a standby that did not confirm: the
                                 connection is well, but the turn may have claimed; a moment's rest
                               */
            worker->reconcile = worker->reconcile || line->slots_asked > 0;
            struct timeval rest = timeval_of_ms(with_jitter(50));
            (void)event_add(line->retry, &rest);
        }
        return;
    default: /* what is not the connection's fault is a value's */
        turn_split(line, status, batch->message);
        return;
    }
}

/* How many runs a turn may ask for. Runs that a turn on its way ends have left their slots. */
static int turn_room(const dj_worker *worker) {
    if (!worker->work_hinted || atomic_load(&worker->draining) || worker->reconcile ||
        worker->reconciling) {
        return 0;
    }
    int asked = 0, ending = 0;
    for (int i = 0; i < worker->line_count; i++) {
        asked += worker->lines[i].turning ? worker->lines[i].slots_asked : 0;
        ending += worker->lines[i].ending_count;
    }
    if (asked > 0 && !worker->work_flows) {
        return 0; /* one ask at a time finds a lone run; two would only get in each other's way */
    }
    int room = worker->slots_max - worker->in_hand - asked + ending;
    int window = worker->window - pool_waiting(&worker->pool) - asked;
    room = room < window ? room : window;
    return room < 0 ? 0 : room > CLAIM_RUNS_MAX ? CLAIM_RUNS_MAX : room;
}

/* Whether the next turn, which has `*ops` of at most `ops_max` so far, takes this run as well. One
 * that was refused fills it. */
static bool turn_takes(const struct worker_line *line, const dj_run *run, int64_t now_ms,
                       int *ops) {
    if (run->again_ms != 0) {
        if (*ops > 0 || run->again_ms > now_ms) {
            return false;
        }
        *ops = line->ops_max;
        return true;
    }
    return (*ops)++ < line->ops_max;
}

/* What the next turn is to commit. */
static void turn_fill(struct worker_line *line) {
    int64_t now_ms = clock_ms();
    int ops = 0;
    list_for_each(run, &line->late, dj_run, watch.link) {
        if (turn_takes(line, run, now_ms, &ops)) {
            list_remove(&run->watch.link);
            list_push(&line->late_in_flight, &run->watch.link);
        }
    }
    list_for_each(run, &line->pending, dj_run, link) {
        if (ops >= line->ops_max) {
            break;
        }
        if (!turn_takes(line, run, now_ms, &ops)) {
            continue;
        }
        list_remove(&run->link);
        list_push(&line->in_flight, &run->link);
        line->pending_count--;
        line->ending_count += run->op != OP_STEP;
    }
}

static void params_claim(struct db_params *claim, struct worker_line *line, bool committing,
                         bool matching) {
    dj_worker *worker = line->worker;
    params_add_uuid(claim, &worker->id);
    params_add_int4(claim, line->slots_asked);
    params_add_int4(claim, CLAIM_BYTES_MAX);
    if (!committing) {
        params_add_int4(claim, worker->number);
        params_add_bool(claim, matching);
        worker->event_hinted = false;
    }
    line->hints_asked = worker->hints;
}

/* Starts a turn if there is something to say and none is in flight. Cheap to call too often. */
void turn_start(struct worker_line *line) {
    dj_worker *worker = line->worker;
    if (line->turning || worker->leaving || !db_pipeline_is_open(&line->pipeline) ||
        event_pending(line->retry, EV_TIMEOUT, NULL)) {
        return;
    }
    if (worker->reconcile) {
        reconcile_send(line);
        if (line->turning) {
            return;
        }
    }
    line->ending_count = 0;
    bool may_ask = clock_ms() >= line->claim_after_ms;
    bool matching =
        may_ask && worker->event_hinted && !worker->reconcile && !atomic_load(&worker->draining);
    if (!matching) { /* a match is in a turn without a commit */
        turn_fill(line);
    }
    bool committing = !list_is_empty(&line->in_flight) || !list_is_empty(&line->late_in_flight);
    bool splitting = committing && line->ops_max < TURN_OPS_MAX;
    line->slots_asked = may_ask && !splitting ? turn_room(worker) : 0;
    if (!committing && !matching && line->slots_asked == 0) {
        return;
    }
    struct db_params lock, commit, claim;
    params_init(&lock);
    params_init(&commit);
    params_init(&claim);
    const struct db_call *calls[3];
    struct db_params *params[3];
    int count = 0;
    if (committing) {
        params_add_uuid(&lock, &worker->id);
        params_add_int4(&lock, worker->number);
        calls[count] = &CALL_LOCK_TURN;
        params[count++] = &lock;
        params_commit(&commit, line);
        calls[count] = &CALL_COMMIT;
        params[count++] = &commit;
    }
    if (line->slots_asked > 0 || matching) {
        params_claim(&claim, line, committing, matching);
        calls[count] = committing ? &CALL_CLAIM : &CALL_CLAIM_TURN;
        params[count++] = &claim;
    }
    bool too_large = params_status(&commit) == DJ_TOO_LARGE;
    if (params_status(&lock) == DJ_OK && params_status(&commit) == DJ_OK &&
        params_status(&claim) == DJ_OK) {
        line->turning = true;
        FAILPOINT("turn.composed");
        db_pipeline_send(&line->pipeline, calls, params, count, turn_done, line);
        FAILPOINT_SOCKET("turn.sent", PQsocket(line->pipeline.conn));
        if (line->slots_asked > 0) {
            FAILPOINT_SOCKET("claim.sent", PQsocket(line->pipeline.conn));
        }
        if (committing) {
            FAILPOINT_SOCKET("commit.sent", PQsocket(line->pipeline.conn));
        }
    } else { /* nothing was sent and nothing is lost: the next tick tries again, with half of it if
                it was too much */
        log_warning("turn.delayed", "reason", dj_error_message());
        line_requeue(line);
        worker->work_hinted = true;
        line->ops_max = too_large && line->ops_max > 1 ? line->ops_max / 2 : line->ops_max;
    }
    params_done(&lock);
    params_done(&commit);
    params_done(&claim);
}

void turns_start(dj_worker *worker) {
    for (int i = 0; i < worker->line_count; i++) {
        turn_start(&worker->lines[i]);
    }
}

/* Short handlers come back one by one, and a turn costs as much as many of them: while others wait
 * for a thread, a little while gathers them. With nobody waiting there is nothing to gather, and no
 * delay. */
void turns_consider(dj_worker *worker) {
    int pending = 0;
    for (int i = 0; i < worker->line_count; i++) {
        pending =
            worker->lines[i].pending_count > pending ? worker->lines[i].pending_count : pending;
    }
    if (pool_waiting(&worker->pool) == 0 || pending >= TURN_OPS_ENOUGH) {
        turns_start(worker);
    } else if (!event_pending(worker->linger_timer, EV_TIMEOUT, NULL)) {
        struct timeval linger = timeval_of_ms(LINGER_MS);
        (void)event_add(worker->linger_timer, &linger);
    }
}

void turn_hint(dj_worker *worker, bool event) {
    worker->work_hinted = true;
    worker->event_hinted |= event;
    worker->asked_again = false;
    worker->hints++;
    turns_start(worker);
}
