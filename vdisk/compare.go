package vdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"strata/venti/hashtree"
)

// compareBytes is how much of a region is compared at once, and
// compareBlock the unit in which differences are reported.
const (
	compareBytes = 1 << 20
	compareBlock = 4096
	compareWidth = 4
)

// Compare compares an image with a disk, region by region: what an import of
// src like that of the image would keep must be what the image has. That they
// differ is in the report, and nothing else: blocks that cannot be read are an
// error.
func Compare(ctx context.Context, im *Image, src Source) (*Report, error) {
	rep, err := compare(ctx, im, src)
	if err != nil {
		return nil, fmt.Errorf("compare with image %v: %w", im.score, err)
	}
	return rep, nil
}

func compare(ctx context.Context, im *Image, src Source) (*Report, error) {
	rep := new(Report)
	if src.Size() != im.Size() {
		rep.fail(Failure{Region: "disk", Length: src.Size(), Reason: fmt.Sprintf("is %d bytes long, the image %d", src.Size(), im.Size())})
		return rep, nil
	}
	k := keep{exact: im.layout.Exact()}
	for _, r := range im.layout.Regions {
		k.noPaging = k.noPaging || r.PagingOmitted
	}
	l, parts, err := cut(src, k)
	if err != nil {
		return nil, err
	}
	if im.root.Type != RootType {
		// Made by others: nothing is known of the disk but its bytes.
		parts = nil
		for _, r := range im.layout.Regions {
			parts = append(parts, &part{src: src, Region: r})
		}
	} else if n := differentRegion(l, im.layout); n != "" {
		rep.fail(Failure{Region: n, Length: src.Size(), Reason: "the disk is laid out in another way"})
		return rep, nil
	}
	for i, p := range parts {
		if err := compareRegion(ctx, rep, im.readers[i], p); err != nil {
			return nil, fmt.Errorf("region %s: %w", p.Name, err)
		}
	}
	rep.sort()
	return rep, nil
}

// differentRegion returns the name of the first region that two layouts do
// not share, or "".
func differentRegion(a, b *Layout) string {
	for i := range max(len(a.Regions), len(b.Regions)) {
		if i >= len(a.Regions) {
			return b.Regions[i].Name
		}
		r := a.Regions[i]
		if i >= len(b.Regions) {
			return r.Name
		}
		s := b.Regions[i]
		if r.Name != s.Name || r.Start != s.Start || r.Length != s.Length || r.FreeOmitted != s.FreeOmitted || r.PagingOmitted != s.PagingOmitted {
			return r.Name
		}
	}
	return ""
}

func compareRegion(ctx context.Context, rep *Report, r *hashtree.Reader, p *part) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(compareWidth)
	for off := int64(0); off < p.Length; off += compareBytes {
		// Where both have nothing there is nothing to compare.
		a, _, err := r.NextData(ctx, off)
		b, _, err2 := p.NextData(off)
		switch {
		case err == io.EOF && err2 == io.EOF:
			return group.Wait()
		case err == io.EOF:
			a, err = b, nil
		case err2 == io.EOF:
			b, err2 = a, nil
		}
		if err := errors.Join(err, err2); err != nil {
			group.Wait()
			return err
		}
		off = min(a, b) / compareBytes * compareBytes
		group.Go(func() error { return comparePiece(ctx, rep, r, p, off) })
	}
	return group.Wait()
}

func comparePiece(ctx context.Context, rep *Report, r *hashtree.Reader, p *part, off int64) error {
	n := min(compareBytes, p.Length-off)
	got, want := make([]byte, n), make([]byte, n)
	if _, err := r.ReadAtContext(ctx, got, off); err != nil && err != io.EOF {
		return err
	}
	if m, err := p.ReadAt(want, off); int64(m) < n {
		return err
	}
	start := int64(-1) // of the run of blocks that differ
	for i := int64(0); i < n; i += compareBlock {
		end := min(i+compareBlock, n)
		differ := !bytes.Equal(got[i:end], want[i:end])
		if differ && start < 0 {
			start = i
		}
		if start >= 0 && (!differ || end == n) {
			stop := i
			if differ {
				stop = end
			}
			rep.fail(Failure{Region: p.Name, Offset: off + start, Length: stop - start, Reason: "differs", start: p.Start})
			start = -1
		}
		if !differ {
			rep.good(int(end - i))
		}
	}
	return nil
}
