/* A doubly linked list whose links lie in its items. A struct list is both head and link. */
#ifndef COMMON_LIST_H
#define COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

#define list_item(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))
#define list_first(list, type, member) list_item((list)->next, type, member)

/** Visits each item; the item may be removed meanwhile, its neighbours may not. */
#define list_for_each(item, list, type, member)                                                    \
    for (type *item = list_item((list)->next, type, member),                                       \
              *item##_next = list_item(item->member.next, type, member);                           \
         &item->member != (list);                                                                  \
         item = item##_next, item##_next = list_item(item->member.next, type, member))

static inline void list_init(struct list *list) {
    list->next = list->prev = list;
}

static inline bool list_is_empty(const struct list *list) {
    return list->next == list;
}

static inline void list_insert(struct list *link, struct list *prev, struct list *next) {
    link->prev = prev;
    link->next = next;
    prev->next = link;
    next->prev = link;
}

static inline void list_push(struct list *list, struct list *link) {
    list_insert(link, list->prev, list);
}

static inline void list_push_front(struct list *list, struct list *link) {
    list_insert(link, list, list->next);
}

static inline void list_remove(struct list *link) {
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/** Moves all of `from` to the end of `to`. */
static inline void list_splice(struct list *from, struct list *to) {
    if (list_is_empty(from)) {
        return;
    }
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#endif
