package stackshift

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"
)

// fleet plays the other side: it calls the handler, remembers, and answers commits. It has one run.
type fleet struct {
	t       *testing.T
	client  *Client
	serving *httptest.Server
	commits *httptest.Server

	mu        sync.Mutex
	steps     []map[string]any
	tries     map[string]int
	state     map[string]int64
	requests  [][]byte                    // to commit.url, as they came
	ops       []string                    // committed, op and name, in order
	calls     int                         // of the handler
	onCommit  func(n int) (status int)    // for the n-th request, after it was committed; 0: answer
	before    func(n int) (status int)    // the same, before it is
	answer    func(op map[string]any) any // for one op; nil: as usual
	partCode  string                      // answers every part with it
	cancelled bool
	attempt   int
	noCommit  bool
	commitURL string
	maxRunMs  int
	refs      map[string]string
	payload   any
}

const secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

func newFleet(t *testing.T, handler Handler, options ...*JobOptions) *fleet {
	t.Helper()
	f := &fleet{t: t, attempt: 1, maxRunMs: 300000, tries: map[string]int{}, state: map[string]int64{}, payload: map[string]any{}}
	f.client = New(Options{APIKey: "k", SigningSecrets: []string{secret}})
	s := &f.client.settings
	s.heartbeat, s.retryFor, s.rest = 80*time.Millisecond, 2*time.Second, time.Minute
	s.cancelGrace, s.unwindGrace = 200*time.Millisecond, time.Second
	f.client.Job("job", handler, options...)
	f.serving = httptest.NewServer(f.client.Handler())
	f.commits = httptest.NewServer(http.HandlerFunc(f.serveCommit))
	f.commitURL = f.commits.URL
	t.Cleanup(func() { f.serving.Close(); f.commits.Close() })
	return f
}

// remember keeps an outcome: nil, null, or what a step gave; where a retry has forgotten it, in its place.
func (f *fleet) remember(name, kind string, outcome map[string]any) {
	entry := map[string]any{"name": name, "kind": kind}
	for key, value := range outcome {
		entry[key] = value
	}
	if outcome == nil {
		entry["result"] = nil
	}
	for place, step := range f.steps {
		if step["name"] == name {
			if isForgotten(step) {
				f.steps[place] = entry
			}
			return
		}
	}
	f.steps = append(f.steps, entry)
}

func isForgotten(step map[string]any) bool {
	_, result := step["result"]
	_, failed := step["error"]
	_, ref := step["ref"]
	return !result && !failed && !ref
}

// retry forgets the errors that the run remembers, as durable.retry does.
func (f *fleet) retry() (forgotten int) {
	for _, step := range f.steps {
		if _, failed := step["error"]; failed {
			delete(step, "error")
			forgotten++
		}
	}
	return forgotten
}

// apply commits one op, and gives its result.
func (f *fleet) apply(o map[string]any) any {
	kind, name := o["op"].(string), fmt.Sprint(o["name"])
	f.ops = append(f.ops, kind+" "+name)
	for _, step := range f.steps { // said again
		if step["name"] == name && kind != "log" && !isForgotten(step) {
			if kind == "step" {
				return map[string]any{}
			}
			return map[string]any{"result": step["result"]}
		}
	}
	if f.answer != nil {
		if result := f.answer(o); result != nil {
			if kind != "step" {
				f.remember(name, kind, result.(map[string]any))
			}
			return result
		}
	}
	switch kind {
	case "step":
		outcome := map[string]any{}
		for _, key := range []string{"result", "error"} {
			if value, ok := o[key]; ok {
				outcome[key] = value
			}
		}
		f.remember(name, "step", outcome)
	case "state":
		var result any
		if o["action"] == "increment" {
			f.state[o["key"].(string)] += int64(o["by"].(float64))
			result = f.state[o["key"].(string)]
		}
		f.remember(name, "state", map[string]any{"result": result})
		return map[string]any{"result": result}
	case "send_event":
		f.remember(name, "send_event", map[string]any{"result": map[string]any{"id": "e1"}})
		return map[string]any{"result": map[string]any{"id": "e1"}}
	case "step_retry":
		f.tries[name]++
	}
	return map[string]any{}
}

func (f *fleet) serveCommit(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method == http.MethodGet {
		if r.Header.Get("Authorization") != "Bearer token" {
			w.WriteHeader(401)
			return
		}
		fmt.Fprint(w, f.refs[r.URL.Query().Get("ref")])
		return
	}
	if r.Header.Get("Authorization") != "Bearer token" {
		f.t.Errorf("a commit that shows no token: %v", r.Header)
	}
	body, _ := io.ReadAll(r.Body)
	f.requests = append(f.requests, body)
	n := len(f.requests)
	if f.before != nil {
		if status := f.before(n); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	var request struct {
		Commits []struct {
			Token string
			Ops   []map[string]any
		}
	}
	if err := json.Unmarshal(body, &request); err != nil {
		f.t.Errorf("commit cannot be read: %v: %s", err, body)
	}
	answers := []any{}
	for _, part := range request.Commits {
		if f.partCode != "" {
			answers = append(answers, map[string]any{"code": f.partCode, "message": "step big is 2000000 bytes"})
			continue
		}
		results := []any{}
		for _, o := range part.Ops {
			results = append(results, f.apply(o))
		}
		answers = append(answers, map[string]any{"results": results, "cancelled": f.cancelled, "leaseUntil": "2026-05-06T09:00:00Z"})
	}
	if f.onCommit != nil {
		if status := f.onCommit(n); status != 0 {
			if status < 0 { // the answer is lost
				connection, _, _ := w.(http.Hijacker).Hijack()
				connection.Close()
				return
			}
			w.WriteHeader(status)
			return
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"commits": answers})
}

type answerOf struct {
	Protocol int
	Ops      []map[string]any
	Status   string
	Result   json.RawMessage
	Error    *wireError
}

func (f *fleet) body() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	body := map[string]any{"protocol": 1, "payload": f.payload, "steps": f.steps, "tries": f.tries, "traceparent": "00-ab",
		"run": map[string]any{"id": "r1", "job": "job", "queueName": "default", "attempt": f.attempt, "maxAttempts": 5,
			"createdAt": "2026-05-06T09:00:00.000000Z", "namespace": "default", "version": nil, "tags": map[string]any{}}}
	if !f.noCommit {
		body["commit"] = map[string]any{"url": f.commitURL, "token": "token", "maxRunMs": f.maxRunMs}
	}
	return []byte(mustJSON(body))
}

func signed(method, url string, body []byte, at time.Time) *http.Request {
	r, _ := http.NewRequest(method, url, bytes.NewReader(body))
	key, _ := secretBytes(secret)
	timestamp := strconv.FormatInt(at.Unix(), 10)
	r.Header.Set("webhook-id", "msg_1")
	r.Header.Set("webhook-timestamp", timestamp)
	r.Header.Set("webhook-signature", "v1,bm9uc2Vuc2U= v2,x v1,"+base64.StdEncoding.EncodeToString(sign(key, "msg_1", timestamp, body)))
	return r
}

// call calls the handler once.
func (f *fleet) call() answerOf {
	f.t.Helper()
	f.calls++
	r := signed(http.MethodPost, f.serving.URL, f.body(), time.Now())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	response, err := http.DefaultClient.Do(r.WithContext(ctx))
	if err != nil {
		f.t.Fatalf("no answer: %v", err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	var answer answerOf
	if err := json.Unmarshal(text, &answer); err != nil || response.StatusCode != 200 || answer.Protocol != 1 {
		f.t.Fatalf("answered with %d %s", response.StatusCode, text)
	}
	f.mu.Lock()
	for _, o := range answer.Ops {
		f.apply(o)
	}
	f.mu.Unlock()
	return answer
}

// run calls the handler until it does not want to go on at once.
func (f *fleet) run() answerOf {
	f.t.Helper()
	for i := 0; i < 50; i++ {
		if answer := f.call(); answer.Status != "continue" {
			return answer
		}
	}
	f.t.Fatal("50 calls, and no end")
	return answerOf{}
}

func (f *fleet) completed(answer answerOf, result string) {
	f.t.Helper()
	if answer.Status != "completed" || string(answer.Result) != result {
		f.t.Fatalf("%s %s (%+v); completed %s is right", answer.Status, answer.Result, answer.Error, result)
	}
}

func (f *fleet) failedWith(answer answerOf, name, code string, retryable bool) {
	f.t.Helper()
	if answer.Status != "failed" || answer.Error == nil || answer.Error.Name != name || answer.Error.Code != code ||
		answer.Error.final() == retryable {
		f.t.Fatalf("%s %+v; failed with %s %s, retryable %v is right", answer.Status, answer.Error, name, code, retryable)
	}
}

func (f *fleet) suspendedBy(answer answerOf, op string) map[string]any {
	f.t.Helper()
	if answer.Status != "suspended" || len(answer.Ops) == 0 || answer.Ops[len(answer.Ops)-1]["op"] != op {
		f.t.Fatalf("%s %v %+v; suspended by %s is right", answer.Status, answer.Ops, answer.Error, op)
	}
	return answer.Ops[len(answer.Ops)-1]
}

// suspendedTogether: by these ops, in this order.
func (f *fleet) suspendedTogether(answer answerOf, want ...string) {
	f.t.Helper()
	var found []string
	for _, o := range answer.Ops {
		found = append(found, fmt.Sprint(o["op"], " ", o["name"]))
	}
	if answer.Status != "suspended" || !reflect.DeepEqual(found, want) {
		f.t.Fatalf("%s %v %+v; suspended by %v is right", answer.Status, found, answer.Error, want)
	}
}
