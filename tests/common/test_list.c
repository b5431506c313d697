#include "support.h"

#include "common/list.h"

struct item {
    struct list link;
    int number;
};

static void items_keep_their_order_through_splices(void **state) {
    struct list a, b;
    struct item items[4] = { { .number = 0 }, { .number = 1 }, { .number = 2 }, { .number = 3 } };
    int expected = 0;
    (void)state;
    list_init(&a);
    list_init(&b);
    list_push(&a, &items[1].link);
    list_push_front(&a, &items[0].link);
    list_push(&b, &items[2].link);
    list_push(&b, &items[3].link);
    list_splice(&b, &a);
    assert_true(list_is_empty(&b));
    list_splice(&b, &a); /* an empty one changes nothing */
    list_for_each(item, &a, struct item, link) {
        assert_int_equal(item->number, expected++);
        list_remove(&item->link);
    }
    assert_int_equal(expected, 4);
    assert_true(list_is_empty(&a));
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(items_keep_their_order_through_splices) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
