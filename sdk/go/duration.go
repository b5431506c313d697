package stackshift

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// DurationMax bounds waits, sleeps and delays: 10 years of 365 days.
const DurationMax = 10 * 365 * 24 * time.Hour

// durationText prints a duration as the server reads it: whole milliseconds, rounded up. The server knows no length of
// nothing, so the shortest is 1ms.
func durationText(argument string, d time.Duration) (string, error) {
	if d < 0 || d > DurationMax {
		return "", invalid("%s %s is out of range; 0 to 10 years is allowed", argument, d)
	}
	ms := int64(math.Ceil(float64(d) / float64(time.Millisecond)))
	if ms < 1 {
		ms = 1
	}
	var text strings.Builder
	for _, unit := range durationUnits {
		if n := ms / unit.ms; n > 0 {
			fmt.Fprintf(&text, "%d%s", n, unit.name)
			ms %= unit.ms
		}
	}
	return text.String(), nil
}

var durationUnits = []struct {
	name string
	ms   int64
}{{"d", 86_400_000}, {"h", 3_600_000}, {"m", 60_000}, {"s", 1000}, {"ms", 1}}

// durationParse reads what durationText, or another SDK, has written.
func durationParse(text string) (time.Duration, error) {
	rest, total := text, int64(0)
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		rest = rest[digits:]
		letters := len(rest) - len(strings.TrimLeft(rest, "dhms"))
		ms := int64(0)
		for _, unit := range durationUnits {
			if unit.name == rest[:letters] {
				ms = unit.ms
			}
		}
		rest = rest[letters:]
		if err != nil || ms == 0 || n > DurationMax.Milliseconds()/ms {
			return 0, invalid("%.40q is not a duration; such as 500ms, 30s, 5m, 24h, 30d or 1h30m, up to 10 years, are allowed", text)
		}
		total += n * ms
	}
	if text == "" || total > DurationMax.Milliseconds() {
		return 0, invalid("%.40q is not a duration; such as 500ms, 30s or 1h30m, up to 10 years, are allowed", text)
	}
	return time.Duration(total) * time.Millisecond, nil
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// retryAfterOf reads a Retry-After header: seconds, or a date. False: there is none that can be read.
func retryAfterOf(header string) (time.Duration, bool) {
	if seconds, err := strconv.ParseInt(strings.TrimSpace(header), 10, 32); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := time.Parse(time.RFC1123, header); err == nil {
		if d := time.Until(at); d > 0 {
			return d, true
		}
		return 0, true
	}
	return 0, false
}
