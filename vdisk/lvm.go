package vdisk

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"strata/vdisk/fsys"
	"strata/vdisk/partition"
)

// The kinds of region that a physical volume of LVM2 is cut into, besides the
// first, which has its labels and metadata and the kind of what it is in.
const (
	kindVolume = "lv"    // a run of a logical volume
	kindRest   = "lvgap" // extents of no logical volume, or what follows them
)

// lvmEncoder says that extents are free since no logical volume has them.
const lvmEncoder = "lvm"

// lvmType is what fsys calls a physical volume.
const lvmType = "LVM2_member"

// cutLVM cuts p, a part that seems to hold a physical volume, into its pieces.
// If that is not certain it returns p alone, which says why.
func cutLVM(p *part, k keep) ([]*part, error) {
	r := io.NewSectionReader(p.src, p.Start, p.Length)
	names, err := fsys.Signatures(r, p.Length)
	if err != nil || len(names) != 1 {
		return []*part{p}, err
	}
	pv, err := partition.ReadLVM(r, p.Length)
	if why, ok := fsys.Reason(err); ok {
		p.Whole = text(why)
		return []*part{p}, nil
	}
	if err != nil || pv == nil {
		return []*part{p}, err
	}
	whole := p.Name[:len(p.Name)-len(lvmType)-1] // p2
	p.Name = whole + ".lvm"
	p.FileSystem.UUID, p.Whole = text(pv.UUID), ""
	p.Length = pv.Pieces[0].Length
	parts := []*part{p}
	for _, x := range pv.Pieces[1:] {
		q := &part{src: p.src, Region: Region{
			Name: fmt.Sprintf("%s.lvm.gap%d", whole, x.Start/partitionUnit), Kind: kindRest,
			Start: p.Start + x.Start, Length: x.Length, Encoder: "plain", DSize: maxDSize, PSize: psize,
		}}
		if x.Free {
			q.clean = true
			if k.exact {
				q.Whole = exactReason
			} else {
				q.Encoder, q.FreeOmitted = lvmEncoder, true
				q.free, err = newFreeMap(within(func(yield func(fsys.Extent, error) bool) {
					yield(fsys.Extent{Len: x.Length}, nil)
				}, 0, x.Length))
			}
			if err != nil {
				return nil, err
			}
		}
		parts = append(parts, q)
	}
	for i, name := range volumeNames(pv.Volumes) {
		if err := volumeParts(parts[1:], pv, i, whole+"."+name, k); err != nil {
			return nil, fmt.Errorf("logical volume %s: %w", name, err)
		}
	}
	return parts, nil
}

// partitionUnit is the unit of the places in names of gaps.
const partitionUnit = 512

// volumeParts finds out what is in a logical volume, and makes its pieces of
// parts what they are to be.
func volumeParts(parts []*part, pv *partition.PhysicalVolume, volume int, name string, k keep) error {
	lv := &pv.Volumes[volume]
	lr := &volumeReader{length: lv.Length}
	var own []*part
	for i, x := range pv.Pieces[1:] {
		if x.Volume == volume {
			own = append(own, parts[i])
			lr.pieces = append(lr.pieces, volumePiece{x.Offset, parts[i]})
		}
	}
	slices.SortFunc(lr.pieces, func(a, b volumePiece) int {
		if a.off < b.off {
			return -1
		}
		return 1
	})
	first := new(part) // of the volume
	var fs *fsys.FileSystem
	switch {
	case len(own) == 0:
		return nil
	case !lv.Here:
		first.Whole = "a part of the logical volume is on another physical volume"
		first.DSize = maxDSize
	default:
		first.Name, first.DSize = "x", maxDSize
		var err error
		if fs, err = first.look(lr, lv.Length, k); err != nil {
			return err
		}
	}
	suffix := strings.TrimPrefix(first.Name, "x")
	for i, x := range lr.pieces {
		p := x.part
		p.Kind, p.DSize, p.Whole, p.FileSystem = kindVolume, first.DSize, first.Whole, first.FileSystem
		p.Volume = &Volume{Name: text(lv.Name), UUID: text(lv.UUID), Group: text(pv.Group), Offset: x.off, Length: lv.Length}
		p.Name = name + suffix
		if i > 0 {
			p.Name = fmt.Sprintf("%s.%d%s", name, i, suffix)
		}
		if fs == nil || first.Encoder == "" {
			continue
		}
		p.Encoder, p.FreeOmitted, p.PagingOmitted, p.clean = first.Encoder, true, first.PagingOmitted, fs.Clean
		var err error
		if p.free, err = newFreeMap(within(first.freeOf(fs), x.off, p.Length)); err != nil {
			return err
		}
	}
	return nil
}

// within yields what of extents is in n bytes from off on, counted from there.
func within(extents iter.Seq2[fsys.Extent, error], off, n int64) iter.Seq2[fsys.Extent, error] {
	return func(yield func(fsys.Extent, error) bool) {
		for x, err := range extents {
			if err != nil {
				yield(x, err)
				return
			}
			start, end := max(x.Off-off, 0), min(x.End()-off, n)
			if start < end && !yield(fsys.Extent{Off: start, Len: end - start}, nil) {
				return
			}
		}
	}
}

// volumeNames returns a name for each logical volume that can be in that of a
// region: its own, or, if one of them cannot be, its number for all.
func volumeNames(volumes []partition.LogicalVolume) []string {
	var own, numbers []string
	seen := map[string]bool{"lvm": true}
	good := true
	for i, v := range volumes {
		numbers = append(numbers, fmt.Sprint("lv", i))
		own = append(own, v.Name)
		good = good && isWord(v.Name) && !strings.Contains(v.Name, ".") && len(v.Name) <= maxName/2 && !seen[v.Name]
		seen[v.Name] = true
	}
	if good {
		return own
	}
	return numbers
}

// A volumeReader reads a logical volume.
type volumeReader struct {
	length int64
	pieces []volumePiece // by place in the volume, without gaps
}

type volumePiece struct {
	off  int64
	part *part
}

func (v *volumeReader) ReadAt(b []byte, off int64) (n int, err error) {
	for _, x := range v.pieces {
		end := x.off + x.part.Length
		if n == len(b) || off < x.off || off >= end {
			continue
		}
		q := b[n:min(int64(len(b)), int64(n)+end-off)]
		m, err := x.part.src.ReadAt(q, x.part.Start+off-x.off)
		n, off = n+m, off+int64(m)
		if m < len(q) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// volumes returns the regions of each logical volume that is all there, in
// order, by what it is called in trees: the partition that it is in, a dot, and
// its name.
func (l *Layout) volumes() map[string][]int {
	all := make(map[string][]int)
	for part, first := range l.Parts() {
		for i := first + 1; i < l.partEnd(first); i++ {
			if v := l.Regions[i].Volume; v != nil {
				all[part+"."+v.Name] = append(all[part+"."+v.Name], i)
			}
		}
	}
	for name, list := range all {
		slices.SortFunc(list, func(a, b int) int { return cmp.Compare(l.Regions[a].Volume.Offset, l.Regions[b].Volume.Offset) })
		end := int64(0)
		for _, i := range list {
			if v := l.Regions[i].Volume; v.Offset == end && v.Length == l.Regions[list[0]].Volume.Length {
				end += l.Regions[i].Length
			}
		}
		if end != l.Regions[list[0]].Volume.Length {
			delete(all, name)
		}
	}
	return all
}

// A Place is where a partition, or a logical volume in one, lies on a disk.
type Place struct {
	Region int     // the first of its regions, which says what it is
	Runs   []Range // one after the other
}

// Size returns the bytes of all its runs.
func (p Place) Size() (n int64) {
	for _, r := range p.Runs {
		n += r.Len
	}
	return n
}

// Places returns where the partitions and the logical volumes are, by what they
// are called in trees.
func (l *Layout) Places() map[string]Place {
	all := make(map[string]Place)
	for n, i := range l.Parts() {
		all[n] = Place{i, []Range{{l.Regions[i].Start, l.PartLength(i)}}}
	}
	for n, list := range l.volumes() {
		p := Place{Region: list[0]}
		for _, i := range list {
			p.Runs = append(p.Runs, Range{l.Regions[i].Start, l.Regions[i].Length})
		}
		all[n] = p
	}
	return all
}

// A ReadFunc reads a disk, as io.ReaderAt does.
type ReadFunc func(ctx context.Context, p []byte, off int64) (int, error)

// A placeReader reads what lies in a place of a disk.
type placeReader struct {
	Place
	read ReadFunc
}

func (r *placeReader) ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	start := int64(0) // of the run in the place
	for _, x := range r.Runs {
		if at := off + int64(n) - start; n < len(p) && at >= 0 && at < x.Len {
			m := int(min(int64(len(p)-n), x.Len-at))
			if _, err := r.read(ctx, p[n:n+m], x.Off+at); err != nil && err != io.EOF {
				return n, err
			}
			n += m
		}
		start += x.Len
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// partEnd returns the index of the region after the last one of what region i
// is the first of: a physical volume is in several.
func (l *Layout) partEnd(i int) int {
	for i++; i < len(l.Regions) && (l.Regions[i].Kind == kindVolume || l.Regions[i].Kind == kindRest); i++ {
	}
	return i
}
