package fossil

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/internal/disk"
	"strata/vac/meta"
	"strata/venti/ventitest"
)

// A clock is a time that a test sets.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Date(2026, 11, 27, 3, 0, 0, 0, time.Local)} }

func (c *clock) Now() time.Time { return c.now }

// put makes a file of /active, or gives it other contents.
func put(t *testing.T, fs *FS, name, text string) {
	t.Helper()
	dir := walk(t, fs, "/active")
	f, err := dir.Walk(t.Context(), name)
	if errors.Is(err, ErrNotExist) {
		f, err = dir.Create(t.Context(), name, 0o644, "glenda")
	}
	if err == nil {
		size := int64(0)
		err = f.SetAttr(t.Context(), Change{Size: &size}, "glenda")
	}
	if err == nil {
		_, err = f.WriteAt(t.Context(), []byte(text), 0, "glenda")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func get(fs *FS, path string) (string, error) {
	f, err := fs.Walk(context.Background(), path)
	if err != nil {
		return "", err
	}
	b := make([]byte, 1000)
	n, err := f.ReadAt(context.Background(), b, 0)
	return string(b[:n]), err
}

func snap(t *testing.T, fs *FS, cfg SnapConfig, want string) {
	t.Helper()
	path, err := fs.Snapshot(t.Context(), cfg)
	if err != nil || path != want {
		t.Fatalf("snapshot %q, %v, want %q", path, err, want)
	}
}

func TestSnapshots(t *testing.T) {
	d := newFS(t, disk.NewMachine(), 16<<20, 8192)
	c := newClock()
	fs := mustOpen(t, d, Config{Now: c.Now, Interval: time.Hour})
	put(t, fs, "f", "one")
	snap(t, fs, SnapConfig{}, "/snapshot/2026/1127/0300")
	put(t, fs, "f", "two")
	snap(t, fs, SnapConfig{}, "/snapshot/2026/1127/0300.1")
	put(t, fs, "f", "three")
	snap(t, fs, SnapConfig{Path: "/snapshot/byname"}, "/snapshot/byname")
	c.now = c.now.Add(24 * time.Hour)
	snap(t, fs, SnapConfig{Archive: true}, "/archive/2026/1128")
	put(t, fs, "f", "four")
	snap(t, fs, SnapConfig{Archive: true}, "/archive/2026/1128.1")
	for path, want := range map[string]string{
		"/snapshot/2026/1127/0300/f": "one", "/snapshot/2026/1127/0300.1/f": "two", "/snapshot/byname/f": "three",
		"/archive/2026/1128/f": "three", "/archive/2026/1128.1/f": "four", "/active/f": "four",
	} {
		if got, err := get(fs, path); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
	if _, err := fs.Snapshot(t.Context(), SnapConfig{Path: "/snapshot/byname"}); !errors.Is(err, ErrExist) {
		t.Errorf("a name twice: %v", err)
	}
	if _, err := fs.Snapshot(t.Context(), SnapConfig{Source: "/snapshot/byname"}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("of a snapshot: %v", err)
	}
	if s := fs.b.Super(); s.Next == format.None || s.EpochHigh != 8 {
		t.Errorf("next %#x, epoch %d", s.Next, s.EpochHigh)
	}
	root := walk(t, fs, "/")
	if info, err := root.Stat(t.Context()); err != nil || !info.QidSpace || info.QidMax != fs.b.Super().QID {
		t.Errorf("root directory %+v, %v", info, err)
	}
	// Nothing of a snapshot can be changed.
	f := walk(t, fs, "/snapshot/byname/f")
	dir := walk(t, fs, "/snapshot/byname")
	size := int64(1)
	for what, err := range map[string]error{
		"write":  second(f.WriteAt(t.Context(), []byte("x"), 0, "ken")),
		"size":   f.SetAttr(t.Context(), Change{Size: &size}, "ken"),
		"remove": f.Remove(t.Context(), "ken"),
		"create": second(dir.Create(t.Context(), "g", 0o644, "ken")),
		"rename": f.Rename(t.Context(), walk(t, fs, "/active"), "g", false, "ken"),
		"into":   walk(t, fs, "/active/f").Rename(t.Context(), dir, "g", false, "ken"),
		"punch":  f.Punch(t.Context(), 0, 1, "ken"),
		"itself": dir.Remove(t.Context(), "ken"),
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
	clean(t, fs)

	// None means keep; the archives that wait keep what is newer.
	if err := fs.SnapClean(t.Context(), Keep); err != nil {
		t.Fatal(err)
	}
	if low, _ := fs.Epochs(); low != 1 {
		t.Errorf("low epoch %d though all is kept", low)
	}
	if err := fs.SnapClean(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if low, _ := fs.Epochs(); low != 4 {
		t.Errorf("low epoch %d, want that of the oldest archive", low)
	}
	if err := fs.SetEpochLow(t.Context(), 5); err == nil {
		t.Error("an archive that waits can be let go of")
	}
	list, err := fs.Snapshots(t.Context(), "/")
	if err != nil || len(list) != 2 {
		t.Errorf("snapshots %+v, %v", list, err)
	}
	if _, err := fs.Walk(t.Context(), "/snapshot/2026"); !errors.Is(err, ErrNotExist) {
		t.Errorf("directory of dead snapshots: %v", err)
	}
	clean(t, fs)
	mustClose(t, fs)
}

func second[T any](_ T, err error) error { return err }

// TestDeadSnapshot walks to one that is gone, and takes another in the same
// minute.
func TestDeadSnapshot(t *testing.T) {
	d := newFS(t, disk.NewMachine(), 16<<20, 1024)
	c := newClock()
	fs := mustOpen(t, d, Config{Now: c.Now, Interval: time.Hour})
	defer mustClose(t, fs)
	put(t, fs, "f", "one")
	snap(t, fs, SnapConfig{}, "/snapshot/2026/1127/0300")
	f := walk(t, fs, "/snapshot/2026/1127/0300/f")
	_, high := fs.Epochs()
	if err := fs.SetEpochLow(t.Context(), high); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(t.Context(), make([]byte, 1), 0); err != ErrDeleted {
		t.Errorf("read: %v", err)
	}
	if _, err := fs.Walk(t.Context(), "/snapshot/2026/1127/0300"); !errors.Is(err, ErrDeleted) {
		t.Errorf("walk: %v", err)
	}
	snap(t, fs, SnapConfig{}, "/snapshot/2026/1127/0300.1")
	dir := walk(t, fs, "/snapshot/2026/1127")
	n := 0
	for info, err := range dir.List(t.Context()) {
		if err != nil || info.Mode&meta.ModeSnapshot == 0 {
			t.Errorf("%+v, %v", info, err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("%d names, want 2", n)
	}
	if err := dir.Clri(t.Context(), "0300", "adm"); err != nil {
		t.Error(err)
	}
	if _, err := dir.Walk(t.Context(), "0300"); !errors.Is(err, ErrNotExist) {
		t.Errorf("after clri: %v", err)
	}
}

// TestSnapshotSpace takes a hundred snapshots of files that change, and lets
// go of them: nothing is left.
func TestSnapshotSpace(t *testing.T) {
	d := newFS(t, disk.NewMachine(), 16<<20, 1024)
	c := newClock()
	fs := mustOpen(t, d, Config{Now: c.Now, NoAtime: true, Interval: time.Hour})
	defer mustClose(t, fs)
	put(t, fs, "f", "one")
	before := fs.used(t)
	for i := range 100 {
		put(t, fs, "f", fmt.Sprint(i))
		c.now = c.now.Add(time.Minute)
		if _, err := fs.Snapshot(t.Context(), SnapConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	if used := fs.used(t); used < before+300 {
		t.Errorf("%d blocks used by 100 snapshots", used-before)
	}
	c.now = c.now.Add(time.Hour)
	if err := fs.SnapClean(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	// The directory of snapshots has kept a metadata block.
	if used := fs.used(t); used > before+2 {
		t.Errorf("%d blocks more than before", used-before)
	}
	clean(t, fs)
}

func (fs *FS) used(t *testing.T) uint32 {
	t.Helper()
	n, _ := fs.b.Used()
	return n
}

// TestSnapshotOnVenti takes snapshots of what is on Venti, but for a directory's
// names, or all of it: they are kept for as long as others.
func TestSnapshotOnVenti(t *testing.T) {
	d := newFS(t, disk.NewMachine(), 16<<20, 8192)
	c := newClock()
	fs := mustOpen(t, d, Config{Now: c.Now, NoAtime: true, Interval: time.Hour, Venti: ventitest.NewMemory(), NoArchiver: true})
	defer mustClose(t, fs)
	put(t, fs, "f", "one")
	snap(t, fs, SnapConfig{Archive: true}, "/archive/2026/1127")
	if _, err := fs.Archive(t.Context()); err != nil {
		t.Fatal(err)
	}
	snap(t, fs, SnapConfig{}, "/snapshot/2026/1127/0300") // all of it
	mode := meta.Mode(0o600)
	if err := walk(t, fs, "/active/f").SetAttr(t.Context(), Change{Mode: &mode}, "ken"); err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(time.Hour)
	snap(t, fs, SnapConfig{}, "/snapshot/2026/1127/0400") // all but the mode
	put(t, fs, "f", "two")
	snap(t, fs, SnapConfig{}, "/snapshot/2026/1127/0400.1")
	for _, step := range []struct {
		age  time.Duration
		want []string
	}{
		{Keep, []string{"0300", "0400", "0400.1"}},
		{90 * time.Minute, []string{"0300", "0400", "0400.1"}},
		{30 * time.Minute, []string{"0400", "0400.1"}},
	} {
		if err := fs.SnapClean(t.Context(), step.age); err != nil {
			t.Fatal(err)
		}
		if got := paths(t, fs, "/snapshot/2026/1127"); len(got) != len(step.want) {
			t.Errorf("age %v: %q, want %q", step.age, got, step.want)
		}
		for _, name := range step.want {
			want := "one"
			if name == "0400.1" {
				want = "two"
			}
			if got, err := get(fs, "/snapshot/2026/1127/"+name+"/f"); err != nil || got != want {
				t.Errorf("age %v: %s has %q, %v", step.age, name, got, err)
			}
		}
	}
	c.now = c.now.Add(time.Hour)
	if err := fs.SnapClean(t.Context(), 30*time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := paths(t, fs, "/"); len(got) != 1 {
		t.Errorf("left: %q", got)
	}
	clean(t, fs)
}

// TestDeadHalf lets go of snapshots of a directory of which one half was all on
// Venti, what it holds or its names: only one of its two slots tells that it is gone.
func TestDeadHalf(t *testing.T) {
	for what, change := range map[string]func(fs *FS) error{
		"names on Venti": func(fs *FS) error {
			_, err := walk(t, fs, "/active/dir/f").WriteAt(t.Context(), []byte("f"), 0, "glenda")
			return err
		},
		"files on Venti": func(fs *FS) error {
			mode := meta.ModeDir | 0o700
			return walk(t, fs, "/active/dir").SetAttr(t.Context(), Change{Mode: &mode}, "glenda")
		},
	} {
		for _, how := range []string{"checked", "cleaned"} {
			t.Run(what+"/"+how, func(t *testing.T) { testDeadHalf(t, change, how == "checked") })
		}
	}
}

func testDeadHalf(t *testing.T, change func(fs *FS) error, repair bool) {
	d := newFS(t, disk.NewMachine(), 16<<20, 1024)
	c := newClock()
	fs := mustOpen(t, d, Config{Venti: ventitest.NewMemory(), Now: c.Now, Interval: time.Hour, NoArchiver: true})
	defer mustClose(t, fs)
	dir, err := walk(t, fs, "/active").Create(t.Context(), "dir", meta.ModeDir|0o755, "glenda")
	if err == nil {
		_, err = dir.Create(t.Context(), "f", 0o644, "glenda")
	}
	if err != nil {
		t.Fatal(err)
	}
	snap(t, fs, SnapConfig{Archive: true}, "/archive/2026/1127")
	if _, err := fs.Archive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := change(fs); err != nil {
		t.Fatal(err)
	}
	snap(t, fs, SnapConfig{}, "/snapshot/2026/1127/0300")
	s := walk(t, fs, "/snapshot/2026/1127/0300")
	var data, names format.Entry
	err = fs.b.View(t.Context(), func(tx *buffer.Tx) (err error) {
		if data, err = s.data.Entry(tx); err == nil {
			names, err = s.meta.Entry(tx)
		}
		return err
	})
	if err != nil || data.Local == names.Local {
		t.Fatalf("%+v and %+v, %v: one was to be on Venti", data, names, err)
	}
	_, high := fs.Epochs()
	if err := fs.SetEpochLow(t.Context(), high); err != nil {
		t.Fatal(err)
	}
	r := checkStill(t, fs)
	if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Text, ErrDeleted.Text) {
		t.Errorf("found %+v", r.Findings)
	}
	if list, err := fs.Snapshots(t.Context(), "/snapshot"); err != nil || len(list) != 1 || !list[0].Dead {
		t.Errorf("snapshots %+v, %v", list, err)
	}
	if !repair {
		if err := fs.SnapClean(t.Context(), Keep); err != nil {
			t.Error(err)
		}
	} else if r, err := fs.Check(t.Context(), CheckConfig{Snapshots: true, Fix: AllRepairs}); err != nil || len(r.Findings) != 1 {
		t.Errorf("repaired %+v, %v", r.Findings, err)
	}
	clean(t, fs)
	if list, err := fs.Snapshots(t.Context(), "/snapshot"); err != nil || len(list) != 0 {
		t.Errorf("left are snapshots %+v, %v", list, err)
	}
}
