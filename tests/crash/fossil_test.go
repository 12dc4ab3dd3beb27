package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"strata/fossil"
	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/tests/harness"
	"strata/vac"
	"strata/venti"
)

// writeBack is how long what nobody syncs may stay in a fossil's memory, and what
// a busy machine takes to write it.
const writeBack = 5*time.Second + 4*time.Second

// fossilKills returns how often to kill a fossil.
func fossilKills(t *testing.T) int {
	if os.Getenv("STRATA_TRIAL") == "" {
		return 8
	}
	return kills(t) / 8
}

// A saver writes files, each of which says in all its bytes which it is.
type saver struct {
	name  string
	linux bool
	next  int

	mu      sync.Mutex        // guards the fields below
	synced  map[int]struct{}  // files that must be there
	written map[int]time.Time // files that nobody has synced, and when they were written
}

// text returns what file n of the saver holds.
func (s *saver) text(n int) []byte {
	rng := rand.New(rand.NewPCG(uint64(n), uint64(s.name[0])))
	word := fmt.Appendf(nil, "%s file %d. ", s.name, n)
	return bytes.Repeat(word, 1+rng.IntN(40<<10)/len(word))
}

// save works until the server is gone.
func (s *saver) save(ctx context.Context, c *ninep.Client, rng *rand.Rand) error {
	root, err := c.Attach(ctx, "glenda", "main/active")
	if err != nil {
		return err
	}
	dir, err := root.Walk(ctx, s.name)
	if err != nil {
		if dir, err = root.Walk(ctx); err == nil {
			err = dir.Create(ctx, s.name, ninep.ModeDir|0o777, ninep.OREAD)
		}
		if err != nil {
			return err
		}
		if dir, err = root.Walk(ctx, s.name); err != nil {
			return err
		}
	}
	for {
		n := s.next
		s.next++
		f, err := dir.Walk(ctx)
		if err == nil {
			err = f.Create(ctx, fmt.Sprint(n), 0o666, ninep.ORDWR)
		}
		if err == nil {
			_, err = f.WriteAt(ctx, s.text(n), 0)
		}
		if err != nil {
			return err
		}
		sync := rng.IntN(3) > 0
		if sync {
			if err := f.Sync(ctx); err != nil {
				return err
			}
		}
		s.mu.Lock()
		if sync {
			s.synced[n] = struct{}{}
		} else {
			s.written[n] = time.Now()
		}
		s.mu.Unlock()
		if err := f.Close(ctx); err != nil {
			return err
		}
		if s.size() > 60 { // so that the disk is not full one day
			if err := s.remove(ctx, dir); err != nil {
				return err
			}
		}
	}
}

func (s *saver) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.synced)
}

// remove removes a file. Until it has been it may be there or not.
func (s *saver) remove(ctx context.Context, dir *ninep.File) error {
	s.mu.Lock()
	var n int
	for n = range s.synced {
		break
	}
	delete(s.synced, n)
	s.mu.Unlock()
	f, err := dir.Walk(ctx, fmt.Sprint(n))
	if err != nil {
		return err
	}
	return f.Remove(ctx)
}

// verify looks at all that there is below a directory. killed is when the
// server was; what is found is what the saver has from then on.
func (s *saver) verify(ctx context.Context, root *ninep.File, killed time.Time) error {
	dir, err := root.Walk(ctx, s.name)
	if err != nil {
		if len(s.synced) == 0 && errors.Is(err, ninep.ErrNotExist) {
			return nil
		}
		return err
	}
	defer dir.Close(ctx)
	found, err := s.read(ctx, dir)
	if err != nil {
		return err
	}
	for n := range s.synced {
		if !found[n] {
			return fmt.Errorf("%s: file %d was synced, and is not there", s.name, n)
		}
	}
	for n, when := range s.written {
		if age := killed.Sub(when); !found[n] && age > writeBack {
			return fmt.Errorf("%s: file %d was written %v before the kill, and is not there", s.name, n, age)
		}
	}
	clear(s.synced)
	clear(s.written)
	for n, whole := range found {
		if whole {
			s.synced[n] = struct{}{}
		}
	}
	return nil
}

// read looks at the files in a directory of the saver's, or of a snapshot of it, and
// returns those that are whole. Others have nothing.
func (s *saver) read(ctx context.Context, dir *ninep.File) (map[int]bool, error) {
	d, err := dir.Walk(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close(ctx)
	if err := d.Open(ctx, ninep.OREAD); err != nil {
		return nil, err
	}
	list, err := d.ReadDir(ctx)
	if err != nil {
		return nil, err
	}
	found := map[int]bool{}
	for _, e := range list {
		var n int
		if _, err := fmt.Sscan(e.Name, &n); err != nil {
			return nil, fmt.Errorf("%s: a file is called %q", s.name, e.Name)
		}
		want := s.text(n)
		got := make([]byte, len(want)+1)
		f, err := dir.Walk(ctx, e.Name)
		if err != nil {
			return nil, err
		}
		if err = f.Open(ctx, ninep.OREAD); err == nil {
			var m int
			m, err = f.ReadAt(ctx, got, 0)
			got = got[:m]
		}
		f.Close(ctx)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("%s: file %d: %w", s.name, n, err)
		}
		if len(got) > 0 && !bytes.Equal(got, want) {
			return nil, fmt.Errorf("%s: file %d has %d bytes, want %d; they are not its own", s.name, n, len(got), len(want))
		}
		found[n] = len(got) > 0
	}
	return found, nil
}

// snapshots takes some until the server is gone, half of them to be archived,
// and returns the paths of those that were synced.
func snapshots(ctx context.Context, c *ninep.Client, rng *rand.Rand) (list []string, err error) {
	root, err := c.Attach(ctx, "adm", "main")
	if err != nil {
		return nil, err
	}
	for {
		f, err := root.Walk(ctx, "ctl")
		if err == nil {
			err = f.Open(ctx, ninep.ORDWR)
		}
		if err != nil {
			return list, err
		}
		command := "snap"
		if rng.IntN(2) == 0 {
			command = "snap -a"
		}
		if _, err := f.WriteAt(ctx, []byte(command), 0); err != nil {
			return list, err
		}
		b := make([]byte, 1000)
		n, err := f.ReadAt(ctx, b, 0)
		if err != nil && err != io.EOF {
			return list, err
		}
		if _, err := f.WriteAt(ctx, []byte("sync"), 0); err != nil {
			return list, err
		}
		if err := f.Close(ctx); err != nil {
			return list, err
		}
		list = append(list, strings.TrimSpace(string(b[:n])))
		if len(list) == 3 {
			return list, nil
		}
	}
}

// TestKillFossil kills a fossil that clients write to, while snapshots are taken
// and archived. Each time it opens the partition as it is; what was synced is
// there, and what was written long enough before the kill; no file has another's
// bytes, in no snapshot either; and checks find nothing, the original's too
// where it is at hand.
func TestKillFossil(t *testing.T) {
	ours := harness.Ours(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	store := ours.Serve(t, ours.Format(t, 16<<20, 40))
	t.Setenv("venti", store.Addr)
	part := filepath.Join(t.TempDir(), "part")
	if err := disk.Create(part, 192<<20); err != nil {
		t.Fatal(err)
	}
	ours.Run(t, nil, "fossil/flfmt", "-y", "-b", "4k", part)
	var savers []*saver
	for i := range 4 {
		savers = append(savers, &saver{
			name: string(rune('a' + i)), linux: i%2 == 0, synced: map[int]struct{}{}, written: map[int]time.Time{},
		})
	}
	dial := func(srv *harness.Fossil, linux bool) *ninep.Client {
		cfg := ninep.ClientConfig{}
		if linux {
			cfg.Dialect = ninep.Linux
		}
		return srv.Dial(t, cfg)
	}
	taken := map[string]int{} // snapshots, and in which round
	count := fossilKills(t)
	for round := range count {
		srv := ours.ServeFossil(t, part, "-AP")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		wait := time.Duration(rng.IntN(700)) * time.Millisecond
		if round%20 == 5 { // long enough for what is not synced
			wait = writeBack + time.Second
		}
		var working sync.WaitGroup
		var paths []string
		for _, s := range savers {
			c, r := dial(srv, s.linux), rand.New(rand.NewPCG(rng.Uint64(), 2))
			working.Go(func() { s.save(ctx, c, r) }) // ends with the server
		}
		c, r := dial(srv, false), rand.New(rand.NewPCG(rng.Uint64(), 3))
		working.Go(func() { paths, _ = snapshots(ctx, c, r) })
		killed := make(chan time.Time, 1)
		time.AfterFunc(wait, func() {
			now := time.Now()
			srv.Kill()
			killed <- now
		})
		when := <-killed
		working.Wait()
		cancel()
		for _, p := range paths {
			taken[p] = round
		}

		srv = ours.ServeFossil(t, part, "-AP")
		root, err := dial(srv, false).Attach(t.Context(), "glenda", "main")
		if err != nil {
			t.Fatal(err)
		}
		active, err := root.Walk(t.Context(), "active")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range savers {
			if err := s.verify(t.Context(), active, when); err != nil {
				t.Fatalf("kill %d, after %v: %v\n%s", round, wait, err, srv.Log())
			}
		}
		for p, in := range taken {
			for _, s := range savers {
				dir, err := root.Walk(t.Context(), append(strings.FieldsFunc(p, func(r rune) bool { return r == '/' }), s.name)...)
				if errors.Is(err, ninep.ErrNotExist) && in == 0 {
					continue // it was taken before there were all directories
				}
				if err == nil {
					_, err = s.read(t.Context(), dir)
					dir.Close(t.Context())
				}
				if err != nil {
					t.Fatalf("kill %d, after %v: snapshot %s: %v", round, wait, p, err)
				}
			}
			if len(taken) > 6 {
				delete(taken, p)
			}
		}
		srv.Stop(t)
		judge(t, ours, part, store.Addr)
		if theirs := os.Getenv("PLAN9"); theirs != "" && round%4 == 0 {
			if s := harness.Plan9(t); s.Has("fossil/flchk") {
				judge(t, s, part, store.Addr)
			}
		}
	}
	total := 0
	for _, s := range savers {
		total += s.next
	}
	if total < 20*count {
		t.Errorf("only %d files were written: this shows little", total)
	}
	t.Logf("%d kills, %d files written", count, total)
	archived(t, part, store.Addr)
}

// judge has a suite's check look at a partition.
func judge(t *testing.T, s harness.Suite, part, addr string) {
	t.Helper()
	out, _, _ := s.Try(t, nil, "fossil/flchk", "-h", addr, part)
	for l := range strings.Lines(out) {
		if strings.HasPrefix(l, "error: ") && !strings.Contains(l, "previously reported") {
			t.Errorf("%s flchk: %s", s.Name, l)
		}
	}
	if !strings.Contains(out, "lost=0(") {
		t.Errorf("%s flchk: %s", s.Name, out)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// archived has what waits archived, and looks at the last archive.
func archived(t *testing.T, part, addr string) {
	t.Helper()
	c, err := venti.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d, err := disk.Open(part, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fs, err := fossil.Open(d, fossil.Config{Venti: c, NoArchiver: true})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close(t.Context())
	score, err := fs.Archive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a, err := vac.Open(t.Context(), c, score)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Root.Walk(t.Context(), "active"); err != nil {
		t.Error(err)
	}
	r, err := fs.Check(t.Context(), fossil.CheckConfig{Snapshots: true})
	if err != nil {
		t.Error(err)
	}
	for _, f := range r.Findings {
		t.Errorf("check: %s", f.Text)
	}
}
