package fossil

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"strata/internal/disk"
	"strata/vac/meta"
)

// rootNames returns what is in the root directory besides the usual.
func rootNames(t *testing.T, fs *FS) (names []string) {
	t.Helper()
	for info, err := range fs.Root().List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if info.Name != "active" && info.Name != "archive" && info.Name != "snapshot" {
			names = append(names, info.Name)
		}
	}
	return names
}

func content(f *File) (string, error) {
	b := make([]byte, 1000)
	n, err := f.ReadAt(context.Background(), b, 0)
	return string(b[:n]), err
}

// TestHold takes the names of files that are held, in each way there is.
func TestHold(t *testing.T) {
	ctx := t.Context()
	d := newFS(t, disk.NewMachine(), 4<<20, 1024)
	fs := mustOpen(t, d, Config{Interval: time.Hour})
	active := walk(t, fs, "/active")
	dir, err := active.Create(ctx, "dir", meta.ModeDir|0o700, "glenda")
	if err != nil {
		t.Fatal(err)
	}
	var files []*File
	for _, name := range []string{"removed", "replaced", "both", "kept"} {
		f, err := dir.Create(ctx, name, 0o644, "glenda")
		if err == nil {
			_, err = f.WriteAt(ctx, []byte(strings.Repeat(name, 400)), 0, "glenda")
		}
		if err == nil {
			err = f.Hold(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	both := files[2]
	if err := both.Hold(ctx); err != nil {
		t.Fatal(err)
	}
	put(t, fs, "other", "other")
	for _, err := range []error{
		files[0].Remove(ctx, "glenda"), both.Remove(ctx, "glenda"), files[3].Remove(ctx, "glenda"),
		walk(t, fs, "/active/other").Rename(ctx, dir, "replaced", true, "glenda"),
		walk(t, fs, "/active/dir/replaced").Remove(ctx, "glenda"), dir.Remove(ctx, "glenda"), fs.Sync(ctx),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if names := rootNames(t, fs); len(names) != 1 {
		t.Fatalf("the root directory has %q besides", names)
	}
	clean(t, fs)
	for i, name := range []string{"removed", "replaced", "both"} {
		f := files[i]
		if _, err := f.WriteAt(ctx, []byte("+"), 3, "glenda"); err != nil {
			t.Error(err)
		}
		if got, err := content(f); err != nil || got[:6] != name[:3]+"+"+strings.Repeat(name, 2)[4:6] {
			t.Errorf("%s: read %q, %v", name, got[:6], err)
		}
		// Nothing finds it, nor can give it a name again.
		again := "again"
		for _, err := range []error{f.Rename(ctx, active, again, false, "glenda"), f.SetAttr(ctx, Change{Name: &again}, "glenda")} {
			if !errors.Is(err, ErrRemoved) {
				t.Errorf("rename: %v", err)
			}
		}
	}
	if both.Release() {
		t.Error("nobody holds what one still holds")
	}
	for _, f := range files[:3] {
		if !f.Release() {
			t.Error("held by nobody, but not to be removed")
		}
		if err := f.Remove(ctx, "glenda"); err != nil {
			t.Error(err)
		}
		if err := f.Hold(ctx); !errors.Is(err, ErrRemoved) {
			t.Errorf("hold what was removed: %v", err)
		}
	}
	clean(t, fs)
	mustClose(t, fs) // with one that is held
	fs = mustOpen(t, d, Config{ReadOnly: true})
	defer mustClose(t, fs)
	if names := rootNames(t, fs); len(names) != 0 {
		t.Errorf("the root directory has %q besides", names)
	}
	clean(t, fs)
}

// TestHoldAndCrash has the power cut while files are held whose names are gone.
func TestHoldAndCrash(t *testing.T) {
	m := disk.NewMachine()
	fs := mustOpen(t, newFS(t, m, 4<<20, 1024), Config{Interval: time.Hour})
	for range 3 {
		put(t, fs, "f", strings.Repeat("text", 200))
		f := walk(t, fs, "/active/f")
		if err := errors.Join(f.Hold(t.Context()), f.Remove(t.Context(), "glenda")); err != nil {
			t.Fatal(err)
		}
	}
	if err := fs.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := m.Crash(rand.New(rand.NewPCG(1, 2)))
	mustClose(t, fs)

	fs = mustOpen(t, after.Disk("part"), Config{ReadOnly: true})
	if names := rootNames(t, fs); len(names) != 1 {
		t.Errorf("the root directory has %q besides, want one", names)
	}
	clean(t, fs)
	mustClose(t, fs)
	fs = mustOpen(t, after.Disk("part"), Config{Interval: time.Hour})
	mustClose(t, fs)
	fs = mustOpen(t, after.Disk("part"), Config{ReadOnly: true})
	defer mustClose(t, fs)
	if names := rootNames(t, fs); len(names) != 0 {
		t.Errorf("the root directory has %q besides", names)
	}
	clean(t, fs)
}
