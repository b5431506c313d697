package stackshift

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

type branchOf = func(context.Context, JobContext) error

func sleeping(name string) branchOf {
	return func(ctx context.Context, job JobContext) error {
		return job.Step.Sleep(ctx, time.Hour, &SleepOptions{Name: name})
	}
}

func waiting(event string) branchOf {
	return func(ctx context.Context, job JobContext) error {
		_, err := job.Step.WaitForEvent(ctx, event)
		return err
	}
}

// kid runs a child of job kid under a name, and keeps what it gives.
func kid(name string, gave *string) branchOf {
	return func(ctx context.Context, job JobContext) (err error) {
		*gave, err = Decode[string](job.Step.RunJob(ctx, "kid", nil, &ChildOptions{Name: name}))
		return err
	}
}

func stepping(name string, fn StepFunc, options ...*StepOptions) branchOf {
	return func(ctx context.Context, job JobContext) error {
		_, err := job.Step.Run(ctx, name, fn, options...)
		return err
	}
}

func TestWhatSuspendsGoesTogether(t *testing.T) {
	for _, answering := range []bool{false, true} {
		f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
			var a, b, c string
			err := job.Step.Parallel(ctx, kid("a", &a), kid("b", &b), kid("c", &c), sleeping("nap"), waiting("go"))
			return a + b + c, err
		})
		f.noCommit = answering
		f.suspendedTogether(f.call(), "child a", "child b", "child c", "sleep nap", "wait_event go")
		f.remember("b", "child", map[string]any{"result": "B"})
		f.suspendedTogether(f.call(), "child a", "child c", "sleep nap", "wait_event go")
		f.remember("nap", "sleep", nil)
		f.remember("c", "child", map[string]any{"result": "C"})
		f.remember("go", "wait_event", map[string]any{"result": map[string]any{"timedOut": false}})
		f.suspendedTogether(f.call(), "child a")
		f.remember("a", "child", map[string]any{"result": "A"})
		f.completed(f.call(), `"ABC"`)
	}
}

func TestStepsAreDoneBeforeTheRunIsSuspended(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		return nil, job.Step.Parallel(ctx, sleeping("nap"), stepping("work", returns(1)), waiting("go"))
	})
	f.suspendedTogether(f.call(), "sleep nap", "wait_event go")
	if want := []string{"step work", "sleep nap", "wait_event go"}; !reflect.DeepEqual(f.ops, want) {
		t.Fatal(f.ops)
	}
}

func TestATryOfAStepGoesAlone(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		return nil, job.Step.Parallel(ctx, sleeping("nap"), stepping("other", returns(1)),
			stepping("work", fails(errors.New("no")), &StepOptions{MaxAttempts: 2}), waiting("go"))
	})
	f.suspendedTogether(f.call(), "step_retry work")
	f.noCommit, f.steps, f.tries = true, nil, map[string]int{}
	f.suspendedTogether(f.call(), "step other", "step_retry work")
}

func TestOfVeryManyTheLastAreAskedForLater(t *testing.T) {
	for _, one := range []struct {
		count, bytes, together int
	}{{600, 10, 500}, {12, 600 * 1024, 3}, {2, 3 * 1024 * 1024, 1}} {
		f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
			var all []branchOf
			for i := 0; i < one.count; i++ {
				all = append(all, func(ctx context.Context, job JobContext) error {
					_, err := job.Step.RunJob(ctx, "kid", strings.Repeat("x", one.bytes))
					return err
				})
			}
			return nil, job.Step.Parallel(ctx, all...)
		})
		answer := f.call()
		f.suspendedBy(answer, "child")
		if len(answer.Ops) != one.together {
			t.Fatalf("%d children of %d bytes go together; %d is right", len(answer.Ops), one.bytes, one.together)
		}
	}
}

func TestTheFirstWinsARace(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		first, err := job.Step.Race(ctx, waiting("paid"), sleeping("patience"))
		if err != nil {
			return nil, err
		}
		if err := step(ctx, job, "after"); err != nil {
			return nil, err
		}
		return first, job.Step.Sleep(ctx, time.Second)
	})
	f.suspendedTogether(f.call(), "wait_event paid", "sleep patience")
	f.remember("patience", "sleep", nil)
	f.suspendedTogether(f.call(), "sleep sleep") // the wait is left behind
	f.remember("sleep", "sleep", nil)
	f.completed(f.call(), "1")
}

func TestARaceKeepsTheStepsThatHaveBegun(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		return job.Step.Race(ctx, stepping("quick", returns(1)), func(ctx context.Context, job JobContext) error {
			if err := stepping("slow", func(context.Context) (any, error) { time.Sleep(30 * time.Millisecond); return 2, nil })(ctx, job); err != nil {
				return err
			}
			return step(ctx, job, "unbegun")
		}, sleeping("nap"))
	})
	f.completed(f.call(), "0")
	if want := []string{"step quick", "step slow"}; !reflect.DeepEqual(f.ops, want) {
		t.Fatal(f.ops)
	}
	f.completed(f.call(), "0")
}

func TestAnErrorCanWinARace(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		first, err := job.Step.Race(ctx, sleeping("nap"), stepping("bad", fails(errors.New("no"))))
		return fmt.Sprint(first, " ", err), job.Step.Sleep(ctx, time.Second)
	})
	f.suspendedTogether(f.call(), "step bad", "sleep sleep")
	f.remember("sleep", "sleep", nil)
	f.completed(f.call(), `"1 no"`)

	f = newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		_, err := job.Step.Race(ctx)
		return nil, err
	})
	f.failedWith(f.call(), "StackShiftError", "invalid_argument", false)
}

func TestWhatARetryHasForgottenIsDoneAgainInItsPlace(t *testing.T) {
	for _, answering := range []bool{false, true} {
		works := false
		f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
			said := ""
			charge, err := Decode[string](job.Step.Run(ctx, "charge", func(context.Context) (any, error) {
				if !works {
					return nil, errors.New("declined")
				}
				return "charged", nil
			}))
			if err != nil {
				charge = err.Error()
			}
			if err := step(ctx, job, "note"); err != nil {
				return nil, err
			}
			if err := kid("kid", &said)(ctx, job); err != nil {
				said = err.Error()
			}
			if err := step(ctx, job, "after"); err != nil {
				return nil, err
			}
			return charge + ", " + said, nil
		})
		f.noCommit = answering
		f.suspendedBy(f.run(), "child")
		f.remember("kid", "child", map[string]any{"error": map[string]any{"name": "Error", "message": "lost"}})
		f.completed(f.run(), `"declined, lost"`)

		works, f.ops = true, nil
		if n := f.retry(); n != 2 {
			t.Fatalf("%d forgotten", n)
		}
		f.suspendedBy(f.run(), "child")
		f.remember("kid", "child", map[string]any{"result": "found"})
		f.completed(f.run(), `"charged, found"`)
		if want := []string{"step charge", "child kid"}; !reflect.DeepEqual(f.ops, want) {
			t.Fatal(f.ops)
		}
		var order []string
		for _, entry := range f.steps {
			order = append(order, entry["name"].(string))
		}
		if want := []string{"charge", "note", "kid", "after"}; !reflect.DeepEqual(order, want) {
			t.Fatal(order)
		}
	}
}
