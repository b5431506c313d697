package stackshift

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Calls are signed as Standard Webhooks: HMAC-SHA-256 over `<id>.<timestamp>.<body>`.

const signatureAgeMax = 5 * time.Minute

// secretBytes are the bytes that `whsec_<base64>` stands for.
func secretBytes(secret string) ([]byte, error) {
	if strings.HasPrefix(secret, "whsec_") {
		if key, err := base64.StdEncoding.DecodeString(secret[len("whsec_"):]); err == nil && len(key) > 0 {
			return key, nil
		}
	}
	return nil, invalid("the signing secret is not whsec_ and base64 after it") // never print it
}

func sign(key []byte, id, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return mac.Sum(nil)
}

// verify gives the reason why a request is refused; "": it is not.
func verify(header http.Header, body []byte, keys [][]byte, now time.Time) string {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	signatures := header.Get("webhook-signature")
	if id == "" || timestamp == "" || signatures == "" {
		return "webhook-id, webhook-timestamp or webhook-signature is missing"
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return "webhook-timestamp is not a number"
	}
	if age := now.Unix() - seconds; age > int64(signatureAgeMax.Seconds()) || -age > int64(signatureAgeMax.Seconds()) {
		return "webhook-timestamp is more than 5 minutes off"
	}
	var right [][]byte // once a key: who sends many signatures must not cost us much
	for _, key := range keys {
		right = append(right, sign(key, id, timestamp, body))
	}
	fits := false
	for _, signature := range strings.Fields(signatures) {
		if !strings.HasPrefix(signature, "v1,") {
			continue // another version's
		}
		given, err := base64.StdEncoding.DecodeString(signature[len("v1,"):])
		if err != nil {
			continue
		}
		for _, its := range right {
			if hmac.Equal(given, its) {
				fits = true
			}
		}
	}
	if !fits {
		return "no signature fits"
	}
	return ""
}
