// Package httpd shows a store over HTTP: to people, to scripts that cut the
// pages of Plan 9's venti, and to Prometheus.
//
//	h, err := httpd.New(httpd.Config{Store: s, Server: srv, Recent: recent})
//	err = h.Serve(ctx, listener) // until ctx ends
//	h.Close()
//
// The pages are
//
//	/              status, with charts that move; /status.json is what it shows
//	/index /xindex index, sections and arenas, as text and XML
//	/storage       totals
//	/stats         empty, as ever; /graph has the numbers
//	/graph         a statistic over time, as a picture or text (see graph.go)
//	/log           the last messages
//	/disk          an arena partition, an arena, a clump, as the disk has them
//	/debug         the arena map; where a block is
//	/set           settings
//	/flushicache /flushdcache /kickicache /kickdcache
//	/empty /emptylumpcache /emptyicache /emptydcache
//	/metrics       for Prometheus
//	/healthz       200, or 503 and the reason when nothing can be written
//	/debug/pprof/  profiles, if Config allows
//
// and, for every other path, the files of a directory. Wording and layout of
// the pages that Plan 9's server has are its own where scripts cut them; its
// block cache, "dcache", is the kernel's here, and what is left of it are the
// arenas' directories and trailers, which wait for a checkpoint.
//
// # Who may do what
//
// Nothing here asks who somebody is. All pages but /set with a value, /flush,
// /kick and /empty only read; those are refused unless Config.Control is set,
// and always to pages of other sites: a POST or a GET that a browser says
// comes from elsewhere is refused. A server on loopback answers only to names
// of the machine itself, so that no page whose name was made to lead there can
// read it. /disk shows sizes and scores, which are what it takes to read a block,
// of the partitions that the configuration names and no other file.
//
// # Samples
//
// While Serve runs, a sample of all statistics (statistics.go) is taken every
// second and kept for 25 hours (history.go); /graph and the charts of the status
// page are drawn from these. The store's own locks are held for as long as it
// takes to copy some numbers. The one lock here, Handler.mu, is held for less, and
// never together with one of the store's, but while a setting is changed.
package httpd
