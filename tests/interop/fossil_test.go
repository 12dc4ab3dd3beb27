package interop

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strata/fossil"
	"strata/internal/disk"
	"strata/tests/harness"
	"strata/vac/meta"
	"strata/venti"
)

// fossilBin returns the path of a program of Plan 9's Fossil, or skips.
func fossilBin(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("FOSSIL_BIN")
	if dir == "" && os.Getenv("PLAN9") != "" {
		dir = filepath.Join(os.Getenv("PLAN9"), "bin", "fossil")
	}
	if dir == "" {
		t.Skip("neither $FOSSIL_BIN, a folder with Plan 9's fossil, flchk and flfmt, nor $PLAN9")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no Fossil: %v", err)
	}
	return path
}

// flchk has Plan 9's check judge a partition, with a Venti server if addr is
// one, and fails on anything it finds. It returns its summary.
func flchk(t *testing.T, part, addr string) string {
	t.Helper()
	args := []string{"-f", part}
	if addr != "" {
		args = []string{"-h", addr, part}
	}
	out, err := exec.Command(fossilBin(t, "flchk"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("flchk: %v\n%s", err, out)
	}
	summary := ""
	for l := range strings.Lines(string(out)) {
		switch l = strings.TrimSpace(l); {
		case strings.HasPrefix(l, "fsys blocks:"):
			summary = l
		case strings.HasPrefix(l, "checking epoch"), strings.HasPrefix(l, "check: visited"), strings.HasPrefix(l, "could not find root block"), l == "":
		case strings.Contains(l, "previously reported error"): // noise: spec 13.2
		default:
			t.Errorf("flchk: %s", l)
		}
	}
	if !strings.Contains(summary, "lost=0(") {
		t.Errorf("flchk: %q", summary)
	}
	return summary
}

// fossilWork does random things below dir.
func fossilWork(t *testing.T, fs *fossil.FS, rng *rand.Rand, steps int) {
	t.Helper()
	ctx := context.Background()
	active, err := fs.Walk(ctx, "/active")
	if err != nil {
		t.Fatal(err)
	}
	dirs := []*fossil.File{active}
	var files []*fossil.File
	pick := func(list []*fossil.File) int { return rng.IntN(len(list)) }
	for range steps {
		var err error
		i := rng.Uint64()
		switch k := rng.IntN(20); {
		case k < 2:
			d, cerr := dirs[pick(dirs)].Create(ctx, fmt.Sprintf("dir%d", i), meta.ModeDir|0o775, "glenda")
			if err = cerr; err == nil {
				dirs = append(dirs, d)
			}
		case k < 8 || len(files) == 0:
			name := strings.Repeat("n", rng.IntN(40)) + fmt.Sprint(i)
			f, cerr := dirs[pick(dirs)].Create(ctx, name, 0o644, "glenda")
			if err = cerr; err == nil {
				files = append(files, f)
			}
		case k < 13:
			p := make([]byte, rng.IntN(100<<10))
			for i := range p {
				p[i] = byte(i*i + i/7)
			}
			_, err = files[pick(files)].WriteAt(ctx, p, rng.Int64N(4<<20), "ken")
		case k < 15:
			size := rng.Int64N(4 << 20)
			err = files[pick(files)].SetAttr(ctx, fossil.Change{Size: &size}, "ken")
		case k < 16:
			err = files[pick(files)].Punch(ctx, rng.Int64N(2<<20), rng.Int64N(2<<20), "ken")
		case k < 18:
			n := pick(files)
			if err = files[n].Remove(ctx, "rob"); err == nil {
				files = append(files[:n], files[n+1:]...)
			}
		default:
			err = files[pick(files)].Rename(ctx, dirs[pick(dirs)], fmt.Sprintf("moved%d", i), true, "rob")
		}
		if err != nil && !errors.Is(err, fossil.ErrFull) {
			t.Fatal(err)
		}
	}
}

// TestFlchkAgrees has Plan 9's check judge partitions that ours has formatted
// and worked on.
func TestFlchkAgrees(t *testing.T) {
	fossilBin(t, "flchk")
	for _, bs := range []int{1024, 8192, 56 << 10} {
		t.Run(fmt.Sprint(bs), func(t *testing.T) {
			part := filepath.Join(t.TempDir(), "part")
			if err := disk.Create(part, 64<<20); err != nil {
				t.Fatal(err)
			}
			d, err := disk.Open(part, disk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := fossil.Format(t.Context(), d, fossil.FormatConfig{BlockSize: bs}); err != nil {
				t.Fatal(err)
			}
			t.Log(flchk(t, part, ""))
			rng := rand.New(rand.NewPCG(1, uint64(bs)))
			for range 3 {
				fs, err := fossil.Open(d, fossil.Config{})
				if err != nil {
					t.Fatal(err)
				}
				fossilWork(t, fs, rng, 150)
				for i := range 3 {
					if _, err := fs.Snapshot(t.Context(), fossil.SnapConfig{Archive: i == 1}); err != nil {
						t.Fatal(err)
					}
					fossilWork(t, fs, rng, 50)
				}
				used, total := fs.Usage()
				if err := fs.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				t.Log(used, total, flchk(t, part, ""))
			}
		})
	}
}

// TestFlchkAfterRepair damages partitions, has ours repair them, and Plan 9's
// check find nothing then.
func TestFlchkAfterRepair(t *testing.T) {
	fossilBin(t, "flchk")
	for _, bs := range []int{1024, 8192} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprintf("%d/%d", bs, seed), func(t *testing.T) {
				part := filepath.Join(t.TempDir(), "part")
				if err := disk.Create(part, 16<<20); err != nil {
					t.Fatal(err)
				}
				d, err := disk.Open(part, disk.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				if err := fossil.Format(t.Context(), d, fossil.FormatConfig{BlockSize: bs}); err != nil {
					t.Fatal(err)
				}
				rng := rand.New(rand.NewPCG(seed, uint64(bs)))
				fs, err := fossil.Open(d, fossil.Config{})
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					fossilWork(t, fs, rng, 60)
					if _, err := fs.Snapshot(t.Context(), fossil.SnapConfig{}); err != nil {
						t.Fatal(err)
					}
				}
				_, total := fs.Usage()
				if err := fs.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				// Bits in the labels of what was written first, and in its blocks,
				// but for those right at the beginning, which all depends on, and
				// pointers, which may come to look like scores: theirs are missing on
				// Venti for those who have none, and nothing to repair.
				n := total / int64(bs)
				labels := int64(131072+2*bs)/int64(bs) + 1
				data := labels + (n+int64(bs/14)-1)/int64(bs/14)
				for range 6 {
					var b [1]byte
					addr, lpb := 30+rng.Int64N(200), int64(bs/14)
					label := (labels+addr/lpb)*int64(bs) + addr%lpb*14
					off := label + rng.Int64N(14)
					if rng.IntN(2) == 0 {
						off = (data+addr)*int64(bs) + rng.Int64N(int64(bs))
						if _, err := d.ReadAt(b[:], label+1); err != nil {
							t.Fatal(err)
						}
						if b[0]&7 != 0 || b[0] == 8 && (off%int64(bs))%40 >= 20 {
							continue
						}
					}
					if _, err := d.ReadAt(b[:], off); err != nil {
						t.Fatal(err)
					}
					b[0] ^= 1 << rng.IntN(8)
					if _, err := d.WriteAt(b[:], off); err != nil {
						t.Fatal(err)
					}
				}
				if fs, err = fossil.Open(d, fossil.Config{NoAtime: true}); err != nil {
					t.Skip(err)
				}
				r, err := fs.Check(t.Context(), fossil.CheckConfig{Snapshots: true, Fix: fossil.AllRepairs})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%v done, %d left", r.Done, r.Left())
				if err := fs.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if r.Left() == 0 {
					t.Log(flchk(t, part, ""))
				}
			})
		}
	}
}

// TestFossilTools has each side's offline tools work on the other's partitions.
func TestFossilTools(t *testing.T) {
	ours := harness.Ours(t)
	theirs := func(stdin, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(fossilBin(t, name), args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	fossilBin(t, "flfmt")
	for _, bs := range []string{"1024", "8192", "57344"} {
		t.Run(bs, func(t *testing.T) {
			part := filepath.Join(t.TempDir(), "part")
			if err := disk.Create(part, 32<<20); err != nil {
				t.Fatal(err)
			}
			theirs("", "flfmt", "-y", "-b", bs, "-l", "theirs", part)
			t.Log(ours.Run(t, nil, "fossil/flchk", "-f", part))
			d, err := disk.Open(part, disk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			fs, err := fossil.Open(d, fossil.Config{})
			if err != nil {
				t.Fatal(err)
			}
			fossilWork(t, fs, rand.New(rand.NewPCG(2, 2)), 100)
			if err := fs.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			// While the log matters, theirs keeps away.
			if out, err := exec.Command(fossilBin(t, "flchk"), "-f", part).CombinedOutput(); err == nil && strings.Contains(string(out), "fsys blocks") {
				t.Errorf("theirs opens a partition whose log matters:\n%s", out)
			}
			if err := fs.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Log(flchk(t, part, ""))
		})
	}
}

// TestFossilArchive archives a file system; plan9port's unvac extracts the
// archive, its last finds the score, and its flfmt makes a file system of it,
// which is what ours was.
func TestFossilArchive(t *testing.T) {
	theirs, ours := harness.Plan9(t), harness.Ours(t)
	fossilBin(t, "flfmt")
	srv := ours.Serve(t, ours.Format(t, 16<<20, 4))
	c, err := venti.Dial(t.Context(), srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dir := t.TempDir()
	open := func(name string) (*fossil.FS, func()) {
		d, err := disk.Open(filepath.Join(dir, name), disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		fs, err := fossil.Open(d, fossil.Config{Venti: c, NoArchiver: true, NoAtime: true})
		if err != nil {
			t.Fatal(err)
		}
		return fs, func() {
			if err := fs.Close(t.Context()); err != nil {
				t.Error(err)
			}
			d.Close()
		}
	}
	for _, name := range []string{"one", "two"} {
		if err := disk.Create(filepath.Join(dir, name), 64<<20); err != nil {
			t.Fatal(err)
		}
		ours.Run(t, nil, "fossil/flfmt", "-y", filepath.Join(dir, name))
	}
	fs, end := open("one")
	rng := rand.New(rand.NewPCG(3, 3))
	for range 3 {
		fossilWork(t, fs, rng, 80)
		if _, err := fs.Snapshot(t.Context(), fossil.SnapConfig{Archive: true}); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	score, err := fs.Archive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("archived in %v", time.Since(start))
	want := map[string]string{}
	contents(t, fs, "/active", want)
	end()
	if len(want) < 20 {
		t.Fatalf("only %d files", len(want))
	}

	if out, err := exec.Command(fossilBin(t, "last"), filepath.Join(dir, "one")).CombinedOutput(); err != nil || string(out) != "vac:"+score.String()+"\n" {
		t.Errorf("last: %q, %v", out, err)
	}
	t.Log(flchk(t, filepath.Join(dir, "one"), srv.Addr))
	into := filepath.Join(dir, "into")
	if err := os.Mkdir(into, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := theirs.Command(t.Context(), "unvac", "-h", srv.Addr, "vac:"+score.String(), "active")
	cmd.Dir = into
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("unvac: %v\n%s", err, out)
	}
	for path, data := range want {
		if got, err := os.ReadFile(filepath.Join(into, path)); err != nil || string(got) != data {
			t.Errorf("unvac: %s: %d bytes, %v, want %d", path, len(got), err, len(data))
		}
	}
	cmd = exec.Command(fossilBin(t, "flfmt"), "-y", "-h", srv.Addr, "-v", score.String(), filepath.Join(dir, "two"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("flfmt -v: %v\n%s", err, out)
	}
	t.Log(flchk(t, filepath.Join(dir, "two"), srv.Addr))
	fs, end = open("two")
	got := map[string]string{}
	contents(t, fs, "/active", got)
	for path, data := range want {
		if got[path] != data {
			t.Errorf("flfmt -v: %s: %d bytes, want %d", path, len(got[path]), len(data))
		}
	}
	fossilWork(t, fs, rng, 100)
	end()
	t.Log(flchk(t, filepath.Join(dir, "two"), srv.Addr))
}

// contents notes what the files below a directory hold.
func contents(t *testing.T, fs *fossil.FS, path string, all map[string]string) {
	t.Helper()
	dir, err := fs.Walk(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for info, err := range dir.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		p := path + "/" + info.Name
		if info.Mode.IsDir() {
			contents(t, fs, p, all)
			continue
		}
		f, err := dir.Walk(t.Context(), info.Name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, info.Size)
		if n, err := f.ReadAt(t.Context(), b, 0); err != nil || n != len(b) {
			t.Fatalf("%s: %d bytes, %v, want %d", p, n, err, len(b))
		}
		all[p] = string(b)
	}
}
