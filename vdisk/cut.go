package vdisk

import (
	"fmt"
	"io"
	"iter"
	"strings"

	"strata/vdisk/fsys"
	"strata/vdisk/fsys/btrfs"
	"strata/vdisk/fsys/exfat"
	"strata/vdisk/fsys/ext"
	"strata/vdisk/fsys/fat"
	"strata/vdisk/fsys/ntfs"
	"strata/vdisk/fsys/swap"
	"strata/vdisk/fsys/xfs"
	"strata/vdisk/partition"
)

// The grid of a region: leaf blocks of 4 KiB, or the file system's own block
// where that is smaller, and 204 scores to a pointer block. Larger blocks
// cost more than they save: of fifteen Debian disks 4 KiB blocks leave half of
// what 64 KiB blocks do.
//
// BUG: plan9port's library counts a file's blocks in 31 bits, so its tools
// cannot read a region over 8 TiB, or 2 TiB on a grid of 1 KiB. venti/copy can
// copy it all the same.
const (
	maxDSize = 4096
	minDSize = 512
	psize    = 4080
)

// exactReason is why nothing is left out of an image that was asked for with
// every byte.
const exactReason = "every byte was asked for"

// probers know what is free in their file systems.
var probers = [...]fsys.Prober{btrfs.Probe, ext.Probe, exfat.Probe, fat.Probe, ntfs.Probe, swap.Probe, xfs.Probe}

// A keep says how much of a disk is to be stored.
type keep struct {
	exact    bool // every byte
	noPaging bool // not the files in which a machine keeps its memory
}

// cut reads the partition table of src, finds out what the regions hold, and
// returns the layout with the parts that go with its regions.
func cut(src Source, k keep) (*Layout, []*part, error) {
	table, err := partition.Read(src, src.Size())
	if err != nil {
		return nil, nil, fmt.Errorf("read partition table: %w", err)
	}
	l := &Layout{
		Version: LayoutVersion,
		Size:    src.Size(),
		Table:   string(table.Scheme),
		Regions: []Region{},
	}
	if table.Scheme == partition.None {
		l.Table = "none"
	}
	for _, n := range table.Notes {
		l.Notes = append(l.Notes, text(n))
	}
	var parts []*part
	for _, r := range table.Cut() {
		p, err := newPart(src, r, k)
		if err != nil {
			return nil, nil, fmt.Errorf("region %s: %w", r.Name, err)
		}
		pieces := []*part{p}
		// No disk has so many regions that these would be too many.
		if p.FileSystem != nil && p.FileSystem.Type == lvmType && len(parts)+partition.MaxPieces+partition.MaxRegions <= MaxRegions {
			if pieces, err = cutLVM(p, k); err != nil {
				return nil, nil, fmt.Errorf("region %s: %w", r.Name, err)
			}
		}
		parts = append(parts, pieces...)
	}
	for _, p := range parts {
		l.Regions = append(l.Regions, p.Region)
	}
	return l, parts, nil
}

// Inspect returns the layout that an import of src would have, without
// storing anything.
func Inspect(src Source) (*Layout, error) {
	l, _, err := cut(src, keep{})
	return l, err
}

// A Survey is what an import finds out about a disk before it stores it.
type Survey struct {
	Layout *Layout
	parts  []*part
}

// NewSurvey looks at a disk. With exact nothing is free.
func NewSurvey(src Source, exact bool) (*Survey, error) {
	l, parts, err := cut(src, keep{exact: exact})
	if err != nil {
		return nil, err
	}
	return &Survey{l, parts}, nil
}

// Free yields what is free in the i-th region, counted from its start, in
// ascending order.
func (s *Survey) Free(i int) iter.Seq[fsys.Extent] {
	return func(yield func(fsys.Extent) bool) {
		for at := int64(0); ; {
			x, ok := s.parts[i].free.next(at)
			if !ok || !yield(x) {
				return
			}
			at = x.End()
		}
	}
}

// Source returns what an import stores of the i-th region, as a disk of its
// own: what is free reads as zeros, and is a hole.
func (s *Survey) Source(i int) Source { return s.parts[i] }

// Clean tells whether the file system in the i-th region was unmounted: what
// is free in it is so for everybody.
func (s *Survey) Clean(i int) bool { return s.parts[i].clean }

func newPart(src Source, r partition.Region, k keep) (*part, error) {
	p := &part{src: src, Region: Region{
		Name:    r.Name,
		Start:   r.Start,
		Length:  r.Length,
		Kind:    string(r.Kind),
		Encoder: "plain",
		DSize:   maxDSize,
		PSize:   psize,
		Whole:   text(r.Whole),
	}}
	if pt := r.Partition; pt != nil {
		p.Partition = &Partition{Number: pt.Number, Type: text(pt.Type), UUID: text(pt.ID), Label: text(pt.Label)}
	}
	switch {
	case r.Whole != "":
		return p, nil
	case r.Kind != partition.KindPartition && r.Kind != partition.KindDisk:
		// What a gap seems to hold is only what was there once.
		return p, nil
	}
	_, err := p.look(io.NewSectionReader(src, r.Start, r.Length), r.Length, k)
	return p, err
}

// look finds out what is in a part of size bytes, and what of it is free.
func (p *part) look(r io.ReaderAt, size int64, k keep) (*fsys.FileSystem, error) {
	fs, err := fsys.Probe(r, size, probers[:]...)
	if err != nil || fs == nil {
		return nil, err
	}
	p.FileSystem = &FileSystem{Type: text(fs.Type), UUID: text(fs.UUID), Label: text(fs.Label), BlockSize: fs.BlockSize}
	if name := p.Name + "." + strings.ToLower(fs.Type); isWord(name) {
		p.Name = name
	}
	if b := fs.BlockSize; b >= minDSize && b < maxDSize && b&(b-1) == 0 {
		p.DSize = b
	}
	switch {
	case fs.Whole != "":
		p.Whole = text(fs.Whole)
	case k.exact:
		p.Whole = exactReason
	default:
		p.Encoder = fs.Type
		p.FreeOmitted = true
		p.clean = fs.Clean
		p.PagingOmitted = k.noPaging && len(fs.Paging) > 0
		p.free, err = newFreeMap(p.freeOf(fs))
	}
	return fs, err
}

// freeOf yields what of a file system is to be left out.
func (p *part) freeOf(fs *fsys.FileSystem) iter.Seq2[fsys.Extent, error] {
	if p.PagingOmitted {
		return fs.FreeAndPaging()
	}
	return fs.Free()
}
