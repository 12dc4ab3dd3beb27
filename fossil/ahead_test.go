package fossil

import (
	"bytes"
	"context"
	"testing"
	"time"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// A watched store tells of each leaf that is read.
type watched struct {
	venti.Store
	leaves chan venti.Score
}

func (w *watched) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	if t == venti.DataType {
		w.leaves <- s
	}
	return w.Store.ReadBlock(ctx, s, t, buf)
}

// TestReadAhead reads the beginning of a file on Venti: leaves follow that
// nobody asked for, each once, and those of a reader who jumps do not.
func TestReadAhead(t *testing.T) {
	st := &watched{ventitest.NewMemory(), make(chan venti.Score, 10000)}
	data := ventitest.Block(5, 4<<20)
	e, _, err := hashtree.Write(t.Context(), st.Store, bytes.NewReader(data), int64(len(data)), hashtree.Config{DSize: 8192})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := e.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	top, err := st.WriteBlock(t.Context(), venti.DirType, dir)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := (&venti.Root{Name: "x", Type: "file", Score: top, BlockSize: 8192}).Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := st.WriteBlock(t.Context(), venti.RootType, packed)
	if err != nil {
		t.Fatal(err)
	}
	fs := mustOpen(t, newFS(t, disk.NewMachine(), 8<<20, 8192), Config{Venti: st, Interval: time.Hour})
	defer mustClose(t, fs)
	f, err := walk(t, fs, "/active").Graft(t.Context(), "f", root, 0, "ken")
	if err != nil {
		t.Fatal(err)
	}
	read := func(off int64) {
		t.Helper()
		b := make([]byte, 8192)
		if n, err := f.ReadAt(t.Context(), b, off); err != nil || !bytes.Equal(b[:n], data[off:off+8192]) {
			t.Fatalf("read at %d: %d bytes, %v", off, n, err)
		}
	}
	for i := range int64(10) { // here and there
		read((i*37 + 100) % 500 * 8192)
	}
	if n := len(st.leaves); n != 10 {
		t.Errorf("%d leaves read for 10", n)
	}
	seen := map[venti.Score]bool{}
	for len(st.leaves) > 0 {
		seen[<-st.leaves] = true
	}
	read(0)
	read(8192)
	for range aheadBytes / 8192 { // they come, asked for or not
		s := <-st.leaves
		if seen[s] {
			t.Errorf("leaf %v is read twice", s)
		}
		seen[s] = true
	}
	for off := int64(2 * 8192); off < int64(len(data)); off += 8192 {
		read(off)
	}
}
