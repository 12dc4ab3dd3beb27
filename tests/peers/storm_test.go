package peers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"strata/internal/ninep"
)

// A sectorState is what a sector may hold: what it had after the last flush, or
// what was written since, the oldest first: numbers of writes, or one of the
// constants.
type sectorState []int

const (
	zeros   = 0
	created = -1 // what the image had
)

// holds returns what a sector has that a write of that number has written.
func holds(n, write int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%09d %09d\n...........\n", n, write), 16)
}

// A request is one of those that libnbd.py says it has sent.
type request struct {
	first, count, value int
	flush               bool
	done                bool
	covers              []int // of a flush: how many of each sector's writes are behind it
}

// A stormLog is what follows from what libnbd.py says.
type stormLog struct {
	sectors  []sectorState
	requests map[int]*request
	last     []int // of each sector, the place in it of the last write that was answered
	flushes  int
	writes   int
}

func newStormLog(sectors []sectorState) *stormLog {
	return &stormLog{sectors: sectors, requests: map[int]*request{}, last: make([]int, len(sectors))}
}

// line takes in a line.
func (l *stormLog) line(text string) error {
	var f []int
	words := strings.Fields(text)
	for _, w := range words[1:] {
		n, err := strconv.Atoi(w)
		if err != nil {
			return fmt.Errorf("libnbd.py says %q", text)
		}
		f = append(f, n)
	}
	switch words[0] {
	case "W", "Z":
		r := &request{first: f[1], count: f[2]}
		if words[0] == "W" {
			r.value = f[0]
		}
		l.requests[f[0]] = r
		for i := r.first; i < r.first+r.count; i++ {
			l.sectors[i] = append(l.sectors[i], r.value)
		}
	case "F":
		// What was answered before is behind it.
		l.requests[f[0]] = &request{flush: true, covers: append([]int(nil), l.last...)}
	case "D":
		r := l.requests[f[0]]
		delete(l.requests, f[0])
		if !r.flush {
			l.writes++
			for i := r.first; i < r.first+r.count; i++ {
				l.last[i] = len(l.sectors[i]) - 1 // no two writes of a sector are under way
			}
			return nil
		}
		l.flushes++
		for i, n := range r.covers {
			l.sectors[i] = l.sectors[i][n:]
			l.last[i] -= n
			for _, other := range l.requests {
				if other.flush {
					other.covers[i] = max(0, other.covers[i]-n)
				}
			}
		}
	case "E":
		delete(l.requests, f[0]) // the server is gone, or the test will see that it is not
	}
	return nil
}

// TestStorm has libnbd write at random, 16 requests at once, by one connection
// and by four that share the disk, while snapshots are taken, and kills the server
// in the midst of it: what was answered before a flush was sent, and that
// answered, is there; what came later may be, sector by sector; and nothing else.
func TestStorm(t *testing.T) {
	for _, connections := range []int{1, 4} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) { testStorm(t, connections) })
	}
}

func testStorm(t *testing.T, connections int) {
	interpreter := python(t)
	w := newWorld(t)
	disk := w.create("a")
	export := "a"
	if connections > 1 {
		export = "a/shared"
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	sectors := make([]sectorState, diskSize/sector)
	for i := range sectors {
		sectors[i] = sectorState{created}
	}
	flushes, writes, rounds := 0, 0, 3*trial(t)
	for round := range rounds {
		p := w.talk(interpreter, "testdata/libnbd.py", "storm", w.up.NBD(export), fmt.Sprint(connections), fmt.Sprint(rng.Uint32()))
		log := newStormLog(sectors)
		kill, killed := time.Duration(50+rng.IntN(300))*time.Millisecond, false
		for {
			text, err := p.out.ReadString('\n')
			if err != nil {
				t.Fatalf("libnbd.py: %v", errors.Join(err, p.end()))
			}
			if strings.TrimSpace(text) == "gone" {
				break
			}
			if strings.HasPrefix(text, "E") && !killed {
				t.Fatalf("before the server was killed: %s", text)
			}
			if err := log.line(text); err != nil {
				t.Fatal(err)
			}
			if log.flushes >= 3 && !killed { // all is under way
				killed = true
				snap := w.open("ctl", ninep.ORDWR)
				time.AfterFunc(kill, w.up.Kill)
				go snap.WriteAt(t.Context(), []byte("snap a"), 0) // until the kill at most
			}
		}
		if err := p.end(); err != nil {
			t.Fatal(err)
		}
		flushes, writes = flushes+log.flushes, writes+log.writes
		w.kill()
		if rng.IntN(2) == 0 {
			w.tell("settle a") // by what the table is now
		}
		f := w.open("images/a/disk", ninep.OREAD)
		got := make([]byte, diskSize)
		if _, err := f.ReadAt(t.Context(), got, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		f.Close(t.Context())
	check:
		for i := range sectors {
			have := got[i*sector:][:sector]
			for _, write := range sectors[i] {
				want := disk[i*sector:][:sector]
				switch write {
				case created:
				case zeros:
					want = make([]byte, sector)
				default:
					want = holds(i, write)
				}
				if bytes.Equal(have, want) {
					sectors[i] = sectorState{write}
					continue check
				}
			}
			t.Fatalf("round %d: sector %d is %.40q, want one of %v", round, i, have, sectors[i])
		}
	}
	t.Logf("%d kills, %d writes and %d flushes answered", rounds, writes, flushes)
}

// TestFio has fio write with checksums, over NBD and on a mount of nbdfuse, and
// verify what it has written: at once, and when the server was killed since.
func TestFio(t *testing.T) {
	need(t, "fio:fio")
	if !strings.Contains(run(t, "fio", "--enghelp"), "nbd") {
		t.Skip("this fio has no engine nbd")
	}
	for i, name := range []string{"nbd", "nbdfuse"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			const image = "a"
			w.tell("create %s 16m", image)
			job := func(more ...string) {
				t.Helper()
				args := []string{"--name=verify", "--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=1", "--iodepth=16", "--size=16m",
					"--fsync=64", "--end_fsync=1", "--verify=crc32c", "--verify_fatal=1", fmt.Sprintf("--randseed=%d", 11+i)}
				if name == "nbd" {
					args = append(args, "--ioengine=nbd", "--uri="+w.up.NBD(image))
				} else {
					file := w.nbdfuse(image)
					args = append(args, "--ioengine=psync", "--filename="+file)
				}
				run(t, "fio", append(args, more...)...)
			}
			job("--do_verify=1", "--verify_backlog=128")
			w.kill()
			job("--verify_only=1")
		})
	}
}

// TestResize has clients see the new size of a disk when they connect anew.
func TestResize(t *testing.T) {
	need(t, "nbdinfo:libnbd-bin", "qemu-io:qemu-utils", "qemu-img:qemu-utils")
	w := newWorld(t)
	disk := w.create("a")
	size := func() string { return strings.TrimSpace(run(t, "nbdinfo", "--size", w.up.NBD("a"))) }
	reader := w.qemuIO("nbd+unix:///a?socket=" + w.up.Sock("nbd"))
	if err := reader.do(op{"write", 7 << 20, sector, 9}, nil); err != nil {
		t.Fatal(err)
	}
	copy(disk[7<<20:], bytes.Repeat([]byte{9}, sector))
	// One who is connected goes on with the disk that there was.
	w.tell("resize a 9m")
	o := op{"write", 6 << 20, sector, 5}
	o.apply(disk)
	if err := reader.do(o, nil); err != nil {
		t.Error(err)
	}
	if _, said, err := w.up.Try(t, nil, "vdisk", "resize", "a", "8m"); err == nil || !strings.Contains(said, "being written to by a client of NBD") {
		t.Errorf("made shorter while a client writes: %v %s", err, said)
	}
	if err := reader.close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{9 << 20, 40 << 20, 8 << 20} {
		w.tell("resize a %d", n)
		disk = append(disk, make([]byte, max(0, n-len(disk)))...)[:n]
		if got := size(); got != fmt.Sprint(n) {
			t.Errorf("nbdinfo: %s bytes, want %d", got, n)
		}
		if n > diskSize {
			at := int64(n - 2*sector)
			user := w.qemuIO("nbd+unix:///a?socket=" + w.up.Sock("nbd"))
			o := op{"write", at, sector, byte(n >> 20)}
			o.apply(disk)
			if err := user.do(o, nil); err != nil {
				t.Errorf("behind the old end: %v", err)
			}
			zero := op{"zero", at, sector, 0}
			if n == 40<<20 { // so that the disk can shrink again
				zero.apply(disk)
				if err := user.do(zero, nil); err != nil {
					t.Error(err)
				}
			}
			if err := user.close(); err != nil {
				t.Fatal(err)
			}
		}
		if n == 9<<20 {
			if _, said, err := w.up.Try(t, nil, "vdisk", "resize", "a", "8m"); err == nil || !strings.Contains(said, "data behind its new end") {
				t.Errorf("cut off: %v %s", err, said)
			}
			zero := op{"zero", 8 << 20, 1 << 20, 0}
			zero.apply(disk)
			user := w.libnbd("a")
			if err := errors.Join(user.do(zero, nil), user.close()); err != nil {
				t.Fatal(err)
			}
		}
		w.same("a", disk)
	}
}

// TestCoherent has two write to one disk in turns, by NBD and by mounts of
// 9pfuse: what one has written the other reads, at once, or where files are
// cached when they are opened anew.
func TestCoherent(t *testing.T) {
	w := newWorld(t)
	disk := w.create("a")
	cached, direct := w.mountAll("fsname=cached"), w.mountAll("cache=none")
	if cached == "" || direct == "" {
		t.Skip("nothing can be mounted here")
	}
	file := func(mount, name string) string { return filepath.Join(mount, "images/a", name) }
	nbd := w.libnbd("a/shared")
	part := w.libnbd("a/parts/1/shared")
	held := w.file(file(direct, "shared"))
	nine := w.open("images/a/shared", ninep.ORDWR)
	rng := rand.New(rand.NewPCG(5, 5))
	// does has somebody do something in the first partition, where all are.
	check := func(who string, p peer, o op, start int64) {
		t.Helper()
		o.what = "read"
		o.off -= start
		if err := p.do(o, disk[o.off+start:][:o.n]); err != nil {
			t.Fatalf("%s, after %+v: %v", who, o, err)
		}
	}
	for i := range 40 * trial(t) {
		n := (1 + rng.Int64N(64)) * sector
		o := op{"write", partStart*sector + rng.Int64N(partSectors*sector-n), n, byte(1 + i%255)}
		o.off &^= sector - 1
		o.apply(disk)
		var err error
		switch i % 5 {
		case 0:
			err = nbd.do(o, nil)
		case 1:
			at := o
			at.off -= partStart * sector
			err = part.do(at, nil)
		case 2:
			err = held.do(o, nil)
		case 3:
			p := w.file(file(cached, "shared"))
			err = errors.Join(p.do(o, nil), p.close())
		case 4:
			_, err = nine.WriteAt(t.Context(), disk[o.off:][:o.n], o.off)
		}
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		check("NBD", nbd, o, 0)
		check("the partition over NBD", part, o, partStart*sector)
		check("a mount that caches nothing", held, o, 0)
		for _, name := range []string{"disk", "shared", "parts/1/data"} {
			start := int64(0)
			if name == "parts/1/data" {
				start = partStart * sector
			}
			p := w.reader(file(cached, name))
			check(name+" of a mount that caches", p, o, start)
			if err := p.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(nbd.do(op{what: "flush"}, nil), nbd.close(), part.close(), held.close(), nine.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	w.kill()
	w.same("a", disk)
	// The mounts go on with what there is now.
	o := op{"write", partStart * sector, sector, 77}
	o.apply(disk)
	p := w.libnbd("a")
	if err := errors.Join(p.do(o, nil), p.close()); err != nil {
		t.Fatal(err)
	}
	again := w.reader(file(cached, "disk"))
	defer again.close()
	check("a mount that caches, after a kill", again, op{"read", 0, diskSize, 0}, 0)
}

// reader opens a file of a mount, to be read.
func (w *world) reader(name string) peer {
	w.t.Helper()
	f, err := os.Open(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return plain{f}
}
