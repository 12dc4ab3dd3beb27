package fossil

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/fossil/internal/stream"
	"strata/vac/meta"
)

// A checkDir is a directory that is looked at.
type checkDir struct {
	up    *checkDir
	name  string
	file  *File        // by which it is changed
	data  format.Entry // of its slots
	names format.Entry // of its metadata blocks
	snap  bool

	used    map[int64]bool  // slots that have names
	known   map[string]bool // names
	unsure  bool            // some names may be missing here, so that slots without one are left alone
	unseen  bool            // some of it is on Venti
	subdirs []checkDir

	leaf  int64 // the leaf of slots that was read last
	slots []byte
	at    format.Pointer
}

// dirsSeen is what is remembered of directories.
type dirsSeen struct {
	pairs  map[[2]format.Entry]struct{} // looked at
	visits map[uint32]int               // leaves, and by how many directories of snapshots they were met
	active map[uint32]bool              // leaves that the active tree has
	votes  map[vote]*voted
}

func newDirsSeen() dirsSeen {
	return dirsSeen{map[[2]format.Entry]struct{}{}, map[uint32]int{}, map[uint32]bool{}, map[vote]*voted{}}
}

// A vote is for a repair in a leaf that snapshots have.
type vote struct {
	leaf uint32
	what string
}

// A voted is what is voted on. All directories that have the leaf must agree.
type voted struct {
	n       int
	finding int // or -1: it is one only if the active tree does not have the leaf
	text    string
	repair  string
	do      func(tx *buffer.Tx) error
}

func (d *checkDir) path() string {
	if d.up == nil {
		return ""
	}
	return d.up.path() + "/" + d.name
}

// directories looks at all directories.
func (c *checker) directories(ctx context.Context) {
	if c.err != nil {
		return
	}
	root := checkDir{file: c.fs.root}
	data, err := c.get(ctx, format.Local(c.super.Active), format.Dir, format.RootTag)
	if err == nil {
		top := format.EntryAt(data, 0)
		if data, _, err = c.leafAt(ctx, &top, 0); err == nil {
			root.data, root.names = format.EntryAt(data, 0), format.EntryAt(data, 1)
		}
	}
	for i, e := range []*format.Entry{&root.data, &root.names} {
		if err == nil {
			err = stream.Check(e, e.Gen, i == 0, &c.super, c.fs.b.BlockSize())
		}
	}
	if err != nil {
		switch {
		case c.stopped(ctx, err):
		case errors.Is(err, buffer.ErrVenti):
			c.result.Unseen++
		default:
			c.find(0, "", "could not load entries for /: %v", err)
		}
		return
	}
	c.directory(ctx, &root)
	// What all agree on who have a leaf, and the active tree has not, is done
	// where it is.
	list := slices.SortedFunc(maps.Keys(c.dirs.votes), func(a, b vote) int {
		return cmp.Or(cmp.Compare(a.leaf, b.leaf), cmp.Compare(a.what, b.what))
	})
	for _, v := range list {
		is := c.dirs.votes[v]
		if is.finding < 0 && !c.dirs.active[v.leaf] {
			is.finding = c.find(Clre, is.repair, "%s", is.text)
		}
		if is.n == c.dirs.visits[v.leaf] && !c.dirs.active[v.leaf] {
			c.fixes = append(c.fixes, fix{[]int{is.finding}, is.do})
		}
	}
}

// directory looks at the files in a directory, and below it.
func (c *checker) directory(ctx context.Context, d *checkDir) {
	if c.err != nil {
		return
	}
	empty := d.data.Root == format.Hole && d.names.Root == format.Hole
	if !c.cfg.Venti && !d.data.Local && !d.names.Local && !empty {
		return
	}
	if d.data.Root != format.Hole {
		pair := [2]format.Entry{d.data, d.names}
		if _, ok := c.dirs.pairs[pair]; ok {
			return
		}
		c.dirs.pairs[pair] = struct{}{}
	}
	if c.cfg.Dirs {
		c.cfg.Progress("dir " + d.path() + "/")
	}
	d.used, d.known, d.leaf = map[int64]bool{}, map[string]bool{}, -1
	var blocks int64
	c.leaves(ctx, &d.names, func(n int64, p format.Pointer) {
		blocks++
		c.metaBlock(ctx, d, n, p)
	}, d.lacks)
	if missing := d.names.Leaves(d.names.Size) - blocks; missing > 0 && !d.snap && !d.unsure && !d.unseen {
		c.missing(ctx, d, missing)
	}
	if !d.unsure && !d.unseen {
		c.orphans(ctx, d)
	}
	if d.unseen {
		c.result.Unseen++
	}
	d.used, d.known, d.slots = nil, nil, nil
	for i := range d.subdirs {
		c.directory(ctx, &d.subdirs[i])
	}
	d.subdirs = nil
}

// lacks notes that a part of the directory cannot be read: the walk of blocks
// has found why, or it is on Venti.
func (d *checkDir) lacks(err error) {
	d.unsure = true
	d.unseen = d.unseen || errors.Is(err, buffer.ErrVenti)
}

// leaves calls f for each leaf of a stream that is not a hole, and lost for
// what cannot be read.
func (c *checker) leaves(ctx context.Context, e *format.Entry, f func(n int64, p format.Pointer), lost func(error)) {
	np, end := e.Pointers(), e.Leaves(e.Size)
	var walk func(p format.Pointer, level int, base int64)
	walk = func(p format.Pointer, level int, base int64) {
		if p == format.Hole || base >= end || c.err != nil {
			return
		}
		if level == 0 {
			f(base, p)
			return
		}
		data, err := c.get(ctx, p, e.LeafType()+format.Type(level), e.Tag)
		if err != nil {
			if !c.stopped(ctx, err) {
				lost(err)
			}
			return
		}
		span := int64(1)
		for range level - 1 {
			span *= np
		}
		for i := range np {
			if base+i*span >= end || (i+1)*format.PointerSize > int64(len(data)) {
				break
			}
			walk(format.PointerAt(data, int(i)), level-1, base+i*span)
		}
	}
	walk(e.Root, e.Depth, 0)
}

// leafAt returns the n-th leaf of a stream, and what leads to it.
func (c *checker) leafAt(ctx context.Context, e *format.Entry, n int64) ([]byte, format.Pointer, error) {
	p, np := e.Root, e.Pointers()
	span := int64(1)
	for range e.Depth {
		if span *= np; span > n {
			break
		}
	}
	if span <= n {
		p = format.Hole
	}
	for level := e.Depth; level > 0 && p != format.Hole; level-- {
		data, err := c.get(ctx, p, e.LeafType()+format.Type(level), e.Tag)
		if err != nil {
			return nil, p, err
		}
		k := n
		for range level - 1 {
			k /= np
		}
		p = format.PointerAt(data, int(k%np))
	}
	data, err := c.get(ctx, p, e.LeafType(), e.Tag)
	return data, p, err
}

// change notes a repair in a leaf of the directory. In the active tree, active
// does it; in a snapshot, where the leaf is, inPlace.
func (c *checker) change(d *checkDir, leaf format.Pointer, what string, finding int, active func(tx *buffer.Tx) error, inPlace func(tx *buffer.Tx, addr uint32) error) {
	if !d.snap {
		c.fixes = append(c.fixes, fix{[]int{finding}, active})
		return
	}
	addr, ok := leaf.Addr()
	if !ok {
		return // what is on Venti stays as it is
	}
	v := vote{addr, what}
	if is := c.dirs.votes[v]; is != nil {
		is.n++
		return
	}
	c.dirs.votes[v] = &voted{n: 1, finding: finding, do: func(tx *buffer.Tx) error { return inPlace(tx, addr) }}
}

// met notes that a directory has a leaf.
func (c *checker) met(d *checkDir, p format.Pointer) {
	addr, ok := p.Addr()
	switch {
	case !ok || !c.cfg.Snapshots:
	case d.snap:
		c.dirs.visits[addr]++
	default:
		c.dirs.active[addr] = true
	}
}

// metaBlock looks at a metadata block of a directory.
func (c *checker) metaBlock(ctx context.Context, d *checkDir, n int64, p format.Pointer) {
	data, err := c.get(ctx, p, format.Data, d.names.Tag)
	if err != nil {
		if !c.stopped(ctx, err) {
			d.lacks(err)
		}
		return
	}
	c.met(d, p)
	data = data[:d.names.DSize]
	good, wrong := entriesOf(data)
	if len(wrong) > 0 {
		c.lost[d.path()] = true
		d.unsure = true // which slots have names is for the next round to say
		old := data
		finding := c.find(Clri, "", "bad meta block: %s[%d]: %s; of its names %d are left", d.path(), n, strings.Join(wrong, "; "), len(good))
		c.change(d, p, "mend", finding,
			func(tx *buffer.Tx) error { return d.file.mendMeta(tx, n, old, good) },
			func(tx *buffer.Tx, addr uint32) error { return mendInPlace(tx, addr, old, good) })
	}
	for i := range good {
		c.name(ctx, d, n, p, &good[i])
	}
}

// entriesOf returns the entries of a metadata block that are good, and what is
// wrong with it.
func entriesOf(data []byte) (good []meta.DirEntry, wrong []string) {
	b, err := meta.Open(data)
	if err != nil {
		return meta.Salvage(data), []string{err.Error()}
	}
	last := ""
	for i := range b.Len() {
		e, err := b.Entry(i)
		switch {
		case err != nil:
			wrong = append(wrong, fmt.Sprintf("could not unpack dir entry %d: %v", i, err))
			continue
		case i == 0 || e.Name > last || b.Magic() != meta.ShorterFirst:
		case e.Name == last:
			wrong = append(wrong, fmt.Sprintf("dir entry %d = %s is there twice", i, e.Name))
			continue
		default:
			wrong = append(wrong, fmt.Sprintf("dir entry out of order: %d = %s last = %s", i, e.Name, last))
		}
		last = e.Name
		good = append(good, e)
	}
	return good, wrong
}

// name looks at a name in a directory, and what it leads to.
func (c *checker) name(ctx context.Context, d *checkDir, n int64, leaf format.Pointer, e *meta.DirEntry) {
	if c.err != nil {
		return
	}
	path := d.path() + "/" + e.Name
	if c.cfg.Files && !e.Mode.IsDir() {
		c.cfg.Progress("file " + path)
	}
	clear := func(dead bool, text string, args ...any) {
		finding := c.find(Clri, "clri "+path, text, args...)
		switch {
		case d.up == nil:
			c.leave(finding)
			return
		case d.snap:
			c.result.Findings[finding].Repair = "" // the console leaves snapshots alone
		}
		c.change(d, leaf, fmt.Sprintf("name %s %d.%d", e.Name, e.Entry, e.Gen), finding,
			func(tx *buffer.Tx) error { return d.file.dropName(tx, n, e, dead) },
			func(tx *buffer.Tx, addr uint32) error { return dropNameInPlace(tx, addr, e) })
	}
	file := d.file.child(e, n)
	sub := checkDir{up: d, name: e.Name, file: file, snap: d.snap || e.Mode&meta.ModeSnapshot != 0}
	slots := []namedSlot{{int64(e.Entry), e.Gen, &sub.data}, {int64(e.MEntry), e.MGen, &sub.names}}
	if !e.Mode.IsDir() {
		slots = slots[:1]
	}
	for k, s := range slots {
		if d.used[s.slot] {
			clear(false, "multiple references to source: %s -> %d", path, s.slot)
			return
		}
		d.used[s.slot] = true
		var err error
		if *s.to, _, err = c.slot(ctx, d, s.slot); err != nil {
			if !c.stopped(ctx, err) {
				d.lacks(err)
			}
			return
		}
		err = stream.Check(s.to, s.gen, k == 0 && e.Mode.IsDir(), &c.super, c.fs.b.BlockSize())
		if err != nil {
			// Of a directory that has lost its names, the files are still there.
			c.lost[d.path()] = c.lost[d.path()] || k == 1 && err != stream.ErrDeleted
			if err == stream.ErrDeleted {
				c.deadToo(ctx, d, slots[k+1:])
			}
			clear(err == stream.ErrDeleted, "could not open source: %s -> %d: %v", path, s.slot, translate(err))
			return
		}
	}
	if d.known[e.Name] {
		clear(false, "two files have the name %s", path)
		return
	}
	d.known[e.Name] = true
	if !e.Mode.IsDir() || e.Mode&meta.ModeSnapshot != 0 && !c.cfg.Snapshots {
		return
	}
	for up := d; up != nil; up = up.up {
		if up.data.Root == sub.data.Root && sub.data.Root != format.Hole && !sub.snap {
			clear(false, "%s is a directory above itself", path)
			return
		}
	}
	d.subdirs = append(d.subdirs, sub)
}

// A namedSlot is a slot that a name leads to.
type namedSlot struct {
	slot int64
	gen  uint32
	to   *format.Entry // what is there
}

// deadToo notes that slots have a name, though that of a dead snapshot: of what
// was all on Venti when that was taken, the slot does not tell.
func (c *checker) deadToo(ctx context.Context, d *checkDir, slots []namedSlot) {
	for _, s := range slots {
		e, _, err := c.slot(ctx, d, s.slot)
		if err != nil {
			if !c.stopped(ctx, err) {
				d.lacks(err)
			}
			return
		}
		if e.Gen == s.gen {
			d.used[s.slot] = true
		}
	}
}

// slot returns what is in a slot of a directory, and what leads to its leaf.
func (c *checker) slot(ctx context.Context, d *checkDir, slot int64) (format.Entry, format.Pointer, error) {
	per := int64(d.data.DSize / format.EntrySize)
	if slot/per != d.leaf {
		data, p, err := c.leafAt(ctx, &d.data, slot/per)
		if err != nil {
			return format.Entry{}, p, err
		}
		d.leaf, d.slots, d.at = slot/per, data, p
	}
	return format.EntryAt(d.slots, int(slot%per)), d.at, nil
}

// orphans finds slots of a directory that are in use and have no name.
func (c *checker) orphans(ctx context.Context, d *checkDir) {
	per := int64(d.data.DSize / format.EntrySize)
	var nameless []lostFile
	c.leaves(ctx, &d.data, func(n int64, p format.Pointer) {
		data, err := c.get(ctx, p, format.Dir, d.data.Tag)
		if err != nil {
			c.stopped(ctx, err)
			return
		}
		c.met(d, p)
		for i := range per {
			slot, e := n*per+i, format.EntryAt(data, int(i))
			dead := e.Snap != 0 && e.Snap < c.super.EpochLow
			if !e.Active || dead || d.used[slot] {
				continue
			}
			good := stream.Check(&e, e.Gen, e.Dir, &c.super, c.fs.b.BlockSize()) == nil
			if !d.snap && c.lost[d.path()] && good {
				nameless = append(nameless, lostFile{slot: slot, e: e})
				continue
			}
			text, repair := fmt.Sprintf("non referenced entry in source %s[%d]", d.path(), slot), ""
			if p.IsLocal() {
				repair = fmt.Sprintf("clre %v %d", p, i)
			}
			if d.snap {
				c.orphanInSnapshot(p, int(i), e, text, repair)
				continue
			}
			finding := c.find(Clre, repair, "%s", text)
			if d.up == nil {
				c.leave(finding)
				continue
			}
			c.fixes = append(c.fixes, fix{[]int{finding}, func(tx *buffer.Tx) error { return d.file.data.Clear(tx, slot, e) }})
		}
	}, func(error) {})
	c.nameless(ctx, d, nameless)
}

// orphanInSnapshot notes a slot without a name in a leaf of a snapshot. If the
// active tree has the leaf, too, it has a name there: nothing is wasted, and the
// slot goes with the snapshot.
func (c *checker) orphanInSnapshot(leaf format.Pointer, i int, e format.Entry, text, repair string) {
	addr, ok := leaf.Addr()
	if !ok {
		return
	}
	v := vote{addr, fmt.Sprintf("slot %d", i)}
	if is := c.dirs.votes[v]; is != nil {
		is.n++
		return
	}
	c.dirs.votes[v] = &voted{n: 1, finding: -1, text: text, repair: repair, do: func(tx *buffer.Tx) error { return clearEntry(tx, addr, i, e) }}
}

// A lostFile is what a slot leads to that has lost its name. With dir, it is a
// directory; if names is not negative, that is the slot of its names, and has m.
type lostFile struct {
	slot  int64
	e     format.Entry
	names int64
	m     format.Entry
}

// near is how many slots a directory's names may be away from the rest of it:
// they are made at once.
const near = 8

// namedAtOnce is how many files one update gives names.
const namedAtOnce = 16

// nameless finds files that have lost their names, and has them named anew, and
// so are snapshots that have not lost those of their files.
func (c *checker) nameless(ctx context.Context, d *checkDir, list []lostFile) {
	taken := map[int64]bool{}
	for i := range list {
		f := &list[i]
		f.names = -1
		if !f.e.Dir {
			continue
		}
		for _, o := range list[max(i-near, 0):min(i+near, len(list))] {
			if !o.e.Dir && o.e.Snap == f.e.Snap && !taken[o.slot] && (f.names < 0 || o.slot == f.slot+1) && c.belong(ctx, &f.e, &o.e) {
				f.names, f.m = o.slot, o.e
			}
		}
		if f.names >= 0 {
			taken[f.names] = true
		}
	}
	list = slices.DeleteFunc(list, func(f lostFile) bool {
		// Half a snapshot is nothing.
		half := f.e.Snap != 0 && f.names < 0
		if half && !taken[f.slot] {
			finding := c.find(Clre, "", "non referenced entry in source %s[%d]: of a snapshot", d.path(), f.slot)
			c.fixes = append(c.fixes, fix{[]int{finding}, func(tx *buffer.Tx) error { return d.file.data.Clear(tx, f.slot, f.e) }})
		}
		return half || taken[f.slot]
	})
	for part := range slices.Chunk(list, namedAtOnce) {
		var findings []int
		for _, f := range part {
			findings = append(findings, c.find(Clri, "", "non referenced entry in source %s[%d]: it has lost its name", d.path(), f.slot))
			if f.e.Dir && f.names < 0 {
				c.lost[d.path()+"/"+lostName(f.slot)] = true
			}
		}
		c.fixes = append(c.fixes, fix{findings, func(tx *buffer.Tx) error { return d.file.nameLost(tx, part) }})
	}
}

// belong tells whether the names of which names is the entry are those of the
// directory that has dir.
func (c *checker) belong(ctx context.Context, dir, names *format.Entry) bool {
	for _, e := range []*format.Entry{dir, names} {
		if stream.Check(e, e.Gen, e.Dir, &c.super, c.fs.b.BlockSize()) != nil {
			return false
		}
	}
	if names.Root == format.Hole {
		return dir.Root == format.Hole
	}
	data, _, err := c.leafAt(ctx, names, 0)
	if err != nil {
		return false
	}
	good, _ := entriesOf(data[:names.DSize])
	if _, err := meta.Open(data[:names.DSize]); err != nil {
		return false
	}
	for i := range good {
		per := int64(dir.DSize / format.EntrySize)
		slots, _, err := c.leafAt(ctx, dir, int64(good[i].Entry)/per)
		if err != nil {
			return false
		}
		e := format.EntryAt(slots, int(int64(good[i].Entry)%per))
		if stream.Check(&e, good[i].Gen, good[i].Mode.IsDir(), &c.super, c.fs.b.BlockSize()) != nil {
			return false
		}
	}
	return true
}

// missing finds that a directory lacks metadata blocks: there are holes.
func (c *checker) missing(ctx context.Context, d *checkDir, n int64) {
	c.lost[d.path()] = true
	finding := c.find(Clri, "", "missing meta blocks: %s: %d", d.path(), n)
	c.change(d, d.names.Root, "fill", finding, func(tx *buffer.Tx) error { return d.file.fillMeta(tx) }, nil)
}
