/* Chunks that double in size, from one that holds an ordinary run. One thread at a time. */
#include "common/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES_MIN ((size_t)2048)
#define CHUNK_BYTES_MAX ((size_t)256 * 1024)
#define ALIGNMENT 16
#define ARENA_BYTES_MAX (SIZE_MAX / 2) /* sums with it do not wrap */

struct arena_chunk {
    struct arena_chunk *next;
    size_t bytes;
    _Alignas(ALIGNMENT) char data[];
};

void arena_init(struct arena *arena) {
    *arena = (struct arena){ .chunks = NULL };
}

void arena_done(struct arena *arena) {
    struct arena_chunk *chunk = arena->chunks;
    while (chunk != NULL) {
        struct arena_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    arena_init(arena);
}

void *arena_alloc(struct arena *arena, size_t bytes) {
    if (bytes > ARENA_BYTES_MAX) {
        return NULL;
    }
    size_t wanted = bytes == 0 ? 1 : bytes; /* NULL means failure, so nothing is something, too */
    size_t rounded = (wanted + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (rounded > arena->left) {
        size_t size = arena->chunks == NULL ? CHUNK_BYTES_MIN : arena->chunks->bytes * 2;
        size = size > CHUNK_BYTES_MAX ? CHUNK_BYTES_MAX : size;
        size = size < rounded + sizeof(struct arena_chunk) ? rounded + sizeof(struct arena_chunk)
                                                           : size;
        struct arena_chunk *chunk = malloc(size);
        if (chunk == NULL) {
            return NULL;
        }
        chunk->next = arena->chunks;
        chunk->bytes = size;
        arena->chunks = chunk;
        arena->free = chunk->data;
        arena->left = size - sizeof(struct arena_chunk);
    }
    void *got = arena->free;
    arena->free += rounded;
    arena->left -= rounded;
    return got;
}

char *arena_strndup(struct arena *arena, const char *text, size_t length) {
    char *copy = arena_alloc(arena, length + 1);
    if (copy != NULL) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text) {
    return arena_strndup(arena, text, strlen(text));
}
