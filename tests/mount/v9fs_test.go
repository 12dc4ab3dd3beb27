package mount

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"strata/internal/ninep/ninetest"
	"strata/tests/mount/qemu"
	"strata/tests/mount/workload"
)

// applets are what the guest has of busybox.
const applets = "sh cat cmp cp dd diff find ln ls md5sum mkdir mv readlink rm sort tar touch wc xargs"

// A guestMount is how the guest's program is told to mount.
type guestMount struct {
	Name, Source, Options string
	Run                   workload.Config
}

// abilities returns what Linux's client makes of our server.
func abilities(version, dialect, cache string) workload.Abilities {
	unix := dialect == "9p2000.u"
	// Of the older dialects Linux 6.12 shares no mapping that can be written to.
	can := workload.Abilities{Removed: true, Map: cache != "none" && version == "6.1", Links: unix, Symlinks: unix}
	if dialect == "9p2000.L" {
		can = workload.Everything
		can.Nano = false // it keeps seconds
		can.Map = cache != "none"
	}
	can.Shared = cache != "loose"
	return can
}

// TestLinux has Linux's own client, of two kernels, mount our server in each
// dialect and with each way to cache, and work in it.
func TestLinux(t *testing.T) {
	for _, version := range []string{"6.1", "6.12"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			testLinux(t, version)
		})
	}
}

// staticBusybox returns a busybox that needs no libraries.
func staticBusybox(t *testing.T) string {
	name, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox-static here")
	}
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Skipf("%s is not the one of busybox-static: it needs %q, %v", name, libs, err)
	}
	return name
}

func testLinux(t *testing.T, version string) {
	if list := qemu.Missing(); len(list) > 0 {
		t.Skipf("no %s here", strings.Join(list, ", "))
	}
	busybox := staticBusybox(t)
	kernel, err := qemu.FindKernel(version)
	if err != nil {
		t.Skip(err)
	}
	fs := ninetest.NewMemFS(time.Now)
	addBig(t, fs)
	port := serve(t, fs, "tcp", "127.0.0.1:0").(*net.TCPAddr).Port

	var mounts []guestMount
	for _, dialect := range []string{"9p2000.L", "9p2000.u", "9p2000"} {
		for _, cache := range []string{"none", "mmap", "loose"} {
			can := abilities(version, dialect, cache)
			mounts = append(mounts, guestMount{
				Name: dialect + "/" + cache, Source: "10.0.2.2",
				Options: fmt.Sprintf("trans=tcp,port=%d,version=%s,cache=%s,uname=root,access=any", port, dialect, cache),
				Run:     workload.Config{Big: bigDirectory, Can: can, Seed: uint64(len(mounts) + 1), Scale: scale(t), Only: os.Getenv("WORKLOAD")},
			})
		}
	}
	job, err := json.Marshal(map[string]any{"Mounts": mounts})
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	files := map[string]qemu.File{
		"init":        {Mode: 0o100755, Data: read(program(t, "guest"))},
		"config.json": {Mode: 0o100644, Data: job},
		"bin/busybox": {Mode: 0o100755, Data: read(busybox)},
	}
	for name := range strings.FieldsSeq(applets) {
		files["bin/"+name] = qemu.File{Mode: 0o120777, Data: []byte("busybox")}
	}
	guest := qemu.Guest{Kernel: kernel, Modules: []string{"virtio_pci", "virtio_net", "9pnet_fd", "9p"}, Files: files}
	var list []workload.Result
	start := time.Now()
	err = guest.Run(deadline(t, 8*time.Minute), func(line string) {
		r, err := decode(line)
		if err != nil {
			t.Error(err)
		}
		list = append(list, r)
	})
	t.Logf("Linux %s, %.0f s in all", kernel.Release, time.Since(start).Seconds())
	results(t, list)
	if err != nil {
		t.Error(err)
	}
	mounted := 0
	for _, r := range list {
		if strings.HasSuffix(r.Name, "/mount") && r.Error == "" {
			mounted++
		}
	}
	if mounted != len(mounts) {
		t.Errorf("%d mounts came to their end, want %d", mounted, len(mounts))
	}
}
