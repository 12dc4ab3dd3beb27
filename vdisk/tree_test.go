package vdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"9fans.net/go/plan9"
	"9fans.net/go/plan9/client"
	"github.com/hugelgupf/p9/p9"
	"go.uber.org/goleak"

	"strata/internal/ninep"
	"strata/internal/ninep/ninetest"
	"strata/venti"
	"strata/venti/ventitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mbrDisk is a disk in memory with a boot record and two partitions, of which
// nobody knows what they hold.
func mbrDisk() *memSource {
	data := make([]byte, 3*mib+512)
	rnd := rand.New(rand.NewSource(11))
	entry := func(i int, kind byte, start, length uint32) {
		e := data[446+16*i:]
		e[4] = kind
		for j := range 4 {
			e[8+j], e[12+j] = byte(start>>(8*j)), byte(length>>(8*j))
		}
	}
	entry(0, 0x83, 63, 2048)
	entry(1, 0xda, 2111, 2000)
	data[510], data[511] = 0x55, 0xaa
	rnd.Read(data[64*512 : 700*512]) // not the first sector: nothing should take it for a file system
	rnd.Read(data[2500*512 : 3000*512])
	rnd.Read(data[len(data)-100:])
	return &memSource{data: data}
}

// served is a tree on a socket.
type served struct {
	*Tree
	st    *ventitest.Memory
	addr  string
	score string // of mbrDisk
	disk  []byte
	files string
}

// serveTree serves images in br, which reads st.
func serveTree(t *testing.T, st *ventitest.Memory, br venti.BlockReader) *served {
	t.Helper()
	s := &served{st: st, files: filepath.Join(t.TempDir(), "files"), disk: mbrDisk().data}
	res, err := Import(t.Context(), st, mbrDisk(), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.score = RootType + ":" + res.Score.String()
	if err := os.MkdirAll(filepath.Join(s.files, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if s.Tree, err = NewTree(br, TreeConfig{Files: s.files, Images: 2}); err != nil {
		t.Fatal(err)
	}
	s.addr = filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { ninep.NewServer(s.Tree, ninep.Config{}).Serve(ctx, ln) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := s.Tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *served) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// attach connects a client of ours.
func (s *served) attach(t *testing.T, d ninep.Dialect) *ninep.File {
	t.Helper()
	c, err := ninep.NewClient(t.Context(), s.dial(t), ninep.ClientConfig{Dialect: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	root, err := c.Attach(t.Context(), "glenda", "")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func (s *served) put(t *testing.T, name, contents string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.files, name), []byte(contents), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readPath walks to a file, and reads all of it.
func readPath(t *testing.T, root *ninep.File, path string) ([]byte, error) {
	t.Helper()
	// Step by step: of a walk that gets only part of the way the cause is lost.
	f, err := root.Walk(t.Context())
	for _, name := range strings.Split(path, "/") {
		if err != nil {
			return nil, err
		}
		dir := f
		f, err = dir.Walk(t.Context(), name)
		dir.Close(context.Background())
	}
	if err != nil {
		return nil, err
	}
	defer f.Close(context.Background())
	d, err := f.Stat(t.Context())
	if err != nil {
		return nil, err
	}
	if err := f.Open(t.Context(), ninep.OREAD); err != nil {
		return nil, err
	}
	b := make([]byte, d.Length+1)
	n, err := f.ReadAt(t.Context(), b, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if int64(n) != d.Length {
		t.Errorf("%s: is %d bytes long and reads as %d", path, d.Length, n)
	}
	return b[:n], nil
}

// errno returns the number that a client was told.
func errno(err error) syscall.Errno {
	var e *ninep.Error
	if errors.As(err, &e) {
		return e.Errno
	}
	return 0
}

// names returns those in a directory.
func names(t *testing.T, root *ninep.File, path ...string) []string {
	t.Helper()
	f, err := root.Walk(t.Context(), path...)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(context.Background())
	if err := f.Open(t.Context(), ninep.OREAD); err != nil {
		t.Fatal(err)
	}
	entries, err := f.ReadDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name)
	}
	slices.Sort(all)
	return all
}

func TestTree(t *testing.T) {
	st := ventitest.NewMemory()
	s := serveTree(t, st, st)
	hex := strings.TrimPrefix(s.score, "vdisk:")
	s.put(t, "web.vdisk", s.score+"\n")
	s.put(t, "sub/bare.vdisk", hex)
	s.put(t, "notes.vdisk", "not a score")
	s.put(t, "readme", "hello")
	for _, d := range []ninep.Dialect{ninep.Classic, ninep.Linux} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			root := s.attach(t, d)
			for _, c := range []struct {
				path string
				want []byte
			}{
				{"score/" + s.score + "/disk", s.disk},
				{"score/" + hex + "/disk", s.disk},
				{"score/" + s.score + "/parts/1/data", s.disk[63*512 : (63+2048)*512]},
				{"score/" + s.score + "/parts/2/data", s.disk[2111*512 : 4111*512]},
				{"score/" + s.score + "/parts/2/type", []byte("-\n")},
				{"files/web.vdisk", s.disk},
				{"files/sub/bare.vdisk", s.disk},
				{"files/notes.vdisk", []byte("not a score")},
				{"files/readme", []byte("hello")},
			} {
				if got, err := readPath(t, root, c.path); err != nil || !bytes.Equal(got, c.want) {
					t.Errorf("%s: got %d bytes, %v, want %d", c.path, len(got), err, len(c.want))
				}
			}
			for _, c := range []struct{ path, want string }{
				{"score/" + s.score + "/info", "score " + s.score + "\nsize 3146240\ntable mbr\n"},
				{"score/" + s.score + "/parts/2/info", "name p2\nkind partition\nstart 1080832\nlength 1024000\nnumber 2\nparttype da\n"},
				{"status", "reads "},
			} {
				if got, err := readPath(t, root, c.path); err != nil || !strings.HasPrefix(string(got), c.want) {
					t.Errorf("%s: got %q, %v, want %q", c.path, got, err, c.want)
				}
			}
			for _, c := range []struct {
				dir  []string
				want []string
			}{
				{nil, []string{"files", "score", "status"}},
				{[]string{"score"}, nil},
				{[]string{"score", s.score}, []string{"disk", "info", "parts", "score"}},
				{[]string{"score", s.score, "parts"}, []string{"1", "2"}},
				{[]string{"files"}, []string{"notes.vdisk", "readme", "sub", "web.vdisk"}},
			} {
				if got := names(t, root, c.dir...); !slices.Equal(got, c.want) {
					t.Errorf("%v: got %v, want %v", c.dir, got, c.want)
				}
			}
			for _, path := range []string{"score/x", "score/vdisk:x", "score/ext2:" + hex, "score/" + strings.Repeat("0", 39) + "1",
				"score/" + s.score + "/parts/3", "files/none", "none"} {
				if _, err := readPath(t, root, path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: got %v, want that it does not exist", path, err)
				}
			}
			for _, path := range []string{"score/" + s.score + "/disk", "files/readme", "files/web.vdisk", "status"} {
				f, err := root.Walk(t.Context(), strings.Split(path, "/")...)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Open(t.Context(), ninep.OWRITE); !errors.Is(err, ninep.ErrReadOnly) && !errors.Is(err, fs.ErrPermission) {
					t.Errorf("open %s for writing: got %v", path, err)
				}
				f.Close(t.Context())
			}
		})
	}
}

// TestTreeAnotherName attaches to what is not there.
// TestTreeContract holds the tree to what every tree of 9P keeps to.
func TestTreeContract(t *testing.T) {
	st := ventitest.NewMemory()
	s := serveTree(t, st, st)
	s.put(t, "web.vdisk", s.score+"\n")
	s.put(t, "sub/bare.vdisk", strings.TrimPrefix(s.score, "vdisk:"))
	ninetest.TestTree(t, s.Tree, ninetest.TreeConfig{User: "glenda", Skip: func(path string) bool { return path == "status" }})
}

func TestTreeAnotherName(t *testing.T) {
	st := ventitest.NewMemory()
	s := serveTree(t, st, st)
	c, err := ninep.NewClient(t.Context(), s.dial(t), ninep.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Attach(t.Context(), "glenda", "main/active"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestTreeQids checks that a file keeps its qid and that no two share one.
func TestTreeQids(t *testing.T) {
	st := ventitest.NewMemory()
	s := serveTree(t, st, st)
	other, err := Import(t.Context(), st, &memSource{data: []byte("another disk")}, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	otherScore := RootType + ":" + other.Score.String()
	s.put(t, "a.vdisk", s.score)
	root := s.attach(t, ninep.Linux)
	qid := func(path string) ninep.Qid {
		t.Helper()
		f, err := root.Walk(t.Context(), strings.Split(path, "/")...)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close(t.Context())
		d, err := f.Stat(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.Qid != f.Qid() {
			t.Errorf("%s: walk says %v, stat %v", path, f.Qid(), d.Qid)
		}
		return d.Qid
	}
	seen := make(map[uint64]string)
	for _, sc := range []string{s.score, otherScore} {
		for _, p := range []string{"", "/disk", "/info", "/parts"} {
			q := qid("score/" + sc + p)
			if old, ok := seen[q.Path]; ok {
				t.Errorf("%s%s has the qid of %s", sc, p, old)
			}
			seen[q.Path] = sc + p
		}
	}
	before := qid("score/" + s.score + "/disk")
	for range 3 { // lets go of the image: two are kept
		for _, sc := range []string{otherScore, s.score} {
			qid("score/" + sc + "/disk")
		}
	}
	if after := qid("score/" + s.score + "/disk"); after != before {
		t.Errorf("got %v, want %v", after, before)
	}

	a := qid("files/a.vdisk")
	s.put(t, "a.vdisk", otherScore)
	if b := qid("files/a.vdisk"); b.Path != a.Path || b.Vers == a.Vers {
		t.Errorf("with another disk: got %v after %v", b, a)
	}
	if got, err := readPath(t, root, "files/a.vdisk"); err != nil || string(got) != "another disk" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestTreeConfined tries to leave the directory of the host.
func TestTreeConfined(t *testing.T) {
	st := ventitest.NewMemory()
	s := serveTree(t, st, st)
	outside := filepath.Join(filepath.Dir(s.files), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.put(t, "sub/in", "inside")
	for _, l := range []struct{ target, name string }{
		{outside, "absolute"}, {"../secret", "relative"}, {"sub/../../secret", "roundabout"},
		{"/", "slash"}, {"..", "up"}, {"nowhere", "dangling"}, {"loop", "loop"}, {"sub/in", "good"}, {"sub", "gooddir"},
	} {
		if err := os.Symlink(l.target, filepath.Join(s.files, l.name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(s.files, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(s.files, "pipe.vdisk"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := s.attach(t, ninep.Linux)
	if got, want := names(t, root, "files"), []string{"good", "gooddir", "sub"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, name := range []string{"absolute", "relative", "roundabout", "slash", "up", "up/secret", "dangling", "loop", "pipe", "pipe.vdisk"} {
		if _, err := readPath(t, root, "files/"+name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want that it does not exist", name, err)
		}
	}
	for _, name := range []string{"good", "gooddir/in"} {
		if got, err := readPath(t, root, "files/"+name); err != nil || string(got) != "inside" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

// TestTreeErrors tells apart what is not there and what cannot be asked.
func TestTreeErrors(t *testing.T) {
	st := ventitest.NewMemory()
	broken := false
	var mu sync.Mutex
	faulty := ventitest.NewFaulty(st, func(ventitest.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return errors.New("connection refused")
		}
		return nil
	})
	s := serveTree(t, st, faulty)
	s.put(t, "a.vdisk", s.score)
	s.put(t, "lost.vdisk", "vdisk:"+strings.Repeat("0", 39)+"1")
	root := s.attach(t, ninep.Linux)
	vac := venti.Root{Type: "vac", BlockSize: 8192}
	b, err := vac.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	notDisk, err := st.WriteBlock(t.Context(), venti.RootType, b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readPath(t, root, "score/"+notDisk.String()); errno(err) != syscall.EINVAL {
		t.Errorf("a vac archive: got %v", err)
	}
	if _, err := readPath(t, root, "files/lost.vdisk"); errno(err) != syscall.EIO {
		t.Errorf("a file that names nothing: got %v", err)
	}
	if got, want := names(t, root, "files"), []string{"a.vdisk", "lost.vdisk", "sub"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}

	mu.Lock()
	broken = true
	mu.Unlock()
	for _, path := range []string{"score/" + s.score + "/disk", "files/a.vdisk"} {
		if _, err := readPath(t, root, path); errno(err) != syscall.EIO {
			t.Errorf("%s: got %v, want an I/O error", path, err)
		}
	}
	classic := s.attach(t, ninep.Classic)
	if _, err := readPath(t, classic, "score/"+s.score+"/disk"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v, want the cause", err)
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	if got, err := readPath(t, root, "files/a.vdisk"); err != nil || !bytes.Equal(got, s.disk) {
		t.Errorf("after that: got %d bytes, %v", len(got), err)
	}
	// A block of the disk is gone: the file is there, and cannot be read.
	im, err := OpenText(t.Context(), st, s.score)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range im.entries {
		if e.Depth > 0 {
			st.Remove(e.Score, e.Type())
		}
	}
	s.put(t, "b.vdisk", s.score)
	s.Tree.images.mu.Lock()
	clear(s.Tree.images.known)
	s.Tree.images.order.Init()
	s.Tree.images.mu.Unlock()
	if _, err := readPath(t, root, "files/b.vdisk"); errno(err) != syscall.EIO {
		t.Errorf("a lost block: got %v", err)
	}
}

// TestTreePlan9Client has 9fans.net/go's client read a disk.
func TestTreePlan9Client(t *testing.T) {
	st := ventitest.NewMemory()
	s := serveTree(t, st, st)
	conn, err := client.NewConn(s.dial(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fsys, err := conn.Attach(nil, "glenda", "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Open("score/"+s.score+"/disk", plan9.OREAD)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, s.disk) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	d, err := fsys.Stat("score/" + s.score + "/disk")
	if err != nil || d.Length != uint64(len(s.disk)) || d.Mode != 0o444 {
		t.Errorf("stat: %v, %v", d, err)
	}
	if _, err := fsys.Open("score/nonsense/disk", plan9.OREAD); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("nonsense: got %v", err)
	}
}

// TestTreeP9Client has hugelgupf/p9's client, of the Linux dialect, read a
// disk.
func TestTreeP9Client(t *testing.T) {
	st := ventitest.NewMemory()
	s := serveTree(t, st, st)
	c, err := p9.NewClient(s.dial(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root, err := c.Attach("")
	if err != nil {
		t.Fatal(err)
	}
	_, f, err := root.Walk([]string{"score", s.score, "parts", "1", "data"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		t.Fatal(err)
	}
	want := s.disk[63*512 : (63+2048)*512]
	_, _, attr, err := f.GetAttr(p9.AttrMask{Size: true})
	if err != nil || attr.Size != uint64(len(want)) {
		t.Errorf("attributes: got %+v, %v", attr, err)
	}
	got := make([]byte, len(want)+1)
	n, err := f.ReadAt(got, 0)
	if err != nil && err != io.EOF || n != len(want) || !bytes.Equal(got[:n], want) {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

// TestTreeConcurrent reads pieces of several images at once, while fewer are
// kept open than are used.
func TestTreeConcurrent(t *testing.T) {
	st := ventitest.NewMemory()
	s := serveTree(t, st, st)
	var paths []string
	var disks [][]byte
	for i := range 4 {
		data := bytes.Repeat([]byte{byte(i + 1)}, 300000+i)
		res, err := Import(t.Context(), st, &memSource{data: data}, ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		paths, disks = append(paths, "score/"+res.Score.String()+"/disk"), append(disks, data)
	}
	root := s.attach(t, ninep.Linux)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 10 {
				k := (w + i) % len(paths)
				if got, err := readPath(t, root, paths[k]); err != nil || !bytes.Equal(got, disks[k]) {
					t.Errorf("%s: got %d bytes, %v", paths[k], len(got), err)
				}
			}
		})
	}
	wg.Wait()
}
