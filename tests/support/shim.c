/* What a machine does to a program, put under it with LD_PRELOAD: a wall clock that is wrong or
 * steps, a suspend (CLOCK_BOOTTIME jumps, CLOCK_MONOTONIC does not), a disk that is slow or full, a
 * network that is gone. The file DURABLE_SHIM holds a struct shim (shim.h), which a test changes
 * while the program runs. */
#undef _FILE_OFFSET_BITS /* a program may call either name of a function */
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const struct shim nothing;
static const volatile struct shim *shim = &nothing;

__attribute__((constructor)) static void shim_open(void) {
    const char *path = getenv("DURABLE_SHIM");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof *shim, PROT_READ, MAP_SHARED, fd, 0);
        (void)close(fd);
        if (mapped != MAP_FAILED) {
            shim = mapped;
        }
    }
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t clock, struct timespec *now) {
    static __typeof__(&clock_gettime) next;
    if (next == NULL) {
        next = NEXT(clock_gettime);
    }
    int status = next(clock, now);
    now->tv_sec += clock == CLOCK_REALTIME   ? shim->wall_s
                   : clock == CLOCK_BOOTTIME ? shim->boot_s
                                             : 0;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    static __typeof__(&gettimeofday) next;
    if (next == NULL) {
        next = NEXT(gettimeofday);
    }
    int status = next(now, zone);
    now->tv_sec += shim->wall_s;
    return status;
}

time_t time(time_t *ret_now) {
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (ret_now != NULL) {
        *ret_now = now.tv_sec;
    }
    return now.tv_sec;
}

static void wait_for_the_disk(void) {
    struct timespec rest = { .tv_sec = shim->fsync_ms / 1000,
                             .tv_nsec = shim->fsync_ms % 1000 * 1000000L };
    if (shim->fsync_ms > 0) {
        (void)nanosleep(&rest, NULL);
    }
}

int fsync(int fd) {
    wait_for_the_disk();
    return NEXT(fsync)(fd);
}

int fdatasync(int fd) {
    wait_for_the_disk();
    return NEXT(fdatasync)(fd);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    if (shim->cut != 0) {
        errno = ENETUNREACH;
        return -1;
    }
    return NEXT(connect)(fd, address, length);
}

/* Whether writing there makes the file longer, and there is no room for it. */
static bool has_no_room(int fd, off_t end) {
    struct stat status;
    return shim->full != 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
           end > status.st_size;
}

#define WITHOUT_ROOM(name, offset_type)                                                            \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) {                      \
        if (has_no_room(fd, offset + (offset_type)size)) {                                         \
            errno = ENOSPC;                                                                        \
            return -1;                                                                             \
        }                                                                                          \
        return NEXT(name)(fd, data, size, offset);                                                 \
    }
WITHOUT_ROOM(pwrite, off_t)
WITHOUT_ROOM(pwrite64, off64_t)

#define PARTS_WITHOUT_ROOM(name, offset_type)                                                      \
    ssize_t name(int fd, const struct iovec *parts, int count, offset_type offset) {               \
        if (has_no_room(fd, offset + 1)) {                                                         \
            errno = ENOSPC;                                                                        \
            return -1;                                                                             \
        }                                                                                          \
        return NEXT(name)(fd, parts, count, offset);                                               \
    }
PARTS_WITHOUT_ROOM(pwritev, off_t)
PARTS_WITHOUT_ROOM(pwritev64, off64_t)
