package live_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"strata/internal/ninep"
	"strata/vdisk"
	"strata/vdisk/live"
	"strata/venti"
)

// A frameCounter counts the messages that a client sends.
type frameCounter struct {
	net.Conn
	n    *atomic.Int64
	left int    // bytes of the message under way
	head []byte // of the next
}

func (c *frameCounter) Write(p []byte) (int, error) {
	for b := p; len(b) > 0; {
		if c.left > 0 {
			n := min(c.left, len(b))
			c.left, b = c.left-n, b[n:]
			continue
		}
		n := min(4-len(c.head), len(b))
		c.head, b = append(c.head, b[:n]...), b[n:]
		if len(c.head) == 4 {
			c.n.Add(1)
			c.left, c.head = int(binary.LittleEndian.Uint32(c.head))-4, nil
		}
	}
	return c.Conn.Write(p)
}

// wire has the catalogue speak to the file system over a connection, and
// returns how many messages it has sent.
func (m *machine) wire() *atomic.Int64 {
	m.t.Helper()
	ctx := context.Background()
	m.must(m.cat.Close(ctx))
	m.must(m.client.Close())
	here, there := net.Pipe()
	m.wires.Go(func() { m.server.ServeConn(ctx, there) })
	n := new(atomic.Int64)
	var err error
	m.client, err = ninep.NewClient(m.t.Context(), &frameCounter{Conn: here, n: n}, ninep.ClientConfig{Dialect: ninep.Linux})
	m.must(err)
	m.open()
	return n
}

// TestCosts has clones, snapshots and rollbacks cost as many requests and
// blocks for a large disk as for a small one, and for a long history as for
// a short one.
func TestCosts(t *testing.T) {
	m := newMachine(t, 64<<20)
	requests := m.wire()
	ctx := t.Context()
	cost := func(f func() error) (n, blocks int64) {
		t.Helper()
		r, b := requests.Load(), int64(m.store.Len())
		m.must(f())
		return requests.Load() - r, int64(m.store.Len()) - b
	}
	type costs struct{ create, clone, rollback [2]int64 }
	snapshot := func(name string) int64 {
		t.Helper()
		d := m.writer(name)
		_, err := d.WriteAt(ctx, random(77, 4096), 0)
		m.must(err)
		m.must(d.Close(ctx))
		_, blocks := cost(func() error {
			_, err := m.cat.Snapshot(ctx, name, "two")
			return err
		})
		return blocks
	}
	measure := func(name string, size int64) (c costs) {
		t.Helper()
		c.create[0], c.create[1] = cost(func() error { return m.cat.Create(ctx, name, size) })
		d := m.writer(name)
		for i := range int64(50) {
			_, err := d.WriteAt(ctx, random(uint64(i), 4096), size/51*i)
			m.must(err)
		}
		m.must(d.Close(ctx))
		_, err := m.cat.Snapshot(ctx, name, "one")
		m.must(err)
		c.clone[0], c.clone[1] = cost(func() error { return m.cat.Clone(ctx, name+"@one", name+"-clone") })
		c.rollback[0], c.rollback[1] = cost(func() error { return m.cat.Rollback(ctx, name, "one", true) })
		return c
	}
	m.must(m.cat.Create(ctx, "first", 1<<20)) // opens the file ctl
	small := measure("small", 100<<20)
	large := measure("large", 100<<30)
	if small != large {
		t.Errorf("requests and blocks: %+v for 100 MiB, %+v for 100 GiB", small, large)
	}
	// The tree of the large one is two blocks deeper.
	if a, b := snapshot("small"), snapshot("large"); b > a+2 {
		t.Errorf("a snapshot is %d blocks for 100 GiB, %d for 100 MiB", b, a)
	} else {
		t.Logf("a snapshot of one block: %d, %d", a, b)
	}
	for range 40 {
		m.clock.add(60e9)
		_, err := m.cat.Snapshot(ctx, "small", "")
		m.must(err)
	}
	old, _ := cost(func() error { return m.cat.Clone(ctx, "small@one", "another") })
	if old != small.clone[0] {
		t.Errorf("a clone is %d requests after 40 snapshots, and was %d", old, small.clone[0])
	}
	t.Logf("requests and blocks: %+v", small)
}

// A readCounter counts the blocks that are read from a store.
type readCounter struct {
	venti.Store
	n atomic.Int64
}

func (c *readCounter) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	c.n.Add(1)
	return c.Store.ReadBlock(ctx, s, t, buf)
}

// TestManySnapshots has it cost as many blocks to read an image that has many
// snapshots, and the last of them, as it costs one that has one snapshot.
func TestManySnapshots(t *testing.T) {
	snapshots := 150
	if os.Getenv("STRATA_TRIAL") != "" {
		snapshots = 1000
	}
	m := newMachine(t, 128<<20)
	ctx := t.Context()
	counter := &readCounter{Store: m.store}
	m.venti = counter
	m.restart()
	const size = 16 << 20
	m.must(m.cat.Create(ctx, "a", size))
	write := func(p []byte, off int64) {
		t.Helper()
		d := m.writer("a")
		_, err := d.WriteAt(ctx, p, off)
		m.must(err)
		m.must(d.Close(ctx))
	}
	// cost returns how many blocks are read for all of the image, by one who has
	// none in memory, and for all of a snapshot.
	cost := func(snap string) (disk, old int64) {
		t.Helper()
		m.restart()
		before, local := counter.n.Load(), m.fs.Stats().Buffer.DiskReads
		m.contents("a")
		disk = counter.n.Load() - before + m.fs.Stats().Buffer.DiskReads - local
		s, err := m.cat.Find(ctx, "a", snap)
		m.must(err)
		before = counter.n.Load()
		im, err := vdisk.Open(ctx, counter, s.Score)
		m.must(err)
		_, err = im.ReadAt(make([]byte, size), 0)
		m.must(err)
		return disk, counter.n.Load() - before
	}
	write(random(0, size), 0)
	_, err := m.cat.Snapshot(ctx, "a", "first")
	m.must(err)
	disk, old := cost("first")
	for i := range snapshots - 1 {
		m.clock.add(time.Hour)
		write(random(uint64(i), 8192), int64(i)*37%(size/8192)*8192)
		_, err := m.cat.Snapshot(ctx, "a", "last")
		m.must(err)
	}
	lastDisk, last := cost("last")
	t.Logf("blocks read of the disk: %d, and with %d snapshots %d; of a snapshot: %d, and of the last %d", disk, snapshots, lastDisk, old, last)
	if lastDisk*50 > disk*51 || last*50 > old*51 {
		t.Error("more than 2 % more")
	}
}

// A model is an image as it should be.
type model struct {
	data  []byte
	snaps map[string][]byte
}

// TestModel does the same operations, at random, to images and to plain bytes.
func TestModel(t *testing.T) {
	for _, wired := range []bool{false, true} {
		t.Run(map[bool]string{false: "memory", true: "wire"}[wired], func(t *testing.T) { testModel(t, wired) })
	}
}

func testModel(t *testing.T, wired bool) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	m := newMachine(t, 128<<20)
	if wired {
		m.wire()
	}
	ctx := t.Context()
	images := map[string]*model{}
	disks := map[string]*live.Disk{}
	pick := func() string {
		if len(images) == 0 {
			return ""
		}
		return slices.Sorted(maps.Keys(images))[rng.IntN(len(images))]
	}
	disk := func(name string) *live.Disk {
		if disks[name] == nil {
			disks[name] = m.writer(name)
		}
		return disks[name]
	}
	leave := func(name string) {
		if d := disks[name]; d != nil {
			m.must(d.Close(ctx))
			delete(disks, name)
		}
	}
	made := 0
	steps := 200
	if testing.Short() {
		steps = 50
	}
	for step := range steps {
		name := pick()
		im := images[name]
		op := rng.IntN(100)
		switch {
		case im == nil || op < 3 && len(images) < 6:
			made++
			name := fmt.Sprintf("dir%d/image%d", made%2, made)
			size := 1 + rng.Int64N(3<<20)
			m.must(m.cat.Create(ctx, name, size))
			images[name] = &model{data: make([]byte, size), snaps: map[string][]byte{}}
		case op < 40:
			off := rng.IntN(len(im.data))
			if rng.IntN(8) == 0 {
				off = 0 // where tables are
			}
			p := random(rng.Uint64(), min(1+rng.IntN(1<<(4+rng.IntN(15))), len(im.data)-off))
			if rng.IntN(4) == 0 {
				clear(p)
			}
			if off == 0 && len(p) >= 512 && rng.IntN(2) == 0 {
				first := 8 + rng.Uint32N(64)
				copy(p, mbr([2]uint32{first, 1 + rng.Uint32N(3000)}))
			}
			_, err := disk(name).WriteAt(ctx, p, int64(off))
			m.must(err)
			copy(im.data[off:], p)
		case op < 50:
			off := rng.IntN(len(im.data))
			n := rng.IntN(len(im.data) - off + 1)
			m.must(disk(name).Trim(ctx, int64(off), int64(n)))
			clear(im.data[off : off+n])
		case op < 55:
			m.must(disk(name).Flush(ctx))
		case op < 65:
			leave(name) // and cut it anew
		case op < 70:
			tag := fmt.Sprintf("tag%d", rng.IntN(4))
			s, err := m.cat.Snapshot(ctx, name, tag)
			m.must(err)
			im.snaps[tag] = bytes.Clone(im.data)
			if got, _ := m.archived(s.Score); !bytes.Equal(got, im.data) {
				t.Fatalf("step %d: the snapshot of %s is another disk", step, name)
			}
		case op < 74 && len(im.snaps) > 0:
			leave(name)
			tag := slices.Sorted(maps.Keys(im.snaps))[rng.IntN(len(im.snaps))]
			m.must(m.cat.Rollback(ctx, name, tag, rng.IntN(2) == 0))
			im.data = bytes.Clone(im.snaps[tag])
		case op < 78 && len(images) < 6:
			made++
			to := fmt.Sprintf("clone%d", made)
			m.must(m.cat.Clone(ctx, name, to))
			images[to] = &model{data: bytes.Clone(im.data), snaps: map[string][]byte{}}
		case op < 81:
			to := fmt.Sprintf("moved/%d", step)
			m.must(m.cat.Rename(ctx, name, to))
			images[to], disks[to] = im, disks[name]
			delete(images, name)
			delete(disks, name)
			if disks[to] == nil {
				delete(disks, to)
			}
		case op < 84:
			leave(name)
			size := 1 + rng.Int64N(3<<20)
			m.must(m.cat.Resize(ctx, name, size, true))
			im.data = append(bytes.Clone(im.data[:min(size, int64(len(im.data)))]), make([]byte, max(0, size-int64(len(im.data))))...)
		case op < 86:
			leave(name)
			m.must(m.cat.Remove(ctx, name))
			delete(images, name)
			continue
		case op < 88:
			for name := range disks {
				leave(name)
			}
			m.restart()
			if wired {
				m.wire()
			}
		default:
			off := rng.IntN(len(im.data))
			p := make([]byte, 1+rng.IntN(1<<20))
			r, err := m.cat.Disk(ctx, name, live.OpenOptions{})
			m.must(err)
			n, err := r.ReadAt(ctx, p, int64(off))
			if err == io.EOF {
				err = nil
			}
			m.must(err)
			if !bytes.Equal(p[:n], im.data[off:min(off+len(p), len(im.data))]) {
				t.Fatalf("step %d: %s is another disk at %d", step, name, off)
			}
			// Holes are zeros, and data is not missed.
			start, _, err := r.NextData(ctx, int64(off))
			if err == io.EOF {
				start, err = r.Size(), nil
			}
			m.must(err)
			if start < int64(off) || len(bytes.Trim(im.data[off:start], "\x00")) > 0 {
				t.Fatalf("step %d: %s has data between %d and %d", step, name, off, start)
			}
			m.must(r.Close(ctx))
		}
	}
	for name := range disks {
		leave(name)
	}
	names, err := m.cat.List(ctx)
	m.must(err)
	if len(names) != len(images) {
		t.Errorf("images %s, want %d", strings.Join(names, " "), len(images))
	}
	for name, im := range images {
		if !bytes.Equal(m.contents(name), im.data) {
			t.Errorf("%s is another disk", name)
		}
		s, err := m.cat.Snapshot(ctx, name, "")
		m.must(err)
		m.sameImage(s.Score, m.imported(im.data))
	}
}
