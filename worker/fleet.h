/* A worker from inside: what its loop keeps, and what handlers' threads may ask of it. */
#ifndef WORKER_FLEET_H
#define WORKER_FLEET_H

#include "common/db_pipeline.h"
#include "common/mailbox.h"
#include "worker/pool.h"
#include "worker/run_state.h"
#include <durable/worker.h>
#include <event2/event.h>
#include <stdatomic.h>

#define LINES_MAX 8
#define GONE_PIDS_MAX 64 /* of lost sessions, that a reconcile ends */
#define SLOTS_MAX 4096
#define TURN_OPS_MAX 1024  /* one turn can carry what a few hundred slots came to */
#define CLAIM_RUNS_MAX 512 /* beyond that a larger batch is no faster */
#define CLAIM_BYTES_MAX (32 * 1024 * 1024)
#define WINDOW_MS 20 /* what may wait for a thread is what is begun in that time */

struct job {
    char *name;
    dj_handler handler; /* NULL: it is called over HTTP */
    void *context;
    char *version;
    char *options_json; /* for the register call */
};

/* A connection for turns. A run stays with the line that claimed it. */
struct worker_line {
    struct dj_worker *worker;
    int index;
    bool connecting;
    int failures;
    int pid;
    struct db_pipeline pipeline;
    struct event *retry;
    struct list pending; /* runs whose op is to be committed */
    int pending_count;
    struct list late;      /* runs whose step is over its time: their watch is to be committed */
    struct list in_flight; /* runs whose op is in the turn on its way */
    struct list late_in_flight;
    bool turning;
    int ending_count; /* runs that the turn on its way takes out of our hands */
    int slots_asked;
    uint32_t hints_asked;
    int ops_max;            /* halved while the database refuses a turn's values */
    int64_t claim_after_ms; /* a claim alone was refused: none before */
};

struct dj_worker {
    struct event_base *base;
    char *conninfo, *name, *namespace_, *queues;
    int slots_max, line_count;
    int64_t ttl_ms, grace_ms;

    struct job *jobs; /* sorted by name once it runs */
    int job_count;

    /* Who we are to the database: a new id for each life. */
    struct uuid id;
    int number;
    bool registered;
    _Atomic int64_t sure_until_ms; /* by CLOCK_BOOTTIME: until then our leases hold */

    struct db_pipeline control; /* beats, LISTEN */
    bool control_connecting, listening, beating;
    int control_failures;
    int64_t beat_sent_ms, beat_sent_boot_ms;
    struct event *control_retry, *beat_timer, *poll_timer, *tick_timer, *mail_event, *connect_event,
        *linger_timer;

    struct worker_line lines[LINES_MAX];
    bool work_hinted;  /* there may be runs to claim */
    bool event_hinted; /* there is an event to be matched */
    bool work_flows;   /* the last answer was full: all lines may ask at once */
    bool asked_again;  /* the ask after a short answer was made */
    uint32_t commits;  /* turns that have committed something */
    uint32_t hints; /* how many hints have come: one that came after an ask outlives its answer */
    bool reconcile; /* a connection was lost, and with it perhaps a claim's answer, or a claim */
    bool reconcile_at_beat; /* a lease that is nobody's was held by somebody just then */
    bool reconciling;
    int gone_pids[GONE_PIDS_MAX];
    int gone_pid_count;

    struct list hand; /* every run in hand */
    int in_hand;
    struct list asking; /* parked until a beat was answered */
    int window;         /* claimed runs that may wait for a thread */
    int begun_count;    /* since the last tick */
    int64_t claimed_ms; /* when runs last came */
    int64_t idle_since_ms;

    struct pool pool;
    struct endpoints *endpoints; /* NULL: none are called */
    struct mailbox outcomes;     /* runs, from the threads */
    struct mailbox connected;    /* finished attempts to connect */

    /* For durable-worker: how are we? On the loop: at each tick, when we have registered, and when
     * the drain begins. NULL: nobody asks. */
    void (*on_life)(const struct dj_worker *worker);

    _Atomic int drain_asked;
    atomic_bool draining;
    bool leaving, crashing;
    int crash_signal;
    int64_t drain_until_ms;

    pthread_mutex_t spare_mutex; /* connections for step_tx */
    struct {
        PGconn *conn;
        struct uuid worker_id; /* of the life that it is known to belong to */
        int64_t since_ms;
    } spare[16];
    int spare_count;
};

/** Sets on_life; before dj_worker_run. */
void worker_watch_life(dj_worker *worker, void (*on_life)(const dj_worker *worker));
void worker_tell_life(const dj_worker *worker);

/* From handlers' threads. */

void worker_post(dj_worker *worker, dj_run *run);
bool worker_is_sure(const dj_worker *worker);
bool worker_is_draining(const dj_worker *worker);
/** A connection for step_tx, of the life that has the run. DJ_UNAVAILABLE; DJ_LEASE_LOST: that life
 * is over. Give it back with worker_return_connection. */
MUST_CHECK dj_status worker_borrow_connection(const dj_run *run, PGconn **ret_conn);
void worker_return_connection(const dj_run *run, PGconn *conn, bool broken);
void worker_pause(int tries); /* sleeps a little, longer with each try, with jitter */

/* On the loop. */

int64_t clock_boot_ms(void);
struct timeval timeval_of_ms(int64_t ms);

/* fleet.c */
void worker_release(dj_worker *worker, dj_run *run);   /* the run is not in hand any more */
void worker_late_gone(dj_worker *worker, dj_run *run); /* … once its handler is back */
void worker_resume(dj_worker *worker, struct list *runs, int count);
void worker_lose_all(dj_worker *worker);                  /* the database says that we are dead */
void worker_take_outcome(dj_worker *worker, dj_run *run); /* its handler is back, or parked */
/* The run in hand that these rows name by run and fence; NULL: none (any more). */
MUST_CHECK dj_status worker_find(dj_worker *worker, const PGresult *rows, int row,
                                 dj_run **ret_run);
void worker_check_drained(dj_worker *worker);

/* line.c */
void lines_connect(dj_worker *worker);
void lines_close(dj_worker *worker);
bool lines_settle(dj_worker *worker, int64_t timeout_ms); /* no thread connects any more */
void control_connect(dj_worker *worker);
void on_connected(evutil_socket_t fd, short what, void *context);

/* turn.c */
void turn_start(struct worker_line *line);
void turns_start(dj_worker *worker);           /* on every line that is free */
void turns_consider(dj_worker *worker);        /* now, or when a little more has gathered */
void turn_hint(dj_worker *worker, bool event); /* there may be runs, or an event for one: ask */
void line_requeue(struct worker_line *line);

/* beat.c */
void beat_send(dj_worker *worker);
void on_beat_timer(evutil_socket_t fd, short what, void *context);
void leave_send(dj_worker *worker);
void crash_send(dj_worker *worker, const dj_run *run, int signal);
void reconcile_send(struct worker_line *line);

#endif
