// Package stackshift is the Go SDK of Durable Jobs: start the work once, it completes safely.
//
// A Client starts runs, sends events and looks at runs; with Job, and Serve or Handler, it is also where handlers run.
package stackshift

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Options are the settings of a Client. Zero means the default.
type Options struct {
	APIKey         string        // "": STACKSHIFT_API_KEY
	BaseURL        string        // "": STACKSHIFT_URL, else http://127.0.0.1:7070
	SigningSecrets []string      // of the endpoint; nil: STACKSHIFT_SIGNING_SECRET, several separated by spaces
	Version        string        // of the handlers' code, stored with runs and attempts
	Timeout        time.Duration // how long a call of the API may go unanswered; 0: 30s
	RetryFor       time.Duration // how long a call of the API is repeated; 0: 30s, < 0: not at all
	HTTPClient     *http.Client  // nil: one of its own
}

// Client speaks to one server with one key. It may be used by many goroutines.
type Client struct {
	Events Events
	Runs   Runs

	api      *api
	jobs     jobs
	version  string
	settings settings
	lines    *commitLines
	server   server
}

// New makes a client. It never fails: without a key, or with an address that is none, its calls do.
func New(options Options) *Client {
	timeout, retryFor := options.Timeout, options.RetryFor
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	if retryFor == 0 {
		retryFor = 30 * time.Second
	}
	client := options.HTTPClient
	if client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = 64
		client = &http.Client{Transport: transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	c := &Client{version: options.Version, settings: defaultSettings, api: &api{
		baseURL: strings.TrimRight(or(options.BaseURL, or(os.Getenv("STACKSHIFT_URL"), "http://127.0.0.1:7070")), "/"),
		key:     or(options.APIKey, os.Getenv("STACKSHIFT_API_KEY")), client: client, timeout: timeout, retryFor: retryFor}}
	c.lines = &commitLines{client: client, settings: &c.settings}
	c.Events, c.Runs = Events{c.api}, Runs{c.api}
	secrets := options.SigningSecrets
	if secrets == nil {
		secrets = strings.Fields(os.Getenv("STACKSHIFT_SIGNING_SECRET"))
	}
	c.server.init(secrets)
	return c
}

// Job registers a handler. It panics for what cannot be right whatever happens: a name that is none, or is there
// already.
//
//	client.Job("userOnboarding", func(ctx context.Context, job stackshift.JobContext) (any, error) { … })
func (c *Client) Job(name string, handler Handler, options ...*JobOptions) {
	if err := c.jobs.add(&registeredJob{name: name, handler: handler, options: optional(options)}); err != nil {
		panic(err)
	}
}

// Debounce makes one run of starts that come shortly after one another.
type Debounce struct {
	Key   string        // starts of the same job and key belong together
	Delay time.Duration // how long no further start may have come
	Max   time.Duration // how long the run is put off at most; 0: without end
}

// StartOptions are the settings of a start. Zero means the default.
type StartOptions struct {
	QueueName      string        // "": default
	IdempotencyKey string        // makes a repeated start the same run; "": one is made up, so that repeats by the SDK are safe
	IdempotencyTTL time.Duration // how long the key holds; 0: as long as the run is kept
	OnTerminal     string        // what a failed or cancelled run of the same key does: reuse, or restart
	MaxAttempts    int           // 0: the job's setting, else the queue's, else 5
	Backoff        *Backoff
	ScheduledAt    time.Time // when it is due; zero, or past: at once
	Priority       int       // higher first; −32768 to 32767
	ConcurrencyKey string
	Debounce       *Debounce
	Timeout        time.Duration // of the whole run, waits included; 0: none
	Tags           map[string]string
}

// EnqueueOptions are the settings of a start; the queue is given already.
type EnqueueOptions = StartOptions

func (o *StartOptions) body() (map[string]any, error) {
	body := map[string]any{}
	put := func(name string, value any, given bool) {
		if given {
			body[name] = value
		}
	}
	put("queueName", o.QueueName, o.QueueName != "")
	put("idempotencyKey", o.IdempotencyKey, o.IdempotencyKey != "")
	put("onTerminal", o.OnTerminal, o.OnTerminal != "")
	put("maxAttempts", o.MaxAttempts, o.MaxAttempts != 0)
	put("backoff", o.Backoff, o.Backoff != nil)
	put("scheduledAt", timeText(o.ScheduledAt), !o.ScheduledAt.IsZero())
	put("priority", o.Priority, o.Priority != 0)
	put("concurrencyKey", o.ConcurrencyKey, o.ConcurrencyKey != "")
	put("tags", o.Tags, o.Tags != nil)
	durations := []struct {
		name string
		d    time.Duration
		into map[string]any
	}{{"idempotencyTtl", o.IdempotencyTTL, body}, {"timeout", o.Timeout, body}}
	if o.Debounce != nil {
		debounce := map[string]any{}
		if o.Debounce.Key != "" {
			debounce["key"] = o.Debounce.Key
		}
		body["debounce"] = debounce
		durations = append(durations, struct {
			name string
			d    time.Duration
			into map[string]any
		}{"delay", o.Debounce.Delay, debounce}, struct {
			name string
			d    time.Duration
			into map[string]any
		}{"max", o.Debounce.Max, debounce})
	}
	for _, one := range durations {
		if one.d != 0 {
			text, err := durationText(one.name, one.d)
			if err != nil {
				return nil, err
			}
			one.into[one.name] = text
		}
	}
	if o.Backoff != nil {
		if _, err := o.Backoff.MarshalJSON(); err != nil {
			return nil, err
		}
	}
	return body, nil
}

// RunError is why a run failed.
type RunError struct {
	Name      string `json:"name"`
	Message   string `json:"message"`
	Stack     string `json:"stack"`
	Step      string `json:"step"` // where it happened
	Retryable bool   `json:"retryable"`
}

// Run is one execution of a job.
type Run struct {
	ID              string            `json:"id"`
	Created         bool              `json:"created"` // by this start; false where its key was known already
	Job             string            `json:"job"`
	QueueName       string            `json:"queueName"`
	Status          string            `json:"status"` // scheduled, queued, running, waiting, retrying, completed, failed, cancelled
	Payload         json.RawMessage   `json:"payload"`
	Result          json.RawMessage   `json:"result"`
	Error           *RunError         `json:"error"`
	Attempt         int               `json:"attempt"`
	MaxAttempts     int               `json:"maxAttempts"`
	Priority        int               `json:"priority"`
	Tags            map[string]string `json:"tags"`
	ConcurrencyKey  string            `json:"concurrencyKey"`
	IdempotencyKey  string            `json:"idempotencyKey"`
	Version         string            `json:"version"`
	ParentRunID     string            `json:"parentRunId"`
	CreatedAt       *time.Time        `json:"createdAt"`
	ScheduledAt     *time.Time        `json:"scheduledAt"`
	StartedAt       *time.Time        `json:"startedAt"`
	FinishedAt      *time.Time        `json:"finishedAt"`
	NextAttemptAt   *time.Time        `json:"nextAttemptAt"`
	WaitingFor      map[string]any    `json:"waitingFor"` // "kind" says which other members there are
	DeadLetterQueue string            `json:"deadLetterQueue"`
	DeadLetteredAt  *time.Time        `json:"deadLetteredAt"`
}

// Ended: the run is completed, failed or cancelled.
func (r *Run) Ended() bool {
	return r.Status == "completed" || r.Status == "failed" || r.Status == "cancelled"
}

// Start starts a run. A nil payload is {}.
//
//	run, err := client.Start(ctx, "send-verification-email", map[string]any{"userId": "user_123"},
//		&stackshift.StartOptions{QueueName: "emails", IdempotencyKey: "verify:user_123"})
func (c *Client) Start(ctx context.Context, job string, payload any, options ...*StartOptions) (*Run, error) {
	o := optional(options)
	text, err := payloadText(payload, "the payload of job "+quoted(job))
	if err != nil {
		return nil, invalid("%s", err.Error())
	}
	if o.IdempotencyKey == "" && o.Debounce == nil {
		o.IdempotencyKey = madeUpKey()
	}
	body, err := o.body()
	if err != nil {
		return nil, err
	}
	body["job"], body["payload"] = job, json.RawMessage(text)
	run := new(Run)
	status, err := c.api.do(ctx, apiCall{method: http.MethodPost, path: "/v1/runs", body: body, safe: o.IdempotencyKey != ""}, run)
	if err != nil {
		return nil, err
	}
	run.Created = run.Created || status == http.StatusCreated
	return run, nil
}

// Queue gives a queue by its name.
func (c *Client) Queue(name string) *Queue { return &Queue{c, name} }

// Queue is where runs wait for workers.
type Queue struct {
	client *Client
	name   string
}

// Enqueue starts a run in this queue.
//
//	client.Queue("emails").Enqueue(ctx, "sendVerificationEmail", map[string]any{"userId": "user_123"},
//		&stackshift.EnqueueOptions{IdempotencyKey: "verify:user_123"})
func (q *Queue) Enqueue(ctx context.Context, job string, payload any, options ...*EnqueueOptions) (*Run, error) {
	o := optional(options)
	o.QueueName = q.name
	return q.client.Start(ctx, job, payload, &o)
}

// Events are durable signals.
type Events struct{ api *api }

// SendOptions are the settings of an event.
type SendOptions struct {
	CorrelationKey string // only waits with this key get it; "": only waits without one
	IdempotencyKey string // makes a repeated event one; "": one is made up, so that repeats by the SDK are safe
}

// SentEvent is an event as it was sent.
type SentEvent struct {
	ID      string `json:"id"`
	Created bool   `json:"created"` // false where its idempotency key was known already
}

// Send sends an event to the runs that wait for it, or will. A nil payload is {}.
func (e Events) Send(ctx context.Context, name string, payload any, options ...*SendOptions) (*SentEvent, error) {
	o := optional(options)
	text, err := payloadText(payload, "the payload of event "+quoted(name))
	if err != nil {
		return nil, invalid("%s", err.Error())
	}
	body := map[string]any{"name": name, "payload": json.RawMessage(text), "idempotencyKey": or(o.IdempotencyKey, madeUpKey())}
	if o.CorrelationKey != "" {
		body["correlationKey"] = o.CorrelationKey
	}
	sent := new(SentEvent)
	if _, err = e.api.do(ctx, apiCall{method: http.MethodPost, path: "/v1/events", body: body, safe: true}, sent); err != nil {
		return nil, err
	}
	return sent, nil
}

// Runs looks at runs, and changes their course.
type Runs struct{ api *api }

// RunFilter says which runs; all that is given has to fit.
type RunFilter struct {
	Status, Job, Queue, DeadLetterQueue string
	Tag                                 string // plan:trial
	Since, Until                        time.Time
	Limit                               int
	Cursor                              string // RunPage.NextCursor
}

// RunPage is some runs, the newest first.
type RunPage struct {
	Runs       []*Run `json:"runs"`
	NextCursor string `json:"nextCursor"` // "": there are no more
}

// TimelineEntry is one line of a run's history.
type TimelineEntry struct {
	At         time.Time       `json:"at"`
	Kind       string          `json:"kind"`
	Name       string          `json:"name"`
	Attempt    int             `json:"attempt"`
	DurationMs *float64        `json:"durationMs"`
	Detail     json.RawMessage `json:"detail"`
}

// Outcome is what has become of a run.
type Outcome struct {
	Status string          `json:"status"` // not an end: the wait ran out
	Result json.RawMessage `json:"result"`
	Error  *RunError       `json:"error"`
}

// Get gives a run.
func (r Runs) Get(ctx context.Context, id string) (*Run, error) {
	return runOf(r.api, ctx, apiCall{method: http.MethodGet, path: runPath(id, ""), safe: true})
}

// List gives runs, page by page.
func (r Runs) List(ctx context.Context, filter *RunFilter) (*RunPage, error) {
	query := url.Values{}
	if f := filter; f != nil {
		for name, value := range map[string]string{"status": f.Status, "job": f.Job, "queue": f.Queue,
			"deadLetterQueue": f.DeadLetterQueue, "tag": f.Tag, "cursor": f.Cursor} {
			if value != "" {
				query.Set(name, value)
			}
		}
		if !f.Since.IsZero() {
			query.Set("since", timeText(f.Since))
		}
		if !f.Until.IsZero() {
			query.Set("until", timeText(f.Until))
		}
		if f.Limit != 0 {
			query.Set("limit", strconv.Itoa(f.Limit))
		}
	}
	page := new(RunPage)
	if _, err := r.api.do(ctx, apiCall{method: http.MethodGet, path: "/v1/runs", query: query, safe: true}, page); err != nil {
		return nil, err
	}
	return page, nil
}

// Timeline gives a run's history, oldest first.
func (r Runs) Timeline(ctx context.Context, id string) ([]TimelineEntry, error) {
	var all []TimelineEntry
	for query := (url.Values{}); ; {
		var page struct {
			Timeline   []TimelineEntry `json:"timeline"`
			NextCursor string          `json:"nextCursor"`
		}
		if _, err := r.api.do(ctx, apiCall{method: http.MethodGet, path: runPath(id, "timeline"), query: query, safe: true}, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Timeline...)
		if page.NextCursor == "" || page.NextCursor == query.Get("cursor") {
			return all, nil
		}
		query = url.Values{"cursor": {page.NextCursor}}
	}
}

const resultWaitMax = 30 * time.Second // one request's; longer waits are several

// Result waits for the end of a run, `wait` at most (0: looks once), and tells what has become of it. That a run failed
// is no error of Result.
func (r Runs) Result(ctx context.Context, id string, wait time.Duration) (*Outcome, error) {
	end := time.Now().Add(wait)
	for {
		left := time.Until(end)
		if left > resultWaitMax {
			left = resultWaitMax
		}
		call := apiCall{method: http.MethodGet, path: runPath(id, "result"), safe: true}
		if left > 0 {
			text, err := durationText("wait", left)
			if err != nil {
				return nil, err
			}
			call.query, call.wait = url.Values{"wait": {text}}, left
		}
		outcome := new(Outcome)
		status, err := r.api.do(ctx, call, outcome)
		if err != nil {
			return nil, err
		}
		if status != http.StatusAccepted || time.Until(end) <= 0 {
			return outcome, nil
		}
	}
}

// Cancel cancels a run. One that has ended is an Error, "conflict". `reason` may be empty.
func (r Runs) Cancel(ctx context.Context, id, reason string) (*Run, error) {
	body := map[string]any{}
	if reason != "" {
		body["reason"] = reason
	}
	return runOf(r.api, ctx, apiCall{method: http.MethodPost, path: runPath(id, "cancel"), body: body})
}

// Retry lets a failed or cancelled run go on; what its steps have done is kept. maxAttempts is how many further attempts
// (0: as many as at first).
func (r Runs) Retry(ctx context.Context, id string, maxAttempts int) (*Run, error) {
	body := map[string]any{}
	if maxAttempts != 0 {
		body["maxAttempts"] = maxAttempts
	}
	return runOf(r.api, ctx, apiCall{method: http.MethodPost, path: runPath(id, "retry"), body: body})
}

func runOf(a *api, ctx context.Context, call apiCall) (*Run, error) {
	run := new(Run)
	if _, err := a.do(ctx, call, run); err != nil {
		return nil, err
	}
	return run, nil
}

func runPath(id, what string) string {
	path := "/v1/runs/" + url.PathEscape(id)
	if what != "" {
		path += "/" + what
	}
	return path
}

func madeUpKey() string {
	bytes := make([]byte, 16)
	if _, err := rand.Read(bytes); err != nil {
		panic(err) // the system has no randomness: nothing that follows would be safe
	}
	return "sdk:" + hex.EncodeToString(bytes)
}
