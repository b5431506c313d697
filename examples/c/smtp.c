/* One mail, one connection: MAIL FROM, RCPT TO, DATA. libcurl speaks the protocol. */
#include "smtp.h"

#include <curl/curl.h>
#include <stdio.h>
#include <time.h>

#define MESSAGE_BYTES_MAX 8192

_Static_assert(SMTP_REASON_BYTES >= CURL_ERROR_SIZE, "libcurl writes its reason there");

/* The mail as RFC 5322 has it, as a file to read from. NULL: no memory, or it is too long. */
static FILE *message_open(const struct smtp_mail *mail) {
    FILE *message = fmemopen(NULL, MESSAGE_BYTES_MAX, "w+");
    time_t now = time(NULL);
    struct tm utc;
    char date[64];

    if (message == NULL) {
        return NULL;
    }
    (void)strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S +0000", gmtime_r(&now, &utc));
    (void)fprintf(message,
                  "Date: %s\r\nFrom: <%s>\r\nTo: <%s>\r\nMessage-ID: <%s>\r\nSubject: %s\r\n"
                  "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
                  "Content-Transfer-Encoding: 8bit\r\n\r\n%s",
                  date, mail->from, mail->to, mail->message_id, mail->subject, mail->body);
    if (fflush(message) != 0) {
        (void)fclose(message);
        return NULL;
    }
    rewind(message);
    return message;
}

enum smtp_outcome smtp_send(const char *url, const struct smtp_mail *mail,
                            char ret_reason[SMTP_REASON_BYTES]) {
    CURL *curl = curl_easy_init();
    struct curl_slist *recipients = curl_slist_append(NULL, mail->to);
    FILE *message = message_open(mail);
    CURLcode code = CURLE_OUT_OF_MEMORY;
    long reply = 0;

    ret_reason[0] = '\0';
    if (curl != NULL && recipients != NULL && message != NULL) {
        curl_easy_setopt(curl, CURLOPT_URL, url);
        curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
        curl_easy_setopt(curl, CURLOPT_MAIL_FROM, mail->from);
        curl_easy_setopt(curl, CURLOPT_MAIL_RCPT, recipients);
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_READDATA, message); /* libcurl reads it with fread() */
        curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
        curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L); /* other threads would get it */
        curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, ret_reason);
        code = curl_easy_perform(curl);
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply);
    }
    if (code != CURLE_OK && ret_reason[0] == '\0') {
        (void)snprintf(ret_reason, SMTP_REASON_BYTES, "%s", curl_easy_strerror(code));
    }
    if (message != NULL) {
        (void)fclose(message);
    }
    curl_slist_free_all(recipients);
    curl_easy_cleanup(curl);
    if (code == CURLE_OK) {
        return SMTP_DELIVERED;
    }
    return reply >= 500 && reply <= 599 ? SMTP_REFUSED : SMTP_TRY_LATER;
}
