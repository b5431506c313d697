/* Delivers one mail by SMTP, with libcurl. Nothing here knows of Durable Jobs. */
#ifndef EXAMPLES_SMTP_H
#define EXAMPLES_SMTP_H

#define SMTP_REASON_BYTES 256 /* CURL_ERROR_SIZE */

struct smtp_mail {
    const char *from; /* addresses, without a name and without <> */
    const char *to;
    const char *message_id; /* without <> */
    const char *subject;    /* ASCII, one line */
    const char *body;       /* UTF-8, lines that end with \r\n */
};

enum smtp_outcome {
    SMTP_DELIVERED, /* the server said that it has it */
    SMTP_TRY_LATER, /* a 4xx answer, or none */
    SMTP_REFUSED,   /* a 5xx answer: it will not change its mind */
};

/* Blocks until the server has answered, at most 60 s. `ret_reason` says why it was not delivered.
 * On any thread, after curl_global_init(). */
enum smtp_outcome smtp_send(const char *url, const struct smtp_mail *mail,
                            char ret_reason[SMTP_REASON_BYTES]);

#endif
