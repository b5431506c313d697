#include "common/commit_token.h"
#include "common/webhook.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

/* The example of the specification, standard-webhooks.com. */
static void the_published_example_is_signed_so(void **state) {
    struct buf signatures;
    const char *body = "{\"test\": 2432232314}";
    (void)state;
    buf_init(&signatures, 1000);
    assert_int_equal(webhook_sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                                  "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, strlen(body),
                                  &signatures),
                     DJ_OK);
    assert_string_equal(signatures.data, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    assert_int_equal(webhook_sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                                  "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, strlen(body),
                                  &signatures),
                     DJ_OK);
    assert_string_equal(signatures.data, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= "
                                         "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    buf_done(&signatures);
}

static void what_is_no_secret_is_refused(void **state) {
    static const char *const secrets[] = {
        "",           "whsec_",     "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_abc",  "whsec_a*==", "whsec_====",
        "whsec_AB==", "whsec_ AAA", "whsec_AAA\n"
    };
    struct buf signatures;
    (void)state;
    buf_init(&signatures, 1000);
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        assert_int_equal(webhook_sign(secrets[i], "msg", 1, "", 0, &signatures),
                         DJ_INVALID_ARGUMENT);
    }
    assert_int_equal(signatures.length, 0);
    buf_done(&signatures);
}

static void a_token_is_read_back_and_each_changed_character_is_refused(void **state) {
    struct commit_secret secret = { .bytes = "a secret of this installation", .length = 29 };
    struct commit_secret other = { .bytes = "the secret of another one", .length = 25 };
    struct lease_name lease = { .run_id.bytes = { 1, 2, 3, 255 },
                                .fence = 0x0123456789abcdef,
                                .worker_id.bytes = { 9 } },
                      found;
    struct buf token;
    (void)state;
    buf_init(&token, 1000);
    assert_int_equal(commit_token_print(&secret, &lease, &token), DJ_OK);
    assert_int_equal(token.length, 75);
    assert_int_equal(commit_token_read(&secret, token.data, token.length, &found), DJ_OK);
    assert_true(uuid_equal(&found.run_id, &lease.run_id) &&
                uuid_equal(&found.worker_id, &lease.worker_id));
    assert_true(found.fence == lease.fence);
    assert_int_equal(commit_token_read(&other, token.data, token.length, &found),
                     DJ_INVALID_ARGUMENT);
    for (size_t i = 0; i < token.length;
         i++) { /* the last one too, two bits of which say nothing */
        char was = token.data[i];
        for (int c = 0; c < 256; c++) {
            token.data[i] = (char)c;
            assert_int_equal(commit_token_read(&secret, token.data, token.length, &found),
                             (char)c == was ? DJ_OK : DJ_INVALID_ARGUMENT);
        }
        token.data[i] = was;
    }
    for (size_t length = 0; length < token.length; length++) {
        assert_int_equal(commit_token_read(&secret, token.data, length, &found),
                         DJ_INVALID_ARGUMENT);
    }
    assert_int_equal(commit_token_read(&secret, "====", 4, &found), DJ_INVALID_ARGUMENT);
    buf_done(&token);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_example_is_signed_so),
        cmocka_unit_test(what_is_no_secret_is_refused),
        cmocka_unit_test(a_token_is_read_back_and_each_changed_character_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
