package stackshift

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestUnsignedRequestsAreRefused(t *testing.T) {
	f := newFleet(t, func(context.Context, JobContext) (any, error) { t.Error("called"); return nil, nil })
	body := f.body()
	for name, change := range map[string]func(r *http.Request){
		"no signature":    func(r *http.Request) { r.Header.Del("webhook-signature") },
		"another one":     func(r *http.Request) { r.Header.Set("webhook-signature", "v1,bm9uc2Vuc2U=") },
		"not base64":      func(r *http.Request) { r.Header.Set("webhook-signature", "v1,%%") },
		"another version": func(r *http.Request) { r.Header.Set("webhook-signature", "v2"+r.Header.Get("webhook-signature")[2:]) },
		"another id":      func(r *http.Request) { r.Header.Set("webhook-id", "msg_2") },
		"another time":    func(r *http.Request) { r.Header.Set("webhook-timestamp", "1780000000") },
		"no time":         func(r *http.Request) { r.Header.Set("webhook-timestamp", "now") },
		"changed on route": func(r *http.Request) {
			r.Body = io.NopCloser(bytes.NewReader(append(body[:len(body)-1:len(body)-1], ' ')))
		},
	} {
		r := signed(http.MethodPost, f.serving.URL, body, time.Now())
		if change(r); name == "another version" {
			r.Header.Set("webhook-signature", "v2,"+strings.Split(r.Header.Get("webhook-signature"), "v1,")[1])
		}
		if status := statusOf(t, r); status != 401 {
			t.Errorf("%s: %d", name, status)
		}
	}
	for _, off := range []time.Duration{-301 * time.Second, 302 * time.Second} {
		if status := statusOf(t, signed(http.MethodPost, f.serving.URL, body, time.Now().Add(off))); status != 401 {
			t.Errorf("%s off: %d", off, status)
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
