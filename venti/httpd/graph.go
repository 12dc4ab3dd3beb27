package httpd

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// A graph is what the query of /graph asks for:
//
//	arg=NAME    the statistic, one of statistics
//	arg2=NAME   the second one, for some kinds
//	graph=KIND  one of graphKinds; raw if it is left out
//	t0= t1=     from when to when, in seconds since 1970 or, if they are not
//	            positive, from now; -120 and 0 if they are left out
//	min= max=   the range of values, or what there is, and 0
//	wid= ht=    size of the picture, 540 by 42 if they are left out
//	fill=N      one of colours; the name of the statistic chooses one if it is
//	            left out
//	text=1      text: 100 lines, each with samples, min, max and avg
type graph struct {
	arg, arg2     int // columns
	kind          graphKind
	from, to      int64 // seconds since 1970
	min, max      int64
	minSet        bool
	maxSet        bool
	width, height int
	fill          int
	text          bool
}

// Bounds of a picture, in pixels, and of its time.
const (
	minWidth, maxWidth   = 60, 2048
	minHeight, maxHeight = 16, 1024
	textBins             = 100
)

// A graphKind computes a value from the two statistics of a graph now, and how
// much they have changed since the sample before, in a second. What is divided
// by nothing is 0.
type graphKind func(now, change [2]int64) int64

var graphKinds = map[string]graphKind{
	"raw":     func(now, _ [2]int64) int64 { return now[0] },
	"diff":    func(_, change [2]int64) int64 { return change[0] },
	"pct":     func(now, _ [2]int64) int64 { return divide(100*now[0], now[1]) },
	"pctdiff": func(_, change [2]int64) int64 { return divide(100*change[0], change[1]) },
	"divdiff": func(_, change [2]int64) int64 { return divide(change[0], change[1]) },
}

// bandwidths are kinds too: each is the change of the sum of some statistics,
// whatever statistic the query asks for.
var bandwidths = map[string][]string{
	"netbw":  {"rpcreadbyte", "rpcwritebyte"},
	"diskbw": {"apartreadbyte", "apartwritebyte", "isectreadbyte", "isectwritebyte", "sumreadbyte"},
	"iobw": {"rpcreadbyte", "rpcwritebyte", "apartreadbyte", "apartwritebyte", "isectreadbyte", "isectwritebyte",
		"sumreadbyte"},
}

func divide(a, b int64) int64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// parseGraph reads the query of /graph at a time.
func parseGraph(q url.Values, now time.Time) (g graph, sum []int, err error) {
	var ok bool
	if g.arg, ok = column(q.Get("arg")); !ok {
		return g, nil, fmt.Errorf("unknown name %s", q.Get("arg"))
	}
	if name := q.Get("arg2"); name != "" {
		if g.arg2, ok = column(name); !ok {
			return g, nil, fmt.Errorf("unknown name %s", name)
		}
	}
	kind := q.Get("graph")
	if kind == "" {
		kind = "raw"
	}
	if g.kind, ok = graphKinds[kind]; !ok {
		names, ok := bandwidths[kind]
		if !ok {
			return g, nil, fmt.Errorf("unknown graph %s", kind)
		}
		g.kind = graphKinds["diff"]
		for _, n := range names {
			c, _ := column(n)
			sum = append(sum, c)
		}
	}
	number := func(name string, def, lo, hi int64) int64 {
		text := q.Get(name)
		if text == "" {
			return def
		}
		n, nerr := strconv.ParseInt(text, 10, 64)
		if nerr != nil && err == nil {
			err = fmt.Errorf("bad %s %q", name, text)
		}
		return min(max(n, lo), hi)
	}
	const year3000 = 32503680000
	moment := func(name string, def int64) int64 {
		t := number(name, def, -year3000, year3000)
		if t <= 0 {
			t += now.Unix()
		}
		return t
	}
	const most = 1 << 60 // differences of two still fit
	g.from, g.to = moment("t0", -120), moment("t1", 0)
	g.min, g.minSet = number("min", 0, -most, most), q.Has("min")
	g.max, g.maxSet = number("max", 0, -most, most), q.Has("max")
	g.width, g.height = int(number("wid", 540, minWidth, maxWidth)), int(number("ht", 42, minHeight, maxHeight))
	g.fill = int(number("fill", int64(g.arg), 0, 1<<30)) % len(colours)
	g.text = q.Get("text") != "" && q.Get("text") != "0"
	if err == nil && g.from >= g.to {
		err = fmt.Errorf("t0 is not before t1")
	}
	return g, sum, err
}

// A bin is what some samples have in common.
type bin struct{ samples, min, max, sum int64 }

func (b *bin) add(v int64) {
	if b.samples == 0 || v < b.min {
		b.min = v
	}
	if b.samples == 0 || v > b.max {
		b.max = v
	}
	b.samples++
	b.sum += v
}

func (b *bin) avg() int64 { return divide(b.sum, b.samples) }

// bins divides the time of g into n parts and computes each from the samples
// of the seconds that it touches. sum, if not nil, are the columns whose sum
// takes the place of g.arg. Handler.mu must be held.
func (g *graph) bins(h *history, sum []int, n int) []bin {
	columns := sum
	if sum == nil {
		columns = []int{g.arg, g.arg2}
	}
	list := h.read(columns, g.from, g.to)
	bins := make([]bin, n)
	times := list[0].times
	at := func(i int) (v [2]int64) {
		if sum == nil {
			return [2]int64{list[0].values[i], list[1].values[i]}
		}
		for _, s := range list {
			v[0] += s.values[i]
		}
		return v
	}
	span := g.to - g.from
	for i, t := range times {
		if t < g.from {
			continue
		}
		now := at(i)
		var change [2]int64
		if i > 0 {
			before, passed := at(i-1), t-times[i-1]
			change = [2]int64{(now[0] - before[0]) / passed, (now[1] - before[1]) / passed}
		}
		v := g.kind(now, change)
		// The second from t on touches these.
		first := (t - g.from) * int64(n) / span
		last := ((t+1-g.from)*int64(n) - 1) / span
		for b := first; b <= last && b < int64(n); b++ {
			bins[b].add(v)
		}
	}
	return bins
}

// graphPage is /graph.
func (h *Handler) graphPage(w http.ResponseWriter, r *http.Request) {
	g, sum, err := parseGraph(r.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n := textBins
	if !g.text {
		n = g.width - leftMargin - rightMargin
	}
	hist := h.samples()
	bins := g.bins(&hist, sum, n)
	if !g.text {
		w.Header().Set("Content-Type", "image/png")
		if r.Method != http.MethodHead {
			g.draw(w, bins)
		}
		return
	}
	text(w)
	fmt.Fprint(w, "stats\n\n")
	for i := range bins {
		b := &bins[i]
		fmt.Fprintf(w, "%d: nsamp=%d min=%d max=%d avg=%d\n", i, b.samples, b.min, b.max, b.avg())
	}
}
