package console

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"strata/fossil"
)

// Handler returns what answers over HTTP: /metrics for Prometheus, and
// /healthz, which is 200, or 503 and the reason why a file system that is open
// can no longer be written to.
func (h *Host) Handler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		h.Metrics(),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		for _, f := range h.all() {
			if fs := f.FS(); fs != nil && fs.Err() != nil {
				http.Error(w, fmt.Sprintf("%s: %v", f.name, fs.Err()), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// Metrics returns what Handler shows of the host itself, for who shows more.
func (h *Host) Metrics() prometheus.Collector { return newCollector(h) }

// httpTime is how long a client may take to say what it wants.
const httpTime = 10 * time.Second

// serveHTTP serves Handler until ctx ends.
func (h *Host) serveHTTP(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{Handler: h.Handler(), ReadTimeout: httpTime, WriteTimeout: time.Minute, MaxHeaderBytes: 1 << 16}
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	err := srv.Serve(ln)
	if ctx.Err() == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpTime)
	defer cancel()
	return errors.Join(srv.Shutdown(ctx), srv.Close())
}

// A metric is a number of a file system that /metrics shows.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	label string // value of the second label, if desc has one
	value func(*fossil.Stats) float64
}

// A collector gathers the metrics of a host when somebody asks.
type collector struct {
	h       *Host
	open    *prometheus.Desc
	halted  *prometheus.Desc
	up      *prometheus.Desc
	metrics []metric

	conns, accepted, messages, waits, commands *prometheus.Desc
}

func described(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("fossil_"+name, help, labels, nil)
}

func newCollector(h *Host) *collector {
	return &collector{
		h:       h,
		open:    described("open", "1 while the file system is open.", "fsys"),
		halted:  described("halted", "1 while it is halted.", "fsys"),
		up:      described("up", "1 while it takes writes, 0 when it no longer can.", "fsys"),
		metrics: fsysMetrics(),

		conns:    described("connections", "Clients of 9P connected."),
		accepted: described("connections_total", "Clients of 9P that have connected."),
		messages: described("messages_total", "Messages of 9P taken."),
		waits:    described("waits_total", "Requests that waited for others of their connection, because of their number or bytes.", "for"),
		commands: described("commands_total", "Commands of the console run."),
	}
}

func fsysMetrics() []metric {
	var list []metric
	add := func(kind prometheus.ValueType, name, help string, value func(*fossil.Stats) float64) {
		list = append(list, metric{described(name, help, "fsys"), kind, "", value})
	}
	gauge := func(name, help string, value func(*fossil.Stats) int64) {
		add(prometheus.GaugeValue, name, help, func(s *fossil.Stats) float64 { return float64(value(s)) })
	}
	count := func(name, help string, value func(*fossil.Stats) int64) {
		add(prometheus.CounterValue, name+"_total", help, func(s *fossil.Stats) float64 { return float64(value(s)) })
	}
	type values = map[string]func(*fossil.Stats) int64
	// group adds metrics of one name that differ in a label.
	group := func(kind prometheus.ValueType, name, help, label string, v values) {
		desc := described(name, help, "fsys", label)
		for l, f := range v {
			list = append(list, metric{desc, kind, l, func(s *fossil.Stats) float64 { return float64(f(s)) }})
		}
	}

	group(prometheus.GaugeValue, "blocks", "Blocks of the partition: in use, and not.", "state", values{
		"used": func(s *fossil.Stats) int64 { return int64(s.Buffer.Used) }, "free": func(s *fossil.Stats) int64 { return int64(s.Buffer.Blocks) - int64(s.Buffer.Used) }})
	gauge("block_size_bytes", "Bytes in a block.", func(s *fossil.Stats) int64 { return int64(s.Buffer.BlockSize) })
	gauge("reserve_blocks", "Free blocks that are kept for snapshots and removal.", func(s *fossil.Stats) int64 { return int64(s.Buffer.Reserve) })
	gauge("closing_trees", "Trees that were let go and whose blocks are being freed.", func(s *fossil.Stats) int64 { return int64(s.Buffer.Trees) })
	group(prometheus.GaugeValue, "epoch", "The oldest epoch whose snapshot is kept, and that of the active tree.", "which", values{
		"low": func(s *fossil.Stats) int64 { return int64(s.EpochLow) }, "high": func(s *fossil.Stats) int64 { return int64(s.EpochHigh) }})
	group(prometheus.GaugeValue, "cached_blocks", "Blocks in memory: those that must stay there, and others.", "state", values{
		"pinned": func(s *fossil.Stats) int64 { return int64(s.Buffer.Pinned) }, "loose": func(s *fossil.Stats) int64 { return int64(s.Buffer.Cached - s.Buffer.Pinned) }})
	gauge("cache_limit_blocks", "Blocks that are to be in memory at most.", func(s *fossil.Stats) int64 { return int64(s.Buffer.CacheLimit) })
	group(prometheus.CounterValue, "lookups_total", "Blocks asked for: in memory, and not.", "found", values{
		"memory": func(s *fossil.Stats) int64 { return s.Buffer.Hits }, "no": func(s *fossil.Stats) int64 { return s.Buffer.Misses }})

	count("file_reads", "Reads of files.", func(s *fossil.Stats) int64 { return s.Reads })
	count("file_read_bytes", "Bytes of them.", func(s *fossil.Stats) int64 { return s.ReadBytes })
	count("file_writes", "Writes to files.", func(s *fossil.Stats) int64 { return s.Writes })
	count("file_write_bytes", "Bytes of them.", func(s *fossil.Stats) int64 { return s.WriteBytes })
	count("syncs", "Syncs asked for.", func(s *fossil.Stats) int64 { return s.Syncs })
	count("full", "Changes that found no room.", func(s *fossil.Stats) int64 { return s.Buffer.Full })

	count("disk_reads", "Blocks read from the partition.", func(s *fossil.Stats) int64 { return s.Buffer.DiskReads })
	count("disk_writes", "Blocks written to their places.", func(s *fossil.Stats) int64 { return s.Buffer.Written })
	count("log_bytes", "Bytes written to the log.", func(s *fossil.Stats) int64 { return s.Buffer.LogBytes })
	count("commits", "Groups of changes made durable.", func(s *fossil.Stats) int64 { return s.Buffer.Commits })
	add(prometheus.CounterValue, "commit_seconds_total", "How long they took.", func(s *fossil.Stats) float64 { return s.Buffer.CommitTime.Seconds() })
	count("checkpoints", "Times that the log was emptied.", func(s *fossil.Stats) int64 { return s.Buffer.Checkpoints })

	count("venti_reads", "Blocks asked of Venti.", func(s *fossil.Stats) int64 { return s.Buffer.VentiReads })
	count("venti_read_errors", "Of these, those that did not come.", func(s *fossil.Stats) int64 { return s.Buffer.VentiErrors })
	count("venti_read_bytes", "Bytes of those that did.", func(s *fossil.Stats) int64 { return s.Buffer.VentiBytes })
	add(prometheus.CounterValue, "venti_read_seconds_total", "How long all took together.", func(s *fossil.Stats) float64 { return s.Buffer.VentiTime.Seconds() })

	count("snapshots", "Snapshots taken.", func(s *fossil.Stats) int64 { return s.Snapshots })
	count("archives", "Snapshots archived.", func(s *fossil.Stats) int64 { return s.Archive.Done })
	count("archive_failures", "Attempts at that which failed, and are made again.", func(s *fossil.Stats) int64 { return s.Archive.Failed })
	gauge("archive_waiting", "1 while a snapshot is to be archived.", func(s *fossil.Stats) int64 { return truth(s.Archive.Waiting) })
	gauge("archive_running", "1 while one is being archived.", func(s *fossil.Stats) int64 { return truth(s.Archive.Running) })
	gauge("archive_blocks", "Blocks sent by the last, or the one under way.", func(s *fossil.Stats) int64 { return s.Archive.Blocks })
	gauge("archive_bytes", "Bytes of them.", func(s *fossil.Stats) int64 { return s.Archive.Bytes })
	add(prometheus.GaugeValue, "archive_begin_timestamp_seconds", "When it began.", func(s *fossil.Stats) float64 {
		if s.Archive.Began.IsZero() {
			return 0
		}
		return float64(s.Archive.Began.Unix())
	})
	add(prometheus.GaugeValue, "archive_seconds", "How long the last took.", func(s *fossil.Stats) float64 { return s.Archive.Took.Seconds() })
	return list
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.open, c.halted, c.up, c.conns, c.accepted, c.messages, c.waits, c.commands} {
		ch <- d
	}
	for _, m := range c.metrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	for _, f := range c.h.all() {
		fs := f.FS()
		send(c.open, prometheus.GaugeValue, float64(truth(fs != nil)), f.name)
		send(c.halted, prometheus.GaugeValue, float64(truth(f.Halted())), f.name)
		if fs == nil {
			continue
		}
		send(c.up, prometheus.GaugeValue, float64(truth(fs.Err() == nil)), f.name)
		s := fs.Stats()
		for _, m := range c.metrics {
			labels := []string{f.name}
			if m.label != "" {
				labels = append(labels, m.label)
			}
			send(m.desc, m.kind, m.value(&s), labels...)
		}
	}
	n := c.h.netStats()
	send(c.conns, prometheus.GaugeValue, float64(n.Conns))
	send(c.accepted, prometheus.CounterValue, float64(n.Accepted))
	send(c.messages, prometheus.CounterValue, float64(n.Messages))
	send(c.waits, prometheus.CounterValue, float64(n.NumberWaits), "number")
	send(c.waits, prometheus.CounterValue, float64(n.ByteWaits), "bytes")
	send(c.commands, prometheus.CounterValue, float64(c.h.ran.Load()))
}
