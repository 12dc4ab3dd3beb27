package console

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/fossil"
	"strata/fossil/internal/format"
	"strata/vac/meta"
)

// TestCheckGolden has check print what the original's does.
func TestCheckGolden(t *testing.T) {
	dir := os.Getenv("STRATA_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	dir = filepath.Join(dir, "golden", "fossil")
	text, err := os.ReadFile(filepath.Join(dir, "local8k.super.json"))
	if err != nil {
		t.Skipf("no golden data: %v", err)
	}
	var want struct{ Check []string }
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "local8k.fossil.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(t.TempDir(), "part")
	if err := os.WriteFile(part, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newHost(t, Config{}).NewSession()
	var out bytes.Buffer
	for _, line := range []string{"fsys main config " + part, "fsys main open -rV", "check snapshot"} {
		if err := s.Exec(t.Context(), &out, line); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"); fmt.Sprint(got) != fmt.Sprint(want.Check) {
		t.Errorf("printed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want.Check, "\n"))
	}
}

// TestUndo has each command that changes blocks do so, and what it prints undo
// that.
func TestUndo(t *testing.T) {
	part := newPartition(t, t.TempDir(), "part")
	h := newHost(t, Config{})
	s := h.NewSession()
	exec := func(line string, args ...any) string {
		t.Helper()
		var out bytes.Buffer
		if err := s.Exec(t.Context(), &out, fmt.Sprintf(line, args...)); err != nil {
			t.Fatalf("%s: %v", fmt.Sprintf(line, args...), err)
		}
		return out.String()
	}
	exec("fsys main config %s", part)
	exec("fsys main open -aV")
	h.mu.Lock()
	fs := h.fsys["main"].FS()
	h.mu.Unlock()
	active, err := fs.Walk(t.Context(), "/active")
	if err != nil {
		t.Fatal(err)
	}
	f, err := active.Create(t.Context(), "file", 0o644, "glenda")
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("contents\n"), 5000)
	if _, err := f.WriteAt(t.Context(), content, 0, "glenda"); err != nil {
		t.Fatal(err)
	}
	if _, err := active.Create(t.Context(), "dir", meta.ModeDir|0o755, "glenda"); err != nil {
		t.Fatal(err)
	}
	if err := fs.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Where the file's pointers are, a leaf of it, and the entries of /active.
	var pointers, leaf, entries uint32
	for a := uint32(0); ; a++ {
		l, err := fs.Label(t.Context(), a)
		if err != nil {
			break
		}
		if l.State == format.Alloc && l.Type == format.Data+1 {
			pointers = a
			b, err := fs.Block(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			leaf, _ = format.PointerAt(b, 2).Addr()
		}
	}
	for a := uint32(0); entries == 0; a++ {
		l, err := fs.Label(t.Context(), a)
		if err != nil {
			t.Fatal("no entry of the file")
		}
		b, err := fs.Block(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; l.State == format.Alloc && l.Type == format.Dir && i < len(b)/format.EntrySize; i++ {
			if e := format.EntryAt(b, i); e.Root == format.Local(pointers) {
				entries = a
			}
		}
	}
	state := func() string {
		t.Helper()
		return exec("label %#x", pointers) + exec("label %#x", leaf) + exec("block %#x 0", pointers) + exec("block %#x 0", leaf) + exec("block %#x 0", entries) + exec("df")
	}
	before := state()
	for _, line := range []string{
		fmt.Sprintf("bfree %#x %#x", leaf, pointers),
		fmt.Sprintf("bclose %#x 0", pointers),
		fmt.Sprintf("label %#x - 3 - - 99", leaf),
		fmt.Sprintf("clrp %#x 0 2 3", pointers),
		fmt.Sprintf("clre %#x 0 1", entries),
		fmt.Sprintf("block %#x 100 4 deadbeef", leaf),
		fmt.Sprintf("block %#x 0 20 da39a3ee5e6b4b0d3255bfef95601890afd80709", pointers),
	} {
		out := exec("%s", line)
		if state() == before {
			t.Errorf("%s changes nothing", line)
		}
		r, err := fs.Check(t.Context(), fossil.CheckConfig{})
		if err != nil || len(r.Findings) == 0 && !strings.HasPrefix(line, "block") {
			t.Errorf("%s: a check finds %+v, %v", line, r.Findings, err)
		}
		for undo := range strings.Lines(out) {
			if undo = strings.TrimSpace(undo); !strings.HasPrefix(undo, "new: ") {
				exec("%s", strings.TrimPrefix(undo, "old: "))
			}
		}
		if after := state(); after != before {
			t.Errorf("%s, undone by\n%s\n%s\nwas\n%s", line, out, after, before)
		}
	}
	// It is all the same for those who have the file open.
	got := make([]byte, len(content)+1)
	if n, err := f.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got[:n], content) {
		t.Errorf("%d bytes, %v, want %d", n, err, len(content))
	}
	if out := exec("check snapshot"); strings.Contains(out, "error") {
		t.Error(out)
	}
	exec("clri /active/file /active/dir/")
	if out := exec("check fix"); !strings.Contains(out, "\nfsck: 0 clri, 3 clre, 0 clrp, 12 bclose\n") {
		t.Errorf("after clri: %s", out)
	}
	if out := exec("check"); strings.Contains(out, "error") {
		t.Error(out)
	}
}
