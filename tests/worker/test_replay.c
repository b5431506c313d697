#include "support.h"

#include "common/arena.h"
#include "worker/replay.h"
#include <stdio.h>

static void a_repeated_name_gets_a_number(void **state) {
    struct replay replay = { .steps = NULL };
    struct arena arena;
    const char *name;
    (void)state;
    arena_init(&arena);
    assert_int_equal(replay_name(&replay, &arena, "a", &name), DJ_OK);
    assert_string_equal(name, "a");
    assert_int_equal(replay_name(&replay, &arena, "b", &name), DJ_OK);
    assert_string_equal(name, "b");
    for (int i = 2; i < 1000; i++) {
        char expected[16];
        (void)snprintf(expected, sizeof expected, "a#%d", i);
        assert_int_equal(replay_name(&replay, &arena, "a", &name), DJ_OK);
        assert_string_equal(name, expected);
    }
    replay_done(&replay);
    arena_done(&arena);
}

static void steps_are_found_in_their_places_and_gaps_are_new(void **state) {
    struct memory steps[] = { { .position = 1, .name = "a", .kind = "step" },
                              { .position = 3, .name = "c", .kind = "sleep" } };
    struct replay replay = { .steps = steps, .step_count = 2 };
    const struct memory *memory;
    (void)state;
    assert_int_equal(replay_next(&replay, "a", "step", &memory), REPLAY_REMEMBERED);
    assert_int_equal(replay_next(&replay, "b", "step", &memory), REPLAY_NEW);
    assert_int_equal(replay_next(&replay, "c", "sleep", &memory), REPLAY_REMEMBERED);
    assert_int_equal(replay_next(&replay, "d", "step", &memory), REPLAY_NEW);
    assert_int_equal(replay.position, 4);
}

static void another_name_or_kind_is_out_of_place(void **state) {
    struct memory steps[] = { { .position = 1, .name = "a", .kind = "step" } };
    struct replay by_name = { .steps = steps, .step_count = 1 };
    struct replay by_kind = { .steps = steps, .step_count = 1 };
    const struct memory *memory;
    (void)state;
    assert_int_equal(replay_next(&by_name, "b", "step", &memory), REPLAY_OUT_OF_PLACE);
    assert_int_equal(replay_next(&by_kind, "a", "sleep", &memory), REPLAY_OUT_OF_PLACE);
    assert_string_equal(memory->name, "a");
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_repeated_name_gets_a_number),
                                        cmocka_unit_test(
                                            steps_are_found_in_their_places_and_gaps_are_new),
                                        cmocka_unit_test(another_name_or_kind_is_out_of_place) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
