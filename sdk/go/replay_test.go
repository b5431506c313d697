package stackshift

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func step(ctx context.Context, job JobContext, names ...string) error {
	for _, name := range names {
		if _, err := job.Step.Run(ctx, name, returns(name)); err != nil {
			return err
		}
	}
	return nil
}

func TestOtherCodeParksTheRun(t *testing.T) {
	for _, one := range []struct {
		name     string
		memory   [][2]string
		asks     []string
		at       string
		expected string
		found    string
	}{
		{"renamed", [][2]string{{"a", "step"}}, []string{"b"}, "a", "a", "b"},
		{"put before", [][2]string{{"a", "step"}}, []string{"new", "a"}, "a", "a", "new"},
		{"out of order", [][2]string{{"a", "step"}, {"b", "step"}}, []string{"b", "a"}, "a", "a", "b"},
		{"left out", [][2]string{{"a", "step"}, {"b", "step"}}, []string{"a"}, "b", "b", "end"},
		{"another kind", [][2]string{{"a", "sleep"}}, []string{"a"}, "a", "a (sleep)", "a (step)"},
	} {
		t.Run(one.name, func(t *testing.T) {
			f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) { return nil, step(ctx, job, one.asks...) })
			for _, entry := range one.memory {
				f.remember(entry[0], entry[1], map[string]any{"result": 1})
			}
			op := f.suspendedBy(f.call(), "park")
			if op["name"] != one.at || op["expected"] != one.expected || op["found"] != one.found || len(f.requests) != 0 {
				t.Fatalf("%v, %d commits", op, len(f.requests))
			}
		})
	}
}

func TestRepeatedNamesAreCounted(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) { return nil, step(ctx, job, "a", "a", "b", "a") })
	f.remember("a", "step", map[string]any{"result": 1})
	f.remember("a#2", "step", map[string]any{"result": 1})
	f.completed(f.call(), "null")
	if len(f.ops) != 2 || f.ops[1] != "step a#3" {
		t.Fatal(f.ops)
	}
}

func TestRefsAreReadWhenTheirTurnComes(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		a, err := Decode[string](job.Step.Run(ctx, "big", returns("called")))
		if err != nil {
			return nil, err
		}
		_, err = job.Step.Run(ctx, "bad", returns("called"))
		return a + " " + err.Error(), nil
	})
	f.remember("big", "step", map[string]any{"ref": "1"})
	f.remember("bad", "step", map[string]any{"ref": "2&x"})
	f.refs = map[string]string{"1": `{"result":"much"}`, "2&x": `{"error":{"message":"long"}}`}
	f.completed(f.call(), `"much long"`)

	delete(f.refs, "1")
	f.commitURL += "/%zz" // nothing can be read from there
	answer := f.call()
	f.failedWith(answer, "Error", "", true)
}

func TestReplayWritesNoLogAgain(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
		job.Log.Info("before", "n", 1)
		if err := step(ctx, job, "a"); err != nil {
			return nil, err
		}
		job.Log.Warn("behind", "error", context.Canceled, "odd")
		job.Log.Warn("behind", "large", strings.Repeat("x", 300000))
		return nil, job.Step.Sleep(ctx, time.Second)
	})
	answer := f.call()
	f.suspendedBy(answer, "sleep")
	if f.ops[0] != "log <nil>" || answer.Ops[0]["op"] != "log" || answer.Ops[0]["level"] != "warning" {
		t.Fatal(f.ops, answer.Ops)
	}
	if fields := fmt.Sprint(answer.Ops[1]["fields"]); fields != "map[leftOut:fields of 300012 bytes]" {
		t.Fatal(fields[:100])
	}
	f.remember("sleep", "sleep", nil)
	if answer = f.call(); len(answer.Ops) != 0 {
		t.Fatal(answer.Ops)
	}
}

func TestAHandlerThatFailsHalfWayIsNotParked(t *testing.T) {
	f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) { return nil, context.DeadlineExceeded })
	f.remember("a", "step", map[string]any{"result": 1})
	f.failedWith(f.call(), "deadlineExceededError", "", true)
}

// Branches that use the same names, in calls that end anywhere: each gets back what was its own, and nothing is done
// again that was committed.
func TestBranchesGetTheirOwnBack(t *testing.T) {
	total := 0
	for seed := int64(1); seed <= 24; seed++ {
		random := rand.New(rand.NewSource(seed))
		plan := [3][5]int{}
		for i := range plan {
			for j := range plan[i] {
				plan[i][j] = random.Intn(7)
			}
		}
		var delays int64 = seed
		var winners sync.Map
		branch := func(i int) func(context.Context, JobContext) error {
			return func(ctx context.Context, job JobContext) error {
				for j, what := range plan[i] {
					want := fmt.Sprint(i, j)
					fn := func(context.Context) (any, error) {
						time.Sleep(time.Duration(atomic.AddInt64(&delays, 7)%5) * 300 * time.Microsecond)
						return want, nil
					}
					var got string
					var err error
					switch what {
					case 0:
						got, err = want, job.Step.Sleep(ctx, time.Second)
					case 1: // fails, and is dealt with
						_, err = job.Step.Run(ctx, "y", fails(errors.New(want)))
						got, err = err.Error(), nil
					case 2:
						err = job.Step.Parallel(ctx, func(ctx context.Context, job JobContext) error {
							_, err := job.Step.Run(ctx, "x", fails(errors.New(want)))
							return err
						}, func(ctx context.Context, job JobContext) error {
							_, err := job.Step.Run(ctx, "z", returns(1))
							return err
						})
						got, err = err.Error(), nil
					case 3:
						var first int
						first, err = job.Step.Race(ctx, func(ctx context.Context, job JobContext) error {
							_, err := job.Step.WaitForEvent(ctx, "event")
							return err
						}, func(ctx context.Context, job JobContext) error {
							return job.Step.Sleep(ctx, time.Second)
						}, func(ctx context.Context, job JobContext) error {
							_, err := job.Step.RunJob(ctx, "child", nil)
							return err
						})
						won := fmt.Sprint(i, j, " ", first)
						if before, known := winners.LoadOrStore(fmt.Sprint(i, j), won); known && before != won {
							return NonRetryable(fmt.Errorf("%v has won before, and %s now", before, won))
						}
						got = want
					case 4: // an error and what else goes on in a race
						_, err = job.Step.Race(ctx, func(ctx context.Context, job JobContext) error {
							_, err := job.Step.Run(ctx, "x", fails(errors.New(want)))
							return err
						}, func(ctx context.Context, job JobContext) error {
							_, err := job.Step.Run(ctx, "z", fn)
							return err
						})
						won := fmt.Sprint(i, j, " ", err)
						if before, known := winners.LoadOrStore(fmt.Sprint(i, j), won); known && before != won {
							return NonRetryable(fmt.Errorf("%v has won before, and %s now", before, won))
						}
						got, err = want, nil
					default:
						got, err = Decode[string](job.Step.Run(ctx, "x", fn))
					}
					if err != nil {
						return err
					}
					if got != want {
						return NonRetryable(fmt.Errorf("branch %d, call %d got %s", i, j, got))
					}
				}
				return nil
			}
		}
		f := newFleet(t, func(ctx context.Context, job JobContext) (any, error) {
			return true, job.Step.Parallel(ctx, branch(0), branch(1), branch(2))
		})
		f.maxRunMs = []int{300000, 3, 1}[seed%3]
		forgotten := 0
		f.noCommit = seed%5 == 0
		f.onCommit = func(n int) int { return []int{0, 0, 0, 503, 0, -1}[(int64(n)+seed)%6] }
		answer := answerOf{Status: "suspended"}
		for calls := 0; answer.Status != "completed"; calls++ {
			if answer = f.call(); answer.Status == "failed" || calls > 200 {
				t.Fatalf("seed %d: %s %+v", seed, answer.Status, answer.Error)
			}
			if answer.Status == "suspended" {
				waits := []map[string]any{}
				for _, o := range answer.Ops {
					switch o["op"] {
					case "sleep", "child", "wait_event":
						waits = append(waits, o)
					case "park":
						t.Fatalf("seed %d: %v", seed, o)
					}
				}
				first := waits[random.Intn(len(waits))]
				f.remember(first["name"].(string), first["op"].(string), map[string]any{"result": map[string]any{}})
				if random.Intn(4) == 0 {
					forgotten += f.retry()
				}
			}
		}
		total += forgotten
		f.serving.Close()
		f.commits.Close()
	}
	if total == 0 {
		t.Fatal("nothing was forgotten")
	}
}
