package stackshift

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// Handler is a job's function. It reads top to bottom and is called again to go on after a wait, a retry or a restart:
// what it did by job.Step and job.State is remembered and comes back at once. What it returns is the run's result.
//
// ctx ends when the run is cancelled (within 5 s), or another worker has it.
type Handler func(ctx context.Context, job JobContext) (any, error)

// JobOptions are the settings of a job. They go before the queue's, and behind those of a start.
type JobOptions struct {
	MaxAttempts int // 0: the queue's setting, 5 if none
	Backoff     *Backoff
	Timeout     time.Duration // of the whole run, waits included; 0: none
	Version     string        // of this job's code; "": the client's
}

// Backoff is how long to wait before the next try: Initial, then Factor times as long each time, up to Max, more or less
// by the part Jitter. What is zero comes from the job, then from the queue, then is 1s, 2, 1h and 0.2.
type Backoff struct {
	Initial time.Duration
	Factor  float64
	Max     time.Duration
	Jitter  float64 // 0 to 1; below 0: none
}

// MarshalJSON prints it as the API reads it.
func (b Backoff) MarshalJSON() ([]byte, error) {
	fields := map[string]any{}
	for name, d := range map[string]time.Duration{"initial": b.Initial, "max": b.Max} {
		if d == 0 {
			continue
		}
		text, err := durationText("backoff."+name, d)
		if err != nil {
			return nil, err
		}
		fields[name] = text
	}
	if b.Factor != 0 {
		fields["factor"] = b.Factor
	}
	if b.Jitter > 0 {
		fields["jitter"] = b.Jitter
	} else if b.Jitter < 0 {
		fields["jitter"] = 0
	}
	return json.Marshal(fields)
}

// RunInfo is what a handler is told of its run.
type RunInfo struct {
	ID          string            `json:"id"`
	Job         string            `json:"job"`
	QueueName   string            `json:"queueName"`
	Attempt     int               `json:"attempt"`
	MaxAttempts int               `json:"maxAttempts"`
	CreatedAt   time.Time         `json:"createdAt"`
	Namespace   string            `json:"namespace"`
	Version     string            `json:"version"`
	Tags        map[string]string `json:"tags"`
}

// JobContext is what a handler works with. It belongs to one branch of one call: do not keep it, and give a branch of
// Step.Parallel its own.
type JobContext struct {
	Payload     json.RawMessage
	Attempt     int // the first is 1; a resume after a wait is the same attempt
	Run         RunInfo
	Step        Step
	State       State
	Log         Log
	Traceparent string
}

// Decode reads the payload into `v`. An error is not retried: the payload stays as it is.
func (j JobContext) Decode(v any) error {
	if err := json.Unmarshal(orNull(j.Payload), v); err != nil {
		return NonRetryable(fmt.Errorf("payload of job %s: %w", j.Run.Job, err))
	}
	return nil
}

// Progress says how far the handler has come, as any JSON. It goes with what is committed next.
func (j JobContext) Progress(value any) error {
	text, err := jsonText(value, "the progress")
	if err == nil {
		j.Step.b.call.progress(text)
	}
	return err
}

// Decode reads a result of Step.Run or Step.RunJob into a value:
//
//	user, err := stackshift.Decode[User](job.Step.Run(ctx, "create-user", createUser))
func Decode[T any](raw json.RawMessage, err error) (value T, _ error) {
	if err != nil {
		return value, err
	}
	return value, json.Unmarshal(orNull(raw), &value)
}

func (b *branch) context() JobContext {
	r := b.call.request
	return JobContext{Payload: r.Payload, Attempt: r.Run.Attempt, Run: r.Run, Step: Step{b}, State: State{b}, Log: Log{b.call},
		Traceparent: r.Traceparent}
}

// Log writes into the run's log. Lines go with what is committed next, and what a replay has written already is left out.
type Log struct{ call *call }

// Debug writes a line; `fields` are names and values in turn.
func (l Log) Debug(message string, fields ...any) { l.call.log("debug", message, fieldsText(fields)) }

// Info writes a line; `fields` are names and values in turn.
func (l Log) Info(message string, fields ...any) { l.call.log("info", message, fieldsText(fields)) }

// Warn writes a line; `fields` are names and values in turn.
func (l Log) Warn(message string, fields ...any) { l.call.log("warning", message, fieldsText(fields)) }

// Error writes a line; `fields` are names and values in turn.
func (l Log) Error(message string, fields ...any) { l.call.log("error", message, fieldsText(fields)) }

const fieldsBytesMax = 256 * 1024 // a line of the log is not to fail its run, which a mebibyte would

func fieldsText(fields []any) string {
	if len(fields) == 0 {
		return ""
	}
	values := map[string]json.RawMessage{}
	for i := 0; i < len(fields); i += 2 {
		name, value := "!badkey", fields[i]
		if i+1 < len(fields) {
			name, value = cleanText(fmt.Sprint(fields[i])), fields[i+1]
		}
		if err, ok := value.(error); ok {
			value = cleanText(err.Error())
		}
		text, err := jsonText(value, name)
		if err != nil {
			text = mustJSON(cleanText(fmt.Sprint(value)))
		}
		values[name] = json.RawMessage(text)
	}
	text := mustJSON(values)
	if len(text) > fieldsBytesMax {
		return fmt.Sprintf(`{"leftOut":"fields of %d bytes"}`, len(text))
	}
	return text
}

type registeredJob struct {
	name    string
	handler Handler
	options JobOptions
}

// jobs are the jobs that this process serves.
type jobs struct {
	mu     sync.RWMutex
	byName map[string]*registeredJob
	order  []string
}

func (j *jobs) add(job *registeredJob) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !validName(job.name) {
		return invalid("job name %.210q is not a name; 1 to 200 characters of A-Z a-z 0-9 _ . : / @ - are allowed", job.name)
	}
	if job.handler == nil {
		return invalid("job %s has no handler", job.name)
	}
	if j.byName[job.name] != nil {
		return invalid("job %s is there already; a name stands for one handler", job.name)
	}
	if j.byName == nil {
		j.byName = map[string]*registeredJob{}
	}
	j.byName[job.name] = job
	j.order = append(j.order, job.name)
	return nil
}

func (j *jobs) get(name string) *registeredJob {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.byName[name]
}

// describe is what a worker learns by GET.
func (j *jobs) describe(version string) (string, error) {
	type description struct {
		Name        string   `json:"name"`
		MaxAttempts int      `json:"maxAttempts,omitempty"`
		Backoff     *Backoff `json:"backoff,omitempty"`
		Timeout     string   `json:"timeout,omitempty"`
		Version     string   `json:"version,omitempty"`
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	all := []description{}
	for _, name := range j.order {
		o := j.byName[name].options
		one := description{Name: name, MaxAttempts: o.MaxAttempts, Backoff: o.Backoff, Version: o.Version}
		if o.Timeout != 0 {
			text, err := durationText("timeout", o.Timeout)
			if err != nil {
				return "", err
			}
			one.Timeout = text
		}
		all = append(all, one)
	}
	return jsonText(map[string]any{"protocol": 1, "version": textOrNil(version), "jobs": all}, "the jobs")
}

func textOrNil(text string) any {
	if text == "" {
		return nil
	}
	return text
}
