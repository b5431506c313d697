/* What shim.c reads, and shim_new() in support.h writes. */
#ifndef TESTS_SHIM_H
#define TESTS_SHIM_H

struct shim {
    long wall_s;   /* added to the wall clock */
    long boot_s;   /* added to CLOCK_BOOTTIME */
    long fsync_ms; /* how long the disk takes */
    long cut;      /* not 0: no connection can be made */
    long full;     /* not 0: no file can grow */
};

#endif
