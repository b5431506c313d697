/* Settings: words of a command line, split at line ends. What is accepted is in its bounds; no word
 * is lost. */
#include "tests/fuzz/fuzz.h"

#include "common/auto.h"
#include "common/bounds.h"
#include "common/config.h"
#include "common/text.h"

#define WORDS_MAX 48

struct given {
    const char *text;
    struct config_texts texts;
    int number;
    int64_t duration_ms;
    bool on;
};

static int split(char *text, char *words[WORDS_MAX + 2]) {
    int count = 0;
    words[count++] = (char *)"program";
    for (char *at = text; at != NULL && *at != '\0' && count <= WORDS_MAX;) {
        char *end = strchr(at, '\n');
        if (end != NULL) {
            *end++ = '\0';
        }
        /* these print, and end the program */
        bool ends = strncmp(at, "--help", 6) == 0 || strncmp(at, "--version", 9) == 0 ||
                    strcmp(at, "-h") == 0;
        if (!ends) {
            words[count++] = at;
        }
        at = end;
    }
    words[count] = NULL;
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO(free) char *text = text_of(data, size);
    char *words[WORDS_MAX + 2];
    struct given given = { .text = "default", .number = 5, .duration_ms = 1000 };
    const struct config_option options[] = {
        { .flag = "text", .kind = CONFIG_TEXT, .target = &given.text, .help = "a text" },
        { .flag = "texts", .kind = CONFIG_TEXTS, .target = &given.texts, .help = "texts" },
        { .flag = "number",
          .kind = CONFIG_INT,
          .target = &given.number,
          .min = -3,
          .max = 99,
          .help = "a number" },
        { .flag = "duration",
          .kind = CONFIG_DURATION,
          .target = &given.duration_ms,
          .help = "a duration" },
        { .flag = "on", .kind = CONFIG_SWITCH, .target = &given.on, .help = "a switch" },
        { .flag = NULL },
    };
    const struct config_command command = { .program = "program",
                                            .summary = "does nothing",
                                            .options = options,
                                            .arguments_min = 0,
                                            .arguments_max = -1 };
    int count = split(text, words), first = 0, kept = 0;
    char *before[WORDS_MAX + 2];
    memcpy(before, words, sizeof before);
    dj_status status = config_parse(&command, count, words, &first);
    promise(status == DJ_OK || status == DJ_INVALID_ARGUMENT);
    promise(given.number >= -3 && given.number <= 99);
    promise(given.duration_ms > 0 && given.duration_ms <= DURATION_MS_MAX);
    promise(given.texts.count >= 0 && given.texts.count <= CONFIG_TEXTS_MAX);
    if (status != DJ_OK) {
        promise(text_is_utf8(dj_error_message(), strlen(dj_error_message())));
        return 0;
    }
    promise(first == 1);
    for (int i = first, at = 1; words[i] != NULL; i++, kept++) { /* in their order, none made up */
        while (at < count && before[at] != words[i]) {
            at++;
        }
        promise(at < count);
    }
    promise(kept < count);
    return 0;
}
