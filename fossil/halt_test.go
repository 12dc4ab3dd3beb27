package fossil

import (
	"context"
	"errors"
	"testing"
	"time"

	"strata/fossil/internal/format"
	"strata/internal/disk"
	"strata/venti"
	"strata/venti/ventitest"
)

// TestRest looks at the partition of a file system that rests: Plan 9's
// programs can open it, until the next change, and again after the next rest.
func TestRest(t *testing.T) {
	m := disk.NewMachine()
	d := m.NewDisk("part", 16<<20)
	if err := Format(t.Context(), d, FormatConfig{}); err != nil {
		t.Fatal(err)
	}
	fs, err := Open(d, Config{Interval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, format.HeaderSize)
	if err := disk.ReadFull(d, raw, format.HeaderOffset); err != nil {
		t.Fatal(err)
	}
	h, err := format.UnpackHeader(raw, d.Size())
	if err != nil {
		t.Fatal(err)
	}
	logged := func() bool {
		t.Helper()
		b := make([]byte, format.SuperSize)
		if _, err := d.ReadAt(b, h.Offset(h.Super)); err != nil {
			t.Fatal(err)
		}
		s, err := format.UnpackSuper(b)
		if err != nil {
			t.Fatal(err)
		}
		return s.Logged
	}
	for _, name := range []string{"a", "b"} {
		dir, err := fs.Walk(t.Context(), "/active")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dir.Create(t.Context(), name, 0o644, adm); err != nil {
			t.Fatal(err)
		}
		if err := fs.Sync(t.Context()); err != nil || !logged() {
			t.Fatalf("after a sync: %v, log %t", err, logged())
		}
		written := fs.Stats().Buffer.Written
		if err := fs.Rest(t.Context()); err != nil || logged() {
			t.Fatalf("at rest: %v, log %t", err, logged())
		}
		if fs.Stats().Buffer.Written <= written {
			t.Error("no block went to its place")
		}
		other, err := Open(d, Config{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Walk(t.Context(), "/active/"+name); err != nil {
			t.Error(err)
		}
		clean(t, other)
		other.Close(t.Context())
	}
	if err := fs.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A stuck is a store whose writes wait until they are given up, or let go.
type stuck struct {
	*ventitest.Memory
	asked chan struct{}
	open  chan struct{}
}

func (s *stuck) WriteBlock(ctx context.Context, t venti.Type, data []byte) (venti.Score, error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	select {
	case <-s.open:
		return s.Memory.WriteBlock(ctx, t, data)
	case <-ctx.Done():
		return venti.Score{}, ctx.Err()
	}
}

// TestHalt halts an archiver at work, which goes on afterwards.
func TestHalt(t *testing.T) {
	d := disk.NewMachine().NewDisk("part", 16<<20)
	if err := Format(t.Context(), d, FormatConfig{}); err != nil {
		t.Fatal(err)
	}
	store := &stuck{ventitest.NewMemory(), make(chan struct{}, 1), make(chan struct{})}
	fs, err := Open(d, Config{Venti: store, Interval: time.Hour, NoArchiver: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Snapshot(t.Context(), SnapConfig{Archive: true}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := fs.Archive(t.Context())
		ended <- err
	}()
	<-store.asked
	if err := fs.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrHalted) {
		t.Errorf("the archiver that was at work: %v, want %v", err, ErrHalted)
	}
	close(store.open)
	fs.Unhalt()
	score, err := fs.Archive(t.Context())
	if err != nil || score != fs.Last() || score == venti.EmptyScore || store.Len() == 0 {
		t.Errorf("afterwards: %v, %v", score, err)
	}

	// One that cannot wait for the archiver leaves it alone.
	fs.archiving <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := fs.Halt(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("halt without time: %v", err)
	}
	<-fs.archiving
	if _, err := fs.Archive(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if err := fs.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
