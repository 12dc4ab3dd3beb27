package vdisk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"strata/vdisk/fsys"
	"strata/venti"
	"strata/venti/ventitest"
)

const mib = 1 << 20

// gptDisk makes a disk as an installer does: EFI system partition, ext4,
// swap.
func gptDisk(t testing.TB, ext string) string {
	t.Helper()
	esp := sparse(t, 8*mib)
	run(t, "", "mkfs.vfat", "-i", "12345678", "-n", "EFI", esp)
	hello := extract(t, esp, 0, 4096)
	run(t, "", "mcopy", "-i", esp, hello, "::HELLO.TXT")
	swap := sparse(t, 8*mib)
	run(t, "", "mkswap", "-q", "-U", "6c9d8a3e-55f5-4c3e-8d5c-0d6f2f0b6a13", "-L", "swap", swap)
	f, err := os.OpenFile(swap, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("what was swapped out is nobody's business"), 4*mib); err != nil {
		t.Fatal(err)
	}
	return partitioned(t, "gpt", 42*mib,
		place{esp, 2048, "uefi"}, place{ext, 2048 + 8*2048, "linux"}, place{swap, 2048 + 32*2048, "swap"})
}

func TestImportGPT(t *testing.T) {
	tr := tree(t, 1, 3*mib)
	disk := gptDisk(t, extImage(t, 24*mib, tr, "-t", "ext4", "-b", "4096"))
	st := ventitest.NewMemory()
	res := importFile(t, st, disk, ImportOptions{})

	if got, want := len(res.Regions), 7; got != want {
		t.Fatalf("got %d regions, want %d: %+v", got, want, res.Layout)
	}
	root, l := res.region(t, "p2.ext4")
	if !l.FreeOmitted || l.Encoder != "ext4" || l.FileSystem.Label != "root" || l.Partition.Number != 2 {
		t.Errorf("layout of root: %+v", l)
	}
	if root.Free < mib { // what was deleted
		t.Errorf("only %d bytes of root are free", root.Free)
	}
	swap, l := res.region(t, "p3.swap")
	if !l.FreeOmitted || swap.New > 4096 || swap.Free < 4096 {
		t.Errorf("swap: %+v", swap)
	}
	if esp, l := res.region(t, "p1.vfat"); !l.FreeOmitted || l.FileSystem.Label != "EFI" {
		t.Errorf("EFI system partition: %+v %+v", esp, l)
	}

	out := exportFile(t, st, res.Score)
	_, l = res.region(t, "p2.ext4")
	sameFiles(t, extFiles(t, extract(t, out, l.Start, l.Length)), treeFiles(t, tr))
	_, l = res.region(t, "p1.vfat")
	sameBytes(t, "EFI system partition", extract(t, out, l.Start, l.Length), extract(t, disk, l.Start, l.Length))
	_, l = res.region(t, "p3.swap")
	sameBytes(t, "swap header", extract(t, out, l.Start, 4096), extract(t, disk, l.Start, 4096))
	sameBytes(t, "swap body", extract(t, out, l.Start+4096, l.Length-4096), sparse(t, l.Length-4096))
	if got, want := run(t, "", "sfdisk", "-d", out), run(t, "", "sfdisk", "-d", disk); strings.ReplaceAll(got, out, disk) != want {
		t.Errorf("partition table: got %s, want %s", got, want)
	}
	var in, ex syscall.Stat_t
	if err := syscall.Stat(disk, &in); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Stat(out, &ex); err != nil {
		t.Fatal(err)
	}
	if ex.Blocks > in.Blocks {
		t.Errorf("export takes %d blocks, the disk %d", ex.Blocks, in.Blocks)
	}

	// What was left out stays out: the export is the same image.
	if again := importFile(t, st, out, ImportOptions{}); again.Score != res.Score || again.Total.New != 0 {
		t.Errorf("the export is %v, want %v; %d bytes new", again.Score, res.Score, again.Total.New)
	}
	exact := importFile(t, st, disk, ImportOptions{Exact: true})
	sameBytes(t, "exact", exportFile(t, st, exact.Score), disk)
	if _, l := exact.region(t, "p2.ext4"); l.FreeOmitted || l.Whole != exactReason {
		t.Errorf("exact layout: %+v", l)
	}
}

// TestSector63 puts one file system at sector 2048 of one disk and at sector
// 63 of another: all blocks are shared.
func TestSector63(t *testing.T) {
	ext := extImage(t, 24*mib, tree(t, 2, 3*mib), "-t", "ext4", "-b", "4096")
	st := ventitest.NewMemory()
	a := importFile(t, st, partitioned(t, "dos", 32*mib, place{ext, 2048, "83"}), ImportOptions{})
	b := importFile(t, st, partitioned(t, "dos", 30*mib, place{ext, 63, "83"}), ImportOptions{})
	rb, lb := b.region(t, "p1.ext4")
	if _, la := a.region(t, "p1.ext4"); la.Start != 2048*512 || lb.Start != 63*512 {
		t.Fatalf("starts at %d and %d", la.Start, lb.Start)
	}
	if rb.NewBlocks != 0 || rb.SharedBlocks == 0 {
		t.Errorf("at sector 63: got %+v, want nothing new", rb)
	}
	ea, eb := entryOf(t, st, a, "p1.ext4"), entryOf(t, st, b, "p1.ext4")
	if ea != eb {
		t.Errorf("entries: got %+v and %+v", ea, eb)
	}
}

func entryOf(t *testing.T, st venti.Store, res *Result, name string) venti.Entry {
	t.Helper()
	im, err := Open(t.Context(), st, res.Score)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range im.Layout().Regions {
		if r.Name == name {
			return im.entries[i]
		}
	}
	t.Fatalf("no region %s", name)
	return venti.Entry{}
}

// TestIncremental changes a disk and imports it again: with and without a
// base, into the same store and into an empty one, the score is the same.
func TestIncremental(t *testing.T) {
	tr := tree(t, 3, 3*mib)
	ext := extImage(t, 24*mib, tr, "-t", "ext4", "-b", "4096")
	disk := gptDisk(t, ext)
	st := ventitest.NewMemory()
	day1 := importFile(t, st, disk, ImportOptions{})
	blocks := st.Len()
	for _, opt := range []ImportOptions{{}, {Base: day1.Score}, {Parallel: 1}} {
		again := importFile(t, st, disk, opt)
		if again.Score != day1.Score || again.Total.NewBlocks != 0 {
			t.Errorf("again with %+v: got %v, want %v; %d new blocks", opt, again.Score, day1.Score, again.Total.NewBlocks)
		}
		if st.Len() != blocks {
			t.Errorf("again with %+v: the store has %d blocks, want %d", opt, st.Len(), blocks)
		}
	}

	note := filepath.Join(t.TempDir(), "note")
	if err := os.WriteFile(note, []byte(strings.Repeat("the second day\n", 5000)), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "rm f000\nwrite "+note+" note\n", "debugfs", "-w", ext)
	disk = gptDisk(t, ext)
	full := importFile(t, ventitest.NewMemory(), disk, ImportOptions{})
	inc := importFile(t, st, disk, ImportOptions{Base: day1.Score})
	if inc.Score != full.Score {
		t.Errorf("incremental: got %v, want %v", inc.Score, full.Score)
	}
	if inc.Total.New == 0 || inc.Total.New > mib || full.Total.New < 2*mib {
		t.Errorf("incremental sent %d bytes, full %d", inc.Total.New, full.Total.New)
	}
	if full.Score == day1.Score {
		t.Error("the disk has not changed")
	}

	next := importFile(t, st, disk, ImportOptions{Base: day1.Score, Prev: day1.Score, Name: "web/01"})
	im, err := Open(t.Context(), st, next.Score)
	if err != nil {
		t.Fatal(err)
	}
	if r := im.Root(); r.Prev != day1.Score || r.Name != "web/01" || r.Type != RootType || r.BlockSize != 4096 {
		t.Errorf("root: got %+v", r)
	}
}

func TestImportRefuses(t *testing.T) {
	st := ventitest.NewMemory()
	src := &memSource{data: make([]byte, 10000)}
	for _, c := range []struct {
		name string
		opt  ImportOptions
		want string
	}{
		{"no base", ImportOptions{Base: venti.Score{1}}, "base"},
		{"no prev", ImportOptions{Prev: venti.Score{1}}, "previous image"},
		{"name", ImportOptions{Name: strings.Repeat("n", 128)}, "bad string"},
	} {
		if _, err := Import(t.Context(), st, src, c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Import(ctx, st, src, ImportOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it cancelled", err)
	}
}

// TestFileSystems imports bare file systems of every kind that mke2fs makes.
func TestFileSystems(t *testing.T) {
	tr := tree(t, 4, 3*mib)
	want := treeFiles(t, tr)
	for _, c := range []struct {
		name  string
		args  []string
		dsize int
	}{
		{"ext4 4K", []string{"-t", "ext4", "-b", "4096"}, 4096},
		{"ext4 1K", []string{"-t", "ext4", "-b", "1024"}, 1024},
		{"ext4 2K without 64bit", []string{"-t", "ext4", "-b", "2048", "-O", "^64bit"}, 2048},
		{"ext3", []string{"-t", "ext3", "-b", "4096"}, 4096},
		{"ext2 1K", []string{"-t", "ext2", "-b", "1024"}, 1024},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := extImage(t, 24*mib, tr, c.args...)
			st := ventitest.NewMemory()
			res := importFile(t, st, img, ImportOptions{})
			name := "disk." + strings.Fields(c.name)[0]
			counts, l := res.region(t, name)
			if !l.FreeOmitted || l.DSize != c.dsize || l.PSize != 4080 || counts.Free < mib {
				t.Errorf("got %+v %+v", l, counts)
			}
			out := exportFile(t, st, res.Score)
			sameFiles(t, extFiles(t, out), want)
			exact := importFile(t, st, img, ImportOptions{Exact: true})
			sameBytes(t, "exact", exportFile(t, st, exact.Score), img)
			if exact.Score == res.Score {
				t.Error("exact has the same score")
			}
		})
	}
}

// TestUnknownFeature sets an incompatible feature that nobody knows.
func TestUnknownFeature(t *testing.T) {
	img := extImage(t, 24*mib, tree(t, 5, 3*mib), "-t", "ext4", "-b", "4096", "-O", "^metadata_csum")
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [4]byte
	const incompat = 1024 + 0x60
	if _, err := f.ReadAt(b[:], incompat); err != nil {
		t.Fatal(err)
	}
	b[3] |= 0x40
	if _, err := f.WriteAt(b[:], incompat); err != nil {
		t.Fatal(err)
	}
	st := ventitest.NewMemory()
	res := importFile(t, st, img, ImportOptions{})
	counts, l := res.region(t, "disk.ext4")
	if l.FreeOmitted || !strings.Contains(l.Whole, "unknown incompatible features") || counts.Free != 0 {
		t.Errorf("got %+v", l)
	}
	sameBytes(t, "stored whole", exportFile(t, st, res.Score), img)
}

// TestRecovery imports a file system whose journal has to be replayed.
func TestRecovery(t *testing.T) {
	img := extImage(t, 24*mib, tree(t, 6, 3*mib), "-t", "ext4", "-b", "4096")
	block := filepath.Join(t.TempDir(), "block")
	if err := os.WriteFile(block, []byte(strings.Repeat("replayed", 512)), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "jo\njw -b 5500 "+block+"\njc\n", "debugfs", "-w", img)
	st := ventitest.NewMemory()
	res := importFile(t, st, img, ImportOptions{})
	out := exportFile(t, st, res.Score)
	for _, name := range []string{img, out} {
		if !strings.Contains(run(t, "", "dumpe2fs", "-h", name), "needs_recovery") {
			t.Fatalf("%s: no journal to replay", name)
		}
		cmd := exec.Command(need(t, "e2fsck"), "-fy", name)
		if b, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() != 1 {
			t.Fatalf("e2fsck: %v\n%s", err, b)
		}
	}
	sameFiles(t, extFiles(t, out), extFiles(t, img))
	sameBytes(t, "the block that was in the journal", extract(t, out, 5500*4096, 4096), block)
}

// TestShapes imports disks of odd sizes and contents.
func TestShapes(t *testing.T) {
	noise := make([]byte, 3*mib+777)
	rand.New(rand.NewSource(7)).Read(noise)
	for _, c := range []struct {
		name   string
		data   []byte
		holes  []fsys.Extent
		stored bool // whether anything but the layout is
	}{
		{"empty", nil, nil, false},
		{"one byte", []byte{1}, nil, true},
		{"one zero", []byte{0}, nil, false},
		{"511 bytes", noise[:511], nil, true},
		{"513 bytes", noise[:513], nil, true},
		{"4096 bytes", noise[:4096], nil, true},
		{"4097 bytes", noise[:4097], nil, true},
		{"zeros", make([]byte, 2*mib+1), nil, false},
		{"odd", noise, nil, true},
		{"holes", append(make([]byte, 2*mib), noise...), []fsys.Extent{{Off: 0, Len: 2*mib - 100}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := ventitest.NewMemory()
			res, err := Import(t.Context(), st, &memSource{data: c.data, holes: c.holes}, ImportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			checkCounts(t, res)
			if c.stored != (res.Total.NewBlocks > 0) {
				t.Errorf("%d new blocks", res.Total.NewBlocks)
			}
			want := filepath.Join(t.TempDir(), "want")
			if err := os.WriteFile(want, c.data, 0o666); err != nil {
				t.Fatal(err)
			}
			sameBytes(t, "export", exportFile(t, st, res.Score), want)
			im, err := Open(t.Context(), st, res.Score)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(io.NewSectionReader(im, 0, im.Size()))
			if err != nil || !bytes.Equal(got, c.data) {
				t.Errorf("read: %d bytes, %v", len(got), err)
			}
			var b bytes.Buffer
			if err := Stream(t.Context(), im, &b); err != nil || !bytes.Equal(b.Bytes(), c.data) {
				t.Errorf("stream: %d bytes, %v", b.Len(), err)
			}
			rep, err := Verify(t.Context(), st, res.Score, nil)
			if err != nil || rep.Failed != 0 {
				t.Errorf("verify: %+v, %v", rep, err)
			}
			src := &memSource{data: c.data, holes: c.holes}
			if rep, err := Compare(t.Context(), im, src); err != nil || rep.Failed != 0 {
				t.Errorf("compare: %+v, %v", rep, err)
			}
		})
	}
}

// TestManyRegions stores a disk whose directory does not fit 4096 bytes.
func TestManyRegions(t *testing.T) {
	one := sparse(t, 8*512)
	if err := os.WriteFile(one, bytes.Repeat([]byte("region!\n"), 512), 0o666); err != nil {
		t.Fatal(err)
	}
	var places []place
	for i := range int64(60) {
		places = append(places, place{one, 2048 * (i + 1), "linux"})
	}
	disk := partitioned(t, "gpt", 62*mib, places...)
	st := ventitest.NewMemory()
	res := importFile(t, st, disk, ImportOptions{})
	if len(res.Regions) < 120 {
		t.Fatalf("%d regions", len(res.Regions))
	}
	im, err := Open(t.Context(), st, res.Score)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := im.Root().BlockSize, 40*(len(res.Regions)+1); got != want {
		t.Errorf("block size of the root: got %d, want %d", got, want)
	}
	sameBytes(t, "export", exportFile(t, st, res.Score), disk)
}

// TestChangedUnderfoot imports disks that do not stay as they are.
func TestChangedUnderfoot(t *testing.T) {
	data := make([]byte, 4*mib)
	rand.New(rand.NewSource(8)).Read(data)
	st := ventitest.NewMemory()

	name := sparseFile(t, 0, map[int64][]byte{0: data})
	d := openDisk(t, name)
	if err := os.Truncate(name, mib); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(t.Context(), st, d, ImportOptions{}); err == nil {
		t.Error("a file that shrank was imported")
	}

	name = sparseFile(t, 0, map[int64][]byte{0: data})
	d = openDisk(t, name)
	touched := false
	_, err := Import(t.Context(), st, d, ImportOptions{Progress: func(int64) {
		if touched {
			return
		}
		touched = true
		if err := os.Chtimes(name, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Error(err)
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "written to") {
		t.Errorf("a file that was written to: got %v", err)
	}

	if _, err := Import(t.Context(), st, &badSource{memSource{data: data}, 2 * mib}, ImportOptions{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("bad sector: got %v", err)
	}
}

// badSource is a disk with a sector that cannot be read.
type badSource struct {
	memSource
	bad int64
}

func (b *badSource) ReadAt(p []byte, off int64) (int, error) {
	if off <= b.bad && b.bad < off+int64(len(p)) {
		return 0, syscall.EIO
	}
	return b.memSource.ReadAt(p, off)
}

// TestImportFaults fails every operation of the store in turn: there is an
// error and no score, and the next import is as if nothing had been.
func TestImportFaults(t *testing.T) {
	data := make([]byte, 200*1000)
	rand.New(rand.NewSource(9)).Read(data)
	copy(data[50000:150000], make([]byte, 100000))
	src := &memSource{data: data}
	st := ventitest.NewMemory()
	all := ventitest.NewFaulty(st, func(ventitest.Op) error { return nil })
	want, err := Import(t.Context(), all, src, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if all.Ops() < 10 {
		t.Fatalf("only %d operations", all.Ops())
	}
	for n := range all.Ops() {
		mem := ventitest.NewMemory()
		// How many operations there are depends a little on how they cross.
		faulty := ventitest.NewFaulty(mem, ventitest.FailNth(n))
		if res, err := Import(t.Context(), faulty, src, ImportOptions{}); err == nil && faulty.Ops() > n {
			t.Fatalf("operation %d failed and the score is %v", n, res.Score)
		}
		res, err := Import(t.Context(), mem, src, ImportOptions{})
		if err != nil || res.Score != want.Score {
			t.Fatalf("after operation %d failed: got %+v, %v", n, res, err)
		}
	}
}

// TestCanonical changes a disk at random, day after day, and imports it in
// all ways: in full into an empty store, with yesterday's image as a base,
// and with an old one. There is one score.
func TestCanonical(t *testing.T) {
	seed := rand.Int63()
	rnd := rand.New(rand.NewSource(seed))
	src := mbrDisk()
	st := ventitest.NewMemory()
	var days []venti.Score
	for day := range 12 {
		for range rnd.Intn(5) {
			off := 64*512 + rnd.Intn(len(src.data)-64*512)
			piece := src.data[off:min(off+rnd.Intn(1<<rnd.Intn(19)), len(src.data))]
			if rnd.Intn(2) == 0 {
				clear(piece)
			} else {
				rnd.Read(piece)
			}
		}
		full, err := Import(t.Context(), ventitest.NewMemory(), src, ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range min(len(days), 2) {
			opt := ImportOptions{Base: days[(len(days)-1)*(1-i)], Parallel: rnd.Intn(4)}
			inc, err := Import(t.Context(), st, src, opt)
			if err != nil || inc.Score != full.Score {
				t.Fatalf("seed %d, day %d: got %v, %v, want %v", seed, day, inc.Score, err, full.Score)
			}
		}
		if len(days) == 0 {
			if _, err := Import(t.Context(), st, src, ImportOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		days = append(days, full.Score)
		im, err := Open(t.Context(), st, full.Score)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := Stream(t.Context(), im, &b); err != nil || !bytes.Equal(b.Bytes(), src.data) {
			t.Fatalf("seed %d, day %d: the image differs from the disk: %v", seed, day, err)
		}
	}
}

// FuzzImport changes and cuts small disks and imports them: nothing that they
// claim to be may cost a byte that was asked for, or more than an error.
func FuzzImport(f *testing.F) {
	disks := [][]byte{nil, mbrDisk().data[:64<<10]}
	for _, args := range [][]string{
		{"-t", "ext2", "-b", "1024", "-N", "16"},
		{"-t", "ext4", "-b", "1024", "-N", "16", "-O", "^has_journal"},
	} {
		img := filepath.Join(f.TempDir(), "img")
		if err := os.WriteFile(img, make([]byte, 128<<10), 0o666); err != nil {
			f.Fatal(err)
		}
		run(f, "", "mke2fs", append(args, "-q", img)...)
		b, err := os.ReadFile(img)
		if err != nil {
			f.Fatal(err)
		}
		copy(b[100<<10:], "in a free block")
		disks = append(disks, b)
	}
	f.Add(uint8(0), uint32(0), uint32(0), []byte("any bytes"))
	f.Add(uint8(1), uint32(454), uint32(0), []byte{0, 0, 0, 1})
	f.Add(uint8(2), uint32(1024), uint32(0), []byte{})
	f.Add(uint8(3), uint32(1024+96), uint32(5000), []byte{0xff})
	f.Fuzz(func(t *testing.T, which uint8, off, cut uint32, patch []byte) {
		base := disks[int(which)%len(disks)]
		data := make([]byte, max(len(base), len(patch)))
		copy(data, base)
		copy(data[int(off)%(len(data)+1):], patch)
		data = data[:len(data)-int(cut)%(len(data)+1)]
		src := &memSource{data: data}
		for _, exact := range []bool{false, true} {
			st := ventitest.NewMemory()
			res, err := Import(t.Context(), st, src, ImportOptions{Exact: exact})
			if err != nil {
				t.Fatal(err)
			}
			checkCounts(t, res)
			im, err := Open(t.Context(), st, res.Score)
			if err != nil {
				t.Fatal(err)
			}
			rep, err := Compare(t.Context(), im, src)
			if err != nil || rep.Failed > 0 {
				t.Errorf("compare: %+v, %v", rep, err)
			}
			var b bytes.Buffer
			if err := Stream(t.Context(), im, &b); err != nil || b.Len() != len(data) {
				t.Fatalf("%d bytes of %d: %v", b.Len(), len(data), err)
			}
			if whole := exact || res.Total.Free == 0; whole && !bytes.Equal(b.Bytes(), data) {
				t.Error("an image from which nothing was left out differs")
			}
		}
	})
}

// TestWriteImage makes an image of regions that are stored already.
func TestWriteImage(t *testing.T) {
	st := ventitest.NewMemory()
	disk := gptDisk(t, extImage(t, 24*mib, tree(t, 1, 3*mib), "-t", "ext4", "-b", "4096"))
	res := importFile(t, st, disk, ImportOptions{})
	im, err := Open(t.Context(), st, res.Score)
	if err != nil {
		t.Fatal(err)
	}
	entries := slices.Clone(im.entries)
	for i := range entries {
		entries[i].Gen = 7 // as a directory has it
	}
	s, err := WriteImage(t.Context(), st, im.layout, entries)
	if err != nil || s != res.Score {
		t.Errorf("got %v, %v, want %v", s, err, res.Score)
	}
	entries[0].Size++
	if _, err := WriteImage(t.Context(), st, im.layout, entries); err == nil {
		t.Error("took an entry that does not agree with the layout")
	}
	if _, err := WriteImage(t.Context(), st, im.layout, entries[1:]); err == nil {
		t.Error("took too few entries")
	}
}
