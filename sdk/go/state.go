package stackshift

import (
	"context"
	"encoding/json"
	"time"
)

// State is the namespace's durable memory as a handler sees it: reads see the run's own writes, changes happen exactly
// once, and all of it is remembered. What the database refuses is an *Error.
type State struct{ b *branch }

// StateValue is a value of the state.
type StateValue struct {
	Value     json.RawMessage `json:"value"`
	Version   int64           `json:"version"` // grows with each change; for IfVersion
	ExpiresAt *time.Time      `json:"expiresAt"`
}

// Decode reads the value into `v`.
func (s *StateValue) Decode(v any) error { return json.Unmarshal(orNull(s.Value), v) }

// StateOptions are the settings of a change.
type StateOptions struct {
	ExpiresAt time.Time // when the value goes away; zero: never
	IfVersion *int64    // only if this is the version now; 0: only if there is no value. Else an Error, "conflict"
}

// LockOptions are the settings of a lock.
type LockOptions struct {
	TTL  time.Duration // how long it holds at most; 0: until the run ends
	Wait time.Duration // how long to wait for it, without holding a worker, if somebody else has it; 0: not at all
}

// Get reads a value; nil: there is none.
func (s State) Get(ctx context.Context, key string) (*StateValue, error) {
	return Decode[*StateValue](s.do(ctx, "get", key, nil))
}

// Set writes a value, and gives its new version.
func (s State) Set(ctx context.Context, key string, value any, options ...*StateOptions) (int64, error) {
	o := optional(options)
	text, err := jsonText(value, "the value of state "+quoted(key))
	if err != nil {
		return 0, err
	}
	body := map[string]any{"value": json.RawMessage(text)}
	o.into(body)
	if o.IfVersion != nil {
		body["ifVersion"] = *o.IfVersion
	}
	set, err := Decode[struct{ Version int64 }](s.do(ctx, "set", key, body))
	return set.Version, err
}

// Delete removes a value; true: there was one.
func (s State) Delete(ctx context.Context, key string) (bool, error) {
	return Decode[bool](s.do(ctx, "delete", key, nil))
}

// Increment adds to a number, and gives the sum; what is not there counts as 0. Of `options`, only ExpiresAt is used.
func (s State) Increment(ctx context.Context, key string, by int64, options ...*StateOptions) (int64, error) {
	o := optional(options)
	body := map[string]any{"by": by}
	o.into(body)
	return Decode[int64](s.do(ctx, "increment", key, body))
}

// A lock that is held is asked for again after these times, each asking remembered.
const (
	lockPause    = 500 * time.Millisecond
	lockPauseMax = time.Minute
)

// Lock takes a lock for this run; false: somebody else has it, and had it for all of options.Wait. It is freed when the
// run ends, when options.TTL is over, or by Unlock.
func (s State) Lock(ctx context.Context, key string, options ...*LockOptions) (bool, error) {
	o := optional(options)
	body := map[string]any{"ttl": nil}
	if o.TTL != 0 {
		ttl, err := durationText("ttl", o.TTL)
		if err != nil {
			return false, err
		}
		body["ttl"] = ttl
	}
	// The same pauses for each attempt, whatever the time is: a replay has to ask as often.
	for pause, left := lockPause, o.Wait; ; pause = pause * 3 / 2 {
		if pause > lockPauseMax {
			pause = lockPauseMax
		}
		mine, err := Decode[bool](s.do(ctx, "lock", key, body))
		if mine || err != nil || left <= 0 {
			return mine, err
		}
		if pause > left {
			pause = left
		}
		left -= pause
		text, err := durationText("wait", pause)
		if err != nil {
			return false, err
		}
		if err = (Step{s.b}).sleep(ctx, "state.lock.wait", "State.Lock", "duration", text); err != nil {
			return false, err
		}
	}
}

// Unlock gives a lock back; false: the run did not have it.
func (s State) Unlock(ctx context.Context, key string) (bool, error) {
	return Decode[bool](s.do(ctx, "unlock", key, nil))
}

func (o *StateOptions) into(body map[string]any) {
	if !o.ExpiresAt.IsZero() {
		body["expiresAt"] = timeText(o.ExpiresAt)
	}
}

func (s State) do(ctx context.Context, action, key string, body map[string]any) (json.RawMessage, error) {
	if len(key) < 1 || len(key) > 512 {
		return nil, invalid("the key of a state is %d bytes; 1 to 512 are allowed", len(key))
	}
	return s.b.do(ctx, "state", "state."+action, "State."+action+"("+quoted(key)+")", func(a *ask) {
		fields := map[string]any{"op": "state", "name": a.name, "action": action, "key": key}
		for name, value := range body {
			fields[name] = value
		}
		s.b.call.commit(op{of: a, text: mustJSON(fields)})
	})
}
