package live_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"strata/vdisk"
	"strata/venti"
	"strata/venti/hashtree"
)

// TestChain moves what is kept of an image to another store by one score.
func TestChain(t *testing.T) {
	m := newMachine(t, 64<<20)
	ctx := t.Context()
	m.must(m.cat.Create(ctx, "web/01", 4<<20))
	run := func(m *machine, line string) string {
		t.Helper()
		text, err := m.cat.Run(ctx, line, "", true)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return text
	}
	if got := run(m, "roots"); got != "" {
		t.Errorf("roots without snapshots: %q", got)
	}
	states := map[string][]byte{}
	night := func(i int, tag string) {
		t.Helper()
		d := m.writer("web/01")
		_, err := d.WriteAt(ctx, random(uint64(i), 4096), int64(i)*4096%(32<<10))
		m.must(err)
		m.must(d.Flush(ctx))
		if tag != "" {
			s, err := m.cat.Snapshot(ctx, "web/01", tag)
			m.must(err)
			states[s.Name] = m.contents("web/01")
		}
		m.must(d.Close(ctx))
		m.nightly()
		list, err := m.cat.Log(ctx, "web/01")
		m.must(err)
		states[list[len(list)-1].Name] = m.contents("web/01")
		m.clock.add(24 * 3600e9)
	}
	for i := range 30 {
		tag := ""
		if i%10 == 3 {
			tag = "tag" + fmt.Sprint(i)
		}
		night(i, tag)
	}
	before := run(m, "roots")
	lost := venti.ScoreOf(random(4, 4096)) // of the fifth night to the twelfth
	run(m, "keep -y web/01 3 daily 2 weekly")
	line := run(m, "roots web/01")
	if line == before || run(m, "roots") != line {
		t.Errorf("roots: %q, %q before", line, before)
	}
	score, name, _ := strings.Cut(strings.TrimSpace(line), " ")
	if name != "web/01" {
		t.Errorf("roots: %q", line)
	}
	log := run(m, "log web/01")
	if got := run(m, "log "+score); got != log {
		t.Errorf("log of the chain:\n%swant\n%s", got, log)
	}
	_, head, err := venti.ParseTypedScore(score)
	m.must(err)

	// The chain's head is the last snapshot's disk, and each leads to that before.
	im, err := vdisk.Open(ctx, m.store, head)
	m.must(err)
	list, err := m.cat.Log(ctx, "web/01")
	m.must(err)
	last, err := vdisk.Open(ctx, m.store, list[len(list)-1].Score)
	m.must(err)
	if im.Root().Score != last.Root().Score || im.Root().Prev.IsZero() || !last.Root().Prev.IsZero() {
		t.Errorf("roots %+v and %+v", im.Root(), last.Root())
	}

	other := newMachine(t, 64<<20)
	other.clock.add(40 * 24 * 3600e9)
	_, err = hashtree.Copy(ctx, m.store, other.store, head, venti.RootType, hashtree.CopyConfig{Fast: true})
	m.must(err)
	run(other, "import db "+score)
	if got := run(other, "log db"); got != strings.ReplaceAll(log, "web/01", "db") {
		t.Errorf("log of the copy:\n%swant\n%s", got, log)
	}
	for _, s := range list {
		got, _ := other.archived(s.Score)
		if !bytes.Equal(got, states[s.Name]) {
			t.Errorf("%s is another disk", s.Name)
		}
	}
	if !bytes.Equal(other.contents("db"), states[list[len(list)-1].Name]) {
		t.Error("the image is another disk")
	}
	buf := make([]byte, 4096)
	if _, err := m.store.ReadBlock(ctx, lost, venti.DataType, buf); err != nil {
		t.Fatal(err)
	}
	if _, err := other.store.ReadBlock(ctx, lost, venti.DataType, buf); err == nil {
		t.Error("what was let go is in the copy")
	}
	// It goes on there.
	run(other, "rollback db tag13")
	if s, err := other.cat.Find(ctx, "db", "tag13"); err != nil || !bytes.Equal(other.contents("db"), states[s.Name]) {
		t.Errorf("rolled back to another disk: %v", err)
	}
	other.nightly()
	if got := run(other, "log db"); strings.Count(got, "\n") != len(list)+2 {
		t.Errorf("log:\n%s", got)
	}
	if again := run(m, "roots web/01"); again != line {
		t.Errorf("roots are %q and then %q", line, again)
	}
}

// TestNoChain takes roots of others for disks without a history.
func TestNoChain(t *testing.T) {
	m := newMachine(t, 32<<20)
	ctx := t.Context()
	res, err := vdisk.Import(ctx, m.store, memory(make([]byte, 1<<20)), vdisk.ImportOptions{})
	m.must(err)
	for i, name := range []string{"", "monday", "snap", "snap ../x 2026-11-27T16:20:11Z asked - - live", "snap 2026/1127 2026-11-27T16:20:11Z asked ../x - live",
		"snap 2026/1127 yesterday asked - - live", "snap 2026/1127 2026-11-27T16:20:11Z made - - live", "made 2026-11-26T15:04:05Z - x"} {
		named, err := vdisk.Import(ctx, m.store, memory(make([]byte, 1<<20)), vdisk.ImportOptions{Name: name, Prev: res.Score})
		m.must(err)
		to := fmt.Sprint("a", i)
		m.must(m.cat.Graft(ctx, to, named.Score))
		if list, err := m.cat.Log(ctx, to); err != nil || len(list) > 0 {
			t.Errorf("%q: history %+v, %v", name, list, err)
		}
	}
}
