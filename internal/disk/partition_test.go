package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tempFile makes a file with the given content and returns its name.
func tempFile(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestOpenRange(t *testing.T) {
	content := make([]byte, 64<<10)
	for i := range content {
		content[i] = byte(i >> 9) // the number of the sector
	}
	name := tempFile(t, content)
	for _, c := range []struct {
		rng    string
		lo, hi int64 // hi 0: want an error
	}{
		{"", 0, 64 << 10},
		{":1k-2k", 1 << 10, 2 << 10},
		{":1K-2K", 1 << 10, 2 << 10},
		{":-0x1000", 0, 4096},
		{":0X200-01000", 0, 0}, // lo > hi? 512 > 512 is an empty range
		{":0x200-02000", 512, 1024},
		{":512-", 512, 64 << 10},
		{":512", 512, 64 << 10},
		{":512-0", 512, 64 << 10},
		{":0-64k", 0, 64 << 10},
		{":0-64k1", 0, 0},
		{":0-65k", 0, 0},
		{":2k-1k", 0, 0},
		{":-", 0, 0},
		{":", 0, 0},
		{":1q-2q", 0, 0},
		{":08-1k", 0, 0},
		{":9223372036854775807t", 0, 0},
		{":-1-5", 0, 0},
		{":data", 0, 0},
	} {
		p, err := Open(name+c.rng, Options{})
		if err != nil {
			if c.hi != 0 {
				t.Errorf("Open(disk%s): %v", c.rng, err)
			}
			continue
		}
		if c.hi == 0 {
			t.Errorf("Open(disk%s) succeeded, size %d", c.rng, p.Size())
		} else if got := make([]byte, p.Size()); p.Size() != c.hi-c.lo {
			t.Errorf("Open(disk%s): size %d, want %d", c.rng, p.Size(), c.hi-c.lo)
		} else if _, err := p.ReadAt(got, 0); err != nil || !bytes.Equal(got, content[c.lo:c.hi]) {
			t.Errorf("Open(disk%s): read other bytes, %v", c.rng, err)
		}
		p.Close()
	}
}

func TestOpenNamedAfterColon(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pci-0000:00")
	if err := os.WriteFile(name, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Open(name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}

func TestOpenPlan9Part(t *testing.T) {
	const table = "part arenas 4 8\npart isect 8 20\npart bad 9 99\n"
	direct := make([]byte, 20*512)
	copy(direct[512:], table)
	inMBR := make([]byte, 40*512)
	inMBR[510], inMBR[511] = 0x55, 0xaa
	inMBR[446+16+4] = 0x39
	binary.LittleEndian.PutUint32(inMBR[446+16+8:], 20)
	copy(inMBR[21*512:], table)
	plain := make([]byte, 40*512)
	for _, c := range []struct {
		name    string
		content []byte
		part    string
		lo, hi  int64
		err     string
	}{
		{"direct", direct, "arenas", 4, 8, ""},
		{"last", direct, "isect", 8, 20, ""},
		{"in MBR", inMBR, "arenas", 24, 28, ""},
		{"absent", direct, "bloom", 0, 0, "no sub-partition"},
		{"too long", direct, "bad", 0, 0, "bad line"},
		{"no table", plain, "arenas", 0, 0, "no Plan 9 partition table"},
		{"too short", plain[:600], "arenas", 0, 0, "read partition table"},
	} {
		p, err := Open(tempFile(t, c.content)+":"+c.part, Options{ReadOnly: true})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got error %v, want one with %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if p.lo != c.lo*512 || p.size != (c.hi-c.lo)*512 {
			t.Errorf("%s: got [%d, +%d), want [%d, +%d)", c.name, p.lo, p.size, c.lo*512, (c.hi-c.lo)*512)
		}
		p.Close()
	}
}

func TestLock(t *testing.T) {
	name := tempFile(t, make([]byte, 4096))
	open := func(rng string, ro bool) *Partition {
		t.Helper()
		p, err := Open(name+rng, Options{ReadOnly: ro})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	refused := func(rng string, ro bool) {
		t.Helper()
		p, err := Open(name+rng, Options{ReadOnly: ro})
		if err == nil {
			p.Close()
		}
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), name) {
			t.Errorf("Open(%q): got %v, want ErrInUse with the file's name", rng, err)
		}
	}
	low := open(":-1k", false)
	refused("", false)
	refused(":0-1", true)
	high := open(":1k-", false) // another part of the same file
	refused(":1k-", true)
	high.Close()
	reader := open(":1k-", true)
	open(":2k-3k", true).Close() // readers share
	refused(":3k-", false)
	reader.Close()
	low.Close()
	open("", false).Close()
}

func TestBounds(t *testing.T) {
	name := tempFile(t, make([]byte, 4096))
	p, err := Open(name+":1k-2k", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	sim := NewMachine().NewDisk("sim", 1024)
	for _, f := range []File{p, sim} {
		for _, c := range []struct {
			off int64
			n   int
			ok  bool
		}{
			{0, 1024, true}, {1023, 1, true}, {1024, 0, true}, {-1, 1, false}, {0, 1025, false},
			{1024, 1, false}, {1 << 62, 1, false},
		} {
			b := make([]byte, c.n)
			if _, err := f.ReadAt(b, c.off); (err == nil) != c.ok {
				t.Errorf("%T: read of %d at %d: %v", f, c.n, c.off, err)
			}
			if _, err := f.WriteAt(b, c.off); (err == nil) != c.ok {
				t.Errorf("%T: write of %d at %d: %v", f, c.n, c.off, err)
			}
		}
		if err := f.Sync(); err != nil {
			t.Errorf("%T: a refused write broke the file: %v", f, err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	p, err := Open(tempFile(t, make([]byte, 512)), Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.WriteAt([]byte{1}, 0); err == nil {
		t.Error("write to a read-only partition succeeded")
	}
	if err := p.Sync(); err != nil {
		t.Error(err)
	}
}

func TestFailureIsKept(t *testing.T) {
	p, err := Open(tempFile(t, make([]byte, 512)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.f.Close() // what a write now finds
	_, first := p.WriteAt([]byte{1}, 0)
	if !errors.Is(first, os.ErrClosed) {
		t.Fatalf("write: got %v, want ErrClosed", first)
	}
	for range 2 {
		if err := p.Sync(); err != first {
			t.Errorf("sync: got %v, want the first error", err)
		}
		if _, err := p.WriteAt([]byte{1}, 5); err != first {
			t.Errorf("write: got %v, want the first error", err)
		}
	}
}

func TestCreate(t *testing.T) {
	name := filepath.Join(t.TempDir(), "new")
	if err := Create(name, 12345); err != nil {
		t.Fatal(err)
	}
	if err := Create(name, 1); !errors.Is(err, os.ErrExist) {
		t.Errorf("create again: got %v, want ErrExist", err)
	}
	p, err := Open(name, Options{})
	if err != nil || p.Size() != 12345 {
		t.Fatalf("open: %v, size %d", err, p.Size())
	}
	p.Close()
	if _, err := Open(t.TempDir(), Options{ReadOnly: true}); err == nil {
		t.Error("opened a directory")
	}
	if _, err := Open("/dev/null", Options{ReadOnly: true}); err == nil {
		t.Error("opened a character device")
	}
}
