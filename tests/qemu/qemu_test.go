//go:build !race

package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strata/tests/debian"
	"strata/tests/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// A world is a strata with an image, deb, that boots.
type world struct {
	*harness.Strata
	img   *debian.Image
	score string // of the image as it was imported
}

// newWorld makes one, or skips the test.
func newWorld(t *testing.T) *world {
	img := debian.Disk{Bring: []string{"hello"}}.Get(t)
	dir := filepath.Join(t.TempDir(), "store")
	w := &world{Strata: harness.Ours(t).Up(t, dir, "--size", "4", "--buffer", "2"), img: img}
	w.score = strings.TrimSpace(w.vdisk(t, "import", "--into", "deb", img.Path))
	if s := w.snap(t, "imported"); s != w.score {
		t.Errorf("the snapshot of what was imported is %s, not %s", s, w.score)
	}
	return w
}

func (w *world) vdisk(t *testing.T, args ...string) string {
	t.Helper()
	return w.Run(t, nil, "vdisk", args...)
}

// snap takes a snapshot, and returns its score.
func (w *world) snap(t *testing.T, tag string) string {
	t.Helper()
	f := strings.Fields(w.vdisk(t, "snap", "deb", tag))
	if len(f) != 2 {
		t.Fatalf("snap says %q", f)
	}
	return f[1]
}

// A way is how a guest comes to an image, whose name it is told.
type way func(t *testing.T, w *world, name string) debian.Machine

func overNBD(_ *testing.T, w *world, name string) debian.Machine {
	drive := "file=nbd+unix:///" + name + "?socket=" + filepath.Join(w.Dir, "nbd.sock") + ",format=raw,discard=unmap"
	return debian.Machine{Drives: []string{drive}, Image: w.img}
}

// TestNBD has a guest live on a disk over NBD.
func TestNBD(t *testing.T) {
	w := newWorld(t)
	live(t, w, overNBD)
}

// live is the life of a disk: a package is installed, a snapshot is taken while
// the guest writes, and the guest goes. Then the disk is what an import makes of
// it, the snapshot boots, and in a trial what was before does, too.
func live(t *testing.T, w *world, reach way) {
	g := debian.Start(t, reach(t, w, "deb"))
	g.Ready(t)
	g.Do(t, "dpkg -i ~root/hello_*.deb && hello")
	// What is free is trimmed, for it is no longer the guest's.
	g.Do(t, "head -c 40000000 /dev/urandom >/srv/garbage && sync && rm /srv/garbage && sync")
	g.Do(t, "(i=0; while :; do i=$((i+1)); echo $i >/srv/count.new && sync && mv /srv/count.new /srv/count; done) >/dev/null 2>&1 & echo $! >/run/counter")
	g.Do(t, "while ! test -e /srv/count; do :; done; sync")
	snap := w.snap(t, "installed")
	g.Do(t, "kill `cat /run/counter`; dpkg -P hello && touch /srv/later")
	g.PowerOff(t)

	off := w.snap(t, "off")
	w.check(t, off)
	w.vdisk(t, "verify", snap)

	w.vdisk(t, "clone", "deb@installed", "copy")
	g = debian.Start(t, reach(t, w, "copy"))
	g.Ready(t)
	if log := g.Do(t, "dmesg"); !strings.Contains(log, "recovery complete") {
		t.Errorf("the journal of the snapshot was not replayed:\n%s", log)
	}
	g.Do(t, "hello && dpkg -V hello && test ! -e /srv/later && test `cat /srv/count` -gt 0")
	g.Kill()

	w.vdisk(t, "rollback", "deb", "imported")
	if again := w.snap(t, "again"); again != w.score {
		t.Errorf("rolled back the disk is %s, imported it was %s", again, w.score)
	}
	if os.Getenv("STRATA_TRIAL") == "" {
		return
	}
	g = debian.Start(t, reach(t, w, "deb"))
	g.Ready(t)
	g.Do(t, "test ! -e /usr/bin/hello && test ! -e /srv/later && ! dpkg -s hello")
	g.PowerOff(t)
	w.check(t, w.snap(t, "end"))
}

// check looks at a disk that was unmounted: its file system is whole, and its
// score is that of an import.
func (w *world) check(t *testing.T, score string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "off.raw")
	w.vdisk(t, "export", score, file)
	fsck(t, file)
	if again := strings.TrimSpace(w.vdisk(t, "import", file)); again != score {
		t.Errorf("the disk is %s, and imported %s", score, again)
	}
}

func fsck(t *testing.T, file string) {
	t.Helper()
	if out, err := exec.Command("e2fsck", "-fn", fmt.Sprintf("%s?offset=%d", file, debian.RootStart)).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}
