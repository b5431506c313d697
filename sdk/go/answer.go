package stackshift

import "strings"

// How a call ends: which answer it is, and what goes along.

// end ends the call: nothing goes on any more.
func (c *call) end() {
	switch {
	case c.cancelled:
		c.endCancelled()
	case c.fatal != nil:
		c.fail(c.fatal)
	case c.mismatch != nil:
		c.finish("suspended", "", mustJSON(c.mismatch))
	case c.misuse != nil:
		c.fail(c.misuse)
	case c.ended != nil:
		c.endHandler()
	case c.alone() != "":
		c.finish("suspended", "", c.alone())
	case c.ending:
		c.finish("continue", "", "")
	case len(c.wanted) > 0:
		c.finish("suspended", "", c.suspending())
	default:
		if c.mismatch = c.replay.left(false); c.mismatch == nil {
			c.fatal = misuseOf("stuck", "the handler waits for nothing that could come")
		}
		c.end()
	}
}

// alone is the op that suspends the run without others; "": none does.
func (c *call) alone() string {
	for _, w := range c.wanted {
		if w.alone {
			return w.text
		}
	}
	return ""
}

// suspending is the ops that suspend the run now. Of very many, or very large ones, the last are asked for in a later call.
func (c *call) suspending() string {
	var texts []string
	bytes := 0
	for _, w := range c.wanted {
		if bytes += len(w.text); len(texts) == 0 || len(texts) < branchesMax && bytes <= branchesBytesMax {
			texts = append(texts, w.text)
		}
	}
	return strings.Join(texts, ",")
}

func (c *call) endHandler() {
	if c.ended.err != nil {
		c.fail(c.ended.err)
		return
	}
	if m := c.replay.left(true); m != nil {
		c.finish("suspended", "", mustJSON(m))
		return
	}
	text, err := jsonText(c.ended.value, "the result of job \""+c.job.name+"\"")
	if err != nil {
		c.fail(err)
		return
	}
	c.caughtKeep(func(*branch) bool { return true })
	c.finish("completed", `,"result":`+text, "")
}

func (c *call) endCancelled() {
	if !c.over {
		c.sent, c.pending = nil, nil
		c.finish("failed", `,"error":{"name":"Cancelled","message":"the run was cancelled"}`, "")
	}
}

func (c *call) fail(err error) {
	c.finish("failed", `,"error":`+wireErrorOf(err, "").text(), "")
}

// finish gives the answer: what was not committed yet, `last` behind it, and how the call ended.
func (c *call) finish(status, outcome, last string) {
	if c.over {
		return
	}
	var ops []string
	if c.fatal == nil {
		for _, o := range append(namedOps(c.sent), c.pending...) {
			ops = append(ops, o.text)
		}
	}
	if last != "" {
		ops = append(ops, last)
	}
	text := `{"protocol":1,"ops":[` + strings.Join(ops, ",") + `],"status":"` + status + `"` + outcome + "}"
	if len(text) > answerBytesMax {
		err := NonRetryable(&Error{Code: "payload_too_large", Detail: "the answer of job " + c.job.name + " is " +
			sizeText(len(text)) + "; the limit is " + sizeText(answerBytesMax) + c.largest()})
		text = `{"protocol":1,"ops":[],"status":"failed","error":` + wireErrorOf(err, "").text() + "}"
	}
	c.over = true
	if c.line != nil {
		c.line.detach(c)
	}
	c.cancel()
	close(c.gone)
	if c.live == 0 {
		close(c.unwound)
	}
	c.answer <- text
}

// largest names the step that most of an answer is.
func (c *call) largest() string {
	name, bytes := "", 0
	for _, o := range c.pending {
		if o.of != nil && len(o.text) > bytes {
			name, bytes = o.of.name, len(o.text)
		}
	}
	if name == "" {
		return ""
	}
	return "; step " + name + " alone is " + sizeText(bytes)
}

// namedOps are those that may be said twice.
func namedOps(ops []op) []op {
	var named []op
	for _, o := range ops {
		if o.named {
			named = append(named, o)
		}
	}
	return named
}
