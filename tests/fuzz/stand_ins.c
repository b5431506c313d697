/* server/api/database.h and common/http_client.h once more: see api.h. A call's mood is a byte of
 * the input: its low bits say how it ends, the highest whether it ends at once or later. */
#include "tests/fuzz/api.h"

#include "common/auto.h"
#include "common/db_types.h"
#include "common/http_client.h"
#include "common/text.h"
#include <endian.h>
#include <openssl/sha.h>

struct work {
    struct list link;
    const struct db_call *call;
    struct db_params params;
    work_fill_fn fill;
    work_done_fn on_done;
    void *context;
    uint8_t mood;
};

struct database {
    struct list waiting;
    void (*on_up)(void);
};

struct http_call {
    struct list link;
    http_done_fn done;
    void *context;
    uint8_t mood;
};

struct http_client {
    struct list calls;
};

void (*api_on_call)(const struct db_call *call, const struct db_params *params);
static struct moods moods;
static size_t mood_count;
static struct database database;
static struct http_client client;

uint8_t stand_ins_mood(void) {
    return mood_count < moods.count ? moods.moods[mood_count++] : 0;
}

void stand_ins_reset(const struct moods *given) {
    moods = *given;
    mood_count = 0;
}

/* What is given. */

static uint32_t be32_at(const char *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static void check_value(Oid type, const char *bytes, size_t length) {
    if (type == DB_TEXT) {
        promise(text_is_utf8(bytes, length) && memchr(bytes, '\0', length) == NULL);
    } else if (type == DB_JSONB) { /* a version, then the text; our depth is counted from what a
                                      user sent */
        promise(length > 1 && bytes[0] == 1);
        promise(json_check("a parameter", bytes + 1, length - 1, (size_t)1 << 30) == DJ_OK ||
                strstr(dj_error_message(), "nested too deep") != NULL);
    }
}

static void check_array(Oid type, const char *bytes, size_t length) {
    const char *at = bytes + 12, *end = bytes + length;
    promise(length >= 12);
    uint32_t dimensions = be32_at(bytes), count = dimensions == 0 ? 0 : be32_at(bytes + 12);
    promise(dimensions <= 1 && be32_at(bytes + 8) == type);
    at += dimensions == 0 ? 0 : 8;
    for (uint32_t i = 0; i < count; i++) {
        int32_t size = (int32_t)be32_at(at);
        at += 4;
        if (size >= 0) {
            promise(size <= end - at);
            check_value(type, at, (size_t)size);
            at += size;
        }
    }
    promise(at == end);
}

static void check_params(const struct work *work) {
    const struct db_params *params = &work->params;
    const char *const *values = params_values(params);
    promise(params_status(params) == DJ_OK);
    promise(params->count == work->call->param_count);
    for (int i = 0; i < params->count; i++) {
        if (values[i] == NULL) {
            continue;
        }
        size_t length = (size_t)params->lengths[i];
        switch (work->call->param_types[i]) {
        case DB_TEXT_ARRAY:
            check_array(DB_TEXT, values[i], length);
            break;
        case DB_JSONB_ARRAY:
            check_array(DB_JSONB, values[i], length);
            break;
        case DB_UUID_ARRAY:
            check_array(DB_UUID, values[i], length);
            break;
        default:
            check_value(work->call->param_types[i], values[i], length);
            break;
        }
    }
    if (api_on_call != NULL) {
        api_on_call(work->call, params);
    }
}

/* What is answered: the columns of a call are letters. */

static const struct {
    const struct db_call *call;
    const char *columns;
} shapes[] = {
    { &CALL_KEY_FIND, "Nht" },         { &CALL_COMMIT_SECRET, "s" },
    { &CALL_START_BATCH, "nubzitbb" }, { &CALL_RESULT_TEXT, "bt" },
    { &CALL_ENDED_RUNS, "u" },         { &CALL_STREAM_TAILS, "nltb" },
    { &CALL_STREAM_IS_OVER, "b" },     { &CALL_BULK, "l_" },
    { &CALL_COMMIT_OPS, "nj" },        { &CALL_ENDPOINT_TARGET, "tab" },
    { &CALL_ENDPOINT_PUT, "s" },       { &CALL_ENDPOINT_ROTATE, "s" },
};

static const char *columns_of(const struct db_call *call) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (shapes[i].call == call) {
            return shapes[i].columns;
        }
    }
    return "t";
}

static void put(PGresult *rows, int row, int column, const void *bytes, size_t length) {
    promise(PQsetvalue(rows, row, column, (char *)bytes, (int)length) == 1);
}

static void put_hash(PGresult *rows, int row, int column) {
    unsigned char hash[SHA256_DIGEST_LENGTH];
    char text[2 * SHA256_DIGEST_LENGTH + 1];
    (void)SHA256((const unsigned char *)API_KEY, strlen(API_KEY), hash);
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", hash[i]);
    }
    put(rows, row, column, text, 2 * SHA256_DIGEST_LENGTH);
}

static void put_value(PGresult *rows, int row, int column, char kind, uint8_t mood) {
    static const char zeros[16],
        array[] = "\0\0\0\1\0\0\0\0\0\0\0\31\0\0\0\1\0\0\0\1\0\0\0\12whsec_AAAA";
    int32_t n = (int32_t)htobe32((uint32_t)row + 1);
    char flag = (char)(mood >> 5 & 1);
    switch (kind) {
    case 'N':
        put(rows, row, column, "\0\0\0\7", 4);
        break;
    case 'n':
        put(rows, row, column, &n, 4);
        break;
    case 'i':
        put(rows, row, column, "\0\0\0\5", 4);
        break;
    case 'l':
    case 'z':
        put(rows, row, column, zeros, 8);
        break;
    case 'u':
        put(rows, row, column, zeros, 16);
        break;
    case '_':
        put(rows, row, column, NULL, (size_t)-1);
        break;
    case 'b':
        put(rows, row, column, &flag, 1);
        break;
    case 'h':
        put_hash(rows, row, column);
        break;
    case 's':
        put(rows, row, column, "secret", 6);
        break;
    case 'j':
        put(rows, row, column, flag ? "\1{\"code\": \"busy\"}" : "\1{\"results\":[]}",
            flag ? 17 : 15);
        break;
    case 'a':
        put(rows, row, column, array, sizeof array - 1);
        break;
    default:
        put(rows, row, column, "{\"a\":1}", 7);
        break;
    }
}

static Oid type_of(char kind) {
    switch (kind) {
    case 'N':
    case 'n':
    case 'i':
        return DB_INT4;
    case 'l':
        return DB_INT8;
    case 'z':
        return DB_TIMESTAMPTZ;
    case 'u':
    case '_':
        return DB_UUID;
    case 'b':
        return DB_BOOL;
    case 'j':
        return DB_JSONB;
    case 'a':
        return DB_TEXT_ARRAY;
    default:
        return DB_TEXT;
    }
}

static PGresult *rows_for(const struct work *work) {
    const char *columns = columns_of(work->call);
    PGresAttDesc described[8] = { { .name = NULL } };
    int width = (int)strlen(columns), count = 1;
    const char *first = work->params.count == 0 ? NULL : params_values(&work->params)[0];
    if (work->call->param_count > 0 && first != NULL &&
        (work->call->param_types[0] == DB_INT4_ARRAY ||
         work->call->param_types[0] == DB_UUID_ARRAY)) {
        count = be32_at(first) == 0 ? 0 : (int)be32_at(first + 12);
    }
    for (int i = 0; i < width; i++) {
        described[i] =
            (PGresAttDesc){ .name = (char *)"c", .typid = type_of(columns[i]), .format = 1 };
    }
    PGresult *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    promise(rows != NULL && PQsetResultAttrs(rows, width, described) == 1);
    for (int row = 0; row < count; row++) {
        for (int i = 0; i < width; i++) {
            put_value(rows, row, i, columns[i], work->mood);
        }
        if (work->call == &CALL_KEY_FIND) {
            put(rows, row, 2, "admin payloads start read operate", 33);
        }
    }
    return rows;
}

static void work_end(struct work *work) {
    static const struct {
        dj_status status;
        const char *message;
    } ends[] = {
        { DJ_OK, "" },
        { DJ_UNAVAILABLE, "the database cannot be reached" },
        { DJ_INVALID_ARGUMENT, "max_attempts 'caf\xC3\xA9' is not allowed" },
        { DJ_IDEMPOTENCY_CONFLICT, "idempotency_key is another's" },
        { DJ_NOT_FOUND, "run is not there" },
        { DJ_TOO_LARGE, "payload is too large" },
        { DJ_NOT_ALLOWED, "that is not available yet" },
        { DJ_INTERNAL, "a \"quote\" \\ and more" },
    };
    bool ours = work->call == &CALL_KEY_FIND || work->call == &CALL_COMMIT_SECRET;
    int number = ours ? 0 : work->mood & 7;
    AUTO(pgresult) PGresult *rows = number == 0 ? rows_for(work) : NULL;
    work->on_done(work->context,
                  &(struct work_end){ .status = ends[number].status,
                                      .message = ends[number].message,
                                      .rows = rows,
                                      .executed = (work->mood & 8) != 0 && number != 0 });
    params_done(&work->params);
    free(work);
}

/* The database. */

dj_status database_open(struct event_base *base, const char *conninfo, int connections,
                        struct database **ret_database) {
    (void)base;
    (void)conninfo;
    (void)connections;
    list_init(&database.waiting);
    *ret_database = &database;
    return DJ_OK;
}

bool database_is_up(const struct database *given) {
    (void)given;
    return true;
}

void database_on_notify(struct database *given, void (*on_notify)(const char *channel),
                        void (*on_up)(void)) {
    (void)on_notify;
    given->on_up = on_up;
}

struct work *work_new(const struct db_call *call, int32_t namespace_id) {
    struct work *work = calloc(1, sizeof *work);
    promise(work != NULL);
    (void)namespace_id;
    work->call = call;
    params_init(&work->params);
    list_init(&work->link);
    return work;
}

struct db_params *work_params(struct work *work) {
    return &work->params;
}

void work_drop(struct work *work) {
    params_done(&work->params);
    free(work);
}

void work_fill_late(struct work *work, work_fill_fn fill) {
    work->fill = fill;
}

static void work_take(struct work *work) {
    if (work->fill != NULL) {
        work->fill(work->context, &work->params);
    }
    check_params(work);
    work_end(work);
}

void database_send(struct database *given, struct work *work, work_done_fn on_done, void *context) {
    work->on_done = on_done;
    work->context = context;
    work->mood = stand_ins_mood();
    list_push(&given->waiting, &work->link);
    if ((work->mood & 0x80) == 0 && work->fill == NULL) { /* it may be before this returns */
        list_remove(&work->link);
        work_take(work);
    }
}

bool stand_ins_answer(void) {
    static bool up;
    if (!up) {
        up = true;
        database.on_up();
    }
    if (!list_is_empty(&database.waiting)) {
        struct work *work = list_first(&database.waiting, struct work, link);
        list_remove(&work->link);
        work_take(work);
        return true;
    }
    if (!list_is_empty(&client.calls)) {
        struct http_call *call = list_first(&client.calls, struct http_call, link);
        struct http_answer answer = { .outcome = (enum http_outcome)(call->mood % 5),
                                      .reason = "it said \"no\"",
                                      .status = (call->mood & 0x20) != 0 ? 500 : 200,
                                      .retry_after_ms = -1 };
        const char *text = "{\"protocol\":1,\"version\":\"1\",\"jobs\":[{\"name\":\"a\"}]}";
        list_remove(&call->link);
        buf_init(&answer.body, 4096);
        size_t cut = (call->mood & 0x40) != 0 ? strlen(text) - 7 : strlen(text);
        promise(buf_add(&answer.body, text, cut) == DJ_OK);
        call->done(call->context, &answer);
        buf_done(&answer.body);
        free(call);
        return true;
    }
    return false;
}

/* The HTTP client. */

dj_status http_client_new(struct event_base *base, struct http_client **ret_client) {
    (void)base;
    list_init(&client.calls);
    *ret_client = &client;
    return DJ_OK;
}

void http_client_forbid_private(struct http_client *given) {
    (void)given;
}

void http_client_free(struct http_client *given) {
    (void)given;
}

dj_status http_client_send(struct http_client *given, const struct http_request_out *request,
                           http_done_fn done, void *context, struct http_call **ret_call) {
    struct http_call *call = calloc(1, sizeof *call);
    promise(call != NULL && request->url != NULL);
    for (int i = 0; i < request->header_count; i++) {
        promise(request->headers[i] != NULL && strpbrk(request->headers[i], "\r\n") == NULL);
    }
    free(request->body);
    call->done = done;
    call->context = context;
    call->mood = stand_ins_mood();
    list_push(&given->calls, &call->link);
    *ret_call = call;
    return DJ_OK;
}

void http_call_drop(struct http_call *call) {
    if (call != NULL) {
        list_remove(&call->link);
        free(call);
    }
}
