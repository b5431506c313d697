/* Our readers against PostgreSQL's: what we let in, it takes, and means the same by it; what we
 * refuse and it would take is over a limit of ours. The texts are those of the corpora and what
 * random changes make of them, 500 in one query.
 *
 * DURABLE_FUZZ_SECONDS (1) for each reader, DURABLE_FUZZ_SEED (1). */
#include "support.h"

#include "common/bounds.h"
#include "common/buf.h"
#include "common/check.h"
#include "common/duration.h"
#include "common/json.h"
#include "common/rfc3339.h"
#include "common/text.h"
#include "common/uuid.h"
#include "fuzz_values.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEEDS_MAX 400
#define BATCH 500
#define BYTES_MAX 4096

struct sample {
    char text[BYTES_MAX + 1];
    size_t length;
};

static PGconn *conn;
static struct sample seeds[SEEDS_MAX], batch[BATCH];
static int seed_count;
static long compared;

static int setup(void **state) {
    (void)state;
    conn = connect_to(database_new());
    sql(conn,
        "create function pg_temp.reads(kind text, given bytea) returns text language plpgsql as $$ "
        "declare words text; begin words := convert_from(given, 'UTF8'); case kind "
        "when 'json' then perform words::jsonb; "
        "when 'duration' then return round(extract(epoch from durable_internal.duration('d', "
        "words)) * 1000)::bigint; "
        "when 'rfc3339' then return (extract(epoch from words::timestamptz) * 1000000)::bigint; "
        "when 'uuid' then return words::uuid; "
        "when 'name' then perform durable_internal.check_name('n', words); "
        "when 'key' then perform durable_internal.check_key('k', words); else null; end case; "
        "return ''; exception when others then return null; end $$");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    PQfinish(conn);
    return 0;
}

static void read_seeds(const char *corpus) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", FUZZ_CORPUS, corpus);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    seed_count = 0;
    for (const struct dirent *entry; seed_count < SEEDS_MAX && (entry = readdir(folder)) != NULL;) {
        (void)snprintf(path, sizeof path, "%s/%s/%s", FUZZ_CORPUS, corpus, entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (file != NULL) {
            struct sample *seed = &seeds[seed_count++];
            seed->length = fread(seed->text, 1, BYTES_MAX, file);
            (void)fclose(file);
        }
    }
    (void)closedir(folder);
    assert_true(seed_count > 0);
}

static void cut_out(struct sample *sample, size_t at, size_t length) {
    memmove(sample->text + at, sample->text + at + length, sample->length - at - length);
    sample->length -= length;
}

static void put_in(struct sample *sample, size_t at, const char *text, size_t length) {
    if (sample->length + length <= BYTES_MAX) {
        memmove(sample->text + at + length, sample->text + at, sample->length - at);
        memmove(sample->text + at, text, length);
        sample->length += length;
    }
}

static void change(struct sample *sample) {
    static const char *const words[] = {
        "{",    "}",       "[",       "]",       ",",  ":",        "\"",
        "\\",   "\\u0000", "\\ud83d", "\\ude00", "0",  "9",        "-",
        ".",    "e",       "E+",      "1e400",   "00", "1.",       "+1",
        "NaN",  "null",    "true",    " ",       "\n", "\xC3\xA9", "\xED\xA0\x80",
        "\xFF", "Z",       "+05:30",  "T",       "ms", "3650d",    "1h",
        "60",   "\x01",    "\x7F",    "a",       "f"
    };
    size_t at = random_below(sample->length + 1), left = sample->length - at;
    const char *word = words[random_below(sizeof words / sizeof *words)];
    char part[64];
    size_t many = left == 0 ? 0 : 1 + random_below(left < sizeof part ? left : sizeof part);
    switch (random_below(5)) {
    case 0:
        cut_out(sample, at, many);
        break;
    case 1:
        memcpy(part, sample->text + at, many);
        put_in(sample, random_below(sample->length + 1), part, many);
        break;
    case 2:
        if (left > 0) {
            sample->text[at] = (char)random_below(256);
        }
        break;
    default:
        put_in(sample, at, word, strlen(word));
        break;
    }
}

static void make_batch(bool as_they_are) {
    check(seed_count > 0);
    for (int i = 0; i < BATCH; i++) {
        batch[i] =
            seeds[as_they_are ? (uint64_t)(i % seed_count) : random_below((uint64_t)seed_count)];
        for (uint64_t n = as_they_are ? 0 : 1 + random_below(2); n > 0; n--) {
            change(&batch[i]);
        }
        batch[i].text[batch[i].length] = '\0';
    }
}

/* What PostgreSQL makes of each; null: it refuses. */
static PGresult *ask(const char *kind) {
    struct buf list;
    buf_init(&list, (size_t)64 * 1024 * 1024);
    assert_int_equal(buf_add_text(&list, "{"), DJ_OK);
    for (int i = 0; i < BATCH; i++) {
        assert_int_equal(buf_add_text(&list, i == 0 ? "\"\\\\x" : ",\"\\\\x"), DJ_OK);
        for (size_t at = 0; at < batch[i].length; at++) {
            assert_int_equal(buf_addf(&list, "%02x", (unsigned char)batch[i].text[at]), DJ_OK);
        }
        assert_int_equal(buf_add_text(&list, "\""), DJ_OK);
    }
    assert_int_equal(buf_add_text(&list, "}"), DJ_OK);
    const char *const values[] = { kind, list.data };
    PGresult *rows = PQexecParams(
        conn,
        "select pg_temp.reads($1, g) from unnest($2::bytea[]) with ordinality as u (g, n) "
        "order by n",
        2, NULL, values, NULL, NULL, 0);
    if (PQresultStatus(rows) != PGRES_TUPLES_OK) {
        fail_msg("%s", PQerrorMessage(conn));
    }
    assert_int_equal(PQntuples(rows), BATCH);
    buf_done(&list);
    return rows;
}

/* Each answers whether we and PostgreSQL agree. `said` is NULL where it refuses. */

static bool json_agrees(const struct sample *sample, const char *said) {
    if (json_check("value", sample->text, sample->length, PAYLOAD_BYTES_MAX) == DJ_OK) {
        return said != NULL;
    }
    static const char *const limits[] = { "nested too deep", "up to 400 digits", "exponents from" };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        if (strstr(dj_error_message(), limits[i]) != NULL) {
            return true;
        }
    }
    return said == NULL;
}

static bool is_text(const struct sample *sample) {
    return strlen(sample->text) == sample->length && text_is_utf8(sample->text, sample->length);
}

/* SQL counts the digits of each number, C does not; and C refuses nothing at all, which SQL leaves
 * to its callers. */
static bool duration_agrees(const struct sample *sample, const char *said) {
    int64_t ms = 0;
    for (const char *at = sample->text; *at != '\0'; at++) {
        if (strspn(at, "0123456789") > 12) {
            return true;
        }
    }
    bool ours = is_text(sample) && duration_parse("timeout", sample->text, &ms) == DJ_OK;
    return ours ? said != NULL && strtoll(said, NULL, 10) == ms
                : said == NULL || strcmp(said, "0") == 0;
}

/* Ours drops what is finer than a microsecond, PostgreSQL rounds it. */
static bool rfc3339_agrees(const struct sample *sample, const char *said) {
    int64_t us;
    if (!is_text(sample) || rfc3339_parse("at", sample->text, &us) != DJ_OK) {
        return true;
    }
    int64_t theirs = said == NULL ? INT64_MIN : strtoll(said, NULL, 10);
    return theirs == us || theirs == us + 1;
}

static bool uuid_agrees(const struct sample *sample, const char *said) {
    struct uuid uuid;
    char printed[UUID_TEXT_BYTES];
    if (!is_text(sample) || uuid_parse("id", sample->text, &uuid) != DJ_OK) {
        return true; /* PostgreSQL takes braces, and dashes elsewhere */
    }
    uuid_print(&uuid, printed);
    return said != NULL && strcmp(said, printed) == 0;
}

static bool text_agrees(const struct sample *sample, const char *said) {
    return is_text(sample) == (said != NULL);
}

static bool name_agrees(const struct sample *sample, const char *said) {
    return (is_text(sample) && check_name("job", sample->text) == DJ_OK) == (said != NULL);
}

static bool key_agrees(const struct sample *sample, const char *said) {
    return (is_text(sample) && check_key("key", sample->text) == DJ_OK) == (said != NULL);
}

static double now_s(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void check_kind(const char *kind, const char *corpus,
                       bool (*agrees)(const struct sample *, const char *)) {
    const char *seconds = getenv("DURABLE_FUZZ_SECONDS");
    double until = now_s() + (seconds == NULL ? 1 : atof(seconds));
    read_seeds(corpus);
    bool first = true;
    do {
        make_batch(/* as_they_are= */ first);
        PGresult *rows = ask(kind);
        for (int i = 0; i < BATCH; i++) {
            const char *said = PQgetisnull(rows, i, 0) ? NULL : PQgetvalue(rows, i, 0);
            if (!agrees(&batch[i], said)) {
                fail_msg("%s: PostgreSQL says %s, and we (%s) otherwise, to: %s", kind,
                         said == NULL ? "no" : said, dj_error_message(), batch[i].text);
            }
        }
        PQclear(rows);
        compared += BATCH;
        first = false;
    } while (now_s() < until);
}

static void what_we_read_postgresql_reads_as_we_do(void **state) {
    const char *seed = getenv("DURABLE_FUZZ_SEED");
    (void)state;
    random_begin(seed == NULL ? 1 : strtoull(seed, NULL, 10));
    check_kind("json", "json", json_agrees);
    check_kind("duration", "duration", duration_agrees);
    check_kind("rfc3339", "rfc3339", rfc3339_agrees);
    check_kind("uuid", "uuid", uuid_agrees);
    check_kind("text", "text", text_agrees);
    check_kind("name", "text", name_agrees);
    check_kind("key", "text", key_agrees);
    print_message("%ld texts compared\n", compared);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(what_we_read_postgresql_reads_as_we_do) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
