package arena_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"strata/venti"
	"strata/venti/internal/arena"
)

func TestCheckOfWhatIsWhole(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(t *testing.T) *built
		note string
	}{
		{"empty", func(t *testing.T) *built { return build(t, 5, 0, 0) }, ""},
		{"open", func(t *testing.T) *built { return build(t, 5, 60, 30) }, ""},
		{"version 4", func(t *testing.T) *built { return build(t, 4, 60, 60) }, ""},
		{"sealed", func(t *testing.T) *built { b := build(t, 5, 60, 60); b.seal(t); return b }, ""},
		{"sealed, without its seal", func(t *testing.T) *built {
			b := build(t, 5, 60, 60)
			b.tr.Mem.Sealed, b.tr.Disk.Sealed = true, true
			b.writeTrailer(t)
			return b
		}, "t0: sealed, and without its seal; a server computes it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := tc.make(t)
			before := bytes.Clone(b.file.b)
			for _, o := range []arena.CheckOptions{{}, {Data: true}, {Repair: true}, {Data: true, Repair: true}} {
				lines, faults := b.check(t, o)
				if got := strings.Join(lines, "\n"); faults != 0 || (got != "" && got != tc.note) {
					t.Errorf("%+v: %d faults:\n%s\nwant no fault but %q", o, faults, got, tc.note)
				}
			}
			if !bytes.Equal(b.file.b, before) {
				t.Error("checks changed the arena")
			}
		})
	}
}

// TestCheck damages an arena of 60 clumps, some of them compressed, and
// checks it, repairs it, and checks it again.
func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name   string
		sealed bool
		damage func(t *testing.T, b *built)
		finds  []string // what the lines of the first check have in them
		lost   []int    // clumps that are not to be had any more
		left   []string // what the lines of a check after the repair have
	}{
		{
			name:   "data",
			damage: func(t *testing.T, b *built) { b.flip(8, 60, 1) },
			finds:  []string{"t0: clump=8 at "},
			lost:   []int{8},
			left:   []string{"t0: clump=8 at 2106: lost, and marked so"},
		}, {
			name:   "data of many",
			damage: func(t *testing.T, b *built) { b.flip(7, 38, 1); b.flip(8, 38, 1); b.flip(20, 38, 1); b.flip(59, 38, 1) },
			finds:  []string{"clump=7 at", "clump=8 at", "clump=20 at", "clump=59 at"},
			lost:   []int{7, 8, 20, 59},
			left:   []string{"lost, and marked so", "lost, and marked so", "lost, and marked so", "lost, and marked so"},
		}, {
			name:   "data, sealed",
			sealed: true,
			damage: func(t *testing.T, b *built) { b.flip(8, 60, 1) },
			finds:  []string{"clump=8 at", "mismatch checksum"},
			lost:   []int{8},
			left:   []string{"clump=8 at", "mismatch checksum"},
		}, {
			name:   "magic",
			damage: func(t *testing.T, b *built) { b.flip(8, 0, 4) },
			finds:  []string{"clump=8 at 2106 failed to read correctly: header is damaged"},
		}, {
			name:   "type in the header",
			damage: func(t *testing.T, b *built) { b.flip(8, 4, 1) },
			finds:  []string{"clump=8 at 2106 failed to read correctly: header is damaged"},
		}, {
			name:   "size in the header",
			damage: func(t *testing.T, b *built) { b.flip(8, 5, 2) },
			finds:  []string{"header is damaged"},
		}, {
			name:   "score in the header",
			damage: func(t *testing.T, b *built) { b.flip(8, 20, 1) },
			finds:  []string{"header is damaged"},
		}, {
			name:   "encoding",
			damage: func(t *testing.T, b *built) { b.flip(8, 29, 1); b.flip(9, 29, 1) },
			finds:  []string{"clump=8 at 2106 failed to read correctly: header is damaged", "clump=9 at"},
		}, {
			name:   "header, sealed",
			sealed: true,
			damage: func(t *testing.T, b *built) { b.flip(8, 0, 30) },
			finds:  []string{"header is damaged", "mismatch checksum"},
		}, {
			name:   "header with its time, sealed",
			sealed: true,
			damage: func(t *testing.T, b *built) { b.flip(8, 0, 38) },
			finds:  []string{"header is damaged", "mismatch checksum"},
			left:   []string{"mismatch checksum"},
		}, {
			name:   "directory entry",
			damage: func(t *testing.T, b *built) { b.flipDir(8, 0, 25) },
			finds:  []string{"clump=8 at 2106 failed to read correctly: directory has"},
		}, {
			name:   "directory block, sealed",
			sealed: true,
			damage: func(t *testing.T, b *built) { b.flipDir(20, 0, 500) },
			finds:  append(slices.Repeat([]string{"directory has"}, 20), "mismatch checksum"),
		}, {
			name:   "directory entry and data",
			damage: func(t *testing.T, b *built) { b.flipDir(8, 0, 25); b.flip(8, 50, 1) },
			finds:  []string{"clump=8 at 2106 failed to read correctly: "},
			lost:   []int{8},
			left:   []string{"marked so"},
		}, {
			name:   "directory entry and header",
			damage: func(t *testing.T, b *built) { b.flipDir(8, 0, 25); b.flip(8, 0, 38) },
			finds:  []string{"clump=8 at 2106 failed to read correctly: ", "t0: trailer has 60 clumps"},
			lost:   []int{8},
			left:   []string{"marked so"},
		}, {
			name: "three clumps and their entries",
			damage: func(t *testing.T, b *built) {
				b.flipDir(8, 0, 75)
				b.flip(8, 0, int(b.at[11].Off-b.at[8].Off))
			},
			finds: []string{"clump=8 at 2106 failed to read correctly: all up to clump 11"},
			lost:  []int{8, 9, 10},
			left:  []string{"clump=8 at 2106 failed to read correctly: all up to clump 11"},
		}, {
			name:   "arena header",
			damage: func(t *testing.T, b *built) { b.file.b[b.Start+2] ^= 1 },
			finds:  []string{"t0: arena t0: arena header has magic d15c4fad"},
		}, {
			name:   "arena header, sealed",
			sealed: true,
			damage: func(t *testing.T, b *built) { b.file.b[b.Start+80] ^= 1 },
			finds:  []string{"t0: arena t0: header", "mismatch checksum"},
		}, {
			name: "trailer's sums",
			damage: func(t *testing.T, b *built) {
				tr := b.tr
				tr.Mem.UncSize += 5
				tr.Mem.CClumps--
				b.tr, tr = tr, b.tr
				b.writeTrailer(t)
				b.tr = tr
			},
			finds: []string{"t0: trailer has 60 clumps"},
		}, {
			name: "indexed sums",
			damage: func(t *testing.T, b *built) {
				tr := b.tr
				b.tr.Disk.Used++
				b.writeTrailer(t)
				b.tr = tr
			},
			finds: []string{"t0: trailer has 60 clumps"},
		}, {
			name:   "cut short and sealed, as by plan9port's repair",
			sealed: true,
			damage: func(t *testing.T, b *built) {
				tr := b.tr
				b.cut(t, 8)
				b.tr.Disk = b.tr.Mem
				b.writeTrailer(t)
				b.tr = tr
			},
			finds: []string{"52 clumps, 26 compressed", "mismatch checksum"},
		}, {
			name: "trailer behind the log",
			damage: func(t *testing.T, b *built) {
				tr := b.tr
				b.cut(t, 50)
				b.writeTrailer(t)
				b.tr = tr
			},
			finds: []string{"t0: 10 clumps, 5 compressed, 22875 bytes in 12448 are not in the trailer; a server counts them when it starts"},
		}, {
			name: "a clump half written",
			damage: func(t *testing.T, b *built) {
				clump := bytes.Clone(b.file.b[b.Base()+b.at[7].Off:][:100])
				if err := b.WriteLog(clump, b.tr.Mem.Used); err != nil {
					t.Fatal(err)
				}
			},
			finds: []string{"not written whole; a server writes over it"},
			left:  []string{"not written whole; a server writes over it"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := build(t, 5, 60, 30)
			if tc.sealed {
				b.seal(t)
			}
			tc.damage(t, b)
			before := bytes.Clone(b.file.b)
			lines, _ := b.check(t, arena.CheckOptions{Data: true})
			expect(t, "check", lines, tc.finds)
			if !bytes.Equal(b.file.b, before) {
				t.Error("a check without repair changed the arena")
			}
			b.check(t, arena.CheckOptions{Data: true, Repair: true})
			b.verify(t, tc.lost...)
			lines, _ = b.check(t, arena.CheckOptions{Data: true})
			expect(t, "check after the repair", lines, tc.left)
			if tc.left == nil {
				tr, err := b.ReadTrailer()
				b.tr.Disk, tr.Disk = arena.Stats{}, arena.Stats{}
				if err != nil || tr != b.tr {
					t.Errorf("trailer is %+v, %v, want %+v", tr, err, b.tr)
				}
			}
		})
	}
}

// cut makes the trailer in memory count only n clumps.
func (b *built) cut(t *testing.T, n int) {
	t.Helper()
	infos := make([]arena.ClumpInfo, n)
	if err := b.ReadInfos(infos, 0); err != nil {
		t.Fatal(err)
	}
	sealed := b.tr.Mem.Sealed
	b.tr.Mem = arena.Stats{Sealed: sealed}
	for i := range infos {
		b.tr.Mem.Add(&infos[i])
	}
}

// expect checks that each line has the words wanted of it.
func expect(t *testing.T, what string, lines, want []string) {
	t.Helper()
	ok := len(lines) == len(want)
	for i := 0; ok && i < len(lines); i++ {
		ok = strings.Contains(lines[i], want[i])
	}
	if !ok {
		t.Errorf("%s finds:\n\t%s\nwant:\n\t%s", what, strings.Join(lines, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// TestCheckWithoutData compares the directory with the trailer only.
func TestCheckWithoutData(t *testing.T) {
	b := build(t, 5, 60, 30)
	b.flip(8, 60, 1)
	lines, _ := b.check(t, arena.CheckOptions{})
	expect(t, "check", lines, nil)
	b.flipDir(8, 1, 1)
	before := bytes.Clone(b.file.b)
	lines, _ = b.check(t, arena.CheckOptions{Repair: true})
	expect(t, "check", lines, []string{"directory adds up to"})
	if !bytes.Equal(b.file.b, before) {
		t.Error("a check that cannot tell what is right changed the arena")
	}
}

// TestGoldenCheck checks what plan9port wrote, and brings back what its
// repair of one bad byte throws away.
func TestGoldenCheck(t *testing.T) {
	for _, set := range goldenSets {
		want := golden(t, set.name+"/arenas.gz")
		p, f := openPartition(t, bytes.Clone(want))
		for i := range p.Arenas {
			a, _ := openArena(t, p, i)
			b := built{Arena: a, file: f}
			if lines, faults := b.check(t, arena.CheckOptions{Data: true, Repair: true}); faults > 0 || len(lines) > 0 {
				t.Errorf("%s: %s", set.name, strings.Join(lines, "\n"))
			}
		}
		if !bytes.Equal(f.b, want) {
			t.Errorf("%s: checks changed the partition", set.name)
		}
	}
	want := golden(t, "v5/arenas.gz")
	p, f := openPartition(t, bytes.Clone(want))
	a, tr := openArena(t, p, 0)
	cut := tr
	cut.Mem = arena.Stats{Clumps: 8, CClumps: 6, Used: 5717, UncSize: 21638, Sealed: true}
	cut.Disk = cut.Mem
	if err := a.WriteTrailer(&cut); err != nil {
		t.Fatal(err)
	}
	b := built{Arena: a, file: f}
	if _, faults := b.check(t, arena.CheckOptions{Data: true, Repair: true}); faults == 0 {
		t.Error("no fault found in a cut arena")
	}
	if !bytes.Equal(f.b, want) {
		t.Error("the repair did not bring back all bytes")
	}
	// With the bad byte too, nothing is lost but the one clump.
	if err := a.WriteTrailer(&tr); err != nil {
		t.Fatal(err)
	}
	f.b[a.Base()+5717+60] ^= 1
	lines, _ := b.check(t, arena.CheckOptions{Data: true, Repair: true})
	expect(t, "check", lines, []string{"g1arena0: clump=8 at 5717 failed to read correctly: ", "g1arena0: mismatch checksum"})
	f.b[a.Base()+5717+60] ^= 1
	if !bytes.Equal(f.b, want) {
		t.Error("the repair of a sealed arena changed it")
	}
}

// FuzzCheck overwrites parts of an arena, repairs it, and checks that every
// clump that was whole still is, and that a second repair finds nothing more
// to mend.
func FuzzCheck(f *testing.F) {
	const clumps = 12
	b := build(f, 5, clumps, 5)
	clean := bytes.Clone(b.file.b[b.Start:b.Stop])
	f.Add(uint32(600), []byte{0, 0, 0, 0}, uint32(3000), []byte("x"), false, uint8(12))
	f.Add(uint32(b.Stop-b.Start-1024), []byte("directory"), uint32(1000), []byte{}, true, uint8(12))
	f.Add(uint32(b.Stop-b.Start-512+72), []byte{0, 0, 0, 9, 0, 0, 0, 4}, uint32(1000), []byte{1}, true, uint8(3))
	f.Add(uint32(512+b.at[3].Off), []byte{0xc0, 0xff, 0xee, 1, 255}, uint32(b.Stop-b.Start-1024+75), []byte{9, 9, 9}, false, uint8(12))
	f.Fuzz(func(t *testing.T, off1 uint32, patch1 []byte, off2 uint32, patch2 []byte, sealed bool, counted uint8) {
		copy(b.file.b[b.Start:], clean)
		whole := b.tr
		defer func() { b.tr = whole }()
		b.cutTo(t, int(counted)%(clumps+1))
		if sealed {
			b.seal(t)
		} else {
			b.writeTrailer(t)
		}
		region := b.file.b[b.Start:b.Stop]
		copy(region[off1%uint32(len(region)):], patch1)
		copy(region[off2%uint32(len(region)):], patch2)
		buf := make([]byte, venti.MaxBlockSize)
		readable := func(i int) bool {
			h, data, err := b.ReadClump(b.at[i].Off, nil)
			if err == nil {
				_, err = h.Decode(buf, data)
			}
			return err == nil
		}
		var were [clumps]bool
		for i := range were {
			were[i] = readable(i)
		}
		if _, err := b.ReadTrailer(); err != nil {
			return // nothing to go by
		}
		run := func() (mended []string) {
			err := b.Check(t.Context(), arena.CheckOptions{Data: true, Repair: true}, func(f *arena.Finding) {
				if line := f.String(); f.Repaired {
					mended = append(mended, line)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			return mended
		}
		run()
		for i, was := range were {
			if was && !readable(i) {
				t.Errorf("clump %d was whole before the repair", i)
			}
		}
		if more := run(); more != nil {
			t.Errorf("a second repair mends more: %s", strings.Join(more, "\n"))
		}
	})
}

// cutTo makes the trailer in memory count n clumps in the log, and no more
// in the index.
func (b *built) cutTo(t *testing.T, n int) {
	t.Helper()
	infos := make([]arena.ClumpInfo, n)
	if err := b.ReadInfos(infos, 0); err != nil {
		t.Fatal(err)
	}
	disk := b.tr.Disk
	b.tr.Mem = arena.Stats{}
	for i := range infos {
		b.tr.Mem.Add(&infos[i])
	}
	if disk.Clumps > b.tr.Mem.Clumps {
		b.tr.Disk = b.tr.Mem
	}
}
