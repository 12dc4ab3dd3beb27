package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"strata/fossil"
	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/vac"
	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// TestModel has clients of both dialects, some joined by memory and some by a
// connection, do random operations at once on a file system and on a model.
// Meanwhile snapshots are taken, archived and let go; then things are grafted,
// and the file system is closed, killed or loses its power, and opened again.
// Each time it is what the model is, every snapshot that is kept is what the
// model was at its moment, and a check finds nothing. With STRATA_TRIAL=2 there
// are a million operations.
func TestModel(t *testing.T) {
	operations := 8_000
	if n, err := strconv.Atoi(os.Getenv("STRATA_TRIAL")); err == nil && n > 0 {
		operations = n * 250_000
	}
	for _, bs := range []int{1024, 8192} {
		t.Run(strconv.Itoa(bs), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, bs, uint64(bs))
			for life := 0; w.operations.Load() < int64(operations); life++ {
				w.live(600)
				if t.Failed() {
					t.Fatalf("seed %d, life %d", bs, life)
				}
			}
			w.open()
			w.compare(true)
			w.close()
			t.Logf("%d operations, %d of them refused; %d snapshots, %d archives, %d grafts; opened %d times, %d after a kill and %d after a power cut",
				w.operations.Load(), w.refused.Load(), w.count.snapshots, w.count.archives, w.count.grafts, w.count.opened, w.count.kills, w.count.cuts)
		})
	}
}

// A snapped is a snapshot: what must be found in it.
type snapped struct {
	root    *item
	times   bool // modification times are known
	archive bool
	epoch   uint32
	taken   time.Time
}

// A world is a file system and all that is known about it.
type world struct {
	t        *testing.T
	rng      *rand.Rand
	bs       int
	machine  *disk.Machine
	venti    *ventitest.Memory
	now      atomic.Int64
	fs       *fossil.FS
	tree     *Tree
	archives bool // in the background
	clients  []*client
	snaps    map[string]*snapped

	file, dir  venti.Score // to be grafted
	fileData   []byte
	dirItem    *item
	operations atomic.Int64
	refused    atomic.Int64
	count      struct{ snapshots, archives, grafts, opened, kills, cuts int }
}

func (w *world) clock() time.Time { return time.Unix(w.now.Load(), 0) }

func newWorld(t *testing.T, bs int, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), bs: bs, machine: disk.NewMachine(), venti: ventitest.NewMemory(), snaps: map[string]*snapped{},
	}
	w.now.Store(time.Date(2026, 11, 27, 3, 0, 0, 0, time.Local).Unix())
	d := w.machine.NewDisk("part", 96<<20)
	if err := fossil.Format(t.Context(), d, fossil.FormatConfig{BlockSize: bs, Now: w.clock}); err != nil {
		t.Fatal(err)
	}
	w.makeGrafts()
	w.open()
	active := w.walk("/active")
	root := &item{kids: map[string]*item{}}
	for _, name := range everybodys {
		if _, err := active.Create(t.Context(), name, meta.ModeDir|0o777, "glenda"); err != nil {
			t.Fatal(err)
		}
		root.kids[name] = &item{mode: ninep.ModeDir | 0o777, kids: map[string]*item{}}
	}
	for i := range 4 {
		w.clients = append(w.clients, &client{
			w: w, letter: string(rune('A' + i)), rng: rand.New(rand.NewPCG(seed, uint64(2+i))),
			linux: i%2 == 0, wire: i >= 2, states: []*item{root},
		})
	}
	w.close()
	return w
}

// makeGrafts puts a file and a directory on Venti.
func (w *world) makeGrafts() {
	t := w.t
	w.fileData = ventitest.Block(9, 150_000)
	e, _, err := hashtree.Write(t.Context(), w.venti, bytes.NewReader(w.fileData), int64(len(w.fileData)), hashtree.Config{DSize: w.bs})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := e.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	score, err := w.venti.WriteBlock(t.Context(), venti.DirType, packed)
	if err != nil {
		t.Fatal(err)
	}
	if packed, err = (&venti.Root{Name: "file", Type: "file", Score: score, BlockSize: w.bs}).Pack(nil); err != nil {
		t.Fatal(err)
	}
	if w.file, err = w.venti.WriteBlock(t.Context(), venti.RootType, packed); err != nil {
		t.Fatal(err)
	}
	host := t.TempDir()
	w.dirItem = &item{mode: ninep.ModeDir | 0o777, kids: map[string]*item{}}
	for i := range 40 {
		at, sub := w.dirItem, ""
		if i%5 == 0 {
			sub = fmt.Sprint("sub", i%3)
			if at.kids[sub] == nil {
				at.kids[sub] = &item{mode: ninep.ModeDir | 0o755, kids: map[string]*item{}}
			}
			at = at.kids[sub]
			if err := os.MkdirAll(filepath.Join(host, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		data := ventitest.Block(uint64(i), i*300)
		name := fmt.Sprint("A", i)
		at.kids[name] = &item{mode: 0o640, data: content{}.change(data, 0)}
		if err := os.WriteFile(filepath.Join(host, sub, name), data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	r, err := vac.Store(t.Context(), w.venti, []string{host}, vac.Options{BlockSize: w.bs})
	if err != nil {
		t.Fatal(err)
	}
	w.dir, w.dirItem = r.Score, &item{mode: ninep.ModeDir | 0o777, kids: map[string]*item{filepath.Base(host): w.dirItem}}
	w.dirItem.kids[filepath.Base(host)].mode = anyMode
}

// anyMode is the mode of a directory whose permissions are not known.
const anyMode = ninep.ModeDir | ninep.ModeAuth

// numbered returns a copy of n, all of whose items have ids of their own.
func (c *client) numbered(n *item) *item {
	k := *n
	k.id = c.newID()
	k.kids = map[string]*item{}
	for name, kid := range n.kids {
		k.kids[name] = c.numbered(kid)
	}
	return &k
}

func (w *world) walk(path string) *fossil.File {
	w.t.Helper()
	f, err := w.fs.Walk(w.t.Context(), path)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *world) open() {
	w.t.Helper()
	cfg := fossil.Config{Venti: w.venti, Now: w.clock, Memory: int64(1+w.rng.IntN(4)) << 20, Interval: time.Hour, NoArchiver: w.rng.IntN(2) == 0, NoAtime: w.rng.IntN(3) == 0}
	var err error
	if w.fs, err = fossil.Open(w.machine.Disk("part"), cfg); err != nil {
		w.t.Fatal(err)
	}
	w.count.opened++
	w.tree = New(w.fs, Config{NoPermissions: true, Now: w.clock})
	w.archives = !cfg.NoArchiver
	w.check()
}

func (w *world) close() {
	w.t.Helper()
	if err := w.fs.Close(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// check fails on what a check of the file system finds.
func (w *world) check() {
	w.t.Helper()
	if w.archives { // it would change the file system meanwhile
		if _, err := w.fs.Archive(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.fs.Rest(w.t.Context()); err != nil { // no tree is being closed
		w.t.Fatal(err)
	}
	r, err := w.fs.Check(w.t.Context(), fossil.CheckConfig{Snapshots: true})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range r.Findings {
		// The names of snapshots that are gone stay until somebody cleans up.
		if !strings.Contains(f.Text, "snapshot has been deleted") {
			w.t.Errorf("check: %s (%s)", f.Text, f.Repair)
		}
	}
	if used, _ := w.fs.Usage(); used != int64(r.Used)*int64(w.bs) {
		w.t.Errorf("check: %d blocks are in use, by the count %d", r.Used, used/int64(w.bs))
	}
}

// live opens the file system, has every client do some operations, and
// closes it in some way.
func (w *world) live(steps int) {
	t := w.t
	w.now.Add(int64(w.rng.IntN(10)) * 3600)
	w.open()
	srv := ninep.NewServer(w.tree, ninep.Config{})
	var serving, working sync.WaitGroup
	ticks := make(chan struct{}, steps)
	for i, c := range w.clients {
		var nc *ninep.Client
		cfg := ninep.ClientConfig{Dialect: ninep.Classic}
		if c.linux {
			cfg.Dialect = ninep.Linux
		}
		if c.wire {
			near, far := net.Pipe()
			serving.Go(func() { srv.ServeConn(context.Background(), far) })
			var err error
			if nc, err = ninep.NewClient(t.Context(), near, cfg); err != nil {
				t.Fatal(err)
			}
		} else {
			nc = srv.Local(cfg)
		}
		defer nc.Close()
		var err error
		if c.root, err = nc.Attach(t.Context(), "glenda", "main/active"); err != nil {
			t.Fatal(err)
		}
		working.Go(func() {
			if i == 0 {
				defer close(ticks)
			}
			for n := range steps {
				if err := c.step(); err != nil {
					t.Errorf("client %s, operation %d of this life: %v", c.letter, n, err)
					return
				}
				if i == 0 && n%(steps/6) == steps/12 {
					ticks <- struct{}{}
				}
			}
		})
	}
	for range ticks {
		w.disturb()
	}
	working.Wait()
	if t.Failed() {
		return
	}
	for _, c := range w.clients {
		c.handles = nil
	}
	if w.rng.IntN(3) == 0 {
		w.graft(w.clients[w.rng.IntN(len(w.clients))])
	}
	if w.rng.IntN(4) == 0 { // an exact one
		w.snapshot(w.rng.IntN(2) == 0)
	}
	w.compare(false)
	if w.rng.IntN(4) == 0 {
		w.check()
	}
	how := w.rng.IntN(8)
	if how < 3 {
		if err := w.fs.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		left := w.machine.Snapshot()
		if how == 0 {
			w.machine = left.Restart()
			w.count.kills++
		} else {
			w.machine = left.Crash(w.rng)
			w.count.cuts++
		}
	}
	for _, c := range w.clients {
		c.root.Close(t.Context())
	}
	w.close()
	w.compareAfter(how < 3)
}

// compareAfter looks at what is there when it is opened again.
func (w *world) compareAfter(hard bool) {
	if !hard && w.rng.IntN(4) > 0 {
		return
	}
	w.open()
	w.compare(false)
	w.close()
}

// disturb does, while the clients work, what the console's commands do.
func (w *world) disturb() {
	t := w.t
	switch k := w.rng.IntN(12); {
	case k < 4:
		w.snapshot(false)
	case k < 6:
		w.snapshot(true)
	case k < 7:
		if _, err := w.fs.Archive(t.Context()); err != nil {
			t.Error(err)
		}
	case k < 9:
		age := []time.Duration{fossil.Keep, 0, 5 * time.Hour, 24 * time.Hour}[w.rng.IntN(4)]
		low := w.low()
		if err := w.fs.SnapClean(t.Context(), age); err != nil {
			t.Error(err)
		}
		for path, s := range w.snaps {
			if !s.archive && (age == fossil.Keep || w.clock().Sub(s.taken) <= age) && s.epoch >= low && s.epoch < w.low() {
				t.Errorf("snapshot %s is gone though it is to be kept", path)
			}
		}
	case k < 10:
		low, high := w.fs.Epochs()
		err := w.fs.SetEpochLow(t.Context(), low+uint32(w.rng.IntN(int(high-low)+1)))
		if err != nil && !strings.Contains(err.Error(), "is to be archived") {
			t.Error(err)
		}
	default:
		if err := w.fs.Sync(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func (w *world) low() uint32 {
	low, _ := w.fs.Epochs()
	return low
}

// snapshot takes a snapshot. In it, each client's files must be as they were at
// one moment while it was taken.
func (w *world) snapshot(archive bool) {
	t := w.t
	type span struct{ from, to int }
	spans := make([]span, len(w.clients))
	exact := true
	for i, c := range w.clients {
		spans[i].from, _ = c.progress()
	}
	path, err := w.fs.Snapshot(t.Context(), fossil.SnapConfig{Archive: archive})
	if err != nil {
		t.Error(err)
		return
	}
	for i, c := range w.clients {
		_, spans[i].to = c.progress()
		exact = exact && spans[i].from == spans[i].to
	}
	if archive {
		w.count.archives++
	} else {
		w.count.snapshots++
	}
	s := &snapped{archive: archive, times: exact, taken: w.clock()}
	list, err := w.fs.Snapshots(t.Context(), path[:strings.LastIndexByte(path, '/')])
	if err != nil {
		t.Error(err)
		return
	}
	for _, info := range list {
		if info.Path == path {
			s.epoch = info.Epoch // 0 if it is archived already
		}
	}
	dir, err := w.fs.Walk(t.Context(), path)
	if err != nil {
		t.Error(err)
		return
	}
	var roots []*item
	for i, c := range w.clients {
		var why []error
		for n := spans[i].from; n <= spans[i].to; n++ {
			state := c.state(n)
			err := (&comparison{w: w, snap: s, only: c.letter}).dir(dir, state, path, true)
			if err == nil {
				roots = append(roots, state)
				break
			}
			why = append(why, fmt.Errorf("state %d: %w", n, err))
		}
		if len(roots) <= i {
			t.Errorf("snapshot %s of client %s is none of its states from %d to %d: %v", path, c.letter, spans[i].from, spans[i].to, errors.Join(why...))
			return
		}
	}
	s.root = merge(roots)
	w.snaps[path] = s
}

// graft makes something on Venti a part of the active tree.
func (w *world) graft(c *client) {
	t := w.t
	w.count.grafts++
	_, n := c.progress()
	root, where := c.state(n), everybodys[w.rng.IntN(len(everybodys))]
	name := fmt.Sprintf("%sgraft%d", c.letter, c.newID())
	score, it := w.file, &item{id: c.newID(), mode: 0o644, data: content{}.change(w.fileData, 0)}
	if w.rng.IntN(3) == 0 {
		score, it = w.dir, c.numbered(w.dirItem)
	}
	if _, err := w.walk("/active/"+where).Graft(t.Context(), name, score, 0, "glenda"); err != nil {
		t.Fatal(err)
	}
	c.begin(root.with([]string{where, name}, it, 0))
	c.end()
}

// compare looks whether the active tree and the snapshots are what they must
// be; of older archives at some, or at all.
func (w *world) compare(all bool) {
	t := w.t
	t.Helper()
	var roots []*item
	for _, c := range w.clients {
		_, n := c.progress()
		roots = append(roots, c.state(n))
	}
	if err := (&comparison{w: w}).dir(w.walk("/active"), merge(roots), "/active", true); err != nil {
		t.Error(err)
	}
	list, err := w.fs.Snapshots(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	archives := 0
	for i := range list {
		s := &list[len(list)-1-i]
		found[s.Path] = true
		want := w.snaps[s.Path]
		switch {
		case want == nil:
			t.Errorf("snapshot %s was not taken", s.Path)
			continue
		case s.Dead && (want.archive || want.epoch >= w.low()):
			t.Errorf("snapshot %s is gone", s.Path)
			continue
		case s.Dead:
			continue
		}
		if want.archive && !all {
			if archives++; archives > 3 && w.rng.IntN(len(list)) > 1 {
				continue
			}
		}
		if err := (&comparison{w: w, snap: want}).dir(w.walk(s.Path), want.root, s.Path, true); err != nil {
			t.Error(err)
		}
	}
	for path, s := range w.snaps {
		if !found[path] && (s.archive || s.epoch >= w.low()) {
			t.Errorf("snapshot %s is missing", path)
		}
		if !found[path] {
			delete(w.snaps, path)
		}
	}
}

// A comparison of files with a model's.
type comparison struct {
	w    *world
	snap *snapped // nil: the active tree
	only string   // look only at what is this client's
}

// dir returns an error unless a directory is as n says.
func (c *comparison) dir(f *fossil.File, n *item, path string, top bool) error {
	ctx := context.Background()
	seen := 0
	for info, err := range f.List(ctx) {
		if err != nil {
			return fmt.Errorf("list %s: %w", path, err)
		}
		if top && c.only != "" && !strings.HasPrefix(info.Name, c.only) && !slices.Contains(everybodys, info.Name) {
			continue
		}
		k, p := n.kids[info.Name], path+"/"+info.Name
		everybody := top && slices.Contains(everybodys, info.Name)
		if k == nil {
			return fmt.Errorf("%s should not be", p)
		}
		seen++
		mode := fromMeta(info.Mode)
		temporary := c.snap != nil && mode&ninep.ModeTmp != 0
		switch {
		case mode != k.mode && (k.mode != anyMode || !mode.Dir()):
			return fmt.Errorf("%s: mode %#o, want %#o", p, mode, k.mode)
		case !mode.Dir() && info.Size != k.data.size && !(temporary && c.snap.archive && info.Size == 0):
			return fmt.Errorf("%s: %d bytes, want %d", p, info.Size, k.data.size)
		case k.gid != "" && info.GID != k.gid:
			return fmt.Errorf("%s: group %s, want %s", p, info.GID, k.gid)
		case k.mtime != 0 && int64(info.Mtime) != k.mtime && !everybody && (c.snap == nil || c.snap.times):
			return fmt.Errorf("%s: changed at %d, want %d", p, info.Mtime, k.mtime)
		}
		kid, err := f.Walk(ctx, info.Name)
		if err != nil {
			return fmt.Errorf("walk to %s: %w", p, err)
		}
		if temporary {
			err = c.temporary(kid, k)
		} else if mode.Dir() {
			err = c.dir(kid, k, p, everybody)
		} else {
			err = sameContent(kid, k.data)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	want := 0
	for name := range n.kids {
		if !top || c.only == "" || strings.HasPrefix(name, c.only) || slices.Contains(everybodys, name) {
			want++
		}
	}
	if seen != want {
		return fmt.Errorf("%s: %d names, want %d", path, seen, want)
	}
	return nil
}

// temporary returns an error unless nothing can be had of a temporary file or
// directory of a snapshot.
func (c *comparison) temporary(f *fossil.File, k *item) error {
	ctx := context.Background()
	var err error
	if f.IsDir() {
		for info, lerr := range f.List(ctx) {
			if err = lerr; err == nil {
				return fmt.Errorf("%s is in a temporary directory of a snapshot", info.Name)
			}
		}
	} else {
		var n int
		if n, err = f.ReadAt(ctx, make([]byte, 10), 0); n > 0 {
			return fmt.Errorf("%d bytes of a temporary file in a snapshot", n)
		}
	}
	if err != nil && !errors.Is(err, fossil.ErrNotArchived) {
		return err
	}
	return nil
}

// sameContent returns an error unless a file has the bytes of want. Holes are
// not read.
func sameContent(f *fossil.File, want content) error {
	ctx := context.Background()
	buf, model := make([]byte, 64<<10), make([]byte, 64<<10)
	pages := 0
	for off := int64(0); ; {
		start, end, err := f.Data(ctx, off)
		if err != nil {
			return err
		}
		if start == end {
			break
		}
		for at := start; at < end; {
			p := buf[:min(int64(len(buf)), end-at)]
			n, err := f.ReadAt(ctx, p, at)
			if err != nil || n != len(p) {
				return fmt.Errorf("read at %d: %d bytes, %w", at, n, err)
			}
			m := want.read(model[:n], at)
			if !bytes.Equal(p, model[:m]) {
				i := 0
				for i < m && p[i] == model[i] {
					i++
				}
				return fmt.Errorf("byte %d of %d differs", at+int64(i), want.size)
			}
			at += int64(n)
		}
		for k := range want.pages {
			if k*pageSize >= start && k*pageSize < end {
				pages++
			}
		}
		off = end
	}
	if pages != len(want.pages) {
		return fmt.Errorf("%d pages have data, want %d", pages, len(want.pages))
	}
	return nil
}
