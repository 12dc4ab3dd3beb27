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
