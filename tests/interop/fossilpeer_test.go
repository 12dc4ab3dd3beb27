package interop

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strata/fossil"
	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/tests/harness"
	"strata/venti"
)

// TestFossilPeer has each Fossil serve a file system on which clients do random
// things, with snapshots, and archives made by ours. Then both serve it, and show
// the same: names, modes, owners, times, versions, contents, errors. Both checks
// find nothing.
func TestFossilPeer(t *testing.T) {
	ours, theirs := harness.Ours(t), harness.Plan9(t)
	fossilBin(t, "fossil")
	for _, maker := range []harness.Suite{ours, theirs} {
		for _, bs := range []string{"1k", "8k"} {
			t.Run(maker.Name+" "+bs, func(t *testing.T) {
				store := ours.Serve(t, ours.Format(t, 16<<20, 8))
				t.Setenv("venti", store.Addr)
				part := filepath.Join(t.TempDir(), "part")
				if err := disk.Create(part, 48<<20); err != nil {
					t.Fatal(err)
				}
				maker.Run(t, nil, "fossil/flfmt", "-y", "-b", bs, part)
				srv := maker.ServeFossil(t, part, "-APW", keepSnapshots)
				root, err := srv.Dial(t, ninep.ClientConfig{}).Attach(ctxFor(t, time.Minute), "glenda", "main/active")
				if err != nil {
					t.Fatal(err)
				}
				rng := rand.New(rand.NewPCG(11, uint64(len(maker.Name))))
				for i := range 4 {
					workOver9P(t, root, rng, 150)
					command := "snap"
					if i == 2 && maker.Name == ours.Name {
						command = "snap -a" // theirs begins ten seconds later
					}
					if out := srv.Console(t, "fsys main "+command); strings.Contains(out, "error") {
						t.Fatal(out)
					}
				}
				workOver9P(t, root, rng, 50)
				srv.Stop(t)
				if maker.Name == ours.Name {
					archiveAll(t, part, store.Addr)
				}
				t.Log(flchk(t, part, store.Addr))
				out, _, _ := ours.Try(t, nil, "fossil/flchk", "-h", store.Addr, part)
				if strings.Contains(out, "error: ") || !strings.Contains(out, "lost=0(") {
					t.Errorf("our flchk: %s", out)
				}
				a, b := listing(t, ours, part), listing(t, theirs, part)
				for _, path := range slices.Sorted(maps.Keys(a)) {
					if a[path] != b[path] {
						t.Errorf("%s: ours shows %s, theirs %s", path, a[path], b[path])
					}
				}
				for path := range b {
					if _, ok := a[path]; !ok {
						t.Errorf("%s: only theirs shows it", path)
					}
				}
				if len(a) < 100 {
					t.Errorf("only %d files: this shows little", len(a))
				}
				t.Logf("%d files", len(a))
			})
		}
	}
}

// keepSnapshots keeps the original from letting go of all temporary snapshots ten
// seconds after it has begun.
const keepSnapshots = "fsys main snaptime -t 1000000"

// archiveAll has what waits archived.
func archiveAll(t *testing.T, part, addr string) {
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
	if err == nil {
		_, err = fs.Archive(t.Context())
		err = errors.Join(err, fs.Close(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// workOver9P does random things below a directory. It does not cut files but to
// nothing, which the original cannot always.
func workOver9P(t *testing.T, root *ninep.File, rng *rand.Rand, steps int) {
	t.Helper()
	ctx := ctxFor(t, 2*time.Minute)
	for range steps {
		dir, err := root.Walk(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if sub, err := root.Walk(ctx, fmt.Sprint("dir", rng.IntN(6))); err == nil && rng.IntN(3) > 0 {
			dir.Close(ctx)
			dir = sub
		}
		name := fmt.Sprintf("%s%d", strings.Repeat("n", rng.IntN(40)), rng.IntN(30))
		do := func(work func(f *ninep.File) error) error {
			f, err := dir.Walk(ctx, name)
			if err != nil {
				return nil
			}
			return errors.Join(work(f), f.Close(ctx))
		}
		switch k := rng.IntN(12); {
		case k == 0:
			var d *ninep.File
			if d, err = root.Walk(ctx); err == nil {
				if err = d.Create(ctx, fmt.Sprint("dir", rng.IntN(6)), ninep.ModeDir|0o755, ninep.OREAD); errors.Is(err, ninep.ErrExist) {
					err = nil
				}
				d.Close(ctx)
			}
		case k < 6:
			perm := ninep.Mode(0o600 + rng.IntN(0o100))
			if rng.IntN(8) == 0 {
				perm |= ninep.ModeTmp
			}
			var f *ninep.File
			if f, err = dir.Walk(ctx); err == nil {
				if err = f.Create(ctx, name, perm, ninep.ORDWR); err == nil {
					_, err = f.WriteAt(ctx, random(rng.Uint64(), 1+rng.IntN(60_000)), rng.Int64N(200_000))
				} else if errors.Is(err, ninep.ErrExist) {
					err = nil
				}
				f.Close(ctx)
			}
		case k < 8:
			err = do(func(f *ninep.File) error {
				if f.Qid().Dir() {
					return nil
				}
				mode := ninep.OpenMode(ninep.OWRITE)
				if rng.IntN(4) == 0 {
					mode |= ninep.OTRUNC
				}
				if err := f.Open(ctx, mode); err != nil {
					return err
				}
				_, err := f.WriteAt(ctx, random(rng.Uint64(), 1+rng.IntN(30_000)), rng.Int64N(100_000))
				return err
			})
		case k < 9:
			err = do(func(f *ninep.File) error {
				mode, when := f.Qid().Type, time.Unix(1e9+rng.Int64N(1e8), 0)
				perm := ninep.Mode(mode)<<24 | ninep.Mode(0o400+rng.IntN(0o400))
				return f.Wstat(ctx, ninep.Change{Mode: &perm, Mtime: &when})
			})
		case k < 10:
			err = do(func(f *ninep.File) error {
				to := fmt.Sprint("moved", rng.IntN(30))
				if err := f.Wstat(ctx, ninep.Change{Name: &to}); !errors.Is(err, ninep.ErrExist) {
					return err
				}
				return nil
			})
		default:
			if f, werr := dir.Walk(ctx, name); werr == nil {
				err = f.Remove(ctx)
			}
		}
		dir.Close(ctx)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// listing serves a copy of a partition, and returns what is there: in snapshots
// all but the qids, of which ours has other ones there.
func listing(t *testing.T, s harness.Suite, part string) map[string]string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "part")
	data, err := os.ReadFile(part)
	if err == nil {
		err = os.WriteFile(copied, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	srv := s.ServeFossil(t, copied, "-APWa", keepSnapshots)
	defer srv.Kill()
	ctx := ctxFor(t, 2*time.Minute)
	root, err := srv.Dial(t, ninep.ClientConfig{}).Attach(ctx, "glenda", "main")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	listBelow(ctx, t, root, "", all)
	return all
}

func listBelow(ctx context.Context, t *testing.T, dir *ninep.File, path string, all map[string]string) {
	t.Helper()
	d, err := dir.Walk(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(ctx)
	var list []ninep.Dir
	if err = d.Open(ctx, ninep.OREAD); err == nil {
		list, err = d.ReadDir(ctx)
	}
	if err != nil {
		all[path+"/"] = err.Error()
		return
	}
	for _, e := range list {
		p := path + "/" + e.Name
		if p == "/ctl" { // no file of the file system
			continue
		}
		text := fmt.Sprintf("%#o %s %s %s %d %d", e.Mode&^ninep.ModeMount, e.UID, e.GID, e.Muid, e.Mtime.Unix(), e.Length)
		if strings.HasPrefix(p, "/active") {
			text += fmt.Sprintf(" %d.%d", e.Qid.Path, e.Qid.Vers)
		}
		f, err := dir.Walk(ctx, e.Name)
		if err != nil {
			all[p] = text + " " + errors.Unwrap(err).Error()
			continue
		}
		if e.Mode.Dir() {
			listBelow(ctx, t, f, p, all)
		} else if err := f.Open(ctx, ninep.OREAD); err != nil {
			text += " " + errors.Unwrap(err).Error()
		} else {
			b := make([]byte, e.Length+1)
			n, err := f.ReadAt(ctx, b, 0)
			if err == io.EOF {
				err = nil
			}
			text += fmt.Sprintf(" %x %v", sha1.Sum(b[:n]), err)
		}
		f.Close(ctx)
		all[p] = text
	}
}
