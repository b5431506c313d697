/* Signatures of Standard Webhooks: HMAC-SHA-256 over "<id>.<timestamp>.<body>". Any thread. */
#ifndef COMMON_WEBHOOK_H
#define COMMON_WEBHOOK_H

#include "common/buf.h"
#include "common/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32

/** Appends "v1,<base64>", with a space before it where the text has one already. `secret` is
 * "whsec_<base64>". DJ_INVALID_ARGUMENT: it is no such secret. */
MUST_CHECK dj_status webhook_sign(const char *secret, const char *id, int64_t timestamp_s,
                                  const char *body, size_t length, struct buf *signatures);

/** HMAC-SHA-256. */
void hmac_sha256(const void *key, size_t key_length, const void *data, size_t length,
                 uint8_t ret_mac[SHA256_BYTES]);

/** True if they are equal; takes as long in any case. */
bool bytes_equal_constant_time(const void *left, const void *right, size_t length);

/** Appends base64 in the URL's alphabet, without padding. */
MUST_CHECK dj_status base64url_add(struct buf *text, const void *bytes, size_t length);

/** Reads exactly `length` bytes of base64url. DJ_INVALID_ARGUMENT: it is no such text. */
MUST_CHECK dj_status base64url_read(const char *text, size_t text_length, void *ret_bytes,
                                    size_t length);

#endif
