/* For each there is one number: until when what he did has used up his share. Doing it once moves
 * that by a step, period / count; he may go ahead of the clock by a period, so that `count` at once
 * are allowed and then one a step. Who is not ahead of the clock need not be remembered, so the
 * table can be small: of a full row the one that is least ahead gives way. On the loop. */
#include "server/api/rate.h"

#include "common/check.h"
#include "common/clock.h"
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdlib.h>

#define ROWS 1024 /* a power of two */
#define PLACES_A_ROW 8

struct place {
    uint64_t who; /* 0: nobody */
    int64_t until_us;
};

struct rate {
    int64_t step_us, period_us;
    uint64_t salt; /* nobody can choose his row */
    struct place places[ROWS][PLACES_A_ROW];
};

static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93U;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93U;
    return x ^ (x >> 32);
}

struct rate *rate_new(int count, int64_t period_ms) {
    if (count == 0) {
        return NULL;
    }
    struct rate *rate = calloc(1, sizeof *rate);
    check(rate != NULL);
    rate->period_us = period_ms * 1000;
    rate->step_us = rate->period_us / count;
    check(RAND_bytes((unsigned char *)&rate->salt, sizeof rate->salt) == 1);
    return rate;
}

static struct place *place_of(struct rate *rate, uint64_t who, bool *ret_found) {
    struct place *row = rate->places[mix(who ^ rate->salt) % ROWS], *least = row;
    for (int i = 0; i < PLACES_A_ROW; i++) {
        if (row[i].who == who) {
            *ret_found = true;
            return &row[i];
        }
        least = row[i].until_us < least->until_us ? &row[i] : least;
    }
    *ret_found = false;
    return least;
}

int64_t rate_wait_ms(struct rate *rate, uint64_t who) {
    bool found;
    if (rate == NULL || who == 0) {
        return 0;
    }
    const struct place *place = place_of(rate, who, &found);
    int64_t early_us = found ? place->until_us + rate->step_us - rate->period_us - clock_us() : 0;
    return early_us <= 0 ? 0 : early_us / 1000 + 1;
}

void rate_spend(struct rate *rate, uint64_t who) {
    bool found;
    if (rate == NULL || who == 0) {
        return;
    }
    struct place *place = place_of(rate, who, &found);
    int64_t now = clock_us(), from = found && place->until_us > now ? place->until_us : now;
    *place = (struct place){ .who = who, .until_us = from + rate->step_us };
}

uint64_t rate_who(const void *bytes, size_t length) {
    uint64_t hash = 14695981039346656037U;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211U;
    }
    return hash == 0 ? 1 : hash;
}
