/* A handler is called from its top and asks for its steps in the same order again, so each call's
 * position says which step is expected. Names are counted in a small hash table, because a loop may
 * use one name ten thousand times. On the handler's thread. */
#include "worker/replay.h"

#include "common/check.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct seen {
    const char *name;
    int count;
};

static uint32_t hash_name(const char *name) { /* FNV-1a */
    uint32_t hash = 2166136261u;
    for (; *name != '\0'; name++) {
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    }
    return hash;
}

static struct seen *seen_slot(struct seen *seen, int capacity, const char *name) {
    uint32_t at = hash_name(name) & (uint32_t)(capacity - 1);
    while (seen[at].name != NULL && strcmp(seen[at].name, name) != 0) {
        at = (at + 1) & (uint32_t)(capacity - 1);
    }
    return &seen[at];
}

static dj_status seen_grow(struct replay *replay) {
    int capacity = replay->seen_capacity == 0 ? 16 : replay->seen_capacity * 2;
    struct seen *seen = calloc((size_t)capacity, sizeof *seen);
    if (seen == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for step names");
    }
    for (int i = 0; i < replay->seen_capacity; i++) {
        if (replay->seen[i].name != NULL) {
            *seen_slot(seen, capacity, replay->seen[i].name) = replay->seen[i];
        }
    }
    free(replay->seen);
    replay->seen = seen;
    replay->seen_capacity = capacity;
    return DJ_OK;
}

dj_status replay_name(struct replay *replay, struct arena *arena, const char *name,
                      const char **ret_name) {
    if (2 * replay->seen_count >= replay->seen_capacity) {
        DJ_TRY(seen_grow(replay));
    }
    struct seen *slot = seen_slot(replay->seen, replay->seen_capacity, name);
    char full[256];
    if (slot->name == NULL) {
        slot->name = arena_strdup(arena, name);
        if (slot->name == NULL) {
            return dj_fail(DJ_NO_MEMORY, "no memory for a step's name");
        }
        slot->count = 1;
        replay->seen_count++;
        *ret_name = slot->name;
        return DJ_OK;
    }
    slot->count++;
    (void)snprintf(full, sizeof full, "%s#%d", name, slot->count);
    *ret_name = arena_strdup(arena, full);
    if (*ret_name == NULL) {
        return dj_fail(DJ_NO_MEMORY, "no memory for a step's name");
    }
    return DJ_OK;
}

enum replay_answer replay_next(struct replay *replay, const char *name, const char *kind,
                               const struct memory **ret_memory) {
    replay->position++;
    if (replay->next >= replay->step_count ||
        replay->steps[replay->next].position != replay->position) {
        return REPLAY_NEW;
    }
    *ret_memory = &replay->steps[replay->next];
    if (strcmp((*ret_memory)->name, name) != 0 || strcmp((*ret_memory)->kind, kind) != 0) {
        return REPLAY_OUT_OF_PLACE;
    }
    replay->next++;
    return REPLAY_REMEMBERED;
}

int replay_tries(const struct replay *replay, const char *name) {
    int tries = 0;
    for (int i = 0; i < replay->try_count; i++) {
        tries += strcmp(replay->tries[i], name) == 0;
    }
    return tries;
}

void replay_done(struct replay *replay) {
    free(replay->seen);
    replay->seen = NULL;
}
