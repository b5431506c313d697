package stackshift

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func returns(value any) StepFunc { return func(context.Context) (any, error) { return value, nil } }
func fails(err error) StepFunc   { return func(context.Context) (any, error) { return nil, err } }

func TestStepsAreCommittedThenRemembered(t *testing.T) {
	called := 0
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		id, err := Decode[int](job.Step.Run(ctx, "create", func(context.Context) (any, error) { called++; return 7, nil }))
		if err != nil {
			return nil, err
		}
		event, err := job.Step.WaitForEvent(ctx, "email.verified", &WaitOptions{CorrelationKey: "u:1", Timeout: 24 * time.Hour})
		if err != nil {
			return nil, err
		}
		var by struct{ By string }
		if err := event.Decode(&by); err != nil {
			return nil, err
		}
		return fmt.Sprintf("%d %s %s %s", id, by.By, event.Name, event.CorrelationKey), nil
	})
	op := f.suspendedBy(f.call(), "wait_event")
	want := map[string]any{"op": "wait_event", "name": "email.verified", "event": "email.verified", "correlationKey": "u:1", "timeout": "1d", "onTimeout": "fail"}
	if !reflect.DeepEqual(op, want) {
		t.Fatalf("%v", op)
	}
	f.remember("email.verified", "wait_event", map[string]any{"result": map[string]any{"timedOut": false, "id": "e", "name": "email.verified",
		"correlationKey": "u:1", "payload": map[string]any{"by": "ada"}, "receivedAt": "2026-05-06T09:00:00.000001Z"}})
	f.completed(f.call(), `"7 ada email.verified u:1"`)
	if called != 1 {
		t.Fatalf("the step was called %d times", called)
	}
}

func TestEveryCallSaysItsOp(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		n, err := job.State.Increment(ctx, "n", 3)
		if err != nil || n != 3 {
			return nil, fmt.Errorf("increment: %v %v", n, err)
		}
		if id, err := job.Step.SendEvent(ctx, "shipped", map[string]any{"a": 1}, &SendEventOptions{CorrelationKey: "o"}); err != nil || id != "e1" {
			return nil, fmt.Errorf("send: %v %v", id, err)
		}
		if err := job.Step.Sleep(ctx, 90*time.Minute); err != nil {
			return nil, err
		}
		if err := job.Step.SleepUntil(ctx, time.Date(2026, 5, 6, 9, 0, 0, 0, time.UTC)); err != nil {
			return nil, err
		}
		child, err := Decode[string](job.Step.RunJob(ctx, "child", nil, &ChildOptions{StartOptions: StartOptions{Priority: 3}}))
		if err != nil {
			return nil, err
		}
		any, err := job.Step.WaitForAny(ctx, []EventPattern{{Event: "a"}, {"b", "k"}}, &WaitOptions{OnTimeout: OnTimeoutContinue, Timeout: time.Second})
		if err != nil || !any.TimedOut {
			return nil, fmt.Errorf("%v %v", any, err)
		}
		return child, nil
	})
	if op := f.suspendedBy(f.call(), "sleep"); op["duration"] != "1h30m" || op["name"] != "sleep" {
		t.Fatal(op)
	}
	f.remember("sleep", "sleep", map[string]any{"result": nil})
	if op := f.suspendedBy(f.call(), "sleep"); op["until"] != "2026-05-06T09:00:00Z" || op["name"] != "sleep#2" {
		t.Fatal(op)
	}
	f.remember("sleep#2", "sleep", nil)
	op := f.suspendedBy(f.call(), "child")
	if !reflect.DeepEqual(op, map[string]any{"op": "child", "name": "child", "job": "child", "payload": map[string]any{}, "options": map[string]any{"priority": 3.0}}) {
		t.Fatal(op)
	}
	f.remember("child", "child", map[string]any{"result": "done"})
	if op := f.suspendedBy(f.call(), "wait_any"); op["name"] != "a/b" || op["timeout"] != "1s" {
		t.Fatal(op)
	}
	f.remember("a/b", "wait_any", map[string]any{"result": map[string]any{"timedOut": true}})
	f.completed(f.call(), `"done"`)
	want := []string{"state state.increment", "send_event send:shipped", "sleep sleep", "sleep sleep#2", "child child", "wait_any a/b"}
	if !reflect.DeepEqual(f.ops, want) {
		t.Fatalf("%v", f.ops)
	}
}

func TestAnErrorThatEndsTheAttemptIsKeptNowhere(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		_, err := job.Step.Run(ctx, "charge", fails(RetryAfter(errors.New("busy"), 30*time.Second)))
		return nil, err
	})
	answer := f.call()
	f.failedWith(answer, "Error", "", true)
	if len(f.ops) != 0 || answer.Error.RetryAfter != "30s" || answer.Error.Step != "charge" || answer.Error.Message != "busy" {
		t.Fatalf("%v %+v", f.ops, answer.Error)
	}
}

func TestAnErrorThatTheHandlerDealsWithIsRemembered(t *testing.T) {
	called := 0
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		_, err := job.Step.Run(ctx, "charge", func(context.Context) (any, error) { called++; return nil, errors.New("declined") })
		var step *StepError
		if !errors.As(err, &step) || step.Message != "declined" || step.Name != "Error" || step.Step != "charge" || !step.Retryable {
			return nil, fmt.Errorf("%#v", err)
		}
		if _, err := job.Step.Run(ctx, "refund", returns(nil)); err != nil {
			return nil, err
		}
		return true, job.Step.Sleep(ctx, time.Second)
	})
	f.suspendedBy(f.call(), "sleep")
	f.remember("sleep", "sleep", nil)
	f.completed(f.call(), "true")
	if want := []string{"step charge", "step refund", "sleep sleep"}; !reflect.DeepEqual(f.ops, want) || called != 1 {
		t.Fatalf("%v, called %d times", f.ops, called)
	}
}

func TestAStepWithAPolicyIsTriedAgainFirst(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		_, err := job.Step.Run(ctx, "mail", func(ctx context.Context) (any, error) {
			info, _ := StepFrom(ctx)
			return nil, fmt.Errorf("try %d of %s", info.Attempt, info.IdempotencyKey)
		}, &StepOptions{MaxAttempts: 2, Backoff: &Backoff{Initial: 2 * time.Second}})
		return err.Error(), nil
	})
	op := f.suspendedBy(f.call(), "step_retry")
	if op["tries"] != 1.0 || !reflect.DeepEqual(op["backoff"], map[string]any{"initial": "2s"}) {
		t.Fatal(op)
	}
	f.completed(f.call(), `"try 2 of r1:mail"`)
	f.completed(f.call(), `"try 2 of r1:mail"`)
}

func TestATryHasItsTime(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		_, err := job.Step.Run(ctx, "slow", func(ctx context.Context) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
			&StepOptions{Timeout: 10 * time.Millisecond})
		return nil, err
	})
	f.failedWith(f.call(), "StepTimeoutError", "", true)
}

func TestNonRetryablePassesThroughAStep(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		_, err := job.Step.Run(ctx, "look", fails(NonRetryable(errors.New("gone"))), &StepOptions{MaxAttempts: 5})
		return nil, fmt.Errorf("order: %w", err)
	})
	f.failedWith(f.call(), "Error", "", false)
}

func TestPanicsAreErrors(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		_, err := job.Step.Run(ctx, "boom", func(context.Context) (any, error) { panic("no") })
		if err == nil || err.Error() != "panic: no" {
			return nil, fmt.Errorf("%v", err)
		}
		panic("yes")
	})
	answer := f.call()
	f.failedWith(answer, "Panic", "", true)
	if answer.Error.Message != "panic: yes" || !strings.Contains(answer.Error.Stack, "step_test.go") {
		t.Fatalf("%+v", answer.Error)
	}
}

func TestASuspensionIsNoErrorOfTheHandlers(t *testing.T) {
	var recovered atomic.Value
	deferred := 0
	f := newFleet(t, func(ctx context.Context, job JobContext) (result any, err error) {
		defer func() { deferred++ }()
		defer func() {
			_, _ = job.Step.Run(ctx, "cleanup", returns(1)) // does not come to anything while the run suspends
		}()
		defer func() {
			if value := recover(); value != nil {
				recovered.Store(value)
			}
		}()
		if err := job.Step.Sleep(ctx, time.Hour); err != nil {
			return nil, err
		}
		return "woke", nil
	})
	f.suspendedBy(f.call(), "sleep")
	if recovered.Load() != nil || deferred != 1 || len(f.ops) != 1 {
		t.Fatalf("recovered %v, deferred %d, ops %v", recovered.Load(), deferred, f.ops)
	}
	f.remember("sleep", "sleep", nil)
	f.completed(f.call(), `"woke"`)
	if want := []string{"sleep sleep", "step cleanup"}; !reflect.DeepEqual(f.ops, want) {
		t.Fatal(f.ops)
	}
}

func TestParallelStepsRunAtTheSameTimeAndReplay(t *testing.T) {
	var both sync.WaitGroup
	both.Add(2)
	calls := int32(0)
	branch := func(name string, out *string) func(context.Context, JobContext) error {
		return func(ctx context.Context, job JobContext) error {
			got, err := Decode[string](job.Step.Run(ctx, name, func(context.Context) (any, error) {
				atomic.AddInt32(&calls, 1)
				both.Done()
				both.Wait()
				if name == "a" { // b is committed first, so in a replay as well it asks for the first `same`
					time.Sleep(30 * time.Millisecond)
				}
				return name, nil
			}))
			if err != nil {
				return err
			}
			same, err := Decode[string](job.Step.Run(ctx, "same", returns(got+" asked")))
			*out = same
			return err
		}
	}
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		var a, b string
		if err := job.Step.Parallel(ctx, branch("a", &a), branch("b", &b)); err != nil {
			return nil, err
		}
		if err := job.Step.Sleep(ctx, time.Hour); err != nil {
			return nil, err
		}
		return a + ", " + b, nil
	})
	f.suspendedBy(f.call(), "sleep")
	f.remember("sleep", "sleep", nil)
	f.completed(f.call(), `"a asked, b asked"`)
	if calls != 2 || f.steps[0]["name"] != "b" || f.steps[1]["name"] != "same" || f.steps[1]["result"] != "b asked" {
		t.Fatalf("%d calls, %v", calls, f.steps)
	}
}

func TestParallelEndsWithItsFirstErrorAndKeepsWhatIsInHand(t *testing.T) {
	tries := 0
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		err := job.Step.Parallel(ctx,
			func(ctx context.Context, job JobContext) error {
				_, err := job.Step.Run(ctx, "bad", func(context.Context) (any, error) {
					if tries++; tries == 1 {
						return nil, errors.New("first")
					}
					return 1, nil
				})
				return err
			},
			func(ctx context.Context, job JobContext) error {
				if _, err := job.Step.Run(ctx, "long", func(context.Context) (any, error) {
					time.Sleep(30 * time.Millisecond)
					return 2, nil
				}); err != nil {
					return err
				}
				_, err := job.Step.Run(ctx, "after", returns(3))
				return err
			},
			func(ctx context.Context, job JobContext) error { // it waits, and is not waited for
				_, err := job.Step.WaitForEvent(ctx, "never")
				return err
			})
		return "no error", err
	})
	answer := f.call()
	f.failedWith(answer, "Error", "", true)
	if want := []string{"step long"}; !reflect.DeepEqual(f.ops, want) {
		t.Fatal(f.ops)
	}
	f.attempt = 2
	f.suspendedBy(f.call(), "wait_event") // the others go on first
	f.remember("never", "wait_event", map[string]any{"result": map[string]any{"timedOut": false}})
	f.completed(f.call(), `"no error"`)
}

func TestPatchedIsDecidedOnce(t *testing.T) {
	handler := func(ctx context.Context, job JobContext) (any, error) {
		if job.Step.Patched("new") {
			if _, err := job.Step.Run(ctx, "new-step", returns(1)); err != nil {
				return nil, err
			}
		}
		if _, err := job.Step.Run(ctx, "old-step", returns(1)); err != nil {
			return nil, err
		}
		return job.Step.Patched("new"), nil
	}
	f := newFleet(t, handler)
	f.completed(f.call(), "true")
	if want := []string{"step patched:new", "step new-step", "step old-step"}; !reflect.DeepEqual(f.ops, want) {
		t.Fatal(f.ops)
	}
	f.completed(f.call(), "true")
	f = newFleet(t, handler)
	f.remember("old-step", "step", map[string]any{"result": 1})
	f.completed(f.call(), "false")
}

func TestMisuseFailsTheRunEvenIfItIsDropped(t *testing.T) {
	for code, handler := range map[string]Handler{
		"nested_step": func(ctx context.Context, job JobContext) (any, error) {
			return job.Step.Run(ctx, "outer", func(ctx context.Context) (any, error) {
				_, _ = job.Step.Run(ctx, "inner", returns(1))
				return 1, nil
			})
		},
		"concurrent_step": func(outside context.Context, job JobContext) (any, error) {
			return job.Step.Run(outside, "outer", func(context.Context) (any, error) {
				_, _ = job.Step.Run(outside, "inner", returns(1))
				return 1, nil
			})
		},
		"step_not_awaited": func(ctx context.Context, job JobContext) (any, error) {
			began := make(chan struct{})
			go job.Step.Run(ctx, "left", func(context.Context) (any, error) {
				close(began)
				time.Sleep(20 * time.Millisecond)
				return 1, nil
			})
			<-began
			return 1, nil
		},
		"result_not_json": func(ctx context.Context, job JobContext) (any, error) {
			_, _ = job.Step.Run(ctx, "chan", returns(make(chan int)))
			return 1, nil
		},
		"invalid_name": func(ctx context.Context, job JobContext) (any, error) {
			_, _ = job.Step.Run(ctx, "two words", returns(1))
			return 1, nil
		},
		"goexit": func(ctx context.Context, job JobContext) (any, error) {
			runtime.Goexit()
			return nil, nil
		},
	} {
		f := newFleet(t, handler)
		f.failedWith(f.call(), "MisuseError", code, false)
	}
}

func TestTextsThatCannotBeStoredAreRefused(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) { return "a\x00b", nil })
	f.failedWith(f.call(), "MisuseError", "result_not_json", false)
	f = newFleet(t, func(ctx context.Context, job JobContext) (any, error) { return `a\u0000 <b>`, nil })
	f.completed(f.call(), `"a\\u0000 <b>"`)
}

func TestLockIsAskedForAgainWithoutHoldingAWorker(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		return job.State.Lock(ctx, "k", &LockOptions{TTL: time.Minute, Wait: time.Second})
	})
	f.answer = func(o map[string]any) any {
		if o["op"] == "state" {
			return map[string]any{"result": o["name"] == "state.lock#3"}
		}
		return nil
	}
	for _, name := range []string{"state.lock.wait", "state.lock.wait#2"} {
		f.suspendedBy(f.call(), "sleep")
		f.remember(name, "sleep", nil)
	}
	f.completed(f.call(), "true")
}

func TestStateIsRefusedAsAnError(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		zero := int64(0)
		_, err := job.State.Set(ctx, "k", 1, &StateOptions{IfVersion: &zero})
		var refused *Error
		if !errors.As(err, &refused) {
			return nil, fmt.Errorf("%#v", err)
		}
		return fmt.Sprint(refused.Code, refused.Status), nil
	})
	f.answer = func(o map[string]any) any {
		if o["ifVersion"] != 0.0 || o["value"] != 1.0 {
			t.Errorf("%v", o)
		}
		return map[string]any{"error": map[string]any{"name": "StackShiftError", "code": "conflict", "message": "it is there"}}
	}
	f.completed(f.call(), `"conflict409"`)
	f.completed(f.call(), `"conflict409"`)
}
