/* The token of commit.url: stands for one lease of one run, and is signed with the installation's
 * secret, so that durable-server need not ask anybody whom it speaks for. Any thread. */
#ifndef COMMON_COMMIT_TOKEN_H
#define COMMON_COMMIT_TOKEN_H

#include "common/buf.h"
#include "common/status.h"
#include "common/uuid.h"
#include <stdint.h>

#define COMMIT_SECRET_BYTES_MAX 128

struct commit_secret {
    uint8_t bytes[COMMIT_SECRET_BYTES_MAX];
    size_t length; /* 0: not known yet */
};

struct lease_name {
    struct uuid run_id;
    int64_t fence;
    struct uuid worker_id;
};

MUST_CHECK dj_status commit_token_print(const struct commit_secret *secret,
                                        const struct lease_name *lease, struct buf *token);

/** DJ_INVALID_ARGUMENT: it is none of ours. */
MUST_CHECK dj_status commit_token_read(const struct commit_secret *secret, const char *token,
                                       size_t length, struct lease_name *ret_lease);

#endif
