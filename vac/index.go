package vac

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sort"

	"strata/vac/meta"
)

// An Index finds the files of one directory by name without reading all of
// its metadata each time: a directory is in no order. It is immutable.
type Index struct {
	f      *File
	seed   maphash.Seed // chosen anew each time, so that no archive is made to collide
	places []place      // by hash, and then by block
	unread error        // of the first metadata that could not be read
}

// A place is a metadata block that has a name with this hash.
type place struct{ hash, block uint32 }

// placeBytes is how much memory a place takes.
const placeBytes = 8

// maxIndex bounds the names of an index.
const maxIndex = 1 << 20

// ErrTooManyNames is returned for a directory that gets no index.
var ErrTooManyNames = errors.New("too many names for an index")

// NewIndex reads the metadata of a directory.
func NewIndex(ctx context.Context, f *File) (*Index, error) {
	d, err := f.openDir()
	if err != nil {
		return nil, err
	}
	x := &Index{f: f, seed: maphash.MakeSeed()}
	full := false
	x.unread, err = d.eachBlock(ctx, func(number int64, b *meta.Block) bool {
		if full = len(x.places)+b.Len() > maxIndex; full {
			return false
		}
		for i := range b.Len() {
			x.places = append(x.places, place{x.hash(b.Name(i)), uint32(number)})
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	if full {
		return nil, f.wrap(ErrTooManyNames)
	}
	slices.SortFunc(x.places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.block, b.block))
	})
	return x, nil
}

func (x *Index) hash(name string) uint32 { return uint32(maphash.String(x.seed, name)) }

// Bytes returns how much memory x takes.
func (x *Index) Bytes() int { return len(x.places) * placeBytes }

// Walk is the directory's Walk.
func (x *Index) Walk(ctx context.Context, name string) (*File, error) {
	d, err := x.f.openDir()
	if err != nil {
		return nil, err
	}
	h := x.hash(name)
	i := sort.Search(len(x.places), func(i int) bool { return x.places[i].hash >= h })
	for ; i < len(x.places) && x.places[i].hash == h && ValidName(name); i++ {
		d.chunk = int64(d.block)
		number := int64(x.places[i].block)
		data, _, _, err := d.read(ctx, number*int64(d.block))
		if err != nil {
			return nil, x.f.wrap(err)
		}
		b, err := d.open(data, number)
		if err != nil {
			return nil, err
		}
		if file, err := d.find(ctx, b, name); file != nil || err != nil {
			return file, err
		}
	}
	if x.unread != nil {
		return nil, x.unread
	}
	return nil, x.f.notThere(name)
}
