/* Sums of whole numbers with a unit. Any thread. */
#include "common/duration.h"

#include "common/bounds.h"
#include <stdio.h>
#include <string.h>

static const struct unit {
    const char *name;
    int64_t ms;
} units[] = { { "d", 86400000 }, { "h", 3600000 }, { "ms", 1 }, { "m", 60000 }, { "s", 1000 } };

static dj_status refuse(const char *argument, const char *text) {
    return dj_fail(
        DJ_INVALID_ARGUMENT,
        "%s '%.40s' is not a duration; such as 500ms, 30s, 5m, 24h, 30d or 1h30m, up to 10 "
        "years, are allowed",
        argument, text == NULL ? "" : text);
}

static const struct unit *unit_at(const char *text) {
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strncmp(text, units[i].name, strlen(units[i].name)) == 0) {
            return &units[i]; /* ms comes before m */
        }
    }
    return NULL;
}

dj_status duration_parse(const char *argument, const char *text, int64_t *ret_ms) {
    if (text == NULL || text[0] == '\0') {
        return refuse(argument, text);
    }
    int64_t total = 0;
    for (const char *at = text; *at != '\0';) {
        int64_t number = 0;
        const char *digits = at;
        for (; *at >= '0' && *at <= '9'; at++) {
            number = number * 10 + (*at - '0');
            if (number > DURATION_MS_MAX) {
                return refuse(argument, text);
            }
        }
        const struct unit *unit = unit_at(at);
        if (at == digits || unit == NULL || number > DURATION_MS_MAX / unit->ms) {
            return refuse(argument, text);
        }
        at += strlen(unit->name);
        total += number * unit->ms;
        if (total > DURATION_MS_MAX) {
            return refuse(argument, text);
        }
    }
    if (total == 0) {
        return refuse(argument, text);
    }
    *ret_ms = total;
    return DJ_OK;
}

void duration_print(int64_t ms, char out[32]) {
    static const struct unit falling[] = {
        { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 }
    };
    size_t length = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof falling / sizeof *falling; i++) {
        int64_t count = ms / falling[i].ms;
        ms -= count * falling[i].ms;
        if (count > 0 && length < 32) {
            length += (size_t)snprintf(out + length, 32 - length, "%lld%s", (long long)count,
                                       falling[i].name);
        }
    }
    if (length == 0) {
        (void)snprintf(out, 32, "0ms");
    }
}
