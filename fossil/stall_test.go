package fossil

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/internal/disk"
	"strata/venti"
	"strata/venti/ventitest"
)

// TestReadDuringSync reads, writes, makes files and takes a snapshot while a sync
// waits for the disk. In the original all that waits, too.
func TestReadDuringSync(t *testing.T) {
	m := disk.NewMachine()
	fs := mustOpen(t, newFS(t, m, 16<<20, 8192), Config{Interval: time.Hour})
	put(t, fs, "f", "text")
	writes, release := make(chan struct{}), make(chan struct{})
	first := true
	m.SetHook(func(op disk.Op) error {
		if op.Kind == disk.OpWrite && first {
			first = false
			close(writes)
			<-release
		}
		return nil
	})
	synced := make(chan error, 1)
	go func() { synced <- fs.Sync(context.Background()) }()
	<-writes
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f, err := fs.Walk(ctx, "/active/f")
	if err == nil {
		_, err = f.ReadAt(ctx, make([]byte, 4), 0)
	}
	if err == nil {
		_, err = f.WriteAt(ctx, []byte("more"), 4, "ken")
	}
	if err == nil {
		_, err = walk(t, fs, "/active").Create(ctx, "g", 0o644, "ken")
	}
	if err == nil {
		_, err = fs.Snapshot(ctx, SnapConfig{})
	}
	if err != nil {
		t.Error(err)
	}
	select {
	case err := <-synced:
		t.Errorf("the sync has ended: %v", err)
	default:
	}
	close(release)
	if err := <-synced; err != nil {
		t.Error(err)
	}
	m.SetHook(nil)
	clean(t, fs)
	mustClose(t, fs)
}

// TestArchiveUnreadable has a block's label be wrong. The archiver says so; the
// original archives zeros in its place.
func TestArchiveUnreadable(t *testing.T) {
	st := ventitest.NewMemory()
	d := newFS(t, disk.NewMachine(), 16<<20, 1024)
	cfg := Config{Venti: st, Interval: time.Hour, NoArchiver: true}
	fs := mustOpen(t, d, cfg)
	put(t, fs, "f", "some text")
	var addr uint32
	f := walk(t, fs, "/active/f")
	err := fs.b.View(t.Context(), func(tx *buffer.Tx) error {
		p, err := f.data.Pointer(tx, 0)
		addr, _ = p.Addr()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Snapshot(t.Context(), SnapConfig{Archive: true}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, fs)

	head := make([]byte, format.HeaderSize)
	if _, err := d.ReadAt(head, format.HeaderOffset); err != nil {
		t.Fatal(err)
	}
	h, err := format.UnpackHeader(head, d.Size())
	if err != nil {
		t.Fatal(err)
	}
	lpb := h.LabelsPerBlock()
	at := h.Offset(h.Label+addr/lpb) + int64(addr%lpb)*format.LabelSize
	good, bad := make([]byte, format.LabelSize), make([]byte, format.LabelSize)
	if _, err := d.ReadAt(good, at); err != nil {
		t.Fatal(err)
	}
	copy(bad, good)
	bad[len(bad)-1] ^= 1 // its tag
	set := func(label []byte) {
		t.Helper()
		if _, err := d.WriteAt(label, at); err != nil {
			t.Fatal(err)
		}
	}
	set(bad)
	fs = mustOpen(t, d, cfg)
	if _, err := fs.Archive(t.Context()); !errors.Is(err, ErrMismatch) {
		t.Errorf("archive: %v, want %v", err, ErrMismatch)
	}
	if fs.Last() != venti.EmptyScore {
		t.Error("there is an archive")
	}
	mustClose(t, fs)
	set(good)
	fs = mustOpen(t, d, cfg)
	if _, err := fs.Archive(t.Context()); err != nil {
		t.Error(err)
	}
	list, err := fs.Snapshots(t.Context(), "/archive")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if got, err := get(fs, list[0].Path+"/f"); err != nil || !bytes.Equal([]byte(got), []byte("some text")) {
		t.Errorf("in the archive %q, %v", got, err)
	}
	clean(t, fs)
	mustClose(t, fs)
}
