/* What a program says to --version. */
#ifndef COMMON_VERSIONS_H
#define COMMON_VERSIONS_H

#include <stdio.h>

/** A line for the program, then one for each of our libraries that it runs with: what people ask
 * for when one of them has a weakness. */
void versions_print(const char *program, FILE *out);

#endif
