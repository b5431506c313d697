/* Sixteen bytes of run, eight of fence, sixteen of worker, sixteen of a MAC over those; as
 * base64url. */
#include "common/commit_token.h"

#include "common/check.h"
#include "common/webhook.h"
#include <string.h>

#define NAME_BYTES 40
#define MAC_BYTES 16

static void mac_of(const struct commit_secret *secret, const uint8_t name[NAME_BYTES],
                   uint8_t ret_mac[SHA256_BYTES]) {
    assert(secret->length > 0);
    hmac_sha256(secret->bytes, secret->length, name, NAME_BYTES, ret_mac);
}

dj_status commit_token_print(const struct commit_secret *secret, const struct lease_name *lease,
                             struct buf *token) {
    uint8_t bytes[NAME_BYTES + MAC_BYTES], mac[SHA256_BYTES];
    memcpy(bytes, lease->run_id.bytes, 16);
    for (int i = 0; i < 8; i++) {
        bytes[16 + i] = (uint8_t)((uint64_t)lease->fence >> (56 - 8 * i));
    }
    memcpy(bytes + 24, lease->worker_id.bytes, 16);
    mac_of(secret, bytes, mac);
    memcpy(bytes + NAME_BYTES, mac, MAC_BYTES);
    return base64url_add(token, bytes, sizeof bytes);
}

dj_status commit_token_read(const struct commit_secret *secret, const char *token, size_t length,
                            struct lease_name *ret_lease) {
    uint8_t bytes[NAME_BYTES + MAC_BYTES], mac[SHA256_BYTES];
    DJ_TRY(base64url_read(token, length, bytes, sizeof bytes));
    mac_of(secret, bytes, mac);
    if (!bytes_equal_constant_time(bytes + NAME_BYTES, mac, MAC_BYTES)) {
        return dj_fail(DJ_INVALID_ARGUMENT, "the token is none of ours");
    }
    uint64_t fence = 0;
    for (int i = 0; i < 8; i++) {
        fence = fence << 8 | bytes[16 + i];
    }
    memcpy(ret_lease->run_id.bytes, bytes, 16);
    ret_lease->fence = (int64_t)fence;
    memcpy(ret_lease->worker_id.bytes, bytes + 24, 16);
    return DJ_OK;
}
