package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/bloom"
	"strata/venti/internal/guard"
	"strata/venti/internal/index"
)

// The sizes of Config's zero value, in bytes.
const (
	DefaultLumpMem  = 64 << 20
	DefaultIndexMem = 64 << 20
)

// Where Config.Memory is known, a sixteenth of it is for blocks and as much
// again for their index, within these bounds: the system's own cache of the
// partitions is to have most of the rest.
const (
	memShare = 16
	minMem   = 16 << 20
	maxMem   = 1 << 30
)

// How new clumps are stored, for Config.Compression.
const (
	CompressWhack = "whack" // as Plan 9's server does
	CompressZstd  = "zstd"  // smaller and faster, and unknown to Plan 9's programs
	CompressNone  = "none"
)

var encodings = map[string]arena.Encoding{
	"": arena.Whack, CompressWhack: arena.Whack, CompressZstd: arena.Zstd, CompressNone: arena.Plain,
}

// A Config says what a store consists of and how it runs. All but the files
// has a default.
type Config struct {
	// Arenas and Sections are the arena partitions and the index sections, in
	// the order in which they were formatted into the index. Bloom is the Bloom
	// filter's partition, or nil. The store does not close them.
	Arenas   []disk.File
	Sections []disk.File
	Bloom    disk.File

	// Overflow is where entries go that their index buckets have no room for, or
	// nil: see index.OpenOverflow. A file of zeros, with room for the buckets,
	// becomes one.
	Overflow disk.File

	// Guards is where the SHA-256 of every clump is kept, or nil: see package
	// guard. A file of zeros, with room for the arenas, becomes one.
	Guards disk.File

	// Mirror is asked for blocks whose clumps are corrupt or cannot be read, or
	// nil. The store closes it if it is an io.Closer.
	Mirror venti.BlockReader

	// Scrub is how many bytes a second the scrub reads of sealed arenas, to check
	// them; none if it is not positive. ScrubState, or nil, is where it remembers
	// where it is: a file of any content.
	Scrub      int64
	ScrubState disk.File

	// Index is the name of the index; empty means whatever the sections say.
	Index string

	LumpMem     int64  // bytes for the cache of blocks; 0 means by Caches
	IndexMem    int64  // bytes for the cache of index entries; 0 means by Caches
	Caches      int64  // bytes for both caches; 0 means by Memory
	Memory      int64  // bytes that the machine has; 0 means unknown
	Compression string // CompressWhack (or empty), CompressZstd or CompressNone

	// ReadOnly opens the store without writing a byte: what a crash left to be
	// recovered is recovered in memory.
	ReadOnly bool

	Logger *slog.Logger     // nil means quiet
	Now    func() time.Time // for the times in clumps; nil means time.Now

	// Interval is how often the background work looks whether there is any:
	// checkpoints, flushes of the index, seals. 0 means a second. Negative
	// means never, for tests: then only Sync, Flush and a full cache write.
	Interval time.Duration
}

// A Store is the engine of a Venti server. It implements venti.Store and all
// of its optional abilities.
type Store struct {
	// Immutable after Open.
	log      *slog.Logger
	now      func() time.Time
	encoding arena.Encoding
	readOnly bool
	interval time.Duration
	arenas   []*logArena // in the order of the index
	parts    []*logPart
	filling  atomic.Int32 // the partition that blocks are written to, see fill
	ix       *index.Index
	bloom    *bloom.Filter // nil if there is none
	bloomOut disk.File     // where it is
	sections []disk.File   // of the index
	overflow disk.File     // of the index, nil if there is none
	guards   *guard.File   // nil if there are none
	lumps    *lumpCache
	index    *indexCache
	maxDirty int64 // entries that the index on disk may lack
	owned    []*disk.Partition

	stats    counters
	tuning   tuning
	encoders chan *arena.Encoder // those that nobody uses
	learned  atomic.Int64        // how often entries were taken from clump directories
	clumps   sync.Pool           // *[]byte, of any length
	blocks   sync.Pool           // *[]byte, of readBuffer bytes
	bad      badClumps
	reading  flights
	mirror   *mirror   // nil if there is none
	scrub    *scrubber // nil if there is none

	guardsFailed atomic.Bool // the last write of them

	flushing sync.Mutex // held through a flush and its disk waits; before every other lock
	retry    bool       // the last flush failed before its end, and is to be done again; guarded by flushing

	flushMu   sync.Mutex // guards the fields below
	flushErr  error      // why the last flush failed, or nil
	flushDone chan struct{}

	closed   atomic.Bool
	flushNow chan struct{} // of capacity 1: the index should be flushed
	sumNow   chan struct{} // of capacity 1: an arena should be summed
	stop     context.CancelFunc
	workers  sync.WaitGroup // the background goroutines
}

var (
	_ venti.Store        = (*Store)(nil)
	_ venti.Prober       = (*Store)(nil)
	_ venti.CachedReader = (*Store)(nil)
	_ venti.ScoredWriter = (*Store)(nil)
)

// ErrClosed is what a closed store returns.
var ErrClosed = errors.New("store is closed")

// readBuffer is room for any clump.
const readBuffer = 64 << 10

// ReadBlock implements venti.BlockReader.
func (s *Store) ReadBlock(ctx context.Context, score venti.Score, t venti.Type, buf []byte) (int, error) {
	if score == venti.EmptyScore || score.IsZero() {
		return 0, nil
	}
	k, err := s.keyOf(score, t)
	if err != nil {
		return 0, err
	}
	s.stats.reads.Add(1)
	n, err := s.read(ctx, &k, buf)
	if err != nil {
		if !errors.Is(err, venti.ErrTooLong) {
			s.stats.readErrors.Add(1)
		}
		return 0, err
	}
	s.stats.readBytes.Add(int64(n))
	return n, nil
}

// keyOf returns the key of a block, if it can be one.
func (s *Store) keyOf(score venti.Score, t venti.Type) (key, error) {
	if s.closed.Load() {
		return key{}, ErrClosed
	}
	if !t.Valid() {
		return key{}, fmt.Errorf("%w %d", venti.ErrBadType, t)
	}
	return key{score, uint8(t.Disk())}, nil
}

func errTooLong(n, room int) error {
	return fmt.Errorf("%w: %d bytes, not %d", venti.ErrTooLong, n, room)
}

func errNotFound(k *key) error {
	return fmt.Errorf("%w: %v/%v", venti.ErrNotFound, venti.Score(k.score), venti.DiskType(k.disk).Type())
}

func (s *Store) read(ctx context.Context, k *key, buf []byte) (int, error) {
	for first := true; ; first = false {
		var start time.Time
		sampled := s.sampled()
		if sampled {
			start = time.Now()
		}
		if n, ok := s.lumps.get(k, buf); ok {
			s.stats.lumpHits.Add(1)
			if sampled {
				s.stats.times.readCached.since(start, cachedSample)
			}
			if n > len(buf) {
				return 0, errTooLong(n, len(buf))
			}
			return n, nil
		}
		if !first {
			break // it was read, and has left the cache already
		}
		wait := s.reading.begin(k)
		if wait == nil {
			defer s.reading.end(k)
			break
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	start := time.Now()
	defer func() { s.stats.times.read.since(start, 1) }()
	e, ok, err := s.find(k, true)
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, errNotFound(k)
	}
	if int(e.size) > len(buf) {
		return 0, errTooLong(int(e.size), len(buf))
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.readClump(k, &e, buf)
	if errors.Is(err, venti.ErrCorrupt) {
		// The entry may have been one of several, and not the best.
		if e2, ok, err2 := s.lookup(k, false); err2 == nil && ok && e2.addr != e.addr {
			e = e2
			n, err = s.readClump(k, &e, buf)
		}
	}
	if err != nil && s.mirror != nil && !errors.Is(err, venti.ErrTooLong) {
		b := s.blocks.Get().(*[]byte)
		defer s.blocks.Put(b)
		if data := s.heal(ctx, k, &e, *b); len(data) > len(buf) {
			n, err = 0, errTooLong(len(data), len(buf))
		} else if data != nil {
			n, err = copy(buf, data), nil
		}
	}
	return n, err
}

// find returns the entry of a key from the index cache or the index. absent
// must not be trusted if err is set: the index may be damaged.
func (s *Store) find(k *key, learn bool) (slot, bool, error) {
	if e, ok := s.index.get(k); ok {
		s.stats.indexHits.Add(1)
		return e, true, nil
	}
	return s.lookup(k, learn)
}

// lookup returns the entry of a key from the index.
func (s *Store) lookup(k *key, learn bool) (slot, bool, error) {
	if s.denied(k) {
		s.stats.bloomMisses.Add(1)
		return slot{}, false, nil
	}
	buf := s.blocks.Get().(*[]byte)
	defer s.blocks.Put(buf)
	s.stats.indexReads.Add(1)
	learned, start := s.learned.Load(), time.Now()
	e, ok, err := s.ix.Lookup(k.score, venti.DiskType(k.disk), *buf)
	s.stats.times.indexRead.since(start, 1)
	if err != nil {
		if errors.Is(err, index.ErrBadBucket) {
			err = fmt.Errorf("%w: loading index entry: %w", venti.ErrCorrupt, err)
		}
		return slot{}, false, err
	}
	if !ok {
		s.stats.indexFalse.Add(1)
		return slot{}, false, nil
	}
	sl := slotOf(&e)
	s.index.putClean(sl, false)
	if learn && !s.tuning.noPrefetch.Load() {
		if a, off, ok := s.arenaOf(e.Addr); ok {
			s.learn(a, off, learned)
		}
	}
	return sl, true, nil
}

// arenaOf returns the arena that an address is in, and the offset there.
func (s *Store) arenaOf(addr uint64) (*logArena, int64, bool) {
	i, off, ok := s.ix.LookupAddr(addr)
	if !ok {
		return nil, 0, false
	}
	return s.arenas[i], int64(off), true
}

// readClump reads the lump of a key from the log, where e says that it is,
// into buf.
func (s *Store) readClump(k *key, e *slot, buf []byte) (int, error) {
	a, off, ok := s.arenaOf(e.addr)
	if !ok {
		return 0, fmt.Errorf("%w: index entry of %v has address %#x, which is in no arena", venti.ErrCorrupt, venti.Score(k.score), e.addr)
	}
	s.stats.clumpReads.Add(1)
	start := time.Now()
	defer func() { s.stats.times.clumpRead.since(start, 1) }()
	scratch := s.blocks.Get().(*[]byte)
	defer s.blocks.Put(scratch)
	h, data, err := s.rawClump(a, off, int(e.blocks)*512, *scratch)
	s.stats.clumpReadBytes.Add(arena.ClumpHeaderSize + int64(len(data)))
	if err == nil && (h.Score != venti.Score(k.score) || uint8(h.Type) != k.disk) {
		if !h.Type.Valid() {
			err = fmt.Errorf("clump is marked with type %d: %w", h.Type, venti.ErrCorrupt)
		} else {
			err = &arena.ScoreError{Got: h.Score, Want: venti.Score(k.score)}
		}
	}
	var n int
	if err == nil {
		n, err = s.decode(k, &h, data, buf)
	}
	if errors.Is(err, venti.ErrCorrupt) {
		s.bad.add(e.addr)
		s.stats.corruptClumps.Add(1)
		// The words of Plan 9's server.
		text := fmt.Sprintf("loading clump: corrupted at %s %d: %v", a.Name, off, err)
		if se, ok := errors.AsType[*arena.ScoreError](err); ok {
			text = fmt.Sprintf("loading clump: corrupted at %s %d; expected=%v got=%v", a.Name, off, se.Want, se.Got)
		}
		return 0, corruptError(text)
	}
	if err != nil {
		return 0, fmt.Errorf("loading clump: %w", err)
	}
	return n, nil
}

// A corruptError is a venti.ErrCorrupt in words of its own.
type corruptError string

func (e corruptError) Error() string        { return string(e) }
func (e corruptError) Is(target error) bool { return target == venti.ErrCorrupt }

// decode makes the lump of k from a clump's data, in buf or, if it has no
// room, only in the cache.
func (s *Store) decode(k *key, h *arena.ClumpHeader, data, buf []byte) (int, error) {
	lump := buf
	if len(lump) < int(h.UncSize) {
		b := s.blocks.Get().(*[]byte)
		defer s.blocks.Put(b)
		lump = *b
	}
	lump, err := h.Decode(lump, data)
	if err != nil {
		return 0, err
	}
	s.lumps.put(k, lump, false)
	if len(lump) > len(buf) {
		return 0, errTooLong(len(lump), len(buf))
	}
	return len(lump), nil
}

// rawClump reads a clump from the segments or the file, with one read if it
// has no more than guess bytes.
func (s *Store) rawClump(a *logArena, off int64, guess int, buf []byte) (arena.ClumpHeader, []byte, error) {
	if off >= a.written.Load() {
		if b, ok := a.part.pending(a, off, buf); ok {
			h, err := arena.UnpackClumpHeader(b, a.ClumpMagic)
			return h, b[min(arena.ClumpHeaderSize, len(b)):], err
		}
	}
	return a.ReadClump(off, buf[:min(guess, len(buf))])
}

// ReadCached implements venti.CachedReader. Blocks that the Bloom filter
// denies are ErrNotFound.
func (s *Store) ReadCached(score venti.Score, t venti.Type, buf []byte) (int, bool, error) {
	if score == venti.EmptyScore || score.IsZero() {
		return 0, true, nil
	}
	k, err := s.keyOf(score, t)
	if err != nil {
		return 0, true, err
	}
	if len(buf) > 0 {
		var start time.Time
		sampled := s.sampled()
		if sampled {
			start = time.Now()
		}
		if n, ok := s.lumps.get(&k, buf); ok {
			if sampled {
				s.stats.times.readCached.since(start, cachedSample)
			}
			s.stats.reads.Add(1)
			s.stats.lumpHits.Add(1)
			if n > len(buf) {
				return 0, true, venti.ErrTooLong
			}
			s.stats.readBytes.Add(int64(n))
			return n, true, nil
		}
	}
	if e, ok := s.index.get(&k); ok {
		s.stats.indexHits.Add(1)
		if int(e.size) > len(buf) && !s.bad.has(e.addr) {
			s.stats.probes.Add(1)
			return 0, true, venti.ErrTooLong
		}
		return 0, false, nil
	}
	if s.denied(&k) {
		s.stats.bloomMisses.Add(1)
		s.stats.probes.Add(1)
		return 0, true, venti.ErrNotFound
	}
	return 0, false, nil
}

// HasBlock implements venti.Prober. A block whose clump was found corrupt is
// not there: writing it again heals it.
func (s *Store) HasBlock(ctx context.Context, score venti.Score, t venti.Type) (bool, error) {
	if score == venti.EmptyScore || score.IsZero() {
		return true, nil
	}
	k, err := s.keyOf(score, t)
	if err != nil {
		return false, err
	}
	s.stats.probes.Add(1)
	e, ok, err := s.find(&k, true)
	if err != nil {
		return false, err
	}
	return ok && !s.bad.has(e.addr), nil
}

// WriteBlock implements venti.BlockWriter.
func (s *Store) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	if len(data) > venti.MaxBlockSize {
		return venti.Score{}, fmt.Errorf("%w: %d bytes", venti.ErrTooLarge, len(data))
	}
	if s.readOnly {
		return venti.Score{}, venti.ErrReadOnly
	}
	if !t.Valid() {
		return venti.Score{}, fmt.Errorf("%w %d", venti.ErrBadType, t)
	}
	if len(data) == 0 {
		return venti.EmptyScore, nil
	}
	start := time.Now()
	score := venti.ScoreOf(data)
	k, err := s.keyOf(score, t)
	if err == nil {
		defer func() { s.stats.times.write.since(start, 1) }()
		err = s.write(ctx, &k, data)
	}
	if err != nil {
		return venti.Score{}, err
	}
	return score, nil
}

// WriteScored implements venti.ScoredWriter. The score is computed all the
// same: what a store keeps under a score must be what it names.
func (s *Store) WriteScored(ctx context.Context, score venti.Score, t venti.Type, data []byte) error {
	got, err := s.WriteBlock(ctx, t, data)
	if err != nil {
		return err
	}
	if got != score && !(len(data) == 0 && score.IsZero()) {
		return fmt.Errorf("%w: score is %v, not %v", venti.ErrCorrupt, got, score)
	}
	return nil
}

// write stores a block whose key is k.
func (s *Store) write(ctx context.Context, k *key, data []byte) error {
	s.stats.writes.Add(1)
	s.stats.writeBytes.Add(int64(len(data)))
	lost := uint64(0) // where the block's clump is, if that is lost
	for {
		if same, ok := s.lumps.same(k, data); ok && !same {
			return s.collision(k)
		} else if ok && !s.bad.any() {
			s.stats.lumpHits.Add(1)
			return s.duplicate(data)
		}
		e, ok, wait := s.index.claim(k, lost != 0)
		if ok {
			if s.bad.has(e.addr) {
				lost = e.addr
				continue
			}
			s.stats.indexHits.Add(1)
			if int(e.size) != len(data) {
				return s.collision(k)
			}
			if err := s.same(k, &e, data); s.bad.has(e.addr) {
				lost = e.addr
				continue
			} else if err != nil {
				return err
			}
			return s.duplicate(data)
		}
		if wait == nil {
			break
		}
		select {
		case <-wait:
			lost = 0
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer s.index.unclaim(k)
	if lost == 0 {
		e, ok, err := s.lookup(k, true)
		switch {
		case errors.Is(err, venti.ErrCorrupt):
			// Its bucket is damaged: store it, maybe a second time.
		case err != nil:
			return err
		case ok && !s.bad.has(e.addr):
			if err := s.same(k, &e, data); !s.bad.has(e.addr) {
				if err != nil {
					return err
				}
				return s.duplicate(data)
			}
			lost = e.addr
		case ok:
			lost = e.addr
		}
	}
	if lost != 0 {
		if err := s.sameAsLost(k, &slot{addr: lost}, data); err != nil {
			return err
		}
	}
	if err := s.store(ctx, k, data, lost); err != nil {
		return err
	}
	if lost != 0 {
		s.stats.healed.Add(1)
	}
	return nil
}

// duplicate counts a block that was there.
func (s *Store) duplicate(data []byte) error {
	s.stats.dupBlocks.Add(1)
	s.stats.dupBytes.Add(int64(len(data)))
	return nil
}

// store appends a block that is not there, or whose clump at address lost is, to
// the log. The caller has the claim to k.
func (s *Store) store(ctx context.Context, k *key, data []byte, lost uint64) error {
	if err := s.waitForIndex(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	start := time.Now()
	defer func() { s.stats.times.store.since(start, 1) }()
	clump := s.clumps.Get().(*[]byte)
	defer s.clumps.Put(clump)
	now := uint32(s.now().Unix())
	h := arena.ClumpHeader{ClumpInfo: arena.ClumpInfo{Type: venti.DiskType(k.disk), Score: k.score}, Time: now}
	sum := s.sumOf(data)
	enc := <-s.encoders // who has one waits for nobody
	*clump = enc.Append((*clump)[:0], &h, data, s.encoding)
	s.encoders <- enc
	// The filter must know the block before a flush of the index can take it.
	if s.bloom != nil {
		s.bloom.Add(k.score)
	}
	err := errPartFull
	first := s.fill()
	if a, _, ok := s.arenaOf(lost); ok {
		// Of two clumps with one key, whoever builds the index anew takes the one
		// with the higher address. In the same partition that is the new one.
		// BUG: if that is full, it may be the one that is lost.
		first = slices.Index(s.parts, a.part)
	}
	for i := range s.parts {
		p := s.parts[(first+i)%len(s.parts)]
		err = p.append(ctx, *clump, h.ClumpInfo, now, func(a *logArena, off int64) {
			e := entryOf(a, off, &h.ClumpInfo)
			s.index.putDirty(slotOf(&e))
			s.addGuard(a, off, k.score, sum)
		})
		if err != errPartFull && !disk.NoSpace(err) {
			break
		}
	}
	if err == errPartFull {
		return venti.ErrFull
	}
	if err != nil && !disk.NoSpace(err) {
		return fmt.Errorf("write block: %w", err)
	}
	if err != nil {
		return err
	}
	s.writeGuards(false)
	s.lumps.put(k, data, false)
	s.stats.newBlocks.Add(1)
	s.stats.newBytes.Add(int64(len(data)))
	s.stats.storedBytes.Add(int64(len(*clump)))
	return nil
}

// Sync implements venti.Syncer.
func (s *Store) Sync(ctx context.Context) error {
	if s.closed.Load() {
		return ErrClosed
	}
	s.stats.syncs.Add(1)
	start := time.Now()
	defer func() { s.stats.times.sync.since(start, 1) }()
	return s.syncLog(ctx)
}

func (s *Store) syncLog(ctx context.Context) error {
	if len(s.parts) == 1 {
		return s.parts[0].sync(ctx)
	}
	var g errgroup.Group
	for _, p := range s.parts {
		g.Go(func() error { return p.sync(ctx) })
	}
	return g.Wait()
}
