#include "tests/common/unit.h"

#include "common/list.h"

struct item {
    int number;
    struct list link;
};

/* The items' numbers, as digits. */
static const char *numbers(struct list *list, char out[16]) {
    size_t length = 0;
    list_for_each(item, list, struct item, link) {
        out[length++] = (char)('0' + item->number);
    }
    out[length] = '\0';
    return out;
}

static void items_come_in_the_order_in_which_they_were_pushed(void **state) {
    (void)state;
    struct list list;
    struct item items[3] = { { .number = 1 }, { .number = 2 }, { .number = 3 } };
    char text[16];
    list_init(&list);
    assert_true(list_is_empty(&list));
    list_push(&list, &items[1].link);
    list_push(&list, &items[2].link);
    list_push_front(&list, &items[0].link);
    assert_false(list_is_empty(&list));
    assert_int_equal(list_first(&list, struct item, link)->number, 1);
    assert_string_equal(numbers(&list, text), "123");
}

static void an_item_can_be_removed_twice_and_while_it_is_visited(void **state) {
    (void)state;
    struct list list;
    struct item items[4] = { { .number = 1 }, { .number = 2 }, { .number = 3 }, { .number = 4 } };
    char text[16];
    list_init(&list);
    for (int i = 0; i < 4; i++) {
        list_push(&list, &items[i].link);
    }
    list_for_each(item, &list, struct item, link) {
        if (item->number % 2 == 0) {
            list_remove(&item->link);
            list_remove(&item->link);
        }
    }
    assert_string_equal(numbers(&list, text), "13");
}

static void a_list_is_moved_to_the_end_of_another(void **state) {
    (void)state;
    struct list from, to;
    struct item items[3] = { { .number = 1 }, { .number = 2 }, { .number = 3 } };
    char text[16];
    list_init(&from);
    list_init(&to);
    list_splice(&from, &to);
    assert_true(list_is_empty(&to));
    list_push(&to, &items[0].link);
    list_push(&from, &items[1].link);
    list_push(&from, &items[2].link);
    list_splice(&from, &to);
    assert_true(list_is_empty(&from));
    assert_string_equal(numbers(&to, text), "123");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_in_the_order_in_which_they_were_pushed),
        cmocka_unit_test(an_item_can_be_removed_twice_and_while_it_is_visited),
        cmocka_unit_test(a_list_is_moved_to_the_end_of_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
