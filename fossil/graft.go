package fossil

import (
	"context"
	"errors"
	"fmt"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/fossil/internal/stream"
	"strata/vac/meta"
	"strata/venti"
)

// Graft makes what a root block on Venti names a new file of the directory f:
// of a vac archive the directory at its top, of any other root its n-th stream.
// Nothing is read but what leads there, and nothing copied: what is written is
// copied then. Blocks must not be larger than the file system's. uid is who
// does.
func (f *File) Graft(ctx context.Context, name string, score venti.Score, n int, uid string) (*File, error) {
	wait, cancel := context.WithTimeout(ctx, f.fs.cfg.Patience)
	defer cancel()
	c, err := f.graft(wait, name, score, n, uid)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("%w: no answer in %v", buffer.ErrVenti, f.fs.cfg.Patience)
	}
	if err != nil {
		return nil, fmt.Errorf("graft %v: %w", score, translate(err))
	}
	return c, nil
}

func (f *File) graft(ctx context.Context, name string, score venti.Score, n int, uid string) (*File, error) {
	if f.fs.venti == nil {
		return nil, ErrNoVenti
	}
	root, err := readRoot(ctx, f.fs.venti, score)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", buffer.ErrVenti, err)
	}
	if root.Type == "vac" {
		return f.graftDir(ctx, name, root, uid)
	}
	e, err := f.fs.rootStream(ctx, root, n)
	if err != nil {
		return nil, err
	}
	var c *File
	err = f.fs.b.Update(ctx, func(tx *buffer.Tx) (err error) {
		if c, err = f.create(tx, name, 0o644, uid); err != nil {
			return err
		}
		return c.data.Set(tx, e)
	})
	return c, err
}

// rootStream returns the n-th entry below a root that is no archive's.
func (fs *FS) rootStream(ctx context.Context, root venti.Root, n int) (format.Entry, error) {
	buf := make([]byte, venti.MaxBlockSize)
	m, err := fs.venti.ReadBlock(ctx, root.Score, venti.DirType, buf)
	if err != nil {
		return format.Entry{}, fmt.Errorf("%w: %w", buffer.ErrVenti, err)
	}
	clear(buf[m:])
	if n < 0 || n >= len(buf)/format.EntrySize {
		return format.Entry{}, fmt.Errorf("%w: no entry %d", format.ErrEntry, n)
	}
	if buf[n*format.EntrySize+8]&0x40 != 0 {
		return format.Entry{}, fmt.Errorf("%w: blocks of entry %d are larger than %d bytes", format.ErrEntry, n, format.MaxBlockSize)
	}
	e := format.EntryAt(buf, n)
	if err := e.Check(fs.b.BlockSize()); err != nil {
		return e, fmt.Errorf("entry %d: %w; the file system has blocks of %d bytes", n, err, fs.b.BlockSize())
	}
	if e.Dir {
		return e, fmt.Errorf("entry %d: %w: a directory without names", n, format.ErrEntry)
	}
	return plain(e), nil
}

// plain returns an entry of Venti's as that of a stream of ours.
func plain(e format.Entry) format.Entry {
	e.NoArchive, e.Gen = false, 0
	return e
}

// graftDir makes the directory at the top of a vac archive one of ours. Its
// files keep their qids in a space of their own.
func (f *File) graftDir(ctx context.Context, name string, root venti.Root, uid string) (*File, error) {
	entries, err := rootEntries(ctx, f.fs.venti, root, f.fs.b.BlockSize())
	if err != nil {
		return nil, err
	}
	top, err := rootAttributes(ctx, f.fs.venti, entries[2])
	if err != nil {
		return nil, err
	}
	if !top.QidSpace {
		return nil, errors.New("the archive does not say how many qids its files have")
	}
	var c *File
	err = f.fs.b.Update(ctx, func(tx *buffer.Tx) (err error) {
		mode := meta.ModeDir | top.Mode&meta.ModePerm
		if c, err = f.create(tx, name, mode, uid); err != nil {
			return err
		}
		for i, s := range []*stream.Stream{c.data, c.meta} {
			if err := s.Set(tx, plain(entries[i])); err != nil {
				return err
			}
		}
		super := tx.Super()
		e := c.dir
		// Below, qids count from 1, or so; the directory has 0.
		e.Qid, e.QidSpace, e.QidMax = 0, true, top.QidMax
		e.QidOffset = super.QID - f.offset()
		super.QID += top.QidMax + 1
		tx.SetSuper(super)
		c.index, c.dir = nil, e
		c.block, err = f.replace(tx, c.block, name, &e)
		return err
	})
	return c, err
}
