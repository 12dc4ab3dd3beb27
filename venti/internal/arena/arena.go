package arena

import (
	"context"
	"crypto/sha1"
	"fmt"
	"io"
	"slices"

	"strata/internal/disk"
	"strata/venti"
)

// An Arena is where an arena lies and how its clumps are marked. It does not
// change.
type Arena struct {
	Extent
	Version    int
	BlockSize  int
	ClumpMagic uint32

	file disk.File
}

// OpenArena returns arena i of the partition. It fails with ErrFormat if the
// arena has no valid trailer; the header block it does not need, and does not
// read.
func (p *Partition) OpenArena(i int) (*Arena, error) {
	a := &Arena{Extent: p.Arenas[i], BlockSize: p.BlockSize, file: p.file}
	t, err := a.readTrailer()
	if err != nil {
		return nil, err
	}
	a.Version, a.ClumpMagic = t.Version, t.ClumpMagic
	return a, nil
}

// OpenAt returns the arena that begins at off of f, whatever is around it: in
// a file that holds one, as venti/rdarena makes, or in a partition whose table
// is lost. It fails with ErrFormat if there is no valid header and, where that
// says, no valid trailer.
func OpenAt(f disk.File, off int64) (*Arena, error) {
	var b [headerSize5]byte
	if off < 0 || off+headerSize5 > f.Size() {
		return nil, fmt.Errorf("no arena at %d of %d bytes: %w", off, f.Size(), ErrFormat)
	}
	if err := disk.ReadFull(f, b[:], off); err != nil {
		return nil, fmt.Errorf("read arena header: %w", err)
	}
	h, err := unpackHeader(b[:])
	if err != nil {
		return nil, err
	}
	a := &Arena{Extent: Extent{h.name, off, off + h.size}, BlockSize: h.blockSize, file: f}
	if h.size < 2*int64(h.blockSize) || h.size > f.Size()-off {
		return nil, a.errorf("header says that it has %d bytes, and there are %d: %w", h.size, f.Size()-off, ErrFormat)
	}
	t, err := a.readTrailer()
	if err != nil {
		return nil, err
	}
	a.Version, a.ClumpMagic = t.Version, t.ClumpMagic
	return a, nil
}

// errorf says which arena an error is about.
func (a *Arena) errorf(format string, args ...any) error {
	return fmt.Errorf("arena "+a.Name+": "+format, args...)
}

// Base returns the offset of the log in the partition.
func (a *Arena) Base() int64 { return a.Start + int64(a.BlockSize) }

// Size returns how many bytes there are for the log and the directory. In
// the address space of an index the arena takes as many.
func (a *Arena) Size() int64 { return a.Stop - a.Start - 2*int64(a.BlockSize) }

// perBlock returns how many ClumpInfos a block of the directory holds.
func (a *Arena) perBlock() int { return a.BlockSize / ClumpInfoSize }

// DirSize returns how many bytes are set aside for the directory of n clumps.
func (a *Arena) DirSize(n int) int64 {
	return int64(n/a.perBlock()+1) * int64(a.BlockSize)
}

// dirUsed returns how many bytes the directory of n clumps takes.
func (a *Arena) dirUsed(n int) int64 {
	return int64((n+a.perBlock()-1)/a.perBlock()) * int64(a.BlockSize)
}

// Fits tells whether a clump with size bytes of data can be appended at p. It
// is the rule of Plan 9's server, to the byte; one of the two FreeSizes it
// counts has no use.
func (a *Arena) Fits(p Pos, size int) bool {
	return p.Off+int64(size)+ClumpHeaderSize+2*FreeSize+a.DirSize(p.Clump+1) <= a.Size()
}

// ReadTrailer reads the trailer block. It fails with ErrFormat if the block
// is not this arena's or counts more than there is room for.
func (a *Arena) ReadTrailer() (Trailer, error) {
	t, err := a.readTrailer()
	if err == nil && (t.Version != a.Version || t.ClumpMagic != a.ClumpMagic) {
		err = a.errorf("trailer has changed to version %d and clump magic %08x: %w", t.Version, t.ClumpMagic, ErrFormat)
	}
	return t, err
}

func (a *Arena) readTrailer() (Trailer, error) {
	block := make([]byte, a.BlockSize)
	if err := disk.ReadFull(a.file, block, a.Stop-int64(a.BlockSize)); err != nil {
		return Trailer{}, a.errorf("read trailer: %w", err)
	}
	t, err := UnpackTrailer(block)
	if err != nil {
		return t, a.errorf("%w", err)
	}
	return t, a.checkTrailer(&t)
}

func (a *Arena) checkTrailer(t *Trailer) error {
	if t.Name != a.Name {
		return a.errorf("trailer is of arena %s: %w", t.Name, ErrFormat)
	}
	if size := a.Size(); t.Mem.Used > size || a.dirUsed(int(t.Mem.Clumps)) > size-t.Mem.Used {
		return a.errorf("trailer counts %d clumps in %d bytes, too many for %d: %w", t.Mem.Clumps, t.Mem.Used, size, ErrFormat)
	}
	return nil
}

// WriteTrailer writes t, which is this arena's, and keeps the bytes of the
// block that have no meaning. All it changes but the seal is in the first
// sector, so that the write cannot tear. It does not sync.
func (a *Arena) WriteTrailer(t *Trailer) error {
	if err := a.checkTrailer(t); err != nil {
		return err
	}
	block := make([]byte, a.BlockSize)
	off := a.Stop - int64(a.BlockSize)
	if err := disk.ReadFull(a.file, block, off); err != nil {
		return a.errorf("read trailer: %w", err)
	}
	t.Pack(block)
	if _, err := a.file.WriteAt(block, off); err != nil {
		return a.errorf("write trailer: %w", err)
	}
	return nil
}

// CheckHeader reads the header block and compares it with what the trailer
// and the partition's table say. An error that is ErrFormat is worth a line
// in a log, and no more.
func (a *Arena) CheckHeader() error {
	var b [headerSize5]byte
	if err := disk.ReadFull(a.file, b[:], a.Start); err != nil {
		return a.errorf("read header: %w", err)
	}
	got, err := unpackHeader(b[:])
	if err != nil {
		return a.errorf("%w", err)
	}
	if want := a.header(); got != want {
		return a.errorf("header %+v is not %+v: %w", got, want, ErrFormat)
	}
	return nil
}

// header returns what the header block should say.
func (a *Arena) header() header {
	return header{a.Version, a.Name, a.BlockSize, a.Stop - a.Start, a.ClumpMagic}
}

// ReadLog reads len(b) bytes from off of the log, as io.ReaderAt does: at the
// end of the arena it returns what there is and io.EOF. The directory, which
// lies there too, is read like the log.
func (a *Arena) ReadLog(b []byte, off int64) (int, error) {
	size := a.Size()
	if off < 0 || off > size {
		return 0, a.errorf("read at %#x of %#x: out of range", off, size)
	}
	short := int64(len(b)) > size-off
	if short {
		b = b[:size-off]
	}
	n, err := a.file.ReadAt(b, a.Base()+off)
	if n == len(b) {
		err = nil
		if short {
			err = io.EOF
		}
	}
	return n, err
}

// WriteLog writes b at off of the log. It does not sync.
func (a *Arena) WriteLog(b []byte, off int64) error {
	if size := a.Size(); off < 0 || int64(len(b)) > size-off {
		return a.errorf("write %d bytes at %#x of %#x: out of range", len(b), off, size)
	}
	if _, err := a.file.WriteAt(b, a.Base()+off); err != nil {
		return a.errorf("write log at %#x: %w", off, err)
	}
	return nil
}

// ReadClump reads the clump at off, in one go if all of it is in the first
// len(buf) bytes; the rest is read into the capacity of buf, or a new buffer.
// It returns the header and the data, for h.Decode. A header that cannot be
// one is venti.ErrCorrupt.
func (a *Arena) ReadClump(off int64, buf []byte) (h ClumpHeader, data []byte, err error) {
	if len(buf) < ClumpHeaderSize {
		buf = slices.Grow(buf[:0], ClumpHeaderSize)[:ClumpHeaderSize]
	}
	n, err := a.ReadLog(buf, off)
	if err != nil && err != io.EOF {
		return h, nil, a.errorf("read clump at %#x: %w", off, err)
	}
	if h, err = UnpackClumpHeader(buf[:n], a.ClumpMagic); err != nil {
		return h, nil, a.errorf("clump at %#x: %w: %w", off, venti.ErrCorrupt, err)
	}
	if end := int(h.LogSize()); end > n {
		if end > cap(buf) {
			buf = append(make([]byte, 0, end), buf[:n]...)
		}
		if m, err := a.ReadLog(buf[n:end], off+int64(n)); err == io.EOF {
			return h, nil, a.errorf("clump at %#x reaches past the end: %w", off, venti.ErrCorrupt)
		} else if err != nil {
			return h, nil, a.errorf("read clump at %#x: %w", off, err)
		} else {
			n += m
		}
	}
	return h, buf[ClumpHeaderSize:h.LogSize()], nil
}

// MarkCorrupt makes the header of the clump at off say that the clump is
// corrupt. Its directory entry is the caller's to change.
func (a *Arena) MarkCorrupt(off int64) error {
	return a.WriteLog([]byte{byte(venti.DiskCorrupt)}, off+clumpInfoOffset)
}

const chunkSize = 1 << 20 // of a sequential read, in bytes

// Sum returns the seal that the arena should have: the SHA-1 of all its
// bytes, from header to trailer, as if the last twenty were zero. The arena
// must not change meanwhile.
func (a *Arena) Sum(ctx context.Context) (venti.Score, error) {
	return a.sum(ctx, nil, nil, nil)
}

// SumSlowly is Sum for work in the background: before each piece it calls wait
// with the number of bytes that it is about to read, and ends with its error.
func (a *Arena) SumSlowly(ctx context.Context, wait func(ctx context.Context, n int) error) (venti.Score, error) {
	return a.sum(ctx, nil, wait, nil)
}

// sum is Sum with t, if not nil, in place of the trailer on the disk, and v, if
// not nil, to read and look at each piece.
func (a *Arena) sum(ctx context.Context, t *Trailer, wait func(context.Context, int) error, v *verifier) (venti.Score, error) {
	var (
		sum = sha1.New()
		buf = make([]byte, min(chunkSize, a.Stop-a.Start))
	)
	for off := a.Start; off < a.Stop; {
		if err := ctx.Err(); err != nil {
			return venti.Score{}, err
		}
		b := buf[:min(int64(len(buf)), a.Stop-off)]
		// No piece holds a part of a trailer.
		if last := a.Stop - int64(a.BlockSize); off < last {
			b = b[:min(int64(len(b)), last-off)]
		}
		if wait != nil {
			if err := wait(ctx, len(b)); err != nil {
				return venti.Score{}, err
			}
		}
		if v != nil {
			v.read(b, off)
			if err := v.piece(b, off); err != nil {
				return venti.Score{}, err
			}
		} else if err := disk.ReadFull(a.file, b, off); err != nil {
			return venti.Score{}, a.errorf("sum: %w", err)
		}
		off += int64(len(b))
		if off == a.Stop {
			if t != nil {
				t.Pack(b)
			}
			clear(b[len(b)-sealSize:])
		}
		sum.Write(b)
	}
	return venti.Score(sum.Sum(nil)), nil
}
