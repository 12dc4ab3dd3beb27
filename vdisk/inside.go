package vdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"syscall"

	"strata/internal/ninep"
	"strata/vdisk/fsys"
	"strata/vdisk/fsys/exfat"
	"strata/vdisk/fsys/ext"
	"strata/vdisk/fsys/fat"
	"strata/vdisk/fsys/ntfs"
)

// ErrNoFiles says that there is nothing to be looked into: no such partition,
// or none with a file system that can be read.
var ErrNoFiles = errors.New("no file system that can be read")

// opener returns what reads the files of a kind of file system, or nil.
func opener(kind string) func(r io.ReaderAt, size int64) (fsys.File, error) {
	switch kind {
	case "ext2", "ext3", "ext4":
		return ext.Open
	case "vfat":
		return fat.Open
	case "exfat":
		return exfat.Open
	case "ntfs":
		return ntfs.Open
	}
	return nil
}

// HasFiles tells whether OpenFiles can read the partition or volume that r is
// the first region of.
func (r *Region) HasFiles() bool {
	return r.FileSystem != nil && opener(r.FileSystem.Type) != nil
}

// OpenFiles returns the root directory of the file system in a partition of a
// disk with this layout, which read reads. The partition is called as in a Tree:
// its number, or 0 for a disk without a table, or such and a dot and the name of
// a logical volume. The error is ErrNoFiles, or says why it cannot be read.
func (l *Layout) OpenFiles(part string, read ReadFunc) (fsys.File, error) {
	p, ok := l.Places()[part]
	if !ok || !l.Regions[p.Region].HasFiles() {
		return nil, fmt.Errorf("partition %s: %w", part, ErrNoFiles)
	}
	r := &placeReader{p, read}
	f, err := opener(l.Regions[p.Region].FileSystem.Type)(patientReader{r}, r.Size())
	if err != nil {
		return nil, fmt.Errorf("partition %s: %w", part, err)
	}
	return f, nil
}

// contents returns what is in a partition or a logical volume.
func (im *Image) contents(p Place) contents {
	if len(p.Runs) == 1 && im.layout.Regions[p.Region].Volume == nil {
		return im.partContents(p.Region)
	}
	return &placeReader{p, im.ReadAtContext}
}

// Files returns the root directory of the file system in a partition: see
// Layout.OpenFiles.
func (im *Image) Files(part string) (fsys.File, error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if f := im.files[part]; f != nil {
		return f, nil
	}
	// A lock is held while the archive is read: only others who want the same
	// thing, or to look into another partition, wait.
	f, err := im.layout.OpenFiles(part, im.ReadAtContext)
	if err != nil {
		return nil, err
	}
	if im.files == nil {
		im.files = make(map[string]fsys.File)
	}
	im.files[part] = f
	return f, nil
}

// A patientReader reads what file systems are made of.
//
// BUG: it goes on when the client who wanted it has gone away.
type patientReader struct{ contents }

func (r patientReader) ReadAt(p []byte, off int64) (int, error) {
	return r.ReadAtContext(context.Background(), p, off)
}

// maxLinks is how many symbolic links WalkFiles follows.
const maxLinks = 40

// WalkFiles returns the file that a path names below root. Symbolic links on
// the way are followed, inside the file system, and one at its end if follow.
func WalkFiles(root fsys.File, path string, follow bool) (fsys.File, error) {
	stack := []fsys.File{root} // the directories from root on, and last the file
	rest := strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		at := stack[len(stack)-1]
		switch {
		case name == "" || name == ".":
			continue
		case name == "..":
			stack = stack[:max(1, len(stack)-1)]
			continue
		case !at.Info().Mode.IsDir():
			return nil, &fs.PathError{Op: "walk", Path: path, Err: syscall.ENOTDIR}
		}
		f, err := at.Lookup(name)
		if err != nil {
			return nil, &fs.PathError{Op: "walk", Path: path, Err: err}
		}
		if info := f.Info(); info.Mode.Type() == fs.ModeSymlink && (follow || len(rest) > 0) {
			if links++; links > maxLinks {
				return nil, &fs.PathError{Op: "walk", Path: path, Err: syscall.ELOOP}
			}
			if strings.HasPrefix(info.Target, "/") {
				stack = stack[:1]
			}
			rest = append(strings.Split(info.Target, "/"), rest...)
			continue
		}
		stack = append(stack, f)
	}
	return stack[len(stack)-1], nil
}

// filesDir returns the directory fs of a partition, which is opened when it is
// looked into.
func (t *Tree) filesDir(im *Image, part, id string) ninep.Node {
	d := dirStat("fs", id)
	d.Qid.Vers = 1
	return t.FilesDir(d, id, false, func(context.Context) (Opened, error) {
		f, err := im.Files(part)
		return Opened{File: f, Vers: 1}, err
	})
}

// Opened is a file inside a partition that somebody uses.
type Opened struct {
	fsys.File
	Vers uint32 // of its qid
	Done func() // ends the use; may be nil
}

func (o Opened) done() {
	if o.Done != nil {
		o.Done()
	}
}

// FilesDir returns a directory, described by d, whose contents are those of the
// root directory of a file system. id is what the qids of the files in it are made
// from. If the file system may change, each file is looked for again, from root
// on, whenever something is asked of it; what is open stays what it was.
func (t *Tree) FilesDir(d ninep.Dir, id string, changes bool, root func(ctx context.Context) (Opened, error)) ninep.Node {
	d.Mode |= ninep.ModeDir
	d.Qid.Type |= ninep.QTDir
	return &insideNode{tree: t, id: id, changes: changes, top: &d, name: d.Name, qid: d.Qid, find: root}
}

// An insideNode is a file inside a partition.
type insideNode struct {
	tree    *Tree
	id      string
	changes bool
	top     *ninep.Dir // what describes the root directory; nil of others
	name    string
	qid     ninep.Qid
	find    func(ctx context.Context) (Opened, error)
}

// use finds the file.
func (n *insideNode) use(ctx context.Context) (Opened, error) {
	o, err := n.find(ctx)
	if err != nil {
		return o, insideError(err)
	}
	return o, nil
}

// Qid implements ninep.Node: a version is that of when it was walked to.
func (n *insideNode) Qid() ninep.Qid { return n.qid }

// dir describes the file.
func (n *insideNode) dir(o Opened) ninep.Dir {
	if n.top != nil {
		d := *n.top
		d.Qid.Vers = o.Vers
		return d
	}
	return insideDir(n.name, o, n.id)
}

// Stat implements ninep.Node. The root directory need not be opened.
func (n *insideNode) Stat(ctx context.Context) (ninep.Dir, error) {
	if n.top != nil && !n.changes {
		return *n.top, nil
	}
	o, err := n.use(ctx)
	if err != nil {
		return ninep.Dir{}, err
	}
	defer o.done()
	return n.dir(o), nil
}

// Walk implements ninep.Node.
func (n *insideNode) Walk(ctx context.Context, name string) (ninep.Node, error) {
	find := func(ctx context.Context) (Opened, error) {
		o, err := n.find(ctx)
		if err != nil {
			return o, err
		}
		if o.File, err = o.Lookup(name); err != nil {
			o.done()
		}
		return o, err
	}
	c := &insideNode{tree: n.tree, id: n.id, changes: n.changes, name: name, find: find}
	o, err := c.use(ctx)
	if err != nil {
		return nil, err
	}
	c.qid = c.dir(o).Qid
	if n.changes {
		o.done()
	} else {
		c.find = func(context.Context) (Opened, error) { return o, nil }
	}
	return c, nil
}

// Open implements ninep.Node.
func (n *insideNode) Open(ctx context.Context, mode ninep.OpenMode) (ninep.Handle, error) {
	o, err := n.use(ctx)
	if err != nil {
		return nil, err
	}
	d := n.dir(o)
	if d.Mode.Dir() {
		defer o.done()
		return ninep.LookupDir(d, nil, func(context.Context) ([]ninep.Dir, error) { return listInside(o, n.id) }).Open(ctx, mode)
	}
	var r ninep.Reader = insideReader{n.tree, o.File}
	if !o.Info().Mode.IsRegular() {
		r = ninep.FromReaderAt(strings.NewReader(""))
	}
	h, err := ninep.NewFile(d, r).Open(ctx, mode)
	if err != nil {
		o.done()
		return nil, err
	}
	return insideHandle{h.(ninep.Reader), o}, nil
}

// An insideHandle is an open file.
type insideHandle struct {
	ninep.Reader
	o Opened
}

// Close implements ninep.Handle.
func (h insideHandle) Close(context.Context) error {
	h.o.done()
	return nil
}

// listInside lists a directory inside a partition. What is damaged is left
// out.
func listInside(dir Opened, id string) ([]ninep.Dir, error) {
	var list []ninep.Dir
	for e, err := range dir.Entries() {
		switch {
		case err != nil && e.Name == "":
			return nil, insideError(err)
		case err == nil:
			list = append(list, insideDir(e.Name, Opened{File: e.File, Vers: dir.Vers}, id))
		}
	}
	return list, nil
}

// insideDir describes a file inside a partition.
func insideDir(name string, o Opened, id string) ninep.Dir {
	info := o.Info()
	d := ninep.Dir{
		Name: name, Mode: ninep.Mode(info.Mode.Perm()), Length: info.Size, Mtime: info.ModTime, Links: info.Links, Target: info.Target,
		UID: strconv.FormatUint(uint64(info.UID), 10), GID: strconv.FormatUint(uint64(info.GID), 10),
	}
	switch info.Mode.Type() {
	case fs.ModeDir:
		d.Mode |= ninep.ModeDir
		d.Length = 0
	case fs.ModeSymlink:
		d.Mode |= ninep.ModeSymlink
	case fs.ModeNamedPipe:
		d.Mode |= ninep.ModePipe
	case fs.ModeSocket:
		d.Mode |= ninep.ModeSocket
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		d.Mode |= ninep.ModeDevice
		d.Device = ninep.Device{Block: info.Mode&fs.ModeCharDevice == 0, Major: info.Major, Minor: info.Minor}
	}
	for bit, mode := range map[fs.FileMode]ninep.Mode{fs.ModeSetuid: ninep.ModeSetuid, fs.ModeSetgid: ninep.ModeSetgid, fs.ModeSticky: ninep.ModeSticky} {
		if info.Mode&bit != 0 {
			d.Mode |= mode
		}
	}
	d.Qid = ninep.Qid{Path: ninep.QidPath(fmt.Sprint(id, "/", info.ID)), Vers: o.Vers, Type: d.Mode.QidType()}
	return d
}

// insideError is what a client is told when a file system cannot be read.
func insideError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrNoFiles):
		return ninep.ErrNotExist
	case errors.Is(err, fs.ErrInvalid):
		return ninep.ErrInvalid
	}
	return fmt.Errorf("file system i/o error: %w", err)
}

// An insideReader reads a file inside a partition for clients.
type insideReader struct {
	tree *Tree
	f    fsys.File
}

func (r insideReader) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := r.f.ReadAt(p, off)
	r.tree.reads.Add(1)
	r.tree.bytes.Add(int64(n))
	if err != nil && err != io.EOF {
		return n, insideError(err)
	}
	return n, err
}
