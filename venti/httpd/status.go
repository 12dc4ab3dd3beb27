package httpd

import (
	"embed"
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"strata/venti/store"
)

// page has the status page: status.html, which is "/", and what it loads.
//
//go:embed page
var page embed.FS

func (h *Handler) statusPage(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" {
		name = "status.html"
	}
	http.ServeFileFS(w, r, page, "page/"+name)
}

// Bounds of what the status page asks for.
const (
	minSpan, maxSpan = 10, 90000 // seconds
	statusPoints     = 240
	statusArenas     = 4096
	statusLog        = 200 // records
)

// A status is what /status.json answers. Times are milliseconds since 1970.
type status struct {
	Now      int64  `json:"now"`
	Began    int64  `json:"began"`
	Index    string `json:"index"`
	Encoding string `json:"encoding"`
	ReadOnly bool   `json:"readOnly"`
	Health   string `json:"health"` // why nothing can be written, or empty

	Space   spaceStatus     `json:"space"`
	Buckets bucketStatus    `json:"buckets"`
	Bloom   *bloomStatus    `json:"bloom"`
	Cache   cacheStatus     `json:"cache"`
	Damage  damageStatus    `json:"damage"`
	Scrub   scrubStatus     `json:"scrub"`
	Arenas  []arenaStatus   `json:"arenas"` // the first statusArenas
	Clients *clientsStatus  `json:"clients"`
	Log     []messageStatus `json:"log"` // the last, newest first

	Span   int64              `json:"span"`   // seconds of series
	Times  []int64            `json:"times"`  // of the points in series
	Series map[string][]point `json:"series"` // by name, see lines
}

type spaceStatus struct {
	Total  int64 `json:"total"`  // bytes for clumps and directories
	Used   int64 `json:"used"`   // of it
	Data   int64 `json:"data"`   // bytes of blocks
	Stored int64 `json:"stored"` // that they take, compressed
	Clumps int64 `json:"clumps"`
	Arenas int   `json:"arenas"`
	Active int   `json:"active"` // arenas with clumps
	Sealed int   `json:"sealed"`
}

type bucketStatus struct {
	Buckets  uint32 `json:"buckets"`
	Sections int    `json:"sections"`
	Capacity int64  `json:"capacity"` // entries in all buckets
	Dirty    int64  `json:"dirty"`
	Bound    int64  `json:"bound"` // of dirty
	Stuck    int64  `json:"stuck"`
	Flushes  int64  `json:"flushes"`
}

type bloomStatus struct {
	Bytes  int     `json:"bytes"`
	Hashes int     `json:"hashes"`
	Fill   float64 `json:"fill"`  // share of bits that are set
	False  float64 `json:"false"` // chance that it does not know an absent score
}

type cacheStatus struct {
	Lumps int64 `json:"lumps"`
	Bytes int64 `json:"bytes"`
	Size  int64 `json:"size"` // bytes that they may take
}

type damageStatus struct {
	Corrupt int64 `json:"corrupt"` // clumps that were found corrupt when they were read
	Healed  int64 `json:"healed"`  // of them, those that were replaced
	Unread  int64 `json:"unread"`  // blocks asked for in vain, absent or corrupt
	Forged  int64 `json:"forged"`  // blocks refused because another has their score
}

type scrubStatus struct {
	Rate     int64  `json:"rate"`  // bytes a second; 0 without a scrub
	Arena    string `json:"arena"` // that it reads; empty when it is done for now
	Began    int64  `json:"began"` // ms since 1970; 0 before the first pass
	Passes   int64  `json:"passes"`
	Arenas   int64  `json:"arenas"`
	Corrupt  int64  `json:"corrupt"`
	BadSeals int64  `json:"badSeals"`
}

func scrubOf(c store.Scrub) scrubStatus {
	s := scrubStatus{Rate: c.Rate, Arena: c.Arena, Passes: c.Passes, Arenas: c.Arenas, Corrupt: c.Corrupt, BadSeals: c.BadSeals}
	if !c.Began.IsZero() {
		s.Began = c.Began.UnixMilli()
	}
	return s
}

type arenaStatus struct {
	Name    string  `json:"name"`
	Fill    float64 `json:"fill"`
	Clumps  uint32  `json:"clumps"`
	State   string  `json:"state"`
	Changed int64   `json:"changed"`
}

type clientsStatus struct {
	Now      int            `json:"now"`
	Max      int            `json:"max"`
	Accepted int64          `json:"accepted"`
	Refused  int64          `json:"refused"`
	List     []clientStatus `json:"list"`
}

type clientStatus struct {
	Addr     string `json:"addr"`
	Version  string `json:"version"`
	Since    int64  `json:"since"`
	Requests int64  `json:"requests"`
	InFlight int    `json:"inFlight"`
}

type messageStatus struct {
	Time  int64  `json:"time"`
	Level string `json:"level"`
	Text  string `json:"text"`
}

// A point is a number, or NaN, which is null, where there is none.
type point float64

// MarshalJSON implements json.Marshaler.
func (p point) MarshalJSON() ([]byte, error) {
	if f := float64(p); !math.IsNaN(f) && !math.IsInf(f, 0) {
		return strconv.AppendFloat(nil, f, 'g', 6, 64), nil
	}
	return []byte("null"), nil
}

// A line is one that a chart shows: over the samples that share a point, the
// change of a statistic in a second, its average, its largest value, or its
// change as a share of another's. All leave out what is 0 where there was
// nothing to measure.
type line struct {
	name, arg, arg2 string
	kind            lineKind
}

type lineKind int

const (
	rateLine lineKind = iota
	averageLine
	peakLine
	shareLine
)

var lines = []line{
	{"reads", "rpcread", "", rateLine},
	{"writes", "rpcwrite", "", rateLine},
	{"syncs", "rpcsync", "", rateLine},
	{"readBytes", "rpcreadbyte", "", rateLine},
	{"writeBytes", "rpcwritebyte", "", rateLine},
	{"storedBytes", "storedbyte", "", rateLine},
	{"readCached50", "readcached50", "", peakLine},
	{"readCached99", "readcached99", "", peakLine},
	{"read50", "read50", "", peakLine},
	{"read99", "read99", "", peakLine},
	{"write50", "write50", "", peakLine},
	{"write99", "write99", "", peakLine},
	{"sync50", "sync50", "", peakLine},
	{"sync99", "sync99", "", peakLine},
	{"lumpHits", "lcachehit", "lcachelookup", shareLine},
	{"indexHits", "icachehit", "icachelookup", shareLine},
	{"bloomHits", "bloomhit", "bloomlookup", shareLine},
	{"dupes", "rpcwriteold", "rpcwrite", shareLine},
	{"conns", "conns", "", averageLine},
	{"dirty", "icachedirty", "", averageLine},
}

// statusJSON is /status.json; span=N are the seconds that series go back.
func (h *Handler) statusJSON(w http.ResponseWriter, r *http.Request) {
	span, err := strconv.ParseInt(r.FormValue("span"), 10, 64)
	if err != nil {
		span = 120
	}
	st := h.status(time.Now(), min(max(span, minSpan), maxSpan))
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(st); err != nil {
		h.log.Debug("write page", "page", "/status.json", "err", err) // the client has gone
	}
}

func (h *Handler) status(now time.Time, span int64) *status {
	info, stats := h.store.Info(), h.store.Stats()
	s := &status{
		Now: now.UnixMilli(), Began: h.began.UnixMilli(), Index: info.Index.Name, Encoding: info.Encoding, ReadOnly: info.ReadOnly,
		Buckets: bucketStatus{
			Buckets: info.Index.Buckets, Sections: len(info.Index.Sections),
			Capacity: int64(info.Index.Buckets) * int64(info.Index.Sections[0].Capacity),
			Dirty:    stats.DirtyEntries, Bound: stats.DirtyBound, Stuck: stats.StuckEntries, Flushes: stats.Flushes,
		},
		Cache:  cacheStatus{stats.CachedLumps, stats.CachedBytes, stats.CacheSize},
		Damage: damageStatus{stats.CorruptClumps, stats.Healed, stats.ReadErrors, stats.Collisions},
		Scrub:  scrubOf(stats.Scrub),
		Span:   span,
	}
	if err := h.store.Health(); err != nil {
		s.Health = err.Error()
	}
	var total sums
	for i := range info.Arenas {
		a := &info.Arenas[i]
		var own sums
		own.add(&a.Written)
		total.add(&a.Written)
		s.Space.Total += a.Size
		if a.Written.Clumps > 0 {
			s.Space.Active++
		}
		if a.Written.Sealed {
			s.Space.Sealed++
		}
		if i < statusArenas {
			s.Arenas = append(s.Arenas, arenaStatus{
				a.Name, float64(own.storage) / float64(a.Size), a.Written.Clumps, stateOf(a), int64(a.Modified) * 1000,
			})
		}
	}
	s.Space.Arenas = len(info.Arenas)
	s.Space.Used, s.Space.Data, s.Space.Stored, s.Space.Clumps = total.storage, total.data, total.compressedData, total.clumps
	if b := info.Bloom; b != nil {
		fill := float64(b.Ones) / float64(b.Bits)
		s.Bloom = &bloomStatus{b.Size, b.Hashes, fill, math.Pow(fill, float64(b.Hashes))}
	}
	if h.cfg.Server != nil {
		st := h.cfg.Server.Stats()
		s.Clients = &clientsStatus{st.Conns, st.MaxConns, st.Accepted, st.Refused, []clientStatus{}}
		for _, c := range st.Clients {
			s.Clients.List = append(s.Clients.List, clientStatus{c.Addr, c.Version, c.Since.UnixMilli(), c.Requests, c.InFlight})
		}
	}
	s.Log = []messageStatus{}
	entries := h.cfg.Recent.Entries()
	for i := len(entries) - 1; i >= 0 && len(s.Log) < statusLog; i-- {
		e := &entries[i]
		s.Log = append(s.Log, messageStatus{e.Time.UnixMilli(), levelName(e.Level), e.Text})
	}
	hist := h.samples()
	s.Times, s.Series = hist.chart(lines, now.Unix(), span, statusPoints)
	return s
}

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

// stateOf returns a word for what an arena is doing.
func stateOf(a *store.ArenaInfo) string {
	switch {
	case a.Failed:
		return "failed"
	case a.Damaged:
		return "damaged"
	case a.Stuck:
		return "stuck"
	case !a.Seal.IsZero():
		return "sealed"
	case a.Written.Sealed:
		return "sealing"
	case a.Written.Clumps > 0:
		return "filling"
	}
	return "empty"
}

// chart returns points over the last span seconds up to now, at most n, and
// the times that they begin at, in milliseconds.
func (h *history) chart(lines []line, now, span int64, n int) ([]int64, map[string][]point) {
	step := max(1, (span+int64(n)-1)/int64(n)) // seconds in a point
	to := now/step*step + step                 // so that points stay what they are from one request to the next
	from := to - (span+step-1)/step*step
	n = int((to - from) / step)
	var columns []int
	for _, l := range lines {
		a, _ := column(l.arg)
		b, _ := column(l.arg2)
		columns = append(columns, a, b)
	}
	list := h.read(columns, from, to-1)
	times := make([]int64, n)
	for i := range times {
		times[i] = (from + int64(i)*step) * 1000
	}
	result := make(map[string][]point, len(lines))
	for j, l := range lines {
		points := make([]point, n)
		for i := range points {
			points[i] = point(math.NaN())
		}
		l.draw(points, list[2*j], list[2*j+1], from, step)
		result[l.name] = points
	}
	return times, result
}

// draw fills in the points from from on, step seconds each.
func (l *line) draw(points []point, a, b series, from, step int64) {
	for i := 0; i < len(a.times); {
		at := (a.times[i] - from) / step
		if a.times[i] < from {
			i++
			continue
		}
		// All samples of one point, and the one before them.
		first, before := i, max(i-1, 0)
		for i < len(a.times) && (a.times[i]-from)/step == at {
			i++
		}
		last := i - 1
		v := math.NaN()
		switch l.kind {
		case rateLine:
			if passed := a.times[last] - a.times[before]; passed > 0 {
				v = float64(a.values[last]-a.values[before]) / float64(passed)
			}
		case shareLine:
			if all := b.values[last] - b.values[before]; all > 0 {
				v = float64(a.values[last]-a.values[before]) / float64(all)
			}
		case averageLine:
			v = 0
			for _, x := range a.values[first:i] {
				v += float64(x) / float64(i-first)
			}
		case peakLine:
			for _, x := range a.values[first:i] {
				if x > 0 && !(float64(x) <= v) {
					v = float64(x)
				}
			}
		}
		points[at] = point(v)
	}
}
