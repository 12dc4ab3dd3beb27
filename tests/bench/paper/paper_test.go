package paper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"strata/tests/debian"
	"strata/tests/harness"
	"strata/vdisk"
)

// dirEnv names the folder to work in.
const dirEnv = "STRATA_PAPER"

// diskMB is the size of every disk, and space what a run needs, in bytes.
const (
	diskMB = 3 << 10
	space  = 15 << 30
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// An install is a disk that is made from packages, independently of all others.
type install struct {
	name string
	disk debian.Disk
}

func system(more ...string) []string {
	return append([]string{"ca-certificates", "cron", "curl", "less", "locales", "openssh-server", "python3-minimal", "rsyslog", "sudo"}, more...)
}

// installs are what is compared. The first is the base; of the second, its twin, all
// is the same but what differs from installation to installation.
var installs = [...]install{
	{"base", debian.Disk{Packages: system(), SizeMB: diskMB}},
	{"base again", debian.Disk{Packages: system(), SizeMB: diskMB, Install: 1}},
	{"web", debian.Disk{Packages: system("nginx", "postgresql", "php-fpm"), SizeMB: diskMB}},
	{"sdk", debian.Disk{Packages: system("g++", "gdb", "git", "make", "python3"), SizeMB: diskMB}},
	{"office", debian.Disk{Packages: system("libreoffice-writer-nogui"), SizeMB: diskMB}},
	{"base 11", debian.Disk{Release: "bullseye", Packages: system(), SizeMB: diskMB}},
	{"base 13", debian.Disk{Release: "trixie", Packages: system(), SizeMB: diskMB}},
}

// flavours is how many of the installs are of one release.
const flavours = 5

// TestPaper prints the tables.
func TestPaper(t *testing.T) {
	p := &paper{dir: os.Getenv(dirEnv)}
	if p.dir == "" {
		t.Skip(dirEnv + " names no folder to work in")
	}
	p.need(t)
	p.ours = harness.Ours(t) // before the next line has Go's own cache elsewhere
	t.Setenv("XDG_CACHE_HOME", p.dir)
	t.Run("Similarity", p.similarity)
	t.Run("BlockSizes", p.blockSizes)
	t.Run("Storage", p.storage)
	t.Run("Boot", p.boot)
}

// A paper is one run.
type paper struct {
	dir  string
	ours harness.Suite
}

// need fails at once where something is missing.
func (p *paper) need(t *testing.T) {
	t.Helper()
	lack := debian.Missing()
	for prog, pkg := range map[string]string{"qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils", "nbdcopy": "libnbd-bin"} {
		if _, err := exec.LookPath(prog); err != nil {
			lack = append(lack, pkg)
		}
	}
	if len(lack) > 0 {
		slices.Sort(lack)
		t.Fatalf("missing: apt-get install %s", strings.Join(slices.Compact(lack), " "))
	}
	var err error
	if p.dir, err = filepath.Abs(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p.dir, &st); err != nil {
		t.Fatal(err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < space {
		t.Fatalf("%s: %d MB are free, and %d are needed", p.dir, free/1e6, int64(space)/1e6)
	}
}

// temp returns a folder beside the disks that goes when the test ends.
func (p *paper) temp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(p.dir, "work")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// run runs a program and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &said)
	}
	return string(out)
}

// printTable prints a table, and below it what the paper has, as far as its text tells:
// its own tables are pictures.
func printTable(title string, head []string, rows [][]string, paper string) {
	line := func(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }
	text := "\n" + title + "\n\n" + line(head) + strings.Repeat("|---", len(head)) + "|\n"
	for _, r := range rows {
		text += line(r)
	}
	fmt.Print(text + "\nThe paper: " + paper + "\n")
}

func percent(x float64) string  { return fmt.Sprintf("%.1f %%", 100*x) }
func megabytes(n int64) string  { return fmt.Sprintf("%d MB", (n+5e5)/1e6) }
func ratio(a, b float64) string { return fmt.Sprintf("%.2f", a/b) }
func headed(first string) []string {
	head := []string{first}
	for _, i := range installs {
		head = append(head, i.name)
	}
	return head
}

// similarity compares flavours and releases by blocks, and by files as the paper
// does.
func (p *paper) similarity(t *testing.T) {
	var byBlock, byFile []contents
	sizes := []string{"size"}
	copies := []string{"copies within"}
	for _, i := range installs {
		img := i.disk.Get(t)
		err := withDisk(img.Path, func(src vdisk.Source) error {
			b, err := blocks(src)
			if err != nil {
				return err
			}
			f, dup, err := files(src)
			byBlock, byFile = append(byBlock, b), append(byFile, f)
			sizes = append(sizes, megabytes(b.total()))
			copies = append(copies, percent(share(dup, f.total())))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var found, similar [][]string
	for i, row := range installs {
		f, s := []string{row.name}, []string{row.name}
		for j := range installs {
			f = append(f, percent(share(byBlock[i].in(byBlock[j]), byBlock[i].total())))
			if j < i {
				s = append(s, "")
			} else {
				s = append(s, percent(alike(byFile[i], byFile[j])))
			}
		}
		found, similar = append(found, f), append(similar, s)
	}
	printTable("Of the blocks of the disk at the left, so many are also on the disk above (4 KiB, without zeros and what is free):", headed(""), append(found, sizes),
		"counts files, as the next table.")
	printTable("Of the files of both disks, by size, so many are on both, as the paper counts:", headed(""), append(similar, copies),
		"two installs of one flavour of Fedora 9, 96 %; copies within it 5.3 %, within Fedora 7 4.1 %, without /boot.")
}

// blockSizes cuts the disks of one release into blocks of all sizes, and with them
// the base as it is where its partition begins at sector 63.
func (p *paper) blockSizes(t *testing.T) {
	var disks []string
	for _, i := range installs[:flavours] {
		disks = append(disks, i.disk.Get(t).Path)
	}
	moved := filepath.Join(p.temp(t), "63.raw")
	if err := atSector63(t, moved, disks[0]); err != nil {
		t.Fatal(err)
	}
	disks = append(disks, moved)
	cutters := [...]cutter{whole, partitions}
	var lists [len(cutters)][]tally
	var errs [len(cutters)]error
	var wg sync.WaitGroup
	for i, cut := range cutters {
		wg.Go(func() { lists[i], errs[i] = tallies(disks, cut) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	var rows [][]string
	for i, size := range blockSizes {
		row := []string{fmt.Sprintf("%d B", size)}
		if size >= kib {
			row[0] = fmt.Sprintf("%d KiB", size/kib)
		}
		for _, list := range lists {
			row = append(row, percent(list[i].duplicate()), megabytes(list[i].kept))
		}
		rows = append(rows, row)
	}
	printTable("Duplicates on the five disks of one release and on the base moved to sector 63, and what is left:",
		[]string{"block", "whole disk", "left", "from each partition's start", "left"}, rows,
		"no numbers in its text.")
}

// rootOf returns the partition that holds the root: the last one with ext4.
func rootOf(src vdisk.Source) (vdisk.Source, error) {
	s, err := vdisk.NewSurvey(src, true)
	if err != nil {
		return nil, err
	}
	for i, r := range slices.Backward(s.Layout.Regions) {
		if r.FileSystem != nil && r.FileSystem.Type == "ext4" {
			return s.Source(i), nil
		}
	}
	return nil, errors.New("no partition with ext4")
}

// atSector63 makes a disk of the root of another, as disks were partitioned when the
// paper was written.
func atSector63(t *testing.T, name, from string) error {
	t.Helper()
	return withDisk(from, func(src vdisk.Source) error {
		root, err := rootOf(src)
		if err != nil {
			return err
		}
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Truncate(63*512 + root.Size()); err != nil {
			return err
		}
		if _, err := f.WriteAt(mbr(63, uint32(root.Size()/512)), 0); err != nil {
			return err
		}
		return pieces(root, func(off int64, b []byte) error {
			_, err := f.WriteAt(b, 63*512+off)
			return err
		})
	})
}
