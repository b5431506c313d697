/* All orders of all groups, in two processes with a database each, which take the groups by turns.
 *
 * INTERLEAVINGS=scene, scene/op or scene/op/op plays only what begins so, and shows each order and
 * how it ended. INTERLEAVINGS_FIGURES=1 says how many orders each group has;
 * INTERLEAVINGS_NOT_SERIAL=1, which ways to end no serial order has.
 *
 * Seen to fail: tests/mutations has what each scene is for. */
#include "interleavings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PARTS 2
#define POINTS_MAX 64

static const char *program;
static int part = -1; /* of a child; -1: the parent, or all of it */
static bool reached[POINTS_MAX];
static struct totals totals;
static struct {
    char name[48];
    bool reached;
} points[POINTS_MAX]; /* the parent's */
static int points_known;
static bool met[KINDS][KINDS]; /* the lesser index first */

static bool is_wanted(const struct scene *scene, const struct op *const *ops, int count) {
    static int number;
    const char *wanted = getenv("INTERLEAVINGS");
    if (wanted == NULL) {
        return number++ % PARTS == part;
    }
    char name[256];
    size_t length = (size_t)snprintf(name, sizeof name, "%s", scene->name);
    for (int i = 0; i < count; i++) {
        length += (size_t)snprintf(name + length, sizeof name - length, "/%s", ops[i]->name);
    }
    return strncmp(name, wanted, strlen(wanted)) == 0;
}

static double seconds_now(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool is_one(const struct op *op, const struct kind *kind) {
    for (int i = 0; i < OPS_MAX && kind->ops[i] != NULL; i++) {
        if (kind->ops[i] == op) {
            return true;
        }
    }
    return false;
}

static void take_pair(int a, int b) {
    met[a < b ? a : b][a < b ? b : a] = true;
}

/* Notes which kinds a group has brought together. */
static void take_pairs(const struct op *const *ops, int count) {
    for (int i = 0; i < count; i++) {
        for (int k = i + 1; k < count; k++) {
            for (int a = 0; a < KINDS; a++) {
                for (int b = 0; b < KINDS; b++) {
                    if (is_one(ops[i], &kinds[a]) && is_one(ops[k], &kinds[b])) {
                        take_pair(a, b);
                    }
                }
            }
        }
    }
}

/* Makes the scene if it is not there, and plays a group in it. */
static void meet(const struct scene *scene, const struct op *const *ops, int count) {
    static const struct scene *made;
    if (!is_wanted(scene, ops, count)) {
        return;
    }
    if (made != scene) {
        sql(sessions_control(), "%s", scene->setup);
        sql(sessions_control(), "select interleave.save()");
        made = scene;
    }
    int before = totals.schedules;
    double began = seconds_now();
    explore(scene, ops, count, getenv("INTERLEAVINGS") != NULL, &totals);
    take_pairs(ops, count);
    if (getenv("INTERLEAVINGS_FIGURES") != NULL) {
        (void)printf("%6.2f s %5d orders  %s", seconds_now() - began, totals.schedules - before,
                     scene->name);
        for (int i = 0; i < count; i++) {
            (void)printf("/%s", ops[i]->name);
        }
        (void)printf("\n");
    }
}

static int ops_in(const struct op *const *ops) {
    int count = 0;
    while (count < OPS_MAX && ops[count] != NULL) {
        count++;
    }
    return count;
}

static void play(const struct scene *scene) {
    int count = ops_in(scene->ops), others = ops_in(scene->against);
    if (scene->together) {
        meet(scene, scene->ops, count);
        return;
    }
    for (int i = 0; i < count; i++) {
        const struct op *const *against = others > 0 ? scene->against : scene->ops + i;
        for (int k = 0; k < (others > 0 ? others : count - i); k++) {
            meet(scene, (const struct op *[]){ scene->ops[i], against[k] }, 2);
        }
        if (scene->repeated) {
            meet(scene, (const struct op *[]){ scene->ops[i], scene->ops[i] }, 2);
        }
    }
}

/* A child's words: its figures, for the parent. */
static void play_part(void **state) {
    (void)state;
    const char *url = database_new();
    PGconn *conn = connect_to(url);
    points_load(conn);
    PQfinish(conn);
    sessions_open(url, reached);
    for (size_t i = 0; i < scenes_count; i++) {
        play(&scenes[i]);
    }
    (void)printf("total %d %d %d %d %d\n", totals.groups, totals.schedules, totals.blocked,
                 totals.violations, totals.diverged);
    for (int i = 0; i < points_count(); i++) {
        (void)printf("point %s %d\n", point_name(i), reached[i]);
    }
    for (int a = 0; a < KINDS; a++) {
        for (int b = a; b < KINDS; b++) {
            if (met[a][b]) {
                (void)printf("met %d %d\n", a, b);
            }
        }
    }
}

static void take_point(const char *name, int is_reached) {
    int i = 0;
    while (i < points_known && strcmp(points[i].name, name) != 0) {
        i++;
    }
    assert_true(i < POINTS_MAX);
    points_known += i == points_known;
    (void)snprintf(points[i].name, sizeof points[i].name, "%s", name);
    points[i].reached |= is_reached != 0;
}

/* What a child says: its figures are added up, what it found is passed on, the rest is cmocka's. */
static void take_line(const char *line) {
    struct totals more = { 0 };
    char name[48];
    int is_reached = 0, a = 0, b = 0;
    if (sscanf(line, "total %d %d %d %d %d", &more.groups, &more.schedules, &more.blocked,
               &more.violations, &more.diverged) == 5) {
        totals.groups += more.groups;
        totals.schedules += more.schedules;
        totals.blocked += more.blocked;
        totals.violations += more.violations;
        totals.diverged += more.diverged;
    } else if (sscanf(line, "point %47s %d", name, &is_reached) == 2) {
        take_point(name, is_reached);
    } else if (sscanf(line, "met %d %d", &a, &b) == 2) {
        assert_true(a >= 0 && a < KINDS && b >= 0 && b < KINDS);
        take_pair(a, b);
    } else if (line[0] != '[' && line[0] != '\n') {
        (void)fputs(line, stdout);
    }
}

static void every_order_keeps_the_promises(void **state) {
    FILE *children[PARTS];
    char line[4096];
    (void)state;
    for (int i = 0; i < PARTS; i++) {
        (void)snprintf(line, sizeof line, "%s %d 2>&1", program, i);
        children[i] = popen(line, "r");
        assert_non_null(children[i]);
    }
    int failed = 0;
    for (int i = 0; i < PARTS; i++) {
        while (fgets(line, sizeof line, children[i]) != NULL) {
            take_line(line);
        }
        failed += pclose(children[i]) != 0;
    }
    (void)printf(
        "%d groups, %d orders, %d with somebody blocked, %d that could not be repeated, %d "
        "violations\n",
        totals.groups, totals.schedules, totals.blocked, totals.diverged, totals.violations);
    assert_int_equal(failed, 0);
    assert_int_equal(totals.violations, 0);
    assert_true(totals.schedules > 1000);
}

static void every_point_is_reached(void **state) {
    int missed = 0;
    (void)state;
    for (int i = 0; i < points_known; i++) {
        if (!points[i].reached) {
            (void)printf("the point %s was never reached\n", points[i].name);
            missed++;
        }
    }
    (void)printf("%d points\n", points_known);
    assert_int_equal(missed, 0);
    assert_true(points_known > 20);
}

static void every_two_operations_meet(void **state) {
    int missed = 0;
    (void)state;
    for (int a = 0; a < KINDS; a++) {
        for (int b = a; b < KINDS; b++) {
            if (!met[a][b]) {
                (void)printf("%s and %s never met\n", kinds[a].name, kinds[b].name);
                missed++;
            }
        }
    }
    (void)printf("%d pairs of operations met\n", KINDS * (KINDS + 1) / 2 - missed);
    assert_int_equal(missed, 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest whole[] = {
        cmocka_unit_test(every_order_keeps_the_promises),
        cmocka_unit_test(every_point_is_reached),
        cmocka_unit_test(every_two_operations_meet),
    };
    const struct CMUnitTest some[] = { cmocka_unit_test(play_part) };
    program = argv[0];
    if (argc > 1 || getenv("INTERLEAVINGS") != NULL) {
        part = argc > 1 ? (int)strtol(argv[1], NULL, 10) : -1;
        int failed = cmocka_run_group_tests(some, NULL, NULL);
        return failed > 0 || (argc == 1 && totals.violations > 0);
    }
    return cmocka_run_group_tests(whole, NULL, NULL);
}
