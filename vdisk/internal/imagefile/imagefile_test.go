package imagefile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReadAt reads a disk of ten bytes, at most three at a time.
func TestReadAt(t *testing.T) {
	disk := []byte("0123456789")
	broken := errors.New("broken")
	some := func(p []byte, off int64) (int, error) {
		if off == 9 {
			return 0, broken
		}
		return copy(p[:min(len(p), 3)], disk[off:9]), nil
	}
	for _, c := range []struct {
		off, size int64
		len       int
		want      string
		err       error
	}{
		{0, 9, 4, "0123", nil},
		{2, 9, 7, "2345678", nil},
		{2, 9, 8, "2345678", io.EOF},
		{9, 9, 1, "", io.EOF},
		{7, 10, 3, "78", broken},
	} {
		p := make([]byte, c.len)
		n, err := ReadAt(p, c.off, c.size, some)
		if string(p[:n]) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%d at %d of %d: got %q, %v; want %q, %v", c.len, c.off, c.size, p[:n], err, c.want, c.err)
		}
	}
	if _, err := ReadAt(make([]byte, 1), -1, 9, some); err == nil || err == io.EOF {
		t.Errorf("before the beginning: got %v", err)
	}
}

// TestCache counts reads.
func TestCache(t *testing.T) {
	c := NewCache[int](2)
	reads := 0
	get := func(key int) {
		t.Helper()
		b, err := c.Get(key, func() ([]byte, error) { reads++; return []byte{byte(key)}, nil })
		if err != nil || !bytes.Equal(b, []byte{byte(key)}) {
			t.Fatalf("%d: got %v, %v", key, b, err)
		}
	}
	for i, key := range []int{1, 2, 1, 3, 1, 2} { // 3 takes the place of 2
		get(key)
		if want := []int{1, 2, 2, 3, 3, 4}[i]; reads != want {
			t.Fatalf("get %d: %d reads, want %d", i, reads, want)
		}
	}
	broken := errors.New("broken")
	if _, err := c.Get(9, func() ([]byte, error) { return nil, broken }); err != broken {
		t.Errorf("got %v", err)
	}
	get(9) // nothing was kept
}

func TestUnchanged(t *testing.T) {
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, []byte("disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	w := Watch(f, fi)
	if err := w.Unchanged(); err != nil {
		t.Error(err)
	}
	if err := os.Chtimes(name, time.Time{}, fi.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := w.Unchanged(); err == nil || !strings.Contains(err.Error(), "was written to") {
		t.Errorf("got %v", err)
	}
}
