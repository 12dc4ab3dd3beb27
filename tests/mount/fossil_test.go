package mount

import (
	"archive/tar"
	"context"

	iofs "io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strata/fossil"
	"strata/fossil/tree"
	"strata/internal/disk"
	"strata/internal/ninep"
	"strata/tests/mount/qemu"
	"strata/tests/mount/workload"
)

// newFossil returns the tree of a new file system in a partition. When the test
// ends it is closed, opened again and checked.
func newFossil(t testing.TB, size int64) ninep.FS {
	t.Helper()
	ctx := context.Background()
	name := filepath.Join(t.TempDir(), "fossil")
	if err := disk.Create(name, size); err != nil {
		t.Fatal(err)
	}
	open := func() (*disk.Partition, *fossil.FS, error) {
		part, err := disk.Open(name, disk.Options{})
		if err != nil {
			return nil, nil, err
		}
		fs, err := fossil.Open(part, fossil.Config{})
		return part, fs, err
	}
	part, err := disk.Open(name, disk.Options{})
	if err == nil {
		err = fossil.Format(ctx, part, fossil.FormatConfig{BlockSize: 4096})
	}
	if err != nil {
		t.Fatal(err)
	}
	part.Close()
	part, fs, err := open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fs.Close(ctx); err != nil {
			t.Fatal(err)
		}
		part.Close()
		part, fs, err := open()
		if err != nil {
			t.Fatal(err)
		}
		defer part.Close()
		defer fs.Close(ctx)
		found, err := fs.Check(ctx, fossil.CheckConfig{})
		if err != nil || len(found.Findings) > 0 || found.Lost > 0 {
			t.Errorf("check: %v, %d blocks lost, %v", found.Findings, found.Lost, err)
		}
	})
	// root may give files away, as it is used to.
	tr := tree.New(fs, tree.Config{AnyWstat: true})
	if err := tr.AddUser(ctx, "root", "root", true); err != nil {
		t.Fatal(err)
	}
	return tr
}

// serveFossil serves a new file system.
func serveFossil(t testing.TB, network, addr string) net.Addr {
	t.Helper()
	fs := newFossil(t, 512<<20)
	// /active is adm's, and nobody's to write to.
	root, err := fs.Attach(t.Context(), "adm", "")
	if err != nil {
		t.Fatal(err)
	}
	mode, group := ninep.ModeDir|0o777, "root"
	if err := root.(ninep.Wstater).Wstat(t.Context(), ninep.Change{Mode: &mode, GID: &group}); err != nil {
		t.Fatal(err)
	}
	addBig(t, fs, "root")
	return serveTree(t, fs, ninep.Config{}, network, addr)
}

// onFossil returns what a mount of a Fossil file system can do: its format has
// one name for a file, seconds for times, and nothing like extended attributes,
// and Plan 9's Fossil refuses names with control characters. A file is kept
// without a name for those who have it open, not for those who are about to.
func onFossil(can workload.Abilities) workload.Abilities {
	can.Links, can.Xattrs, can.Nano, can.AnyName, can.Reopen = false, false, false, false, false
	return can
}

// sources makes an archive of a part of Go's source tree, of about so many
// bytes.
func sources(t testing.TB, size int64) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "src")
	name := filepath.Join(t.TempDir(), "src.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	left := size
	for _, part := range []string{"archive", "text", "encoding", "compress", "html", "os", "go", "net", "runtime", "crypto"} {
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, d iofs.DirEntry, err error) error {
			if err != nil || left <= 0 || !d.IsDir() && !d.Type().IsRegular() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			h, err := tar.FileInfoHeader(info, "")
			if err != nil {
				return err
			}
			if h.Name, err = filepath.Rel(root, path); err != nil {
				return err
			}
			h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
			h.ModTime = h.ModTime.Truncate(time.Second)
			if err := w.WriteHeader(h); err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if err == nil {
				_, err = w.Write(b)
			}
			left -= int64(len(b))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// programs returns what of the workload's programs this machine has, and
// reports the others.
func usable(t *testing.T) []string {
	list := []string{"untar"}
	for prog, check := range map[string]string{"git": "git", "sqlite3": "sqlite"} {
		if _, err := exec.LookPath(prog); err != nil {
			t.Run(check, func(t *testing.T) { t.Skipf("no %s here", prog) })
			continue
		}
		list = append(list, check)
	}
	return list
}

// TestLinuxOnFossil has Linux's own client work in a Fossil file system: one
// kernel with two of the ways to mount it, or with STRATA_TRIAL two with all, and
// git.
func TestLinuxOnFossil(t *testing.T) {
	skipRacing(t)
	type way struct{ dialect, cache string }
	ways := map[string][]way{"6.12": {{"9p2000.L", "mmap"}, {"9p2000.u", "loose"}}}
	if os.Getenv("STRATA_TRIAL") != "" {
		ways = map[string][]way{}
		for _, version := range []string{"6.1", "6.12"} {
			for _, dialect := range []string{"9p2000.L", "9p2000.u"} {
				for _, cache := range []string{"none", "mmap", "loose"} {
					ways[version] = append(ways[version], way{dialect, cache})
				}
			}
		}
	}
	for version, ways := range ways {
		t.Run(version, func(t *testing.T) {
			g := newGuest(t, version)
			g.base.Programs, g.base.Tar = usable(t), "/src.tar"
			if os.Getenv("STRATA_TRIAL") == "" { // git takes minutes, emulated
				g.base.Programs = slices.DeleteFunc(g.base.Programs, func(s string) bool { return s == "git" })
			}
			g.add("src.tar", sources(t, int64(scale(t))<<19))
			g.addPrograms("git", "sqlite3")
			g.files["bin/git-upload-pack"] = qemu.File{Mode: 0o120777, Data: []byte("git")}
			port := serveFossil(t, "tcp", "127.0.0.1:0").(*net.TCPAddr).Port
			for i, w := range ways {
				if i > 0 && os.Getenv("STRATA_TRIAL") == "" {
					g.base.Programs = nil
				}
				g.mount(port, w.dialect, w.cache, onFossil(abilities(version, w.dialect, w.cache)))
			}
			g.run(10 * time.Minute)
		})
	}
}

// addPrograms gives the guest those of the programs that are here, and the
// libraries that they need.
func (g *guest) addPrograms(names ...string) {
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		g.add("bin/"+name, path)
		out, err := exec.Command("ldd", path).CombinedOutput()
		if err != nil {
			g.t.Fatalf("ldd %s: %v: %s", path, err, out)
		}
		for word := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(word, "/") {
				g.add(word[1:], word)
			}
		}
	}
}

// Test9pfuseOnFossil has 9pfuse mount a Fossil file system, and work in it.
func Test9pfuseOnFossil(t *testing.T) {
	needFUSE(t)
	prog := program(t, "9pfuse")
	dialects := []string{"9p2000.L", "9p2000.u"}
	if os.Getenv("STRATA_TRIAL") != "" {
		dialects = append(dialects, "9p2000")
	}
	for i, dialect := range dialects {
		t.Run(dialect, func(t *testing.T) {
			sock := serveFossil(t, "unix", filepath.Join(t.TempDir(), "9p")).String()
			can := workload.Everything
			if dialect != "9p2000.L" {
				can = workload.Abilities{Removed: true, AnyName: true, Reopen: true, Symlinks: dialect == "9p2000.u", Fcntl: true, Map: true}
			}
			dir := fuse(t, nil, prog, "-o", "version="+dialect, sock)
			work(t, workload.Config{
				Dir: dir, Big: filepath.Join(dir, bigDirectory), Can: onFossil(can), Seed: uint64(300 + i),
				Programs: usable(t), Tar: sources(t, int64(scale(t))<<20),
			})
		})
	}
}
