package fossil

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"strata/internal/disk"
	"strata/vac/meta"
	"strata/venti/ventitest"
)

// A filler fills a file system, and knows what is in it.
type filler struct {
	t     *testing.T
	fs    *FS
	root  *node
	dirs  int
	files int
}

// fill makes directories of files until nothing more can be made. It returns
// how many bytes were written.
func (f *filler) fill() (total int64) {
	f.t.Helper()
	ctx := f.t.Context()
	active := walk(f.t, f.fs, "/active")
	for {
		name := fmt.Sprint("dir", f.dirs)
		f.dirs++
		dir, err := active.Create(ctx, name, meta.ModeDir|0o775, "ken")
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			f.t.Fatal(err)
		}
		d := newNode(true, meta.ModeDir|0o775, 0)
		f.root.kids[name] = d
		for k := range 20 {
			name := fmt.Sprint("file", k)
			file, err := dir.Create(ctx, name, 0o644, "ken")
			if errors.Is(err, ErrFull) {
				break
			}
			if err != nil {
				f.t.Fatal(err)
			}
			n := newNode(false, 0o644, 0)
			d.kids[name] = n
			data := ventitest.Block(uint64(f.files), 1000+f.files*997%20000)
			f.files++
			got, err := file.WriteAt(ctx, data, 0, "ken")
			if err != nil && !errors.Is(err, ErrFull) {
				f.t.Fatal(err)
			}
			n.data = data[:got]
			total += int64(got)
		}
	}
	// What needs a block is not to be had, and nothing is left of what failed. An
	// empty file may find room in blocks that there are.
	if _, err := active.Symlink(ctx, "link", strings.Repeat("x", 100), "ken"); !errors.Is(err, ErrFull) {
		f.t.Errorf("symlink on a full disk: %v", err)
	}
	for i := range 2000 {
		name := fmt.Sprint("empty", f.files)
		f.files++
		_, err := active.Create(ctx, name, 0o644, "ken")
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil || i == 1999 {
			f.t.Fatalf("%d empty files on a full disk: %v", i, err)
		}
		f.root.kids[name] = newNode(false, 0o644, 0)
	}
	same(f.t, active, f.root, "")
	if err := f.fs.Sync(ctx); err != nil {
		f.t.Errorf("sync of a full disk: %v", err)
	}
	return total
}

// empty removes all.
func (f *filler) empty() {
	f.t.Helper()
	for name, d := range f.root.kids {
		dir := walk(f.t, f.fs, "/active/"+name)
		for name := range d.kids {
			if err := walk(f.t, f.fs, "/active/"+dir.DirEntry().Name+"/"+name).Remove(f.t.Context(), "ken"); err != nil {
				f.t.Fatalf("remove a file of %s from a full disk: %v", dir.DirEntry().Name, err)
			}
		}
		if err := dir.Remove(f.t.Context(), "ken"); err != nil {
			f.t.Fatalf("remove %s from a full disk: %v", name, err)
		}
	}
	f.root = newNode(true, 0, 0)
}

// TestFull fills a small partition, again and again: what makes room works
// then, and there is as much of it as before.
func TestFull(t *testing.T) {
	for _, bs := range []int{1024, 8192} {
		t.Run(fmt.Sprint(bs), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			d := newFS(t, disk.NewMachine(), 4<<20, bs)
			c := newClock()
			fs := mustOpen(t, d, Config{Venti: ventitest.NewMemory(), NoArchiver: true, Interval: time.Hour, Now: c.Now})
			f := &filler{t: t, fs: fs, root: newNode(true, 0, 0)}
			first := f.fill()
			clean(t, fs)
			f.empty()
			if n := f.fill(); n < first*9/10 {
				t.Errorf("filled with %d bytes, and with %d after all was removed", first, n)
			}

			// With a snapshot, removing gives nothing back, but it works.
			snaps := map[string]*node{}
			path, err := fs.Snapshot(ctx, SnapConfig{})
			if err != nil {
				t.Fatalf("snapshot of a full disk: %v", err)
			}
			snaps[path] = f.root
			f.root = f.root.clone()
			i := 0
			for name := range f.root.kids { // a part: each directory takes new blocks
				if i++; i > 4 {
					break
				}
				for file := range f.root.kids[name].kids {
					if err := walk(t, fs, "/active/"+name+"/"+file).Remove(ctx, "ken"); err != nil {
						t.Fatalf("remove from a full disk with a snapshot: %v", err)
					}
				}
				f.root.kids[name].kids = map[string]*node{}
			}
			same(t, walk(t, fs, "/active"), f.root, "")
			sameSnaps(t, fs, snaps)
			c.now = c.now.Add(time.Hour)
			if err := fs.SnapClean(ctx, time.Minute); err != nil {
				t.Fatalf("clean a full disk: %v", err)
			}
			sameSnaps(t, fs, map[string]*node{})
			f.fill()
			f.empty()
			if n := f.fill(); n < first*9/10 {
				t.Errorf("filled with %d bytes, and with %d after the snapshot is gone", first, n)
			}
			clean(t, fs)

			// What is archived need not be here.
			path, err = fs.Snapshot(ctx, SnapConfig{Archive: true})
			if err != nil {
				t.Fatalf("archival snapshot of a full disk: %v", err)
			}
			snaps = map[string]*node{path: f.root.clone()}
			if _, err := fs.Archive(ctx); err != nil {
				t.Fatalf("archive a full disk: %v", err)
			}
			if err := fs.SnapClean(ctx, time.Minute); err != nil {
				t.Fatal(err)
			}
			if n := f.fill(); n < first*8/10 {
				t.Errorf("filled with %d bytes, and with %d more when they were archived", first, n)
			}
			sameSnaps(t, fs, snaps)
			mustClose(t, fs)
			fs = mustOpen(t, d, Config{ReadOnly: true, Venti: fs.venti})
			same(t, walk(t, fs, "/active"), f.root, "")
			sameSnaps(t, fs, snaps)
			clean(t, fs)
			mustClose(t, fs)
		})
	}
}

// TestFullSnapshots takes snapshots of a full disk until there is no reserve
// left for them: then it says so, and letting go of them still works.
func TestFullSnapshots(t *testing.T) {
	for _, bs := range []int{1024, 8192} {
		t.Run(fmt.Sprint(bs), func(t *testing.T) {
			t.Parallel()
			d := newFS(t, disk.NewMachine(), 4<<20, bs)
			c := newClock()
			fs := mustOpen(t, d, Config{Interval: time.Hour, Now: c.Now})
			defer mustClose(t, fs)
			f := &filler{t: t, fs: fs, root: newNode(true, 0, 0)}
			first := f.fill()
			n := 0
			for ; ; n++ {
				c.now = c.now.Add(24 * time.Hour) // a directory for each
				_, err := fs.Snapshot(t.Context(), SnapConfig{})
				if errors.Is(err, ErrFull) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				// Reading leaves times of access, which take no blocks then.
				same(t, walk(t, fs, "/active"), f.root, "")
			}
			t.Logf("%d snapshots of a full disk", n)
			if n < 2 {
				t.Errorf("%d snapshots of a full disk", n)
			}
			if err := fs.SnapClean(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			f.empty()
			if n := f.fill(); n < first*9/10 {
				t.Errorf("filled with %d bytes, and with %d afterwards", first, n)
			}
			clean(t, fs)
		})
	}
}

// TestFullWrites writes to files that are there, on a full disk: what they have
// stays when a write fails.
func TestFullWrites(t *testing.T) {
	d := newFS(t, disk.NewMachine(), 4<<20, 8192)
	fs := mustOpen(t, d, Config{Interval: time.Hour, Now: newClock().Now})
	defer mustClose(t, fs)
	ctx := t.Context()
	put(t, fs, "f", strings.Repeat("text ", 30000))
	f := &filler{t: t, fs: fs, root: newNode(true, 0, 0)}
	n := newNode(false, 0o644, 0)
	n.data = []byte(strings.Repeat("text ", 30000))
	f.root.kids["f"] = n
	f.fill()
	file := walk(t, fs, "/active/f")
	write := func(off int64) error {
		_, err := file.WriteAt(ctx, bytes.Repeat([]byte("new "), 5000), off, "ken")
		return err
	}
	copy(n.data, bytes.Repeat([]byte("new "), 5000))
	if err := write(0); err != nil {
		t.Errorf("overwrite: %v", err)
	}
	if err := write(1 << 20); !errors.Is(err, ErrFull) {
		t.Errorf("write behind the end: %v", err)
	}
	if _, err := fs.Snapshot(ctx, SnapConfig{}); err != nil {
		t.Fatal(err)
	}
	if err := write(0); !errors.Is(err, ErrFull) {
		t.Errorf("overwrite what a snapshot has: %v", err)
	}
	if err := file.Replace(ctx, []byte("x"), "ken"); !errors.Is(err, ErrFull) {
		t.Errorf("replace what a snapshot has: %v", err)
	}
	same(t, walk(t, fs, "/active"), f.root, "")
	clean(t, fs)
}

// TestFullChurn does random things to a small file system that is full most of
// the time. What fails has changed nothing.
func TestFullChurn(t *testing.T) {
	for _, bs := range []int{1024, 8192} {
		t.Run(fmt.Sprint(bs), func(t *testing.T) {
			t.Parallel()
			d := newFS(t, disk.NewMachine(), 4<<20, bs)
			c := newClock()
			cfg := Config{Interval: time.Hour, Now: c.Now, Memory: 1 << 20, Venti: ventitest.NewMemory(), NoArchiver: true}
			p := &player{
				t: t, rng: rand.New(rand.NewPCG(uint64(bs), 6)), root: newNode(true, 0, 0), maxData: 600 << 10,
				snaps: map[string]*node{},
			}
			full := 0
			for life := range trials(3) {
				p.fs = mustOpen(t, d, cfg)
				for range 400 {
					before := p.root.clone()
					err := p.play()
					if errors.Is(err, ErrFull) {
						full++
						p.root = before
						continue
					}
					if err != nil {
						t.Fatalf("step %d: %v", p.step, err)
					}
				}
				same(t, walk(t, p.fs, "/active"), p.root, "")
				sameSnaps(t, p.fs, p.snaps)
				clean(t, p.fs)
				c.now = c.now.Add(time.Hour)
				if life%2 == 0 {
					path, err := p.fs.Snapshot(t.Context(), SnapConfig{Archive: true})
					if err == nil {
						p.snaps[path] = p.root.clone().archived()
						_, err = p.fs.Archive(t.Context())
					}
					if err != nil && !errors.Is(err, ErrFull) {
						t.Fatal(err)
					}
				}
				if err := p.fs.SnapClean(t.Context(), time.Minute); err != nil {
					t.Fatal(err)
				}
				for path := range p.snaps {
					if strings.HasPrefix(path, "/snapshot") {
						delete(p.snaps, path)
					}
				}
				same(t, walk(t, p.fs, "/active"), p.root, "")
				sameSnaps(t, p.fs, p.snaps)
				clean(t, p.fs)
				mustClose(t, p.fs)
				if t.Failed() {
					t.Fatalf("life %d", life)
				}
			}
			t.Logf("%d steps of %d found the disk full", full, p.step)
			if full < p.step/50 {
				t.Error("the disk was hardly ever full")
			}
		})
	}
}
