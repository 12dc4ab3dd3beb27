package index

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"strata/internal/disk"
)

// Entries yields the entries of a section, in the order of the buckets and in
// each by their scores. With an error that is ErrBadBucket a bucket is passed
// over; any other ends it.
func (s *Section) Entries(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		perRun := uint32(max(1, maxRun/s.BlockSize))
		buf := make([]byte, int(min(perRun, s.Stop-s.Start))*s.BlockSize)
		var list []Entry
		for first := s.Start; first < s.Stop; first += perRun {
			n := int(min(perRun, s.Stop-first))
			err := ctx.Err()
			if err == nil {
				err = disk.ReadFull(s.file, buf[:n*s.BlockSize], s.offset(first))
			}
			if err != nil {
				yield(Entry{}, s.bucketError(first, err))
				return
			}
			for i := range n {
				block := buf[i*s.BlockSize:][:s.BlockSize]
				list, err = s.unpackBucket(list[:0], block)
				if err != nil {
					err = s.bucketError(first+uint32(i), err)
					if !errors.Is(err, ErrBadBucket) {
						err = fmt.Errorf("%w: %w", ErrBadBucket, err)
					}
					if !yield(Entry{}, err) {
						return
					}
					continue
				}
				for _, e := range list {
					if !yield(e, nil) {
						return
					}
				}
			}
		}
	}
}
