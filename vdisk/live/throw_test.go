package live_test

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"strata/vdisk/live"
	"strata/vdisk/nbd"
)

// thrown lists the disks to be thrown away that the file system has.
func (m *machine) thrown(dir string) (list []string) {
	m.t.Helper()
	d, err := m.fs.Walk(m.t.Context(), dir)
	m.must(err)
	for info, err := range d.List(m.t.Context()) {
		m.must(err)
		if strings.HasPrefix(info.Name, ".throw.") {
			list = append(list, info.Name)
		}
	}
	return list
}

func TestThrowAway(t *testing.T) {
	m := newMachine(t, 32<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "web/01", 4<<20))
	d := m.writer("web/01")
	old := make([]byte, 4<<20)
	copy(old, mbr([2]uint32{8, 1000}))
	copy(old[4096:], random(1, 3<<20))
	_, err := d.WriteAt(ctx, old, 0)
	m.must(err)
	s, err := m.cat.Snapshot(ctx, "web/01", "first")
	m.must(err)
	now := bytes.Clone(old)
	copy(now[1<<20:], random(2, 1<<20))
	_, err = d.WriteAt(ctx, now[1<<20:2<<20], 1<<20)
	m.must(err)
	read := func(d *live.Disk) []byte {
		t.Helper()
		b := make([]byte, d.Size())
		_, err := d.ReadAt(ctx, b, 0)
		m.must(err)
		return b
	}
	var list []*live.Disk
	for ref, want := range map[string][]byte{
		"web/01@first": old, "web/01@2026/1127": old, "vdisk:" + s.Score.String(): old, s.Score.String(): old, "web/01": now,
	} {
		x, err := m.cat.ThrowAway(ctx, ref)
		m.must(err)
		list = append(list, x)
		if !bytes.Equal(read(x), want) {
			t.Errorf("the throw-away of %s has other contents", ref)
		}
	}
	for i, x := range list {
		// Also the table, as an installer does.
		b := random(uint64(10+i), 1<<20)
		_, err := x.WriteAt(ctx, b, 0)
		m.must(err)
		m.must(x.Trim(ctx, 2<<20, 1<<20))
		m.must(x.Flush(ctx))
	}
	for i, x := range list {
		if got := read(x); !bytes.Equal(got[:1<<20], random(uint64(10+i), 1<<20)) || !bytes.Equal(got[2<<20:3<<20], make([]byte, 1<<20)) {
			t.Errorf("throw-away %d does not have what was written to it", i)
		}
	}
	if got := m.contents("web/01"); !bytes.Equal(got, now) {
		t.Error("what was thrown away is in the image")
	}
	names, err := m.cat.List(ctx)
	m.must(err)
	if len(names) != 1 || len(m.thrown("/active/vdisk")) != len(list) {
		t.Errorf("images %q, thrown away %q", names, m.thrown("/active/vdisk"))
	}

	// No archive has anything of them.
	before := m.store.Len()
	m.nightly()
	stored := m.store.Len() - before
	m.must(list[0].Close(ctx))
	if err := list[0].Close(ctx); err == nil {
		t.Error("closed twice")
	}
	if got := len(m.thrown("/active/vdisk")); got != len(list)-1 {
		t.Errorf("%d are left of %d when one is closed", got, len(list))
	}
	for _, name := range m.thrown("/archive/2026/1127/vdisk") {
		f, err := m.fs.Walk(ctx, "/archive/2026/1127/vdisk/"+name)
		m.must(err)
		for info, err := range f.List(ctx) {
			t.Errorf("the archive has %s/%s, %v", name, info.Name, err)
		}
	}
	if most := 64; stored > most {
		t.Errorf("%d blocks were archived, at most %d are the image's", stored, most)
	}

	// What a crash leaves is removed, whoever had it open.
	left := m.cat
	m.clock.add(10 * 60e9) // after which the catalogue may be another's
	m.open()
	if got := m.thrown("/active/vdisk"); len(got) != 0 {
		t.Errorf("%q are left", got)
	}
	for _, x := range list[1:] {
		x.Close(ctx)
	}
	m.must(d.Close(ctx))
	m.must(left.Close(ctx))
	for _, ref := range []string{"none", "web/01@none", "web/01@", "../x", "vdisk:0000000000000000000000000000000000000000"} {
		if x, err := m.cat.ThrowAway(ctx, ref); err == nil {
			t.Errorf("throw-away of %q", ref)
			x.Close(ctx)
		}
	}
	if got := m.thrown("/active/vdisk"); len(got) != 0 {
		t.Errorf("%q are left of what failed", got)
	}
}

func TestThrowAwayExports(t *testing.T) {
	m := newMachine(t, 32<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "web/01", 1<<20))
	_, err := m.cat.Snapshot(ctx, "web/01", "first")
	m.must(err)
	x := live.Exports(m.cat, m.tree().Exports(), false)
	names := make(map[string]bool)
	var open []*nbd.Export
	for range 2 {
		for _, name := range []string{"throw-away:web/01", "throw-away:web/01@first"} {
			e, err := x.Open(ctx, name)
			m.must(err)
			w, ok := e.Disk.(nbd.Writer)
			if !ok || e.ReadOnly || e.Shared || names[e.Name] {
				t.Errorf("%s: %+v", name, e)
			}
			_, err = w.WriteAt(ctx, random(1, 4096), 0)
			m.must(err)
			names[e.Name] = true
			open = append(open, e)
		}
	}
	for _, e := range open {
		e.Release()
	}
	if got := m.thrown("/active/vdisk"); len(got) != 0 {
		t.Errorf("%q are left when the connections have ended", got)
	}
	if got := m.contents("web/01"); !bytes.Equal(got, make([]byte, 1<<20)) {
		t.Error("what was thrown away is in the image")
	}
	for _, name := range []string{"throw-away:", "throw-away:none", "throw-away:web/01@none", "throw-away:..", "throw-away:throw-away:web/01"} {
		if _, err := x.Open(ctx, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	reads := live.Exports(m.cat, m.tree().Exports(), true)
	if _, err := reads.Open(ctx, "throw-away:web/01"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("where all may read only: %v", err)
	}
}
