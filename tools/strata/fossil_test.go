package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strata/fossil/console"
	"strata/internal/netaddr"
	"strata/internal/ninep"
)

// TestUpFossil writes to the file system of a new directory, archives it into
// the store of the same process, and finds all of it after a stop.
func TestUpFossil(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, down := up(t, dir, upOptions{})
	user := s.identity.Users.Name(uint32(os.Geteuid()))
	attach := func(aname string) *ninep.File {
		t.Helper()
		conn, err := netaddr.Dial(t.Context(), "unix!"+filepath.Join(dir, "fossil.sock"), "5640")
		if err != nil {
			t.Fatal(err)
		}
		c, err := ninep.NewClient(t.Context(), conn, ninep.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		root, err := c.Attach(t.Context(), "", aname)
		if err != nil {
			t.Fatal(err)
		}
		return root
	}
	tell := func(line string) string {
		t.Helper()
		c, err := console.Dial(t.Context(), "unix!"+filepath.Join(dir, "fscons.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var out strings.Builder
		if err := c.Exec(t.Context(), &out, line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return out.String()
	}
	home, err := attach("").Walk(t.Context(), "usr", user)
	if err != nil {
		t.Fatal(err)
	}
	if err := home.Create(t.Context(), "f", 0o644, ninep.OWRITE); err != nil {
		t.Fatal(err)
	}
	if _, err := home.WriteAt(t.Context(), []byte("kept"), 0); err != nil {
		t.Fatal(err)
	}
	ctl, err := attach("main").Walk(t.Context(), "ctl")
	if err == nil {
		err = ctl.Open(t.Context(), ninep.ORDWR)
	}
	if err != nil {
		t.Errorf("whoever runs it opens ctl: %v", err)
	}
	if got := tell("snaptime"); !strings.Contains(got, "-a 0300") {
		t.Errorf("snaptime says %q", got)
	}
	before := s.stored()
	day := strings.TrimSpace(tell("snap -a"))
	f, err := s.fossil.Lookup("main")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.FS().Archive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.stored() <= before || !strings.HasPrefix(tell("last"), "vac:") {
		t.Errorf("%d bytes are stored, before the archive %d", s.stored(), before)
	}
	down()

	s, down = up(t, dir, upOptions{})
	defer down()
	for _, path := range []string{"/active", day} {
		f, err := attach("main"+path).Walk(t.Context(), "usr", user, "f")
		if err == nil {
			err = f.Open(t.Context(), ninep.OREAD)
		}
		b := make([]byte, 10)
		n := 0
		if err == nil {
			n, _ = f.ReadAt(t.Context(), b, 0)
		}
		if string(b[:n]) != "kept" {
			t.Errorf("%s: read %q, %v", path, b[:n], err)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "fscons.sock")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket of the console: %v, %v", st, err)
	}
}

// TestUpFossilConf has a configuration of the host's own, a wrong one, and a
// file system that was begun and not finished.
func TestUpFossilConf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf, half := filepath.Join(dir, fossilConf), filepath.Join(dir, fossilFile+".new")
	for name, text := range map[string]string{conf: "fsys main config\nfsys main open -P\nsrv -A open\n", half: "rubbish"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, down := up(t, dir, upOptions{})
	if _, err := os.Stat(filepath.Join(dir, "open.sock")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was begun is still there: %v", err)
	}
	down()
	if err := os.WriteFile(conf, []byte("fsys main config *\nnonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := openSuite(t.Context(), dir, upOptions{Local: true}); err == nil || !strings.Contains(err.Error(), "nonsense: - eh?") {
		t.Errorf("a wrong configuration: %v", err)
		if err == nil {
			s.close()
		}
	}
}
