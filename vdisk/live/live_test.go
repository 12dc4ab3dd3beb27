package live_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"strata/internal/ninep"
	"strata/vdisk"
	"strata/vdisk/live"
	"strata/venti"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writer opens an image for writing.
func (m *machine) writer(name string) *live.Disk {
	m.t.Helper()
	d, err := m.cat.Disk(m.t.Context(), name, live.OpenOptions{Write: true, By: "test"})
	if err != nil {
		m.t.Fatal(err)
	}
	return d
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// contents returns all of an image.
func (m *machine) contents(name string) []byte {
	m.t.Helper()
	d, err := m.cat.Disk(m.t.Context(), name, live.OpenOptions{})
	m.must(err)
	defer d.Close(m.t.Context())
	b := make([]byte, d.Size())
	if _, err := d.ReadAt(m.t.Context(), b, 0); err != nil {
		m.t.Fatal(err)
	}
	return b
}

// archived returns all of a disk by its score, and its layout.
func (m *machine) archived(score venti.Score) ([]byte, *vdisk.Layout) {
	m.t.Helper()
	im, err := vdisk.Open(m.t.Context(), m.store, score)
	m.must(err)
	b := make([]byte, im.Size())
	if _, err := im.ReadAt(b, 0); err != nil {
		m.t.Fatal(err)
	}
	return b, im.Layout()
}

// memory is a disk in memory, to be imported.
type memory []byte

func (b memory) Size() int64 { return int64(len(b)) }
func (b memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(b).ReadAt(p, off)
}
func (b memory) NextData(off int64) (start, end int64, err error) {
	if off >= int64(len(b)) {
		return 0, 0, io.EOF
	}
	return off, int64(len(b)), nil
}

// imported returns the score of a full import.
func (m *machine) imported(b []byte) venti.Score {
	m.t.Helper()
	res, err := vdisk.Import(m.t.Context(), m.store, memory(b), vdisk.ImportOptions{})
	m.must(err)
	return res.Score
}

// sameImage fails unless two scores are the same, and says in what they differ.
func (m *machine) sameImage(got, want venti.Score) {
	m.t.Helper()
	if got == want {
		return
	}
	have, l := m.archived(got)
	all, wl := m.archived(want)
	a, _ := l.Encode()
	b, _ := wl.Encode()
	if !bytes.Equal(a, b) {
		m.t.Fatalf("the image is cut like this:\n%s\nan import of it like this:\n%s", a, b)
	}
	for off := range all {
		if have[off] != all[off] {
			m.t.Fatalf("the image differs from an import of it at %d", off)
		}
	}
	g, err := vdisk.Open(m.t.Context(), m.store, got)
	m.must(err)
	w, err := vdisk.Open(m.t.Context(), m.store, want)
	m.must(err)
	for i, r := range l.Regions {
		if x, y := g.Region(i).Entry(), w.Region(i).Entry(); x != y {
			m.t.Fatalf("region %s is %+v, in an import %+v", r.Name, x, y)
		}
	}
	m.t.Fatalf("the image has another root than an import of it")
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

func TestDisk(t *testing.T) {
	m := newMachine(t, 64<<20)
	ctx := t.Context()
	const size = 9<<20 + 512
	m.must(m.cat.Create(ctx, "web/01", size))
	want := make([]byte, size)
	if got := m.contents("web/01"); !bytes.Equal(got, want) {
		t.Fatal("a new image is not empty")
	}
	d := m.writer("web/01")
	if _, _, err := d.NextData(ctx, 0); err != io.EOF {
		t.Errorf("a new image has data: %v", err)
	}
	for i, n := range []int{1, 511, 4096, 5000, 1 << 20, 3 << 20} {
		off := i * 1100000
		p := random(uint64(i), n)
		if _, err := d.WriteAt(ctx, p, int64(off)); err != nil {
			t.Fatal(err)
		}
		copy(want[off:], p)
	}
	m.must(d.Trim(ctx, 1100000*3+100, 4800))
	clear(want[1100000*3+100:][:4800])
	m.must(d.Flush(ctx))
	if got := m.contents("web/01"); !bytes.Equal(got, want) {
		t.Error("another reader sees something else")
	}
	if start, end, err := d.NextData(ctx, 100000); err != nil || start > 1100000 || start < 1100000-4096 || end < 1100000+511 {
		t.Errorf("next data is %d to %d, %v", start, end, err)
	}
	buf := make([]byte, 1000)
	if n, err := d.ReadAt(ctx, buf, size-10); n != 10 || err != io.EOF {
		t.Errorf("read over the end: %d, %v", n, err)
	}
	if _, err := d.WriteAt(ctx, buf, size-10); err == nil {
		t.Error("wrote over the end")
	}
	r, err := m.cat.Disk(ctx, "web/01", live.OpenOptions{By: "reader"})
	m.must(err)
	if _, err := r.WriteAt(ctx, buf, 0); err == nil {
		t.Error("a reader wrote")
	}
	m.must(r.Close(ctx))
	m.must(d.Close(ctx))
	if _, err := d.ReadAt(ctx, buf, 0); err == nil {
		t.Error("read from a closed disk")
	}
	m.restart()
	if got := m.contents("web/01"); !bytes.Equal(got, want) {
		t.Error("after a restart it is another disk")
	}
}

// TestWriters lets one write at a time, unless they share.
func TestWriters(t *testing.T) {
	m := newMachine(t, 16<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "a", 1<<20))
	open := func(by string, shared bool) (*live.Disk, error) {
		return m.cat.Disk(ctx, "a", live.OpenOptions{Write: true, By: by, Shared: shared})
	}
	one, err := open("qemu at home", false)
	m.must(err)
	two, err := open("qemu at home", false)
	m.must(err)
	if _, err := open("another", false); err == nil || !strings.Contains(err.Error(), "qemu at home") {
		t.Errorf("a second writer: %v", err)
	}
	if _, err := open("another", true); err == nil {
		t.Error("a second writer who would share")
	}
	m.must(one.Close(ctx))
	if _, err := open("another", false); err == nil {
		t.Error("a second writer while one of two is left")
	}
	for _, err := range []error{
		m.cat.Remove(ctx, "a"), m.cat.Resize(ctx, "a", 1<<19, false), m.cat.Settle(ctx, "a", false),
	} {
		if err == nil || !strings.Contains(err.Error(), "qemu at home") {
			t.Errorf("while it is written to: %v", err)
		}
	}
	m.must(two.Close(ctx))
	for _, by := range []string{"a", "b"} {
		d, err := open(by, true)
		m.must(err)
		defer d.Close(context.Background())
	}
}

func TestNames(t *testing.T) {
	m := newMachine(t, 16<<20)
	ctx := t.Context()
	for _, name := range []string{"", "/", "a/", "/a", "a//b", ".", "..", "a/../b", ".a", "-a", "a b", "a@b", "a:b", "ä", "a\n", "files/a", "score", strings.Repeat("a", 65), strings.Repeat("a/", 300) + "a"} {
		if err := m.cat.Create(ctx, name, 1<<20); err == nil {
			t.Errorf("made %q", name)
		}
	}
	if err := m.cat.Create(ctx, "files/web.vdisk", 1<<20); err == nil || !strings.Contains(err.Error(), "begins with files/") {
		t.Errorf("a name that clients of NBD give to something else: %v", err)
	}
	for _, name := range []string{"web/01", "web/02", "db", "Web/01/x.y_z-1"} {
		m.must(m.cat.Create(ctx, name, 1<<20))
	}
	for name, want := range map[string]error{"web": fs.ErrExist, "web/01": fs.ErrExist, "db/1": nil, "web/01/a/b": nil} {
		if err := m.cat.Create(ctx, name, 1<<20); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("create %s: %v", name, err)
		}
	}
	for _, size := range []int64{0, -1, 1 << 48} {
		if err := m.cat.Create(ctx, "x", size); err == nil {
			t.Errorf("made an image of %d bytes", size)
		}
	}
	list := func() string {
		names, err := m.cat.List(ctx)
		m.must(err)
		return strings.Join(names, " ")
	}
	if got := list(); got != "Web/01/x.y_z-1 db web/01 web/02" {
		t.Errorf("list: %s", got)
	}
	d := m.writer("web/01")
	_, err := d.WriteAt(ctx, []byte("stays the same"), 5000)
	m.must(err)
	m.must(m.cat.Rename(ctx, "web/01", "old/web"))
	_, err = d.WriteAt(ctx, []byte("disk"), 5015)
	m.must(err)
	m.must(d.Close(ctx))
	if got := m.contents("old/web")[5000:5019]; string(got) != "stays the same\x00disk" {
		t.Errorf("renamed while open: %q", got)
	}
	if _, err := m.cat.Disk(ctx, "web/01", live.OpenOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old name: %v", err)
	}
	for _, to := range []string{"db", "db/x", "old", "old/web", "old/web/x"} {
		if err := m.cat.Rename(ctx, "web/02", to); err == nil {
			t.Errorf("renamed to %s", to)
		}
	}
	m.must(m.cat.Protect(ctx, "db", true))
	if err := m.cat.Remove(ctx, "db"); err == nil || !strings.Contains(err.Error(), "protected") {
		t.Errorf("removed a protected image: %v", err)
	}
	m.must(m.cat.Protect(ctx, "db", false))
	for _, name := range []string{"db", "Web/01/x.y_z-1", "web/02"} {
		m.must(m.cat.Remove(ctx, name))
	}
	if err := m.cat.Remove(ctx, "db"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	if got := list(); got != "old/web" {
		t.Errorf("list: %s", got)
	}
	m.must(m.cat.Create(ctx, "web", 1<<20)) // no directory is left
}

// TestCanonical has the same disk by import and by live writes.
func TestCanonical(t *testing.T) {
	m := newMachine(t, 128<<20)
	ctx := t.Context()
	want := make([]byte, 20<<20)
	copy(want[3<<20:], random(1, 5<<20))
	copy(want[19<<20+7:], random(2, 9999))
	score := m.imported(want)
	m.must(m.cat.Graft(ctx, "imported", score))
	m.must(m.cat.Create(ctx, "written", int64(len(want))))
	d := m.writer("written")
	_, err := d.WriteAt(ctx, random(9, 4<<20), 1<<20) // and then something else
	m.must(err)
	for off := 0; off < len(want); off += 77777 {
		_, err := d.WriteAt(ctx, want[off:min(len(want), off+77777)], int64(off))
		m.must(err)
	}
	m.must(d.Close(ctx))
	for _, name := range []string{"imported", "written"} {
		s, err := m.cat.Snapshot(ctx, name, "one")
		m.must(err)
		if s.Score != score {
			t.Errorf("%s: the score is another than that of an import", name)
		}
	}
	// A day of change, here and there.
	copy(want[4<<20:], random(3, 123456))
	clear(want[6<<20 : 7<<20])
	d = m.writer("imported")
	_, err = d.WriteAt(ctx, want[4<<20:4<<20+123456], 4<<20)
	m.must(err)
	m.must(d.Trim(ctx, 6<<20, 1<<20))
	m.must(d.Close(ctx))
	full := m.imported(want)
	res, err := vdisk.Import(ctx, m.store, memory(want), vdisk.ImportOptions{Base: score})
	m.must(err)
	s, err := m.cat.Snapshot(ctx, "imported", "")
	m.must(err)
	if full != res.Score || s.Score != full {
		t.Errorf("scores %v, %v and %v", full, res.Score, s.Score)
	}
}

func TestSnapshots(t *testing.T) {
	m := newMachine(t, 64<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "web/01", 4<<20))
	states := map[string][]byte{}
	d := m.writer("web/01")
	write := func(seed uint64) []byte {
		t.Helper()
		_, err := d.WriteAt(ctx, random(seed, 100000), int64(seed)*300000)
		m.must(err)
		return m.contents("web/01")
	}
	states["2026/1127"] = write(1)
	m.nightly()
	m.clock.add(3600e9)
	states["2026/1127.1"] = write(2)
	s, err := m.cat.Snapshot(ctx, "web/01", "before-upgrade")
	m.must(err)
	if s.Name != "2026/1127.1" || s.Tag != "before-upgrade" {
		t.Errorf("%+v", s)
	}
	states["before-upgrade"] = states["2026/1127.1"]
	write(3)
	m.must(d.Close(ctx))
	m.clock.add(24 * 3600e9)
	states["2026/1128"] = m.contents("web/01")
	m.nightly()
	// It takes its history with it, and a new one of that name has none of it.
	m.must(m.cat.Rename(ctx, "web/01", "db"))
	m.must(m.cat.Create(ctx, "web/01", 1<<20))
	if list, err := m.cat.Log(ctx, "web/01"); err != nil || len(list) != 0 {
		t.Errorf("history of another image: %v, %v", list, err)
	}
	m.restart()
	list, err := m.cat.Log(ctx, "db")
	m.must(err)
	var names []string
	for _, s := range list {
		names = append(names, s.Name+" "+s.Kind)
		if got, _ := m.archived(s.Score); !bytes.Equal(got, states[s.Name]) {
			t.Errorf("%s is not what it was", s.Name)
		}
	}
	if want := []string{"2026/1127 nightly", "2026/1127.1 asked", "2026/1128 nightly"}; !slices.Equal(names, want) {
		t.Fatalf("log: got %q, want %q", names, want)
	}
	for ref, want := range states {
		name := "clone-of-" + strings.ReplaceAll(ref, "/", "-")
		m.must(m.cat.Clone(ctx, "db@"+ref, name))
		if !bytes.Equal(m.contents(name), want) {
			t.Errorf("clone of %s is another disk", ref)
		}
	}
	m.must(m.cat.Clone(ctx, "db", "twin"))
	if !bytes.Equal(m.contents("twin"), states["2026/1128"]) {
		t.Error("clone of a live image is another disk")
	}
	for _, ref := range []string{"db@none", "none", "db@", "db@2026/1129"} {
		if err := m.cat.Clone(ctx, ref, "x"); err == nil {
			t.Errorf("cloned %s", ref)
		}
	}
}

func TestRollback(t *testing.T) {
	m := newMachine(t, 64<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "a", 4<<20))
	d := m.writer("a")
	_, err := d.WriteAt(ctx, random(1, 100000), 5000)
	m.must(err)
	first := m.contents("a")
	_, err = m.cat.Snapshot(ctx, "a", "first")
	m.must(err)
	_, err = d.WriteAt(ctx, random(2, 100000), 50000)
	m.must(err)
	second := m.contents("a")
	if err := m.cat.Rollback(ctx, "a", "first", false); err == nil {
		t.Error("rolled back while it is written to")
	}
	m.must(d.Close(ctx))
	r, err := m.cat.Disk(ctx, "a", live.OpenOptions{})
	m.must(err)
	defer r.Close(context.Background())
	m.must(m.cat.Protect(ctx, "a", true))
	if err := m.cat.Rollback(ctx, "a", "first", false); err == nil {
		t.Error("rolled back though it is protected")
	}
	m.must(m.cat.Protect(ctx, "a", false))
	m.must(m.cat.Rollback(ctx, "a", "first", false))
	if !bytes.Equal(m.contents("a"), first) {
		t.Error("rolled back to something else")
	}
	got := make([]byte, 4<<20)
	if _, err := r.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, first) {
		t.Errorf("who has it open sees something else: %v", err)
	}
	list, err := m.cat.Log(ctx, "a")
	m.must(err)
	if len(list) != 2 || list[1].Kind != live.Before {
		t.Fatalf("log: %+v", list)
	}
	m.must(m.cat.Rollback(ctx, "a", list[1].Name, true))
	m.restart()
	if !bytes.Equal(m.contents("a"), second) {
		t.Error("rolled forward to something else")
	}
	if list, err := m.cat.Log(ctx, "a"); err != nil || len(list) != 2 {
		t.Errorf("log: %+v, %v", list, err)
	}
}

// TestOneCatalogue opens the images of a file system twice.
func TestOneCatalogue(t *testing.T) {
	m := newMachine(t, 32<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "a", 1<<20))
	w := m.writer("a")
	client := m.server.Local(ninep.ClientConfig{Dialect: ninep.Linux})
	defer client.Close()
	open := func() (*live.Catalogue, error) {
		return live.Open(ctx, client, m.venti, live.Config{Now: m.clock.Now})
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "another vdisk") {
		t.Fatalf("opened twice: %v", err)
	}
	m.clock.add(4 * 60e9)
	m.cat.CheckHold(ctx)
	m.clock.add(4 * 60e9)
	if _, err := open(); err == nil {
		t.Fatal("opened twice after a while")
	}
	// One that does not show itself for long loses them, and notices.
	m.clock.add(6 * 60e9)
	other, err := open()
	m.must(err)
	m.cat.CheckHold(ctx)
	if _, err := w.WriteAt(ctx, []byte("late"), 0); err == nil || !strings.Contains(err.Error(), "another vdisk") {
		t.Errorf("wrote to what is another's: %v", err)
	}
	if err := m.cat.Create(ctx, "b", 1<<20); err == nil {
		t.Error("made an image in what is another's")
	}
	d, err := other.Disk(ctx, "a", live.OpenOptions{Write: true})
	m.must(err)
	_, err = d.WriteAt(ctx, []byte("in time"), 0)
	m.must(err)
	m.must(d.Close(ctx))
	m.must(other.Close(ctx))
	w.Close(ctx)
	m.restart() // and then they can be had again
	if got := m.contents("a")[:7]; string(got) != "in time" {
		t.Errorf("got %q", got)
	}
}
