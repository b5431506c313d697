/* Random values of PostgreSQL's types, as texts. Of one seed they are the same everywhere. */
#ifndef TESTS_FUZZ_VALUES_H
#define TESTS_FUZZ_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void random_begin(uint64_t seed);
uint64_t random_below(uint64_t bound);
bool chance(int percent);

/** A run that is there, with its lease ("": none). A call's arguments speak of one of them, more
 * often than not. */
void values_forget(void);
void values_learn(const char *run_id, const char *worker_id, const char *fence);

/** Begins the arguments of a call: which lease they speak of, and how long its arrays are. The
 * values before go. */
void values_begin(void);

/** A value for an argument; NULL: null. Lent until the next values_begin. */
const char *value_of(const char *type, const char *name);

#endif
