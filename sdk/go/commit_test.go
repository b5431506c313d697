package stackshift

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func twoSteps(ctx context.Context, job JobContext) (any, error) {
	return true, step(ctx, job, "a", "b")
}

func TestALostAnswerIsSaidAgainUnchanged(t *testing.T) {
	for name, status := range map[string]int{"lost": -1, "503": 503, "500": 500} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, twoSteps)
			f.onCommit = func(n int) int {
				if n == 1 {
					return status
				}
				return 0
			}
			f.completed(f.call(), "true")
			if len(f.requests) != 3 || !bytes.Equal(f.requests[0], f.requests[1]) || len(f.steps) != 2 {
				t.Fatalf("%d requests, %v", len(f.requests), f.steps)
			}
		})
	}
}

func TestWhereCommitIsNullTheAnswerCarriesIt(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		if err := step(ctx, job, "a", "b"); err != nil {
			return nil, err
		}
		return job.State.Increment(ctx, "n", 2)
	})
	f.noCommit = true
	f.completed(f.run(), "2")
	if f.calls != 4 || len(f.requests) != 0 || f.state["n"] != 2 {
		t.Fatalf("%d calls, %d requests, %v", f.calls, len(f.requests), f.state)
	}
}

func TestWhereCommitCannotBeReachedTheAnswerCarriesIt(t *testing.T) {
	f := newFleet(t, twoSteps)
	f.commits.Close()
	f.completed(f.run(), "true")
	if f.calls != 3 || len(f.ops) != 2 {
		t.Fatalf("%d calls, %v", f.calls, f.ops)
	}
}

func TestWhereCommitIsNotKnownTheAnswerCarriesIt(t *testing.T) {
	f := newFleet(t, twoSteps)
	f.before = func(int) int { return 404 }
	f.completed(f.run(), "true")
	if f.calls != 3 || len(f.requests) != 1 { // then it is left alone for a while
		t.Fatalf("%d calls, %d requests", f.calls, len(f.requests))
	}
}

func TestWhereTheTokenIsNotKnownTheAnswerCarriesIt(t *testing.T) {
	f := newFleet(t, twoSteps)
	f.partCode = "unauthorized"
	f.completed(f.run(), "true")
	if f.calls != 3 || len(f.requests) != 2 || len(f.ops) != 2 { // each call has a token of its own, and tries
		t.Fatalf("%d calls, %d requests, %v", f.calls, len(f.requests), f.ops)
	}
}

func TestAStepIsDoneOnceWhicheverRequestFails(t *testing.T) {
	for failing := 1; failing <= 4; failing++ {
		for _, status := range []int{-1, 503, 404} {
			called := map[string]int{}
			f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
				for _, name := range []string{"a", "b", "c"} {
					name := name
					if _, err := job.Step.Run(ctx, name, func(context.Context) (any, error) { called[name]++; return 1, nil }); err != nil {
						return nil, err
					}
				}
				return job.State.Increment(ctx, "n", 1)
			})
			f.onCommit = func(n int) int {
				if n == failing {
					return status
				}
				return 0
			}
			f.completed(f.run(), "1")
			if called["a"] != 1 || called["b"] != 1 || called["c"] != 1 || f.state["n"] != 1 {
				t.Fatalf("request %d, %d: %v %v", failing, status, called, f.state)
			}
		}
	}
}

func TestLeaseLostEndsTheHandler(t *testing.T) {
	ended := make(chan bool, 1)
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		defer func() { ended <- ctx.Err() != nil }()
		return nil, step(ctx, job, "a", "b")
	})
	f.partCode = "lease_lost"
	if answer := f.call(); answer.Status != "failed" || len(answer.Ops) != 0 || answer.Error.Name != "LeaseLost" {
		t.Fatalf("%+v", answer)
	}
	if !<-ended || len(f.requests) != 1 {
		t.Fatalf("%d requests", len(f.requests))
	}
}

func TestRefusedOpsFailTheRun(t *testing.T) {
	f := newFleet(t, twoSteps)
	f.partCode = "payload_too_large"
	answer := f.call()
	f.failedWith(answer, "StackShiftError", "payload_too_large", false)
	if len(answer.Ops) != 0 || !strings.Contains(answer.Error.Message, "step big is 2000000 bytes") {
		t.Fatalf("%+v", answer.Error)
	}
}

func TestAHeartbeatTellsOfACancel(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		return job.Step.Run(ctx, "long", func(step context.Context) (any, error) {
			<-step.Done()
			return 1, nil
		})
	})
	f.onCommit = func(int) int { f.cancelled = true; return 0 }
	answer := f.call()
	if answer.Status != "failed" || answer.Error.Name != "Cancelled" || len(answer.Ops) != 0 || len(f.ops) != 0 {
		t.Fatalf("%+v %v", answer, f.ops)
	}
	if len(f.requests) != 2 || !bytes.Contains(f.requests[0], []byte(`"ops":[]`)) {
		t.Fatalf("%q", f.requests)
	}
}

func TestACancelledStepHearsOfItThroughAnyContext(t *testing.T) {
	f := newFleet(t, func(_ context.Context, job JobContext) (any, error) {
		return job.Step.Run(context.Background(), "long", func(step context.Context) (any, error) { <-step.Done(); return 1, nil })
	})
	f.cancelled = true
	if answer := f.call(); answer.Error == nil || answer.Error.Name != "Cancelled" {
		t.Fatalf("%+v", answer)
	}
}

func TestACancelDoesNotWaitForAHandlerThatDoesNotListen(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		<-release
		return nil, step(ctx, job, "a")
	})
	f.cancelled = true
	begin := time.Now()
	if answer := f.call(); answer.Error == nil || answer.Error.Name != "Cancelled" || time.Since(begin) > 3*time.Second {
		t.Fatalf("%+v after %s", answer, time.Since(begin))
	}
}

func TestWhenItsTimeHasPassedACallEndsAtTheNextCommit(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		for i := 0; i < 3; i++ {
			if _, err := job.Step.Run(ctx, "s", func(context.Context) (any, error) { time.Sleep(5 * time.Millisecond); return i, nil }); err != nil {
				return nil, err
			}
		}
		return "end", nil
	})
	f.maxRunMs = 1
	f.completed(f.run(), `"end"`)
	if f.calls != 4 || len(f.requests) != 3 {
		t.Fatalf("%d calls, %d requests", f.calls, len(f.requests))
	}
}

func TestOnceTheWorkerHasHungUpNoStepBegins(t *testing.T) {
	began, opened, unwound := make(chan bool), make(chan bool), make(chan bool)
	var calls atomic.Int32
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		defer close(unwound)
		began <- true
		<-opened
		return job.Step.Run(ctx, "step", func(context.Context) (any, error) { calls.Add(1); return 1, nil })
	})
	ctx, hangUp := context.WithCancel(context.Background())
	heard := make(chan error, 1)
	go func() {
		response, err := http.DefaultClient.Do(signed(http.MethodPost, f.serving.URL, f.body(), time.Now()).WithContext(ctx))
		if err == nil {
			response.Body.Close()
		}
		heard <- err
	}()
	<-began
	hangUp()
	if err := <-heard; err == nil {
		t.Fatal("an answer")
	}
	time.Sleep(50 * time.Millisecond) // the endpoint hears of it
	close(opened)
	<-unwound
	f.mu.Lock()
	defer f.mu.Unlock()
	if calls.Load() != 0 || len(f.ops) != 0 {
		t.Fatalf("the step was called %d times; committed: %v", calls.Load(), f.ops)
	}
}

func TestOneRequestCarriesWhatManyRunsCommit(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) { return nil, step(ctx, job, "a") })
	var inFlight, most int32
	handler := f.commits.Config.Handler
	f.commits.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := atomic.AddInt32(&inFlight, 1); n > atomic.LoadInt32(&most) {
			atomic.StoreInt32(&most, n)
		}
		time.Sleep(20 * time.Millisecond)
		handler.ServeHTTP(w, r)
		atomic.AddInt32(&inFlight, -1)
	})
	var all sync.WaitGroup
	for i := 0; i < 30; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			r := signed(http.MethodPost, f.serving.URL, f.body(), time.Now())
			response, err := http.DefaultClient.Do(r)
			if err != nil || response.StatusCode != 200 {
				t.Error(err, response)
				return
			}
			response.Body.Close()
		}()
	}
	all.Wait()
	if most != 1 || len(f.requests) > 15 {
		t.Fatalf("%d at a time, %d requests", most, len(f.requests))
	}
}

func TestAnAnswerThatIsTooLargeFails(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		_, err := job.Step.Run(ctx, "big", returns(strings.Repeat("x", 5<<20)))
		return nil, err
	})
	f.noCommit = true
	answer := f.call()
	f.failedWith(answer, "StackShiftError", "payload_too_large", false)
	if !strings.Contains(answer.Error.Message, "step big alone is 524") {
		t.Fatal(answer.Error.Message)
	}
}

func TestProgressIsTheLastThatIsKnown(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		for i := 0; i < 3; i++ {
			if err := job.Progress(map[string]any{"done": i}); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	if answer := f.call(); len(answer.Ops) != 1 || fmt.Sprint(answer.Ops[0]["value"]) != "map[done:2]" {
		t.Fatal(answer.Ops)
	}
}
