package httpd

import (
	"context"
	"encoding/binary"
	"slices"
	"sort"
	"time"

	"strata/venti"
	"strata/venti/store"
)

// A history is what the statistics were at each second. The zero value is
// empty. A copy keeps what it has, and may be read while the other grows.
//
// Samples are collected until a chunk is whole, and then kept as differences,
// in a byte or two each, or in none where nothing has changed: a day takes a
// few megabytes.
type history struct {
	chunks []chunk                 // whole, oldest first
	open   [timeColumn + 1][]int64 // the samples since, by column
}

const (
	chunkSamples = 256
	// keptChunks make 90,000 samples, as Plan 9's server keeps.
	keptChunks = 90000/chunkSamples + 1

	// timeColumn is the time of a sample, in seconds since 1970.
	timeColumn = len(statistics)
)

// A chunk is chunkSamples samples.
type chunk struct {
	first, last int64 // times
	columns     [timeColumn + 1]deltas
}

// deltas are the numbers of a column: first, and from each to the next a
// difference as encoding/binary's signed varint has it. No bytes means that
// all differences are 0.
type deltas struct {
	first int64
	diffs []byte
}

// pack returns values, of which there is one at least.
func pack(values []int64) deltas {
	d := deltas{first: values[0]}
	prev, changed := values[0], false
	for _, v := range values[1:] {
		d.diffs = binary.AppendVarint(d.diffs, v-prev)
		changed = changed || v != prev
		prev = v
	}
	if !changed {
		d.diffs = nil
	}
	return d
}

// unpack appends the n values of d to list.
func (d *deltas) unpack(list []int64, n int) []int64 {
	v, b := d.first, d.diffs
	list = append(list, v)
	for range n - 1 {
		diff, size := binary.Varint(b)
		b = b[max(size, 0):]
		v += diff
		list = append(list, v)
	}
	return list
}

// setBack is by how much, in seconds, the clock must have been set back for
// the history to begin anew. For less, samples are dropped meanwhile.
const setBack = 60

// add adds a sample: the values of all columns.
func (h *history) add(values *[timeColumn + 1]int64) {
	if last, ok := h.last(); ok && values[timeColumn] <= last {
		if values[timeColumn] > last-setBack {
			return
		}
		*h = history{}
	}
	for i, v := range values {
		h.open[i] = append(h.open[i], v)
	}
	times := h.open[timeColumn]
	if len(times) < chunkSamples {
		return
	}
	c := chunk{first: times[0], last: times[chunkSamples-1]}
	for i := range h.open {
		c.columns[i] = pack(h.open[i])
		h.open[i] = nil // a copy may have the samples
	}
	if len(h.chunks) == keptChunks {
		h.chunks = slices.Clone(h.chunks[1:])
	}
	h.chunks = append(h.chunks, c)
}

// last returns the time of the last sample.
func (h *history) last() (int64, bool) {
	if n := len(h.open[timeColumn]); n > 0 {
		return h.open[timeColumn][n-1], true
	}
	if n := len(h.chunks); n > 0 {
		return h.chunks[n-1].last, true
	}
	return 0, false
}

// A series is one column over time. times is ascending.
type series struct{ times, values []int64 }

// read returns columns of the samples from from to to, and of the one before
// from if there is one, so that differences begin at from. All series share
// their times.
func (h *history) read(columns []int, from, to int64) []series {
	var times []int64
	values := make([][]int64, len(columns))
	i := sort.Search(len(h.chunks), func(i int) bool { return h.chunks[i].last >= from })
	if i > 0 {
		i-- // its last sample may be the one before from
	}
	for ; i < len(h.chunks) && h.chunks[i].first <= to; i++ {
		c := &h.chunks[i]
		times = c.columns[timeColumn].unpack(times, chunkSamples)
		for j, col := range columns {
			values[j] = c.columns[col].unpack(values[j], chunkSamples)
		}
	}
	times = append(times, h.open[timeColumn]...)
	for j, col := range columns {
		values[j] = append(values[j], h.open[col]...)
	}
	lo := max(0, sort.Search(len(times), func(i int) bool { return times[i] >= from })-1)
	hi := sort.Search(len(times), func(i int) bool { return times[i] > to })
	list := make([]series, len(columns))
	for j := range list {
		list[j] = series{times[lo:max(lo, hi)], values[j][lo:max(lo, hi)]}
	}
	return list
}

// A snapshot is what a sample is made of.
type snapshot struct {
	store   store.Stats
	times   store.Latencies
	server  venti.ServerStats
	bloom   store.BloomInfo
	bloomAt time.Time       // when that was found out
	recent  store.Latencies // times, since the snapshot before
}

// sampleEvery takes samples until ctx ends.
func (h *Handler) sampleEvery(ctx context.Context, interval time.Duration) {
	t := time.NewTicker(interval)
	defer t.Stop()
	h.sample(time.Now())
	for {
		select {
		case now := <-t.C:
			if h.sampling.Load() {
				h.sample(now)
			}
		case <-ctx.Done():
			return
		}
	}
}

// samples returns the history as it is.
func (h *Handler) samples() history {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.history
}

// sample takes a sample.
func (h *Handler) sample(now time.Time) {
	s := h.snapshot(now)
	h.mu.Lock()
	defer h.mu.Unlock()
	s.since(h.last)
	h.last = s
	var values [timeColumn + 1]int64
	for i := range statistics {
		if f := statistics[i].value; f != nil {
			values[i] = f(s)
		}
	}
	values[timeColumn] = now.Unix()
	h.history.add(&values)
}

// bloomTime is how long what is said of the Bloom filter is good for: it is
// estimated by a walk through all its memory.
const bloomTime = 10 * time.Second

// snapshot returns the statistics of this moment.
func (h *Handler) snapshot(now time.Time) *snapshot {
	s := &snapshot{store: h.store.Stats(), times: h.store.Latencies()}
	h.mu.Lock()
	last := h.last
	h.mu.Unlock()
	if last != nil && now.Sub(last.bloomAt) < bloomTime {
		s.bloom, s.bloomAt = last.bloom, last.bloomAt
	} else {
		s.bloom, s.bloomAt = h.store.BloomInfo(), now
	}
	if h.cfg.Server != nil {
		s.server = h.cfg.Server.Stats()
	}
	return s
}

// since fills in s.recent.
func (s *snapshot) since(before *snapshot) {
	if before == nil {
		before = s
	}
	for _, t := range []struct{ out, now, then *store.Latency }{
		{&s.recent.ReadCached, &s.times.ReadCached, &before.times.ReadCached},
		{&s.recent.Read, &s.times.Read, &before.times.Read},
		{&s.recent.Write, &s.times.Write, &before.times.Write},
		{&s.recent.Store, &s.times.Store, &before.times.Store},
		{&s.recent.Sync, &s.times.Sync, &before.times.Sync},
		{&s.recent.IndexRead, &s.times.IndexRead, &before.times.IndexRead},
		{&s.recent.ClumpRead, &s.times.ClumpRead, &before.times.ClumpRead},
		{&s.recent.LogSync, &s.times.LogSync, &before.times.LogSync},
	} {
		*t.out = t.now.Since(t.then)
	}
}
