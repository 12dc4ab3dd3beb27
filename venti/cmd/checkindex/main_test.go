package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/bloom"
	"strata/venti/internal/config"
	"strata/venti/internal/index"
)

// newStore makes a store of an arena of two clumps, of which the second is
// not noted as indexed, with an empty index and filter. It returns the
// configuration and the entry of the first clump as checkindex prints it.
func newStore(t *testing.T) (conf, entry string) {
	t.Helper()
	dir := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	text := "index main\n"
	parts := make(map[string]*disk.Partition)
	for _, keyword := range []string{"arenas", "isect", "bloom"} {
		file := filepath.Join(dir, keyword)
		check(disk.Create(file, 4<<20))
		p, err := disk.Open(file, disk.Options{})
		check(err)
		defer p.Close()
		parts[keyword] = p
		text += keyword + " " + file + "\n"
	}
	conf = filepath.Join(dir, "venti.conf")
	check(os.WriteFile(conf, []byte(text), 0o666))

	p, err := arena.Format(t.Context(), parts["arenas"], arena.FormatConfig{Name: "arena"})
	check(err)
	a, err := p.OpenArena(0)
	check(err)
	tr, err := a.ReadTrailer()
	check(err)
	for i, data := range []string{"hello world", "not indexed yet"} {
		info := arena.ClumpInfo{Type: venti.DiskData, Size: uint16(len(data)), UncSize: uint16(len(data)), Score: venti.ScoreOf([]byte(data))}
		check(a.WriteInfos([]arena.ClumpInfo{info}, i))
		tr.Mem.Add(&info)
		if i == 0 {
			tr.Disk = tr.Mem
		}
	}
	check(a.WriteTrailer(&tr))
	s, err := index.FormatSection(t.Context(), parts["isect"], index.SectionConfig{Name: "isect"})
	check(err)
	_, err = index.Format("main", []*index.Section{s}, []index.Arena{{Name: "arena0", Size: a.Size()}})
	check(err)
	check(bloom.Format(t.Context(), parts["bloom"], bloom.FormatConfig{Hashes: 7}))
	return conf, "2aae6c35c94fcfb415dbe95f408b9ce91ee846ed                1048576   0    11   1\n"
}

// execute runs checkindex and compares its status and what it says.
func execute(t *testing.T, status int, stdout, stderr string, args ...string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := newCommand().Execute(t.Context(), args, nil, &out, &errs); got != status {
		t.Errorf("%v: status %d, want %d", args, got, status)
	}
	if out.String() != stdout {
		t.Errorf("%v: stdout %q, want %q", args, out.String(), stdout)
	}
	if !strings.Contains(errs.String(), stderr) {
		t.Errorf("%v: stderr %q, want %q", args, errs.String(), stderr)
	}
}

func TestCheckindex(t *testing.T) {
	conf, entry := newStore(t)
	isect := filepath.Join(filepath.Dir(conf), "isect")
	// Bucket 69 of 415.
	missing := "# diff actual correct\n" + isect + " block 0x14c000\n> " + entry
	for range 2 {
		execute(t, 1, missing, "checkindex: checking 2 entries\n"+
			"checkindex: 1 entries not indexed yet\n"+
			"checkindex: 0 spurious entries, 1 missing\n"+
			"bloom filter: 1 scores missing\n"+
			"venti/checkindex: errors found\n", conf, "tmp")
	}
	execute(t, 0, missing, "checkindex: fixed\n", "--fix", "-B", "1k", conf)
	good := "checkindex: checking 2 entries\ncheckindex: 1 entries not indexed yet\nbloom filter: correct\ncheckindex: index is correct\n"
	execute(t, 0, "", good, "-Z", conf, "tmp")

	// An entry that is wrong.
	change(t, conf, func(list []index.Entry) { list[0].Addr++ })
	execute(t, 1, "# diff actual correct\n"+isect+" block 0x14c000\n< "+strings.Replace(entry, "1048576", "1048577", 1)+"> "+entry,
		"checkindex: 1 spurious entries, 1 missing\nbloom filter: correct\nventi/checkindex: errors found\n", conf)
	execute(t, 1, "", "in use by another program", locked(t, isect, conf)...)
	execute(t, 2, "", "usage: venti/checkindex [-f] [-B memory] config [tmp]\n")
	execute(t, 2, "", `bad memory size "much"`, "-B", "much", conf)
	execute(t, 1, "", "no such file", conf+".none")
}

// locked has a partition locked until the test ends.
func locked(t *testing.T, part string, args ...string) []string {
	t.Helper()
	p, err := disk.Open(part, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return args
}

// change has f change the entries that ought to be in the index, and puts
// them there.
func change(t *testing.T, conf string, f func([]index.Entry)) {
	t.Helper()
	c, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	p, err := index.OpenParts(c, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ix, err := index.Open(c.Index, p.Sections, index.MapArenas(p.Arenas))
	if err != nil {
		t.Fatal(err)
	}
	var list []index.Entry
	for e, err := range ix.ArenaSource(p.Arenas)(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	f(list)
	list = slices.Clone(list[:1])
	if _, err := ix.Update(t.Context(), list); err != nil {
		t.Fatal(err)
	}
}
