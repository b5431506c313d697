package stackshift

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"sync"
	"testing"
	"time"
)

// apiServer answers with one answer after the other, and keeps what came.
type apiServer struct {
	*httptest.Server
	mu      sync.Mutex
	answers []func(w http.ResponseWriter)
	came    []string
	bodies  []map[string]any
}

func newAPI(t *testing.T, answers ...func(w http.ResponseWriter)) (*apiServer, *Client) {
	s := &apiServer{answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer key" {
			t.Errorf("authorization %q", r.Header.Get("Authorization"))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		s.came, s.bodies = append(s.came, r.Method+" "+r.URL.String()), append(s.bodies, body)
		s.answers[0](w)
		if len(s.answers) > 1 {
			s.answers = s.answers[1:]
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("STACKSHIFT_URL", s.URL+"/")
	t.Setenv("STACKSHIFT_API_KEY", "key")
	return s, New(Options{RetryFor: 2 * time.Second})
}

func says(status int, text string, header ...string) func(w http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}
}

func hangsUp(w http.ResponseWriter) {
	connection, _, _ := w.(http.Hijacker).Hijack()
	connection.Close()
}

func TestEnqueueSaysWhatIsGiven(t *testing.T) {
	s, client := newAPI(t, says(201, `{"id":"1","status":"queued","created":true,"createdAt":"2026-05-06T09:00:00.000001Z","version":null}`))
	run, err := client.Queue("emails").Enqueue(context.Background(), "sendVerificationEmail", map[string]any{"userId": "<1>"},
		&EnqueueOptions{IdempotencyKey: "verify:1", IdempotencyTTL: 30 * 24 * time.Hour, MaxAttempts: 6,
			ScheduledAt: time.Date(2026, 5, 6, 9, 0, 0, 0, time.UTC), Debounce: &Debounce{Key: "d", Delay: time.Second}, Backoff: &Backoff{Factor: 3}})
	if err != nil || run.ID != "1" || !run.Created || run.Ended() {
		t.Fatal(run, err)
	}
	want := map[string]any{"job": "sendVerificationEmail", "payload": map[string]any{"userId": "<1>"}, "queueName": "emails",
		"idempotencyKey": "verify:1", "idempotencyTtl": "30d", "maxAttempts": 6.0, "scheduledAt": "2026-05-06T09:00:00Z",
		"debounce": map[string]any{"key": "d", "delay": "1s"}, "backoff": map[string]any{"factor": 3.0}}
	if !reflect.DeepEqual(s.bodies[0], want) {
		t.Fatal(s.bodies[0])
	}
}

func TestAStartIsRepeatedWithTheSameKey(t *testing.T) {
	s, client := newAPI(t, hangsUp, says(503, ``, "Retry-After", "0"), says(429, `{}`, "Retry-After", "0"), says(200, `{"id":"1","created":false}`))
	run, err := client.Start(context.Background(), "job", nil)
	if err != nil || run.ID != "1" || len(s.came) != 4 {
		t.Fatal(run, err, s.came)
	}
	key, _ := s.bodies[0]["idempotencyKey"].(string)
	for _, body := range s.bodies {
		if key == "" || body["idempotencyKey"] != key {
			t.Fatal(s.bodies)
		}
	}
}

func TestWhatIsNotSafeIsNotRepeated(t *testing.T) {
	s, client := newAPI(t, says(503, ``))
	if _, err := client.Runs.Retry(context.Background(), "1", 2); err == nil || len(s.came) != 1 {
		t.Fatal(err, s.came)
	}
	s, client = newAPI(t, says(429, ``, "Retry-After", "0"), says(200, `{"id":"1","status":"cancelled"}`))
	if run, err := client.Runs.Cancel(context.Background(), "1", "why"); err != nil || !run.Ended() || s.bodies[1]["reason"] != "why" {
		t.Fatal(run, err)
	}
}

func TestProblemsAreErrors(t *testing.T) {
	_, client := newAPI(t, says(409, `{"code":"idempotency_conflict","detail":"it differs"}`))
	var refused *Error
	_, err := client.Events.Send(context.Background(), "e", nil)
	if !errors.As(err, &refused) || refused.Code != "idempotency_conflict" || refused.Status != 409 || refused.Detail != "it differs" {
		t.Fatal(err)
	}
	_, client = newAPI(t, says(404, `a proxy's page`))
	if _, err = client.Runs.Get(context.Background(), "a/b"); !errors.As(err, &refused) || refused.Code != "not_found" {
		t.Fatal(err)
	}
	client = New(Options{BaseURL: "http://127.0.0.1:1", APIKey: "key", RetryFor: -1})
	if _, err = client.Runs.Get(context.Background(), "1"); !errors.As(err, &refused) || refused.Status != 0 || refused.Code != "unavailable" {
		t.Fatal(err)
	}
	t.Setenv("STACKSHIFT_API_KEY", "")
	if _, err = New(Options{}).Runs.Get(context.Background(), "1"); !errors.As(err, &refused) || refused.Code != "unauthorized" {
		t.Fatal(err)
	}
}

func TestRunsAreLookedAt(t *testing.T) {
	s, client := newAPI(t, says(200, `{"runs":[{"id":"1"}],"nextCursor":"c"}`), says(200, `{"timeline":[{"kind":"step","name":null}],"nextCursor":"n"}`),
		says(200, `{"timeline":[{"kind":"end"}],"nextCursor":null}`), says(202, `{"status":"running"}`), says(200, `{"status":"completed","result":{"a":1}}`),
		says(202, `{"status":"waiting"}`))
	ctx := context.Background()
	if page, err := client.Runs.List(ctx, &RunFilter{Status: "failed", Tag: "plan:trial", Limit: 5}); err != nil || page.NextCursor != "c" || len(page.Runs) != 1 {
		t.Fatal(page, err)
	}
	if lines, err := client.Runs.Timeline(ctx, "1"); err != nil || len(lines) != 2 {
		t.Fatal(lines, err)
	}
	if end, err := client.Runs.Result(ctx, "1", time.Minute); err != nil || string(end.Result) != `{"a":1}` {
		t.Fatal(end, err)
	}
	if end, err := client.Runs.Result(ctx, "1", 0); err != nil || end.Status != "waiting" {
		t.Fatal(end, err)
	}
	want := []string{"GET /v1/runs?limit=5&status=failed&tag=plan%3Atrial", "GET /v1/runs/1/timeline", "GET /v1/runs/1/timeline?cursor=n",
		"GET /v1/runs/1/result?wait=30s", "GET /v1/runs/1/result?wait=30s", "GET /v1/runs/1/result"}
	if !reflect.DeepEqual(s.came, want) {
		t.Fatal(s.came)
	}
}

func TestAContextEndsTheRepeating(t *testing.T) {
	_, client := newAPI(t, says(503, ``, "Retry-After", "1"))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := client.Runs.Get(ctx, "1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "1ms", 1: "1ms", 1500 * time.Microsecond: "2ms", 90 * time.Minute: "1h30m",
		24 * time.Hour: "1d", DurationMax: "3650d", 500 * time.Millisecond: "500ms"} {
		text, err := durationText("d", d)
		if text != want || err != nil {
			t.Errorf("%s: %s %v", d, text, err)
		}
		if back, err := durationParse(text); err != nil || back < d || back > d+time.Millisecond {
			t.Errorf("%s came back as %s %v", text, back, err)
		}
	}
	for _, text := range []string{"", "5", "s", "5 s", "-5s", "99999999999999999999s", "999999999d", "5s5"} {
		if d, err := durationParse(text); err == nil {
			t.Errorf("%q is %s", text, d)
		}
	}
	for _, d := range []time.Duration{-1, DurationMax + 1} {
		if _, err := durationText("d", d); err == nil {
			t.Errorf("%s is allowed", d)
		}
	}
}
