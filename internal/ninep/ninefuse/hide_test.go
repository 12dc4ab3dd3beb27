package ninefuse_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"strata/internal/ninep"
	"strata/internal/ninep/ninefuse"
	"strata/internal/ninep/ninetest"
)

// A kernel asks of a tree what Linux does, at moments of the test's choice.
type kernel struct {
	t  *testing.T
	fs *ninefuse.FS
}

const rootID = fuse.FUSE_ROOT_ID

// attach returns the root of a server's tree as a new client sees it.
func attach(t *testing.T, srv *ninep.Server, d ninep.Dialect) (*ninep.Client, *ninep.File) {
	t.Helper()
	client := srv.Local(ninep.ClientConfig{Dialect: d, Users: ninep.HostUsers()})
	t.Cleanup(func() { client.Close() })
	root, err := client.Attach(t.Context(), "root", "")
	if err != nil {
		t.Fatal(err)
	}
	return client, root
}

func newKernel(t *testing.T, srv *ninep.Server, d ninep.Dialect) kernel {
	client, root := attach(t, srv, d)
	return kernel{t, ninefuse.New(client, root, ninefuse.Config{})}
}

func (k kernel) want(what string, got, want fuse.Status) {
	k.t.Helper()
	if got != want {
		k.t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func (k kernel) create(dir uint64, name string) (id, fh uint64) {
	k.t.Helper()
	var out fuse.CreateOut
	in := fuse.CreateIn{InHeader: fuse.InHeader{NodeId: dir}, Flags: syscall.O_RDWR, Mode: 0o600}
	k.want("create "+name, k.fs.Create(nil, &in, name, &out), fuse.OK)
	return out.NodeId, out.Fh
}

func (k kernel) mkdir(dir uint64, name string) uint64 {
	k.t.Helper()
	var out fuse.EntryOut
	in := fuse.MkdirIn{InHeader: fuse.InHeader{NodeId: dir}, Mode: 0o700}
	k.want("mkdir "+name, k.fs.Mkdir(nil, &in, name, &out), fuse.OK)
	return out.NodeId
}

func (k kernel) lookup(dir uint64, name string) (uint64, fuse.Status) {
	var out fuse.EntryOut
	s := k.fs.Lookup(nil, &fuse.InHeader{NodeId: dir}, name, &out)
	return out.NodeId, s
}

func (k kernel) unlink(dir uint64, name string) fuse.Status {
	return k.fs.Unlink(nil, &fuse.InHeader{NodeId: dir}, name)
}

func (k kernel) rmdir(dir uint64, name string) fuse.Status {
	return k.fs.Rmdir(nil, &fuse.InHeader{NodeId: dir}, name)
}

func (k kernel) rename(dir uint64, from, to string) fuse.Status {
	return k.fs.Rename(nil, &fuse.RenameIn{InHeader: fuse.InHeader{NodeId: dir}, Newdir: dir}, from, to)
}

func (k kernel) release(fh uint64) { k.fs.Release(nil, &fuse.ReleaseIn{Fh: fh}) }

// list returns what a directory is listed with.
func (k kernel) list(dir uint64) []string {
	k.t.Helper()
	var out fuse.OpenOut
	k.want("opendir", k.fs.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: dir}}, &out), fuse.OK)
	defer k.fs.ReleaseDir(&fuse.ReleaseIn{Fh: out.Fh})
	b := make([]byte, 1<<16)
	for i := range b {
		b[i] = 0xff
	}
	k.want("readdir", k.fs.ReadDir(nil, &fuse.ReadIn{Fh: out.Fh}, fuse.NewDirEntryList(b, 0)), fuse.OK)
	var names []string
	for { // ino[8] off[8] namelen[4] type[4] name, and to a multiple of 8
		n := int(binary.NativeEndian.Uint32(b[16:]))
		if n > 255 {
			return names
		}
		if name := string(b[24 : 24+n]); name != "." && name != ".." {
			names = append(names, name)
		}
		b = b[(24+n+7)&^7:]
	}
}

// serverHas fails unless a directory has so many names that begin with
// ".9pfuse", and the others.
func serverHas(t *testing.T, root *ninep.File, dir string, hidden int, others ...string) {
	t.Helper()
	ctx := t.Context()
	var names []string
	if dir != "" {
		names = strings.Split(dir, "/")
	}
	f, err := root.Walk(ctx, names...)
	if err == nil {
		err = f.Open(ctx, ninep.OREAD)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(ctx)
	list, err := f.ReadDir(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range list {
		if strings.HasPrefix(d.Name, ".9pfuse") {
			hidden--
		} else {
			got = append(got, d.Name)
		}
	}
	if hidden != 0 || !slices.Equal(got, others) {
		t.Errorf("the server has %d hidden files too few, and %q, want %q", hidden, got, others)
	}
}

// hiding runs a test on a tree in both dialects that have files hidden.
func hiding(t *testing.T, f func(t *testing.T, srv *ninep.Server, k kernel, root *ninep.File)) {
	for _, d := range []ninep.Dialect{ninep.Classic, ninep.Unix} {
		t.Run(d.String(), func(t *testing.T) {
			srv := ninep.NewServer(ninetest.NewMemFS(time.Now), ninep.Config{})
			_, root := attach(t, srv, ninep.Unix)
			f(t, srv, newKernel(t, srv, d), root)
		})
	}
}

// hiddenName returns the one hidden name in the root.
func hiddenName(t *testing.T, root *ninep.File) string {
	t.Helper()
	f, err := root.Walk(t.Context())
	if err == nil {
		err = f.Open(t.Context(), ninep.OREAD)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(t.Context())
	list, err := f.ReadDir(t.Context())
	i := slices.IndexFunc(list, func(d ninep.Dir) bool { return strings.HasPrefix(d.Name, ".9pfuse") })
	if err != nil || i < 0 {
		t.Fatalf("no hidden file among %v, %v", list, err)
	}
	return list[i].Name
}

// TestHiddenFile removes a file that stays open.
func TestHiddenFile(t *testing.T) {
	hiding(t, func(t *testing.T, _ *ninep.Server, k kernel, root *ninep.File) {
		_, fh := k.create(rootID, "f")
		_, other := k.create(rootID, "g")
		k.release(other)
		k.want("unlink", k.unlink(rootID, "f"), fuse.OK)
		serverHas(t, root, "", 1, "g")
		if got := k.list(rootID); !slices.Equal(got, []string{"g"}) {
			t.Errorf("listed %q", got)
		}
		if _, s := k.lookup(rootID, hiddenName(t, root)); s != fuse.ENOENT {
			t.Errorf("lookup of the hidden name: %v", s)
		}
		if n, s := k.fs.Write(nil, &fuse.WriteIn{Fh: fh}, []byte("still here")); n != 10 || s != fuse.OK {
			t.Errorf("write: %d, %v", n, s)
		}
		b := make([]byte, 20)
		r, s := k.fs.Read(nil, &fuse.ReadIn{Fh: fh, Size: 20}, b)
		if s != fuse.OK {
			t.Fatal(s)
		}
		if got, _ := r.Bytes(nil); !bytes.Equal(got, []byte("still here")) {
			t.Errorf("read %q", got)
		}
		// Another takes the name, and is hidden too.
		_, fh2 := k.create(rootID, "f")
		k.want("unlink", k.unlink(rootID, "f"), fuse.OK)
		serverHas(t, root, "", 2, "g")
		k.release(fh)
		serverHas(t, root, "", 1, "g")
		k.release(fh2)
		serverHas(t, root, "", 0, "g")
	})
}

// TestHiddenInDirectory removes directories in which there are only files that
// were removed and stay open, or have others renamed to their places.
func TestHiddenInDirectory(t *testing.T) {
	hiding(t, func(t *testing.T, _ *ninep.Server, k kernel, root *ninep.File) {
		d := k.mkdir(rootID, "d")
		e := k.mkdir(d, "e")
		_, inE := k.create(e, "f")
		_, inD := k.create(d, "f")
		_, shown := k.create(e, "shown")
		k.release(shown)
		k.want("unlink", k.unlink(e, "f"), fuse.OK)
		k.want("unlink", k.unlink(d, "f"), fuse.OK)
		k.want("rmdir of what holds a file", k.rmdir(d, "e"), fuse.Status(syscall.ENOTEMPTY))
		k.want("unlink", k.unlink(e, "shown"), fuse.OK)
		k.want("rmdir of what holds a directory", k.rmdir(rootID, "d"), fuse.Status(syscall.ENOTEMPTY))
		k.want("rmdir", k.rmdir(d, "e"), fuse.OK)
		if got := k.list(d); len(got) != 0 {
			t.Errorf("listed %q", got)
		}
		if _, s := k.lookup(d, "e"); s != fuse.ENOENT {
			t.Errorf("lookup: %v", s)
		}
		k.want("rmdir", k.rmdir(rootID, "d"), fuse.OK)
		if got := k.list(rootID); len(got) != 0 {
			t.Errorf("listed %q", got)
		}
		// The name is free.
		k.mkdir(rootID, "d")
		serverHas(t, root, "", 1, "d")
		if n, s := k.fs.Write(nil, &fuse.WriteIn{Fh: inE}, []byte("x")); n != 1 || s != fuse.OK {
			t.Errorf("write: %d, %v", n, s)
		}
		k.release(inD)
		serverHas(t, root, "", 1, "d")
		k.release(inE)
		serverHas(t, root, "", 0, "d")

		// The same by a rename.
		to := k.mkdir(rootID, "to")
		_, fh := k.create(to, "f")
		k.want("unlink", k.unlink(to, "f"), fuse.OK)
		k.want("rename", k.rename(rootID, "d", "to"), fuse.OK)
		if got := k.list(rootID); !slices.Equal(got, []string{"to"}) {
			t.Errorf("listed %q", got)
		}
		k.release(fh)
		serverHas(t, root, "", 0, "to")
		k.want("rmdir", k.rmdir(rootID, "to"), fuse.OK)
	})
}

// TestHiddenMeanwhile removes directories while the last file in them is being
// closed.
func TestHiddenMeanwhile(t *testing.T) {
	hiding(t, func(t *testing.T, _ *ninep.Server, k kernel, root *ninep.File) {
		for range 300 {
			d := k.mkdir(rootID, "d")
			_, fh := k.create(d, "f")
			k.want("unlink", k.unlink(d, "f"), fuse.OK)
			var wg sync.WaitGroup
			wg.Go(func() { k.release(fh) })
			s := k.rmdir(rootID, "d")
			wg.Wait()
			k.want("rmdir", s, fuse.OK)
			serverHas(t, root, "", 0)
		}
	})
}

// TestHiddenAtEnd ends a mount before the kernel has closed what is hidden, and
// one that cannot remove anything any more.
func TestHiddenAtEnd(t *testing.T) {
	hiding(t, func(t *testing.T, srv *ninep.Server, k kernel, root *ninep.File) {
		hide := func(k kernel) {
			d := k.mkdir(rootID, "d")
			k.create(d, "f")
			k.create(rootID, "f")
			k.want("unlink", k.unlink(d, "f"), fuse.OK)
			k.want("unlink", k.unlink(rootID, "f"), fuse.OK)
			k.want("rmdir", k.rmdir(rootID, "d"), fuse.OK)
			serverHas(t, root, "", 2)
		}
		hide(k)
		k.fs.OnUnmount()
		serverHas(t, root, "", 0)

		hide(newKernel(t, srv, ninep.Unix)) // whose end we do not see
		k = newKernel(t, srv, ninep.Unix)
		names := k.list(rootID)
		if len(names) != 2 {
			t.Fatalf("another mount lists %q, want two", names)
		}
		for _, name := range names {
			if id, s := k.lookup(rootID, name); s != fuse.OK {
				t.Errorf("lookup: %v", s)
			} else if left := k.list(id); len(left) == 1 {
				k.want("unlink", k.unlink(id, left[0]), fuse.OK)
				k.want("rmdir", k.rmdir(rootID, name), fuse.OK)
			} else {
				k.want("unlink", k.unlink(rootID, name), fuse.OK)
			}
		}
		serverHas(t, root, "", 0)
	})
}

// TestHiddenAtUnmount unmounts at once after closing files that were removed:
// the kernel may never say that they are closed.
func TestHiddenAtUnmount(t *testing.T) {
	fs := ninetest.NewMemFS(time.Now)
	t.Run("mount", func(t *testing.T) {
		dir := mount(t, fs, ninep.Classic, ninefuse.Config{})
		for range 20 {
			f, err := os.Create(filepath.Join(dir, "f"))
			if err == nil {
				err = os.Remove(f.Name())
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
		}
	})
	root, err := fs.Attach(context.Background(), "root", "")
	if err != nil {
		t.Fatal(err)
	}
	h, err := root.Open(context.Background(), ninep.OREAD)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	for d := range h.(ninep.DirReader).ReadDir(context.Background(), 0) {
		t.Errorf("%s is left", d.Name)
	}
}
