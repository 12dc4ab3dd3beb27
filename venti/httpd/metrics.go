package httpd

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"strata/venti"
	"strata/venti/store"
)

// metrics returns /metrics. It has a registry of its own, so that two handlers
// can be in one process.
func (h *Handler) metrics() http.HandlerFunc {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		newCollector(h),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	if h.cfg.Metrics != nil {
		reg.MustRegister(h.cfg.Metrics)
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4}).ServeHTTP
}

// A metric is a number that /metrics shows. Values of one name, which differ
// in labels, stand together.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*state) float64
	label string // value of the label, if desc has one
}

// A latency is a histogram that /metrics shows.
type latency struct {
	op    string
	value func(*store.Latencies) *store.Latency
}

// state is what metrics are made of.
type state struct {
	store  store.Stats
	bloom  store.BloomInfo
	server venti.ServerStats
	up     bool
	age    time.Duration
}

func described(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("venti_"+name, help, labels, nil)
}

// A collector gathers the metrics of a handler when somebody asks.
type collector struct {
	h         *Handler
	metrics   []metric
	seconds   *prometheus.Desc
	latencies []latency
}

func newCollector(h *Handler) *collector {
	return &collector{
		h: h, metrics: makeMetrics(),
		seconds: described("seconds", "How long the store took. Reads from memory are sampled, one in 64.", "op"),
		latencies: []latency{
			{"read_cached", func(l *store.Latencies) *store.Latency { return &l.ReadCached }},
			{"read", func(l *store.Latencies) *store.Latency { return &l.Read }},
			{"write", func(l *store.Latencies) *store.Latency { return &l.Write }},
			{"store", func(l *store.Latencies) *store.Latency { return &l.Store }},
			{"sync", func(l *store.Latencies) *store.Latency { return &l.Sync }},
			{"index_read", func(l *store.Latencies) *store.Latency { return &l.IndexRead }},
			{"clump_read", func(l *store.Latencies) *store.Latency { return &l.ClumpRead }},
			{"log_sync", func(l *store.Latencies) *store.Latency { return &l.LogSync }},
		},
	}
}

func makeMetrics() []metric {
	var list []metric
	add := func(kind prometheus.ValueType, name, help string, value func(*state) float64) {
		list = append(list, metric{described(name, help), kind, value, ""})
	}
	count := func(name, help string, value func(*store.Stats) int64) {
		add(prometheus.CounterValue, name+"_total", help, func(s *state) float64 { return float64(value(&s.store)) })
	}
	gauge := func(name, help string, value func(*store.Stats) int64) {
		add(prometheus.GaugeValue, name, help, func(s *state) float64 { return float64(value(&s.store)) })
	}
	// group adds metrics of one name that differ in a label.
	group := func(kind prometheus.ValueType, name, help, label string, values map[string]func(*store.Stats) int64) {
		desc := described(name, help, label)
		for v, f := range values {
			list = append(list, metric{desc, kind, func(s *state) float64 { return float64(f(&s.store)) }, v})
		}
	}
	type values = map[string]func(*store.Stats) int64

	add(prometheus.GaugeValue, "up", "1 while the store takes writes, 0 when it no longer can.", func(s *state) float64 { return float64(truth(s.up)) })
	add(prometheus.GaugeValue, "uptime_seconds", "Since the server began.", func(s *state) float64 { return s.age.Seconds() })

	count("reads", "Blocks asked for.", func(s *store.Stats) int64 { return s.Reads })
	count("read_errors", "Blocks asked for that are absent or corrupt.", func(s *store.Stats) int64 { return s.ReadErrors })
	count("read_bytes", "Bytes of blocks returned.", func(s *store.Stats) int64 { return s.ReadBytes })
	group(prometheus.CounterValue, "writes_total", "Blocks given: new ones, and ones that were there.", "block", values{
		"new": func(s *store.Stats) int64 { return s.NewBlocks }, "old": func(s *store.Stats) int64 { return s.DupBlocks }})
	group(prometheus.CounterValue, "write_bytes_total", "Bytes of blocks given.", "block", values{
		"new": func(s *store.Stats) int64 { return s.NewBytes }, "old": func(s *store.Stats) int64 { return s.DupBytes }})
	count("stored_bytes", "Bytes that new blocks take in the log.", func(s *store.Stats) int64 { return s.StoredBytes })
	count("probes", "Blocks asked about.", func(s *store.Stats) int64 { return s.Probes })
	count("syncs", "Syncs asked for.", func(s *store.Stats) int64 { return s.Syncs })
	group(prometheus.CounterValue, "lookups_total", "Look-ups by what answered: lump cache, index cache, Bloom filter (absent), index.", "by", values{
		"lump_cache": func(s *store.Stats) int64 { return s.LumpHits }, "index_cache": func(s *store.Stats) int64 { return s.IndexHits },
		"bloom": func(s *store.Stats) int64 { return s.BloomMisses }, "index": func(s *store.Stats) int64 { return s.IndexReads }})
	count("index_false", "Look-ups that read the index and found nothing.", func(s *store.Stats) int64 { return s.IndexFalse })
	count("index_learned", "Index entries taken from clump directories.", func(s *store.Stats) int64 { return s.IndexLearned })
	count("clump_reads", "Clumps read from arenas.", func(s *store.Stats) int64 { return s.ClumpReads })
	count("clump_read_bytes", "Bytes of them.", func(s *store.Stats) int64 { return s.ClumpReadBytes })
	count("corrupt_clumps", "Clumps that are not what they are to be.", func(s *store.Stats) int64 { return s.CorruptClumps })
	count("healed", "Corrupt clumps that were replaced.", func(s *store.Stats) int64 { return s.Healed })
	group(prometheus.CounterValue, "mirror_reads_total", "Corrupt blocks that the mirror was asked for: those it has sent, and others.", "answer", values{
		"block": func(s *store.Stats) int64 { return s.MirrorReads }, "none": func(s *store.Stats) int64 { return s.MirrorFailed }})
	count("scrub_arenas", "Full arenas that the scrub has read.", func(s *store.Stats) int64 { return s.Scrub.Arenas })
	count("scrub_bytes", "Bytes of them.", func(s *store.Stats) int64 { return s.Scrub.Bytes })
	count("scrub_clumps", "Clumps that it has checked.", func(s *store.Stats) int64 { return s.Scrub.Clumps })
	count("scrub_passes", "How often it has been through all arenas.", func(s *store.Stats) int64 { return s.Scrub.Passes })
	count("scrub_corrupt", "Corrupt clumps that it has found, but for those that were healed before.", func(s *store.Stats) int64 { return s.Scrub.Corrupt })
	count("scrub_bad_seals", "Arenas that it found to be other than their seals say.", func(s *store.Stats) int64 { return s.Scrub.BadSeals })
	count("scrub_guards", "Guards that were missing, and that it has made.", func(s *store.Stats) int64 { return s.Scrub.Guards })
	gauge("scrub_rate_bytes", "Bytes a second that it reads at most; 0 without a scrub.", func(s *store.Stats) int64 { return s.Scrub.Rate })
	count("collisions", "Writes refused because another block has their score.", func(s *store.Stats) int64 { return s.Collisions })
	count("guard_checks", "Duplicate writes held against a guard or the block.", func(s *store.Stats) int64 { return s.GuardChecks })
	count("guard_compares", "Of these, the ones for which there was no guard.", func(s *store.Stats) int64 { return s.GuardCompares })
	group(prometheus.CounterValue, "waits_total", "Writes that waited, by what for: the log to be written, the index to be flushed.", "for", values{
		"log": func(s *store.Stats) int64 { return s.LogWaits }, "index": func(s *store.Stats) int64 { return s.IndexWaits }})
	count("log_writes", "Pieces of log written.", func(s *store.Stats) int64 { return s.LogWrites })
	count("log_syncs", "Syncs of arena partitions for their log.", func(s *store.Stats) int64 { return s.LogSyncs })
	count("checkpoints", "Of arena partitions.", func(s *store.Stats) int64 { return s.Checkpoints })
	count("flushes", "Of the index.", func(s *store.Stats) int64 { return s.Flushes })
	count("index_read_bytes", "Bytes of buckets read from the index.", func(s *store.Stats) int64 { return s.IndexReadBytes })
	count("index_write_bytes", "Bytes of buckets written to the index.", func(s *store.Stats) int64 { return s.IndexWriteBytes })
	count("sums", "Arenas read whole to seal them.", func(s *store.Stats) int64 { return s.Sums })
	count("sum_bytes", "Bytes of them.", func(s *store.Stats) int64 { return s.SumBytes })
	count("flushed_entries", "Entries written to the index.", func(s *store.Stats) int64 { return s.FlushedEntries })

	count("spilt_entries", "Of these, the ones that went to the overflow of the index.", func(s *store.Stats) int64 { return s.SpiltEntries })

	group(prometheus.GaugeValue, "arenas", "Arenas, full ones and others.", "state", values{
		"sealed": func(s *store.Stats) int64 { return int64(s.SealedArenas) }, "open": func(s *store.Stats) int64 { return int64(s.Arenas - s.SealedArenas) }})
	gauge("clumps", "Clumps in all arenas.", func(s *store.Stats) int64 { return s.Clumps })
	gauge("clump_bytes", "Bytes that they take.", func(s *store.Stats) int64 { return s.ClumpBytes })
	gauge("uncompressed_bytes", "Bytes of the blocks in them.", func(s *store.Stats) int64 { return s.UncompressedBytes })
	gauge("space_bytes", "Bytes that clumps and directories may take.", func(s *store.Stats) int64 { return s.Space })
	gauge("cached_lumps", "Blocks in the lump cache.", func(s *store.Stats) int64 { return s.CachedLumps })
	gauge("cached_bytes", "Bytes of them.", func(s *store.Stats) int64 { return s.CachedBytes })
	gauge("cache_size_bytes", "Bytes that the lump cache may take.", func(s *store.Stats) int64 { return s.CacheSize })
	gauge("dirty_entries_limit", "Index entries that may wait for the disk before writes do.", func(s *store.Stats) int64 { return s.DirtyBound })
	gauge("dirty_entries", "Index entries that are not on disk yet.", func(s *store.Stats) int64 { return s.DirtyEntries })
	gauge("stuck_entries", "Index entries for which their bucket has no room.", func(s *store.Stats) int64 { return s.StuckEntries })
	add(prometheus.GaugeValue, "bloom_fill_ratio", "Share of the Bloom filter's bits that are set, about.", func(s *state) float64 {
		if s.bloom.Bits == 0 {
			return 0
		}
		return float64(s.bloom.Ones) / float64(s.bloom.Bits)
	})
	add(prometheus.GaugeValue, "connections", "Clients connected.", func(s *state) float64 { return float64(s.server.Conns) })
	add(prometheus.CounterValue, "connections_total", "Clients that have connected.", func(s *state) float64 { return float64(s.server.Accepted) })
	add(prometheus.CounterValue, "connections_refused_total", "Clients turned away.", func(s *state) float64 { return float64(s.server.Refused) })
	return list
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.seconds
	for _, m := range c.metrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	h := c.h
	st := h.store
	s := state{store: st.Stats(), bloom: st.BloomInfo(), up: st.Health() == nil, age: time.Since(h.began)}
	if h.cfg.Server != nil {
		s.server = h.cfg.Server.Stats()
	}
	for _, m := range c.metrics {
		var labels []string
		if m.label != "" {
			labels = []string{m.label}
		}
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&s), labels...)
	}
	times := st.Latencies()
	for _, l := range c.latencies {
		v := l.value(&times)
		// Every second bound, the powers of two, are enough here.
		buckets := make(map[float64]uint64)
		var n uint64
		for i, count := range v.Counts {
			n += uint64(count)
			if i%2 == 0 && i < store.LatencyBuckets-1 {
				buckets[store.LatencyBound(i).Seconds()] = n
			}
		}
		ch <- prometheus.MustNewConstHistogram(c.seconds, n, v.Sum.Seconds(), buckets, l.op)
	}
}
