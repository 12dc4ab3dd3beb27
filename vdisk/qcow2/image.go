package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"strata/vdisk/internal/imagefile"
)

// A Layer is a disk that another may lie upon. Its methods, but for Close, may
// be called at once.
type Layer interface {
	io.ReaderAt
	Size() int64
	// NextData returns the first range at or after off that may hold a byte
	// that is not zero, or io.EOF when only holes follow.
	NextData(off int64) (start, end int64, err error)
	Close() error
}

// An Image is an open image. Its methods, but for Close, may be called at
// once.
type Image struct {
	header
	r       io.ReaderAt
	length  int64 // of the file
	l1      []uint64
	backing Layer // nil if there is none
	tables  *imagefile.Cache[uint64]
	plain   *imagefile.Cache[uint64] // clusters that were compressed
	file    *imagefile.File          // nil in tests
}

// Both caches are bounded by bytes, and by numbers of clusters below which they
// are no use, or above which they are slow.
const (
	cacheBytes = 8 << 20
	cacheLeast = 4
	cacheMost  = 256
)

// newImage reads what all reading needs.
func newImage(r io.ReaderAt, length int64) (*Image, error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	im := &Image{header: *h, r: r, length: length}
	each := h.cluster() * h.perTable()
	n := (h.size + each - 1) / each
	if h.l1Offset > length || n*8 > length-h.l1Offset {
		return nil, fmt.Errorf("%w: its table lies behind the end of the file", errCorrupt)
	}
	b := make([]byte, n*8)
	if _, err := r.ReadAt(b, h.l1Offset); err != nil && n > 0 {
		return nil, fmt.Errorf("read table: %w", err)
	}
	im.l1 = make([]uint64, n)
	for i := range im.l1 {
		e := binary.BigEndian.Uint64(b[8*i:])
		if off := int64(e & offsetMask); e&reservedL1 != 0 || off%h.cluster() != 0 || off != 0 && off > length-h.cluster() {
			return nil, fmt.Errorf("%w: entry %d of its table is %#x", errCorrupt, i, e)
		}
		im.l1[i] = e & offsetMask
	}
	most := min(max(cacheLeast, int(cacheBytes/h.cluster())), cacheMost)
	im.tables, im.plain = imagefile.NewCache[uint64](most), imagefile.NewCache[uint64](most)
	return im, nil
}

// Size returns the bytes of the disk.
func (im *Image) Size() int64 { return im.size }

// Close closes the file and those that it lies upon.
func (im *Image) Close() error {
	var errs []error
	if im.file != nil {
		errs = append(errs, im.file.Close())
	}
	if im.backing != nil {
		errs = append(errs, im.backing.Close())
	}
	return errors.Join(errs...)
}

// Unchanged returns an error if one of the files was written to since it was
// opened.
func (im *Image) Unchanged() error {
	if im.file != nil {
		if err := im.file.Unchanged(); err != nil {
			return err
		}
	}
	if u, ok := im.backing.(interface{ Unchanged() error }); ok {
		return u.Unchanged()
	}
	return nil
}

// kinds of places on the disk
type kind int

const (
	absent     kind = iota // what the backing file has there
	zero                   // zeros
	stored                 // as it is in the file
	compressed             // a cluster, compressed
)

// A place is a range of the disk, within a cluster, all of one kind.
type place struct {
	kind kind
	n    int64  // bytes
	at   int64  // in the file, if stored
	desc uint64 // if compressed
}

// lookup tells what is at off, which lies on the disk.
func (im *Image) lookup(off int64) (place, error) {
	cs := im.cluster()
	index, within := off>>im.clusterBits, off&(cs-1)
	left := min(cs-within, im.size-off)
	host := im.l1[index/im.perTable()]
	if host == 0 {
		// Nothing is there of as much as a table is about.
		end := (index/im.perTable() + 1) * im.perTable() << im.clusterBits
		return place{kind: absent, n: min(end, im.size) - off}, nil
	}
	table, err := im.tables.Get(host, func() ([]byte, error) { return im.readAt(int64(host), cs) })
	if err != nil {
		return place{}, fmt.Errorf("read table at %#x: %w", host, err)
	}
	at := index % im.perTable() * im.entrySize()
	e := binary.BigEndian.Uint64(table[at:])
	bad := func() (place, error) {
		return place{}, fmt.Errorf("%w: the entry for the cluster at %d is %#x", errCorrupt, off-within, e)
	}
	if e&bitCompressed != 0 {
		if e&bitCopied != 0 {
			return bad()
		}
		return place{kind: compressed, n: left, desc: e &^ bitCompressed}, nil
	}
	start := int64(e & offsetMask)
	if e&reservedStandard != 0 || start%cs != 0 || start >= im.length && start > 0 || e&bitZero != 0 && (im.extended || im.version == 2) {
		return bad()
	}
	if im.extended {
		return im.subcluster(binary.BigEndian.Uint64(table[at+8:]), start, within, left)
	}
	switch {
	case e&bitZero != 0:
		return place{kind: zero, n: left}, nil
	case start == 0:
		return place{kind: absent, n: left}, nil
	}
	return place{kind: stored, n: left, at: start + within}, nil
}

// subcluster tells what is within a cluster at start that has subclusters.
func (im *Image) subcluster(bitmap uint64, start, within, left int64) (place, error) {
	there, zeros := uint32(bitmap), uint32(bitmap>>32)
	if there&zeros != 0 || there != 0 && start == 0 {
		return place{}, fmt.Errorf("%w: subclusters %#x", errCorrupt, bitmap)
	}
	size := im.cluster() / subclusters
	i := int(within / size)
	kindOf := func(i int) kind {
		switch {
		case there>>i&1 != 0:
			return stored
		case zeros>>i&1 != 0:
			return zero
		}
		return absent
	}
	p := place{kind: kindOf(i)}
	j := i + 1
	for j < subclusters && kindOf(j) == p.kind {
		j++
	}
	p.n = min(int64(j)*size-within, left)
	if p.kind == stored {
		p.at = start + within
	}
	return p, nil
}

// readAt reads n bytes of the file. What lies behind its end is zeros: the
// last cluster need not be whole.
func (im *Image) readAt(at, n int64) ([]byte, error) {
	b := make([]byte, n)
	return b, im.fill(b, at)
}

func (im *Image) fill(p []byte, at int64) error {
	n, err := im.r.ReadAt(p, at)
	if n < len(p) && (err != io.EOF || at+int64(n) < im.length) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF // the file has become shorter
		}
		return err
	}
	clear(p[n:])
	return nil
}

// ReadAt reads the disk as io.ReaderAt says.
func (im *Image) ReadAt(p []byte, off int64) (n int, err error) {
	return imagefile.ReadAt(p, off, im.size, im.readSome)
}

// readSome fills the beginning of p.
func (im *Image) readSome(p []byte, off int64) (n int, err error) {
	pl, err := im.lookup(off)
	if err != nil {
		return 0, err
	}
	p = p[:min(int64(len(p)), im.size-off)]
	q := p[:min(int64(len(p)), pl.n)]
	switch pl.kind {
	case zero:
		clear(q)
	case absent:
		return len(q), im.readBacking(q, off)
	case compressed:
		data, err := im.plain.Get(pl.desc, func() ([]byte, error) { return im.decompress(pl.desc) })
		if err != nil {
			return 0, err
		}
		copy(q, data[off&(im.cluster()-1):])
	case stored:
		// Clusters that follow one another in the file are read at once.
		for len(q) < len(p) {
			next, err := im.lookup(off + int64(len(q)))
			if err != nil || next.kind != stored || next.at != pl.at+int64(len(q)) {
				break // an error is met again when its turn comes
			}
			q = p[:min(int64(len(p)), int64(len(q))+next.n)]
		}
		return len(q), im.fill(q, pl.at)
	}
	return len(q), nil
}

// readBacking fills p with what the backing file has.
func (im *Image) readBacking(p []byte, off int64) error {
	n := 0
	if im.backing != nil && off < im.backing.Size() {
		q := p[:min(int64(len(p)), im.backing.Size()-off)]
		var err error
		if n, err = im.backing.ReadAt(q, off); n < len(q) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("backing file: %w", err)
		}
	}
	clear(p[n:])
	return nil
}

// NextData returns the first range at or after off that may hold a byte that
// is not zero, or io.EOF when only holes follow. Ranges end with the part of the
// disk that a table is about, so the next may begin where one ends.
func (im *Image) NextData(off int64) (start, end int64, err error) {
	for off = max(off, 0); off < im.size; {
		pl, err := im.lookup(off)
		if err != nil {
			return 0, 0, fmt.Errorf("find data after %d: %w", off, err)
		}
		next := off + pl.n
		switch {
		case pl.kind == absent && im.backing != nil && off < im.backing.Size():
			s, e, err := im.backing.NextData(off)
			if err != nil && err != io.EOF {
				return 0, 0, fmt.Errorf("backing file: %w", err)
			}
			if err == nil && s < next {
				return max(s, off), min(e, next, im.size), nil
			}
		case pl.kind == stored || pl.kind == compressed:
			// All that follows up to the end of the table.
			last := (off>>im.clusterBits/im.perTable() + 1) * im.perTable() << im.clusterBits
			for next < min(last, im.size) {
				more, err := im.lookup(next)
				if err != nil {
					return 0, 0, fmt.Errorf("find data after %d: %w", off, err)
				}
				if more.kind != stored && more.kind != compressed {
					break
				}
				next += more.n
			}
			return off, next, nil
		}
		off = next
	}
	return 0, 0, io.EOF
}

// compressedAt returns where a compressed cluster is.
func (im *Image) compressedAt(desc uint64) (at, n int64) {
	x := 62 - (im.clusterBits - 8)
	at = int64(desc & (1<<x - 1))
	n = int64(desc>>x+1)*compressedSector - at%compressedSector
	return at, n
}

// decompress reads a compressed cluster.
func (im *Image) decompress(desc uint64) ([]byte, error) {
	at, n := im.compressedAt(desc)
	if bits.Len64(uint64(at)) > 56 || at >= im.length || n > 2*im.cluster() {
		return nil, fmt.Errorf("%w: compressed cluster of %d bytes at %#x", errCorrupt, n, at)
	}
	in, err := im.readAt(at, min(n, im.length-at))
	if err != nil {
		return nil, err
	}
	out := make([]byte, im.cluster())
	if im.compression == compressionZstd {
		err = unzstd(out, in)
	} else {
		err = inflate(out, in)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: compressed cluster at %#x: %w", errCorrupt, at, err)
	}
	return out, nil
}
