package fossil

import (
	"context"
	"errors"
	"fmt"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/vac/meta"
)

// A Finding is something wrong with a file system.
type Finding struct {
	Text   string // what
	Repair string // the console command that repairs it, if there is one
}

// CheckConfig holds the options of Check.
type CheckConfig struct {
	Snapshots bool              // look at the directories of snapshots, too
	Progress  func(line string) // told what is being checked; nil for nobody
}

// A CheckResult is what Check found.
type CheckResult struct {
	Findings []Finding
	Blocks   uint32 // data blocks
	Used     uint32 // in use
	Free     uint32
	Lost     uint32 // in use, though nothing links to them
}

// Check looks whether blocks, streams and directories agree, as the original's
// check does (spec 13.2). Blocks on Venti are not looked at, nor without Venti
// the directories that have some. Nothing may change the file system meanwhile;
// for trees that were let go and are still being closed it waits.
func (fs *FS) Check(ctx context.Context, cfg CheckConfig) (CheckResult, error) {
	if !fs.cfg.ReadOnly {
		// What cannot be closed is found below, as blocks that nothing leads to.
		if err := fs.b.Settle(ctx); err != nil && ctx.Err() != nil {
			return CheckResult{}, ctx.Err()
		}
	}
	c := &checker{fs: fs, cfg: cfg, super: fs.b.Super(), n: fs.b.Blocks()}
	c.result.Blocks = c.n
	if c.cfg.Progress == nil {
		c.cfg.Progress = func(string) {}
	}
	if err := c.readLabels(ctx); err != nil {
		return c.result, translate(err)
	}
	hint := c.super.Active
	for e := c.super.EpochHigh; e >= c.super.EpochLow; e-- {
		c.cfg.Progress(fmt.Sprintf("checking epoch %d...", e))
		hint = c.epoch(ctx, e, hint)
		if err := ctx.Err(); err != nil {
			return c.result, err
		}
	}
	c.leaks()
	c.directory(ctx, "", fs.root)
	return c.result, ctx.Err()
}

// A checker is a check under way.
type checker struct {
	fs     *FS
	cfg    CheckConfig
	super  format.Super
	n      uint32
	labels []format.Label
	bad    map[uint32]bool // labels that make no sense
	roots  map[uint32]uint32
	result CheckResult

	seen    bitmap // in any epoch
	inEpoch bitmap // by a parent of this epoch, and of it
	unique  bitmap // by a parent of the same epoch that was not copied
}

// A bitmap has a bit for each block.
type bitmap []uint64

func newBitmap(n uint32) bitmap         { return make(bitmap, (n+63)/64) }
func (m bitmap) get(a uint32) bool      { return m[a/64]>>(a%64)&1 != 0 }
func (m bitmap) set(a uint32)           { m[a/64] |= 1 << (a % 64) }
func (c *checker) active(e uint32) bool { return e == c.super.EpochHigh }

func (c *checker) find(repair, text string, args ...any) {
	c.result.Findings = append(c.result.Findings, Finding{fmt.Sprintf(text, args...), repair})
}

// readLabels reads all labels, and finds the root block of each epoch.
func (c *checker) readLabels(ctx context.Context) error {
	c.labels = make([]format.Label, c.n)
	c.bad, c.roots = map[uint32]bool{}, map[uint32]uint32{}
	c.seen = newBitmap(c.n)
	for a := range c.n {
		l, err := c.fs.b.Label(ctx, a)
		if errors.Is(err, format.ErrLabel) {
			c.bad[a] = true
			c.find("", "could not read label for addr %#.8x: %v", a, err)
			continue
		}
		if err != nil {
			return err
		}
		c.labels[a] = l
		if l.InUse() && l.Tag == format.RootTag {
			if _, ok := c.roots[l.Epoch]; !ok {
				c.roots[l.Epoch] = a
			}
		}
	}
	return nil
}

// epoch walks the tree of an epoch, whose root may be at hint. It returns the
// hint for the one before.
func (c *checker) epoch(ctx context.Context, e, hint uint32) uint32 {
	root, ok := c.roots[e]
	if hint < c.n && c.labels[hint].InUse() && c.labels[hint].Tag == format.RootTag && c.labels[hint].Epoch == e {
		root, ok = hint, true
	}
	if !ok {
		c.cfg.Progress(fmt.Sprintf("could not find root block for epoch %d", e))
		return hint
	}
	c.inEpoch, c.unique = newBitmap(c.n), newBitmap(c.n)
	data, err := c.fs.b.Get(ctx, format.Local(root), format.Dir, format.RootTag)
	if err != nil {
		c.find("", "could not read root block %#.8x: %v", root, err)
		return hint
	}
	c.seen.set(root)
	c.inEpoch.set(root)
	c.unique.set(root)
	top := format.EntryAt(data, 0)
	c.block(ctx, root, top.Root, format.Dir+format.Type(top.Depth), top.Tag, e)
	if last := format.EntryAt(data, 1); last.Local {
		if addr, ok := last.Root.Addr(); ok {
			return addr
		}
	}
	return hint
}

// block looks at the block that p, in block up, leads to, and what is below
// it. It returns false if p should be cleared.
func (c *checker) block(ctx context.Context, up uint32, p format.Pointer, t format.Type, tag, epoch uint32) bool {
	addr, ok := p.Addr()
	if !ok {
		return true
	}
	if addr >= c.n {
		c.find("", "could not load block %v type %d tag %x: illegal block address", p, t, tag)
		return false
	}
	l, above := c.labels[addr], c.labels[up]
	data, err := c.fs.b.Get(ctx, p, t, tag)
	if err != nil {
		c.find("", "could not load block %v type %d tag %x: %v", p, t, tag, err)
		return false
	}
	if above.Epoch < l.Epoch || l.EpochClose <= above.Epoch {
		c.find("", "walk: block %#x [%d, %d) points at %#x [%d, %d)", up, above.Epoch, above.EpochClose, addr, l.Epoch, l.EpochClose)
		return false
	}
	if above.Epoch == epoch && l.Epoch == epoch {
		if c.inEpoch.get(addr) {
			c.find("", "walk: epoch join detected: addr %#x %v", addr, l)
			return false
		}
		c.inEpoch.set(addr)
	}
	if above.State&format.Copied == 0 && above.Epoch == l.Epoch {
		if c.unique.get(addr) {
			c.find("", "walk: copy join detected; addr %#x %v", addr, l)
			return false
		}
		c.unique.set(addr)
	}
	closed := l.State&format.Closed != 0
	switch {
	case c.active(epoch) && c.seen.get(addr):
		c.find("", "walk: active join detected: addr %#x %v", addr, l)
		return false
	case c.active(epoch) && closed:
		c.find("", "walk: addr %#x: block is in active tree but is closed", addr)
	case !c.active(epoch) && !c.seen.get(addr) && !closed:
		c.find(fmt.Sprintf("bclose %#x %d", addr, epoch+1), "walk: addr %#x: block is not in active tree, not closed (%d)", addr, l.EpochClose)
	}
	if c.seen.get(addr) {
		return true
	}
	c.seen.set(addr)
	switch {
	case t.Level() > 0:
		for i := range len(data) / format.PointerSize {
			if !c.block(ctx, addr, format.PointerAt(data, i), t-1, tag, epoch) {
				c.clear(fmt.Sprintf("clrp %#x %d", addr, i))
			}
		}
	case t == format.Dir:
		for i := range len(data) / format.EntrySize {
			if !c.entry(ctx, addr, format.EntryAt(data, i), epoch) {
				c.clear(fmt.Sprintf("clre %#x %d", addr, i))
			}
		}
	}
	return true
}

// clear gives the last finding its repair.
func (c *checker) clear(repair string) {
	if n := len(c.result.Findings); n > 0 && c.result.Findings[n-1].Repair == "" {
		c.result.Findings[n-1].Repair = repair
	}
}

// entry looks at an entry in block up, and what is below it.
func (c *checker) entry(ctx context.Context, up uint32, e format.Entry, epoch uint32) bool {
	switch {
	case !e.Active:
		return true
	case e.Snap >= epoch && e.Snap != 0:
		c.find("", "bad snap in entry of %#x: snap = %d: epoch = %d", up, e.Snap, epoch)
		return false
	case e.Snap != 0:
		return true
	case e.Local && e.Tag < format.UserTag:
		c.find("", "bad tag in entry of %#x: tag = %#x", up, e.Tag)
		return false
	}
	return c.block(ctx, up, e.Root, e.Type(), e.Tag, epoch)
}

// leaks counts blocks.
func (c *checker) leaks() {
	for a := range c.n {
		l := &c.labels[a]
		switch {
		case c.seen.get(a) || c.bad[a]:
			c.result.Used++
		case l.Free(c.super.EpochLow):
			c.result.Free++
		case l.State&format.Closed != 0: // or bad
			c.result.Used++
		default:
			c.result.Lost++
			c.find(fmt.Sprintf("bclose %#x 0", a), "unreachable block: addr %#x %v", a, l)
		}
	}
}

// directory looks at the files in a directory, and below it.
func (c *checker) directory(ctx context.Context, path string, dir *File) {
	var names []string
	var entries []meta.DirEntry
	var total int64
	onVenti := false
	err := c.fs.b.View(ctx, func(tx *buffer.Tx) error {
		names, entries = nil, nil
		d, err := dir.data.Entry(tx)
		if err != nil {
			return err
		}
		m, err := dir.meta.Entry(tx)
		if err != nil {
			return err
		}
		if onVenti = !d.Local && !m.Local; onVenti {
			return nil
		}
		if total, err = dir.data.Slots(tx); err != nil {
			return err
		}
		for n := range m.Leaves(m.Size) {
			b, err := metaLeaf(tx, dir.meta, n)
			if missing := tx.Missing(); missing != nil {
				return missing
			}
			if err != nil {
				names = append(names, fmt.Sprintf("bad meta block: %s[%d]: %v", path, n, err))
				continue
			}
			last := ""
			for i := range b.Len() {
				e, err := b.Entry(i)
				if err != nil {
					names = append(names, fmt.Sprintf("could not unpack dir entry: %s[%d][%d]: %v", path, n, i, err))
					continue
				}
				if i > 0 && b.Magic() == meta.ShorterFirst && e.Name <= last {
					names = append(names, fmt.Sprintf("dir entry out of order: %s[%d][%d] = %s last = %s", path, n, i, e.Name, last))
				}
				last = e.Name
				entries = append(entries, e)
			}
		}
		return nil
	})
	if errors.Is(err, buffer.ErrVenti) && c.fs.venti == nil {
		return
	}
	if err != nil {
		c.find("", "could not load entries for %s: %v", path, err)
		return
	}
	for _, text := range names {
		c.find("", "%s", text)
	}
	if onVenti {
		return
	}
	used := map[int64]bool{}
	for i := range entries {
		if ctx.Err() != nil {
			return
		}
		e := &entries[i]
		p := path + "/" + e.Name
		f := dir.child(e, 0)
		slots := []int64{int64(e.Entry)}
		if f.IsDir() {
			slots = append(slots, int64(e.MEntry))
		}
		ok := true
		for k, slot := range slots {
			s := f.data
			if k == 1 {
				s = f.meta
			}
			if used[slot] {
				ok = false
				c.find("clri "+p, "multiple references to source: %s -> %d", p, slot)
				break
			}
			used[slot] = true
			if err := c.fs.b.View(ctx, func(tx *buffer.Tx) error { _, err := s.Entry(tx); return err }); err != nil {
				ok = false
				c.find("clri "+p, "could not open source: %s -> %d: %v", p, slot, translate(err))
				break
			}
		}
		if ok && f.IsDir() && (c.cfg.Snapshots || e.Mode&meta.ModeSnapshot == 0) {
			c.directory(ctx, p, f)
		}
	}
	c.orphans(ctx, path, dir, total, used)
}

// orphans finds slots of a directory that are in use and have no name.
func (c *checker) orphans(ctx context.Context, path string, dir *File, total int64, used map[int64]bool) {
	for slot := range total {
		if used[slot] {
			continue
		}
		var e format.Entry
		var repair string
		err := c.fs.b.View(ctx, func(tx *buffer.Tx) (err error) {
			e, repair, err = slotOf(tx, dir, slot)
			return err
		})
		if dead := e.Snap != 0 && e.Snap < c.super.EpochLow; err == nil && e.Active && !dead {
			c.find(repair, "non referenced entry in source %s[%d]", path, slot)
		}
	}
}

// slotOf returns what is in a slot of a directory, and the command that clears
// it.
func slotOf(tx *buffer.Tx, dir *File, slot int64) (format.Entry, string, error) {
	e, err := dir.data.Entry(tx)
	if err != nil {
		return e, "", err
	}
	per := int64(e.DSize / format.EntrySize)
	data, err := dir.data.Leaf(tx, slot/per)
	if err != nil {
		return e, "", err
	}
	p, err := dir.data.Pointer(tx, slot/per)
	return format.EntryAt(data, int(slot%per)), fmt.Sprintf("clre %v %d", p, slot%per), err
}
