/* Signatures: what was signed verifies, and nothing else does: no other byte of secret, id, body or
 * signature. The verifier is written here by the standard's text, with another function of
 * libcrypto. Tokens of commits in the same way. */
#include "tests/fuzz/fuzz.h"

#include "common/auto.h"
#include "common/commit_token.h"
#include "common/webhook.h"
#include <openssl/evp.h>

#define SECRET "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
#define KEY "0123456789abcdef0123456789abcdef"

static void verifier_mac(const char *signed_text, size_t length, uint8_t mac[SHA256_BYTES]) {
    size_t mac_length = 0;
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, (const uint8_t *)KEY, 32);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    promise(key != NULL && context != NULL);
    mac_length = SHA256_BYTES;
    promise(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1);
    promise(EVP_DigestSign(context, mac, &mac_length, (const uint8_t *)signed_text, length) == 1);
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
}

static void sign(const char *body, size_t length, int64_t now, struct buf *signatures) {
    buf_reset(signatures);
    promise(webhook_sign(SECRET, "msg_1", now, body, length, signatures) == DJ_OK);
}

static void check_signature(char *body, size_t length, int64_t now, size_t place, uint8_t change) {
    AUTO(buf) struct buf signatures, text;
    char first[64], expected[64];
    uint8_t mac[SHA256_BYTES];
    buf_init(&signatures, 256);
    buf_init(&text, length + 64);
    promise(buf_addf(&text, "msg_1.%lld.", (long long)now) == DJ_OK);
    promise(buf_add(&text, body, length) == DJ_OK);
    verifier_mac(text.data, text.length, mac);
    (void)snprintf(expected, sizeof expected, "v1,");
    (void)EVP_EncodeBlock((uint8_t *)expected + 3, mac, sizeof mac);
    sign(body, length, now, &signatures);
    promise(strcmp(signatures.data, expected) == 0);
    (void)snprintf(first, sizeof first, "%s", signatures.data);
    if (length > 0 && change != 0) {
        body[place % length] = (char)(body[place % length] ^ change);
        sign(body, length, now, &signatures);
        promise(strcmp(signatures.data, first) != 0);
    }
    sign(body, length, now + 1, &signatures);
    promise(strcmp(signatures.data, first) != 0);
}

static void check_secret(const char *text) {
    AUTO(buf) struct buf signatures;
    buf_init(&signatures, 256);
    if (webhook_sign(text, "msg_1", 1, "", 0, &signatures) == DJ_OK) {
        promise(strncmp(text, "whsec_", 6) == 0 && strlen(text) % 4 == 2);
        promise(signatures.length == 3 + 44);
    } else {
        promise(signatures.length == 0);
    }
}

static void check_token(const char *given, size_t size, size_t place, uint8_t change) {
    const struct commit_secret secret = { .bytes = KEY, .length = 32 };
    struct lease_name lease = { .fence = 0 }, again;
    AUTO(buf) struct buf token;
    buf_init(&token, 256);
    promise(commit_token_read(&secret, given, size, &again) != DJ_OK); /* it would be a forgery */
    size_t ids = size < 16 ? size : 16;
    memcpy(lease.run_id.bytes, given, ids);
    memcpy(lease.worker_id.bytes, given, ids);
    memcpy(&lease.fence, given, size < 8 ? size : 8);
    promise(commit_token_print(&secret, &lease, &token) == DJ_OK);
    promise(commit_token_read(&secret, token.data, token.length, &again) == DJ_OK);
    promise(uuid_equal(&lease.run_id, &again.run_id) && lease.fence == again.fence);
    promise(uuid_equal(&lease.worker_id, &again.worker_id));
    promise(commit_token_read(&secret, token.data, token.length - 1, &again) != DJ_OK);
    if (change != 0) {
        char *at = &token.data[place % token.length];
        *at = (char)(*at ^ change);
        promise(commit_token_read(&secret, token.data, token.length, &again) != DJ_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t change = take_byte(&data, &size);
    size_t place = (size_t)take_byte(&data, &size) << 8;
    place += take_byte(&data, &size);
    AUTO(free) char *text = text_of(data, size);
    check_secret(text);
    check_token(text, size, place, change);
    check_signature(text, size, (int64_t)place * 65537, place, change);
    return 0;
}
