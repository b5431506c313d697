/* Times: printed and read again; and the same instant as strptime and timegm make of the text. */
#include "tests/fuzz/fuzz.h"

#include "common/auto.h"
#include "common/rfc3339.h"
#include <time.h>

#define YEAR_1_S (-62135596800LL)
#define YEAR_10000_S 253402300800LL

/* Seconds as libc reads them; false: it refuses. The zone is read by hand: libc's %z knows more
 * forms. */
static bool libc_reads(const char *text, int64_t *ret_s) {
    struct tm tm = { .tm_year = 0 };
    char copy[20];
    (void)snprintf(copy, sizeof copy, "%.19s", text);
    copy[10] = 'T';
    const char *end = strptime(copy, "%Y-%m-%dT%H:%M:%S", &tm);
    if (end == NULL || *end != '\0') {
        return false;
    }
    struct tm asked = tm;
    int64_t seconds = timegm(&tm);
    bool leap = asked.tm_sec == 60; /* it becomes the next minute's first, here and there */
    if (!leap && (asked.tm_mday != tm.tm_mday || asked.tm_mon != tm.tm_mon)) {
        return false; /* a 31st of February */
    }
    const char *zone = text + 19;
    zone += *zone == '.' ? 1 + strspn(zone + 1, "0123456789") : 0;
    int hours = 0, minutes = 0;
    if (*zone == '+' || *zone == '-') {
        (void)sscanf(zone + 1, "%2d:%2d", &hours, &minutes);
    }
    *ret_s = seconds - (*zone == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO(free) char *text = text_of(data, size);
    int64_t us = -7, again, seconds;
    dj_status status = rfc3339_parse("scheduledAt", text, &us);
    promise(status == DJ_OK || (status == DJ_INVALID_ARGUMENT && us == -7));
    if (status != DJ_OK) {
        return 0;
    }
    promise(us >= YEAR_1_S * 1000000 && us < YEAR_10000_S * 1000000);
    promise(libc_reads(text, &seconds));
    int64_t fraction = us - seconds * 1000000;
    promise(fraction >= 0 && fraction < 1000000);
    char printed[32], rough[32];
    rfc3339_print_us(us, printed);
    promise(rfc3339_parse("scheduledAt", printed, &again) == DJ_OK && again == us);
    rfc3339_print(us, rough);
    promise(rfc3339_parse("scheduledAt", rough, &again) == DJ_OK);
    promise(us - again >= 0 && us - again < 1000);
    return 0;
}
