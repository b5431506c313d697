/* Resources that clean up after themselves: AUTO(json) json_object *value = NULL; and giving them
 * away: TAKE. */
#ifndef COMMON_AUTO_H
#define COMMON_AUTO_H

#include <json-c/json_object.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <unistd.h>

#define AUTO(kind) __attribute__((cleanup(auto_##kind)))

/** The value, which is now somebody else's. */
#define TAKE(pointer)                                                                              \
    __extension__({                                                                                \
        __typeof__(pointer) taken_ = (pointer);                                                    \
        (pointer) = NULL;                                                                          \
        taken_;                                                                                    \
    })

static inline void auto_free(void *pointer) {
    free(*(void **)pointer);
}
static inline void auto_json(json_object **object) {
    json_object_put(*object);
}
static inline void auto_pgresult(PGresult **result) {
    PQclear(*result);
}
static inline void auto_fd(const int *fd) {
    if (*fd >= 0) {
        (void)close(*fd);
    }
}

#endif
