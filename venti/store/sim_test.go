package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"strata/internal/disk"
	"strata/venti/internal/arena"
	"strata/venti/internal/bloom"
	"strata/venti/internal/index"
)

// A furtherFile is a file that a store may have besides arenas, sections and
// a Bloom filter. A row in furtherFiles puts it into every store of a shape
// that says so, and so under all power cuts and faults.
type furtherFile struct {
	name   string // of the simulated disk
	size   int64
	format func(m *disk.Machine, f disk.File) error // the other disks are formatted
	config func(cfg *Config, f disk.File)           // makes it part of a store
	check  func(t testing.TB, m *disk.Machine)      // reports what must never be
	synced bool                                     // Sync fails once a write or sync of it has
}

var furtherFiles = []furtherFile{{
	name: "overflow", size: 8 << 20,
	format: func(*disk.Machine, disk.File) error { return nil },
	config: func(cfg *Config, f disk.File) { cfg.Overflow = f },
	check:  func(testing.TB, *disk.Machine) {}, // checkStore has looked at it
}}

// A shape says what simulated disks a test's store has.
type shape struct {
	parts     int   // arena partitions
	partSize  int64 // bytes of arenas in each
	arenaSize int64
	sections  int
	secSize   int64 // bytes of buckets in each
	bucket    int   // bytes in a bucket, 0 for the default
	noBloom   bool
	further   bool // with every one of furtherFiles
	crowded   bool // the workload has more entries than its buckets
}

var small = shape{parts: 1, partSize: 4 << 20, arenaSize: 1 << 20, sections: 2, secSize: 512 << 10}

// format makes an empty store on a new machine.
func (sh shape) format(t testing.TB) *disk.Machine {
	t.Helper()
	m := disk.NewMachine()
	ctx := context.Background()
	var arenas []index.Arena
	for i := range sh.parts {
		f := m.NewDisk(fmt.Sprintf("arenas%d", i), sh.partSize+1<<20)
		p, err := arena.Format(ctx, f, arena.FormatConfig{
			Name: fmt.Sprintf("p%da", i), ArenaSize: sh.arenaSize, Rand: rand.NewChaCha8([32]byte{byte(i)}),
		})
		if err != nil {
			t.Fatal(err)
		}
		arenas = append(arenas, indexArenas(p)...)
	}
	var sections []*index.Section
	for i := range sh.sections {
		s, err := index.FormatSection(ctx, m.NewDisk(fmt.Sprintf("isect%d", i), sh.secSize+(256+8+512)<<10),
			index.SectionConfig{Name: fmt.Sprintf("isect%d", i), Magic: 7, BlockSize: sh.bucket})
		if err != nil {
			t.Fatal(err)
		}
		sections = append(sections, s)
	}
	if _, err := index.Format("test", sections, arenas); err != nil {
		t.Fatal(err)
	}
	if !sh.noBloom {
		if err := bloom.Format(ctx, m.NewDisk("bloom", 1<<20), bloom.FormatConfig{Hashes: 8}); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range furtherFiles {
		if !sh.further {
			break
		}
		if err := f.format(m, m.NewDisk(f.name, f.size)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// configOf returns the configuration of the store that is on a machine.
func configOf(m *disk.Machine) Config {
	cfg := Config{LumpMem: 1 << 19, IndexMem: 1 << 16, Interval: -1}
	for i := 0; m.Disk(fmt.Sprintf("arenas%d", i)) != nil; i++ {
		cfg.Arenas = append(cfg.Arenas, m.Disk(fmt.Sprintf("arenas%d", i)))
	}
	for i := 0; m.Disk(fmt.Sprintf("isect%d", i)) != nil; i++ {
		cfg.Sections = append(cfg.Sections, m.Disk(fmt.Sprintf("isect%d", i)))
	}
	if d := m.Disk("bloom"); d != nil {
		cfg.Bloom = d
	}
	for _, f := range furtherFiles {
		if d := m.Disk(f.name); d != nil {
			f.config(&cfg, d)
		}
	}
	return cfg
}

// checkStore checks arenas, index and filter with the library functions of
// checkarenas and checkindex. It allows what is yet to be indexed.
func checkStore(t testing.TB, m *disk.Machine) {
	t.Helper()
	ctx := context.Background()
	cfg := configOf(m)
	var arenas []*arena.Arena
	for _, f := range cfg.Arenas {
		p, err := arena.OpenPartition(f)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.Arenas {
			a, err := p.OpenArena(i)
			if err != nil {
				t.Fatal(err)
			}
			arenas = append(arenas, a)
			err = a.Check(ctx, arena.CheckOptions{Data: true}, func(f *arena.Finding) {
				if f.Fault {
					t.Errorf("checkarenas: %v", f)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	var sections []*index.Section
	for _, f := range cfg.Sections {
		s, err := index.OpenSection(f)
		if err != nil {
			t.Fatal(err)
		}
		sections = append(sections, s)
	}
	ix, err := index.Open("test", sections, index.MapArenas(arenas))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Overflow != nil {
		if err := ix.OpenOverflow(cfg.Overflow); err != nil {
			t.Fatal(err)
		}
	}
	pending, count, err := ix.Pending(arenas)
	if err != nil {
		t.Fatal(err)
	}
	check := index.CheckConfig{
		Source: ix.ArenaSource(arenas), Count: count, Pending: pending,
		Report: func(d index.Difference) { t.Errorf("checkindex: %+v", d) },
	}
	if cfg.Bloom != nil {
		f, err := bloom.Open(cfg.Bloom)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		check.Bloom = f
	}
	if _, err := ix.Check(ctx, check); err != nil {
		t.Fatal(err)
	}
	for _, f := range furtherFiles {
		if m.Disk(f.name) != nil {
			f.check(t, m)
		}
	}
}
