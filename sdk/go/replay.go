package stackshift

import (
	"encoding/json"
	"fmt"
	"strings"
)

// What a run remembers, met with what its handler asks for. The order is checked here.
//
// The memory is a list in the order in which things were committed, and a cursor stands before the first entry that was
// not given back yet. An entry is given back when the cursor is at it, the handler has asked for it, and every branch
// of the handler waits (see call.go). What is new begins when the cursor is at the end.
//
// Why a handler that did not change always gets there: branches run one at a time and are given one thing at a time, in
// the order of the commits, then as now. So their code takes the same steps in the same order, the n-th use of a name
// is the same use, and whoever asked for entry i after being given the entries before it asks for it again. Turned
// round: where every branch waits and none has asked for the entry at the cursor, this is other code than began the
// run, and the run is parked. No time has to pass to see that.
//
// An entry with neither a result nor an error is one that a retry of the run has forgotten. It is done again in its
// place: the cursor stays until that is over.
//
// A patch is remembered as a step `patched:NAME`. The cursor passes over patches, so that a call of Patched can be
// taken out again once no run needs it.

// remembered is one entry, as the worker sends it.
type remembered struct {
	Name   string          `json:"name"`
	Kind   string          `json:"kind"`
	Result json.RawMessage `json:"result"`
	Error  *wireError      `json:"error"`
	Ref    string          `json:"ref"`
}

func (e *remembered) forgotten() bool { return e.Ref == "" && e.Result == nil && e.Error == nil }

// mismatch says where the code differs from the one that began the run.
type mismatch struct {
	Op       string `json:"op"`
	Name     string `json:"name"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
}

type replay struct {
	entries []remembered
	places  map[string]int
	counts  map[string]int
	asked   map[int]*ask
	patches map[string]bool
	held    []*ask // asked for, new, not begun
	cursor  int
	loading bool // the entry at the cursor is on its way
	again   *ask // does again what the entry at the cursor has forgotten
}

const patchPrefix = "patched:"

func newReplay(entries []remembered) *replay {
	r := &replay{entries: entries, places: make(map[string]int, len(entries)), counts: map[string]int{},
		asked: map[int]*ask{}, patches: map[string]bool{}}
	for place, entry := range entries {
		r.places[entry.Name] = place
	}
	r.skipPatches()
	return r
}

// ahead: something is remembered that was not given back yet.
func (r *replay) ahead() bool { return r.cursor < len(r.entries) }

// nameOf is the name under which the next use of `base` is remembered: itself, then base#2, …
func (r *replay) nameOf(base string) string {
	r.counts[base]++
	if n := r.counts[base]; n > 1 {
		return fmt.Sprintf("%s#%d", base, n)
	}
	return base
}

// ask notes what was asked for. A mismatch is for good: no order of things gives a name another kind.
func (r *replay) ask(a *ask) *mismatch {
	place, known := r.places[a.name]
	if !known {
		r.held = append(r.held, a)
		return nil
	}
	if entry := r.entries[place]; entry.Kind != a.kind {
		return &mismatch{"park", entry.Name, entry.Name + " (" + entry.Kind + ")", a.name + " (" + a.kind + ")"}
	}
	r.asked[place] = a
	return nil
}

// next is the entry at the cursor with who asked for it; nil: nobody, or there is none.
func (r *replay) next() (*ask, *remembered) {
	if !r.ahead() || r.loading || r.again != nil || r.asked[r.cursor] == nil {
		return nil, nil
	}
	return r.asked[r.cursor], &r.entries[r.cursor]
}

// passed: the entry at the cursor was given back, or done again.
func (r *replay) passed() {
	r.again = nil
	delete(r.asked, r.cursor)
	r.cursor++
	r.skipPatches()
}

// begin takes what is new and may begin now.
func (r *replay) begin() []*ask {
	if r.ahead() {
		return nil
	}
	held := r.held
	r.held = nil
	return held
}

// drop forgets what a branch has asked for and not begun; false: it has begun, or is remembered.
func (r *replay) drop(a *ask) bool {
	for i, held := range r.held {
		if held == a {
			r.held = append(r.held[:i:i], r.held[i+1:]...)
			return true
		}
	}
	return false
}

// patch tells whether the run is yet to come to the place where Patched(name) was put into the code, and the op to
// commit if that is decided here.
func (r *replay) patch(name string) (patched bool, op string) {
	patched, known := r.patches[name]
	if known {
		return patched, ""
	}
	_, old := r.places[patchPrefix+name]
	patched = old || !r.ahead()
	r.patches[name] = patched
	if patched && !old {
		op = patchPrefix + name
	}
	return patched, op
}

// left is what a handler that waits or has ended leaves out; nil: nothing.
func (r *replay) left(ended bool) *mismatch {
	if !r.ahead() {
		return nil
	}
	found := "end"
	if !ended {
		for place := r.cursor; place < len(r.entries); place++ {
			if a := r.asked[place]; a != nil {
				found = a.name
				break
			}
		}
		if len(r.held) > 0 {
			found = r.held[0].name
		}
	}
	name := r.entries[r.cursor].Name
	return &mismatch{"park", name, name, found}
}

func (r *replay) skipPatches() {
	for r.ahead() && strings.HasPrefix(r.entries[r.cursor].Name, patchPrefix) {
		r.cursor++
	}
}
