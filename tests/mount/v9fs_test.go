package mount

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"strata/internal/ninep/ninetest"
	"strata/tests/mount/qemu"
	"strata/tests/mount/workload"
)

// applets are what the guest has of busybox.
const applets = "sh cat cmp cp dd diff find grep ln ls md5sum mkdir mv readlink rm sed sort tail tar touch wc xargs"

// A guestMount is how the guest's program is told to mount.
type guestMount struct {
	Name, Source, Options string
	Run                   workload.Config
}

// abilities returns what Linux's client makes of our server.
func abilities(version, dialect, cache string) workload.Abilities {
	unix := dialect == "9p2000.u"
	// Of the older dialects Linux 6.12 shares no mapping that can be written to.
	can := workload.Abilities{Removed: true, AnyName: true, Reopen: true, Map: cache != "none" && version == "6.1", Links: unix, Symlinks: unix}
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
	skipRacing(t)
	for _, version := range []string{"6.1", "6.12"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			testLinux(t, version)
		})
	}
}

// skipRacing skips a test with guests under the race detector, where they take
// twenty minutes to do what 9pfuse does to the same servers in one.
func skipRacing(t *testing.T) {
	if racing {
		t.Skip("the race detector watches Test9pfuse instead")
	}
}

func testLinux(t *testing.T, version string) {
	g := newGuest(t, version)
	fs := ninetest.NewMemFS(time.Now)
	addBig(t, fs, "root")
	port := serve(t, fs, "tcp", "127.0.0.1:0").(*net.TCPAddr).Port
	for _, dialect := range []string{"9p2000.L", "9p2000.u", "9p2000"} {
		for _, cache := range []string{"none", "mmap", "loose"} {
			g.mount(port, dialect, cache, abilities(version, dialect, cache))
		}
	}
	g.run(8 * time.Minute)
}

// A guest is what Linux's own client is tried in.
type guest struct {
	t      *testing.T
	kernel *qemu.Kernel
	files  map[string]qemu.File
	base   workload.Config // what is the same for all mounts
	mounts []guestMount
}

// newGuest returns a guest with a version of Linux, or skips the test.
func newGuest(t *testing.T, version string) *guest {
	if list := qemu.Missing(); len(list) > 0 {
		t.Skipf("no %s here", strings.Join(list, ", "))
	}
	busybox, err := qemu.Busybox()
	if err != nil {
		t.Skip(err)
	}
	kernel, err := qemu.FindKernel(version)
	if err != nil {
		t.Skip(err)
	}
	g := &guest{t: t, kernel: kernel, files: map[string]qemu.File{}}
	g.base = workload.Config{Big: bigDirectory, Scale: scale(t), Only: os.Getenv("WORKLOAD")}
	g.add("init", program(t, "guest"))
	g.files["bin/busybox"] = qemu.File{Mode: 0o100755, Data: busybox}
	for name := range strings.FieldsSeq(applets) {
		g.files["bin/"+name] = qemu.File{Mode: qemu.Link, Data: []byte("busybox")}
	}
	return g
}

// add gives the guest a file of this machine, that can be run.
func (g *guest) add(name, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	g.files[name] = qemu.File{Mode: 0o100755, Data: b}
}

// mount has the guest mount a port of this machine, and work there.
func (g *guest) mount(port int, dialect, cache string, can workload.Abilities) {
	m := guestMount{
		Name: dialect + "/" + cache, Source: "10.0.2.2",
		Options: fmt.Sprintf("trans=tcp,port=%d,version=%s,cache=%s,uname=root,access=any", port, dialect, cache),
		Run:     g.base,
	}
	m.Run.Can, m.Run.Seed = can, uint64(len(g.mounts)+1)
	g.mounts = append(g.mounts, m)
}

// run runs the guest until it has worked in all mounts.
func (g *guest) run(limit time.Duration) {
	t := g.t
	job, err := json.Marshal(map[string]any{"Mounts": g.mounts})
	if err != nil {
		t.Fatal(err)
	}
	g.files["config.json"] = qemu.File{Mode: 0o100644, Data: job}
	machine := qemu.Guest{Kernel: g.kernel, Modules: []string{"virtio_pci", "virtio_net", "9pnet_fd", "9p"}, Files: g.files}
	var list []workload.Result
	start := time.Now()
	err = machine.Run(deadline(t, limit), func(line string) {
		r, err := decode(line)
		if err != nil {
			t.Error(err)
		}
		list = append(list, r)
	})
	t.Logf("Linux %s, %.0f s in all", g.kernel.Release, time.Since(start).Seconds())
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
	if mounted != len(g.mounts) {
		t.Errorf("%d mounts came to their end, want %d", mounted, len(g.mounts))
	}
}
