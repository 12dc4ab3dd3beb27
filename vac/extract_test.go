package vac_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"strata/vac"
	"strata/venti"
	"strata/venti/ventitest"
)

// TestResume interrupts an extraction at many places and goes on.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	for i := range 60 {
		write(t, fmt.Sprintf("%s/d%d/f%d", dir, i%4, i), random(uint64(i), 3000*(i%20)))
	}
	write(t, dir+"/large", random(1, 5<<20))
	st := ventitest.NewMemory()
	score := archive(t, st, dir, vac.Options{}).Score
	into := dir + "-out"
	defer os.RemoveAll(into)
	for n := range 12 {
		ctx, cancel := context.WithCancel(t.Context())
		left := 5 * (n + 1)
		_, err := vac.Extract(ctx, open(t, st, score).Root, into, vac.ExtractOptions{Resume: true, Trace: func(f *vac.File) {
			if left--; left == 0 {
				cancel()
			}
		}})
		cancel()
		if err == nil && left <= 0 {
			t.Errorf("after %d files: not interrupted", 5*(n+1))
		}
	}
	r := extract(t, st, score, into, vac.ExtractOptions{Resume: true})
	if r.Read > 6<<20 {
		t.Errorf("%d bytes read at last, want little more than the large file", r.Read)
	}
	sameTree(t, dir, into)
	if r := extract(t, st, score, into, vac.ExtractOptions{Resume: true}); r.Read != 0 {
		t.Errorf("%d bytes read when all was there", r.Read)
	}
}

// TestUpdate brings a directory up to date, reading only what differs.
func TestUpdate(t *testing.T) {
	dir := t.TempDir()
	files := map[string][]byte{
		"same": random(1, 100_000), "changed": random(2, 3<<20), "longer": random(3, 50_000), "shorter": random(4, 50_000),
		"missing": random(5, 10_000), "zeros": make([]byte, 40_000), "empty": nil,
	}
	for name, data := range files {
		write(t, dir+"/"+name, data)
	}
	st := ventitest.NewMemory()
	score := archive(t, st, dir, vac.Options{}).Score
	into := t.TempDir()
	extract(t, st, score, into, vac.ExtractOptions{})
	edit := func(name string, f func(b []byte) []byte) {
		must(t, os.WriteFile(into+"/"+name, f(bytes.Clone(files[name])), 0o600))
	}
	edit("changed", func(b []byte) []byte { b[1<<20]++; b[2<<20]++; return b })
	edit("longer", func(b []byte) []byte { return append(b, "more"...) })
	edit("shorter", func(b []byte) []byte { return b[:20_000] })
	edit("zeros", func(b []byte) []byte { b[9000] = 1; return b })
	edit("empty", func(b []byte) []byte { return []byte("not") })
	must(t, os.Remove(into+"/missing"))
	r := extract(t, st, score, into, vac.ExtractOptions{Update: true, Times: true})
	for name, want := range files {
		if got, err := os.ReadFile(into + "/" + name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
	// Two blocks of changed; of shorter what it lacks, from block 2; missing; one of zeros.
	if want := int64(2*8192 + 50_000 - 2*8192 + 10_000 + 8192); r.Read != want {
		t.Errorf("%d bytes read, want %d", r.Read, want)
	}
	info, err := os.Stat(into + "/changed")
	must(t, err)
	was, err := os.Stat(dir + "/changed")
	if must(t, err); info.Mode().Perm() != 0o600 && info.ModTime().Unix() != was.ModTime().Unix() {
		t.Errorf("mode %v, time %v; the mode of a file that was there stays, the time does not", info.Mode(), info.ModTime())
	}
}

// TestHoles restores holes as holes.
func TestHoles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/small", append(append(random(1, 9000), make([]byte, 200_000)...), 1))
	write(t, dir+"/tail", append(random(2, 9000), make([]byte, 200_000)...))
	write(t, dir+"/zeros", make([]byte, 300_000))
	write(t, dir+"/large", append(append(random(3, 9000), make([]byte, 9<<20)...), 1))
	st := ventitest.NewMemory()
	score := archive(t, st, dir, vac.Options{}).Score
	r := extract(t, st, score, dir+"-out", vac.ExtractOptions{})
	defer os.RemoveAll(dir + "-out")
	if max := int64(3*16384 + 2*8192); r.Read > max {
		t.Errorf("%d bytes were read, want at most %d", r.Read, max)
	}
	for _, name := range []string{"small", "tail", "zeros", "large"} {
		want, err := os.ReadFile(dir + "/" + name)
		must(t, err)
		if got, err := os.ReadFile(dir + "-out/" + name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
}

func TestSelection(t *testing.T) {
	dir := t.TempDir()
	for _, path := range strings.Fields("a/b/c a/b/d a/x b/c star*?[x] e/f/g") {
		write(t, dir+"/"+path, []byte(path))
	}
	st := ventitest.NewMemory()
	score := archive(t, st, dir, vac.Options{}).Score
	for i, tc := range []struct{ args, want, missing string }{
		{"a/b", "a a/b a/b/c a/b/d", ""},
		{"a/b/c b", "a a/b a/b/c b b/c", ""},
		{"a/*", "a a/b a/b/c a/b/d a/x", ""},
		{".../c", "a a/b a/b/c b b/c", ""},
		{"star*?[x]", "star*?[x]", ""},
		{"/e/f/ none a/none/...", "e e/f e/f/g", "none a/none/..."},
		{"[ae]/?/[cg]", "a a/b a/b/c e e/f e/f/g", ""},
	} {
		sel, err := vac.NewSelection(strings.Fields(tc.args))
		must(t, err)
		into := fmt.Sprintf("%s-%d", dir, i)
		extract(t, st, score, into, vac.ExtractOptions{Select: sel})
		var got []string
		walkHost(t, into, "", &got)
		must(t, os.RemoveAll(into))
		if text := strings.Join(got, " "); text != tc.want {
			t.Errorf("%s: got %q, want %q", tc.args, text, tc.want)
		}
		if text := strings.Join(sel.Missing(), " "); text != tc.missing {
			t.Errorf("%s: %q is missing, want %q", tc.args, text, tc.missing)
		}
	}
	if _, err := vac.NewSelection([]string{"["}); err == nil {
		t.Error("[ is taken")
	}
}

func walkHost(t testing.TB, dir, path string, list *[]string) {
	t.Helper()
	entries, err := os.ReadDir(dir + "/" + path)
	must(t, err)
	for _, e := range entries {
		p := strings.TrimPrefix(path+"/"+e.Name(), "/")
		*list = append(*list, p)
		if e.IsDir() {
			walkHost(t, dir, p, list)
		}
	}
}

// TestModes: modes go through the umask, and what may harm is left out, unless
// it is asked for.
func TestModes(t *testing.T) {
	needRoot(t)
	st := ventitest.NewMemory()
	dir := t.TempDir()
	write(t, dir+"/file", nil)
	must(t, os.Chown(dir+"/file", 1, 2))
	must(t, os.Chmod(dir+"/file", 0o777|os.ModeSetuid))
	must(t, os.Mkdir(dir+"/dir", 0o777))
	must(t, os.Chmod(dir+"/dir", 0o555))
	score := archive(t, st, dir, vac.Options{}).Score
	for owners, want := range map[bool]string{false: "dr-xr-xr-x -rwxr-xr-x 0", true: "dr-xr-xr-x urwxrwxrwx 1"} {
		into := fmt.Sprintf("%s-%v", dir, owners)
		extract(t, st, score, into, vac.ExtractOptions{Owners: owners})
		d, err := os.Stat(into + "/dir")
		must(t, err)
		f, err := os.Stat(into + "/file")
		must(t, err)
		if got := fmt.Sprint(d.Mode(), " ", f.Mode(), " ", owner(f)); got != want {
			t.Errorf("owners %v: got %s, want %s", owners, got, want)
		}
		must(t, os.RemoveAll(into))
	}
}

func TestFindScore(t *testing.T) {
	dir := t.TempDir()
	text := "vac:" + strings.Repeat("0123456789", 4)
	write(t, dir+"/a.vac", []byte(text))
	write(t, dir+"/b.vac", []byte(text+"\nand more\n"))
	write(t, dir+"/short", []byte(text[:43]))
	write(t, dir+"/other", []byte("file:"+text[4:]))
	write(t, dir+"/zeros", []byte("vac:"+venti.Score{}.String()))
	for _, arg := range []string{text, dir + "/a.vac", dir + "/b.vac"} {
		if s, err := vac.FindScore(arg); err != nil || vac.FormatScore(s) != text {
			t.Errorf("%s: %v, %v", arg, s, err)
		}
	}
	for _, arg := range []string{text[:43], text + "0", "vac:" + venti.Score{}.String(), dir + "/short", dir + "/other", dir + "/zeros", dir, dir + "/none"} {
		if s, err := vac.FindScore(arg); err == nil {
			t.Errorf("%s: %v, want an error", arg, s)
		}
	}
}

func owner(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
