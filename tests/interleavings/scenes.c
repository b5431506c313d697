/* What meets. A scene's rows are made by the functions themselves, once; names for them are in
 * interleave.who. Workers are alive unless a scene says `silent`, which is due to be reaped. */
#include "interleavings.h"

#define OP(variable, words, text) static const struct op variable = { .name = words, .sql = text }
#define OP_OR(variable, words, states, text)                                                       \
    static const struct op variable = { .name = words, .sql = text, .errors = states }

/* Workers. DJ005: declared dead, or the lease is lost. */
OP_OR(claim1, "claim w1", "DJ005", "select interleave.claim('w1')");
OP_OR(claim2, "claim w2", "DJ005", "select interleave.claim('w2')");
OP_OR(claim_send, "claim w1 and send", "DJ005", /* a number of the order is drawn meanwhile */
      "select interleave.claim('w1') || durable.send_event('other')");
OP_OR(claim_match, "claim+match w2", "DJ005", "select interleave.claim('w2', true)");
OP_OR(step, "step", "DJ005", "select interleave.turn('w1', 'r', 'step')");
OP_OR(done, "done", "DJ005", "select interleave.turn('w1', 'r', 'done')");
OP_OR(wait_e, "wait", "DJ005",
      "select interleave.turn('w1', 'r', 'wait', '{\"position\": 1, \"name\": \"w\", \"event\": "
      "\"e\", "
      "\"timeoutMs\": 86400000, \"onTimeout\": \"continue\"}')");
OP_OR(
    sleep_turn, "sleep", "DJ005",
    "select interleave.turn('w1', 'r', 'sleep', '{\"position\": 1, \"name\": \"s\", \"ms\": 0}')");
OP_OR(fail, "fail", "DJ005",
      "select interleave.turn('w1', 'r', 'fail', '{\"error\": {\"name\": \"E\"}, \"retryAfterMs\": "
      "0}')");
OP_OR(fail_for_good, "fail for good", "DJ005",
      "select interleave.turn('w1', 'r', 'fail', '{\"error\": {\"name\": \"E\"}, \"permanent\": "
      "true}')");
OP_OR(yield, "yield", "DJ005", "select interleave.turn('w1', 'r', 'yield')");
OP_OR(park, "park", "DJ005", "select interleave.turn('w1', 'r', 'park', '{\"version\": \"1\"}')");
OP_OR(step_retry, "step_retry", "DJ005",
      "select interleave.turn('w1', 'r', 'step_retry', '{\"name\": \"s\", \"error\": {}, "
      "\"retryAfterMs\": 0, \"tries\": 1}')");
OP_OR(crash, "crash", "DJ005", "select interleave.turn('w1', 'r', 'crash')");
OP_OR(answer, "answer", "DJ005",
      "select interleave.turn('w1', 'r', 'answer', '{\"status\": \"completed\", \"ops\": [{\"op\": "
      "\"step\", \"name\": \"a\", \"result\": 1}]}')");
OP_OR(step_tx, "step_tx", "DJ005", "select interleave.step_tx('w1', 'r')");
OP_OR(step_tx_child, "step_tx child", "DJ005",
      "select interleave.step_tx('w1', 'r', '{\"op\": \"child\", \"job\": \"j\"}')");
OP_OR(
    answer_send, "answer and send", "DJ005",
    "select interleave.turn('w1', 'r', 'answer', jsonb_build_object('status', 'completed', 'ops', "
    "jsonb_build_array(interleave.send_op())))");
OP_OR(step_tx_send, "step_tx sends", "DJ005",
      "select interleave.step_tx('w1', 'r', interleave.send_op())");
OP_OR(beat, "beat", "DJ005",
      "select run_id from durable_internal.beat(interleave.id('w1'), array[interleave.id('r')], "
      "array[interleave.number('r')], false)");
OP(leave, "leave", "select durable_internal.worker_leave(interleave.id('w1'))");
OP(crashed, "crashed",
   "select durable_internal.worker_crashed(interleave.id('w1'), interleave.id('r'), "
   "interleave.number('r'), 's')");
OP_OR(reconcile, "reconcile", "DJ005",
      "select coalesce(run_id::text, 'held') from durable_internal.reconcile(interleave.id('w1'), "
      "interleave.number('w1')::int, '{}', '{}', '{}')");
OP(register_2, "register",
   "select durable_internal.worker_register(durable_internal.uuid_v7(), 'default', 'n', 1, '2', 1, "
   "3600000, '{j}', array['{\"version\": \"2\"}']::jsonb[], null) > 0");

/* Handlers over HTTP. */
OP(ops_step, "step over HTTP", "select interleave.ops('w1', 'r', interleave.step_op())");
OP(ops_send, "send over HTTP",
   "select interleave.ops('w1', 'r', jsonb_build_array(interleave.send_op()))");
OP(ops_beat, "beat over HTTP", "select interleave.ops('w1', 'r', '[]')");
OP(ops_wait, "wait over HTTP",
   "select interleave.ops('w1', 'r', '[{\"op\": \"wait_any\", \"name\": \"w\", \"events\": "
   "[{\"event\": \"e\"}, {\"event\": \"f\", \"correlationKey\": \"k\"}]}]')");
OP(ops_child, "child over HTTP",
   "select interleave.ops('w1', 'r', '[{\"op\": \"child\", \"name\": \"c\", \"job\": \"j\"}]')");
OP(ops_lock, "lock over HTTP",
   "select interleave.ops('w1', 'r', '[{\"op\": \"state\", \"name\": \"l\", \"action\": \"lock\", "
   "\"key\": \"l\", \"ttl\": \"1h\"}]')");

/* Two runs that count, or one that counts in several keys; of each other's runs they have none. */
OP(count_ba, "commit counts ba",
   "select interleave.count_in('ops', '{r,r2}', '[[\"b\"], [\"a\"]]')");
OP(count_ab, "commit counts ab",
   "select interleave.count_in('ops', '{r3,r4}', '[[\"a\"], [\"b\"]]')");
OP(count_abc, "commit counts abc",
   "select interleave.count_in('ops', '{r5}', '[[\"a\", \"b\", \"c\"]]')");
OP(count_cba, "commit counts cba",
   "select interleave.count_in('ops', '{r6}', '[[\"c\", \"b\", \"a\"]]')");
OP(count_turn, "turn counts",
   "select interleave.count_in('turn', '{r7,r8}', '[[\"b\"], [\"a\"]]')");

/* A worker whose lease went to w2: the fence 'late#' is the one that it had. */
OP_OR(late_step, "late step", "DJ005",
      "select interleave.turn('w1', 'r', 'step', '{}', interleave.number('late'))");
OP_OR(late_done, "late done", "DJ005",
      "select interleave.turn('w1', 'r', 'done', '{}', interleave.number('late'))");
OP_OR(late_fail, "late fail", "DJ005",
      "select interleave.turn('w1', 'r', 'fail', '{\"error\": {}}', interleave.number('late'))");
OP(late_ops, "late step over HTTP",
   "select interleave.ops('w1', 'r', interleave.step_op(), interleave.number('late'))");
OP_OR(step2, "step w2", "DJ005", "select interleave.turn('w2', 'r', 'step')");
OP_OR(done2, "done w2", "DJ005", "select interleave.turn('w2', 'r', 'done')");

/* Duties. */
OP(reap, "reap", "select interleave.name_of(durable_internal.reap())");
OP(match, "match", "select durable_internal.match_turn(100)");
OP(match_1, "match one", "select durable_internal.match_turn(1)");
OP(promote, "promote", "select promoted from durable_internal.promote_due(100, -1)");
OP(marks, "marks", "select durable_internal.move_marks(1)");
OP(expire, "expire", "select durable_internal.expire_state(100)");

/* Callers. */
OP(send, "send", "select durable.send_event('e', '1')");
OP(send_key, "send key", "select durable.send_event('e', '1', idempotency_key => 'i')");
OP(send_other, "send f", "select durable.send_event('f', '2', 'k')");
OP_OR(wait_again, "wait again", "DJ005", "select interleave.wait_again('w2', 'r')");
OP(cancel, "cancel", "select durable.cancel(interleave.id('r'))");
static const struct op cancel_undone = { .name = "cancelled not",
                                         .sql = "select durable.cancel(interleave.id('r'))",
                                         .end = "rollback" };
static const struct op cancel_rr = { .name = "cancel r (repeatable read)",
                                     .sql = "select durable.cancel(interleave.id('r'))",
                                     .begin = "begin isolation level repeatable read",
                                     .errors = "40001" };
OP(cancel_2, "cancel r2", "select durable.cancel(interleave.id('r2'))");
OP_OR(retry, "retry", "DJ006", "select durable.retry(interleave.id('r'))");
OP(retry_on, "retry r2", "select interleave.retry_on('w2', 'r2', true)");
OP(retry_on_http, "retry r2 over HTTP", "select interleave.retry_on('w2', 'r2', false)");
OP(retry_wait, "retry and wait", "select interleave.retry_wait('w2', 'r')");
OP_OR(reschedule, "reschedule", "DJ006",
      "select durable.reschedule(interleave.id('r'), clock_timestamp() + interval '1 hour')");
OP_OR(reschedule_now, "reschedule now", "DJ006",
      "select durable.reschedule(interleave.id('r'), clock_timestamp() - interval '1 hour')");
OP(start, "start", "select durable.start('j')");
OP(start_first, "start first", "select durable.start('k')");
OP(start_many, "start_many",
   "select count(*) from durable.start_many('j', array['1', '2']::jsonb[])");
OP_OR(start_key, "start key", "DJ002", "select durable.start('j', '1', idempotency_key => 'k1')");
static const struct op start_key_rr = {
    .name = "start key (repeatable read)",
    .sql = "select durable.start('j', '1', idempotency_key => 'k1')",
    .begin = "begin isolation level repeatable read",
    .errors = "40001 DJ002"
};
static const struct op start_key_undone = {
    .name = "start key not",
    .sql = "select durable.start('j', '1', idempotency_key => 'k1')",
    .errors = "DJ002",
    .end = "rollback"
};
OP_OR(start_other, "start key otherwise", "DJ002",
      "select durable.start('j', '2', idempotency_key => 'k1')");
OP_OR(restart_key, "restart key", "DJ002",
      "select durable.start('j', '1', idempotency_key => 'k1', options => '{\"onTerminal\": "
      "\"restart\"}')");
OP_OR(start_12, "start k1 k2", "DJ002",
      "select count(*) from durable.start_many('j', array['1', '2']::jsonb[], idempotency_keys => "
      "'{k1,k2}')");
OP_OR(start_21, "start k2 k1", "DJ002",
      "select count(*) from durable.start_many('j', array['2', '1']::jsonb[], idempotency_keys => "
      "'{k2,k1}')");
OP(release, "release", "select durable.release_key('k1')");
OP(pause_q, "pause", "select durable.pause_queue('default')");
OP(resume_q, "resume", "select durable.resume_queue('default')");
OP(set_queue, "set_queue",
   "select durable.set_queue('default', max_attempts => 1, dead_letter_queue => 'dead')");
OP(increment, "increment", "select durable.state_increment('n')");
OP_OR(set_if_absent, "set", "DJ006", "select durable.state_set('n', '5', if_version => 0)");
OP(delete_n, "delete", "select durable.state_delete('n')");
OP(lock_a, "lock", "select durable.state_lock('l', 'a', '1 hour')");
OP(unlock_a, "unlock", "select durable.state_unlock('l', 'a')");

/* Of these each has to meet each. What a late worker does is none: it changes nothing. */
const struct kind kinds[KINDS] = {
    { "claim", { &claim1, &claim2, &claim_send, &claim_match } },
    { "commit",
      { &step, &step2, &step_tx, &step_tx_child, &step_tx_send, &ops_step, &ops_send, &ops_lock,
        &count_ba, &count_ab, &count_abc, &count_cba, &count_turn } },
    { "suspend",
      { &wait_e, &wait_again, &sleep_turn, &fail, &yield, &park, &step_retry, &crash, &ops_wait,
        &ops_child } },
    { "complete", { &done, &done2, &fail_for_good, &answer, &answer_send } },
    { "heartbeat", { &beat, &ops_beat } },
    { "reap", { &reap } },
    { "send_event", { &send, &send_key, &send_other } },
    { "match", { &match, &match_1 } },
    { "promote", { &promote } },
    { "cancel", { &cancel, &cancel_undone, &cancel_rr, &cancel_2 } },
    { "retry", { &retry, &retry_on, &retry_on_http, &retry_wait } },
    { "start with a key",
      { &start_key, &start_key_rr, &start_key_undone, &start_other, &restart_key, &start_12,
        &start_21 } },
};

#define WORKERS                                                                                    \
    "select interleave.clear(); select interleave.worker('w1'); select interleave.worker('w2'); "
#define SILENT                                                                                     \
    "select interleave.clear(); select interleave.worker('w1', silent => true); "                  \
    "select interleave.worker('w2'); "
#define LEASED SILENT "select interleave.run('r'); select interleave.lease('w1'); "
#define WAIT(run, more)                                                                            \
    "select interleave.turn('w1', '" run "', 'wait', '{\"position\": 1, \"name\": \"w\", "         \
    "\"event\": \"e\"" more "}'); "

#define QUEUED WORKERS "select interleave.run('r'); select durable_internal.move_marks(1);"
#define OVERDUE                                                                                    \
    WORKERS "select interleave.run('r', timeout => '1 hour'); update durable_internal.timer "      \
            "set due_at = clock_timestamp() where kind = 'run_timeout';"
#define FAMILY /* r2 waits for its child r */                                                      \
    SILENT "select interleave.run('r2'); select interleave.lease('w1'); "                          \
           "select interleave.ops('w1', 'r2', '[{\"op\": \"child\", \"name\": \"c\", \"job\": "    \
           "\"j\"}]'); "                                                                           \
           "select interleave.keep('r', r.id::text) from durable_internal.run r "                  \
           "where r.parent_run_id is not null; select interleave.lease('w1'); "

/* r2 has begun its child r, which w1 runs. */
#define BEGUN(in_c)                                                                                \
    WORKERS "select interleave.run('r2'); select interleave.go_on('w1', 'r2', " in_c "); "         \
            "select interleave.keep('r', r.id::text) from durable_internal.run r where "           \
            "r.parent_run_id is not null; select interleave.lease('w1'); "
#define OUTLIVED(in_c) /* its own time is over before its child ends */                            \
    BEGUN(in_c) "select durable_internal.time_out_run(interleave.id('r2'));"
#define CANCELLED(in_c) BEGUN(in_c) "select durable.cancel(interleave.id('r2'));"
#define FAILED(in_c) /* its child has failed, and so has it */                                     \
    BEGUN(in_c)                                                                                    \
    "select interleave.turn('w1', 'r', 'fail', '{\"error\": {\"name\": \"E\"}, "                   \
    "\"permanent\": true}'); select durable_internal.match_events(10); "                           \
    "select interleave.go_on('w1', 'r2', " in_c ");"

const struct scene scenes[] = {
    { .name = "queued",
      .setup = QUEUED,
      .points = "^(?!claim.seen|turn|reap|bury)",
      .ops = { &claim1, &claim2, &cancel, &cancel_undone, &cancel_rr, &reschedule } },
    { .name = "queued among others",
      .setup = QUEUED,
      .ops = { &start, &start_first, &start_many, &pause_q, &marks },
      .against = { &claim1, &marks, &start_first } },
    { .name = "leased",
      .setup = LEASED,
      .repeated = true,
      .points = "^(?!claim|turn|reap.locked)",
      .ops = { &step, &done, &wait_e, &sleep_turn, &fail, &fail_for_good, &yield, &park,
               &step_retry, &crash, &step_tx, &step_tx_child },
      .against = { &cancel, &reap, &beat, &reconcile } },
    { .name = "leased over HTTP",
      .setup = LEASED,
      .points = "^(?!turn|reap.locked|ops.slow)",
      .ops = { &ops_step, &ops_wait, &ops_child, &ops_lock, &ops_beat, &answer },
      .against = { &ops_step, &answer, &cancel, &reap } },
    { .name = "leased, sends", /* what r2 waits for, as somebody else does */
      .setup = SILENT "select interleave.run('r'); select interleave.run('r2'); select "
                      "interleave.lease('w1'); " WAIT("r2", ""),
      .points = "^(ops.locked|commit|answers|step_tx|beat|reap.seen|bury|match.taken)",
      .ops = { &ops_send, &step_tx_send, &answer_send, &beat, &reap },
      .against = { &send_key, &match } },
    { .name = "leased, with a key", /* a crash ends it */
      .setup = SILENT "update durable_internal.job set max_crashes = 1; select interleave.run('r', "
                      "'1', 'k1'); select interleave.lease('w1');",
      .points = "^(key|retry|commit|end|beat|reap.seen|bury)",
      .ops = { &step, &park, &done, &fail_for_good, &beat, &reap },
      .against = { &retry, &restart_key } },
    { .name = "of a silent worker",
      .setup = LEASED "select interleave.run('r2');",
      .points = "^(?!claim.take|turn|take_out)",
      .ops = { &reap, &beat, &claim1, &reconcile, &leave, &crashed, &cancel, &cancel_undone,
               &cancel_rr } },
    { .name = "of a living worker",
      .setup = WORKERS "select interleave.run('r'); select interleave.lease('w1');",
      .points = "^(?!claim|take_out)",
      .ops = { &reconcile, &crashed },
      .against = { &reconcile, &crashed, &cancel, &cancel_undone, &step_tx } },
    { .name = "taken over",
      .setup = WORKERS
      "select interleave.run('r'); select interleave.lease('w1'); "
      "select interleave.keep('late#', interleave.number('r')::text); "
      "select durable_internal.reconcile(interleave.id('w1'), interleave.number('w1')::int, '{}', "
      "'{}', '{}'); select interleave.lease('w2'); update durable_internal.worker set beat_at = "
      "clock_timestamp() - interval '2 hours' where id = interleave.id('w2');",
      .points = "^(?!claim.take|turn|reap.locked)",
      .ops = { &late_step, &late_done, &late_fail, &late_ops },
      .against = { &step2, &done2, &reap, &cancel, &claim1 } },
    { .name = "begins to wait",
      .setup = LEASED,
      .points = "^(?!claim.take|turn|match.given)",
      .ops = { &wait_e, &ops_wait },
      .against = { &send, &send_other, &match, &promote, &claim_match } },
    { .name = "begins to wait, matched",
      .setup = LEASED,
      .points = "^(commit.locked|match.taken)$",
      .together = true,
      .ops = { &wait_e, &send, &match } },
    { .name = "waits",
      .setup = WORKERS "select interleave.run('r'); select interleave.lease('w1'); " WAIT(
          "r", ", \"timeoutMs\": 0, \"onTimeout\": \"continue\"") "select "
                                                                  "durable_internal.match_events("
                                                                  "10);",
      .points = "^(?!claim|match.given|take_out.lease|promote.seen)",
      .ops = { &send, &send_key, &match, &promote, &cancel, &cancel_undone, &claim_match } },
    { .name = "waits, event there",
      .setup = WORKERS "select interleave.run('r'); select interleave.run('r2'); select "
                       "interleave.lease('w1'); " WAIT("r", ", \"timeoutMs\": 0")
                           WAIT("r2", "") "select durable.send_event('e', '0');",
      .points = "^(?!claim|match.taken|take_out.lease|end|promote.seen)",
      .ops = { &match, &match_1, &send, &promote, &cancel, &cancel_2, &cancel_undone,
               &claim_match } },
    { .name = "waits, with a key",
      .setup =
          WORKERS "select interleave.run('r', '1', 'k1'); select interleave.lease('w1'); " WAIT(
              "r", ", \"timeoutMs\": 0") "select durable.send_event('e', '0');",
      .points = "^(key|match|promote|end)",
      .ops = { &send, &match, &promote },
      .against = { &restart_key } },
    { .name = "has waited in vain", /* its event came too late */
      .setup = WORKERS "select interleave.run('r'); select interleave.lease('w1'); " WAIT(
          "r", ", \"timeoutMs\": 0") "select durable_internal.promote_due(100, -1); select "
                                     "durable.send_event('e', '0');",
      .points = "^(retry|commit|match)",
      .ops = { &retry_wait },
      .against = { &send, &match } },
    { .name = "waits again",
      .setup = WORKERS "select interleave.run('r'); select interleave.lease('w1'); " WAIT(
          "r", ", \"timeoutMs\": 0") "select durable.send_event('e', '0');",
      .points = "^(promote|match.chosen|commit.locked)",
      .ops = { &promote, &wait_again } },
    { .name = "waits, matched",
      .setup = WORKERS "select interleave.run('r'); select interleave.lease('w1'); " WAIT(
          "r", ", \"timeoutMs\": 0, \"onTimeout\": \"cancel\"") "select "
                                                                "durable.send_event('e', '0');",
      .together = true,
      .points = "^(match.chosen|take_out.wait)$",
      .ops = { &match, &promote, &cancel } },
    { .name = "waits for any",
      .setup =
          WORKERS "select interleave.run('r'); select interleave.lease('w1'); "
                  "select interleave.ops('w1', 'r', '[{\"op\": \"wait_any\", \"name\": \"w\", "
                  "\"timeout\": \"1ms\", \"onTimeout\": \"continue\", \"events\": [{\"event\": "
                  "\"e\"}, {\"event\": \"f\", \"correlationKey\": \"k\"}]}]'); select "
                  "durable.send_event('e', '0'); select pg_sleep(0.002);",
      .points = "^(?!claim|match.given|take_out.lease|promote.seen)",
      .ops = { &send_other, &match, &promote, &cancel } },
    { .name = "sleeps",
      .setup = WORKERS "select interleave.run('r'); select interleave.lease('w1'); select "
                       "interleave.turn('w1', 'r', 'sleep', '{\"position\": 1, \"name\": \"s\", "
                       "\"ms\": 0}');",
      .points = "^(?!claim|take_out.lease|take_out.wait)",
      .ops = { &promote, &cancel, &cancel_undone, &cancel_rr, &claim2, &reschedule } },
    { .name = "tried again later",
      .setup =
          WORKERS "select interleave.run('r'); select interleave.lease('w1'); select "
                  "interleave.turn('w1', 'r', 'fail', '{\"error\": {}, \"retryAfterMs\": 0}');",
      .points = "^(?!claim|take_out.lease|take_out.wait|marks.raised)",
      .ops = { &promote, &cancel, &claim2, &reschedule, &reschedule_now, &marks } },
    { .name = "over its time",
      .setup =
          SILENT "select interleave.run('r', timeout => '1 ms'); select interleave.lease('w1'); "
                 "select interleave.run('r2', timeout => '1 ms'); select pg_sleep(0.002);",
      .points = "^(?!claim|turn|reap|take_out.again|take_out.wait|end|promote.seen)",
      .ops = { &promote, &cancel, &cancel_2, &done, &wait_e, &claim2, &reap, &step } },
    { .name = "over its time, moved",
      .setup = OVERDUE,
      .points = "^promote",
      .ops = { &promote, &reschedule, &reschedule_now } },
    { .name = "over its time, goes on",
      .setup = OVERDUE,
      .points = "^(promote.seen|promote.free|end.ended|retry.locked)$",
      .together = true,
      .ops = { &promote, &cancel, &retry } },
    { .name = "ended",
      .setup =
          WORKERS "select interleave.run('r', '1', 'k1'); select interleave.lease('w1'); select "
                  "interleave.turn('w1', 'r', 'step'); select interleave.turn('w1', 'r', 'fail', "
                  "'{\"error\": {}, \"permanent\": true}');",
      .points = "^(?!claim|take_out)",
      .ops = { &retry, &start_key, &restart_key, &start_other, &release, &cancel, &claim2 } },
    { .name = "by key",
      .setup = WORKERS,
      .ops = { &start_key, &start_key_rr, &start_key_undone, &start_other, &start_12, &start_21,
               &release, &claim2 } },
    { .name = "by key, three",
      .setup = WORKERS,
      .points = "^(key.taken)$",
      .together = true,
      .ops = { &start_key, &start_key_undone, &release } },
    { .name = "begins a child",
      .setup = LEASED,
      .points = "^(ops.locked|take_out.lease)$",
      .together = true,
      .ops = { &ops_child, &cancel, &claim2 } },
    { .name = "has a child",
      .setup = FAMILY,
      .points = "^(?!claim|turn|reap|match.given|commit.locked|take_out.wait|take_out.timer)",
      .ops = { &done, &fail_for_good, &cancel, &cancel_2, &reap, &match, &beat, &answer } },
    { .name = "has a child, three",
      .setup = FAMILY,
      .points = "^(commit.ended|end.ended)$",
      .together = true,
      .ops = { &done, &cancel_2, &match } },
    { .name = "has ended before its child",
      .setup = OUTLIVED("true"),
      .points = "^(retry|claim.take|commit|end|match|step_tx)",
      .ops = { &retry_on },
      .against = { &done, &fail_for_good, &cancel, &match } },
    { .name = "has ended before its child, HTTP",
      .setup = OUTLIVED("false"),
      .points = "^(retry|claim.take|commit|end|match|ops)",
      .ops = { &retry_on_http },
      .against = { &done, &fail_for_good, &cancel, &match } },
    { .name = "has failed with its child",
      .setup = FAILED("true"),
      .points = "^(retry|claim.take|commit|step_tx)",
      .ops = { &retry_on },
      .against = { &retry, &claim2, &match } },
    { .name = "has failed with its child, HTTP",
      .setup = FAILED("false"),
      .points = "^(retry|claim.take|commit|ops)",
      .ops = { &retry_on_http },
      .against = { &retry, &claim2, &match } },
    { .name = "was cancelled with its child",
      .setup = CANCELLED("true"),
      .points = "^(retry|claim.take|commit|match|step_tx)",
      .ops = { &retry_on },
      .against = { &retry, &match } },
    { .name = "was cancelled with its child, HTTP",
      .setup = CANCELLED("false"),
      .points = "^(retry|claim.take|commit|match|ops)",
      .ops = { &retry_on_http },
      .against = { &retry, &match } },
    { .name = "state",
      .setup = LEASED,
      .points = "^(?!claim|turn|reap|ops|commit.locked)",
      .ops = { &increment, &set_if_absent, &delete_n, &lock_a, &unlock_a, &ops_lock, &expire, &done,
               &cancel, &reap } },
    { .name = "counts", /* each run of a millisecond of its own, so that their ids are in order */
      .setup = WORKERS "select interleave.run(n), pg_sleep(0.002) from "
                       "unnest('{r,r2,r3,r4,r5,r6,r7,r8}'::text[]) as n; "
                       "select interleave.lease('w1'); "
                       "select durable.state_set(k, '0') from unnest('{a,b,c}'::text[]) as k;",
      .points = "^(ops.locked|answers.next)$",
      .ops = { &count_ba, &count_ab, &count_abc, &count_cba, &count_turn } },
    { .name = "would cancel its child",
      .setup = WORKERS "select interleave.run('r2'); select interleave.lease('w1'); "
                       "select interleave.ops('w1', 'r2', '[{\"op\": \"child\", \"name\": \"c\", "
                       "\"job\": \"j\"}, {\"op\": \"wait_event\", \"name\": \"w\", \"event\": "
                       "\"never\", \"timeout\": \"1ms\", \"onTimeout\": \"cancel\"}]'); "
                       "select interleave.keep('r', r.id::text) from durable_internal.run r "
                       "where r.parent_run_id is not null; select interleave.lease('w1'); "
                       "select pg_sleep(0.002);",
      .points = "^(promote.free|take_out.timer|take_out.again|end.ended|commit.locked|commit.ended|"
                "ops.locked|step_tx.begun|match.chosen|beat.beaten)$",
      .ops = { &promote },
      .against = { &promote, &done, &cancel, &cancel_undone, &cancel_2, &step, &wait_e, &ops_child,
                   &step_tx_child, &match, &reconcile, &beat } },
    { .name = "parked",
      .setup = WORKERS "select interleave.run('r'); select interleave.lease('w1'); select "
                       "interleave.turn('w1', 'r', 'park', '{\"version\": \"1\"}');",
      .ops = { &register_2, &retry, &cancel, &promote, &reschedule } },
    { .name = "paused",
      .setup = LEASED "select durable.pause_queue('default'); select interleave.run('r2');",
      .ops = { &resume_q, &set_queue, &claim2, &fail, &cancel_2 } },
    { .name = "marks",
      .setup = WORKERS "select interleave.run('r'); select durable_internal.move_marks(1); select "
                       "durable_internal.move_marks(1);",
      .points = "^(start.placed|marks.numbered)$",
      .together = true,
      .ops = { &marks, &start, &claim_send } },
};
const size_t scenes_count = sizeof scenes / sizeof *scenes;
