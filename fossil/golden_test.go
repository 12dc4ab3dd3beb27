package fossil

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"strata/internal/disk"
	"strata/vac/meta"
	"strata/venti/store"
)

// goldenDir returns the folder of partitions that Plan 9's Fossil has made.
func goldenDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	dir = filepath.Join(dir, "golden", "fossil")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no golden data: %v", err)
	}
	return dir
}

// load puts what a compressed file holds on a disk.
func load(t *testing.T, m *disk.Machine, name string) *disk.Sim {
	t.Helper()
	f, err := os.Open(filepath.Join(goldenDir(t), name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	d := m.NewDisk(name, int64(len(b)))
	if _, err := d.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	return d
}

// A line is what the original's server showed of a file.
type line struct {
	Path, Type, Perm string
	UID, GID, MUID   string
	Mtime, Ctime     uint32
	Size             int64
	Qid              uint64
	Vers             uint32
	SHA1             string
	Unreadable       string
	Snap             *uint32
	Archive          *int
	Venti            *bool
}

func lines(t *testing.T, name string) map[string]line {
	t.Helper()
	f, err := os.Open(filepath.Join(goldenDir(t), name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]line{}
	for s := bufio.NewScanner(f); s.Scan(); {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		all[l.Path] = l
	}
	return all
}

// perm returns a mode as 9P has it, in octal.
func perm(m meta.Mode) string {
	p := uint32(m & meta.ModePerm)
	for _, b := range []struct {
		bit meta.Mode
		dm  uint32
	}{
		{meta.ModeDir, 1 << 31}, {meta.ModeAppend, 1 << 30}, {meta.ModeExclusive, 1 << 29},
		{meta.ModeTemporary, 1 << 26}, {meta.ModeSnapshot, 1 << 28},
	} {
		if m&b.bit != 0 {
			p |= b.dm
		}
	}
	return strconv.FormatUint(uint64(p), 8)
}

// compare checks the tree below a directory against lines, and returns how
// many files there are.
func compare(t *testing.T, dir *File, path string, want map[string]line) (n int) {
	t.Helper()
	ctx := context.Background()
	for info, err := range dir.List(ctx) {
		if err != nil {
			t.Errorf("list %s: %v", path, err)
			return n
		}
		p := path + "/" + info.Name
		n++
		w, ok := want[p]
		if !ok {
			t.Errorf("%s is not in the list", p)
			continue
		}
		typ := "f"
		if info.Mode.IsDir() {
			typ = "d"
		}
		got := line{
			Path: p, Type: typ, Perm: perm(info.Mode), UID: info.UID, GID: info.GID, MUID: info.MID,
			Mtime: info.Mtime, Ctime: info.Ctime, Size: info.Size, Qid: info.Qid, Vers: info.Mcount,
		}
		f, err := dir.Walk(ctx, info.Name)
		switch {
		case err != nil:
			got.Unreadable = err.Error()
			if errors.Is(err, ErrDeleted) {
				got.Unreadable = "partial walk 3/4" // as the recorder's client put it
			}
		case typ == "d":
			m := 0
			for _, err := range f.List(ctx) {
				if err != nil {
					got.Unreadable = err.Error()
				}
				m++
			}
			if got.Unreadable == "" && m > 0 {
				n += compare(t, f, p, want)
			}
		default:
			data := make([]byte, info.Size+10)
			k, err := f.ReadAt(ctx, data, 0)
			if err != nil {
				got.Unreadable = err.Error()
			} else {
				sum := sha1.Sum(data[:k])
				got.SHA1 = hex.EncodeToString(sum[:])
			}
		}
		if w.Venti != nil {
			got.Venti = new(info.OnVenti)
			if *w.Venti != info.OnVenti {
				t.Errorf("%s: on Venti %v, want %v", p, info.OnVenti, *w.Venti)
			}
			got.Venti = w.Venti
		}
		if w.Snap != nil && (*w.Snap != info.Snap || (*w.Archive != 0) != info.Archive) {
			t.Errorf("%s: snapshot %d, archive %v, want %d, %v", p, info.Snap, info.Archive, *w.Snap, *w.Archive)
		}
		got.Snap, got.Archive = w.Snap, w.Archive
		if w.Ctime == 0 {
			got.Ctime = 0
		}
		if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", w); a != b {
			t.Errorf("found\n%s, want\n%s", a, b)
		}
	}
	return n
}

// TestGolden reads the original's partitions: all that its server showed, and
// nothing else. Then it opens them for writing, changes something, and finds
// the rest as it was.
func TestGolden(t *testing.T) {
	for _, tc := range []struct {
		name, list string
		venti      bool
	}{{"local8k", "local8k.list.jsonl", false}, {"archived8k", "archived8k.list.jsonl", true}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := disk.NewMachine()
			d := load(t, m, tc.name+".fossil")
			want := lines(t, tc.list)
			cfg := Config{ReadOnly: true}
			if tc.venti {
				st, err := store.Open(t.Context(), store.Config{
					LumpMem: 1 << 20, IndexMem: 1 << 20, Interval: -1,
					Arenas:   []disk.File{load(t, m, tc.name+".arenas")},
					Sections: []disk.File{load(t, m, tc.name+".isect")},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer st.Close()
				cfg.Venti = st
			}
			writes := m.Count(disk.OpWrite)
			fs, err := Open(d, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if n := compare(t, fs.Root(), "", want); n != len(want) || n == 0 {
				t.Errorf("%d files, want %d", n, len(want))
			}
			if err := fs.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := m.Count(disk.OpWrite); n != writes {
				t.Errorf("%d writes when opened for reading", n-writes)
			}

			cfg.ReadOnly, cfg.NoAtime = false, true
			if fs, err = Open(d, cfg); err != nil {
				t.Fatal(err)
			}
			dir, err := fs.Walk(t.Context(), "/active")
			if err != nil {
				t.Fatal(err)
			}
			f, err := dir.Create(t.Context(), "new", 0o644, "ken")
			if err != nil {
				t.Fatal(err)
			}
			data := bytes.Repeat([]byte("new"), 10000)
			if _, err := f.WriteAt(t.Context(), data, 0, "ken"); err != nil {
				t.Fatal(err)
			}
			if err := f.Remove(t.Context(), "ken"); err != nil {
				t.Fatal(err)
			}
			l := want["/active"]
			info, err := dir.Stat(t.Context())
			if err != nil || info.Mcount != l.Vers+2 || info.MID != "ken" {
				t.Errorf("/active: %+v, %v", info, err)
			}
			l.Vers, l.Mtime, l.MUID = info.Mcount, info.Mtime, info.MID
			want["/active"] = l
			if err := fs.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			cfg.ReadOnly = true
			if fs, err = Open(d, cfg); err != nil {
				t.Fatal(err)
			}
			if n := compare(t, fs.Root(), "", want); n != len(want) {
				t.Errorf("%d files, want %d", n, len(want))
			}
			if err := fs.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
