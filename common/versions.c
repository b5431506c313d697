/* The libraries are asked themselves, as they were found when the program was started: a package
 * may be newer than what we were built with. By name, since no program is to be linked with one for
 * its version's sake alone. */
#include "common/versions.h"

#include <dlfcn.h>
#include <durable/version.h>
#include <stdbool.h>

/* The function of that name, into `*ret_function`; false: the program has no such library. */
static bool find(const char *name, void *ret_function) {
    void *found = dlsym(RTLD_DEFAULT, name);
    *(void **)ret_function = found;
    return found != NULL;
}

void versions_print(const char *program, FILE *out) {
    int (*pq)(void);
    const char *(*text)(void), *(*openssl)(int);
    unsigned long (*parser)(void);
    (void)fprintf(out, "%s %s\n", program, DURABLE_VERSION);
    if (find("PQlibVersion", &pq)) {
        (void)fprintf(out, "libpq %d.%d\n", pq() / 10000, pq() % 10000);
    }
    if (find("event_get_version", &text)) {
        (void)fprintf(out, "libevent %s\n", text());
    }
    if (find("json_c_version", &text)) {
        (void)fprintf(out, "json-c %s\n", text());
    }
    if (find("OpenSSL_version", &openssl)) {
        (void)fprintf(out, "%s\n", openssl(0));
    }
    if (find("curl_version", &text)) {
        (void)fprintf(out, "%s\n", text());
    }
    if (find("http_parser_version", &parser)) {
        (void)fprintf(out, "http_parser %lu.%lu.%lu\n", parser() >> 16 & 255, parser() >> 8 & 255,
                      parser() & 255);
    }
}
