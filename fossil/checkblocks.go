package fossil

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/venti"
)

// A parent is a block that has a pointer, or an entry, that is followed.
type parent struct {
	addr uint32
	l    format.Label
}

// A guess is what a label should be that makes no sense, as those say that
// lead to its block. It cannot be one that belongs to anything else: nothing can
// be reached through it.
type guess struct {
	l format.Label // Epoch is the oldest of those that lead there
}

// tree looks at the tree of an epoch, whose root may be at hint, and at its
// snapshots. It returns the hint for the one before.
func (c *checker) tree(ctx context.Context, hint uint32) uint32 {
	root, ok := c.roots[c.epoch]
	if hint < c.n {
		if l, err := c.label(ctx, hint); err == nil && l.InUse() && l.Tag == format.RootTag && l.Epoch == c.epoch {
			root, ok = hint, true
		}
	}
	clear(c.inEpoch)
	clear(c.unique)
	if ok {
		c.cfg.Progress(fmt.Sprintf("checking epoch %d...", c.epoch))
		hint = c.root(ctx, root, hint)
	}
	// All of a snapshot is in the tree of its epoch, unless that is lost.
	for _, s := range c.snaps[c.epoch] {
		addr, ok := s.e.Root.Addr()
		if !ok || addr < c.n && c.seen.get(addr) {
			continue
		}
		why := c.block(ctx, s.up, s.e.Root, s.e.Type(), s.e.Tag)
		c.badEntry(s.up, s.slot, s.e, why)
	}
	delete(c.snaps, c.epoch)
	return hint
}

// root looks at the tree below a root block.
func (c *checker) root(ctx context.Context, root, hint uint32) uint32 {
	l, err := c.label(ctx, root)
	var data []byte
	if err == nil {
		data, err = c.get(ctx, format.Local(root), format.Dir, format.RootTag)
	}
	if err != nil {
		if !c.stopped(ctx, err) {
			c.find(0, "", "could not read root block %#.8x: %v", root, err)
			c.broken = true
		}
		return hint
	}
	c.seen.set(root)
	c.inEpoch.set(root)
	c.unique.set(root)
	if top := format.EntryAt(data, 0); top.Active {
		up := parent{root, l}
		why := c.block(ctx, up, top.Root, top.Type(), top.Tag)
		c.badEntry(up, 0, top, why)
	}
	// The hint of the root block before.
	last := format.EntryAt(data, 1)
	addr, ok := last.Root.Addr()
	if !last.Local || !ok || addr >= c.n {
		return hint
	}
	if g, bad := c.bad[addr]; bad && g == nil && last.Snap >= c.super.EpochLow && last.Snap < c.epoch {
		if _, known := c.roots[last.Snap]; !known {
			l := format.Label{State: format.Alloc | format.Copied | format.Closed, Type: format.Dir, Epoch: last.Snap, EpochClose: last.Snap + 1, Tag: format.RootTag}
			c.bad[addr] = &guess{l: l}
			c.roots[last.Snap] = addr
			c.visit(last.Snap)
		}
	}
	return addr
}

// guard notes the blocks of a tree that lead to the entries of its root
// directory.
func (c *checker) guard(ctx context.Context, root uint32) {
	if root == format.None || c.err != nil {
		return
	}
	c.above[root] = true
	data, err := c.get(ctx, format.Local(root), format.Dir, format.RootTag)
	if err != nil {
		c.stopped(ctx, err)
		return // the walk finds it, too
	}
	top := format.EntryAt(data, 0)
	c.guardStream(ctx, &top, top.Root, top.Depth)
	if data, _, err = c.leafAt(ctx, &top, 0); err != nil {
		c.stopped(ctx, err)
		return
	}
	for i := range 3 {
		if e := format.EntryAt(data, i); e.Active {
			c.guardStream(ctx, &e, e.Root, e.Depth)
		}
	}
}

// guardStream notes the blocks of a stream but for leaves of data.
func (c *checker) guardStream(ctx context.Context, e *format.Entry, p format.Pointer, level int) {
	addr, ok := p.Addr()
	t := e.LeafType() + format.Type(level)
	if !ok || t == format.Data || c.above[addr] || c.err != nil {
		return
	}
	c.above[addr] = true
	if level == 0 {
		return
	}
	data, err := c.get(ctx, p, t, e.Tag)
	if err != nil {
		c.stopped(ctx, err)
		return
	}
	for i := range len(data) / format.PointerSize {
		c.guardStream(ctx, e, format.PointerAt(data, i), level-1)
	}
}

// clear finds that a slot of a block is to be cleared, which do does.
func (c *checker) clear(up parent, kind Repairs, command, why string, do func(tx *buffer.Tx) error) {
	c.broken = true
	n := c.find(kind, command, "%s", why)
	if c.above[up.addr] {
		c.leave(n)
		return
	}
	c.fixes = append(c.fixes, fix{[]int{n}, do})
}

// leave notes that a repair is not for Check to do.
func (c *checker) leave(finding int) {
	f := &c.result.Findings[finding]
	c.result.Todo.add(f.Kind, -1)
	f.Kind = 0
	f.Text += ": it is left alone, for the root directory depends on it"
}

// visit has the tree of an epoch looked at.
func (c *checker) visit(epoch uint32) {
	if i, ok := slices.BinarySearch(c.epochs, epoch); !ok {
		c.epochs = slices.Insert(c.epochs, i, epoch)
	}
}

// label returns the label of a block, or what it should be.
func (c *checker) label(ctx context.Context, addr uint32) (format.Label, error) {
	l, err := c.m.Label(ctx, addr)
	if g := c.bad[addr]; g != nil {
		return g.l, nil
	}
	return l, err
}

// get returns the block of type t that p leads to.
func (c *checker) get(ctx context.Context, p format.Pointer, t format.Type, tag uint32) ([]byte, error) {
	if addr, ok := p.Addr(); ok {
		if g := c.bad[addr]; g != nil && g.l.Type == t && g.l.Tag == tag {
			return c.m.Data(ctx, addr)
		}
	}
	return c.m.Get(ctx, p, t, tag)
}

// isActive tells whether it is the active tree that is looked at.
func (c *checker) isActive() bool { return c.epoch == c.top }

// closeEpoch returns the epoch in which a block of the tree that is looked at
// may be closed at the earliest, when no younger tree has it.
func (c *checker) closeEpoch() uint32 {
	if c.isActive() {
		return format.Open
	}
	return c.epoch + 1
}

// guess returns a label for a block that has none which makes sense.
func (c *checker) guess(up parent, addr uint32, t format.Type, tag uint32) format.Label {
	g := c.bad[addr]
	if g == nil {
		l := format.Label{State: format.Alloc | format.Copied, Type: t, Epoch: up.l.Epoch, EpochClose: c.closeEpoch(), Tag: tag}
		if l.EpochClose != format.Open {
			l.State |= format.Closed
		}
		g = &guess{l: l}
		c.bad[addr] = g
	}
	g.l.Epoch = min(g.l.Epoch, up.l.Epoch)
	return g.l
}

// block looks at the block that p, in block up, leads to, and what is below
// it. If p should be cleared, it returns why.
func (c *checker) block(ctx context.Context, up parent, p format.Pointer, t format.Type, tag uint32) (why string) {
	if c.err != nil {
		return ""
	}
	addr, ok := p.Addr()
	if !ok {
		c.venti(ctx, up.addr, p, t)
		return ""
	}
	unloaded := func(err error) string {
		return fmt.Sprintf("could not load block %v type %d tag %x: %v", p, t, tag, err)
	}
	l, err := c.m.Label(ctx, addr)
	if errors.Is(err, format.ErrLabel) {
		l, err = c.guess(up, addr, t, tag), nil
	}
	if err == nil && (!l.InUse() || l.Type != t || l.Tag != tag) {
		err = buffer.ErrMismatch
	}
	var data []byte
	if err == nil && !c.seen.get(addr) {
		if t != format.Data {
			data, err = c.m.Data(ctx, addr)
		} else if c.cfg.Data {
			err = c.m.Readable(addr)
		}
	}
	switch {
	case err == nil:
	case c.stopped(ctx, err):
		return ""
	case errors.Is(err, buffer.ErrMismatch):
		return unloaded(fmt.Errorf("%w: it is %v", err, l))
	default:
		return unloaded(err)
	}
	if c.cfg.Blocks {
		c.cfg.Progress(fmt.Sprintf("block %#x %v", addr, l))
	}
	above := &up.l
	if above.Epoch < l.Epoch {
		return fmt.Sprintf("walk: block %#x [%d, %d) points at %#x [%d, %d)", up.addr, above.Epoch, above.EpochClose, addr, l.Epoch, l.EpochClose)
	}
	if above.Epoch == c.epoch && l.Epoch == c.epoch {
		if c.inEpoch.get(addr) {
			return fmt.Sprintf("walk: epoch join detected: addr %#x %v", addr, l)
		}
		c.inEpoch.set(addr)
	}
	if above.State&format.Copied == 0 && above.Epoch == l.Epoch {
		if c.unique.get(addr) {
			return fmt.Sprintf("walk: copy join detected; addr %#x %v", addr, l)
		}
		c.unique.set(addr)
	}
	if c.seen.get(addr) {
		if c.isActive() {
			return fmt.Sprintf("walk: active join detected: addr %#x %v", addr, l)
		}
		return ""
	}
	c.seen.set(addr)
	here := parent{addr, l}
	if c.bad[addr] == nil {
		c.lifetime(up, here)
	}
	if data != nil && !c.below(ctx, here, data, t, tag) && l.State&format.Venti != 0 {
		now := l
		now.State &^= format.Venti
		c.relabel(addr, l, now, "block %#x is said to be on Venti, but leads to others that are here", addr)
	}
	return ""
}

// lifetime looks at the close epoch of a block that is seen for the first time.
func (c *checker) lifetime(up, here parent) {
	addr, l := here.addr, here.l
	now := l
	switch closed := l.State&format.Closed != 0; {
	case c.isActive() && closed:
		now.State &^= format.Closed
		now.EpochClose = format.Open
		c.relabel(addr, l, now, "walk: addr %#x: block is in active tree but is closed", addr)
	case !c.isActive() && closed && l.EpochClose <= c.epoch:
		now.EpochClose = c.epoch + 1
		c.relabel(addr, l, now, "walk: block %#x [%d, %d) points at %#x [%d, %d) in the tree of epoch %d",
			up.addr, up.l.Epoch, up.l.EpochClose, addr, l.Epoch, l.EpochClose, c.epoch)
	case !c.isActive() && !closed && !c.closing.get(addr):
		now.State |= format.Closed
		now.EpochClose = c.epoch + 1
		c.relabel(addr, l, now, "walk: addr %#x: block is not in active tree, not closed (%d)", addr, l.EpochClose)
	}
}

// relabel finds that a block should have another label.
func (c *checker) relabel(addr uint32, old, now format.Label, text string, args ...any) {
	command := fmt.Sprintf("label %#x %#x %#x %d %#x %#x", addr, uint8(now.Type), uint8(now.State), now.Epoch, now.EpochClose, now.Tag)
	if old.State&format.Closed == 0 && now.State == old.State|format.Closed {
		command = fmt.Sprintf("bclose %#x %d", addr, now.EpochClose)
	}
	n := c.find(Bclose, command, text, args...)
	c.labels = append(c.labels, labelFix{n, addr, old, now})
}

// below looks at what a block that is not a file's leaf leads to. It returns
// false if some of that is here rather than on Venti.
func (c *checker) below(ctx context.Context, here parent, data []byte, t format.Type, tag uint32) (venti bool) {
	venti = true
	if t != format.Dir {
		for i := range len(data) / format.PointerSize {
			if i%ahead == 0 && t.Level() > 1 {
				c.fetch(ctx, data[i*format.PointerSize:], format.PointerSize, format.PointerAt)
			}
			p := format.PointerAt(data, i)
			venti = venti && !p.IsLocal()
			if why := c.block(ctx, here, p, t-1, tag); why != "" {
				c.clear(here, Clrp, fmt.Sprintf("clrp %#x %d", here.addr, i), why,
					func(tx *buffer.Tx) error { return clearPointer(tx, here, i, p) })
			}
		}
		return venti
	}
	for i := range len(data) / format.EntrySize {
		if i%ahead == 0 {
			c.fetch(ctx, data[i*format.EntrySize:], format.EntrySize, func(b []byte, i int) format.Pointer {
				if e := format.EntryAt(b, i); e.Active && e.Snap == 0 && e.Type() != format.Data {
					return e.Root
				}
				return format.Hole
			})
		}
		e := format.EntryAt(data, i)
		if !e.Active {
			continue
		}
		venti = venti && !e.Local
		c.badEntry(here, i, e, c.entry(ctx, here, i, e))
	}
	return venti
}

// ahead is how many blocks are read ahead at once.
const ahead = 64

// fetch has what the first slots of a block lead to read ahead, as far as it is
// here. size is that of a slot.
func (c *checker) fetch(ctx context.Context, data []byte, size int, pointer func(b []byte, i int) format.Pointer) {
	if c.err != nil {
		return
	}
	var list []uint32
	for i := range min(len(data)/size, ahead) {
		if addr, ok := pointer(data, i).Addr(); ok && addr < c.n && !c.seen.get(addr) {
			list = append(list, addr)
		}
	}
	if len(list) > 1 {
		c.m.Fetch(ctx, list)
	}
}

// entry looks at an entry in block up, and what is below it. If it should be
// cleared, it returns why.
func (c *checker) entry(ctx context.Context, up parent, slot int, e format.Entry) (why string) {
	switch {
	case e.Snap != 0 && e.Snap >= c.epoch:
		return fmt.Sprintf("bad snap in entry of %#x: snap = %d: epoch = %d", up.addr, e.Snap, c.epoch)
	case e.Snap != 0:
		if e.Snap >= c.super.EpochLow {
			// As if it were in a block of that epoch that was not copied yet.
			up.l.Epoch, up.l.State = e.Snap, up.l.State|format.Copied
			c.snaps[e.Snap] = append(c.snaps[e.Snap], snapshot{up, slot, e})
			c.visit(e.Snap)
		}
		return ""
	case e.Local && e.Tag < format.UserTag:
		return fmt.Sprintf("bad tag in entry of %#x: tag = %#x", up.addr, e.Tag)
	}
	return c.block(ctx, up, e.Root, e.Type(), e.Tag)
}

// badEntry notes that an entry is to be cleared, unless why is empty.
func (c *checker) badEntry(up parent, slot int, e format.Entry, why string) {
	if why != "" {
		c.clear(up, Clre, fmt.Sprintf("clre %#x %d", up.addr, slot), why,
			func(tx *buffer.Tx) error { return clearEntry(tx, up.addr, slot, e) })
	}
}

// guessed finds the labels that make no sense.
func (c *checker) guessed() {
	for _, addr := range slices.Sorted(maps.Keys(c.bad)) {
		found, err := c.m.Label(context.Background(), addr)
		if err == nil || !errors.Is(err, format.ErrLabel) {
			c.fail(err)
			return
		}
		text := fmt.Sprintf("could not read label for addr %#.8x: %v", addr, err)
		if g := c.bad[addr]; g != nil {
			c.relabel(addr, found, g.l, "%s", text)
			continue
		}
		n := c.find(Bclose, fmt.Sprintf("bfree %#x", addr), "%s", text)
		c.labels = append(c.labels, labelFix{n, addr, found, format.Freed})
	}
}

// A ventiBlock is a block on Venti, as one kind of block.
type ventiBlock struct {
	score venti.Score
	typ   format.Type
}

// ventiProbes is how many blocks Venti is asked for at once.
const ventiProbes = 64

// venti looks whether Venti has a block, and what is below it. Nothing of it
// is ever repaired.
func (c *checker) venti(ctx context.Context, up uint32, p format.Pointer, t format.Type) {
	k := ventiBlock{p.Score(), t}
	if _, ok := c.onVenti[k]; !c.cfg.Venti || ok || p == format.Hole || c.err != nil {
		return
	}
	c.onVenti[k] = struct{}{}
	missing := func(p format.Pointer, t format.Type, err error) {
		c.find(0, "", "block %#x leads to %v type %d, which Venti does not give: %v", up, p, t, err)
	}
	if t == format.Data {
		if err := c.probe(ctx, p, t); err != nil && !c.stopped(ctx, err) {
			missing(p, t, err)
		}
		return
	}
	data, err := c.m.Get(ctx, p, t, 0)
	if err != nil {
		if !c.stopped(ctx, err) {
			missing(p, t, err)
		}
		return
	}
	type child struct {
		p   format.Pointer
		t   format.Type
		err error
	}
	var leaves []child
	next := func(p format.Pointer, t format.Type) {
		switch {
		case p.IsLocal():
			missing(p, t, errors.New("it is an address, on Venti"))
		case t == format.Data && p != format.Hole:
			k := ventiBlock{p.Score(), t}
			if _, ok := c.onVenti[k]; !ok {
				c.onVenti[k] = struct{}{}
				leaves = append(leaves, child{p: p, t: t})
			}
		default:
			c.venti(ctx, up, p, t)
		}
	}
	if t.Level() > 0 {
		for i := range len(data) / format.PointerSize {
			next(format.PointerAt(data, i), t-1)
		}
	} else {
		for i := range len(data) / format.EntrySize {
			if e := format.EntryAt(data, i); e.Active {
				next(e.Root, e.Type())
			}
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(ventiProbes)
	for i := range leaves {
		g.Go(func() error {
			leaves[i].err = c.probe(gctx, leaves[i].p, leaves[i].t)
			return nil
		})
	}
	g.Wait()
	for _, l := range leaves {
		if l.err != nil && !c.stopped(ctx, l.err) {
			missing(l.p, l.t, l.err)
		}
	}
}

// probe returns an error unless Venti has a block.
func (c *checker) probe(ctx context.Context, p format.Pointer, t format.Type) error {
	ok, err := venti.HasBlock(ctx, c.fs.venti, p.Score(), venti.Type(t))
	if err == nil && !ok {
		err = venti.ErrNotFound
	}
	return err
}
