package fossil

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"strata/internal/disk"
	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// rootOf writes a root block that names one file.
func rootOf(t testing.TB, st venti.Store, e venti.Entry) venti.Score {
	t.Helper()
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
	return root
}

// A sparse file has a block of its own each gigabyte, and holes between.
type sparse struct{ size int64 }

const gigabyte = 1 << 30

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for i := range p {
		if at := off + int64(i); at%gigabyte < 4096 {
			p[i] = byte(1 + at/gigabyte + at%251)
		}
	}
	return len(p), nil
}

// NextData implements hashtree.DataSeeker.
func (s sparse) NextData(off int64) (start, end int64, err error) {
	if off%gigabyte >= 4096 {
		off += gigabyte - off%gigabyte
	}
	if off >= s.size {
		return 0, 0, io.EOF
	}
	return off, off - off%gigabyte + 4096, nil
}

// A depth store counts reads, and how many are under way at once; each takes
// some time.
type depthStore struct {
	venti.Store
	wait          time.Duration
	reads         atomic.Int64
	running, most atomic.Int64
}

func (d *depthStore) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	d.reads.Add(1)
	n := d.running.Add(1)
	defer d.running.Add(-1)
	for {
		if m := d.most.Load(); n <= m || d.most.CompareAndSwap(m, n) {
			break
		}
	}
	time.Sleep(d.wait)
	return d.Store.ReadBlock(ctx, s, t, buf)
}

// TestGraftLarge makes a file of a hundred gigabytes from a score, and one of a
// megabyte: that costs the same. The first read of each takes a round trip for
// each level of its tree.
func TestGraftLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const trip = time.Millisecond
		st := &depthStore{Store: ventitest.NewMemory(), wait: trip}
		small := ventitest.Block(1, 1<<20)
		se, _, err := hashtree.Write(t.Context(), st.Store, bytes.NewReader(small), int64(len(small)), hashtree.Config{DSize: 4096})
		if err != nil {
			t.Fatal(err)
		}
		large := sparse{100 * gigabyte}
		le, _, err := hashtree.Write(t.Context(), st.Store, large, large.size, hashtree.Config{DSize: 4096})
		if err != nil {
			t.Fatal(err)
		}
		fs := mustOpen(t, newFS(t, disk.NewMachine(), 8<<20, 4096), Config{Venti: st, Interval: time.Hour, NoAtime: true})
		defer mustClose(t, fs)
		active := walk(t, fs, "/active")
		type cost struct {
			reads int64
			used  uint32
			took  time.Duration
		}
		measure := func(do func()) cost {
			r, u, begin := st.reads.Load(), fs.used(t), time.Now()
			do()
			return cost{st.reads.Load() - r, fs.used(t) - u, time.Since(begin)}
		}
		var costs []cost
		for _, f := range []struct {
			name string
			e    venti.Entry
			off  int64
		}{{"warm", se, 4096}, {"small", se, 50 * 4096}, {"large", le, 77 * gigabyte}} {
			root := rootOf(t, st.Store, f.e)
			var file *File
			c := measure(func() {
				if file, err = active.Graft(t.Context(), f.name, root, 0, "ken"); err != nil {
					t.Fatal(err)
				}
			})
			costs = append(costs, c)
			got := make([]byte, 4096)
			if f.name == "warm" { // and with it what leads to files
				if _, err := file.ReadAt(t.Context(), got, f.off); err != nil {
					t.Fatal(err)
				}
				continue
			}
			levels := int64(f.e.Depth + 1)
			if f.name == "small" { // the pointers are those of warm
				levels = 1
			}
			c = measure(func() {
				if _, err := file.ReadAt(t.Context(), got, f.off); err != nil {
					t.Fatal(err)
				}
			})
			t.Logf("%s: graft: %+v; first read of %d levels: %+v", f.name, costs[len(costs)-1], levels, c)
			if c.reads != levels || c.took != time.Duration(levels)*trip || c.used != 0 {
				t.Errorf("%s: the first read of %d levels cost %+v", f.name, levels, c)
			}
			want := make([]byte, 4096)
			if large.ReadAt(want, f.off); f.name == "small" {
				copy(want, small[f.off:])
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: other bytes", f.name)
			}
		}
		if costs[1] != costs[2] {
			t.Errorf("a graft of a megabyte cost %+v, of a hundred gigabytes %+v", costs[1], costs[2])
		}
	})
}

// TestOneScoreOnce reads twenty files that are the same, and a copy that
// differs: each block is fetched and held once.
func TestOneScoreOnce(t *testing.T) {
	st := &depthStore{Store: ventitest.NewMemory()}
	data := ventitest.Block(1, 2<<20)
	e, _, err := hashtree.Write(t.Context(), st.Store, bytes.NewReader(data), int64(len(data)), hashtree.Config{DSize: 8192})
	if err != nil {
		t.Fatal(err)
	}
	root := rootOf(t, st.Store, e)
	fs := mustOpen(t, newFS(t, disk.NewMachine(), 8<<20, 8192), Config{Venti: st, Interval: time.Hour, NoAtime: true})
	defer mustClose(t, fs)
	var files []*File
	for i := range 20 {
		f, err := walk(t, fs, "/active").Graft(t.Context(), fmt.Sprint("f", i), root, 0, "ken")
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if _, err := files[7].WriteAt(t.Context(), []byte("another"), 1<<20, "ken"); err != nil {
		t.Fatal(err)
	}
	reads, held := st.reads.Load(), fs.b.Stats().Cached
	var g sync.WaitGroup
	for _, f := range files {
		g.Go(func() {
			got := make([]byte, len(data))
			if n, err := f.ReadAt(t.Context(), got, 0); err != nil || n != len(data) || !bytes.Equal(got[:1<<20], data[:1<<20]) {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	g.Wait()
	blocks := int64(len(data)/8192 + 1)
	if n := st.reads.Load() - reads; n > blocks {
		t.Errorf("%d blocks fetched for a file of %d", n, blocks)
	}
	if n := int64(fs.b.Stats().Cached - held); n > blocks {
		t.Errorf("%d blocks in memory for a file of %d", n, blocks)
	}
}

// TestManyInFlight reads a file on Venti from its beginning: most of the time
// many reads are under way, and it takes much less than one round trip for a
// block.
func TestManyInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &depthStore{Store: ventitest.NewMemory(), wait: 10 * time.Millisecond}
		data := ventitest.Block(1, 16<<20)
		e, _, err := hashtree.Write(t.Context(), st.Store, bytes.NewReader(data), int64(len(data)), hashtree.Config{DSize: 8192})
		if err != nil {
			t.Fatal(err)
		}
		fs := mustOpen(t, newFS(t, disk.NewMachine(), 8<<20, 8192), Config{Venti: st, Interval: time.Hour, NoAtime: true})
		defer mustClose(t, fs)
		f, err := walk(t, fs, "/active").Graft(t.Context(), "f", rootOf(t, st.Store, e), 0, "ken")
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for off := int64(0); off < int64(len(data)); off += 8192 {
			got := make([]byte, 8192)
			if _, err := f.ReadAt(t.Context(), got, off); err != nil || !bytes.Equal(got, data[off:off+8192]) {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Microsecond) // a client
		}
		took, blocks := time.Since(begin), len(data)/8192
		t.Logf("%d blocks in %v, at most %d at once", blocks, took, st.most.Load())
		if least := time.Duration(blocks) * 100 * time.Microsecond; took > 3*least {
			t.Errorf("%d blocks took %v, of which the client has %v", blocks, took, least)
		}
		if st.most.Load() < 32 {
			t.Errorf("at most %d reads at once", st.most.Load())
		}
	})
}

// TestMemory reads, writes and changes much more than there may be in memory,
// by many at once, and looks how much there is.
func TestMemory(t *testing.T) {
	const limit = 8 << 20
	st := ventitest.NewMemory()
	data := ventitest.Block(1, 64<<20)
	e, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(data), int64(len(data)), hashtree.Config{DSize: 8192})
	if err != nil {
		t.Fatal(err)
	}
	fs := mustOpen(t, newFS(t, disk.NewMachine(), 256<<20, 8192), Config{Venti: st, Interval: time.Hour, Memory: limit})
	defer mustClose(t, fs)
	active := walk(t, fs, "/active")
	if _, err := active.Graft(t.Context(), "grafted", rootOf(t, st, e), 0, "ken"); err != nil {
		t.Fatal(err)
	}
	most := 0
	var mu sync.Mutex // guards most
	look := func() {
		n := fs.b.Stats().Cached
		mu.Lock()
		defer mu.Unlock()
		most = max(most, n)
	}
	var g sync.WaitGroup
	for i := range 8 {
		g.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			dir, err := active.Create(t.Context(), fmt.Sprint("dir", i), meta.ModeDir|0o755, "ken")
			if err != nil {
				t.Error(err)
				return
			}
			grafted := walk(t, fs, "/active/grafted")
			buf := make([]byte, 128<<10)
			for k := range 150 {
				// A directory and a file in it: metadata in blocks of their own.
				d, err := dir.Create(t.Context(), fmt.Sprint("d", k), meta.ModeDir|0o755, "ken")
				if err == nil {
					_, err = d.Create(t.Context(), "f", 0o644, "ken")
				}
				if err == nil {
					var f *File
					if f, err = dir.Create(t.Context(), fmt.Sprint("f", k), 0o644, "ken"); err == nil {
						_, err = f.WriteAt(t.Context(), data[k<<10:][:64<<10], 0, "ken")
					}
				}
				if err == nil {
					_, err = grafted.ReadAt(t.Context(), buf, rng.Int64N(60<<20))
				}
				if err != nil {
					t.Error(err)
					return
				}
				look()
			}
		})
	}
	g.Wait()
	// Small changes to many blocks: their log is short.
	if err := fs.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	mode := meta.Mode(0o600)
	for i := range 8 {
		for k := range 150 {
			f := walk(t, fs, fmt.Sprintf("/active/dir%d/d%d/f", i, k))
			if err := f.SetAttr(t.Context(), Change{Mode: &mode}, "ken"); err != nil {
				t.Fatal(err)
			}
			look()
		}
	}
	blocks := limit / 8192
	t.Logf("at most %d blocks in memory, limit %d", most, blocks)
	if most > blocks*5/4 {
		t.Errorf("%d blocks in memory, and the limit is %d", most, blocks)
	}
	if most < blocks/2 {
		t.Errorf("only %d blocks in memory, where there may be %d", most, blocks)
	}
	s := fs.b.Stats()
	t.Logf("%+v", s)
	if s.Checkpoints == 0 || s.Commits == 0 {
		t.Error("nothing went to its place")
	}
}
