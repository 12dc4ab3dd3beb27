package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"strata/internal/disk"
	"strata/venti"
	"strata/venti/ventitest"
)

// TestDiskFull has the file systems under a store run out of room, at every
// write for a while and for each kind of file: what needs the log fails,
// whatever is stored can be read, and when there is room again the same store
// goes on and has lost nothing that it took.
func TestDiskFull(t *testing.T) {
	for _, name := range []string{"arenas", "isect", "bloom", ""} {
		t.Run("on "+name, func(t *testing.T) {
			ctx := t.Context()
			m := small.format(t)
			cfg := configOf(m)
			s := mustOpen(t, cfg)
			list := blocks(1, 120, 3000)
			write := func(i int) error {
				_, err := s.WriteBlock(ctx, venti.DataType, list[i])
				return err
			}
			for i := range 40 {
				mustWrite(t, s, venti.DataType, list[i])
			}
			mustSync(t, s)
			for i := 40; i < 60; i++ { // in memory when the disk is full
				mustWrite(t, s, venti.DataType, list[i])
			}
			m.SetHook(func(op disk.Op) error {
				if op.Kind == disk.OpWrite && strings.HasPrefix(op.Disk, name) {
					return syscall.ENOSPC
				}
				return nil
			})
			if err := s.Flush(ctx); !disk.NoSpace(err) {
				t.Errorf("flush on a full disk: %v", err)
			}
			log := name == "arenas" || name == ""
			for range 2 {
				if err := s.Sync(ctx); log != errors.Is(err, venti.ErrFull) || log != disk.NoSpace(err) {
					t.Errorf("sync on a full disk: %v", err)
				}
				if err := write(60); log != errors.Is(err, venti.ErrFull) {
					t.Errorf("write on a full disk: %v", err)
				}
				if err := s.Health(); log != errors.Is(err, venti.ErrFull) {
					t.Errorf("health on a full disk: %v", err)
				}
			}
			s.forget()
			for _, b := range list[:60] {
				wantBlock(t, s, venti.DataType, b)
			}
			// A crash now is like any other.
			after := m.Crash(rand.New(rand.NewPCG(1, 1)))
			s2 := mustOpen(t, configOf(after))
			for _, b := range list[:40] {
				wantBlock(t, s2, venti.DataType, b)
			}
			mustClose(t, s2)
			checkStore(t, after)

			m.SetHook(nil)
			for i := range list {
				if err := write(i); err != nil {
					t.Fatalf("write when there is room again: %v", err)
				}
			}
			mustSync(t, s)
			if err := s.Health(); err != nil {
				t.Errorf("health when there is room again: %v", err)
			}
			if err := s.Flush(ctx); err != nil {
				t.Errorf("flush when there is room again: %v", err)
			}
			mustClose(t, s)
			checkStore(t, m)
			s = mustOpen(t, configOf(m))
			for _, b := range list {
				wantBlock(t, s, venti.DataType, b)
			}
			mustClose(t, s)
		})
	}
}

// TestSyncFindsNoRoom fails a sync for want of room: that is kept, whatever
// room there is later.
func TestSyncFindsNoRoom(t *testing.T) {
	m := small.format(t)
	s := mustOpen(t, configOf(m))
	mustWrite(t, s, venti.DataType, []byte("hello"))
	m.SetHook(func(op disk.Op) error {
		if op.Kind == disk.OpSync {
			return syscall.ENOSPC
		}
		return nil
	})
	for range 2 {
		if err := s.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "no space") {
			t.Errorf("sync: %v", err)
		}
		m.SetHook(nil)
	}
	if _, err := s.WriteBlock(t.Context(), venti.DataType, []byte("more")); err == nil {
		t.Error("write after a failed sync")
	}
	wantBlock(t, s, venti.DataType, []byte("hello"))
	if err := s.Close(); err == nil {
		t.Error("close after a failed sync")
	}
}

// TestFileSystemFull fills a real file system, a tmpfs of 40 MiB, under a
// store of sparse files, and then makes room.
func TestFileSystemFull(t *testing.T) {
	dir := t.TempDir()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mount tmpfs: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	conf, err := Format(t.Context(), dir, FormatConfig{Space: 64 << 20, Compression: CompressNone})
	if err != nil {
		t.Fatal(err)
	}
	// Somebody else's file takes half.
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, bytes.Repeat([]byte("x"), 28<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	s, err := OpenConf(t.Context(), conf, Config{LumpMem: 1 << 20, IndexMem: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var taken, synced int
	var failed error
	for taken < 4000 && failed == nil {
		if _, failed = s.WriteBlock(t.Context(), venti.DataType, ventitest.Block(uint64(taken), 8000)); failed != nil {
			break
		}
		taken++
		if taken%100 == 0 {
			if failed = s.Sync(t.Context()); failed == nil {
				synced = taken
			}
		}
	}
	if !errors.Is(failed, venti.ErrFull) || !disk.NoSpace(failed) {
		t.Fatalf("after %d blocks of 8000 bytes into 12 MiB: %v", taken, failed)
	}
	if synced < 500 {
		t.Errorf("only %d blocks were synced", synced)
	}
	s.forget()
	for i := range taken {
		wantBlock(t, s, venti.DataType, ventitest.Block(uint64(i), 8000))
	}
	if err := s.Sync(t.Context()); err == nil {
		t.Error("a sync on a full disk succeeds")
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		mustWrite(t, s, venti.DataType, ventitest.Block(uint64(taken+i), 8000))
	}
	mustSync(t, s)
	mustClose(t, s)
	s, err = OpenConf(t.Context(), conf, Config{LumpMem: 1 << 20, IndexMem: 1 << 20})
	if err != nil {
		t.Fatal(fmt.Errorf("open again: %w", err))
	}
	for i := range taken + 200 {
		wantBlock(t, s, venti.DataType, ventitest.Block(uint64(i), 8000))
	}
	mustClose(t, s)
}
