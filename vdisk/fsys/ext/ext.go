// Package ext finds the free blocks of ext2, ext3 and ext4 file systems.
//
// Its Probe reads the superblock (super.go, features.go), the group
// descriptors and the block bitmaps (group.go). A file system that was not
// unmounted has a journal that a driver would replay before it uses it; then
// the journal's file (inode.go) and its log (journal.go) are read too.
//
// A block is free if the bitmap of its group says so: the one that a replay
// of the journal ends with, the one in its place on the disk and every other
// copy in the log, committed or not. The first of these is also checked,
// against its checksum, against the group's count of free blocks, and for not
// giving away the group's own metadata. A group that is marked as
// uninitialised has no bitmap on the disk; what it would be is computed.
//
// Whatever does not fit makes the whole file system uncertain. That includes
// features that are not known, groups with errors, a journal on another device
// and, where a replay is due, fast commits.
package ext

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"strata/internal/disk"
	"strata/vdisk/fsys"
)

// A volume is a file system whose superblock makes sense. It is immutable
// after open.
type volume struct {
	*super
	r       io.ReaderAt
	journal *journal
}

// Probe is an fsys.Prober for ext2, ext3, ext4 and external journals.
func Probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	fs, err := probe(r, size)
	if err != nil {
		return nil, fmt.Errorf("probe ext: %w", err)
	}
	return fs, nil
}

func probe(r io.ReaderAt, size int64) (*fsys.FileSystem, error) {
	if size < superOff+superSize {
		return nil, nil
	}
	b := make([]byte, superSize)
	if err := disk.ReadFull(r, b, superOff); err != nil {
		return nil, err
	}
	if !isSuper(b) {
		return nil, nil
	}
	fs := new(fsys.FileSystem)
	s, err := unpackSuper(b)
	s.describe(fs)
	v := &volume{super: s, r: r}
	switch {
	case err != nil:
	case s.blocks > uint64(size)/s.blockSize:
		err = fsys.Uncertain("the file system is of %d bytes, its region of %d", fs.Size, size)
	default:
		err = v.open()
	}
	return fsys.Finish(fs, err, v.walk)
}

// open reads the journal, and refuses one that would change what the
// superblock says.
func (v *volume) open() error {
	var err error
	if v.journal, err = v.readJournal(); err != nil {
		return err
	}
	copies, _, err := v.journal.find(v.superBlock())
	if err != nil {
		return err
	}
	b := make([]byte, v.blockSize)
	for _, c := range copies {
		if err := v.journal.readCopy(c, b); err != nil {
			return err
		}
		later := b[superOff%v.blockSize:][:superSize]
		if !isSuper(later) {
			return fsys.Uncertain("the journal has a bad superblock")
		}
		s, err := unpackSuper(later)
		if err != nil {
			return err
		}
		if s.geometry != v.geometry || s.incompat&^incompatRecover != v.incompat&^incompatRecover ||
			s.roCompat != v.roCompat || (s.compat^v.compat)&(compatHasJournal|compatSparse2) != 0 {
			return fsys.Uncertain("the journal changes the superblock")
		}
	}
	return nil
}

// readBlock fills b with a block of the file system as it is on the disk.
func (v *volume) readBlock(n uint64, b []byte) error {
	if n >= v.blocks {
		return fsys.Uncertain("block %d of %d", n, v.blocks)
	}
	return disk.ReadFull(v.r, b, int64(n*v.blockSize))
}

// versions calls f with every version of a block, which is valid until f
// returns: first the one that a replay of the journal ends with, then those
// on the disk and in the log that it replaces.
func (v *volume) versions(block uint64, b []byte, f func(final bool, b []byte) error) error {
	copies, last, err := v.journal.find(block)
	if err != nil {
		return err
	}
	read := func(i int) error {
		if i < 0 {
			return v.readBlock(block, b)
		}
		return v.journal.readCopy(copies[i], b)
	}
	if err := read(last); err != nil {
		return err
	}
	if err := f(true, b); err != nil {
		return err
	}
	for i := -1; i < len(copies); i++ {
		if i == last {
			continue
		}
		if err := read(i); err != nil {
			return err
		}
		if err := f(false, b); err != nil {
			return err
		}
	}
	return nil
}

// A group is what all versions of a descriptor say together.
type group struct {
	desc
	written bool // some version has the group initialised
}

// walk calls f with the free extents of each group in order until it returns
// false. It checks all that it uses.
func (v *volume) walk(f func(fsys.Extent) bool) error {
	perBlock := v.descsPerBlock()
	w := walker{
		volume: v, groups: make([]group, perBlock),
		block: make([]byte, v.blockSize), used: make([]byte, v.blockSize), meta: make([]byte, v.blockSize),
	}
	for first := uint64(0); first < v.super.groups(); first += perBlock {
		n := min(perBlock, v.super.groups()-first)
		if err := w.readGroups(first, n); err != nil {
			return err
		}
		for i := range n {
			if err := w.readBitmap(first+i, &w.groups[i]); err != nil {
				return err
			}
			if !w.freeRuns(first+i, f) {
				return nil
			}
		}
	}
	return nil
}

// A walker holds the buffers of a walk, a block each.
type walker struct {
	*volume
	groups []group // those whose descriptors are in one block
	block  []byte
	used   []byte // bitmap of the clusters that are in use in some version
	meta   []byte
}

// readGroups reads the descriptors of n groups from first, all in one block.
func (w *walker) readGroups(first, n uint64) error {
	return w.versions(w.descBlock(first/w.descsPerBlock()), w.block, func(final bool, b []byte) error {
		for i := range n {
			g := &w.groups[i]
			p := b[i*w.descSize:][:w.descSize]
			d := w.unpackDesc(p)
			if final {
				if err := w.checkDesc(first+i, p, &d); err != nil {
					return err
				}
				*g = group{desc: d}
			} else if d.blockBitmap != g.blockBitmap {
				return fsys.Uncertain("the journal moves the block bitmap of group %d", first+i)
			}
			g.written = g.written || !d.uninit(w.super)
		}
		return nil
	})
}

// readBitmap sets w.used for a group.
func (w *walker) readBitmap(n uint64, g *group) error {
	w.metaBitmap(w.meta, n, &g.desc)
	if g.uninit(w.super) {
		copy(w.used, w.meta)
		if free := w.countFree(n); free != g.free {
			return fsys.Uncertain("group %d has %d free clusters and counts %d", n, free, g.free)
		}
		if !g.written {
			return nil
		}
	}
	return w.versions(g.blockBitmap, w.block, func(final bool, b []byte) error {
		if !final || g.uninit(w.super) {
			for i := range b {
				w.used[i] |= b[i]
			}
			return nil
		}
		if err := w.checkBitmap(n, b, &g.desc); err != nil {
			return err
		}
		copy(w.used, b)
		if free := w.countFree(n); free != g.free {
			return fsys.Uncertain("group %d has %d free clusters and counts %d", n, free, g.free)
		}
		for i := range b {
			if w.meta[i]&^b[i] != 0 {
				return fsys.Uncertain("group %d has its own metadata as free", n)
			}
		}
		return nil
	})
}

// countFree counts the bits of w.used that are 0.
func (w *walker) countFree(n uint64) uint64 {
	clusters := w.clusters(n)
	free := clusters
	for _, c := range w.used[:clusters/8] {
		free -= uint64(bits.OnesCount8(c))
	}
	if rest := clusters % 8; rest > 0 {
		free -= uint64(bits.OnesCount8(w.used[clusters/8] & (1<<rest - 1)))
	}
	return free
}

// freeRuns calls f with each run of free clusters of group n, and returns
// false once f has.
func (w *walker) freeRuns(n uint64, f func(fsys.Extent) bool) bool {
	clusters := w.clusters(n)
	for c := nextBit(w.used, 0, clusters, false); c < clusters; {
		end := nextBit(w.used, c, clusters, true)
		from := w.groupStart(n) + c*w.clusterBlocks
		// The last cluster may reach past the end.
		to := min(w.groupStart(n)+end*w.clusterBlocks, w.blocks)
		if !f(fsys.Extent{Off: int64(from * w.blockSize), Len: int64((to - from) * w.blockSize)}) {
			return false
		}
		c = nextBit(w.used, end, clusters, false)
	}
	return true
}

// nextBit returns the first bit from i on that is want, or n. The length of
// bitmap is a multiple of 8.
func nextBit(bitmap []byte, i, n uint64, want bool) uint64 {
	for i < n {
		word := binary.LittleEndian.Uint64(bitmap[i/64*8:])
		if !want {
			word = ^word
		}
		if word >>= i % 64; word != 0 {
			return min(i+uint64(bits.TrailingZeros64(word)), n)
		}
		i = i/64*64 + 64
	}
	return n
}
