package debian

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// small is the disk that tests share.
var small = Disk{Bring: []string{"hello"}}

// TestMake looks at a disk: its table, its file system and what is in it.
func TestMake(t *testing.T) {
	img := small.Get(t)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := run(t.Context(), "cp", "--sparse=always", img.Path, disk); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), "sfdisk", "--verify", disk); err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), "e2fsck", "-fn", fmt.Sprintf("%s?offset=%d", disk, RootStart)); err != nil {
		t.Error(err)
	}
	for _, name := range []string{img.Kernel, img.Initrd} {
		if fi, err := os.Stat(name); err != nil || fi.Size() < 1<<20 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
}

// TestBoot boots a disk by its own boot loader, has it do something, and shuts it
// down.
func TestBoot(t *testing.T) {
	if os.Getenv("STRATA_TRIAL") == "" {
		t.Skip("STRATA_TRIAL is not set")
	}
	img := small.Get(t)
	g := Start(t, Machine{Drives: []string{"file=" + img.Path + ",format=raw,snapshot=on"}})
	g.Ready(t)
	out := g.Do(t, "cat /proc/cmdline /proc/swaps; printf %s `ls /root`")
	for _, want := range []string{"BOOT_IMAGE=/vmlinuz", "/dev/vda2", "hello_"} { // the first is GRUB's word
		if !strings.Contains(out, want) {
			t.Errorf("no %s in the guest: %q", want, out)
		}
	}
	if out, status := g.Try(t, "exit 7"); out != "" || status != 7 {
		t.Errorf("exit 7: %q, %d", out, status)
	}
	g.PowerOff(t)
}
