package fossil

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/venti"
	"strata/venti/hashtree"
)

// ErrNoVenti is why a file system that has no Venti cannot archive.
var ErrNoVenti = errors.New("no Venti server")

// What the archiver does at once, and when it tries again.
const (
	archiveWorkers = 128  // goroutines, each with a block on its way to Venti
	archivePublish = 4096 // pointers that wait for a sync of Venti
	archiveBehind  = 4 * archivePublish
	archiveChunk   = 200 // pointers that one update replaces
	archiveSoon    = time.Second
	archiveLater   = time.Minute
	archiveReport  = 10 * time.Second
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
//
// Subtrees are sent by goroutines of their own while there are workers left,
// and else by the one that has come to them. Nobody who works waits for a
// worker, and who waits for a block waits for one below its own, so that they
// all come to an end.
type archiver struct {
	fs      *FS
	put     *hashtree.Putter
	low     uint32        // the super block's epochLow when it began
	workers chan struct{} // has room for all but the first
	publish chan struct{} // has room for the one who publishes
	fail    func(error)   // ends all with the first error

	mu      sync.Mutex       // guards what follows
	blocks  map[uint32]*sent // those above leaves; what is in two snapshots is met twice
	pending []publication    // what is below a block comes before it
	waiting int              // pointers in pending
}

// A sent is a block that Venti has, or gets.
type sent struct {
	ready chan struct{} // closed when the rest is there
	score venti.Score
	whole bool // the score stands for the block as it will be here
	err   error
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
		used, _ := fs.b.Used()
		fs.progress.begin(fs.cfg.Now(), used)
		err := translate(fs.archive(ctx))
		fs.progress.end(fs.cfg.Now(), err)
		if err != nil {
			return super.Last, fmt.Errorf("archive: %w", err)
		}
	}
}

// archive archives the current tree, or the next.
func (fs *FS) archive(ctx context.Context) error {
	var super format.Super
	var root format.Label
	err := fs.b.UpdatePrivileged(ctx, func(tx *buffer.Tx) (err error) {
		super = tx.Super()
		if super.Current == format.None {
			super.Current, super.Next = super.Next, format.None
			tx.SetSuper(super)
		}
		root, err = tx.Label(super.Current)
		return err
	})
	if err != nil {
		return err
	}
	if err := fs.findUnsaid(ctx); err != nil { // it is for the log only
		fs.log.Warn("archive: list what waits", "error", err)
	}
	wctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	a := &archiver{
		fs: fs, put: hashtree.NewPutter(fs.venti), low: super.EpochLow, blocks: map[uint32]*sent{}, fail: fail,
		workers: make(chan struct{}, archiveWorkers-1), publish: make(chan struct{}, 1),
	}
	top, _, err := a.block(wctx, super.Current, format.Dir, format.RootTag, slots{entries: 3})
	if err != nil {
		return context.Cause(wctx)
	}
	vr := venti.Root{Name: "fossil", Type: "vac", Score: top, BlockSize: fs.b.BlockSize()}
	if super.Last != venti.EmptyScore {
		vr.Prev = super.Last
	}
	score, err := writeRoot(ctx, fs.venti, vr)
	if err == nil {
		err = a.publishAll(ctx)
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
	if err != nil {
		return err
	}
	p := fs.Archiving()
	fs.log.Info("archive", "score", "vac:"+score.String(), "blocks", p.Blocks, "bytes", p.Bytes, "took", fs.cfg.Now().Sub(p.Began).Round(time.Millisecond))
	return fs.sayScores(ctx, root.Epoch)
}

// findUnsaid lists the archival snapshots that somebody has left waiting who had
// the file system open before. Those taken since are in the list already: to look
// for them each time would take the longer the more there are in all.
func (fs *FS) findUnsaid(ctx context.Context) error {
	known := false
	err := fs.b.View(ctx, func(*buffer.Tx) error {
		known = fs.listed
		return nil
	})
	if err != nil || known {
		return err
	}
	list, err := fs.LocalSnapshots(ctx, "/archive")
	if err != nil && !errors.Is(err, ErrNotExist) {
		return err
	}
	return fs.b.View(ctx, func(*buffer.Tx) error {
		for _, s := range list {
			if s.Archive && !s.Dead && !slices.ContainsFunc(fs.unsaid, func(u Snap) bool { return u.Path == s.Path }) {
				fs.unsaid = append(fs.unsaid, s)
			}
		}
		fs.listed = true
		return nil
	})
}

// sayScores logs the scores of archival snapshots that are in the tree of an
// epoch, which was archived.
func (fs *FS) sayScores(ctx context.Context, epoch uint32) error {
	var list, later []Snap
	if err := fs.b.View(ctx, func(*buffer.Tx) error {
		list, fs.unsaid = fs.unsaid, nil
		return nil
	}); err != nil {
		return err
	}
	for _, u := range list {
		s, err := venti.Score{}, error(ErrNotOnVenti)
		if u.Epoch <= epoch {
			s, err = fs.Vac(ctx, u.Path)
		}
		switch {
		case err == nil:
			fs.log.Info("archived", "path", u.Path, "score", "vac:"+s.String())
		case errors.Is(err, ErrNotOnVenti): // what was copied meanwhile is when the next is done
			later = append(later, u)
		}
	}
	return fs.b.View(ctx, func(*buffer.Tx) error {
		fs.unsaid = append(later, fs.unsaid...)
		return nil
	})
}

// writeRoot writes a root block.
func writeRoot(ctx context.Context, bw venti.BlockWriter, root venti.Root) (venti.Score, error) {
	packed, err := root.Pack(nil)
	if err != nil {
		return venti.Score{}, err
	}
	s, err := bw.WriteBlock(ctx, venti.RootType, packed)
	if err != nil {
		err = fmt.Errorf("%w: write root: %w", buffer.ErrVenti, err)
	}
	return s, err
}

// readable checks that what leads to an archive can be read from Venti.
func (fs *FS) readable(ctx context.Context, score, top venti.Score) error {
	buf := make([]byte, fs.b.BlockSize())
	n, err := fs.venti.ReadBlock(ctx, score, venti.RootType, buf)
	if err != nil {
		return fmt.Errorf("%w: read back root %v: %w", buffer.ErrVenti, score, err)
	}
	if root, err := venti.UnpackRoot(buf[:n]); err != nil || root.Score != top {
		return fmt.Errorf("%w: read back root %v: another block: %w", buffer.ErrVenti, score, err)
	}
	if n, err = fs.venti.ReadBlock(ctx, top, venti.DirType, buf); err != nil {
		return fmt.Errorf("%w: read back root directory %v: %w", buffer.ErrVenti, top, err)
	}
	clear(buf[n:]) // zeros at its end are not kept
	e := format.EntryAt(buf, 0)
	if ok, err := venti.HasBlock(ctx, fs.venti, e.Root.Score(), venti.Type(e.Type())); err != nil || !ok {
		return fmt.Errorf("%w: read back root directory %v: its entry %v: %w", buffer.ErrVenti, top, e.Root, cmp.Or(err, venti.ErrNotFound))
	}
	return nil
}

// send gives Venti a block, unless it has it.
func (a *archiver) send(ctx context.Context, data []byte, t format.Type) (venti.Score, error) {
	data = format.Truncate(data, t)
	s := venti.ScoreOf(data)
	if _, err := a.put.Put(ctx, s, venti.Type(t), data); err != nil {
		return s, fmt.Errorf("%w: %w", buffer.ErrVenti, err)
	}
	if p, ok := a.fs.progress.sent(a.fs.cfg.Now(), len(data)); ok {
		a.fs.log.Info("archiving", "blocks", p.Blocks, "bytes", p.Bytes, "of at most", p.Local, "blocks since", p.Began)
	}
	return s, nil
}

// block sends the block at addr with all below it, of whose slots n
// matter, and returns its score. whole is false if what was sent is not what is
// here.
func (a *archiver) block(ctx context.Context, addr uint32, t format.Type, tag uint32, n slots) (s venti.Score, whole bool, err error) {
	if t == format.Data { // sent at once, and may be sent again
		if s, whole, err = a.tree(ctx, addr, t, tag, n); err != nil {
			a.fail(err)
		}
		return s, whole, err
	}
	a.mu.Lock()
	b := a.blocks[addr]
	mine := b == nil
	if mine {
		b = &sent{ready: make(chan struct{})}
		a.blocks[addr] = b
	}
	a.mu.Unlock()
	if mine {
		if b.score, b.whole, b.err = a.tree(ctx, addr, t, tag, n); b.err != nil {
			a.fail(b.err)
		}
		close(b.ready)
	}
	<-b.ready
	return b.score, b.whole, b.err
}

// tree is block for one that nobody else sends.
func (a *archiver) tree(ctx context.Context, addr uint32, t format.Type, tag uint32, n slots) (s venti.Score, whole bool, err error) {
	get := a.fs.b.Get
	if t == format.Data {
		get = a.fs.b.GetOnce
	}
	data, err := get(ctx, format.Local(addr), t, tag)
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
	var g errgroup.Group
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
		do := func() (err error) {
			list[i].score, list[i].whole, err = a.block(ctx, c.addr, c.typ, c.tag, c.slots)
			return err
		}
		select {
		case a.workers <- struct{}{}:
			g.Go(func() error {
				defer func() { <-a.workers }()
				return do()
			})
		default:
			err = do()
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			break
		}
	}
	if err = cmp.Or(g.Wait(), err); err != nil {
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
	a.mu.Lock()
	if len(p.scores) > 0 {
		a.pending = append(a.pending, p)
		a.waiting += len(p.scores)
	}
	waiting := a.waiting
	a.mu.Unlock()
	switch {
	case waiting >= archiveBehind:
		err = a.publishAll(ctx)
	case waiting >= archivePublish:
		select {
		case a.publish <- struct{}{}:
			err = a.publishPending(ctx)
			<-a.publish
		default: // somebody does
		}
	}
	return s, whole, err
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

// publishAll puts all scores that wait for it into blocks.
func (a *archiver) publishAll(ctx context.Context) error {
	select {
	case a.publish <- struct{}{}:
		defer func() { <-a.publish }()
		return a.publishPending(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publishPending is publishAll for the one who publishes: blocks must come
// after what is below them.
func (a *archiver) publishPending(ctx context.Context) error {
	a.mu.Lock()
	list := a.pending
	a.pending, a.waiting = nil, 0
	a.mu.Unlock()
	if err := a.fs.venti.Sync(ctx); err != nil {
		return fmt.Errorf("%w: sync: %w", buffer.ErrVenti, err)
	}
	for _, p := range list {
		for part := range slices.Chunk(p.scores, archiveChunk) {
			err := a.fs.b.UpdatePrivileged(ctx, func(tx *buffer.Tx) error { return p.put(tx, part) })
			if err != nil {
				return fmt.Errorf("block %#x: %w", p.addr, err)
			}
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
		typ := p.typ - 1
		if p.typ == format.Dir {
			e := format.EntryAt(data, c.slot)
			if e.Root != format.Local(c.child) {
				return fmt.Errorf("%w: entry %d has changed", format.ErrEntry, c.slot)
			}
			alone = alone && e.Snap == 0
			typ = e.Type()
			e = e.ToVenti(c.score)
			format.PutEntry(data, c.slot, &e)
		} else {
			if format.PointerAt(data, c.slot) != format.Local(c.child) {
				return fmt.Errorf("%w: pointer %d has changed", buffer.ErrMismatch, c.slot)
			}
			format.PutPointer(data, c.slot, format.Pointer(c.score))
		}
		if err := tx.Archived(c.child, typ, c.score, c.whole, alone, l.Epoch); err != nil {
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
	wait := archiveSoon
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-fs.kick:
		case <-retry.C:
		}
		if _, err := fs.Archive(ctx); err == nil {
			wait = archiveSoon
		} else if ctx.Err() == nil && !errors.Is(err, ErrHalted) {
			fs.log.Error("archive: try again later", "error", err, "wait", wait)
			retry.Reset(wait)
			wait = min(2*wait, archiveLater)
		}
	}
}
