package live_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"strata/fossil"
	"strata/vdisk"
	"strata/vdisk/live"
	"strata/venti"
)

// A countingStore is a store that tells which blocks are read.
type countingStore struct {
	venti.Store

	mu    sync.Mutex // guards the fields below
	reads map[venti.Score]int
	held  map[venti.Score]bool // blocks that are not read before
	hold  chan struct{}        // this is closed
	came  *sync.Cond           // when there was a read
}

func count(st venti.Store) *countingStore {
	c := &countingStore{Store: st, reads: make(map[venti.Score]int)}
	c.came = sync.NewCond(&c.mu)
	return c
}

func (c *countingStore) ReadBlock(ctx context.Context, s venti.Score, t venti.Type, buf []byte) (int, error) {
	c.mu.Lock()
	c.reads[s]++
	held, hold := c.held[s], c.hold
	c.came.Broadcast()
	c.mu.Unlock()
	if held {
		select {
		case <-hold:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return c.Store.ReadBlock(ctx, s, t, buf)
}

// number returns how many reads there were of blocks in a list.
func (c *countingStore) number(list map[venti.Score]bool) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s, m := range c.reads {
		if list[s] {
			n += m
		}
	}
	return n
}

// waitAny waits until a block of a list is being read.
func (c *countingStore) waitAny(list map[venti.Score]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for s := range list {
			if c.reads[s] > 0 {
				return
			}
		}
		c.came.Wait()
	}
}

// wait waits until each block of a list has been read.
func (c *countingStore) wait(list map[venti.Score]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range list {
		for c.reads[s] == 0 {
			c.came.Wait()
		}
	}
}

func (c *countingStore) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.reads)
}

// What the guest of a test reads when it starts: as much as makes a start.
var bootReads = []vdisk.Range{{Off: 0, Len: 512}, {Off: 40 << 10, Len: 100 << 10}, {Off: 1<<20 + 100, Len: 200 << 10}, {Off: 3 << 20, Len: 8192}}

// bootRanges are the blocks that these touch.
const bootRanges = "0 4096\n40960 102400\n1048576 208896\n3145728 8192\n"

func (m *machine) boot(d *live.Disk) {
	m.t.Helper()
	for _, r := range bootReads {
		_, err := d.ReadAt(m.t.Context(), make([]byte, r.Len), r.Off)
		m.must(err)
	}
}

// ranges returns what vdisk boot prints of an image behind its first line.
func (m *machine) ranges(name string) string {
	m.t.Helper()
	text, err := m.cat.Run(m.t.Context(), "boot "+name, "", true)
	m.must(err)
	_, rest, _ := strings.Cut(text, "\n")
	return rest
}

// bootDisk makes an image and has it started once.
func bootDisk(t *testing.T) (m *machine, st *countingStore, leaves map[venti.Score]bool) {
	m = newMachine(t, 64<<20)
	m.stop()
	st = count(m.store)
	m.venti = st
	m.start()
	ctx := t.Context()
	score := m.imported(random(1, 4<<20))
	m.must(m.cat.Graft(ctx, "web", score))
	_, err := m.cat.Snapshot(ctx, "web", "first")
	m.must(err)
	if got := m.ranges("web"); got != "" {
		t.Errorf("before the first start there is %q", got)
	}
	d := m.writer("web")
	m.boot(d)
	m.must(d.Close(ctx))
	leaves = make(map[venti.Score]bool)
	m.must(m.cat.BootScores(ctx, "web", func(s venti.Score) { leaves[s] = true }))
	if got := m.ranges("web"); got != bootRanges || len(leaves) != 1+25+51+2 {
		t.Fatalf("the start has read %q, %d blocks; want %q", got, len(leaves), bootRanges)
	}
	return m, st, leaves
}

// restartCold closes all and opens it anew, and forgets what was read.
func (m *machine) restartCold(st *countingStore) {
	m.t.Helper()
	m.restart()
	st.forget()
}

func TestBootSet(t *testing.T) {
	m, st, leaves := bootDisk(t)
	ctx := t.Context()
	before, err := m.cat.Snapshot(ctx, "web", "")
	m.must(err)
	m.must(m.cat.Clone(ctx, "web@first", "clone"))
	m.must(m.cat.Clone(ctx, "clone", "clone2"))
	for _, name := range []string{"clone", "clone2"} {
		if got := m.ranges(name); got != bootRanges {
			t.Errorf("%s has the boot set %q", name, got)
		}
	}
	for _, start := range []func() (*live.Disk, error){
		func() (*live.Disk, error) { return m.writer("web"), nil },
		func() (*live.Disk, error) { return m.writer("clone"), nil },
		func() (*live.Disk, error) { return m.writer("clone2"), nil },
		func() (*live.Disk, error) { return m.cat.ThrowAway(ctx, "web@first") },
	} {
		m.restartCold(st)
		d, err := start()
		m.must(err)
		st.wait(leaves)
		n := st.number(leaves)
		if n != len(leaves) {
			t.Errorf("%d reads of %d blocks", n, len(leaves))
		}
		m.boot(d)
		if got := st.number(leaves); got != n {
			t.Errorf("the start itself has read %d blocks from Venti", got-n)
		}
		m.must(d.Close(ctx))
	}
	// What is known of starts is no part of the disk.
	m.restart()
	for _, name := range []string{"web", "clone", "clone2"} {
		s, err := m.cat.Snapshot(ctx, name, "")
		m.must(err)
		if s.Score != before.Score {
			t.Errorf("the score of %s has changed", name)
		}
	}
	// Who reads too little has not started a guest, and who reads something else
	// has another boot set.
	d := m.writer("web")
	_, err = d.ReadAt(ctx, make([]byte, 4096), 2<<20)
	m.must(err)
	m.must(d.Close(ctx))
	if got := m.ranges("web"); got != bootRanges {
		t.Errorf("after one read the boot set is %q", got)
	}
	d, err = m.cat.ThrowAway(ctx, "web")
	m.must(err)
	_, err = d.ReadAt(ctx, make([]byte, 1<<20), 2<<20)
	m.must(err)
	m.must(d.Close(ctx))
	if got := m.ranges("web"); got != "2097152 1048576\n" {
		t.Errorf("after another start the boot set is %q", got)
	}
	if got := m.ranges("clone"); got != bootRanges {
		t.Errorf("that of the clone is %q", got)
	}
}

// TestBootSetStepByStep has little room in caches: no more is read ahead than
// that, until the guest has read as much.
func TestBootSetStepByStep(t *testing.T) {
	m, st, _ := bootDisk(t)
	ctx := t.Context()
	m.cfg.Ahead = 100 << 10
	m.restartCold(st)
	d := m.writer("web")
	// The second range is begun when there is room, and fills it.
	second, third, last := blocksOf(0, 140<<10), blocksOf(1<<20, 204<<10), blocksOf(3<<20, 8192)
	for k := range blocksOf(4096, 36<<10) {
		delete(second, k)
	}
	st.wait(second)
	if n := st.number(third); n != 0 {
		t.Errorf("%d blocks of the third range were read, though nothing was read of the disk", n)
	}
	_, err := d.ReadAt(ctx, make([]byte, 4096), 2<<20)
	m.must(err)
	st.wait(third)
	if n := st.number(last); n != 0 {
		t.Errorf("%d of the last blocks were read, though there is no room for them", n)
	}
	_, err = d.ReadAt(ctx, make([]byte, 256<<10), 2<<20)
	m.must(err)
	st.wait(last)
	m.must(d.Close(ctx))
}

// blocksOf returns the scores of n bytes at off of the disk that bootDisk makes.
func blocksOf(off, n int) map[venti.Score]bool {
	b := random(1, 4<<20)[off : off+n]
	list := make(map[venti.Score]bool)
	for ; len(b) > 0; b = b[4096:] {
		list[venti.ScoreOf(venti.Truncate(venti.DataType, b[:4096]))] = true
	}
	return list
}

// TestBootSetInTime is of a guest that stays: what is read in the time of a
// start is noted, and nothing later.
func TestBootSetInTime(t *testing.T) {
	m, _, _ := bootDisk(t)
	ctx := t.Context()
	m.restart()
	m.must(m.cat.Close(ctx))
	m.cfg.StartTime = time.Nanosecond
	m.open()
	d := m.writer("web")
	<-m.cat.StartDone("web")
	_, err := d.ReadAt(ctx, make([]byte, 1<<20), 2<<20)
	m.must(err)
	m.must(d.Close(ctx))
	if got := m.ranges("web"); got != bootRanges {
		t.Errorf("the boot set is %q", got)
	}
}

func TestBootSetOff(t *testing.T) {
	m, st, leaves := bootDisk(t)
	ctx := t.Context()
	run := func(line, want string) {
		t.Helper()
		if got, err := m.cat.Run(ctx, line, "", true); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", line, got, err, want)
		}
	}
	run("boot web off", "")
	run("boot web", "off\n")
	run("boot -b web", "")
	m.must(m.cat.Clone(ctx, "web@first", "clone"))
	run("boot clone", "off\n")
	m.restartCold(st)
	for _, name := range []string{"web", "clone"} {
		d := m.writer(name)
		m.must(d.Close(ctx))
		if n := st.number(leaves); n != 0 {
			t.Errorf("%d blocks were read when %s was opened", n, name)
		}
		d = m.writer(name)
		m.boot(d)
		m.must(d.Close(ctx))
		run("boot "+name, "off\n")
		st.forget()
	}
	run("boot web on", "")
	run("boot web on", "")
	run("boot web", "on, no start was watched yet\n")
	d := m.writer("web")
	m.boot(d)
	// Switched off meanwhile it stays off.
	run("boot web off", "")
	m.must(d.Close(ctx))
	run("boot web", "off\n")
	if _, err := m.cat.Run(ctx, "boot web maybe", "", true); err == nil {
		t.Error("neither on nor off, and no error")
	}
	if _, err := m.cat.Run(ctx, "boot none", "", true); err == nil {
		t.Error("no image, and no error")
	}
}

// TestBootSetDamaged has nonsense in the place of a boot set.
func TestBootSetDamaged(t *testing.T) {
	m, _, _ := bootDisk(t)
	ctx := t.Context()
	for _, text := range []string{"", "on\n", "boot 2026-11-27T05:00:00Z 1\n0 1\n", "boot 2026-11-27T05:00:00Z 1\n1152921504606846976 4096\n", strings.Repeat("x", 1<<20)} {
		f, err := m.fs.Walk(ctx, "/active/vdisk/web/.boot")
		m.must(err)
		m.must(f.SetAttr(ctx, fossil.Change{Size: new(int64)}, "adm"))
		_, err = f.WriteAt(ctx, []byte(text), 0, "adm")
		m.must(err)
		m.restart()
		d := m.writer("web")
		m.boot(d)
		m.must(d.Close(ctx))
		if got := m.ranges("web"); got != bootRanges {
			t.Errorf("after %.20q the boot set is %q", text, got)
		}
	}
	if got, want := m.contents("web"), random(1, 4<<20); !bytes.Equal(got, want) {
		t.Error("the disk is another")
	}
	// One that is larger than the disk, which has become smaller.
	m.must(m.cat.Resize(ctx, "web", 1<<20, true))
	d := m.writer("web")
	m.must(d.Close(ctx))
}

// TestBootSetGivenUp has Venti answer nothing while a set is read ahead: who
// closes the disk does not wait for it.
func TestBootSetGivenUp(t *testing.T) {
	m, st, leaves := bootDisk(t)
	ctx := t.Context()
	m.cfg.Ahead = 100 << 10 // not all of it at once
	m.restartCold(st)
	st.mu.Lock()
	st.held, st.hold = leaves, make(chan struct{})
	st.mu.Unlock()
	d := m.writer("web")
	st.waitAny(leaves)
	m.must(d.Close(ctx))
	close(st.hold)
	if n := st.number(leaves); n == len(leaves) {
		t.Error("all was read, though nobody waits for it")
	}
	names, err := m.cat.List(ctx)
	m.must(err)
	if !slices.Equal(names, []string{"web"}) || m.ranges("web") != bootRanges {
		t.Errorf("images %q, boot set %q", names, m.ranges("web"))
	}
}
