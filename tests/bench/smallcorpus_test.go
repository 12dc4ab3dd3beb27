package bench

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The small corpus's disks: one partition of ext4 with files of this machine.
const (
	smallRoot  = 256 * mib
	smallStart = 1 * mib
	smallFiles = 64 * mib
)

// makeSmallCorpus makes disks that are to those of a real corpus what a sketch
// is, with the tools that an installer uses.
func makeSmallCorpus(b *testing.B, dir string) {
	b.Helper()
	for _, tool := range []string{"mke2fs", "debugfs", "sfdisk"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skipf("$STRATA_CORPUS is not set, and without %s no disks can be made (packages e2fsprogs and fdisk)", tool)
		}
	}
	work := b.TempDir()
	in := func(name string) string { return filepath.Join(work, name) }
	tree := in("tree")
	smallTree(b, tree)
	noise, text := in("noise"), in("text")
	writeNoise(b, noise, smallFiles/3)
	writeSomeFiles(b, text, smallFiles/2)

	smallExt4(b, in("base"), tree, "-U", "11111111-1111-4111-8111-111111111111")
	// Other inode tables: every file lies elsewhere.
	smallExt4(b, in("reinstall"), tree, "-U", "22222222-2222-4222-8222-222222222222", "-i", "65536")
	clone := func(name string, script ...string) {
		data, err := os.ReadFile(in("base"))
		if err == nil {
			err = os.WriteFile(in(name), data, 0o666)
		}
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command("debugfs", "-w", "-f", "-", in(name))
		cmd.Stdin = strings.NewReader(strings.Join(script, "\n") + "\n")
		run(b, cmd)
	}
	clone("web", "write "+text+" added", "write "+noise+" heap")
	clone("day2", "rm file00001", "rm file00002", "write "+text+" upgraded")
	clone("garbage", "write "+noise+" gone", "rm gone")

	const table = "label: gpt\nlabel-id: 33333333-3333-4333-8333-333333333333\nstart=2048, size=524288, type=linux, uuid=44444444-4444-4444-8444-444444444444\n"
	for _, d := range corpusDisks {
		out := filepath.Join(dir, d.file)
		if d.name == "mbr63" {
			smallDisk(b, out, in("base"), 63*512, "label: dos\nunit: sectors\nstart=63, size=524288, type=83\n")
			continue
		}
		smallDisk(b, out, in(d.name), smallStart, table)
	}
}

// smallTree fills a directory with files of this machine.
func smallTree(b *testing.B, dir string) {
	if err := os.Mkdir(dir, 0o777); err != nil {
		b.Fatal(err)
	}
	left, n := int64(smallFiles), 0
	filepath.WalkDir("/usr/share", func(name string, d fs.DirEntry, err error) error {
		if left <= 0 {
			return fs.SkipAll
		}
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil || int64(len(data)) > left {
			return nil
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%05d", n)), data, 0o666); err != nil {
			b.Fatal(err)
		}
		n++
		left -= int64(len(data))
		return nil
	})
	if n < 10 {
		b.Skip("this machine has too few files in /usr/share to fill a disk with")
	}
}

func writeNoise(b *testing.B, path string, size int64) {
	f, err := os.Create(path)
	if err == nil {
		_, err = io.CopyN(f, rand.NewChaCha8([32]byte{7}), size)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
}

func smallExt4(b *testing.B, path, tree string, opts ...string) {
	b.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(smallRoot)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	run(b, exec.Command("mke2fs", append(append([]string{"-q", "-F", "-t", "ext4", "-d", tree}, opts...), path)...))
}

// smallDisk makes a disk with one partition that begins at start.
func smallDisk(b *testing.B, path, part string, start int64, table string) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(smallRoot + 2*mib); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("sfdisk", "-q", path)
	cmd.Stdin = strings.NewReader(table)
	run(b, cmd)
	data, err := os.ReadFile(part)
	if err != nil {
		b.Fatal(err)
	}
	zeros := make([]byte, 4096)
	for off := 0; off < len(data); off += len(zeros) {
		if block := data[off : off+len(zeros)]; !bytes.Equal(block, zeros) {
			if _, err := f.WriteAt(block, start+int64(off)); err != nil {
				b.Fatal(err)
			}
		}
	}
}
