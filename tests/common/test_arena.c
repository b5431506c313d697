#include "tests/common/unit.h"

#include "common/arena.h"
#include "tests/common/failing_malloc.h"

static void what_is_allocated_is_aligned_and_apart(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena);
    unsigned char *blocks[500];
    for (size_t i = 0; i < 500; i++) {
        size_t bytes = i * 7 % 300;
        blocks[i] = arena_alloc(&arena, bytes);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % _Alignof(max_align_t), 0);
        memset(blocks[i], (int)(i % 251), bytes);
    }
    for (size_t i = 0; i < 500; i++) {
        for (size_t at = 0; at < i * 7 % 300; at++) {
            assert_int_equal(blocks[i][at], i % 251);
        }
    }
    arena_done(&arena);
}

static void nothing_is_something_as_well(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena);
    void *first = arena_alloc(&arena, 0);
    assert_non_null(first);
    assert_ptr_not_equal(first, arena_alloc(&arena, 0));
    arena_done(&arena);
}

static void a_block_larger_than_a_chunk_is_served(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena);
    size_t bytes = 3 * 1024 * 1024;
    memset(arena_alloc(&arena, bytes), 'x', bytes);
    assert_non_null(arena_alloc(&arena, 1));
    arena_done(&arena);
}

static void sizes_beyond_all_memory_are_refused(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena);
    for (size_t less = 0; less < 64; less++) {
        assert_null(arena_alloc(&arena, SIZE_MAX - less));
    }
    assert_non_null(arena_alloc(&arena, 16));
    arena_done(&arena);
}

static void texts_are_copied(void **state) {
    (void)state;
    struct arena arena;
    char text[] = "order-17";
    arena_init(&arena);
    char *whole = arena_strdup(&arena, text);
    char *part = arena_strndup(&arena, text, 5);
    text[0] = 'X';
    assert_string_equal(whole, "order-17");
    assert_string_equal(part, "order");
    arena_done(&arena);
}

static void without_memory_the_answer_is_null_and_what_was_there_stays(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena);
    char *kept = arena_strdup(&arena, "kept");
    malloc_fails_at = 1;
    assert_null(arena_alloc(&arena, 100000));
    assert_string_equal(kept, "kept");
    assert_non_null(arena_alloc(&arena, 100000));
    arena_done(&arena);
    malloc_fails_at = 1;
    assert_null(arena_strdup(&arena, "first"));
    malloc_fails_at = 0;
    arena_done(&arena);
}

static void an_arena_can_be_used_again_after_its_end(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena);
    assert_non_null(arena_alloc(&arena, 10));
    arena_done(&arena);
    assert_non_null(arena_alloc(&arena, 10));
    arena_done(&arena);
    arena_done(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_allocated_is_aligned_and_apart),
        cmocka_unit_test(nothing_is_something_as_well),
        cmocka_unit_test(a_block_larger_than_a_chunk_is_served),
        cmocka_unit_test(sizes_beyond_all_memory_are_refused),
        cmocka_unit_test(texts_are_copied),
        cmocka_unit_test(without_memory_the_answer_is_null_and_what_was_there_stays),
        cmocka_unit_test(an_arena_can_be_used_again_after_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
