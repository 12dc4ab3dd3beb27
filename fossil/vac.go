package fossil

import (
	"context"
	"fmt"
	"syscall"

	"strata/fossil/internal/buffer"
	"strata/fossil/internal/format"
	"strata/internal/ninep"
	"strata/vac/meta"
	"strata/venti"
)

// ErrNotOnVenti is why a directory has no score. Linux clients, who see only the
// number, are told to try again.
var ErrNotOnVenti = &ninep.Error{Text: "can only vac paths already stored on venti", Errno: syscall.EAGAIN}

// maxRootName is how long the name in a root block can be.
const maxRootName = 127

// Vac returns the score of a directory that is on Venti, such as an archive's,
// as that of a vac archive of its own: what vac's programs read, and Graft
// takes. It writes the root of that, three small blocks, which are the same each
// time; nothing of the directory is copied.
func (fs *FS) Vac(ctx context.Context, path string) (venti.Score, error) {
	f, err := fs.Walk(ctx, path)
	if err != nil {
		return venti.Score{}, err
	}
	return f.Vac(ctx)
}

// Vac is FS.Vac of the directory f.
func (f *File) Vac(ctx context.Context) (venti.Score, error) {
	s, err := f.vac(ctx)
	if err != nil {
		return s, fmt.Errorf("vac: %w", translate(err))
	}
	return s, nil
}

func (f *File) vac(ctx context.Context) (s venti.Score, err error) {
	if f.fs.venti == nil {
		return s, ErrNoVenti
	}
	if !f.IsDir() {
		return s, ErrNotDir
	}
	var list [3]format.Entry
	var top meta.DirEntry
	err = f.fs.b.View(ctx, func(tx *buffer.Tx) (err error) {
		if list[0], err = f.data.Entry(tx); err != nil {
			return err
		}
		if list[1], err = f.meta.Entry(tx); err != nil {
			return err
		}
		top = f.dir
		// All qids in a snapshot are older than its own.
		top.QidSpace, top.QidOffset, top.QidMax = true, 0, tx.Super().QID
		for up := f; up != nil && up.snap; up = up.parent {
			if up.dir.Mode&meta.ModeSnapshot != 0 {
				top.QidMax = up.qid()
			}
		}
		top.QidMax -= f.offset()
		return nil
	})
	if err != nil {
		return s, err
	}
	if list[0].Local || list[1].Local {
		return s, ErrNotOnVenti
	}
	top.Entry, top.Gen, top.MEntry, top.MGen = 0, 0, 1, 0
	top.Mode &^= meta.ModeSnapshot
	modernize(&top)
	size := list[1].DSize
	data := make([]byte, size)
	if err := meta.New(data, 1, meta.ShorterFirst).Insert(&top); err != nil {
		return s, err
	}
	list[2] = format.NewEntry(size, false)
	list[2].Size = int64(size)
	write := func(t format.Type, data []byte) (s venti.Score, err error) {
		if s, err = f.fs.venti.WriteBlock(ctx, venti.Type(t), format.Truncate(data, t)); err != nil {
			err = fmt.Errorf("%w: write block: %w", buffer.ErrVenti, err)
		}
		return s, err
	}
	if s, err = write(format.Data, data); err != nil {
		return s, err
	}
	list[2].Root = format.Pointer(s)
	block := make([]byte, len(list)*format.EntrySize)
	for i := range list {
		e := plain(list[i])
		format.PutEntry(block, i, &e)
	}
	if s, err = write(format.Dir, block); err != nil {
		return s, err
	}
	name := top.Name[:min(len(top.Name), maxRootName)]
	s, err = writeRoot(ctx, f.fs.venti, venti.Root{Name: name, Type: "vac", Score: s, BlockSize: size})
	if err != nil {
		return s, err
	}
	if err := f.fs.venti.Sync(ctx); err != nil {
		return s, fmt.Errorf("%w: sync: %w", buffer.ErrVenti, err)
	}
	return s, nil
}
