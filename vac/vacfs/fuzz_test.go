package vacfs_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"strata/internal/ninep"
	"strata/vac"
	"strata/vac/vacfs"
	"strata/venti"
	"strata/venti/ventitest"
)

// lying is a store of which one block is not what its score says: the one that
// is read as number which, counted from 0.
type lying struct {
	venti.BlockReader
	which, off int
	patch      []byte

	mu   sync.Mutex // guards the field below
	seen map[venti.Score]int
}

func (l *lying) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	n, err := l.BlockReader.ReadBlock(ctx, s, t, buf)
	if err != nil {
		return n, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.seen[s]; !ok {
		l.seen[s] = len(l.seen)
	}
	if l.seen[s] != l.which || l.off > n {
		return n, nil
	}
	return max(n, l.off+copy(buf[l.off:], l.patch)), nil
}

// FuzzTree changes a block of an archive, and looks at all files of what that
// makes of it, as far as they can be seen.
func FuzzTree(f *testing.F) {
	dir := f.TempDir()
	must(f, os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	for _, name := range []string{"x", "a/y", "a/b/z", "a/b/c/w"} {
		must(f, os.WriteFile(filepath.Join(dir, name), random(uint64(len(name)), 1500*len(name)), 0o644))
	}
	must(f, os.Symlink("a/b", filepath.Join(dir, "a", "link")))
	st := ventitest.NewMemory()
	score := stored(f, st, vac.Options{BlockSize: 1024}, dir)
	for i := range uint8(8) {
		f.Add(i, uint16(0), []byte{})
		f.Add(i, uint16(2), []byte{0xff, 0xff, 0xff, 0xff})
		f.Add(i, uint16(9), []byte("\x81\x00\x00/\x00.."))
		f.Add(i, uint16(40), []byte{0, 0, 0, 1, 3, 252, 4, 0, 0x43})
	}
	f.Fuzz(func(t *testing.T, which uint8, off uint16, patch []byte) {
		br := &lying{BlockReader: st, which: int(which % 16), off: int(off % 1024), patch: patch, seen: map[venti.Score]int{}}
		fs, err := vacfs.New(br, []vacfs.Archive{{Source: score}}, vacfs.Config{NoPermissions: true})
		must(t, err)
		defer fs.Close()
		root, err := fs.Attach(t.Context(), "glenda", "")
		if err != nil {
			return
		}
		left := 200
		look(t, root, &left)
	})
}

// look looks at a file and those below it, until it has seen enough.
func look(t *testing.T, n ninep.Node, left *int) {
	ctx := t.Context()
	if *left--; *left < 0 {
		return
	}
	d, err := n.Stat(ctx)
	if err != nil || d.Qid.Type != d.Mode.QidType() || d.Length < 0 {
		t.Errorf("%+v, %v", d, err)
	}
	h, err := n.Open(ctx, ninep.OREAD)
	if err != nil {
		return
	}
	defer h.Close(ctx)
	if r, ok := h.(ninep.Reader); ok {
		buf := make([]byte, 5000)
		for _, off := range []int64{0, 5000, d.Length / 2, max(d.Length-1, 0), d.Length} {
			if k, err := r.ReadAt(ctx, buf, off); err == nil && off < d.Length && k != int(min(5000, d.Length-off)) {
				t.Errorf("read at %d of %d: %d bytes", off, d.Length, k)
			}
		}
		return
	}
	last, entries := uint64(0), 0
	for e, err := range h.(ninep.DirReader).ReadDir(ctx, 0) {
		if err != nil {
			break
		}
		if !vac.ValidName(e.Name) || e.Cookie <= last || e.Cookie > ninep.MaxCookie {
			t.Errorf("entry %q has the cookie %d, after %d", e.Name, e.Cookie, last)
		}
		if last = e.Cookie; entries > 50 {
			break
		}
		entries++
		if child, err := n.Walk(ctx, e.Name); err == nil {
			look(t, child, left)
		}
	}
}
