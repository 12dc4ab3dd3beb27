package fossil

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"strata/internal/disk"
	"strata/vac"
	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// play does random steps on a file system, and returns the player.
func play(t *testing.T, fs *FS, seed uint64, steps int) *player {
	t.Helper()
	p := &player{
		t: t, fs: fs, rng: rand.New(rand.NewPCG(seed, 9)), root: newNode(true, 0, 0), maxData: 100 << 10,
		snaps: map[string]*node{},
	}
	p.more(steps)
	return p
}

func (p *player) more(steps int) {
	p.t.Helper()
	for range steps {
		if err := p.play(); err != nil {
			p.t.Fatalf("step %d: %v", p.step, err)
		}
	}
}

// archive takes an archival snapshot and has it archived.
func (p *player) archive() venti.Score {
	p.t.Helper()
	path, err := p.fs.Snapshot(context.Background(), SnapConfig{Archive: true})
	if err != nil {
		p.t.Fatal(err)
	}
	p.snaps[path] = p.root.clone().archived()
	s, err := p.fs.Archive(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// archived makes of n what an archive has of it: temporary files are empty.
func (n *node) archived() *node {
	for _, k := range n.kids {
		if k.mode&meta.ModeTemporary != 0 {
			k.data, k.kids = nil, map[string]*node{}
		}
		k.archived()
	}
	return n
}

// sameVac checks that vac finds in a directory what the model has.
func sameVac(t *testing.T, dir *vac.File, n *node, path string) {
	t.Helper()
	seen := 0
	for f, err := range dir.ReadDir(t.Context()) {
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		k, p := n.kids[f.Name], path+"/"+f.Name
		if k == nil {
			t.Errorf("%s should not be", p)
			continue
		}
		seen++
		if k.dir {
			sameVac(t, f, k, p)
			continue
		}
		r, err := f.Open(hashtree.ReaderConfig{})
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		got := make([]byte, len(k.data)+1)
		m, err := r.ReadAt(got, 0)
		if err != nil && err != io.EOF || !bytes.Equal(got[:m], k.data) {
			t.Errorf("%s: %d bytes, %v, want %d", p, m, err, len(k.data))
		}
	}
	if seen != len(n.kids) {
		t.Errorf("%s: %d names, want %d", path, seen, len(n.kids))
	}
}

// TestArchive archives what a model does, four times, reads it here and with
// vac, and makes a file system of the last archive.
func TestArchive(t *testing.T) {
	for _, bs := range []int{1024, 8192} {
		t.Run(fmt.Sprint(bs), func(t *testing.T) {
			t.Parallel()
			st := ventitest.NewMemory()
			d := newFS(t, disk.NewMachine(), 32<<20, bs)
			c := newClock()
			cfg := Config{Venti: st, Now: c.Now, Interval: time.Hour}
			fs := mustOpen(t, d, cfg)
			p := play(t, fs, uint64(bs), 100)
			var score, last venti.Score
			for range 4 {
				c.now = c.now.Add(24 * time.Hour)
				score, last = p.archive(), score
				same(t, walk(t, fs, "/active"), p.root, "")
				sameSnaps(t, fs, p.snaps)
				clean(t, fs)
				if t.Failed() {
					t.FailNow()
				}
				p.more(60)
			}
			if fs.b.Super().Last != score {
				t.Errorf("last %v, want %v", fs.b.Super().Last, score)
			}
			mustClose(t, fs)

			a, err := vac.Open(t.Context(), st, score)
			if err != nil {
				t.Fatal(err)
			}
			if a.Head.Prev != last {
				t.Errorf("previous archive %v, want %v", a.Head.Prev, last)
			}
			day, err := a.Root.Walk(t.Context(), "archive")
			for _, name := range []string{"2026", c.now.Format("0102")} {
				if err == nil {
					day, err = day.Walk(t.Context(), name)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			sameVac(t, day, p.snaps[c.now.Format("/archive/2006/0102")], "")

			// The day's directory is an archive of its own, which can be grafted.
			path := c.now.Format("/archive/2006/0102")
			fs = mustOpen(t, d, cfg)
			score1, err := fs.Vac(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if a, err = vac.Open(t.Context(), st, score1); err != nil {
				t.Fatal(err)
			}
			sameVac(t, a.Root, p.snaps[path], "")
			if _, err := walk(t, fs, "/active").Graft(t.Context(), "grafted", score1, 0, "ken"); err != nil {
				t.Fatal(err)
			}
			same(t, walk(t, fs, "/active/grafted"), p.snaps[path], "")
			if again, err := fs.Vac(t.Context(), path); err != nil || again != score1 {
				t.Errorf("the score has become %v, %v, from %v", again, err, score1)
			}
			if _, err := fs.Vac(t.Context(), "/active"); !errors.Is(err, ErrNotOnVenti) {
				t.Errorf("vac of what is not on Venti: %v", err)
			}
			mustClose(t, fs)

			// Restored, the active tree and all archives are there.
			again := disk.NewMachine().NewDisk("again", 16<<20)
			if err := Format(t.Context(), again, FormatConfig{BlockSize: bs, Venti: st, Score: score}); err != nil {
				t.Fatal(err)
			}
			restored := mustOpen(t, again, cfg)
			same(t, walk(t, restored, "/active"), p.snaps[c.now.Format("/archive/2006/0102")], "")
			for path, n := range p.snaps {
				if path[1] == 'a' {
					same(t, walk(t, restored, path), n, path)
				}
			}
			p = play(t, restored, 77, 0)
			for name := range map[string]bool{"x1": true, "x2": true} {
				if _, err := walk(t, restored, "/active").Create(t.Context(), "new"+name, 0o644, "ken"); err != nil {
					t.Fatal(err)
				}
			}
			clean(t, restored)
			mustClose(t, restored)
		})
	}
}

// TestArchiveGivesBlocksBack archives a large file: its blocks are free then.
func TestArchiveGivesBlocksBack(t *testing.T) {
	st := ventitest.NewMemory()
	d := newFS(t, disk.NewMachine(), 16<<20, 1024)
	fs := mustOpen(t, d, Config{Venti: st, Interval: time.Hour, NoAtime: true, Now: newClock().Now})
	defer mustClose(t, fs)
	before := fs.used(t)
	f, err := walk(t, fs, "/active").Create(t.Context(), "f", 0o644, "ken")
	if err != nil {
		t.Fatal(err)
	}
	data := ventitest.Block(1, 4<<20)
	if _, err := f.WriteAt(t.Context(), data, 0, "ken"); err != nil {
		t.Fatal(err)
	}
	p := &player{t: t, fs: fs, root: newNode(true, 0, 0), snaps: map[string]*node{}}
	p.archive()
	if used := fs.used(t); used > before+40 {
		t.Errorf("%d blocks are used though all are on Venti", used-before)
	}
	got := make([]byte, len(data))
	if n, err := f.ReadAt(t.Context(), got, 0); err != nil || n != len(got) || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	blocks := st.Len()
	if _, err := f.WriteAt(t.Context(), []byte("x"), 3<<20, "ken"); err != nil {
		t.Fatal(err)
	}
	p.archive()
	if n := st.Len() - blocks; n > 40 {
		t.Errorf("%d blocks archived after a change of one byte", n)
	}
	clean(t, fs)
}

// TestArchiveFault has each operation of Venti fail once: the archive is made
// all the same when it is tried again, and nothing is lost meanwhile.
func TestArchiveFault(t *testing.T) {
	eachFault(t, func(n int64) (hit bool) {
		var mu sync.Mutex // guards armed, count and hit
		armed, count := false, int64(0)
		arm := func(on bool) {
			mu.Lock()
			defer mu.Unlock()
			armed = on
		}
		faulty := ventitest.NewFaulty(ventitest.NewMemory(), func(ventitest.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if !armed {
				return nil
			}
			if count++; count == n+1 {
				hit = true
				return errFault
			}
			return nil
		})
		d := newFS(t, disk.NewMachine(), 16<<20, 1024)
		c := newClock()
		fs := mustOpen(t, d, Config{Venti: faulty, Now: c.Now, Interval: time.Hour, NoArchiver: true})
		p := play(t, fs, 3, 60)
		arm(true)
		path, err := fs.Snapshot(t.Context(), SnapConfig{Archive: true})
		if err != nil {
			t.Fatal(err)
		}
		p.snaps[path] = p.root.clone()
		_, err = fs.Archive(t.Context())
		done := fs.Last() != venti.EmptyScore // what failed came after it
		if hit && !done && !errors.Is(err, errFault) || (done || !hit) && err != nil {
			t.Fatalf("operation %d: %v", n, err)
		}
		arm(false)
		same(t, walk(t, fs, "/active"), p.root, "")
		clean(t, fs)
		mustClose(t, fs)
		fs = mustOpen(t, d, Config{Venti: faulty, Now: c.Now, Interval: time.Hour, NoArchiver: true})
		if _, err = fs.Archive(t.Context()); err != nil {
			t.Fatalf("operation %d, again: %v", n, err)
		}
		p.snaps[path].archived()
		sameSnaps(t, fs, p.snaps)
		clean(t, fs)
		mustClose(t, fs)
		if t.Failed() {
			t.Fatalf("operation %d", n)
		}
		return hit
	})
}

// TestArchiveCrash cuts the power while an archive is made, and has it made
// afterwards: Venti has lost what it had not synced.
func TestArchiveCrash(t *testing.T) {
	m := disk.NewMachine()
	d := newFS(t, m, 16<<20, 1024)
	c := newClock()
	st := ventitest.NewMemory()
	cfg := Config{Venti: st, Now: c.Now, Interval: time.Hour, NoArchiver: true}
	fs := mustOpen(t, d, cfg)
	p := play(t, fs, 4, 150)
	p.archive()
	p.more(60)
	path, err := fs.Snapshot(t.Context(), SnapConfig{Archive: true})
	if err != nil {
		t.Fatal(err)
	}
	p.snaps[path] = p.root.clone()
	if err := fs.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	var points []*disk.Snapshot
	m.Record(func(_ disk.Op, at *disk.Snapshot) { points = append(points, at) })
	if _, err := fs.Archive(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, fs)
	m.Record(nil)
	p.snaps[path].archived()
	rng := rand.New(rand.NewPCG(1, 1))
	list := rng.Perm(len(points))
	list = list[:min(len(list), trials(10))]
	t.Logf("%d writes and syncs; power cuts at %d of them", len(points), len(list))
	for _, i := range list {
		after := points[i].Crash(rng)
		fs := mustOpen(t, after.Disk("part"), cfg)
		same(t, walk(t, fs, "/active"), p.root, "")
		if _, err := fs.Archive(t.Context()); err != nil {
			t.Fatalf("power cut after operation %d: %v", i, err)
		}
		same(t, walk(t, fs, "/active"), p.root, "")
		sameSnaps(t, fs, p.snaps)
		clean(t, fs)
		mustClose(t, fs)
		if t.Failed() {
			t.Fatalf("power cut after operation %d", i)
		}
	}
}
