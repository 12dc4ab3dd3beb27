package exfat

import (
	"errors"
	"io"
	"io/fs"
	"iter"
	"strings"
	"sync"
	"time"
	"unicode/utf16"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A file is a set of entries: that of the file, how many others belong to it,
// that of its contents, and those of its name, of fifteen letters each.
//
//	0x85 others[1] sum[2] attributes[2] ... 0x0c written[4] ... 0x15 hundredths[1]
//	     ... 0x17 zone[1]
//	0xc0 flags[1] ... 0x03 letters[1] ... 0x08 valid[8] ... 0x14 cluster[4] length[8]
//	0xc1 flags[1] letters[30]
//
// The sum is of all of them, but for itself. written is a time as FAT has it, of
// an hour's zone that is in the lower seven bits of zone, in quarters of an hour,
// if the highest is set. Bit 1 of the contents' flags says that they are in one
// piece, of which the table says nothing. What is past valid reads as zeros.
const (
	entryStream = 0xc0
	entryName   = 0xc1

	attrReadOnly = 0x01
	attrDir      = 0x10
	flagOnePiece = 1 << 1
	nameLetters  = 15
	maxOthers    = 18 // that anything is known of
)

// A file is one that entries tell of.
type file struct {
	v        *volume
	info     fsys.FileInfo
	first    int64 // cluster, 0 of an empty file
	onePiece bool
	size     int64 // also of a directory; of the root directory not known
	valid    int64

	mu    sync.Mutex // guards chain; held while the table is read
	chain []int64    // the clusters that are known
}

// Open returns the root directory of the file system in a region of size
// bytes, also of one that was not unmounted. The error is that of reading, or
// says why there is nothing to be read.
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
	v.r = r
	switch {
	case err != nil && !errors.Is(err, errMounted) && !errors.Is(err, errMedium):
		return nil, err
	case v.size > size:
		return nil, fsys.Uncertain("the file system is larger than its region")
	}
	if err := v.checkBoot(); err != nil {
		return nil, err
	}
	return &file{v: v, info: fsys.FileInfo{ID: 1, Mode: fs.ModeDir | 0o755, Links: 1}, first: v.rootCluster, size: maxRoot, valid: maxRoot}, nil
}

func (f *file) Info() fsys.FileInfo { return f.info }

// cluster returns the n-th cluster of the file, or 0 past its last.
func (f *file) cluster(n int64) (int64, error) {
	switch {
	case f.first == 0:
		return 0, nil
	case f.onePiece && n >= f.v.clustersOf(f.size):
		return 0, nil
	case f.onePiece && (!f.v.exists(f.first) || !f.v.exists(f.first+n)):
		return 0, fsys.Uncertain("a file goes on to cluster %d", f.first+n)
	case f.onePiece:
		return f.first + n, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var b [4]byte
	for next := f.first; int64(len(f.chain)) <= n; next = int64(le32(b[:])) {
		if len(f.chain) > 0 {
			if err := disk.ReadFull(f.v.r, b[:], f.v.tableOff+4*f.chain[len(f.chain)-1]); err != nil {
				return 0, err
			}
			next = int64(le32(b[:]))
		}
		switch {
		case next == lastCluster:
			return 0, nil
		case !f.v.exists(next) || int64(len(f.chain)) > f.v.clusters:
			return 0, fsys.Uncertain("a chain of clusters goes on to %#x", next)
		}
		f.chain = append(f.chain, next)
	}
	return f.chain[n], nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.info.Mode.IsDir() {
		return 0, fs.ErrInvalid
	}
	if off < 0 || off >= f.size {
		return 0, io.EOF
	}
	var end error
	if rest := f.size - off; int64(len(p)) > rest {
		p, end = p[:rest], io.EOF
	}
	have := p[:max(0, min(int64(len(p)), f.valid-off))]
	clear(p[len(have):])
	n, err := f.read(have, off)
	switch {
	case err == nil && n < len(have):
		err = fsys.Uncertain("a file of %d bytes ends at %d", f.size, off+int64(n))
	case err == nil:
		n, err = len(p), end
	}
	return n, err
}

// read reads from the clusters of a file or directory, as far as there are any.
func (f *file) read(p []byte, off int64) (n int, err error) {
	v := f.v
	return fsys.ReadClusters(v.r, p, off, v.clusterSize, func(n int64) (int64, error) {
		c, err := f.cluster(n)
		if err != nil || c == 0 {
			return -1, err
		}
		return v.offset(c), nil
	})
}

// Extents implements fsys.Mapped.
func (f *file) Extents() (list []fsys.Extent, ok bool, err error) {
	if f.info.Mode.IsDir() {
		return nil, false, fs.ErrInvalid
	}
	for off := int64(0); off < f.size; off += f.v.clusterSize {
		x := fsys.Extent{Off: fsys.Hole, Len: f.v.clusterSize}
		if off < f.valid {
			c, err := f.cluster(off / f.v.clusterSize)
			if err != nil {
				return nil, false, err
			}
			if c == 0 {
				break // it is damaged, as who reads it finds
			}
			x.Off = f.v.offset(c)
		} else {
			x.Len = f.size - off
		}
		if list = fsys.Join(list, x); len(list) > fsys.MaxExtents {
			return nil, false, nil
		}
		if x.Off == fsys.Hole {
			break
		}
	}
	return list, true, nil
}

// Entries yields the files of a directory.
func (f *file) Entries() iter.Seq2[fsys.Entry, error] {
	return func(yield func(fsys.Entry, error) bool) {
		if !f.info.Mode.IsDir() {
			yield(fsys.Entry{}, fs.ErrInvalid)
			return
		}
		b := make([]byte, direntSize)
		for off := int64(0); off < min(f.size, maxRoot); off += direntSize {
			n, err := f.read(b, off)
			if err != nil {
				yield(fsys.Entry{}, err)
				return
			}
			switch {
			case n < direntSize || b[0] == 0:
				return
			case b[0] != entryFile:
				continue
			}
			set := make([]byte, direntSize*(1+int(b[1])))
			if n, err = f.read(set, off); err != nil {
				yield(fsys.Entry{}, err)
				return
			}
			name, c := f.child(set[:n/direntSize*direntSize], off)
			if c == nil { // of which name it would be is not known either
				if !yield(fsys.Entry{Name: "?"}, fsys.Uncertain("bad entries of a file at %d of its directory", off)) {
					return
				}
				continue
			}
			if !yield(fsys.Entry{Name: name, File: c}, nil) {
				return
			}
			off += int64(len(set)) - direntSize
		}
	}
}

// child returns the file of a set of entries at off of the directory, or nil if
// they are damaged.
func (f *file) child(set []byte, off int64) (name string, c *file) {
	others := int(set[1])
	if others < 2 || others > maxOthers || len(set) != direntSize*(1+others) || set[direntSize] != entryStream {
		return "", nil
	}
	sum := uint16(0)
	for i, x := range set {
		if i != 2 && i != 3 {
			sum = sum<<15 | sum>>1
			sum += uint16(x)
		}
	}
	if sum != le16(set[2:]) {
		return "", nil
	}
	stream := set[direntSize:]
	var words []uint16
	for e := stream[direntSize:]; len(e) > 0 && e[0] == entryName; e = e[direntSize:] {
		for i := range nameLetters {
			words = append(words, le16(e[2+2*i:]))
		}
	}
	length, valid := le64(stream[0x18:]), le64(stream[8:])
	if n := int(stream[3]); n == 0 || n > len(words) || length > uint64(f.v.size) || valid > length {
		return "", nil
	}
	name = string(utf16.Decode(words[:stream[3]]))
	if name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", nil
	}
	c = &file{
		v: f.v, first: int64(le32(stream[0x14:])), onePiece: stream[1]&flagOnePiece != 0,
		size: int64(length), valid: int64(valid),
		info: fsys.FileInfo{Mode: 0o644, Size: int64(length), Links: 1, ModTime: written(set)},
	}
	// A file is where its entries are: an empty one has no cluster.
	at, _ := f.cluster(off / f.v.clusterSize) // it has just been read
	c.info.ID = uint64(f.v.offset(at) + off%f.v.clusterSize)
	attr := le16(set[4:])
	if attr&attrReadOnly != 0 {
		c.info.Mode = 0o444
	}
	if attr&attrDir != 0 {
		c.info.Mode, c.info.Size, c.valid = fs.ModeDir|0o755, 0, c.size
	}
	return name, c
}

// written returns when a file was written to.
func written(set []byte) time.Time {
	clock, date := le16(set[0x0c:]), le16(set[0x0e:])
	t := time.Date(1980+int(date>>9), time.Month(date>>5&15), int(date&31), int(clock>>11), int(clock>>5&63), int(clock&31)*2, int(set[0x15])*10e6, time.UTC)
	if zone := set[0x17]; zone&0x80 != 0 {
		t = t.Add(-time.Duration(int8(zone<<1)/2) * 15 * time.Minute)
	}
	return t
}

// Lookup returns a file of a directory. Large and small letters are the same,
// unless there are two that differ in nothing else.
func (f *file) Lookup(name string) (fsys.File, error) {
	var found fsys.File
	for e, err := range f.Entries() {
		if err != nil && e.Name == "" {
			return nil, err
		}
		if err != nil {
			continue
		}
		if e.Name == name {
			return e.File, nil
		}
		if found == nil && strings.EqualFold(e.Name, name) {
			found = e.File
		}
	}
	if found == nil {
		return nil, fs.ErrNotExist
	}
	return found, nil
}
