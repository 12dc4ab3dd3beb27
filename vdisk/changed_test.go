package vdisk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"strata/venti/ventitest"
)

// differences lists where two files of one length differ, in units of 512
// bytes.
func differences(t *testing.T, a, b string) []Range {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	list := []Range{}
	for i := 0; i < len(x); i += 512 {
		if end := min(i+512, len(x)); !bytes.Equal(x[i:end], y[i:end]) {
			list = append(list, Range{int64(i), int64(end - i)})
		}
	}
	return list
}

// counting counts the bytes that are read of a disk.
type counting struct {
	*Disk
	read atomic.Int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.read.Add(int64(len(p)))
	return c.Disk.ReadAt(p, off)
}

// TestChanged imports a disk that a day has changed, whole and by the list of
// what has: the score is the same, and hardly more than the list is read.
func TestChanged(t *testing.T) {
	tr := tree(t, 1, 3*mib)
	day1 := gptDisk(t, extImage(t, 24*mib, tr, "-t", "ext4"))
	day2 := filepath.Join(t.TempDir(), "day2")
	data, err := os.ReadFile(day1)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(day2, data, 0o600); err != nil {
		t.Fatal(err)
	}
	// A file comes, one goes, and one gets space that nobody writes to, in the
	// middle of what was deleted before.
	note := filepath.Join(t.TempDir(), "note")
	noise := make([]byte, 300000)
	rand.New(rand.NewSource(9)).Read(noise)
	if err := os.WriteFile(note, noise, 0o600); err != nil {
		t.Fatal(err)
	}
	fs := fmt.Sprintf("%s?offset=%d", day2, (2048+8*2048)*512)
	run(t, "write "+note+" note\n", "debugfs", "-w", "-f", "-", fs)
	run(t, "write "+note+" other\nrm note\n", "debugfs", "-w", "-f", "-", fs)
	run(t, "write /dev/null room\nfallocate room 0 400\n", "debugfs", "-w", "-f", "-", fs)

	st := ventitest.NewMemory()
	base := importFile(t, st, day1, ImportOptions{})
	want := importFile(t, st, day2, ImportOptions{}).Score
	changed := differences(t, day1, day2)
	if want == base.Score || len(changed) == 0 {
		t.Fatal("the day changed nothing")
	}
	sum := int64(0)
	for _, r := range changed {
		sum += r.Len
	}
	src := &counting{Disk: openDisk(t, day2)}
	res, err := Import(t.Context(), st, src, ImportOptions{Base: base.Score, Changed: changed})
	if err != nil {
		t.Fatal(err)
	}
	if res.Score != want {
		t.Errorf("got %v, want %v", res.Score, want)
	}
	checkCounts(t, res)
	// The list, what was allocated without being written, and some metadata
	// that is looked at more than once.
	if got := src.read.Load(); got > 3*sum+2*mib {
		t.Errorf("%d bytes of the disk were read, for %d that have changed", got, sum)
	}
	// Said more coarsely, and of a disk that has grown.
	coarse := []Range{}
	for _, r := range changed {
		coarse = append(coarse, Range{r.Off / 65536 * 65536, 65536})
	}
	if err := os.Truncate(day2, 45*mib); err != nil {
		t.Fatal(err)
	}
	want = importFile(t, st, day2, ImportOptions{}).Score
	res, err = Import(t.Context(), st, openDisk(t, day2), ImportOptions{Base: base.Score, Changed: coarse})
	if err != nil || res.Score != want {
		t.Errorf("grown: got %+v, %v, want %v", res, err, want)
	}
	// Nothing has changed.
	res, err = Import(t.Context(), st, openDisk(t, day1), ImportOptions{Base: base.Score, Changed: []Range{}})
	if err != nil || res.Score != base.Score || res.Total.New != 0 {
		t.Errorf("unchanged: got %+v, %v, want %v", res, err, base.Score)
	}
	if _, err := Import(t.Context(), st, openDisk(t, day1), ImportOptions{Changed: []Range{}}); err == nil {
		t.Error("changes from nothing")
	}
	if _, err := Import(t.Context(), st, openDisk(t, day1), ImportOptions{Base: base.Score, Changed: []Range{{43 * mib, 1}}}); err == nil || !strings.Contains(err.Error(), "outside the disk") {
		t.Errorf("behind the end: got %v", err)
	}
}

// TestChangedRandom compares what a changed source says with the disk.
func TestChangedRandom(t *testing.T) {
	rng := rand.New(rand.NewSource(2))
	old := make([]byte, 300*4096+77)
	for i := 0; i < len(old); i += 4096 {
		if rng.Intn(3) > 0 {
			rng.Read(old[i:min(i+4096, len(old))])
		}
	}
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, old, 0o600); err != nil {
		t.Fatal(err)
	}
	st := ventitest.NewMemory()
	res := importFile(t, st, name, ImportOptions{})
	base, err := Open(t.Context(), st, res.Score)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{len(old), len(old) - 50000, len(old) + 50000} {
		now := append(bytes.Clone(old), make([]byte, 50000)...)[:size]
		var changed []Range
		for range 20 {
			off := rng.Intn(size)
			n := min(rng.Intn(9000), size-off)
			rng.Read(now[off : off+n])
			changed = append(changed, Range{int64(off), int64(n)})
		}
		if size > len(old) {
			rng.Read(now[len(old):])
		}
		if err := os.WriteFile(name, now, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := newChangedSource(context.Background(), openDisk(t, name), base, changed)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		if n, err := s.ReadAt(got, 0); n != size || err != nil || !bytes.Equal(got, now) {
			t.Fatalf("%d bytes: read %d, %v", size, n, err)
		}
		if n, err := s.ReadAt(make([]byte, 10), int64(size)-5); n != 5 || err != io.EOF {
			t.Errorf("at the end: got %d, %v", n, err)
		}
		at := int64(0)
		for _, r := range ranges(t, s) {
			if len(bytes.Trim(now[at:r[0]], "\x00")) > 0 {
				t.Fatalf("hole at %d to %d is none", at, r[0])
			}
			at = r[1]
		}
		if len(bytes.Trim(now[at:], "\x00")) > 0 {
			t.Fatalf("hole at the end from %d is none", at)
		}
	}
}

func TestReadRanges(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []Range
		err      string
	}{
		{"nothing", "", []Range{}, ""},
		{"text", "# since Monday\n\n1048576 65536\n 0x1000\t512 # more\n", []Range{{1 << 20, 65536}, {4096, 512}}, ""},
		{"one number", "1 2\n3\n", nil, "line 2: want two numbers"},
		{"a word", "one 2\n", nil, `bad number "one"`},
		{"negative", "-1 2\n", nil, `bad number "-1"`},
		{"nbdinfo", `[{"offset": 0, "length": 65536, "type": 1, "description": "dirty"}, {"offset": 65536, "length": 5, "type": 0}]`, []Range{{0, 65536}}, ""},
		{"dirty", ` [{"start": 5, "length": 6}, {"start": 11, "length": 6, "dirty": false}]`, []Range{{5, 6}}, ""},
		{"qemu-img map", `[{"start": 0, "length": 65536, "depth": 0, "zero": false, "data": true}]`, nil, "not what has changed"},
		{"no length", `[{"start": 0}]`, nil, "no length"},
		{"half", `[{"start": 0`, nil, "unexpected end"},
		{"thin_delta", `<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="0">
			<diff left="1" right="2">
			<same begin="0" length="3"/> <different begin="3" length="2"/> <left_only begin="7" length="1"/> <right_only begin="9" length="1"/>
			</diff></superblock>`, []Range{{3 << 16, 2 << 16}, {7 << 16, 1 << 16}, {9 << 16, 1 << 16}}, ""},
		{"no block size", `<superblock><different begin="0" length="1"/></superblock>`, nil, "bad data_block_size"},
		{"no superblock", `<different begin="0" length="1"/>`, nil, "data blocks of 0 bytes"},
		{"no delta", `<html/>`, nil, "no <superblock>"},
		{"too far", `<superblock data_block_size="128"><different begin="0" length="9223372036854775807"/></superblock>`, nil, "data blocks of"},
		{"half a delta", `<superblock data_block_size="128">`, nil, "unexpected EOF"},
	} {
		got, err := ReadRanges(strings.NewReader(c.in))
		if c.err == "" && (err != nil || !reflect.DeepEqual(got, c.want)) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: got %v, %v, want %v, %q", c.name, got, err, c.want, c.err)
		}
	}
}

// TestDirtyBitmap imports what a bitmap of QEMU says.
func TestDirtyBitmap(t *testing.T) {
	for _, p := range []string{"qemu-nbd", "qemu-img", "qemu-io", "nbdinfo"} {
		need(t, p)
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "a.qcow2")
	run(t, "", "qemu-img", "convert", "-O", "qcow2", gptDisk(t, extImage(t, 24*mib, tree(t, 1, 3*mib), "-t", "ext4")), name)
	st := ventitest.NewMemory()
	importNow := func(opt ImportOptions) *Result {
		f, err := OpenFile(t.Context(), name, FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		res, err := Import(t.Context(), st, f, opt)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	base := importNow(ImportOptions{})
	run(t, "", "qemu-img", "bitmap", "--add", name, "today")
	run(t, "", "qemu-io", "-f", "qcow2", "-c", "write -q -P 7 16M 100k", "-c", "write -q -z 12M 64k", "-c", "write -q -P 8 5M 1k", name)
	sock, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(sock)
	cmd := exec.Command("qemu-nbd", "-r", "-f", "qcow2", "-B", "today", "-k", filepath.Join(sock, "s"), name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // it ends with its one client
	var out []byte
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err = exec.Command("nbdinfo", "--map=qemu:dirty-bitmap:today", "--json", "nbd+unix://?socket="+filepath.Join(sock, "s")).Output()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			t.Fatalf("nbdinfo: %v", err)
		}
	}
	changed, err := ReadRanges(bytes.NewReader(out))
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	got, want := importNow(ImportOptions{Base: base.Score, Changed: changed}), importNow(ImportOptions{})
	if got.Score != want.Score || got.Score == base.Score {
		t.Errorf("got %v, want %v, of %v", got.Score, want.Score, changed)
	}
}

// FuzzReadRanges reads a list that may be anything, and makes a source of it:
// its ranges rise, do not touch, and stay on the disk.
func FuzzReadRanges(f *testing.F) {
	f.Add([]byte("4096 512 # more\n0x2000 1\n"))
	f.Add([]byte(`[{"offset": 0, "length": 65536, "type": 1}, {"start": 9, "length": -5, "dirty": true}]`))
	f.Add([]byte(`<superblock data_block_size="1"><different begin="3" length="2"/><left_only begin="0" length="9"/></superblock>`))
	f.Add([]byte("9223372036854775807 9223372036854775807\n0 9223372036854775807\n"))
	d := &Disk{size: 1 << 20}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ReadRanges(bytes.NewReader(data))
		if err != nil {
			return
		}
		s, err := newChangedSource(context.Background(), d, nil, list)
		if err != nil {
			return
		}
		end := int64(-1)
		for _, r := range s.ranges {
			if r.Off <= end || r.Len <= 0 || r.End() > d.size {
				t.Fatalf("ranges %v", s.ranges)
			}
			end = r.End()
		}
	})
}
