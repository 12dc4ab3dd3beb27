package ext

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/bits"
	"time"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

const (
	rootInode   = 2
	flagEncrypt = 0x800
	typeMask    = 0xf000
	fastLink    = 60 // a shorter target is in the inode itself

	// maxTarget is the longest symbolic link, and maxDirectory the largest
	// directory that is read.
	maxTarget    = 64 << 10
	maxDirectory = 4 << 30
)

// A file is an inode.
type file struct {
	v      *volume
	number uint32
	inode  []byte
	seed   uint32 // of its checksums
	flags  uint32
	info   fsys.FileInfo
}

// Open returns the root directory of the file system in a region of size
// bytes. A journal that a driver would replay counts as if it were. The error
// is that of reading, or says why there is nothing to be read.
func Open(r io.ReaderAt, size int64) (fsys.File, error) {
	b := make([]byte, superSize)
	if size < superOff+superSize {
		return nil, fsys.Uncertain("it is too short for a file system")
	}
	if err := disk.ReadFull(r, b, superOff); err != nil {
		return nil, err
	}
	if !isSuper(b) {
		return nil, fsys.Uncertain("it has no superblock")
	}
	s, err := unpackSuper(b)
	if err == nil && s.blocks > uint64(size)/s.blockSize {
		err = fsys.Uncertain("the file system is larger than its region")
	}
	if err != nil {
		return nil, err
	}
	v := &volume{super: s, r: r}
	if err := v.open(); err != nil {
		return nil, err
	}
	return v.file(rootInode)
}

// readMeta fills b with a block as a replay of the journal leaves it.
func (v *volume) readMeta(n uint64, b []byte) error {
	if v.journal == nil || len(v.journal.copies) == 0 {
		return v.readBlock(n, b)
	}
	if !v.journal.has(n) {
		return v.readBlock(n, b)
	}
	copies, last, err := v.journal.find(n)
	if err != nil {
		return err
	}
	if last < 0 {
		return v.readBlock(n, b)
	}
	return v.journal.readCopy(copies[last], b)
}

// file returns the file of an inode.
func (v *volume) file(number uint32) (*file, error) {
	inode, seed, err := v.readInode(number)
	if err != nil {
		return nil, err
	}
	le16 := func(off int) uint32 { return uint32(binary.LittleEndian.Uint16(inode[off:])) }
	le32 := func(off int) uint32 { return binary.LittleEndian.Uint32(inode[off:]) }
	f := &file{v: v, number: number, inode: inode, seed: seed, flags: le32(0x20)}
	size := uint64(le32(0x04)) | uint64(le32(0x6c))<<32
	if size > 1<<62 {
		return nil, fsys.Uncertain("inode %d is of %d bytes", number, size)
	}
	f.info = fsys.FileInfo{
		ID: uint64(number), Mode: fileMode(le16(0)), Size: int64(size), ModTime: time.Unix(int64(int32(le32(0x10))), 0),
		UID: le16(0x02) | le16(0x78)<<16, GID: le16(0x18) | le16(0x7a)<<16, Links: int(le16(0x1a)),
	}
	if len(inode) > 0x8c && le16(0x80) >= 0x0c { // the time goes on behind the old inode
		extra := le32(0x88)
		f.info.ModTime = time.Unix(int64(int32(le32(0x10)))+int64(extra&3)<<32, int64(extra>>2))
	}
	switch f.info.Mode.Type() {
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		f.info.Size = 0
		if old := le32(0x28); old != 0 {
			f.info.Major, f.info.Minor = old>>8&0xff, old&0xff
		} else {
			n := le32(0x2c)
			f.info.Major, f.info.Minor = n>>8&0xfff, n&0xff|n>>12&0xfff00
		}
	case fs.ModeSymlink:
		f.info.Target, err = f.target()
	case fs.ModeDir:
		f.info.Size = 0
	case fs.ModeIrregular:
		err = fsys.Uncertain("inode %d is of no known kind", number)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// fileMode returns a mode of Linux in Go's form.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for i, bit := range [...]fs.FileMode{fs.ModeSticky, fs.ModeSetgid, fs.ModeSetuid} {
		if m>>(9+i)&1 != 0 {
			mode |= bit
		}
	}
	switch m & typeMask {
	case 0x1000:
		return mode | fs.ModeNamedPipe
	case 0x2000:
		return mode | fs.ModeDevice | fs.ModeCharDevice
	case 0x4000:
		return mode | fs.ModeDir
	case 0x6000:
		return mode | fs.ModeDevice
	case 0x8000:
		return mode
	case 0xa000:
		return mode | fs.ModeSymlink
	case 0xc000:
		return mode | fs.ModeSocket
	}
	return mode | fs.ModeIrregular
}

func (f *file) Info() fsys.FileInfo { return f.info }

// target reads a symbolic link.
func (f *file) target() (string, error) {
	n := f.info.Size
	switch {
	case f.flags&flagEncrypt != 0:
		return "", errEncrypted
	case n < fastLink && f.flags&(flagExtents|flagInline) == 0:
		return string(f.inode[0x28:][:n]), nil
	case n > maxTarget:
		return "", fsys.Uncertain("a symbolic link of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := f.readAt(b, 0); err != nil && err != io.EOF {
		return "", err
	}
	return string(b), nil
}

var errEncrypted = fsys.Uncertain("it is encrypted")

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case !f.info.Mode.IsRegular():
		return 0, fs.ErrInvalid
	case f.flags&flagEncrypt != 0:
		return 0, errEncrypted
	}
	return f.readAt(p, off)
}

// readAt reads the contents of any kind of file.
func (f *file) readAt(p []byte, off int64) (n int, err error) {
	size := f.size()
	if off < 0 || off >= size {
		return 0, io.EOF
	}
	if rest := size - off; int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	if f.flags&flagInline != 0 {
		return f.readInline(p, off, err)
	}
	for n < len(p) {
		m, err := f.readRun(p[n:], off+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, err
}

// size returns the bytes of the contents; what people see of directories is 0.
func (f *file) size() int64 {
	return int64(binary.LittleEndian.Uint32(f.inode[4:])) | int64(binary.LittleEndian.Uint32(f.inode[0x6c:]))<<32
}

// readRun reads from one run of blocks, at least a byte.
func (f *file) readRun(p []byte, off int64) (int, error) {
	bs := int64(f.v.blockSize)
	at, length, err := f.find(uint64(off / bs))
	if err != nil {
		return 0, fmt.Errorf("inode %d: %w", f.number, err)
	}
	skip := off % bs
	if have := int64(min(length, 1<<20))*bs - skip; int64(len(p)) > have {
		p = p[:have]
	}
	if at == 0 {
		clear(p)
		return len(p), nil
	}
	if len(f.v.journal.copies) > 0 {
		// Contents may be in the journal too.
		b := make([]byte, bs)
		if err := f.v.readMeta(at, b); err != nil {
			return 0, err
		}
		return copy(p, b[skip:]), nil
	}
	return len(p), disk.ReadFull(f.v.r, p, int64(at)*bs+skip)
}

// Extents implements fsys.Mapped.
func (f *file) Extents() (list []fsys.Extent, ok bool, err error) {
	switch {
	case !f.info.Mode.IsRegular() || f.flags&flagEncrypt != 0:
		return nil, false, fs.ErrInvalid
	case f.flags&flagInline != 0 || f.v.journal != nil && len(f.v.journal.copies) > 0:
		return nil, false, nil
	}
	bs := int64(f.v.blockSize)
	for off := int64(0); off < f.info.Size; {
		at, length, err := f.find(uint64(off / bs))
		if err != nil {
			return nil, false, fmt.Errorf("inode %d: %w", f.number, err)
		}
		x := fsys.Extent{Off: int64(at) * bs, Len: int64(min(length, 1<<40)) * bs}
		if at == 0 {
			x.Off = fsys.Hole
		}
		if list = fsys.Join(list, x); len(list) > fsys.MaxExtents {
			return nil, false, nil
		}
		off += x.Len
	}
	return list, true, nil
}

// find returns where a block of the file lies, 0 for a hole, and for how many
// blocks that goes on.
func (f *file) find(logical uint64) (at, length uint64, err error) {
	blocks := f.inode[0x28:][:60]
	if f.flags&flagExtents != 0 {
		return f.findExtent(blocks, logical, -1, 1<<32)
	}
	return f.findPointer(blocks, logical)
}

// findExtent looks in a node of an extent tree, of a depth that its parent
// makes, or -1, which leads to what lies below end.
func (f *file) findExtent(b []byte, logical uint64, depth int, end uint64) (at, length uint64, err error) {
	entries := int(binary.LittleEndian.Uint16(b[2:]))
	room := int(binary.LittleEndian.Uint16(b[4:]))
	own := int(binary.LittleEndian.Uint16(b[6:]))
	if binary.LittleEndian.Uint16(b) != nodeMagic || entries > room || nodeHeader+room*nodeEntry > len(b) || own > maxDepth || depth >= 0 && own != depth {
		return 0, 0, fsys.Uncertain("bad extent tree")
	}
	if depth >= 0 && f.v.csum() {
		sum := nodeHeader + room*nodeEntry
		if sum+4 > len(b) || crc32c(f.seed, b[:sum]) != binary.LittleEndian.Uint32(b[sum:]) {
			return 0, 0, fsys.Uncertain("bad checksum of an extent tree")
		}
	}
	if logical >= end {
		return 0, 0, fsys.Uncertain("bad extent tree")
	}
	entry := func(i int) []byte { return b[nodeHeader+i*nodeEntry:] }
	i := -1 // the last entry that begins at or before logical
	for i+1 < entries && uint64(binary.LittleEndian.Uint32(entry(i+1))) <= logical {
		i++
	}
	if i+1 < entries {
		end = min(end, uint64(binary.LittleEndian.Uint32(entry(i+1))))
	}
	if i < 0 {
		return 0, end - logical, nil
	}
	e := entry(i)
	first := uint64(binary.LittleEndian.Uint32(e))
	if own > 0 {
		child := make([]byte, f.v.blockSize)
		leaf := uint64(binary.LittleEndian.Uint32(e[4:])) | uint64(binary.LittleEndian.Uint16(e[8:]))<<32
		if err := f.v.readMeta(leaf, child); err != nil {
			return 0, 0, err
		}
		return f.findExtent(child, logical, own-1, end)
	}
	n := uint64(binary.LittleEndian.Uint16(e[4:]))
	start := uint64(binary.LittleEndian.Uint32(e[8:])) | uint64(binary.LittleEndian.Uint16(e[6:]))<<32
	hole := n > maxLength // not written yet
	if hole {
		n -= maxLength
	}
	switch skip := logical - first; {
	case skip >= n:
		return 0, end - logical, nil
	case hole:
		return 0, n - skip, nil
	case start == 0 || start >= f.v.blocks || n > f.v.blocks-start:
		return 0, 0, fsys.Uncertain("an extent at block %d", start)
	default:
		return start + skip, n - skip, nil
	}
}

// findPointer looks in the fifteen block numbers of an inode.
func (f *file) findPointer(b []byte, logical uint64) (at, length uint64, err error) {
	per := f.v.blockSize / 4 // numbers in a block
	shift := uint64(bits.TrailingZeros64(per))
	if logical < 12 {
		return f.pointer(b, logical, 1)
	}
	logical -= 12
	for level := uint64(1); level <= 3; level++ {
		if n := uint64(1) << (shift * level); logical >= n {
			logical -= n
			continue
		}
		at, length, err = f.pointer(b, 11+level, 1)
		if err != nil || at == 0 {
			return 0, 1<<(shift*level) - logical, err
		}
		for l := level; l > 0; l-- {
			block := make([]byte, f.v.blockSize)
			if err := f.v.readMeta(at, block); err != nil {
				return 0, 0, err
			}
			at, length, err = f.pointer(block, logical>>(shift*(l-1))%per, per)
			if err != nil || at == 0 {
				below := uint64(1) << (shift * (l - 1)) // blocks that one number leads to
				return 0, below - logical%below, err
			}
		}
		return at, length, nil
	}
	return 0, 0, fsys.Uncertain("block %d is past the largest file", logical)
}

// pointer returns the i-th of n numbers, and how many that follow go on with
// it.
func (f *file) pointer(b []byte, i, n uint64) (at, length uint64, err error) {
	at = uint64(binary.LittleEndian.Uint32(b[4*i:]))
	if at >= f.v.blocks {
		return 0, 0, fsys.Uncertain("a block at %d", at)
	}
	for length = 1; at != 0 && i+length < n && uint64(binary.LittleEndian.Uint32(b[4*(i+length):])) == at+length && at+length < f.v.blocks; length++ {
	}
	return at, length, nil
}

// Extended attributes in an inode lie behind its extra fields:
//
//	magic[4] 0xea020000, and then entries
//	namelength[1] kind[1] offset[2] inode[4] size[4] hash[4] name, to 4 bytes
//
// with four bytes of 0 after the last; offset is that of the value, from the
// first entry. The rest of an inline file is the value of kind 7, "data".
const (
	attrMagic  = 0xea020000
	attrEntry  = 16
	attrSystem = 7
	inlineHead = 60
)

// inlineRest returns what of an inline file is among the attributes.
func (f *file) inlineRest() ([]byte, error) {
	if len(f.inode) <= 0x84 {
		return nil, nil
	}
	at := 0x80 + int(binary.LittleEndian.Uint16(f.inode[0x80:]))
	if at+8 > len(f.inode) || binary.LittleEndian.Uint32(f.inode[at:]) != attrMagic {
		return nil, nil
	}
	area := f.inode[at+4:]
	for e := area; len(e) >= attrEntry && binary.LittleEndian.Uint32(e) != 0; {
		n := int(e[0])
		if attrEntry+n > len(e) {
			break
		}
		if e[1] == attrSystem && string(e[attrEntry:attrEntry+n]) == "data" {
			off, size := uint64(binary.LittleEndian.Uint16(e[2:])), uint64(binary.LittleEndian.Uint32(e[8:]))
			if binary.LittleEndian.Uint32(e[4:]) != 0 || off > uint64(len(area)) || size > uint64(len(area))-off {
				break
			}
			return area[off : off+size], nil
		}
		e = e[min(len(e), (attrEntry+n+3)&^3):]
	}
	return nil, nil
}

// readInline reads from a file that is in its inode. end is what to return
// when all went well.
func (f *file) readInline(p []byte, off int64, end error) (int, error) {
	rest, err := f.inlineRest()
	if err != nil {
		return 0, err
	}
	data := append(bytes.Clone(f.inode[0x28:][:inlineHead]), rest...)
	if off+int64(len(p)) > int64(len(data)) {
		return 0, fsys.Uncertain("inode %d has %d bytes in it of %d", f.number, len(data), f.size())
	}
	return copy(p, data[off:]), end
}

// A directory is blocks of entries, which are read one after the other: the
// index of a large one looks like entries that are not in use.
//
//	inode[4] length[2] namelength[1] type[1] name
//
// Inode 0 is of an entry not in use. A length of 65535 or 0 is a block of 64
// KiB. Without the feature filetype namelength is of two bytes. A directory in
// its inode has the number of the one above first, then such entries, and such
// entries again among the attributes.
const (
	direntHeader     = 8
	incompatFiletype = 0x2
)

// Entries yields the files of a directory.
func (f *file) Entries() iter.Seq2[fsys.Entry, error] {
	return func(yield func(fsys.Entry, error) bool) {
		err := f.dirents(func(name string, number uint32) bool {
			child, err := f.v.file(number)
			if err != nil {
				return yield(fsys.Entry{Name: name}, err)
			}
			return yield(fsys.Entry{Name: name, File: child}, nil)
		})
		if err != nil {
			yield(fsys.Entry{}, err)
		}
	}
}

// Lookup returns a file of a directory.
func (f *file) Lookup(name string) (fsys.File, error) {
	found := uint32(0)
	err := f.dirents(func(n string, number uint32) bool {
		if n == name {
			found = number
		}
		return found == 0
	})
	if err != nil {
		return nil, err
	}
	if found == 0 {
		return nil, fs.ErrNotExist
	}
	return f.v.file(found)
}

// dirents calls each with the names in a directory and their inodes until it
// returns false.
func (f *file) dirents(each func(name string, number uint32) bool) error {
	switch {
	case !f.info.Mode.IsDir():
		return fs.ErrInvalid
	case f.flags&flagEncrypt != 0:
		return errEncrypted
	case f.size() > maxDirectory:
		return fsys.Uncertain("directory %d is of %d bytes", f.number, f.size())
	}
	if f.flags&flagInline != 0 {
		if more, err := f.direntsIn(f.inode[0x28+4:][:inlineHead-4], each); err != nil || !more {
			return err
		}
		rest, err := f.inlineRest()
		if err != nil {
			return err
		}
		_, err = f.direntsIn(rest, each)
		return err
	}
	b := make([]byte, f.v.blockSize)
	for off := int64(0); off < f.size(); off += int64(len(b)) {
		if _, err := f.readAt(b, off); err != nil && err != io.EOF {
			return err
		}
		if more, err := f.direntsIn(b, each); err != nil || !more {
			return err
		}
	}
	return nil
}

// direntsIn does so for a run of entries. It reports whether more is wanted.
func (f *file) direntsIn(b []byte, each func(name string, number uint32) bool) (bool, error) {
	for len(b) >= direntHeader {
		number := binary.LittleEndian.Uint32(b)
		length := int(binary.LittleEndian.Uint16(b[4:]))
		if length == 0 || length == 0xffff {
			length = 64 << 10
		}
		n := int(b[6])
		if f.v.incompat&incompatFiletype == 0 {
			n |= int(b[7]) << 8
		}
		if length < direntHeader || length%4 != 0 || length > len(b) || number != 0 && direntHeader+n > length {
			return false, fsys.Uncertain("directory %d has a bad entry", f.number)
		}
		name := string(b[direntHeader:min(direntHeader+n, length)])
		if number != 0 && name != "." && name != ".." && !each(name, number) {
			return false, nil
		}
		b = b[length:]
	}
	return true, nil
}
