package fossil

import (
	"context"
	"errors"
	"fmt"
	"time"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/fossil/internal/stream"
	"strata/internal/disk"
	"strata/vac/meta"
	"strata/venti"
)

// DefaultBlockSize is the block size of a file system that is not told one.
const DefaultBlockSize = 8192

// The user who owns what belongs to nobody else.
const adm = "adm"

// FormatConfig holds the options of Format.
type FormatConfig struct {
	BlockSize int              // 0 means DefaultBlockSize
	Name      string           // at most 127 bytes; "" means vfs
	Now       func() time.Time // nil means time.Now

	// Score, unless it is zero, is that of an archive of a file system, on Venti,
	// of which the new one is to be.
	Venti venti.Store
	Score venti.Score
}

// Format makes file a file system with the directories active, archive and
// snapshot, which hold nothing. What was there is lost.
func Format(ctx context.Context, file disk.File, cfg FormatConfig) error {
	if cfg.BlockSize == 0 {
		cfg.BlockSize = DefaultBlockSize
	}
	if cfg.Name == "" {
		cfg.Name = "vfs"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if !cfg.Score.IsZero() {
		if err := restore(ctx, file, cfg); err != nil {
			return fmt.Errorf("format from vac:%v: %w", cfg.Score, err)
		}
		return nil
	}
	if err := buffer.Format(file, cfg.BlockSize, cfg.Name, format.NewEntry(cfg.BlockSize, true), 2); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	if err := makeRoot(ctx, file, uint32(cfg.Now().Unix())); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	fs, err := Open(file, Config{NoAtime: true, Now: cfg.Now})
	if err != nil {
		return fmt.Errorf("format: %w", err)
	}
	for _, name := range []string{"active", "archive", "snapshot"} {
		if _, err = fs.root.Create(ctx, name, meta.ModeDir|0o555, adm); err != nil {
			break
		}
	}
	if err = errors.Join(err, fs.Close(ctx)); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	return nil
}

// Formatted tells whether file has the header of a file system.
func Formatted(file disk.File) bool {
	_, err := BlockSizeOf(file)
	return err == nil
}

// BlockSizeOf returns how many bytes are in a block of the file system in file.
func BlockSizeOf(file disk.File) (int, error) {
	b := make([]byte, format.HeaderSize)
	if err := disk.ReadFull(file, b, format.HeaderOffset); err != nil {
		return 0, err
	}
	h, err := format.UnpackHeader(b, file.Size())
	return h.BlockSize, err
}

// makeRoot makes the streams of the root directory.
func makeRoot(ctx context.Context, file disk.File, now uint32) error {
	b, err := buffer.Open(file, buffer.Config{})
	if err != nil {
		return err
	}
	err = b.Update(ctx, func(tx *buffer.Tx) error {
		var last *stream.Stream
		for slot := range int64(3) {
			s, err := stream.Root().Create(tx, slot, slot == 0)
			if err != nil {
				return err
			}
			if got, _ := s.Slot(); got != slot {
				return fmt.Errorf("stream of the root directory is in slot %d, not %d", got, slot)
			}
			last = s
		}
		data, err := last.ChangeLeaf(tx, 0)
		if err != nil {
			return err
		}
		return meta.New(data, meta.MaxIndex(len(data)), meta.ShorterFirst).Insert(&meta.DirEntry{
			Version: 9, Name: "root", Entry: 0, MEntry: 1, Qid: 1, UID: adm, GID: adm, MID: adm,
			Mtime: now, Ctime: now, Atime: now, Mode: meta.ModeDir | 0o555,
		})
	})
	return errors.Join(err, b.Close(ctx))
}

// restore makes file a file system of an archive, all of which stays on Venti.
func restore(ctx context.Context, file disk.File, cfg FormatConfig) error {
	if cfg.Venti == nil {
		return ErrNoVenti
	}
	entries, err := archiveRoot(ctx, cfg)
	if err != nil {
		return err
	}
	qid, err := archiveQids(ctx, cfg, entries[2])
	if err != nil {
		return err
	}
	if err := buffer.Format(file, cfg.BlockSize, cfg.Name, format.NewEntry(cfg.BlockSize, true), qid); err != nil {
		return err
	}
	b, err := buffer.Open(file, buffer.Config{Venti: cfg.Venti})
	if err != nil {
		return err
	}
	err = b.Update(ctx, func(tx *buffer.Tx) error {
		for i, e := range entries {
			s, err := stream.Root().Create(tx, int64(i), e.Dir)
			if err != nil {
				return err
			}
			e.Gen = 0
			if err := s.Set(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, b.Close(ctx))
}

// archiveRoot returns the entries of an archive's root directory: its files,
// their names, and its own attributes. Fossil's archives have them one level
// further down.
func archiveRoot(ctx context.Context, cfg FormatConfig) (list [3]format.Entry, err error) {
	root, err := readRoot(ctx, cfg.Venti, cfg.Score)
	if err != nil {
		return list, err
	}
	if root.Type != "vac" {
		return list, fmt.Errorf("root is of type %q, not vac", root.Type)
	}
	return rootEntries(ctx, cfg.Venti, root, cfg.BlockSize)
}

// readRoot reads a root block.
func readRoot(ctx context.Context, br venti.BlockReader, score venti.Score) (venti.Root, error) {
	buf := make([]byte, venti.MaxBlockSize)
	n, err := br.ReadBlock(ctx, score, venti.RootType, buf)
	if err != nil {
		return venti.Root{}, err
	}
	return venti.UnpackRoot(buf[:n])
}

// rootEntries returns the entries of the root directory below a vac root, for
// blocks of so many bytes.
func rootEntries(ctx context.Context, br venti.BlockReader, root venti.Root, blockSize int) (list [3]format.Entry, err error) {
	buf := make([]byte, venti.MaxBlockSize)
	n, err := br.ReadBlock(ctx, root.Score, venti.DirType, buf)
	if err != nil {
		return list, err
	}
	// Zeros at the end of a block are not kept, so that it may be some bytes
	// shorter than its entries.
	clear(buf[n:])
	if n <= 2*format.EntrySize {
		e := format.EntryAt(buf, 0)
		if e.Depth != 0 {
			return list, fmt.Errorf("%w: root directory of depth %d", format.ErrEntry, e.Depth)
		}
		if n, err = br.ReadBlock(ctx, e.Root.Score(), venti.DirType, buf); err != nil {
			return list, err
		}
		clear(buf[n:])
	}
	if n <= 2*format.EntrySize || n > len(list)*format.EntrySize {
		return list, fmt.Errorf("root directory has %d bytes, want %d entries", n, len(list))
	}
	for i := range list {
		list[i] = format.EntryAt(buf, i)
		if err := list[i].Check(blockSize); err != nil {
			return list, fmt.Errorf("root directory: entry %d: %w", i, err)
		}
		if list[i].Dir != (i == 0) {
			return list, fmt.Errorf("root directory: entry %d: %w", i, format.ErrEntry)
		}
	}
	return list, nil
}

// archiveQids returns the first qid that is free in an archive, of whose root
// directory's attributes that is the entry.
func archiveQids(ctx context.Context, cfg FormatConfig, e format.Entry) (uint64, error) {
	root, err := rootAttributes(ctx, cfg.Venti, e)
	if err != nil {
		return 0, err
	}
	if !root.QidSpace || root.QidMax == 0 {
		return 0, errors.New("bad root: no qid space, so it is not an archive of a file system")
	}
	return root.QidMax, nil
}

// rootAttributes returns the attributes of a root directory, which is the one
// entry in the one block of a stream.
func rootAttributes(ctx context.Context, br venti.BlockReader, e format.Entry) (meta.DirEntry, error) {
	if e.Depth != 0 {
		return meta.DirEntry{}, fmt.Errorf("attributes of the root directory: %w: depth %d", format.ErrEntry, e.Depth)
	}
	buf := make([]byte, e.DSize)
	n, err := br.ReadBlock(ctx, e.Root.Score(), venti.DataType, buf)
	if err != nil {
		return meta.DirEntry{}, err
	}
	clear(buf[n:])
	b, err := meta.Open(buf)
	if err != nil {
		return meta.DirEntry{}, err
	}
	if b.Len() == 0 {
		return meta.DirEntry{}, fmt.Errorf("%w: no entry for the root directory", ErrBadMeta)
	}
	return b.Entry(0)
}

// ReadConfig returns the console commands that a partition has before its file
// system. It can be read while that is in use.
func ReadConfig(name string) (string, error) {
	p, err := disk.Open(name, disk.Options{ReadOnly: true, Unlocked: true})
	if err != nil {
		return "", err
	}
	defer p.Close()
	b := make([]byte, format.ConfigSize)
	if err := disk.ReadFull(p, b, format.ConfigOffset); err != nil {
		return "", err
	}
	return format.UnpackConfig(b)
}
