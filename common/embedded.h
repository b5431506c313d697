/* A file that scripts/embed has built into a program. */
#ifndef COMMON_EMBEDDED_H
#define COMMON_EMBEDDED_H

struct embedded_file {
    const char *name;
    const char *text;
};

#endif
