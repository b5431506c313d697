package stackshift

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Error is an answer of the API that is not a success, or no answer at all (Status 0, Code "unavailable"). In a handler
// it is what the state refuses: a version that differs, a key that is too long. Calls that are safe to repeat were
// repeated before it is returned.
//
//	var refused *stackshift.Error
//	if errors.As(err, &refused) && refused.Code == "idempotency_conflict" { … }
type Error struct {
	Code   string // as the API names it: invalid_argument, not_found, conflict, …
	Status int    // of HTTP; 0: there was no answer
	Detail string // what is wrong: the argument, its value, what would be right

	retryAfter time.Duration // what the server asks for; < 0: nothing
	arrived    bool          // the server may have acted on it
	cause      error
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%s)", e.Detail, e.Code) }

// Unwrap gives the reason why there was no answer.
func (e *Error) Unwrap() error { return e.cause }

var codeStatus = map[string]int{
	"invalid_argument": 400, "unauthorized": 401, "forbidden": 403, "not_found": 404, "method_not_allowed": 405,
	"timeout": 408, "conflict": 409, "idempotency_conflict": 409, "lease_lost": 409, "payload_too_large": 413,
	"uri_too_long": 414, "unsupported_media_type": 415, "rate_limited": 429, "headers_too_large": 431, "internal": 500,
	"not_implemented": 501, "unavailable": 503,
}

// codeOf is the code of an answer that does not name its own.
func codeOf(status int) string {
	switch status {
	case 409:
		return "conflict"
	case 0, 502, 504:
		return "unavailable"
	}
	for code, its := range codeStatus {
		if its == status {
			return code
		}
	}
	if status >= 500 {
		return "internal"
	}
	return "invalid_argument"
}

func invalid(format string, args ...any) error {
	return &Error{Code: "invalid_argument", Status: 400, Detail: fmt.Sprintf(format, args...), retryAfter: -1}
}

// StepError is what a handler gets when a step or a child run has failed. It has the original's texts and is never the
// original itself: after a resume only the texts are left, and the handler has to decide in the same way both times.
// So look at Name, not with errors.Is for what the step's function returned.
type StepError struct {
	Name       string // the type of the original: "Error" for errors.New and fmt.Errorf
	Message    string
	Step       string
	Stack      string
	Retryable  bool          // false: trying again cannot help
	RetryAfter time.Duration // 0: as the backoff says
}

func (e *StepError) Error() string { return e.Message }

type nonRetryable struct{ err error }

func (e *nonRetryable) Error() string { return e.err.Error() }
func (e *nonRetryable) Unwrap() error { return e.err }

// NonRetryable says that trying again cannot help: returned by a step or a handler, it fails the run at once, unless
// the handler deals with it. Of nil it is nil.
func NonRetryable(err error) error {
	if err == nil {
		return nil
	}
	return &nonRetryable{err}
}

type retryAfter struct {
	err   error
	delay time.Duration
}

func (e *retryAfter) Error() string { return e.err.Error() }
func (e *retryAfter) Unwrap() error { return e.err }

// RetryAfter says that the next try is to come after `delay`, whatever the backoff says. Of nil it is nil.
func RetryAfter(err error, delay time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfter{err, delay}
}

// misuse is a use of the SDK that cannot work. It fails the run even where the handler drops it.
type misuse struct{ code, message string }

func (e *misuse) Error() string { return e.message }

func misuseOf(code, format string, args ...any) *misuse {
	return &misuse{code, fmt.Sprintf(format, args...)}
}

type panicked struct {
	value any
	stack string
}

func (e *panicked) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// wireError is an error as a run keeps it.
type wireError struct {
	Name       string `json:"name,omitempty"`
	Message    string `json:"message"`
	Stack      string `json:"stack,omitempty"`
	Step       string `json:"step,omitempty"`
	Code       string `json:"code,omitempty"`
	Retryable  *bool  `json:"retryable,omitempty"`
	RetryAfter string `json:"retryAfter,omitempty"`
}

const errorTextBytesMax = 16 * 1024

func (e *wireError) final() bool { return e.Retryable != nil && !*e.Retryable }

func (e *wireError) text() string { return mustJSON(e) }

// wireErrorOf describes an error that came out of a step ("": of the handler).
func wireErrorOf(err error, step string) *wireError {
	wire := &wireError{Name: errorName(err), Message: cleanText(err.Error()), Step: step}
	no := false
	var (
		ofStep *StepError
		api    *Error
		wrong  *misuse
		panic_ *panicked
		final  *nonRetryable
		after  *retryAfter
	)
	switch {
	case errors.As(err, &ofStep):
		wire.Name, wire.Stack = ofStep.Name, ofStep.Stack
		if ofStep.Step != "" {
			wire.Step = ofStep.Step
		}
		if !ofStep.Retryable {
			wire.Retryable = &no
		}
		if ofStep.RetryAfter > 0 {
			wire.RetryAfter, _ = durationText("delay", ofStep.RetryAfter)
		}
	case errors.As(err, &wrong):
		wire.Name, wire.Code, wire.Retryable = "MisuseError", wrong.code, &no
	case errors.As(err, &panic_):
		wire.Name, wire.Stack = "Panic", cleanText(panic_.stack)
	case errors.As(err, &api):
		wire.Name, wire.Code = "StackShiftError", api.Code
		if api.Code == "invalid_argument" || api.Code == "payload_too_large" {
			wire.Retryable = &no
		}
	}
	if errors.As(err, &final) {
		wire.Retryable = &no
	}
	if errors.As(err, &after) {
		if text, bad := durationText("delay", after.delay); bad == nil {
			wire.RetryAfter = text
		}
	}
	return wire
}

// errorOf is what the handler gets for what a run remembers as an error.
func errorOf(wire *wireError, step string) error {
	if wire.Name == "StackShiftError" && wire.Code != "" {
		return &Error{Code: wire.Code, Status: codeStatus[wire.Code], Detail: wire.Message, retryAfter: -1}
	}
	if wire.Step != "" {
		step = wire.Step
	}
	after, _ := durationParse(wire.RetryAfter)
	return &StepError{Name: wire.Name, Message: wire.Message, Step: step, Stack: wire.Stack, Retryable: !wire.final(), RetryAfter: after}
}

// errorName is the name of an error's type, without those that only wrap or hold a text.
func errorName(err error) string {
	for ; err != nil; err = errors.Unwrap(err) {
		t := reflect.TypeOf(err)
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch name := t.Name(); name {
		case "", "errorString", "wrapError", "wrapErrors", "joinError", "nonRetryable", "retryAfter", "fundamental", "withStack", "withMessage":
		default:
			return name
		}
	}
	return "Error"
}

// cleanText makes a text that can be stored: valid, without U+0000, not endless.
func cleanText(text string) string {
	if len(text) > errorTextBytesMax {
		text = text[:errorTextBytesMax]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// jsonText prints a value for the database. What it cannot hold is a misuse that begins with `what`.
func jsonText(value any, what string) (string, error) {
	printed, err := encode(value)
	if err != nil {
		return "", misuseOf("result_not_json", "%s is nothing that JSON can hold: %s", what, strings.TrimPrefix(err.Error(), "json: "))
	}
	if hasEscapedNUL(printed) {
		return "", misuseOf("result_not_json", "%s has a text with the character U+0000, which cannot be stored: "+
			"encode binary data, as base64 for example ([]byte is)", what)
	}
	return printed, nil
}

func hasEscapedNUL(text string) bool {
	for at := 0; ; {
		next := strings.Index(text[at:], `\u0000`)
		if next < 0 {
			return false
		}
		at += next
		slashes := 0
		for slashes < at && text[at-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return true
		}
		at += len(`\u0000`)
	}
}

func encode(value any) (string, error) {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return strings.TrimSuffix(text.String(), "\n"), err
}

// mustJSON prints what is ours, or was looked at before, and so cannot fail.
func mustJSON(value any) string {
	text, err := encode(value)
	if err != nil {
		panic(err)
	}
	return text
}

func validName(name string) bool {
	if len(name) < 1 || len(name) > 200 {
		return false
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.:/@-", c) >= 0) {
			return false
		}
	}
	return true
}
