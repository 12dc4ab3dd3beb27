package fossil

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
)

// owners says what the files of a scene lie on.
type owners struct {
	slots  map[[2]int][]string        // who have a slot of a block
	blocks map[string]map[uint32]bool // all blocks of a file, but for those of its directories
	meta   []uint32                   // blocks of metadata
	used   []uint32                   // blocks
}

// owners finds them.
func (s *scene) owners() *owners {
	s.t.Helper()
	o := &owners{slots: map[[2]int][]string{}, blocks: map[string]map[uint32]bool{}}
	fs := s.open()
	defer fs.Close(context.Background())
	meta := map[uint32]bool{}
	err := fs.b.View(context.Background(), func(tx *buffer.Tx) error {
		clear(o.blocks)
		clear(o.slots)
		for path := range s.files {
			f, err := fs.Walk(context.Background(), "/")
			for _, name := range strings.Split(path[1:], "/") {
				if err == nil {
					f, err = f.walk(tx, name)
				}
			}
			if err != nil {
				return err
			}
			all := map[uint32]bool{}
			o.blocks[path] = all
			var tree func(p format.Pointer, t format.Type, tag uint32, isMeta bool) error
			tree = func(p format.Pointer, t format.Type, tag uint32, isMeta bool) error {
				addr, ok := p.Addr()
				if !ok {
					return nil
				}
				all[addr] = true
				meta[addr] = meta[addr] || isMeta || t != format.Data
				data, err := tx.Get(p, t, tag)
				for i := 0; t.Level() > 0 && err == nil && i < len(data)/format.PointerSize; i++ {
					err = tree(format.PointerAt(data, i), t-1, tag, isMeta)
				}
				return err
			}
			streams := []struct {
				of    interface{ Slot() (int64, uint32) }
				entry func(*buffer.Tx) (format.Entry, error)
				meta  bool
			}{{f.data, f.data.Entry, false}}
			if f.IsDir() {
				streams = append(streams, struct {
					of    interface{ Slot() (int64, uint32) }
					entry func(*buffer.Tx) (format.Entry, error)
					meta  bool
				}{f.meta, f.meta.Entry, true})
			}
			for _, st := range streams {
				e, err := st.entry(tx)
				if err == nil {
					err = tree(e.Root, e.Type(), e.Tag, st.meta)
				}
				if err != nil {
					return err
				}
				slot, _ := st.of.Slot()
				up, err := f.parent.data.Entry(tx)
				if err != nil {
					return err
				}
				per := int64(up.DSize / format.EntrySize)
				at, err := f.parent.data.Pointer(tx, slot/per)
				if err != nil {
					return err
				}
				if addr, ok := at.Addr(); ok {
					k := [2]int{int(addr), int(slot % per)}
					o.slots[k] = append(o.slots[k], path)
				}
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for a := range s.h.Blocks() {
		l, err := format.UnpackLabel(s.read(format.LabelSize, s.labelAt(a)))
		if err != nil {
			s.t.Fatal(err)
		}
		if l.InUse() && l.Tag != format.RootTag {
			o.used = append(o.used, a)
			if l.Type != format.Data || meta[a] {
				o.meta = append(o.meta, a)
			}
		}
	}
	return o
}

var (
	pathIn    = regexp.MustCompile(`/(active|archive|snapshot)[^ \[]*`)
	commandIn = regexp.MustCompile(`^(clre|clrp) (0x[0-9a-f]+) ([0-9]+)$`)
)

// reported tells whether a finding says that a file may have changed.
func (o *owners) reported(path string, list []Finding) bool {
	under := func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") }
	for _, f := range list {
		if f.Kind == Clri {
			for _, p := range pathIn.FindAllString(f.Text, -1) {
				if under(strings.TrimSuffix(p, ":")) {
					return true
				}
			}
		}
		m := commandIn.FindStringSubmatch(f.Repair)
		if m == nil {
			continue
		}
		addr, _ := strconv.ParseUint(m[2], 0, 32)
		slot, _ := strconv.Atoi(m[3])
		if m[1] == "clre" {
			if slices.ContainsFunc(o.slots[[2]int{int(addr), slot}], under) {
				return true
			}
			continue
		}
		for p := path; p != ""; p = p[:strings.LastIndex(p, "/")] {
			if o.blocks[p][uint32(addr)] {
				return true
			}
		}
	}
	return false
}

// harm damages something, and says what.
func (s *scene) harm(rng *rand.Rand, o *owners) string {
	pick := func(list []uint32) uint32 { return list[rng.IntN(len(list))] }
	a := pick(o.meta)
	switch k := rng.IntN(10); {
	case k == 0: // a bit of a label
		a = pick(o.used)
		off, bit := s.labelAt(a)+rng.Int64N(format.LabelSize), rng.IntN(8)
		b := s.read(1, off)
		b[0] ^= 1 << bit
		s.write(b, off)
		return fmt.Sprintf("bit of label %#x", a)
	case k == 1: // two labels
		b := pick(o.used)
		x, y := s.read(format.LabelSize, s.labelAt(a)), s.read(format.LabelSize, s.labelAt(b))
		s.write(x, s.labelAt(b))
		s.write(y, s.labelAt(a))
		return fmt.Sprintf("labels %#x and %#x", a, b)
	case k == 2:
		s.change(a, func(b []byte) { clear(b) })
		return fmt.Sprintf("zeros %#x", a)
	case k == 3: // a pointer to somewhere
		s.change(a, func(b []byte) {
			i := rng.IntN(len(b)/20) * 20
			copy(b[i:], make([]byte, 16))
			binary.BigEndian.PutUint32(b[i+16:], rng.Uint32N(s.h.Blocks()+10))
		})
		return fmt.Sprintf("pointer in %#x", a)
	case k == 4: // part of a block over another's
		from := pick(o.meta)
		data := s.read(s.h.BlockSize, s.h.Offset(s.h.Data+from))
		n := 40 * (1 + rng.IntN(3))
		i, j := 40*rng.IntN(10), 40*rng.IntN(10)
		s.change(a, func(b []byte) { copy(b[j:j+n], data[i:i+n]) })
		return fmt.Sprintf("part of %#x in %#x", from, a)
	case k == 5: // a whole block in the place of another
		from := pick(o.meta)
		data := s.read(s.h.BlockSize, s.h.Offset(s.h.Data+from))
		s.change(a, func(b []byte) { copy(b, data) })
		return fmt.Sprintf("%#x in the place of %#x", from, a)
	case k == 6: // some bytes
		s.change(a, func(b []byte) {
			i := rng.IntN(len(b) - 16)
			for j := range 16 {
				b[i+j] = byte(rng.Uint32())
			}
		})
		return fmt.Sprintf("bytes in %#x", a)
	default: // a bit, where something is
		s.change(a, func(b []byte) {
			for range 100 {
				if i := rng.IntN(len(b)); b[i] != 0 {
					b[i] ^= 1 << rng.IntN(8)
					return
				}
			}
		})
		return fmt.Sprintf("bit in %#x", a)
	}
}

// TestCorrupt damages partitions at random. Whatever that is, opening, checking
// and repairing them end, the repair leaves nothing that it could repair, and no
// file changes that could be read before and that it does not speak of.
func TestCorrupt(t *testing.T) {
	for _, bs := range []int{1024, 8192} {
		s := newScene(t, bs)
		o := s.owners()
		t.Run(strconv.Itoa(bs), func(t *testing.T) {
			t.Parallel()
			opened, left := 0, 0
			for seed := range uint64(trials(25)) {
				ok, n := s.copy(t).corrupt(o, seed)
				left += n
				if ok {
					opened++
				}
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
			if opened == 0 {
				t.Error("none could be opened")
			}
			t.Logf("%d could be opened; %d findings could not be repaired", opened, left)
		})
	}
}

// corrupt tries one.
func (s *scene) corrupt(o *owners, seed uint64) (opened bool, left int) {
	t := s.t
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 11))
	var what []string
	for range 1 + rng.IntN(4) {
		what = append(what, s.harm(rng, o))
	}
	fs, err := Open(s.d, Config{ReadOnly: true})
	if err != nil {
		return false, 0
	}
	before := map[string]string{}
	listTree(fs.Root(), "", before)
	if _, err := fs.Check(ctx, CheckConfig{Snapshots: true}); err != nil {
		t.Errorf("%q: check: %v", what, err)
	}
	if err := fs.Close(ctx); err != nil {
		t.Error(err)
	}
	if fs, err = Open(s.d, Config{NoAtime: true}); err != nil {
		t.Errorf("%q: can be opened for reading only: %v", what, err)
		return true, 0
	}
	r, err := fs.Check(ctx, CheckConfig{Snapshots: true, Fix: AllRepairs})
	if err != nil {
		t.Errorf("%q: repair: %v", what, err)
	}
	// What the root directory depends on is left alone, and then blocks that are
	// lost are, too.
	guarded := slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.Contains(f.Text, "left alone") })
	for _, f := range r.Findings {
		// Or a name in a snapshot that another tree has, too, where it is good.
		if left++; f.Fixed {
			left--
		} else if f.Kind != 0 && !guarded && !strings.Contains(f.Text, "/snapshot/") {
			t.Errorf("%q: left: %s (%s)", what, f.Text, f.Repair)
		}
	}
	again, err := fs.Check(ctx, CheckConfig{Snapshots: true})
	if err != nil {
		t.Error(err)
	}
	for _, f := range again.Findings {
		if !slices.ContainsFunc(r.Findings, func(g Finding) bool { return !g.Fixed && strings.HasPrefix(g.Text, f.Text) }) {
			t.Errorf("%q: a second check: %s (%s)", what, f.Text, f.Repair)
		}
	}
	if used, _ := fs.b.Used(); used != again.Used+again.Lost {
		t.Errorf("%q: %d blocks used, by count %d", what, again.Used+again.Lost, used)
	}
	if err := fs.Close(ctx); err != nil && !guarded {
		t.Errorf("%q: %v", what, err)
	}
	if fs, err = Open(s.d, Config{ReadOnly: true}); err != nil {
		t.Errorf("%q: after the repair: %v", what, err)
		return true, left
	}
	after := map[string]string{}
	listTree(fs.Root(), "", after)
	fs.Close(ctx)
	for p, was := range s.files {
		if before[p] == was && after[p] != was && !o.reported(p, r.Findings) {
			t.Errorf("%q: %s: %q\nwas %q", what, p, after[p], was)
		}
	}
	if t.Failed() {
		for _, f := range r.Findings {
			if strings.Contains(f.Text, "unreachable") || strings.Contains(f.Text, "not closed") {
				continue
			}
			t.Logf("%v %s (%s)", f.Fixed, f.Text, f.Repair)
		}
	}
	return true, left
}

// FuzzCheck changes bytes of the super block, of labels and of blocks of
// metadata, and has what opens checked and repaired: both end, and nothing
// panics. Of each four bytes of input the first three say which, and the last
// what it becomes.
func FuzzCheck(f *testing.F) {
	s := newScene(f, 1024)
	o := s.owners()
	var at []int64
	add := func(off, n int64) {
		for i := range n {
			at = append(at, off+i)
		}
	}
	add(s.h.Offset(s.h.Super), 60)
	for _, a := range o.used {
		add(s.labelAt(a), format.LabelSize)
	}
	for _, a := range o.meta {
		add(s.h.Offset(s.h.Data+a), int64(s.h.BlockSize))
	}
	f.Add([]byte{0, 0, 9, 200})
	f.Add([]byte{0, 1, 0, 1, 0, 2, 0, 9})
	f.Add([]byte{1, 0, 0, 77, 1, 4, 4, 0xff})
	f.Fuzz(func(t *testing.T, changes []byte) {
		c := s.copy(t)
		for ; len(changes) >= 4; changes = changes[4:] {
			i := int(changes[0])<<16 | int(changes[1])<<8 | int(changes[2])
			c.write(changes[3:4], at[i%len(at)])
		}
		fs, err := Open(c.d, Config{NoAtime: true})
		if err != nil {
			return
		}
		if _, err := fs.Check(t.Context(), CheckConfig{Snapshots: true, Data: true, Fix: AllRepairs}); err != nil {
			t.Error(err)
		}
		// The root directory's own stream is left alone, and where that is damaged
		// its times cannot be written.
		fs.Close(t.Context())
	})
}
