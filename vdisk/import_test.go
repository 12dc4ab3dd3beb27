package vdisk

import (
	"os"
	"strings"
	"syscall"
	"testing"

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
	return partitioned(t, "gpt", 64*mib,
		place{esp, 2048, "uefi"}, place{ext, 2048 + 8*2048, "linux"}, place{swap, 2048 + 48*2048, "swap"})
}

func TestImportGPT(t *testing.T) {
	tr := tree(t, 1, 6*mib)
	disk := gptDisk(t, extImage(t, 40*mib, tr, "-t", "ext4", "-b", "4096"))
	st := ventitest.NewMemory()
	res := importFile(t, st, disk, ImportOptions{})

	if got, want := len(res.Regions), 7; got != want {
		t.Fatalf("got %d regions, want %d: %+v", got, want, res.Layout)
	}
	root, l := res.region(t, "p2.ext4")
	if !l.FreeOmitted || l.Encoder != "ext4" || l.FileSystem.Label != "root" || l.Partition.Number != 2 {
		t.Errorf("layout of root: %+v", l)
	}
	if root.Free < 2*mib { // what was deleted
		t.Errorf("only %d bytes of root are free", root.Free)
	}
	swap, l := res.region(t, "p3.swap")
	if !l.FreeOmitted || swap.New > 4096 || swap.Free < 4096 {
		t.Errorf("swap: %+v", swap)
	}
	if esp, l := res.region(t, "p1.vfat"); l.FreeOmitted || l.Whole == "" || esp.Free != 0 {
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
