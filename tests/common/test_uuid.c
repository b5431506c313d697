#include "tests/common/unit.h"

#include "common/uuid.h"

#define TEXT "01890a5d-ac96-774b-bcce-b302099a8057"

static void a_uuid_is_read_and_printed_in_lower_case(void **state) {
    (void)state;
    static const uint8_t bytes[16] = { 0x01, 0x89, 0x0a, 0x5d, 0xac, 0x96, 0x77, 0x4b,
                                       0xbc, 0xce, 0xb3, 0x02, 0x09, 0x9a, 0x80, 0x57 };
    struct uuid uuid;
    char text[UUID_TEXT_BYTES];
    assert_ok(uuid_parse("run_id", "01890A5D-ac96-774B-bcce-B302099a8057", &uuid));
    assert_memory_equal(uuid.bytes, bytes, sizeof bytes);
    uuid_print(&uuid, text);
    assert_string_equal(text, TEXT);
}

static void what_is_none_is_refused_and_leaves_the_result_alone(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "",
        "x",
        "01890a5d-ac96-774b-bcce-b302099a805",
        "01890a5d-ac96-774b-bcce-b302099a80570",
        "{01890a5d-ac96-774b-bcce-b302099a8057}",
        "01890a5dac96774bbcceb302099a8057",
        "01890a5d-ac96-774b-bcce_b302099a8057",
        "01890a5d",
        "g1890a5d-ac96-774b-bcce-b302099a8057",
        "01890a5d-ac96-774b-bcce-b302099a805g",
    };
    struct uuid uuid = { .bytes = { 7 } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_fails(uuid_parse("run_id", wrong[i], &uuid), DJ_INVALID_ARGUMENT, "run_id '");
    }
    assert_fails(uuid_parse("run_id", NULL, &uuid), DJ_INVALID_ARGUMENT, "is not a UUID");
    assert_int_equal(uuid.bytes[0], 7);
}

static void uuids_compare_byte_by_byte(void **state) {
    (void)state;
    struct uuid a, b;
    assert_ok(uuid_parse("a", TEXT, &a));
    assert_ok(uuid_parse("b", "81890a5d-ac96-774b-bcce-b302099a8057", &b));
    assert_true(uuid_equal(&a, &a));
    assert_false(uuid_equal(&a, &b));
    assert_true(uuid_compare(&a, &b) < 0);
    assert_true(uuid_compare(&b, &a) > 0);
    assert_int_equal(uuid_compare(&a, &a), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_uuid_is_read_and_printed_in_lower_case),
        cmocka_unit_test(what_is_none_is_refused_and_leaves_the_result_alone),
        cmocka_unit_test(uuids_compare_byte_by_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
