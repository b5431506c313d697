package stackshift

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestSignatures(t *testing.T) {
	const at, text = 1780000000, `{"protocol":1,"payload":{"b":1.0,"a":"\u00e9"}}`
	right, _ := secretBytes(secret)
	other := []byte("another secret, not the one")
	mac := func(key []byte, at int64, body string) string {
		return base64.StdEncoding.EncodeToString(sign(key, "m", strconv.FormatInt(at, 10), []byte(body)))
	}
	good := "v1," + mac(right, at, text)
	raw := sign(right, "m", strconv.Itoa(at), []byte(text))
	base := base64.StdEncoding.EncodeToString
	for name, row := range map[string]struct { // what differs from a good request
		id, timestamp, signature, body string
		keys                           [][]byte
		off                            int64
		trusted                        bool
	}{
		"as it should be":                       {trusted: true},
		"4:59 minutes old":                      {off: 299, trusted: true},
		"4:59 minutes ahead":                    {off: -299, trusted: true},
		"several signatures, one of them right": {signature: "v1,AAAA v2," + mac(right, at, text) + " v1," + mac(other, at, text) + " " + good, trusted: true},
		"a rotation here: two secrets":          {keys: [][]byte{other, right}, trusted: true},
		"over 5 minutes old":                    {off: 301},
		"over 5 minutes ahead":                  {off: -301},
		"an hour old, signed so":                {timestamp: strconv.Itoa(at - 3600), signature: "v1," + mac(right, at-3600, text)},
		"old, with a newer time":                {signature: "v1," + mac(right, at-3600, text)},
		"a time that is none":                   {timestamp: "now"},
		"a time with a fraction":                {timestamp: strconv.Itoa(at) + ".5"},
		"another id: said again as a new call":  {id: "n"},
		"an id that takes from the time":        {id: "m." + strconv.Itoa(at)},
		"another secret":                        {signature: "v1," + mac(other, at, text)},
		"only the secret before the rotation":   {keys: [][]byte{other}},
		"no secret at all":                      {keys: [][]byte{}},
		"a truncated signature":                 {signature: "v1," + base(raw[:16])},
		"a signature of one byte":               {signature: "v1," + base(raw[:1])},
		"an empty v1":                           {signature: "v1,"},
		"a signature with a byte behind it":     {signature: "v1," + base(append(append([]byte{}, raw...), 0))},
		"no base64":                             {signature: "v1,%%% garbage"},
		"hexadecimal":                           {signature: "v1," + hex.EncodeToString(raw)},
		"another version":                       {signature: "v2," + mac(right, at, text)},
		"an asymmetric version":                 {signature: "v1a," + mac(right, at, text)},
		"no version":                            {signature: mac(right, at, text)},
		"a body changed by a byte":              {body: strings.Replace(text, "1.0", "1.1", 1)},
		"a body with a space behind it":         {body: text + " "},
		"a body parsed and written again":       {body: `{"payload":{"a":"é","b":1},"protocol":1}`},
	} {
		header := http.Header{}
		header.Set("webhook-id", or(row.id, "m"))
		header.Set("webhook-timestamp", or(row.timestamp, strconv.Itoa(at)))
		header.Set("webhook-signature", or(row.signature, good))
		keys := row.keys
		if keys == nil {
			keys = [][]byte{right}
		}
		reason := verify(header, []byte(or(row.body, text)), keys, time.Unix(at+row.off, 0))
		if (reason == "") != row.trusted {
			t.Errorf("%s: %q", name, reason)
		}
	}
	for _, missing := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
		header := http.Header{"Webhook-Id": {"m"}, "Webhook-Timestamp": {strconv.Itoa(at)}, "Webhook-Signature": {good}}
		if header.Del(missing); verify(header, []byte(text), [][]byte{right}, time.Unix(at, 0)) == "" {
			t.Errorf("without %s", missing)
		}
	}
}

func TestUnsignedRequestsAreRefused(t *testing.T) {
	f := newFleet(t, func(context.Context, JobContext) (any, error) { t.Error("called"); return nil, nil })
	body := f.body()
	for name, change := range map[string]func(r *http.Request){
		"no signature": func(r *http.Request) { r.Header.Del("webhook-signature") },
		"another one":  func(r *http.Request) { r.Header.Set("webhook-signature", "v1,bm9uc2Vuc2U=") },
		"another id":   func(r *http.Request) { r.Header.Set("webhook-id", "msg_2") },
		"changed on route": func(r *http.Request) {
			r.Body = io.NopCloser(bytes.NewReader(append(body[:len(body)-1:len(body)-1], ' ')))
		},
	} {
		r := signed(http.MethodPost, f.serving.URL, body, time.Now())
		if change(r); statusOf(t, r) != 401 {
			t.Errorf("%s is not refused", name)
		}
	}
}

func TestSignatureOfTheProtocolsExampleForm(t *testing.T) {
	// from the Standard Webhooks specification's libraries
	key, err := secretBytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	header.Set("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
	header.Set("webhook-timestamp", "1614265330")
	header.Set("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	if reason := verify(header, []byte(`{"test": 2432232314}`), [][]byte{key}, time.Unix(1614265330, 0)); reason != "" {
		t.Fatal(reason)
	}
}

func statusOf(t *testing.T, r *http.Request) int {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

func TestCallsThatCannotBeReadAreRefused(t *testing.T) {
	f := newFleet(t, func(context.Context, JobContext) (any, error) { return nil, nil })
	for body, want := range map[string]int{`{"protocol":2}`: 400, `{`: 400, `{"protocol":1,"run":{"job":"other"}}`: 404} {
		if status := statusOf(t, signed(http.MethodPost, f.serving.URL, []byte(body), time.Now())); status != want {
			t.Errorf("%s: %d", body, status)
		}
	}
	if status := statusOf(t, signed(http.MethodDelete, f.serving.URL, nil, time.Now())); status != 405 {
		t.Error(status)
	}
	if status := statusOf(t, signed(http.MethodPost, f.serving.URL, bytes.Repeat([]byte(" "), callBytesMax+1), time.Now())); status != 413 {
		t.Error(status)
	}
}

func TestGetDescribesTheJobs(t *testing.T) {
	f := newFleet(t, twoSteps, &JobOptions{MaxAttempts: 3, Backoff: &Backoff{Max: time.Minute, Jitter: -1}, Timeout: time.Hour})
	f.client.Job("other", twoSteps)
	response, err := http.DefaultClient.Do(signed(http.MethodGet, f.serving.URL, nil, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	want := `{"jobs":[{"name":"job","maxAttempts":3,"backoff":{"jitter":0,"max":"1m"},"timeout":"1h"},{"name":"other"}],"protocol":1,"version":null}`
	if string(text) != want {
		t.Fatalf("%s", text)
	}
}

func TestServeRegistersItselfAndDrains(t *testing.T) {
	t.Setenv("STACKSHIFT_SIGNING_SECRET", "")
	registered := make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.Method + " " + r.URL.Path {
		case "PUT /v1/endpoints/go-test":
			var at struct{ URL string }
			_ = json.Unmarshal(body, &at)
			if status := statusOf(t, signed(http.MethodGet, at.URL, nil, time.Now())); status != 503 {
				t.Errorf("looked at before it has its secret: %d", status)
			}
			_, _ = io.WriteString(w, `{"name":"go-test","secret":"`+secret+`"}`)
			registered <- at.URL
		case "POST /v1/endpoints/go-test/sync":
			registered <- "sync"
		default:
			t.Errorf("%s %s", r.Method, r.URL)
		}
	}))
	defer server.Close()
	client := New(Options{APIKey: "k", BaseURL: server.URL})
	client.Job("job", func(ctx context.Context, job JobContext) (any, error) { return 1, nil })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- client.Serve(ctx, ServeOptions{Addr: "127.0.0.1:0", Name: "go-test"}) }()
	address := <-registered
	<-registered
	if status := statusOf(t, signed(http.MethodGet, address, nil, time.Now())); status != 200 {
		t.Fatal(status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestServeDoesNotPaperOverABadSecret(t *testing.T) {
	client := New(Options{SigningSecrets: []string{"secret"}})
	if err := client.Serve(context.Background(), ServeOptions{Addr: "127.0.0.1:0"}); err == nil || strings.Contains(err.Error(), `"secret"`) {
		t.Fatal(err)
	}
}
