package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/bloom"
	"strata/venti/internal/index"
)

// minDirty is the least bound for entries that the index on disk lacks.
const minDirty = 4 << 10

// Open opens a store and recovers what a crash has left: it reads the logs
// from where the trailers say that they are indexed, checks every clump, and
// puts the clumps into their directories and into the index. That takes time
// in proportion to what was not indexed. ctx bounds Open alone.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := cfg.newStore()
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if s.readOnly {
		cfg.overlay()
	}
	if err := s.open(ctx, cfg); err != nil {
		s.free()
		return nil, fmt.Errorf("open store: %w", err)
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, p := range s.parts {
		p.start()
	}
	if err := s.indexRecovered(ctx); err != nil {
		stop()
		for _, p := range s.parts {
			p.stop()
		}
		s.free()
		return nil, fmt.Errorf("open store: %w", err)
	}
	if s.bloom != nil {
		s.workers.Go(func() { s.loadBloom(background) })
	}
	if !s.readOnly {
		s.workers.Go(func() { s.maintain(background) })
		s.workers.Go(func() { s.sum(background) })
		if s.scrub = newScrubber(s, cfg.Scrub, cfg.ScrubState); s.scrub != nil {
			s.workers.Go(func() { s.scrub.run(background) })
		}
	}
	return s, nil
}

// loadBloom reads the Bloom filter, which takes longer than all else of a clean
// start. Meanwhile look-ups read the index where it does not tell.
func (s *Store) loadBloom(ctx context.Context) {
	start := time.Now()
	switch err := s.bloom.Load(ctx); {
	case err == nil:
		s.log.Debug("Bloom filter is loaded", "bytes", s.bloom.Size(), "took", time.Since(start))
	case ctx.Err() == nil:
		s.log.Error("Bloom filter is not loaded: it is tried again at the next flush", "err", err)
	}
}

// overlay puts overlays over all files.
func (cfg *Config) overlay() {
	over := func(files []disk.File) []disk.File {
		var list []disk.File
		for _, f := range files {
			list = append(list, newOverlay(f))
		}
		return list
	}
	cfg.Arenas, cfg.Sections = over(cfg.Arenas), over(cfg.Sections)
	if cfg.Bloom != nil {
		cfg.Bloom = newOverlay(cfg.Bloom)
	}
	if cfg.Overflow != nil {
		cfg.Overflow = newOverlay(cfg.Overflow)
	}
	if cfg.Guards != nil {
		cfg.Guards = newOverlay(cfg.Guards)
	}
}

// newStore returns a store of cfg's options, without its files.
func (cfg *Config) newStore() (*Store, error) {
	s := &Store{
		log: cfg.Logger, now: cfg.Now, readOnly: cfg.ReadOnly, interval: cfg.Interval,
		flushDone: make(chan struct{}), flushNow: make(chan struct{}, 1), sumNow: make(chan struct{}, 1),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.interval == 0 {
		s.interval = time.Second
	}
	var known bool
	if s.encoding, known = encodings[cfg.Compression]; !known {
		return nil, fmt.Errorf("unknown compression %q", cfg.Compression)
	}
	s.mirror = newMirror(cfg.Mirror)
	// An encoder has large tables: more of them than can run would only push each
	// other out of the processors' caches.
	s.encoders = make(chan *arena.Encoder, runtime.GOMAXPROCS(0))
	for range cap(s.encoders) {
		s.encoders <- new(arena.Encoder)
	}
	s.clumps.New = func() any { return new([]byte) }
	s.blocks.New = func() any { b := make([]byte, readBuffer); return &b }

	lumpMem, indexMem := cfg.caches()
	// Half of it is for dirty entries: twice 32 bytes in their table, and 64 while
	// they are sorted and written, which reads and writes the more of the index for
	// each the fewer they are. The rest is for clean ones.
	s.maxDirty = max(minDirty, indexMem/2/128)
	var err error
	if s.lumps, err = newLumpCache(lumpMem); err != nil {
		return nil, err
	}
	if s.index, err = newIndexCache(indexMem / 2); err != nil {
		s.lumps.close()
		return nil, err
	}
	return s, nil
}

// caches returns how many bytes the caches of blocks and of index entries get.
func (cfg *Config) caches() (lumps, index int64) {
	lumps, index = DefaultLumpMem, DefaultIndexMem
	switch {
	case cfg.Caches > 0:
		// Where there is little, entries save more than blocks do: the system
		// keeps the arenas in its own cache, and an entry tells that a block need
		// not be sent.
		lumps = cfg.Caches / 3
		index = cfg.Caches - lumps
	case cfg.Memory > 0:
		lumps = min(max(cfg.Memory/memShare, minMem), maxMem)
		index = lumps
	}
	if cfg.LumpMem > 0 {
		lumps = cfg.LumpMem
	}
	if cfg.IndexMem > 0 {
		index = cfg.IndexMem
	}
	return lumps, index
}

// free gives back what is not the garbage collector's, and closes what the
// store opened itself.
func (s *Store) free() error {
	var err error
	s.lumps.close()
	s.index.close()
	if s.bloom != nil {
		err = s.bloom.Close()
	}
	for _, p := range s.owned {
		err = errors.Join(err, p.Close())
	}
	return errors.Join(err, s.mirror.close())
}

// open reads all there is, and recovers the logs.
func (s *Store) open(ctx context.Context, cfg Config) error {
	var sections []*index.Section
	for _, f := range cfg.Sections {
		sec, err := index.OpenSection(f)
		if err != nil {
			return fmt.Errorf("%s: %w", fileName(f), err)
		}
		sections = append(sections, sec)
	}
	s.sections = cfg.Sections
	var all []*logArena
	var list []index.Arena
	for _, f := range cfg.Arenas {
		p := newLogPart(f, s.log.With("partition", fileName(f)), &s.stats)
		arenas, err := p.open(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", fileName(f), err)
		}
		s.parts = append(s.parts, p)
		for _, a := range arenas {
			all = append(all, a)
			list = append(list, index.Arena{Name: a.Name, Size: a.Size()})
		}
	}
	name := cfg.Index
	if name == "" && len(sections) > 0 {
		name = sections[0].Index
	}
	var err error
	if s.ix, err = index.Open(name, sections, list); err != nil {
		return err
	}
	if cfg.Overflow != nil {
		if err := s.ix.OpenOverflow(cfg.Overflow); err != nil {
			return fmt.Errorf("%s: %w", fileName(cfg.Overflow), err)
		}
		s.overflow = cfg.Overflow
	}
	if s.ix.BlockSize > readBuffer {
		return fmt.Errorf("index %s: buckets of %d bytes", name, s.ix.BlockSize)
	}
	byName := make(map[string]*logArena, len(all))
	for _, a := range all {
		byName[a.Name] = a
	}
	for _, m := range s.ix.Arenas {
		a := byName[m.Name]
		a.first = m.Start
		s.arenas = append(s.arenas, a)
		a.part.arenas = append(a.part.arenas, a)
	}
	if cfg.Bloom != nil {
		if s.bloom, err = bloom.Begin(cfg.Bloom); err != nil {
			return fmt.Errorf("%s: %w", fileName(cfg.Bloom), err)
		}
		s.bloomOut = cfg.Bloom
	}
	if cfg.Guards != nil {
		if err := s.openGuards(cfg.Guards); err != nil {
			return err
		}
	}
	return s.recover(ctx)
}

// fileName returns what a file calls itself.
func fileName(f disk.File) string {
	if n, ok := f.(interface{ Name() string }); ok {
		return n.Name()
	}
	return "partition"
}

// open reads the trailers of a partition's arenas.
func (p *logPart) open(ctx context.Context) ([]*logArena, error) {
	part, err := arena.OpenPartition(p.file)
	if err != nil {
		return nil, err
	}
	arenas := make([]*logArena, len(part.Arenas))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range arenas {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			a, err := part.OpenArena(i)
			if errors.Is(err, arena.ErrFormat) {
				a, err = p.repair(ctx, part, i)
			}
			if err != nil {
				return err
			}
			t, err := a.ReadTrailer()
			if err != nil {
				return err
			}
			arenas[i] = &logArena{
				Arena: a, part: p, mem: t.Mem, disk: t.Disk, ctime: t.CTime, wtime: t.WTime, seal: t.Seal,
			}
			return nil
		})
	}
	return arenas, g.Wait()
}

// repair makes the trailer of arena i, which is damaged, again from the log.
// It counts nothing as indexed, so that all of the arena is.
func (p *logPart) repair(ctx context.Context, part *arena.Partition, i int) (*arena.Arena, error) {
	err := arena.Fix(ctx, p.file, arena.FixOptions{Write: true, Only: func(k int) bool { return k == i }}, func(f *arena.Finding) {
		p.log.Error("arena is damaged", "arena", f.Arena, "err", f.Err, "repaired", f.Repaired)
	})
	if err != nil {
		return nil, err
	}
	return part.OpenArena(i)
}

// recover brings all arenas in memory to where their logs end, their
// directories on disk too, and puts what the index lacks into the index cache.
func (s *Store) recover(ctx context.Context) error {
	for _, a := range s.arenas {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.recoverArena(ctx, a); err != nil {
			return err
		}
		a.written.Store(a.mem.Used)
		a.dir.clumps = int(a.mem.Clumps)
		a.dir.last = -learnNear
		if a.disk.Sealed && a.seal.IsZero() {
			a.summing.Store(true)
		}
	}
	notify(s.sumNow)
	return nil
}

// A recovery is the work on one arena.
type recovery struct {
	s     *Store
	a     *logArena
	mem   arena.Stats       // of what was found so far
	infos []arena.ClumpInfo // of the clumps from a.disk.Clumps on
	found []index.Entry     // those that can be read
	bad   int               // those that cannot
}

func (s *Store) recoverArena(ctx context.Context, a *logArena) error {
	if err := a.CheckHeader(); errors.Is(err, arena.ErrFormat) {
		s.log.Warn("arena header is damaged", "err", err)
	} else if err != nil {
		return err
	}
	if a.mem.Sealed && a.mem == a.disk {
		return nil
	}
	if s.guards != nil {
		if err := s.guards.Resume(a.number, a.disk.Used); err != nil {
			s.log.Warn("guards cannot be read", "arena", a.Name, "err", err)
		}
	}
	if a.mem == a.disk {
		// Do not read a megabyte only to find that there is nothing.
		var next [arena.FreeSize]byte
		if _, err := a.ReadLog(next[:], a.mem.Used); err != nil && err != io.EOF {
			return err
		}
		if next == [arena.FreeSize]byte{} {
			return nil
		}
	}
	r := &recovery{s: s, a: a, mem: a.disk}
	r.mem.Sealed = a.mem.Sealed

	// First what the trailer counts already: it is there, whatever it looks
	// like.
	end, err := a.Scan(ctx, r.mem.End(), a.mem.Used, r.known)
	if err != nil {
		return err
	}
	if end.Pos != a.mem.End() {
		if err := r.readKnown(ctx); err != nil {
			return err
		}
	}
	// Then what came after it. The first bytes that are no clump end the log.
	if !a.mem.Sealed && !a.damaged {
		end, err = a.Scan(ctx, a.mem.End(), -1, r.further)
		if err != nil {
			return err
		}
	}
	return r.finish(end.Reason)
}

// known takes a clump that the trailer counts. One that is damaged is put
// into the index like any other, so that it is told from one that never was.
func (r *recovery) known(c *arena.Clump) error {
	info := c.Header.ClumpInfo
	r.add(c.Pos, &info, c.Err)
	r.addGuard(c.Pos, info.Score, c.Data, c.Err)
	return nil
}

// further takes a clump that nobody has counted yet. One that is damaged, and
// whose bytes were maybe never acknowledged, is marked: its block must not be
// taken for stored when somebody writes it again.
func (r *recovery) further(c *arena.Clump) error {
	info := c.Header.ClumpInfo
	if errors.Is(c.Err, venti.ErrCorrupt) {
		info.Type = venti.DiskCorrupt
		if c.Header.Type != venti.DiskCorrupt {
			if err := r.a.MarkCorrupt(c.Off); err != nil {
				return err
			}
		}
	}
	r.add(c.Pos, &info, c.Err)
	r.addGuard(c.Pos, info.Score, c.Data, c.Err)
	return nil
}

func (r *recovery) add(at arena.Pos, info *arena.ClumpInfo, err error) {
	r.mem.Add(info)
	r.infos = append(r.infos, *info)
	if errors.Is(err, venti.ErrCorrupt) {
		r.bad++
		r.s.log.Warn("damaged clump", "arena", r.a.Name, "offset", at.Off, "score", info.Score, "err", err)
		r.s.bad.add(r.a.addr(at.Off))
	}
	if info.Type.Valid() {
		r.found = append(r.found, entryOf(r.a, at.Off, info))
	}
}

// readKnown goes on where the log could not be followed to where the trailer
// says that it goes: by the directory, if that fits.
func (r *recovery) readKnown(ctx context.Context) error {
	a := r.a
	infos := make([]arena.ClumpInfo, max(0, int(a.mem.Clumps)-int(r.mem.Clumps)))
	if err := a.ReadInfos(infos, int(r.mem.Clumps)); err != nil {
		return err
	}
	sum := r.mem
	for i := range infos {
		sum.Add(&infos[i])
	}
	if sum.End() != a.mem.End() {
		r.s.log.Error("arena's log and directory contradict each other: nothing is appended to it",
			"arena", a.Name, "clump", r.mem.Clumps, "offset", r.mem.Used, "trailer", a.mem.Used, "directory", sum.Used)
		a.damaged = true
		return nil
	}
	buf := make([]byte, readBuffer)
	lump := make([]byte, venti.MaxBlockSize)
	for i := range infos {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := r.mem.End()
		h, data, err := a.ReadClump(at.Off, buf[:infos[i].LogSize()])
		if err == nil && h.ClumpInfo != infos[i] {
			err = fmt.Errorf("it is not what the directory says: %w", venti.ErrCorrupt)
		}
		var block []byte
		if err == nil {
			block, err = h.Decode(lump, data)
		}
		if err != nil && !errors.Is(err, venti.ErrCorrupt) && !errors.Is(err, arena.ErrEncoding) {
			return err
		}
		r.add(at, &infos[i], err)
		r.addGuard(at, infos[i].Score, block, err)
	}
	return nil
}

// finish writes the directory, as far as it differs, and makes what was found
// the state of the arena. A trailer comes with the next checkpoint.
func (r *recovery) finish(reason arena.EndReason) error {
	a := r.a
	before := a.mem
	if a.damaged {
		// Keep what the trailer says, and index what could be followed.
		r.s.unindexed(r.found)
		return nil
	}
	if have := int(before.Clumps - a.disk.Clumps); len(r.infos) > 0 {
		old := make([]arena.ClumpInfo, have)
		if err := a.ReadInfos(old, int(a.disk.Clumps)); err != nil {
			return err
		}
		for i := 0; i < len(r.infos); {
			n := 1
			if i < have && old[i] == r.infos[i] {
				i++
				continue
			}
			for i+n < len(r.infos) && (i+n >= have || old[i+n] != r.infos[i+n]) {
				n++
			}
			if i < have {
				r.s.log.Warn("directory is made again from the log", "arena", a.Name, "clump", int(a.disk.Clumps)+i, "clumps", n)
			}
			if err := a.WriteInfos(r.infos[i:i+n], int(a.disk.Clumps)+i); err != nil {
				return err
			}
			i += n
		}
	}
	if err := rewrite(a.Arena, before.Used, r.mem.Used); err != nil {
		return err
	}
	if reason == arena.EndStale || reason == arena.EndTorn {
		if err := a.WriteLog(make([]byte, arena.FreeSize), r.mem.Used); err != nil {
			return err
		}
	}
	a.mem = r.mem
	a.stale = a.mem != before
	if n := a.mem.Clumps - a.disk.Clumps; n > 0 {
		r.s.log.Info("indexing clumps", "arena", a.Name, "clumps", n, "new to the trailer", a.mem.Clumps-before.Clumps,
			"damaged", r.bad, "log ends", reason)
	}
	r.s.unindexed(r.found)
	return nil
}

// rewrite writes what is in the log from from to to once more. That it can be
// read does not mean that it is on stable storage, or that a sync would bring
// it there: it may be what the kernel still has of a write that failed.
func rewrite(a *arena.Arena, from, to int64) error {
	var buf []byte
	for off := from; off < to; off += int64(len(buf)) {
		if buf == nil {
			buf = make([]byte, segmentSize)
		}
		buf = buf[:min(int64(len(buf)), to-off)]
		if _, err := a.ReadLog(buf, off); err != nil {
			return err
		}
		if err := a.WriteLog(buf, off); err != nil {
			return err
		}
	}
	return nil
}

// unindexed takes entries that the index lacks.
func (s *Store) unindexed(entries []index.Entry) {
	for i := range entries {
		if s.bloom != nil {
			s.bloom.AddAgain(entries[i].Score)
		}
		s.index.putDirty(slotOf(&entries[i]))
	}
}

// indexRecovered puts into the index what recover found. Its buckets may be
// torn by the crash: those are made again.
func (s *Store) indexRecovered(ctx context.Context) error {
	if s.index.dirty.Load() == 0 {
		return s.checkpoint(ctx)
	}
	s.index.startFlush()
	for _, a := range s.arenas {
		a.flushTo = a.mem
	}
	s.retry = true // so that flush takes these
	entries := s.index.flushing()
	index.Sort(entries)
	for _, p := range s.parts { // the directories are a source for Recover
		if err := p.file.Sync(); err != nil {
			return err
		}
	}
	rebuilt, left, err := s.ix.Recover(ctx, entries, s.allEntries)
	if err != nil {
		return err
	}
	if rebuilt > 0 {
		s.log.Info("index buckets that may have been torn are made again", "buckets", rebuilt)
	}
	s.index.addStuck(left)
	s.noteStuck(left)
	return s.flush(ctx)
}

// allEntries is the index.Source of everything that is stored.
func (s *Store) allEntries(ctx context.Context) iter.Seq2[index.Entry, error] {
	return func(yield func(index.Entry, error) bool) {
		infos := make([]arena.ClumpInfo, 8192)
		for _, a := range s.arenas {
			n := int(a.mem.Clumps)
			var off int64
			for first := 0; first < n; first += len(infos) {
				infos = infos[:min(cap(infos), n-first)]
				err := ctx.Err()
				if err == nil {
					err = a.ReadInfos(infos, first)
				}
				if err != nil {
					yield(index.Entry{}, err)
					return
				}
				for i := range infos {
					if infos[i].Type.Valid() && !yield(entryOf(a, off, &infos[i]), nil) {
						return
					}
					off += infos[i].LogSize()
				}
			}
			infos = infos[:cap(infos)]
		}
	}
}

// Close flushes everything and ends the store: a stop after which the next
// Open has nothing to recover. No other call may be under way or follow. The
// error is that of the flush; what was synced before is safe whatever it is.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.stop()
	s.workers.Wait()
	var err error
	if !s.readOnly {
		err = errors.Join(s.lastFlush(), s.closeGuards())
	}
	for _, p := range s.parts {
		p.stop()
	}
	return errors.Join(err, s.free())
}

// lastFlush leaves nothing in memory.
func (s *Store) lastFlush() error {
	ctx := context.Background()
	err := s.flush(ctx)
	if err != nil {
		// The logs may be sound all the same.
		s.checkpoint(ctx)
	}
	for _, p := range s.parts {
		p.mu.Lock()
		perr := p.err
		p.mu.Unlock()
		if perr == nil {
			perr = p.file.Sync()
		}
		if err == nil {
			err = perr
		}
	}
	return err
}
