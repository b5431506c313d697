#include "worker/module.h"

#include "common/log.h"
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

dj_status module_load(dj_worker *worker, const char *path) {
    char found[PATH_MAX];
    /* dlopen looks in the library path for a name without a slash; we mean a file. */
    (void)snprintf(found, sizeof found, "%s%s", strchr(path, '/') == NULL ? "./" : "", path);
    void *library = dlopen(found, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT, "module %s cannot be loaded: %s", path, dlerror());
    }
    dj_status (*init)(dj_worker *) = NULL;
    *(void **)&init = dlsym(library, "dj_module_init");
    if (init == NULL) {
        return dj_fail(DJ_INVALID_ARGUMENT,
                       "module %s is not one: it has no function dj_module_init", path);
    }
    dj_status status = init(worker);
    if (status != DJ_OK) {
        return dj_fail(status, "module %s: dj_module_init failed: %s", path, dj_error_message());
    }
    log_info("module.loaded", "module", path);
    return DJ_OK;
}
