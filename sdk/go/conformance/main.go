// The jobs of docs/conformance.md, for `durable conformance`. STACKSHIFT_SIGNING_SECRET is the secret.
//
// Usage: conformance [PORT]     prints the endpoint's URL, and serves until it is ended
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	stackshift "github.com/stackshift-cloud/jobs-go"
)

type object = map[string]any

// gives is a step's function that returns a value.
func gives(value any) stackshift.StepFunc {
	return func(context.Context) (any, error) { return value, nil }
}

// number does a step that returns a number.
func number(ctx context.Context, job stackshift.JobContext, name string, n int) (int, error) {
	return stackshift.Decode[int](job.Step.Run(ctx, name, gives(n)))
}

func steps(ctx context.Context, job stackshift.JobContext) (any, error) {
	sum := 0
	for i, name := range []string{"a", "b", "c"} {
		n, err := number(ctx, job, name, i+1)
		if err != nil {
			return nil, err
		}
		sum += n
	}
	return sum, nil
}

func run(_ context.Context, job stackshift.JobContext) (any, error) {
	return object{"id": job.Run.ID, "job": job.Run.Job, "attempt": job.Attempt, "queueName": job.Run.QueueName, "tags": job.Run.Tags}, nil
}

func repeatNames(ctx context.Context, job stackshift.JobContext) (any, error) {
	all := []int{}
	for i := 1; i <= 3; i++ {
		n, err := number(ctx, job, "n", i)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

func parallel(ctx context.Context, job stackshift.JobContext) (any, error) {
	sum := 0
	branch := func(name string, n int) func(context.Context, stackshift.JobContext) error {
		return func(ctx context.Context, job stackshift.JobContext) error {
			got, err := number(ctx, job, name, n)
			sum += got
			return err
		}
	}
	err := job.Step.Parallel(ctx, branch("p1", 1), branch("p2", 2), branch("p3", 3))
	return sum, err
}

func logs(ctx context.Context, job stackshift.JobContext) (any, error) {
	job.Log.Info("hello", "n", 1)
	if err := job.Progress(object{"half": true}); err != nil {
		return nil, err
	}
	return number(ctx, job, "a", 1)
}

func wait(ctx context.Context, job stackshift.JobContext) (any, error) {
	var in struct{ Key string }
	if err := job.Decode(&in); err != nil {
		return nil, err
	}
	event, err := job.Step.WaitForEvent(ctx, "conformance.go", &stackshift.WaitOptions{CorrelationKey: in.Key,
		Timeout: 24 * time.Hour, OnTimeout: stackshift.OnTimeoutContinue})
	if err != nil {
		return nil, err
	}
	if event.TimedOut {
		return object{"timedOut": true}, nil
	}
	return object{"timedOut": false, "payload": event.Payload}, nil
}

func waitAny(ctx context.Context, job stackshift.JobContext) (any, error) {
	event, err := job.Step.WaitForAny(ctx, []stackshift.EventPattern{{Event: "conformance.a", CorrelationKey: "k"},
		{Event: "conformance.b"}})
	if err != nil {
		return nil, err
	}
	return event.Name, nil
}

func sleep(ctx context.Context, job stackshift.JobContext) (any, error) {
	if err := job.Step.Sleep(ctx, time.Hour); err != nil {
		return nil, err
	}
	return "awake", job.Step.SleepUntil(ctx, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
}

func child(ctx context.Context, job stackshift.JobContext) (any, error) {
	result, err := job.Step.RunJob(ctx, "conformance.echo", object{"n": 7})
	if err != nil {
		return object{"error": err.Error()}, nil
	}
	return object{"child": result}, nil
}

func children(ctx context.Context, job stackshift.JobContext) (any, error) {
	gave := make([]json.RawMessage, 3)
	branches := make([]func(context.Context, stackshift.JobContext) error, 3)
	for i := range branches {
		i := i
		branches[i] = func(ctx context.Context, job stackshift.JobContext) (err error) {
			gave[i], err = job.Step.RunJob(ctx, "conformance.echo", object{"n": i + 1},
				&stackshift.ChildOptions{Name: fmt.Sprintf("c%d", i+1)})
			return err
		}
	}
	err := job.Step.Parallel(ctx, branches...)
	return gave, err
}

func race(ctx context.Context, job stackshift.JobContext) (any, error) {
	first, err := job.Step.Race(ctx, func(ctx context.Context, job stackshift.JobContext) error {
		_, err := job.Step.WaitForEvent(ctx, "conformance.go")
		return err
	}, func(ctx context.Context, job stackshift.JobContext) error {
		return job.Step.Sleep(ctx, time.Hour)
	})
	if err != nil {
		return nil, err
	}
	return job.Step.Run(ctx, "after", gives([]string{"event", "sleep"}[first]))
}

func sendEvent(ctx context.Context, job stackshift.JobContext) (any, error) {
	return job.Step.SendEvent(ctx, "conformance.sent", object{"n": 1},
		&stackshift.SendEventOptions{CorrelationKey: "k", IdempotencyKey: "once"})
}

func state(ctx context.Context, job stackshift.JobContext) (any, error) {
	_, err := job.State.Set(ctx, "conformance.k", object{"n": 1})
	value, errGet := job.State.Get(ctx, "conformance.k")
	sum, errIncrement := job.State.Increment(ctx, "conformance.n", 5)
	deleted, errDelete := job.State.Delete(ctx, "conformance.k")
	locked, errLock := job.State.Lock(ctx, "conformance.l", &stackshift.LockOptions{TTL: time.Minute})
	unlocked, errUnlock := job.State.Unlock(ctx, "conformance.l")
	for _, one := range []error{err, errGet, errIncrement, errDelete, errLock, errUnlock} {
		if one != nil {
			return nil, one
		}
	}
	return object{"value": value.Value, "number": sum, "deleted": deleted, "locked": locked, "unlocked": unlocked}, nil
}

func stateRefused(ctx context.Context, job stackshift.JobContext) (any, error) {
	version, code := int64(7), "none"
	var refused *stackshift.Error
	if _, err := job.State.Set(ctx, "conformance.k", 1, &stackshift.StateOptions{IfVersion: &version}); errors.As(err, &refused) {
		code = refused.Code
	}
	return job.Step.Run(ctx, "after", gives(code))
}

func fails(ctx context.Context, job stackshift.JobContext) (any, error) {
	return job.Step.Run(ctx, "try", func(context.Context) (any, error) {
		if job.Attempt == 1 {
			return nil, errors.New("not yet")
		}
		return job.Attempt, nil
	})
}

func caught(ctx context.Context, job stackshift.JobContext) (any, error) {
	message := "none"
	if _, err := job.Step.Run(ctx, "bad", func(context.Context) (any, error) { return nil, errors.New("bad") }); err != nil {
		message = err.Error()
	}
	return job.Step.Run(ctx, "good", gives(message))
}

func stepRetry(ctx context.Context, job stackshift.JobContext) (any, error) {
	var in struct{ SucceedsAt int }
	if err := job.Decode(&in); err != nil {
		return nil, err
	}
	tries, err := job.Step.Run(ctx, "flaky", func(ctx context.Context) (any, error) {
		info, _ := stackshift.StepFrom(ctx)
		if info.Attempt < in.SucceedsAt {
			return nil, fmt.Errorf("flaky %d", info.Attempt)
		}
		return info.Attempt, nil
	}, &stackshift.StepOptions{MaxAttempts: 3, Backoff: &stackshift.Backoff{Initial: 2 * time.Second}})
	if err != nil {
		return object{"error": err.Error()}, nil
	}
	return object{"tries": tries}, nil
}

func nested(ctx context.Context, job stackshift.JobContext) (any, error) {
	return job.Step.Run(ctx, "outer", func(ctx context.Context) (any, error) { return job.Step.Run(ctx, "inner", gives(1)) })
}

func slow(ctx context.Context, job stackshift.JobContext) (any, error) {
	var in struct{ Ms int }
	if err := job.Decode(&in); err != nil {
		return nil, err
	}
	if _, err := job.Step.Run(ctx, "slow", func(ctx context.Context) (any, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(in.Ms) * time.Millisecond):
			return nil, nil
		}
	}); err != nil {
		return nil, err
	}
	_, err := number(ctx, job, "after", 1)
	return "done", err
}

// text is as long as the payload says.
func text(job stackshift.JobContext) (string, error) {
	var in struct{ Bytes int }
	err := job.Decode(&in)
	return strings.Repeat("x", in.Bytes), err
}

func large(ctx context.Context, job stackshift.JobContext) (any, error) {
	whole, err := text(job)
	if err != nil {
		return nil, err
	}
	got, err := stackshift.Decode[string](job.Step.Run(ctx, "large", gives(whole)))
	return len(got), err
}

// endpoint serves the jobs.
func endpoint() http.Handler {
	client := stackshift.New(stackshift.Options{})
	for name, handler := range map[string]stackshift.Handler{
		"steps": steps,
		"echo": func(_ context.Context, job stackshift.JobContext) (any, error) {
			return json.RawMessage(job.Payload), nil
		},
		"run":           run,
		"nothing":       func(context.Context, stackshift.JobContext) (any, error) { return nil, nil },
		"repeat-names":  repeatNames,
		"parallel":      parallel,
		"log":           logs,
		"wait":          wait,
		"wait-any":      waitAny,
		"sleep":         sleep,
		"child":         child,
		"children":      children,
		"race":          race,
		"send-event":    sendEvent,
		"state":         state,
		"state-refused": stateRefused,
		"error":         fails,
		"non-retryable": func(context.Context, stackshift.JobContext) (any, error) {
			return nil, stackshift.NonRetryable(errors.New("never"))
		},
		"retry-after": func(context.Context, stackshift.JobContext) (any, error) {
			return nil, stackshift.RetryAfter(errors.New("later"), 30*time.Second)
		},
		"caught":     caught,
		"step-retry": stepRetry,
		"not-json": func(ctx context.Context, job stackshift.JobContext) (any, error) {
			return job.Step.Run(ctx, "bad", gives(make(chan int)))
		},
		"nested":       nested,
		"slow":         slow,
		"large":        large,
		"large-result": func(_ context.Context, job stackshift.JobContext) (any, error) { return text(job) },
	} {
		client.Job("conformance."+name, handler)
	}
	return client.Handler()
}

func main() {
	port := "0"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("http://" + listener.Addr().String())
	log.Fatal(http.Serve(listener, endpoint()))
}
