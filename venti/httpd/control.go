package httpd

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"strata/venti/store"
)

// control wraps a page that changes something: it is refused unless the
// server was started to allow it, and to other sites whatever the method.
func (h *Handler) control(page http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !h.cfg.Control {
			http.Error(w, r.URL.Path+": refused: this server does not let pages change it", http.StatusForbidden)
			return
		}
		// Plan 9's scripts change things with a GET, which the guard lets pass.
		post := r.Clone(r.Context())
		post.Method = http.MethodPost
		if err := h.guard.Check(post); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		// Browsers say so only to servers that they trust, such as those on
		// loopback; from others they have to use a POST, which names its origin.
		if r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Site") == "" && strings.HasPrefix(r.UserAgent(), "Mozilla/") {
			http.Error(w, r.URL.Path+": refused: a browser that does not say where this comes from must use POST", http.StatusForbidden)
			return
		}
		if r.Method == http.MethodHead {
			http.Error(w, r.URL.Path+": not for HEAD", http.StatusMethodNotAllowed)
			return
		}
		h.log.Info("asked over http", "client", r.RemoteAddr, "for", r.URL.RequestURI())
		page(w, r)
	}
}

// A setting is a line of /set. Those that cannot be set say what always holds
// here, or what the configuration has fixed.
type setting struct {
	name string
	get  func(*Handler) int64
	set  func(*Handler, int64) // or nil
}

// settings are those of Plan 9's server, in its order, and one of ours.
var settings = []setting{
	{"compress", func(h *Handler) int64 { return truth(h.store.Encoding() != "plain") }, nil},
	{"devnull", fixed(0), nil},
	{"logging", fixed(1), nil},
	{"stats", func(h *Handler) int64 { return truth(h.sampling.Load()) },
		func(h *Handler, v int64) { h.sampling.Store(v != 0) }},
	{"icachesleeptime", fixed(0), nil},
	{"minicachesleeptime", fixed(0), nil},
	{"arenasumsleeptime", fixed(0), nil},
	{"l0quantum", fixed(0), nil},
	{"l1quantum", fixed(0), nil},
	{"manualscheduling", fixed(0), nil},
	{"ignorebloom", func(h *Handler) int64 { return truth(h.store.Tuning().IgnoreBloom) },
		func(h *Handler, v int64) { h.tune(func(t *store.Tuning) { t.IgnoreBloom = v != 0 }) }},
	{"syncwrites", fixed(0), nil},
	{"icacheprefetch", func(h *Handler) int64 { return truth(!h.store.Tuning().NoPrefetch) },
		func(h *Handler, v int64) { h.tune(func(t *store.Tuning) { t.NoPrefetch = v == 0 }) }},
	{"bootstrap", fixed(0), nil},
	{"debug", func(h *Handler) int64 { return truth(h.cfg.Recent.Level() < slog.LevelInfo) },
		func(h *Handler, v int64) {
			level := slog.LevelInfo
			if v != 0 {
				level = slog.LevelDebug
			}
			h.cfg.Recent.SetLevel(level)
		}},
}

func fixed(v int64) func(*Handler) int64 { return func(*Handler) int64 { return v } }

func truth(v bool) int64 {
	if v {
		return 1
	}
	return 0
}

// tune changes one of the store's settings.
func (h *Handler) tune(change func(*store.Tuning)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.store.Tuning()
	change(&t)
	h.store.Tune(t)
}

// setPage is /set: without a name it lists all settings, without a value it
// shows one, and else it changes it.
func (h *Handler) setPage(w http.ResponseWriter, r *http.Request) {
	name, value := r.FormValue("name"), r.FormValue("value")
	if name == "" {
		text(w)
		for _, s := range settings {
			fmt.Fprintf(w, "%s = %d\n", s.name, s.get(h))
		}
		return
	}
	for _, s := range settings {
		if s.name != name {
			continue
		}
		if value == "" {
			text(w)
			fmt.Fprintf(w, "%s = %d\n", s.name, s.get(h))
			return
		}
		h.control(func(w http.ResponseWriter, r *http.Request) {
			v, err := strconv.ParseInt(value, 0, 64)
			if err != nil {
				http.Error(w, fmt.Sprintf("bad value %q", value), http.StatusBadRequest)
				return
			}
			if s.set == nil {
				http.Error(w, s.name+" cannot be changed while the server runs", http.StatusBadRequest)
				return
			}
			was := s.get(h)
			s.set(h, v)
			text(w)
			fmt.Fprintf(w, "%s = %d (was %d)\n", s.name, s.get(h), was)
		})(w, r)
		return
	}
	http.Error(w, name+" not found", http.StatusNotFound)
}

// A work is what a page such as /flushicache does. done is what it answers.
type work struct {
	do   func(context.Context) error
	done string
	kick bool // answer at once
}

func (h *Handler) works() map[string]work {
	empty := func(caches ...func()) func(context.Context) error {
		return func(context.Context) error {
			for _, f := range caches {
				f()
			}
			return nil
		}
	}
	lumps, index := h.store.EmptyLumpCache, h.store.EmptyIndexCache
	return map[string]work{
		"flushicache":    {h.store.Flush, "flushed icache", false},
		"flushdcache":    {h.store.Checkpoint, "flushed dcache", false},
		"kickicache":     {h.store.Flush, "kicked icache", true},
		"kickdcache":     {h.store.Checkpoint, "kicked dcache", true},
		"empty":          {empty(lumps, index), "emptied all caches", false},
		"emptylumpcache": {empty(lumps), "emptied lumpcache", false},
		"emptyicache":    {empty(index), "emptied icache", false},
		"emptydcache":    {empty(), "emptied dcache", false},
	}
}

// workPage does a work and says so. What was begun is done even if the client
// goes away.
func (h *Handler) workPage(w http.ResponseWriter, r *http.Request, wk work) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), workTime)
	if wk.kick {
		h.kicks.Go(func() {
			defer cancel()
			if err := wk.do(ctx); err != nil {
				h.log.Error("asked over http", "for", r.URL.Path, "err", err)
			}
		})
	} else {
		defer cancel()
		// A recorder has no deadlines, and needs none.
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(workTime + writeTime))
		if err := wk.do(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	text(w)
	fmt.Fprintln(w, wk.done)
}
