package fossil

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/venti"
)

// ErrNoVenti is why a file system that has no Venti cannot archive.
var ErrNoVenti = errors.New("no Venti server")

// What the archiver does at once.
const (
	archiveWrites  = 64   // blocks on their way to Venti
	archivePublish = 4096 // pointers that wait for a sync of Venti
	archiveChunk   = 200  // pointers that one update replaces
	archiveRetry   = time.Minute
)

// An archiver sends a snapshot's blocks to Venti, those below first, and puts
// scores where addresses were. The super block says how far it is: next, the
// root of the tree to archive; current, that of the one under way; last, the
// score of the last one. A crash, or Venti that cannot be reached, stops it; it
// goes on where it was, since what has a score is not looked at again.
//
// A score is put in the place of an address only when Venti has synced the
// block, and in the same update the block is closed, unless a copy of what
// points to it may point to it too. So a local block is given up only when
// Venti has it for good.
//
// What is not archived (temporary files and snapshots) is empty in the archive
// and stays as it is here: the blocks above it are sent as they would be
// without it, and keep their addresses.
type archiver struct {
	fs   *FS
	low  uint32          // the super block's epochLow when it began
	done map[uint32]sent // blocks above leaves; what is in two snapshots is met twice

	mu      sync.Mutex // guards what follows
	blocks  int        // sent
	bytes   int64
	pending []publication
	waiting int // pointers in pending
}

// A sent is a block that Venti has.
type sent struct {
	score venti.Score
	whole bool // the score stands for the block as it will be here
}

// A publication is the scores that replace addresses in one block.
type publication struct {
	addr   uint32
	typ    format.Type
	tag    uint32
	scores []scored
}

// A scored is the slot of a block, the address in it, and the score that goes
// there.
type scored struct {
	slot  int
	child uint32
	score venti.Score
	whole bool // the child's pointers are all scores
}

// Archive archives what waits for it, and returns the score of the last archive
// that there is then, EmptyScore if there is none.
func (fs *FS) Archive(ctx context.Context) (score venti.Score, err error) {
	select {
	case fs.archiving <- struct{}{}:
		defer func() { <-fs.archiving }()
	case <-ctx.Done():
		return fs.Last(), ctx.Err()
	}
	ctx, end, err := fs.pause.begin(ctx)
	if err != nil {
		return fs.Last(), err
	}
	defer func() { err = end(err) }()
	for {
		super := fs.b.Super()
		if super.Current == format.None && super.Next == format.None {
			return super.Last, nil
		}
		if fs.venti == nil {
			return super.Last, fmt.Errorf("archive: %w", ErrNoVenti)
		}
		if err := fs.archive(ctx); err != nil {
			return super.Last, fmt.Errorf("archive: %w", translate(err))
		}
	}
}

// archive archives the current tree, or the next.
func (fs *FS) archive(ctx context.Context) error {
	start := time.Now()
	var super format.Super
	err := fs.b.UpdatePrivileged(ctx, func(tx *buffer.Tx) error {
		super = tx.Super()
		if super.Current == format.None {
			super.Current, super.Next = super.Next, format.None
			tx.SetSuper(super)
		}
		return nil
	})
	if err != nil {
		return err
	}
	a := &archiver{fs: fs, low: super.EpochLow, done: map[uint32]sent{}}
	top, _, err := a.block(ctx, super.Current, format.Dir, format.RootTag, slots{entries: 3})
	if err != nil {
		return err
	}
	root := venti.Root{Name: "fossil", Type: "vac", Score: top, BlockSize: fs.b.BlockSize()}
	if super.Last != venti.EmptyScore {
		root.Prev = super.Last
	}
	packed, err := root.Pack(nil)
	if err != nil {
		return err
	}
	score, err := fs.venti.WriteBlock(ctx, venti.RootType, packed)
	if err == nil {
		err = a.publish(ctx, true)
	}
	if err == nil {
		err = fs.readable(ctx, score, top)
	}
	if err != nil {
		return err
	}
	err = fs.b.UpdatePrivileged(ctx, func(tx *buffer.Tx) error {
		s := tx.Super()
		s.Current, s.Last = format.None, score
		tx.SetSuper(s)
		return nil
	})
	if err == nil {
		err = fs.b.Sync(ctx)
	}
	if err == nil {
		fs.log.Info("archive", "score", "vac:"+score.String(), "blocks", a.blocks, "bytes", a.bytes, "took", time.Since(start).Round(time.Millisecond))
	}
	return err
}

// readable checks that what leads to an archive can be read from Venti.
func (fs *FS) readable(ctx context.Context, score, top venti.Score) error {
	buf := make([]byte, fs.b.BlockSize())
	n, err := fs.venti.ReadBlock(ctx, score, venti.RootType, buf)
	if err != nil {
		return fmt.Errorf("read back root %v: %w", score, err)
	}
	if root, err := venti.UnpackRoot(buf[:n]); err != nil || root.Score != top {
		return fmt.Errorf("read back root %v: another block: %w", score, err)
	}
	if n, err = fs.venti.ReadBlock(ctx, top, venti.DirType, buf); err != nil {
		return fmt.Errorf("read back root directory %v: %w", top, err)
	}
	clear(buf[n:]) // zeros at its end are not kept
	e := format.EntryAt(buf, 0)
	if ok, err := venti.HasBlock(ctx, fs.venti, e.Root.Score(), venti.Type(e.Type())); err != nil || !ok {
		return fmt.Errorf("read back root directory %v: its entry %v: %w", top, e.Root, cmp.Or(err, venti.ErrNotFound))
	}
	return nil
}

// send gives Venti a block.
func (a *archiver) send(ctx context.Context, data []byte, t format.Type) (venti.Score, error) {
	data = format.Truncate(data, t)
	s, err := a.fs.venti.WriteBlock(ctx, venti.Type(t), data)
	if err == nil && s != venti.ScoreOf(data) {
		err = fmt.Errorf("%w: another score", venti.ErrCorrupt)
	}
	if err != nil {
		return s, fmt.Errorf("%w: write block: %w", buffer.ErrVenti, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.blocks++
	a.bytes += int64(len(data))
	return s, nil
}

// block sends the block at addr with all below it, of whose slots n
// matter, and returns its score. whole is false if what was sent is not what is
// here.
func (a *archiver) block(ctx context.Context, addr uint32, t format.Type, tag uint32, n slots) (s venti.Score, whole bool, err error) {
	if t != format.Data { // leaves are sent at once, and may be sent again
		if was, ok := a.done[addr]; ok {
			return was.score, was.whole, nil
		}
	}
	data, err := a.fs.b.Get(ctx, format.Local(addr), t, tag)
	if err != nil {
		return s, false, err
	}
	l, err := a.fs.b.Label(ctx, addr)
	if err != nil {
		return s, false, err
	}
	if l.State&format.Venti != 0 {
		return venti.ScoreOf(format.Truncate(data, t)), true, nil
	}
	if t == format.Data {
		s, err = a.send(ctx, data, t)
		return s, true, err
	}
	out := bytes.Clone(data)
	list := make([]scored, n.of(t))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(archiveWrites)
	whole = true
	for i := range list {
		c, ok, left := a.child(data, i, t, tag, n)
		if left { // out of the archive
			whole = false
			e := format.EntryAt(data, i)
			format.PutEntry(out, i, &format.Entry{Gen: e.Gen, PSize: e.PSize, DSize: e.DSize, Active: true, Dir: e.Dir, Root: format.Hole})
			continue
		}
		if !ok {
			continue
		}
		list[i] = scored{slot: i, child: c.addr}
		do := func(ctx context.Context) (err error) {
			list[i].score, list[i].whole, err = a.block(ctx, c.addr, c.typ, c.tag, c.slots)
			return err
		}
		if c.typ == format.Data {
			g.Go(func() error { return do(gctx) })
		} else if err := do(ctx); err != nil {
			g.Wait()
			return s, false, err
		}
	}
	if err := g.Wait(); err != nil {
		return s, false, err
	}
	p := publication{addr: addr, typ: t, tag: tag}
	for i := range list {
		c := &list[i]
		if c.score.IsZero() {
			continue
		}
		kept := false // the snapshot's own root, whose archive replaces it
		if t == format.Dir {
			e := format.EntryAt(data, i)
			kept = e.Snap != 0
			archived := e.ToVenti(c.score)
			format.PutEntry(out, i, &archived)
		} else {
			format.PutPointer(out, i, format.Pointer(c.score))
		}
		if c.whole || kept {
			p.scores = append(p.scores, *c)
		}
		whole = whole && (c.whole || kept)
	}
	if s, err = a.send(ctx, out, t); err != nil {
		return s, false, err
	}
	a.done[addr] = sent{s, whole}
	a.mu.Lock()
	if len(p.scores) > 0 {
		a.pending = append(a.pending, p)
		a.waiting += len(p.scores)
	}
	a.mu.Unlock()
	return s, whole, a.publish(ctx, false)
}

// slots says how many slots the blocks of a stream have.
type slots struct{ pointers, entries int }

// of returns how many slots of a block of type t matter.
func (n slots) of(t format.Type) int {
	if t == format.Dir {
		return n.entries
	}
	return n.pointers
}

// A below is what a slot leads to.
type below struct {
	addr  uint32
	typ   format.Type
	tag   uint32
	slots slots
}

// child returns what slot i of a block leads to, if that is here. left is true
// if it is to be left out.
func (a *archiver) child(data []byte, i int, t format.Type, tag uint32, n slots) (c below, ok, left bool) {
	if t != format.Dir {
		addr, ok := format.PointerAt(data, i).Addr()
		return below{addr, t - 1, tag, n}, ok, false
	}
	e := format.EntryAt(data, i)
	if !e.Active {
		return c, false, false
	}
	if e.Snap != 0 && (!e.Archive || e.Snap < a.low) || e.NoArchive {
		return c, false, true
	}
	addr, ok := e.Root.Addr()
	return below{addr, e.Type(), e.Tag, slots{e.PSize / format.PointerSize, e.DSize / format.EntrySize}}, ok, false
}

// publish puts scores into blocks, if enough wait for it or all is true. Blocks
// come after what is below them.
func (a *archiver) publish(ctx context.Context, all bool) error {
	a.mu.Lock()
	if a.waiting < archivePublish && !all {
		a.mu.Unlock()
		return nil
	}
	list := a.pending
	a.pending, a.waiting = nil, 0
	a.mu.Unlock()
	if err := a.fs.venti.Sync(ctx); err != nil {
		return fmt.Errorf("%w: sync: %w", buffer.ErrVenti, err)
	}
	for _, p := range list {
		for len(p.scores) > 0 {
			n := min(len(p.scores), archiveChunk)
			part := p.scores[:n]
			err := a.fs.b.UpdatePrivileged(ctx, func(tx *buffer.Tx) error { return p.put(tx, part) })
			if err != nil {
				return fmt.Errorf("block %#x: %w", p.addr, err)
			}
			p.scores = p.scores[n:]
		}
	}
	return nil
}

// put replaces addresses by scores.
func (p *publication) put(tx *buffer.Tx, list []scored) error {
	l, err := tx.Label(p.addr)
	if err != nil {
		return err
	}
	for _, c := range list {
		tx.WantLabel(c.child)
	}
	if err := tx.Missing(); err != nil {
		return err
	}
	data, err := tx.Change(p.addr)
	if err != nil {
		return err
	}
	for _, c := range list {
		alone := l.State&format.Copied == 0 // nobody else points to the child
		if p.typ == format.Dir {
			e := format.EntryAt(data, c.slot)
			if e.Root != format.Local(c.child) {
				return fmt.Errorf("%w: entry %d has changed", format.ErrEntry, c.slot)
			}
			alone = alone && e.Snap == 0
			e = e.ToVenti(c.score)
			format.PutEntry(data, c.slot, &e)
		} else {
			if format.PointerAt(data, c.slot) != format.Local(c.child) {
				return fmt.Errorf("%w: pointer %d has changed", buffer.ErrMismatch, c.slot)
			}
			format.PutPointer(data, c.slot, format.Pointer(c.score))
		}
		if err := tx.Archived(c.child, c.whole, alone, l.Epoch); err != nil {
			return err
		}
	}
	return nil
}

// archiveAll is the archiver's goroutine. It ends with ctx.
func (fs *FS) archiveAll(ctx context.Context) {
	if fs.venti == nil || fs.cfg.NoArchiver {
		return
	}
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-fs.kick:
		case <-retry.C:
		}
		if _, err := fs.Archive(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrHalted) {
			fs.log.Error("archive: try again later", "error", err)
			retry.Reset(archiveRetry)
		}
	}
}
