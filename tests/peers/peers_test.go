// Package peers has programs of Debian's use live disks in all ways that there
// are, and compares what they see with a plain file: over NBD libnbd, QEMU and
// fio, by mounts nbdfuse and 9pfuse, and our own client of 9P. The server is
// killed now and then.
package peers

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"strata/internal/ninep"
	"strata/tests/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// trial returns how much longer than usual tests are to be.
func trial(t testing.TB) int {
	t.Helper()
	text := os.Getenv("STRATA_TRIAL")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("STRATA_TRIAL=%q is not a positive number", text)
	}
	return 10 * n
}

// need skips the test unless programs are there, each with the package that
// has it.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		name, pkg, _ := strings.Cut(p, ":")
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s (package %s)", name, pkg)
		}
	}
}

// run runs a program, which must end well.
func run(t testing.TB, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = t.TempDir() // for what fio leaves
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// An op is something that is done to a disk. What is written is one byte over
// and over, for that is all that some programs can write.
type op struct {
	what   string
	off, n int64
	fill   byte
}

const (
	sector = 512
	// tableSize is how much at the start of a disk only its maker writes.
	tableSize = 4096
	diskSize  = 8<<20 + 3*sector
)

// ops returns a table of operations, which follows from a seed. They lie on
// sectors, and some of them on blocks or across many.
func ops(seed uint64, count int) []op {
	rng := rand.New(rand.NewPCG(seed, 7))
	var list []op
	for i := range count {
		o := op{fill: byte(1 + i%255)}
		o.n = (1 + rng.Int64N([]int64{1, 8, 16, 150, 600, 4000}[rng.IntN(6)])) * sector
		o.off = tableSize + rng.Int64N((diskSize-tableSize-o.n)/sector+1)*sector
		if rng.IntN(3) == 0 {
			o.off &^= 4095
			o.n = min((o.n+4095)&^4095, diskSize-o.off)
		}
		o.what = strings.Fields("write write write write fua zero keep trim flush read read holes")[rng.IntN(12)]
		list = append(list, o)
	}
	return append(list, op{what: "flush"})
}

// apply does o to the bytes of a disk.
func (o op) apply(disk []byte) {
	part := disk[o.off : o.off+o.n]
	switch o.what {
	case "write", "fua":
		for i := range part {
			part[i] = o.fill
		}
	case "zero", "keep", "trim":
		clear(part)
	}
}

// A peer is a program that has a disk open.
type peer interface {
	// do does o. Of what is read it says an error unless it is want.
	do(o op, want []byte) error
	close() error
}

// A table says which peers there are: open has one open an image, or a part of
// it that is called web/01/parts/1 and the like.
var table = []struct {
	name string
	open func(w *world, image string) peer
}{
	{"libnbd", func(w *world, image string) peer { return w.libnbd(image) }},
	{"libnbd shared", func(w *world, image string) peer { return w.libnbd(image + "/shared") }},
	{"qemu-io", func(w *world, image string) peer {
		return w.qemuIO("nbd+unix:///" + image + "?socket=" + w.up.Sock("nbd"))
	}},
	{"nbdfuse", func(w *world, image string) peer { return w.file(w.nbdfuse(image)) }},
	{"9P", func(w *world, image string) peer { return w.ninep(image) }},
	{"9pfuse", func(w *world, image string) peer { return w.file(filepath.Join(w.mounted(), "images", nodeOf(image))) }},
	{"qemu-io 9pfuse", func(w *world, image string) peer {
		return w.qemuIO(filepath.Join(w.mounted(), "images", nodeOf(image)))
	}},
}

// nodeOf returns where below /images what an export is called is a file.
func nodeOf(image string) string {
	if strings.Contains(image, "/parts/") {
		return image + "/data"
	}
	return image + "/disk"
}

// A world is a store with what uses it.
type world struct {
	t     testing.TB
	ours  harness.Suite
	dir   string
	up    *harness.Strata
	root  *ninep.File // of its 9P
	mount string      // of 9pfuse, "" if there is none yet
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, ours: harness.Ours(t), dir: filepath.Join(t.TempDir(), "store")}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	w.up = w.ours.Up(w.t, w.dir, "--size", "2", "--buffer", "1")
	w.root = w.up.Vdisk(w.t)
}

// open opens a file over 9P.
func (w *world) open(path string, mode ninep.OpenMode) *ninep.File {
	w.t.Helper()
	return harness.Open(w.t, w.root, path, mode)
}

// tell gives a command to vdisk.
func (w *world) tell(format string, args ...any) {
	w.t.Helper()
	w.up.Run(w.t, nil, "vdisk", strings.Fields(fmt.Sprintf(format, args...))...)
}

// kill ends the server at once, and starts another.
func (w *world) kill() {
	w.t.Helper()
	w.up.Kill()
	w.start()
}

// in has what follows belong to another test.
func (w *world) in(t testing.TB) *world {
	c := *w
	c.t = t
	return &c
}

// create makes an image with two partitions, and returns what it holds.
func (w *world) create(image string) []byte {
	w.t.Helper()
	w.tell("create %s %d", image, diskSize)
	disk := make([]byte, diskSize)
	for i, p := range [][2]uint32{{partStart, partSectors}, {partStart + partSectors, 6000}} {
		e := disk[446+16*i:]
		e[4] = 0x83
		for j := range 4 {
			e[8+j], e[12+j] = byte(p[0]>>(8*j)), byte(p[1]>>(8*j))
		}
	}
	disk[510], disk[511] = 0x55, 0xaa
	f := w.open("images/"+image+"/disk", ninep.OWRITE)
	_, err := f.WriteAt(w.t.Context(), disk[:sector], 0)
	if err := errors.Join(err, f.Close(w.t.Context())); err != nil { // which cuts it
		w.t.Fatal(err)
	}
	return disk
}

// Where the first partition lies: not on a multiple of the others' blocks.
const (
	partStart   = 9
	partSectors = 9000
)

// same fails unless an image is what it should be, as QEMU and 9P see it.
func (w *world) same(image string, want []byte) {
	w.t.Helper()
	plain := filepath.Join(w.t.TempDir(), "plain")
	if err := os.WriteFile(plain, want, 0o600); err != nil {
		w.t.Fatal(err)
	}
	run(w.t, "qemu-img", "compare", "-f", "raw", "-F", "raw", w.up.NBD(image), plain)
	out := plain + ".copy"
	run(w.t, "nbdcopy", w.up.NBD(image), out)
	got, err := os.ReadFile(out)
	if err != nil || !bytes.Equal(got, want) {
		w.t.Errorf("nbdcopy has another disk: %v %s", err, difference(got, want))
	}
	f := w.open("images/"+image+"/disk", ninep.OREAD)
	defer f.Close(w.t.Context())
	got = make([]byte, len(want))
	if _, err := f.ReadAt(w.t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		w.t.Errorf("9P has another disk: %v %s", err, difference(got, want))
	}
}

// difference says where two disks differ first.
func difference(got, want []byte) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("at %d: %#x, want %#x", i, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
}

// A talk is a program that is told what to do line by line.
type talk struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	errs bytes.Buffer
}

func (w *world) talk(program string, args ...string) *talk {
	w.t.Helper()
	p := &talk{t: w.t, cmd: exec.CommandContext(w.t.Context(), program, args...)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	p.out, p.cmd.Stderr = bufio.NewReader(out), &p.errs
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// end waits for the end of a program whose input has ended.
func (p *talk) end() error {
	p.in.Close()
	io.Copy(io.Discard, p.out)
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", p.cmd, err, &p.errs)
	}
	return nil
}

// python returns a Python that knows libnbd.
func python(t testing.TB) string {
	for _, p := range []string{"/usr/bin/python3", "python3"} { // Debian's has the package's module
		if exec.CommandContext(t.Context(), p, "-c", "import nbd").Run() == nil {
			return p
		}
	}
	t.Skip("no nbd module (package python3-libnbd)")
	return ""
}

// A libnbd is libnbd's Python shell.
type libnbd struct{ *talk }

func (w *world) libnbd(export string) peer {
	w.t.Helper()
	p := libnbd{w.talk(python(w.t), "testdata/libnbd.py", "serve", w.up.NBD(export))}
	if line, err := p.out.ReadString('\n'); !strings.HasPrefix(line, "size ") {
		w.t.Fatalf("libnbd says %q, %v\n%s", line, err, p.end())
	}
	return p
}

func (p libnbd) do(o op, want []byte) error {
	if _, err := fmt.Fprintln(p.in, o.what, o.off, o.n, o.fill); err != nil {
		return errors.Join(err, p.end())
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return errors.Join(err, p.end())
	}
	ok := "ok"
	if o.what == "read" {
		ok = fmt.Sprintf("%x", sha1.Sum(want))
	}
	if line = strings.TrimSpace(line); line != ok {
		return fmt.Errorf("libnbd says %s, want %s", line, ok)
	}
	return nil
}

func (p libnbd) close() error { return p.end() }

// A qemuIO is qemu-io, which does not see the bytes that it reads, but whether
// they are all one.
type qemuIO struct{ *talk }

const prompt = "qemu-io> "

func (w *world) qemuIO(disk string) peer {
	w.t.Helper()
	need(w.t, "qemu-io:qemu-utils")
	p := qemuIO{w.talk("qemu-io", "-f", "raw", "-t", "writeback", "-d", "unmap", disk)}
	if _, err := p.answer(); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (p qemuIO) answer() (string, error) {
	var b []byte
	for !bytes.HasSuffix(b, []byte(prompt)) {
		c, err := p.out.ReadByte()
		if err != nil {
			return string(b), errors.Join(fmt.Errorf("qemu-io says %q: %w", b, err), p.end())
		}
		b = append(b, c)
	}
	return strings.TrimSuffix(string(b), prompt), nil
}

func (p qemuIO) tell(format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		return errors.Join(err, p.end())
	}
	text, err := p.answer()
	if err == nil && strings.Contains(text, "failed") {
		err = fmt.Errorf("%s: qemu-io says %s", line, text)
	}
	return err
}

func (p qemuIO) do(o op, want []byte) error {
	switch o.what {
	case "write":
		return p.tell("write -q -P %d %d %d", o.fill, o.off, o.n)
	case "fua":
		return p.tell("write -q -f -P %d %d %d", o.fill, o.off, o.n)
	case "zero":
		return p.tell("write -q -z -u %d %d", o.off, o.n)
	case "keep":
		return p.tell("write -q -z %d %d", o.off, o.n)
	case "trim":
		// Discarded is what QEMU likes to: it may leave it. Zeros are zeros.
		if err := p.tell("discard -q %d %d", o.off, o.n); err != nil {
			return err
		}
		return p.tell("write -q -z -u %d %d", o.off, o.n)
	case "flush":
		return p.tell("flush")
	}
	for len(want) > 0 {
		n := len(want)
		for i := range want {
			if want[i] != want[0] {
				n = i
				break
			}
		}
		if err := p.tell("read -q -P %d %d %d", want[0], o.off, n); err != nil {
			return err
		}
		o.off, want = o.off+int64(n), want[n:]
	}
	return nil
}

func (p qemuIO) close() error { return p.end() }

// A plain is a disk that is a file of a mount.
type plain struct{ f *os.File }

func (w *world) file(name string) peer {
	w.t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return plain{f}
}

func (p plain) do(o op, want []byte) error {
	var err error
	switch o.what {
	case "write", "fua":
		_, err = p.f.WriteAt(bytes.Repeat([]byte{o.fill}, int(o.n)), o.off)
		if err == nil && o.what == "fua" {
			err = p.f.Sync()
		}
	case "zero", "keep", "trim":
		_, err = p.f.WriteAt(make([]byte, o.n), o.off)
	case "flush":
		err = p.f.Sync()
	default:
		got := make([]byte, o.n)
		if _, err = p.f.ReadAt(got, o.off); err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%s: %s", p.f.Name(), difference(got, want))
		}
	}
	return err
}

func (p plain) close() error { return p.f.Close() }

// A nine is a disk over 9P.
type nine struct {
	t testing.TB
	f *ninep.File
}

func (w *world) ninep(image string) peer {
	w.t.Helper()
	return nine{w.t, w.open("images/"+nodeOf(image), ninep.ORDWR)}
}

func (p nine) do(o op, want []byte) error {
	ctx := p.t.Context()
	var err error
	switch o.what {
	case "write", "fua":
		_, err = p.f.WriteAt(ctx, bytes.Repeat([]byte{o.fill}, int(o.n)), o.off)
		if err == nil && o.what == "fua" {
			err = p.f.Sync(ctx)
		}
	case "zero", "keep", "trim":
		_, err = p.f.WriteAt(ctx, make([]byte, o.n), o.off)
	case "flush":
		err = p.f.Sync(ctx)
	default:
		got := make([]byte, o.n)
		if _, err = p.f.ReadAt(ctx, got, o.off); err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("9P: %s", difference(got, want))
		}
	}
	return err
}

func (p nine) close() error { return p.f.Close(p.t.Context()) }

// mounted returns where 9pfuse has mounted the server, and goes on to when that
// was started anew.
func (w *world) mounted() string {
	w.t.Helper()
	if w.mount == "" {
		w.t.Skip("nothing can be mounted here")
	}
	return w.mount
}

// mountAll mounts the server with 9pfuse, if that is possible.
func (w *world) mountAll(options string) string {
	w.t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		return ""
	} else {
		f.Close()
	}
	dir := w.t.TempDir()
	if _, text, err := w.ours.Try(w.t, nil, "9pfuse", "-o", options, w.up.Sock("vdisk"), dir); err != nil {
		if strings.Contains(text, "not permitted") {
			return ""
		}
		w.t.Fatalf("9pfuse: %v\n%s", err, text)
	}
	w.t.Cleanup(func() { umount(w.t, dir) })
	return dir
}

func umount(t testing.TB, dir string) {
	cmd := exec.Command("fusermount3", "-u", dir)
	if os.Geteuid() == 0 {
		cmd = exec.Command("umount", dir)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", cmd, err, out)
	}
}

// nbdfuse has libnbd mount an export, and returns the file that it is.
func (w *world) nbdfuse(export string) string {
	w.t.Helper()
	need(w.t, "nbdfuse:libnbd-bin", "fusermount3:fuse3")
	if _, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		w.t.Skipf("no FUSE here: %v", err)
	}
	dir := w.t.TempDir()
	file := filepath.Join(dir, "disk")
	cmd := exec.Command("nbdfuse", file, w.up.NBD(export))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.t.Cleanup(func() {
		umount(w.t, file)
		<-ended
	})
	for deadline := time.Now().Add(time.Minute); ; {
		var st syscall.Stat_t
		if err := syscall.Stat(file, &st); err == nil && st.Size > 0 {
			return file
		}
		select {
		case err := <-ended:
			ended <- err
			w.t.Fatalf("nbdfuse: %v: %s", err, &said)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("nbdfuse mounts nothing: %s", &said)
		}
	}
}

// TestPeers has every peer do the same random operations to an image of its
// own, and others compare that with a plain file: before and after a kill, and
// once more with images that another peer has written.
func TestPeers(t *testing.T) {
	need(t, "qemu-img:qemu-utils", "nbdcopy:libnbd-bin")
	w := newWorld(t)
	w.mount = w.mountAll("fsname=peers")
	disks := make([][]byte, len(table))
	image := func(i int) string { return fmt.Sprintf("vm/%d", i) }
	for i := range table {
		disks[i] = w.create(image(i))
	}
	seed := uint64(1)
	for round := range 1 + trial(t) {
		for i, p := range table {
			n := (i + round) % len(table)
			t.Run(fmt.Sprintf("%d %s", round, p.name), func(t *testing.T) {
				w := w.in(t)
				seed++
				user := p.open(w, image(n))
				for k, o := range ops(seed, 50) {
					o.apply(disks[n])
					if err := user.do(o, disks[n][o.off:o.off+o.n]); err != nil {
						t.Fatalf("operation %d of seed %d, %+v: %v", k, seed, o, err)
					}
				}
				if err := user.close(); err != nil {
					t.Fatal(err)
				}
				w.same(image(n), disks[n])
			})
		}
		w.tell("snap vm/0")
		w.kill()
		for n := range table {
			w.same(image(n), disks[n])
		}
	}
	// And the first partition of one.
	disk := disks[0]
	for i, p := range table {
		t.Run("partition "+p.name, func(t *testing.T) {
			w := w.in(t)
			user := p.open(w, image(0)+"/parts/1")
			const off, n = 3*sector + 4096, 100 * sector
			for _, o := range []op{{"write", off, n, byte(100 + i)}, {"flush", 0, 0, 0}, {"read", 0, 2 * n, 0}} {
				part := disk[partStart*sector:][:partSectors*sector]
				o.apply(part)
				if err := user.do(o, part[o.off:o.off+o.n]); err != nil {
					t.Fatal(err)
				}
			}
			if err := user.close(); err != nil {
				t.Fatal(err)
			}
			w.same(image(0), disk)
		})
	}
}
