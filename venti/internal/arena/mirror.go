package arena

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"

	"strata/internal/disk"
	"strata/venti"
)

// A Mirrored says what Mirror has done to an arena.
type Mirrored uint8

const (
	MirrorEmpty  Mirrored = iota // there is nothing in it
	MirrorCopied                 // the destination has what the source's index has
	MirrorSealed                 // the destination is the source, to the byte
)

// ErrMirror is why two arenas cannot be made alike: the destination is not a
// mirror of the source.
var ErrMirror = errors.New("destination is no mirror of source")

// MirrorOptions say how Mirror works. The zero value is the default.
type MirrorOptions struct {
	// Trust leaves out the check of a sealed arena against its seal while it is
	// copied.
	Trust bool
	// Force copies over a destination that has something else.
	Force bool
	// Copying, if not nil, is told of each range of the partition before it is
	// copied, and of what is in it.
	Copying func(start, stop int64, what string)
}

// Mirror makes dst, an arena of the same place and size in another partition,
// equal to src as far as src's clumps are in its index: what was copied before
// is not copied again. That much of src does not change, so that a server may
// be writing src meanwhile; nobody may use dst. When src is sealed and summed
// dst becomes a copy to the byte, the bytes that no clump uses included.
//
// All of it can be done again: a trailer is written after what it counts has
// been synced, and a seal after everything else. When Mirror returns nil what
// it says is on stable storage. The error is ErrMirror if dst has something
// else and Force is not set, and venti.ErrCorrupt if src is not what its seal
// says; dst is then left unsealed.
func Mirror(ctx context.Context, src, dst *Arena, o MirrorOptions) (Mirrored, error) {
	if src.Start != dst.Start || src.Stop != dst.Stop || src.BlockSize != dst.BlockSize || src.Name != dst.Name {
		return 0, src.errorf("it is at [%d,%d), and its mirror %s at [%d,%d) of another partition: %w",
			src.Start, src.Stop, dst.Name, dst.Start, dst.Stop, ErrMirror)
	}
	m := &mirror{src: src, dst: dst, o: o}
	var err error
	if m.st, err = src.ReadTrailer(); err != nil {
		return 0, err
	}
	if m.dt, err = dst.ReadTrailer(); err != nil {
		return 0, fmt.Errorf("destination: %w", err)
	}
	done, err := m.run(ctx)
	if err != nil {
		return 0, err
	}
	return done, nil
}

// A mirror is one call of Mirror.
type mirror struct {
	src, dst *Arena
	st, dt   Trailer // as they were read
	o        MirrorOptions
}

func (m *mirror) run(ctx context.Context) (Mirrored, error) {
	src, dst := m.src, m.dst
	sealed := m.st.Disk.Sealed && !m.st.Seal.IsZero()
	if m.st.Disk.Clumps == 0 && m.dt.Mem.Clumps == 0 {
		return MirrorEmpty, nil
	}
	switch {
	case sealed && m.dt.Disk.Sealed && m.dt.Seal == m.st.Seal:
		return MirrorSealed, nil
	case m.o.Force:
		m.dt.Disk = Stats{}
	case m.dt.Disk.Sealed && !m.dt.Seal.IsZero():
		return 0, src.errorf("the destination is sealed and the source is not the same: %w", ErrMirror)
	case m.dt.Disk.Clumps > m.st.Disk.Clumps || m.dt.Mem.Clumps > m.st.Disk.Clumps:
		return 0, src.errorf("the destination has %d clumps and the source %d: %w", m.dt.Mem.Clumps, m.st.Disk.Clumps, ErrMirror)
	}
	if dst.Version != src.Version || dst.ClumpMagic != src.ClumpMagic || m.o.Force {
		if m.dt.Mem.Clumps > 0 && !m.o.Force {
			return 0, src.errorf("the destination's clumps are marked with %08x, the source's with %08x: %w", dst.ClumpMagic, src.ClumpMagic, ErrMirror)
		}
		if err := m.adopt(); err != nil {
			return 0, err
		}
	}
	if err := m.compareEnd(); err != nil {
		return 0, err
	}
	if sealed {
		return MirrorSealed, m.whole(ctx)
	}
	return MirrorCopied, m.part(ctx)
}

// adopt gives the destination the source's header, and a trailer of nothing
// that fits it.
func (m *mirror) adopt() error {
	block := make([]byte, m.src.BlockSize)
	if err := disk.ReadFull(m.src.file, block, m.src.Start); err != nil {
		return m.src.errorf("read header: %w", err)
	}
	if _, err := m.dst.file.WriteAt(block, m.dst.Start); err != nil {
		return m.dst.errorf("destination: %w", err)
	}
	m.dt = m.st
	m.dt.Disk, m.dt.Mem, m.dt.Seal = Stats{}, Stats{}, venti.Score{}
	m.dst.Version, m.dst.ClumpMagic = m.src.Version, m.src.ClumpMagic
	if err := m.dst.WriteTrailer(&m.dt); err != nil {
		return err
	}
	return m.dst.file.Sync()
}

// compareEnd reads the last of what the destination has in both, so that an
// arena of another store with the same name is not taken for an older copy.
func (m *mirror) compareEnd() error {
	n := int(m.dt.Disk.Clumps)
	if n == 0 {
		return nil
	}
	n = min(n, 1000)
	a, b := make([]ClumpInfo, n), make([]ClumpInfo, n)
	first := int(m.dt.Disk.Clumps) - n
	if err := m.src.ReadInfos(a, first); err != nil {
		return err
	}
	if err := m.dst.ReadInfos(b, first); err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	for i := range a {
		if a[i] != b[i] {
			return m.src.errorf("clump %d is %v, and in the destination %v: %w", first+i, a[i], b[i], ErrMirror)
		}
	}
	return nil
}

// part copies what the source's index has more than the destination.
func (m *mirror) part(ctx context.Context) error {
	if m.st.Disk.Clumps == m.dt.Disk.Clumps && m.dt.Mem == m.dt.Disk {
		return nil
	}
	bs := int64(m.src.BlockSize)
	from, to := m.src.Base()+m.dt.Disk.Used, m.src.Base()+m.st.Disk.Used
	if err := m.copy(ctx, roundDown(from, bs), min(roundUp(to, bs), m.src.Stop-bs), "data"); err != nil {
		return err
	}
	if err := m.directory(ctx); err != nil {
		return err
	}
	if err := m.dst.file.Sync(); err != nil {
		return err
	}
	t := m.st
	t.Disk.Sealed, t.Seal = false, venti.Score{}
	t.Mem = t.Disk
	if err := m.dst.WriteTrailer(&t); err != nil {
		return err
	}
	return m.dst.file.Sync()
}

// directory copies the blocks of the directory that have changed.
func (m *mirror) directory(ctx context.Context) error {
	bs := int64(m.src.BlockSize)
	end := m.src.Stop - bs
	same := int64(int(m.dt.Disk.Clumps)/m.src.perBlock()) * bs // they go down from the trailer
	return m.copy(ctx, end-m.src.dirUsed(int(m.st.Disk.Clumps)), end-same, "directory")
}

// whole copies a sealed arena, and the seal when all of it has been compared
// with that.
func (m *mirror) whole(ctx context.Context) error {
	src, bs := m.src, int64(m.src.BlockSize)
	tail := src.Stop - bs
	// A log that was copied up to somewhere is not copied again, but for the
	// block that it ends in.
	from := roundDown(src.Base()+m.dt.Disk.Used, bs)
	sum := sha1.New()
	if !m.o.Trust {
		if err := sumRange(ctx, sum, src.file, src.Start, from); err != nil {
			return src.errorf("%w", err)
		}
	}
	dirStart := tail - src.dirUsed(int(m.st.Disk.Clumps))
	logEnd := min(roundUp(src.Base()+m.st.Disk.Used, bs), dirStart)
	for _, r := range []struct {
		start, stop int64
		what        string
	}{{from, logEnd, "data"}, {logEnd, dirStart, "hole"}, {dirStart, tail, "directory"}} {
		if err := m.copySum(ctx, r.start, r.stop, r.what, sum); err != nil {
			return err
		}
	}
	// The trailer to the byte, but with no seal yet.
	block := make([]byte, bs)
	if err := disk.ReadFull(src.file, block, tail); err != nil {
		return src.errorf("read trailer: %w", err)
	}
	seal := bytes.Clone(block[bs-sealSize:])
	clear(block[bs-sealSize:])
	sum.Write(block)
	if err := m.dst.file.Sync(); err != nil {
		return err
	}
	if m.o.Copying != nil {
		m.o.Copying(tail, src.Stop-sealSize, "tail")
	}
	if got := venti.Score(sum.Sum(nil)); !m.o.Trust && got != venti.Score(seal) {
		return src.errorf("its bytes sum to %v and its seal is %v: %w", got, venti.Score(seal), venti.ErrCorrupt)
	}
	if _, err := m.dst.file.WriteAt(block, tail); err != nil {
		return err
	}
	if err := m.dst.file.Sync(); err != nil {
		return err
	}
	// What was copied by an earlier call has not been looked at: it is now.
	if !m.o.Trust {
		if got, err := m.dst.Sum(ctx); err != nil {
			return fmt.Errorf("destination: %w", err)
		} else if got != venti.Score(seal) {
			return src.errorf("the copy sums to %v, not %v: %w", got, venti.Score(seal), venti.ErrCorrupt)
		}
	}
	if _, err := m.dst.file.WriteAt(seal, src.Stop-sealSize); err != nil {
		return err
	}
	return m.dst.file.Sync()
}

// copy copies a range of the partition.
func (m *mirror) copy(ctx context.Context, start, stop int64, what string) error {
	return m.copySum(ctx, start, stop, what, io.Discard)
}

// copySum copies a range of the partition, and writes it to sum too.
func (m *mirror) copySum(ctx context.Context, start, stop int64, what string, sum io.Writer) error {
	if start >= stop {
		return nil
	}
	if m.o.Copying != nil {
		m.o.Copying(start, stop, what)
	}
	buf := make([]byte, min(chunkSize, stop-start))
	for off := start; off < stop; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(int64(len(buf)), stop-off)]
		if err := disk.ReadFull(m.src.file, b, off); err != nil {
			return m.src.errorf("%w", err)
		}
		if _, err := m.dst.file.WriteAt(b, off); err != nil {
			return m.dst.errorf("destination: %w", err)
		}
		sum.Write(b)
		off += int64(len(b))
	}
	return nil
}

// sumRange writes a range of f to sum.
func sumRange(ctx context.Context, sum io.Writer, f io.ReaderAt, start, stop int64) error {
	buf := make([]byte, max(0, min(chunkSize, stop-start)))
	for off := start; off < stop; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(int64(len(buf)), stop-off)]
		if err := disk.ReadFull(f, b, off); err != nil {
			return err
		}
		sum.Write(b)
		off += int64(len(b))
	}
	return nil
}
