package stackshift

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Committing while handlers run: the ops of all runs that have something just then go to commit.url in one request.
//
// One request is under way for each address; what gathers meanwhile goes with the next. So a lone run waits for nobody,
// and a thousand runs share few requests, without a timer. A request without an answer, or with 5xx, is said again
// unchanged: the server knows by the names what it has committed already. When that does not help either, the calls
// concerned are told `unreachable`, and carry their ops in their answers instead; for a while new calls do so from the
// beginning. One ticker for each address looks after heartbeats, and runs only while a call does.

type opResult struct {
	Result json.RawMessage `json:"result"`
	Error  *wireError      `json:"error"`
}

// commitAnswer is what came of one run's part.
type commitAnswer struct {
	Results   []opResult `json:"results"`
	Cancelled bool       `json:"cancelled"`
	Code      string     `json:"code"`
	Message   string     `json:"message"`
}

const (
	commitBytesMax       = 2 * 1024 * 1024 // about
	commitPartsMax       = 1000
	commitRefusedMax     = 4 // connections that are refused, before the calls answer instead
	commitAnswerBytesMax = 64 * 1024 * 1024
)

// commitLines are the lines of this process, by address.
type commitLines struct {
	client   *http.Client
	settings *settings
	mu       sync.Mutex
	byURL    map[string]*commitLine
}

func (l *commitLines) of(address string) *commitLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.byURL[address]
	if line == nil {
		if l.byURL == nil {
			l.byURL = map[string]*commitLine{}
		}
		line = &commitLine{url: address, client: l.client, settings: l.settings, calls: map[*call]bool{}, waits: map[*call]bool{}}
		l.byURL[address] = line
	}
	return line
}

type commitLine struct {
	url      string
	client   *http.Client
	settings *settings

	mu        sync.Mutex
	calls     map[*call]bool
	waiting   []*call
	waits     map[*call]bool // the same, as a set
	underWay  bool
	restUntil time.Time
	stopBeat  chan struct{}
}

// reachable: it is worth a try just now.
func (l *commitLine) reachable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !time.Now().Before(l.restUntil)
}

func (l *commitLine) attach(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.said = time.Now()
	l.calls[c] = true
	if l.stopBeat == nil {
		l.stopBeat = make(chan struct{})
		go l.beat(l.stopBeat)
	}
}

func (l *commitLine) detach(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, c)
	delete(l.waits, c)
	if len(l.calls) == 0 && l.stopBeat != nil {
		close(l.stopBeat)
		l.stopBeat = nil
	}
}

// wake: the call has ops to commit, or a heartbeat.
func (l *commitLine) wake(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.calls[c] || l.waits[c] {
		return
	}
	l.waits[c] = true
	l.waiting = append(l.waiting, c)
	if !l.underWay {
		l.underWay = true
		go l.send()
	}
}

func (l *commitLine) beat(stop chan struct{}) {
	ticker := time.NewTicker(l.settings.heartbeat / 8)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case now := <-ticker.C:
			l.mu.Lock()
			var calls []*call
			for c := range l.calls {
				calls = append(calls, c)
			}
			l.mu.Unlock()
			for _, c := range calls {
				c.mu.Lock()
				due := now.Sub(c.said) >= l.settings.heartbeat
				if due {
					c.said = now // also if it cannot be sent now: one a beat
				}
				c.mu.Unlock()
				if due {
					l.wake(c)
				}
			}
		}
	}
}

type commitPart struct {
	call *call
	ops  []op
}

// send sends what gathers, until there is no more.
func (l *commitLine) send() {
	for {
		parts := l.gather()
		if parts == nil {
			return
		}
		answers, err := l.commit(parts)
		l.mu.Lock()
		l.restUntil = time.Time{}
		if err != nil {
			l.restUntil = time.Now().Add(l.settings.rest)
		}
		l.mu.Unlock()
		for i, part := range parts {
			switch {
			case err == nil && answers[i].Code == "unauthorized": // the token is not known there any more
				part.call.unreachable()
			case err == nil:
				part.call.settle(answers[i])
			case len(part.ops) > 0:
				part.call.unreachable()
			}
		}
	}
}

// gather takes what the calls have to commit; nil: nothing, and the line is idle. A call has one part of a request: what
// wakes while this runs goes with the next.
func (l *commitLine) gather() []commitPart {
	for {
		l.mu.Lock()
		waiting := l.waiting
		l.waiting = nil
		l.underWay = len(waiting) > 0
		l.mu.Unlock()
		if len(waiting) == 0 {
			return nil
		}
		if parts := l.gatherFrom(waiting); len(parts) > 0 {
			return parts
		}
	}
}

func (l *commitLine) gatherFrom(waiting []*call) (parts []commitPart) {
	left := commitBytesMax
	for i, c := range waiting {
		if left <= 0 || len(parts) == commitPartsMax {
			l.mu.Lock()
			l.waiting = append(append([]*call(nil), waiting[i:]...), l.waiting...)
			l.mu.Unlock()
			return parts
		}
		l.mu.Lock()
		wanted := l.waits[c] // else it has ended meanwhile
		delete(l.waits, c)
		l.mu.Unlock()
		if !wanted {
			continue
		}
		ops, more, over := c.take(left)
		if over {
			continue
		}
		if more {
			l.wake(c)
		}
		for _, o := range ops {
			left -= len(o.text)
		}
		parts = append(parts, commitPart{c, ops})
	}
	return parts
}

// commit says what came of each part. An error: nobody says.
func (l *commitLine) commit(parts []commitPart) ([]commitAnswer, error) {
	body := commitBody(parts)
	begin := time.Now()
	for tries, refused := 0, 0; ; tries++ {
		pause := backoffPause(tries)
		status, header, text, err := request(context.Background(), l.client, l.settings.requestTimeout, http.MethodPost, l.url,
			parts[0].call.request.Commit.Token, body, commitAnswerBytesMax)
		switch {
		case err != nil:
			if !arrived(err) {
				refused++
			}
		case status == http.StatusOK:
			if answers, fits := commitAnswersOf(text, parts); fits {
				return answers, nil
			}
			err = errors.New("its answer does not fit what was asked")
		case status == http.StatusRequestEntityTooLarge && len(parts) > 1:
			return l.commitApart(parts)
		case status < 500 && status != http.StatusTooManyRequests:
			return nil, fmt.Errorf("it was answered with %d", status) // whoever answers there does not know commits
		default:
			err = fmt.Errorf("it was answered with %d", status)
			if asked, ok := retryAfterOf(header.Get("Retry-After")); ok {
				pause = asked
				if pause > 5*time.Second {
					pause = 5 * time.Second
				}
			}
		}
		if refused >= commitRefusedMax || time.Since(begin)+pause > l.settings.retryFor {
			return nil, err
		}
		time.Sleep(pause)
	}
}

// commitApart: together they are too much for a request. Where one gets no answer, those before may be committed, which
// is no harm: their calls say it again in their answers.
func (l *commitLine) commitApart(parts []commitPart) ([]commitAnswer, error) {
	var all []commitAnswer
	for _, part := range parts {
		one, err := l.commit([]commitPart{part})
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

func commitBody(parts []commitPart) []byte {
	var body bytes.Buffer
	body.WriteString(`{"commits":[`)
	for i, part := range parts {
		if i > 0 {
			body.WriteByte(',')
		}
		body.WriteString(`{"token":` + mustJSON(part.call.request.Commit.Token) + `,"ops":[`)
		for j, o := range part.ops {
			if j > 0 {
				body.WriteByte(',')
			}
			body.WriteString(o.text)
		}
		body.WriteString("]}")
	}
	body.WriteString("]}")
	return body.Bytes()
}

// commitAnswersOf reads an answer; false: it does not fit what was asked.
func commitAnswersOf(text []byte, parts []commitPart) ([]commitAnswer, bool) {
	var answer struct {
		Commits []commitAnswer `json:"commits"`
	}
	if json.Unmarshal(text, &answer) != nil || len(answer.Commits) != len(parts) {
		return nil, false
	}
	for i, one := range answer.Commits {
		if one.Code == "" && len(one.Results) != len(parts[i].ops) {
			return nil, false
		}
	}
	return answer.Commits, true
}

// read gets an entry that did not fit into a call.
func (l *commitLine) read(ctx context.Context, ref, token string) (*opResult, error) {
	address := l.url + "?"
	if strings.Contains(l.url, "?") {
		address = l.url + "&"
	}
	address += "ref=" + url.QueryEscape(ref)
	begin := time.Now()
	for tries := 0; ; tries++ {
		status, _, text, err := request(ctx, l.client, l.settings.requestTimeout, http.MethodGet, address, token, nil, commitAnswerBytesMax)
		again := true
		if err == nil && status == http.StatusOK {
			var value opResult
			if err = json.Unmarshal(text, &value); err == nil {
				return &value, nil
			}
		} else if err == nil {
			err = fmt.Errorf("it was answered with %d", status)
			again = status >= 500 || status == http.StatusTooManyRequests
		}
		pause := backoffPause(tries)
		if !again || ctx.Err() != nil || time.Since(begin)+pause > l.settings.retryFor {
			return nil, RetryAfter(fmt.Errorf("what the run remembers as ref %s could not be read from commit.url: %w", ref, err), 5*time.Second)
		}
		time.Sleep(pause)
	}
}

// --- Requests, as the commit line and the API's client send them ---

const (
	pauseMin = 50 * time.Millisecond
	pauseMax = 2 * time.Second
)

func backoffPause(tries int) time.Duration {
	if tries > 5 {
		return pauseMax
	}
	return pauseMin << tries
}

var errTooLong = errors.New("the answer is too long")

// request sends one request and reads the whole answer.
func request(ctx context.Context, client *http.Client, timeout time.Duration, method, address, key string, body []byte,
	bytesMax int64) (status int, header http.Header, text []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer answer.Body.Close()
	text, err = io.ReadAll(io.LimitReader(answer.Body, bytesMax+1))
	if err == nil && int64(len(text)) > bytesMax {
		err = errTooLong
	}
	return answer.StatusCode, answer.Header, text, err
}

// arrived: the request may have come to the other side.
func arrived(err error) bool {
	var dial *net.OpError
	return !(errors.As(err, &dial) && dial.Op == "dial")
}
