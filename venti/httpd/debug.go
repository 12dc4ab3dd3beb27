package httpd

import (
	"bufio"
	"fmt"
	"net/http"
	"runtime"
	"strconv"

	"strata/internal/command"
	"strata/venti"
	"strata/venti/store"
)

// debugPage is /debug: op=amap, op=mem, or op=read with score=.
func (h *Handler) debugPage(w http.ResponseWriter, r *http.Request) {
	html(w)
	b := bufio.NewWriter(w)
	defer b.Flush()
	fmt.Fprint(b, "<h1>venti debug</h1>\n")
	switch op := r.FormValue("op"); op {
	case "":
		fmt.Fprintln(b, "no op")
	case "amap":
		h.debugMap(b, r.FormValue("addr"))
	case "mem":
		h.debugMemory(b)
	case "read":
		h.debugRead(b, r.FormValue("score"))
	default:
		fmt.Fprintf(b, "unknown op %s\n", escape(op))
	}
}

// debugMap writes the arenas with their addresses or, if there is one, only
// that of an address.
func (h *Handler) debugMap(b *bufio.Writer, addr string) {
	fmt.Fprint(b, "<h2>arena map</h2>\n<pre>\n")
	defer fmt.Fprint(b, "</pre>\n")
	var at uint64
	if addr != "" {
		var err error
		if at, err = strconv.ParseUint(addr, 0, 64); err != nil {
			fmt.Fprintf(b, "bad addr %s\n", escape(addr))
			return
		}
	}
	for _, a := range h.store.Info().Arenas {
		if addr == "" {
			fmt.Fprintf(b, "%s %#x %#x\n", escape(a.Name), a.Start, a.Stop)
		} else if at >= a.Start && at < a.Stop {
			fmt.Fprintf(b, "%s %#x %#x offset %#x\n", escape(a.Name), a.Start, a.Stop, at-a.Start)
		}
	}
}

// debugMemory writes what memory is used for.
func (h *Handler) debugMemory(b *bufio.Writer) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	st, info := h.store.Stats(), h.store.BloomInfo()
	fmt.Fprint(b, "<h2>memory</h2>\n<pre>\n")
	for _, l := range []struct {
		what  string
		bytes int64
	}{
		{"lumps in the cache", st.CachedBytes},
		{"bloom filter", int64(info.Size)},
		{"heap in use", int64(m.HeapInuse)},
		{"stacks", int64(m.StackInuse)},
		{"from the system, without caches and filter", int64(m.Sys)},
	} {
		fmt.Fprintf(b, "%-44s %s\n", l.what, command.Commas(l.bytes))
	}
	fmt.Fprintf(b, "%-44s %d\n</pre>\n", "goroutines", runtime.NumGoroutine())
}

// debugRead writes where a block is, for every type.
func (h *Handler) debugRead(b *bufio.Writer, text string) {
	score, err := venti.ParseScore(text)
	if err != nil {
		fmt.Fprintf(b, "bad score %s\n", escape(text))
		return
	}
	fmt.Fprintf(b, "<h2>lookup %v</h2>\n<pre>\n", score)
	parts := make(map[string]string) // of arenas
	for _, a := range h.store.Info().Arenas {
		parts[a.Name] = a.Partition
	}
	for t := range venti.RootType + 1 {
		p, err := h.store.Locate(score, t)
		if err != nil {
			fmt.Fprintf(b, "%v type %d: %s\n", score, t, escape(err.Error()))
			continue
		}
		writePlace(b, score, t, &p, parts)
	}
	fmt.Fprint(b, "</pre>\n")
}

func writePlace(b *bufio.Writer, score venti.Score, t venti.Type, p *store.Place, parts map[string]string) {
	fmt.Fprintf(b, "%v type %d: %scache", score, t, sign(p.LumpCache))
	if !p.Found {
		fmt.Fprint(b, " -lookup\n")
	} else {
		fmt.Fprintln(b)
	}
	if p.IndexErr != nil {
		fmt.Fprintf(b, "  index: %s\n", escape(p.IndexErr.Error()))
	}
	if !p.Found {
		return
	}
	fmt.Fprintf(b, "  %sicache %sbloom %sidisk\n", sign(p.IndexCache), sign(p.Bloom), sign(p.Indexed))
	fmt.Fprintf(b, "  lookupscore: addr=%#x size=%d\n", p.Addr, p.Clump.UncSize)
	fmt.Fprintf(b, "  amapitoa: aa=%#x arena=%s\n", p.Offset,
		link(p.Arena, "disk", parts[p.Arena], "type", "a", "arena", p.Arena, "score", score.String()))
	if p.ClumpErr != nil {
		fmt.Fprintf(b, "  loadclump: %s\n", escape(p.ClumpErr.Error()))
		return
	}
	fmt.Fprintf(b, "  loadclump: uncsize=%d size=%d encoding=%v type=%d score=%v\n",
		p.Clump.UncSize, p.Clump.Size, p.Clump.Encoding, t, p.Clump.Score)
}

func sign(v bool) string {
	if v {
		return "+"
	}
	return "-"
}
