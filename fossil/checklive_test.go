package fossil

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/internal/disk"
	"strata/vac/meta"
	"strata/venti/ventitest"
)

// TestCheckLive checks a file system again and again while files are written,
// snapshots taken, let go of and archived: there is never anything wrong.
func TestCheckLive(t *testing.T) {
	for _, bs := range []int{1024, 8192} {
		t.Run(fmt.Sprint(bs), func(t *testing.T) {
			t.Parallel()
			d := newFS(t, disk.NewMachine(), 64<<20, bs)
			c := newClock()
			fs := mustOpen(t, d, Config{Memory: 4 << 20, Venti: ventitest.NewMemory(), Now: c.Now, NoArchiver: true, Interval: time.Millisecond})
			ctx, stop := context.WithCancel(t.Context())
			var writer sync.WaitGroup
			steps := 0
			writer.Go(func() {
				p := &player{t: t, fs: fs, rng: rand.New(rand.NewPCG(uint64(bs), 7)), root: newNode(true, 0, 0), maxData: 200 << 10, snaps: map[string]*node{}}
				for ; ctx.Err() == nil; steps++ {
					if err := p.play(); err != nil {
						t.Errorf("step %d: %v", steps, err)
						return
					}
					if steps%40 != 39 {
						continue
					}
					if _, err := fs.Snapshot(ctx, SnapConfig{Archive: true}); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
					if _, err := fs.Archive(ctx); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
					if err := fs.SnapClean(ctx, 0); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			})
			for i := range trials(9) {
				r, err := fs.Check(t.Context(), CheckConfig{Snapshots: i%2 == 0, Venti: i%4 == 3, Fix: AllRepairs})
				if err != nil {
					t.Error(err)
				}
				for _, f := range r.Findings {
					t.Errorf("check %d: %s (%s)", i, f.Text, f.Repair)
				}
				if t.Failed() {
					break
				}
			}
			stop()
			writer.Wait()
			t.Logf("%d steps meanwhile", steps)
			if err := fs.Sync(t.Context()); err != nil {
				t.Error(err)
			}
			if err := fs.b.Settle(t.Context()); err != nil {
				t.Error(err)
			}
			clean(t, fs)
			mustClose(t, fs)
		})
	}
}

// A gate is a disk on which a read at some place waits.
type gate struct {
	disk.File
	at             int64
	reached, leave chan struct{}
	once           sync.Once
}

func (g *gate) ReadAt(b []byte, off int64) (int, error) {
	if off == g.at {
		g.once.Do(func() { close(g.reached) })
		<-g.leave
	}
	return g.File.ReadAt(b, off)
}

// TestCheckStallsNobody has a check wait for the disk, and clients do all that
// they can meanwhile: also what changes the blocks that the check has still to
// look at.
func TestCheckStallsNobody(t *testing.T) {
	s := newScene(t, 1024)
	cold := s.root("/active/same/file4", false)
	g := &gate{File: s.d, at: s.h.Offset(s.h.Data + cold), reached: make(chan struct{}), leave: make(chan struct{})}
	fs := mustOpen(t, g, Config{})
	type outcome struct {
		r   CheckResult
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := fs.Check(t.Context(), CheckConfig{Snapshots: true})
		done <- outcome{r, err}
	}()
	<-g.reached
	ctx := t.Context()
	for i := range 50 {
		f, err := walk(t, fs, "/active/new").Create(ctx, fmt.Sprintf("later%d", i), 0o644, "ken")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(ctx, make([]byte, 5000), 0, "ken"); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := f.Remove(ctx, "ken"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, path := range []string{"/active/both/file4", "/active/both/file3", "/active/new/dir/file", "/active/new/dir"} {
		if err := walk(t, fs, path).Remove(ctx, "ken"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fs.Snapshot(ctx, SnapConfig{Path: "/snapshot/now"}); err != nil {
		t.Fatal(err)
	}
	if err := fs.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
		t.Fatal("the check did not wait")
	default:
	}
	close(g.leave)
	o := <-done
	if o.err != nil || len(o.r.Findings) > 0 {
		t.Errorf("found %+v, %v", o.r.Findings, o.err)
	}
	clean(t, fs)
	mustClose(t, fs)
}

// TestCheckPending crashes while a large tree is being closed: a check that
// only reads does not take its blocks for lost.
func TestCheckPending(t *testing.T) {
	m := disk.NewMachine()
	d := newFS(t, m, 16<<20, 1024)
	fs := mustOpen(t, d, Config{Interval: time.Hour})
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = byte(i/1024 + 1)
	}
	var files []*File
	for i := range 10 { // a small tree can be closed by the time that its removal is on disk
		f, err := walk(t, fs, "/active").Create(t.Context(), fmt.Sprint("large", i), 0o644, "ken")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(t.Context(), p, 0, "ken"); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if err := fs.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	var points []*disk.Snapshot
	m.Record(func(_ disk.Op, at *disk.Snapshot) { points = append(points, at) })
	for _, f := range files {
		if err := f.Remove(t.Context(), "ken"); err != nil {
			t.Fatal(err)
		}
		if err := fs.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, fs)
	m.Record(nil)
	pending := 0
	for i, at := range points {
		fs := mustOpen(t, at.Crash(rand.New(rand.NewPCG(uint64(i), 1))).Disk("part"), Config{ReadOnly: true})
		r, err := fs.Check(t.Context(), CheckConfig{})
		if err != nil || len(r.Findings) > 0 {
			t.Errorf("power cut after operation %d: %d findings, %v", i, len(r.Findings), err)
		}
		mom, err := fs.b.Hold(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := mom.Closing(t.Context(), func(uint32) { pending++ }); err != nil {
			t.Error(err)
		}
		mom.Release()
		mustClose(t, fs)
	}
	if t.Logf("%d power cuts, %d blocks left to be closed", len(points), pending); pending == 0 {
		t.Error("no crash has left a tree to be closed")
	}
}

// TestRepairLive repairs a file system on which others work.
func TestRepairLive(t *testing.T) {
	s := newScene(t, 1024)
	s.setName(s.spot("/active/both/file4", false), func(*meta.DirEntry) *meta.DirEntry { return nil })
	s.change(s.spot("/active/new/file0", false).names, func(b []byte) { b[0]++ })
	s.setEntry(s.spot("/active/both/file3", false), func(e *format.Entry) { e.Gen++ })
	fs := mustOpen(t, s.d, Config{})
	var workers sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for i := range 3 {
		workers.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				name := fmt.Sprintf("w%d.%d", i, k)
				dir := walk(t, fs, "/active/both")
				f, err := dir.Create(ctx, name, 0o644, "ken")
				if err == nil {
					_, err = f.WriteAt(ctx, make([]byte, 3000*k%10000), 0, "ken")
				}
				if err == nil && k > 5 {
					err = f.Remove(ctx, "ken")
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	open := walk(t, fs, "/active/both/file2")
	r, err := fs.Check(t.Context(), CheckConfig{Snapshots: true, Fix: AllRepairs})
	if err != nil || r.Left() > 0 || r.Done.Clri == 0 || r.Done.Clre == 0 {
		t.Errorf("done %v, left %v, %v", r.Done, r.Todo, err)
	}
	stop()
	workers.Wait()
	if _, err := open.WriteAt(t.Context(), []byte("still open"), 0, "ken"); err != nil {
		t.Error(err)
	}
	if _, err := walk(t, fs, "/active/new").Create(t.Context(), "works again", 0o644, "ken"); err != nil {
		t.Error(err)
	}
	if err := fs.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	clean(t, fs)
	mustClose(t, fs)
}

// TestCheckTurn has a check wait for another.
func TestCheckTurn(t *testing.T) {
	fs := mustOpen(t, newFS(t, disk.NewMachine(), 4<<20, 1024), Config{})
	defer mustClose(t, fs)
	m, err := fs.b.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Another check waits for its turn, and for no longer than it may.
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := fs.Check(ctx, CheckConfig{}); err == nil {
		t.Error("a check that was given up")
	}
	m.Release()
	if _, err := m.Label(t.Context(), 1000); err != buffer.ErrPassed {
		t.Errorf("a label of a moment that was released: %v", err)
	}
	clean(t, fs)
}
