package tree

import (
	"context"
	"errors"

	"strata/fossil"
	"strata/internal/ninep"
)

// scoreXattr is the extended attribute of a directory that is on Venti, such
// as an archive's: its score, as that of a vac archive of its own (see
// fossil.File.Vac).
const scoreXattr = "user.vac.score"

// Xattrs implements ninep.Xattrer.
func (n dirNode) Xattrs(ctx context.Context) ([]string, error) {
	info, err := n.file.Stat(ctx)
	if err != nil || !info.OnVenti {
		return nil, err
	}
	return []string{scoreXattr}, nil
}

// Xattr implements ninep.Xattrer.
func (n dirNode) Xattr(ctx context.Context, name string) ([]byte, error) {
	if name != scoreXattr {
		return nil, ninep.ErrNoXattr
	}
	if err := n.access(permRead); err != nil {
		return nil, err
	}
	s, err := n.file.Vac(ctx)
	switch {
	case errors.Is(err, fossil.ErrNotOnVenti), errors.Is(err, fossil.ErrNoVenti):
		return nil, ninep.ErrNoXattr
	case err != nil:
		return nil, err
	}
	return []byte("vac:" + s.String()), nil
}

// SetXattr implements ninep.Xattrer.
func (n dirNode) SetXattr(context.Context, string, []byte, int) error { return ninep.ErrNotSupported }

// RemoveXattr implements ninep.Xattrer.
func (n dirNode) RemoveXattr(context.Context, string) error { return ninep.ErrNotSupported }
