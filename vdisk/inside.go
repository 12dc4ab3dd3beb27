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
	"strata/vdisk/fsys/ext"
	"strata/vdisk/fsys/fat"
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
	}
	return nil
}

// hasFiles tells whether Files can read the partition or volume that region i
// begins.
func (im *Image) hasFiles(i int) bool {
	f := im.layout.Regions[i].FileSystem
	return f != nil && opener(f.Type) != nil
}

// find returns what is in a partition or logical volume, and its first region.
func (im *Image) find(part string) (data contents, region int, ok bool) {
	if i, ok := im.layout.Parts()[part]; ok {
		return im.partContents(i), i, true
	}
	if list := im.layout.volumes()[part]; list != nil {
		return &joined{im, list}, list[0], true
	}
	return nil, 0, false
}

// Files returns the root directory of the file system in a partition, which is
// called as in a Tree: its number, or 0 for a disk without a table, or such and
// a dot and the name of a logical volume. The error is ErrNoFiles, or says why
// it cannot be read.
func (im *Image) Files(part string) (fsys.File, error) {
	data, i, ok := im.find(part)
	if !ok || !im.hasFiles(i) {
		return nil, fmt.Errorf("partition %s: %w", part, ErrNoFiles)
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	if f := im.files[i]; f != nil {
		return f, nil
	}
	r := &im.layout.Regions[i]
	// A lock is held while the archive is read: only others who want the same
	// thing, or to look into another partition, wait.
	f, err := opener(r.FileSystem.Type)(patientReader{data}, data.Size())
	if err != nil {
		return nil, fmt.Errorf("partition %s: %w", part, err)
	}
	if im.files == nil {
		im.files = make(map[int]fsys.File)
	}
	im.files[i] = f
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
	root := func() (fsys.File, error) {
		f, err := im.Files(part)
		if err != nil {
			return nil, insideError(err)
		}
		return f, nil
	}
	d := dirStat("fs", id)
	d.Qid.Vers = 1
	return ninep.LookupDir(d, func(_ context.Context, name string) (ninep.Node, error) {
		f, err := root()
		if err != nil {
			return nil, err
		}
		return t.lookInside(f, name, id)
	}, func(context.Context) ([]ninep.Dir, error) {
		f, err := root()
		if err != nil {
			return nil, err
		}
		return listInside(f, id)
	})
}

// lookInside returns the node of a file in a directory inside a partition.
func (t *Tree) lookInside(dir fsys.File, name, id string) (ninep.Node, error) {
	f, err := dir.Lookup(name)
	if err != nil {
		return nil, insideError(err)
	}
	d := insideDir(name, f.Info(), id)
	switch {
	case d.Mode.Dir():
		return ninep.LookupDir(d, func(_ context.Context, name string) (ninep.Node, error) {
			return t.lookInside(f, name, id)
		}, func(context.Context) ([]ninep.Dir, error) {
			return listInside(f, id)
		}), nil
	case f.Info().Mode.IsRegular():
		return ninep.NewFile(d, insideReader{t, f}), nil
	}
	return ninep.NewFile(d, ninep.FromReaderAt(strings.NewReader(""))), nil
}

// listInside lists a directory inside a partition. What is damaged is left
// out.
func listInside(dir fsys.File, id string) ([]ninep.Dir, error) {
	var list []ninep.Dir
	for e, err := range dir.Entries() {
		switch {
		case err != nil && e.Name == "":
			return nil, insideError(err)
		case err == nil:
			list = append(list, insideDir(e.Name, e.File.Info(), id))
		}
	}
	return list, nil
}

// insideDir describes a file inside a partition.
func insideDir(name string, info fsys.FileInfo, id string) ninep.Dir {
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
	d.Qid = ninep.Qid{Path: ninep.QidPath(fmt.Sprint(id, "/", info.ID)), Vers: 1, Type: d.Mode.QidType()}
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
