package paper

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"slices"

	"strata/internal/disk"
	"strata/vdisk"
	"strata/vdisk/fsys"
	"strata/vdisk/fsys/ext"
	"strata/venti"
)

// blockSizes are compared, in bytes. Venti takes up to 56 KiB; the last two are
// for what others use. Each divides piece.
var blockSizes = [...]int{512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 1 << 20}

// usualBlock is the size that vdisk uses.
const usualBlock = 4 << 10

// A cutter makes of a disk the streams that are cut into blocks, each from its own
// start.
type cutter func(vdisk.Source) ([]vdisk.Source, error)

// whole cuts a disk as one stream.
func whole(src vdisk.Source) ([]vdisk.Source, error) { return []vdisk.Source{src}, nil }

// partitions cuts a disk as vdisk does, into its table, its partitions and the
// gaps between them; every byte counts.
func partitions(src vdisk.Source) ([]vdisk.Source, error) { return regions(src, true) }

// allocated is partitions without what their file systems say is free.
func allocated(src vdisk.Source) ([]vdisk.Source, error) { return regions(src, false) }

func regions(src vdisk.Source, exact bool) ([]vdisk.Source, error) {
	s, err := vdisk.NewSurvey(src, exact)
	if err != nil {
		return nil, err
	}
	var list []vdisk.Source
	for i := range s.Layout.Regions {
		list = append(list, s.Source(i))
	}
	return list, nil
}

// piece is how much of a stream is read at a time.
const piece = 1 << 20

// pieces calls f with every piece of a stream in which there is data.
func pieces(s vdisk.Source, f func(off int64, b []byte) error) error {
	buf := make([]byte, piece)
	for off := int64(0); ; off += piece {
		start, _, err := s.NextData(off)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		off = start / piece * piece
		b := buf[:min(piece, s.Size()-off)]
		if err := disk.ReadFull(s, b, off); err != nil {
			return err
		}
		if err := f(off, b); err != nil {
			return err
		}
	}
}

// allPieces calls f with the pieces of all streams that a disk is cut into.
func allPieces(src vdisk.Source, cut cutter, f func(b []byte)) error {
	streams, err := cut(src)
	if err != nil {
		return err
	}
	for _, s := range streams {
		if err := pieces(s, func(_ int64, b []byte) error { f(b); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// A key stands for what has been hashed: half of a score tells apart the blocks of
// more disks than this program sees.
type key uint64

func keyOf(score []byte) key { return key(binary.BigEndian.Uint64(score)) }

// eachBlock calls f with the key of every block of b that is not all zeros.
func eachBlock(b []byte, size int, f func(k key, n int64)) {
	for block := range slices.Chunk(b, size) {
		if len(venti.Truncate(venti.DataType, block)) > 0 {
			s := venti.ScoreOf(block)
			f(keyOf(s[:]), int64(len(block)))
		}
	}
}

// A tally counts the blocks of one size that disks are made of.
type tally struct {
	size int
	data int64 // bytes in blocks that are not all zeros
	kept int64 // bytes of these in blocks that came for the first time
	seen map[key]struct{}
}

func (t *tally) add(b []byte) {
	eachBlock(b, t.size, func(k key, n int64) {
		t.data += n
		if _, ok := t.seen[k]; !ok {
			t.seen[k] = struct{}{}
			t.kept += n
		}
	})
}

// duplicate returns the share of the data that need not be kept.
func (t *tally) duplicate() float64 { return share(t.data-t.kept, t.data) }

// tallies cuts disks into blocks of all sizes.
func tallies(disks []string, cut cutter) ([]tally, error) {
	list := make([]tally, len(blockSizes))
	for i, size := range blockSizes {
		list[i] = tally{size: size, seen: map[key]struct{}{}}
	}
	for _, name := range disks {
		err := withDisk(name, func(src vdisk.Source) error {
			return allPieces(src, cut, func(b []byte) {
				for i := range list {
					list[i].add(b)
				}
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Contents are what a disk holds: bytes by key.
type contents map[key]int64

func (c contents) total() (n int64) {
	for _, bytes := range c {
		n += bytes
	}
	return n
}

// in returns how many bytes of c are in d too.
func (c contents) in(d contents) (n int64) {
	for k, bytes := range c {
		if _, ok := d[k]; ok {
			n += bytes
		}
	}
	return n
}

// blocks returns the blocks of a disk, cut as vdisk does.
func blocks(src vdisk.Source) (contents, error) {
	c := contents{}
	err := allPieces(src, allocated, func(b []byte) {
		eachBlock(b, usualBlock, func(k key, n int64) { c[k] += n })
	})
	return c, err
}

// files returns the regular files of all ext file systems of a disk, those that have
// several names once and, as in the paper, those in /boot not at all; and how many
// bytes are in files that are like one before.
func files(src vdisk.Source) (c contents, duplicate int64, err error) {
	w := fileWalk{c: contents{}, h: sha1.New()}
	s, err := vdisk.NewSurvey(src, false)
	if err != nil {
		return nil, 0, err
	}
	for i, r := range s.Layout.Regions {
		if r.Encoder != "ext2" && r.Encoder != "ext3" && r.Encoder != "ext4" {
			continue
		}
		root, err := ext.Open(s.Source(i), r.Length)
		if err != nil {
			return nil, 0, fmt.Errorf("region %s: %w", r.Name, err)
		}
		w.seen = map[uint64]bool{}
		if err := w.dir(root, "/"); err != nil {
			return nil, 0, fmt.Errorf("region %s: %w", r.Name, err)
		}
	}
	return w.c, w.duplicate, nil
}

// A fileWalk goes through file systems.
type fileWalk struct {
	c         contents
	duplicate int64
	h         hash.Hash
	seen      map[uint64]bool // files of this file system with several names
}

func (w *fileWalk) dir(d fsys.File, path string) error {
	for e, err := range d.Entries() {
		if err != nil {
			return fmt.Errorf("%s%s: %w", path, e.Name, err)
		}
		info := e.File.Info()
		switch {
		case info.Mode.IsDir() && path+e.Name != "/boot":
			if err := w.dir(e.File, path+e.Name+"/"); err != nil {
				return err
			}
		case info.Mode.IsRegular() && info.Size > 0 && !w.seen[info.ID]:
			if info.Links > 1 {
				w.seen[info.ID] = true
			}
			if err := w.file(e.File, info); err != nil {
				return fmt.Errorf("%s%s: %w", path, e.Name, err)
			}
		}
	}
	return nil
}

func (w *fileWalk) file(f fsys.File, info fsys.FileInfo) error {
	w.h.Reset()
	if n, err := io.CopyBuffer(w.h, io.NewSectionReader(f, 0, info.Size), make([]byte, 256<<10)); err != nil || n < info.Size {
		return fmt.Errorf("read: %d of %d bytes: %w", n, info.Size, err)
	}
	k := keyOf(w.h.Sum(nil))
	if _, ok := w.c[k]; ok {
		w.duplicate += info.Size
	}
	w.c[k] += info.Size
	return nil
}

// alike returns what the paper calls similarity: of all that is in either, the share
// that is in both.
func alike(c, d contents) float64 { return share(c.in(d)+d.in(c), c.total()+d.total()) }

func share(part, of int64) float64 {
	if of == 0 {
		return 0
	}
	return float64(part) / float64(of)
}

// withDisk opens a disk for f.
func withDisk(name string, f func(vdisk.Source) error) error {
	d, err := vdisk.OpenDisk(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := f(d); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
