package fossil

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
)

// Repairs is a set of what Check may do. Each is named for the console command
// that does the like.
type Repairs uint8

const (
	// Bclose gives blocks the labels that they should have: those that nothing
	// leads to become free, those that a tree needs are kept for it.
	Bclose Repairs = 1 << iota
	// Clri takes out names whose files are gone, and makes metadata blocks anew of
	// the entries that are good.
	Clri
	// Clre clears entries.
	Clre
	// Clrp clears pointers.
	Clrp

	AllRepairs = Bclose | Clri | Clre | Clrp
)

// A Finding is something wrong with a file system.
type Finding struct {
	Text   string  // what
	Repair string  // the console command that repairs it, if there is one
	Kind   Repairs // of what repairs it; 0 if nothing does
	Fixed  bool    // it was repaired
}

// CheckConfig holds the options of Check.
type CheckConfig struct {
	Snapshots bool    // look at the directories of snapshots, too
	Venti     bool    // look whether Venti has all blocks that it should
	Data      bool    // read the blocks of files, which else are taken for readable
	Fix       Repairs // what to repair

	Progress func(line string) // told what is being checked; nil for nobody
	// What else Progress is told of.
	Blocks, Dirs, Files bool
}

// A CheckResult is what Check found.
type CheckResult struct {
	Findings []Finding
	Blocks   uint32 // data blocks
	Used     uint32 // in use
	Free     uint32
	Lost     uint32 // in use, though nothing leads to them
	Unseen   int    // directories that could not be looked at, since they are on Venti

	Todo, Done Counts // repairs
}

// Print prints a result as the original's check does: what is wrong as "error:
// ..." and, with commands, as its flchk does, behind a "#" the console command
// that repairs it. What was repaired is "repaired: ...".
func (r *CheckResult) Print(w io.Writer, commands bool) {
	percent := func(n uint32) float64 { return 100 * float64(n) / float64(max(r.Blocks, 1)) }
	fmt.Fprintf(w, "fsys blocks: total=%d used=%d(%.1f%%) free=%d(%.1f%%) lost=%d(%.1f%%)\n",
		r.Blocks, r.Used, percent(r.Used), r.Free, percent(r.Free), r.Lost, percent(r.Lost))
	if r.Unseen > 0 {
		fmt.Fprintf(w, "%d directories are on Venti in part, and were not looked at\n", r.Unseen)
	}
	for _, f := range r.Findings {
		if f.Fixed {
			fmt.Fprintf(w, "repaired: %s\n", f.Text)
			continue
		}
		fmt.Fprintf(w, "error: %s\n", f.Text)
		if commands && f.Repair != "" {
			fmt.Fprintf(w, "# %s\n", f.Repair)
		}
	}
}

// Counts says how many repairs of each kind there are.
type Counts struct{ Bclose, Clri, Clre, Clrp int }

func (n *Counts) add(kind Repairs, k int) {
	switch kind {
	case Bclose:
		n.Bclose += k
	case Clri:
		n.Clri += k
	case Clre:
		n.Clre += k
	case Clrp:
		n.Clrp += k
	}
}

func (n Counts) plus(m Counts) Counts {
	return Counts{n.Bclose + m.Bclose, n.Clri + m.Clri, n.Clre + m.Clre, n.Clrp + m.Clrp}
}

// String returns what the original's check ends with.
func (n Counts) String() string {
	return fmt.Sprintf("%d clri, %d clre, %d clrp, %d bclose", n.Clri, n.Clre, n.Clrp, n.Bclose)
}

// Left returns how many findings are not repaired.
func (r *CheckResult) Left() (n int) {
	for i := range r.Findings {
		if !r.Findings[i].Fixed {
			n++
		}
	}
	return n
}

// listed is how many blocks to which nothing leads are found one by one.
const listed = 1000

// rounds is how often Check repairs and looks again at most. Damage that lies
// below other damage takes one each.
const rounds = 100

// tries is how often a check begins anew that had to give way.
const tries = 3

// Check looks whether blocks, streams and directories agree, as the original's
// check does (spec 13.2), and repairs what cfg.Fix says.
//
// It looks at the file system as it is when Check begins: others may go on
// changing it, and wait for nothing. Blocks that they free are not used again
// until Check is done; if they need them, or change so much that the memory of
// the cache could not hold what it was before, Check begins anew, and after some
// tries fails with buffer.ErrPassed's text. Blocks of trees that were removed
// and are still being closed are in use, and not lost: so are those that a crash
// has left to be closed.
//
// Blocks on Venti are not looked at, unless cfg.Venti, nor without Venti the
// directories that have some. Nothing is ever repaired because Venti could not
// be read.
//
// A repair is an update of its own and done only where nothing has changed since
// it was found necessary. Check looks again after repairs until there is none
// left to do, so that one call leaves what can be repaired clean:
//
//   - A pointer or entry that leads to a block which is another's, is led to
//     twice or cannot be read becomes a hole or a free slot.
//   - A label that cannot be understood is made anew of what leads to its block;
//     one by which a block is closed that a tree needs is opened again. The
//     block was not used for anything else, for it still has the right tag.
//   - A metadata block that is damaged keeps the entries that are good. What has
//     lost its name by that gets another, such as lost.17 for what is in slot 17,
//     and belongs to adm: damage to names costs no file. A directory whose names
//     are all gone is treated so as a whole.
//   - Names that lead to nothing are taken out. What a slot leads to that has no
//     name, and did not lose it now, is given back: it was being made or removed
//     when a crash came.
//   - Blocks to which nothing leads are given back, but only when all pointers
//     could be followed.
//   - What leads to the directories active, archive and snapshot is never
//     cleared: all would be lost. It is left to the console's commands.
//   - In the active tree blocks are copied first that snapshots have, too. In
//     snapshots blocks are changed where they are, if all trees that have them
//     agree.
func (fs *FS) Check(ctx context.Context, cfg CheckConfig) (CheckResult, error) {
	if cfg.Fix != 0 && fs.cfg.ReadOnly {
		return CheckResult{}, ErrReadOnly
	}
	if cfg.Venti && fs.venti == nil {
		return CheckResult{}, fmt.Errorf("check: %w", ErrNoVenti)
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	var all CheckResult
	lost := map[string]bool{}
	for round := 1; ; round++ {
		c, err := fs.checkOnce(ctx, cfg, lost)
		if err != nil {
			return all, fmt.Errorf("check: %w", translate(err))
		}
		fixed := 0
		if cfg.Fix != 0 {
			if fixed, err = c.repair(ctx); err != nil {
				return all, fmt.Errorf("repair: %w", translate(err))
			}
		}
		all = c.result.after(&all)
		if fixed == 0 {
			if all.Done != (Counts{}) {
				err = translate(fs.b.Sync(ctx))
			}
			return all, err
		}
		if round == rounds {
			return all, fmt.Errorf("repair: there is still something to do after %d rounds", rounds)
		}
		cfg.Progress("checking again...")
	}
}

// after returns r, found after the repairs that before tells of.
func (r *CheckResult) after(before *CheckResult) CheckResult {
	all := *r
	all.Findings = nil
	for i := range before.Findings {
		if before.Findings[i].Fixed {
			all.Findings = append(all.Findings, before.Findings[i])
		}
	}
	all.Findings = append(all.Findings, r.Findings...)
	all.Done = r.Done.plus(before.Done)
	return all
}

// checkOnce looks once, at a moment that need not give way.
func (fs *FS) checkOnce(ctx context.Context, cfg CheckConfig, lost map[string]bool) (*checker, error) {
	for try := 1; ; try++ {
		m, err := fs.b.Hold(ctx)
		if err != nil {
			return nil, err
		}
		c := newChecker(fs, cfg, m)
		c.lost = lost
		c.check(ctx)
		m.Release()
		if !errors.Is(c.err, buffer.ErrPassed) || try == tries {
			return c, c.err
		}
	}
}

// A checker looks once at a moment of the file system.
type checker struct {
	fs    *FS
	cfg   CheckConfig
	m     *buffer.Moment
	super format.Super
	n     uint32
	err   error // why the check cannot go on

	top     uint32                // epoch of the active tree's root block
	epochs  []uint32              // with a tree that is to be looked at, in order
	roots   map[uint32]uint32     // the root block of an epoch
	snaps   map[uint32][]snapshot // entries of the snapshots of an epoch
	bad     map[uint32]*guess     // labels that make no sense, and what they should be
	closing bitmap                // blocks of trees that were let go

	epoch   uint32 // of the tree that is looked at
	seen    bitmap // blocks of any tree so far
	inEpoch bitmap // blocks of this epoch, reached from one of this epoch
	unique  bitmap // blocks reached from one of the same epoch that was not copied
	broken  bool   // something cannot be followed, so that blocks below it are not seen

	above   map[uint32]bool         // blocks that lead to what is in the root directory
	onVenti map[ventiBlock]struct{} // looked at
	dirs    dirsSeen
	lost    map[string]bool // directories where files have lost their names, in this check or before a repair

	result CheckResult
	labels []labelFix
	fixes  []fix
}

// A snapshot is an entry that leads to one.
type snapshot struct {
	up   parent
	slot int
	e    format.Entry
}

// A bitmap has a bit for each block.
type bitmap []uint64

func newBitmap(n uint32) bitmap    { return make(bitmap, (n+63)/64) }
func (m bitmap) get(a uint32) bool { return m[a/64]>>(a%64)&1 != 0 }
func (m bitmap) set(a uint32)      { m[a/64] |= 1 << (a % 64) }

func newChecker(fs *FS, cfg CheckConfig, m *buffer.Moment) *checker {
	n := m.Blocks()
	return &checker{
		fs: fs, cfg: cfg, m: m, super: m.Super(), n: n,
		roots: map[uint32]uint32{}, snaps: map[uint32][]snapshot{}, bad: map[uint32]*guess{},
		closing: newBitmap(n), seen: newBitmap(n), inEpoch: newBitmap(n), unique: newBitmap(n),
		above: map[uint32]bool{}, onVenti: map[ventiBlock]struct{}{}, dirs: newDirsSeen(),
		result: CheckResult{Blocks: n},
	}
}

// check does all of it.
func (c *checker) check(ctx context.Context) {
	c.fail(c.scan(ctx))
	c.fail(c.m.Closing(ctx, c.closing.set))
	for _, root := range []uint32{c.super.Active, c.super.Next, c.super.Current} {
		c.guard(ctx, root)
	}
	hint := c.super.Active
	for len(c.epochs) > 0 && c.err == nil {
		last := len(c.epochs) - 1
		c.epoch = c.epochs[last]
		c.epochs = c.epochs[:last]
		hint = c.tree(ctx, hint)
	}
	c.count(ctx)
	c.directories(ctx)
	c.guessed()
	c.fail(ctx.Err())
}

// fail ends the check, if err is an error.
func (c *checker) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// stopped tells whether err is one after which the check cannot go on, rather
// than something that it finds.
func (c *checker) stopped(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, buffer.ErrPassed) {
		c.fail(err)
	}
	return c.err != nil
}

// find notes a finding, and returns its number.
func (c *checker) find(kind Repairs, repair, text string, args ...any) int {
	c.result.Findings = append(c.result.Findings, Finding{Text: fmt.Sprintf(text, args...), Repair: repair, Kind: kind})
	c.result.Todo.add(kind, 1)
	return len(c.result.Findings) - 1
}

// scan looks at all labels, for root blocks and such that make no sense.
func (c *checker) scan(ctx context.Context) error {
	for a := range c.n {
		l, err := c.m.Label(ctx, a)
		if errors.Is(err, format.ErrLabel) {
			c.bad[a] = nil
			continue
		}
		if err != nil {
			return err
		}
		if l.InUse() && l.Tag == format.RootTag && l.Epoch >= c.super.EpochLow {
			if _, ok := c.roots[l.Epoch]; !ok {
				c.roots[l.Epoch] = a
			}
		}
	}
	// After a crash of the original the active tree's root block may be older than
	// its epoch.
	l, err := c.m.Label(ctx, c.super.Active)
	if err != nil {
		return err
	}
	c.top = l.Epoch
	c.roots[c.top] = c.super.Active
	for _, a := range []uint32{c.super.Next, c.super.Current} {
		if a == format.None {
			continue
		}
		if l, err := c.m.Label(ctx, a); err == nil && l.Tag == format.RootTag && l.Epoch < c.top {
			c.roots[l.Epoch] = a
		}
	}
	maps.DeleteFunc(c.roots, func(e, _ uint32) bool { return e > c.top })
	c.epochs = slices.Sorted(maps.Keys(c.roots))
	return nil
}

// count counts blocks, and finds those to which nothing leads.
func (c *checker) count(ctx context.Context) {
	for a := uint32(0); a < c.n && c.err == nil; a++ {
		l, err := c.m.Label(ctx, a)
		switch {
		case errors.Is(err, format.ErrLabel):
			c.result.Used++
		case err != nil:
			c.fail(err)
		case c.seen.get(a):
			c.result.Used++
		case l.Free(c.super.EpochLow):
			c.result.Free++
		case !l.InUse() || l.State&format.Closed != 0 || c.closing.get(a):
			c.result.Used++
		default:
			c.unreachable(a, l)
		}
	}
	if more := int(c.result.Lost) - listed; more > 0 {
		n := c.find(0, "", "%d more unreachable blocks", more)
		c.result.Findings[n].Kind = Bclose // each is counted already
		for i := range c.labels {
			if c.labels[i].finding < 0 {
				c.labels[i].finding = n
			}
		}
	}
}

// unreachable notes a block to which nothing leads.
func (c *checker) unreachable(a uint32, l format.Label) {
	n := -1
	if c.result.Lost++; c.result.Lost <= listed {
		n = c.find(Bclose, fmt.Sprintf("bclose %#x 0", a), "unreachable block: addr %#x %v", a, l)
	} else {
		c.result.Todo.Bclose++
	}
	now := l
	now.State |= format.Closed
	now.EpochClose = l.Epoch
	c.labels = append(c.labels, labelFix{n, a, l, now})
}
