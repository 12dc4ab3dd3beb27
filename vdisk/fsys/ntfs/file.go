package ntfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/bits"
	"path"
	"strings"
	"time"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// The attribute attrInfo of a file is
//
//	0x00 created[8] 0x08 written[8] 0x10 changed[8] 0x18 read[8] 0x20 flags[4]
//
// with times in units of 100 ns since 1601. A reparse point stands for something
// that another driver makes of it:
//
//	0x00 tag[4] 0x04 length[2] 0x08 off[2] 0x0a length[2] 0x0c printoff[2] printlength[2]
//
// and, of a symbolic link, flags[4], and then names, of which off counts from
// there. The record of a file has the number of its names at 0x12.
const (
	attrInfo    = 0x10
	attrRoot    = 0x90 // of an index
	attrIndex   = 0xa0 // the blocks of one
	attrReparse = 0xc0

	infoLength   = 0x24
	infoReadOnly = 0x01
	recordLinks  = 0x12

	tagSymlink  = 0xa000000c
	tagJunction = 0xa0000003
	reparseHead = 0x10
	maxReparse  = 16 << 10

	firstUser = 16 // number of the first file that is not the file system's own
	epoch1601 = 116444736e9
)

// A directory is an index of names, a tree whose root is an attribute,
//
//	0x00 kind[4] collation[4] blocksize[4] 0x0c unit[1] ... 0x10 node
//
// and whose other nodes are blocks of another one:
//
//	0x00 magic[4] "INDX" 0x04 fixoffset[2] fixes[2] ... 0x10 number[8] 0x18 node
//
// A node is, with offsets from its own start,
//
//	0x00 entries[4] 0x04 end[4] 0x08 allocated[4] 0x0c flags[1]
//
// and an entry
//
//	0x00 file[8] 0x08 length[2] 0x0a keylength[2] 0x0c flags[2] 0x10 key ... child[8]
//
// where the key is a name (state.go), flag 1 says that there is a child, whose
// names are before this one, and flag 2 that it is the last, which has no key.
// Children are numbered in units of clusters, or of 512 bytes if the clusters
// are larger than the blocks.
const (
	magicIndex = "INDX"
	indexName  = "$\x00I\x003\x000\x00"
	rootHead   = 0x10
	blockHead  = 0x18
	entryHead  = 0x10
	entryChild = 1
	entryLast  = 2
	nameDOS    = 2 // in its space: another name stands for the file too
	maxIndex   = 64 << 10
	maxLevels  = 32
)

// A file is one in the file table.
type file struct {
	v     *volume
	info  fsys.FileInfo
	data  *stream // of a regular file
	err   error   // why that cannot be read
	other bool    // what is in it is not only in data
	root  *stream // of the index of a directory
	index *stream // nil if all of it is in the root
}

// Open returns the root directory of the file system in a region of size
// bytes, as it is on the disk, also of one that was not unmounted: what is in
// its log is not replayed. The error is that of reading, or says why there is
// nothing to be read.
func Open(r io.ReaderAt, size int64) (fsys.File, error) {
	b := make([]byte, bootSize)
	if size < bootSize {
		return nil, fsys.Uncertain("it is too short for a file system")
	}
	if err := disk.ReadFull(r, b, 0); err != nil {
		return nil, err
	}
	if !isBoot(b) {
		return nil, fsys.Uncertain("it has no boot sector")
	}
	v, err := unpackBoot(b)
	if err == nil && v.clusters*v.clusterSize > size {
		err = fsys.Uncertain("the file system is larger than its region")
	}
	if err != nil {
		return nil, err
	}
	v.r = r
	if err := v.openTable(); err != nil {
		return nil, err
	}
	root, err := v.openFile(recordRoot, -1)
	if err != nil {
		return nil, err
	}
	if !root.info.Mode.IsDir() {
		return nil, fsys.Uncertain("its root directory is none")
	}
	return root, nil
}

// openFile returns a file, whose record must have that sequence if it is not
// negative.
func (v *volume) openFile(number int64, sequence int) (*file, error) {
	r, err := v.file(number)
	if err != nil {
		return nil, err
	}
	if sequence >= 0 && int(r.sequence) != sequence {
		return nil, fsys.Uncertain("file %d is another than it was", number)
	}
	f := &file{v: v, info: fsys.FileInfo{ID: uint64(number), Mode: 0o644, Links: int(le16(r.b[recordLinks:]))}}
	known := false
	var reparse *attribute
	for a := range r.attributes() {
		switch {
		case a.kind == attrInfo && a.resident && len(a.value) >= infoLength:
			known = true
			f.info.ModTime = fileTime(le64(a.value[8:]))
			if le32(a.value[0x20:])&infoReadOnly != 0 {
				f.info.Mode = 0o444
			}
		case a.kind == attrReparse:
			reparse = a
		}
	}
	switch {
	case r.err != nil:
		return nil, r.err
	case !known:
		return nil, fsys.Uncertain("file %d has no attribute %#x", number, attrInfo)
	}
	if reparse != nil {
		if err := f.reparse(r); err != nil || f.info.Target != "" {
			return f, err
		}
	}
	if r.flags&flagDir != 0 {
		f.info.Mode = fs.ModeDir | 0o755
		return f, f.openIndex(r)
	}
	if f.data, err = v.stream(r, attrData, ""); err != nil {
		return nil, err
	}
	f.info.Size = f.data.size
	switch {
	case f.err != nil:
	case f.data.flags&attrEncrypted != 0:
		f.err = fsys.Uncertain("file %d is encrypted", number)
	case f.data.flags&attrCompressed != 0:
		f.err = fsys.Uncertain("file %d is compressed", number)
	}
	return f, nil
}

// fileTime converts a time.
func fileTime(t uint64) time.Time {
	n := int64(t) - epoch1601 // before 30828
	return time.Unix(n/10e6, n%10e6*100)
}

// reparse reads what a reparse point stands for.
func (f *file) reparse(r *record) error {
	s, err := f.v.stream(r, attrReparse, "")
	if err != nil {
		return err
	}
	bad := fsys.Uncertain("file %d is a bad reparse point", r.number)
	if s.size < reparseHead || s.size > maxReparse {
		return bad
	}
	b := make([]byte, s.size)
	if err := f.v.readStream(s, b, 0); err != nil {
		return err
	}
	tag, names := le32(b), reparseHead
	switch tag {
	case tagSymlink:
		names += 4
	case tagJunction:
	default:
		f.other, f.err = true, fsys.Uncertain("file %d is kept in a way of its own, %#x", r.number, tag)
		return nil
	}
	from := names + int(le16(b[8:]))
	to := from + int(le16(b[0xa:]))
	if to > len(b) || from == to {
		return bad
	}
	f.info.Target = strings.TrimPrefix(strings.ReplaceAll(text(b[from:to]), `\`, "/"), "/??/")
	f.info.Mode = fs.ModeSymlink | 0o777
	f.info.Size = int64(len(f.info.Target))
	return nil
}

// openIndex finds the index of a directory.
func (f *file) openIndex(r *record) (err error) {
	if f.root, err = f.v.stream(r, attrRoot, indexName); err != nil {
		return err
	}
	b := f.root.value
	if len(b) < rootHead+rootHead || le32(b) != attrName {
		return fsys.Uncertain("directory %d has a bad index", r.number)
	}
	if size := le32(b[8:]); size < fixStride || size > maxIndex || bits.OnesCount32(size) != 1 {
		return fsys.Uncertain("directory %d has blocks of %d bytes", r.number, size)
	}
	if b[rootHead+0xc]&entryChild != 0 {
		f.index, err = f.v.stream(r, attrIndex, indexName)
	}
	return err
}

func (f *file) Info() fsys.FileInfo { return f.info }

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case f.err != nil:
		return 0, f.err
	case f.data == nil:
		return 0, fs.ErrInvalid
	case off < 0 || off >= f.data.size:
		return 0, io.EOF
	}
	var end error
	if rest := f.data.size - off; int64(len(p)) > rest {
		p, end = p[:rest], io.EOF
	}
	if err := f.v.readStream(f.data, p, off); err != nil {
		return 0, err
	}
	return len(p), end
}

// Extents implements fsys.Mapped, also of what is compressed or encrypted.
func (f *file) Extents() (list []fsys.Extent, ok bool, err error) {
	switch {
	case f.other:
		return nil, false, f.err
	case f.data == nil:
		return nil, false, fs.ErrInvalid
	case f.data.value != nil:
		return nil, false, nil
	}
	at := int64(0)
	for _, x := range f.data.runs {
		n := x.length * f.v.clusterSize
		if have := max(0, min(n, f.data.initialized-at)); x.lcn >= 0 && have > 0 {
			list = fsys.Join(list, fsys.Extent{Off: x.lcn * f.v.clusterSize, Len: have})
			at, n = at+have, n-have
		}
		if n > 0 {
			list = fsys.Join(list, fsys.Extent{Off: fsys.Hole, Len: n})
			at += n
		}
		if len(list) > fsys.MaxExtents {
			return nil, false, nil
		}
	}
	return list, true, nil
}

// errEnough ends a walk of an index.
var errEnough = errors.New("enough")

// names calls found with the names in a directory and what they refer to, in the
// order of the index.
func (f *file) names(found func(name string, ref uint64) error) error {
	if f.root == nil {
		return fs.ErrInvalid
	}
	size := int64(le32(f.root.value[8:]))
	unit := f.v.clusterSize
	if unit > size {
		unit = fixStride
	}
	seen := make(map[int64]bool)
	var node func(b []byte, level int) error
	child := func(number int64, level int) error {
		bad := fsys.Uncertain("directory %d has a bad block %d of its index", f.info.ID, number)
		if f.index == nil || number < 0 || number > (f.index.size-size)/unit || seen[number] || level > maxLevels {
			return bad
		}
		seen[number] = true
		b := make([]byte, size)
		if err := f.v.readStream(f.index, b, number*unit); err != nil {
			return err
		}
		if string(b[:4]) != magicIndex || !fixUp(b) || int64(le64(b[0x10:])) != number {
			return bad
		}
		return node(b[blockHead:], level)
	}
	node = func(b []byte, level int) error {
		bad := fsys.Uncertain("directory %d has a bad index", f.info.ID)
		from, end := int64(le32(b)), int64(le32(b[4:]))
		if from < rootHead || end > int64(len(b)) || from > end {
			return bad
		}
		for b = b[from:end]; ; {
			if len(b) < entryHead {
				return bad
			}
			n, key, flags := int(le16(b[8:])), int(le16(b[0xa:])), le16(b[0xc:])
			if n < entryHead || n > len(b) || n%8 != 0 || entryHead+key > n {
				return bad
			}
			e := b[:n]
			b = b[n:]
			if flags&entryChild != 0 {
				if n < entryHead+8 {
					return bad
				}
				if err := child(int64(le64(e[n-8:])), level+1); err != nil {
					return err
				}
			}
			if flags&entryLast != 0 {
				return nil
			}
			value := e[entryHead : entryHead+key]
			_, name, ok := fileName(value)
			ref := le64(e)
			switch {
			case !ok || name == "" || strings.ContainsAny(name, "/\x00"):
				return bad
			case value[0x41] == nameDOS || refNumber(ref) < firstUser:
				continue
			}
			if err := found(name, ref); err != nil {
				return err
			}
		}
	}
	return node(f.root.value[rootHead:], 0)
}

// child returns the file that a reference is to.
func (f *file) child(ref uint64) (fsys.File, error) {
	c, err := f.v.openFile(refNumber(ref), int(ref>>48))
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Entries yields the files of a directory.
func (f *file) Entries() iter.Seq2[fsys.Entry, error] {
	return func(yield func(fsys.Entry, error) bool) {
		err := f.names(func(name string, ref uint64) error {
			c, err := f.child(ref)
			if !yield(fsys.Entry{Name: name, File: c}, err) {
				return errEnough
			}
			return nil
		})
		if err != nil && err != errEnough {
			yield(fsys.Entry{}, err)
		}
	}
}

// Lookup returns a file of a directory. Large and small letters are the same,
// unless there are two that differ in nothing else.
func (f *file) Lookup(name string) (fsys.File, error) {
	var ref uint64
	found := false
	err := f.names(func(n string, r uint64) error {
		switch {
		case n == name:
			ref, found = r, true
			return errEnough
		case !found && strings.EqualFold(n, name):
			ref, found = r, true
		}
		return nil
	})
	switch {
	case err != nil && err != errEnough:
		return nil, err
	case !found:
		return nil, fs.ErrNotExist
	}
	c, err := f.child(ref)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path.Base(name), err)
	}
	return c, nil
}
