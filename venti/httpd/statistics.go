package httpd

import (
	"slices"
	"time"

	"strata/venti/internal/arena"
	"strata/venti/store"
)

// A statistic is a number that a sample holds, under the name that /graph
// knows it by. Those without a value are of work that this server does not do
// or leaves to the kernel; they are 0.
type statistic struct {
	name  string
	value func(*snapshot) int64
}

// statistics are all there are: those of Plan 9's server in its order, and
// from rpcsync on those that it does not have. Times are in milliseconds, but
// for the quantiles at the end.
//
// Sizes of caches are what they may hold: lumps of 8 KiB, and index entries that
// are dirty. A Bloom filter hits when it spares a look-up in the index, and misses when
// it cannot; a false miss is a look-up that found nothing.
var statistics = [...]statistic{
	{"rpctotal", func(s *snapshot) int64 { return s.store.Reads + s.store.Writes + s.store.Probes + s.store.Syncs }},
	{"rpcread", func(s *snapshot) int64 { return s.store.Reads }},
	{"rpcreadok", func(s *snapshot) int64 { return s.store.Reads - s.store.ReadErrors }},
	{"rpcreadfail", func(s *snapshot) int64 { return s.store.ReadErrors }},
	{"rpcreadbyte", func(s *snapshot) int64 { return s.store.ReadBytes }},
	{"rpcreadtime", func(s *snapshot) int64 { return ms(&s.times.ReadCached) + ms(&s.times.Read) }},
	{"rpcreadcached", func(s *snapshot) int64 { return s.store.Reads - s.times.Read.Count() }},
	{"rpcreadcachedtime", func(s *snapshot) int64 { return ms(&s.times.ReadCached) }},
	{"rpcreaduncached", func(s *snapshot) int64 { return s.times.Read.Count() }},
	{"rpcreaduncachedtime", func(s *snapshot) int64 { return ms(&s.times.Read) }},
	{"rpcwrite", func(s *snapshot) int64 { return s.store.Writes }},
	{"rpcwritenew", func(s *snapshot) int64 { return s.store.NewBlocks }},
	{"rpcwriteold", func(s *snapshot) int64 { return s.store.DupBlocks }},
	{"rpcwritefail", func(s *snapshot) int64 { return s.times.Write.Count() - s.store.NewBlocks - s.store.DupBlocks }},
	{"rpcwritebyte", func(s *snapshot) int64 { return s.store.WriteBytes }},
	{"rpcwritetime", func(s *snapshot) int64 { return ms(&s.times.Write) }},
	{"rpcwritenewtime", func(s *snapshot) int64 { return ms(&s.times.Store) }},
	{"rpcwriteoldtime", func(s *snapshot) int64 { return ms(&s.times.Write) - ms(&s.times.Store) }},

	{"lcachehit", func(s *snapshot) int64 { return s.store.LumpHits }},
	{"lcachemiss", func(s *snapshot) int64 { return s.store.Reads + s.store.Writes - s.store.LumpHits }},
	{"lcachelookup", func(s *snapshot) int64 { return s.store.Reads + s.store.Writes }},
	{"lcachewrite", func(s *snapshot) int64 { return s.store.NewBlocks + s.store.ClumpReads }},
	{"lcachesize", func(s *snapshot) int64 { return s.store.CacheSize / (8 << 10) }},
	{"lcachestall", nil},
	{"lcachelookuptime", func(s *snapshot) int64 { return ms(&s.times.ReadCached) }},

	{"dcachehit", nil}, {"dcachemiss", nil}, {"dcachelookup", nil}, {"dcacheread", nil}, {"dcachewrite", nil},
	{"dcachedirty", nil}, {"dcachesize", nil},
	{"dcacheflush", func(s *snapshot) int64 { return s.store.Checkpoints }},
	{"dcachestall", nil}, {"dcachelookuptime", nil},
	{"dblockstall", func(s *snapshot) int64 { return s.store.LogWaits }},
	{"lumpstall", nil},

	{"icachehit", func(s *snapshot) int64 { return s.store.IndexHits }},
	{"icachemiss", func(s *snapshot) int64 { return s.store.BloomMisses + s.store.IndexReads }},
	{"icacheread", func(s *snapshot) int64 { return s.store.IndexReads }},
	{"icachewrite", func(s *snapshot) int64 { return s.store.FlushedEntries }},
	{"icachefill", func(s *snapshot) int64 { return s.store.IndexReads - s.store.IndexFalse }},
	{"icacheprefetch", func(s *snapshot) int64 { return s.store.IndexLearned }},
	{"icachedirty", func(s *snapshot) int64 { return s.store.DirtyEntries }},
	{"icachesize", func(s *snapshot) int64 { return s.store.DirtyBound }},
	{"icacheflush", func(s *snapshot) int64 { return s.store.Flushes }},
	{"icachestall", func(s *snapshot) int64 { return s.store.IndexWaits }},
	{"icachelookuptime", func(s *snapshot) int64 { return ms(&s.times.IndexRead) }},
	{"icachelookup", func(s *snapshot) int64 { return s.store.IndexHits + s.store.BloomMisses + s.store.IndexReads }},
	{"scachehit", nil},
	{"scacheprefetch", func(s *snapshot) int64 { return s.store.IndexLearned }},

	{"bloomhit", func(s *snapshot) int64 { return s.store.BloomMisses }},
	{"bloommiss", func(s *snapshot) int64 { return s.store.IndexReads }},
	{"bloomfalsemiss", func(s *snapshot) int64 { return s.store.IndexFalse }},
	{"bloomlookup", func(s *snapshot) int64 { return s.store.BloomMisses + s.store.IndexReads }},
	{"bloomones", func(s *snapshot) int64 { return s.bloom.Ones }},
	{"bloombits", func(s *snapshot) int64 { return s.bloom.Bits }},

	{"apartread", func(s *snapshot) int64 { return s.store.ClumpReads }},
	{"apartreadbyte", func(s *snapshot) int64 { return s.store.ClumpReadBytes }},
	{"apartwrite", func(s *snapshot) int64 { return s.store.LogWrites }},
	{"apartwritebyte", func(s *snapshot) int64 { return s.store.StoredBytes + s.store.NewBlocks*arena.ClumpInfoSize }},
	{"isectread", func(s *snapshot) int64 { return s.store.IndexReads }},
	{"isectreadbyte", func(s *snapshot) int64 { return s.store.IndexReadBytes }},
	{"isectwrite", func(s *snapshot) int64 { return s.store.Flushes }},
	{"isectwritebyte", func(s *snapshot) int64 { return s.store.IndexWriteBytes }},
	{"sumread", func(s *snapshot) int64 { return s.store.Sums }},
	{"sumreadbyte", func(s *snapshot) int64 { return s.store.SumBytes }},
	{"cigload", nil}, {"cigloadtime", nil},

	{"rpcsync", func(s *snapshot) int64 { return s.store.Syncs }},
	{"rpcsynctime", func(s *snapshot) int64 { return ms(&s.times.Sync) }},
	{"rpcprobe", func(s *snapshot) int64 { return s.store.Probes }},
	{"storedbyte", func(s *snapshot) int64 { return s.store.StoredBytes }},
	{"newbyte", func(s *snapshot) int64 { return s.store.NewBytes }},
	{"dupbyte", func(s *snapshot) int64 { return s.store.DupBytes }},
	{"clumps", func(s *snapshot) int64 { return s.store.Clumps }},
	{"clumpbyte", func(s *snapshot) int64 { return s.store.ClumpBytes }},
	{"logsync", func(s *snapshot) int64 { return s.store.LogSyncs }},
	{"stuck", func(s *snapshot) int64 { return s.store.StuckEntries }},
	{"corrupt", func(s *snapshot) int64 { return s.store.CorruptClumps }},
	{"healed", func(s *snapshot) int64 { return s.store.Healed }},
	{"collisions", func(s *snapshot) int64 { return s.store.Collisions }},
	{"conns", func(s *snapshot) int64 { return int64(s.server.Conns) }},
	{"connsrefused", func(s *snapshot) int64 { return s.server.Refused }},

	// What half of those in the last second took at most, and 99 %, in ns.
	{"readcached50", func(s *snapshot) int64 { return ns(&s.recent.ReadCached, 0.5) }},
	{"readcached99", func(s *snapshot) int64 { return ns(&s.recent.ReadCached, 0.99) }},
	{"read50", func(s *snapshot) int64 { return ns(&s.recent.Read, 0.5) }},
	{"read99", func(s *snapshot) int64 { return ns(&s.recent.Read, 0.99) }},
	{"write50", func(s *snapshot) int64 { return ns(&s.recent.Write, 0.5) }},
	{"write99", func(s *snapshot) int64 { return ns(&s.recent.Write, 0.99) }},
	{"sync50", func(s *snapshot) int64 { return ns(&s.recent.Sync, 0.5) }},
	{"sync99", func(s *snapshot) int64 { return ns(&s.recent.Sync, 0.99) }},
	{"logsync50", func(s *snapshot) int64 { return ns(&s.recent.LogSync, 0.5) }},
	{"logsync99", func(s *snapshot) int64 { return ns(&s.recent.LogSync, 0.99) }},
}

// plan9Statistics is how many of them Plan 9's server has.
const plan9Statistics = 69

func ms(l *store.Latency) int64 { return int64(l.Sum / time.Millisecond) }

func ns(l *store.Latency, q float64) int64 { return int64(l.Quantile(q)) }

// column returns where a statistic is in a sample, or 0 and false.
func column(name string) (int, bool) {
	i := slices.IndexFunc(statistics[:], func(s statistic) bool { return s.name == name })
	return max(i, 0), i >= 0
}
