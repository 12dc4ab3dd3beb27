package live_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
	"strata/vdisk/live"
	"strata/vdisk/nbd"
)

func TestExports(t *testing.T) {
	m := newMachine(t, 32<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "web/01", 4<<20))
	x := live.Exports(m.cat, m.tree().Exports(), false)
	open := func(name string) *nbd.Export {
		t.Helper()
		e, err := x.Open(ctx, name)
		m.must(err)
		return e
	}
	e := open("web/01")
	want := make([]byte, 4<<20)
	copy(want, mbr([2]uint32{8, 1000}))
	copy(want[4096:], random(1, 3<<20))
	w, ok := e.Disk.(nbd.Writer)
	if !ok || e.ReadOnly {
		t.Fatal("cannot be written to")
	}
	_, err := w.WriteAt(ctx, want, 0)
	m.must(err)
	m.must(e.Disk.(nbd.Trimmer).Trim(ctx, 8192, 4096))
	m.must(e.Disk.(nbd.Zeroer).Zero(ctx, 12288, 100, nbd.Zeroing{Allocate: true}))
	clear(want[8192 : 12288+100])
	m.must(w.Flush(ctx))
	if start, end, err := e.Disk.(nbd.Finder).NextData(ctx, 8200); err != nil || start != 12288 || end <= start {
		t.Errorf("next data %d to %d, %v", start, end, err)
	}
	second := open("web/01")
	if !second.ReadOnly || !strings.Contains(second.Description, "a client of NBD") {
		t.Errorf("a second connection: %+v", second)
	}
	second.Release()
	_, err = m.cat.Snapshot(ctx, "web/01", "first")
	m.must(err)
	e.Release() // which cuts it anew
	for name, want := range map[string][]byte{
		"web/01": want, "web/01@first": want, "web/01@2026/1127": want, "web/01/parts/1": want[4096:][:1000*512],
		"web/01/parts/1/data": want[4096:][:1000*512],
	} {
		e := open(name)
		got := make([]byte, e.Disk.Size())
		if _, err := e.Disk.ReadAt(ctx, got, 0); err != nil && err != io.EOF || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if e.Release != nil {
			e.Release()
		}
	}
	for _, name := range []string{"none", "web", "web/01@none", "web/01/parts/2", "web/01@first/parts/7", "..", "vdisk:x", "web/01@"} {
		if _, err := x.Open(ctx, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := x.List(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "web/01" {
		t.Errorf("list: %+v, %v", list, err)
	}
	reads := live.Exports(m.cat, m.tree().Exports(), true)
	if e, err := reads.Open(ctx, "web/01"); err != nil || !e.ReadOnly {
		t.Errorf("where all may read only: %+v, %v", e, err)
	} else {
		e.Release()
	}
}

// TestSharedExports has several write to an image at once, who say so.
func TestSharedExports(t *testing.T) {
	m := newMachine(t, 16<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "a", 1<<20))
	// Names that could be understood in two ways are those of images.
	m.must(m.cat.Create(ctx, "b/shared", 2<<20))
	m.must(m.cat.Create(ctx, "b/parts/1", 3<<20))
	x := live.Exports(m.cat, m.tree().Exports(), false)
	open := func(name string, size int64, readOnly, shared bool) *nbd.Export {
		t.Helper()
		e, err := x.Open(ctx, name)
		m.must(err)
		if e.Disk.Size() != size || e.ReadOnly != readOnly || e.Shared != shared {
			t.Errorf("%s: %d bytes, read-only %v, shared %v; want %d, %v, %v", name, e.Disk.Size(), e.ReadOnly, e.Shared, size, readOnly, shared)
		}
		return e
	}
	open("b/shared", 2<<20, false, false).Release()
	open("b/shared/shared", 2<<20, false, true).Release()
	open("b/parts/1", 3<<20, false, false).Release()
	one, two := open("a/shared", 1<<20, false, true), open("a/shared", 1<<20, false, true)
	open("a", 1<<20, true, false).Release()
	g := guest{t, ninetest.Dial(t, m.tree(), ninep.Linux, "glenda", "")}
	f, err := g.open("images/a/shared", ninep.ORDWR)
	m.must(err)
	if _, err := g.open("images/a/disk", ninep.ORDWR); err == nil {
		t.Error("one who does not share writes with those who do")
	}
	for i, w := range []interface {
		WriteAt(ctx context.Context, p []byte, off int64) (int, error)
	}{one.Disk.(nbd.Writer), two.Disk.(nbd.Writer), f} {
		_, err := w.WriteAt(ctx, random(uint64(i), 5000), int64(i)*5000)
		m.must(err)
	}
	m.must(two.Disk.(nbd.Writer).Flush(ctx))
	got := m.contents("a")
	for i := range 3 {
		if !bytes.Equal(got[i*5000:][:5000], random(uint64(i), 5000)) {
			t.Errorf("what writer %d wrote is not there", i)
		}
	}
	one.Release()
	two.Release()
	m.must(f.Close(ctx))
	open("a", 1<<20, false, false).Release()
	if _, err := x.Open(ctx, "a@none/shared"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a snapshot to be written to: %v", err)
	}
}
