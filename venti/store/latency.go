package store

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A Latency counts how long something took, in buckets. Bucket i has what
// took at most LatencyBound(i) and longer than LatencyBound(i-1).
type Latency struct {
	Counts [LatencyBuckets]int64
	Sum    time.Duration
}

// Latencies are one Latency for each thing that a store measures. The reads
// from memory are measured one in cachedSample and count as many, for looking
// at the clock twice would be a tenth of what they take; all others each.
type Latencies struct {
	ReadCached Latency // ReadBlock and ReadCached, from the lump cache
	Read       Latency // ReadBlock of what is not there: look-up, clump, decoding
	Write      Latency // WriteBlock, of new blocks and of old ones
	Store      Latency // of that, for new blocks: compression, and to append to the log
	Sync       Latency // Sync, for each who waits
	IndexRead  Latency // look-ups in the index on disk
	ClumpRead  Latency // clumps from arenas, with decoding
	LogSync    Latency // syncs of an arena partition for its log
}

// LatencyBuckets is how many buckets there are, two for each power of two from
// 256 ns to 34 s. The last has no bound.
const LatencyBuckets = 2*(maxLatencyBit-minLatencyBit) + 2

const (
	minLatencyBit = 8
	maxLatencyBit = 35

	cachedSample = 64
)

// LatencyBound returns the most that counts in bucket i: 256 ns, 384 ns,
// 512 ns and so on. The last bucket has what is beyond all others.
func LatencyBound(i int) time.Duration {
	b := time.Duration(1) << (minLatencyBit + i/2)
	return b + b/2*time.Duration(i%2)
}

// latencyBucket returns the bucket of d.
func latencyBucket(d time.Duration) int {
	if d <= 1<<minLatencyBit {
		return 0
	}
	n := uint64(d - 1) // so that a bound is in its own bucket
	octave := bits.Len64(n) - 1
	return min(2*(octave-minLatencyBit)+int(n>>(octave-1)&1)+1, LatencyBuckets-1)
}

// Count returns how many there were.
func (l *Latency) Count() int64 {
	var n int64
	for _, c := range l.Counts {
		n += c
	}
	return n
}

// Since returns what came after an earlier state of the same Latency.
func (l *Latency) Since(before *Latency) Latency {
	d := Latency{Sum: l.Sum - before.Sum}
	for i := range d.Counts {
		d.Counts[i] = l.Counts[i] - before.Counts[i]
	}
	return d
}

// Quantile returns about what a share q of all, from 0 to 1, took at most; 0
// if there were none. Within a bucket all lengths are taken to be as likely.
func (l *Latency) Quantile(q float64) time.Duration {
	rank := q * float64(l.Count())
	var below float64
	for i, c := range l.Counts {
		if c == 0 || below+float64(c) < rank {
			below += float64(c)
			continue
		}
		var lo time.Duration
		if i > 0 {
			lo = LatencyBound(i - 1)
		}
		if i == LatencyBuckets-1 {
			return lo
		}
		return lo + time.Duration(float64(LatencyBound(i)-lo)*(rank-below)/float64(c))
	}
	return 0
}

// A histogram is a Latency that is being counted. Its methods may be called
// at once.
type histogram struct {
	counts [LatencyBuckets]atomic.Int64
	sum    atomic.Int64 // ns
}

// since counts what began at start as n of the same length.
func (h *histogram) since(start time.Time, n int64) {
	h.add(time.Since(start), n)
}

// add counts n of length d.
func (h *histogram) add(d time.Duration, n int64) {
	h.counts[latencyBucket(d)].Add(n)
	h.sum.Add(int64(d) * n)
}

func (h *histogram) load() (l Latency) {
	for i := range h.counts {
		l.Counts[i] = h.counts[i].Load()
	}
	l.Sum = time.Duration(h.sum.Load())
	return l
}

// histograms are the fields of Latencies.
type histograms struct {
	readCached, read, write, store, sync, indexRead, clumpRead, logSync histogram
}

// sampled tells whether to measure the next read from memory.
func (s *Store) sampled() bool { return s.stats.lumpHits.Load()%cachedSample == 0 }

// Latencies returns what the store has measured since it was opened.
func (s *Store) Latencies() Latencies {
	h := &s.stats.times
	return Latencies{
		ReadCached: h.readCached.load(),
		Read:       h.read.load(),
		Write:      h.write.load(),
		Store:      h.store.load(),
		Sync:       h.sync.load(),
		IndexRead:  h.indexRead.load(),
		ClumpRead:  h.clumpRead.load(),
		LogSync:    h.logSync.load(),
	}
}
