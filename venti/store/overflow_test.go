package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/internal/arena"
	"strata/venti/internal/config"
	"strata/venti/internal/index"
)

// TestOverflowConf has the configuration name an overflow for an index that is
// much too small, loses it, and has it built again.
func TestOverflowConf(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	create := func(name string, size int64) *disk.Partition {
		t.Helper()
		if err := disk.Create(path(name), size); err != nil {
			t.Fatal(err)
		}
		f, err := disk.Open(path(name), disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	arenas, isect := create("arenas", 8<<20), create("isect", 800<<10)
	p, err := arena.Format(ctx, arenas, arena.FormatConfig{Name: "arena", ArenaSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	sec, err := index.FormatSection(ctx, isect, index.SectionConfig{Name: "isect", BlockSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := index.Format("main", []*index.Section{sec}, indexArenas(p)); err != nil {
		t.Fatal(err)
	}
	arenas.Close()
	isect.Close()
	text := fmt.Sprintf("index main\narenas %s\nisect %s\noverflow %s\n", path("arenas"), path("isect"), path("overflow"))
	conf := path("venti.conf")
	if err := os.WriteFile(conf, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	open := func(readOnly bool) *Store {
		t.Helper()
		s, err := OpenConf(ctx, conf, Config{LumpMem: 1 << 20, IndexMem: 1 << 20, ReadOnly: readOnly, Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	mustClose(t, open(true)) // there is no overflow yet
	list := blocks(1, 3000, 500)
	s := open(false)
	for _, b := range list {
		mustWrite(t, s, venti.DataType, b)
	}
	mustClose(t, s)
	inPart := func(f func(ix *index.Index, p *index.Parts)) {
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
		f(ix, p)
	}
	sound := func() {
		t.Helper()
		inPart(func(ix *index.Index, p *index.Parts) {
			if err := ix.OpenOverflow(p.Overflow); err != nil {
				t.Fatal(err)
			}
			r, err := ix.Check(ctx, index.CheckConfig{Source: ix.ArenaSource(p.Arenas), Count: 3000})
			if want := (index.CheckResult{Entries: 3000}); err != nil || r != want {
				t.Errorf("check: %+v, %v", r, err)
			}
		})
		for _, readOnly := range []bool{true, false} {
			s := open(readOnly)
			for _, b := range list {
				wantBlock(t, s, venti.DataType, b)
			}
			if st := s.Stats(); st.StuckEntries+st.DirtyEntries != 0 {
				t.Errorf("after a clean stop: %+v", st)
			}
			mustClose(t, s)
		}
	}
	sound()
	if err := os.Remove(path("overflow")); err != nil {
		t.Fatal(err)
	}
	inPart(func(ix *index.Index, p *index.Parts) {
		if err := ix.MakeOverflow(p.Overflow); err != nil {
			t.Fatal(err)
		}
		if _, left, err := ix.Build(ctx, index.BuildConfig{Source: ix.ArenaSource(p.Arenas)}); err != nil || len(left) > 0 {
			t.Fatalf("build: %v, %d entries left", err, len(left))
		}
	})
	sound()
}
