// Package vmdk reads disks in VMware's format for streams (streamOptimized),
// which exports of virtual machines and OVA files hold, and its plain sparse
// relative (monolithicSparse):
//
//	im, err := vmdk.Open("web.vmdk")
//	_, err = im.ReadAt(sector, 0)
//
// What consists of several files, or is the difference to another disk, is
// refused. VMware's technical note "Virtual Disk Format 5.0" describes the
// format.
package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/klauspost/compress/zlib"

	"strata/vdisk/internal/imagefile"
)

// All integers are little-endian, and offsets count sectors of 512 bytes. A
// file begins with
//
//	"KDMV"[4] version[4] flags[4] capacity[8] grainSize[8] descriptorOffset[8] descriptorSize[8]
//	tableEntries[4] spareDirectory[8] directory[8] overhead[8] dirty[1] "\n \r\n"[4] compression[2]
//
// padded to 512 bytes. With a directory of 1<<64-1, the last three sectors of
// the file are the marker of a footer, the footer, which is such a header and
// has the directory, and the marker of the end. A marker is
//
//	value[8] size[4] type[4]
//
// padded to 512 bytes. The directory has four bytes for each table, and a table
// four for each grain: where it is, 0 for a hole, or, with flagZeroGrains, 1
// for zeros. A compressed grain is
//
//	sector[8] size[4] data[size], deflated with the header of zlib
const (
	magic      = "KDMV"
	sector     = 512
	headerSize = 512

	flagNewlines   = 1 << 0
	flagZeroGrains = 1 << 2
	flagCompressed = 1 << 16

	directoryAtEnd = 1<<64 - 1
	grainHead      = 12
	deflate        = 1

	maxGrain      = 4096    // sectors
	maxDescriptor = 1 << 20 // bytes
	maxTables     = 1 << 22 // in the directory
	tableEntries  = 512     // what all writers have
)

var errCorrupt = errors.New("the image is damaged")

// An Image is an open image. Its methods, but for Close, may be called at
// once.
type Image struct {
	r          io.ReaderAt
	length     int64 // of the file
	size       int64 // of the disk
	grain      int64 // bytes
	compressed bool
	zeros      bool // a table's 1 means zeros
	directory  []uint32

	tables *imagefile.Cache[uint32]
	grains *imagefile.Cache[uint32]
	file   *imagefile.File // nil in tests
}

// How many tables and grains are kept: a table is 2 KiB, a grain 64 KiB.
const (
	keepTables = 256
	keepGrains = 64
)

// IsImage tells whether data, the beginning of a file, is that of a sparse
// VMDK.
func IsImage(data []byte) bool { return strings.HasPrefix(string(data), magic) }

// Open opens an image for reading.
func Open(name string) (*Image, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	im, err := openFile(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return im, nil
}

func openFile(f *os.File) (*Image, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	im, err := newImage(f, fi.Size())
	if err != nil {
		return nil, err
	}
	im.file = imagefile.Watch(f, fi)
	return im, nil
}

func newImage(r io.ReaderAt, length int64) (*Image, error) {
	h := make([]byte, headerSize)
	if n, err := r.ReadAt(h, 0); n < headerSize {
		if err == io.EOF {
			err = errors.New("not a sparse VMDK")
		}
		return nil, err
	}
	if !IsImage(h) {
		return nil, errors.New("not a sparse VMDK")
	}
	counted := h // says where things are
	if binary.LittleEndian.Uint64(h[56:]) == directoryAtEnd {
		var err error
		if counted, err = footer(r, length); err != nil {
			return nil, err
		}
	}
	im := &Image{r: r, length: length, tables: imagefile.NewCache[uint32](keepTables), grains: imagefile.NewCache[uint32](keepGrains)}
	if err := im.header(counted); err != nil {
		return nil, err
	}
	if err := im.descriptor(h); err != nil {
		return nil, err
	}
	return im, nil
}

// footer returns the header at the end of the file.
func footer(r io.ReaderAt, length int64) ([]byte, error) {
	b := make([]byte, 3*sector)
	if length < 4*sector {
		return nil, fmt.Errorf("%w: it has no footer, as if cut off", errCorrupt)
	}
	if _, err := r.ReadAt(b, length-3*sector); err != nil {
		return nil, fmt.Errorf("read footer: %w", err)
	}
	h := b[sector : 2*sector]
	if !IsImage(h) || binary.LittleEndian.Uint64(h[56:]) == directoryAtEnd {
		return nil, fmt.Errorf("%w: it has no footer, as if cut off", errCorrupt)
	}
	return h, nil
}

// header takes in what a header, or the footer, says.
func (im *Image) header(h []byte) error {
	version, flags := binary.LittleEndian.Uint32(h[4:]), binary.LittleEndian.Uint32(h[8:])
	capacity, grain := binary.LittleEndian.Uint64(h[12:]), binary.LittleEndian.Uint64(h[20:])
	entries := binary.LittleEndian.Uint32(h[44:])
	directory, compression := binary.LittleEndian.Uint64(h[56:]), binary.LittleEndian.Uint16(h[77:])
	im.compressed = flags&flagCompressed != 0
	im.zeros = flags&flagZeroGrains != 0
	switch {
	case version < 1 || version > 3:
		return fmt.Errorf("unknown version %d", version)
	case flags&flagNewlines != 0 && string(h[73:77]) != "\n \r\n":
		return fmt.Errorf("%w: it went through something that changed its line ends", errCorrupt)
	case grain < 1 || grain > maxGrain || grain&(grain-1) != 0:
		return fmt.Errorf("bad grain of %d sectors", grain)
	case entries != tableEntries:
		return fmt.Errorf("tables of %d grains", entries)
	case im.compressed && compression != deflate, !im.compressed && compression != 0:
		return fmt.Errorf("unknown compression %d", compression)
	case capacity > maxTables*tableEntries*grain || capacity > 1<<47:
		return fmt.Errorf("bad size of %d sectors", capacity)
	}
	im.size, im.grain = int64(capacity)*sector, int64(grain)*sector
	each := im.grain * tableEntries
	n := (im.size + each - 1) / each
	at := int64(directory) * sector
	if directory > uint64(im.length/sector) || n*4 > im.length-at {
		return fmt.Errorf("%w: its directory lies behind the end of the file", errCorrupt)
	}
	b := make([]byte, n*4)
	if _, err := im.r.ReadAt(b, at); err != nil && n > 0 {
		return fmt.Errorf("read directory: %w", err)
	}
	im.directory = make([]uint32, n)
	for i := range im.directory {
		im.directory[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return nil
}

// descriptor looks into the text that says what the image is a part of.
func (im *Image) descriptor(h []byte) error {
	at, n := binary.LittleEndian.Uint64(h[28:]), binary.LittleEndian.Uint64(h[36:])
	if at == 0 || n == 0 {
		return nil
	}
	if n > maxDescriptor/sector || at > uint64(im.length/sector) {
		return fmt.Errorf("bad place of the descriptor: %d+%d", at, n)
	}
	b := make([]byte, n*sector)
	if got, err := im.r.ReadAt(b, int64(at)*sector); got < len(b) && err != io.EOF {
		return fmt.Errorf("read descriptor: %w", err)
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	extents := 0
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, "=")
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "parentcid":
			if v := strings.TrimSpace(value); !strings.EqualFold(v, "ffffffff") {
				return fmt.Errorf("it is the difference to another disk (parentCID %s)", v)
			}
		}
		switch word, _, _ := strings.Cut(line, " "); word {
		case "RW", "RDONLY", "NOACCESS":
			extents++
		}
	}
	if extents > 1 {
		return fmt.Errorf("it consists of %d files", extents)
	}
	return nil
}

// Size returns the bytes of the disk.
func (im *Image) Size() int64 { return im.size }

// Close closes the file.
func (im *Image) Close() error {
	if im.file == nil {
		return nil
	}
	return im.file.Close()
}

// Unchanged returns an error if the file was written to since it was opened.
func (im *Image) Unchanged() error {
	if im.file == nil {
		return nil
	}
	return im.file.Unchanged()
}

// lookup returns where the grain at off is, in sectors, or 0 if it is zeros,
// and how many bytes there are to its end, or to that of a hole.
func (im *Image) lookup(off int64) (at uint32, n int64, err error) {
	index := off / im.grain
	t := index / tableEntries
	left := min((index+1)*im.grain, im.size) - off
	if im.directory[t] == 0 {
		return 0, min((t+1)*tableEntries*im.grain, im.size) - off, nil
	}
	table, err := im.tables.Get(im.directory[t], func() ([]byte, error) {
		b := make([]byte, tableEntries*4)
		if _, err := im.r.ReadAt(b, int64(im.directory[t])*sector); err != nil {
			return nil, fmt.Errorf("read table at sector %d: %w", im.directory[t], noEOF(err))
		}
		return b, nil
	})
	if err != nil {
		return 0, 0, err
	}
	at = binary.LittleEndian.Uint32(table[index%tableEntries*4:])
	if at == 1 && im.zeros {
		at = 0
	}
	return at, left, nil
}

// noEOF is for files that are shorter than they should be.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadAt reads the disk as io.ReaderAt says.
func (im *Image) ReadAt(p []byte, off int64) (n int, err error) {
	return imagefile.ReadAt(p, off, im.size, im.readSome)
}

// readSome fills the beginning of p.
func (im *Image) readSome(p []byte, off int64) (int, error) {
	at, n, err := im.lookup(off)
	if err != nil {
		return 0, err
	}
	p = p[:min(int64(len(p)), n)]
	within := off % im.grain
	switch {
	case at == 0:
		clear(p)
	case im.compressed:
		data, err := im.grains.Get(at, func() ([]byte, error) { return im.inflate(at, off-within) })
		if err != nil {
			return 0, err
		}
		copy(p, data[within:])
	default:
		if _, err := im.r.ReadAt(p, int64(at)*sector+within); err != nil {
			return 0, noEOF(err)
		}
	}
	return len(p), nil
}

// inflaters are kept: they cost more than a grain does.
var inflaters sync.Pool

// inflate reads the compressed grain for off.
func (im *Image) inflate(at uint32, off int64) ([]byte, error) {
	var head [grainHead]byte
	if _, err := im.r.ReadAt(head[:], int64(at)*sector); err != nil {
		return nil, noEOF(err)
	}
	n := binary.LittleEndian.Uint32(head[8:])
	if got := binary.LittleEndian.Uint64(head[:]); got != uint64(off/sector) || int64(n) > 2*im.grain+sector {
		return nil, fmt.Errorf("%w: the grain at sector %d is %d bytes of sector %d", errCorrupt, at, n, got)
	}
	in := make([]byte, n)
	if _, err := im.r.ReadAt(in, int64(at)*sector+grainHead); err != nil {
		return nil, noEOF(err)
	}
	out := make([]byte, im.grain)
	if err := unpack(out[:min(im.grain, im.size-off)], in); err != nil {
		return nil, fmt.Errorf("%w: the grain at sector %d: %w", errCorrupt, at, err)
	}
	return out, nil
}

// unpack fills out from in.
func unpack(out, in []byte) (err error) {
	r, _ := inflaters.Get().(io.ReadCloser)
	if r == nil {
		r, err = zlib.NewReader(bytes.NewReader(in))
	} else {
		err = r.(zlib.Resetter).Reset(bytes.NewReader(in), nil)
	}
	if err != nil {
		return err
	}
	defer inflaters.Put(r)
	if n, err := io.ReadFull(r, out); err != nil {
		return fmt.Errorf("%d of %d bytes: %w", n, len(out), noEOF(err))
	}
	return nil
}

// NextData returns the first range at or after off that may hold a byte that
// is not zero, or io.EOF when only holes follow. Ranges end with tables, so the
// next may begin where one ends.
func (im *Image) NextData(off int64) (start, end int64, err error) {
	for off = max(off, 0); off < im.size; {
		at, n, err := im.lookup(off)
		if err != nil {
			return 0, 0, fmt.Errorf("find data after %d: %w", off, err)
		}
		if at == 0 {
			off += n
			continue
		}
		last := min((off/(im.grain*tableEntries)+1)*im.grain*tableEntries, im.size)
		for end = off + n; end < last; end += n {
			if at, n, err = im.lookup(end); err != nil {
				return 0, 0, fmt.Errorf("find data after %d: %w", off, err)
			}
			if at == 0 {
				break
			}
		}
		return off, end, nil
	}
	return 0, 0, io.EOF
}
