/* Durations: what is read is printed and read again, within its limit, as a slow sum over the text
 * says. */
#include "tests/fuzz/fuzz.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/duration.h"

/* The same by another way: every part into a sum that cannot overflow; -1: it is no duration. */
static long double sum_of(const char *text) {
    static const char units[] = "!smhd"; /* !: ms */
    static const double ms[] = { 1, 1e3, 6e4, 3.6e6, 8.64e7 };
    long double total = 0;
    do {
        size_t digits = strspn(text, "0123456789");
        long double part = 0;
        for (size_t i = 0; i < digits; i++) {
            part = part * 10 + (text[i] - '0');
        }
        text += digits;
        size_t letters = strcspn(text, "0123456789");
        bool millis = letters == 2 && memcmp(text, "ms", 2) == 0;
        char unit = (char)(millis ? '!' : letters == 1 && text[0] != '!' ? text[0] : '?');
        const char *found = strchr(units, unit);
        if (digits == 0 || found == NULL) {
            return -1;
        }
        total += part * ms[found - units];
        text += letters;
    } while (*text != '\0');
    return total;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO(free) char *text = text_of(data, size);
    int64_t ms = -7, again;
    dj_status status = duration_parse("timeout", text, &ms);
    long double sum = sum_of(text);
    promise(status == DJ_OK || (status == DJ_INVALID_ARGUMENT && ms == -7));
    promise((status == DJ_OK) == (sum > 0 && sum <= DURATION_MS_MAX));
    if (status != DJ_OK) {
        return 0;
    }
    char printed[32], twice[32];
    promise(ms == (int64_t)sum);
    duration_print(ms, printed);
    promise(duration_parse("timeout", printed, &again) == DJ_OK && again == ms);
    duration_print(again, twice);
    promise(strcmp(printed, twice) == 0);
    return 0;
}
