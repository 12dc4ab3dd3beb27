package buffer

import (
	"fmt"

	"strata/fossil/internal/format"
	"strata/internal/disk"
	"strata/venti"
)

// rootAddr is where the first root block is.
const rootAddr = 1

// Format makes file a partition with blocks of so many bytes, on which there is
// nothing: a root block whose entry, root, is that of a directory stream with
// nothing in it, or of one on Venti. What the file held before the header
// stays. A crash leaves a partition that does not open.
func Format(file disk.File, blockSize int, name string, root format.Entry, qid uint64) error {
	h, err := format.Layout(file.Size(), blockSize)
	if err != nil {
		return err
	}
	// First nothing that opens, then all but the header, then that.
	if err := writeHeader(file, make([]byte, format.HeaderSize)); err != nil {
		return err
	}
	zeros := make([]byte, 1<<20/blockSize*blockSize+blockSize)
	for n := h.Label; n < h.Data; {
		part := zeros[:min(len(zeros), int(h.Data-n)*blockSize)]
		if _, err := file.WriteAt(part, h.Offset(n)); err != nil {
			return fmt.Errorf("clear labels: %w", err)
		}
		n += uint32(len(part) / blockSize)
	}
	block := make([]byte, blockSize)
	l := format.Label{State: format.Alloc, Type: format.Dir, Epoch: 1, EpochClose: format.Open, Tag: format.RootTag}
	l.Pack(block[rootAddr*format.LabelSize:])
	if _, err := file.WriteAt(block, h.Offset(h.Label)); err != nil {
		return fmt.Errorf("write label: %w", err)
	}
	clear(block)
	format.PutEntry(block, 0, &root)
	if _, err := file.WriteAt(block, h.Offset(h.Data+rootAddr)); err != nil {
		return fmt.Errorf("write root block: %w", err)
	}
	clear(block)
	s := format.Super{
		EpochLow: 1, EpochHigh: 1, QID: qid, Active: rootAddr,
		Next: format.None, Current: format.None, Last: venti.EmptyScore, Name: name,
	}
	s.Pack(block)
	if _, err := file.WriteAt(block, h.Offset(h.Super)); err != nil {
		return fmt.Errorf("write super block: %w", err)
	}
	if err := file.Sync(); err != nil {
		return err
	}
	head := make([]byte, format.HeaderSize)
	h.Pack(head)
	return writeHeader(file, head)
}

func writeHeader(file disk.File, b []byte) error {
	if _, err := file.WriteAt(b, format.HeaderOffset); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	return file.Sync()
}
