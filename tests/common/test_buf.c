#include "tests/common/unit.h"

#include "common/auto.h"
#include "common/buf.h"
#include "tests/common/failing_malloc.h"

static void text_grows_and_stays_closed(void **state) {
    (void)state;
    AUTO(buf) struct buf buf;
    buf_init(&buf, 100000);
    for (int i = 0; i < 10000; i++) {
        assert_ok(buf_add(&buf, "abcdefg", (size_t)i % 8));
        assert_int_equal(strlen(buf.data), buf.length);
    }
    assert_int_equal(buf.length, 35000);
}

static void text_and_formats_are_added_at_the_end(void **state) {
    (void)state;
    AUTO(buf) struct buf buf;
    buf_init(&buf, 100);
    assert_ok(buf_add_text(&buf, "run "));
    assert_ok(buf_addf(&buf, "%d of %s", 3, "seven"));
    assert_string_equal(buf.data, "run 3 of seven");
}

static void numbers_are_added_in_network_order(void **state) {
    (void)state;
    AUTO(buf) struct buf buf;
    buf_init(&buf, 100);
    assert_ok(buf_add_be32(&buf, 0x01020304));
    assert_ok(buf_add_be64(&buf, 0x05060708090A0B0C));
    assert_int_equal(buf.length, 12);
    assert_memory_equal(buf.data, "\1\2\3\4\5\6\7\10\11\12\13\14", 12);
}

static void the_limit_can_be_reached_and_not_passed(void **state) {
    (void)state;
    AUTO(buf) struct buf buf;
    buf_init(&buf, 10);
    assert_ok(buf_add(&buf, "0123456789", 10));
    assert_fails(buf_add(&buf, "x", 1), DJ_TOO_LARGE, "the limit is 10 bytes");
    assert_fails(buf_addf(&buf, "%d", 1), DJ_TOO_LARGE, "the limit is 10 bytes");
    assert_fails(buf_add(&buf, "x", SIZE_MAX), DJ_TOO_LARGE, "the limit is 10 bytes");
    assert_string_equal(buf.data, "0123456789");
    assert_true(buf.capacity <= 11);
}

static void without_memory_it_is_as_it_was(void **state) {
    (void)state;
    AUTO(buf) struct buf buf;
    buf_init(&buf, 100000);
    assert_ok(buf_add_text(&buf, "kept"));
    char large[1000];
    memset(large, 'x', sizeof large);
    malloc_fails_at = 1;
    assert_fails(buf_add(&buf, large, sizeof large), DJ_NO_MEMORY, "no memory");
    assert_string_equal(buf.data, "kept");
    assert_ok(buf_add(&buf, large, sizeof large));
    assert_int_equal(buf.length, 1004);
}

static void a_reset_empties_it_and_keeps_its_memory(void **state) {
    (void)state;
    AUTO(buf) struct buf buf;
    buf_init(&buf, 100);
    buf_reset(&buf);
    assert_ok(buf_add_text(&buf, "old"));
    size_t capacity = buf.capacity;
    buf_reset(&buf);
    assert_string_equal(buf.data, "");
    assert_ok(buf_add_text(&buf, "new"));
    assert_string_equal(buf.data, "new");
    assert_int_equal(buf.capacity, capacity);
}

static void the_text_can_be_taken(void **state) {
    (void)state;
    AUTO(buf) struct buf buf;
    AUTO(free) char *text = NULL;
    AUTO(free) char *empty = NULL;
    buf_init(&buf, 100);
    assert_ok(buf_add_text(&buf, "mine"));
    text = buf_take(&buf);
    assert_string_equal(text, "mine");
    assert_int_equal(buf.length, 0);
    empty = buf_take(&buf);
    assert_string_equal(empty, "");
}

static void what_grows_may_be_empty(void **state) {
    (void)state;
    AUTO(buf) struct buf buf;
    buf_init(&buf, 0);
    assert_non_null(buf_grow(&buf, 0));
    assert_string_equal(buf.data, "");
    assert_null(buf_grow(&buf, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_grows_and_stays_closed),
        cmocka_unit_test(text_and_formats_are_added_at_the_end),
        cmocka_unit_test(numbers_are_added_in_network_order),
        cmocka_unit_test(the_limit_can_be_reached_and_not_passed),
        cmocka_unit_test(without_memory_it_is_as_it_was),
        cmocka_unit_test(a_reset_empties_it_and_keeps_its_memory),
        cmocka_unit_test(the_text_can_be_taken),
        cmocka_unit_test(what_grows_may_be_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
