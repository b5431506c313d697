/* Judging JSON. json-c lets through what PostgreSQL and our limits do not (NaN, \u0000, half
 * surrogates, numbers of any length), so a scan over the text decides: the whole grammar of RFC
 * 8259 in one pass, without memory and without recursion. What has passed goes to json-c to be
 * built (json.c), or as it is to the database. Any thread; all of it is in the caller's hands. */
#include "common/json.h"

#include "common/bounds.h"
#include "common/check.h"
#include "common/text.h"
#include <stdint.h>
#include <string.h>

struct scan {
    const char *argument;
    const char *text, *at, *end;
    uint64_t objects[2]; /* a bit for each open level: 1 for an object, 0 for an array */
    int depth, depth_max;
};

static_assert(JSON_DEPTH_MAX + JSON_OUTER_DEPTH_MAX <= 128, "a level is a bit of scan.objects");

/* What the grammar allows next. */
enum next {
    NEXT_VALUE,
    NEXT_VALUE_OR_END, /* just behind [ */
    NEXT_KEY,
    NEXT_KEY_OR_END, /* just behind { */
    NEXT_COMMA_OR_END,
    NEXT_NOTHING,
};

static dj_status refuse(const struct scan *scan, const char *what) {
    return dj_fail(DJ_INVALID_ARGUMENT, "%s, at byte %zu: %s", scan->argument,
                   (size_t)(scan->at - scan->text), what);
}

/* The byte at the scan; 0 at the end. A zero byte in the text is refused wherever it stands. */
static char peek(const struct scan *scan) {
    return (char)(scan->at < scan->end ? *scan->at : '\0');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static void skip_space(struct scan *scan) {
    for (char c = peek(scan); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = peek(scan)) {
        scan->at++;
    }
}

/* The four digits at the scan, behind \u; -1 where they are not there. */
static int scan_hex4(struct scan *scan) {
    int value = 0;
    for (int i = 0; i < 4; i++, scan->at++) {
        char c = peek(scan);
        char lower = (char)(c | 0x20);
        if (is_digit(c)) {
            value = value * 16 + (c - '0');
        } else if (lower >= 'a' && lower <= 'f') {
            value = value * 16 + (lower - 'a' + 10);
        } else {
            return -1;
        }
    }
    return value;
}

/* Behind \u. */
static dj_status scan_unicode(struct scan *scan) {
    int unit = scan_hex4(scan);
    if (unit < 0) {
        return refuse(scan, "four hexadecimal digits are allowed after \\u");
    }
    if (unit == 0) {
        return refuse(scan, "\\u0000 cannot be stored");
    }
    if (unit < 0xD800 || unit > 0xDFFF) {
        return DJ_OK;
    }
    bool paired = unit < 0xDC00 && scan->end - scan->at >= 6 && memcmp(scan->at, "\\u", 2) == 0;
    scan->at += paired ? 2 : 0;
    int low = paired ? scan_hex4(scan) : -1;
    if (low < 0xDC00 || low > 0xDFFF) {
        return refuse(scan, "half of a surrogate pair is not a character");
    }
    return DJ_OK;
}

/* At the opening quote. */
static dj_status scan_string(struct scan *scan) {
    scan->at++;
    while (scan->at < scan->end) {
        char c = *scan->at;
        if (c == '"') {
            scan->at++;
            return DJ_OK;
        }
        if ((unsigned char)c < ' ') {
            return refuse(scan, "control characters are not allowed in strings; escape them");
        }
        scan->at++;
        if (c != '\\') {
            continue;
        }
        char escape = peek(scan);
        if (escape == '\0' || strchr("\"\\/bfnrtu", escape) == NULL) {
            return refuse(scan, "one of \" \\ / b f n r t u is allowed after \\");
        }
        scan->at++;
        if (escape == 'u') {
            DJ_TRY(scan_unicode(scan));
        }
    }
    return refuse(scan, "a string has no end");
}

static int skip_digits(struct scan *scan) {
    const char *first = scan->at;
    while (is_digit(peek(scan))) {
        scan->at++;
    }
    return scan->at - first > JSON_NUMBER_DIGITS_MAX ? JSON_NUMBER_DIGITS_MAX + 1
                                                     : (int)(scan->at - first);
}

/* Behind the e of a number. */
static dj_status scan_exponent(struct scan *scan) {
    if (peek(scan) == '+' || peek(scan) == '-') {
        scan->at++;
    }
    if (!is_digit(peek(scan))) {
        return refuse(scan, "a number's exponent has no digits");
    }
    int exponent = 0;
    for (; is_digit(peek(scan)); scan->at++) {
        exponent = exponent > JSON_EXPONENT_MAX ? exponent : exponent * 10 + (*scan->at - '0');
    }
    return exponent > JSON_EXPONENT_MAX
               ? refuse(scan, "exponents from -400 to 400 are allowed in numbers")
               : DJ_OK;
}

/* At the sign or the first digit. */
static dj_status scan_number(struct scan *scan) {
    scan->at += *scan->at == '-' ? 1 : 0;
    bool zero = peek(scan) == '0';
    int digits = skip_digits(scan);
    if (digits == 0 || (zero && digits > 1)) {
        return refuse(scan, digits == 0 ? "a number has no digits"
                                        : "a number must not begin with further zeros");
    }
    if (peek(scan) == '.') {
        scan->at++;
        int fraction = skip_digits(scan);
        if (fraction == 0) {
            return refuse(scan, "a number has no digits after its point");
        }
        digits += fraction;
    }
    if (digits > JSON_NUMBER_DIGITS_MAX) {
        return refuse(scan, "numbers of up to 400 digits are allowed");
    }
    if (peek(scan) == 'e' || peek(scan) == 'E') {
        scan->at++;
        return scan_exponent(scan);
    }
    return DJ_OK;
}

static dj_status scan_word(struct scan *scan, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(scan->end - scan->at) < length || memcmp(scan->at, word, length) != 0) {
        return refuse(scan, "a JSON value is expected; NaN and Infinity are none");
    }
    scan->at += length;
    return DJ_OK;
}

static bool in_object(const struct scan *scan) {
    int level = scan->depth - 1;
    return ((scan->objects[level / 64] >> (level % 64)) & 1) != 0;
}

static enum next after_value(const struct scan *scan) {
    return scan->depth == 0 ? NEXT_NOTHING : NEXT_COMMA_OR_END;
}

static dj_status scan_open(struct scan *scan, enum next *next) {
    uint64_t object = *scan->at == '{';
    if (scan->depth == scan->depth_max) {
        return refuse(scan, "it is nested too deep; 64 levels are allowed");
    }
    uint64_t *word = &scan->objects[scan->depth / 64];
    int bit = scan->depth % 64;
    *word = (*word & ~(1ULL << bit)) | (object << bit);
    scan->depth++;
    scan->at++;
    *next = object ? NEXT_KEY_OR_END : NEXT_VALUE_OR_END;
    return DJ_OK;
}

static void scan_close(struct scan *scan, enum next *next) {
    scan->depth--;
    scan->at++;
    *next = after_value(scan);
}

static dj_status scan_value(struct scan *scan, enum next *next) {
    char c = peek(scan);
    if (c == '{' || c == '[') {
        return scan_open(scan, next);
    }
    *next = after_value(scan);
    if (c == '"') {
        return scan_string(scan);
    }
    if (is_digit(c) || (c == '-' && scan->end - scan->at > 1 && scan->at[1] != 'I')) {
        return scan_number(scan);
    }
    return scan_word(scan, c == 't' ? "true" : c == 'f' ? "false" : "null");
}

static dj_status scan_key(struct scan *scan, enum next *next) {
    if (peek(scan) != '"') {
        return refuse(scan, "a key in double quotes is expected");
    }
    DJ_TRY(scan_string(scan));
    skip_space(scan);
    if (peek(scan) != ':') {
        return refuse(scan, "a colon is expected");
    }
    scan->at++;
    *next = NEXT_VALUE;
    return DJ_OK;
}

static dj_status scan_comma(struct scan *scan, enum next *next) {
    bool object = in_object(scan);
    if (peek(scan) == (object ? '}' : ']')) {
        scan_close(scan, next);
        return DJ_OK;
    }
    if (peek(scan) != ',') {
        return refuse(scan, object ? "a comma or } is expected" : "a comma or ] is expected");
    }
    scan->at++;
    *next = object ? NEXT_KEY : NEXT_VALUE;
    return DJ_OK;
}

static dj_status scan_text(struct scan *scan) {
    enum next next = NEXT_VALUE;
    for (skip_space(scan); scan->at < scan->end; skip_space(scan)) {
        switch (next) {
        case NEXT_VALUE_OR_END:
            if (peek(scan) == ']') {
                scan_close(scan, &next);
                break;
            }
            DJ_TRY(scan_value(scan, &next));
            break;
        case NEXT_VALUE:
            DJ_TRY(scan_value(scan, &next));
            break;
        case NEXT_KEY_OR_END:
            if (peek(scan) == '}') {
                scan_close(scan, &next);
                break;
            }
            DJ_TRY(scan_key(scan, &next));
            break;
        case NEXT_KEY:
            DJ_TRY(scan_key(scan, &next));
            break;
        case NEXT_COMMA_OR_END:
            DJ_TRY(scan_comma(scan, &next));
            break;
        case NEXT_NOTHING:
            return refuse(scan, "something follows the value");
        }
    }
    return next == NEXT_NOTHING ? DJ_OK : refuse(scan, "it ends before its value does");
}

dj_status json_check_inside(const char *argument, const char *text, size_t length, size_t bytes_max,
                            int outer) {
    assert(outer <= JSON_OUTER_DEPTH_MAX);
    if (length > bytes_max) {
        return dj_fail(DJ_TOO_LARGE, "%s is %zu bytes; the limit is %zu bytes", argument, length,
                       bytes_max);
    }
    if (!text_is_utf8(text, length)) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is not UTF-8", argument);
    }
    struct scan scan = { .argument = argument,
                         .text = text,
                         .at = text,
                         .end = text + length,
                         .depth_max = JSON_DEPTH_MAX + outer };
    return scan_text(&scan);
}

dj_status json_check(const char *argument, const char *text, size_t length, size_t bytes_max) {
    return json_check_inside(argument, text, length, bytes_max, /* outer= */ 0);
}

/* To the end of the string at the scan. */
static void skip_string(struct scan *scan) {
    for (scan->at++; scan->at < scan->end && *scan->at != '"'; scan->at++) {
        scan->at += *scan->at == '\\' && scan->at + 1 < scan->end ? 1 : 0;
    }
    scan->at += scan->at < scan->end ? 1 : 0;
}

/* To the end of the value at the scan, or of the text: found by brackets and quotes alone. */
static void skip_value(struct scan *scan) {
    int depth = 0;
    while (scan->at < scan->end) {
        char c = *scan->at;
        if (c == '"') {
            skip_string(scan);
        } else if (c == '{' || c == '[') {
            depth++;
            scan->at++;
        } else if (depth > 0) {
            depth -= c == '}' || c == ']' ? 1 : 0;
            scan->at++;
        } else { /* a word or a number */
            while (scan->at < scan->end && strchr(",]} \t\r\n", *scan->at) == NULL) {
                scan->at++;
            }
            return;
        }
        if (depth == 0) {
            return;
        }
    }
}

static struct scan scan_of(const struct json_walk *walk, const char *argument) {
    return (
        struct scan){ .argument = argument, .text = walk->at, .at = walk->at, .end = walk->end };
}

/* The walk's own refusals count their bytes from the text's beginning. */
static dj_status walk_refuse(const struct json_walk *walk, const char *at, const char *what) {
    return dj_fail(DJ_INVALID_ARGUMENT, "%s, at byte %zu: %s", walk->argument,
                   (size_t)(at - walk->text), what);
}

dj_status json_walk_begin(struct json_walk *walk, const char *argument, const char *text,
                          size_t length, bool object) {
    *walk = (struct json_walk){ .argument = argument,
                                .text = text,
                                .at = text,
                                .end = text + length,
                                .object = object,
                                .first = true };
    struct scan scan = scan_of(walk, argument);
    skip_space(&scan);
    if (peek(&scan) != (object ? '{' : '[')) {
        return dj_fail(DJ_INVALID_ARGUMENT, "%s is not %s", argument,
                       object ? "a JSON object" : "a JSON list");
    }
    walk->at = scan.at + 1;
    return DJ_OK;
}

dj_status json_walk_next(struct json_walk *walk, bool *ret_more, struct json_slice *ret_key,
                         struct json_slice *ret_value) {
    struct scan scan = scan_of(walk, walk->argument);
    skip_space(&scan);
    if (peek(&scan) == (walk->object ? '}' : ']')) {
        scan.at++;
        skip_space(&scan);
        *ret_more = false;
        return scan.at == scan.end ? DJ_OK
                                   : walk_refuse(walk, scan.at, "something follows the value");
    }
    if (!walk->first) {
        if (peek(&scan) != ',') {
            return walk_refuse(walk, scan.at,
                               walk->object ? "a comma or } is expected"
                                            : "a comma or ] is expected");
        }
        scan.at++;
        skip_space(&scan);
    }
    walk->first = false;
    if (walk->object) {
        enum next next;
        const char *key = scan.at;
        scan.text = walk->text;
        DJ_TRY(scan_key(&scan, &next));
        const char *end = memchr(key + 1, '"', (size_t)(scan.at - key - 1));
        *ret_key = (struct json_slice){ .text = key + 1, .length = (size_t)(end - key - 1) };
        skip_space(&scan);
    }
    const char *first = scan.at;
    skip_value(&scan);
    if (scan.at == first) {
        return walk_refuse(walk, first, "a value is expected");
    }
    *ret_value = (struct json_slice){ .text = first, .length = (size_t)(scan.at - first) };
    *ret_more = true;
    walk->at = scan.at;
    return DJ_OK;
}

static char *put_utf8(char *out, int c) {
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xC0 | (c >> 6));
        *out++ = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *out++ = (char)(0xE0 | (c >> 12));
        *out++ = (char)(0x80 | ((c >> 6) & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    } else {
        *out++ = (char)(0xF0 | (c >> 18));
        *out++ = (char)(0x80 | ((c >> 12) & 0x3F));
        *out++ = (char)(0x80 | ((c >> 6) & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    }
    return out;
}

/* Behind the first of a pair that has been checked: the character of both. */
static int scan_second_half(struct scan *scan, int first) {
    scan->at += 2;
    return 0x10000 + ((first - 0xD800) << 10) + (scan_hex4(scan) - 0xDC00);
}

char *json_decode_string(char *text, size_t length) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    struct scan scan = { .argument = "", .text = text, .at = text + 1, .end = text + length - 1 };
    char *out = text;
    assert(length >= 2 && text[0] == '"' && text[length - 1] == '"');
    while (scan.at < scan.end) {
        char c = *scan.at++;
        if (c != '\\') {
            *out++ = c;
        } else if (*scan.at != 'u') {
            *out++ = to[strchr(from, *scan.at++) - from];
        } else {
            scan.at++;
            int unit = scan_hex4(&scan);
            out = put_utf8(out,
                           unit < 0xD800 || unit >= 0xDC00 ? unit : scan_second_half(&scan, unit));
        }
    }
    *out = '\0';
    return text;
}

dj_status json_decode_pairs(struct buf *out, const char *text, size_t length) {
    struct scan scan = { .argument = "", .text = text, .at = text, .end = text + length };
    const char *kept = text;
    while ((scan.at = memchr(scan.at, '\\', (size_t)(scan.end - scan.at))) != NULL) {
        const char *escape = scan.at;
        scan.at += 2;
        int unit = escape[1] == 'u' ? scan_hex4(&scan) : 0;
        if (unit < 0xD800 || unit >= 0xDC00) {
            continue;
        }
        char bytes[4];
        size_t count = (size_t)(put_utf8(bytes, scan_second_half(&scan, unit)) - bytes);
        DJ_TRY(buf_add(out, kept, (size_t)(escape - kept)));
        DJ_TRY(buf_add(out, bytes, count));
        kept = scan.at;
    }
    return buf_add(out, kept, (size_t)(text + length - kept));
}

dj_status buf_add_json(struct buf *buf, const char *text) {
    DJ_TRY(buf_add(buf, "\"", 1));
    for (const char *at = text; *at != '\0';) {
        size_t plain = 0;
        while (at[plain] != '\0' && at[plain] != '"' && at[plain] != '\\' &&
               (unsigned char)at[plain] >= ' ') {
            plain++;
        }
        DJ_TRY(buf_add(buf, at, plain));
        at += plain;
        if (*at == '"' || *at == '\\') {
            DJ_TRY(buf_addf(buf, "\\%c", *at++));
        } else if (*at != '\0') {
            DJ_TRY(buf_addf(buf, "\\u%04x", (unsigned int)(unsigned char)*at++));
        }
    }
    return buf_add(buf, "\"", 1);
}
