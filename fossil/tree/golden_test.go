package tree

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"strata/fossil"
	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
	"strata/venti/store"
)

// goldenFile reads one of those that Plan 9's Fossil has made.
func goldenFile(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	f, err := os.Open(filepath.Join(dir, "golden", "fossil", name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no golden data: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenDisk returns a disk with what a file holds.
func goldenDisk(t *testing.T, name string) *disk.Sim {
	t.Helper()
	b := goldenFile(t, name+".gz")
	d := disk.NewMachine().NewDisk(name, int64(len(b)))
	if _, err := d.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return d
}

// A goldenLine is what the original's server showed of a file.
type goldenLine struct {
	Path, Type, Perm     string
	Uname, Gname, Muname string
	Mtime                int64
	Size                 int64
	Qid                  uint64
	Vers                 uint32
	SHA1, Unreadable     string
}

// TestGolden has clients of each dialect look at the original's partitions: they
// see what its own clients saw.
func TestGolden(t *testing.T) {
	for _, name := range []string{"local8k", "archived8k"} {
		cfg := fossil.Config{ReadOnly: true}
		if name == "archived8k" {
			st, err := store.Open(t.Context(), store.Config{
				LumpMem: 1 << 20, IndexMem: 1 << 20, Interval: -1,
				Arenas: []disk.File{goldenDisk(t, name+".arenas")}, Sections: []disk.File{goldenDisk(t, name+".isect")},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			cfg.Venti = st
		}
		fs, err := fossil.Open(goldenDisk(t, name+".fossil"), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer fs.Close(context.Background())
		tr := New(fs, Config{NoPermissions: true})
		if _, err := tr.LoadUsers(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := map[string]goldenLine{}
		for s := bufio.NewScanner(strings.NewReader(string(goldenFile(t, name+".list.jsonl")))); s.Scan(); {
			var l goldenLine
			if err := json.Unmarshal(s.Bytes(), &l); err != nil {
				t.Fatal(err)
			}
			want[l.Path] = l
		}
		for _, d := range []ninep.Dialect{ninep.Classic, ninep.Linux} {
			t.Run(name+" "+d.String(), func(t *testing.T) {
				n := looksLike(t, ninetest.Dial(t, tr, d, "glenda", "main"), "", d, want)
				if n != len(want) || n == 0 {
					t.Errorf("%d files, want %d", n, len(want))
				}
			})
		}
	}
}

// looksLike compares what is below a directory, and returns how many files there
// are.
func looksLike(t *testing.T, dir *ninep.File, path string, d ninep.Dialect, want map[string]goldenLine) (n int) {
	t.Helper()
	ctx := t.Context()
	o, err := dir.Walk(ctx)
	if err == nil {
		err = o.Open(ctx, ninep.OREAD)
	}
	if err != nil {
		t.Fatal(err)
	}
	list, err := o.ReadDir(ctx)
	o.Close(ctx)
	if err != nil {
		if w := want[path].Unreadable; !refused(err, d, w) {
			t.Errorf("%s: %v, want %s", path, err, w)
		}
		return 0
	}
	for _, e := range list {
		p := path + "/" + e.Name
		w, ok := want[p]
		if !ok {
			if p != "/"+CtlName {
				t.Errorf("%s is not in the list", p)
			}
			continue
		}
		n++
		f, err := dir.Walk(ctx, e.Name)
		if err != nil {
			if w.Unreadable != "partial walk 3/4" { // as the recorder's client put it, of a snapshot that is gone
				t.Errorf("%s: %v, want %s", p, err, w.Unreadable)
			}
			continue
		}
		s, err := f.Stat(ctx)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		active := strings.HasPrefix(p, "/active")
		perm, err := strconv.ParseUint(w.Perm, 8, 32)
		if err != nil {
			t.Fatal(err)
		}
		mode := ninep.Mode(perm)
		bits := ninep.ModeDir | ninep.ModePerm // what Linux has of them
		if d == ninep.Classic {
			bits |= ninep.ModeAppend | ninep.ModeExcl | ninep.ModeTmp // and the original's server shows
		}
		got := fmt.Sprintf("%#o %d %d", s.Mode&bits, s.Mtime.Unix(), s.Length)
		if d == ninep.Classic {
			got += fmt.Sprintf(" %s %s %s %d", s.UID, s.GID, s.Muid, s.Qid.Vers)
		}
		as := fmt.Sprintf("%#o %d %d", mode&bits, w.Mtime, w.Size)
		if d == ninep.Classic {
			as += fmt.Sprintf(" %s %s %s %d", w.Uname, w.Gname, w.Muname, w.Vers)
		}
		if got != as || active && s.Qid.Path != w.Qid {
			t.Errorf("%s: %s, qid %v, want %s, qid %d", p, got, s.Qid, as, w.Qid)
		}
		if s.Mode.Dir() {
			n += looksLike(t, f, p, d, want)
		} else if sum, err := sumOf(ctx, f); err != nil {
			if !refused(err, d, w.Unreadable) {
				t.Errorf("%s: %v, want %s", p, err, w.Unreadable)
			}
		} else if w.Unreadable != "" || sum != w.SHA1 {
			t.Errorf("%s: contents %s, want %s %s", p, sum, w.SHA1, w.Unreadable)
		}
		f.Close(ctx)
	}
	return n
}

// refused tells whether an error is the one that the original has; Linux is told
// a number.
func refused(err error, d ninep.Dialect, want string) bool {
	if d == ninep.Linux {
		return want != "" && errors.Is(err, ninep.ErrIO)
	}
	return want != "" && strings.HasSuffix(err.Error(), want)
}

// sumOf returns the SHA-1 of a file's contents.
func sumOf(ctx context.Context, f *ninep.File) (string, error) {
	if err := f.Open(ctx, ninep.OREAD); err != nil {
		return "", err
	}
	h := sha1.New()
	for piece, err := range f.Stream(ctx, 0) {
		if err != nil {
			return "", err
		}
		h.Write(piece)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
