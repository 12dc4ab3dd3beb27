package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"sync"
	"time"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/guard"
)

// The scrub reads the sealed arenas, one after the other, at a set rate: every
// clump is held against its score, and the arena against its seal. A clump that is
// corrupt and that the index leads to is reported, and healed from the mirror if
// there is one. Guards that are missing are made.
//
// It takes a quarter of its rate while clients use the disks. When it has been
// through all arenas it begins again a day after it last began.

const (
	// scrubYield is by how much the scrub is slower while clients use the disks.
	scrubYield = 4
	// scrubEvery is the least time from the beginning of a pass to the next.
	scrubEvery = 24 * time.Hour
	// DefaultScrub is the rate of the configuration that Format writes, in bytes
	// a second.
	DefaultScrub = 8 << 20
)

// Scrub says what the scrub has done since the store was opened, and where it is.
type Scrub struct {
	Rate     int64 // bytes a second that it reads at most; 0 means that there is no scrub
	Passes   int64 // through all arenas
	Arenas   int64 // read
	Bytes    int64 // of them
	Clumps   int64 // in them
	Corrupt  int64 // clumps found corrupt to which the index leads
	Replaced int64 // corrupt ones to which it no longer leads: they were healed
	BadSeals int64 // arenas that are not what their seal says
	Guards   int64 // that were missing, and were made

	Arena string    // that is being read, or is next; empty when all are done
	Began time.Time // the pass; zero before the first
}

// A scrubber is the scrub of one store.
type scrubber struct {
	s     *Store
	rate  int64 // immutable
	every time.Duration
	state disk.File // where it remembers where it is, or nil

	mu   sync.Mutex // guards the field below
	done Scrub

	ops int64 // of clients, at the last piece; owned by the scrub's goroutine
}

// The state is
//
//	magic[4] 5c2b0001, began[8] arena[64] crc[4]
//
// at the beginning of a file: when the pass began, in seconds since 1970, and the
// arena that is next in it, or none when it is done, padded with NULs. Integers are
// big-endian; crc is the CRC-32C of the bytes before it. Whatever else is there
// means that there was no scrub.
const (
	scrubMagic    = 0x5c2b0001
	scrubStateLen = 4 + 8 + 64 + 4
	scrubFile     = 4096 // bytes of the file
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func packScrub(began time.Time, arena string) []byte {
	b := make([]byte, scrubStateLen)
	binary.BigEndian.PutUint32(b, scrubMagic)
	binary.BigEndian.PutUint64(b[4:], uint64(began.Unix()))
	copy(b[12:76], arena)
	binary.BigEndian.PutUint32(b[76:], crc32.Checksum(b[:76], castagnoli))
	return b
}

func unpackScrub(b []byte) (began time.Time, arena string, ok bool) {
	if len(b) < scrubStateLen || binary.BigEndian.Uint32(b) != scrubMagic ||
		binary.BigEndian.Uint32(b[76:]) != crc32.Checksum(b[:76], castagnoli) {
		return time.Time{}, "", false
	}
	n := 12
	for n < 76 && b[n] != 0 {
		n++
	}
	return time.Unix(int64(binary.BigEndian.Uint64(b[4:])), 0), string(b[12:n]), true
}

// newScrubber returns the scrub of s, which goes on where state says, or nil if
// there is none.
func newScrubber(s *Store, rate int64, state disk.File) *scrubber {
	if rate <= 0 {
		return nil
	}
	c := &scrubber{s: s, rate: rate, every: scrubEvery, state: state, done: Scrub{Rate: rate}}
	if len(s.arenas) > 0 {
		c.done.Arena = s.arenas[0].Name
	}
	if state == nil {
		return c
	}
	b := make([]byte, scrubStateLen)
	if err := disk.ReadFull(state, b, 0); err != nil {
		s.log.Warn("scrub does not know where it was", "err", err)
	} else if began, arena, ok := unpackScrub(b); ok {
		c.done.Began, c.done.Arena = began, arena
	}
	return c
}

// stats returns what was done. c may be nil.
func (c *scrubber) stats() Scrub {
	if c == nil {
		return Scrub{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

// count changes what was done.
func (c *scrubber) count(f func(d *Scrub)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.done)
}

// run is the goroutine that scrubs.
func (c *scrubber) run(ctx context.Context) {
	for ctx.Err() == nil {
		if d := c.stats(); d.Arena == "" {
			if wait := time.Until(d.Began.Add(c.every)); wait > 0 && !sleep(ctx, wait) {
				return
			}
		}
		c.pass(ctx)
		if len(c.s.arenas) == 0 {
			return
		}
	}
}

// sleep returns false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pass goes through the arenas from the one that is next.
func (c *scrubber) pass(ctx context.Context) {
	first := 0
	for i, a := range c.s.arenas {
		if a.Name == c.stats().Arena {
			first = i
		}
	}
	if first == 0 {
		c.count(func(d *Scrub) { d.Began = c.s.now() })
	}
	for _, a := range c.s.arenas[first:] {
		c.at(a.Name)
		if err := c.arena(ctx, a); ctx.Err() != nil {
			return
		} else if err != nil {
			c.s.log.Error("scrub", "arena", a.Name, "err", err)
		}
	}
	c.count(func(d *Scrub) { d.Passes++ })
	c.at("")
	d := c.stats()
	c.s.log.Info("scrub has been through all arenas", "began", d.Began, "corrupt", d.Corrupt, "bad seals", d.BadSeals)
}

// at notes that an arena is next, or none. A crash loses what it has cost to come
// here since the state last reached the disk, and nothing else.
func (c *scrubber) at(name string) {
	c.count(func(d *Scrub) { d.Arena = name })
	if c.state == nil {
		return
	}
	if _, err := c.state.WriteAt(packScrub(c.stats().Began, name), 0); err != nil {
		c.s.log.Warn("scrub cannot note where it is", "err", err)
	}
}

// wait is called before n bytes are read.
func (c *scrubber) wait(ctx context.Context, n int) error {
	d := time.Duration(float64(n) / float64(c.rate) * float64(time.Second))
	if !sleep(ctx, d) {
		return ctx.Err()
	}
	// Clients who came meanwhile may come again.
	for range scrubYield - 1 {
		ops := c.s.diskOps()
		busy := ops != c.ops
		c.ops = ops
		if busy && !sleep(ctx, d) {
			return ctx.Err()
		}
	}
	c.count(func(d *Scrub) { d.Bytes += int64(n) })
	return nil
}

// diskOps counts what clients have the disks do.
func (s *Store) diskOps() int64 {
	c := &s.stats
	return c.clumpReads.Load() + c.indexReads.Load() + c.newBlocks.Load() + c.syncs.Load()
}

// arena scrubs an arena if it is sealed and has its seal.
func (c *scrubber) arena(ctx context.Context, a *logArena) error {
	a.part.mu.Lock()
	t := a.trailerLocked()
	a.part.mu.Unlock()
	if !t.Disk.Sealed || t.Seal.IsZero() {
		return nil
	}
	v := arenaScrub{c: c, a: a}
	sum, unread, err := a.Verify(ctx, int(t.Mem.Clumps), c.wait, func(cl *arena.Clump) error { return v.clump(ctx, cl) })
	if err != nil {
		return err
	}
	v.guarded()
	c.count(func(d *Scrub) {
		d.Arenas++
		if sum != t.Seal {
			d.BadSeals++
		}
	})
	if unread != nil || v.corrupt+v.replaced+v.stray > 0 || sum != t.Seal {
		c.s.log.Error("arena is damaged", "arena", a.Name, "corrupt clumps", v.corrupt, "healed before", v.replaced,
			"not in the index", v.stray, "seal", t.Seal, "sum", sum, "unread", unread)
	}
	return nil
}

// An arenaScrub is the work on one arena.
type arenaScrub struct {
	c *scrubber
	a *logArena

	corrupt, replaced, stray int64
	guards                   []guard.Guard // of an extent
}

// clump takes a clump.
func (v *arenaScrub) clump(ctx context.Context, cl *arena.Clump) error {
	v.c.count(func(d *Scrub) { d.Clumps++ })
	if cl.Err == nil {
		v.guard(cl)
	}
	if !errors.Is(cl.Err, venti.ErrCorrupt) || !cl.Header.Type.Valid() {
		return nil // sound, of an unknown encoding, or marked as corrupt
	}
	s := v.c.s
	k := key{cl.Header.Score, uint8(cl.Header.Type)}
	e, ok, err := s.find(&k, false)
	switch {
	case err != nil:
		return err
	case !ok:
		v.stray++
		return nil
	case e.addr != v.a.addr(cl.Off):
		v.replaced++
		v.c.count(func(d *Scrub) { d.Replaced++ })
		return nil
	}
	buf := s.blocks.Get().(*[]byte)
	defer s.blocks.Put(buf)
	// The disk gets a second chance.
	if _, err = s.readClump(&k, &e, *buf); err == nil {
		return nil
	}
	s.bad.add(e.addr) // also if it cannot be read: who writes the block heals it
	v.corrupt++
	v.c.count(func(d *Scrub) { d.Corrupt++ })
	s.log.Error("scrub found a corrupt clump", "arena", v.a.Name, "offset", cl.Off, "score", cl.Header.Score, "err", cmp.Or(err, cl.Err))
	s.heal(ctx, &k, &e, *buf)
	return ctx.Err()
}

// guard takes the guard that a clump ought to have.
func (v *arenaScrub) guard(cl *arena.Clump) {
	if v.c.s.guards == nil {
		return
	}
	if n := len(v.guards); n > 0 && guard.Extent(v.guards[n-1].Off) != guard.Extent(cl.Off) {
		v.guarded()
	}
	v.guards = append(v.guards, guard.Guard{Off: cl.Off, Score: cl.Header.Score, Sum: guard.Of(cl.Data)})
}

// guarded sees to it that there are the guards of the extent.
func (v *arenaScrub) guarded() {
	s, list := v.c.s, v.guards
	v.guards = v.guards[:0]
	if len(list) == 0 {
		return
	}
	if ok, err := s.guards.Complete(v.a.number, list); ok || err != nil {
		if err != nil {
			s.log.Warn("guards cannot be read", "arena", v.a.Name, "err", err)
		}
		return
	}
	s.guards.Rebuild(v.a.number, list)
	s.writeGuards(false)
	v.c.count(func(d *Scrub) { d.Guards += int64(len(list)) })
}
