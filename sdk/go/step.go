package stackshift

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"time"
)

// Step has a handler's durable calls. Each is remembered under its name: what is remembered comes back at once, in this
// and in later calls of the handler, and is not done again. The second use of a name is remembered as `name#2`, and so on.
//
// A call that suspends the run, or that is made in a run which has been cancelled, does not return: the handler's
// goroutine ends there (runtime.Goexit), after what it has deferred. Call them from the handler's goroutine, or from
// those of Step.Parallel and Step.Race; not from goroutines of your own, and not inside of a step.
type Step struct{ b *branch }

// StepFunc is a step's function. What it returns is kept as JSON.
type StepFunc func(ctx context.Context) (any, error)

// StepOptions are the settings of a step. With MaxAttempts or Backoff it is tried again by itself, before the attempt is.
type StepOptions struct {
	MaxAttempts int           // how many tries; 0: 1, or 5 with Backoff
	Backoff     *Backoff      // how long to wait between tries; no worker is held meanwhile
	Timeout     time.Duration // of one try; 0: none
}

// StepInfo is what a step's function can learn of its step: StepFrom(ctx).
type StepInfo struct {
	Name           string // as the run remembers it: charge, then charge#2
	Attempt        int    // which try of the step this is; the first is 1
	IdempotencyKey string // the same for each try of this step of this run: for services that take such a key
}

type (
	callKey struct{}
	stepKey struct{}
)

// StepFrom tells inside of which step a context is; false: of none.
func StepFrom(ctx context.Context) (StepInfo, bool) {
	if ctx == nil {
		return StepInfo{}, false
	}
	info, ok := ctx.Value(stepKey{}).(StepInfo)
	return info, ok
}

// Run calls `fn`, keeps its result, and gives it back as JSON, also in later attempts, without calling `fn` again.
//
// Without options, an error of `fn` is the handler's, as a *StepError: returned, it ends the attempt, and the next one
// does the step again. With them the step is tried again first, and its last error is remembered.
//
//	user, err := stackshift.Decode[User](job.Step.Run(ctx, "create-user", func(ctx context.Context) (any, error) {
//		return users.Create(ctx, in)
//	}))
func (s Step) Run(ctx context.Context, name string, fn StepFunc, options ...*StepOptions) (json.RawMessage, error) {
	o := optional(options)
	if fn == nil {
		return nil, invalid("step %s has no function", name)
	}
	if o.Timeout < 0 || o.MaxAttempts < 0 {
		return nil, invalid("step %s has a timeout or attempts below 0", name)
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = 1
		if o.Backoff != nil {
			o.MaxAttempts = 5
		}
	}
	if o.Backoff != nil {
		if _, err := o.Backoff.MarshalJSON(); err != nil {
			return nil, err
		}
	}
	return s.b.do(ctx, "step", name, "Step.Run("+quoted(name)+")", func(a *ask) {
		t := &try{call: s.b.call, ask: a, options: o, fn: fn, startedAt: time.Now(), attempt: s.b.call.request.Tries[a.name] + 1}
		t.call.busy++
		go t.run(ctx)
	})
}

// try is one try of a step.
type try struct {
	call      *call
	ask       *ask
	options   StepOptions
	fn        StepFunc
	startedAt time.Time
	attempt   int
}

func (t *try) run(ctx context.Context) {
	c := t.call
	if ctx == nil {
		ctx = c.ctx
	}
	ctx, cancel := context.WithCancel(context.WithValue(ctx, stepKey{}, StepInfo{Name: t.ask.name, Attempt: t.attempt,
		IdempotencyKey: c.request.Run.ID + ":" + t.ask.name}))
	defer cancel()
	if ctx.Value(callKey{}) != c { // not a child of the handler's: it has to hear of a cancel nevertheless
		go func() {
			select {
			case <-c.ctx.Done():
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	ends := make(chan outcome, 1)
	go func() {
		end := outcome{err: fmt.Errorf("step %s ended its goroutine with runtime.Goexit", t.ask.name)}
		defer func() {
			if thrown := recover(); thrown != nil {
				end = outcome{err: &panicked{thrown, string(debug.Stack())}}
			}
			ends <- end
		}()
		value, err := t.fn(ctx)
		end = outcome{value, err}
	}()
	var late <-chan time.Time
	if t.options.Timeout > 0 {
		timer := time.NewTimer(t.options.Timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case end := <-ends:
		t.done(end.value, end.err)
	case <-late: // a function that comes back after its time has nothing more to say
		t.done(nil, &StepError{Name: "StepTimeoutError", Step: t.ask.name, Retryable: true,
			Message: fmt.Sprintf("step %s did not end within %s", t.ask.name, t.options.Timeout)})
	}
}

// done takes what came of the try: commits it, tries again later, or leaves the error to the handler.
func (t *try) done(value any, err error) {
	c, a := t.call, t.ask
	text, unfit := "", error(nil)
	if err == nil {
		text, unfit = jsonText(value, "the result of step "+quoted(a.name))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.finished = append(c.finished, func() {
		c.busy--
		switch {
		case c.cancelled: // nothing more is committed
		case unfit != nil: // its function has been called, and would return the same again
			c.misused(unfit)
			c.failed = append(c.failed, delivery{to: a, err: unfit})
		case err == nil:
			a.result = json.RawMessage(text)
			c.commit(op{text: t.op(`"result":` + text), of: a})
		default:
			t.failed(wireErrorOf(err, a.name))
		}
	})
	c.pump()
}

func (t *try) failed(wire *wireError) {
	c, a := t.call, t.ask
	op_ := t.op(`"error":` + wire.text())
	switch {
	case !wire.final() && t.attempt < t.options.MaxAttempts:
		c.suspend(a, mustJSON(struct {
			Op         string     `json:"op"`
			Name       string     `json:"name"`
			Error      *wireError `json:"error"`
			Backoff    *Backoff   `json:"backoff,omitempty"`
			Tries      int        `json:"tries"`
			RetryAfter string     `json:"retryAfter,omitempty"`
		}{"step_retry", a.name, wire, t.options.Backoff, t.attempt, wire.RetryAfter}), true)
	case t.options.MaxAttempts > 1:
		c.commit(op{text: op_, of: a, err: errorOf(wire, a.name)})
	default:
		c.caught = append(c.caught, caughtError{op_, a.branch})
		c.failed = append(c.failed, delivery{to: a, err: errorOf(wire, a.name)})
	}
}

func (t *try) op(outcome string) string {
	return stepOp(t.ask.name, outcome, t.startedAt)
}

func stepOp(name, outcome string, startedAt time.Time) string {
	return `{"op":"step","name":` + mustJSON(name) + `,` + outcome + `,"startedAt":"` + timeText(startedAt) +
		`","finishedAt":"` + timeText(time.Now()) + `"}`
}

// Parallel runs functions side by side and waits for all. Their steps run at the same time, and so do their waits, sleeps and
// children; the code between takes turns, one function at a time, so what they share needs no lock, and what takes long
// belongs into a step. Each function has to use the JobContext that it is given. When one returns an error, the others
// begin no further step; it is the result.
//
//	err := job.Step.Parallel(ctx,
//		func(ctx context.Context, job stackshift.JobContext) error { _, err := job.Step.Run(ctx, "resize", resize); return err },
//		func(ctx context.Context, job stackshift.JobContext) error { _, err := job.Step.Run(ctx, "scan", scan); return err })
func (s Step) Parallel(ctx context.Context, fns ...func(ctx context.Context, job JobContext) error) error {
	g := &group{}
	if err := s.b.sideBySide(ctx, "Step.Parallel", g, fns); err != nil {
		return err
	}
	return g.err
}

// Race runs functions side by side, as Parallel does, until the first of them returns: says which one it was, and what
// it returned. The others begin nothing more. What they wait for is left behind, a child goes on by itself; a step of
// theirs that has begun is waited for and kept.
//
//	first, err := job.Step.Race(ctx,
//		func(ctx context.Context, job stackshift.JobContext) error { _, err := job.Step.WaitForEvent(ctx, "paid"); return err },
//		func(ctx context.Context, job stackshift.JobContext) error { return job.Step.Sleep(ctx, 24*time.Hour) })
func (s Step) Race(ctx context.Context, fns ...func(ctx context.Context, job JobContext) error) (first int, err error) {
	if len(fns) == 0 {
		return 0, invalid("Step.Race was given no functions")
	}
	g := &group{race: true}
	if err := s.b.sideBySide(ctx, "Step.Race", g, fns); err != nil {
		return 0, err
	}
	return g.first, g.err
}

// What a wait does when nothing came in time.
const (
	OnTimeoutFail     = "fail"     // the run fails at once, as WaitTimeoutError
	OnTimeoutContinue = "continue" // the wait returns an Event that is TimedOut
	OnTimeoutCancel   = "cancel"   // the run is cancelled
)

// WaitOptions are the settings of a wait.
type WaitOptions struct {
	Name           string        // under which it is remembered; "": the event's
	CorrelationKey string        // only events with this key; "": only events without one
	Timeout        time.Duration // 0: without end
	OnTimeout      string        // "": OnTimeoutFail
}

// Event is a durable signal, as a handler receives it.
type Event struct {
	TimedOut       bool            `json:"timedOut"` // nothing came; the rest is empty
	ID             string          `json:"id"`
	Name           string          `json:"name"`
	CorrelationKey string          `json:"correlationKey"`
	Payload        json.RawMessage `json:"payload"`
	ReceivedAt     time.Time       `json:"receivedAt"`
}

// Decode reads the event's payload into `v`.
func (e *Event) Decode(v any) error { return json.Unmarshal(orNull(e.Payload), v) }

// EventPattern is one of several events that a wait is for.
type EventPattern struct {
	Event          string
	CorrelationKey string // only events with this key; "": only events without one
}

// WaitForEvent waits for an event by name and key, without holding a worker. An event that was sent while the run
// existed counts, even before the wait.
//
//	event, err := job.Step.WaitForEvent(ctx, "email.verified", &stackshift.WaitOptions{
//		CorrelationKey: "user:" + id, Timeout: 24 * time.Hour})
func (s Step) WaitForEvent(ctx context.Context, event string, options ...*WaitOptions) (*Event, error) {
	o := optional(options)
	timeout, onTimeout, err := o.timeout()
	if err != nil {
		return nil, err
	}
	return s.received(s.b.do(ctx, "wait_event", or(o.Name, event), "Step.WaitForEvent("+quoted(event)+")", func(a *ask) {
		s.b.call.suspend(a, mustJSON(map[string]any{"op": "wait_event", "name": a.name, "event": event,
			"correlationKey": textOrNil(o.CorrelationKey), "timeout": timeout, "onTimeout": onTimeout}), false)
	}))
}

// WaitForAny waits for the first of several events; the result's Name and CorrelationKey say which one came.
// options.CorrelationKey is of no use here: each pattern has its own. options.Name is by default the events' names,
// joined by /.
func (s Step) WaitForAny(ctx context.Context, events []EventPattern, options ...*WaitOptions) (*Event, error) {
	o := optional(options)
	timeout, onTimeout, err := o.timeout()
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, invalid("Step.WaitForAny was given no events")
	}
	name, patterns := "", []map[string]any{}
	for _, e := range events {
		name += "/" + e.Event
		patterns = append(patterns, map[string]any{"event": e.Event, "correlationKey": textOrNil(e.CorrelationKey)})
	}
	if name = name[1:]; len(name) > 200 {
		name = name[:200]
	}
	return s.received(s.b.do(ctx, "wait_any", or(o.Name, name), "Step.WaitForAny", func(a *ask) {
		s.b.call.suspend(a, mustJSON(map[string]any{"op": "wait_any", "name": a.name, "events": patterns,
			"timeout": timeout, "onTimeout": onTimeout}), false)
	}))
}

func (s Step) received(raw json.RawMessage, err error) (*Event, error) {
	event, err := Decode[*Event](raw, err)
	if err == nil && event == nil {
		err = fmt.Errorf("what the run remembers of a wait is null")
	}
	return event, err
}

func (o *WaitOptions) timeout() (timeout any, onTimeout string, err error) {
	switch o.OnTimeout {
	case "", OnTimeoutFail, OnTimeoutContinue, OnTimeoutCancel:
	default:
		return nil, "", invalid("onTimeout %.40q is not known; fail, continue and cancel are", o.OnTimeout)
	}
	if o.Timeout != 0 {
		if timeout, err = durationText("timeout", o.Timeout); err != nil {
			return nil, "", err
		}
	}
	return timeout, or(o.OnTimeout, OnTimeoutFail), nil
}

// SleepOptions are the settings of a sleep.
type SleepOptions struct {
	Name string // under which it is remembered; "": sleep
}

// Sleep sleeps, without holding a worker: a second or a year.
func (s Step) Sleep(ctx context.Context, duration time.Duration, options ...*SleepOptions) error {
	text, err := durationText("duration", duration)
	if err != nil {
		return err
	}
	o := optional(options)
	return s.sleep(ctx, or(o.Name, "sleep"), "Step.Sleep", "duration", text)
}

// SleepUntil sleeps until a point of time; one that is past ends it at once.
func (s Step) SleepUntil(ctx context.Context, until time.Time, options ...*SleepOptions) error {
	o := optional(options)
	return s.sleep(ctx, or(o.Name, "sleep"), "Step.SleepUntil", "until", timeText(until))
}

func (s Step) sleep(ctx context.Context, name, what, field, value string) error {
	_, err := s.b.do(ctx, "sleep", name, what, func(a *ask) {
		s.b.call.suspend(a, mustJSON(map[string]any{"op": "sleep", "name": a.name, field: value}), false)
	})
	return err
}

// ChildOptions are the settings of a child run: those of a start, and the name under which it is remembered.
type ChildOptions struct {
	Name string // "": the job's
	StartOptions
}

// RunJob starts a run of another job as a child, waits for its end without holding a worker, and gives its result. If it
// fails, its error is returned as a *StepError. The child is cancelled with this run.
func (s Step) RunJob(ctx context.Context, job string, payload any, options ...*ChildOptions) (json.RawMessage, error) {
	o := optional(options)
	text, err := payloadText(payload, "the payload of job "+quoted(job))
	if err != nil {
		return nil, err
	}
	body, err := o.StartOptions.body()
	if err != nil {
		return nil, err
	}
	return s.b.do(ctx, "child", or(o.Name, job), "Step.RunJob("+quoted(job)+")", func(a *ask) {
		s.b.call.suspend(a, mustJSON(map[string]any{"op": "child", "name": a.name, "job": job,
			"payload": json.RawMessage(text), "options": body}), false)
	})
}

// SendEventOptions are the settings of an event that a handler sends.
type SendEventOptions struct {
	Name           string // under which it is remembered; "": send: and the event's
	CorrelationKey string
	IdempotencyKey string
}

// SendEvent sends an event, exactly once, and gives its id.
func (s Step) SendEvent(ctx context.Context, event string, payload any, options ...*SendEventOptions) (string, error) {
	o := optional(options)
	text, err := payloadText(payload, "the payload of event "+quoted(event))
	if err != nil {
		return "", err
	}
	sent, err := Decode[struct{ ID string }](s.b.do(ctx, "send_event", or(o.Name, "send:"+event), "Step.SendEvent("+quoted(event)+")",
		func(a *ask) {
			s.b.call.commit(op{of: a, text: mustJSON(map[string]any{"op": "send_event", "name": a.name, "event": event,
				"payload": json.RawMessage(text), "correlationKey": textOrNil(o.CorrelationKey),
				"idempotencyKey": textOrNil(o.IdempotencyKey)})})
		}))
	return sent.ID, err
}

// Patched is for a change of a handler whose runs are under way: false for a run that has gone by this place without the
// change, true for all others, and the same each time in one run. It may be taken out, with the old branch, once no run
// is left that answers false.
//
//	if job.Step.Patched("check-address") { … }
func (s Step) Patched(name string) bool {
	if !validName(patchPrefix + name) {
		panic(invalid("patch %.210q is not a name", name))
	}
	c := s.b.call
	c.mu.Lock()
	defer c.mu.Unlock()
	patched, opName := c.replay.patch(name)
	if opName != "" && !c.over { // nothing waits for it: it goes with what the handler commits next
		c.pending = append(c.pending, op{named: true, text: stepOp(opName, `"result":true`, time.Now())})
	}
	return patched
}

func optional[T any](options []*T) (o T) {
	if len(options) > 0 && options[0] != nil {
		o = *options[0]
	}
	return o
}

func or(text, otherwise string) string {
	if text != "" {
		return text
	}
	return otherwise
}

func quoted(name string) string { return fmt.Sprintf("%.210q", name) }

// payloadText prints a payload; of nil it is {}.
func payloadText(payload any, what string) (string, error) {
	if payload == nil {
		return "{}", nil
	}
	return jsonText(payload, what)
}
