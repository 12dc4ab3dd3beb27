package fossil

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"strata/internal/disk"
	"strata/vac"
	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// A lossy is a Venti server whose machine loses power together with that of the
// file system: then it has only what it had synced.
type lossy struct {
	all    *ventitest.Memory
	mu     sync.Mutex               // guards the fields below
	syncs  int                      // so far
	first  map[venti.Score]int      // the sync that made a block durable
	recent map[venti.Score]struct{} // written since the last sync
}

func newLossy() *lossy {
	return &lossy{all: ventitest.NewMemory(), first: map[venti.Score]int{}, recent: map[venti.Score]struct{}{}}
}

// ReadBlock implements venti.BlockReader.
func (l *lossy) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	return l.all.ReadBlock(ctx, s, t, buf)
}

// WriteBlock implements venti.BlockWriter.
func (l *lossy) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	s, err := l.all.WriteBlock(ctx, t, data)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.first[s]; !ok {
		l.recent[s] = struct{}{}
	}
	return s, err
}

// Sync implements venti.Syncer.
func (l *lossy) Sync(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.syncs++
	for s := range l.recent {
		l.first[s] = l.syncs
	}
	clear(l.recent)
	return ctx.Err()
}

func (l *lossy) synced() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.syncs
}

// after returns what is left when the power went after so many syncs. What is
// written to it stays there. l must not be used any more.
func (l *lossy) after(syncs int) venti.Store { return &left{ventitest.NewMemory(), l, syncs} }

// A left is what a lossy has left.
type left struct {
	more  *ventitest.Memory
	was   *lossy
	syncs int
}

// ReadBlock implements venti.BlockReader.
func (l *left) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	if n, ok := l.was.first[s]; ok && n <= l.syncs {
		return l.was.all.ReadBlock(ctx, s, t, buf)
	}
	return l.more.ReadBlock(ctx, s, t, buf)
}

// WriteBlock implements venti.BlockWriter.
func (l *left) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	return l.more.WriteBlock(ctx, t, data)
}

// Sync implements venti.Syncer.
func (l *left) Sync(ctx context.Context) error { return l.more.Sync(ctx) }

// A storyteller plays, and now and then does what the console does: it takes
// snapshots to be archived, while the archiver works, lets go of old ones,
// grafts, and removes a large file.
type storyteller struct {
	*player
	*tale
	file venti.Score // to be grafted
	data []byte
	dead map[string]bool // snapshots that may be gone
	n    map[string]int  // how often what was done

	minutes atomic.Int64 // that have passed, for the archiver too

	record func() // notes what a power cut may leave from now on
}

func newStoryteller(t *testing.T, st venti.Store, seed uint64, bs int) *storyteller {
	t.Helper()
	s := &storyteller{
		player: &player{t: t, rng: rand.New(rand.NewPCG(seed, 5)), root: newNode(true, 0, 0), maxData: 150 << 10, snaps: map[string]*node{}},
		data:   ventitest.Block(seed, 90_000), dead: map[string]bool{}, n: map[string]int{},
	}
	s.tale = &tale{states: []*node{newNode(true, 0, 0)}, snaps: s.player.snaps}
	e, _, err := hashtree.Write(t.Context(), st, bytes.NewReader(s.data), int64(len(s.data)), hashtree.Config{DSize: bs})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := e.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	score, err := st.WriteBlock(t.Context(), venti.DirType, packed)
	if err != nil {
		t.Fatal(err)
	}
	if packed, err = (&venti.Root{Name: "file", Type: "file", Score: score, BlockSize: bs}).Pack(nil); err != nil {
		t.Fatal(err)
	}
	if s.file, err = st.WriteBlock(t.Context(), venti.RootType, packed); err != nil {
		t.Fatal(err)
	}
	if err := st.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *storyteller) now() time.Time {
	return newClock().now.Add(time.Duration(s.minutes.Load()) * time.Minute)
}

// act does one step, like play.
func (s *storyteller) act() error {
	ctx := context.Background()
	s.minutes.Add(1)
	switch k := s.rng.IntN(60); {
	case k == 0:
		s.step++
		s.n["graft"]++
		name := fmt.Sprint("graft", s.step)
		n := newNode(false, 0o644, s.step)
		n.data = bytes.Clone(s.data)
		s.root.kids[name] = n
		dir, err := s.open(nil)
		if err != nil {
			return err
		}
		_, err = dir.Graft(ctx, name, s.file, 0, "ken")
		return err
	case k <= 2:
		s.n["snapshot to archive"]++
		path, err := s.fs.Snapshot(ctx, SnapConfig{Archive: true})
		if err == nil {
			s.player.snaps[path] = s.root.clone()
		}
		return err
	case k == 3:
		s.n["clean"]++
		for path := range s.player.snaps {
			s.dead[path] = path[1] == 's'
		}
		s.record()
		return s.fs.SnapClean(ctx, 20*time.Minute)
	case k <= 6: // a file grows large, and is removed then
		s.n["large"]++
		n := s.root.kids["large"]
		dir, err := s.open(nil)
		if err != nil {
			return err
		}
		s.step++
		if n == nil {
			s.root.kids["large"] = newNode(false, 0o600, s.step)
			_, err := dir.Create(ctx, "large", 0o600, "ken")
			return err
		}
		f, err := dir.Walk(ctx, "large")
		if err != nil {
			return err
		}
		if len(n.data) > 400<<10 {
			delete(s.root.kids, "large")
			return f.Remove(ctx, "ken")
		}
		p := bytes.Repeat([]byte{byte(s.step), 1, 2, 3, 4, 5, 6, 7}, 30<<10)
		off := len(n.data)
		n.data = append(n.data[:off:off], p...)
		_, err = f.WriteAt(ctx, p, int64(off), "ken")
		return err
	}
	return s.play()
}

// TestPowerCut cuts the power at writes and syncs of the disk while a storyteller
// works and the archiver with it; with $STRATA_TRIAL at every one of them. Each
// time the file system opens as it is, nothing is lost of what was synced, each
// snapshot is as it was, a check finds nothing, and what was to be archived is.
func TestPowerCut(t *testing.T) {
	const bs = 1024
	for seed := range uint64(trials(1)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m, st := disk.NewMachine(), newLossy()
			d := newFS(t, m, 24<<20, bs)
			s := newStoryteller(t, st, seed, bs)
			type cut struct {
				point
				venti int
				dead  map[string]bool
			}
			var cuts []cut
			s.record = func() {
				synced, last := s.synced, len(s.states)-1
				dead := map[string]bool{}
				for path := range s.dead {
					dead[path] = s.dead[path]
				}
				m.Record(func(_ disk.Op, at *disk.Snapshot) {
					cuts = append(cuts, cut{point{at, synced, last}, st.synced(), dead})
				})
			}
			s.record()
			s.fs = mustOpen(t, d, Config{Venti: st, Memory: 400 << 10, Interval: time.Hour, Now: s.now})
			for range 220 {
				next := s.root.clone()
				s.states = append(s.states, next)
				s.record()
				err := s.act()
				*next = *s.root.clone()
				if err != nil {
					t.Fatal(err)
				}
				if s.rng.IntN(8) == 0 {
					if err := s.fs.Sync(t.Context()); err != nil {
						t.Fatal(err)
					}
					s.synced = len(s.states) - 1
				}
			}
			s.record()
			if _, err := s.fs.Archive(t.Context()); err != nil {
				t.Fatal(err)
			}
			mustClose(t, s.fs)
			m.Record(nil)

			list := s.rng.Perm(len(cuts))
			if os.Getenv("STRATA_TRIAL") == "" {
				list = list[:min(len(list), 40)]
			}
			t.Logf("%v; %d writes and syncs, %d syncs of Venti; power cuts at %d of them", s.n, len(cuts), st.synced(), len(list))
			for _, i := range list {
				c := cuts[i]
				s.dead = c.dead
				s.find(t, c.at.Crash(s.rng), c.point, st.after(c.venti))
				if t.Failed() {
					t.Fatalf("seed %d: power cut after operation %d", seed, i)
				}
			}
		})
	}
}

// find opens what a power cut left, looks at it, and has it archived.
func (s *storyteller) find(t *testing.T, m *disk.Machine, p point, st venti.Store) {
	t.Helper()
	fs, err := Open(m.Disk("part"), Config{Venti: st, Now: s.now, NoArchiver: true, Interval: time.Hour})
	if err != nil {
		t.Fatalf("open after a power cut: %v", err)
	}
	defer mustClose(t, fs)
	isState(t, fs, s.states, p)
	s.snapshots(t, fs, p)
	cleanButDead(t, fs)
	score, err := fs.Archive(t.Context())
	if err != nil {
		t.Errorf("archive after a power cut: %v", err)
		return
	}
	isState(t, fs, s.states, p)
	s.snapshots(t, fs, p)
	cleanButDead(t, fs)
	if score != venti.EmptyScore {
		if _, err := vac.Open(t.Context(), st, score); err != nil {
			t.Errorf("last archive: %v", err)
		}
	}
}

// cleanButDead is clean, but for the names of snapshots that are gone, which stay
// until they are cleaned up.
func cleanButDead(t *testing.T, fs *FS) {
	t.Helper()
	for _, f := range checkStill(t, fs).Findings {
		if !strings.Contains(f.Text, ErrDeleted.Text) {
			t.Errorf("check: %s (%s)", f.Text, f.Repair)
		}
	}
}

// snapshots checks those that there are.
func (s *storyteller) snapshots(t *testing.T, fs *FS, p point) {
	t.Helper()
	list, err := fs.Snapshots(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		want := s.player.snaps[info.Path]
		switch {
		case want == nil:
			t.Errorf("snapshot %s was never taken", info.Path)
		case info.Dead && !s.dead[info.Path]:
			t.Errorf("snapshot %s is gone", info.Path)
		case info.Dead:
		case info.Path[1] == 'a' && info.Epoch == 0:
			same(t, walk(t, fs, info.Path), want.clone().archived(), info.Path)
		default:
			same(t, walk(t, fs, info.Path), want, info.Path)
		}
	}
}

// TestVentiFault has reads of Venti fail once each, while a player works on a
// file system of which all is there. A step that fails did nothing, and is done
// when it is tried again.
func TestVentiFault(t *testing.T) {
	errFault := errors.New("fault")
	hit := true
	n, step := int64(0), int64(1)
	if trials(1) == 1 {
		step = 29
	}
	for ; hit; n += step {
		hit = false
		var mu sync.Mutex // guards armed, count and hit
		armed, count := false, int64(0)
		st := ventitest.NewFaulty(ventitest.NewMemory(), func(op ventitest.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if !armed || op.Name != "read" {
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
		cfg := Config{Venti: st, Now: c.Now, Memory: 100 << 10, Interval: time.Hour, NoArchiver: true}
		fs := mustOpen(t, d, cfg)
		p := play(t, fs, 3, 100)
		p.archive()
		mustClose(t, fs)
		mu.Lock()
		armed = true
		mu.Unlock()
		// The file system cannot be opened without its root: then it is not.
		var err error
		if fs, err = Open(d, cfg); err != nil {
			if !errors.Is(err, ErrVenti) {
				t.Fatalf("read %d: open: %v", n, err)
			}
			fs = mustOpen(t, d, cfg)
		}
		p.fs = fs
		for range 60 {
			before := p.root.clone()
			err := p.play()
			if err == nil {
				continue
			}
			if !errors.Is(err, ErrVenti) || !errors.Is(err, errFault) {
				t.Fatalf("read %d, step %d: %v", n, p.step, err)
			}
			p.root = before
			same(t, walk(t, fs, "/active"), p.root, "")
			if t.Failed() {
				t.Fatalf("read %d: step %d fails, and is done", n, p.step)
			}
		}
		mu.Lock()
		armed = false
		mu.Unlock()
		same(t, walk(t, fs, "/active"), p.root, "")
		sameSnaps(t, fs, p.snaps)
		clean(t, fs)
		mustClose(t, fs)
		if t.Failed() {
			t.Fatalf("read %d", n)
		}
	}
	if n == step {
		t.Error("nothing ever failed")
	}
}
