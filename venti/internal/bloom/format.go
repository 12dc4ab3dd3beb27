package bloom

import (
	"context"
	"fmt"
	"math/bits"

	"strata/internal/disk"
)

// A FormatConfig says what filter to make. Its zero value is the largest
// that the partition holds, with MaxHashes hashes.
type FormatConfig struct {
	Size   int64 // bytes to use at most; 0 means the whole partition
	Blocks int64 // how many blocks the filter is for, or 0
	Hashes int   // how many bits a score sets, if Blocks is 0
}

// Geometry returns the size in bytes and the number of hashes of the filter
// that Format would make in a partition of partSize bytes.
//
// A filter for a given number of blocks is halved as long as it keeps more
// than 32 bits a block, and has seven hashes for ten bits a block.
func (c FormatConfig) Geometry(partSize int64) (size int64, nhash int, err error) {
	size = partSize
	if c.Size != 0 {
		size = c.Size
	}
	if size > partSize {
		return 0, 0, fmt.Errorf("a filter of %d bytes does not fit in the partition's %d", size, partSize)
	}
	if size < MinSize {
		return 0, 0, fmt.Errorf("a filter of %d bytes is too small: the least is %d", size, MinSize)
	}
	if c.Blocks < 0 || c.Hashes < 0 || c.Hashes > MaxHashes || c.Blocks > 0 && c.Hashes > 0 {
		return 0, 0, fmt.Errorf("bad filter of %d blocks and %d hashes", c.Blocks, c.Hashes)
	}
	size = min(MaxSize, int64(1)<<(bits.Len64(uint64(size))-1))
	nhash = MaxHashes
	if c.Hashes != 0 {
		nhash = c.Hashes
	}
	if c.Blocks > 0 {
		for size > MinSize && size*8/64 >= c.Blocks {
			size /= 2
		}
		// Past a bit a block one hash is still the best.
		nhash = int(max(1, min(MaxHashes, size*8*7/10/c.Blocks)))
	}
	return size, nhash, nil
}

// BestBlocks returns the number of blocks up to which a filter of this
// geometry works well.
func BestBlocks(size int64, nhash int) int64 {
	return size * 8 / max(1, int64(nhash)*10/7)
}

// Format writes an empty filter to file and syncs it.
func Format(ctx context.Context, file disk.File, c FormatConfig) error {
	size, nhash, err := c.Geometry(file.Size())
	if err != nil {
		return fmt.Errorf("bloom filter: %w", err)
	}
	buf := make([]byte, maxWrite)
	// From the end, so that the header comes last and a filter that is only
	// half cleared is never taken for one.
	for off := size - maxWrite; off >= 0; off -= maxWrite {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("bloom filter: format: %w", err)
		}
		if off == 0 {
			packHeader(buf, nhash, uint32(size))
		}
		if _, err := file.WriteAt(buf, off); err != nil {
			return fmt.Errorf("bloom filter: write at %#x: %w", off, err)
		}
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("bloom filter: sync: %w", err)
	}
	return nil
}
