package stackshift

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

// One call of a handler: from the worker's request to the answer.
//
// The handler runs on a goroutine of its own, its *branches* (Step.Parallel) on theirs, and one of them at a time has
// the turn, which it gives away in each durable call. Step functions run on other goroutines, side by side, without the
// turn. When every branch waits, `pump` gives one of them what it waits for, in an order that a replay repeats
// (replay.go); when there is nothing to give and nothing goes on, the call ends.
//
// A call that ends (a wait, a drain, a cancel) leaves branches that stand in the middle of a handler. They end by
// runtime.Goexit, not by a panic: Goexit runs what the handler has deferred, so locks and files are freed, but no
// recover() of the handler's can see it, let alone take it for an error of its own and go on. (A panic would have to be
// looked for behind every recover, after the harm is done, and would end the process in a goroutine that is not ours.)
// Durable calls that deferred functions make meanwhile end the same way.
//
// What Goexit cannot reach is a goroutine that the handler has started by itself. So durable calls belong on the
// branches that the SDK gives; two at a time on one branch are refused, and so are those inside of a step.
//
// A step's error without a policy is the handler's to deal with. If the attempt ends with it, it is kept nowhere, and
// the step is done again in the next. If the branch that got it goes on instead, it has dealt with it: then the error
// is committed before what comes next, since a replay has to take the same way. See `caught`.
//
// Waits, sleeps and children go together, once nothing else goes on: the run goes on with the first of them that is
// over, and its handler asks for the rest again. What a handler leaves behind of them (Step.Race) is never said.
//
// call.mu guards all of it, and is taken before a commitLine's.

type callRequest struct {
	Protocol int             `json:"protocol"`
	Run      RunInfo         `json:"run"`
	Payload  json.RawMessage `json:"payload"`
	Steps    []remembered    `json:"steps"`
	Tries    map[string]int  `json:"tries"`
	Commit   *struct {
		URL      string `json:"url"`
		Token    string `json:"token"`
		MaxRunMs int64  `json:"maxRunMs"`
	} `json:"commit"`
	Traceparent string `json:"traceparent"`
}

// ask is one thing that the handler has asked for.
type ask struct {
	branch  *branch
	kind    string
	name    string
	begin   func(a *ask) // does what is new; with call.mu
	result  json.RawMessage
	err     error
	settled bool
}

// op is something to commit. `of` is what waits for its result; nil: nothing does.
type op struct {
	text  string
	named bool // known again by its name, if it is said twice
	of    *ask
	err   error // what `of` is given, instead of the op's result
}

type delivery struct {
	to     *ask
	result json.RawMessage
	err    error
}

// caughtError is a step's error that a branch was given and that is committed nowhere.
type caughtError struct {
	op     string
	branch *branch
}

type settings struct {
	heartbeat, requestTimeout, retryFor, rest time.Duration
	cancelGrace, unwindGrace                  time.Duration
}

var defaultSettings = settings{
	heartbeat:      4 * time.Second, // looked at each half second: one is said each 5 s at the latest
	requestTimeout: 10 * time.Second, retryFor: 15 * time.Second, rest: 5 * time.Second,
	cancelGrace: 5 * time.Second, unwindGrace: time.Second,
}

type call struct {
	request  *callRequest
	job      *registeredJob
	settings *settings
	lines    *commitLines
	ctx      context.Context
	cancel   context.CancelFunc
	answer   chan string   // what to answer; takes one
	gone     chan struct{} // closed at the end: branches leave
	unwound  chan struct{} // closed when they have

	mu        sync.Mutex
	line      *commitLine // nil: answer mode
	replay    *replay
	deadline  time.Time // zero: none
	main      *branch
	running   *branch   // has the turn
	ready     []*branch // get it next
	live      int       // branches whose goroutines have not ended
	busy      int       // step functions, named ops under way, refs being read
	finished  []func()  // step functions have ended: what to make of it, once every branch waits
	committed []delivery
	failed    []delivery // uncommitted errors: given when nothing is under way to be committed
	underWay  int        // named ops that wait for their commit
	caught    []caughtError
	races     int // groups of Step.Race under way
	wanted    []wanted
	pending   []op
	sent      []op
	lazy      int
	said      time.Time // when the commit line last spoke for this call
	ended     *outcome  // of the handler
	misuse    error
	fatal     error
	mismatch  *mismatch
	ending    bool // answer at the next occasion
	cancelled bool
	over      bool
}

type outcome struct {
	value any
	err   error
}

// wanted is an op that suspends, once nothing else goes on.
type wanted struct {
	of    *ask
	text  string
	alone bool // not together with others, and before them
}

const (
	branchesMax      = 500 // that may suspend a run at once
	branchesBytesMax = 2 * 1024 * 1024
	lazyOpsMax       = 100
	lazyOpsKeptMax   = 1000
	answerBytesMax   = 4 * 1024 * 1024
)

func newCall(request *callRequest, job *registeredJob, lines *commitLines, s *settings) *call {
	c := &call{request: request, job: job, settings: s, lines: lines, replay: newReplay(request.Steps),
		answer: make(chan string, 1), gone: make(chan struct{}), unwound: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.WithValue(context.Background(), callKey{}, c))
	if commit := request.Commit; commit != nil && commit.URL != "" {
		if commit.MaxRunMs > 0 {
			c.deadline = time.Now().Add(time.Duration(commit.MaxRunMs) * time.Millisecond)
		}
		if line := lines.of(commit.URL); line.reachable() {
			c.line = line
		}
	}
	return c
}

// run calls the handler and gives the answer.
func (c *call) run() string {
	c.mu.Lock()
	if c.line != nil {
		c.line.attach(c)
	}
	c.main = &branch{call: c, turn: make(chan struct{}, 1)}
	c.running, c.live = c.main, 1
	c.mu.Unlock()
	go c.branchRun(c.main, func() (any, error) { return c.job.handler(c.ctx, c.main.context()) })
	text := <-c.answer
	timer := time.NewTimer(c.settings.unwindGrace)
	defer timer.Stop()
	select { // what the handler has deferred is done before the run is called again, if that does not take long
	case <-c.unwound:
	case <-timer.C:
	}
	return text
}

// drain: end at the next occasion, since the process goes down.
func (c *call) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = time.Now()
}

// hungUp: what goes on is committed if it still may be; nothing new begins.
func (c *call) hungUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	c.pump()
}

// --- What goes on ---

// yield gives the turn away.
func (c *call) yield(b *branch) {
	if c.running == b {
		c.running = nil
	}
	c.pump()
}

// closing: nothing new begins, nothing is given any more.
func (c *call) closing() bool {
	return c.ending || c.cancelled || c.fatal != nil || c.mismatch != nil
}

// pump gives the turn to the next branch. When all wait, it gives one what it waits for; when there is nothing to give
// and nothing goes on, it ends the call. Called with mu whenever something has changed.
func (c *call) pump() {
	for !c.over {
		if c.ended != nil {
			if c.takeUp() {
				continue
			}
			if c.busy == 0 {
				c.end()
			}
			return
		}
		if c.running != nil {
			return
		}
		if len(c.ready) > 0 {
			c.running, c.ready = c.ready[0], c.ready[1:]
			c.running.turn <- struct{}{}
			return
		}
		if c.closing() && c.takeUp() || !c.closing() && c.give() {
			continue
		}
		if c.busy == 0 {
			c.end()
		}
		return
	}
}

// give gives one branch what it waits for, or begins what is new; false: there is nothing.
func (c *call) give() bool {
	if a, entry := c.replay.next(); a != nil {
		if entry.Ref != "" {
			c.load(entry)
		} else if entry.forgotten() {
			c.replay.again = a
			c.begin(a)
		} else {
			c.replay.passed()
			c.deliver(outcomeOf(a, entry))
		}
		return true
	}
	if len(c.committed) > 0 {
		one := c.committed[0]
		c.committed = c.committed[1:]
		c.deliver(one)
		return true
	}
	// What else goes on in a race comes before an error that is not committed, here as in a replay.
	if len(c.failed) > 0 && c.underWay == 0 && (c.races == 0 || c.busy == 0) {
		one := c.failed[0]
		c.failed = c.failed[1:]
		c.deliver(one)
		return true
	}
	if held := c.replay.begin(); len(held) > 0 {
		for _, a := range held {
			c.begin(a)
		}
		return true
	}
	// Not sooner: an error that a branch was given before has to be committed before.
	return c.takeUp()
}

// takeUp takes up one step function that has ended; false: there is none.
func (c *call) takeUp() bool {
	if len(c.finished) == 0 {
		return false
	}
	take := c.finished[0]
	c.finished = c.finished[1:]
	take()
	return true
}

// begin does what is new, or has to be done again.
func (c *call) begin(a *ask) {
	// What its branch came from has gone on too, to Step.Parallel. What other branches of that have ended with is not among
	// it: then this one would not begin anything.
	c.caughtKeep(func(of *branch) bool { return of.above(a.branch) })
	a.begin(a)
}

func outcomeOf(a *ask, entry *remembered) delivery {
	if entry.Error != nil {
		return delivery{to: a, err: errorOf(entry.Error, a.name)}
	}
	return delivery{to: a, result: entry.Result}
}

func (c *call) deliver(d delivery) {
	if d.to == c.replay.again {
		c.replay.passed()
	}
	d.to.result, d.to.err, d.to.settled = d.result, d.err, true
	c.ready = append(c.ready, d.to.branch)
}

func (c *call) misused(err error) {
	if c.misuse == nil {
		c.misuse = err
	}
}

// commit says an op whose result is given to `o.of`.
func (c *call) commit(o op) {
	o.named = true
	c.pending = append(c.pending, o)
	if c.line == nil {
		c.ending = true
		return
	}
	c.busy++
	c.underWay++
	c.line.wake(c)
}

// pushLazy: an op that nobody waits for goes with the next one, with a heartbeat, or in a crowd.
func (c *call) pushLazy(o op) {
	if c.line == nil && c.lazy >= lazyOpsKeptMax {
		return
	}
	c.pending = append(c.pending, o)
	if c.lazy++; c.line != nil && c.lazy >= lazyOpsMax {
		c.line.wake(c)
	}
}

// suspend says an op that suspends the run, once nothing else goes on.
func (c *call) suspend(of *ask, text string, alone bool) {
	c.wanted = append(c.wanted, wanted{of, text, alone})
}

// load reads an entry that did not fit into the call.
func (c *call) load(entry *remembered) {
	c.replay.loading = true
	c.busy++
	commit := c.request.Commit
	go func() {
		var value *opResult
		err := error(misuseOf("ref", "the run remembers more than fits into a call, and there is no commit.url to read it from"))
		if commit != nil && commit.URL != "" {
			value, err = c.lines.of(commit.URL).read(c.ctx, entry.Ref, commit.Token)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.busy--
		c.replay.loading = false
		if err != nil {
			if c.fatal == nil {
				c.fatal = err
			}
		} else {
			entry.Ref, entry.Result, entry.Error = "", orNull(value.Result), value.Error
		}
		c.pump()
	}()
}

func (c *call) log(level, message string, fields string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.replay.ahead() { // a replay has written it already
		return
	}
	text := `{"op":"log","level":"` + level + `","message":` + mustJSON(cleanText(message))
	if fields != "" {
		text += `,"fields":` + fields
	}
	c.pushLazy(op{text: text + "}"})
}

func (c *call) progress(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.replay.ahead() {
		return
	}
	o := op{text: `{"op":"progress","value":` + text + `}`}
	for i := range c.pending {
		if strings.HasPrefix(c.pending[i].text, `{"op":"progress"`) {
			c.pending[i] = o // only how far it has come by now matters
			return
		}
	}
	c.pushLazy(o)
}

// --- As the commit line sees it ---

// take hands over ops, the oldest first, up to about so many bytes; more: there are others.
func (c *call) take(bytesMax int) (ops []op, more, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil, false, true
	}
	count, bytes := 0, 0
	for count < len(c.pending) && (count == 0 || bytes+len(c.pending[count].text) <= bytesMax) {
		bytes += len(c.pending[count].text)
		count++
	}
	c.sent = append([]op(nil), c.pending[:count]...)
	c.pending = c.pending[count:]
	c.lazy, c.said = 0, time.Now()
	return c.sent, len(c.pending) > 0, false
}

// settle tells what came of the ops that were taken.
func (c *call) settle(answer commitAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ops := c.sent
	c.sent = nil
	if c.over {
		return
	}
	if answer.Code != "" {
		c.refused(answer.Code, answer.Message)
		return
	}
	if answer.Cancelled && !c.cancelled {
		c.cancelled = true
		c.cancel()
		time.AfterFunc(c.settings.cancelGrace, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.endCancelled()
		})
	}
	late := !c.deadline.IsZero() && !time.Now().Before(c.deadline)
	for i, o := range ops {
		if o.of == nil {
			continue
		}
		c.busy--
		c.underWay--
		c.ending = c.ending || late // not at a heartbeat: the work in hand would begin again, and again
		d := delivery{to: o.of, result: orNull(answer.Results[i].Result), err: o.err}
		if refused := answer.Results[i].Error; refused != nil {
			d.err = errorOf(refused, o.of.name)
		} else if o.of.kind == "step" && d.err == nil {
			d.result = o.of.result
		}
		c.committed = append(c.committed, d)
	}
	c.pump()
}

// unreachable: nobody answers at commit.url, so the ops go with the answer.
func (c *call) unreachable() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.line == nil {
		return
	}
	c.line.detach(c)
	c.line = nil
	c.pending = append(namedOps(c.sent), c.pending...)
	c.sent = nil
	for _, o := range c.pending {
		if o.of != nil {
			c.ending = true
			c.busy--
			c.underWay--
		}
	}
	c.pump()
}

func (c *call) refused(code, message string) {
	c.cancel()
	if code == "lease_lost" {
		c.finish("failed", `,"error":{"name":"LeaseLost","message":"another worker has the run"}`, "")
		return
	}
	if message == "" {
		message = "what the handler did was refused"
	}
	if c.fatal == nil {
		c.fatal = NonRetryable(&Error{Code: code, Status: codeStatus[code], Detail: message, retryAfter: -1})
	}
	c.pending = nil // they belong behind what was refused
	c.fail(c.fatal)
}

func orNull(text json.RawMessage) json.RawMessage {
	if text == nil {
		return json.RawMessage("null")
	}
	return text
}
