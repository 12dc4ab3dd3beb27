package vdisk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"strata/vdisk/partition"
	"strata/venti"
	"strata/venti/hashtree"
)

// The types of root that Backup writes.
const (
	extRoot = "ext2"    // ext2, ext3 and ext4, without their free blocks
	rawRoot = "rawdisk" // anything, every byte of it
)

// Backup stores a partition as plan9port's vbackup(8) does, in one stream in
// the blocks of its file system:
//
//	root block, type "ext2", score of
//	  directory block, the entry of the partition
//
// Of ext2, ext3 and ext4 the free blocks are left out, if Import would leave
// them out. Whatever else src holds, be it a partition table or another file
// system, the root is of type "rawdisk" and every byte is kept. What src has
// behind the file system is kept too. The result's layout has one region, whose
// kind is the type of the root.
//
// The root is plan9port's, bit for bit, of a file system that its vbackup
// reads aright (blocks of 4 KiB, no 64bit) and that fills src.
//
// A base must be of the same type. Otherwise Backup is as Import.
func Backup(ctx context.Context, st venti.Store, src Source, opt ImportOptions) (*Result, error) {
	began := time.Now()
	// plan9port's tools set the local bit in all that they store.
	im := &importer{st: st, src: src, opt: opt, flags: venti.EntryLocal}
	res, err := im.backup(ctx)
	if err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	res.Seconds = time.Since(began).Seconds()
	return res, nil
}

func (im *importer) backup(ctx context.Context) (*Result, error) {
	p, err := uncut(im.src, keep{exact: im.opt.Exact})
	if err != nil {
		return nil, err
	}
	root := venti.Root{Name: im.opt.Name, Type: p.Kind, BlockSize: p.DSize, Prev: im.opt.Prev}
	if _, err := root.Pack(nil); err != nil {
		return nil, err
	}
	if err := im.openOthers(ctx); err != nil {
		return nil, err
	}
	if im.base != nil && im.base.root.Type != p.Kind {
		return nil, fmt.Errorf("base is of type %q, this is %q", im.base.root.Type, p.Kind)
	}
	l := &Layout{Version: LayoutVersion, Size: p.Length, Table: "none", Regions: []Region{p.Region}}
	return im.finish(ctx, root, l, []*part{p})
}

// uncut returns all of src as one part, whose kind is the type of the root that
// is to be over it.
func uncut(src Source, k keep) (*part, error) {
	if src.Size() == 0 {
		return nil, errors.New("there is nothing in it")
	}
	p, err := newPart(src, partition.Region{Name: string(partition.KindDisk), Kind: partition.KindDisk, Length: src.Size()}, k)
	if err != nil {
		return nil, err
	}
	p.Name, p.Kind = string(partition.KindDisk), rawRoot
	switch {
	case p.FileSystem == nil:
	case p.FileSystem.Type == "ext2", p.FileSystem.Type == "ext3", p.FileSystem.Type == "ext4":
		p.Kind = extRoot
	case p.free != nil:
		p.free, p.FreeOmitted, p.Encoder = nil, false, "plain"
		p.Whole = "of " + p.FileSystem.Type + " every byte is kept"
	}
	p.PSize = hashtree.DefaultPSize(p.DSize)
	return p, nil
}
