package vac_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strata/internal/disk"
	"strata/vac"
	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/store"
)

// goldenFile returns the contents of a file that the original programs have
// made, or skips the test. It unpacks .gz.
func goldenFile(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared") // beside the module
	}
	b, err := os.ReadFile(filepath.Join(dir, "golden", name))
	if os.IsNotExist(err) {
		t.Skipf("no golden data: %v", err)
	}
	if err == nil && strings.HasSuffix(name, ".gz") {
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			b, err = io.ReadAll(z)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenStore opens the partitions of a store of the golden data.
func goldenStore(t testing.TB, arenas string, sections ...string) venti.Store {
	t.Helper()
	m := disk.NewMachine()
	load := func(name string) disk.File {
		b := goldenFile(t, name)
		d := m.NewDisk(name, int64(len(b)))
		if _, err := d.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		return d
	}
	cfg := store.Config{LumpMem: 4 << 20, IndexMem: 4 << 20, Interval: -1, Arenas: []disk.File{load(arenas)}}
	for _, name := range sections {
		cfg.Sections = append(cfg.Sections, load(name))
	}
	st, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// goldenLines calls f for each line of a file of JSON.
func goldenLines[T any](t testing.TB, name string, f func(line T)) {
	t.Helper()
	in := bufio.NewScanner(bytes.NewReader(goldenFile(t, name)))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var line T
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		f(line)
	}
}

// runes returns a name as JSON can have it.
func runes(name string) string { return string([]rune(name)) }

func contentSHA1(t testing.TB, f *vac.File) string {
	t.Helper()
	r, err := f.Open(hashtree.ReaderConfig{})
	if err != nil {
		t.Error(err)
		return ""
	}
	h := sha1.New()
	if _, err := r.Stream(t.Context(), h); err != nil {
		t.Errorf("%s: %v", f.Path(), err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// walkTree calls f for every file below dir, and fails the test for what
// cannot be read.
func walkTree(t testing.TB, dir *vac.File, f func(*vac.File)) {
	t.Helper()
	for file, err := range dir.ReadDir(t.Context()) {
		if err != nil {
			t.Error(err)
			continue
		}
		f(file)
		if file.IsDir() {
			walkTree(t, file, f)
		}
	}
}

// goldenScores returns what names the archives of a set have.
func goldenScores(t testing.TB, name string) map[string]venti.Score {
	t.Helper()
	scores := map[string]venti.Score{}
	for line := range strings.Lines(string(goldenFile(t, name))) {
		tree, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if s, err := vac.FindScore(text); err == nil {
			scores[tree] = s
		}
	}
	return scores
}

type goldenEntry struct {
	Gen                 uint32
	PSize, DSize, Depth int
	Flags               uint8
	Size                int64
	Score               venti.Score
}

func (e *goldenEntry) entry() venti.Entry {
	if e == nil {
		return venti.Entry{}
	}
	const depth = 0x1c
	return venti.Entry{Gen: e.Gen, PSize: e.PSize, DSize: e.DSize, Depth: e.Depth, Flags: e.Flags &^ depth, Size: e.Size, Score: e.Score}
}

type goldenLine struct {
	Kind, Path, Elem, SHA1            string
	Version                           int
	Entry, Gen, MEntry, MGen          uint32
	Qid                               uint64
	UID, GID, MID                     string
	Mtime, Mcount, Ctime, Atime, Mode uint32
	QidOffset, QidMax                 *uint64
	Data, Meta                        *goldenEntry
}

func (l *goldenLine) dirEntry() meta.DirEntry {
	e := meta.DirEntry{
		Version: l.Version, Name: l.Elem, Entry: l.Entry, Gen: l.Gen, MEntry: l.MEntry, MGen: l.MGen, Qid: l.Qid,
		UID: l.UID, GID: l.GID, MID: l.MID, Mtime: l.Mtime, Mcount: l.Mcount, Ctime: l.Ctime, Atime: l.Atime, Mode: meta.Mode(l.Mode),
	}
	if l.QidOffset != nil {
		e.QidSpace, e.QidOffset, e.QidMax = true, *l.QidOffset, *l.QidMax
	}
	return e
}

// TestGoldenArchives reads all archives that plan9port's vac has made.
func TestGoldenArchives(t *testing.T) {
	for _, set := range []struct {
		name     string
		sections []string
	}{{"v5", []string{"v5/isect0.gz", "v5/isect1.gz"}}, {"v4", []string{"v4/isect0.gz"}}} {
		st := goldenStore(t, set.name+"/arenas.gz", set.sections...)
		n := 0
		for tree, score := range goldenScores(t, set.name+"/scores.txt") {
			name := set.name + "/trees/" + tree + ".tree.jsonl.gz"
			if tree == "tree8k-dq" {
				continue // has no list
			}
			n++
			t.Run(set.name+"/"+tree, func(t *testing.T) {
				want := map[string]goldenLine{}
				goldenLines(t, name, func(l goldenLine) {
					if l.Kind == "file" {
						want[l.Path] = l
					}
				})
				a, err := vac.Open(t.Context(), st, score)
				if err != nil {
					t.Fatal(err)
				}
				compare := func(path string, f *vac.File) {
					l, ok := want[path]
					if !ok {
						t.Errorf("%s is not in the list", path)
						return
					}
					delete(want, path)
					got := f.DirEntry
					got.Name = runes(got.Name)
					if got != l.dirEntry() {
						t.Errorf("%s: got %+v, want %+v", path, got, l.dirEntry())
					}
					if f.Data() != l.Data.entry() || f.Meta() != l.Meta.entry() {
						t.Errorf("%s: got %+v and %+v, want %+v and %+v", path, f.Data(), f.Meta(), l.Data.entry(), l.Meta.entry())
					}
					if f.IsDir() {
						return
					}
					if s := contentSHA1(t, f); s != l.SHA1 {
						t.Errorf("%s: contents have SHA-1 %s, want %s", path, s, l.SHA1)
					}
				}
				compare("", a.Root)
				walkTree(t, a.Root, func(f *vac.File) {
					compare(runes(f.Path()), f)
					if n++; n%7 > 0 {
						return // reading is what takes time
					}
					if got, err := f.Parent().Walk(t.Context(), f.Name); err != nil || got.DirEntry != f.DirEntry {
						t.Errorf("walk to %s: %v", f.Path(), err)
					}
				})
				for path := range want {
					t.Errorf("%q is missing", path)
				}
			})
		}
		if n == 0 {
			t.Error("no archive")
		}
	}
}

// TestGoldenFossil reads what fossil has archived. The list is of the file
// system, which has the same trees below /archive.
func TestGoldenFossil(t *testing.T) {
	st := goldenStore(t, "fossil/archived8k.arenas.gz", "fossil/archived8k.isect.gz")
	var super struct{ Archives []venti.Score }
	if err := json.Unmarshal(goldenFile(t, "fossil/archived8k.super.json"), &super); err != nil {
		t.Fatal(err)
	}
	type line struct {
		Path, Type, SHA1, UID, GID, MUID, Unreadable string
		Mtime, Ctime, Vers                           uint32
		Size                                         int64
		Qid                                          uint64
	}
	want := map[string]line{}
	goldenLines(t, "fossil/archived8k.list.jsonl", func(l line) { want[l.Path] = l })
	for i, date := range []string{"2026/1122", "2026/1122.1"} {
		a, err := vac.Open(t.Context(), st, super.Archives[i])
		if err != nil {
			t.Fatal(err)
		}
		active, err := a.Root.Lookup(t.Context(), "active")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		walkTree(t, active, func(f *vac.File) {
			n++
			l, ok := want["/archive/"+date+strings.TrimPrefix(f.Path(), "active")]
			if !ok {
				t.Errorf("%s: %s is not in the list", date, f.Path())
				return
			}
			if f.UID != l.UID || f.GID != l.GID || f.MID != l.MUID || f.Mtime != l.Mtime || f.Ctime != l.Ctime || f.Mcount != l.Vers ||
				f.Qid != l.Qid || f.Size() != l.Size || f.IsDir() != (l.Type == "d") {
				t.Errorf("%s: got %+v of %d bytes, want %+v", f.Path(), f.DirEntry, f.Size(), l)
			}
			if !f.IsDir() && contentSHA1(t, f) != l.SHA1 {
				t.Errorf("%s: contents differ", f.Path())
			}
		})
		wantN := 0
		for path := range want {
			if strings.HasPrefix(path, "/archive/"+date+"/") {
				wantN++
			}
		}
		if n != wantN || n == 0 {
			t.Errorf("%s: %d files, want %d", date, n, wantN)
		}
	}
	// The second holds the first, as a directory.
	a, err := vac.Open(context.Background(), st, super.Archives[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Root.Lookup(t.Context(), "/archive/2026/1122/adm/users"); err != nil {
		t.Error(err)
	}
}

// TestAppendToFossil adds a day to what fossil has archived, beside the three
// directories that are there.
func TestAppendToFossil(t *testing.T) {
	st := goldenStore(t, "fossil/archived8k.arenas.gz", "fossil/archived8k.isect.gz")
	var super struct{ Archives []venti.Score }
	if err := json.Unmarshal(goldenFile(t, "fossil/archived8k.super.json"), &super); err != nil {
		t.Fatal(err)
	}
	a := open(t, st, super.Archives[0])
	dir := t.TempDir()
	write(t, dir+"/f", []byte("contents"))
	for _, name := range []string{"2026/1122", "2026/1122.1"} {
		r, err := vac.Store(t.Context(), st, []string{dir + "/f"}, vac.Options{Daily: true, Append: a,
			Now: time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC), Warn: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		a = open(t, st, r.Score)
		for _, path := range []string{name + "/f", "active/adm/users", "archive", "snapshot"} {
			if _, err := a.Root.Lookup(t.Context(), path); err != nil {
				t.Error(err)
			}
		}
	}
	qids := map[uint64]string{}
	walkTree(t, a.Root, func(f *vac.File) {
		if strings.HasPrefix(f.Path(), "2026/") {
			if other, ok := qids[f.FullQid()]; ok {
				t.Errorf("%s and %s have qid %d", f.Path(), other, f.FullQid())
			}
		}
		qids[f.FullQid()] = f.Path()
	})
}
