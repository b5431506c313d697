/* The handlers that the bench runs. They count themselves in a file that is mapped by the bench too
 * ($BENCH_COUNT), and say the instant they were reached to a socket ($BENCH_SOCKET). */
#include <durable/worker.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static _Atomic int64_t *finished;
static struct sockaddr_un listener = { .sun_family = AF_UNIX };
static int sender = -1;

static dj_status noop(dj_run *run, json_object *payload) {
    (void)payload;
    atomic_fetch_add_explicit(finished, 1, memory_order_relaxed);
    return dj_complete(run, NULL);
}

static dj_status one(dj_run *run, json_object *input, json_object **ret_result) {
    (void)run;
    (void)input;
    *ret_result = json_object_new_int(1);
    return DJ_OK;
}

static dj_status five(dj_run *run, json_object *payload) {
    static const char *const names[] = { "step-1", "step-2", "step-3", "step-4", "step-5" };
    (void)payload;
    for (int i = 0; i < 5; i++) {
        DJ_TRY(dj_step(run, names[i], one, NULL, NULL));
    }
    atomic_fetch_add_explicit(finished, 1, memory_order_relaxed);
    return dj_complete(run, NULL);
}

static void say_now(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    (void)sendto(sender, &ns, sizeof ns, 0, (const struct sockaddr *)&listener, sizeof listener);
}

static dj_status ping(dj_run *run, json_object *payload) {
    (void)payload;
    say_now();
    return dj_complete(run, NULL);
}

static dj_status waiter(dj_run *run, json_object *payload) {
    const char *key = json_object_get_string(json_object_object_get(payload, "key"));
    DJ_TRY(dj_wait_for_event(run, "go", &(dj_wait){ .correlation_key = key }, NULL));
    say_now();
    return dj_complete(run, NULL);
}

dj_status dj_module_init(dj_worker *worker) {
    int fd = open(getenv("BENCH_COUNT"), O_RDWR | O_CLOEXEC);
    void *map = mmap(NULL, sizeof *finished, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (map == MAP_FAILED) {
        return DJ_INVALID_ARGUMENT;
    }
    finished = map;
    sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)snprintf(listener.sun_path, sizeof listener.sun_path, "%s", getenv("BENCH_SOCKET"));
    DJ_TRY(dj_worker_register(worker, "noop", noop, NULL));
    DJ_TRY(dj_worker_register(worker, "five", five, NULL));
    DJ_TRY(dj_worker_register(worker, "ping", ping, NULL));
    return dj_worker_register(worker, "waiter", waiter, NULL);
}
