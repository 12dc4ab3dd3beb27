package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
)

// What a partition has in memory and on its way to the disk, in bytes.
const (
	// segmentSize is how much of the log is written at once. It holds the
	// largest clump many times.
	segmentSize = 1 << 20
	// maxSegments bounds the log that is only in memory: who appends more waits
	// until some is written.
	maxSegments = 8
	// syncEvery is how much is written before it is synced although nobody
	// asked, so that a sync that somebody asks for is never long, and that
	// clearAhead is enough.
	syncEvery = 16 << 20
	// clearAhead is how far behind the end of the log a crash may have left
	// clumps that were never synced. It is more than syncEvery and maxSegments
	// of segmentSize together.
	clearAhead = 32 << 20
)

// errIndexFull is why a block cannot be written when too many entries found
// no room in their buckets.
var errIndexFull = fmt.Errorf("%w: too many index buckets are full, and there is no overflow", venti.ErrFull)

// A logArena is an arena of the index, and what this process knows of it.
type logArena struct {
	*arena.Arena
	part   *logPart
	first  uint64 // address of its first byte in the index
	number int    // of it in the index

	// written is how far the log has been given to the file. Beyond it, clumps
	// are in the partition's segments.
	written atomic.Int64

	dir directory // see learn.go

	// Guarded by part.mu:
	mem          arena.Stats // all that was appended
	disk         arena.Stats // what is in the index
	flushTo      arena.Stats // mem when the flush under way, or the last that failed, began
	ctime, wtime uint32
	seal         venti.Score
	infos        []arena.ClumpInfo // of the last clumps in mem: those the directory on disk does not have
	stale        bool              // the trailer on disk says less than mem and disk
	prepared     bool              // what follows the log was cleared
	stuck        bool              // has clumps that the index has no room for, so that disk must not pass them
	damaged      bool              // nothing is appended: its trailer and its log contradict each other

	summing atomic.Bool // the trailer says that it is sealed, and the seal is missing
}

// addr returns the address of an offset in the log.
func (a *logArena) addr(off int64) uint64 { return a.first + uint64(off) }

// trailerLocked returns the trailer that the arena should have; part.mu must
// be held.
func (a *logArena) trailerLocked() arena.Trailer {
	return arena.Trailer{
		Version: a.Version, Name: a.Name, ClumpMagic: a.ClumpMagic,
		CTime: a.ctime, WTime: a.wtime, Disk: a.disk, Mem: a.mem, Seal: a.seal,
	}
}

// A segment is a piece of log in memory. It is part of one arena.
type segment struct {
	a   *logArena
	off int64
	buf []byte // has room for a free word more
}

// A logPart is an arena partition: the log that is appended to it, and the
// goroutine that writes it.
//
// Clumps are appended to segments in memory. The writing goroutine takes all
// segments there are, writes them in order, and syncs when somebody waits for
// that: so all who wait for a sync while one is under way share the next, and
// so do those who come soon after it (gatherLocked).
// appended, written and synced count the bytes that have come so far.
//
// The first error of the partition stays: from then on appends and syncs fail
// with it. What is in segments can still be read.
type logPart struct {
	file   disk.File
	log    *slog.Logger
	stats  *counters
	arenas []*logArena // those of the index, in its order

	// behind is how many bytes of log are only in memory; noRoom when all arenas
	// are full. Those who write blocks choose a partition by it.
	behind atomic.Int64

	checkpointing sync.Mutex // held through a checkpoint and its disk waits; before mu

	mu        sync.Mutex // guards the fields below, and some of the arenas'; not held while the disk is waited for
	cur       int        // the arena that is appended to; len(arenas) when all are full
	preparing bool       // somebody is clearing what follows the log
	tail      *segment   // the last segment, or nil; all others do not change
	segments  []*segment // not written yet, oldest first, without tail
	spare     [][]byte   // for further segments
	appended  int64
	written   int64
	synced    int64
	wanted    int64         // synced that somebody waits for
	asked     int           // calls that the next sync will answer, as far as they have come
	answered  int           // calls that the last sync has answered
	gathering bool          // the writing goroutine waits for more to ask
	syncTime  time.Duration // that the last sync took
	err       error
	full      error // why the last write found no room; nil when it is to be tried again, see space.go
	wasFull   bool  // the last write found no room
	closing   bool
	changed   chan struct{} // closed and made anew at every change that somebody may wait for
	work      sync.Cond     // signalled when there may be work for the writing goroutine

	writer sync.WaitGroup
}

func newLogPart(file disk.File, log *slog.Logger, stats *counters) *logPart {
	p := &logPart{file: file, log: log, stats: stats, changed: make(chan struct{})}
	p.work.L = &p.mu
	return p
}

// start starts the writing goroutine; stop ends it.
func (p *logPart) start() { p.writer.Go(p.write) }

func (p *logPart) stop() {
	p.mu.Lock()
	p.closing = true
	p.work.Signal()
	p.mu.Unlock()
	p.writer.Wait()
}

// failLocked keeps the first error of the partition.
func (p *logPart) failLocked(err error) error {
	if disk.NoSpace(err) && p.err == nil {
		p.broadcastLocked()
		return errNoSpace(err)
	}
	if p.err == nil {
		p.err = err
		p.log.Error("arena partition failed: no more writes until a restart", "err", err)
	}
	p.broadcastLocked()
	return p.err
}

func (p *logPart) fail(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failLocked(err)
}

// failIfBroken is fail for an error that may be that of a read, which does
// not keep what comes after from being written.
func (p *logPart) failIfBroken(err error) error {
	if serr := p.file.Sync(); serr != nil {
		return p.fail(serr)
	}
	return err
}

func (p *logPart) broadcastLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
	p.work.Signal()
}

// waitLocked gives mu up until something changes or ctx ends.
func (p *logPart) waitLocked(ctx context.Context) error {
	changed := p.changed
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errPartFull is what append returns when no arena has room.
var errPartFull = errors.New("arena partition is full")

// append adds a clump to the log, whose magic it fills in, and then calls
// added with the place, before any other clump comes. What is appended is
// durable after sync.
func (p *logPart) append(ctx context.Context, clump []byte, info arena.ClumpInfo, now uint32, added func(a *logArena, off int64)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var a *logArena
	for {
		if p.err != nil {
			return p.err
		}
		if p.full != nil {
			if err := p.tryAgainLocked(ctx); err != nil {
				return err
			}
			continue
		}
		if a = p.activeLocked(int(info.Size)); a == nil {
			return errPartFull
		}
		if !a.prepared {
			if err := p.prepareLocked(ctx, a); err != nil {
				return err
			}
			continue
		}
		if p.roomLocked(a, len(clump)) {
			break
		}
		p.stats.logWaits.Add(1)
		if err := p.waitLocked(ctx); err != nil {
			return err
		}
	}
	binary.BigEndian.PutUint32(clump, a.ClumpMagic)
	off := a.mem.Used
	p.tail.buf = append(p.tail.buf, clump...)
	p.appended += int64(len(clump))
	p.behind.Store(p.appended - p.written)
	a.mem.Add(&info)
	a.infos = append(a.infos, info)
	a.stale = true
	if a.ctime == 0 {
		a.ctime = now
	}
	a.wtime = now
	added(a, off)
	return nil
}

// activeLocked returns the arena that a clump with size bytes of data goes
// to, or nil. Arenas in which it does not fit get no more.
func (p *logPart) activeLocked(size int) *logArena {
	for ; p.cur < len(p.arenas); p.cur++ {
		a := p.arenas[p.cur]
		if a.mem.Sealed || a.damaged {
			continue
		}
		if a.Fits(a.mem.End(), size) {
			return a
		}
		a.mem.Sealed = true
		a.stale = true
		p.log.Info("arena is full", "arena", a.Name, "clumps", a.mem.Clumps, "used", a.mem.Used)
	}
	p.behind.Store(noRoom)
	return nil
}

// noRoom is logPart.behind of a full partition.
const noRoom = math.MaxInt64

// fill returns the partition that the next clump goes to, as an index into
// s.parts. It stays the same until its disk is a segment behind; then the one
// that is least behind follows. So all disks are busy while there is much to
// write, blocks that come one after the other lie together, and those who sync
// what they wrote wait for one disk.
func (s *Store) fill() int {
	i := int(s.filling.Load())
	behind := s.parts[i].behind.Load()
	if behind < segmentSize {
		return i
	}
	for k, p := range s.parts {
		if b := p.behind.Load(); b < behind {
			i, behind = k, b
		}
	}
	s.filling.Store(int32(i))
	return i
}

// roomLocked makes p.tail a segment with room for n bytes at the end of a's
// log, if there may be another segment.
func (p *logPart) roomLocked(a *logArena, n int) bool {
	if s := p.tail; s != nil {
		if s.a == a && len(s.buf)+n <= segmentSize {
			return true
		}
		p.closeLocked()
		p.work.Signal()
	}
	if len(p.segments) >= maxSegments {
		return false
	}
	var buf []byte
	if k := len(p.spare); k > 0 {
		buf, p.spare = p.spare[k-1], p.spare[:k-1]
	} else {
		buf = make([]byte, 0, segmentSize+arena.FreeSize)
	}
	p.tail = &segment{a: a, off: a.mem.Used, buf: buf[:0]}
	return true
}

// closeLocked puts the open segment among those that do not change.
func (p *logPart) closeLocked() {
	if p.tail != nil {
		p.segments = append(p.segments, p.tail)
		p.tail = nil
	}
}

// prepareLocked clears what a crash may have left behind the log of a: clumps
// that were never synced, which must not come to life when the log has grown
// up to them. It gives mu up meanwhile.
func (p *logPart) prepareLocked(ctx context.Context, a *logArena) error {
	if p.preparing {
		return p.waitLocked(ctx)
	}
	p.preparing = true
	from := a.mem.Used
	limit := min(from+clearAhead, a.Size()-a.DirSize(int(a.mem.Clumps)))
	p.mu.Unlock()
	old, err := findOld(a.Arena, from, limit)
	var broken error
	if err == nil && old < limit {
		p.log.Info("clearing what lies behind the log", "arena", a.Name, "from", old)
		if broken = clearLog(a.Arena, old, limit); broken == nil {
			broken = p.file.Sync()
		}
	}
	p.mu.Lock()
	p.preparing = false
	if broken != nil {
		return p.failLocked(broken)
	}
	if err != nil {
		p.broadcastLocked()
		return err
	}
	a.prepared = true
	p.broadcastLocked()
	return nil
}

// clearStep is how much is looked at, or cleared, at once.
const clearStep = 1 << 20

// findOld returns where in the log from from to limit, in steps, the first
// byte is that is not zero; or limit.
func findOld(a *arena.Arena, from, limit int64) (int64, error) {
	buf := make([]byte, max(0, min(clearStep, limit-from)))
	for off := from; off < limit; off += clearStep {
		b := buf[:min(clearStep, limit-off)]
		if _, err := a.ReadLog(b, off); err != nil {
			return 0, err
		}
		if !isZero(b) {
			return off, nil
		}
	}
	return limit, nil
}

// clearLog makes the log from from to limit zero.
func clearLog(a *arena.Arena, from, limit int64) error {
	zeros := make([]byte, min(clearStep, limit-from))
	for off := from; off < limit; off += clearStep {
		if err := a.WriteLog(zeros[:min(clearStep, limit-off)], off); err != nil {
			return err
		}
	}
	return nil
}

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// write is the writing goroutine.
func (p *logPart) write() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for !p.closing && (p.err != nil || p.full != nil || len(p.segments) == 0 && p.wanted <= p.synced) {
			p.work.Wait()
		}
		if p.closing {
			return
		}
		if p.wanted > p.synced {
			p.gatherLocked()
			p.closeLocked()
		}
		if err := p.writeSegmentsLocked(); err != nil {
			p.noteFullLocked(p.failLocked(err))
			continue
		}
		if p.wanted > p.synced || p.written-p.synced >= syncEvery {
			target := p.written
			p.answered, p.asked = p.asked, 0
			p.mu.Unlock()
			start := time.Now()
			err := p.file.Sync()
			took := time.Since(start)
			p.stats.times.logSync.add(took, 1)
			p.mu.Lock()
			if err != nil {
				p.failLocked(err)
				continue
			}
			p.stats.logSyncs.Add(1)
			p.synced, p.syncTime = target, took
		}
		p.broadcastLocked()
	}
}

// gatherLocked waits until as many calls ask for the next sync as the last one
// has answered, but no longer than half of what that took. Clients that
// sync over and over come back one after the other: the first of them would
// have a sync of its own, and all others wait through it for theirs. It gives
// mu up meanwhile.
func (p *logPart) gatherLocked() {
	if p.asked >= p.answered {
		return
	}
	p.gathering = true
	late := false
	timer := time.AfterFunc(p.syncTime/2, func() {
		p.mu.Lock()
		late = true
		p.work.Signal()
		p.mu.Unlock()
	})
	for p.asked < p.answered && !late && !p.closing && p.err == nil {
		p.work.Wait()
	}
	timer.Stop()
	p.gathering = false
}

// writeSegmentsLocked writes the segments that do not change. It gives mu up
// meanwhile. A crash in its midst leaves some of it, none of which anybody
// was told is durable.
func (p *logPart) writeSegmentsLocked() error {
	segments := p.segments
	if len(segments) == 0 {
		return nil
	}
	p.mu.Unlock()
	var err error
	for i, s := range segments {
		b := s.buf
		if i+1 == len(segments) || segments[i+1].a != s.a {
			b = append(b, make([]byte, arena.FreeSize)...)
		}
		if err = s.a.WriteLog(b, s.off); err != nil {
			break
		}
		p.stats.logWrites.Add(1)
	}
	p.mu.Lock()
	if err != nil {
		return err
	}
	p.notFullLocked()
	for _, s := range segments {
		s.a.written.Store(s.off + int64(len(s.buf)))
		p.written += int64(len(s.buf))
		if len(p.spare) < maxSegments {
			p.spare = append(p.spare, s.buf)
		}
	}
	if p.behind.Load() != noRoom {
		p.behind.Store(p.appended - p.written)
	}
	p.segments = slices.Clone(p.segments[len(segments):])
	return nil
}

// sync returns when all that was appended before is on stable storage.
func (p *logPart) sync(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.syncLocked(ctx)
}

func (p *logPart) syncLocked(ctx context.Context) error {
	target := p.appended
	if p.err == nil && p.synced < target {
		p.full = nil
		p.asked++
		p.wanted = max(p.wanted, target)
		if !p.gathering || p.asked >= p.answered {
			p.work.Signal()
		}
	}
	for p.err == nil && p.full == nil && p.synced < target {
		if err := p.waitLocked(ctx); err != nil {
			return err
		}
	}
	if p.err == nil && p.synced < target {
		return p.full
	}
	return p.err
}

// pending copies the clump at off from the segments to buf, which has room,
// or returns false when the file has it.
func (p *logPart) pending(a *logArena, off int64, buf []byte) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if off < a.written.Load() {
		return nil, false
	}
	from := func(s *segment) ([]byte, bool) {
		if s == nil || s.a != a || off < s.off || off >= s.off+int64(len(s.buf)) {
			return nil, false
		}
		b := s.buf[off-s.off:]
		h, err := arena.UnpackClumpHeader(b, a.ClumpMagic)
		if err != nil || h.LogSize() > int64(len(b)) {
			return nil, false
		}
		return buf[:copy(buf, b[:h.LogSize()])], true
	}
	for _, s := range p.segments {
		if b, ok := from(s); ok {
			return b, true
		}
	}
	return from(p.tail)
}

// checkpoint writes what the directories and the trailers on disk lack:
// directory entries, a sync, then trailers, so that no trailer tells of what
// is not there. All of it follows from the log: a crash before or between
// leaves more of the log to be scanned.
func (p *logPart) checkpoint(ctx context.Context) error {
	p.checkpointing.Lock()
	defer p.checkpointing.Unlock()
	type todo struct {
		a     *logArena
		infos []arena.ClumpInfo
		t     arena.Trailer
	}
	var list []todo
	p.mu.Lock()
	for _, a := range p.arenas {
		if a.stale {
			list = append(list, todo{a, a.infos, a.trailerLocked()})
		}
	}
	err := p.err
	if len(list) > 0 {
		err = p.syncLocked(ctx)
	}
	p.mu.Unlock()
	if err != nil || len(list) == 0 {
		return err
	}
	for _, d := range list {
		if err := d.a.WriteInfos(d.infos, int(d.t.Mem.Clumps)-len(d.infos)); err != nil {
			return p.fail(err)
		}
	}
	if err := p.file.Sync(); err != nil {
		return p.fail(err)
	}
	for _, d := range list {
		if err := d.a.WriteTrailer(&d.t); err != nil {
			return p.failIfBroken(err)
		}
		p.mu.Lock()
		d.a.infos = slices.Clone(d.a.infos[len(d.infos):])
		d.a.stale = d.a.trailerLocked() != d.t
		p.mu.Unlock()
		d.a.dir.grow(int(d.t.Mem.Clumps))
		if d.t.Disk.Sealed && d.t.Seal.IsZero() {
			d.a.summing.Store(true)
		}
	}
	p.stats.checkpoints.Add(1)
	return nil
}
