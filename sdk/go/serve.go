package stackshift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Handlers over HTTP: a worker POSTs a call, and GETs what jobs there are. Nothing is done for a request that is not
// signed with the endpoint's secret.

const (
	callBytesMax   = 16 * 1024 * 1024
	graceDefault   = 30 * time.Second
	registerForMax = time.Minute
)

// server is the serving side of a client.
type server struct {
	mu       sync.Mutex
	keys     [][]byte
	keyError error // why there are none
	given    bool  // by the user: none is to be asked for
	waiting  bool  // for a secret from the server
	draining bool
	calls    map[*call]bool
}

func (s *server) init(secrets []string) {
	s.calls = map[*call]bool{}
	s.keyError = errors.New("there is no signing secret: set Options.SigningSecrets, or STACKSHIFT_SIGNING_SECRET")
	if len(secrets) > 0 {
		s.given = true
		_ = s.use(secrets) // who calls, or serves, is told
	}
}

func (s *server) use(secrets []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.keyError, s.waiting = nil, nil, false
	for _, secret := range secrets {
		key, err := secretBytes(secret)
		if err != nil {
			s.keys, s.keyError = nil, err
			return err
		}
		s.keys = append(s.keys, key)
	}
	return nil
}

// Handler serves the jobs of this client, on any path of a server of yours. Requests that are not signed with the
// endpoint's secret (Options.SigningSecrets, STACKSHIFT_SIGNING_SECRET) are answered with 401.
//
//	http.Handle("/jobs", client.Handler())
func (c *Client) Handler() http.Handler { return http.HandlerFunc(c.serveHTTP) }

func (c *Client) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", r.Method+" is not allowed; GET and POST are")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, callBytesMax))
	if err != nil {
		var long *http.MaxBytesError
		if errors.As(err, &long) {
			refuse(w, http.StatusRequestEntityTooLarge, "payload_too_large", "the call is over "+sizeText(callBytesMax))
		} else {
			refuse(w, http.StatusBadRequest, "invalid_argument", "the call did not arrive whole")
		}
		return
	}
	c.server.mu.Lock()
	keys, keyError, waiting, draining := c.server.keys, c.server.keyError, c.server.waiting, c.server.draining
	c.server.mu.Unlock()
	switch {
	case waiting || draining: // it pauses the endpoint, and spends no attempt
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "unavailable", "the handlers are starting, or going down")
		return
	case keyError != nil:
		refuse(w, http.StatusUnauthorized, "unauthorized", keyError.Error())
		return
	}
	if reason := verify(r.Header, body, keys, time.Now()); reason != "" {
		refuse(w, http.StatusUnauthorized, "unauthorized", reason)
		return
	}
	if r.Method == http.MethodGet {
		text, err := c.jobs.describe(c.version)
		if err != nil {
			refuse(w, http.StatusInternalServerError, "internal", err.Error())
			return
		}
		reply(w, http.StatusOK, text)
		return
	}
	c.serveCall(w, r, body)
}

func (c *Client) serveCall(w http.ResponseWriter, r *http.Request, body []byte) {
	var request callRequest
	if err := json.Unmarshal(body, &request); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_argument", "the call cannot be read: "+err.Error())
		return
	}
	if request.Protocol != 1 {
		refuse(w, http.StatusBadRequest, "invalid_argument", fmt.Sprintf("protocol %d is not known; 1 is", request.Protocol))
		return
	}
	job := c.jobs.get(request.Run.Job)
	if job == nil {
		refuse(w, http.StatusNotFound, "not_found", fmt.Sprintf("job %.200q is not served here", request.Run.Job))
		return
	}
	call := newCall(&request, job, c.lines, &c.settings)
	c.server.mu.Lock()
	draining := c.server.draining
	c.server.calls[call] = true
	c.server.mu.Unlock()
	if draining {
		call.drain()
	}
	ended := make(chan struct{})
	go func() {
		select {
		case <-r.Context().Done(): // the worker has hung up: the run is, or will be, another's
			call.hungUp()
		case <-ended:
		}
	}()
	text := call.run()
	close(ended)
	c.server.mu.Lock()
	delete(c.server.calls, call)
	c.server.mu.Unlock()
	reply(w, http.StatusOK, text)
}

func reply(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // who has hung up hears nothing
}

func refuse(w http.ResponseWriter, status int, code, detail string) {
	reply(w, status, mustJSON(map[string]any{"code": code, "status": status, "title": http.StatusText(status), "detail": cleanText(detail)}))
}

// ServeOptions are the settings of Serve.
type ServeOptions struct {
	Addr  string        // where to listen; "": :3000
	Name  string        // of the endpoint; "": the last part of the main module's path, or the program's name
	URL   string        // under which workers reach it; "": http://127.0.0.1:<port>
	Grace time.Duration // how long calls have to come to a step's end when ctx is over; 0: 30s
}

// Serve serves the jobs of this client until ctx is over. Then calls in hand end at their next step, and are gone on with
// elsewhere; no attempt is spent. Where there is no signing secret, it registers itself as an endpoint with the API key
// and takes the secret that it is given; other replicas of the same name go on with theirs.
//
//	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
//	defer stop()
//	err := client.Serve(ctx, stackshift.ServeOptions{Addr: ":3000"})
func (c *Client) Serve(ctx context.Context, options ServeOptions) error {
	listener, err := net.Listen("tcp", or(options.Addr, ":3000"))
	if err != nil {
		return err
	}
	c.server.mu.Lock()
	register := !c.server.given
	if c.server.given {
		err = c.server.keyError
	}
	c.server.waiting, c.server.draining = register, false
	c.server.mu.Unlock()
	if err != nil {
		_ = listener.Close()
		return err
	}
	web := &http.Server{Handler: c.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(listener) }()
	if register {
		if err := c.register(ctx, options, listener.Addr()); err != nil {
			_ = web.Close()
			<-ended
			return err
		}
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	c.server.drain()
	grace := options.Grace
	if grace == 0 {
		grace = graceDefault
	}
	limit, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := web.Shutdown(limit); err != nil {
		_ = web.Close()
		return fmt.Errorf("calls in hand did not come to a step's end within %s", grace)
	}
	return nil
}

func (s *server) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for call := range s.calls {
		call.drain()
	}
}

// register tells the server where the handlers are. While it does, calls are answered with 503: they may come before the
// secret that they are signed with. So the server is asked to look again at the end.
func (c *Client) register(ctx context.Context, options ServeOptions, addr net.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, registerForMax)
	defer cancel()
	name := endpointName(options.Name)
	address := options.URL
	if address == "" {
		address = "http://127.0.0.1:" + strconv.Itoa(addr.(*net.TCPAddr).Port)
	}
	var endpoint struct{ Secret, SigningSecret string }
	_, err := c.api.do(ctx, apiCall{method: http.MethodPut, path: "/v1/endpoints/" + url.PathEscape(name),
		body: map[string]any{"url": address}, safe: true}, &endpoint)
	if err != nil {
		return fmt.Errorf("endpoint %s could not be registered: %w", name, err)
	}
	secret := or(endpoint.Secret, endpoint.SigningSecret)
	if secret == "" {
		return fmt.Errorf("endpoint %s was registered, but no secret was given", name)
	}
	if err = c.server.use([]string{secret}); err != nil {
		return err
	}
	_, err = c.api.do(ctx, apiCall{method: http.MethodPost, path: "/v1/endpoints/" + url.PathEscape(name) + "/sync",
		body: map[string]any{}, safe: true}, nil)
	if err != nil && ctx.Err() == nil { // the server looks by itself from time to time
		log.Printf("stackshift: endpoint %s is registered, but was not looked at yet: %v", name, err)
	}
	return nil
}

func endpointName(name string) string {
	if name != "" {
		return name
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path != "" && info.Main.Path != "command-line-arguments" {
		name = path.Base(info.Main.Path)
	} else {
		name = filepath.Base(os.Args[0])
	}
	name = strings.Map(func(r rune) rune {
		if validName(string(r)) {
			return r
		}
		return '-'
	}, name)
	if len(name) > 200 {
		name = name[:200]
	}
	return or(name, "go")
}

func sizeText(bytes int) string {
	if bytes >= 10*1024*1024 {
		return fmt.Sprintf("%d MiB", bytes/1024/1024)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
