package vdisk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"strata/vdisk/fsys"
)

// sparseFile makes a file of size bytes with data at the given places.
func sparseFile(t *testing.T, size int64, at map[int64][]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off, b := range at {
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func openDisk(t *testing.T, name string) *Disk {
	t.Helper()
	d, err := OpenDisk(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// ranges lists what NextData returns from 0 on.
func ranges(t *testing.T, s Source) [][2]int64 {
	t.Helper()
	var list [][2]int64
	for off := int64(0); ; {
		start, end, err := s.NextData(off)
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		if start < off || end <= start || end > s.Size() {
			t.Fatalf("next data at %d: got %d, %d", off, start, end)
		}
		list = append(list, [2]int64{start, end})
		off = end
	}
}

func TestDiskHoles(t *testing.T) {
	const mb = 1 << 20
	data := bytes.Repeat([]byte("x"), mb)
	d := openDisk(t, sparseFile(t, 1<<40, map[int64][]byte{0: data, 512 << 30: data, 1<<40 - mb: data}))
	if d.Size() != 1<<40 {
		t.Errorf("size: got %d", d.Size())
	}
	got := ranges(t, d)
	if len(got) != 3 || got[1] != [2]int64{512 << 30, 512<<30 + mb} {
		t.Skipf("this file system keeps other holes: %v", got)
	}
	// The same, asked in another order and in the middle.
	for _, off := range []int64{512<<30 + 77, 512 << 30, 512<<30 + mb - 1} {
		if start, end, err := d.NextData(off); start != off || end != 512<<30+mb || err != nil {
			t.Errorf("next data at %d: got %d, %d, %v", off, start, end, err)
		}
	}
	if start, end, err := d.NextData(1 << 41); err != io.EOF {
		t.Errorf("past the end: got %d, %d, %v", start, end, err)
	}
}

func TestDiskUnchanged(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(name string) error
		want   string
	}{
		{"not touched", func(string) error { return nil }, ""},
		{"shorter", func(name string) error { return os.Truncate(name, 100) }, "changed from 8192 to 100 bytes"},
		{"longer", func(name string) error { return os.Truncate(name, 10000) }, "changed from 8192 to 10000 bytes"},
		{"written", func(name string) error {
			if err := os.WriteFile(name, make([]byte, 8192), 0o666); err != nil {
				return err
			}
			return os.Chtimes(name, time.Unix(1e9, 0), time.Unix(1e9, 0))
		}, "written to"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := sparseFile(t, 8192, nil)
			d := openDisk(t, name)
			if err := c.change(name); err != nil {
				t.Fatal(err)
			}
			err := d.Unchanged()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestOpenDiskRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenDisk(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: got %v", err)
	}
	if _, err := OpenDisk(dir); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("directory: got %v", err)
	}
	if _, err := OpenDisk(os.DevNull); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("character device: got %v", err)
	}
}

func TestSpool(t *testing.T) {
	want := make([]byte, 3<<20+77)
	copy(want[1<<20+5000:], "somewhere")
	copy(want[len(want)-10:], "the end")
	dir := t.TempDir()
	told := int64(0)
	d, err := Spool(t.Context(), iotest.HalfReader(bytes.NewReader(want)), dir, func(n int64) { told = n })
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := io.ReadAll(io.NewSectionReader(d, 0, d.Size()))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes that differ, %v", len(got), err)
	}
	if told != int64(len(want)) {
		t.Errorf("progress: got %d, want %d", told, len(want))
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(d.f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes allocated", st.Blocks*512)
	}

	broken := errors.New("broken pipe")
	if _, err := Spool(t.Context(), iotest.ErrReader(broken), dir, nil); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Spool(ctx, bytes.NewReader(want), dir, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it cancelled", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// TestFreeMap compares a freeMap with a list of what it was made from.
func TestFreeMap(t *testing.T) {
	seed := rand.Int63()
	rnd := rand.New(rand.NewSource(seed))
	var list []fsys.Extent
	m := new(freeMap)
	off := int64(0)
	for range 1000 {
		off += freeSector * (1 + rnd.Int63n(1<<(rnd.Intn(20))))
		x := fsys.Extent{Off: off, Len: freeSector * (1 + rnd.Int63n(300))}
		list = append(list, x)
		m.add(x)
		off = x.End()
	}
	for i, x := range list {
		for _, at := range []int64{x.Off - 1, x.Off, x.Off + 1, x.End() - 1} {
			if got, ok := m.next(at); !ok || got != x {
				t.Fatalf("seed %d: next(%d): got %v, %v, want %v", seed, at, got, ok, x)
			}
		}
		got, ok := m.next(x.End())
		if i+1 < len(list) && (!ok || got != list[i+1]) || i+1 == len(list) && ok {
			t.Fatalf("seed %d: next(%d): got %v, %v", seed, x.End(), got, ok)
		}
	}
	if x, ok := m.next(0); !ok || x != list[0] {
		t.Errorf("seed %d: next(0): got %v", seed, x)
	}
	if _, ok := (*freeMap)(nil).next(0); ok {
		t.Error("nothing is free in no map")
	}
	// Parts of sectors are not free.
	odd := new(freeMap)
	odd.add(fsys.Extent{Off: 1, Len: 1022})
	odd.add(fsys.Extent{Off: 1100, Len: 2000})
	if x, ok := odd.next(0); !ok || x != (fsys.Extent{Off: 1536, Len: 1536}) {
		t.Errorf("odd: got %v, %v", x, ok)
	}
}

// memSource is a disk in memory.
type memSource struct {
	data  []byte
	holes []fsys.Extent
}

func (m *memSource) Size() int64 { return int64(len(m.data)) }

func (m *memSource) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.data).ReadAt(p, off)
}

func (m *memSource) NextData(off int64) (start, end int64, err error) {
	end = m.Size()
	for _, h := range m.holes {
		if h.Off <= off && off < h.End() {
			off = h.End()
		}
		if h.Off > off {
			end = h.Off
			break
		}
	}
	if off >= m.Size() {
		return 0, 0, io.EOF
	}
	return off, end, nil
}

func TestPart(t *testing.T) {
	data := bytes.Repeat([]byte{1}, 20*512)
	src := &memSource{data: data, holes: []fsys.Extent{{Off: 8 * 512, Len: 4 * 512}}}
	free := new(freeMap)
	for _, x := range []fsys.Extent{{Off: 512, Len: 512}, {Off: 5 * 512, Len: 2 * 512}, {Off: 9 * 512, Len: 4 * 512}} {
		free.add(x)
	}
	// The part is sectors 2 to 18; its free ones are 3, 7, 8, 11 to 14; 8 to 11 are a hole.
	p := &part{src: src, free: free, Region: Region{Start: 1024, Length: 17 * 512}}
	var got [][2]int64
	for off := int64(0); ; {
		start, end, err := p.NextData(off)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, [2]int64{start / 512, end / 512})
		off = end
	}
	want := [][2]int64{{0, 1}, {2, 5}, {13, 17}}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("got %v, want %v", got, want)
	}
	allocated, freed, err := p.measure()
	if err != nil || allocated != 13*512 || freed != 5*512 {
		t.Errorf("measure: got %d, %d sectors, %v", allocated/512, freed/512, err)
	}

	b := bytes.Repeat([]byte{7}, 17*512)
	if n, err := p.ReadAt(b, 0); n != len(b) || err != nil {
		t.Fatalf("read: got %d, %v", n, err)
	}
	for i, c := range b {
		s := i / 512
		if zero := s == 1 || s == 5 || s == 6 || 9 <= s && s <= 12; zero != (c == 0) {
			t.Fatalf("sector %d is %d", s, c)
		}
	}
	if n, err := p.ReadAt(b[:100], 17*512-50); n != 50 || err != io.EOF {
		t.Errorf("at the end: got %d, %v", n, err)
	}
	if n, err := p.ReadAt(b, 17*512); n != 0 || err != io.EOF {
		t.Errorf("past the end: got %d, %v", n, err)
	}
	src.data = data[:10*512]
	if _, err := p.ReadAt(b, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a disk that shrank: got %v", err)
	}
}
