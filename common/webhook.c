/* The cryptography is libcrypto's. Base64 too: it has the usual alphabet and padding, which are
 * changed here where a token is to be put into a URL. */
#include "common/webhook.h"

#include "common/auto.h"
#include "common/check.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#define SECRET_PREFIX "whsec_"
#define SECRET_BYTES_MAX 128
#define TOKEN_BYTES_MAX 96

void hmac_sha256(const void *key, size_t key_length, const void *data, size_t length,
                 uint8_t ret_mac[SHA256_BYTES]) {
    unsigned int mac_length = 0;
    check(HMAC(EVP_sha256(), key, (int)key_length, data, length, ret_mac, &mac_length) != NULL);
    assert(mac_length == SHA256_BYTES);
}

bool bytes_equal_constant_time(const void *left, const void *right, size_t length) {
    return CRYPTO_memcmp(left, right, length) == 0;
}

/* Reads padded base64 of the usual alphabet; -1: it is none, or too long. EVP_DecodeBlock takes
 * more than that (bits that nothing is made of, = for A, line ends), so what it has made has to
 * give the same text again. */
static int base64_read(const char *text, size_t text_length, uint8_t *bytes, size_t bytes_max) {
    char again[SECRET_BYTES_MAX / 3 * 4 + 4 + 1];
    if (text_length == 0 || text_length % 4 != 0 || text_length / 4 * 3 > bytes_max) {
        return -1;
    }
    assert(bytes_max <= SECRET_BYTES_MAX);
    int length = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)text_length);
    length -= text[text_length - 1] != '=' ? 0 : text[text_length - 2] != '=' ? 1 : 2;
    if (length <= 0 || EVP_EncodeBlock((unsigned char *)again, bytes, length) != (int)text_length) {
        return -1;
    }
    bool same = CRYPTO_memcmp(again, text, text_length) == 0;
    OPENSSL_cleanse(again, sizeof again);
    return same ? length : -1;
}

dj_status webhook_sign(const char *secret, const char *id, int64_t timestamp_s, const char *body,
                       size_t length, struct buf *signatures) {
    uint8_t key[SECRET_BYTES_MAX], mac[SHA256_BYTES];
    char text[64];
    size_t prefix = strlen(SECRET_PREFIX);
    int key_length = strncmp(secret, SECRET_PREFIX, prefix) != 0
                         ? -1
                         : base64_read(secret + prefix, strlen(secret + prefix), key, sizeof key);
    if (key_length <= 0) {
        return dj_fail(DJ_INVALID_ARGUMENT, "the secret is not whsec_ and base64");
    }
    AUTO(buf) struct buf signed_text;
    buf_init(&signed_text, length + 256);
    DJ_TRY(buf_addf(&signed_text, "%s.%lld.", id, (long long)timestamp_s));
    DJ_TRY(buf_add(&signed_text, body, length));
    hmac_sha256(key, (size_t)key_length, signed_text.data, signed_text.length, mac);
    OPENSSL_cleanse(key, sizeof key);
    (void)EVP_EncodeBlock((unsigned char *)text, mac, sizeof mac);
    return buf_addf(signatures, "%sv1,%s", signatures->length == 0 ? "" : " ", text);
}

dj_status base64url_add(struct buf *text, const void *bytes, size_t length) {
    char encoded[TOKEN_BYTES_MAX / 3 * 4 + 1];
    assert(length <= TOKEN_BYTES_MAX);
    int count = EVP_EncodeBlock((unsigned char *)encoded, bytes, (int)length);
    while (count > 0 && encoded[count - 1] == '=') {
        count--;
    }
    for (int i = 0; i < count; i++) {
        encoded[i] = encoded[i] == '+' ? '-' : encoded[i] == '/' ? '_' : encoded[i];
    }
    return buf_add(text, encoded, (size_t)count);
}

dj_status base64url_read(const char *text, size_t text_length, void *ret_bytes, size_t length) {
    char padded[TOKEN_BYTES_MAX / 3 * 4 + 4];
    uint8_t bytes[TOKEN_BYTES_MAX + 3];
    assert(length <= TOKEN_BYTES_MAX);
    if (text_length != (length * 4 + 2) / 3) {
        return dj_fail(DJ_INVALID_ARGUMENT, "a token of %zu characters is none of ours",
                       text_length);
    }
    for (size_t i = 0; i < text_length; i++) {
        char c = text[i];
        if (c == '+' || c == '/' || c == '=') {
            return dj_fail(DJ_INVALID_ARGUMENT, "the token has characters that none of ours has");
        }
        padded[i] = c == '-' ? '+' : c == '_' ? '/' : c;
    }
    size_t padded_length = text_length;
    while (padded_length % 4 != 0) {
        padded[padded_length++] = '=';
    }
    if (base64_read(padded, padded_length, bytes, sizeof bytes) != (int)length) {
        return dj_fail(DJ_INVALID_ARGUMENT, "the token has characters that none of ours has");
    }
    memcpy(ret_bytes, bytes, length);
    return DJ_OK;
}
