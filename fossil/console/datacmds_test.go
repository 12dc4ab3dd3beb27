package console

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"strata/internal/ninep"
	"strata/vac"
	"strata/venti"
	"strata/venti/ventitest"
)

// TestArchives takes a directory into the archive, names it by its score, and
// grafts that; without Venti nothing of it works.
func TestArchives(t *testing.T) {
	store := ventitest.NewMemory()
	h, s := newMain(t, Config{Venti: store, Now: newClock().Now})
	exec(t, s, "create /active/d glenda sys d750")
	exec(t, s, "create /active/d/f glenda sys 640")
	exec(t, s, "snap -a -s /active/d -d /archive/d")
	f, err := h.Lookup("main")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.FS().Archive(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := strings.TrimSpace(exec(t, s, "last"))
	score := strings.TrimSpace(exec(t, s, "vac /archive/d"))
	for _, text := range []string{last, score} {
		kind, sc, err := venti.ParseTypedScore(text)
		if err != nil || kind != vac.RootType {
			t.Fatalf("%q is no score: %v", text, err)
		}
		if _, err := vac.Open(t.Context(), store, sc); err != nil {
			t.Error(err)
		}
	}
	if got := exec(t, s, "graft /active/back "+score); got != "\tstat /active/back back adm adm d555 0\n" {
		t.Errorf("graft says %q", got)
	}
	if got := exec(t, s, "stat /active/back/f"); got != "\tstat /active/back/f f glenda sys 640 0\n" {
		t.Errorf("stat says %q", got)
	}
	// A stream of another root is a file.
	root := venti.Root{Name: "x", Type: "file", BlockSize: 4096, Score: venti.EmptyScore}
	data, err := store.WriteBlock(t.Context(), venti.DataType, []byte("contents"))
	if err != nil {
		t.Fatal(err)
	}
	dir := make([]byte, 2*venti.EntrySize)
	e := venti.Entry{Flags: venti.EntryActive, PSize: 4080, DSize: 4096, Size: 8, Score: data}
	packed, err := e.Pack(nil)
	if err == nil {
		copy(dir[venti.EntrySize:], packed)
		root.Score, err = store.WriteBlock(t.Context(), venti.DirType, dir)
	}
	if err == nil {
		packed, err = root.Pack(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	sc, err := store.WriteBlock(t.Context(), venti.RootType, packed)
	if err != nil {
		t.Fatal(err)
	}
	if got := exec(t, s, "graft -uglenda /active/file "+sc.String()+"/1"); got != "\tstat /active/file file glenda adm 644 8\n" {
		t.Errorf("graft says %q", got)
	}
	for line, want := range map[string]string{
		"graft /active/file " + sc.String() + "/1":         "file already exists",
		"graft /active/x " + sc.String():                   "corrupted file entry",
		"graft /active/none/x " + score:                    "file does not exist",
		"graft /ctl " + score:                              "file already exists",
		"graft /active/x " + strings.Repeat("0", 40) + "/": "bad stream number ''",
	} {
		if err := s.Exec(t.Context(), &strings.Builder{}, line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}

// TestVacTooSoon asks for the score of what is not archived: the number of the
// error says that it is worth asking again, unless there is no Venti.
func TestVacTooSoon(t *testing.T) {
	_, s := newMain(t, Config{})
	exec(t, s, "create /active/d glenda sys d755")
	err := s.Exec(t.Context(), &strings.Builder{}, "vac /active")
	var told *ninep.Error
	if !errors.As(err, &told) || told.Errno != syscall.EAGAIN || told.Text != "can only vac paths already stored on venti" {
		t.Errorf("vac of what is not archived: %v", err)
	}
	exec(t, s, "close")
	exec(t, s, "open -V")
	err = s.Exec(t.Context(), &strings.Builder{}, "vac /active")
	if err == nil || errors.As(err, &told) && told.Errno == syscall.EAGAIN || !strings.Contains(err.Error(), "no Venti") {
		t.Errorf("vac without Venti: %v", err)
	}
}

// TestVentiGoes has another Venti server take the place of one that is gone.
func TestVentiGoes(t *testing.T) {
	store := ventitest.NewMemory()
	h, s := newMain(t, Config{Venti: store, Now: newClock().Now})
	exec(t, s, "create /active/d glenda sys d755")
	f, err := h.Lookup("main")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, s, "snap -a")
	if _, err := f.FS().Archive(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, s, "fsys main venti tcp!127.0.0.1!1") // where nobody is
	last := strings.TrimSpace(exec(t, s, "last"))
	err = s.Exec(t.Context(), &strings.Builder{}, "graft /active/x "+last)
	if err == nil || !strings.Contains(err.Error(), "venti i/o error") {
		t.Errorf("graft without a server: %v", err)
	}
	exec(t, s, "df")
	addr := ventitest.Serve(t, store)
	exec(t, s, "fsys main venti "+addr)
	exec(t, s, "graft /active/x "+last)
	if got := exec(t, s, "printconfig"); !strings.Contains(got, "fsys main venti "+addr+"\n") {
		t.Errorf("printconfig says %q", got)
	}
}
