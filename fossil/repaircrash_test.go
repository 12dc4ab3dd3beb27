package fossil

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"strata/fossil/internal/format"
	"strata/internal/disk"
	"strata/vac/meta"
)

// damaged returns a copy of a scene with damage that takes several rounds to
// repair, and which files it may cost.
func (s *scene) damaged(t testing.TB) (c *scene, lost []string) {
	c = s.copy(t)
	c.setName(c.spot("/active/both/file4", false), func(*meta.DirEntry) *meta.DirEntry { return nil })
	c.setEntry(c.spot("/active/both/file3", false), func(e *format.Entry) { e.Gen++ })
	c.setLabel(c.root("/active/same/dir", true), func(l *format.Label) { l.Tag++ })
	c.write([]byte{0x77}, c.labelAt(c.root("/active/new/file4", false)))
	c.change(c.spot("/active/new/file0", false).names, func(b []byte) { b[0]++ })
	return c, []string{"/active/both/file4", "/active/both/file3", "/active/both/lost.", "/active/same/dir", "/active/same/lost.", c.snap + "/same/dir"}
}

// again repairs what is left of a scene after an accident.
func (s *scene) again(m *disk.Machine, lost []string) {
	s.t.Helper()
	s.m, s.d = m, m.Disk("part")
	s.repaired()
	differ(s.t, s.files, s.list(), lost)
}

// TestRepairCrash cuts the power while a file system is repaired, and repairs
// it again.
func TestRepairCrash(t *testing.T) {
	s := newScene(t, 1024)
	c, lost := s.damaged(t)
	var points []*disk.Snapshot
	c.m.Record(func(_ disk.Op, at *disk.Snapshot) { points = append(points, at) })
	c.repaired()
	c.m.Record(nil)
	differ(t, c.files, c.list(), lost)
	rng := rand.New(rand.NewPCG(1, 1))
	list := rng.Perm(len(points))
	list = list[:min(len(list), trials(25))]
	t.Logf("%d writes and syncs; power cuts at %d of them", len(points), len(list))
	for _, i := range list {
		c.again(points[i].Crash(rng), lost)
		if t.Failed() {
			t.Fatalf("power cut after operation %d", i)
		}
	}
}

// TestRepairFault has operations of the disk fail once while a file system is
// repaired: what fails says so, and the next repair does the rest.
func TestRepairFault(t *testing.T) {
	s := newScene(t, 1024)
	eachDiskFault(t, func(t *testing.T, kind disk.OpKind, n int64, arm func(*disk.Machine)) {
		c, lost := s.damaged(t)
		arm(c.m)
		fs, err := Open(c.d, Config{NoAtime: true, Memory: 100 << 10, Interval: time.Hour})
		if err == nil {
			// What cannot be read is a finding, and its repair clears what leads
			// there: only look.
			cfg := CheckConfig{Snapshots: true}
			if kind != disk.OpRead {
				cfg.Fix = AllRepairs
			}
			_, err = fs.Check(context.Background(), cfg)
			if err != nil && !errors.Is(err, errFault) {
				t.Errorf("%v %d: %v", kind, n, err)
			}
			if cerr := fs.Close(context.Background()); err != nil && kind != disk.OpRead && cerr == nil {
				t.Errorf("%v %d: close succeeds after %v", kind, n, err)
			}
		}
		c.m.SetHook(nil)
		c.again(c.m.Snapshot().Restart(), lost)
	})
}
