package vac_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"strata/vac"
	"strata/vac/meta"
	"strata/vac/vactest"
	"strata/venti"
	"strata/venti/hashtree"
	"strata/venti/ventitest"
)

// bigDir stores a directory of n files, and returns it.
func bigDir(t *testing.T, st venti.Store, n int) *vac.File {
	t.Helper()
	a, err := vac.Open(t.Context(), st, vactest.Directory(t, st, n))
	if err != nil {
		t.Fatal(err)
	}
	return a.Root
}

func TestReadDirFrom(t *testing.T) {
	const n = 5000
	top := bigDir(t, ventitest.NewMemory(), n)
	var all []*vac.File
	last := uint64(0)
	for f, err := range top.ReadDir(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Cookie() <= last {
			t.Fatalf("%s has the cookie %d behind %d", f.Name, f.Cookie(), last)
		}
		last = f.Cookie()
		all = append(all, f)
	}
	if len(all) != n {
		t.Fatalf("%d files, want %d", len(all), n)
	}
	for i := 0; i < n; i += 61 {
		k := i + 1
		for f, err := range top.ReadDirFrom(t.Context(), all[i].Cookie()) {
			if err != nil || f.Name != all[k].Name || f.Cookie() != all[k].Cookie() {
				t.Fatalf("behind %s: %v, %v, want %s", all[k-1].Name, f, err, all[k].Name)
			}
			if k++; k > i+100 {
				break
			}
		}
		if k != min(i+101, n) {
			t.Errorf("behind %s come %d files", all[i].Name, k-i-1)
		}
	}
	for _, cookie := range []uint64{last, last + 1<<16, 1 << 62, 1<<64 - 1} {
		for f, err := range top.ReadDirFrom(t.Context(), cookie) {
			t.Errorf("behind %d comes %v, %v", cookie, f, err)
		}
	}
}

func TestIndex(t *testing.T) {
	const n = 5000
	st := ventitest.NewMemory()
	top := bigDir(t, st, n)
	x, err := vac.NewIndex(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	if x.Bytes() != 8*n {
		t.Errorf("the index has %d bytes, want %d", x.Bytes(), 8*n)
	}
	for i := range n {
		f, err := x.Walk(t.Context(), vactest.Name(i, n))
		if err != nil || f.Name != vactest.Name(i, n) || f.Qid != uint64(i+1) {
			t.Fatalf("walk to %s: %+v, %v", vactest.Name(i, n), f, err)
		}
	}
	for _, name := range []string{"file", "file5000", "", ".", "..", "a/b"} {
		if f, err := x.Walk(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("walk to %q: %v, %v", name, f, err)
		}
	}

	// What a lost block held may be there or not; the rest is.
	r, err := hashtree.NewReader(st, top.Meta(), hashtree.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	lost := make([]byte, 1024)
	if _, err := r.ReadAt(lost, 100*1024); err != nil {
		t.Fatal(err)
	}
	b, err := meta.Open(lost)
	if err != nil {
		t.Fatal(err)
	}
	st.Remove(venti.ScoreOf(venti.Truncate(venti.DataType, lost)), venti.DataType)
	if x, err = vac.NewIndex(t.Context(), top); err != nil {
		t.Fatal(err)
	}
	if f, err := x.Walk(t.Context(), b.Name(0)); !errors.Is(err, venti.ErrNotFound) || !strings.Contains(err.Error(), "metadata block 100") {
		t.Errorf("walk to %s: %v, %v", b.Name(0), f, err)
	}
	if f, err := x.Walk(t.Context(), vactest.Name(n-1, n)); err != nil || f.Name != vactest.Name(n-1, n) {
		t.Errorf("walk to the last: %v, %v", f, err)
	}
	for f, err := range top.ReadDir(t.Context()) {
		if err != nil {
			continue
		}
		if _, err := vac.NewIndex(t.Context(), f); err == nil {
			t.Error("a plain file has an index")
		}
		break
	}
}
