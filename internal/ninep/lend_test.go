package ninep_test

import (
	"bytes"
	"sync/atomic"
	"testing"

	"strata/internal/ninep"
)

// A lentFile lends its bytes in pieces, and counts them until they are given
// back.
type lentFile struct {
	block
	piece int
	out   atomic.Int32 // lent now
	lent  atomic.Int32 // lent ever
	busy  bool         // has to wait
}

func (f *lentFile) Lend(bufs [][]byte, n int, off int64) ([][]byte, func(), bool) {
	if f.busy {
		return bufs, nil, false
	}
	off = min(off, int64(len(f.block)))
	p := f.block[off:min(int64(len(f.block)), off+int64(n))]
	for len(p) > 0 {
		k := min(f.piece, len(p))
		bufs, p = append(bufs, p[:k]), p[k:]
	}
	f.lent.Add(1)
	f.out.Add(1)
	return bufs, func() { f.out.Add(-1) }, true
}

// TestLend has large reads sent from the tree's own memory, which it gets
// back, whether the client takes them or not.
func TestLend(t *testing.T) {
	for _, busy := range []bool{false, true} {
		f := &lentFile{block: block(pattern(1 << 20)), piece: 5003, busy: busy}
		node := ninep.NewFile(ninep.Dir{Name: "f", Mode: 0444, Length: 1 << 20, Qid: ninep.Qid{Path: 2}}, f)
		tree := fixedFS{ninep.NewDir(ninep.Dir{Name: "/", Qid: ninep.Qid{Path: 1}}, map[string]ninep.Node{"f": node})}
		c, root := dial(t, tree, ninep.ClientConfig{Dialect: ninep.Linux, Msize: 100_000})
		g := mustWalk(t, root, "f")
		if err := g.Open(t.Context(), ninep.OREAD); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1<<20+10)
		for _, off := range []int{0, 1, 500_000, 1<<20 - 20_000, 1<<20 - 1, 1 << 20, 2 << 20} {
			n, _ := g.ReadAt(t.Context(), got, int64(off))
			if want := f.block[min(off, 1<<20):]; !bytes.Equal(got[:n], want) {
				t.Errorf("busy %v: read at %d: %d bytes, want %d, or they differ", busy, off, n, len(want))
			}
		}
		if n, _ := g.ReadAt(t.Context(), got[:100], 77); !bytes.Equal(got[:n], f.block[77:177]) {
			t.Error("a small read differs")
		}
		c.Close()
		if f.lent.Load() == 0 != busy || f.out.Load() != 0 {
			t.Errorf("busy %v: lent %d times, %d not given back", busy, f.lent.Load(), f.out.Load())
		}
		if busy {
			continue
		}
		// A client that asks and goes.
		near, far := socketPair(t)
		ended := make(chan error, 1)
		go func() { ended <- ninep.NewServer(tree, ninep.Config{}).ServeConn(t.Context(), far) }()
		p := newPeer(t, near)
		p.start(ninep.Linux, 1<<20)
		p.must(ninep.Fcall{Type: ninep.Twalk, Fid: 1, Newfid: 2, Names: []string{"f"}})
		p.must(ninep.Fcall{Type: ninep.Tlopen, Fid: 2})
		for tag := range uint16(20) {
			p.send(ninep.Fcall{Type: ninep.Tread, Tag: tag, Fid: 2, Count: 1 << 20})
		}
		near.Close()
		<-ended
		if f.out.Load() != 0 {
			t.Errorf("%d not given back to a client that has gone", f.out.Load())
		}
	}
}
