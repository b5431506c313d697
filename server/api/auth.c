/* API keys: dj_<id>_<secret>. The id finds the key, the SHA-256 of the whole text is compared in
 * constant time. What was found is remembered for 10 s, or until a notification says that a key has
 * ended. All failures look the same.
 *
 * Who guesses is slowed: after so many wrong keys in a minute, an address gets 429 for keys that
 * this server has not seen to be right. Those that it has go on, for a proxy has one address for
 * all its clients. */
#include "server/api/api.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/db_rows.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "server/api/rate.h"
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ID_LENGTH 16
#define KEY_LENGTH 63
#define HASH_TEXT_BYTES (2 * SHA256_DIGEST_LENGTH)
#define REMEMBER_MS 10000
#define LONG_AGO (-REMEMBER_MS)
#define KEYS_MAX 1024 /* a power of two */

struct key {
    char id[ID_LENGTH + 1];
    char hash[HASH_TEXT_BYTES];
    int32_t namespace_id;
    unsigned int scopes;
    int64_t found_ms; /* 0: the place is empty */
};

struct keys {
    struct key remembered[KEYS_MAX];
    struct rate *by_key, *wrong; /* NULL: no limit */
};

void keys_forget(struct api *api) {
    for (int i = 0; i < KEYS_MAX; i++) {
        struct key *key = &api->keys->remembered[i];
        key->found_ms = key->found_ms == 0 ? 0 : LONG_AGO;
    }
}

void keys_open(struct api *api, int rate_limit, int bad_keys) {
    api->keys = calloc(1, sizeof *api->keys);
    check(api->keys != NULL);
    api->keys->by_key = rate_new(rate_limit, 1000);
    api->keys->wrong = rate_new(bad_keys, 60000);
}

/* Never 0, which stands for never. */
static int64_t now_ms(void) {
    return clock_ms() + 1;
}

/* The place where a key with this id is, or would be. */
static struct key *place_of(struct keys *keys, const char *id) {
    unsigned int hash = 2166136261U;
    for (int i = 0; i < ID_LENGTH; i++) {
        hash = (hash ^ (unsigned char)id[i]) * 16777619U;
    }
    return &keys->remembered[hash % KEYS_MAX];
}

/* The key that was sent; NULL: none that could be one. */
static const char *key_of(const struct http_request *request) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const char *text = request->authorization;
    if (text == NULL || strncasecmp(text, "Bearer ", 7) != 0) {
        return NULL;
    }
    text += 7 + strspn(text + 7, " ");
    bool shape = strlen(text) == KEY_LENGTH && strncmp(text, "dj_", 3) == 0 &&
                 strspn(text + 3, letters) == ID_LENGTH && text[3 + ID_LENGTH] == '_' &&
                 strspn(text + 4 + ID_LENGTH, letters) == KEY_LENGTH - 4 - ID_LENGTH;
    return shape ? text : NULL;
}

static void hash_key(const char *key, char out[HASH_TEXT_BYTES]) {
    static const char digits[] = "0123456789abcdef";
    unsigned char hash[SHA256_DIGEST_LENGTH];
    (void)SHA256((const unsigned char *)key, strlen(key), hash);
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        out[2 * i] = digits[hash[i] >> 4];
        out[2 * i + 1] = digits[hash[i] & 15];
    }
}

static void unauthorized(struct api *api, struct http_request *request) {
    problem_reply(api, request, PROBLEM_UNAUTHORIZED, "WWW-Authenticate: Bearer\r\n",
                  "a valid API key is needed: Authorization: Bearer <api key>");
}

static void too_many(struct api *api, struct http_request *request, int64_t wait_ms,
                     const char *what) {
    char header[64];
    int64_t seconds = (wait_ms + 999) / 1000;
    (void)snprintf(header, sizeof header, "Retry-After: %" PRId64 "\r\n", seconds);
    problem_reply(api, request, PROBLEM_RATE_LIMITED, header, "%s; try again in %" PRId64 " s",
                  what, seconds);
}

/* A key that is none, or not the one it says it is. */
static dj_status wrong_key(struct api *api, struct http_request *request) {
    int64_t wait_ms = rate_wait_ms(api->keys->wrong, request->peer);
    if (wait_ms > 0) {
        too_many(api, request, wait_ms, "too many wrong API keys from this address");
    } else {
        rate_spend(api->keys->wrong, request->peer);
        unauthorized(api, request);
    }
    return DJ_NOT_ALLOWED;
}

static const struct {
    const char *name;
    enum scope scope;
    unsigned int gives;
} scopes[] = {
    { "read", SCOPE_READ, SCOPE_READ },
    { "start", SCOPE_START, SCOPE_START },
    { "operate", SCOPE_OPERATE, SCOPE_OPERATE },
    { "admin", SCOPE_ADMIN, SCOPE_READ | SCOPE_START | SCOPE_OPERATE | SCOPE_ADMIN },
    { "payloads", SCOPE_PAYLOADS, SCOPE_PAYLOADS },
};

static unsigned int read_scopes(const char *text) {
    unsigned int given = 0;
    for (size_t i = 0; i < sizeof scopes / sizeof *scopes; i++) {
        size_t length = strlen(scopes[i].name);
        for (const char *at = text; *at != '\0'; at += strspn(at, " ")) {
            size_t word = strcspn(at, " ");
            given |= word == length && memcmp(at, scopes[i].name, word) == 0 ? scopes[i].gives : 0;
            at += word;
        }
    }
    return given;
}

/* The key is known by its id: is it this one, and may it do this? */
static dj_status judge(struct api *api, struct http_request *request, const char *sent,
                       const struct key *known) {
    char hash[HASH_TEXT_BYTES];
    hash_key(sent, hash);
    if (CRYPTO_memcmp(hash, known->hash, sizeof hash) != 0 || known->namespace_id == 0) {
        return wrong_key(api, request);
    }
    uint64_t who = rate_who(known->id, ID_LENGTH);
    int64_t wait_ms = rate_wait_ms(api->keys->by_key, who);
    if (wait_ms > 0) {
        too_many(api, request, wait_ms, "too many requests with this API key");
        return DJ_NOT_ALLOWED;
    }
    rate_spend(api->keys->by_key, who);
    request->namespace_id = known->namespace_id;
    request->scopes = known->scopes;
    if ((known->scopes & request->route->scope) == 0) {
        const char *name = "";
        for (size_t i = 0; i < sizeof scopes / sizeof *scopes; i++) {
            name = scopes[i].scope == request->route->scope ? scopes[i].name : name;
        }
        problem_reply(api, request, PROBLEM_FORBIDDEN, "", "the API key has not the scope %s",
                      name);
        return DJ_NOT_ALLOWED;
    }
    return DJ_OK;
}

struct asking {
    struct api *api;
    struct http_request *request;
    int64_t asked_ms;
};

static dj_status read_key(const PGresult *rows, struct key *ret_key) {
    const char *text;
    size_t length;
    if (PQntuples(rows) == 0 || rows_is_null(rows, 0, 0)) {
        return DJ_OK; /* it is compared all the same, with nothing */
    }
    DJ_TRY(rows_int4(rows, 0, 0, &ret_key->namespace_id));
    DJ_TRY(rows_text(rows, 0, 1, &text, &length));
    if (length != HASH_TEXT_BYTES) {
        return dj_fail(DJ_INTERNAL, "the hash of a key is %zu letters long", length);
    }
    memcpy(ret_key->hash, text, length);
    DJ_TRY(rows_text(rows, 0, 2, &text, &length));
    ret_key->scopes = read_scopes(text);
    return DJ_OK;
}

static void on_found(void *context, const struct work_end *end) {
    struct asking asking = *(struct asking *)context;
    struct http_request *request = asking.request;
    const char *sent = key_of(request);
    struct key key = { .found_ms = asking.asked_ms };
    free(context);
    FAILPOINT("key.found");
    memcpy(key.id, sent + 3, ID_LENGTH);
    dj_status status = end->status;
    const char *message = end->message;
    if (status == DJ_OK) {
        status = read_key(end->rows, &key);
        message = dj_error_message();
    }
    if (status != DJ_OK) {
        log_warning("key.not_found", "reason", message);
        problem_reply_status(asking.api, request, status, message);
        return;
    }
    if (key.namespace_id != 0) {
        *place_of(asking.api->keys, key.id) = key;
    }
    if (judge(asking.api, request, sent, &key) == DJ_OK) {
        http_go_on(request);
    }
}

static void keys_ask(struct api *api, struct http_request *request) {
    char id[ID_LENGTH + 1];
    struct asking *asking = malloc(sizeof *asking);
    check(asking != NULL);
    *asking = (struct asking){ .api = api, .request = request, .asked_ms = now_ms() };
    (void)snprintf(id, sizeof id, "%.*s", ID_LENGTH, key_of(request) + 3);
    struct work *work = work_new(&CALL_KEY_FIND, /* namespace_id= */ 0);
    params_add_text(work_params(work), id);
    database_send(api->database, work, on_found, asking);
}

/* Was this very key right when it was asked for last? */
static bool was_right(const struct key *known, const char *sent) {
    char hash[HASH_TEXT_BYTES];
    hash_key(sent, hash);
    return CRYPTO_memcmp(hash, known->hash, sizeof hash) == 0;
}

dj_status keys_check(struct api *api, struct http_request *request) {
    if (request->route->scope == SCOPE_NONE) {
        return DJ_OK;
    }
    if (request->authorization == NULL) {
        unauthorized(api, request);
        return DJ_NOT_ALLOWED;
    }
    const char *sent = key_of(request);
    if (sent == NULL) {
        return wrong_key(api, request);
    }
    const struct key *known = place_of(api->keys, sent + 3);
    bool found = known->found_ms != 0 && memcmp(known->id, sent + 3, ID_LENGTH) == 0;
    if (found && now_ms() - known->found_ms <= REMEMBER_MS) {
        return judge(api, request, sent, known);
    }
    int64_t wait_ms = rate_wait_ms(api->keys->wrong, request->peer);
    if (wait_ms > 0 && !(found && was_right(known, sent))) {
        too_many(api, request, wait_ms, "too many wrong API keys from this address");
        return DJ_NOT_ALLOWED;
    }
    keys_ask(api, request);
    return DJ_SUSPENDED;
}
