package stackshift

import (
	"context"
	"encoding/json"
	"runtime"
	"runtime/debug"
)

// The goroutines of a handler, and how their durable calls wait. See the head of call.go.

// branch is a line of the handler's: itself, or one of Step.Parallel or Step.Race.
type branch struct {
	call   *call
	parent *branch
	group  *group
	place  int // in its group
	turn   chan struct{}
	in     string // the durable call that it is in, as an error names it
	ask    *ask
}

// group is the branches of one Step.Parallel or Step.Race.
type group struct {
	race    bool
	live    int
	first   int // the place of the branch that stopped it
	err     error
	stopped bool // one has failed, or won: the others begin nothing more
}

func (b *branch) stopped() bool {
	for ; b != nil; b = b.parent {
		if b.group != nil && b.group.stopped {
			return true
		}
	}
	return false
}

// above: b is `other`, or what it came from.
func (b *branch) above(other *branch) bool {
	for ; other != nil; other = other.parent {
		if other == b {
			return true
		}
	}
	return false
}

// branchRun is the goroutine of a branch: the handler's, or one of the functions of Parallel or Race.
func (c *call) branchRun(b *branch, fn func() (any, error)) {
	var end outcome
	returned := false
	defer func() {
		if value := recover(); value != nil {
			end.err = &panicked{value, string(debug.Stack())}
		} else if !returned {
			end.err = misuseOf("goexit", "the handler ended its goroutine with runtime.Goexit; return an error instead")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.branchEnded(b, end)
		if c.live--; c.live == 0 && c.over {
			close(c.unwound)
		}
	}()
	if b.group != nil {
		b.await(nil)
	}
	end.value, end.err = fn()
	returned = true
}

func (c *call) branchEnded(b *branch, end outcome) {
	if c.over {
		return
	}
	if b.in != "" && !b.left() {
		c.misused(misuseOf("step_not_awaited", "the handler did not wait for %s, which runs in a goroutine of its own; "+
			"to do several things at a time, use Step.Parallel or Step.Race", b.in))
	}
	if b.group == nil {
		c.ended = &end
	} else {
		c.caughtMove(b, end.err)
		if b.left() {
			end.err = nil
		}
		g := b.group
		if !g.stopped && !b.left() && (end.err != nil || g.race) {
			g.err, g.first, g.stopped = end.err, b.place, true
			c.stop(g)
		}
		if g.live--; g.live == 0 {
			c.groupEnded(g, b.parent)
		}
	}
	c.yield(b)
}

// left: the branch has been told to leave, by Goexit.
func (b *branch) left() bool { return b.ask == leaving }

var leaving = &ask{}

// groupEnded lets the branch go on that waits for its group. Where that hears of an error which is not committed, this
// waits until all that is committed has been given: then the error is the next to be committed, and a replay comes to it
// at the same time. Where the error is of what was done again in its place, the replay goes on behind it.
func (c *call) groupEnded(g *group, parent *branch) {
	if g.race {
		c.races--
	}
	for _, one := range c.caught {
		if one.branch == parent && !c.replay.ahead() {
			c.failed = append(c.failed, delivery{to: parent.ask})
			return
		}
	}
	c.ready = append(c.ready, parent)
}

// caughtMove: a branch has ended. Without an error, it has dealt with what it caught; with one, its parent will, or not.
func (c *call) caughtMove(b *branch, err error) {
	if err == nil {
		c.caughtKeep(func(of *branch) bool { return of == b })
		return
	}
	for i := range c.caught {
		if c.caught[i].branch == b {
			c.caught[i].branch = b.parent
		}
	}
}

// caughtKeep: these branches have dealt with the errors that they were given, so a replay has to give them again.
func (c *call) caughtKeep(dealt func(of *branch) bool) {
	var others []caughtError
	for _, one := range c.caught {
		if dealt(one.branch) {
			c.pending = append(c.pending, op{text: one.op, named: true})
		} else {
			others = append(others, one)
		}
	}
	c.caught = others
}

// stop ends the branches of a group that wait for something new which has not begun. Those that have begun something,
// or wait for what is remembered, get it first: they leave at what they ask for next, then as in a replay.
func (c *call) stop(g *group) {
	drop := func(a *ask) bool {
		for b := a.branch; b != nil; b = b.parent {
			if b.group == g {
				c.ready = append(c.ready, a.branch) // it finds its ask unsettled
				return true
			}
		}
		return false
	}
	for _, a := range append([]*ask(nil), c.replay.held...) {
		if drop(a) {
			c.replay.drop(a)
		}
	}
	var others []wanted
	for _, w := range c.wanted {
		if !drop(w.of) {
			others = append(others, w)
		}
	}
	c.wanted = others
}

// do makes a durable call: gives what is remembered, or does what is new. `what` is the call as an error names it.
func (b *branch) do(ctx context.Context, kind, base, what string, begin func(a *ask)) (json.RawMessage, error) {
	c := b.call
	c.mu.Lock()
	if c.over || c.ended != nil || b.left() {
		c.mu.Unlock()
		runtime.Goexit()
	}
	if err := c.refuse(ctx, b, base, what); err != nil {
		c.misused(err)
		c.mu.Unlock()
		return nil, err
	}
	a := &ask{branch: b, kind: kind, name: c.replay.nameOf(base), begin: begin}
	if b.stopped() {
		b.ask = leaving
		c.mu.Unlock()
		runtime.Goexit()
	}
	b.in, b.ask = what, a
	if m := c.replay.ask(a); m != nil && c.mismatch == nil {
		c.mismatch = m
	}
	c.yield(b)
	c.mu.Unlock()
	b.await(a)
	return a.result, a.err
}

// refuse says why a call cannot be done here; nil: it can.
func (c *call) refuse(ctx context.Context, b *branch, base, what string) error {
	if info, inside := StepFrom(ctx); inside {
		return misuseOf("nested_step", "%s was called inside of step %q: a step is done as a whole, so it cannot have "+
			"durable calls in it; move the call out of the step, behind it", what, info.Name)
	}
	if b.in != "" {
		return misuseOf("concurrent_step", "%s was called while %s was not over: inside of it, or in a goroutine of its own; "+
			"move it behind that one, or use Step.Parallel to do several things at a time", what, b.in)
	}
	if !validName(base) {
		return misuseOf("invalid_name", "%.210q in %s is not a name; 1 to 200 characters of A-Z a-z 0-9 _ . : / @ - are allowed", base, what)
	}
	return nil
}

// await waits for the turn, and for what was asked for. If that is not to come, it does not return.
func (b *branch) await(a *ask) {
	c := b.call
	select {
	case <-b.turn:
	case <-c.gone:
	}
	c.mu.Lock()
	b.in = ""
	leave := c.over || a != nil && !a.settled
	if leave {
		b.ask = leaving
	} else {
		b.ask = nil
	}
	c.mu.Unlock()
	if leave {
		runtime.Goexit()
	}
}

// sideBySide runs functions as branches, and waits until all have ended: by themselves, or told to leave.
func (b *branch) sideBySide(ctx context.Context, what string, g *group, fns []func(context.Context, JobContext) error) error {
	c := b.call
	c.mu.Lock()
	if c.over || c.ended != nil || b.left() {
		c.mu.Unlock()
		runtime.Goexit()
	}
	if err := c.refuse(ctx, b, "branches", what); err != nil {
		c.misused(err)
		c.mu.Unlock()
		return err
	}
	if len(fns) == 0 {
		c.mu.Unlock()
		return nil
	}
	g.live = len(fns)
	if g.race {
		c.races++
	}
	a := &ask{branch: b, settled: true}
	b.in, b.ask = what, a
	for i, fn := range fns {
		fn, child := fn, &branch{call: c, parent: b, group: g, place: i, turn: make(chan struct{}, 1)}
		c.live++
		c.ready = append(c.ready, child)
		go c.branchRun(child, func() (any, error) { return nil, fn(ctx, child.context()) })
	}
	c.yield(b)
	c.mu.Unlock()
	b.await(a)
	c.mu.Lock()
	leave := b.stopped() // then some of these branches may have left in the middle
	if leave {
		b.ask = leaving
	}
	c.mu.Unlock()
	if leave {
		runtime.Goexit()
	}
	return nil
}
