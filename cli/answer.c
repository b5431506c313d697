#include "cli/answer.h"

#include "common/check.h"
#include <stdlib.h>
#include <string.h>

struct json_slice answer_of(const char *text) {
    return (struct json_slice){ .text = text, .length = strlen(text) };
}

static struct json_slice field_of(struct json_slice object, const char *name, size_t length) {
    struct json_slice key, value;
    struct json_walk walk;
    bool more;
    if (object.text == NULL || json_walk_begin(&walk, "the answer", object.text, object.length,
                                               /* object= */ true) != DJ_OK) {
        return (struct json_slice){ .text = NULL };
    }
    while (json_walk_next(&walk, &more, &key, &value) == DJ_OK && more) {
        if (key.length == length && memcmp(key.text, name, length) == 0) {
            return value;
        }
    }
    return (struct json_slice){ .text = NULL };
}

struct json_slice answer_at(struct json_slice object, const char *path) {
    while (*path != '\0') {
        size_t length = strcspn(path, ".");
        object = field_of(object, path, length);
        path += length + (path[length] == '.' ? 1 : 0);
    }
    return object;
}

static bool is_null(struct json_slice value) {
    return value.text == NULL || (value.length == 4 && memcmp(value.text, "null", 4) == 0);
}

bool answer_has(struct json_slice object, const char *path) {
    return !is_null(answer_at(object, path));
}

char *answer_text(struct json_slice object, const char *path) {
    struct json_slice value = answer_at(object, path);
    char *text = is_null(value) ? strdup("") : strndup(value.text, value.length);
    check(text != NULL);
    return text[0] == '"' ? json_decode_string(text, value.length) : text;
}

bool answer_is(struct json_slice object, const char *path, const char *text) {
    char *found = answer_text(object, path);
    bool is = strcmp(found, text) == 0;
    free(found);
    return is;
}

dj_status answer_add(struct buf *object, const char *field, struct json_slice value) {
    check(object->length > 1 && object->data[object->length - 1] == '}');
    object->length--;
    DJ_TRY(buf_addf(object, ", \"%s\": ", field));
    DJ_TRY(value.text == NULL ? buf_add_text(object, "null")
                              : buf_add(object, value.text, value.length));
    return buf_add_text(object, "}");
}

void pages_init(struct pages *pages, const char *name, int64_t most) {
    *pages = (struct pages){ .name = name, .most = most, .more = true };
    buf_init(&pages->items, ANSWER_BYTES_MAX);
}

void pages_done(struct pages *pages) {
    free(pages->cursor);
    buf_done(&pages->items);
}

dj_status pages_add(struct pages *pages, const char *answer) {
    struct json_slice whole = answer_of(answer), list = answer_at(whole, pages->name), none, item;
    struct json_walk walk;
    bool more = true;
    int64_t before = pages->count;
    DJ_TRY(json_walk_begin(&walk, pages->name, list.text == NULL ? "" : list.text, list.length,
                           /* object= */ false));
    while (more) {
        DJ_TRY(json_walk_next(&walk, &more, &none, &item));
        if (more) {
            DJ_TRY(buf_add_text(&pages->items, pages->count == 0 ? "" : ", "));
            DJ_TRY(buf_add(&pages->items, item.text, item.length));
            pages->count++;
        }
    }
    free(pages->cursor);
    pages->cursor = answer_has(whole, "nextCursor") ? answer_text(whole, "nextCursor") : NULL;
    pages->more = pages->cursor != NULL && pages->count > before && pages->count < pages->most;
    return DJ_OK;
}

dj_status pages_list(const struct pages *pages, struct buf *list) {
    DJ_TRY(buf_add_text(list, "["));
    DJ_TRY(buf_add(list, pages->items.data, pages->items.length));
    return buf_add_text(list, "]");
}
