package arena

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"

	"strata/internal/disk"
	"strata/venti"
)

// The sizes of FormatConfig's zero value, in bytes.
const (
	DefaultArenaSize = 512 << 20
	DefaultBlockSize = 8 << 10
)

// minRest is the smallest remainder of a partition that becomes an arena of
// its own, in bytes.
const minRest = 1 << 20

// A FormatConfig says how a partition is to be divided. Its zero value, but
// for the name, is what Plan 9's formatter does.
type FormatConfig struct {
	Name      string    // arenas are called this and 0, 1 and so on
	ArenaSize int64     // in bytes, header and trailer included
	BlockSize int       // in bytes, a power of two
	Version   int       // Version5 if 0
	Zero      bool      // write zeros where arenas will be; version 4 relies on them
	Rand      io.Reader // where clump magics come from, crypto/rand if nil
}

// Format makes f a partition of empty arenas and returns it. It syncs f. What
// is in the first PartBlank bytes stays.
func Format(ctx context.Context, f disk.File, cfg FormatConfig) (*Partition, error) {
	p, err := cfg.divide(f.Size())
	if err != nil {
		return nil, fmt.Errorf("format arena partition: %w", err)
	}
	p.file = f
	if err := p.write(ctx, cfg); err != nil {
		return nil, fmt.Errorf("format arena partition: %w", err)
	}
	return p, nil
}

// divide fills in cfg and says where arenas go in size bytes.
func (cfg *FormatConfig) divide(size int64) (*Partition, error) {
	if cfg.ArenaSize == 0 {
		cfg.ArenaSize = DefaultArenaSize
	}
	if cfg.BlockSize == 0 {
		cfg.BlockSize = DefaultBlockSize
	}
	if cfg.Version == 0 {
		cfg.Version = Version5
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	switch {
	case cfg.Version != Version4 && cfg.Version != Version5:
		return nil, fmt.Errorf("bad version %d", cfg.Version)
	case !validBlockSize(cfg.BlockSize):
		return nil, fmt.Errorf("bad block size %d: want a power of two from %d to %d", cfg.BlockSize, minBlockSize, maxBlockSize)
	}
	bs := int64(cfg.BlockSize)
	h := partHeader{blockSize: cfg.BlockSize}
	h.arenaBase = roundUp(h.tableBase()+defaultTableSize, bs)
	arenaSize := roundDown(cfg.ArenaSize, bs)
	if a := (Arena{Extent: Extent{Stop: arenaSize}, BlockSize: cfg.BlockSize}); !a.Fits(Pos{}, venti.MaxBlockSize) {
		return nil, fmt.Errorf("bad arena size %d: no room for a lump of %d", cfg.ArenaSize, venti.MaxBlockSize)
	}
	limit := roundDown(size, bs)
	rest := limit - h.arenaBase
	n := rest / arenaSize
	if rest-n*arenaSize >= minRest {
		n++
	}
	switch {
	case n <= 0:
		return nil, fmt.Errorf("%d bytes have no room for an arena of %d", size, min(arenaSize, minRest))
	case n > MaxArenas:
		return nil, fmt.Errorf("%d arenas are more than a table holds, %d: use larger ones", n, MaxArenas)
	}
	p := &Partition{BlockSize: cfg.BlockSize, ArenaBase: h.arenaBase, Arenas: make([]Extent, n)}
	start := h.arenaBase
	for i := range p.Arenas {
		stop := start + arenaSize
		if i == len(p.Arenas)-1 {
			stop = limit
		}
		p.Arenas[i] = Extent{cfg.Name + strconv.Itoa(i), start, stop}
		start = stop
	}
	if last := p.Arenas[n-1].Name; !validName(last) {
		return nil, fmt.Errorf("bad arena name %q", last)
	}
	if text := len(packTable(p.Arenas)); int64(text) >= h.arenaBase-h.tableBase() {
		return nil, fmt.Errorf("table of %d arenas takes %d bytes: use larger arenas or a shorter name", n, text)
	}
	return p, nil
}

// write puts p on the disk: arenas first and the header last, so that it is
// no partition until it is a whole one. An old header goes before all.
func (p *Partition) write(ctx context.Context, cfg FormatConfig) error {
	if err := p.writeAt(make([]byte, partHeaderSize), PartBlank); err != nil {
		return err
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	if cfg.Zero {
		if err := p.zero(ctx); err != nil {
			return err
		}
	}
	block := make([]byte, p.BlockSize)
	for _, e := range p.Arenas {
		if err := ctx.Err(); err != nil {
			return err
		}
		a := Arena{Extent: e, Version: cfg.Version, BlockSize: p.BlockSize, file: p.file}
		var err error
		if a.ClumpMagic, err = cfg.clumpMagic(); err != nil {
			return err
		}
		clear(block)
		t := Trailer{Version: a.Version, Name: a.Name, ClumpMagic: a.ClumpMagic}
		t.Pack(block)
		if err := p.writeAt(block, e.Stop-int64(len(block))); err != nil {
			return err
		}
		clear(block)
		h := a.header()
		h.pack(block)
		if err := p.writeAt(block, e.Start); err != nil {
			return err
		}
		clear(block)
		if err := p.writeAt(block, e.Start+int64(len(block))); err != nil {
			return err
		}
	}
	h := partHeader{p.BlockSize, p.ArenaBase}
	table := make([]byte, p.TableSize())
	copy(table, packTable(p.Arenas))
	if err := p.writeAt(table, h.tableBase()); err != nil {
		return err
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	var b [partHeaderSize]byte
	h.pack(b[:])
	if err := p.writeAt(b[:], PartBlank); err != nil {
		return err
	}
	return p.file.Sync()
}

func (p *Partition) writeAt(b []byte, off int64) error {
	if _, err := p.file.WriteAt(b, off); err != nil {
		return fmt.Errorf("write at %d: %w", off, err)
	}
	return nil
}

// clumpMagic draws a magic that is neither a free word nor version 4's.
func (cfg *FormatConfig) clumpMagic() (uint32, error) {
	if cfg.Version == Version4 {
		return v4ClumpMagic, nil
	}
	for {
		var b [4]byte
		if _, err := io.ReadFull(cfg.Rand, b[:]); err != nil {
			return 0, fmt.Errorf("clump magic: %w", err)
		}
		if m := binary.BigEndian.Uint32(b[:]); m != 0 && m != v4ClumpMagic {
			return m, nil
		}
	}
}

// zero makes everything from PartBlank to the last arena's end zero. What is
// zero already it does not write, so that a sparse file stays one.
func (p *Partition) zero(ctx context.Context) error {
	var (
		stop  = p.Arenas[len(p.Arenas)-1].Stop
		buf   = make([]byte, chunkSize)
		zeros = make([]byte, chunkSize)
	)
	for off := int64(PartBlank); off < stop; off += chunkSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(chunkSize, stop-off)]
		if err := disk.ReadFull(p.file, b, off); err != nil {
			return err
		}
		if bytes.Equal(b, zeros[:len(b)]) {
			continue
		}
		if err := p.writeAt(zeros[:len(b)], off); err != nil {
			return err
		}
	}
	return nil
}
