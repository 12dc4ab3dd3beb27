package fat

import (
	"encoding/binary"
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

// maxDirectory is the largest that a directory may be.
const maxDirectory = 65536 * direntSize

// A file is what a directory entry tells of.
type file struct {
	v     *volume
	info  fsys.FileInfo
	fixed bool   // the root directory of FAT12 and FAT16
	first uint32 // cluster, 0 of an empty file

	mu    sync.Mutex // guards chain; held while the table is read
	chain []uint32   // the clusters that are known
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
	if !fsys.IsFATBoot(b) {
		return nil, fsys.Uncertain("it has no boot sector")
	}
	v, err := unpackBoot(b)
	if err == nil || errors.Is(err, errMounted) {
		err = nil
		if v.size > size {
			err = fsys.Uncertain("the file system is larger than its region")
		}
	}
	if err != nil {
		return nil, err
	}
	v.r = r
	root := &file{v: v, info: fsys.FileInfo{ID: 1, Mode: fs.ModeDir | 0o755, Links: 1}, fixed: v.bits != 32, first: v.rootCluster}
	return root, nil
}

func (f *file) Info() fsys.FileInfo { return f.info }

// cluster returns the n-th cluster of the file, or 0 past its last.
func (f *file) cluster(n int64) (uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.chain) == 0 {
		if f.first == 0 {
			return 0, nil
		}
		if !f.v.exists(f.first) {
			return 0, fsys.Uncertain("a file begins at cluster %d", f.first)
		}
		f.chain = append(f.chain, f.first)
	}
	for int64(len(f.chain)) <= n {
		last := f.chain[len(f.chain)-1]
		next, err := f.v.next(last)
		if err != nil || next == 0 {
			return 0, err
		}
		if len(f.chain) > int(f.v.clusters) {
			return 0, fsys.Uncertain("a file has no end")
		}
		f.chain = append(f.chain, next)
	}
	return f.chain[n], nil
}

// next returns the cluster after another, or 0 if it is the last.
func (v *volume) next(cluster uint32) (uint32, error) {
	at := int64(cluster) * int64(v.bits) / 8
	b := make([]byte, 4)
	if err := disk.ReadFull(v.r, b[:(v.bits+7)/8], v.tableOff+at); err != nil {
		return 0, err
	}
	ones := uint32(0x0fffffff)
	n := binary.LittleEndian.Uint32(b) & ones
	if v.bits < 32 {
		ones = 1<<v.bits - 1
	}
	if v.bits == 12 && cluster%2 == 1 {
		n >>= 4
	}
	n &= ones
	switch {
	case n >= ones-15+entryLast:
		return 0, nil
	case !v.exists(n):
		return 0, fsys.Uncertain("cluster %d leads to %#x", cluster, n)
	}
	return n, nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.info.Mode.IsDir() {
		return 0, fs.ErrInvalid
	}
	if off < 0 || off >= f.info.Size {
		return 0, io.EOF
	}
	var end error
	if rest := f.info.Size - off; int64(len(p)) > rest {
		p, end = p[:rest], io.EOF
	}
	n, err := f.read(p, off)
	if err == nil && n < len(p) {
		err = fsys.Uncertain("a file of %d bytes ends at %d", f.info.Size, off+int64(n))
	}
	if err == nil {
		err = end
	}
	return n, err
}

// read reads from the clusters of a file or directory, as far as there are any.
func (f *file) read(p []byte, off int64) (n int, err error) {
	v := f.v
	if f.fixed {
		n := int(max(0, min(int64(len(p)), v.rootSize-off)))
		return n, disk.ReadFull(v.r, p[:n], v.rootOff+off)
	}
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
	for off := int64(0); off < f.info.Size; off += f.v.clusterSize {
		c, err := f.cluster(off / f.v.clusterSize)
		if err != nil {
			return nil, false, err
		}
		if c == 0 {
			break // it is damaged, as who reads it finds
		}
		if list = fsys.Join(list, fsys.Extent{Off: f.v.offset(c), Len: f.v.clusterSize}); len(list) > fsys.MaxExtents {
			return nil, false, nil
		}
	}
	return list, true, nil
}

// A directory entry (boot.go) is of
//
//	0x00 name[11] 0x0b attributes[1] 0x0c case[1] 0x14 clusterhi[2]
//	0x16 time[2]  0x18 date[2]       0x1a clusterlo[2] 0x1c size[4]
//
// where bits 3 and 4 of case say that the name and its ending are of small
// letters. In front of it may be its long name, from its end to its start, in
// entries of
//
//	0x00 order[1] name[10] attributes[1] 0[1] sum[1] name[12] 0[2] name[4]
//
// with thirteen letters of UTF-16, ended by 0. The first of them has bit 6 in
// its order, which counts down to 1; sum is of the short name.
const (
	attrReadOnly = 0x01
	attrDir      = 0x10
	caseName     = 0x08
	caseEnding   = 0x10
	longFirst    = 0x40
	longLetters  = 13
	maxLong      = 20
)

// Entries yields the files of a directory.
func (f *file) Entries() iter.Seq2[fsys.Entry, error] {
	return func(yield func(fsys.Entry, error) bool) {
		if !f.info.Mode.IsDir() {
			yield(fsys.Entry{}, fs.ErrInvalid)
			return
		}
		var long longName
		b := make([]byte, direntSize)
		for off := int64(0); off < maxDirectory; off += direntSize {
			n, err := f.read(b, off)
			if err != nil {
				yield(fsys.Entry{}, err)
				return
			}
			if n < direntSize || b[0] == 0 {
				return
			}
			attr := b[0x0b] & attrMask
			switch {
			case b[0] == 0xe5:
				long = longName{}
				continue
			case attr&attrLongName == attrLongName:
				long.add(b)
				continue
			case attr&attrLabel != 0 || b[0] == '.':
				long = longName{}
				continue
			}
			name := long.name(b)
			long = longName{}
			if name == "" || strings.ContainsAny(name, "/\x00") {
				continue
			}
			if !yield(fsys.Entry{Name: name, File: f.child(b, off)}, nil) {
				return
			}
		}
	}
}

// child returns the file of an entry at off.
func (f *file) child(b []byte, off int64) *file {
	le16 := func(off int) uint32 { return uint32(binary.LittleEndian.Uint16(b[off:])) }
	c := &file{v: f.v, first: le16(0x1a)}
	if f.v.bits == 32 {
		c.first |= le16(0x14) << 16
	}
	date, clock := le16(0x18), le16(0x16)
	c.info = fsys.FileInfo{
		Mode: 0o644, Size: int64(binary.LittleEndian.Uint32(b[0x1c:])), Links: 1,
		ModTime: time.Date(1980+int(date>>9), time.Month(date>>5&15), int(date&31), int(clock>>11), int(clock>>5&63), int(clock&31)*2, 0, time.UTC),
	}
	// A file is where its entry is: an empty one has no cluster.
	at := off + f.v.rootOff
	if !f.fixed {
		n, _ := f.cluster(off / f.v.clusterSize) // it has just been read
		at = f.v.offset(n) + off%f.v.clusterSize
	}
	c.info.ID = uint64(at)
	if b[0x0b]&attrReadOnly != 0 {
		c.info.Mode = 0o444
	}
	if b[0x0b]&attrDir != 0 {
		c.info.Mode, c.info.Size = fs.ModeDir|0o755, 0
	}
	return c
}

// Lookup returns a file of a directory. Large and small letters are the same,
// unless there are two that differ in nothing else.
func (f *file) Lookup(name string) (fsys.File, error) {
	var found fsys.File
	for e, err := range f.Entries() {
		if err != nil {
			return nil, err
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

// A longName is one that is being put together.
type longName struct {
	words []uint16 // the end of it
	next  byte     // order of the part that is to come
	sum   byte
	good  bool
}

func (l *longName) add(b []byte) {
	order := b[0] &^ longFirst
	switch {
	case b[0]&longFirst != 0 && order > 0 && order <= maxLong:
		*l = longName{next: order, sum: b[0x0d], good: true}
	case !l.good || order != l.next || b[0x0d] != l.sum:
		*l = longName{}
		return
	}
	l.next--
	var part []uint16
	for _, off := range [longLetters]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
		part = append(part, binary.LittleEndian.Uint16(b[off:]))
	}
	l.words = append(part, l.words...)
}

// name returns the name of the entry b: the long one, if it is its own.
func (l *longName) name(b []byte) string {
	sum := byte(0)
	for _, c := range b[:11] {
		sum = sum<<7 | sum>>1
		sum += c
	}
	if l.good && l.next == 0 && sum == l.sum {
		words := l.words
		for i, w := range words {
			if w == 0 {
				words = words[:i]
				break
			}
		}
		return string(utf16.Decode(words))
	}
	name := shortName(b[:8], b[0x0c]&caseName != 0)
	if ending := shortName(b[8:11], b[0x0c]&caseEnding != 0); ending != "" {
		name += "." + ending
	}
	return name
}

// upper are the letters of code page 437 from 0x80 on.
var upper = []rune("ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0")

// shortName decodes a part of a short name.
func shortName(b []byte, small bool) string {
	var s strings.Builder
	for i, c := range b {
		if i == 0 && c == 0x05 {
			c = 0xe5
		}
		if c >= 0x80 {
			s.WriteRune(upper[c-0x80])
		} else {
			s.WriteByte(c)
		}
	}
	name := strings.TrimRight(s.String(), " ")
	if small {
		name = strings.ToLower(name)
	}
	return name
}
