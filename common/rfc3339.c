/* RFC 3339 with the whole calendar checked. A second 60 is the next minute's first, as in
 * PostgreSQL. Any thread. */
#include "common/rfc3339.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SECONDS_MIN (-62135596800LL) /* 0001-01-01T00:00:00Z */
#define SECONDS_MAX 253402300799LL   /* 9999-12-31T23:59:59Z */

static dj_status refuse(const char *argument, const char *text) {
    return dj_fail(
        DJ_INVALID_ARGUMENT,
        "%s '%.40s' is not a time; RFC 3339 with a zone, such as 2026-05-06T09:00:00Z, is "
        "allowed",
        argument, text == NULL ? "" : text);
}

/* Reads exactly `digits` digits; -1: they are not there. */
static int number_at(const char **at, int digits) {
    int number = 0;
    for (int i = 0; i < digits; i++, (*at)++) {
        if (**at < '0' || **at > '9') {
            return -1;
        }
        number = number * 10 + (**at - '0');
    }
    return number;
}

static bool skip(const char **at, const char *any_of) {
    if (**at == '\0' || strchr(any_of, **at) == NULL) {
        return false;
    }
    (*at)++;
    return true;
}

static int days_in(int year, int month) {
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 ? leap : 0);
}

/* The part behind the seconds: a fraction (microseconds) and the zone (minutes east). */
static bool parse_tail(const char **at, int64_t *ret_us, int *ret_east) {
    *ret_us = 0;
    if (skip(at, ".")) {
        int64_t unit = 100000;
        const char *digits = *at;
        for (; **at >= '0' && **at <= '9'; (*at)++, unit /= 10) {
            *ret_us += (**at - '0') * unit;
        }
        if (*at == digits) {
            return false;
        }
    }
    *ret_east = 0;
    if (skip(at, "Zz")) {
        return **at == '\0';
    }
    int sign = **at == '-' ? -1 : 1;
    if (!skip(at, "+-")) {
        return false;
    }
    int hours = number_at(at, 2);
    if (hours < 0 || hours > 15 || !skip(at, ":")) { /* PostgreSQL knows no zone beyond */
        return false;
    }
    int minutes = number_at(at, 2);
    *ret_east = sign * (hours * 60 + minutes);
    return minutes >= 0 && minutes <= 59 && **at == '\0';
}

dj_status rfc3339_parse(const char *argument, const char *text, int64_t *ret_us) {
    if (text == NULL) {
        return refuse(argument, text);
    }
    const char *at = text;
    struct tm tm = { .tm_isdst = 0 };
    int year = number_at(&at, 4);
    bool sane = year >= 1 && skip(&at, "-");
    int month = sane ? number_at(&at, 2) : -1;
    sane = sane && month >= 1 && month <= 12 && skip(&at, "-");
    tm.tm_mday = sane ? number_at(&at, 2) : -1;
    sane = sane && tm.tm_mday >= 1 && tm.tm_mday <= days_in(year, month) && skip(&at, "Tt ");
    tm.tm_hour = sane ? number_at(&at, 2) : -1;
    sane = sane && tm.tm_hour >= 0 && tm.tm_hour <= 23 && skip(&at, ":");
    tm.tm_min = sane ? number_at(&at, 2) : -1;
    sane = sane && tm.tm_min >= 0 && tm.tm_min <= 59 && skip(&at, ":");
    tm.tm_sec = sane ? number_at(&at, 2) : -1;
    int64_t us;
    int east;
    sane = sane && tm.tm_sec >= 0 && tm.tm_sec <= 60 && parse_tail(&at, &us, &east);
    if (!sane) {
        return refuse(argument, text);
    }
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    int64_t seconds = (int64_t)timegm(&tm) - (int64_t)east * 60;
    if (seconds < SECONDS_MIN || seconds > SECONDS_MAX) {
        return refuse(argument, text); /* the zone has led out of the calendar */
    }
    *ret_us = seconds * 1000000 + us;
    return DJ_OK;
}

/* All but the fraction, which it answers, in microseconds. */
static int print_seconds(int64_t us, char out[32]) {
    int64_t fraction = us % 1000000;
    time_t seconds = (time_t)(us / 1000000);
    if (fraction < 0) {
        fraction += 1000000;
        seconds--;
    }
    struct tm tm;
    (void)gmtime_r(&seconds, &tm);
    int year = snprintf(out, 32, "%04d", tm.tm_year + 1900); /* %Y has no leading zeros */
    (void)strftime(out + year, 32 - (size_t)year, "-%m-%dT%H:%M:%S", &tm);
    return (int)fraction;
}

void rfc3339_print(int64_t us, char out[32]) {
    int fraction = print_seconds(us, out);
    (void)snprintf(out + strlen(out), 32 - strlen(out), ".%03dZ", fraction / 1000);
}

void rfc3339_print_us(int64_t us, char out[32]) {
    int fraction = print_seconds(us, out);
    (void)snprintf(out + strlen(out), 32 - strlen(out), ".%06dZ", fraction);
}
