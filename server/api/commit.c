/* commit.url of docs/protocol.md: what handlers commit while they run. A request carries the
 * commits of many runs, and those of many requests that gather while a transaction is on its way go
 * together in the next one. A token says whose they are: no key is asked for.
 *
 * What one run has to commit and may not is refused by itself, here or in the database: the others
 * know nothing of it. If the database refuses all of them, each is said again alone. A lease that
 * somebody's open transaction holds is tried again for a second. When the fate of a commit is not
 * known, the request is answered with 503 and the SDK says it again: what was committed is known by
 * its name.
 *
 * The secret of tokens is read at the start, when its change is notified, and when a token is none
 * of ours as far as we know, fifty times a second at most: that request waits for what is read
 * after it came, for the secret may just have changed. */
#include "server/api/api.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/commit_token.h"
#include "common/db_rows.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/text.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TOGETHER_MAX 512
#define TOGETHER_BYTES_MAX (8 * 1024 * 1024)
#define COMMITS_MAX 1000 /* of one request */
#define ITEMS_MIN 8
#define OPS_OUTER_DEPTH 2 /* the list and its ops, around what handlers give */
#define BUSY_MS 20
#define BUSY_TRIES_MAX 50
#define SECRET_REST_MS 20
#define NOT_OURS "the token is none of ours"

struct item {
    struct list link;
    struct committing *owner;
    struct lease_name lease;
    bool is_ours;      /* its token, and so the lease */
    char *token, *ops; /* in the request's body */
    size_t ops_length;
    char *answer; /* ours; NULL: not yet */
    int busy_tries;
};

struct committing {
    struct list link;    /* while its tokens are in doubt */
    uint64_t secret_ask; /* which one's answer tells; 0: they are not in doubt yet */
    struct api *api;
    struct http_request *request;
    struct item *items;    /* none: it is a GET */
    int count, room, left; /* left: without an answer */
    bool unavailable;
};

struct together {
    struct commits *from;
    struct list members;
    int count;
};

struct commits {
    struct api *api;
    struct list waiting, busy, in_doubt;
    bool asked; /* a call is in the queue, and will take what waits */
    struct event *busy_timer;
    struct commit_secret secret;
    bool secret_asked, secret_changed; /* changed: since it was asked for */
    uint64_t secret_asks;              /* how often it was asked for */
    struct event *secret_timer;        /* until it may be asked for again */
};

static void commits_ask(struct commits *commits);
static void item_alone(struct item *item);
static void secret_ask_soon(struct commits *commits);

static void committing_free(struct committing *committing) {
    assert(committing->count == 0 || committing->items != NULL);
    for (int i = 0; i < committing->count; i++) {
        free(committing->items[i].answer);
    }
    free(committing->items);
    free(committing);
}

static void committing_reply(struct committing *committing) {
    struct api *api = committing->api;
    struct buf body;
    buf_init(&body, SIZE_MAX / 2);
    dj_status status = buf_add_text(&body, "{\"commits\":[");
    for (int i = 0; i < committing->count; i++) {
        if (status == DJ_OK && committing->items[i].answer != NULL) {
            status = buf_addf(&body, "%s%s", i == 0 ? "" : ",", committing->items[i].answer);
        }
    }
    if (status == DJ_OK) {
        status = buf_add_text(&body, "]}");
    }
    if (committing->unavailable || status != DJ_OK) {
        problem_reply_status(api, committing->request, DJ_UNAVAILABLE,
                             "the fate of the commits is not known; say them again");
    } else {
        api_reply_json(api, committing->request, 200, body.data, body.length);
    }
    buf_done(&body);
    committing_free(committing);
}

/* `answer` is taken; NULL: unknown. */
static void item_end(struct item *item, char *answer) {
    item->answer = answer;
    item->owner->unavailable = item->owner->unavailable || answer == NULL;
    if (--item->owner->left == 0) {
        committing_reply(item->owner);
    }
}

/* Yours; NULL where memory ran out. */
static char *refusal_print(const char *code, const char *message) {
    struct buf text;
    buf_init(&text, 8192);
    dj_status printed = buf_addf(&text, "{\"code\":\"%s\",\"message\":", code);
    if (printed == DJ_OK) {
        printed = buf_add_json(&text, message);
    }
    if (printed == DJ_OK) {
        printed = buf_add_text(&text, "}");
    }
    char *refusal = printed == DJ_OK ? buf_take(&text) : NULL;
    buf_done(&text);
    return refusal;
}

static void item_busy(struct commits *commits, struct item *item) {
    if (++item->busy_tries > BUSY_TRIES_MAX) {
        item_end(item, NULL);
        return;
    }
    list_push(&commits->busy, &item->link);
    if (!event_pending(commits->busy_timer, EV_TIMEOUT, NULL)) {
        struct timeval rest = { .tv_usec = BUSY_MS * 1000 };
        (void)event_add(commits->busy_timer, &rest);
    }
}

static void on_busy_timer(evutil_socket_t fd, short what, void *context) {
    struct commits *commits = context;
    (void)fd;
    (void)what;
    list_splice(&commits->busy, &commits->waiting);
    commits_ask(commits);
}

/* Answers come in any order, each with the number of its item. */
static dj_status read_answer(const PGresult *rows, int row, const char *texts[], int count) {
    int32_t n;
    const char *text;
    size_t length;
    DJ_TRY(rows_int4(rows, row, 0, &n));
    DJ_TRY(rows_jsonb_text(rows, row, 1, &text, &length));
    if (n < 1 || n > count || texts[n - 1] != NULL) {
        return dj_fail(DJ_INTERNAL, "an answer to commit %d of %d", n, count);
    }
    texts[n - 1] = text;
    return DJ_OK;
}

/* The members are in the order in which they were sent. */
static dj_status read_answers(struct together *together, const PGresult *rows) {
    const char *texts[TOGETHER_MAX] = { NULL };
    int count = together->count;
    dj_status status = PQntuples(rows) == count ? DJ_OK
                                                : dj_fail(DJ_INTERNAL, "%d answers to %d commits",
                                                          PQntuples(rows), count);
    for (int row = 0; status == DJ_OK && row < count; row++) {
        status = read_answer(rows, row, texts, count);
    }
    for (int i = 0; i < count; i++) {
        struct item *item = list_first(&together->members, struct item, link);
        list_remove(&item->link);
        if (status != DJ_OK || texts[i] == NULL) {
            item_end(item, NULL);
        } else if (strcmp(texts[i], "{\"code\": \"busy\"}") == 0) {
            item_busy(together->from, item);
        } else {
            item_end(item, strdup(texts[i]));
        }
    }
    return status;
}

static void on_committed(void *context, const struct work_end *end) {
    struct together *together = context;
    struct commits *commits = together->from;
    FAILPOINT("commits.answered");
    if (list_is_empty(&together->members)) { /* no connection took the call */
        commits->asked = false;
        list_splice(&commits->waiting, &together->members);
    }
    if (end->status == DJ_OK) {
        if (read_answers(together, end->rows) != DJ_OK) {
            log_error("commits.unreadable", "reason", dj_error_message());
        }
    } else {
        bool refused = end->status != DJ_UNAVAILABLE && end->status != DJ_NO_MEMORY; /* ours */
        while (!list_is_empty(&together->members)) {
            struct item *item = list_first(&together->members, struct item, link);
            list_remove(&item->link);
            if (!refused) {
                item_end(item, NULL);
            } else if (together->count > 1) {
                item_alone(item);
            } else {
                item_end(item, refusal_print(status_code(end->status), end->message));
            }
        }
    }
    free(together);
}

static void add_items(struct db_params *params, const struct list *members) {
#define ARRAY(type, add)                                                                           \
    params_array_begin(params, type);                                                              \
    list_for_each(item, members, struct item, link) {                                              \
        add;                                                                                       \
    }                                                                                              \
    params_array_end(params)
    ARRAY(DB_UUID, params_array_uuid(params, &item->lease.run_id));
    ARRAY(DB_INT8, params_array_int8(params, item->lease.fence));
    ARRAY(DB_UUID, params_array_uuid(params, &item->lease.worker_id));
    ARRAY(DB_JSONB, params_array_jsonb(params, item->ops));
#undef ARRAY
}

/* A connection takes the call: those that wait now go with it. */
static void on_fill(void *context, struct db_params *params) {
    struct together *together = context;
    struct commits *commits = together->from;
    size_t bytes = 0;
    commits->asked = false;
    while (!list_is_empty(&commits->waiting) && together->count < TOGETHER_MAX) {
        struct item *item = list_first(&commits->waiting, struct item, link);
        bytes += item->ops_length;
        if (together->count > 0 && bytes > TOGETHER_BYTES_MAX) {
            break;
        }
        list_remove(&item->link);
        list_push(&together->members, &item->link);
        together->count++;
    }
    add_items(params, &together->members);
    FAILPOINT("commits.gathered");
    if (!list_is_empty(&commits->waiting)) {
        commits_ask(commits);
    }
}

static struct together *together_new(struct commits *commits) {
    struct together *together = calloc(1, sizeof *together);
    check(together != NULL);
    together->from = commits;
    list_init(&together->members);
    return together;
}

static void commits_ask(struct commits *commits) {
    if (commits->asked || list_is_empty(&commits->waiting)) {
        return;
    }
    commits->asked = true;
    struct work *work = work_new(&CALL_COMMIT_OPS, /* namespace_id= */ 0);
    work_fill_late(work, on_fill);
    database_send(commits->api->database, work, on_committed, together_new(commits));
}

static void item_alone(struct item *item) {
    struct together *together = together_new(item->owner->api->commits);
    struct work *work = work_new(&CALL_COMMIT_OPS, /* namespace_id= */ 0);
    list_push(&together->members, &item->link);
    together->count = 1;
    add_items(work_params(work), &together->members);
    database_send(item->owner->api->database, work, on_committed, together);
}

/* Reading. */

static dj_status item_read(char *text, size_t length, struct item *item) {
    struct json_slice ops = { .text = NULL };
    const struct field fields[] = {
        { .name = "token", .kind = FIELD_TEXT, .target = &item->token, .required = true },
        { .name = "ops", .kind = FIELD_LIST, .target = &ops },
        { .name = NULL },
    };
    DJ_TRY(fields_read("commits[]", text, length, fields));
    item->ops = ops.text == NULL ? (char *)"[]" : (char *)ops.text;
    item->ops_length = ops.length;
    return DJ_OK;
}

/* What fields_read has left to us: a long text, looked at for those only who may commit. */
static dj_status item_check(struct item *item) {
    if (item->ops[0] != '[') {
        return dj_fail(DJ_INVALID_ARGUMENT, "ops is not a list");
    }
    if (item->ops_length > 0) {
        DJ_TRY(json_check_inside("ops", item->ops, item->ops_length, COMMIT_BYTES_MAX,
                                 OPS_OUTER_DEPTH));
        item->ops[item->ops_length] = '\0'; /* a bracket, a comma or a space: it was read */
    }
    return DJ_OK;
}

static void item_refuse(struct item *item, const char *code, const char *message) {
    item->answer = refusal_print(code, message);
    check(item->answer != NULL);
}

/* The room doubles. Nothing points to an item before all are there. */
static struct item *item_add(struct committing *committing) {
    int count = committing->count++;
    if (count == committing->room) {
        committing->room = count == 0 ? ITEMS_MIN : 2 * count;
        committing->items =
            realloc(committing->items, (size_t)committing->room * sizeof *committing->items);
        check(committing->items != NULL);
    }
    committing->items[count] = (struct item){ .owner = committing };
    return &committing->items[count];
}

static dj_status committing_read(struct committing *committing) {
    struct http_request *request = committing->request;
    struct json_slice list = { .text = NULL };
    const struct field fields[] = {
        { .name = "commits", .kind = FIELD_LIST, .target = &list, .required = true },
        { .name = NULL },
    };
    DJ_TRY(fields_read("the body", request->body, request->body_length, fields));
    assert(list.text != NULL); /* it is required */
    struct json_walk walk;
    struct json_slice none, value;
    int refused = 0;
    bool more = true;
    dj_status status = DJ_OK;
    DJ_TRY(json_walk_begin(&walk, "commits", list.text, list.length, false));
    for (;;) {
        DJ_TRY(json_walk_next(&walk, &more, &none, &value));
        if (!more) {
            return refused == committing->count ? status : DJ_OK;
        }
        if (committing->count == COMMITS_MAX) {
            return dj_fail(DJ_INVALID_ARGUMENT, "commits has more than %d items", COMMITS_MAX);
        }
        struct item *item = item_add(committing);
        dj_status read = item_read((char *)value.text, value.length, item);
        if (read == DJ_NO_MEMORY) {
            return read;
        }
        if (read != DJ_OK) {
            item_refuse(item, status_code(read), dj_error_message());
            status = read;
            refused++;
        }
    }
}

static bool token_is_ours(const struct commits *commits, const char *token,
                          struct lease_name *ret_lease) {
    return commit_token_read(&commits->secret, token, strlen(token), ret_lease) == DJ_OK;
}

/* How many of the items may commit? False: some of them might, were the secret not what we know. */
static bool committing_sign(struct committing *committing, int *ret_ours) {
    bool all = true;
    *ret_ours = 0;
    for (int i = 0; i < committing->count; i++) {
        struct item *item = &committing->items[i];
        if (item->answer == NULL) {
            item->is_ours = token_is_ours(committing->api->commits, item->token, &item->lease);
            *ret_ours += item->is_ours;
            all = all && item->is_ours;
        }
    }
    return all;
}

/* The tokens may be none of ours because the secret has changed: then the request waits for what is
 * read from now on, and comes again. False: it has. */
static bool commits_doubt(struct commits *commits, struct committing *committing) {
    if (committing->secret_ask == 0) {
        committing->secret_ask = commits->secret_asks + 1;
    } else if (commits->secret_asks >= committing->secret_ask) {
        return false;
    }
    list_push(&commits->in_doubt, &committing->link);
    secret_ask_soon(commits);
    return true;
}

static void unauthorized(struct api *api, struct http_request *request) {
    problem_reply(api, request, PROBLEM_UNAUTHORIZED, "WWW-Authenticate: Bearer\r\n", NOT_OURS);
}

static void unreachable(struct api *api, struct http_request *request) {
    problem_reply_status(api, request, DJ_UNAVAILABLE, "the database cannot be reached");
}

static void committing_begin(struct committing *committing) {
    struct commits *commits = committing->api->commits;
    int ours;
    if (!committing_sign(committing, &ours) && commits_doubt(commits, committing)) {
        return;
    }
    if (ours == 0 && committing->count > 0) {
        unauthorized(committing->api, committing->request);
        committing_free(committing);
        return;
    }
    for (int i = 0; i < committing->count; i++) {
        struct item *item = &committing->items[i];
        if (item->answer != NULL) {
            continue;
        }
        if (!item->is_ours) {
            item_refuse(item, "unauthorized", NOT_OURS);
            continue;
        }
        dj_status status = item_check(item);
        if (status == DJ_NO_MEMORY) {
            committing->unavailable = true; /* all of it is to be said again */
            continue;
        }
        if (status != DJ_OK) {
            item_refuse(item, status_code(status), dj_error_message());
            continue;
        }
        committing->left++;
        list_push(&commits->waiting, &item->link);
    }
    if (committing->left == 0) {
        committing_reply(committing);
    } else {
        commits_ask(commits);
    }
}

static struct committing *committing_new(struct api *api, struct http_request *request) {
    struct committing *committing = calloc(1, sizeof *committing);
    check(committing != NULL);
    committing->api = api;
    committing->request = request;
    return committing;
}

void commit_ops(struct api *api, struct http_request *request) {
    struct commits *commits = api->commits;
    if (body_check(api, request) != DJ_OK) {
        return;
    }
    if (commits->secret.length == 0) {
        unreachable(api, request);
        return;
    }
    struct committing *committing = committing_new(api, request);
    dj_status status = committing_read(committing);
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
        committing_free(committing);
        return;
    }
    committing_begin(committing);
}

/* The token in the head; NULL: there is none. */
static const char *token_of(const struct http_request *request) {
    const char *text = request->authorization;
    return text != NULL && strncasecmp(text, "Bearer ", 7) == 0 ? text + 7 + strspn(text + 7, " ")
                                                                : NULL;
}

bool commits_know(const struct api *api, const struct http_request *request) {
    struct lease_name lease;
    const char *token = token_of(request);
    return token != NULL && api->commits->secret.length > 0 &&
           token_is_ours(api->commits, token, &lease);
}

/* What an entry with a `ref` holds. */
static void ref_begin(struct committing *committing) {
    struct api *api = committing->api;
    struct http_request *request = committing->request;
    struct lease_name lease;
    int64_t place = FIELD_NONE;
    const struct field fields[] = {
        { .name = "ref",
          .kind = FIELD_INT,
          .target = &place,
          .min = 1,
          .max = 10000,
          .required = true },
        { .name = NULL },
    };
    const char *token = token_of(request);
    bool ours = token != NULL && token_is_ours(api->commits, token, &lease);
    if (!ours && commits_doubt(api->commits, committing)) {
        return;
    }
    committing_free(committing);
    if (!ours) {
        unauthorized(api, request);
        return;
    }
    dj_status status = query_read(request->query, fields);
    if (status != DJ_OK) {
        problem_reply_status(api, request, status, dj_error_message());
        return;
    }
    struct work *work = work_new(&CALL_COMMIT_REF, /* namespace_id= */ 0);
    params_add_uuid(work_params(work), &lease.run_id);
    params_add_int8(work_params(work), lease.fence);
    params_add_uuid(work_params(work), &lease.worker_id);
    params_add_int4(work_params(work), (int32_t)place);
    api_send(api, request, work, 200);
}

void commit_ref(struct api *api, struct http_request *request) {
    if (token_of(request) == NULL) {
        unauthorized(api, request);
        return;
    }
    if (api->commits->secret.length == 0) {
        unreachable(api, request);
        return;
    }
    ref_begin(committing_new(api, request));
}

/* The secret. */

/* Those in doubt are told, or wait for what is read next. */
static void doubts_end(struct commits *commits, dj_status status) {
    struct list again;
    list_init(&again);
    list_splice(&commits->in_doubt, &again);
    while (!list_is_empty(&again)) {
        struct committing *committing = list_first(&again, struct committing, link);
        list_remove(&committing->link);
        if (status != DJ_OK) {
            unreachable(commits->api, committing->request);
            committing_free(committing);
        } else if (committing->items == NULL) {
            ref_begin(committing);
        } else {
            committing_begin(committing);
        }
    }
}

static void secret_ask(struct commits *commits);

static void on_secret(void *context, const struct work_end *end) {
    struct commits *commits = context;
    const struct timeval rest = { .tv_usec = SECRET_REST_MS * 1000 };
    const char *text;
    size_t length;
    FAILPOINT("secret.read");
    if (end->status == DJ_OK && rows_text(end->rows, 0, 0, &text, &length) == DJ_OK && length > 0 &&
        length <= COMMIT_SECRET_BYTES_MAX) {
        memcpy(commits->secret.bytes, text, length);
        commits->secret.length = length;
    }
    commits->secret_asked = false;
    if (commits->secret_changed) {
        secret_ask(commits);
        return; /* those in doubt wait for that answer */
    }
    (void)event_add(commits->secret_timer, &rest);
    doubts_end(commits, end->status);
}

static void secret_ask(struct commits *commits) {
    if (!commits->secret_asked) {
        commits->secret_asked = true;
        commits->secret_changed = false;
        commits->secret_asks++;
        (void)event_del(commits->secret_timer);
        database_send(commits->api->database, work_new(&CALL_COMMIT_SECRET, 0), on_secret, commits);
    }
}

static void on_secret_timer(evutil_socket_t fd, short what, void *context) {
    struct commits *commits = context;
    (void)fd;
    (void)what;
    if (!list_is_empty(&commits->in_doubt)) {
        secret_ask(commits);
    }
}

static void secret_ask_soon(struct commits *commits) {
    if (!event_pending(commits->secret_timer, EV_TIMEOUT, NULL)) {
        secret_ask(commits);
    }
}

void commits_look(struct api *api) {
    api->commits->secret_changed = true;
    secret_ask(api->commits);
}

void commits_open(struct api *api) {
    struct commits *commits = calloc(1, sizeof *commits);
    check(commits != NULL);
    commits->api = api;
    list_init(&commits->waiting);
    list_init(&commits->busy);
    list_init(&commits->in_doubt);
    commits->busy_timer = event_new(api->base, -1, 0, on_busy_timer, commits);
    commits->secret_timer = event_new(api->base, -1, 0, on_secret_timer, commits);
    check(commits->busy_timer != NULL && commits->secret_timer != NULL);
    api->commits = commits;
}
