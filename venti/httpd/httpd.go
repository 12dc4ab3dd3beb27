package httpd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"strata/internal/logs"
	"strata/venti"
	"strata/venti/store"
)

// A Config says what is shown. All but Store may be left out.
type Config struct {
	Store  *store.Store
	Server *venti.Server // whose connections are shown
	Recent *logs.Recent  // the messages shown; its level can be set
	Logger *slog.Logger  // told of requests that change something, and of failures; nil means quiet

	// Metrics, if it is not nil, is shown with the others at /metrics.
	Metrics prometheus.Collector

	// Webroot is a directory whose files are served for paths that are no
	// page.
	Webroot string
	// Control allows changing settings, flushing and emptying caches.
	Control bool
	// Pprof adds the pages of package net/http/pprof.
	Pprof bool
}

// A Handler serves the pages. ServeHTTP may be called at once, and without
// Serve; then there are no samples.
type Handler struct {
	// Immutable after New.
	cfg     Config
	log     *slog.Logger
	store   *store.Store
	mux     *http.ServeMux
	guard   *http.CrossOriginProtection
	webroot *os.Root // or nil
	began   time.Time

	sampling atomic.Bool // whether Serve takes samples
	kicks    sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	history history
	last    *snapshot // of the last sample, or nil
}

// New returns a handler. It opens the webroot, until Close.
func New(cfg Config) (*Handler, error) {
	h := &Handler{
		cfg: cfg, log: cfg.Logger, store: cfg.Store,
		mux: http.NewServeMux(), guard: http.NewCrossOriginProtection(), began: time.Now(),
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.sampling.Store(true)
	if cfg.Webroot != "" {
		root, err := os.OpenRoot(cfg.Webroot)
		if err != nil {
			return nil, fmt.Errorf("webroot: %w", err)
		}
		h.webroot = root
	}
	for pattern, page := range map[string]http.HandlerFunc{
		"/{$}":         h.statusPage,
		"/status.css":  h.statusPage,
		"/status.js":   h.statusPage,
		"/status.json": h.statusJSON,
		"/index":       h.indexPage,
		"/xindex":      h.xindexPage,
		"/storage":     h.storagePage,
		"/stats":       func(w http.ResponseWriter, _ *http.Request) { text(w) },
		"/graph":       h.graphPage,
		"/log":         h.logPage,
		"/disk":        h.diskPage,
		"/debug":       h.debugPage,
		"/proc/":       h.procPage,
		"/proc":        h.procPage,
		"/metrics":     h.metrics(),
		"/healthz":     h.healthPage,
		"/":            h.filePage,
	} {
		h.mux.HandleFunc("GET "+pattern, page)
	}
	h.mux.HandleFunc("GET /set", h.setPage)
	h.mux.HandleFunc("POST /set", h.setPage)
	for name, work := range h.works() {
		page := h.control(func(w http.ResponseWriter, r *http.Request) { h.workPage(w, r, work) })
		h.mux.HandleFunc("GET /"+name, page)
		h.mux.HandleFunc("POST /"+name, page)
	}
	if cfg.Pprof {
		h.mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		h.mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		h.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		h.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		h.mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
		h.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return h, nil
}

// Close ends what pages have started, and closes the webroot. No request may
// be under way or follow.
func (h *Handler) Close() error {
	h.kicks.Wait()
	if h.webroot == nil {
		return nil
	}
	return h.webroot.Close()
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'")
	w.Header().Set("Cache-Control", "no-store")
	if err := h.guard.Check(r); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if !knownHost(r) {
		http.Error(w, r.Host+" is none of this machine's own names, and this address is its own", http.StatusForbidden)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	h.mux.ServeHTTP(w, r)
}

// knownHost tells whether a request that came over loopback asks for the
// machine by a name that can only be its own. Somebody else's name may have
// been made to lead here, and then a page from there would be taken for one of
// ours.
func knownHost(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !addr.IP.IsLoopback() {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	name, err := os.Hostname()
	return err == nil && strings.EqualFold(host, name)
}

// Bounds of a server.
const (
	headerTime = 10 * time.Second // for a request's header
	writeTime  = time.Minute      // for an answer
	idleTime   = 2 * time.Minute
	maxHeader  = 64 << 10         // bytes
	maxBody    = 64 << 10         // bytes of a form
	closeTime  = time.Second      // for answers under way, when the server stops
	workTime   = 10 * time.Minute // for /flush
)

// Serve takes samples and answers requests from ln until ctx ends or ln
// fails; in the first case it returns nil. It closes ln.
func (h *Handler) Serve(ctx context.Context, ln net.Listener) error {
	sampler, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	workers.Go(func() { h.sampleEvery(sampler, time.Second) })
	defer func() {
		stop()
		workers.Wait()
	}()
	// Requests that run for long, such as profiles, end with the server.
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: headerTime, WriteTimeout: writeTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return requests },
	}
	closed := make(chan struct{})
	end := context.AfterFunc(ctx, func() {
		defer close(closed)
		limit, done := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer done()
		if srv.Shutdown(limit) != nil {
			cancel()
			srv.Close()
		}
	})
	err := srv.Serve(ln)
	if !end() {
		<-closed
	}
	cancel()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("http: %w", err)
}

// text begins a page of plain text.
func text(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
}

// html begins a page of HTML.
func html(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
}

func (h *Handler) healthPage(w http.ResponseWriter, _ *http.Request) {
	text(w)
	if err := h.store.Health(); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (h *Handler) procPage(w http.ResponseWriter, _ *http.Request) {
	text(w)
	fmt.Fprintln(w, "/proc only implemented on Plan 9")
}

// filePage serves a file of the webroot; a directory is its index.html. What a
// symbolic link leads out of the webroot for is not there.
func (h *Handler) filePage(w http.ResponseWriter, r *http.Request) {
	f, err := h.openFile(r.URL.Path)
	if err != nil {
		status := http.StatusNotFound
		if !errors.Is(err, fs.ErrNotExist) {
			h.log.Debug("file refused", "path", r.URL.Path, "err", err)
		}
		http.Error(w, "The object "+r.URL.Path+" does not exist on this server.", status)
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Del("Cache-Control")
	w.Header().Set("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'")
	http.ServeContent(w, r, fi.Name(), fi.ModTime(), f)
}

// openFile opens the file of the webroot that a URL's path names.
func (h *Handler) openFile(name string) (*os.File, error) {
	if h.webroot == nil {
		return nil, fs.ErrNotExist
	}
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		name = "."
	}
	for range 2 {
		// A file that blocks when it is opened, such as a pipe, is none.
		fi, err := h.webroot.Stat(name)
		switch {
		case err != nil:
			return nil, err
		case fi.IsDir():
			name = path.Join(name, "index.html")
			continue
		case !fi.Mode().IsRegular():
			return nil, fs.ErrNotExist
		}
		return h.webroot.Open(name)
	}
	return nil, fs.ErrNotExist
}
