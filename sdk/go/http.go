package stackshift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"net/http"
	"net/url"
	"time"
)

// Calls of the API, repeated where that is safe: where a second arrival changes nothing. Reads and PUT are; a start or an
// event is by its idempotency key, for which the caller gets one if it has none. What is not is repeated only where the
// first try certainly did nothing: the connection was refused, or the server said 429.

type api struct {
	baseURL  string
	key      string
	client   *http.Client
	timeout  time.Duration
	retryFor time.Duration
}

type apiCall struct {
	method, path string
	query        url.Values
	body         any
	safe         bool          // may arrive twice
	wait         time.Duration // how long the server is asked to wait before it answers
}

const apiAnswerBytesMax = 64 * 1024 * 1024

// do calls, and decodes the answer into `into` (nil: it is of no interest). The error is an *Error, or the context's.
func (a *api) do(ctx context.Context, call apiCall, into any) (status int, err error) {
	if a.key == "" {
		return 0, &Error{Code: "unauthorized", Status: 401, retryAfter: -1,
			Detail: "there is no API key: set Options.APIKey, or STACKSHIFT_API_KEY"}
	}
	address := a.baseURL + call.path
	if len(call.query) > 0 {
		address += "?" + call.query.Encode()
	}
	var body []byte
	if call.body != nil {
		text, err := jsonText(call.body, "the request")
		if err != nil {
			return 0, invalid("%s", err.Error())
		}
		body = []byte(text)
	}
	begin := time.Now()
	for tries := 0; ; tries++ {
		status, text, refused := a.once(ctx, call, address, body)
		if refused == nil {
			if into != nil {
				if err := json.Unmarshal(text, into); err != nil {
					return status, &Error{Code: "internal", Status: status, retryAfter: -1, cause: err,
						Detail: fmt.Sprintf("%s %s was answered with what is not expected: %s", call.method, call.path, err)}
				}
			}
			return status, nil
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		passing := refused.Status == 0 || refused.Status == 429 || refused.Status == 408 || refused.Status >= 502
		if !passing || refused.arrived && !call.safe {
			return refused.Status, refused
		}
		pause := refused.retryAfter
		if pause < 0 {
			pause = time.Duration(rand.Int63n(int64(backoffPause(tries)))) + time.Millisecond
		}
		if time.Since(begin)+pause > a.retryFor {
			return refused.Status, refused
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, ctx.Err()
		}
	}
}

func (a *api) once(ctx context.Context, call apiCall, address string, body []byte) (int, []byte, *Error) {
	status, header, text, err := request(ctx, a.client, a.timeout+call.wait, call.method, address, a.key, body, apiAnswerBytesMax)
	if err != nil {
		refused := &Error{Code: "unavailable", retryAfter: -1, arrived: arrived(err), cause: err,
			Detail: fmt.Sprintf("%s did not answer: %s", a.baseURL, innermost(err))}
		if errors.Is(err, errTooLong) {
			refused.Status = status
		}
		return status, nil, refused
	}
	if status >= 200 && status < 300 {
		return status, text, nil
	}
	var problem struct{ Code, Detail, Title string }
	_ = json.Unmarshal(text, &problem) // a proxy's page: the status says enough
	refused := &Error{Code: or(problem.Code, codeOf(status)), Status: status, retryAfter: -1, arrived: status != 429,
		Detail: or(problem.Detail, or(problem.Title, fmt.Sprintf("%s %s was answered with %d", call.method, call.path, status)))}
	if asked, ok := retryAfterOf(header.Get("Retry-After")); ok {
		refused.retryAfter = asked
	}
	return status, nil, refused
}

func innermost(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
