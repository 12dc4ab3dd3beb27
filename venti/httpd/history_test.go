package httpd

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/url"
	"testing"
	"time"
)

// fake returns a history with a sample at each of the times, in which column
// i of the one at t is value(i, t).
func fake(times []int64, value func(i int, t int64) int64) *history {
	h := new(history)
	for _, t := range times {
		var v [timeColumn + 1]int64
		for i := range v {
			v[i] = value(i, t)
		}
		v[timeColumn] = t
		h.add(&v)
	}
	return h
}

func upTo(from, to int64) (list []int64) {
	for t := from; t <= to; t++ {
		list = append(list, t)
	}
	return list
}

// TestHistory reads back what was added, wherever chunks begin and end.
func TestHistory(t *testing.T) {
	const first, last = 1000, 1000 + 5*chunkSamples + 17
	value := func(i int, at int64) int64 {
		switch i % 3 {
		case 0:
			return 7
		case 1:
			return at * int64(i) * 1e12
		}
		return int64(rand.New(rand.NewPCG(uint64(at), uint64(i))).Uint64())
	}
	h := fake(upTo(first, last), value)
	for _, r := range [][2]int64{
		{first, last}, {0, 1 << 40}, {first + 1, first + 1}, {last, last}, {last + 1, last + 10}, {0, first - 1},
		{first + chunkSamples - 1, first + chunkSamples}, {first + chunkSamples, first + chunkSamples}, {first + 300, first + 900},
		{last - 17, last}, {last - 18, last - 18},
	} {
		from, to := r[0], r[1]
		// The sample before from comes too.
		wantFrom, wantTo := max(first, from-1), min(last, to)
		for i, s := range h.read([]int{0, 1, 2, 5}, from, to) {
			col := []int{0, 1, 2, 5}[i]
			if len(s.times) != len(s.values) || int64(len(s.times)) != max(0, wantTo-min(wantFrom, last)+1) {
				t.Fatalf("from %d to %d: %d times and %d values", from, to, len(s.times), len(s.values))
			}
			for j, at := range s.times {
				if at != min(wantFrom, last)+int64(j) || s.values[j] != value(col, at) {
					t.Fatalf("from %d to %d: column %d, sample %d is %d at %d", from, to, col, j, s.values[j], at)
				}
			}
		}
	}
	// The clock was set back.
	copied := *h
	h.add(&[timeColumn + 1]int64{timeColumn: last - 5})
	if got, _ := h.last(); got != last {
		t.Errorf("the last sample is of %d, want %d", got, last)
	}
	back := *h
	back.add(&[timeColumn + 1]int64{timeColumn: last - setBack})
	if s := back.read([]int{1}, 0, 1<<40)[0]; len(s.times) != 1 || s.times[0] != last-setBack {
		t.Errorf("after the clock was set back, the times are %v", s.times)
	}
	// What a copy has does not change.
	for at := int64(last + 1); at < last+1000; at++ {
		h.add(&[timeColumn + 1]int64{timeColumn: at})
	}
	for _, s := range copied.read([]int{1}, 0, 1<<40) {
		if n := len(s.times); n != last-first+1 || s.values[n-1] != value(1, last) {
			t.Errorf("a copy has %d samples", n)
		}
	}
}

// TestHistoryIsBounded adds more samples than are kept.
func TestHistoryIsBounded(t *testing.T) {
	h := new(history)
	var v [timeColumn + 1]int64
	const last = (keptChunks + 3) * chunkSamples
	for at := int64(1); at <= last; at++ {
		v[timeColumn] = at
		v[3] += at % 100
		h.add(&v)
	}
	size := 0
	for i := range h.chunks {
		for j := range h.chunks[i].columns {
			size += len(h.chunks[i].columns[j].diffs)
		}
	}
	if n := len(h.chunks); n != keptChunks || size > n*chunkSamples*4 {
		t.Errorf("%d chunks, with %d bytes of differences", n, size)
	}
	s := h.read([]int{3}, 0, 1<<40)[0]
	if n := len(s.times); n < 90000 || n > 90000+2*chunkSamples || s.times[n-1] != last || s.values[n-1] != v[3] {
		t.Errorf("%d samples are kept, up to %d", n, s.times[n-1])
	}
}

// FuzzDeltas packs and unpacks a column, and unpacks what was never packed.
func FuzzDeltas(f *testing.F) {
	f.Add([]byte{}, int64(0))
	f.Add([]byte{0x80}, int64(1))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8, 9}, int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, b []byte, first int64) {
		d := deltas{first: first, diffs: b}
		if got := d.unpack(nil, chunkSamples); len(got) != chunkSamples || got[0] != first {
			t.Fatalf("%d values, the first %d", len(got), got[0])
		}
		values := []int64{first}
		for ; len(b) >= 8; b = b[8:] {
			values = append(values, int64(binary.LittleEndian.Uint64(b)))
		}
		d = pack(values)
		for i, v := range d.unpack(nil, len(values)) {
			if v != values[i] {
				t.Fatalf("value %d is %d, want %d", i, v, values[i])
			}
		}
	})
}

// TestGraph computes graphs of two statistics, one of which grows by 10 each
// second, the other by 4.
func TestGraph(t *testing.T) {
	const now = 100_000
	write, _ := column("rpcwrite")
	total, _ := column("rpctotal")
	read, _ := column("rpcreadbyte")
	written, _ := column("rpcwritebyte")
	value := func(i int, at int64) int64 {
		switch i {
		case write:
			return (at - now + 1000) * 4
		case total, read, written:
			return (at - now + 1000) * 10
		}
		return 0
	}
	h := fake(upTo(now-999, now), value)
	for _, tc := range []struct {
		query string
		n     int
		want  map[int]bin
	}{
		{"arg=rpcwrite&t0=-100", 100, map[int]bin{0: {1, 3600, 3600, 3600}, 99: {1, 3996, 3996, 3996}}},
		{"arg=rpcwrite&t0=-10&graph=diff", 100, map[int]bin{0: {1, 4, 4, 4}, 55: {1, 4, 4, 4}, 99: {1, 4, 4, 4}}},
		{"arg=rpcwrite&t0=-400&t1=-200", 100, map[int]bin{0: {2, 2400, 2404, 4804}, 99: {2, 3192, 3196, 6388}}},
		{"arg=rpcwrite&arg2=rpctotal&graph=pct", 100, map[int]bin{0: {2, 40, 40, 80}, 50: {2, 40, 40, 80}}},
		{"arg=rpcwrite&arg2=rpctotal&graph=pctdiff&t0=-5", 5, map[int]bin{0: {1, 40, 40, 40}, 4: {1, 40, 40, 40}}},
		{"arg=rpctotal&arg2=rpcwrite&graph=divdiff&t0=-5", 5, map[int]bin{2: {1, 2, 2, 2}}},
		{"arg=rpctotal&arg2=lumpstall&graph=divdiff&t0=-5", 5, map[int]bin{2: {1, 0, 0, 0}}},
		{"arg=rpctotal&graph=netbw&t0=-5", 5, map[int]bin{2: {1, 20, 20, 20}}},
		{"arg=rpctotal&graph=iobw&t0=-5", 5, map[int]bin{2: {1, 20, 20, 20}}},
		{"arg=rpctotal&graph=diskbw&t0=-5", 5, map[int]bin{2: {1, 0, 0, 0}}},
		{"arg=rpcwrite&t0=-2000&t1=-1500", 10, map[int]bin{0: {}, 9: {}}},
		{"arg=rpcwrite&t0=99000&t1=99010", 10, map[int]bin{0: {}, 1: {1, 4, 4, 4}, 9: {1, 36, 36, 36}}},
		{"arg=rpcwrite&graph=diff&t0=99001&t1=99003", 2, map[int]bin{0: {1, 0, 0, 0}, 1: {1, 4, 4, 4}}}, // nothing comes before the first
	} {
		q, err := url.ParseQuery(tc.query)
		if err != nil {
			t.Fatal(err)
		}
		g, sum, err := parseGraph(q, time.Unix(now, 0))
		if err != nil {
			t.Errorf("%s: %v", tc.query, err)
			continue
		}
		bins := g.bins(h, sum, tc.n)
		for i, want := range tc.want {
			if bins[i] != want {
				t.Errorf("%s: bin %d is %+v, want %+v", tc.query, i, bins[i], want)
			}
		}
	}
	for s := range statistics {
		if i, ok := column(statistics[s].name); !ok || i != s {
			t.Errorf("two statistics are called %s", statistics[s].name)
		}
	}
	if got := statistics[plan9Statistics-1].name; got != "cigloadtime" {
		t.Errorf("the last of Plan 9's statistics is %s", got)
	}
}

// FuzzGraph draws whatever a query asks for.
func FuzzGraph(f *testing.F) {
	for _, q := range []string{
		"arg=rpctotal", "arg=rpcread&arg2=rpctotal&graph=pct&t0=-1&t1=0", "arg=rpcread&graph=iobw&wid=60&ht=16&fill=-1",
		"arg=clumps&t0=-99999999999999&t1=99999999999999&min=-9223372036854775808&max=9223372036854775807", "arg=sync99&t0=1&t1=2&text=1",
		"arg=rpctotal&t0=-9223372036854775809", "arg=bloomones&wid=1e9",
	} {
		f.Add(q)
	}
	const now = 100_000
	h := fake(upTo(now-600, now), func(i int, at int64) int64 { return (at - now) * int64(i) << 40 })
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		g, sum, err := parseGraph(q, time.Unix(now, 0))
		if err != nil {
			return
		}
		if g.width < minWidth || g.width > maxWidth || g.height < minHeight || g.height > maxHeight || g.from >= g.to {
			t.Fatalf("%+v", g)
		}
		g.width, g.height = min(g.width, 300), min(g.height, 100) // for speed
		bins := g.bins(h, sum, g.width-leftMargin-rightMargin)
		for i := range bins {
			if b := &bins[i]; b.samples < 0 || b.samples > 0 && b.min > b.max {
				t.Fatalf("bin %d is %+v", i, b)
			}
		}
		if err := g.draw(discard{}, bins); err != nil {
			t.Fatal(err)
		}
	})
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func TestShorten(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1000: "1k", 1500: "1.5k", 9949: "9.9k", 9951: "10k", 200_000: "200k", 999_499: "999k", 999_501: "1M",
		-1500: "-1.5k", math.MaxInt64: "9.2E", 1 << 30: "1.1G", 5e12: "5T", 5e15: "5P",
	} {
		if got := shorten(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
		for _, c := range []byte(shorten(n)) {
			if _, ok := glyphs[c]; !ok {
				t.Errorf("there is no glyph for %c", c)
			}
		}
	}
}

// TestChart makes points of samples of a second each, and of gaps.
func TestChart(t *testing.T) {
	const now = 100_000
	reads, _ := column("rpcread")
	hits, _ := column("lcachehit")
	lookups, _ := column("lcachelookup")
	p99, _ := column("read99")
	conns, _ := column("conns")
	h := fake(append(upTo(now-600, now-301), upTo(now-200, now)...), func(i int, at int64) int64 {
		n := at - now + 1000
		switch i {
		case reads:
			return 6 * n
		case hits:
			return 3 * n
		case lookups:
			return 4 * n
		case p99:
			return at % 10 // 0 where there were none
		case conns:
			return at % 2
		}
		return 0
	})
	for _, span := range []int64{100, 240, 900, 86400} {
		times, s := h.chart(lines, now, span, 240)
		n := len(times)
		step := (times[1] - times[0]) / 1000
		if n > 241 || step != max(1, (span+239)/240) || times[n-1] > now*1000 || times[n-1] <= (now-step)*1000 || times[0] > (now-span+step)*1000 {
			t.Errorf("span %d: %d points, %d seconds each, from %d to %d", span, n, step, times[0], times[n-1])
		}
		for i, at := range times {
			at /= 1000
			var have, gap bool // samples, and one before them
			for x := at; x < at+step; x++ {
				have = have || x >= now-600 && x <= now && (x <= now-301 || x >= now-200)
			}
			gap = at == now-600 && step == 1
			if got := s["reads"][i]; have && !gap && math.Abs(float64(got)-6) > 1e-9 || !have && !math.IsNaN(float64(got)) {
				t.Errorf("span %d: %v reads a second at %d, samples: %v", span, got, at-now, have)
			}
			if got := s["lumpHits"][i]; have && !gap && float64(got) != 0.75 {
				t.Errorf("span %d: %v hits at %d", span, got, at-now)
			}
			if got := float64(s["read99"][i]); have && step >= 10 && at+step < now && at > now-200 && got != 9 {
				t.Errorf("span %d: worst time is %v at %d", span, got, at-now)
			}
		}
		if span == 100 {
			if got := float64(s["read99"][n-1]); !math.IsNaN(got) {
				t.Errorf("a time that was not measured is %v", got)
			}
			if a, b := s["conns"][n-1], s["conns"][n-2]; a != 0 || b != 1 {
				t.Errorf("connections are %v and %v", a, b)
			}
		}
	}
}
