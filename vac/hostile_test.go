package vac_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/vac"
	"strata/vac/meta"
	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// A rawFile is a file of an archive that no vac would make. Directories have
// files.
type rawFile struct {
	name  string
	mode  meta.Mode
	data  string
	files []rawFile
	edit  func(e *meta.DirEntry, data, m *venti.Entry) // the last word
}

// putRaw stores the streams of a directory.
func putRaw(t testing.TB, st venti.Store, files []rawFile) (data, m venti.Entry) {
	t.Helper()
	var entries []venti.Entry
	block := meta.New(make([]byte, 4096), 40, meta.LongerFirst)
	for i, f := range files {
		e := meta.DirEntry{Version: 9, Mode: f.mode, Entry: uint32(len(entries)), MEntry: uint32(len(entries) + 1), Qid: uint64(i)}
		d, m, err := venti.Entry{}, venti.Entry{}, error(nil)
		if f.mode.IsDir() {
			d, m = putRaw(t, st, f.files)
		} else {
			d, _, err = hashtree.WriteBytes(t.Context(), st, []byte(f.data), hashtree.Config{DSize: 4096})
		}
		must(t, err)
		if f.edit != nil {
			f.edit(&e, &d, &m)
		}
		entries = append(entries, d)
		if f.mode.IsDir() {
			entries = append(entries, m)
		}
		// Insert refuses a name twice, and an empty one is found only once; the bytes
		// do not mind.
		e.Name = strings.Repeat(string([]byte{0x80 + byte(i)}), max(len(f.name), 1))
		must(t, block.Insert(&e))
		k, _ := block.Search(e.Name)
		p := block.Packed(k)
		if copy(p[8:], f.name); f.name == "" {
			p[7] = 0 // and then the entry does not add up
		}
	}
	w, err := hashtree.NewWriter(t.Context(), st, hashtree.Config{DSize: 4096, Dir: true})
	must(t, err)
	for _, e := range entries {
		must(t, w.WriteEntry(e))
	}
	data, _, err = w.Close()
	must(t, err)
	m, _, err = hashtree.WriteBytes(t.Context(), st, block.Bytes(), hashtree.Config{DSize: 4096})
	must(t, err)
	return data, m
}

// putRoot stores what lies above the top directory.
func putRoot(t testing.TB, st venti.Store, data, m venti.Entry) venti.Score {
	t.Helper()
	block := meta.New(make([]byte, 4096), 1, meta.LongerFirst)
	must(t, block.Insert(&meta.DirEntry{Version: 8, Name: "/", MEntry: 1, Mode: meta.ModeDir | 0o777}))
	self, _, err := hashtree.WriteBytes(t.Context(), st, block.Bytes(), hashtree.Config{DSize: 4096})
	must(t, err)
	var b []byte
	for _, e := range []venti.Entry{data, m, self} {
		b, err = e.Pack(b)
		must(t, err)
	}
	s, err := st.WriteBlock(t.Context(), venti.DirType, b)
	must(t, err)
	root := venti.Root{Type: "vac", Score: s, BlockSize: 4096}
	b, err = root.Pack(nil)
	must(t, err)
	s, err = st.WriteBlock(t.Context(), venti.RootType, b)
	must(t, err)
	return s
}

// fence makes a directory to extract into, beside files that nobody may touch,
// and returns it with a function that looks after them.
func fence(t testing.TB) (into string, check func()) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/outside/file", []byte("outside"))
	write(t, dir+"/file", []byte("outside"))
	into = dir + "/a/in"
	must(t, os.MkdirAll(into, 0o777))
	return into, func() {
		t.Helper()
		var got []string
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if path == into {
				return fs.SkipDir
			}
			if b, err := os.ReadFile(path); err == nil && string(b) == "outside" {
				path += "!"
			}
			got = append(got, strings.TrimPrefix(path, dir))
			return nil
		})
		if text := strings.Join(got, " "); text != " /a /file! /outside /outside/file!" {
			t.Errorf("outside the directory there is %q", text)
		}
	}
}

const dir0777 = meta.ModeDir | 0o777

// TestHostileNames extracts an archive that wants out of its directory.
func TestHostileNames(t *testing.T) {
	into, check := fence(t)
	outside := filepath.Dir(filepath.Dir(into)) + "/outside"
	evil := rawFile{name: "file", mode: 0o666, data: "evil"}
	files := []rawFile{
		{name: "..", mode: dir0777, files: []rawFile{evil}},
		{name: ".", mode: dir0777, files: []rawFile{evil}},
		{name: "../../file", mode: 0o666, data: "evil"},
		{name: "/tmp/evil", mode: 0o666, data: "evil"},
		{name: "nul\x00", mode: 0o666, data: "evil"},
		{name: "", mode: 0o666, data: "evil"},
		{name: "link", mode: meta.ModeLink | 0o777, data: outside},
		{name: "link", mode: dir0777, files: []rawFile{evil}},
		{name: "linkf", mode: meta.ModeLink | 0o777, data: outside + "/file"},
		{name: "linkf", mode: 0o666, data: "evil"},
		{name: "dev", mode: meta.ModeDevice | 0o666, data: "c 3 1"},
		{name: "nodev", mode: meta.ModeDevice | 0o666, data: "c x"},
		{name: "nolink", mode: meta.ModeLink | 0o777, data: "8 bytes.\x00\x00\x00"},
		{name: "longlink", mode: meta.ModeLink | 0o777, data: strings.Repeat("x", 5000)},
		{name: "suid", mode: meta.ModeSetuid | 0o777, data: "suid"},
		{name: "good", mode: 0o644, data: "good"},
	}
	st := ventitest.NewMemory()
	data, m := putRaw(t, st, files)
	a := open(t, st, putRoot(t, st, data, m))
	for range 20 { // in other orders, and onto what is there
		var told []string
		r, err := vac.Extract(t.Context(), a.Root, into, vac.ExtractOptions{Warn: func(err error) { told = append(told, err.Error()) }})
		must(t, err)
		check()
		if int(r.Failed) != len(told) || r.Failed < 9 {
			t.Errorf("%d failed, told %q", r.Failed, told)
		}
		for _, want := range []string{`bad name ".."`, `bad name "."`, `bad name "../../file"`, `bad name "/tmp/evil"`, `bad name "nul\x00"`,
			"restore dev: devices are made only on request", "restore nolink: nolink: target of the link is lost", "restore longlink: "} {
			if !strings.Contains(strings.Join(told, "\n"), want) {
				t.Errorf("nobody told of %q: %q", want, told)
			}
		}
		if b, err := os.ReadFile(into + "/good"); err != nil || string(b) != "good" {
			t.Errorf("good: %q, %v", b, err)
		}
		if info, err := os.Lstat(into + "/suid"); err != nil || info.Mode()&os.ModeSetuid != 0 {
			t.Errorf("suid: %v, %v", info.Mode(), err)
		}
	}
}

// TestLinksInTheWay extracts over a directory in which there are links already.
func TestLinksInTheWay(t *testing.T) {
	for _, update := range []bool{false, true} {
		into, check := fence(t)
		outside := filepath.Dir(filepath.Dir(into)) + "/outside"
		must(t, os.Symlink(outside, into+"/d"))
		must(t, os.Symlink(outside+"/file", into+"/file"))
		st := ventitest.NewMemory()
		data, m := putRaw(t, st, []rawFile{
			{name: "d", mode: dir0777, files: []rawFile{{name: "file", mode: 0o666, data: "evil"}}},
			{name: "file", mode: 0o666, data: "good"},
		})
		r, err := vac.Extract(t.Context(), open(t, st, putRoot(t, st, data, m)).Root, into, vac.ExtractOptions{Update: update})
		must(t, err)
		check()
		if b, err := os.ReadFile(into + "/file"); err != nil || string(b) != "good" || r.Failed == 0 {
			t.Errorf("%q, %v, %d failed", b, err, r.Failed)
		}
	}
}

// TestWrongEntries has entries that do not agree with what they name. The file
// beside them is restored.
func TestWrongEntries(t *testing.T) {
	type edit = func(e *meta.DirEntry, data, m *venti.Entry)
	for _, tc := range []struct {
		name string
		mode meta.Mode
		edit edit
	}{
		{"another generation", 0o644, func(e *meta.DirEntry, _, _ *venti.Entry) { e.Gen = 7 }},
		{"another generation of metadata", dir0777, func(e *meta.DirEntry, _, _ *venti.Entry) { e.MGen = 7 }},
		{"no slot", 0o644, func(e *meta.DirEntry, _, _ *venti.Entry) { e.Entry = 1 << 31 }},
		{"no slot of metadata", dir0777, func(e *meta.DirEntry, _, _ *venti.Entry) { e.MEntry = 1<<32 - 1 }},
		{"inactive", 0o644, func(_ *meta.DirEntry, d, _ *venti.Entry) { d.Flags = 0 }},
		{"inactive metadata", dir0777, func(_ *meta.DirEntry, _, m *venti.Entry) { m.Flags = 0 }},
		{"a file that is a directory", 0o644, func(_ *meta.DirEntry, d, _ *venti.Entry) { d.Flags |= venti.EntryDir }},
		{"a directory that is a file", dir0777, func(_ *meta.DirEntry, d, _ *venti.Entry) { d.Flags &^= venti.EntryDir }},
		{"metadata that is a directory", dir0777, func(_ *meta.DirEntry, _, m *venti.Entry) { m.Flags |= venti.EntryDir }},
		{"too large for its depth", 0o644, func(_ *meta.DirEntry, d, _ *venti.Entry) { d.Size = 1 << 40 }},
		{"missing", 0o644, func(_ *meta.DirEntry, d, _ *venti.Entry) { d.Score[0]++ }},
		{"missing metadata", dir0777, func(_ *meta.DirEntry, _, m *venti.Entry) { m.Score[0]++ }},
		{"missing entries", dir0777, func(_ *meta.DirEntry, d, _ *venti.Entry) { d.Score[0]++ }},
		{"metadata without end", dir0777, func(_ *meta.DirEntry, _, m *venti.Entry) { m.Depth, m.Size = 7, 1<<48-1 }},
		{"metadata of holes", dir0777, func(_ *meta.DirEntry, _, m *venti.Entry) { m.Depth, m.Size, m.Score = 3, 1<<32, venti.EmptyScore }},
		{"metadata that is none", dir0777, func(_ *meta.DirEntry, d, m *venti.Entry) { m.Size, m.Score = 4096, d.Score }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := ventitest.NewMemory()
			data, m := putRaw(t, st, []rawFile{
				{name: "bad", mode: tc.mode, data: "bad", files: []rawFile{{name: "below", mode: 0o644, data: "below"}}, edit: tc.edit},
				{name: "good", mode: 0o644, data: "good"},
			})
			var told []string
			into := t.TempDir()
			r, err := vac.Extract(t.Context(), open(t, st, putRoot(t, st, data, m)).Root, into, vac.ExtractOptions{
				Warn: func(err error) { told = append(told, err.Error()) },
			})
			must(t, err)
			if r.Failed == 0 || len(told) == 0 || !strings.Contains(told[0], "bad") {
				t.Errorf("%d failed, told %q", r.Failed, told)
			}
			if b, err := os.ReadFile(into + "/good"); err != nil || string(b) != "good" {
				t.Errorf("good: %q, %v", b, err)
			}
			if _, err := os.Lstat(into + "/bad"); tc.mode.IsRegular() && err == nil {
				t.Error("half of bad is left")
			}
		})
	}
}

// A liar is a store that has other blocks than their scores say.
type liar struct {
	venti.BlockReader
	lies map[venti.Score][]byte
}

func (l liar) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	if b, ok := l.lies[s]; ok {
		return copy(buf, b), nil
	}
	return l.BlockReader.ReadBlock(ctx, s, t, buf)
}

// TestCycle has a directory that holds itself, and one that holds it twice
// removed.
func TestCycle(t *testing.T) {
	st := ventitest.NewMemory()
	knot := func(e *meta.DirEntry, d, m *venti.Entry) {
		*d = venti.Entry{Flags: venti.EntryActive | venti.EntryDir, PSize: 4080, DSize: 4096, Size: 80, Score: venti.Score{1}}
		*m = venti.Entry{Flags: venti.EntryActive, PSize: 4080, DSize: 4096, Size: 4096, Score: venti.Score{2}}
	}
	lies := map[venti.Score][]byte{}
	lie := func(s venti.Score, e venti.Entry) {
		b := make([]byte, 4096)
		n, err := st.ReadBlock(t.Context(), e.Score, e.Type(), b)
		must(t, err)
		lies[s] = b[:n]
	}
	inner, innerMeta := putRaw(t, st, []rawFile{{name: "self", mode: dir0777, edit: knot}})
	lie(venti.Score{1}, inner)
	lie(venti.Score{2}, innerMeta)
	data, m := putRaw(t, st, []rawFile{{name: "d", mode: dir0777, edit: knot}, {name: "good", mode: 0o644, data: "good"}})
	a, err := vac.Open(t.Context(), liar{st, lies}, putRoot(t, st, data, m))
	must(t, err)
	into := t.TempDir()
	var told []string
	_, err = vac.Extract(t.Context(), a.Root, into, vac.ExtractOptions{Warn: func(err error) { told = append(told, err.Error()) }})
	must(t, err)
	if len(told) != 1 || told[0] != "d/self: corrupt metadata: directory holds itself" {
		t.Errorf("told %q", told)
	}
	if b, err := os.ReadFile(into + "/good"); err != nil || string(b) != "good" {
		t.Errorf("good: %q, %v", b, err)
	}
}

// TestMissingBlocks takes each block of an archive away: what does not lie on
// it is restored, whole, and the error names what does.
func TestMissingBlocks(t *testing.T) {
	dir := t.TempDir()
	want := map[string][]byte{}
	for i := range 18 {
		name := fmt.Sprintf("d%d/e%d/f%d", i%3, i%2, i)
		want[name] = random(uint64(i), 200*i)
		write(t, dir+"/"+name, want[name])
	}
	st := ventitest.NewMemory()
	score := archive(t, st, dir, vac.Options{BlockSize: 512}).Score
	type block struct {
		s venti.Score
		t venti.Type
	}
	var blocks []block
	must(t, hashtree.Walk(t.Context(), st, score, venti.RootType, hashtree.WalkConfig{Once: true}, func(b *hashtree.Block) error {
		if !bytes.Equal(b.Data, nil) {
			blocks = append(blocks, block{b.Score, b.Type})
		}
		return nil
	}))
	buf := make([]byte, venti.MaxBlockSize)
	for i, b := range blocks {
		n, err := st.ReadBlock(t.Context(), b.s, b.t, buf)
		must(t, err)
		st.Remove(b.s, b.t)
		a, err := vac.Open(t.Context(), st, score)
		if err == nil {
			into := fmt.Sprintf("%s-%d", dir, i)
			var told []string
			r, err := vac.Extract(t.Context(), a.Root, into, vac.ExtractOptions{Warn: func(err error) { told = append(told, err.Error()) }})
			must(t, err)
			lost := 0
			for name, data := range want {
				got, err := os.ReadFile(into + "/" + name)
				switch {
				case errors.Is(err, fs.ErrNotExist):
					lost++
				case err != nil || !bytes.Equal(got, data):
					t.Errorf("%s comes back otherwise without block %d: %v", name, i, err)
				}
			}
			if r.Failed == 0 || lost == 0 || len(told) == 0 {
				t.Errorf("without block %d of type %v: %d failed, %d lost, told %q", i, b.t, r.Failed, lost, told)
			}
			must(t, os.RemoveAll(into))
		} else if !errors.Is(err, venti.ErrNotFound) {
			t.Errorf("without block %d: %v", i, err)
		}
		_, err = st.WriteBlock(t.Context(), b.t, buf[:n])
		must(t, err)
	}
}

// FuzzExtract extracts archives with any bytes for metadata and entries.
func FuzzExtract(f *testing.F) {
	seed := ventitest.NewMemory()
	data, m := putRaw(f, seed, []rawFile{
		{name: "d", mode: dir0777, files: []rawFile{{name: "x", mode: 0o644, data: "x"}}},
		{name: "f", mode: 0o644, data: strings.Repeat("contents", 2000)},
		{name: "l", mode: meta.ModeLink | 0o777, data: "f"},
		{name: "p", mode: meta.ModePipe | 0o644},
	})
	var parts [2][]byte
	for i, e := range []venti.Entry{data, m} {
		parts[i] = make([]byte, 4096)
		n, err := seed.ReadBlock(f.Context(), e.Score, e.Type(), parts[i])
		must(f, err)
		parts[i] = parts[i][:n]
	}
	f.Add(parts[0], parts[1], int64(4096), uint8(0))
	f.Fuzz(func(t *testing.T, entries, metadata []byte, size int64, depth uint8) {
		if len(entries) > 4096 || len(metadata) > 4096 || size < 0 || size > 1<<30 {
			return
		}
		d := venti.Entry{Flags: venti.EntryActive | venti.EntryDir, PSize: 4080, DSize: 4096, Size: int64(len(entries))}
		m := venti.Entry{Flags: venti.EntryActive, PSize: 4080, DSize: 4096, Size: size, Depth: int(depth % 8)}
		var err error
		d.Score, err = seed.WriteBlock(t.Context(), d.Type(), entries)
		must(t, err)
		m.Score, err = seed.WriteBlock(t.Context(), m.Type(), metadata)
		must(t, err)
		a, err := vac.Open(t.Context(), seed, putRoot(t, seed, d, m))
		must(t, err)
		for f, err := range a.Root.ReadDir(t.Context()) {
			if err == nil && !vac.ValidName(f.Name) {
				t.Errorf("a file is called %q", f.Name)
			}
		}
		into, check := fence(t)
		if _, err := vac.Extract(t.Context(), a.Root, into, vac.ExtractOptions{Times: true}); err != nil {
			t.Error(err)
		}
		check()
	})
}
