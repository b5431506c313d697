/* Memory that is freed at once: one arena for each run in hand. */
#ifndef COMMON_ARENA_H
#define COMMON_ARENA_H

#include <stddef.h>

struct arena {
    struct arena_chunk *chunks; /* the newest first */
    char *free;
    size_t left;
};

void arena_init(struct arena *arena);
void arena_done(struct arena *arena);

/** Aligned for anything. NULL: no memory. */
void *arena_alloc(struct arena *arena, size_t bytes);
char *arena_strdup(struct arena *arena, const char *text);
char *arena_strndup(struct arena *arena, const char *text, size_t length);

#endif
