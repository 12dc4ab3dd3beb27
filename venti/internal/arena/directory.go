package arena

import "strata/internal/disk"

// The clump directory repeats the ClumpInfo of every clump, in order. Block j
// of it holds those from j*floor(blocksize/25) on, packed from the start of
// the block, and lies j+1 blocks before the trailer: blocks go down, entries
// go up. Where a clump is follows from the sizes of all that come before it.

// maxDirRead is how much of the directory is read at once, in bytes.
const maxDirRead = 256 << 10

// dirSpan finds the directory entries from first on that lie in one block,
// at most n: the offset of the block in the partition, which entry of it is
// the first, and how many there are.
func (a *Arena) dirSpan(first, n int) (block int64, skip, count int) {
	per := a.perBlock()
	skip = first % per
	return a.Stop - int64(first/per+2)*int64(a.BlockSize), skip, min(n, per-skip)
}

func (a *Arena) checkDirRange(first, n int) error {
	if first < 0 || a.dirUsed(first+n) > a.Size() {
		return a.errorf("directory entries %d to %d: out of range", first, first+n)
	}
	return nil
}

// ReadInfos fills infos with the directory's entries from the first on, with
// few large reads. What they say is not checked: an arena has as many valid
// ones as its trailer counts clumps.
func (a *Arena) ReadInfos(infos []ClumpInfo, first int) error {
	if err := a.checkDirRange(first, len(infos)); err != nil {
		return err
	}
	var (
		bs  = int64(a.BlockSize)
		buf []byte
	)
	for len(infos) > 0 {
		// The blocks that hold the entries, or a good part of them, lie together,
		// the first one last.
		top, skip, _ := a.dirSpan(first, len(infos))
		blocks := min(a.dirUsed(skip+len(infos)), max(maxDirRead, bs)) / bs
		if buf == nil {
			buf = make([]byte, blocks*bs)
		}
		buf = buf[:blocks*bs]
		if err := disk.ReadFull(a.file, buf, top-(blocks-1)*bs); err != nil {
			return a.errorf("read directory: %w", err)
		}
		for i := blocks - 1; i >= 0; i-- {
			_, skip, n := a.dirSpan(first, len(infos))
			b := buf[i*bs:][skip*ClumpInfoSize:]
			for j := range infos[:n] {
				infos[j] = unpackClumpInfo(b[j*ClumpInfoSize:])
			}
			infos, first = infos[n:], first+n
		}
	}
	return nil
}

// WriteInfos writes infos as the directory's entries from the first on, and
// no other byte. It does not sync.
func (a *Arena) WriteInfos(infos []ClumpInfo, first int) error {
	if err := a.checkDirRange(first, len(infos)); err != nil {
		return err
	}
	buf := make([]byte, a.perBlock()*ClumpInfoSize)
	for len(infos) > 0 {
		block, skip, n := a.dirSpan(first, len(infos))
		b := buf[:n*ClumpInfoSize]
		for i := range infos[:n] {
			infos[i].pack(b[i*ClumpInfoSize:])
		}
		if _, err := a.file.WriteAt(b, block+int64(skip*ClumpInfoSize)); err != nil {
			return a.errorf("write directory: %w", err)
		}
		infos, first = infos[n:], first+n
	}
	return nil
}
